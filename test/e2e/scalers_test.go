package e2e

import (
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"towpath/internal/testkit/gitserver"
	"towpath/internal/testkit/world"
)

// half is an aim of half the processor that pods ask for, as each version of the API writes it.
var half = map[string]string{
	"autoscaling/v1": "targetCPUUtilizationPercentage: 50",
	"autoscaling/v2": "metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]",
}

// autoscaled is a workload of which the manifest says two pods, and the autoscaler four to six.
func autoscaled(api string, version int) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}, annotations: {localcluster/cpu: 50m}}
    spec: {containers: [{name: app, image: "example.com/web:%d", resources: {requests: {cpu: 100m}}}]}
---
apiVersion: %s
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 4
  maxReplicas: 6
  %s
`, version, api, half[api])
}

// scales is what the autoscaler scales.
func scales(w *world.World) string {
	ref := w.Objects("prod", "autoscaling/v2 horizontalpodautoscalers")["web"].Object["spec"].(map[string]any)["scaleTargetRef"].(map[string]any)
	return fmt.Sprint(ref["kind"], " ", ref["name"])
}

// runs waits until so many pods of images are ready.
func runs(t *testing.T, w *world.World, want map[string]int64) {
	t.Helper()
	w.Await(fmt.Sprint(want), func() (bool, error) {
		if got := w.Images("prod"); fmt.Sprint(got) != fmt.Sprint(want) {
			return false, fmt.Errorf("%v", got)
		}
		return true, nil
	})
}

func TestAnAutoscalerRestsDuringARolloutAndScalesWhatCarriesAfterIt(t *testing.T) {
	t.Parallel()
	for api := range half {
		t.Run(api, func(t *testing.T) {
			t.Parallel()
			restsAndScales(t, func(version int) string { return autoscaled(api, version) })
		})
	}
}

func restsAndScales(t *testing.T, autoscaled func(version int) string) {
	w := world.New(t, &shared, gitserver.Files{"shop/towpath.yaml": world.OnProd(`{canary: {steps: [{setWeight: {weight: 50}}, {pause: {untilApproved: true}}]}}`, ""),
		"shop/manifests/web.yaml": autoscaled(1)})
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")
	runs(t, w, map[string]int64{"example.com/web:1": 4})

	d := w.Deployment("shop", w.Commit("version 2", gitserver.Files{"shop/manifests/web.yaml": autoscaled(2)}))
	waits(t, w, d.ID, "approval")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:1": 2, "example.com/web:2": 2})
	if got := scales(w); got != "Deployment web" {
		t.Errorf("during the rollout it scales %s, and not what is not there", got)
	}
	must(t, w, "deploy", "approve", d.ID)
	expectState(t, w.Ended(d.ID), "SUCCEEDED")
	runs(t, w, map[string]int64{"example.com/web:2": 4})

	// More load: the autoscaler sees the pods of the new version.
	for name := range w.Objects("prod", "v1 pods") {
		w.Do("prod", "v1 pods", func(r dynamic.ResourceInterface) error {
			_, err := r.Patch(t.Context(), name, types.MergePatchType, []byte(`{"metadata":{"annotations":{"localcluster/cpu":"90m"}}}`), metav1.PatchOptions{})
			return err
		})
	}
	runs(t, w, map[string]int64{"example.com/web:2": 6})
	scaled := scales(w)

	d = w.Deployment("shop", w.Commit("version 3", gitserver.Files{"shop/manifests/web.yaml": autoscaled(3)}))
	waits(t, w, d.ID, "approval")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:2": 3, "example.com/web:3": 3})
	must(t, w, "deploy", "reject", d.ID, "--reason", "3 is no good")
	w.Ended(d.ID)
	runs(t, w, map[string]int64{"example.com/web:2": 6})
	if got := scales(w); got != scaled || !strings.HasPrefix(got, "ReplicaSet web-") {
		t.Errorf("after it went back it scales %s, and %s before", got, scaled)
	}
	for _, line := range w.Events("shop") {
		if strings.HasPrefix(line, "target.drift") {
			t.Error(line)
		}
	}
}

func TestAnAutoscalerOfAStatefulSetRestsWhileItTakesTheSteps(t *testing.T) {
	t.Parallel()
	autoscaled := func(version string) string {
		return database("example.com/db:"+version) + `
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: StatefulSet, name: db}
  minReplicas: 4
  maxReplicas: 6
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]
`
	}
	w := fleet(t, autoscaled)
	scaledTo := func(want string) {
		t.Helper()
		w.Await(want, func() (bool, error) { return podsOf(w) == want, nil })
	}
	scaledTo("0:1 1:1 2:1 3:1")
	d := waits(t, w, commits(w, "2", autoscaled("2")).ID, "approval")
	expectPods(t, w, "0:1 1:1 2:2 3:2")
	if got := scales(w); got != "Deployment db-at-rest" {
		t.Errorf("during the rollout it scales %s", got)
	}
	must(t, w, "deploy", "approve", d.ID)
	expectState(t, w.Ended(d.ID), "SUCCEEDED")
	expectPods(t, w, "0:2 1:2 2:2 3:2")
	if got := scales(w); got != "StatefulSet db" {
		t.Errorf("at the end it scales %s", got)
	}
	expectNothingLeft(t, w)
}
