package main

import (
	"strings"
	"testing"

	"towpath/internal/testkit/pages"
)

// The page shows what the example really goes through.
func TestTheSimulationOnItsPageIsTrue(t *testing.T) {
	code, out, errs := towpath(t, nil, "simulate", "-f", "../../examples/canary/towpath.yaml", "--from", "2026-03-02T09:00:00Z")
	if code != 0 {
		t.Fatalf("exit %d\n%s", code, errs)
	}
	page := pages.Read(t, "docs/how-to/simulate.md")
	for _, block := range page.Blocks {
		if strings.HasPrefix(block.Text, "shop from ") {
			if block.Text != out {
				t.Errorf("%s:%d is not what the example goes through:\n%s", page.Path, block.Line, out)
			}
			return
		}
	}
	t.Errorf("%s shows no simulation", page.Path)
}
