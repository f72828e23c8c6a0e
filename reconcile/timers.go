package reconcile

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// Timers wakes lanes when they are due. Due times live in the store; what is here is only the nearest of them in memory, so losing it loses
// nothing: Run reads them all again.
type Timers struct {
	due  dueLanes
	log  *logrus.Entry
	now  func() time.Time
	mu   sync.Mutex
	next dues
	set  chan struct{}
}

// dueLanes is what Timers needs of the store.
type dueLanes interface {
	// WakeDue wakes each lane whose time has come, and returns the next times after now.
	WakeDue(ctx context.Context, now time.Time) (later map[int64]time.Time, err error)
}

// NewTimers makes timers that do nothing until Run.
func NewTimers(due dueLanes, now func() time.Time, log *logrus.Entry) *Timers {
	return &Timers{due: due, log: log, now: now, set: make(chan struct{}, 1)}
}

// Set makes the lane be woken at a time, beside those set before.
func (t *Timers) Set(lane int64, at time.Time) {
	t.mu.Lock()
	heap.Push(&t.next, dueAt{lane, at})
	t.mu.Unlock()
	select {
	case t.set <- struct{}{}:
	default:
	}
}

// reload is how often the store is asked for times that another replica recorded and then could not keep.
const reload = time.Minute

// Run wakes lanes until ctx ends.
func (t *Timers) Run(ctx context.Context) {
	for {
		later, err := t.due.WakeDue(ctx, t.now())
		wait := reload
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			t.log.WithError(err).Error("lanes that are due could not be woken; trying again in a second")
			wait = time.Second
		} else {
			t.reset(later)
		}
		if !t.sleep(ctx, wait) {
			return
		}
	}
}

func (t *Timers) reset(later map[int64]time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next = t.next[:0]
	for lane, at := range later {
		t.next = append(t.next, dueAt{lane, at})
	}
	heap.Init(&t.next)
}

// sleep waits for the nearest time, at most for longest. It is false when ctx ended.
func (t *Timers) sleep(ctx context.Context, longest time.Duration) bool {
	end := t.now().Add(longest)
	for {
		until := end
		t.mu.Lock()
		if len(t.next) > 0 && t.next[0].at.Before(until) {
			until = t.next[0].at
		}
		t.mu.Unlock()
		timer := time.NewTimer(until.Sub(t.now()))
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-timer.C:
			return true
		case <-t.set:
			timer.Stop()
		}
	}
}

type dueAt struct {
	lane int64
	at   time.Time
}

// dues is a heap of times, the nearest first.
type dues []dueAt

func (d dues) Len() int           { return len(d) }
func (d dues) Less(i, j int) bool { return d[i].at.Before(d[j].at) }
func (d dues) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *dues) Push(x any)        { *d = append(*d, x.(dueAt)) }
func (d *dues) Pop() any {
	old := *d
	last := old[len(old)-1]
	*d = old[:len(old)-1]
	return last
}
