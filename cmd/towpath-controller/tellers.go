package main

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"towpath/cmd/towpath-controller/config"
	"towpath/internal/egress"
	"towpath/status"
	"towpath/store"
)

// tellers makes a Teller for each identity on a GitHub that the sources name, and gives the GitHub of each source about whose commits is told.
func tellers(sources []config.Source, apps *gitHubApps, s *store.Store, link func(tenant, deployment string) string, log *logrus.Entry) (all []*status.Teller, told map[string]*status.GitHub, err error) {
	// An App is installed on an account once, and what may be sent is counted for each installation.
	type identity struct{ api, token, app, account string }
	byIdentity, forges := map[identity]*status.Config{}, map[identity]*status.GitHub{}
	told = map[string]*status.GitHub{}
	for _, source := range sources {
		g := source.GitHub
		if g.Repository == "" {
			continue
		}
		key := identity{api: g.APIURL, token: g.TokenFile}
		if g.App != "" {
			a, err := apps.get(g.App)
			if err != nil {
				return nil, nil, fmt.Errorf("source %s: %w", source.Name, err)
			}
			account, _, _ := strings.Cut(g.Repository, "/")
			key = identity{app: g.App, account: strings.ToLower(account)}
			g.PerMinute, g.PerHour = a.config.PerMinute, a.config.PerHour
		}
		c := byIdentity[key]
		if c == nil {
			forge, err := gitHub(g, apps)
			if err != nil {
				return nil, nil, fmt.Errorf("source %s: %w", source.Name, err)
			}
			c = &status.Config{Outbox: s, Forge: forge, Repositories: map[string]string{}, Link: link, Clock: time.Now, Log: log,
				Budget: status.Budget{Minute: g.PerMinute, Hour: g.PerHour}}
			byIdentity[key], forges[key] = c, forge
		}
		told[source.Name] = forges[key]
		c.Budget.Minute, c.Budget.Hour = min(c.Budget.Minute, g.PerMinute), min(c.Budget.Hour, g.PerHour)
		c.Repositories[source.Name] = g.Repository
	}
	for _, c := range byIdentity {
		c.Budget.Pause = max(time.Second, time.Minute/time.Duration(c.Budget.Minute))
		all = append(all, status.New(*c))
	}
	return all, told, nil
}

// gitHub is as whom a source's commits are told about.
func gitHub(g config.GitHub, apps *gitHubApps) (*status.GitHub, error) {
	if g.App != "" {
		a, err := apps.get(g.App)
		if err != nil {
			return nil, err
		}
		return status.NewGitHub(status.GitHubConfig{App: a.App})
	}
	web, err := gitHubClient(g.APIURL, g.CAFile)
	if err != nil {
		return nil, err
	}
	token := func() (string, error) {
		text, err := os.ReadFile(g.TokenFile)
		if err != nil {
			return "", fmt.Errorf("github.tokenFile: %w", err)
		}
		if token := strings.TrimSpace(string(text)); token != "" {
			return token, nil
		}
		return "", fmt.Errorf("github.tokenFile: %s is empty", g.TokenFile)
	}
	return status.NewGitHub(status.GitHubConfig{APIURL: g.APIURL, Token: token, HTTP: web, Clock: time.Now})
}

// gitHubClient reaches one GitHub; its host may be private, since the operator named it.
func gitHubClient(api, caFile string) (*http.Client, error) {
	base, err := url.Parse(api)
	if err != nil || base.Host == "" {
		return nil, fmt.Errorf("github.apiURL: %q is no http(s) address", api)
	}
	var ca []byte
	if caFile != "" {
		if ca, err = os.ReadFile(caFile); err != nil {
			return nil, fmt.Errorf("github.caFile: %w", err)
		}
	}
	client, err := egress.New(egress.Config{AllowHosts: []string{base.Host}, AllowPrivate: []string{base.Host}, CABundle: ca, Proxy: true,
		MaxResponseBytes: 8 << 20, Setting: "github"})
	if err != nil {
		return nil, err
	}
	return client.HTTP(), nil
}
