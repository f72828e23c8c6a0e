package proof_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"towpath/internal/testkit/cloud"
	"towpath/reconcile/rollout"
)

// A run that stood still for longer than its lease finds that another one of its process has gone on: it must not take that one's watch with it.
func TestARunThatLostItsLeaseLeavesTheWatchOfTheHolderOpen(t *testing.T) {
	h := newHouse(inMemory, 1, false, fault{})
	s := &story{house: h, r: rand.New(rand.NewPCG(1, 7)), plain: true}
	a := &app{name: "shop"}
	p := &place{name: "prod", account: "prod", versions: map[int]version{}, version: 1, way: rollout.Way{Timeout: 20 * time.Minute}}
	a.targets = []*place{p}
	h.cloud.Cluster("prod").Fate(s.version(a, p, 1).set.Revisions[0].ReplicaSet, cloud.Pods{After: 3 * time.Minute})
	h.cloud.Cluster("prod").Refuse(p.versions[1].digest, "")
	h.still = func(r *run) time.Duration {
		if r.number == 1 && r.read.After(start) && h.judge.lanes["main/shop/prod"].saves == 1 {
			h.still = func(*run) time.Duration { return 0 }
			return 2 * time.Minute
		}
		return 0
	}
	h.live()
	begin := s.start(a, rollout.Trigger{Kind: "push", By: "ann"})
	begin.Targets = []rollout.StartTarget{s.wants(a, p)}
	s.begins(a, begin)
	h.drive(start.Add(10 * time.Minute))
	if h.wrong != "" {
		t.Fatal(h.wrong)
	}
	if d, err := h.store.Deployment(t.Context(), "main", begin.ID); err != nil || d.State != rollout.Succeeded {
		t.Errorf("the pods are ready since five minutes, and the deployment is %s (%v): %+v", d.State, err, d.Targets)
	}
}
