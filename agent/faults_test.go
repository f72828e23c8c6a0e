package agent_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"towpath/agent/edge"
	"towpath/agent/hub"
	"towpath/internal/testkit/faultproxy"
)

// Which test shows which fault (specification, "Tests to write"):
//
//	cut or reset in mid-body, either leg     TestACutInMidBody…
//	silent partition, one way and both       TestASilentPartition…, TestAnAgentThatIsAloneForTooLongGivesUp, TestAServerThatFallsSilent…
//	balancer                                 TestABalancer…, in balancer_test.go
//	slow reader, slow backend, cancel        TestABodyThatNobodyReads…; TestALargeBody…, TestALargeUpload… in flow_test.go
//	watches opened and cancelled             TestNothingIsLeftBehind, in flow_test.go
//	stream retired, burst                    TestStreamsThatAreRetired…; TestABurst… in flow_test.go
//	narrow and long links                    links_test.go; the figures are measured by bench
//	headers, lengths, early answers, …       rules_test.go, tunnel_test.go
//	tokens, keys, clocks, revocation, names  identity_test.go; the controller's own tests for its store and for issuers elsewhere
//	impersonation, redirect, addresses, ..   rules_test.go; edge/dial_test.go
//	proxies                                  proxy_test.go
//	restarts and drains                      drain_test.go; of several hubs, peers_test.go
//	fuzzed frames                            fuzz_test.go
//	client-go, exec, port-forward            kubernetes_test.go

// behind is an agent whose hub and whose cluster are each reached through a proxy.
type behind struct {
	*world
	toHub, toCluster *faultproxy.Proxy
	stop             func() error
}

func newBehind(t *testing.T, k *httptest.Server, limits hub.Limits, timing edge.Timing) *behind {
	t.Helper()
	w := newWorld(t, limits)
	b := &behind{world: w, toHub: faultproxy.Start(t, w.address), toCluster: faultproxy.Start(t, strings.TrimPrefix(k.URL, "https://"))}
	c := w.identity("prod", k)
	c.Hub.Address, c.Kubernetes.Server = b.toHub.Address(), "https://"+b.toCluster.Address()
	b.stop = w.start(c, timing)
	return b
}

// get sends a GET and returns once its answer has begun.
func (w *world) get(ctx context.Context, path string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://cluster"+path, nil)
	ok(w.t, err)
	return w.client("prod").Do(request)
}

func TestACutInMidBodyFailsTheReadAndTheNextRequestWorks(t *testing.T) {
	t.Parallel()
	for _, leg := range []string{"tunnel", "cluster"} {
		for _, body := range []string{"with a length", "of a watch", "of an upload"} {
			t.Run(leg+", body "+body, func(t *testing.T) {
				t.Parallel()
				begun := make(chan struct{}, 1)
				k := cluster(t, func(w http.ResponseWriter, r *http.Request) {
					switch r.URL.Path {
					case "/small":
						fmt.Fprint(w, "small")
						return
					case "/with a length":
						w.Header().Set("Content-Length", fmt.Sprint(2<<20))
					case "/of an upload":
						_, _ = io.ReadFull(r.Body, make([]byte, 1<<20))
						begun <- struct{}{}
						_, _ = io.Copy(io.Discard, r.Body)
						return
					}
					_, _ = w.Write(make([]byte, 1<<20))
					w.(http.Flusher).Flush()
					<-r.Context().Done()
				})
				b := newBehind(t, k, hub.Limits{Wait: 5 * time.Second}, edge.Timing{})
				cut := b.toHub.Cut
				if leg == "cluster" {
					cut = b.toCluster.Cut
				}
				var err error
				if body == "of an upload" {
					failed := make(chan error, 1)
					go func() {
						_, _, err := b.do("prod", http.MethodPost, "/of%20an%20upload", io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<20)), endless{b.ctx}))
						failed <- err
					}()
					next(t, b.ctx, begun, "an upload")
					cut()
					err = next(t, b.ctx, failed, "the end of the upload")
				} else {
					response, startErr := b.get(b.ctx, "/"+strings.ReplaceAll(body, " ", "%20"))
					ok(t, startErr)
					_, startErr = io.ReadFull(response.Body, make([]byte, 1<<20))
					ok(t, startErr)
					cut()
					_, err = io.ReadAll(response.Body)
					ok(t, response.Body.Close())
				}
				if failed := wantCode(t, err, hub.Lost); !failed.Sent {
					t.Errorf("%v says that nothing was sent", err)
				}
				_, text, err := b.do("prod", http.MethodGet, "/small", nil)
				ok(t, err)
				equal(t, text, "small", "the next answer")
				b.await(func() bool { list := b.hub.Agents(); return len(list) == 1 && list[0].Running == 0 }, "one session, and nothing runs in it")
			})
		}
	}
}

// endless is a body that has no more to say for now.
type endless struct{ ctx context.Context }

func (e endless) Read([]byte) (int, error) {
	<-e.ctx.Done()
	return 0, e.ctx.Err()
}

// The times are the real ones, as gRPC takes none that are shorter; so all three are waited for at once.
func TestASilentPartitionIsNoticedAndHealed(t *testing.T) {
	t.Parallel()
	type partition struct {
		*behind
		cluster    *watcher
		directions []faultproxy.Direction
		watch      *http.Response
		began      time.Time
	}
	all := map[string]*partition{
		"nothing arrives at the hub": {directions: []faultproxy.Direction{faultproxy.Up}}, "nothing arrives at the agent": {directions: []faultproxy.Direction{faultproxy.Down}},
		"both ways": {directions: []faultproxy.Direction{faultproxy.Up, faultproxy.Down}},
	}
	for _, p := range all {
		p.cluster = newWatcher()
		p.behind = newBehind(t, cluster(t, p.cluster.ServeHTTP), hub.Limits{}, edge.Timing{Hello: time.Second})
		var err error
		p.watch, err = p.get(p.ctx, "/watch")
		ok(t, err)
		next(t, p.ctx, p.cluster.begun, "a watch")
		p.toHub.Stall(true, p.directions...)
		p.began = time.Now()
	}
	for name, p := range all {
		_, err := io.ReadAll(p.watch.Body)
		wantCode(t, err, hub.Lost)
		next(t, p.ctx, p.cluster.ended, name+": the watch's end at the cluster")
		p.await(func() bool { return len(p.hub.Agents()) == 0 && strings.Contains(p.logs.String(), "a session ended") }, name+": both ends have noticed")
		if noticed := time.Since(p.began); noticed > 30*time.Second { // 15 s are promised
			t.Errorf("%s: noticed after %s", name, noticed)
		}
		p.toHub.Stall(false, p.directions...)
	}
	for name, p := range all {
		watch, err := p.get(p.ctx, "/watch")
		ok(t, err)
		p.cluster.say(t, p.ctx, "resumed")
		line, err := bufio.NewReader(watch.Body).ReadString('\n')
		ok(t, err)
		equal(t, line, "resumed\n", name+": an event after it")
		ok(t, watch.Body.Close())
		p.await(func() bool { return len(p.hub.Agents()) == 1 }, name+": one session at the end")
	}
}

func TestAnAgentThatIsAloneForTooLongGivesUp(t *testing.T) {
	t.Parallel()
	k := cluster(t, func(http.ResponseWriter, *http.Request) {})
	w := newWorld(t, hub.Limits{})
	toHub := faultproxy.Start(t, w.address)
	c := w.identity("prod", k)
	c.Hub.Address = toHub.Address()
	ended := w.start(c, edge.Timing{GiveUp: time.Millisecond})
	toHub.Refuse(true)
	toHub.Cut()
	w.await(func() bool { return len(w.hub.Agents()) == 0 }, "the session has ended")
	w.await(func() bool { return strings.Contains(w.logs.String(), "not connected") || toHub.Connections() > 1 }, "the agent tries again")
	err := ended()
	if err != nil { // unless it was stopped first
		contains(t, err.Error(), "no session with the hub for 1ms")
	}
	toHub.Refuse(false)
	w.start(c, edge.Timing{}) // the fresh process
	_, _, err = w.do("prod", http.MethodGet, "/", nil)
	ok(t, err)
}

func TestAServerThatFallsSilentIsGivenUp(t *testing.T) {
	t.Parallel()
	h := newWatcher()
	b := newBehind(t, cluster(t, h.ServeHTTP), hub.Limits{}, edge.Timing{ServerSilent: 50 * time.Millisecond, ServerAnswer: 200 * time.Millisecond})
	response, err := b.get(b.ctx, "/watch")
	ok(t, err)
	b.toCluster.Stall(true, faultproxy.Down)
	_, err = io.ReadAll(response.Body)
	wantCode(t, err, hub.Lost)
	b.toCluster.Stall(false, faultproxy.Down)
	response, err = b.get(b.ctx, "/watch")
	ok(t, err)
	h.say(t, b.ctx, "resumed")
	_, err = bufio.NewReader(response.Body).ReadString('\n')
	ok(t, err)
	equal(t, len(b.hub.Agents()), 1, "sessions")
}

func TestABodyThatNobodyReadsStopsAtTheCluster(t *testing.T) {
	t.Parallel()
	var taken atomic.Int64
	ended := make(chan struct{}, 1)
	k := cluster(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/small" {
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(1<<30))
		for r.Context().Err() == nil {
			n, err := w.Write(make([]byte, 64<<10))
			if taken.Add(int64(n)); err != nil {
				break
			}
		}
		ended <- struct{}{}
	})
	w := newWorld(t, hub.Limits{})
	w.start(w.identity("prod", k), edge.Timing{})
	ctx, cancel := context.WithCancel(w.ctx)
	response, err := w.get(ctx, "/large")
	ok(t, err)
	for before := int64(-1); before != taken.Load(); { // until it stands still over a hundred requests of others
		before = taken.Load()
		for range 100 {
			_, _, err := w.do("prod", http.MethodGet, "/small", nil)
			ok(t, err)
		}
	}
	if n := taken.Load(); n > 64<<20 {
		t.Errorf("%d bytes lie somewhere between the cluster and a caller who reads none", n)
	}
	cancel()
	next(t, w.ctx, ended, "the cluster's end")
	ok(t, response.Body.Close())
	w.await(func() bool { list := w.hub.Agents(); return len(list) == 1 && list[0].Running == 0 }, "no stream is running")
}

func TestStreamsThatAreRetiredUnderLoadLoseNothing(t *testing.T) {
	t.Parallel()
	k := cluster(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	})
	w := newWorld(t, hub.Limits{Quiet: time.Nanosecond, Beat: 300 * time.Millisecond}) // the pool shrinks at each beat
	w.start(w.identity("prod", k), edge.Timing{})
	var over atomic.Bool
	var workers sync.WaitGroup
	for range 40 { // the pool grows
		workers.Go(func() {
			for !over.Load() {
				if _, text, err := w.do("prod", http.MethodPost, "/", strings.NewReader("x")); err != nil || text != "x" {
					t.Errorf("%q %v", text, err)
				}
			}
		})
	}
	last, beats := time.Time{}, 0
	w.await(func() bool {
		if list := w.hub.Agents(); len(list) == 1 && list[0].LastBeat.After(last) {
			last = list[0].LastBeat
			beats++
		}
		return beats > 5
	}, "five beats have passed")
	over.Store(true)
	workers.Wait()
	w.await(func() bool { list := w.hub.Agents(); return len(list) == 1 && list[0].Idle <= 8 }, "the pool is small again")
}
