package rollout

import (
	"time"

	"towpath/manifest"
)

// Decision is what Decide says: what the target becomes, what to read or do next, and what people are told. With neither Read nor Act and
// nothing Changed there is nothing to do until a fact changes, or Due.
type Decision struct {
	Target  Target
	Changed bool           // Target differs from what was decided upon: it has to be saved before Act
	Read    *Read          // to be read afresh; then decide again
	Act     *Action        // to be carried out once Target is saved; then decide again
	Due     time.Time      // decide again at the latest then; zero: when a fact changes
	Claim   []manifest.Key // to be in the lane's inventory before Act
	Drop    []manifest.Key // no longer in the cluster, so no longer in the inventory
	Good    *Release       // the lane's last good release from now on
	Pin     *Pin           // the lane is held from now on; with Good and no Pin it no longer is
	Emptied bool           // the lane holds nothing any more
	Cancels *Request       // the whole deployment is to stop
	Calls   []Call         // to be made by somebody; each is decided upon again when it is answered
	Judges  []string       // sums of analyses that report at first and were judged now
	Exposes []Link         // to be recorded: they hold from then on
	Events  []Event
}

// Decide says what moves t forward, what t becomes, and why. It is a pure function of its arguments. A new phase is decided upon at once: what needs neither
// a read nor an action is passed through without a save of its own.
func Decide(t Target, f Facts) Decision {
	d := &decision{Decision{Target: t}, f}
	for {
		phase := d.Target.Phase
		d.f.New, d.f.Base = d.resolve(f.New), d.resolve(f.Base)
		d.step()
		if d.Target.Phase == phase || d.Read != nil || d.Act != nil {
			return d.Decision
		}
		d.f.Look, d.f.Outcome = nil, nil // they answered the phase that is over
	}
}

// step decides within the present phase.
func (d *decision) step() {
	switch {
	case d.Target.State.Final():
	case d.stopped():
	case d.held():
	case d.resting():
	default:
		d.phase()
	}
}

// decision is a Decision being made, beside the facts it is made from.
type decision struct {
	Decision
	f Facts
}

func (d *decision) phase() {
	switch d.Target.Phase {
	case Observing:
		d.observe()
	case Comparing:
		d.compare()
	case Waiting:
		d.wait()
	case Preparing:
		d.prepare()
	case Looking:
		d.look()
	case Adopting:
		d.adopt()
	case Hooking:
		d.hook(d.begin)
	case Concluding:
		d.hook(func() { d.enter(Opening, Running) })
	case Holding:
		d.hold()
	case Applying, Reverting:
		d.apply()
	case Raising:
		d.raise()
	case Settling, Draining, Recovering, Regaining, Vacating:
		d.settle()
	case Steering:
		d.steer()
	case Replacing:
		d.replace()
	case Lowering:
		d.lower()
	case Pausing:
		d.pause()
	case Redirecting:
		d.redirect()
	case Switching:
		d.turn()
	case Overlapping:
		d.overlap()
	case Completing:
		d.complete()
	case Opening:
		d.open()
	case Retiring:
		d.retire()
	case Joining, Rejoining:
		d.join()
	case Pruning:
		d.prune()
	case Restoring:
		d.restore()
	case Following:
		d.follow()
	case Returning:
		d.giveBack()
	case Withdrawing:
		d.withdraw()
	case Clearing:
		d.clear()
	case Reinstating:
		d.reinstate()
	}
}

// stage is a part of the way in which the same may be done about a wish to stop.
type stage int

const (
	untouched stage = iota // nothing that runs is other than it was
	moving                 // what runs before can still carry everything, and does when it goes back
	closing                // the new version carries everything and what is left is tidied up
	following              // all is done but what comes after it
	backwards              // it goes back
)

func (p Phase) stage() stage {
	switch p {
	case Observing, Comparing, Waiting, Preparing, Looking, Adopting, Hooking:
		return untouched
	case Retiring, Draining, Joining, Pruning, Restoring:
		return closing
	case Following:
		return following
	case Returning, Regaining, Withdrawing, Vacating, Rejoining, Reverting, Recovering, Clearing, Reinstating:
		return backwards
	}
	return moving
}
