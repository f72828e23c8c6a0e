package cluster_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"towpath/cluster"
	"towpath/manifest"
	"towpath/reconcile/rollout"
)

var autoscalers = schema.GroupVersionResource{Group: "autoscaling", Version: "v2", Resource: "horizontalpodautoscalers"}

func TestAnAutoscalerRestsAndIsAimedAtARevision(t *testing.T) {
	for _, version := range []string{"autoscaling/v2", "autoscaling/v1"} {
		t.Run(version, func(t *testing.T) { restsAndIsAimed(t, strings.Replace(autoscaler, "autoscaling/v2", version, 1)) })
	}
}

func restsAndIsAimed(t *testing.T, autoscaler string) {
	b := setUp(t)
	app := b.objects(web, autoscaler)
	b.applied(2, app)
	set, err := reviser.Names(app)
	ok(t, err)
	scaler, revision := set.Scalers[0], set.Revisions[0].ReplicaSet
	at := func() string {
		ref := b.live(autoscalers, "web").Object["spec"].(map[string]any)["scaleTargetRef"].(map[string]any)
		return fmt.Sprint(ref["kind"], " ", ref["name"])
	}
	if got := at(); got != "Deployment web" {
		t.Errorf("applied, it is aimed at %s", got)
	}
	aim := func(key manifest.Key) {
		t.Helper()
		if out := b.Shift(t.Context(), b.id, rollout.Action{Aim: []rollout.Aim{{Scaler: scaler.Key, At: key}}}); out.Failure != nil {
			t.Fatal(out.Failure)
		}
	}
	aim(revision)
	if got := at(); got != "ReplicaSet "+revision.Name {
		t.Errorf("it is aimed at %s", got)
	}

	// What it makes of the revision (three at most: the cluster's own controller holds it to that) is its own, also when the manifests are applied once more.
	_, err = b.kube.Client.Resource(replicaSets).Namespace(b.namespace).Patch(t.Context(), revision.Name, types.MergePatchType, []byte(`{"spec":{"replicas":3}}`), metav1.PatchOptions{})
	ok(t, err)
	out := b.Apply(t.Context(), b.id, app, rollout.Action{Replicas: []rollout.Replicas{{Key: revision, Count: 2}}, Aim: []rollout.Aim{{Scaler: scaler.Key, At: revision}}})
	if out.Failure != nil {
		t.Fatal(out.Failure)
	}
	if live := b.look(revision)[0]; live.Replicas != 3 || at() != "ReplicaSet "+revision.Name {
		t.Errorf("%d pods, aimed at %s", live.Replicas, at())
	}
	k := rollout.Kept{Identity: b.id, Target: rollout.Target{Full: []rollout.Replicas{{Key: revision, Count: 3}}}}
	// What it found last is no difference, also where it finds that between the reads of a comparison, and nothing that anybody hears of.
	found := 0
	finds := func() {
		found++
		_, err := b.kube.Client.Resource(autoscalers).Namespace(b.namespace).Patch(t.Context(), "web", types.MergePatchType,
			fmt.Appendf(nil, `{"status":{"conditions":[{"type":"AbleToScale","status":"True","reason":"Found%d"}]}}`, found), metav1.PatchOptions{}, "status")
		ok(t, err)
	}
	finds()
	b.wire.intercept(func(request *http.Request) (*http.Response, error) {
		if request.Method == http.MethodPatch && strings.Contains(request.URL.RawQuery, "dryRun") && strings.HasSuffix(request.URL.Path, "/horizontalpodautoscalers/web") {
			finds()
		}
		return nil, nil
	})
	if _, drifts, failure := b.Compare(t.Context(), k, app, nil); failure != nil || len(drifts) > 0 || found != 2 {
		t.Errorf("as it shall be, and differs: %+v %v; it found something %d times", drifts, failure, found)
	}
	moves := &heard{}
	stop, err := b.Follow(t.Context(), b.key("autoscaling", "HorizontalPodAutoscaler", ""), moves.hear)
	ok(t, err)
	defer stop()
	if heard := moves.take(); slices.ContainsFunc(heard, func(m cluster.Moved) bool { return m.Key == scaler.Key }) { // those of other tests are heard of, too
		t.Errorf("heard of is %+v", heard)
	}
	aim(scaler.Workload)
	if got := at(); got != "Deployment web" {
		t.Errorf("at rest, it is aimed at %s", got)
	}
	if out := b.Shift(t.Context(), b.id, rollout.Action{Aim: []rollout.Aim{{Scaler: b.key("autoscaling", "HorizontalPodAutoscaler", "gone"), At: revision}}}); out.Failure != nil {
		t.Errorf("one that is not there: %v", out.Failure)
	}
}
