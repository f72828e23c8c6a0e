package github

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-github/v60/github"
)

func TestFaultsOfOneOperationLeaveTheOthersAlone(t *testing.T) {
	t.Parallel()
	g, client := talking(t)
	g.NextOf("issues/create-comment", Unanswered)
	g.NextOf("repos/list-pull-requests-associated-with-commit", Empty)
	for want := range 2 { // at first there are none
		found, _, err := client.PullRequests.ListPullRequestsWithCommit(t.Context(), "acme", "shop", sha, nil)
		ok(t, err)
		if len(found) != want {
			t.Errorf("found %d, want %d", len(found), want)
		}
	}
	if _, _, err := client.Issues.CreateComment(t.Context(), "acme", "shop", 1, text("once")); err == nil {
		t.Error("answered")
	}
	if kept := g.Comments("acme/shop", 1); len(kept) != 1 || kept[0].Body != "once" {
		t.Errorf("kept are %+v", kept)
	}
	_, _, err := client.Issues.CreateComment(t.Context(), "acme", "shop", 1, text("twice"))
	ok(t, err)
}

func TestCodeRunsBeforeAndAfterEachWrite(t *testing.T) {
	t.Parallel()
	g, client := talking(t)
	var seen []string
	g.AroundWrites(func(w Write) {
		seen = append(seen, fmt.Sprint(w.N, " ", w.Operation, " ", w.Done, " ", len(g.Comments("acme/shop", 1))))
		if w.N == 2 && w.Done {
			panic(http.ErrAbortHandler)
		}
	})
	_, _, err := client.PullRequests.Get(t.Context(), "acme", "shop", 1)
	ok(t, err)
	made, _, err := client.Issues.CreateComment(t.Context(), "acme", "shop", 1, text("one"))
	ok(t, err)
	if _, err := client.Issues.DeleteComment(t.Context(), "acme", "shop", made.GetID()); err == nil {
		t.Error("the second was answered")
	}
	g.AroundWrites(nil)
	_, _, err = client.Issues.CreateComment(t.Context(), "acme", "shop", 1, text("two"))
	ok(t, err)
	want := []string{"1 issues/create-comment false 0", "1 issues/create-comment true 1", "2 issues/delete-comment false 1", "2 issues/delete-comment true 0"}
	if !slices.Equal(seen, want) {
		t.Errorf("seen were %q", seen)
	}
}

func TestDeliveriesAreLostDoubledAndLate(t *testing.T) {
	t.Parallel()
	g, _ := talking(t)
	install(t, g, 7, "towpath", Rights{"pull_requests": "read"})
	e := listen(t, g, 7)
	g.NextDeliveries(Lost, Unsent, Doubled, Late, Arrives)
	for _, body := range []string{"lost", "unsent", "doubled", "late", "arrives", "next"} {
		g.Comment("acme/shop", 1, "ann", body)
	}
	var bodies, guids []string
	for _, h := range e.take(g) {
		bodies, guids = append(bodies, h.event.(*github.IssueCommentEvent).GetComment().GetBody()), append(guids, h.guid)
	}
	if got := strings.Join(bodies, " "); got != "doubled doubled arrives late next" || guids[0] != guids[1] || guids[1] == guids[2] {
		t.Errorf("heard were %s, as %v", got, guids)
	}
	failed := 0
	for _, d := range g.apps[7].deliveries {
		if d.code != http.StatusAccepted {
			failed++
		}
	}
	if n := len(g.apps[7].deliveries); n != 6 || failed != 1 {
		t.Errorf("%d deliveries are listed, %d as failed", n, failed)
	}
}

func TestAMergeQueueAsksForChecksOfItsGroup(t *testing.T) {
	t.Parallel()
	for _, reason := range []string{"merged", "invalidated"} {
		g, repo, _ := versioned(t)
		e := listen(t, g, 7)
		base := repo.Head("main")
		repo.CommitTo("bump", "bump", map[string]string{"deploy/web.yaml": "image: 2\n"})
		group := g.QueuePull("acme/shop", g.OpenPull("acme/shop", Pull{Title: "bump", Head: Tip{Ref: "bump"}}), "ann")
		if group.BaseSHA != base || repo.Git("rev-parse", group.HeadRef) != group.HeadSHA || repo.Git("show", group.HeadSHA+":deploy/web.yaml") != "image: 2" {
			t.Errorf("the group is %+v", group)
		}
		g.EndGroup("acme/shop", group, reason)
		if merged := repo.Head("main") == group.HeadSHA; merged != (reason == "merged") || g.Pull("acme/shop", 1).Merged != merged || strings.Contains(repo.Git("for-each-ref"), "gh-readonly-queue") {
			t.Errorf("%s: main is at %s, left are %s", reason, repo.Head("main"), repo.Git("for-each-ref"))
		}
		var said []string
		for _, h := range e.take(g) {
			if m, is := h.event.(*github.MergeGroupEvent); is {
				said = append(said, m.GetAction()+" "+m.GetMergeGroup().GetBaseSHA()+" "+m.GetMergeGroup().GetHeadSHA())
			}
		}
		if of := " " + base + " " + group.HeadSHA; !slices.Equal(said, []string{"checks_requested" + of, "destroyed" + of}) {
			t.Errorf("heard were %v", said)
		}
	}
}

func TestEditsCostPointsAndAreNoCreations(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, client := talking(t)
		g.Limit(Limits{CreationsAMinute: 1, PointsAMinute: 100, RefuseWith: 429, WaitAfterRefusing: 30 * time.Second})
		made, _, err := client.Issues.CreateComment(t.Context(), "acme", "shop", 1, text("one"))
		ok(t, err)
		_, response, err := client.Issues.CreateComment(t.Context(), "acme", "shop", 1, text("two"))
		expectRefused(t, err, 429, "secondary rate limit")
		if response.Header.Get("Retry-After") != "30" {
			t.Errorf("Retry-After is %q", response.Header.Get("Retry-After"))
		}
		for range 18 { // 10 points are gone
			_, _, err := client.Issues.EditComment(t.Context(), "acme", "shop", made.GetID(), text("more"))
			ok(t, err)
		}
		_, _, err = client.Issues.EditComment(t.Context(), "acme", "shop", made.GetID(), text("more"))
		expectRefused(t, err, 429, "secondary rate limit")
		time.Sleep(time.Minute)
		_, _, err = client.Issues.EditComment(t.Context(), "acme", "shop", made.GetID(), text("more"))
		ok(t, err)
	})
}

func TestWhatIsUnchangedIsFreeOfThePrimaryLimit(t *testing.T) {
	t.Parallel()
	g, client := talking(t)
	get := func(client *github.Client, etag string) *github.Response {
		t.Helper()
		request, err := client.NewRequest("GET", "repos/acme/shop/pulls?state=open", nil)
		ok(t, err)
		request.Header.Set("If-None-Match", etag)
		response, _ := client.Do(t.Context(), request, nil) // 304 is an error for go-github
		return response
	}
	first := get(client, "")
	mark := first.Header.Get("ETag")
	again := get(client, mark)
	g.Token("another", "acme/shop", Rights{"pull_requests": "read"})
	stranger := get(speak(t, g, "another"), mark)
	g.ChangePull("acme/shop", 1, "edited", func(p *Pull) { p.Title = "new" })
	changed := get(client, mark)
	if got := []int{first.StatusCode, again.StatusCode, stranger.StatusCode, changed.StatusCode}; !slices.Equal(got, []int{200, 304, 200, 200}) {
		t.Errorf("answered with %v", got)
	}
	if first.Rate.Remaining != again.Rate.Remaining || changed.Rate.Remaining != again.Rate.Remaining-1 {
		t.Errorf("remaining were %d, %d, %d", first.Rate.Remaining, again.Rate.Remaining, changed.Rate.Remaining)
	}
}
