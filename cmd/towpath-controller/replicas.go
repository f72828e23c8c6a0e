package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/sirupsen/logrus"

	"towpath/agent/hub"
	"towpath/store"
)

// A replica says each beatEvery that it lives, is taken for dead when it was silent for as long as alive, and forgotten after forget.
const (
	beatEvery = 5 * time.Second
	alive     = 3 * beatEvery
	forget    = time.Minute
)

// replicas is what controllers on one PostgreSQL database know of each other's agents: each writes down the sessions that it has, and hears what others wrote.
type replicas struct {
	store   *store.Store
	hub     *hub.Hub
	self    store.Replica
	changed func(tenant, agent string)                                    // told after the others can know
	looked  func(ctx context.Context, watched map[[2]string]string) error // told now and then, and when agents came or went anywhere, by which replica each is watched
	moved   func(lanes []int64)                                           // told where history went on
	died    func(ctx context.Context) error                               // told when a replica is there no more: what it watched nobody watches
	log     *logrus.Entry

	signal chan struct{} // dirty has grown; capacity 1
	stop   context.CancelFunc
	ended  chan struct{}

	living []store.Replica // as they were last seen

	mu    sync.Mutex
	dirty map[[2]string]bool // agents whose sessions here are not as they are written down
}

func newReplicas(s *store.Store, log *logrus.Entry) *replicas {
	return &replicas{store: s, self: store.Replica{ID: uuid.NewString()}, log: log, signal: make(chan struct{}, 1), ended: make(chan struct{}), dirty: map[[2]string]bool{}}
}

// Find implements hub.Directory.
func (r *replicas) Find(ctx context.Context, tenant, agent string) (places []hub.Place, err error) {
	sessions, err := r.store.Sessions(ctx, tenant, agent, alive)
	for _, s := range sessions {
		if s.Replica.ID != r.self.ID && s.Admitted {
			places = append(places, hub.Place{Session: s.ID, Address: s.Replica.Address})
		}
	}
	return places, err
}

// others lists the sessions of a tenant's agents at other replicas. When such an agent last beat is not known; its replica has.
func (r *replicas) others(ctx context.Context, tenant string) (all []hub.Status, err error) {
	sessions, err := r.store.Sessions(ctx, tenant, "", alive)
	for _, s := range sessions {
		if s.Replica.ID != r.self.ID {
			all = append(all, hub.Status{Session: s.ID, Tenant: s.Tenant, Agent: s.Agent, Instance: s.Instance, Version: s.Version, Remote: s.Remote, Since: s.Since, LastBeat: s.Beat,
				Targets: s.Targets, Held: !s.Admitted})
		}
	}
	return all, err
}

// goodbye is how long the database may take for what is asked and said at the end.
const goodbye = 3 * time.Second

// alone reports whether no other replica is there, as far as it is known.
func (r *replicas) alone() bool {
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	all, err := r.store.Replicas(ctx, alive)
	return err != nil || len(all) <= 1
}

// note has an agent's sessions written down soon.
func (r *replicas) note(tenant, agent string) {
	r.mu.Lock()
	r.dirty[[2]string{tenant, agent}] = true
	r.mu.Unlock()
	select {
	case r.signal <- struct{}{}:
	default:
	}
}

// start makes this replica known to others, at an address, and goes on until close.
func (r *replicas) start(address string) {
	r.self.Address = address
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go r.run(ctx)
}

// close takes this replica away from the others' sight.
func (r *replicas) close() error {
	if r.stop == nil {
		return nil
	}
	r.stop()
	<-r.ended
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	return r.store.DropReplica(ctx, r.self.ID)
}

func (r *replicas) run(ctx context.Context) {
	defer close(r.ended)
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	moves, unfollow := r.store.Moves()
	defer unfollow()
	news, ignore := r.store.News()
	defer ignore()
	seen := int64(-1)
	r.do(ctx, "this replica could not say that it lives; others take its agents for away", r.beat)
	for {
		r.do(ctx, "the sessions of agents could not be written down for other replicas", r.save)
		open := true
		select {
		case <-ctx.Done():
			return
		case <-r.signal:
		case <-beat.C:
			r.do(ctx, "this replica could not say that it lives; others take its agents for away", r.beat)
			r.do(ctx, "what moved between replicas could not be read", r.look) // also when nobody told: replicas die
		case <-moves:
			r.hub.Moved()
			r.do(ctx, "what moved between replicas could not be read", r.look)
		case _, open = <-news:
			r.do(ctx, "what other replicas did could not be read", func(ctx context.Context) error {
				lanes, newest, err := r.store.LanesMoved(ctx, seen)
				if err == nil {
					seen = newest
					r.moved(lanes)
				}
				return err
			})
		}
		if !open {
			news = nil // the controller stops
		}
	}
}

// do tells why something could not be done; it is done again with the next beat, or change.
func (r *replicas) do(ctx context.Context, failed string, what func(context.Context) error) {
	if err := what(ctx); err != nil && ctx.Err() == nil {
		r.log.WithError(err).Error(failed + "; trying again")
	}
}

// beat says that this replica lives. Who was forgotten meanwhile writes everything down anew.
func (r *replicas) beat(ctx context.Context) error {
	known, err := r.store.Beat(ctx, r.self, forget)
	if err == nil && !known {
		for _, s := range r.hub.Agents() {
			r.note(s.Tenant, s.Agent)
		}
	}
	return err
}

// save writes down the sessions of all agents that changed.
func (r *replicas) save(ctx context.Context) error {
	r.mu.Lock()
	dirty := r.dirty
	r.dirty = map[[2]string]bool{}
	r.mu.Unlock()
	if len(dirty) == 0 {
		return nil
	}
	var agents [][2]string
	var sessions []store.Session
	for a := range dirty {
		agents = append(agents, a)
		for _, s := range r.hub.Sessions(a[0], a[1]) {
			if !s.Draining {
				sessions = append(sessions, store.Session{ID: s.Session, Tenant: s.Tenant, Agent: s.Agent, Instance: s.Instance, Version: s.Version, Remote: s.Remote, Targets: s.Targets,
					Since: s.Since, Admitted: !s.Held})
			}
		}
	}
	if err := r.store.SaveSessions(ctx, r.self.ID, agents, sessions); err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		for a := range dirty {
			r.dirty[a] = true
		}
		return err
	}
	for _, a := range agents {
		r.changed(a[0], a[1])
	}
	return nil
}

// look ends sessions of instances that are elsewhere by now, and learns by which replica each agent's cluster is watched: the one that has its oldest session.
func (r *replicas) look(ctx context.Context) error {
	living, err := r.store.Replicas(ctx, alive)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(r.living, func(before store.Replica) bool { return !slices.Contains(living, before) }) {
		if err := r.died(ctx); err != nil {
			return err
		}
	}
	r.living = living
	left, err := r.store.Superseded(ctx, r.self.ID, alive)
	if err != nil {
		return err
	}
	for _, session := range left {
		r.hub.Supersede(session)
	}
	watched, err := r.store.Oldest(ctx, alive)
	if err != nil {
		return err
	}
	return r.looked(ctx, watched)
}
