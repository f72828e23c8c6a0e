package store

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// ErrNotFound says that there is no row of that id; ErrConflict that it changed since it was read.
var (
	ErrNotFound = errors.New("not found")
	ErrConflict = errors.New("it was changed meanwhile")
)

// IssuerKey is a signing key of the built-in issuer. Private is sealed on its way into the database.
type IssuerKey struct {
	ID                                string
	Private                           []byte
	Created, Active, Retires, Expires time.Time
}

// IssuerKeys lists all signing keys.
func (s *Store) IssuerKeys(ctx context.Context) (keys []IssuerKey, err error) {
	err = s.read(ctx, func(tx *tx) error {
		keys = nil
		rows, err := tx.query(ctx, `SELECT id, private, created_at, active_at, retires_at, expires_at FROM issuer_keys ORDER BY created_at, id`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var k IssuerKey
			var created, active, retires, expires int64
			if err := rows.Scan(&k.ID, &k.Private, &created, &active, &retires, &expires); err != nil {
				return err
			}
			k.Created, k.Active, k.Retires, k.Expires = fromMicros(created), fromMicros(active), fromMicros(retires), fromMicros(expires)
			if k.Private, err = s.seals.open("issuer key "+k.ID, k.Private); err != nil {
				return err
			}
			keys = append(keys, k)
		}
		return rows.Err()
	})
	return keys, err
}

// SaveIssuerKey adds a key; one of the same id stays as it is.
func (s *Store) SaveIssuerKey(ctx context.Context, k IssuerKey) error {
	return s.write(ctx, "issuer.key", func(tx *tx) error {
		_, err := tx.exec(ctx, `INSERT INTO issuer_keys (id, private, created_at, active_at, retires_at, expires_at) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`,
			k.ID, s.seals.seal("issuer key "+k.ID, k.Private), micros(k.Created), micros(k.Active), micros(k.Retires), micros(k.Expires))
		return err
	})
}

// DeleteIssuerKey removes a key; one that is not there is no error.
func (s *Store) DeleteIssuerKey(ctx context.Context, id string) error {
	return s.write(ctx, "issuer.key", func(tx *tx) error {
		_, err := tx.exec(ctx, `DELETE FROM issuer_keys WHERE id = ?`, id)
		return err
	})
}

// IssuerClient reads what the issuer keeps of a client, and its version.
func (s *Store) IssuerClient(ctx context.Context, id string) (data string, version int64, err error) {
	err = s.read(ctx, func(tx *tx) error {
		err := tx.queryRow(ctx, `SELECT data, version FROM issuer_clients WHERE id = ?`, id).Scan(&data, &version)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNotFound
		}
		return err
	})
	return data, version, err
}

// SaveIssuerClient adds a client whose version is 0, or changes one whose version is still the same; else ErrConflict.
func (s *Store) SaveIssuerClient(ctx context.Context, id, data string, version int64) error {
	return s.write(ctx, "issuer.client", func(tx *tx) error {
		if version == 0 {
			return tx.one(ctx, ErrConflict, `INSERT INTO issuer_clients (id, data, version) VALUES (?, ?, 1) ON CONFLICT (id) DO NOTHING`, id, data)
		}
		return tx.one(ctx, ErrConflict, `UPDATE issuer_clients SET data = ?, version = version + 1 WHERE id = ? AND version = ?`, data, id, version)
	})
}
