package main

import (
	"bytes"
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
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"towpath/api/client"
	"towpath/internal/localstack"
)

const configuration = `# Written anew at each start of the demo. All keys: docs/reference/config.md
externalURL: https://%[1]s
listen: %[1]s
agents: {listen: %[2]s}
database: sqlite:%[3]s/towpath.db
keyFile: %[3]s/key
data: %[3]s
sources:
  - name: demo
    url: %[4]s
    branch: main
    schedule: "@every 30s"
    webhook: {secretFiles: [%[5]s]}
    allow: [{accounts: [staging, prod], namespaces: [%[6]s], kinds: ["*"]}]
`

// startController writes a configuration, makes a token and starts the controller.
func (s *background) startController(ctx context.Context, r running) (address string, err error) {
	dir := filepath.Join(s.dir, "controller")
	if err := errors.Join(keep(filepath.Join(dir, "key"), random()), keep(r.Secret, random())); err != nil {
		return "", err
	}
	config := filepath.Join(dir, "config.yaml")
	text := fmt.Sprintf(configuration, s.api, s.hub, dir, r.Repository, r.Secret, strings.Join(namespaces, ", "))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return "", err
	}
	program := filepath.Join(s.programs, "towpath-controller")
	if _, err := os.Stat(r.Token); errors.Is(err, fs.ErrNotExist) {
		secret, err := exec.CommandContext(ctx, program, "--config", config, "token", "create", "--name", "demo", "--grant", "admin").Output()
		if err != nil {
			return "", fmt.Errorf("make a token: %w", explained(err))
		}
		if err := os.WriteFile(r.Token, secret, 0o600); err != nil {
			return "", err
		}
	}
	if err := s.child("controller", program, "--config", config); err != nil {
		return "", err
	}
	r.Address = "https://" + s.api
	return r.Address, s.serves(ctx, r, "on SQLite", func(context.Context) error { return nil })
}

// serves waits until the controller does. broken is why it will not; nil: it may yet.
func (s *background) serves(ctx context.Context, r running, how string, broken func(context.Context) error) error {
	for {
		c, err := r.client()
		if err == nil {
			err = c.Call(ctx, http.MethodGet, "/sources", nil, nil)
		}
		if err == nil {
			fmt.Printf("%sthe controller serves at %s, %s and with its own token issuer\n", note, r.Address, how)
			return nil
		}
		var refusal *client.Error
		if errors.As(err, &refusal) && refusal.Status == http.StatusUnauthorized {
			return fmt.Errorf("the controller does not know the demo's token any more (%w); begin afresh with: rm -rf %s", err, s.dir)
		}
		if err := broken(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-s.failed:
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// explained is the error of a command with what it printed.
func explained(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return errors.New(strings.TrimSpace(string(exit.Stderr)))
	}
	return err
}

// keep writes a file when it is not there.
func keep(file, text string) error {
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(file, []byte(text+"\n"), 0o600)
}

// random is 32 random bytes in base64.
func random() string {
	bytes := make([]byte, 32)
	rand.Read(bytes)
	return base64.StdEncoding.EncodeToString(bytes)
}

// addresses are chosen at first and kept, so that what was told, and what agents were given, stays true.
func (s *background) addresses() (err error) {
	dir := filepath.Join(s.dir, "controller")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	file := filepath.Join(dir, "addresses")
	if text, err := os.ReadFile(file); err == nil {
		if fields := strings.Fields(string(text)); len(fields) == 2 {
			s.api, s.hub = fields[0], fields[1]
			return s.free(fields)
		}
	}
	if s.api, s.hub, err = localstack.Free(); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(s.api+" "+s.hub+"\n"), 0o600)
}

// free says what to do when another program has one of the demo's addresses.
func (s *background) free(addresses []string) error {
	for _, address := range addresses {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return fmt.Errorf("%s, the demo's address, is taken by another program (%w); end that one, or begin afresh with: rm -rf %s", address, err, s.dir)
		}
		if err := listener.Close(); err != nil {
			return err
		}
	}
	return nil
}

// client calls the demo's controller.
func (r running) client() (*client.Client, error) {
	token, err := os.ReadFile(r.Token)
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(r.CA)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s holds no certificate", r.CA)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	return &client.Client{Address: r.Address, Token: strings.TrimSpace(string(token)), HTTP: &http.Client{Transport: transport}}, nil
}

// announce tells the controller of a push, as a Git server would; the repository's hook runs it.
func (d *demo) announce(ctx context.Context) error {
	r, err := d.find()
	if err != nil {
		return errors.New("the controller does not run; what was pushed rolls out with the next make demo")
	}
	secret, err := os.ReadFile(r.Secret)
	if err != nil {
		return err
	}
	c, err := r.client()
	if err != nil {
		return err
	}
	body := []byte(`{"ref":"refs/heads/main"}`)
	sum := hmac.New(sha256.New, bytes.TrimSpace(secret))
	sum.Write(body)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.Address+"/api/v1/webhooks/demo", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(sum.Sum(nil)))
	request.Header.Set("X-GitHub-Delivery", fmt.Sprint(time.Now().UnixNano()))
	request.Header.Set("X-GitHub-Event", "push")
	answer, err := c.HTTP.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusAccepted {
		return fmt.Errorf("the controller answered %s to the webhook", answer.Status)
	}
	return nil
}
