package proof_test

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"towpath/internal/testkit/cloud"
	"towpath/reconcile/rollout"
	"towpath/store"
)

// end holds what must be true once nothing happens any more.
func (j *judge) end() {
	if j.wrong != "" {
		return
	}
	j.allEnded()
	j.newestCame()
	j.allTold()
	for _, name := range j.laneNames() {
		j.asRecorded(j.lanes[name])
	}
}

func (j *judge) laneNames() (names []string) {
	for name := range j.lanes {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// allEnded holds that no deployment waits any more: people have said all that was asked, clusters are there, nothing is halted.
func (j *judge) allEnded() {
	for _, s := range j.starts {
		d, err := j.house.store.Deployment(context.Background(), s.Tenant, s.ID)
		if err != nil {
			j.wrongly("deployment %s was lost: %v", s.ID, err)
			return
		}
		for _, t := range d.Targets {
			if !t.State.Final() {
				j.wrongly("%s of #%d never ends: it is %s in %s and waits for %v, which never comes", t.Name, d.Number, t.State, t.Phase, needs(t.Waits))
			}
		}
		if !d.State.Final() {
			j.wrongly("#%d never ends: it is %s (%s)", d.Number, d.State, d.Why)
		}
	}
}

// newestCame holds that what was asked for last of each lane came to it.
func (j *judge) newestCame() {
	ctx := context.Background()
	for i, s := range j.starts {
		d, err := j.house.store.Deployment(ctx, s.Tenant, s.ID)
		j.house.must(err)
		if d.State == rollout.Rejected {
			continue
		}
		for _, wanted := range s.Targets {
			if !wanted.Changed || slices.ContainsFunc(j.starts[i+1:], func(later rollout.Start) bool {
				return later.Application == s.Application && slices.ContainsFunc(later.Targets, func(t rollout.StartTarget) bool { return t.Name == wanted.Name })
			}) {
				continue
			}
			w := j.lanes[s.Tenant+"/"+s.Application+"/"+wanted.Name]
			if w != nil && slices.ContainsFunc(j.starts[i+1:], func(later rollout.Start) bool {
				return slices.ContainsFunc(later.Gone, func(g rollout.Gone) bool { return g.Lane == w.id })
			}) {
				continue
			}
			if d.State == rollout.Cancelled && len(d.Targets) == 0 {
				continue // it waited for its turn and a person cancelled it
			}
			waited := s.Exclusive == rollout.EnqueueOne || s.Exclusive == rollout.Batch // what moves was judged anew
			came := w != nil && slices.ContainsFunc(w.ended, func(t rollout.Target) bool { return t.Deployment == s.ID })
			cancelled := slices.ContainsFunc(d.Targets, func(t store.TargetView) bool {
				return t.Name == wanted.Name && (strings.HasPrefix(t.Why, "cancelled by") || waited && (t.CarriedBy != 0 || t.Why == "unchanged"))
			})
			if !came && !cancelled {
				j.wrongly("%s of %s: #%d (%s, %s), the newest that was asked for, never came to its lane", wanted.Name, s.Application, d.Number, d.State, s.Exclusive)
			}
		}
	}
}

// allTold holds that history has each event that a decision brought, in order, and asks for each approval once.
func (j *judge) allTold() {
	var history []store.Event
	for after := int64(0); ; after = history[len(history)-1].ID {
		more, err := j.house.store.Events(context.Background(), store.EventFilter{Tenant: "main", After: after})
		if j.house.must(err); len(more) == 0 {
			break
		}
		history = append(history, more...)
	}
	at, told := map[string]int{}, map[string][]rollout.Event{}
	for _, e := range j.told {
		told[e.Application] = append(told[e.Application], e)
	}
	seen, lifted := map[[5]string]bool{}, 0
	for _, e := range history {
		if next := at[e.Application]; next < len(told[e.Application]) {
			if want := told[e.Application][next]; e.Kind == want.Kind && e.What == want.What && e.Why == want.Why && e.Deployment == want.Deployment {
				at[e.Application]++
			}
		}
		switch e.Kind {
		case "unhold": // what waited for a word waits for it anew
			lifted++
		case "target.awaiting_approval", "target.succeeded", "target.failed", "target.cancelled", "target.rolled_back", "target.skipped", "target.started":
			once := [5]string{e.Deployment, e.Target, e.Kind, e.Why}
			if e.Kind == "target.awaiting_approval" {
				once[4] = fmt.Sprint(lifted)
			}
			if seen[once] && e.Who == "towpath" {
				j.wrongly("history tells twice: %s (%s: %s)", e.What, e.Kind, e.Why)
			}
			seen[once] = true
		}
	}
	for application, all := range told {
		if at := at[application]; at < len(all) {
			j.wrongly("an event was lost: history of %s does not hold %q (%s) where it happened", application, all[at].What, all[at].Kind)
		}
	}
}

// asRecorded holds that a cluster is as the store says: what is good runs, whole and alone.
func (j *judge) asRecorded(w *watched) {
	touched := slices.DeleteFunc(slices.Clone(w.ended), func(t rollout.Target) bool {
		return t.Started.IsZero() || (t.State == rollout.Cancelled || t.State == rollout.Failed) && !w.changed[t.ID]
	})
	if len(touched) == 0 {
		return
	}
	last := touched[len(touched)-1]
	c := j.house.cloud.Cluster(last.Account)
	lane, err := j.house.store.Lane(context.Background(), w.id)
	j.house.must(err)
	if !same(lane.Good, w.good) {
		j.wrongly("%s: the last good release is recorded as %+v, and was %+v", w.name, lane.Good, w.good)
	}
	for i := len(touched) - 1; i >= 0 && touched[i].State != rollout.Succeeded; i-- {
		if touched[i].State == rollout.Failed && !strings.HasSuffix(touched[i].Why, "what was rolled out stays") {
			return // it was left to a person, and nothing was finished since
		}
	}
	switch {
	case last.Removes:
		j.empty(w, c, last)
		return
	case w.good == nil:
		return
	case last.State == rollout.Cancelled && strings.Contains(last.Why, "replaced by"): // a person cancelled the one that came next before it began
		return
	}
	j.runs(w, c, w.good)
	j.accounted(w, c)
	j.whole(w, c, last)
	j.aimed(w, c, last)
}

func same(a, b *rollout.Release) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

// runs holds that a release runs whole and alone.
func (j *judge) runs(w *watched, c *cloud.Cluster, good *rollout.Release) {
	set := j.house.sets[good.Manifests]
	for _, o := range c.Objects() {
		if o.Owner != w.name || o.Key.Kind != "ReplicaSet" {
			continue
		}
		var revision *rollout.Revision
		for i, r := range set.Revisions {
			if r.ReplicaSet == o.Key || o.StandsFor == r.ReplicaSet.Name && r.ReplicaSet.Namespace == o.Key.Namespace {
				revision = &set.Revisions[i]
			}
		}
		switch {
		case revision == nil && o.Replicas > 0:
			j.wrongly("%s is held at #%d, and %s, which is no part of it, runs %d pods", w.name, good.Number, o.Key, o.Replicas)
		case revision != nil && revision.Replicas != nil && len(set.Scalers) == 0 && o.Replicas != *revision.Replicas:
			j.wrongly("%s is held at #%d, and %s runs %d pods instead of %d", w.name, good.Number, o.Key, o.Replicas, *revision.Replicas)
		case revision != nil && o.Replicas == 0:
			j.wrongly("%s is held at #%d, and %s runs no pods", w.name, good.Number, o.Key)
		}
	}
	for _, key := range set.Objects {
		o := c.Object(key)
		switch {
		case key.Kind == "Deployment":
		case o == nil:
			j.wrongly("%s is held at #%d, and %s is not there", w.name, good.Number, key)
		case o.Fleet != nil && (o.Fleet.Fresh(good.Manifests) < int32(len(o.Fleet.Pods)) || o.Fleet.Share.Weight != 100):
			j.wrongly("%s is held at #%d, and the pods of %s run %s, with a share of %d %%", w.name, good.Number, key, o.Fleet.Runs(), o.Fleet.Share.Weight)
		case o.From != good.Manifests:
			j.wrongly("%s is held at #%d, and %s has the content of %s instead of %s", w.name, good.Number, key, o.From, good.Manifests)
		}
	}
}

// accounted holds that what a lane has in its cluster stands in its inventory, so that it goes once nothing wants it: a rollback leaves to the next rollout
// what one before it had brought that was replaced.
func (j *judge) accounted(w *watched, c *cloud.Cluster) {
	lanes, err := j.house.store.Lanes(context.Background(), "main", strings.Split(w.name, "/")[1])
	j.house.must(err)
	i := slices.IndexFunc(lanes, func(l rollout.LaneState) bool { return l.ID == w.id })
	for _, o := range c.Objects() {
		if o.Owner == w.name && o.Run == nil && o.Key.Kind != "ReplicaSet" && o.Key.Kind != "Deployment" && !slices.Contains(lanes[i].Inventory, o.Key) && !o.Found {
			j.wrongly("%s has %s in its cluster, and no account of it", w.name, o.Key)
		}
	}
}

// whole holds that no route divides traffic any more.
func (j *judge) whole(w *watched, c *cloud.Cluster, last rollout.Target) {
	for _, o := range c.Objects() {
		if o.Divided.Stage != "" && o.Key.Namespace == last.Namespace && !w.left {
			j.wrongly("%s: after the end %s still divides traffic: %s at %d", w.name, o.Key, o.Divided.Stage, o.Divided.Weight)
		}
	}
}

// aimed holds that autoscalers scale what carries the workload, and none rests any more.
func (j *judge) aimed(w *watched, c *cloud.Cluster, last rollout.Target) {
	set := j.house.sets[w.good.Manifests]
	for _, s := range set.Scalers {
		o := c.Object(s.Key)
		if o == nil {
			continue
		}
		if o.Aimed == s.Workload && c.Object(s.Workload) != nil {
			continue
		}
		carrier := c.Object(o.Aimed)
		if s.Workload.Kind == "StatefulSet" {
			if o.Aimed != s.Workload {
				j.wrongly("%s: after the end (%s) %s scales %s, and not %s", w.name, last.State, s.Key, o.Aimed, s.Workload)
			}
			continue
		}
		if carrier == nil || carrier.Key.Kind != "ReplicaSet" || carrier.Replicas == 0 {
			j.wrongly("%s: after the end (%s) %s scales %s, which carries nothing", w.name, last.State, s.Key, o.Aimed)
		}
	}
}

// restored holds, when a target has ended, that Deployment objects are there which the file keeps, or which were there when it began.
func (j *judge) restored(w *watched, t rollout.Target) {
	good := w.good != nil && w.good.Deployment == t.Deployment
	kept := w.adopted[t.ID]
	if good {
		kept = t.KeepDeployment
	}
	if !kept || t.Removes || strings.Contains(t.Why, "put back") {
		return
	}
	set, c := j.house.sets[t.Manifests], j.house.cloud.Cluster(t.Account)
	for _, r := range set.Revisions {
		o := c.Object(r.Workload)
		if o == nil {
			j.wrongly("%s of #%d is %s (%s), and %s is not there any more", w.name, t.Number, t.State, t.Why, r.Workload)
			return
		}
		var serves []string
		for _, live := range c.Objects() {
			if live.Key.Kind == "ReplicaSet" && live.Workload == r.Workload.Name && live.Key.Namespace == r.Workload.Namespace && live.Replicas > 0 {
				serves = append(serves, live.Hash)
			}
		}
		if !good && len(serves) == 1 && o.From != serves[0] && o.From != "h1" {
			j.wrongly("%s of #%d is %s (%s), and %s has the pods of %s, where those of %s run", w.name, t.Number, t.State, t.Why, r.Workload, o.From, serves[0])
		}
	}
}

// empty holds that nothing is left of a lane that was taken away.
func (j *judge) empty(w *watched, c *cloud.Cluster, last rollout.Target) {
	if last.State != rollout.Succeeded {
		return
	}
	for _, o := range c.Objects() {
		if o.Owner == w.name && !o.Found && o.Run == nil {
			j.wrongly("%s was taken away by #%d, and %s is still there", w.name, last.Number, o.Key)
		}
	}
}
