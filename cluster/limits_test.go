package cluster_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"towpath/cluster"
	"towpath/manifest"
	"towpath/reconcile/rollout"
)

func TestNoMoreRequestsThanAllowedAreUnderWay(t *testing.T) {
	b := setUp(t, func(c *cluster.Config) { c.Parallel = 3 })
	var texts []string
	for i := range 20 {
		texts = append(texts, strings.ReplaceAll(settings, "name: settings", fmt.Sprintf("name: settings-%d", i)))
	}
	var mu sync.Mutex
	under, most := 0, 0
	b.wire.next = roundTripper(func(request *http.Request) (*http.Response, error) {
		mu.Lock()
		under++
		most = max(most, under)
		mu.Unlock()
		defer func() {
			mu.Lock()
			under--
			mu.Unlock()
		}()
		return b.kube.Transport(t).RoundTrip(request)
	})
	var both sync.WaitGroup // the limit is of the cluster, not of one call
	for _, part := range [][]string{texts[:10], texts[10:]} {
		both.Go(func() {
			if out := b.Apply(t.Context(), b.id, b.objects(part...), rollout.Action{}); out.Failure != nil {
				t.Error(out.Failure)
			}
		})
	}
	both.Wait()
	if most > 3 {
		t.Errorf("%d requests at once, want 3 at most", most)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

func TestAnAnswerThatIsTooLargeIsNotRead(t *testing.T) {
	b := setUp(t, func(c *cluster.Config) { c.MaxAnswer = 4 << 20 })
	read := 0
	b.wire.intercept(func(request *http.Request) (*http.Response, error) {
		if !strings.Contains(request.URL.Path, "/configmaps/") {
			return nil, nil
		}
		body := readerFunc(func(p []byte) (int, error) {
			read += len(p)
			for i := range p {
				p[i] = ' '
			}
			return len(p), nil
		})
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(body), Request: request, ProtoMajor: 1, ProtoMinor: 1}, nil
	})
	look := b.Look(t.Context(), b.id, rollout.Read{Objects: []manifest.Key{b.key("", "ConfigMap", "settings")}}, nil)
	fails(t, look.Failure, rollout.Refused, "ConfigMap "+b.namespace+"/settings", "the cluster's answer is too large: more than 4 MiB")
	if read > 5<<20 {
		t.Errorf("%d bytes were read", read)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestABusyAPIServerIsAskedAgainWhenItSays(t *testing.T) {
	b := setUp(t)
	refused := 0
	b.wire.intercept(func(request *http.Request) (*http.Response, error) {
		if request.Method == http.MethodPatch && refused < 2 {
			refused++
			return answer(request, http.StatusTooManyRequests, "TooManyRequests", "too many requests", http.Header{"Retry-After": {"1"}}), nil
		}
		return nil, nil
	})
	b.applied(1, b.objects(settings))
	if refused != 2 {
		t.Errorf("refused %d times", refused)
	}
}

func TestFailuresOnTheWayAreTroubleAndTellWhatHappened(t *testing.T) {
	away := errors.New("agent prod of tenant main is not connected")
	for name, c := range map[string]struct {
		answer func(*http.Request) (*http.Response, error)
		class  rollout.Class
		says   string
	}{
		"no agent": {func(*http.Request) (*http.Response, error) { return nil, fmt.Errorf("asked: %w", away) }, rollout.Away, "asked: agent prod of tenant main is not connected"},
		"a lost connection": {func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF },
			rollout.Trouble, "the cluster gave no answer: unexpected EOF"},
		"no answer in time": {func(r *http.Request) (*http.Response, error) { <-r.Context().Done(); return nil, r.Context().Err() },
			rollout.Trouble, "the cluster gave no answer within 300ms"},
		"an error of the API server": {func(r *http.Request) (*http.Response, error) {
			return answer(r, 500, "InternalError", `failed calling webhook "check.example.com": connection refused`, nil), nil
		}, rollout.Trouble, `failed calling webhook "check.example.com"`},
		"an API server that starts": {func(r *http.Request) (*http.Response, error) {
			return answer(r, 503, "ServiceUnavailable", "apiserver is shutting down", nil), nil
		}, rollout.Trouble, "apiserver is shutting down"},
		"a token that has run out": {func(r *http.Request) (*http.Response, error) {
			return answer(r, 401, "Unauthorized", "Unauthorized", nil), nil
		}, rollout.Trouble, "Unauthorized"},
		"an admission webhook": {func(r *http.Request) (*http.Response, error) {
			return answer(r, 403, "Forbidden", `admission webhook "policy.example.com" denied the request: no owner`, nil), nil
		}, rollout.Refused, `admission webhook "policy.example.com" denied the request: no owner`},
		"a webhook that says too much": {func(r *http.Request) (*http.Response, error) {
			return answer(r, 403, "Forbidden", "denied\x1b[2J: "+strings.Repeat("no ", 10_000), nil), nil
		}, rollout.Refused, "denied[2J: no no"},
		"a body that is too large": {func(r *http.Request) (*http.Response, error) {
			return answer(r, 413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728", nil), nil
		}, rollout.Refused, "limit is 3145728"},
		"an object that is too large": {func(r *http.Request) (*http.Response, error) {
			return answer(r, 500, "", "etcdserver: request is too large", nil), nil
		}, rollout.Refused, "request is too large"},
	} {
		t.Run(name, func(t *testing.T) {
			b := setUp(t, func(config *cluster.Config) {
				config.Away = func(err error) bool { return errors.Is(err, away) }
				config.Timeout = 300 * time.Millisecond
			})
			_, _, err := b.Capabilities(t.Context())
			if err != nil { // the machine is slow; asked once more below, or by the apply itself
				t.Log(err)
			}
			b.wire.intercept(func(r *http.Request) (*http.Response, error) {
				if r.Method == http.MethodPatch {
					return c.answer(r)
				}
				return nil, nil
			})
			failure := b.apply(1, b.objects(settings)).Failure
			fails(t, failure, c.class, "ConfigMap "+b.namespace+"/settings: ", c.says)
			if failure != nil && len(failure.Text) > 2100 {
				t.Errorf("it has %d letters", len(failure.Text))
			}
			if failure != nil && strings.Contains(failure.Text, "http://") {
				t.Errorf("it names an address that is none: %v", failure)
			}
		})
	}
}
