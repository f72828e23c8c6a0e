package simulate_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"towpath/manifest"
	"towpath/reconcile/rollout"
	"towpath/reconcile/simulate"
)

var monday = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

// assumed is pods that take 30 seconds, people who approve at once, and an earlier version that runs.
func assumed() simulate.Assumptions {
	return simulate.Assumptions{From: monday, ReadyAfter: 30 * time.Second, Answers: simulate.Answers{Otherwise: simulate.AtOnce},
		Limits: rollout.Limits{Removals: 10, Shrink: 0.3, Keep: 3, Away: time.Minute, Yield: time.Minute}}
}

// web is a workload of ten pods with a Service and a ConfigMap.
func web() rollout.Set {
	key := manifest.Key{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: "web"}
	service, settings := manifest.Key{Kind: "Service", Namespace: "shop", Name: "web"}, manifest.Key{Kind: "ConfigMap", Namespace: "shop", Name: "web"}
	pods, labels := int32(10), map[string]string{"app": "web"}
	replicaSet := manifest.Key{Group: "apps", Kind: "ReplicaSet", Namespace: "shop", Name: "web-5d8"}
	return rollout.Set{Objects: []manifest.Key{key, service, settings}, Configuration: []manifest.Key{settings},
		Services:  []rollout.Service{{Key: service, Selector: labels}},
		Revisions: []rollout.Revision{{Workload: key, ReplicaSet: replicaSet, Hash: "5d8", Labels: labels, Replicas: &pods}}}
}

func target(name string, way rollout.Way) simulate.Target {
	way.Timeout = 10 * time.Minute
	return simulate.Target{Name: name, Account: name, Namespace: "shop", Way: way, Set: web()}
}

// database is a target with a StatefulSet of four pods, which takes the steps.
func database(way rollout.Way) simulate.Target {
	way.Timeout, way.Workloads = time.Minute, []string{"StatefulSet"}
	key, pods := manifest.Key{Group: "apps", Kind: "StatefulSet", Namespace: "shop", Name: "db"}, int32(4)
	return simulate.Target{Name: "prod", Account: "prod", Namespace: "shop", Way: way, Set: rollout.Set{Objects: []manifest.Key{key}, Fleets: []rollout.Fleet{{Key: key, Replicas: &pods}}}}
}

func weight(w int) rollout.Step { return rollout.Step{Weight: &w} }

func pause(d time.Duration) rollout.Step { return rollout.Step{Pause: d} }

func approval(a rollout.Approval) rollout.Step { return rollout.Step{Approval: &a} }

var rolling = []rollout.Step{weight(100)}

// told is a result as lines, and what became of each target.
func told(r simulate.Result) string {
	var out strings.Builder
	for _, l := range r.Lines {
		fmt.Fprintf(&out, "%s %s: %s\n", l.At.Sub(monday), l.Target, l.Text)
	}
	for _, t := range r.Targets {
		fmt.Fprintf(&out, "%s is %s", t.Name, t.State)
		if !t.Reached.IsZero() {
			fmt.Fprintf(&out, ", reached after %s", t.Reached.Sub(monday))
		}
		fmt.Fprintf(&out, "; people %s, pauses %s, pods %s\n", t.People, t.Pauses, t.Pods)
	}
	return out.String()
}

func TestTimelines(t *testing.T) {
	staging := target("staging", rollout.Way{Canary: rolling})
	careful := []rollout.Step{weight(50), pause(time.Hour), approval(rollout.Approval{Roles: []string{"sre"}, Expires: 24 * time.Hour})}
	blueGreen := &rollout.BlueGreen{Services: []rollout.ServicePair{{Active: "web", Preview: "preview"}}, Redirect: []rollout.Step{approval(rollout.Approval{Count: 2})}, ShutDown: []rollout.Step{pause(time.Hour)}}
	for _, c := range []struct {
		name    string
		targets []simulate.Target
		assume  func(*simulate.Assumptions)
		want    string
	}{
		{"a target starts when the one that it depends on has succeeded", []simulate.Target{target("prod", rollout.Way{Canary: rolling, DependsOn: []string{"staging"}}), staging}, nil, `
0s prod: waits for staging to succeed (now QUEUED)
0s staging: #2 started
0s staging: the manifests of #2 are applied
0s staging: waits for ReplicaSet.apps shop/web-2: 0 of 10 pods ready
30s staging: all objects of #2 are healthy
30s staging: #2 is SUCCEEDED
30s prod: #2 started
30s prod: the manifests of #2 are applied
30s prod: waits for ReplicaSet.apps shop/web-2: 0 of 10 pods ready
1m0s prod: all objects of #2 are healthy
1m0s prod: #2 is SUCCEEDED
prod is SUCCEEDED, reached after 1m0s; people 0s, pauses 0s, pods 30s
staging is SUCCEEDED, reached after 30s; people 0s, pauses 0s, pods 30s
`},
		{"a canary waits for its pauses, and people approve when they are said to", []simulate.Target{target("prod", rollout.Way{Canary: careful})}, func(a *simulate.Assumptions) {
			a.Otherwise.After = 2 * time.Hour
		}, `
0s prod: #2 started
0s prod: the manifests of #2 are applied
0s prod: waits for ReplicaSet.apps shop/web-2: 0 of 5 pods ready
30s prod: 50 % of the pods run #2
30s prod: waits for the pause canary.steps[1] of 1h0m0s to be over
1h0m30s prod: waits for approval of canary.steps[2]: 0 of 1, by sre
3h0m30s prod: canary.steps[2] is approved by person 1 of sre
3h0m30s prod: waits for ReplicaSet.apps shop/web-2: 5 of 10 pods ready
3h1m0s prod: all objects of #2 are healthy
3h1m0s prod: #2 is SUCCEEDED
prod is SUCCEEDED, reached after 3h1m0s; people 2h0m0s, pauses 1h0m0s, pods 1m0s
`},
		{"a StatefulSet that takes the steps replaces one pod after another", []simulate.Target{database(rollout.Way{Canary: careful})}, nil, `
0s prod: #2 started
0s prod: the manifests of #2 are applied
0s prod: waits for StatefulSet.apps shop/db: 0 of 2 pods of #2 ready
1m0s prod: 50 % of the pods run #2: 2 of 4 pods of StatefulSet db run #2
1m0s prod: waits for the pause canary.steps[1] of 1h0m0s to be over
1h1m0s prod: waits for approval of canary.steps[2]: 0 of 1, by sre
1h1m0s prod: canary.steps[2] is approved by person 1 of sre
1h1m0s prod: waits for StatefulSet.apps shop/db: 2 of 4 pods of #2 ready
1h2m0s prod: all objects of #2 are healthy
1h2m0s prod: #2 is SUCCEEDED
prod is SUCCEEDED, reached after 1h2m0s; people 0s, pauses 1h0m0s, pods 2m0s
`},
		{"an approval that nobody gives expires, and what was moved goes back", []simulate.Target{target("prod", rollout.Way{Canary: careful})}, func(a *simulate.Assumptions) {
			a.Otherwise = simulate.Answer{}
		}, `
0s prod: #2 started
0s prod: the manifests of #2 are applied
0s prod: waits for ReplicaSet.apps shop/web-2: 0 of 5 pods ready
30s prod: 50 % of the pods run #2
30s prod: waits for the pause canary.steps[1] of 1h0m0s to be over
1h0m30s prod: waits for approval of canary.steps[2]: 0 of 1, by sre
25h0m30s prod: #2 goes back: canary.steps[2] expired: 0 of 1 approvals within 24h0m0s
25h0m30s prod: waits for ReplicaSet.apps shop/web-1: 5 of 10 pods ready
25h1m0s prod: #2 is ROLLED_BACK: canary.steps[2] expired: 0 of 1 approvals within 24h0m0s; held at #1
prod is ROLLED_BACK; people 24h0m0s, pauses 1h0m0s, pods 1m0s
`},
		{"a rejection undoes a rollout, and dependents do not start", []simulate.Target{target("staging", rollout.Way{Canary: careful}), target("prod", rollout.Way{Canary: rolling, DependsOn: []string{"staging"}})}, func(a *simulate.Assumptions) {
			a.Targets = map[string]simulate.TargetAnswers{"staging": {Gates: map[string]simulate.Answer{
				"canary.steps[1]": {Verb: rollout.Approve, After: time.Minute}, "canary.steps[2]": {Verb: rollout.Reject, Reason: "errors rise"}}}}
		}, `
0s staging: #2 started
0s staging: the manifests of #2 are applied
0s staging: waits for ReplicaSet.apps shop/web-2: 0 of 5 pods ready
0s prod: waits for staging to succeed (now RUNNING)
30s staging: 50 % of the pods run #2
30s staging: waits for the pause canary.steps[1] of 1h0m0s to be over
1m30s staging: canary.steps[1] is skipped by person 1
1m30s staging: waits for approval of canary.steps[2]: 0 of 1, by sre
1m30s staging: canary.steps[2] is rejected by person 1 of sre: errors rise
1m30s staging: #2 goes back: canary.steps[2] was rejected by person 1 of sre: errors rise
1m30s staging: waits for ReplicaSet.apps shop/web-1: 5 of 10 pods ready
2m0s staging: #2 is ROLLED_BACK: canary.steps[2] was rejected by person 1 of sre: errors rise; held at #1
2m0s prod: #2 is CANCELLED: not started: staging is ROLLED_BACK
staging is ROLLED_BACK; people 0s, pauses 1m0s, pods 1m0s
prod is CANCELLED; people 0s, pauses 0s, pods 0s
`},
		{"blue/green turns Services that are not among the manifests, after as many people as it asks for", []simulate.Target{target("prod", rollout.Way{BlueGreen: blueGreen})}, nil, `
0s prod: #2 started
0s prod: the manifests of #2 are applied
0s prod: waits for ReplicaSet.apps shop/web-2: 0 of 10 pods ready
30s prod: all objects of #2 are healthy beside what runs
30s prod: waits for approval of blueGreen.redirectTrafficAfter[0]: 0 of 2
30s prod: blueGreen.redirectTrafficAfter[0] is approved by person 1
30s prod: blueGreen.redirectTrafficAfter[0] is approved by person 2
30s prod: traffic goes to #2
30s prod: waits for the pause blueGreen.shutDownOldVersionAfter[0] of 1h0m0s to be over
1h0m30s prod: #2 is SUCCEEDED
prod is SUCCEEDED, reached after 1h0m30s; people 0s, pauses 1h0m0s, pods 30s
`},
		{"pods that never become ready go back at the timeout", []simulate.Target{target("prod", rollout.Way{Canary: rolling})}, func(a *simulate.Assumptions) {
			a.Targets = map[string]simulate.TargetAnswers{"prod": {Ready: simulate.Readiness{Never: true}}}
		}, `
0s prod: #2 started
0s prod: the manifests of #2 are applied
0s prod: waits for ReplicaSet.apps shop/web-2: 0 of 10 pods ready
10m0s prod: #2 goes back: not ready within 10m0s: ReplicaSet.apps shop/web-2: 0 of 10 pods ready
10m0s prod: #2 is ROLLED_BACK: not ready within 10m0s: ReplicaSet.apps shop/web-2: 0 of 10 pods ready; held at #1
prod is ROLLED_BACK; people 0s, pauses 0s, pods 10m0s
`},
		{"a first deployment passes the strategy's steps over", []simulate.Target{target("prod", rollout.Way{Canary: careful})}, func(a *simulate.Assumptions) { a.First = true }, `
0s prod: #1 started
0s prod: the manifests of #1 are applied
0s prod: waits for ReplicaSet.apps shop/web-1: 0 of 10 pods ready
30s prod: all objects of #1 are healthy
30s prod: #1 is SUCCEEDED
prod is SUCCEEDED, reached after 30s; people 0s, pauses 0s, pods 30s
`},
		{"a kept Deployment object is taken over first", []simulate.Target{target("prod", rollout.Way{Canary: rolling, KeepDeployment: true})}, nil, `
0s prod: #2 started
0s prod: Deployment.apps shop/web is taken over, with its pods
0s prod: the manifests of #2 are applied
0s prod: waits for ReplicaSet.apps shop/web-2: 0 of 10 pods ready
30s prod: all objects of #2 are healthy
30s prod: #2 is SUCCEEDED
prod is SUCCEEDED, reached after 30s; people 0s, pauses 0s, pods 30s
`},
		{"an agent that is away is waited for", []simulate.Target{target("prod", rollout.Way{Canary: rolling})}, func(a *simulate.Assumptions) {
			a.Accounts = map[string][]simulate.Absence{"prod": {{From: 10 * time.Second, For: time.Hour}}}
		}, `
0s prod: #2 started
0s prod: the manifests of #2 are applied
0s prod: waits for ReplicaSet.apps shop/web-2: 0 of 10 pods ready
10s prod: waits for the agent prod to connect: no agent is connected
1h0m10s prod: all objects of #2 are healthy
1h0m10s prod: #2 is SUCCEEDED
prod is SUCCEEDED, reached after 1h0m10s; people 0s, pauses 0s, pods 10s
`},
		{"a target whose agent is away is skipped where the file says so", []simulate.Target{target("staging", rollout.Way{Canary: rolling, Unreachable: rollout.SkipUnreachable}),
			target("prod", rollout.Way{Canary: rolling, DependsOn: []string{"staging"}})}, func(a *simulate.Assumptions) {
			a.Accounts = map[string][]simulate.Absence{"staging": {{}}}
		}, `
0s staging: waits for the agent staging to connect
0s prod: waits for staging to succeed (now RUNNING)
1m0s staging: #2 is SKIPPED: the agent staging is not connected, and the file says unreachable: skip
1m0s prod: #2 started
1m0s prod: the manifests of #2 are applied
1m0s prod: waits for ReplicaSet.apps shop/web-2: 0 of 10 pods ready
1m30s prod: all objects of #2 are healthy
1m30s prod: #2 is SUCCEEDED
staging is SKIPPED; people 0s, pauses 0s, pods 0s
prod is SUCCEEDED, reached after 1m30s; people 0s, pauses 0s, pods 30s
`},
		{"an afterDeployment that expires stops the whole deployment", []simulate.Target{target("staging", rollout.Way{Canary: rolling, After: []rollout.Step{approval(rollout.Approval{Expires: time.Minute})}}),
			target("prod", rollout.Way{Canary: careful})}, func(a *simulate.Assumptions) { a.Otherwise = simulate.Answer{} }, `
0s staging: #2 started
0s staging: the manifests of #2 are applied
0s staging: waits for ReplicaSet.apps shop/web-2: 0 of 10 pods ready
0s prod: #2 started
0s prod: the manifests of #2 are applied
0s prod: waits for ReplicaSet.apps shop/web-2: 0 of 5 pods ready
30s staging: all objects of #2 are healthy
30s staging: waits for approval of afterDeployment[0]: 0 of 1
30s prod: 50 % of the pods run #2
30s prod: waits for the pause canary.steps[1] of 1h0m0s to be over
1m30s staging: #2 is FAILED: afterDeployment[0] expired: 0 of 1 approvals within 1m0s; what was rolled out stays
1m30s prod: #2 goes back: cancelled by towpath: afterDeployment[0] expired: 0 of 1 approvals within 1m0s
1m30s prod: waits for ReplicaSet.apps shop/web-1: 5 of 10 pods ready
2m0s prod: #2 is CANCELLED: cancelled by towpath: afterDeployment[0] expired: 0 of 1 approvals within 1m0s; held at #1
staging is FAILED, reached after 30s; people 1m0s, pauses 0s, pods 30s
prod is CANCELLED; people 0s, pauses 1m0s, pods 1m0s
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := assumed()
			if c.assume != nil {
				c.assume(&a)
			}
			if got := told(simulate.Run(c.targets, a)); got != c.want[1:] {
				t.Errorf("it tells\n%s\nwant\n%s", got, c.want[1:])
			}
		})
	}
}

func TestWhatIsWaitedForWithoutEndIsTold(t *testing.T) {
	a := assumed()
	a.Otherwise = simulate.Answer{}
	r := simulate.Run([]simulate.Target{target("prod", rollout.Way{Canary: rolling, After: []rollout.Step{approval(rollout.Approval{})}}),
		target("rest", rollout.Way{Canary: rolling, Before: []rollout.Step{approval(rollout.Approval{})}})}, a)
	prod, rest := r.Targets[0], r.Targets[1]
	if r.State != rollout.AwaitingApproval || !prod.Reached.Equal(monday.Add(30*time.Second)) || !prod.Ended.IsZero() || len(prod.Waits) != 1 || prod.Waits[0].Needs != "approval of afterDeployment[0]: 0 of 1" {
		t.Errorf("%s, prod: %+v", r.State, prod)
	}
	if prod.People != 0 {
		t.Errorf("a wait without end lasts %s", prod.People)
	}
	if !rest.Started.IsZero() || !rest.Reached.IsZero() || len(rest.Waits) != 1 || rest.Waits[0].Needs != "approval of beforeDeployment[0]: 0 of 1" {
		t.Errorf("rest: %+v", rest)
	}
}

// Each gate that a way names is one that Decide asks at, under that name.
func TestEachGateOfAWayCanBeAnswered(t *testing.T) {
	waits := []rollout.Step{pause(time.Minute), approval(rollout.Approval{})}
	ways := []rollout.Way{{Before: waits, Canary: append([]rollout.Step{weight(50)}, waits...), After: waits},
		{BlueGreen: &rollout.BlueGreen{Services: []rollout.ServicePair{{Active: "web"}}, Redirect: waits, ShutDown: waits}}}
	gates := 0
	for _, way := range ways {
		for _, gate := range way.Gates() {
			gates++
			a := assumed()
			a.Targets = map[string]simulate.TargetAnswers{"prod": {Gates: map[string]simulate.Answer{gate: {Verb: rollout.Reject}}}}
			if prod := simulate.Run([]simulate.Target{target("prod", way)}, a).Targets[0]; !strings.Contains(prod.Why, gate+" was rejected by person 1") {
				t.Errorf("%s is rejected, and prod is %s: %s", gate, prod.State, prod.Why)
			}
		}
	}
	if gates != 10 {
		t.Errorf("the ways have %d gates, want 10", gates)
	}
}

// random is targets and assumptions of a seed: any ways, any answers, any absences that end.
func random(seed uint64) ([]simulate.Target, simulate.Assumptions) {
	r := rand.New(rand.NewPCG(seed, 1))
	some := func(all ...rollout.Step) (steps []rollout.Step) {
		for range r.IntN(4) {
			steps = append(steps, all[r.IntN(len(all))])
		}
		return steps
	}
	waits := []rollout.Step{pause(time.Duration(1+r.IntN(100)) * time.Minute), approval(rollout.Approval{Count: 1 + r.IntN(3), Expires: time.Duration(1+r.IntN(2)) * time.Hour}), {}}
	a := assumed()
	a.First = r.IntN(4) == 0
	a.ReadyAfter = time.Duration(r.IntN(700)) * time.Second
	a.Otherwise = []simulate.Answer{{}, simulate.AtOnce, {Verb: rollout.Approve, After: 90 * time.Minute}, {Verb: rollout.Reject, After: time.Second}}[r.IntN(4)]
	a.Targets, a.Accounts = map[string]simulate.TargetAnswers{}, map[string][]simulate.Absence{}
	var targets []simulate.Target
	for i := range 1 + r.IntN(6) {
		way := rollout.Way{Before: some(waits...), After: some(waits...), KeepDeployment: r.IntN(3) == 0,
			Unreachable: []rollout.Unreachable{rollout.WaitForAgent, rollout.SkipUnreachable, rollout.FailsUnreachable}[r.IntN(3)]}
		if r.IntN(3) == 0 {
			way.BlueGreen = &rollout.BlueGreen{Services: []rollout.ServicePair{{Active: "web", Preview: "preview"}}, Redirect: some(waits...), ShutDown: some(waits...)}
		} else {
			way.Canary = some(append(waits, weight(r.IntN(101)), weight(r.IntN(101)))...)
		}
		for j := range i {
			if r.IntN(3) == 0 {
				way.DependsOn = append(way.DependsOn, fmt.Sprint("t", j))
			}
		}
		one := target(fmt.Sprint("t", i), way)
		if r.IntN(5) == 0 {
			one.Set = rollout.Set{Objects: one.Set.Objects[1:]}
			one.BlueGreen = nil
		}
		targets = append(targets, one)
		answers := simulate.TargetAnswers{Ready: simulate.Readiness{Never: r.IntN(5) == 0}, Gates: map[string]simulate.Answer{}}
		for _, gate := range way.Gates() {
			if r.IntN(4) == 0 {
				answers.Gates[gate] = simulate.Answer{Verb: []rollout.Verb{rollout.Approve, rollout.Pass, rollout.Reject}[r.IntN(3)], After: time.Duration(r.IntN(200)) * time.Minute}
			}
		}
		a.Targets[one.Name] = answers
		if r.IntN(4) == 0 {
			a.Accounts[one.Name] = []simulate.Absence{{From: time.Duration(r.IntN(100)) * time.Minute, For: time.Duration(1+r.IntN(100)) * time.Minute}}
		}
	}
	return targets, a
}

// Whatever is deployed, and whatever people, pods and agents do: once every wait has an end so has the simulation, time goes forwards, and what is told is the
// same each time.
func TestAnyDeploymentEndsWithinABoundedNumberOfDecisions(t *testing.T) {
	for seed := range uint64(2000) {
		targets, a := random(seed)
		r := simulate.Run(targets, a)
		steps := 0
		for _, target := range targets {
			steps += 10 + len(target.DependsOn) + len(target.Canary) + len(target.Before) + len(target.After) + len(target.Gates())
		}
		if r.Decisions > 12*steps {
			t.Errorf("seed %d: %d decisions for %d steps", seed, r.Decisions, steps)
		}
		for _, report := range r.Targets {
			if !report.State.Final() || report.Ended.Before(monday) {
				t.Errorf("seed %d: %s is %s, waiting for %+v", seed, report.Name, report.State, report.Waits)
			}
		}
		if !slices.IsSortedFunc(r.Lines, func(a, b simulate.Line) int { return a.At.Compare(b.At) }) {
			t.Errorf("seed %d: time goes backwards", seed)
		}
		if again := simulate.Run(targets, a); told(again) != told(r) {
			t.Errorf("seed %d tells another story the second time", seed)
		}
	}
}

// hundred is 100 targets in rows of ten, each with a canary of ten steps.
func hundred() (targets []simulate.Target) {
	var steps []rollout.Step
	for i := range 5 {
		steps = append(steps, weight(20*(i+1)), pause(time.Minute))
	}
	for i := range 100 {
		way := rollout.Way{Canary: steps}
		if i >= 10 {
			way.DependsOn = []string{fmt.Sprint("t", i-10)}
		}
		targets = append(targets, target(fmt.Sprint("t", i), way))
	}
	return targets
}

func BenchmarkHundredTargetsOfTenSteps(b *testing.B) {
	targets, a := hundred(), assumed()
	decisions := 0
	for b.Loop() {
		decisions += simulate.Run(targets, a).Decisions
	}
	b.ReportMetric(float64(decisions)/b.Elapsed().Seconds(), "decisions/s")
}
