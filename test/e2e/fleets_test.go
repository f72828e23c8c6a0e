package e2e

import (
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"towpath/api"
	"towpath/internal/testkit/gitserver"
	"towpath/internal/testkit/world"
)

const fleetsToHalf = `{canary: {workloads: [StatefulSet, daemonset], steps: [{setWeight: {weight: 50}}, {pause: {untilApproved: true}}]}}`

// fourPods is the StatefulSet with four pods, and everywhere a DaemonSet on both nodes of the cluster.
func fourPods(image string) string {
	return strings.Replace(database("example.com/db:"+image), "replicas: 2", "replicas: 4", 1)
}

func everywhere(image string) string {
	return `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec: {containers: [{name: agent, image: "example.com/agent:` + image + `"}]}
`
}

// fleet is an application of one StatefulSet or DaemonSet, of which version 1 runs.
func fleet(t *testing.T, manifest func(image string) string) *world.World {
	t.Helper()
	w := world.New(t, &shared, gitserver.Files{"shop/towpath.yaml": world.OnProd(fleetsToHalf, ""), "shop/manifests/web.yaml": manifest("1")})
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")
	return w
}

// podsOf is the image's tag of each pod of the application, by name where they have names of their own; in order.
func podsOf(w *world.World) string {
	var all []string
	for name, pod := range w.Objects("prod", "v1 pods") {
		containers, _, _ := unstructured.NestedSlice(pod.Object, "spec", "containers")
		image := containers[0].(map[string]any)["image"].(string)
		tag := image[strings.LastIndexByte(image, ':')+1:]
		if strings.HasPrefix(name, "db-") {
			tag = name[len("db-"):] + ":" + tag
		}
		if pod.GetDeletionTimestamp() == nil {
			all = append(all, tag)
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func expectPods(t *testing.T, w *world.World, want string) {
	t.Helper()
	if got := podsOf(w); got != want {
		t.Errorf("the pods run %s, want %s", got, want)
	}
}

// commits merges a version of the only workload.
func commits(w *world.World, version, text string) api.Deployment {
	return w.Deployment("shop", w.Commit("version "+version, gitserver.Files{"shop/manifests/web.yaml": text}))
}

func TestAStatefulSetWaitsAtItsShareAndGoesBackWhenItIsRejected(t *testing.T) {
	t.Parallel()
	w := fleet(t, fourPods)
	d := waits(t, w, commits(w, "2", fourPods("2")).ID, "approval")
	expectPods(t, w, "0:1 1:1 2:2 3:2")
	if got := target(t, d, "prod"); got.Weight != 50 || got.Why != "2 of 4 pods of StatefulSet db run #2" {
		t.Errorf("prod is at %d %%: %s", got.Weight, got.Why)
	}
	if out := must(t, w, "deploy", "status"); !strings.Contains(out, "2 of 4 pods of StatefulSet db run #2") {
		t.Errorf("deploy status: %s", out)
	}
	if out := must(t, w, "why", "shop", "prod"); !strings.Contains(out, "is AWAITING_APPROVAL, 2 of 4 pods of StatefulSet db run #2") {
		t.Errorf("why: %s", out)
	}
	must(t, w, "deploy", "reject", d.ID, "prod", "--reason", "errors rise")
	if got := target(t, w.Ended(d.ID), "prod"); got.State != "ROLLED_BACK" || got.Why != "canary.steps[1] was rejected by test: errors rise; held at #1" {
		t.Errorf("prod is %s: %s", got.State, got.Why)
	}
	expectPods(t, w, "0:1 1:1 2:1 3:1")
	expectNothingLeft(t, w)
}

// expectNothingLeft holds that fleets are as their manifests have them, and that nothing is said to differ.
func expectNothingLeft(t *testing.T, w *world.World) {
	t.Helper()
	for _, kind := range []string{"statefulsets", "daemonsets"} {
		for name, o := range w.Objects("prod", "apps/v1 "+kind) {
			strategy, _, _ := unstructured.NestedMap(o.Object, "spec", "updateStrategy")
			partition, _, _ := unstructured.NestedInt64(strategy, "rollingUpdate", "partition")
			if strategy["type"] != "RollingUpdate" || partition != 0 {
				t.Errorf("%s is left with %v", name, strategy)
			}
		}
	}
	if events := w.Events("shop"); slices.ContainsFunc(events, func(e string) bool { return strings.Contains(e, "differs") }) {
		t.Errorf("history says that something differs:\n%s", strings.Join(events, "\n"))
	}
}

func TestADaemonSetGoesNodeByNodeToItsShareAndThenToAll(t *testing.T) {
	t.Parallel()
	w := fleet(t, everywhere)
	expectPods(t, w, "1 1")
	d := waits(t, w, commits(w, "2", everywhere("2")).ID, "approval")
	expectPods(t, w, "1 2")
	if got := target(t, d, "prod"); got.Why != "1 of 2 pods of DaemonSet agent run #2" {
		t.Errorf("prod: %s", got.Why)
	}
	must(t, w, "deploy", "approve", d.ID)
	expectState(t, w.Ended(d.ID), "SUCCEEDED")
	expectPods(t, w, "2 2")
	expectNothingLeft(t, w)
}

func TestABadImageOfAFleetReachesNoMoreThanABatchAndGoesBack(t *testing.T) {
	for name, c := range map[string]struct {
		manifest                func(image string) string
		at, after, whose, image string
	}{
		"StatefulSet": {fourPods, "0:1 1:1 2:1 3:missing", "0:1 1:1 2:1 3:1", "/db: 0 of 2 pods of #2 ready: ", "example.com/db:missing"},
		"DaemonSet":   {everywhere, "1 missing", "1 1", "/agent: 0 of 1 pods of #2 ready: ", "example.com/agent:missing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := fleet(t, c.manifest)
			d := commits(w, "2", c.manifest("missing"))
			w.Await("the reason why prod waits", func() (bool, error) {
				_, out, _ := w.Towpath(t.TempDir(), nil, "why", "shop", "prod")
				return strings.Contains(out, c.whose) && strings.Contains(out, c.image), nil
			})
			expectPods(t, w, c.at)
			if got := target(t, w.Ended(d.ID), "prod"); got.State != "ROLLED_BACK" || !strings.HasPrefix(got.Why, "not ready within 1m0s: "+name+".apps ") ||
				!strings.Contains(got.Why, c.whose) || !strings.HasSuffix(got.Why, "; held at #1") {
				t.Errorf("prod is %s: %s", got.State, got.Why)
			}
			expectPods(t, w, c.after)
			expectNothingLeft(t, w)
		})
	}
}

func TestAFleetThatIsReplacedUnderWayStartsFromWhatRanBefore(t *testing.T) {
	t.Parallel()
	w := fleet(t, fourPods)
	second := waits(t, w, commits(w, "2", fourPods("2")).ID, "approval")
	third := waits(t, w, commits(w, "3", fourPods("3")).ID, "approval")
	if got := target(t, w.Ended(second.ID), "prod"); got.State != "CANCELLED" || got.Why != "replaced by #3" {
		t.Errorf("prod of the second is %s: %s", got.State, got.Why)
	}
	expectPods(t, w, "0:1 1:1 2:3 3:3")
	must(t, w, "deploy", "approve", third.ID)
	expectState(t, w.Ended(third.ID), "SUCCEEDED")
	expectPods(t, w, "0:3 1:3 2:3 3:3")
	expectNothingLeft(t, w)
}

func TestAPlanRefusesAFleetThatCannotTakeTheSteps(t *testing.T) {
	t.Parallel()
	w := fleet(t, fourPods)
	byHand := strings.Replace(fourPods("2"), "replicas: 4", "replicas: 4\n  updateStrategy: {type: OnDelete}", 1)
	w.Commit("pods that people replace", gitserver.Files{"shop/manifests/web.yaml": byHand})
	w.Await("the refusal", func() (bool, error) {
		_, out, errs := w.Towpath(t.TempDir(), nil, "why", "shop")
		return strings.Contains(out+errs, "has the updateStrategy OnDelete, which leaves it to people to replace its pods, so it cannot take the steps of a canary"), nil
	})
	expectPods(t, w, "0:1 1:1 2:1 3:1")
}
