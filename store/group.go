package store

import (
	"context"
	"database/sql"
	"errors"
	"sync"

	"towpath/internal/crash"
)

// group lets writes that come at the same time share one transaction of SQLite, which has one writer anyway: what a commit costs is the disk's sync, and so
// it is paid once for all of them. None waits for more than the commit under way. A write that fails undoes itself alone, by a savepoint.
type group struct {
	turn chan struct{} // held by who commits

	mu      sync.Mutex
	waiting []*member
}

// member is one write of a group.
type member struct {
	ctx  context.Context
	name string
	do   func(*tx) error

	tx   *tx
	err  error
	ends chan struct{} // closed when tx or err is final
}

func newGroup() *group { return &group{turn: make(chan struct{}, 1)} }

// together runs a write with all others that wait by now.
func (s *Store) together(ctx context.Context, name string, do func(*tx) error) (*tx, error) {
	g, m := s.group, &member{ctx: ctx, name: name, do: do, ends: make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, m)
	g.mu.Unlock()
	select {
	case <-m.ends:
	case g.turn <- struct{}{}:
		g.mu.Lock()
		members := g.waiting
		g.waiting = nil
		g.mu.Unlock()
		s.commitAll(members)
		<-g.turn
		<-m.ends // among members, or among those of the turn before
	}
	return m.tx, m.err
}

// commitAll runs writes in one transaction and tells each what became of it.
func (s *Store) commitAll(members []*member) {
	if len(members) == 0 {
		return
	}
	err := s.runAll(members)
	for _, m := range members {
		if err != nil {
			m.err = err // nothing of any of them was written
		}
		close(m.ends)
	}
}

// runAll fails when nothing could be written at all; what failed of a single write is in the member.
func (s *Store) runAll(members []*member) error {
	begun, err := s.writer.BeginTx(context.Background(), nil)
	if err != nil {
		return err
	}
	for _, m := range members {
		if err := s.runOne(begun, m); err != nil {
			begun.Rollback()
			return err
		}
	}
	for _, m := range members {
		if m.err == nil {
			crash.Point("before " + m.name)
		}
	}
	if err := begun.Commit(); err != nil {
		begun.Rollback()
		return err
	}
	for _, m := range members {
		if m.err == nil {
			crash.Point("after " + m.name)
		}
	}
	return nil
}

// runOne runs one write up to the commit, or leaves nothing of it. It fails when that cannot be done.
func (s *Store) runOne(begun *sql.Tx, m *member) error {
	t := &tx{Tx: begun, store: s, shared: true}
	if m.err = m.ctx.Err(); m.err != nil {
		return nil
	}
	if _, err := t.exec(m.ctx, `SAVEPOINT one`); err != nil {
		return err
	}
	if m.err = t.run(m.ctx, m.name, m.do); m.err == nil {
		_, err := t.exec(m.ctx, `RELEASE one`)
		m.tx = t
		return err
	}
	_, undone := t.exec(m.ctx, `ROLLBACK TO one`)
	_, released := t.exec(m.ctx, `RELEASE one`)
	if err := errors.Join(undone, released); err != nil {
		return errors.Join(m.err, err) // SQLite has given up the whole transaction
	}
	return nil
}
