package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"

	"towpath/api"
	"towpath/internal/testkit/gitserver"
	"towpath/internal/testkit/world"
)

// refused runs the command line, which has to fail with these words.
func refused(t *testing.T, w *world.World, words string, env []string, args ...string) {
	t.Helper()
	code, out, errs := w.Towpath(t.TempDir(), env, args...)
	if code != 1 || !strings.Contains(errs, words) {
		t.Errorf("towpath %s: exit %d, want %q:\n%s%s", strings.Join(args, " "), code, words, out, errs)
	}
}

// as makes a token of a person who may look and approve, as an environment variable.
func as(w *world.World, name string) []string {
	return []string{"TOWPATH_TOKEN=" + w.Token(name, "view,approve")}
}

const fourEyes = `{canary: {steps: [{setWeight: {weight: 50}}, {pause: {untilApproved: true, approvals: 2, allowSelfApproval: false}}]}}`

func TestTwoPeopleApproveAndNoneWhoseChangeItIs(t *testing.T) {
	t.Parallel()
	w := first(t, world.OnProd(fourEyes, ""))
	d := next(t, w, 2, "approval")
	author, committer, bob, cleo := as(w, "ADA@example.com"), as(w, "Carl Committer"), as(w, "bob"), as(w, "cleo")
	approve := []string{"deploy", "approve", d.ID, "prod"}
	refused(t, w, "canary.steps[1] of target prod may not be given by ADA@example.com, whose own change it is (allowSelfApproval: false)", author, approve...)
	refused(t, w, "may not be given by Carl Committer, whose own change it is", committer, approve...)
	for range 2 {
		if code, out, errs := w.Towpath(t.TempDir(), bob, approve...); code != 0 {
			t.Fatalf("bob approves: %d %s%s", code, out, errs)
		}
	}
	if out := must(t, w, "why", "shop", "prod"); !strings.Contains(out, "approval of canary.steps[1]: 1 of 2 (bob), not by Ada Author or ada@example.com or Carl Committer or carl@example.com") {
		t.Errorf("why: %s", out)
	}
	if code, out, errs := w.Towpath(t.TempDir(), cleo, approve...); code != 0 {
		t.Fatalf("cleo approves: %d %s%s", code, out, errs)
	}
	expectState(t, w.Ended(d.ID), "SUCCEEDED")
	events := strings.Join(w.EventsOf(d.ID), "\n")
	for _, want := range []string{"prod: bob approved canary.steps[1]", "prod: cleo approved canary.steps[1]"} {
		if strings.Count(events, want) != 1 {
			t.Errorf("history does not say %q once:\n%s", want, events)
		}
	}
}

// The controller's setting counts where the file says nothing; who pushes is who made the change.
func TestNobodyApprovesWhatTheyPushedWhereTheControllerForbidsIt(t *testing.T) {
	t.Parallel()
	w := world.New(t, &shared, gitserver.Files{"README.md": "x"}, world.Configuration("approvals: {forbidSelf: true}\npush: {allow: [{accounts: [prod], namespaces: [\"*\"], kinds: [\"*\"]}]}"))
	dir := t.TempDir()
	for name, text := range map[string]string{"towpath.yaml": world.OnProd(`{canary: {steps: [{setWeight: {weight: 100}}]}}`, ""), "manifests/web.yaml": four("example.com/web:1")} {
		text = strings.Replace(text, "strategy: careful}", "strategy: careful, constraints: {beforeDeployment: [{pause: {untilApproved: true}}]}}", 1)
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(strings.ReplaceAll(text, "NAMESPACE", w.Namespace)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	bob := []string{"TOWPATH_TOKEN=" + w.Token("bob", "start,view,approve")}
	code, out, errs := w.Towpath(dir, bob, "-o", "json", "deploy", "start", "-f", "towpath.yaml")
	if code != 0 {
		t.Fatalf("bob pushes: %d %s%s", code, out, errs)
	}
	var d api.Deployment
	w.Await("bob's deployment", func() (bool, error) {
		var found struct{ Items []api.Deployment }
		err := w.API.Call(t.Context(), http.MethodGet, "/deployments?application=shop", nil, &found)
		if len(found.Items) == 1 {
			d = found.Items[0]
		}
		return err == nil && d.ID != "", err
	})
	waits(t, w, d.ID, "approval")
	refused(t, w, "may not be given by bob, whose own change it is", bob, "deploy", "approve", d.ID, "prod")
	if code, out, errs := w.Towpath(t.TempDir(), as(w, "cleo"), "deploy", "approve", d.ID, "prod"); code != 0 {
		t.Fatalf("cleo approves: %d %s%s", code, out, errs)
	}
	expectState(t, w.Ended(d.ID), "SUCCEEDED")
}

func TestAPauseIsSkippedWithAReason(t *testing.T) {
	t.Parallel()
	w := first(t, world.OnProd(`{canary: {steps: [{setWeight: {weight: 50}}, {pause: {duration: 48, unit: hours}}]}}`, ""))
	d := next(t, w, 2, "pause")
	refused(t, w, "what is skipped against the file needs a reason, for history; give --reason", nil, "deploy", "skip", d.ID)
	must(t, w, "deploy", "skip", d.ID, "--reason", "seen enough")
	expectState(t, w.Ended(d.ID), "SUCCEEDED")
	if events := strings.Join(w.EventsOf(d.ID), "\n"); !strings.Contains(events, "prod: test skipped canary.steps[1] | seen enough") {
		t.Errorf("history does not say who skipped it and why:\n%s", events)
	}
}

func TestAnEarlierDeploymentIsGoneBackTo(t *testing.T) {
	t.Parallel()
	w := world.New(t, &shared, shop("example.com/web:1"))
	ids := []string{w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID).ID}
	for version := 2; version <= 3; version++ {
		d := w.Ended(w.Deployment("shop", w.Commit(fmt.Sprint("web ", version), gitserver.Files{"shop/manifests/web.yaml": workload("web", fmt.Sprint("example.com/web:", version))})).ID)
		expectState(t, d, "SUCCEEDED")
		ids = append(ids, d.ID)
	}
	must(t, w, "-o", "json", "deploy", "rollback", "shop", "prod", "--to", ids[0], "--reason", "as in spring", "--watch")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:1": 2})
	expectImages(t, w, "staging", map[string]int64{"example.com/web:3": 2})
	if out := must(t, w, "why", "shop", "prod"); !strings.Contains(out, "held at #4 by test") || !strings.Contains(out, ": as in spring") {
		t.Errorf("why: %s", out)
	}
	refused(t, w, "application shop has no target nowhere", nil, "deploy", "rollback", "shop", "nowhere")
}

// staging is done and prod is half way.
func TestAllOfADeploymentUnderWayIsUndone(t *testing.T) {
	t.Parallel()
	file := strings.Replace(file("shop", ""), "strategy: rolling\n    constraints", "strategy: careful\n    constraints", 1) + "  careful: " + halfThenApproval + "\n"
	file = strings.Replace(file, "strategies: {rolling: {canary: {steps: [{setWeight: {weight: 100}}]}}}", "strategies:\n  rolling: {canary: {steps: [{setWeight: {weight: 100}}]}}", 1)
	w := first(t, file)
	d := next(t, w, 2, "approval")
	expectImages(t, w, "staging", map[string]int64{"example.com/web:2": 4})
	must(t, w, "-o", "json", "deploy", "rollback", "shop", "--all", "--reason", "errors", "--watch")
	expectState(t, w.Ended(d.ID), "CANCELLED")
	for _, cluster := range []string{"staging", "prod"} {
		expectImages(t, w, cluster, map[string]int64{"example.com/web:1": 4})
	}
}

func TestHoldsOfAnAccountAndOfAllHaltWhatIsMergedToo(t *testing.T) {
	t.Parallel()
	w := world.New(t, &shared, shop("example.com/web:1"))
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")
	refused(t, w, "no target is on account prdo, and no agent is called so, so nothing is halted", nil, "hold", "--account", "prdo", "--reason", "freeze")
	refused(t, w, "no application shpo, so nothing is halted", nil, "hold", "--app", "shpo", "--reason", "freeze")
	must(t, w, "hold", "--account", "prod", "--reason", "freeze")
	d := w.Deployment("shop", w.Commit("web 2", gitserver.Files{"shop/manifests/web.yaml": workload("web", "example.com/web:2")}))
	waits(t, w, d.ID, "hold")
	w.Await("staging, which is not held", func() (bool, error) {
		return maps.Equal(w.Images("staging"), map[string]int64{"example.com/web:2": 2}), nil
	})
	expectImages(t, w, "prod", map[string]int64{"example.com/web:1": 2})
	if out := must(t, w, "why", "shop", "prod"); !strings.Contains(out, "halted by test, freeze") {
		t.Errorf("why: %s", out)
	}
	must(t, w, "hold", "--all", "--reason", "audit")
	must(t, w, "unhold", "--account", "prod")
	w.Await("the hold of all", func() (bool, error) {
		return strings.Contains(must(t, w, "why", "shop", "prod"), "halted by test, audit"), nil
	})
	expectImages(t, w, "prod", map[string]int64{"example.com/web:1": 2})
	must(t, w, "unhold", "--all")
	expectState(t, w.Ended(d.ID), "SUCCEEDED")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:2": 2})
}

func TestAnEmergencyIsHeldUntilGitHoldsIt(t *testing.T) {
	t.Parallel()
	w := first(t, world.OnProd(halfThenApproval, ""))
	dir := t.TempDir()
	for name, text := range map[string]string{"towpath.yaml": world.OnProd(halfThenApproval, ""), "manifests/web.yaml": four("example.com/web:hotfix")} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(strings.ReplaceAll(text, "NAMESPACE", w.Namespace)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	code, out, errs := w.Towpath(dir, []string{"TOWPATH_TOKEN=" + w.Token("responder", "start,view,breakGlass")},
		"deploy", "start", "-f", "towpath.yaml", "--emergency", "--reason", "leak", "--skip", "approvals", "--watch")
	if code != 0 {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	if out := must(t, w, "why", "shop", "prod"); !strings.Contains(out, "held at #2 by responder") {
		t.Errorf("why: %s", out)
	}
	w.Commit("the hotfix in Git", gitserver.Files{"shop/manifests/web.yaml": four("example.com/web:hotfix")})
	w.Await("the end of the pin", func() (bool, error) { return !strings.Contains(must(t, w, "why", "shop", "prod"), "held at"), nil })
	expectImages(t, w, "prod", map[string]int64{"example.com/web:hotfix": 4})
	if events := strings.Join(w.Events("shop"), "\n"); !strings.Contains(events, "prod: what it is held at, #2, is what is asked for: it is held no longer") || strings.Contains(events, "#3") {
		t.Errorf("nothing had to be done but to let it go:\n%s", events)
	}
	d := next(t, w, 3, "approval")
	must(t, w, "deploy", "approve", d.ID)
	expectState(t, w.Ended(d.ID), "SUCCEEDED")
}

func TestSeveralDeploymentObjectsMoveTogetherAndGoBackTogether(t *testing.T) {
	t.Parallel()
	both := func(web, api string) gitserver.Files {
		return gitserver.Files{"shop/towpath.yaml": world.OnProd(halfThenApproval, ""), "shop/manifests/web.yaml": workload("web", web), "shop/manifests/api.yaml": workload("api", api)}
	}
	w := world.New(t, &shared, both("example.com/web:1", "example.com/api:1"))
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")
	d := w.Deployment("shop", w.Commit("both 2", both("example.com/web:2", "example.com/api:2")))
	waits(t, w, d.ID, "approval")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:1": 1, "example.com/web:2": 1, "example.com/api:1": 1, "example.com/api:2": 1})
	must(t, w, "deploy", "approve", d.ID)
	expectState(t, w.Ended(d.ID), "SUCCEEDED")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:2": 2, "example.com/api:2": 2})
	d = w.Deployment("shop", w.Commit("both 3", both("example.com/web:3", "example.com/api:3")))
	waits(t, w, d.ID, "approval")
	must(t, w, "deploy", "reject", d.ID, "--reason", "api is worse")
	expectState(t, w.Ended(d.ID), "FAILED")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:2": 2, "example.com/api:2": 2})
}

const budget = `
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 3, selector: {matchLabels: {app: web}}}
`

// A budget counts the pods of every revision: it goes by the manifest's selector, and the cluster finds whose pods they are.
func TestAPodDisruptionBudgetKeepsMatching(t *testing.T) {
	t.Parallel()
	w := world.New(t, &shared, gitserver.Files{"shop/towpath.yaml": world.OnProd(halfThenApproval, ""), "shop/manifests/web.yaml": four("example.com/web:1") + budget})
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")
	figures := func() map[string]any {
		status, _ := w.Objects("prod", "policy/v1 poddisruptionbudgets")["web"].Object["status"].(map[string]any)
		return status
	}
	counts := func(moment string) {
		t.Helper()
		w.Await("the budget "+moment, func() (bool, error) {
			s := figures()
			return s["currentHealthy"] == int64(4) && s["expectedPods"] == int64(4) && s["disruptionsAllowed"] == int64(1), nil
		})
	}
	counts("at first")
	d := w.Deployment("shop", w.Commit("version 2", gitserver.Files{"shop/manifests/web.yaml": four("example.com/web:2") + budget}))
	waits(t, w, d.ID, "approval")
	counts("half way")
	must(t, w, "deploy", "approve", d.ID)
	expectState(t, w.Ended(d.ID), "SUCCEEDED")
	counts("in the end")
}

func TestADeploymentObjectThatSomebodyMakesAgainIsTakenOverAndTold(t *testing.T) {
	t.Parallel()
	w := first(t, world.OnProd(`{canary: {steps: [{setWeight: {weight: 100}}]}}`, ""))
	again := world.Object(strings.SplitN(four("example.com/web:1"), "---", 2)[0])
	again.SetNamespace(w.Namespace)
	w.Do("prod", "apps/v1 deployments", func(deployments dynamic.ResourceInterface) error {
		_, err := deployments.Create(t.Context(), again, metav1.CreateOptions{FieldManager: "kubectl"})
		return err
	})
	d := w.Ended(w.Deployment("shop", w.Commit("version 2", gitserver.Files{"shop/manifests/web.yaml": four("example.com/web:2")})).ID)
	expectState(t, d, "SUCCEEDED")
	w.Await("the pods of the other one to go", func() (bool, error) {
		return maps.Equal(w.Images("prod"), map[string]int64{"example.com/web:2": 4}), nil
	})
	if events := strings.Join(w.EventsOf(d.ID), "\n"); !strings.Contains(events, "is there again though its pods are managed: something else makes it") {
		t.Errorf("nobody is told that something else makes it:\n%s", events)
	}
}
