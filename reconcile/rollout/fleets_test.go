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

var (
	database = manifest.Key{Group: "apps", Kind: "StatefulSet", Namespace: "shop", Name: "db"}
	agent    = manifest.Key{Group: "apps", Kind: "DaemonSet", Namespace: "shop", Name: "agent"}
)

func isFleet(key manifest.Key) bool { return key == database || key == agent }

// fleets is a set of those; each has four pods.
func fleets(keys ...manifest.Key) rollout.Set {
	var s rollout.Set
	for _, key := range keys {
		s.Objects = append(s.Objects, key)
		s.Fleets = append(s.Fleets, rollout.Fleet{Key: key})
	}
	return s
}

// applyFleet is an apply of a fleet, and what its controller makes of it until it must wait. Pods of sick manifests never become ready: a StatefulSet
// stops at the first, a DaemonSet at one that is missing.
func (m *model) applyFleet(o *object, a rollout.Action) rollout.Live {
	share := rollout.Share{Key: o.live.Key, Weight: 100}
	for _, s := range a.Share {
		if s.Key == o.live.Key {
			share = s
		}
	}
	if o.from != a.Manifests || o.share != share {
		o.live.Generation++
	}
	if o.from, o.share = a.Manifests, share; o.pods == nil {
		o.pods = slices.Repeat([]string{o.from}, 4)
	}
	m.control(o)
	live := o.live
	live.Health = rollout.Progressing // its controller has not seen it yet
	return live
}

// control replaces pods as the controllers do: the last ones first for a StatefulSet; for a DaemonSet with a share, one a time that it is applied.
func (m *model) control(o *object) {
	wanted := int(o.share.Of(int32(len(o.pods))))
	order := []int{3, 2, 1, 0}[:wanted]
	if o.live.Key == agent {
		if order = []int{0, 1, 2, 3}; m.count(o) >= wanted {
			return
		}
	}
	for _, i := range order {
		if o.pods[i] != o.from {
			if o.pods[i] = o.from; o.live.Key == agent && o.share.Weight < 100 {
				return
			}
		}
		if m.sick[o.at()] != "" {
			return
		}
	}
}

// at is the key under which the fate of a fleet's present pods stands.
func (o *object) at() manifest.Key {
	return manifest.Key{Kind: o.live.Key.Kind, Name: o.from}
}

// count is how many pods are of what was applied.
func (m *model) count(o *object) (count int) {
	for _, from := range o.pods {
		if from == o.from {
			count++
		}
	}
	return count
}

// stuck reports whether the controller of a StatefulSet waits for a pod of an older version that never becomes ready.
func (m *model) stuck(o *object) bool {
	return o.live.Key == database && slices.ContainsFunc(o.pods, func(from string) bool {
		return from != o.from && m.sick[manifest.Key{Kind: "StatefulSet", Name: from}] != ""
	})
}

func (m *model) free(o *object) {
	for i, from := range o.pods {
		if m.sick[manifest.Key{Kind: "StatefulSet", Name: from}] != "" {
			o.pods[i] = o.from
		}
	}
	m.control(o)
}

func (m *model) fleet(s rollout.Share) rollout.Live {
	o := m.objects[s.Key]
	if o == nil {
		return rollout.Live{Key: s.Key, Missing: true}
	}
	live := o.live
	live.Replicas, live.Within, live.Health = int32(len(o.pods)), true, rollout.Progressing
	if live.Fresh = int32(m.count(o)); m.sick[o.at()] != "" {
		live.Fresh, live.Message = 0, m.sick[o.at()]
	}
	if live.Fresh == live.Replicas {
		live.Health = rollout.Healthy
	}
	live.Stuck = m.stuck(o)
	live.Due = s.Weight < 100 && s.Key == agent && live.Message == "" && live.Fresh < s.Of(live.Replicas)
	return live
}

// herd is a lane on which version 1 of fleets runs, and version 2 is about to be rolled out by steps.
func herd(t testing.TB, set rollout.Set, steps ...rollout.Step) *model {
	m := newModel()
	deploy := func(n int) *model {
		m.deploy(n, fmt.Sprint("m", n), set)
		m.target.Canary, m.target.Workloads = steps, []string{"StatefulSet", "DaemonSet"}
		return m
	}
	deploy(1).run(t)
	m.events, m.acts = nil, nil
	return deploy(2)
}

// runs is the versions that the pods of a fleet are of: "1112".
func (m *model) runs(key manifest.Key) string {
	return strings.ReplaceAll(strings.Join(m.objects[key].pods, ""), "m", "")
}

func expectRuns(t *testing.T, m *model, want map[manifest.Key]string) {
	t.Helper()
	for key, runs := range want {
		if got := m.runs(key); got != runs {
			t.Errorf("in %s the pods of %s run %s, want %s", m.target.Phase, key, got, runs)
		}
		if m.target.State.Final() && m.objects[key].share.Weight != 100 {
			t.Errorf("at the end %s is not as its manifest has it: %+v", key, m.objects[key].share)
		}
	}
}

func expectEnd(t *testing.T, m *model, state rollout.State, why string) {
	t.Helper()
	if m.target.State != state || m.target.Why != why {
		t.Errorf("it is %s: %q, want %s: %q", m.target.State, m.target.Why, state, why)
	}
}

func TestFleetsTakeTheStepsShareByShare(t *testing.T) {
	m := herd(t, fleets(database, agent), weight(25), pause(time.Minute), weight(50), approval("sre"))
	m.until(t, rollout.WaitPause)
	expectRuns(t, m, map[manifest.Key]string{database: "1112", agent: "2111"})
	if got := m.target.Progress(); got != "1 of 4 pods of StatefulSet db run #2; 1 of 4 pods of DaemonSet agent run #2" {
		t.Errorf("it says %q", got)
	}
	m.until(t, rollout.WaitApproval)
	expectRuns(t, m, map[manifest.Key]string{database: "1122", agent: "2211"})
	if told := m.told("target.weight"); !slices.Contains(told, "prod: 50 % of the pods run #2 / 2 of 4 pods of StatefulSet db run #2; 2 of 4 pods of DaemonSet agent run #2") {
		t.Errorf("history says %q", told)
	}
	m.say(rollout.Approve, "canary.steps[3]", "ann")
	m.run(t)
	expectEnd(t, m, rollout.Succeeded, "")
	expectRuns(t, m, map[manifest.Key]string{database: "2222", agent: "2222"})
	if m.target.Progress() != "" {
		t.Errorf("at the end it says %q", m.target.Progress())
	}
}

// told is the events of a kind: what and why.
func (m *model) told(kind string) (all []string) {
	for _, e := range m.events {
		if e.Kind == kind {
			all = append(all, e.What+" / "+e.Why)
		}
	}
	return all
}

func TestFleetsMoveBesideTheDeploymentObjectsOfTheirFile(t *testing.T) {
	both := set("a", 4, webService)
	both.Objects, both.Fleets = append(both.Objects, database), fleets(database).Fleets
	m := herd(t, both, weight(50), approval("sre"))
	after := set("b", 4, webService)
	after.Objects, after.Fleets = both.Objects, both.Fleets
	m.sets["m2"] = after
	m.until(t, rollout.WaitApproval)
	expectPods(t, m, map[string]int32{"web-a": 2, "web-b": 2})
	expectRuns(t, m, map[manifest.Key]string{database: "1122"})
	m.say(rollout.Reject, "canary.steps[1]", "ann")
	m.run(t)
	expectEnd(t, m, rollout.RolledBack, "canary.steps[1] was rejected by ann; held at #1")
	expectPods(t, m, map[string]int32{"web-a": 4})
	expectRuns(t, m, map[manifest.Key]string{database: "1111"})
}

func TestAFleetThatIsNewPassesTheStepsOver(t *testing.T) {
	m := newModel().deploy(1, "m1", fleets(database))
	m.target.Canary, m.target.Workloads = []rollout.Step{weight(25), approval("sre")}, []string{"StatefulSet"}
	m.run(t)
	expectEnd(t, m, rollout.Succeeded, "")
	expectRuns(t, m, map[manifest.Key]string{database: "1111"})

	m.deploy(2, "m2", fleets(database, agent)) // the one runs, the other is new
	m.target.Canary, m.target.Workloads = []rollout.Step{weight(25), approval("sre")}, []string{"StatefulSet", "DaemonSet"}
	m.until(t, rollout.WaitApproval)
	expectRuns(t, m, map[manifest.Key]string{database: "1112", agent: "2222"})
}

func TestAKindThatTheStrategyDoesNotNameIsAppliedAsItIs(t *testing.T) {
	m := herd(t, fleets(database, agent), weight(50), approval("sre"))
	m.target.Workloads = []string{"DaemonSet"}
	m.until(t, rollout.WaitApproval)
	if got := m.runs(database) + " " + m.runs(agent); got != "2222 2211" {
		t.Errorf("the pods run %s", got)
	}
}

func TestAFleetWhosePodsDoNotBecomeReadyGoesBack(t *testing.T) {
	for _, key := range []manifest.Key{database, agent} {
		t.Run(key.Kind, func(t *testing.T) {
			m := herd(t, fleets(key), weight(50), approval("sre"))
			m.sick[manifest.Key{Kind: key.Kind, Name: "m2"}] = "ErrImagePull: no such image"
			m.until(t, rollout.WaitHealth)
			want := map[manifest.Key]string{database: "1112", agent: "2111"}[key]
			expectRuns(t, m, map[manifest.Key]string{key: want})
			m.run(t)
			expectRuns(t, m, map[manifest.Key]string{key: "1111"})
			expectEnd(t, m, rollout.RolledBack, fmt.Sprintf("not ready within 10m0s: %s: 0 of 2 pods of #2 ready: ErrImagePull: no such image; held at #1", key))
		})
	}
}

func TestANewerCommitStartsFromWhatRanBeforeTheOneItReplaces(t *testing.T) {
	steps := []rollout.Step{weight(75), approval("sre")}
	m := herd(t, fleets(database, agent), steps...)
	m.until(t, rollout.WaitApproval)
	expectRuns(t, m, map[manifest.Key]string{database: "1222", agent: "2221"})
	m.facts.ReplacedBy = 3
	m.run(t)
	expectEnd(t, m, rollout.Cancelled, "replaced by #3")
	expectRuns(t, m, map[manifest.Key]string{database: "1111", agent: "1111"})
	m.deploy(3, "m3", fleets(database, agent))
	m.target.Canary, m.target.Workloads = []rollout.Step{weight(25), approval("sre")}, []string{"StatefulSet", "DaemonSet"}
	m.until(t, rollout.WaitApproval)
	expectRuns(t, m, map[manifest.Key]string{database: "1113", agent: "3111"})
}

func TestANewerCommitDoesNotWaitLongForFleetsToGoBack(t *testing.T) {
	m := herd(t, fleets(agent), weight(75), approval("sre"))
	m.until(t, rollout.WaitApproval)
	m.sick[manifest.Key{Kind: "DaemonSet", Name: "m1"}] = "Evicted"
	m.facts.ReplacedBy = 3
	from := m.now
	m.run(t)
	expectEnd(t, m, rollout.Cancelled, "replaced by #3")
	if took := m.now.Sub(from); took != m.facts.Limits.Yield {
		t.Errorf("it gave way after %s", took)
	}
}

// The time that pods have is for the pods that are replaced at once, not for all of them.
func TestEachPodThatBecomesReadyGivesTheNextTheTimeout(t *testing.T) {
	m := herd(t, fleets(database), weight(100))
	m.target.Canary = []rollout.Step{weight(75), weight(100)}
	var steps int
	for range 1000 {
		more, due := m.step()
		if m.target.State.Final() {
			break
		}
		if more {
			continue
		}
		// Each pod takes nine of the ten minutes; the model itself is at once.
		m.now = m.now.Add(9 * time.Minute)
		if steps++; due.IsZero() {
			t.Fatalf("it waits for nothing in %s", m.target.Phase)
		}
	}
	expectEnd(t, m, rollout.Succeeded, "")
}

func TestAHaltedRolloutReplacesNoFurtherPods(t *testing.T) {
	m := herd(t, fleets(agent), weight(50), approval("sre"))
	for m.runs(agent) == "1111" {
		m.step()
	}
	m.facts.Hold = &rollout.Hold{By: "ann", Reason: "incident", At: m.now}
	m.run(t)
	expectRuns(t, m, map[manifest.Key]string{agent: "2111"})
	m.facts.Hold = nil
	m.until(t, rollout.WaitApproval)
	expectRuns(t, m, map[manifest.Key]string{agent: "2211"})
}

func TestAFleetThatSomebodyDeletesIsMadeAgainWithItsShare(t *testing.T) {
	m := herd(t, fleets(database), weight(50), weight(75), approval("sre"))
	for m.runs(database) != "1122" {
		m.step()
	}
	delete(m.objects, database)
	m.until(t, rollout.WaitApproval)
	if got := m.objects[database].share.Weight; got != 75 {
		t.Errorf("its share is %d %%", got)
	}
}

// A run of fleets that is cut after any save or action, and starts again from what was saved, ends where an undisturbed one ends.
func TestARunOfFleetsCutAnywhereEndsWhereAnUndisturbedOneEnds(t *testing.T) {
	for name, sick := range map[string]string{"good": "", "rolled back": "ErrImagePull"} {
		t.Run(name, func(t *testing.T) {
			start := func() *model {
				m := herd(t, fleets(database, agent), weight(25), pause(time.Minute), weight(75))
				m.sick[manifest.Key{Kind: "StatefulSet", Name: "m2"}] = sick
				return m
			}
			end := func(m *model) string { return m.end() + m.runs(database) + m.runs(agent) }
			want := end(start().run(t))
			cuts := 0
			for ; ; cuts++ {
				m := start()
				if !m.runCut(t, cuts) {
					break
				}
				if got := end(m.run(t)); got != want {
					t.Fatalf("cut at %d:\n got %s\nwant %s", cuts, got, want)
				}
			}
			if cuts < 6 {
				t.Errorf("only %d places to be cut at", cuts)
			}
		})
	}
}

func TestWhichFleetsBalk(t *testing.T) {
	canary := rollout.Way{Workloads: []string{"StatefulSet"}}
	routed := canary
	routed.Traffic = []rollout.Route{{Kind: rollout.Istio, Name: "web"}}
	compared := canary
	compared.Canary = []rollout.Step{weight(25), compare()}
	byHand := func(key manifest.Key) rollout.Set {
		s := fleets(key)
		s.Fleets[0].ByHand = true
		return s
	}
	for _, c := range []struct {
		name string
		way  rollout.Way
		set  rollout.Set
		want string
	}{
		{"one that takes the steps", canary, fleets(database), ""},
		{"one whose pods people replace", canary, byHand(database), "StatefulSet.apps shop/db has the updateStrategy OnDelete, which leaves it to people to replace its pods, " +
			"so it cannot take the steps of a canary; write RollingUpdate, or leave StatefulSet out of canary.workloads"},
		{"one that takes no steps", canary, byHand(agent), ""},
		{"one beside routes that have nothing to divide", routed, fleets(database), "trafficManagement divides the traffic of Deployment objects, and there is none: " +
			"the share of StatefulSet.apps shop/db is one of pods; leave this target out of trafficManagement.targets"},
		{"one that is to be compared with a baseline", compared, fleets(database),
			"an analysis compares the canary with a baseline, which only Deployment objects can have, and there is none in the manifests; leave baseline: true out, or give this target a strategy of its own"},
		{"one beside a Deployment object with routes", routed, func() rollout.Set { s := set("a", 1); s.Fleets = fleets(database).Fleets; return s }(), ""},
	} {
		if got := rollout.Balks(c.way, c.set); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestSharesOfPods(t *testing.T) {
	for _, c := range []struct {
		pods   int32
		weight int
		stays  int32
		want   int32
	}{{4, 0, 0, 0}, {4, 1, 0, 1}, {4, 50, 0, 2}, {4, 99, 0, 3}, {4, 100, 0, 4}, {1, 10, 0, 1}, {0, 50, 0, 0}, {4, 75, 3, 1}, {4, 100, 3, 1}, {2, 50, 3, 0}} {
		if got := (rollout.Share{Weight: c.weight, Stays: c.stays}).Of(c.pods); got != c.want {
			t.Errorf("%d %% of %d pods, of which %d stay: %d, want %d", c.weight, c.pods, c.stays, got, c.want)
		}
	}
}
