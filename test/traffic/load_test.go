package traffic

import (
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"towpath/internal/testkit/gitserver"
	"towpath/internal/testkit/world"
)

// autoscaler wants pods that use a sixtieth of a core each, so that a little real work is far more than it allows, also on a machine that has no more to give.
const autoscaler = `apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: hello}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: hello}
  minReplicas: 2
  maxReplicas: 4
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 15}}}]
`

func loaded(version int) string {
	text := strings.Replace(hello(version), "          readinessProbe", "          resources: {requests: {cpu: 100m}}\n          readinessProbe", 1)
	return strings.Replace(text, "replicas: 4", "replicas: 2", 1)
}

// burn has each pod work with a share of a core, until it is asked again.
func burn(t *testing.T, w *world.World, share string) {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", shared.Clusters["prod"].Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	pods := client.CoreV1().Pods(w.Namespace)
	running, err := pods.List(t.Context(), metav1.ListOptions{LabelSelector: "app=hello"})
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range running.Items {
		if _, err := pods.ProxyGet("http", pod.Name, "8080", "/burn", map[string]string{"share": share, "seconds": "600"}).DoRaw(t.Context()); err != nil && pod.DeletionTimestamp == nil {
			t.Fatal(err)
		}
	}
}

// An autoscaler follows what the pods really use; it rests while a rollout runs, which begins with the count that load has made, and follows the new version then.
func TestAnAutoscalerFollowsTheLoadBeforeAndAfterARolloutAndRestsDuringIt(t *testing.T) {
	t.Parallel()
	first := files(`{canary: {steps: [{setWeight: {weight: 50}}, {pause: {untilApproved: true}}]}}`)
	first["hello/manifests/deployment.yaml"], first["hello/manifests/autoscaler.yaml"] = loaded(1), autoscaler
	w := world.New(t, &shared, first)
	runs := func(want map[string]int64) {
		t.Helper()
		w.Await(fmt.Sprint(want), func() (bool, error) {
			if got := w.Images("prod"); fmt.Sprint(got) != fmt.Sprint(want) {
				return false, fmt.Errorf("%v", got)
			}
			return true, nil
		})
	}
	scaler := func() *unstructured.Unstructured {
		return w.Objects("prod", "autoscaling/v2 horizontalpodautoscalers")["hello"]
	}
	aim := func() string {
		kind, _, _ := unstructured.NestedString(scaler().Object, "spec", "scaleTargetRef", "kind")
		name, _, _ := unstructured.NestedString(scaler().Object, "spec", "scaleTargetRef", "name")
		return kind + " " + name
	}
	succeeds(t, w.Ended(w.Deployment("hello", w.Repository.Head("main")).ID))
	burn(t, w, "0.2")
	runs(map[string]int64{"example.com/hello:1": 4})

	d := w.Deployment("hello", w.Commit("version 2", gitserver.Files{"hello/manifests/deployment.yaml": loaded(2)}))
	waits(t, w, d.ID)
	burn(t, w, "0.2") // of both versions: were it not at rest, it would see it
	w.Await("the autoscaler to have found nothing to scale", func() (bool, error) {
		conditions, _, _ := unstructured.NestedSlice(scaler().Object, "status", "conditions")
		for _, c := range conditions {
			if c := c.(map[string]any); c["type"] == "AbleToScale" && c["status"] == "False" && c["reason"] == "FailedGetScale" {
				return true, nil
			}
		}
		return false, fmt.Errorf("%v", conditions)
	})
	if got := fmt.Sprint(aim(), " ", w.Images("prod")); got != "Deployment hello map[example.com/hello:1:2 example.com/hello:2:2]" {
		t.Errorf("during the rollout: %s", got)
	}
	run(t, w, "deploy", "approve", d.ID)
	succeeds(t, w.Ended(d.ID))
	if got := aim(); !strings.HasPrefix(got, "ReplicaSet hello-") {
		t.Errorf("after the rollout it scales %s", got)
	}
	burn(t, w, "0")
	runs(map[string]int64{"example.com/hello:2": 2})
	burn(t, w, "0.2")
	runs(map[string]int64{"example.com/hello:2": 4})
	for _, line := range w.Events("hello") {
		if strings.HasPrefix(line, "target.drift") {
			t.Error(line)
		}
	}
}
