// Package kube runs a real Kubernetes control plane for the tests of one binary (test/localcluster, as a process), and gives each test what it needs of it:
// a namespace of its own, accounts, ways in. Its processes and files go with the test binary, even when that is killed.
package kube

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"towpath/internal/localkube"
)

// Shared is the cluster that the tests of one binary share. It is started by the first test that needs it.
type Shared struct {
	Options Options

	once    sync.Once
	cluster *Cluster
	err     error
}

// Options of a cluster.
type Options struct {
	Audit  bool                         // the API server's audit log is kept, for AuditUsers
	Nodes  int                          // 0: 2
	Images func(programs string) string // a map of images to programs, by the directory of the cluster's own; nil: all pods are simulated
}

// Main is TestMain: it runs the tests, then stops the shared cluster.
func Main(m *testing.M, shared *Shared) {
	code := m.Run()
	if shared.cluster != nil {
		shared.cluster.local.Stop()
	}
	os.Exit(code)
}

// Cluster is the shared cluster, started when it does not run yet. A test that cannot have it fails, saying what to do.
func (s *Shared) Cluster(t testing.TB) *Cluster {
	t.Helper()
	s.once.Do(func() { s.cluster, s.err = start(s.Options) })
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.cluster
}

// Start starts a cluster for one test alone; it ends with the test.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	c, err := start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.local.Stop)
	return c
}

// Cluster is a running control plane. Its methods may be called concurrently.
type Cluster struct {
	Kubeconfig string
	Config     *rest.Config // of the administrator, without limits of its own
	Client     dynamic.Interface

	local *localkube.Local
	audit string
	next  atomic.Int64
}

const auditFile = "audit.log"

func start(o Options) (*Cluster, error) {
	programs, err := programs()
	if err != nil {
		return nil, err
	}
	options := localkube.Options{Programs: programs, Nodes: o.Nodes}
	if o.Images != nil {
		file, err := os.CreateTemp("", "images*.yaml")
		if err != nil {
			return nil, err
		}
		defer os.Remove(file.Name()) // it is read at the start
		if _, err := file.WriteString(o.Images(programs)); err != nil {
			return nil, err
		}
		if err := file.Close(); err != nil {
			return nil, err
		}
		options.Images = file.Name()
	}
	if o.Audit {
		options.Audit = auditFile
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	local, err := localkube.Start(ctx, options)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Kubeconfig: local.Kubeconfig, local: local, audit: filepath.Join(filepath.Dir(local.Kubeconfig), auditFile)}
	if c.Config, err = clientcmd.BuildConfigFromFlags("", local.Kubeconfig); err == nil {
		c.Config.QPS = -1
		err = rest.LoadTLSFiles(c.Config)
	}
	if err == nil {
		c.Client, err = dynamic.NewForConfig(c.Config)
	}
	if err != nil {
		local.Stop()
		return nil, err
	}
	return c, nil
}

// programs is the directory of the local cluster's programs: $TOWPATH_LOCALCLUSTER, else where make builds them.
func programs() (string, error) {
	if dir := os.Getenv("TOWPATH_LOCALCLUSTER"); dir != "" {
		return dir, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, ".build", "localcluster"), nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("this test runs outside its module; set TOWPATH_LOCALCLUSTER to the directory that make localcluster built")
		}
		dir = filepath.Dir(dir)
	}
}

// Namespaces and accounts by which tests reach them.
var (
	namespaces      = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	serviceAccounts = schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}
)

// Name is a name that no other test of the binary has.
func (c *Cluster) Name(prefix string) string { return fmt.Sprintf("%s-%d", prefix, c.next.Add(1)) }

// Namespace makes a namespace for the test, in which pods can run. It is removed, without waiting, when the test ends.
func (c *Cluster) Namespace(t testing.TB) string {
	t.Helper()
	name := c.Name("test")
	ns := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name}}}
	if _, err := c.Client.Resource(namespaces).Create(t.Context(), ns, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := c.Client.Resource(namespaces).Delete(context.Background(), name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	Await(t, "the namespace's default account", func() (bool, error) {
		_, err := c.Client.Resource(serviceAccounts).Namespace(name).Get(t.Context(), "default", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		return err == nil, err
	})
	return name
}

// Account makes a ServiceAccount in the namespace that may do what the rules say: there, or, with everywhere, in the whole cluster. It returns where its
// token lies.
func (c *Cluster) Account(t testing.TB, namespace, name string, everywhere bool, rules ...localkube.Rule) localkube.Access {
	t.Helper()
	access, err := localkube.Account(t.Context(), c.Kubeconfig, namespace, name, everywhere, rules, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return access
}

// Transport carries requests to the API server as the administrator; scheme and host of their URLs mean nothing.
func (c *Cluster) Transport(t testing.TB) http.RoundTripper {
	t.Helper()
	return c.transport(t, c.Config)
}

// TransportOf is Transport for an account.
func (c *Cluster) TransportOf(t testing.TB, access localkube.Access) http.RoundTripper {
	t.Helper()
	token, err := os.ReadFile(access.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	config := rest.AnonymousClientConfig(c.Config)
	config.BearerToken = strings.TrimSpace(string(token))
	return c.transport(t, config)
}

func (c *Cluster) transport(t testing.TB, config *rest.Config) http.RoundTripper {
	t.Helper()
	server, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	next, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	return redirected{server, next}
}

// redirected sends each request to the same server, whatever its URL says.
type redirected struct {
	server *url.URL
	next   http.RoundTripper
}

func (r redirected) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.URL.Scheme, request.URL.Host, request.Host = r.server.Scheme, r.server.Host, ""
	return r.next.RoundTrip(request)
}

// AuditUsers is who, by the audit log, did anything in the namespace: names of users, each once, sorted; the control plane's own are left out. The log is
// written before a request is answered.
func (c *Cluster) AuditUsers(t testing.TB, namespace string) []string {
	t.Helper()
	file, err := os.Open(c.audit)
	if errors.Is(err, fs.ErrNotExist) {
		t.Fatal("no audit log is kept: start the cluster with Options.Audit")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var users []string
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var line struct {
			User      struct{ Username string }
			ObjectRef struct{ Namespace string }
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			continue // the last line may be under way
		}
		name := line.User.Username
		if line.ObjectRef.Namespace == namespace && !slices.Contains(users, name) && !strings.HasPrefix(name, "system:kube-") &&
			!strings.HasPrefix(name, "system:serviceaccount:kube-system:") && name != "system:apiserver" && name != "localcluster-kubelet" {
			users = append(users, name)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(users)
	return users
}

// Await asks again and again until done; an error ends it at once, and so does a minute.
func Await(t testing.TB, what string, done func() (bool, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		ok, err := done()
		if err != nil {
			t.Fatalf("waiting for %s: %v", what, err)
		}
		if ok {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waiting for %s: %v", what, ctx.Err())
		case <-time.After(pause):
		}
	}
}
