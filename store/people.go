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

// Started is a deployment as it was recorded, for starting it again.
func (s *Store) Started(ctx context.Context, tenant, id string) (start rollout.Start, err error) {
	err = s.read(ctx, func(tx *tx) error {
		start = rollout.Start{ID: id, Tenant: tenant}
		var contextText, file string
		err := tx.queryRow(ctx, `SELECT application, description, source, path, commit_id, upload, trigger_kind, trigger_by, title, context, file FROM deployments
			WHERE tenant_id = ? AND id = ?`, tenant, id).Scan(&start.Application, &start.Description, &start.Origin.Source, &start.Origin.Path, &start.Origin.Commit,
			&start.Origin.Upload, &start.Trigger.Kind, &start.Trigger.By, &start.Trigger.Title, &contextText, &file)
		if errors.Is(err, sql.ErrNoRows) {
			return rollout.Refuse(rollout.Missing, "no deployment %s", id)
		}
		if err != nil {
			return err
		}
		if start.Text, err = tx.fileText(ctx, file); err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(contextText), &start.Context); err != nil {
			return err
		}
		targets, err := tx.targets(ctx, id)
		if err != nil {
			return err
		}
		for _, t := range targets {
			if !t.Removes {
				start.Targets = append(start.Targets, rollout.StartTarget{Name: t.Name, Account: t.Account, Namespace: t.Namespace, Way: t.Way,
					Digest: t.Digest, Manifests: t.Manifests})
			}
		}
		return nil
	})
	return start, err
}

// targets of a deployment, in file order.
func (tx *tx) targets(ctx context.Context, deployment string) ([]rollout.Target, error) {
	rows, err := tx.query(ctx, `SELECT data FROM targets WHERE deployment_id = ? ORDER BY ord`, deployment)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var targets []rollout.Target
	for rows.Next() {
		var text string
		var t rollout.Target
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(text), &t); err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	return targets, rows.Err()
}

// Succeeded are the names of a deployment's targets that SUCCEEDED, also where another deployment carried them.
func (s *Store) Succeeded(ctx context.Context, tenant, id string) (names []string, err error) {
	err = s.read(ctx, func(tx *tx) error {
		rows, err := tx.query(ctx, `SELECT t.name FROM targets t JOIN deployments d ON d.id = t.deployment_id WHERE d.tenant_id = ? AND d.id = ? AND t.state = ?`,
			tenant, id, string(rollout.Succeeded))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				return err
			}
			names = append(names, name)
		}
		return rows.Err()
	})
	return names, err
}

// GoodBefore is the newest deployment, other than the one that is good now, that SUCCEEDED on a target of an application.
func (s *Store) GoodBefore(ctx context.Context, tenant, application, target string) (id string, err error) {
	err = s.read(ctx, func(tx *tx) error {
		var good sql.NullString
		err := tx.queryRow(ctx, `SELECT good FROM lanes WHERE tenant_id = ? AND application = ? AND target = ? AND removed = 0`, tenant, application, target).Scan(&good)
		if errors.Is(err, sql.ErrNoRows) {
			return rollout.Refuse(rollout.Missing, "application %s has no target %s", application, target)
		}
		if err != nil {
			return err
		}
		var now rollout.Release
		if good.Valid {
			if err := json.Unmarshal([]byte(good.String), &now); err != nil {
				return err
			}
		}
		rows, err := tx.query(ctx, `SELECT t.data FROM targets t JOIN deployments d ON d.id = t.deployment_id
			WHERE d.tenant_id = ? AND d.application = ? AND t.name = ? AND t.state = ? AND t.carried_by IS NULL ORDER BY d.number DESC`,
			tenant, application, target, string(rollout.Succeeded))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var text string
			var t rollout.Target
			if err := rows.Scan(&text); err != nil {
				return err
			}
			if err := json.Unmarshal([]byte(text), &t); err != nil {
				return err
			}
			if t.Manifests != now.Manifests && !t.Removes {
				id = t.Deployment
				return nil
			}
		}
		if err := rows.Err(); err != nil {
			return err
		}
		return rollout.Refuse(rollout.Conflicts, "nothing other than what is good now ever succeeded on target %s of application %s", target, application)
	})
	return id, err
}

// Newest is the newest deployment of an application that was started by a change, and not to go back.
func (s *Store) Newest(ctx context.Context, tenant, application string) (rollout.Start, error) {
	var id string
	err := s.read(ctx, func(tx *tx) error {
		err := tx.queryRow(ctx, `SELECT id FROM deployments WHERE tenant_id = ? AND application = ? AND trigger_kind NOT IN ('rollback', 'remove') AND state <> ? ORDER BY number DESC LIMIT 1`,
			tenant, application, string(rollout.Rejected)).Scan(&id)
		if errors.Is(err, sql.ErrNoRows) {
			return rollout.Refuse(rollout.Missing, "no deployment of application %s", application)
		}
		return err
	})
	if err != nil {
		return rollout.Start{}, err
	}
	return s.Started(ctx, tenant, id)
}

// Halt is Cancel for a deployment that may have ended.
func (s *Store) Halt(ctx context.Context, tenant, id, by, reason string) error {
	err := s.Cancel(ctx, tenant, id, by, reason)
	var refusal *rollout.Refusal
	if errors.As(err, &refusal) && refusal.Kind == rollout.Conflicts {
		return nil
	}
	return err
}

// Cancel records that a person wants a deployment to stop: what waits is cancelled, what is under way goes back.
func (s *Store) Cancel(ctx context.Context, tenant, deployment, by, reason string) error {
	return s.CancelOnce(ctx, "", tenant, deployment, by, reason)
}

// CancelOnce is Cancel, but what was cancelled under the same key before is not cancelled again.
func (s *Store) CancelOnce(ctx context.Context, key, tenant, deployment, by, reason string) error {
	return s.write(ctx, "cancel", func(tx *tx) error {
		if first, err := tx.first(ctx, key); err != nil || !first {
			return err
		}
		var application, state string
		var number int
		err := tx.queryRow(ctx, `SELECT application, state, number FROM deployments WHERE tenant_id = ? AND id = ?`, tenant, deployment).Scan(&application, &state, &number)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return rollout.Refuse(rollout.Missing, "no deployment %s", deployment)
		case err != nil:
			return err
		case rollout.State(state).Final():
			return rollout.Refuse(rollout.Conflicts, "deployment %s is %s already", deployment, state)
		}
		request := rollout.Request{By: by, Reason: reason, At: tx.now()}
		if err := tx.event(ctx, rollout.Event{At: tx.now(), Tenant: tenant, Application: application, Deployment: deployment, Who: by, Kind: "deployment.cancel",
			What: fmt.Sprintf("%s asked #%d to stop", by, number), Why: reason}); err != nil {
			return err
		}
		var queued bool
		if err := tx.queryRow(ctx, `SELECT queued IS NOT NULL FROM deployments WHERE id = ?`, deployment).Scan(&queued); err != nil {
			return err
		}
		if queued {
			return tx.dropQueued(ctx, deployment, number, request.Sentence(), tx.now())
		}
		return tx.cancelAll(ctx, deployment, request)
	})
}

// cancelAll records that a deployment is to stop, and stops its targets.
func (tx *tx) cancelAll(ctx context.Context, deployment string, request rollout.Request) error {
	text, err := json.Marshal(request)
	if err != nil {
		return err
	}
	if _, err := tx.exec(ctx, `UPDATE deployments SET cancel = COALESCE(cancel, ?) WHERE id = ?`, string(text), deployment); err != nil {
		return err
	}
	return tx.cancelTargets(ctx, deployment, request)
}

// cancelTargets ends the targets of a deployment that wait behind others, and wakes the lanes of those that are under way.
func (tx *tx) cancelTargets(ctx context.Context, deployment string, request rollout.Request) error {
	waiting, err := tx.ids(ctx, `SELECT t.id FROM targets t JOIN lanes l ON l.next_target = t.id WHERE t.deployment_id = ? ORDER BY t.ord`, deployment)
	if err != nil {
		return err
	}
	for _, id := range waiting {
		t, err := tx.target(ctx, id)
		if err != nil {
			return err
		}
		if _, err := tx.exec(ctx, `UPDATE lanes SET next_target = NULL WHERE id = ? AND next_target = ?`, t.Lane, id); err != nil {
			return err
		}
		if err := tx.endUnstarted(ctx, t, request.Sentence(), tx.now()); err != nil {
			return err
		}
	}
	return tx.wakeLanes(ctx, `SELECT l.id FROM targets t JOIN lanes l ON l.current_target = t.id WHERE t.deployment_id = ?`, deployment)
}

// endUnstarted cancels a target that was never its lane's current one.
func (tx *tx) endUnstarted(ctx context.Context, t *rollout.Target, why string, now time.Time) error {
	ended, event := t.Unstarted(why, now)
	if err := tx.saveTarget(ctx, ended); err != nil {
		return err
	}
	if err := tx.event(ctx, event); err != nil {
		return err
	}
	return tx.moved(ctx, t.ID, now)
}

// Release makes an application nobody's, so that another owner may take it on. With objects, what it has in its clusters goes; otherwise it stays
// and is shown as orphaned. It returns the id of the deployment that removes them.
func (s *Store) Release(ctx context.Context, tenant, application, id, by string, objects bool) error {
	return s.write(ctx, "application.release", func(tx *tx) error {
		var removed int
		err := tx.queryRow(ctx, `SELECT removed FROM applications WHERE tenant_id = ? AND name = ?`, tenant, application).Scan(&removed)
		if errors.Is(err, sql.ErrNoRows) {
			return rollout.Refuse(rollout.Missing, "no application %s", application)
		}
		if err != nil {
			return err
		}
		lanes, err := tx.ids(ctx, `SELECT id FROM lanes WHERE tenant_id = ? AND application = ? AND (removed = 0 OR (? AND EXISTS (SELECT 1 FROM inventory i WHERE i.lane_id = lanes.id)))
			ORDER BY target`, tenant, application, objects)
		if err != nil {
			return err
		}
		start := rollout.Start{ID: id, Tenant: tenant, Application: application, At: tx.now(), Pin: true, Trigger: rollout.Trigger{Kind: "remove", By: by}}
		for _, lane := range lanes {
			start.Gone = append(start.Gone, rollout.Gone{Lane: lane, Prune: objects, Why: "its application was to be removed and its objects kept"})
		}
		if _, err := tx.start(ctx, start); err != nil {
			return err
		}
		_, err = tx.exec(ctx, `UPDATE applications SET removed = 1 WHERE tenant_id = ? AND name = ?`, tenant, application)
		return err
	})
}
