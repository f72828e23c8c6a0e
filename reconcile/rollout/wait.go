package rollout

import (
	"fmt"
	"slices"

	"towpath/manifest"
)

func (d *decision) wait() {
	t := &d.Target
	if t.Observe && !d.approved(gateFound) {
		d.found()
		return
	}
	waits, broken := dependencies(*t, d.f)
	if broken != "" {
		d.end(Cancelled, broken)
		return
	}
	if len(waits) > 0 {
		d.waiting(Queued, waits...)
		return
	}
	if why := guard(*t, d.f); why != "" && !d.approved(gatePrune) {
		if no := d.said(gatePrune).rejected; no != nil {
			d.end(Cancelled, "not started: "+no.By+" rejected its removals"+because(no.Reason))
			return
		}
		d.waiting(AwaitingApproval, d.pruneWait(why))
		return
	}
	d.enter(Preparing, Running)
	d.prepare()
}

// dependencies lists what t still waits for. broken is a sentence when one of them will never succeed.
func dependencies(t Target, f Facts) (waits []Wait, broken string) {
	if slices.Contains(t.Skip, SkipDependencies) {
		return nil, ""
	}
	for _, name := range t.DependsOn {
		state := f.Dependencies[name]
		switch {
		case state == Succeeded, state == Skipped:
		case state.Final():
			return nil, fmt.Sprintf("not started: %s is %s", name, state)
		default:
			if state == "" {
				state = Queued
			}
			waits = append(waits, Wait{Kind: WaitDependency, Needs: fmt.Sprintf("%s to succeed (now %s)", name, state)})
		}
	}
	return waits, ""
}

// prepare waits for the steps of beforeDeployment, and for an agent where the file says what becomes of a target without one.
func (d *decision) prepare() {
	t := &d.Target
	verdict := d.gates("beforeDeployment", t.Before)
	switch {
	case verdict.failed != "":
		if verdict.expired {
			d.Cancels = &Request{By: "towpath", Reason: verdict.failed, At: d.f.Now}
		}
		d.end(Cancelled, "not started: "+verdict.failed)
		return
	case len(verdict.waits) > 0:
		d.waitingFor(verdict)
		return
	case d.unreachable():
		return
	}
	t.Base, t.Started = d.f.Good, d.f.Now
	d.enter(Looking, Running)
	d.say("target.started", fmt.Sprintf("%s: #%d started", t.Name, t.Number), "")
}

// unreachable ends a target whose agent is away for too long where the file says so.
func (d *decision) unreachable() bool {
	t := &d.Target
	if d.f.Connected || t.Unreachable == WaitForAgent {
		return false
	}
	until := d.f.Now.Add(d.f.Limits.Away)
	for _, w := range t.Waits {
		if w.Kind == WaitAgent {
			until = w.Since.Add(d.f.Limits.Away)
		}
	}
	if d.f.Now.Before(until) {
		d.Due = until
		d.waiting(Running, Wait{Kind: WaitAgent, Until: until, Needs: fmt.Sprintf("the agent %s to connect", t.Account)})
		return true
	}
	if t.Unreachable == SkipUnreachable {
		d.end(Skipped, fmt.Sprintf("the agent %s is not connected, and the file says unreachable: skip", t.Account))
	} else {
		d.end(Failed, fmt.Sprintf("the agent %s is not connected, and the file says unreachable: fail", t.Account))
	}
	return true
}

const gatePrune = "prune"

func (d *decision) approved(gate string) bool {
	return slices.ContainsFunc(d.f.Words, func(w Word) bool { return w.Verb == Approve && d.counts(w, gate) })
}

// counts reports whether a word is about a gate of this very target, as it was promised.
func (d *decision) counts(w Word, gate string) bool {
	return w.Target == d.Target.Name && w.Gate == gate && w.Digest == d.Target.Digest
}

func (d *decision) pruneWait(why string) Wait {
	return Wait{Kind: WaitApproval, Gate: gatePrune, Needs: "a person to approve: " + why, Command: d.command("approve")}
}

func (d *decision) command(verb string) string {
	command := fmt.Sprintf("towpath deploy %s %s %s", verb, d.Target.Deployment, quote(d.Target.Name))
	if verb == "skip" {
		command += " --reason WHY" // it is refused without
	}
	return command
}

// Removals is what the lane has in the cluster and the new manifests no longer name.
func Removals(f Facts) []manifest.Key {
	wanted := make(map[manifest.Key]bool, len(f.New.Objects))
	for _, key := range f.New.Objects {
		wanted[key] = true
	}
	var gone []manifest.Key
	for _, key := range f.Inventory {
		if !wanted[key] {
			gone = append(gone, key)
		}
	}
	slices.SortFunc(gone, manifest.Key.Compare)
	return gone
}

// guard is why removals need a person's word; "" when they do not. Where a whole target goes, as its file or a person says, only what may hold data
// is asked for.
func guard(t Target, f Facts) string {
	gone := Removals(f)
	if t.Removes {
		return precious(gone)
	}
	return guarded(gone, len(f.Inventory), len(f.New.Objects), f.Limits)
}

// Guard is why what is had and no longer wanted goes only when a person approves that; "" when it goes by itself.
func Guard(had, wanted []manifest.Key, limits Limits) string {
	return guarded(Removals(Facts{Inventory: had, New: Set{Objects: wanted}}), len(had), len(wanted), limits)
}

func precious(gone []manifest.Key) string {
	for _, key := range gone {
		if key.Precious() {
			return fmt.Sprintf("it removes %s", key)
		}
	}
	return ""
}

func guarded(gone []manifest.Key, had, has int, limits Limits) string {
	if why := precious(gone); why != "" {
		return why
	}
	if len(gone) > limits.Removals {
		return fmt.Sprintf("it removes %d objects (%d go without asking)", len(gone), limits.Removals)
	}
	if had > 0 && has == 0 {
		return "its manifests are empty"
	}
	if len(gone) > 1 && float64(had-has) > limits.Shrink*float64(had) { // one of two is half of them, and an everyday edit
		return fmt.Sprintf("its manifests shrank from %d objects to %d", had, has)
	}
	return ""
}
