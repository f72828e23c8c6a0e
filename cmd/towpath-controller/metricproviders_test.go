package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"towpath/agent/edge"
	"towpath/analysis"
	"towpath/api"
	"towpath/internal/testkit/prometheus"
)

func TestAMetricProviderIsReachedDirectlyOrThroughAnAgent(t *testing.T) {
	t.Parallel()
	server := prometheus.Start(t)
	password := filepath.Join(t.TempDir(), "password")
	c := start(t, configure(t, fmt.Sprintf(`metricProviders:
  - {name: direct, type: prometheus, url: %[1]s, auth: {username: %[2]s, passwordFile: %[3]s}}
  - {name: inside, type: prometheus, agent: prod, agentTarget: prometheus, url: /, auth: {username: %[2]s, passwordFile: %[3]s}}
  - {name: unlisted, type: prometheus, agent: prod, auth: {username: %[2]s, passwordFile: %[3]s}}
  - {name: away, type: newRelic, agent: nobody, newRelic: {accountId: 1, userKeyFile: %[3]s}}
  - {name: theirs, type: datadog, tenants: [other], url: 'http://127.0.0.1:1', datadog: {apiKeyFile: %[3]s, applicationKeyFile: %[3]s}}
`, server.URL, prometheus.User, password)))

	if _, err := c.providers.Provider("main", "direct"); err == nil || !strings.Contains(err.Error(), "metric provider direct: auth.passwordFile: open "+password) {
		t.Errorf("without its secret: %v", err)
	}
	must(t, os.WriteFile(password, []byte(" \n"), 0o600))
	if _, err := c.providers.Provider("main", "direct"); err == nil || !strings.Contains(err.Error(), "auth.passwordFile: "+password+" is empty") {
		t.Errorf("with an empty secret: %v", err)
	}
	must(t, os.WriteFile(password, []byte("guessed"), 0o600))
	wants[*analysis.Refused](t, c.measure(t, "main", "direct"), "metric provider direct", "401 Unauthorized")
	must(t, os.WriteFile(password, []byte(prometheus.Password+"\n"), 0o600))
	must(t, c.measure(t, "main", "direct"))

	admin := c.token("main", "ann", api.Admin)
	var made api.Credential
	c.call(admin, http.MethodPost, "/api/v1/agents", map[string]string{"name": "prod"}).read(t, &made)
	c.connectBy(made, "one", "https://"+c.Address+"/oauth/token", filepath.Join(c.config.Data, "tls", caFile), func(e *edge.Config) {
		e.Targets = []edge.Target{{Name: "prometheus", URL: server.URL, Paths: []string{"/api/v1/query"}}}
	})
	await(t, "the agent", func() bool { return c.hub.Connected("main", "prod") })
	must(t, c.measure(t, "main", "inside"))
	wants[*analysis.Refused](t, c.measure(t, "main", "unlisted"), `"unlisted" is not on the agent's allow-list`, `targets: [{name: "unlisted"`)
	wants[*analysis.Unavailable](t, c.measure(t, "other", "theirs"), "metric provider theirs is not available", "connection refused")

	for tenant, want := range map[string]string{
		"main":  "there is no metric provider theirs; the controller's configuration has away, direct, inside, unlisted for the tenant main",
		"third": "there is no metric provider theirs; the controller's configuration has away, direct, inside, unlisted for the tenant third",
	} {
		if _, err := c.providers.Provider(tenant, "theirs"); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestAMetricProviderBehindAnAgentThatIsAwayMayComeBack(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "key")
	must(t, os.WriteFile(key, []byte("k"), 0o600))
	c := start(t, configure(t, "metricProviders: [{name: away, type: newRelic, agent: nobody, newRelic: {accountId: 1, userKeyFile: "+key+"}}]\n"))
	err := c.measure(t, "main", "away")
	wants[*analysis.Unavailable](t, err, `metric provider away is not available: agent "nobody", target "away": NO_AGENT`)
	if !away(err) {
		t.Errorf("that its agent is away is lost: %v", err)
	}
}

func TestCheckOpensEachMetricProvider(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good, lines := filepath.Join(dir, "good"), filepath.Join(dir, "lines")
	must(t, os.WriteFile(good, []byte("k"), 0o600))
	must(t, os.WriteFile(lines, []byte("k\nk"), 0o600))
	for text, want := range map[string]string{
		"type: http, url: 'https://host/{{query}}', http: {value: $.x}, auth: {tokenFile: " + good + "}": "",
		"type: http, url: 'https://host/{{query}}', http: {value: x}":                                    "metric provider p: value: \"x\" is no JSON path like $.data.value",
		"type: http, url: 'https://host/{{query}}/{{step}}', http: {value: $.x}":                         "there is no variable step; known are query, start, end",
		"type: prometheus, url: 'https://host', caFile: " + good:                                         "metric provider p: metricProviders.caBundle: no certificate in PEM is in it",
		"type: prometheus, url: 'https://host', auth: {tokenFile: " + lines + "}":                        "metric provider p: a secret holds a line break",
		"type: prometheus, url: 'https://host', auth: {tokenFile: " + dir + "/none}":                     "metric provider p: auth.tokenFile: open " + dir,
	} {
		if err := check(configure(t, "metricProviders: [{name: p, "+text+"}]\n")); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

// measure asks a provider for one.
func (c *controller) measure(t *testing.T, tenant, name string) error {
	t.Helper()
	p, err := c.providers.Provider(tenant, name)
	must(t, err)
	now := time.Now()
	m, err := p.Measure(t.Context(), "vector(1)", analysis.Window{Start: now.Add(-time.Minute), End: now})
	if err == nil && m.Value != 1 {
		t.Errorf("%s: got %v", name, m.Value)
	}
	return err
}

// wants checks that an error is of a type, and says its parts.
func wants[E error](t *testing.T, err error, says ...string) {
	t.Helper()
	var is E
	if !errors.As(err, &is) {
		t.Fatalf("got %T: %v; want %T", err, err, is)
	}
	for _, part := range says {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q:\n%v", part, err)
		}
	}
}
