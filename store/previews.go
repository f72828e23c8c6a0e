package store

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"towpath/reconcile/rollout"
)

// Preview is a way into a cluster that ends by itself: the link of a step to one Service, or a person's to all that the cluster's agent may do.
type Preview struct {
	ID, Tenant, Account             string
	Random                          string // what its address or its token has that nobody can guess; "" once it holds no more, or keyFile has another first key
	Application, Deployment, Target string // of a link
	Link                            *rollout.Link
	By                              string // who made it
	Made, Until                     time.Time
	Used                            time.Time // first; zero: not yet
	Revoked                         time.Time // zero: not
}

// Cluster reports whether it leads to a whole cluster.
func (p Preview) Cluster() bool { return p.Link == nil }

// Holds reports whether it leads anywhere at a time.
func (p Preview) Holds(now time.Time) bool { return p.Revoked.IsZero() && now.Before(p.Until) }

// event says in history what became of a preview.
func (p Preview) event(at time.Time, who, kind, what string) rollout.Event {
	e := rollout.Event{At: at, Tenant: p.Tenant, Application: p.Application, Deployment: p.Deployment, Target: p.Target, Who: who, Kind: kind}
	if p.Cluster() {
		e.Target, e.What = p.Account, fmt.Sprintf("the way into the cluster of agent %s %s (%s)", p.Account, what, p.ID)
	} else {
		e.What = fmt.Sprintf("%s: the preview link to Service %s %s", p.Target, p.Link.Service, what)
	}
	return e
}

// ErrNoPreview says that nothing has this random part, or nothing that holds.
var ErrNoPreview = errors.New("this link is not known, has expired or was revoked")

// random is the random part of a preview: made of its id by a key of this installation, so that it is kept nowhere. It is fit to be a label of a host's name.
func (s *Store) random(id string) (string, error) {
	key, err := s.Derived("towpath previews")
	if err != nil {
		return "", err
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(mac.Sum(nil)[:20])), nil
}

const previewColumns = `id, hash, tenant_id, account, application, deployment, target, link, made_by, made_at, until_at, used_at, revoked_at`

// preview reads a row. Its random part is given while it holds, and while the key that it was made by is the first one of keyFile.
func (tx *tx) preview(scan func(...any) error) (p Preview, err error) {
	var hash string
	var link sql.NullString
	var made, until int64
	var used, revoked sql.NullInt64
	if err := scan(&p.ID, &hash, &p.Tenant, &p.Account, &p.Application, &p.Deployment, &p.Target, &link, &p.By, &made, &until, &used, &revoked); err != nil {
		return p, err
	}
	p.Made, p.Until, p.Used, p.Revoked = fromMicros(made), fromMicros(until), nullTime(used), nullTime(revoked)
	if p.Link, err = fromText[rollout.Link](link); err != nil {
		return p, err
	}
	random, err := tx.store.random(p.ID)
	if p.Holds(tx.now()) && tokenHash(random) == hash {
		p.Random = random
	}
	return p, err
}

func (tx *tx) previews(ctx context.Context, where string, args ...any) (all []Preview, err error) {
	rows, err := tx.query(ctx, `SELECT `+previewColumns+` FROM previews WHERE `+where+` ORDER BY made_at, target, service, id`, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		p, err := tx.preview(rows.Scan)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, rows.Err()
}

// expose records links that a target's steps make. One that is recorded already stays as it is.
func (tx *tx) expose(ctx context.Context, t rollout.Target, links []rollout.Link) error {
	for _, l := range links {
		p := Preview{Tenant: t.Tenant, Account: t.Account, Application: t.Application, Deployment: t.Deployment, Target: t.Name, Link: &l, By: "towpath", Made: l.Made, Until: l.Until}
		if _, err := tx.addPreview(ctx, p, sql.NullInt64{Int64: t.ID, Valid: true}); err != nil {
			return err
		}
	}
	return nil
}

// previewsKept is how long a preview is listed that has ended. What history says of it stays.
const previewsKept = 30 * 24 * time.Hour

func (tx *tx) addPreview(ctx context.Context, p Preview, target sql.NullInt64) (Preview, error) {
	// A target under way needs also those that have ended: else its steps would make them again.
	if _, err := tx.exec(ctx, `DELETE FROM previews WHERE tenant_id = ? AND until_at < ? AND (target_id IS NULL OR target_id NOT IN (SELECT current_target FROM lanes WHERE current_target IS NOT NULL))`,
		p.Tenant, micros(tx.now().Add(-previewsKept))); err != nil {
		return p, err
	}
	var gate, service string
	if p.Link != nil {
		gate, service = p.Link.Gate, p.Link.Service
	}
	link, err := toText(p.Link)
	if err != nil {
		return p, err
	}
	p.ID = uuid.NewString()
	if p.Random, err = tx.store.random(p.ID); err != nil {
		return p, err
	}
	_, err = tx.exec(ctx, `INSERT INTO previews (id, hash, tenant_id, account, application, deployment, target, target_id, gate, service, link, made_by, made_at, until_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (target_id, gate, service) DO NOTHING`,
		p.ID, tokenHash(p.Random), p.Tenant, p.Account, p.Application, p.Deployment, p.Target, target, gate, service, link, p.By, micros(p.Made), micros(p.Until))
	return p, err
}

// links of a target, also those that have ended.
func (tx *tx) links(ctx context.Context, target int64) (links []rollout.Link, err error) {
	all, err := tx.previews(ctx, `target_id = ?`, target)
	for _, p := range all {
		links = append(links, *p.Link)
	}
	return links, err
}

// randoms is the random part of the newest link to each Service of a target that has one which holds.
func (tx *tx) randoms(ctx context.Context, t *rollout.Target) (map[string]string, error) {
	if !t.Exposes() {
		return nil, nil
	}
	all, err := tx.previews(ctx, `target_id = ?`, t.ID)
	randoms := map[string]string{}
	for _, p := range all {
		if p.Random != "" {
			randoms[p.Link.Service] = p.Random
		}
	}
	return randoms, err
}

// Previews lists the links of a deployment, those that have ended too; without one, all links and ways into clusters of a tenant that hold. A
// *rollout.Refusal when there is no such deployment.
func (s *Store) Previews(ctx context.Context, tenant, deployment string) (all []Preview, err error) {
	err = s.read(ctx, func(tx *tx) error {
		if deployment == "" {
			all, err = tx.previews(ctx, `tenant_id = ? AND until_at > ? AND revoked_at IS NULL`, tenant, micros(tx.now()))
			return err
		}
		var known int
		if err := tx.queryRow(ctx, `SELECT COUNT(*) FROM deployments WHERE tenant_id = ? AND id = ?`, tenant, deployment).Scan(&known); err != nil {
			return err
		}
		if known == 0 {
			return rollout.Refuse(rollout.Missing, "no deployment %s", deployment)
		}
		all, err = tx.previews(ctx, `tenant_id = ? AND deployment = ?`, tenant, deployment)
		return err
	})
	return all, err
}

// Preview is what a random part leads to; ErrNoPreview when there is nothing that holds. It is looked for by its hash, so that how long that takes tells
// nothing of those that there are.
func (s *Store) Preview(ctx context.Context, random string) (p Preview, err error) {
	err = s.read(ctx, func(tx *tx) error {
		p, err = tx.preview(tx.queryRow(ctx, `SELECT `+previewColumns+` FROM previews WHERE hash = ?`, tokenHash(random)).Scan)
		if errors.Is(err, sql.ErrNoRows) || err == nil && !p.Holds(tx.now()) {
			p = Preview{}
			return ErrNoPreview
		}
		p.Random = random
		return err
	})
	return p, err
}

// OpenCluster makes a way into a cluster that a person asked for.
func (s *Store) OpenCluster(ctx context.Context, tenant, account, by string, lasts time.Duration) (p Preview, err error) {
	err = s.write(ctx, "preview.open", func(tx *tx) error {
		now := tx.now()
		p, err = tx.addPreview(ctx, Preview{Tenant: tenant, Account: account, By: by, Made: now, Until: now.Add(lasts)}, sql.NullInt64{})
		if err != nil {
			return err
		}
		return tx.event(ctx, p.event(now, by, "preview.made", "was made, and lasts until "+p.Until.UTC().Format("2006-01-02 15:04 UTC")))
	})
	return p, err
}

// PreviewUsed writes into history that a preview was used, the first time.
func (s *Store) PreviewUsed(ctx context.Context, id, remote string) error {
	return s.write(ctx, "preview.used", func(tx *tx) error {
		p, err := tx.preview(tx.queryRow(ctx, `UPDATE previews SET used_at = ? WHERE id = ? AND used_at IS NULL RETURNING `+previewColumns, micros(tx.now()), id).Scan)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		return tx.event(ctx, p.event(tx.now(), remote, "preview.used", "was used"))
	})
}

// EndPreview ends a preview before its time; a *rollout.Refusal when there is none that holds.
func (s *Store) EndPreview(ctx context.Context, tenant, id, by string) error {
	return s.write(ctx, "preview.end", func(tx *tx) error {
		p, err := tx.preview(tx.queryRow(ctx, `UPDATE previews SET revoked_at = ? WHERE id = ? AND tenant_id = ? AND revoked_at IS NULL AND until_at > ? RETURNING `+previewColumns,
			micros(tx.now()), id, tenant, micros(tx.now())).Scan)
		if errors.Is(err, sql.ErrNoRows) {
			return rollout.Refuse(rollout.Missing, "no preview %s that holds; `towpath preview list` names those that do", id)
		}
		if err != nil {
			return err
		}
		return tx.event(ctx, p.event(tx.now(), by, "preview.revoked", "was revoked"))
	})
}
