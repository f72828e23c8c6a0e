package traffic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	"towpath/internal/testkit/gitserver"
	"towpath/internal/testkit/routers"
	"towpath/internal/testkit/world"
)

var install = sync.OnceValue(func() error { return routers.Install(context.Background(), shared.Clusters["prod"].Kubeconfig) })

// router is one way to divide traffic.
type router struct {
	name    string
	manage  string            // what the file says
	objects map[string]string // by resource
	route   string            // resource of the object that holds the weights
	weights func(t *testing.T, route map[string]any) string
	canary  string // Service that is made
}

var all = []router{
	{name: "SMI", manage: `smi: [{rootServiceName: hello}]`, objects: map[string]string{}, route: "split.smi-spec.io/v1alpha4 trafficsplits", canary: "hello-canary",
		weights: func(t *testing.T, route map[string]any) string {
			return shares(t, route, "/spec/backends", func(b map[string]any) any { return b["service"] })
		}},
	{name: "Istio", manage: `istio: [{virtualService: {name: hello}, destinationRule: {activeSubsetName: main}}]`, route: "networking.istio.io/v1 virtualservices",
		objects: map[string]string{
			"networking.istio.io/v1 virtualservices": `{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: hello}, spec: {hosts: [hello], http: [
  {name: main, timeout: 3s, route: [{destination: {host: hello.NAMESPACE.svc.cluster.local, subset: main}}]}]}}`,
			"networking.istio.io/v1 destinationrules": `{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: hello}, spec: {host: hello, subsets: [{name: main, labels: {app: hello}}]}}`,
		},
		weights: func(t *testing.T, route map[string]any) string {
			return shares(t, route, "/spec/http/0/route", func(b map[string]any) any { return b["destination"].(map[string]any)["subset"] })
		}},
	{name: "the Gateway API", manage: `gateway: [{httpRoute: hello, matchHeaders: [{name: x-version, value: next}]}]`, route: "gateway.networking.k8s.io/v1 httproutes", canary: "hello-canary",
		objects: map[string]string{
			"gateway.networking.k8s.io/v1 httproutes": `{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: hello}, spec: {hostnames: [hello.test], rules: [
  {matches: [{path: {type: PathPrefix, value: /}}], backendRefs: [{name: hello, port: 80}]}]}}`,
		},
		weights: func(t *testing.T, route map[string]any) string {
			rules := route["spec"].(map[string]any)["rules"].([]any)
			last := rules[len(rules)-1].(map[string]any)
			return fmt.Sprintf("%d rules, ", len(rules)) + shares(t, map[string]any{"spec": last}, "/spec/backendRefs", func(b map[string]any) any { return b["name"] })
		}},
}

// shares is what a list of backends says, as text.
func shares(t *testing.T, route map[string]any, at string, name func(map[string]any) any) string {
	t.Helper()
	var value any = route
	for part := range strings.SplitSeq(at[1:], "/") {
		if items, ok := value.([]any); ok {
			value = items[0]
			continue
		}
		value = value.(map[string]any)[part]
	}
	var texts []string
	for _, b := range value.([]any) {
		text := fmt.Sprint(name(b.(map[string]any)))
		if weight, said := b.(map[string]any)["weight"]; said {
			text += fmt.Sprintf(" %v", weight)
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}

// looks is an object as people see it, without what the cluster keeps about it.
func looks(t *testing.T, o *unstructured.Unstructured) string {
	t.Helper()
	if o == nil {
		return "nothing"
	}
	text, err := json.MarshalIndent(map[string]any{"spec": o.Object["spec"], "labels": o.GetLabels(), "annotations": o.GetAnnotations()}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTrafficIsDividedByRoutersAndWholeAgainAtTheEnd(t *testing.T) {
	t.Parallel()
	for _, r := range all {
		for _, comes := range []bool{true, false} {
			name := r.name + " with objects that are there already"
			if comes {
				name = r.name + " with objects of the manifests"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				if err := install(); err != nil {
					t.Fatal(err)
				}
				divides(t, r, comes)
			})
		}
	}
}

func divides(t *testing.T, r router, comes bool) {
	const steps = `{canary: {steps: [{setWeight: {weight: 25}}, {pause: {untilApproved: true}}, {setWeight: {weight: 60}}, {setWeight: {weight: 100}}, {pause: {untilApproved: true}}]}}`
	w := world.New(t, &shared, gitserver.Files{"README.md": "nothing yet"})
	routed := files(steps)
	routed["hello/towpath.yaml"] += "trafficManagement: [{" + r.manage + "}]\n"
	resources := []string{"v1 services"}
	for resource, text := range r.objects {
		text = strings.ReplaceAll(text, "NAMESPACE", w.Namespace)
		resources = append(resources, resource)
		if comes {
			routed["hello/manifests/"+strings.ReplaceAll(resource, "/", "-")+".yaml"] = text
			continue
		}
		w.Do("prod", resource, func(i dynamic.ResourceInterface) error {
			_, err := i.Create(t.Context(), world.Object(text), metav1.CreateOptions{})
			return err
		})
	}
	as := func() string {
		var all []string
		for _, resource := range append(resources, r.route) {
			all = append(all, resource+" "+looks(t, w.Objects("prod", resource)["hello"]))
		}
		return strings.Join(all, "\n")
	}
	weights := func() string { return r.weights(t, w.Objects("prod", r.route)["hello"].Object) }
	active, canary := map[bool]string{true: "hello", false: "main"}[r.canary != ""], map[bool]string{true: "hello-canary", false: "main-canary"}[r.canary != ""]
	rules := map[bool]string{true: "2 rules, "}[r.name == "the Gateway API"]
	expect := func(when, want string) {
		t.Helper()
		if got := weights(); got != rules+want {
			t.Errorf("%s: %s, want %s", when, got, rules+want)
		}
	}
	succeeds(t, w.Ended(w.Deployment("hello", w.Commit("version 1", routed)).ID))
	before := as()
	oracle := routers.Watch(t, shared.Clusters["prod"].Kubeconfig, w.Namespace)

	d := w.Deployment("hello", w.Commit("version 2", gitserver.Files{"hello/manifests/deployment.yaml": hello(2)}))
	waits(t, w, d.ID)
	expect("at the first approval", active+" 75, "+canary+" 25")
	if pods := w.Images("prod"); pods["example.com/hello:1"] != 4 || pods["example.com/hello:2"] != 4 {
		t.Errorf("both versions have all their pods while traffic is divided: %v", pods)
	}
	run(t, w, "deploy", "reject", d.ID, "--reason", "2 is no good")
	w.Ended(d.ID)
	if after := as(); after != before {
		t.Errorf("after it went back:\n%s\nwant\n%s", after, before)
	}

	d = w.Deployment("hello", w.Commit("version 3", gitserver.Files{"hello/manifests/deployment.yaml": hello(3)}))
	waits(t, w, d.ID)
	expect("at the first approval of the next", active+" 75, "+canary+" 25")
	run(t, w, "deploy", "approve", d.ID)
	w.Await("all traffic at the new version", func() (bool, error) { return weights() == rules+active+" 0, "+canary+" 100", nil })
	waits(t, w, d.ID)
	run(t, w, "deploy", "approve", d.ID)
	succeeds(t, w.Ended(d.ID))
	if after := as(); after != before {
		t.Errorf("at the end:\n%s\nwant\n%s", after, before)
	}
	for _, line := range w.Events("hello") {
		if strings.HasPrefix(line, "target.drift") {
			t.Error(line)
		}
	}
	if services := w.Objects("prod", "v1 services"); len(services) != 1 {
		t.Errorf("there are %d Services at the end", len(services))
	}
	if pods := w.Images("prod"); len(pods) != 1 || pods["example.com/hello:3"] != 4 {
		t.Errorf("pods at the end: %v", pods)
	}
	if written := oracle.Judge(t); written < 6 {
		t.Errorf("the oracle saw %d writes of routers", written)
	}
}

// routedBy is the files of an application whose traffic a router of the manifests divides.
func routedBy(w *world.World, strategy, extra string, all ...router) gitserver.Files {
	routed := files(strategy)
	var manage []string
	for _, r := range all {
		manage = append(manage, "{"+r.manage+"}")
		for resource, text := range r.objects {
			routed["hello/manifests/"+strings.ReplaceAll(resource, "/", "-")+".yaml"] = strings.ReplaceAll(text, "NAMESPACE", w.Namespace)
		}
	}
	routed["hello/towpath.yaml"] = strings.Replace(routed["hello/towpath.yaml"], "deploymentConfig:\n", "deploymentConfig:\n"+extra, 1) +
		"trafficManagement: [" + strings.Join(manage, ", ") + "]\n"
	return routed
}

const quarter = `{canary: {steps: [{setWeight: {weight: 25}}, {pause: {untilApproved: true}}]}}`

func routedWorld(t *testing.T) *world.World {
	t.Helper()
	if err := install(); err != nil {
		t.Fatal(err)
	}
	return world.New(t, &shared, gitserver.Files{"README.md": "nothing yet"})
}

func version(n int) gitserver.Files {
	return gitserver.Files{"hello/manifests/deployment.yaml": hello(n)}
}

// A baseline has the canary's share while both are compared, and nothing of it is left.
func TestABaselineHasTheCanarysShareOfTraffic(t *testing.T) {
	t.Parallel()
	metrics := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintln(w, `{"value": 1}`)
	}))
	t.Cleanup(metrics.Close)
	for _, r := range all {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			if err := install(); err != nil {
				t.Fatal(err)
			}
			w := world.New(t, &shared, gitserver.Files{"README.md": "nothing yet"},
				world.Configuration(fmt.Sprintf("metricProviders: [{name: any, type: http, url: '%s/?q={{query}}', http: {value: $.value}}]", metrics.URL)))
			const steps = `{canary: {steps: [{setWeight: {weight: 20}}, {pause: {untilApproved: true}},
  {analysis: {queries: [errors], interval: 1, units: seconds, numberOfJudgmentRuns: 5, baseline: true}}, {pause: {untilApproved: true}}]}}`
			first := routedBy(w, steps, "", r)
			first["hello/towpath.yaml"] += "analysis: {defaultMetricProviderName: any, queries: [{name: errors, upperLimit: 1, queryTemplate: '{{armory.replicaSetName}}'}]}\n"
			succeeds(t, w.Ended(w.Deployment("hello", w.Commit("version 1", first)).ID))
			oracle := routers.Watch(t, shared.Clusters["prod"].Kubeconfig, w.Namespace)
			d := w.Deployment("hello", w.Commit("version 2", version(2)))
			waits(t, w, d.ID)
			weights := func() string {
				route := w.Objects("prod", r.route)["hello"]
				if route == nil {
					return "there is no route"
				}
				shares := r.weights(t, route.Object)
				if _, after, rules := strings.Cut(shares, "rules, "); rules {
					return after
				}
				return shares
			}
			active := map[bool]string{true: "hello", false: "main"}[r.canary != ""]
			if got, want := weights(), strings.ReplaceAll("X 60, X-canary 20, X-baseline 20", "X", active); got != want {
				t.Errorf("while both are compared: %s, want %s", got, want)
			}
			if pods := w.Images("prod"); pods["example.com/hello:1"] != 8 || pods["example.com/hello:2"] != 4 {
				t.Errorf("pods while both are compared: %v", pods)
			}
			run(t, w, "deploy", "approve", d.ID)
			w.Await("no traffic at the baseline", func() (bool, error) {
				d, err := w.API.Deployment(t.Context(), d.ID)
				if got := weights(); err == nil && got != strings.ReplaceAll("X 80, X-canary 20", "X", active) {
					return false, fmt.Errorf("%s; %s: %s", got, d.State, d.Targets[0].Why)
				}
				return true, err
			})
			waits(t, w, d.ID)
			run(t, w, "deploy", "approve", d.ID)
			succeeds(t, w.Ended(d.ID))
			if services := w.Objects("prod", "v1 services"); len(services) != 1 {
				t.Errorf("there are %d Services at the end", len(services))
			}
			if o := w.Objects("prod", r.route)["hello"]; o != nil && strings.Contains(looks(t, o), "baseline") {
				t.Errorf("at the end the route is %s", looks(t, o))
			}
			oracle.Judge(t)
		})
	}
}

func TestTwoRoutersDivideTheTrafficOfOneApplication(t *testing.T) {
	t.Parallel()
	w := routedWorld(t)
	smi, gateway := all[0], all[2]
	succeeds(t, w.Ended(w.Deployment("hello", w.Commit("version 1", routedBy(w, quarter, "", smi, gateway))).ID))
	oracle := routers.Watch(t, shared.Clusters["prod"].Kubeconfig, w.Namespace)
	d := w.Deployment("hello", w.Commit("version 2", version(2)))
	waits(t, w, d.ID)
	for _, r := range []router{smi, gateway} {
		if got := r.weights(t, w.Objects("prod", r.route)["hello"].Object); !strings.HasSuffix(got, "hello 75, hello-canary 25") {
			t.Errorf("%s: %s", r.name, got)
		}
	}
	run(t, w, "deploy", "approve", d.ID)
	succeeds(t, w.Ended(d.ID))
	oracle.Judge(t)
}

func TestACanaryWithTrafficGivesWayToANewerOne(t *testing.T) {
	t.Parallel()
	w := routedWorld(t)
	istio := all[1]
	succeeds(t, w.Ended(w.Deployment("hello", w.Commit("version 1", routedBy(w, quarter, "", istio))).ID))
	oracle := routers.Watch(t, shared.Clusters["prod"].Kubeconfig, w.Namespace)
	second := w.Deployment("hello", w.Commit("version 2", version(2)))
	waits(t, w, second.ID)
	third := w.Deployment("hello", w.Commit("version 3", version(3)))
	if d := w.Ended(second.ID); d.State != "CANCELLED" {
		t.Errorf("#%d is %s", d.Number, d.State)
	}
	waits(t, w, third.ID)
	if got := istio.weights(t, w.Objects("prod", istio.route)["hello"].Object); got != "main 75, main-canary 25" {
		t.Error(got)
	}
	run(t, w, "deploy", "approve", third.ID)
	succeeds(t, w.Ended(third.ID))
	oracle.Judge(t)
}

// Pods that were there before have no label of ours, and stay so: nothing restarts for it. Deployment objects that are put back take their pods with them.
func TestTrafficIsDividedWithPodsThatWereTakenOver(t *testing.T) {
	t.Parallel()
	w := routedWorld(t)
	istio := all[1]
	for resource, text := range map[string]string{"apps/v1 deployments": hello(1), "v1 services": service} {
		w.Do("prod", resource, func(r dynamic.ResourceInterface) error {
			_, err := r.Create(t.Context(), world.Object(text), metav1.CreateOptions{})
			return err
		})
	}
	w.Await("four pods", func() (bool, error) { return ready(w) == 4, nil })
	oracle := routers.Watch(t, shared.Clusters["prod"].Kubeconfig, w.Namespace)
	second := routedBy(w, quarter, "  keepDeploymentObject: true\n", istio)
	maps.Copy(second, version(2))
	d := w.Deployment("hello", w.Commit("taken over by version 2", second))
	waits(t, w, d.ID)
	if got := istio.weights(t, w.Objects("prod", istio.route)["hello"].Object); got != "main 75, main-canary 25" {
		t.Error(got)
	}
	subsets := fmt.Sprint(w.Objects("prod", "networking.istio.io/v1 destinationrules")["hello"].Object["spec"])
	if !strings.Contains(subsets, "pod-template-hash:") || !strings.Contains(subsets, "armory-pod-template-hash:") {
		t.Errorf("the subsets are %s", subsets)
	}
	run(t, w, "deploy", "approve", d.ID)
	succeeds(t, w.Ended(d.ID))
	d = w.Deployment("hello", w.Commit("version 3", version(3)))
	waits(t, w, d.ID)
	run(t, w, "deploy", "approve", d.ID)
	succeeds(t, w.Ended(d.ID))
	oracle.Judge(t)
}

func TestARouteThatIsNotThereStopsADeploymentBeforeAnythingIsTouched(t *testing.T) {
	t.Parallel()
	w := routedWorld(t)
	w.Commit("version 1", routedBy(w, quarter, "", router{manage: `gateway: [{httpRoute: front}]`}))
	const want = "hello/towpath.yaml:4:3: traffic cannot be divided in the cluster of prod: HTTPRoute.gateway.networking.k8s.io NAMESPACE/front, which trafficManagement.gateway.httpRoute names, is neither in the manifests nor in the cluster"
	w.Await("a problem", func() (bool, error) {
		problems := strings.ReplaceAll(strings.Join(w.Problems(), "\n"), w.Namespace, "NAMESPACE")
		if problems != want {
			return false, errors.New(problems)
		}
		return true, nil
	})

	istio := all[1]
	succeeds(t, w.Ended(w.Deployment("hello", w.Commit("version 1, by Istio", routedBy(w, quarter, "", istio))).ID))
	w.StopAgent("prod") // so that no plan can look
	second := routedBy(w, quarter, "", router{manage: `istio: [{virtualService: {name: front}}]`})
	maps.Copy(second, version(2))
	d := w.Deployment("hello", w.Commit("version 2, by a route that is not there", second))
	w.StartAgent("prod")
	const why = "traffic cannot be divided in the cluster of prod: VirtualService.networking.istio.io NAMESPACE/front, which trafficManagement.istio.virtualService.name names, is neither in the manifests nor in the cluster"
	d = w.Ended(d.ID)
	if got := strings.ReplaceAll(d.Targets[0].Why, w.Namespace, "NAMESPACE"); d.State != "FAILED" || got != why {
		t.Errorf("it is %s: %s", d.State, got)
	}
}

// The demo's clusters do not serve its HTTPRoute, so this is where it is deployed.
func TestTheExampleDividesTraffic(t *testing.T) {
	t.Parallel()
	w := routedWorld(t)
	example := gitserver.Files{}
	for _, name := range []string{"towpath.yaml", "catalogue.yaml"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "examples", "traffic", name))
		if err != nil {
			t.Fatal(err)
		}
		example["traffic/"+name] = strings.NewReplacer("towpath-demo", "NAMESPACE", "duration: 1, unit: minutes", "duration: 1, unit: seconds").Replace(string(text))
	}
	succeeds(t, w.Ended(w.Deployment("catalogue", w.Commit("the example", example)).ID))
	oracle := routers.Watch(t, shared.Clusters["prod"].Kubeconfig, w.Namespace)
	d := w.Deployment("catalogue", w.Commit("its next version", gitserver.Files{"traffic/catalogue.yaml": strings.ReplaceAll(example["traffic/catalogue.yaml"], "pause:3.10", "pause:3.9")}))
	waits(t, w, d.ID)
	if got := all[2].weights(t, w.Objects("prod", all[2].route)["catalogue"].Object); got != "2 rules, catalogue 90, catalogue-canary 10" {
		t.Error(got)
	}
	run(t, w, "deploy", "approve", d.ID)
	succeeds(t, w.Ended(d.ID))
	oracle.Judge(t)
}
