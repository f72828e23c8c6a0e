package cluster_test

import (
	"encoding/base64"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"towpath/cluster"
	"towpath/manifest"
	"towpath/reconcile/rollout"
)

var update = flag.Bool("update", false, "rewrite testdata/*.golden")

var shop = rollout.Identity{Tenant: "main", Application: "Potato Facts", Target: "prod-apac (canary-istio)", Account: "prod", Namespace: "shop", Deployment: "d-7", Number: 7}

// everything is a Deployment object that reads configuration in each way that there is.
const everything = `
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  namespace: shop
  labels: {team: blue}
  annotations: {owner: ada, kubectl.kubernetes.io/last-applied-configuration: "{}"}
spec:
  replicas: 3
  minReadySeconds: 5
  revisionHistoryLimit: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}, annotations: {note: kept}}
    spec:
      imagePullSecrets: [{name: registry}]
      initContainers:
      - {name: init, image: "example.com/init:1", envFrom: [{secretRef: {name: from-secret}}]}
      containers:
      - name: web
        image: example.com/web:1
        envFrom: [{configMapRef: {name: from-map, optional: true}}]
        env:
        - {name: ARMORY_APPLICATION_NAME, value: mine}
        - {name: KEY, valueFrom: {configMapKeyRef: {name: key-map, key: a}}}
        - {name: PASSWORD, valueFrom: {secretKeyRef: {name: key-secret, key: a}}}
        - {name: ELSEWHERE, valueFrom: {configMapKeyRef: {name: not-in-these-manifests, key: a}}}
      volumes:
      - {name: a, configMap: {name: volume-map}}
      - {name: b, secret: {secretName: volume-secret}}
      - {name: c, projected: {sources: [{configMap: {name: projected-map}}, {secret: {name: projected-secret}}]}}
      - {name: d, secret: {secretName: token}}`

func configuration(kind, name, more string) string {
	return "apiVersion: v1\nkind: " + kind + "\nmetadata: {name: " + name + ", namespace: shop}\n" + more
}

func everyConfiguration() []string {
	texts := []string{configuration("Secret", "token", "type: kubernetes.io/service-account-token"), configuration("Secret", "registry", "stringData: {a: b}"),
		configuration("ConfigMap", "unread", "data: {a: b}")}
	for _, name := range []string{"from", "key", "volume", "projected"} {
		texts = append(texts, configuration("ConfigMap", name+"-map", "data: {a: "+name+"}"), configuration("Secret", name+"-secret", "stringData: {a: "+name+"}"))
	}
	return texts
}

func TestADeploymentObjectBecomesAReplicaSetAndItsConfiguration(t *testing.T) {
	revised, err := reviser.Revise(shop, objectsOf(t, strings.Join(append(everyConfiguration(), everything), "\n---\n")))
	ok(t, err)
	if len(revised.Revisions) != 1 || *revised.Revisions[0].Replicas != 3 {
		t.Fatalf("revisions: %+v", revised.Revisions)
	}
	var text strings.Builder
	for _, o := range append([]manifest.Object{revised.Revisions[0].ReplicaSet}, revised.Revisions[0].Copies...) {
		document, err := yaml.JSONToYAML(o.JSON)
		ok(t, err)
		text.WriteString("---\n")
		text.Write(document)
	}
	golden := filepath.Join("testdata", "replicaset.golden")
	if *update {
		ok(t, os.MkdirAll("testdata", 0o755))
		ok(t, os.WriteFile(golden, []byte(text.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	ok(t, err)
	if text.String() != string(want) {
		t.Errorf("differs from %s; go test -update rewrites it:\n%s", golden, text.String())
	}
}

// names of the ReplicaSets that manifests become, by Deployment object.
func names(t *testing.T, texts ...string) map[string]string {
	t.Helper()
	set, err := reviser.Names(objectsOf(t, strings.Join(texts, "\n---\n")))
	ok(t, err)
	found := map[string]string{}
	for _, revision := range set.Revisions {
		found[revision.Workload.Name] = revision.ReplicaSet.Name
	}
	return found
}

func TestWhatARevisionIsNamedFor(t *testing.T) {
	all := append(everyConfiguration(), everything)
	before := names(t, all...)["web"]
	change := func(old, new string) []string {
		changed := slices.Clone(all)
		for i := range changed {
			changed[i] = strings.Replace(changed[i], old, new, 1)
		}
		return changed
	}
	for name, texts := range map[string][]string{
		"more pods":                             change("replicas: 3", "replicas: 4"),
		"labels of the Deployment object":       change("team: blue", "team: green"),
		"minReadySeconds":                       change("minReadySeconds: 5", "minReadySeconds: 6"),
		"a ConfigMap that no pod reads":         change("name: unread, namespace: shop}\ndata: {a: b}", "name: unread, namespace: shop}\ndata: {a: c}"),
		"labels of a ConfigMap":                 change("name: key-map, namespace: shop}", "name: key-map, namespace: shop, labels: {chart: web-2}}"),
		"what signs in to the image registry":   change("stringData: {a: b}", "stringData: {a: c}"),
		"the order of the manifests":            append([]string{everything}, everyConfiguration()...),
		"another order of fields, other blanks": change("containers:\n      - name: web\n        image: example.com/web:1", "containers:\n      - image:   example.com/web:1\n        name: web"),
	} {
		t.Run(name+" is no new revision", func(t *testing.T) {
			if after := names(t, texts...)["web"]; after != before {
				t.Errorf("%s became %s", before, after)
			}
		})
	}
	for name, texts := range map[string][]string{
		"the image":                       change("example.com/web:1", "example.com/web:2"),
		"an annotation on pods":           change("note: kept", "note: changed"),
		"envFrom a ConfigMap":             change("data: {a: from}", "data: {a: other}"),
		"envFrom a Secret":                change("stringData: {a: from}", "stringData: {a: other}"),
		"a variable from a ConfigMap":     change("data: {a: key}", "data: {a: other}"),
		"a variable from a Secret":        change("stringData: {a: key}", "stringData: {a: other}"),
		"a volume of a ConfigMap":         change("data: {a: volume}", "data: {a: other}"),
		"a volume of a Secret":            change("stringData: {a: volume}", "stringData: {a: other}"),
		"a projected ConfigMap":           change("data: {a: projected}", "data: {a: other}"),
		"a projected Secret":              change("stringData: {a: projected}", "stringData: {a: other}"),
		"configuration that comes newly":  append(slices.Clone(all), configuration("ConfigMap", "not-in-these-manifests", "data: {a: b}")),
		"configuration of another folder": change("name: volume-map, namespace: shop", "name: volume-map, namespace: elsewhere"),
	} {
		t.Run(name+" is a new revision", func(t *testing.T) {
			if after := names(t, texts...)["web"]; after == before {
				t.Errorf("it is still %s", before)
			}
		})
	}
}

func TestNamesDependOnNothingElse(t *testing.T) {
	all := objectsOf(t, strings.Join(append(everyConfiguration(), everything), "\n---\n"))
	other := shop
	other.Deployment, other.Number, other.Target, other.Application = "d-8", 8, "staging", "Other"
	one, err := reviser.Revise(shop, all)
	ok(t, err)
	two, err := reviser.Revise(other, all)
	ok(t, err)
	set, err := reviser.Names(all)
	ok(t, err)
	first, second, third := named(t, one), named(t, two), revisionNames(t, set)
	if first != second || first != third {
		t.Errorf("names differ:\n%s\n%s\n%s", first, second, third)
	}
	if again, _ := reviser.Revise(shop, all); encoded(t, again) != encoded(t, one) {
		t.Error("the same input gives something else the second time")
	}
	strange, err := cluster.Reviser{Key: []byte("another key")}.Names(all)
	ok(t, err)
	if revisionNames(t, strange) == third {
		t.Error("names tell what the configuration holds: they do not depend on the key")
	}
}

// named is the ReplicaSets of revisions as they would be made.
func named(t *testing.T, r cluster.Revised) string {
	t.Helper()
	var keys []manifest.Key
	for _, revision := range r.Revisions {
		keys = append(keys, revision.ReplicaSet.Key)
	}
	return encoded(t, keys)
}

// revisionNames is the ReplicaSets that a set names.
func revisionNames(t *testing.T, set rollout.Set) string {
	t.Helper()
	var keys []manifest.Key
	for _, revision := range set.Revisions {
		keys = append(keys, revision.ReplicaSet)
	}
	return encoded(t, keys)
}

func encoded(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	ok(t, err)
	return string(text)
}

func TestDeploymentObjectsWithEqualPodsStayApart(t *testing.T) {
	found := names(t, everything, strings.Replace(everything, "name: web\n  namespace", "name: web2\n  namespace", 1))
	if strings.TrimPrefix(found["web"], "web-") == strings.TrimPrefix(found["web2"], "web2-") {
		t.Errorf("selectors that differ by the hash alone would overlap: %v", found)
	}
	long := strings.Repeat("a-very-long-name-", 14)
	found = names(t, strings.Replace(everything, "name: web\n", "name: "+long+"1\n", 1), strings.Replace(everything, "name: web\n", "name: "+long+"2\n", 1))
	if a, b := found[long+"1"], found[long+"2"]; a == b || len(a) > 63 || len(b) > 63 || strings.Contains(a, "--") {
		t.Errorf("%q and %q", a, b)
	}
}

func TestASecretIsAppliedAsData(t *testing.T) {
	revised, err := reviser.Revise(shop, objectsOf(t, configuration("Secret", "login", "data: {kept: eA==, replaced: eA==}\nstringData: {password: open sesame, replaced: z}")))
	ok(t, err)
	fields := revised.Plain[0].Map()
	data := fields["data"].(map[string]any)
	want := base64.StdEncoding.EncodeToString([]byte("open sesame"))
	if _, found := fields["stringData"]; found || data["password"] != want || data["kept"] != "eA==" || data["replaced"] != "eg==" {
		t.Errorf("%v", fields)
	}
}

func TestWhatCannotBeCarriedYetIsRefused(t *testing.T) {
	autoscaled := func(apiVersion, kind, aim string) string {
		return "apiVersion: " + apiVersion + "\nkind: " + kind + "\nmetadata: {name: web, namespace: shop}\nspec: {" + aim + "}"
	}
	for name, c := range map[string]struct{ text, says string }{
		"KEDA":                 {autoscaled("keda.sh/v1alpha1", "ScaledObject", "scaleTargetRef: {name: web}"), "app.yaml:2: not yet supported: ScaledObject.keda.sh shop/web, which is aimed at the Deployment object web"},
		"a vertical one":       {autoscaled("autoscaling.k8s.io/v1", "VerticalPodAutoscaler", "targetRef: {kind: Deployment, name: web}"), "not yet supported: VerticalPodAutoscaler"},
		"a paused object":      {strings.Replace(everything, "replicas: 3", "paused: true", 1), "app.yaml:2: not yet supported: Deployment.apps shop/web, which is paused"},
		"an API of the past":   {strings.Replace(everything, "apps/v1", "apps/v1beta1", 1), "apiVersion apps/v1beta1 is no longer served by Kubernetes; write apps/v1"},
		"no pod template":      {"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\nspec: {replicas: 1}", "app.yaml:2: Deployment.apps shop/web: spec.selector and spec.template are required"},
		"a count that is none": {strings.Replace(everything, "replicas: 3", "replicas: three", 1), "app.yaml:2: Deployment.apps shop/web: spec.replicas: three is no count"},
		"a count below zero":   {strings.Replace(everything, "replicas: 3", "replicas: -1", 1), "spec.replicas: -1 is no count"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := reviser.Revise(shop, objectsOf(t, configuration("ConfigMap", "first", "data: {}")+"\n---\n"+c.text))
			if err == nil {
				t.Fatal("no error")
			}
			contains(t, err.Error(), c.says)
		})
	}
}

func TestAutoscalersOfDeploymentObjectsOfTheManifestsAreKnown(t *testing.T) {
	scaler := func(apiVersion, name, kind, at string) string {
		return "apiVersion: " + apiVersion + "\nkind: HorizontalPodAutoscaler\nmetadata: {name: " + name + ", namespace: shop}\nspec: {scaleTargetRef: {kind: " + kind + ", name: " + at + "}}"
	}
	web := "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\nspec: {selector: {}, template: {}}"
	objects := objectsOf(t, strings.Join([]string{web, scaler("autoscaling/v2", "two", "Deployment", "web"), scaler("autoscaling/v1", "one", "Deployment", "web"),
		scaler("autoscaling/v2", "db", "StatefulSet", "web"), scaler("autoscaling/v2", "elsewhere", "Deployment", "other")}, "\n---\n"))
	_, err := reviser.Revise(shop, objects)
	ok(t, err)
	set, err := reviser.Names(objects)
	ok(t, err)
	var names []string
	for _, s := range set.Scalers {
		if names = append(names, s.Key.Name); s.Workload != objects[0].Key {
			t.Errorf("%s scales %s", s.Key, s.Workload)
		}
	}
	if strings.Join(names, " ") != "two one" {
		t.Errorf("known are %v", names)
	}
	set, err = reviser.Names(objectsOf(t, strings.Replace(web, "kind: Deployment", "kind: StatefulSet", 1)+"\n---\n"+scaler("autoscaling/v2", "db", "StatefulSet", "web")))
	ok(t, err)
	if len(set.Scalers) != 1 || set.Scalers[0].Workload.Kind != "StatefulSet" {
		t.Errorf("of a StatefulSet known are %v", set.Scalers)
	}
}

func FuzzRevise(f *testing.F) {
	f.Add([]byte(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"replicas":1,"selector":{},"template":{"spec":{"containers":[{"env":[null,{"name":1}],"envFrom":[{"configMapRef":{"name":"a"}}]}]}}}}`),
		[]byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"a":"b"}}`))
	f.Add([]byte(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"w","labels":7},"spec":{"selector":{"matchLabels":[]},"template":{"metadata":"x","spec":[]}}}`), []byte(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"},"stringData":[]}`))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		var all []manifest.Object
		for _, text := range [][]byte{one, two} {
			if o, err := manifest.New(text, "fuzz"); err == nil {
				all = append(all, o)
			}
		}
		first, err := reviser.Revise(shop, all)
		set, nameErr := reviser.Names(all)
		if err != nil {
			return
		}
		if nameErr != nil {
			t.Fatalf("it can be revised but not named: %v", nameErr)
		}
		if named(t, first) != revisionNames(t, set) {
			t.Errorf("%+v is named %+v", first, set)
		}
	})
}

func BenchmarkRevise(b *testing.B) {
	var all []manifest.Object
	for _, text := range append(everyConfiguration(), everything) {
		encoded, err := yaml.YAMLToJSON([]byte(text))
		ok(b, err)
		o, err := manifest.New(encoded, "app.yaml")
		ok(b, err)
		all = append(all, o)
	}
	b.Run("Revise", func(b *testing.B) {
		for b.Loop() {
			if _, err := reviser.Revise(shop, all); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Names", func(b *testing.B) {
		for b.Loop() {
			if _, err := reviser.Names(all); err != nil {
				b.Fatal(err)
			}
		}
	})
}
