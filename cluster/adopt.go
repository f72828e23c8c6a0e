package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// AnnotationStandsFor names, on an adopted ReplicaSet, the revision of ours that has the same pods: it is that revision.
const AnnotationStandsFor = "towpath.dev/stands-for"

// Adopt makes the ReplicaSets of running Deployment objects revisions of the target, under their own names and with their pods, and then removes the
// Deployment objects alone. Objects is the manifests that come next: a ReplicaSet whose pods are as theirs would be is marked as that very revision.
func (c *Client) Adopt(ctx context.Context, id rollout.Identity, objects []manifest.Object, a rollout.Action) rollout.Outcome {
	revised, err := c.reviser.Revise(id, objects)
	if err != nil {
		return rollout.Outcome{Failure: &rollout.Failure{Class: rollout.Refused, Text: err.Error()}}
	}
	jobs := make([]job, len(a.Workloads))
	for i, key := range a.Workloads {
		jobs[i] = func() ([]rollout.Live, error) { return nil, c.adopt(ctx, id, key, objects, revised) }
	}
	_, failure := c.all(jobs)
	return rollout.Outcome{Failure: failure}
}

func (c *Client) adopt(ctx context.Context, id rollout.Identity, key manifest.Key, objects []manifest.Object, revised Revised) error {
	deployment, err := c.get(ctx, key)
	if err != nil || deployment == nil {
		return c.orNil(key, err)
	}
	sets, err := c.setsOf(ctx, deployment)
	if err != nil {
		return c.failure(key, err)
	}
	for i := range sets {
		standsFor := ""
		if wanted, _, _ := unstructured.NestedInt64(sets[i].Object, "spec", "replicas"); wanted > 0 {
			if standsFor, err = c.standsFor(ctx, key, &sets[i], objects, revised); err != nil {
				return c.failure(key, err)
			}
		}
		if err := c.take(ctx, id, key, &sets[i], standsFor); err != nil {
			return err
		}
	}
	resource, _, err := c.resource(ctx, key, "v1")
	if err != nil {
		return c.failure(key, err)
	}
	orphan, uid := metav1.DeletePropagationOrphan, deployment.GetUID()
	_, err = write(ctx, c, "adopt "+key.String(), func(ctx context.Context) (struct{}, error) {
		return struct{}{}, resource.Delete(ctx, key.Name, metav1.DeleteOptions{PropagationPolicy: &orphan, Preconditions: &metav1.Preconditions{UID: &uid}})
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return c.failure(key, err)
	}
	return c.orphaned(ctx, key)
}

func (c *Client) orNil(key manifest.Key, err error) error {
	if err == nil {
		return nil
	}
	return c.failure(key, err)
}

// orphaned is Trouble while the Deployment object is still there: its ReplicaSets are let go by the cluster first, which takes a moment.
func (c *Client) orphaned(ctx context.Context, key manifest.Key) error {
	left, err := c.get(ctx, key)
	if err != nil {
		return c.failure(key, err)
	}
	if left != nil {
		return &rollout.Failure{Class: rollout.Trouble, Object: key, Text: "it is on its way out, and its ReplicaSets stay"}
	}
	return nil
}

// setsOf is the ReplicaSets that a Deployment object controls.
func (c *Client) setsOf(ctx context.Context, deployment *unstructured.Unstructured) ([]unstructured.Unstructured, error) {
	kind := replicaSetKind
	kind.Namespace = deployment.GetNamespace()
	selector, _, err := unstructured.NestedMap(deployment.Object, "spec", "selector")
	if err != nil {
		return nil, err
	}
	text, err := selectorText(selector)
	if err != nil {
		return nil, err
	}
	list, err := c.list(ctx, kind, text, 0)
	return slices.DeleteFunc(list, func(set unstructured.Unstructured) bool {
		owner := metav1.GetControllerOf(&set)
		return owner == nil || owner.UID != deployment.GetUID()
	}), err
}

func selectorText(fields map[string]any) (string, error) {
	text, err := json.Marshal(fields)
	if err != nil {
		return "", err
	}
	var selector metav1.LabelSelector
	if err := json.Unmarshal(text, &selector); err != nil {
		return "", err
	}
	parsed, err := metav1.LabelSelectorAsSelector(&selector)
	return parsed.String(), err
}

// take marks a ReplicaSet as a revision of the target; its pods stay as they are.
func (c *Client) take(ctx context.Context, id rollout.Identity, workload manifest.Key, set *unstructured.Unstructured, standsFor string) error {
	key := replicaSetKind
	key.Namespace, key.Name = set.GetNamespace(), set.GetName()
	labels := map[string]any{LabelLane: LaneLabel(id), LabelWorkload: short(nil, workload.Name)}
	annotations := map[string]any{AnnotationTenant: id.Tenant, AnnotationApplication: id.Application, AnnotationTarget: id.Target, AnnotationWorkload: workload.Name}
	if set.GetAnnotations()[AnnotationNumber] == "" {
		annotations[AnnotationNumber] = "0"
	}
	if standsFor != "" && standsFor != key.Name {
		annotations[AnnotationStandsFor] = standsFor
	}
	text, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": set.GetUID(), "labels": labels, "annotations": annotations}})
	if err != nil {
		return err
	}
	resource, _, err := c.resource(ctx, key, "v1")
	if err != nil {
		return c.failure(key, err)
	}
	_, err = write(ctx, c, "take revision of "+workload.String(), func(ctx context.Context) (*unstructured.Unstructured, error) {
		return resource.Patch(ctx, key.Name, types.MergePatchType, text, metav1.PatchOptions{FieldManager: fieldManager})
	})
	if err != nil {
		return c.failure(key, err)
	}
	return nil
}

// standsFor is the name of the revision whose pods are those of a ReplicaSet; "" when the manifests would have others. The API server itself says what
// the manifests' pods would be with its defaults filled in.
func (c *Client) standsFor(ctx context.Context, workload manifest.Key, set *unstructured.Unstructured, objects []manifest.Object, revised Revised) (string, error) {
	source := slices.IndexFunc(objects, func(o manifest.Object) bool { return o.Key == workload })
	made := slices.IndexFunc(revised.Revisions, func(r Revision) bool { return r.Workload == workload })
	if source < 0 || made < 0 {
		return "", nil
	}
	name := revised.Revisions[made].ReplicaSet.Name
	if name == set.GetName() {
		return name, nil
	}
	spec := manifest.Child(plain(objects[source].Map()).(map[string]any), "spec")
	probe := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "apps/v1", "kind": "ReplicaSet",
		"metadata": map[string]any{"name": name, "namespace": orDefault(workload.Namespace)}, "spec": map[string]any{"replicas": int64(0), "selector": spec["selector"], "template": spec["template"]}}}
	key := replicaSetKind
	key.Namespace, key.Name = workload.Namespace, name
	resource, _, err := c.resource(ctx, key, "v1")
	if err != nil {
		return "", err
	}
	filled, err := request(ctx, c, func(ctx context.Context) (*unstructured.Unstructured, error) {
		return resource.Create(ctx, probe, metav1.CreateOptions{FieldManager: fieldManager, DryRun: []string{metav1.DryRunAll}})
	})
	switch {
	case apierrors.IsAlreadyExists(err):
		return "", nil
	case err != nil:
		return "", err
	case samePods(filled, set):
		return name, nil
	}
	return "", nil
}

// samePods compares pod templates as a Deployment object's controller does: the hash of a revision aside.
func samePods(a, b *unstructured.Unstructured) bool {
	return apiequality.Semantic.DeepEqual(bareTemplate(a), bareTemplate(b))
}

func bareTemplate(set *unstructured.Unstructured) map[string]any {
	template, _, _ := unstructured.NestedMap(set.Object, "spec", "template")
	delete(manifest.Child(template, "metadata", "labels"), LabelHash)
	delete(manifest.Child(template, "metadata"), "creationTimestamp")
	return template
}

// PutBack makes Deployment objects that adopt the revisions of a set as they run, so that no pod restarts: their pods are those of the revisions. Each is
// paused until it has adopted its revision: a controller that has not seen the revision yet would make another. Then it is what its autoscaler scales.
func (c *Client) PutBack(ctx context.Context, id rollout.Identity, objects []manifest.Object, a rollout.Action) rollout.Outcome {
	revised, err := c.reviser.Revise(id, objects)
	if err != nil {
		return rollout.Outcome{Failure: &rollout.Failure{Class: rollout.Refused, Text: err.Error()}}
	}
	var jobs []job
	for _, r := range revised.Revisions {
		if i := slices.IndexFunc(objects, func(o manifest.Object) bool { return o.Key == r.Workload }); i >= 0 && slices.Contains(a.Workloads, r.Workload) {
			jobs = append(jobs, func() ([]rollout.Live, error) {
				lives, err := c.putBack(ctx, id, objects[i], r, a.StandIns)
				for _, aim := range a.Aim {
					if err == nil && aim.At == r.Workload {
						err = c.aimScaler(ctx, aim)
					}
				}
				return lives, err
			})
		}
	}
	lives, failure := c.all(jobs)
	return rollout.Outcome{Live: lives, Failure: failure}
}

func (c *Client) putBack(ctx context.Context, id rollout.Identity, o manifest.Object, r Revision, standIns []rollout.StandIn) ([]rollout.Live, error) {
	key := r.ReplicaSet.Key
	if i := slices.IndexFunc(standIns, func(s rollout.StandIn) bool { return s.For == key }); i >= 0 {
		key = standIns[i].Is
	}
	set, err := c.get(ctx, key)
	if err != nil {
		return nil, c.failure(key, err)
	}
	if set == nil {
		return nil, &rollout.Failure{Class: rollout.Refused, Object: o.Key, Text: fmt.Sprintf("it cannot be put back: %s, which it would adopt, is not there", key)}
	}
	fields := owned(plain(o.Map()).(map[string]any), id)
	spec := manifest.Child(fields, "spec")
	spec["template"] = bareTemplate(set)
	spec["replicas"], _, _ = unstructured.NestedInt64(set.Object, "spec", "replicas")
	delete(manifest.Child(fields, "metadata", "annotations"), "kubectl.kubernetes.io/last-applied-configuration")
	paused, asWritten := spec["paused"]
	spec["paused"] = true
	applied, err := c.putBackAs(ctx, o, fields)
	if err != nil {
		return nil, err
	}
	if err := c.adopted(ctx, key, applied); err != nil {
		return nil, err
	}
	if spec["paused"] = paused; !asWritten {
		delete(spec, "paused")
	}
	if applied, err = c.putBackAs(ctx, o, fields); err != nil {
		return nil, err
	}
	return []rollout.Live{judge(o.Key, applied)}, nil
}

func (c *Client) putBackAs(ctx context.Context, o manifest.Object, fields map[string]any) (*unstructured.Unstructured, error) {
	kept, err := manifest.FromMap(fields, o.Source)
	if err != nil {
		return nil, err
	}
	applied, err := c.patch(ctx, kept, "put back "+o.Key.String())
	if err != nil {
		return nil, c.failure(o.Key, err)
	}
	return applied, nil
}

// adopted waits a moment until a Deployment object controls a ReplicaSet; Trouble when that takes longer.
func (c *Client) adopted(ctx context.Context, key manifest.Key, deployment *unstructured.Unstructured) error {
	const looks, every = 20, 50 * time.Millisecond
	for range looks {
		set, err := c.get(ctx, key)
		if err != nil {
			return c.failure(key, err)
		}
		if set == nil {
			return &rollout.Failure{Class: rollout.Refused, Object: key, Text: "it went while its Deployment object was put back"}
		}
		if owner := metav1.GetControllerOf(set); owner != nil && owner.UID == deployment.GetUID() {
			return nil
		}
		select {
		case <-ctx.Done():
			return c.failure(key, ctx.Err())
		case <-time.After(every):
		}
	}
	return &rollout.Failure{Class: rollout.Trouble, Object: key, Text: "its Deployment object has not adopted it yet"}
}

// found reports whether an object was in the cluster before the apply that answered with it: somebody else, and no part of Kubernetes, had fields of it
// by then.
func found(object *unstructured.Unstructured) bool {
	fields := object.GetManagedFields()
	ours := slices.IndexFunc(fields, func(m metav1.ManagedFieldsEntry) bool {
		return m.Manager == fieldManager && m.Operation == metav1.ManagedFieldsOperationApply && m.Subresource == ""
	})
	return ours >= 0 && slices.ContainsFunc(fields, func(m metav1.ManagedFieldsEntry) bool {
		return m.Manager != fieldManager && m.Subresource == "" && !strings.HasPrefix(m.Manager, "kube-") && m.Time != nil && !m.Time.After(fields[ours].Time.Time)
	})
}
