package rollout_test

import (
	"slices"
	"strings"
	"testing"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// job is a Job that is a hook.
func job(name string, weight int, policies []string, events ...string) rollout.Hook {
	return rollout.Hook{Key: manifest.Key{Group: "batch", Kind: "Job", Namespace: "shop", Name: name}, Hook: manifest.Hook{Events: events, Weight: weight, Policies: policies}}
}

// hooked is a model whose version b has hooks, beside version a that runs, or alone.
func hooked(t *testing.T, first bool, hooks ...rollout.Hook) *model {
	m := newModel()
	if !first {
		m.deploy(1, "m1", set("a", 2, webService)).run(t)
	}
	b := set("b", 2, webService)
	b.Hooks = hooks
	m.deploy(2, "m2", b)
	m.acts = nil
	return m
}

// order is what was done of hooks and manifests, in its order.
func (m *model) order() (all []string) {
	for _, a := range m.acts {
		switch a.Kind {
		case rollout.RunHook:
			all = append(all, a.Event+" "+a.Only[0].Name)
		case rollout.Apply:
			all = append(all, "apply")
		case rollout.Remove:
			for _, key := range a.Remove {
				all = append(all, "remove "+key.Name)
			}
		}
	}
	return all
}

func TestHooksRunInTheirOrderAroundTheRollout(t *testing.T) {
	before, succeeded := []string{"before-hook-creation"}, []string{"hook-succeeded"}
	claim := rollout.Hook{Key: webClaim, Hook: manifest.Hook{Events: []string{"pre-upgrade"}, Weight: -10, Policies: succeeded}} // it may hold data: it stays
	hooks := []rollout.Hook{claim, job("account", -9, succeeded, "pre-upgrade"), job("first", -5, before, "pre-install", "pre-upgrade"), job("install", 0, before, "pre-install"), job("upgrade", 0, succeeded, "pre-upgrade"),
		job("back", 0, before, "pre-rollback"), job("after", 0, before, "post-upgrade", "post-install")}
	for _, c := range []struct {
		name  string
		first bool
		back  bool
		want  []string
	}{
		{"the first time", true, false, []string{"pre-install first", "pre-install install", "apply", "post-install after"}},
		{"later", false, false, []string{"pre-upgrade web", "pre-upgrade account", "pre-upgrade first", "pre-upgrade upgrade", "remove upgrade", "remove account", "apply", "post-upgrade after"}},
		{"a person goes back", false, true, []string{"pre-rollback back", "apply"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := hooked(t, c.first, hooks...)
			if c.back {
				m.target.Pins = &rollout.Pin{}
			}
			m.run(t)
			expect(t, m, rollout.Succeeded, "", map[string]int32{"web-b": 2})
			if got := m.order(); !slices.Equal(got, c.want) {
				t.Errorf("it did %q\nwant   %q", got, c.want)
			}
		})
	}
}

func TestAHookThatFailsEndsTheStep(t *testing.T) {
	for _, c := range []struct {
		name  string
		event string
		goes  bool
		state rollout.State
		why   string
		want  []string
	}{
		{"before", "pre-upgrade", false, rollout.Failed, "hook Job.batch shop/migrate: exit code 3; it said last: no such table", []string{"pre-upgrade migrate"}},
		{"before, and goes", "pre-upgrade", true, rollout.Failed, "hook Job.batch shop/migrate: exit code 3; it said last: no such table", []string{"pre-upgrade migrate", "remove migrate"}},
		{"after", "post-upgrade", false, rollout.RolledBack, "hook Job.batch shop/migrate: exit code 3; it said last: no such table; held at #1", []string{"apply", "post-upgrade migrate", "apply"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			policies := []string{"before-hook-creation"}
			if c.goes {
				policies = append(policies, "hook-failed")
			}
			h := job("migrate", 0, policies, c.event)
			m := hooked(t, false, h)
			m.broken = map[manifest.Key]string{h.Key: "exit code 3; it said last: no such table"}
			m.run(t)
			expect(t, m, c.state, c.why, map[string]int32{"web-a": 2})
			if got := m.order(); !slices.Equal(got, c.want) {
				t.Errorf("it did %q\nwant   %q", got, c.want)
			}
		})
	}
}

func TestAHookThatIsNeverDoneIsWaitedForInItsTime(t *testing.T) {
	h := job("migrate", 0, nil, "pre-upgrade")
	m := hooked(t, false, h)
	m.unfinished = map[manifest.Key]bool{h.Key: true}
	m.until(t, rollout.WaitHealth)
	if w := m.target.Waits[0]; w.Needs != "hook Job.batch shop/migrate: 0 of 1 completions" || m.target.State != rollout.Running {
		t.Errorf("%s: %+v", m.target.State, w)
	}
	m.run(t)
	expect(t, m, rollout.Failed, "hook Job.batch shop/migrate is not done within 10m0s: 0 of 1 completions", map[string]int32{"web-a": 2})
}

func TestAHookThatRunsIsEndedWithItsDeployment(t *testing.T) {
	cancelled := func(m *model) { m.facts.Cancel = &rollout.Request{By: "ann", Reason: "wrong version"} }
	replaced := func(m *model) { m.facts.ReplacedBy = 3 }
	forbidden := &rollout.Failure{Class: rollout.Refused, Text: "jobs.batch \"migrate\" is forbidden"}
	before, after := []string{"pre-upgrade migrate", "remove migrate"}, []string{"apply", "post-upgrade migrate", "remove migrate", "apply"}
	for _, c := range []struct {
		name    string
		event   string
		stop    func(*model)
		refused *rollout.Failure
		why     string
		want    []string
	}{
		{"cancelled before", "pre-upgrade", cancelled, nil, "cancelled by ann: wrong version", before},
		{"cancelled after", "post-upgrade", cancelled, nil, "cancelled by ann: wrong version; held at #1", after},
		{"replaced before", "pre-upgrade", replaced, nil, "replaced by #3", before},
		{"replaced after", "post-upgrade", replaced, nil, "replaced by #3", after[:3]},
		{"cancelled before, after one that goes", "pre-upgrade", cancelled, nil, "cancelled by ann: wrong version", []string{"pre-upgrade account", "pre-upgrade migrate", "remove migrate", "remove account"}},
		{"which is forbidden", "pre-upgrade", cancelled, forbidden,
			"cancelled by ann: wrong version; hook Job.batch shop/migrate runs on: jobs.batch \"migrate\" is forbidden", before[:1]},
		{"which meets trouble", "post-upgrade", cancelled, &rollout.Failure{Class: rollout.Trouble, Text: "connection reset"}, "cancelled by ann: wrong version; held at #1",
			[]string{"apply", "post-upgrade migrate", "remove migrate", "apply"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := job("migrate", 0, nil, c.event)
			hooks := []rollout.Hook{h, job("next", 1, nil, c.event)}
			if c.want[0] == "pre-upgrade account" {
				hooks = append([]rollout.Hook{job("account", -1, []string{"hook-succeeded"}, c.event)}, hooks...)
			}
			m := hooked(t, false, hooks...)
			m.unfinished = map[manifest.Key]bool{h.Key: true}
			m.until(t, rollout.WaitHealth)
			c.stop(m)
			m.trouble = func(a rollout.Action) *rollout.Failure {
				failure := c.refused
				if a.Kind != rollout.Remove || failure == nil {
					return nil
				}
				if failure.Class == rollout.Trouble {
					c.refused = nil // once
				}
				return failure
			}
			m.run(t)
			expect(t, m, rollout.Cancelled, c.why, map[string]int32{"web-a": 2})
			if got := m.order(); !slices.Equal(got, c.want) {
				t.Errorf("it did %q\nwant   %q", got, c.want)
			}
		})
	}
}

// A process may die, or an answer be lost, while hooks are removed: what a person wishes then waits until they are.
func TestHooksThatAreToGoGoBeforeTheirDeploymentStops(t *testing.T) {
	m := hooked(t, false, job("migrate", 0, []string{"hook-succeeded"}, "pre-upgrade"))
	lost := true
	m.trouble = func(a rollout.Action) *rollout.Failure {
		if a.Kind != rollout.Remove || !lost {
			return nil
		}
		lost = false
		m.facts.Cancel = &rollout.Request{By: "ann"}
		return &rollout.Failure{Class: rollout.Trouble, Text: "connection reset"}
	}
	m.run(t)
	expect(t, m, rollout.Cancelled, "cancelled by ann", map[string]int32{"web-a": 2})
	if got := m.order(); !slices.Equal(got, []string{"pre-upgrade migrate", "remove migrate"}) {
		t.Errorf("it did %q", got)
	}
}

func TestAHookIsGivenUpWithWhatItLeaves(t *testing.T) {
	reset := &rollout.Failure{Class: rollout.Trouble, Text: "connection reset"}
	forbidden := &rollout.Failure{Class: rollout.Refused, Text: "jobs.batch is forbidden"}
	for _, c := range []struct {
		name   string
		fails  func(rollout.Action) *rollout.Failure
		broken string // the hook "migrate"
		unread bool   // nothing can be read of it
		why    string
		want   []string
	}{
		{"what it made before goes", nil, "exit code 3", false, "hook Job.batch shop/migrate: exit code 3", []string{"pre-upgrade account", "pre-upgrade migrate", "remove account"}},
		{"it may not be made", func(a rollout.Action) *rollout.Failure {
			if a.Kind == rollout.RunHook && a.Only[0].Name == "migrate" {
				return forbidden
			}
			return nil
		}, "", false, "jobs.batch is forbidden", []string{"pre-upgrade account", "remove account"}},
		{"its answer is always lost", func(a rollout.Action) *rollout.Failure {
			if a.Kind == rollout.RunHook && a.Only[0].Name == "migrate" {
				return reset
			}
			return nil
		}, "", false, "connection reset", []string{"pre-upgrade account", "remove migrate", "remove account"}},
		{"it cannot be read", nil, "", true, "hook Job.batch shop/migrate is not known to be done: connection reset",
			[]string{"pre-upgrade account", "pre-upgrade migrate", "remove migrate", "remove account"}},
		{"it may not be removed", func(a rollout.Action) *rollout.Failure {
			if a.Kind == rollout.Remove {
				return forbidden
			}
			return nil
		}, "", true, "hook Job.batch shop/migrate is not known to be done: connection reset; hook Job.batch shop/migrate runs on: jobs.batch is forbidden",
			[]string{"pre-upgrade account", "pre-upgrade migrate"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			migrate := job("migrate", 0, nil, "pre-upgrade")
			m := hooked(t, false, job("account", -1, []string{"hook-succeeded"}, "pre-upgrade"), migrate)
			m.trouble = c.fails
			if c.broken != "" {
				m.broken = map[manifest.Key]string{migrate.Key: c.broken}
			}
			if c.unread {
				m.lost = map[manifest.Key]*rollout.Failure{migrate.Key: reset}
			}
			m.run(t)
			expect(t, m, rollout.Failed, c.why, map[string]int32{"web-a": 2})
			if got := m.order(); !slices.Equal(got, c.want) {
				t.Errorf("it did %q\nwant   %q", got, c.want)
			}
		})
	}
}

func TestHooksThatHaveSucceededAndCannotBeRemovedEndTheStep(t *testing.T) {
	m := hooked(t, false, job("migrate", 0, []string{"hook-succeeded"}, "pre-upgrade"))
	m.trouble = func(a rollout.Action) *rollout.Failure {
		if a.Kind == rollout.Remove {
			return &rollout.Failure{Class: rollout.Refused, Text: "jobs.batch is forbidden"}
		}
		return nil
	}
	m.run(t)
	expect(t, m, rollout.Failed, "its hooks are done, and could not be removed: jobs.batch is forbidden", map[string]int32{"web-a": 2})
}

func TestAHookThatMayHaveBeenMadeIsEnded(t *testing.T) {
	m := hooked(t, false, job("migrate", 0, nil, "pre-upgrade"))
	m.trouble = func(a rollout.Action) *rollout.Failure { // its answer is lost, and somebody has had enough
		if a.Kind != rollout.RunHook {
			return nil
		}
		m.facts.Cancel = &rollout.Request{By: "ann"}
		return &rollout.Failure{Class: rollout.Trouble, Text: "connection reset"}
	}
	m.run(t)
	expect(t, m, rollout.Cancelled, "cancelled by ann", map[string]int32{"web-a": 2})
	if got := m.order(); !slices.Equal(got, []string{"remove migrate"}) {
		t.Errorf("it did %q", got)
	}
}

func TestASetOfHooksIsReadFromManifests(t *testing.T) {
	object := func(kind, name, annotations string) manifest.Object {
		group := map[string]string{"Job": "batch/v1", "ConfigMap": "v1"}[kind]
		o, err := manifest.New([]byte(`{"apiVersion":"`+group+`","kind":"`+kind+`","metadata":{"name":"`+name+`","annotations":{`+annotations+`}}}`), "m.yaml")
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	hooks := rollout.HooksFrom([]manifest.Object{object("ConfigMap", "plain", ""), object("Job", "late", `"helm.sh/hook":"post-install, Post-Upgrade","helm.sh/hook-weight":"5"`),
		object("Job", "b", `"helm.sh/hook":"pre-install"`), object("Job", "a", `"helm.sh/hook":"pre-install","helm.sh/hook-delete-policy":"hook-succeeded,hook-failed"`),
		object("ConfigMap", "settings", `"helm.sh/hook":"pre-install","helm.sh/hook-weight":"-1"`)})
	var got []string
	for _, h := range hooks {
		got = append(got, h.Key.Name+" "+strings.Join(h.Events, "+")+" "+strings.Join(h.Policies, "+"))
	}
	want := []string{"settings pre-install before-hook-creation", "a pre-install hook-succeeded+hook-failed", "b pre-install before-hook-creation", "late post-install+post-upgrade before-hook-creation"}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
}
