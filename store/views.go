package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// DeploymentView is a deployment as people see it.
type DeploymentView struct {
	ID, Tenant, Application, Description string
	Number                               int
	Origin                               rollout.Origin
	Trigger                              rollout.Trigger
	Context                              map[string]string
	State                                rollout.State
	Why                                  string
	Created, Started, Ended              time.Time
	Targets                              []TargetView
}

// TargetView is a target of a deployment, and what its state is by now.
type TargetView struct {
	rollout.Target
	CarriedBy int // number of the deployment that brings it about; 0: this one
}

// DeploymentFilter says which deployments are wanted, newest first; zero fields match all.
type DeploymentFilter struct {
	Tenant, Application, Source, Commit string
	State                               rollout.State
	Before                              string // id: only those older than this one
	Limit                               int    // 1–200; 0: 50
}

const deploymentColumns = `d.id, d.tenant_id, d.application, d.number, d.source, d.path, d.commit_id, d.upload, d.repeats, d.trigger_kind, d.trigger_by, d.reason, d.title,
	d.description, d.context, d.state, d.why, d.created_at, d.started_at, d.ended_at`

func scanDeployment(scan func(...any) error) (v DeploymentView, err error) {
	var contextText, state string
	var created int64
	var started, ended sql.NullInt64
	if err := scan(&v.ID, &v.Tenant, &v.Application, &v.Number, &v.Origin.Source, &v.Origin.Path, &v.Origin.Commit, &v.Origin.Upload, &v.Origin.Repeat, &v.Trigger.Kind,
		&v.Trigger.By, &v.Trigger.Reason, &v.Trigger.Title, &v.Description, &contextText, &state, &v.Why, &created, &started, &ended); err != nil {
		return v, err
	}
	v.State, v.Created, v.Started, v.Ended = rollout.State(state), fromMicros(created), nullTime(started), nullTime(ended)
	return v, json.Unmarshal([]byte(contextText), &v.Context)
}

// Deployments lists deployments, newest first, with their targets.
func (s *Store) Deployments(ctx context.Context, f DeploymentFilter) (views []DeploymentView, err error) {
	if f.Limit < 1 || f.Limit > 200 {
		f.Limit = 50
	}
	err = s.read(ctx, func(tx *tx) error {
		views = nil
		var before int64 = 1 << 62
		if f.Before != "" {
			err := tx.queryRow(ctx, `SELECT created_at FROM deployments WHERE tenant_id = ? AND id = ?`, f.Tenant, f.Before).Scan(&before)
			if errors.Is(err, sql.ErrNoRows) {
				return rollout.Refuse(rollout.Malformed, "before: no deployment %s", f.Before)
			}
			if err != nil {
				return err
			}
		}
		rows, err := tx.query(ctx, `SELECT `+deploymentColumns+` FROM deployments d WHERE d.tenant_id = ? AND (? = '' OR d.application = ?) AND (? = '' OR d.source = ?)
			AND (? = '' OR d.commit_id = ?) AND (? = '' OR d.state = ?) AND (d.created_at < ? OR (d.created_at = ? AND d.id < ?)) ORDER BY d.created_at DESC, d.id DESC LIMIT ?`,
			f.Tenant, f.Application, f.Application, f.Source, f.Source, f.Commit, f.Commit, string(f.State), string(f.State), before, before, f.Before, f.Limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			v, err := scanDeployment(rows.Scan)
			if err != nil {
				return err
			}
			views = append(views, v)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return err
		}
		for i := range views {
			if views[i].Targets, err = tx.targetViews(ctx, views[i].ID); err != nil {
				return err
			}
		}
		return nil
	})
	return views, err
}

// Deployment is one deployment; a *rollout.Refusal when there is none of that id.
func (s *Store) Deployment(ctx context.Context, tenant, id string) (v DeploymentView, err error) {
	err = s.read(ctx, func(tx *tx) error {
		v, err = scanDeployment(tx.queryRow(ctx, `SELECT `+deploymentColumns+` FROM deployments d WHERE d.tenant_id = ? AND d.id = ?`, tenant, id).Scan)
		if errors.Is(err, sql.ErrNoRows) {
			return rollout.Refuse(rollout.Missing, "no deployment %s", id)
		}
		if err != nil {
			return err
		}
		v.Targets, err = tx.targetViews(ctx, id)
		return err
	})
	return v, err
}

func (tx *tx) targetViews(ctx context.Context, deployment string) ([]TargetView, error) {
	rows, err := tx.query(ctx, `SELECT t.data, c.data FROM targets t LEFT JOIN targets c ON c.id = t.carried_by WHERE t.deployment_id = ? ORDER BY t.ord`, deployment)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var views []TargetView
	for rows.Next() {
		var own string
		var carrier sql.NullString
		if err := rows.Scan(&own, &carrier); err != nil {
			return nil, err
		}
		var v TargetView
		if err := json.Unmarshal([]byte(own), &v.Target); err != nil {
			return nil, err
		}
		if carrier.Valid {
			var c rollout.Target
			if err := json.Unmarshal([]byte(carrier.String), &c); err != nil {
				return nil, err
			}
			v.CarriedBy, v.State, v.Phase, v.Waits, v.Started, v.Ended = c.Number, c.State, c.Phase, c.Waits, c.Started, c.Ended
			if c.State == rollout.Succeeded {
				v.Why = "unchanged"
			} else {
				v.Why = strings.TrimSuffix(fmt.Sprintf("carried by #%d; %s", c.Number, c.Why), "; ")
			}
		}
		views = append(views, v)
	}
	return views, rows.Err()
}

// ApplicationView is an application as people see it.
type ApplicationView struct {
	rollout.Owner
	Lanes []LaneView
}

// LaneView is what an application has on one target.
type LaneView struct {
	rollout.LaneState
	State   rollout.State // of what was last asked for
	Why     string
	Waits   []rollout.Wait
	Current string // id of the deployment that is under way; "": none
	Last    string // id of the deployment that was last asked for
	Drift   []Drifted
}

// ApplicationFilter says which applications are wanted, by name; zero fields match all.
type ApplicationFilter struct {
	Tenant, Name string
	After        string // name: only those that sort after this one
	Limit        int    // 1–1,000; 0: 1,000
}

// Applications lists applications by name, with their lanes.
func (s *Store) Applications(ctx context.Context, f ApplicationFilter) (views []ApplicationView, err error) {
	if f.Limit < 1 || f.Limit > 1000 {
		f.Limit = 1000
	}
	err = s.read(ctx, func(tx *tx) error {
		views = nil
		rows, err := tx.query(ctx, `SELECT name, source, path, removed FROM applications WHERE tenant_id = ? AND (? = '' OR name = ?) AND name > ? ORDER BY name LIMIT ?`,
			f.Tenant, f.Name, f.Name, f.After, f.Limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var v ApplicationView
			var removed int
			if err := rows.Scan(&v.Application, &v.Source, &v.Path, &removed); err != nil {
				return err
			}
			v.Removed = removed != 0
			views = append(views, v)
		}
		return rows.Err()
	})
	for i := range views {
		if err == nil {
			views[i].Lanes, err = s.laneViews(ctx, f.Tenant, views[i].Application)
		}
	}
	return views, err
}

func (s *Store) laneViews(ctx context.Context, tenant, application string) ([]LaneView, error) {
	lanes, err := s.Lanes(ctx, tenant, application)
	if err != nil {
		return nil, err
	}
	views := make([]LaneView, len(lanes))
	err = s.read(ctx, func(tx *tx) error {
		for i, lane := range lanes {
			views[i].LaneState = lane
			var current, last sql.NullString
			err := tx.queryRow(ctx, `SELECT c.data, w.data FROM lanes l LEFT JOIN targets c ON c.id = l.current_target LEFT JOIN targets w ON w.id = l.wanted_target WHERE l.id = ?`, lane.ID).
				Scan(&current, &last)
			if err != nil {
				return err
			}
			drift, err := tx.drift(ctx, lane.ID)
			if err != nil {
				return err
			}
			for _, key := range slices.SortedFunc(maps.Keys(drift), manifest.Key.Compare) {
				views[i].Drift = append(views[i].Drift, drift[key])
			}
			if last.Valid {
				var t rollout.Target
				if err := json.Unmarshal([]byte(last.String), &t); err != nil {
					return err
				}
				views[i].Last, views[i].State, views[i].Why, views[i].Waits = t.Deployment, t.State, t.Why, t.Waits
			}
			if current.Valid {
				var t rollout.Target
				if err := json.Unmarshal([]byte(current.String), &t); err != nil {
					return err
				}
				views[i].Current, views[i].State, views[i].Why, views[i].Waits = t.Deployment, t.State, cmp.Or(t.Why, t.Progress()), t.Waits
			}
		}
		return nil
	})
	return views, err
}

// Orphans lists objects that nobody owns any more, by account.
func (s *Store) Orphans(ctx context.Context, tenant, application string) (orphans map[string][]manifest.Key, err error) {
	lanes, err := s.Lanes(ctx, tenant, application)
	orphans = map[string][]manifest.Key{}
	for _, lane := range lanes {
		if lane.Removed {
			orphans[lane.Account] = append(orphans[lane.Account], lane.Inventory...)
		}
	}
	return orphans, err
}

// Problems is the files of a source that are refused, at the commits they were refused at.
func (s *Store) Problems(ctx context.Context, tenant, source string) ([]rollout.FileState, error) {
	files, err := s.Files(ctx, tenant, source)
	var refused []rollout.FileState
	for _, f := range files {
		if rollout.HasErrors(f.Problems) {
			refused = append(refused, f)
		}
	}
	return refused, err
}
