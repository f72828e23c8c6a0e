package store

import (
	"context"
	"encoding/json"
)

// ClusterView is what the cluster of an account said of itself when its agent was last there.
type ClusterView struct {
	Tenant, Account string
	Version         string   // of Kubernetes
	APIs            []string // that it serves
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

// Clusters lists what each cluster said of itself.
func (s *Store) Clusters(ctx context.Context) (clusters []ClusterView, err error) {
	err = s.read(ctx, func(tx *tx) error {
		clusters = nil
		rows, err := tx.query(ctx, `SELECT tenant_id, account, version, apis FROM clusters ORDER BY tenant_id, account`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var c ClusterView
			var apis string
			if err := rows.Scan(&c.Tenant, &c.Account, &c.Version, &apis); err != nil {
				return err
			}
			if err := json.Unmarshal([]byte(apis), &c.APIs); err != nil {
				return err
			}
			clusters = append(clusters, c)
		}
		return rows.Err()
	})
	return clusters, err
}
