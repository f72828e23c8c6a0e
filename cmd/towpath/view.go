package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
	"golang.org/x/text/width"

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
		return &live{out: c.out, size: func() (int, int) {
			columns, rows, err := term.GetSize(int(file.Fd()))
			if err != nil {
				return 80, 24
			}
			return columns, rows
		}}
	}
	return &plain{c: c}
}

// plain prints a line for each change of state and for each wait.
type plain struct {
	c         *commandLine
	last      string
	told      map[string]string // what each wait of the present was last told to need
	unhealthy []string          // objects that are waited for: how they are changes by the moment, so a beat tells
}

func (p *plain) show(d api.Deployment) {
	if d.State != p.last {
		p.c.line("Deployment status changed: %s", d.State)
		p.last = d.State
	}
	told := map[string]string{}
	p.unhealthy = nil
	for _, t := range d.Targets {
		for _, w := range t.Waits {
			text := t.Name + " waits for " + needs(w)
			if w.Kind == "health" {
				p.unhealthy = append(p.unhealthy, text)
				continue
			}
			wait := t.Name + " " + w.Kind + " " + w.Gate
			if told[wait] = text; p.told[wait] == text {
				continue
			}
			if w.Command != "" {
				text += "  → " + w.Command
			}
			p.c.line("%s", text)
		}
	}
	p.told = told
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
func (p *plain) beat() {
	if len(p.unhealthy) == 0 {
		p.c.line(".")
	}
	for _, text := range p.unhealthy {
		p.c.line("%s", text)
	}
}

// live draws the tree of targets anew in its place. No line is wider than the terminal and the tree not higher: what wrapped or scrolled away could not be drawn
// over.
type live struct {
	out   io.Writer
	size  func() (columns, rows int)
	lines int // drawn last
}

func (l *live) show(d api.Deployment) {
	columns, rows := l.size()
	lines := strings.Split(strings.TrimSuffix(clean(tree(d)), "\n"), "\n")
	if most := max(rows-1, 2); len(lines) > most {
		left := len(lines) - most + 1
		lines = append(lines[:most-1], fmt.Sprintf("  … %d more lines; all of it: towpath deploy status -i %s", left, d.ID))
	}
	if l.lines > 0 {
		fmt.Fprintf(l.out, "\x1b[%dA\x1b[J", min(l.lines, max(rows-1, 1)))
	}
	for _, line := range lines {
		fmt.Fprintln(l.out, clip(line, columns-1))
	}
	l.lines = len(lines)
}

// clip cuts a line to so many columns.
func clip(line string, columns int) string {
	at := 0
	for i, r := range line {
		wide := 1
		switch kind := width.LookupRune(r).Kind(); {
		case r == '\ufe0f': // makes a sign an emoji, which is wide
		case kind == width.EastAsianWide || kind == width.EastAsianFullwidth || strings.HasPrefix(line[i+len(string(r)):], "\ufe0f"):
			wide = 2
		}
		if at += wide; at > columns {
			return line[:i]
		}
	}
	return line
}

func (l *live) event(api.Event) {}
func (l *live) beat()           {}

var marks = map[string]string{"QUEUED": "⏳", "RUNNING": "🟡", "PAUSED": "⏸", "AWAITING_APPROVAL": "✋", "SUCCEEDED": "✅", "FAILED": "❌", "ROLLED_BACK": "↩️", "CANCELLED": "🚫", "REJECTED": "🚫", "SKIPPED": "➖"}

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
		if t.Weight > 0 {
			fmt.Fprintf(&out, "  %d %%", t.Weight)
		}
		if t.CarriedBy > 0 {
			fmt.Fprintf(&out, "  carried by #%d", t.CarriedBy)
		}
		if t.Why != "" {
			fmt.Fprintf(&out, "  %s", t.Why)
		}
		out.WriteString("\n")
		for _, w := range t.Waits {
			fmt.Fprintf(&out, "%s   waits for %s\n", indent, needs(w))
			if w.Command != "" {
				fmt.Fprintf(&out, "%s   → %s\n", indent, w.Command)
			}
		}
	}
	return out.String()
}

// needs is what a wait waits for and, where it is told, why that is not there.
func needs(w api.Wait) string {
	if w.Why == "" {
		return w.Needs
	}
	return fmt.Sprintf("%s (%s)", w.Needs, w.Why)
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
