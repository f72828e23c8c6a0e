package world

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"towpath/api"
	"towpath/api/client"
	"towpath/internal/localkube"
	"towpath/internal/localstack"
	"towpath/internal/testkit/github"
	"towpath/internal/testkit/gitserver"
)

// World is one controller with its agents and its repository.
type World struct {
	Namespace  string
	Repository *gitserver.Repo
	API        *client.Client
	Dir        string

	t       testing.TB
	shared  *Shared
	stack   *localstack.Controller
	running *localstack.Process // the controller
	agents  map[string]*agent
	hub     *github.GitHub // nil: nothing is told
	app     int64          // 0: it is told by a token

	environment []string // of the controller
	more        string   // of its configuration
	roles       string   // of its configuration; "": sre, which test holds
	sources     string   // beside the repository, of its configuration
}

// agent is an agent and its process.
type agent struct {
	*localstack.Agent
	running *localstack.Process
}

// GitHubRepository is what the repository is called on a GitHub.
const GitHubRepository = "acme/repo"

// New starts a controller, and an agent in front of each of the shared clusters. Files fill the repository; NAMESPACE in them is the test's own.
func New(t testing.TB, shared *Shared, files gitserver.Files, options ...Option) *World {
	t.Helper()
	w := &World{t: t, shared: shared, Dir: t.TempDir(), Namespace: "t-" + random(5), agents: map[string]*agent{}}
	for _, option := range options {
		option(w)
	}
	w.Repository = gitserver.NewRepo(t, filepath.Join(w.Dir, "git"), "repo", w.own(files))
	w.configure()
	w.show(w.Repository.Head("main"))
	w.StartController()
	for name := range shared.Clusters {
		w.makeAgent(name)
		w.StartAgent(name)
	}
	t.Cleanup(w.end)
	return w
}

// Option of a World.
type Option func(*World)

// OnGitHub gives the repository a GitHub that knows its commits and is told about them.
func OnGitHub(hub *github.GitHub) Option { return func(w *World) { w.hub = hub } }

// ByApp lets a GitHub App tell that is installed on the repository.
func ByApp(app int64) Option { return func(w *World) { w.app = app } }

// Environment gives the controller variables beside the test's own.
func Environment(variables ...string) Option {
	return func(w *World) { w.environment = append(w.environment, variables...) }
}

// Configuration adds to the controller's configuration, as YAML.
func Configuration(text string) Option { return func(w *World) { w.more = text } }

// Roles says who holds which roles, as YAML writes it.
func Roles(text string) Option { return func(w *World) { w.roles = text } }

// Beside gives the controller another source, with its settings as YAML.
func Beside(name string, repository *gitserver.Repo, settings string) Option {
	return func(w *World) {
		w.sources += fmt.Sprintf("  - {name: %s, url: %s, branch: main%s}\n", name, repository.Dir, settings)
	}
}

func random(n int) string {
	bytes := make([]byte, n)
	rand.Read(bytes)
	return hex.EncodeToString(bytes)
}

// own puts the test's namespace into files.
func (w *World) own(files gitserver.Files) gitserver.Files {
	out := gitserver.Files{}
	for name, text := range files {
		out[name] = strings.ReplaceAll(text, "NAMESPACE", w.Namespace)
	}
	return out
}

func (w *World) fatal(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *World) configure() {
	w.t.Helper()
	told := w.gitHub()
	var err error
	w.stack, err = localstack.NewController(w.t.Context(), localstack.Settings{Programs: w.shared.Programs, Dir: w.Dir, Repository: w.Repository.Dir, Namespaces: w.Namespace, GitHub: told, Roles: w.roles, More: w.more, Sources: w.sources})
	w.fatal(err)
	w.API = w.stack.API
}

// gitHub is the part of the configuration that says where progress is told.
func (w *World) gitHub() string {
	w.t.Helper()
	if w.hub == nil {
		return ""
	}
	if w.app != 0 {
		w.NewKey()
		w.fatal(os.WriteFile(filepath.Join(w.Dir, "app-secret"), []byte(AppSecret), 0o600))
		w.hub.Repository(GitHubRepository)
		w.hub.Install(w.app, github.Rights{"metadata": "read", "statuses": "write", "checks": "write", "pull_requests": "write", "members": "read"}, GitHubRepository)
		w.more += fmt.Sprintf("\ngithub: {apps: [{name: us, appID: %d, privateKeyFile: %s, webhookSecretFiles: [%s], apiURL: %q, perMinute: 100000, perHour: 1000000}]}\n",
			w.app, filepath.Join(w.Dir, "app-key"), filepath.Join(w.Dir, "app-secret"), w.hub.URL)
		return fmt.Sprintf("{repository: %s, app: us}", GitHubRepository)
	}
	token := random(16)
	w.hub.Token(token, GitHubRepository, github.Rights{"statuses": "write"})
	w.fatal(os.WriteFile(filepath.Join(w.Dir, "github-token"), []byte(token), 0o600))
	return fmt.Sprintf("{repository: %s, tokenFile: %s, apiURL: %q, perMinute: 100000, perHour: 1000000}", GitHubRepository, filepath.Join(w.Dir, "github-token"), w.hub.URL)
}

// AppSecret signs what the App's webhook delivers.
const AppSecret = "of the App's webhook"

// NewKey gives the App a key, in place of the one that it had.
func (w *World) NewKey() {
	w.t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	w.fatal(err)
	w.hub.App(w.app, "towpath", &key.PublicKey)
	w.fatal(os.WriteFile(filepath.Join(w.Dir, "app-key"), pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}), 0o600))
}

// HookOfApp has GitHub deliver to the controller, or nowhere.
func (w *World) HookOfApp(there bool) {
	w.t.Helper()
	client := &http.Client{Transport: nowhere{}}
	if there {
		text, err := os.ReadFile(w.CA())
		w.fatal(err)
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(text)
		client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	}
	w.hub.Hook(w.app, w.stack.Address+"/webhooks/github", AppSecret, client)
}

type nowhere struct{}

// RoundTrip implements http.RoundTripper.
func (nowhere) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("nobody is there")
}

// Merge puts files into the repository and tells nobody but GitHub.
func (w *World) Merge(message string, files gitserver.Files) string {
	w.t.Helper()
	commit := w.Repository.Commit(message, w.own(files))
	w.show(commit)
	return commit
}

// CommitTo puts files on a branch, of which GitHub knows.
func (w *World) CommitTo(branch, message string, files gitserver.Files) string {
	w.t.Helper()
	commit := w.Repository.CommitTo(branch, message, w.own(files))
	w.show(commit)
	return commit
}

// show lets GitHub know a commit, as a push to it would.
func (w *World) show(commit string) {
	if w.hub != nil {
		w.hub.Repository(GitHubRepository, commit)
	}
}

// StartController starts the controller and waits until it serves. false: it ended before.
func (w *World) StartController() (serves bool) {
	w.t.Helper()
	var err error
	w.running, err = w.stack.Start(w.environment...)
	w.fatal(err)
	serves, err = w.stack.Serves(w.t.Context(), w.running)
	w.fatal(err)
	if serves {
		w.restartAgents()
	}
	return serves
}

// restartAgents makes agents connect at once: those that lost many controllers in a row wait longer each time.
func (w *World) restartAgents() {
	w.t.Helper()
	for name, a := range w.agents {
		a.running.Kill()
		w.StartAgent(name)
	}
}

// CA is the certificate of the controller's own authority.
func (w *World) CA() string { return w.stack.CA() }

// Rebuild loses the controller's database, starts the controller on an empty one, and makes its agents known to it again. Those that are away are not started.
func (w *World) Rebuild(away ...string) {
	w.t.Helper()
	w.running.End()
	var err error
	w.running, err = w.stack.Rebuild(w.t.Context(), w.environment...)
	w.fatal(err)
	if serves, err := w.stack.Serves(w.t.Context(), w.running); err != nil || !serves {
		w.t.Fatalf("the controller does not serve (%v):\n%s", err, w.running.Log())
	}
	for name, a := range w.agents {
		if code, _, errs := w.Towpath(w.Dir, nil, "agent", "create", name, "--client-id", a.ClientID(), "--client-secret-file", a.SecretFile()); code != 0 {
			w.t.Fatalf("the agent %s is not taken on: %s", name, errs)
		}
		a.running.Kill()
		if !slices.Contains(away, name) {
			w.StartAgent(name)
		}
	}
}

// Operate runs the controller's program as its operator does, and returns what it printed.
func (w *World) Operate(args ...string) (out string, err error) {
	w.t.Helper()
	return w.stack.Operate(w.t.Context(), args...)
}

// Log is what the controller that runs now has said.
func (w *World) Log() string { return w.running.Log() }

// KillController ends the controller as a machine that loses power would.
func (w *World) KillController() { w.running.Kill() }

// StopController ends the controller as an operator would.
func (w *World) StopController() { w.running.End() }

// ControllerGone is closed when the controller that runs now has ended.
func (w *World) ControllerGone() <-chan struct{} { return w.running.Ended() }

func (w *World) makeAgent(name string) {
	w.t.Helper()
	access, err := localkube.Account(w.t.Context(), w.shared.Clusters[name].Kubeconfig, w.Namespace, "agent", false, localkube.Deploys(), filepath.Join(w.Dir, "agent-"+name))
	w.fatal(err)
	made, err := w.stack.Agent(w.t.Context(), name, access)
	w.fatal(err)
	w.agents[name] = &agent{Agent: made}
}

// Identified lets the agents' ServiceAccount read who a cluster is.
func (w *World) Identified(cluster string) {
	w.t.Helper()
	w.fatal(localkube.Identify(w.t.Context(), w.shared.Clusters[cluster].Kubeconfig, w.Namespace, "agent"))
}

// MoveAgent starts an agent that was stopped in front of another cluster.
func (w *World) MoveAgent(name, cluster string) {
	w.t.Helper()
	access, err := localkube.Account(w.t.Context(), w.shared.Clusters[cluster].Kubeconfig, w.Namespace, "agent", false, localkube.Deploys(), filepath.Join(w.Dir, "moved-"+name))
	w.fatal(err)
	w.agents[name].Agent = w.agents[name].Agent.Behind(access)
	w.StartAgent(name)
}

// ReplaceAgent starts an agent that was stopped as another program.
func (w *World) ReplaceAgent(name, program string) {
	w.t.Helper()
	w.agents[name].Agent = w.agents[name].Agent.As(program)
	w.StartAgent(name)
}

// ConfigureAgent gives an agent a configuration file beside its flags, and starts it anew.
func (w *World) ConfigureAgent(name, text string) {
	w.t.Helper()
	file := filepath.Join(w.Dir, "agent-"+name+".yaml")
	w.fatal(os.WriteFile(file, []byte(text), 0o600))
	w.StopAgent(name)
	w.agents[name].Agent = w.agents[name].Agent.Reading(file)
	w.StartAgent(name)
}

// StartAgent starts the agent of a cluster.
func (w *World) StartAgent(name string) {
	w.t.Helper()
	var err error
	w.agents[name].running, err = w.agents[name].Start()
	w.fatal(err)
}

// StopAgent takes the agent of a cluster away.
func (w *World) StopAgent(name string) { w.agents[name].running.End() }

func (w *World) end() {
	for _, a := range w.agents {
		a.running.Kill() // ending in order would wait for what runs
	}
	w.running.End()
	if w.t.Failed() {
		w.t.Logf("the controller said:\n%s", w.running.Log())
		for name, a := range w.agents {
			w.t.Logf("agent %s said:\n%s", name, a.running.Log())
		}
	}
	for _, c := range w.shared.Clusters {
		namespaces := w.clientOf(c).Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"})
		if err := namespaces.Delete(context.Background(), w.Namespace, metav1.DeleteOptions{}); err != nil {
			w.t.Logf("namespace %s stays: %v", w.Namespace, err)
		}
	}
}

// Commit puts files into the repository, tells the controller by its webhook, and returns the commit.
func (w *World) Commit(message string, files gitserver.Files) string {
	w.t.Helper()
	commit := w.Merge(message, files)
	w.Announce()
	return commit
}

// Announce delivers a push webhook.
func (w *World) Announce() {
	w.t.Helper()
	w.fatal(w.stack.Announce(w.t.Context()))
}

// TryAnnounce delivers a push webhook to a controller that may die of it.
func (w *World) TryAnnounce() {
	w.t.Helper()
	if err := w.stack.Announce(w.t.Context()); err != nil {
		w.t.Logf("the delivery was not answered: %v", err)
	}
}

// Deliver sends a delivery that is signed with a secret.
func (w *World) Deliver(guid, secret string, body []byte) (status int, err error) {
	return w.stack.Deliver(w.t.Context(), guid, secret, body)
}

// Token makes a token with grants, as a list with commas.
func (w *World) Token(name, grants string) string {
	w.t.Helper()
	token, err := w.stack.Token(w.t.Context(), name, grants)
	w.fatal(err)
	return token
}

// Problems is what is wrong with files of the repository: "FILE:LINE:COLUMN: TEXT".
func (w *World) Problems() (lines []string) {
	w.t.Helper()
	var sources struct{ Items []api.Source }
	w.fatal(w.API.Call(w.t.Context(), http.MethodGet, "/sources", nil, &sources))
	for _, p := range sources.Items[0].Problems {
		lines = append(lines, fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Text))
	}
	return lines
}

// Secret signs deliveries.
func (w *World) Secret() string { return w.stack.Secret }

// AgentSecretFile holds the client secret of an agent.
func (w *World) AgentSecretFile(name string) string { return w.agents[name].SecretFile() }

// Database is the file of the controller's database.
func (w *World) Database() string { return w.stack.Path("towpath.db") }

// Logs is what the controller and its agents said since they were last started.
func (w *World) Logs() map[string]string {
	logs := map[string]string{"controller": w.running.Log()}
	for name, a := range w.agents {
		logs["agent "+name] = a.running.Log()
	}
	return logs
}

// CrashController makes the controller end as one that panics does, with what all of it was doing in its log.
func (w *World) CrashController() {
	w.t.Helper()
	w.fatal(syscall.Kill(w.running.PID(), syscall.SIGQUIT))
	<-w.running.Ended()
}

// Towpath runs the command line and returns its exit code and what it printed.
func (w *World) Towpath(dir string, env []string, args ...string) (code int, out, errs string) {
	w.t.Helper()
	command := exec.CommandContext(w.t.Context(), w.stack.Program("towpath"), args...)
	var stdout, stderr bytes.Buffer
	command.Dir, command.Stdout, command.Stderr = dir, &stdout, &stderr
	command.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GITHUB_") }),
		append([]string{"TOWPATH_ADDR=" + w.stack.Address, "TOWPATH_CA=" + w.CA(), "TOWPATH_TOKEN_FILE=" + w.stack.Path("token")}, env...)...)
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatal(err)
	}
	return command.ProcessState.ExitCode(), stdout.String(), stderr.String()
}

// patience is how long a test waits for anything: far longer than it takes on a busy machine.
const patience = 90 * time.Second

// Await asks again until a condition holds; what is waited for is said when it does not.
func (w *World) Await(what string, holds func() (bool, error)) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	for {
		ok, err := holds()
		if ok && err == nil {
			return
		}
		select {
		case <-ctx.Done():
			w.t.Fatalf("waited in vain for %s (%v)", what, err)
		case <-time.After(25 * time.Millisecond):
		}
	}
}

// Deployment waits for the deployment of an application that a commit started.
func (w *World) Deployment(application, commit string) (found api.Deployment) {
	w.t.Helper()
	w.Await("a deployment of "+application+" at "+commit, func() (ok bool, err error) {
		found, ok = w.Find(application, commit)
		return ok, nil
	})
	return found
}

// Find is the deployment of an application that a commit started, if there is one yet.
func (w *World) Find(application, commit string) (api.Deployment, bool) {
	var list struct{ Items []api.Deployment }
	err := w.API.Call(w.t.Context(), http.MethodGet, "/deployments?application="+url.QueryEscape(application)+"&commit="+commit, nil, &list)
	if err != nil || len(list.Items) == 0 {
		return api.Deployment{}, false
	}
	return list.Items[0], true
}

// Ended waits for the end of a deployment.
func (w *World) Ended(id string) (d api.Deployment) {
	w.t.Helper()
	w.Await("the end of deployment "+id, func() (bool, error) {
		var err error
		d, err = w.API.Deployment(w.t.Context(), id)
		if err == nil && d.Ended == nil {
			err = fmt.Errorf("it is %s: %+v", d.State, d.Targets)
		}
		return err == nil, err
	})
	return d
}

// EventsOf is the history of a deployment that has ended, without times and ids.
func (w *World) EventsOf(id string) (lines []string) {
	w.t.Helper()
	w.fatal(w.API.Follow(w.t.Context(), id, 0, func(e api.Event) bool {
		lines = append(lines, strings.TrimSuffix(e.Kind+" | "+e.Target+" | "+e.What+" | "+e.Why, " | "))
		return e.Kind != "deployment.state" || !strings.HasSuffix(e.What, "SUCCEEDED") && !strings.HasSuffix(e.What, "FAILED") && !strings.HasSuffix(e.What, "CANCELLED")
	}))
	return lines
}

// Events is the history of an application, without times and ids.
func (w *World) Events(application string) (lines []string) {
	w.t.Helper()
	var last int64
	ctx, cancel := context.WithTimeout(w.t.Context(), 300*time.Millisecond)
	defer cancel()
	err := w.API.Follow(ctx, "", last, func(e api.Event) bool {
		if e.Application == application {
			lines = append(lines, strings.TrimSuffix(e.Kind+" | "+e.What+" | "+e.Why, " | "))
		}
		return true
	})
	if err != nil && ctx.Err() == nil {
		w.t.Fatal(err)
	}
	return lines
}

func (w *World) clientOf(c *Cluster) *dynamic.DynamicClient {
	w.t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	w.fatal(err)
	config.QPS = -1
	d, err := dynamic.NewForConfig(config)
	w.fatal(err)
	return d
}

// Objects is what lies in the test's namespace of a cluster: objects of a resource ("apps/v1 replicasets"), by name.
func (w *World) Objects(cluster, resource string) map[string]*unstructured.Unstructured {
	w.t.Helper()
	version, name, _ := strings.Cut(resource, " ")
	gv, err := schema.ParseGroupVersion(version)
	w.fatal(err)
	list, err := w.clientOf(w.shared.Clusters[cluster]).Resource(gv.WithResource(name)).Namespace(w.Namespace).List(context.Background(), metav1.ListOptions{})
	w.fatal(err)
	objects := map[string]*unstructured.Unstructured{}
	for i := range list.Items {
		objects[list.Items[i].GetName()] = &list.Items[i]
	}
	return objects
}

// Images counts the ready pods of managed ReplicaSets by image.
func (w *World) Images(cluster string) map[string]int64 {
	w.t.Helper()
	images := map[string]int64{}
	for _, set := range w.Objects(cluster, "apps/v1 replicasets") {
		ready, _, _ := unstructured.NestedInt64(set.Object, "status", "readyReplicas")
		containers, _, _ := unstructured.NestedSlice(set.Object, "spec", "template", "spec", "containers")
		if image, ok := containers[0].(map[string]any)["image"].(string); ok && ready > 0 {
			images[image] += ready
		}
	}
	return images
}

// Do changes something in the test's namespace of a cluster as somebody else would.
func (w *World) Do(cluster, resource string, do func(dynamic.ResourceInterface) error) {
	w.t.Helper()
	version, name, _ := strings.Cut(resource, " ")
	gv, err := schema.ParseGroupVersion(version)
	w.fatal(err)
	w.fatal(do(w.clientOf(w.shared.Clusters[cluster]).Resource(gv.WithResource(name)).Namespace(w.Namespace)))
}

// Object reads an object of YAML.
func Object(text string) *unstructured.Unstructured {
	fields := map[string]any{}
	if err := yaml.Unmarshal([]byte(text), &fields); err != nil {
		panic(err)
	}
	return &unstructured.Unstructured{Object: fields}
}
