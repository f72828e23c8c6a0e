package cluster_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"towpath/cluster"
	"towpath/internal/testkit/kube"
	"towpath/manifest"
	"towpath/reconcile/rollout"
)

var shared = kube.Shared{}

func TestMain(m *testing.M) { kube.Main(m, &shared) }

var reviser = cluster.Reviser{Key: []byte("a key of tests")}

// bench is a client of the real cluster, with a namespace and a transport of the test's own.
type bench struct {
	*cluster.Client
	t         *testing.T
	kube      *kube.Cluster
	namespace string
	id        rollout.Identity
	wire      *wire
}

func setUp(t *testing.T, options ...func(*cluster.Config)) *bench {
	t.Parallel()
	b := &bench{t: t, kube: shared.Cluster(t)}
	b.namespace = b.kube.Namespace(t)
	b.id = rollout.Identity{Tenant: "main", Application: "shop " + b.namespace, Target: "prod (eu)", Account: "prod", Namespace: b.namespace, Deployment: "d-1", Number: 1}
	b.wire = &wire{next: b.kube.Transport(t)}
	b.Client = b.client(options...)
	return b
}

// client makes one more client over the test's transport.
func (b *bench) client(options ...func(*cluster.Config)) *cluster.Client {
	b.t.Helper()
	log := logrus.New()
	log.SetOutput(b.t.Output())
	config := cluster.Config{Transport: b.wire, Reviser: reviser, Log: logrus.NewEntry(log)}
	for _, option := range options {
		option(&config)
	}
	c, err := cluster.New(config)
	ok(b.t, err)
	b.t.Cleanup(c.Close)
	return c
}

// objects reads manifests; NS in them is the test's namespace.
func (b *bench) objects(texts ...string) []manifest.Object {
	b.t.Helper()
	return objectsOf(b.t, strings.ReplaceAll(strings.Join(texts, "\n---\n"), "NS", b.namespace))
}

func objectsOf(t testing.TB, text string) []manifest.Object {
	t.Helper()
	var all []manifest.Object
	for i, document := range strings.Split(text, "\n---\n") {
		encoded, err := yaml.YAMLToJSON([]byte(document))
		ok(t, err)
		o, err := manifest.New(encoded, fmt.Sprintf("app.yaml:%d", i+1))
		ok(t, err)
		all = append(all, o)
	}
	return all
}

// apply applies manifests, all of whose Deployment objects shall have count pods.
func (b *bench) apply(count int32, objects []manifest.Object) rollout.Outcome {
	b.t.Helper()
	set, err := reviser.Names(objects)
	ok(b.t, err)
	var replicas []rollout.Replicas
	for _, revision := range set.Revisions {
		replicas = append(replicas, rollout.Replicas{Key: revision.ReplicaSet, Count: count})
	}
	return b.Apply(b.t.Context(), b.id, objects, rollout.Action{Replicas: replicas})
}

// applied is apply that has to succeed.
func (b *bench) applied(count int32, objects []manifest.Object) map[manifest.Key]rollout.Live {
	b.t.Helper()
	out := b.apply(count, objects)
	if out.Failure != nil {
		b.t.Fatal(out.Failure)
	}
	lives := map[manifest.Key]rollout.Live{}
	for _, live := range out.Live {
		lives[live.Key] = live
	}
	return lives
}

func (b *bench) replicaSet(objects []manifest.Object) manifest.Key {
	b.t.Helper()
	set, err := reviser.Names(objects)
	ok(b.t, err)
	if len(set.Revisions) != 1 {
		b.t.Fatalf("%d revisions, want 1", len(set.Revisions))
	}
	return set.Revisions[0].ReplicaSet
}

// look reads objects afresh.
func (b *bench) look(keys ...manifest.Key) []rollout.Live {
	b.t.Helper()
	look := b.Look(b.t.Context(), b.id, rollout.Read{Objects: keys}, nil)
	if look.Failure != nil {
		b.t.Fatal(look.Failure)
	}
	return look.Objects
}

// await looks until done, woken by the cluster's own watch.
func (b *bench) await(what string, key manifest.Key, done func(rollout.Live) bool) rollout.Live {
	b.t.Helper()
	moved := make(chan struct{}, 1)
	stop, err := b.Watch(b.t.Context(), b.id, []manifest.Key{key}, func() { moved <- struct{}{} })
	ok(b.t, err)
	defer func() {
		go func() { // the last call may still want to be heard
			for range moved {
			}
		}()
		stop()
		close(moved)
	}()
	late := time.After(time.Minute)
	for {
		live := b.look(key)[0]
		if done(live) {
			return live
		}
		select {
		case <-moved:
		case <-late:
			b.t.Fatalf("waited for %s; it is %+v", what, live)
		}
	}
}

func (b *bench) healthy(key manifest.Key) rollout.Live {
	b.t.Helper()
	return b.await(key.String()+" to be healthy", key, func(l rollout.Live) bool { return l.Health == rollout.Healthy })
}

// live reads an object as the administrator.
func (b *bench) live(resource schema.GroupVersionResource, name string) *unstructured.Unstructured {
	b.t.Helper()
	o, err := b.kube.Client.Resource(resource).Namespace(b.namespace).Get(b.t.Context(), name, metav1.GetOptions{})
	ok(b.t, err)
	return o
}

func (b *bench) key(group, kind, name string) manifest.Key {
	return manifest.Key{Group: group, Kind: kind, Namespace: b.namespace, Name: name}
}

var (
	replicaSets = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "replicasets"}
	configMaps  = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	secrets     = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
	services    = schema.GroupVersionResource{Version: "v1", Resource: "services"}
)

// wire counts requests, and lets a test come between.
type wire struct {
	next http.RoundTripper

	mu       sync.Mutex
	requests []string // "PATCH /api/v1/…"
	between  func(*http.Request) (*http.Response, error)
}

func (w *wire) RoundTrip(request *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.requests = append(w.requests, request.Method+" "+request.URL.RequestURI())
	between := w.between
	w.mu.Unlock()
	if between != nil {
		if response, err := between(request); response != nil || err != nil {
			return response, err
		}
	}
	return w.next.RoundTrip(request)
}

// intercept lets f answer requests; what it leaves (nil, nil) goes on.
func (w *wire) intercept(f func(*http.Request) (*http.Response, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.between = f
}

func (w *wire) sent() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.requests)
}

func (w *wire) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests = nil
}

// answer is an answer of an API server.
func answer(request *http.Request, code int, reason, message string, header http.Header) *http.Response {
	if header == nil {
		header = http.Header{}
	}
	header.Set("Content-Type", "application/json")
	said, err := json.Marshal(message)
	if err != nil {
		panic(err)
	}
	text := fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","status":"Failure","message":%s,"reason":%q,"code":%d}`, said, reason, code)
	return &http.Response{StatusCode: code, Status: http.StatusText(code), Header: header, Body: io.NopCloser(strings.NewReader(text)), Request: request, ProtoMajor: 1, ProtoMinor: 1}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fails holds that a failure is of a class and says all of the texts.
func fails(t testing.TB, failure *rollout.Failure, class rollout.Class, texts ...string) {
	t.Helper()
	if failure == nil {
		t.Fatalf("no failure, want one that says %q", texts)
	}
	if failure.Class != class {
		t.Errorf("class %s, want %s: %v", failure.Class, class, failure)
	}
	contains(t, failure.Error(), texts...)
}

func contains(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q does not say %q", text, part)
		}
	}
}
