package main

import (
	"errors"
	"sync"

	"github.com/sirupsen/logrus"

	"towpath/agent/hub"
	"towpath/cluster"
	"towpath/reconcile"
)

// clusters gives each account a client over its agent.
type clusters struct {
	hub     *hub.Hub
	reviser cluster.Reviser
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
	client, err := cluster.New(cluster.Config{Transport: c.hub.Transport(tenant, account), Reviser: c.reviser, Away: away, Log: c.log.WithField("account", account)})
	if err != nil {
		panic(err) // the configuration is ours and without variables
	}
	if c.known == nil {
		c.known = map[[2]string]*cluster.Client{}
	}
	c.known[key] = client
	return client
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
