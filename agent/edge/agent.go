// Package edge is the cluster's end of the tunnel: it connects to the hub, and replays the requests it gets against its own API server and the hosts of
// its allow-list. It reads no Kubernetes object, and what it may do is settled by its configuration and the RBAC of its ServiceAccount.
package edge

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"towpath/agent/wire"
)

// Options are what an agent takes from the program around it.
type Options struct {
	Version string
	Log     logrus.FieldLogger
	Getenv  func(string) string // none: os.Getenv
	Timing  Timing
}

// Timing are the agent's times, with their defaults for zero values; tests shorten them.
type Timing struct {
	Beat       time.Duration // a running stream that was silent so long gets a beat (10 s)
	Hello      time.Duration // the hub answers within this (10 s)
	Drain      time.Duration // requests may end within this when the agent stops (20 s)
	GiveUp     time.Duration // Run fails after so long without a session (10 min)
	Settled    time.Duration // a session that lasted this long makes the next pause short again (60 s)
	Forbidden  time.Duration // an agent that is not wanted comes back after this to five times this (1 min)
	Move       time.Duration // sessions move after this to twice this, so that replicas of the hub share them (6 h)
	Refresh    time.Duration // token and CA files are read so often (1 min)
	Concurrent int64         // requests at once (1,000)

	ServerSilent time.Duration // a connection to the API server, or to another target, that was silent so long is asked whether it is alive (30 s)
	ServerAnswer time.Duration // and given up when it does not answer within this (15 s)
}

type timing struct {
	beat, hello, drain, giveUp, settled, forbidden, move, refresh, serverSilent, serverAnswer time.Duration
	most                                                                                      int64
}

func (t Timing) complete() timing {
	return timing{
		beat: cmp.Or(t.Beat, 10*time.Second), hello: cmp.Or(t.Hello, 10*time.Second), drain: cmp.Or(t.Drain, 20*time.Second),
		giveUp: cmp.Or(t.GiveUp, 10*time.Minute), settled: cmp.Or(t.Settled, time.Minute), forbidden: cmp.Or(t.Forbidden, time.Minute),
		move: cmp.Or(t.Move, 6*time.Hour), refresh: cmp.Or(t.Refresh, time.Minute), most: cmp.Or(t.Concurrent, 1000),
		serverSilent: cmp.Or(t.ServerSilent, 30*time.Second), serverAnswer: cmp.Or(t.ServerAnswer, 15*time.Second),
	}
}

// agent is one process's state.
type agent struct {
	config   *Config
	version  string
	log      logrus.FieldLogger
	timing   timing
	codec    *wire.Codec
	tokens   *tokens
	outward  outward
	backends map[string]*backend
	metrics  *metrics
	requests context.Context // of all requests; ended with errStopping

	running  atomic.Int64 // requests
	sessions atomic.Int64
	penalty  atomic.Int64 // a time.Duration the hub wants the agent to stay away
}

// Run connects and relays until ctx ends; then it takes no new requests, lets running ones end, and returns nil. It reconnects for ever, but fails
// when it had no session for Timing.GiveUp, so that a fresh process may do better, and at once when the configuration is wrong.
func Run(ctx context.Context, config Config, options Options) error {
	if options.Getenv == nil {
		options.Getenv = os.Getenv
	}
	if err := config.complete(options.Getenv); err != nil {
		return err
	}
	times := options.Timing.complete()
	all, err := backends(&config, times)
	if err != nil {
		return err
	}
	proxy := config.Proxy.proxied()
	proxyRoots, err := roots(false, config.Proxy.CAFile)
	if err != nil {
		return fmt.Errorf("proxy.ca: %w", err)
	}
	issuerRoots, err := roots(config.Identity.CAFile != "", config.Identity.CAFile, config.Proxy.CAFile)
	if err != nil {
		return fmt.Errorf("identity.ca: %w", err)
	}
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		Proxy:             func(r *http.Request) (*url.URL, error) { return proxy(r.URL) },
		TLSClientConfig:   &tls.Config{RootCAs: issuerRoots, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: true, IdleConnTimeout: 10 * time.Second,
	}}
	defer client.CloseIdleConnections()

	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	requests, endRequests := context.WithCancelCause(life)
	defer endRequests(nil)
	a := &agent{
		config: &config, version: options.Version, log: options.Log, timing: times, codec: wire.NewCodec(),
		tokens: newTokens(config.Identity, client, options.Log), outward: outward{proxy: proxy, tls: &tls.Config{RootCAs: proxyRoots, MinVersion: tls.VersionTLS12}},
		backends: all, requests: requests,
	}
	a.metrics = newMetrics(a)
	for _, b := range all {
		if b.insecure {
			a.log.Warnf("target %q is insecure: the certificate of %s is not checked", b.name, b.base.Host)
		}
		defer b.transport(false).CloseIdleConnections()
		defer b.transport(true).CloseIdleConnections()
	}
	var parts sync.WaitGroup
	defer parts.Wait()
	defer end()
	if config.Listen != "off" {
		stop, err := a.listen(config.Listen)
		if err != nil {
			return err
		}
		defer stop()
	}
	parts.Go(func() { a.tokens.run(life) })
	parts.Go(func() { a.refresh(life) })

	var sessions sync.WaitGroup
	var current *session
	err = a.connect(ctx, life, &sessions, &current)
	if current != nil {
		current.retire()
	}
	over := make(chan struct{})
	parts.Go(func() {
		sessions.Wait()
		close(over)
	})
	await := func(patience time.Duration) {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		select {
		case <-over:
		case <-timer.C:
		}
	}
	await(a.timing.drain)
	endRequests(errStopping)
	await(2 * time.Second) // for what these requests still have to say
	end()
	return err
}

// connect keeps a session up until ctx ends; sessions are run below life.
func (a *agent) connect(ctx, life context.Context, sessions *sync.WaitGroup, current **session) error {
	var pause backoff
	lastUp := time.Now()
	for ctx.Err() == nil {
		opening, stop := context.WithCancel(life)
		stopOpening := context.AfterFunc(ctx, stop)
		s, run, err := a.open(opening)
		if !stopOpening() && err == nil {
			err = context.Cause(ctx)
			stop()
			sessions.Go(func() { _ = run() })
		}
		wait := time.Duration(0)
		if err != nil {
			stop()
			if ctx.Err() != nil {
				return nil
			}
			a.metrics.failures.Inc()
			if a.sessions.Load() == 0 && time.Since(lastUp) > a.timing.giveUp {
				return fmt.Errorf("no session with the hub for %s: %w", a.timing.giveUp, err)
			}
			wait = pause.next()
			var refused *hubError
			if errors.As(err, &refused) && refused.code == codes.PermissionDenied {
				wait = max(wait, jitter(a.timing.forbidden))
			}
			a.log.WithError(err).Warnf("not connected; the next try is in %s", wait.Round(time.Millisecond))
		} else {
			*current = s
			a.sessions.Add(1)
			a.metrics.connects.Inc()
			a.log.WithField("session", s.id).Infof("connected to %s", a.config.Hub.Address)
			sessions.Go(func() {
				defer stop()
				err := run()
				a.sessions.Add(-1)
				if err != nil && life.Err() == nil {
					a.log.WithError(err).Warn("a session ended")
				}
			})
			move := time.NewTimer(a.timing.move + rand.N(a.timing.move))
			select {
			case <-s.moved:
				if time.Since(s.up) > a.timing.settled {
					pause = backoff{}
				}
				wait = pause.next()
			case <-move.C:
				s.retire()
				wait = time.Second // the hub hears that before the next session
			case <-ctx.Done():
			}
			move.Stop()
			lastUp = time.Now()
		}
		if penalty := time.Duration(a.penalty.Swap(0)); penalty > 0 {
			wait = max(wait, jitter(penalty))
			a.log.Warnf("the hub wants this agent to stay away; the next session is tried in %s", wait.Round(time.Millisecond))
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return nil
}

// jitter is a time from least, which is not 0, to five times that.
func jitter(least time.Duration) time.Duration { return least + rand.N(4*least) }

// refusedBy makes a hub's error one for people; a token it did not accept is replaced.
func (a *agent) refusedBy(err error) error {
	s := status.Convert(err)
	if s.Code() == codes.Unauthenticated {
		a.tokens.refused()
	}
	if s.Code() == codes.Unknown { // an error of ours
		return fmt.Errorf("the hub %s: %w", a.config.Hub.Address, err)
	}
	return &hubError{address: a.config.Hub.Address, err: err, text: fmt.Sprintf("%.2000s", s.Message()), code: s.Code()}
}

// hubError is what a hub said, or why it could not be reached.
type hubError struct {
	address, text string
	code          codes.Code
	err           error
}

func (e *hubError) Error() string {
	return fmt.Sprintf("the hub %s: %s (%s)", e.address, e.text, e.code)
}
func (e *hubError) Unwrap() error { return e.err }

// refresh reads token and CA files again, each minute.
func (a *agent) refresh(ctx context.Context) {
	ticker := time.NewTicker(a.timing.refresh)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		for _, b := range a.backends {
			if err := b.reload(); err != nil {
				a.log.WithError(err).Errorf("target %q: its certificate authorities cannot be read; the former ones still count", b.name)
			}
			if b.token != nil {
				if _, err := b.token.refresh(); err != nil {
					a.log.WithError(err).Error("the ServiceAccount's token cannot be read; the former one still counts")
				}
			}
		}
	}
}
