package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"time"

	"towpath/internal/localstack"
)

// agents is what many idle ones cost the hub, which is in this process; they are all in one other. Then the hub restarts.
func agents(ctx context.Context, b *bench) (err error) {
	r, err := b.relay()
	defer func() { err = errors.Join(err, r.close()) }()
	if err != nil {
		return err
	}
	count := b.count(2000)
	own := "/proc/" + strconv.Itoa(os.Getpid()) + "/status"
	resident := func() float64 {
		for range 3 { // stacks that shrank are given back by the next collection
			debug.FreeOSMemory()
		}
		return kilobytes(own, "VmRSS:")
	}
	before := resident()
	fleet, err := localstack.Start(nil, filepath.Join(b.programs, "fleet"), "-agents", strconv.Itoa(count), "-hub", r.address, "-ca", r.ca, "-tokens", r.tokens.URL+"/%s", "-secret", r.secret)
	if err != nil {
		return err
	}
	defer fleet.Kill()
	if err := r.connected(ctx, fleet, count); err != nil {
		return err
	}
	lasts := time.Minute
	if b.quick {
		lasts = 10 * time.Second
	}
	r.tokens.CloseClientConnections() // they would count as the hub's
	pause(ctx, lasts/2)               // what connecting took is given back
	disturbed := b.quiet.watch()
	began, used := time.Now(), spent()
	pause(ctx, lasts)
	share := (spent() - used) / time.Since(began).Seconds() * 100
	memory := (resident() - before) / float64(count)
	by := disturbed()
	b.results.add(by, figure{Name: fmt.Sprintf("%d idle agents, hub's memory (RSS), each", count), Value: memory, Unit: "KiB", Goal: atMost(100)})
	b.results.add(by, figure{Name: fmt.Sprintf("%d idle agents, hub's processor", count), Value: share, Unit: "% of a core", Goal: atMost(2), Detail: fmt.Sprintf("over %.0f s", lasts.Seconds())})

	disturbed = b.quiet.watch()
	began = time.Now()
	stopping, cancel := context.WithTimeout(ctx, 10*time.Second)
	err = r.hub.Drain(stopping)
	cancel()
	if err := errors.Join(err, <-r.served); err != nil {
		return err
	}
	stopped := time.Since(began)
	if err := r.serve(r.address); err != nil {
		return err
	}
	if err := r.connected(ctx, fleet, count); err != nil {
		return err
	}
	b.results.add(disturbed(), figure{Name: fmt.Sprintf("the only hub restarts, until %d agents are back", count), Value: time.Since(began).Seconds(), Unit: "s", Goal: atMost(60), Detail: fmt.Sprintf("it stopped within %.2g s", stopped.Seconds())})
	return ctx.Err()
}

// spent is the processor time of this process alone, in seconds.
func spent() float64 {
	s, _ := readStat("/proc/" + strconv.Itoa(os.Getpid()) + "/stat")
	return s.own
}
