package reconcile_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"towpath/internal/testkit/memstore"
	"towpath/reconcile"
	"towpath/reconcile/rollout"
)

// slow is lanes of one cluster whose runs last until the test lets them end.
type slow struct {
	*memstore.Store // of which nothing else is asked

	running chan int64
	end     chan struct{}
	woken   chan int64
}

func (s *slow) AccountOf(context.Context, int64) (string, string, error) { return "main", "slow", nil }

func (s *slow) Claim(_ context.Context, lane int64, _ time.Duration) (rollout.Lease, error) {
	s.running <- lane
	<-s.end
	return rollout.Lease{}, rollout.ErrLeased
}

func (s *slow) Wake(_ context.Context, lane int64) error {
	s.woken <- lane
	return nil
}

func TestALaneThatFindsItsClusterCrowdedWaitsWithoutAWorker(t *testing.T) {
	t.Parallel()
	const places = 64
	s := &slow{running: make(chan int64, places), end: make(chan struct{}), woken: make(chan int64, 2)}
	r := &reconcile.Runner{Lanes: s}
	var runs sync.WaitGroup
	run := func(lane int64) {
		if err := r.Run(t.Context(), lane); err != nil {
			t.Error(err)
		}
	}
	for lane := range int64(places) {
		runs.Go(func() { run(lane) })
	}
	for range places {
		<-s.running
	}
	run(100) // each comes back at once; they would hang here
	run(101)
	run(100) // woken once more
	s.end <- struct{}{}
	if lane := <-s.woken; lane != 100 {
		t.Errorf("lane %d goes on, want the one that waited longest", lane)
	}
	s.end <- struct{}{}
	if lane := <-s.woken; lane != 101 {
		t.Errorf("lane %d goes on, want the other", lane)
	}
	close(s.end)
	runs.Wait()
	select {
	case lane := <-s.woken:
		t.Errorf("lane %d was woken twice", lane)
	default:
	}
}
