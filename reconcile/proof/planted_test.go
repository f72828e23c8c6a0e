package proof_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"towpath/manifest"
	"towpath/reconcile"
	"towpath/reconcile/rollout"
)

// planted is each fault that the judge must find, planted between the runner and what it works with, and a part of the sentence in which it must be told.
var planted = map[string]struct {
	plant func() fault
	told  string
}{
	"a lease is not checked: two runs have one lane": {func() fault {
		return fault{claim: func(h *house, lane int64, l rollout.Lease, err error) (rollout.Lease, error) {
			if !errors.Is(err, rollout.ErrLeased) {
				return l, err
			}
			for _, w := range h.judge.lanes {
				if w.id == lane {
					return rollout.Lease{Lane: lane, Epoch: h.epochs[lane], Until: h.due[lane]}, nil
				}
			}
			return l, err
		}}
	}, "a late writer"},
	"a store takes saves under any lease": {func() fault {
		return fault{save: func(h *house, l rollout.Lease, d rollout.Decision) (rollout.Lease, rollout.Decision) {
			l.Epoch = h.epochs[l.Lane]
			return l, d
		}}
	}, "a late writer"},
	"effects go on after the lease has ended": {func() fault {
		return fault{clusters: func(_ *house, c reconcile.Clusters) reconcile.Clusters { return wrapped{c, endless} }}
	}, "a late writer"},
	"a stale Ready is believed": {func() fault {
		return fault{look: func(_ *house, look rollout.Look) rollout.Look {
			for i := range look.Objects {
				look.Objects[i].Health = rollout.Healthy
			}
			return look
		}}
	}, "are proved ready, which were"},
	"an outcome is saved although the act was not done": {func() fault {
		return fault{clusters: func(_ *house, c reconcile.Clusters) reconcile.Clusters { return wrapped{c, forgetful} }}
	}, ""},
	"traffic turns before the new version is ready": {func() fault {
		return fault{clusters: func(h *house, c reconcile.Clusters) reconcile.Clusters {
			return wrapped{c, func(c reconcile.Cluster) reconcile.Cluster { return hasty{c, h} }}
		}}
	}, "sends traffic to"},
	"traffic is divided before the new version is ready": {func() fault {
		return fault{clusters: func(_ *house, c reconcile.Clusters) reconcile.Clusters {
			return wrapped{c, func(c reconcile.Cluster) reconcile.Cluster { return rash{c} }}
		}}
	}, "of the traffic to"},
	"an autoscaler is left at rest": {func() fault {
		return fault{clusters: func(_ *house, c reconcile.Clusters) reconcile.Clusters {
			return wrapped{c, func(c reconcile.Cluster) reconcile.Cluster { return tired{c} }}
		}}
	}, "which carries nothing"},
	"a fleet is believed to be ready": {func() fault {
		return fault{look: func(_ *house, look rollout.Look) rollout.Look { return blindly(look) }}
	}, "and StatefulSet.apps"},
	"a fleet gets more than its share": {func() fault {
		return fault{clusters: func(_ *house, c reconcile.Clusters) reconcile.Clusters {
			return wrapped{c, func(c reconcile.Cluster) reconcile.Cluster { return greedy{c} }}
		}}
	}, "% at a weight of"},
	"a hook is believed to be done": {func() fault {
		return fault{look: func(_ *house, look rollout.Look) rollout.Look { return believing(look) }}
	}, "has done its work"},
	"a hook is made twice": {func() fault {
		return fault{clusters: func(_ *house, c reconcile.Clusters) reconcile.Clusters {
			return wrapped{c, func(c reconcile.Cluster) reconcile.Cluster { return repeats{c} }}
		}}
	}, "and it is time for"},
	"a hook is left to work": {func() fault {
		return fault{clusters: func(_ *house, c reconcile.Clusters) reconcile.Clusters {
			return wrapped{c, func(c reconcile.Cluster) reconcile.Cluster { return keeps{c} }}
		}}
	}, "works on"},
	"a Deployment object is not put back": {func() fault {
		return fault{clusters: func(_ *house, c reconcile.Clusters) reconcile.Clusters {
			return wrapped{c, func(c reconcile.Cluster) reconcile.Cluster { return hoards{c} }}
		}}
	}, "is not there any more"},
	"a route is left divided": {func() fault {
		return fault{clusters: func(_ *house, c reconcile.Clusters) reconcile.Clusters {
			return wrapped{c, func(c reconcile.Cluster) reconcile.Cluster { return untidy{c} }}
		}}
	}, "traffic"},
	"an approval of another version counts": {func() fault {
		return fault{lane: func(_ *house, lane *rollout.Lane) {
			for i := range lane.Words {
				if lane.Words[i].Digest == otherDigest {
					lane.Words[i].Digest = lane.Current.Digest
				}
			}
		}}
	}, "approvals of what is rolled out"},
	"an answer counts as a callback": {func() fault {
		return fault{lane: func(h *house, lane *rollout.Lane) {
			lane.Calls = slices.Clone(lane.Calls)
			for i, c := range lane.Calls {
				if c.Kind == rollout.CallWebhook && c.Answer != nil {
					lane.Calls[i].Callback = &rollout.Callback{At: c.Answer.At, Success: true}
				}
			}
		}}
	}, "has not done what it was to do"},
	"a link is forgotten": {func() fault {
		return fault{lane: func(_ *house, lane *rollout.Lane) { lane.Links = nil }}
	}, "a second time"},
	"a step that makes links is taken for done": {func() fault {
		return fault{lane: func(_ *house, lane *rollout.Lane) {
			if lane.Current == nil {
				return
			}
			for gate, step := range stepsOf(*lane.Current) {
				if step.Expose != nil {
					lane.Links = append(slices.Clip(lane.Links), rollout.Link{Gate: gate})
				}
			}
		}}
	}, "although there is no link to"},
	"a measurement is taken for another": {func() fault {
		return fault{lane: func(h *house, lane *rollout.Lane) {
			lane.Calls = slices.Clone(lane.Calls)
			for i, c := range lane.Calls {
				if c.Kind == rollout.CallQuery && c.Answer != nil {
					lane.Calls[i].Answer = &rollout.Answer{At: c.Answer.At, Result: rollout.Answered, Value: 1}
				}
			}
		}}
	}, "runs and a mean of"},
	"a dependency is not waited for": {func() fault {
		return fault{lane: func(_ *house, lane *rollout.Lane) {
			lane.Dependencies = maps.Clone(lane.Dependencies)
			for name := range lane.Dependencies {
				lane.Dependencies[name] = rollout.Succeeded
			}
		}}
	}, "which it depends on"},
	"a hold is ignored": {func() fault {
		return fault{lane: func(_ *house, lane *rollout.Lane) { lane.Hold = nil }}
	}, "are halted since"},
	"a wake is lost between the last read and the rest": {func() fault {
		return fault{rest: func(h *house, l rollout.Lease, seq int64, due time.Time) (int64, time.Time) {
			lane, err := h.store.Lane(context.Background(), l.Lane)
			h.must(err)
			return lane.Seq, due
		}}
	}, "a word was not heard"},
	"a watch is opened a moment after the read": {func() fault { return fault{blind: true} }, "a wake was lost"},
	"a due time is not kept": {func() fault {
		return fault{rest: func(_ *house, _ rollout.Lease, seq int64, _ time.Time) (int64, time.Time) { return seq, time.Time{} }}
	}, "never ends"},
	"superseding loses the newest": {func() fault {
		return fault{begin: func(h *house, s rollout.Start) rollout.Start {
			s.Targets = slices.Clone(s.Targets)
			for i, t := range s.Targets {
				if w := h.judge.lanes["main/"+s.Application+"/"+t.Name]; w != nil && w.target.ID != 0 && !w.target.State.Final() {
					s.Targets[i].Changed = false
				}
			}
			return s
		}}
	}, "never came to its lane"},
	"a rollback goes to the wrong release": {func() fault {
		return fault{lane: func(h *house, lane *rollout.Lane) {
			for _, w := range h.judge.lanes {
				if w.id == lane.ID && len(w.goods) > 1 && lane.Good != nil {
					first := w.goods[0]
					lane.Good = &first
				}
			}
		}}
	}, ""},
	"a save forgets its events": {func() fault {
		return fault{save: func(h *house, l rollout.Lease, d rollout.Decision) (rollout.Lease, rollout.Decision) {
			if d.Target.State.Final() && h.chance.IntN(4) == 0 {
				d.Events = nil
			}
			return l, d
		}}
	}, "an event was lost"},
	"an approval is asked for twice": {func() fault {
		return fault{save: func(_ *house, l rollout.Lease, d rollout.Decision) (rollout.Lease, rollout.Decision) {
			for _, e := range d.Events {
				if e.Kind == "target.awaiting_approval" {
					d.Events = append(d.Events[:len(d.Events):len(d.Events)], e)
				}
			}
			return l, d
		}}
	}, "history tells twice"},
	"what is applied is not claimed": {func() fault {
		return fault{save: func(_ *house, l rollout.Lease, d rollout.Decision) (rollout.Lease, rollout.Decision) {
			d.Claim = nil
			return l, d
		}}
	}, "no account of it"},
	"a rollback applies the manifests that failed": {func() fault {
		return fault{manifests: func(h *house, digest string) string {
			if r := h.Value().(*run); r != nil {
				if w := h.laneOf(r.lane, nil); w.target.Phase == rollout.Reverting && w.target.ID != 0 {
					return w.target.Manifests
				}
			}
			return digest
		}}
	}, ""},
}

// enough is within how many seeds each fault must be found.
const enough = 1000

// A harness that finds nothing proves nothing: it finds each planted fault, and says what is wrong in a sentence about it.
func TestEachPlantedFaultIsFound(t *testing.T) {
	for name, p := range planted {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(enough) {
				h := tell(inMemory, seed, p.plant())
				if h.wrong == "" || !strings.Contains(h.wrong, p.told) {
					continue
				}
				t.Logf("found with seed %d: %s", seed, h.wrong)
				return
			}
			t.Errorf("not found within %d seeds", enough)
		})
	}
}

// wrapped is clusters of which each is seen through something.
type wrapped struct {
	reconcile.Clusters
	through func(reconcile.Cluster) reconcile.Cluster
}

func (w wrapped) Cluster(tenant, account string) reconcile.Cluster {
	return w.through(w.Clusters.Cluster(tenant, account))
}

// unbounded keeps no deadline.
type unbounded struct{ reconcile.Cluster }

func endless(c reconcile.Cluster) reconcile.Cluster { return unbounded{c} }

func (u unbounded) Shift(ctx context.Context, id rollout.Identity, a rollout.Action) rollout.Outcome {
	return u.Cluster.Shift(context.WithoutCancel(ctx), id, a)
}

func (u unbounded) Apply(ctx context.Context, id rollout.Identity, objects []manifest.Object, a rollout.Action) rollout.Outcome {
	return u.Cluster.Apply(context.WithoutCancel(ctx), id, objects, a)
}

// forgets says that what met trouble was done.
type forgets struct{ reconcile.Cluster }

func forgetful(c reconcile.Cluster) reconcile.Cluster { return forgets{c} }

func (f forgets) Shift(ctx context.Context, id rollout.Identity, a rollout.Action) rollout.Outcome {
	out := f.Cluster.Shift(ctx, id, a)
	out.Failure = nil
	return out
}

// rash gives the new version traffic where all shall stay with the former one.
type rash struct{ reconcile.Cluster }

func (r rash) Shift(ctx context.Context, id rollout.Identity, a rollout.Action) rollout.Outcome {
	a.Divide = slices.Clone(a.Divide)
	for i, d := range a.Divide {
		if d.Stage == rollout.Held {
			a.Divide[i].Stage, a.Divide[i].Weight = rollout.Divided, 50
		}
	}
	return r.Cluster.Shift(ctx, id, a)
}

// untidy leaves routes as they are in the end.
type untidy struct{ reconcile.Cluster }

func (u untidy) Shift(ctx context.Context, id rollout.Identity, a rollout.Action) rollout.Outcome {
	a.Divide = slices.DeleteFunc(slices.Clone(a.Divide), func(d rollout.Division) bool { return d.Stage == rollout.Whole })
	return u.Cluster.Shift(ctx, id, a)
}

// hoards puts nothing back.
type hoards struct{ reconcile.Cluster }

func (hoards) PutBack(context.Context, rollout.Identity, []manifest.Object, rollout.Action) rollout.Outcome {
	return rollout.Outcome{}
}

// tired lets autoscalers rest for ever.
type tired struct{ reconcile.Cluster }

func (i tired) Shift(ctx context.Context, id rollout.Identity, a rollout.Action) rollout.Outcome {
	a.Aim = nil
	return i.Cluster.Shift(ctx, id, a)
}

// hasty turns Services with the first apply.
type hasty struct {
	reconcile.Cluster
	h *house
}

func (y hasty) Apply(ctx context.Context, id rollout.Identity, objects []manifest.Object, a rollout.Action) rollout.Outcome {
	set := y.h.sets[nameOf(objects)]
	a.Select = append(a.Select[:0:0], a.Select...)
	for i := range a.Select {
		for _, revision := range set.Revisions {
			a.Select[i].Hash = revision.Hash
		}
	}
	return y.Cluster.Apply(ctx, id, objects, a)
}
