package main

import (
	"strings"
	"testing"

	"towpath/cmd/towpath-controller/config"
	"towpath/internal/testkit/pages"
)

// What a page tells its reader to type is understood.
func TestEachCommandOnAPageIsOne(t *testing.T) {
	found := pages.Commands(t, pages.All(t), "towpath-controller")
	if len(found) == 0 {
		t.Error("no page says how to start the controller")
	}
	for _, c := range found {
		found, rest, err := command().Find(c.Args)
		if err == nil {
			err = found.ParseFlags(rest)
		}
		if err == nil {
			err = found.ValidateArgs(found.Flags().Args())
		}
		if err == nil {
			err = found.ValidateRequiredFlags()
		}
		if err != nil {
			t.Errorf("%s: towpath-controller %s: %v", c.Where, strings.Join(c.Args, " "), err)
		}
	}
}

func TestEachMetricProviderOnAPageIsGood(t *testing.T) {
	t.Parallel()
	found := 0
	for _, p := range pages.All(t) {
		for _, b := range p.Blocks {
			if !strings.HasPrefix(b.Text, "metricProviders:") {
				continue
			}
			found++
			c, err := config.Parse(p.Path, []byte("externalURL: https://localhost\ndatabase: sqlite:x\nkeyFile: x\ndata: x\n"+b.Text))
			if err != nil {
				t.Errorf("line %d: %v", b.Line, err)
			} else if _, err := newMetricProviders(c.MetricProviders, nil); err != nil {
				t.Errorf("%s:%d: %v", p.Path, b.Line, err)
			}
		}
	}
	if found == 0 {
		t.Error("no page shows a metric provider")
	}
}
