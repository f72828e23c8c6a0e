// Package localkube runs local Kubernetes control planes (test/localcluster) as processes of this one, and makes the ServiceAccounts that agents use.
// Tests and the demo share it.
package localkube

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Options of a cluster.
type Options struct {
	Programs string   // directory of the programs localcluster and controlplane
	Dir      string   // state; what a cluster holds is there again at the next start. "": a temporary one that goes with the cluster
	Audit    string   // file for the API server's audit log, a relative name being in the state directory; "": none
	Network  string   // see localcluster; "": its default
	Nodes    int      // 0: 2
	Ports    []string // of 127.0.0.1, which pods that are processes reach as host.localcluster
	Images   string   // file that maps images to programs, whose pods then are processes; see localcluster. "": all pods are simulated
}

// Local is a running cluster. Its processes end with this one, however that ends.
type Local struct {
	Kubeconfig string

	command *exec.Cmd
	hold    *os.File
	once    sync.Once
}

// Start returns once the cluster answers and its nodes are ready. ctx bounds the start only.
func Start(ctx context.Context, o Options) (*Local, error) {
	program := filepath.Join(o.Programs, "localcluster")
	if _, err := os.Stat(program); err != nil {
		return nil, fmt.Errorf("the local cluster is not built (%w); build it with: make localcluster", err)
	}
	args := []string{"up", "--dir", o.Dir}
	if o.Audit != "" {
		args = append(args, "--audit", o.Audit)
	}
	if o.Network != "" {
		args = append(args, "--network", o.Network)
	}
	if len(o.Ports) > 0 {
		args = append(args, "--host-ports", strings.Join(o.Ports, ","))
	}
	if o.Images != "" {
		args = append(args, "--images", o.Images)
	}
	if o.Nodes > 0 {
		args = append(args, "--nodes", fmt.Sprint(o.Nodes))
	}
	l := &Local{command: exec.Command(program, args...)}
	read, hold, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	l.hold = hold
	l.command.ExtraFiles = []*os.File{read}
	l.command.Env = append(os.Environ(), "LOCALCLUSTER_LIFELINE=3")
	var words bytes.Buffer
	l.command.Stderr = &words
	out, err := l.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := l.command.Start(); err != nil {
		return nil, err
	}
	ready := make(chan string, 1)
	go func() {
		defer close(ready)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if path, found := strings.CutPrefix(lines.Text(), "export KUBECONFIG="); found {
				ready <- path
			}
		}
	}()
	select {
	case l.Kubeconfig = <-ready:
	case <-ctx.Done():
	}
	if l.Kubeconfig == "" {
		l.Stop()
		return nil, fmt.Errorf("the local cluster did not start (state: %q): %s", o.Dir, strings.TrimSpace(words.String()+fmt.Sprint(errors.Join(ctx.Err()))))
	}
	return l, nil
}

// Stop ends the cluster and waits for that; it may be called twice.
func (l *Local) Stop() {
	l.once.Do(func() {
		l.hold.Close()
		l.command.Process.Signal(os.Interrupt)
		ended := make(chan struct{})
		go func() {
			l.command.Wait()
			close(ended)
		}()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			l.command.Process.Kill()
			<-ended
		}
	})
}

// Access is what an agent needs to reach an API server as a ServiceAccount.
type Access struct {
	Server    string
	CAFile    string // "": the system's authorities are trusted
	TokenFile string // holds until Expires; Renew writes a new token into it
	Expires   time.Time
}

// Rule is one rule of RBAC.
type Rule struct {
	Groups, Resources, Verbs []string
}

var (
	namespaces      = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	serviceAccounts = schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}
	rbac            = schema.GroupVersion{Group: "rbac.authorization.k8s.io", Version: "v1"}
)

// Account makes a namespace, a ServiceAccount in it, and a role with rules: for that namespace, or, with everywhere, for the cluster. It writes the
// account's token and the API server's certificate into dir. Making it again renews the token.
func Account(ctx context.Context, kubeconfig, namespace, name string, everywhere bool, rules []Rule, dir string) (Access, error) {
	client, _, err := connect(kubeconfig)
	if err != nil {
		return Access{}, err
	}
	if err := create(ctx, client, namespaces, "", object("v1", "Namespace", "", namespace, nil)); err != nil {
		return Access{}, err
	}
	if err := create(ctx, client, serviceAccounts, namespace, object("v1", "ServiceAccount", namespace, name, nil)); err != nil {
		return Access{}, err
	}
	kind, in := "Role", namespace
	if everywhere {
		kind, in = "ClusterRole", ""
	}
	if err := grant(ctx, client, namespace, name, kind, in, rules); err != nil {
		return Access{}, err
	}
	return Renew(ctx, kubeconfig, namespace, name, dir)
}

// Namespaces makes those that are not there.
func Namespaces(ctx context.Context, kubeconfig string, names ...string) error {
	client, _, err := connect(kubeconfig)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := create(ctx, client, namespaces, "", object("v1", "Namespace", "", name, nil)); err != nil {
			return err
		}
	}
	return nil
}

// Holds reports whether a Deployment object is there.
func Holds(ctx context.Context, kubeconfig, namespace, deployment string) (bool, error) {
	client, _, err := connect(kubeconfig)
	if err != nil {
		return false, err
	}
	_, err = client.Resource(schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}).Namespace(namespace).Get(ctx, deployment, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// Isolates reports whether this machine lets pods of a local cluster run as processes with addresses of their own.
func Isolates(ctx context.Context) bool {
	return exec.CommandContext(ctx, "unshare", "-rn", "true").Run() == nil
}

// Allow gives an account that Account made a role with rules in a further namespace, which is made when it is not there.
func Allow(ctx context.Context, kubeconfig, namespace, name, further string, rules []Rule) error {
	client, _, err := connect(kubeconfig)
	if err != nil {
		return err
	}
	if err := create(ctx, client, namespaces, "", object("v1", "Namespace", "", further, nil)); err != nil {
		return err
	}
	return grant(ctx, client, namespace, name, "Role", further, rules)
}

// Identify lets an account that Account made read who the cluster is: its namespace kube-system, and nothing beside.
func Identify(ctx context.Context, kubeconfig, namespace, name string) error {
	client, _, err := connect(kubeconfig)
	if err != nil {
		return err
	}
	role := "towpath-identity-" + namespace
	rules := []any{map[string]any{"apiGroups": []any{""}, "resources": []any{"namespaces"}, "resourceNames": []any{metav1.NamespaceSystem}, "verbs": []any{"get"}}}
	if err := create(ctx, client, rbac.WithResource("clusterroles"), "", object(rbac.String(), "ClusterRole", "", role, map[string]any{"rules": rules})); err != nil {
		return err
	}
	return create(ctx, client, rbac.WithResource("clusterrolebindings"), "", object(rbac.String(), "ClusterRoleBinding", "", role, map[string]any{
		"roleRef":  map[string]any{"apiGroup": rbac.Group, "kind": "ClusterRole", "name": role},
		"subjects": []any{map[string]any{"kind": "ServiceAccount", "namespace": namespace, "name": name}}}))
}

// Renew writes a new token of an account that Account made. An API server may let it expire sooner than after the day that is asked for.
func Renew(ctx context.Context, kubeconfig, namespace, name, dir string) (Access, error) {
	client, config, err := connect(kubeconfig)
	if err != nil {
		return Access{}, err
	}
	request := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
		"spec": map[string]any{"expirationSeconds": int64((24 * time.Hour).Seconds())}}}
	request.SetName(name)
	answer, err := client.Resource(serviceAccounts).Namespace(namespace).Create(ctx, request, metav1.CreateOptions{}, "token")
	if err != nil {
		return Access{}, fmt.Errorf("token of ServiceAccount %s/%s: %w", namespace, name, err)
	}
	var made authenticationv1.TokenRequest
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(answer.Object, &made); err != nil {
		return Access{}, err
	}
	access, err := write(config, made.Status.Token, dir)
	access.Expires = made.Status.ExpirationTimestamp.Time
	return access, err
}

func connect(kubeconfig string) (dynamic.Interface, *rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, nil, err
	}
	if config.Insecure {
		return nil, nil, fmt.Errorf("%s reaches its cluster without a look at its certificate (insecure-skip-tls-verify), which no agent does; give the cluster's certificate-authority-data in its place", kubeconfig)
	}
	config.QPS = -1
	client, err := dynamic.NewForConfig(config)
	return client, config, err
}

// grant gives an account a role of a kind, in a namespace or, for a ClusterRole, in "".
func grant(ctx context.Context, client dynamic.Interface, namespace, name, kind, in string, rules []Rule) error {
	var list []any
	for _, r := range rules {
		list = append(list, map[string]any{"apiGroups": anys(r.Groups), "resources": anys(r.Resources), "verbs": anys(r.Verbs)})
	}
	role := object(rbac.String(), kind, in, name, map[string]any{"rules": list})
	if err := create(ctx, client, rbac.WithResource(strings.ToLower(kind)+"s"), in, role); err != nil {
		return err
	}
	binding := object(rbac.String(), kind+"Binding", in, name, map[string]any{
		"roleRef":  map[string]any{"apiGroup": rbac.Group, "kind": kind, "name": name},
		"subjects": []any{map[string]any{"kind": "ServiceAccount", "namespace": namespace, "name": name}}})
	return create(ctx, client, rbac.WithResource(strings.ToLower(kind)+"bindings"), in, binding)
}

// write puts certificate and token into files of dir, each whole at any moment: an agent may be reading them.
func write(config *rest.Config, token, dir string) (Access, error) {
	access := Access{Server: config.Host, TokenFile: filepath.Join(dir, "token")}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return access, err
	}
	if err := rest.LoadTLSFiles(config); err != nil {
		return access, err
	}
	if len(config.CAData) > 0 {
		access.CAFile = filepath.Join(dir, "ca.crt")
		if err := replace(access.CAFile, config.CAData); err != nil {
			return access, err
		}
	}
	return access, replace(access.TokenFile, []byte(token))
}

func replace(file string, content []byte) error {
	if err := os.WriteFile(file+".new", content, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

func object(apiVersion, kind, namespace, name string, fields map[string]any) *unstructured.Unstructured {
	if fields == nil {
		fields = map[string]any{}
	}
	fields["apiVersion"], fields["kind"] = apiVersion, kind
	o := &unstructured.Unstructured{Object: fields}
	o.SetName(name)
	if namespace != "" {
		o.SetNamespace(namespace)
	}
	return o
}

func create(ctx context.Context, client dynamic.Interface, resource schema.GroupVersionResource, namespace string, o *unstructured.Unstructured) error {
	_, err := client.Resource(resource).Namespace(namespace).Create(ctx, o, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create %s %s: %w", o.GetKind(), o.GetName(), err)
	}
	return nil
}

func anys(texts []string) []any {
	all := make([]any, len(texts))
	for i, text := range texts {
		all[i] = text
	}
	return all
}

// Deploys is what an agent must be allowed for what the examples deploy, in their namespaces.
func Deploys() []Rule {
	all := []string{"*"}
	return []Rule{{[]string{"", "apps", "batch", "networking.k8s.io", "policy", "autoscaling", "discovery.k8s.io", "gateway.networking.k8s.io", "networking.istio.io", "split.smi-spec.io"}, all, all}}
}
