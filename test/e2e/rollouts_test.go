package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"

	"towpath/api"
	"towpath/internal/testkit/gitserver"
	"towpath/internal/testkit/world"
)

// four is the workload with four pods.
func four(image string) string {
	return strings.Replace(workload("web", image), "replicas: 2", "replicas: 4", 1)
}

// first brings version 1 to prod by a file.
func first(t *testing.T, file string) *world.World {
	t.Helper()
	w := world.New(t, &shared, gitserver.Files{"shop/towpath.yaml": file, "shop/manifests/web.yaml": four("example.com/web:1")})
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:1": 4})
	return w
}

// next merges a version and waits until prod waits for what a kind of wait names.
func next(t *testing.T, w *world.World, version int, kind string) api.Deployment {
	t.Helper()
	d := w.Deployment("shop", w.Commit(fmt.Sprint("version ", version), gitserver.Files{"shop/manifests/web.yaml": four(fmt.Sprint("example.com/web:", version))}))
	return waits(t, w, d.ID, kind)
}

// waits returns a deployment once a target of it waits for a kind of thing.
func waits(t *testing.T, w *world.World, id, kind string) (d api.Deployment) {
	t.Helper()
	w.Await("a wait for "+kind, func() (bool, error) {
		var err error
		d, err = w.API.Deployment(t.Context(), id)
		return err == nil && slices.ContainsFunc(d.Targets, func(t api.Target) bool {
			return slices.ContainsFunc(t.Waits, func(w api.Wait) bool { return w.Kind == kind })
		}), err
	})
	return d
}

// must runs the command line, which has to succeed.
func must(t *testing.T, w *world.World, args ...string) string {
	t.Helper()
	code, out, errs := w.Towpath(t.TempDir(), nil, args...)
	if code != 0 {
		t.Fatalf("towpath %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

const halfThenApproval = `{canary: {steps: [{setWeight: {weight: 50}}, {pause: {untilApproved: true, requiresRoles: [sre]}}]}}`

func TestACanaryWaitsAtItsWeightForAPerson(t *testing.T) {
	t.Parallel()
	w := first(t, world.OnProd(halfThenApproval, ""))
	d := next(t, w, 2, "approval")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:1": 2, "example.com/web:2": 2})
	if d.State != "AWAITING_APPROVAL" || target(t, d, "prod").Weight != 50 {
		t.Errorf("%s at %d", d.State, target(t, d, "prod").Weight)
	}
	if settings := w.Objects("prod", "v1 configmaps")["web"]; settings.Object["data"].(map[string]any)["IMAGE"] != "example.com/web:1" {
		t.Errorf("while half of the pods run the former version its settings are %v", settings.Object["data"])
	}
	if out := must(t, w, "why", "shop", "prod"); !strings.Contains(out, "waits for approval of canary.steps[1]: 0 of 1, by sre") || !strings.Contains(out, "→ towpath deploy approve "+d.ID+" prod") {
		t.Errorf("why: %s", out)
	}
	must(t, w, "deploy", "approve", d.ID, "--comment", "looks good")
	expectState(t, w.Ended(d.ID), "SUCCEEDED")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:2": 4})
	if settings := w.Objects("prod", "v1 configmaps")["web"]; settings.Object["data"].(map[string]any)["IMAGE"] != "example.com/web:2" {
		t.Errorf("at the end the settings are %v", settings.Object["data"])
	}
}

func TestARejectedCanaryGoesBackAndItsLaneIsHeld(t *testing.T) {
	t.Parallel()
	w := first(t, world.OnProd(halfThenApproval, ""))
	d := next(t, w, 2, "approval")
	must(t, w, "deploy", "reject", d.ID, "prod", "--reason", "errors rise")
	ended := w.Ended(d.ID)
	expectState(t, ended, "FAILED")
	if got := target(t, ended, "prod"); got.State != "ROLLED_BACK" || got.Why != "canary.steps[1] was rejected by test: errors rise; held at #1" {
		t.Errorf("prod is %s: %s", got.State, got.Why)
	}
	expectImages(t, w, "prod", map[string]int64{"example.com/web:1": 4})
	if out := must(t, w, "why", "shop", "prod"); !strings.Contains(out, "held at #1 by towpath, since ") || !strings.Contains(out, "its next change lifts that") {
		t.Errorf("why: %s", out)
	}
	if code, _, errs := w.Towpath(t.TempDir(), nil, "deploy", "rollback", "shop", "prod", "--to", d.ID, "--reason", "past everybody"); code != 1 ||
		!strings.Contains(errs, "deployment "+d.ID+" never succeeded on target prod, so its steps and approvals cannot be passed over; `towpath deploy start -i "+d.ID+"` starts it again with all of them") {
		t.Errorf("a rollback to what was rejected: exit %d, %s", code, errs)
	}
	mended := next(t, w, 3, "approval")
	must(t, w, "deploy", "approve", mended.ID)
	expectState(t, w.Ended(mended.ID), "SUCCEEDED")
	if out := must(t, w, "why", "shop", "prod"); strings.Contains(out, "held at") {
		t.Errorf("it is held still: %s", out)
	}
}

func TestAnApprovalThatExpiresCancelsTheDeployment(t *testing.T) {
	t.Parallel()
	w := first(t, world.OnProd(strings.Replace(halfThenApproval, "requiresRoles: [sre]", "approvalExpiration: {duration: 2, unit: seconds}", 1), ""))
	d := w.Ended(w.Deployment("shop", w.Commit("version 2", gitserver.Files{"shop/manifests/web.yaml": four("example.com/web:2")})).ID)
	expectState(t, d, "CANCELLED")
	if got := target(t, d, "prod"); got.State != "ROLLED_BACK" || got.Why != "canary.steps[1] expired: 0 of 1 approvals within 2s; held at #1" {
		t.Errorf("prod is %s: %s", got.State, got.Why)
	}
	expectImages(t, w, "prod", map[string]int64{"example.com/web:1": 4})
}

func TestANewerCommitTakesThePlaceOfACanaryUnderWay(t *testing.T) {
	t.Parallel()
	w := first(t, world.OnProd(halfThenApproval, ""))
	second := next(t, w, 2, "approval")
	third := next(t, w, 3, "approval")
	if got := target(t, w.Ended(second.ID), "prod"); got.State != "CANCELLED" || got.Why != "replaced by #3" {
		t.Errorf("prod of the second is %s: %s", got.State, got.Why)
	}
	expectImages(t, w, "prod", map[string]int64{"example.com/web:1": 2, "example.com/web:3": 2})
	must(t, w, "deploy", "approve", third.ID)
	expectState(t, w.Ended(third.ID), "SUCCEEDED")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:3": 4})
}

// serves is the image behind a Service: that of the revision whose hash its selector names.
func serves(t *testing.T, w *world.World, name string) string {
	t.Helper()
	selector, _, _ := unstructured.NestedStringMap(w.Objects("prod", "v1 services")[name].Object, "spec", "selector")
	for _, set := range w.Objects("prod", "apps/v1 replicasets") {
		if set.GetLabels()["pod-template-hash"] == selector["pod-template-hash"] {
			containers, _, _ := unstructured.NestedSlice(set.Object, "spec", "template", "spec", "containers")
			return containers[0].(map[string]any)["image"].(string)
		}
	}
	return fmt.Sprintf("no revision of %v", selector)
}

func TestBlueGreenTurnsItsServiceWhenAPersonSaysSo(t *testing.T) {
	t.Parallel()
	file := world.OnProd(`{blueGreen: {redirectTrafficAfter: [{pause: {untilApproved: true}}], shutDownOldVersionAfter: [{pause: {untilApproved: true}}]}}`,
		"trafficManagement: [{kubernetes: [{activeService: web, previewService: preview}]}]")
	w := world.New(t, &shared, gitserver.Files{"shop/towpath.yaml": file, "shop/manifests/web.yaml": four("example.com/web:1"),
		"shop/manifests/preview.yaml": "apiVersion: v1\nkind: Service\nmetadata: {name: preview}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n"})
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")
	d := next(t, w, 2, "approval")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:1": 4, "example.com/web:2": 4})
	if active, preview := serves(t, w, "web"), serves(t, w, "preview"); active != "example.com/web:1" || preview != "example.com/web:2" {
		t.Errorf("the active Service leads to %s, the preview to %s", active, preview)
	}
	must(t, w, "deploy", "approve", d.ID)
	w.Await("the old version to wait for its end", func() (bool, error) {
		now, err := w.API.Deployment(t.Context(), d.ID)
		return err == nil && target(t, now, "prod").Phase == "overlapping" && now.State == "AWAITING_APPROVAL", err
	})
	if active := serves(t, w, "web"); active != "example.com/web:2" {
		t.Errorf("the active Service leads to %s", active)
	}
	expectImages(t, w, "prod", map[string]int64{"example.com/web:1": 4, "example.com/web:2": 4})
	must(t, w, "deploy", "approve", d.ID)
	expectState(t, w.Ended(d.ID), "SUCCEEDED")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:2": 4})
}

// readyAddresses counts the ready addresses behind a Service.
func readyAddresses(w *world.World) int {
	count := 0
	for _, slice := range w.Objects("prod", "discovery.k8s.io/v1 endpointslices") {
		endpoints, _, _ := unstructured.NestedSlice(slice.Object, "endpoints")
		for _, e := range endpoints {
			if ready, _, _ := unstructured.NestedBool(e.(map[string]any), "conditions", "ready"); ready {
				count++
			}
		}
	}
	return count
}

// slow is the workload whose pods take a while to become ready; its own rollout takes no pod away before another is ready.
func slow(image string) string {
	careful := strings.Replace(four(image), "replicas: 4\n", "replicas: 4\n  strategy: {rollingUpdate: {maxUnavailable: 0}}\n", 1)
	return strings.Replace(careful, "labels: {app: web}}\n", "labels: {app: web}, annotations: {localcluster/ready-after: 1.5s}}\n", 1)
}

// A running Deployment object is taken over, also in the middle of its own rollout, and at no moment are fewer pods ready than before.
func TestARunningDeploymentObjectIsTakenOverAndAtNoMomentFewerPodsServe(t *testing.T) {
	t.Parallel()
	for name, halfDone := range map[string]bool{"at rest": false, "in the middle of its own rollout": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := world.New(t, &shared, gitserver.Files{"README.md": "x"})
			objects := strings.Split(slow("example.com/web:0"), "---")
			for i, resource := range []string{"apps/v1 deployments", "v1 services", "v1 configmaps"} {
				w.Do("prod", resource, func(r dynamic.ResourceInterface) error {
					_, err := r.Create(t.Context(), world.Object(objects[i]), metav1.CreateOptions{})
					return err
				})
			}
			w.Await("four addresses", func() (bool, error) { return readyAddresses(w) == 4, nil })
			if halfDone {
				w.Do("prod", "apps/v1 deployments", func(r dynamic.ResourceInterface) error {
					patch := `[{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "example.com/web:0b"}]`
					_, err := r.Patch(t.Context(), "web", types.JSONPatchType, []byte(patch), metav1.PatchOptions{})
					return err
				})
			}
			least := leastReady(t, w)
			d := w.Ended(w.Deployment("shop", w.Commit("taken over", gitserver.Files{"shop/manifests/web.yaml": slow("example.com/web:1"),
				"shop/towpath.yaml": strings.Replace(world.OnProd(halfThenPause, ""), "duration: 60, unit: seconds", "duration: 1, unit: hours", 1)})).ID) // it hears of the end of that rollout, and does not wait for its own
			expectState(t, d, "SUCCEEDED")
			expectImages(t, w, "prod", map[string]int64{"example.com/web:1": 4})
			if events := strings.Join(w.EventsOf(d.ID), "\n"); !strings.Contains(events, "prod: Deployment.apps "+w.Namespace+"/web is taken over, with its pods") {
				t.Errorf("history does not tell of it:\n%s", events)
			}
			if got := least(); got < 4 {
				t.Errorf("at one moment %d addresses were ready", got)
			}
			if left := w.Objects("prod", "apps/v1 deployments"); len(left) > 0 {
				t.Errorf("Deployment objects are left: %v", slices.Collect(maps.Keys(left)))
			}
		})
	}
}

const halfThenPause = `{canary: {steps: [{setWeight: {weight: 50}}, {pause: {duration: 1, unit: seconds}}]}}`

// leastReady watches the addresses behind the Service until it is called: the smallest number of ready ones at any change.
func leastReady(t *testing.T, w *world.World) func() int {
	t.Helper()
	var mu sync.Mutex
	least := readyAddresses(w)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	w.Do("prod", "discovery.k8s.io/v1 endpointslices", func(r dynamic.ResourceInterface) error {
		changes, err := r.Watch(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		go func() {
			defer close(ended)
			slices := map[string]int{}
			for change := range changes.ResultChan() {
				slice, ok := change.Object.(*unstructured.Unstructured)
				if !ok {
					continue
				}
				count := 0
				endpoints, _, _ := unstructured.NestedSlice(slice.Object, "endpoints")
				for _, e := range endpoints {
					if ready, _, _ := unstructured.NestedBool(e.(map[string]any), "conditions", "ready"); ready {
						count++
					}
				}
				slices[slice.GetName()] = count
				sum := 0
				for _, n := range slices {
					sum += n
				}
				mu.Lock()
				least = min(least, sum)
				mu.Unlock()
			}
		}()
		return nil
	})
	return func() int {
		cancel()
		<-ended
		mu.Lock()
		defer mu.Unlock()
		return least
	}
}

func TestAKeptDeploymentObjectIsPutBackAndTakenOverAgain(t *testing.T) {
	t.Parallel()
	w := first(t, strings.Replace(world.OnProd(halfThenPause, ""), "deploymentConfig:", "deploymentConfig:\n  keepDeploymentObject: true", 1))
	if w.Objects("prod", "apps/v1 deployments")["web"] == nil {
		t.Fatal("the Deployment object was not put back")
	}
	d := w.Ended(w.Deployment("shop", w.Commit("version 2", gitserver.Files{"shop/manifests/web.yaml": four("example.com/web:2")})).ID)
	expectState(t, d, "SUCCEEDED")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:2": 4})
	if w.Objects("prod", "apps/v1 deployments")["web"] == nil {
		t.Error("after the second one the Deployment object was not put back")
	}
}

func TestAHoldHaltsWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	w := first(t, world.OnProd(halfThenApproval, ""))
	d := next(t, w, 2, "approval")
	must(t, w, "hold", "--app", "shop", "--reason", "incident 7")
	waits(t, w, d.ID, "hold")
	if out := must(t, w, "why", "shop", "prod"); !strings.Contains(out, "waits for a person to let it go on: halted by test, incident 7") {
		t.Errorf("why: %s", out)
	}
	if out := must(t, w, "hold"); !strings.Contains(out, "incident 7") {
		t.Errorf("hold: %s", out)
	}
	must(t, w, "unhold", "--app", "shop")
	waits(t, w, d.ID, "approval")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:1": 2, "example.com/web:2": 2})
	must(t, w, "deploy", "approve", d.ID)
	expectState(t, w.Ended(d.ID), "SUCCEEDED")
}

func TestAllThatADeploymentDidIsUndoneTheLastTargetFirst(t *testing.T) {
	t.Parallel()
	w := world.New(t, &shared, shop("example.com/web:1"))
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")
	expectState(t, w.Ended(w.Deployment("shop", w.Commit("web 2", gitserver.Files{"shop/manifests/web.yaml": workload("web", "example.com/web:2")})).ID), "SUCCEEDED")
	out := must(t, w, "-o", "json", "deploy", "rollback", "shop", "--all", "--reason", "errors", "--watch")
	if !strings.Contains(out, `"SUCCEEDED"`) {
		t.Errorf("rollback: %s", out)
	}
	for _, cluster := range []string{"staging", "prod"} {
		expectImages(t, w, cluster, map[string]int64{"example.com/web:1": 2})
	}
	events := strings.Join(w.Events("shop"), "\n")
	if prod, staging := strings.Index(events, "prod: #3 started"), strings.Index(events, "staging: #3 started"); prod < 0 || staging < prod {
		t.Errorf("staging went back before prod:\n%s", events)
	}
	if out := must(t, w, "why", "shop", "prod"); !strings.Contains(out, "held at #3 by test") || !strings.Contains(out, ": errors") {
		t.Errorf("why: %s", out)
	}
}

func TestAnEmergencyDeploysWhatGitOwnsAndHoldsIt(t *testing.T) {
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
	emergency := []string{"deploy", "start", "-f", "towpath.yaml", "--emergency", "--reason", "leak", "--skip", "approvals", "--watch"}
	code, _, errs := w.Towpath(dir, nil, emergency...)
	if code != 1 || !strings.Contains(errs, "an emergency needs the grant breakGlass, which the token of test lacks") {
		t.Fatalf("without the grant: %d %s", code, errs)
	}
	code, out, errs := w.Towpath(dir, []string{"TOWPATH_TOKEN=" + w.Token("responder", "start,view,breakGlass")}, emergency...)
	if code != 0 {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	expectImages(t, w, "prod", map[string]int64{"example.com/web:hotfix": 4})
	if out := must(t, w, "why", "shop", "prod"); !strings.Contains(out, "held at #2 by responder") || !strings.Contains(out, ": leak") {
		t.Errorf("why: %s", out)
	}
	w.Commit("a file that nothing reads", gitserver.Files{"shop/README.md": "x"})
	d := next(t, w, 3, "approval")
	must(t, w, "deploy", "approve", d.ID)
	expectState(t, w.Ended(d.ID), "SUCCEEDED")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:3": 4})
}

func TestATargetThatCannotBeReachedIsSkippedWhereTheFileSaysSo(t *testing.T) {
	t.Parallel()
	file := strings.Replace(file("shop", ""), "staging: {account: staging,", "staging: {account: staging, unreachable: skip,", 1)
	w := world.New(t, &shared, gitserver.Files{"README.md": "x"}, world.Configuration("rollouts: {away: 1s}"))
	w.StopAgent("staging")
	d := w.Ended(w.Deployment("shop", w.Commit("shop", gitserver.Files{"shop/towpath.yaml": file, "shop/manifests/web.yaml": workload("web", "example.com/web:1")})).ID)
	expectState(t, d, "SUCCEEDED")
	if got := target(t, d, "staging"); got.State != "SKIPPED" || got.Why != "the agent staging is not connected, and the file says unreachable: skip" {
		t.Errorf("staging is %s: %s", got.State, got.Why)
	}
	expectImages(t, w, "prod", map[string]int64{"example.com/web:1": 2})
	w.StartAgent("staging")
	again := w.Ended(w.Deployment("shop", w.Commit("again", gitserver.Files{"shop/towpath.yaml": file + "\n# touched\n"})).ID)
	expectState(t, again, "SUCCEEDED")
	expectImages(t, w, "staging", map[string]int64{"example.com/web:1": 2})
}

// database is a StatefulSet of two pods.
func database(image string) string {
	return `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: db, image: "` + image + `"}]}
`
}

// Its controller waits for the pod that never becomes ready, also when the template is mended.
func TestAStatefulSetThatIsStuckAtABadVersionIsMended(t *testing.T) {
	t.Parallel()
	w := world.New(t, &shared, gitserver.Files{"shop/towpath.yaml": world.OnProd(halfThenPause, ""), "shop/manifests/db.yaml": database("example.com/db:1")})
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")
	bad := w.Deployment("shop", w.Commit("a bad one", gitserver.Files{"shop/manifests/db.yaml": database("example.com/db:missing")}))
	w.Await("the reason why prod waits", func() (bool, error) {
		_, out, _ := w.Towpath(t.TempDir(), nil, "why", "shop", "prod")
		return strings.Contains(out, "example.com/db:missing"), nil
	})
	mended := w.Ended(w.Deployment("shop", w.Commit("a good one", gitserver.Files{"shop/manifests/db.yaml": database("example.com/db:3")})).ID)
	expectState(t, mended, "SUCCEEDED")
	if got := target(t, w.Ended(bad.ID), "prod"); got.State != "CANCELLED" || got.Why != "replaced by #3" {
		t.Errorf("prod of the bad one is %s: %s", got.State, got.Why)
	}
	for name, pod := range w.Objects("prod", "v1 pods") {
		containers, _, _ := unstructured.NestedSlice(pod.Object, "spec", "containers")
		if image := containers[0].(map[string]any)["image"]; image != "example.com/db:3" {
			t.Errorf("%s runs %s", name, image)
		}
	}
}

func TestOneDeploymentWaitsForTheOtherWhereTheFileSaysSo(t *testing.T) {
	t.Parallel()
	w := first(t, strings.Replace(world.OnProd(halfThenApproval, ""), "deploymentConfig:", "deploymentConfig:\n  ifDeploymentInProgress: {strategy: enqueueOne}", 1))
	second := next(t, w, 2, "approval")
	third := w.Deployment("shop", w.Commit("version 3", gitserver.Files{"shop/manifests/web.yaml": four("example.com/web:3")}))
	if third.State != "QUEUED" || third.Why != "waits for #2 to end" {
		t.Errorf("the third is %s: %s", third.State, third.Why)
	}
	fourth := w.Deployment("shop", w.Commit("version 4", gitserver.Files{"shop/manifests/web.yaml": four("example.com/web:4")}))
	if dropped := w.Ended(third.ID); dropped.State != "CANCELLED" || dropped.Why != "replaced by #4 before it started" {
		t.Errorf("the third is %s: %s", dropped.State, dropped.Why)
	}
	must(t, w, "deploy", "approve", second.ID)
	expectState(t, w.Ended(second.ID), "SUCCEEDED")
	waits(t, w, fourth.ID, "approval")
	must(t, w, "deploy", "approve", fourth.ID)
	expectState(t, w.Ended(fourth.ID), "SUCCEEDED")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:4": 4})
}

func TestAPlanRefusesWhatCouldNeverBe(t *testing.T) {
	t.Parallel()
	w := world.New(t, &shared, gitserver.Files{"shop/towpath.yaml": file("shop", ""), "shop/manifests/web.yaml": workload("web", "example.com/web:1")})
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED") // from here on its cluster can be looked at
	w.Commit("what could never be", gitserver.Files{
		"role/towpath.yaml":        strings.NewReplacer("application: shop", "application: role", "[sre]", "[nobody]").Replace(world.OnProd(halfThenApproval, "")),
		"role/manifests/web.yaml":  workload("role", "example.com/web:1"),
		"links/towpath.yaml":       strings.Replace(world.OnProd(`{canary: {steps: [{exposeServices: {services: [web]}}]}}`, ""), "application: shop", "application: links", 1),
		"links/manifests/web.yaml": workload("links", "example.com/web:1"),
		"turns/towpath.yaml":       strings.Replace(world.OnProd(`{blueGreen: {activeService: gone}}`, ""), "application: shop", "application: turns", 1),
		"turns/manifests/web.yaml": workload("turns", "example.com/web:1"),
		"empty/towpath.yaml":       strings.Replace(world.OnProd(`{blueGreen: {activeService: empty}}`, ""), "application: shop", "application: empty", 1),
		"empty/manifests/web.yaml": strings.Replace(workload("empty", "example.com/web:1"), "spec: {selector: {app: empty}", "spec: {selector: {app: other}", 1),
	})
	for _, want := range []string{
		`role/towpath.yaml:10:57: nobody holds the role "nobody", so nobody could approve`,
		"links/towpath.yaml:10:30: this controller serves no preview links; previews.listen and previews.domain of its configuration say where it does",
		"turns/towpath.yaml:10:3: target prod: Service " + w.Namespace + "/gone, which the strategy turns, is neither in the manifests nor in the cluster",
		"empty/towpath.yaml:10:3: target prod: Service " + w.Namespace + "/empty selects no pods of the manifests, or those of several workloads: its selector is app=other",
	} {
		w.Await("the words "+want, func() (bool, error) { return strings.Contains(strings.Join(w.Problems(), "\n"), want), nil })
	}
}

func TestAPlanRefusesAServiceOfTheClusterThatSelectsNothingOfIt(t *testing.T) {
	t.Parallel()
	w := world.New(t, &shared, shop("example.com/web:1"))
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")
	there := world.Object("{apiVersion: v1, kind: Service, metadata: {name: there}, spec: {selector: {app: other}, ports: [{port: 80}]}}")
	there.SetNamespace(w.Namespace)
	w.Do("prod", "v1 services", func(services dynamic.ResourceInterface) error {
		_, err := services.Create(t.Context(), there, metav1.CreateOptions{})
		return err
	})
	w.Commit("turns a Service of the cluster", gitserver.Files{
		"turns/towpath.yaml":       strings.Replace(world.OnProd(`{blueGreen: {activeService: there}}`, ""), "application: shop", "application: turns", 1),
		"turns/manifests/web.yaml": workload("turns", "example.com/web:1"),
	})
	want := "turns/towpath.yaml:10:3: target prod: Service " + w.Namespace + "/there selects no pods of the manifests, or those of several workloads: its selector is app=other"
	w.Await("the words "+want, func() (bool, error) { return strings.Contains(strings.Join(w.Problems(), "\n"), want), nil })
}

// Trouble on the way is waited out longer each time; a person who knows that it is over need not wait.
func TestAPersonHasTheNextTryMadeNow(t *testing.T) {
	t.Parallel()
	w := first(t, world.OnProd(`{canary: {steps: [{setWeight: {weight: 100}}]}}`, ""))
	config, err := clientcmd.BuildConfigFromFlags("", shared.Clusters["prod"].Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	hooks := client.Resource(schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations"})
	hook := world.Object(`
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: ` + w.Namespace + `}
webhooks:
  - name: nobody.example.com
    clientConfig: {url: "https://127.0.0.1:1/"}
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ` + w.Namespace + `}}
    rules: [{apiGroups: [apps], apiVersions: [v1], operations: [CREATE], resources: [replicasets]}]
    sideEffects: None
    admissionReviewVersions: [v1]
`)
	if _, err := hooks.Create(t.Context(), hook, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	remove := func() error {
		return hooks.Delete(context.WithoutCancel(t.Context()), w.Namespace, metav1.DeleteOptions{})
	}
	t.Cleanup(func() { _ = remove() })
	d := next(t, w, 2, "retry")
	if out := must(t, w, "why", "shop", "prod"); !strings.Contains(out, `failed calling webhook "nobody.example.com"`) || !strings.Contains(out, "→ towpath deploy retry "+d.ID+" prod") {
		t.Errorf("why: %s", out)
	}
	w.Await("a try that is waited for longer", func() (bool, error) { return strings.Contains(must(t, w, "why", "shop", "prod"), "try 5:"), nil })
	if err := remove(); err != nil {
		t.Fatal(err)
	}
	must(t, w, "deploy", "retry", d.ID, "prod", "--reason", "the webhook is back")
	expectState(t, w.Ended(d.ID), "SUCCEEDED")
	if events := strings.Join(w.EventsOf(d.ID), "\n"); !strings.Contains(events, "prod: test asked to retry | the webhook is back") {
		t.Errorf("history does not say who asked:\n%s", events)
	}
}

// inProgress is prod with an approval, and what its file says of a deployment that comes while another is under way.
func inProgress(strategy string) string {
	return strings.Replace(world.OnProd(halfThenApproval, ""), "deploymentConfig:", "deploymentConfig:\n  ifDeploymentInProgress: {strategy: "+strategy+"}", 1)
}

func TestADeploymentIsRefusedWhileAnotherIsUnderWayWhereTheFileSaysSo(t *testing.T) {
	t.Parallel()
	w := first(t, inProgress("reject"))
	second := next(t, w, 2, "approval")
	third := w.Deployment("shop", w.Commit("version 3", gitserver.Files{"shop/manifests/web.yaml": four("example.com/web:3")}))
	if third.State != "REJECTED" || !strings.Contains(third.Why, "#2") {
		t.Errorf("the third is %s: %s", third.State, third.Why)
	}
	must(t, w, "deploy", "approve", second.ID)
	expectState(t, w.Ended(second.ID), "SUCCEEDED")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:2": 4})
}

func TestCommitsThatArriveMeanwhileAreOneDeploymentWhereTheFileSaysSo(t *testing.T) {
	t.Parallel()
	w := first(t, inProgress("batch"))
	second := next(t, w, 2, "approval")
	third := w.Deployment("shop", w.Commit("version 3", gitserver.Files{"shop/manifests/web.yaml": four("example.com/web:3")}))
	fourth := w.Deployment("shop", w.Commit("version 4", gitserver.Files{"shop/manifests/web.yaml": four("example.com/web:4")}))
	if joined := w.Ended(third.ID); joined.State != "CANCELLED" || joined.Why != "joined into #4" {
		t.Errorf("the third is %s: %s", joined.State, joined.Why)
	}
	must(t, w, "deploy", "approve", second.ID)
	waits(t, w, fourth.ID, "approval")
	must(t, w, "deploy", "approve", fourth.ID)
	expectState(t, w.Ended(fourth.ID), "SUCCEEDED")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:4": 4})
}

func TestADeploymentTakesThePlaceOfAnotherWhereTheFileSaysSo(t *testing.T) {
	t.Parallel()
	w := first(t, inProgress("supersede"))
	second := next(t, w, 2, "approval")
	third := next(t, w, 3, "approval")
	if got := target(t, w.Ended(second.ID), "prod"); got.State != "CANCELLED" || got.Why != "replaced by #3" {
		t.Errorf("prod of the second is %s: %s", got.State, got.Why)
	}
	must(t, w, "deploy", "approve", third.ID)
	expectState(t, w.Ended(third.ID), "SUCCEEDED")
}

func TestATargetThatCannotBeReachedFailsWhereTheFileSaysSo(t *testing.T) {
	t.Parallel()
	file := strings.Replace(file("shop", ""), "staging: {account: staging,", "staging: {account: staging, unreachable: fail,", 1)
	w := world.New(t, &shared, gitserver.Files{"README.md": "x"}, world.Configuration("rollouts: {away: 1s}"))
	w.StopAgent("staging")
	d := w.Ended(w.Deployment("shop", w.Commit("shop", gitserver.Files{"shop/towpath.yaml": file, "shop/manifests/web.yaml": workload("web", "example.com/web:1")})).ID)
	expectState(t, d, "FAILED")
	if got := target(t, d, "staging"); got.State != "FAILED" || got.Why != "the agent staging is not connected, and the file says unreachable: fail" {
		t.Errorf("staging is %s: %s", got.State, got.Why)
	}
	expectImages(t, w, "prod", map[string]int64{})
}
