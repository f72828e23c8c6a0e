package localstack

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"

	"towpath/api"
	"towpath/internal/localkube"
)

// Agent is an agent that a controller knows. It may be started, ended and started again.
type Agent struct {
	program string
	args    []string
}

// Agent makes an agent of a name for a cluster that it reaches as a ServiceAccount. Its files go into a folder beside the controller's.
func (c *Controller) Agent(ctx context.Context, name string, access localkube.Access) (*Agent, error) {
	var credential api.Credential
	if err := c.API.Call(ctx, http.MethodPost, "/agents", map[string]string{"name": name}, &credential); err != nil {
		return nil, err
	}
	dir := c.Path("agent-" + name)
	secret := filepath.Join(dir, "secret")
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(secret, []byte(credential.Secret), 0o600)); err != nil {
		return nil, err
	}
	return &Agent{c.Program("towpath-agent"), []string{"--agent", name, "--instance", name, "--hub", credential.Hub, "--hub-ca", c.CA(),
		"--issuer", credential.Issuer, "--issuer-ca", c.CA(), "--client-id", credential.ClientID, "--client-secret-file", secret,
		"--audience", credential.Audience, "--kubernetes-server", access.Server, "--kubernetes-ca", access.CAFile,
		"--kubernetes-token-file", access.TokenFile, "--listen", "off", "--log-level", "warn"}}, nil
}

// ClientID and SecretFile are the agent's credential.
func (a *Agent) ClientID() string   { return a.flag("--client-id") }
func (a *Agent) SecretFile() string { return a.flag("--client-secret-file") }

func (a *Agent) flag(name string) string { return a.args[slices.Index(a.args, name)+1] }

// Behind is the same agent in front of another cluster.
func (a *Agent) Behind(access localkube.Access) *Agent {
	moved := &Agent{a.program, slices.Clone(a.args)}
	for i, flag := range moved.args {
		switch flag {
		case "--kubernetes-server":
			moved.args[i+1] = access.Server
		case "--kubernetes-ca":
			moved.args[i+1] = access.CAFile
		case "--kubernetes-token-file":
			moved.args[i+1] = access.TokenFile
		}
	}
	return moved
}

// As is the same agent as another program.
func (a *Agent) As(program string) *Agent { return &Agent{program, a.args} }

// Reading is the same agent with a configuration file beside its flags.
func (a *Agent) Reading(file string) *Agent {
	return &Agent{a.program, append(slices.Clone(a.args), "--config", file)}
}

// Start starts the agent.
func (a *Agent) Start() (*Process, error) { return Start(nil, a.program, a.args...) }
