package deployment

import "fmt"

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
