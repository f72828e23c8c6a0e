package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"towpath/reconcile/rollout"
)

// limiter finds how many requests at once an API server takes: a place more with each round of answers that come soon, half as many when it says that it has
// too much to do (429, or 503 with Retry-After) or leaves a request unanswered, and never fewer than one. After such an answer nobody begins for as long as
// the server says. It is the RoundTripper that hears the answers; a place is taken before a request's time begins to run, so that waiting for one is no
// silence of the server. Watches take none. Safe for concurrent use. See docs/decisions/011-a-cluster-says-how-much-it-takes.md.
type limiter struct {
	next  http.RoundTripper
	clock func() time.Time
	most  int
	log   *logrus.Entry

	mu        sync.Mutex
	limit     float64 // at least 1, at most most
	running   int
	waiting   []chan struct{} // the first is the next; closed when its place is there
	until     time.Time       // nobody begins before
	halved    time.Time
	throttled int64
	resume    *time.Timer // of until, while somebody waits
}

const (
	firstLimit   = 16
	soon         = time.Second      // an answer that took longer is no reason to ask more: it may have stood in the server's own queue
	longestPause = 30 * time.Second // of those that a server may ask for
)

func newLimiter(next http.RoundTripper, most int, clock func() time.Time, log *logrus.Entry) *limiter {
	return &limiter{next: next, clock: clock, most: most, log: log, limit: float64(min(firstLimit, most))}
}

// Load is how busy a cluster's API server lets us be.
type Load struct {
	Limit     int   // requests that may be under way at once, from 1; it follows what the server answers
	Running   int   // requests under way, watches aside
	Waiting   int   // requests that wait for a place
	Throttled int64 // answers by which the server asked for patience, since the start
}

// Load of the cluster now.
func (c *Client) Load() Load {
	l := c.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	return Load{Limit: int(l.limit), Running: l.running, Waiting: len(l.waiting), Throttled: l.throttled}
}

// enter waits for a place; whoever comes first gets it first. It fails, with what was waited for, when ctx ends before.
func (l *limiter) enter(ctx context.Context) (leave func(), err error) {
	place := make(chan struct{})
	l.mu.Lock()
	l.waiting = append(l.waiting, place)
	l.admit()
	l.mu.Unlock()
	select {
	case <-place:
		return l.leave, nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.waiting, place)
	if i < 0 { // it came in the last moment
		return l.leave, nil
	}
	l.waiting = slices.Delete(l.waiting, i, i+1)
	return nil, l.full(ctx.Err())
}

// full says what a request waited for in vain; called with mu held.
func (l *limiter) full(err error) *rollout.Failure {
	text := fmt.Sprintf("no place became free among the requests to its API server (%d at once, %d under way, %d others wait)", int(l.limit), l.running, len(l.waiting))
	if wait := l.until.Sub(l.clock()); wait > 0 {
		text = fmt.Sprintf("its API server has too much to do and is asked again in %s; %d others wait for that", max(wait, time.Second).Round(time.Second), len(l.waiting))
	}
	return &rollout.Failure{Class: rollout.Trouble, Text: fmt.Sprintf("%s: %v", text, err)}
}

func (l *limiter) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running--
	l.admit()
}

// admit gives free places to those who wait, or sets the timer that will; called with mu held.
func (l *limiter) admit() {
	if wait := l.until.Sub(l.clock()); wait > 0 {
		if len(l.waiting) > 0 && l.resume == nil {
			l.resume = time.AfterFunc(wait, func() {
				l.mu.Lock()
				defer l.mu.Unlock()
				l.resume = nil
				l.admit()
			})
		}
		return
	}
	for len(l.waiting) > 0 && l.running < int(l.limit) {
		close(l.waiting[0])
		l.waiting = slices.Delete(l.waiting, 0, 1)
		l.running++
	}
}

// RoundTrip implements http.RoundTripper.
func (l *limiter) RoundTrip(request *http.Request) (*http.Response, error) {
	began := l.clock()
	response, err := l.next.RoundTrip(request)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		l.shrink(began, 0, logrus.Fields{})
	case err != nil: // of the way there
	case response.StatusCode == http.StatusTooManyRequests, response.StatusCode == http.StatusServiceUnavailable && response.Header.Get("Retry-After") != "":
		seconds, _ := strconv.Atoi(response.Header.Get("Retry-After")) // the API server writes no dates
		l.shrink(began, time.Duration(seconds)*time.Second, logrus.Fields{"status": response.StatusCode,
			"flowSchema": response.Header.Get("X-Kubernetes-PF-FlowSchema-UID"), "priorityLevel": response.Header.Get("X-Kubernetes-PF-PriorityLevel-UID")})
	case !isWatch(request):
		l.grow(began)
	}
	return response, err
}

// grow adds a place for each round of answers that came soon while all places were taken.
func (l *limiter) grow(began time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.clock().Sub(began) > soon || l.running < int(l.limit) || l.stale(began) {
		return
	}
	l.limit = min(float64(l.most), l.limit+1/l.limit)
	l.admit()
}

// stale reports whether a request was sent before the limit was last halved, and so tells nothing of the new one; called with mu held.
func (l *limiter) stale(began time.Time) bool { return !l.halved.IsZero() && !began.After(l.halved) }

// shrink halves the limit, once for all requests that were sent before it was halved, and lets nobody begin for a while.
func (l *limiter) shrink(began time.Time, pause time.Duration, about logrus.Fields) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock()
	if len(about) > 0 {
		l.throttled++
	}
	if until := now.Add(min(pause, longestPause)); pause > 0 && until.After(l.until) {
		l.until = until
	}
	if l.stale(began) {
		return
	}
	l.halved = now
	l.limit = max(1, l.limit/2)
	if l.log != nil && len(about) > 0 {
		l.log.WithFields(about).WithField("limit", int(l.limit)).Warnf("the API server asks for patience; fewer requests at once, and none for %s", min(pause, longestPause))
	}
}

// isWatch reports whether a request's answer has no end.
func isWatch(request *http.Request) bool { return request.URL.Query().Get("watch") != "" }
