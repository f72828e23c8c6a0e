package cluster_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"towpath/cluster"
	"towpath/reconcile/rollout"
)

// silent is an API server that answers only when it is told to.
type silent struct {
	mu      sync.Mutex
	answers bool
	asked   int
}

func (s *silent) RoundTrip(request *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.asked++
	answers := s.answers
	s.mu.Unlock()
	if answers {
		return &http.Response{StatusCode: http.StatusNotFound, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("{}")), Request: request}, nil
	}
	<-request.Context().Done()
	return nil, request.Context().Err()
}

func TestAClusterThatDoesNotAnswerIsLeftAloneForAWhile(t *testing.T) {
	t.Parallel()
	log := logrus.New()
	log.SetOutput(t.Output())
	server, now := &silent{}, time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	c, err := cluster.New(cluster.Config{Transport: server, Timeout: time.Millisecond, Clock: func() time.Time { return now }, Log: logrus.NewEntry(log)})
	ok(t, err)
	t.Cleanup(c.Close)
	ask := func() *rollout.Failure {
		var failure *rollout.Failure
		if _, _, err := c.Capabilities(t.Context()); !errors.As(err, &failure) {
			t.Fatalf("%v", err)
		}
		return failure
	}
	for range 5 {
		if f := ask(); f.Class != rollout.Trouble {
			t.Fatalf("an unanswered request is %+v", f)
		}
	}
	if since, why := c.Trouble(); !since.Equal(now) || why != "its API server has failed 5 requests in a row; the last was not answered" {
		t.Errorf("in trouble since %s: %s", since, why)
	}
	asked := server.asked
	if f := ask(); f.Class != rollout.Away || f.Text != "its API server left 5 requests in a row unanswered; it is tried again in 5s" || server.asked != asked {
		t.Fatalf("after %d requests: %+v", server.asked, f)
	}
	now = now.Add(6 * time.Second)
	if f := ask(); f.Class != rollout.Trouble || server.asked != asked+1 {
		t.Fatalf("one request tries: %+v, %d requests", f, server.asked-asked)
	}
	if f := ask(); f.Class != rollout.Away || !strings.Contains(f.Text, "6 requests in a row unanswered; it is tried again in 10s") {
		t.Fatalf("still silent: %+v", f)
	}
	now = now.Add(11 * time.Second)
	server.answers = true
	if f := ask(); strings.Contains(f.Text, "unanswered") {
		t.Fatalf("the one that tries: %+v", f)
	}
	if since, why := c.Trouble(); !since.IsZero() {
		t.Errorf("after an answer it is in trouble since %s: %s", since, why)
	}
	server.answers = false
	if f := ask(); f.Class != rollout.Trouble {
		t.Errorf("after an answer it counts anew: %+v", f)
	}
}

// refusing is an API server that is not there: each connection is refused.
type refusing struct{}

func (refusing) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("dial tcp 10.0.0.1:443: connect: connection refused")
}

func TestAnAPIServerThatIsNotThereIsToldWithSinceAndWhy(t *testing.T) {
	t.Parallel()
	log := logrus.New()
	log.SetOutput(t.Output())
	now := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	c, err := cluster.New(cluster.Config{Transport: refusing{}, Clock: func() time.Time { return now }, Log: logrus.NewEntry(log)})
	ok(t, err)
	t.Cleanup(c.Close)
	for range 5 {
		if _, _, err := c.Capabilities(t.Context()); err == nil {
			t.Fatal("it answers")
		}
	}
	since, why := c.Trouble()
	if !since.Equal(now) || !strings.HasPrefix(why, "its API server has failed 5 requests in a row; the last was not reached: ") || !strings.Contains(why, "connection refused") {
		t.Errorf("in trouble since %s: %s", since, why)
	}
}
