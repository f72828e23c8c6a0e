package storetest

import (
	"errors"
	"time"

	"towpath/reconcile/rollout"
	"towpath/store"
)

// links has a target make a link to one Service at two gates, the second of which lasts longer, and has a webhook ask for it.
func links(r *room) {
	target := moving("staging", "m1")
	target.Canary = []rollout.Step{{Expose: &rollout.Expose{Services: []string{"web"}}}, {Webhook: &rollout.Webhook{Name: "smoke"}}}
	r.start(begin("d1", target))
	link := func(gate string, lasts time.Duration) rollout.Link {
		return rollout.Link{Gate: gate, Service: "web", Namespace: "shop", Port: 80, Made: r.now, Until: r.now.Add(lasts)}
	}
	short, long := link("canary.steps[0]", time.Minute), link("canary.steps[2]", time.Hour)
	r.save("staging", func(d *rollout.Decision) { d.Exposes = []rollout.Link{short} })
	r.now = r.now.Add(time.Second)
	long.Made = r.now
	r.save("staging", func(d *rollout.Decision) {
		d.Exposes = []rollout.Link{short, long} // the first one a second time
		d.Target.Waits = []rollout.Wait{{Kind: rollout.WaitWebhook, Gate: "canary.steps[1]"}}
		d.Calls = []rollout.Call{{Gate: "canary.steps[1]", Kind: rollout.CallWebhook, Name: "smoke", Try: 1, At: r.now}}
	})
	if is := r.read("staging").Links; len(is) != 2 || is[0] != short || is[1] != long {
		r.Fatalf("the lane has the links %+v", is)
	}
	of := func() []store.Preview {
		all, err := r.Previews(r.Context(), "main", "d1")
		r.must(err)
		if len(all) != 2 {
			r.Fatalf("the deployment has the links %+v", all)
		}
		return all
	}
	all := of()
	first, second := all[0], all[1]
	if first.Random == "" || second.Random == "" || first.Random == second.Random || first.Target != "staging" || first.Account != "staging" || *second.Link != long || !second.Until.Equal(long.Until) {
		r.Errorf("%+v", all)
	}
	found, err := r.Preview(r.Context(), first.Random)
	r.must(err)
	if found.ID != first.ID || *found.Link != short || found.Deployment != "d1" || found.Tenant != "main" {
		r.Errorf("it leads to %+v", found)
	}
	asked := r.Asked()
	made, err := r.Call(r.Context(), asked[0])
	r.must(err)
	if made == nil || made.Links["web"] != second.Random {
		r.Errorf("a webhook is told of %+v, want the newest link %s", made, second.Random)
	}

	r.now = short.Until
	if p, err := r.Preview(r.Context(), first.Random); !errors.Is(err, store.ErrNoPreview) || p.Random != "" {
		r.Errorf("at its end it leads to %+v, %v", p, err)
	}
	if all := of(); all[0].Random != "" || all[1].Random != second.Random {
		r.Errorf("after the first has ended: %+v", all)
	}
	r.refused(r.EndPreview(r.Context(), "main", first.ID, "ann"), "no preview "+first.ID+" that holds; `towpath preview list` names those that do")
	r.refused(r.EndPreview(r.Context(), "other", second.ID, "ann"), "no preview "+second.ID+" that holds; `towpath preview list` names those that do")
	r.must(r.EndPreview(r.Context(), "main", second.ID, "ann"))
	if _, err := r.Preview(r.Context(), second.Random); !errors.Is(err, store.ErrNoPreview) {
		r.Errorf("once it was revoked: %v", err)
	}
	events, err := r.Events(r.Context(), store.EventFilter{Tenant: "main"})
	r.must(err)
	if last := events[len(events)-1]; last.Kind != "preview.revoked" || last.What != "staging: the preview link to Service web was revoked" || last.Who != "ann" {
		r.Errorf("%+v", last)
	}
	for _, random := range []string{"", "stranger"} {
		if _, err := r.Preview(r.Context(), random); !errors.Is(err, store.ErrNoPreview) {
			r.Errorf("%q: %v", random, err)
		}
	}
	if made, err := r.Call(r.Context(), asked[0]); err != nil || len(made.Links) != 0 {
		r.Errorf("a webhook is told of links that have ended: %+v, %v", made, err)
	}
	_, err = r.Previews(r.Context(), "other", "d1")
	r.refused(err, "no deployment d1")
}
