package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"towpath/manifest"
)

// Hook is an object of the manifests that is made at an event, waited for, and is no part of what is kept.
type Hook struct {
	Key manifest.Key
	manifest.Hook
}

// HooksFrom makes the hooks of a set, in the order in which they run.
func HooksFrom(objects []manifest.Object) (hooks []Hook) {
	for _, o := range objects {
		if h := o.Hook(); h != nil {
			hooks = append(hooks, Hook{o.Key, *h})
		}
	}
	slices.SortStableFunc(hooks, func(a, b Hook) int { return cmp.Or(a.Weight-b.Weight, a.Key.Rank()-b.Key.Rank(), a.Key.Compare(b.Key)) })
	return hooks
}

// works reports whether a hook does its work in pods, which go on until somebody ends it.
func (h Hook) works() bool {
	return h.Key.Group == "batch" && h.Key.Kind == "Job" || h.Key.Group == "" && h.Key.Kind == "Pod"
}

// event names what happens, as hooks do: the first time something is installed, later upgraded; a person goes back.
func (t Target) event() string {
	when := "pre"
	if t.Phase == Concluding {
		when = "post"
	}
	switch {
	case t.Base == nil:
		return when + "-install"
	case t.Pins != nil && len(t.Skip) == 0:
		return when + "-rollback"
	}
	return when + "-upgrade"
}

// hooks is those that the present phase runs.
func (d *decision) hooks() (hooks []Hook) {
	t := &d.Target
	for _, h := range d.f.New.Hooks {
		if h.On(t.event()) {
			hooks = append(hooks, h)
		}
	}
	return hooks
}

// hook runs the hooks of a phase one after the other: each is made, waited for, and goes as it says. then goes on after the last one.
func (d *decision) hook(then func()) {
	t := &d.Target
	hooks := d.hooks()
	if t.Hook >= len(hooks) {
		t.Hook = 0
		then()
		return
	}
	h := hooks[t.Hook]
	switch {
	case t.Ending != "":
		d.halted(h)
	case t.Intent == nil && len(t.Open) == 0:
		d.intend(t.Phase, Action{Kind: RunHook, Manifests: t.Manifests, Only: []manifest.Key{h.Key}, Event: t.event()})
	case t.Intent == nil:
		d.awaitHook(h)
	case t.Intent.Kind == RunHook:
		d.hookMade(h)
	case d.done():
		d.hookGone()
	}
}

// hookMade goes on to wait for a hook that was made.
func (d *decision) hookMade(h Hook) {
	t := &d.Target
	if !d.done() {
		return
	}
	t.Open = nil
	for _, live := range d.f.Outcome.Live {
		t.Open = append(t.Open, proofOf(live))
	}
	deadline := t.Deadline
	d.enter(t.Phase, Running)
	t.Deadline = deadline
	d.say("target.hook", fmt.Sprintf("%s: hook %s runs", t.Name, h.Key), "")
}

// awaitHook waits until a hook is done.
func (d *decision) awaitHook(h Hook) {
	t := &d.Target
	if d.f.Look == nil {
		d.Read = &Read{Objects: []manifest.Key{h.Key}}
		return
	}
	if failure := d.f.Look.Failure; failure != nil {
		d.failed(failure, func() { d.give(failure.Error()) })
		return
	}
	live := d.f.Look.Objects[0]
	late := !d.f.Now.Before(t.Deadline)
	switch {
	case live.Missing, live.UID != t.Open[0].UID:
		d.hookEnds(h, fmt.Sprintf("hook %s was removed by somebody while it ran", h.Key), false)
	case live.Health == Healthy:
		d.hookEnds(h, "", h.Goes("hook-succeeded"))
	case live.Health == Broken:
		d.hookEnds(h, "hook "+sentence(live), h.Goes("hook-failed"))
	case late:
		d.hookEnds(h, fmt.Sprintf("hook %s is not done within %s%s", h.Key, t.Timeout, strings.TrimSuffix(": "+live.Message, ": ")), h.works() || h.Goes("hook-failed"))
	default:
		d.Due = t.Deadline
		if askAgain := d.f.Now.Add(askAgain); askAgain.Before(d.Due) { // no news comes of a hook's pods
			d.Due = askAgain
		}
		d.waiting(Running, Wait{Kind: WaitHealth, Until: t.Deadline, Needs: "hook " + sentence(live)})
	}
}

// hookEnds removes a hook that goes. why is why it failed; "": it did not.
func (d *decision) hookEnds(h Hook, why string, goes bool) {
	t := &d.Target
	t.Open, t.Why = nil, why
	if goes {
		d.intend(t.Phase, Action{Kind: Remove, Remove: []manifest.Key{h.Key}})
		return
	}
	d.hookGone()
}

// hookGone goes on to the next hook, or gives up for the one that failed.
func (d *decision) hookGone() {
	t := &d.Target
	if t.Why != "" {
		d.give(t.Why)
		return
	}
	d.enter(t.Phase, Running)
	t.Hook++
	t.Deadline = time.Time{}
}

// halts ends a hook that runs, or may have been made, since its target is to stop: it stops once that is done. false: there is none.
func (d *decision) halts(why string) bool {
	t := &d.Target
	hooks, runs := d.hooks(), len(t.Open) > 0 || t.Intent != nil && t.Intent.Kind == RunHook
	if t.Phase != Hooking && t.Phase != Concluding || !runs || !hooks[t.Hook].works() {
		return false
	}
	t.Open, t.Ending, t.Why = nil, Cancelled, why
	d.intend(t.Phase, Action{Kind: Remove, Remove: []manifest.Key{hooks[t.Hook].Key}})
	return true
}

// halted stops a target whose hook was ended, or cannot be.
func (d *decision) halted(h Hook) {
	t := &d.Target
	if !d.acted() {
		return
	}
	stop := func(why string) {
		switch {
		case t.Phase == Hooking:
			d.end(t.Ending, why)
		case d.f.Cancel != nil:
			d.revert(t.Ending, why)
		default:
			d.yield(why)
		}
	}
	if failure := d.f.Outcome.Failure; failure != nil {
		d.failed(failure, func() { stop(fmt.Sprintf("%s; hook %s runs on: %s", t.Why, h.Key, failure.Error())) })
		return
	}
	d.say("target.hook", fmt.Sprintf("%s: hook %s is ended", t.Name, h.Key), t.Why)
	stop(t.Why)
}
