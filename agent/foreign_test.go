package agent_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"towpath/agent/edge"
	"towpath/agent/hub"
	"towpath/internal/testkit/oidc"
)

// theHub is the hub as a resource of an issuer: tokens for it are asked for by this name.
const theHub = "https://hub.example.com"

// foreign is an issuer that is not ours, a hub that trusts it, and an agent that it knows.
type foreign struct {
	*world
	issuer   *oidc.Issuer
	settings oidc.Settings
	ahead    atomic.Int64 // of the hub's clock that says how old the issuer's keys are: a time.Duration
}

func newForeign(t *testing.T, change func(*oidc.Settings)) *foreign {
	t.Helper()
	f := &foreign{world: newWorld(t, hub.Limits{}), settings: oidc.Settings{
		Clients:   []oidc.Client{{ID: "prod-agent", Secret: "s3cret"}},
		Resources: map[string]oidc.Resource{theHub: {Audience: audience, Scope: hub.Scope, Seconds: 600}},
		Keys:      []string{"first"},
	}}
	if change != nil {
		change(&f.settings)
	}
	f.issuer = oidc.Start(t, f.settings)
	f.trust(f.issuer)
	return f
}

// trust makes the hub take the tokens of one issuer, and of no other.
func (f *foreign) trust(i *oidc.Issuer) {
	f.t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(i.CA)
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	f.t.Cleanup(client.CloseIdleConnections)
	clock := func() time.Time { return time.Now().Add(time.Duration(f.ahead.Load())) }
	verifier, err := hub.NewVerifier(hub.VerifierConfig{Issuer: i.URL, Audience: audience, Keys: hub.NewRemoteKeys(i.URL, client, clock), Lookup: f.lookup})
	ok(f.t, err)
	f.names["prod-agent"] = "prod"
	f.hub.Close()
	f.verify = hub.Issuers{verifier}.Verify
	f.startHub("127.0.0.1:0")
}

func (f *foreign) agent() edge.Config {
	return edge.Config{
		Agent: "prod", Instance: "prod-0", Listen: "off", Hub: edge.Hub{Address: f.address, CAFile: f.ca}, Kubernetes: edge.Kubernetes{Off: true},
		Identity: edge.Identity{Issuer: f.issuer.URL, ClientID: "prod-agent", ClientSecretFile: f.file("secret", []byte("s3cret")), Resource: theHub,
			CAFile: f.file("issuer.pem", f.issuer.CA)},
	}
}

// renewed waits until the hub has a later token of the very session.
func (f *foreign) renewed(what string) {
	f.t.Helper()
	first := f.hub.Agents()[0]
	f.await(func() bool {
		list := f.hub.Agents()
		return len(list) == 1 && list[0].Since.Equal(first.Since) && list[0].TokenExpiry.After(first.TokenExpiry)
	}, what)
}

func TestAForeignIssuersTokensConnectAndAreRenewedInOneSession(t *testing.T) {
	t.Parallel()
	f := newForeign(t, func(s *oidc.Settings) {
		s.Resources[theHub] = oidc.Resource{Audience: audience, Scope: hub.Scope, Seconds: 2}
	})
	f.start(f.agent(), edge.Timing{})
	f.renewed("the next token")

	f.settings.Keys = []string{"second", "first"} // its former key still counts, as issuers do it
	f.issuer.Change(f.settings)
	f.ahead.Store(int64(31 * time.Second)) // the hub asks for unknown keys each 30 s
	f.renewed("a token of the issuer's new key")
	f.renewed("the one after it")

	f.settings.Clients = []oidc.Client{{ID: "prod-agent", Secret: "another"}}
	f.issuer.Change(f.settings)
	f.await(func() bool {
		return strings.Contains(strings.ReplaceAll(f.logs.String(), `\`, ""), `refused client "prod-agent": invalid_client`)
	}, "the agent says that its secret counts no more")
	equal(t, len(f.hub.Agents()), 1, "sessions: its last token still counts")
}

func TestAForeignIssuersTokenThatIsNotRightIsRefusedAndToldWhy(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		issuer func(*oidc.Settings)
		agent  func(*edge.Config)
		told   []string
	}{
		"for another audience": {issuer: func(s *oidc.Settings) {
			s.Resources[theHub] = oidc.Resource{Audience: "shop", Scope: hub.Scope, Seconds: 600}
		},
			told: []string{`expected audience "towpath-hub" got ["shop"]`}},
		"without the scope": {issuer: func(s *oidc.Settings) {
			s.Resources[theHub] = oidc.Resource{Audience: audience, Scope: "other", Seconds: 600}
		},
			told: []string{`the token's scope does not hold "agent:connect"`}},
		"that asks for no scope": {agent: func(c *edge.Config) { c.Identity.Scope = "-" }, told: []string{`the token's scope does not hold "agent:connect"`}},
		"signed by a secret": {issuer: func(s *oidc.Settings) {
			s.Resources[theHub] = oidc.Resource{Audience: audience, Scope: hub.Scope, Seconds: 600, Alg: "HS256"}
		}, told: []string{"HS256"}},
		"of no resource, which is no JWT": {agent: func(c *edge.Config) { c.Identity.Resource = "" },
			told: []string{"the token is no JWT that names its issuer", "identity.resource of the agent"}},
		"for a resource that the issuer does not know": {agent: func(c *edge.Config) { c.Identity.Resource = "https://elsewhere.example.com" },
			told: []string{`refused client "prod-agent": invalid_target`}},
		"with a wrong secret": {issuer: func(s *oidc.Settings) { s.Clients[0].Secret = "another" }, told: []string{`refused client "prod-agent": invalid_client`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newForeign(t, test.issuer)
			c := f.agent()
			if test.agent != nil {
				test.agent(&c)
			}
			f.refused(c, test.told...)
		})
	}
}

// refused runs an agent that is not to connect, and checks what it says.
func (f *foreign) refused(c edge.Config, told ...string) {
	f.t.Helper()
	f.run(c, edge.Timing{})
	f.await(func() bool { return strings.Contains(f.logs.String(), "not connected") }, "the agent was refused")
	contains(f.t, strings.ReplaceAll(f.logs.String(), `\`, ""), told...)
	equal(f.t, len(f.hub.Agents()), 0, "sessions")
}

func TestATokenOfAnotherForeignIssuerIsRefusedByItsName(t *testing.T) {
	t.Parallel()
	f := newForeign(t, nil)
	c := f.agent()
	other := oidc.Start(t, f.settings)
	f.trust(other)
	c.Hub.Address = f.address
	f.refused(c, `the token is one of issuer "`+f.issuer.URL+`"; trusted here: `+other.URL)
}
