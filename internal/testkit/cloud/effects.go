package cloud

import (
	"context"
	"fmt"
	"slices"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// scale gives a ReplicaSet a count, at once; its pods follow.
func (c *Cluster) scale(by Request, o *Object, count int32) {
	if o.Replicas == count {
		return
	}
	c.cloud.tell(Change{Request: by, Cluster: c, Kind: "scale", Key: o.Key, From: o.Replicas, To: count})
	if count < o.Replicas {
		o.gone += o.Replicas - count
		o.Ready = min(o.Ready, count)
		o.Proved = min(o.Proved, count)
	}
	o.Replicas = count
	o.Generation++
	c.judge(o)
	c.later(o, by.Lane)
}

// later lets the pods of a ReplicaSet do what was asked: those that shall go are gone after a while, the others become ready, or never do.
func (c *Cluster) later(o *Object, lane string) {
	generation, fate := o.Generation, c.pods[o.Key]
	after := fate.After + c.cloud.delay(200)
	c.cloud.World.After(after, func() {
		if o.Generation != generation {
			return
		}
		if o.gone = 0; fate.Never == "" {
			o.Ready = o.Replicas
		}
		c.judge(o)
		c.happened(lane)
	})
}

// judge says how a ReplicaSet does.
func (c *Cluster) judge(o *Object) {
	fate := c.pods[o.Key]
	o.Within = o.gone == 0
	switch {
	case o.gone > 0:
		o.Health, o.Message = rollout.Progressing, fmt.Sprintf("%d pods on their way out", o.gone)
	case o.Ready >= o.Replicas:
		o.Health, o.Message = rollout.Healthy, ""
	default:
		o.Health, o.Message = rollout.Progressing, fmt.Sprintf("%d of %d pods ready", o.Ready, o.Replicas)
		if fate.Never != "" {
			o.Message += ": " + fate.Never
		}
	}
}

// write is a request that changes something; it passes the points at which a test may kill the sender.
func (r *reach) write(ctx context.Context, what string, effect func() *rollout.Failure) *rollout.Failure {
	r.Cloud.pass("before " + what)
	failure := r.request(ctx, effect)
	r.Cloud.pass("after " + what)
	return failure
}

// Apply implements reconcile.Cluster.
func (r *reach) Apply(ctx context.Context, id rollout.Identity, objects []manifest.Object, a rollout.Action) (out rollout.Outcome) {
	by := r.From(id)
	set := r.Cloud.Names(objects)
	for _, o := range objects {
		if slices.Contains(a.Leave, o.Key) || len(a.Only) > 0 && !slices.Contains(a.Only, o.Key) || o.Kind == "Deployment" {
			continue
		}
		one := r.applyOne
		if isFleet(o.Key) {
			one = r.applyFleet
		}
		live, failure := one(ctx, by, set, o, a)
		if failure != nil {
			out.Failure = failure
			return out
		}
		out.Live = append(out.Live, live)
	}
	for _, s := range a.Select {
		if !slices.ContainsFunc(objects, func(o manifest.Object) bool { return o.Key == s.Service }) {
			if failure := r.aim(ctx, by, s); failure != nil {
				out.Failure = failure
				return out
			}
		}
	}
	if len(a.Only) > 0 {
		return out
	}
	for _, revision := range set.Revisions {
		live, failure := r.applyRevision(ctx, id, by, revision, a)
		if failure != nil {
			out.Failure = failure
			return out
		}
		out.Live = append(out.Live, live)
	}
	return out
}

func (r *reach) applyOne(ctx context.Context, by Request, set rollout.Set, o manifest.Object, a rollout.Action) (live rollout.Live, failure *rollout.Failure) {
	failure = r.write(ctx, "apply "+o.Key.String(), func() *rollout.Failure {
		if text := r.at.refuses[o.Source]; text != "" && o.Kind == "ConfigMap" {
			return &rollout.Failure{Class: rollout.Refused, Object: o.Key, Text: text}
		}
		there := r.at.objects[o.Key]
		selects, turns := "", false
		for _, s := range a.Select {
			if s.Service == o.Key {
				selects, turns = s.Hash, true
			}
		}
		aimed := r.at.aimOf(set, o.Key, a.Aim)
		if there == nil || there.From != o.Source || turns && there.Selects != selects || there.Aimed != aimed {
			change := Change{Request: by, Cluster: r.at, Kind: "apply", Key: o.Key}
			if turns && there != nil && there.Selects != selects {
				change.Kind, change.Hash, change.Was = "turn", selects, there.Selects
			}
			r.Cloud.tell(change)
			foreign := there != nil && there.Owner == ""
			there = r.at.put(o.Key)
			there.Owner, there.From, there.Found = by.Lane, o.Source, there.Found || foreign
			if there.Generation++; turns {
				there.Selects = selects
			}
			there.Aimed = aimed
			if o.Kind == "Service" {
				there.Selector = map[string]string{"app": "web"}
			}
			r.at.happened(by.Lane)
		}
		live = there.Live
		return nil
	})
	return live, failure
}

func (r *reach) applyRevision(ctx context.Context, id rollout.Identity, by Request, revision rollout.Revision, a rollout.Action) (live rollout.Live, failure *rollout.Failure) {
	count := int32(1)
	for _, s := range a.StandIns {
		if s.For == revision.ReplicaSet {
			return r.scaleTo(ctx, by, s.Is, a.Replicas)
		}
	}
	for _, n := range a.Replicas {
		if n.Key == revision.ReplicaSet {
			count = n.Count
		}
	}
	created := false
	failure = r.write(ctx, "create revision of "+revision.Workload.String(), func() *rollout.Failure {
		if there := r.at.objects[revision.ReplicaSet]; there != nil {
			return nil
		}
		created = true
		r.Cloud.tell(Change{Request: by, Cluster: r.at, Kind: "create", Key: revision.ReplicaSet, To: count})
		o := r.at.put(revision.ReplicaSet)
		o.Owner, o.Workload, o.Hash, o.Number, o.Replicas = by.Lane, revision.Workload.Name, revision.Hash, id.Number, count
		r.at.judge(o)
		r.at.later(o, by.Lane)
		live = o.Live
		return nil
	})
	if failure != nil || created {
		return live, failure
	}
	return r.scaleTo(ctx, by, revision.ReplicaSet, []rollout.Replicas{{Key: revision.ReplicaSet, Count: count}})
}

// scaleTo reads a ReplicaSet and gives it the count that replicas say, as it was read.
func (r *reach) scaleTo(ctx context.Context, by Request, key manifest.Key, replicas []rollout.Replicas) (live rollout.Live, failure *rollout.Failure) {
	i := slices.IndexFunc(replicas, func(n rollout.Replicas) bool { return n.Key == key })
	found := false
	if failure = r.request(ctx, func() *rollout.Failure {
		o := r.at.objects[key]
		if found = o != nil; found {
			live = o.Live
		}
		return nil
	}); failure != nil {
		return live, failure
	}
	switch {
	case !found && (i < 0 || replicas[i].Count == 0):
		return rollout.Live{}, nil
	case !found:
		return live, &rollout.Failure{Class: rollout.Refused, Object: key, Text: fmt.Sprintf("it is not there, so it cannot have %d pods", replicas[i].Count)}
	case i < 0 || live.Replicas == replicas[i].Count:
		return live, nil
	}
	read := live
	failure = r.write(ctx, "scale "+key.String(), func() *rollout.Failure {
		o := r.at.objects[key]
		if o == nil || o.UID != read.UID || o.Generation != read.Generation || r.Cloud.happens(r.Cloud.Faults.Conflict) {
			return &rollout.Failure{Class: rollout.Trouble, Object: key, Text: "somebody changed it between the read and the write"}
		}
		r.at.scale(by, o, replicas[i].Count)
		live = o.Live
		return nil
	})
	return live, failure
}

// aim reads a Service and turns it, as it was read.
func (r *reach) aim(ctx context.Context, by Request, s rollout.Selection) *rollout.Failure {
	found, selects, generation := false, "", int64(0)
	if failure := r.request(ctx, func() *rollout.Failure {
		if o := r.at.objects[s.Service]; o != nil {
			found, selects, generation = true, o.Selects, o.Generation
		}
		return nil
	}); failure != nil {
		return failure
	}
	switch {
	case !found:
		return &rollout.Failure{Class: rollout.Refused, Object: s.Service, Text: "it is not there, so no traffic can be turned by it"}
	case selects == s.Hash:
		return nil
	}
	return r.write(ctx, "turn "+s.Service.String(), func() *rollout.Failure {
		o := r.at.objects[s.Service]
		if o == nil || o.Generation != generation || r.Cloud.happens(r.Cloud.Faults.Conflict) {
			return &rollout.Failure{Class: rollout.Trouble, Object: s.Service, Text: "somebody changed it between the read and the write"}
		}
		r.Cloud.tell(Change{Request: by, Cluster: r.at, Kind: "turn", Key: s.Service, Hash: s.Hash, Was: o.Selects})
		o.Selects = s.Hash
		o.Generation++
		return nil
	})
}

// RouterKey is the object that stands for a router.
func RouterKey(r rollout.Route) manifest.Key {
	return manifest.Key{Group: "routers.test", Kind: "Router", Namespace: r.Namespace, Name: r.Name}
}

// Routes implements reconcile.Cluster: each route is for the workload "web".
func (r *reach) Routes(ctx context.Context, _ rollout.Identity, _ []manifest.Object, wanted []rollout.Route) (found []rollout.Route, failure *rollout.Failure) {
	failure = r.request(ctx, func() *rollout.Failure {
		found = slices.Clone(wanted)
		for i := range found {
			found[i].Service, found[i].Selector = "web", map[string]string{"app": "web"}
		}
		return nil
	})
	return found, failure
}

// divide brings one division about, as its object was read.
func (r *reach) divide(ctx context.Context, by Request, d rollout.Division) *rollout.Failure {
	var read Object
	if failure := r.request(ctx, func() *rollout.Failure {
		read = *r.at.put(RouterKey(d.Route))
		return nil
	}); failure != nil {
		return failure
	}
	if was := read.Divided; was.Stage == d.Stage && was.Weight == d.Weight && was.Compared == d.Compared && was.Stable == d.Stable && was.New == d.New || was.Stage == "" && d.Stage == rollout.Whole {
		return nil
	}
	return r.write(ctx, "divide "+RouterKey(d.Route).String(), func() *rollout.Failure {
		o := r.at.objects[RouterKey(d.Route)]
		if o == nil || o.Generation != read.Generation || r.Cloud.happens(r.Cloud.Faults.Conflict) {
			return &rollout.Failure{Class: rollout.Trouble, Object: RouterKey(d.Route), Text: "somebody changed it between the read and the write"}
		}
		r.Cloud.tell(Change{Request: by, Cluster: r.at, Kind: "divide", Key: o.Key, Division: d})
		o.Divided = d
		if d.Stage == rollout.Whole {
			o.Divided = rollout.Division{}
		}
		o.Generation++
		return nil
	})
}

// aimOf is what an autoscaler scales once it is applied: what it is aimed at, else what its manifest says; zero: it is none.
func (c *Cluster) aimOf(set rollout.Set, key manifest.Key, aims []rollout.Aim) (at manifest.Key) {
	for _, s := range set.Scalers {
		if s.Key == key {
			at = s.Workload
		}
	}
	for _, a := range aims {
		if a.Scaler == key {
			at = a.At
		}
	}
	return at
}

// aimAll aims the autoscalers that shall rest, or those that shall scale.
func (r *reach) aimAll(ctx context.Context, by Request, aims []rollout.Aim, rest bool) *rollout.Failure {
	for _, a := range aims {
		if rest != (a.At.Kind == "Deployment") {
			continue
		}
		if failure := r.write(ctx, "aim "+a.Scaler.String(), func() *rollout.Failure {
			if o := r.at.objects[a.Scaler]; o != nil && o.Aimed != a.At {
				r.Cloud.tell(Change{Request: by, Cluster: r.at, Kind: "aim", Key: o.Key})
				o.Aimed = a.At
			}
			return nil
		}); failure != nil {
			return failure
		}
	}
	return nil
}

// Shift implements reconcile.Cluster.
func (r *reach) Shift(ctx context.Context, id rollout.Identity, a rollout.Action) (out rollout.Outcome) {
	by := r.From(id)
	if out.Failure = r.aimAll(ctx, by, a.Aim, true); out.Failure != nil {
		return out
	}
	for _, s := range a.Select {
		if failure := r.aim(ctx, by, s); failure != nil {
			out.Failure = failure
			return out
		}
	}
	for _, d := range a.Divide {
		if failure := r.divide(ctx, by, d); failure != nil {
			out.Failure = failure
			return out
		}
	}
	for _, b := range a.Baselines {
		if out.Failure = r.baseline(ctx, by, b); out.Failure != nil {
			return out
		}
	}
	for _, n := range a.Replicas {
		live, failure := r.scaleTo(ctx, by, n.Key, a.Replicas)
		if failure != nil {
			out.Failure = failure
			return out
		}
		if live.UID != "" {
			out.Live = append(out.Live, live)
		}
	}
	out.Failure = r.aimAll(ctx, by, a.Aim, false)
	return out
}

// baseline makes a copy of a revision, without pods yet.
func (r *reach) baseline(ctx context.Context, by Request, b rollout.Baseline) *rollout.Failure {
	return r.write(ctx, "create baseline "+b.Key.String(), func() *rollout.Failure {
		of := r.at.objects[b.Of]
		switch {
		case of == nil:
			return &rollout.Failure{Class: rollout.Refused, Object: b.Of, Text: "it is not there, so no canary can be compared with it"}
		case r.at.objects[b.Key] != nil:
			return nil
		}
		r.Cloud.tell(Change{Request: by, Cluster: r.at, Kind: "create", Key: b.Key})
		o := r.at.put(b.Key)
		o.Owner, o.Workload, o.Hash, o.Number, o.Baseline = by.Lane, of.Workload, b.Hash, of.Number, true
		r.at.judge(o)
		r.at.later(o, by.Lane)
		return nil
	})
}

// Adopt implements reconcile.Cluster. What a Deployment object has the pods of stands in From.
func (r *reach) Adopt(ctx context.Context, id rollout.Identity, objects []manifest.Object, a rollout.Action) rollout.Outcome {
	by, set := r.From(id), r.Cloud.Names(objects)
	for _, key := range a.Workloads {
		if failure := r.write(ctx, "adopt "+key.String(), func() *rollout.Failure {
			deployment := r.at.objects[key]
			if deployment == nil {
				return nil
			}
			r.Cloud.tell(Change{Request: by, Cluster: r.at, Kind: "adopt", Key: key})
			for _, o := range r.at.Objects() {
				if !o.revisionOf(key) || o.Owner != "" && o.Owner != by.Lane {
					continue
				}
				o.Owner = by.Lane
				for _, revision := range set.Revisions {
					if revision.Workload == key && revision.Hash == deployment.From && o.Replicas > 0 && o.Key != revision.ReplicaSet {
						o.StandsFor = revision.ReplicaSet.Name
					}
				}
			}
			delete(r.at.objects, key)
			return nil
		}); failure != nil {
			return rollout.Outcome{Failure: failure}
		}
	}
	return rollout.Outcome{}
}

// revisionOf reports whether an object is a ReplicaSet of a Deployment object.
func (o *Object) revisionOf(workload manifest.Key) bool {
	return o.Key.Kind == "ReplicaSet" && o.Workload == workload.Name && o.Key.Namespace == workload.Namespace
}

// PutBack implements reconcile.Cluster: the Deployment object has the revision that runs.
func (r *reach) PutBack(ctx context.Context, id rollout.Identity, objects []manifest.Object, a rollout.Action) (out rollout.Outcome) {
	by, set := r.From(id), r.Cloud.Names(objects)
	for _, revision := range set.Revisions {
		if !slices.Contains(a.Workloads, revision.Workload) {
			continue
		}
		key := revision.ReplicaSet
		if i := slices.IndexFunc(a.StandIns, func(s rollout.StandIn) bool { return s.For == key }); i >= 0 {
			key = a.StandIns[i].Is
		}
		if failure := r.write(ctx, "put back "+revision.Workload.String(), func() *rollout.Failure {
			adopted := r.at.objects[key]
			if adopted == nil {
				return &rollout.Failure{Class: rollout.Refused, Object: revision.Workload, Text: "the revision that it would adopt is not there"}
			}
			r.Cloud.tell(Change{Request: by, Cluster: r.at, Kind: "putBack", Key: revision.Workload})
			o := r.at.put(revision.Workload)
			if o.Owner, o.From = by.Lane, adopted.Hash; adopted.StandsFor == revision.ReplicaSet.Name {
				o.From = revision.Hash
			}
			o.Generation++
			out.Live = append(out.Live, o.Live)
			return nil
		}); failure != nil {
			return rollout.Outcome{Failure: failure}
		}
	}
	out.Failure = r.aimAll(ctx, by, a.Aim, true)
	return out
}

// Remove implements reconcile.Cluster.
func (r *reach) Remove(ctx context.Context, id rollout.Identity, keys []manifest.Key) rollout.Outcome {
	by := r.From(id)
	for _, key := range keys {
		if failure := r.removeOne(ctx, by, key, key.String(), ""); failure != nil {
			return rollout.Outcome{Failure: failure}
		}
	}
	return rollout.Outcome{}
}

// removeOne removes an object of the lane, or the revisions of a Deployment object; with a uid, only that very one.
func (r *reach) removeOne(ctx context.Context, by Request, key manifest.Key, what, uid string) *rollout.Failure {
	return r.write(ctx, "remove "+what, func() *rollout.Failure {
		for _, o := range r.at.Objects() {
			if meant := o.Key == key || key.Kind == "Deployment" && o.revisionOf(key); !meant || o.Owner != by.Lane || uid != "" && o.UID != uid || o.Run != nil && !o.Run.There {
				continue
			}
			r.Cloud.tell(Change{Request: by, Cluster: r.at, Kind: "remove", Key: o.Key, From: o.Replicas})
			r.at.dismiss(o)
		}
		return nil
	})
}

// Look implements reconcile.Cluster: a read that arrives is fresh, and what it shows ready is proved so.
func (r *reach) Look(ctx context.Context, id rollout.Identity, read rollout.Read, namespaces []string) (look rollout.Look) {
	by := r.From(id)
	failure := r.request(ctx, func() *rollout.Failure {
		look = rollout.Look{Objects: r.at.lives(read.Objects), Others: r.at.lives(read.Others), Workloads: r.at.lives(read.Workloads), Fleets: r.at.fleets(read.Fleets)}
		if read.Revisions {
			for _, o := range r.at.Objects() {
				if o.Key.Kind == "ReplicaSet" && o.Owner == by.Lane && slices.Contains(namespaces, o.Key.Namespace) {
					look.Revisions = append(look.Revisions, o.Live)
				}
			}
		}
		return nil
	})
	if failure != nil {
		return rollout.Look{Failure: failure}
	}
	for _, lives := range [][]rollout.Live{look.Objects, look.Revisions} {
		for _, l := range lives {
			if o := r.at.objects[l.Key]; o != nil && o.UID == l.UID && o.Generation == l.Generation {
				o.Proved = l.Ready
			}
		}
	}
	if r.Reads != nil {
		look = r.Reads(look)
	}
	return look
}

// Survey implements reconcile.Cluster: the objects of a target are as they were applied, so what differs is missing.
func (r *reach) Survey(ctx context.Context, k rollout.Kept, objects []manifest.Object, _ []string) (look rollout.Look) {
	by := r.From(k.Identity)
	failure := r.request(ctx, func() *rollout.Failure {
		for _, o := range objects {
			if o.Kind != "Deployment" && r.at.objects[o.Key] == nil {
				look.Drifts = append(look.Drifts, rollout.Drift{Key: o.Key, Of: o.Key, Missing: true})
			}
		}
		for _, o := range r.at.Objects() {
			if o.Owner == by.Lane && o.Key.Kind != "ReplicaSet" && o.Run == nil {
				look.Claims = append(look.Claims, o.Key)
			}
		}
		return nil
	})
	if failure != nil {
		return rollout.Look{Failure: failure}
	}
	return look
}

func (c *Cluster) lives(keys []manifest.Key) []rollout.Live {
	lives := make([]rollout.Live, len(keys))
	for i, key := range keys {
		lives[i] = rollout.Live{Key: key, Missing: true}
		if o := c.objects[key]; o != nil {
			lives[i] = o.Live
			if key.Kind == "Service" {
				lives[i].Ports = []rollout.Port{{Protocol: "TCP", Number: 80}}
			}
		}
	}
	return lives
}
