package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"towpath/internal/localkube"
	"towpath/internal/localstack"
)

// agentAccount is the ServiceAccount of agents, in a namespace of its own.
const agentAccount = "bench-agent"

// site is one installation: a cluster, a repository, a controller and one agent.
type site struct {
	repository *repository
	cluster    *localkube.Local // nil: none
	audit      *audit
	controller *localstack.Controller
	serves     *localstack.Process // the controller
	agent      *localstack.Process // nil: none
	news       *news
	apps       int // small applications that are deployed

	logs string
}

// install starts a site in front of a repository, with one agent of a name in front of a cluster of its own that has some namespaces; with none when the
// name is "".
func (b *bench) install(ctx context.Context, name string, r *repository, agent string, namespaces ...string) (*site, error) {
	return b.installWith(ctx, name, r, "", agent, namespaces...)
}

// installWith is install with more in the controller's configuration, as YAML.
func (b *bench) installWith(ctx context.Context, name string, r *repository, more, agent string, namespaces ...string) (_ *site, err error) {
	s := &site{repository: r, logs: b.logs}
	b.sites[name] = s // closed with the run, however far it came
	dir := filepath.Join(b.dir, name)
	if err := os.MkdirAll(filepath.Join(dir, "controller"), 0o700); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	if s.controller, err = localstack.NewController(ctx, localstack.Settings{Programs: b.programs, Dir: filepath.Join(dir, "controller"), Repository: r.dir,
		Namespaces: `"*"`, Log: "{format: json}", More: more}); err != nil {
		return nil, err
	}
	if s.serves, err = s.controller.Start(); err != nil {
		return nil, err
	}
	if serves, err := s.controller.Serves(ctx, s.serves); err != nil || !serves {
		return nil, errors.Join(err, fmt.Errorf("the controller does not serve:\n%s", s.serves.Log()))
	}
	s.news = follow(s.controller.API)
	if agent == "" {
		return s, nil
	}
	s.audit = &audit{path: filepath.Join(dir, "audit.log")}
	options := localkube.Options{Programs: b.localcluster(), Dir: filepath.Join(dir, "cluster"), Audit: s.audit.path, Network: "none", Nodes: nodes}
	if s.cluster, err = localkube.Start(ctx, options); err != nil {
		return nil, err
	}
	for _, namespace := range namespaces {
		if err := s.makeNamespace(ctx, namespace); err != nil {
			return nil, err
		}
	}
	access, err := localkube.Account(ctx, s.cluster.Kubeconfig, "bench-agents", agentAccount, true, localkube.Deploys(), filepath.Join(dir, "account"))
	if err != nil {
		return nil, err
	}
	made, err := s.controller.Agent(ctx, agent, access)
	if err != nil {
		return nil, err
	}
	s.agent, err = made.Start()
	return s, err
}

// nodes have room for what a thousand applications ask for.
const nodes = 16

// localcluster is where the programs of local clusters are.
func (b *bench) localcluster() string {
	if dir := os.Getenv("TOWPATH_LOCALCLUSTER"); dir != "" {
		return dir
	}
	return filepath.Join(b.root, ".build", "localcluster")
}

// remove ends a site and forgets it.
func (b *bench) remove(name string) {
	if s := b.sites[name]; s != nil {
		s.close()
		delete(b.sites, name)
	}
}

func (s *site) close() {
	if s.news != nil {
		s.news.close()
	}
	if s.agent != nil {
		s.agent.Kill() // ending in order would wait for what runs
		s.keep("agent", s.agent)
	}
	if s.serves != nil {
		s.serves.End()
		s.keep("controller", s.serves)
	}
	if s.cluster != nil {
		s.cluster.Stop()
	}
}

// keep writes down what a program said, for whoever asked to read it.
func (s *site) keep(name string, p *localstack.Process) {
	if s.logs == "" {
		return
	}
	file := filepath.Join(s.logs, fmt.Sprintf("%s-%d.log", name, p.PID()))
	if err := os.WriteFile(file, []byte(p.Log()), 0o600); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
}

// push commits files and announces the commit. It returns when the webhook was sent.
func (s *site) push(ctx context.Context, message string, files map[string]string) (sent time.Time, err error) {
	if err := s.repository.commit(ctx, message, files); err != nil {
		return sent, err
	}
	sent = time.Now()
	return sent, s.controller.Announce(ctx)
}
