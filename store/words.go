package store

import (
	"context"
	"time"

	"towpath/reconcile/rollout"
)

// Say records a person's word and wakes the lane. Saying the same twice, or under the same key, is saying it once.
func (s *Store) Say(ctx context.Context, said rollout.Saying) error {
	return s.write(ctx, "word", func(tx *tx) error {
		if first, err := tx.first(ctx, said.Key); err != nil || !first {
			return err
		}
		t, err := tx.find(ctx, said)
		if err != nil {
			return err
		}
		gates, err := said.Gates(t)
		if err != nil {
			return err
		}
		for _, gate := range gates {
			if err := tx.say(ctx, said, t, gate); err != nil {
				return err
			}
		}
		return tx.wakeLane(ctx, t.Lane)
	})
}

// saidKept is how long keys are remembered: longer than what has one is tried.
const saidKept = 7 * 24 * time.Hour

// first reports whether nothing was done under a key before, which something is by this transaction.
func (tx *tx) first(ctx context.Context, key string) (bool, error) {
	if key == "" {
		return true, nil
	}
	if _, err := tx.exec(ctx, `DELETE FROM said WHERE at < ?`, micros(tx.now().Add(-saidKept))); err != nil {
		return false, err
	}
	result, err := tx.exec(ctx, `INSERT INTO said (key, at) VALUES (?, ?) ON CONFLICT (key) DO NOTHING`, key, micros(tx.now()))
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

func (tx *tx) say(ctx context.Context, said rollout.Saying, t rollout.Target, gate string) error {
	before, err := tx.words(ctx, t.Deployment)
	if err != nil {
		return err
	}
	word, event := said.Word(t, gate, tx.now())
	if word.Repeats(before) {
		return nil
	}
	if _, err := tx.exec(ctx, `INSERT INTO words (tenant_id, deployment_id, target, gate, digest, verb, who, reason, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		said.Tenant, t.Deployment, word.Target, word.Gate, word.Digest, string(word.Verb), word.By, word.Reason, micros(word.At)); err != nil {
		return err
	}
	return tx.event(ctx, event)
}

// find is the target that a saying is about.
func (tx *tx) find(ctx context.Context, said rollout.Saying) (rollout.Target, error) {
	var known int
	if err := tx.queryRow(ctx, `SELECT COUNT(*) FROM deployments WHERE tenant_id = ? AND id = ?`, said.Tenant, said.Deployment).Scan(&known); err != nil {
		return rollout.Target{}, err
	}
	if known == 0 {
		return rollout.Target{}, rollout.Refuse(rollout.Missing, "no deployment %s", said.Deployment)
	}
	targets, err := tx.targets(ctx, said.Deployment)
	if err != nil {
		return rollout.Target{}, err
	}
	return said.Find(targets)
}

func (tx *tx) words(ctx context.Context, deployment string) ([]rollout.Word, error) {
	rows, err := tx.query(ctx, `SELECT target, gate, digest, verb, who, reason, at FROM words WHERE deployment_id = ? ORDER BY id`, deployment)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var words []rollout.Word
	for rows.Next() {
		var w rollout.Word
		var at int64
		if err := rows.Scan(&w.Target, &w.Gate, &w.Digest, &w.Verb, &w.By, &w.Reason, &at); err != nil {
			return nil, err
		}
		w.At = fromMicros(at)
		words = append(words, w)
	}
	return words, rows.Err()
}
