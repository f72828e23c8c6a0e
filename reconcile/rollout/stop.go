package rollout

import (
	"fmt"
	"slices"
	"time"
)

// stopped handles a person's wish to cancel, and a newer deployment that waits for the lane. Both hold in any phase in which something can still
// be left undone: what was proved healthy is finished instead, and its removals are left to the newer deployment.
func (d *decision) stopped() bool {
	t := &d.Target
	replaced := d.f.ReplacedBy > 0 && !d.finishesFirst()
	if d.f.Hold != nil && t.Phase.stage() == moving {
		replaced = false // it stays where it is halted; the newer one waits
	}
	by := fmt.Sprintf("replaced by #%d", d.f.ReplacedBy)
	switch {
	case d.tidies():
		return false
	case replaced && d.halts(by), d.f.Cancel != nil && d.halts(d.f.Cancel.Sentence()):
		return true
	}
	switch t.Phase.stage() {
	case untouched:
		switch {
		case replaced:
			d.end(Cancelled, by)
		case d.f.Cancel != nil:
			d.end(Cancelled, d.f.Cancel.Sentence())
		default:
			return false
		}
		return true
	case moving:
		switch {
		case replaced:
			d.yield(by)
		case d.f.Cancel != nil:
			d.revert(Cancelled, d.f.Cancel.Sentence())
		default:
			return false
		}
		return true
	case closing:
		if t.Phase == Pruning && d.f.ReplacedBy > 0 && t.Intent == nil {
			d.unpruned(fmt.Sprintf("what it no longer holds is left to #%d to remove", d.f.ReplacedBy))
			return true
		}
		return false
	case following:
		switch {
		case replaced:
			d.end(Cancelled, by+" before its afterDeployment had passed; what was rolled out stays")
		case d.f.Cancel != nil:
			d.end(Cancelled, d.f.Cancel.Sentence()+"; what was rolled out stays")
		default:
			return false
		}
		return true
	}
	return d.givesWay()
}

// givesWay lets a rollback be cut short for a newer deployment: at once when traffic is back where it was, else as soon as it is.
func (d *decision) givesWay() bool {
	t := &d.Target
	if d.f.ReplacedBy == 0 {
		return false
	}
	by := fmt.Sprintf("replaced by #%d", d.f.ReplacedBy)
	switch {
	case t.Phase == Returning, t.Phase == Withdrawing, t.Phase == Rejoining, t.Phase == Reinstating:
		return false
	case d.lingers() && d.f.Now.Before(t.Since.Add(d.f.Limits.Yield)):
		return false
	}
	if t.Why != by {
		by = t.Why + "; " + by
	}
	if (len(t.Routes) > 0 || len(d.scalers()) > 0) && (t.Phase == Regaining || t.Phase == Vacating) {
		d.dissolve(by)
		return true
	}
	d.end(Cancelled, by)
	return true
}

// lingers reports whether a rollback waits for something that a newer deployment leaves it some time for.
func (d *decision) lingers() bool {
	t := &d.Target
	return t.Phase == Regaining || t.Phase == Vacating || (t.Phase == Reverting || t.Phase == Recovering) && len(t.Fleets) > 0
}

// finishesFirst reports whether this deployment goes on although a newer one waits: so many before it were replaced that nothing would ever be
// finished here. One that is in trouble itself never stands in the way of what may mend it.
func (d *decision) finishesFirst() bool {
	return d.f.Limits.Replaced > 0 && d.f.Replaced >= d.f.Limits.Replaced && !d.inTrouble() && d.f.Cancel == nil
}

// inTrouble reports whether the target has been waiting for something that should have come by itself: for a quarter of the time that it has.
func (d *decision) inTrouble() bool {
	t := &d.Target
	return t.Attempts > 0 || t.Phase == Settling && !d.f.Now.Before(t.Since.Add(t.Timeout/4))
}

// yield leaves the lane to a newer deployment. Traffic goes back to what ran before, and the new revision to zero, so that the newer one starts from
// where this one did.
func (d *decision) yield(why string) {
	if !d.replaces() {
		d.end(Cancelled, why)
		return
	}
	d.goBack(Cancelled, why)
}

// Sentence says who asked, and why.
func (r Request) Sentence() string {
	if r.Reason == "" {
		return "cancelled by " + r.By
	}
	return "cancelled by " + r.By + ": " + r.Reason
}

// held keeps a target where it is while a person halts it. What was begun is carried out; what goes back goes on, since half-way back nobody is served.
// The time does not count against deadlines and expirations.
func (d *decision) held() bool {
	t := &d.Target
	if d.f.Hold == nil {
		if !t.HeldSince.IsZero() {
			d.release()
		}
		return false
	}
	if t.Intent != nil || t.Phase.stage() == backwards {
		return false
	}
	why := fmt.Sprintf("%s to let it go on: halted by %s", "a person", d.f.Hold.By)
	if d.f.Hold.Reason != "" {
		why += ", " + d.f.Hold.Reason
	}
	if t.HeldSince.IsZero() {
		t.HeldSince, d.Changed = d.f.Now, true
	}
	d.waiting(Paused, Wait{Kind: WaitHold, Needs: why, Command: "towpath unhold --app " + quote(t.Application)})
	return true
}

func (d *decision) release() {
	t := &d.Target
	halted := d.f.Now.Sub(t.HeldSince)
	t.HeldSince = time.Time{}
	t.Since = t.Since.Add(halted)
	if !t.Deadline.IsZero() {
		t.Deadline = t.Deadline.Add(halted)
	}
	t.Waits, d.Changed = nil, true
}

// resting keeps a target still while its agent is away, or while the backoff after trouble lasts.
func (d *decision) resting() bool {
	t := &d.Target
	if d.f.Outcome != nil || d.f.Look != nil {
		return false
	}
	if !t.Phase.waitsOnly() && !d.f.Connected {
		d.away(fmt.Sprintf("the agent %s to connect: no agent is connected", t.Account))
		return true
	}
	if d.f.Now.Before(t.NotBefore) && !d.retried() {
		d.Due = t.NotBefore
		return true
	}
	return false
}

// waitsOnly reports whether a phase needs no cluster while it lasts: what people were asked then is not asked again because an agent was away for a moment.
func (p Phase) waitsOnly() bool {
	return slices.Contains([]Phase{Waiting, Preparing, Pausing, Redirecting, Overlapping, Following}, p)
}

// retried reports whether a person asked for the next try to be made now.
func (d *decision) retried() bool {
	t := &d.Target
	for _, w := range d.f.Words {
		if w.Verb == Retry && w.Target == t.Name && w.At.After(t.NotBefore.Add(-backoff(t.Attempts))) {
			return true
		}
	}
	return false
}
