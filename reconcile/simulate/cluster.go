package simulate

import (
	"fmt"
	"slices"
	"time"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// cluster is what a target has in its cluster: objects that are there once they are applied, and pods that become ready after a while.
type cluster struct {
	sets       map[string]rollout.Set // by digest of the manifests
	services   map[manifest.Key]rollout.Live
	objects    map[manifest.Key]*object
	readyAfter time.Duration
	never      bool // pods of the new version do not become ready
	made       int
}

type object struct {
	live  rollout.Live
	from  string    // the manifests that it has the content of
	ready time.Time // it is healthy from then on
	never bool      // it does not become healthy
	fleet *fleet    // while it has a share of its pods; nil: it is none, or has none
}

// unsaid is how many pods an earlier version is taken to run with where the manifest does not say.
const unsaid = 3

func newCluster(l *lane, readyAfter time.Duration) *cluster {
	c := &cluster{sets: map[string]rollout.Set{newManifests: l.new}, services: elsewhere(l), objects: map[manifest.Key]*object{}, readyAfter: readyAfter}
	switch ready := l.assumed.Ready; {
	case ready.Never:
		c.never = true
	case ready.Said:
		c.readyAfter = ready.After
	}
	return c
}

// elsewhere is the Services that a strategy turns or exposes and that do not come with the manifests: they are taken to be in the cluster, those that turn for
// one workload after the other.
func elsewhere(l *lane) map[manifest.Key]rollout.Live {
	if len(l.new.Revisions) == 0 {
		return nil
	}
	found := map[manifest.Key]rollout.Live{}
	for _, key := range l.target.Exposed(l.target.Namespace, l.new) {
		found[key] = rollout.Live{Key: key, UID: "elsewhere", Generation: 1, Health: rollout.Healthy}
	}
	if l.target.BlueGreen == nil {
		return found
	}
	for i, pair := range l.target.BlueGreen.Services {
		way := rollout.Way{BlueGreen: &rollout.BlueGreen{Services: []rollout.ServicePair{pair}}}
		selector := l.new.Revisions[min(i, len(l.new.Revisions)-1)].Labels
		for _, key := range rollout.ServicesOf(way, l.target.Namespace, l.new) {
			found[key] = rollout.Live{Key: key, UID: "elsewhere", Generation: 1, Health: rollout.Healthy, Selector: selector}
		}
	}
	return found
}

// fill puts an earlier version into the cluster, all of it healthy. kept says that its Deployment objects are there beside their revisions.
func (c *cluster) fill(set rollout.Set, kept bool) {
	c.sets[formerManifests] = set
	for _, key := range set.Objects {
		if kept || !carried(set, key) {
			c.put(key, formerManifests)
		}
	}
	for _, r := range set.Revisions {
		o := c.put(r.ReplicaSet, formerManifests)
		o.live.Workload, o.live.Hash, o.live.Number, o.live.Replicas = r.Workload.Name, r.Hash, former, unsaid
		if r.Replicas != nil {
			o.live.Replicas = *r.Replicas
		}
	}
}

// act carries out an action. It is always done whole.
func (c *cluster) act(a rollout.Action, now time.Time) rollout.Outcome {
	var out rollout.Outcome
	switch a.Kind {
	case rollout.Apply:
		out.Live = c.apply(a, now)
	case rollout.Shift:
		for _, b := range a.Baselines {
			o, of := c.put(b.Key, c.objects[b.Of].from), c.objects[b.Of].live
			o.live.Workload, o.live.Hash, o.live.Number, o.live.Baseline = of.Workload, b.Hash, of.Number, true
		}
		for _, r := range a.Replicas {
			o := c.objects[r.Key]
			c.scale(o, r.Count, now)
			out.Live = append(out.Live, o.at(now))
		}
	case rollout.Adopt:
		for _, key := range a.Workloads {
			delete(c.objects, key)
		}
	case rollout.PutBack:
		for _, key := range a.Workloads {
			c.put(key, a.Manifests)
		}
	case rollout.RunHook:
		c.put(a.Only[0], a.Manifests)
		out.Live = append(out.Live, c.objects[a.Only[0]].at(now))
	case rollout.Remove:
		for _, key := range a.Remove {
			c.remove(key)
		}
	}
	return out
}

// remove removes an object; a Deployment object's key stands for all its revisions.
func (c *cluster) remove(key manifest.Key) {
	delete(c.objects, key)
	for other, o := range c.objects {
		if key.Kind == "Deployment" && o.live.Workload == key.Name && other.Namespace == key.Namespace {
			delete(c.objects, other)
		}
	}
}

func (c *cluster) apply(a rollout.Action, now time.Time) (all []rollout.Live) {
	set := c.sets[a.Manifests]
	for _, key := range set.Objects {
		if slices.Contains(a.Leave, key) || len(a.Only) > 0 && !slices.Contains(a.Only, key) || carried(set, key) {
			continue
		}
		o := c.objects[key]
		if fresh := o == nil || o.from != a.Manifests; fresh || isFleet(set, key) {
			o = c.put(key, a.Manifests)
			o.live.Generation++
			if !c.share(set, o, a, now) && fresh {
				c.begin(o, now)
			}
		}
		all = append(all, o.at(now))
	}
	if len(a.Only) > 0 {
		return all
	}
	for _, r := range set.Revisions {
		o := c.put(r.ReplicaSet, a.Manifests)
		o.live.Workload, o.live.Hash = r.Workload.Name, r.Hash
		for _, count := range a.Replicas {
			if count.Key == r.ReplicaSet {
				c.scale(o, count.Count, now)
			}
		}
		all = append(all, o.at(now))
	}
	return all
}

// carried reports whether an object is a Deployment object, which is there as its revision.
func carried(set rollout.Set, key manifest.Key) bool {
	return slices.ContainsFunc(set.Revisions, func(r rollout.Revision) bool { return r.Workload == key })
}

// put makes an object, or gives it the content of other manifests.
func (c *cluster) put(key manifest.Key, from string) *object {
	o := c.objects[key]
	if o == nil {
		c.made++
		o = &object{live: rollout.Live{Key: key, UID: fmt.Sprint(c.made), Generation: 1, Owner: "the target"}}
		c.objects[key] = o
	}
	o.from = from
	return o
}

// scale sets how many pods a revision has. More of them take their time; fewer are gone at once.
func (c *cluster) scale(o *object, count int32, now time.Time) {
	had := o.live.Replicas
	if count == had {
		return
	}
	o.live.Ready = min(o.at(now).Ready, count)
	o.live.Replicas = count
	o.live.Generation++
	if count > o.live.Ready {
		c.begin(o, now)
	} else {
		o.never, o.ready = false, now
	}
}

// begin says when an object that is applied now becomes healthy: at once, unless it has pods.
func (c *cluster) begin(o *object, now time.Time) {
	o.never, o.ready = false, now
	if hasPods(o.live.Key) {
		o.never, o.ready = c.never && o.from == newManifests, now.Add(c.readyAfter)
	}
}

func hasPods(key manifest.Key) bool {
	return key.Group == "" && key.Kind == "Pod" || key.Group == "batch" && key.Kind == "Job" || key.Group == "apps" && key.Kind != "ControllerRevision"
}

// at is an object as a read at a moment shows it.
func (o *object) at(now time.Time) rollout.Live {
	live := o.live
	if !o.never && !now.Before(o.ready) {
		live.Health, live.Ready = rollout.Healthy, live.Replicas
		return live
	}
	live.Health = rollout.Progressing
	if live.Workload != "" {
		live.Message = fmt.Sprintf("%d of %d pods ready", live.Ready, live.Replicas)
	}
	return live
}

func (c *cluster) look(read rollout.Read, now time.Time) (look rollout.Look) {
	all := func(keys []manifest.Key) (found []rollout.Live) {
		for _, key := range keys {
			live, outside := c.services[key]
			if o := c.objects[key]; o != nil {
				live = o.at(now)
			} else if !outside {
				live = rollout.Live{Key: key, Missing: true}
			}
			if key.Kind == "Service" {
				live.Ports = []rollout.Port{{Protocol: "TCP", Number: 80}}
			}
			found = append(found, live)
		}
		return found
	}
	look.Objects, look.Others, look.Workloads = all(read.Objects), all(read.Others), all(read.Workloads)
	look.Fleets = c.fleets(read.Fleets, now)
	for i, r := range read.Routes {
		r.Selector = c.sets[newManifests].Revisions[min(i, len(c.sets[newManifests].Revisions)-1)].Labels
		look.Routes = append(look.Routes, r)
	}
	if read.Revisions {
		for _, o := range c.objects {
			if o.live.Workload != "" {
				look.Revisions = append(look.Revisions, o.at(now))
			}
		}
		slices.SortFunc(look.Revisions, func(a, b rollout.Live) int { return a.Key.Compare(b.Key) })
	}
	return look
}

// next is when the next object becomes healthy; zero when none will.
func (c *cluster) next(now time.Time) (nearest time.Time) {
	for _, o := range c.objects {
		if at := c.step(o, now); !at.IsZero() && (nearest.IsZero() || at.Before(nearest)) {
			nearest = at
		}
	}
	return nearest
}
