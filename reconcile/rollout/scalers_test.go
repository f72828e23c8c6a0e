package rollout_test

import (
	"testing"
	"time"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

var webScaler = manifest.Key{Group: "autoscaling", Kind: "HorizontalPodAutoscaler", Namespace: "shop", Name: "web"}

// scaled is a set whose pods an autoscaler counts.
func scaled(hash string, replicas int32) rollout.Set {
	s := set(hash, replicas, webService, webScaler)
	s.Scalers = []rollout.Scaler{{Key: webScaler, Workload: webDeployment}}
	return s
}

// growing is a lane on which an autoscaler made seven pods of the two that its manifest says, and version b is about to be rolled out.
func growing(t testing.TB, steps ...rollout.Step) *model {
	m := newModel().deploy(1, "m1", scaled("a", 2)).run(t)
	m.scale(m.objects[revision("a")], 7)
	m.deploy(2, "m2", scaled("b", 2))
	m.target.Canary = steps
	return m
}

func TestAnAutoscalerRestsWhileRevisionsChangePlaces(t *testing.T) {
	m := growing(t, weight(50), approval())
	if at := m.objects[webScaler].aimed; at != revision("a") {
		t.Fatalf("between rollouts it scales %s", at)
	}
	since := len(m.acts)
	m.until(t, rollout.WaitApproval)
	expectPods(t, m, map[string]int32{"web-a": 3, "web-b": 4})
	if at := m.objects[webScaler].aimed; at != webDeployment || m.acts[since].Kind != rollout.Shift || len(m.acts[since].Aim) != 1 {
		t.Errorf("in the middle it scales %s; the first that was done is %+v", at, m.acts[since])
	}
	m.say(rollout.Approve, "canary.steps[1]", "ann")
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-b": 7})
	if at := m.objects[webScaler].aimed; at != revision("b") {
		t.Errorf("at the end it scales %s", at)
	}
}

func TestAnAutoscalerGoesBackWithItsPods(t *testing.T) {
	for name, stop := range map[string]func(*model){
		"rejected": func(m *model) { m.say(rollout.Reject, "canary.steps[1]", "ann") },
		"replaced": func(m *model) { m.facts.ReplacedBy = 3 },
	} {
		t.Run(name, func(t *testing.T) {
			m := growing(t, weight(50), approval()).until(t, rollout.WaitApproval)
			stop(m)
			m.run(t)
			expectPods(t, m, map[string]int32{"web-a": 7})
			if at := m.objects[webScaler].aimed; at != revision("a") {
				t.Errorf("at the end it scales %s", at)
			}
		})
	}
}

func TestAnAutoscalerOfAStatefulSetRestsWhileItTakesTheSteps(t *testing.T) {
	s := fleets(database)
	s.Objects, s.Scalers = append(s.Objects, webScaler), []rollout.Scaler{{Key: webScaler, Workload: database}}
	for name, c := range map[string]struct {
		workloads []string
		verb      rollout.Verb
		rests     string // what it scales while a person is waited for
	}{
		"approved":                {[]string{"StatefulSet"}, rollout.Approve, "db-at-rest"},
		"rejected":                {[]string{"StatefulSet"}, rollout.Reject, "db-at-rest"},
		"one that takes no steps": {nil, rollout.Approve, "db"},
	} {
		t.Run(name, func(t *testing.T) {
			m := herd(t, s, weight(50), approval())
			m.target.Workloads = c.workloads
			m.until(t, rollout.WaitApproval)
			if at := m.objects[webScaler].aimed; at.Name != c.rests {
				t.Errorf("in the middle it scales %s", at)
			}
			m.say(c.verb, "canary.steps[1]", "ann")
			m.run(t)
			if at := m.objects[webScaler].aimed; at != database {
				t.Errorf("at the end, %s, it scales %s", m.target.State, at)
			}
		})
	}
}

func TestAnAutoscalerScalesTheDeploymentObjectThatIsPutBack(t *testing.T) {
	m := growing(t, weight(50), pause(time.Minute))
	m.target.KeepDeployment = true
	m.run(t)
	expect(t, m, rollout.Succeeded, "", map[string]int32{"web-b": 7})
	if at := m.objects[webScaler].aimed; at != webDeployment {
		t.Errorf("at the end it scales %s", at)
	}
}
