package edge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are what an agent counts.
type metrics struct {
	registry *prometheus.Registry
	connects prometheus.Counter
	failures prometheus.Counter
	refusals prometheus.Counter
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	bytes    *prometheus.CounterVec
}

func newMetrics(a *agent) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		connects: counter("towpath_agent_connects_total", "Sessions with a hub that began."),
		failures: counter("towpath_agent_connect_failures_total", "Tries to connect that failed."),
		refusals: counter("towpath_agent_refusals_total", "Requests that the agent's configuration does not allow."),
		requests: vec("towpath_agent_requests_total", "Requests, by the HTTP status or the tunnel's own code.", "target", "code"),
		bytes:    vec("towpath_agent_answer_bytes_total", "Bytes of answers.", "target"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "towpath_agent_request_seconds", Help: "Time of requests from their head to their end.", Buckets: []float64{.003, .01, .03, .1, .3, 1, 3, 10, 30},
		}, []string{"target"}),
	}
	m.registry.MustRegister(m.connects, m.failures, m.refusals, m.requests, m.bytes, m.seconds,
		gauge("towpath_agent_sessions", "Sessions with a hub now.", func() float64 { return float64(a.sessions.Load()) }),
		gauge("towpath_agent_running_requests", "Requests under way.", func() float64 { return float64(a.running.Load()) }),
		gauge("towpath_agent_token_seconds", "Time until the agent's token expires.", func() float64 { return a.tokens.remaining().Seconds() }),
	)
	return m
}

// request counts one. A target that is not configured is the hub's invention, and gets no label of its own.
func (m *metrics) request(known bool, target, outcome string, bytes int64, took time.Duration) {
	if !known {
		target = "unknown"
	}
	m.requests.WithLabelValues(target, outcome).Inc()
	m.bytes.WithLabelValues(target).Add(float64(bytes))
	m.seconds.WithLabelValues(target).Observe(took.Seconds())
}

// listen serves health and metrics until stop is called.
func (a *agent) listen(address string) (stop func(), err error) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health/liveness", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "alive") })
	mux.HandleFunc("GET /health/readiness", func(w http.ResponseWriter, _ *http.Request) {
		if a.sessions.Load() == 0 {
			http.Error(w, "no session with the hub", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "connected")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.metrics.registry, promhttp.HandlerOpts{}))
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	a.log.Infof("health and metrics on http://%s", listener.Addr())
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			a.log.WithError(err).Error("health and metrics are no longer served")
		}
	})
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			_ = server.Close()
		}
		serving.Wait()
	}, nil
}
