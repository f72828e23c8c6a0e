package reconcile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"towpath/deployment"
	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// proposalStore is what planning proposals needs of the store.
type proposalStore interface {
	// RecordProposal records what became known of a proposal up to a look, and has it told.
	RecordProposal(ctx context.Context, k rollout.KnownProposal) error
}

// Proposed is a repository from which proposals come.
type Proposed interface {
	// FetchCommit brings a commit that is proposed; false: it is proposed no longer.
	FetchCommit(ctx context.Context, commit string) (found bool, err error)
	// MergeBase is the newest commit that two others have in common; "" when they have none.
	MergeBase(one, other string) (string, error)
}

// Proposals plans changes that are not merged yet: what a merge would do, target by target. Nothing that they hold is trusted: they are rendered as all is, without
// what is encrypted in them, and change nothing but what is told about them.
type Proposals struct {
	Store  proposalStore
	Intake *Intake
	// Rehearse asks a cluster what it would say of objects that keys name.
	Rehearse func(ctx context.Context, id rollout.Identity, objects []manifest.Object, keys []manifest.Key) rollout.DryRun
	Limits   rollout.Limits
}

// errGone is that a proposal has moved on since it was looked at.
var errGone = errors.New("the commit is no longer the one that is proposed; what is proposed now is looked at next")

// saysSo is how long a plan may take before it is told that it is being made.
const saysSo = 3 * time.Second

// Look plans a proposal as it is now, unless it was planned like this before, and records what it came to. What kept it from being planned is recorded, too,
// to be tried again; an error says that even this was not possible.
func (p *Proposals) Look(ctx context.Context, s Source, r Proposed, k rollout.KnownProposal, now rollout.Proposal) error {
	k.Seen = k.Wanted
	was := k.Report
	k.Report.Proposal, k.Report.Why = now, ""
	switch {
	case now.Closed:
		return p.Store.RecordProposal(ctx, k)
	case now.Fork && k.Report.Named != now.Head:
		k.Report.State, k.Report.Plans, k.Basis = rollout.PlanHeld, nil, ""
		k.Report.Why = fmt.Sprintf("%.10s comes from another repository: nothing of it is read until a person with write access has named it", now.Head)
		return p.Store.RecordProposal(ctx, k)
	}
	v, err := p.view(ctx, s, r, now)
	if errors.Is(err, errGone) && k.Name.Group != "" { // it was merged, or the queue made another
		k.Report.Closed = true
		return p.Store.RecordProposal(ctx, k)
	}
	if err == nil && was.State == rollout.PlanMade && k.Basis == v.basis {
		return p.Store.RecordProposal(ctx, k)
	}
	if err == nil {
		told := p.announce(ctx, k)
		k.Report.Plans, err = v.plans(ctx)
		told()
	}
	if ctx.Err() != nil {
		return ctx.Err() // the next start looks again
	}
	if err != nil {
		k.Report.State, k.Report.Why, k.Basis = rollout.PlanTroubled, err.Error(), ""
		return p.Store.RecordProposal(ctx, k)
	}
	k.Report.State, k.Report.MergeBase, k.Basis = rollout.PlanMade, v.base, v.basis
	return p.Store.RecordProposal(ctx, k)
}

// announce has it told that a plan is being made, if that takes long. What it returns ends that, and waits for it.
func (p *Proposals) announce(ctx context.Context, k rollout.KnownProposal) (done func()) {
	ctx, cancel := context.WithCancel(ctx)
	k.Report.State, k.Report.Plans, k.Basis = rollout.PlanAsked, nil, ""
	var telling sync.WaitGroup
	telling.Go(func() {
		timer := time.NewTimer(saysSo)
		defer timer.Stop()
		select {
		case <-timer.C:
			if err := p.Store.RecordProposal(ctx, k); err != nil && ctx.Err() == nil {
				p.Intake.Log.WithError(err).WithField("source", k.Name.Source).Warn("that a plan is being made could not be recorded")
			}
		case <-ctx.Done():
		}
	})
	return func() {
		cancel()
		telling.Wait()
	}
}

// proposalView is a proposal beside what it is compared with.
type proposalView struct {
	of          *Proposals
	change      // the head, as if it was taken in
	base, basis string
	before      fs.FS
	taken       string // the commit that recorded renders are of
	takenTree   fs.FS
	elsewhere   map[string][]string // renders that are others at the base than at taken; nil: base is taken
	changed     []string
	rehearsals  budget
}

// view fetches a proposal, and finds what it is to be compared with.
func (p *Proposals) view(ctx context.Context, s Source, r Proposed, now rollout.Proposal) (*proposalView, error) {
	defer p.Intake.hold(s.Name)() // what is recorded is not loaded twice, and the branch not fetched twice
	head, err := s.Repository.Fetch(ctx)
	if err != nil {
		return nil, err
	}
	found, err := r.FetchCommit(ctx, now.Head)
	switch {
	case err != nil:
		return nil, err
	case !found:
		return nil, errGone
	}
	v := &proposalView{of: p, change: change{Intake: p.Intake, source: s, commit: now.Head, planner: p.Intake.Planner},
		rehearsals: budget{left: mostRehearsed}}
	if v.base, err = r.MergeBase(head, now.Head); err != nil {
		return nil, err
	}
	if v.base == "" {
		return nil, fmt.Errorf("%.10s has no commit in common with %s", now.Head, now.Base)
	}
	state, err := p.Intake.Store.Source(ctx, s.Tenant, s.Name)
	if err != nil {
		return nil, err
	}
	terms, err := p.Intake.terms(ctx, s)
	if err != nil {
		return nil, err
	}
	v.taken, v.basis = state.Processed, digest([]byte(now.Head+" "+v.base+" "+terms))
	if _, err := p.Intake.known(ctx, p.Intake.Store, s, state.Processed); err != nil {
		return nil, err
	}
	return v, v.trees()
}

func (v *proposalView) trees() (err error) {
	if v.tree, err = v.source.Repository.Tree(v.commit); err != nil {
		return err
	}
	if v.before, err = v.source.Repository.Tree(v.base); err != nil {
		return err
	}
	known := false
	if v.changed, known, err = v.source.Repository.Changed(v.base, v.commit); err != nil {
		return err
	}
	if !known {
		return fmt.Errorf("what differs between %.10s and %.10s cannot be found out", v.base, v.commit)
	}
	if v.taken == "" || v.taken == v.base {
		return nil
	}
	if v.takenTree, err = v.source.Repository.Tree(v.taken); err != nil {
		return err
	}
	v.elsewhere = v.Traces.Differing(v.source.Name, v.before)
	return nil
}

// plans is what a merge would do to each application that the change touches, by the path of its file.
func (v *proposalView) plans(ctx context.Context) ([]rollout.ApplicationPlan, error) {
	dirty := v.Traces.Dirty(v.source.Name, v.tree, v.changed)
	for _, path := range v.changed {
		if v.source.Repository.Matches(path) {
			dirty[path] = nil
		}
	}
	paths := slices.Sorted(maps.Keys(dirty))
	plans, errs := make([]*rollout.ApplicationPlan, len(paths)), make([]error, len(paths))
	next := make(chan int, len(paths))
	for i := range paths {
		next <- i
	}
	close(next)
	var working sync.WaitGroup
	for range min(sideBySide, len(paths)) {
		working.Go(func() {
			for i := range next {
				if ctx.Err() == nil {
					plans[i], errs[i] = v.file(ctx, paths[i], dirty[paths[i]])
				}
			}
		})
	}
	working.Wait()
	var all []rollout.ApplicationPlan
	for i, plan := range plans {
		if errs[i] != nil {
			return nil, errs[i]
		}
		if plan != nil {
			all = append(all, *plan)
		}
	}
	shorten(all, mostLetters)
	return all, ctx.Err()
}

// file plans one file of the proposal; nil where a merge would do nothing with it. stale are the targets that are to be rendered anew; nil: all.
func (v *proposalView) file(ctx context.Context, path string, stale []string) (*rollout.ApplicationPlan, error) {
	before, was, err := v.atBase(path)
	if err != nil {
		return nil, err
	}
	if !v.has(path) {
		return v.leaves(path, was), nil
	}
	text, err := fs.ReadFile(v.tree, path)
	if err != nil {
		broken := v.broken(path, err)
		return &rollout.ApplicationPlan{Path: path, Problems: broken.Problems}, nil
	}
	if before == nil && deployment.Identify(text) != deployment.DeploymentFile {
		return nil, nil
	}
	plan, err := v.planner.Plan(ctx, Ask{Tenant: v.source.Tenant, Tree: v.tree, Text: text, Reach: v.source.Reach, Moved: v.moved,
		Origin: rollout.Origin{Source: v.source.Name, Path: path, Commit: v.commit},
		Fresh: func(target string) (rollout.RenderRecord, bool) {
			if stale == nil || slices.Contains(stale, target) || v.elsewhere != nil {
				return rollout.RenderRecord{}, false
			}
			return v.Traces.Recorded(v.source.Name, path, target)
		},
		Base: &Base{File: was, Renders: func(target string) (rollout.RenderRecord, error) { return v.rendered(ctx, path, before, was, target) }}})
	if err != nil {
		return nil, err
	}
	return v.planned(ctx, path, text, was, plan)
}

// atBase is a file before the change; nil where there was none, or none that can be read.
func (v *proposalView) atBase(path string) (text []byte, file *deployment.File, err error) {
	info, err := fs.Stat(v.before, path)
	if err != nil || !info.Mode().IsRegular() {
		return nil, nil, nil
	}
	if text, err = fs.ReadFile(v.before, path); err != nil {
		return nil, nil, nil // what cannot be read there is no part of the change
	}
	file, problems := deployment.Parse(path, text)
	if file == nil || rollout.HasErrors(problems) {
		return text, nil, nil
	}
	file.Take(deployment.Flags{})
	return text, file, nil
}

// rendered is the render of a target before the change: the one that is recorded, where nothing that it depends on was another then.
func (v *proposalView) rendered(ctx context.Context, path string, text []byte, file *deployment.File, target string) (rollout.RenderRecord, error) {
	if v.recorded(path, text, target) {
		if record, found := v.Traces.Recorded(v.source.Name, path, target); found && !record.Failed() {
			return record, nil
		}
	}
	return v.planner.Renders.Render(ctx, RenderRequest{Tree: v.before, File: file, Text: text, Target: target, Source: v.source.Name, Tenant: v.source.Tenant, Masked: true})
}

// recorded reports whether the recorded render of a target is also that of the base.
func (v *proposalView) recorded(path string, text []byte, target string) bool {
	if v.elsewhere == nil {
		return v.taken != ""
	}
	if slices.Contains(v.elsewhere[path], target) {
		return false
	}
	now, err := fs.ReadFile(v.takenTree, path)
	return err == nil && string(now) == string(text)
}
