package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// Claim takes a lane for a while; rollout.ErrLeased when another run has it. Should the holder die, the lane is due when the lease ends.
func (s *Store) Claim(ctx context.Context, lane int64, lasts time.Duration) (rollout.Lease, error) {
	now := s.clock()
	lease := rollout.Lease{Lane: lane, Until: now.Add(lasts)}
	err := s.write(ctx, "lane.claim", func(tx *tx) error {
		err := tx.queryRow(ctx, `UPDATE lanes SET lease_epoch = lease_epoch + 1, lease_until = ?, due_at = ? WHERE id = ? AND lease_until <= ? RETURNING lease_epoch`,
			micros(lease.Until), micros(lease.Until), lane, micros(now)).Scan(&lease.Epoch)
		if errors.Is(err, sql.ErrNoRows) {
			return rollout.ErrLeased
		}
		return err
	})
	return lease, err
}

// AccountOf is whose lane it is, and on which account.
func (s *Store) AccountOf(ctx context.Context, lane int64) (tenant, account string, err error) {
	err = s.read(ctx, func(tx *tx) error {
		return tx.queryRow(ctx, `SELECT tenant_id, account FROM lanes WHERE id = ?`, lane).Scan(&tenant, &account)
	})
	return tenant, account, err
}

// Extend makes a lease last from now on; rollout.ErrStale when it was lost.
func (s *Store) Extend(ctx context.Context, lease rollout.Lease, lasts time.Duration) (rollout.Lease, error) {
	lease.Until = s.clock().Add(lasts)
	return lease, s.write(ctx, "lane.extend", func(tx *tx) error {
		return tx.one(ctx, rollout.ErrStale, `UPDATE lanes SET lease_until = ?, due_at = ? WHERE id = ? AND lease_epoch = ?`,
			micros(lease.Until), micros(lease.Until), lease.Lane, lease.Epoch)
	})
}

// Rest gives a lane back, to be woken at due (zero: only by an event). It reports false, and gives nothing back, when the lane was woken since seq
// was read.
func (s *Store) Rest(ctx context.Context, lease rollout.Lease, seq int64, due time.Time) (rests bool, err error) {
	err = s.write(ctx, "lane.rest", func(tx *tx) error {
		var newest, epoch int64
		if err := tx.queryRow(ctx, `SELECT wake_seq, lease_epoch FROM lanes WHERE id = ?`, lease.Lane).Scan(&newest, &epoch); err != nil {
			return err
		}
		if epoch != lease.Epoch {
			return rollout.ErrStale
		}
		if rests = newest == seq; !rests {
			return nil
		}
		return tx.one(ctx, rollout.ErrStale, `UPDATE lanes SET lease_until = 0, due_at = ? WHERE id = ? AND lease_epoch = ? AND wake_seq = ?`,
			nullMicros(due), lease.Lane, lease.Epoch, seq)
	})
	return rests, err
}

// Wake makes a lane be run again, now.
func (s *Store) Wake(ctx context.Context, lane int64) error {
	return s.write(ctx, "lane.wake", func(tx *tx) error { return tx.wakeLane(ctx, lane) })
}

// WakeAccount wakes each lane of an account on which something is under way: its agent came or went.
func (s *Store) WakeAccount(ctx context.Context, tenant, account string) error {
	return s.write(ctx, "lane.wake", func(tx *tx) error {
		return tx.wakeLanes(ctx, `SELECT id FROM lanes WHERE tenant_id = ? AND account = ? AND current_target IS NOT NULL`, tenant, account)
	})
}

// WakeDue wakes each lane whose time has come, and returns the times of the others.
func (s *Store) WakeDue(ctx context.Context, now time.Time) (later map[int64]time.Time, err error) {
	later = map[int64]time.Time{}
	due := false
	err = s.read(ctx, func(tx *tx) error {
		clear(later)
		rows, err := tx.query(ctx, `SELECT id, due_at FROM lanes WHERE due_at IS NOT NULL`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var lane, at int64
			if err := rows.Scan(&lane, &at); err != nil {
				return err
			}
			if at <= micros(now) {
				due = true
				continue
			}
			later[lane] = fromMicros(at)
		}
		return rows.Err()
	})
	if err != nil || !due {
		return later, err
	}
	return later, s.write(ctx, "lane.wake", func(tx *tx) error {
		if err := tx.wakeLanes(ctx, `SELECT id FROM lanes WHERE due_at IS NOT NULL AND due_at <= ?`, micros(now)); err != nil {
			return err
		}
		_, err := tx.exec(ctx, `UPDATE lanes SET due_at = NULL WHERE due_at IS NOT NULL AND due_at <= ?`, micros(now))
		return err
	})
}

// Recover is called once at start, before anything works: a lane that was held when the process died is free again where no other process can hold
// it (SQLite), and each lane on which something is under way is woken.
func (s *Store) Recover(ctx context.Context) error {
	return s.write(ctx, "lane.recover", func(tx *tx) error {
		if s.exclusive() {
			if _, err := tx.exec(ctx, `UPDATE lanes SET lease_until = 0 WHERE lease_until > 0`); err != nil {
				return err
			}
		}
		return tx.wakeLanes(ctx, `SELECT id FROM lanes WHERE current_target IS NOT NULL`)
	})
}

// wakeLane bumps the lane's sequence and inserts a job. The job may find the lane held: the holder sees the sequence.
func (tx *tx) wakeLane(ctx context.Context, lane int64) error {
	if _, err := tx.exec(ctx, `UPDATE lanes SET wake_seq = wake_seq + 1 WHERE id = ?`, lane); err != nil {
		return err
	}
	return tx.wake(ctx, JobLane, fmt.Sprint(lane))
}

func (tx *tx) wakeLanes(ctx context.Context, query string, args ...any) error {
	lanes, err := tx.ids(ctx, query, args...)
	if err != nil || len(lanes) == 0 {
		return err
	}
	for _, lane := range lanes {
		if err := tx.wakeLane(ctx, lane); err != nil {
			return err
		}
	}
	return nil
}

// ids reads one column of numbers, to the end, so that the connection is free again.
func (tx *tx) ids(ctx context.Context, query string, args ...any) ([]int64, error) {
	rows, err := tx.query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var ids []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// one executes a statement that must change exactly one row, else it returns missing.
func (tx *tx) one(ctx context.Context, missing error, query string, args ...any) error {
	result, err := tx.exec(ctx, query, args...)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n != 1 {
		return errors.Join(missing, err)
	}
	return nil
}

// Lane is one consistent read of all that is known about a lane.
func (s *Store) Lane(ctx context.Context, id int64) (rollout.Lane, error) {
	lane := rollout.Lane{ID: id}
	err := s.read(ctx, func(tx *tx) error {
		var current, next sql.NullInt64
		var good sql.NullString
		err := tx.queryRow(ctx, `SELECT wake_seq, current_target, next_target, good, replaced FROM lanes WHERE id = ?`, id).Scan(&lane.Seq, &current, &next, &good, &lane.Replaced)
		if err != nil {
			return fmt.Errorf("lane %d: %w", id, err)
		}
		if good.Valid {
			if err := json.Unmarshal([]byte(good.String), &lane.Good); err != nil {
				return err
			}
		}
		if next.Valid {
			err := tx.queryRow(ctx, `SELECT d.number FROM targets t JOIN deployments d ON d.id = t.deployment_id WHERE t.id = ?`, next.Int64).Scan(&lane.ReplacedBy)
			if err != nil {
				return err
			}
		}
		if !current.Valid {
			return nil
		}
		if lane.Current, err = tx.target(ctx, current.Int64); err != nil {
			return err
		}
		if lane.Inventory, err = tx.inventory(ctx, id); err != nil {
			return err
		}
		return tx.around(ctx, &lane)
	})
	return lane, err
}

// around reads what people and other targets say of the lane's current target.
func (tx *tx) around(ctx context.Context, lane *rollout.Lane) (err error) {
	t := lane.Current
	if len(t.DependsOn) > 0 {
		states, err := tx.states(ctx, t.Deployment, rollout.OfDependents)
		if err != nil {
			return err
		}
		lane.Dependencies = map[string]rollout.State{}
		for _, name := range t.DependsOn {
			lane.Dependencies[name] = states[name]
		}
	}
	var cancel sql.NullString
	if err := tx.queryRow(ctx, `SELECT cancel FROM deployments WHERE id = ?`, t.Deployment).Scan(&cancel); err != nil {
		return err
	}
	if cancel.Valid {
		if err := json.Unmarshal([]byte(cancel.String), &lane.Cancel); err != nil {
			return err
		}
	}
	if lane.Words, err = tx.words(ctx, t.Deployment); err != nil {
		return err
	}
	if t.CallsOut() {
		if lane.Calls, err = tx.outcomes(ctx, t.ID); err != nil {
			return err
		}
	}
	if t.ReportsAtFirst() {
		if lane.Judged, err = tx.judged(ctx, lane.ID); err != nil {
			return err
		}
	}
	if t.Exposes() {
		if lane.Links, err = tx.links(ctx, t.ID); err != nil {
			return err
		}
	}
	lane.Hold, err = tx.holdOn(ctx, t)
	return err
}

func (tx *tx) target(ctx context.Context, id int64) (*rollout.Target, error) {
	var text string
	if err := tx.queryRow(ctx, `SELECT data FROM targets WHERE id = ?`, id).Scan(&text); err != nil {
		return nil, fmt.Errorf("target %d: %w", id, err)
	}
	t := new(rollout.Target)
	return t, json.Unmarshal([]byte(text), t)
}

func (tx *tx) inventory(ctx context.Context, lane int64) ([]manifest.Key, error) {
	rows, err := tx.query(ctx, `SELECT api_group, kind, namespace, name FROM inventory WHERE lane_id = ? ORDER BY api_group, kind, namespace, name`, lane)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var keys []manifest.Key
	for rows.Next() {
		var key manifest.Key
		if err := rows.Scan(&key.Group, &key.Kind, &key.Namespace, &key.Name); err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, rows.Err()
}

// Save records a decision and all that follows from it in one transaction: inventory, waits, events, the lane's next deployment, states of
// deployments, messages to send, wakes. rollout.ErrStale when the lease was lost or the target is no longer the lane's current one; a
// *rollout.Failure when an object to be claimed belongs to another lane. Either way nothing is written.
func (s *Store) Save(ctx context.Context, lease rollout.Lease, d rollout.Decision) error {
	return s.write(ctx, "lane.save", func(tx *tx) error {
		var current, next sql.NullInt64
		var epoch int64
		var was sql.NullString // NULL: nothing runs on the lane any more
		err := tx.queryRow(ctx, `SELECT l.lease_epoch, l.current_target, l.next_target, t.state FROM lanes l LEFT JOIN targets t ON t.id = l.current_target WHERE l.id = ?`,
			lease.Lane).Scan(&epoch, &current, &next, &was)
		if err != nil {
			return err
		}
		if epoch != lease.Epoch || current.Int64 != d.Target.ID {
			return rollout.ErrStale
		}
		if err := tx.claim(ctx, d.Target, d.Claim); err != nil {
			return err
		}
		if err := tx.drop(ctx, lease.Lane, d.Drop); err != nil {
			return err
		}
		if err := tx.saveTarget(ctx, d.Target); err != nil {
			return err
		}
		if err := tx.settle(ctx, lease.Lane, d); err != nil {
			return err
		}
		if err := tx.ask(ctx, d.Target, d.Calls); err != nil {
			return err
		}
		if err := tx.judges(ctx, lease.Lane, d.Judges); err != nil {
			return err
		}
		if err := tx.expose(ctx, d.Target, d.Exposes); err != nil {
			return err
		}
		for _, event := range d.Events {
			if err := tx.event(ctx, event); err != nil {
				return err
			}
		}
		if d.Cancels != nil {
			if err := tx.cancelAll(ctx, d.Target.Deployment, *d.Cancels); err != nil {
				return err
			}
		}
		if d.Target.State.Final() {
			if err := tx.promote(ctx, d.Target, next.Int64); err != nil {
				return err
			}
		}
		if string(d.Target.State) != was.String {
			return tx.moved(ctx, d.Target.ID, s.clock())
		}
		return tx.tellOf(ctx, d.Target.Deployment)
	})
}

// claim puts objects into the lane's inventory.
func (tx *tx) claim(ctx context.Context, t rollout.Target, keys []manifest.Key) error {
	for _, key := range keys {
		result, err := tx.exec(ctx, `INSERT INTO inventory (tenant_id, account, api_group, kind, namespace, name, lane_id) VALUES (?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (tenant_id, account, api_group, kind, namespace, name) DO UPDATE SET lane_id = excluded.lane_id
			WHERE inventory.lane_id = excluded.lane_id OR inventory.lane_id IN (SELECT id FROM lanes WHERE removed = 1)`,
			t.Tenant, t.Account, key.Group, key.Kind, key.Namespace, key.Name, t.Lane)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil {
			return err
		} else if n == 0 {
			owners, err := tx.taken(ctx, t.Tenant, "", t.Account, []manifest.Key{key})
			if err != nil {
				return err
			}
			return &rollout.Failure{Class: rollout.Refused, Object: key, Text: fmt.Sprintf("belongs to application %s; an object has one owner", owners[key])}
		}
	}
	return nil
}

func (tx *tx) drop(ctx context.Context, lane int64, keys []manifest.Key) error {
	for _, key := range keys {
		_, err := tx.exec(ctx, `DELETE FROM inventory WHERE lane_id = ? AND api_group = ? AND kind = ? AND namespace = ? AND name = ?`,
			lane, key.Group, key.Kind, key.Namespace, key.Name)
		if err != nil {
			return err
		}
	}
	return nil
}

func (tx *tx) saveTarget(ctx context.Context, t rollout.Target) error {
	text, err := json.Marshal(t)
	if err != nil {
		return err
	}
	if _, err := tx.exec(ctx, `UPDATE targets SET state = ?, phase = ?, data = ? WHERE id = ?`, string(t.State), string(t.Phase), string(text), t.ID); err != nil {
		return err
	}
	if _, err := tx.exec(ctx, `DELETE FROM waits WHERE target_id = ?`, t.ID); err != nil {
		return err
	}
	for i, wait := range t.Waits {
		who, err := json.Marshal(wait.Who)
		if err != nil {
			return err
		}
		if _, err := tx.exec(ctx, `INSERT INTO waits (target_id, ord, tenant_id, kind, gate, since_at, until_at, needs, who, command) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			t.ID, i, t.Tenant, string(wait.Kind), wait.Gate, micros(wait.Since), nullMicros(wait.Until), wait.Needs, string(who), wait.Command); err != nil {
			return err
		}
	}
	return nil
}

// settle records what a decision changes of what its lane keeps.
func (tx *tx) settle(ctx context.Context, lane int64, d rollout.Decision) error {
	if !d.Settles() {
		return nil
	}
	var was rollout.Standing
	var good, pin sql.NullString
	var removed int
	if err := tx.queryRow(ctx, `SELECT wanted, promise, good, pin, removed, replaced FROM lanes WHERE id = ?`, lane).
		Scan(&was.Wanted, &was.Promise, &good, &pin, &removed, &was.Replaced); err != nil {
		return err
	}
	was.Removed = removed != 0
	var err error
	if was.Good, err = fromText[rollout.Release](good); err != nil {
		return err
	}
	if was.Pin, err = fromText[rollout.Pin](pin); err != nil {
		return err
	}
	is := was.Settle(d)
	if good, err = toText(is.Good); err != nil {
		return err
	}
	if pin, err = toText(is.Pin); err != nil {
		return err
	}
	_, err = tx.exec(ctx, `UPDATE lanes SET wanted = ?, promise = ?, good = ?, pin = ?, removed = ?, replaced = ? WHERE id = ?`,
		is.Wanted, is.Promise, good, pin, truth(is.Removed), is.Replaced, lane)
	if err == nil && (d.Good != nil || d.Emptied) {
		err = tx.noDrift(ctx, lane) // all of it was applied, or is gone
	}
	return err
}

// fromText reads a value that may be NULL.
func fromText[T any](text sql.NullString) (*T, error) {
	if !text.Valid {
		return nil, nil
	}
	v := new(T)
	return v, json.Unmarshal([]byte(text.String), v)
}

// toText is NULL for nil.
func toText[T any](v *T) (sql.NullString, error) {
	if v == nil {
		return sql.NullString{}, nil
	}
	text, err := json.Marshal(v)
	return sql.NullString{String: string(text), Valid: true}, err
}

// promote makes the lane's next target its current one, and wakes it. What was cancelled for it is known to be replaced by it.
func (tx *tx) promote(ctx context.Context, ended rollout.Target, next int64) error {
	queue, replacedBy := rollout.Queue{Current: ended.ID, Next: next}.End(ended.State)
	if err := tx.setQueue(ctx, ended.Lane, queue); err != nil || queue.Current == 0 {
		return err
	}
	if replacedBy != 0 {
		if _, err := tx.exec(ctx, `UPDATE targets SET replaced_by = ? WHERE id = ?`, replacedBy, ended.ID); err != nil {
			return err
		}
		if _, err := tx.exec(ctx, `UPDATE lanes SET replaced = replaced + 1 WHERE id = ?`, ended.Lane); err != nil {
			return err
		}
	}
	return tx.wakeLane(ctx, ended.Lane)
}

// moved follows a target's new state to all that stands on it: the state of its deployment, and of those that carry it; messages to send; and the
// lanes whose targets wait for it.
func (tx *tx) moved(ctx context.Context, target int64, now time.Time) error {
	deployments, err := tx.standingOn(ctx, target)
	if err != nil {
		return err
	}
	for _, deployment := range deployments {
		if err := tx.summarize(ctx, deployment, now); err != nil {
			return err
		}
		if err := tx.wakeLanes(ctx, `SELECT l.id FROM targets t JOIN lanes l ON l.current_target = t.id
			WHERE t.deployment_id = ? AND t.id <> ? AND t.phase = ? AND t.depends = 1`, deployment, target, string(rollout.Waiting)); err != nil {
			return err
		}
	}
	return nil
}

// standingOn is the deployments whose state depends on a target's: its own, those that carry it, and those whose targets it replaced.
func (tx *tx) standingOn(ctx context.Context, target int64) ([]string, error) {
	var deployments []string
	for open := []int64{target}; len(open) > 0; open = open[1:] {
		rows, err := tx.query(ctx, `SELECT id, deployment_id FROM targets WHERE id = ? OR carried_by = ? OR (replaced_by = ? AND id <> ?) ORDER BY id`, open[0], open[0], open[0], open[0])
		if err != nil {
			return nil, err
		}
		for rows.Next() {
			var id int64
			var deployment string
			if err := rows.Scan(&id, &deployment); err != nil {
				rows.Close()
				return nil, err
			}
			if !slices.Contains(deployments, deployment) {
				deployments = append(deployments, deployment)
			}
			if id != open[0] && !slices.Contains(open, id) && len(open) < 1000 {
				open = append(open, id)
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return nil, err
		}
	}
	return deployments, nil
}

// summarize derives a deployment's state from its targets'. A final state is never left again: what was told stays true, even when a target that
// it only carried moves later.
func (tx *tx) summarize(ctx context.Context, deployment string, now time.Time) error {
	states, err := tx.states(ctx, deployment, rollout.OfDeployment)
	if err != nil {
		return err
	}
	all := make([]rollout.State, 0, len(states))
	for _, state := range states {
		all = append(all, state)
	}
	var tenant, application, was string
	var number int
	var stopped bool
	err = tx.queryRow(ctx, `SELECT tenant_id, application, number, state, cancel IS NOT NULL FROM deployments WHERE id = ?`, deployment).Scan(&tenant, &application, &number, &was, &stopped)
	if err != nil || rollout.State(was).Final() {
		return err
	}
	state := rollout.Summary(all, stopped)
	if err := tx.tellOf(ctx, deployment); err != nil || string(state) == was {
		return err
	}
	started, ended := sql.NullInt64{}, sql.NullInt64{}
	if state != rollout.Queued {
		started = nullMicros(now)
	}
	if state.Final() {
		ended = nullMicros(now)
	}
	if _, err := tx.exec(ctx, `UPDATE deployments SET state = ?, started_at = COALESCE(started_at, ?), ended_at = ? WHERE id = ?`, string(state), started, ended, deployment); err != nil {
		return err
	}
	if err := tx.event(ctx, rollout.Event{At: now, Tenant: tenant, Application: application, Deployment: deployment, Who: "towpath",
		Kind: "deployment.state", What: fmt.Sprintf("#%d is %s", number, state)}); err != nil || !state.Final() {
		return err
	}
	return tx.startQueued(ctx, tenant, application, now)
}

// states is the state of each target of a deployment in the eyes of others.
func (tx *tx) states(ctx context.Context, deployment string, eyes rollout.Eyes) (map[string]rollout.State, error) {
	rows, err := tx.query(ctx, `SELECT name, state, carried_by, replaced_by FROM targets WHERE deployment_id = ?`, deployment)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	stands := map[string]rollout.Stand{}
	for rows.Next() {
		var name string
		stand, err := scanStand(func(into ...any) error { return rows.Scan(append([]any{&name}, into...)...) })
		if err != nil {
			return nil, err
		}
		stands[name] = stand
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, err
	}
	states := map[string]rollout.State{}
	for name, stand := range stands {
		if states[name], err = stand.Seen(eyes, func(id int64) (rollout.Stand, error) {
			return scanStand(tx.queryRow(ctx, `SELECT state, carried_by, replaced_by FROM targets WHERE id = ?`, id).Scan)
		}); err != nil {
			return nil, err
		}
	}
	return states, nil
}

func scanStand(scan func(...any) error) (s rollout.Stand, err error) {
	var carried, replaced sql.NullInt64
	err = scan(&s.State, &carried, &replaced)
	s.CarriedBy, s.ReplacedBy = carried.Int64, replaced.Int64
	return s, err
}
