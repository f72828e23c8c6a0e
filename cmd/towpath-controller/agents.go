package main

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"towpath/agent/hub"
	"towpath/api"
	"towpath/cluster"
	"towpath/issuer"
	"towpath/reconcile"
	"towpath/reconcile/rollout"
	"towpath/store"
)

func (b *backend) Agents(ctx context.Context, c api.Caller) ([]api.Agent, error) {
	known, err := b.store.Agents(ctx, c.Tenant)
	if err != nil {
		return nil, err
	}
	clusters, err := b.store.Clusters(ctx)
	if err != nil {
		return nil, err
	}
	sessions, err := b.sessions(ctx, c.Tenant)
	if err != nil {
		return nil, err
	}
	var out []api.Agent
	for _, k := range known {
		a := api.Agent{Name: k.Name, ClientID: k.Subject, Labels: k.Labels}
		for _, s := range sessions {
			if s.Tenant != c.Tenant || s.Agent != k.Name || s.Draining {
				continue
			}
			a.Instances++
			a.Connected, a.Version, a.Remote, a.Since, a.LastBeat, a.Targets = true, s.Version, s.Remote, moment(s.Since), moment(s.LastBeat), s.Targets
		}
		how := b.wayTo(k, sessions)
		if a.Why = how.String(); !a.Connected {
			a.Since = moment(how.since)
		}
		for _, v := range clusters {
			if v.Tenant == c.Tenant && v.Account == k.Name {
				a.Cluster, a.Held = v.UID, v.Stranger
			}
		}
		out = append(out, a)
	}
	if out == nil {
		out = []api.Agent{}
	}
	return out, nil
}

// sessions lists those of a tenant's agents, at other replicas too.
func (b *backend) sessions(ctx context.Context, tenant string) ([]hub.Status, error) {
	all := b.hub.Agents()
	if b.replicas == nil {
		return all, nil
	}
	others, err := b.replicas.others(ctx, tenant)
	return append(all, others...), err
}

// connects is the scope of agents' tokens.
const connects = "agent:connect"

func (b *backend) CreateAgent(ctx context.Context, c api.Caller, n api.NewAgent) (api.Credential, error) {
	if n.Issuer != "" && n.Issuer != b.config.ExternalURL {
		return b.enrol(ctx, c, n)
	}
	id, secret, err := b.client(ctx, n)
	if err != nil {
		return api.Credential{}, tell(err)
	}
	a := store.Agent{Tenant: c.Tenant, Name: n.Name, Issuer: b.config.ExternalURL, Subject: id, Labels: n.Labels}
	if err := b.store.AddAgent(ctx, a, c.Name); err != nil {
		return api.Credential{}, errors.Join(tell(err), b.issuer.Disable(ctx, id)) // nobody's credential
	}
	return b.credential(a, secret), nil
}

// client makes the credential of a new agent, or takes on one that it has already.
func (b *backend) client(ctx context.Context, n api.NewAgent) (id, secret string, err error) {
	switch {
	case n.Secret == "":
		return b.issuer.Create(ctx, connects)
	case n.Subject == "":
		return "", "", rollout.Refuse(rollout.Malformed, "a secret that the agent has already comes with its client id")
	}
	err = b.issuer.Adopt(ctx, n.Subject, n.Secret, connects)
	if errors.Is(err, issuer.ErrConflict) {
		err = rollout.Refuse(rollout.Conflicts, "client %s is known already; rotate or remove the agent that has it", n.Subject)
	}
	return n.Subject, n.Secret, err
}

// enrol records an agent whose credential is kept by an issuer elsewhere.
func (b *backend) enrol(ctx context.Context, c api.Caller, n api.NewAgent) (api.Credential, error) {
	switch {
	case !b.trusts(n.Issuer):
		return api.Credential{}, tell(rollout.Refuse(rollout.Malformed, "issuer %s is not trusted here; add it to agents.issuers of the controller's configuration", n.Issuer))
	case n.Subject == "":
		return api.Credential{}, tell(rollout.Refuse(rollout.Malformed, "an agent of issuer %s needs the subject that its tokens name (--subject)", n.Issuer))
	}
	a := store.Agent{Tenant: c.Tenant, Name: n.Name, Issuer: n.Issuer, Subject: n.Subject, Labels: n.Labels}
	return b.credential(a, ""), tell(b.store.AddAgent(ctx, a, c.Name))
}

func (b *backend) credential(a store.Agent, secret string) api.Credential {
	return api.Credential{Agent: a.Name, ClientID: a.Subject, Secret: secret, Issuer: a.Issuer, Audience: b.config.Agents.Audience, Hub: b.hubAddress(), CA: b.authority()}
}

// authority is the certificate that agents are given to trust: that of our own authority, or one that stands beside the configured certificate.
func (b *backend) authority() string {
	name := filepath.Join(b.config.Data, "tls", caFile)
	if b.config.TLS.Certificate != "" {
		name = filepath.Join(filepath.Dir(b.config.TLS.Certificate), caFile)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return "" // of one that every system knows
	}
	return string(text)
}

func (b *backend) RotateAgent(ctx context.Context, c api.Caller, name string, keep time.Duration) (api.Credential, error) {
	a, err := b.store.Agent(ctx, c.Tenant, name)
	if err != nil {
		return api.Credential{}, tell(err)
	}
	if a.Issuer != b.config.ExternalURL {
		return api.Credential{}, tell(rollout.Refuse(rollout.Conflicts, "the credential of agent %s is kept by issuer %s; replace its secret there", name, a.Issuer))
	}
	secret, err := b.issuer.Replace(ctx, a.Subject, keep)
	if err == nil {
		err = b.store.AgentRotated(ctx, a, c.Name, keep)
	}
	if err == nil && keep == 0 { // a secret that may be known to others: so may be the tokens that they had by it
		err = b.store.RevokeTokens(ctx, c.Tenant, name, c.Name)
	}
	return b.credential(a, secret), err
}

func (b *backend) RevokeAgent(ctx context.Context, c api.Caller, name string) error {
	return tell(b.store.RevokeTokens(ctx, c.Tenant, name, c.Name))
}

func (b *backend) RemoveAgent(ctx context.Context, c api.Caller, name string) error {
	a, err := b.store.RemoveAgent(ctx, c.Tenant, name, c.Name)
	if err != nil || a.Issuer != b.config.ExternalURL {
		return tell(err)
	}
	return b.issuer.Disable(ctx, a.Subject)
}

// AcceptCluster starts what was good before it accepts: who dies in between is asked again, and loses nothing. Until then all of it waits for the agent.
func (b *backend) AcceptCluster(ctx context.Context, c api.Caller, name string) (api.Accepted, error) {
	out := api.Accepted{Deployments: []string{}}
	if _, err := b.store.Agent(ctx, c.Tenant, name); err != nil {
		return out, tell(err)
	}
	strange, err := b.strange(ctx, c.Tenant, name)
	if err != nil {
		return out, err
	}
	if strange {
		if out.Deployments, err = b.renew(ctx, c, name); err != nil {
			return out, tell(err)
		}
	}
	if err := b.store.Accept(ctx, c.Tenant, name, c.Name); err != nil {
		return out, tell(err)
	}
	b.hub.Readmit(c.Tenant, name)
	return out, nil
}

// strange reports whether an agent connects from another cluster than before.
func (b *backend) strange(ctx context.Context, tenant, name string) (bool, error) {
	clusters, err := b.store.Clusters(ctx)
	return slices.ContainsFunc(clusters, func(v store.ClusterView) bool { return v.Tenant == tenant && v.Account == name && v.Stranger != "" }), err
}

// renew starts what was last good on an account, and returns the deployments.
func (b *backend) renew(ctx context.Context, c api.Caller, name string) ([]string, error) {
	stands, err := b.store.Standing(ctx, c.Tenant, name)
	if err != nil {
		return nil, err
	}
	good := map[string][]string{} // deployment → targets
	var ids []string
	for _, s := range stands {
		if good[s.Deployment] == nil {
			ids = append(ids, s.Deployment)
		}
		good[s.Deployment] = append(good[s.Deployment], s.Target)
	}
	started := []string{}
	for _, id := range ids {
		one, err := b.pusher.Renew(ctx, id, name, good[id], reconcile.Order{Tenant: c.Tenant, By: c.Name, Reason: "agent " + name + " connects from a new cluster"})
		if err != nil {
			return nil, err
		}
		started = append(started, one)
	}
	return started, nil
}

// untold is the UID of a cluster that said who it is, and says so no longer.
const untold = "untold (the agent may not read the namespace kube-system)"

// admit asks the cluster behind a new session who it is: its kube-system namespace has the one UID that a cluster keeps for life. An agent that connects from
// another cluster than before carries nothing until a person accepts that. Where the agent may not tell, there is nothing to hold it against; but one that
// could once, and cannot now, is held too.
func (m *Main) admit(ctx context.Context, s hub.Status, way http.RoundTripper) bool {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	log := m.log.WithField("agent", s.Agent)
	uid, err := cluster.Identity(ctx, way)
	var tunnel *hub.Error
	if err != nil && (!errors.As(err, &tunnel) || tunnel.Code != hub.Refused) { // a mere relay to private hosts reaches no cluster
		log.WithError(err).Warn("the cluster behind the agent could not be asked who it is; trying again")
		return false
	}
	if uid == "" {
		known, err := m.store.ClusterUID(ctx, s.Tenant, s.Agent)
		if err != nil || known == "" {
			return err == nil
		}
		uid = untold
	}
	known, err := m.store.Identify(ctx, s.Tenant, s.Agent, uid)
	if err != nil && ctx.Err() == nil {
		log.WithError(err).Error("the cluster behind the agent could not be looked up; trying again")
	}
	return err == nil && known
}

// lookUp says whose an identity is. An identity that is nobody's is told from a store that does not answer: an agent comes back soon after the latter.
func (m *Main) lookUp(ctx context.Context, issuer, subject string) (hub.Owner, error) {
	a, err := m.store.AgentOf(ctx, issuer, subject)
	if err != nil && !errors.Is(err, store.ErrNoAgent) {
		m.log.WithError(err).Error("an agent's identity could not be looked up")
		err = status.Error(codes.Unavailable, "the identity cannot be looked up now")
	}
	return hub.Owner{Tenant: a.Tenant, Agent: a.Name, Revoked: a.Revoked}, err
}

// dismiss ends the sessions of agents that were removed, or whose tokens were revoked, here or by another controller, until ctx ends.
func (m *Main) dismiss(ctx context.Context) {
	news, stop := m.store.News()
	defer stop()
	again := time.NewTicker(10 * time.Second) // for news that did not arrive
	defer again.Stop()
	for seen := int64(-1); ; {
		dismissed, newest, err := m.store.Dismissals(ctx, seen)
		switch {
		case err == nil:
			seen = newest
		case ctx.Err() == nil:
			m.log.WithError(err).Error("removed and revoked agents could not be read; trying again")
		}
		for _, d := range dismissed {
			m.verifiers.Forget()
			m.hub.Disconnect(d.Tenant, d.Agent, d.Why)
		}
		select {
		case <-ctx.Done():
			return
		case _, open := <-news:
			if !open {
				return
			}
		case <-again.C:
		}
	}
}
