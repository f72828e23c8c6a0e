// Package memstore is a store in memory, for tests that run rollouts by the thousand: it keeps what deployments and their lanes need, and passes
// storetest as the store in SQL does. What is decided about lanes is decided by reconcile/rollout for both; here is only where it is kept.
package memstore

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"towpath/manifest"
	"towpath/reconcile/rollout"
	"towpath/store"
)

// Store is safe for concurrent use. What it gives out is shared and must not be changed, as nothing of reconcile/rollout changes what it is given.
type Store struct {
	// Exclusive says that one process uses it, as SQLite is used: Recover then frees the lanes that a dead process held.
	Exclusive bool

	clock func() time.Time
	wakes chan int64

	mu           sync.Mutex
	ids          int64
	applications map[application]*applicationRow
	deployments  map[string]*deploymentRow
	lanes        map[int64]*laneRow
	order        []int64 // of lanes, as they were made
	targets      map[int64]*targetRow
	inventory    map[place]int64 // → lane
	holds        []store.Hold
	events       []store.Event
	sealed       map[string][]manifest.Object
	told         map[string]bool
	outbox       map[string]*messageRow // by commit
	calls        []*callRow             // as they were asked for
	links        []*linkRow             // as they were made
	asked        []string               // calls to be made that nobody has taken yet
	pending      []int64                // lanes to be woken when the call under way has ended
}

type application struct{ tenant, name string }

type applicationRow struct {
	rollout.Owner
	number int
}

type deploymentRow struct {
	start   rollout.Start // as it was recorded
	view    store.DeploymentView
	cancel  *rollout.Request
	refused error // a *store.ErrUnderWay; nil: it was not
	queued  bool
	targets []int64
	words   []rollout.Word
}

type laneRow struct {
	rollout.Standing
	id                                   int64
	tenant, application, target, account string
	queue                                rollout.Queue
	wanted                               int64 // target
	seq, epoch                           int64
	lease, due                           time.Time
	judged                               map[string]int
}

type targetRow struct {
	rollout.Target
	carriedBy, replacedBy int64
}

type place struct {
	tenant, account string
	key             manifest.Key
}

type messageRow struct {
	rollout.Message
	dirty, sent int64
}

// waiting is how many wakes nobody has taken yet there may be.
const waiting = 1 << 16

// New makes an empty store.
func New(clock func() time.Time) *Store {
	return &Store{clock: clock, wakes: make(chan int64, waiting), applications: map[application]*applicationRow{}, deployments: map[string]*deploymentRow{},
		lanes: map[int64]*laneRow{}, targets: map[int64]*targetRow{}, inventory: map[place]int64{}, sealed: map[string][]manifest.Object{},
		told: map[string]bool{}, outbox: map[string]*messageRow{}}
}

// Wakes gives the lanes that are to be run, in the order in which they were woken.
func (s *Store) Wakes() <-chan int64 { return s.wakes }

// write is one transaction. What fails must not have changed anything yet.
func (s *Store) write(do func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = s.pending[:0]
	if err := do(); err != nil {
		return err
	}
	for _, lane := range s.pending {
		s.wakes <- lane
	}
	return nil
}

// now has the precision that is kept.
func (s *Store) now() time.Time { return s.clock().UTC().Truncate(time.Microsecond) }

func (s *Store) newID() int64 {
	s.ids++
	return s.ids
}

func (s *Store) wake(lane *laneRow) {
	lane.seq++
	if !slices.Contains(s.pending, lane.id) {
		s.pending = append(s.pending, lane.id)
	}
}

// wakeWhere wakes each lane on which something is under way.
func (s *Store) wakeWhere(of func(*laneRow) bool) {
	for _, id := range s.order {
		if lane := s.lanes[id]; lane.queue.Current != 0 && of(lane) {
			s.wake(lane)
		}
	}
}

func (s *Store) event(e rollout.Event) {
	e.At = e.At.UTC().Truncate(time.Microsecond)
	s.events = append(s.events, store.Event{ID: int64(len(s.events) + 1), Event: e})
}

// Events lists events in the order in which they happened.
func (s *Store) Events(_ context.Context, f store.EventFilter) ([]store.Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	limit := f.Limit
	if limit <= 0 || limit > 1000 {
		limit = 1000
	}
	var found []store.Event
	for _, e := range s.events[min(max(f.After, 0), int64(len(s.events))):] {
		if e.Tenant != f.Tenant || f.Application != "" && e.Application != f.Application || f.Deployment != "" && e.Deployment != f.Deployment {
			continue
		}
		if found = append(found, e); len(found) == limit {
			break
		}
	}
	return found, nil
}

// Manifests opens a sealed set.
func (s *Store) Manifests(_ context.Context, digest string) ([]manifest.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	objects, found := s.sealed[digest]
	if !found {
		return nil, fmt.Errorf("nothing is sealed under %s", digest)
	}
	return objects, nil
}

// TellAbout says of which sources' commits is told.
func (s *Store) TellAbout(sources []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.told)
	for _, source := range sources {
		s.told[source] = true
	}
}

func (s *Store) tell(d *deploymentRow) {
	o := d.start.Origin
	if o.Commit == "" || !s.told[o.Source] {
		return
	}
	subject := d.start.Tenant + "/" + o.Source + "/" + o.Commit
	if s.outbox[subject] == nil {
		s.outbox[subject] = &messageRow{Message: rollout.Message{Tenant: d.start.Tenant, Source: o.Source, Commit: o.Commit}}
	}
	s.outbox[subject].dirty++
}

// ClaimMessage takes a message of some sources for a while; nil when there is none.
func (s *Store) ClaimMessage(_ context.Context, sources []string, lasts time.Duration) (*rollout.Message, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.outbox {
		if slices.Contains(sources, m.Source) && m.dirty > m.sent && !m.Until.After(s.now()) {
			m.Until = s.now().Add(lasts)
			claimed := m.Message
			claimed.Seq = m.dirty
			return &claimed, time.Time{}, nil
		}
	}
	return nil, time.Time{}, nil
}

// Told gives a message back: all up to its change was told.
func (s *Store) Told(_ context.Context, m rollout.Message, _ map[string]rollout.Publication) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	row := s.outbox[m.Tenant+"/"+m.Source+"/"+m.Commit]
	row.sent, row.Until = m.Seq, time.Time{}
	return nil
}
