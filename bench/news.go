package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"towpath/api"
	"towpath/api/client"
)

// news is how deployments and their targets ended, as the controller's stream of events tells.
type news struct {
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu     sync.Mutex
	ends   map[string]end       // by "APPLICATION" and "APPLICATION/TARGET"
	starts map[string]time.Time // when an application's target last left what comes before its deployment behind
	asks   map[string]time.Time // when an application last began to wait for a person
	change chan struct{}        // closed at the next end
	broken error
}

// end is the newest end of something.
type end struct {
	state, why string
	came       time.Time
}

func follow(from *client.Client) *news {
	ctx, cancel := context.WithCancel(context.Background())
	n := &news{cancel: cancel, ends: map[string]end{}, asks: map[string]time.Time{}, starts: map[string]time.Time{}, change: make(chan struct{})}
	n.done.Go(func() {
		err := from.Follow(ctx, "", 0, func(e api.Event) bool {
			n.take(e)
			return true
		})
		n.note(func() { n.broken = fmt.Errorf("the stream of events ended: %w", err) })
	})
	return n
}

func (n *news) take(e api.Event) {
	name := e.Application
	switch e.Kind {
	case "target.awaiting_approval":
		n.note(func() { n.asks[name] = time.Now() })
		return
	case "target.started":
		n.note(func() { n.starts[name] = time.Now() })
		return
	case "deployment.state":
	case "target.succeeded", "target.failed", "target.cancelled", "target.rolled_back":
		name += "/" + e.Target
	default:
		return
	}
	state := e.What[strings.LastIndexByte(e.What, ' ')+1:] // #3 is SUCCEEDED
	switch state {
	case "SUCCEEDED", "FAILED", "CANCELLED", "REJECTED", "ROLLED_BACK":
		n.note(func() { n.ends[name] = end{state, e.Why, time.Now()} })
	}
}

func (n *news) note(what func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	what()
	close(n.change)
	n.change = make(chan struct{})
}

// await waits until each of some ended well after a moment, and returns when the last of them did.
func (n *news) await(ctx context.Context, after time.Time, names ...string) (last time.Time, err error) {
	return n.each(ctx, after, names, func(name string) (time.Time, error) {
		e := n.ends[name]
		if e.came.After(after) && e.state != "SUCCEEDED" {
			return e.came, fmt.Errorf("%s is %s: %s", name, e.state, e.why)
		}
		return e.came, nil
	})
}

// ended waits until one ended, however it did.
func (n *news) ended(ctx context.Context, after time.Time, name string) error {
	_, err := n.each(ctx, after, []string{name}, func(name string) (time.Time, error) { return n.ends[name].came, nil })
	return err
}

// asked waits until each of some waits for a person since a moment, and returns when the last of them began to.
func (n *news) asked(ctx context.Context, after time.Time, names ...string) (last time.Time, err error) {
	return n.each(ctx, after, names, func(name string) (time.Time, error) { return n.asks[name], nil })
}

// started waits until one left what comes before its deployment behind since a moment, and returns when.
func (n *news) started(ctx context.Context, after time.Time, name string) (at time.Time, err error) {
	return n.each(ctx, after, []string{name}, func(name string) (time.Time, error) { return n.starts[name], nil })
}

// each waits until something came for each of some after a moment, and returns when the last of it came. came is called with mu held.
func (n *news) each(ctx context.Context, after time.Time, names []string, came func(name string) (time.Time, error)) (last time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	for left := names; ; {
		n.mu.Lock()
		change, broken := n.change, n.broken
		for err == nil && len(left) > 0 {
			at, failed := came(left[0])
			if err = failed; err != nil || !at.After(after) {
				break
			}
			if at.After(last) {
				last = at
			}
			left = left[1:]
		}
		n.mu.Unlock()
		if err != nil || len(left) == 0 || broken != nil {
			return last, errors.Join(err, broken)
		}
		select {
		case <-change:
		case <-ctx.Done():
			return last, fmt.Errorf("%d of %d did not come, as %s: %w", len(left), len(names), left[0], ctx.Err())
		}
	}
}

func (n *news) close() {
	n.cancel()
	n.done.Wait()
}
