package main

import (
	"context"
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
	ends   map[string]end // by "APPLICATION" and "APPLICATION/TARGET"
	change chan struct{}  // closed at the next end
	broken error
}

// end is the newest end of something.
type end struct {
	state, why string
	came       time.Time
}

func follow(from *client.Client) *news {
	ctx, cancel := context.WithCancel(context.Background())
	n := &news{cancel: cancel, ends: map[string]end{}, change: make(chan struct{})}
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
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	for left := names; ; {
		n.mu.Lock()
		change, broken := n.change, n.broken
		for len(left) > 0 && n.ends[left[0]].came.After(after) {
			e := n.ends[left[0]]
			if e.state != "SUCCEEDED" {
				n.mu.Unlock()
				return last, fmt.Errorf("%s is %s: %s", left[0], e.state, e.why)
			}
			if e.came.After(last) {
				last = e.came
			}
			left = left[1:]
		}
		n.mu.Unlock()
		if len(left) == 0 || broken != nil {
			return last, broken
		}
		select {
		case <-change:
		case <-ctx.Done():
			return last, fmt.Errorf("%d of %d did not end, as %s: %w", len(left), len(names), left[0], ctx.Err())
		}
	}
}

func (n *news) close() {
	n.cancel()
	n.done.Wait()
}
