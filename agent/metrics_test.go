package agent_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"towpath/agent/edge"
	"towpath/agent/hub"
	"towpath/internal/testkit/pages"
)

// counted is what the hub serves to Prometheus.
func (w *world) counted() string {
	w.t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(w.hub)
	recorder := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(recorder, httptest.NewRequestWithContext(w.ctx, http.MethodGet, "/metrics", nil))
	return recorder.Body.String()
}

// countedByAgent is what the only agent of the world serves.
func (w *world) countedByAgent() string {
	w.t.Helper()
	at := regexp.MustCompile(`health and metrics on (http://[^"]+)`).FindStringSubmatch(w.logs.String())
	if at == nil {
		w.t.Fatal("the agent serves no metrics")
	}
	request, err := http.NewRequestWithContext(w.ctx, http.MethodGet, at[1]+"/metrics", nil)
	ok(w.t, err)
	_, text, err := read(http.DefaultClient.Do(request))
	ok(w.t, err)
	return text
}

func TestWhatIsRelayedIsCountedAndWrittenDown(t *testing.T) {
	t.Parallel()
	h := newWatcher()
	k := cluster(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/watch":
			h.ServeHTTP(w, r)
		case "/gone":
			w.WriteHeader(http.StatusNotFound)
		default:
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, "12345")
		}
	})
	w := newWorld(t, hub.Limits{})
	c := w.identity("prod", k)
	c.Listen = "127.0.0.1:0"
	stop := w.start(c, edge.Timing{})
	_, _, err := w.do("prod", http.MethodGet, "/ok?token=in-the-query", nil)
	ok(t, err)
	_, _, err = w.do("prod", http.MethodPost, "/ok", strings.NewReader("in-the-body"))
	ok(t, err)
	_, _, err = w.do("prod", http.MethodGet, "/gone", nil)
	ok(t, err)
	_, _, err = w.do("prod", http.MethodGet, "/", nil, hub.Target("elsewhere"))
	wantCode(t, err, hub.Refused)
	acting, err := http.NewRequestWithContext(w.ctx, http.MethodGet, "http://x/ok", nil)
	ok(t, err)
	acting.Header.Set("Impersonate-User", "in-a-header")
	response, _, err := read(w.client("prod").Do(acting))
	ok(t, err)
	equal(t, response.StatusCode, http.StatusForbidden, "impersonation")
	watch, err := w.get(w.ctx, "/watch")
	ok(t, err)

	w.await(func() bool { // a request ends at the hub before it does at the agent
		return strings.Contains(w.countedByAgent(), `towpath_agent_requests_total{code="403",target="kubernetes"} 1`)
	}, "the agent has counted all")
	contains(t, w.countedByAgent(), "towpath_agent_connects_total 1", "towpath_agent_connect_failures_total 0", "towpath_agent_sessions 1", "towpath_agent_running_requests 1",
		`towpath_agent_requests_total{code="200",target="kubernetes"} 2`, `towpath_agent_requests_total{code="404",target="kubernetes"} 1`,
		`towpath_agent_requests_total{code="REFUSED",target="unknown"} 1`, "towpath_agent_refusals_total 2", `towpath_agent_target_seconds_count{target="kubernetes"} 4`,
		`towpath_agent_answer_bytes_total{target="unknown"} 0`, "towpath_agent_token_seconds ")
	prod := `agent="prod",`
	contains(t, w.counted(), `towpath_hub_sessions{agent="prod",tenant="t",version="test"} 1`, "towpath_hub_connects_total 1",
		`towpath_hub_requests_total{`+prod+`code="200",target="kubernetes",tenant="t"} 3`, `towpath_hub_requests_total{`+prod+`code="404",target="kubernetes",tenant="t"} 1`,
		`towpath_hub_requests_total{`+prod+`code="403",target="kubernetes",tenant="t"} 1`, `towpath_hub_requests_total{`+prod+`code="REFUSED",target="elsewhere",tenant="t"} 1`,
		`towpath_hub_status_seconds_count{agent="prod",tenant="t"} 5`, "towpath_hub_request_bytes_total 11", `towpath_hub_streams{agent="prod",state="running",tenant="t"} 1`,
		`towpath_hub_streams{agent="prod",state="idle",tenant="t"} `, "towpath_hub_stream_wait_seconds_count ", "towpath_hub_token_failures_total 0", "towpath_hub_retries_total 0",
		`towpath_hub_last_beat_timestamp_seconds{agent="prod",tenant="t"} `, "towpath_hub_answer_bytes_total ")

	ok(t, watch.Body.Close())
	w.await(func() bool { return strings.Contains(w.countedByAgent(), `code="cancelled",target="kubernetes"} 1`) }, "the watch has ended")
	var served []string
	for _, match := range regexp.MustCompile(`(?m)^# TYPE (towpath_[a-z_]+) `).FindAllStringSubmatch(w.countedByAgent(), -1) {
		served = append(served, match[1])
	}
	slices.Sort(served)
	equal(t, strings.Join(served, "\n"), strings.Join(pages.Metrics(t, "Agent"), "\n"), "what docs/reference/metrics.md lists")
	for _, secret := range []string{"in-the-query", "in-the-body", "sa-token-1"} {
		if strings.Contains(w.logs.String(), secret) {
			t.Errorf("the log has %q", secret)
		}
	}
	for _, line := range []string{
		`msg=request bytes=5 .*method=GET path=/ok request=\w+ seconds=[\d.e-]+ status=200 target=kubernetes`, `msg=request bytes=5 .*method=POST path=/ok `,
		`msg=request bytes=0 .*path=/gone .*status=404`, `msg=request bytes=\d+ .*path=/ok .*status=403`, `msg="request failed" bytes=0 code=REFUSED .*path=/ .*target=elsewhere`,
		`msg="request cancelled" bytes=0 .*path=/watch .*status=200`,
	} {
		if !regexp.MustCompile(line).MatchString(w.logs.String()) {
			t.Errorf("the log has no line like %s:\n%s", line, w.logs)
		}
	}
	ok(t, stop())
	w.await(func() bool {
		return strings.Contains(w.counted(), `towpath_hub_session_ends_total{reason="stopped"} 1`)
	}, "the end is counted by its reason")
}

func TestEndsOfSessionsAreCountedByReason(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hub.Limits{})
	c := w.identity("prod", nil)
	w.start(c, edge.Timing{Forbidden: 1})
	w.start(c, edge.Timing{})
	w.await(func() bool { return strings.Contains(w.counted(), `reason="replaced"} `) }, "one was replaced")
	w.hub.Disconnect("t", "prod", "for a test")
	w.await(func() bool { return strings.Contains(w.counted(), `reason="refused"} `) }, "one was refused")
}
