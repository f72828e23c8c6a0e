package store

import (
	"context"
	"database/sql"
	"fmt"
	"sync"

	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riversqlite"
)

// sqliteDriver is the queue's driver for SQLite with a listener of our own. Only this process uses the database, so what it committed it can tell
// itself at once; the driver's own listener and workers would have to poll, which costs more than all else an idle controller does.
type sqliteDriver struct {
	*riversqlite.Driver
	bus *bus
}

var _ riverdriver.Driver[*sql.Tx] = sqliteDriver{}

// GetListener implements riverdriver.Driver.
func (d sqliteDriver) GetListener(*riverdriver.GetListenenerParams) riverdriver.Listener {
	return &listener{bus: d.bus, topics: map[string]bool{}}
}

// SupportsListenNotify implements riverdriver.Driver: nothing is to be written into the database for listeners.
func (sqliteDriver) SupportsListenNotify() bool { return false }

// inserted is the topic on which the queue's workers listen for new jobs.
const inserted = "river_insert"

// bus carries notifications from commits to the listeners of this process.
type bus struct {
	mu        sync.Mutex
	listeners map[*listener]bool
}

// publish says that there are new jobs. It never waits: a listener that has very many unread notifications looks by itself, on its poll.
func (b *bus) publish(wakes []wake) {
	if len(wakes) == 0 {
		return
	}
	queues := map[Job]bool{}
	for _, w := range wakes {
		queues[w.job] = true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for l := range b.listeners {
		for queue := range queues {
			if !l.topics[inserted] {
				continue
			}
			select {
			case l.notes <- &riverdriver.Notification{Topic: inserted, Payload: fmt.Sprintf(`{"queue": %q}`, queue)}:
			default:
			}
		}
	}
}

// listener implements riverdriver.Listener.
type listener struct {
	bus    *bus
	topics map[string]bool // guarded by bus.mu
	notes  chan *riverdriver.Notification
}

func (l *listener) Connect(context.Context) error {
	l.bus.mu.Lock()
	defer l.bus.mu.Unlock()
	if l.bus.listeners == nil {
		l.bus.listeners = map[*listener]bool{}
	}
	l.notes = make(chan *riverdriver.Notification, 1024)
	l.bus.listeners[l] = true
	return nil
}

func (l *listener) Close(context.Context) error {
	l.bus.mu.Lock()
	defer l.bus.mu.Unlock()
	delete(l.bus.listeners, l)
	clear(l.topics)
	return nil
}

func (l *listener) Listen(_ context.Context, topic string) error   { return l.set(topic, true) }
func (l *listener) Unlisten(_ context.Context, topic string) error { return l.set(topic, false) }

func (l *listener) set(topic string, on bool) error {
	l.bus.mu.Lock()
	defer l.bus.mu.Unlock()
	l.topics[topic] = on
	return nil
}

func (l *listener) WaitForNotification(ctx context.Context) (*riverdriver.Notification, error) {
	select {
	case note := <-l.notes:
		return note, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (*listener) Ping(context.Context) error { return nil }
func (*listener) Schema() string             { return "" }
func (*listener) SetAfterConnectExec(string) {}
