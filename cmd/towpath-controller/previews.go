package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"towpath/agent/hub"
	"towpath/api"
	"towpath/preview"
	"towpath/store"
)

// previewVariable begins the variables that hold links to Services.
const previewVariable = "armory.preview."

// Tokens that lead into clusters begin so.
const clusterPrefix = "twk_"

// previewAddress is the address of a link by its random part; false without one.
func (m *Main) previewAddress(random string) (address string, known bool) {
	if random == "" || m.config.Previews.Domain == "" {
		return "", false
	}
	return "https://" + random + "." + m.config.Previews.Domain + "/", true
}

// via is the agent that a preview goes through.
func via(p store.Preview) preview.Via {
	return preview.Via{ID: p.ID, Tenant: p.Tenant, Agent: p.Account, Until: p.Until, Unused: p.Used.IsZero()}
}

// apiServer leads through an agent to its API server.
func (m *Main) apiServer(tenant, agent string) http.RoundTripper {
	return m.hub.Transport(tenant, agent, hub.Visits())
}

// previewUsed writes the first use into history. That it cannot is no reason to turn visitors away: each request is in the log.
func (m *Main) previewUsed(ctx context.Context, id, remote string) {
	if err := m.store.PreviewUsed(ctx, id, remote); err != nil && ctx.Err() == nil {
		m.log.WithError(err).WithField("preview", id).Error("the first use of a preview could not be written into history")
	}
}

func (m *Main) findLink(ctx context.Context, random string) (preview.Link, error) {
	p, err := m.store.Preview(ctx, random)
	if errors.Is(err, store.ErrNoPreview) || err == nil && p.Cluster() {
		return preview.Link{}, preview.ErrNone
	}
	if err != nil {
		return preview.Link{}, err
	}
	return preview.Link{Via: via(p), Namespace: p.Link.Namespace, Service: p.Link.Service, Port: p.Link.Port, TLS: p.Link.TLS}, nil
}

func (m *Main) findCluster(ctx context.Context, token string) (preview.Via, error) {
	random, is := strings.CutPrefix(token, clusterPrefix)
	if !is {
		return preview.Via{}, preview.ErrNone
	}
	p, err := m.store.Preview(ctx, random)
	if errors.Is(err, store.ErrNoPreview) || err == nil && !p.Cluster() {
		return preview.Via{}, preview.ErrNone
	}
	return via(p), err
}

func (m *Main) clusterPreviews() *preview.Cluster {
	return &preview.Cluster{Find: m.findCluster, Used: m.previewUsed, Ways: m.apiServer, Proxied: m.config.TLS.Terminated, Log: m.log}
}

// listenForPreviews serves links to Services, where the configuration says so.
func (m *Main) listenForPreviews() error {
	c := m.config.Previews
	if c.Listen == "" {
		return nil
	}
	served := &certificates{certFile: c.Certificate, keyFile: c.Key, dir: m.authority(), hosts: []string{"*." + c.Host()}, clock: time.Now, log: m.log}
	if err := served.renew(time.Now()); err != nil {
		return fmt.Errorf("previews: %w", err)
	}
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("previews.listen: %w", err)
	}
	m.PreviewAddress = listener.Addr().String()
	links := &preview.Links{Domain: c.Host(), Find: m.findLink, Used: m.previewUsed, Ways: m.apiServer, Proxied: c.Terminated, Log: m.log}
	m.previews = &http.Server{Handler: links, TLSConfig: &tls.Config{GetCertificate: served.get, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
	serve := func(l net.Listener) error { return m.previews.ServeTLS(l, "", "") }
	if c.Terminated {
		serve = m.previews.Serve
	}
	m.tasks.Go(func() {
		if err := serve(listener); !errors.Is(err, http.ErrServerClosed) {
			m.log.WithError(err).Error("preview links are no longer served")
		}
	})
	return nil
}

func (b *backend) Previews(ctx context.Context, c api.Caller, deployment string) ([]api.Preview, error) {
	all, err := b.store.Previews(ctx, c.Tenant, deployment)
	out := make([]api.Preview, len(all))
	for i, p := range all {
		out[i] = b.preview(p)
	}
	return out, tell(err)
}

func (b *backend) preview(p store.Preview) api.Preview {
	out := api.Preview{ID: p.ID, Type: "cluster", Agent: p.Account, Application: p.Application, Deployment: p.Deployment, Target: p.Target, By: p.By, Made: p.Made, Until: p.Until,
		Used: moment(p.Used), Revoked: moment(p.Revoked), Holds: p.Holds(time.Now())}
	if !p.Cluster() {
		out.Type, out.Service, out.Namespace = "service", p.Link.Service, p.Link.Namespace
		out.Address, _ = b.previewAddress(p.Random)
	}
	return out
}

func (b *backend) OpenCluster(ctx context.Context, c api.Caller, agent string, lasts time.Duration) (api.ClusterPreview, error) {
	if _, err := b.store.Agent(ctx, c.Tenant, agent); err != nil {
		return api.ClusterPreview{}, tell(err)
	}
	p, err := b.store.OpenCluster(ctx, c.Tenant, agent, c.Name, lasts)
	if err != nil {
		return api.ClusterPreview{}, err
	}
	return api.ClusterPreview{ID: p.ID, Agent: agent, Server: b.config.ExternalURL + preview.Root + agent, Token: clusterPrefix + p.Random, Until: p.Until}, nil
}

func (b *backend) EndPreview(ctx context.Context, c api.Caller, id string) error {
	return tell(b.store.EndPreview(ctx, c.Tenant, id, c.Name))
}
