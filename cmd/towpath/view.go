package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"towpath/api"
)

// view shows how a deployment goes on.
type view interface {
	show(d api.Deployment)
	event(e api.Event)
	beat() // ten seconds went by
}

func (c *commandLine) view() view {
	if file, ok := c.out.(*os.File); ok && c.output == "text" && term.IsTerminal(int(file.Fd())) {
		return &live{out: c.out}
	}
	return &plain{c: c}
}

// plain prints a line for each change of state.
type plain struct {
	c    *commandLine
	last string
}

func (p *plain) show(d api.Deployment) {
	if d.State != p.last {
		p.c.line("Deployment status changed: %s", d.State)
		p.last = d.State
	}
}

func (p *plain) event(e api.Event) {
	if e.Target == "" {
		return
	}
	text := e.What
	if e.Why != "" {
		text += ": " + e.Why
	}
	p.c.line("%s", text)
}

// beat prints a line too, so that a job that is watched for silence goes on.
func (p *plain) beat() { p.c.line(".") }

// live draws the tree of targets anew in its place.
type live struct {
	out   io.Writer
	lines int
}

func (l *live) show(d api.Deployment) {
	text := clean(tree(d))
	if l.lines > 0 {
		fmt.Fprintf(l.out, "\x1b[%dA\x1b[J", l.lines)
	}
	fmt.Fprint(l.out, text)
	l.lines = strings.Count(text, "\n")
}

func (l *live) event(api.Event) {}
func (l *live) beat()           {}

var marks = map[string]string{"QUEUED": "⏳", "RUNNING": "🟡", "PAUSED": "⏸", "AWAITING_APPROVAL": "✋", "SUCCEEDED": "✅", "FAILED": "❌", "ROLLED_BACK": "↩️", "CANCELLED": "🚫", "REJECTED": "🚫"}

// tree is a deployment's targets, each below the one that it depends on, with what each waits for.
func tree(d api.Deployment) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s #%d  %s %s", d.Application, d.Number, marks[d.State], d.State)
	if d.Title != "" {
		fmt.Fprintf(&out, "  %s", d.Title)
	}
	out.WriteString("\n")
	if d.Why != "" {
		fmt.Fprintf(&out, "  %s\n", d.Why)
	}
	depth := depths(d)
	for _, t := range d.Targets {
		indent := strings.Repeat("  ", depth[t.Name]+1)
		fmt.Fprintf(&out, "%s%s %s  %s", indent, marks[t.State], t.Name, t.State)
		if t.CarriedBy > 0 {
			fmt.Fprintf(&out, "  (#%d)", t.CarriedBy)
		}
		if t.Why != "" {
			fmt.Fprintf(&out, "  %s", t.Why)
		}
		out.WriteString("\n")
		for _, w := range t.Waits {
			fmt.Fprintf(&out, "%s   waits for %s\n", indent, w.Needs)
			if w.Command != "" {
				fmt.Fprintf(&out, "%s   → %s\n", indent, w.Command)
			}
		}
	}
	return out.String()
}

// depths is how far each target stands from one without dependencies.
func depths(d api.Deployment) map[string]int {
	on := map[string][]string{}
	for _, t := range d.Targets {
		on[t.Name] = t.DependsOn
	}
	depth := map[string]int{}
	var of func(name string, seen int) int
	of = func(name string, seen int) int {
		deepest := 0
		for _, dependency := range on[name] {
			if seen < len(on) {
				deepest = max(deepest, of(dependency, seen+1)+1)
			}
		}
		return deepest
	}
	for name := range on {
		depth[name] = of(name, 0)
	}
	return depth
}
