package agent_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"towpath/agent/edge"
	"towpath/agent/hub"
	"towpath/internal/testkit/faultproxy"
)

// load is workers that send one request after the other; none may fail.
type load struct {
	done    atomic.Int64
	over    atomic.Bool
	workers sync.WaitGroup
}

// work begins; at says which hub a request is sent through at that moment.
func (w *world) work(methods []string, at func() *hub.Hub) *load {
	l := &load{}
	for i := range 8 {
		method := methods[i%len(methods)]
		l.workers.Go(func() {
			client := func() *http.Client { return &http.Client{Transport: at().Transport("t", "prod")} }
			for !l.over.Load() {
				var body io.Reader
				if method != http.MethodGet && method != http.MethodHead {
					body = strings.NewReader("x")
				}
				request, err := http.NewRequestWithContext(w.ctx, method, "http://cluster/small", body)
				if err == nil {
					var text string
					if _, text, err = read(client().Do(request)); err == nil && text != "small" && method != http.MethodHead {
						err = fmt.Errorf("the answer is %q", text)
					}
				}
				if err != nil {
					w.t.Errorf("%s: %v", method, err)
					return
				}
				l.done.Add(1)
			}
		})
	}
	w.t.Cleanup(l.end)
	return l
}

// more waits until the load has done some more.
func (w *world) more(l *load) {
	w.t.Helper()
	enough := l.done.Load() + 100
	w.await(func() bool { return l.done.Load() > enough }, "requests are answered")
}

func (l *load) end() {
	l.over.Store(true)
	l.workers.Wait()
}

var everything = []string{http.MethodGet, http.MethodPost, http.MethodPatch}

// reads have no body that a cut could fall into.
var reads = []string{http.MethodHead}

func small(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	fmt.Fprint(w, "small")
}

func TestOneOfTwoInstancesDrainsUnderLoadAndNothingFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hub.Limits{})
	c := w.identity("prod", cluster(t, small))
	var stops []func() error
	for i := range 2 {
		c.Instance = fmt.Sprint("prod-", i)
		stops = append(stops, w.start(c, edge.Timing{}))
	}
	l := w.work(everything, func() *hub.Hub { return w.hub })
	for i := range 4 { // each twice
		w.more(l)
		ok(t, stops[i%2]())
		w.more(l)
		c.Instance = fmt.Sprint("prod-", i%2)
		stops[i%2] = w.start(c, edge.Timing{})
	}
	l.end()
	w.await(func() bool { return len(w.hub.Agents()) == 2 }, "two sessions")
}

func TestTheOnlyInstanceIsReplacedUnderLoadAndNothingFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hub.Limits{})
	c := w.identity("prod", cluster(t, small))
	stop := w.start(c, edge.Timing{})
	l := w.work(everything, func() *hub.Hub { return w.hub })
	w.more(l)
	ok(t, stop())
	c.Instance = "prod-1" // a pod has its own name
	w.start(c, edge.Timing{})
	w.more(l)
	l.end()
}

func TestAnAgentThatIsKilledCostsNoRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hub.Limits{})
	c := w.identity("prod", cluster(t, small))
	w.start(c, edge.Timing{})
	toHub := faultproxy.Start(t, w.address)
	c.Instance, c.Hub.Address = "prod-1", toHub.Address()
	w.start(c, edge.Timing{})
	l := w.work(reads, func() *hub.Hub { return w.hub })
	for range 3 {
		w.more(l)
		toHub.Cut()
	}
	w.more(l)
	l.end()
}

func TestTheHubRestartsUnderLoadAndNothingFails(t *testing.T) {
	t.Parallel()
	h := newWatcher()
	k := cluster(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/watch" {
			h.ServeHTTP(rw, r)
			return
		}
		small(rw, r)
	})
	w := newWorld(t, hub.Limits{MoveWithin: 10 * time.Millisecond})
	address := faultproxy.Start(t, w.address)
	c := w.identity("prod", k)
	c.Hub.Address = address.Address()
	w.start(c, edge.Timing{})
	var current atomic.Pointer[hub.Hub]
	current.Store(w.hub)
	l := w.work(everything, current.Load)
	for range 3 {
		w.more(l)
		response, err := w.get(w.ctx, "/watch")
		ok(t, err)
		h.say(t, w.ctx, "before")
		lines := bufio.NewReader(response.Body)
		line, err := lines.ReadString('\n')
		ok(t, err)
		equal(t, line, "before\n", "what the watch said")
		old := w.hub
		w.startHub("127.0.0.1:0") // a controller's successor listens, requests go there, and then it stops
		current.Store(w.hub)
		address.Target(w.address)
		ctx, cancel := context.WithTimeout(w.ctx, 500*time.Millisecond)
		_ = old.Drain(ctx) // the watch is still running then
		cancel()
		text, err := io.ReadAll(lines)
		ok(t, err) // watches end between two frames
		equal(t, string(text), "", "what the watch said while the hub stopped")
		next(t, w.ctx, h.ended, "the watch's end at the cluster")
		w.more(l)
	}
	l.end()
	equal(t, len(w.hub.Agents()), 1, "sessions")
}

// Agents reach both hubs by one address; the one that stops hands its agents to the other.
func TestOneOfTwoHubsDrainsUnderLoadAndNothingFails(t *testing.T) {
	t.Parallel()
	const agents = 20
	k := cluster(t, small)
	w := newWorld(t, hub.Limits{MoveWithin: 200 * time.Millisecond})
	first := w.hub
	address := faultproxy.Start(t, w.address)
	var configs []edge.Config // all first: they share files
	for i := range agents {
		c := w.identity(fmt.Sprint("prod-", i), k)
		c.Hub.Address = address.Address()
		configs = append(configs, c)
	}
	for _, c := range configs {
		w.run(c, edge.Timing{})
	}
	w.await(func() bool { return len(first.Agents()) == agents }, "all are connected")
	w.startHub("127.0.0.1:0")
	second := w.hub
	address.Target(w.address)
	began := make(chan struct{})
	var asked sync.WaitGroup
	for i := range agents {
		asked.Go(func() {
			<-began
			request, err := http.NewRequestWithContext(w.ctx, http.MethodPost, "http://cluster/small", strings.NewReader("x"))
			if err == nil {
				_, _, err = read((&http.Client{Transport: second.Transport("t", fmt.Sprint("prod-", i))}).Do(request))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	close(began) // they wait for agents that are not there yet
	ok(t, first.Drain(w.ctx))
	asked.Wait()
	w.await(func() bool { return len(second.Agents()) == agents }, "all have moved")
}

func TestWhatStillRunsWhenTheHubStopsIsToldSo(t *testing.T) {
	t.Parallel()
	begun := make(chan struct{}, 1)
	k := cluster(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		_, _ = w.Write([]byte("12345"))
		w.(http.Flusher).Flush()
		begun <- struct{}{}
		<-r.Context().Done()
	})
	w := newWorld(t, hub.Limits{})
	w.start(w.identity("prod", k), edge.Timing{})
	response, err := w.get(w.ctx, "/")
	ok(t, err)
	next(t, w.ctx, begun, "a request")
	ctx, cancel := context.WithTimeout(w.ctx, 50*time.Millisecond)
	defer cancel()
	if err := w.hub.Drain(ctx); err == nil {
		t.Error("a drain that ended requests says nothing of it")
	}
	_, err = io.ReadAll(response.Body)
	wantCode(t, err, hub.Drain)
	_, _, err = w.do("prod", http.MethodGet, "/", nil)
	wantCode(t, err, hub.NoAgent, "the hub stops")
}

func TestWhatStillRunsWhenTheAgentStopsIsToldSo(t *testing.T) {
	t.Parallel()
	h := newWatcher()
	k := cluster(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/list" {
			w.Header().Set("Content-Length", "10")
			_, _ = w.Write([]byte("12345"))
		}
		h.ServeHTTP(w, r)
	})
	w := newWorld(t, hub.Limits{})
	stop := w.start(w.identity("prod", k), edge.Timing{Drain: 50 * time.Millisecond})
	list, err := w.get(w.ctx, "/list")
	ok(t, err)
	watch, err := w.get(w.ctx, "/watch")
	ok(t, err)
	listed, watched := make(chan error, 1), make(chan error, 1)
	for of, result := range map[*http.Response]chan error{list: listed, watch: watched} {
		go func() {
			_, err := io.ReadAll(of.Body)
			result <- err
		}()
	}
	ok(t, stop())
	wantCode(t, next(t, w.ctx, listed, "the end of a list"), hub.Drain)
	ok(t, next(t, w.ctx, watched, "the end of a watch"))
}

func TestAnAPIServerThatIsReplacedCostsNoRead(t *testing.T) {
	t.Parallel()
	h := newWatcher()
	serve := func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/watch" {
			h.ServeHTTP(rw, r)
			return
		}
		small(rw, r)
	}
	b := newBehind(t, cluster(t, serve), hub.Limits{}, edge.Timing{})
	l := b.work(reads, func() *hub.Hub { return b.hub })
	for range 3 { // one that is killed, behind an address that leads to another at once
		b.more(l)
		b.toCluster.Target(strings.TrimPrefix(cluster(t, serve).URL, "https://"))
		b.toCluster.Cut()
	}
	b.more(l)
	l.end()
	response, err := b.get(b.ctx, "/watch")
	ok(t, err)
	h.say(t, b.ctx, "resumed")
	_, err = bufio.NewReader(response.Body).ReadString('\n')
	ok(t, err)
	equal(t, len(b.hub.Agents()), 1, "sessions")
}
