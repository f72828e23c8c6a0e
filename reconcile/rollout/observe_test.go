package rollout_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// lost is a lane that runs release m1 of a store that was lost; what is asked for now is to be found out.
func lost(t *testing.T, number int, manifests string, asked rollout.Set) *model {
	m := newModel().deploy(1, "m1", set("a", 3, webService)).run(t)
	for _, o := range m.objects {
		o.live.Number, o.live.Commit = 1, "abcdef0123"
	}
	m.good, m.inventory, m.acts = nil, nil, nil
	m.survey.Claims = []manifest.Key{webDeployment, webService}
	m.deploy(number, manifests, asked)
	m.target.Observe, m.target.Phase = true, rollout.Observing
	return m
}

func TestWhatRunsAsItIsAskedForIsAdoptedAndNothingIsTouched(t *testing.T) {
	m := lost(t, 2, "m1", set("a", 3, webService)).run(t)
	expect(t, m, rollout.Succeeded, "it runs as it is asked for; nothing was touched", map[string]int32{"web-a": 3})
	if len(m.acts) > 0 {
		t.Errorf("it acted: %+v", m.acts)
	}
	if m.good == nil || m.good.Manifests != "m1" || !slices.Equal(m.inventory, m.survey.Claims) {
		t.Errorf("good is %+v, the inventory %v", m.good, m.inventory)
	}
}

func TestWhatDiffersWaitsAsItStandsForAPerson(t *testing.T) {
	for name, arrange := range map[string]func(*model){
		"ReplicaSet.apps shop/web-a of #1 (commit abcdef0) has pods: 3":                          func(*model) {},
		"Service shop/web differs at /spec/ports, changed by kubectl at 2026-03-02 09:00:00 UTC": func(m *model) { m.drift() },
		"ConfigMap shop/web is no longer asked for":                                              func(m *model) { m.survey.Claims = append(m.survey.Claims, webSettings) },
		"Deployment.apps shop/web is there and not managed; ": func(m *model) { // somebody made it, and it took the revisions
			m.put(webDeployment).live.Owner = ""
			m.survey.Claims = nil
		},
		"(the same commit gives other names now: is keyFile another than before?)": func(m *model) { m.target.Commit = "abcdef0123" },
		"Deployment.apps shop/web is there and not managed":                        func(m *model) { m.put(webDeployment).live.Owner = "" },
		"ReplicaSet.apps shop/web-b is not healthy: ErrImagePull":                  func(m *model) { m.half("ErrImagePull") },
		"it could not be compared: pods is forbidden": func(m *model) {
			m.survey = rollout.Look{Failure: &rollout.Failure{Class: rollout.Refused, Text: "pods is forbidden"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := lost(t, 2, "m2", set("b", 3, webService))
			arrange(m)
			before := m.pods()
			m.run(t)
			m.now = m.now.Add(1000 * time.Hour)
			m.run(t)
			if m.target.State != rollout.AwaitingApproval || len(m.acts) > 0 {
				t.Fatalf("%s, acts %+v", m.target.State, m.acts)
			}
			if needs := m.target.Waits[0].Needs; !strings.HasPrefix(needs, "a person to approve that it becomes what is asked for; found was: ") || !strings.Contains(needs, name) {
				t.Errorf("it waits for %s", needs)
			}
			if after := m.pods(); len(after) != len(before) || after["web-a"] != 3 {
				t.Errorf("pods were %v and are %v", before, after)
			}
		})
	}
}

func (m *model) drift() {
	m.survey.Drifts = []rollout.Drift{{Key: webService, Of: webService, Fields: []string{"/spec/ports"}, By: "kubectl", At: m.now}}
}

// half makes a rollout to b that is half done.
func (m *model) half(why string) {
	m.sick[revision("b")] = why
	o := m.put(revision("b"))
	o.live.Workload, o.live.Hash, o.live.Number = "web", "b", 2
	m.scale(o, 1)
}

func TestWhatAPersonApprovesBecomesWhatIsAskedForAndCanGoBack(t *testing.T) {
	m := lost(t, 2, "m2", set("b", 3, webService))
	m.survey.Ran, m.survey.RanSet = &rollout.Release{Deployment: "d2", Number: 2, Commit: "abcdef0123", Manifests: "m1"}, m.sets["m1"]
	m.run(t)
	if m.target.Ran != "abcdef0123" || m.good == nil || m.good.Manifests != "m1" {
		t.Fatalf("it ran %q, good is %+v", m.target.Ran, m.good)
	}
	m.sick[revision("b")] = "ErrImagePull"
	m.approve("found")
	m.run(t)
	expect(t, m, rollout.RolledBack, "not ready within 10m0s: ReplicaSet.apps shop/web-b: ErrImagePull; held at #2", map[string]int32{"web-a": 3})
}

func (m *model) approve(gate string) {
	m.facts.Words = append(m.facts.Words, rollout.Word{Target: "prod", Gate: gate, Digest: m.target.Digest, Verb: rollout.Approve, By: "ann", At: m.now})
}

func TestWhatAPersonRejectsStaysAsItWasFound(t *testing.T) {
	m := lost(t, 2, "m2", set("b", 3, webService)).run(t)
	m.facts.Words = []rollout.Word{{Target: "prod", Gate: "found", Digest: m.target.Digest, Verb: rollout.Reject, By: "ann", Reason: "b is bad"}}
	m.run(t)
	expect(t, m, rollout.Cancelled, "left as it was found: ann rejected the change: b is bad (ReplicaSet.apps shop/web-a of #1 (commit abcdef0) has pods: 3)", map[string]int32{"web-a": 3})
	if len(m.target.Full) != 1 || m.target.Full[0].Key != revision("a") || m.target.Full[0].Count != 3 {
		t.Errorf("it is held to %+v", m.target.Full)
	}
}

func TestWhatCannotBeSeenYetIsWaitedFor(t *testing.T) {
	m := lost(t, 2, "m1", set("a", 3, webService))
	claims := m.survey.Claims
	m.survey = rollout.Look{Failure: &rollout.Failure{Class: rollout.Away, Text: "no agent prod is connected"}}
	m.step()
	m.step()
	if m.target.Phase != rollout.Comparing || len(m.target.Waits) != 1 || m.target.Waits[0].Needs != "the cluster of prod to answer: no agent prod is connected" {
		t.Fatalf("%s waits for %+v", m.target.Phase, m.target.Waits)
	}
	m.survey = rollout.Look{Claims: claims}
	m.run(t)
	expect(t, m, rollout.Succeeded, "it runs as it is asked for; nothing was touched", map[string]int32{"web-a": 3})
}

func TestWhatIsNotThereAtAllIsSaidSo(t *testing.T) {
	m := lost(t, 2, "m2", set("b", 3, webService))
	m.objects, m.survey.Claims = map[manifest.Key]*object{}, nil
	m.survey.Drifts = []rollout.Drift{{Key: webService, Of: webService, Missing: true}}
	m.run(t)
	if len(m.target.Differs) != 1 || m.target.Differs[0] != "nothing of it is there" {
		t.Errorf("it differs so: %q", m.target.Differs)
	}
}

func TestWhatIsChangedOverAndOverIsToldLessAndLess(t *testing.T) {
	now, told := noon, 0
	var d rollout.Drift
	for range 24 * 3600 { // each second of a day
		if now = now.Add(time.Second); d.Tells(now) {
			d.Told, d.Times, told = now, d.Times+1, told+1
		}
	}
	if told < 10 || told > 50 {
		t.Errorf("it is told %d times a day", told)
	}
}
