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

	build, lanes, deployments, late, failing, untold, refused, renderers *prometheus.Desc
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
		renderers:   about("render_processes_started_total", "Render processes that were started."),
	}
}

// Describe implements prometheus.Collector.
func (f *figures) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{f.build, f.lanes, f.deployments, f.late, f.failing, f.untold, f.refused, f.renderers} {
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
