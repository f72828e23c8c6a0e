package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"towpath/api"
	"towpath/cmd/towpath-controller/config"
	"towpath/deployment"
	"towpath/gitsource"
	"towpath/manifest"
	"towpath/manifest/diff"
	"towpath/reconcile"
	"towpath/reconcile/rollout"
	"towpath/status"
)

const (
	// pullsEvery is how often the pull requests of a repository are looked for, whatever its webhook says.
	pullsEvery = 15 * time.Minute
	// troubledEvery is how often it is tried again to plan what could not be planned.
	troubledEvery = time.Minute
	// groupsLast is how long after its plan a group of a merge queue is taken to be gone, though no webhook said so.
	groupsLast = 24 * time.Hour
)

// FetchCommit implements reconcile.Proposed.
func (s *source) FetchCommit(ctx context.Context, commit string) (found bool, err error) {
	err = s.mirror.FetchCommit(ctx, commit)
	if s.apps.refetches(s.config, err) {
		err = s.mirror.FetchCommit(ctx, commit)
	}
	var failed *gitsource.Error
	if errors.As(err, &failed) && failed.Kind == gitsource.BranchMissing {
		return false, nil
	}
	return err == nil, err
}

// MergeBase implements reconcile.Proposed.
func (s *source) MergeBase(one, other string) (string, error) { return s.mirror.MergeBase(one, other) }

// proposed is what one look at a proposal at a time needs.
type proposed struct {
	mu    sync.Mutex
	turns map[string]*turn // by subject
}

type turn struct {
	sync.Mutex
	waiting int
}

// enter waits until nobody else looks at a proposal.
func (p *proposed) enter(subject string) (leave func()) {
	p.mu.Lock()
	if p.turns == nil {
		p.turns = map[string]*turn{}
	}
	t := p.turns[subject]
	if t == nil {
		t = &turn{}
		p.turns[subject] = t
	}
	t.waiting++
	p.mu.Unlock()
	t.Lock()
	return func() {
		t.Unlock()
		p.mu.Lock()
		defer p.mu.Unlock()
		if t.waiting--; t.waiting == 0 {
			delete(p.turns, subject)
		}
	}
}

// propose looks at a proposal.
func (m *Main) propose(ctx context.Context, subject string) error {
	defer m.proposed.enter(subject)()
	k, err := m.store.Proposal(ctx, subject)
	if err != nil || k.Wanted == 0 || k.Wanted == k.Seen && k.Report.State != rollout.PlanTroubled {
		return err
	}
	m.mu.Lock()
	s, people, forge := m.sources[k.Name.Source], m.people, m.forges[k.Name.Source]
	m.mu.Unlock()
	if s == nil || forge == nil || !s.config.Plans() || m.observing.Load() {
		return nil
	}
	now, err := s.stands(ctx, forge, k)
	var failed *status.Failure
	switch {
	case errors.As(err, &failed) && failed.Kind == status.Refused: // it is not there, or not for us to see
		m.log.WithError(err).WithField("source", s.config.Name).Warn("a pull request cannot be looked at; it is left alone until there is news of it")
		k.Seen, k.Report.Closed = k.Wanted, true
		return m.store.RecordProposal(ctx, k)
	case err != nil:
		k.Seen, k.Report.State, k.Report.Why = k.Wanted, rollout.PlanTroubled, err.Error()
		return m.store.RecordProposal(ctx, k)
	}
	if err := m.capabilities.load(ctx); err != nil {
		return err
	}
	return m.proposals.Look(ctx, s.source(people), s, k, now)
}

// stands is how a proposal stands on its forge.
func (s *source) stands(ctx context.Context, forge *status.GitHub, k rollout.KnownProposal) (rollout.Proposal, error) {
	now := rollout.Proposal{Tenant: k.Name.Tenant, Source: k.Name.Source, Number: k.Name.Pull}
	head, known := s.mirror.Head()
	if k.Name.Group != "" {
		now.Head, now.Base, now.Closed = k.Name.Group, head.Branch, k.Gone
		return now, nil
	}
	pull, err := forge.PullRequest(ctx, s.config.GitHub.Repository, k.Name.Pull)
	if err != nil {
		return now, err
	}
	now.Head, now.Base, now.Title, now.Author, now.Fork, now.Public, now.Closed, now.Merged = pull.Head, pull.Base, pull.Title, pull.Author, pull.Fork, pull.Public, pull.Closed, pull.Merged
	if known && pull.Base != head.Branch {
		now.Closed = true // it is none of ours any more
	}
	return now, nil
}

// Proposals implements api.Backend.
func (b *backend) Proposals(ctx context.Context, c api.Caller) ([]api.Proposal, error) {
	known, err := b.store.OpenProposals(ctx, c.Tenant, "")
	out := make([]api.Proposal, len(known))
	for i, k := range known {
		r := k.Report
		out[i] = api.Proposal{Source: k.Name.Source, Number: k.Name.Pull, Head: cmp.Or(r.Head, k.Name.Group), MergeBase: r.MergeBase, Base: r.Base, Title: r.Title, Author: r.Author, Fork: r.Fork,
			State: string(cmp.Or(r.State, rollout.PlanAsked)), Why: r.Why, At: r.At, Applications: make([]api.ProposedApplication, len(r.Plans))}
		for j, plan := range r.Plans {
			out[i].Applications[j] = proposedApplication(plan)
		}
	}
	return out, tell(err)
}

func proposedApplication(plan rollout.ApplicationPlan) api.ProposedApplication {
	out := api.ProposedApplication{Application: plan.Application, Path: plan.Path, Problems: append([]deployment.Problem{}, plan.Problems...), Targets: make([]api.ProposedTarget, len(plan.Targets))}
	for _, left := range plan.Leaves {
		out.Leaves = append(out.Leaves, left.Name)
	}
	for i, t := range plan.Targets {
		target := api.ProposedTarget{PlannedTarget: api.PlannedTarget{Name: t.Name, Account: t.Account, DependsOn: t.After, Digest: t.Digest, Changed: true},
			Steps: append([]string{}, t.Steps...), Unreached: t.Unreached, Asked: t.DryRun.Asked, Unasked: t.DryRun.Away}
		for _, c := range t.Changes {
			target.Changes = append(target.Changes, shownChange(diff.Change{Key: c.Key, Kind: c.Kind, Text: c.Text, Cut: c.Cut}))
		}
		for _, g := range t.Gates {
			target.Gates = append(target.Gates, g.Gate)
		}
		for _, refused := range t.DryRun.Refused {
			target.Refusals = append(target.Refusals, fmt.Sprintf("%s: %s", refused.Key, refused.Text))
		}
		if t.Reached != nil {
			seconds := t.Reached.Seconds()
			target.Earliest = &seconds
		}
		out.Targets[i] = target
	}
	return out
}

// rehearse asks a cluster what it would say of objects, unless its agent is away or it does not answer soon.
func (c *clusters) rehearse(ctx context.Context, id rollout.Identity, objects []manifest.Object, keys []manifest.Key) (run rollout.DryRun) {
	if !c.Connected(id.Tenant, id.Account) {
		run.Away = fmt.Sprintf("the agent %s is not connected", id.Account)
		return run
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var failure *rollout.Failure
	if run.Asked, run.Refused, failure = c.client(id.Tenant, id.Account).Rehearse(ctx, id, objects, keys); failure != nil {
		run.Away = failure.Text
	}
	return run
}

// followProposals finds what no webhook told of: pull requests that are there, or have moved, or are gone; and tries again what could not be planned. The forge is
// asked at the start, and then by one replica for all.
func (m *Main) followProposals(ctx context.Context) {
	begun := map[string]bool{} // sources
	for each := time.NewTicker(troubledEvery); ; {
		m.mu.Lock()
		var planned []config.Source
		for _, s := range m.sources {
			if s.config.Plans() {
				planned = append(planned, s.config)
			}
		}
		m.mu.Unlock()
		for _, s := range planned {
			every := pullsEvery - pullsEvery/10 // timers of replicas do not run alike
			if !begun[s.Name] {
				every = 0
			}
			asked, err := m.findProposals(ctx, s, every)
			begun[s.Name] = begun[s.Name] || asked
			if err != nil && ctx.Err() == nil {
				m.log.WithError(err).WithField("source", s.Name).Warn("pull requests could not be looked for; trying again later")
			}
		}
		select {
		case <-ctx.Done():
			each.Stop()
			return
		case <-each.C:
		}
	}
}

// findProposals has the proposals of a source looked at that may be others than is known. asked is whether its forge was, as nobody did within a time.
func (m *Main) findProposals(ctx context.Context, s config.Source, every time.Duration) (asked bool, err error) {
	known, err := m.store.OpenProposals(ctx, s.Tenant, s.Name)
	if err != nil {
		return false, err
	}
	var looks []rollout.ProposalLook
	for _, k := range known {
		switch old := time.Since(k.Report.At) > groupsLast; {
		case k.Name.Group != "" && old && k.Seen > 0:
			looks = append(looks, rollout.ProposalLook{ProposalName: k.Name, Gone: true})
		case k.Report.State == rollout.PlanTroubled:
			looks = append(looks, rollout.ProposalLook{ProposalName: k.Name})
		}
	}
	moved, asked, err := m.movedPulls(ctx, s, known, every)
	for _, name := range moved {
		if look := (rollout.ProposalLook{ProposalName: name}); !slices.Contains(looks, look) {
			looks = append(looks, look)
		}
	}
	if len(looks) == 0 {
		return asked, err
	}
	return asked, errors.Join(err, m.store.LookAtProposals(ctx, looks...))
}

// movedPulls are the pull requests of a source that are others on its forge than is known, if nobody asked within a time.
func (m *Main) movedPulls(ctx context.Context, s config.Source, known []rollout.KnownProposal, every time.Duration) (moved []rollout.ProposalName, asked bool, err error) {
	m.mu.Lock()
	forge, open := m.forges[s.Name], m.sources[s.Name]
	m.mu.Unlock()
	if forge == nil || open == nil {
		return nil, false, nil
	}
	head, fetched := open.mirror.Head()
	if !fetched {
		return nil, false, nil // the first look follows the first fetch
	}
	began := time.Now()
	_, mine, err := m.store.BeginLook(ctx, "pulls of "+s.Name, every)
	if err != nil || !mine {
		return nil, false, err
	}
	pulls, err := forge.OpenPullRequests(ctx, s.GitHub.Repository)
	if err != nil {
		return nil, false, err
	}
	heads := map[int]string{}
	for _, k := range known {
		if k.Name.Group == "" {
			heads[k.Name.Pull] = k.Report.Head
		}
	}
	for _, pull := range pulls {
		if was, is := heads[pull.Number]; pull.Base == head.Branch && (!is || was != pull.Head) {
			moved = append(moved, rollout.ProposalName{Tenant: s.Tenant, Source: s.Name, Pull: pull.Number})
		}
		delete(heads, pull.Number)
	}
	if len(pulls) < status.MaxPulls { // else it may be among those that were not listed
		for number := range heads {
			moved = append(moved, rollout.ProposalName{Tenant: s.Tenant, Source: s.Name, Pull: number})
		}
	}
	return moved, true, m.store.EndLook(ctx, "pulls of "+s.Name, began)
}

var _ reconcile.Proposed = (*source)(nil)
