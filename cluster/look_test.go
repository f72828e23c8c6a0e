package cluster_test

import (
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"towpath/cluster"
	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// pod is web with annotations on its pods that tell the simulated kubelet what they do, and with other fields in the pod template's spec.
func pod(annotations, spec string) string {
	return strings.NewReplacer("metadata: {labels: {app: web}}\n    spec:", "metadata: {labels: {app: web}, annotations: {"+annotations+"}}\n    spec:"+spec).Replace(web)
}

func TestARevisionIsHealthyOnceAllItsPodsAre(t *testing.T) {
	b := setUp(t)
	app := b.objects(pod(`localcluster/ready-after: 300ms`, ""))
	lives := b.applied(3, app)
	key := b.replicaSet(app)
	if lives[key].Health != rollout.Progressing || lives[key].Replicas != 3 || lives[key].Message != "0 of 3 pods ready" {
		t.Errorf("just created: %+v", lives[key])
	}
	live := b.healthy(key)
	if live.Ready != 3 || live.UID != lives[key].UID || live.Generation < lives[key].Generation || live.Message != "" || live.Workload != "web" || live.Number != 1 {
		t.Errorf("%+v", live)
	}
	out := b.Shift(t.Context(), b.id, rollout.Action{Replicas: []rollout.Replicas{{Key: key, Count: 0}}})
	if out.Failure != nil || out.Live[0].Replicas != 0 || out.Live[0].Generation <= live.Generation {
		t.Errorf("scaled: %+v", out)
	}
	b.healthy(key)
}

func TestPodsMustBeReadyForLongEnough(t *testing.T) {
	b := setUp(t)
	app := b.objects(strings.Replace(web, "replicas: 2", "replicas: 2\n  minReadySeconds: 3", 1))
	b.applied(1, app)
	b.await("pods that are ready but not for long enough", b.replicaSet(app), func(l rollout.Live) bool {
		if l.Health == rollout.Healthy {
			t.Fatal("healthy before its pods were ready for three seconds")
		}
		return l.Message == "0 of 1 pods ready for long enough"
	})
	b.healthy(b.replicaSet(app))
}

func TestAnUnreadyRevisionSaysWhy(t *testing.T) {
	for name, c := range map[string]struct {
		objects []string
		says    []string
	}{
		"an image that is not there": {[]string{strings.Replace(web, "example.com/web:1", "example.com/web:missing", 1)},
			[]string{"0 of 2 pods ready: ", "Image", "example.com/web:missing"}},
		"a container that ends": {[]string{pod(`localcluster/exit: "3"`, "")}, []string{"0 of 2 pods ready: ", "CrashLoopBackOff: container web ended with exit code 3"}},
		"no node that fits":     {[]string{pod("", "\n      nodeSelector: {disk: holographic}")}, []string{"0 of 2 pods ready: Unschedulable: ", "node(s) didn't match"}},
		"configuration that is missing": {[]string{strings.Replace(web, `image: "example.com/web:1"`, `image: "example.com/web:1", envFrom: [{configMapRef: {name: nowhere}}]`, 1)},
			[]string{"CreateContainerConfigError", `"nowhere" not found`}},
		"a quota": {[]string{"apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: none, namespace: NS}\nspec: {hard: {pods: \"0\"}}", web},
			[]string{"0 of 2 pods ready: FailedCreate: ", "exceeded quota"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := setUp(t)
			app := b.objects(c.objects...)
			b.applied(2, app)
			b.await(fmt.Sprintf("a message that says %q", c.says), b.replicaSet(app), func(l rollout.Live) bool {
				if l.Health == rollout.Healthy {
					t.Fatalf("healthy: %+v", l)
				}
				for _, text := range c.says {
					if !strings.Contains(l.Message, text) {
						return false
					}
				}
				return true
			})
		})
	}
}

func TestObjectsOfOtherKindsAreJudgedToo(t *testing.T) {
	b := setUp(t)
	lives := b.applied(1, b.objects(`
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: NS}
spec:
  replicas: 1
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}, annotations: {localcluster/ready-after: 200ms}}
    spec: {containers: [{name: db, image: "example.com/db:1"}]}`, `
apiVersion: batch/v1
kind: Job
metadata: {name: fails, namespace: NS}
spec:
  backoffLimit: 0
  template:
    metadata: {annotations: {localcluster/exit: "1"}}
    spec: {restartPolicy: Never, containers: [{name: job, image: "example.com/job:1"}]}`, `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: claim, namespace: NS}
spec: {accessModes: [ReadWriteOnce], storageClassName: for-the-first-pod, resources: {requests: {storage: 1Gi}}}`))
	claim := lives[b.key("", "PersistentVolumeClaim", "claim")]
	if claim.Health != rollout.Healthy {
		t.Errorf("a claim that waits for its first pod: %+v", claim)
	}
	b.healthy(b.key("apps", "StatefulSet", "db"))
	live := b.await("the job to fail", b.key("batch", "Job", "fails"), func(l rollout.Live) bool { return l.Health == rollout.Broken })
	contains(t, live.Message, "fail")
}

func TestWhatIsReadIsFreshAndWhole(t *testing.T) {
	b := setUp(t)
	var texts []string
	var keys []manifest.Key
	for i := range 7 {
		texts = append(texts, strings.ReplaceAll(settings, "name: settings", fmt.Sprintf("name: settings-%d", i)))
		keys = append(keys, b.key("", "ConfigMap", fmt.Sprintf("settings-%d", i)))
	}
	lives := b.applied(1, b.objects(texts...))
	keys = append(keys, b.key("", "ConfigMap", "never-there"), b.key("", "Service", "never-there"))
	b.wire.reset()
	read := b.look(keys...)
	if got := len(b.wire.sent()); got != 2 {
		t.Errorf("%d requests for eight ConfigMaps and a Service, want 2: %v", got, b.wire.sent())
	}
	for i, live := range read {
		if live.Key != keys[i] || live.Missing != (i >= 7) || live.UID != lives[keys[i]].UID || live.ResourceVersion != lives[keys[i]].ResourceVersion {
			t.Errorf("%+v", live)
		}
	}
	for _, request := range b.wire.sent() {
		if strings.Contains(request, "resourceVersion=") {
			t.Errorf("%s does not ask for the newest", request)
		}
	}
}

func TestARunningDeploymentObjectIsSeen(t *testing.T) {
	b := setUp(t)
	deployments := schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	o := b.objects(web)[0]
	fields := &unstructured.Unstructured{}
	ok(t, fields.UnmarshalJSON(o.JSON))
	_, err := b.kube.Client.Resource(deployments).Namespace(b.namespace).Create(t.Context(), fields, metav1.CreateOptions{})
	ok(t, err)
	look := b.Look(t.Context(), b.id, rollout.Read{Revisions: true, Workloads: []manifest.Key{o.Key}}, []string{b.namespace})
	if look.Failure != nil || len(look.Workloads) != 1 || look.Workloads[0].Missing || look.Workloads[0].Owner != "" {
		t.Errorf("%+v", look)
	}
	if len(look.Revisions) != 0 {
		t.Errorf("its ReplicaSets are none of ours: %+v", look.Revisions)
	}
}

func TestWhatAnotherTargetLeftRunningIsSeen(t *testing.T) {
	b := setUp(t)
	app := b.objects(web)
	b.applied(2, app)
	set, err := reviser.Names(app)
	ok(t, err)
	read := rollout.Read{Revisions: true, Foreign: true, Workloads: []manifest.Key{set.Revisions[0].Workload}}
	ours := b.Look(t.Context(), b.id, read, []string{b.namespace})
	renamed := b.id
	renamed.Application = "store"
	theirs := b.Look(t.Context(), renamed, read, []string{b.namespace})
	if ours.Failure != nil || len(ours.Revisions) != 1 || len(ours.Foreign) != 0 {
		t.Errorf("for its own target: %+v", ours)
	}
	if theirs.Failure != nil || len(theirs.Revisions) != 0 || len(theirs.Foreign) != 1 || theirs.Foreign[0].Replicas != 2 || theirs.Foreign[0].Owner != "main/"+b.id.Application+"/"+b.id.Target {
		t.Errorf("for another one: %+v", theirs)
	}
}

// takeAway removes labels of a ReplicaSet, as a person does with kubectl.
func (b *bench) takeAway(key manifest.Key, labels ...string) {
	b.t.Helper()
	for _, label := range labels {
		b.edit(replicaSets, key.Name, fmt.Sprintf(`{"metadata":{"labels":{%q:null}}}`, label), "kubectl-label")
	}
}

// It is found, and has the label again with whatever is written to it next.
func TestARevisionWhoseLabelWasTakenAwayIsStillTheTargets(t *testing.T) {
	b := setUp(t)
	app := b.objects(web)
	b.applied(2, app)
	key := b.replicaSet(app)
	hasIt := func(after string) {
		t.Helper()
		if has := b.live(replicaSets, key.Name).GetLabels()[cluster.LabelLane]; has != cluster.LaneLabel(b.id) {
			t.Errorf("after %s its label is %q, want %q", after, has, cluster.LaneLabel(b.id))
		}
	}
	revisions := func(id rollout.Identity) []rollout.Live {
		t.Helper()
		look := b.Look(t.Context(), id, rollout.Read{Revisions: true}, []string{b.namespace})
		if look.Failure != nil {
			t.Fatal(look.Failure)
		}
		return look.Revisions
	}
	another := b.id
	another.Application = "store"

	b.takeAway(key, cluster.LabelLane)
	if found := revisions(b.id); len(found) != 1 || found[0].Key != key || found[0].Replicas != 2 {
		t.Errorf("looked at: %+v", found)
	}
	if found := revisions(another); len(found) != 0 {
		t.Errorf("another target has it: %+v", found)
	}
	fails(t, b.Shift(t.Context(), another, rollout.Action{Replicas: []rollout.Replicas{{Key: key, Count: 0}}}).Failure, rollout.Refused, "it belongs to main/"+b.id.Application)
	for _, count := range []int32{2, 1} {
		out := b.Shift(t.Context(), b.id, rollout.Action{Replicas: []rollout.Replicas{{Key: key, Count: count}}})
		if out.Failure != nil || out.Live[0].Replicas != count {
			t.Fatalf("%+v", out)
		}
		hasIt(fmt.Sprint("a shift to ", count))
		b.takeAway(key, cluster.LabelLane)
	}
	b.applied(1, app)
	hasIt("an apply")
	b.takeAway(key, cluster.LabelLane)
	if out := b.Remove(t.Context(), b.id, []manifest.Key{key}); out.Failure != nil {
		t.Fatal(out.Failure)
	}
	b.gone(replicaSets, key.Name)
}

func TestARevisionThatLostAllLabelsOfOursIsLeftAlone(t *testing.T) {
	b := setUp(t)
	app := b.objects(web)
	b.applied(2, app)
	key := b.replicaSet(app)
	b.takeAway(key, cluster.LabelLane, cluster.LabelWorkload)
	fails(t, b.apply(1, app).Failure, rollout.Refused, "is this target's, but somebody took its labels away; give them back: kubectl -n "+b.namespace+" label replicaset "+key.Name,
		cluster.LabelLane+"="+cluster.LaneLabel(b.id), cluster.LabelWorkload+"=")
}

// Many of one kind are read by label.
func TestRevisionsWithoutTheirLabelAreAmongMany(t *testing.T) {
	b := setUp(t)
	var keys []manifest.Key
	var texts []string
	for i := range 5 {
		texts = append(texts, strings.ReplaceAll(web, "name: web", fmt.Sprint("name: web-", i)))
	}
	app := b.objects(texts...)
	b.applied(1, app)
	set, err := reviser.Names(app)
	ok(t, err)
	for _, r := range set.Revisions {
		keys = append(keys, r.ReplicaSet)
	}
	b.takeAway(keys[3], cluster.LabelLane)
	for i, live := range b.look(append(keys, b.key("apps", "ReplicaSet", "never-there"))...) {
		if live.Missing != (i == len(keys)) {
			t.Errorf("%s: missing is %v", live.Key, live.Missing)
		}
	}
}

func TestAnObjectOnItsWayOutIsNotHealthy(t *testing.T) {
	b := setUp(t)
	b.applied(1, b.objects(strings.Replace(settings, "labels:", "finalizers: [example.com/hold], labels:", 1)))
	key := b.key("", "ConfigMap", "settings")
	if out := b.Remove(t.Context(), b.id, []manifest.Key{key}); out.Failure != nil {
		t.Fatal(out.Failure)
	}
	if live := b.look(key)[0]; live.Health != rollout.Progressing || live.Message != "it is being removed" {
		t.Errorf("%+v", live)
	}
	_, err := b.kube.Client.Resource(configMaps).Namespace(b.namespace).Patch(t.Context(), "settings", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
	ok(t, err)
	b.gone(configMaps, "settings")
}

func TestANamespaceOnItsWayOutIsTrouble(t *testing.T) {
	b := setUp(t)
	namespaces := schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	b.applied(1, b.objects(strings.Replace(settings, "labels:", "finalizers: [example.com/hold], labels:", 1)))
	ok(t, b.kube.Client.Resource(namespaces).Delete(t.Context(), b.namespace, metav1.DeleteOptions{}))
	fails(t, b.apply(1, b.objects(service)).Failure, rollout.Trouble, "because it is being terminated")
	_, err := b.kube.Client.Resource(configMaps).Namespace(b.namespace).Patch(t.Context(), "settings", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
	ok(t, err)
}

func TestCapabilitiesAreThoseOfTheCluster(t *testing.T) {
	b := setUp(t)
	version, apis, err := b.Capabilities(t.Context())
	ok(t, err)
	contains(t, version, "v1.")
	contains(t, " "+strings.Join(apis, " ")+" ", " v1 ", " v1/ConfigMap ", " apps/v1 ", " apps/v1/ReplicaSet ", " networking.k8s.io/v1/Ingress ")
}
