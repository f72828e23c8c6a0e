package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"towpath/agent/hub"
	"towpath/internal/localstack"
)

// relay is a hub in this process, whose agents are whoever they say, and a place that gives them tokens.
type relay struct {
	hub      *hub.Hub
	address  string
	tokens   *httptest.Server
	cert     tls.Certificate
	dir      string
	ca       string // file
	secret   string // file
	programs string
	served   chan error
}

// agentOf is whose token it is: a benchmark's tokens are names.
func agentOf(_ context.Context, token string) (hub.Identity, error) {
	return hub.Identity{Tenant: "bench", Agent: token, Subject: token, Expiry: time.Now().Add(time.Hour)}, nil
}

func (b *bench) relay() (*relay, error) {
	r := &relay{programs: b.programs}
	r.tokens = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": strings.TrimPrefix(q.URL.Path, "/"), "expires_in": 3600})
	}))
	r.cert = r.tokens.TLS.Certificates[0]
	var err error
	if r.dir, err = os.MkdirTemp(b.dir, "relay"); err != nil {
		return r, err
	}
	if r.ca, err = r.file("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.tokens.Certificate().Raw})); err != nil {
		return r, err
	}
	if r.secret, err = r.file("secret", []byte("secret")); err != nil {
		return r, err
	}
	return r, r.serve("127.0.0.1:0")
}

func (r *relay) file(name string, text []byte) (string, error) {
	name = filepath.Join(r.dir, name)
	return name, os.WriteFile(name, text, 0o600)
}

// serve begins, or begins again, at an address.
func (r *relay) serve(address string) error {
	var err error
	if r.hub, err = hub.New(hub.Config{Verify: agentOf}); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	r.address = listener.Addr().String()
	r.served = make(chan error, 1)
	go func() { r.served <- r.hub.Serve(listener, &tls.Config{Certificates: []tls.Certificate{r.cert}}) }()
	return nil
}

func (r *relay) close() error {
	r.tokens.Close()
	if r.hub == nil {
		return nil
	}
	r.hub.Close()
	if r.served == nil {
		return nil
	}
	return <-r.served
}

// agent starts the agent program, in front of a server whose certificate is the relay's own.
func (r *relay) agent(ctx context.Context, name, hubAddress, server string) (*localstack.Process, error) {
	token, err := r.file("token", []byte("token"))
	if err != nil {
		return nil, err
	}
	p, err := localstack.Start(nil, filepath.Join(r.programs, "towpath-agent"), "--agent", name, "--instance", name, "--hub", hubAddress, "--hub-ca", r.ca,
		"--token-url", r.tokens.URL+"/"+name, "--issuer-ca", r.ca, "--client-id", name, "--client-secret-file", r.secret,
		"--kubernetes-server", server, "--kubernetes-ca", r.ca, "--kubernetes-token-file", token, "--listen", "off", "--log-level", "error")
	if err != nil {
		return nil, err
	}
	return p, r.connected(ctx, p, 1)
}

// server starts the server program with the relay's certificate; stop ends it.
func (r *relay) server() (url string, stop func(), err error) {
	key, err := x509.MarshalPKCS8PrivateKey(r.cert.PrivateKey)
	if err != nil {
		return "", nil, err
	}
	file, err := r.file("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	if err != nil {
		return "", nil, err
	}
	command := exec.Command(filepath.Join(r.programs, "server"), "-cert", r.ca, "-key", file)
	lifeline, err := command.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	out, err := command.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := command.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		lifeline.Close()
		command.Wait()
	}
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return "", nil, fmt.Errorf("the server did not start: %w", err)
	}
	return "https://" + strings.TrimSpace(address), stop, nil
}

// trusting is a client that speaks HTTP/2 and trusts the relay's certificate.
func (r *relay) trusting() *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: r.tokens.Client().Transport.(*http.Transport).TLSClientConfig.Clone(), ForceAttemptHTTP2: true}}
}

// connected returns once so many agents are.
func (r *relay) connected(ctx context.Context, p *localstack.Process, agents int) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for {
		ready := 0
		for _, s := range r.hub.Agents() {
			if s.Idle > 0 {
				ready++
			}
		}
		if ready >= agents {
			return nil
		}
		select {
		case <-p.Ended():
			return fmt.Errorf("the agent ended: %s", p.Log())
		case <-ctx.Done():
			return fmt.Errorf("%d of %d agents are connected: %w", ready, agents, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// fetch sends a request and reads its answer.
func fetch(ctx context.Context, client *http.Client, method, url string, body io.Reader) (int64, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return 0, err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	n, err := io.Copy(io.Discard, response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.New(response.Status)
	}
	return n, err
}
