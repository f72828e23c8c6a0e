// Package receiver is a server that webhooks call in tests: it keeps what it is sent, and answers as it is told.
package receiver

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// Receiver is safe for concurrent use.
type Receiver struct {
	URL  string
	Host string // of the URL, with the port

	mu    sync.Mutex
	calls []Call
	reply func(http.ResponseWriter, *http.Request)
}

// Call is one request that came.
type Call struct {
	Method, URI, Body string
	Header            http.Header
}

// Start starts a server that answers with 200, until the test ends.
func Start(t testing.TB) *Receiver {
	r := &Receiver{}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	r.URL, r.Host = server.URL, strings.TrimPrefix(server.URL, "http://")
	return r
}

// Reply says how requests are answered from now on.
func (r *Receiver) Reply(with func(http.ResponseWriter, *http.Request)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reply = with
}

// Calls is what came so far.
func (r *Receiver) Calls() []Call {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Call(nil), r.calls...)
}

// ServeHTTP implements http.Handler.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, _ := io.ReadAll(io.LimitReader(request.Body, 2<<20)) // what was sent whole is what counts
	r.mu.Lock()
	r.calls = append(r.calls, Call{request.Method, request.RequestURI, string(body), request.Header.Clone()})
	reply := r.reply
	r.mu.Unlock()
	if reply != nil {
		reply(w, request)
	}
}
