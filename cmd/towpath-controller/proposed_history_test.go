package main

import (
	"context"
	"testing"

	"towpath/reconcile"
	"towpath/reconcile/rollout"
)

// proposing is a walk whose next commit is proposed before it is taken in.
type proposing struct {
	*walk
	reconcile.Proposals
	made rollout.ProposalReport
}

func proposes(t testing.TB, w *walk) *proposing {
	t.Helper()
	p := &proposing{walk: w}
	w.intake.Planner.Names = w.renders.reviser.Names
	p.Proposals = reconcile.Proposals{Store: p, Intake: w.intake, Limits: rollout.Limits{Removals: 10, Shrink: 0.3, Keep: 3, Replaced: 3}}
	return p
}

// RecordProposal keeps what a plan came to.
func (p *proposing) RecordProposal(_ context.Context, k rollout.KnownProposal) error {
	p.made = k.Report
	return nil
}

// FetchCommit finds each commit of the history.
func (p *proposing) FetchCommit(context.Context, string) (bool, error) { return true, nil }

// MergeBase is the commit that was taken in.
func (p *proposing) MergeBase(string, string) (string, error) { return p.commits[p.at], nil }

// next plans the commit after the one that was taken in.
func (p *proposing) next(t testing.TB) rollout.ProposalReport {
	t.Helper()
	must(t, p.Look(t.Context(), p.asSource(), p, rollout.KnownProposal{Wanted: 1, Name: rollout.ProposalName{Tenant: "main", Source: "repo", Pull: 1}},
		rollout.Proposal{Number: 1, Head: p.commits[p.at+1], Base: "main"}))
	if p.made.State != rollout.PlanMade {
		t.Fatalf("commit %d: the plan is %s: %s", p.at+1, p.made.State, p.made.Why)
	}
	return p.made
}

// Over a history of small and of sweeping changes, the plan of each commit names the targets whose manifests its merge changes, and no others, and renders no more
// than that.
func TestAPlanNamesExactlyWhatTheMergeChanges(t *testing.T) {
	t.Parallel()
	w := newWalk(t, 60, newMemory())
	p := proposes(t, w)
	w.sync(t)
	w.renders.taken()
	moved := 0
	for w.at+1 < len(w.commits) {
		before, planned := w.manifests(t), map[renderName]bool{}
		for _, plan := range p.next(t).Plans {
			for _, problem := range plan.Problems {
				t.Logf("commit %d: %v", w.at+1, problem)
			}
			for _, target := range plan.Targets {
				if len(target.Changes) > 0 {
					planned[renderName{plan.Path, target.Name}] = true
				}
			}
		}
		rendered := len(w.renders.taken())
		w.at++
		w.sync(t)
		taken := len(w.renders.taken())
		after := w.manifests(t)
		for name, digest := range after {
			if moves := before[name] != digest; moves != planned[name] {
				t.Errorf("commit %d, %s, target %s: it is planned: %v; its manifests change: %v", w.at, name.path, name.target, planned[name], moves)
			} else if moves {
				moved++
			}
		}
		if rendered > taken {
			t.Errorf("commit %d: the plan made %d renders, the commit %d", w.at, rendered, taken)
		}
	}
	if moved < len(w.commits) {
		t.Errorf("only %d targets moved: the test has not tested what it is for", moved)
	}
}

// manifests are those that are recorded of each target.
func (w *walk) manifests(t testing.TB) map[renderName]string {
	t.Helper()
	records, err := w.store.Renders(t.Context(), "main", "repo")
	must(t, err)
	all := map[renderName]string{}
	for _, r := range records {
		all[renderName{r.Path, r.Target}] = r.Manifests
	}
	return all
}

// What the plan of a pull request of one application costs in a large repository, but for its dry run and what GitHub is told. 200 at most: use -benchtime=100x.
func BenchmarkPlanOfAPullRequest(b *testing.B) {
	database := &timed{Store: recordsOf(b)}
	w := newWalk(b, *apps, database)
	p := proposes(b, w)
	w.sync(b)
	for b.Loop() {
		p.next(b)
		b.StopTimer()
		w.at++
		w.sync(b)
		b.StartTimer()
	}
}
