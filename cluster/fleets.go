package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

var historyKind = manifest.Key{Group: "apps", Kind: "ControllerRevision"}

// isFleet reports whether a kind makes pods in their own places, which are replaced there.
func isFleet(key manifest.Key) bool {
	return key.Group == "apps" && (key.Kind == "StatefulSet" || key.Kind == "DaemonSet")
}

// fleets is the StatefulSets and DaemonSets among objects.
func fleets(objects []manifest.Object) (all []rollout.Fleet, err error) {
	for _, o := range objects {
		if !isFleet(o.Key) {
			continue
		}
		spec := manifest.Child(o.Map(), "spec")
		strategy := manifest.Child(spec, "updateStrategy")
		fleet := rollout.Fleet{Key: o.Key, ByHand: strategy["type"] == "OnDelete"}
		if o.Kind == "StatefulSet" {
			stays, wrong := wholeNumber(manifest.Child(strategy, "rollingUpdate")["partition"])
			if wrong != nil {
				return nil, fmt.Errorf("%s: %s: spec.updateStrategy.rollingUpdate.partition: %w", o.Source, o.Key, wrong)
			}
			if stays != nil {
				fleet.Stays = *stays
			}
			if fleet.Replicas, wrong = wholeNumber(spec["replicas"]); wrong != nil {
				return nil, fmt.Errorf("%s: %s: spec.replicas: %w", o.Source, o.Key, wrong)
			}
		}
		all = append(all, fleet)
	}
	return all, nil
}

// shareOf is what an action gives a fleet; false: it says nothing of it.
func shareOf(a rollout.Action, key manifest.Key) (rollout.Share, bool) {
	for _, s := range a.Share {
		if s.Key == key {
			return s, true
		}
	}
	return rollout.Share{}, false
}

// tries is how often a share is applied to an object whose status changes between the read and the write.
const tries = 5

// applyShare applies a fleet so that no more than its share is replaced. A StatefulSet has a partition for that. A DaemonSet has none: its controller replaces
// nothing (OnDelete), and here the next batch of its pods goes. It is written as it was read, so that a late write of ours is a conflict; while only its
// status moves, it is read again.
func (c *Client) applyShare(ctx context.Context, o manifest.Object, s rollout.Share) ([]rollout.Live, error) {
	var generation int64
	for range tries {
		live, err := c.get(ctx, o.Key)
		switch {
		case err != nil:
			return nil, c.failure(o.Key, err)
		case live == nil:
			return c.applyOne(ctx, o) // there is nothing to be shared with
		case generation != 0 && live.GetGeneration() != generation:
			return nil, &rollout.Failure{Class: rollout.Trouble, Object: o.Key, Text: "somebody changed it between the read and the write; it is read again"}
		}
		generation = live.GetGeneration()
		shared, err := withShare(o, s, live)
		if err != nil {
			return nil, err
		}
		applied, err := c.patch(ctx, shared, "share "+o.Key.String())
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, c.failure(o.Key, err)
		}
		c.prints.note(o.Key, applied)
		if err := c.replace(ctx, applied, s); err != nil {
			return nil, err
		}
		return []rollout.Live{judge(o.Key, applied)}, nil
	}
	return nil, &rollout.Failure{Class: rollout.Trouble, Object: o.Key, Text: "it changes faster than it can be written; it is read again"}
}

// withShare is the object of a fleet as it is while it has a share of its pods; with all of them it is as its manifest has it. The number of pods that an
// autoscaler gave a StatefulSet stays.
func withShare(o manifest.Object, s rollout.Share, live *unstructured.Unstructured) (manifest.Object, error) {
	fields := o.Map()
	manifest.Ensure(fields, "metadata")["resourceVersion"] = live.GetResourceVersion()
	spec := manifest.Ensure(fields, "spec")
	pods, _, _ := unstructured.NestedInt64(live.Object, "spec", "replicas")
	said, err := wholeNumber(spec["replicas"])
	switch {
	case err != nil:
		return o, fmt.Errorf("%s: %s: spec.replicas: %w", o.Source, o.Key, err)
	case said != nil && s.Scaled:
		spec["replicas"] = pods
	case said != nil:
		pods = int64(*said)
	}
	rolling := maps.Clone(manifest.Child(spec, "updateStrategy", "rollingUpdate"))
	switch {
	case s.Weight >= 100:
	case o.Kind == "DaemonSet":
		spec["updateStrategy"] = map[string]any{"type": "OnDelete"}
		if rolling != nil {
			manifest.Ensure(spec, "updateStrategy")["rollingUpdate"] = rolling // it says how many may be missing
		}
	default:
		if rolling == nil {
			rolling = map[string]any{}
		}
		rolling["partition"] = partition(int32(pods), s)
		spec["updateStrategy"] = map[string]any{"type": "RollingUpdate", "rollingUpdate": rolling}
	}
	return manifest.FromMap(fields, o.Source)
}

// partition is the number of the first pod of a StatefulSet that is of the new version.
func partition(pods int32, s rollout.Share) int64 { return int64(max(pods-s.Of(pods), s.Stays)) }

// replace lets the pods of a DaemonSet go that are due; its controller makes them anew.
func (c *Client) replace(ctx context.Context, set *unstructured.Unstructured, s rollout.Share) error {
	if s.Key.Kind != "DaemonSet" || s.Weight >= 100 {
		return nil
	}
	f, err := c.fleet(ctx, s.Key, set)
	if err != nil {
		return c.failure(s.Key, err)
	}
	for _, pod := range f.due(s) {
		at := podKind
		at.Namespace, at.Name = pod.GetNamespace(), pod.GetName()
		if err := c.delete(ctx, removal{key: at, uid: pod.GetUID(), name: "pod of " + s.Key.String(), version: pod.GetResourceVersion()}); err != nil {
			return err
		}
	}
	return nil
}

// fleet is a StatefulSet or DaemonSet and its pods.
type fleet struct {
	set      *unstructured.Unstructured
	pods     []unstructured.Unstructured // of any version, those on their way out aside, by node and name
	newest   string                      // hash of the version that was applied; "": its controller has not seen it yet
	shall    int32                       // pods that it shall have
	steadily time.Duration               // for how long a pod must have been ready
}

// fleet reads the pods of a set, and which of its versions is the one that was applied: of a StatefulSet its status says so, of a DaemonSet its history.
func (c *Client) fleet(ctx context.Context, key manifest.Key, set *unstructured.Unstructured) (fleet, error) {
	f := fleet{set: set}
	seconds, _, _ := unstructured.NestedInt64(set.Object, "spec", "minReadySeconds")
	f.steadily = time.Duration(seconds) * time.Second
	shall, _, _ := unstructured.NestedInt64(set.Object, "spec", "replicas")
	if key.Kind == "DaemonSet" {
		shall, _, _ = unstructured.NestedInt64(set.Object, "status", "desiredNumberScheduled")
	}
	f.shall = int32(shall)
	if observed, _, _ := unstructured.NestedInt64(set.Object, "status", "observedGeneration"); observed < set.GetGeneration() {
		return f, nil
	}
	var err error
	if key.Kind == "StatefulSet" {
		f.newest, _, _ = unstructured.NestedString(set.Object, "status", "updateRevision")
	} else if f.newest, err = c.newest(ctx, set); err != nil {
		return f, err
	}
	if f.pods, err = c.podsOf(ctx, set, 0); err != nil {
		return f, err
	}
	f.pods = slices.DeleteFunc(f.pods, func(pod unstructured.Unstructured) bool { return pod.GetDeletionTimestamp() != nil })
	slices.SortFunc(f.pods, func(a, b unstructured.Unstructured) int {
		if by := strings.Compare(nodeOf(a), nodeOf(b)); by != 0 {
			return by
		}
		return strings.Compare(a.GetName(), b.GetName())
	})
	return f, nil
}

// newest is the hash of the newest version in a DaemonSet's history: its controller gives it the highest number, also where it is an old one come back.
func (c *Client) newest(ctx context.Context, set *unstructured.Unstructured) (hash string, err error) {
	selector, err := selectorOf(set)
	if err != nil || selector == "" {
		return "", err
	}
	kind := historyKind
	kind.Namespace = set.GetNamespace()
	history, err := c.list(ctx, kind, selector, 0)
	var highest int64
	for i := range history {
		if number, _, _ := unstructured.NestedInt64(history[i].Object, "revision"); ownedBy(history[i], set) && number > highest {
			highest, hash = number, history[i].GetLabels()[labelRevision]
		}
	}
	return hash, err
}

func nodeOf(pod unstructured.Unstructured) string {
	node, _, _ := unstructured.NestedString(pod.Object, "spec", "nodeName")
	return node
}

func (f fleet) isNew(pod unstructured.Unstructured) bool {
	return pod.GetLabels()[labelRevision] == f.newest
}

// serves reports whether a pod has been ready for long enough.
func (f fleet) serves(pod unstructured.Unstructured) bool {
	return slices.ContainsFunc(manifest.Items(manifest.Child(pod.Object, "status")["conditions"]), func(condition map[string]any) bool {
		since, err := time.Parse(time.RFC3339, fmt.Sprint(condition["lastTransitionTime"]))
		return condition["type"] == "Ready" && condition["status"] == "True" && (f.steadily == 0 || err == nil && time.Since(since) >= f.steadily)
	})
}

// fresh is how many pods of the newest version serve.
func (f fleet) fresh() (count int32) {
	for _, pod := range f.pods {
		if f.newest != "" && f.isNew(pod) && f.serves(pod) {
			count++
		}
	}
	return count
}

// due is the pods of a DaemonSet that go next so that in the end its share is of the newest version: in the order of the nodes, so that a repetition chooses
// the same; and no more than may be missing at once, of which those count that are missing already. A pod that does not serve is missed by nobody, but says
// nothing of the new version either where its node is what fails: it goes only where the others do not make up the share.
func (f fleet) due(s rollout.Share) (next []unstructured.Unstructured) {
	if f.newest == "" {
		return nil
	}
	var serving, idle []unstructured.Unstructured // of older versions
	wanted, room := int(s.Of(f.shall)), int(f.batch()-f.shall)
	for _, pod := range f.pods {
		switch isNew, serves := f.isNew(pod), f.serves(pod); {
		case isNew && serves:
			wanted, room = wanted-1, room+1
		case isNew:
			wanted--
		case serves:
			serving, room = append(serving, pod), room+1
		default:
			idle, room = append(idle, pod), room+1
		}
	}
	next = idle[:min(max(wanted-len(serving), 0), len(idle))]
	return append(next, serving[:max(min(wanted-len(next), room, len(serving)), 0)]...)
}

// batch is how many pods of a DaemonSet may be missing at once: what its manifest says, and at least one, since a pod is taken away before its successor comes.
func (f fleet) batch() int32 {
	said := manifest.Child(f.set.Object, "spec", "updateStrategy", "rollingUpdate")["maxUnavailable"]
	if said == nil {
		return 1
	}
	most := intstr.Parse(fmt.Sprint(said))
	count, err := intstr.GetScaledValueFromIntOrPercent(&most, int(f.shall), true)
	if err != nil {
		return 1
	}
	return max(int32(count), 1)
}

// readFleets reads fleets afresh, and holds their pods against their shares.
func (c *Client) readFleets(ctx context.Context, shares []rollout.Share) ([]rollout.Live, error) {
	lives := make([]rollout.Live, len(shares))
	var jobs []job
	for i, s := range shares {
		jobs = append(jobs, func() (_ []rollout.Live, err error) {
			lives[i], err = c.readFleet(ctx, s)
			return nil, err
		})
	}
	if _, failure := c.all(jobs); failure != nil {
		return nil, failure
	}
	return lives, nil
}

func (c *Client) readFleet(ctx context.Context, s rollout.Share) (rollout.Live, error) {
	set, err := c.get(ctx, s.Key)
	if err != nil {
		return rollout.Live{}, c.failure(s.Key, err)
	}
	if set == nil {
		return rollout.Live{Key: s.Key, Missing: true}, nil
	}
	f, err := c.fleet(ctx, s.Key, set)
	if err != nil {
		return rollout.Live{}, c.failure(s.Key, err)
	}
	live := judge(s.Key, set)
	live.Replicas, live.Fresh, live.Within, live.Message = f.shall, f.fresh(), f.newest != "" && set.GetDeletionTimestamp() == nil, ""
	if live.Fresh >= s.Of(f.shall) && (s.Weight < 100 || live.Health == rollout.Healthy) {
		return live, nil
	}
	switch {
	case s.Weight >= 100:
	case s.Key.Kind == "DaemonSet":
		live.Due = len(f.due(s)) > 0
	default:
		is, _, _ := unstructured.NestedInt64(set.Object, "spec", "updateStrategy", "rollingUpdate", "partition")
		live.Due = is > partition(f.shall, s)
	}
	if s.Key.Kind == "StatefulSet" {
		stuck, err := c.stuckPods(ctx, set)
		live.Stuck = err == nil && len(stuck) > 0
	}
	live.Message = c.troubles(ctx, slices.DeleteFunc(slices.Clone(f.pods), func(pod unstructured.Unstructured) bool {
		return f.serves(pod) || time.Since(pod.GetCreationTimestamp().Time) < young && !c.watches.troubled(pod.GetUID())
	}))
	return live, nil
}
