package main

import (
	"context"
	"fmt"
	"time"
)

// change is a commit to one of many small applications: how soon after its webhook it is healthy, and what that asks of the API server.
func change(ctx context.Context, b *bench) error {
	s, err := b.withApps(ctx, b.count(500))
	if err != nil {
		return err
	}
	disturbed := b.quiet.watch()
	var took samples
	most := 0
	for i := range b.count(30) {
		if i < 3 {
			pause(ctx, lingers) // so that the first ones find no watch open
		}
		files, err := b.smallApps(ctx, i, i+1, i+2)
		if err != nil {
			return err
		}
		if err := s.audit.skip(); err != nil {
			return err
		}
		sent, err := s.push(ctx, "Change "+appName(i), files)
		if err != nil {
			return err
		}
		healthy, err := s.news.await(ctx, sent, appName(i))
		if err != nil {
			return err
		}
		took = append(took, healthy.Sub(sent))
		pause(ctx, time.Second) // for requests that come after
		requests, err := s.audit.since()
		if err != nil {
			return err
		}
		most = max(most, len(requests))
	}
	by := disturbed()
	what := fmt.Sprintf("a commit to one of %d apps", s.apps)
	b.results.add(by, figure{Name: what + ", API requests in all", Value: float64(most), Unit: "requests", Goal: atMost(30), Detail: "the most that any took, watches included"})
	b.results.add(by, figure{Name: what + ", webhook to healthy, p50", Value: took.at(.5), Unit: "ms", Goal: atMost(700), Detail: took.String()})
	return nil
}

// lingers exceeds the time that the controller keeps a watch open for the next one.
const lingers = 11 * time.Second

func pause(ctx context.Context, lasts time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(lasts):
	}
}
