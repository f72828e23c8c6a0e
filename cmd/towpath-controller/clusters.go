package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"towpath/agent/hub"
	"towpath/cluster"
	"towpath/manifest"
	"towpath/reconcile"
	"towpath/reconcile/rollout"
)

// clusters gives each account a client over its agent.
type clusters struct {
	hub     *hub.Hub
	reviser cluster.Reviser
	ignored []cluster.Ignored
	log     *logrus.Entry

	mu    sync.Mutex
	known map[[2]string]*cluster.Client
}

func (c *clusters) Connected(tenant, account string) bool { return c.hub.Connected(tenant, account) }

func (c *clusters) Cluster(tenant, account string) reconcile.Cluster {
	return c.client(tenant, account)
}

func (c *clusters) client(tenant, account string) *cluster.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := [2]string{tenant, account}
	if client := c.known[key]; client != nil {
		return client
	}
	client, err := cluster.New(cluster.Config{Transport: c.hub.Transport(tenant, account), Reviser: c.reviser, Away: away, Ignored: c.ignored, Log: c.log.WithField("account", account)})
	if err != nil {
		panic(err) // the configuration is ours and without variables
	}
	if c.known == nil {
		c.known = map[[2]string]*cluster.Client{}
	}
	c.known[key] = client
	return client
}

// live reads objects of a cluster for a plan; nil when its agent is away, or does not answer soon.
func (c *clusters) live(ctx context.Context, tenant, account string, keys []manifest.Key) []rollout.Live {
	if !c.Connected(tenant, account) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	look := c.client(tenant, account).Look(ctx, rollout.Identity{Tenant: tenant, Account: account}, rollout.Read{Others: keys}, nil)
	if look.Failure != nil {
		c.log.WithField("account", account).WithError(look.Failure).Warn("Services could not be looked at for a plan; they are looked at before the target starts")
		return nil
	}
	return look.Others
}

// routes looks for routes for a plan, unless the agent is away or does not answer soon.
func (c *clusters) routes(ctx context.Context, id rollout.Identity, objects []manifest.Object, wanted []rollout.Route) ([]rollout.Route, *rollout.Failure) {
	if !c.Connected(id.Tenant, id.Account) {
		return nil, &rollout.Failure{Class: rollout.Away, Text: "no agent is connected"}
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return c.client(id.Tenant, id.Account).Routes(ctx, id, objects, wanted)
}

// loads is how busy each cluster is, by tenant and account.
func (c *clusters) loads() map[[2]string]cluster.Load {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make(map[[2]string]cluster.Load, len(c.known))
	for of, client := range c.known {
		all[of] = client.Load()
	}
	return all
}

// away reports whether an error says that no agent can take requests now.
func away(err error) bool {
	var tunnel *hub.Error
	return errors.As(err, &tunnel) && (tunnel.Code == hub.NoAgent || tunnel.Code == hub.Drain)
}

func (c *clusters) close() {
	c.mu.Lock()
	known := c.known
	c.known = nil
	c.mu.Unlock()
	for _, client := range known {
		client.Close()
	}
}
