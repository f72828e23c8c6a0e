package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"towpath/cmd/towpath-controller/config"
	"towpath/render"
	"towpath/store"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == renderWorker {
		if render.Worker(os.Stdin, os.Stdout) != nil {
			os.Exit(1)
		}
		return
	}
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// asProgram is a variable that makes this binary the controller's program.
const asProgram = "TOWPATH_TEST_AS_PROGRAM"

// controller is a whole one, on its own database, and somebody who calls it.
type controller struct {
	*Main
	t      testing.TB
	client *http.Client
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// configure is a configuration that works; more is added to its text.
func configure(t testing.TB, more string) *config.Config {
	t.Helper()
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	must(t, os.WriteFile(key, []byte(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))), 0o600))
	text := "externalURL: https://localhost\nlisten: 127.0.0.1:0\nagents: {listen: '127.0.0.1:0'}\ndatabase: sqlite:" + filepath.Join(dir, "towpath.db") +
		"\nkeyFile: " + key + "\ndata: " + filepath.Join(dir, "data") + "\nrender: {workers: 1}\n" + more
	c, err := config.Parse("config.yaml", []byte(text))
	must(t, err)
	return c
}

// start runs a controller until the test ends; options change it before.
func start(t testing.TB, c *config.Config, options ...func(*Main)) *controller {
	t.Helper()
	log := logrus.New()
	log.SetOutput(&lines{t})
	m := New(c, logrus.NewEntry(log))
	for _, option := range options {
		option(m)
	}
	t.Cleanup(func() { must(t, m.Close()) })
	must(t, m.Run(t.Context()))
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(filepath.Join(c.Data, "tls", caFile))
	must(t, err)
	roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true, ExpectContinueTimeout: time.Minute}
	t.Cleanup(transport.CloseIdleConnections)
	return &controller{m, t, &http.Client{Transport: transport}}
}

// lines are log lines of a controller that a failed test shows. They may not come after its end, which Close makes sure of.
type lines struct{ t testing.TB }

func (l *lines) Write(p []byte) (int, error) {
	l.t.Logf("controller: %s", bytes.TrimSpace(p))
	return len(p), nil
}

func (c *controller) token(tenant, name string, grants ...string) string {
	c.t.Helper()
	_, secret, err := c.store.CreateToken(c.t.Context(), store.Token{Tenant: tenant, Name: name, Grants: grants})
	must(c.t, err)
	return secret
}

// answer is what a request came to.
type answer struct {
	status int
	header http.Header
	text   string
}

func (a answer) read(t testing.TB, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.text), into); err != nil {
		t.Fatalf("%d %s: %v", a.status, a.text, err)
	}
}

// problem is an RFC 9457 problem, or the test fails.
func (a answer) problem(t testing.TB, status int) (p problem) {
	t.Helper()
	if a.status != status || a.header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("got %d %s, want a problem %d: %s", a.status, a.header.Get("Content-Type"), status, a.text)
	}
	a.read(t, &p)
	if p.Status != status || p.Detail == "" || p.Title == "" {
		t.Errorf("a problem without its fields: %s", a.text)
	}
	return p
}

type problem struct {
	Type, Title, Detail string
	Status              int
	Errors              []struct{ Message, Location string }
}

// call sends a request; body is sent as JSON, or as it is when it is bytes.
func (c *controller) call(token, method, path string, body any, header ...string) answer {
	c.t.Helper()
	text, raw := body.([]byte)
	if body != nil && !raw {
		var err error
		text, err = json.Marshal(body)
		must(c.t, err)
	}
	request, err := http.NewRequestWithContext(c.t.Context(), method, "https://"+c.Address+path, bytes.NewReader(text))
	must(c.t, err)
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := c.client.Do(request)
	must(c.t, err)
	defer response.Body.Close()
	out, err := io.ReadAll(response.Body)
	must(c.t, err)
	return answer{response.StatusCode, response.Header, string(out)}
}

// await tries until something holds, or the test's time is over.
func await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain awaited: %s", what)
		}
	}
}

func TestBehindAProxyTheAPIIsInClearAndTheHubIsNot(t *testing.T) {
	c := configure(t, "tls: {terminated: true}\n")
	c.DatabaseFile = filepath.Join(t.TempDir(), "database")
	must(t, os.WriteFile(c.DatabaseFile, []byte(c.Database+"\n"), 0o600))
	c.Database = ""
	m := start(t, c)
	answered, err := m.client.Get("http://" + m.Address + "/readyz")
	must(t, err)
	answered.Body.Close()
	if answered.StatusCode != http.StatusOK {
		t.Errorf("the API answers %s", answered.Status)
	}
	hub, err := tls.Dial("tcp", m.HubAddress, &tls.Config{RootCAs: m.client.Transport.(*http.Transport).TLSClientConfig.RootCAs, ServerName: "localhost", NextProtos: []string{"h2"}})
	must(t, err)
	must(t, hub.Close())
}
