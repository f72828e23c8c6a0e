package store

import (
	"context"
	"database/sql"
	"errors"

	"towpath/reconcile/rollout"
)

// Census is what an operator watches, of all tenants.
type Census struct {
	Lanes           map[rollout.State]int // that are not removed, by the state of what runs on them or ran last
	UnderWay        int                   // deployments
	Untold, Refused int                   // messages to send, and those that were refused
	Drifted         map[string]int        // objects that differ in their clusters, by account
	Sources         []SourceView          // without what is untold
}

// Census counts on one consistent picture.
func (s *Store) Census(ctx context.Context) (c Census, err error) {
	err = s.read(ctx, func(tx *tx) error {
		c = Census{Lanes: map[rollout.State]int{}}
		err := tx.each(ctx, `SELECT t.state, COUNT(*) FROM lanes l JOIN targets t ON t.id = COALESCE(l.current_target, l.wanted_target) WHERE l.removed = 0 GROUP BY t.state`,
			func(scan func(...any) error) error {
				var state string
				var count int
				err := scan(&state, &count)
				c.Lanes[rollout.State(state)] = count
				return err
			})
		if err != nil {
			return err
		}
		if err := tx.queryRow(ctx, `SELECT COUNT(*) FROM deployments WHERE ended_at IS NULL`).Scan(&c.UnderWay); err != nil {
			return err
		}
		if err := tx.queryRow(ctx, `SELECT COUNT(*) FROM outbox WHERE dirty_seq > sent_seq AND parked = 0`).Scan(&c.Untold); err != nil {
			return err
		}
		if err := tx.queryRow(ctx, `SELECT COUNT(*) FROM outbox WHERE parked <> 0`).Scan(&c.Refused); err != nil {
			return err
		}
		c.Drifted = map[string]int{}
		if err := tx.each(ctx, `SELECT l.account, COUNT(*) FROM drift d JOIN lanes l ON l.id = d.lane_id GROUP BY l.account`, func(scan func(...any) error) error {
			var account string
			var count int
			err := scan(&account, &count)
			c.Drifted[account] = count
			return err
		}); err != nil {
			return err
		}
		return tx.each(ctx, `SELECT tenant_id, name, failure, failed_since FROM sources ORDER BY tenant_id, name`, func(scan func(...any) error) error {
			var v SourceView
			var since sql.NullInt64
			err := scan(&v.Tenant, &v.Name, &v.Failure, &since)
			v.FailedSince = nullTime(since)
			c.Sources = append(c.Sources, v)
			return err
		})
	})
	return c, err
}

// each reads the rows of a query.
func (tx *tx) each(ctx context.Context, query string, row func(scan func(...any) error) error, args ...any) error {
	rows, err := tx.query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	return errors.Join(rows.Err(), rows.Close())
}
