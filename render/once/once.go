// Package once keeps what many ask for from being asked for many times: those who wait for one thing share its fetch, what failed is not tried again at once, and
// what came is pinned. A commit asks for one chart, or one file, for each of its targets.
package once

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// Pins remembers what was brought. What is kept under a name never changes, and survives a restart.
type Pins interface {
	// Kept is what is kept under a name.
	Kept(ctx context.Context, name string) (content []byte, found bool, err error)
	// Keep keeps content under a name, unless something is kept there already, and returns what is kept.
	Keep(ctx context.Context, name string, content []byte) (kept []byte, err error)
}

// RetryAfter is how long a failure is remembered.
const RetryAfter = 30 * time.Second

// timeout bounds one fetch.
const timeout = time.Minute

// Fetches are those under way, and those that failed lately. Safe for concurrent use.
type Fetches[T any] struct {
	clock   func() time.Time
	flight  singleflight.Group
	open    context.Context // until Close
	close   context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	failed map[string]failure
}

type failure struct {
	at  time.Time
	err error
}

// New makes an empty one.
func New[T any](clock func() time.Time) *Fetches[T] {
	open, end := context.WithCancel(context.Background())
	return &Fetches[T]{clock: clock, open: open, close: end, failed: map[string]failure{}}
}

// Close ends the fetches under way, and returns once they have ended; there are none after it.
func (f *Fetches[T]) Close() {
	f.mu.Lock()
	f.close()
	f.mu.Unlock()
	f.running.Wait()
}

// Do fetches what has a name, or waits for who does so already, or fails as the fetch of that name did a moment ago.
func (f *Fetches[T]) Do(ctx context.Context, name string, fetch func(context.Context) (T, error)) (got T, err error) {
	flight := f.flight.DoChan(name, func() (any, error) {
		if err := f.begin(name); err != nil {
			return nil, err
		}
		defer f.running.Done()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout) // others wait for it too, so whoever began it may not end it
		defer cancel()
		defer context.AfterFunc(f.open, cancel)()
		got, err := fetch(ctx)
		if err != nil {
			f.mu.Lock()
			f.failed[name] = failure{f.clock(), err}
			f.mu.Unlock()
		}
		return got, err
	})
	select {
	case <-ctx.Done():
		return got, ctx.Err()
	case came := <-flight:
		if came.Err == nil {
			got = came.Val.(T)
		}
		return got, came.Err
	}
}

// begin counts a fetch as running, unless all is closed, or the same fetch failed a moment ago. Older failures are forgotten.
func (f *Fetches[T]) begin(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open.Err() != nil {
		return errClosed
	}
	for name, failed := range f.failed {
		if f.clock().Sub(failed.at) >= RetryAfter {
			delete(f.failed, name)
		}
	}
	if failed, lately := f.failed[name]; lately {
		return failed.err
	}
	f.running.Add(1)
	return nil
}

var errClosed = errors.New("nothing is fetched any more: this process ends")
