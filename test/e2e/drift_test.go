package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"towpath/internal/testkit/gitserver"
	"towpath/internal/testkit/world"
)

// hand changes an object of prod as a person does with kubectl.
func hand(w *world.World, resource, name, patch string) {
	w.Do("prod", resource, func(r dynamic.ResourceInterface) error {
		_, err := r.Patch(context.Background(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: "kubectl-edit"})
		return err
	})
}

func says(t *testing.T, w *world.World, words string) {
	t.Helper()
	w.Await("the words "+words, func() (bool, error) { return strings.Contains(strings.Join(w.Events("shop"), "\n"), words), nil })
}

const healing = `{canary: {steps: [{setWeight: {weight: 100}}]}}`

func heals(file string) string {
	return strings.Replace(file, "strategy: careful}", "strategy: careful, drift: heal}", 1)
}

func TestWhatAPersonChangesInTheClusterIsTold(t *testing.T) {
	t.Parallel()
	w := first(t, world.OnProd(healing, ""))
	hand(w, "v1 configmaps", "web", `{"data":{"IMAGE":"by hand"}}`)
	want := fmt.Sprintf("prod: ConfigMap %s/web differs at /data/IMAGE | changed by kubectl-edit at ", w.Namespace)
	says(t, w, want)
	if out := must(t, w, "why", "shop", "prod"); !strings.Contains(out, fmt.Sprintf("ConfigMap %s/web differs at /data/IMAGE, changed by kubectl-edit, seen ", w.Namespace)) {
		t.Errorf("why: %s", out)
	}
	hand(w, "v1 configmaps", "web", `{"data":{"IMAGE":"example.com/web:1"}}`)
	says(t, w, "web is as #1 has it again")
	if out := must(t, w, "why", "shop", "prod"); strings.Contains(out, "differs") {
		t.Errorf("why: %s", out)
	}
	if n := strings.Count(strings.Join(w.Events("shop"), "\n"), "target.drifted"); n != 1 {
		t.Errorf("told %d times", n)
	}
}

func TestWhatAPersonChangesInTheClusterIsPutBackWhereTheFileSaysSo(t *testing.T) {
	t.Parallel()
	w := first(t, heals(world.OnProd(healing, "")))
	pods := w.Objects("prod", "v1 pods")
	hand(w, "v1 configmaps", "web", `{"data":{"IMAGE":"by hand"}}`)
	says(t, w, "web is put back as #1 has it | changed by kubectl-edit at ")
	if data := w.Objects("prod", "v1 configmaps")["web"].Object["data"].(map[string]any); data["IMAGE"] != "example.com/web:1" {
		t.Errorf("the ConfigMap holds %v", data)
	}
	w.Do("prod", "v1 services", func(r dynamic.ResourceInterface) error { return r.Delete(t.Context(), "web", metav1.DeleteOptions{}) })
	w.Await("the Service", func() (bool, error) { return w.Objects("prod", "v1 services")["web"] != nil, nil })
	for name := range w.Objects("prod", "apps/v1 replicasets") {
		hand(w, "apps/v1 replicasets", name, `{"spec":{"replicas":5}}`)
	}
	w.Await("four pods", func() (bool, error) {
		for _, set := range w.Objects("prod", "apps/v1 replicasets") {
			if set.Object["spec"].(map[string]any)["replicas"] != int64(4) {
				return false, nil
			}
		}
		return strings.Contains(strings.Join(w.Events("shop"), "\n"), "ReplicaSet.apps"), nil
	})
	still := w.Objects("prod", "v1 pods")
	for name := range pods {
		if still[name] != nil {
			delete(pods, name)
		}
	}
	if len(pods) > 1 { // of five, the cluster ends whichever it likes
		t.Errorf("%d pods did not outlive it", len(pods))
	}
	for range 3 {
		hand(w, "v1 configmaps", "web", `{"data":{"IMAGE":"by hand again"}}`)
		w.Await("what is put back", func() (bool, error) {
			return w.Objects("prod", "v1 configmaps")["web"].Object["data"].(map[string]any)["IMAGE"] == "example.com/web:1", nil
		})
	}
	says(t, w, "is changed again each time; it is put back less and less often | changed by kubectl-edit at ")
}

// A rollout under way moves much; what others change meanwhile is seen when it has ended, also by another process.
func TestARolloutUnderWayIsNoDrift(t *testing.T) {
	t.Parallel()
	w := first(t, heals(world.OnProd(halfThenApproval, "")))
	d := next(t, w, 2, "approval")
	hand(w, "v1 services", "web", `{"spec":{"selector":{"app":"nobody"}}}`)
	must(t, w, "deploy", "approve", d.ID)
	expectState(t, w.Ended(d.ID), "SUCCEEDED")
	says(t, w, "prod: Service "+w.Namespace+"/web is put back as #2 has it")
	w.StopController()
	hand(w, "v1 services", "web", `{"spec":{"selector":{"app":"nobody"}}}`)
	w.StartController()
	w.Await("the selector", func() (bool, error) {
		selector := w.Objects("prod", "v1 services")["web"].Object["spec"].(map[string]any)["selector"].(map[string]any)
		return selector["app"] == "web", nil
	})
	if out := strings.Join(w.Events("shop"), "\n"); strings.Contains(out, "ReplicaSet") && strings.Contains(out, "drifted | prod | prod: ReplicaSet") {
		t.Errorf("the rollout itself is told as drift:\n%s", out)
	}
}

// Where the file begins to ask for it, what differs already is put back.
func TestAFileThatBeginsToHealPutsBackWhatDiffers(t *testing.T) {
	t.Parallel()
	w := first(t, world.OnProd(healing, ""))
	hand(w, "v1 configmaps", "web", `{"data":{"IMAGE":"by hand"}}`)
	says(t, w, "differs at /data/IMAGE")
	w.Commit("heal", gitserver.Files{"shop/towpath.yaml": heals(world.OnProd(healing, ""))})
	says(t, w, "web is put back as #1 has it")
}

// A ReplicaSet whose label was taken away is the revision that it was: its pods do not run on beside the next one's.
func TestARolloutFindsARevisionThatLostItsLabel(t *testing.T) {
	t.Parallel()
	w := first(t, world.OnProd(healing, ""))
	for name := range w.Objects("prod", "apps/v1 replicasets") {
		hand(w, "apps/v1 replicasets", name, `{"metadata":{"labels":{"towpath.dev/lane":null}}}`)
	}
	says(t, w, "differs at /metadata/labels/towpath.dev~1lane")
	d := w.Deployment("shop", w.Commit("version 2", gitserver.Files{"shop/manifests/web.yaml": four("example.com/web:2")}))
	expectState(t, w.Ended(d.ID), "SUCCEEDED")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:2": 4})
	for name, set := range w.Objects("prod", "apps/v1 replicasets") {
		if set.GetLabels()["towpath.dev/lane"] == "" {
			t.Errorf("%s is still without its label", name)
		}
	}
	must(t, w, "deploy", "rollback", "shop", "prod", "--reason", "a test", "--watch")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:1": 4})
}
