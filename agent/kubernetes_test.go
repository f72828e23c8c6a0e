package agent_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/apimachinery/pkg/util/httpstream/spdy"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	spdytransport "k8s.io/client-go/transport/spdy"

	"towpath/agent/edge"
	"towpath/agent/hub"
	"towpath/internal/localkube"
	"towpath/internal/testkit/kube"
)

var shared = kube.Shared{Options: kube.Options{Images: func(programs string) string {
	return fmt.Sprintf("- {image: 'example.com/hello:*', entrypoint: [%s/hello], env: {VERSION: $TAG}}\n", programs)
}}}

func TestMain(m *testing.M) { kube.Main(m, &shared) }

// ways are clients of one account of a real API server: direct, and through a hub and an agent that has the account.
type ways struct {
	*world
	cluster           *kube.Cluster
	namespace         string
	direct, tunnelled *kubernetes.Clientset
	through           http.RoundTripper
	account           *rest.Config
}

func newWays(t *testing.T, w *world, through *hub.Hub) *ways {
	t.Helper()
	c := shared.Cluster(t)
	s := &ways{world: w, cluster: c, namespace: c.Namespace(t)}
	all := []string{"*"}
	access := c.Account(t, s.namespace, "agent", false, localkube.Rule{Groups: []string{""}, Resources: all, Verbs: all})
	config := s.identity("prod", nil)
	config.Kubernetes = edge.Kubernetes{Server: access.Server, CAFile: access.CAFile, TokenFile: access.TokenFile}
	s.start(config, edge.Timing{})
	s.account = rest.AnonymousClientConfig(c.Config)
	s.account.BearerTokenFile, s.account.QPS = access.TokenFile, -1
	s.through = through.Transport("t", "prod")
	var err error
	s.direct, err = kubernetes.NewForConfig(s.account)
	ok(t, err)
	s.tunnelled, err = kubernetes.NewForConfig(&rest.Config{Host: "http://cluster", Transport: s.through, QPS: -1})
	ok(t, err)
	return s
}

// both does the same both ways, and wants the same of it.
func both[T comparable](s *ways, what string, do func(client *kubernetes.Clientset, tunnelled bool) T) {
	s.t.Helper()
	direct := do(s.direct, false)
	equal(s.t, do(s.tunnelled, true), direct, what+" through the tunnel, against direct")
}

func configMap(name string, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}
}

// eachWay has a test go through the hub where the agent is, and through another replica's.
func eachWay(t *testing.T, test func(t *testing.T, s *ways)) {
	t.Parallel()
	t.Run("one hub", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, hub.Limits{})
		test(t, newWays(t, w, w.hub))
	})
	t.Run("another replica", func(t *testing.T) {
		t.Parallel()
		rs := newReplicas(t, hub.Limits{}, 2)
		test(t, newWays(t, rs.world, rs.all[0].Hub)) // the agent is at the newest
	})
}

func TestClientsGetTheSameThroughTheTunnel(t *testing.T) { eachWay(t, clientsGetTheSame) }

func clientsGetTheSame(t *testing.T, s *ways) {
	for i := range 50 {
		_, err := s.direct.CoreV1().ConfigMaps(s.namespace).Create(s.ctx, configMap(fmt.Sprint("c-", i), map[string]string{"text": strings.Repeat("x", 10_000)}), metav1.CreateOptions{})
		ok(t, err)
	}
	list, err := s.direct.CoreV1().ConfigMaps(s.namespace).List(s.ctx, metav1.ListOptions{})
	ok(t, err)
	exact := metav1.ListOptions{ResourceVersion: list.ResourceVersion, ResourceVersionMatch: metav1.ResourceVersionMatchExact}
	for _, accept := range []string{"application/json", "application/vnd.kubernetes.protobuf", "application/json;as=Table;v=v1;g=meta.k8s.io"} {
		both(s, "a list as "+accept, func(client *kubernetes.Clientset, _ bool) string {
			text, err := client.CoreV1().RESTClient().Get().Namespace(s.namespace).Resource("configmaps").VersionedParams(&exact, scheme.ParameterCodec).SetHeader("Accept", accept).DoRaw(s.ctx)
			ok(t, err)
			return string(text)
		})
	}
	both(s, "a list in pages", func(client *kubernetes.Clientset, _ bool) string {
		var names []string
		for page := (metav1.ListOptions{Limit: 7}); ; {
			part, err := client.CoreV1().ConfigMaps(s.namespace).List(s.ctx, page)
			ok(t, err)
			for _, item := range part.Items {
				names = append(names, item.Name)
			}
			if page.Continue = part.Continue; page.Continue == "" {
				return fmt.Sprint(names)
			}
		}
	})
	both(s, "what is not there", func(client *kubernetes.Clientset, _ bool) string {
		_, err := client.CoreV1().ConfigMaps(s.namespace).Get(s.ctx, "none", metav1.GetOptions{})
		return fmt.Sprint(apierrors.IsNotFound(err), err)
	})
	both(s, "what is forbidden", func(client *kubernetes.Clientset, _ bool) string {
		_, err := client.CoreV1().Secrets("kube-system").List(s.ctx, metav1.ListOptions{})
		return fmt.Sprint(apierrors.IsForbidden(err), err)
	})

	watched := map[bool]chan string{false: make(chan string, 1), true: make(chan string, 1)}
	for tunnelled, client := range map[bool]*kubernetes.Clientset{false: s.direct, true: s.tunnelled} {
		w, err := client.CoreV1().ConfigMaps(s.namespace).Watch(s.ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
		ok(t, err)
		go func() {
			defer w.Stop()
			var seen []string
			for event := range w.ResultChan() {
				object, err := meta.Accessor(event.Object)
				if err != nil {
					seen = append(seen, fmt.Sprint(event.Object))
					continue
				}
				seen = append(seen, fmt.Sprint(event.Type, object.GetName(), object.GetResourceVersion()))
				if object.GetName() == "last" {
					break
				}
			}
			watched[tunnelled] <- fmt.Sprint(seen)
		}()
	}
	both(s, "apply", func(client *kubernetes.Clientset, tunnelled bool) string {
		name := fmt.Sprint("applied-", tunnelled)
		apply := func(manager, value string, force bool) (*corev1.ConfigMap, error) {
			body := fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q},"data":{"a":%q}}`, name, value)
			return client.CoreV1().ConfigMaps(s.namespace).Patch(s.ctx, name, types.ApplyPatchType, []byte(body), metav1.PatchOptions{FieldManager: manager, Force: &force})
		}
		first, err := apply("one", "1", false)
		ok(t, err)
		_, conflict := apply("two", "2", false)
		forced, err := apply("two", "3", true)
		ok(t, err)
		ok(t, client.CoreV1().ConfigMaps(s.namespace).Delete(s.ctx, name, metav1.DeleteOptions{}))
		return fmt.Sprint(first.Data, first.ManagedFields[0].FieldsV1, apierrors.IsConflict(conflict), conflict, forced.Data)
	})
	_, err = s.direct.CoreV1().ConfigMaps(s.namespace).Create(s.ctx, configMap("last", nil), metav1.CreateOptions{})
	ok(t, err)
	equal(t, next(t, s.ctx, watched[true], "the watch through the tunnel"), next(t, s.ctx, watched[false], "the direct watch"), "events")
}

// pod runs the server of tests and demos as a process, and returns its name.
func (s *ways) pod() string {
	s.t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "hello"}, Spec: corev1.PodSpec{Containers: []corev1.Container{
		{Name: "main", Image: "example.com/hello:v1"}, {Name: "speaks", Image: "example.com/hello:v1", Command: []string{"sh", "-c", "seq 1000; exec sleep 1000"}}}}}
	_, err := s.direct.CoreV1().Pods(s.namespace).Create(s.ctx, pod, metav1.CreateOptions{})
	ok(s.t, err)
	s.await(func() bool {
		p, err := s.direct.CoreV1().Pods(s.namespace).Get(s.ctx, pod.Name, metav1.GetOptions{})
		ok(s.t, err)
		return p.Status.Phase == corev1.PodRunning
	}, "the pod runs")
	return pod.Name
}

// upgrades is a way through the tunnel for client-go's exec and port-forward, which close the answer's body once they have its connection: here the body is
// the connection.
type upgrades struct{ http.RoundTripper }

type unclosed struct{ *hub.Conn }

func (unclosed) Close() error { return nil }

func (u upgrades) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.Header.Set(httpstream.HeaderConnection, httpstream.HeaderUpgrade)
	request.Header.Set(httpstream.HeaderUpgrade, spdy.HeaderSpdy31)
	response, err := u.RoundTripper.RoundTrip(request)
	if err == nil {
		if conn, upgraded := response.Body.(*hub.Conn); upgraded {
			response.Body = unclosed{conn}
		}
	}
	return response, err
}

// NewConnection makes a connection of the answer to a request that upgrades one.
func (u upgrades) NewConnection(response *http.Response) (httpstream.Connection, error) {
	if body, upgraded := response.Body.(unclosed); upgraded {
		return spdy.NewClientConnection(body.Conn)
	}
	text, err := io.ReadAll(response.Body)
	return nil, errors.Join(fmt.Errorf("%s: %s", response.Status, text), err)
}

func TestCommandsAndPortsAreTheSameThroughTheTunnel(t *testing.T) {
	eachWay(t, commandsAndPortsAreTheSame)
}

func commandsAndPortsAreTheSame(t *testing.T, s *ways) {
	name := s.pod()
	transport := func(tunnelled bool) (http.RoundTripper, spdytransport.Upgrader) {
		if tunnelled {
			return upgrades{s.through}, upgrades{}
		}
		direct, up, err := spdytransport.RoundTripperFor(s.account)
		ok(t, err)
		return direct, up
	}
	run := func(client *kubernetes.Clientset, tunnelled bool, in string, command ...string) string {
		options := &corev1.PodExecOptions{Container: "main", Command: command, Stdin: true, Stdout: true, Stderr: true}
		to := client.CoreV1().RESTClient().Post().Namespace(s.namespace).Resource("pods").Name(name).SubResource("exec").VersionedParams(options, scheme.ParameterCodec).URL()
		over, up := transport(tunnelled)
		executor, err := remotecommand.NewSPDYExecutorForTransports(over, up, http.MethodPost, to)
		ok(t, err)
		var out, errOut bytes.Buffer
		err = executor.StreamWithContext(s.ctx, remotecommand.StreamOptions{Stdin: strings.NewReader(in), Stdout: &out, Stderr: &errOut})
		return fmt.Sprintf("%q %q %v", out.String(), errOut.String(), err)
	}
	if direct := run(s.direct, false, "", "true"); strings.Contains(direct, "simulated") {
		t.Skip("this machine allows no namespaces, so pods are simulated and nothing runs in them: ", direct)
	}
	both(s, "a command", func(client *kubernetes.Clientset, tunnelled bool) string {
		return run(client, tunnelled, "said to it\n", "sh", "-c", "cat; echo $POD_IP; echo wrong >&2; exit 5")
	})
	both(s, "a megabyte there and back", func(client *kubernetes.Clientset, tunnelled bool) string {
		return run(client, tunnelled, strings.Repeat("0123456789abcdef", 1<<16), "cat")
	})
	both(s, "a forwarded port", func(client *kubernetes.Clientset, tunnelled bool) string {
		to := client.CoreV1().RESTClient().Post().Namespace(s.namespace).Resource("pods").Name(name).SubResource("portforward").URL()
		over, up := transport(tunnelled)
		ctx, cancel := context.WithCancel(s.ctx)
		defer cancel()
		ready := make(chan struct{})
		forwarder, err := portforward.NewOnAddressesWithContext(ctx, spdytransport.NewDialer(up, &http.Client{Transport: over}, http.MethodPost, to), []string{"127.0.0.1"}, []string{"0:8080"}, ready, io.Discard, io.Discard)
		ok(t, err)
		ended := make(chan error, 1)
		go func() { ended <- forwarder.ForwardPorts() }()
		select {
		case <-ready:
		case err := <-ended:
			t.Fatal(err)
		}
		ports, err := forwarder.GetPorts()
		ok(t, err)
		closing := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		_, text, err := read(closing.Get(fmt.Sprintf("http://127.0.0.1:%d/env?%s", ports[0].Local, url.Values{"name": {"VERSION"}}.Encode())))
		ok(t, err)
		return text
	})
	both(s, "a log that is followed", func(client *kubernetes.Clientset, _ bool) string {
		body, err := client.CoreV1().Pods(s.namespace).GetLogs(name, &corev1.PodLogOptions{Container: "speaks", Follow: true}).Stream(s.ctx)
		ok(t, err)
		defer body.Close()
		text := ""
		for lines := bufio.NewScanner(body); !strings.HasSuffix(text, "\n1000\n") && lines.Scan(); {
			text += lines.Text() + "\n"
		}
		return text
	})
	s.await(func() bool { list := s.hub.Agents(); return len(list) == 1 && list[0].Running == 0 }, "no stream is running")
}
