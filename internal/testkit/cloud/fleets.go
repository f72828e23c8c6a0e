package cloud

import (
	"context"
	"slices"
	"strings"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// Fleet is the pods of a StatefulSet or DaemonSet, as its controller replaces them one after another.
type Fleet struct {
	Pods  []Pod
	Share rollout.Share // Weight 100: as its manifest has it

	seen    int64 // generation that its controller has seen
	pending bool  // it is about to look
}

// Pod is one of them.
type Pod struct {
	From  string // manifests that it is of
	Ready bool

	uid int
}

// FateOf is the key under which Fate says how the pods of a fleet or of a hook do that are of some manifests.
func FateOf(of manifest.Key, from string) manifest.Key {
	of.Name += "@" + from
	return of
}

// fleetPods is how many pods each fleet has.
const fleetPods = 4

func isFleet(key manifest.Key) bool { return key.Kind == "StatefulSet" || key.Kind == "DaemonSet" }

// shareOf is what an action gives a fleet; all of it where it says nothing.
func shareOf(a rollout.Action, key manifest.Key) rollout.Share {
	for _, s := range a.Share {
		if s.Key == key {
			return s
		}
	}
	return rollout.Share{Key: key, Weight: 100}
}

// applyFleet applies a fleet as it was read, then lets the pods of a DaemonSet go that are due.
func (r *reach) applyFleet(ctx context.Context, by Request, _ rollout.Set, o manifest.Object, a rollout.Action) (live rollout.Live, failure *rollout.Failure) {
	share, generation := shareOf(a, o.Key), int64(0)
	if failure = r.request(ctx, func() *rollout.Failure {
		if there := r.at.objects[o.Key]; there != nil {
			generation = there.Generation
		}
		return nil
	}); failure != nil {
		return live, failure
	}
	failure = r.write(ctx, "share "+o.Key.String(), func() *rollout.Failure {
		there := r.at.objects[o.Key]
		if there != nil && (share.Weight < 100 && there.Generation != generation || r.Cloud.happens(r.Cloud.Faults.Conflict)) {
			return &rollout.Failure{Class: rollout.Trouble, Object: o.Key, Text: "somebody changed it between the read and the write"}
		}
		if there == nil || there.From != o.Source || there.Fleet.Share != share {
			r.Cloud.tell(Change{Request: by, Cluster: r.at, Kind: "share", Key: o.Key, To: int32(share.Weight)})
			fresh := there == nil
			there = r.at.put(o.Key)
			if there.Owner, there.From = by.Lane, o.Source; fresh {
				there.Fleet = &Fleet{Pods: make([]Pod, fleetPods)}
				for i := range there.Fleet.Pods {
					r.at.renew(there, i, by.Lane)
				}
			}
			there.Fleet.Share = share
			there.Generation++
			r.at.judgeFleet(there)
			r.at.control(there, by.Lane)
		}
		live = there.Live
		return nil
	})
	if failure != nil || o.Kind != "DaemonSet" {
		return live, failure
	}
	return live, r.takePods(ctx, by, o.Key, "pod", func(o *Object) []int { return o.due(share) })
}

// takePods reads a fleet, and lets some of its pods go, each as it was read.
func (r *reach) takePods(ctx context.Context, by Request, key manifest.Key, what string, which func(*Object) []int) *rollout.Failure {
	taken := map[int]Pod{} // by place
	var places []int
	if failure := r.request(ctx, func() *rollout.Failure {
		if o := r.at.objects[key]; o != nil && o.Fleet != nil {
			for _, i := range which(o) {
				places, taken[i] = append(places, i), o.Fleet.Pods[i]
			}
		}
		return nil
	}); failure != nil {
		return failure
	}
	for _, i := range places {
		if failure := r.write(ctx, "remove "+what+" of "+key.String(), func() *rollout.Failure {
			if o := r.at.objects[key]; o != nil && o.Fleet.Pods[i] == taken[i] {
				r.Cloud.tell(Change{Request: by, Cluster: r.at, Kind: "replace", Key: key, From: int32(i)})
				r.at.renew(o, i, by.Lane)
				r.at.judgeFleet(o)
				r.at.happened(by.Lane)
			}
			return nil
		}); failure != nil {
			return failure
		}
	}
	return nil
}

// renew makes a pod anew, of what was applied; it becomes ready after a while, or never.
func (c *Cluster) renew(o *Object, i int, lane string) {
	c.cloud.uids++
	uid, fate := c.cloud.uids, c.pods[FateOf(o.Key, o.From)]
	o.Fleet.Pods[i] = Pod{From: o.From, uid: uid}
	if fate.Never != "" {
		return
	}
	c.cloud.World.After(fate.After+c.cloud.delay(200), func() {
		if o.Fleet.Pods[i].uid == uid {
			o.Fleet.Pods[i].Ready = true
			c.judgeFleet(o)
			c.happened(lane)
			c.control(o, lane)
		}
	})
}

// control lets the controller of a fleet look at it, a moment later.
func (c *Cluster) control(o *Object, lane string) {
	if o.Fleet.pending {
		return
	}
	o.Fleet.pending = true
	c.cloud.World.After(c.cloud.delay(100), func() {
		o.Fleet.pending = false
		if c.objects[o.Key] != o {
			return
		}
		o.Fleet.seen = o.Generation
		if i := o.next(); i >= 0 {
			c.renew(o, i, lane)
			if o.Key.Kind == "DaemonSet" {
				c.control(o, lane)
			}
		}
		c.judgeFleet(o)
		c.happened(lane)
	})
}

// next is the pod that the controller replaces next; -1: none before something changes.
func (o *Object) next() int {
	f := o.Fleet
	unready := slices.ContainsFunc(f.Pods, func(p Pod) bool { return !p.Ready })
	if o.Key.Kind == "StatefulSet" {
		for i := len(f.Pods) - 1; i >= o.partition() && !unready; i-- {
			if f.Pods[i].From != o.From {
				return i
			}
		}
		return -1
	}
	if f.Share.Weight < 100 {
		return -1
	}
	for i, p := range f.Pods {
		if p.From != o.From && (!p.Ready || !slices.ContainsFunc(f.Pods, func(p Pod) bool { return p.From == o.From && !p.Ready })) {
			return i
		}
	}
	return -1
}

func (o *Object) partition() int {
	return len(o.Fleet.Pods) - int(o.Fleet.Share.Of(int32(len(o.Fleet.Pods))))
}

// due is the pods of a DaemonSet that go next for a share.
func (o *Object) due(share rollout.Share) (next []int) {
	f := o.Fleet
	if share.Weight >= 100 || f.seen < o.Generation {
		return nil
	}
	var serving, idle []int // of older manifests
	wanted, room := int(share.Of(int32(len(f.Pods)))), 1
	for i, p := range f.Pods {
		switch {
		case p.From == o.From && p.Ready:
			wanted--
		case p.From == o.From:
			wanted, room = wanted-1, room-1
		case p.Ready:
			serving = append(serving, i)
		default:
			idle = append(idle, i)
		}
	}
	next = idle[:min(max(wanted-len(serving), 0), len(idle))]
	return append(next, serving[:max(min(wanted-len(next), room, len(serving)), 0)]...)
}

// stuck is the pods of a StatefulSet that its controller would replace, and waits for.
func (o *Object) stuck() (all []int) {
	if o.Key.Kind != "StatefulSet" || o.Fleet.seen < o.Generation {
		return nil
	}
	for i := o.partition(); i < len(o.Fleet.Pods); i++ {
		if p := o.Fleet.Pods[i]; p.From != o.From && !p.Ready {
			all = append(all, i)
		}
	}
	return all
}

// Fresh is how many pods are of some manifests and ready.
func (f *Fleet) Fresh(from string) (count int32) {
	for _, p := range f.Pods {
		if p.From == from && p.Ready {
			count++
		}
	}
	return count
}

// Of is how many pods are of some manifests, ready or not.
func (f *Fleet) Of(from string) (count int32) {
	for _, p := range f.Pods {
		if p.From == from {
			count++
		}
	}
	return count
}

func (c *Cluster) judgeFleet(o *Object) {
	o.Health, o.Message = rollout.Progressing, "its pods are replaced"
	if o.Fleet.seen == o.Generation && o.Fleet.Fresh(o.From) >= o.Fleet.Share.Of(int32(len(o.Fleet.Pods))) {
		o.Health, o.Message = rollout.Healthy, ""
	}
	o.Stuck = len(o.stuck()) > 0
}

// fleets is a fresh read of fleets, held against their shares.
func (c *Cluster) fleets(shares []rollout.Share) (all []rollout.Live) {
	for _, s := range shares {
		o := c.objects[s.Key]
		if o == nil {
			all = append(all, rollout.Live{Key: s.Key, Missing: true})
			continue
		}
		live := o.Live
		live.Replicas, live.Within, live.Message = int32(len(o.Fleet.Pods)), o.Fleet.seen == o.Generation, c.pods[FateOf(o.Key, o.From)].Never
		live.Fresh = o.Fleet.Fresh(o.From)
		live.Due = o.Key.Kind == "DaemonSet" && len(o.due(s)) > 0
		all = append(all, live)
	}
	return all
}

// Free implements reconcile.Cluster.
func (r *reach) Free(ctx context.Context, id rollout.Identity, a rollout.Action) rollout.Outcome {
	for _, key := range a.Workloads {
		if failure := r.takePods(ctx, r.From(id), key, "stuck pod", (*Object).stuck); failure != nil {
			return rollout.Outcome{Failure: failure}
		}
	}
	return rollout.Outcome{}
}

// Runs is the manifests that the pods of a fleet are of, in their order, with a mark at those that are not ready.
func (f *Fleet) Runs() string {
	var all []string
	for _, p := range f.Pods {
		if !p.Ready {
			p.From += "?"
		}
		all = append(all, p.From)
	}
	return strings.Join(all, " ")
}
