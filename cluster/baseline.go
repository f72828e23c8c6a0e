package cluster

import (
	"context"
	"fmt"
	"maps"
	"strconv"

	"towpath/cluster/traffic"
	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// AnnotationBaselineOf is on a baseline: the name of the ReplicaSet that it is a copy of.
const AnnotationBaselineOf = "towpath.dev/baseline-of"

// baselines makes revisions that are copies of others, without pods yet. Those that are there stay as they are.
func (c *Client) baselines(ctx context.Context, id rollout.Identity, all []rollout.Baseline) *rollout.Failure {
	jobs := make([]job, len(all))
	for i, b := range all {
		jobs[i] = func() ([]rollout.Live, error) { return nil, c.baseline(ctx, id, b) }
	}
	_, failure := c.all(jobs)
	return failure
}

// baseline copies a revision as it is in the cluster: what it runs is what the canary is compared with, whatever the manifests would make of it today.
func (c *Client) baseline(ctx context.Context, id rollout.Identity, b rollout.Baseline) error {
	of, err := c.get(ctx, b.Of)
	switch {
	case err != nil:
		return c.failure(b.Of, err)
	case of == nil:
		return &rollout.Failure{Class: rollout.Refused, Object: b.Of, Text: "it is not there, so no canary can be compared with it"}
	}
	if err := notOurs(id, b.Of, of); err != nil {
		return err
	}
	live := judge(b.Of, of)
	spec := manifest.Child(plain(of.Object).(map[string]any), "spec")
	template := manifest.Child(spec, "template")
	mark(template, id, b.Key.Name, b.Hash)
	manifest.Ensure(manifest.Ensure(spec, "selector"), "matchLabels")[LabelHash] = b.Hash
	delete(spec, "replicas")
	labels := maps.Clone(manifest.Child(template, "metadata", "labels"))
	delete(labels, traffic.LabelSubset)
	labels[LabelWorkload] = short(nil, live.Workload)
	annotations := map[string]any{AnnotationWorkload: live.Workload, AnnotationNumber: strconv.Itoa(live.Number), AnnotationBaselineOf: b.Of.Name}
	if live.Commit != "" {
		annotations[AnnotationCommit] = live.Commit
	}
	set, err := manifest.FromMap(owned(map[string]any{"apiVersion": "apps/v1", "kind": "ReplicaSet", "spec": spec,
		"metadata": map[string]any{"name": b.Key.Name, "namespace": b.Key.Namespace, "labels": labels, "annotations": annotations}}, id), b.Of.String())
	if err != nil {
		return fmt.Errorf("%s: %w", b.Key, err)
	}
	workload := manifest.Key{Group: "apps", Kind: "Deployment", Namespace: b.Of.Namespace, Name: live.Workload}
	if _, _, err := c.create(ctx, id, Revision{Workload: workload, ReplicaSet: set}, 0); err != nil {
		return c.failure(b.Key, err)
	}
	return nil
}
