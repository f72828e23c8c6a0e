package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"towpath/api"
	"towpath/internal/localkube"
)

const (
	// agentImage is what the agents' pods run: the program itself, as a process of this machine.
	agentImage = "example.com/towpath-agent"
	// agentNamespace is where the command line installs an agent.
	agentNamespace = "towpath-agent"
)

// inPods is an address of this machine as pods reach it.
func inPods(address string) string { return net.JoinHostPort("host.localcluster", portOf(address)) }

func portOf(address string) string {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		panic(err) // it is ours
	}
	return port
}

// images writes which images of pods are programs; "" where all pods are simulated.
func (s *background) images() (file string, err error) {
	if !s.pods {
		return "", nil
	}
	file = filepath.Join(s.dir, "images.yaml")
	var text []byte
	for image, program := range map[string]string{agentImage: "towpath-agent", controllerImage: "towpath-controller"} {
		text = fmt.Appendf(text, "- {image: %q, entrypoint: [%q]}\n", image+":*", filepath.Join(s.programs, program))
	}
	return file, os.WriteFile(file, text, 0o600)
}

// ports are those that pods reach on this machine.
func (s *background) ports() []string {
	if !s.pods {
		return nil
	}
	return []string{portOf(s.api), portOf(s.hub)}
}

// simulated says which pods are.
func (s *background) simulated() string {
	if s.pods {
		return "pods of Towpath run, those of the examples are simulated"
	}
	return "its pods are simulated"
}

// noPods is why Towpath's own pods cannot run in local clusters here; "" when they can.
func (d *demo) noPods(ctx context.Context) string {
	switch {
	case !localkube.Isolates(ctx):
		return "this machine allows no network namespaces"
	case strings.HasPrefix(d.programs, "/tmp/"):
		return "the programs lie below /tmp, and pods have one of their own"
	case strings.HasPrefix(d.dir, "/tmp/"):
		return "what the demo keeps lies below /tmp, and pods have one of their own"
	}
	return ""
}

// towpathToo says whether Towpath's own programs are pods.
func (d *demo) towpathToo(ctx context.Context) string {
	if why := d.noPods(ctx); why != "" {
		return "; controller and agents run beside them, since " + why
	}
	return "; those of Towpath, in the namespaces " + controllerNamespace + " and " + agentNamespace + ", run"
}

// installAgents installs an agent in each cluster as people do, with the command line and the chart that it carries; one that is there goes on.
func (s *background) installAgents(ctx context.Context, r running) error {
	values := filepath.Join(s.dir, "agents.yaml")
	if err := os.WriteFile(values, fmt.Appendf(nil, "identity: {tokenURL: %q}\n", "https://"+inPods(s.api)+"/oauth/token"), 0o600); err != nil {
		return err
	}
	errs := make([]error, len(targets))
	var installing sync.WaitGroup
	for i, name := range targets {
		installing.Go(func() {
			if errs[i] = s.installAgent(ctx, r, name, values); errs[i] == nil {
				fmt.Printf("%sagent %s dials out of a pod in its cluster, and may write in the demo's namespaces only\n", note, name)
			}
		})
	}
	installing.Wait()
	return errors.Join(errs...)
}

func (s *background) installAgent(ctx context.Context, r running, name, values string) error {
	kubeconfig := r.Kubeconfigs[name]
	installed, err := localkube.Holds(ctx, kubeconfig, agentNamespace, "towpath-agent")
	if err != nil {
		return fmt.Errorf("cluster %s: %w", name, err)
	}
	if installed {
		return s.connected(ctx, r, name)
	}
	if err := localkube.Namespaces(ctx, kubeconfig, namespaces...); err != nil {
		return fmt.Errorf("cluster %s: %w", name, err)
	}
	if known, err := agentOf(ctx, r, name); err != nil {
		return err
	} else if known != nil { // a demo that was ended on the way to its cluster
		if err := s.towpath(ctx, r, name, "agent", "remove", name); err != nil {
			return err
		}
	}
	args := []string{"agent", "create", name, "--use-current-context", "--image", agentImage, "--values", values}
	for _, namespace := range namespaces {
		args = append(args, "--deploys-to", namespace)
	}
	return s.towpath(ctx, r, name, args...)
}

// towpath runs the command line at a cluster.
func (s *background) towpath(ctx context.Context, r running, cluster string, args ...string) error {
	command := exec.CommandContext(ctx, filepath.Join(s.programs, "towpath"), args...)
	command.Env = append(os.Environ(), "TOWPATH_ADDR="+r.Address, "TOWPATH_CA="+r.CA, "TOWPATH_TOKEN_FILE="+r.Token, "KUBECONFIG="+r.Kubeconfigs[cluster])
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("agent %s: %w: %s", cluster, err, out)
	}
	return nil
}

// connected waits until an agent that is installed has connected.
func (s *background) connected(ctx context.Context, r running, name string) error {
	return poll(ctx, func() (bool, error) {
		a, err := agentOf(ctx, r, name)
		if err == nil && a == nil {
			err = fmt.Errorf("the controller knows of no agent %s any more, and it is installed in its cluster still; begin afresh with: rm -rf %s", name, s.dir)
		}
		return err == nil && a.Connected, err
	})
}

// agentOf is an agent as the controller knows it; nil when it does not.
func agentOf(ctx context.Context, r running, name string) (*api.Agent, error) {
	c, err := r.client()
	if err != nil {
		return nil, err
	}
	var found struct{ Items []api.Agent }
	if err := c.Call(ctx, http.MethodGet, "/agents", nil, &found); err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(found.Items, func(a api.Agent) bool { return a.Name == name }); i >= 0 {
		return &found.Items[i], nil
	}
	return nil, nil
}
