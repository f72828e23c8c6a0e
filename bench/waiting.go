package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// waitingFile is an application that waits for a person before anything is done.
const waitingFile = `application: %s
targets: {prod: {account: %s, namespace: ` + appsNamespace + `, strategy: rolling, constraints: {beforeDeployment: [{pause: {untilApproved: true}}]}}}
manifests: [{path: app.yaml}]
strategies: {rolling: {canary: {steps: [{setWeight: {weight: 100}}]}}}
`

// waiting is what many deployments cost that wait for people, and how fast 500 of them move when all are woken at once.
func waiting(ctx context.Context, b *bench) error {
	if err := os.MkdirAll(filepath.Join(b.dir, "waiting"), 0o700); err != nil {
		return err
	}
	r, err := newRepository(ctx, filepath.Join(b.dir, "waiting", "waiting.git"))
	if err != nil {
		return err
	}
	if err := r.commit(ctx, "Begin", map[string]string{"README.md": "Applications that wait\n"}); err != nil {
		return err
	}
	s, err := b.install(ctx, "waiting", r, "")
	defer b.remove("waiting")
	if err != nil {
		return err
	}
	lasts := time.Minute
	if b.quick {
		lasts = 10 * time.Second
	}
	pause(ctx, lasts) // for what follows a start
	disturbed := b.quiet.watch()
	without := s.load(ctx, lasts)
	all, woken := b.count(10_000), b.count(500)
	if err := s.manyWait(ctx, all, woken); err != nil {
		return err
	}
	pause(ctx, lasts) // for what follows many deployments: jobs that are cleaned up, memory that is given back
	with := s.load(ctx, lasts)
	b.results.add(disturbed(), figure{Name: fmt.Sprintf("%d waiting deployments, processor above the idle controller", all), Value: with - without, Unit: "% of a core", Goal: atMost(.5),
		Detail: fmt.Sprintf("%.2f %% against %.2f %%, over %.0f s each", with, without, lasts.Seconds())})

	disturbed = b.quiet.watch()
	var rates []float64
	for range 3 {
		rate, err := s.wake(ctx, woken)
		if err != nil {
			return err
		}
		rates = append(rates, rate)
	}
	b.results.add(disturbed(), figure{Name: fmt.Sprintf("a burst of %d events", woken), Value: min(rates[0], rates[1], rates[2]), Unit: "lanes/s", Goal: atLeast(100), Detail: fmt.Sprintf("the slowest of %.0f", rates)})
	return nil
}

// load is the share of a core that the controller uses, in per cent.
func (s *site) load(ctx context.Context, lasts time.Duration) float64 {
	before, began := family(s.serves.PID()), time.Now()
	pause(ctx, lasts)
	return (family(s.serves.PID()).seconds - before.seconds) / time.Since(began).Seconds() * 100
}

// manyWait commits applications until so many wait for a person; the first of them are those that will be woken.
func (s *site) manyWait(ctx context.Context, all, woken int) error {
	const each = 1000 // a commit
	for from := 0; from < all; from += each {
		files := map[string]string{}
		var names []string
		for i := from; i < min(from+each, all); i++ {
			account := "prod"
			if i < woken {
				account = "woken"
			}
			name := appName(i)
			names = append(names, name)
			files[name+"/towpath.yaml"] = fmt.Sprintf(waitingFile, name, account)
			files[name+"/app.yaml"] = fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\n", name)
		}
		sent, err := s.push(ctx, fmt.Sprintf("Add %d applications", len(names)), files)
		if err != nil {
			return err
		}
		if _, err := s.news.asked(ctx, sent, names...); err != nil {
			return err
		}
	}
	return nil
}

// wake halts all targets of an account and lets them go on, and returns how many of them a second were decided upon and recorded then.
func (s *site) wake(ctx context.Context, count int) (rate float64, err error) {
	hold := map[string]string{"scope": "account", "name": "woken", "reason": "the benchmark"}
	if err := s.controller.API.Call(ctx, http.MethodPost, "/holds", hold, nil); err != nil {
		return 0, err
	}
	pause(ctx, 10*time.Second) // until all of them are halted
	began := time.Now()
	if err := s.controller.API.Call(ctx, http.MethodDelete, "/holds?scope=account&name=woken", nil, nil); err != nil {
		return 0, err
	}
	var names []string
	for i := range count {
		names = append(names, appName(i))
	}
	last, err := s.news.asked(ctx, began, names...)
	return float64(count) / last.Sub(began).Seconds(), err
}
