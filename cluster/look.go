package cluster

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

var (
	replicaSetKind = manifest.Key{Group: "apps", Kind: "ReplicaSet"}
	podKind        = manifest.Key{Kind: "Pod"}
)

// Look reads afresh what is asked for; namespaces are those in which the target may have revisions. Nothing comes from a cache.
func (c *Client) Look(ctx context.Context, id rollout.Identity, read rollout.Read, namespaces []string) rollout.Look {
	var look rollout.Look
	var err error
	if look.Objects, err = c.read(ctx, read.Objects, LaneLabel(id)); err != nil {
		return rollout.Look{Failure: c.failure(manifest.Key{}, err)}
	}
	if read.Revisions {
		for _, namespace := range namespaces {
			sets, err := c.listRevisions(ctx, id, namespace)
			if err != nil {
				return rollout.Look{Failure: c.failure(manifest.Key{}, err)}
			}
			look.Revisions = append(look.Revisions, sets...)
		}
	}
	if look.Workloads, err = c.read(ctx, read.Workloads, ""); err != nil {
		return rollout.Look{Failure: c.failure(manifest.Key{}, err)}
	}
	for i := range look.Objects {
		if live := &look.Objects[i]; !live.Missing && live.Health != rollout.Healthy && live.Key.Group == "apps" && live.Key.Kind == "ReplicaSet" {
			if why := c.troubledPods(ctx, live.Key, live.UID); why != "" {
				live.Message += ": " + why
			}
		}
	}
	return look
}

// listed is from how many objects of one kind and namespace on a list is cheaper than reading each.
const listed = 4

// read reads objects afresh, in the order of the keys. With a lane, many of one kind and namespace are read by one list of the lane's objects.
func (c *Client) read(ctx context.Context, keys []manifest.Key, lane string) ([]rollout.Live, error) {
	lives := make([]rollout.Live, len(keys))
	var jobs []func() ([]rollout.Live, error)
	for kind, places := range byKind(keys) {
		if lane != "" && len(places) >= listed {
			jobs = append(jobs, func() ([]rollout.Live, error) { return nil, c.readList(ctx, kind, lane, keys, places, lives) })
			continue
		}
		for _, i := range places {
			jobs = append(jobs, func() (_ []rollout.Live, err error) {
				lives[i], err = c.readOne(ctx, keys[i])
				return nil, err
			})
		}
	}
	if _, failure := c.all(jobs); failure != nil {
		return nil, failure
	}
	return lives, nil
}

// byKind groups the places of keys by kind and namespace.
func byKind(keys []manifest.Key) map[manifest.Key][]int {
	places := map[manifest.Key][]int{}
	for i, key := range keys {
		key.Name = ""
		places[key] = append(places[key], i)
	}
	return places
}

func (c *Client) readOne(ctx context.Context, key manifest.Key) (rollout.Live, error) {
	resource, err := c.resource(key, "")
	if err != nil {
		return rollout.Live{}, c.failure(key, err)
	}
	object, err := c.request(ctx, key, func(ctx context.Context) (*unstructured.Unstructured, error) {
		return resource.Get(ctx, key.Name, metav1.GetOptions{})
	})
	switch {
	case apierrors.IsNotFound(err):
		return rollout.Live{Key: key, Missing: true}, nil
	case err != nil:
		return rollout.Live{}, c.failure(key, err)
	}
	return judge(key, object), nil
}

func (c *Client) readList(ctx context.Context, kind manifest.Key, lane string, keys []manifest.Key, places []int, lives []rollout.Live) error {
	list, err := c.list(ctx, kind, LabelLane+"="+lane)
	if err != nil {
		return err
	}
	found := map[string]*unstructured.Unstructured{}
	for i := range list.Items {
		found[list.Items[i].GetName()] = &list.Items[i]
	}
	for _, i := range places {
		if object := found[keys[i].Name]; object != nil {
			lives[i] = judge(keys[i], object)
		} else {
			lives[i] = rollout.Live{Key: keys[i], Missing: true}
		}
	}
	return nil
}

// list reads all objects of a kind in a namespace that a selector names.
func (c *Client) list(ctx context.Context, kind manifest.Key, selector string) (*unstructured.UnstructuredList, error) {
	resource, err := c.resource(kind, "")
	if err != nil {
		return nil, c.failure(kind, err)
	}
	release, err := c.slot(ctx)
	if err != nil {
		return nil, c.failure(kind, err)
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	list, err := resource.List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, c.failure(kind, err)
	}
	return list, nil
}

// listRevisions is all managed ReplicaSets of a target in a namespace.
func (c *Client) listRevisions(ctx context.Context, id rollout.Identity, namespace string) ([]rollout.Live, error) {
	kind := replicaSetKind
	kind.Namespace = namespace
	list, err := c.list(ctx, kind, LabelLane+"="+LaneLabel(id)+","+LabelWorkload)
	if err != nil {
		return nil, err
	}
	var lives []rollout.Live
	for i := range list.Items {
		key := kind
		key.Name = list.Items[i].GetName()
		if list.Items[i].GetDeletionTimestamp() == nil {
			lives = append(lives, judge(key, &list.Items[i]))
		}
	}
	return lives, nil
}

// judge reads off a live object what a rollout wants to know.
func judge(key manifest.Key, object *unstructured.Unstructured) rollout.Live {
	annotations := object.GetAnnotations()
	live := rollout.Live{Key: key, UID: string(object.GetUID()), ResourceVersion: object.GetResourceVersion(), Generation: object.GetGeneration(), Workload: annotations[AnnotationWorkload]}
	live.Number, _ = strconv.Atoi(annotations[AnnotationNumber]) // not ours: 0
	if application := annotations[AnnotationApplication]; application != "" {
		live.Owner = strings.Join([]string{annotations[AnnotationTenant], application, annotations[AnnotationTarget]}, "/")
	}
	live.Health, live.Message = health(key, object)
	if key.Group == "apps" && key.Kind == "ReplicaSet" {
		judgeReplicaSet(&live, object)
	}
	return live
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
	switch {
	case observed < live.Generation:
		live.Health, live.Message = rollout.Progressing, fmt.Sprintf("0 of %d pods ready", live.Replicas)
	case live.Ready < live.Replicas:
		live.Health, live.Message = rollout.Progressing, fmt.Sprintf("%d of %d pods ready", live.Ready, live.Replicas)
	case available < live.Replicas:
		live.Health, live.Message = rollout.Progressing, fmt.Sprintf("%d of %d pods ready for long enough", available, live.Replicas)
	case all > live.Replicas && live.Replicas > 0:
		live.Health, live.Message = rollout.Progressing, fmt.Sprintf("%d pods too many", all-live.Replicas)
	default:
		live.Health, live.Message = rollout.Healthy, ""
	}
}

// health judges an object as kstatus does, but for claims: one that waits for its first pod is bound only once that pod is there, so waiting for it
// before would be waiting for ever.
func health(key manifest.Key, object *unstructured.Unstructured) (rollout.Health, string) {
	if key.Group == "" && key.Kind == "PersistentVolumeClaim" {
		if phase, _, _ := unstructured.NestedString(object.Object, "status", "phase"); phase == "Lost" {
			return rollout.Broken, "its volume is lost"
		}
		return rollout.Healthy, ""
	}
	result, err := status.Compute(object)
	if err != nil {
		return rollout.Progressing, err.Error()
	}
	switch result.Status {
	case status.CurrentStatus:
		return rollout.Healthy, ""
	case status.FailedStatus:
		return rollout.Broken, result.Message
	}
	return rollout.Progressing, result.Message
}

// troubledPods says why pods of a ReplicaSet are not ready, in the words of kubelet and scheduler: each reason once. It is for people, so a failure to
// read them is no failure.
func (c *Client) troubledPods(ctx context.Context, key manifest.Key, uid string) string {
	kind := podKind
	kind.Namespace = key.Namespace
	hash := key.Name[strings.LastIndexByte(key.Name, '-')+1:]
	list, err := c.list(ctx, kind, LabelHash+"="+hash)
	if err != nil {
		return ""
	}
	var reasons []string
	for i := range list.Items {
		pod := &list.Items[i]
		if !slices.ContainsFunc(pod.GetOwnerReferences(), func(o metav1.OwnerReference) bool { return string(o.UID) == uid }) {
			continue
		}
		if why := podTrouble(pod.Object); why != "" && !slices.Contains(reasons, why) {
			reasons = append(reasons, why)
		}
	}
	slices.Sort(reasons)
	return strings.Join(reasons[:min(len(reasons), 3)], "; ")
}

// podTrouble is the first reason of a pod that waiting alone will hardly mend.
func podTrouble(pod map[string]any) string {
	status := child(pod, "status")
	for _, kind := range []string{"initContainerStatuses", "containerStatuses"} {
		for _, container := range items(status[kind]) {
			if waiting := child(container, "state", "waiting"); waiting != nil {
				if reason, _ := waiting["reason"].(string); reason != "" && reason != "ContainerCreating" && reason != "PodInitializing" {
					return withMessage(reason, waiting["message"])
				}
			}
			if ended := child(container, "lastState", "terminated"); ended != nil {
				return fmt.Sprintf("container %v ended with %v", container["name"], ended["exitCode"])
			}
		}
	}
	for _, condition := range items(status["conditions"]) {
		if condition["type"] == "PodScheduled" && condition["status"] == "False" {
			return withMessage(fmt.Sprint(condition["reason"]), condition["message"])
		}
	}
	if reason, _ := status["reason"].(string); reason != "" {
		return withMessage(reason, status["message"])
	}
	return ""
}

func withMessage(reason string, message any) string {
	text, _ := message.(string)
	if text == "" {
		return reason
	}
	if len(text) > 200 {
		text = text[:200] + "…"
	}
	return reason + ": " + text
}
