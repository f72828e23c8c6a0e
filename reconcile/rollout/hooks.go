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

// goes reports whether a hook goes when it has come to such an end. What may hold data stays, whatever its policies are.
func (h Hook) goes(policy string) bool { return h.Goes(policy) && !h.Key.Precious() }

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

// hook runs the hooks of a phase one after the other: each is made and waited for. Those that are to go then go all at once, since a later one may need what
// an earlier one made: a Job its ServiceAccount, say. then goes on after that.
func (d *decision) hook(then func()) {
	t := &d.Target
	hooks := d.hooks()
	switch {
	case t.Intent != nil && t.Intent.Kind == Remove:
		d.hooksGone()
	case t.Hook > len(hooks), t.Hook == len(hooks) && !d.hooksEnd(""):
		t.Hook = 0
		then()
	case t.Hook == len(hooks): // they are being removed
	case t.Intent != nil:
		d.hookMade(hooks[t.Hook])
	case len(t.Open) > 0:
		d.awaitHook(hooks[t.Hook])
	default:
		d.intend(t.Phase, Action{Kind: RunHook, Manifests: t.Manifests, Only: []manifest.Key{hooks[t.Hook].Key}, Event: t.event()})
	}
}

// hookMade goes on to wait for a hook that was made.
func (d *decision) hookMade(h Hook) {
	t := &d.Target
	if !d.acted() {
		return
	}
	if failure := d.f.Outcome.Failure; failure != nil {
		d.failed(failure, func() { d.hookFails(failure.Error(), failure.Class != Refused && h.works()) }) // an answer may have been lost
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
		d.failed(failure, func() {
			d.hookFails(fmt.Sprintf("hook %s is not known to be done: %s", h.Key, failure.Error()), h.works())
		})
		return
	}
	live := d.f.Look.Objects[0]
	late := !d.f.Now.Before(t.Deadline)
	switch {
	case live.Missing, live.UID != t.Open[0].UID:
		d.hookFails(fmt.Sprintf("hook %s was removed by somebody while it ran", h.Key), false)
	case live.Health == Healthy:
		d.nextHook()
	case live.Health == Broken:
		d.hookFails("hook "+sentence(live), h.goes("hook-failed"))
	case late:
		d.hookFails(fmt.Sprintf("hook %s is not done within %s%s", h.Key, t.Timeout, strings.TrimSuffix(": "+live.Message, ": ")), h.works() || h.goes("hook-failed"))
	default:
		d.Due = t.Deadline
		if askAgain := d.f.Now.Add(askAgain); askAgain.Before(d.Due) { // no news comes of a hook's pods
			d.Due = askAgain
		}
		d.waiting(Running, Wait{Kind: WaitHealth, Until: t.Deadline, Needs: "hook " + sentence(live)})
	}
}

// nextHook goes on to the hook after the present one.
func (d *decision) nextHook() {
	t := &d.Target
	d.enter(t.Phase, Running)
	t.Hook++
	t.Open, t.Deadline = nil, time.Time{}
}

// hookFails gives up for the present hook, once those that are to go are gone; goes: it is one of them.
func (d *decision) hookFails(why string, goes bool) {
	var present []manifest.Key
	if goes {
		present = []manifest.Key{d.hooks()[d.Target.Hook].Key}
	}
	if !d.hooksEnd(why, present...) {
		d.hooksOver(why)
	}
}

// hooksEnd removes hooks that are to go, and those that have succeeded and say that they go then, the last ones first. why is why not all have; "": all have.
// false: none is to go.
func (d *decision) hooksEnd(why string, going ...manifest.Key) bool {
	t := &d.Target
	for _, h := range slices.Backward(d.hooks()[:t.Hook]) {
		if h.goes("hook-succeeded") {
			going = append(going, h.Key)
		}
	}
	if len(going) == 0 {
		return false
	}
	t.Open, t.Why = nil, why
	d.intend(t.Phase, Action{Kind: Remove, Remove: going})
	return true
}

// hooksGone goes on once hooks are removed, or cannot be.
func (d *decision) hooksGone() {
	t := &d.Target
	if !d.acted() {
		return
	}
	if failure := d.f.Outcome.Failure; failure != nil {
		d.failed(failure, func() {
			why := fmt.Sprintf("%s; hook %s runs on: %s", t.Why, t.Intent.Remove[0], failure.Error())
			if t.Why == "" {
				why = "its hooks are done, and could not be removed: " + failure.Error()
			}
			d.hooksOver(why)
		})
		return
	}
	if t.Ending != "" {
		d.say("target.hook", fmt.Sprintf("%s: hook %s is ended", t.Name, t.Intent.Remove[0]), t.Why)
	}
	if t.Why == "" {
		d.nextHook()
		return
	}
	d.hooksOver(t.Why)
}

// hooksOver stops a target between its hooks: one failed, or it is to stop.
func (d *decision) hooksOver(why string) {
	t := &d.Target
	switch {
	case t.Ending == "":
		d.give(why)
	case t.Phase == Hooking:
		d.end(t.Ending, why)
	case d.f.Cancel != nil:
		d.revert(t.Ending, why)
	default:
		d.yield(why)
	}
}

// halts ends a hook that runs, or may have been made, since its target is to stop: it stops once that is done. false: nothing is to be ended.
func (d *decision) halts(why string) bool {
	t, hooks := &d.Target, d.hooks()
	if t.Phase != Hooking && t.Phase != Concluding || t.Hook > len(hooks) {
		return false
	}
	var present []manifest.Key
	if t.Hook < len(hooks) && (len(t.Open) > 0 || t.Intent != nil) {
		if h := hooks[t.Hook]; h.works() || h.goes("hook-succeeded") || h.goes("hook-failed") {
			present = []manifest.Key{h.Key}
		}
	}
	if !d.hooksEnd(why, present...) {
		return false
	}
	t.Ending = Cancelled
	return true
}

// tidies reports whether hooks are being removed: that is done first, whatever becomes of the target.
func (d *decision) tidies() bool {
	t := &d.Target
	return (t.Phase == Hooking || t.Phase == Concluding) && t.Intent != nil && t.Intent.Kind == Remove
}
