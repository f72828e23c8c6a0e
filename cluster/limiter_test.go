package cluster_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"

	"towpath/cluster"
	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// crowded is an API server that knows ConfigMaps, of which there are none, and says how much it can take.
type crowded struct {
	answers func(now int, request *http.Request) *http.Response // to a look at a ConfigMap while so many are looked at; nil: it is not there

	mu    sync.Mutex
	under int
	most  int
	began []time.Time
}

func (s *crowded) RoundTrip(request *http.Request) (*http.Response, error) {
	body := map[string]string{
		"/api":    `{"kind":"APIVersions","versions":["v1"]}`,
		"/apis":   `{"kind":"APIGroupList","apiVersion":"v1","groups":[]}`,
		"/api/v1": `{"kind":"APIResourceList","groupVersion":"v1","resources":[{"name":"configmaps","namespaced":true,"kind":"ConfigMap","verbs":["get"]}]}`,
	}[request.URL.Path]
	if body != "" {
		return said(request, http.StatusOK, body, nil), nil
	}
	s.mu.Lock()
	s.under++
	s.most = max(s.most, s.under)
	s.began = append(s.began, time.Now())
	now := s.under
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.under--
	}()
	select {
	case <-time.After(10 * time.Millisecond):
	case <-request.Context().Done():
		return nil, request.Context().Err()
	}
	if s.answers != nil {
		if response := s.answers(now, request); response != nil {
			return response, nil
		}
	}
	return said(request, http.StatusNotFound, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`, nil), nil
}

func said(request *http.Request, code int, body string, header http.Header) *http.Response {
	if header == nil {
		header = http.Header{}
	}
	header.Set("Content-Type", "application/json")
	return &http.Response{StatusCode: code, Header: header, Body: io.NopCloser(strings.NewReader(body)), Request: request, ProtoMajor: 1, ProtoMinor: 1}
}

// patience asks to come back after some seconds.
func patience(request *http.Request, code int, after string) *http.Response {
	header := http.Header{"X-Kubernetes-Pf-Prioritylevel-Uid": {"level-1"}, "X-Kubernetes-Pf-Flowschema-Uid": {"schema-1"}}
	if after != "" {
		header.Set("Retry-After", after)
	}
	return said(request, code, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"TooManyRequests","code":429}`, header)
}

// over is a client of such a server, and what looks at n ConfigMaps through it.
func (s *crowded) over(t *testing.T, c cluster.Config) (client *cluster.Client, look func(ctx context.Context, n int) *rollout.Failure, logged fmt.Stringer) {
	t.Helper()
	var lines strings.Builder
	log := logrus.New()
	log.SetOutput(&lines)
	c.Transport, c.Log = s, logrus.NewEntry(log)
	client, err := cluster.New(c)
	ok(t, err)
	t.Cleanup(client.Close)
	return client, func(ctx context.Context, n int) *rollout.Failure {
		var read rollout.Read
		for i := range n {
			read.Others = append(read.Others, manifest.Key{Kind: "ConfigMap", Namespace: "shop", Name: fmt.Sprint("settings-", i)})
		}
		return client.Look(ctx, rollout.Identity{Tenant: "main"}, read, nil).Failure
	}, &lines
}

func TestAClusterThatAnswersSoonIsAskedMoreAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &crowded{}
		client, look, _ := s.over(t, cluster.Config{})
		if first := client.Load(); first.Limit != 16 {
			t.Errorf("it begins with %+v", first)
		}
		if f := look(t.Context(), 40); f != nil {
			t.Fatal(f)
		}
		few := client.Load().Limit
		if few <= 16 || few > 20 {
			t.Errorf("after two rounds of answers %d requests may be under way", few)
		}
		for range 100 {
			if f := look(t.Context(), 100); f != nil {
				t.Fatal(f)
			}
		}
		if load := client.Load(); load != (cluster.Load{Limit: 64}) || s.most != 64 {
			t.Errorf("at last it is %+v, and %d were under way", load, s.most)
		}
	})
}

func TestAClusterThatAnswersLateIsNotAskedMoreAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &crowded{answers: func(int, *http.Request) *http.Response { // its queue holds requests up, as its priorities and fairness do
			time.Sleep(2 * time.Second)
			return nil
		}}
		client, look, _ := s.over(t, cluster.Config{})
		if f := look(t.Context(), 100); f != nil {
			t.Fatal(f)
		}
		if load := client.Load(); load.Limit != 16 || s.most != 16 {
			t.Errorf("%+v, and %d were under way", load, s.most)
		}
	})
}

func TestAClusterThatAsksForPatienceIsAskedHalfAsMuchAndLater(t *testing.T) {
	for _, code := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		t.Run(http.StatusText(code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var refused atomic.Int32
				s := &crowded{answers: func(_ int, r *http.Request) *http.Response {
					if refused.Add(1) <= 16 { // all of the first round: that is one word, not sixteen
						return patience(r, code, "3")
					}
					return nil
				}}
				client, look, logged := s.over(t, cluster.Config{})
				if f := look(t.Context(), 24); f != nil {
					t.Fatal(f)
				}
				if load := client.Load(); load.Limit < 8 || load.Limit > 10 || load.Throttled != 16 || load.Running+load.Waiting != 0 {
					t.Errorf("%+v", load)
				}
				if pause := s.began[16].Sub(s.began[15]); pause < 3*time.Second {
					t.Errorf("it was asked again after %s", pause)
				}
				for _, part := range []string{"asks for patience", "limit=8", "priorityLevel=level-1", "flowSchema=schema-1"} {
					if !strings.Contains(logged.String(), part) {
						t.Errorf("the log does not say %q:\n%s", part, logged)
					}
				}
			})
		})
	}
}

func TestAnAnswerThatAsksForNoPatienceChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &crowded{answers: func(_ int, r *http.Request) *http.Response { return patience(r, http.StatusServiceUnavailable, "") }} // it starts, or stops
		client, look, _ := s.over(t, cluster.Config{})
		look(t.Context(), 3)
		if load := client.Load(); load.Limit != 16 || load.Throttled != 0 {
			t.Errorf("%+v", load)
		}
	})
}

func TestOneRequestAlwaysMayBeUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &crowded{answers: func(_ int, r *http.Request) *http.Response { return patience(r, http.StatusTooManyRequests, "600") }}
		client, look, _ := s.over(t, cluster.Config{Timeout: time.Minute})
		for range 8 {
			look(t.Context(), 1)
		}
		if load := client.Load(); load.Limit != 1 {
			t.Errorf("%+v", load)
		}
		s.answers = nil
		began := time.Now()
		if f := look(t.Context(), 1); f != nil {
			t.Fatal(f)
		}
		if waited := time.Since(began); waited > 31*time.Second {
			t.Errorf("a server that asks for ten minutes had them: %s", waited)
		}
	})
}

func TestWhoWaitsInVainForAPlaceIsToldWhatFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		s := &crowded{answers: func(int, *http.Request) *http.Response { <-hold; return nil }}
		client, look, _ := s.over(t, cluster.Config{Parallel: 1})
		done := make(chan *rollout.Failure)
		go func() { done <- look(t.Context(), 1) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		fails(t, look(ctx, 1), rollout.Trouble, "", "no place became free among the requests to its API server (1 at once, 1 under way, 0 others wait): context deadline exceeded")
		close(hold)
		if f := <-done; f != nil {
			t.Fatal(f)
		}
		s.answers = func(_ int, r *http.Request) *http.Response { return patience(r, http.StatusTooManyRequests, "20") }
		go func() { done <- look(t.Context(), 1) }()
		time.Sleep(time.Second) // of the test's own clock
		ctx, cancel = context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		fails(t, look(ctx, 1), rollout.Trouble, "", "its API server has too much to do and is asked again in 17s; 0 others wait for that: context deadline exceeded")
		<-done
		if load := client.Load(); load.Running+load.Waiting != 0 {
			t.Errorf("%+v", load)
		}
	})
}

func TestAWatchTakesNobodysPlace(t *testing.T) {
	b := setUp(t, func(c *cluster.Config) { c.Parallel = 1 })
	objects := b.objects(settings)
	stop, err := b.Watch(t.Context(), b.id, []manifest.Key{objects[0].Key}, func() {})
	ok(t, err)
	defer stop()
	b.applied(1, objects)
}
