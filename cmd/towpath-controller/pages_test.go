package main

import (
	"strings"
	"testing"

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
