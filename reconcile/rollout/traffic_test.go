package rollout_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// routed is second with a router in front.
func routed(t testing.TB, pods int32, steps ...rollout.Step) *model {
	m := second(t, pods, steps...)
	m.target.Traffic = []rollout.Route{{Kind: rollout.Istio, Name: "web"}}
	return m
}

// did is what was done since, as people would say it.
func (m *model) did(since int) string {
	var all []string
	for _, a := range m.acts[since:] {
		text := string(a.Kind)
		for _, d := range a.Divide {
			text += fmt.Sprintf(" %s %s|%s", d.Stage, d.Stable.Hash, d.New.Hash)
			if d.Stage == rollout.Divided || d.Stage == rollout.Opened {
				text += fmt.Sprintf(" %d", d.Weight)
			}
			if d.Compared {
				text += " beside " + d.Baseline.Hash
			}
		}
		for _, r := range a.Replicas {
			text += fmt.Sprintf(" %s=%d", r.Key.Name, r.Count)
		}
		all = append(all, text)
	}
	return strings.Join(all, "\n")
}

func expectDid(t testing.TB, m *model, since int, want ...string) {
	t.Helper()
	if got := m.did(since); got != strings.Join(want, "\n") {
		t.Errorf("it did\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

func TestARouterMovesTrafficWhileBothVersionsHaveAllTheirPods(t *testing.T) {
	m := routed(t, 4, weight(25), approval(), weight(60), pause(time.Minute))
	since := len(m.acts)
	m.until(t, rollout.WaitApproval)
	expectPods(t, m, map[string]int32{"web-a": 4, "web-b": 4})
	if m.target.Weight != 25 {
		t.Errorf("its weight is %d", m.target.Weight)
	}
	m.say(rollout.Approve, "canary.steps[1]", "ann")
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-b": 4})
	expectDid(t, m, since,
		"shift held a|b",
		"apply held a|b web-b=4",
		"shift divided a|b 25",
		"shift web-b=4", // proved anew after each wait
		"shift divided a|b 60",
		"shift web-b=4",
		"shift divided a|b 100",
		"apply",
		"shift opened a|b 100",
		"shift web-a=0",
		"shift whole a|b")
	var told []string
	for _, e := range m.events {
		if e.Kind == "target.weight" {
			told = append(told, e.What)
		}
	}
	if want := []string{"prod: 25 % of the traffic goes to #2", "prod: 60 % of the traffic goes to #2", "prod: 100 % of the traffic goes to #2"}; !slices.Equal(told, want) {
		t.Errorf("people are told %q", told)
	}
}

func TestARoutedCanaryThatBeginsWithAWaitHasItsPodsAndNoTraffic(t *testing.T) {
	m := routed(t, 4, approval(), weight(50)).until(t, rollout.WaitApproval)
	expectPods(t, m, map[string]int32{"web-a": 4, "web-b": 4})
	expectDid(t, m, len(m.acts)-1, "shift divided a|b 0")
}

func TestTheFirstDeploymentDividesNothing(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 4, webService))
	m.target.Canary, m.target.Traffic = []rollout.Step{weight(10), approval()}, []rollout.Route{{Kind: rollout.SMI, Name: "web"}}
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-a": 4})
	expectDid(t, m, 0, "apply web-a=4", "shift whole |a")
}

func TestTrafficGoesBackBeforePodsDo(t *testing.T) {
	for name, stop := range map[string]func(m *model){
		"a person rejects":                 func(m *model) { m.say(rollout.Reject, "canary.steps[1]", "ann") },
		"a person cancels":                 func(m *model) { m.facts.Cancel = &rollout.Request{By: "ann"} },
		"a newer deployment takes its way": func(m *model) { m.facts.ReplacedBy = 3 },
	} {
		for _, w := range []int{0, 25, 100} {
			t.Run(fmt.Sprintf("%s at %d", name, w), func(t *testing.T) {
				m := routed(t, 4, weight(w), approval()).until(t, rollout.WaitApproval)
				since := len(m.acts)
				stop(m)
				m.run(t)
				expectPods(t, m, map[string]int32{"web-a": 4})
				want := []string{"shift held a|b", "shift held a|b web-b=0", "shift whole a|a"}
				if m.facts.ReplacedBy == 0 {
					want = append(want, "apply web-a=4")
				}
				expectDid(t, m, since, want...)
			})
		}
	}
}

func TestARoutedCanaryThatDoesNotBecomeReadyGetsNoTraffic(t *testing.T) {
	m := routed(t, 4, weight(25), pause(time.Minute))
	since := len(m.acts)
	m.sick[revision("b")] = "CrashLoopBackOff"
	m.run(t)
	expect(t, m, rollout.RolledBack, "not ready within 10m0s: ReplicaSet.apps shop/web-b: CrashLoopBackOff; held at #1", map[string]int32{"web-a": 4})
	if did := m.did(since); strings.Contains(did, "divided") {
		t.Errorf("it did\n%s", did)
	}
}

func TestPodsThatAreNoLongerReadyAfterAWaitGetNoMoreTraffic(t *testing.T) {
	m := routed(t, 4, weight(25), approval()).until(t, rollout.WaitApproval)
	since := len(m.acts)
	m.sick[revision("b")] = "node lost"
	m.scale(m.objects[revision("b")], 4)
	m.say(rollout.Approve, "canary.steps[1]", "ann")
	m.run(t)
	expect(t, m, rollout.RolledBack, "not ready within 10m0s: ReplicaSet.apps shop/web-b: node lost; held at #1", map[string]int32{"web-a": 4})
	if did := m.did(since); strings.Contains(did, "divided") {
		t.Errorf("it did\n%s", did)
	}
}

// Where what ran before cannot serve, traffic stays as it was found until the new version can, and then goes there whole.
func TestWhatCannotServeGetsNoShare(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 4, webService)).run(t)
	m.sick[revision("a")] = "node lost"
	m.scale(m.objects[revision("a")], 4)
	m.deploy(2, "m2", set("b", 4, webService))
	m.target.Canary, m.target.Traffic = []rollout.Step{weight(25), approval()}, []rollout.Route{{Kind: rollout.Gateway, Name: "web"}}
	since := len(m.acts)
	m.until(t, rollout.WaitApproval)
	expectDid(t, m, since, "apply web-b=4", "shift divided a|b 100")
	since = len(m.acts)
	m.say(rollout.Reject, "canary.steps[1]", "ann")
	m.until(t, rollout.WaitHealth)
	if did := m.did(since); strings.Contains(did, "held") {
		t.Errorf("before what it goes back to is ready it did\n%s", did)
	}
	delete(m.sick, revision("a"))
	m.scale(m.objects[revision("a")], 4)
	m.run(t)
	expectPods(t, m, map[string]int32{"web-a": 4})
	expectDid(t, m, since, "shift web-a=4", "shift held a|b web-b=0", "shift whole a|a", "apply web-a=4")
}

func TestOnlyWorkloadsOfARouteKeepTheirPods(t *testing.T) {
	worker := manifest.Key{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: "worker"}
	beside := func(s rollout.Set, hash string) rollout.Set {
		four := int32(4)
		key := revision(hash)
		key.Name = "worker-" + hash
		s.Objects = append(s.Objects, worker)
		s.Revisions = append(s.Revisions, rollout.Revision{Workload: worker, ReplicaSet: key, Hash: "w" + hash, Labels: map[string]string{"app": "worker"}, Replicas: &four})
		return s
	}
	m := newModel().deploy(1, "m1", beside(set("a", 4, webService), "a")).run(t)
	m.deploy(2, "m2", beside(set("b", 4, webService), "b"))
	m.target.Canary, m.target.Traffic = []rollout.Step{weight(25), approval()}, []rollout.Route{{Kind: rollout.Istio, Name: "web"}}
	m.until(t, rollout.WaitApproval)
	expectPods(t, m, map[string]int32{"web-a": 4, "web-b": 4, "worker-a": 3, "worker-b": 1})
	m.say(rollout.Approve, "canary.steps[1]", "ann")
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-b": 4, "worker-b": 4})
}

func TestRoutesThatSelectNoWorkloadStopItBeforeAnythingIsTouched(t *testing.T) {
	m := routed(t, 4, weight(25))
	since := len(m.acts)
	other := m.sets["m2"]
	other.Revisions = slices.Clone(other.Revisions)
	other.Revisions[0].Labels = map[string]string{"app": "other"}
	m.sets["m2"] = other
	m.run(t)
	expect(t, m, rollout.Failed, "istio shop/web sends traffic to Service web, which selects no pods of the manifests, or those of several workloads: its selector is app=web", map[string]int32{"web-a": 4})
	expectDid(t, m, since)
}

func TestManifestsThatAreAppliedAnewKeepTheWeights(t *testing.T) {
	m := routed(t, 4, weight(25), approval(), weight(50), approval()).until(t, rollout.WaitApproval)
	m.say(rollout.Approve, "canary.steps[1]", "ann")
	m.sick[revision("b")] = "starting"
	m.scale(m.objects[revision("b")], 4)
	m.until(t, rollout.WaitHealth)
	since := len(m.acts)
	delete(m.objects, revision("b"))
	delete(m.sick, revision("b"))
	m.until(t, rollout.WaitApproval)
	if did := m.did(since); !strings.HasPrefix(did, "apply divided a|b 25 web-b=4\nshift divided a|b 50") {
		t.Errorf("after somebody deleted the new version it did\n%s", did)
	}
}

func TestANewerDeploymentDividesTrafficFromWhereItWasLeft(t *testing.T) {
	m := routed(t, 4, weight(25), approval()).until(t, rollout.WaitApproval)
	m.facts.ReplacedBy = 3
	m.run(t)
	m.deploy(3, "m3", set("c", 4, webService, webSettings))
	m.target.Canary, m.target.Traffic = []rollout.Step{weight(10), approval()}, []rollout.Route{{Kind: rollout.Istio, Name: "web"}}
	since := len(m.acts)
	m.until(t, rollout.WaitApproval)
	expectDid(t, m, since, "shift held a|c", "apply held a|c web-c=4", "shift divided a|c 10")
}

func TestTheVersionThatWasGoodLastNeedsNoStepsOfTraffic(t *testing.T) {
	m := routed(t, 4, weight(25), approval())
	m.facts.Limits.Yield = 0
	m.until(t, rollout.WaitApproval)
	m.facts.ReplacedBy = 3
	m.sick[revision("a")] = "node lost" // it gives way half-way back
	m.scale(m.objects[revision("a")], 4)
	m.run(t)
	delete(m.sick, revision("a"))
	m.scale(m.objects[revision("a")], 4)
	m.deploy(3, "m1", m.sets["m1"])
	m.target.Canary, m.target.Traffic = []rollout.Step{weight(25)}, []rollout.Route{{Kind: rollout.Istio, Name: "web"}}
	since := len(m.acts)
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-a": 4})
	if did := m.did(since); !strings.Contains(did, "divided b|a 100") || strings.Contains(did, "held") || strings.Contains(did, "a 25") {
		t.Errorf("it did\n%s", did)
	}
}

func TestWhatGivesWayHalfWayBackLeavesRoutesAsTheyWere(t *testing.T) {
	m := routed(t, 4, weight(25), approval())
	m.sick[revision("a")] = "node lost"
	m.scale(m.objects[revision("a")], 4)
	m.until(t, rollout.WaitApproval)
	m.facts.ReplacedBy = 3
	since := len(m.acts)
	m.run(t)
	expect(t, m, rollout.Cancelled, "replaced by #3", map[string]int32{"web-a": 4, "web-b": 4})
	expectDid(t, m, since, "shift web-a=4", "shift whole a|")
	if len(m.target.Routes) > 0 {
		t.Errorf("routes are left: %+v", m.target.Routes)
	}
}

func TestARolloutIsHaltedAtItsWeight(t *testing.T) {
	m := routed(t, 4, weight(25), weight(50), approval())
	for m.target.Divided == nil {
		m.step()
	}
	m.facts.Hold = &rollout.Hold{By: "ann"}
	since := len(m.acts)
	m.run(t)
	if did := m.did(since); strings.Contains(did, "divided a|b 50") {
		t.Errorf("halted, it did\n%s", did)
	}
}

func TestATargetWithRoutesCutAnywhereEndsWhereAnUndisturbedOneEnds(t *testing.T) {
	for name, sick := range map[string]bool{"good": false, "rolled back": true} {
		t.Run(name, func(t *testing.T) {
			start := func() *model {
				m := routed(t, 4, weight(25), pause(time.Minute), weight(60))
				if sick {
					m.sick[revision("b")] = "ErrImagePull"
				}
				return m
			}
			end := func(m *model) string { return m.end() + fmt.Sprint(m.objects[router("web")].divided.Stage) }
			want := end(start().run(t))
			for cut := 0; ; cut++ {
				m := start()
				if !m.runCut(t, cut) {
					break
				}
				if got := end(m.run(t)); got != want {
					t.Fatalf("cut at %d:\n got %s\nwant %s", cut, got, want)
				}
			}
		})
	}
}

func TestRoutesAreWhatTheyWereAlsoWhenGoingBackFails(t *testing.T) {
	m := routed(t, 4, weight(60), approval())
	m.until(t, rollout.WaitApproval)
	m.trouble = func(a rollout.Action) *rollout.Failure {
		if slices.ContainsFunc(a.Replicas, func(r rollout.Replicas) bool { return r.Key == revision("b") && r.Count == 0 }) {
			return &rollout.Failure{Class: rollout.Refused, Object: revision("b"), Text: "denied by admission"}
		}
		return nil
	}
	since := len(m.acts)
	m.say(rollout.Reject, "canary.steps[1]", "ann")
	m.run(t)
	const why = "canary.steps[1] was rejected by ann; and going back failed: ReplicaSet.apps shop/web-b: denied by admission"
	if m.target.State != rollout.Failed || m.target.Why != why {
		t.Errorf("it is %s: %s\nwant %s", m.target.State, m.target.Why, why)
	}
	expectDid(t, m, since, "shift held a|b", "shift whole a|")
	expectPods(t, m, map[string]int32{"web-a": 4, "web-b": 4}) // whichever is ready serves
}

func TestRoutesAreWhatTheyWereAlsoWhenWhatWasToGoStays(t *testing.T) {
	m := routed(t, 4, weight(60))
	m.trouble = func(a rollout.Action) *rollout.Failure {
		if slices.ContainsFunc(a.Replicas, func(r rollout.Replicas) bool { return r.Key == revision("a") && r.Count == 0 }) {
			return &rollout.Failure{Class: rollout.Refused, Object: revision("a"), Text: "denied by admission"}
		}
		return nil
	}
	since := len(m.acts)
	m.run(t)
	if want := "ReplicaSet.apps shop/web-a: denied by admission; what was rolled out stays, and so does what was to go"; m.target.State != rollout.Failed || m.target.Why != want || m.good.Number != 2 {
		t.Errorf("it is %s: %s\nwant %s", m.target.State, m.target.Why, want)
	}
	if did := m.did(since); !strings.HasSuffix(did, "shift opened a|b 100\nshift whole a|") {
		t.Errorf("it did\n%s", did)
	}

	m = routed(t, 4, weight(60))
	m.trouble = func(a rollout.Action) *rollout.Failure {
		if slices.ContainsFunc(a.Divide, func(d rollout.Division) bool { return d.Stage == rollout.Whole }) {
			return &rollout.Failure{Class: rollout.Refused, Object: router("web"), Text: "denied by admission"}
		}
		return nil
	}
	m.run(t)
	if want := "Router.routers.test shop/web: denied by admission; what was rolled out stays, and so does what was to go"; m.target.State != rollout.Failed || m.target.Why != want {
		t.Errorf("it is %s: %s\nwant %s", m.target.State, m.target.Why, want)
	}
}

func TestARouteOfAComparisonWritesTheServiceOfTheBaseline(t *testing.T) {
	set := set("a", 1, webService)
	for _, c := range []struct {
		kind  rollout.RouteKind
		steps []rollout.Step
		want  []string
	}{
		{rollout.Gateway, []rollout.Step{weight(50)}, []string{"web", "web", "web-canary"}},
		{rollout.Gateway, []rollout.Step{weight(50), compare()}, []string{"web", "web", "web-canary", "web-baseline"}},
		{rollout.SMI, []rollout.Step{weight(50), compare()}, []string{"web", "web", "web-canary", "web-baseline"}},
		{rollout.Istio, []rollout.Step{weight(50), compare()}, []string{"web", "rule"}},
	} {
		w := rollout.Way{Canary: c.steps, Traffic: []rollout.Route{{Kind: c.kind, Name: "web", Service: "web", Canary: "web-canary", Destination: "rule"}}}
		var names []string
		for _, key := range rollout.RoutesOf(w, "shop", set)[0].Keys() {
			names = append(names, key.Name)
		}
		if !slices.Equal(names, c.want) {
			t.Errorf("%s writes %q, want %q", c.kind, names, c.want)
		}
	}
}
