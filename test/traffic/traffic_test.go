// Package traffic sends requests to applications while they are taken over, rolled out and brought back: to pods that are real programs, by their Services.
package traffic

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"towpath/api"
	"towpath/internal/localkube"
	"towpath/internal/localstack"
	"towpath/internal/testkit/gitserver"
	"towpath/internal/testkit/world"
)

var shared world.Shared

func TestMain(m *testing.M) {
	programs := os.Getenv("TOWPATH_LOCALCLUSTER")
	if programs == "" {
		root, err := localstack.ModuleRoot(context.Background())
		if err != nil {
			panic(err)
		}
		programs = filepath.Join(root, ".build", "localcluster")
	}
	if !localkube.Isolates(context.Background()) || strings.HasPrefix(programs, "/tmp/") {
		fmt.Println("no test here runs: this machine allows no network namespaces, or the programs lie below /tmp, which pods do not see")
		os.Exit(0)
	}
	shared.Images = fmt.Sprintf("- {image: \"example.com/hello:*\", entrypoint: [%q], env: {VERSION: $TAG}}\n", filepath.Join(programs, "hello"))
	world.Main(m, &shared, world.Build{Race: true}, "prod")
}

// hello is a Deployment object whose pods serve on until each proxy has heard of their end, and its Service.
func hello(version int) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: hello}
spec:
  replicas: 4
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      containers:
        - name: hello
          image: example.com/hello:%d
          readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}
          lifecycle: {preStop: {sleep: {seconds: 2}}}
`, version)
}

const service = "apiVersion: v1\nkind: Service\nmetadata: {name: hello}\nspec: {selector: {app: hello}, ports: [{port: 80, targetPort: 8080}]}\n"

func files(strategy string) gitserver.Files {
	return gitserver.Files{"hello/towpath.yaml": strings.Replace(world.OnProd(strategy, ""), "application: shop", "application: hello", 1),
		"hello/manifests/deployment.yaml": hello(1), "hello/manifests/service.yaml": service}
}

// visitors send requests to a Service without a pause.
type visitors struct {
	cancel context.CancelFunc
	all    sync.WaitGroup

	mu       sync.Mutex
	answers  map[string]int // by version, since it was last asked
	failures []string
}

// visit begins; the API server's proxy to Services leads inside.
func visit(t *testing.T, w *world.World) *visitors {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", shared.Clusters["prod"].Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	v := &visitors{cancel: cancel, answers: map[string]int{}}
	address := config.Host + "/api/v1/namespaces/" + w.Namespace + "/services/hello:80/proxy/"
	for range 4 {
		v.all.Go(func() {
			for ctx.Err() == nil {
				version, err := ask(ctx, client, address)
				if ctx.Err() != nil {
					return
				}
				v.note(version, err)
			}
		})
	}
	t.Cleanup(v.leave)
	return v
}

func ask(ctx context.Context, client *http.Client, address string) (version string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s (%w)", response.Status, text, err)
	}
	var said struct{ Version string }
	return said.Version, json.Unmarshal(text, &said)
}

func (v *visitors) note(version string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil {
		v.failures = append(v.failures, time.Now().Format(time.StampMilli)+" "+err.Error())
		return
	}
	v.answers[version]++
}

func (v *visitors) leave() {
	v.cancel()
	v.all.Wait()
}

// see waits until answers come of these versions and of no other.
func (v *visitors) see(t *testing.T, w *world.World, versions ...string) {
	t.Helper()
	var seen []string
	w.Await(fmt.Sprintf("answers of %v", versions), func() (bool, error) {
		v.mu.Lock()
		defer v.mu.Unlock()
		enough := 0
		for _, count := range v.answers {
			enough += count
		}
		if enough < 50 {
			return false, fmt.Errorf("%d answers more than those of %q, and failures: %.500v", enough, seen, v.failures)
		}
		seen = slices.Sorted(maps.Keys(v.answers))
		v.answers = map[string]int{}
		return slices.Equal(seen, versions), nil
	})
}

// lost tells of each request that was not answered.
func (v *visitors) lost(t *testing.T, during string) {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.failures) > 0 {
		t.Errorf("%s: %d requests failed: %s", during, len(v.failures), strings.Join(v.failures[:min(5, len(v.failures))], "\n"))
	}
	v.failures = nil
}

func (v *visitors) clear() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.answers = map[string]int{}
}

func waits(t *testing.T, w *world.World, id string) {
	t.Helper()
	w.Await("a wait for an approval", func() (bool, error) {
		d, err := w.API.Deployment(t.Context(), id)
		if err == nil && d.State != "AWAITING_APPROVAL" {
			err = fmt.Errorf("it is %s: %+v", d.State, d.Targets)
		}
		return err == nil, err
	})
}

func run(t *testing.T, w *world.World, args ...string) {
	t.Helper()
	if code, out, errs := w.Towpath(t.TempDir(), nil, args...); code != 0 {
		t.Fatalf("towpath %v: %s%s", args, out, errs)
	}
}

func succeeds(t *testing.T, d api.Deployment) {
	t.Helper()
	if d.State != "SUCCEEDED" {
		t.Fatalf("#%d is %s: %+v", d.Number, d.State, d.Targets)
	}
}

func TestNoRequestIsLostWhileAnApplicationIsTakenOverRolledOutAndBroughtBack(t *testing.T) {
	t.Parallel()
	w := world.New(t, &shared, gitserver.Files{"README.md": "nothing yet"})
	for resource, text := range map[string]string{"apps/v1 deployments": hello(1), "v1 services": service} {
		w.Do("prod", resource, func(r dynamic.ResourceInterface) error {
			_, err := r.Create(t.Context(), world.Object(text), metav1.CreateOptions{})
			return err
		})
	}
	w.Await("four pods", func() (bool, error) { return ready(w) == 4, nil })
	v := visit(t, w)
	v.see(t, w, "1")
	v.lost(t, "before anything is done")

	taken := w.Deployment("hello", w.Commit("take over", files(`{canary: {steps: [{setWeight: {weight: 50}}, {pause: {untilApproved: true}}]}}`)))
	waits(t, w, taken.ID)
	run(t, w, "deploy", "approve", taken.ID)
	succeeds(t, w.Ended(taken.ID))
	v.see(t, w, "1")
	v.lost(t, "while a Deployment object was taken over")

	d := w.Deployment("hello", w.Commit("version 2", gitserver.Files{"hello/manifests/deployment.yaml": hello(2)}))
	waits(t, w, d.ID)
	v.clear()
	v.see(t, w, "1", "2")
	v.lost(t, "while a canary got its share")
	run(t, w, "deploy", "reject", d.ID, "--reason", "2 is no good")
	w.Ended(d.ID)
	v.see(t, w, "1")
	v.lost(t, "while the canary went back")

	d = w.Deployment("hello", w.Commit("version 3", gitserver.Files{"hello/manifests/deployment.yaml": hello(3)}))
	waits(t, w, d.ID)
	run(t, w, "deploy", "approve", d.ID)
	succeeds(t, w.Ended(d.ID))
	v.see(t, w, "3")
	v.lost(t, "while a canary got everything")

	run(t, w, "deploy", "rollback", "hello", "prod", "--reason", "after all", "--watch")
	v.see(t, w, "1")
	v.lost(t, "while a person went back")
}

func TestNoRequestIsLostWhileServicesTurn(t *testing.T) {
	t.Parallel()
	const turning = `{blueGreen: {activeService: hello, redirectTrafficAfter: [{pause: {untilApproved: true}}], shutDownOldVersionAfter: [{pause: {untilApproved: true}}]}}`
	w := world.New(t, &shared, files(turning))
	succeeds(t, w.Ended(w.Deployment("hello", w.Repository.Head("main")).ID))
	v := visit(t, w)
	v.see(t, w, "1")

	d := w.Deployment("hello", w.Commit("version 2", gitserver.Files{"hello/manifests/deployment.yaml": hello(2)}))
	waits(t, w, d.ID)
	v.clear()
	v.see(t, w, "1")
	run(t, w, "deploy", "approve", d.ID)
	v.see(t, w, "2")
	waits(t, w, d.ID)
	run(t, w, "deploy", "reject", d.ID, "--reason", "2 is no good")
	w.Ended(d.ID)
	v.see(t, w, "1")
	v.lost(t, "while the Service turned, and back")

	d = w.Deployment("hello", w.Commit("version 3", gitserver.Files{"hello/manifests/deployment.yaml": hello(3)}))
	waits(t, w, d.ID)
	run(t, w, "deploy", "approve", d.ID)
	v.see(t, w, "3")
	waits(t, w, d.ID)
	run(t, w, "deploy", "approve", d.ID)
	succeeds(t, w.Ended(d.ID))
	v.see(t, w, "3")
	v.lost(t, "while the Service turned, and the old version went")
}

// ready counts the pods that are.
func ready(w *world.World) (count int64) {
	for _, n := range w.Images("prod") {
		count += n
	}
	return count
}
