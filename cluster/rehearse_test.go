package cluster_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"towpath/cluster"
	"towpath/manifest"
	"towpath/reconcile/rollout"
)

func TestARehearsalSaysWhatTheAPIServerWouldRefuseAndWritesNothing(t *testing.T) {
	b := setUp(t)
	service := `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: NS}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80}]}`
	b.applied(0, b.objects(service))
	objects := b.objects(
		strings.Replace(service, "clusterIP: None", "clusterIP: 10.0.0.999", 1), // immutable, and no address
		`
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NS}
spec: {replicas: 2, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: "example.com/web:2", ports: [{containerPort: 70000}]}]}}}`, `
apiVersion: v1
kind: ConfigMap
metadata: {name: good, namespace: NS}
data: {a: b}`, `
apiVersion: v1
kind: Secret
metadata: {name: login, namespace: NS}
data: {password: "hush hush"}`, `
apiVersion: v1
kind: Namespace
metadata: {name: NS-more}`, `
apiVersion: v1
kind: ConfigMap
metadata: {name: there, namespace: NS-more}`, `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boats.NS.example.com}
spec: {group: NS.example.com, scope: Namespaced, names: {kind: Boat, plural: boats, singular: boat}, versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]}`, `
apiVersion: NS.example.com/v1
kind: Boat
metadata: {name: barge, namespace: NS}`, `
apiVersion: v1
kind: ConfigMap
metadata: {name: unasked, namespace: NS}
data: {a: 1}`)
	var keys []manifest.Key
	for _, o := range objects {
		if o.Name != "unasked" {
			keys = append(keys, o.Key)
		}
	}
	asked, refused, failure := b.Rehearse(t.Context(), b.id, objects, keys)
	if failure != nil {
		t.Fatal(failure)
	}
	if asked != 6 {
		t.Errorf("asked about %d, want all but what needs the new namespace and the new kind", asked)
	}
	var got strings.Builder
	for _, r := range refused {
		got.WriteString(r.Key.Kind + ": " + r.Text + "\n")
	}
	for _, want := range []string{"Service: ", `spec.clusterIPs[0]`, "Deployment: ", "must be between 1 and 65535", "Secret: "} {
		if !strings.Contains(got.String(), want) {
			t.Errorf("it is not said that %s:\n%s", want, &got)
		}
	}
	if len(refused) != 3 || strings.Contains(got.String(), "hush") {
		t.Errorf("refused is\n%s", &got)
	}
	all, err := b.kube.Client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace(b.namespace).List(t.Context(), metav1.ListOptions{})
	ok(t, err)
	for _, o := range all.Items {
		if o.GetName() != "kube-root-ca.crt" {
			t.Errorf("%s was written", o.GetName())
		}
	}
}

func TestARehearsalOnAClusterThatIsAwaySaysSo(t *testing.T) {
	b := setUp(t, func(c *cluster.Config) { c.Away = func(error) bool { return true } })
	b.wire.intercept(func(*http.Request) (*http.Response, error) { return nil, errors.New("no agent") })
	objects := b.objects("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: NS}")
	if _, _, failure := b.Rehearse(t.Context(), b.id, objects, []manifest.Key{objects[0].Key}); failure == nil || failure.Class != rollout.Away {
		t.Errorf("the failure is %v", failure)
	}
}
