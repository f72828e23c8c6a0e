package storetest

import (
	"slices"
	"time"

	"towpath/reconcile/rollout"
	"towpath/store"
)

// calling starts a deployment whose only target waits for a webhook and for a measurement at a gate each.
func (r *room) calling() {
	r.Helper()
	target := moving("staging", "m1")
	target.Canary = []rollout.Step{{Webhook: &rollout.Webhook{Name: "smoke"}}, {Analysis: &rollout.Analysis{Runs: 1}}}
	s := begin("d1", target)
	s.Text = []byte("the file")
	r.start(s)
	r.save("staging", func(d *rollout.Decision) {
		d.Target.Waits = []rollout.Wait{{Kind: rollout.WaitWebhook, Gate: "canary.steps[0]"}, {Kind: rollout.WaitAnalysis, Gate: "canary.steps[1]"}}
		d.Calls = []rollout.Call{{Gate: "canary.steps[0]", Kind: rollout.CallWebhook, Name: "smoke", Try: 1, At: r.now, Values: map[string]string{"context.a": "b"}},
			{Gate: "canary.steps[1]", Kind: rollout.CallQuery, Name: "errors", Run: 1, Try: 1, At: r.now, Query: &rollout.Query{Name: "errors", Template: "q"}}}
	})
}

// views is the calls of the deployment by name.
func (r *room) views() map[string]store.CallView {
	r.Helper()
	views, err := r.Calls(r.Context(), "main", "d1")
	r.must(err)
	named := map[string]store.CallView{}
	for _, v := range views {
		named[v.Name] = v
	}
	return named
}

func calls(r *room) {
	r.calling()
	asked := r.Asked()
	views := r.views()
	if want := []string{views["smoke"].ID, views["errors"].ID}; len(asked) != 2 || !slices.Contains(asked, want[0]) || !slices.Contains(asked, want[1]) || want[0] == want[1] {
		r.Fatalf("asked for %v, want %v", asked, want)
	}
	id := views["smoke"].ID
	made, err := r.Call(r.Context(), id)
	r.must(err)
	if made == nil || made.Name != "smoke" || made.Values["context.a"] != "b" || made.Target.Name != "staging" || made.Source != "repo" || made.Path != "towpath.yaml" || string(made.File) != "the file" {
		r.Fatalf("%+v", made)
	}
	r.Woken()
	r.must(r.Answer(r.Context(), made.Call, rollout.Answer{At: r.now, Result: rollout.Unanswered, Text: "refused"}))
	r.woken("staging")
	r.must(r.Answer(r.Context(), made.Call, rollout.Answer{At: r.now, Result: rollout.Answered}))
	r.woken() // the first answer to a try counts
	if c := r.read("staging").Calls; len(c) != 2 || c[0].Answer == nil || c[0].Answer.Result != rollout.Unanswered || c[0].Answer.Text != "refused" || c[0].ID != id {
		r.Errorf("%+v", c)
	}
	if made, err := r.Call(r.Context(), id); made != nil || err != nil {
		r.Errorf("an answered call is to be made: %+v, %v", made, err)
	}
	r.save("staging", func(d *rollout.Decision) {
		d.Calls = []rollout.Call{{Gate: "canary.steps[0]", Kind: rollout.CallWebhook, Name: "smoke", Try: 2, At: r.now}}
	})
	if asked := r.Asked(); !slices.Equal(asked, []string{id}) {
		r.Errorf("the second try is asked for as %v, want %s", asked, id)
	}
	r.Woken()
	r.must(r.Answer(r.Context(), made.Call, rollout.Answer{At: r.now, Result: rollout.Answered}))
	r.woken() // that was the answer to the first try, and late
	r.must(r.RecoverCalls(r.Context()))
	if asked := r.Asked(); len(asked) != 2 {
		r.Errorf("a process that starts takes up %v", asked)
	}
	r.save("staging", func(d *rollout.Decision) { d.Target.Waits = nil })
	if made, err := r.Call(r.Context(), id); made != nil || err != nil {
		r.Errorf("a call that nobody waits for is to be made: %+v, %v", made, err)
	}
	if made, err := r.Call(r.Context(), "stranger"); made != nil || err != nil {
		r.Errorf("%+v, %v", made, err)
	}
}

func callbacks(r *room) {
	r.calling()
	views := r.views()
	back := func(tenant, id string, success bool) error {
		return r.CallBack(r.Context(), tenant, id, rollout.Callback{At: r.now, Success: success, Message: "9 of 9"})
	}
	const stranger = "no webhook was called with this callback address"
	r.refused(back("main", "stranger", true), stranger)
	r.refused(back("other", views["smoke"].ID, true), stranger)
	r.refused(back("main", views["errors"].ID, true), stranger)
	r.Woken()
	r.must(back("main", views["smoke"].ID, true))
	r.woken("staging")
	r.refused(back("main", views["smoke"].ID, false), "webhook smoke has called back already; the first time counts")
	if c := r.read("staging").Calls; c[0].Callback == nil || !c[0].Callback.Success || c[0].Callback.Message != "9 of 9" || !c[0].Callback.At.Equal(r.now) {
		r.Errorf("%+v", c[0])
	}
	events, err := r.Events(r.Context(), store.EventFilter{Tenant: "main"})
	r.must(err)
	if last := events[len(events)-1]; last.Kind != "target.called_back" || last.What != "staging: webhook smoke called back: success" || last.Why != "9 of 9" {
		r.Errorf("%+v", last)
	}
	r.now = r.now.Add(time.Minute)
	r.calledTooLate()
}

// calledTooLate has a webhook call back that nobody waits for any more.
func (r *room) calledTooLate() {
	r.save("staging", func(d *rollout.Decision) {
		d.Calls = []rollout.Call{{Gate: "canary.steps[2]", Kind: rollout.CallWebhook, Name: "late", Try: 1, At: r.now}}
	})
	r.finish("staging", rollout.Failed)
	r.refused(r.CallBack(r.Context(), "main", r.views()["late"].ID, rollout.Callback{At: r.now, Success: true}),
		"nobody waits for webhook late any more: target staging of deployment d1 is FAILED")
}

func comparisons(r *room) {
	target := moving("staging", "m1")
	target.Canary = []rollout.Step{{Analysis: &rollout.Analysis{Runs: 1, ReportOnly: 2}}}
	r.start(begin("d1", target))
	if judged := r.read("staging").Judged; len(judged) != 0 {
		r.Errorf("judged before anything was: %v", judged)
	}
	call := rollout.Call{Gate: "canary.steps[0]", Kind: rollout.CallQuery, Name: "errors", Run: 1, Try: 1, At: r.now, Query: &rollout.Query{Name: "errors", Template: "q"}}
	baseline := call
	baseline.Of = "web-1-baseline"
	r.save("staging", func(d *rollout.Decision) {
		d.Target.Waits = []rollout.Wait{{Kind: rollout.WaitAnalysis, Gate: call.Gate}}
		d.Calls = []rollout.Call{call, baseline}
		d.Judges = []string{"one", "other"}
	})
	asked := r.Asked()
	if len(asked) != 2 || asked[0] == asked[1] {
		r.Fatalf("asked for %v", asked)
	}
	var of []string
	for _, id := range asked {
		made, err := r.Call(r.Context(), id)
		r.must(err)
		of = append(of, made.Of)
	}
	if slices.Sort(of); !slices.Equal(of, []string{"", "web-1-baseline"}) {
		r.Errorf("measured is %q", of)
	}
	r.save("staging", func(d *rollout.Decision) { d.Judges = []string{"one"} })
	if judged := r.read("staging").Judged; len(judged) != 2 || judged["one"] != 2 || judged["other"] != 1 {
		r.Errorf("judged: %v", judged)
	}
}
