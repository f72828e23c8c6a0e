package github

import (
	"net/http"
	"strconv"
	"time"
)

// Limits are how much one account may ask for.
type Limits struct {
	Requests          int // an hour
	CreationsAMinute  int
	CreationsAnHour   int
	WaitAfterRefusing time.Duration // what Retry-After says when too much was created
}

// GitHubLimits are those of a person's token on github.com.
var GitHubLimits = Limits{Requests: 5000, CreationsAMinute: 80, CreationsAnHour: 500, WaitAfterRefusing: time.Minute}

// Limit replaces the limits.
func (g *GitHub) Limit(l Limits) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limits = l
}

// spent is what an account used up of its limits.
type spent struct {
	since     time.Time // when the hour of its requests began
	requests  int
	limit     int
	creations []time.Time
}

// admit counts a request, or refuses it.
func (a *account) admit(method string, l Limits, now time.Time) *answer {
	s := &a.spent
	if now.Sub(s.since) >= time.Hour {
		s.since, s.requests = now, 0
	}
	s.limit = l.Requests
	if s.requests >= s.limit {
		refused := refuse(http.StatusForbidden, "API rate limit exceeded for user ID "+strconv.FormatInt(a.id, 10)+".")
		return &refused
	}
	s.requests++
	if method == http.MethodGet || method == http.MethodHead {
		return nil
	}
	within := func(d time.Duration) (n int) {
		for _, at := range s.creations {
			if now.Sub(at) < d {
				n++
			}
		}
		return n
	}
	if within(time.Minute) >= l.CreationsAMinute || within(time.Hour) >= l.CreationsAnHour {
		refused := tooMuch(http.StatusForbidden, l.WaitAfterRefusing)
		return &refused
	}
	s.creations = append(s.creations, now)
	return nil
}

// tooMuch is the secondary limit.
func tooMuch(status int, wait time.Duration) answer {
	a := refuse(status, "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.")
	a.body.(object)["documentation_url"] = "https://docs.github.com/rest/overview/rate-limits-for-the-rest-api#about-secondary-rate-limits"
	a.header = http.Header{}
	if wait > 0 {
		a.header.Set("Retry-After", strconv.Itoa(int(wait/time.Second)))
	}
	return a
}

// show puts the state of the primary limit into an answer.
func (a *account) show(header http.Header) {
	header.Set("X-RateLimit-Limit", strconv.Itoa(a.spent.limit))
	header.Set("X-RateLimit-Used", strconv.Itoa(a.spent.requests))
	header.Set("X-RateLimit-Remaining", strconv.Itoa(max(0, a.spent.limit-a.spent.requests)))
	header.Set("X-RateLimit-Reset", strconv.FormatInt(a.spent.since.Add(time.Hour).Unix(), 10))
	header.Set("X-RateLimit-Resource", "core")
}
