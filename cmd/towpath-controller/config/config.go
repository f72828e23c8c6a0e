// Package config is the controller's configuration: one strict YAML file. Its reference page and JSON Schema are made from these types.
package config

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
	"go.yaml.in/yaml/v3"
)

// Config is the whole file. The doc tags are its reference.
type Config struct {
	Listen       string     `yaml:"listen" doc:"address of the API, webhooks, token endpoint and metrics" default:"127.0.0.1:8080"`
	ExternalURL  string     `yaml:"externalURL" doc:"address under which people, agents and webhooks reach the controller; the issuer of its tokens" required:"true"`
	TLS          TLS        `yaml:"tls" doc:"certificate of the listeners; agents are served over TLS only"`
	Database     string     `yaml:"database" doc:"sqlite:PATH, or postgres://… for several replicas; this or databaseFile is required"`
	DatabaseFile string     `yaml:"databaseFile" doc:"file with that address, in place of database: that of a PostgreSQL database holds a password; read at the start"`
	KeyFile      string     `yaml:"keyFile" doc:"file of keys that seal manifests and secrets: one a line, 32 bytes in base64; the first seals, all open, and names of revisions depend on the last. Part of the backup" required:"true"`
	Data         string     `yaml:"data" doc:"directory of repository mirrors and caches; can be lost" required:"true"`
	Agents       Agents     `yaml:"agents" doc:"where agents connect, and who may"`
	Peers        Peers      `yaml:"peers" doc:"how replicas on one PostgreSQL database reach each other's agents"`
	Previews     Previews   `yaml:"previews" doc:"temporary links to Services, which exposeServices of deployment files makes"`
	GitHub       GitHubs    `yaml:"github" doc:"GitHub Apps, in whose name repositories are fetched and progress is told"`
	Sources      []Source   `yaml:"sources" doc:"repositories whose deployment files are deployed"`
	Push         Push       `yaml:"push" doc:"deployments that are pushed by towpath deploy start"`
	Policies     []Policies `yaml:"policies" doc:"where rules come from that everything is held to before it is deployed"`
	Roles        []Role     `yaml:"roles" doc:"who holds which role"`
	Prune        Prune      `yaml:"prune" doc:"removals that need no person's word"`
	Revisions    Keep       `yaml:"revisions" doc:"older revisions of a Deployment object"`
	Rollouts     Rollouts   `yaml:"rollouts" doc:"rollouts that are in each other's way, and targets that cannot be reached"`
	Approvals    Approvals  `yaml:"approvals" doc:"who may approve"`
	Drift        Drift      `yaml:"drift" doc:"what is changed or deleted in clusters by others"`
	Render       Render     `yaml:"render" doc:"render processes"`
	Charts       Charts     `yaml:"charts" doc:"charts that are not in the Git repository"`
	Secrets      []Secret   `yaml:"secrets" doc:"what {{secrets.NAME}} stands for in webhooks of deployment files"`
	SOPS         []SOPS     `yaml:"sops" doc:"keys that open what is encrypted with SOPS in repositories"`
	Egress       Egress     `yaml:"egress" doc:"hosts that the controller may call beside the repositories"`
	Log          Log        `yaml:"log" doc:"what the controller logs"`

	MetricProviders []MetricProvider `yaml:"metricProviders" doc:"servers that analysis steps of deployment files ask"`
}

// TLS is a certificate.
type TLS struct {
	Certificate string `yaml:"certificate" doc:"PEM file"`
	Key         string `yaml:"key" doc:"PEM file"`
	Terminated  bool   `yaml:"terminated" doc:"a proxy in front speaks TLS for the API, which is served to it in clear; agents are served over TLS all the same" default:"false"`
}

// Agents is the hub.
type Agents struct {
	Listen   string   `yaml:"listen" doc:"address that agents connect to (gRPC over TLS)" default:"127.0.0.1:8443"`
	Address  string   `yaml:"address" doc:"HOST:PORT under which agents reach it; absent: the host of externalURL and the port of listen"`
	Audience string   `yaml:"audience" doc:"audience of agents' tokens" default:"towpath"`
	Issuers  []Issuer `yaml:"issuers" doc:"OIDC issuers beside the controller's own, whose credentials agents may have"`
}

// Peers is the way between replicas.
type Peers struct {
	Listen  string `yaml:"listen" doc:"address that the other replicas connect to (gRPC over TLS, proved by keyFile); absent: each replica serves only the agents that are connected to it"`
	Address string `yaml:"address" doc:"name or address under which the others reach this replica, at the port of listen; $NAME is a variable of the environment. Absent: the host of listen"`
}

// Previews is where links to Services are served: never at the API's address, since what is behind them is other people's.
type Previews struct {
	Listen      string `yaml:"listen" doc:"address that serves them; absent: deployment files with exposeServices are refused"`
	Domain      string `yaml:"domain" doc:"HOST or HOST:PORT, as visitors reach listen: *.HOST leads there, and each link is a name below it. Not the host of externalURL, nor above or below it; best a domain that serves nothing else"`
	Certificate string `yaml:"certificate" doc:"PEM file with a certificate for *.HOST; absent: one of the controller's own authority"`
	Key         string `yaml:"key" doc:"PEM file"`
	Terminated  bool   `yaml:"terminated" doc:"a proxy in front speaks TLS, keeps the host's name, and adds whom a request comes from to X-Forwarded-For" default:"false"`
}

// Host is the domain without its port.
func (p Previews) Host() string {
	if host, _, err := net.SplitHostPort(p.Domain); err == nil {
		return strings.ToLower(host)
	}
	return strings.ToLower(p.Domain)
}

// check says what is wrong with them beside a controller at a host.
func (p Previews) check(controller string) (wrong []error) {
	need := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Errorf(format, args...))
		}
	}
	need((p.Listen == "") == (p.Domain == ""), "previews: listen and domain come together")
	need((p.Certificate == "") == (p.Key == ""), "previews: certificate and key come together")
	need(!p.Terminated || p.Certificate == "", "previews: with terminated: true nobody is shown the certificate; leave one of them out")
	if p.Listen == "" || p.Domain == "" {
		return wrong
	}
	_, _, err := net.SplitHostPort(p.Listen)
	need(err == nil, "previews.listen: %q is no HOST:PORT", p.Listen)
	host := p.Host()
	need(domain.MatchString(host) && len(host) <= 200, "previews.domain: %q is no name of a domain", p.Domain)
	below := func(name, of string) bool { return name == of || strings.HasSuffix(name, "."+of) }
	controller = strings.ToLower(controller)
	need(!below(host, controller) && !below(controller, host), "previews.domain: %s and the controller's own host, %s, may not be the same, nor one below the other: what links lead to could speak in the controller's name", host, controller)
	return wrong
}

var domain = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$`)

// Host is the name or address that the others are told.
func (p Peers) Host() (string, error) {
	if p.Address == "" {
		host, _, err := net.SplitHostPort(p.Listen)
		return host, err
	}
	host := os.ExpandEnv(p.Address)
	if host == "" {
		return "", fmt.Errorf("peers.address: %s is empty in the environment of this process", p.Address)
	}
	return host, nil
}

// Issuer is an OIDC issuer elsewhere.
type Issuer struct {
	URL      string `yaml:"url" doc:"as its tokens name it (iss); its keys are found by its discovery document" required:"true"`
	Audience string `yaml:"audience" doc:"audience of its tokens; absent: agents.audience"`
	CAFile   string `yaml:"caFile" doc:"certificates that are trusted beside the system's"`
}

// GitHubs is what the controller is on GitHub.
type GitHubs struct {
	Apps []App `yaml:"apps" doc:"towpath github app-manifest makes one"`
}

// App is a GitHub App.
type App struct {
	Name               string   `yaml:"name" doc:"as sources name it" required:"true"`
	AppID              int64    `yaml:"appID" doc:"its number on GitHub" required:"true"`
	PrivateKeyFile     string   `yaml:"privateKeyFile" doc:"PEM file with its private key; read at each use" required:"true"`
	WebhookSecretFiles []string `yaml:"webhookSecretFiles" doc:"files with the secret that signs deliveries to /webhooks/github; two while one is replaced by the other; absent: it has no webhook"`
	APIURL             string   `yaml:"apiURL" doc:"address of the API; of an Enterprise Server, https://HOST/api/v3/" default:"https://api.github.com/"`
	CAFile             string   `yaml:"caFile" doc:"certificates that are trusted beside the system's"`
	PerMinute          int      `yaml:"perMinute" doc:"most writes a minute of one installation" default:"60"`
	PerHour            int      `yaml:"perHour" doc:"most writes an hour of one installation; GitHub takes 500" default:"450"`
}

// App is the one with a name.
func (c *Config) App(name string) (App, bool) {
	i := slices.IndexFunc(c.GitHub.Apps, func(a App) bool { return a.Name == name })
	if i < 0 {
		return App{}, false
	}
	return c.GitHub.Apps[i], true
}

// Source is one watched branch.
type Source struct {
	Name     string   `yaml:"name" doc:"short name, in messages and addresses" required:"true"`
	Tenant   string   `yaml:"tenant" doc:"tenant that its applications belong to" default:"main"`
	URL      string   `yaml:"url" doc:"https://, ssh://, git@HOST:PATH, or a local path" required:"true"`
	Branch   string   `yaml:"branch" doc:"branch that is watched; empty: the remote's default"`
	Schedule string   `yaml:"schedule" doc:"when to look, as cron writes it" default:"@every 30s"`
	Paths    []string `yaml:"paths" doc:"globs that say which files are deployment files" default:"**/towpath.yaml, **/deploy.y*ml"`
	Auth     Auth     `yaml:"auth" doc:"how the repository is reached"`
	Webhook  Webhook  `yaml:"webhook" doc:"push webhook, at /api/v1/webhooks/NAME"`
	GitHub   GitHub   `yaml:"github" doc:"where progress is told"`
	Allow    []Allow  `yaml:"allow" doc:"what the files may touch; without it, nothing"`
}

// Auth is how a repository is reached. Secrets are files only, read at each use.
type Auth struct {
	Username       string `yaml:"username" doc:"for https; most servers take any beside a token"`
	TokenFile      string `yaml:"tokenFile" doc:"file with a token for https"`
	GitHubApp      string `yaml:"githubApp" doc:"name of a GitHub App that is installed on the repository, in place of a token"`
	SSHKeyFile     string `yaml:"sshKeyFile" doc:"private key for ssh"`
	KnownHostsFile string `yaml:"knownHostsFile" doc:"host keys for ssh"`
	CAFile         string `yaml:"caFile" doc:"certificates that are trusted beside the system's"`
}

// Webhook is how pushes are announced.
type Webhook struct {
	SecretFiles []string `yaml:"secretFiles" doc:"files with the secret that signs deliveries; two while one is replaced by the other"`
}

// GitHub is where progress is told.
type GitHub struct {
	Repository   string `yaml:"repository" doc:"OWNER/NAME; empty: nothing is told"`
	App          string `yaml:"app" doc:"name of a GitHub App that is installed on it, in place of tokenFile and all keys below"`
	TokenFile    string `yaml:"tokenFile" doc:"file with a token that may write commit statuses"`
	PullRequests string `yaml:"pullRequests" doc:"plan: what a merge would do is told on each pull request; off: nothing is; absent: plan with app, off with tokenFile"`
	APIURL       string `yaml:"apiURL" doc:"address of the API" default:"https://api.github.com/"`
	CAFile       string `yaml:"caFile" doc:"certificates that are trusted beside the system's"`
	PerMinute    int    `yaml:"perMinute" doc:"most writes a minute; all sources with one tokenFile share them" default:"60"`
	PerHour      int    `yaml:"perHour" doc:"most writes an hour; GitHub takes 500 of one identity" default:"450"`
}

// Plans reports whether what a merge would do is told on pull requests of the source.
func (s Source) Plans() bool {
	return s.GitHub.Repository != "" && (s.GitHub.PullRequests == "plan" || s.GitHub.PullRequests == "" && s.GitHub.App != "")
}

// Repository is what the source is called on GitHub, "OWNER/NAME"; "": it is not known to be there.
func (s Source) Repository() string {
	if s.GitHub.Repository != "" {
		return s.GitHub.Repository
	}
	address, err := url.Parse(s.URL)
	if err != nil {
		return ""
	}
	name := strings.TrimSuffix(strings.Trim(address.Path, "/"), ".git")
	if strings.Count(name, "/") != 1 {
		return ""
	}
	return name
}

// checkGitHub says what is wrong with as whom a source is known to GitHub.
func (c *Config) checkGitHub(at string, s Source) (wrong []error) {
	need := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Errorf(format, args...))
		}
	}
	known := func(key, name string) {
		_, there := c.App(name)
		need(name == "" || there, "%s.%s: no App %s in github.apps", at, key, name)
	}
	g := s.GitHub
	need(g.Repository == "" || strings.Count(g.Repository, "/") == 1 && g.App+g.TokenFile != "", "%s.github: repository is OWNER/NAME, and app or tokenFile is required with it", at)
	need(g.App == "" || g.Repository != "", "%s.github: repository is required with app", at)
	need(g.App == "" || g.TokenFile == "", "%s.github: write app or tokenFile, not both", at)
	need(slices.Contains([]string{"", "plan", "off"}, g.PullRequests), "%s.github.pullRequests: %q; write plan or off", at, g.PullRequests)
	need(g.PullRequests != "plan" || g.Repository != "", "%s.github: repository is required with pullRequests: plan", at)
	need(g.PerMinute > 0 && g.PerHour > 0, "%s.github: perMinute and perHour are 1 or more", at)
	known("github.app", g.App)
	known("auth.githubApp", s.Auth.GitHubApp)
	app, there := c.App(s.Auth.GitHubApp)
	if !there {
		return wrong
	}
	need(s.Auth.TokenFile == "" && s.Auth.SSHKeyFile == "", "%s.auth: write one of githubApp, tokenFile and sshKeyFile", at)
	address, err := url.Parse(s.URL)
	api, bad := url.Parse(app.APIURL)
	need(err == nil && bad == nil && (address.Scheme == "https" || address.Scheme == "http") && strings.TrimPrefix(api.Hostname(), "api.") == address.Hostname(),
		"%s.auth.githubApp: the url is to begin with https:// and the host of the App's GitHub, since its token is sent there", at)
	need(s.Repository() != "", "%s.auth.githubApp: the url is to end with OWNER/NAME, or github.repository to say them", at)
	return wrong
}

// checkApps says what is wrong with the Apps.
func (c *Config) checkApps() (wrong []error) {
	need := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Errorf(format, args...))
		}
	}
	names := map[string]bool{}
	for i, a := range c.GitHub.Apps {
		at := fmt.Sprintf("github.apps[%d]", i)
		need(sourceName.MatchString(a.Name), "%s.name: %q; letters, digits, - and _, at most 63", at, a.Name)
		need(!names[a.Name], "%s.name: a second App named %s", at, a.Name)
		names[a.Name] = true
		need(a.AppID > 0, "%s.appID is required: the number that the App's page on GitHub shows", at)
		need(a.PrivateKeyFile != "", "%s.privateKeyFile is required", at)
		need(a.PerMinute > 0 && a.PerHour > 0, "%s: perMinute and perHour are 1 or more", at)
	}
	return wrong
}

// Allow is one entry of what a source may touch.
type Allow struct {
	Accounts   []string `yaml:"accounts" doc:"names of agents; * for any run of characters"`
	Namespaces []string `yaml:"namespaces" doc:"of objects; * also covers cluster-wide ones"`
	Kinds      []string `yaml:"kinds" doc:"Kind or Kind.group"`
}

// Policies is where rules on manifests come from: the watched branch of a source, or a file.
type Policies struct {
	Source  string   `yaml:"source" doc:"source whose watched branch holds the policy files; this or file"`
	Paths   []string `yaml:"paths" doc:"globs that say which files of the source are policy files; those that end in _test.yaml are tests of them" default:"policies/*.yaml"`
	File    string   `yaml:"file" doc:"policy file on this machine; read at the start and on SIGHUP"`
	Tenants []string `yaml:"tenants" doc:"tenants whose files are held to the rules, as globs; absent: all"`
}

// Push says what pushes may touch.
type Push struct {
	Allow []Allow `yaml:"allow" doc:"what pushed files may touch; absent: everything, as their tokens are given to trusted jobs"`
}

// Role and who holds it.
type Role struct {
	Name    string   `yaml:"name" doc:"as deployment files write it" required:"true"`
	Members []string `yaml:"members" doc:"names of people or tokens"`

	GitHubTeams []string `yaml:"githubTeams" doc:"ORGANIZATION/TEAM: who is in one of them holds the role where it is asked for below pull requests; the App then needs members: read"`
	GitHubUsers []string `yaml:"githubUsers" doc:"logins that hold it there"`
}

// gitHubTeam is a team as its address has it.
var gitHubTeam = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*/[A-Za-z0-9_.-]+$`)

// Held reports whether anybody holds the role.
func (r Role) Held() bool { return len(r.Members)+len(r.GitHubTeams)+len(r.GitHubUsers) > 0 }

// Prune is the budget of removals.
type Prune struct {
	Removals int     `yaml:"removals" doc:"more objects than these wait for a person" default:"10"`
	Shrink   float64 `yaml:"shrink" doc:"a render that shrinks by more than this share waits for a person, unless a single object goes; an empty one always waits" default:"0.3"`
}

// Rollouts is how rollouts meet.
type Rollouts struct {
	Replaced int           `yaml:"replaced" doc:"after so many replaced in a row on a target, the next one finishes first unless it is in trouble" default:"3"`
	Yield    time.Duration `yaml:"yield" doc:"how long a replaced rollout waits at most for what ran before it to carry everything" default:"1m"`
	Away     time.Duration `yaml:"away" doc:"how long an agent may be away before unreachable: skip or fail of a target counts" default:"1m"`
}

// Drift is what differs in clusters.
type Drift struct {
	Ignore []Ignore `yaml:"ignore" doc:"what may differ"`
}

// Ignore is what may differ: an entry fits where all that it names does.
type Ignore struct {
	Group   string `yaml:"group" doc:"API group; absent: any"`
	Kind    string `yaml:"kind" doc:"kind; absent: any"`
	Pointer string `yaml:"pointer" doc:"JSON pointer to a field, with all below it; absent: any"`
	Manager string `yaml:"manager" doc:"field manager that changed it; absent: any"`
}

// Approvals is who may approve.
type Approvals struct {
	ForbidSelf bool `yaml:"forbidSelf" doc:"people may not approve their own change, unless the step says allowSelfApproval: true" default:"false"`
}

// Keep is how many revisions stay.
type Keep struct {
	Keep int `yaml:"keep" doc:"how many stay at zero pods" default:"3"`
}

// Render is the render processes.
type Render struct {
	Workers int           `yaml:"workers" doc:"processes at once; 0: one a processor"`
	Memory  int64         `yaml:"memoryMiB" doc:"of one process" default:"512"`
	Timeout time.Duration `yaml:"timeout" doc:"of one render" default:"10s"`
}

// Charts are fetched from chart repositories and registries whose hosts are in egress.allowHosts.
type Charts struct {
	Credentials []Credential `yaml:"credentials" doc:"for private repositories and registries; the longest url that fits is taken"`
	Cache       int64        `yaml:"cacheMiB" doc:"of charts that are kept, below data" default:"512"`
	Archive     int64        `yaml:"archiveMiB" doc:"of one chart, packed" default:"20"`
}

// Credential is for everything below an address.
type Credential struct {
	URL          string   `yaml:"url" doc:"https://HOST/PATH or oci://HOST/PATH" required:"true"`
	Tenants      []string `yaml:"tenants" doc:"tenants for whose deployment files it is sent; absent: all"`
	Username     string   `yaml:"username" doc:"name beside the password; most servers take any beside a token" required:"true"`
	PasswordFile string   `yaml:"passwordFile" doc:"file with the password or token; read at each use" required:"true"`
}

// pushed is what lists of sources call what is pushed.
const pushed = "push"

// SourceOf is what lists of sources call a source; "" is that of what is pushed, which has none.
func SourceOf(source string) string { return cmp.Or(source, pushed) }

// Secret is a value that webhooks may send without their authors knowing it. All of the lists are globs.
type Secret struct {
	Name         string   `yaml:"name" doc:"as deployment files write it" required:"true"`
	Tenant       string   `yaml:"tenant" doc:"whose files may use it" default:"main"`
	File         string   `yaml:"file" doc:"file with the value; read at each use" required:"true"`
	Hosts        []string `yaml:"hosts" doc:"hosts that it may be sent to: HOST, or HOST:PORT where the address names a port" required:"true"`
	Sources      []string `yaml:"sources" doc:"sources whose files may use it, and push for what is pushed; absent: all"`
	Applications []string `yaml:"applications" doc:"applications that may use it; absent: all"`
}

// SOPS is private keys, and whose files they open.
type SOPS struct {
	Tenant       string   `yaml:"tenant" doc:"whose files they open" default:"main"`
	AgeKeyFiles  []string `yaml:"ageKeyFiles" doc:"files with private keys of age, as age-keygen writes them; read at each use"`
	PGPKeyFiles  []string `yaml:"pgpKeyFiles" doc:"files with private keys of PGP without a passphrase, as gpg --export-secret-keys writes them; read at each use"`
	Sources      []string `yaml:"sources" doc:"sources whose files they open, and push for what is pushed, as globs; absent: all"`
	Applications []string `yaml:"applications" doc:"applications for which they do, as globs; absent: all"`
}

// Egress is outgoing calls.
type Egress struct {
	AllowHosts   []string       `yaml:"allowHosts" doc:"hosts of chart repositories, registries, manifests by URL and webhooks; *.example.com, host:port"`
	AllowPrivate []string       `yaml:"allowPrivate" doc:"hosts or networks that may be private addresses"`
	Tenants      []TenantEgress `yaml:"tenants" doc:"what deployment files of single tenants may call beside that"`
	RedirectTo   []string       `yaml:"redirectTo" doc:"hosts that redirects may lead to over https; registries keep their content elsewhere"`
	CAFile       string         `yaml:"caFile" doc:"certificates that are trusted beside the system's"`
	Proxy        bool           `yaml:"proxy" doc:"use HTTPS_PROXY and NO_PROXY of the environment" default:"false"`
}

// TenantEgress is what the files of one tenant may call, and those of no other.
type TenantEgress struct {
	Name         string   `yaml:"name" doc:"the tenant" required:"true"`
	AllowHosts   []string `yaml:"allowHosts" doc:"hosts, as in egress.allowHosts"`
	AllowPrivate []string `yaml:"allowPrivate" doc:"hosts or networks, as in egress.allowPrivate"`
}

// Of is what a tenant's files may call, and whether an entry of its own says some of that.
func (e Egress) Of(tenant string) (allowHosts, allowPrivate []string, own bool) {
	i := slices.IndexFunc(e.Tenants, func(t TenantEgress) bool { return t.Name == tenant })
	if i < 0 {
		return e.AllowHosts, e.AllowPrivate, false
	}
	return slices.Concat(e.AllowHosts, e.Tenants[i].AllowHosts), slices.Concat(e.AllowPrivate, e.Tenants[i].AllowPrivate), true
}

// Log is what is logged.
type Log struct {
	Level  string `yaml:"level" doc:"error, warn, info, debug" default:"info"`
	Format string `yaml:"format" doc:"text or json" default:"text"`
}

// Read reads a configuration file and fills in defaults. The error lists everything that is wrong, a line each.
func Read(name string) (*Config, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return Parse(name, text)
}

var unknownField = regexp.MustCompile(`line (\d+): field (\S+) not found in type config\.(\S+)`)

// Parse is Read for a text that is there already.
func Parse(name string, text []byte) (*Config, error) {
	c := new(Config)
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return nil, explain(name, err)
	}
	c.complete()
	if wrong := c.check(); len(wrong) > 0 {
		return nil, fmt.Errorf("%s: %w", name, errors.Join(wrong...))
	}
	return c, nil
}

// explain names, for each key that is not known, those that are.
func explain(name string, err error) error {
	var types *yaml.TypeError
	if !errors.As(err, &types) {
		return fmt.Errorf("%s: %s", name, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	var all []error
	for _, line := range types.Errors {
		if m := unknownField.FindStringSubmatch(line); m != nil {
			all = append(all, fmt.Errorf("%s:%s: unknown key %s; known here: %s", name, m[1], m[2], strings.Join(keysOf(m[3]), ", ")))
			continue
		}
		all = append(all, fmt.Errorf("%s: %s", name, line))
	}
	return errors.Join(all...)
}

func (c *Config) complete() {
	fill(c)
	for i := range c.Sources {
		fill(&c.Sources[i])
	}
	for i := range c.GitHub.Apps {
		fill(&c.GitHub.Apps[i])
	}
	for i := range c.Secrets {
		fill(&c.Secrets[i])
	}
	for i := range c.SOPS {
		fill(&c.SOPS[i])
	}
	for i := range c.Policies {
		if p := &c.Policies[i]; p.Source != "" && len(p.Paths) == 0 {
			p.Paths = []string{"policies/*.yaml"}
		}
	}
	if c.Push.Allow == nil {
		c.Push.Allow = []Allow{{[]string{"*"}, []string{"*"}, []string{"*"}}}
	}
	c.ExternalURL = strings.TrimSuffix(c.ExternalURL, "/")
}

func (c *Config) check() (wrong []error) {
	need := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Errorf(format, args...))
		}
	}
	base, err := url.Parse(c.ExternalURL)
	need(err == nil && base.Host != "" && (base.Scheme == "https" || base.Scheme == "http"), "externalURL: %q is no http(s) address", c.ExternalURL)
	need(c.Database == "" || c.DatabaseFile == "", "database and databaseFile say the same thing; write one of them")
	need(c.DatabaseFile != "" || isDatabase(c.Database), "database: write sqlite:PATH or postgres://…, not %q", c.Database)
	need(c.KeyFile != "", "keyFile is required; `towpath-controller key` prints a new key")
	need(c.Data != "", "data is required: a directory for mirrors and caches")
	need((c.TLS.Certificate == "") == (c.TLS.Key == ""), "tls: certificate and key come together")
	for _, a := range []struct{ field, address string }{{"listen", c.Listen}, {"agents.listen", c.Agents.Listen}, {"agents.address", c.Agents.Address}} {
		_, _, err := net.SplitHostPort(a.address)
		need(err == nil || a.field == "agents.address" && a.address == "", "%s: %q is no HOST:PORT", a.field, a.address)
	}
	if c.Peers.Listen != "" {
		_, _, err := net.SplitHostPort(c.Peers.Listen)
		need(err == nil, "peers.listen: %q is no HOST:PORT", c.Peers.Listen)
		need(c.Peers.Address != "" || reachable(c.Peers.Listen), "peers.address: say how the other replicas reach this one; peers.listen (%q) names no host", c.Peers.Listen)
		need(c.Database == "" || !alone(c.Database), aloneText)
	}
	need(c.Peers.Listen != "" || c.Peers.Address == "", "peers.address: peers.listen is missing")
	for i, issuer := range c.Agents.Issuers {
		base, err := url.Parse(issuer.URL)
		need(err == nil && base.Host != "" && (base.Scheme == "https" || base.Scheme == "http"), "agents.issuers[%d].url: %q is no http(s) address", i, issuer.URL)
		need(issuer.URL != c.ExternalURL, "agents.issuers[%d].url: that is the controller's own issuer, which is trusted always", i)
	}
	need(slices.Contains([]string{"text", "json"}, c.Log.Format), "log.format: %q is none of text, json", c.Log.Format)
	need(slices.Contains([]string{"error", "warn", "info", "debug"}, c.Log.Level), "log.level: %q is none of error, warn, info, debug", c.Log.Level)
	need(c.Prune.Removals >= 0 && c.Prune.Shrink >= 0 && c.Prune.Shrink <= 1, "prune: removals is a count, shrink a share from 0 to 1")
	for i, credential := range c.Charts.Credentials {
		base, err := url.Parse(credential.URL)
		need(err == nil && base.Host != "" && slices.Contains([]string{"https", "http", "oci"}, base.Scheme), "charts.credentials[%d].url: %q is neither https://HOST/PATH nor oci://HOST/PATH", i, credential.URL)
		need(credential.Username != "" && credential.PasswordFile != "", "charts.credentials[%d]: username and passwordFile are required", i)
	}
	tenants := map[string]bool{}
	for i, t := range c.Egress.Tenants {
		at := fmt.Sprintf("egress.tenants[%d].name", i)
		need(sourceName.MatchString(t.Name), "%s: %q; letters, digits, - and _, at most 63", at, t.Name)
		need(!tenants[t.Name], "%s: a second entry for %s", at, t.Name)
		tenants[t.Name] = true
	}
	secrets := map[[2]string]bool{}
	for i, s := range c.Secrets {
		at := fmt.Sprintf("secrets[%d]", i)
		need(secretName.MatchString(s.Name), "%s.name: %q; letters, digits, ., - and _, at most 253", at, s.Name)
		need(!secrets[[2]string{s.Tenant, s.Name}], "%s.name: a second secret named %s", at, s.Name)
		secrets[[2]string{s.Tenant, s.Name}] = true
		need(s.File != "", "%s.file is required", at)
		need(len(s.Hosts) > 0, "%s.hosts is required: the hosts that it may be sent to", at)
		for _, pattern := range slices.Concat(s.Hosts, s.Sources, s.Applications) {
			_, err := path.Match(pattern, "")
			need(err == nil, "%s: %q is no pattern", at, pattern)
		}
	}
	for i, s := range c.SOPS {
		at := fmt.Sprintf("sops[%d]", i)
		need(len(s.AgeKeyFiles)+len(s.PGPKeyFiles) > 0, "%s: ageKeyFiles or pgpKeyFiles is required", at)
		for _, pattern := range slices.Concat(s.Sources, s.Applications) {
			_, err := path.Match(pattern, "")
			need(err == nil, "%s: %q is no pattern", at, pattern)
		}
	}
	for i, r := range c.Roles {
		for _, team := range r.GitHubTeams {
			need(gitHubTeam.MatchString(team), "roles[%d].githubTeams: %q; write ORGANIZATION/TEAM, with the team as its address has it", i, team)
		}
	}
	wrong = append(wrong, c.checkApps()...)
	names := map[string]bool{}
	for i, s := range c.Sources {
		at := fmt.Sprintf("sources[%d]", i)
		need(sourceName.MatchString(s.Name), "%s.name: %q; letters, digits, - and _, at most 63", at, s.Name)
		need(!names[s.Name], "%s.name: a second source named %s", at, s.Name)
		need(s.Name != pushed, "%s.name: push stands for what is pushed; give the source another name", at)
		names[s.Name] = true
		need(s.URL != "", "%s.url is required", at)
		_, err := cron.ParseStandard(s.Schedule)
		need(err == nil, "%s.schedule: %v", at, err)
		wrong = append(wrong, c.checkGitHub(at, s)...)
		need(sourceName.MatchString(s.Tenant), "%s.tenant: %q; letters, digits, - and _, at most 63", at, s.Tenant)
		wrong = append(wrong, checkAllow(at+".allow", s.Allow)...)
	}
	if base != nil {
		wrong = append(wrong, c.Previews.check(base.Hostname())...)
	}
	wrong = append(wrong, c.checkPolicies()...)
	wrong = append(wrong, checkMetrics(c.MetricProviders)...)
	return append(wrong, checkAllow("push.allow", c.Push.Allow)...)
}

func (c *Config) checkPolicies() (wrong []error) {
	need := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Errorf(format, args...))
		}
	}
	seen := map[string]bool{}
	for i, p := range c.Policies {
		at := fmt.Sprintf("policies[%d]", i)
		need((p.Source == "") != (p.File == ""), "%s: source or file is required, and not both", at)
		need(p.File == "" || len(p.Paths) == 0, "%s.paths: a file has none", at)
		need(p.Source == "" || slices.ContainsFunc(c.Sources, func(s Source) bool { return s.Name == p.Source }), "%s.source: no source is named %s", at, p.Source)
		need(p.Source == "" || !seen[p.Source], "%s.source: a second entry of source %s; name all its files under paths of one", at, p.Source)
		seen[p.Source] = true
		for _, pattern := range p.Tenants {
			_, err := path.Match(pattern, "")
			need(err == nil, "%s.tenants: %q is no pattern", at, pattern)
		}
	}
	return wrong
}

var secretName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,253}$`)

var sourceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$`)

func checkAllow(at string, entries []Allow) (wrong []error) {
	for i, a := range entries {
		for _, pattern := range slices.Concat(a.Accounts, a.Namespaces, a.Kinds) {
			if _, err := path.Match(pattern, ""); err != nil {
				wrong = append(wrong, fmt.Errorf("%s[%d]: %q is no pattern", at, i, pattern))
			}
		}
	}
	return wrong
}

func isDatabase(address string) bool {
	return strings.HasPrefix(address, "sqlite:") || strings.HasPrefix(address, "postgres://") || strings.HasPrefix(address, "postgresql://")
}

// alone reports whether one controller only can use a database.
func alone(database string) bool { return strings.HasPrefix(database, "sqlite:") }

const aloneText = "peers.listen: replicas share a PostgreSQL database; with SQLite there is one controller"

// reachable reports whether an address to listen on names a host that others can connect to, and not each interface.
func reachable(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	address, bad := netip.ParseAddr(host)
	return err == nil && host != "" && (bad != nil || !address.IsUnspecified())
}

// DatabaseURL is the address of the database, read from its file where it is in one. An error does not show what the file holds.
func (c *Config) DatabaseURL() (string, error) {
	if c.DatabaseFile == "" {
		return c.Database, nil
	}
	text, err := os.ReadFile(c.DatabaseFile)
	if err != nil {
		return "", fmt.Errorf("databaseFile: %w", err)
	}
	address := strings.TrimSpace(string(text))
	if !isDatabase(address) {
		return "", fmt.Errorf("databaseFile %s holds no address like sqlite:PATH or postgres://…", c.DatabaseFile)
	}
	if c.Peers.Listen != "" && alone(address) {
		return "", errors.New(aloneText)
	}
	return address, nil
}

// Secure reports whether the API is served over TLS by the controller itself.
func (c *Config) Secure() bool {
	return strings.HasPrefix(c.ExternalURL, "https://") && !c.TLS.Terminated
}

// CheckFiles reads each file that the configuration names, but for those of keys whose content is checked elsewhere. The error lists all that cannot be read, and all secrets that are empty.
func (c *Config) CheckFiles() error {
	_, badKeys := c.Keys()
	_, badDatabase := c.DatabaseURL()
	wrong := []error{badKeys, badDatabase}
	look := func(field, name string) {
		if name == "" {
			return
		}
		text, err := os.ReadFile(name)
		if err == nil && len(bytes.TrimSpace(text)) == 0 {
			err = fmt.Errorf("%s is empty", name)
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", field, err))
		}
	}
	look("tls.certificate", c.TLS.Certificate)
	look("tls.key", c.TLS.Key)
	look("previews.certificate", c.Previews.Certificate)
	look("previews.key", c.Previews.Key)
	for _, issuer := range c.Agents.Issuers {
		look("issuer "+issuer.URL+": caFile", issuer.CAFile)
	}
	for i, p := range c.Policies {
		look(fmt.Sprintf("policies[%d].file", i), p.File)
	}
	for _, s := range c.Secrets {
		look("secret "+s.Name+": file", s.File)
	}
	for _, s := range c.Sources {
		at := "source " + s.Name + ": "
		look(at+"auth.tokenFile", s.Auth.TokenFile)
		look(at+"auth.sshKeyFile", s.Auth.SSHKeyFile)
		look(at+"auth.knownHostsFile", s.Auth.KnownHostsFile)
		look(at+"auth.caFile", s.Auth.CAFile)
		look(at+"github.tokenFile", s.GitHub.TokenFile)
		look(at+"github.caFile", s.GitHub.CAFile)
		for _, name := range s.Webhook.SecretFiles {
			look(at+"webhook.secretFiles", name)
		}
	}
	for _, a := range c.GitHub.Apps {
		at := "github.apps " + a.Name + ": "
		look(at+"caFile", a.CAFile)
		for _, name := range a.WebhookSecretFiles {
			look(at+"webhookSecretFiles", name)
		}
	}
	for _, p := range c.MetricProviders {
		at := "metric provider " + p.Name + ": "
		look(at+"caFile", p.CAFile)
		look(at+"auth.passwordFile", p.Auth.PasswordFile)
		look(at+"auth.tokenFile", p.Auth.TokenFile)
		look(at+"datadog.apiKeyFile", p.Datadog.APIKeyFile)
		look(at+"datadog.applicationKeyFile", p.Datadog.ApplicationKeyFile)
		look(at+"newRelic.userKeyFile", p.NewRelic.UserKeyFile)
	}
	return errors.Join(wrong...)
}

// Keys reads the keys of keyFile.
func (c *Config) Keys() ([][]byte, error) {
	text, err := os.ReadFile(c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("keyFile: %w", err)
	}
	var keys [][]byte
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(key) != 32 {
			return nil, fmt.Errorf("keyFile %s: a key is 32 bytes in base64; `towpath-controller key` prints one", c.KeyFile)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("keyFile %s holds no key; `towpath-controller key` prints one", c.KeyFile)
	}
	return keys, nil
}
