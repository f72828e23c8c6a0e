package reconcile

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"towpath/deployment"
	"towpath/manifest"
	"towpath/manifest/diff"
	"towpath/policies/rules"
	"towpath/reconcile/rollout"
	"towpath/reconcile/simulate"
)

const (
	// mostRehearsed bounds the dry runs for one proposal, mostOfTarget those for one of its targets: beyond, a part of the objects stands for all.
	mostRehearsed = 5000
	mostOfTarget  = 300
	// mostLetters bounds the differences that are kept of a proposal.
	mostLetters = 1 << 20
	// soonReady is how long pods are taken to need, where it is said when a target could be reached.
	soonReady = 10 * time.Second
)

// budget is shared by what is planned side by side.
type budget struct {
	mu   sync.Mutex
	left int
}

// take takes as much of what is wanted as is left.
func (b *budget) take(wanted int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	taken := min(wanted, b.left)
	b.left -= taken
	return taken
}

// leaves is what becomes of an application whose file would be gone; nil where it was none.
func (v *proposalView) leaves(path string, was *deployment.File) *rollout.ApplicationPlan {
	if was == nil || v.heirIn(was.Application, path) {
		return nil
	}
	plan := &rollout.ApplicationPlan{Application: was.Application, Path: path}
	for _, t := range was.Chosen() {
		plan.Leaves = append(plan.Leaves, rollout.LeftTarget{Name: t.Name, Prune: was.Config.Prune})
	}
	return plan
}

// heirIn reports whether another file that the change touches names an application.
func (v *proposalView) heirIn(application, leaves string) bool {
	return slices.ContainsFunc(v.changed, func(path string) bool {
		return path != leaves && v.source.Repository.Matches(path) && v.has(path) && v.names(path, application)
	})
}

// planned makes a report of a plan; nil where a merge would do nothing with the file.
func (v *proposalView) planned(ctx context.Context, path string, text []byte, was *deployment.File, plan Plan) (*rollout.ApplicationPlan, error) {
	p := &rollout.ApplicationPlan{Application: deployment.ApplicationOf(text), Path: path, Problems: found(plan)}
	if plan.File == nil || plan.Failed() {
		return p, nil
	}
	p.Application = plan.File.Application
	if was != nil {
		for _, t := range was.Chosen() {
			if now := plan.File.Target(t.Name); now == nil || now.Account != t.Account {
				p.Leaves = append(p.Leaves, rollout.LeftTarget{Name: t.Name, Prune: plan.File.Config.Prune})
			}
		}
	}
	var moving []PlannedTarget
	for _, t := range plan.Targets {
		if t.Changed {
			moving = append(moving, t)
		} else {
			p.Same++
		}
	}
	if len(moving) == 0 && len(p.Leaves) == 0 {
		return nil, nil
	}
	reached, err := v.earliest(moving)
	if err != nil {
		return nil, err
	}
	for i, t := range moving {
		target := v.target(plan.File.Application, t)
		target.First = was == nil || was.Target(t.Name) == nil
		target.Reached, target.Unreached = reached[i].after, reached[i].why
		target.DryRun = v.rehearse(ctx, plan.File.Application, t, target.Changes)
		p.Targets = append(p.Targets, target)
	}
	return p, nil
}

// found is the problems of a plan, those of rules where the object stands that they are about.
func found(plan Plan) (problems []deployment.Problem) {
	said := map[string]rules.Finding{}
	for _, f := range plan.Findings {
		said[f.Sentence()] = f
	}
	for _, problem := range plan.Problems {
		if f, is := said[problem.Text]; is {
			if file, line, has := strings.Cut(f.Source, ":"); file != "" {
				problem.File, problem.Column = file, 1
				if n, err := strconv.Atoi(line); has && err == nil {
					problem.Line = n
				}
			}
		}
		if !slices.Contains(problems, problem) {
			problems = append(problems, problem)
		}
	}
	return problems
}

// target is what a merge would do to a target, but for what clusters and clocks say.
func (v *proposalView) target(application string, t PlannedTarget) rollout.TargetPlan {
	plan := rollout.TargetPlan{Name: t.Name, Account: t.Account, Namespace: t.Namespace, Digest: t.Digest, After: t.DependsOn, Steps: t.Course(), Gates: t.Approvals()}
	for _, c := range t.Changes() {
		change := rollout.PlannedChange{Key: c.Key, Kind: c.Kind, Text: c.Text, Cut: c.Cut}
		if c.Kind == diff.Removed && c.Key.Precious() {
			change.Kept = "it may hold data, so that it goes only when a person approves that"
		}
		plan.Changes = append(plan.Changes, change)
	}
	if why := rollout.Guard(keysOf(t.Before), keysOf(t.Objects), v.of.Limits); why != "" {
		plan.Gates = append([]rollout.PlannedGate{{Gate: "prune", Count: 1, Why: why}}, plan.Gates...)
	}
	return plan
}

func keysOf(objects []manifest.Object) []manifest.Key {
	keys := make([]manifest.Key, len(objects))
	for i, o := range objects {
		keys[i] = o.Key
	}
	return keys
}

// reached is when a target could have what is new.
type reached struct {
	after *time.Duration
	why   string // it never has it
}

// earliest says when targets would be reached if people approved at once. Targets that do not move have succeeded.
func (v *proposalView) earliest(moving []PlannedTarget) ([]reached, error) {
	from := v.Clock().UTC().Truncate(time.Second)
	var targets []simulate.Target
	for _, t := range moving {
		set, err := v.planner.Names(t.Objects)
		if err != nil {
			return nil, err
		}
		way := t.Way
		way.DependsOn = slices.DeleteFunc(slices.Clone(way.DependsOn), func(name string) bool {
			return !slices.ContainsFunc(moving, func(m PlannedTarget) bool { return m.Name == name })
		})
		targets = append(targets, simulate.Target{Name: t.Name, Account: t.Account, Namespace: t.Namespace, Way: way, Set: set})
	}
	result := simulate.Run(targets, simulate.Assumptions{From: from, ReadyAfter: soonReady, Limits: v.of.Limits, Answers: simulate.Answers{Otherwise: simulate.AtOnce}})
	all := make([]reached, len(result.Targets))
	for i, r := range result.Targets {
		switch {
		case !r.Reached.IsZero():
			after := r.Reached.Sub(from)
			all[i].after = &after
		case len(r.Waits) > 0:
			all[i].why = "it waits for " + r.Waits[0].Needs
		default:
			all[i].why = r.Why
		}
	}
	return all, nil
}

// rehearse asks the cluster of a target what it would say of the objects that change.
func (v *proposalView) rehearse(ctx context.Context, application string, t PlannedTarget, changes []rollout.PlannedChange) rollout.DryRun {
	var keys []manifest.Key
	for _, c := range changes {
		if c.Kind != diff.Removed {
			keys = append(keys, c.Key)
		}
	}
	if v.of.Rehearse == nil || len(keys) == 0 {
		return rollout.DryRun{Of: len(keys)}
	}
	part := sample(keys, v.rehearsals.take(min(len(keys), mostOfTarget)))
	id := rollout.Identity{Tenant: v.source.Tenant, Application: application, Target: t.Name, Account: t.Account, Namespace: t.Namespace}
	run := v.of.Rehearse(ctx, id, t.Objects, part)
	run.Of = len(keys)
	return run
}

// sample is a part of keys that has one of each kind, where there is room, and is the same each time.
func sample(keys []manifest.Key, most int) []manifest.Key {
	if len(keys) <= most {
		return keys
	}
	var first, rest []manifest.Key
	seen := map[manifest.Key]bool{}
	for _, key := range keys {
		kind := manifest.Key{Group: key.Group, Kind: key.Kind}
		if seen[kind] {
			rest = append(rest, key)
			continue
		}
		seen[kind] = true
		first = append(first, key)
	}
	return append(first, rest...)[:most]
}

// shorten leaves out the longest differences until the others have no more than most letters.
func shorten(plans []rollout.ApplicationPlan, most int) {
	var all []*rollout.PlannedChange
	total := 0
	for i := range plans {
		for j := range plans[i].Targets {
			for k := range plans[i].Targets[j].Changes {
				c := &plans[i].Targets[j].Changes[k]
				all = append(all, c)
				total += len(c.Text)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b *rollout.PlannedChange) int { return len(b.Text) - len(a.Text) })
	for _, c := range all {
		if total <= most {
			return
		}
		total -= len(c.Text)
		c.Cut, c.Text = c.Cut+strings.Count(c.Text, "\n"), ""
	}
}
