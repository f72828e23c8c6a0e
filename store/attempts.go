package store

import (
	"context"
	"time"

	"towpath/reconcile/rollout"
)

// Sender is a request that its sender may send again: the same key of the same sender is the same request.
type Sender struct {
	Tenant, Who, Key string
}

// Attempt is what is remembered of such a request.
type Attempt struct {
	ID     string // of the deployment that it starts
	Answer []byte // to its first sending; nil: none was given yet
}

// attemptsLast is how long keys are remembered.
const attemptsLast = 24 * time.Hour

// Attempt begins a request, or finds what its first sending came to. All sendings get the id of the first, so that starting it twice starts it once.
// A *rollout.Refusal when the key was used for another request; request is what both are told apart by.
func (s *Store) Attempt(ctx context.Context, of Sender, request, id string) (a Attempt, err error) {
	err = s.write(ctx, "attempt", func(tx *tx) error {
		if _, err := tx.exec(ctx, `DELETE FROM attempts WHERE at < ?`, micros(tx.now().Add(-attemptsLast))); err != nil {
			return err
		}
		if _, err := tx.exec(ctx, `INSERT INTO attempts (tenant_id, who, key, request, id, at) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (tenant_id, who, key) DO NOTHING`,
			of.Tenant, of.Who, of.Key, request, id, micros(tx.now())); err != nil {
			return err
		}
		var first string
		a = Attempt{}
		if err := tx.queryRow(ctx, `SELECT request, id, answer FROM attempts WHERE tenant_id = ? AND who = ? AND key = ?`, of.Tenant, of.Who, of.Key).Scan(&first, &a.ID, &a.Answer); err != nil {
			return err
		}
		if first != request {
			return rollout.Refuse(rollout.Malformed, "Idempotency-Key %s was used for another request; a new request needs a new key", of.Key)
		}
		return nil
	})
	return a, err
}

// Answered remembers the answer to a request, for its next sending.
func (s *Store) Answered(ctx context.Context, of Sender, answer []byte) error {
	return s.write(ctx, "attempt", func(tx *tx) error {
		_, err := tx.exec(ctx, `UPDATE attempts SET answer = COALESCE(answer, ?) WHERE tenant_id = ? AND who = ? AND key = ?`, answer, of.Tenant, of.Who, of.Key)
		return err
	})
}
