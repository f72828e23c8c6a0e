package cluster_test

import (
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"towpath/cluster/traffic"
	"towpath/reconcile/rollout"
)

func TestABaselineIsACopyOfTheRevisionThatRuns(t *testing.T) {
	b := setUp(t)
	objects := b.objects(settings, login, reading)
	b.applied(2, objects)
	set, err := reviser.Names(objects)
	ok(t, err)
	of := set.Revisions[0]
	baseline := rollout.Baseline{Key: of.ReplicaSet, Of: of.ReplicaSet, Hash: of.Hash + "-baseline"}
	baseline.Key.Name += "-baseline"
	later := b.id
	later.Number, later.Deployment, later.Commit = 7, "d7", "c7"
	shift := func(count int32) rollout.Live {
		t.Helper()
		out := b.Shift(t.Context(), later, rollout.Action{Kind: rollout.Shift, Baselines: []rollout.Baseline{baseline}, Replicas: []rollout.Replicas{{Key: baseline.Key, Count: count}}})
		if out.Failure != nil {
			t.Fatal(out.Failure)
		}
		return out.Live[0]
	}
	live := shift(2)
	if !live.Baseline || live.Workload != "web" || live.Hash != baseline.Hash || live.Number != b.id.Number || !live.Marked || live.Replicas != 2 {
		t.Errorf("it is %+v", live)
	}
	if again := shift(2); again.UID != live.UID || again.Generation != live.Generation {
		t.Errorf("made twice it is %+v, and was %+v", again, live)
	}
	b.until("its pods are ready", func() bool { return b.look(baseline.Key)[0].Health == rollout.Healthy })
	if original := b.look(of.ReplicaSet)[0]; original.Replicas != 2 || original.Ready != 2 || original.Baseline {
		t.Errorf("what it is a copy of is %+v", original)
	}

	pods, err := b.kube.Client.Resource(podsOf).Namespace(b.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "pod-template-hash=" + baseline.Hash})
	ok(t, err)
	if len(pods.Items) != 2 {
		t.Fatalf("%d pods have its hash", len(pods.Items))
	}
	pod := pods.Items[0]
	if pod.GetLabels()["app"] != "web" || pod.GetLabels()[traffic.LabelSubset] != baseline.Hash {
		t.Errorf("its pods have the labels %v", pod.GetLabels())
	}
	if got := environment(pod)["ARMORY_REPLICA_SET_NAME"]; got != baseline.Key.Name {
		t.Errorf("its pods are told that they are of %q", got)
	}
	if mine, theirs := volumes(pod), volumes(b.pod(of.Hash)); mine != theirs {
		t.Errorf("its pods read the configuration %s, those that it is compared with %s", mine, theirs)
	}

	if live := shift(0); live.Replicas != 0 {
		t.Errorf("at zero it is %+v", live)
	}
	gone := baseline
	gone.Of.Name = "gone"
	gone.Key.Name = "gone-baseline"
	out := b.Shift(t.Context(), later, rollout.Action{Kind: rollout.Shift, Baselines: []rollout.Baseline{gone}})
	fails(t, out.Failure, rollout.Refused, "it is not there, so no canary can be compared with it")
}

// pod is one of a revision.
func (b *bench) pod(hash string) unstructured.Unstructured {
	b.t.Helper()
	pods, err := b.kube.Client.Resource(podsOf).Namespace(b.namespace).List(b.t.Context(), metav1.ListOptions{LabelSelector: "pod-template-hash=" + hash})
	ok(b.t, err)
	return pods.Items[0]
}

// environment is the variables of a pod's first container.
func environment(pod unstructured.Unstructured) map[string]string {
	all := map[string]string{}
	containers, _, _ := unstructured.NestedSlice(pod.Object, "spec", "containers")
	variables, _ := containers[0].(map[string]any)["env"].([]any)
	for _, v := range variables {
		variable := v.(map[string]any)
		all[fmt.Sprint(variable["name"])] = fmt.Sprint(variable["value"])
	}
	return all
}

// volumes is the configuration that a pod reads: that of its first container's environment and of its volumes.
func volumes(pod unstructured.Unstructured) string {
	containers, _, _ := unstructured.NestedSlice(pod.Object, "spec", "containers")
	return fmt.Sprint(containers[0].(map[string]any)["envFrom"])
}
