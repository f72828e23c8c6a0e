package main

import (
	"context"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"towpath/render"
	"towpath/store"
)

// capabilities is what the clusters can do, as each last said: charts ask for it, and no render asks a cluster. It is kept, so that it is the same after a
// restart and while an agent is away; of a cluster that was never seen, it is nothing.
type capabilities struct {
	store    *store.Store
	clusters *clusters
	changed  func(tenant string) // some cluster's are others now
	log      *logrus.Entry

	mu    sync.RWMutex
	known map[[2]string]render.Capabilities
	mark  string // of the store, when known was read
}

// load takes in what is kept, unless it has not changed: also what another controller on the same database saw.
func (c *capabilities) load(ctx context.Context) error {
	mark, err := c.store.ClustersSeen(ctx)
	c.mu.RLock()
	same := err == nil && mark == c.mark
	c.mu.RUnlock()
	if err != nil || same {
		return err
	}
	kept, err := c.store.Clusters(ctx)
	if err != nil {
		return err
	}
	known := map[[2]string]render.Capabilities{}
	for _, k := range kept {
		known[[2]string{k.Tenant, k.Account}] = render.Capabilities{Version: k.Version, APIs: k.APIs}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known, c.mark = known, mark
	return nil
}

func (c *capabilities) of(tenant, account string) render.Capabilities {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.known[[2]string{tenant, account}]
}

// look asks a cluster whose agent is there. When it says what it said before, nothing happens.
func (c *capabilities) look(ctx context.Context, tenant, account string) error {
	if !c.clusters.Connected(tenant, account) {
		return nil
	}
	version, apis, err := c.clusters.client(tenant, account).Capabilities(ctx)
	if err != nil {
		return err
	}
	now := render.Capabilities{Version: version, APIs: apis}
	if now.Digest() == c.of(tenant, account).Digest() {
		return nil
	}
	if err := c.store.SawCluster(ctx, store.ClusterView{Tenant: tenant, Account: account, Version: version, APIs: apis}); err != nil {
		return err
	}
	c.mu.Lock()
	c.known[[2]string{tenant, account}] = now
	c.mu.Unlock()
	c.changed(tenant)
	return nil
}

// follow looks at each cluster now and then: an upgrade does not end an agent's session.
func (c *capabilities) follow(ctx context.Context) {
	each := time.NewTicker(10 * time.Minute)
	defer each.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-each.C:
		}
		if err := c.load(ctx); err != nil && ctx.Err() == nil {
			c.log.WithError(err).Error("what is known of the clusters could not be read; trying again in ten minutes")
			continue
		}
		for _, account := range c.accounts() {
			if c.clusters.hub.Has(account[0], account[1]) { // another replica looks for itself
				c.lookOrSay(ctx, account[0], account[1])
			}
		}
	}
}

func (c *capabilities) accounts() [][2]string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var all [][2]string
	for account := range c.known {
		all = append(all, account)
	}
	return all
}

func (c *capabilities) lookOrSay(ctx context.Context, tenant, account string) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := c.look(ctx, tenant, account); err != nil && ctx.Err() == nil {
		c.log.WithError(err).WithField("account", account).Warn("the cluster did not say what it can do; charts are rendered for what it said last")
	}
}
