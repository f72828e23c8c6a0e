package cluster

import (
	"fmt"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"

	"towpath/cluster/traffic"
	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// judge reads off a live object what a rollout wants to know.
func judge(key manifest.Key, object *unstructured.Unstructured) rollout.Live {
	annotations := object.GetAnnotations()
	live := rollout.Live{Key: key, UID: string(object.GetUID()), ResourceVersion: object.GetResourceVersion(), Generation: object.GetGeneration(), Workload: annotations[AnnotationWorkload]}
	live.Hash, live.StandsFor = object.GetLabels()[LabelHash], annotations[AnnotationStandsFor]
	live.Number = numberOf(annotations)
	live.Commit = shown(annotations[AnnotationCommit], 64)
	if application := annotations[AnnotationApplication]; application != "" {
		live.Owner = ownerOf(annotations[AnnotationTenant], application, annotations[AnnotationTarget])
	}
	if key.Group == "apps" && key.Kind == "ReplicaSet" {
		mark, _, _ := unstructured.NestedString(object.Object, "spec", "template", "metadata", "labels", traffic.LabelSubset)
		live.Marked, live.Baseline = mark != "" && mark == live.Hash, annotations[AnnotationBaselineOf] != ""
		judgeReplicaSet(&live, object)
	} else {
		live.Health, live.Message = health(key, object)
	}
	if key.Group == "" && key.Kind == "Service" {
		live.Selector, _, _ = unstructured.NestedStringMap(object.Object, "spec", "selector")
		live.Ports = portsOf(object)
	}
	if object.GetDeletionTimestamp() != nil {
		live.Health, live.Message = rollout.Progressing, "it is being removed"
	}
	return live
}

// portsOf is the ports of a Service.
func portsOf(service *unstructured.Unstructured) (ports []rollout.Port) {
	all, _, _ := unstructured.NestedSlice(service.Object, "spec", "ports")
	for _, one := range all {
		fields, _ := one.(map[string]any)
		name, _, _ := unstructured.NestedString(fields, "name")
		protocol, _, _ := unstructured.NestedString(fields, "protocol")
		speaks, _, _ := unstructured.NestedString(fields, "appProtocol")
		number, _, _ := unstructured.NestedInt64(fields, "port")
		ports = append(ports, rollout.Port{Name: name, Protocol: protocol, Speaks: speaks, Number: int32(number)})
	}
	return ports
}

// ownerOf is whose an object is, as Live.Owner has it.
func ownerOf(tenant, application, target string) string {
	return strings.Join([]string{tenant, application, target}, "/")
}

// mostNumber is higher than that of any deployment. Whoever may write a ReplicaSet may write another: it is held to be none.
const mostNumber = 1_000_000_000

// numberOf is the deployment that made a revision; 0 where nothing says so.
func numberOf(annotations map[string]string) int {
	n, err := strconv.Atoi(annotations[AnnotationNumber])
	if err != nil || n < 0 || n > mostNumber {
		return 0
	}
	return n
}

// judgeReplicaSet holds a ReplicaSet healthy when its controller has seen what we wrote, and all its pods are available.
func judgeReplicaSet(live *rollout.Live, object *unstructured.Unstructured) {
	number := func(path ...string) int32 {
		n, _, _ := unstructured.NestedInt64(object.Object, path...)
		return int32(n)
	}
	live.Replicas, live.Ready = number("spec", "replicas"), number("status", "readyReplicas")
	observed, _, _ := unstructured.NestedInt64(object.Object, "status", "observedGeneration")
	available, all := number("status", "availableReplicas"), number("status", "replicas")
	live.Within = observed >= live.Generation && all <= live.Replicas
	switch {
	case observed < live.Generation:
		live.Health, live.Message = rollout.Progressing, fmt.Sprintf("0 of %d pods ready", live.Replicas)
	case live.Ready < live.Replicas:
		live.Health, live.Message = rollout.Progressing, fmt.Sprintf("%d of %d pods ready", live.Ready, live.Replicas)
	case available < live.Replicas:
		live.Health, live.Message = rollout.Progressing, fmt.Sprintf("%d of %d pods ready for long enough", available, live.Replicas)
	case all > live.Replicas:
		live.Health, live.Message = rollout.Progressing, fmt.Sprintf("%d pods too many", all-live.Replicas)
	default:
		live.Health, live.Message = rollout.Healthy, ""
		return
	}
	for _, condition := range manifest.Items(manifest.Child(object.Object, "status")["conditions"]) { // pods that could not even be made: a quota, an admission webhook
		if condition["type"] == "ReplicaFailure" && condition["status"] == "True" {
			live.Message += ": " + withMessage(fmt.Sprint(condition["reason"]), condition["message"])
		}
	}
}

// health judges an object as kstatus does, with three exceptions. An autoscaler at rest is not looked at by its controller. A claim that waits for its first pod is bound only once that pod is there, so waiting for
// it before would be waiting for ever. And what kstatus cannot read follows rules of its own (an Argo Rollout counts generations in texts): it is held
// healthy once it is applied, and who wants to wait for it says so in the file.
func health(key manifest.Key, object *unstructured.Unstructured) (rollout.Health, string) {
	if key.Group == "" && key.Kind == "PersistentVolumeClaim" {
		if phase, _, _ := unstructured.NestedString(object.Object, "status", "phase"); phase == "Lost" {
			return rollout.Broken, "its volume is lost"
		}
		return rollout.Healthy, ""
	}
	if key.Group == "argoproj.io" && key.Kind == "Rollout" || key.Group == "autoscaling" && key.Kind == "HorizontalPodAutoscaler" {
		return rollout.Healthy, ""
	}
	if object.GetAnnotations()[AnnotationHook] != "" && (key.Group == "batch" && key.Kind == "Job" || key.Group == "" && key.Kind == "Pod") {
		return done(object)
	}
	result, err := status.Compute(object)
	switch {
	case err != nil, result.Status == status.CurrentStatus:
		return rollout.Healthy, ""
	case result.Status == status.FailedStatus:
		return rollout.Broken, shown(result.Message, 250)
	}
	return rollout.Progressing, shown(result.Message, 250)
}

// done judges a hook that runs: it is healthy once it has done its work, where other Jobs are once they have begun.
func done(object *unstructured.Unstructured) (rollout.Health, string) {
	state := manifest.Child(object.Object, "status")
	for _, condition := range manifest.Items(state["conditions"]) {
		if condition["status"] != "True" {
			continue
		}
		switch condition["type"] {
		case "Complete":
			return rollout.Healthy, ""
		case "Failed":
			return rollout.Broken, withMessage(fmt.Sprint(condition["reason"]), condition["message"])
		}
	}
	switch state["phase"] {
	case "Succeeded":
		return rollout.Healthy, ""
	case "Failed":
		return rollout.Broken, withMessage("Failed", state["message"])
	}
	return rollout.Progressing, "it runs"
}
