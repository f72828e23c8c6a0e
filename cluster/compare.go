package cluster

import (
	"context"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// Ignored is what is no drift although it differs. Empty fields fit everything; not all may be empty.
type Ignored struct {
	Group, Kind string
	Pointer     string // JSON pointer to a field, and all below it
	Manager     string // field manager that changed it
}

// Compare says which objects of a lane on which nothing runs differ from what was last proved good: those that moved, or all (nil). objects are the release's
// manifests. What the API server would make of them is asked of itself, by a dry run: so defaults, conversions, other managers' fields and injected
// containers are no difference, whoever owns a field is none either, and a field that we apply is one as soon as its value is another. An autoscaler's
// replicas are left to it. Jobs run once, so they are not looked at, nor is the pod template of a revision, which
// is what it was made with.
func (c *Client) Compare(ctx context.Context, k rollout.Kept, objects []manifest.Object, moved []Moved) (compared []manifest.Key, found []rollout.Drift, failure *rollout.Failure) {
	revised, err := c.reviser.Revise(k.Identity, objects)
	if err != nil {
		return nil, nil, &rollout.Failure{Class: rollout.Refused, Text: err.Error()}
	}
	set, err := c.reviser.Names(objects)
	if err != nil {
		return nil, nil, &rollout.Failure{Class: rollout.Refused, Text: err.Error()}
	}
	aims := k.Aims(set)
	if revised, err = revised.only(rollout.Action{Select: k.Selections(), Aim: aims}); err != nil {
		return nil, nil, &rollout.Failure{Class: rollout.Refused, Text: err.Error()}
	}
	drifts := make(chan rollout.Drift, len(revised.Plain)+len(revised.Revisions))
	var jobs []job
	look := func(key, of manifest.Key, compare func() (*rollout.Drift, error)) {
		if !c.concerns(key, moved) {
			return
		}
		compared = append(compared, key)
		jobs = append(jobs, func() ([]rollout.Live, error) {
			drift, err := compare()
			if drift != nil {
				drift.Of = of
				drifts <- *drift
			}
			return nil, err
		})
	}
	for _, o := range revised.Plain {
		if o.Group != "batch" || o.Kind != "Job" {
			scaled := slices.ContainsFunc(set.Scalers, func(s rollout.Scaler) bool { return s.Workload == o.Key })
			look(o.Key, o.Key, func() (*rollout.Drift, error) { return c.compareOne(ctx, k, o, scaled) })
		}
	}
	for _, r := range revised.Revisions {
		r = standing(r, k.Target.StandIns)
		if slices.ContainsFunc(aims, func(a rollout.Aim) bool { return a.At == r.ReplicaSet.Key }) {
			r.Replicas = nil // they are the autoscaler's
		}
		look(r.ReplicaSet.Key, r.Workload, func() (*rollout.Drift, error) { return c.compareRevision(ctx, k, r) })
		for _, copied := range r.Copies {
			look(copied.Key, r.Workload, func() (*rollout.Drift, error) { return c.compareCopy(ctx, copied.Key) })
		}
	}
	_, failure = c.all(jobs)
	close(drifts)
	for drift := range drifts {
		found = append(found, drift)
	}
	slices.SortFunc(found, func(a, b rollout.Drift) int { return a.Key.Compare(b.Key) })
	return compared, found, failure
}

// concerns reports whether an object is among those that moved, and is not known to be as it shall be by now.
func (c *Client) concerns(key manifest.Key, moved []Moved) bool {
	if moved == nil {
		return true
	}
	return slices.ContainsFunc(moved, func(m Moved) bool {
		same := m.Key.Group == key.Group && m.Key.Kind == key.Kind && m.Key.Name == key.Name && (m.Key.Namespace == "" || normal(m.Key) == normal(key))
		return same && (m.print == print{} || !c.prints.is(key, m.print))
	})
}

// standing is a revision under the name of the adopted ReplicaSet that it is.
func standing(r Revision, standIns []rollout.StandIn) Revision {
	if i := slices.IndexFunc(standIns, func(s rollout.StandIn) bool { return s.For == r.ReplicaSet.Key }); i >= 0 {
		r.ReplicaSet.Key, r.Copies = standIns[i].Is, nil
	}
	return r
}

// compareOne compares an object; one that is scaled has as many pods as its autoscaler says.
func (c *Client) compareOne(ctx context.Context, k rollout.Kept, o manifest.Object, scaled bool) (*rollout.Drift, error) {
	live, err := c.getAs(ctx, o.Key, o.Version) // as the dry run will answer: fields have other names in another version
	if err != nil {
		return nil, c.failure(o.Key, err)
	}
	if live == nil {
		return &rollout.Drift{Key: o.Key, Missing: true}, nil
	}
	if live.GetDeletionTimestamp() != nil {
		return nil, nil // its end is seen, too
	}
	if slices.Contains(k.Previews(), o.Key) {
		if o, err = selecting(o, live); err != nil {
			return nil, err
		}
	}
	would, err := c.dryRun(ctx, o)
	if err != nil {
		failure := conceal(o, c.failure(o.Key, err))
		if !apierrors.IsInvalid(err) {
			return nil, failure
		}
		drift := &rollout.Drift{Key: o.Key, Refused: failure.Text}
		drift.By, drift.At = changer(live, nil)
		return drift, nil
	}
	fields := slices.DeleteFunc(c.differences(o.Key, live, would), func(pointer string) bool { return scaled && pointer == "/spec/replicas" })
	if len(fields) == 0 {
		c.prints.note(o.Key, live)
		return nil, nil
	}
	drift := &rollout.Drift{Key: o.Key, Fields: fields}
	drift.By, drift.At = changer(live, fields)
	return drift, nil
}

// selecting is a Service that selects the revision which it selects now.
func selecting(o manifest.Object, live *unstructured.Unstructured) (manifest.Object, error) {
	hash, found, _ := unstructured.NestedString(live.Object, "spec", "selector", LabelHash)
	if !found {
		return o, nil
	}
	fields := o.Map()
	manifest.Ensure(manifest.Ensure(fields, "spec"), "selector")[LabelHash] = hash
	return manifest.FromMap(fields, o.Source)
}

// dryRun is what the cluster would make of an object that is applied.
func (c *Client) dryRun(ctx context.Context, o manifest.Object) (*unstructured.Unstructured, error) {
	resource, text, err := c.applying(ctx, o)
	if err != nil {
		return nil, err
	}
	force := true
	return request(ctx, c, func(ctx context.Context) (*unstructured.Unstructured, error) {
		return resource.Patch(ctx, o.Name, types.ApplyPatchType, text, metav1.PatchOptions{FieldManager: fieldManager, Force: &force, DryRun: []string{metav1.DryRunAll}})
	})
}

func (c *Client) compareRevision(ctx context.Context, k rollout.Kept, r Revision) (*rollout.Drift, error) {
	key := r.ReplicaSet.Key
	live, err := c.get(ctx, key)
	if err != nil {
		return nil, c.failure(key, err)
	}
	if live == nil {
		return &rollout.Drift{Key: key, Missing: true}, nil
	}
	if live.GetLabels()[LabelLane] != LaneLabel(k.Identity) {
		drift := &rollout.Drift{Key: key, Fields: []string{"/metadata/labels/" + pointer.Replace(LabelLane)}}
		drift.By, drift.At = changer(live, drift.Fields)
		return drift, nil
	}
	i := slices.IndexFunc(k.Target.Full, func(n rollout.Replicas) bool { return n.Key == key })
	if has, _, _ := unstructured.NestedInt64(live.Object, "spec", "replicas"); r.Replicas != nil && i >= 0 && has != int64(k.Target.Full[i].Count) {
		drift := &rollout.Drift{Key: key, Fields: []string{"/spec/replicas"}}
		drift.By, drift.At = changer(live, drift.Fields)
		if !scaled(live, drift.Fields[0]) && !c.ignores(key, drift.Fields[0], drift.By) {
			return drift, nil
		}
	}
	c.prints.note(key, live)
	return nil, nil
}

// compareCopy looks whether a configuration copy is there; it cannot be changed.
func (c *Client) compareCopy(ctx context.Context, key manifest.Key) (*rollout.Drift, error) {
	live, err := c.get(ctx, key)
	switch {
	case err != nil:
		return nil, c.failure(key, err)
	case live == nil:
		return &rollout.Drift{Key: key, Missing: true}, nil
	}
	c.prints.note(key, live)
	return nil, nil
}

// differences lists where a live object is another than it would be, but for what is ignored.
func (c *Client) differences(key manifest.Key, live, would *unstructured.Unstructured) []string {
	var all []string
	is, shall := comparable(live.Object), comparable(would.Object)
	differ("", is, shall, &all)
	all = slices.DeleteFunc(all, func(pointer string) bool {
		if scaled(live, pointer) {
			return true
		}
		by, _ := changer(live, []string{pointer})
		return c.ignores(key, pointer, by)
	})
	slices.Sort(all)
	return all[:min(len(all), mostFields)]
}

// mostFields is how many differing places of one object are told.
const mostFields = 50

func (c *Client) ignores(key manifest.Key, pointer, manager string) bool {
	return slices.ContainsFunc(c.ignored, func(i Ignored) bool { return i.fits(key, pointer, manager) })
}

func (i Ignored) fits(key manifest.Key, pointer, manager string) bool {
	return (i.Group == "" || i.Group == key.Group) && (i.Kind == "" || i.Kind == key.Kind) && (i.Manager == "" || i.Manager == manager) &&
		(i.Pointer == "" || pointer == i.Pointer || strings.HasPrefix(pointer, i.Pointer+"/"))
}

// comparable is an object without what the cluster keeps about it.
func comparable(object map[string]any) map[string]any {
	out := maps.Clone(object)
	delete(out, "status")
	meta := map[string]any{}
	for _, name := range []string{"labels", "annotations", "finalizers", "ownerReferences"} {
		if value, found := manifest.Child(object, "metadata")[name]; found {
			meta[name] = value
		}
	}
	if annotations, ok := meta["annotations"].(map[string]any); ok {
		annotations = maps.Clone(annotations)
		maps.DeleteFunc(annotations, func(name string, _ any) bool { return isStatus(name) })
		if meta["annotations"] = annotations; len(annotations) == 0 {
			delete(meta, "annotations")
		}
	}
	out["metadata"] = meta
	return out
}

// isStatus reports whether an annotation is status by another name: a HorizontalPodAutoscaler has it so in autoscaling/v1, another every few seconds.
func isStatus(annotation string) bool {
	return annotation == "autoscaling.alpha.kubernetes.io/conditions" || annotation == "autoscaling.alpha.kubernetes.io/current-metrics"
}

// differ adds a pointer for each place at which two values differ; lists of different lengths differ as a whole.
func differ(at string, is, shall any, all *[]string) {
	switch shall := shall.(type) {
	case map[string]any:
		if is, ok := is.(map[string]any); ok {
			for name := range shall {
				differ(at+"/"+pointer.Replace(name), is[name], shall[name], all)
			}
			for name := range is {
				if _, found := shall[name]; !found {
					*all = append(*all, at+"/"+pointer.Replace(name))
				}
			}
			return
		}
	case []any:
		if is, ok := is.([]any); ok && len(is) == len(shall) {
			for i := range shall {
				differ(at+"/"+strconv.Itoa(i), is[i], shall[i], all)
			}
			return
		}
	}
	if !reflect.DeepEqual(is, shall) {
		*all = append(*all, at)
	}
}

// scaler is who writes through the subresource scale for HorizontalPodAutoscalers, of which those of KEDA are some. What a person writes through it is drift.
const scaler = "kube-controller-manager"

// scaled reports whether a field was last written by an autoscaler.
func scaled(live *unstructured.Unstructured, pointer string) bool {
	return slices.ContainsFunc(live.GetManagedFields(), func(m metav1.ManagedFieldsEntry) bool {
		return m.Subresource == "scale" && m.Manager == scaler && owns(m, pointer)
	})
}

// changer is who changed fields of an object, and when: of those who own one of them and are not us, the last one; where nobody does, whoever last changed
// anything. The cluster does not keep who took a field away.
func changer(live *unstructured.Unstructured, fields []string) (manager string, at time.Time) {
	var owner, anybody *metav1.ManagedFieldsEntry
	entries := live.GetManagedFields()
	later := func(a, b *metav1.ManagedFieldsEntry) bool {
		return b == nil || b.Time == nil || a.Time != nil && a.Time.After(b.Time.Time)
	}
	for i := range entries {
		m := &entries[i]
		if m.Subresource == "status" || m.Manager == fieldManager {
			continue
		}
		if later(m, anybody) {
			anybody = m
		}
		if slices.ContainsFunc(fields, func(f string) bool { return owns(*m, f) }) && later(m, owner) {
			owner = m
		}
	}
	if owner == nil {
		owner = anybody
	}
	switch {
	case owner == nil:
		return "", at
	case owner.Time != nil:
		at = owner.Time.UTC()
	}
	return shown(owner.Manager, 128), at
}

// owns reports whether a manager owns a field. Items of lists are named by their keys there, so it is enough to own anything in the list.
func owns(m metav1.ManagedFieldsEntry, pointer string) bool {
	if m.FieldsV1 == nil {
		return false
	}
	var fields map[string]any
	if json.Unmarshal(m.FieldsV1.Raw, &fields) != nil {
		return false
	}
	for part := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		if _, err := strconv.Atoi(part); err == nil {
			break
		}
		inner, found := fields["f:"+strings.NewReplacer("~1", "/", "~0", "~").Replace(part)]
		if !found {
			return false
		}
		fields, _ = inner.(map[string]any)
	}
	return true
}
