package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"towpath/api"
	"towpath/api/client"
	"towpath/internal/localkube"
)

// namespace is where the demo's agents have their accounts, and its examples their objects.
const namespace = "towpath-demo"

// serve is the background process: it starts everything, says that it is ready, and ends everything when it is told to.
func (d *demo) serve(ctx context.Context) error {
	s := &background{demo: d}
	defer s.close()
	r, err := s.up(ctx)
	if err != nil {
		return err
	}
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.WriteFile(d.stateFile(), text, 0o600); err != nil {
		return err
	}
	defer os.Remove(d.stateFile())
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.failed:
		return err
	}
}

// background is what runs.
type background struct {
	*demo
	clusters []*localkube.Local
	children []child
	failed   chan error
}

// child is a process that ends with this one.
type child struct {
	command *exec.Cmd
	ended   chan struct{}
}

func (s *background) close() {
	for i := len(s.children) - 1; i >= 0; i-- {
		s.children[i].command.Process.Signal(syscall.SIGTERM)
		<-s.children[i].ended
	}
	for _, c := range s.clusters {
		c.Stop()
	}
}

func (s *background) up(ctx context.Context) (running, error) {
	s.failed = make(chan error, 8)
	r := running{PID: os.Getpid(), Kubeconfigs: map[string]string{}, Simulated: len(s.kubeconfigs) == 0, Repository: filepath.Join(s.dir, "repository.git"),
		CA: filepath.Join(s.dir, "controller", "tls", "ca.crt"), Token: filepath.Join(s.dir, "token"), Secret: filepath.Join(s.dir, "webhook-secret")}
	if err := s.startClusters(ctx, r); err != nil {
		return r, err
	}
	if err := s.fillRepository(ctx, r.Repository); err != nil {
		return r, err
	}
	var err error
	if r.Address, err = s.startController(ctx, r); err != nil {
		return r, err
	}
	return r, s.startAgents(ctx, r)
}

// startClusters starts the local clusters side by side, or takes the user's.
func (s *background) startClusters(ctx context.Context, r running) error {
	if len(s.kubeconfigs) > 0 {
		for i, name := range targets {
			r.Kubeconfigs[name] = s.kubeconfigs[i]
		}
		return nil
	}
	var starting sync.WaitGroup
	errs := make([]error, len(targets))
	s.clusters = make([]*localkube.Local, len(targets))
	for i, name := range targets {
		starting.Go(func() {
			s.clusters[i], errs[i] = localkube.Start(ctx, localkube.Options{Programs: s.localcluster, Dir: filepath.Join(s.dir, "clusters", name)})
		})
	}
	starting.Wait()
	for i, name := range targets {
		if s.clusters[i] == nil {
			s.clusters = s.clusters[:0]
			return errors.Join(errs...)
		}
		r.Kubeconfigs[name] = s.clusters[i].Kubeconfig
		fmt.Printf("%scluster %s is ready: a real Kubernetes API server, controllers and scheduler; its pods are simulated\n", note, name)
	}
	return nil
}

// fillRepository makes a bare repository of the examples, at first.
func (s *background) fillRepository(ctx context.Context, bare string) error {
	if _, err := os.Stat(bare); err == nil {
		return nil
	}
	work := filepath.Join(s.dir, "work")
	for _, args := range [][]string{{"init", "--quiet", "--bare", "--initial-branch=main", bare}, {"clone", "--quiet", bare, work}} {
		if err := git(ctx, s.dir, args...); err != nil {
			return err
		}
	}
	if err := os.CopyFS(work, os.DirFS(s.examples)); err != nil {
		return err
	}
	if err := commit(ctx, work, "The examples, to begin with"); err != nil {
		return err
	}
	fmt.Printf("%sa Git repository is filled from the examples: %s\n", note, bare)
	return nil
}

func commit(ctx context.Context, work, message string) error {
	for _, args := range [][]string{{"add", "--all"}, {"commit", "--quiet", "--message", message}, {"push", "--quiet", "origin", "HEAD:main"}} {
		if err := git(ctx, work, args...); err != nil {
			return err
		}
	}
	return nil
}

func git(ctx context.Context, dir string, args ...string) error {
	command := exec.CommandContext(ctx, "git", append([]string{"-c", "user.name=Demo", "-c", "user.email=demo@example.com", "-c", "init.defaultBranch=main"}, args...)...)
	command.Dir = dir
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("git %s: %w\n%s", args[0], err, bytes.TrimSpace(out))
	}
	return nil
}

// startController writes a configuration, makes a token and starts the controller.
func (s *background) startController(ctx context.Context, r running) (address string, err error) {
	dir := filepath.Join(s.dir, "controller")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	address, hub, err := s.addresses(dir)
	if err != nil {
		return "", err
	}
	key := filepath.Join(dir, "key")
	if _, err := os.Stat(key); errors.Is(err, fs.ErrNotExist) {
		if err := os.WriteFile(key, []byte(random()+"\n"), 0o600); err != nil {
			return "", err
		}
	}
	if err := os.WriteFile(r.Secret, []byte(random()+"\n"), 0o600); err != nil {
		return "", err
	}
	config := filepath.Join(dir, "config.yaml")
	text := fmt.Sprintf("externalURL: https://%s\nlisten: %s\nagents: {listen: %q}\ndatabase: sqlite:%s\nkeyFile: %s\ndata: %s\nsources:\n  - name: demo\n    url: %s\n    branch: main\n"+
		"    schedule: \"@every 5s\"\n    webhook: {secretFiles: [%s]}\n    allow: [{accounts: [staging, prod], namespaces: [%s], kinds: [\"*\"]}]\n",
		address, address, hub, filepath.Join(dir, "towpath.db"), key, dir, r.Repository, r.Secret, namespace)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return "", err
	}
	program := filepath.Join(s.programs, "towpath-controller")
	if _, err := os.Stat(r.Token); errors.Is(err, fs.ErrNotExist) {
		secret, err := exec.CommandContext(ctx, program, "--config", config, "token", "create", "--name", "demo", "--grant", "admin").Output()
		if err != nil {
			return "", fmt.Errorf("make a token: %w", err)
		}
		if err := os.WriteFile(r.Token, secret, 0o600); err != nil {
			return "", err
		}
	}
	if err := s.child("controller", program, "--config", config); err != nil {
		return "", err
	}
	address = "https://" + address
	c, err := r.with(address).client()
	if err != nil {
		return "", err
	}
	for {
		if err := c.Call(ctx, http.MethodGet, "/sources", nil, nil); err == nil {
			fmt.Printf("%sthe controller serves at %s\n", note, address)
			return address, nil
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case err := <-s.failed:
			return "", err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// random is 32 random bytes in base64.
func random() string {
	bytes := make([]byte, 32)
	rand.Read(bytes)
	return base64.StdEncoding.EncodeToString(bytes)
}

// addresses are chosen at first and kept, so that what was told stays true.
func (s *background) addresses(dir string) (api, hub string, err error) {
	file := filepath.Join(dir, "addresses")
	if text, err := os.ReadFile(file); err == nil {
		if fields := strings.Fields(string(text)); len(fields) == 2 {
			return fields[0], fields[1], nil
		}
	}
	var free [2]string
	for i := range free {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", "", err
		}
		defer listener.Close()
		free[i] = listener.Addr().String()
	}
	return free[0], free[1], os.WriteFile(file, []byte(free[0]+" "+free[1]+"\n"), 0o600)
}

// startAgents gives each agent its identity and its ServiceAccount, and starts it.
func (s *background) startAgents(ctx context.Context, r running) error {
	c, err := r.client()
	if err != nil {
		return err
	}
	for _, name := range targets {
		dir := filepath.Join(s.dir, "agents", name)
		access, err := localkube.Account(ctx, r.Kubeconfigs[name], namespace, "towpath-agent", false, localkube.Deploys(), dir)
		if err != nil {
			return fmt.Errorf("cluster %s: %w", name, err)
		}
		credential, err := identity(ctx, c, name, dir)
		if err != nil {
			return err
		}
		args := []string{"--agent", name, "--instance", name + "-1", "--hub", credential.Hub, "--hub-ca", r.CA, "--issuer", credential.Issuer, "--issuer-ca", r.CA,
			"--client-id", credential.ClientID, "--client-secret-file", filepath.Join(dir, "secret"), "--audience", credential.Audience,
			"--kubernetes-server", access.Server, "--kubernetes-ca", access.CAFile, "--kubernetes-token-file", access.TokenFile, "--listen", "off"}
		if err := s.child("agent "+name, filepath.Join(s.programs, "towpath-agent"), args...); err != nil {
			return err
		}
		fmt.Printf("%sthe agent of %s connects outwards, as a ServiceAccount that may write in namespace %s only\n", note, name, namespace)
	}
	return nil
}

// identity makes an agent's credential at first, and keeps it.
func identity(ctx context.Context, c *client.Client, name, dir string) (credential api.Credential, err error) {
	file := filepath.Join(dir, "credential.json")
	if text, err := os.ReadFile(file); err == nil {
		return credential, json.Unmarshal(text, &credential)
	}
	if err := c.Call(ctx, http.MethodPost, "/agents", map[string]string{"name": name}, &credential); err != nil {
		return credential, fmt.Errorf("make the agent %s: %w", name, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(credential.Secret), 0o600); err != nil {
		return credential, err
	}
	credential.Secret = ""
	text, err := json.Marshal(credential)
	if err != nil {
		return credential, err
	}
	return credential, os.WriteFile(file, text, 0o600)
}

// child starts a process that ends with this one; should it end before, the demo is over.
func (s *background) child(name, program string, args ...string) error {
	c := child{exec.Command(program, args...), make(chan struct{})}
	c.command.Stdout, c.command.Stderr = os.Stdout, os.Stderr
	c.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.command.Start(); err != nil {
		return err
	}
	s.children = append(s.children, c)
	go func() {
		err := c.command.Wait()
		close(c.ended)
		select {
		case s.failed <- fmt.Errorf("%s ended: %w", name, errors.Join(err)):
		default: // one is enough
		}
	}()
	return nil
}

func (r running) with(address string) running {
	r.Address = address
	return r
}

// client calls the demo's controller.
func (r running) client() (*client.Client, error) {
	token, err := os.ReadFile(r.Token)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	for range 100 { // the controller writes it when it starts
		ca, err := os.ReadFile(r.CA)
		if err == nil && roots.AppendCertsFromPEM(ca) {
			transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
			return &client.Client{Address: r.Address, Token: strings.TrimSpace(string(token)), HTTP: &http.Client{Transport: transport}}, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil, fmt.Errorf("the controller wrote no certificate to %s", r.CA)
}
