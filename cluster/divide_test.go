package cluster_test

import (
	"net/http"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"towpath/cluster"
	"towpath/internal/testkit/routers"
	"towpath/reconcile/rollout"
)

var splits = schema.GroupVersionResource{Group: "split.smi-spec.io", Version: "v1alpha4", Resource: "trafficsplits"}

// split is a bench with an application that runs, and the route of its traffic to a next version.
func split(t *testing.T) (b *bench, r rollout.Route) {
	b = setUp(t)
	ok(t, routers.Install(t.Context(), b.kube.Kubeconfig))
	app := b.objects(service, web)
	b.applied(1, app)
	key := b.replicaSet(app)
	b.healthy(key)
	found, failure := b.Routes(t.Context(), b.id, app, []rollout.Route{{Kind: rollout.SMI, Service: "web", Namespace: b.namespace}})
	if failure != nil {
		t.Fatal(failure)
	}
	set, err := reviser.Names(app)
	ok(t, err)
	r = found[0]
	r.Stable = rollout.Side{ReplicaSet: key, Hash: set.Revisions[0].Hash}
	r.New = rollout.Side{ReplicaSet: key, Hash: set.Revisions[0].Hash}
	return b, r
}

func (b *bench) divide(d rollout.Division) *rollout.Failure {
	b.t.Helper()
	return b.Shift(b.t.Context(), b.id, rollout.Action{Divide: []rollout.Division{d}}).Failure
}

func TestTrafficIsNotGivenToPodsThatAServiceDoesNotLeadToYet(t *testing.T) {
	b, r := split(t)
	b.elsewhere("web-canary")
	impatient := b.client(func(c *cluster.Config) { c.Timeout = 5 * time.Second }) // so long it waits for endpoints
	out := impatient.Shift(t.Context(), b.id, rollout.Action{Divide: []rollout.Division{{Route: r, Stage: rollout.Divided, Weight: 10}}})
	fails(t, out.Failure, rollout.Trouble, "Service "+b.namespace+"/web-canary", "it leads to 0 of 1 ready pods of ReplicaSet.apps "+b.namespace+"/"+r.New.ReplicaSet.Name+" so far")
	list, err := b.kube.Client.Resource(splits).Namespace(b.namespace).List(t.Context(), metav1.ListOptions{})
	if ok(t, err); len(list.Items) > 0 {
		t.Errorf("traffic is divided: %v", list.Items[0].Object["spec"])
	}
}

// elsewhere makes a Service beforehand that selects other pods.
func (b *bench) elsewhere(name string) {
	b.t.Helper()
	none := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Service", "metadata": map[string]any{"name": name},
		"spec": map[string]any{"selector": map[string]any{"app": "another"}, "ports": []any{map[string]any{"port": int64(80)}}}}}
	_, err := b.kube.Client.Resource(services).Namespace(b.namespace).Create(b.t.Context(), none, metav1.CreateOptions{})
	ok(b.t, err)
}

func TestADivisionOverAChangeInBetweenIsAConflict(t *testing.T) {
	b, r := split(t)
	if failure := b.divide(rollout.Division{Route: r, Stage: rollout.Divided, Weight: 10}); failure != nil {
		t.Fatal(failure)
	}
	if got := b.live(splits, "web").GetLabels()[cluster.LabelLane]; got != cluster.LaneLabel(b.id) {
		t.Errorf("the TrafficSplit is labelled as that of %q", got)
	}
	b.wire.intercept(func(request *http.Request) (*http.Response, error) {
		if request.Method == http.MethodPut { // somebody else comes between the read and the write
			_, err := b.kube.Client.Resource(splits).Namespace(b.namespace).Patch(request.Context(), "web", types.MergePatchType, []byte(`{"metadata":{"labels":{"seen":"yes"}}}`), metav1.PatchOptions{})
			return nil, err
		}
		return nil, nil
	})
	fails(t, b.divide(rollout.Division{Route: r, Stage: rollout.Divided, Weight: 90}), rollout.Trouble, "TrafficSplit.split.smi-spec.io "+b.namespace+"/web", "the object has been modified")
	b.wire.intercept(nil)
	if failure := b.divide(rollout.Division{Route: r, Stage: rollout.Divided, Weight: 90}); failure != nil {
		t.Fatal(failure)
	}
	backends, _, _ := unstructured.NestedSlice(b.live(splits, "web").Object, "spec", "backends")
	if len(backends) != 2 || backends[1].(map[string]any)["weight"] != int64(90) || b.live(splits, "web").GetLabels()["seen"] != "yes" {
		t.Errorf("%v", b.live(splits, "web").Object)
	}
}
