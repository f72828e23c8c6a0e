package rollout

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// enter starts a phase with nothing intended and nothing waited for.
func (d *decision) enter(phase Phase, state State) {
	t := &d.Target
	t.Phase, t.State, t.Waits = phase, state, nil
	t.Intent, t.Attempts, t.NotBefore, t.Since = nil, 0, time.Time{}, d.f.Now
	d.Changed = true
}

// intend records an action; it is carried out after the save, and what keeps it from being done has until the deadline to pass.
func (d *decision) intend(phase Phase, action Action) {
	t := &d.Target
	d.enter(phase, Running)
	t.Intent, t.Deadline = &action, d.f.Now.Add(t.Timeout)
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
			if old.Kind == waits[i].Kind && old.Gate == waits[i].Gate {
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
		asked := waits[slices.IndexFunc(waits, func(w Wait) bool { return w.Kind == WaitApproval })]
		d.say("target.awaiting_approval", fmt.Sprintf("%s: waits for approval", t.Name), asked.Needs)
	}
	t.State, t.Waits = state, waits
	d.Changed = true
}

// away waits for the cluster's agent. Time without one does not count against the deadline.
func (d *decision) away(needs string) {
	t := &d.Target
	if !t.Deadline.IsZero() {
		t.Deadline = d.f.Now.Add(t.Timeout)
	}
	t.NotBefore = time.Time{}
	d.waiting(Running, Wait{Kind: WaitAgent, Needs: needs})
}

// backoff doubles from 1 s to 30 s.
func backoff(attempts int) time.Duration {
	return min(time.Second<<min(attempts-1, 5), 30*time.Second)
}

// end finishes the target in a final state, once the Deployment objects that it took over are back.
func (d *decision) end(state State, why string) {
	t := &d.Target
	if len(t.Adopted) > 0 && t.Base != nil && t.Phase != Reinstating {
		t.Ending, t.Why, t.Deadline = state, why, d.f.Now.Add(t.Timeout)
		d.enter(Reinstating, Running)
		return
	}
	d.enter(Finished, state)
	t.Why, t.Open, t.Ended, t.Deadline = why, nil, d.f.Now, time.Time{}
	kind := map[State]string{Succeeded: "target.succeeded", Failed: "target.failed", Cancelled: "target.cancelled", RolledBack: "target.rolled_back", Skipped: "target.skipped"}[state]
	d.say(kind, fmt.Sprintf("%s: #%d is %s", t.Name, t.Number, state), why)
}

func (d *decision) say(kind, what, why string) {
	t := &d.Target
	d.Events = append(d.Events, Event{At: d.f.Now, Tenant: t.Tenant, Application: t.Application, Deployment: t.Deployment, Target: t.Name,
		Who: "towpath", Kind: kind, What: what, Why: why})
}

// quote makes a name fit to be one word of a shell command.
func quote(name string) string {
	if strings.ContainsFunc(name, func(r rune) bool {
		return !strings.ContainsRune("-_.:/@%+=", r) && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) {
		return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
	}
	return name
}
