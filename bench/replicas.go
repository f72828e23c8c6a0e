package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"towpath/api"
	"towpath/api/client"
	"towpath/internal/localstack"
	"towpath/internal/testkit/postgres"
)

// replicas is what three controllers on one PostgreSQL database make of each other's agents: one that is revoked at another than it is connected to, and many
// while one of the three restarts.
func replicas(ctx context.Context, b *bench) (err error) {
	database, err := postgres.Run(ctx)
	if err != nil {
		return err
	}
	defer database.Stop()
	c, err := b.cluster(ctx, database)
	defer c.close()
	if err != nil {
		return err
	}
	if err := c.revoke(ctx, b, 20); err != nil {
		return err
	}
	return c.restart(ctx, b, b.count(2000))
}

// revoke measures how long an agent keeps its session after its tokens were revoked at another replica than it is connected to.
func (c *controllers) revoke(ctx context.Context, b *bench, count int) error {
	here, there := c.all[0], c.all[1]
	fleet, err := c.fleet(ctx, "revoked-", count, there.hub)
	if err != nil {
		return err
	}
	defer fleet.Kill()
	for _, r := range []*controller{here, there} {
		if err := r.lists(ctx, "revoked-", count, fleet); err != nil {
			return err
		}
	}
	disturbed := b.quiet.watch()
	var took samples
	for left := count - 1; left >= 0; left-- {
		began := time.Now()
		if err := here.api.Call(ctx, http.MethodPost, fmt.Sprintf("/agents/revoked-%d/revoke", left), nil, nil); err != nil {
			return err
		}
		if err := there.lists(ctx, "revoked-", left, fleet); err != nil {
			return err
		}
		took = append(took, time.Since(began))
	}
	b.results.add(disturbed(), figure{Name: "an agent revoked at another replica, until its session has ended, slowest", Value: took.at(1) / 1000, Unit: "s", Goal: atMost(2),
		Detail: fmt.Sprintf("%d agents, p50 %.3g ms", count, took.at(.5))})
	return nil
}

// restart measures how long it takes until all agents are reachable through each of the replicas again after one of them was stopped, and started at once.
func (c *controllers) restart(ctx context.Context, b *bench, count int) error {
	fleet, err := c.fleet(ctx, "agent-", count, c.hubs.address())
	if err != nil {
		return err
	}
	defer fleet.Kill()
	all := func() error {
		for _, r := range c.all {
			if err := r.lists(ctx, "agent-", count, fleet); err != nil {
				return err
			}
		}
		return nil
	}
	if err := all(); err != nil {
		return err
	}
	disturbed := b.quiet.watch()
	began := time.Now()
	c.all[1].process.End()
	stopped := time.Since(began)
	if err := c.all[1].start(ctx); err != nil {
		return err
	}
	if err := all(); err != nil {
		return err
	}
	b.results.add(disturbed(), figure{Name: fmt.Sprintf("one of three replicas restarts, until %d agents are reachable through each", count), Value: time.Since(began).Seconds(), Unit: "s", Goal: atMost(60),
		Detail: fmt.Sprintf("it stopped within %.2g s", stopped.Seconds())})
	return nil
}

// controllers are replicas on one database, behind balancers.
type controllers struct {
	bench      *bench
	dir        string
	all        []*controller
	apis, hubs *balancer
}

// controller is one of them.
type controller struct {
	program, dir string
	address, hub string // host:port
	api          *client.Client
	process      *localstack.Process
}

// cluster starts three replicas. What it returns is to be closed also when it fails.
func (b *bench) cluster(ctx context.Context, database *postgres.Server) (*controllers, error) {
	c := &controllers{bench: b, dir: filepath.Join(b.dir, "replicas")}
	url, err := database.Create(ctx)
	if err != nil {
		return c, err
	}
	key := make([]byte, 32)
	rand.Read(key)
	c.apis, c.hubs = &balancer{}, &balancer{}
	if err := errors.Join(c.apis.start(), c.hubs.start()); err != nil {
		return c, err
	}
	var token string
	for i := range 3 {
		r := &controller{program: filepath.Join(b.programs, "towpath-controller"), dir: filepath.Join(c.dir, fmt.Sprint(i))}
		if err := os.MkdirAll(r.dir, 0o700); err != nil {
			return c, err
		}
		if r.address, r.hub, err = localstack.Free(); err != nil {
			return c, err
		}
		for name, text := range map[string]string{"key": base64.StdEncoding.EncodeToString(key), "config.yaml": fmt.Sprintf(`externalURL: https://%s
listen: %s
agents: {listen: %q, address: %q}
peers: {listen: "127.0.0.1:0"}
database: %q
keyFile: %s
data: %s
`, c.apis.address(), r.address, r.hub, c.hubs.address(), url, filepath.Join(r.dir, "key"), filepath.Join(r.dir, "data"))} {
			if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600); err != nil {
				return c, err
			}
		}
		if i == 0 {
			out, err := exec.CommandContext(ctx, r.program, "--config", filepath.Join(r.dir, "config.yaml"), "token", "create", "--name", "bench", "--grant", "admin").Output()
			if err != nil {
				return c, fmt.Errorf("make a token: %w", err)
			}
			token = strings.TrimSpace(string(out))
		} else if err := os.CopyFS(filepath.Join(r.dir, "data", "tls"), os.DirFS(filepath.Join(c.all[0].dir, "data", "tls"))); err != nil { // one authority
			return c, err
		}
		r.api = &client.Client{Address: "https://" + r.address, Token: token}
		c.all = append(c.all, r)
		if err := r.start(ctx); err != nil {
			return c, err
		}
		c.apis.add(r.address)
		c.hubs.add(r.hub)
	}
	return c, nil
}

func (c *controllers) close() {
	for _, r := range c.all {
		if r.process != nil {
			r.process.Kill()
		}
	}
	for _, b := range []*balancer{c.apis, c.hubs} {
		if b != nil {
			b.close()
		}
	}
}

func (r *controller) ca() string { return filepath.Join(r.dir, "data", "tls", "ca.crt") }

// start starts a controller and returns once it serves.
func (r *controller) start(ctx context.Context) (err error) {
	if r.process, err = localstack.Start(nil, r.program, "--config", filepath.Join(r.dir, "config.yaml")); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		if ca, err := os.ReadFile(r.ca()); err == nil && r.api.HTTP == nil {
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM(ca)
			r.api.HTTP = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
		}
		if r.api.HTTP != nil && r.api.Call(ctx, http.MethodGet, "/sources", nil, nil) == nil {
			return nil
		}
		select {
		case <-r.process.Ended():
			return fmt.Errorf("a controller ended: %s", r.process.Log())
		case <-ctx.Done():
			return fmt.Errorf("a controller does not serve: %w\n%s", ctx.Err(), r.process.Log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// lists returns once a controller lists so many agents whose names begin alike as connected, with one session each.
func (r *controller) lists(ctx context.Context, prefix string, count int, fleet *localstack.Process) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for {
		var list struct{ Items []api.Agent }
		if err := r.api.Call(ctx, http.MethodGet, "/agents", nil, &list); err != nil {
			return err
		}
		connected := 0
		for _, a := range list.Items {
			if strings.HasPrefix(a.Name, prefix) && a.Connected && a.Instances == 1 {
				connected++
			}
		}
		if connected == count {
			return nil
		}
		select {
		case <-fleet.Ended():
			return fmt.Errorf("the agents ended: %s", fleet.Log())
		case <-ctx.Done():
			return fmt.Errorf("%d of %d agents are connected: %w", connected, count, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// fleet makes agents known, all with one secret, and starts them.
func (c *controllers) fleet(ctx context.Context, prefix string, count int, hub string) (*localstack.Process, error) {
	const makers = 8
	secret := rand.Text() + rand.Text()
	file := filepath.Join(c.dir, prefix+"secret")
	if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
		return nil, err
	}
	var making sync.WaitGroup
	failed := make([]error, makers)
	for m := range makers {
		making.Go(func() {
			for i := m; i < count && failed[m] == nil; i += makers {
				name := fmt.Sprint(prefix, i)
				failed[m] = c.all[0].api.Call(ctx, http.MethodPost, "/agents", api.NewAgent{Name: name, Subject: name, Secret: secret}, nil)
			}
		})
	}
	making.Wait()
	if err := errors.Join(failed...); err != nil {
		return nil, err
	}
	return localstack.Start(nil, filepath.Join(c.bench.programs, "fleet"), "-agents", fmt.Sprint(count), "-prefix", prefix, "-hub", hub, "-ca", c.all[0].ca(),
		"-tokens", "https://"+c.apis.address()+"/oauth/token", "-secret", file)
}
