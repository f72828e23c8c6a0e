package rollout_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"towpath/reconcile/rollout"
	"towpath/reconcile/simulate"
)

// What a simulation tells of a rollout is what befalls the same rollout on the model of a cluster: the same events at the same times, and the same end.
func TestASimulationTellsWhatBefallsARollout(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 7))
		var steps []rollout.Step
		for range r.IntN(8) {
			steps = append(steps, []rollout.Step{weight(r.IntN(101)), weight(r.IntN(101)), pause(time.Duration(1+r.IntN(90)) * time.Minute), approval("sre")}[r.IntN(4)])
		}
		pods := int32(1 + r.IntN(12))
		m := second(t, pods, steps...)
		from := m.now
		for !m.target.State.Final() {
			m.run(t)
			for _, w := range m.target.Waits {
				m.say(rollout.Approve, w.Gate, "ann")
			}
		}
		var want, got []string
		for _, e := range m.events {
			if e.Kind != "target.awaiting_approval" {
				want = append(want, e.At.Sub(from).String()+" "+strings.TrimPrefix(e.What, "prod: "))
			}
		}
		result := simulate.Run([]simulate.Target{{Name: "prod", Account: "prod", Way: m.target.Way, Set: set("b", pods, webService, webSettings)}},
			simulate.Assumptions{From: from, Limits: m.facts.Limits, Answers: simulate.Answers{Otherwise: simulate.AtOnce}})
		for _, line := range result.Lines {
			if !strings.HasPrefix(line.Text, "waits for ") && !strings.Contains(line.Text, " is approved by ") {
				got = append(got, line.At.Sub(from).String()+" "+line.Text)
			}
		}
		if !slices.Equal(got, want) || result.State != m.target.State {
			t.Errorf("seed %d: the simulation tells %q and ends %s; on the model it is %q and ends %s", seed, got, result.State, want, m.target.State)
		}
	}
}
