package rollout_test

import (
	"testing"
	"time"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// keeping is growing where the file keeps Deployment objects: that of version a is there, and scaled itself. A ConfigMap left the manifests.
func keeping(t testing.TB, steps ...rollout.Step) *model {
	a := scaled("a", 2)
	a.Objects = append(a.Objects, webSettings)
	m := newModel().deploy(1, "m1", a)
	m.target.KeepDeployment = true
	m.run(t)
	m.scale(m.objects[revision("a")], 7)
	m.deploy(2, "m2", scaled("b", 2))
	m.target.KeepDeployment, m.target.Canary = true, steps
	m.events = nil
	return m
}

// refuses lets what a test picks be refused by the cluster.
func (m *model) refuses(which func(rollout.Action) bool) {
	m.trouble = func(a rollout.Action) *rollout.Failure {
		if which(a) {
			return &rollout.Failure{Class: rollout.Refused, Text: "denied by admission"}
		}
		return nil
	}
}

func of(kind rollout.ActionKind) func(rollout.Action) bool {
	return func(a rollout.Action) bool { return a.Kind == kind }
}

func TestAKeptDeploymentObjectAndItsAutoscalerAreWholeAtEachEnd(t *testing.T) {
	namespace := manifest.Key{Kind: "Namespace", Name: "shop"}
	grows := func(m *model) { m.inventory = append(m.inventory, namespace) } // what may not go without a person's word
	for _, c := range []struct {
		name  string
		steps []rollout.Step
		does  func(*testing.T, *model)
		state rollout.State
		why   string
		runs  string
		at    manifest.Key // what the autoscaler scales in the end
	}{
		{"all goes well", nil, func(*testing.T, *model) {}, rollout.Succeeded, "", "web-b", webDeployment},
		{"removals are rejected", []rollout.Step{pause(time.Minute)}, func(t *testing.T, m *model) {
			m.until(t, rollout.WaitPause)
			grows(m)
			m.until(t, rollout.WaitApproval)
			if at := m.objects[webScaler].aimed; at != revision("b") {
				t.Errorf("while a person is waited for, the autoscaler scales %s", at)
			}
			m.say(rollout.Reject, "prune", "ann")
		}, rollout.Succeeded, "what it no longer holds stays: ann rejected its removal", "web-b", webDeployment},
		{"removals are left to the next one", []rollout.Step{pause(time.Minute)}, func(t *testing.T, m *model) {
			m.until(t, rollout.WaitPause)
			grows(m)
			m.until(t, rollout.WaitApproval)
			m.facts.ReplacedBy = 3
		}, rollout.Succeeded, "what it no longer holds is left to #3 to remove", "web-b", webDeployment},
		{"removals fail", nil, func(_ *testing.T, m *model) { m.refuses(of(rollout.Remove)) },
			rollout.Failed, "denied by admission; what was rolled out stays, and so does what was to go", "web-b", webDeployment},
		{"autoscalers may not be aimed", nil, func(_ *testing.T, m *model) {
			m.refuses(func(rollout.Action) bool { return m.target.Phase == rollout.Joining })
		}, rollout.Failed, "denied by admission; what was rolled out stays, and so does what was to go", "web-b", webDeployment},
		{"it cannot be put back", nil, func(_ *testing.T, m *model) { m.refuses(of(rollout.PutBack)) },
			rollout.Failed, "its Deployment objects could not be put back: denied by admission; what was rolled out stays", "web-b", revision("b")},
		{"neither removals nor putting back are allowed", nil, func(_ *testing.T, m *model) {
			m.refuses(func(a rollout.Action) bool { return a.Kind == rollout.Remove || a.Kind == rollout.PutBack })
		}, rollout.Failed, "denied by admission; what was rolled out stays, and so does what was to go; its Deployment objects could not be put back: denied by admission", "web-b", revision("b")},
		{"it goes back", []rollout.Step{weight(50), approval()}, func(t *testing.T, m *model) {
			m.until(t, rollout.WaitApproval)
			m.say(rollout.Reject, "canary.steps[1]", "ann")
		}, rollout.RolledBack, "canary.steps[1] was rejected by ann; held at #1", "web-a", webDeployment},
		{"it gives way", []rollout.Step{weight(50), approval()}, func(t *testing.T, m *model) {
			m.until(t, rollout.WaitApproval)
			m.facts.ReplacedBy = 3
		}, rollout.Cancelled, "replaced by #3", "web-a", webDeployment},
		{"it is cancelled before anything is touched", nil, func(_ *testing.T, m *model) {
			m.refuses(func(a rollout.Action) bool {
				if a.Kind == rollout.Adopt {
					m.facts.Cancel = &rollout.Request{By: "ann"}
				}
				return false
			})
		}, rollout.Cancelled, "cancelled by ann", "web-a", webDeployment},
		{"it goes back, and cannot be put back", []rollout.Step{weight(50), approval()}, func(t *testing.T, m *model) {
			m.until(t, rollout.WaitApproval)
			m.say(rollout.Reject, "canary.steps[1]", "ann")
			m.refuses(of(rollout.PutBack))
		}, rollout.RolledBack, "canary.steps[1] was rejected by ann; held at #1; not put back: denied by admission", "web-a", revision("a")},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := keeping(t, c.steps...)
			c.does(t, m)
			m.run(t)
			expect(t, m, c.state, c.why, map[string]int32{c.runs: 7})
			if at := m.objects[webScaler].aimed; at != c.at {
				t.Errorf("the autoscaler scales %s, want %s", at, c.at)
			}
			if there, want := m.objects[webDeployment] != nil, c.at == webDeployment; there != want {
				t.Errorf("the Deployment object is there: %v, want %v", there, want)
			}
		})
	}
}

// A Deployment object that is put back takes the pods of all revisions but its own away: where several run it is for a person to say which.
func TestADeploymentObjectIsNotPutBackAroundOneOfSeveralRevisionsThatRun(t *testing.T) {
	m := keeping(t, weight(50), approval()).until(t, rollout.WaitApproval)
	m.say(rollout.Reject, "canary.steps[1]", "ann")
	m.refuses(func(a rollout.Action) bool {
		return a.Kind == rollout.Apply || a.Kind == rollout.Shift && len(a.Replicas) > 0
	})
	m.run(t)
	expect(t, m, rollout.Failed, "canary.steps[1] was rejected by ann; and going back failed: denied by admission; not put back: pods of 2 revisions of Deployment.apps shop/web run",
		map[string]int32{"web-a": 3, "web-b": 4})
	if m.objects[webDeployment] != nil {
		t.Error("it is there")
	}
}
