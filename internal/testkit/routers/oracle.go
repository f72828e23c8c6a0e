package routers

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
)

// watched is what an oracle looks at.
var watched = map[string]schema.GroupVersionResource{
	"pod":     {Version: "v1", Resource: "pods"},
	"service": {Version: "v1", Resource: "services"},
	"slice":   {Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"},
	"smi":     {Group: "split.smi-spec.io", Version: "v1alpha4", Resource: "trafficsplits"},
	"virtual": {Group: "networking.istio.io", Version: "v1", Resource: "virtualservices"},
	"rule":    {Group: "networking.istio.io", Version: "v1", Resource: "destinationrules"},
	"gateway": {Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"},
}

// Oracle holds, at each version of a namespace, that routers send traffic only where pods are ready to take it. It sees each change, since it follows
// watches without a gap, and judges them in the order in which the API server made them.
type Oracle struct {
	client    dynamic.Interface
	namespace string
	following sync.WaitGroup
	cancel    context.CancelFunc

	mu      sync.Mutex
	changes []change
	newest  map[string]map[string]uint64 // version by kind and name, also of what is gone
	from    uint64                       // version from which on all of the namespace is known
	broken  error
}

type change struct {
	version uint64
	kind    string
	name    string
	object  *unstructured.Unstructured // nil: it is gone
}

// Watch begins; what is wrong already is wrong. At the test's end Judge is called if it was not.
func Watch(t testing.TB, kubeconfig, namespace string) *Oracle {
	t.Helper()
	client, err := clientOf(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	o := &Oracle{client: client, namespace: namespace, cancel: cancel, newest: map[string]map[string]uint64{}}
	for kind := range watched { // before any of them is followed
		o.newest[kind] = map[string]uint64{}
	}
	for kind, resource := range watched {
		list, err := client.Resource(resource).Namespace(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		listed, _ := strconv.ParseUint(list.GetResourceVersion(), 10, 64)
		o.from = max(o.from, listed)
		for i := range list.Items {
			o.note(kind, watch.Added, &list.Items[i])
		}
		w, err := client.Resource(resource).Namespace(namespace).Watch(ctx, metav1.ListOptions{ResourceVersion: list.GetResourceVersion()})
		if err != nil {
			t.Fatal(err)
		}
		o.following.Go(func() { o.follow(ctx, kind, w) })
	}
	t.Cleanup(o.stop)
	return o
}

func (o *Oracle) stop() {
	o.cancel()
	o.following.Wait()
}

func (o *Oracle) follow(ctx context.Context, kind string, w watch.Interface) {
	defer w.Stop()
	for event := range w.ResultChan() {
		object, ok := event.Object.(*unstructured.Unstructured)
		if ctx.Err() != nil {
			return
		}
		if !ok || event.Type == watch.Error {
			o.breaks(fmt.Errorf("the watch on %s ended: %v", watched[kind].Resource, event.Object))
			return
		}
		o.note(kind, event.Type, object)
	}
	if ctx.Err() == nil {
		o.breaks(fmt.Errorf("the watch on %s ended", watched[kind].Resource))
	}
}

func (o *Oracle) breaks(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.broken = err
}

func (o *Oracle) note(kind string, event watch.EventType, object *unstructured.Unstructured) {
	o.mu.Lock()
	defer o.mu.Unlock()
	version, _ := strconv.ParseUint(object.GetResourceVersion(), 10, 64)
	c := change{version, kind, object.GetName(), object}
	if event == watch.Deleted {
		c.object = nil
	}
	o.newest[kind][c.name] = version
	o.changes = append(o.changes, c)
}

// Judge waits until all that happened so far was seen, ends the watches, and fails the test at the first version of the namespace in which traffic went
// where nobody was ready. It returns how often routers were written.
func (o *Oracle) Judge(t testing.TB) (written int) {
	t.Helper()
	for kind, resource := range watched {
		o.caughtUp(t, kind, resource)
	}
	o.stop()
	if o.broken != nil {
		t.Fatal(o.broken)
	}
	slices.SortStableFunc(o.changes, func(a, b change) int { return cmp.Compare(a.version, b.version) })
	now := state{}
	for i, c := range o.changes {
		now.set(c)
		if c.version <= o.from {
			continue
		}
		if c.kind == "smi" || c.kind == "virtual" || c.kind == "gateway" {
			written++
		}
		if i+1 < len(o.changes) && o.changes[i+1].version == c.version {
			continue
		}
		if wrong := now.wrong(); wrong != "" {
			t.Errorf("at resourceVersion %d, as %s %s changed: %s", c.version, c.kind, c.name, wrong)
			return written
		}
	}
	return written
}

// caughtUp waits until a watch has brought what a list shows.
func (o *Oracle) caughtUp(t testing.TB, kind string, resource schema.GroupVersionResource) {
	t.Helper()
	list, err := o.client.Resource(resource).Namespace(o.namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	patience := time.After(time.Minute)
	for {
		behind := o.behind(kind, list.Items)
		if behind == "" {
			return
		}
		select {
		case <-patience:
			t.Fatalf("the watch on %s brought nothing of %s", resource.Resource, behind)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// behind is the name of an object that was listed and of which a watch has not brought as much; "" if there is none, or the watch brings no more.
func (o *Oracle) behind(kind string, listed []unstructured.Unstructured) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, item := range listed {
		if version, _ := strconv.ParseUint(item.GetResourceVersion(), 10, 64); o.newest[kind][item.GetName()] < version && o.broken == nil {
			return item.GetName()
		}
	}
	return ""
}

// state is a namespace at one version: objects by kind and name.
type state map[string]map[string]map[string]any

func (s state) set(c change) {
	if s[c.kind] == nil {
		s[c.kind] = map[string]map[string]any{}
	}
	if c.object == nil {
		delete(s[c.kind], c.name)
		return
	}
	s[c.kind][c.name] = c.object.Object
}

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
