package agent_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"towpath/agent/edge"
	"towpath/agent/hub"
)

// watcher is a handler that sends a line for each value of events, and tells when requests begin and end.
type watcher struct {
	events       chan string
	ends         chan struct{} // each ends one
	begun, ended chan string
}

func newWatcher() *watcher {
	return &watcher{events: make(chan string), ends: make(chan struct{}), begun: make(chan string, 10_000), ended: make(chan string, 10_000)}
}

func (h *watcher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.begun <- r.URL.Path
	defer func() { h.ended <- r.URL.Path }()
	w.(http.Flusher).Flush()
	for {
		select {
		case event := <-h.events:
			fmt.Fprintln(w, event)
			w.(http.Flusher).Flush()
		case <-h.ends:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// say sends a line through one of the watches.
func (h *watcher) say(t testing.TB, ctx context.Context, event string) {
	t.Helper()
	select {
	case h.events <- event:
	case <-ctx.Done():
		t.Fatalf("nobody watches to whom %q could be said", event)
	}
}

func next[T any](t testing.TB, ctx context.Context, c <-chan T, what string) T {
	t.Helper()
	select {
	case value := <-c:
		return value
	case <-ctx.Done():
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

func TestAWatchDeliversEachEventAtOnceAndEndsWhenItsCallerLeaves(t *testing.T) {
	t.Parallel()
	h := newWatcher()
	k := cluster(t, h.ServeHTTP)
	w := newWorld(t, hub.Limits{})
	w.start(w.identity("prod", k), edge.Timing{})

	watch := func(ctx context.Context) *http.Response {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://x/watch", nil)
		ok(t, err)
		response, err := w.client("prod").Do(request)
		ok(t, err)
		equal(t, response.ContentLength, -1, "length")
		return response
	}
	response := watch(w.ctx)
	lines := bufio.NewReader(response.Body)
	for i := range 5 {
		h.say(t, w.ctx, fmt.Sprint("event ", i))
		line, err := lines.ReadString('\n')
		ok(t, err)
		equal(t, line, fmt.Sprintf("event %d\n", i), "event")
	}
	ok(t, response.Body.Close())
	next(t, w.ctx, h.ended, "the cluster's end of a watch whose body was closed")

	ctx, cancel := context.WithCancel(w.ctx)
	response = watch(ctx)
	cancel()
	_, err := response.Body.Read(make([]byte, 1))
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("reading after cancel: %v", err)
	}
	next(t, w.ctx, h.ended, "the cluster's end of a cancelled watch")
	ok(t, response.Body.Close())
}

func TestADeadlineReachesTheCluster(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{}, 1)
	k := cluster(t, func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		ended <- struct{}{}
	})
	w := newWorld(t, hub.Limits{})
	w.start(w.identity("prod", k), edge.Timing{})
	ctx, cancel := context.WithTimeout(w.ctx, 50*time.Millisecond)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://x/slow", nil)
	ok(t, err)
	_, err = w.client("prod").Do(request)
	var failed *hub.Error
	timedOut := errors.Is(err, context.DeadlineExceeded) || errors.As(err, &failed) && failed.Code == hub.Timeout
	if !timedOut {
		t.Fatalf("got %v, want a timeout", err)
	}
	next(t, w.ctx, ended, "the cluster's end")
}

func TestALargeBodyWithASlowReaderHurtsNobody(t *testing.T) {
	t.Parallel()
	const size = 100 << 20
	k := cluster(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/small" {
			fmt.Fprint(w, "small")
			return
		}
		chunk := make([]byte, 1<<20)
		for i := range size / len(chunk) {
			for n := range chunk {
				chunk[n] = byte(i + n)
			}
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	w := newWorld(t, hub.Limits{})
	w.start(w.identity("prod", k), edge.Timing{})
	request, err := http.NewRequestWithContext(w.ctx, http.MethodGet, "http://x/large", nil)
	ok(t, err)
	response, err := w.client("prod").Do(request)
	ok(t, err)
	defer response.Body.Close()

	buffer := make([]byte, 64<<10)
	total := 0
	for {
		if total/(10<<20) != (total+len(buffer))/(10<<20) { // nobody reads for a while: others are served
			_, text, err := w.do("prod", http.MethodGet, "/small", nil)
			ok(t, err)
			equal(t, text, "small", "a small answer beside")
		}
		n, err := response.Body.Read(buffer)
		for i := range n {
			if want := byte((total+i)/(1<<20) + (total+i)%(1<<20)); buffer[i] != want {
				t.Fatalf("byte %d is %d, want %d", total+i, buffer[i], want)
			}
		}
		total += n
		if errors.Is(err, io.EOF) {
			break
		}
		ok(t, err)
	}
	equal(t, total, size, "bytes")
}

func TestALargeUploadToASlowClusterHurtsNobodyAndCanBeCancelled(t *testing.T) {
	t.Parallel()
	proceed, ended := make(chan struct{}), make(chan error, 1)
	k := cluster(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/stuck":
			_, _ = r.Body.Read(make([]byte, 1))
			<-r.Context().Done() // reads nothing more
			ended <- r.Context().Err()
		case "/large":
			<-proceed
			n, err := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, n, " ", err)
		}
	})
	w := newWorld(t, hub.Limits{})
	w.start(w.identity("prod", k), edge.Timing{Beat: 20 * time.Millisecond})

	uploaded := make(chan string, 1)
	go func() {
		_, text, err := w.do("prod", http.MethodPost, "/large", io.LimitReader(zeros{}, 50<<20))
		uploaded <- fmt.Sprint(text, " ", err)
	}()
	ctx, cancel := context.WithCancel(w.ctx)
	stuck := make(chan error, 1)
	sent := &counting{Reader: io.LimitReader(zeros{}, 1<<30)}
	go func() {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://x/stuck", sent)
		if err == nil {
			_, err = w.client("prod").Do(request)
		}
		stuck <- err
	}()
	w.await(func() bool { return sent.n.Load() > 1<<16 }, "an upload has begun")
	_, _, err := w.do("prod", http.MethodGet, "/small", nil)
	ok(t, err)
	cancel()
	if err := next(t, w.ctx, stuck, "the cancelled upload"); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	next(t, w.ctx, ended, "the cluster's end of the cancelled upload")
	close(proceed)
	equal(t, next(t, w.ctx, uploaded, "the other upload"), fmt.Sprint(50<<20, " <nil> <nil>"), "the other upload")
	if n := sent.n.Load(); n > 64<<20 {
		t.Fatalf("%d bytes were taken from a body that nobody reads", n)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type counting struct {
	io.Reader
	n atomic.Int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func TestABurstIsMetByMoreStreams(t *testing.T) {
	t.Parallel()
	const burst = 500
	var together sync.WaitGroup
	together.Add(burst)
	k := cluster(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/burst" {
			together.Done()
			together.Wait() // all are under way at once
		}
		fmt.Fprint(w, "done")
	})
	w := newWorld(t, hub.Limits{})
	w.start(w.identity("prod", k), edge.Timing{})
	results := make(chan error, burst)
	for range burst {
		go func() {
			_, _, err := w.do("prod", http.MethodPost, "/burst", strings.NewReader("x"))
			results <- err
		}()
	}
	for range burst {
		ok(t, next(t, w.ctx, results, "a request of the burst"))
	}
	equal(t, len(w.hub.Agents()), 1, "sessions")
}

func TestMoreRequestsThanAnAgentTakesAreBusy(t *testing.T) {
	t.Parallel()
	h := newWatcher()
	k := cluster(t, h.ServeHTTP)
	w := newWorld(t, hub.Limits{})
	w.start(w.identity("prod", k), edge.Timing{Concurrent: 2})
	for range 2 {
		response, err := w.client("prod").Get("http://x/watch")
		ok(t, err)
		defer response.Body.Close()
	}
	_, _, err := w.do("prod", http.MethodPost, "/", strings.NewReader("x"))
	failed := wantCode(t, err, hub.Busy, "2 requests are under way")
	equal(t, failed.Sent, false, "sent")
}

// Not parallel: it counts the process's goroutines, and its memory. With TOWPATH_SOAK it is 1,000 watches 50 times.
func TestNothingIsLeftBehind(t *testing.T) {
	watches, rounds := 100, 6
	if os.Getenv("TOWPATH_SOAK") != "" {
		watches, rounds = 1000, 50
	}
	before, memory := runtime.NumGoroutine(), uint64(0)
	t.Run("many watches", func(t *testing.T) {
		h := newWatcher()
		k := cluster(t, h.ServeHTTP)
		w := newWorld(t, hub.Limits{})
		if rounds > 6 {
			var cancel context.CancelFunc
			w.ctx, cancel = context.WithTimeout(t.Context(), 30*time.Minute)
			defer cancel()
		}
		stop := w.start(w.identity("prod", k), edge.Timing{})
		for round := range rounds {
			ctx, cancel := context.WithCancel(w.ctx)
			bodies := make([]io.ReadCloser, 0, watches)
			for range watches {
				response, err := w.get(ctx, "/watch")
				ok(t, err)
				bodies = append(bodies, response.Body)
			}
			switch round % 3 {
			case 0: // the caller leaves
				cancel()
			case 1: // it closes what it reads
				for _, body := range bodies {
					ok(t, body.Close())
				}
			case 2: // the cluster ends
				for range watches {
					h.ends <- struct{}{}
				}
				for _, body := range bodies {
					_, err := io.ReadAll(body)
					ok(t, err)
				}
			}
			for range watches {
				next(t, w.ctx, h.ended, "the end of a watch at the cluster")
			}
			for _, body := range bodies {
				ok(t, body.Close())
			}
			cancel()
			w.await(func() bool { s := w.hub.Agents()[0]; return s.Running == 0 }, "no stream is running")
			if round == 2 { // each way once
				memory = inUse()
			}
		}
		if now := inUse(); now > memory+memory/4 {
			t.Errorf("%d bytes are in use, %d after the first rounds", now, memory)
		}
		ok(t, stop())
	})
	deadline := time.Now().Add(20 * time.Second)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
		http.DefaultClient.CloseIdleConnections()
		runtime.Gosched()
	}
}

// inUse is the memory of what can be reached.
func inUse() uint64 {
	runtime.GC()
	runtime.GC() // pools are emptied by the second
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}
