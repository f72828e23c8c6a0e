package localstack

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"towpath/api/client"
)

// Settings of a controller.
type Settings struct {
	Programs   string // directory of the programs
	Dir        string // state of the controller and its agents
	Sources    string // further entries of sources, as YAML
	Repository string // a bare repository; its branch main is a source, named repo, and is looked at only when a webhook says so
	Namespaces string // that it may touch, as a list of YAML writes them: "a, b"
	GitHub     string // where progress is told, as YAML writes it; empty: nowhere
	Roles      string // of the configuration, as YAML writes them; empty: sre, which test holds
	More       string // of the configuration, as YAML
	Log        string // of the configuration, as YAML writes it: "{format: json}"; empty: the default
}

// Controller is a controller with files of its own. It may be started, ended and started again.
type Controller struct {
	API     *client.Client
	Address string // https://127.0.0.1:PORT
	Secret  string // signs deliveries

	settings Settings
}

// NewController writes a configuration on free ports and makes a token that may do everything.
func NewController(ctx context.Context, s Settings) (*Controller, error) {
	c := &Controller{settings: s, Secret: random()}
	s.Log, s.GitHub, s.Roles = cmp.Or(s.Log, "{}"), cmp.Or(s.GitHub, "{}"), cmp.Or(s.Roles, "[{name: sre, members: [test]}]")
	key := make([]byte, 32)
	rand.Read(key)
	api, hub, err := Free()
	if err != nil {
		return nil, err
	}
	c.Address = "https://" + api
	for name, text := range map[string]string{"key": base64.StdEncoding.EncodeToString(key), "webhook": c.Secret, "config.yaml": fmt.Sprintf(`externalURL: %s
listen: %s
agents: {listen: %q}
database: sqlite:%s
keyFile: %s
data: %s
roles: %s
log: %s
%s
sources:
  - name: repo
    url: %s
    branch: main
    schedule: "@every 1h"
    webhook: {secretFiles: [%s]}
    allow: [{accounts: ["*"], namespaces: [%s], kinds: ["*"]}]
    github: %s
%s`, c.Address, api, hub, c.Path("towpath.db"), c.Path("key"), c.Path("data"), s.Roles, s.Log, s.More, s.Repository, c.Path("webhook"), s.Namespaces, s.GitHub, s.Sources)} {
		if err := os.WriteFile(c.Path(name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	token, err := c.Token(ctx, "test", "admin")
	if err != nil {
		return nil, err
	}
	c.API = &client.Client{Address: c.Address, Token: token}
	return c, os.WriteFile(c.Path("token"), []byte(token), 0o600)
}

// Token makes a token with grants, as a list with commas.
func (c *Controller) Token(ctx context.Context, name, grants string) (string, error) {
	out, err := exec.CommandContext(ctx, c.Program("towpath-controller"), "--config", c.Path("config.yaml"), "token", "create", "--name", name, "--grant", grants).Output()
	if err != nil {
		return "", fmt.Errorf("make a token: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Free is two addresses on which nothing listens now. Their ports are below those that systems give to whoever asks for any, so that they stay free while a
// controller is not running.
func Free() (one, other string, err error) {
	const first, count, tries = 10000, 10000, 100
	for range tries {
		address := fmt.Sprintf("127.0.0.1:%d", first+mathrand.IntN(count))
		listener, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		defer listener.Close()
		if one != "" {
			return one, address, nil
		}
		one = address
	}
	return "", "", fmt.Errorf("of the ports %d to %d hardly one is free", first, first+count)
}

func random() string { return hex.EncodeToString([]byte(rand.Text()[:16])) }

// Path of a file of the controller.
func (c *Controller) Path(name string) string { return filepath.Join(c.settings.Dir, name) }

// Program is the path of one of the programs.
func (c *Controller) Program(name string) string { return filepath.Join(c.settings.Programs, name) }

// CA is the certificate of the controller's own authority.
func (c *Controller) CA() string { return c.Path("data/tls/ca.crt") }

// Start starts the controller; see Serves.
func (c *Controller) Start(env ...string) (*Process, error) {
	return Start(env, c.Program("towpath-controller"), "--config", c.Path("config.yaml"))
}

// Rebuild loses the database of a controller that has ended, and starts the controller on an empty one.
func (c *Controller) Rebuild(ctx context.Context, env ...string) (*Process, error) {
	for _, name := range []string{"towpath.db", "towpath.db-wal", "towpath.db-shm"} {
		if err := os.Remove(c.Path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	var err error
	if c.API.Token, err = c.Token(ctx, "test", "admin"); err != nil {
		return nil, err
	}
	if err := os.WriteFile(c.Path("token"), []byte(c.API.Token), 0o600); err != nil {
		return nil, err
	}
	return Start(env, c.Program("towpath-controller"), "--config", c.Path("config.yaml"), "--rebuild")
}

// Operate runs the controller's program as its operator does, beside it.
func (c *Controller) Operate(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, c.Program("towpath-controller"), append([]string{"--config", c.Path("config.yaml")}, args...)...).CombinedOutput()
	return string(out), err
}

// Serves waits until a controller that was started serves; false when it ended before.
func (c *Controller) Serves(ctx context.Context, p *Process) (bool, error) {
	for {
		if c.trust() && c.API.Call(ctx, http.MethodGet, "/sources", nil, nil) == nil {
			return true, nil
		}
		select {
		case <-p.Ended():
			return false, nil
		case <-ctx.Done():
			return false, fmt.Errorf("the controller does not serve: %w\n%s", ctx.Err(), p.Log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// trust takes on the controller's own authority, once it is there.
func (c *Controller) trust() bool {
	if c.API.HTTP != nil {
		return true
	}
	ca, err := os.ReadFile(c.CA())
	roots := x509.NewCertPool()
	if errors.Is(err, fs.ErrNotExist) || !roots.AppendCertsFromPEM(ca) {
		return false
	}
	c.API.HTTP = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	return true
}

// Announce delivers a push webhook.
func (c *Controller) Announce(ctx context.Context) error {
	status, err := c.Deliver(ctx, random(), c.Secret, []byte(`{"ref":"refs/heads/main"}`))
	if err == nil && status != http.StatusAccepted {
		err = fmt.Errorf("the webhook was answered with %d", status)
	}
	return err
}

// Deliver sends a delivery that is signed with a secret.
func (c *Controller) Deliver(ctx context.Context, guid, secret string, body []byte) (status int, err error) {
	sum := hmac.New(sha256.New, []byte(secret))
	sum.Write(body)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.Address+"/api/v1/webhooks/repo", bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	request.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(sum.Sum(nil)))
	request.Header.Set("X-GitHub-Delivery", guid)
	request.Header.Set("X-GitHub-Event", "push")
	answer, err := c.API.HTTP.Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, err
}
