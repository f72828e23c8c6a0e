package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"towpath/api"
	"towpath/api/client"
	"towpath/internal/localkube"
)

const (
	// namespace is where the demo's agents have their accounts.
	namespace = "towpath-demo"
	account   = "towpath-agent"
)

// namespaces are those that the examples deploy to; agents may write there and nowhere else.
var namespaces = []string{namespace, namespace + "-eu", namespace + "-us"}

// startClusters starts the local clusters side by side, or takes the user's.
func (s *background) startClusters(ctx context.Context, r running) error {
	if len(s.kubeconfigs) > 0 {
		for i, name := range targets {
			r.Kubeconfigs[name] = s.kubeconfigs[i]
			fmt.Printf("%scluster %s is yours: %s\n", note, name, s.kubeconfigs[i])
		}
		return nil
	}
	images, err := s.images()
	if err != nil {
		return err
	}
	s.clusters = make([]*localkube.Local, len(targets))
	errs := make([]error, len(targets))
	var starting sync.WaitGroup
	for i, name := range targets {
		starting.Go(func() {
			s.clusters[i], errs[i] = localkube.Start(ctx, localkube.Options{Programs: s.localcluster, Dir: filepath.Join(s.dir, "clusters", name), Images: images, Ports: s.ports()})
			if errs[i] == nil {
				fmt.Printf("%scluster %s is ready: a real Kubernetes API server, controllers and scheduler; %s\n", note, name, s.simulated())
			}
		})
	}
	starting.Wait()
	for i, name := range targets {
		if errs[i] != nil {
			return errs[i]
		}
		r.Kubeconfigs[name] = s.clusters[i].Kubeconfig
	}
	return nil
}

// startAgents gives each agent its identity and its ServiceAccount, and starts it.
func (s *background) startAgents(ctx context.Context, r running) error {
	c, err := r.client()
	if err != nil {
		return err
	}
	for _, name := range targets {
		dir := filepath.Join(s.dir, "agents", name)
		access, err := s.admit(ctx, r.Kubeconfigs[name], dir)
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
		if err := s.child("agent-"+name, filepath.Join(s.programs, "towpath-agent"), args...); err != nil {
			return err
		}
		fmt.Printf("%sagent %s dials out, as a ServiceAccount that may write in the demo's namespaces only\n", note, name)
	}
	return nil
}

// admit makes the ServiceAccount of an agent, and keeps its token fresh for as long as the demo runs.
func (s *background) admit(ctx context.Context, kubeconfig, dir string) (localkube.Access, error) {
	access, err := localkube.Account(ctx, kubeconfig, namespace, account, false, localkube.Deploys(), dir)
	if err != nil {
		return access, err
	}
	for _, further := range namespaces[1:] {
		if err := localkube.Allow(ctx, kubeconfig, namespace, account, further, localkube.Deploys()); err != nil {
			return access, err
		}
	}
	s.going.Go(func() {
		keepFresh(ctx, access.Expires, func() (time.Time, error) {
			renewed, err := localkube.Renew(ctx, kubeconfig, namespace, account, dir)
			return renewed.Expires, err
		})
	})
	return access, nil
}

// keepFresh renews what expires when half of its time is over, until ctx ends; what fails is tried again each minute.
func keepFresh(ctx context.Context, expires time.Time, renew func() (time.Time, error)) {
	for wait := time.Until(expires) / 2; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		next, err := renew()
		if wait = time.Until(next) / 2; err != nil && ctx.Err() == nil {
			fmt.Fprintf(os.Stderr, "a token could not be renewed and is tried again in a minute: %v\n", err)
			wait = time.Minute
		}
	}
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
	text, err := json.Marshal(credential)
	if err != nil {
		return credential, err
	}
	return credential, errors.Join(os.WriteFile(filepath.Join(dir, "secret"), []byte(credential.Secret), 0o600), os.WriteFile(file, text, 0o600))
}
