package status_test

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"

	"towpath/internal/testkit/github"
	"towpath/status"
	"towpath/store"
)

// receiver takes deliveries, without a network, with the statuses that it is to answer with, and then 202.
type receiver struct {
	mu      sync.Mutex
	answers []int
}

func (r *receiver) RoundTrip(request *http.Request) (*http.Response, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	recorder := httptest.NewRecorder()
	recorder.WriteHeader(http.StatusAccepted)
	if len(r.answers) > 0 {
		recorder = httptest.NewRecorder()
		recorder.WriteHeader(r.answers[0])
		r.answers = r.answers[1:]
	}
	request.Body.Close()
	return recorder.Result(), nil
}

// next says how the next deliveries are answered.
func (r *receiver) next(answers ...int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers = answers
}

// journal is what is logged, by more than one at a time.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// redelivering is an App whose webhook is answered by a receiver, and a store that remembers what was asked for again.
type redelivering struct {
	*installed
	*receiver
	store *store.Store
	log   journal
}

// redelivers runs a test in virtual time.
func redelivers(t *testing.T, test func(t *testing.T, w *redelivering)) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := &redelivering{installed: install(t), receiver: &receiver{}}
		w.Hook(7, "https://towpath.test/webhooks/github", "secret", &http.Client{Transport: w.receiver})
		s, err := store.Open(t.Context(), store.Config{URL: "sqlite:" + filepath.Join(dir, "towpath.db"), Keys: [][]byte{bytes.Repeat([]byte("k"), 32)}, Log: w.logger()})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		w.store = s
		test(t, w)
	})
}

func (w *redelivering) logger() *logrus.Entry {
	log := logrus.New()
	log.SetOutput(&w.log)
	return logrus.NewEntry(log)
}

// start starts one that asks for deliveries again.
func (w *redelivering) start(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	r := status.Redeliverer{App: w.app, Looks: w.store, Log: w.logger()}
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}

func expectTries(t *testing.T, g *github.GitHub, guid string, want ...int) {
	t.Helper()
	if got := g.Deliveries(7, guid); !slices.Equal(got, want) {
		t.Errorf("%s was tried with %v, want %v", guid, got, want)
	}
}

func TestWhatDidNotArriveIsAskedForAgainAtTheStartAndEachFiveMinutes(t *testing.T) {
	redelivers(t, func(t *testing.T, w *redelivering) {
		w.next(500, 202, 500)
		before, _ := w.Emit(7, "push", "acme/web", nil)
		arrived, _ := w.Emit(7, "push", "acme/web", nil)
		unheeded, _ := w.Emit(7, "watch", "acme/web", nil)
		stop := w.start(t)
		synctest.Wait()
		expectTries(t, w.GitHub, before, 500, 202)
		time.Sleep(time.Minute)
		w.next(503, 503)
		lost, _ := w.Emit(7, "push", "acme/web", nil)
		time.Sleep(5 * time.Minute)
		expectTries(t, w.GitHub, lost, 503, 503)
		time.Sleep(5 * time.Minute)
		expectTries(t, w.GitHub, lost, 503, 503, 202)
		w.next(slices.Repeat([]int{413}, 20)...)
		refused, _ := w.Emit(7, "push", "acme/web", nil)
		time.Sleep(2 * time.Hour) // what fails each time is left to polling
		expectTries(t, w.GitHub, refused, 413, 413, 413, 413, 413, 413)
		w.next()
		expectTries(t, w.GitHub, before, 500, 202)
		expectTries(t, w.GitHub, arrived, 202)
		expectTries(t, w.GitHub, unheeded, 500)
		stop()
		w.next(500)
		down, _ := w.Emit(7, "push", "acme/web", nil)
		time.Sleep(time.Second)
		defer w.start(t)()
		synctest.Wait()
		expectTries(t, w.GitHub, down, 500, 202)
	})
}

func TestOfManyReplicasOneLooks(t *testing.T) {
	redelivers(t, func(t *testing.T, w *redelivering) {
		for range 3 {
			defer w.start(t)()
		}
		synctest.Wait()
		before := w.asked(http.MethodGet, "/deliveries")
		w.next(500)
		lost, _ := w.Emit(7, "push", "acme/web", nil)
		time.Sleep(5*time.Minute + time.Second)
		expectTries(t, w.GitHub, lost, 500, 202)
		if n := w.asked(http.MethodGet, "/deliveries") - before; n != 1 {
			t.Errorf("looked %d times within five minutes", n)
		}
	})
}

func TestALookThatFailsIsMadeUpForByTheNext(t *testing.T) {
	redelivers(t, func(t *testing.T, w *redelivering) {
		defer w.start(t)()
		synctest.Wait()
		var all []int
		for range 60 { // more than one look asks for, over more than one page with those that arrived
			all = append(all, 500, 202)
		}
		w.next(all...)
		var lost []string
		for n := range 120 {
			guid, _ := w.Emit(7, "push", "acme/web", nil)
			if n%2 == 0 {
				lost = append(lost, guid)
			}
			time.Sleep(time.Second)
		}
		w.Always(github.Broken(http.StatusBadGateway))
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		w.Always(nil)
		if !strings.Contains(w.log.String(), "the deliveries of the App ours: GitHub answers 502") {
			t.Errorf("the log does not say why:\n%s", &w.log)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		expectTries(t, w.GitHub, lost[49], 500, 202)
		expectTries(t, w.GitHub, lost[50], 500)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		for _, guid := range lost {
			expectTries(t, w.GitHub, guid, 500, 202)
		}
	})
}
