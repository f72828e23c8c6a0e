package main

import (
	"context"
	"fmt"
	"time"

	"towpath/manifest"
	"towpath/reconcile/rollout"
	"towpath/reconcile/simulate"
)

// simulation is a rollout of 100 targets, ten at a time, each with a canary of ten steps, in virtual time.
func simulation(_ context.Context, b *bench) error {
	targets := manySteps(100, 10)
	assumed := simulate.Assumptions{From: time.Now().UTC(), ReadyAfter: 30 * time.Second, Answers: simulate.Answers{Otherwise: simulate.AtOnce}}
	disturbed := b.quiet.watch()
	var took samples
	var last simulate.Result
	for range b.count(50) {
		began := time.Now()
		last = simulate.Run(targets, assumed)
		took = append(took, time.Since(began))
	}
	by := disturbed()
	if last.State != rollout.Succeeded {
		return fmt.Errorf("the simulated deployment is %s", last.State)
	}
	b.results.add(by, figure{Name: "a rollout of 100 targets of 10 steps, simulated, p50", Value: took.at(.5), Unit: "ms", Goal: atMost(50),
		Detail: fmt.Sprintf("%d decisions; %s", last.Decisions, took)})
	return nil
}

// manySteps is targets of one workload each, in rows of ten that start one after the other, with a canary of so many steps.
func manySteps(count, steps int) (targets []simulate.Target) {
	var canary []rollout.Step
	for i := range steps / 2 {
		weight := 100 * (i + 1) / (steps / 2)
		canary = append(canary, rollout.Step{Weight: &weight}, rollout.Step{Pause: time.Minute})
	}
	workload := manifest.Key{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: "web"}
	pods := int32(10)
	for i := range count {
		name := fmt.Sprint("target-", i)
		way := rollout.Way{Timeout: 10 * time.Minute, Canary: canary}
		if i >= 10 {
			way.DependsOn = []string{fmt.Sprint("target-", i-10)}
		}
		targets = append(targets, simulate.Target{Name: name, Account: name, Namespace: "shop", Way: way, Set: rollout.Set{Objects: []manifest.Key{workload},
			Revisions: []rollout.Revision{{Workload: workload, ReplicaSet: manifest.Key{Group: "apps", Kind: "ReplicaSet", Namespace: "shop", Name: "web"}, Replicas: &pods}}}})
	}
	return targets
}
