package agent_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"towpath/agent/edge"
	"towpath/agent/hub"
)

// balancer is a layer-7 proxy in front of a hub: it allows so many streams a connection, and ends one on which nothing was said for a while.
type balancer struct {
	*httptest.Server
	ended atomic.Int64 // streams, by its patience
}

func newBalancer(t *testing.T, w *world, streams int, patience time.Duration) *balancer {
	b := &balancer{}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "https", Host: w.address})
	proxy.FlushInterval = -1
	b.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		timer := time.AfterFunc(patience, func() {
			b.ended.Add(1)
			cancel()
		})
		defer timer.Stop()
		said := func() { timer.Reset(patience) }
		r = r.WithContext(ctx)
		r.Body = heard{r.Body, said}
		proxy.ServeHTTP(saying{rw, said}, r)
	}))
	b.EnableHTTP2 = true
	b.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: streams}
	b.Config.ErrorLog = quietLog
	proxy.ErrorLog = quietLog
	b.StartTLS()
	t.Cleanup(b.Close)
	proxy.Transport = b.Client().Transport // trusts the certificate of every test server
	return b
}

type heard struct {
	io.ReadCloser
	said func()
}

func (h heard) Read(p []byte) (int, error) {
	n, err := h.ReadCloser.Read(p)
	h.said()
	return n, err
}

type saying struct {
	http.ResponseWriter
	said func()
}

func (s saying) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (s saying) Write(p []byte) (int, error) {
	s.said()
	return s.ResponseWriter.Write(p)
}

func TestABalancerThatEndsSilentStreamsLosesNothing(t *testing.T) {
	t.Parallel()
	const patience = 3 * time.Second
	const beat = patience / 6 // a session is given up after three: longer than a loaded machine stands still
	h := newWatcher()
	w := newWorld(t, hub.Limits{Beat: beat})
	b := newBalancer(t, w, 128, patience)
	c := w.identity("prod", cluster(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/watch" {
			h.ServeHTTP(rw, r)
			return
		}
		small(rw, r)
	}))
	c.Hub.Address = b.Listener.Addr().String()
	w.start(c, edge.Timing{Beat: beat})
	watch, err := w.get(w.ctx, "/watch") // silent, but for beats
	ok(t, err)
	w.await(func() bool { return b.ended.Load() > 3 }, "the waiting streams were ended a few times")
	w.await(func() bool { list := w.hub.Agents(); return len(list) == 1 && list[0].Idle > 0 }, "there are waiting streams again")
	var burst sync.WaitGroup
	for range 500 {
		burst.Go(func() {
			if _, _, err := w.do("prod", http.MethodGet, "/small", nil); err != nil {
				t.Error(err)
			}
		})
	}
	burst.Wait()
	h.say(t, w.ctx, "still there")
	_, err = io.ReadFull(watch.Body, make([]byte, len("still there\n")))
	ok(t, err)
	equal(t, len(w.hub.Agents()), 1, "sessions")
}

func TestAStreamThatEndsAfterAWhileIsReplacedAtOnce(t *testing.T) {
	t.Parallel()
	var ended atomic.Int64
	h := newHostileHub(t, cluster(t, func(http.ResponseWriter, *http.Request) {}), func(r *relayed) error {
		select {
		case <-time.After(50 * time.Millisecond): // the balancer's patience
			ended.Add(1)
			return status.Error(codes.Canceled, "stream idle timeout")
		case <-r.drain:
		case <-r.Context().Done():
		}
		return nil
	})
	stop := h.run(t, edge.Timing{Beat: 10 * time.Millisecond})
	deadline := time.After(10 * time.Second) // pauses as between failures would take longer
	for ended.Load() < 100 {
		select {
		case <-deadline:
			t.Fatalf("%d streams in 10 s", ended.Load())
		case <-time.After(10 * time.Millisecond):
		}
	}
	ok(t, stop())
}
