package config

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the generated pages")

const good = `
externalURL: https://towpath.example.com/
database: sqlite:/var/lib/towpath/towpath.db
keyFile: /etc/towpath/key
data: /var/lib/towpath
sources:
  - name: shop
    url: https://github.com/acme/shop.git
    branch: main
    allow: [{accounts: [staging], namespaces: ["shop-*"], kinds: ["*"]}]
`

func TestDefaultsAreFilledIn(t *testing.T) {
	c, err := Parse("towpath.yaml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:8080" || c.Prune.Removals != 10 || c.Prune.Shrink != 0.3 || c.Render.Timeout != 10*time.Second || c.Revisions.Keep != 3 {
		t.Errorf("defaults are missing: %+v", c)
	}
	if s := c.Sources[0]; s.Schedule != "@every 30s" || s.Tenant != "main" || s.GitHub.APIURL != "https://api.github.com/" {
		t.Errorf("a source's defaults are missing: %+v", s)
	}
	if c.ExternalURL != "https://towpath.example.com" {
		t.Errorf("externalURL is %s", c.ExternalURL)
	}
}

func TestWhatIsWrongIsToldAllAtOnceWithPlaceAndRemedy(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"unknown keys": {good + "lisen: x\nlog: {levle: info}\n", []string{"towpath.yaml:11: unknown key lisen; known here: listen, externalURL,", "towpath.yaml:12: unknown key levle; known here: level, format"}},
		"a wrong type": {good + "prune: {removals: many}\n", []string{"line 11: cannot unmarshal !!str `many` into int"}},
		"bad values": {strings.ReplaceAll(good, "sqlite:/var/lib/towpath/towpath.db", "mysql://x") + "  - {name: shop, url: x, schedule: sometimes, github: {repository: acme}}\n",
			[]string{`database: write sqlite:PATH or postgres://…, not "mysql://x"`, "sources[1].name: a second source named shop", "sources[1].schedule:",
				"sources[1].github: repository is OWNER/NAME, and app or tokenFile is required with it"}},
		"keys for SOPS":    {good + "sops: [{tenant: main}, {ageKeyFiles: [a], sources: ['[']}, {ageKeyFile: a}]\n", []string{"towpath.yaml:11: unknown key ageKeyFile; known here: tenant, ageKeyFiles, pgpKeyFiles, sources, applications"}},
		"no keys for SOPS": {good + "sops: [{tenant: main}, {ageKeyFiles: [a], sources: ['[']}]\n", []string{"sops[0]: ageKeyFiles or pgpKeyFiles is required", `sops[1]: "[" is no pattern`}},
		"a database twice": {good + "databaseFile: /etc/towpath/database\n", []string{"database and databaseFile say the same thing"}},
		"peers beside SQLite": {good + "peers: {listen: ':8444'}\n", []string{"peers.listen: replicas share a PostgreSQL database; with SQLite there is one controller",
			`peers.address: say how the other replicas reach this one; peers.listen (":8444") names no host`}},
		"peers that nobody listens to": {good + "peers: {address: 10.0.0.1}\n", []string{"peers.address: peers.listen is missing"}},
		"tenants' egress": {good + "egress: {tenants: [{name: a b}, {name: shop}, {name: shop}]}\n",
			[]string{`egress.tenants[0].name: "a b"; letters, digits, - and _, at most 63`, "egress.tenants[2].name: a second entry for shop"}},
		"nothing": {"", []string{`externalURL: "" is no http(s) address`, "keyFile is required; `towpath-controller key` prints a new key", "data is required"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("towpath.yaml", []byte(c.text))
			if err == nil {
				t.Fatal("it was taken")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q:\n%v", want, err)
				}
			}
		})
	}
}

func TestMetricProvidersAreChecked(t *testing.T) {
	for text, want := range map[string]string{
		"{name: p, type: prometheus, url: 'http://prometheus.monitoring:9090'}":                                                       "",
		"{name: p, type: prometheus, agent: prod, agentTarget: prometheus, url: /thanos, auth: {username: u, passwordFile: f}}":       "",
		"{name: p, type: datadog, datadog: {apiKeyFile: f, applicationKeyFile: f}}":                                                   "",
		"{name: p, type: newRelic, newRelic: {userKeyFile: f, accountId: 1}}":                                                         "",
		"{name: p, type: http, url: 'https://host/?q={{query}}', http: {value: $.x}, auth: {tokenFile: f}}":                           "",
		"{name: p, type: prometheus, tenants: [a], url: 'https://h'}, {name: p, type: prometheus, tenants: [b], url: 'https://h'}":    "",
		"{name: p, type: prometheus, tenants: [a], url: 'https://h'}, {name: p, type: prometheus, tenants: [b, a], url: 'https://h'}": "metricProviders[1].name: a second provider named p for the same tenant",
		"{name: p, type: prometheus, url: 'https://h'}, {name: p, type: prometheus, tenants: [b], url: 'https://h'}":                  "metricProviders[1].name: a second provider named p for the same tenant",
		"{type: prometheus, url: 'https://h'}":                                                              "metricProviders[0].name: must be 1 to 253 characters",
		"{name: p, type: Graphite, url: 'https://h'}":                                                       `metricProviders[0].type: "Graphite" is none of prometheus, datadog, newRelic, http`,
		"{name: p, type: prometheus}":                                                                       "metricProviders[0].url: write an address like https://HOST, without user and password",
		"{name: p, type: prometheus, url: 'https://me:secret@host'}":                                        "metricProviders[0].url: write an address like https://HOST, without user and password",
		"{name: p, type: prometheus, agent: prod, url: 'https://h'}":                                        "metricProviders[0].url: through an agent it is a path below the agent's target",
		"{name: p, type: prometheus, agent: prod, caFile: f}":                                               "metricProviders[0].caFile: the certificates of a server behind an agent stand in the agent's own configuration (targets[].ca)",
		"{name: p, type: prometheus, url: 'https://h', agentTarget: x}":                                     "metricProviders[0].agentTarget: agent is missing",
		"{name: p, type: prometheus, url: 'https://h', tenants: ['a b']}":                                   `metricProviders[0].tenants: "a b"; letters, digits`,
		"{name: p, type: prometheus, url: 'https://h', auth: {tokenFile: f, username: u, passwordFile: f}}": "metricProviders[0].auth: write tokenFile, or username and passwordFile, not both",
		"{name: p, type: prometheus, url: 'https://h', auth: {username: u}}":                                "metricProviders[0].auth: username and passwordFile come together",
		"{name: p, type: datadog, auth: {tokenFile: f}, datadog: {apiKeyFile: f, applicationKeyFile: f}}":   "metricProviders[0].auth: is for prometheus and http; datadog has keys of its own",
		"{name: p, type: datadog, datadog: {apiKeyFile: f}}":                                                "metricProviders[0].datadog: apiKeyFile and applicationKeyFile are required for the type datadog",
		"{name: p, type: prometheus, url: 'https://h', newRelic: {userKeyFile: f, accountId: 1}}":           "metricProviders[0].newRelic: userKeyFile and accountId are required for the type newRelic, and for it alone",
		"{name: p, type: http, url: 'https://h/{{query}}'}":                                                 "metricProviders[0].http: value is required for the type http",
		"{name: p, type: http, url: 'https://h/', http: {value: $.x}}":                                      "metricProviders[0].http: url or body has to hold {{query}}",
		"{name: p, type: prometheus, url: 'https://h', auth: {token: x}}":                                   "unknown key token; known here: tokenFile, username, passwordFile",
	} {
		_, err := Parse("towpath.yaml", []byte(good+"metricProviders: ["+text+"]\n"))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("a password is shown: %v", err)
		}
	}
}

func TestGitHubAppsAreChecked(t *testing.T) {
	app := "github: {apps: [{name: us, appID: 7, privateKeyFile: k}]}\n"
	source := func(auth, github string) string {
		return strings.Replace(app+good, "    branch: main\n", "    auth: "+auth+"\n    github: "+github+"\n", 1)
	}
	for text, want := range map[string]string{
		source("{githubApp: us}", "{repository: acme/shop, app: us}"):  "",
		source("{githubApp: us}", "{}"):                                "",
		source("{}", "{repository: acme/shop, app: them}"):             "sources[0].github.app: no App them in github.apps",
		source("{githubApp: them}", "{}"):                              "sources[0].auth.githubApp: no App them in github.apps",
		source("{}", "{app: us}"):                                      "sources[0].github: repository is required with app",
		source("{}", "{repository: acme/shop, app: us, tokenFile: f}"): "sources[0].github: write app or tokenFile, not both",
		source("{githubApp: us, tokenFile: f}", "{}"):                  "sources[0].auth: write one of githubApp, tokenFile and sshKeyFile",
		strings.Replace(source("{githubApp: us}", "{}"), "https://github.com/acme/shop.git", "https://gitlab.com/acme/shop.git", 1): "sources[0].auth.githubApp: the url is to begin with https:// and the host of the App's GitHub",
		strings.Replace(source("{githubApp: us}", "{}"), "https://github.com/acme/shop.git", "git@github.com:acme/shop.git", 1):     "sources[0].auth.githubApp: the url is to begin with https:// and the host of the App's GitHub",
		strings.Replace(source("{githubApp: us}", "{}"), "github.com/acme/shop.git", "github.com/shop.git", 1):                      "sources[0].auth.githubApp: the url is to end with OWNER/NAME",
		"github: {apps: [{name: a b}]}\n" + good:                                          `github.apps[0].name: "a b"; letters, digits`,
		"github: {apps: [{name: a, privateKeyFile: k}]}\n" + good:                         "github.apps[0].appID is required: the number that the App's page on GitHub shows",
		"github: {apps: [{name: a, appID: 1}]}\n" + good:                                  "github.apps[0].privateKeyFile is required",
		"github: {apps: [{name: us, perMinute: -1}, {name: us}]}\n" + good:                "github.apps[1].name: a second App named us",
		"github: {apps: [{name: us, appID: 1, privateKeyFile: k, perHour: -1}]}\n" + good: "github.apps[0]: perMinute and perHour are 1 or more",
		"github: {apps: [{name: us, appId: 1}]}\n" + good:                                 "unknown key appId; known here: name, appID, privateKeyFile, webhookSecretFiles, apiURL, caFile, perMinute, perHour",
	} {
		_, err := Parse("towpath.yaml", []byte(text))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s\ngot %v, want %s", text, err, want)
		}
	}
	enterprise := strings.Replace(source("{githubApp: us}", "{}"), "https://github.com/", "https://git.acme.example/", 1)
	c, err := Parse("towpath.yaml", []byte(strings.Replace(enterprise, "appID: 7", "appID: 7, apiURL: 'https://git.acme.example/api/v3/'", 1)))
	if err != nil || c.Sources[0].Repository() != "acme/shop" {
		t.Errorf("an Enterprise Server: %v", err)
	}
}

func TestKeysAreReadFromTheirFile(t *testing.T) {
	c := &Config{KeyFile: filepath.Join(t.TempDir(), "key")}
	if _, err := c.Keys(); err == nil {
		t.Error("a missing file is no error")
	}
	os.WriteFile(c.KeyFile, []byte("# first\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"), 0o600)
	if keys, err := c.Keys(); err != nil || len(keys) != 1 || len(keys[0]) != 32 {
		t.Errorf("keys %v, %v", keys, err)
	}
	os.WriteFile(c.KeyFile, []byte("short\n"), 0o600)
	if _, err := c.Keys(); err == nil || !strings.Contains(err.Error(), "a key is 32 bytes in base64") {
		t.Errorf("a short key: %v", err)
	}
}

func TestTheDatabasesAddressMayStandInAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "database")
	c, err := Parse("towpath.yaml", []byte(strings.ReplaceAll(good, "database: sqlite:/var/lib/towpath/towpath.db", "databaseFile: "+file)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.DatabaseURL(); err == nil {
		t.Error("a missing file is no error")
	}
	os.WriteFile(file, []byte("postgres://towpath:secret@db/towpath\n"), 0o600)
	if address, err := c.DatabaseURL(); err != nil || address != "postgres://towpath:secret@db/towpath" {
		t.Errorf("%q, %v", address, err)
	}
	os.WriteFile(file, []byte("mysql://towpath:secret@db/towpath"), 0o600)
	if _, err := c.DatabaseURL(); err == nil || !strings.Contains(err.Error(), "holds no address like") || strings.Contains(err.Error(), "secret") {
		t.Errorf("another database: %v", err)
	}
	if err := c.CheckFiles(); err == nil || !strings.Contains(err.Error(), "databaseFile") {
		t.Errorf("check does not look into the file: %v", err)
	}
}

func TestAReplicasAddressMayBeAVariables(t *testing.T) {
	base := strings.ReplaceAll(good, "sqlite:/var/lib/towpath/towpath.db", "postgres://db/towpath")
	t.Setenv("TOWPATH_TEST_IP", "10.0.0.1")
	for peers, want := range map[string]string{"{listen: 'hub-0:8444'}": "hub-0", "{listen: ':8444', address: $TOWPATH_TEST_IP}": "10.0.0.1"} {
		c, err := Parse("towpath.yaml", []byte(base+"peers: "+peers+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		if host, err := c.Peers.Host(); err != nil || host != want {
			t.Errorf("%s: %s, %v", peers, host, err)
		}
	}
	c := &Config{Peers: Peers{Listen: ":8444", Address: "$TOWPATH_TEST_NONE"}}
	if _, err := c.Peers.Host(); err == nil || !strings.Contains(err.Error(), "peers.address: $TOWPATH_TEST_NONE is empty in the environment") {
		t.Errorf("a variable that is not set: %v", err)
	}
	c.DatabaseFile = filepath.Join(t.TempDir(), "database")
	os.WriteFile(c.DatabaseFile, []byte("sqlite:/towpath.db"), 0o600)
	if _, err := c.DatabaseURL(); err == nil || !strings.Contains(err.Error(), "with SQLite there is one controller") {
		t.Errorf("peers with SQLite in a file: %v", err)
	}
}

func TestTLSOfTheAPIMayBeAProxys(t *testing.T) {
	for text, want := range map[string]bool{good: true, good + "tls: {terminated: true}\n": false, strings.ReplaceAll(good, "https://towpath", "http://towpath"): false} {
		c, err := Parse("towpath.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if c.Secure() != want {
			t.Errorf("the API is served over TLS: %t, want %t\n%s", c.Secure(), want, text)
		}
	}
}

func TestReferenceAndSchemaAreCurrent(t *testing.T) {
	for name, want := range map[string]string{"config.md": Reference(), "config.schema.json": string(Schema())} {
		file := filepath.Join("../../../docs/reference", name)
		if *update {
			os.MkdirAll(filepath.Dir(file), 0o755)
			if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != want {
			t.Errorf("%s is not what the types say (%v); run: go test ./cmd/towpath-controller/config -update", file, err)
		}
	}
}

func TestWhereLinksMayBeServed(t *testing.T) {
	for text, want := range map[string]string{
		"": "",
		"{listen: ':8445', domain: previews.example.net}":                          "",
		"{listen: ':8445', domain: 'Previews.Example.net:8445', terminated: true}": "",
		"{listen: ':8445', domain: example.com.evil.net}":                          "",
		"{listen: ':8445'}":                                                                  "previews: listen and domain come together",
		"{domain: previews.example.net}":                                                     "previews: listen and domain come together",
		"{listen: here, domain: previews.example.net}":                                       `previews.listen: "here" is no HOST:PORT`,
		"{listen: ':8445', domain: '*.previews.example.net'}":                                `previews.domain: "*.previews.example.net" is no name of a domain`,
		"{listen: ':8445', domain: towpath.example.com}":                                     "previews.domain: towpath.example.com and the controller's own host, towpath.example.com, may not be the same, nor one below the other",
		"{listen: ':8445', domain: previews.TOWPATH.example.com}":                            "previews.domain: previews.towpath.example.com and the controller's own host, towpath.example.com, may not be the same, nor one below the other",
		"{listen: ':8445', domain: 'example.com:8445'}":                                      "previews.domain: example.com and the controller's own host, towpath.example.com, may not be the same, nor one below the other",
		"{listen: ':8445', domain: a.net, certificate: a.pem}":                               "previews: certificate and key come together",
		"{listen: ':8445', domain: a.net, certificate: a.pem, key: b.pem, terminated: true}": "previews: with terminated: true nobody is shown the certificate; leave one of them out",
	} {
		c, err := Parse("towpath.yaml", []byte(good+"previews: "+text+"\n"))
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", text, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %s", text, err, want)
		case want == "" && strings.Contains(text, "Previews.Example") && c.Previews.Host() != "previews.example.net":
			t.Errorf("the host of links is %s", c.Previews.Host())
		}
	}
}
