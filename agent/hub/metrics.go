package hub

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what the hub counts; the Hub is a prometheus.Collector of them and of what its sessions say.
type metrics struct {
	connects      prometheus.Counter
	ends          *prometheus.CounterVec
	requests      *prometheus.CounterVec
	forwards      *prometheus.CounterVec
	latency       *prometheus.HistogramVec
	waits         prometheus.Histogram
	retries       prometheus.Counter
	tokenFailures prometheus.Counter
	down          prometheus.Counter
	up            prometheus.Counter
	sessions      *prometheus.Desc
	streams       *prometheus.Desc
	lastBeat      *prometheus.Desc
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	buckets := []float64{.001, .003, .01, .03, .1, .3, 1, 3, 10, 30}
	return &metrics{
		connects:      counter("towpath_hub_connects_total", "Sessions that agents began."),
		ends:          prometheus.NewCounterVec(prometheus.CounterOpts{Name: "towpath_hub_session_ends_total", Help: "Sessions that ended: stopped by the agent, broken, replaced by another of the instance, expired, refused, malformed, drained by the hub."}, []string{"reason"}),
		requests:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "towpath_hub_requests_total", Help: "Requests sent to agents, by the HTTP status or the tunnel's own code."}, []string{"tenant", "agent", "target", "code"}),
		forwards:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "towpath_hub_forwards_total", Help: "Of these, requests that another replica carried, to whom the agent is connected."}, []string{"tenant", "agent", "code"}),
		latency:       prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "towpath_hub_status_seconds", Help: "Time until an answer began.", Buckets: buckets}, []string{"tenant", "agent"}),
		waits:         prometheus.NewHistogram(prometheus.HistogramOpts{Name: "towpath_hub_stream_wait_seconds", Help: "Time that requests waited because no stream was idle.", Buckets: buckets}),
		retries:       counter("towpath_hub_retries_total", "Requests sent once more over another session."),
		tokenFailures: counter("towpath_hub_token_failures_total", "Tokens of agents that were refused."),
		down:          counter("towpath_hub_answer_bytes_total", "Bytes of answers that came through the tunnel."),
		up:            counter("towpath_hub_request_bytes_total", "Bytes of requests' bodies that went through the tunnel."),
		sessions:      prometheus.NewDesc("towpath_hub_sessions", "Sessions of agents now.", []string{"tenant", "agent", "version"}, nil),
		streams:       prometheus.NewDesc("towpath_hub_streams", "Streams of agents now.", []string{"tenant", "agent", "state"}, nil),
		lastBeat:      prometheus.NewDesc("towpath_hub_last_beat_timestamp_seconds", "When an agent last beat.", []string{"tenant", "agent"}, nil),
	}
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.connects, m.ends, m.requests, m.forwards, m.latency, m.waits, m.retries, m.tokenFailures, m.down, m.up}
}

func (m *metrics) ended(why *ending) {
	m.ends.WithLabelValues(why.reason).Inc()
}

func (m *metrics) request(t *Transport, response *http.Response, err error, took time.Duration) {
	if err == nil {
		m.latency.WithLabelValues(t.key.tenant, t.key.agent).Observe(took.Seconds())
	}
	m.requests.WithLabelValues(t.key.tenant, t.key.agent, t.target, outcome(response, err)).Inc()
}

// carried counts what another hub carried.
func (m *metrics) carried(t *Transport, by carrier, response *http.Response, err error) {
	if _, elsewhere := by.(*forward); elsewhere {
		m.forwards.WithLabelValues(t.key.tenant, t.key.agent, outcome(response, err)).Inc()
	}
}

// outcome is the HTTP status of an answer, or the tunnel's own code.
func outcome(response *http.Response, err error) string {
	var failed *Error
	switch {
	case err == nil:
		return strconv.Itoa(response.StatusCode)
	case errors.As(err, &failed):
		return string(failed.Code)
	}
	return "CANCELLED"
}

// Describe implements prometheus.Collector.
func (h *Hub) Describe(descriptions chan<- *prometheus.Desc) {
	for _, c := range h.metrics.collectors() {
		c.Describe(descriptions)
	}
	descriptions <- h.metrics.sessions
	descriptions <- h.metrics.streams
	descriptions <- h.metrics.lastBeat
}

// Collect implements prometheus.Collector.
func (h *Hub) Collect(values chan<- prometheus.Metric) {
	for _, c := range h.metrics.collectors() {
		c.Collect(values)
	}
	type version struct {
		key
		version string
	}
	sessions := map[version]float64{}
	sums := map[key]Status{}
	for _, s := range h.Agents() {
		k := key{s.Tenant, s.Agent}
		sessions[version{k, s.Version}]++
		sum := sums[k]
		sum.Running, sum.Idle = sum.Running+s.Running, sum.Idle+s.Idle
		if s.LastBeat.After(sum.LastBeat) {
			sum.LastBeat = s.LastBeat
		}
		sums[k] = sum
	}
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		values <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	for v, n := range sessions {
		gauge(h.metrics.sessions, n, v.tenant, v.agent, v.version)
	}
	for k, sum := range sums {
		gauge(h.metrics.streams, float64(sum.Running), k.tenant, k.agent, "running")
		gauge(h.metrics.streams, float64(sum.Idle), k.tenant, k.agent, "idle")
		gauge(h.metrics.lastBeat, float64(sum.LastBeat.UnixMilli())/1000, k.tenant, k.agent)
	}
}
