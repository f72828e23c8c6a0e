package storetest

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

func lanesRun(r *room) {
	r.start(begin("d1", moving("staging", "m1"), moving("prod", "m1", "staging")))
	before := r.read("prod")
	if before.Dependencies["staging"] != rollout.Queued || before.Current.Number != 1 {
		r.Errorf("prod: %+v", before)
	}
	r.finish("staging", rollout.Succeeded)
	if after := r.read("prod"); after.Dependencies["staging"] != rollout.Succeeded || after.Seq <= before.Seq {
		r.Errorf("prod after staging: %+v, was at sequence %d", after, before.Seq)
	}
	r.states("d1", rollout.Running)
	r.finish("prod", rollout.Succeeded)
	r.states("d1", rollout.Succeeded)
	r.current("prod", 0, 0)
}

func recordedTwice(r *room) {
	r.start(begin("d1", moving("staging", "m1")))
	r.start(begin("d1", moving("staging", "m1"), moving("prod", "m1")))
	if d := r.view("d1"); d.Number != 1 || len(d.Targets) != 1 {
		r.Errorf("%+v", d)
	}
}

func leases(r *room) {
	r.start(begin("d1", moving("staging", "m1")))
	id := r.lane("staging")
	var won atomic.Int64
	var claiming sync.WaitGroup
	for range 10 {
		claiming.Go(func() {
			switch _, err := r.Claim(r.Context(), id, time.Minute); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, rollout.ErrLeased):
				r.Errorf("a claim that lost: %v", err)
			}
		})
	}
	claiming.Wait()
	if won.Load() != 1 {
		r.Fatalf("%d claims won at once", won.Load())
	}
	r.now = r.now.Add(time.Minute - time.Second)
	if _, err := r.Claim(r.Context(), id, time.Minute); !errors.Is(err, rollout.ErrLeased) {
		r.Errorf("a claim before the lease ended: %v", err)
	}
	r.now = r.now.Add(time.Second)
	if lease := r.claim("staging"); lease.Epoch < 2 || !lease.Until.Equal(r.now.Add(time.Minute)) {
		r.Errorf("lease: %+v", lease)
	}
}

func lateWrites(r *room) {
	r.start(begin("d1", moving("staging", "m1")))
	first := r.claim("staging")
	r.now = r.now.Add(30 * time.Second)
	first, err := r.Extend(r.Context(), first, time.Minute)
	r.must(err)
	if !first.Until.Equal(r.now.Add(time.Minute)) {
		r.Errorf("extended until %s", first.Until)
	}
	r.now = r.now.Add(2 * time.Minute)
	second, lane := r.claim("staging"), r.read("staging")
	d := rollout.Decision{Target: *lane.Current, Changed: true, Claim: []manifest.Key{{Kind: "Service", Name: "web"}}, Events: []rollout.Event{{Tenant: "main", Application: "shop", Kind: "late"}}}
	d.Target.Why = "late"
	if err := r.Save(r.Context(), first, d); !errors.Is(err, rollout.ErrStale) {
		r.Errorf("a late save: %v", err)
	}
	if _, err := r.Extend(r.Context(), first, time.Minute); !errors.Is(err, rollout.ErrStale) {
		r.Errorf("a late extension: %v", err)
	}
	if _, err := r.Rest(r.Context(), first, lane.Seq, time.Time{}); !errors.Is(err, rollout.ErrStale) {
		r.Errorf("a late rest: %v", err)
	}
	if after := r.read("staging"); after.Current.Why != "" || len(after.Inventory) > 0 {
		r.Errorf("a late save wrote %+v", after)
	}
	d.Target.Why = "in time"
	r.must(r.Save(r.Context(), second, d))
	r.start(begin("d2", moving("staging", "m2")))
	d.Target.State, d.Target.Phase = rollout.Cancelled, rollout.Finished
	r.must(r.Save(r.Context(), second, d))
	if err := r.Save(r.Context(), second, d); !errors.Is(err, rollout.ErrStale) {
		r.Errorf("a save of a target that is no longer the lane's current one: %v", err)
	}
	r.now = r.now.Add(2 * time.Minute)
	r.finish("staging", rollout.Succeeded)
	if err := r.Save(r.Context(), second, d); !errors.Is(err, rollout.ErrStale) {
		r.Errorf("a late save on a lane on which nothing runs any more: %v", err)
	}
}

func wokenDoesNotRest(r *room) {
	r.start(begin("d1", moving("staging", "m1")))
	lease, lane := r.claim("staging"), r.read("staging")
	r.must(r.Wake(r.Context(), lane.ID))
	if rests, err := r.Rest(r.Context(), lease, lane.Seq, time.Time{}); err != nil || rests {
		r.Errorf("it rests although it was woken: %v %v", rests, err)
	}
	if _, err := r.Claim(r.Context(), lane.ID, time.Minute); !errors.Is(err, rollout.ErrLeased) {
		r.Errorf("what does not rest was given back: %v", err)
	}
	if rests, err := r.Rest(r.Context(), lease, r.read("staging").Seq, time.Time{}); err != nil || !rests {
		r.Errorf("it does not rest: %v %v", rests, err)
	}
	r.claim("staging")
}

func wakes(r *room) {
	r.start(begin("d1", moving("staging", "m1"), moving("prod", "m1", "staging"), moving("other", "m1")))
	r.woken("staging", "prod", "other")
	r.asks("staging", rollout.Wait{Kind: rollout.WaitApproval, Gate: "g", Since: when, Needs: "a word"})
	r.woken("prod")
	r.must(r.Say(r.Context(), rollout.Saying{Tenant: "main", Deployment: "d1", Target: "staging", Verb: rollout.Approve, By: "ann", Admin: true}))
	r.woken("staging")
	r.must(r.Wake(r.Context(), r.lane("other")))
	r.woken("other")
	r.must(r.WakeAccount(r.Context(), "main", "prod"))
	r.woken("prod")
	r.finish("staging", rollout.Succeeded)
	r.woken("prod")
	r.must(r.Cancel(r.Context(), "main", "d1", "ann", ""))
	r.woken("prod", "other")
	r.start(begin("d2", moving("other", "m2")))
	r.woken("other")
	r.finish("other", rollout.Cancelled)
	r.woken("other", "prod")
	r.must(r.WakeAccount(r.Context(), "main", "staging"))
	r.woken() // nothing is under way there
}

func dueLanes(r *room) {
	r.start(begin("d1", moving("staging", "m1"), moving("prod", "m1")))
	due := r.now.Add(time.Hour)
	lease := r.claim("staging")
	if rests, err := r.Rest(r.Context(), lease, r.read("staging").Seq, due); err != nil || !rests {
		r.Fatalf("rest: %v %v", rests, err)
	}
	held := r.claim("prod")
	r.Woken()
	later, err := r.WakeDue(r.Context(), r.now)
	r.must(err)
	if len(later) != 2 || !later[r.lane("staging")].Equal(due) || !later[r.lane("prod")].Equal(held.Until) {
		r.Errorf("due later: %v; want staging when it asked for it, and prod when its lease ends", later)
	}
	r.woken()
	if _, err = r.WakeDue(r.Context(), held.Until); err != nil {
		r.Error(err)
	}
	r.woken("prod")
	later, err = r.WakeDue(r.Context(), due)
	r.must(err)
	r.woken("staging")
	if len(later) != 0 {
		r.Errorf("due after all were woken: %v", later)
	}
}

func recovers(r *room) {
	r.start(begin("d1", moving("staging", "m1"), moving("prod", "m1")))
	r.finish("prod", rollout.Succeeded)
	r.claim("staging")
	r.Woken()
	r.must(r.Recover(r.Context()))
	r.woken("staging")
	if _, err := r.Claim(r.Context(), r.lane("staging"), time.Minute); r.Exclusive != (err == nil) {
		r.Errorf("claimed after a recovery: %v; the store is exclusive: %v", err, r.Exclusive)
	}
}

func replaces(r *room) {
	r.start(begin("d1", moving("staging", "m1")))
	r.start(begin("d2", moving("staging", "m2")))
	r.start(begin("d3", moving("staging", "m3")))
	r.current("staging", 1, 3)
	if d := r.view("d2"); d.State != rollout.Cancelled || d.Targets[0].Why != "replaced by #3" {
		r.Errorf("the one in between: %s, %s", d.State, d.Targets[0].Why)
	}
	r.finish("staging", rollout.Cancelled)
	r.current("staging", 3, 0)
	r.finish("staging", rollout.Succeeded)
	r.states("d1", rollout.Cancelled, "d3", rollout.Succeeded)
}

func countsReplaced(r *room) {
	r.start(begin("d1", moving("staging", "m1")))
	for i, id := range []string{"d2", "d3"} {
		r.start(begin(id, moving("staging", id)))
		r.finish("staging", rollout.Cancelled)
		if got := r.read("staging").Replaced; got != i+1 {
			r.Errorf("after %d were replaced: %d", i+1, got)
		}
	}
	r.start(begin("d4", moving("staging", "d4")))
	r.finish("staging", rollout.Succeeded)
	if got := r.read("staging").Replaced; got != 0 {
		r.Errorf("after one was finished: %d", got)
	}
}

// What carries a target counts in the eyes of all that stand on it; what replaced one counts only for those that depend on it.
func carries(r *room) {
	r.start(begin("d1", moving("staging", "m1"), moving("prod", "m1", "staging")))
	r.start(begin("d2", unchanged("staging", "m1"), moving("prod", "m2", "staging")))
	r.finish("prod", rollout.Cancelled)
	if lane := r.read("prod"); lane.Current.Number != 2 || lane.Dependencies["staging"] != rollout.Queued {
		r.Errorf("prod of d2 waits for %v", lane.Dependencies)
	}
	r.start(begin("d3", moving("staging", "m3"), unchanged("prod", "m2", "staging")))
	r.finish("staging", rollout.Cancelled)
	if lane := r.read("prod"); lane.Dependencies["staging"] != rollout.Queued {
		r.Errorf("what carried staging was replaced; prod of d2 sees %v", lane.Dependencies)
	}
	r.finish("staging", rollout.RolledBack)
	if lane := r.read("prod"); lane.Dependencies["staging"] != rollout.RolledBack {
		r.Errorf("what took the place of what carries staging was rolled back; prod of d2 sees %v", lane.Dependencies)
	}
	if v := r.view("d2").Targets[0]; v.CarriedBy != 1 || v.State != rollout.Cancelled {
		r.Errorf("staging of d2: %+v", v)
	}
	r.finish("prod", rollout.Cancelled)
	r.states("d1", rollout.Cancelled, "d2", rollout.Failed, "d3", rollout.Failed)
}

func owners(r *room) {
	key := manifest.Key{Kind: "Service", Namespace: "ns", Name: "web"}
	claim := func(application string) error {
		start := begin(application+"-d", moving("staging", "m1"))
		start.Application = application
		r.start(start)
		lanes, err := r.Lanes(r.Context(), "main", application)
		r.must(err)
		lease, err := r.Claim(r.Context(), lanes[0].ID, time.Minute)
		r.must(err)
		lane, err := r.Lane(r.Context(), lanes[0].ID)
		r.must(err)
		err = r.Save(r.Context(), lease, rollout.Decision{Target: *lane.Current, Changed: true, Claim: []manifest.Key{key}, Events: []rollout.Event{{Tenant: "main", Application: application, Kind: "claimed"}}})
		after, failed := r.Lane(r.Context(), lanes[0].ID)
		r.must(failed)
		if (err == nil) != slices.Contains(after.Inventory, key) {
			r.Errorf("%s claimed: %v; it has %v", application, err, after.Inventory)
		}
		return err
	}
	r.must(claim("shop"))
	var refused *rollout.Failure
	if err := claim("other"); !errors.As(err, &refused) || refused.Error() != "Service ns/web: belongs to application shop; an object has one owner" {
		r.Errorf("a second owner: %v", err)
	}
	start := begin("gone")
	start.Gone = []rollout.Gone{{Lane: r.lane("staging")}}
	r.start(start)
	if err := claim("third"); err != nil {
		r.Errorf("what nobody owns any more could not be claimed: %v", err)
	}
}

func inventory(r *room) {
	a, b := manifest.Key{Kind: "ConfigMap", Namespace: "ns", Name: "a"}, manifest.Key{Group: "apps", Kind: "Deployment", Namespace: "ns", Name: "b"}
	r.start(begin("d1", moving("staging", "m1")))
	r.save("staging", func(d *rollout.Decision) { d.Claim = []manifest.Key{b, a} })
	r.save("staging", func(d *rollout.Decision) { d.Claim = []manifest.Key{a} })
	if got := r.read("staging").Inventory; !slices.Equal(got, []manifest.Key{a, b}) {
		r.Errorf("claimed: %v", got)
	}
	r.save("staging", func(d *rollout.Decision) { d.Drop = []manifest.Key{a} })
	if got := r.read("staging").Inventory; !slices.Equal(got, []manifest.Key{b}) {
		r.Errorf("after one was dropped: %v", got)
	}
}

func keeps(r *room) {
	r.start(begin("d1", moving("staging", "m1")))
	r.finish("staging", rollout.Succeeded)
	r.start(begin("d2", moving("staging", "m2")))
	if lane := r.read("staging"); lane.Good == nil || lane.Good.Number != 1 || lane.Good.Manifests != "m1" {
		r.Errorf("good: %+v", lane.Good)
	}
	r.finish("staging", rollout.RolledBack)
	lanes, err := r.Lanes(r.Context(), "main", "shop")
	r.must(err)
	if l := lanes[0]; l.Good.Number != 1 || l.Wanted != "m2" || l.Promise != "promise-m2" || l.Number != 2 {
		r.Errorf("%+v", l)
	}
	r.start(begin("d3", moving("staging", "m3")))
	r.save("staging", func(d *rollout.Decision) {
		d.Emptied, d.Target.State, d.Target.Phase = true, rollout.Succeeded, rollout.Finished
	})
	lanes, err = r.Lanes(r.Context(), "main", "shop")
	r.must(err)
	if l := lanes[0]; l.Good != nil || l.Wanted != "" || !l.Removed {
		r.Errorf("after it was emptied: %+v", l)
	}
}

func skipped(r *room) {
	r.start(begin("d1", moving("staging", "m1")))
	r.finish("staging", rollout.Skipped)
	lanes, err := r.Lanes(r.Context(), "main", "shop")
	r.must(err)
	if !lanes[0].Moves("m1", "promise-m1") {
		r.Errorf("the same manifests would not move it: %+v", lanes[0])
	}
	r.states("d1", rollout.Succeeded)
}
