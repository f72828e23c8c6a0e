package main

import (
	"bytes"
	"strings"
	"testing"

	"towpath/api"
)

// screen is a terminal so wide and high; it keeps what it shows.
func screen(columns, rows int, text string) []string {
	lines, row := []string{""}, 0
	for i := 0; i < len(text); i++ {
		if strings.HasPrefix(text[i:], "\x1b[") {
			end := i + strings.IndexAny(text[i:], "AJ")
			if text[end] == 'A' {
				up := 0
				for _, digit := range text[i+2 : end] {
					up = 10*up + int(digit-'0')
				}
				row = max(row-up, len(lines)-rows, 0)
			} else {
				lines = append(lines[:row], "")
			}
			i = end
			continue
		}
		if text[i] == '\n' || len(lines[row]) == columns {
			row++
			if row == len(lines) {
				lines = append(lines, "")
			}
			if text[i] == '\n' {
				continue
			}
		}
		lines[row] += text[i : i+1]
	}
	return lines
}

func TestALiveViewDrawsOverItselfHoweverNarrowOrLowTheTerminalIs(t *testing.T) {
	for name, c := range map[string]struct{ columns, rows, targets int }{"wide": {200, 50, 3}, "narrow": {40, 50, 3}, "low": {200, 6, 20}, "both": {30, 5, 20}} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			l := &live{out: &out, size: func() (int, int) { return c.columns, c.rows }}
			for range 5 {
				d := api.Deployment{ID: "d1", Application: "shop", Number: 7, State: "RUNNING"}
				for i := range c.targets {
					d.Targets = append(d.Targets, api.Target{Name: strings.Repeat("t", i+1), State: "RUNNING", Waits: []api.Wait{{Kind: "health", Needs: strings.Repeat("a long sentence ", 10)}}})
				}
				l.show(d)
			}
			lines := screen(c.columns, c.rows, strings.NewReplacer("🟡", "xx", "…", ".").Replace(out.String()))
			heads := 0
			for _, line := range lines {
				if strings.HasPrefix(line, "shop #7") {
					heads++
				}
			}
			if heads != 1 || len(lines) > c.rows {
				t.Errorf("the head is there %d times, in %d lines:\n%s", heads, len(lines), strings.Join(lines, "\n"))
			}
		})
	}
}

func TestAPlainViewTellsEachWaitOnceAndUnhealthyObjectsWithTheBeat(t *testing.T) {
	var out bytes.Buffer
	view := (&commandLine{out: &out, output: "text"}).view()
	says := func(want ...string) {
		t.Helper()
		var got []string
		for line := range strings.Lines(out.String()) {
			_, text, _ := strings.Cut(strings.TrimSpace(line), "] ")
			got = append(got, text)
		}
		out.Reset()
		if strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("it says %q, want %q", got, want)
		}
	}
	target := func(waits ...api.Wait) api.Deployment {
		return api.Deployment{State: "RUNNING", Targets: []api.Target{{Name: "prod", Waits: waits}}}
	}
	approval := api.Wait{Kind: "approval", Gate: "canary.steps[1]", Needs: "approval of canary.steps[1]: 0 of 2", Command: "towpath deploy approve d1 prod"}
	view.show(target(approval))
	says("Deployment status changed: RUNNING", "prod waits for approval of canary.steps[1]: 0 of 2  → towpath deploy approve d1 prod")
	view.show(target(approval))
	says()
	approval.Needs = "approval of canary.steps[1]: 1 of 2 (ann)"
	view.show(target(approval))
	says("prod waits for approval of canary.steps[1]: 1 of 2 (ann)  → towpath deploy approve d1 prod")
	view.show(target(api.Wait{Kind: "health", Needs: "ReplicaSet.apps shop/web-b: 1 of 3 pods ready"}))
	view.show(target(api.Wait{Kind: "health", Needs: "ReplicaSet.apps shop/web-b: 2 of 3 pods ready: ErrImagePull"}))
	says()
	view.beat()
	says("prod waits for ReplicaSet.apps shop/web-b: 2 of 3 pods ready: ErrImagePull")
	view.show(target(api.Wait{Kind: "agent", Needs: "the agent prod to connect", Why: "since 2026-03-02 09:00 UTC: the agent stopped"}))
	says("prod waits for the agent prod to connect (since 2026-03-02 09:00 UTC: the agent stopped)")
	view.show(target())
	view.beat()
	says(".")
	view.show(target(approval))
	says("prod waits for approval of canary.steps[1]: 1 of 2 (ann)  → towpath deploy approve d1 prod")
}
