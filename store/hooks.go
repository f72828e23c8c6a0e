package store

import (
	"context"
	"time"

	"towpath/reconcile/rollout"
)

// maxDeliveries is how many webhook deliveries of one hook are remembered, to know a repeated one.
const maxDeliveries = 1000

// Hints are what a delivery is about, and what is looked at because of it.
type Hints struct {
	Sources   []string
	Proposals []rollout.ProposalLook
	Comments  []rollout.Comment
}

// Empty reports whether nothing is looked at.
func (h Hints) Empty() bool { return len(h.Sources)+len(h.Proposals)+len(h.Comments) == 0 }

// Deliver records a delivery of a hook together with what it is about, which is woken. A delivery that was recorded before changes nothing; fresh says which.
func (s *Store) Deliver(ctx context.Context, hook, guid, event string, body []byte, about Hints) (fresh bool, err error) {
	err = s.write(ctx, "delivery", func(tx *tx) error {
		result, err := tx.exec(ctx, `INSERT INTO deliveries (source, guid, event, body, at) VALUES (?, ?, ?, ?, ?) ON CONFLICT (source, guid) DO NOTHING`,
			hook, guid, event, body, micros(tx.now()))
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		if fresh = n > 0; err != nil || !fresh {
			return err
		}
		if _, err := tx.exec(ctx, `DELETE FROM deliveries WHERE source = ? AND at < (SELECT at FROM deliveries WHERE source = ? ORDER BY at DESC LIMIT 1 OFFSET ?)`,
			hook, hook, maxDeliveries); err != nil {
			return err
		}
		for _, source := range about.Sources {
			if err := tx.wake(ctx, JobSource, source); err != nil {
				return err
			}
		}
		if err := tx.hearOf(ctx, about.Comments); err != nil {
			return err
		}
		return tx.lookAtProposals(ctx, about.Proposals)
	})
	return fresh, err
}

// BeginLook says what deliveries of an App's hook were looked at until, zero: never; false: somebody looked less than every ago, or does so now.
func (s *Store) BeginLook(ctx context.Context, app string, every time.Duration) (until time.Time, mine bool, err error) {
	err = s.write(ctx, "hook.look", func(tx *tx) error {
		now := tx.now()
		if _, err := tx.exec(ctx, `INSERT INTO hook_looks (app, began_at, until_at) VALUES (?, 0, 0) ON CONFLICT (app) DO NOTHING`, app); err != nil {
			return err
		}
		result, err := tx.exec(ctx, `UPDATE hook_looks SET began_at = ? WHERE app = ? AND began_at <= ?`, micros(now), app, micros(now.Add(-every)))
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		if mine = n > 0; err != nil || !mine {
			return err
		}
		var at int64
		if err := tx.queryRow(ctx, `SELECT until_at FROM hook_looks WHERE app = ?`, app).Scan(&at); err != nil {
			return err
		}
		until = time.Time{}
		if at != 0 {
			until = fromMicros(at)
		}
		return nil
	})
	return until, mine, err
}

// redeliveriesLast is how long it is remembered what GitHub was asked to deliver again: longer than it can.
const redeliveriesLast = 4 * 24 * time.Hour

// mostRedeliveries is how often GitHub is asked for one delivery: what fails each time is refused for what it is.
const mostRedeliveries = 5

// Redeliver records that GitHub is asked to deliver again what it could not in an attempt; false: it was asked after that attempt, or often enough.
func (s *Store) Redeliver(ctx context.Context, app, guid string, attempt int64) (ask bool, err error) {
	err = s.write(ctx, "hook.redeliver", func(tx *tx) error {
		if _, err := tx.exec(ctx, `DELETE FROM redeliveries WHERE app = ? AND at < ?`, app, micros(tx.now().Add(-redeliveriesLast))); err != nil {
			return err
		}
		result, err := tx.exec(ctx, `INSERT INTO redeliveries (app, guid, attempt, at) SELECT ?, ?, CAST(? AS BIGINT), CAST(? AS BIGINT)
			WHERE (SELECT COUNT(*) FROM redeliveries WHERE app = ? AND guid = ?) < ? ON CONFLICT (app, guid, attempt) DO NOTHING`,
			app, guid, attempt, micros(tx.now()), app, guid, mostRedeliveries)
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		ask = n > 0
		return err
	})
	return ask, err
}

// EndLook records what deliveries of an App's hook were looked at until.
func (s *Store) EndLook(ctx context.Context, app string, until time.Time) error {
	return s.write(ctx, "hook.looked", func(tx *tx) error {
		_, err := tx.exec(ctx, `UPDATE hook_looks SET until_at = ? WHERE app = ?`, micros(until), app)
		return err
	})
}
