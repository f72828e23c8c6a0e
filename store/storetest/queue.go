package storetest

import (
	"errors"
	"slices"
	"strings"
	"time"

	"towpath/manifest"
	"towpath/reconcile/rollout"
	"towpath/store"
)

func as(exclusive rollout.Exclusive, s rollout.Start) rollout.Start {
	s.Exclusive = exclusive
	return s
}

func rejects(r *room) {
	r.start(begin("d1", moving("staging", "m1")))
	second := as(rollout.RejectOthers, begin("d2", moving("staging", "m2")))
	for range 2 { // what was refused stays refused when it is sent again
		var underWay *store.ErrUnderWay
		if err := r.Start(r.Context(), second, nil); !errors.As(err, &underWay) || underWay.ID != "d1" || underWay.Number != 1 || underWay.Rejected != "d2" {
			r.Errorf("a second one: %v", err)
		}
	}
	r.states("d1", rollout.Queued, "d2", rollout.Rejected)
	r.current("staging", 1, 0)
	r.finish("staging", rollout.Succeeded)
	r.start(as(rollout.RejectOthers, begin("d3", moving("staging", "m2"))))
	r.current("staging", 3, 0)
}

func supersedes(r *room) {
	r.start(begin("d1", moving("staging", "m1"), moving("prod", "m1", "staging")))
	r.start(as(rollout.SupersedeOthers, begin("d2", unchanged("staging", "m1"), moving("prod", "m2", "staging"))))
	r.current("staging", 1, 2)
	r.current("prod", 1, 2)
	r.finish("staging", rollout.Cancelled)
	r.finish("prod", rollout.Cancelled)
	r.finish("staging", rollout.Succeeded)
	r.finish("prod", rollout.Succeeded)
	r.start(as(rollout.SupersedeOthers, begin("d3", unchanged("staging", "m1"), moving("prod", "m3", "staging"))))
	r.current("staging", 0, 0) // nothing was under way that could be superseded
	r.states("d1", rollout.Cancelled, "d2", rollout.Succeeded, "d3", rollout.Running)
}

func enqueues(r *room) {
	r.start(begin("d1", moving("staging", "m1")))
	r.start(as(rollout.EnqueueOne, begin("d2", moving("staging", "m2"))))
	r.start(as(rollout.EnqueueOne, begin("d3", moving("staging", "m3"))))
	r.current("staging", 1, 0)
	r.states("d2", rollout.Cancelled, "d3", rollout.Queued)
	if v := r.view("d2"); v.Why != "replaced by #3 before it started" {
		r.Errorf("d2: %s", v.Why)
	}
	if v := r.view("d3"); v.Why != "waits for #1 to end" {
		r.Errorf("d3: %s", v.Why)
	}
	r.Woken()
	r.finish("staging", rollout.Succeeded)
	r.woken("staging")
	r.current("staging", 3, 0)
	r.start(as(rollout.EnqueueOne, begin("d4", moving("staging", "m4"))))
	r.must(r.Cancel(r.Context(), "main", "d4", "ann", "not this one"))
	r.finish("staging", rollout.Succeeded)
	r.current("staging", 0, 0)
	r.states("d3", rollout.Succeeded, "d4", rollout.Cancelled)
}

func batches(r *room) {
	r.start(begin("d1", moving("staging", "m1")))
	r.start(as(rollout.Batch, begin("d2", moving("staging", "m2"))))
	r.start(as(rollout.Batch, begin("d3", moving("staging", "m3"))))
	if v := r.view("d2"); v.State != rollout.Cancelled || v.Why != "joined into #3" {
		r.Errorf("d2 is %s: %s", v.State, v.Why)
	}
	r.finish("staging", rollout.Failed)
	r.current("staging", 3, 0)
}

func judgedAnew(r *room) {
	r.start(begin("d1", moving("staging", "m1"), moving("prod", "m1")))
	r.start(as(rollout.EnqueueOne, begin("d2", moving("staging", "m1"), unchanged("prod", "m1"))))
	r.finish("staging", rollout.Succeeded)
	r.save("prod", func(d *rollout.Decision) { d.Target.State, d.Target.Phase = rollout.Skipped, rollout.Finished })
	r.current("staging", 0, 0) // it is what d2 wants by now
	r.current("prod", 2, 0)    // it is not
}

// words of one wait that a role may answer.
func asked(gate string, roles ...string) rollout.Wait {
	return rollout.Wait{Kind: rollout.WaitApproval, Gate: gate, Who: roles, Since: when, Needs: "a word"}
}

func words(r *room) {
	r.start(begin("d1", moving("staging", "m1"), moving("prod", "m1")))
	r.asks("staging", asked("prune", "sre"), asked("canary.steps[1]", "qa"))
	say := func(verb rollout.Verb, gate string, roles ...string) {
		r.Helper()
		r.must(r.Say(r.Context(), rollout.Saying{Tenant: "main", Deployment: "d1", Gate: gate, Verb: verb, By: "ann", Roles: roles, Reason: "go"}))
	}
	say(rollout.Approve, "", "SRE") // to all that she may speak to
	say(rollout.Approve, "", "sre")
	say(rollout.Pass, "canary.steps[1]", "qa")
	words := r.read("prod").Words
	if len(words) != 2 || words[0].Gate != "prune" || words[1].Gate != "canary.steps[1]" || words[1].Verb != rollout.Pass {
		r.Fatalf("said: %+v", words)
	}
	if w := words[0]; w.Target != "staging" || w.Digest != "promise-m1" || w.By != "ann" || w.Reason != "go" || !w.At.Equal(r.now) {
		r.Errorf("%+v", w)
	}
	r.save("staging", func(d *rollout.Decision) {
		d.Target.State, d.Target.Waits = rollout.Running, []rollout.Wait{{Kind: rollout.WaitRetry, Since: when, Needs: "try 2"}}
	})
	say(rollout.Retry, "")
	say(rollout.Retry, "")
	if words := r.read("staging").Words; len(words) != 4 {
		r.Errorf("a second wish to retry is no repetition: %+v", words)
	}
}

func refusals(r *room) {
	r.start(begin("d1", moving("staging", "m1"), moving("prod", "m1")))
	say := func(deployment, target, by string, roles ...string) error {
		return r.Say(r.Context(), rollout.Saying{Tenant: "main", Deployment: deployment, Target: target, Verb: rollout.Approve, By: by, Roles: roles})
	}
	r.refused(say("x", "", "ann"), "no deployment x")
	r.refused(say("d1", "other", "ann"), "deployment d1 has no target other")
	r.refused(say("d1", "", "ann"), "no target of deployment d1 waits for what could be approved")
	r.refused(say("d1", "staging", "ann"), "target staging of deployment d1 waits for nothing that could be approved: it is QUEUED")
	own := asked("prune", "sre")
	own.NotBy = []string{"ann"}
	r.asks("staging", own)
	r.asks("prod", asked("prune"))
	r.refused(say("d1", "", "ann"), "2 targets of deployment d1 wait for that; name one")
	r.refused(say("d1", "staging", "bob", "web"), "prune of target staging needs one of the roles sre; bob holds web")
	r.refused(say("d1", "staging", "ann", "sre"), "prune of target staging may not be given by ann, whose own change it is (allowSelfApproval: false)")
	if words := r.read("staging").Words; len(words) != 0 {
		r.Errorf("refused words were recorded: %+v", words)
	}
	r.refused(r.Cancel(r.Context(), "main", "x", "ann", ""), "no deployment x")
	r.finish("staging", rollout.Succeeded)
	r.finish("prod", rollout.Succeeded)
	r.refused(r.Cancel(r.Context(), "main", "d1", "ann", ""), "deployment d1 is SUCCEEDED already")
}

func cancels(r *room) {
	r.start(begin("d0", moving("staging", "m0")))
	r.start(begin("d1", moving("staging", "m1"), moving("prod", "m1")))
	r.must(r.Cancel(r.Context(), "main", "d1", "ann", "no"))
	r.must(r.Cancel(r.Context(), "main", "d1", "bob", "neither"))
	r.current("staging", 1, 0) // what waited behind it never starts
	if v := r.view("d1").Targets[0]; v.State != rollout.Cancelled || v.Why != "cancelled by ann: no" {
		r.Errorf("staging of d1 is %s: %s", v.State, v.Why)
	}
	if lane := r.read("prod"); lane.Cancel == nil || lane.Cancel.By != "ann" || lane.Cancel.Reason != "no" {
		r.Errorf("prod sees %+v", lane.Cancel)
	}
	r.finish("prod", rollout.RolledBack)
	r.states("d1", rollout.Cancelled)
}

func cancelsFromInside(r *room) {
	r.start(begin("d1", moving("staging", "m1"), moving("prod", "m1", "staging")))
	r.Woken()
	r.save("staging", func(d *rollout.Decision) {
		d.Target.State, d.Target.Phase = rollout.RolledBack, rollout.Finished
		d.Cancels = &rollout.Request{By: "towpath", Reason: "expired", At: r.now}
	})
	r.woken("staging", "prod")
	if lane := r.read("prod"); lane.Cancel == nil || lane.Cancel.Reason != "expired" {
		r.Errorf("prod sees %+v", lane.Cancel)
	}
}

func holds(r *room) {
	other := begin("other", moving("elsewhere", "m1"))
	other.Application = "other"
	r.start(other)
	r.start(begin("d1", moving("staging", "m1"), moving("prod", "m1")))
	for _, h := range []struct {
		store.Hold
		halts []string
	}{
		{store.Hold{Scope: store.ScopeAccount, Name: "prod"}, []string{"prod"}},
		{store.Hold{Scope: store.ScopeApplication, Name: "shop"}, []string{"prod", "staging"}},
		{store.Hold{Scope: store.ScopeApplication, Name: "other"}, nil},
		{store.Hold{Scope: store.ScopeAll}, []string{"prod", "staging"}},
	} {
		h.Tenant, h.By, h.Reason = "main", "ann", "incident"
		r.Woken()
		r.must(r.Hold(r.Context(), h.Hold))
		woken := r.Woken()
		for _, target := range []string{"prod", "staging"} {
			lane := r.read(target)
			halted := slices.Contains(h.halts, target)
			if halted != (lane.Hold != nil) || halted != slices.Contains(woken, lane.ID) || halted && (lane.Hold.By != "ann" || lane.Hold.Reason != "incident") {
				r.Errorf("%s: %s is held by %+v, woken %v", h, target, lane.Hold, woken)
			}
		}
		r.refused(r.Hold(r.Context(), h.Hold), h.String()+" are halted already")
		r.must(r.Unhold(r.Context(), h.Hold))
		if lane := r.read("prod"); lane.Hold != nil || len(h.halts) != 0 && !slices.Contains(r.Woken(), lane.ID) {
			r.Errorf("%s was lifted, and prod is held by %+v", h, lane.Hold)
		}
		r.refused(r.Unhold(r.Context(), h.Hold), "no hold on "+h.String())
	}
	first, later := store.Hold{Tenant: "main", Scope: store.ScopeAll, By: "ann"}, store.Hold{Tenant: "main", Scope: store.ScopeAccount, Name: "prod", By: "bob"}
	r.must(r.Hold(r.Context(), first))
	r.now = r.now.Add(time.Minute)
	r.must(r.Hold(r.Context(), later))
	if lane := r.read("prod"); lane.Hold == nil || lane.Hold.By != "ann" {
		r.Errorf("of two holds the older one counts: %+v", lane.Hold)
	}
	r.must(r.Unhold(r.Context(), first))
	if lane := r.read("prod"); lane.Hold == nil || lane.Hold.By != "bob" {
		r.Errorf("one of two holds is left: %+v", lane.Hold)
	}
}

func leaves(r *room) {
	r.start(begin("d1", moving("staging", "m1"), moving("prod", "m1")))
	r.finish("staging", rollout.Succeeded)
	r.finish("prod", rollout.Succeeded)
	start := begin("d2")
	start.Gone = []rollout.Gone{{Lane: r.lane("staging"), Prune: true}, {Lane: r.lane("prod")}}
	r.start(start)
	if lane := r.read("staging"); lane.Current == nil || !lane.Current.Removes || lane.Current.Digest != "removes:d2" || lane.Current.Name != "staging" || lane.Current.Account != "staging" {
		r.Errorf("staging: %+v", lane.Current)
	}
	r.current("prod", 0, 0)
	lanes, err := r.Lanes(r.Context(), "main", "shop")
	r.must(err)
	if lanes[0].Target != "prod" || !lanes[0].Removed || lanes[0].Wanted != "" || lanes[1].Removed {
		r.Errorf("%+v", lanes)
	}
	r.states("d2", rollout.Queued)
}

func pins(r *room) {
	r.start(begin("d1", moving("staging", "m1")))
	r.finish("staging", rollout.Succeeded)
	r.start(begin("d2", moving("staging", "m2")))
	r.finish("staging", rollout.Succeeded)
	back := begin("d3", moving("staging", "m1"))
	back.Pin, back.Trigger = true, rollout.Trigger{Kind: "rollback", By: "ann", Reason: "worse"}
	r.start(back)
	if pin := r.read("staging").Current.Pins; pin == nil || pin.By != "ann" || pin.Why != "worse" {
		r.Errorf("it will be held by %+v", pin)
	}
	r.finish("staging", rollout.Succeeded)
	lanes, err := r.Lanes(r.Context(), "main", "shop")
	r.must(err)
	if l := lanes[0]; l.Wanted != "m2" || l.Number != 2 || l.Good.Number != 3 || l.Good.Manifests != "m1" {
		r.Errorf("%+v, good %+v", l, l.Good)
	}
	r.start(begin("d4", unchanged("staging", "m2")))
	if v := r.view("d4").Targets[0]; v.CarriedBy != 2 {
		r.Errorf("carried by #%d: what a person brought back carries nothing", v.CarriedBy)
	}
}

func unpins(r *room) {
	held := func() bool {
		r.Helper()
		lanes, err := r.Lanes(r.Context(), "main", "shop")
		r.must(err)
		return lanes[0].Pin != nil
	}
	r.start(begin("d1", moving("staging", "m1")))
	r.finish("staging", rollout.Succeeded)
	emergency := begin("d2", moving("staging", "m2"))
	emergency.Pin, emergency.Trigger = true, rollout.Trigger{Kind: "api", By: "ann", Reason: "it burns"}
	r.start(emergency)
	r.save("staging", func(d *rollout.Decision) {
		d.Target.State, d.Target.Phase = rollout.Succeeded, rollout.Finished
		d.Good = &rollout.Release{Deployment: "d2", Number: 2, Manifests: "m2"}
		d.Pin = &rollout.Pin{Number: 2, Why: "it burns", By: "ann"}
	})
	r.start(begin("d3", unchanged("staging", "m1")))
	if !held() {
		r.Error("what asks for something else lifts the pin")
	}
	r.start(begin("d4", unchanged("staging", "m2")))
	if held() {
		r.Error("what asks for the very same does not lift the pin")
	}
	if v := r.view("d4").Targets[0]; v.CarriedBy != 2 {
		r.Errorf("carried by #%d, want what brought it about", v.CarriedBy)
	}
	again := begin("d5", moving("staging", "m3"))
	r.start(again)
	r.save("staging", func(d *rollout.Decision) {
		d.Target.State, d.Target.Phase = rollout.Succeeded, rollout.Finished
		d.Good, d.Pin = &rollout.Release{Deployment: "d5", Number: 5, Manifests: "m3"}, &rollout.Pin{Number: 5, Why: "it burns", By: "ann"}
	})
	if held() {
		r.Error("it is held at the very manifests that were asked for")
	}
}

// Whose change was not proved good may not approve the next one alone: it holds that change, too.
func whoseChange(r *room) {
	by := func(s rollout.Start, who ...string) rollout.Start {
		s.Authors = who
		return s
	}
	authors := func() string {
		r.Helper()
		return strings.Join(r.read("staging").Current.Authors, ",")
	}
	r.start(by(begin("d1", moving("staging", "m1")), "ann", "ann@example.com"))
	r.finish("staging", rollout.Failed)
	r.start(by(begin("d2", moving("staging", "m2")), "Bob", "Ann"))
	if got := authors(); got != "Bob,Ann,ann@example.com" {
		r.Errorf("after a failed one it is the change of %s", got)
	}
	r.finish("staging", rollout.Succeeded)
	r.start(by(begin("d3", moving("staging", "m3")), "eve"))
	if got := authors(); got != "eve" {
		r.Errorf("after a good one it is the change of %s", got)
	}
}

func history(r *room) {
	r.start(begin("d1", moving("staging", "m1")))
	r.save("staging", func(d *rollout.Decision) {
		d.Target.State = rollout.Running
		d.Events = []rollout.Event{{At: r.now, Tenant: "main", Application: "shop", Deployment: "d1", Target: "staging", Who: "towpath", Kind: "one", What: "first"},
			{At: r.now, Tenant: "main", Application: "shop", Deployment: "d1", Target: "staging", Who: "towpath", Kind: "two", What: "second", Why: "because"}}
	})
	r.finish("staging", rollout.Succeeded)
	events, err := r.Events(r.Context(), store.EventFilter{Tenant: "main", Application: "shop"})
	r.must(err)
	var kinds []string
	for i, e := range events {
		kinds = append(kinds, e.Kind)
		if i > 0 && e.ID <= events[i-1].ID {
			r.Errorf("event %d after %d", e.ID, events[i-1].ID)
		}
	}
	if want := []string{"deployment.queued", "one", "two", "deployment.state", "deployment.state"}; !slices.Equal(kinds, want) {
		r.Fatalf("history: %q, want %q", kinds, want)
	}
	if e := events[2]; e.Deployment != "d1" || e.Target != "staging" || e.What != "second" || e.Why != "because" || !e.At.Equal(r.now) {
		r.Errorf("%+v", e)
	}
	rest, err := r.Events(r.Context(), store.EventFilter{Tenant: "main", Deployment: "d1", After: events[3].ID})
	r.must(err)
	if len(rest) != 1 || rest[0].What != "#1 is SUCCEEDED" {
		r.Errorf("after that: %+v", rest)
	}
}

func outbox(r *room) {
	claim := func() *rollout.Message {
		r.Helper()
		m, _, err := r.ClaimMessage(r.Context(), []string{"repo"}, time.Minute)
		r.must(err)
		return m
	}
	r.start(begin("d0", moving("staging", "m0")))
	r.finish("staging", rollout.Succeeded)
	if m := claim(); m != nil {
		r.Errorf("a source of which nothing is told has a message: %+v", m)
	}
	r.TellAbout([]string{"repo"})
	r.start(begin("d1", moving("staging", "m1")))
	first := claim()
	if first == nil || first.Commit != "d1" || first.Source != "repo" || first.Tenant != "main" {
		r.Fatalf("claimed: %+v", first)
	}
	if m := claim(); m != nil {
		r.Errorf("claimed twice: %+v", m)
	}
	r.finish("staging", rollout.Succeeded) // while it is being told
	r.must(r.Told(r.Context(), *first, nil))
	second := claim()
	if second == nil || second.Seq <= first.Seq {
		r.Fatalf("what changed meanwhile is not told: %+v", second)
	}
	r.must(r.Told(r.Context(), *second, nil))
	if m := claim(); m != nil {
		r.Errorf("told already: %+v", m)
	}
}

func sealed(r *room) {
	object, err := manifest.New([]byte(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"}}`), "x")
	r.must(err)
	r.must(r.Start(r.Context(), begin("d1", moving("staging", "m1")), map[string][]manifest.Object{"m1": {object}}))
	objects, err := r.Manifests(r.Context(), "m1")
	if err != nil || len(objects) != 1 || string(objects[0].JSON) != string(object.JSON) {
		r.Errorf("%v, %v", objects, err)
	}
	if _, err := r.Manifests(r.Context(), "m2"); err == nil || err.Error() != "nothing is sealed under m2" {
		r.Errorf("a set that is not there: %v", err)
	}
	start, err := r.Started(r.Context(), "main", "d1")
	r.must(err)
	if len(start.Targets) != 1 || start.Targets[0].Manifests != "m1" || start.Targets[0].Digest != "promise-m1" {
		r.Errorf("as it was recorded: %+v", start)
	}
}
