package rollout_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"towpath/deployment"
	"towpath/reconcile/rollout"
)

// called keeps calls as a store does, and has each that is awaited answered at once by what is outside.
func (m *model) called(calls []rollout.Call) {
	for _, c := range calls {
		m.tries = append(m.tries, fmt.Sprintf("%s:%d:%d", c.Name, c.Run, c.Try))
		if m.outside != nil && m.target.Awaits(c) {
			if c.Answer = m.outside(c); c.Answer != nil {
				c.Answer.At = m.now
			}
		}
		i := slices.IndexFunc(m.facts.Calls, func(o rollout.Call) bool {
			return o.Gate == c.Gate && o.Name == c.Name && o.Run == c.Run && o.Of == c.Of
		})
		if i < 0 {
			m.facts.Calls = append(m.facts.Calls, c)
		} else {
			m.facts.Calls[i] = c
		}
	}
}

// back has a webhook call back.
func (m *model) back(name string, success bool, message string) {
	for i, c := range m.facts.Calls {
		if c.Name == name {
			m.facts.Calls[i].Callback = &rollout.Callback{At: m.now, Success: success, Message: message}
		}
	}
}

func hook(w rollout.Webhook) rollout.Step { return rollout.Step{Webhook: &w} }

func taken(rollout.Call) *rollout.Answer { return &rollout.Answer{Result: rollout.Answered} }

func halfTaken(rollout.Call) *rollout.Answer {
	return &rollout.Answer{Result: rollout.Answered, Unfilled: []string{"context.cluster"}}
}

func away(rollout.Call) *rollout.Answer {
	return &rollout.Answer{Result: rollout.Unanswered, Text: "ci.example.com cannot be reached: connection refused"}
}

func TestAWebhookIsWaitedForUntilItCallsBack(t *testing.T) {
	m := second(t, 4, weight(50), hook(rollout.Webhook{Name: "smoke", Context: map[string]string{"team": "web"}}))
	m.outside = taken
	m.until(t, rollout.WaitWebhook)
	w := m.target.Waits[0]
	if m.target.State != rollout.Running || w.Needs != "webhook smoke to call back" || w.Command != "towpath deploy skip d2 prod --reason WHY" || !w.Until.Equal(m.now.Add(24*time.Hour)) {
		t.Errorf("%s: %+v", m.target.State, w)
	}
	values := m.facts.Calls[0].Values
	for name, want := range map[string]string{"armory.applicationName": "shop", "armory.deploymentId": "d2", "armory.environmentName": "prod", "armory.accountName": "prod",
		"armory.namespace": "shop", "armory.replicaSetName": "web-b", "context.team": "web"} {
		if values[name] != want {
			t.Errorf("{{%s}} is %q, want %q", name, values[name], want)
		}
	}
	expectPods(t, m, map[string]int32{"web-a": 2, "web-b": 2})
	m.back("smoke", true, "")
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-b": 4})
	if want := []string{"smoke:0:1"}; !slices.Equal(m.tries, want) {
		t.Errorf("called %v, want %v", m.tries, want)
	}
}

func TestHowAWebhookFails(t *testing.T) {
	for _, c := range []struct {
		name    string
		webhook rollout.Webhook
		outside func(rollout.Call) *rollout.Answer
		then    func(m *model)
		why     string
		tries   int
	}{
		{"it is turned down", rollout.Webhook{Name: "smoke", Retries: 3}, func(rollout.Call) *rollout.Answer {
			return &rollout.Answer{Result: rollout.TurnedDown, Text: "ci.example.com answered 500"}
		}, nil, "canary.steps[1]: webhook smoke: ci.example.com answered 500", 1},
		{"it cannot be reached", rollout.Webhook{Name: "smoke"}, away, nil, "canary.steps[1]: webhook smoke: ci.example.com cannot be reached: connection refused", 1},
		{"nor in its further tries", rollout.Webhook{Name: "smoke", Retries: 2}, away, nil, "canary.steps[1]: webhook smoke: ci.example.com cannot be reached: connection refused", 3},
		{"it says so", rollout.Webhook{Name: "smoke"}, taken, func(m *model) { m.back("smoke", false, "3 of 9 checks failed") },
			"canary.steps[1]: webhook smoke called back that it failed: 3 of 9 checks failed", 1},
		{"it says nothing", rollout.Webhook{Name: "smoke"}, taken, func(m *model) { m.now = m.now.Add(24 * time.Hour) },
			"canary.steps[1]: webhook smoke did not call back within 24h0m0s", 1},
		{"nothing filled two variables", rollout.Webhook{Name: "smoke"}, func(rollout.Call) *rollout.Answer {
			return &rollout.Answer{Result: rollout.TurnedDown, Text: "ci.example.com answered 400", Unfilled: []string{"context.cluster", "context.team"}}
		}, nil, "canary.steps[1]: webhook smoke: ci.example.com answered 400; {{context.cluster}}, {{context.team}} were filled with nothing", 1},
		{"it says so of half a call", rollout.Webhook{Name: "smoke"}, halfTaken, func(m *model) { m.back("smoke", false, "no such cluster") },
			"canary.steps[1]: webhook smoke called back that it failed: no such cluster; {{context.cluster}} was filled with nothing", 1},
		{"half a call is never answered", rollout.Webhook{Name: "smoke"}, halfTaken, func(m *model) { m.now = m.now.Add(24 * time.Hour) },
			"canary.steps[1]: webhook smoke did not call back within 24h0m0s; {{context.cluster}} was filled with nothing", 1},
		{"a person refuses", rollout.Webhook{Name: "smoke"}, taken, func(m *model) { m.say(rollout.Reject, "canary.steps[1]", "ann") }, "canary.steps[1] was rejected by ann", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := second(t, 4, weight(50), hook(c.webhook))
			m.outside = c.outside
			if c.then != nil {
				m.until(t, rollout.WaitWebhook)
				c.then(m)
			}
			m.run(t)
			expect(t, m, rollout.RolledBack, c.why+"; held at #1", map[string]int32{"web-a": 4})
			if len(m.tries) != c.tries {
				t.Errorf("called %v, want %d tries", m.tries, c.tries)
			}
		})
	}
}

func TestAWebhookWithoutCallbackIsDoneOnceItIsAnswered(t *testing.T) {
	m := second(t, 4, hook(rollout.Webhook{Name: "tell", NoCallback: true}))
	m.outside = taken
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-b": 4})
}

func TestACallThatIsLostIsMadeAgainAsTheSameTry(t *testing.T) {
	m := second(t, 4, hook(rollout.Webhook{Name: "tell", NoCallback: true}))
	lost := true
	m.outside = func(c rollout.Call) *rollout.Answer {
		if lost {
			lost = false
			return nil
		}
		return taken(c)
	}
	m.until(t, rollout.WaitWebhook)
	if needs := m.target.Waits[0].Needs; needs != "webhook tell to answer" {
		t.Errorf("it waits for %s", needs)
	}
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-b": 4})
	if want := []string{"tell:0:1", "tell:0:1"}; !slices.Equal(m.tries, want) {
		t.Errorf("called %v, want %v", m.tries, want)
	}
}

func TestAFailedWebhookDoesNotWaitForAnApprovalBesideIt(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 2, webService))
	m.target.Before = []rollout.Step{approval(), hook(rollout.Webhook{Name: "ticket"})}
	m.outside = away
	m.run(t)
	expect(t, m, rollout.Cancelled, "not started: beforeDeployment[1]: webhook ticket: ci.example.com cannot be reached: connection refused", nil)
}

func TestAWebhookAfterTheDeploymentUndoesNothing(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 2, webService))
	m.target.After = []rollout.Step{hook(rollout.Webhook{Name: "ticket"})}
	m.outside = away
	m.run(t)
	expect(t, m, rollout.Failed, "afterDeployment[0]: webhook ticket: ci.example.com cannot be reached: connection refused; what was rolled out stays", map[string]int32{"web-a": 2})
}

// analysis is a step of so many runs, one a minute, of the queries errors (at most 5) and requests (at least 10).
func analysis(runs int, change func(*rollout.Analysis)) rollout.Step {
	most, least := 5.0, 10.0
	a := rollout.Analysis{Interval: time.Minute, Runs: runs, Queries: []rollout.Query{{Name: "errors", Template: "errors", Provider: "prometheus", Upper: &most},
		{Name: "requests", Template: "requests", Provider: "prometheus", Lower: &least}}}
	if change != nil {
		change(&a)
	}
	return rollout.Step{Analysis: &a}
}

// measured answers queries by name with one value after the other, the last one for good.
func measured(values map[string][]float64) func(rollout.Call) *rollout.Answer {
	return func(c rollout.Call) *rollout.Answer {
		of := values[c.Name]
		return &rollout.Answer{Result: rollout.Answered, Value: of[min(c.Run, len(of))-1]}
	}
}

func TestAnAnalysisJudgesTheMeansOfItsRuns(t *testing.T) {
	for _, c := range []struct {
		name     string
		step     rollout.Step
		errors   []float64
		requests []float64
		state    rollout.State
		why      string
		runs     int
	}{
		{"all is well", analysis(3, nil), []float64{1}, []float64{20}, rollout.Succeeded, "", 3},
		{"one bad run of three", analysis(3, nil), []float64{7, 1}, []float64{20}, rollout.Succeeded, "", 3},
		{"bad in the mean", analysis(3, nil), []float64{20, 1}, []float64{20}, rollout.RolledBack,
			"the analysis canary.steps[1] failed: query errors: the mean of 3 runs is 7.333, above upperLimit 5; query requests: the mean of 3 runs is 20, within the limits (lowerLimit 10); held at #1", 3},
		{"the other query", analysis(2, nil), []float64{1}, []float64{9}, rollout.RolledBack,
			"the analysis canary.steps[1] failed: query errors: the mean of 2 runs is 1, within the limits (upperLimit 5); query requests: the mean of 2 runs is 9, below lowerLimit 10; held at #1", 2},
		{"the first bad run ends it", analysis(3, func(a *rollout.Analysis) { a.Abort = true }), []float64{1, 7, 1}, []float64{20}, rollout.RolledBack,
			"the analysis canary.steps[1] failed: query errors, run 2 of 3: the value is 7, above upperLimit 5; held at #1", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := second(t, 4, weight(50), c.step)
			m.outside = measured(map[string][]float64{"errors": c.errors, "requests": c.requests})
			m.until(t, rollout.WaitAnalysis)
			began := m.now
			if needs := m.target.Waits[0].Needs; m.target.State != rollout.Running || needs != fmt.Sprintf("the analysis canary.steps[1]: run 1 of %d, at %s", c.step.Analysis.Runs, began.Add(time.Minute).Format(time.TimeOnly)) {
				t.Errorf("%s: waits for %s", m.target.State, needs)
			}
			m.run(t)
			pods := map[string]int32{"web-b": 4}
			if c.state != rollout.Succeeded {
				pods = map[string]int32{"web-a": 4}
			}
			expect(t, m, c.state, c.why, pods)
			if len(m.tries) != 2*c.runs {
				t.Errorf("measured %v, want %d runs of both", m.tries, c.runs)
			}
		})
	}
}

func TestAMeasurementThatCannotBeMade(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer rollout.Answer
		tries  int
		why    string
	}{
		{"no data", rollout.Answer{Result: rollout.WithoutValue, Text: "the query gave no series"}, 3, "query errors: 3 of 3 runs had no data (the query gave no series)"},
		{"a bad query", rollout.Answer{Result: rollout.TurnedDown, Text: "parse error at char 3"}, 1, "query errors, run 1 of 3: parse error at char 3"},
		{"half a query", rollout.Answer{Result: rollout.TurnedDown, Text: "parse error at char 3", Unfilled: []string{"context.by"}}, 1,
			"query errors, run 1 of 3: parse error at char 3; {{context.by}} was filled with nothing"},
		{"the server is away", rollout.Answer{Result: rollout.Unanswered, Text: "prometheus cannot be reached"}, 4, "query errors, run 1 of 3: prometheus cannot be reached"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := second(t, 4, weight(50), analysis(3, func(a *rollout.Analysis) { a.Queries = a.Queries[:1] }))
			m.outside = func(rollout.Call) *rollout.Answer { answer := c.answer; return &answer }
			m.run(t)
			expect(t, m, rollout.RolledBack, "the analysis canary.steps[1] failed: "+c.why+"; held at #1", map[string]int32{"web-a": 4})
			if len(m.tries) != c.tries {
				t.Errorf("measured %v, want %d tries", m.tries, c.tries)
			}
		})
	}
}

func TestNoDataMeansWhatTheFileSays(t *testing.T) {
	for _, c := range []struct {
		name   string
		passes bool
		runs   []rollout.Result // one after the other
		state  rollout.State
	}{
		{"none at all", false, []rollout.Result{rollout.WithoutValue, rollout.WithoutValue, rollout.WithoutValue}, rollout.RolledBack},
		{"none at all, which is good", true, []rollout.Result{rollout.WithoutValue, rollout.WithoutValue, rollout.WithoutValue}, rollout.Succeeded},
		{"in one run of three", false, []rollout.Result{rollout.WithoutValue, rollout.Answered, rollout.Answered}, rollout.Succeeded},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := second(t, 4, weight(50), analysis(3, func(a *rollout.Analysis) { a.Queries = a.Queries[:1]; a.Queries[0].NoDataPasses = c.passes }))
			m.outside = func(call rollout.Call) *rollout.Answer { return &rollout.Answer{Result: c.runs[call.Run-1], Value: 1} }
			if m.run(t); m.target.State != c.state {
				t.Errorf("%s: %s", m.target.State, m.target.Why)
			}
		})
	}
}

func TestAPersonConfirmsAVerdictWhereTheFileSaysSo(t *testing.T) {
	manual := func(a *rollout.Analysis) { a.ManualBack, a.ManualForward = true, true }
	for _, c := range []struct {
		errors  float64
		verb    rollout.Verb
		state   rollout.State
		verdict string
	}{
		{1, rollout.Approve, rollout.Succeeded, "passed: query errors: the mean of 1 run is 1, within the limits (upperLimit 5); query requests: the mean of 1 run is 20, within the limits (lowerLimit 10)"},
		{1, rollout.Reject, rollout.RolledBack, "passed: query errors: the mean of 1 run is 1, within the limits (upperLimit 5); query requests: the mean of 1 run is 20, within the limits (lowerLimit 10)"},
		{9, rollout.Approve, rollout.Succeeded, "failed: query errors: the mean of 1 run is 9, above upperLimit 5; query requests: the mean of 1 run is 20, within the limits (lowerLimit 10)"},
		{9, rollout.Reject, rollout.RolledBack, "failed: query errors: the mean of 1 run is 9, above upperLimit 5; query requests: the mean of 1 run is 20, within the limits (lowerLimit 10)"},
	} {
		t.Run(fmt.Sprint(c.errors, c.verb), func(t *testing.T) {
			m := second(t, 4, weight(50), analysis(1, manual))
			m.outside = measured(map[string][]float64{"errors": {c.errors}, "requests": {20}})
			m.until(t, rollout.WaitApproval)
			if want := "a person to judge the analysis canary.steps[1], which " + c.verdict + "; approve goes on, reject goes back"; m.target.State != rollout.AwaitingApproval || m.target.Waits[0].Needs != want {
				t.Errorf("%s: waits for %s\nwant %s", m.target.State, m.target.Waits[0].Needs, want)
			}
			m.say(c.verb, "canary.steps[1]", "ann")
			m.run(t)
			if m.target.State != c.state {
				t.Errorf("%s: %s", m.target.State, m.target.Why)
			}
			judged := 0
			for _, e := range m.events {
				if strings.HasPrefix(e.Kind, "target.analysis_") {
					judged++
				}
			}
			if judged != 1 {
				t.Errorf("the verdict was told %d times", judged)
			}
		})
	}
}

func TestAMeasurementLooksAtItsOwnTime(t *testing.T) {
	for _, sliding := range []bool{false, true} {
		m := second(t, 4, weight(50), analysis(2, func(a *rollout.Analysis) { a.Sliding = sliding }))
		m.outside = measured(map[string][]float64{"errors": {1}, "requests": {20}})
		m.until(t, rollout.WaitAnalysis)
		began := m.target.Since
		m.now = m.now.Add(time.Hour) // nobody was there to measure in time
		m.run(t)
		from, lasts := began, "120"
		if sliding {
			from, lasts = began.Add(time.Minute), "60"
		}
		values := m.facts.Calls[2].Values
		for name, want := range map[string]string{"armory.startTimeIso8601": from.Format(time.RFC3339), "armory.endTimeEpochSeconds": fmt.Sprint(began.Add(2 * time.Minute).Unix()),
			"armory.endTimeEpochMillis": fmt.Sprint(began.Add(2 * time.Minute).UnixMilli()), "armory.intervalSeconds": lasts, "armory.intervalMillis": lasts + "000", "armory.promQlStepInterval": lasts + "s"} {
			if values[name] != want {
				t.Errorf("sliding %v: {{%s}} is %q, want %q", sliding, name, values[name], want)
			}
		}
	}
}

func TestTimeInWhichARolloutIsHeldIsNotMeasured(t *testing.T) {
	m := second(t, 4, weight(50), analysis(2, nil))
	m.outside = measured(map[string][]float64{"errors": {1}, "requests": {20}})
	m.until(t, rollout.WaitAnalysis)
	began := m.now
	m.facts.Hold = &rollout.Hold{By: "ann", At: m.now}
	m.step()
	m.now = m.now.Add(time.Hour)
	m.facts.Hold = nil
	m.step()
	if m.until(t, rollout.WaitAnalysis); len(m.tries) > 0 {
		t.Errorf("measured %v while it was halted", m.tries)
	}
	m.run(t)
	if want := began.Add(time.Hour + 2*time.Minute); !m.facts.Calls[3].Until.Equal(want) {
		t.Errorf("the last measurement ends at %s, want %s", m.facts.Calls[3].Until, want)
	}
}

func TestWhatAFileSaysOfWebhooksAndAnalysesIsPromised(t *testing.T) {
	text := `application: shop
context: {team: file, region: eu}
contextOverrides: {region: us}
targets: {prod: {account: prod, namespace: shop, strategy: s, constraints: {beforeDeployment: [{runWebhook: {name: ticket}}]}}}
manifests: [{path: m.yaml}]
strategies: {s: {canary: {steps: [{setWeight: {weight: 50}}, {analysis: {queries: [errors], interval: 30, units: seconds, numberOfJudgmentRuns: 4, rollBackMode: manual, lookbackMethod: sliding,
  abortOnFailedJudgment: true, context: {team: step}}}]}}}
analysis: {defaultMetricProviderName: prom, queries: [{name: errors, queryTemplate: q, upperLimit: 1}]}
webhooks: [{name: ticket, method: POST, uriTemplate: "https://example.com/URL", retryCount: 2}]
`
	way := func(text string) rollout.Way {
		t.Helper()
		file, problems := deployment.Parse("towpath.yaml", []byte(text))
		if file == nil {
			t.Fatal(problems)
		}
		return rollout.WayOf(file, *file.Target("prod"), false)
	}
	w := way(text)
	if hook := w.Before[0].Webhook; hook.Name != "ticket" || hook.Retries != 2 || hook.NoCallback || hook.Context["team"] != "file" || hook.Context["region"] != "us" {
		t.Errorf("%+v", hook)
	}
	if a := w.Canary[1].Analysis; a.Interval != 30*time.Second || a.Runs != 4 || !a.ManualBack || a.ManualForward || !a.Sliding || !a.Abort || a.Context["team"] != "step" ||
		len(a.Queries) != 1 || a.Queries[0].Provider != "prom" || *a.Queries[0].Upper != 1 {
		t.Errorf("%+v", a)
	}
	promise := func(w rollout.Way) string {
		digest, err := rollout.Promise(w, "m")
		if err != nil {
			t.Fatal(err)
		}
		return digest
	}
	if promise(way(strings.Replace(text, "example.com/URL", "example.com/other", 1))) == promise(w) {
		t.Error("another address of a webhook is the same promise")
	}
	if promise(way("# a line more\n"+text)) != promise(w) {
		t.Error("where a webhook stands in the file is part of the promise")
	}
}

func TestWhatNothingFilledIsToldWhereItIsWaitedForAndJudged(t *testing.T) {
	m := second(t, 4, weight(50), hook(rollout.Webhook{Name: "smoke"}), analysis(2, nil))
	m.outside = func(c rollout.Call) *rollout.Answer {
		answer := halfTaken(c)
		if answer.Value = 20; c.Name == "errors" {
			answer.Value = 1
		}
		return answer
	}
	m.until(t, rollout.WaitWebhook)
	if needs := m.target.Waits[0].Needs; needs != "webhook smoke to call back; {{context.cluster}} was filled with nothing" {
		t.Errorf("it waits for %s", needs)
	}
	m.back("smoke", true, "")
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-b": 4})
	const why = "query errors: the mean of 2 runs is 1, within the limits (upperLimit 5); query errors: {{context.cluster}} was filled with nothing; " +
		"query requests: the mean of 2 runs is 20, within the limits (lowerLimit 10); query requests: {{context.cluster}} was filled with nothing"
	if !slices.ContainsFunc(m.events, func(e rollout.Event) bool { return e.Kind == "target.analysis_passed" && e.Why == why }) {
		t.Errorf("the verdict is told as %+v", m.events)
	}
}

func TestTheVariablesOfCallsAreThoseThatAFileMayName(t *testing.T) {
	values := rollout.Window(rollout.Target{Namespace: "shop"}.Values(set("a", 1), nil), time.Unix(0, 0), time.Unix(60, 0))
	var want []string
	for _, name := range slices.Concat(deployment.TargetVariables, deployment.WindowVariables) {
		want = append(want, "armory."+name)
	}
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(values)); !slices.Equal(got, want) {
		t.Errorf("they are %q, and files may name %q", got, want)
	}
	for _, name := range []string{"armory.replicaSetName", "armory.namespace"} {
		if text, known := (rollout.Target{}).Values(rollout.Set{}, nil)[name]; known {
			t.Errorf("of manifests without one {{%s}} is filled with %q", name, text)
		}
	}
}
