package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"

	"github.com/google/uuid"

	"towpath/reconcile/rollout"
)

// callColumns are read by scanCall, which also says whose target it is.
const callColumns = `id, target_id, try, data, answer, callback`

func scanCall(scan func(...any) error) (c rollout.Call, target int64, err error) {
	var id, data string
	var try int
	var answer, callback sql.NullString
	if err := scan(&id, &target, &try, &data, &answer, &callback); err != nil {
		return c, target, err
	}
	if err := json.Unmarshal([]byte(data), &c); err != nil {
		return c, target, err
	}
	c.ID, c.Try = id, try
	if c.Answer, err = fromText[rollout.Answer](answer); err != nil {
		return c, target, err
	}
	c.Callback, err = fromText[rollout.Callback](callback)
	return c, target, err
}

// outcomes is calls that a target has asked for, as a decision needs them: of a measurement that was made no more than its answer. A long analysis has
// hundreds of those, and each decision reads them all.
func (tx *tx) outcomes(ctx context.Context, target int64) ([]rollout.Call, error) {
	rows, err := tx.query(ctx, `SELECT id, gate, name, run, baseline, try, CASE WHEN run = 0 OR answer IS NULL OR answer LIKE '%"`+string(rollout.Unanswered)+`"%' THEN data ELSE '' END, answer, callback
		FROM calls WHERE target_id = ? ORDER BY gate, run, name, baseline`, target)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var calls []rollout.Call
	for rows.Next() {
		c := rollout.Call{Kind: rollout.CallQuery}
		var data string
		var answer, callback sql.NullString
		var try int
		if err := rows.Scan(&c.ID, &c.Gate, &c.Name, &c.Run, &c.Of, &try, &data, &answer, &callback); err != nil {
			return nil, err
		}
		if data != "" {
			if err := json.Unmarshal([]byte(data), &c); err != nil {
				return nil, err
			}
		}
		c.Try = try
		if c.Answer, err = fromText[rollout.Answer](answer); err != nil {
			return nil, err
		}
		if c.Callback, err = fromText[rollout.Callback](callback); err != nil {
			return nil, err
		}
		calls = append(calls, c)
	}
	return calls, rows.Err()
}

// calls that a target has asked for, in the order of their runs.
func (tx *tx) calls(ctx context.Context, target int64) ([]rollout.Call, error) {
	rows, err := tx.query(ctx, `SELECT `+callColumns+` FROM calls WHERE target_id = ? ORDER BY gate, run, name, baseline`, target)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var calls []rollout.Call
	for rows.Next() {
		c, _, err := scanCall(rows.Scan)
		if err != nil {
			return nil, err
		}
		calls = append(calls, c)
	}
	return calls, rows.Err()
}

// ask records calls that are to be made, or to be made again, and wakes who makes them.
func (tx *tx) ask(ctx context.Context, t rollout.Target, calls []rollout.Call) error {
	for _, c := range calls {
		data, err := json.Marshal(c)
		if err != nil {
			return err
		}
		var id string
		err = tx.queryRow(ctx, `INSERT INTO calls (id, tenant_id, target_id, gate, name, run, baseline, try, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (target_id, gate, name, run, baseline) DO UPDATE SET try = excluded.try, data = excluded.data, answer = NULL RETURNING id`,
			uuid.NewString(), t.Tenant, t.ID, c.Gate, c.Name, c.Run, c.Of, c.Try, string(data)).Scan(&id)
		if err != nil {
			return err
		}
		if err := tx.wake(ctx, JobCall, id); err != nil {
			return err
		}
	}
	return nil
}

// judged is in how many deployments of a lane each analysis was judged that reports at first.
func (tx *tx) judged(ctx context.Context, lane int64) (map[string]int, error) {
	rows, err := tx.query(ctx, `SELECT analysis, deployments FROM judged WHERE lane_id = ?`, lane)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := map[string]int{}
	for rows.Next() {
		var sum string
		var deployments int
		if err := rows.Scan(&sum, &deployments); err != nil {
			return nil, err
		}
		all[sum] = deployments
	}
	return all, rows.Err()
}

// judges counts one more deployment for analyses.
func (tx *tx) judges(ctx context.Context, lane int64, sums []string) error {
	for _, sum := range sums {
		if _, err := tx.exec(ctx, `INSERT INTO judged (lane_id, analysis, deployments) VALUES (?, ?, 1)
			ON CONFLICT (lane_id, analysis) DO UPDATE SET deployments = judged.deployments + 1`, lane, sum); err != nil {
			return err
		}
	}
	return nil
}

// Call is a call that is to be made; nil when it needs to be made no more: it was answered, or its target has moved on.
func (s *Store) Call(ctx context.Context, id string) (asked *rollout.Asked, err error) {
	err = s.read(ctx, func(tx *tx) error {
		asked = nil
		c, target, err := scanCall(tx.queryRow(ctx, `SELECT `+callColumns+` FROM calls WHERE id = ?`, id).Scan)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil || c.Answer != nil || c.Callback != nil {
			return err
		}
		t, err := tx.target(ctx, target)
		if err != nil || !t.Awaits(c) {
			return err
		}
		asked = &rollout.Asked{Call: c, Target: *t}
		if asked.Links, err = tx.randoms(ctx, t); err != nil {
			return err
		}
		var file string
		if err := tx.queryRow(ctx, `SELECT source, path, file FROM deployments WHERE id = ?`, t.Deployment).Scan(&asked.Source, &asked.Path, &file); err != nil {
			return err
		}
		if c.Kind == rollout.CallWebhook {
			asked.File, err = tx.fileText(ctx, file)
		}
		return err
	})
	return asked, err
}

// Answer records what a try came to, and wakes the lane if it has to be looked at now. The answer to a try that was given up counts no more.
func (s *Store) Answer(ctx context.Context, c rollout.Call, answer rollout.Answer) error {
	text, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	return s.write(ctx, "call.answer", func(tx *tx) error {
		result, err := tx.exec(ctx, `UPDATE calls SET answer = ? WHERE id = ? AND try = ? AND answer IS NULL`, string(text), c.ID, c.Try)
		if err != nil {
			return err
		}
		if rows, err := result.RowsAffected(); err != nil || rows == 0 || !answer.Wakes(c, tx.now()) {
			return err
		}
		return tx.wakeLaneOfCall(ctx, c.ID)
	})
}

func (tx *tx) wakeLaneOfCall(ctx context.Context, id string) error {
	return tx.wakeLanes(ctx, `SELECT l.id FROM calls c JOIN lanes l ON l.current_target = c.target_id WHERE c.id = ?`, id)
}

// CallBack records what a webhook says of what it has done, once, and wakes the lane. A *rollout.Refusal when there is no such call of the tenant, when it
// was said already, or when nobody waits for it any more.
func (s *Store) CallBack(ctx context.Context, tenant, id string, callback rollout.Callback) error {
	text, err := json.Marshal(callback)
	if err != nil {
		return err
	}
	return s.write(ctx, "call.back", func(tx *tx) error {
		c, target, err := scanCall(tx.queryRow(ctx, `SELECT `+callColumns+` FROM calls WHERE id = ? AND tenant_id = ?`, id, tenant).Scan)
		if errors.Is(err, sql.ErrNoRows) {
			return rollout.NoCallback()
		}
		if err != nil {
			return err
		}
		t, err := tx.target(ctx, target)
		if err != nil {
			return err
		}
		event, err := callback.On(c, *t)
		if err != nil {
			return err
		}
		if _, err := tx.exec(ctx, `UPDATE calls SET callback = ? WHERE id = ?`, string(text), id); err != nil {
			return err
		}
		if err := tx.event(ctx, event); err != nil {
			return err
		}
		return tx.wakeLaneOfCall(ctx, id)
	})
}

// CallView is a call as people see it.
type CallView struct {
	rollout.Call
	Target string
}

// Calls lists what the targets of a deployment have asked of the world outside; a *rollout.Refusal when there is no such deployment.
func (s *Store) Calls(ctx context.Context, tenant, deployment string) (views []CallView, err error) {
	err = s.read(ctx, func(tx *tx) error {
		views = nil
		var known int
		if err := tx.queryRow(ctx, `SELECT COUNT(*) FROM deployments WHERE tenant_id = ? AND id = ?`, tenant, deployment).Scan(&known); err != nil {
			return err
		}
		if known == 0 {
			return rollout.Refuse(rollout.Missing, "no deployment %s", deployment)
		}
		targets, err := tx.targets(ctx, deployment)
		if err != nil {
			return err
		}
		for _, t := range targets {
			calls, err := tx.calls(ctx, t.ID)
			if err != nil {
				return err
			}
			for _, c := range calls {
				views = append(views, CallView{c, t.Name})
			}
		}
		return nil
	})
	return views, err
}

// RecoverCalls is called once at start: each call without an answer is woken. One that another process makes just now may be made twice, under one key.
func (s *Store) RecoverCalls(ctx context.Context) error {
	return s.write(ctx, "call.recover", func(tx *tx) error {
		rows, err := tx.query(ctx, `SELECT c.id FROM calls c JOIN lanes l ON l.current_target = c.target_id WHERE c.answer IS NULL AND c.callback IS NULL`)
		if err != nil {
			return err
		}
		defer rows.Close()
		var ids []string
		for rows.Next() {
			var id string
			if err := rows.Scan(&id); err != nil {
				return err
			}
			ids = append(ids, id)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return err
		}
		for _, id := range ids {
			if err := tx.wake(ctx, JobCall, id); err != nil {
				return err
			}
		}
		return nil
	})
}
