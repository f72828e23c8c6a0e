package agent_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"towpath/agent/edge"
	"towpath/agent/hub"
	"towpath/internal/testkit/faultproxy"
)

// replicas are hubs that use each other's agents. Each has the directory's view of the others.
type replicas struct {
	*world
	clock func() time.Time // of hubs; nil: time.Now
	mu    sync.Mutex
	all   []*replica
}

type replica struct {
	*hub.Hub
	of       *replicas
	agentsAt string
	peersAt  string
	asked    atomic.Int64                   // how often it looked into the directory
	lies     func(agent string) []hub.Place // what is said to be there in place of its sessions
	knows    func(agent string) []hub.Place // what it is told in place of the truth
}

var installation = bytes.Repeat([]byte{7}, 32)

func newReplicas(t testing.TB, limits hub.Limits, count int) *replicas {
	t.Helper()
	rs := &replicas{world: newEmptyWorld(t, limits)}
	for range count {
		rs.add(installation)
	}
	return rs
}

// add begins a replica whose key file holds keys; agents are configured for the newest.
func (rs *replicas) add(keys ...[]byte) *replica {
	rs.t.Helper()
	r := &replica{of: rs}
	authority, err := hub.NewAuthority(keys, nil)
	ok(rs.t, err)
	r.Hub, err = hub.New(hub.Config{Verify: rs.verifier.Verify, Log: rs.logs.logger(), Clock: rs.clock, Limits: rs.limits, Changed: rs.moved, Peers: &hub.Peers{Directory: r, Authority: authority}})
	ok(rs.t, err)
	agents, err := net.Listen("tcp", "127.0.0.1:0")
	ok(rs.t, err)
	peers, err := net.Listen("tcp", "127.0.0.1:0")
	ok(rs.t, err)
	r.agentsAt, r.peersAt = agents.Addr().String(), peers.Addr().String()
	served := make(chan error, 2)
	go func() { served <- r.Serve(agents, &tls.Config{Certificates: []tls.Certificate{rs.cert}}) }()
	go func() { served <- r.ServePeers(peers) }()
	rs.t.Cleanup(func() {
		r.Close()
		ok(rs.t, <-served)
		ok(rs.t, <-served)
	})
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.all = append(rs.all, r)
	rs.hub, rs.address = r.Hub, r.agentsAt
	return r
}

// moved tells all of a change, as news do.
func (rs *replicas) moved(string, string) {
	rs.mu.Lock()
	all := slices.Clone(rs.all)
	rs.mu.Unlock()
	for _, r := range all {
		r.Moved()
	}
}

// Find implements hub.Directory.
func (r *replica) Find(_ context.Context, tenant, agent string) (found []hub.Place, err error) {
	r.asked.Add(1)
	if r.knows != nil {
		return r.knows(agent), nil
	}
	r.of.mu.Lock()
	defer r.of.mu.Unlock()
	for _, other := range r.of.all {
		switch {
		case other == r:
		case other.lies != nil:
			found = append(found, other.lies(agent)...)
		default:
			for _, s := range other.Sessions(tenant, agent) {
				if !s.Held && !s.Draining {
					found = append(found, hub.Place{Session: s.Session, Address: other.peersAt})
				}
			}
		}
	}
	return found, nil
}

// forwards is how many requests it has counted that others carried.
func (r *replica) forwards() (count int) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(r)
	families, err := registry.Gather()
	ok(r.of.t, err)
	for _, f := range families {
		if f.GetName() == "towpath_hub_forwards_total" {
			for _, m := range f.GetMetric() {
				count += int(m.GetCounter().GetValue())
			}
		}
	}
	return count
}

// at runs an agent that connects to a replica, and waits until it has.
func (rs *replicas) at(r *replica, c edge.Config) (stop func() error) {
	rs.t.Helper()
	rs.hub, c.Hub.Address = r.Hub, r.agentsAt
	return rs.start(c, edge.Timing{})
}

// through sends what client and do send through a replica.
func (rs *replicas) through(r *replica) *replicas {
	rs.hub = r.Hub
	return rs
}

// echo answers with the request's body.
func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Trailer", "X-Sum")
	sum := sha256.New()
	_, _ = io.Copy(io.MultiWriter(w, sum), r.Body)
	w.Header().Set("X-Sum", fmt.Sprintf("%x", sum.Sum(nil)))
}

func TestARequestGoesToTheReplicaThatHasTheAgent(t *testing.T) {
	t.Parallel()
	h := newWatcher()
	k := cluster(t, func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/echo":
			echo(rw, r)
		case "/watch":
			h.ServeHTTP(rw, r)
		case "/exec":
			upgrading(t, func(conn net.Conn, in *bufio.Reader) {
				line, _ := in.ReadString('\n')
				_, _ = io.WriteString(conn, strings.ToUpper(line))
				_, _ = io.Copy(io.Discard, in)
			})(rw, r)
		case "/cut":
			rw.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(rw, "12345")
			rw.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		default:
			small(rw, r)
		}
	})
	rs := newReplicas(t, hub.Limits{}, 2)
	here, there := rs.all[0], rs.all[1]
	rs.at(there, rs.identity("prod", k))
	rs.through(here)
	idle := func() bool {
		s := there.Agents()
		return len(s) == 1 && s[0].Running == 0
	}

	for range 50 { // one after the other, so that streams are used again
		_, text, err := rs.do("prod", http.MethodGet, "/small", nil)
		ok(t, err)
		equal(t, text, "small", "answer")
	}
	rs.await(idle, "the streams are back in their pool")
	equal(t, here.forwards(), 50, "forwards that were counted")
	equal(t, there.forwards(), 0, "forwards that were counted where they came to")

	big := make([]byte, 8<<20)
	_, _ = rand.Read(big)
	response, text, err := rs.do("prod", http.MethodPost, "/echo", bytes.NewReader(big))
	ok(t, err)
	equal(t, text == string(big), true, "8 MiB came back as they were sent")
	equal(t, response.Trailer.Get("X-Sum"), fmt.Sprintf("%x", sha256.Sum256(big)), "trailer")

	watch, err := rs.get(rs.ctx, "/watch")
	ok(t, err)
	lines := bufio.NewReader(watch.Body)
	for i := range 3 {
		h.say(t, rs.ctx, fmt.Sprint("event ", i))
		line, err := lines.ReadString('\n')
		ok(t, err)
		equal(t, line, fmt.Sprintf("event %d\n", i), "event")
	}
	ok(t, watch.Body.Close())
	next(t, rs.ctx, h.ended, "the cluster's end of a watch whose body was closed")
	ctx, cancel := context.WithCancel(rs.ctx)
	watch, err = rs.get(ctx, "/watch")
	ok(t, err)
	cancel()
	next(t, rs.ctx, h.ended, "the cluster's end of a watch that was cancelled")
	ok(t, watch.Body.Close())

	conn := rs.connect("/exec")
	_, err = io.WriteString(conn, "hello\n")
	ok(t, err)
	line, err := bufio.NewReader(conn).ReadString('\n')
	ok(t, err)
	equal(t, line, "HELLO\n", "what exec answers")
	ok(t, conn.Close())

	_, _, err = rs.do("prod", http.MethodGet, "/cut", nil)
	equal(t, wantCode(t, err, hub.Lost).Sent, true, "the request had been sent")
	_, _, err = rs.do("prod", http.MethodGet, "/", nil, hub.Target("registry"))
	equal(t, wantCode(t, err, hub.Refused, `target "registry" is not on the agent's allow-list`).Sent, false, "the request had been sent")
	rs.await(idle, "nothing runs any more")
}

func TestABodyThatNobodyReadsStopsAtTheClusterAlsoAtAnotherReplica(t *testing.T) {
	t.Parallel()
	var taken atomic.Int64
	ended := make(chan struct{}, 1)
	k := cluster(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/small" {
			return
		}
		for r.Context().Err() == nil {
			n, err := w.Write(make([]byte, 64<<10))
			if taken.Add(int64(n)); err != nil {
				break
			}
		}
		ended <- struct{}{}
	})
	rs := newReplicas(t, hub.Limits{}, 2)
	rs.at(rs.all[1], rs.identity("prod", k))
	response, err := rs.through(rs.all[0]).get(rs.ctx, "/large")
	ok(t, err)
	for before := int64(-1); before != taken.Load(); { // until it stands still over a hundred requests of others
		before = taken.Load()
		for range 100 {
			_, _, err := rs.do("prod", http.MethodGet, "/small", nil)
			ok(t, err)
		}
	}
	if n := taken.Load(); n > 64<<20 {
		t.Errorf("%d bytes lie somewhere between the cluster and a caller who reads none", n)
	}
	ok(t, response.Body.Close())
	next(t, rs.ctx, ended, "the cluster's end")
}

func TestARequestIsForwardedOnceAtMost(t *testing.T) {
	t.Parallel()
	rs := newReplicas(t, hub.Limits{Wait: 300 * time.Millisecond, Look: 10 * time.Millisecond}, 3)
	a, b, c := rs.all[0], rs.all[1], rs.all[2]
	a.knows = func(string) []hub.Place { return []hub.Place{{Session: "one", Address: b.peersAt}} }
	b.knows = func(string) []hub.Place { return []hub.Place{{Session: "two", Address: c.peersAt}} }
	c.knows = func(string) []hub.Place { return []hub.Place{{Session: "one", Address: b.peersAt}} }
	_, _, err := rs.through(a).do("prod", http.MethodGet, "/", nil)
	wantCode(t, err, hub.NoAgent, "it is not connected, and did not connect within 300ms")
	equal(t, b.asked.Load()+c.asked.Load(), 0, "times that others looked further")
}

func TestASessionThatWasNotAdmittedIsFoundByNobody(t *testing.T) {
	t.Parallel()
	rs := newReplicas(t, hub.Limits{Wait: 300 * time.Millisecond}, 1)
	here := rs.all[0]
	authority, err := hub.NewAuthority([][]byte{installation}, nil)
	ok(t, err)
	there := &replica{of: rs}
	there.Hub, err = hub.New(hub.Config{Verify: rs.verifier.Verify, Admit: func(context.Context, hub.Status, http.RoundTripper) bool { return false }, Peers: &hub.Peers{Directory: there, Authority: authority}})
	ok(t, err)
	agents, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	peers, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	there.agentsAt, there.peersAt = agents.Addr().String(), peers.Addr().String()
	go func() { _ = there.Serve(agents, &tls.Config{Certificates: []tls.Certificate{rs.cert}}) }()
	go func() { _ = there.ServePeers(peers) }()
	t.Cleanup(there.Close)
	rs.at(there, rs.identity("prod", cluster(t, small)))
	here.knows = func(string) []hub.Place { // also when it is listed by mistake
		return []hub.Place{{Session: there.Agents()[0].Session, Address: there.peersAt}}
	}
	_, _, err = rs.through(here).do("prod", http.MethodGet, "/", nil)
	wantCode(t, err, hub.NoAgent)
}

func TestHubsOfOtherInstallationsAreRefusedBothWays(t *testing.T) {
	t.Parallel()
	rs := newReplicas(t, hub.Limits{Wait: time.Second}, 1)
	ours := rs.all[0]
	stranger := rs.add(bytes.Repeat([]byte{8}, 32))
	k := cluster(t, small)
	rs.at(ours, rs.identity("prod", k))
	rs.at(stranger, rs.identity("dev", k))
	_, _, err := rs.through(stranger).do("prod", http.MethodGet, "/", nil)
	wantCode(t, err, hub.NoAgent, ours.peersAt, "cannot be reached", "one keyFile for all replicas")
	_, _, err = rs.through(ours).do("dev", http.MethodGet, "/", nil)
	wantCode(t, err, hub.NoAgent, stranger.peersAt, "cannot be reached", "certificate signed by unknown authority")
	rs.await(func() bool {
		return strings.Contains(rs.logs.String(), "refused on the listener for other replicas: they prove themselves by a key of this controller's keyFile")
	},
		"the one who refused tells of it")

	// While keys are replaced each replica has both, and not yet in the same order.
	old, fresh := rs.add(installation, bytes.Repeat([]byte{9}, 32)), rs.add(bytes.Repeat([]byte{9}, 32), installation)
	rs.at(old, rs.identity("old", k))
	rs.at(fresh, rs.identity("fresh", k))
	_, _, err = rs.through(old).do("fresh", http.MethodGet, "/", nil)
	ok(t, err)
	_, _, err = rs.through(fresh).do("old", http.MethodGet, "/", nil)
	ok(t, err)
}

func TestStrangersDoNotFillTheLog(t *testing.T) {
	t.Parallel()
	var later atomic.Int64
	rs := newReplicas(t, hub.Limits{}, 0)
	began := time.Now()
	rs.clock = func() time.Time { return began.Add(time.Duration(later.Load())) }
	at := rs.add(installation).peersAt
	lines := func() []string {
		return slices.DeleteFunc(strings.Split(rs.logs.String(), "\n"), func(line string) bool { return !strings.Contains(line, "refused on the listener for other replicas") })
	}
	knock := func(times int) {
		t.Helper()
		for range times {
			conn, err := net.Dial("tcp", at)
			ok(t, err)
			_, err = conn.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
			ok(t, err)
			_, _ = io.Copy(io.Discard, conn) // until it is closed, which is just before it is told
			conn.Close()
		}
	}
	knock(100)
	rs.await(func() bool { return len(lines()) == 5 }, "the first five of a hundred strangers are told of")
	later.Store(int64(time.Minute))
	knock(10)
	rs.await(func() bool { return len(lines()) == 6 }, "one more is, a minute later")
	contains(t, lines()[5], "untold=9") // 95, or what was noted before the clock moved
}

func TestAReplicaThatDiedIsPassedOver(t *testing.T) {
	t.Parallel()
	rs := newReplicas(t, hub.Limits{Wait: 2 * time.Second, Look: 10 * time.Millisecond}, 2)
	a, b := rs.all[0], rs.all[1]
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	ok(t, dead.Close())
	b.lies = func(string) []hub.Place { return []hub.Place{{Session: "dead", Address: dead.Addr().String()}} }
	c := rs.identity("prod", cluster(t, small))
	_, _, err = rs.through(a).do("prod", http.MethodGet, "/", nil)
	wantCode(t, err, hub.NoAgent, "it is connected to the replica at "+dead.Addr().String()+", which cannot be reached")
	asked := make(chan error, 1)
	go func() {
		_, _, err := rs.do("prod", http.MethodPost, "/", strings.NewReader("x"))
		asked <- err
	}()
	c.Hub.Address = a.agentsAt
	rs.start(c, edge.Timing{}) // its agent has come here
	ok(t, next(t, rs.ctx, asked, "an answer"))
}

func TestRequestsThatWaitForOneAgentShareALook(t *testing.T) {
	t.Parallel()
	const requests = 50
	rs := newReplicas(t, hub.Limits{Look: time.Hour}, 2)
	a, b := rs.all[0], rs.all[1]
	c := rs.identity("prod", cluster(t, small))
	var waiting sync.WaitGroup
	for range requests {
		waiting.Go(func() {
			request, err := http.NewRequestWithContext(rs.ctx, http.MethodGet, "http://cluster/", nil)
			if err == nil {
				_, _, err = read((&http.Client{Transport: a.Transport("t", "prod")}).Do(request))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	rs.await(func() bool { return a.asked.Load() > 0 }, "somebody looks")
	rs.at(b, c)
	waiting.Wait()
	if looks := a.asked.Load(); looks > 4 { // at first, and when others moved: there come and go sessions' notices for one
		t.Errorf("%d requests looked %d times", requests, looks)
	}
}

func TestAnInstanceThatBeganElsewhereLeavesItsOldSession(t *testing.T) {
	t.Parallel()
	h := newWatcher()
	rs := newReplicas(t, hub.Limits{}, 2)
	a, b := rs.all[0], rs.all[1]
	c := rs.identity("prod", cluster(t, h.ServeHTTP))
	rs.at(a, c)
	old := a.Agents()[0].Session
	response, err := rs.through(a).get(rs.ctx, "/watch")
	ok(t, err)
	rs.at(b, c) // as after a partition that only the agent has noticed
	a.Supersede(old)
	_, err = io.ReadAll(response.Body)
	wantCode(t, err, hub.Lost, "another session of the same instance took its place")
	rs.await(func() bool {
		return !slices.ContainsFunc(a.Agents(), func(s hub.Status) bool { return s.Session == old })
	}, "the old session is gone")
	a.Supersede(old) // nobody's
}

// behindOne is agents that reach all replicas by one address, which leads to one of them at a time.
func (rs *replicas) behindOne(count int, k http.HandlerFunc, to *replica) (*faultproxy.Proxy, []string) {
	rs.t.Helper()
	server, address := cluster(rs.t, k), faultproxy.Start(rs.t, to.agentsAt)
	var names []string
	var configs []edge.Config // all first: they share files
	for i := range count {
		names = append(names, fmt.Sprint("prod-", i))
		c := rs.identity(names[i], server)
		c.Hub.Address = address.Address()
		configs = append(configs, c)
	}
	for _, c := range configs {
		rs.run(c, edge.Timing{})
	}
	rs.await(func() bool { return len(to.Agents()) == count }, "all are connected")
	return address, names
}

// load has requests sent through any of the replicas that at gives; none may fail.
func (rs *replicas) load(names []string, methods []string, at func() []*replica) *load {
	l := &load{}
	for i := range 8 {
		l.workers.Go(func() {
			for n := i; !l.over.Load(); n++ {
				all, method := at(), methods[n%len(methods)]
				var body io.Reader
				if method == http.MethodPost {
					body = strings.NewReader("x")
				}
				request, err := http.NewRequestWithContext(rs.ctx, method, "http://cluster/small", body)
				if err == nil {
					_, _, err = read((&http.Client{Transport: all[n%len(all)].Transport("t", names[n%len(names)])}).Do(request))
				}
				if err != nil {
					rs.t.Errorf("%s: %v", method, err)
					return
				}
				l.done.Add(1)
			}
		})
	}
	rs.t.Cleanup(l.end)
	return l
}

func TestReplicasStopUnderLoadInTurnAndNothingFails(t *testing.T) {
	t.Parallel()
	const agents = 10
	h := newWatcher()
	rs := newReplicas(t, hub.Limits{MoveWithin: 200 * time.Millisecond}, 3)
	serve := func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/watch" {
			h.ServeHTTP(rw, r)
			return
		}
		small(rw, r)
	}
	address, names := rs.behindOne(agents, serve, rs.all[0])
	var serving atomic.Pointer[[]*replica] // those that people's requests come to
	serving.Store(&rs.all)
	l := rs.load(names, everything, func() []*replica { return *serving.Load() })
	for range 3 {
		stops := (*serving.Load())[0]
		rest := slices.Clone((*serving.Load())[1:])
		rs.more(l)
		var watches sync.WaitGroup
		for i, by := range *serving.Load() { // through the one that stops, and through it for others
			request, err := http.NewRequestWithContext(rs.ctx, http.MethodGet, "http://cluster/watch", nil)
			ok(t, err)
			response, err := (&http.Client{Transport: by.Transport("t", names[i])}).Do(request)
			ok(t, err)
			watches.Go(func() {
				if text, err := io.ReadAll(response.Body); err != nil || len(text) > 0 {
					t.Errorf("a watch ended with %q, %v", text, err)
				}
			})
		}
		address.Target(rest[0].agentsAt)
		stops.Retire() // requests still come to it, and go to where its agents are now
		rs.await(func() bool { return len(rest[0].Agents()) == agents }, "all have moved")
		rs.more(l)
		serving.Store(&rest)
		ctx, cancel := context.WithTimeout(rs.ctx, 500*time.Millisecond)
		_ = stops.Drain(ctx) // watches are still running then
		cancel()
		watches.Wait()
		fresh := append(slices.Clone(rest), rs.add(installation)) // its successor
		serving.Store(&fresh)
		rs.more(l)
	}
	l.end()
}

func TestAReplicaThatIsKilledCostsNoRead(t *testing.T) {
	t.Parallel()
	rs := newReplicas(t, hub.Limits{Look: 20 * time.Millisecond}, 2)
	a, b := rs.all[0], rs.all[1]
	address, names := rs.behindOne(4, small, b)
	l := rs.load(names, reads, func() []*replica { return []*replica{a} })
	rs.more(l)
	address.Target(a.agentsAt)
	b.lies = listed(b) // nobody told that it is gone
	b.Close()
	rs.more(l)
	l.end()
}

// listed is what stays in the directory of a replica that dies now.
func listed(r *replica) func(string) []hub.Place {
	sessions := r.Agents()
	return func(agent string) (left []hub.Place) {
		for _, s := range sessions {
			if s.Agent == agent {
				left = append(left, hub.Place{Session: s.Session, Address: r.peersAt})
			}
		}
		return left
	}
}

func TestForwardsLeaveNothingBehind(t *testing.T) {
	h := newWatcher()
	rs := newReplicas(t, hub.Limits{}, 2)
	rs.at(rs.all[1], rs.identity("prod", cluster(t, h.ServeHTTP)))
	rs.through(rs.all[0])
	round := func() {
		ctx, cancel := context.WithCancel(rs.ctx)
		for range 20 {
			response, err := rs.get(ctx, "/watch")
			ok(t, err)
			defer response.Body.Close()
		}
		cancel()
		for range 20 {
			next(t, rs.ctx, h.ended, "a watch's end at the cluster")
		}
		rs.await(func() bool { s := rs.all[1].Agents(); return s[0].Running == 0 }, "nothing runs any more")
	}
	round()
	var before int
	rs.await(func() bool { // until those that end have ended
		now := runtime.NumGoroutine()
		same := now == before
		before = now
		return same
	}, "the goroutines are settled")
	for range 5 {
		round()
	}
	rs.await(func() bool { return runtime.NumGoroutine() <= before+10 }, "the goroutines are as before")
}
