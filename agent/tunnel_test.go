// Package agent_test runs both ends of the tunnel with real sockets: a hub, agents, the built-in issuer, and HTTPS servers in the API server's place.
package agent_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"towpath/agent/edge"
	"towpath/agent/hub"
	"towpath/issuer"
)

// world is a hub with its issuer, and the certificate both use.
type world struct {
	t        testing.TB
	ctx      context.Context
	dir      string
	ca       string // file
	cert     tls.Certificate
	issuer   *issuer.Issuer
	issuerAt string
	verifier *hub.Verifier
	verify   func(context.Context, string) (hub.Identity, error) // in place of verifier's; nil: that
	limits   hub.Limits
	clock    func() time.Time // the hub's; nil: the real one
	logs     *logs

	mu      sync.Mutex
	names   map[string]string // client id → agent
	revoked time.Time         // tokens before this
	hub     *hub.Hub
	address string
	changes chan struct{} // a session came or went
}

// logs keeps what was logged.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logs) logger() *logrus.Logger {
	log := logrus.New()
	log.SetOutput(l)
	log.SetLevel(logrus.DebugLevel)
	return log
}

const audience = "towpath-hub"

func newWorld(t testing.TB, limits hub.Limits) *world {
	t.Helper()
	w := newEmptyWorld(t, limits)
	w.startHub("127.0.0.1:0")
	return w
}

// newEmptyWorld has no hub yet.
func newEmptyWorld(t testing.TB, limits hub.Limits) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	w := &world{t: t, ctx: ctx, dir: t.TempDir(), limits: limits, names: map[string]string{}, logs: &logs{}, changes: make(chan struct{}, 1)}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(w.logs.String())
		}
	})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.issuer.Handler().ServeHTTP(rw, r) }))
	server.StartTLS()
	t.Cleanup(server.Close)
	w.issuerAt = server.URL
	w.cert = server.TLS.Certificates[0]
	w.ca = w.file("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	var err error
	w.issuer, err = issuer.New(issuer.Config{URL: server.URL, Audience: audience, Store: newStore()})
	ok(t, err)
	w.verifier, err = hub.NewVerifier(hub.VerifierConfig{Issuer: server.URL, Audience: audience, Keys: w.issuer, Lookup: w.lookup})
	ok(t, err)
	return w
}

func (w *world) lookup(_ context.Context, _, subject string) (hub.Owner, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if name := w.names[subject]; name != "" {
		return hub.Owner{Tenant: "t", Agent: name, Revoked: w.revoked}, nil
	}
	return hub.Owner{}, errors.New("no agent has it")
}

// startHub begins, or begins again, at an address.
func (w *world) startHub(address string) {
	w.t.Helper()
	listener, err := net.Listen("tcp", address)
	ok(w.t, err)
	verify := w.verify
	if verify == nil {
		verify = w.verifier.Verify
	}
	h, err := hub.New(hub.Config{Verify: verify, Log: w.logs.logger(), Limits: w.limits, Clock: w.clock, Changed: func(string, string) {
		select {
		case w.changes <- struct{}{}:
		default:
		}
	}})
	ok(w.t, err)
	w.hub, w.address = h, listener.Addr().String()
	served := make(chan error, 1)
	go func() { served <- h.Serve(listener, &tls.Config{Certificates: []tls.Certificate{w.cert}}) }()
	w.t.Cleanup(func() {
		h.Close()
		ok(w.t, <-served)
	})
}

func (w *world) file(name string, content []byte) string {
	name = filepath.Join(w.dir, name)
	ok(w.t, os.WriteFile(name, content, 0o600))
	return name
}

// identity makes a client for an agent and returns an agent's configuration for a backend.
func (w *world) identity(name string, kubernetes *httptest.Server) edge.Config {
	w.t.Helper()
	id, secret, err := w.issuer.Create(w.ctx, hub.Scope)
	ok(w.t, err)
	w.mu.Lock()
	w.names[id] = name
	w.mu.Unlock()
	c := edge.Config{
		Agent: name, Instance: name + "-0", Listen: "off", Hub: edge.Hub{Address: w.address, CAFile: w.ca},
		Identity:   edge.Identity{Issuer: w.issuerAt, ClientID: id, ClientSecretFile: w.file(id, []byte(secret+"\n")), CAFile: w.ca},
		Kubernetes: edge.Kubernetes{Off: true},
	}
	if kubernetes != nil {
		c.Kubernetes = edge.Kubernetes{Server: kubernetes.URL, CAFile: w.authority(kubernetes), TokenFile: w.file(name+".token", []byte("sa-token-1"))}
	}
	return c
}

// authority writes the certificate of a test server, which is its own authority.
func (w *world) authority(server *httptest.Server) string {
	return w.file("backend.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
}

// run starts an agent; stop ends it and returns what Run did.
func (w *world) run(c edge.Config, timing edge.Timing) (stop func() error) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.ctx)
	result := make(chan error, 1)
	go func() {
		result <- edge.Run(ctx, c, edge.Options{Version: "test", Log: w.logs.logger().WithField("instance", c.Instance), Timing: timing, Getenv: func(string) string { return "" }})
	}()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-result
	})
	w.t.Cleanup(func() { _ = stop() })
	return stop
}

// start runs an agent and waits until it is connected.
func (w *world) start(c edge.Config, timing edge.Timing) (stop func() error) {
	w.t.Helper()
	stop = w.run(c, timing)
	w.await(func() bool {
		for _, s := range w.hub.Agents() {
			if s.Agent == c.Agent && s.Instance == c.Instance && !s.Draining && s.Idle > 0 {
				return true
			}
		}
		return false
	}, c.Agent+" is connected")
	return stop
}

// await looks until something holds, or the test's time is over.
func (w *world) await(holds func() bool, what string) {
	w.t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !holds() {
		select {
		case <-ticker.C:
		case <-w.ctx.Done():
			w.t.Fatalf("waited in vain until: %s", what)
		}
	}
}

func (w *world) client(agent string, options ...hub.Option) *http.Client {
	return &http.Client{Transport: w.hub.Transport("t", agent, options...), CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// do sends a request and reads its whole answer.
func (w *world) do(agent, method, path string, body io.Reader, options ...hub.Option) (*http.Response, string, error) {
	w.t.Helper()
	request, err := http.NewRequestWithContext(w.ctx, method, "http://cluster"+path, body)
	ok(w.t, err)
	return read(w.client(agent, options...).Do(request))
}

func read(response *http.Response, err error) (*http.Response, string, error) {
	if err != nil {
		return nil, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response, string(text), err
}

// cluster is an HTTPS server with HTTP/2, as an API server is one.
func cluster(t testing.TB, handler http.HandlerFunc) *httptest.Server {
	server := httptest.NewUnstartedServer(handler)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T comparable](t testing.TB, got, want T, what string) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func contains(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Fatalf("%q does not say %q", text, part)
		}
	}
}

// wantCode checks that an error is the tunnel's, of a code.
func wantCode(t testing.TB, err error, code hub.Code, parts ...string) *hub.Error {
	t.Helper()
	var failed *hub.Error
	if !errors.As(err, &failed) {
		t.Fatalf("got %v, want an error %s of the tunnel", err, code)
	}
	equal(t, failed.Code, code, failed.Error())
	contains(t, failed.Error(), parts...)
	return failed
}

func TestARequestReachesTheClusterAndItsAnswerComesBack(t *testing.T) {
	t.Parallel()
	var got struct {
		sync.Mutex
		request *http.Request
		body    string
	}
	k := cluster(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got.Lock()
		got.request, got.body = r.Clone(context.Background()), string(body)
		got.Unlock()
		w.Header().Add("X-Twice", "1")
		w.Header().Add("X-Twice", "2")
		w.Header().Set("Trailer", "X-Sum")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "hello %s", r.URL)
		w.Header().Set("X-Sum", "42")
	})
	w := newWorld(t, hub.Limits{})
	w.start(w.identity("prod", k), edge.Timing{})

	request, err := http.NewRequestWithContext(w.ctx, http.MethodPatch, "http://x/apis/apps/v1/namespaces/a%2Fb?fieldManager=towpath&force=", strings.NewReader("patch me"))
	ok(t, err)
	for name, value := range map[string]string{
		"Authorization": "Bearer the caller's", "X-Remote-User": "admin", "X-Forwarded-For": "1.2.3.4", "X-Forwarded-Host": "a", "X-Forwarded-Proto": "https", "Connection": "X-Hop", "X-Hop": "1", "Proxy-Authorization": "p",
		"Te": "trailers", "Content-Type": "application/apply-patch+yaml", "Forwarded": "for=1.2.3.4", "Accept-Encoding": "gzip",
	} {
		request.Header.Set(name, value)
	}
	response, text, err := read(w.client("prod").Do(request))
	ok(t, err)
	equal(t, response.StatusCode, http.StatusCreated, "status")
	equal(t, text, "hello /apis/apps/v1/namespaces/a%2Fb?fieldManager=towpath&force=", "body")
	equal(t, strings.Join(response.Header["X-Twice"], ","), "1,2", "repeated header")
	equal(t, response.Trailer.Get("X-Sum"), "42", "trailer")

	got.Lock()
	defer got.Unlock()
	equal(t, got.request.ProtoMajor, 2, "the API server's protocol")
	equal(t, got.body, "patch me", "request body")
	equal(t, got.request.ContentLength, 8, "request length")
	equal(t, got.request.Method, http.MethodPatch, "method")
	equal(t, got.request.Header.Get("Authorization"), "Bearer sa-token-1", "the ServiceAccount's token in place of the caller's")
	equal(t, got.request.Header.Get("Content-Type"), "application/apply-patch+yaml", "a header that travels")
	equal(t, got.request.Header.Get("Accept-Encoding"), "gzip", "compression is the caller's business")
	for _, name := range []string{"X-Remote-User", "X-Forwarded-For", "X-Hop", "Proxy-Authorization", "Te", "Forwarded", "Connection", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		equal(t, got.request.Header.Get(name), "", name+" does not travel")
	}
	got.Unlock()
	visit := request.Clone(w.ctx)
	visit.Body, err = request.GetBody()
	ok(t, err)
	response, _, err = read(w.client("prod", hub.Visits()).Do(visit))
	got.Lock()
	ok(t, err)
	equal(t, response.StatusCode, http.StatusCreated, "status of a visit")
	for name, want := range map[string]string{"X-Forwarded-Host": "a", "X-Forwarded-Proto": "https", "X-Forwarded-For": "", "X-Remote-User": ""} {
		equal(t, got.request.Header.Get(name), want, name+" of a visit")
	}
	w.await(func() bool { return strings.Contains(w.logs.String(), "status=201") }, "the agent has written its audit line")
	contains(t, w.logs.String(), "msg=request", `path="/apis/apps/v1/namespaces/a%2Fb"`, "method=PATCH", "target=kubernetes", "bytes=64")
}
