package rollout_test

import (
	"encoding/json"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

func TestAFirstRolloutAppliesWaitsForHealthAndSucceeds(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 3, webService, webSettings)).run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-a": 3})
	if m.good == nil || m.good.Manifests != "m1" || m.good.Number != 1 {
		t.Errorf("last good release is %+v, want m1 of #1", m.good)
	}
	if len(m.inventory) != 3 {
		t.Errorf("inventory is %v, want the three objects of the manifests", m.inventory)
	}
}

func TestASecondRolloutMovesAllPodsToTheNewRevisionAndRemovesWhatLeftTheManifests(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 3, webService, webSettings)).run(t)
	m.deploy(2, "m2", set("b", 3, webService)).run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-b": 3})
	if m.objects[webSettings] != nil || slices.Contains(m.inventory, webSettings) {
		t.Error("the ConfigMap left the manifests but is still there")
	}
	if m.objects[revision("a")] == nil {
		t.Error("the former revision was removed; it is kept at zero so that going back takes seconds")
	}
}

func TestOldRevisionsStayUntilTheNewOneIsProvedHealthy(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 3)).run(t)
	m.deploy(2, "m2", set("b", 3))
	m.sick[revision("b")] = "1 of 3 pods ready"
	for range 50 {
		m.step()
	}
	if m.target.Phase != rollout.Settling || m.pods()["web-a"] != 3 {
		t.Fatalf("phase %s with pods %v, want settling with 3 pods of web-a", m.target.Phase, m.pods())
	}
	if len(m.target.Waits) != 1 || m.target.Waits[0].Needs != "ReplicaSet.apps shop/web-b: 1 of 3 pods ready" {
		t.Errorf("waits are %+v, want the reason in the cluster's words", m.target.Waits)
	}
}

func TestAHealthyReadOfAnotherObjectOrAnOlderGenerationProvesNothing(t *testing.T) {
	base := rollout.Target{Name: "prod", Phase: rollout.Settling, State: rollout.Running, Way: rollout.Way{Timeout: time.Minute},
		Open: []rollout.Proof{{Key: revision("a"), UID: "uid-1", Generation: 2}}}
	now := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	base.Deadline = now.Add(time.Minute)
	for name, live := range map[string]rollout.Live{
		"another UID":         {Key: revision("a"), UID: "uid-2", Generation: 2, Health: rollout.Healthy},
		"an older generation": {Key: revision("a"), UID: "uid-1", Generation: 1, Health: rollout.Healthy},
		"gone":                {Key: revision("a"), Missing: true},
	} {
		t.Run(name, func(t *testing.T) {
			d := rollout.Decide(base, rollout.Facts{Now: now, Connected: true, New: set("a", 1), Look: &rollout.Look{Objects: []rollout.Live{live}}})
			if d.Target.Phase == rollout.Retiring || d.Target.State.Final() {
				t.Errorf("went on to %s", d.Target.Phase)
			}
		})
	}
}

func TestWhatDoesNotBecomeReadyInTimeGoesBackToTheLastGoodRelease(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 3, webService)).run(t)
	m.sick[revision("b")] = "ErrImagePull: no such image"
	m.deploy(2, "m2", set("b", 3, webService, webSettings)).run(t)
	expect(t, m, rollout.RolledBack, "not ready within 10m0s: ReplicaSet.apps shop/web-b: ErrImagePull: no such image; held at #1", map[string]int32{"web-a": 3})
	if m.objects[webSettings] != nil {
		t.Error("the ConfigMap that the failed version added is still there")
	}
	if m.good.Number != 1 {
		t.Errorf("last good is #%d, want #1", m.good.Number)
	}
}

func TestWhatTheAPIServerRefusesGoesBackAtOnceWithItsOwnMessage(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 3)).run(t)
	m.refuse[webSettings] = `admission webhook "policy" denied the request: no`
	began := m.now
	m.deploy(2, "m2", set("b", 3, webSettings)).run(t)
	expect(t, m, rollout.RolledBack, `ConfigMap shop/web: admission webhook "policy" denied the request: no; held at #1`, map[string]int32{"web-a": 3})
	if m.now != began {
		t.Error("it took time to give up on what can never succeed")
	}
}

func TestAFailedFirstRolloutLeavesNothingButWhatMayHoldData(t *testing.T) {
	m := newModel()
	m.sick[revision("a")] = "CrashLoopBackOff"
	m.deploy(1, "m1", set("a", 3, webService, webClaim)).run(t)
	expect(t, m, rollout.RolledBack, "not ready within 10m0s: ReplicaSet.apps shop/web-a: CrashLoopBackOff; nothing ran before it, so nothing runs now", map[string]int32{})
	if left := slices.Collect(maps.Keys(m.objects)); !slices.Equal(left, []manifest.Key{webClaim}) {
		t.Errorf("left behind: %v, want the claim only", left)
	}
}

func TestAClusterWhoseAgentIsAwayIsWaitedForWithoutEnd(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 1))
	m.connected = false
	m.run(t)
	if m.target.State != rollout.Running || len(m.target.Waits) != 1 || !strings.Contains(m.target.Waits[0].Needs, "the agent prod to connect") {
		t.Fatalf("%s waits for %+v, want the agent", m.target.State, m.target.Waits)
	}
	m.now = m.now.Add(72 * time.Hour)
	m.connected = true
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-a": 1})
}

func TestATargetWaitsForThoseItDependsOn(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 1))
	m.target.DependsOn = []string{"staging"}
	m.facts.Dependencies = map[string]rollout.State{"staging": rollout.Running}
	m.run(t)
	if m.target.State != rollout.Queued || m.target.Waits[0].Needs != "staging to succeed (now RUNNING)" || len(m.objects) != 0 {
		t.Fatalf("%s waits for %+v", m.target.State, m.target.Waits)
	}
	m.facts.Dependencies["staging"] = rollout.RolledBack
	m.run(t)
	expect(t, m, rollout.Cancelled, "not started: staging is ROLLED_BACK", map[string]int32{})
}

func TestRemovalsBeyondTheBudgetWaitForAPerson(t *testing.T) {
	many := make([]manifest.Key, 12)
	for i := range many {
		many[i] = manifest.Key{Kind: "ConfigMap", Namespace: "shop", Name: string(rune('a' + i))}
	}
	namespace := manifest.Key{Kind: "Namespace", Name: "shop"}
	definition := manifest.Key{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition", Name: "shops.example.com"}
	for name, c := range map[string]struct {
		had, has []manifest.Key
		why      string
	}{
		"more than ten objects": {many, many[:1], "it removes 11 objects (10 go without asking)"},
		"a claim":               {[]manifest.Key{webService, webClaim}, []manifest.Key{webService}, "it removes PersistentVolumeClaim shop/web"},
		"a namespace":           {[]manifest.Key{webService, namespace}, []manifest.Key{webService}, "it removes Namespace shop"},
		"a resource definition": {[]manifest.Key{webService, definition}, []manifest.Key{webService}, "it removes CustomResourceDefinition.apiextensions.k8s.io shops.example.com"},
		"a shrunken render":     {many[:8], many[:3], "its manifests shrank from 9 objects to 4"},
		"two of a few objects":  {many[:2], nil, "its manifests shrank from 3 objects to 1"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newModel().deploy(1, "m1", set("a", 1, c.had...)).run(t)
			m.deploy(2, "m2", set("a", 1, c.has...)).run(t)
			if m.target.State != rollout.AwaitingApproval || m.target.Waits[0].Needs != "a person to approve: "+c.why {
				t.Fatalf("%s: %+v, want approval because %s", m.target.State, m.target.Waits, c.why)
			}
			m.facts.Words = []rollout.Word{{Target: "prod", Gate: "prune", Digest: "promise-other", Verb: rollout.Approve, By: "ann"}}
			if m.run(t); m.target.State != rollout.AwaitingApproval {
				t.Fatal("an approval of another digest counted")
			}
			m.facts.Words[0].Digest = "promise-m2"
			m.run(t)
			expect(t, m, rollout.Succeeded, "", map[string]int32{"web-a": 1})
			if len(m.inventory) != len(c.has)+1 {
				t.Errorf("inventory is %v", m.inventory)
			}
		})
	}
}

func TestOneObjectOfAFewGoesWithoutAsking(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 1, webSettings)).run(t)
	m.deploy(2, "m2", set("a", 1)).run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-a": 1})
	if len(m.inventory) != 1 || m.objects[webSettings] != nil {
		t.Errorf("inventory is %v", m.inventory)
	}
}

func TestEmptyManifestsTakeNothingAwayWithoutAPersonsWord(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 1)).run(t)
	m.deploy(2, "none", rollout.Set{}).run(t)
	if m.target.State != rollout.AwaitingApproval || m.target.Waits[0].Needs != "a person to approve: its manifests are empty" {
		t.Fatalf("%s: %+v", m.target.State, m.target.Waits)
	}
	m.facts.Words = []rollout.Word{{Target: "prod", Gate: "prune", Digest: m.target.Digest, Verb: rollout.Approve, By: "ann"}}
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{})
}

func TestATargetThatGoesAsksOnlyForWhatMayHoldData(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 2, webService, webSettings, webClaim)).run(t)
	m.deploy(2, "none", rollout.Set{})
	m.target.Removes = true
	m.run(t)
	if m.target.State != rollout.AwaitingApproval || m.target.Waits[0].Needs != "a person to approve: it removes PersistentVolumeClaim shop/web" {
		t.Fatalf("%s: %+v", m.target.State, m.target.Waits)
	}
	m.facts.Words = []rollout.Word{{Target: "prod", Gate: "prune", Digest: m.target.Digest, Verb: rollout.Approve, By: "ann"}}
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{})
	if len(m.inventory) != 0 || m.good != nil || len(m.objects) != 0 {
		t.Errorf("left: inventory %v, good %v, objects %v", m.inventory, m.good, m.objects)
	}
}

func TestANewerDeploymentTakesTheLaneAndTheLastGoodReleaseStays(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 3)).run(t)
	m.sick[revision("b")] = "CrashLoopBackOff"
	m.deploy(2, "m2", set("b", 3))
	for range 20 {
		m.step()
	}
	m.facts.ReplacedBy = 3
	m.run(t)
	expect(t, m, rollout.Cancelled, "replaced by #3", map[string]int32{"web-a": 3})
	m.deploy(3, "m3", set("c", 3)).run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-c": 3})
}

func TestAfterAReplacedVersionGoingBackLeavesOnlyTheLastGoodPods(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 3)).run(t)
	m.sick[revision("b")], m.sick[revision("c")] = "CrashLoopBackOff", "CrashLoopBackOff"
	m.deploy(2, "m2", set("b", 3))
	for range 20 {
		m.step()
	}
	m.facts.ReplacedBy = 3
	m.run(t)
	m.deploy(3, "m3", set("c", 3)).run(t)
	expect(t, m, rollout.RolledBack, "not ready within 10m0s: ReplicaSet.apps shop/web-c: CrashLoopBackOff; held at #1", map[string]int32{"web-a": 3})
}

func TestCancellingGoesBackAndSaysWho(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 2)).run(t)
	m.sick[revision("b")] = "0 of 2 pods ready"
	m.deploy(2, "m2", set("b", 2))
	for range 20 {
		m.step()
	}
	m.facts.Cancel = &rollout.Request{By: "ann", Reason: "wrong version"}
	m.run(t)
	expect(t, m, rollout.Cancelled, "cancelled by ann: wrong version; held at #1", map[string]int32{"web-a": 2})
}

func TestAnObjectOfAnotherApplicationIsNotTouched(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 2))
	m.facts.Taken = &rollout.Failure{Class: rollout.Refused, Object: webService, Text: "belongs to application other"}
	m.run(t)
	expect(t, m, rollout.Failed, "Service shop/web: belongs to application other", map[string]int32{})
}

func TestReplicasTheManifestDoesNotSayAreKept(t *testing.T) {
	m := newModel().deploy(1, "m1", set("a", 2)).run(t)
	m.scale(m.objects[revision("a")], 7)
	next := set("b", 0)
	next.Revisions[0].Replicas = nil
	m.deploy(2, "m2", next).run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-b": 7})
}

func TestRevisionsBeyondThoseKeptGo(t *testing.T) {
	m := newModel()
	for i, hash := range []string{"a", "b", "c", "d", "e", "f"} {
		m.deploy(i+1, "m"+hash, set(hash, 1)).run(t)
		m.objects[revision(hash)].live.Number = i + 1
	}
	if m.objects[revision("a")] != nil || m.objects[revision("b")] != nil || m.objects[revision("c")] == nil {
		t.Errorf("kept revisions: %v", slices.Collect(maps.Keys(m.objects)))
	}
}

// A run that is cut after any save or action, and starts again from what was saved, ends where an undisturbed one ends.
func TestARunCutAnywhereEndsWhereAnUndisturbedOneEnds(t *testing.T) {
	for name, sick := range map[string]bool{"good": false, "rolled back": true} {
		t.Run(name, func(t *testing.T) {
			start := func() *model {
				m := newModel().deploy(1, "m1", set("a", 3, webService, webSettings)).run(t)
				if sick {
					m.sick[revision("b")] = "ErrImagePull"
				}
				m.events = nil
				return m.deploy(2, "m2", set("b", 3, webService, webClaim))
			}
			want := start().run(t).end()
			for cut := 0; ; cut++ {
				m := start()
				if !m.runCut(t, cut) {
					break
				}
				if got := m.run(t).end(); got != want {
					t.Fatalf("cut at %d:\n got %s\nwant %s", cut, got, want)
				}
			}
		})
	}
}

type cutShort struct{}

// runCut runs until the n/2-th action is about to be done, or was just done, then forgets all that was not saved; false when the run ended before.
func (m *model) runCut(t testing.TB, n int) (cut bool) {
	defer func() {
		m.trouble = nil
		if p := recover(); p != nil {
			if _, ok := p.(cutShort); !ok {
				panic(p)
			}
			cut = true
		}
	}()
	count := 0
	m.trouble = func(a rollout.Action) *rollout.Failure {
		before := count == n
		after := count+1 == n
		count += 2
		if before {
			panic(cutShort{})
		}
		if after {
			m.trouble = nil
			m.act(a)
			panic(cutShort{})
		}
		return nil
	}
	m.run(t)
	return false
}

// end is what must be the same however a run was disturbed: cluster, inventory, last good release, state and events without their times.
func (m *model) end() string {
	type seen struct {
		Objects   map[string]int32
		Inventory []string
		Good      *rollout.Release
		State     rollout.State
		Why       string
		Events    []string
	}
	s := seen{Objects: map[string]int32{}, Good: m.good, State: m.target.State, Why: m.target.Why}
	for key, o := range m.objects {
		s.Objects[key.String()] = o.live.Replicas
	}
	for _, key := range m.inventory {
		s.Inventory = append(s.Inventory, key.String())
	}
	slices.Sort(s.Inventory)
	for _, event := range m.events {
		s.Events = append(s.Events, event.What+" / "+event.Why)
	}
	text, _ := json.Marshal(s)
	return string(text)
}

// Whatever happens on the way: it ends, no pod of the last good release goes before the new one is proved healthy, and what is recorded as good
// is what runs.
func TestWhateverHappensOnTheWayItEndsInAStateThatIsTrue(t *testing.T) {
	for seed := range uint64(3_000) {
		r := rand.New(rand.NewPCG(seed, 7))
		m := newModel().deploy(1, "m1", set("a", 3, webService)).run(t)
		m.random(r, "b")
		m.deploy(2, "m2", set("b", 3, webService, webSettings))
		if r.IntN(5) == 0 {
			m.facts.Cancel = &rollout.Request{By: "ann"}
		}
		m.run(t)
		pods := m.pods()
		switch m.target.State {
		case rollout.Succeeded:
			if pods["web-b"] != 3 || len(pods) != 1 || m.good.Number != 2 {
				t.Fatalf("seed %d: succeeded with pods %v, good %+v", seed, pods, m.good)
			}
		case rollout.RolledBack, rollout.Cancelled:
			if pods["web-a"] != 3 || len(pods) != 1 || m.good.Number != 1 {
				t.Fatalf("seed %d: %s with pods %v, good %+v", seed, m.target.State, pods, m.good)
			}
		default:
			t.Fatalf("seed %d: ended as %s: %s", seed, m.target.State, m.target.Why)
		}
	}
}

func expect(t *testing.T, m *model, state rollout.State, why string, pods map[string]int32) {
	t.Helper()
	if m.target.State != state || m.target.Why != why {
		t.Errorf("ended as %s because %q, want %s because %q", m.target.State, m.target.Why, state, why)
	}
	if got := m.pods(); !maps.Equal(got, pods) {
		t.Errorf("pods are %v, want %v", got, pods)
	}
	if state.Final() && m.target.Intent != nil {
		t.Errorf("ended with an intent: %+v", m.target.Intent)
	}
}

func BenchmarkDecide(b *testing.B) {
	m := newModel().deploy(1, "m1", set("a", 3, webService, webSettings))
	target, facts := m.target, m.read()
	facts.Now, facts.Connected = m.now, true
	for b.Loop() {
		rollout.Decide(target, facts)
	}
}
