package rollout_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// anything is a state with facts, far beyond those that a rollout comes to: each is what a saved target may be, but nothing else is asked of it.
type anything struct {
	rollout.Target
	rollout.Facts
}

var phases = []rollout.Phase{rollout.Observing, rollout.Comparing, rollout.Waiting, rollout.Preparing, rollout.Looking, rollout.Adopting, rollout.Hooking, rollout.Concluding, rollout.Holding, rollout.Applying, rollout.Raising, rollout.Replacing, rollout.Settling, rollout.Steering, rollout.Lowering,
	rollout.Pausing, rollout.Redirecting, rollout.Switching, rollout.Overlapping, rollout.Completing, rollout.Opening, rollout.Retiring, rollout.Draining, rollout.Joining, rollout.Pruning, rollout.Restoring,
	rollout.Following, rollout.Finished, rollout.Returning, rollout.Regaining, rollout.Withdrawing, rollout.Vacating, rollout.Rejoining, rollout.Reverting, rollout.Recovering,
	rollout.Clearing, rollout.Reinstating}

// acts is the phases that are entered with an intent.
var acts = []rollout.Phase{rollout.Adopting, rollout.Holding, rollout.Applying, rollout.Steering, rollout.Opening, rollout.Joining, rollout.Rejoining, rollout.Raising, rollout.Replacing, rollout.Lowering, rollout.Switching, rollout.Returning, rollout.Reverting}

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func any1(r *rand.Rand) anything {
	chance := func(percent int) bool { return r.IntN(100) < percent }
	lately := func() time.Time { return noon.Add(time.Duration(r.IntN(7200)-3600) * time.Second) }
	var a anything
	a.New, a.Facts.Base = set("b", int32(r.IntN(6)), webService, webSettings), set("a", int32(1+r.IntN(5)), webService)
	a.Target = rollout.Target{ID: 1, Lane: 1, Deployment: "d2", Number: 2, Tenant: "main", Application: "shop", Name: "prod", Account: "prod", Digest: "promise", Manifests: "m2",
		Phase: phases[r.IntN(len(phases))], State: rollout.Running, Way: anyWay(r), Since: lately(), First: chance(20), Weight: r.IntN(101), Reverted: chance(20)}
	t := &a.Target
	if chance(50) {
		a.New.Hooks = []rollout.Hook{job("migrate", 0, []string{"hook-succeeded"}, "pre-upgrade", "post-upgrade"), job("warm", 1, nil, "pre-upgrade", "post-upgrade")}[:1+r.IntN(2)]
		t.Hook = r.IntN(len(a.New.Hooks) + 1)
	}
	if t.Phase != rollout.Waiting && t.Phase != rollout.Preparing && chance(20) {
		t.Adopted = []manifest.Key{webDeployment}
	}
	switch t.Phase {
	case rollout.Observing, rollout.Comparing:
		t.Observe = true
	case rollout.Waiting:
		t.Observe = chance(20)
		t.State = rollout.Queued
	case rollout.Finished:
		t.State = []rollout.State{rollout.Succeeded, rollout.Failed, rollout.Cancelled, rollout.RolledBack}[r.IntN(4)]
	}
	if t.Phase != rollout.Waiting && t.Phase != rollout.Preparing || chance(50) {
		a.Good = &rollout.Release{Deployment: "d1", Number: 1, Manifests: "m1", Digest: "promise-1"}
		t.Base = a.Good
	}
	if t.Phase != rollout.Waiting && t.Phase != rollout.Preparing && t.Phase != rollout.Looking && t.Phase != rollout.Adopting {
		full := int32(1 + r.IntN(6))
		t.Full = []rollout.Replicas{{Key: revision("b"), Count: full}}
		t.Asked = []rollout.Replicas{{Key: revision("b"), Count: int32(r.IntN(int(full) + 1))}}
		if chance(80) {
			count := int32(1 + r.IntN(6))
			t.Former = []rollout.Former{{Key: revision("a"), Workload: "web", Hash: "a", Count: count, Asked: int32(r.IntN(int(count) + 1)), Stable: true}}
		}
	}
	if chance(30) || t.Phase == rollout.Replacing {
		t.Workloads, t.Base = []string{"StatefulSet"}, &rollout.Release{Deployment: "d1", Number: 1, Manifests: "m1"}
		a.New.Objects, a.New.Fleets, a.Facts.Base.Fleets = append(a.New.Objects, database), fleets(database).Fleets, fleets(database).Fleets
		if len(t.Full) > 0 {
			t.Fleets = []rollout.Moving{{Share: rollout.Share{Key: database, Weight: r.IntN(101)}, Pods: 4, Fresh: int32(r.IntN(5))}}
		}
	}
	t.Step = r.IntN(len(t.Canary) + 1)
	if t.Phase == rollout.Pausing {
		t.BlueGreen, t.Canary = nil, append(t.Canary, anyWait(r))
		t.Step = len(t.Canary) - 1
	}
	if t.Phase == rollout.Redirecting || t.Phase == rollout.Switching || t.Phase == rollout.Overlapping {
		t.BlueGreen = &rollout.BlueGreen{Services: []rollout.ServicePair{{Active: "web"}}, Redirect: anyWaits(r), ShutDown: anyWaits(r)}
	}
	if t.BlueGreen != nil {
		t.Pairs = []rollout.Pair{{Active: webService, New: "b", Stable: "a"}}
	}
	if len(t.Traffic) > 0 && len(t.Full) > 0 {
		t.Routes = anyRoutes(r, *t)
		if chance(70) {
			divided := r.IntN(101)
			t.Divided = &divided
		}
	}
	if slices.Contains(acts, t.Phase) || chance(10) {
		t.Intent = anyIntent(r, *t)
	}
	for _, key := range []manifest.Key{revision("b"), revision("a"), webService, database} {
		if chance(40) {
			t.Open = append(t.Open, rollout.Proof{Key: key, UID: "uid", Generation: int64(1 + r.IntN(3))})
		}
	}
	if chance(50) {
		t.Deadline = lately()
	}
	if chance(20) {
		t.Attempts, t.NotBefore = 1+r.IntN(8), lately()
	}
	if slices.Contains(phases[slices.Index(phases, rollout.Returning):], t.Phase) {
		t.Ending, t.Why = rollout.RolledBack, "it failed"
		if t.Base == nil {
			t.Base = &rollout.Release{Deployment: "d1", Number: 1, Manifests: "m1"}
		}
	}
	a.Limits = rollout.Limits{Removals: 10, Shrink: 0.3, Keep: 3, Replaced: 3, Away: time.Minute, Yield: time.Minute}
	a.Now, a.Connected = noon, chance(80)
	if chance(20) {
		a.Hold = &rollout.Hold{By: "ann", At: lately()}
	}
	if chance(20) {
		t.HeldSince = lately()
	}
	if chance(15) {
		a.Cancel = &rollout.Request{By: "ann"}
	}
	if chance(15) {
		a.ReplacedBy, a.Replaced = 3, r.IntN(5)
	}
	if len(t.DependsOn) > 0 {
		states := []rollout.State{"", rollout.Queued, rollout.Running, rollout.Succeeded, rollout.Skipped, rollout.Failed, rollout.RolledBack, rollout.Cancelled}
		a.Dependencies = map[string]rollout.State{"staging": states[r.IntN(len(states))]}
	}
	for range r.IntN(4) {
		a.Inventory = append(a.Inventory, []manifest.Key{webDeployment, webService, webSettings, webClaim}[r.IntN(4)])
	}
	for range r.IntN(5) {
		digest := []string{"promise", "promise-other"}[r.IntN(2)]
		gate := []string{"prune", "found", "beforeDeployment[0]", "afterDeployment[0]", "blueGreen.redirectTrafficAfter[0]", fmt.Sprintf("canary.steps[%d]", t.Step)}[r.IntN(6)]
		a.Words = append(a.Words, rollout.Word{Target: "prod", Gate: gate, Digest: digest, Verb: []rollout.Verb{rollout.Approve, rollout.Reject, rollout.Pass, rollout.Retry}[r.IntN(4)],
			By: []string{"ann", "bob"}[r.IntN(2)], At: noon.Add(-time.Duration(r.IntN(3600)) * time.Second)})
	}
	if chance(40) {
		if a.Look = anyLook(r); len(t.Fleets) == 0 {
			a.Look.Fleets = nil // nobody asked for them
		}
	} else if t.Intent != nil && chance(60) {
		a.Outcome = &rollout.Outcome{Live: anyLook(r).Objects}
		if chance(30) {
			a.Outcome.Failure = anyFailure(r)
		}
	}
	return a
}

func anyWay(r *rand.Rand) rollout.Way {
	w := rollout.Way{Timeout: time.Duration(1+r.IntN(30)) * time.Minute, Before: anyWaits(r), After: anyWaits(r), KeepDeployment: r.IntN(5) == 0}
	if r.IntN(3) == 0 {
		w.DependsOn = []string{"staging"}
	}
	w.Unreachable = []rollout.Unreachable{rollout.WaitForAgent, rollout.WaitForAgent, rollout.SkipUnreachable, rollout.FailsUnreachable}[r.IntN(4)]
	if r.IntN(4) == 0 {
		w.BlueGreen = &rollout.BlueGreen{Services: []rollout.ServicePair{{Active: "web"}}, Redirect: anyWaits(r), ShutDown: anyWaits(r)}
		return w
	}
	if r.IntN(3) == 0 {
		w.Traffic = []rollout.Route{{Kind: rollout.Istio, Name: "web"}}
	}
	for range r.IntN(4) {
		if r.IntN(2) == 0 {
			w.Canary = append(w.Canary, weight(r.IntN(101)))
		} else {
			w.Canary = append(w.Canary, anyWait(r))
		}
	}
	return w
}

func anyRoutes(r *rand.Rand, t rollout.Target) []rollout.Route {
	route := rollout.Route{Kind: rollout.Istio, Name: "web", Service: "web", Selector: map[string]string{"app": "web"}, New: rollout.Side{ReplicaSet: revision("b"), Hash: "b"}, Sound: r.IntN(4) > 0}
	if len(t.Former) > 0 {
		route.Stable = rollout.Side{ReplicaSet: revision("a"), Hash: "a"}
	}
	return []rollout.Route{route}
}

func anyWaits(r *rand.Rand) (steps []rollout.Step) {
	for range r.IntN(3) {
		steps = append(steps, anyWait(r))
	}
	return steps
}

func anyWait(r *rand.Rand) rollout.Step {
	switch r.IntN(5) {
	case 0, 1:
		return pause(time.Duration(r.IntN(7200)) * time.Second)
	case 2:
		return expose(time.Minute, []string{"web", "other"}[r.IntN(2)])
	}
	s := approval()
	s.Approval.Count, s.Approval.NotSelf = 1+r.IntN(2), r.IntN(4) == 0
	if r.IntN(3) == 0 {
		s.Approval.Expires = time.Hour
	}
	return s
}

func anyIntent(r *rand.Rand, t rollout.Target) *rollout.Action {
	shift := &rollout.Action{Kind: rollout.Shift, Replicas: []rollout.Replicas{{Key: revision("b"), Count: int32(r.IntN(6))}}}
	switch t.Phase {
	case rollout.Applying, rollout.Completing:
		return &rollout.Action{Kind: rollout.Apply, Manifests: "m2", Replicas: t.Full}
	case rollout.Replacing:
		return &rollout.Action{Kind: rollout.Apply, Manifests: "m2", Only: []manifest.Key{database}, Share: []rollout.Share{{Key: database, Weight: r.IntN(101)}}}
	case rollout.Reverting:
		return &rollout.Action{Kind: rollout.Apply, Manifests: "m1"}
	case rollout.Adopting:
		return &rollout.Action{Kind: rollout.Adopt, Workloads: []manifest.Key{webDeployment}}
	case rollout.Pruning, rollout.Clearing:
		return &rollout.Action{Kind: rollout.Remove, Remove: []manifest.Key{webSettings}}
	case rollout.Hooking, rollout.Concluding:
		return &rollout.Action{Kind: []rollout.ActionKind{rollout.RunHook, rollout.Remove}[r.IntN(2)], Only: []manifest.Key{job("migrate", 0, nil).Key}, Remove: []manifest.Key{job("migrate", 0, nil).Key}}
	case rollout.Restoring, rollout.Reinstating:
		return &rollout.Action{Kind: rollout.PutBack, Workloads: []manifest.Key{webDeployment}}
	case rollout.Raising, rollout.Lowering, rollout.Switching, rollout.Returning, rollout.Retiring, rollout.Withdrawing,
		rollout.Holding, rollout.Steering, rollout.Opening, rollout.Joining, rollout.Rejoining:
		return shift
	}
	return nil
}

func anyLook(r *rand.Rand) *rollout.Look {
	if r.IntN(8) == 0 {
		return &rollout.Look{Failure: anyFailure(r)}
	}
	live := func(key manifest.Key) rollout.Live {
		return rollout.Live{Key: key, UID: []string{"uid", "uid", "uid", "other"}[r.IntN(4)], Generation: int64(1 + r.IntN(4)), Missing: r.IntN(8) == 0,
			Workload: "web", Hash: key.Name[len(key.Name)-1:], Replicas: int32(r.IntN(6)), Ready: int32(r.IntN(6)), Within: r.IntN(2) == 0,
			Health: []rollout.Health{rollout.Healthy, rollout.Healthy, rollout.Progressing, rollout.Broken}[r.IntN(4)]}
	}
	look := &rollout.Look{}
	for _, key := range []manifest.Key{revision("b"), revision("a"), webService} {
		if r.IntN(10) > 0 {
			look.Objects = append(look.Objects, live(key))
		}
	}
	for _, key := range []manifest.Key{revision("b"), revision("a")} {
		if r.IntN(3) > 0 {
			look.Revisions = append(look.Revisions, live(key))
		}
	}
	if r.IntN(4) == 0 {
		look.Workloads = append(look.Workloads, live(webDeployment))
	}
	if r.IntN(4) > 0 {
		fleet := live(database)
		fleet.Fresh, fleet.Due, fleet.Stuck = int32(r.IntN(6)), r.IntN(4) == 0, r.IntN(8) == 0
		look.Fleets = append(look.Fleets, fleet)
	}
	return look
}

func anyFailure(r *rand.Rand) *rollout.Failure {
	return &rollout.Failure{Class: []rollout.Class{rollout.Refused, rollout.Away, rollout.Trouble}[r.IntN(3)], Text: "no"}
}

// each calls with states and facts by seed.
func each(t *testing.T, see func(t *testing.T, seed uint64, a anything)) {
	t.Parallel()
	for seed := range uint64(30_000) {
		see(t, seed, any1(rand.New(rand.NewPCG(seed, 3))))
		if t.Failed() {
			return
		}
	}
}

func TestDecideChangesNothingThatItIsGivenAndSaysTheSameAgain(t *testing.T) {
	each(t, func(t *testing.T, seed uint64, a anything) {
		before := text(a)
		first := text(rollout.Decide(a.Target, a.Facts))
		if text(a) != before {
			t.Errorf("seed %d: what it was given differs afterwards:\nwas %s\n is %s", seed, before, text(a))
		}
		if again := text(rollout.Decide(a.Target, a.Facts)); again != first {
			t.Errorf("seed %d: the second time it decides otherwise:\n%s\n%s", seed, first, again)
		}
	})
}

func text(v any) string {
	out, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(out)
}

func TestWhatHasEndedIsLeftAlone(t *testing.T) {
	each(t, func(t *testing.T, seed uint64, a anything) {
		if d := rollout.Decide(a.Target, a.Facts); a.State.Final() && (d.Changed || d.Act != nil || d.Read != nil || len(d.Events) > 0) {
			t.Errorf("seed %d: %s, and yet %s", seed, a.State, text(d))
		}
	})
}

func TestWordsOfAnotherVersionMakeNoDifference(t *testing.T) {
	each(t, func(t *testing.T, seed uint64, a anything) {
		a.Words = slices.DeleteFunc(a.Words, func(w rollout.Word) bool { return w.Verb == rollout.Retry })
		with := text(rollout.Decide(a.Target, a.Facts))
		a.Words = slices.DeleteFunc(slices.Clone(a.Words), func(w rollout.Word) bool { return w.Digest != a.Digest })
		if without := text(rollout.Decide(a.Target, a.Facts)); with != without {
			t.Errorf("seed %d:\nwith them    %s\nwithout them %s", seed, with, without)
		}
	})
}

func TestNothingStartsBeforeWhatItDependsOn(t *testing.T) {
	each(t, func(t *testing.T, seed uint64, a anything) {
		state := a.Dependencies["staging"]
		d := rollout.Decide(a.Target, a.Facts)
		if a.Phase == rollout.Waiting && len(a.DependsOn) > 0 && state != rollout.Succeeded && state != rollout.Skipped && d.Target.Phase != rollout.Waiting && d.Target.State != rollout.Cancelled {
			t.Errorf("seed %d: staging is %q, and it goes to %s", seed, state, d.Target.Phase)
		}
	})
}

// While objects are open, only a read that names each of them, healthy and as it was asked for, lets anything lose pods or traffic.
func TestNothingIsTakenFromWhatRunsBeforeAllIsProved(t *testing.T) {
	each(t, func(t *testing.T, seed uint64, a anything) {
		if a.Phase != rollout.Settling || len(a.Open) == 0 || proved(a) {
			return
		}
		d := rollout.Decide(a.Target, a.Facts)
		switch {
		case d.Target.Phase == rollout.Settling, d.Target.State.Final(), d.Target.Phase == rollout.Returning, d.Target.Phase == rollout.Reinstating:
		case d.Target.Phase == rollout.Applying && d.Act == nil: // somebody removed what was applied
		default:
			t.Errorf("seed %d: it goes to %s although not all is proved: open %s, read %s", seed, d.Target.Phase, text(a.Open), text(a.Look))
		}
	})
}

func proved(a anything) bool {
	if a.Look == nil || a.Look.Failure != nil {
		return false
	}
	for _, p := range a.Open {
		if f := slices.IndexFunc(a.Target.Fleets, func(m rollout.Moving) bool { return m.Key == p.Key }); f >= 0 {
			if !fleetProved(a.Target.Fleets[f], p, a.Look.Fleets) {
				return false
			}
			continue
		}
		i := slices.IndexFunc(a.Look.Objects, func(l rollout.Live) bool { return l.Key == p.Key })
		none := slices.ContainsFunc(append(slices.Clone(a.Asked), formerAsked(a)...), func(r rollout.Replicas) bool { return r.Key == p.Key && r.Count == 0 })
		if i < 0 {
			return false
		}
		l := a.Look.Objects[i]
		former := slices.ContainsFunc(a.Former, func(f rollout.Former) bool { return f.Key == p.Key })
		if l.Missing && none || !l.Missing && l.UID == p.UID && l.Generation >= p.Generation && former && l.Within {
			continue
		}
		if l.Missing || l.UID != p.UID || l.Generation < p.Generation || l.Health != rollout.Healthy {
			return false
		}
	}
	return true
}

// fleetProved reports whether a read shows that a fleet has its share.
func fleetProved(m rollout.Moving, p rollout.Proof, lives []rollout.Live) bool {
	return slices.ContainsFunc(lives, func(l rollout.Live) bool {
		done := l.Fresh >= m.Of(l.Replicas)
		if m.Weight >= 100 {
			done = l.Health == rollout.Healthy
		}
		return l.Key == m.Key && !l.Missing && l.UID == p.UID && l.Generation >= p.Generation && l.Within && done
	})
}

func formerAsked(a anything) (all []rollout.Replicas) {
	for _, f := range a.Former {
		all = append(all, rollout.Replicas{Key: f.Key, Count: f.Asked})
	}
	return all
}

func TestUnderAHoldNothingForwardBegins(t *testing.T) {
	each(t, func(t *testing.T, seed uint64, a anything) {
		d := rollout.Decide(a.Target, a.Facts)
		stops := d.Target.Ending != ""
		if a.Hold == nil || a.Intent != nil || d.Act == nil || stops || d.Target.Phase == rollout.Returning || slices.Contains(phases[slices.Index(phases, rollout.Returning):], d.Target.Phase) {
			return
		}
		t.Errorf("seed %d: held in %s, and it does %s in %s", seed, a.Phase, d.Act.Kind, d.Target.Phase)
	})
}

// Once each wait is answered or over, and the cluster does what it is asked, every state comes to an end within a bounded number of decisions.
func TestEveryStateComesToAnEnd(t *testing.T) {
	const bound = 120
	each(t, func(t *testing.T, seed uint64, a anything) {
		target, f := a.Target, a.Facts
		f.Connected, f.Hold = true, nil
		for name := range f.Dependencies {
			f.Dependencies[name] = rollout.Succeeded
		}
		asked := map[manifest.Key]int32{}
		for range bound {
			d := rollout.Decide(target, f)
			target = d.Target
			if target.State.Final() {
				return
			}
			f.Look, f.Outcome = nil, nil
			f.Links = append(slices.Clip(f.Links), d.Exposes...)
			for _, key := range d.Drop {
				f.Inventory = slices.DeleteFunc(slices.Clone(f.Inventory), func(k manifest.Key) bool { return k == key })
			}
			switch {
			case d.Read != nil:
				f.Look = answered(*d.Read, asked)
			case d.Act != nil:
				f.Outcome = &rollout.Outcome{}
				if d.Act.Kind == rollout.RunHook {
					f.Outcome.Live = []rollout.Live{{Key: d.Act.Only[0], UID: "uid"}}
				}
				for _, r := range d.Act.Replicas {
					asked[r.Key] = r.Count
					f.Outcome.Live = append(f.Outcome.Live, rollout.Live{Key: r.Key, UID: "uid", Generation: 1 << 20, Health: rollout.Healthy, Replicas: r.Count})
				}
			case d.Changed:
				for _, w := range target.Waits {
					for _, by := range []string{"ann", "bob", "cleo"} {
						f.Words = append(f.Words, rollout.Word{Target: "prod", Gate: w.Gate, Digest: target.Digest, Verb: rollout.Approve, By: by, At: f.Now})
					}
				}
			case d.Due.After(f.Now):
				f.Now = d.Due
			default:
				t.Errorf("seed %d: nothing is to be done in %s, and it waits for %s without an end", seed, target.Phase, text(target.Waits))
				return
			}
		}
		t.Errorf("seed %d: it has not ended after %d decisions: %s in %s, from %s: %s", seed, bound, target.State, target.Phase, a.Phase, text(target))
	})
}

// answered is what a cluster in which all is well says.
func answered(read rollout.Read, asked map[manifest.Key]int32) *rollout.Look {
	look := &rollout.Look{}
	for _, key := range read.Objects {
		look.Objects = append(look.Objects, rollout.Live{Key: key, UID: "uid", Generation: 1 << 20, Health: rollout.Healthy})
	}
	for _, s := range read.Fleets {
		look.Fleets = append(look.Fleets, rollout.Live{Key: s.Key, UID: "uid", Generation: 1 << 20, Health: rollout.Healthy, Replicas: 4, Fresh: 4, Within: true})
	}
	for _, r := range read.Routes {
		r.Service, r.Selector = "web", map[string]string{"app": "web"}
		look.Routes = append(look.Routes, r)
	}
	for _, key := range read.Others {
		look.Others = append(look.Others, rollout.Live{Key: key, Selector: map[string]string{"app": "web"}, Ports: []rollout.Port{{Protocol: "TCP", Number: 80}}})
	}
	for _, key := range read.Workloads {
		look.Workloads = append(look.Workloads, rollout.Live{Key: key, Missing: true})
	}
	if read.Revisions {
		for key, count := range asked {
			look.Revisions = append(look.Revisions, rollout.Live{Key: key, UID: "uid", Generation: 1 << 20, Workload: "web", Replicas: count, Ready: count})
		}
	}
	return look
}
