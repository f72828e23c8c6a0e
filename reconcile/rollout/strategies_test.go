package rollout_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// second is a lane on which version a runs with so many pods, and version b is about to be rolled out by steps.
func second(t testing.TB, pods int32, steps ...rollout.Step) *model {
	m := newModel().deploy(1, "m1", set("a", pods, webService, webSettings)).run(t)
	m.events = nil
	m.deploy(2, "m2", set("b", pods, webService, webSettings))
	m.target.Canary = steps
	return m
}

func (m *model) say(verb rollout.Verb, gate, by string) {
	m.facts.Words = append(m.facts.Words, rollout.Word{Target: "prod", Gate: gate, Digest: m.target.Digest, Verb: verb, By: by, At: m.now})
}

// until runs to a due time that is later than the model's patience for pauses: it stops as soon as the target waits for what is named.
func (m *model) until(t testing.TB, kind rollout.WaitKind) *model {
	t.Helper()
	for range 1000 {
		if more, due := m.step(); !more {
			if slices.ContainsFunc(m.target.Waits, func(w rollout.Wait) bool { return w.Kind == kind }) {
				return m
			}
			if !due.After(m.now) {
				break
			}
			m.now = due
		}
	}
	t.Fatalf("it never waits for %s: %s in %s, %+v", kind, m.target.State, m.target.Phase, m.target.Waits)
	return m
}

func expectPods(t testing.TB, m *model, want map[string]int32) {
	t.Helper()
	if got := m.pods(); !maps.Equal(got, want) {
		t.Errorf("in %s pods are %v, want %v", m.target.Phase, got, want)
	}
}

func TestACanaryMovesPodsShareByShare(t *testing.T) {
	m := second(t, 10, weight(25), pause(time.Minute), weight(50), approval("sre"))
	m.until(t, rollout.WaitPause)
	expectPods(t, m, map[string]int32{"web-a": 7, "web-b": 3})
	if m.target.State != rollout.Paused || m.target.Waits[0].Needs != "the pause canary.steps[1] of 1m0s to be over" || m.target.Waits[0].Command != "towpath deploy skip d2 prod --reason WHY" {
		t.Errorf("%s: %+v", m.target.State, m.target.Waits)
	}
	m.until(t, rollout.WaitApproval)
	expectPods(t, m, map[string]int32{"web-a": 5, "web-b": 5})
	if m.target.State != rollout.AwaitingApproval || m.target.Waits[0].Needs != "approval of canary.steps[3]: 0 of 1, by sre" {
		t.Errorf("%s: %+v", m.target.State, m.target.Waits)
	}
	if m.objects[webSettings].from != "m1" {
		t.Errorf("the ConfigMap has the content of %s under its own name while half of the pods run the former version", m.objects[webSettings].from)
	}
	m.say(rollout.Approve, "canary.steps[3]", "ann")
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-b": 10})
	if m.objects[webSettings].from != "m2" {
		t.Errorf("the ConfigMap has the content of %s at the end", m.objects[webSettings].from)
	}
}

func TestPortionsLeaveBothVersionsRunning(t *testing.T) {
	for _, c := range []struct {
		pods       int32
		weight     int
		new, still int32
	}{{1, 50, 1, 1}, {2, 1, 1, 1}, {3, 99, 2, 1}, {10, 33, 3, 7}, {3, 0, 0, 3}, {4, 100, 4, 0}} {
		t.Run(fmt.Sprintf("%d pods at %d", c.pods, c.weight), func(t *testing.T) {
			m := second(t, c.pods, weight(c.weight), approval()).until(t, rollout.WaitApproval)
			want := map[string]int32{"web-a": c.still, "web-b": c.new}
			maps.DeleteFunc(want, func(_ string, n int32) bool { return n == 0 })
			expectPods(t, m, want)
		})
	}
}

func TestACanaryThatBeginsWithAWaitBeginsWithoutPods(t *testing.T) {
	m := second(t, 4, approval(), weight(50), pause(time.Minute)).until(t, rollout.WaitApproval)
	expectPods(t, m, map[string]int32{"web-a": 4})
	m.say(rollout.Approve, "canary.steps[0]", "ann")
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-b": 4})
}

func TestTheFirstDeploymentPassesTheStepsOver(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 4, webService))
	m.target.Canary = []rollout.Step{weight(10), approval()}
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-a": 4})
}

func TestFirstIsJudgedByTheClusterAndNotByRecords(t *testing.T) {
	m := second(t, 4, weight(25), approval())
	m.good, m.inventory = nil, nil // the records are gone, the pods are not
	m.until(t, rollout.WaitApproval)
	expectPods(t, m, map[string]int32{"web-a": 3, "web-b": 1})
	m.say(rollout.Reject, "canary.steps[1]", "ann")
	m.run(t)
	expect(t, m, rollout.RolledBack, "canary.steps[1] was rejected by ann; held at what ran before", map[string]int32{"web-a": 4})
}

func TestAStepAfterAllPodsMovedCanStillGoBack(t *testing.T) {
	m := second(t, 4, weight(100), approval()).until(t, rollout.WaitApproval)
	expectPods(t, m, map[string]int32{"web-b": 4})
	m.say(rollout.Reject, "canary.steps[1]", "ann")
	m.run(t)
	expect(t, m, rollout.RolledBack, "canary.steps[1] was rejected by ann; held at #1", map[string]int32{"web-a": 4})
	if m.objects[webSettings].from != "m1" {
		t.Errorf("the ConfigMap has the content of %s", m.objects[webSettings].from)
	}
}

func TestAWeightThatFallsGivesPodsBack(t *testing.T) {
	m := second(t, 10, weight(50), weight(20), approval()).until(t, rollout.WaitApproval)
	expectPods(t, m, map[string]int32{"web-a": 8, "web-b": 2})
}

func TestAnApprovalThatExpiresGoesBackAndCancelsTheDeployment(t *testing.T) {
	step := approval("sre")
	step.Approval.Expires = time.Hour
	m := second(t, 4, weight(25), step)
	var cancels *rollout.Request
	for range 200 {
		f := m.read()
		f.Now, f.Connected = m.now, true
		if d := rollout.Decide(m.target, f); d.Cancels != nil {
			cancels = d.Cancels
		}
		if more, due := m.step(); !more && due.After(m.now) {
			m.now = due
		}
	}
	expect(t, m, rollout.RolledBack, "canary.steps[1] expired: 0 of 1 approvals within 1h0m0s; held at #1", map[string]int32{"web-a": 4})
	if cancels == nil || cancels.Reason != "canary.steps[1] expired: 0 of 1 approvals within 1h0m0s" {
		t.Errorf("the deployment is cancelled by %+v", cancels)
	}
}

func TestSeveralPeopleApproveButNotThoseWhoWroteTheChange(t *testing.T) {
	step := approval()
	step.Approval.Count, step.Approval.NotSelf = 2, true
	m := second(t, 4, weight(25), step)
	m.target.Authors = []string{"bob"}
	m.until(t, rollout.WaitApproval)
	for _, by := range []string{"bob", "Bob", "ann", "ann"} {
		m.say(rollout.Approve, "canary.steps[1]", by)
	}
	m.facts.Words = append(m.facts.Words, rollout.Word{Target: "prod", Gate: "canary.steps[1]", Digest: "promise-other", Verb: rollout.Approve, By: "cleo"})
	m.run(t)
	if want := "approval of canary.steps[1]: 1 of 2 (ann), not by bob"; m.target.State != rollout.AwaitingApproval || m.target.Waits[0].Needs != want {
		t.Fatalf("%s: %+v, want %q", m.target.State, m.target.Waits, want)
	}
	m.say(rollout.Approve, "canary.steps[1]", "cleo")
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-b": 4})
}

func TestAPauseIsSkippedByAPerson(t *testing.T) {
	m := second(t, 4, weight(25), pause(48*time.Hour)).until(t, rollout.WaitPause)
	m.say(rollout.Pass, "canary.steps[1]", "ann")
	began := m.now
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-b": 4})
	if m.now.Sub(began) > time.Hour {
		t.Error("the pause was waited for")
	}
}

// Pods of the former version that are not ready are no fault of the new one, which may be what mends them.
func TestACommitMendsWhatIsNotReady(t *testing.T) {
	for name, first := range map[string]bool{"what never was": true, "what was good": false} {
		t.Run(name, func(t *testing.T) {
			m := newModel()
			if first {
				m.sick[revision("a")] = "ErrImagePull"
			}
			m.deploy(1, "m1", set("a", 6, webService))
			for range 20 {
				m.step()
			}
			if first {
				m.facts.ReplacedBy = 2
			}
			m.run(t)
			m.sick[revision("a")] = "ErrImagePull"
			m.scale(m.objects[revision("a")], 6)
			m.deploy(2, "m2", set("b", 6, webService))
			m.target.Canary = []rollout.Step{weight(25), pause(time.Minute), weight(50)}
			m.run(t)
			expect(t, m, rollout.Succeeded, "", map[string]int32{"web-b": 6})
		})
	}
}

// What an earlier rollout left half-way serves as long as what it came from does not.
func TestWhatServesBesideWhatIsNotReadyStaysUntilTheNewVersionServes(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 4, webService)).run(t)
	left := m.put(revision("b"))
	left.live.Workload, left.live.Hash = "web", "b"
	m.scale(left, 2)
	m.sick[revision("a")] = "node lost"
	m.scale(m.objects[revision("a")], 4)
	m.deploy(3, "m3", set("c", 4, webService))
	m.target.Canary = []rollout.Step{approval()}
	m.until(t, rollout.WaitApproval)
	expectPods(t, m, map[string]int32{"web-a": 4, "web-b": 2})
	m.say(rollout.Approve, "canary.steps[0]", "ann")
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-c": 4})
}

func TestPodsAreNotGivenBackToWhatIsNotReady(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 4, webService)).run(t)
	m.sick[revision("a")] = "node lost"
	m.scale(m.objects[revision("a")], 4)
	half := m.put(revision("b"))
	half.live.Workload, half.live.Hash = "web", "b"
	m.scale(half, 2)
	m.deploy(3, "m2", set("b", 4, webService)) // the version that an earlier rollout left half-way
	m.target.Canary = []rollout.Step{approval()}
	m.until(t, rollout.WaitApproval)
	expectPods(t, m, map[string]int32{"web-a": 4, "web-b": 2})
}

func TestWhatWaitsForPeopleNeedsNoAgent(t *testing.T) {
	m := second(t, 4, weight(25), approval()).until(t, rollout.WaitApproval)
	m.events, m.connected = nil, false
	m.run(t)
	if m.target.State != rollout.AwaitingApproval {
		t.Errorf("while its agent is away it is %s and waits for %+v: nobody could approve", m.target.State, m.target.Waits)
	}
	m.connected = true
	m.run(t)
	if len(m.events) > 0 {
		t.Errorf("the agent came and went, and people are told %+v", m.events)
	}
}

func TestGoingBackToWhatIsNotReadyKeepsWhatIs(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 4, webService)).run(t)
	m.sick[revision("a")] = "ErrImagePull"
	m.scale(m.objects[revision("a")], 4)
	m.deploy(2, "m2", set("b", 4, webService))
	m.target.Canary = []rollout.Step{weight(25), approval()}
	m.until(t, rollout.WaitApproval)
	m.say(rollout.Reject, "canary.steps[1]", "ann")
	m.until(t, rollout.WaitHealth)
	expectPods(t, m, map[string]int32{"web-a": 4, "web-b": 1})
}

func TestWhatIsDrainedIsNotWaitedForWithoutEndAlsoWhenItCannotBeRead(t *testing.T) {
	drained := rollout.Target{Name: "prod", Phase: rollout.Draining, State: rollout.Running, Manifests: "m2", Way: rollout.Way{Timeout: time.Minute}, Since: noon, Deadline: noon.Add(time.Minute),
		Former: []rollout.Former{{Key: revision("a"), Workload: "web", Count: 3}}, Open: []rollout.Proof{{Key: revision("a"), UID: "uid", Generation: 2}}}
	d := rollout.Decide(drained, rollout.Facts{Now: noon.Add(time.Minute), Connected: true, New: set("b", 3), Look: &rollout.Look{Failure: &rollout.Failure{Class: rollout.Trouble, Text: "no answer"}}})
	if d.Target.State.Final() || d.Target.Phase != rollout.Pruning {
		t.Errorf("%s in %s (%s): the new version serves, and nothing else is to be waited for", d.Target.State, d.Target.Phase, d.Target.Why)
	}
}

// What is done after a long wait has as much time as what is done at the beginning.
func TestTroubleThatPassesIsWaitedForAlsoAfterALongPause(t *testing.T) {
	for name, m := range map[string]*model{
		"canary":         second(t, 4, weight(25), pause(48*time.Hour)),
		"blue and green": second(t, 4).blueGreen([]rollout.Step{pause(48 * time.Hour)}, []rollout.Step{pause(48 * time.Hour)}),
	} {
		t.Run(name, func(t *testing.T) {
			m.put(webPreview)
			m.objects[webPreview].live.Selector = map[string]string{"app": "web"}
			troubled := map[rollout.Phase]bool{}
			m.trouble = func(rollout.Action) *rollout.Failure {
				if troubled[m.target.Phase] {
					return nil
				}
				troubled[m.target.Phase] = true
				return &rollout.Failure{Class: rollout.Trouble, Text: "connection reset"}
			}
			m.run(t)
			expect(t, m, rollout.Succeeded, "", map[string]int32{"web-b": 4})
		})
	}
}

func TestACanaryThatDoesNotBecomeReadyGoesBack(t *testing.T) {
	m := second(t, 4, weight(25), pause(time.Minute))
	m.sick[revision("b")] = "CrashLoopBackOff"
	m.run(t)
	expect(t, m, rollout.RolledBack, "not ready within 10m0s: ReplicaSet.apps shop/web-b: CrashLoopBackOff; held at #1", map[string]int32{"web-a": 4})
}

func TestReplacingACanaryReturnsPodsBeforeTheNextOneBegins(t *testing.T) {
	m := second(t, 4, weight(50), approval()).until(t, rollout.WaitApproval)
	m.facts.ReplacedBy = 3
	m.run(t)
	expect(t, m, rollout.Cancelled, "replaced by #3", map[string]int32{"web-a": 4})
	m.deploy(3, "m3", set("c", 4, webService, webSettings))
	m.target.Canary = []rollout.Step{weight(25), approval()}
	m.until(t, rollout.WaitApproval)
	expectPods(t, m, map[string]int32{"web-a": 3, "web-c": 1})
}

func TestABusyLaneFinishesWhatWasReplacedTooOften(t *testing.T) {
	m := second(t, 4, weight(50), approval())
	m.facts.Limits.Replaced, m.facts.Replaced = 3, 3
	m.until(t, rollout.WaitApproval)
	m.facts.ReplacedBy = 9
	m.say(rollout.Approve, "canary.steps[1]", "ann")
	m.run(t)
	expect(t, m, rollout.Succeeded, "what it no longer holds is left to #9 to remove", map[string]int32{"web-b": 4})

	m = second(t, 4, weight(50), approval())
	m.facts.Limits.Replaced, m.facts.Replaced, m.facts.ReplacedBy = 3, 3, 9
	m.sick[revision("b")] = "CrashLoopBackOff"
	m.run(t)
	expect(t, m, rollout.Cancelled, "replaced by #9", map[string]int32{"web-a": 4})
}

func TestAHoldStopsAtThePresentWeightAndTimeStandsStill(t *testing.T) {
	m := second(t, 4, weight(25), pause(time.Hour)).until(t, rollout.WaitPause)
	m.now = m.now.Add(50 * time.Minute)
	m.facts.Hold = &rollout.Hold{By: "ann", Reason: "incident 7"}
	m.run(t)
	if m.target.State != rollout.Paused || m.target.Waits[0].Needs != "a person to let it go on: halted by ann, incident 7" {
		t.Fatalf("%s: %+v", m.target.State, m.target.Waits)
	}
	m.now = m.now.Add(5 * time.Hour)
	m.run(t)
	expectPods(t, m, map[string]int32{"web-a": 3, "web-b": 1})
	m.facts.Hold = nil
	released := m.now
	m.until(t, rollout.WaitPause)
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-b": 4})
	if left := m.now.Sub(released); left < 9*time.Minute || left > 11*time.Minute {
		t.Errorf("the pause lasted %s after the hold, want the ten minutes that were left", left)
	}
}

func (m *model) blueGreen(redirect, shutDown []rollout.Step) *model {
	m.target.Canary = nil
	m.target.BlueGreen = &rollout.BlueGreen{Services: []rollout.ServicePair{{Active: "web", Preview: "preview"}}, Redirect: redirect, ShutDown: shutDown}
	return m
}

var webPreview = manifest.Key{Kind: "Service", Namespace: "shop", Name: "preview"}

// Blue and green: traffic turns at once when the steps before it have passed, and the former version goes when those after it have.
func TestBlueGreenTurnsTheServiceAtOnce(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 3, webService, webPreview))
	m.blueGreen(nil, nil).run(t)
	m.deploy(2, "m2", set("b", 3, webService, webPreview)).blueGreen([]rollout.Step{approval(), pause(time.Minute)}, []rollout.Step{pause(time.Hour)})
	m.until(t, rollout.WaitApproval)
	expectPods(t, m, map[string]int32{"web-a": 3, "web-b": 3})
	if active, preview := m.objects[webService].selects, m.objects[webPreview].selects; active != "a" || preview != "b" {
		t.Fatalf("before approval the active Service selects %q and the preview %q", active, preview)
	}
	m.say(rollout.Approve, "blueGreen.redirectTrafficAfter[0]", "ann")
	m.now = m.now.Add(2 * time.Minute)
	m.until(t, rollout.WaitPause)
	expectPods(t, m, map[string]int32{"web-a": 3, "web-b": 3})
	if active := m.objects[webService].selects; active != "b" {
		t.Fatalf("after approval the active Service selects %q", active)
	}
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-b": 3})
}

func TestBlueGreenGoesBackByTurningTheServiceFirst(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 3, webService, webPreview))
	m.blueGreen(nil, nil).run(t)
	m.deploy(2, "m2", set("b", 3, webService, webPreview)).blueGreen(nil, []rollout.Step{approval()})
	m.until(t, rollout.WaitApproval)
	m.acts = nil
	m.say(rollout.Reject, "blueGreen.shutDownOldVersionAfter[0]", "ann")
	m.run(t)
	expect(t, m, rollout.RolledBack, "blueGreen.shutDownOldVersionAfter[0] was rejected by ann; held at #1", map[string]int32{"web-a": 3})
	if first := m.acts[0]; len(first.Select) == 0 || first.Select[0] != (rollout.Selection{Service: webService, Hash: "a"}) {
		t.Errorf("going back began with %+v, want the active Service", first)
	}
	if active := m.objects[webService].selects; active != "a" {
		t.Errorf("the active Service selects %q", active)
	}
}

// Pods that were ready before a person was asked may not be when they answer.
func TestTrafficTurnsOnlyToWhatIsReadyNow(t *testing.T) {
	begin := func() *model {
		m := newModel().deploy(1, "m1", set("a", 3, webService, webPreview))
		m.blueGreen(nil, nil).run(t)
		m.deploy(2, "m2", set("b", 3, webService, webPreview)).blueGreen([]rollout.Step{approval()}, nil)
		m.until(t, rollout.WaitApproval)
		lost := m.objects[revision("b")]
		lost.live.Health, lost.live.Message = rollout.Progressing, "2 of 3 pods ready: OOMKilled"
		m.say(rollout.Approve, "blueGreen.redirectTrafficAfter[0]", "ann")
		m.until(t, rollout.WaitHealth)
		if active := m.objects[webService].selects; active != "a" {
			t.Fatalf("while the new pods are not ready the active Service selects %q", active)
		}
		if want := "ReplicaSet.apps shop/web-b: 2 of 3 pods ready: OOMKilled"; m.target.Waits[0].Needs != want {
			t.Errorf("it waits for %q, want %q", m.target.Waits[0].Needs, want)
		}
		return m
	}
	m := begin()
	m.objects[revision("b")].live.Health = rollout.Healthy
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-b": 3})
	m = begin()
	m.now = m.now.Add(time.Hour)
	m.run(t)
	expect(t, m, rollout.RolledBack, "no longer ready, and not again within 10m0s: ReplicaSet.apps shop/web-b: 2 of 3 pods ready: OOMKilled; held at #1", map[string]int32{"web-a": 3})
}

// What is halted stays where it is, whatever is merged meanwhile.
func TestANewerCommitWaitsForTheEndOfAHold(t *testing.T) {
	m := second(t, 4)
	m.target.Canary = []rollout.Step{weight(50), approval()}
	m.until(t, rollout.WaitApproval)
	m.facts.Hold = &rollout.Hold{By: "ann", Reason: "incident 7"}
	m.facts.ReplacedBy = 3
	m.until(t, rollout.WaitHold)
	expectPods(t, m, map[string]int32{"web-a": 2, "web-b": 2})
	m.facts.Hold = nil
	m.run(t)
	expect(t, m, rollout.Cancelled, "replaced by #3", map[string]int32{"web-a": 4})
}

func TestAnApprovalThatExpiresBeforehandCancelsTheDeployment(t *testing.T) {
	step := approval()
	step.Approval.Expires = time.Hour
	m := second(t, 3)
	m.target.Before = []rollout.Step{step}
	m.until(t, rollout.WaitApproval)
	f := m.read()
	f.Now, f.Connected = m.now.Add(2*time.Hour), true
	d := rollout.Decide(m.target, f)
	if want := "beforeDeployment[0] expired: 0 of 1 approvals within 1h0m0s"; d.Target.State != rollout.Cancelled || d.Cancels == nil || d.Cancels.Reason != want {
		t.Errorf("%s, and the deployment is cancelled by %+v", d.Target.State, d.Cancels)
	}
}

func TestAServiceThatSelectsNothingOrIsNotThereFailsBeforeAnythingIsTouched(t *testing.T) {
	m := second(t, 3).blueGreen(nil, nil)
	next := m.sets["m2"]
	next.Services = []rollout.Service{{Key: webService, Selector: map[string]string{"app": "other"}}}
	m.sets["m2"] = next
	m.run(t)
	expect(t, m, rollout.Failed, "Service shop/web selects no pods of the manifests, or those of several workloads: its selector is app=other", map[string]int32{"web-a": 3})
	m = second(t, 3).blueGreen(nil, nil)
	m.run(t)
	expect(t, m, rollout.Failed, "Service shop/preview, which the strategy turns, is neither in the manifests nor in the cluster", map[string]int32{"web-a": 3})
	m = second(t, 3).blueGreen(nil, nil)
	m.put(webPreview).live.Selector = map[string]string{"app": "other"}
	m.run(t)
	expect(t, m, rollout.Failed, "Service shop/preview selects other pods than Service shop/web, whose preview it is: its selector is app=other", map[string]int32{"web-a": 3})
}

func TestAFirstRolloutDoesNotBeginBesideWhatAnotherTargetLeft(t *testing.T) {
	m := newModel().deploy(1, "m1", set("b", 3, webService))
	left := m.put(revision("a"))
	left.live.Workload, left.live.Owner = "web", "main/store/prod"
	m.scale(left, 3)
	m.run(t)
	expect(t, m, rollout.Failed, "ReplicaSet.apps shop/web-a with 3 pods runs Deployment shop/web already, as main/store/prod left it (tenant/application/target): "+
		"this target would begin beside it; give the application and the target their former names, or delete that ReplicaSet first", map[string]int32{"web-a": 3})
	m.deploy(2, "m2", set("b", 3, webService))
	m.scale(left, 0)
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-b": 3})
}

func TestADeploymentObjectThatIsMadeAgainIsTold(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 3, webService)).run(t)
	fights := func() (n int) {
		for _, e := range m.events {
			if e.Kind == "target.fight" {
				n++
				if want := "prod: Deployment.apps shop/web is there again though its pods are managed: something else makes it (kubectl, Helm, Argo CD); it is taken over once more, " +
					"but leave it to one of the two"; e.What != want {
					t.Errorf("%q, want %q", e.What, want)
				}
			}
		}
		return n
	}
	m.put(webDeployment).live.Owner = ""
	m.deploy(2, "m2", set("b", 3, webService)).run(t)
	if fights() != 1 || m.target.State != rollout.Succeeded {
		t.Errorf("told %d times, %s", fights(), m.target.State)
	}
	m.put(webDeployment) // as one that was put back, which says whose it is
	m.deploy(3, "m3", set("c", 3, webService)).run(t)
	if fights() != 1 {
		t.Errorf("a Deployment object of ours is told as somebody else's")
	}
}

func TestARunningDeploymentObjectIsTakenOverWithItsPods(t *testing.T) {
	for name, standsFor := range map[string]string{"other pods": "", "the same pods": "web-b"} {
		t.Run(name, func(t *testing.T) {
			m := newModel().deploy(2, "m2", set("b", 3, webService))
			m.target.Canary = []rollout.Step{weight(34), approval()}
			m.standsFor = standsFor
			theirs := m.put(webDeployment)
			theirs.live.Health, theirs.live.Message = rollout.Progressing, "Updated: 1/3"
			m.step()
			m.step()
			m.step()
			if want := "the rollout of Deployment.apps shop/web to end, so that it can be taken over: Updated: 1/3"; len(m.target.Waits) == 0 || m.target.Waits[0].Needs != want {
				t.Fatalf("%s in %s waits for %+v, want %q", m.target.State, m.target.Phase, m.target.Waits, want)
			}
			theirs.live.Health = rollout.Healthy
			if standsFor != "" {
				m.until(t, rollout.WaitApproval) // nothing is weighed, and a person is asked all the same
				expectPods(t, m, map[string]int32{"web-theirs": 3})
				m.say(rollout.Approve, "canary.steps[1]", "ann")
				m.run(t)
				expect(t, m, rollout.Succeeded, "", map[string]int32{"web-theirs": 3})
				return
			}
			m.until(t, rollout.WaitApproval)
			expectPods(t, m, map[string]int32{"web-theirs": 2, "web-b": 1})
			m.say(rollout.Reject, "canary.steps[1]", "ann")
			m.run(t)
			expect(t, m, rollout.RolledBack, "canary.steps[1] was rejected by ann; held at what ran before", map[string]int32{"web-theirs": 3})
		})
	}
}

func TestDeploymentObjectsAreKeptWhereTheFileSaysSo(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 3))
	m.target.KeepDeployment = true
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-a": 3})
	if m.objects[webDeployment] == nil {
		t.Error("no Deployment object is there")
	}
}

func TestConstraintsWaitBeforeAndAfter(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 1))
	m.target.Before, m.target.After = []rollout.Step{approval(), pause(time.Minute)}, []rollout.Step{approval("qa")}
	m.until(t, rollout.WaitApproval)
	if len(m.acts) > 0 {
		t.Fatal("the cluster was touched before beforeDeployment had passed")
	}
	m.say(rollout.Approve, "beforeDeployment[0]", "ann")
	m.until(t, rollout.WaitPause).until(t, rollout.WaitApproval)
	if m.good == nil || m.target.State.Final() {
		t.Fatalf("%s with last good release %+v, want it good and not ended", m.target.State, m.good)
	}
	m.say(rollout.Reject, "afterDeployment[0]", "quinn")
	m.run(t)
	expect(t, m, rollout.Failed, "afterDeployment[0] was rejected by quinn; what was rolled out stays", map[string]int32{"web-a": 1})
}

func TestATargetThatCannotBeReachedIsSkippedOrFailsWhereTheFileSaysSo(t *testing.T) {
	for policy, want := range map[rollout.Unreachable]rollout.State{rollout.SkipUnreachable: rollout.Skipped, rollout.FailsUnreachable: rollout.Failed} {
		m := newModel().deploy(1, "m1", set("a", 1))
		m.target.Unreachable, m.connected = policy, false
		began := m.now
		m.run(t)
		expect(t, m, want, "the agent prod is not connected, and the file says unreachable: "+string(policy), map[string]int32{})
		if m.now.Sub(began) < time.Minute {
			t.Error("it was not given the time to come back")
		}
	}
}

func TestAnEmergencyPassesOverWhatItNames(t *testing.T) {
	m := second(t, 4, weight(25), approval(), pause(time.Hour))
	m.target.DependsOn = []string{"staging"}
	m.facts.Dependencies = map[string]rollout.State{"staging": rollout.Failed}
	m.target.Skip = []rollout.Skip{rollout.SkipDependencies, rollout.SkipApprovals, rollout.SkipPauses}
	began := m.now
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-b": 4})
	if m.now.Sub(began) > time.Minute {
		t.Error("a wait was waited for")
	}
}

func TestAFailedFirstRolloutLeavesWhatOthersHadThere(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 1, webService))
	m.put(webService).live.Found = true
	m.sick[revision("a")] = "CrashLoopBackOff"
	m.run(t)
	if m.target.State != rollout.RolledBack || m.objects[webService] == nil {
		t.Errorf("%s, and the Service that was there before is there: %v", m.target.State, m.objects[webService] != nil)
	}
}

func TestEveryWaitSaysHowToEndIt(t *testing.T) {
	m := second(t, 4, weight(25), approval()).until(t, rollout.WaitApproval)
	for _, w := range m.target.Waits {
		if w.Command == "" || !strings.HasPrefix(w.Command, "towpath ") || w.Since.IsZero() {
			t.Errorf("%+v", w)
		}
	}
}
