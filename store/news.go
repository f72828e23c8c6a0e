package store

import (
	"context"
	"sync"
	"time"
)

// news tells listeners of this process that something is new.
type news struct {
	mu        sync.Mutex
	listeners map[chan struct{}]struct{}
	closed    bool
}

func (n *news) tell() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for listener := range n.listeners {
		select {
		case listener <- struct{}{}:
		default: // it has not looked since the last time, and will
		}
	}
}

func (n *news) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	for listener := range n.listeners {
		close(listener)
	}
	n.listeners = nil
}

// follow gives a channel that is ready when there may be something new; stop ends it.
func (n *news) follow() (news <-chan struct{}, stop func()) {
	listener := make(chan struct{}, 1)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		close(listener)
		return listener, func() {}
	}
	if n.listeners == nil {
		n.listeners = map[chan struct{}]struct{}{}
	}
	n.listeners[listener] = struct{}{}
	return listener, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.listeners, listener)
	}
}

// News gives a channel that is ready when there may be events after those that were read before; stop ends it. It is closed with the store.
func (s *Store) News() (news <-chan struct{}, stop func()) { return s.news.follow() }

// Moves gives a channel that is ready when agents' sessions may be others than were read before; stop ends it. It is closed with the store.
func (s *Store) Moves() (moves <-chan struct{}, stop func()) { return s.moves.follow() }

// Turns gives a channel that is ready when observing may have begun or ended, as another process says on PostgreSQL; stop ends it. It is closed with the store.
func (s *Store) Turns() (turns <-chan struct{}, stop func()) { return s.turns.follow() }

// HangUp closes the channels that News gave, for those who follow the news to end before all else does.
func (s *Store) HangUp() { s.news.close() }

// Channels on which transactions of all processes that share a PostgreSQL database say that they wrote events, or sessions of agents, or that observing
// began or ended.
const (
	eventsChannel = "towpath_events"
	movesChannel  = "towpath_moves"
	turnsChannel  = "towpath_turns"
)

// notify tells those who listen on a channel, once the transaction is committed. SQLite has no other process to tell.
func (tx *tx) notify(ctx context.Context, channel string) error {
	if tx.store.dialect != postgresDialect {
		return nil
	}
	_, err := tx.ExecContext(ctx, `SELECT pg_notify('`+channel+`', '')`)
	return err
}

// relisten is how long it takes to listen anew after the connection was lost.
const relisten = time.Second

// listen passes on what other processes say, until ctx ends. What was said while nobody listened is made up for by saying that there may be news.
func (s *Store) listen(ctx context.Context) {
	for {
		err := s.listenOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		s.log.WithError(err).Warn("news of other controllers do not arrive; listening again")
		select {
		case <-ctx.Done():
			return
		case <-time.After(relisten):
		}
	}
}

func (s *Store) listenOnce(ctx context.Context) error {
	connection, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer connection.Release()
	told := map[string]*news{eventsChannel: &s.news, movesChannel: &s.moves, turnsChannel: &s.turns}
	for channel, news := range told {
		if _, err := connection.Exec(ctx, "LISTEN "+channel); err != nil {
			return err
		}
		news.tell()
	}
	for {
		note, err := connection.Conn().WaitForNotification(ctx)
		if err != nil {
			return err
		}
		told[note.Channel].tell()
	}
}
