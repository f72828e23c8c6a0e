package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"towpath/reconcile/rollout"
)

// PolicyFiles is what is recorded of a source's policy files; the zero value where none were ever read.
func (s *Store) PolicyFiles(ctx context.Context, tenant, source string) (p rollout.PolicyFiles, err error) {
	err = s.read(ctx, func(tx *tx) error {
		p, err = tx.policyFiles(ctx, tenant, source)
		return err
	})
	return p, err
}

func (tx *tx) policyFiles(ctx context.Context, tenant, source string) (p rollout.PolicyFiles, err error) {
	var files, problems string
	err = tx.queryRow(ctx, `SELECT commit_id, files, digest, seen, problems FROM policy_files WHERE tenant_id = ? AND source = ?`, tenant, source).
		Scan(&p.Commit, &files, &p.Digest, &p.Seen, &problems)
	if errors.Is(err, sql.ErrNoRows) {
		return p, nil
	}
	if err != nil {
		return p, err
	}
	return p, errors.Join(json.Unmarshal([]byte(files), &p.Files), json.Unmarshal([]byte(problems), &p.Problems))
}

// PolicyDigest is the digest of a source's policy files in force; "": none were good yet.
func (s *Store) PolicyDigest(ctx context.Context, tenant, source string) (digest string, err error) {
	err = s.read(ctx, func(tx *tx) error {
		digest = ""
		err := tx.queryRow(ctx, `SELECT digest FROM policy_files WHERE tenant_id = ? AND source = ?`, tenant, source).Scan(&digest)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return digest, err
}

// RecordPolicyFiles records what was read of a source's policy files, and that rules came into force or were refused.
func (s *Store) RecordPolicyFiles(ctx context.Context, tenant, source string, p rollout.PolicyFiles) error {
	files, err := json.Marshal(p.Files)
	if err != nil {
		return err
	}
	problems, err := json.Marshal(p.Problems)
	if err != nil {
		return err
	}
	return s.write(ctx, "policies", func(tx *tx) error {
		was, err := tx.policyFiles(ctx, tenant, source)
		if err != nil {
			return err
		}
		e := rollout.Event{At: tx.now(), Tenant: tenant, Who: "towpath"}
		switch {
		case was.Digest != p.Digest:
			e.Kind, e.What = "policies.changed", fmt.Sprintf("the rules of source %s at %.12s are in force", source, p.Commit)
		case len(p.Problems) > 0 && was.Seen != p.Seen:
			e.Kind, e.What, e.Why = "policies.refused", fmt.Sprintf("the policy files of source %s at %.12s are refused", source, p.Seen), p.Problems[0].Text
		}
		if e.Kind != "" {
			if err := tx.event(ctx, e); err != nil {
				return err
			}
		}
		_, err = tx.exec(ctx, `INSERT INTO policy_files (tenant_id, source, commit_id, files, digest, seen, problems) VALUES (?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (tenant_id, source) DO UPDATE SET commit_id = excluded.commit_id, files = excluded.files, digest = excluded.digest, seen = excluded.seen, problems = excluded.problems`,
			tenant, source, p.Commit, string(files), p.Digest, p.Seen, string(problems))
		return err
	})
}
