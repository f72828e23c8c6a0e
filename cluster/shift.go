package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// Shift lets autoscalers rest, turns Services to the revisions that an action selects, divides traffic, makes baselines, sets the counts of revisions, then
// aims autoscalers, each as it was read just before: what somebody changes in between is Trouble, and so is a write of ours that arrives late. A revision that is not there, and shall have no pods, is no failure.
func (c *Client) Shift(ctx context.Context, id rollout.Identity, a rollout.Action) rollout.Outcome {
	if failure := c.aimAll(ctx, a.Aim, true); failure != nil {
		return rollout.Outcome{Failure: failure}
	}
	turns := make([]job, len(a.Select))
	for i, s := range a.Select {
		turns[i] = func() ([]rollout.Live, error) { return nil, c.aim(ctx, s) }
	}
	if _, failure := c.all(turns); failure != nil {
		return rollout.Outcome{Failure: failure}
	}
	if failure := c.divide(ctx, id, a.Divide); failure != nil {
		return rollout.Outcome{Failure: failure}
	}
	if failure := c.baselines(ctx, id, a.Baselines); failure != nil {
		return rollout.Outcome{Failure: failure}
	}
	scales := make([]job, len(a.Replicas))
	for i, r := range a.Replicas {
		scales[i] = func() ([]rollout.Live, error) { return c.scale(ctx, id, r.Key, a.Replicas) }
	}
	lives, failure := c.all(scales)
	if failure == nil {
		failure = c.aimAll(ctx, a.Aim, false)
	}
	return rollout.Outcome{Live: lives, Failure: failure}
}

// scale gives a revision the count that replicas say; one that they do not name stays as it is.
func (c *Client) scale(ctx context.Context, id rollout.Identity, key manifest.Key, replicas []rollout.Replicas) ([]rollout.Live, error) {
	set, err := c.get(ctx, key)
	i := slices.IndexFunc(replicas, func(r rollout.Replicas) bool { return r.Key == key })
	switch {
	case err != nil:
		return nil, c.failure(key, err)
	case set == nil && (i < 0 || replicas[i].Count == 0):
		return nil, nil
	case set == nil:
		return nil, &rollout.Failure{Class: rollout.Refused, Object: key, Text: fmt.Sprintf("it is not there, so it cannot have %d pods", replicas[i].Count)}
	}
	if err := notOurs(id, key, set); err != nil {
		return nil, err
	}
	live, changes := judge(key, set), relabel(id, set)
	if i >= 0 && live.Replicas != replicas[i].Count {
		changes = append(changes, toCount(replicas[i].Count))
	}
	if len(changes) == 0 {
		return []rollout.Live{live}, nil
	}
	workload := manifest.Key{Group: "apps", Kind: "Deployment", Namespace: key.Namespace, Name: live.Workload}
	set, err = c.change(ctx, workload, set, changes)
	if err != nil {
		return nil, c.failure(key, err)
	}
	c.prints.note(key, set)
	return []rollout.Live{judge(key, set)}, nil
}

// aim makes a Service send its traffic to one revision only. It is changed as it was read, so that a late write of ours is a conflict.
func (c *Client) aim(ctx context.Context, s rollout.Selection) error {
	service, err := c.get(ctx, s.Service)
	switch {
	case err != nil:
		return c.failure(s.Service, err)
	case service == nil:
		return &rollout.Failure{Class: rollout.Refused, Object: s.Service, Text: "it is not there, so no traffic can be turned by it"}
	}
	selector, _, _ := unstructured.NestedStringMap(service.Object, "spec", "selector")
	if len(selector) == 0 {
		return &rollout.Failure{Class: rollout.Refused, Object: s.Service, Text: "it has no selector, so no traffic can be turned by it"}
	}
	if selector[LabelHash] == s.Hash {
		return nil
	}
	text, err := json.Marshal([]operation{{"test", "/metadata/resourceVersion", service.GetResourceVersion()}, {"add", "/spec/selector/" + LabelHash, s.Hash}})
	if err != nil {
		return err
	}
	resource, _, err := c.resource(ctx, s.Service, "v1")
	if err != nil {
		return c.failure(s.Service, err)
	}
	turned, err := write(ctx, c, "turn "+s.Service.String(), func(ctx context.Context) (*unstructured.Unstructured, error) {
		return resource.Patch(ctx, s.Service.Name, types.JSONPatchType, text, metav1.PatchOptions{FieldManager: fieldManager})
	})
	var status apierrors.APIStatus
	if errors.As(err, &status) && apierrors.IsInvalid(err) {
		return &rollout.Failure{Class: rollout.Trouble, Object: s.Service, Text: "somebody changed it between the read and the write; it is read again"}
	}
	if err != nil {
		return c.failure(s.Service, err)
	}
	c.prints.note(s.Service, turned)
	return nil
}

// only leaves out what an action does not apply, and puts the selections and divisions of an action into the objects that come with the manifests.
func (r Revised) only(a rollout.Action) (Revised, error) {
	var out Revised
	for _, o := range r.Plain {
		if slices.Contains(a.Leave, o.Key) || len(a.Only) > 0 && !slices.Contains(a.Only, o.Key) {
			continue
		}
		if i := slices.IndexFunc(a.Select, func(s rollout.Selection) bool { return s.Service == o.Key }); i >= 0 {
			fields := o.Map()
			manifest.Ensure(manifest.Ensure(fields, "spec"), "selector")[LabelHash] = a.Select[i].Hash
			selected, err := manifest.FromMap(fields, o.Source)
			if err != nil {
				return out, err
			}
			o = selected
		}
		o, err := divided(o, a.Divide)
		if err != nil {
			return out, err
		}
		if o, err = aimed(o, a.Aim); err != nil {
			return out, err
		}
		out.Plain = append(out.Plain, o)
	}
	for _, revision := range r.Revisions {
		if len(a.Only) == 0 || slices.Contains(a.Only, revision.Workload) {
			out.Revisions = append(out.Revisions, revision)
		}
	}
	return out, nil
}

// others is the selections of Services that do not come with the manifests.
func (r Revised) others(all []rollout.Selection) []rollout.Selection {
	return slices.DeleteFunc(slices.Clone(all), func(s rollout.Selection) bool {
		return slices.ContainsFunc(r.Plain, func(o manifest.Object) bool { return o.Key == s.Service })
	})
}
