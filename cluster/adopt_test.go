package cluster_test

import (
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"towpath/cluster"
	"towpath/internal/testkit/kube"
	"towpath/manifest"
	"towpath/reconcile/rollout"
)

var (
	deployments = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	podsOf      = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	servicesOf  = schema.GroupVersionResource{Version: "v1", Resource: "services"}
)

// theirs makes a Deployment object as somebody else would, and waits until its pods run.
func (b *bench) theirs(text string) {
	b.t.Helper()
	object := b.unstructured(text)
	_, err := b.kube.Client.Resource(deployments).Namespace(b.namespace).Create(b.t.Context(), object, metav1.CreateOptions{})
	ok(b.t, err)
	b.until("the Deployment object's pods", func() bool {
		live := b.Look(b.t.Context(), b.id, rollout.Read{Workloads: []manifest.Key{b.key("apps", "Deployment", "web")}}, nil)
		return live.Failure == nil && live.Workloads[0].Health == rollout.Healthy
	})
}

func (b *bench) unstructured(text string) *unstructured.Unstructured {
	b.t.Helper()
	object := new(unstructured.Unstructured)
	ok(b.t, object.UnmarshalJSON(b.objects(text)[0].JSON))
	return object
}

// until waits for what no watch of ours tells.
func (b *bench) until(what string, done func() bool) {
	b.t.Helper()
	kube.Await(b.t, what, func() (bool, error) { return done(), nil })
}

// podUIDs is the pods in the test's namespace.
func (b *bench) podUIDs() string {
	b.t.Helper()
	list, err := b.kube.Client.Resource(podsOf).Namespace(b.namespace).List(b.t.Context(), metav1.ListOptions{})
	ok(b.t, err)
	var all []string
	for _, pod := range list.Items {
		if pod.GetDeletionTimestamp() == nil {
			all = append(all, string(pod.GetUID()))
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func (b *bench) adopt(objects []manifest.Object) {
	b.t.Helper()
	action := rollout.Action{Kind: rollout.Adopt, Workloads: []manifest.Key{b.key("apps", "Deployment", "web")}}
	b.until("the adoption", func() bool {
		out := b.Adopt(b.t.Context(), b.id, objects, action)
		if out.Failure != nil && out.Failure.Class != rollout.Trouble {
			b.t.Fatal(out.Failure)
		}
		return out.Failure == nil
	})
}

func TestARunningDeploymentObjectIsAdoptedWithoutRestartingAPod(t *testing.T) {
	for name, c := range map[string]struct {
		next      string // image of the manifests that come
		standsFor bool
	}{"the same pods": {"example.com/web:1", true}, "other pods": {"example.com/web:2", false}} {
		t.Run(name, func(t *testing.T) {
			b := setUp(t)
			b.theirs(web)
			before := b.podUIDs()
			next := b.objects(strings.Replace(web, "example.com/web:1", c.next, 1))
			b.adopt(next)
			_, err := b.kube.Client.Resource(deployments).Namespace(b.namespace).Get(t.Context(), "web", metav1.GetOptions{})
			if !apierrors.IsNotFound(err) {
				t.Errorf("the Deployment object is still there: %v", err)
			}
			look := b.Look(t.Context(), b.id, rollout.Read{Revisions: true}, []string{b.namespace})
			if look.Failure != nil || len(look.Revisions) != 1 {
				t.Fatalf("%+v", look)
			}
			adopted := look.Revisions[0]
			want := ""
			if c.standsFor {
				want = b.replicaSet(next).Name
			}
			if adopted.Workload != "web" || adopted.Replicas != 2 || adopted.Hash == "" || adopted.StandsFor != want {
				t.Errorf("adopted is %+v, want it to stand for %q", adopted, want)
			}
			if after := b.podUIDs(); after != before {
				t.Errorf("pods were %s and are %s", before, after)
			}
			if !c.standsFor {
				return
			}
			stand := rollout.StandIn{For: b.replicaSet(next), Is: adopted.Key, Hash: adopted.Hash}
			out := b.Apply(t.Context(), b.id, next, rollout.Action{StandIns: []rollout.StandIn{stand}, Replicas: []rollout.Replicas{{Key: adopted.Key, Count: 2}}})
			if out.Failure != nil {
				t.Fatal(out.Failure)
			}
			if after := b.podUIDs(); after != before {
				t.Errorf("applying the same pods restarted some: %s, then %s", before, after)
			}
		})
	}
}

func TestADeploymentObjectThatIsPutBackAdoptsWhatRuns(t *testing.T) {
	b := setUp(t)
	app := b.objects(web)
	b.applied(2, app)
	b.until("the revision's pods", func() bool { return b.look(b.replicaSet(app))[0].Health == rollout.Healthy })
	before := b.podUIDs()
	out := b.PutBack(t.Context(), b.id, app, rollout.Action{Workloads: []manifest.Key{b.key("apps", "Deployment", "web")}})
	if out.Failure != nil {
		t.Fatal(out.Failure)
	}
	b.until("the Deployment object to have adopted the revision", func() bool {
		set, err := b.kube.Client.Resource(replicaSets).Namespace(b.namespace).Get(t.Context(), b.replicaSet(app).Name, metav1.GetOptions{})
		ok(t, err)
		owner := metav1.GetControllerOf(set)
		return owner != nil && owner.Kind == "Deployment" && owner.Name == "web"
	})
	list, err := b.kube.Client.Resource(replicaSets).Namespace(b.namespace).List(t.Context(), metav1.ListOptions{})
	ok(t, err)
	if after := b.podUIDs(); after != before || len(list.Items) != 1 {
		t.Errorf("%d ReplicaSets; pods were %s and are %s", len(list.Items), before, after)
	}
	b.adopt(app)
	if after := b.podUIDs(); after != before {
		t.Errorf("taking it over again restarted pods: %s, then %s", before, after)
	}
}

func TestADeploymentObjectThatIsPutBackIsScaledItselfAndGoesWithItsRevisions(t *testing.T) {
	b := setUp(t)
	app := b.objects(web, autoscaler)
	b.applied(2, app)
	set, err := reviser.Names(app)
	ok(t, err)
	scaler, revision := set.Scalers[0], set.Revisions[0].ReplicaSet
	if out := b.Shift(t.Context(), b.id, rollout.Action{Aim: []rollout.Aim{{Scaler: scaler.Key, At: revision}}}); out.Failure != nil {
		t.Fatal(out.Failure)
	}
	b.until("it is put back", func() bool {
		out := b.PutBack(t.Context(), b.id, app, rollout.Action{Workloads: []manifest.Key{scaler.Workload}, Aim: []rollout.Aim{{Scaler: scaler.Key, At: scaler.Workload}}})
		return out.Failure == nil
	})
	if ref := b.live(autoscalers, "web").Object["spec"].(map[string]any)["scaleTargetRef"].(map[string]any); ref["kind"] != "Deployment" || ref["name"] != "web" {
		t.Errorf("its autoscaler scales %v", ref)
	}
	if out := b.Remove(t.Context(), b.id, []manifest.Key{scaler.Workload}); out.Failure != nil {
		t.Fatal(out.Failure)
	}
	b.until("nothing of it is left", func() bool {
		deployment := b.look(scaler.Workload)[0]
		list, err := b.kube.Client.Resource(replicaSets).Namespace(b.namespace).List(t.Context(), metav1.ListOptions{})
		ok(t, err)
		return deployment.Missing && len(list.Items) == 0 && b.podUIDs() == ""
	})
}

func TestAServiceIsTurnedToOneRevision(t *testing.T) {
	b := setUp(t)
	app := b.objects(service, web)
	set, err := reviser.Names(app)
	ok(t, err)
	key, hash := set.Services[0].Key, set.Revisions[0].Hash
	selector := func() map[string]string {
		t.Helper()
		object, err := b.kube.Client.Resource(servicesOf).Namespace(b.namespace).Get(t.Context(), "web", metav1.GetOptions{})
		ok(t, err)
		found, _, _ := unstructured.NestedStringMap(object.Object, "spec", "selector")
		return found
	}
	if out := b.Apply(t.Context(), b.id, app, rollout.Action{Select: []rollout.Selection{{Service: key, Hash: hash}}}); out.Failure != nil {
		t.Fatal(out.Failure)
	}
	if got := selector(); got[cluster.LabelHash] != hash || got["app"] != "web" {
		t.Errorf("a Service of the manifests selects %v", got)
	}
	if out := b.Shift(t.Context(), b.id, rollout.Action{Select: []rollout.Selection{{Service: key, Hash: "former"}}}); out.Failure != nil {
		t.Fatal(out.Failure)
	}
	if got := selector(); got[cluster.LabelHash] != "former" || got["app"] != "web" {
		t.Errorf("a turned Service selects %v", got)
	}
	key.Name = "gone"
	fails(t, b.Shift(t.Context(), b.id, rollout.Action{Select: []rollout.Selection{{Service: key, Hash: hash}}}).Failure, rollout.Refused, "gone", "it is not there, so no traffic can be turned by it")
}

func TestConfigurationIsLeftForLaterWhereItIsSaid(t *testing.T) {
	b := setUp(t)
	app := b.objects(settings, login, account, reading)
	set, err := reviser.Names(app)
	ok(t, err)
	if len(set.Configuration) != 2 {
		t.Fatalf("configuration of revisions: %v", set.Configuration)
	}
	if out := b.Apply(t.Context(), b.id, app, rollout.Action{Leave: set.Configuration}); out.Failure != nil {
		t.Fatal(out.Failure)
	}
	for _, live := range b.look(set.Configuration...) {
		if !live.Missing {
			t.Errorf("%s is there already", live.Key)
		}
	}
	if out := b.Apply(t.Context(), b.id, app, rollout.Action{Only: set.Configuration}); out.Failure != nil || len(out.Live) != 2 {
		t.Fatalf("%+v", out)
	}
	for _, live := range b.look(set.Configuration...) {
		if live.Missing {
			t.Errorf("%s is not there", live.Key)
		}
	}
}

func TestWhatWasThereBeforeIsToldApart(t *testing.T) {
	b := setUp(t)
	object := b.unstructured(service)
	_, err := b.kube.Client.Resource(servicesOf).Namespace(b.namespace).Create(t.Context(), object, metav1.CreateOptions{FieldManager: "somebody"})
	ok(t, err)
	lives := b.applied(1, b.objects(service, settings))
	if !lives[b.key("", "Service", "web")].Found {
		t.Error("the Service that somebody made is taken for one of ours")
	}
	if lives[b.key("", "ConfigMap", "settings")].Found {
		t.Error("the ConfigMap that we made is taken for somebody's")
	}
}
