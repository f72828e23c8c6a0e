package cluster_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

var (
	statefulSets = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "statefulsets"}
	daemonSets   = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "daemonsets"}
	pods         = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	nodes        = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
)

// stateful is a StatefulSet of four pods; more is further fields of its spec.
func stateful(image, more string) string {
	return `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: NS}
spec:
  replicas: 4
  ` + more + `
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: db, image: "example.com/db:` + image + `"}]}`
}

// agent is a DaemonSet on the nodes of the test; more is further fields of its spec.
func agent(image, more string) string {
	return `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: NS}
spec:
  ` + more + `
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec: {nodeSelector: {test: NS}, containers: [{name: agent, image: "example.com/agent:` + image + `"}]}`
}

// ground makes nodes of the test's own: a, b, c, d.
func (b *bench) ground() {
	b.t.Helper()
	for _, name := range []string{"a", "b", "c", "d"} {
		b.node(name)
	}
}

func (b *bench) node(name string) {
	b.t.Helper()
	name = b.namespace + "-" + name
	client := b.kube.Client.Resource(nodes)
	_, err := client.Create(b.t.Context(), &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Node", "metadata": map[string]any{"name": name,
		"labels": map[string]any{"localcluster/node": "true", "test": b.namespace}}}}, metav1.CreateOptions{})
	ok(b.t, err)
	b.t.Cleanup(func() { _ = client.Delete(b.t.Context(), name, metav1.DeleteOptions{}) }) // so that no others schedule there
}

// everywhere waits until a DaemonSet has a pod on each of so many nodes, and they are ready.
func (b *bench) everywhere(s rollout.Share, nodes int32) {
	b.t.Helper()
	b.fleet(fmt.Sprint(nodes, " pods"), s, func(l rollout.Live) bool {
		status := b.live(daemonSets, s.Key.Name).Object["status"].(map[string]any)
		ready := status["numberReady"] == int64(nodes) && status["desiredNumberScheduled"] == int64(nodes)
		return ready && l.Replicas == nodes
	})
}

// share applies a fleet with a share of its pods.
func (b *bench) share(key manifest.Key, weight int, text string) rollout.Share {
	b.t.Helper()
	objects := b.objects(text)
	set, err := reviser.Names(objects)
	ok(b.t, err)
	s := rollout.Share{Key: key, Weight: weight, Stays: set.Fleets[0].Stays}
	out := b.Apply(b.t.Context(), b.id, objects, rollout.Action{Only: []manifest.Key{key}, Share: []rollout.Share{s}})
	if out.Failure != nil {
		b.t.Fatal(out.Failure)
	}
	return s
}

// carry looks at a fleet, and gives it its share again for as long as more is due, until its share is ready; then the pods of each image, by node or name.
func (b *bench) carry(s rollout.Share, text string) map[string][]string {
	b.t.Helper()
	b.fleet("its share", s, func(l rollout.Live) bool {
		if l.Due {
			b.share(s.Key, s.Weight, text)
		}
		return l.Within && l.Fresh >= s.Of(l.Replicas) && (s.Weight < 100 || l.Health == rollout.Healthy)
	})
	return b.images(s.Key)
}

// fleet looks at a fleet until done.
func (b *bench) fleet(what string, s rollout.Share, done func(rollout.Live) bool) rollout.Live {
	b.t.Helper()
	ticks := time.NewTicker(50 * time.Millisecond)
	defer ticks.Stop()
	late := time.After(time.Minute)
	for {
		look := b.Look(b.t.Context(), b.id, rollout.Read{Fleets: []rollout.Share{s}}, nil)
		if look.Failure != nil {
			b.t.Fatal(look.Failure)
		}
		if done(look.Fleets[0]) {
			return look.Fleets[0]
		}
		select {
		case <-ticks.C:
		case <-late:
			b.t.Fatalf("waited for %s of %s; it is %+v, its pods %v", what, s.Key, look.Fleets[0], b.images(s.Key))
		}
	}
}

// images is, for each image, the last letters of the names of pods, or of their nodes for a DaemonSet.
func (b *bench) images(key manifest.Key) map[string][]string {
	b.t.Helper()
	list, err := b.kube.Client.Resource(pods).Namespace(b.namespace).List(b.t.Context(), metav1.ListOptions{LabelSelector: "app=" + key.Name})
	ok(b.t, err)
	all := map[string][]string{}
	for _, pod := range list.Items {
		containers, _, _ := unstructured.NestedSlice(pod.Object, "spec", "containers")
		image := strings.TrimPrefix(containers[0].(map[string]any)["image"].(string), "example.com/"+key.Name+":")
		where := pod.GetName()
		if key.Kind == "DaemonSet" {
			where, _, _ = unstructured.NestedString(pod.Object, "spec", "nodeName")
		}
		all[image] = append(all[image], where[strings.LastIndex(where, "-")+1:])
		slices.Sort(all[image])
	}
	return all
}

func expectPods(t *testing.T, got map[string][]string, want string) {
	t.Helper()
	if text := fmt.Sprint(got); text != want {
		t.Errorf("the pods are %s, want %s", text, want)
	}
}

func TestAStatefulSetIsReplacedFromItsLastPodUpToItsShare(t *testing.T) {
	b := setUp(t)
	key := b.key("apps", "StatefulSet", "db")
	b.carry(b.share(key, 100, stateful("1", "")), stateful("1", ""))
	s := b.share(key, 0, stateful("2", ""))
	expectPods(t, b.carry(s, stateful("2", "")), "map[1:[0 1 2 3]]")
	s = b.share(key, 25, stateful("2", ""))
	expectPods(t, b.carry(s, stateful("2", "")), "map[1:[0 1 2] 2:[3]]")
	b.share(key, 25, stateful("2", "")) // again is the same
	s = b.share(key, 60, stateful("2", ""))
	expectPods(t, b.carry(s, stateful("2", "")), "map[1:[0 1] 2:[2 3]]")

	// Back: the former template, as its manifest has it.
	expectPods(t, b.carry(b.share(key, 100, stateful("1", "")), stateful("1", "")), "map[1:[0 1 2 3]]")
	if at, found, _ := unstructured.NestedInt64(b.live(statefulSets, "db").Object, "spec", "updateStrategy", "rollingUpdate", "partition"); found && at != 0 {
		t.Errorf("a partition is left: %d", at)
	}
	expectNoDrift(t, b, stateful("1", ""))
}

// expectNoDrift holds that nothing differs from manifests once a rollout is over, but for those of a kind that were not applied.
func expectNoDrift(t *testing.T, b *bench, text string, but ...string) {
	t.Helper()
	_, drifts, failure := b.Compare(t.Context(), rollout.Kept{Identity: b.id}, b.objects(text), nil)
	drifts = slices.DeleteFunc(drifts, func(d rollout.Drift) bool { return slices.Contains(but, d.Key.Kind) })
	if failure != nil || len(drifts) > 0 {
		t.Errorf("it differs: %v (%v)", drifts, failure)
	}
}

func TestAPartitionOfTheManifestHoldsBesideTheShare(t *testing.T) {
	b := setUp(t)
	key := b.key("apps", "StatefulSet", "db")
	const three = "updateStrategy: {rollingUpdate: {partition: 3}}"
	b.carry(b.share(key, 100, stateful("1", three)), stateful("1", three))
	s := b.share(key, 50, stateful("2", three))
	expectPods(t, b.carry(s, stateful("2", three)), "map[1:[0 1 2] 2:[3]]")
	expectPods(t, b.carry(b.share(key, 100, stateful("2", three)), stateful("2", three)), "map[1:[0 1 2] 2:[3]]")
	expectNoDrift(t, b, stateful("2", three))
}

func TestAStatefulSetThatIsScaledMeanwhileGetsItsShareAgain(t *testing.T) {
	b := setUp(t)
	key := b.key("apps", "StatefulSet", "db")
	unsaid := func(image string) string { return strings.Replace(stateful(image, ""), "replicas: 4", "", 1) }
	b.share(key, 100, stateful("1", ""))
	scale := func(count int64) {
		t.Helper()
		_, err := b.kube.Client.Resource(statefulSets).Namespace(b.namespace).Patch(t.Context(), "db", "application/merge-patch+json", fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, count),
			metav1.PatchOptions{FieldManager: "kubectl"})
		ok(t, err)
	}
	scale(5)
	b.carry(b.share(key, 100, unsaid("1")), unsaid("1"))
	s := b.share(key, 20, unsaid("2"))
	expectPods(t, b.carry(s, unsaid("2")), "map[1:[0 1 2 3] 2:[4]]")
	scale(3) // the new pod goes with it
	expectPods(t, b.carry(s, unsaid("2")), "map[1:[0 1] 2:[2]]")
}

func TestADaemonSetIsReplacedNodeByNodeUpToItsShare(t *testing.T) {
	b := setUp(t)
	b.ground()
	key := b.key("apps", "DaemonSet", "agent")
	b.everywhere(b.share(key, 100, agent("1", "")), 4)
	s := b.share(key, 0, agent("2", ""))
	expectPods(t, b.carry(s, agent("2", "")), "map[1:[a b c d]]")
	s.Weight = 50
	most := b.watchPods(t)
	b.share(key, 50, agent("2", ""))
	expectPods(t, b.carry(s, agent("2", "")), "map[1:[c d] 2:[a b]]")
	if missing := most(); missing > 1 {
		t.Errorf("%d pods were missing at once, want 1 at most", missing)
	}
	b.node("e") // a node that comes meanwhile runs the new version: that is the template
	b.everywhere(s, 5)
	expectPods(t, b.images(key), "map[1:[c d] 2:[a b e]]")

	s.Weight = 100
	b.share(key, 100, agent("2", ""))
	expectPods(t, b.carry(s, agent("2", "")), "map[2:[a b c d e]]")
	if how, _, _ := unstructured.NestedString(b.live(daemonSets, "agent").Object, "spec", "updateStrategy", "type"); how != "RollingUpdate" {
		t.Errorf("its updateStrategy is %s at the end", how)
	}
	expectNoDrift(t, b, agent("2", ""))
}

// watchPods says in the end how many pods were let go at most before as many others were ready: deletions counted against those that became ready.
func (b *bench) watchPods(t *testing.T) (most func() int) {
	t.Helper()
	missing, highest := 0, 0
	var deleted int
	b.wire.intercept(func(request *http.Request) (*http.Response, error) {
		if request.Method != http.MethodDelete {
			return nil, nil
		}
		deleted++
		list, err := b.kube.Client.Resource(pods).Namespace(b.namespace).List(request.Context(), metav1.ListOptions{LabelSelector: "app=agent"})
		if err != nil {
			return nil, err
		}
		missing = len(list.Items)
		for _, pod := range list.Items {
			conditions, _, _ := unstructured.NestedSlice(pod.Object, "status", "conditions")
			if pod.GetDeletionTimestamp() == nil && slices.ContainsFunc(conditions, func(c any) bool {
				return c.(map[string]any)["type"] == "Ready" && c.(map[string]any)["status"] == "True"
			}) {
				missing--
			}
		}
		highest = max(highest, missing+1)
		return nil, nil
	})
	return func() int {
		b.wire.intercept(nil)
		if deleted == 0 {
			t.Error("no pod was let go")
		}
		return highest
	}
}

func TestABatchIsWhatMayBeMissing(t *testing.T) {
	b := setUp(t)
	b.ground()
	key := b.key("apps", "DaemonSet", "agent")
	const half = "updateStrategy: {rollingUpdate: {maxUnavailable: 50%}}"
	bad := func(image string) string { return agent(image, half) }
	b.everywhere(b.share(key, 100, bad("1")), 4)
	s := b.share(key, 75, bad("missing"))
	b.fleet("the first batch to fail", s, func(l rollout.Live) bool {
		if l.Due {
			b.share(key, 75, bad("missing"))
		}
		return l.Within && !l.Due && strings.Contains(l.Message, "example.com/agent:missing")
	})
	expectPods(t, b.images(key), "map[1:[c d] missing:[a b]]") // and no further
	b.carry(b.share(key, 100, bad("1")), bad("1"))
	expectPods(t, b.images(key), "map[1:[a b c d]]")
	expectNoDrift(t, b, bad("1"))
}

func TestAPodThatFailsAlreadySaysNothingOfTheNewVersion(t *testing.T) {
	b := setUp(t)
	b.ground()
	key := b.key("apps", "DaemonSet", "agent")
	s := b.share(key, 100, agent("1", ""))
	b.everywhere(s, 4)
	for _, pod := range b.podsOn("a") {
		_, err := b.kube.Client.Resource(pods).Namespace(b.namespace).Patch(t.Context(), pod, "application/merge-patch+json",
			[]byte(`{"metadata":{"annotations":{"localcluster/unready":"true"}}}`), metav1.PatchOptions{})
		ok(t, err)
	}
	b.fleet("one pod to fail", s, func(l rollout.Live) bool { return l.Fresh == 3 })
	s = b.share(key, 25, agent("2", ""))
	expectPods(t, b.carry(s, agent("2", "")), "map[1:[a c d] 2:[b]]")
	s = b.share(key, 99, agent("2", ""))
	expectPods(t, b.carry(s, agent("2", "")), "map[1:[a] 2:[b c d]]")
}

// podsOn is the pods on a node of the test.
func (b *bench) podsOn(node string) (names []string) {
	b.t.Helper()
	list, err := b.kube.Client.Resource(pods).Namespace(b.namespace).List(b.t.Context(), metav1.ListOptions{FieldSelector: "spec.nodeName=" + b.namespace + "-" + node})
	ok(b.t, err)
	for _, pod := range list.Items {
		names = append(names, pod.GetName())
	}
	return names
}

func TestWhatAnAutoscalerMadeOfAStatefulSetStays(t *testing.T) {
	b := setUp(t)
	key := b.key("apps", "StatefulSet", "db")
	b.carry(b.share(key, 100, stateful("1", "")), stateful("1", ""))
	_, err := b.kube.Client.Resource(statefulSets).Namespace(b.namespace).Patch(t.Context(), "db", "application/merge-patch+json", []byte(`{"spec":{"replicas":5}}`),
		metav1.PatchOptions{FieldManager: "controller-manager"}, "scale")
	ok(t, err)
	for _, c := range []struct {
		weight int
		want   string
	}{{20, "map[1:[0 1 2 3] 2:[4]]"}, {100, "map[2:[0 1 2 3 4]]"}} {
		s := rollout.Share{Key: key, Weight: c.weight, Scaled: true}
		if out := b.Apply(t.Context(), b.id, b.objects(stateful("2", "")), rollout.Action{Share: []rollout.Share{s}}); out.Failure != nil {
			t.Fatal(out.Failure)
		}
		expectPods(t, b.carry(s, stateful("2", "")), c.want)
	}
	expectNoDrift(t, b, stateful("2", "")+"\n---\napiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: db, namespace: NS}\nspec: {scaleTargetRef: {kind: StatefulSet, name: db}, maxReplicas: 6}",
		"HorizontalPodAutoscaler")
}

func TestAShareIsWrittenAsTheFleetWasRead(t *testing.T) {
	b := setUp(t)
	key := b.key("apps", "StatefulSet", "db")
	b.carry(b.share(key, 100, stateful("1", "")), stateful("1", ""))
	once := true
	b.wire.intercept(func(request *http.Request) (*http.Response, error) {
		if request.Method == http.MethodPatch && once {
			once = false
			_, err := b.kube.Client.Resource(statefulSets).Namespace(b.namespace).Patch(request.Context(), "db", "application/merge-patch+json", []byte(`{"spec":{"replicas":5}}`), metav1.PatchOptions{})
			return nil, err
		}
		return nil, nil
	})
	objects := b.objects(stateful("2", ""))
	out := b.Apply(t.Context(), b.id, objects, rollout.Action{Share: []rollout.Share{{Key: key, Weight: 50}}})
	fails(t, out.Failure, rollout.Trouble, "StatefulSet.apps", "somebody changed it between the read and the write; it is read again")
}

func TestOfAFleetItIsToldWhatItsManifestSays(t *testing.T) {
	t.Parallel()
	objects := objectsOf(t, stateful("1", "updateStrategy: {type: OnDelete}")+"\n---\n"+agent("1", "updateStrategy: {type: OnDelete}")+"\n---\n"+stateful("1", "updateStrategy: {rollingUpdate: {partition: 2}}"))
	set, err := reviser.Names(objects)
	ok(t, err)
	if f := set.Fleets; len(f) != 3 || !f[0].ByHand || !f[1].ByHand || f[2].ByHand || f[2].Stays != 2 || *f[2].Replicas != 4 || f[1].Replicas != nil {
		t.Errorf("it is %+v", f)
	}
	_, err = reviser.Names(objectsOf(t, stateful("1", "updateStrategy: {rollingUpdate: {partition: many}}")))
	if err == nil || !strings.Contains(err.Error(), "app.yaml:1: StatefulSet.apps NS/db: spec.updateStrategy.rollingUpdate.partition: many is no count") {
		t.Errorf("a partition that is none: %v", err)
	}
}
