package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"towpath/reconcile/rollout"
)

// proposalsKept is how long what was merged, or given up, is remembered.
const proposalsKept = 90 * 24 * time.Hour

// proposalSubject is what a proposal is called, here and in the outbox.
func proposalSubject(n rollout.ProposalName) string {
	if n.Group != "" {
		return fmt.Sprintf("group/%s/%s/%s", n.Tenant, n.Source, n.Group)
	}
	return fmt.Sprintf("pull/%s/%s/%d", n.Tenant, n.Source, n.Pull)
}

// proposalName is whose subject it is.
func proposalName(subject string) (n rollout.ProposalName, err error) {
	parts := strings.SplitN(subject, "/", 4)
	if len(parts) == 4 {
		n.Tenant, n.Source = parts[1], parts[2]
		switch parts[0] {
		case "pull":
			n.Pull, err = strconv.Atoi(parts[3])
			return n, err
		case "group":
			n.Group = parts[3]
			return n, nil
		}
	}
	return n, fmt.Errorf("%q is no subject of a proposal that this version can read", subject)
}

// LookAtProposals has proposals looked at, now.
func (s *Store) LookAtProposals(ctx context.Context, looks ...rollout.ProposalLook) error {
	return s.write(ctx, "proposals.look", func(tx *tx) error { return tx.lookAtProposals(ctx, looks) })
}

func (tx *tx) lookAtProposals(ctx context.Context, looks []rollout.ProposalLook) error {
	for _, n := range looks {
		subject := proposalSubject(n.ProposalName)
		if _, err := tx.exec(ctx, `INSERT INTO proposals (subject, tenant_id, source, wanted_seq, seen_seq, basis, state, closed, merged, at, report) VALUES (?, ?, ?, 1, 0, '', ?, ?, '', ?, '{}')
			ON CONFLICT (subject) DO UPDATE SET wanted_seq = proposals.wanted_seq + 1, closed = excluded.closed, basis = CASE WHEN ? = 1 THEN '' ELSE proposals.basis END`,
			subject, n.Tenant, n.Source, string(rollout.PlanAsked), truth(n.Gone), micros(tx.now()), truth(n.Anew)); err != nil {
			return err
		}
		if n.Named != "" {
			if _, err := tx.exec(ctx, `UPDATE proposals SET named = ? WHERE subject = ?`, n.Named, subject); err != nil {
				return err
			}
		}
		if err := tx.wake(ctx, JobProposal, subject); err != nil {
			return err
		}
	}
	return nil
}

// Proposal is a proposal as it was last recorded, by its subject; the zero value where nobody ever heard of it.
func (s *Store) Proposal(ctx context.Context, subject string) (k rollout.KnownProposal, err error) {
	err = s.read(ctx, func(tx *tx) error {
		row := tx.queryRow(ctx, `SELECT subject, wanted_seq, seen_seq, closed, basis, named, report FROM proposals WHERE subject = ?`, subject)
		if k, err = scanProposal(row.Scan); errors.Is(err, sql.ErrNoRows) {
			k, err = rollout.KnownProposal{}, nil
		}
		return err
	})
	return k, err
}

// RecordProposal records what became known of a proposal up to a look, and has it told. What a later look recorded stays.
func (s *Store) RecordProposal(ctx context.Context, k rollout.KnownProposal) error {
	k.Report.At = s.clock().UTC()
	text, err := json.Marshal(k.Report)
	if err != nil {
		return err
	}
	subject := proposalSubject(k.Name)
	return s.write(ctx, "proposals.record", func(tx *tx) error {
		now := tx.now()
		if _, err := tx.exec(ctx, `DELETE FROM proposals WHERE source = ? AND closed = 1 AND at < ?`, k.Name.Source, micros(now.Add(-proposalsKept))); err != nil {
			return err
		}
		result, err := tx.exec(ctx, `UPDATE proposals SET seen_seq = ?, basis = ?, state = ?, closed = ?, merged = ?, at = ?, report = ? WHERE subject = ? AND seen_seq <= ?`,
			k.Seen, k.Basis, string(k.Report.State), truth(k.Report.Closed), k.Report.Merged, micros(now), string(text), subject, k.Seen)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return err
		}
		return tx.tellSubject(ctx, k.Name.Source, subject)
	})
}

// RecoverProposals has those looked at that somebody wanted to be, before the process died that was to do it.
func (s *Store) RecoverProposals(ctx context.Context) error {
	return s.write(ctx, "proposals.recover", func(tx *tx) error {
		return tx.each(ctx, `SELECT subject FROM proposals WHERE wanted_seq > seen_seq`, func(scan func(...any) error) error {
			var subject string
			if err := scan(&subject); err != nil {
				return err
			}
			return tx.wake(ctx, JobProposal, subject)
		})
	})
}

// OpenProposals are the proposals of a source, or, where none is named, of all sources of a tenant, that are not known to be closed, those first that were looked at longest ago.
func (s *Store) OpenProposals(ctx context.Context, tenant, source string) (open []rollout.KnownProposal, err error) {
	err = s.read(ctx, func(tx *tx) error {
		open = nil
		return tx.each(ctx, `SELECT subject, wanted_seq, seen_seq, closed, basis, named, report FROM proposals
			WHERE tenant_id = ? AND (? = '' OR source = ?) AND closed = 0 ORDER BY at, subject`,
			func(scan func(...any) error) error {
				k, err := scanProposal(scan)
				open = append(open, k)
				return err
			}, tenant, source, source)
	})
	return open, err
}

func scanProposal(scan func(...any) error) (k rollout.KnownProposal, err error) {
	var subject, named, text string
	var closed int
	if err := scan(&subject, &k.Wanted, &k.Seen, &closed, &k.Basis, &named, &text); err != nil {
		return k, err
	}
	k.Gone = closed != 0
	if k.Name, err = proposalName(subject); err != nil {
		return k, err
	}
	err = json.Unmarshal([]byte(text), &k.Report)
	k.Report.Named = named // a look that was under way when somebody named it does not know
	return k, err
}

// tellMerged tells about the proposals that became a commit.
func (tx *tx) tellMerged(ctx context.Context, source, commit string) error {
	var subjects []string
	err := tx.each(ctx, `SELECT subject FROM proposals WHERE source = ? AND merged = ? AND merged <> ''`, func(scan func(...any) error) error {
		var subject string
		err := scan(&subject)
		subjects = append(subjects, subject)
		return err
	}, source, commit)
	for _, subject := range subjects {
		err = errors.Join(err, tx.tellSubject(ctx, source, subject))
	}
	return err
}

// ProposalReport is all there is to tell about the proposal of a message, with what became of it since it was merged. What more than detailed applications did
// comes without their targets.
func (s *Store) ProposalReport(ctx context.Context, m rollout.Message, detailed int) (rollout.ProposalReport, error) {
	k, err := s.Proposal(ctx, messageSubject(m))
	if err == nil {
		err = s.read(ctx, func(tx *tx) error {
			k.Report.Replies, err = tx.replies(ctx, messageSubject(m))
			return err
		})
	}
	if err != nil || k.Report.Merged == "" {
		return k.Report, err
	}
	progress, err := s.Report(ctx, m.Tenant, m.Source, k.Report.Merged, detailed)
	k.Report.Progress = &progress
	return k.Report, err
}
