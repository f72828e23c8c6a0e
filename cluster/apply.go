package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"towpath/internal/crash"
	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// Apply brings a target's manifests about, rank by rank, many objects at once inside a rank. A rank that fails is the last one; a kind that the cluster
// does not serve fails before anything is written. A revision that replicas does not name gets one pod. The outcome holds the cluster's answer for each
// object that was written; of several failures it names the one that a repetition would not mend.
//
// Whatever stopped it, the same call again ends in the same state: objects are applied by server-side apply, a revision is found by its name and keeps
// the pod template that it was created with.
func (c *Client) Apply(ctx context.Context, id rollout.Identity, objects []manifest.Object, a rollout.Action) rollout.Outcome {
	revised, err := c.reviser.Revise(id, objects)
	if err != nil {
		return rollout.Outcome{Failure: &rollout.Failure{Class: rollout.Refused, Text: err.Error()}}
	}
	if revised, err = revised.only(a); err != nil {
		return rollout.Outcome{Failure: &rollout.Failure{Class: rollout.Refused, Text: err.Error()}}
	}
	if failure := c.served(ctx, revised); failure != nil {
		return rollout.Outcome{Failure: failure}
	}
	var out rollout.Outcome
	for rank := range manifest.RankDependent + 1 {
		var jobs []job
		for _, o := range revised.Plain {
			share, shares := shareOf(a, o.Key)
			switch {
			case o.Rank() != rank:
			case shares:
				jobs = append(jobs, func() ([]rollout.Live, error) { return c.applyShare(ctx, o, share) })
			default:
				jobs = append(jobs, func() ([]rollout.Live, error) { return c.applyOne(ctx, o) })
			}
		}
		if rank == manifest.RankNetwork {
			for _, s := range revised.others(a.Select) {
				jobs = append(jobs, func() ([]rollout.Live, error) { return nil, c.aim(ctx, s) })
			}
		}
		if rank == manifest.RankWorkload {
			for _, revision := range revised.Revisions {
				jobs = append(jobs, func() ([]rollout.Live, error) { return c.applyRevision(ctx, id, revision, a) })
			}
		}
		lives, failure := c.all(jobs)
		out.Live = append(out.Live, lives...)
		if failure != nil {
			out.Failure = failure
			return out
		}
	}
	return out
}

// served is a failure when the cluster does not serve a kind, unless a definition of it is applied beside it.
func (c *Client) served(ctx context.Context, revised Revised) *rollout.Failure {
	comes := broughtBy(revised)
	for _, o := range revised.Plain {
		if comes.kinds[manifest.Key{Group: o.Group, Kind: o.Kind}] {
			continue
		}
		if _, err := c.kinds.mapping(ctx, o.Key, o.Version); err != nil {
			return c.failure(o.Key, err)
		}
	}
	return nil
}

// definition is what a CustomResourceDefinition says of the kind that it brings.
type definition struct {
	Spec struct {
		Group    string
		Names    struct{ Kind string }
		Versions []struct {
			Name   string
			Served bool
		}
	}
}

// definitionOf reads what it can; what cannot be read is refused by the API server.
func definitionOf(o manifest.Object) (d definition) {
	_ = json.Unmarshal(o.JSON, &d)
	return d
}

// job does a part of the work, and returns what the cluster answered.
type job func() ([]rollout.Live, error)

// all runs jobs at once, in the cluster's places, and returns what they brought in their order. The first failure in that order is the one to tell;
// one that would not be different next time comes before one that might.
func (c *Client) all(jobs []job) ([]rollout.Live, *rollout.Failure) {
	lives, failures := make([][]rollout.Live, len(jobs)), make([]error, len(jobs))
	if len(jobs) == 1 {
		lives[0], failures[0] = jobs[0]()
	} else {
		var next sync.Mutex
		left := 0
		var running sync.WaitGroup
		for range min(len(jobs), c.limiter.most) {
			running.Go(func() {
				for {
					next.Lock()
					i := left
					left++
					next.Unlock()
					if i >= len(jobs) {
						return
					}
					lives[i], failures[i] = jobs[i]()
				}
			})
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

// write is a request that changes something; tests may kill the process before and after it. Names of points hold no hashes, so that they are the same
// in each run.
func write[T any](ctx context.Context, c *Client, point string, call func(context.Context) (T, error)) (T, error) {
	crash.Point("before " + point)
	answer, err := request(ctx, c, call)
	crash.Point("after " + point)
	return answer, err
}

func (c *Client) applyOne(ctx context.Context, o manifest.Object) ([]rollout.Live, error) {
	applied, err := c.patch(ctx, o, "apply "+o.Key.String())
	if err != nil {
		return nil, conceal(o, c.failure(o.Key, err))
	}
	c.prints.note(o.Key, applied)
	live := judge(o.Key, applied)
	live.Found = found(applied)
	if o.Rank() == manifest.RankDefinition {
		if live, err = c.established(ctx, o, live); err != nil {
			return nil, c.failure(o.Key, err)
		}
	}
	return []rollout.Live{live}, nil
}

// patch is one server-side apply.
func (c *Client) patch(ctx context.Context, o manifest.Object, point string) (*unstructured.Unstructured, error) {
	resource, text, err := c.applying(ctx, o)
	if err != nil {
		return nil, err
	}
	force := true
	return write(ctx, c, point, func(ctx context.Context) (*unstructured.Unstructured, error) {
		return resource.Patch(ctx, o.Name, types.ApplyPatchType, text, metav1.PatchOptions{FieldManager: fieldManager, Force: &force})
	})
}

// applying is where an object is applied, and the text that is.
func (c *Client) applying(ctx context.Context, o manifest.Object) (resource dynamic.ResourceInterface, text []byte, err error) {
	resource, namespaced, err := c.resource(ctx, o.Key, o.Version)
	if err != nil || namespaced || o.Namespace == "" {
		return resource, []byte(o.JSON), err
	}
	fields := o.Map() // only the cluster knows which custom kinds have no namespace
	delete(manifest.Child(fields, "metadata"), "namespace")
	text, err = json.Marshal(fields)
	return resource, text, err
}

// established waits until the API server serves what a CustomResourceDefinition brings: objects of its kind may be applied next.
func (c *Client) established(ctx context.Context, o manifest.Object, live rollout.Live) (rollout.Live, error) {
	waiting, cancel := c.within(ctx)
	defer cancel()
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		why := live.Message
		switch live.Health {
		case rollout.Broken:
			return live, &rollout.Failure{Class: rollout.Refused, Object: o.Key, Text: why}
		case rollout.Healthy:
			missing, err := c.missing(ctx, o)
			switch {
			case err != nil:
				return live, err
			case missing == "":
				return live, c.kinds.forget(ctx)
			}
			why = missing + " is not served yet"
		}
		select {
		case <-waiting.Done():
			return live, &rollout.Failure{Class: rollout.Trouble, Object: o.Key, Text: "not established yet: " + why}
		case <-time.After(pause):
		}
		lives, err := c.read(ctx, []manifest.Key{o.Key}, "")
		if err != nil {
			return live, err
		}
		if live = lives[0]; live.Missing {
			return live, &rollout.Failure{Class: rollout.Trouble, Object: o.Key, Text: "it was removed while it was waited for"}
		}
	}
}

// missing names a version of a definition's kind that the cluster does not list yet; "" when it lists all.
func (c *Client) missing(ctx context.Context, o manifest.Object) (string, error) {
	d := definitionOf(o)
	for _, version := range d.Spec.Versions {
		if !version.Served {
			continue
		}
		name := d.Spec.Group + "/" + version.Name
		list, err := request(ctx, c, func(ctx context.Context) (*metav1.APIResourceList, error) {
			return c.finder.ServerResourcesForGroupVersionWithContext(ctx, name)
		})
		if err != nil && !apierrors.IsNotFound(err) {
			return "", err
		}
		if list == nil || !slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Kind == d.Spec.Names.Kind }) {
			return name + " " + d.Spec.Names.Kind, nil
		}
	}
	return "", nil
}

// applyRevision creates a revision, or finds it as an earlier run created it, and gives it its count. Its configuration is there before its pods.
func (c *Client) applyRevision(ctx context.Context, id rollout.Identity, r Revision, a rollout.Action) ([]rollout.Live, error) {
	key := r.ReplicaSet.Key
	if i := slices.IndexFunc(a.StandIns, func(s rollout.StandIn) bool { return s.For == key }); i >= 0 {
		return c.scale(ctx, id, a.StandIns[i].Is, a.Replicas)
	}
	count, replicas := int32(1), a.Replicas
	if i := slices.IndexFunc(replicas, func(n rollout.Replicas) bool { return n.Key == key }); i >= 0 {
		count = replicas[i].Count
	}
	at := count
	if len(r.Copies) > 0 {
		at = 0
	}
	set, found, err := c.create(ctx, id, r, at)
	if err != nil {
		return nil, c.failure(key, err)
	}
	copies := make([]job, len(r.Copies))
	for i, copied := range r.Copies {
		copies[i] = func() ([]rollout.Live, error) { return nil, c.applyCopy(ctx, copied, set) }
	}
	if _, failure := c.all(copies); failure != nil {
		return nil, failure
	}
	var changes []operation
	if found {
		changes = changed(r.ReplicaSet, set)
	}
	wanted, _, _ := unstructured.NestedInt64(set.Object, "spec", "replicas")
	scaled := found && wanted > 0 && slices.ContainsFunc(a.Aim, func(aim rollout.Aim) bool { return aim.At == key })
	if wanted != int64(count) && !scaled {
		changes = append(changes, toCount(count))
	}
	if len(changes) > 0 {
		if set, err = c.change(ctx, r.Workload, set, changes); err != nil {
			return nil, c.failure(key, err)
		}
	}
	c.prints.note(key, set)
	return []rollout.Live{judge(key, set)}, nil
}

// create makes the ReplicaSet of a revision, or returns it as it is there already.
func (c *Client) create(ctx context.Context, id rollout.Identity, r Revision, at int32) (set *unstructured.Unstructured, found bool, err error) {
	resource, _, err := c.resource(ctx, r.ReplicaSet.Key, r.ReplicaSet.Version)
	if err != nil {
		return nil, false, err
	}
	fields := plain(r.ReplicaSet.Map()).(map[string]any)
	manifest.Ensure(fields, "spec")["replicas"] = int64(at)
	set, err = write(ctx, c, "create revision of "+r.Workload.String(), func(ctx context.Context) (*unstructured.Unstructured, error) {
		return resource.Create(ctx, &unstructured.Unstructured{Object: fields}, metav1.CreateOptions{FieldManager: fieldManager})
	})
	if !apierrors.IsAlreadyExists(err) {
		return set, false, err
	}
	set, err = request(ctx, c, func(ctx context.Context) (*unstructured.Unstructured, error) {
		return resource.Get(ctx, r.ReplicaSet.Name, metav1.GetOptions{})
	})
	switch {
	case apierrors.IsNotFound(err), err == nil && set.GetDeletionTimestamp() != nil:
		return nil, false, errors.New("it is being removed; it is made again once it is gone")
	case err != nil:
		return nil, false, err
	}
	return set, true, notOurs(id, r.ReplicaSet.Key, set)
}

// lost reports whether a revision is a target's by all but the label of its lane, which somebody took away by hand: whatever is written to it next puts the
// label back.
func lost(id rollout.Identity, set *unstructured.Unstructured) bool {
	labels, annotations := set.GetLabels(), set.GetAnnotations()
	return labels[LabelLane] == "" && labels[LabelWorkload] != "" && annotations[AnnotationTenant] == id.Tenant && annotations[AnnotationApplication] == id.Application &&
		annotations[AnnotationTarget] == id.Target
}

// relabel is what gives a revision the label of its lane back; nothing where it has it.
func relabel(id rollout.Identity, set *unstructured.Unstructured) []operation {
	if !lost(id, set) {
		return nil
	}
	return []operation{{"add", "/metadata/labels/" + pointer.Replace(LabelLane), LaneLabel(id)}}
}

// notOurs is a failure for an object that is not the target's.
func notOurs(id rollout.Identity, key manifest.Key, object *unstructured.Unstructured) error {
	if object.GetLabels()[LabelLane] == LaneLabel(id) || lost(id, object) {
		return nil
	}
	whose := "is not managed by Towpath"
	switch live := judge(key, object); {
	case live.Owner == ownerOf(id.Tenant, id.Application, id.Target) && object.GetLabels()[LabelLane] == "":
		whose = fmt.Sprintf("is this target's, but somebody took its labels away; give them back: kubectl -n %s label %s %s %s=%s", key.Namespace, strings.ToLower(key.Kind), key.Name, LabelLane, LaneLabel(id))
		if live.Workload != "" {
			whose += " " + LabelWorkload + "=" + short(nil, live.Workload)
		}
	case live.Owner != "":
		whose = "belongs to " + live.Owner + " (tenant/application/target)"
	}
	return &rollout.Failure{Class: rollout.Refused, Object: key, Text: "an object of this name is there, and it " + whose}
}

// applyCopy makes a configuration copy, owned by its revision, so that it goes when that goes.
func (c *Client) applyCopy(ctx context.Context, o manifest.Object, owner *unstructured.Unstructured) error {
	fields := o.Map()
	manifest.Ensure(fields, "metadata")["ownerReferences"] = []any{map[string]any{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner.GetName(), "uid": string(owner.GetUID())}}
	owned, err := manifest.FromMap(fields, o.Source)
	if err != nil {
		return err
	}
	source := o.Key
	source.Name, _ = manifest.Child(fields, "metadata", "annotations")[AnnotationCopyOf].(string)
	applied, err := c.patch(ctx, owned, "copy "+source.String())
	if err != nil {
		return conceal(o, c.failure(o.Key, err))
	}
	c.prints.note(o.Key, applied)
	return nil
}

// operation is one of a JSON patch.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

func toCount(count int32) operation { return operation{"replace", "/spec/replicas", count} }

// changed is what a ReplicaSet that was created earlier has to change for the manifest of today. Its pod template is what it is named for and never
// changes; what stands about it may.
func changed(wanted manifest.Object, set *unstructured.Unstructured) []operation {
	var changes []operation
	fields := plain(wanted.Map()).(map[string]any)
	seconds, _ := manifest.Child(fields, "spec")["minReadySeconds"].(int64)
	if has, _, _ := unstructured.NestedInt64(set.Object, "spec", "minReadySeconds"); has != seconds {
		changes = append(changes, operation{"add", "/spec/minReadySeconds", seconds})
	}
	for name, has := range map[string]map[string]string{"labels": set.GetLabels(), "annotations": set.GetAnnotations()} {
		for key, value := range manifest.Child(fields, "metadata", name) {
			if key != AnnotationNumber && has[key] != value { // both are there: ours are among them
				changes = append(changes, operation{"add", "/metadata/" + name + "/" + pointer.Replace(key), value})
			}
		}
	}
	return changes
}

// pointer escapes a name for a JSON pointer.
var pointer = strings.NewReplacer("~", "~0", "/", "~1")

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

// change changes a ReplicaSet as it was read: when anybody has changed what is wanted of it since, this is a conflict, and so a late write of ours is
// one too. That is told by the generation and not by the resourceVersion, which changes with each pod that becomes ready.
func (c *Client) change(ctx context.Context, workload manifest.Key, read *unstructured.Unstructured, changes []operation) (*unstructured.Unstructured, error) {
	key := replicaSetKind
	key.Namespace, key.Name = read.GetNamespace(), read.GetName()
	resource, _, err := c.resource(ctx, key, "v1")
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(append([]operation{{"test", "/metadata/uid", read.GetUID()}, {"test", "/metadata/generation", read.GetGeneration()}}, changes...))
	if err != nil {
		return nil, err
	}
	set, err := write(ctx, c, "scale revision of "+workload.String(), func(ctx context.Context) (*unstructured.Unstructured, error) {
		return resource.Patch(ctx, key.Name, types.JSONPatchType, text, metav1.PatchOptions{FieldManager: fieldManager})
	})
	var status apierrors.APIStatus
	if errors.As(err, &status) && apierrors.IsInvalid(err) && (status.Status().Details == nil || len(status.Status().Details.Causes) == 0) {
		// A test of the patch failed; whatever is wrong with the values comes with causes.
		return nil, &rollout.Failure{Class: rollout.Trouble, Object: key, Text: "somebody changed it between the read and the write; it is read again"}
	}
	return set, err
}
