package cluster

import (
	"context"
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// Remove removes objects in reverse ranks, many at once inside a rank, but only those that carry the target's label, or are revisions of it whose label was
// taken away, and only the very objects that were read. What is not there is done, and so is what belongs to somebody else by now. The key of a Deployment object stands for all its revisions, too; their
// configuration copies, and whatever else an object owns, go in the background. Remove returns once the cluster has taken the removals; an object with
// finalizers, and a Job with pods, may stay for longer.
func (c *Client) Remove(ctx context.Context, id rollout.Identity, keys []manifest.Key) rollout.Outcome {
	for rank := manifest.RankDependent; rank >= 0; rank-- {
		var workloads, others []manifest.Key
		for _, key := range keys {
			switch {
			case key.Rank() != rank:
			case key.Group == "apps" && key.Kind == "Deployment":
				workloads, others = append(workloads, key), append(others, key) // one that was put back would make its revisions anew
			default:
				others = append(others, key)
			}
		}
		found, failure := c.revisionsOf(ctx, id, workloads)
		if failure != nil {
			return rollout.Outcome{Failure: failure}
		}
		objects, failure := c.removable(ctx, id, others)
		if failure != nil {
			return rollout.Outcome{Failure: failure}
		}
		var jobs []job
		for _, o := range append(found, objects...) {
			jobs = append(jobs, func() ([]rollout.Live, error) { return nil, c.delete(ctx, o) })
		}
		if _, failure := c.all(jobs); failure != nil {
			return rollout.Outcome{Failure: failure}
		}
	}
	return rollout.Outcome{}
}

// removal is one object that may be removed.
type removal struct {
	key     manifest.Key
	uid     types.UID
	name    string // of a crash point
	version string // of a pod: it goes only as it was read, since it may have become ready meanwhile; "": whatever it is by now
}

// removable reads which of the keys are there and are the target's.
func (c *Client) removable(ctx context.Context, id rollout.Identity, keys []manifest.Key) ([]removal, *rollout.Failure) {
	var served []manifest.Key
	for _, key := range keys {
		switch _, err := c.kinds.mapping(ctx, key, ""); {
		case errors.Is(err, errNotServed): // a kind that the cluster no longer serves has no objects
		case err != nil:
			return nil, c.failure(key, err)
		default:
			served = append(served, key)
		}
	}
	objects, err := c.fetch(ctx, served, LaneLabel(id))
	if err != nil {
		return nil, c.failure(manifest.Key{}, err)
	}
	var all []removal
	for i, object := range objects {
		if object == nil || object.GetDeletionTimestamp() != nil || object.GetLabels()[LabelLane] != LaneLabel(id) && !lost(id, object) {
			continue
		}
		name := served[i].String()
		if workload := object.GetAnnotations()[AnnotationWorkload]; workload != "" {
			name = "revision of Deployment.apps " + served[i].Namespace + "/" + workload
		}
		all = append(all, removal{key: served[i], uid: object.GetUID(), name: name})
	}
	return all, nil
}

// revisionsOf reads the revisions of Deployment objects.
func (c *Client) revisionsOf(ctx context.Context, id rollout.Identity, workloads []manifest.Key) ([]removal, *rollout.Failure) {
	var all []removal
	for namespace, places := range byKind(workloads) {
		sets, failure := c.all(c.revisions(ctx, id, namespace.Namespace))
		if failure != nil {
			return nil, failure
		}
		for _, i := range places {
			for _, set := range sets {
				if set.Workload == workloads[i].Name {
					all = append(all, removal{key: set.Key, uid: types.UID(set.UID), name: "revision of " + workloads[i].String()})
				}
			}
		}
	}
	return all, nil
}

func (c *Client) delete(ctx context.Context, o removal) error {
	resource, _, err := c.resource(ctx, o.key, "")
	if err != nil {
		return c.failure(o.key, err)
	}
	with, conditions := metav1.DeletePropagationBackground, metav1.Preconditions{UID: &o.uid}
	if o.key.Group == "batch" && o.key.Kind == "Job" {
		with = metav1.DeletePropagationForeground // as long as its pods are there it is, so that nobody takes its work for ended
	}
	if o.version != "" {
		conditions.ResourceVersion = &o.version
	}
	_, err = write(ctx, c, "remove "+o.name, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, resource.Delete(ctx, o.key.Name, metav1.DeleteOptions{PropagationPolicy: &with, Preconditions: &conditions})
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return c.failure(o.key, err)
	}
	return nil
}
