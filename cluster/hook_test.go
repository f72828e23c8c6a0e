package cluster_test

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

const migration = `apiVersion: batch/v1
kind: Job
metadata: {name: migrate, namespace: NS, annotations: {helm.sh/hook: pre-upgrade, helm.sh/hook-delete-policy: hook-succeeded}}
spec:
  template:
    metadata: {annotations: {localcluster/exit: "0 after 1h", localcluster/terminate-after: 2s}}
    spec: {restartPolicy: Never, containers: [{name: migrate, image: "example.com/migrate:1"}]}`

// runHook makes the only hook of objects for a deployment.
func (b *bench) runHook(deployment string, objects []manifest.Object) rollout.Outcome {
	id := b.id
	id.Deployment = deployment
	return b.RunHook(b.t.Context(), id, objects, rollout.Action{Kind: rollout.RunHook, Only: []manifest.Key{objects[0].Key}, Event: "pre-upgrade"})
}

func TestAHookBeginsOnceThePodsOfAnEndedOneAreGone(t *testing.T) {
	b := setUp(t)
	objects := b.objects(migration)
	pods := func() (running int, jobs map[string]bool) {
		list, err := b.kube.Client.Resource(podsOf).Namespace(b.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "batch.kubernetes.io/job-name=migrate"})
		ok(t, err)
		jobs = map[string]bool{}
		for _, pod := range list.Items {
			jobs[pod.GetLabels()["batch.kubernetes.io/controller-uid"]] = true
			if phase := pod.Object["status"].(map[string]any)["phase"]; phase == "Running" {
				running++
			}
		}
		return running, jobs
	}
	first := b.runHook("d-1", objects)
	if first.Failure != nil {
		t.Fatal(first.Failure)
	}
	if again := b.runHook("d-1", objects); again.Failure != nil || again.Live[0].UID != first.Live[0].UID {
		t.Errorf("made again for the same deployment it is %+v, and was %+v", again, first)
	}
	if other := b.runHook("d-2", objects); other.Failure == nil || !strings.Contains(other.Failure.Error(), "an earlier deployment made it, and its helm.sh/hook-delete-policy does not say before-hook-creation") {
		t.Errorf("beside one that is to stay it is %+v", other)
	}
	b.until("it runs", func() bool { running, _ := pods(); return running == 1 })
	if out := b.Remove(t.Context(), b.id, []manifest.Key{objects[0].Key}); out.Failure != nil {
		t.Fatal(out.Failure)
	}
	var second rollout.Outcome
	b.until("the next one is made", func() bool {
		second = b.runHook("d-2", objects)
		if second.Failure != nil && second.Failure.Class != rollout.Trouble {
			t.Fatal(second.Failure)
		}
		return second.Failure == nil
	})
	if _, jobs := pods(); jobs[first.Live[0].UID] {
		t.Error("a pod of the one that was ended is there beside the next one")
	}
}

func TestAHookThatMayHoldDataIsNotMadeAnew(t *testing.T) {
	b := setUp(t)
	claim := `apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: dump, namespace: NS, labels: {version: "1"}, annotations: {helm.sh/hook: pre-upgrade}}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}`
	first := b.runHook("d-1", b.objects(claim))
	if first.Failure != nil {
		t.Fatal(first.Failure)
	}
	second := b.runHook("d-2", b.objects(strings.Replace(claim, `version: "1"`, `version: "2"`, 1)))
	if second.Failure != nil || second.Live[0].UID != first.Live[0].UID {
		t.Fatalf("it is %+v, and was %+v", second, first)
	}
	live, err := b.kube.Client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "persistentvolumeclaims"}).Namespace(b.namespace).Get(t.Context(), "dump", metav1.GetOptions{})
	ok(t, err)
	if live.GetLabels()["version"] != "2" || live.GetAnnotations()["towpath.dev/hook"] != "d-2 pre-upgrade" {
		t.Errorf("it is %v %v", live.GetLabels(), live.GetAnnotations())
	}
}
