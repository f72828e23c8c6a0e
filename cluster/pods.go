package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"towpath/manifest"
)

// hasPods reports whether a kind makes pods by a template and owns them.
func hasPods(key manifest.Key) bool {
	switch key.Kind {
	case "ReplicaSet", "StatefulSet", "DaemonSet":
		return key.Group == "apps"
	case "Job":
		return key.Group == "batch"
	}
	return false
}

// podTroubles says why pods of a workload are not ready, in the words of kubelet and scheduler: each reason once, at most three. It is for people, so a
// failure to read them is no failure.
func (c *Client) podTroubles(ctx context.Context, workload *unstructured.Unstructured) string {
	pods, err := c.podsOf(ctx, workload, explainable)
	if err != nil {
		return ""
	}
	return c.troubles(ctx, pods)
}

// troubles says why pods are not ready.
func (c *Client) troubles(ctx context.Context, pods []unstructured.Unstructured) string {
	var reasons []string
	var silent *unstructured.Unstructured // a pod that does not say itself why it does not start
	for i := range pods {
		pod := &pods[i]
		why := podTrouble(pod.Object)
		if why == "" {
			if why = unready(pod.Object); why == "" {
				silent = pod
			}
		}
		if why != "" && !slices.Contains(reasons, why) {
			reasons = append(reasons, why)
		}
	}
	if len(reasons) == 0 && silent != nil {
		return c.warning(ctx, silent)
	}
	slices.Sort(reasons)
	return strings.Join(reasons[:min(len(reasons), 3)], "; ")
}

// explainable is how many pods of a workload are looked at for what people may want to know.
const explainable = 100

// podsOf is the pods that a workload owns; at most limit of them when it is not 0.
func (c *Client) podsOf(ctx context.Context, workload *unstructured.Unstructured, limit int64) ([]unstructured.Unstructured, error) {
	selector, err := selectorOf(workload)
	if err != nil || selector == "" {
		return nil, err
	}
	kind := podKind
	kind.Namespace = workload.GetNamespace()
	pods, err := c.list(ctx, kind, selector, limit)
	return slices.DeleteFunc(pods, func(pod unstructured.Unstructured) bool { return !ownedBy(pod, workload) }), err
}

// selectorOf is the selector of a workload as lists take it; "": it selects nothing.
func selectorOf(workload *unstructured.Unstructured) (string, error) {
	var selector metav1.LabelSelector
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(manifest.Child(workload.Object, "spec", "selector"), &selector); err != nil {
		return "", err
	}
	chosen, err := metav1.LabelSelectorAsSelector(&selector)
	if err != nil || chosen.Empty() {
		return "", err
	}
	return chosen.String(), nil
}

func ownedBy(object unstructured.Unstructured, owner *unstructured.Unstructured) bool {
	return slices.ContainsFunc(object.GetOwnerReferences(), func(o metav1.OwnerReference) bool { return o.UID == owner.GetUID() })
}

// warning is a warning event of a pod: of a volume that cannot be mounted only events tell.
func (c *Client) warning(ctx context.Context, pod *unstructured.Unstructured) string {
	key := manifest.Key{Kind: "Event", Namespace: pod.GetNamespace()}
	resource, _, err := c.resource(ctx, key, "v1")
	if err != nil {
		return ""
	}
	events, err := request(ctx, c, func(ctx context.Context) (*unstructured.UnstructuredList, error) {
		return resource.List(ctx, metav1.ListOptions{FieldSelector: "type=Warning,involvedObject.uid=" + string(pod.GetUID()), Limit: 1})
	})
	if err != nil || len(events.Items) == 0 {
		return ""
	}
	return withMessage(fmt.Sprint(events.Items[0].Object["reason"]), events.Items[0].Object["message"])
}

// podTrouble is the first reason of a pod that waiting alone will hardly mend; "" when there is none. It names no pod, so that pods in the same trouble
// say the same.
func podTrouble(pod map[string]any) string {
	status := manifest.Child(pod, "status")
	if phase := status["phase"]; phase == "Failed" { // evicted, past its deadline
		if reason, _ := status["reason"].(string); reason != "" {
			return withMessage(reason, status["message"])
		}
	}
	for _, kind := range []string{"initContainerStatuses", "containerStatuses"} {
		for _, container := range manifest.Items(status[kind]) {
			if why := containerTrouble(container); why != "" {
				return why
			}
		}
	}
	for _, condition := range manifest.Items(status["conditions"]) {
		if condition["type"] == "PodScheduled" && condition["status"] == "False" {
			return withMessage(fmt.Sprint(condition["reason"]), condition["message"])
		}
	}
	return ""
}

func containerTrouble(container map[string]any) string {
	reason, _ := manifest.Child(container, "state", "waiting")["reason"].(string)
	ended := manifest.Child(container, "state", "terminated")
	if ended == nil {
		ended = manifest.Child(container, "lastState", "terminated")
	}
	failed := ended != nil && fmt.Sprint(ended["exitCode"]) != "0"
	exit := fmt.Sprintf("container %v ended with exit code %v", container["name"], ended["exitCode"])
	if why, _ := ended["reason"].(string); why != "" && why != "Error" {
		exit += " (" + why + ")"
	}
	switch {
	case reason == "CrashLoopBackOff" && ended != nil:
		return reason + ": " + exit
	case reason == "", reason == "ContainerCreating", reason == "PodInitializing":
		if failed {
			return exit
		}
		return ""
	}
	message, _ := manifest.Child(container, "state", "waiting")["message"].(string)
	if image, _ := container["image"].(string); strings.Contains(reason, "Image") && !strings.Contains(message, image) {
		message = strings.TrimSuffix("image "+image+": "+message, ": ")
	}
	return withMessage(reason, message)
}

// unready names the containers of a running pod that are not ready: their readiness probes do not succeed yet.
func unready(pod map[string]any) string {
	var names []string
	for _, container := range manifest.Items(manifest.Child(pod, "status")["containerStatuses"]) {
		if manifest.Child(container, "state", "running") != nil && container["ready"] == false {
			names = append(names, fmt.Sprint(container["name"]))
		}
	}
	if len(names) == 0 {
		return ""
	}
	return "running and not ready: container " + strings.Join(names, ", ")
}

func withMessage(reason string, message any) string {
	text, _ := message.(string)
	if text == "" {
		return reason
	}
	return shown(reason+": "+text, 250)
}
