package main

import (
	"context"
	"flag"
	"testing"
	"time"

	"towpath/manifest"
	"towpath/reconcile/rollout"
	"towpath/store"
)

var apps = flag.Int("apps", 1000, "applications of the repository that benchmarks take commits of")

// timed is a store whose time is taken.
type timed struct {
	*store.Store
	spent time.Duration
}

func (s *timed) take() func() {
	begun := time.Now()
	return func() { s.spent += time.Since(begun) }
}

func (s *timed) Source(ctx context.Context, tenant, source string) (rollout.SourceState, error) {
	defer s.take()()
	return s.Store.Source(ctx, tenant, source)
}

func (s *timed) SourceSeen(ctx context.Context, tenant, source, head string, failed error) error {
	defer s.take()()
	return s.Store.SourceSeen(ctx, tenant, source, head, failed)
}

func (s *timed) SourceProcessed(ctx context.Context, tenant, source, commit, terms string) error {
	defer s.take()()
	return s.Store.SourceProcessed(ctx, tenant, source, commit, terms)
}

func (s *timed) Record(ctx context.Context, record rollout.FileRecord) error {
	defer s.take()()
	return s.Store.Record(ctx, record)
}

func (s *timed) Lanes(ctx context.Context, tenant, application string) ([]rollout.LaneState, error) {
	defer s.take()()
	return s.Store.Lanes(ctx, tenant, application)
}

func (s *timed) Owner(ctx context.Context, tenant, application string) (rollout.Owner, error) {
	defer s.take()()
	return s.Store.Owner(ctx, tenant, application)
}

func (s *timed) Taken(ctx context.Context, tenant, application, account string, keys []manifest.Key) (map[manifest.Key]string, error) {
	defer s.take()()
	return s.Store.Taken(ctx, tenant, application, account, keys)
}

func (s *timed) Manifests(ctx context.Context, digest string) ([]manifest.Object, error) {
	defer s.take()()
	return s.Store.Manifests(ctx, digest)
}

// What a commit of one to three applications costs from its fetch until its changed manifests are known and recorded: of that, the renders and the database,
// and the rest, which must depend on the commit and not on the repository. 200 commits at most: use -benchtime=100x.
func BenchmarkCommit(b *testing.B) {
	database := &timed{Store: recordsOf(b)}
	w := newWalk(b, *apps, database)
	w.sync(b)
	w.renders.taken()
	w.renders.spent, database.spent = 0, 0
	made := 0
	for b.Loop() {
		w.at++
		w.sync(b)
		made += len(w.renders.taken())
	}
	per := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 / float64(b.N) }
	b.ReportMetric(per(w.renders.spent), "ms-renders/op")
	b.ReportMetric(per(database.spent), "ms-database/op")
	b.ReportMetric(per(b.Elapsed()-w.renders.spent-database.spent), "ms-rest/op")
	b.ReportMetric(float64(made)/float64(b.N), "renders/op")
}
