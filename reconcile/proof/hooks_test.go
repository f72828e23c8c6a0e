package proof_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"towpath/internal/testkit/cloud"
	"towpath/manifest"
	"towpath/reconcile"
	"towpath/reconcile/rollout"
)

// hooksOf a version of a target come beside its manifests: Jobs, and now and then something that only has to be there.
func hooksOf(r *rand.Rand, space string) (hooks []rollout.Hook) {
	if r.IntN(10) < 6 {
		return nil
	}
	for i := range 1 + r.IntN(3) {
		kind, group := "Job", "batch"
		if r.IntN(5) == 0 {
			kind, group = "ConfigMap", ""
		}
		h := rollout.Hook{Key: key(group, kind, space, []string{"migrate", "seed", "warm"}[i]), Hook: manifest.Hook{Weight: r.IntN(3) - 1}}
		for _, event := range []string{"pre-install", "pre-upgrade", "pre-rollback", "post-install", "post-upgrade", "post-rollback"} {
			if r.IntN(2) == 0 {
				h.Events = append(h.Events, event)
			}
		}
		if r.IntN(10) > 0 {
			h.Policies = append(h.Policies, "before-hook-creation")
		}
		for _, policy := range []string{"hook-succeeded", "hook-failed"} {
			if r.IntN(3) == 0 {
				h.Policies = append(h.Policies, policy)
			}
		}
		hooks = append(hooks, h)
	}
	slices.SortStableFunc(hooks, func(a, b rollout.Hook) int { return a.Weight - b.Weight })
	return hooks
}

// fateOfHook is how the Job of a hook does.
func fateOfHook(r *rand.Rand) cloud.Pods {
	fate := cloud.Pods{After: time.Duration(r.IntN(240)) * time.Second}
	switch r.IntN(10) {
	case 0:
		fate.Breaks = "exit code 3"
	case 1:
		fate.Never = "it hangs"
	}
	return fate
}

// hooksOn is those hooks of a target that its way from here to the end has to run at an event: "pre" or "post".
func (j *judge) hooksOn(t rollout.Target, when string) (purpose string, hooks []rollout.Hook) {
	event := when + "-upgrade"
	switch {
	case t.Base == nil:
		event = when + "-install"
	case t.Pins != nil && len(t.Skip) == 0:
		event = when + "-rollback"
	}
	for _, h := range j.house.sets[t.Manifests].Hooks {
		if h.On(event) {
			hooks = append(hooks, h)
		}
	}
	return t.Deployment + " " + event, hooks
}

// runOf is the run of a hook for a purpose; nil: it has not run.
func runOf(c *cloud.Cluster, lane, purpose string, key manifest.Key) *cloud.Run {
	for _, run := range c.Runs() {
		if run.Lane == lane && run.For == purpose && run.Key == key {
			return run
		}
	}
	return nil
}

// undone is a hook that has not done its work at an event; nil: all have.
func (j *judge) undone(w *watched, t rollout.Target, when string) *rollout.Hook {
	purpose, hooks := j.hooksOn(t, when)
	for i, h := range hooks {
		if run := runOf(j.house.cloud.Cluster(t.Account), w.name, purpose, h.Key); run == nil || !run.Done {
			return &hooks[i]
		}
	}
	return nil
}

// hooked holds that a hook is made once for a deployment and an event, in its turn, alone, and that what comes after it is healthy by then.
func (j *judge) hooked(w *watched, c cloud.Change) {
	t := &w.target
	when := "pre"
	if t.Phase == rollout.Concluding {
		when = "post"
	}
	purpose, hooks := j.hooksOn(*t, when)
	if t.Phase != rollout.Hooking && t.Phase != rollout.Concluding || c.Was != purpose {
		j.wrongly("%s in %s: hook %s is made for %q, and it is time for %q", w.name, t.Phase, c.Key, c.Was, purpose)
		return
	}
	for _, run := range c.Cluster.Runs() {
		switch {
		case run.Lane != w.name:
		case run.Works && (run.There || run.Key == c.Key): // what was ended has its time to stop
			j.wrongly("%s in %s: hook %s is made while %s, made for %q, still works", w.name, t.Phase, c.Key, run.Key, run.For)
		case run.Key == c.Key && run.For == purpose:
			j.wrongly("%s in %s: hook %s is made a second time for %q", w.name, t.Phase, c.Key, purpose)
		}
	}
	i := slices.IndexFunc(hooks, func(h rollout.Hook) bool { return h.Key == c.Key })
	for _, h := range hooks[:max(i, 0)] {
		if run := runOf(c.Cluster, w.name, purpose, h.Key); run == nil || !run.Done {
			j.wrongly("%s in %s: hook %s is made before %s has done its work", w.name, t.Phase, c.Key, h.Key)
		} else if !run.There && c.Cluster.Object(h.Key) == nil {
			j.wrongly("%s in %s: hook %s is made, and %s, which came before it, is gone already", w.name, t.Phase, c.Key, h.Key)
		}
	}
	if when == "post" {
		j.carries(w, c)
	}
}

// carries holds that the new revisions have all their pods, ready, when a hook that comes after is made.
func (j *judge) carries(w *watched, c cloud.Change) {
	for _, full := range w.target.Full {
		if o := c.Cluster.Object(full.Key); o == nil || o.Proved < full.Count {
			j.wrongly("%s in %s: hook %s is made before the %d pods of %s were proved ready", w.name, w.target.Phase, c.Key, full.Count, full.Key)
		}
	}
}

// prepared holds that nothing is touched before the hooks that come first have done their work.
func (j *judge) prepared(w *watched, c cloud.Change) {
	if c.Kind == "adopt" || w.target.Phase == rollout.Reinstating {
		return // what is taken over runs on, and is given back
	}
	if h := j.undone(w, w.target, "pre"); h != nil {
		j.wrongly("%s in %s: %s of %s before hook %s has done its work", w.name, w.target.Phase, c.Kind, c.Key, h.Key)
	}
}

// dismissed holds that a hook which has done its work goes only when its policy says so.
func (j *judge) dismissed(w *watched, c cloud.Change) {
	t := &w.target
	run := c.Cluster.Object(c.Key).Run
	if t.Ending != "" || !strings.HasPrefix(run.For, t.Deployment+" ") {
		return // it is ended with its deployment, or gives way to the next one
	}
	if run.Done && !run.Goes("hook-succeeded") || run.Failed != "" && !run.Goes("hook-failed") {
		if next := slices.ContainsFunc(j.house.sets[t.Manifests].Hooks, func(h rollout.Hook) bool { return h.Key == c.Key && h.Goes("before-hook-creation") }); !next || t.Phase != rollout.Concluding {
			j.wrongly("%s in %s: hook %s (%s) is removed against its policies: %s", w.name, t.Phase, c.Key, run.For, strings.Join(run.Policies, ", "))
		}
	}
}

// concluded holds, when a target leaves a phase of hooks or ends, that they have done their work, and that what is to go is gone.
func (j *judge) concluded(w *watched, was, t rollout.Target) {
	if was.Phase == rollout.Concluding && t.Phase != rollout.Concluding && !backwards(t.Phase) && !t.State.Final() {
		if h := j.undone(w, t, "post"); h != nil {
			j.wrongly("%s of #%d goes on although hook %s has not done its work", w.name, t.Number, h.Key)
		}
	}
	left := was.Phase == rollout.Hooking || was.Phase == rollout.Concluding
	if !left || was.Phase == t.Phase {
		return
	}
	for _, run := range j.house.cloud.Cluster(t.Account).Runs() {
		switch {
		case run.Lane != w.name || !strings.HasPrefix(run.For, t.Deployment+" ") || !run.There || strings.Contains(t.Why, "hook "+run.Key.String()+" runs on"):
		case run.Works:
			j.wrongly("%s of #%d leaves %s for %s, and hook %s works on: %s", w.name, t.Number, was.Phase, t.Phase, run.Key, t.Why)
		case run.Done && run.Goes("hook-succeeded"), run.Failed != "" && run.Goes("hook-failed") && strings.Contains(t.Why, run.Failed):
			j.wrongly("%s of #%d leaves %s for %s, and hook %s is still there (%s)", w.name, t.Number, was.Phase, t.Phase, run.Key, strings.Join(run.Policies, ", "))
		}
	}
}

// believing sees each hook done as soon as it is made.
func believing(look rollout.Look) rollout.Look {
	for i, l := range look.Objects {
		if l.Key.Kind == "Job" && !l.Missing {
			look.Objects[i].Health = rollout.Healthy
		}
	}
	return look
}

// repeats makes each hook as if for another deployment.
type repeats struct{ reconcile.Cluster }

func (r repeats) RunHook(ctx context.Context, id rollout.Identity, objects []manifest.Object, a rollout.Action) rollout.Outcome {
	a.Event += "-again"
	r.Cluster.RunHook(ctx, id, objects, a)
	a.Event = strings.TrimSuffix(a.Event, "-again")
	return r.Cluster.RunHook(ctx, id, objects, a)
}

// keeps removes no hook.
type keeps struct{ reconcile.Cluster }

func (k keeps) Remove(ctx context.Context, id rollout.Identity, keys []manifest.Key) rollout.Outcome {
	return k.Cluster.Remove(ctx, id, slices.DeleteFunc(slices.Clone(keys), func(key manifest.Key) bool { return key.Kind == "Job" }))
}
