package store

import (
	"context"
	"sync"
	"time"
)

// news tells listeners of this process that there are new events.
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

// News gives a channel that is ready when there may be events after those that were read before; stop ends it. It is closed with the store.
func (s *Store) News() (news <-chan struct{}, stop func()) {
	listener := make(chan struct{}, 1)
	s.news.mu.Lock()
	defer s.news.mu.Unlock()
	if s.news.closed {
		close(listener)
		return listener, func() {}
	}
	if s.news.listeners == nil {
		s.news.listeners = map[chan struct{}]struct{}{}
	}
	s.news.listeners[listener] = struct{}{}
	return listener, func() {
		s.news.mu.Lock()
		defer s.news.mu.Unlock()
		delete(s.news.listeners, listener)
	}
}

// HangUp closes the channels that News gave, for those who follow the news to end before all else does.
func (s *Store) HangUp() { s.news.close() }

// eventsChannel is where transactions of all processes that share a PostgreSQL database say that they wrote events.
const eventsChannel = "towpath_events"

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
	if _, err := connection.Exec(ctx, "LISTEN "+eventsChannel); err != nil {
		return err
	}
	for {
		s.news.tell()
		if _, err := connection.Conn().WaitForNotification(ctx); err != nil {
			return err
		}
	}
}
