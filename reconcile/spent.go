package reconcile

import (
	"context"
	"sync/atomic"
	"time"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// spent is where the time of taking in a commit went. Times of what is done side by side add up.
type spent struct{ renders, rendering, storing atomic.Int64 }

// time adds up how long something takes, from the call until the function it returns is called.
func (s *spent) time(sum *atomic.Int64) (stop func()) {
	began := time.Now()
	return func() { sum.Add(int64(time.Since(began))) }
}

func inSeconds(sum *atomic.Int64) float64 { return time.Duration(sum.Load()).Seconds() }

// timedRenders counts and times renders.
type timedRenders struct {
	renders
	*spent
}

func (t timedRenders) Render(ctx context.Context, r RenderRequest) (rollout.RenderRecord, error) {
	defer t.time(&t.rendering)()
	t.spent.renders.Add(1)
	return t.renders.Render(ctx, r)
}

// timedPlanStore times what planning asks of the store.
type timedPlanStore struct {
	planStore
	*spent
}

func (t timedPlanStore) Lanes(ctx context.Context, tenant, application string) ([]rollout.LaneState, error) {
	defer t.time(&t.storing)()
	return t.planStore.Lanes(ctx, tenant, application)
}

func (t timedPlanStore) Owner(ctx context.Context, tenant, application string) (rollout.Owner, error) {
	defer t.time(&t.storing)()
	return t.planStore.Owner(ctx, tenant, application)
}

func (t timedPlanStore) Taken(ctx context.Context, tenant, application, account string, keys []manifest.Key) (map[manifest.Key]string, error) {
	defer t.time(&t.storing)()
	return t.planStore.Taken(ctx, tenant, application, account, keys)
}

func (t timedPlanStore) Manifests(ctx context.Context, digest string) ([]manifest.Object, error) {
	defer t.time(&t.storing)()
	return t.planStore.Manifests(ctx, digest)
}

// timedSourceStore times what taking in asks of the store.
type timedSourceStore struct {
	sourceStore
	*spent
}

func (t timedSourceStore) Source(ctx context.Context, tenant, source string) (rollout.SourceState, error) {
	defer t.time(&t.storing)()
	return t.sourceStore.Source(ctx, tenant, source)
}

func (t timedSourceStore) SourceProcessed(ctx context.Context, tenant, source, commit, terms string) error {
	defer t.time(&t.storing)()
	return t.sourceStore.SourceProcessed(ctx, tenant, source, commit, terms)
}

func (t timedSourceStore) Files(ctx context.Context, tenant, source string) ([]rollout.FileState, error) {
	defer t.time(&t.storing)()
	return t.sourceStore.Files(ctx, tenant, source)
}

func (t timedSourceStore) Renders(ctx context.Context, tenant, source string) ([]rollout.RenderRecord, error) {
	defer t.time(&t.storing)()
	return t.sourceStore.Renders(ctx, tenant, source)
}

func (t timedSourceStore) Owned(ctx context.Context, tenant, source, path string) ([]string, error) {
	defer t.time(&t.storing)()
	return t.sourceStore.Owned(ctx, tenant, source, path)
}

func (t timedSourceStore) Leave(ctx context.Context, l rollout.Leave) error {
	defer t.time(&t.storing)()
	return t.sourceStore.Leave(ctx, l)
}

func (t timedSourceStore) Record(ctx context.Context, record rollout.FileRecord) error {
	defer t.time(&t.storing)()
	return t.sourceStore.Record(ctx, record)
}
