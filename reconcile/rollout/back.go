package rollout

import (
	"fmt"
	"slices"
	"time"

	"towpath/manifest"
)

// give gives up the present way: a rollout goes back, a rollback that cannot be done is left to a person.
func (d *decision) give(why string) {
	t := &d.Target
	switch stage := t.Phase.stage(); {
	case stage == closing:
		d.leaves(why)
	case t.Fails:
		d.end(Failed, t.Why+loosely+why)
	case stage == backwards:
		d.fails(t.Why + "; and going back failed: " + why)
	case stage == untouched:
		d.end(Failed, why)
	default:
		d.revert(RolledBack, why)
	}
}

// loosely is told of a failure that could not even be tidied up.
const loosely = "; its routes and autoscalers could not be made what they were: "

// fails ends in failure, once routes are what they were and autoscalers scale again: whoever sees to it finds nothing half-way but pods.
func (d *decision) fails(why string) {
	t := &d.Target
	loose, aims := d.loosened(), d.aims()
	if t.Phase == Rejoining || len(loose)+len(aims) == 0 {
		d.end(Failed, why)
		return
	}
	t.Why, t.Fails = why, true
	d.intend(Rejoining, Action{Kind: Shift, Divide: loose, Aim: aims})
}

// leaves ends in failure a rollout that is proved, and cannot be tidied up: once routes are what they were, autoscalers scale, and Deployment objects are back.
func (d *decision) leaves(why string) {
	t := &d.Target
	loose, aims := d.loosened(), d.aims()
	tidies := t.Phase != Joining && t.Phase != Restoring && !t.Fails && len(loose)+len(aims) > 0
	const gone = "its Deployment objects could not be put back: "
	switch {
	case t.Fails && t.Phase == Restoring:
		t.Why += "; " + gone + why
	case t.Fails:
		t.Why += loosely + why
	case t.Phase == Restoring:
		t.Why = gone + why + "; what was rolled out stays"
	default:
		t.Why = why + "; what was rolled out stays, and so does what was to go"
	}
	if !t.Fails {
		d.proved()
		t.Fails = true
	}
	switch {
	case tidies:
		d.intend(Joining, Action{Kind: Shift, Divide: loose, Aim: aims})
	case t.Phase == Restoring:
		t.Adopted = nil
		d.end(Failed, t.Why)
	default:
		d.enter(Restoring, Running)
	}
}

// revert goes back to what ran before, or to nothing where nothing did.
func (d *decision) revert(ending State, why string) {
	d.say("target.failing", fmt.Sprintf("%s: #%d goes back", d.Target.Name, d.Target.Number), why)
	d.goBack(ending, why)
}

// goBack begins the way back: traffic first. While the former revisions still have at least half of their pods the new ones go at the same time.
func (d *decision) goBack(ending State, why string) {
	t := &d.Target
	t.Ending, t.Why = ending, why
	d.presume()
	var back Action
	back.Kind = Shift
	for _, p := range t.Pairs {
		if p.Stable == "" {
			continue
		}
		back.Select = append(back.Select, Selection{p.Active, p.Stable})
		if p.Preview != (manifest.Key{}) {
			back.Select = append(back.Select, Selection{p.Preview, p.Stable})
		}
	}
	carried, held := d.carried(), d.divisions(Held)
	for _, f := range t.Former {
		switch {
		case f.Stable && (f.Asked != f.Count || !carried && t.BlueGreen == nil): // what was not ready has to be proved, though nothing is asked of it
			back.Replicas = append(back.Replicas, Replicas{f.Key, f.Count})
		case f.isBaseline(): // it serves as what ran before does, so it goes when the new ones do
			if len(held) == 0 && carried && f.Asked > 0 {
				back.Replicas = append(back.Replicas, Replicas{f.Key, 0})
			}
		case !f.Stable && f.Asked > 0 && d.whole(f):
			back.Replicas = append(back.Replicas, Replicas{f.Key, 0})
		}
	}
	switch {
	case len(held) == 0 && carried:
		back.Replicas = append(back.Replicas, d.withdrawn()...)
	case carried:
		back.Divide = held // and the new ones keep their pods until routers everywhere have heard of it
	}
	t.Open = nil
	d.intend(Returning, back)
}

// presume counts pods that are being asked for as asked for where that is the worse: whether what was intended was done is not known.
func (d *decision) presume() {
	t := &d.Target
	if t.Intent == nil {
		return
	}
	t.Asked, t.Former = slices.Clone(t.Asked), slices.Clone(t.Former)
	for _, r := range t.Intent.Replicas {
		for i := range t.Asked {
			if t.Asked[i].Key == r.Key {
				t.Asked[i].Count = max(t.Asked[i].Count, r.Count)
			}
		}
		for i := range t.Former {
			switch f := t.Former[i]; {
			case f.Key != r.Key:
			case f.isBaseline():
				t.Former[i].Asked = max(f.Asked, r.Count)
			default:
				t.Former[i].Asked = min(f.Asked, r.Count)
			}
		}
	}
}

// carried reports whether the former revisions have at least half of the pods that they had, and had as many ready when this one began. Pods that one is just
// getting back, and that are not proved yet, are not known to carry anything.
func (d *decision) carried() bool {
	t := &d.Target
	growing := func(f Former) bool {
		return f.Stable && slices.ContainsFunc(t.Open, func(p Proof) bool { return p.Key == f.Key && p.Grows })
	}
	return !slices.ContainsFunc(t.Former, growing) &&
		len(t.Former) > 0 && !slices.ContainsFunc(t.Former, func(f Former) bool { return f.Stable && min(f.Asked, f.Ready) < (f.Count+1)/2 })
}

// withdrawn is the new revisions at zero, but for those that carried their workloads before.
func (d *decision) withdrawn() []Replicas {
	var zero []Replicas
	for _, asked := range d.Target.Asked {
		if !slices.Contains(d.Target.Kept, asked.Key) {
			zero = append(zero, Replicas{asked.Key, 0})
		}
	}
	return zero
}

// giveBack carries out what goBack intended.
func (d *decision) giveBack() {
	t := &d.Target
	if !d.acted() {
		return
	}
	if failure := d.f.Outcome.Failure; failure != nil {
		d.failed(failure, func() { d.remake(failure.Error()) })
		return
	}
	d.ask(t.Intent.Replicas)
	t.Open = nil
	for _, live := range d.f.Outcome.Live {
		if slices.ContainsFunc(t.Former, func(f Former) bool { return f.Stable && f.Key == live.Key }) {
			t.Open = append(t.Open, proofOf(live))
		}
	}
	d.enter(Regaining, Running)
	t.Deadline = d.f.Now.Add(t.Timeout)
}

// remake goes back by the last good manifests where what ran before is not there to go back to.
func (d *decision) remake(why string) {
	t := &d.Target
	if t.Base == nil {
		d.give(why)
		return
	}
	d.intend(Reverting, d.reverting())
}

// withdraw brings the failed version's revisions to zero, now that what ran before carries everything.
func (d *decision) withdraw() {
	t := &d.Target
	if t.Intent == nil {
		zero := slices.DeleteFunc(d.withdrawn(), func(r Replicas) bool {
			return slices.ContainsFunc(t.Asked, func(a Replicas) bool { return a.Key == r.Key && a.Count == 0 })
		})
		for _, f := range t.Former {
			if !f.Stable && f.Asked > 0 {
				zero = append(zero, Replicas{f.Key, 0})
			}
		}
		held := d.divisions(Held)
		if len(zero) == 0 && len(held) == 0 && len(d.scalers()) == 0 {
			d.withdrew()
			return
		}
		d.intend(Withdrawing, Action{Kind: Shift, Divide: held, Replicas: zero})
		return
	}
	if !d.done() {
		return
	}
	d.ask(t.Intent.Replicas)
	if len(t.Routes) > 0 || len(d.scalers()) > 0 {
		d.prove(Vacating)
		return
	}
	d.withdrew()
}

// withdrew goes on once traffic is back: to the last good manifests, unless a newer deployment waits, which brings its own. Fleets that took a share are
// brought back even then: what a newer one replaces of them would be left beside the pods of this one.
func (d *decision) withdrew() {
	t := &d.Target
	switch {
	case d.f.ReplacedBy > 0 && (len(t.Fleets) == 0 || t.Reverted):
		d.enter(Clearing, Running)
		d.givesWay()
	case t.Reverted && len(d.superfluous()) > 0:
		d.intend(Withdrawing, Action{Kind: Shift, Replicas: d.superfluous()})
	case t.Base == nil, t.Reverted:
		d.enter(Clearing, Running)
	default:
		d.intend(Reverting, d.reverting())
	}
}

// superfluous is what ran before and is none of the last good manifests', at zero: a rollout that broke off may have left it to serve, and those serve now.
func (d *decision) superfluous() (zero []Replicas) {
	for _, f := range d.Target.Former {
		if f.Asked > 0 && !d.f.Base.has(f.Key) && slices.ContainsFunc(d.f.Base.Revisions, func(r Revision) bool {
			return r.Workload.Name == f.Workload && r.Workload.Namespace == f.Key.Namespace
		}) {
			zero = append(zero, Replicas{f.Key, 0})
		}
	}
	return zero
}

// reverting is the last good manifests, with the pods that their revisions had.
func (d *decision) reverting() Action {
	t := &d.Target
	back := Action{Kind: Apply, Manifests: t.Base.Manifests, StandIns: t.StandIns, Divide: d.divisions(Held), Aim: d.aims(), Share: d.shares(100)}
	for _, r := range d.f.Base.Revisions {
		count := Replicas{r.ReplicaSet, 1}
		if r.Replicas != nil {
			count.Count = *r.Replicas
		}
		for _, f := range t.Former {
			if f.Key == r.ReplicaSet {
				count.Count = f.Count
			}
		}
		for i, full := range t.Full {
			if full.Key == r.ReplicaSet && r.Replicas == nil {
				count.Count = t.Full[i].Count
			}
		}
		back.Replicas = append(back.Replicas, count)
	}
	for _, p := range t.Pairs {
		if p.Stable != "" {
			back.Select = append(back.Select, Selection{p.Active, p.Stable})
		}
	}
	return back
}

// clear removes what the failed version added, but nothing that may hold data, and no workload that ran before it; and revisions too old to keep.
func (d *decision) clear() {
	t := &d.Target
	switch {
	case t.Intent != nil:
		if d.done() {
			d.Drop = slices.Clone(t.Intent.Remove)
			d.rolledBack()
		}
		return
	case len(d.f.New.Revisions) > 0 && d.f.Look == nil:
		d.Read = &Read{Revisions: true}
		return
	case d.f.Look != nil && d.f.Look.Failure != nil:
		failure := d.f.Look.Failure
		d.failed(failure, func() { d.give(failure.Error()) })
		return
	}
	var removals []manifest.Key
	for _, key := range d.f.New.Objects {
		if !slices.Contains(d.f.Base.Objects, key) && !key.Precious() && !d.wasThere(key) {
			removals = append(removals, key)
		}
	}
	if d.f.Look != nil {
		removals = append(removals, d.outdated(d.f.Base)...)
	}
	if len(removals) == 0 {
		d.rolledBack()
		return
	}
	d.intend(Clearing, Action{Kind: Remove, Remove: removals})
}

// wasThere reports whether an object was in the cluster before this deployment: applied by somebody else, or a workload with pods.
func (d *decision) wasThere(key manifest.Key) bool {
	t := &d.Target
	return slices.Contains(t.Found, key) || key.Kind == "Deployment" && (slices.ContainsFunc(t.Former, func(f Former) bool {
		return f.Workload == key.Name && f.Key.Namespace == key.Namespace
	}) || slices.ContainsFunc(d.f.New.Revisions, func(r Revision) bool { return r.Workload == key && slices.Contains(t.Kept, r.ReplicaSet) }))
}

func (d *decision) rolledBack() {
	t := &d.Target
	held := "nothing ran before it, so nothing runs now"
	d.Pin = &Pin{0, t.Why, "towpath", d.f.Now}
	switch {
	case t.Base != nil:
		held = fmt.Sprintf("held at #%d", t.Base.Number)
		d.Pin.Number = t.Base.Number
	case len(t.Former) > 0:
		held = "held at what ran before"
	}
	d.end(t.Ending, t.Why+"; "+held)
}

// failed sorts a failure by what can be done about it: wait for the agent, try again until the deadline, or give up.
func (d *decision) failed(failure *Failure, giveUp func()) {
	t := &d.Target
	switch {
	case failure.Class == Away:
		d.away(fmt.Sprintf("the cluster of %s to answer: %s", t.Account, failure.Text))
		d.Due = d.f.Now.Add(30 * time.Second) // should it have come back before anybody listened
	case failure.Class == Refused, !t.Deadline.IsZero() && !d.f.Now.Before(t.Deadline):
		giveUp()
	default:
		t.Attempts++
		t.NotBefore = d.f.Now.Add(backoff(t.Attempts))
		d.Due = t.NotBefore
		d.waiting(Running, Wait{Kind: WaitRetry, Until: t.NotBefore, Needs: fmt.Sprintf("try %d: %s", t.Attempts+1, failure.Error()), Command: d.command("retry")})
		d.Changed = true
	}
}
