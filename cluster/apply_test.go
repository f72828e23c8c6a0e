package cluster_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"towpath/cluster"
	"towpath/internal/localkube"
	"towpath/manifest"
	"towpath/reconcile/rollout"
)

const account = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: NS}`

const settings = `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: NS, labels: {chart: web-1.0}}
data: {greeting: hello}`

const service = `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: NS}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]`

const web = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NS, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: "example.com/web:1"}]`

const ingress = `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: NS}
spec:
  rules:
  - host: web.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}`

// reading is web with configuration that its pods read.
const reading = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NS}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: example.com/web:1
        envFrom: [{configMapRef: {name: settings}}]
        env: [{name: PASSWORD, valueFrom: {secretKeyRef: {name: login, key: password}}}]`

const login = `
apiVersion: v1
kind: Secret
metadata: {name: login, namespace: NS}
stringData: {password: open sesame}`

func TestAFirstDeploymentOfAnAppCostsFewRequests(t *testing.T) {
	b := setUp(t)
	app := b.objects(account, settings, service, web, ingress)
	_, _, err := b.Capabilities(t.Context()) // what the cluster serves is asked for once for all apps
	ok(t, err)
	b.wire.reset()

	set, err := reviser.Names(app)
	ok(t, err)
	read := rollout.Read{Revisions: true, Foreign: true, Workloads: []manifest.Key{set.Revisions[0].Workload}}
	look := b.Look(t.Context(), b.id, read, []string{b.namespace})
	if look.Failure != nil || len(look.Revisions) != 0 || !look.Workloads[0].Missing {
		t.Fatalf("before it: %+v", look)
	}
	lives := b.applied(0, app)
	if got := len(b.wire.sent()); got > 7 {
		t.Errorf("%d requests to look and to apply, want 7 at most:\n%s", got, strings.Join(b.wire.sent(), "\n"))
	}
	replicaSet := set.Revisions[0].ReplicaSet
	if len(lives) != 5 || lives[replicaSet].UID == "" || lives[b.key("", "Service", "web")].Health != rollout.Healthy {
		t.Errorf("answers: %+v", lives)
	}
	stop, err := b.Watch(t.Context(), b.id, []manifest.Key{replicaSet}, func() {})
	ok(t, err)
	b.look(replicaSet)
	if got := len(b.wire.sent()); got > 10 {
		t.Errorf("%d requests with two watches and a fresh read, want 10 at most:\n%s", got, strings.Join(b.wire.sent(), "\n"))
	}
	stop()
}

func TestApplyingAgainChangesNothing(t *testing.T) {
	b := setUp(t)
	app := b.objects(account, settings, login, service, reading)
	first := b.applied(1, app)
	b.healthy(b.replicaSet(app))
	b.id.Deployment, b.id.Number = "d-2", 2
	second := b.applied(1, app)
	for key, live := range first {
		again := second[key]
		if again.UID != live.UID || again.Generation > live.Generation+1 || key.Kind != "ReplicaSet" && again.ResourceVersion != live.ResourceVersion {
			t.Errorf("%s: %+v, then %+v", key, live, again)
		}
	}
	set := b.live(replicaSets, b.replicaSet(app).Name)
	containers, _, _ := unstructured.NestedSlice(set.Object, "spec", "template", "spec", "containers")
	contains(t, fmt.Sprint(containers), "TOWPATH_DEPLOYMENT_ID value:d-1", "ARMORY_DEPLOYMENT_ID value:d-1")
	pods, err := b.kube.Client.Resource(podResource).Namespace(b.namespace).List(t.Context(), metav1.ListOptions{})
	ok(t, err)
	if len(pods.Items) != 1 || pods.Items[0].GetAnnotations()["deploy.armory.io/deployment-id"] != "d-1" {
		t.Errorf("%d pods, of deployment %s; the first run's pod shall run on", len(pods.Items), pods.Items[0].GetAnnotations()["deploy.armory.io/deployment-id"])
	}
}

var podResource = schema.GroupVersionResource{Version: "v1", Resource: "pods"}

func TestWhatAnObjectNeedsIsThereBeforeIt(t *testing.T) {
	b := setUp(t)
	other, group := b.namespace+"-x", b.namespace+".example.com"
	t.Cleanup(func() {
		_ = b.kube.Client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}).Delete(t.Context(), other, metav1.DeleteOptions{})
	})
	definition := `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: PLURAL.GROUP}
spec:
  group: GROUP
  scope: SCOPE
  names: {plural: PLURAL, kind: KIND}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}`
	define := func(plural, kind, scope string) string {
		return strings.NewReplacer("PLURAL", plural, "GROUP", group, "KIND", kind, "SCOPE", scope).Replace(definition)
	}
	lives := b.applied(1, objectsOf(t, strings.NewReplacer("NS", other, "GROUP", group).Replace(strings.Join([]string{`
apiVersion: GROUP/v1
kind: Boat
metadata: {name: first, namespace: NS}
spec: {length: 12}`, `
apiVersion: GROUP/v1
kind: Canal
metadata: {name: long, namespace: NS}`, settings, `
apiVersion: v1
kind: Namespace
metadata: {name: NS}`, define("boats", "Boat", "Namespaced"), define("canals", "Canal", "Cluster")}, "\n---\n"))))
	for _, live := range lives {
		if live.Health != rollout.Healthy || live.Owner != "main/"+b.id.Application+"/prod (eu)" {
			t.Errorf("%+v", live)
		}
	}
	if len(lives) != 6 {
		t.Errorf("%d answers", len(lives))
	}
	ns := lives[manifest.Key{Kind: "Namespace", Name: other}]
	if ns.UID == "" {
		t.Error("the namespace is not among the answers")
	}
	// A client that knows the cluster from before finds the new kinds as well.
	canal := manifest.Key{Group: group, Kind: "Canal", Name: "long"}
	if live := b.look(canal)[0]; live.Missing {
		t.Error("the cluster-wide object is not there")
	}
	// A definition that the API server takes, but cannot bring about.
	out := b.apply(1, objectsOf(t, define("ships", "Boat", "Namespaced")))
	fails(t, out.Failure, rollout.Refused, "CustomResourceDefinition.apiextensions.k8s.io ships."+group, `is already in use`)
	definitions := []manifest.Key{{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition", Name: "ships." + group}, {Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition", Name: "boats." + group}, {Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition", Name: "canals." + group}}
	if out := b.Remove(t.Context(), b.id, append(definitions, canal)); out.Failure != nil {
		t.Error(out.Failure)
	}
}

func TestARefusalIsToldInTheClustersWords(t *testing.T) {
	for name, c := range map[string]struct {
		objects []string
		says    []string
	}{
		"a field of a wrong type": {[]string{strings.Replace(service, "port: 80", "port: eighty", 1)}, []string{"Service NS/web", "spec.ports", "eighty"}},
		"a value that is not allowed": {[]string{strings.Replace(service, "port: 80", "port: 800000", 1)},
			[]string{"Service NS/web", "spec.ports[0].port", "must be between 1 and 65535"}},
		"an unknown field": {[]string{strings.Replace(service, "selector", "selektor", 1)}, []string{"Service NS/web", ".spec.selektor", "field not declared in schema"}},
		"a kind that is not served": {[]string{"apiVersion: example.com/v1\nkind: Boat\nmetadata: {name: first, namespace: NS}"},
			[]string{"Boat.example.com NS/first", "the cluster does not serve it", "no kind Boat in example.com/v1", "CustomResourceDefinition"}},
		"a version that is not served any more": {[]string{strings.Replace(ingress, "networking.k8s.io/v1", "networking.k8s.io/v1beta1", 1)},
			[]string{"Ingress.networking.k8s.io NS/web", "does not serve it as networking.k8s.io/v1beta1, only as networking.k8s.io/v1"}},
		"a pod template that cannot be": {[]string{strings.Replace(web, `image: "example.com/web:1"`, `imagePullPolicy: Seldom`, 1)}, []string{"ReplicaSet.apps NS/web-", "imagePullPolicy", "Seldom", "image"}},
		"a selector that misses its pods": {[]string{strings.Replace(web, "template:\n    metadata: {labels: {app: web}}", "template:\n    metadata: {labels: {app: other}}", 1)},
			[]string{"ReplicaSet.apps NS/web-", "`selector` does not match template `labels`"}},
		"a namespace that is not there": {[]string{strings.ReplaceAll(web, "NS", "nowhere-at-all")}, []string{`namespaces "nowhere-at-all" not found`}},
	} {
		t.Run(name, func(t *testing.T) {
			b := setUp(t)
			out := b.apply(1, b.objects(c.objects...))
			var says []string
			for _, text := range c.says {
				says = append(says, strings.ReplaceAll(text, "NS", b.namespace))
			}
			fails(t, out.Failure, rollout.Refused, says...)
			contains(t, out.Failure.Error())
			if strings.Contains(out.Failure.Error(), "http://kubernetes") {
				t.Errorf("the failure names an address that is none: %v", out.Failure)
			}
		})
	}
}

const autoscaler = `
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web, namespace: NS}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  maxReplicas: 3`

func TestNothingIsWrittenWhenAKindIsNotServed(t *testing.T) {
	b := setUp(t)
	out := b.apply(1, b.objects(settings, "apiVersion: example.com/v1\nkind: Boat\nmetadata: {name: first, namespace: NS}"))
	fails(t, out.Failure, rollout.Refused, "does not serve")
	for _, request := range b.wire.sent() {
		if !strings.HasPrefix(request, "GET ") {
			t.Error(request)
		}
	}
}

func TestARankThatFailsIsTheLastOne(t *testing.T) {
	b := setUp(t)
	out := b.apply(1, b.objects(settings, strings.Replace(service, "port: 80", "port: 800000", 1), web))
	fails(t, out.Failure, rollout.Refused, "must be between 1 and 65535")
	if len(out.Live) != 1 || out.Live[0].Key.Kind != "ConfigMap" {
		t.Errorf("answers: %+v", out.Live)
	}
	if slices.ContainsFunc(b.wire.sent(), func(r string) bool { return strings.Contains(r, "replicasets") }) {
		t.Error("the workload was applied although its Service was refused")
	}
}

func TestAnImmutableFieldIsRefused(t *testing.T) {
	b := setUp(t)
	fixed := settings + "\nimmutable: true"
	b.applied(1, b.objects(fixed))
	out := b.apply(1, b.objects(strings.Replace(fixed, "hello", "goodbye", 1)))
	fails(t, out.Failure, rollout.Refused, "ConfigMap "+b.namespace+"/settings", "field is immutable")
}

func TestNoValueOfASecretIsInAFailure(t *testing.T) {
	b := setUp(t)
	for _, text := range []string{
		strings.Replace(login, "open sesame", "473829", 1),
		strings.Replace(login, "stringData: {password: open sesame}", "data: {password: 'not base64: hunter2'}", 1),
		strings.Replace(login, "stringData: {password: open sesame}", "data: {password: {inner: hunter2}}", 1),
		strings.Replace(login, "metadata:", "type: kubernetes.io/dockerconfigjson\nmetadata:", 1),
	} {
		out := b.apply(1, b.objects(text))
		fails(t, out.Failure, rollout.Refused, "Secret "+b.namespace+"/login")
		for _, value := range []string{"473829", "hunter2", "open sesame", "b3BlbiBzZXNhbWU="} {
			if strings.Contains(out.Failure.Text, value) {
				t.Errorf("the failure shows a value: %v", out.Failure)
			}
		}
		t.Log(out.Failure)
	}
}

func TestWhatAnAccountMayNotDoIsRefused(t *testing.T) {
	b := setUp(t)
	all := []string{"*"}
	access := b.kube.Account(t, b.namespace, "agent", false, localkube.Rule{Groups: []string{"", "apps"}, Resources: []string{"configmaps", "replicasets", "pods"}, Verbs: all})
	b.wire.next = b.kube.TransportOf(t, access)
	b.applied(1, b.objects(settings))
	out := b.apply(1, b.objects(service))
	fails(t, out.Failure, rollout.Refused, "Service "+b.namespace+"/web", `User "system:serviceaccount:`+b.namespace+`:agent" cannot patch resource "services"`)
	// Watches over all namespaces are not allowed to it: those of its own are used.
	app := b.objects(web)
	b.applied(1, app)
	b.healthy(b.replicaSet(app))
}

func TestARevisionReadsItsOwnConfiguration(t *testing.T) {
	b := setUp(t)
	first := b.objects(settings, login, reading)
	b.applied(1, first)
	old := b.healthy(b.replicaSet(first))
	b.id.Deployment, b.id.Number = "d-2", 2
	second := b.objects(strings.Replace(settings, "hello", "goodbye", 1), login, reading)
	b.applied(1, second)
	b.healthy(b.replicaSet(second))
	if b.replicaSet(first) == b.replicaSet(second) {
		t.Fatal("a change of configuration alone makes no revision")
	}
	for i, want := range []string{"hello", "goodbye"} {
		set := b.live(replicaSets, b.replicaSet([][]manifest.Object{first, second}[i]).Name)
		name := configName(t, set)
		copied := b.live(configMaps, name)
		data, _, _ := unstructured.NestedString(copied.Object, "data", "greeting")
		immutable, _, _ := unstructured.NestedBool(copied.Object, "immutable")
		owners := copied.GetOwnerReferences()
		if data != want || !immutable || len(owners) != 1 || owners[0].UID != set.GetUID() || copied.GetAnnotations()[cluster.AnnotationCopyOf] != "settings" {
			t.Errorf("copy %s: greeting %s, immutable %v, owners %v, annotations %v", name, data, immutable, owners, copied.GetAnnotations())
		}
	}
	if greeting, _, _ := unstructured.NestedString(b.live(configMaps, "settings").Object, "data", "greeting"); greeting != "goodbye" {
		t.Errorf("under its own name it says %s", greeting)
	}
	password, _, _ := unstructured.NestedString(b.live(secrets, "login").Object, "data", "password")
	if password != "b3BlbiBzZXNhbWU=" {
		t.Errorf("the Secret holds %s", password)
	}

	look := b.Look(t.Context(), b.id, rollout.Read{Revisions: true}, []string{b.namespace})
	if look.Failure != nil || len(look.Revisions) != 2 {
		t.Fatalf("revisions: %+v", look)
	}
	for _, live := range look.Revisions {
		if live.Workload != "web" || live.Replicas != 1 || live.Number != 1 && live.Number != 2 {
			t.Errorf("%+v", live)
		}
	}

	// Removing the older revision takes its configuration with it, and leaves the other's.
	gone := configName(t, b.live(replicaSets, old.Key.Name))
	if out := b.Remove(t.Context(), b.id, []manifest.Key{old.Key}); out.Failure != nil {
		t.Fatal(out.Failure)
	}
	b.gone(configMaps, gone)
	b.live(configMaps, configName(t, b.live(replicaSets, b.replicaSet(second).Name)))

	// What was removed can come back, though the cluster may still be busy removing it.
	b.applied(1, first)
	b.healthy(b.replicaSet(first))
	if owners := b.live(configMaps, gone).GetOwnerReferences(); len(owners) != 1 || owners[0].UID != b.live(replicaSets, old.Key.Name).GetUID() {
		t.Errorf("owners of what came back: %v", owners)
	}
}

// configName is the ConfigMap that the first container of a ReplicaSet reads.
func configName(t *testing.T, set *unstructured.Unstructured) string {
	t.Helper()
	containers, _, _ := unstructured.NestedSlice(set.Object, "spec", "template", "spec", "containers")
	from, _, _ := unstructured.NestedSlice(containers[0].(map[string]any), "envFrom")
	name, _, _ := unstructured.NestedString(from[0].(map[string]any), "configMapRef", "name")
	return name
}

// gone awaits that the cluster's garbage collector has removed an object.
func (b *bench) gone(resource schema.GroupVersionResource, name string) {
	b.t.Helper()
	w, err := b.kube.Client.Resource(resource).Namespace(b.namespace).Watch(b.t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	ok(b.t, err)
	defer w.Stop()
	for {
		if _, err := b.kube.Client.Resource(resource).Namespace(b.namespace).Get(b.t.Context(), name, metav1.GetOptions{}); apierrors.IsNotFound(err) {
			return
		}
		if _, more := <-w.ResultChan(); !more {
			b.t.Fatalf("%s was not removed", name)
		}
	}
}

func TestWhatStandsAboutAPodTemplateMayChange(t *testing.T) {
	b := setUp(t)
	app := b.objects(web)
	b.applied(1, app)
	changed := b.objects(strings.NewReplacer("labels: {app: web}}\nspec:\n  replicas: 2", "labels: {app: web, team: blue}, annotations: {owner: ada}}\nspec:\n  minReadySeconds: 1\n  replicas: 2").Replace(web))
	if b.replicaSet(app) != b.replicaSet(changed) {
		t.Fatal("it became another revision")
	}
	b.applied(1, changed)
	set := b.live(replicaSets, b.replicaSet(app).Name)
	seconds, _, _ := unstructured.NestedInt64(set.Object, "spec", "minReadySeconds")
	if set.GetLabels()["team"] != "blue" || set.GetAnnotations()["owner"] != "ada" || seconds != 1 {
		t.Errorf("labels %v, annotations %v, minReadySeconds %d", set.GetLabels(), set.GetAnnotations(), seconds)
	}
	b.healthy(b.replicaSet(app))
}

func TestAReplicaSetOfSomebodyElseIsLeftAlone(t *testing.T) {
	b := setUp(t)
	app := b.objects(web)
	b.applied(0, app)
	mine := b.id
	b.id.Application = "other"
	out := b.apply(1, app)
	fails(t, out.Failure, rollout.Refused, b.replicaSet(app).Name, "belongs to main/"+mine.Application+"/prod (eu)")
	out = b.Shift(t.Context(), b.id, rollout.Action{Replicas: []rollout.Replicas{{Key: b.replicaSet(app), Count: 3}}})
	fails(t, out.Failure, rollout.Refused, "belongs to main/"+mine.Application+"/prod (eu)")
	b.id = mine
	if live := b.look(b.replicaSet(app))[0]; live.Replicas != 0 {
		t.Errorf("%+v", live)
	}
}

func TestAChangeInBetweenIsAConflict(t *testing.T) {
	b := setUp(t)
	app := b.objects(web)
	b.applied(1, app)
	key := b.replicaSet(app)
	b.wire.intercept(func(request *http.Request) (*http.Response, error) {
		if request.Method == http.MethodPatch { // somebody else comes between the read and the write
			_, err := b.kube.Client.Resource(replicaSets).Namespace(b.namespace).Patch(request.Context(), key.Name, types.MergePatchType, []byte(`{"spec":{"replicas":5}}`), metav1.PatchOptions{})
			return nil, err
		}
		return nil, nil
	})
	out := b.Shift(t.Context(), b.id, rollout.Action{Replicas: []rollout.Replicas{{Key: key, Count: 0}}})
	fails(t, out.Failure, rollout.Trouble, "ReplicaSet.apps "+b.namespace+"/"+key.Name, "somebody changed it between the read and the write")
	b.wire.intercept(nil)
	if live := b.look(key)[0]; live.Replicas != 5 {
		t.Errorf("%+v", live)
	}
	if out := b.Shift(t.Context(), b.id, rollout.Action{Replicas: []rollout.Replicas{{Key: key, Count: 0}}}); out.Failure != nil || out.Live[0].Replicas != 0 {
		t.Errorf("%+v", out)
	}
}

func TestScalingWhatIsNotThere(t *testing.T) {
	b := setUp(t)
	key := b.key("apps", "ReplicaSet", "web-gone")
	if out := b.Shift(t.Context(), b.id, rollout.Action{Replicas: []rollout.Replicas{{Key: key}}}); out.Failure != nil {
		t.Error(out.Failure)
	}
	fails(t, b.Shift(t.Context(), b.id, rollout.Action{Replicas: []rollout.Replicas{{Key: key, Count: 2}}}).Failure, rollout.Refused, "web-gone", "it is not there, so it cannot have 2 pods")
}

func TestOnlyWhatIsOursIsRemoved(t *testing.T) {
	b := setUp(t)
	app := b.objects(account, settings, login, service, reading)
	b.applied(1, app)
	name := configName(t, b.live(replicaSets, b.replicaSet(app).Name))
	stranger := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "stranger"}}}
	_, err := b.kube.Client.Resource(configMaps).Namespace(b.namespace).Create(t.Context(), stranger, metav1.CreateOptions{})
	ok(t, err)
	_, err = b.kube.Client.Resource(services).Namespace(b.namespace).Patch(t.Context(), "web", types.MergePatchType, []byte(`{"metadata":{"labels":{"`+cluster.LabelLane+`":null}}}`), metav1.PatchOptions{})
	ok(t, err)
	var keys []manifest.Key
	for _, o := range app {
		keys = append(keys, o.Key)
	}
	keys = append(keys, b.key("", "ConfigMap", "stranger"), b.key("", "ConfigMap", "never-there"), b.key("example.com", "Boat", "no-such-kind"))
	if out := b.Remove(t.Context(), b.id, keys); out.Failure != nil {
		t.Fatal(out.Failure)
	}
	b.live(configMaps, "stranger")
	b.live(services, "web")
	b.gone(configMaps, "settings")
	b.gone(secrets, "login")
	b.gone(replicaSets, b.replicaSet(app).Name)
	b.gone(configMaps, name)
	if out := b.Remove(t.Context(), b.id, keys); out.Failure != nil {
		t.Errorf("once more: %v", out.Failure)
	}
}

func TestAnObjectThatWasReplacedIsNotRemoved(t *testing.T) {
	b := setUp(t)
	b.applied(1, b.objects(settings))
	key := b.key("", "ConfigMap", "settings")
	b.wire.intercept(func(request *http.Request) (*http.Response, error) {
		if request.Method == http.MethodDelete { // somebody makes another object of that name meanwhile
			maps := b.kube.Client.Resource(configMaps).Namespace(b.namespace)
			if err := maps.Delete(request.Context(), "settings", metav1.DeleteOptions{}); err != nil {
				return nil, err
			}
			_, err := maps.Create(request.Context(), &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "settings"}}}, metav1.CreateOptions{})
			return nil, err
		}
		return nil, nil
	})
	fails(t, b.Remove(t.Context(), b.id, []manifest.Key{key}).Failure, rollout.Trouble, "the UID in the precondition")
	b.wire.intercept(nil)
	if out := b.Remove(t.Context(), b.id, []manifest.Key{key}); out.Failure != nil {
		t.Fatal(out.Failure)
	}
	b.live(configMaps, "settings")
}

func TestObjectsGoInReverseRanks(t *testing.T) {
	b := setUp(t)
	app := b.objects(account, settings, service, web, ingress)
	b.applied(1, app)
	b.wire.reset()
	var keys []manifest.Key
	for _, o := range app {
		keys = append(keys, o.Key)
	}
	if out := b.Remove(t.Context(), b.id, keys); out.Failure != nil {
		t.Fatal(out.Failure)
	}
	var removed []string
	for _, request := range b.wire.sent() {
		if path, found := strings.CutPrefix(request, "DELETE "); found {
			removed = append(removed, path)
		}
	}
	rank := func(path string) int {
		return slices.IndexFunc([]string{"ingresses", "replicasets", "services", "configmaps", "serviceaccounts"}, func(kind string) bool { return strings.Contains(path, "/"+kind+"/") })
	}
	if len(removed) != 5 || rank(removed[0]) != 0 || rank(removed[1]) != 1 || rank(removed[2]) != 2 {
		t.Errorf("removed in this order:\n%s", strings.Join(removed, "\n"))
	}
}
