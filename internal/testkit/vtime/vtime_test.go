package vtime_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"towpath/internal/testkit/vtime"
)

func TestTasksTakeTurnsInTheOrderOfTheirTimes(t *testing.T) {
	start := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	w := vtime.New(start)
	var seen []string
	say := func(what string) { seen = append(seen, fmt.Sprint(what, " ", w.Now().Sub(start))) }
	var group, dying vtime.Group
	w.Go(&group, func() {
		say("a")
		w.Sleep(2 * time.Hour)
		say("a")
	})
	w.Go(&group, func() {
		w.SetValue("mine")
		say("b")
		w.Sleep(time.Hour)
		say("b " + w.Value().(string))
	})
	ended := false
	w.Go(&dying, func() {
		defer func() { ended = true }()
		say("c")
		w.Sleep(3 * time.Hour)
		say("c")
	})
	w.After(90*time.Minute, func() {
		say("kill")
		w.Kill(&dying)
		w.Go(&dying, func() { say("d") })
	})
	for _, any := w.Next(); any; _, any = w.Next() {
		w.Step()
	}
	if want := []string{"a 0s", "b 0s", "c 0s", "b mine 1h0m0s", "kill 1h30m0s", "a 2h0m0s"}; !slices.Equal(seen, want) || !ended {
		t.Errorf("%q, want %q; the killed one has ended: %v", seen, want, ended)
	}
}

func TestATaskThatKillsItsOwnGroupGoesNoFurther(t *testing.T) {
	w := vtime.New(time.Time{})
	var group vtime.Group
	far := false
	w.Go(&group, func() { w.Sleep(time.Hour); far = true })
	w.Go(&group, func() { w.Kill(&group); far = true })
	for _, any := w.Next(); any; _, any = w.Next() {
		w.Step()
	}
	if far {
		t.Error("a killed task went on")
	}
}
