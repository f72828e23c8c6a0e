package main

import (
	"context"
	"fmt"
	"time"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// decide is how many decisions one core makes in a second, over a canary from its first read to its end.
func decide(_ context.Context, b *bench) error {
	disturbed := b.quiet.watch()
	lasts := time.Second
	if b.quick {
		lasts = 100 * time.Millisecond
	}
	c := newCanary()
	count, began := 0, time.Now()
	for time.Since(began) < lasts {
		made, err := c.run()
		if err != nil {
			return err
		}
		count += made
	}
	seconds := time.Since(began).Seconds()
	b.results.add(disturbed(), figure{Name: "decisions of a canary, one core", Value: float64(count) / seconds, Unit: "/s", Goal: atLeast(200_000), Detail: fmt.Sprintf("%d", count)})
	return nil
}

// canary is a rollout of ten pods by steps, in a cluster that does at once what it is asked.
type canary struct {
	target rollout.Target
	facts  rollout.Facts
}

func newCanary() *canary {
	key := func(group, kind, name string) manifest.Key {
		return manifest.Key{Group: group, Kind: kind, Namespace: "shop", Name: name}
	}
	var c canary
	pods := int32(10)
	web, config := key("apps", "Deployment", "web"), key("", "ConfigMap", "web")
	c.facts = rollout.Facts{Now: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC), Connected: true, Limits: rollout.Limits{Removals: 10, Shrink: 0.3, Keep: 3},
		New: rollout.Set{Objects: []manifest.Key{web, config, key("", "Service", "web")}, Configuration: []manifest.Key{config},
			Revisions: []rollout.Revision{{Workload: web, ReplicaSet: key("apps", "ReplicaSet", "web-b"), Hash: "b", Replicas: &pods}}}}
	weight := func(w int) rollout.Step { return rollout.Step{Weight: &w} }
	c.target = rollout.Target{ID: 1, Deployment: "d2", Number: 2, Tenant: "main", Application: "shop", Name: "prod", Account: "prod", Digest: "promise", Manifests: "m2",
		State: rollout.Queued, Phase: rollout.Waiting, Way: rollout.Way{Timeout: 10 * time.Minute,
			Canary: []rollout.Step{weight(10), {Pause: time.Minute}, weight(25), {Pause: time.Minute}, weight(50), {Pause: time.Minute}, weight(75), {Pause: time.Minute}}}}
	return &c
}

// run carries the canary to its end, and counts the decisions that it takes.
func (c *canary) run() (count int, err error) {
	t, f := c.target, c.facts
	old := rollout.Live{Key: f.New.Revisions[0].ReplicaSet, UID: "uid", Workload: "web", Hash: "a", Replicas: 10, Ready: 10, Health: rollout.Healthy}
	old.Key.Name = "web-a"
	for !t.State.Final() {
		d := rollout.Decide(t, f)
		if count++; count > 1000 {
			return count, fmt.Errorf("the canary has not ended after %d decisions: %s in %s", count, t.State, t.Phase)
		}
		t, f.Look, f.Outcome = d.Target, nil, nil
		switch {
		case d.Read != nil:
			f.Look = &rollout.Look{}
			for _, key := range d.Read.Objects {
				f.Look.Objects = append(f.Look.Objects, rollout.Live{Key: key, UID: "uid", Generation: 1, Health: rollout.Healthy})
			}
			if d.Read.Revisions {
				f.Look.Revisions = []rollout.Live{old}
			}
		case d.Act != nil:
			f.Outcome = &rollout.Outcome{}
			for _, r := range d.Act.Replicas {
				f.Outcome.Live = append(f.Outcome.Live, rollout.Live{Key: r.Key, UID: "uid", Generation: 1, Replicas: r.Count})
			}
		case d.Due.After(f.Now):
			f.Now = d.Due
		}
	}
	return count, nil
}
