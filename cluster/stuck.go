package cluster

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// labelRevision names, on a pod of a StatefulSet, the version of its template.
const labelRevision = "controller-revision-hash"

// Free removes the pods that hold up the rollouts of StatefulSets: their controller waits for each pod to become ready before it goes on to the next, also
// for one of an older version that never will (kubernetes.io, StatefulSet, forced rollback).
func (c *Client) Free(ctx context.Context, id rollout.Identity, a rollout.Action) rollout.Outcome {
	jobs := make([]job, len(a.Workloads))
	for i, key := range a.Workloads {
		jobs[i] = func() ([]rollout.Live, error) { return nil, c.free(ctx, id, key) }
	}
	_, failure := c.all(jobs)
	return rollout.Outcome{Failure: failure}
}

func (c *Client) free(ctx context.Context, id rollout.Identity, key manifest.Key) error {
	set, err := c.get(ctx, key)
	if err != nil {
		return c.failure(key, err)
	}
	if set == nil {
		return nil
	}
	if err := notOurs(id, key, set); err != nil {
		return err
	}
	pods, err := c.stuckPods(ctx, set)
	if err != nil {
		return c.failure(key, err)
	}
	for _, pod := range pods {
		at := podKind
		at.Namespace, at.Name = pod.GetNamespace(), pod.GetName()
		if err := c.delete(ctx, removal{key: at, uid: pod.GetUID(), name: fmt.Sprintf("stuck pod of %s", key), version: pod.GetResourceVersion()}); err != nil {
			return err
		}
	}
	return nil
}

// stuckPods is the pods of a StatefulSet that its controller shall replace and that are not ready: pods of an older version, but for those that the
// manifest leaves to somebody else (OnDelete) or at their version (partition).
func (c *Client) stuckPods(ctx context.Context, set *unstructured.Unstructured) ([]unstructured.Unstructured, error) {
	strategy := manifest.Child(set.Object, "spec", "updateStrategy")
	observed, _, _ := unstructured.NestedInt64(set.Object, "status", "observedGeneration")
	newest, _, _ := unstructured.NestedString(set.Object, "status", "updateRevision")
	if strategy["type"] == "OnDelete" || observed < set.GetGeneration() || newest == "" {
		return nil, nil
	}
	partition, _, _ := unstructured.NestedInt64(strategy, "rollingUpdate", "partition")
	first, _, _ := unstructured.NestedInt64(set.Object, "spec", "ordinals", "start") // that a partition counts from
	pods, err := c.podsOf(ctx, set, explainable)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(pods, func(pod unstructured.Unstructured) bool {
		number, err := strconv.ParseInt(pod.GetName()[strings.LastIndexByte(pod.GetName(), '-')+1:], 10, 64)
		return err != nil || number-first < partition || pod.GetDeletionTimestamp() != nil || pod.GetLabels()[labelRevision] == newest || isReady(pod.Object)
	}), nil
}

// isReady reports whether a pod says that it is ready.
func isReady(pod map[string]any) bool {
	return slices.ContainsFunc(manifest.Items(manifest.Child(pod, "status")["conditions"]), func(condition map[string]any) bool {
		return condition["type"] == "Ready" && condition["status"] == string(metav1.ConditionTrue)
	})
}
