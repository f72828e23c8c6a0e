package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"towpath/reconcile/rollout"
)

const (
	// commentsKept is how long it is remembered that a comment was answered: longer than GitHub can deliver it again.
	commentsKept = 7 * 24 * time.Hour
	// maxReplies is how many of the newest answers below one pull request are told.
	maxReplies = 50
)

// hearOf records comments that are to be answered. One that was heard of before changes nothing, whatever hook it comes by.
func (tx *tx) hearOf(ctx context.Context, comments []rollout.Comment) error {
	for _, c := range comments {
		if _, err := tx.exec(ctx, `DELETE FROM comments WHERE source = ? AND answered = 1 AND heard_at < ?`, c.Pull.Source, micros(tx.now().Add(-commentsKept))); err != nil {
			return err
		}
		subject := proposalSubject(c.Pull)
		result, err := tx.exec(ctx, `INSERT INTO comments (source, comment_id, subject, body_sum, heard_at, next_at, tries, claimed_until, answered, reply) VALUES (?, ?, ?, ?, ?, 0, 0, 0, 0, '{}')
			ON CONFLICT (source, comment_id) DO NOTHING`, c.Pull.Source, c.ID, subject, c.Sum, micros(tx.now()))
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil {
			return err
		} else if n == 0 {
			continue
		}
		if err := tx.wake(ctx, JobComment, subject); err != nil {
			return err
		}
	}
	return nil
}

// ClaimComment takes the oldest comment below a pull request that is to be answered, for a while in which nobody else gets one of them: what is asked for is done
// in order, and one at a time. nil: none is, or not yet.
func (s *Store) ClaimComment(ctx context.Context, subject string, lasts time.Duration) (c *rollout.Comment, err error) {
	err = s.write(ctx, "comment.claim", func(tx *tx) error {
		c = nil
		now, until := micros(tx.now()), fromMicros(micros(tx.now().Add(lasts)))
		name, err := proposalName(subject)
		if err != nil {
			return err
		}
		var heard, next, claimed int64
		found := rollout.Comment{Pull: name, Until: until}
		err = tx.queryRow(ctx, `SELECT comment_id, body_sum, heard_at, tries, next_at, claimed_until FROM comments WHERE subject = ? AND answered = 0 ORDER BY comment_id LIMIT 1`, subject).
			Scan(&found.ID, &found.Sum, &heard, &found.Tries, &next, &claimed)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return nil
		case err != nil || next > now || claimed > now:
			return err
		}
		found.Heard = fromMicros(heard)
		result, err := tx.exec(ctx, `UPDATE comments SET claimed_until = ? WHERE source = ? AND comment_id = ? AND answered = 0 AND claimed_until = ?`, micros(until), name.Source, found.ID, claimed)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return err // somebody was faster
		}
		c = &found
		return nil
	})
	return c, err
}

// AnswerComment records the answer to a comment, and has it told; rollout.ErrStale when somebody else took it.
func (s *Store) AnswerComment(ctx context.Context, c rollout.Comment, reply rollout.Reply) error {
	text, err := json.Marshal(reply)
	if err != nil {
		return err
	}
	return s.write(ctx, "comment.answer", func(tx *tx) error {
		if err := tx.one(ctx, rollout.ErrStale, `UPDATE comments SET answered = 1, claimed_until = 0, reply = ? WHERE source = ? AND comment_id = ? AND claimed_until = ?`,
			string(text), c.Pull.Source, c.ID, micros(c.Until)); err != nil {
			return err
		}
		if len(reply.Signs) == 0 && reply.Text == "" {
			return nil
		}
		return tx.tellSubject(ctx, c.Pull.Source, proposalSubject(c.Pull))
	})
}

// AnswerLater gives a comment back that could not be answered yet; rollout.ErrStale when somebody else took it.
func (s *Store) AnswerLater(ctx context.Context, c rollout.Comment, at time.Time) error {
	return s.write(ctx, "comment.later", func(tx *tx) error {
		return tx.one(ctx, rollout.ErrStale, `UPDATE comments SET claimed_until = 0, tries = tries + 1, next_at = ? WHERE source = ? AND comment_id = ? AND claimed_until = ?`,
			micros(at), c.Pull.Source, c.ID, micros(c.Until))
	})
}

// RecoverComments frees comments that were being answered when the process died, where no other process can hold them (SQLite), and wakes who answers them.
func (s *Store) RecoverComments(ctx context.Context) error {
	return s.write(ctx, "comments.recover", func(tx *tx) error {
		if s.exclusive() {
			if _, err := tx.exec(ctx, `UPDATE comments SET claimed_until = 0 WHERE claimed_until > 0`); err != nil {
				return err
			}
		}
		return tx.wakeComments(ctx)
	})
}

// WakeComments has those answered whose time has come. Where there are none, as mostly, nothing is written.
func (s *Store) WakeComments(ctx context.Context) error {
	waiting := 0
	err := s.read(ctx, func(tx *tx) error {
		return tx.queryRow(ctx, `SELECT COUNT(*) FROM comments WHERE answered = 0`).Scan(&waiting)
	})
	if err != nil || waiting == 0 {
		return err
	}
	return s.write(ctx, "comments.wake", func(tx *tx) error { return tx.wakeComments(ctx) })
}

func (tx *tx) wakeComments(ctx context.Context) error {
	now := micros(tx.now())
	return tx.each(ctx, `SELECT DISTINCT subject FROM comments WHERE answered = 0 AND next_at <= ? AND claimed_until <= ?`, func(scan func(...any) error) error {
		var subject string
		if err := scan(&subject); err != nil {
			return err
		}
		return tx.wake(ctx, JobComment, subject)
	}, now, now)
}

// replies are the newest answers below a pull request, oldest first.
func (tx *tx) replies(ctx context.Context, subject string) (all []rollout.Replied, err error) {
	err = tx.each(ctx, `SELECT comment_id, reply FROM (SELECT comment_id, reply FROM comments WHERE subject = ? AND answered = 1 ORDER BY comment_id DESC LIMIT ?) newest ORDER BY comment_id`,
		func(scan func(...any) error) error {
			var one rollout.Replied
			var text string
			if err := scan(&one.Comment, &text); err != nil {
				return err
			}
			all = append(all, one)
			return json.Unmarshal([]byte(text), &all[len(all)-1].Reply)
		}, subject, maxReplies)
	return all, err
}
