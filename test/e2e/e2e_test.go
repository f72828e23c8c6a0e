// Package e2e tests the product as people use it: real clusters, agents, repositories and programs.
package e2e

import (
	"bufio"
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"towpath/api"
	"towpath/internal/testkit/gitserver"
	"towpath/internal/testkit/world"
)

var shared world.Shared

func TestMain(m *testing.M) { world.Main(m, &shared, world.Build{Race: true}, "staging", "prod") }

func file(application, extra string) string { return world.TwoTargets(application, extra) }

func workload(name, image string) string { return world.Workload(name, image) }

func shop(image string) gitserver.Files {
	return gitserver.Files{"shop/towpath.yaml": file("shop", ""), "shop/manifests/web.yaml": workload("web", image)}
}

func expectImages(t *testing.T, w *world.World, cluster string, want map[string]int64) {
	t.Helper()
	if got := w.Images(cluster); !maps.Equal(got, want) {
		t.Errorf("on %s run %v, want %v", cluster, got, want)
	}
}

func expectState(t *testing.T, d api.Deployment, want string) {
	t.Helper()
	if d.State != want {
		t.Errorf("deployment #%d is %s, want %s:", d.Number, d.State, want)
		for _, target := range d.Targets {
			t.Errorf("  %s is %s: %s", target.Name, target.State, target.Why)
		}
	}
}

func target(t *testing.T, d api.Deployment, name string) api.Target {
	t.Helper()
	for _, target := range d.Targets {
		if target.Name == name {
			return target
		}
	}
	t.Fatalf("deployment #%d has no target %s", d.Number, name)
	return api.Target{}
}

func TestAMergeReachesStagingAndThenProd(t *testing.T) {
	t.Parallel()
	w := world.New(t, &shared, shop("example.com/web:1"))
	first := w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID)
	expectState(t, first, "SUCCEEDED")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:1": 2})

	second := w.Ended(w.Deployment("shop", w.Commit("web 2", gitserver.Files{"shop/manifests/web.yaml": workload("web", "example.com/web:2")})).ID)
	expectState(t, second, "SUCCEEDED")
	for _, cluster := range []string{"staging", "prod"} {
		expectImages(t, w, cluster, map[string]int64{"example.com/web:2": 2})
	}
	if staging, prod := target(t, second, "staging"), target(t, second, "prod"); prod.Started.Before(*staging.Ended) {
		t.Errorf("prod started at %s, before staging ended at %s", prod.Started, staging.Ended)
	}
	if second.Title != "web 2" || second.By == "" {
		t.Errorf("the deployment does not say where it comes from: %+v", second)
	}

	w.Commit("a file that nothing reads", gitserver.Files{"README.md": "hello"})
	w.Commit("another application", gitserver.Files{"other/towpath.yaml": file("other", ""), "other/manifests/x.yaml": workload("other", "example.com/other:1")})
	other := w.Ended(w.Deployment("other", w.Repository.Head("main")).ID)
	expectState(t, other, "SUCCEEDED")
	if events := w.Events("shop"); slices.ContainsFunc(events, func(e string) bool { return strings.Contains(e, "#3") }) {
		t.Errorf("a commit that changes nothing of shop started something:\n%s", strings.Join(events, "\n"))
	}
}

func TestTheClusterSeesOnlyTheAgentsServiceAccount(t *testing.T) {
	t.Parallel()
	w := world.New(t, &shared, shop("example.com/web:1"))
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")
	audit, err := os.Open(shared.Clusters["staging"].Audit)
	if err != nil {
		t.Fatal(err)
	}
	defer audit.Close()
	users := map[string]bool{}
	lines := bufio.NewScanner(audit)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var entry struct {
			User      struct{ Username string }
			UserAgent string
			ObjectRef struct{ Namespace string }
		}
		if err := json.Unmarshal(lines.Bytes(), &entry); err != nil {
			continue // the line is being written
		}
		name := entry.User.Username
		if entry.ObjectRef.Namespace == w.Namespace && (!ofKubernetes(name) || strings.Contains(entry.UserAgent, "towpath")) {
			users[name] = true
		}
	}
	if want := "system:serviceaccount:" + w.Namespace + ":agent"; len(users) != 1 || !users[want] {
		t.Errorf("the API server saw %v, want only %s", users, want)
	}
}

// ofKubernetes reports whether a user is a part of the cluster itself, or the one that the test makes namespaces with.
func ofKubernetes(user string) bool {
	return user == "system:admin" || user == "admin" || user == "localcluster-kubelet" || user == "system:apiserver" || strings.HasPrefix(user, "system:kube-") || strings.HasPrefix(user, "system:node") ||
		strings.HasPrefix(user, "system:serviceaccount:kube-system:")
}

func TestWhatIsNotReadyGoesBackAndProdStaysAsItWas(t *testing.T) {
	t.Parallel()
	w := world.New(t, &shared, shop("example.com/web:1"))
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")
	bad := w.Deployment("shop", w.Commit("an image that is not there", gitserver.Files{"shop/manifests/web.yaml": workload("web", "example.com/web:missing")}))
	w.Await("the reason why staging waits", func() (bool, error) {
		code, out, _ := w.Towpath(t.TempDir(), nil, "why", "shop", "staging")
		return code == 0 && strings.Contains(out, "0 of 2 pods ready: ErrImagePull") || strings.Contains(out, "ImagePullBackOff"), nil
	})
	mended := w.Ended(w.Deployment("shop", w.Commit("mended", gitserver.Files{"shop/manifests/web.yaml": workload("web", "example.com/web:3")})).ID)
	expectState(t, mended, "SUCCEEDED")
	if d := w.Ended(bad.ID); target(t, d, "staging").Why != "replaced by #3" {
		t.Errorf("staging of the bad commit: %+v", target(t, d, "staging"))
	}
	expectImages(t, w, "prod", map[string]int64{"example.com/web:3": 2})

	code, out, errs := w.Towpath(t.TempDir(), nil, "deploy", "rollback", "shop", "prod", "--reason", "a test", "--watch")
	if code != 0 {
		t.Fatalf("rollback: %d\n%s%s", code, out, errs)
	}
	expectImages(t, w, "prod", map[string]int64{"example.com/web:1": 2})
	expectImages(t, w, "staging", map[string]int64{"example.com/web:3": 2})
}

func TestWhatTheAPIServerRefusesIsToldInItsOwnWords(t *testing.T) {
	t.Parallel()
	w := world.New(t, &shared, shop("example.com/web:1"))
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")
	bad := strings.Replace(workload("web", "example.com/web:2"), "ports: [{port: 80}]", "ports: [{port: 99999}]", 1)
	d := w.Ended(w.Deployment("shop", w.Commit("a port that is none", gitserver.Files{"shop/manifests/web.yaml": bad})).ID)
	expectState(t, d, "FAILED")
	staging, prod := target(t, d, "staging"), target(t, d, "prod")
	if staging.State != "ROLLED_BACK" || !strings.Contains(staging.Why, "Invalid value: 99999") || !strings.HasSuffix(staging.Why, "held at #1") {
		t.Errorf("staging is %s: %s", staging.State, staging.Why)
	}
	if prod.State != "CANCELLED" || prod.Why != "not started: staging is ROLLED_BACK" {
		t.Errorf("prod is %s: %s", prod.State, prod.Why)
	}
	expectImages(t, w, "staging", map[string]int64{"example.com/web:1": 2})
}

func TestABrokenFileHurtsNobodyElseAndSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	w := world.New(t, &shared, gitserver.Files{"broken/towpath.yaml": "application: broken\ntargets:\n  prod: {acount: prod}\nmanifests: [{path: x}]\n",
		"reach/towpath.yaml": strings.ReplaceAll(file("reach", ""), "NAMESPACE", "kube-system"), "reach/manifests/web.yaml": workload("web", "x:1"),
		"shop/towpath.yaml": file("shop", ""), "shop/manifests/web.yaml": workload("web", "example.com/web:1")})
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")
	var sources struct{ Items []api.Source }
	if err := w.API.Call(t.Context(), http.MethodGet, "/sources", nil, &sources); err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, p := range sources.Items[0].Problems {
		said = append(said, p.File+": "+p.Text)
	}
	all := strings.Join(said, "\n")
	for _, want := range []string{"broken/towpath.yaml: unknown key acount; known here: account,", "reach/towpath.yaml: source repo may not deploy Deployment.apps kube-system/web to account staging"} {
		if !strings.Contains(all, want) {
			t.Errorf("the source's problems do not say %q:\n%s", want, all)
		}
	}

	// What runs goes on, and whoever asks for it is told that its file is broken by now.
	w.Commit("breaks shop", gitserver.Files{"shop/towpath.yaml": file("shop", "") + "x: [\n"})
	w.Await("the words of why", func() (bool, error) {
		return strings.Contains(must(t, w, "why", "shop"), "its file is not deployed as it is now: shop/towpath.yaml:"), nil
	})
	if out := must(t, w, "app", "list"); !strings.Contains(out, "SUCCEEDED, file refused") {
		t.Errorf("app list: %s", out)
	}
	code, out, errs := w.Towpath(t.TempDir(), nil, "deploy", "status")
	if code != 0 || !strings.Contains(errs, "not deployed as it is now: shop/towpath.yaml:") || !strings.Contains(errs, "not deployed as it is now: broken/towpath.yaml:3:") {
		t.Errorf("deploy status: %d\n%s%s", code, out, errs)
	}
	if out := must(t, w, "deploy", "list", "-n", "shop"); !strings.Contains(out, "#1") || !strings.Contains(out, "SUCCEEDED") {
		t.Errorf("deploy list: %s", out)
	}
}

func TestAClusterWhoseAgentIsAwayIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := world.New(t, &shared, shop("example.com/web:1"))
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")
	w.StopAgent("staging")
	d := w.Deployment("shop", w.Commit("web 2", gitserver.Files{"shop/manifests/web.yaml": workload("web", "example.com/web:2")}))
	w.Await("the wait for the agent", func() (bool, error) {
		_, out, _ := w.Towpath(t.TempDir(), nil, "why", "shop", "staging")
		return strings.Contains(out, "waits for the agent staging to connect"), nil
	})
	w.StartAgent("staging")
	expectState(t, w.Ended(d.ID), "SUCCEEDED")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:2": 2})
}

func TestAKilledControllerGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	w := world.New(t, &shared, shop("example.com/web:1"))
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")
	d := w.Deployment("shop", w.Commit("web 2", gitserver.Files{"shop/manifests/web.yaml": workload("web", "example.com/web:2")}))
	w.KillController()
	w.StartController()
	expectState(t, w.Ended(d.ID), "SUCCEEDED")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:2": 2})
}

func TestRemovalsBeyondTheBudgetWaitForAPerson(t *testing.T) {
	t.Parallel()
	files := shop("example.com/web:1")
	var many strings.Builder
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"} {
		many.WriteString("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\n")
	}
	files["shop/manifests/many.yaml"] = many.String()
	w := world.New(t, &shared, files)
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")
	d := w.Deployment("shop", w.Commit("fewer", gitserver.Files{"shop/manifests/many.yaml": gitserver.Delete}))
	for _, name := range []string{"staging", "prod"} {
		w.Await("approval of "+name, func() (bool, error) {
			code, _, _ := w.Towpath(t.TempDir(), nil, "deploy", "approve", d.ID, name, "--comment", "yes")
			return code == 0, nil
		})
	}
	expectState(t, w.Ended(d.ID), "SUCCEEDED")
	if left := w.Objects("prod", "v1 configmaps"); left["a"] != nil || left["web"] == nil {
		t.Errorf("left on prod: %v", slices.Collect(maps.Keys(left)))
	}
}

func TestADeletedFileOrphansWhatItDeployed(t *testing.T) {
	t.Parallel()
	w := world.New(t, &shared, shop("example.com/web:1"))
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")
	w.Commit("gone", gitserver.Files{"shop/towpath.yaml": gitserver.Delete})
	w.Await("the application to be orphaned", func() (bool, error) {
		_, out, _ := w.Towpath(t.TempDir(), nil, "app", "list")
		return strings.Contains(out, "ORPHANED"), nil
	})
	expectImages(t, w, "prod", map[string]int64{"example.com/web:1": 2})
	if code, out, errs := w.Towpath(t.TempDir(), nil, "app", "remove", "shop"); code != 0 {
		t.Fatalf("%s%s", out, errs)
	}
	w.Await("its objects to go", func() (bool, error) {
		return len(w.Images("prod"))+len(w.Images("staging")) == 0 && w.Objects("prod", "v1 services")["web"] == nil, nil
	})
}

func TestAPushDeploysWhatIsNotInGit(t *testing.T) {
	t.Parallel()
	w := world.New(t, &shared, gitserver.Files{"README.md": "nothing to deploy"})
	dir := t.TempDir()
	for name, text := range map[string]string{"deploy.yml": file("pushed", ""), "manifests/web.yaml": workload("web", "example.com/web:1"), "unread.txt": "x"} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(strings.ReplaceAll(text, "NAMESPACE", w.Namespace)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	output := filepath.Join(t.TempDir(), "output")
	code, out, errs := w.Towpath(dir, []string{"GITHUB_OUTPUT=" + output}, "deploy", "start", "-f", "deploy.yml", "--watch")
	if code != 0 || !strings.Contains(out, "] Deployment ID: ") || !strings.Contains(out, "Deployment status changed: RUNNING") || !strings.Contains(out, "completed with status: SUCCEEDED") {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	expectImages(t, w, "prod", map[string]int64{"example.com/web:1": 2})
	text, err := os.ReadFile(output)
	if err != nil || !strings.Contains(string(text), "RUN_RESULT=SUCCEEDED") || !strings.Contains(string(text), "DEPLOYMENT_ID=") {
		t.Errorf("GITHUB_OUTPUT is %q (%v)", text, err)
	}
	w.Commit("the same name in Git", gitserver.Files{"x/towpath.yaml": file("pushed", ""), "x/manifests/web.yaml": workload("web", "example.com/web:1")})
	w.Await("the refusal of a second owner", func() (bool, error) {
		var sources struct{ Items []api.Source }
		err := w.API.Call(t.Context(), http.MethodGet, "/sources", nil, &sources)
		return err == nil && len(sources.Items[0].Problems) == 1 && strings.Contains(sources.Items[0].Problems[0].Text, "application pushed is deployed by push; to hand it over to Git, run: towpath app remove --keep pushed"), err
	})
}

func TestARepeatedDeliveryChangesNothingAndAForgedOneIsRefused(t *testing.T) {
	t.Parallel()
	w := world.New(t, &shared, gitserver.Files{"README.md": "x"})
	for _, c := range []struct {
		guid, secret string
		want         int
	}{{"one", w.Secret(), http.StatusAccepted}, {"one", w.Secret(), http.StatusAccepted}, {"two", "guessed", http.StatusUnauthorized}, {"", w.Secret(), http.StatusBadRequest}} {
		if status, err := w.Deliver(c.guid, c.secret, []byte(`{}`)); err != nil || status != c.want {
			t.Errorf("delivery %q: %d (%v), want %d", c.guid, status, err, c.want)
		}
	}
}
