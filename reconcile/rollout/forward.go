package rollout

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"towpath/manifest"
)

// apply carries manifests to the cluster: the new ones in Applying, the last good ones in Reverting.
func (d *decision) apply() {
	t := &d.Target
	if !d.acted() {
		return
	}
	if failure := d.f.Outcome.Failure; failure != nil {
		d.failed(failure, func() { d.give(failure.Error()) })
		return
	}
	t.Open = d.proofs(d.applied())
	d.shared(t.Intent.Share)
	if t.Phase == Reverting {
		t.Reverted = true
		d.enter(Recovering, Running)
		return
	}
	t.Asked = slices.Clone(t.Intent.Replicas)
	for _, live := range d.f.Outcome.Live {
		if live.Found && !slices.Contains(t.Found, live.Key) {
			t.Found = append(t.Found, live.Key)
		}
	}
	d.say("target.applied", fmt.Sprintf("%s: the manifests of #%d are applied", t.Name, t.Number), "")
	if raise, _ := d.moves(); len(raise) > 0 { // baselines begin when the canary does; they are not among what is applied
		d.enter(Raising, Running) // a person may have halted it meanwhile
		return
	}
	d.enter(Settling, Running)
}

// proofs is what an outcome leaves to be proved: each object that is not healthy yet, each revision of the set, and each fleet that takes the steps.
func (d *decision) proofs(set Set) []Proof {
	var open []Proof
	for _, live := range d.f.Outcome.Live {
		if live.Health != Healthy || set.has(live.Key) || d.Target.moving(live.Key) != nil {
			open = append(open, proofOf(live))
		}
	}
	return open
}

func proofOf(live Live) Proof {
	return Proof{Key: live.Key, UID: live.UID, Generation: live.Generation}
}

// applied is the set that the present phase brings about.
func (d *decision) applied() Set {
	if d.Target.Phase == Reverting || d.Target.Phase == Recovering {
		return d.f.Base
	}
	return d.f.New
}

// raise gives revisions the pods that the next share needs.
func (d *decision) raise() {
	t := &d.Target
	if t.Intent == nil {
		raise, _ := d.moves()
		d.intend(Raising, Action{Kind: Shift, Replicas: raise, Baselines: t.baselinesAmong(raise)})
		return
	}
	if !d.done() {
		return
	}
	grows, applied := t.growing(t.Intent.Replicas), t.Open
	d.ask(t.Intent.Replicas)
	d.prove(Settling)
	for _, proof := range applied {
		if !slices.ContainsFunc(t.Open, func(o Proof) bool { return o.Key == proof.Key }) {
			t.Open = append(t.Open, proof)
		}
	}
	for i, proof := range t.Open {
		t.Open[i].Grows = slices.Contains(grows, proof.Key)
	}
}

// growing is the former revisions that are to have more pods than they were asked for.
func (t Target) growing(replicas []Replicas) (keys []manifest.Key) {
	for _, f := range t.Former {
		if slices.ContainsFunc(replicas, func(r Replicas) bool { return r.Key == f.Key && r.Count > f.Asked }) {
			keys = append(keys, f.Key)
		}
	}
	return keys
}

// settle waits until a fresh read proves each open object healthy.
func (d *decision) settle() {
	t := &d.Target
	if len(t.Open) == 0 {
		d.settled()
		return
	}
	if t.Intent != nil {
		if !d.done() {
			return
		}
		t.Intent, d.f.Outcome, d.f.Look, d.Changed = nil, nil, nil, true
	}
	if d.f.Look == nil {
		d.Read = &Read{}
		for _, proof := range t.Open {
			if moving := t.moving(proof.Key); moving != nil {
				d.Read.Fleets = append(d.Read.Fleets, moving.Share)
			} else {
				d.Read.Objects = append(d.Read.Objects, proof.Key)
			}
		}
		return
	}
	if failure := d.f.Look.Failure; failure != nil {
		drains := t.Phase == Draining || t.Phase == Vacating
		if !drains && failure.Class == Trouble && t.Attempts < 2 && !d.f.Now.Before(t.Deadline) {
			t.Deadline = d.f.Now.Add(backoff(t.Attempts + 2)) // a read that is lost says nothing of what is waited for: it is made again
		}
		d.failed(failure, func() {
			if drains {
				d.settled()
				return
			}
			d.give(failure.Error())
		})
		return
	}
	judged := d.judge()
	d.count()
	switch {
	case judged.broken != "":
		d.give(judged.broken)
	case len(judged.unready) == 0:
		t.Open = nil
		d.settled()
	case len(judged.stuck) > 0:
		deadline := t.Deadline
		d.intend(t.Phase, Action{Kind: Free, Workloads: judged.stuck})
		t.Deadline = deadline // it is still the same that is waited for
	case len(judged.due) > 0:
		d.intend(t.Phase, d.replacing(judged.due))
	case !d.f.Now.Before(t.Deadline) && (t.Phase == Draining || t.Phase == Vacating):
		d.settled() // what shall serve does; the rest goes when it can
	case !d.f.Now.Before(t.Deadline):
		d.give(fmt.Sprintf("not ready within %s: %s", t.Timeout, strings.Join(judged.unready, "; ")))
	case judged.again:
		d.again()
	default:
		d.Due = t.Deadline
		if judged.silent && t.Deadline.Sub(d.f.Now) > askAgain {
			d.Due = d.f.Now.Add(askAgain)
		}
		if t.Attempts > 0 {
			t.Attempts, t.NotBefore, d.Changed = 0, time.Time{}, true
		}
		if d.lingers() && d.f.ReplacedBy > 0 {
			d.Due = t.Since.Add(d.f.Limits.Yield)
		}
		t.Open = judged.open
		d.waiting(Running, Wait{Kind: WaitHealth, Until: t.Deadline, Needs: strings.Join(judged.unready, "; ")})
	}
}

// askAgain is how soon objects are read again whose pods are not labelled as ours, so that no news of them comes.
const askAgain = 10 * time.Second

// judgement is what a look says of the open objects.
type judgement struct {
	open    []Proof
	unready []string // a phrase each
	broken  string   // a sentence when one says itself that it will never be ready
	stuck   []manifest.Key
	due     []Share // of fleets that can go on
	silent  bool    // one has pods of which no news comes
	again   bool    // one was deleted or replaced by somebody: the set has to be applied again
}

func (d *decision) judge() judgement {
	var j judgement
	live := make(map[manifest.Key]Live, len(d.f.Look.Objects)+len(d.f.Look.Fleets))
	for _, l := range slices.Concat(d.f.Look.Objects, d.f.Look.Fleets) {
		live[l.Key] = l
	}
	for _, proof := range d.Target.Open {
		l, read := live[proof.Key]
		switch {
		case !read:
			j.unready = append(j.unready, proof.Key.String()+" could not be read")
		case l.Missing && d.shallHaveNone(proof.Key):
			continue
		case l.Missing:
			j.again = true
			j.unready = append(j.unready, proof.Key.String()+" was deleted")
		case l.UID != proof.UID:
			j.again = true
			j.unready = append(j.unready, proof.Key.String()+" was replaced by another object of that name")
		case l.Generation < proof.Generation:
			j.unready = append(j.unready, proof.Key.String()+" was read as it stood before")
		case d.Target.moving(proof.Key) != nil:
			d.judgeFleet(&j, *d.Target.moving(proof.Key), l)
		case d.shrinks(proof) && l.Within:
		case l.Health == Broken:
			j.broken = sentence(l)
		case l.Health != Healthy:
			j.unready = append(j.unready, sentence(l))
			if l.Stuck {
				j.stuck = append(j.stuck, l.Key)
			}
			j.silent = j.silent || slices.Contains([]string{"StatefulSet", "DaemonSet", "Job"}, l.Key.Kind)
		case l.Key.Kind != "ReplicaSet":
			continue // proved; a revision stays open until all are proved by one and the same read
		}
		j.open = append(j.open, proof)
	}
	return j
}

// shallHaveNone reports whether a revision was asked to have no pods: that it is gone is as good.
func (d *decision) shallHaveNone(key manifest.Key) bool {
	t := &d.Target
	return slices.ContainsFunc(t.Former, func(f Former) bool { return f.Key == key && f.Asked == 0 }) ||
		slices.ContainsFunc(t.Asked, func(r Replicas) bool { return r.Key == key && r.Count == 0 })
}

// shrinks reports whether a revision is a former one that gives its place to the new one: it is proved once it has no more pods than it shall. Whether those
// that are left are ready is not the new one's fault, and the new one may be what mends it.
func (d *decision) shrinks(proof Proof) bool {
	t := &d.Target
	return t.Phase.stage() != backwards && !proof.Grows && slices.ContainsFunc(t.Former, func(f Former) bool { return f.Key == proof.Key && (!f.isBaseline() || f.Asked == 0) })
}

func sentence(l Live) string {
	if l.Message == "" {
		return l.Key.String() + " is not ready"
	}
	return l.Key.String() + ": " + l.Message
}

// again brings the present state about once more, no faster than the backoff.
func (d *decision) again() {
	t := &d.Target
	attempts, deadline := t.Attempts+1, t.Deadline
	switch t.Phase {
	case Regaining:
		d.goBack(t.Ending, t.Why)
	case Recovering:
		d.intend(Reverting, d.reverting())
	default:
		t.Former = slices.Clone(t.Former)
		for i, f := range t.Former {
			if f.isBaseline() {
				t.Former[i].Asked = 0 // it is not among what is applied
			}
		}
		d.intend(Applying, Action{Kind: Apply, Manifests: t.Manifests, Replicas: t.Asked, StandIns: t.StandIns, Leave: d.deferred(), Select: d.selections(false), Share: d.given(), Divide: d.present(), Aim: d.still()})
	}
	t.Attempts, t.Deadline = attempts, deadline
	t.NotBefore = d.f.Now.Add(backoff(attempts))
	d.Act, d.Due = nil, t.NotBefore
}

func (d *decision) settled() {
	t := &d.Target
	switch {
	case t.Phase == Draining:
		d.drained()
	case t.Phase == Vacating:
		d.vacated()
	case t.Phase.stage() == backwards:
		d.enter(Withdrawing, Running)
	case t.BlueGreen != nil && !t.First && len(t.Former) > 0:
		d.say("target.healthy", fmt.Sprintf("%s: all objects of #%d are healthy beside what runs", t.Name, t.Number), "")
		d.enter(Redirecting, Running)
	default:
		d.weigh()
	}
}

// weigh lets fleets replace the pods of the present share, sends traffic where it shall go by now, takes from the former revisions what the present share
// leaves over, then goes to the next step.
func (d *decision) weigh() {
	t := &d.Target
	_, lower := d.moves()
	if d.unshared() {
		d.intend(Replacing, d.replacing(d.shares(t.Weight)))
		return
	}
	if d.undivided() {
		d.intend(Steering, Action{Kind: Shift, Divide: d.divisions(Divided)})
		return
	}
	if len(lower) > 0 {
		d.intend(Lowering, Action{Kind: Shift, Replicas: lower})
		return
	}
	if t.Weight > 0 && t.Weight < 100 && t.Divided == nil {
		d.say("target.weight", fmt.Sprintf("%s: %d %% of the pods run #%d", t.Name, t.Weight, t.Number), t.Progress())
	}
	d.onward()
}

// lower carries out what weigh intended.
func (d *decision) lower() {
	if d.done() {
		d.ask(d.Target.Intent.Replicas)
		d.prove(Settling)
	}
}

// prove enters a phase in which what an action answered with is proved.
func (d *decision) prove(phase Phase) {
	t := &d.Target
	t.Open = nil
	for _, live := range d.f.Outcome.Live {
		t.Open = append(t.Open, proofOf(live))
	}
	d.enter(phase, Running)
	t.Deadline = d.f.Now.Add(t.Timeout)
}

// onward goes to the next step of a canary, and after the last one to the end.
func (d *decision) onward() {
	t := &d.Target
	if t.First || !d.replaces() && !d.waitsToCome() {
		t.Step = len(t.Canary)
	}
	for t.Step < len(t.Canary) {
		step := t.Canary[t.Step]
		if step.Weight == nil {
			d.enter(Pausing, Running)
			return
		}
		t.Step++
		if d.setWeight(*step.Weight) {
			return
		}
	}
	if d.setWeight(100) {
		return
	}
	d.say("target.healthy", fmt.Sprintf("%s: all objects of #%d are healthy", t.Name, t.Number), "")
	d.enter(Completing, Running)
}

// waitsToCome reports whether steps that wait are left.
func (d *decision) waitsToCome() bool {
	t := &d.Target
	return slices.ContainsFunc(t.Canary[min(t.Step, len(t.Canary)):], func(s Step) bool { return s.Weight == nil })
}

// setWeight begins to give the new revisions a share; false when they have it.
func (d *decision) setWeight(weight int) bool {
	t := &d.Target
	t.Weight = weight
	raise, lower := d.moves()
	for _, r := range d.proving() {
		if !slices.ContainsFunc(raise, func(o Replicas) bool { return o.Key == r.Key }) {
			raise = append(raise, r)
		}
	}
	switch {
	case len(raise) > 0:
		d.intend(Raising, Action{Kind: Shift, Replicas: raise, Baselines: t.baselinesAmong(raise)})
	case len(lower) > 0, d.unshared():
		d.weigh()
	default:
		return false
	}
	return true
}

// pause waits at a step of a canary.
func (d *decision) pause() {
	t := &d.Target
	var v verdict
	d.gate(&v, fmt.Sprintf("canary.steps[%d]", t.Step), t.Canary[t.Step])
	if !d.passes(v) {
		return
	}
	t.Step++
	if t.Step < len(t.Canary) && t.Canary[t.Step].Weight == nil && d.setWeight(t.Weight) {
		return // baselines go before the next wait
	}
	d.onward()
}

// redirect waits for the steps of redirectTrafficAfter, then turns the active Services.
func (d *decision) redirect() {
	t := &d.Target
	if d.passes(d.gates("blueGreen.redirectTrafficAfter", t.BlueGreen.Redirect)) && d.steady() {
		d.intend(Switching, Action{Kind: Shift, Select: d.selections(true)})
	}
}

func (d *decision) turn() {
	t := &d.Target
	if d.done() {
		d.enter(Overlapping, Running)
		d.say("target.switched", fmt.Sprintf("%s: traffic goes to #%d", t.Name, t.Number), "")
	}
}

// overlap waits for the steps of shutDownOldVersionAfter.
func (d *decision) overlap() {
	t := &d.Target
	if d.passes(d.gates("blueGreen.shutDownOldVersionAfter", t.BlueGreen.ShutDown)) && d.steady() {
		d.enter(Completing, Running)
	}
}

// steady reports whether one fresh read shows each new revision ready, and waits until it does: how they were before a long wait proves nothing.
func (d *decision) steady() bool {
	t := &d.Target
	if d.f.Look == nil {
		d.Read = &Read{}
		for _, r := range t.Asked {
			d.Read.Objects = append(d.Read.Objects, r.Key)
		}
		return false
	}
	if failure := d.f.Look.Failure; failure != nil {
		if t.Attempts == 0 {
			t.Deadline = d.f.Now.Add(t.Timeout) // the last one was of what came before the wait
		}
		d.failed(failure, func() { d.give(failure.Error()) })
		return false
	}
	var unready []string
	for _, live := range d.f.Look.Objects {
		switch {
		case live.Missing:
			unready = append(unready, live.Key.String()+" was deleted")
		case live.Health != Healthy:
			unready = append(unready, sentence(live))
		}
	}
	if len(unready) == 0 {
		return true
	}
	until := d.f.Now.Add(t.Timeout)
	for _, w := range t.Waits {
		if w.Kind == WaitHealth {
			until = w.Until
		}
	}
	if !d.f.Now.Before(until) {
		d.give(fmt.Sprintf("no longer ready, and not again within %s: %s", t.Timeout, strings.Join(unready, "; ")))
		return false
	}
	d.Due = until
	d.waiting(Running, Wait{Kind: WaitHealth, Until: until, Needs: strings.Join(unready, "; ")})
	return false
}

// complete gives configuration its new content under its own name: everything reads it from now on.
func (d *decision) complete() {
	t := &d.Target
	if t.Intent == nil {
		if left := d.deferred(); len(left) > 0 {
			d.intend(Completing, Action{Kind: Apply, Manifests: t.Manifests, Only: left})
			return
		}
		d.enter(Concluding, Running)
		return
	}
	if d.done() {
		d.enter(Concluding, Running)
	}
}

// retire brings older revisions to zero: the new one carries everything by now.
func (d *decision) retire() {
	t := &d.Target
	if t.Intent == nil {
		var zero []Replicas
		for _, f := range t.Former {
			if f.Asked > 0 {
				zero = append(zero, Replicas{f.Key, 0})
			}
		}
		if len(zero) == 0 {
			d.drained()
			return
		}
		d.intend(Retiring, Action{Kind: Shift, Replicas: zero})
		return
	}
	if d.done() {
		d.ask(t.Intent.Replicas)
		d.prove(Draining)
	}
}

// prune removes what left the manifests, and revisions too old to keep.
func (d *decision) prune() {
	t := &d.Target
	if t.Intent != nil {
		if d.done() {
			d.Drop = slices.Clone(t.Intent.Remove)
			d.enter(Restoring, Running)
		}
		return
	}
	if why := guard(*t, d.f); why != "" && !d.approved(gatePrune) {
		if no := d.said(gatePrune).rejected; no != nil {
			d.unpruned("what it no longer holds stays: " + no.By + " rejected its removal" + because(no.Reason))
			return
		}
		d.waiting(AwaitingApproval, d.pruneWait(why))
		return
	}
	removals := Removals(d.f)
	if len(t.Former) > 0 && d.f.Look == nil {
		d.Read = &Read{Revisions: true}
		return
	}
	if d.f.Look != nil {
		if failure := d.f.Look.Failure; failure != nil {
			d.failed(failure, func() { d.unpruned("older revisions were not removed: " + failure.Error()) })
			return
		}
		removals = append(removals, d.outdated(d.f.New)...)
	}
	if len(removals) == 0 {
		d.enter(Restoring, Running)
		return
	}
	d.intend(Pruning, Action{Kind: Remove, Remove: removals})
}

// unpruned goes on though not all went that was to go.
func (d *decision) unpruned(remark string) {
	d.enter(Restoring, Running)
	d.Target.Why = remark
}

// outdated is each revision at zero beyond the newest Limits.Keep of its workload, but for those of a set.
func (d *decision) outdated(stays Set) []manifest.Key {
	kept := map[string]int{}
	revisions := slices.Clone(d.f.Look.Revisions)
	slices.SortFunc(revisions, func(a, b Live) int { return b.Number - a.Number })
	var keys []manifest.Key
	for _, live := range revisions {
		if live.Replicas > 0 || stays.has(live.Key) {
			continue
		}
		if live.Baseline {
			keys = append(keys, live.Key)
			continue
		}
		workload := live.Key.Namespace + "/" + live.Workload
		if kept[workload]++; kept[workload] > d.f.Limits.Keep {
			keys = append(keys, live.Key)
		}
	}
	return keys
}

// proved records that what was rolled out carries everything: it is what is gone back to from now on, also where tidying up after it fails.
func (d *decision) proved() {
	t := &d.Target
	if t.Removes {
		return
	}
	d.Good = &Release{Deployment: t.Deployment, Number: t.Number, Commit: t.Commit, Manifests: t.Manifests, Digest: t.Digest}
	if t.Pins != nil {
		d.Pin = &Pin{t.Number, t.Pins.Why, t.Pins.By, d.f.Now}
	}
}

// finish records what was rolled out as good, and goes on to what comes after it.
func (d *decision) finish(remark string) {
	t := &d.Target
	d.proved()
	if t.Removes {
		d.Emptied = true
	}
	if len(t.After) == 0 {
		d.end(Succeeded, remark)
		return
	}
	d.enter(Following, Running)
	t.Why = remark
}

// follow waits for the steps of afterDeployment. One that fails undoes nothing, and dependents do not start.
func (d *decision) follow() {
	t := &d.Target
	v := d.gates("afterDeployment", t.After)
	switch {
	case v.failed != "":
		if v.expired {
			d.Cancels = &Request{By: "towpath", Reason: v.failed, At: d.f.Now}
		}
		d.end(Failed, v.failed+"; what was rolled out stays")
	case len(v.waits) > 0:
		d.waitingFor(v)
	default:
		d.end(Succeeded, t.Why)
	}
}
