package localstack

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"

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

// Start starts the agent.
func (a *Agent) Start() (*Process, error) { return Start(nil, a.program, a.args...) }
