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
	if f.Config.KeepDeploymentObject {
		refuse(Position{}, "deploymentConfig.keepDeploymentObject", "keepDeploymentObject: true")
	}
	if mode := f.Config.IfInProgress; mode == EnqueueOne || mode == Batch {
		refuse(Position{}, "deploymentConfig.ifDeploymentInProgress", "ifDeploymentInProgress.strategy: "+string(mode))
	}
	used := map[string]bool{}
	for _, t := range f.Targets {
		used[t.Strategy] = true
		for _, steps := range [][]Step{t.BeforeDeployment, t.AfterDeployment} {
			if len(steps) > 0 {
				refuse(steps[0].Position, "targets."+t.Name+".constraints", "steps before and after a deployment")
			}
		}
	}
	for _, s := range f.Strategies {
		switch {
		case !used[s.Name]:
		case s.BlueGreen != nil:
			refuse(s.Position, "strategies."+s.Name, "blueGreen")
		case !s.rolling():
			refuse(s.Position, "strategies."+s.Name, "canary steps other than a single setWeight of 100")
		}
	}
	for i, m := range f.Manifests {
		if strings.HasPrefix(m.Path, "http://") || strings.HasPrefix(m.Path, "https://") {
			refuse(m.Position, fmt.Sprintf("manifests[%d].path", i), "a path that is a URL")
		}
	}
	for i, t := range f.TrafficManagement {
		refuse(t.Position, fmt.Sprintf("trafficManagement[%d]", i), "trafficManagement")
	}
	slices.SortStableFunc(problems, func(a, b Problem) int { return cmp.Or(a.Line-b.Line, a.Column-b.Column) })
	return problems
}

// rolling reports whether a canary is the customary rolling one: everything at once.
func (s Strategy) rolling() bool {
	return len(s.Canary) == 1 && s.Canary[0].SetWeight != nil && s.Canary[0].SetWeight.Weight == 100
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
		p.Text, p.Suggestion = fmt.Sprintf("no strategy %q", cut(t.Strategy)), nearest(t.Strategy, known)
	}
	return []Problem{p}
}
