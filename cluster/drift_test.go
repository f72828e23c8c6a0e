package cluster_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"towpath/cluster"
	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// heard is what a follower is told.
type heard struct {
	mu    sync.Mutex
	moved []cluster.Moved
}

func (h *heard) hear(m cluster.Moved) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.moved = append(h.moved, m)
}

func (h *heard) take() []cluster.Moved {
	h.mu.Lock()
	defer h.mu.Unlock()
	moved := h.moved
	h.moved = nil
	return moved
}

// held applies manifests and follows all that they become.
func (b *bench) held(count int32, objects []manifest.Object) (rollout.Kept, *heard) {
	b.t.Helper()
	b.applied(count, objects)
	k := b.kept(count, objects)
	h := &heard{}
	for _, kind := range b.Kinds(objects) {
		stop, err := b.Follow(b.t.Context(), kind, h.hear)
		ok(b.t, err)
		b.t.Cleanup(stop)
	}
	return k, h
}

func (b *bench) kept(count int32, objects []manifest.Object) rollout.Kept {
	b.t.Helper()
	set, err := reviser.Names(objects)
	ok(b.t, err)
	k := rollout.Kept{Identity: b.id, Release: rollout.Release{Number: 1}}
	for _, r := range set.Revisions {
		k.Target.Full = append(k.Target.Full, rollout.Replicas{Key: r.ReplicaSet, Count: count})
	}
	return k
}

// differs compares what moved once anything has, until something of it differs.
func (b *bench) differs(k rollout.Kept, objects []manifest.Object, h *heard) []rollout.Drift {
	b.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		if moved := h.take(); len(moved) > 0 {
			_, found, failure := b.Compare(b.t.Context(), k, objects, moved)
			if failure != nil {
				b.t.Fatal(failure)
			}
			if len(found) > 0 {
				return found
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.t.Fatal("nothing that differs was heard of")
	return nil
}

func (b *bench) edit(resource schema.GroupVersionResource, name, patch, manager string) {
	b.t.Helper()
	_, err := b.kube.Client.Resource(resource).Namespace(b.namespace).Patch(b.t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: manager})
	ok(b.t, err)
}

func TestWhatOthersChangeIsFoundAndPutBack(t *testing.T) {
	for name, c := range map[string]struct {
		change func(b *bench, set manifest.Key)
		says   string
		by     string
	}{
		"a value": {func(b *bench, _ manifest.Key) {
			b.edit(configMaps, "settings", `{"data":{"greeting":"red"}}`, "kubectl-edit")
		}, "ConfigMap NS/settings differs at /data/greeting", "kubectl-edit"},
		"a value taken away": {func(b *bench, _ manifest.Key) {
			b.edit(configMaps, "settings", `{"data":{"greeting":null}}`, "kubectl-edit")
		}, "ConfigMap NS/settings differs at /data", ""},
		"our label taken off": {func(b *bench, _ manifest.Key) {
			b.edit(configMaps, "settings", `{"metadata":{"labels":{"towpath.dev/lane":null}}}`, "somebody")
		}, "ConfigMap NS/settings differs at /metadata/labels/towpath.dev~1lane", ""},
		"a port": {func(b *bench, _ manifest.Key) {
			b.edit(services, "web", `{"spec":{"ports":[{"name":"http","port":81,"targetPort":81}]}}`, "somebody")
		}, "Service NS/web is changed so that its manifest would be refused: ", "somebody"},
		"an object deleted": {func(b *bench, _ manifest.Key) {
			ok(b.t, b.kube.Client.Resource(services).Namespace(b.namespace).Delete(b.t.Context(), "web", metav1.DeleteOptions{}))
		}, "Service NS/web is not there", ""},
		"a revision scaled": {func(b *bench, set manifest.Key) {
			b.edit(replicaSets, set.Name, `{"spec":{"replicas":0}}`, "kubectl-scale")
		}, "ReplicaSet.apps NS/SET differs at /spec/replicas", "kubectl-scale"},
		"a revision deleted": {func(b *bench, set manifest.Key) {
			ok(b.t, b.kube.Client.Resource(replicaSets).Namespace(b.namespace).Delete(b.t.Context(), set.Name, metav1.DeleteOptions{}))
		}, "ReplicaSet.apps NS/SET is not there", ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := setUp(t)
			app := b.objects(settings, service, web)
			k, h := b.held(2, app)
			set := b.replicaSet(app)
			b.healthy(set)
			c.change(b, set)
			want := strings.NewReplacer("NS", b.namespace, "SET", set.Name).Replace(c.says)
			found := b.differs(k, app, h)
			if len(found) != 1 || !strings.HasPrefix(found[0].Sentence(), want) || found[0].By != c.by || c.by != "" && time.Since(found[0].At) > time.Hour {
				t.Fatalf("%+v, want %q by %q", found, want, c.by)
			}
			if found[0].Refused != "" {
				return // a person has to look at it
			}
			out := b.Apply(t.Context(), b.id, app, k.Restoring([]manifest.Key{found[0].Of}, rollout.Set{}))
			if out.Failure != nil {
				t.Fatal(out.Failure)
			}
			if _, found, failure := b.Compare(t.Context(), k, app, nil); failure != nil || len(found) > 0 {
				t.Errorf("after it was put back: %+v %v", found, failure)
			}
		})
	}
}

// Whoever adds what we do not apply, and the cluster's own work, is no drift; nor is it heard of twice.
func TestWhatIsNoDrift(t *testing.T) {
	b := setUp(t)
	app := b.objects(settings, service, web)
	k, h := b.held(2, app)
	b.healthy(b.replicaSet(app)) // the status moved
	b.edit(configMaps, "settings", `{"metadata":{"annotations":{"example.com/seen":"yes"}},"data":{"EXTRA":"theirs"}}`, "somebody")
	b.edit(services, "web", `{"spec":{"sessionAffinity":"ClientIP"}}`, "somebody")
	var compared []manifest.Key
	deadline := time.Now().Add(30 * time.Second)
	for len(compared) < 2 && time.Now().Before(deadline) {
		if moved := h.take(); len(moved) > 0 {
			keys, found, failure := b.Compare(t.Context(), k, app, moved)
			if failure != nil || len(found) > 0 {
				t.Fatalf("%+v %v", found, failure)
			}
			compared = append(compared, keys...)
		}
		time.Sleep(10 * time.Millisecond)
	}
	slices.SortFunc(compared, manifest.Key.Compare)
	if len(compared) != 2 || compared[0].Name != "settings" || compared[1].Name != "web" || compared[1].Kind != "Service" {
		t.Errorf("read in full were %v, want only what moved", compared)
	}
}

func TestWhatChangedWhileNobodyLookedIsFound(t *testing.T) {
	b := setUp(t)
	app := b.objects(settings, service, web)
	b.applied(2, app)
	b.edit(configMaps, "settings", `{"data":{"greeting":"red"}}`, "kubectl-edit")
	b.Client = b.client() // another process: it knows nothing
	k, h := b.kept(2, app), &heard{}
	for _, kind := range b.Kinds(app) {
		stop, err := b.Follow(t.Context(), kind, h.hear)
		ok(t, err)
		t.Cleanup(stop)
	}
	h.mu.Lock()
	seen := slices.ContainsFunc(h.moved, func(m cluster.Moved) bool { return m.Gap && m.Key == b.key("", "ConfigMap", "settings") })
	h.mu.Unlock()
	if !seen {
		t.Errorf("the list does not tell what nobody had looked at: %+v", h.moved)
	}
	if found := b.differs(k, app, h); len(found) != 1 || found[0].Key.Name != "settings" {
		t.Errorf("%+v", found)
	}
}

func TestWhatIsIgnoredByTheConfigurationIsNoDrift(t *testing.T) {
	b := setUp(t, func(c *cluster.Config) {
		c.Ignored = []cluster.Ignored{{Kind: "ConfigMap", Pointer: "/data", Manager: "robot"}, {Group: "apps", Pointer: "/spec/replicas"}}
	})
	app := b.objects(settings, service, web)
	k, _ := b.held(2, app)
	set := b.replicaSet(app)
	b.edit(configMaps, "settings", `{"data":{"greeting":"red"}}`, "robot")
	b.edit(replicaSets, set.Name, `{"spec":{"replicas":1}}`, "robot")
	if _, found, failure := b.Compare(t.Context(), k, app, nil); failure != nil || len(found) > 0 {
		t.Errorf("%+v %v", found, failure)
	}
	b.edit(configMaps, "settings", `{"data":{"greeting":"green"}}`, "kubectl-edit")
	if _, found, failure := b.Compare(t.Context(), k, app, nil); failure != nil || len(found) != 1 {
		t.Errorf("changed by somebody else: %+v %v", found, failure)
	}
}

// An autoscaler writes through the subresource scale, and so does kubectl scale.
func TestTheReplicasOfAnAutoscalerAreItsOwnAndThoseOfAPersonAreNot(t *testing.T) {
	b := setUp(t)
	app := b.objects(strings.NewReplacer("ReplicaSet", "StatefulSet").Replace(`apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: NS}
spec:
  replicas: 1
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: db, image: example.com/db:1}]}`))
	k, _ := b.held(0, app)
	_, err := b.kube.Client.Resource(schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "statefulsets"}).Namespace(b.namespace).
		Patch(t.Context(), "db", types.MergePatchType, []byte(`{"spec":{"replicas":3}}`), metav1.PatchOptions{FieldManager: "kube-controller-manager"}, "scale")
	ok(t, err)
	if _, found, failure := b.Compare(t.Context(), k, app, nil); failure != nil || len(found) > 0 {
		t.Errorf("%+v %v", found, failure)
	}
	_, err = b.kube.Client.Resource(schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "statefulsets"}).Namespace(b.namespace).
		Patch(t.Context(), "db", types.MergePatchType, []byte(`{"spec":{"replicas":2}}`), metav1.PatchOptions{FieldManager: "kubectl"}, "scale")
	ok(t, err)
	if _, found, failure := b.Compare(t.Context(), k, app, nil); failure != nil || len(found) != 1 || found[0].By != "kubectl" {
		t.Errorf("scaled by a person: %+v %v", found, failure)
	}
}
