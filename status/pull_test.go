package status_test

import (
	"bytes"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"towpath/deployment"
	"towpath/internal/testkit/github"
	"towpath/manifest"
	"towpath/manifest/diff"
	"towpath/reconcile/rollout"
	"towpath/status"
	"towpath/store"
)

// proposing is a pull request whose plans are told by an App, in virtual time.
type proposing struct {
	*telling
	app   *status.App
	sends *status.Teller
}

// proposes runs a test with the pull request 7 of acme/repo, whose head is commit.
func proposes(t *testing.T, test func(w *proposing)) {
	tells(t, func(w *telling) {
		key := filepath.Join(w.TempDir(), "key")
		write(w.T, key, keys()[0])
		w.hub.Repository("acme/repo", commit, other)
		w.hub.App(7, "towpath", &keys()[0].PublicKey)
		w.hub.Install(7, github.Rights{"metadata": "read", "statuses": "write", "checks": "write", "pull_requests": "write"}, "acme/repo", "acme/web")
		w.hub.OpenPull("acme/repo", github.Pull{Number: 7, Author: "ann", Head: github.Tip{Ref: "more", SHA: commit}, Base: github.Tip{SHA: other}})
		app, err := status.NewApp(status.AppConfig{Name: "ours", ID: 7, KeyFile: key, APIURL: w.hub.URL, HTTP: w.hub.Client(), Clock: time.Now})
		w.must(err)
		forge, err := status.NewGitHub(status.GitHubConfig{App: app})
		w.must(err)
		log := logrus.New()
		log.SetOutput(w.log)
		p := &proposing{telling: w, app: app}
		p.sends = status.New(status.Config{Outbox: w.store, Forge: forge, Repositories: map[string]string{"repo": "acme/repo", "web": "acme/web"}, Budget: status.GitHubBudget, Clock: time.Now,
			Link: func(string, string) string { return "https://towpath.example.com/" }, Log: logrus.NewEntry(log)})
		w.run(p.sends)
		test(p)
	})
}

// plan has a plan of the pull request told, with what changes it.
func (w *proposing) plan(change func(r *rollout.ProposalReport)) {
	w.Helper()
	w.record(rollout.ProposalName{Tenant: "main", Source: "repo", Pull: 7}, change)
	w.sends.Wake()
}

func (w *telling) record(name rollout.ProposalName, change func(r *rollout.ProposalReport)) {
	w.Helper()
	w.must(w.store.LookAtProposals(w.Context(), rollout.ProposalLook{ProposalName: name}))
	r := rollout.ProposalReport{Proposal: rollout.Proposal{Tenant: "main", Source: "repo", Number: name.Pull, Head: commit, Base: "main"}, State: rollout.PlanMade, MergeBase: other}
	r.Plans = []rollout.ApplicationPlan{planOf("shop", "4", "6")}
	if change != nil {
		change(&r)
	}
	w.must(w.store.RecordProposal(w.Context(), rollout.KnownProposal{Name: name, Seen: time.Now().Unix(), Report: r}))
}

func planOf(application, from, to string) rollout.ApplicationPlan {
	return rollout.ApplicationPlan{Application: application, Path: application + "/towpath.yaml", Targets: []rollout.TargetPlan{{Name: "prod", Steps: []string{"all at once"},
		Changes: []rollout.PlannedChange{{Key: manifest.Key{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: "web"}, Kind: diff.Changed, Text: "-  replicas: " + from + "\n+  replicas: " + to + "\n"}}}}}
}

func wrong(problems int) func(r *rollout.ProposalReport) {
	return func(r *rollout.ProposalReport) {
		for i := range problems {
			r.Plans[0].Problems = append(r.Plans[0].Problems, deployment.Problem{File: "shop/towpath.yaml", Line: i + 1, Column: 3, Severity: deployment.Error, Text: fmt.Sprintf("wrong %d", i)})
		}
	}
}

// runs are the check runs of a commit, oldest first, as "name status conclusion: title".
func (w *proposing) runs(sha string) (lines []string) {
	for _, r := range w.hub.Runs("acme/repo", sha) {
		lines = append(lines, strings.Join(strings.Fields(fmt.Sprintf("%s %s %s", r.Name, r.Status, r.Conclusion)), " ")+": "+r.Title)
	}
	return lines
}

func (w *proposing) expectRuns(sha string, want ...string) {
	w.Helper()
	if got := w.runs(sha); !slices.Equal(got, want) {
		w.Errorf("the check runs are\n\t%s\nwant\n\t%s\nlog:\n%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"), w.log)
	}
}

// expectComments wants comments of the pull request that say these words, one each.
func (w *proposing) expectComments(words ...string) {
	w.Helper()
	all := w.hub.Comments("acme/repo", 7)
	said := len(all) == len(words)
	for i := range words {
		said = said && strings.Contains(all[i].Body, words[i])
	}
	if !said {
		w.Fatalf("the comments are %+v\nwant %q\nlog:\n%s", all, words, w.log)
	}
}

func (w *proposing) expectCreated(runs, comments int) {
	w.Helper()
	if made := w.hub.Creations(); made["check run"] != runs || made["comment"] != comments || made["status"] != 0 {
		w.Fatalf("created were %v, want %d check runs and %d comments", made, runs, comments)
	}
}

const (
	wholeGood = "Towpath plan completed success: shop: 1 target changes: +0 ~1 −0"
	shopGood  = "Towpath plan / shop completed success: 1 target changes: +0 ~1 −0"
	sixPods   = "+  replicas: 6"
)

func TestAPlanIsToldOnceAndChangedWhereItStands(t *testing.T) {
	proposes(t, func(w *proposing) {
		w.plan(func(r *rollout.ProposalReport) { r.State, r.Plans = rollout.PlanAsked, nil })
		w.after(5 * time.Second)
		w.expectRuns(commit, "Towpath plan in_progress: is being planned")
		w.expectComments()

		w.plan(nil)
		w.after(5 * time.Second)
		w.expectRuns(commit, wholeGood, shopGood)
		w.expectComments(sixPods)
		if author := w.hub.Comments("acme/repo", 7)[0].Author; author != "towpath[bot]" {
			w.Errorf("the comment is by %s", author)
		}
		w.plan(nil) // the same again, at another time
		w.after(time.Minute)
		if n := w.hub.Written()["issues/update-comment"] + w.hub.Written()["checks/update"]; n != 1 {
			w.Errorf("%d changes, want only the one from asked to made", n)
		}

		w.plan(func(r *rollout.ProposalReport) { // another head, which leaves shop alone
			r.Head, r.Plans = other, []rollout.ApplicationPlan{planOf("cart", "1", "2")}
		})
		w.after(time.Minute)
		w.expectRuns(commit, wholeGood, shopGood)
		w.expectRuns(other, "Towpath plan completed success: cart: 1 target changes: +0 ~1 −0", "Towpath plan / cart completed success: 1 target changes: +0 ~1 −0")
		w.expectComments("+  replicas: 2")

		w.plan(func(r *rollout.ProposalReport) { r.Head, r.Plans = other, nil })
		w.after(time.Minute)
		w.expectRuns(other, "Towpath plan completed neutral: nothing changes", "Towpath plan / cart completed neutral: nothing of it changes any more")
		w.expectComments("nothing changes")
		w.expectCreated(4, 1)
	})
}

func TestAPullRequestThatTouchesNothingOfOursGetsACheckAndNoComment(t *testing.T) {
	proposes(t, func(w *proposing) {
		w.plan(func(r *rollout.ProposalReport) { r.Plans = nil })
		w.after(time.Minute)
		w.expectRuns(commit, "Towpath plan completed neutral: nothing changes")
		w.expectComments()
	})
}

func TestWhatWasUnderWayIsEndedWhenItHasNoEndOfItsOwn(t *testing.T) {
	proposes(t, func(w *proposing) {
		asked := func(r *rollout.ProposalReport) { r.State, r.Plans = rollout.PlanAsked, nil }
		w.plan(asked)
		w.after(time.Minute)
		w.plan(func(r *rollout.ProposalReport) { asked(r); r.Head = other })
		w.after(time.Minute)
		w.expectRuns(commit, "Towpath plan completed cancelled: a newer commit took its place")
		w.expectRuns(other, "Towpath plan in_progress: is being planned")
		w.plan(func(r *rollout.ProposalReport) { asked(r); r.Head, r.Closed = other, true })
		w.after(time.Minute)
		w.expectRuns(other, "Towpath plan completed cancelled: closed before it was planned")
		w.plan(func(r *rollout.ProposalReport) { r.Head = other }) // opened again
		w.after(time.Minute)
		w.expectRuns(other, wholeGood, shopGood)
		before := len(w.hub.Requests())
		w.plan(func(r *rollout.ProposalReport) { r.Head, r.Closed = other, true })
		w.after(time.Minute)
		if n := len(w.hub.Requests()) - before; n != 0 {
			w.Errorf("%d requests about a pull request that was closed as it was planned", n)
		}
	})
}

// A comment is the person's who takes it away, until there is something that a person has to see.
func TestACommentThatWasDeletedComesBackOnlyForWhatAPersonHasToSee(t *testing.T) {
	proposes(t, func(w *proposing) {
		w.plan(nil)
		w.after(time.Minute)
		w.hub.DeleteComment("acme/repo", w.hub.Comments("acme/repo", 7)[0].ID, "ann")
		w.plan(func(r *rollout.ProposalReport) { r.Plans[0] = planOf("shop", "4", "7") })
		w.after(time.Minute)
		w.plan(func(r *rollout.ProposalReport) { r.Plans[0] = planOf("shop", "4", "8") })
		w.after(time.Minute)
		w.expectComments()
		w.plan(wrong(1))
		w.after(time.Minute)
		w.expectComments("wrong 0")
		w.hub.DeleteComment("acme/repo", w.hub.Comments("acme/repo", 7)[0].ID, "ann")
		w.plan(wrong(2))
		w.after(time.Minute)
		w.expectComments("wrong 1")
		w.plan(nil)
		w.after(time.Minute)
		w.expectComments(sixPods)
	})
}

// What others wrote is never taken for ours, and ours is known again without a record of it.
func TestACommentIsKnownByItsMarkAndItsAuthor(t *testing.T) {
	proposes(t, func(w *proposing) {
		w.hub.Comment("acme/repo", 7, "mallory", "<!-- towpath:sticky v1 source=repo pr=7 state=0 -->\nall is well")
		w.plan(nil)
		w.after(time.Minute)
		w.expectComments("all is well", sixPods)
		w.hub.EditComment("acme/repo", w.hub.Comments("acme/repo", 7)[1].ID, "ann", strings.ReplaceAll(w.hub.Comments("acme/repo", 7)[1].Body, "\n", "\r\n"))

		fresh, err := store.Open(w.Context(), store.Config{URL: "sqlite:" + filepath.Join(w.TempDir(), "fresh.db"), Keys: [][]byte{bytes.Repeat([]byte("k"), 32)}, Log: logrus.NewEntry(logrus.New())})
		w.must(err)
		defer fresh.Close()
		fresh.TellAbout([]string{"repo"})
		lost := *w.telling
		lost.store = fresh
		config := w.sends.Config
		config.Outbox = fresh
		w.run(status.New(config))
		lost.record(rollout.ProposalName{Tenant: "main", Source: "repo", Pull: 7}, func(r *rollout.ProposalReport) { r.Plans[0] = planOf("shop", "4", "9") })
		w.after(2 * time.Minute)
		w.expectComments("all is well", "+  replicas: 9")
		w.stop()
	})
}

func TestAnnotationsComeInPartsAndAreNeverRepeated(t *testing.T) {
	proposes(t, func(w *proposing) {
		marks := func(run int) int { return len(w.hub.Runs("acme/repo", commit)[run].Annotations) }
		w.plan(wrong(120))
		w.after(time.Minute)
		if n := marks(1); n != 120 || w.hub.Written()["checks/update"] != 2 {
			w.Errorf("%d annotations, after %v", n, w.hub.Written())
		}
		first := w.hub.Runs("acme/repo", commit)[1].Annotations[0]
		if first.Path != "shop/towpath.yaml" || first.StartLine != 1 || first.EndLine != 1 || first.Level != "failure" || first.Message != "wrong 0" {
			w.Errorf("annotated is %+v", first)
		}
		w.plan(func(r *rollout.ProposalReport) { wrong(120)(r); r.Plans[0].Same = 3 }) // other words, the same annotations
		w.after(time.Minute)
		if n := marks(1); n != 120 {
			w.Errorf("%d annotations after a change of words", n)
		}
		w.expectCreated(2, 1)
		w.plan(wrong(1)) // GitHub takes none away: a new run stands in the place of the former
		w.after(time.Minute)
		w.expectCreated(3, 1)
		if n := marks(2); n != 1 {
			w.Errorf("%d annotations on the new run", n)
		}
		w.plan(func(r *rollout.ProposalReport) { r.Plans = nil })
		w.after(time.Minute)
		w.expectCreated(3, 1) // what ends keeps its annotations
	})
}

// A write whose answer never came is looked up before anything is made again.
func TestNothingOfAPlanIsToldTwiceWhenAnAnswerIsLost(t *testing.T) {
	lose := func(after int, f github.Fault) []github.Fault {
		return append(slices.Repeat([]github.Fault{github.None}, after), f)
	}
	for name, faults := range map[string][]github.Fault{ // a look at the installation and a token come first; the comment needs a token of its own, and a look
		"the first check":            lose(2, github.Unanswered),
		"the second check":           lose(3, github.Unanswered),
		"the comment":                lose(6, github.Unanswered),
		"the comment, by a front":    lose(6, github.DoneBut(502)),
		"a check, by a front":        lose(2, github.DoneBut(504)),
		"a check that did not come":  lose(2, github.Cut),
		"a comment that did not":     lose(6, github.Broken(500)),
		"a limit before the comment": lose(6, github.TooMuch(403, time.Minute)),
	} {
		t.Run(name, func(t *testing.T) {
			proposes(t, func(w *proposing) {
				w.hub.Next(faults...)
				w.plan(wrong(70))
				w.after(time.Hour)
				w.expectRuns(commit, "Towpath plan completed failure: shop: shop/towpath.yaml:1:3: wrong 0 (and 69 more)", "Towpath plan / shop completed failure: shop/towpath.yaml:1:3: wrong 0 (and 69 more)")
				w.expectComments("wrong 0")
				if n := len(w.hub.Runs("acme/repo", commit)[1].Annotations); n != 70 {
					w.Errorf("%d annotations", n)
				}
				w.expectCreated(2, 1)
				if u := w.untold("repo"); u != (store.Untold{}) {
					w.Errorf("told, but the source says %+v", u)
				}
			})
		})
	}
}

func TestWhatGitHubRefusesOfAPlanIsParkedWithItsReason(t *testing.T) {
	for name, c := range map[string]struct {
		after int
		fault github.Fault
		says  string
		rest  int // how many check runs are told all the same
	}{
		"no comments on this one":   {6, github.Refused(http.StatusGone, "Issues are disabled for this repo"), "the comment on pull request 7 of acme/repo: GitHub answers 410: Issues are disabled for this repo", 2},
		"a conversation that ended": {6, github.Refused(http.StatusForbidden, "Unable to create comment because issue is locked."), "the comment on pull request 7 of acme/repo: GitHub answers 403", 2},
		"a comment that is unfit":   {6, github.Refused(http.StatusUnprocessableEntity, "Validation Failed"), "the comment on pull request 7 of acme/repo: GitHub answers 422: Validation Failed", 2},
		"a check run that is unfit": {2, github.Refused(http.StatusUnprocessableEntity, "Validation Failed"), "the check run Towpath plan of acme/repo at " + commit[:10] + ": GitHub answers 422", 1},
		"an App that may not do that": {1, github.Refused(http.StatusUnprocessableEntity, "The permissions requested are not granted to this installation."),
			"a token of the App ours for acme/repo (checks: write): GitHub answers 422: The permissions requested are not granted", 0},
	} {
		t.Run(name, func(t *testing.T) {
			proposes(t, func(w *proposing) {
				w.hub.Next(append(slices.Repeat([]github.Fault{github.None}, c.after), c.fault)...)
				w.plan(nil)
				w.after(2 * time.Hour)
				if u := w.untold("repo"); !strings.HasPrefix(u.Failure, c.says) {
					w.Errorf("the source says %+v\nwant %s", u, c.says)
				}
				if n := len(w.runs(commit)); n != c.rest {
					w.Errorf("%d check runs, want %d", n, c.rest)
				}
				w.plan(func(r *rollout.ProposalReport) { r.Plans[0].Same = 1 }) // when there is news, it is tried again
				w.after(time.Minute)
				w.expectComments(sixPods)
				if u := w.untold("repo"); len(w.runs(commit)) != 2 || u != (store.Untold{}) {
					w.Errorf("told are %v, and the source says %+v", w.runs(commit), u)
				}
			})
		})
	}
}

func TestAnotherAppStartsWithChecksOfItsOwn(t *testing.T) {
	proposes(t, func(w *proposing) {
		w.plan(nil)
		w.after(time.Minute)
		w.hub.App(8, "second", &keys()[1].PublicKey)
		w.hub.Install(8, github.Rights{"metadata": "read", "checks": "write", "pull_requests": "write"}, "acme/repo", "acme/web")
		key := filepath.Join(w.TempDir(), "second")
		write(w.T, key, keys()[1])
		app, err := status.NewApp(status.AppConfig{Name: "second", ID: 8, KeyFile: key, APIURL: w.hub.URL, HTTP: w.hub.Client(), Clock: time.Now})
		w.must(err)
		config := w.sends.Config
		config.Forge, err = status.NewGitHub(status.GitHubConfig{App: app})
		w.must(err)
		w.run(status.New(config))
		w.plan(wrong(1))
		w.after(2 * time.Minute)
		all := w.hub.Runs("acme/repo", commit)
		if len(all) != 4 || all[2].App != 8 || all[3].Conclusion != "failure" {
			w.Errorf("the check runs are %v", w.runs(commit))
		}
		w.expectComments("wrong 0")
	})
}

func TestAGroupOfAMergeQueueHasChecksAndNoComment(t *testing.T) {
	proposes(t, func(w *proposing) {
		w.record(rollout.ProposalName{Tenant: "main", Source: "repo", Group: "gh-readonly-queue/main/pr-7-" + other}, nil)
		w.sends.Wake()
		w.after(time.Minute)
		w.expectRuns(commit, wholeGood, shopGood)
		w.expectComments()
	})
}

// A person's token may not write check runs: statuses stand in their place.
func TestWithATokenThePlanIsTold(t *testing.T) {
	tells(t, func(w *telling) {
		w.hub.Repository("acme/repo", commit, other)
		w.hub.Token(token, "acme/repo", github.Rights{"statuses": "write", "pull_requests": "write"})
		w.hub.OpenPull("acme/repo", github.Pull{Number: 7, Head: github.Tip{Ref: "more", SHA: commit}, Base: github.Tip{SHA: other}})
		w.run(w.teller(w.store, status.GitHubBudget))
		w.record(rollout.ProposalName{Tenant: "main", Source: "repo", Pull: 7}, nil)
		w.after(2 * time.Minute)
		w.expectTold("acme/repo", commit, "towpath/plan success: shop: 1 target changes: +0 ~1 −0", "towpath/plan/shop success: 1 target changes: +0 ~1 −0")
		w.record(rollout.ProposalName{Tenant: "main", Source: "repo", Pull: 7}, func(r *rollout.ProposalReport) { r.Plans[0] = planOf("shop", "4", "7") })
		w.after(2 * time.Minute)
		if all := w.hub.Comments("acme/repo", 7); len(all) != 1 || !strings.Contains(all[0].Body, "+  replicas: 7") {
			w.Errorf("the comments are %+v", all)
		}
		if u := w.untold("repo"); u != (store.Untold{}) {
			w.Errorf("the source says %+v", u)
		}
	})
}

func TestPullRequestsAreReadAsTheyStand(t *testing.T) {
	t.Parallel()
	hub := github.Start(t)
	hub.Repository("acme/repo", commit, other)
	hub.Repository("bob/repo", commit)
	hub.Token(token, "acme/repo", github.Rights{"pull_requests": "read"})
	open := func(p github.Pull) {
		p.Base = github.Tip{SHA: other}
		hub.OpenPull("acme/repo", p)
	}
	open(github.Pull{Number: 1, Title: "More", Author: "ann", Head: github.Tip{Ref: "more", SHA: commit}})
	open(github.Pull{Number: 2, Head: github.Tip{Repository: "bob/repo", Ref: "main", SHA: commit}})
	open(github.Pull{Number: 3, Head: github.Tip{Ref: "x", SHA: commit}, HeadGone: true})
	open(github.Pull{Number: 4, Head: github.Tip{Ref: "y", SHA: commit}})
	hub.ChangePull("acme/repo", 4, "closed", func(p *github.Pull) { p.Merged, p.MergedAs = true, other })
	g := reach(t, hub.URL, given)
	for _, want := range []status.Pull{
		{Number: 1, Head: commit, Base: "main", Title: "More", Author: "ann"},
		{Number: 2, Head: commit, Base: "main", Author: "octocat", Fork: true},
		{Number: 3, Head: commit, Base: "main", Author: "octocat", Fork: true},
		{Number: 4, Head: commit, Base: "main", Author: "octocat", Closed: true, Merged: other},
	} {
		if p, err := g.PullRequest(t.Context(), "acme/repo", want.Number); err != nil || p != want {
			t.Errorf("%d is %+v (%v), want %+v", want.Number, p, err, want)
		}
	}
	_, err := g.PullRequest(t.Context(), "acme/repo", 99)
	if f := failure(t, err); f.Kind != status.Refused || !strings.Contains(f.Text, "the pull request 99 of acme/repo: GitHub answers 404: Not Found; may the token read pull requests of this repository?") {
		t.Errorf("one that is not there: %+v", f)
	}
	for n := range 220 { // over three pages
		open(github.Pull{Number: 10 + n, Head: github.Tip{Ref: "z", SHA: commit}})
	}
	if all, err := g.OpenPullRequests(t.Context(), "acme/repo"); err != nil || len(all) != 223 {
		t.Errorf("open are %d, %v", len(all), err)
	}
}
