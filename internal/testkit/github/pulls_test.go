package github

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-github/v60/github"
)

// talking is a GitHub whose token may read and write pull requests, with one that is open.
func talking(t testing.TB) (g *GitHub, client *github.Client) {
	g = New(t)
	g.Repository("acme/shop", sha, other)
	g.Token("writes", "acme/shop", Rights{"pull_requests": "write", "statuses": "write"})
	g.OpenPull("acme/shop", Pull{Title: "bump", Author: "ann", Head: Tip{Ref: "bump", SHA: sha}, Base: Tip{SHA: other}})
	return g, speak(t, g, "writes")
}

func TestAPullRequestIsShownAsItStands(t *testing.T) {
	t.Parallel()
	g, client := talking(t)
	g.ChangePull("acme/shop", 1, "edited", func(p *Pull) {
		p.Files = []File{{Name: "a.yaml", Additions: 2, Deletions: 1, Patch: "@@ -1 +1 @@"}, {Name: "b.yaml", Previous: "c.yaml", Status: "renamed"}}
		p.Reviews = []Review{{Author: "bob", State: "APPROVED", At: longAgo}}
	})
	p, _, err := client.PullRequests.Get(t.Context(), "acme", "shop", 1)
	ok(t, err)
	if p.GetNumber() != 1 || p.GetTitle() != "bump" || p.GetUser().GetLogin() != "ann" || p.GetState() != "open" || p.GetDraft() || p.GetMerged() || !p.GetMergeable() ||
		p.GetHead().GetSHA() != sha || p.GetHead().GetRef() != "bump" || p.GetBase().GetSHA() != other || p.GetBase().GetRef() != "main" ||
		p.GetHead().GetRepo().GetID() != p.GetBase().GetRepo().GetID() || p.GetAdditions() != 2 || p.GetChangedFiles() != 2 {
		t.Errorf("shown as %v", p)
	}
	files, _, err := client.PullRequests.ListFiles(t.Context(), "acme", "shop", 1, nil)
	ok(t, err)
	if len(files) != 2 || files[0].GetPatch() != "@@ -1 +1 @@" || files[0].GetStatus() != "modified" || files[1].GetPreviousFilename() != "c.yaml" {
		t.Errorf("its files are %v", files)
	}
	reviews, _, err := client.PullRequests.ListReviews(t.Context(), "acme", "shop", 1, nil)
	ok(t, err)
	if len(reviews) != 1 || reviews[0].GetState() != "APPROVED" || reviews[0].GetUser().GetLogin() != "bob" || reviews[0].GetCommitID() != sha {
		t.Errorf("its reviews are %v", reviews)
	}
	of, _, err := client.PullRequests.ListPullRequestsWithCommit(t.Context(), "acme", "shop", sha, nil)
	ok(t, err)
	if len(of) != 1 || of[0].GetNumber() != 1 {
		t.Errorf("pull requests of its commit: %v", of)
	}
	g.ChangePull("acme/shop", 1, "closed", func(p *Pull) { p.Merged, p.MergedAs = true, other })
	p, _, err = client.PullRequests.Get(t.Context(), "acme", "shop", 1)
	ok(t, err)
	if !p.GetMerged() || p.GetState() != "closed" || p.GetMergeCommitSHA() != other || p.MergedAt == nil {
		t.Errorf("merged, it is shown as %v", p)
	}
	_, _, err = client.PullRequests.Get(t.Context(), "acme", "shop", 2)
	expectRefused(t, err, 404, "Not Found")
}

func TestAForkIsAnotherRepositoryAndMayBeGone(t *testing.T) {
	t.Parallel()
	g, client := talking(t)
	g.Repository("eve/shop", sha)
	n := g.OpenPull("acme/shop", Pull{Title: "hello", Author: "eve", Head: Tip{Repository: "eve/shop", Ref: "main", SHA: sha}, Base: Tip{SHA: other}})
	p, _, err := client.PullRequests.Get(t.Context(), "acme", "shop", n)
	ok(t, err)
	if p.GetHead().GetRepo().GetFullName() != "eve/shop" || p.GetHead().GetRepo().GetID() == p.GetBase().GetRepo().GetID() || p.GetHead().GetLabel() != "eve:main" {
		t.Errorf("the head is %v", p.GetHead())
	}
	g.ChangePull("acme/shop", n, "edited", func(p *Pull) { p.HeadGone = true })
	p, _, err = client.PullRequests.Get(t.Context(), "acme", "shop", n)
	ok(t, err)
	if p.GetHead().Repo != nil || p.GetHead().GetSHA() != sha {
		t.Errorf("with its repository gone the head is %v", p.GetHead())
	}
}

func TestPullRequestsAreListedByStateAndBranch(t *testing.T) {
	t.Parallel()
	g, client := talking(t)
	g.OpenPull("acme/shop", Pull{Title: "two", Head: Tip{Ref: "two", SHA: sha}, Base: Tip{Ref: "stable", SHA: other}})
	g.OpenPull("acme/shop", Pull{Title: "three", Head: Tip{Ref: "three", SHA: sha}, Base: Tip{SHA: other}})
	g.ChangePull("acme/shop", 3, "closed", func(p *Pull) { p.Closed = true })
	for want, o := range map[string]github.PullRequestListOptions{
		"2 1":   {},
		"3":     {State: "closed"},
		"3 2 1": {State: "all"},
		"1":     {Head: "acme:bump"},
		"2":     {Base: "stable"},
		"1 2":   {Direction: "asc"},
		"1 2 3": {State: "all", Sort: "updated"},
		"":      {Head: "eve:bump"},
	} {
		found, _, err := client.PullRequests.List(t.Context(), "acme", "shop", &o)
		ok(t, err)
		var numbers []string
		for _, p := range found {
			numbers = append(numbers, fmt.Sprint(p.GetNumber()))
		}
		if got := strings.Join(numbers, " "); got != want {
			t.Errorf("%+v lists %q, want %q", o, got, want)
		}
	}
}

func TestFilesEndAtThreeThousandAndCommitsAtTwoHundredAndFifty(t *testing.T) {
	t.Parallel()
	g, client := talking(t)
	g.ChangePull("acme/shop", 1, "synchronize", func(p *Pull) {
		for i := range 3100 {
			p.Files = append(p.Files, File{Name: fmt.Sprint(i)})
		}
		for range 260 {
			p.Commits = append(p.Commits, sha)
		}
	})
	files, options := 0, &github.ListOptions{PerPage: 500} // GitHub gives 100
	for options.Page = 1; options.Page != 0; {
		page, response, err := client.PullRequests.ListFiles(t.Context(), "acme", "shop", 1, options)
		ok(t, err)
		files, options.Page = files+len(page), response.NextPage
	}
	commits := 0
	for options.Page = 1; options.Page != 0; {
		page, response, err := client.PullRequests.ListCommits(t.Context(), "acme", "shop", 1, options)
		ok(t, err)
		commits, options.Page = commits+len(page), response.NextPage
	}
	if files != 3000 || commits != 250 {
		t.Errorf("%d files and %d commits are listed", files, commits)
	}
	if n := len(g.Requests()); n != 33 {
		t.Errorf("%d requests were needed", n)
	}
}

func TestWhatPeopleDoToAPullRequestIsDelivered(t *testing.T) {
	t.Parallel()
	g := New(t)
	g.Repository("acme/shop", sha, other)
	install(t, g, 7, "towpath", Rights{"pull_requests": "read"})
	install(t, g, 8, "deaf", Rights{"statuses": "read"})
	e, deaf := listen(t, g, 7), listen(t, g, 8)
	g.OpenPull("acme/shop", Pull{Title: "bump", Author: "ann", Head: Tip{Ref: "bump", SHA: sha}, Base: Tip{SHA: other}})
	g.ChangePull("acme/shop", 1, "synchronize", func(p *Pull) { p.Head.SHA = other })
	g.ChangePull("acme/shop", 1, "edited", func(p *Pull) { p.Base.Ref = "stable" })
	g.ChangePull("acme/shop", 1, "closed", func(p *Pull) { p.Merged, p.MergedAs = true, other })
	all := e.take(g)
	if len(all) != 4 || len(deaf.take(g)) != 0 {
		t.Fatalf("heard are %v", all)
	}
	opened, pushed, edited, closed := all[0].event.(*github.PullRequestEvent), all[1].event.(*github.PullRequestEvent), all[2].event.(*github.PullRequestEvent), all[3].event.(*github.PullRequestEvent)
	if opened.GetAction() != "opened" || opened.GetNumber() != 1 || opened.GetPullRequest().GetHead().GetSHA() != sha || opened.GetSender().GetLogin() != "ann" ||
		opened.GetRepo().GetFullName() != "acme/shop" || opened.GetInstallation().GetID() == 0 {
		t.Errorf("opened: %v", opened)
	}
	if pushed.GetBefore() != sha || pushed.GetAfter() != other || pushed.GetPullRequest().GetHead().GetSHA() != other {
		t.Errorf("synchronize: %v", pushed)
	}
	if edited.GetChanges().GetBase().GetRef().GetFrom() != "main" || edited.GetPullRequest().GetBase().GetRef() != "stable" {
		t.Errorf("edited: %v", edited)
	}
	if !closed.GetPullRequest().GetMerged() || closed.GetPullRequest().GetMergeCommitSHA() != other {
		t.Errorf("closed: %v", closed)
	}
}
