package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"towpath/reconcile/rollout"
)

// enqueueDeployment records a deployment that starts once the one under way has ended. Only the newest one waits.
func (tx *tx) enqueueDeployment(ctx context.Context, start rollout.Start, number, behind int) error {
	rows, err := tx.query(ctx, `SELECT id, number FROM deployments WHERE tenant_id = ? AND application = ? AND queued IS NOT NULL`, start.Tenant, start.Application)
	if err != nil {
		return err
	}
	defer rows.Close()
	waited := map[string]int{}
	for rows.Next() {
		var id string
		var n int
		if err := rows.Scan(&id, &n); err != nil {
			return err
		}
		waited[id] = n
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	for id, n := range waited {
		if err := tx.dropQueued(ctx, id, n, start.Displaces(number), start.At); err != nil {
			return err
		}
	}
	text, err := json.Marshal(start)
	if err != nil {
		return err
	}
	if _, err := tx.exec(ctx, `UPDATE deployments SET queued = ?, why = ? WHERE id = ?`, string(text), fmt.Sprintf("waits for #%d to end", behind), start.ID); err != nil {
		return err
	}
	return tx.tellOf(ctx, start.ID)
}

// dropQueued ends a deployment that waited for another to end.
func (tx *tx) dropQueued(ctx context.Context, id string, number int, why string, now time.Time) error {
	var tenant, application string
	if err := tx.queryRow(ctx, `UPDATE deployments SET queued = NULL, state = ?, why = ?, ended_at = ? WHERE id = ? RETURNING tenant_id, application`,
		string(rollout.Cancelled), why, micros(now), id).Scan(&tenant, &application); err != nil {
		return err
	}
	if err := tx.event(ctx, rollout.Event{At: now, Tenant: tenant, Application: application, Deployment: id, Who: "towpath", Kind: "deployment.state",
		What: fmt.Sprintf("#%d is %s", number, rollout.Cancelled), Why: why}); err != nil {
		return err
	}
	return tx.tellOf(ctx, id)
}

// startQueued starts the deployment that waits for its turn, once no other of its application is under way. What moves is judged anew: lanes have
// moved since it was planned.
func (tx *tx) startQueued(ctx context.Context, tenant, application string, now time.Time) error {
	var id, text string
	var number, others int
	err := tx.queryRow(ctx, `SELECT id, number, queued FROM deployments WHERE tenant_id = ? AND application = ? AND queued IS NOT NULL ORDER BY number DESC LIMIT 1`,
		tenant, application).Scan(&id, &number, &text)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := tx.queryRow(ctx, `SELECT COUNT(*) FROM deployments WHERE tenant_id = ? AND application = ? AND ended_at IS NULL AND queued IS NULL`, tenant, application).Scan(&others); err != nil || others > 0 {
		return err
	}
	var start rollout.Start
	if err := json.Unmarshal([]byte(text), &start); err != nil {
		return err
	}
	start.At = now
	for i := range start.Targets {
		if start.Targets[i].Changed, err = tx.moves(ctx, start, start.Targets[i]); err != nil {
			return err
		}
	}
	if _, err := tx.exec(ctx, `UPDATE deployments SET queued = NULL, why = '' WHERE id = ?`, id); err != nil {
		return err
	}
	return tx.startTargets(ctx, start, number, false)
}

// moves reports whether a target would move its lane as it stands now.
func (tx *tx) moves(ctx context.Context, start rollout.Start, target rollout.StartTarget) (bool, error) {
	var lane rollout.LaneState
	var good sql.NullString
	var removed int
	err := tx.queryRow(ctx, `SELECT wanted, promise, good, removed FROM lanes WHERE tenant_id = ? AND application = ? AND target = ? AND account = ?`,
		start.Tenant, start.Application, target.Name, target.Account).Scan(&lane.Wanted, &lane.Promise, &good, &removed)
	if errors.Is(err, sql.ErrNoRows) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	lane.Removed = removed != 0
	if good.Valid {
		if err := json.Unmarshal([]byte(good.String), &lane.Good); err != nil {
			return false, err
		}
	}
	return lane.Moves(target.Manifests, target.Digest), nil
}
