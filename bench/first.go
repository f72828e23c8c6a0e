package main

import (
	"context"
	"fmt"
	"strings"
)

// first is the first deployment of many small applications, beside what the API server takes from a client that does nothing but apply the same objects.
func first(ctx context.Context, b *bench) error {
	s, err := b.appsSite(ctx)
	if err != nil {
		return err
	}
	apps := b.count(500)
	disturbed := b.quiet.watch()
	before, err := b.rate(ctx, s, "limit-before", apps)
	if err != nil {
		return err
	}
	took, err := b.deployApps(ctx, s, s.apps, s.apps+apps)
	if err != nil {
		return err
	}
	after, err := b.rate(ctx, s, "limit-after", apps)
	if err != nil {
		return err
	}
	by := disturbed()
	ours := float64(5*apps) / took.Seconds()
	b.results.add(by, figure{Name: fmt.Sprintf("first deployment of %d apps of 5 objects, share of the API server's own rate", apps), Value: ours / ((before + after) / 2),
		Goal: atLeast(.5), Detail: fmt.Sprintf("%.1f s, %.0f objects/s; the API server alone took %.0f before and %.0f after", took.Seconds(), ours, before, after)})
	return nil
}

// rate is how many objects a second the API server takes from eight workers that create the objects of so many applications.
func (b *bench) rate(ctx context.Context, s *site, namespace string, apps int) (float64, error) {
	out, err := b.applylimit(ctx, "-kubeconfig", s.cluster.Kubeconfig, "-namespace", namespace, "-apps", fmt.Sprint(apps), "-workers", "8", "-phases", "create")
	if err != nil {
		return 0, err
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var workers, objects int
	var phase string
	var seconds, rate float64
	if _, err := fmt.Sscan(lines[len(lines)-1], &workers, &phase, &objects, &seconds, &rate); err != nil {
		return 0, fmt.Errorf("applylimit said %q: %w", out, err)
	}
	return rate, nil
}
