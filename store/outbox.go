package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"towpath/reconcile/rollout"
)

// commitSubject is what the outbox calls a commit.
func commitSubject(tenant, source, commit string) string {
	return "commit/" + tenant + "/" + source + "/" + commit
}

// messageSubject is what the outbox calls what a message is about.
func messageSubject(m rollout.Message) string {
	switch {
	case m.Group:
		return proposalSubject(rollout.ProposalName{Tenant: m.Tenant, Source: m.Source, Group: m.Commit})
	case m.Pull != 0:
		return proposalSubject(rollout.ProposalName{Tenant: m.Tenant, Source: m.Source, Pull: m.Pull})
	}
	return commitSubject(m.Tenant, m.Source, m.Commit)
}

// about takes up what a subject says of what a message is about.
func about(m *rollout.Message, subject string) error {
	if parts := strings.SplitN(subject, "/", 4); len(parts) == 4 && parts[0] == "commit" {
		m.Tenant, m.Source, m.Commit = parts[1], parts[2], parts[3]
		return nil
	}
	n, err := proposalName(subject)
	m.Tenant, m.Source, m.Pull, m.Commit, m.Group = n.Tenant, n.Source, n.Pull, n.Group, n.Group != ""
	return err
}

// TellAbout says of which sources' commits is told. What happens in others leaves no messages.
func (s *Store) TellAbout(sources []string) {
	told := map[string]bool{}
	for _, source := range sources {
		told[source] = true
	}
	s.told.Store(&told)
}

func (s *Store) tells(source string) bool {
	told := s.told.Load()
	return told != nil && (*told)[source]
}

// tell marks a commit as one about which something new is to be told. What is told is read when it is sent, so many changes are one message. A change
// ends a delay, unless that is because of a failure. While the message is being sent nobody needs to be woken: who sends it looks again.
func (tx *tx) tell(ctx context.Context, tenant, source, commit string) error {
	if commit == "" {
		return nil
	}
	if err := tx.tellSubject(ctx, source, commitSubject(tenant, source, commit)); err != nil || !tx.store.tells(source) {
		return err
	}
	return tx.tellMerged(ctx, source, commit)
}

func (tx *tx) tellSubject(ctx context.Context, source, subject string) error {
	if !tx.store.tells(source) {
		return nil
	}
	var free bool
	err := tx.queryRow(ctx, `INSERT INTO outbox (subject, source, dirty_seq, sent_seq, next_at, claimed_until, unsure, tries, failure, parked) VALUES (?, ?, 1, 0, 0, 0, 0, 0, '', 0)
		ON CONFLICT (subject) DO UPDATE SET dirty_seq = outbox.dirty_seq + 1, parked = 0, next_at = CASE WHEN outbox.tries > 0 THEN outbox.next_at ELSE 0 END
		RETURNING claimed_until = 0`, subject, source).Scan(&free)
	if err != nil || !free {
		return err
	}
	return tx.wake(ctx, JobOutbox, "")
}

// tellOf tells about the commit of a deployment.
func (tx *tx) tellOf(ctx context.Context, deployment string) error {
	var tenant, source, commit string
	if err := tx.queryRow(ctx, `SELECT tenant_id, source, commit_id FROM deployments WHERE id = ?`, deployment).Scan(&tenant, &source, &commit); err != nil {
		return err
	}
	return tx.tell(ctx, tenant, source, commit)
}

// tellAgain tells about a commit of which something was to be told before.
func (tx *tx) tellAgain(ctx context.Context, tenant, source, commit string) error {
	var known int
	err := tx.queryRow(ctx, `SELECT COUNT(*) FROM outbox WHERE subject = ?`, commitSubject(tenant, source, commit)).Scan(&known)
	if err != nil || known == 0 {
		return err
	}
	return tx.tell(ctx, tenant, source, commit)
}

// ClaimMessage takes the message of some sources that waited longest, if one is due, for a while. Nobody else gets one of these sources before that is over
// or it is given back by Told, TellLater or Park: whoever sends in one name, sends alone. nil: none is due; next is when one will be, zero: none waits.
func (s *Store) ClaimMessage(ctx context.Context, sources []string, lasts time.Duration) (m *rollout.Message, next time.Time, err error) {
	if len(sources) == 0 {
		return nil, time.Time{}, nil
	}
	now := micros(s.clock())
	due, of := `dirty_seq > sent_seq AND parked = 0 AND `+among("source", sources), anys(sources)
	var waits, claimed sql.NullInt64
	err = s.read(ctx, func(tx *tx) error {
		return tx.queryRow(ctx, `SELECT MIN(next_at), MAX(claimed_until) FROM outbox WHERE `+due, of...).Scan(&waits, &claimed)
	})
	if free := max(waits.Int64, claimed.Int64); err != nil || !waits.Valid || free > now {
		return nil, nullTime(sql.NullInt64{Int64: free, Valid: waits.Valid}), err
	}
	until := fromMicros(micros(s.clock().Add(lasts)))
	return m, time.Time{}, s.write(ctx, "outbox.claim", func(tx *tx) error {
		m = &rollout.Message{Until: until}
		var name string
		var unsure int
		err := tx.queryRow(ctx, `UPDATE outbox SET claimed_until = ?, unsure = unsure + 1 WHERE subject = (SELECT subject FROM outbox WHERE `+due+` AND next_at <= ? ORDER BY next_at, subject LIMIT 1)
			AND NOT EXISTS (SELECT 1 FROM outbox WHERE `+due+` AND claimed_until > ?) RETURNING subject, dirty_seq, tries, unsure`,
			slices.Concat([]any{micros(until)}, of, []any{now}, of, []any{now})...).Scan(&name, &m.Seq, &m.Tries, &unsure)
		if errors.Is(err, sql.ErrNoRows) { // somebody was faster
			m = nil
			return nil
		}
		if err != nil {
			return err
		}
		m.Unsure = unsure > 1
		return about(m, name)
	})
}

// KeepMessage makes a claim last longer, from now on; rollout.ErrStale when it was lost.
func (s *Store) KeepMessage(ctx context.Context, m rollout.Message, lasts time.Duration) (kept rollout.Message, err error) {
	kept = m
	kept.Until = fromMicros(micros(s.clock().Add(lasts)))
	return kept, s.write(ctx, "outbox.keep", func(tx *tx) error {
		result, err := tx.exec(ctx, `UPDATE outbox SET claimed_until = ? WHERE subject = ? AND claimed_until = ?`, micros(kept.Until), messageSubject(m), micros(m.Until))
		if err != nil {
			return err
		}
		if rows, err := result.RowsAffected(); err != nil || rows == 0 {
			return errors.Join(err, rollout.ErrStale)
		}
		return nil
	})
}

// among is the condition that a column holds one of some values, which anys passes.
func among(column string, values []string) string {
	return column + ` IN (?` + strings.Repeat(", ?", len(values)-1) + `)`
}

func anys(values []string) []any {
	out := make([]any, len(values))
	for i, v := range values {
		out[i] = v
	}
	return out
}

// RecoverMessages frees messages that were claimed when the process died, where no other process can hold them (SQLite), and wakes who sends them.
func (s *Store) RecoverMessages(ctx context.Context) error {
	return s.write(ctx, "outbox.recover", func(tx *tx) error {
		if s.exclusive() {
			if _, err := tx.exec(ctx, `UPDATE outbox SET claimed_until = 0 WHERE claimed_until > 0`); err != nil {
				return err
			}
		}
		return tx.wake(ctx, JobOutbox, "")
	})
}

// Told gives a message back: all up to its change was told, of which sent is recorded by object.
func (s *Store) Told(ctx context.Context, m rollout.Message, sent map[string]rollout.Publication) error {
	return s.giveBack(ctx, "outbox.told", m, sent, `sent_seq = ?, tries = 0, failure = '', next_at = 0, unsure = 0`, m.Seq)
}

// TellLater gives a message back to be told at a time, or at once if there is news of its commit and nothing failed; sent is what was told of it already.
func (s *Store) TellLater(ctx context.Context, m rollout.Message, sent map[string]rollout.Publication, d rollout.Delay) error {
	if d.Failure == "" {
		return s.giveBack(ctx, "outbox.later", m, sent, `next_at = CASE WHEN dirty_seq > ? THEN 0 ELSE CAST(? AS BIGINT) END, tries = 0, failure = '', unsure = ?`, m.Seq, micros(d.At), truth(d.Unsure))
	}
	return s.giveBack(ctx, "outbox.later", m, sent, `next_at = ?, tries = tries + 1, failure = ?, unsure = ?`, micros(d.At), d.Failure, truth(d.Unsure))
}

// Park gives a message back that was refused for good; the next change of its commit tries again.
func (s *Store) Park(ctx context.Context, m rollout.Message, sent map[string]rollout.Publication, why string) error {
	return s.giveBack(ctx, "outbox.park", m, sent, `parked = CASE WHEN dirty_seq = ? THEN 1 ELSE 0 END, failure = ?, tries = 0, next_at = 0, unsure = ?`, m.Seq, why, truth(m.Unsure))
}

// giveBack records what was sent, which is true in any case, and what becomes of the message, if the claim still holds.
func (s *Store) giveBack(ctx context.Context, name string, m rollout.Message, sent map[string]rollout.Publication, set string, args ...any) error {
	return s.write(ctx, name, func(tx *tx) error {
		if err := tx.publish(ctx, m, sent); err != nil {
			return err
		}
		_, err := tx.exec(ctx, `UPDATE outbox SET `+set+`, claimed_until = 0 WHERE subject = ? AND claimed_until = ?`,
			append(args, messageSubject(m), micros(m.Until))...)
		return err
	})
}

func (tx *tx) publish(ctx context.Context, m rollout.Message, sent map[string]rollout.Publication) error {
	for object, p := range sent {
		if _, err := tx.exec(ctx, `INSERT INTO published (subject, object, hash, final, at, count, remote_id) VALUES (?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (subject, object) DO UPDATE SET hash = excluded.hash, final = excluded.final, at = excluded.at, count = excluded.count, remote_id = excluded.remote_id`,
			messageSubject(m), object, p.Hash, truth(p.Final), micros(p.At), p.Count, p.ID); err != nil {
			return err
		}
		if p.Edit {
			continue
		}
		if _, err := tx.exec(ctx, `INSERT INTO sends (source, at) VALUES (?, ?)`, m.Source, micros(p.At)); err != nil {
			return err
		}
	}
	if len(sent) == 0 {
		return nil
	}
	_, err := tx.exec(ctx, `DELETE FROM sends WHERE source = ? AND at < ?`, m.Source, micros(tx.now().Add(-sendsKept)))
	return err
}

// sendsKept is how long it is remembered when something was sent: as far back as budgets look.
const sendsKept = time.Hour

// Published is what was last told of each object of a commit.
func (s *Store) Published(ctx context.Context, m rollout.Message) (published map[string]rollout.Publication, err error) {
	err = s.read(ctx, func(tx *tx) error {
		published = map[string]rollout.Publication{}
		rows, err := tx.query(ctx, `SELECT object, hash, final, at, count, remote_id FROM published WHERE subject = ?`, messageSubject(m))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var object string
			var p rollout.Publication
			var final int
			var at int64
			if err := rows.Scan(&object, &p.Hash, &final, &at, &p.Count, &p.ID); err != nil {
				return err
			}
			p.Final, p.At = final != 0, fromMicros(at)
			published[object] = p
		}
		return rows.Err()
	})
	return published, err
}

// SentSince is when something was sent about some sources, within the last hour at most, oldest first: the budget belongs to who sends, not to a process.
func (s *Store) SentSince(ctx context.Context, sources []string, since time.Time) (at []time.Time, err error) {
	if len(sources) == 0 {
		return nil, nil
	}
	err = s.read(ctx, func(tx *tx) error {
		at = nil
		rows, err := tx.query(ctx, `SELECT at FROM sends WHERE `+among("source", sources)+` AND at > ? ORDER BY at`, append(anys(sources), micros(since))...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var one int64
			if err := rows.Scan(&one); err != nil {
				return err
			}
			at = append(at, fromMicros(one))
		}
		return rows.Err()
	})
	return at, err
}

// Untold is what could not be told about a source yet.
type Untold struct {
	Commits int    // that wait to be told about, or were refused
	Failure string // why telling one of them failed; "": none did
}

func (tx *tx) untold(ctx context.Context, source string) (u Untold, err error) {
	err = tx.queryRow(ctx, `SELECT COUNT(*), COALESCE(MAX(failure), '') FROM outbox WHERE source = ? AND (dirty_seq > sent_seq OR parked = 1)`, source).Scan(&u.Commits, &u.Failure)
	return u, err
}

// Report is all there is to tell about a commit now. Reports of more than detailed applications come without targets.
func (s *Store) Report(ctx context.Context, tenant, source, commit string, detailed int) (report rollout.CommitReport, err error) {
	err = s.read(ctx, func(tx *tx) error {
		report = rollout.CommitReport{}
		var head, processed string
		err := tx.queryRow(ctx, `SELECT head, processed FROM sources WHERE tenant_id = ? AND name = ?`, tenant, source).Scan(&head, &processed)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		report.Taken = head != commit || processed == commit
		found, err := tx.reportDeployments(ctx, tenant, source, commit)
		if err != nil {
			return err
		}
		if err := tx.reportFiles(ctx, tenant, source, commit, found); err != nil {
			return err
		}
		for _, application := range found {
			if len(found) <= detailed && application.Deployment != "" {
				if application.Targets, err = tx.reportTargets(ctx, application.Deployment); err != nil {
					return err
				}
			}
			report.Applications = append(report.Applications, *application)
		}
		slices.SortFunc(report.Applications, func(a, b rollout.ApplicationReport) int {
			return strings.Compare(a.Application+"\x00"+a.Path, b.Application+"\x00"+b.Path)
		})
		return nil
	})
	return report, err
}

// reportDeployments finds the newest deployment of each application that a commit started, by application.
func (tx *tx) reportDeployments(ctx context.Context, tenant, source, commit string) (map[string]*rollout.ApplicationReport, error) {
	rows, err := tx.query(ctx, `SELECT application, path, id, number, state, why FROM deployments WHERE tenant_id = ? AND source = ? AND commit_id = ? ORDER BY number`, tenant, source, commit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := map[string]*rollout.ApplicationReport{}
	for rows.Next() {
		a := &rollout.ApplicationReport{}
		if err := rows.Scan(&a.Application, &a.Path, &a.Deployment, &a.Number, &a.State, &a.Why); err != nil {
			return nil, err
		}
		found[a.Application] = a
	}
	return found, rows.Err()
}

// reportFiles adds the files that a commit touched without starting anything: those that are refused, and those that mean the same as before.
func (tx *tx) reportFiles(ctx context.Context, tenant, source, commit string, found map[string]*rollout.ApplicationReport) error {
	rows, err := tx.query(ctx, `SELECT path, application, problems FROM files WHERE tenant_id = ? AND source = ? AND commit_id = ?`, tenant, source, commit)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		a := &rollout.ApplicationReport{}
		var problems string
		if err := rows.Scan(&a.Path, &a.Application, &problems); err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(problems), &a.Problems); err != nil {
			return err
		}
		refused := rollout.HasErrors(a.Problems)
		switch known := found[a.Application]; {
		case known == nil && a.Application != "":
			found[a.Application] = a
		case refused: // a second file of the application, or one whose application cannot be read
			found["\x00"+a.Path] = a
		}
	}
	return rows.Err()
}

func (tx *tx) reportTargets(ctx context.Context, deployment string) ([]rollout.TargetReport, error) {
	views, err := tx.targetViews(ctx, deployment)
	reports := make([]rollout.TargetReport, len(views))
	for i, v := range views {
		reports[i] = rollout.TargetReport{Name: v.Name, Digest: v.Digest, Removes: v.Removes, State: v.State, Why: v.Why, Waits: v.Waits}
	}
	if err != nil {
		return nil, err
	}
	return reports, tx.reportDrift(ctx, deployment, reports)
}

// reportDrift adds what differs to the targets that are held to what this deployment brought about.
func (tx *tx) reportDrift(ctx context.Context, deployment string, reports []rollout.TargetReport) error {
	return tx.each(ctx, `SELECT l.target, l.good, f.data FROM drift f JOIN lanes l ON l.id = f.lane_id JOIN targets t ON t.lane_id = l.id AND t.deployment_id = ?
		ORDER BY f.api_group, f.kind, f.namespace, f.name`, func(scan func(...any) error) error {
		var name string
		var text, data sql.NullString
		if err := scan(&name, &text, &data); err != nil {
			return err
		}
		good, err := fromText[rollout.Release](text)
		if err != nil || good == nil || good.Deployment != deployment {
			return err
		}
		d, err := fromText[rollout.Drift](data)
		if err != nil {
			return err
		}
		for i := range reports {
			if reports[i].Name == name {
				reports[i].Drift = append(reports[i].Drift, *d)
			}
		}
		return nil
	}, deployment)
}
