package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"towpath/reconcile/rollout"
)

// Event is a line of history with its place in it.
type Event struct {
	ID int64 `json:"id"`
	rollout.Event
}

// event adds a line of history to what the transaction writes at its end.
func (tx *tx) event(_ context.Context, e rollout.Event) error {
	tx.events = append(tx.events, e)
	return nil
}

// writeEvents writes the transaction's lines of history, the last thing before its commit. On PostgreSQL one transaction does so at a time: ids are
// in the order of commits, so that nobody who reads on from an id misses one that was committed after a later one.
func (tx *tx) writeEvents(ctx context.Context) error {
	if len(tx.events) == 0 || tx.store.dialect != postgresDialect {
		return tx.chain(ctx)
	}
	if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(7366872512)`); err != nil {
		return err
	}
	if err := tx.chain(ctx); err != nil {
		return err
	}
	return tx.notify(ctx, eventsChannel)
}

// chain writes the lines of each application as a chain: each holds the hash of the one before, so that none can be changed, left out or put in
// between unseen.
func (tx *tx) chain(ctx context.Context) error {
	for _, e := range tx.events {
		if err := tx.append(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

func (tx *tx) append(ctx context.Context, e rollout.Event) error {
	var last sql.NullString
	err := tx.queryRow(ctx, `SELECT hash FROM events WHERE tenant_id = ? AND application = ? ORDER BY id DESC LIMIT 1`, e.Tenant, e.Application).Scan(&last)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	e.At = e.At.UTC().Truncate(time.Microsecond)
	hash, err := link(last.String, e)
	if err != nil {
		return err
	}
	_, err = tx.exec(ctx, `INSERT INTO events (tenant_id, application, deployment, target, at, who, kind, what, why, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		e.Tenant, e.Application, e.Deployment, e.Target, micros(e.At), e.Who, e.Kind, e.What, e.Why, hash)
	return err
}

// link is the hash of an event that follows one with the hash before.
func link(before string, e rollout.Event) (string, error) {
	text, err := json.Marshal(e)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(append([]byte(before+"\n"), text...))
	return hex.EncodeToString(sum[:]), nil
}

// EventFilter says which events are wanted; zero fields match all.
type EventFilter struct {
	Tenant, Application, Deployment string
	After                           int64 // id
	Limit                           int   // at most 1,000, which 0 means too
}

// Events lists events in the order in which they happened.
func (s *Store) Events(ctx context.Context, f EventFilter) (events []Event, err error) {
	if f.Limit <= 0 || f.Limit > 1000 {
		f.Limit = 1000
	}
	err = s.read(ctx, func(tx *tx) error {
		events = nil
		rows, err := tx.query(ctx, `SELECT id, tenant_id, application, deployment, target, at, who, kind, what, why FROM events
			WHERE id > ? AND tenant_id = ? AND (? = '' OR application = ?) AND (? = '' OR deployment = ?) ORDER BY id LIMIT ?`,
			f.After, f.Tenant, f.Application, f.Application, f.Deployment, f.Deployment, f.Limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var e Event
			var at int64
			if err := rows.Scan(&e.ID, &e.Tenant, &e.Application, &e.Deployment, &e.Target, &at, &e.Who, &e.Kind, &e.What, &e.Why); err != nil {
				return err
			}
			e.At = fromMicros(at)
			events = append(events, e)
		}
		return rows.Err()
	})
	return events, err
}

// VerifyHistory walks an application's chain of events. The error names the first event that is not as it was written.
func (s *Store) VerifyHistory(ctx context.Context, tenant, application string) (count int, err error) {
	err = s.read(ctx, func(tx *tx) error {
		count = 0
		rows, err := tx.query(ctx, `SELECT id, deployment, target, at, who, kind, what, why, hash FROM events WHERE tenant_id = ? AND application = ? ORDER BY id`, tenant, application)
		if err != nil {
			return err
		}
		defer rows.Close()
		before := ""
		for rows.Next() {
			e := rollout.Event{Tenant: tenant, Application: application}
			var id, at int64
			var hash string
			if err := rows.Scan(&id, &e.Deployment, &e.Target, &at, &e.Who, &e.Kind, &e.What, &e.Why, &hash); err != nil {
				return err
			}
			e.At = fromMicros(at)
			want, err := link(before, e)
			if err != nil {
				return err
			}
			if want != hash {
				return fmt.Errorf("history of %s: event %d is not what was written, or one before it is missing", application, id)
			}
			before = hash
			count++
		}
		return rows.Err()
	})
	return count, err
}
