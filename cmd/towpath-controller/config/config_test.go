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
				"sources[1].github: repository is OWNER/NAME, and tokenFile is required with it"}},
		"a database twice": {good + "databaseFile: /etc/towpath/database\n", []string{"database and databaseFile say the same thing"}},
		"peers beside SQLite": {good + "peers: {listen: ':8444'}\n", []string{"peers.listen: replicas share a PostgreSQL database; with SQLite there is one controller",
			`peers.address: say how the other replicas reach this one; peers.listen (":8444") names no host`}},
		"peers that nobody listens to": {good + "peers: {address: 10.0.0.1}\n", []string{"peers.address: peers.listen is missing"}},
		"nothing":                      {"", []string{`externalURL: "" is no http(s) address`, "keyFile is required; `towpath-controller key` prints a new key", "data is required"}},
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
