package proof_test

import (
	"context"

	"towpath/internal/testkit/cloud"
	"towpath/manifest"
	"towpath/reconcile"
	"towpath/reconcile/rollout"
)

// shared holds that a fleet which takes the steps is given no more than the present share.
func (j *judge) shared(w *watched, c cloud.Change) {
	t := &w.target
	if backwards(t.Phase) || t.State.Final() {
		return
	}
	for _, m := range t.Fleets {
		if m.Key == c.Key && int(c.To) > t.Weight {
			j.wrongly("%s in %s: %s is given %d %% at a weight of %d %%", w.name, t.Phase, c.Key, c.To, t.Weight)
		}
	}
}

// replaced holds that no pod which serves is taken away while one that was replaced does not serve yet, nor when the share is reached.
func (j *judge) replaced(w *watched, c cloud.Change) {
	o := c.Cluster.Object(c.Key)
	pods := o.Fleet.Pods
	if !pods[c.From].Ready {
		return
	}
	missing, made := 0, int32(0)
	for _, p := range pods {
		if p.From == o.From {
			if made++; !p.Ready {
				missing++
			}
		}
	}
	switch share := o.Fleet.Share.Of(int32(len(pods))); {
	case missing > 0:
		j.wrongly("%s in %s: a pod of %s is taken away while %d others are missing: %s", w.name, w.target.Phase, c.Key, missing, o.Fleet.Runs())
	case made >= share:
		j.wrongly("%s in %s: a pod of %s is taken away although its share of %d is there: %s", w.name, w.target.Phase, c.Key, share, o.Fleet.Runs())
	}
}

// rests holds that a target waits at a step only once its fleets have their share, and no more than that beside what they had when it began: a rollout of the
// same manifests that was replaced may have given way before they were back.
func (j *judge) rests(w *watched, was, t rollout.Target) {
	begins := (t.Phase == rollout.Holding || t.Phase == rollout.Applying) && was.Phase != rollout.Holding && was.Phase != rollout.Applying && t.Step <= 1
	if begins {
		w.had = map[manifest.Key]int32{}
	}
	for _, m := range t.Fleets {
		o := j.house.cloud.Cluster(t.Account).Object(m.Key)
		if o == nil {
			continue
		}
		if begins {
			w.had[m.Key] = o.Fleet.Of(t.Manifests)
		}
		if t.Phase != rollout.Pausing || was.Phase == rollout.Pausing {
			continue
		}
		share := rollout.Share{Weight: t.Weight}.Of(int32(len(o.Fleet.Pods)))
		if fresh := o.Fleet.Fresh(t.Manifests); fresh < share || fresh > share+w.had[m.Key] {
			j.wrongly("%s of #%d waits at %d %%, and %s has %d of %d pods of it: %s", w.name, t.Number, t.Weight, m.Key, fresh, share, o.Fleet.Runs())
		}
	}
}

// blind sees a fleet's pods ready as soon as they are made.
func blindly(look rollout.Look) rollout.Look {
	for i, l := range look.Fleets {
		look.Fleets[i].Fresh, look.Fleets[i].Within = l.Replicas, true
	}
	return look
}

// greedy gives fleets all that is asked of them at once.
type greedy struct{ reconcile.Cluster }

func (g greedy) Apply(ctx context.Context, id rollout.Identity, objects []manifest.Object, a rollout.Action) rollout.Outcome {
	a.Share = nil
	return g.Cluster.Apply(ctx, id, objects, a)
}
