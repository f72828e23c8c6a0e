package rollout_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"towpath/reconcile/rollout"
)

// compare is a step that compares the canary with a baseline.
func compare(change ...func(*rollout.Analysis)) rollout.Step {
	most := 0.5
	a := rollout.Analysis{Queries: []rollout.Query{{Name: "errors", Template: "q", Upper: &most}}, Interval: time.Minute, Runs: 5, Sliding: true, Baseline: true}
	for _, c := range change {
		c(&a)
	}
	return rollout.Step{Analysis: &a}
}

// rates answers with error rates: the baseline's and the canary's.
func rates(baseline, canary float64) func(rollout.Call) *rollout.Answer {
	return func(c rollout.Call) *rollout.Answer {
		of, value := "web-b", canary
		if c.Of != "" {
			of, value = c.Of, baseline
		}
		if c.Values["armory.replicaSetName"] != of {
			return &rollout.Answer{Result: rollout.TurnedDown, Text: "asked of " + c.Values["armory.replicaSetName"]}
		}
		return &rollout.Answer{Result: rollout.Answered, Value: value * (1 + float64(c.Run)/100)}
	}
}

func TestACanaryIsComparedWithAsManyNewPodsOfTheVersionBefore(t *testing.T) {
	m := second(t, 8, weight(25), compare(), weight(50), compare(), weight(75), pause(time.Hour))
	m.outside = rates(0.01, 0.01)
	since := len(m.acts)
	m.until(t, rollout.WaitAnalysis)
	expectPods(t, m, map[string]int32{"web-a": 4, "web-a-baseline": 2, "web-b": 2})
	m.until(t, rollout.WaitPause)
	expectPods(t, m, map[string]int32{"web-a": 2, "web-b": 6})
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-b": 8})
	expectDid(t, m, since,
		"apply web-b=2",
		"shift web-a-baseline=2",
		"shift web-a=4",
		"shift web-b=4 web-a-baseline=4",
		"shift web-a=1", // one stays, to grow from
		"shift web-b=6 web-a=2",
		"shift web-a-baseline=0",
		"shift web-b=8",
		"shift web-a=0",
		"apply",
		"remove")
	if m.objects[revision("a-baseline")] != nil {
		t.Error("the baseline is still there")
	}
	if want := "query errors: the canary does not do worse than the baseline: median 0.0103 against 0.0103"; !strings.Contains(m.target.Judged[0].Text, want) {
		t.Errorf("judged as %s", m.target.Judged[0].Text)
	}
	if len(m.tries) != 20 {
		t.Errorf("measured %d times, want each of 5 runs of 2 analyses on both sides", len(m.tries))
	}
}

// Kubernetes makes a pod's name of the first 58 letters of that of its ReplicaSet with a dash, and five more.
func TestPodsOfABaselineHaveNamesThatBeginWithItsOwn(t *testing.T) {
	names := map[string]string{} // by the ReplicaSet's
	for _, hash := range []string{"a", strings.Repeat("a", 44), strings.Repeat("a", 45), strings.Repeat("a", 59), strings.Repeat("a", 58) + "b", strings.Repeat("a", 32) + ".-a-23456789012"} {
		m := newModel().deploy(1, "m1", set(hash, 4, webService)).run(t)
		m.deploy(2, "m2", set("b", 4, webService))
		m.target.Canary = []rollout.Step{weight(50), compare()}
		m.outside = rates(0, 0)
		m.until(t, rollout.WaitAnalysis)
		for name := range m.pods() {
			if strings.HasSuffix(name, "-baseline") {
				names[revision(hash).Name] = name
			}
		}
	}
	fits := regexp.MustCompile(`^([a-z0-9]([-a-z0-9]*[a-z0-9])?\.)*[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
	for of, name := range names {
		if len(name+"-") > 58 || !fits.MatchString(name) {
			t.Errorf("the baseline of %s is called %s, %d letters", of, name, len(name))
		}
		if len(of) <= 48 && name != of+"-baseline" {
			t.Errorf("the baseline of %s is called %s", of, name)
		}
	}
	if len(names) != 6 || len(slices.Compact(slices.Sorted(maps.Values(names)))) != 6 {
		t.Errorf("six ReplicaSets have the baselines %v", names)
	}
}

func TestACanaryThatDoesWorseThanItsBaselineGoesBack(t *testing.T) {
	m := second(t, 8, weight(25), compare())
	m.outside = rates(0.01, 0.02)
	m.run(t)
	expect(t, m, rollout.RolledBack, "the analysis canary.steps[1] failed: query errors: the mean of 5 runs is 0.0206, within the limits (upperLimit 0.5); "+
		"query errors: the canary's values are higher than the baseline's: median 0.0206 against 0.0103, shifted by +0.0103, higher in 100 of 100 pairs of runs; "+
		"chance does as much in 0.4 of 100 cases; held at #1", map[string]int32{"web-a": 8})
	if m.objects[revision("a-baseline")] != nil {
		t.Error("the baseline is still there")
	}
}

func TestBaselinesGoBeforeTheNextWait(t *testing.T) {
	m := second(t, 4, weight(25), compare(), approval(), weight(50))
	m.outside = rates(0, 0)
	m.until(t, rollout.WaitApproval)
	expectPods(t, m, map[string]int32{"web-a": 3, "web-b": 1})
}

// The version before has to be whole again before its baseline goes: until then both serve.
func TestABaselineServesUntilWhatItStoodInForIsReady(t *testing.T) {
	m := second(t, 8, weight(25), compare(), approval())
	m.outside = rates(0, 0)
	m.until(t, rollout.WaitAnalysis)
	m.sick[revision("a")] = "4 of 6 pods ready"
	m.until(t, rollout.WaitHealth)
	expectPods(t, m, map[string]int32{"web-a": 6, "web-a-baseline": 2, "web-b": 2})
	if needs := m.target.Waits[0].Needs; needs != "ReplicaSet.apps shop/web-a: 4 of 6 pods ready" {
		t.Errorf("it waits for %s", needs)
	}
	delete(m.sick, revision("a"))
	m.scale(m.objects[revision("a")], 6)
	m.until(t, rollout.WaitApproval)
	expectPods(t, m, map[string]int32{"web-a": 6, "web-b": 2})
}

func TestARouterGivesTheBaselineTheCanarysShare(t *testing.T) {
	m := routed(t, 4, weight(20), compare(), approval(), weight(60))
	m.outside = rates(0, 0)
	since := len(m.acts)
	m.until(t, rollout.WaitAnalysis)
	expectPods(t, m, map[string]int32{"web-a": 4, "web-a-baseline": 4, "web-b": 4})
	m.until(t, rollout.WaitApproval)
	expectPods(t, m, map[string]int32{"web-a": 4, "web-b": 4})
	expectDid(t, m, since,
		"shift held a|b",
		"apply held a|b web-b=4",
		"shift web-a-baseline=4",
		"shift divided a|b 20 beside a-baseline",
		"shift web-b=4",
		"shift divided a|b 20",
		"shift web-a-baseline=0")
	m.say(rollout.Reject, "canary.steps[2]", "ann")
	m.run(t)
	expectPods(t, m, map[string]int32{"web-a": 4})
}

func TestTrafficOfABaselineGoesBackBeforeItsPodsDo(t *testing.T) {
	m := routed(t, 4, weight(20), compare())
	m.outside = rates(0.1, 0.2)
	m.until(t, rollout.WaitAnalysis)
	since := len(m.acts)
	m.run(t)
	expectPods(t, m, map[string]int32{"web-a": 4})
	expectDid(t, m, since, "shift held a|b", "shift held a|b web-b=0 web-a-baseline=0", "shift whole a|a", "apply web-a=4", "remove")
}

func TestWhatIsNotWholeIsNoMeasure(t *testing.T) {
	m := second(t, 4, weight(25), compare())
	m.sick[revision("a")] = "1 of 4 pods ready"
	m.scale(m.objects[revision("a")], 4)
	m.outside = rates(0, 0.01)
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-b": 4})
	if want := "query errors: the mean of 5 runs is 0.0103, within the limits (upperLimit 0.5); what ran before was not whole, so there is no baseline to compare with"; m.target.Judged[0].Text != want {
		t.Errorf("judged as %s", m.target.Judged[0].Text)
	}
}

func TestABaselineThatIsDeletedIsMadeAgainAndOneThatDoesNotComeUpSendsTheCanaryBack(t *testing.T) {
	m := second(t, 4, weight(25), compare())
	m.sick[revision("a-baseline")] = "0 of 1 pods ready"
	m.until(t, rollout.WaitHealth)
	delete(m.objects, revision("a-baseline"))
	delete(m.sick, revision("a-baseline"))
	m.outside = rates(0, 0)
	m.until(t, rollout.WaitAnalysis)
	expectPods(t, m, map[string]int32{"web-a": 2, "web-a-baseline": 1, "web-b": 1})

	m = second(t, 4, weight(25), compare())
	m.sick[revision("a-baseline")] = "0 of 1 pods ready: ErrImagePull"
	m.run(t)
	expect(t, m, rollout.RolledBack, "not ready within 10m0s: ReplicaSet.apps shop/web-a-baseline: 0 of 1 pods ready: ErrImagePull; held at #1", map[string]int32{"web-a": 4})
}

func TestABaselineThatABrokenOffRolloutLeftIsNeverTakenForWhatCarries(t *testing.T) {
	m := second(t, 4, weight(25), compare())
	left := m.put(revision("a-baseline"))
	left.live.Workload, left.live.Hash, left.live.Baseline = "web", "a-baseline", true
	m.scale(left, 9)
	m.good = nil
	m.outside = rates(0, 0)
	m.until(t, rollout.WaitAnalysis)
	expectPods(t, m, map[string]int32{"web-a": 2, "web-a-baseline": 1, "web-b": 1})
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-b": 4})
}

func TestAnAnalysisReportsAtFirst(t *testing.T) {
	m := second(t, 4)
	m.outside = func(rollout.Call) *rollout.Answer { return &rollout.Answer{Result: rollout.Answered, Value: 1} }
	runs := 1
	next := func(number int) {
		t.Helper()
		m.deploy(number, fmt.Sprint("m", number), set(fmt.Sprint("v", number), 4, webService, webSettings))
		bad := compare(func(a *rollout.Analysis) {
			a.Baseline, a.ReportOnly, a.Runs, a.ManualBack, a.ManualForward = false, 2, runs, true, true
		})
		m.target.Canary = []rollout.Step{weight(25), bad, bad}
		m.events = nil
		m.run(t)
	}
	reported := func(number, nth int) {
		t.Helper()
		next(number)
		expect(t, m, rollout.Succeeded, "", map[string]int32{fmt.Sprint("web-v", number): 4})
		want := fmt.Sprintf("prod: the analysis canary.steps[1] failed, which is only reported in this deployment, %d of the first 2", nth)
		if !slices.ContainsFunc(m.events, func(e rollout.Event) bool { return e.What == want && e.Kind == "target.analysis_failed" }) {
			t.Errorf("nothing says %s: %+v", want, m.events)
		}
	}
	reported(3, 1)
	reported(4, 2)
	next(5)
	if m.target.State != rollout.AwaitingApproval || !strings.HasPrefix(m.target.Waits[0].Needs, "a person to judge the analysis canary.steps[1], which failed: ") {
		t.Errorf("the third is %s: %+v", m.target.State, m.target.Waits)
	}
	m.say(rollout.Reject, "canary.steps[1]", "ann")
	m.run(t)
	runs = 2 // another analysis, which has to earn its trust anew
	reported(6, 1)
}

// Of several Deployment objects the one that changed is compared, and its baseline alone is made.
func TestOfSeveralWorkloadsTheOneThatChangedIsCompared(t *testing.T) {
	two := func(web, api string) rollout.Set {
		s := set(web, 4, webService, webSettings)
		other := s.Revisions[0]
		other.Workload.Name, other.ReplicaSet.Name, other.Hash, other.Labels = "api", "api-"+api, api, map[string]string{"app": "api"}
		s.Objects, s.Revisions = append(s.Objects, other.Workload), append(s.Revisions, other)
		return s
	}
	m := newModel().deploy(1, "m1", two("a", "x")).run(t)
	m.deploy(2, "m2", two("a", "y"))
	m.target.Canary = []rollout.Step{weight(25), compare()}
	m.outside = func(c rollout.Call) *rollout.Answer {
		value, known := map[string]float64{"api-y": 0.4, "api-x-baseline": 0.1}[c.Values["armory.replicaSetName"]]
		if !known {
			return &rollout.Answer{Result: rollout.TurnedDown, Text: "asked of " + c.Values["armory.replicaSetName"]}
		}
		return &rollout.Answer{Result: rollout.Answered, Value: value}
	}
	m.run(t)
	if m.target.State != rollout.RolledBack || !strings.Contains(m.target.Why, "the canary's values are higher than the baseline's: median 0.4 against 0.1") {
		t.Errorf("it is %s: %s", m.target.State, m.target.Why)
	}

	m = newModel().deploy(1, "m1", two("a", "x")).run(t)
	m.deploy(2, "m2", two("a", "x"))
	m.target.Canary = []rollout.Step{weight(25), compare()}
	m.outside = func(rollout.Call) *rollout.Answer { return &rollout.Answer{Result: rollout.Answered} }
	m.run(t)
	if m.target.State != rollout.Succeeded || len(m.target.Judged) != 1 || !strings.HasSuffix(m.target.Judged[0].Text, "; no Deployment object changed, so there is nothing to compare") {
		t.Errorf("with nothing changed it is %s: %+v", m.target.State, m.target.Judged)
	}
}

// A baseline that is not whole any more gets no more of the traffic.
func TestABaselineIsProvedAnewBeforeItGetsMore(t *testing.T) {
	m := routed(t, 4, weight(10), compare(), weight(20), compare())
	m.outside = rates(0, 0)
	m.until(t, rollout.WaitAnalysis)
	m.sick[revision("a-baseline")] = "1 of 4 pods ready"
	m.scale(m.objects[revision("a-baseline")], 4)
	m.until(t, rollout.WaitHealth)
	if w := *m.target.Divided; w != 10 || !strings.Contains(m.target.Waits[0].Needs, "web-a-baseline: 1 of 4 pods ready") {
		t.Errorf("at %d it waits for %s", w, m.target.Waits[0].Needs)
	}
}
