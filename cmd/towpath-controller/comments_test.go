package main

import (
	"slices"
	"strings"
	"testing"

	"towpath/cmd/towpath-controller/config"
	hub "towpath/internal/testkit/github"
	"towpath/internal/testkit/gitserver"
	"towpath/reconcile/rollout"
	"towpath/status"
	"towpath/store"
)

// answered waits until a comment has the signs that answer it, and returns our replies below the pull request.
func (w pulls) answered(number int, comment int64, signs ...string) (replies []string) {
	w.t.Helper()
	await(w.t, "the answer "+strings.Join(signs, " "), func() bool {
		replies = nil
		var shown []string
		for _, c := range w.hub.Comments("acme/repo", number) {
			if c.ID == comment {
				for _, r := range c.Reactions {
					shown = append(shown, r.Content)
				}
			}
			if strings.HasPrefix(c.Body, "<!-- towpath:reply ") {
				replies = append(replies, c.Body)
			}
		}
		return slices.Equal(shown, signs) && (!slices.Contains(signs, "-1") || len(replies) > 0)
	})
	return replies
}

func TestWhatIsAskedForBelowAPullRequestIsHeardOnceAndAnsweredInOneReply(t *testing.T) {
	t.Parallel()
	w := onPulls(t)
	number, _ := w.open(hub.Pull{}, another())
	w.report(number, "the plan", made)
	w.hub.Role("acme/repo", "kim", "write")
	w.hub.Comment("acme/repo", number, "kim", "I like it")
	stranger := w.hub.Comment("acme/repo", number, "stranger", "/towpath status")
	w.answered(number, stranger, "confused")
	seen := w.hub.Comment("acme/repo", number, "kim", "/towpath status")
	if replies := w.answered(number, seen, "eyes"); len(replies) != 0 {
		t.Errorf("replies are %q", replies)
	}
	first := w.hub.Comment("acme/repo", number, "kim", "/towpath approve prod")
	w.answered(number, first, "-1")
	second := w.hub.Comment("acme/repo", number, "kim", "/towpath aprove prod")
	w.answered(number, second, "-1")
	var replies []string
	await(t, "one reply with both answers", func() bool {
		replies = w.answered(number, second, "-1")
		return strings.Contains(replies[0], "did you mean approve?")
	})
	if len(replies) != 1 || !strings.Contains(replies[0], "the pull request is not merged") {
		t.Errorf("replies are %q", replies)
	}
	for _, hook := range []string{"another", "yet another"} { // the same by another hook
		about := w.comments([]config.Source{w.sources["repo"].config}, status.Heard{Pull: number, Comment: first, CommentSum: status.Sum("/towpath approve prod")})
		if _, err := w.store.Deliver(t.Context(), hook, hook, "issue_comment", []byte("{}"), store.Hints{Comments: about}); err != nil {
			t.Fatal(err)
		}
	}
	if c, err := w.store.ClaimComment(t.Context(), "pull/main/repo/1", claimAnswers); err != nil || c != nil {
		t.Errorf("to be answered again: %+v, %v", c, err)
	}
	if made := w.hub.Creations()["reaction"]; made != 4 {
		t.Errorf("%d signs for 4 comments", made)
	}
}

func TestAForkIsPlannedOnceAPersonOfTheRepositoryNamedItsHead(t *testing.T) {
	t.Parallel()
	w := onPulls(t)
	w.hub.Repository("stranger/repo")
	number, head := w.open(hub.Pull{Author: "stranger", Head: hub.Tip{Repository: "stranger/repo"}}, another())
	w.report(number, "to be held", func(r rollout.ProposalReport) bool { return r.State == rollout.PlanHeld })
	w.answered(number, w.hub.Comment("acme/repo", number, "stranger", "/towpath plan "+head), "confused")
	w.hub.Role("acme/repo", "kim", "write")
	w.answered(number, w.hub.Comment("acme/repo", number, "kim", "/towpath plan "+head), "eyes")
	r := w.report(number, "the plan", made)
	if r.Named != head || len(r.Plans) != 1 || r.Plans[0].Application != "shop" {
		t.Errorf("the report is %+v", r)
	}
	// What the stranger pushes next is not read.
	next := w.repository.CommitTo("topic-1", "and more", gitserver.Files{"third/towpath.yaml": application("third", "third", "")["third/towpath.yaml"]})
	w.hub.Repository("acme/repo", next)
	w.hub.ChangePull("acme/repo", number, "synchronize", func(p *hub.Pull) { p.Head.SHA = next })
	w.report(number, "to be held again", func(r rollout.ProposalReport) bool { return r.State == rollout.PlanHeld && r.Head == next })
}
