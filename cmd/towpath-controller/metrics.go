package main

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"towpath/internal/version"
)

// figures are what an operator watches beside the hub's: read from the store when they are asked for.
type figures struct {
	main *Main

	build, lanes, deployments, late, failing, untold, refused, drifted, renderers *prometheus.Desc
	limit, requests, throttled                                                    *prometheus.Desc
}

func newFigures(m *Main) *figures {
	about := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("towpath_"+name, help, labels, nil)
	}
	return &figures{
		main:        m,
		build:       about("build_info", "1, labelled with the version that runs.", "version"),
		lanes:       about("lanes", "Targets of applications by the state of what was last asked of them.", "state"),
		deployments: about("deployments_under_way", "Deployments that have not ended."),
		late:        about("wakes_late", "Wakes that were due and lie untaken; above 0 for long: work is not taken."),
		failing:     about("source_failing_seconds", "For how long a source cannot be fetched; 0: it can.", "tenant", "source"),
		untold:      about("outbox_pending", "Commits about which GitHub is still to be told."),
		refused:     about("outbox_refused", "Commits about which GitHub refused to be told."),
		drifted:     about("drifted_objects", "Objects that differ in their cluster from what was last proved good.", "account"),
		renderers:   about("render_processes_started_total", "Render processes that were started."),
		limit:       about("cluster_requests_limit", "Requests that may be under way at once at a cluster, watches aside: its API server's answers settle it.", "tenant", "account"),
		requests:    about("cluster_requests", "Requests to a cluster, watches aside: running, or waiting for a place.", "tenant", "account", "state"),
		throttled:   about("cluster_throttled_total", "Answers by which a cluster's API server asked for patience (429, 503 with Retry-After).", "tenant", "account"),
	}
}

// Describe implements prometheus.Collector.
func (f *figures) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{f.build, f.lanes, f.deployments, f.late, f.failing, f.untold, f.refused, f.drifted, f.renderers, f.limit, f.requests, f.throttled} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (f *figures) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	gauge(f.build, 1, version.String())
	to <- prometheus.MustNewConstMetric(f.renderers, prometheus.CounterValue, float64(f.main.pool.Started()))
	for of, load := range f.main.clusters.loads() {
		gauge(f.limit, float64(load.Limit), of[0], of[1])
		gauge(f.requests, float64(load.Running), of[0], of[1], "running")
		gauge(f.requests, float64(load.Waiting), of[0], of[1], "waiting")
		to <- prometheus.MustNewConstMetric(f.throttled, prometheus.CounterValue, float64(load.Throttled), of[0], of[1])
	}
	census, err := f.main.store.Census(ctx)
	if err != nil {
		to <- prometheus.NewInvalidMetric(f.lanes, err)
		return
	}
	for state, count := range census.Lanes {
		gauge(f.lanes, float64(count), string(state))
	}
	gauge(f.deployments, float64(census.UnderWay))
	gauge(f.untold, float64(census.Untold))
	gauge(f.refused, float64(census.Refused))
	for account, count := range census.Drifted {
		gauge(f.drifted, float64(count), account)
	}
	for _, s := range census.Sources {
		seconds := 0.0
		if !s.FailedSince.IsZero() {
			seconds = time.Since(s.FailedSince).Seconds()
		}
		gauge(f.failing, seconds, s.Tenant, s.Name)
	}
	late, err := f.main.store.Late(ctx, 0)
	if err != nil {
		to <- prometheus.NewInvalidMetric(f.late, err)
		return
	}
	gauge(f.late, float64(late))
}
