package main

import (
	"context"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"towpath/agent/edge"
	"towpath/api"
	"towpath/internal/testkit/plainkube"
)

// relay makes an agent of a name and runs it in front of an API server until the test ends.
func (c *controller) relay(admin, name string, server *plainkube.Cluster) {
	c.t.Helper()
	var made api.Credential
	c.call(admin, http.MethodPost, "/api/v1/agents", map[string]string{"name": name}).read(c.t, &made)
	c.inFrontOf(made, server)()
}

// inFrontOf gives what runs an agent in front of an API server until the test ends, or stop is called.
func (c *controller) inFrontOf(made api.Credential, server *plainkube.Cluster) (run func() (stop func())) {
	c.t.Helper()
	dir := c.t.TempDir()
	write := func(name string, content []byte) string {
		name = filepath.Join(dir, name)
		must(c.t, os.WriteFile(name, content, 0o600))
		return name
	}
	ca := filepath.Join(c.config.Data, "tls", caFile)
	config := edge.Config{Agent: made.Agent, Instance: made.Agent, Listen: "off", Hub: edge.Hub{Address: c.HubAddress, CAFile: ca},
		Identity: edge.Identity{Issuer: made.Issuer, TokenURL: "https://" + c.Address + "/oauth/token", Audience: made.Audience, ClientID: made.ClientID,
			ClientSecretFile: write("secret", []byte(made.Secret)), CAFile: ca},
		Kubernetes: edge.Kubernetes{Server: server.URL, TokenFile: write("token", []byte("of-the-agent")),
			CAFile: write("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))}}
	return func() func() {
		ctx, cancel := context.WithCancel(context.WithoutCancel(c.t.Context())) // the controller may end before
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = edge.Run(ctx, config, edge.Options{Version: "test", Log: quiet(), Getenv: func(string) string { return "" }, Timing: edge.Timing{Drain: time.Millisecond}})
		}()
		stop := func() { cancel(); <-ended }
		c.t.Cleanup(stop)
		return stop
	}
}

// onEach is an application of one ConfigMap with a target for each account, in a namespace of its own.
func onEach(application string, accounts ...string) api.Upload {
	var text strings.Builder
	text.WriteString("application: " + application + "\nmanifests: [{path: m.yaml}]\nstrategies: {all: {canary: {steps: [{setWeight: {weight: 100}}]}}}\ntargets:\n")
	for i, account := range accounts {
		fmt.Fprintf(&text, "  t%d: {account: %s, namespace: %s-%d, strategy: all}\n", i, account, application, i)
	}
	return api.Upload{Path: "deploy.yml", Files: map[string][]byte{"deploy.yml": []byte(text.String()),
		"m.yaml": []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {value: '1'}\n")}}
}

func (c *controller) deploys(token string, u api.Upload) (id string) {
	c.t.Helper()
	a := c.call(token, http.MethodPost, "/api/v1/deployments", u)
	if a.status != http.StatusCreated {
		c.t.Fatalf("%d %s", a.status, a.text)
	}
	var started api.Started
	a.read(c.t, &started)
	return started.ID
}

func (c *controller) deployment(token, id string) (d api.Deployment) {
	c.t.Helper()
	c.call(token, http.MethodGet, "/api/v1/deployments/"+id, nil).read(c.t, &d)
	return d
}

// Of fifty clusters one never answers and one answers each request late, with more targets than run at once on one cluster.
func TestOneDeadAndOneSlowClusterOfFiftyHoldUpNoOther(t *testing.T) {
	t.Parallel()
	const well, applications, targets = 48, 2, 60
	over := make(chan struct{})
	var sick atomic.Bool // from when the agents are there
	holds := func(late <-chan time.Time, r *http.Request) int {
		if !sick.Load() {
			return 0
		}
		select {
		case <-over:
		case <-late:
		case <-r.Context().Done():
		}
		return 0
	}
	c := start(t, configure(t, ""))
	admin := c.token("main", "ann", api.Admin, api.Start, api.View)
	c.relay(admin, "dead", plainkube.New(t, func(r *http.Request) int { return holds(nil, r) }))
	c.relay(admin, "slow", plainkube.New(t, func(r *http.Request) int { return holds(time.After(5*time.Second), r) }))
	var held, others []string
	for i := range targets {
		held = append(held, "slow")
		if i%10 == 0 {
			held[i] = "dead"
		}
	}
	for i := range well {
		name := fmt.Sprintf("well-%d", i)
		c.relay(admin, name, plainkube.New(t, nil))
		others = append(others, name)
	}
	t.Cleanup(func() { must(t, c.Close()) }) // while its agents are there: runs come to their ends
	t.Cleanup(func() { close(over) })
	for _, name := range append([]string{"dead", "slow"}, others...) {
		await(t, "agent "+name, func() bool { return c.hub.Connected("main", name) })
	}

	sick.Store(true)
	var stuck []string
	for i := range applications {
		stuck = append(stuck, c.deploys(admin, onEach(fmt.Sprintf("stuck-%d", i), held...)))
	}
	await(t, "requests that hang at both", func() bool {
		loads := c.clusters.loads()
		return loads[[2]string{"main", "dead"}].Running > 0 && loads[[2]string{"main", "slow"}].Waiting > 0
	})
	shop := c.deploys(admin, onEach("shop", others...))
	await(t, "all others", func() bool { return c.deployment(admin, shop).State == "SUCCEEDED" })

	metrics := c.call("", http.MethodGet, "/metrics", nil).text
	for _, of := range []string{`_limit{account="slow",tenant="main"} `, `{account="slow",state="running",tenant="main"} `, `{account="slow",state="waiting",tenant="main"} `} {
		if !strings.Contains(metrics, "towpath_cluster_requests"+of) {
			t.Errorf("metrics do not say %s", of)
		}
	}
	done := map[string]int{}
	for _, id := range stuck {
		for _, target := range c.deployment(admin, id).Targets {
			if target.State == "SUCCEEDED" {
				done[target.Account]++
			}
		}
	}
	if done["dead"] > 0 || done["slow"] > applications*targets/2 {
		t.Errorf("the two were to be held, yet they are done with %v", done)
	}
}
