package main

import (
	"errors"
	"strings"
	"testing"

	"towpath/internal/testkit/pages"
)

// What a page tells its reader to type is understood.
func TestEachCommandOnAPageIsOne(t *testing.T) {
	found := pages.Commands(t, pages.All(t), "towpath")
	if len(found) < 10 {
		t.Errorf("only %d commands were found on the pages", len(found))
	}
	for _, c := range found {
		command, rest, err := (&commandLine{}).root().Find(c.Args)
		if err == nil {
			err = command.ParseFlags(rest)
		}
		if err == nil {
			err = command.ValidateArgs(command.Flags().Args())
		}
		if err == nil {
			err = command.ValidateRequiredFlags()
		}
		if err == nil && !command.Runnable() {
			err = errors.New("it needs a further word")
		}
		if err != nil {
			t.Errorf("%s: towpath %s: %v", c.Where, strings.Join(c.Args, " "), err)
		}
	}
}
