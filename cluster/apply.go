package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"towpath/internal/crash"
	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// Apply brings a target's manifests about, rank by rank, many objects at once inside a rank. A rank that fails is the last one. The outcome holds the
// cluster's answer for each object that was written.
func (c *Client) Apply(ctx context.Context, id rollout.Identity, objects []manifest.Object, replicas []rollout.Replicas) rollout.Outcome {
	revised, err := c.reviser.Revise(id, objects)
	if err != nil {
		return rollout.Outcome{Failure: &rollout.Failure{Class: rollout.Refused, Text: err.Error()}}
	}
	var out rollout.Outcome
	for rank := range manifest.RankDependent + 1 {
		var jobs []func() ([]rollout.Live, error)
		for _, o := range revised.Plain {
			if o.Rank() == rank {
				jobs = append(jobs, func() ([]rollout.Live, error) { return c.applyOne(ctx, o) })
			}
		}
		if rank == manifest.RankWorkload {
			for _, revision := range revised.Revisions {
				jobs = append(jobs, func() ([]rollout.Live, error) { return c.applyRevision(ctx, revision, replicas) })
			}
		}
		lives, failure := c.all(jobs)
		out.Live = append(out.Live, lives...)
		if failure != nil {
			out.Failure = failure
			return out
		}
		if rank == manifest.RankDefinition && len(jobs) > 0 {
			c.forget()
		}
	}
	return out
}

// all runs jobs at once, in the cluster's slots, and returns what they brought in their order. The first failure in that order is the one to tell;
// one that would not be different next time comes before one that might.
func (c *Client) all(jobs []func() ([]rollout.Live, error)) ([]rollout.Live, *rollout.Failure) {
	lives, failures := make([][]rollout.Live, len(jobs)), make([]error, len(jobs))
	if len(jobs) == 1 {
		lives[0], failures[0] = jobs[0]()
	} else {
		var running sync.WaitGroup
		for i, job := range jobs {
			running.Go(func() { lives[i], failures[i] = job() })
		}
		running.Wait()
	}
	var worst *rollout.Failure
	for _, err := range failures {
		if err == nil {
			continue
		}
		f := c.failure(manifest.Key{}, err)
		if worst == nil || f.Class == rollout.Refused && worst.Class != rollout.Refused {
			worst = f
		}
	}
	return slices.Concat(lives...), worst
}

// request runs one call to the cluster in one of its slots, within its time.
func (c *Client) request(ctx context.Context, key manifest.Key, call func(context.Context) (*unstructured.Unstructured, error)) (*unstructured.Unstructured, error) {
	release, err := c.slot(ctx)
	if err != nil {
		return nil, c.failure(key, err)
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	object, err := call(ctx)
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsAlreadyExists(err) {
		return nil, c.failure(key, err)
	}
	return object, err
}

// write is a request that changes something; tests may kill the process before and after it.
func (c *Client) write(ctx context.Context, what string, key manifest.Key, call func(context.Context) (*unstructured.Unstructured, error)) (*unstructured.Unstructured, error) {
	crash.Point("before " + what + " " + key.String())
	object, err := c.request(ctx, key, call)
	crash.Point("after " + what + " " + key.String())
	return object, err
}

func (c *Client) applyOne(ctx context.Context, o manifest.Object) ([]rollout.Live, error) {
	resource, err := c.resource(o.Key, o.Version)
	if err != nil {
		return nil, c.failure(o.Key, err)
	}
	force := true
	applied, err := c.write(ctx, "apply", o.Key, func(ctx context.Context) (*unstructured.Unstructured, error) {
		return resource.Patch(ctx, o.Name, types.ApplyPatchType, o.JSON, metav1.PatchOptions{FieldManager: fieldManager, Force: &force})
	})
	if err != nil {
		return nil, c.failure(o.Key, err)
	}
	live := judge(o.Key, applied)
	if o.Rank() == manifest.RankDefinition {
		if live, err = c.established(ctx, o, live); err != nil {
			return nil, err
		}
	}
	return []rollout.Live{live}, nil
}

// established waits until the API server serves a CustomResourceDefinition: what is applied next may be of its kind.
func (c *Client) established(ctx context.Context, o manifest.Object, live rollout.Live) (rollout.Live, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	for pause := 20 * time.Millisecond; live.Health != rollout.Healthy; pause = min(2*pause, time.Second) {
		select {
		case <-ctx.Done():
			return live, &rollout.Failure{Class: rollout.Trouble, Object: o.Key, Text: "not established yet: " + live.Message}
		case <-time.After(pause):
		}
		lives, err := c.read(ctx, []manifest.Key{o.Key}, "")
		if err != nil {
			return live, err
		}
		live = lives[0]
	}
	return live, nil
}

// applyRevision creates a revision, or finds it as an earlier run created it, and gives it its count. Its configuration is there before its pods.
func (c *Client) applyRevision(ctx context.Context, r Revision, replicas []rollout.Replicas) ([]rollout.Live, error) {
	key := r.ReplicaSet.Key
	count := int32(1)
	if i := slices.IndexFunc(replicas, func(n rollout.Replicas) bool { return n.Key == key }); i >= 0 {
		count = replicas[i].Count
	}
	at := count
	if len(r.Copies) > 0 {
		at = 0
	}
	set, err := c.create(ctx, r.ReplicaSet, func(fields map[string]any) { ensure(fields, "spec")["replicas"] = int64(at) })
	if err != nil {
		return nil, err
	}
	for _, copied := range r.Copies {
		if _, err := c.create(ctx, copied, func(fields map[string]any) {
			ensure(fields, "metadata")["ownerReferences"] = []any{map[string]any{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": key.Name, "uid": string(set.GetUID())}}
		}); err != nil {
			return nil, err
		}
	}
	if set, err = c.scale(ctx, key, set, count); err != nil {
		return nil, err
	}
	if set == nil {
		return nil, &rollout.Failure{Class: rollout.Trouble, Object: key, Text: "it was removed while it was made"}
	}
	return []rollout.Live{judge(key, set)}, nil
}

// create makes an object, or returns it as it is there already: a revision and its copies never change once they were made.
func (c *Client) create(ctx context.Context, o manifest.Object, complete func(map[string]any)) (*unstructured.Unstructured, error) {
	resource, err := c.resource(o.Key, o.Version)
	if err != nil {
		return nil, c.failure(o.Key, err)
	}
	fields := plain(o.Map()).(map[string]any)
	complete(fields)
	made, err := c.write(ctx, "create", o.Key, func(ctx context.Context) (*unstructured.Unstructured, error) {
		return resource.Create(ctx, &unstructured.Unstructured{Object: fields}, metav1.CreateOptions{FieldManager: fieldManager})
	})
	if !apierrors.IsAlreadyExists(err) {
		if err != nil {
			return nil, c.failure(o.Key, err)
		}
		return made, nil
	}
	there, err := c.request(ctx, o.Key, func(ctx context.Context) (*unstructured.Unstructured, error) {
		return resource.Get(ctx, o.Name, metav1.GetOptions{})
	})
	if apierrors.IsNotFound(err) {
		return nil, &rollout.Failure{Class: rollout.Trouble, Object: o.Key, Text: "it was removed while it was made"}
	}
	if err != nil {
		return nil, c.failure(o.Key, err)
	}
	if lane := o.Map()["metadata"].(map[string]any)["labels"].(map[string]any)[LabelLane]; there.GetLabels()[LabelLane] != lane {
		return nil, &rollout.Failure{Class: rollout.Refused, Object: o.Key, Text: "an object of this name is there and is not of this application and target"}
	}
	return there, nil
}

// plain turns numbers of JSON into what unstructured objects may hold.
func plain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, inner := range v {
			v[name] = plain(inner)
		}
	case []any:
		for i, inner := range v {
			v[i] = plain(inner)
		}
	case json.Number:
		if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return n
		}
		n, _ := v.Float64()
		return n
	}
	return v
}

// scaleTries is how often a count is set anew after somebody else changed the object in between: its controller does so all the time.
const scaleTries = 5

// scale sets the count of a ReplicaSet as it was read: a late write of ours, of a run that lost its lease, is a conflict and not a change. read is
// nil when it is to be read first; a ReplicaSet that is not there is nil.
func (c *Client) scale(ctx context.Context, key manifest.Key, read *unstructured.Unstructured, count int32) (*unstructured.Unstructured, error) {
	resource, err := c.resource(key, "v1")
	if err != nil {
		return nil, c.failure(key, err)
	}
	for try := 1; ; try++ {
		if read == nil {
			read, err = c.request(ctx, key, func(ctx context.Context) (*unstructured.Unstructured, error) { return resource.Get(ctx, key.Name, metav1.GetOptions{}) })
			if apierrors.IsNotFound(err) {
				return nil, nil
			}
			if err != nil {
				return nil, c.failure(key, err)
			}
		}
		if wanted, found, _ := unstructured.NestedInt64(read.Object, "spec", "replicas"); found && wanted == int64(count) {
			return read, nil
		}
		patch := fmt.Sprintf(`{"metadata":{"resourceVersion":%q},"spec":{"replicas":%d}}`, read.GetResourceVersion(), count)
		conflict := false
		set, err := c.write(ctx, "scale", key, func(ctx context.Context) (*unstructured.Unstructured, error) {
			set, err := resource.Patch(ctx, key.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: fieldManager})
			conflict = apierrors.IsConflict(err)
			return set, err
		})
		if !conflict || try == scaleTries {
			if err != nil {
				return nil, c.failure(key, err)
			}
			return set, nil
		}
		read = nil
	}
}

// Scale sets the counts of revisions. One that is not there, and shall have none, is no failure.
func (c *Client) Scale(ctx context.Context, _ rollout.Identity, replicas []rollout.Replicas) rollout.Outcome {
	jobs := make([]func() ([]rollout.Live, error), len(replicas))
	for i, r := range replicas {
		jobs[i] = func() ([]rollout.Live, error) { return c.scaleOne(ctx, r) }
	}
	lives, failure := c.all(jobs)
	return rollout.Outcome{Live: lives, Failure: failure}
}

func (c *Client) scaleOne(ctx context.Context, r rollout.Replicas) ([]rollout.Live, error) {
	set, err := c.scale(ctx, r.Key, nil, r.Count)
	switch {
	case err != nil:
		return nil, err
	case set == nil && r.Count > 0:
		return nil, &rollout.Failure{Class: rollout.Refused, Object: r.Key, Text: "it is not there any more"}
	case set == nil:
		return nil, nil
	}
	return []rollout.Live{judge(r.Key, set)}, nil
}

// Remove removes objects in reverse ranks, but only those that carry the target's label, and only the very objects that were read. What is not there
// is done. The key of a Deployment object stands for all its revisions.
func (c *Client) Remove(ctx context.Context, id rollout.Identity, keys []manifest.Key) rollout.Outcome {
	for rank := manifest.RankDependent; rank >= 0; rank-- {
		var jobs []func() ([]rollout.Live, error)
		for _, key := range keys {
			if key.Rank() == rank {
				jobs = append(jobs, func() ([]rollout.Live, error) { return nil, c.removeOne(ctx, id, key) })
			}
		}
		if _, failure := c.all(jobs); failure != nil {
			return rollout.Outcome{Failure: failure}
		}
	}
	return rollout.Outcome{}
}

func (c *Client) removeOne(ctx context.Context, id rollout.Identity, key manifest.Key) error {
	if key.Group == "apps" && key.Kind == "Deployment" {
		return c.removeRevisions(ctx, id, key)
	}
	resource, err := c.resource(key, "")
	if err != nil {
		if f := c.failure(key, err); f.Class != rollout.Refused {
			return f
		}
		return nil // a kind that the cluster no longer serves has no objects
	}
	object, err := c.request(ctx, key, func(ctx context.Context) (*unstructured.Unstructured, error) {
		return resource.Get(ctx, key.Name, metav1.GetOptions{})
	})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return c.failure(key, err)
	case object.GetLabels()[LabelLane] != LaneLabel(id), object.GetDeletionTimestamp() != nil:
		return nil // somebody else's by now, or on its way
	}
	return c.delete(ctx, key, object.GetUID())
}

func (c *Client) delete(ctx context.Context, key manifest.Key, uid types.UID) error {
	resource, err := c.resource(key, "")
	if err != nil {
		return c.failure(key, err)
	}
	background := metav1.DeletePropagationBackground
	_, err = c.write(ctx, "delete", key, func(ctx context.Context) (*unstructured.Unstructured, error) {
		return nil, resource.Delete(ctx, key.Name, metav1.DeleteOptions{PropagationPolicy: &background, Preconditions: &metav1.Preconditions{UID: &uid}})
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return c.failure(key, err)
	}
	return nil
}

func (c *Client) removeRevisions(ctx context.Context, id rollout.Identity, workload manifest.Key) error {
	sets, err := c.listRevisions(ctx, id, workload.Namespace)
	if err != nil {
		return err
	}
	for _, set := range sets {
		if set.Workload == workload.Name {
			if err := c.delete(ctx, set.Key, types.UID(set.UID)); err != nil {
				return err
			}
		}
	}
	return nil
}
