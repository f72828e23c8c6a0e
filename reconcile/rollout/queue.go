package rollout

import (
	"fmt"
	"slices"
	"time"
)

// Turn is what becomes of a new deployment.
type Turn int

// Turns.
const (
	Begins     Turn = iota // its targets go to their lanes
	IsRefused              // another one is under way
	WaitsForIt             // for the other one to end
)

// Turn of a new deployment, beside another one of its application that is under way or not.
func (s Start) Turn(others bool) Turn {
	switch {
	case others && s.Exclusive == RejectOthers:
		return IsRefused
	case others && (s.Exclusive == EnqueueOne || s.Exclusive == Batch):
		return WaitsForIt
	}
	return Begins
}

// Moves reports whether a target goes to its lane; otherwise it is carried by what the lane was asked for before.
func (s Start) Moves(t StartTarget, others bool) bool {
	return t.Changed || others && s.Exclusive == SupersedeOthers
}

// Displaces says what becomes of a deployment that waited for its turn when this one waits in its place.
func (s Start) Displaces(number int) string {
	if s.Exclusive == Batch {
		return fmt.Sprintf("joined into #%d", number)
	}
	return fmt.Sprintf("replaced by #%d before it started", number)
}

// Execution is a target of this deployment as it comes to its lane.
func (s Start) Execution(id, lane int64, number int, t StartTarget) Target {
	target := s.target(id, lane, number, t)
	target.Authors, target.Skip, target.State, target.Phase = s.Authors, s.Skip, Queued, Waiting
	if s.Observe {
		target.Observe, target.Phase = true, Observing
	}
	if s.Pin {
		target.Pins = &Pin{Why: s.Trigger.Reason, By: s.Trigger.By}
	}
	return target
}

// On is an execution on a lane whose last one was never proved good: what was changed then is changed by this one, too, so those who wrote it did not only
// write the former.
func (t Target) On(unproved *Target) Target {
	if unproved == nil || unproved.Removes || t.Pins != nil {
		return t
	}
	t.Authors = slices.Clone(t.Authors)
	for _, who := range unproved.Authors {
		if !t.wrote(who) {
			t.Authors = append(t.Authors, who)
		}
	}
	return t
}

// Carried is a target of this deployment that nothing has to be done for.
func (s Start) Carried(id, lane int64, number int, t StartTarget) Target {
	target := s.target(id, lane, number, t)
	target.State, target.Phase, target.Why = Succeeded, Finished, "unchanged"
	return target
}

func (s Start) target(id, lane int64, number int, t StartTarget) Target {
	return Target{ID: id, Lane: lane, Deployment: s.ID, Number: number, Commit: s.Origin.Commit, Tenant: s.Tenant, Application: s.Application, Name: t.Name,
		Account: t.Account, Namespace: t.Namespace, Way: t.Way, Digest: t.Digest, Manifests: t.Manifests}
}

// Removal is the execution that takes the objects of a lane away.
func (s Start) Removal(id, lane int64, number int, name, account string) Target {
	return Target{ID: id, Lane: lane, Deployment: s.ID, Number: number, Tenant: s.Tenant, Application: s.Application, Name: name, Account: account,
		Way: Way{Timeout: 30 * time.Minute}, Digest: "removes:" + s.ID, Removes: true, State: Queued, Phase: Waiting}
}

// Queue is what a lane has to do: ids of targets, 0 for none.
type Queue struct{ Current, Next int64 }

// Put puts a target on a lane: at once when the lane is free, else behind what runs, where it takes the place of what waited there.
func (q Queue) Put(target int64) (_ Queue, skipped int64) {
	if q.Current == 0 {
		return Queue{Current: target}, 0
	}
	return Queue{Current: q.Current, Next: target}, q.Next
}

// End frees a lane of its current target for the next one. What was cancelled for it counts as replaced by it.
func (q Queue) End(state State) (_ Queue, replacedBy int64) {
	if state == Cancelled {
		replacedBy = q.Next
	}
	return Queue{Current: q.Next}, replacedBy
}

// Unstarted ends a target that was never its lane's current one.
func (t Target) Unstarted(why string, now time.Time) (Target, Event) {
	t.State, t.Phase, t.Waits, t.Ended, t.Why = Cancelled, Finished, nil, now, why
	return t, Event{At: now, Tenant: t.Tenant, Application: t.Application, Deployment: t.Deployment, Target: t.Name, Who: "towpath", Kind: "target.cancelled",
		What: fmt.Sprintf("%s: #%d is %s", t.Name, t.Number, t.State), Why: why}
}

// Standing is what a lane keeps between deployments.
type Standing struct {
	Wanted, Promise string // digests of the manifests and of the promise last asked for
	Good            *Release
	Pin             *Pin
	Removed         bool
	Replaced        int // deployments that were replaced since the last one that was finished
}

// Unpin lets a lane go that is held at the very manifests which are asked for: nothing is held back any more. Nil: it is not held, or at others.
func (s Standing) Unpin(start Start, t StartTarget) *Event {
	if s.Pin == nil || s.Good == nil || s.Good.Manifests != t.Manifests {
		return nil
	}
	return &Event{At: start.At, Tenant: start.Tenant, Application: start.Application, Deployment: s.Good.Deployment, Target: t.Name, Who: start.Trigger.By,
		Kind: "target.unpinned", What: fmt.Sprintf("%s: what it is held at, #%d, is what is asked for: it is held no longer", t.Name, s.Good.Number)}
}

// Settles reports whether a decision changes what its lane keeps.
func (d Decision) Settles() bool {
	return d.Good != nil || d.Pin != nil || d.Emptied || d.Target.State == Skipped
}

// Settle is what a lane keeps after a decision.
func (s Standing) Settle(d Decision) Standing {
	switch {
	case d.Good != nil:
		s.Good, s.Pin, s.Replaced = d.Good, d.Pin, 0
		if s.Good.Manifests == s.Wanted { // it is what was asked for, so nothing holds it back
			s.Pin = nil
		}
	case d.Pin != nil:
		s.Pin = d.Pin
	case d.Target.State == Skipped: // whatever comes next moves it
		s.Wanted, s.Promise = "", ""
	case d.Emptied:
		s = Standing{Removed: true, Replaced: s.Replaced}
	}
	return s
}

// Stand is a target as others see it that stand on it: ids of the targets that bring it about in its place, 0 for none.
type Stand struct {
	State      State
	CarriedBy  int64
	ReplacedBy int64
}

// Eyes is who looks at a target's state.
type Eyes int

// Eyes: a replaced target has, for those that depend on it, the state of the one which took its place; for its own deployment it is cancelled.
const (
	OfDependents Eyes = iota
	OfDeployment
)

// Seen is a target's state in the eyes of others. A carried one has that of the target that carries it.
func (s Stand) Seen(by Eyes, find func(id int64) (Stand, error)) (State, error) {
	follow := s.CarriedBy
	if by == OfDependents && follow == 0 {
		follow = s.ReplacedBy
	}
	for hops := 0; follow != 0 && hops < 1000; hops++ {
		next, err := find(follow)
		if err != nil {
			return "", err
		}
		s.State, follow = next.State, next.CarriedBy
		if follow == 0 {
			follow = next.ReplacedBy
		}
	}
	return s.State, nil
}
