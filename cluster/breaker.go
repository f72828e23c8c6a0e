package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"towpath/reconcile/rollout"
)

// breaker keeps requests from a cluster that does not answer: each would wait its whole time, and whoever sends it could do nothing else meanwhile. After
// some unanswered requests in a row it opens, for a while that doubles as long as they stay unanswered; then one request tries. Safe for concurrent use.
type breaker struct {
	away  func(error) bool // the error says nothing of the API server; nil: none does
	next  http.RoundTripper
	clock func() time.Time

	mu      sync.Mutex
	unheard int // requests without an answer, in a row
	until   time.Time
	trying  bool // one request finds out whether it answers again
	pause   time.Duration
	ill     int // requests that the API server did not answer, or failed, in a row
	since   time.Time
	last    string // of those
}

const (
	opensAfter  = 5
	firstPause  = 5 * time.Second
	longestOpen = time.Minute
)

// RoundTrip implements http.RoundTripper.
func (b *breaker) RoundTrip(request *http.Request) (*http.Response, error) {
	if err := b.enter(); err != nil {
		return nil, err
	}
	response, err := b.next.RoundTrip(request)
	b.leave(err)
	b.note(response, err)
	return response, err
}

// enter is a failure while the breaker is open.
func (b *breaker) enter() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.until.IsZero() {
		return nil
	}
	if wait := b.until.Sub(b.clock()); wait > 0 || b.trying {
		return &rollout.Failure{Class: rollout.Away, Text: fmt.Sprintf("its API server left %d requests in a row unanswered; it is tried again in %s", b.unheard, max(wait, time.Second).Round(time.Second))}
	}
	b.trying = true
	return nil
}

// leave counts how a request that entered ended. An answer is an answer, whatever it says; a caller who left, and a tunnel that is down, say nothing of the
// API server.
func (b *breaker) leave(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trying = false
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		if b.unheard++; b.unheard < opensAfter {
			return
		}
		b.pause = min(max(2*b.pause, firstPause), longestOpen)
		b.until = b.clock().Add(b.pause)
	case err == nil:
		b.unheard, b.until, b.pause = 0, time.Time{}, 0
	}
}

// note keeps what people are told of an API server that fails one request after another.
func (b *breaker) note(response *http.Response, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		b.last = "not answered"
	case err != nil && (errors.Is(err, context.Canceled) || b.away != nil && b.away(err)):
		return
	case err != nil: // refused, reset: nobody is there
		b.last = "not reached: " + shown(err.Error(), 200)
	case response.StatusCode < http.StatusInternalServerError:
		b.ill = 0
		return
	default:
		b.last = fmt.Sprintf("answered %d %s", response.StatusCode, http.StatusText(response.StatusCode))
	}
	if b.ill++; b.ill == 1 {
		b.since = b.clock()
	}
}

// Trouble says since when, and how, the cluster's API server has failed each request, where those are five or more; the zero time when it has not.
func (c *Client) Trouble() (since time.Time, why string) {
	b := c.breaker
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ill < opensAfter {
		return time.Time{}, ""
	}
	return b.since, fmt.Sprintf("its API server has failed %d requests in a row; the last was %s", b.ill, b.last)
}
