package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"towpath/reconcile/rollout"
)

// Source is how far a source's commits were taken in; the zero value for one that was never seen.
func (s *Store) Source(ctx context.Context, tenant, source string) (state rollout.SourceState, err error) {
	err = s.read(ctx, func(tx *tx) error {
		err := tx.queryRow(ctx, `SELECT head, processed, terms FROM sources WHERE tenant_id = ? AND name = ?`, tenant, source).Scan(&state.Head, &state.Processed, &state.Terms)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return state, err
}

// SourceSeen records what a fetch came to: a head, or why it failed and since when it fails. Seeing the same again writes nothing.
func (s *Store) SourceSeen(ctx context.Context, tenant, source, head string, failed error) error {
	failure := ""
	if failed != nil {
		failure = failed.Error()
	}
	var same int
	err := s.read(ctx, func(tx *tx) error {
		return tx.queryRow(ctx, `SELECT COUNT(*) FROM sources WHERE tenant_id = ? AND name = ? AND failure = ? AND (? <> '' OR head = ?)`,
			tenant, source, failure, failure, head).Scan(&same)
	})
	if err != nil || same > 0 {
		return err
	}
	return s.write(ctx, "source.seen", func(tx *tx) error {
		var was string
		err := tx.queryRow(ctx, `SELECT failure FROM sources WHERE tenant_id = ? AND name = ?`, tenant, source).Scan(&was)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if err := tx.turned(ctx, tenant, source, was, failure); err != nil {
			return err
		}
		now := micros(tx.now())
		if failed != nil {
			_, err := tx.exec(ctx, `INSERT INTO sources (tenant_id, name, seen_at, failed_since, failure) VALUES (?, ?, ?, ?, ?)
				ON CONFLICT (tenant_id, name) DO UPDATE SET seen_at = excluded.seen_at, failed_since = COALESCE(sources.failed_since, excluded.failed_since), failure = excluded.failure`,
				tenant, source, now, now, failure)
			return err
		}
		_, err = tx.exec(ctx, `INSERT INTO sources (tenant_id, name, head, seen_at) VALUES (?, ?, ?, ?)
			ON CONFLICT (tenant_id, name) DO UPDATE SET head = excluded.head, seen_at = excluded.seen_at, failed_since = NULL, failure = ''`, tenant, source, head, now)
		return err
	})
}

// turned writes into history that a source fails from now on, or no longer does. Failing for another reason is no other state.
func (tx *tx) turned(ctx context.Context, tenant, source, was, is string) error {
	switch {
	case was == "" && is != "":
		return tx.event(ctx, rollout.Event{At: tx.now(), Tenant: tenant, Who: "towpath", Kind: "source.failing", What: "source " + source + " cannot be fetched", Why: is})
	case was != "" && is == "":
		return tx.event(ctx, rollout.Event{At: tx.now(), Tenant: tenant, Who: "towpath", Kind: "source.recovered", What: "source " + source + " can be fetched again"})
	}
	return nil
}

// SourceProcessed records that each file of a commit is recorded, as the source's terms have it.
func (s *Store) SourceProcessed(ctx context.Context, tenant, source, commit, terms string) error {
	return s.write(ctx, "source.processed", func(tx *tx) error {
		_, err := tx.exec(ctx, `INSERT INTO sources (tenant_id, name, processed, terms) VALUES (?, ?, ?, ?)
			ON CONFLICT (tenant_id, name) DO UPDATE SET processed = excluded.processed, terms = excluded.terms`, tenant, source, commit, terms)
		if err != nil {
			return err
		}
		return tx.tellAgain(ctx, tenant, source, commit)
	})
}

// WakeSource makes a source be fetched, now.
func (s *Store) WakeSource(ctx context.Context, source string) error {
	return s.write(ctx, "source.wake", func(tx *tx) error { return tx.wake(ctx, JobSource, source) })
}

// SourceView is a source as people see it.
type SourceView struct {
	Tenant, Name, Head, Processed, Failure string
	FailedSince, SeenAt                    time.Time // zero: it does not fail, was never seen
	Untold                                 Untold
}

// Sources lists the sources of a tenant that were ever fetched.
func (s *Store) Sources(ctx context.Context, tenant string) (sources []SourceView, err error) {
	err = s.read(ctx, func(tx *tx) error {
		sources = nil
		rows, err := tx.query(ctx, `SELECT name, head, processed, failure, failed_since, seen_at FROM sources WHERE tenant_id = ? ORDER BY name`, tenant)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			v := SourceView{Tenant: tenant}
			var failed, seen sql.NullInt64
			if err := rows.Scan(&v.Name, &v.Head, &v.Processed, &v.Failure, &failed, &seen); err != nil {
				return err
			}
			v.FailedSince, v.SeenAt = nullTime(failed), nullTime(seen)
			sources = append(sources, v)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return err
		}
		for i := range sources {
			if sources[i].Untold, err = tx.untold(ctx, sources[i].Name); err != nil {
				return err
			}
		}
		return nil
	})
	return sources, err
}

func (tx *tx) recordRender(ctx context.Context, tenant string, r rollout.RenderRecord) error {
	if r.Source == "" {
		return nil // of an upload: nothing will change under it
	}
	problems, err := json.Marshal(r.Problems)
	if err != nil {
		return err
	}
	trace := r.Trace
	if trace == nil {
		trace = []byte{}
	}
	_, err = tx.exec(ctx, `INSERT INTO renders (tenant_id, source, path, target, manifests, trace, problems) VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (tenant_id, source, path, target) DO UPDATE SET manifests = excluded.manifests, trace = excluded.trace, problems = excluded.problems`,
		tenant, r.Source, r.Path, r.Target, r.Manifests, trace, string(problems))
	return err
}

// Renders is the recorded renders of a source, without their objects.
func (s *Store) Renders(ctx context.Context, tenant, source string) (records []rollout.RenderRecord, err error) {
	err = s.read(ctx, func(tx *tx) error {
		records = nil
		rows, err := tx.query(ctx, `SELECT path, target, manifests, trace, problems FROM renders WHERE tenant_id = ? AND source = ? ORDER BY path, target`, tenant, source)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			r := rollout.RenderRecord{Source: source}
			var problems string
			if err := rows.Scan(&r.Path, &r.Target, &r.Manifests, &r.Trace, &problems); err != nil {
				return err
			}
			if problems != "null" {
				if err := json.Unmarshal([]byte(problems), &r.Problems); err != nil {
					return err
				}
			}
			records = append(records, r)
		}
		return rows.Err()
	})
	return records, err
}
