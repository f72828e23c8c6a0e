package github

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"time"
)

// Fault is a way to fail: it stands before what would be done, and may do that too.
type Fault func(done http.Handler) http.Handler

// Next makes each of the next requests fail in one of these ways, in their order.
func (g *GitHub) Next(faults ...Fault) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.faults = append(g.faults, faults...)
}

// NextOf makes each of the next requests of an operation fail in one of these ways, in their order; Next says nothing about them then. The operation is
// called as GitHub does it, such as issues/create-comment, or graphql.
func (g *GitHub) NextOf(operation string, faults ...Fault) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.faultsOf[operation] = append(g.faultsOf[operation], faults...)
}

// Always makes all requests fail that Next says nothing about; nil ends it.
func (g *GitHub) Always(f Fault) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.always = f
}

func (g *GitHub) fault(operation string) Fault {
	g.mu.Lock()
	defer g.mu.Unlock()
	if own := g.faultsOf[operation]; len(own) > 0 {
		g.faultsOf[operation] = own[1:]
		return own[0]
	}
	if len(g.faults) > 0 {
		f := g.faults[0]
		g.faults = g.faults[1:]
		return f
	}
	if g.always != nil {
		return g.always
	}
	return None
}

// None is no fault: one request between others that fail.
func None(done http.Handler) http.Handler { return done }

// Slow answers after a while, unless who asks gives up before; then nothing is done.
func Slow(d time.Duration) Fault {
	return func(done http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			timer := time.NewTimer(d)
			defer timer.Stop()
			select {
			case <-timer.C:
				done.ServeHTTP(w, r)
			case <-r.Context().Done():
			}
		})
	}
}

// Broken answers with a status, in HTML as GitHub's front does, and does nothing.
func Broken(status int) Fault {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			w.WriteHeader(status)
			_, _ = w.Write([]byte("<html><body>This page is taking too long to load.</body></html>"))
		})
	}
}

// Unanswered does what is asked and cuts the connection instead of answering.
func Unanswered(done http.Handler) http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		done.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	})
}

// DoneBut does what is asked and answers with a status all the same.
func DoneBut(status int) Fault {
	return func(done http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			done.ServeHTTP(httptest.NewRecorder(), r)
			Broken(status)(done).ServeHTTP(w, r)
		})
	}
}

// Cut cuts the connection and does nothing.
func Cut(http.Handler) http.Handler {
	return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
}

// TooMuch refuses a request by the secondary limit, with 403 or 429; without a wait GitHub does not say how long to stay away.
func TooMuch(status int, wait time.Duration) Fault { return answering(tooMuch(status, wait)) }

// Exhausted refuses a request by the primary limit, which ends at a time.
func Exhausted(status int, until time.Time) Fault {
	a := refuse(status, "API rate limit exceeded for installation ID 1.")
	a.header = http.Header{"X-Ratelimit-Limit": {"5000"}, "X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {strconv.FormatInt(until.Unix(), 10)}}
	return answering(a)
}

// Refused refuses a request with a status and GitHub's message.
func Refused(status int, message string) Fault { return answering(refuse(status, message)) }

// Empty answers with a list of nothing, as GitHub does for a moment after a push where pull requests of a commit are asked for.
var Empty = answering(answer{status: http.StatusOK, body: []any{}})

// Moved sends who asks to another address, as GitHub does when a repository has a new name.
func Moved(status int, to string) Fault {
	a := refuse(status, "Moved Permanently")
	a.header = http.Header{"Location": {to}}
	return answering(a)
}

func answering(a answer) Fault {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			for key, values := range a.header {
				w.Header()[key] = values
			}
			w.WriteHeader(a.status)
			_, _ = w.Write(a.text())
		})
	}
}
