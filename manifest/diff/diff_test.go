package diff_test

import (
	"fmt"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"towpath/manifest"
	"towpath/manifest/diff"
)

// objects reads documents of YAML.
func objects(t *testing.T, text string) (all []manifest.Object) {
	t.Helper()
	for document := range strings.SplitSeq(text, "\n---\n") {
		if strings.TrimSpace(document) == "" {
			continue
		}
		fields := map[string]any{}
		if err := yaml.Unmarshal([]byte(document), &fields); err != nil {
			t.Fatal(err)
		}
		o, err := manifest.FromMap(fields, "test.yaml")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, o)
	}
	return all
}

const deployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop, labels: {app: web, tier: front}}
spec: {replicas: 4, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: "example.com/web:1", env: [{name: A, value: "1"}]}]}}}`

const secret = `
apiVersion: v1
kind: Secret
metadata: {name: login, namespace: shop}
stringData: {password: open sesame, user: ann}`

func TestDifferencesAreReadable(t *testing.T) {
	for name, c := range map[string]struct{ before, after, want string }{
		"nothing": {deployment, deployment, ""},
		"another order of keys, and what the cluster or kubectl wrote": {deployment, strings.Replace(deployment, "metadata: {name: web, namespace: shop, labels: {app: web, tier: front}}",
			"status: {replicas: 3}\nmetadata: {labels: {tier: front, app: web}, creationTimestamp: null, namespace: shop, annotations: {kubectl.kubernetes.io/last-applied-configuration: '{}'}, name: web}", 1), ""},
		"two parts that lie apart": {deployment, strings.NewReplacer("replicas: 4", "replicas: 6", "web:1", "web:2").Replace(deployment), `changed Deployment.apps shop/web
@@
   name: web
   namespace: shop
 spec:
-  replicas: 4
+  replicas: 6
   selector:
     matchLabels:
       app: web
@@
       - env:
         - name: A
           value: "1"
-        image: example.com/web:1
+        image: example.com/web:2
         name: web
`},
		"added and removed": {"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: old, namespace: shop}\ndata: {a: b}", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: new, namespace: shop}", `added ConfigMap shop/new
+apiVersion: v1
+kind: ConfigMap
+metadata:
+  name: new
+  namespace: shop
removed ConfigMap shop/old
-apiVersion: v1
-data:
-  a: b
-kind: ConfigMap
-metadata:
-  name: old
-  namespace: shop
`},
		"a Secret says which values differ, and no value": {secret, strings.NewReplacer("open sesame", "shut sesame", "user: ann", "user: ann, token: t").Replace(secret), `changed Secret shop/login
 apiVersion: v1
 data:
-  password: (secret)
+  password: (secret, changed)
+  token: (secret)
   user: (secret)
 kind: Secret
 metadata:
`},
		"a Secret written in another way": {secret, strings.Replace(secret, "stringData: {password: open sesame, user: ann}", "data: {password: b3BlbiBzZXNhbWU=, user: YW5u}", 1), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := ""
			for _, c := range diff.Between(objects(t, c.before), objects(t, c.after)) {
				got += fmt.Sprintf("%s %s\n%s", c.Kind, c.Key, c.Text)
			}
			if got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestALongDifferenceIsCut(t *testing.T) {
	t.Parallel()
	settings := func(lines int, value string) string {
		var text strings.Builder
		text.WriteString("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: shop}\ndata:\n")
		for i := range lines {
			fmt.Fprintf(&text, "  key-%05d: %q\n", i, value)
		}
		return text.String()
	}
	for _, lines := range []int{1000, 10_000} {
		changes := diff.Between(objects(t, settings(lines, "a")), objects(t, settings(lines, strings.Repeat("b", 400))))
		if len(changes) != 1 {
			t.Fatalf("%d changes", len(changes))
		}
		shown := strings.Count(changes[0].Text, "\n")
		if shown != 400 || shown+changes[0].Cut < 2*lines || len(changes[0].Text) > 200_000 {
			t.Errorf("of %d lines %d are shown in %d bytes, and %d are not", lines, shown, len(changes[0].Text), changes[0].Cut)
		}
	}
}
