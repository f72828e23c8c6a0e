package main

import (
	"cmp"
	"fmt"
	"net/url"
	"os"
	"slices"
	"time"

	"towpath/agent/hub"
	"towpath/cmd/towpath-controller/config"
	"towpath/internal/egress"
)

// verifier proves agents' tokens of an issuer elsewhere. The issuer may be private: the operator named it.
func (m *Main) verifier(i config.Issuer) (*hub.Verifier, error) {
	base, err := url.Parse(i.URL)
	if err != nil {
		return nil, fmt.Errorf("agents.issuers: %w", err)
	}
	var ca []byte
	if i.CAFile != "" {
		if ca, err = os.ReadFile(i.CAFile); err != nil {
			return nil, fmt.Errorf("agents.issuers: issuer %s: caFile: %w", i.URL, err)
		}
	}
	client, err := egress.New(egress.Config{AllowHosts: []string{"*"}, AllowPrivate: []string{base.Host}, CABundle: ca, Proxy: true, Timeout: 10 * time.Second,
		MaxResponseBytes: 1 << 20, Setting: "agents.issuers"})
	if err != nil {
		return nil, fmt.Errorf("agents.issuers: issuer %s: %w", i.URL, err)
	}
	return hub.NewVerifier(hub.VerifierConfig{Issuer: i.URL, Audience: cmp.Or(i.Audience, m.config.Agents.Audience), Lookup: m.lookUp, Keys: hub.NewRemoteKeys(i.URL, client.HTTP(), time.Now)})
}

// trusts reports whether agents may have their credentials from an issuer elsewhere.
func (b *backend) trusts(issuer string) bool {
	return slices.ContainsFunc(b.config.Agents.Issuers, func(i config.Issuer) bool { return i.URL == issuer })
}
