package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// KeptLanes lists the lanes of an account that have a release and are not removed.
func (s *Store) KeptLanes(ctx context.Context, tenant, account string) (lanes []int64, err error) {
	err = s.read(ctx, func(tx *tx) error {
		lanes = nil
		rows, err := tx.query(ctx, `SELECT id FROM lanes WHERE tenant_id = ? AND account = ? AND removed = 0 AND good IS NOT NULL ORDER BY id`, tenant, account)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id int64
			if err := rows.Scan(&id); err != nil {
				return err
			}
			lanes = append(lanes, id)
		}
		return rows.Err()
	})
	return lanes, err
}

// KeptLane is how a lane is to stand; nil where nothing is to be kept: it was removed, or nothing was ever good.
func (s *Store) KeptLane(ctx context.Context, lane int64) (kept *rollout.Kept, err error) {
	err = s.read(ctx, func(tx *tx) error {
		k := rollout.Kept{Lane: lane}
		var good, data sql.NullString
		var current sql.NullInt64
		var heal int
		err := tx.queryRow(ctx, `SELECT good, current_target, heal FROM lanes WHERE id = ? AND removed = 0 AND good IS NOT NULL`, lane).Scan(&good, &current, &heal)
		if errors.Is(err, sql.ErrNoRows) {
			kept = nil
			return nil
		}
		if err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(good.String), &k.Release); err != nil {
			return err
		}
		err = tx.queryRow(ctx, `SELECT data FROM targets WHERE lane_id = ? AND deployment_id = ?`, lane, k.Release.Deployment).Scan(&data)
		if err != nil {
			return fmt.Errorf("the target that brought #%d about: %w", k.Release.Number, err)
		}
		if err := json.Unmarshal([]byte(data.String), &k.Target); err != nil {
			return err
		}
		k.Identity, k.Heal, k.Busy = k.Target.Identity(), heal != 0, current.Valid
		drift, err := tx.drift(ctx, lane)
		k.Drifted = slices.SortedFunc(maps.Keys(drift), manifest.Key.Compare)
		kept = &k
		return err
	})
	return kept, err
}

// Drifted is an object that differs, and since when it is known to.
type Drifted struct {
	rollout.Drift
	Since time.Time
}

// SaveDrift records what a comparison of some objects of a lane found. What differs newly, or otherwise than before, and what no longer differs, becomes an
// event; healed says that what no longer differs was put back by us.
func (s *Store) SaveDrift(ctx context.Context, k rollout.Kept, compared []manifest.Key, found []rollout.Drift, healed bool) error {
	return s.write(ctx, "lane.drift", func(tx *tx) error {
		was, err := tx.drift(ctx, k.Lane)
		if err != nil {
			return err
		}
		now := map[manifest.Key]rollout.Drift{}
		for _, d := range found {
			now[d.Key] = d
		}
		for _, key := range compared {
			before, known := was[key]
			d, differs := now[key]
			switch {
			case differs && known && before.Same(d):
			case differs:
				d.Told, d.Times = before.Told, before.Times
				err = tx.putDrift(ctx, k, d)
			case known:
				err = tx.endDrift(ctx, k, before.Drift, healed)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (tx *tx) putDrift(ctx context.Context, k rollout.Kept, d rollout.Drift) error {
	now := tx.now()
	tells := d.Tells(now)
	if tells {
		d.Told, d.Times = now, d.Times+1
	}
	text, err := json.Marshal(d)
	if err != nil {
		return err
	}
	if _, err := tx.exec(ctx, `INSERT INTO drift (lane_id, api_group, kind, namespace, name, tenant_id, since_at, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (lane_id, api_group, kind, namespace, name) DO UPDATE SET data = excluded.data`,
		k.Lane, d.Key.Group, d.Key.Kind, d.Key.Namespace, d.Key.Name, k.Identity.Tenant, micros(now), string(text)); err != nil {
		return err
	}
	if !tells {
		return nil
	}
	if err := tx.tellOf(ctx, k.Release.Deployment); err != nil {
		return err
	}
	return tx.event(ctx, k.Event(now, "target.drifted", fmt.Sprintf("%s: %s", k.Identity.Target, d.Sentence()), d.Whose()))
}

func (tx *tx) endDrift(ctx context.Context, k rollout.Kept, d rollout.Drift, healed bool) error {
	if _, err := tx.exec(ctx, `DELETE FROM drift WHERE lane_id = ? AND api_group = ? AND kind = ? AND namespace = ? AND name = ?`,
		k.Lane, d.Key.Group, d.Key.Kind, d.Key.Namespace, d.Key.Name); err != nil {
		return err
	}
	if err := tx.tellOf(ctx, k.Release.Deployment); err != nil {
		return err
	}
	kind, what := "target.drift_ended", "%s: %s is as #%d has it again"
	if healed {
		kind, what = "target.healed", "%s: %s is put back as #%d has it"
	}
	return tx.event(ctx, k.Event(tx.now(), kind, fmt.Sprintf(what, k.Identity.Target, d.Key, k.Release.Number), d.Whose()))
}

// SayDrift writes a line of a lane's history about its drift.
func (s *Store) SayDrift(ctx context.Context, k rollout.Kept, kind, what, why string) error {
	return s.write(ctx, "lane.drift", func(tx *tx) error { return tx.event(ctx, k.Event(tx.now(), kind, what, why)) })
}

func (tx *tx) drift(ctx context.Context, lane int64) (map[manifest.Key]Drifted, error) {
	all := map[manifest.Key]Drifted{}
	err := tx.each(ctx, `SELECT since_at, data FROM drift WHERE lane_id = ?`, func(scan func(...any) error) error {
		var since int64
		var text string
		if err := scan(&since, &text); err != nil {
			return err
		}
		d := Drifted{Since: fromMicros(since)}
		if err := json.Unmarshal([]byte(text), &d.Drift); err != nil {
			return err
		}
		all[d.Key] = d
		return nil
	}, lane)
	return all, err
}

// noDrift forgets what differed on a lane.
func (tx *tx) noDrift(ctx context.Context, lane int64) error {
	_, err := tx.exec(ctx, `DELETE FROM drift WHERE lane_id = ?`, lane)
	return err
}
