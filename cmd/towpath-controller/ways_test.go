package main

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"towpath/agent/hub"
	"towpath/api"
	"towpath/internal/testkit/plainkube"
)

// agent is an agent as it is listed.
func (c *controller) agent(token, name string) (found api.Agent) {
	c.t.Helper()
	var list struct{ Items []api.Agent }
	c.call(token, http.MethodGet, "/api/v1/agents", nil).read(c.t, &list)
	for _, a := range list.Items {
		if a.Name == name {
			return a
		}
	}
	c.t.Fatalf("no agent %s is listed", name)
	return found
}

// says waits until an agent, and each wait for it, says a reason with the time since when.
func (c *controller) says(token, deployment, why string) {
	c.t.Helper()
	told := func(text string) bool {
		return strings.HasPrefix(text, "since 20") && strings.HasSuffix(text, " UTC: "+why)
	}
	await(c.t, "that the agent says: "+why, func() bool { a := c.agent(token, "prod"); return told(a.Why) && a.Since != nil })
	await(c.t, "that the deployment says: "+why, func() bool {
		waits := c.deployment(token, deployment).Targets[0].Waits
		return len(waits) == 1 && waits[0].Kind == "agent" && told(waits[0].Why)
	})
	var apps struct{ Items []api.Application }
	c.call(token, http.MethodGet, "/api/v1/applications", nil).read(c.t, &apps)
	if w := apps.Items[0].Lanes[0].Waits; len(w) != 1 || !told(w[0].Why) {
		c.t.Errorf("the application does not say %q: %+v", why, w)
	}
}

func TestAnAgentThatIsAwayIsShownWithSinceAndWhy(t *testing.T) {
	t.Parallel()
	settings := configure(t, "")
	c := start(t, settings)
	admin := c.token("main", "ann", api.Admin, api.Start, api.View)
	server := plainkube.New(t, nil)
	var made api.Credential
	c.call(admin, http.MethodPost, "/api/v1/agents", map[string]string{"name": "prod"}).read(t, &made)
	id := c.deploys(admin, upload("shop", "1"))
	c.says(admin, id, "it has never connected")

	run := c.inFrontOf(made, server)
	stop := run()
	await(t, "the deployment's end", func() bool { return c.deployment(admin, id).State == "SUCCEEDED" })
	if a := c.agent(admin, "prod"); !a.Connected || a.Why != "" {
		t.Errorf("while all is well: %+v", a)
	}
	stop()
	id = c.deploys(admin, upload("shop", "2"))
	c.says(admin, id, "the agent stopped")

	run()
	await(t, "the deployment's end", func() bool { return c.deployment(admin, id).State == "SUCCEEDED" })
	must(t, c.Close())
	after := start(t, settings)
	id = after.deploys(admin, upload("shop", "3"))
	after.says(admin, id, "the hub stops")
	must(t, after.store.AgentCame(t.Context(), "main", "prod")) // what is known when the controller was killed
	after.says(admin, id, "it has not come back since the controller started")
}

func TestAClusterThatFailsIsShownWithSinceAndWhy(t *testing.T) {
	t.Parallel()
	c := start(t, configure(t, ""))
	admin := c.token("main", "ann", api.Admin, api.Start, api.View)
	var unknown, fails atomic.Bool
	unknown.Store(true)
	c.relay(admin, "prod", plainkube.New(t, func(r *http.Request) int {
		if fails.Load() || unknown.Load() && strings.HasSuffix(r.URL.Path, "/kube-system") {
			return http.StatusServiceUnavailable
		}
		return 0
	}))
	id := c.deploys(admin, upload("shop", "1"))
	c.says(admin, id, "it is connected, and carries nothing until its cluster has said who it is")
	unknown.Store(false)
	c.hub.Readmit("main", "prod")
	await(t, "the deployment's end", func() bool { return c.deployment(admin, id).State == "SUCCEEDED" })
	if a := c.agent(admin, "prod"); a.Why != "" {
		t.Errorf("while all is well: %+v", a)
	}

	fails.Store(true)
	id = c.deploys(admin, upload("shop", "2"))
	await(t, "that the agent says what is wrong", func() bool {
		why := c.agent(admin, "prod").Why
		return strings.Contains(why, "its API server has failed ") && strings.HasSuffix(why, " requests in a row; the last was answered 503 Service Unavailable")
	})
	await(t, "that the deployment says it, too", func() bool {
		waits := c.deployment(admin, id).Targets[0].Waits
		return len(waits) == 1 && waits[0].Kind == "retry" && strings.Contains(waits[0].Needs, "a plain server says Service Unavailable")
	})
	fails.Store(false)
	await(t, "the deployment's end", func() bool { return c.deployment(admin, id).State == "SUCCEEDED" })
	if a := c.agent(admin, "prod"); a.Why != "" {
		t.Errorf("after it: %+v", a)
	}
}

func TestARevokedAgentsWatchesEndAndItStaysAway(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		method, path string
		body         any
		why          string
	}{
		"removed":                     {http.MethodDelete, "/api/v1/agents/prod", nil, "the agent prod was removed"},
		"its tokens revoked":          {http.MethodPost, "/api/v1/agents/prod/revoke", nil, "the tokens of agent prod were revoked; it may come back with a new one"},
		"its secret replaced at once": {http.MethodPost, "/api/v1/agents/prod/rotate", map[string]any{}, "the tokens of agent prod were revoked; it may come back with a new one"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := start(t, configure(t, ""))
			admin := c.token("main", "ann", api.Admin)
			c.relay(admin, "prod", plainkube.New(t, nil))
			await(t, "the agent", func() bool { return c.hub.Connected("main", "prod") })
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://cluster/api/v1/configmaps?watch=1", nil)
			must(t, err)
			watch, err := c.hub.Transport("main", "prod").RoundTrip(request)
			must(t, err)
			defer watch.Body.Close()
			if a := c.call(admin, test.method, test.path, test.body); a.status >= 300 {
				t.Fatalf("%d %s", a.status, a.text)
			}
			var refused *hub.Error
			if _, err := io.ReadAll(watch.Body); !errors.As(err, &refused) || refused.Code != hub.Refused || refused.Message != test.why {
				t.Errorf("the watch ended with: %v", err)
			}
			await(t, "the end of its session", func() bool { return !c.hub.Connected("main", "prod") })
		})
	}
}
