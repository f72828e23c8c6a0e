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
	Revoked time.Time // zero: not
}

// ErrNoToken says that a secret belongs to no token, or to one that expired or was revoked.
var ErrNoToken = errors.New("the token is not known, has expired or was revoked")

// CreateToken makes a token and returns its id, and its secret, once.
func (s *Store) CreateToken(ctx context.Context, t Token) (id, secret string, err error) {
	random := make([]byte, 32)
	rand.Read(random)
	secret = "twp_" + base64.RawURLEncoding.EncodeToString(random)
	own := make([]byte, 6)
	rand.Read(own)
	id = hex.EncodeToString(own)
	grants, err := json.Marshal(t.Grants)
	if err != nil {
		return "", "", err
	}
	roles, err := json.Marshal(t.Roles)
	if err != nil {
		return "", "", err
	}
	err = s.write(ctx, "token.create", func(tx *tx) error {
		if _, err := tx.exec(ctx, `INSERT INTO tokens (hash, id, tenant_id, name, grants, roles, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			tokenHash(secret), id, t.Tenant, t.Name, string(grants), string(roles), micros(tx.now()), nullMicros(t.Expires)); err != nil {
			return err
		}
		return tx.event(ctx, rollout.Event{At: tx.now(), Tenant: t.Tenant, Who: "towpath-controller", Kind: "token.created",
			What: fmt.Sprintf("token %s was made, with the grants %v and the roles %v", t.Name, t.Grants, t.Roles)})
	})
	return id, secret, err
}

// tokenHash is what is kept of a secret. It has 256 random bits, so there is nothing to guess and no need to be slow.
func tokenHash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

func (t Token) ended(now time.Time) bool {
	return !t.Revoked.IsZero() || !t.Expires.IsZero() && !now.Before(t.Expires)
}

// Token is the token of a secret; ErrNoToken when there is none that holds now.
func (s *Store) Token(ctx context.Context, secret string) (t Token, err error) {
	err = s.read(ctx, func(tx *tx) error {
		t, err = scanToken(tx.queryRow(ctx, `SELECT id, tenant_id, name, grants, roles, created_at, expires_at, revoked_at FROM tokens WHERE hash = ?`, tokenHash(secret)).Scan)
		if errors.Is(err, sql.ErrNoRows) || err == nil && t.ended(tx.now()) {
			return ErrNoToken
		}
		return err
	})
	return t, err
}

// TokenOf is the token of an id, with the SHA-256 of its secret; ErrNoToken when there is none that holds now.
func (s *Store) TokenOf(ctx context.Context, id string) (t Token, hash []byte, err error) {
	err = s.read(ctx, func(tx *tx) error {
		var text string
		if err := tx.queryRow(ctx, `SELECT hash FROM tokens WHERE id = ?`, id).Scan(&text); errors.Is(err, sql.ErrNoRows) {
			return ErrNoToken
		} else if err != nil {
			return err
		}
		if hash, err = hex.DecodeString(text); err != nil {
			return err
		}
		t, err = scanToken(tx.queryRow(ctx, `SELECT id, tenant_id, name, grants, roles, created_at, expires_at, revoked_at FROM tokens WHERE id = ?`, id).Scan)
		if err == nil && t.ended(tx.now()) {
			return ErrNoToken
		}
		return err
	})
	return t, hash, err
}

// Tokens lists all tokens by tenant and age, those that ended too.
func (s *Store) Tokens(ctx context.Context) (tokens []Token, err error) {
	err = s.read(ctx, func(tx *tx) error {
		tokens = nil
		rows, err := tx.query(ctx, `SELECT id, tenant_id, name, grants, roles, created_at, expires_at, revoked_at FROM tokens ORDER BY tenant_id, created_at, id`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			t, err := scanToken(rows.Scan)
			if err != nil {
				return err
			}
			tokens = append(tokens, t)
		}
		return rows.Err()
	})
	return tokens, err
}

func scanToken(scan func(...any) error) (t Token, err error) {
	var grants, roles string
	var created int64
	var expires, revoked sql.NullInt64
	if err := scan(&t.ID, &t.Tenant, &t.Name, &grants, &roles, &created, &expires, &revoked); err != nil {
		return t, err
	}
	t.Created, t.Expires, t.Revoked = fromMicros(created), nullTime(expires), nullTime(revoked)
	return t, errors.Join(json.Unmarshal([]byte(grants), &t.Grants), json.Unmarshal([]byte(roles), &t.Roles))
}

// RevokeToken ends a token, by its id; a *rollout.Refusal when there is none that could be.
func (s *Store) RevokeToken(ctx context.Context, id string) error {
	return s.write(ctx, "token.revoke", func(tx *tx) error {
		t, err := scanToken(tx.queryRow(ctx, `UPDATE tokens SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL
			RETURNING id, tenant_id, name, grants, roles, created_at, expires_at, revoked_at`, micros(tx.now()), id).Scan)
		if errors.Is(err, sql.ErrNoRows) {
			return rollout.Refuse(rollout.Missing, "no token %s that is not revoked already", id)
		}
		if err != nil {
			return err
		}
		return tx.event(ctx, rollout.Event{At: tx.now(), Tenant: t.Tenant, Who: "towpath-controller", Kind: "token.revoked", What: fmt.Sprintf("token %s (%s) was revoked", t.Name, t.ID)})
	})
}

// Agent is whose identity serves an account.
type Agent struct {
	Tenant, Name    string
	Issuer, Subject string
	Labels          map[string]string // for people: region, environment
	Created         time.Time
	Connected       time.Time // when it last came; zero: never
	Away            time.Time // since when it has no session; zero: it has one, or whoever knew stopped before the session's end
	AwayWhy         string    // why its last session ended
	Revoked         time.Time // tokens that were issued before this count no more
}

// ErrNoAgent says that an identity belongs to no agent.
var ErrNoAgent = errors.New("this identity belongs to no agent; towpath agent create makes one")

// AddAgent records the identity of a new agent; a *rollout.Refusal when the tenant has an agent of that name.
func (s *Store) AddAgent(ctx context.Context, a Agent, by string) error {
	return s.write(ctx, "agent.add", func(tx *tx) error {
		var known int
		if err := tx.queryRow(ctx, `SELECT COUNT(*) FROM agents WHERE tenant_id = ? AND name = ?`, a.Tenant, a.Name).Scan(&known); err != nil {
			return err
		}
		if known > 0 {
			return rollout.Refuse(rollout.Conflicts, "agent %[1]s is there already; `towpath agent rotate %[1]s` gives it a new secret, `towpath agent remove %[1]s` ends it", a.Name)
		}
		var other string
		switch err := tx.queryRow(ctx, `SELECT name FROM agents WHERE issuer = ? AND subject = ?`, a.Issuer, a.Subject).Scan(&other); {
		case err == nil:
			return rollout.Refuse(rollout.Conflicts, "the identity %s of issuer %s is that of agent %s already", a.Subject, a.Issuer, other)
		case !errors.Is(err, sql.ErrNoRows):
			return err
		}
		labels, err := json.Marshal(a.Labels)
		if err != nil {
			return err
		}
		if _, err := tx.exec(ctx, `INSERT INTO agents (tenant_id, name, issuer, subject, labels, created_at) VALUES (?, ?, ?, ?, ?, ?)`,
			a.Tenant, a.Name, a.Issuer, a.Subject, string(labels), micros(tx.now())); err != nil {
			return err
		}
		return tx.event(ctx, rollout.Event{At: tx.now(), Tenant: a.Tenant, Who: by, Kind: "agent.created", What: fmt.Sprintf("agent %s was given the identity %s", a.Name, a.Subject)})
	})
}

// agentRemoved and agentRevoked are the kinds of the events that say so; their target is the agent's name.
const (
	agentRemoved = "agent.removed"
	agentRevoked = "agent.revoked"
)

// RemoveAgent ends an agent: its identity is nobody's from then on. It returns what it was; a *rollout.Refusal when there is none of that name.
func (s *Store) RemoveAgent(ctx context.Context, tenant, name, by string) (a Agent, err error) {
	err = s.write(ctx, "agent.remove", func(tx *tx) error {
		a = Agent{Tenant: tenant, Name: name}
		err := tx.queryRow(ctx, `DELETE FROM agents WHERE tenant_id = ? AND name = ? RETURNING issuer, subject`, tenant, name).Scan(&a.Issuer, &a.Subject)
		if errors.Is(err, sql.ErrNoRows) {
			return rollout.Refuse(rollout.Missing, "no agent %s", name)
		}
		if err != nil {
			return err
		}
		return tx.event(ctx, rollout.Event{At: tx.now(), Tenant: tenant, Target: name, Who: by, Kind: agentRemoved, What: fmt.Sprintf("agent %s was removed; its identity %s is no longer accepted", name, a.Subject)})
	})
	return a, err
}

// Agent is an agent by name; a *rollout.Refusal when there is none.
func (s *Store) Agent(ctx context.Context, tenant, name string) (a Agent, err error) {
	err = s.read(ctx, func(tx *tx) error {
		a = Agent{Tenant: tenant, Name: name}
		var created int64
		err := tx.queryRow(ctx, `SELECT issuer, subject, created_at FROM agents WHERE tenant_id = ? AND name = ?`, tenant, name).Scan(&a.Issuer, &a.Subject, &created)
		a.Created = fromMicros(created)
		if errors.Is(err, sql.ErrNoRows) {
			return rollout.Refuse(rollout.Missing, "no agent %s", name)
		}
		return err
	})
	return a, err
}

// AgentRotated writes into history that an agent was given a new secret.
func (s *Store) AgentRotated(ctx context.Context, a Agent, by string, keep time.Duration) error {
	return s.write(ctx, "agent.rotate", func(tx *tx) error {
		return tx.event(ctx, rollout.Event{At: tx.now(), Tenant: a.Tenant, Target: a.Name, Who: by, Kind: "agent.rotated",
			What: fmt.Sprintf("agent %s was given a new secret; the one before it holds for %s", a.Name, keep)})
	})
}

// AgentCame records that an agent has a session, and AgentLeft that it has none, and why its last one ended. Neither is history: agents come and go.
func (s *Store) AgentCame(ctx context.Context, tenant, name string) error {
	return s.write(ctx, "agent.came", func(tx *tx) error {
		_, err := tx.exec(ctx, `UPDATE agents SET connected_at = ?, away_at = NULL, away_why = '' WHERE tenant_id = ? AND name = ?`, micros(tx.now()), tenant, name)
		return err
	})
}

// AgentLeft is told at AgentCame.
func (s *Store) AgentLeft(ctx context.Context, tenant, name, why string) error {
	return s.write(ctx, "agent.left", func(tx *tx) error {
		_, err := tx.exec(ctx, `UPDATE agents SET away_at = ?, away_why = ? WHERE tenant_id = ? AND name = ?`, micros(tx.now()), why, tenant, name)
		return err
	})
}

// RevokeTokens ends the tokens that an agent was given until now; its identity stays. A *rollout.Refusal when there is none of that name.
func (s *Store) RevokeTokens(ctx context.Context, tenant, name, by string) error {
	return s.write(ctx, "agent.revoke", func(tx *tx) error {
		refusal := rollout.Refuse(rollout.Missing, "no agent %s", name)
		if err := tx.one(ctx, refusal, `UPDATE agents SET tokens_from = ? WHERE tenant_id = ? AND name = ?`, micros(tx.now()), tenant, name); err != nil {
			return err
		}
		return tx.event(ctx, rollout.Event{At: tx.now(), Tenant: tenant, Target: name, Who: by, Kind: agentRevoked, What: fmt.Sprintf("the tokens that agent %s had been given were revoked", name)})
	})
}

// Dismissal is an agent whose sessions are to end.
type Dismissal struct {
	Tenant, Agent string
	Why           string
}

// Dismissals lists the agents that were removed, or whose tokens were revoked, since an event, and the newest event by now. After a negative one nothing is
// listed.
func (s *Store) Dismissals(ctx context.Context, after int64) (list []Dismissal, newest int64, err error) {
	err = s.read(ctx, func(tx *tx) error {
		list = nil
		if err := tx.queryRow(ctx, `SELECT COALESCE(MAX(id), 0) FROM events`).Scan(&newest); err != nil || after < 0 {
			return err
		}
		rows, err := tx.query(ctx, `SELECT tenant_id, target, kind FROM events WHERE id > ? AND id <= ? AND kind IN (?, ?) ORDER BY id`, after, newest, agentRemoved, agentRevoked)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var d Dismissal
			var kind string
			if err := rows.Scan(&d.Tenant, &d.Agent, &kind); err != nil {
				return err
			}
			d.Why = "the agent " + d.Agent + " was removed"
			if kind == agentRevoked {
				d.Why = "the tokens of agent " + d.Agent + " were revoked; it may come back with a new one"
			}
			list = append(list, d)
		}
		return rows.Err()
	})
	return list, newest, err
}

// AgentOf is the agent of an identity; ErrNoAgent when there is none.
func (s *Store) AgentOf(ctx context.Context, issuer, subject string) (a Agent, err error) {
	err = s.read(ctx, func(tx *tx) error {
		a = Agent{Issuer: issuer, Subject: subject}
		var created int64
		var revoked sql.NullInt64
		err := tx.queryRow(ctx, `SELECT tenant_id, name, created_at, tokens_from FROM agents WHERE issuer = ? AND subject = ?`, issuer, subject).
			Scan(&a.Tenant, &a.Name, &created, &revoked)
		a.Created, a.Revoked = fromMicros(created), nullTime(revoked)
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
		rows, err := tx.query(ctx, `SELECT name, issuer, subject, labels, created_at, connected_at, away_at, away_why FROM agents WHERE tenant_id = ? ORDER BY name, created_at`, tenant)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			a := Agent{Tenant: tenant}
			var created int64
			var labels string
			var connected, away sql.NullInt64
			if err := rows.Scan(&a.Name, &a.Issuer, &a.Subject, &labels, &created, &connected, &away, &a.AwayWhy); err != nil {
				return err
			}
			a.Connected, a.Away = nullTime(connected), nullTime(away)
			if err := json.Unmarshal([]byte(labels), &a.Labels); err != nil {
				return err
			}
			a.Created = fromMicros(created)
			agents = append(agents, a)
		}
		return rows.Err()
	})
	return agents, err
}
