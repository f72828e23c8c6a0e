package proof_test

import (
	"context"
	"fmt"
	"slices"
	"time"

	"towpath/reconcile"
	"towpath/reconcile/rollout"
)

// outside is whoever is called: webhooks, and servers of metrics. It remembers what it did.
type outside struct {
	house *house
	bad   int // chance that a call comes to nothing good, from 0 to 100

	keys map[string]string      // of calls, by what they are for
	uses map[string]string      // what they are for, by key
	done map[string]bool        // webhooks that did what they were to do
	back map[string][]time.Time // when webhooks called back
}

func newOutside(h *house) *outside {
	return &outside{house: h, keys: map[string]string{}, uses: map[string]string{}, done: map[string]bool{}, back: map[string][]time.Time{}}
}

func stepOf(deployment, target, gate string) string { return deployment + "/" + target + "/" + gate }

// calls has calls that were asked for made, a moment later, by one of the processes.
func (h *house) calls() {
	asked := append(h.unmade, h.store.Asked()...)
	h.unmade = nil
	for _, id := range asked {
		if len(h.processes) == 0 {
			h.unmade = append(h.unmade, id)
			continue
		}
		h.After(time.Duration(1+h.chance.IntN(5))*10*time.Millisecond, func() { h.make(id) })
	}
}

func (h *house) make(id string) {
	if len(h.processes) == 0 {
		h.unmade = append(h.unmade, id)
		return
	}
	p := h.processes[h.chance.IntN(len(h.processes))]
	h.Go(p.group, func() {
		caller := &reconcile.Caller{Store: h.store, Webhook: h.outside.webhook, Measure: h.outside.measure, Clock: h.Now}
		if err := caller.Make(context.Background(), id); err != nil {
			h.wrongly("a call failed: %v", err)
		}
		h.deliver()
	})
}

// known holds that what is called for is always called under the same key, and under one that nothing else has.
func (o *outside) known(a rollout.Asked) {
	use := fmt.Sprintf("%s %s %d of %q", stepOf(a.Target.Deployment, a.Target.Name, a.Gate), a.Name, a.Run, a.Of)
	if key, called := o.keys[use]; called && key != a.ID {
		o.house.wrongly("%s is called under the key %s, and was called under %s before", use, a.ID, key)
	}
	if other, used := o.uses[a.ID]; used && other != use {
		o.house.wrongly("%s is called under the key of %s", use, other)
	}
	o.keys[use], o.uses[a.ID] = a.ID, use
	o.linked(a)
	o.house.note("calls %s (try %d)", use, a.Try)
}

func (o *outside) chance(percent int) bool { return o.house.chance.IntN(100) < percent }

// trouble is how a call comes to nothing, if it does.
func (o *outside) trouble() (answer rollout.Answer, any bool) {
	o.house.Sleep(time.Duration(o.house.chance.IntN(20)) * time.Second)
	switch {
	case o.chance(o.bad):
		return rollout.Answer{Result: rollout.Unanswered, Text: "connection refused"}, true
	case o.chance(o.bad / 4):
		return rollout.Answer{Result: rollout.TurnedDown, Text: "answered 500"}, true
	}
	return rollout.Answer{Result: rollout.Answered}, false
}

// webhook does what it is to do while it is called, and tells of it later: now and then twice, or never.
func (o *outside) webhook(_ context.Context, a rollout.Asked) rollout.Answer {
	o.known(a)
	answer, trouble := o.trouble()
	step, hook := stepOf(a.Target.Deployment, a.Target.Name, a.Gate), stepAt(a.Target, a.Gate).Webhook
	if trouble && !o.chance(20) { // it was called all the same, and only its answer was lost
		return answer
	}
	if hook.NoCallback {
		o.done[step] = o.done[step] || !trouble
		return answer
	}
	if o.chance(o.bad / 2) {
		return answer
	}
	success := !o.chance(o.bad / 2)
	for range 1 + o.house.chance.IntN(2) {
		o.house.After(time.Duration(o.house.chance.IntN(1800))*time.Second, func() {
			if o.house.refusable(o.house.store.CallBack(context.Background(), "main", a.ID, rollout.Callback{At: o.house.Now(), Success: success})) {
				if o.back[a.ID] = append(o.back[a.ID], o.house.Now()); len(o.back[a.ID]) > 1 {
					o.house.wrongly("%s called back twice, and both counted", step)
				}
				o.done[step] = success
			}
		})
	}
	return answer
}

func (o *outside) measure(_ context.Context, a rollout.Asked) rollout.Answer {
	o.known(a)
	answer, trouble := o.trouble()
	switch {
	case trouble:
		return answer
	case o.chance(o.bad / 4):
		return rollout.Answer{Result: rollout.WithoutValue, Text: "no series"}
	}
	answer.Value = float64(o.house.chance.IntN(5))
	if o.chance(o.bad) {
		answer.Value = 100
	}
	return answer
}

// answered holds that a step was passed because of what was outside.
func (j *judge) answered(w *watched, t rollout.Target, name string, step rollout.Step) {
	switch {
	case step.Webhook != nil:
		if !j.house.outside.done[stepOf(t.Deployment, t.Name, name)] {
			j.wrongly("%s of #%d passes %s although webhook %s has not done what it was to do", w.name, t.Number, name, step.Webhook.Name)
		}
	case step.Expose != nil:
		if service := j.unmade(t, name, *step.Expose); service != "" {
			j.wrongly("%s of #%d passes %s although there is no link to %s", w.name, t.Number, name, service)
		}
	case step.Analysis != nil:
		j.measured(w, t, name, *step.Analysis)
	}
}

// measured holds that each run of an analysis has its measurement, and that a bad verdict is passed only with a person's word.
func (j *judge) measured(w *watched, t rollout.Target, name string, a rollout.Analysis) {
	calls, err := j.house.store.Calls(context.Background(), t.Tenant, t.Deployment)
	j.house.must(err)
	sum, runs, without := 0.0, 0, 0
	var canary, baseline []float64
	for _, c := range calls {
		switch {
		case c.Target != t.Name || c.Gate != name || c.Answer == nil:
		case c.Of != "":
			baseline = append(baseline, c.Answer.Value)
		case c.Answer.Result == rollout.Answered:
			sum += c.Answer.Value
			runs++
			canary = append(canary, c.Answer.Value)
		case c.Answer.Result == rollout.WithoutValue:
			without++
		}
	}
	by, _ := j.said(t, name, rollout.Step{})
	failed := runs+without < a.Runs || 2*runs < a.Runs || sum/float64(runs) > *a.Queries[0].Upper
	if apart := len(baseline) == a.Runs && len(canary) == a.Runs && slices.Min(canary) > slices.Max(baseline); a.Baseline {
		failed = failed || apart || len(baseline) > 0 && len(baseline) < a.Runs
	}
	switch i := slices.IndexFunc(t.Judged, func(o rollout.Judgement) bool { return o.Gate == name }); {
	case a.ReportOnly > 0 && i >= 0 && t.Judged[i].Reported:
	case failed && !a.ManualBack, failed && len(by) == 0:
		j.wrongly("%s of #%d passes %s with %d of %d runs and a mean of %g", w.name, t.Number, name, runs, a.Runs, sum/float64(runs))
	case !failed && a.ManualForward && len(by) == 0:
		j.wrongly("%s of #%d passes %s although nobody has confirmed its verdict", w.name, t.Number, name)
	}
}
