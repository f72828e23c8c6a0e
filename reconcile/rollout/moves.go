package rollout

import (
	"fmt"
	"time"
)

// enter starts a phase with nothing intended and nothing waited for.
func (d *decision) enter(phase Phase, state State) {
	t := &d.Target
	t.Phase, t.State, t.Waits = phase, state, nil
	t.Intent, t.Attempts, t.NotBefore = nil, 0, time.Time{}
	d.Changed = true
}

// intend records an action; it is carried out after the save.
func (d *decision) intend(phase Phase, action Action) {
	d.enter(phase, Running)
	d.Target.Intent = &action
	d.Act = &action
}

// acted reports whether an outcome of the present intent is there; if not, the intent is to be carried out (again).
func (d *decision) acted() bool {
	if d.f.Outcome != nil {
		return true
	}
	d.Act = d.Target.Intent
	return false
}

// done reports whether the present intent was carried out whole, and handles what else came of it.
func (d *decision) done() bool {
	if !d.acted() {
		return false
	}
	if failure := d.f.Outcome.Failure; failure != nil {
		d.failed(failure, func() { d.give(failure.Error()) })
		return false
	}
	return true
}

// waiting records what is waited for. A wait that goes on keeps its beginning; only a wait that differs changes the target.
func (d *decision) waiting(state State, waits ...Wait) {
	t := &d.Target
	for i := range waits {
		waits[i].Since = d.f.Now
		for _, old := range t.Waits {
			if old.Kind == waits[i].Kind {
				waits[i].Since = old.Since
			}
		}
	}
	same := t.State == state && len(waits) == len(t.Waits)
	for i := range waits {
		same = same && t.Waits[i].Kind == waits[i].Kind && t.Waits[i].Needs == waits[i].Needs && t.Waits[i].Until.Equal(waits[i].Until)
	}
	if same {
		return
	}
	if state == AwaitingApproval && t.State != AwaitingApproval {
		d.say("target.awaiting_approval", fmt.Sprintf("%s: waits for approval", t.Name), waits[0].Needs)
	}
	t.State, t.Waits = state, waits
	d.Changed = true
}

// failed sorts a failure by what can be done about it: wait for the agent, try again until the deadline, or give up.
func (d *decision) failed(failure *Failure, giveUp func()) {
	t := &d.Target
	switch {
	case failure.Class == Away:
		d.away(failure.Text)
		d.Due = d.f.Now.Add(30 * time.Second) // should it have come back before anybody listened
	case failure.Class == Refused, !t.Deadline.IsZero() && !d.f.Now.Before(t.Deadline):
		giveUp()
	default:
		t.Attempts++
		t.NotBefore = d.f.Now.Add(backoff(t.Attempts))
		d.Due = t.NotBefore
		d.waiting(Running, Wait{Kind: WaitRetry, Until: t.NotBefore, Needs: fmt.Sprintf("try %d: %s", t.Attempts+1, failure.Error())})
		d.Changed = true
	}
}

// away waits for the cluster's agent. Time without one does not count against the deadline.
func (d *decision) away(why string) {
	t := &d.Target
	if !t.Deadline.IsZero() {
		t.Deadline = d.f.Now.Add(t.Timeout)
	}
	t.NotBefore = time.Time{}
	d.waiting(Running, Wait{Kind: WaitAgent, Needs: fmt.Sprintf("the agent %s to connect: %s", t.Account, why)})
}

// backoff doubles from 1 s to 30 s.
func backoff(attempts int) time.Duration {
	return min(time.Second<<min(attempts-1, 5), 30*time.Second)
}

// give gives up the present way: a rollout goes back, a rollback that cannot be done is left to a person.
func (d *decision) give(why string) {
	t := &d.Target
	switch t.Phase {
	case Reverting, Recovering, Withdrawing, Clearing:
		d.end(Failed, t.Why+"; and going back failed: "+why)
	case Retiring, Pruning:
		d.end(Failed, why)
	default:
		d.revert(RolledBack, why)
	}
}

// revert goes back to the last good release, or to nothing where there was none.
func (d *decision) revert(ending State, why string) {
	t := &d.Target
	t.Ending, t.Why = ending, why
	d.say("target.failing", fmt.Sprintf("%s: #%d goes back", t.Name, t.Number), why)
	if t.Base == nil {
		d.enter(Withdrawing, Running)
		return
	}
	d.intend(Reverting, Action{Kind: Apply, Manifests: t.Base.Manifests, Replicas: d.counts(d.f.Base)})
	t.Deadline = d.f.Now.Add(t.Timeout)
}

func (d *decision) succeed(remark string) {
	t := &d.Target
	if t.Removes {
		d.Emptied = true
	} else {
		d.Good = &Release{Deployment: t.Deployment, Number: t.Number, Manifests: t.Manifests, Digest: t.Digest}
	}
	d.end(Succeeded, remark)
}

// end finishes the target in a final state.
func (d *decision) end(state State, why string) {
	t := &d.Target
	d.enter(Finished, state)
	t.Why, t.Open, t.Ended, t.Deadline = why, nil, d.f.Now, time.Time{}
	kind := map[State]string{Succeeded: "target.succeeded", Failed: "target.failed", Cancelled: "target.cancelled", RolledBack: "target.rolled_back"}[state]
	d.say(kind, fmt.Sprintf("%s: #%d is %s", t.Name, t.Number, state), why)
}

func (d *decision) say(kind, what, why string) {
	t := &d.Target
	d.Events = append(d.Events, Event{At: d.f.Now, Tenant: t.Tenant, Application: t.Application, Deployment: t.Deployment, Target: t.Name,
		Who: "towpath", Kind: kind, What: what, Why: why})
}
