package routers

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"towpath/internal/testkit/history"
)

// watched is what an oracle looks at.
var watched = history.Kinds{
	"pod":     {Version: "v1", Resource: "pods"},
	"service": {Version: "v1", Resource: "services"},
	"slice":   {Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"},
	"smi":     {Group: "split.smi-spec.io", Version: "v1alpha4", Resource: "trafficsplits"},
	"virtual": {Group: "networking.istio.io", Version: "v1", Resource: "virtualservices"},
	"rule":    {Group: "networking.istio.io", Version: "v1", Resource: "destinationrules"},
	"gateway": {Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"},
}

// Oracle holds, at each version of a namespace, that routers send traffic only where pods are ready to take it.
type Oracle struct{ history *history.History }

// Watch begins; what is wrong already is wrong.
func Watch(t testing.TB, kubeconfig, namespace string) *Oracle {
	t.Helper()
	return &Oracle{history.Follow(t, kubeconfig, namespace, watched)}
}

// Judge waits until all that happened so far was seen, ends the watches, and fails the test at the first version of the namespace in which traffic went
// where nobody was ready. It returns how often routers were written.
func (o *Oracle) Judge(t testing.TB) (written int) {
	t.Helper()
	o.history.Judge(t, func(now history.State, kind, _ string) string {
		if kind == "smi" || kind == "virtual" || kind == "gateway" {
			written++
		}
		return state(now).wrong()
	})
	return written
}

// state is a namespace at one version.
type state history.State

// backend is where a router sends a share of its traffic.
type backend struct {
	name   string
	weight int64
	said   bool // its weight is written
	ready  int
}

// wrong says what is wrong with where routers send traffic; "" when nothing is.
func (s state) wrong() string {
	for _, name := range slices.Sorted(maps.Keys(s["smi"])) {
		var all []backend
		for _, b := range list(s["smi"][name], "spec", "backends") {
			all = append(all, s.service(text(b["service"]), b["weight"], nil))
		}
		if wrong := judge("TrafficSplit "+name, all); wrong != "" {
			return wrong
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s["gateway"])) {
		for _, rule := range list(s["gateway"][name], "spec", "rules") {
			var all []backend
			for _, b := range list(rule, "backendRefs") {
				all = append(all, s.service(text(b["name"]), b["weight"], nil))
			}
			if wrong := judge("HTTPRoute "+name, all); wrong != "" {
				return wrong
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s["virtual"])) {
		for _, route := range list(s["virtual"][name], "spec", "http") {
			var all []backend
			for _, b := range list(route, "route") {
				destination, _ := b["destination"].(map[string]any)
				b := s.service(strings.Split(text(destination["host"]), ".")[0], b["weight"], s.subset(text(destination["host"]), text(destination["subset"])))
				b.name += "/" + text(destination["subset"])
				all = append(all, b)
			}
			if wrong := judge("VirtualService "+name, all); wrong != "" {
				return wrong
			}
		}
	}
	return ""
}

func judge(router string, all []backend) string {
	var sum int64
	for _, b := range all {
		if !b.said && len(all) > 1 {
			return fmt.Sprintf("%s sends a share that is not said to %s", router, b.name)
		}
		sum += b.weight
		if (b.weight > 0 || !b.said) && b.ready == 0 {
			return fmt.Sprintf("%s sends %d to %s, which leads to no pod that is ready (%+v)", router, b.weight, b.name, all)
		}
	}
	if len(all) > 1 && sum != 100 {
		return fmt.Sprintf("the weights of %s are %d together: %+v", router, sum, all)
	}
	return ""
}

// subset is the labels of a DestinationRule's subset.
func (s state) subset(host, name string) map[string]any {
	for _, rule := range s["rule"] {
		spec, _ := rule["spec"].(map[string]any)
		if strings.Split(text(spec["host"]), ".")[0] != strings.Split(host, ".")[0] {
			continue
		}
		for _, subset := range list(rule, "spec", "subsets") {
			if subset["name"] == name {
				labels, _ := subset["labels"].(map[string]any)
				return labels
			}
		}
	}
	if name == "" {
		return nil
	}
	return map[string]any{"there is no such subset": name}
}

// service is a backend: the ready pods that the endpoints of a Service name and that have labels.
func (s state) service(name string, weight any, labels map[string]any) backend {
	b := backend{name: name}
	switch w := weight.(type) {
	case int64:
		b.weight, b.said = w, true
	case float64:
		b.weight, b.said = int64(w), true
	}
	for _, slice := range s["slice"] {
		meta, _ := slice["metadata"].(map[string]any)
		owner, _ := meta["labels"].(map[string]any)
		if owner["kubernetes.io/service-name"] != name {
			continue
		}
		for _, endpoint := range list(slice, "endpoints") {
			conditions, _ := endpoint["conditions"].(map[string]any)
			target, _ := endpoint["targetRef"].(map[string]any)
			if conditions["ready"] != false && s.serves(text(target["name"]), labels) {
				b.ready++
			}
		}
	}
	return b
}

// serves reports whether a pod is ready, stays, and has labels.
func (s state) serves(name string, labels map[string]any) bool {
	pod := &unstructured.Unstructured{Object: s["pod"][name]}
	if pod.Object == nil || pod.GetDeletionTimestamp() != nil {
		return false
	}
	for key, value := range labels {
		if pod.GetLabels()[key] != value {
			return false
		}
	}
	return slices.ContainsFunc(list(pod.Object, "status", "conditions"), func(c map[string]any) bool { return c["type"] == "Ready" && c["status"] == "True" })
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

func list(object map[string]any, path ...string) (all []map[string]any) {
	values, _, _ := unstructured.NestedFieldNoCopy(object, path...)
	items, _ := values.([]any)
	for _, v := range items {
		if m, ok := v.(map[string]any); ok {
			all = append(all, m)
		}
	}
	return all
}
