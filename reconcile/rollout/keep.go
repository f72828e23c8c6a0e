package rollout

import (
	"fmt"
	"slices"

	"towpath/manifest"
)

// restore puts Deployment objects back where the file keeps them; they adopt the revisions.
func (d *decision) restore() {
	t := &d.Target
	var keys []manifest.Key
	for _, r := range d.f.New.Revisions {
		keys = append(keys, r.Workload)
	}
	switch {
	case t.Intent == nil && t.KeepDeployment && len(keys) > 0:
		d.intend(Restoring, Action{Kind: PutBack, Manifests: t.Manifests, Workloads: keys, StandIns: t.StandIns, Aim: d.aimsAt(keys)})
		return
	case t.Intent != nil && !d.done():
		return
	}
	t.Adopted = nil
	if t.Fails {
		d.end(Failed, t.Why)
		return
	}
	d.finish(t.Why)
}

// reinstate puts back, as the last good manifests have them, the Deployment objects that a rollout took over which comes to nothing.
func (d *decision) reinstate() {
	t := &d.Target
	without := func(why string) { d.end(t.Ending, t.Why+"; not put back: "+why) }
	if t.Intent == nil {
		if d.f.Look == nil {
			d.Read = &Read{Revisions: true}
			return
		}
		if failure := d.f.Look.Failure; failure != nil {
			d.failed(failure, func() { without(failure.Error()) })
			return
		}
		back, why := d.reinstated()
		if why != "" {
			without(why)
			return
		}
		d.intend(Reinstating, back)
		return
	}
	if !d.acted() {
		return
	}
	if failure := d.f.Outcome.Failure; failure != nil {
		d.failed(failure, func() { without(failure.Error()) })
		return
	}
	d.end(t.Ending, t.Why)
}

// reinstated is the Deployment objects around the revisions that carry their workloads. why they are not put back: where pods of several revisions run, a
// Deployment object would take those of all but one away, and it is for a person to say which.
func (d *decision) reinstated() (back Action, why string) {
	t := &d.Target
	back = Action{Kind: PutBack, Manifests: t.Base.Manifests, Aim: d.aimsAt(t.Adopted)}
	for _, r := range d.f.Base.Revisions {
		if !slices.Contains(t.Adopted, r.Workload) {
			continue
		}
		carriers := slices.DeleteFunc(slices.Clone(d.f.Look.Revisions), func(l Live) bool {
			return l.Replicas == 0 || l.Workload != r.Workload.Name || l.Key.Namespace != r.Workload.Namespace
		})
		if len(carriers) != 1 {
			return back, fmt.Sprintf("pods of %d revisions of %s run", len(carriers), r.Workload)
		}
		made := r.ReplicaSet
		if i := slices.IndexFunc(t.StandIns, func(s StandIn) bool { return s.Is == made }); i >= 0 {
			made = t.StandIns[i].For
		}
		back.Workloads = append(back.Workloads, r.Workload)
		back.StandIns = append(back.StandIns, StandIn{made, carriers[0].Key, carriers[0].Hash})
	}
	return back, ""
}
