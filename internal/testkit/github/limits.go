package github

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Limits are how much one account may ask for; 0 is no limit, as on an Enterprise Server.
type Limits struct {
	Requests          int // an hour
	CreationsAMinute  int
	CreationsAnHour   int
	PointsAMinute     int           // a request to read is 1, one to write 5
	RefuseWith        int           // when there is too much at once: 403 or 429; 0: 403
	WaitAfterRefusing time.Duration // what Retry-After says then; 0: nothing, and one has to guess
}

// GitHubLimits are those of a person's token on github.com.
var GitHubLimits = Limits{Requests: 5000, CreationsAMinute: 80, CreationsAnHour: 500, PointsAMinute: 900, WaitAfterRefusing: time.Minute}

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
	points    []cost // of the last minute
}

// reset is when the hour of its requests ends, in seconds.
func (s *spent) reset() int64 { return s.since.Add(time.Hour).Unix() }

// cost is what a request took of the points.
type cost struct {
	at     time.Time
	points int
}

// admit counts a request of an operation, or refuses it.
func (a *account) admit(method, operation string, l Limits, now time.Time) *answer {
	s := &a.spent
	if now.Sub(s.since) >= time.Hour {
		s.since, s.requests = now, 0
	}
	s.limit = l.Requests
	if s.limit > 0 && s.requests >= s.limit {
		refused := refuse(http.StatusForbidden, "API rate limit exceeded for user ID "+strconv.FormatInt(a.id, 10)+".")
		return &refused
	}
	s.requests++
	costs := cost{now, 5}
	if method == http.MethodGet || method == http.MethodHead {
		costs.points = 1
	}
	s.points = slices.DeleteFunc(s.points, func(c cost) bool { return now.Sub(c.at) >= time.Minute })
	sum := costs.points
	for _, c := range s.points {
		sum += c.points
	}
	if l.PointsAMinute > 0 && sum > l.PointsAMinute {
		return l.tooMuch()
	}
	s.points = append(s.points, costs)
	if creates[operation] == "" {
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
	if l.CreationsAMinute > 0 && within(time.Minute) >= l.CreationsAMinute || l.CreationsAnHour > 0 && within(time.Hour) >= l.CreationsAnHour {
		return l.tooMuch()
	}
	s.creations = append(s.creations, now)
	return nil
}

func (l Limits) tooMuch() *answer {
	a := tooMuch(cmp.Or(l.RefuseWith, http.StatusForbidden), l.WaitAfterRefusing)
	return &a
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
	if a.spent.limit == 0 {
		return
	}
	header.Set("X-RateLimit-Limit", strconv.Itoa(a.spent.limit))
	header.Set("X-RateLimit-Used", strconv.Itoa(a.spent.requests))
	header.Set("X-RateLimit-Remaining", strconv.Itoa(max(0, a.spent.limit-a.spent.requests)))
	header.Set("X-RateLimit-Reset", strconv.FormatInt(a.spent.reset(), 10))
	header.Set("X-RateLimit-Resource", "core")
}
