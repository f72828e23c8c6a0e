package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	hub "towpath/internal/testkit/github"
	"towpath/internal/testkit/gitserver"
	"towpath/reconcile/rollout"
)

// pulls is a repository of which pull requests are planned.
type pulls struct{ *appWatcher }

func onPulls(t *testing.T) pulls {
	t.Helper()
	return pulls{asApp(t)}
}

// open opens a pull request of a change to the head of main.
func (w pulls) open(p hub.Pull, files gitserver.Files) (number int, head string) {
	w.t.Helper()
	branch := fmt.Sprint("topic-", len(w.hub.Pulls("acme/repo"))+1)
	w.repository.Git("branch", branch, w.repository.Head("main"))
	p.Head.SHA, p.Head.Ref = w.repository.CommitTo(branch, "propose", files), branch
	w.hub.Repository("acme/repo", p.Head.SHA)
	return w.hub.OpenPull("acme/repo", p), p.Head.SHA
}

// report waits for what is known of a pull request to be right.
func (w pulls) report(number int, what string, right func(rollout.ProposalReport) bool) (r rollout.ProposalReport) {
	w.t.Helper()
	await(w.t, fmt.Sprintf("pull request %d: %s", number, what), func() bool {
		k, err := w.store.Proposal(w.t.Context(), fmt.Sprint("pull/main/repo/", number))
		r = k.Report
		return err == nil && k.Seen > 0 && right(r)
	})
	return r
}

// another is what the application is when it is another than before.
func another() gitserver.Files {
	return gitserver.Files{"shop/m.yaml": string(upload("shop", "2").Files["m.yaml"])}
}

func made(r rollout.ProposalReport) bool { return r.State == rollout.PlanMade }

func TestAPullRequestIsPlannedAgainstWhatItForksFrom(t *testing.T) {
	t.Parallel()
	w := onPulls(t)
	base := w.repository.Head("main")
	number, head := w.open(hub.Pull{Title: "more"}, another())
	r := w.report(number, "the plan", made)
	if r.Head != head || r.MergeBase != base || r.Title != "more" || r.Author != "octocat" || r.Fork || len(r.Plans) != 1 {
		t.Fatalf("the report is %+v", r)
	}
	plan := r.Plans[0]
	if plan.Application != "shop" || len(plan.Problems) != 0 || len(plan.Targets) == 0 {
		t.Fatalf("the plan is %+v", plan)
	}
	target := plan.Targets[0]
	if target.First || target.Reached == nil || !strings.Contains(target.DryRun.Away, "is not connected") || len(target.Changes) != 1 || !strings.Contains(target.Changes[0].Text, "+") {
		t.Errorf("the target is %+v", target)
	}

	// The branch goes on elsewhere: the plan is still what the pull request changes.
	w.push("second")
	next := w.repository.CommitTo("topic-1", "and more", gitserver.Files{"third/towpath.yaml": application("third", "third", "")["third/towpath.yaml"]})
	w.hub.Repository("acme/repo", next)
	w.hub.ChangePull("acme/repo", number, "synchronize", func(p *hub.Pull) { p.Head.SHA = next })
	r = w.report(number, "the second plan", func(r rollout.ProposalReport) bool { return made(r) && r.Head != head })
	var names []string
	for _, plan := range r.Plans {
		names = append(names, plan.Application)
	}
	if r.MergeBase != base || !slices.Contains(names, "shop") || slices.Contains(names, "second") {
		t.Errorf("planned are %v against %.10s, want %.10s", names, r.MergeBase, base)
	}
	w.hub.ChangePull("acme/repo", number, "closed", func(p *hub.Pull) { p.Closed = true })
	w.report(number, "its end", func(r rollout.ProposalReport) bool { return r.Closed && r.Merged == "" })
}

func TestAPullRequestFromAForkIsNotReadUntilItIsNamed(t *testing.T) {
	t.Parallel()
	w := onPulls(t)
	w.hub.Repository("stranger/repo")
	number, head := w.open(hub.Pull{Head: hub.Tip{Repository: "stranger/repo"}}, another())
	r := w.report(number, "to be held", func(r rollout.ProposalReport) bool { return r.State == rollout.PlanHeld })
	if want := head[:10] + " comes from another repository: nothing of it is read until a person with write access has named it"; r.Why != want || len(r.Plans) != 0 {
		t.Errorf("held: %q, %+v", r.Why, r.Plans)
	}
	if _, err := w.sources["repo"].Tree(head); err == nil {
		t.Error("it was fetched")
	}
}

func TestWhatCannotBePlannedIsToldAndTriedAgain(t *testing.T) {
	t.Parallel()
	w := onPulls(t)
	number, _ := w.open(hub.Pull{}, gitserver.Files{"shop/towpath.yaml": "application: shop\ntargets: {prod: {acount: prod}}\n"})
	r := w.report(number, "the refusal", made)
	if len(r.Plans) != 1 || !rollout.HasErrors(r.Plans[0].Problems) || r.Plans[0].Problems[0].File != "shop/towpath.yaml" {
		t.Errorf("a broken file: %+v", r.Plans)
	}
}

func TestPullRequestsThatNoWebhookToldOfAreFound(t *testing.T) {
	t.Parallel()
	w := onPulls(t)
	w.road.closed.Store(true)
	number, _ := w.open(hub.Pull{}, another())
	asked, err := w.findProposals(t.Context(), w.sources["repo"].config, 0)
	if must(t, err); !asked {
		t.Error("it was not asked for them")
	}
	w.report(number, "the plan", made)
}
