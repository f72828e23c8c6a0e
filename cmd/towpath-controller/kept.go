package main

import (
	"context"

	"towpath/cluster"
	"towpath/cmd/towpath-controller/config"
	"towpath/manifest"
	"towpath/reconcile"
	"towpath/reconcile/rollout"
)

// kept is a cluster as a keeper wants it.
type kept struct{ *cluster.Client }

func (c *clusters) kept(tenant, account string) reconcile.KeptCluster {
	return kept{c.client(tenant, account)}
}

func (k kept) Follow(ctx context.Context, kind manifest.Key, heard func(reconcile.Moved)) (stop func(), err error) {
	return k.Client.Follow(ctx, kind, func(m cluster.Moved) { heard(reconcile.Moved{Key: m.Key, Lane: m.Lane, Gap: m.Gap, Sign: m}) })
}

func (k kept) Compare(ctx context.Context, lane rollout.Kept, objects []manifest.Object, moved []reconcile.Moved) ([]manifest.Key, []rollout.Drift, *rollout.Failure) {
	some := make([]cluster.Moved, len(moved))
	for i, m := range moved {
		some[i], _ = m.Sign.(cluster.Moved)
		some[i].Key = m.Key
	}
	return k.Client.Compare(ctx, lane, objects, some)
}

func (kept) Label(id rollout.Identity) string { return cluster.LaneLabel(id) }

func ignored(all []config.Ignore) []cluster.Ignored {
	out := make([]cluster.Ignored, len(all))
	for i, one := range all {
		out[i] = cluster.Ignored{Group: one.Group, Kind: one.Kind, Pointer: one.Pointer, Manager: one.Manager}
	}
	return out
}
