package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"

	"towpath/agent/hub"
	"towpath/analysis"
	"towpath/cmd/towpath-controller/config"
	"towpath/internal/egress"
)

// metricProviders are those of the configuration. Safe for concurrent use.
type metricProviders struct {
	all []metricProvider
	hub *hub.Hub
}

type metricProvider struct {
	config.MetricProvider
	direct *egress.Client // nil: reached through an agent
}

// newMetricProviders fails where a provider could never be asked. Secrets are not read yet: they may come, and change, while the controller runs.
func newMetricProviders(all []config.MetricProvider, h *hub.Hub) (*metricProviders, error) {
	m := &metricProviders{hub: h}
	for _, c := range all {
		p := metricProvider{MetricProvider: c}
		if c.Agent == "" {
			var err error
			if p.direct, err = providerEgress(&p.MetricProvider); err != nil {
				return nil, fmt.Errorf("metric provider %s: %w", c.Name, err)
			}
		}
		if _, err := m.open(p, "", func(string, string) (string, error) { return "", nil }); err != nil {
			return nil, err
		}
		m.all = append(m.all, p)
	}
	return m, nil
}

// providerEgress reaches one provider; its host may be private, since the operator named it.
func providerEgress(p *config.MetricProvider) (*egress.Client, error) {
	p.URL = cmp.Or(p.URL, map[string]string{"datadog": analysis.Datadog, "newRelic": analysis.NewRelic}[p.Type])
	base, err := url.Parse(p.URL)
	if err != nil {
		return nil, errors.New("url is no address like https://HOST") // without it: it may hold a password
	}
	var ca []byte
	if p.CAFile != "" {
		if ca, err = os.ReadFile(p.CAFile); err != nil {
			return nil, fmt.Errorf("caFile: %w", err)
		}
	}
	return egress.New(egress.Config{AllowHosts: []string{base.Host}, AllowPrivate: []string{base.Host}, CABundle: ca, Proxy: true, Setting: "metricProviders"})
}

// Provider is the provider of a name for a tenant, with its secrets as they are now.
func (m *metricProviders) Provider(tenant, name string) (*analysis.Provider, error) {
	var known []string
	for _, p := range m.all {
		if !p.MayUse(tenant) {
			continue
		}
		if p.Name == name {
			return m.open(p, tenant, readSecret)
		}
		known = append(known, p.Name)
	}
	if len(known) == 0 {
		return nil, fmt.Errorf("there is no metric provider %s: the controller's configuration has none (metricProviders) for the tenant %s", name, tenant)
	}
	slices.Sort(known)
	return nil, fmt.Errorf("there is no metric provider %s; the controller's configuration has %s for the tenant %s", name, strings.Join(known, ", "), tenant)
}

// check opens each with its secrets.
func (m *metricProviders) check() error {
	var wrong []error
	for _, p := range m.all {
		_, err := m.open(p, "", readSecret)
		wrong = append(wrong, err)
	}
	return errors.Join(wrong...)
}

// open makes a provider; secret reads a file, which a field names.
func (m *metricProviders) open(p metricProvider, tenant string, secret func(field, file string) (string, error)) (*analysis.Provider, error) {
	s := analysis.Server{Name: p.Name, URL: p.URL, Forbidden: forbidden}
	if p.direct != nil {
		s.Transport = p.direct.Transport()
	} else {
		// Of the address only the path counts: host and scheme are the agent's to know.
		s.URL = "http://agent" + cmp.Or(p.URL, map[string]string{"newRelic": "/graphql"}[p.Type])
		s.Transport = m.hub.Transport(tenant, p.Agent, hub.Target(cmp.Or(p.AgentTarget, p.Name)))
	}
	var wrong error
	read := func(field, file string) string {
		if file == "" {
			return ""
		}
		text, err := secret(field, file)
		if err != nil {
			wrong = errors.Join(wrong, fmt.Errorf("metric provider %s: %w", p.Name, err))
		}
		return text
	}
	auth := analysis.Auth{Token: read("auth.tokenFile", p.Auth.TokenFile), Username: p.Auth.Username, Password: read("auth.passwordFile", p.Auth.PasswordFile)}
	apiKey, applicationKey := read("datadog.apiKeyFile", p.Datadog.APIKeyFile), read("datadog.applicationKeyFile", p.Datadog.ApplicationKeyFile)
	userKey := read("newRelic.userKeyFile", p.NewRelic.UserKeyFile)
	if wrong != nil {
		return nil, wrong
	}
	switch p.Type {
	case "datadog":
		return analysis.NewDatadog(s, apiKey, applicationKey)
	case "newRelic":
		return analysis.NewNewRelic(s, userKey, p.NewRelic.AccountID)
	case "http":
		return analysis.NewHTTP(s, auth, p.HTTP.Body, p.HTTP.Value)
	}
	return analysis.NewPrometheus(s, auth)
}

func readSecret(field, file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("%s: %w", field, err)
	}
	if secret := strings.TrimSpace(string(text)); secret != "" {
		return secret, nil
	}
	return "", fmt.Errorf("%s: %s is empty", field, file)
}

// forbidden reports whether a call was refused by the controller's own configuration, or by the agent's.
func forbidden(err error) bool {
	var refused *egress.Refused
	var tunnel *hub.Error
	return errors.As(err, &refused) || errors.As(err, &tunnel) && !tunnel.Temporary()
}
