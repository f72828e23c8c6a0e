package e2e

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"towpath/api"
	"towpath/internal/testkit/github"
	"towpath/internal/testkit/gitserver"
	"towpath/internal/testkit/world"
)

// expectShown waits until a commit shows a state on GitHub, with words in its description.
func expectShown(t *testing.T, w *world.World, hub *github.GitHub, commit, context, state, words string) {
	t.Helper()
	var shown github.Status
	defer func() {
		if t.Failed() {
			t.Logf("%s shows %s: %s", context, shown.State, shown.Description)
		}
	}()
	w.Await(context+" to show "+state+": "+words, func() (bool, error) {
		shown = hub.Shown(world.GitHubRepository, commit)[context]
		return shown.State == state && strings.Contains(shown.Description, words), nil
	})
}

func TestACommitShowsOnGitHubHowItsRolloutStands(t *testing.T) {
	t.Parallel()
	hub := github.Start(t)
	w := world.New(t, &shared, shop("example.com/web:1"), world.OnGitHub(hub))
	commit := w.Repository.Head("main")
	d := w.Ended(w.Deployment("shop", commit).ID)
	expectState(t, d, "SUCCEEDED")
	expectShown(t, w, hub, commit, "towpath/shop", "success", "#1: live on staging, prod")
	expectShown(t, w, hub, commit, "towpath/shop/staging", "success", "live")
	expectShown(t, w, hub, commit, "towpath/shop/prod", "success", "live")
	first := hub.Statuses(world.GitHubRepository, commit)[0]
	if first.Context != "towpath/shop" || first.State != "pending" || first.TargetURL != d.Link || d.Link == "" {
		t.Errorf("first it showed %+v; the deployment's page is %s", first, d.Link)
	}

	commit = w.Commit("a port that is none, and a file with a mistake", gitserver.Files{
		"shop/manifests/web.yaml": strings.Replace(workload("web", "example.com/web:2"), "ports: [{port: 80}]", "ports: [{port: 99999}]", 1),
		"broken/towpath.yaml":     "application: broken\ntargets:\n  prod: {acount: prod}\nmanifests: [{path: x}]\n",
	})
	expectShown(t, w, hub, commit, "towpath/broken", "failure", "broken/towpath.yaml:3:10: unknown key acount; known here: account,")
	expectShown(t, w, hub, commit, "towpath/shop/staging", "failure", "Invalid value: 99999")
	expectShown(t, w, hub, commit, "towpath/shop", "failure", "#2: staging: rolled back: ")
	expectShown(t, w, hub, commit, "towpath/shop/prod", "error", "cancelled: not started: staging is ROLLED_BACK")
	good := w.Commit("mended", gitserver.Files{"shop/manifests/web.yaml": workload("web", "example.com/web:3"), "broken/towpath.yaml": ""})
	expectState(t, w.Ended(w.Deployment("shop", good).ID), "SUCCEEDED")
	hand(w, "v1 configmaps", "web", `{"data":{"IMAGE":"by hand"}}`)
	expectShown(t, w, hub, good, "towpath/shop/prod", "success", "live; changed since by others: ConfigMap "+w.Namespace+"/web differs at /data/IMAGE")
	expectShown(t, w, hub, good, "towpath/shop", "success", "live on staging, prod; changed since by others: prod")
	hand(w, "v1 configmaps", "web", `{"data":{"IMAGE":"example.com/web:3"}}`)
	w.Await("the statuses to say that it is no more", func() (bool, error) {
		return hub.Shown(world.GitHubRepository, good)["towpath/shop/prod"].Description == "live", nil
	})
	for _, r := range hub.Requests() {
		if r.Status != http.StatusCreated {
			t.Errorf("%s %s was answered with %d", r.Method, r.Path, r.Status)
		}
	}
}

func TestAMergeIsHeardAndToldByAnAppOfTheLeastRights(t *testing.T) {
	t.Parallel()
	const app = 7
	hub := github.Start(t)
	w := world.New(t, &shared, shop("example.com/web:1"), world.OnGitHub(hub), world.ByApp(app))
	w.HookOfApp(true)
	main := map[string]any{"ref": "refs/heads/main"}
	live := func(commit string) {
		t.Helper()
		expectState(t, w.Ended(w.Deployment("shop", commit).ID), "SUCCEEDED")
		expectShown(t, w, hub, commit, "towpath/shop", "success", "live on staging, prod")
		if by := hub.Shown(world.GitHubRepository, commit)["towpath/shop"].Creator; by != "towpath[bot]" {
			t.Errorf("told by %s", by)
		}
	}
	merge := func(image string) string {
		return w.Merge(image, gitserver.Files{"shop/manifests/web.yaml": workload("web", image)})
	}
	push := func(commit string) {
		t.Helper()
		if _, answered := hub.Emit(app, "push", world.GitHubRepository, main); answered != http.StatusAccepted {
			t.Fatalf("a push is answered with %d", answered)
		}
		live(commit)
	}
	live(w.Repository.Head("main"))
	push(merge("example.com/web:2"))
	hub.EndTokens() // an hour later
	push(merge("example.com/web:3"))
	w.NewKey()
	hub.EndTokens()
	push(merge("example.com/web:4"))
	told := 0
	for _, token := range hub.Issued() {
		if token.May["statuses"] == "write" {
			told++
		}
		if len(token.Repositories) != 1 || len(token.May) != 1 || token.May["statuses"] != "write" && token.May["pull_requests"] != "read" {
			t.Errorf("a token was given for %v with %v", token.Repositories, token.May)
		}
	}
	if told != 3 {
		t.Errorf("%d tokens to tell with, of which one ended and one was another key's", told)
	}

	w.StopController()
	w.HookOfApp(false)
	commit := merge("example.com/web:5")
	guid, answered := hub.Emit(app, "push", world.GitHubRepository, main)
	if answered != 0 {
		t.Fatalf("nobody answers with %d", answered)
	}
	w.HookOfApp(true)
	w.StartController()
	live(commit)
	w.Await("the delivery that failed to be sent again", func() (bool, error) {
		return slices.Equal(hub.Deliveries(app, guid), []int{http.StatusBadGateway, http.StatusAccepted}), nil
	})
}

func TestGitHubBeingAwayHoldsNothingUp(t *testing.T) {
	t.Parallel()
	hub := github.Start(t)
	hub.Always(github.Cut)
	w := world.New(t, &shared, shop("example.com/web:1"), world.OnGitHub(hub))
	commit := w.Repository.Head("main")
	expectState(t, w.Ended(w.Deployment("shop", commit).ID), "SUCCEEDED")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:1": 2})
	w.Await("the source to say what GitHub was not told, and why", func() (bool, error) {
		var sources struct{ Items []api.Source }
		err := w.API.Call(t.Context(), http.MethodGet, "/sources", nil, &sources)
		untold := sources.Items[0].Untold
		return err == nil && untold != nil && untold.Commits == 1 && strings.Contains(untold.Failure, "no answer from 127.0.0.1:"), err
	})
	hub.Always(nil)
	for context, words := range map[string]string{"towpath/shop": "#1: live on staging, prod", "towpath/shop/staging": "live", "towpath/shop/prod": "live"} {
		expectShown(t, w, hub, commit, context, "success", words)
	}
	if told := hub.Statuses(world.GitHubRepository, commit); len(told) != 3 {
		t.Errorf("told %d times, want each status once: %+v", len(told), told)
	}
}
