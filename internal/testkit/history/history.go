// Package history sees each version that the objects of a namespace have, so that a test can hold what shall be true at every moment.
package history

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"
)

// Kinds is what a history is of, each under a name of the test's own.
type Kinds map[string]schema.GroupVersionResource

// History follows kinds of a namespace. It sees each change, since it follows watches without a gap, and has them judged in the order in which the API server
// made them.
type History struct {
	client    dynamic.Interface
	namespace string
	kinds     Kinds
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

// State is a namespace at one version: objects by kind and name.
type State map[string]map[string]map[string]any

// Set puts an object into a state; nil takes it out.
func (s State) Set(kind, name string, object *unstructured.Unstructured) {
	if s[kind] == nil {
		s[kind] = map[string]map[string]any{}
	}
	if object == nil {
		delete(s[kind], name)
		return
	}
	s[kind][name] = object.Object
}

// Follow begins.
func Follow(t testing.TB, kubeconfig, namespace string, kinds Kinds) *History {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	h := &History{client: client, namespace: namespace, kinds: kinds, cancel: cancel, newest: map[string]map[string]uint64{}}
	for kind := range kinds { // before any of them is followed
		h.newest[kind] = map[string]uint64{}
	}
	for kind, resource := range kinds {
		list, err := client.Resource(resource).Namespace(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		listed, _ := strconv.ParseUint(list.GetResourceVersion(), 10, 64)
		h.from = max(h.from, listed)
		for i := range list.Items {
			h.note(kind, watch.Added, &list.Items[i])
		}
		w, err := client.Resource(resource).Namespace(namespace).Watch(ctx, metav1.ListOptions{ResourceVersion: list.GetResourceVersion()})
		if err != nil {
			t.Fatal(err)
		}
		h.following.Go(func() { h.follow(ctx, kind, w) })
	}
	t.Cleanup(h.stop)
	return h
}

func (h *History) stop() {
	h.cancel()
	h.following.Wait()
}

func (h *History) follow(ctx context.Context, kind string, w watch.Interface) {
	defer w.Stop()
	for event := range w.ResultChan() {
		object, ok := event.Object.(*unstructured.Unstructured)
		if ctx.Err() != nil {
			return
		}
		if !ok || event.Type == watch.Error {
			h.breaks(fmt.Errorf("the watch on %s ended: %v", h.kinds[kind].Resource, event.Object))
			return
		}
		h.note(kind, event.Type, object)
	}
	if ctx.Err() == nil {
		h.breaks(fmt.Errorf("the watch on %s ended", h.kinds[kind].Resource))
	}
}

func (h *History) breaks(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.broken = err
}

func (h *History) note(kind string, event watch.EventType, object *unstructured.Unstructured) {
	h.mu.Lock()
	defer h.mu.Unlock()
	version, _ := strconv.ParseUint(object.GetResourceVersion(), 10, 64)
	c := change{version, kind, object.GetName(), object}
	if event == watch.Deleted {
		c.object = nil
	}
	h.newest[kind][c.name] = version
	h.changes = append(h.changes, c)
}

// Judge waits until all that happened so far was seen, ends the watches, and fails the test at the first version of the namespace of which wrong says
// anything. wrong is asked about each of them, and told what changed.
func (h *History) Judge(t testing.TB, wrong func(now State, kind, name string) string) {
	t.Helper()
	for kind, resource := range h.kinds {
		h.caughtUp(t, kind, resource)
	}
	h.stop()
	if h.broken != nil {
		t.Fatal(h.broken)
	}
	slices.SortStableFunc(h.changes, func(a, b change) int { return cmp.Compare(a.version, b.version) })
	now := State{}
	for i, c := range h.changes {
		now.Set(c.kind, c.name, c.object)
		if c.version <= h.from || i+1 < len(h.changes) && h.changes[i+1].version == c.version {
			continue
		}
		if wrong := wrong(now, c.kind, c.name); wrong != "" {
			t.Errorf("at resourceVersion %d, as %s %s changed: %s", c.version, c.kind, c.name, wrong)
			return
		}
	}
}

// caughtUp waits until a watch has brought what a list shows.
func (h *History) caughtUp(t testing.TB, kind string, resource schema.GroupVersionResource) {
	t.Helper()
	list, err := h.client.Resource(resource).Namespace(h.namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	patience := time.After(time.Minute)
	for {
		behind := h.behind(kind, list.Items)
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
func (h *History) behind(kind string, listed []unstructured.Unstructured) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, item := range listed {
		if version, _ := strconv.ParseUint(item.GetResourceVersion(), 10, 64); h.newest[kind][item.GetName()] < version && h.broken == nil {
			return item.GetName()
		}
	}
	return ""
}
