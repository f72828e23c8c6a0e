package store

import (
	"context"
	"time"
)

// dirty marks a subject as one about which something new is to be told. What is told is computed when it is sent, so many changes are one message.
func (tx *tx) dirty(ctx context.Context, subject string) error {
	_, err := tx.exec(ctx, `INSERT INTO outbox (subject, dirty_seq, sent_seq, next_at, tries, failure, parked) VALUES (?, 1, 0, 0, 0, '', 0)
		ON CONFLICT (subject) DO UPDATE SET dirty_seq = outbox.dirty_seq + 1, parked = 0, next_at = CASE WHEN outbox.tries > 0 THEN outbox.next_at ELSE 0 END`, subject)
	if err != nil {
		return err
	}
	return tx.wake(ctx, JobOutbox, "")
}

// Message is a subject about which something is to be told.
type Message struct {
	Subject string
	Seq     int64 // of the newest change
	Tries   int   // that failed in a row
}

// Due lists subjects to be told about now, those that waited longest first, and when the next one is due (zero: none).
func (s *Store) Due(ctx context.Context, now time.Time, limit int) (messages []Message, next time.Time, err error) {
	err = s.read(ctx, func(tx *tx) error {
		messages, next = nil, time.Time{}
		rows, err := tx.query(ctx, `SELECT subject, dirty_seq, tries, next_at FROM outbox WHERE dirty_seq > sent_seq AND parked = 0 ORDER BY next_at, subject LIMIT ?`, limit+1)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var m Message
			var at int64
			if err := rows.Scan(&m.Subject, &m.Seq, &m.Tries, &at); err != nil {
				return err
			}
			if at > micros(now) || len(messages) == limit {
				next = fromMicros(max(at, micros(now)))
				break
			}
			messages = append(messages, m)
		}
		return rows.Err()
	})
	return messages, next, err
}

// Told records that all up to a change of a subject was told.
func (s *Store) Told(ctx context.Context, m Message) error {
	return s.write(ctx, "outbox.told", func(tx *tx) error {
		_, err := tx.exec(ctx, `UPDATE outbox SET sent_seq = ?, tries = 0, failure = '', next_at = 0 WHERE subject = ? AND sent_seq < ?`, m.Seq, m.Subject, m.Seq)
		return err
	})
}

// TellLater records why telling failed and when it is tried again.
func (s *Store) TellLater(ctx context.Context, m Message, at time.Time, why string) error {
	return s.write(ctx, "outbox.later", func(tx *tx) error {
		_, err := tx.exec(ctx, `UPDATE outbox SET tries = tries + 1, failure = ?, next_at = ? WHERE subject = ?`, why, micros(at), m.Subject)
		return err
	})
}

// Park records that telling was refused for good; the next change of the subject tries again.
func (s *Store) Park(ctx context.Context, m Message, why string) error {
	return s.write(ctx, "outbox.park", func(tx *tx) error {
		_, err := tx.exec(ctx, `UPDATE outbox SET parked = 1, failure = ? WHERE subject = ? AND dirty_seq = ?`, why, m.Subject, m.Seq)
		return err
	})
}

// Publication is what was last sent of one object outside: a status, say.
type Publication struct {
	Hash     string // of what was sent
	External string // the id that the outside gave it
	At       time.Time
	Count    int // how often it was sent
}

// Published is what was last sent of each object of a subject.
func (s *Store) Published(ctx context.Context, subject string) (published map[string]Publication, err error) {
	err = s.read(ctx, func(tx *tx) error {
		published = map[string]Publication{}
		rows, err := tx.query(ctx, `SELECT object, hash, external, at, count FROM published WHERE subject = ?`, subject)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var object string
			var p Publication
			var at int64
			if err := rows.Scan(&object, &p.Hash, &p.External, &at, &p.Count); err != nil {
				return err
			}
			p.At = fromMicros(at)
			published[object] = p
		}
		return rows.Err()
	})
	return published, err
}

// Publish records what was sent of an object.
func (s *Store) Publish(ctx context.Context, subject, object string, p Publication) error {
	return s.write(ctx, "outbox.published", func(tx *tx) error {
		_, err := tx.exec(ctx, `INSERT INTO published (subject, object, hash, external, at, count) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (subject, object) DO UPDATE SET hash = excluded.hash, external = excluded.external, at = excluded.at, count = excluded.count`,
			subject, object, p.Hash, p.External, micros(p.At), p.Count)
		return err
	})
}
