package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"towpath/reconcile/rollout"
)

// ClusterView is what the cluster of an account said of itself when its agent was last there.
type ClusterView struct {
	Tenant, Account string
	Version         string   // of Kubernetes
	APIs            []string // that it serves
	UID             string   // that it had when an agent first connected from it, or when a person accepted it; "": not known
	Stranger        string   // UID of another cluster that the agent connects from now; requests wait until a person accepts it
	StrangerSince   time.Time
}

// SawCluster records what a cluster said of itself.
func (s *Store) SawCluster(ctx context.Context, c ClusterView) error {
	apis, err := json.Marshal(c.APIs)
	if err != nil {
		return err
	}
	return s.write(ctx, "cluster.seen", func(tx *tx) error {
		_, err := tx.exec(ctx, `INSERT INTO clusters (tenant_id, account, version, apis, seen_at) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (tenant_id, account) DO UPDATE SET version = excluded.version, apis = excluded.apis, seen_at = excluded.seen_at`,
			c.Tenant, c.Account, c.Version, string(apis), micros(tx.now()))
		return err
	})
}

// ClustersSeen changes when a cluster said something else of itself than before.
func (s *Store) ClustersSeen(ctx context.Context) (mark string, err error) {
	err = s.read(ctx, func(tx *tx) error {
		var count, newest int64
		err := tx.queryRow(ctx, `SELECT COUNT(*), COALESCE(MAX(seen_at), 0) FROM clusters`).Scan(&count, &newest)
		mark = fmt.Sprint(count, " ", newest)
		return err
	})
	return mark, err
}

// Clusters lists what each cluster said of itself.
func (s *Store) Clusters(ctx context.Context) (clusters []ClusterView, err error) {
	err = s.read(ctx, func(tx *tx) error {
		clusters = nil
		rows, err := tx.query(ctx, `SELECT tenant_id, account, version, apis, uid, stranger, stranger_at FROM clusters ORDER BY tenant_id, account`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var c ClusterView
			var apis string
			var since sql.NullInt64
			if err := rows.Scan(&c.Tenant, &c.Account, &c.Version, &apis, &c.UID, &c.Stranger, &since); err != nil {
				return err
			}
			c.StrangerSince = nullTime(since)
			if err := json.Unmarshal([]byte(apis), &c.APIs); err != nil {
				return err
			}
			clusters = append(clusters, c)
		}
		return rows.Err()
	})
	return clusters, err
}

// Identify records the UID of the cluster that an account's agent connects from; false when it is another one than before, which a person has to accept.
func (s *Store) Identify(ctx context.Context, tenant, account, uid string) (known bool, err error) {
	err = s.write(ctx, "cluster.identify", func(tx *tx) error {
		if _, err := tx.exec(ctx, `INSERT INTO clusters (tenant_id, account, version, apis, seen_at, uid) VALUES (?, ?, '', 'null', ?, ?) ON CONFLICT (tenant_id, account) DO NOTHING`,
			tenant, account, micros(tx.now()), uid); err != nil {
			return err
		}
		var is, stranger string
		if err := tx.queryRow(ctx, `SELECT uid, stranger FROM clusters WHERE tenant_id = ? AND account = ?`, tenant, account).Scan(&is, &stranger); err != nil {
			return err
		}
		known = is == "" || is == uid
		switch {
		case known && is == uid && stranger == "":
			return nil
		case known:
			_, err := tx.exec(ctx, `UPDATE clusters SET uid = ?, stranger = '', stranger_at = NULL WHERE tenant_id = ? AND account = ?`, uid, tenant, account)
			return err
		case stranger == uid:
			return nil
		}
		if _, err := tx.exec(ctx, `UPDATE clusters SET stranger = ?, stranger_at = ? WHERE tenant_id = ? AND account = ?`, uid, micros(tx.now()), tenant, account); err != nil {
			return err
		}
		return tx.event(ctx, rollout.Event{At: tx.now(), Tenant: tenant, Target: account, Who: "towpath", Kind: "agent.stranger",
			What: fmt.Sprintf("agent %s connects from another cluster, %s; until now it was %s", account, uid, is),
			Why:  "nothing goes through it until a person runs: towpath agent accept " + account})
	})
	return known, err
}

// ClusterUID is what Identify knows of an account; "" when it knows nothing.
func (s *Store) ClusterUID(ctx context.Context, tenant, account string) (uid string, err error) {
	err = s.read(ctx, func(tx *tx) error {
		err := tx.queryRow(ctx, `SELECT uid FROM clusters WHERE tenant_id = ? AND account = ?`, tenant, account).Scan(&uid)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return uid, err
}

// Accept makes the other cluster that an account's agent connects from the account's own; a *rollout.Refusal when there is none.
func (s *Store) Accept(ctx context.Context, tenant, account, by string) error {
	return s.write(ctx, "cluster.accept", func(tx *tx) error {
		var uid string
		err := tx.queryRow(ctx, `UPDATE clusters SET uid = stranger, stranger = '', stranger_at = NULL WHERE tenant_id = ? AND account = ? AND stranger <> '' RETURNING uid`,
			tenant, account).Scan(&uid)
		if errors.Is(err, sql.ErrNoRows) {
			return rollout.Refuse(rollout.Conflicts, "agent %s connects from no other cluster than before", account)
		}
		if err != nil {
			return err
		}
		return tx.event(ctx, rollout.Event{At: tx.now(), Tenant: tenant, Target: account, Who: by, Kind: "agent.accepted",
			What: fmt.Sprintf("the cluster %s is that of agent %s from now on", uid, account)})
	})
}

// TargetsOn counts the targets of applications on an account.
func (s *Store) TargetsOn(ctx context.Context, tenant, account string) (count int, err error) {
	err = s.read(ctx, func(tx *tx) error {
		return tx.queryRow(ctx, `SELECT COUNT(*) FROM lanes WHERE tenant_id = ? AND account = ?`, tenant, account).Scan(&count)
	})
	return count, err
}

// Stands is where an application was good on a target.
type Stands struct{ Application, Deployment, Target string }

// Standing lists what is good on an account, by application and deployment.
func (s *Store) Standing(ctx context.Context, tenant, account string) (all []Stands, err error) {
	err = s.read(ctx, func(tx *tx) error {
		all = nil
		return tx.each(ctx, `SELECT application, target, good FROM lanes WHERE tenant_id = ? AND account = ? AND removed = 0 AND good IS NOT NULL ORDER BY application, target`,
			func(scan func(...any) error) error {
				var st Stands
				var text string
				if err := scan(&st.Application, &st.Target, &text); err != nil {
					return err
				}
				var good rollout.Release
				if err := json.Unmarshal([]byte(text), &good); err != nil {
					return err
				}
				st.Deployment = good.Deployment
				all = append(all, st)
				return nil
			}, tenant, account)
	})
	return all, err
}
