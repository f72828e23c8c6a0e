package main

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"towpath/api"
	"towpath/store"
)

func (b *backend) Agents(ctx context.Context, c api.Caller) ([]api.Agent, error) {
	known, err := b.store.Agents(ctx, c.Tenant)
	if err != nil {
		return nil, err
	}
	sessions := b.hub.Agents()
	var out []api.Agent
	for _, k := range known {
		a := api.Agent{Name: k.Name, ClientID: k.Subject}
		for _, s := range sessions {
			if s.Tenant != c.Tenant || s.Agent != k.Name {
				continue
			}
			a.Instances++
			a.Connected, a.Version, a.Remote, a.Since, a.LastBeat = true, s.Version, s.Remote, moment(s.Since), moment(s.LastBeat)
		}
		out = append(out, a)
	}
	if out == nil {
		out = []api.Agent{}
	}
	return out, nil
}

// connects is the scope of agents' tokens.
const connects = "agent:connect"

func (b *backend) CreateAgent(ctx context.Context, c api.Caller, name string) (api.Credential, error) {
	id, secret, err := b.issuer.Create(ctx, connects)
	if err != nil {
		return api.Credential{}, err
	}
	a := store.Agent{Tenant: c.Tenant, Name: name, Issuer: b.config.ExternalURL, Subject: id}
	if err := b.store.AddAgent(ctx, a, c.Name); err != nil {
		return api.Credential{}, errors.Join(tell(err), b.issuer.Disable(ctx, id)) // nobody's credential
	}
	return b.credential(a, secret), nil
}

func (b *backend) credential(a store.Agent, secret string) api.Credential {
	return api.Credential{Agent: a.Name, ClientID: a.Subject, Secret: secret, Issuer: a.Issuer, Audience: b.config.Agents.Audience, Hub: b.hubAddress()}
}

func (b *backend) RotateAgent(ctx context.Context, c api.Caller, name string, keep time.Duration) (api.Credential, error) {
	a, err := b.store.Agent(ctx, c.Tenant, name)
	if err != nil {
		return api.Credential{}, tell(err)
	}
	secret, err := b.issuer.Replace(ctx, a.Subject, keep)
	if err == nil {
		err = b.store.AgentRotated(ctx, a, c.Name, keep)
	}
	return b.credential(a, secret), err
}

func (b *backend) RemoveAgent(ctx context.Context, c api.Caller, name string) error {
	a, err := b.store.RemoveAgent(ctx, c.Tenant, name, c.Name)
	if err != nil {
		return tell(err)
	}
	return b.issuer.Disable(ctx, a.Subject)
}

// lookUp says whose an identity is. An identity that is nobody's is told from a store that does not answer: an agent comes back soon after the latter.
func (m *Main) lookUp(ctx context.Context, issuer, subject string) (tenant, agent string, err error) {
	a, err := m.store.AgentOf(ctx, issuer, subject)
	if err != nil && !errors.Is(err, store.ErrNoAgent) {
		m.log.WithError(err).Error("an agent's identity could not be looked up")
		err = status.Error(codes.Unavailable, "the identity cannot be looked up now")
	}
	return a.Tenant, a.Name, err
}

// dismiss ends the sessions of agents that were removed, here or by another controller, until ctx ends.
func (m *Main) dismiss(ctx context.Context) {
	news, stop := m.store.News()
	defer stop()
	again := time.NewTicker(10 * time.Second) // for news that did not arrive
	defer again.Stop()
	for seen := int64(-1); ; {
		removed, newest, err := m.store.AgentsRemoved(ctx, seen)
		switch {
		case err == nil:
			seen = newest
		case ctx.Err() == nil:
			m.log.WithError(err).Error("removed agents could not be read; trying again")
		}
		for _, a := range removed {
			for _, v := range m.verifiers {
				v.Forget()
			}
			m.hub.Disconnect(a.Tenant, a.Name, "the agent "+a.Name+" was removed")
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
