package routers

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"towpath/internal/testkit/history"
)

// at is a namespace of objects, each a YAML text, by kind as an oracle calls it.
func at(t *testing.T, objects ...[2]string) state {
	t.Helper()
	s := state{}
	for _, o := range objects {
		object := &unstructured.Unstructured{}
		if err := yaml.NewYAMLOrJSONDecoder(strings.NewReader(o[1]), 4096).Decode(object); err != nil {
			t.Fatal(err)
		}
		history.State(s).Set(o[0], object.GetName(), object)
	}
	return s
}

func pod(name, hash, ready string) [2]string {
	return [2]string{"pod", `{apiVersion: v1, kind: Pod, metadata: {name: ` + name + `, labels: {version: ` + hash + `}}, status: {conditions: [{type: Ready, status: "` + ready + `"}]}}`}
}

func slice(service, pod string) [2]string {
	return [2]string{"slice", `{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: ` + service + `-1, labels: {kubernetes.io/service-name: ` + service + `}}, endpoints: [{conditions: {ready: true}, targetRef: {kind: Pod, name: ` + pod + `}}]}`}
}

func split(weights ...string) [2]string {
	return [2]string{"smi", `{apiVersion: split.smi-spec.io/v1alpha4, kind: TrafficSplit, metadata: {name: web}, spec: {backends: [{service: web, weight: ` + weights[0] + `}, {service: next, weight: ` + weights[1] + `}]}}`}
}

// An oracle that finds nothing proves nothing.
func TestTheOracleFindsTrafficThatNobodyTakes(t *testing.T) {
	t.Parallel()
	virtual := [2]string{"virtual", `{apiVersion: v1, kind: VirtualService, metadata: {name: web}, spec: {http: [{route: [{destination: {host: web.shop, subset: a}, weight: 50}, {destination: {host: web, subset: b}, weight: 50}]}]}}`}
	rule := [2]string{"rule", `{apiVersion: v1, kind: DestinationRule, metadata: {name: web}, spec: {host: web.shop, subsets: [{name: a, labels: {version: a}}, {name: b, labels: {version: b}}]}}`}
	route := [2]string{"gateway", `{apiVersion: v1, kind: HTTPRoute, metadata: {name: web}, spec: {rules: [{backendRefs: [{name: web, weight: 1}]}, {backendRefs: [{name: next}]}]}}`}
	for name, c := range map[string]struct {
		state state
		want  string
	}{
		"all is well":                     {at(t, pod("a", "a", "True"), pod("b", "b", "True"), slice("web", "a"), slice("next", "b"), split("75", "25")), ""},
		"no weight, no pods":              {at(t, pod("a", "a", "True"), slice("web", "a"), split("100", "0")), ""},
		"a Service without endpoints":     {at(t, pod("a", "a", "True"), slice("web", "a"), split("75", "25")), "TrafficSplit web sends 25 to next, which leads to no pod that is ready"},
		"a pod that is not ready":         {at(t, pod("a", "a", "True"), pod("b", "b", "False"), slice("web", "a"), slice("next", "b"), split("75", "25")), "TrafficSplit web sends 25 to next"},
		"weights that are not 100":        {at(t, pod("a", "a", "True"), pod("b", "b", "True"), slice("web", "a"), slice("next", "b"), split("75", "20")), "the weights of TrafficSplit web are 95 together"},
		"a subset of nobody":              {at(t, pod("a", "a", "True"), slice("web", "a"), virtual, rule), "VirtualService web sends 50 to web/b, which leads to no pod that is ready"},
		"a subset that is not there":      {at(t, pod("a", "a", "True"), slice("web", "a"), virtual), "VirtualService web sends 50 to web/a"},
		"a rule for a Service of no pods": {at(t, pod("a", "a", "True"), slice("web", "a"), route), "HTTPRoute web sends 0 to next"},
	} {
		if got := c.state.wrong(); !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
