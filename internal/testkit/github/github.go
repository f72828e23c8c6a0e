// Package github is a GitHub for tests: an HTTP server with state that refuses what GitHub refuses. Each request and each answer is checked against
// GitHub's own OpenAPI description; what stands only in GitHub's prose is checked here, a file for each kind of thing. It can be made to fail as
// GitHub does.
package github

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/routers"
)

// GitHub is one GitHub. Safe for concurrent use.
type GitHub struct {
	URL string // of the API

	t           testing.TB
	description *description

	mu           sync.Mutex
	clock        func() time.Time
	limits       Limits
	accounts     map[string]*account    // by token
	people       map[string]*account    // by login in lower case
	members      map[string]string      // states, by "org/team/login" in lower case
	repositories map[string]*repository // by "owner/name" in lower case
	moved        map[string]*repository // by a name of before

	apps          map[int64]*app
	codes         map[string]*app // that were made of manifests
	installations map[int64]*installation
	tokens        map[string]*Issued // that are good
	issued        []Issued
	outgoing      []func()       // deliveries of what happened, not yet begun
	sending       sync.WaitGroup // deliveries
	nextID        int64
	faults        []Fault            // of the next requests
	faultsOf      map[string][]Fault // of the next ones, by operation
	always        Fault              // of those after them
	requests      []Request
	written       map[string]int // by operation
	writes        int            // so far
	around        func(Write)
	fates         []Fate   // of the next deliveries
	late          []func() // deliveries that wait for the next one
}

// Request is one that was answered, or cut.
type Request struct {
	Method, Path string
	Operation    string    // GitHub's name of it, such as checks/update, or graphql; "": none that is known
	Status       int       // of the answer; 0: none was given
	At           time.Time // it came
}

// New makes a GitHub that is reached by Client only: all happens in the goroutine that asks, so that it can be used where time is virtual.
func New(t testing.TB) *GitHub {
	t.Helper()
	d, err := described()
	if err != nil {
		t.Fatal(err)
	}
	g := &GitHub{URL: "https://api.github.test/", t: t, description: d, clock: time.Now, limits: GitHubLimits, accounts: map[string]*account{}, people: map[string]*account{}, members: map[string]string{},
		repositories: map[string]*repository{},
		moved:        map[string]*repository{}, apps: map[int64]*app{}, codes: map[string]*app{}, installations: map[int64]*installation{}, tokens: map[string]*Issued{}, written: map[string]int{}, faultsOf: map[string][]Fault{}}
	t.Cleanup(g.sending.Wait)
	return g
}

// Start makes a GitHub that listens on this machine until the test ends.
func Start(t testing.TB) *GitHub {
	t.Helper()
	g := New(t)
	web := httptest.NewServer(g)
	t.Cleanup(web.Close)
	g.URL = web.URL + "/"
	return g
}

// Client reaches this GitHub whatever host is asked for, without a network.
func (g *GitHub) Client() *http.Client { return &http.Client{Transport: inProcess{g}} }

type inProcess struct{ g *GitHub }

// RoundTrip implements http.RoundTripper.
func (p inProcess) RoundTrip(r *http.Request) (response *http.Response, err error) {
	served := r.Clone(r.Context())
	if r.Body == nil {
		served.Body = http.NoBody
	}
	defer served.Body.Close()
	defer func() {
		panicked := recover()
		if cut, is := panicked.(error); is && errors.Is(cut, http.ErrAbortHandler) {
			response, err = nil, io.ErrUnexpectedEOF
		} else if panicked != nil {
			panic(panicked)
		}
	}()
	recorder := httptest.NewRecorder()
	p.g.ServeHTTP(recorder, served)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	response = recorder.Result()
	response.Request = r
	return response, nil
}

// ServeHTTP implements http.Handler.
func (g *GitHub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	written := &watched{ResponseWriter: w}
	c := g.arrive(r)
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.requests = append(g.requests, Request{r.Method, r.URL.Path, c.operation, written.status, c.at})
	}()
	g.fault(c.operation)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { c.serve(w) })).ServeHTTP(written, r)
}

// watched remembers which status was answered.
type watched struct {
	http.ResponseWriter
	status int
}

func (w *watched) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Requests are those that were answered or cut, oldest first.
func (g *GitHub) Requests() []Request {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]Request(nil), g.requests...)
}

// arrive finds out what a request is for.
func (g *GitHub) arrive(r *http.Request) *call {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := &call{g: g, request: r, at: g.now(), moved: g.lead(r)}
	var err error
	switch c.route, c.vars, err = g.description.find(r); {
	case err == nil:
		c.operation = c.route.Operation.OperationID
	case isGraphQL(r):
		c.operation = "graphql"
	}
	return c
}

// serve does what is asked, and answers.
func (c *call) serve(w http.ResponseWriter) {
	body, err := io.ReadAll(http.MaxBytesReader(w, c.request.Body, 10<<20))
	if err != nil {
		return // who asked is gone
	}
	c.body = body
	around := c.beforeWrite()
	a := c.do()
	around()
	for key, values := range a.header {
		w.Header()[key] = values
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.text()) // who asked may be gone
}

// do does what is asked, alone, and begins to tell of it.
func (c *call) do() answer {
	g := c.g
	g.mu.Lock()
	defer g.mu.Unlock()
	a := c.unchanged(g.answer(c))
	for _, deliver := range g.begun() {
		g.sending.Go(deliver)
	}
	header := http.Header{"Content-Type": {contentType}}
	header.Set("X-GitHub-Request-Id", fmt.Sprintf("TEST:%d", g.id()))
	if c.account != nil {
		c.account.show(header)
	}
	maps.Copy(header, a.header)
	a.header = header
	return a
}

// Clock replaces the clock, which is the machine's.
func (g *GitHub) Clock(now func() time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.clock = now
}

func (g *GitHub) now() time.Time { return g.clock() }

// call is a request on its way through.
type call struct {
	g         *GitHub
	request   *http.Request
	at        time.Time // it came
	operation string    // by the description's operationId, or graphql; "": none that is known
	route     *routers.Route
	vars      map[string]string // of the path
	moved     *answer           // the repository has another name
	body      []byte
	account   *account
	app       *app    // who asks is an App itself
	issued    *Issued // who asks has a token of an installation
}

// read takes the body, which the description allows, apart.
func (c *call) read(into any) error { return json.Unmarshal(c.body, into) }

// answer goes through what each request must pass, in GitHub's order, and lets its operation answer.
func (g *GitHub) answer(c *call) answer {
	if c.request.UserAgent() == "" {
		return refuse(http.StatusForbidden, "Request forbidden by administrative rules. Please make sure your request has a User-Agent header.")
	}
	if !slices.Contains(open, c.operation) {
		if refused := c.who(); refused != nil {
			return *refused
		}
		if refused := c.account.admit(c.request.Method, c.operation, g.limits, g.now()); refused != nil {
			return *refused
		}
	}
	switch {
	case c.moved != nil:
		return *c.moved
	case c.operation == "graphql":
		return graphql(c)
	case c.route == nil:
		return notFound()
	}
	if refused := c.fits(); refused != nil {
		return *refused
	}
	if len(c.body) > 0 && !json.Valid(c.body) {
		return refuse(http.StatusBadRequest, "Problems parsing JSON")
	}
	c.request.Body = io.NopCloser(bytes.NewReader(c.body))
	if err := g.description.checkRequest(c.request, c.route, c.vars); err != nil {
		return invalidRequest(err)
	}
	do := operations[c.operation]
	if do == nil {
		g.t.Errorf("the GitHub for tests cannot do %s yet: %s %s", c.operation, c.request.Method, c.request.URL.Path)
		return refuse(http.StatusNotImplemented, "this GitHub for tests cannot do "+c.operation+" yet")
	}
	a := do(c)
	if err := g.description.checkAnswer(c.request, c.route, c.vars, a); err != nil {
		g.t.Errorf("the GitHub for tests answers %s %s as GitHub never does: %v", c.request.Method, c.request.URL.Path, err)
	}
	if c.request.Method != http.MethodGet && a.status < 300 && (creates[c.operation] == "" || a.status == http.StatusCreated) {
		g.written[c.operation]++
	}
	return a
}

// id is a number that nothing else has.
func (g *GitHub) id() int64 {
	g.nextID++
	return g.nextID
}

// described loads the description once for all tests of a process: it is only read.
var described = sync.OnceValues(loadDescription)
