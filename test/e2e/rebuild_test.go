package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"towpath/api"
	"towpath/internal/testkit/gitserver"
	"towpath/internal/testkit/world"
)

// one is a small application of a name.
func one(name, image string) gitserver.Files {
	file := strings.ReplaceAll(world.OnProd(healing, ""), "application: shop", "application: "+name)
	return gitserver.Files{name + "/towpath.yaml": file, name + "/manifests/all.yaml": strings.Replace(workload(name, image), "replicas: 2", "replicas: 1", 1)}
}

// succeeded counts the newest deployments that have.
func succeeded(t *testing.T, w *world.World) int {
	t.Helper()
	var list struct{ Items []api.Deployment }
	if err := w.API.Call(t.Context(), http.MethodGet, "/deployments?state=SUCCEEDED&limit=200", nil, &list); err != nil {
		t.Fatal(err)
	}
	return len(list.Items)
}

// uids is the identity of each object of a resource in prod.
func uids(w *world.World, resource string) map[string]string {
	all := map[string]string{}
	for name, o := range w.Objects("prod", resource) {
		all[name] = string(o.GetUID())
	}
	return all
}

func expectSame(t *testing.T, what string, before, after map[string]string) {
	t.Helper()
	for name, uid := range before {
		if after[name] != uid {
			t.Errorf("%s %s is %q, and was %q", what, name, after[name], uid)
		}
	}
}

func TestALostDatabaseIsRebuiltFromTheClustersAndNoPodRestarts(t *testing.T) {
	t.Parallel()
	const many = 198
	files := gitserver.Files{"shop/towpath.yaml": world.OnProd(halfThenApproval, ""), "shop/manifests/web.yaml": four("example.com/web:1")}
	for i := range many {
		for name, text := range one(fmt.Sprintf("app-%03d", i), "example.com/app:1") {
			files[name] = text
		}
	}
	for name, text := range one("back", "example.com/back:1") {
		files[name] = text
	}
	w := world.New(t, &shared, files)
	for some := 20; some <= many+2; some += 20 { // each of them in time, however busy the machine is
		w.Await(fmt.Sprintf("%d applications", some), func() (bool, error) { return succeeded(t, w) >= some, nil })
	}
	next(t, w, 2, "approval")
	expectState(t, w.Ended(w.Deployment("back", w.Commit("back 2", one("back", "example.com/back:2"))).ID), "SUCCEEDED")
	must(t, w, "deploy", "rollback", "back", "prod", "--reason", "a test", "--watch")
	former := []string{"v1 pods", "apps/v1 replicasets", "v1 configmaps", "v1 services"}
	before := map[string]map[string]string{}
	for _, resource := range former {
		before[resource] = uids(w, resource)
	}

	w.Rebuild()
	var findings string
	for some := many / 9; some <= many; some += many / 9 {
		w.Await(fmt.Sprintf("%d to be compared", some), func() (bool, error) {
			var err error
			findings, err = w.Operate("findings")
			return strings.Count(findings, "as it is asked for") >= some, err
		})
	}
	w.Await("all to be compared", func() (bool, error) {
		var err error
		findings, err = w.Operate("findings")
		return strings.Count(findings, "\n") == many+3 && !strings.Contains(findings, "not compared"), err
	})
	for application, words := range map[string]string{"shop": "of #1 (commit ", "back": "of #1 (commit "} {
		if !strings.Contains(line(findings, application), words) {
			t.Errorf("%s: %q lacks %q", application, line(findings, application), words)
		}
	}
	d := newest(t, w, "shop")
	refused(t, w, "the controller observes since its database was lost, and touches nothing; have it go on with: towpath-controller resume", nil, "deploy", "approve", d.ID)
	for _, resource := range former {
		expectSame(t, resource, before[resource], uids(w, resource))
	}

	out, err := w.Operate("resume")
	if err != nil || !strings.Contains(out, fmt.Sprintf("Of 200 targets %d run as they are asked for; 2 differ", many)) {
		t.Fatalf("resume: %v\n%s", err, out)
	}
	w.Await("the controller to go on", func() (bool, error) {
		code, _, _ := w.Towpath(t.TempDir(), nil, "deploy", "reject", newest(t, w, "back").ID, "--reason", "version 2 was bad")
		return code == 0, nil
	})
	if out := must(t, w, "why", "back"); !strings.Contains(out, "left as it was found") {
		t.Errorf("why: %s", out)
	}
	changed := w.Ended(w.Deployment("app-000", w.Commit("app 2", one("app-000", "example.com/app:2"))).ID)
	expectState(t, changed, "SUCCEEDED")
	if changed.Number != 3 {
		t.Errorf("the deployment after #1 and its rebuild is #%d", changed.Number)
	}
	after := uids(w, "v1 pods")
	for name := range before["v1 pods"] {
		if strings.HasPrefix(name, "app-000") {
			delete(before["v1 pods"], name)
		}
	}
	expectSame(t, "pod", before["v1 pods"], after)
	must(t, w, "deploy", "approve", d.ID) // what was found becomes what is asked for: the canary, from its first step
	waits(t, w, d.ID, "approval")
	must(t, w, "deploy", "approve", d.ID)
	expectState(t, w.Ended(d.ID), "SUCCEEDED")
	if images := w.Images("prod"); images["example.com/web:2"] != 4 || images["example.com/back:1"] != 1 || images["example.com/back:2"] != 0 || images["example.com/app:2"] != 1 {
		t.Errorf("in the end run %v", images)
	}
	for _, set := range w.Objects("prod", "apps/v1 replicasets") {
		if n, _, _ := unstructured.NestedInt64(set.Object, "spec", "replicas"); strings.HasPrefix(set.GetName(), "back") && n == 0 {
			return
		}
	}
	t.Error("the revision that was rolled back is no longer kept")
}

func line(text, begins string) string {
	for l := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(l, begins+" ") {
			return l
		}
	}
	return ""
}

func newest(t *testing.T, w *world.World, application string) api.Deployment {
	t.Helper()
	var list struct{ Items []api.Deployment }
	if err := w.API.Call(t.Context(), http.MethodGet, "/deployments?limit=1&application="+application, nil, &list); err != nil || len(list.Items) == 0 {
		t.Fatalf("no deployment of %s: %v", application, err)
	}
	return list.Items[0]
}

// What cannot be compared yet is waited for, also by a controller that dies meanwhile.
func TestARebuildWaitsForTheClustersThatItHasNotSeen(t *testing.T) {
	t.Parallel()
	w := world.New(t, &shared, shop("example.com/web:1"))
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")
	w.Rebuild("prod")
	refuses := func(words ...string) {
		t.Helper()
		out, err := w.Operate("resume")
		for _, word := range words {
			if err == nil || !strings.Contains(out, word) {
				t.Errorf("resume (%v) says %s", err, out)
			}
		}
	}
	w.Await("the file to wait", func() (bool, error) {
		out, err := w.Operate("findings")
		return strings.Contains(out, "shop/towpath.yaml is not compared yet: it waits for the clusters of prod\n"), err
	})
	refuses("source repo is not taken in whole yet", "shop/towpath.yaml is not compared yet: it waits for the clusters of prod (towpath agent list)", "wait for them, or give --anyway")
	w.KillController()
	w.StartController() // and the agents: it observes still
	w.Await("both targets to be compared", func() (bool, error) {
		out, err := w.Operate("findings")
		return strings.Count(out, "as it is asked for") == 2, err
	})
	refused(t, w, "the controller observes since its database was lost", nil, "deploy", "rollback", "shop", "--all")
	if out, err := w.Operate("resume"); err != nil || !strings.Contains(out, "Of 2 targets 2 run as they are asked for; 0 differ") {
		t.Errorf("resume: %v\n%s", err, out)
	}
	if out, err := w.Operate("resume"); err == nil || !strings.Contains(out, "nothing is held back: the controller does not observe") {
		t.Errorf("a second resume: %v\n%s", err, out)
	}
	says(t, w, "it runs as it is asked for; nothing was touched")
}

// What ends otherwise than as plain managed ReplicaSets is found to be as it is asked for, too.
func TestARebuildKnowsKeptDeploymentObjectsAndTurnedServices(t *testing.T) {
	t.Parallel()
	named := func(name, file string) string {
		return strings.ReplaceAll(file, "application: shop", "application: "+name)
	}
	w := world.New(t, &shared, gitserver.Files{
		"kept/towpath.yaml":           named("kept", world.OnProd(healing, "  keepDeploymentObject: true")),
		"kept/manifests/all.yaml":     workload("kept", "example.com/kept:1"),
		"turned/towpath.yaml":         named("turned", world.OnProd(`{blueGreen: {activeService: turned, redirectTrafficAfter: [], shutDownOldVersionAfter: []}}`, "")),
		"turned/manifests/all.yaml":   workload("turned", "example.com/turned:1"),
		"settings/towpath.yaml":       named("settings", world.OnProd(healing, "")),
		"settings/manifests/all.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {A: b}\n",
	})
	for _, application := range []string{"kept", "turned", "settings"} {
		expectState(t, w.Ended(w.Deployment(application, w.Repository.Head("main")).ID), "SUCCEEDED")
	}
	before := uids(w, "v1 pods")
	w.Rebuild()
	var findings string
	w.Await("all to be compared", func() (bool, error) {
		var err error
		findings, err = w.Operate("findings")
		return strings.Count(findings, "\n") == 4 && !strings.Contains(findings, "not compared"), err
	})
	if strings.Count(findings, "as it is asked for") != 3 {
		t.Errorf("found is\n%s", findings)
	}
	if out, err := w.Operate("resume"); err != nil {
		t.Fatalf("resume: %v\n%s", err, out)
	}
	expectSame(t, "pod", before, uids(w, "v1 pods"))
	for _, application := range []string{"kept", "turned"} {
		d := w.Ended(w.Deployment(application, w.Commit(application, gitserver.Files{application + "/manifests/all.yaml": workload(application, "example.com/"+application+":2")})).ID)
		expectState(t, d, "SUCCEEDED")
	}
	if images := w.Images("prod"); images["example.com/kept:2"] != 2 || images["example.com/turned:2"] != 2 || len(images) != 2 {
		t.Errorf("in the end run %v", images)
	}
}
