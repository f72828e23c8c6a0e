package main

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"

	"towpath/issuer"
	"towpath/store"
)

// speaks is the scope of tokens with which programs speak to the API.
const speaks = "api"

// audiences for which API tokens may be exchanged: the controller's own, and what jobs that were written for the earlier product ask for.
func (m *Main) audiences() []string {
	return []string{m.config.ExternalURL, "https://api.cloud.armory.io"}
}

// apiClient is an API token as a client of the issuer: jobs may exchange its id and its secret for a token that lasts a short while.
func (m *Main) apiClient(ctx context.Context, id string) (issuer.Client, error) {
	t, hash, err := m.store.TokenOf(ctx, id)
	if errors.Is(err, store.ErrNoToken) {
		return issuer.Client{}, issuer.ErrNotFound
	}
	return issuer.Client{ID: t.ID, Secrets: []issuer.Secret{{ID: t.ID, Hash: hash, Created: t.Created, Expires: t.Expires}}, Scopes: []string{speaks}, Audience: m.audiences(),
		Created: t.Created}, err
}

// token is the API token that a bearer presents: itself, or what it was exchanged for. store.ErrNoToken when it does not hold.
func (m *Main) token(ctx context.Context, presented string) (store.Token, error) {
	if strings.Count(presented, ".") != 2 {
		return m.store.Token(ctx, presented)
	}
	payload, err := m.issuer.VerifySignature(ctx, presented)
	if err != nil {
		return store.Token{}, store.ErrNoToken
	}
	var claims struct {
		jwt.Claims
		Scope string `json:"scope"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return store.Token{}, store.ErrNoToken
	}
	mine := slices.ContainsFunc(m.audiences(), claims.Audience.Contains) && slices.Contains(strings.Fields(claims.Scope), speaks)
	if !mine || claims.Validate(jwt.Expected{Issuer: m.config.ExternalURL, Time: time.Now()}) != nil {
		return store.Token{}, store.ErrNoToken
	}
	t, _, err := m.store.TokenOf(ctx, claims.Subject)
	return t, err
}
