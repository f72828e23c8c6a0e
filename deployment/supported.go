package deployment

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Unsupported lists what the file asks for and this version cannot do yet. Such a file is valid and is not deployed: nothing is left out silently.
func (f *File) Unsupported() []Problem {
	var problems []Problem
	refuse := func(at Position, field, what string) {
		problems = append(problems, Problem{File: f.Path, Field: field, Line: max(at.Line, 1), Column: max(at.Column, 1), Severity: Error, Text: "not yet supported: " + what})
	}
	for i, m := range f.Manifests {
		if strings.HasPrefix(m.Path, "http://") || strings.HasPrefix(m.Path, "https://") {
			refuse(m.Position, fmt.Sprintf("manifests[%d].path", i), "a path that is a URL")
		}
	}
	slices.SortStableFunc(problems, func(a, b Problem) int { return cmp.Or(a.Line-b.Line, a.Column-b.Column) })
	return problems
}

// CheckStrategy lists what is wrong with the strategy of a target whose manifests hold a Deployment object. Whether they do is known only once they
// are rendered.
func (f *File) CheckStrategy(target string) []Problem {
	t := f.Target(target)
	if t == nil || f.Strategy(t.Strategy) != nil {
		return nil
	}
	known := make([]string, len(f.Strategies))
	for i, s := range f.Strategies {
		known[i] = s.Name
	}
	p := Problem{File: f.Path, Field: "targets." + t.Name + ".strategy", Line: t.StrategyPosition.Line, Column: t.StrategyPosition.Column, Severity: Error}
	if t.Strategy == "" {
		p.Text = fmt.Sprintf("target %s deploys a Deployment object and names no strategy; write strategy: NAME, and the strategy under strategies", t.Name)
	} else {
		p.Text, p.Suggestion = fmt.Sprintf("no strategy %q", cut(t.Strategy)), Nearest(t.Strategy, known)
	}
	return []Problem{p}
}
