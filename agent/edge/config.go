package edge

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"golang.org/x/net/http/httpguts"

	"towpath/agent/wire"
)

// Config is an agent's configuration; the YAML file has the same shape. All of it is the cluster owner's: the hub can change nothing here.
type Config struct {
	Agent    string   `yaml:"agent"`    // its name at the controller: the account of deployment files
	Instance string   `yaml:"instance"` // this process among others of the same agent; empty: the host's name
	Hub      Hub      `yaml:"hub"`
	Identity Identity `yaml:"identity"`

	Kubernetes Kubernetes `yaml:"kubernetes"`
	Targets    []Target   `yaml:"targets"` // private hosts the controller may reach through this agent
	Proxy      Proxy      `yaml:"proxy"`

	Listen    string `yaml:"listen"`    // health and metrics; empty: ":8080"; "off": none
	LogLevel  string `yaml:"logLevel"`  // error, warn, info (default), debug
	LogFormat string `yaml:"logFormat"` // json (default), console, console-wide
	LogColors bool   `yaml:"logColors"` // of a console, also where it is none: in a pod
}

// Hub is where the agent connects to.
type Hub struct {
	Address string `yaml:"address"` // host:port
	CAFile  string `yaml:"ca"`      // PEM; empty: the system's roots
}

// Identity is how the agent proves who it is: OAuth 2.0 client credentials at an OIDC issuer.
type Identity struct {
	Issuer           string `yaml:"issuer"`   // its discovery document names the token endpoint
	TokenURL         string `yaml:"tokenURL"` // in place of discovery
	ClientID         string `yaml:"clientId"`
	ClientSecretFile string `yaml:"clientSecretFile"` // read at each fetch of a token
	Audience         string `yaml:"audience"`         // asked for, by issuers that know the parameter
	Resource         string `yaml:"resource"`         // asked for, by issuers that know resource indicators (RFC 8707): the hub's URL there
	Scope            string `yaml:"scope"`            // empty: agent:connect; "-": none is asked for
	ClientAuth       string `yaml:"clientAuth"`       // basic (default) or post: how the secret is sent
	CAFile           string `yaml:"ca"`               // PEM; empty: the system's roots
}

// Kubernetes is the API server. Without server, it is the one of the pod's ServiceAccount.
type Kubernetes struct {
	Off         bool        `yaml:"off"`
	Server      string      `yaml:"server"` // https://host:port
	CAFile      string      `yaml:"ca"`
	TokenFile   string      `yaml:"tokenFile"` // read again each minute, and after a 401
	ReadOnly    bool        `yaml:"readOnly"`  // GET and HEAD only
	Impersonate Impersonate `yaml:"impersonate"`
}

// Impersonate says whom requests may act as; RBAC must allow it too. Empty: nobody.
type Impersonate struct {
	Users  []string `yaml:"users"`
	Groups []string `yaml:"groups"`
}

// Target is an entry of the allow-list.
type Target struct {
	Name        string            `yaml:"name"`
	URL         string            `yaml:"url"`         // scheme, host, port, path prefix
	Methods     []string          `yaml:"methods"`     // empty: GET and HEAD
	Paths       []string          `yaml:"paths"`       // below url: "/api/v1/query", "/api/*/query", "/api/**"; empty: all
	CAFile      string            `yaml:"ca"`          // PEM; empty: the system's roots
	Insecure    bool              `yaml:"insecure"`    // the server's certificate is not checked; logged at each start
	HeadersFrom map[string]string `yaml:"headersFrom"` // header → file with its value, which the controller never sees
}

// Proxy is an HTTP proxy for the hub and the token endpoint; never for the API server. Empty: HTTPS_PROXY and NO_PROXY of the environment.
type Proxy struct {
	URL     string `yaml:"url"`     // http://user:password@host:port
	NoProxy string `yaml:"noProxy"` // as in NO_PROXY
	CAFile  string `yaml:"ca"`      // PEM, of a proxy that intercepts or speaks TLS: it counts beside hub.ca and identity.ca, or beside the system's roots
}

const serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"

// Read adds a configuration file to c; fields it does not name stay. Unknown fields are errors.
func (c *Config) Read(name string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %s", name, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := decoder.Decode(new(any)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: there is more than one document in it", name)
	}
	return nil
}

// complete fills defaults in from the surroundings and returns everything that is wrong.
func (c *Config) complete(getenv func(string) string) error {
	var wrong []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Errorf(format, args...))
		}
	}
	if c.Instance == "" {
		c.Instance, _ = os.Hostname() // an empty one is refused below
	}
	if c.Listen == "" {
		c.Listen = ":8080"
	}
	if c.Identity.Scope == "" {
		c.Identity.Scope = "agent:connect"
	}
	if c.Identity.ClientAuth == "" {
		c.Identity.ClientAuth = "basic"
	}
	need(c.Agent != "", "agent: the agent's name is missing; it is the one its identity was made for")
	need(c.Instance != "" && len(c.Instance) <= 253, "instance: must be 1 to 253 characters")
	_, port, err := net.SplitHostPort(c.Hub.Address)
	need(err == nil && port != "", "hub.address: %q must be host:port", c.Hub.Address)
	need(c.Identity.Issuer != "" || c.Identity.TokenURL != "", "identity: issuer or tokenURL is missing")
	for field, value := range map[string]string{"issuer": c.Identity.Issuer, "tokenURL": c.Identity.TokenURL} {
		need(value == "" || isURL(value), "identity.%s: %q must be an http(s) URL", field, value)
	}
	need(c.Identity.Resource == "" || strings.Contains(c.Identity.Resource, ":"), "identity.resource: %q must be an absolute URI", c.Identity.Resource)
	need(c.Identity.ClientID != "", "identity.clientId is missing")
	need(c.Identity.ClientSecretFile != "", "identity.clientSecretFile is missing")
	need(slices.Contains([]string{"basic", "post"}, c.Identity.ClientAuth), "identity.clientAuth: %q must be basic or post", c.Identity.ClientAuth)
	if !c.Kubernetes.Off {
		c.completeKubernetes(getenv, need)
	}
	names := map[string]bool{wire.Kubernetes: true}
	for i := range c.Targets {
		target := &c.Targets[i]
		need(target.Name != "" && len(target.Name) <= 253, "targets[%d]: name must be 1 to 253 characters", i)
		need(!names[target.Name], "targets[%d]: the name %q is taken", i, target.Name)
		names[target.Name] = true
		target.complete(need)
	}
	need(c.Proxy.URL == "" || isURL(c.Proxy.URL), "proxy.url must be an http(s) URL")
	return errors.Join(wrong...)
}

func (c *Config) completeKubernetes(getenv func(string) string, need func(bool, string, ...any)) {
	k := &c.Kubernetes
	if k.Server == "" {
		host, port := getenv("KUBERNETES_SERVICE_HOST"), getenv("KUBERNETES_SERVICE_PORT")
		need(host != "" && port != "", "kubernetes.server is missing, and this is no pod of a cluster; name the API server, or set kubernetes.off")
		k.Server = "https://" + net.JoinHostPort(host, port)
		if k.CAFile == "" {
			k.CAFile = path.Join(serviceAccount, "ca.crt")
		}
		if k.TokenFile == "" {
			k.TokenFile = path.Join(serviceAccount, "token")
		}
		return
	}
	need(isURL(k.Server) && strings.HasPrefix(k.Server, "https://"), "kubernetes.server: %q must be an https URL", k.Server)
	need(k.TokenFile != "", "kubernetes.tokenFile is missing: the file with the token of the agent's ServiceAccount")
}

func (t *Target) complete(need func(bool, string, ...any)) {
	if len(t.Methods) == 0 {
		t.Methods = []string{http.MethodGet, http.MethodHead}
	}
	for i, method := range t.Methods {
		t.Methods[i] = strings.ToUpper(method)
		need(wire.CheckMethod(t.Methods[i]) == nil, "target %q: %q is no method that can be allowed", t.Name, method)
	}
	base, err := url.Parse(t.URL)
	need(err == nil && isURL(t.URL) && base.RawQuery == "" && base.Fragment == "" && base.User == nil, "target %q: url %q must be an http(s) URL without user, query and fragment", t.Name, t.URL)
	need(!strings.Contains(t.URL, "*"), "target %q: url must name one host; make an entry for each", t.Name)
	for _, pattern := range t.Paths {
		_, err := path.Match(strings.TrimSuffix(pattern, "/**"), "")
		need(err == nil && strings.HasPrefix(pattern, "/") && !strings.Contains(strings.TrimSuffix(pattern, "/**"), "**"), "target %q: path %q must begin with /; * stands for any part of a segment, and /** at the end for everything below", t.Name, pattern)
	}
	for name, file := range t.HeadersFrom {
		need(httpguts.ValidHeaderFieldName(name) && wire.Travels(name, nil), "target %q: headersFrom: %q is no header that can be set", t.Name, name)
		need(file != "", "target %q: headersFrom: the file for %q is missing", t.Name, name)
	}
}

func isURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.Hostname() != ""
}
