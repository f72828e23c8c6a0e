package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"towpath/deployment"
	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// ErrUnderWay says that another deployment of the application is under way and the new one may not replace it.
type ErrUnderWay struct {
	Application string
	ID          string // of the one under way
	Number      int
	Rejected    string // id under which the refused one is recorded
}

func (e *ErrUnderWay) Error() string {
	return fmt.Sprintf("deployment #%d (%s) of application %s is under way", e.Number, e.ID, e.Application)
}

// Start records a deployment with its lanes, events, messages and wakes in one transaction. When the application's rules forbid it now, it is
// recorded as REJECTED and the error is an *ErrUnderWay.
func (s *Store) Start(ctx context.Context, start rollout.Start, sealed map[string][]manifest.Object) error {
	var refused *ErrUnderWay
	err := s.write(ctx, "deployment.start", func(tx *tx) error {
		refused = nil
		if err := tx.seal(ctx, sealed); err != nil {
			return err
		}
		var err error
		refused, err = tx.start(ctx, start)
		return err
	})
	if err == nil && refused != nil {
		return refused
	}
	return err
}

// Record records what became known of one file at one commit, with all that follows from it, in one transaction. Recording the same again changes
// nothing.
func (s *Store) Record(ctx context.Context, r rollout.FileRecord) error {
	return s.write(ctx, "file.record", func(tx *tx) error {
		if r.Deleted {
			return tx.recordDeleted(ctx, r)
		}
		if err := tx.recordFile(ctx, r); err != nil {
			return err
		}
		sealed := map[string][]manifest.Object{}
		for _, render := range r.Renders {
			if render.Objects != nil && !render.Failed() {
				sealed[render.Manifests] = render.Objects
			}
		}
		if err := tx.seal(ctx, sealed); err != nil {
			return err
		}
		for _, render := range r.Renders {
			if err := tx.recordRender(ctx, r.Tenant, render); err != nil {
				return err
			}
		}
		switch {
		case r.Start != nil:
			_, err := tx.start(ctx, *r.Start)
			return err
		case r.Stay != nil:
			return tx.stay(ctx, *r.Stay)
		}
		return nil
	})
}

// stay records what a file wants of targets that it does not move. It owns its application from then on, as one that moves them does.
func (tx *tx) stay(ctx context.Context, stay rollout.Start) error {
	if _, err := tx.exec(ctx, `UPDATE applications SET source = ?, path = ? WHERE tenant_id = ? AND name = ?`,
		stay.Origin.Source, stay.Origin.Path, stay.Tenant, stay.Application); err != nil {
		return err
	}
	for _, target := range stay.Targets {
		lane, err := tx.lane(ctx, stay, target)
		if err != nil {
			return err
		}
		if _, err := tx.exec(ctx, `UPDATE lanes SET promise = ?, heal = ? WHERE id = ?`, target.Digest, truth(target.Heal), lane.id); err != nil {
			return err
		}
		if lane.heal != truth(target.Heal) {
			if err := tx.wakeLane(ctx, lane.id); err != nil {
				return err
			}
		}
		if err := tx.unpin(ctx, &lane, stay, target); err != nil {
			return err
		}
	}
	return nil
}

// unpin lets a lane go that is held at what is asked for: what brought that about is from now on what was asked for.
func (tx *tx) unpin(ctx context.Context, lane *laneRow, start rollout.Start, target rollout.StartTarget) error {
	event := lane.held.Unpin(start, target)
	if event == nil {
		return nil
	}
	if err := tx.queryRow(ctx, `UPDATE lanes SET pin = NULL, wanted = ?, promise = ?,
		wanted_target = COALESCE((SELECT t.id FROM targets t WHERE t.lane_id = lanes.id AND t.deployment_id = ?), wanted_target) WHERE id = ? RETURNING wanted_target`,
		target.Manifests, target.Digest, lane.held.Good.Deployment, lane.id).Scan(&lane.wanted); err != nil {
		return err
	}
	return tx.event(ctx, *event)
}

func (tx *tx) recordFile(ctx context.Context, r rollout.FileRecord) error {
	problems, err := json.Marshal(r.Problems)
	if err != nil {
		return err
	}
	asks := r.Asks()
	if _, err := tx.exec(ctx, `INSERT INTO files (tenant_id, source, path, application, digest, commit_id, problems, prune) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (tenant_id, source, path) DO UPDATE SET application = excluded.application, digest = excluded.digest, commit_id = excluded.commit_id,
		problems = excluded.problems, prune = CASE WHEN ? THEN excluded.prune ELSE files.prune END`,
		r.Tenant, r.Source, r.Path, r.Application, r.Digest, r.Commit, string(problems), truth(asks != nil && asks.Prune), asks != nil); err != nil {
		return err
	}
	if err := tx.tell(ctx, r.Tenant, r.Source, r.Commit); err != nil || !rollout.HasErrors(r.Problems) {
		return err
	}
	first := r.Problems[slices.IndexFunc(r.Problems, func(p deployment.Problem) bool { return p.Severity == deployment.Error })]
	return tx.event(ctx, rollout.Event{At: tx.now(), Tenant: r.Tenant, Application: r.Application, Who: "towpath", Kind: "file.refused",
		What: fmt.Sprintf("%s at %s is not deployed", r.Path, short(r.Commit)), Why: fmt.Sprintf("%s:%d:%d: %s", first.File, first.Line, first.Column, first.Text)})
}

func (tx *tx) recordDeleted(ctx context.Context, r rollout.FileRecord) error {
	if _, err := tx.exec(ctx, `DELETE FROM files WHERE tenant_id = ? AND source = ? AND path = ?`, r.Tenant, r.Source, r.Path); err != nil {
		return err
	}
	_, err := tx.exec(ctx, `DELETE FROM renders WHERE tenant_id = ? AND source = ? AND path = ?`, r.Tenant, r.Source, r.Path)
	return err
}

// Leave records that a file no longer names an application that it owns.
func (s *Store) Leave(ctx context.Context, l rollout.Leave) error {
	return s.write(ctx, "application.leave", func(tx *tx) error {
		if l.Heir != "" {
			return tx.inherit(ctx, l)
		}
		if _, err := tx.start(ctx, *l.Start); err != nil {
			return err
		}
		_, err := tx.exec(ctx, `UPDATE applications SET removed = 1 WHERE tenant_id = ? AND name = ?`, l.Tenant, l.Application)
		return err
	})
}

func (tx *tx) inherit(ctx context.Context, l rollout.Leave) error {
	if _, err := tx.exec(ctx, `UPDATE applications SET path = ? WHERE tenant_id = ? AND name = ?`, l.Heir, l.Tenant, l.Application); err != nil {
		return err
	}
	_, err := tx.exec(ctx, `UPDATE files SET prune = ? WHERE tenant_id = ? AND source = ? AND path = ?`, truth(l.Prune), l.Tenant, l.Source, l.Heir)
	return err
}

// Owned names the applications that a file owns: that which it names, and one that it named until now.
func (s *Store) Owned(ctx context.Context, tenant, source, path string) (names []string, err error) {
	err = s.read(ctx, func(tx *tx) error {
		names = nil
		rows, err := tx.query(ctx, `SELECT name FROM applications WHERE tenant_id = ? AND source = ? AND path = ? AND removed = 0 ORDER BY name`, tenant, source, path)
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

// start records a deployment. refused says why it was recorded as REJECTED.
func (tx *tx) start(ctx context.Context, start rollout.Start) (refused *ErrUnderWay, err error) {
	refused, known, err := tx.started(ctx, start)
	if err != nil || known {
		return refused, err
	}
	if err := tx.mayStart(ctx, start); err != nil {
		return nil, err
	}
	number, err := tx.number(ctx, start)
	if err != nil {
		return nil, err
	}
	underWay, err := tx.underWay(ctx, start.Tenant, start.Application)
	if err != nil {
		return nil, err
	}
	turn := start.Turn(underWay != nil)
	state, why := rollout.Queued, ""
	if turn == rollout.IsRefused {
		refused, state = underWay, rollout.Rejected
		refused.Rejected, why = start.ID, underWay.Error()
	}
	if err := tx.insertDeployment(ctx, start, number, state, why); err != nil {
		return nil, err
	}
	if refused != nil {
		return refused, tx.tellOf(ctx, start.ID)
	}
	if turn == rollout.WaitsForIt {
		return nil, tx.enqueueDeployment(ctx, start, number, underWay.Number)
	}
	return nil, tx.startTargets(ctx, start, number, underWay != nil)
}

// startTargets puts a deployment's targets on their lanes, or lets them be carried by what the lanes were asked for before.
func (tx *tx) startTargets(ctx context.Context, start rollout.Start, number int, others bool) (err error) {
	for i, target := range start.Targets {
		if start.Moves(target, others) {
			err = tx.startTarget(ctx, start, number, i, target)
		} else {
			err = tx.carryTarget(ctx, start, number, i, target)
		}
		if err != nil {
			return err
		}
	}
	for i, gone := range start.Gone {
		if err := tx.leave(ctx, start, number, len(start.Targets)+i, gone); err != nil {
			return err
		}
	}
	return tx.summarize(ctx, start.ID, start.At)
}

// started reports whether a deployment was recorded before, and whether it was refused then.
func (tx *tx) started(ctx context.Context, start rollout.Start) (refused *ErrUnderWay, known bool, err error) {
	var state string
	var number int
	err = tx.queryRow(ctx, `SELECT state, number FROM deployments WHERE id = ?`, start.ID).Scan(&state, &number)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, false, nil
	case err != nil || rollout.State(state) != rollout.Rejected:
		return nil, true, err
	}
	refused = &ErrUnderWay{Application: start.Application, Rejected: start.ID}
	return refused, true, tx.queryRow(ctx, `SELECT id, number FROM deployments WHERE tenant_id = ? AND application = ? AND number < ? AND state <> ? ORDER BY number DESC LIMIT 1`,
		start.Tenant, start.Application, number, string(rollout.Rejected)).Scan(&refused.ID, &refused.Number)
}

// number gives the application its next number, and makes it when it is new. A file that starts a deployment owns its application from then on.
func (tx *tx) number(ctx context.Context, start rollout.Start) (number int, err error) {
	source, path := start.Origin.Source, start.Origin.Path
	if source == "" {
		path = ""
	}
	err = tx.queryRow(ctx, `INSERT INTO applications (tenant_id, name, source, path, number, removed) VALUES (?, ?, ?, ?, ?, 0)
		ON CONFLICT (tenant_id, name) DO UPDATE SET number = CASE WHEN applications.number < excluded.number THEN excluded.number ELSE applications.number + 1 END, removed = 0,
		source = CASE WHEN ? THEN applications.source ELSE excluded.source END, path = CASE WHEN ? THEN applications.path ELSE excluded.path END
		RETURNING number`, start.Tenant, start.Application, source, path, start.Above+1, start.Pin, start.Pin).Scan(&number)
	return number, err
}

// underWay is the newest unfinished deployment of an application, or nil. One that has begun comes before those that wait for it.
func (tx *tx) underWay(ctx context.Context, tenant, application string) (*ErrUnderWay, error) {
	found := &ErrUnderWay{Application: application}
	err := tx.queryRow(ctx, `SELECT id, number FROM deployments WHERE tenant_id = ? AND application = ? AND ended_at IS NULL
		ORDER BY CASE WHEN queued IS NULL THEN 0 ELSE 1 END, number DESC LIMIT 1`, tenant, application).Scan(&found.ID, &found.Number)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return found, err
}

func (tx *tx) insertDeployment(ctx context.Context, start rollout.Start, number int, state rollout.State, why string) error {
	contextText, err := json.Marshal(start.Context)
	if err != nil {
		return err
	}
	file, err := tx.sealFile(ctx, start.Text)
	if err != nil {
		return err
	}
	ended := sql.NullInt64{}
	if state.Final() {
		ended = nullMicros(start.At)
	}
	if _, err := tx.exec(ctx, `INSERT INTO deployments (id, tenant_id, application, number, source, path, commit_id, upload, repeats, trigger_kind, trigger_by, reason, title,
		description, context, file, state, why, created_at, ended_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		start.ID, start.Tenant, start.Application, number, start.Origin.Source, start.Origin.Path, start.Origin.Commit, start.Origin.Upload, start.Origin.Repeat,
		start.Trigger.Kind, start.Trigger.By, start.Trigger.Reason, start.Trigger.Title, start.Description, string(contextText), file,
		string(state), why, micros(start.At), ended); err != nil {
		return err
	}
	what := fmt.Sprintf("#%d is %s", number, state)
	if start.Origin.Commit != "" {
		what += ": commit " + short(start.Origin.Commit)
		if start.Trigger.Title != "" {
			what += ", " + start.Trigger.Title
		}
	}
	return tx.event(ctx, rollout.Event{At: start.At, Tenant: start.Tenant, Application: start.Application, Deployment: start.ID, Who: start.Trigger.By,
		Kind: "deployment." + strings.ToLower(string(state)), What: what, Why: why})
}

// startTarget puts a target on its lane: at once when the lane is free, else behind what runs, where it takes the place of what waited there.
func (tx *tx) startTarget(ctx context.Context, start rollout.Start, number, order int, target rollout.StartTarget) error {
	lane, err := tx.lane(ctx, start, target)
	if err != nil {
		return err
	}
	t := start.Execution(tx.newID(), lane.id, number, target).On(lane.unproved)
	if err := tx.insertTarget(ctx, t, order, sql.NullInt64{}); err != nil {
		return err
	}
	if !start.Pin {
		if _, err := tx.exec(ctx, `UPDATE lanes SET wanted = ?, promise = ?, wanted_target = ?, heal = ?, removed = 0 WHERE id = ?`,
			target.Manifests, target.Digest, t.ID, truth(target.Heal), lane.id); err != nil {
			return err
		}
	}
	return tx.enqueue(ctx, lane, t, start.At)
}

func (tx *tx) enqueue(ctx context.Context, lane laneRow, t rollout.Target, now time.Time) error {
	queue, skipped := lane.queue().Put(t.ID)
	if err := tx.setQueue(ctx, lane.id, queue); err != nil {
		return err
	}
	if skipped != 0 {
		if err := tx.skip(ctx, skipped, t, now); err != nil {
			return err
		}
	}
	return tx.wakeLane(ctx, lane.id)
}

func (tx *tx) setQueue(ctx context.Context, lane int64, q rollout.Queue) error {
	_, err := tx.exec(ctx, `UPDATE lanes SET current_target = ?, next_target = ? WHERE id = ?`, nullID(q.Current), nullID(q.Next), lane)
	return err
}

func nullID(id int64) sql.NullInt64 { return sql.NullInt64{Int64: id, Valid: id != 0} }

// skip ends a target that waited behind its lane's current one: a newer one has its place.
func (tx *tx) skip(ctx context.Context, id int64, by rollout.Target, now time.Time) error {
	skipped, err := tx.target(ctx, id)
	if err != nil {
		return err
	}
	if _, err := tx.exec(ctx, `UPDATE targets SET replaced_by = ? WHERE id = ?`, by.ID, id); err != nil {
		return err
	}
	return tx.endUnstarted(ctx, skipped, fmt.Sprintf("replaced by #%d", by.Number), now)
}

// carryTarget records that a target is brought about by what its lane was asked for before.
func (tx *tx) carryTarget(ctx context.Context, start rollout.Start, number, order int, target rollout.StartTarget) error {
	lane, err := tx.lane(ctx, start, target)
	if err != nil {
		return err
	}
	if err := tx.unpin(ctx, &lane, start, target); err != nil {
		return err
	}
	return tx.insertTarget(ctx, start.Carried(tx.newID(), lane.id, number, target), order, lane.wanted)
}

// leave records that a target left the file: its objects go through a rollout of their own, or are orphaned.
func (tx *tx) leave(ctx context.Context, start rollout.Start, number, order int, gone rollout.Gone) error {
	lane := laneRow{id: gone.Lane}
	var name, account string
	if err := tx.queryRow(ctx, `SELECT target, account, current_target, next_target FROM lanes WHERE id = ?`, gone.Lane).Scan(&name, &account, &lane.current, &lane.next); err != nil {
		return err
	}
	if !gone.Prune {
		if _, err := tx.exec(ctx, `UPDATE lanes SET removed = 1, wanted = '', promise = '' WHERE id = ?`, gone.Lane); err != nil {
			return err
		}
		if err := tx.noDrift(ctx, gone.Lane); err != nil {
			return err
		}
		return tx.event(ctx, rollout.Event{At: start.At, Tenant: start.Tenant, Application: start.Application, Deployment: start.ID, Target: name, Who: start.Trigger.By,
			Kind: "target.orphaned", What: fmt.Sprintf("%s: its objects stay and nobody owns them", name), Why: gone.Why})
	}
	t := start.Removal(tx.newID(), gone.Lane, number, name, account)
	if err := tx.insertTarget(ctx, t, order, sql.NullInt64{}); err != nil {
		return err
	}
	if _, err := tx.exec(ctx, `UPDATE lanes SET wanted = '', promise = '' WHERE id = ?`, gone.Lane); err != nil { // a file that comes back moves it
		return err
	}
	return tx.enqueue(ctx, lane, t, start.At)
}

func (tx *tx) insertTarget(ctx context.Context, t rollout.Target, order int, carriedBy sql.NullInt64) error {
	text, err := json.Marshal(t)
	if err != nil {
		return err
	}
	_, err = tx.exec(ctx, `INSERT INTO targets (id, tenant_id, deployment_id, lane_id, ord, name, state, phase, depends, data, carried_by) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		t.ID, t.Tenant, t.Deployment, t.Lane, order, t.Name, string(t.State), string(t.Phase), truth(len(t.DependsOn) > 0), string(text), carriedBy)
	return err
}

// laneRow is what starting a target has to know of its lane.
type laneRow struct {
	id                    int64
	current, next, wanted sql.NullInt64    // targets
	unproved              *rollout.Target  // what was last asked for; nil: it was proved good
	held                  rollout.Standing // its Good and Pin alone
	heal                  int
}

func (l laneRow) queue() rollout.Queue {
	return rollout.Queue{Current: l.current.Int64, Next: l.next.Int64}
}

// lane finds the lane of a target, or makes it.
func (tx *tx) lane(ctx context.Context, start rollout.Start, target rollout.StartTarget) (laneRow, error) {
	var lane laneRow
	var unproved, good, pin sql.NullString
	err := tx.queryRow(ctx, `SELECT l.id, l.current_target, l.next_target, l.wanted_target, l.good, l.pin, l.heal, t.data FROM lanes l LEFT JOIN targets t ON t.id = l.wanted_target AND t.state <> ?
		WHERE l.tenant_id = ? AND l.application = ? AND l.target = ? AND l.account = ?`, string(rollout.Succeeded), start.Tenant, start.Application, target.Name, target.Account).
		Scan(&lane.id, &lane.current, &lane.next, &lane.wanted, &good, &pin, &lane.heal, &unproved)
	if err == nil {
		lane.unproved, err = fromText[rollout.Target](unproved)
	}
	if err == nil {
		lane.held.Good, err = fromText[rollout.Release](good)
	}
	if err == nil {
		lane.held.Pin, err = fromText[rollout.Pin](pin)
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return lane, err
	}
	lane.id = tx.newID()
	_, err = tx.exec(ctx, `INSERT INTO lanes (id, tenant_id, application, target, account) VALUES (?, ?, ?, ?, ?)`,
		lane.id, start.Tenant, start.Application, target.Name, target.Account)
	return lane, err
}

// Lanes is the lanes of an application, by target.
func (s *Store) Lanes(ctx context.Context, tenant, application string) (lanes []rollout.LaneState, err error) {
	err = s.read(ctx, func(tx *tx) error {
		lanes = nil
		rows, err := tx.query(ctx, `SELECT l.id, l.target, l.account, l.wanted, l.promise, l.good, l.pin, l.removed, COALESCE(d.number, 0) FROM lanes l
			LEFT JOIN targets t ON t.id = l.wanted_target LEFT JOIN deployments d ON d.id = t.deployment_id
			WHERE l.tenant_id = ? AND l.application = ? ORDER BY l.target, l.account`, tenant, application)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var lane rollout.LaneState
			var good, pin sql.NullString
			var removed int
			if err := rows.Scan(&lane.ID, &lane.Target, &lane.Account, &lane.Wanted, &lane.Promise, &good, &pin, &removed, &lane.Number); err != nil {
				return err
			}
			lane.Removed = removed != 0
			if lane.Good, err = fromText[rollout.Release](good); err != nil {
				return err
			}
			if lane.Pin, err = fromText[rollout.Pin](pin); err != nil {
				return err
			}
			lanes = append(lanes, lane)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return err
		}
		for i := range lanes {
			if lanes[i].Inventory, err = tx.inventory(ctx, lanes[i].ID); err != nil {
				return err
			}
		}
		return nil
	})
	return lanes, err
}

// Owner is who owns an application; the zero value when nobody ever did.
func (s *Store) Owner(ctx context.Context, tenant, application string) (owner rollout.Owner, err error) {
	err = s.read(ctx, func(tx *tx) error {
		var removed int
		err := tx.queryRow(ctx, `SELECT name, source, path, removed FROM applications WHERE tenant_id = ? AND name = ?`, tenant, application).
			Scan(&owner.Application, &owner.Source, &owner.Path, &removed)
		owner.Removed = removed != 0
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return owner, err
}

// Taken names, for each of the keys on an account that an application other than this one has, the application that has it. Objects that were
// orphaned belong to nobody.
func (s *Store) Taken(ctx context.Context, tenant, application, account string, keys []manifest.Key) (owners map[manifest.Key]string, err error) {
	err = s.read(ctx, func(tx *tx) error {
		owners, err = tx.taken(ctx, tenant, application, account, keys)
		return err
	})
	return owners, err
}

func (tx *tx) taken(ctx context.Context, tenant, application, account string, keys []manifest.Key) (map[manifest.Key]string, error) {
	owners := map[manifest.Key]string{}
	for _, key := range keys {
		var owner string
		err := tx.queryRow(ctx, `SELECT l.application FROM inventory i JOIN lanes l ON l.id = i.lane_id
			WHERE i.tenant_id = ? AND i.account = ? AND i.api_group = ? AND i.kind = ? AND i.namespace = ? AND i.name = ? AND l.application <> ? AND l.removed = 0`,
			tenant, account, key.Group, key.Kind, key.Namespace, key.Name, application).Scan(&owner)
		switch {
		case errors.Is(err, sql.ErrNoRows):
		case err != nil:
			return nil, err
		default:
			owners[key] = owner
		}
	}
	return owners, nil
}

// Files is the deployment files of a source, as they are recorded.
func (s *Store) Files(ctx context.Context, tenant, source string) (files []rollout.FileState, err error) {
	err = s.read(ctx, func(tx *tx) error {
		files = nil
		rows, err := tx.query(ctx, `SELECT path, application, digest, commit_id, prune, problems FROM files WHERE tenant_id = ? AND source = ? ORDER BY path`, tenant, source)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var f rollout.FileState
			var prune int
			var problems string
			if err := rows.Scan(&f.Path, &f.Application, &f.Digest, &f.Commit, &prune, &problems); err != nil {
				return err
			}
			f.Prune = prune != 0
			if err := json.Unmarshal([]byte(problems), &f.Problems); err != nil {
				return err
			}
			files = append(files, f)
		}
		return rows.Err()
	})
	return files, err
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

// short is a commit as people write it.
func short(commit string) string { return commit[:min(len(commit), 7)] }
