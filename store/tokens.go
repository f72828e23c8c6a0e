package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"towpath/reconcile/rollout"
)

// Token is an API token: who it speaks for, and what it may do. The secret itself is known only to who made it.
type Token struct {
	ID      string
	Tenant  string
	Name    string // what events call it
	Grants  []string
	Roles   []string
	Created time.Time
	Expires time.Time // zero: never
}

// ErrNoToken says that a secret belongs to no token, or to one that expired or was revoked.
var ErrNoToken = errors.New("the token is not known, has expired or was revoked")

// CreateToken makes a token and returns its secret, once.
func (s *Store) CreateToken(ctx context.Context, t Token) (secret string, err error) {
	random := make([]byte, 32)
	rand.Read(random)
	secret = "twp_" + base64.RawURLEncoding.EncodeToString(random)
	id := make([]byte, 6)
	rand.Read(id)
	grants, err := json.Marshal(t.Grants)
	if err != nil {
		return "", err
	}
	roles, err := json.Marshal(t.Roles)
	if err != nil {
		return "", err
	}
	err = s.write(ctx, "token.create", func(tx *tx) error {
		if _, err := tx.exec(ctx, `INSERT INTO tokens (hash, id, tenant_id, name, grants, roles, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			tokenHash(secret), hex.EncodeToString(id), t.Tenant, t.Name, string(grants), string(roles), micros(tx.now()), nullMicros(t.Expires)); err != nil {
			return err
		}
		return tx.event(ctx, rollout.Event{At: tx.now(), Tenant: t.Tenant, Who: "towpath-controller", Kind: "token.created",
			What: fmt.Sprintf("token %s was made, with the grants %v and the roles %v", t.Name, t.Grants, t.Roles)})
	})
	return secret, err
}

// tokenHash is what is kept of a secret. It has 256 random bits, so there is nothing to guess and no need to be slow.
func tokenHash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// Token is the token of a secret; ErrNoToken when there is none that holds now.
func (s *Store) Token(ctx context.Context, secret string) (t Token, err error) {
	err = s.read(ctx, func(tx *tx) error {
		var grants, roles string
		var created int64
		var expires, revoked sql.NullInt64
		err := tx.queryRow(ctx, `SELECT id, tenant_id, name, grants, roles, created_at, expires_at, revoked_at FROM tokens WHERE hash = ?`, tokenHash(secret)).
			Scan(&t.ID, &t.Tenant, &t.Name, &grants, &roles, &created, &expires, &revoked)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return ErrNoToken
		case err != nil:
			return err
		}
		t.Created, t.Expires = fromMicros(created), nullTime(expires)
		if revoked.Valid || expires.Valid && !tx.now().Before(t.Expires) {
			return ErrNoToken
		}
		return errors.Join(json.Unmarshal([]byte(grants), &t.Grants), json.Unmarshal([]byte(roles), &t.Roles))
	})
	return t, err
}

// RevokeToken ends a token, by its id.
func (s *Store) RevokeToken(ctx context.Context, id string) error {
	return s.write(ctx, "token.revoke", func(tx *tx) error {
		return tx.one(ctx, ErrNoToken, `UPDATE tokens SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL`, micros(tx.now()), id)
	})
}

// Agent is whose identity serves an account.
type Agent struct {
	Tenant, Name    string
	Issuer, Subject string
	Created         time.Time
}

// ErrNoAgent says that an identity belongs to no agent.
var ErrNoAgent = errors.New("this identity belongs to no agent; towpath agent create makes one")

// AddAgent records the identity of an agent. An agent may have several, while one is replaced by another.
func (s *Store) AddAgent(ctx context.Context, a Agent, by string) error {
	return s.write(ctx, "agent.add", func(tx *tx) error {
		if _, err := tx.exec(ctx, `INSERT INTO agents (tenant_id, name, issuer, subject, created_at) VALUES (?, ?, ?, ?, ?)`, a.Tenant, a.Name, a.Issuer, a.Subject, micros(tx.now())); err != nil {
			return err
		}
		return tx.event(ctx, rollout.Event{At: tx.now(), Tenant: a.Tenant, Who: by, Kind: "agent.created", What: fmt.Sprintf("agent %s was given the identity %s", a.Name, a.Subject)})
	})
}

// AgentOf is the agent of an identity; ErrNoAgent when there is none.
func (s *Store) AgentOf(ctx context.Context, issuer, subject string) (a Agent, err error) {
	err = s.read(ctx, func(tx *tx) error {
		a = Agent{Issuer: issuer, Subject: subject}
		var created int64
		err := tx.queryRow(ctx, `SELECT tenant_id, name, created_at FROM agents WHERE issuer = ? AND subject = ?`, issuer, subject).Scan(&a.Tenant, &a.Name, &created)
		a.Created = fromMicros(created)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNoAgent
		}
		return err
	})
	return a, err
}

// Agents lists the agents of a tenant, by name.
func (s *Store) Agents(ctx context.Context, tenant string) (agents []Agent, err error) {
	err = s.read(ctx, func(tx *tx) error {
		agents = nil
		rows, err := tx.query(ctx, `SELECT name, issuer, subject, created_at FROM agents WHERE tenant_id = ? ORDER BY name, created_at`, tenant)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			a := Agent{Tenant: tenant}
			var created int64
			if err := rows.Scan(&a.Name, &a.Issuer, &a.Subject, &created); err != nil {
				return err
			}
			a.Created = fromMicros(created)
			agents = append(agents, a)
		}
		return rows.Err()
	})
	return agents, err
}
