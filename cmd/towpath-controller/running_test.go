package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"towpath/agent/edge"
	"towpath/api"
	"towpath/internal/testkit/gitserver"
	"towpath/internal/testkit/pages"
	"towpath/internal/testkit/postgres"
	"towpath/reconcile/rollout"
	"towpath/store"
)

// run is the controller's program with arguments.
func run(args ...string) (string, error) {
	var out bytes.Buffer
	root := command()
	root.SetArgs(args)
	root.SetOut(&out)
	err := root.Execute()
	return out.String(), err
}

func TestCheckNamesEverythingThatIsWrong(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string) string {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		return filepath.Join(dir, name)
	}
	key := file("key", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
	base := "externalURL: https://localhost\ndatabase: sqlite:" + dir + "/towpath.db\ndata: " + dir + "\n"
	if out, err := run("check", "-c", file("good.yaml", base+"keyFile: "+key+"\n")); err != nil || !strings.HasSuffix(out, "good.yaml is good: 0 sources\n") {
		t.Errorf("a good one: %q, %v", out, err)
	}
	bad := base + "keyFile: " + dir + "/none\ntls: {certificate: " + key + ", key: " + key + "}\nsources:\n" +
		"  - {name: a, url: x, paths: ['['], schedule: '@every 1s', auth: {tokenFile: " + dir + "/token, sshKeyFile: " + dir + "/ssh, knownHostsFile: " + dir + "/hosts, caFile: " + dir + "/ca}}\n" +
		"  - {name: b, url: x, webhook: {secretFiles: [" + file("empty", "\n") + "]}, github: {repository: a/b, tokenFile: " + dir + "/github, apiURL: 'nowhere'}}\n"
	_, err := run("check", "-c", file("bad.yaml", bad))
	if err == nil {
		t.Fatal("a bad one is good")
	}
	for _, want := range []string{"keyFile: open " + dir + "/none", "tls: ", "source a: paths: ", "source a: schedule: ", "source a: auth.tokenFile: open " + dir + "/token", "source a: auth.sshKeyFile: ", "source a: auth.knownHostsFile: ",
		"source a: auth.caFile: ", "source b: webhook.secretFiles: " + dir + "/empty is empty", "source b: github.tokenFile: ", "source b: github.apiURL: "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
}

func TestTokensAreListedAndRevoked(t *testing.T) {
	t.Parallel()
	c := configure(t, "")
	file := filepath.Join(t.TempDir(), "config.yaml")
	must(t, os.WriteFile(file, fmt.Appendf(nil, "externalURL: %s\ndatabase: %s\nkeyFile: %s\ndata: %s\n", c.ExternalURL, c.Database, c.KeyFile, c.Data), 0o600))
	secret, err := run("token", "create", "-c", file, "--name", "ci", "--grant", "view,start", "--role", "sre", "--expires", "24h")
	must(t, err)
	list := func() []string {
		out, err := run("token", "list", "-c", file)
		must(t, err)
		if strings.Contains(out, strings.TrimSpace(secret)) {
			t.Error("a list shows a secret")
		}
		return strings.Fields(strings.Split(out, "\n")[1])
	}
	row := list()
	if len(row) != 9 || row[1] != "main" || row[2] != "ci" || row[3] != "view,start" || row[4] != "sre" {
		t.Errorf("listed: %q", row)
	}
	_, err = run("token", "revoke", "-c", file, row[0])
	must(t, err)
	if after := list(); after[7] != "revoked" {
		t.Errorf("revoked: %q", after)
	}
	if _, err := run("token", "revoke", "-c", file, row[0]); err == nil || !strings.Contains(err.Error(), "that is not revoked already") {
		t.Errorf("revoked twice: %v", err)
	}
	if _, err := run("token", "create", "-c", file, "--name", "x", "--grant", "root"); err == nil || !strings.Contains(err.Error(), `no grant "root"; there are view, start, approve, breakGlass, admin`) {
		t.Errorf("a grant that is none: %v", err)
	}
}

func TestItIsNotReadyWhileDueWorkIsNotTaken(t *testing.T) {
	t.Parallel()
	// Remotes that take a connection and never answer keep all workers busy, so that one more source's wake lies.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var text strings.Builder
	text.WriteString("sources:\n")
	for i := range 300 {
		fmt.Fprintf(&text, "  - {name: s%d, url: 'http://%s/repo.git', branch: main, schedule: '@every 1h'}\n", i, silent.Addr())
	}
	c := start(t, configure(t, text.String()), func(m *Main) { m.late = 0 })
	await(t, "not ready", func() bool {
		a := c.call("", http.MethodGet, "/readyz", nil)
		return a.status == http.StatusServiceUnavailable && strings.Contains(a.text, "wakes lie untaken for more than 0s")
	})
	must(t, silent.Close()) // its connections are cut, and further ones refused: what was taken fails, and what lay is taken
	await(t, "ready again", func() bool { return c.call("", http.MethodGet, "/readyz", nil).status == http.StatusOK })
}

func TestWhatAnOperatorWatchesIsServed(t *testing.T) {
	t.Parallel()
	c := start(t, configure(t, "sources: [{name: gone, url: "+filepath.Join(t.TempDir(), "none.git")+", branch: main, schedule: '@every 1h'}]\n"))
	c.begin(c.token("main", "ann", api.Start), "shop", "1")
	await(t, "the failed fetch", func() bool {
		sources, err := c.store.Sources(t.Context(), "main")
		return err == nil && len(sources) == 1 && sources[0].Failure != ""
	})
	for path, want := range map[string][]string{
		"/healthz": {"ok"},
		"/readyz":  {"ok"},
		"/metrics": {`towpath_build_info{version="`, `towpath_lanes{state="`, "towpath_deployments_under_way 1", "towpath_wakes_late ", `towpath_source_failing_seconds{source="gone",tenant="main"} `,
			"towpath_outbox_pending 0", "towpath_outbox_refused 0", "towpath_render_processes_started_total 1", "towpath_renders_proved_total 0", "towpath_renders_wrong_total 0", "process_resident_memory_bytes", "go_goroutines"},
	} {
		a := c.call("", http.MethodGet, path, nil)
		for _, text := range want {
			if a.status != http.StatusOK || !strings.Contains(a.text, text) {
				t.Errorf("%s: %d, does not say %q", path, a.status, text)
			}
		}
	}
}

func TestEachMetricIsListed(t *testing.T) {
	t.Parallel()
	c := start(t, configure(t, ""))
	descriptions := make(chan *prometheus.Desc)
	go func() {
		c.registry.Describe(descriptions)
		close(descriptions)
	}()
	var served []string
	for d := range descriptions {
		if name := regexp.MustCompile(`fqName: "(towpath_[a-z_]+)"`).FindStringSubmatch(d.String()); name != nil {
			served = append(served, name[1])
		}
	}
	slices.Sort(served)
	if listed := pages.Metrics(t, "Controller"); !slices.Equal(served, listed) {
		t.Errorf("docs/reference/metrics.md lists\n%s\nand served are\n%s", strings.Join(listed, "\n"), strings.Join(served, "\n"))
	}
}

func TestSourcesAndRolesAreReadAnew(t *testing.T) {
	t.Parallel()
	u := upload("shop", "1")
	files := gitserver.Files{}
	for name, text := range u.Files {
		files[name] = string(text)
	}
	repository := gitserver.NewRepo(t, t.TempDir(), "repo", files)
	first := configure(t, "")
	c := start(t, first)
	view := c.token("main", "ann", api.View)
	second := *first
	more := configure(t, fmt.Sprintf("roles: [{name: sre, members: [ann]}]\nsources: [{name: repo, url: %s, branch: main, schedule: '@every 1h', allow: [{accounts: ['*'], namespaces: ['*'], kinds: ['*']}]}]\n", repository.Dir))
	second.Sources, second.Roles = more.Sources, more.Roles
	must(t, c.Reload(&second))
	follow(t, c, view, "application=shop", 0, func(e api.Event) bool { return e.Deployment == "" })
	caller, ok, err := (&backend{Main: c.Main}).Authenticate(t.Context(), view)
	if err != nil || !ok || len(caller.Roles) != 1 || caller.Roles[0] != "sre" {
		t.Errorf("%+v, %v", caller, err)
	}
	broken := second
	broken.Sources = append(broken.Sources, second.Sources[0])
	broken.Sources[1].Name, broken.Sources[1].Paths = "broken", []string{"["}
	if err := c.Reload(&broken); err == nil || !strings.Contains(err.Error(), "source broken: paths: ") {
		t.Errorf("a source that cannot be opened: %v", err)
	}
	must(t, c.Reload(first))
	if len(c.sources) != 0 {
		t.Errorf("sources that left stay: %v", c.sources)
	}
}

func TestCertificatesAreRenewedInTime(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	dir := t.TempDir()
	own := &certificates{dir: dir, hosts: []string{"towpath.example.com"}, clock: func() time.Time { return now }, log: quiet()}
	must(t, own.renew(now))
	serial := func(c *certificates) string {
		t.Helper()
		served, err := c.get(nil)
		must(t, err)
		return served.Leaf.SerialNumber.String()
	}
	first := serial(own)
	now = now.Add(lifetime / 2)
	if serial(own) != first {
		t.Error("it is made anew at half of its life")
	}
	now = now.Add(lifetime / 3)
	second := serial(own)
	if second == first {
		t.Error("it is served until it ends")
	}

	write := func(host string) {
		t.Helper()
		c, err := ownCertificate(t.TempDir(), []string{host}, now)
		must(t, err)
		must(t, writePair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), c))
		must(t, os.Chtimes(filepath.Join(dir, "tls.crt"), now, now))
		must(t, os.Chtimes(filepath.Join(dir, "tls.key"), now, now))
	}
	write("one.example.com")
	files := &certificates{certFile: filepath.Join(dir, "tls.crt"), keyFile: filepath.Join(dir, "tls.key"), clock: func() time.Time { return now }, log: quiet()}
	must(t, files.renew(now))
	first = serial(files)
	now = now.Add(time.Hour)
	write("one.example.com")
	second = serial(files)
	if second == first {
		t.Error("files that were written anew are not served")
	}
	now = now.Add(time.Hour)
	must(t, os.WriteFile(files.certFile, []byte("half a cert"), 0o600))
	if serial(files) != second {
		t.Error("a file that is broken ends what was served before")
	}
}

// connect runs an agent of a credential until the test ends.
func (c *controller) connect(made api.Credential, instance string) {
	c.t.Helper()
	c.connectBy(made, instance, "https://"+c.Address+"/oauth/token", filepath.Join(c.config.Data, "tls", caFile))
}

// connectBy does that with the token endpoint of an issuer; options change the agent's configuration.
func (c *controller) connectBy(made api.Credential, instance, tokens, issuerCA string, options ...func(*edge.Config)) {
	c.t.Helper()
	secret := filepath.Join(c.t.TempDir(), "secret")
	must(c.t, os.WriteFile(secret, []byte(made.Secret), 0o600))
	ca := filepath.Join(c.config.Data, "tls", caFile)
	config := edge.Config{Agent: made.Agent, Instance: instance, Listen: "off", Hub: edge.Hub{Address: c.HubAddress, CAFile: ca}, Kubernetes: edge.Kubernetes{Off: true},
		Identity: edge.Identity{Issuer: made.Issuer, TokenURL: tokens, Audience: made.Audience, ClientID: made.ClientID, ClientSecretFile: secret, CAFile: issuerCA}}
	for _, option := range options {
		option(&config)
	}
	ctx, cancel := context.WithCancel(c.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = edge.Run(ctx, config, edge.Options{Version: "test", Log: quiet(), Getenv: func(string) string { return "" }})
	}()
	c.t.Cleanup(func() { cancel(); <-ended })
}

func TestARemovedAgentIsDisconnectedAndStaysAway(t *testing.T) {
	t.Parallel()
	c := start(t, configure(t, ""))
	admin := c.token("main", "ann", api.Admin)
	var made api.Credential
	c.call(admin, http.MethodPost, "/api/v1/agents", map[string]string{"name": "prod"}).read(t, &made)
	c.connect(made, "one")
	await(t, "the agent", func() bool { return c.hub.Connected("main", "prod") })
	var list struct{ Items []api.Agent }
	c.call(admin, http.MethodGet, "/api/v1/agents", nil).read(t, &list)
	if a := list.Items[0]; !a.Connected || a.Version != "test" || a.Instances != 1 || a.ClientID != made.ClientID {
		t.Errorf("listed: %+v", a)
	}
	if a := c.call(admin, http.MethodDelete, "/api/v1/agents/prod", nil); a.status != http.StatusNoContent {
		t.Fatalf("%d %s", a.status, a.text)
	}
	await(t, "the end of its session", func() bool { return !c.hub.Connected("main", "prod") })
	if _, err := c.store.AgentOf(t.Context(), made.Issuer, made.ClientID); !errors.Is(err, store.ErrNoAgent) {
		t.Errorf("its identity is still somebody's: %v", err)
	}
}

func TestTwoControllersShareADatabase(t *testing.T) {
	t.Parallel()
	database := postgres.Start(t).Database(t)
	var both [2]*controller
	for i := range both {
		config := configure(t, "")
		config.Database = database
		both[i] = start(t, config)
	}
	a, b := both[0], both[1]
	admin := a.token("main", "ann", api.Admin)

	const applications = 10
	var starting sync.WaitGroup
	ids := make([]string, applications)
	for i := range ids {
		starting.Go(func() { ids[i] = both[i%2].begin(admin, fmt.Sprintf("app-%d", i), "1").ID })
	}
	starting.Wait()
	for i, id := range ids { // what one started the other shows, and stops
		if answer := both[(i+1)%2].call(admin, http.MethodPost, "/api/v1/deployments/"+id+"/cancel", map[string]string{}); answer.status != http.StatusNoContent {
			t.Fatalf("%d %s", answer.status, answer.text)
		}
	}
	ended := map[string]int{}
	follow(t, a, admin, "", 0, func(e api.Event) bool { // news of the other come too
		if e.Kind == "target.cancelled" {
			ended[e.Deployment]++
		}
		return len(ended) < applications
	})
	events, err := b.store.Events(t.Context(), store.EventFilter{Tenant: "main"})
	must(t, err)
	moves := map[string]int{}
	for _, e := range events {
		moves[fmt.Sprint(e.Deployment, e.Target, e.Kind, e.What)]++
	}
	for move, count := range moves {
		if count > 1 && !strings.Contains(move, "token") {
			t.Errorf("%d times: %s", count, move)
		}
	}
	for i := range applications {
		if _, err := a.store.VerifyHistory(t.Context(), "main", fmt.Sprintf("app-%d", i)); err != nil {
			t.Error(err)
		}
		d, err := b.store.Deployment(t.Context(), "main", ids[i])
		must(t, err)
		if d.State != rollout.Cancelled {
			t.Errorf("app-%d is %s", i, d.State)
		}
	}

	var made api.Credential
	a.call(admin, http.MethodPost, "/api/v1/agents", map[string]string{"name": "prod"}).read(t, &made)
	b.connect(made, "one")
	await(t, "the agent at the other controller", func() bool { return b.hub.Connected("main", "prod") })
	if answer := a.call(admin, http.MethodDelete, "/api/v1/agents/prod", nil); answer.status != http.StatusNoContent {
		t.Fatalf("%d %s", answer.status, answer.text)
	}
	await(t, "the end of its session at the other controller", func() bool { return !b.hub.Connected("main", "prod") })
}

func quiet() *logrus.Entry {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return logrus.NewEntry(log)
}

// writePair writes a certificate and its key as PEM files.
func writePair(certFile, keyFile string, c tls.Certificate) error {
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}), 0o600),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
}
