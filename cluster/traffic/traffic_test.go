package traffic_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"towpath/cluster/traffic"
	"towpath/manifest"
	"towpath/reconcile/rollout"
)

var update = flag.Bool("update", false, "rewrite testdata/*.golden")

// objects is a namespace, by kind and name.
type objects map[string]traffic.Object

func place(key manifest.Key) string { return key.Kind + " " + key.Name }

// read makes objects of YAML documents. Numbers are those that a cluster answers with.
func read(t *testing.T, text string) objects {
	t.Helper()
	all := objects{}
	for document := range strings.SplitSeq(text, "\n---\n") {
		o := traffic.Object{}
		if err := yaml.Unmarshal([]byte(document), &o); err != nil {
			t.Fatal(err)
		}
		o = integers(o).(traffic.Object)
		meta := o["metadata"].(map[string]any)
		meta["namespace"] = "shop"
		all[fmt.Sprintf("%s %s", o["kind"], meta["name"])] = o
	}
	return all
}

func integers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, inner := range v {
			v[k] = integers(inner)
		}
	case []any:
		for i, inner := range v {
			v[i] = integers(inner)
		}
	case float64:
		return int64(v)
	}
	return v
}

// Get implements traffic.Objects.
func (o objects) Get(key manifest.Key) (traffic.Object, error) {
	if found := o[place(key)]; found != nil {
		return copyOf(found), nil
	}
	return nil, nil
}

// List implements traffic.Objects.
func (o objects) List(kind manifest.Key) (all []traffic.Object, err error) {
	for name, object := range o {
		if strings.HasPrefix(name, kind.Kind+" ") {
			all = append(all, copyOf(object))
		}
	}
	return all, nil
}

func copyOf(o traffic.Object) traffic.Object {
	text, err := yaml.Marshal(o)
	if err != nil {
		panic(err)
	}
	copied := traffic.Object{}
	if err := yaml.Unmarshal(text, &copied); err != nil {
		panic(err)
	}
	return integers(copied).(traffic.Object)
}

// bring brings a division about.
func (o objects) bring(t *testing.T, d rollout.Division) objects {
	t.Helper()
	out := objects{}
	for name, object := range o {
		out[name] = copyOf(object)
	}
	for _, p := range traffic.Parts(d) {
		if p.Shape == nil {
			continue
		}
		is, _ := out.Get(p.Key)
		from, _ := out.Get(p.From)
		shall, err := p.Shape(is, from)
		if err != nil {
			t.Fatalf("%s: %v", p.Key, err)
		}
		if delete(out, place(p.Key)); shall != nil {
			out[place(p.Key)] = copyOf(shall)
		}
	}
	return out
}

func (o objects) String() string {
	text, err := yaml.Marshal(o)
	if err != nil {
		panic(err)
	}
	return string(text)
}

const service = `
apiVersion: v1
kind: Service
metadata: {name: web, annotations: {cloud: balanced}}
spec: {type: LoadBalancer, clusterIP: 10.0.0.7, selector: {app: web}, ports: [{name: http, port: 80, targetPort: http, nodePort: 30080}]}`

func virtual(host string) string {
	return `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, annotations: {owner: shop}}
spec:
  hosts: [web]
  http:
    - {name: beta, match: [{headers: {beta: {exact: "yes"}}}], route: [{destination: {host: beta}}]}
    - {name: main, timeout: 3s, route: [{destination: {host: ` + host + `, subset: main, port: {number: 80}}}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: rule}
spec: {host: web, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}, subsets: [{name: main, labels: {app: web}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}]}`
}

const httpRoute = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: front}]
  rules:
    - {matches: [{path: {type: PathPrefix, value: /static}}], backendRefs: [{name: files, port: 80}]}
    - {name: app, matches: [{path: {type: PathPrefix, value: /}}, {method: POST}], timeouts: {request: 5s}, backendRefs: [{name: web, port: 80, weight: 1}]}`

// cases are namespaces as they are before a rollout, and what a file says of their routers.
var cases = []struct {
	name    string
	objects string
	route   rollout.Route
}{
	{"smi-made", service, rollout.Route{Kind: rollout.SMI, Name: "web", Service: "web"}},
	{"smi-there", service + "\n---\n" + `
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: share}
spec: {service: web, backends: [{service: web, weight: 1}]}
---
apiVersion: v1
kind: Service
metadata: {name: next}
spec: {selector: {app: web}, ports: [{port: 80}]}`, rollout.Route{Kind: rollout.SMI, Name: "share", Service: "web", Canary: "next"}},
	{"istio", service + "\n---\n" + virtual("web"), rollout.Route{Kind: rollout.Istio, Name: "web", Rule: "main"}},
	{"istio-full-host", service + "\n---\n" + virtual("web.shop.svc.cluster.local"), rollout.Route{Kind: rollout.Istio, Name: "web", Rule: "main", Destination: "rule", Subset: "main", Canary: "next"}},
	{"istio-both-there", service + "\n---\n" + `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec: {hosts: [web], http: [{route: [{destination: {host: web.shop, subset: stable}, weight: 100}, {destination: {host: web.shop, subset: canary}, weight: 0}]}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec: {host: web.shop.svc, subsets: [{name: stable}, {name: canary, labels: {app: web}}]}`, rollout.Route{Kind: rollout.Istio, Name: "web", Subset: "stable", Canary: "canary"}},
	{"gateway", service + "\n---\n" + httpRoute, rollout.Route{Kind: rollout.Gateway, Name: "web", Service: "web", Headers: []rollout.Header{{Name: "x-next", Value: "1"}}}},
	{"gateway-three", service + "\n---\n" + `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec: {rules: [{backendRefs: [{name: web, port: 80, weight: 9}, {name: legacy, port: 80, weight: 1}]}]}`, rollout.Route{Kind: rollout.Gateway, Name: "web", Service: "web"}},
}

func found(t *testing.T, r rollout.Route, in objects) rollout.Route {
	t.Helper()
	r.Namespace = "shop"
	r, err := traffic.Find(r, in)
	if err != nil {
		t.Fatal(err)
	}
	r.Stable, r.New = rollout.Side{Hash: "old"}, rollout.Side{Hash: "new"}
	return r
}

func TestWhatObjectsAreWhileTrafficIsDivided(t *testing.T) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			divide(t, c.name, c.objects, c.route, func(r rollout.Route) []rollout.Division {
				return []rollout.Division{{Route: r, Stage: rollout.Held}, {Route: r, Stage: rollout.Divided, Weight: 25}, {Route: r, Stage: rollout.Divided, Weight: 100},
					{Route: r, Stage: rollout.Opened, Weight: 100}}
			})
		})
	}
}

// A baseline has as much as the new version for a while.
func TestWhatObjectsAreWhileACanaryIsCompared(t *testing.T) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.route.Compares = true
			divide(t, c.name+"-compared", c.objects, c.route, func(r rollout.Route) []rollout.Division {
				r.Baseline = rollout.Side{Hash: "copy"}
				return []rollout.Division{{Route: r, Stage: rollout.Held}, {Route: r, Stage: rollout.Divided, Weight: 20, Compared: true}, {Route: r, Stage: rollout.Divided, Weight: 100},
					{Route: r, Stage: rollout.Opened, Weight: 100}}
			})
		})
	}
}

// divide brings divisions about, one after another, and holds them against a golden file; each can be gone back from, and brought about twice.
func divide(t *testing.T, name, before string, wanted rollout.Route, divisions func(rollout.Route) []rollout.Division) {
	t.Helper()
	was := read(t, before)
	all := divisions(found(t, wanted, was))
	now, text, route := was, "", all[0].Route
	for _, d := range all {
		next := now.bring(t, d)
		if again := next.bring(t, d); !reflect.DeepEqual(again, next) {
			t.Errorf("%s %d brought about twice:\n%s\nonce:\n%s", d.Stage, d.Weight, again, next)
		}
		if d.Stage == rollout.Divided {
			again := found(t, wanted, next)
			if again.Baseline = route.Baseline; !reflect.DeepEqual(again, route) {
				t.Errorf("found again while traffic is divided: %+v, want %+v", again, route)
			}
			back := rollout.Division{Route: route, Stage: rollout.Held}
			if whole := next.bring(t, back).bring(t, rollout.Division{Route: route, Stage: rollout.Whole}); !reflect.DeepEqual(whole, was) {
				t.Errorf("gone back from %d:\n%s\nwant\n%s", d.Weight, whole, was)
			}
		}
		text += fmt.Sprintf("# %s %d\n", d.Stage, d.Weight)
		text += changed(now, next)
		now = next
	}
	if whole := now.bring(t, rollout.Division{Route: route, Stage: rollout.Whole}); !reflect.DeepEqual(whole, was) {
		t.Errorf("at the end:\n%s\nwant\n%s", whole, was)
	}
	if whole := was.bring(t, rollout.Division{Route: route, Stage: rollout.Whole}); !reflect.DeepEqual(whole, was) {
		t.Errorf("made whole though nobody divided it:\n%s\nwant\n%s", whole, was)
	}
	golden := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(golden, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(golden); err != nil || string(want) != text {
		t.Errorf("differs from %s (%v); go test -update rewrites it:\n%s", golden, err, text)
	}
}

// changed is the objects that are others than before.
func changed(was, is objects) string {
	some := objects{}
	for name, o := range is {
		if !reflect.DeepEqual(o, was[name]) {
			some[name] = o
		}
	}
	return some.String()
}

func TestARouteThatIsNotThereOrIsNotClearSaysWhatToWrite(t *testing.T) {
	const needed = "and one of this name is needed for the baseline that a canary is compared with; give it another name, or leave out the baseline of the analysis"
	long := strings.Repeat("web-", 15) + "x"
	istio := rollout.Route{Kind: rollout.Istio, Name: "web"}
	with := func(change func(*rollout.Route)) rollout.Route {
		r := istio
		r.Rule = "main"
		change(&r)
		return r
	}
	for _, c := range []struct {
		name, objects string
		route         rollout.Route
		want          string
	}{
		{"no root Service", strings.ReplaceAll(service, "name: web,", "name: other,"), rollout.Route{Kind: rollout.SMI, Service: "web"},
			"Service shop/web, which trafficManagement.smi.rootServiceName names, is neither in the manifests nor in the cluster"},
		{"no VirtualService", service, istio,
			"VirtualService.networking.istio.io shop/web, which trafficManagement.istio.virtualService.name names, is neither in the manifests nor in the cluster"},
		{"two HTTP routes", service + "\n---\n" + virtual("web"), istio,
			"VirtualService.networking.istio.io shop/web has 2 HTTP routes (beta, main); name one: trafficManagement.istio.virtualService.httpRouteName"},
		{"no such HTTP route", service + "\n---\n" + virtual("web"), with(func(r *rollout.Route) { r.Rule = "mian" }),
			`VirtualService.networking.istio.io shop/web has no HTTP route "mian", which trafficManagement.istio.virtualService.httpRouteName names; it has: beta, main`},
		{"no DestinationRule of the host", service + "\n---\n" + virtual("web") + "\n---\n" + strings.ReplaceAll(service, "name: web,", "name: beta,"), with(func(r *rollout.Route) { r.Rule = "beta" }),
			"0 DestinationRules in namespace shop are for the host beta, to which VirtualService.networking.istio.io shop/web sends traffic; there must be one, or name it: trafficManagement.istio.destinationRule.name"},
		{"two DestinationRules of the host", service + "\n---\n" + virtual("web") + "\n---\n" + "kind: DestinationRule\nmetadata: {name: second}\nspec: {host: web.shop}", with(func(*rollout.Route) {}),
			"2 DestinationRules in namespace shop are for the host web, to which VirtualService.networking.istio.io shop/web sends traffic; there must be one, or name it: trafficManagement.istio.destinationRule.name"},
		{"no such DestinationRule", service + "\n---\n" + virtual("web"), with(func(r *rollout.Route) { r.Destination = "rul" }),
			"DestinationRule.networking.istio.io shop/rul, which trafficManagement.istio.destinationRule.name names, is neither in the manifests nor in the cluster"},
		{"no such subset", service + "\n---\n" + strings.ReplaceAll(virtual("web"), "subset: main", "subset: prime"), with(func(*rollout.Route) {}),
			`DestinationRule.networking.istio.io shop/rule has no subset "prime"; add it, or name another: trafficManagement.istio.destinationRule.activeSubsetName`},
		{"a host outside", service + "\n---\n" + strings.ReplaceAll(virtual("shop.example.com"), "spec: {host: web,", "spec: {host: shop.example.com,"),
			with(func(r *rollout.Route) { r.Destination = "rule" }),
			"DestinationRule.networking.istio.io shop/rule is for the host shop.example.com, and the traffic of VirtualService.networking.istio.io shop/web goes to shop.example.com; name the DestinationRule of that host: trafficManagement.istio.destinationRule.name"},
		{"no HTTPRoute", service, rollout.Route{Kind: rollout.Gateway, Name: "web"},
			"HTTPRoute.gateway.networking.k8s.io shop/web, which trafficManagement.gateway.httpRoute names, is neither in the manifests nor in the cluster"},
		{"several Services", service + "\n---\n" + httpRoute, rollout.Route{Kind: rollout.Gateway, Name: "web"},
			"HTTPRoute.gateway.networking.k8s.io shop/web sends traffic to 2 Services (files, web); name the one whose traffic is to be divided: trafficManagement.gateway.activeService"},
		{"no traffic to the Service", service + "\n---\n" + httpRoute, rollout.Route{Kind: rollout.Gateway, Name: "web", Service: "api"},
			"HTTPRoute.gateway.networking.k8s.io shop/web sends no traffic to Service api, which trafficManagement.gateway.activeService names; it does to: files, web"},
		{"a Service has the baseline's name", service + "\n---\n" + httpRoute + "\n---\n" + strings.ReplaceAll(service, "name: web,", "name: web-baseline,"),
			rollout.Route{Kind: rollout.Gateway, Name: "web", Service: "web", Compares: true}, "Service shop/web-baseline is there already, " + needed},
		{"a Service has the baseline's name beside a TrafficSplit", service + "\n---\n" + strings.ReplaceAll(service, "name: web,", "name: web-baseline,"),
			rollout.Route{Kind: rollout.SMI, Service: "web", Compares: true}, "Service shop/web-baseline is there already, " + needed},
		{"a subset has the baseline's name", service + "\n---\n" + strings.ReplaceAll(virtual("web"), "subsets: [", "subsets: [{name: main-baseline}, "), with(func(r *rollout.Route) { r.Compares = true }),
			`DestinationRule.networking.istio.io shop/rule has a subset "main-baseline" already, ` + needed},
		{"a name too long for a canary's Service", strings.ReplaceAll(service, "name: web,", "name: "+long+","), rollout.Route{Kind: rollout.SMI, Service: long},
			"Service shop/" + long + " has so long a name that the Service " + long + "-canary, which leads to the new version, cannot be made (at most 63 letters): name one, or give it a shorter name"},
		{"a name too long for a baseline's Service", strings.ReplaceAll(service, "name: web,", "name: "+long+","), rollout.Route{Kind: rollout.SMI, Service: long, Canary: "other", Compares: true},
			"Service shop/" + long + " has so long a name that the Service " + long + "-baseline, which leads to the baseline of an analysis, cannot be made (at most 63 letters): give it a shorter name, or leave out the baseline"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.route.Namespace = "shop"
			_, err := traffic.Find(c.route, read(t, c.objects))
			if err == nil || err.Error() != c.want {
				t.Errorf("%v\nwant %s", err, c.want)
			}
		})
	}
}

func TestASubsetOfPodsThatKubernetesAloneMarkedSelectsByItsLabel(t *testing.T) {
	was := read(t, service+"\n---\n"+virtual("web"))
	route := found(t, rollout.Route{Kind: rollout.Istio, Name: "web", Rule: "main"}, was)
	route.Stable.Unmarked = true
	now := was.bring(t, rollout.Division{Route: route, Stage: rollout.Divided, Weight: 10})
	subsets := fmt.Sprint(now["DestinationRule rule"]["spec"].(map[string]any)["subsets"])
	for _, want := range []string{"labels:map[app:web pod-template-hash:old] name:main", "labels:map[app:web armory-pod-template-hash:new] name:main-canary"} {
		if !strings.Contains(subsets, want) {
			t.Errorf("%s\ndoes not have %s", subsets, want)
		}
	}
}
