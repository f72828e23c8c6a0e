package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"towpath/reconcile/rollout"
)

// Scope is what a hold halts.
type Scope string

// Scopes.
const (
	ScopeAll         Scope = "all"         // of the tenant; Name is ""
	ScopeApplication Scope = "application" // of that name
	ScopeAccount     Scope = "account"     // of that name
)

// Hold halts the rollouts of its scope until it is lifted.
type Hold struct {
	Tenant string
	Scope  Scope
	Name   string
	By     string
	Reason string
	At     time.Time
	Key    string // what was done under it before is not done again; "": it has none. Not kept
}

func (h Hold) String() string {
	if h.Scope == ScopeAll {
		return "all rollouts"
	}
	return fmt.Sprintf("rollouts of %s %s", h.Scope, h.Name)
}

// Hold records a hold and wakes the lanes that it halts; a *rollout.Refusal when there is one already.
func (s *Store) Hold(ctx context.Context, h Hold) error {
	return s.write(ctx, "hold", func(tx *tx) error {
		if first, err := tx.first(ctx, h.Key); err != nil || !first {
			return err
		}
		result, err := tx.exec(ctx, `INSERT INTO holds (tenant_id, scope, name, who, reason, at) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			h.Tenant, string(h.Scope), h.Name, h.By, h.Reason, micros(tx.now()))
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil {
			return err
		} else if n == 0 {
			return rollout.Refuse(rollout.Conflicts, "%s are halted already", h)
		}
		return tx.holdChanged(ctx, h, "hold", "halted")
	})
}

// Unhold lifts a hold; a *rollout.Refusal when there is none.
func (s *Store) Unhold(ctx context.Context, h Hold) error {
	return s.write(ctx, "unhold", func(tx *tx) error {
		if first, err := tx.first(ctx, h.Key); err != nil || !first {
			return err
		}
		none := rollout.Refuse(rollout.Missing, "no hold on %s", h)
		if err := tx.one(ctx, none, `DELETE FROM holds WHERE tenant_id = ? AND scope = ? AND name = ?`, h.Tenant, string(h.Scope), h.Name); err != nil {
			return err
		}
		return tx.holdChanged(ctx, h, "unhold", "let go on")
	})
}

// HoldApplication is Hold, or with end Unhold, of one application, under a key.
func (s *Store) HoldApplication(ctx context.Context, key, tenant, application string, end bool, by, reason string) error {
	h := Hold{Tenant: tenant, Scope: ScopeApplication, Name: application, By: by, Reason: reason, Key: key}
	if end {
		return s.Unhold(ctx, h)
	}
	return s.Hold(ctx, h)
}

func (tx *tx) holdChanged(ctx context.Context, h Hold, kind, done string) error {
	event := rollout.Event{At: tx.now(), Tenant: h.Tenant, Who: h.By, Kind: kind, What: fmt.Sprintf("%s %s %s", h.By, done, h), Why: h.Reason}
	query, args := `SELECT id FROM lanes WHERE tenant_id = ? AND current_target IS NOT NULL`, []any{h.Tenant}
	switch h.Scope {
	case ScopeApplication:
		event.Application = h.Name
		query, args = query+` AND application = ?`, append(args, h.Name)
	case ScopeAccount:
		query, args = query+` AND account = ?`, append(args, h.Name)
	}
	if err := tx.event(ctx, event); err != nil {
		return err
	}
	return tx.wakeLanes(ctx, query, args...)
}

// Holds is the holds of a tenant, oldest first.
func (s *Store) Holds(ctx context.Context, tenant string) (holds []Hold, err error) {
	err = s.read(ctx, func(tx *tx) error {
		holds = nil
		rows, err := tx.query(ctx, `SELECT scope, name, who, reason, at FROM holds WHERE tenant_id = ? ORDER BY at, scope, name`, tenant)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			h := Hold{Tenant: tenant}
			var at int64
			if err := rows.Scan(&h.Scope, &h.Name, &h.By, &h.Reason, &at); err != nil {
				return err
			}
			h.At = fromMicros(at)
			holds = append(holds, h)
		}
		return rows.Err()
	})
	return holds, err
}

// holdOn is the oldest hold that halts a target; nil: none.
func (tx *tx) holdOn(ctx context.Context, t *rollout.Target) (*rollout.Hold, error) {
	var h rollout.Hold
	var at int64
	err := tx.queryRow(ctx, `SELECT who, reason, at FROM holds WHERE tenant_id = ? AND (scope = ? OR (scope = ? AND name = ?) OR (scope = ? AND name = ?)) ORDER BY at LIMIT 1`,
		t.Tenant, string(ScopeAll), string(ScopeApplication), t.Application, string(ScopeAccount), t.Account).Scan(&h.By, &h.Reason, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	h.At = fromMicros(at)
	return &h, err
}
