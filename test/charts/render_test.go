package charts

import (
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"towpath/agent/edge"
	"towpath/cmd/towpath-controller/config"
	"towpath/internal/testkit/pages"
	"towpath/internal/testkit/rendertools"
)

// What is rendered for varied values is reviewed like code. Keys and certificates, which are others each time, are left out.
func TestRendersAreAsReviewed(t *testing.T) {
	for _, name := range names {
		for _, file := range valuesFiles(t, name) {
			t.Run(name+"/"+filepath.Base(file), func(t *testing.T) {
				objects := render(t, name, values(t, file), false)
				text := shown(objects)
				golden := strings.TrimSuffix(file, ".yaml") + ".golden"
				if *update {
					write(t, golden, []byte(text))
				}
				if string(read(t, golden)) != text {
					t.Errorf("the render is not %s; run: go test ./test/charts -update, and look at what changed", golden)
				}
				isRead(t, objects)
			})
		}
	}
}

// valuesFiles are the values of testdata for a chart.
func valuesFiles(t *testing.T, name string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", name, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no values for %s: %v", name, err)
	}
	return files
}

func values(t *testing.T, file string) map[string]any {
	t.Helper()
	found, err := chartutil.ReadValuesFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// render is what a chart becomes, by template, or what is wrong with its values.
func render(t *testing.T, name string, values map[string]any, upgrade bool) map[string]string {
	t.Helper()
	out, err := tryRender(t, name, values, upgrade)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func tryRender(t *testing.T, name string, values map[string]any, upgrade bool) (map[string]string, error) {
	t.Helper()
	chart, err := loader.LoadDir(filepath.Join(pages.Root(t), "charts", name))
	if err != nil {
		t.Fatal(err)
	}
	capabilities := chartutil.DefaultCapabilities.Copy()
	capabilities.KubeVersion = chartutil.KubeVersion{Version: "v1.37.2", Major: "1", Minor: "37"}
	all, err := chartutil.ToRenderValues(chart, values, chartutil.ReleaseOptions{Name: name, Namespace: "delivery", Revision: 1, IsInstall: !upgrade, IsUpgrade: upgrade}, capabilities)
	if err != nil {
		return nil, err
	}
	return engine.Render(chart, all)
}

var different = regexp.MustCompile(`(?m)^(  (?:ca\.crt|ca\.key|tls\.crt|tls\.key|keys): ).+$`)

// shown is a render as a golden has it: template after template, the notes last.
func shown(objects map[string]string) string {
	var out strings.Builder
	for _, template := range slices.SortedFunc(maps.Keys(objects), func(a, b string) int {
		notes := func(name string) int { return strings.Count(name, "NOTES.txt") }
		return 2*(notes(a)-notes(b)) + strings.Compare(a, b)
	}) {
		if text := strings.TrimSpace(objects[template]); text != "" && !strings.HasSuffix(template, ".tpl") {
			fmt.Fprintf(&out, "--- # %s\n%s\n", filepath.Base(template), text)
		}
	}
	return different.ReplaceAllString(out.String(), "${1}MADE")
}

// isRead holds the configuration that a render has against the program that will read it.
func isRead(t *testing.T, objects map[string]string) {
	t.Helper()
	read := 0
	for _, o := range parse(t, objects) {
		if o.GetKind() != "ConfigMap" {
			continue
		}
		data, _, _ := unstructured.NestedStringMap(o.Object, "data")
		if text, found := data["towpath.yaml"]; found {
			read++
			if _, err := config.Parse("towpath.yaml", []byte(text)); err != nil {
				t.Errorf("the controller refuses its configuration: %v", err)
			}
		}
		if text, found := data["agent.yaml"]; found {
			read++
			file := filepath.Join(t.TempDir(), "agent.yaml")
			write(t, file, []byte(text))
			if err := new(edge.Config).Read(file); err != nil {
				t.Errorf("the agent refuses its configuration: %v", err)
			}
		}
	}
	if read != 1 {
		t.Errorf("%d configurations were rendered", read)
	}
}

// parse is the objects of a render.
func parse(t *testing.T, objects map[string]string) (all []*unstructured.Unstructured) {
	t.Helper()
	for template, text := range objects {
		if filepath.Ext(template) != ".yaml" {
			continue
		}
		for _, part := range regexp.MustCompile(`(?m)^---$`).Split(text, -1) {
			o := &unstructured.Unstructured{}
			if err := yaml.UnmarshalStrict([]byte(part), &o.Object); err != nil {
				t.Fatalf("%s: %v\n%s", template, err, part)
			}
			if len(o.Object) > 0 {
				all = append(all, o)
			}
		}
	}
	return all
}

// No pod of ours may do more on its node than it has to, whatever else is said.
func TestPodsAskForNothingOfTheirNode(t *testing.T) {
	for _, name := range names {
		for _, file := range valuesFiles(t, name) {
			for _, o := range parse(t, render(t, name, values(t, file), false)) {
				if o.GetKind() != "Deployment" {
					continue
				}
				pod, _, _ := unstructured.NestedMap(o.Object, "spec", "template", "spec")
				want := map[string]any{"runAsNonRoot": true, "runAsUser": int64(65532), "seccompProfile": map[string]any{"type": "RuntimeDefault"}}
				for field, value := range want {
					if got, _, _ := unstructured.NestedFieldNoCopy(pod, "securityContext", field); fmt.Sprint(got) != fmt.Sprint(value) {
						t.Errorf("%s: %s is %v, want %v", file, field, got, value)
					}
				}
				containers, _, _ := unstructured.NestedSlice(pod, "containers")
				for _, c := range containers {
					context, _, _ := unstructured.NestedMap(c.(map[string]any), "securityContext")
					if context["readOnlyRootFilesystem"] != true || context["allowPrivilegeEscalation"] != false || fmt.Sprint(context["capabilities"]) != "map[drop:[ALL]]" {
						t.Errorf("%s: the container may %v", file, context)
					}
				}
			}
		}
	}
}

func TestHelmFindsNothingWrongWithTheCharts(t *testing.T) {
	helm := rendertools.Build(t).Helm
	for _, name := range names {
		for _, file := range valuesFiles(t, name) {
			out, err := exec.CommandContext(t.Context(), helm, "lint", "--strict", "--kube-version", "1.37", "--values", file, filepath.Join(pages.Root(t), "charts", name)).CombinedOutput()
			if err != nil {
				t.Errorf("%s: %v\n%s", file, err, out)
			}
		}
	}
}

func TestWrongValuesAreRefusedWithWhatWouldBeRight(t *testing.T) {
	for _, c := range []struct {
		name, chart, values, want string
	}{
		{"no image", "towpath", `image: {repository: ""}`, "image.repository: name the image that `make images REGISTRY=…` pushed"},
		{"an unknown value", "towpath", `replicas: 2`, "additional properties 'replicas' not allowed"},
		{"an unknown key of the configuration", "towpath", `config: {source: []}`, "additional properties 'source' not allowed"},
		{"what the chart fills in", "towpath", `config: {listen: ":80"}`, "additional properties 'listen' not allowed"},
		{"a type that is none", "towpath", `service: {type: External}`, "value must be one of 'ClusterIP', 'LoadBalancer', 'NodePort'"},
		{"several controllers on SQLite", "towpath", `replicaCount: 2`, "replicaCount: several controllers share a PostgreSQL database; name the Secret with its address in database.existingSecret"},
		{"several controllers on one volume", "towpath", `{replicaCount: 2, database: {existingSecret: db}}`, "set persistence.enabled: false"},
		{"TLS elsewhere, of nothing", "towpath", `{config: {externalURL: "http://towpath"}, tls: {terminated: true}}`, "config.externalURL does not begin with https://"},
		{"names of a certificate that is there", "towpath", `tls: {existingSecret: mine, hosts: [a]}`, "tls.hosts: the certificate of tls.existingSecret is for the names that it is for"},
		{"routes of no Gateway", "towpath", `gateway: {enabled: true}`, "gateway.parentRefs: name the Gateway that the routes belong to"},
		{"an Ingress of no host", "towpath", `ingress: {enabled: true}`, "ingress.hosts: name the host, and the paths that it serves"},
		{"a hub of no host", "towpath", `ingress: {enabled: true, hosts: [{host: a, paths: [/]}], hub: {enabled: true}}`, "ingress.hub.host: name the host under which agents reach the hub"},
		{"a proxy of no address", "towpath", `proxy: {enabled: true}`, "proxy.url: name the proxy"},
		{"metrics under a certificate that nobody knows", "towpath", `{tls: {existingSecret: mine}, serviceMonitor: {enabled: true}}`, "serviceMonitor.tlsConfig: say which authority signed"},

		{"no credential", "towpath-agent", `clientSecret: ""`, "clientSecret: refer to the credential that `towpath agent create` printed, as in encrypted:k8s!n:SECRET!k:KEY"},
		{"a secret in plain", "towpath-agent", `clientSecret: hunter2`, "clientSecret: a secret does not stand among values; put it into a Secret"},
		{"half a reference", "towpath-agent", `clientSecret: encrypted:k8s!n:secret`, "clientSecret: a Secret is referred to as encrypted:k8s!n:SECRET!k:KEY"},
		{"another manager of secrets", "towpath-agent", `clientSecret: "encrypted:vault!e:secret!p:towpath!k:secret"`, "the agent has no access to vault; let its operator or CSI driver write a Secret or a file"},
		{"a variable that is not there", "towpath-agent", `clientSecret: "{{ env.SECRET }}"`, "clientSecret: podEnvironmentVariables has no SECRET that is taken from a Secret"},
		{"a variable in plain", "towpath-agent", `{clientSecret: "${SECRET}", podEnvironmentVariables: [{name: SECRET, value: hunter2}]}`, "clientSecret: podEnvironmentVariables has no SECRET that is taken from a Secret"},
		{"no hub", "towpath-agent", `hub: {address: ""}`, "hub.address: name the controller's hub as `towpath agent create` prints it, HOST:PORT"},
		{"no issuer", "towpath-agent", `identity: {issuer: ""}`, "identity.issuer: name the issuer as `towpath agent create` prints it"},
		{"no name", "towpath-agent", `clientId: agent-7`, "agentIdentifier: name the agent for which the credential was made, or put the name into the Secret, as key agent"},
		{"namespaces of a mere relay", "towpath-agent", `kubernetes: {enableClusterAccountMode: false, namespaces: [shop]}`, "without a ServiceAccount there is nothing to give namespaces"},
		{"a level that is none", "towpath-agent", `log: {level: loud}`, "value must be one of 'error', 'warn', 'info', 'debug'"},
		{"a rule that is none", "towpath-agent", `kubernetes: {clusterRoleRules: [{apiGroup: "", verbs: [get]}]}`, "additional properties 'apiGroup' not allowed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := values(t, filepath.Join("testdata", c.chart, "default.yaml"))
			var wrong map[string]any
			if err := yaml.Unmarshal([]byte(c.values), &wrong); err != nil {
				t.Fatal(err)
			}
			_, err := tryRender(t, c.chart, chartutil.CoalesceTables(wrong, all), false)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("want %q\nhave %v", c.want, err)
			}
		})
	}
}

// A key that is made anew would leave everything that is stored sealed.
func TestAnUpgradeMakesNoNewKey(t *testing.T) {
	_, err := tryRender(t, "towpath", values(t, "testdata/towpath/default.yaml"), true)
	if err == nil || !strings.Contains(err.Error(), "the Secret towpath-keys with the keys that opened what is stored is gone: restore it from your copy") {
		t.Errorf("%v", err)
	}
}
