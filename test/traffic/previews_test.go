package traffic

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"towpath/api"
	"towpath/internal/localstack"
	"towpath/internal/testkit/gitserver"
	"towpath/internal/testkit/receiver"
	"towpath/internal/testkit/world"
)

// domain of links, at the address that visitors are told to dial for it.
const domain = "previews.test"

// visitor is a browser outside of the cluster.
type visitor struct {
	*testing.T
	dialer *net.Dialer
	listen string
	roots  *x509.CertPool
	client *http.Client
}

func newVisitor(t *testing.T, w *world.World, listen string) *visitor {
	t.Helper()
	pem, err := os.ReadFile(w.CA())
	if err != nil {
		t.Fatal(err)
	}
	v := &visitor{T: t, dialer: &net.Dialer{}, listen: listen, roots: x509.NewCertPool()}
	v.roots.AppendCertsFromPEM(pem)
	v.client = &http.Client{Transport: &http.Transport{DialContext: v.dial, TLSClientConfig: &tls.Config{RootCAs: v.roots}, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return v
}

func (v *visitor) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	return v.dialer.DialContext(ctx, network, v.listen)
}

func (v *visitor) get(address string) (answer *http.Response, text string) {
	v.Helper()
	request, err := http.NewRequestWithContext(v.Context(), http.MethodGet, address, nil)
	if err != nil {
		v.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer the visitor's")
	request.Header.Set("Cookie", "cart=3; towpath_session=secret")
	if answer, err = v.client.Do(request); err != nil {
		v.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		v.Fatal(err)
	}
	return answer, string(body)
}

// exposed is a world in which version 2 of hello waits for an approval at half of the pods, with a link that a webhook was told of.
func exposed(t *testing.T) (w *world.World, v *visitor, d api.Deployment, link string) {
	t.Helper()
	job := receiver.Start(t)
	listen, _, err := localstack.Free()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listen)
	settings := fmt.Sprintf("previews: {listen: %q, domain: \"%s:%s\"}\negress: {allowHosts: [%q], allowPrivate: [%q]}\n", listen, domain, port, job.Host, job.Host)
	const strategy = `{canary: {steps: [{setWeight: {weight: 50}}, {exposeServices: {services: [hello], ttl: {duration: 10, unit: minutes}}}, {runWebhook: {name: tell}}, {pause: {untilApproved: true}}]}}`
	first := gitserver.Files{}
	for name, text := range files(strategy) {
		first[name] = text
	}
	first["hello/towpath.yaml"] += "webhooks: [{name: tell, method: POST, uriTemplate: \"" + job.URL + "/tell\", disableCallback: true, bodyTemplate: {inline: \"{{towpath.preview.hello}}\"}}]\n"
	w = world.New(t, &shared, first, world.Configuration(settings))
	succeeds(t, w.Ended(w.Deployment("hello", w.Repository.Head("main")).ID))
	d = w.Deployment("hello", w.Commit("version 2", gitserver.Files{"hello/manifests/deployment.yaml": hello(2)}))
	waits(t, w, d.ID)
	calls := job.Calls()
	if len(calls) != 1 {
		t.Fatalf("the webhook was called %d times", len(calls))
	}
	return w, newVisitor(t, w, listen), d, calls[0].Body
}

func TestAPreviewLinkLeadsToTheServiceAndNowhereElse(t *testing.T) {
	t.Parallel()
	w, v, d, link := exposed(t)
	at, err := url.Parse(link)
	if err != nil || !strings.HasSuffix(at.Hostname(), "."+domain) || at.Scheme != "https" {
		t.Fatalf("the webhook was told %q", link)
	}

	answer, text := v.get(link)
	if answer.StatusCode != http.StatusOK || !strings.Contains(text, `"version":"`) || answer.Proto != "HTTP/2.0" {
		t.Fatalf("%s %s %s", answer.Proto, answer.Status, text)
	}
	answer, text = v.get(link + "headers")
	var header http.Header
	if err := json.Unmarshal([]byte(text), &header); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	for name, want := range map[string]string{"Authorization": "", "Cookie": "cart=3", "X-Forwarded-Host": at.Host, "X-Forwarded-Proto": "https"} {
		if got := header.Get(name); got != want {
			t.Errorf("%s reaches the Service as %q, want %q", name, got, want)
		}
	}
	if got := answer.Header.Get("Set-Cookie"); got != "hello=1" {
		t.Errorf("the Service's cookie comes as %q", got)
	}
	if _, text := v.get(link + "page"); text != `<a href="/next">next</a>` {
		t.Errorf("its page comes as %s", text)
	}
	for to, want := range map[string]string{"/next": link + "next", "http://hello." + w.Namespace + ".svc/next": link + "next", "https://example.com/": "https://example.com/"} {
		if answer, _ := v.get(link + "redirect?to=" + url.QueryEscape(to)); answer.StatusCode != http.StatusFound || answer.Header.Get("Location") != want {
			t.Errorf("a redirect to %s: %s, to %s", to, answer.Status, answer.Header.Get("Location"))
		}
	}
	for _, path := range []string{"%2e%2e/%2e%2e/pods", "%252e%252e/pods", "..;/pods", "..%2fpods"} {
		if answer, text := v.get(link + path); answer.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s %s", path, answer.Status, text)
		}
	}

	socket := websocket.Dialer{NetDialContext: v.dial, TLSClientConfig: &tls.Config{RootCAs: v.roots}}
	conn, _, err := socket.DialContext(t.Context(), strings.Replace(link, "https:", "wss:", 1)+"echo", http.Header{"Origin": {"https://" + at.Host}})
	if err != nil {
		t.Fatal(err)
	}
	for _, said := range []string{"one", strings.Repeat("two ", 50_000)} {
		if err := conn.WriteMessage(websocket.TextMessage, []byte(said)); err != nil {
			t.Fatal(err)
		}
		if _, heard, err := conn.ReadMessage(); err != nil || string(heard) != said {
			t.Fatalf("the web socket answers %.20q, %v", heard, err)
		}
	}
	conn.Close()

	code, out, errs := w.Towpath(t.TempDir(), nil, "deploy", "previews", d.ID)
	if code != 0 || !strings.Contains(out, link) || !strings.Contains(out, "  in ") {
		t.Errorf("deploy previews: %s%s", out, errs)
	}
	var listed struct{ Items []api.Preview }
	if err := w.API.Call(t.Context(), http.MethodGet, "/previews", nil, &listed); err != nil || len(listed.Items) != 1 || listed.Items[0].Address != link || listed.Items[0].Used == nil {
		t.Fatalf("%v, %+v", err, listed.Items)
	}
	run(t, w, "preview", "revoke", listed.Items[0].ID)
	unknown, nothing := v.get(strings.Replace(link, at.Hostname(), "unknown."+domain, 1))
	if answer, text := v.get(link); answer.StatusCode != http.StatusNotFound || text != nothing || unknown.StatusCode != http.StatusNotFound {
		t.Errorf("a link that was revoked: %s %s", answer.Status, text)
	}
	if _, out, _ := w.Towpath(t.TempDir(), nil, "deploy", "previews", d.ID); !strings.Contains(out, "revoked") || strings.Contains(out, link) {
		t.Errorf("deploy previews of a revoked link: %s", out)
	}
	w.Await("the audit of the web socket", func() (bool, error) {
		return strings.Contains(w.Log(), "path=/echo preview="+listed.Items[0].ID+" remote=127.0.0.1 status=101"), nil
	})
	if random, _, _ := strings.Cut(at.Hostname(), "."); strings.Contains(w.Log(), random) {
		t.Error("the log holds the link itself")
	}
	run(t, w, "deploy", "approve", d.ID)
	succeeds(t, w.Ended(d.ID))
	var history []string
	for _, line := range w.EventsOf(d.ID) {
		if strings.Contains(line, "preview link") {
			history = append(history, line)
		}
	}
	if len(history) != 3 || !strings.Contains(history[0], "Service hello has a preview link until") || !strings.Contains(history[1], "was used") || !strings.Contains(history[2], "was revoked") {
		t.Errorf("history says %q", history)
	}
}

func TestAPersonReachesAClusterThroughItsAgentForAWhile(t *testing.T) {
	t.Parallel()
	w := world.New(t, &shared, gitserver.Files{"README.md": "nothing yet"})
	file := filepath.Join(t.TempDir(), "config")
	code, out, errs := w.Towpath(t.TempDir(), nil, "preview", "create", "--type", "cluster", "--agent", "prod", "--duration", "2h", "--kubeconfig", file)
	if code != 0 || !strings.Contains(out, "kubectl --context towpath-prod get pods") {
		t.Fatalf("%s%s", out, errs)
	}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(&clientcmd.ClientConfigLoadingRules{ExplicitPath: file}, &clientcmd.ConfigOverrides{CurrentContext: "towpath-prod"}).ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	settings := client.CoreV1().ConfigMaps(w.Namespace)
	if _, err := client.CoreV1().Pods(w.Namespace).List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	news, err := settings.Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer news.Stop()
	object := world.Object("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: mine}\ndata: {a: b}\n")
	if err := client.CoreV1().RESTClient().Post().Namespace(w.Namespace).Resource("configmaps").Body(object).Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	for event := range news.ResultChan() {
		if made, ok := event.Object.(metav1.Object); ok && made.GetName() == "mine" {
			break
		}
	}
	if _, err := client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "system:serviceaccount:"+w.Namespace+":agent") {
		t.Errorf("what the agent may not do: %v", err)
	}
	var listed struct{ Items []api.Preview }
	if err := w.API.Call(t.Context(), http.MethodGet, "/previews", nil, &listed); err != nil || len(listed.Items) != 1 || listed.Items[0].Type != "cluster" {
		t.Fatalf("%v, %+v", err, listed.Items)
	}
	run(t, w, "preview", "revoke", listed.Items[0].ID)
	if _, err := settings.List(t.Context(), metav1.ListOptions{}); !apierrors.IsUnauthorized(err) {
		t.Errorf("once it was revoked: %v", err)
	}
	if !strings.Contains(w.Log(), "path=/clusters/prod/api/v1/namespaces/"+w.Namespace+"/pods preview="+listed.Items[0].ID) {
		t.Error("the audit says nothing of a request")
	}
	if code, _, errs := w.Towpath(t.TempDir(), nil, "preview", "create", "--agent", "prod", "--duration", "24h"); code == 0 || !strings.Contains(errs, "--duration is 24h0m0s; from 1m to less than 24h") {
		t.Errorf("a day: %s", errs)
	}
	if code, _, errs := w.Towpath(t.TempDir(), nil, "preview", "create", "--agent", "nobody", "--kubeconfig", file); code == 0 || !strings.Contains(errs, "no agent nobody") {
		t.Errorf("a stranger: %s", errs)
	}
}
