package render_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"towpath/deployment"
	"towpath/gitsource"
	"towpath/manifest"
	"towpath/render"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "render-worker" {
		if err := render.Worker(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func newPool(t testing.TB, limits render.Limits) *render.Pool {
	t.Helper()
	pool := render.NewPool(render.Config{Program: []string{os.Args[0], "render-worker"}, Workers: 1, Limits: limits})
	t.Cleanup(func() { pool.Close() })
	return pool
}

type files map[string]string

func (f files) with(more files) files {
	out := maps.Clone(f)
	maps.Copy(out, more)
	return out
}

func (f files) tree(t testing.TB) *gitsource.Tree {
	t.Helper()
	content := map[string][]byte{}
	for name, text := range f {
		content[name] = []byte(text)
	}
	tree, err := gitsource.NewTree(content, gitsource.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// asked is a deployment file at app/towpath.yaml that deploys one entry of manifests to a target in namespace ns.
func asked(t testing.TB, entry string) *deployment.File {
	t.Helper()
	f, problems := deployment.Parse("app/towpath.yaml", []byte("application: My App\ncontext: {who: world}\ntargets: {prod: {account: prod, namespace: ns}}\nmanifests:\n  - "+entry+"\n"))
	if f == nil {
		t.Fatal(problems)
	}
	return f
}

func run(t testing.TB, pool *render.Pool, f files, entry string) render.Result {
	t.Helper()
	result, err := pool.Render(t.Context(), render.Request{Tree: f.tree(t), File: asked(t, entry), Target: "prod"})
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func said(r render.Result) string {
	var lines []string
	for _, p := range r.Problems {
		lines = append(lines, string(p.Severity)+": "+p.Text)
	}
	return strings.Join(lines, "\n")
}

func names(r render.Result) []string {
	var all []string
	for _, o := range r.Objects {
		all = append(all, o.Key.String())
	}
	return all
}

func settings(name, value string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\ndata: {value: \"" + value + "\"}\n"
}

var chart = files{
	"app/chart/Chart.yaml":             "apiVersion: v2\nname: web\nversion: 1.0.0\n",
	"app/chart/values.yaml":            "value: default\nsub: {enabled: true}\n",
	"app/chart/templates/config.yaml":  "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}}\ndata: {value: {{ .Values.value | quote }}, kube: {{ .Capabilities.KubeVersion.Version }}}\n",
	"app/chart/templates/NOTES.txt":    "thank you",
	"app/chart/templates/test.yaml":    "apiVersion: v1\nkind: Pod\nmetadata: {name: t, annotations: {helm.sh/hook: test}}\n",
	"app/chart/crds/crd.yaml":          "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: things.example.com}\nspec: {group: example.com, scope: Cluster, names: {kind: Thing}}\n",
	"app/chart/templates/_helpers.tpl": "{{ define \"x\" }}{{ end }}",
}

func TestEachKindOfSourceIsRendered(t *testing.T) {
	t.Parallel()
	pool := newPool(t, render.Limits{})
	kustomization := files{"app/base/kustomization.yaml": "resources: [c.yaml]\n", "app/base/c.yaml": settings("c", "base"),
		"app/over/kustomization.yaml": "resources: [../base]\nnamePrefix: p-\nconfigMapGenerator: [{name: g, literals: [a=b]}]\npatches: [{path: patch.yaml}]\n",
		"app/over/patch.yaml":         settings("c", "patched")}
	for name, c := range map[string]struct {
		files files
		entry string
		want  []string
		holds string // in the text of any object
	}{
		"a file of several documents": {files{"app/m.yaml": settings("a", "1") + "---\n# nothing\n---\n" + settings("b", "2")}, "path: m.yaml", []string{"ConfigMap ns/a", "ConfigMap ns/b"}, ""},
		"a folder and all below it":   {files{"app/m/a.yaml": settings("a", "1"), "app/m/x/b.yml": settings("b", "2"), "app/m/README.md": "# no"}, "path: m", []string{"ConfigMap ns/a", "ConfigMap ns/b"}, ""},
		"from the repository's root":  {files{"m/a.yaml": settings("a", "1")}, "path: m", []string{"ConfigMap ns/a"}, ""},
		"a leading slash":             {files{"m/a.yaml": settings("a", "1")}, "path: /m/a.yaml", []string{"ConfigMap ns/a"}, ""},
		"above the file":              {files{"m/a.yaml": settings("a", "1")}, "path: ../m/a.yaml", []string{"ConfigMap ns/a"}, ""},
		"inline with variables":       {files{"x": ""}, `inline: '{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {v: "{{context.who}} {{armory.environmentName}} {{ .other }}"}}'`, []string{"ConfigMap ns/a"}, `"v":"world prod {{ .other }}"`},
		"a list":                      {files{"app/m.yaml": "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: a}}\n"}, "path: m.yaml", []string{"Secret ns/a"}, ""},
		"cluster-wide objects":        {files{"app/m.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, namespace: x}\n"}, "path: m.yaml", []string{"Namespace a"}, ""},
		"a kustomization":             {kustomization, "kustomize: {path: over}", []string{"ConfigMap ns/p-c", "ConfigMap ns/p-g-4h2mbtbbt6"}, `"value":"patched"`},
		"a folder that is one":        {kustomization, "path: over", []string{"ConfigMap ns/p-c", "ConfigMap ns/p-g-4h2mbtbbt6"}, ""},
		"a chart":                     {chart, "helm: {path: chart}", []string{"CustomResourceDefinition.apiextensions.k8s.io things.example.com", "ConfigMap ns/my-app"}, `"value":"default"`},
		"values over value files":     {chart.with(files{"app/v.yaml": "value: file\n"}), "helm: {path: chart, valueFiles: [v.yaml], values: {value: own}, includeCRDs: false}", []string{"ConfigMap ns/my-app"}, `"value":"own"`},
		"a version of Kubernetes":     {chart, "helm: {path: chart, kubeVersion: v1.31.0}", []string{"CustomResourceDefinition.apiextensions.k8s.io things.example.com", "ConfigMap ns/my-app"}, `"kube":"v1.31.0"`},
		"a default not of years ago":  {chart, "helm: {path: chart}", []string{"CustomResourceDefinition.apiextensions.k8s.io things.example.com", "ConfigMap ns/my-app"}, `"kube":"v1.34.0"`},
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t, pool, c.files, c.entry)
			got := names(r)
			slices.Sort(got)
			slices.Sort(c.want)
			if len(r.Problems) > 0 || !slices.Equal(got, c.want) {
				t.Fatalf("got %v, want %v\n%s", got, c.want, said(r))
			}
			if !slices.ContainsFunc(r.Objects, func(o manifest.Object) bool { return strings.Contains(string(o.JSON), c.holds) }) {
				t.Errorf("no object holds %s: %s", c.holds, r.Objects[len(r.Objects)-1].JSON)
			}
		})
	}
	if pool.Started() != 1 {
		t.Errorf("%d processes were started for good renders, want 1", pool.Started())
	}
}

func TestWhatCannotBeRenderedSaysWhereAndWhy(t *testing.T) {
	t.Parallel()
	pool := newPool(t, render.Limits{})
	kustomize := func(text string) files {
		return files{"app/k/kustomization.yaml": text, "app/k/c.yaml": settings("c", "1")}
	}
	bomb := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nx0: &x0 [1,2,3,4,5,6,7,8,9,0]\n"
	for i := 1; i < 8; i++ {
		bomb += fmt.Sprintf("x%d: &x%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*x%d,", i-1), 10), ","))
	}
	for name, c := range map[string]struct {
		files files
		entry string
		want  string
	}{
		"a path that is nowhere":        {files{"x": ""}, "path: m", "neither app/m (beside the deployment file) nor m (from the repository's root) is in the repository"},
		"a path that leads out":         {files{"x": ""}, "path: ../../m", "../../m leads out of the repository"},
		"no object":                     {files{"app/m.yaml": "kind: x\n"}, "path: m.yaml", "app/m.yaml:1: not a Kubernetes object: apiVersion is missing"},
		"broken YAML":                   {files{"app/m.yaml": "a: [\n"}, "path: m.yaml", "app/m.yaml:1: not valid YAML"},
		"an object twice":               {files{"app/m.yaml": settings("a", "1") + "---\n" + settings("a", "2")}, "path: m.yaml", "ConfigMap ns/a is there twice: app/m.yaml:1 and app/m.yaml:6"},
		"a Git LFS pointer":             {files{"app/m.yaml": "version https://git-lfs.github.com/spec/v1\noid x\n"}, "path: m.yaml", "app/m.yaml is a Git LFS pointer"},
		"an alias bomb":                 {files{"app/m.yaml": bomb}, "path: m.yaml", "app/m.yaml:1: more than 100000 values once aliases are followed"},
		"an alias bomb in a resource":   {kustomize("resources: [b.yaml]\n").with(files{"app/k/b.yaml": bomb}), "kustomize: {path: k}", "app/k/b.yaml: more than 100000 values"},
		"a remote base":                 {kustomize("resources: ['https://github.com/acme/base?ref=main']\n"), "kustomize: {path: k}", "remote bases and files are not fetched, so copy it into the repository"},
		"a remote base of another form": {kustomize("resources: ['git@github.com:acme/base.git']\n"), "kustomize: {path: k}", "remote bases and files are not fetched"},
		"a remote file of a generator":  {kustomize("configMapGenerator: [{name: a, files: ['x=https://example.com/x']}]\n"), "kustomize: {path: k}", "remote bases and files are not fetched"},
		"a base on the machine's disk":  {kustomize("resources: [/etc]\n"), "kustomize: {path: k}", `"/etc" is no relative path`},
		"a remote base of other case":   {kustomize("Resources: ['https://github.com/acme/base?ref=main']\n"), "kustomize: {path: k}", "remote bases and files are not fetched"},
		"a path of two lines":           {kustomize("resources: [\"https://github.com/acme/base\\n\"]\n"), "kustomize: {path: k}", "remote bases and files are not fetched"},
		"helmCharts":                    {kustomize("helmCharts: [{name: x}]\n"), "kustomize: {path: k}", "helmCharts is not supported; name the chart under manifests as helm: instead"},
		"two kustomizations":            {kustomize("resources: []\n").with(files{"app/k/kustomization.yml": ""}), "kustomize: {path: k}", "only one of them may be there"},

		"a dependency that is absent": {chart.with(files{"app/chart/Chart.yaml": "apiVersion: v2\nname: web\nversion: 1.0.0\ndependencies: [{name: sub, version: 1.0.0, repository: https://x}]\n"}), "helm: {path: chart}", "its dependencies sub are not in its charts directory"},
		"a schema that is not met":    {chart.with(files{"app/chart/values.schema.json": `{"properties": {"value": {"type": "integer"}}}`}), "helm: {path: chart}", "values do not meet the schema of web"},
		"a schema that reads a file":  {chart.with(files{"app/chart/values.schema.json": `{"$ref": "file:///etc/passwd"}`}), "helm: {path: chart}", "nothing outside the schema is read"},
		"a schema that calls out":     {chart.with(files{"app/chart/values.schema.json": `{"$ref": "http://127.0.0.1:1/x"}`}), "helm: {path: chart}", "nothing outside the schema is read"},
		"an older Kubernetes":         {chart.with(files{"app/chart/Chart.yaml": "apiVersion: v2\nname: web\nversion: 1.0.0\nkubeVersion: '>=1.99'\n"}), "helm: {path: chart}", "wants Kubernetes >=1.99"},
		"a random value":              {chart.with(files{"app/chart/templates/r.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: r}\nstringData: {p: {{ randAlphaNum 12 }}}\n"}), "helm: {path: chart}", "web/templates/r.yaml uses randAlphaNum, whose result is another one at each render (seen at Secret r)"},
		"a lookup":                    {chart.with(files{"app/chart/templates/r.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: r}\nstringData: {p: x{{ len (lookup \"v1\" \"Secret\" \"a\" \"b\") }}}\n"}), "helm: {path: chart}", "uses lookup"},
		"a chart that is elsewhere":   {files{"x": ""}, "helm: {chart: web, repository: https://charts.example.com, version: 1.0.0}", "nothing may be fetched here"},
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t, pool, c.files, c.entry)
			if !r.Failed() || !strings.Contains(said(r), c.want) || len(r.Objects) > 0 {
				t.Errorf("got %d objects and\n%s\nwant %s", len(r.Objects), said(r), c.want)
			}
		})
	}
	if r := run(t, pool, chart.with(files{"app/chart/templates/r.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: r}\nstringData: {p: {{ randAlphaNum 12 }}}\n"}), "{helm: {path: chart}, allowUnstable: true}"); r.Failed() ||
		!strings.Contains(said(r), "warning: ") || !strings.Contains(said(r), "the first result is kept until an input changes") {
		t.Errorf("with allowUnstable: %s", said(r))
	}
}

func TestAKustomizationWithAnOpenAPISchemaPoisonsNoOther(t *testing.T) {
	t.Parallel()
	pool := newPool(t, render.Limits{})
	// Without the key that their items are merged by, a patch's containers take the place of all that are there.
	schema := `{"definitions": {"Deployment": {"type": "object", "x-kubernetes-group-version-kind": [{"group": "apps", "version": "v1", "kind": "Deployment"}], "properties": {"spec": {"type": "object",
		"properties": {"template": {"type": "object", "properties": {"spec": {"type": "object", "properties": {"containers": {"type": "array", "items": {"type": "object"}}}}}}}}}}}}`
	plain := files{"app/k/kustomization.yaml": "resources: [d.yaml]\npatches: [{path: p.yaml}]\n",
		"app/k/d.yaml": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {template: {spec: {containers: [{name: a, image: x}, {name: b, image: y}]}}}\n",
		"app/k/p.yaml": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {template: {spec: {containers: [{name: a, image: z}]}}}\n"}
	before := run(t, pool, plain, "kustomize: {path: k}")
	for _, key := range []string{"openapi", "OpenAPI", "OPENAPI"} {
		poison := plain.with(files{"app/k/kustomization.yaml": "resources: [d.yaml]\npatches: [{path: p.yaml}]\n" + key + ": {path: s.json}\n", "app/k/s.json": schema})
		poisoned := run(t, pool, poison, "kustomize: {path: k}")
		after := run(t, pool, plain, "kustomize: {path: k}")
		if before.Failed() || poisoned.Failed() || poisoned.Digest == before.Digest || after.Digest != before.Digest {
			t.Errorf("%s: before %s %s, with the schema %s %s, after %s %s", key, before.Digest, said(before), poisoned.Digest, said(poisoned), after.Digest, said(after))
		}
	}
}

func TestTheSameChartTwiceComesOutTheSame(t *testing.T) {
	t.Parallel()
	pool := newPool(t, render.Limits{})
	withSub := chart.with(files{"app/chart/Chart.yaml": "apiVersion: v2\nname: web\nversion: 1.0.0\ndependencies: [{name: sub, version: 1.0.0, condition: sub.enabled}]\n",
		"app/chart/charts/sub/Chart.yaml": "apiVersion: v2\nname: sub\nversion: 1.0.0\n", "app/chart/charts/sub/templates/s.yaml": settings("sub", "1")})
	on := run(t, pool, withSub, "helm: {path: chart}")
	off := run(t, pool, withSub, "helm: {path: chart, values: {sub: {enabled: false}}}")
	again := run(t, pool, withSub, "helm: {path: chart}")
	if on.Digest != again.Digest || on.Digest == off.Digest || len(on.Objects) != len(off.Objects)+1 {
		t.Errorf("on %v, off %v, again %v\n%s", names(on), names(off), names(again), said(on))
	}
}

func TestATraceSaysWhatMayChangeARender(t *testing.T) {
	t.Parallel()
	pool := newPool(t, render.Limits{})
	f := chart.with(files{"app/v.yaml": "value: file\n", "app/unread.yaml": "a: b\n", "app/over/kustomization.yaml": "resources: [m]\n", "app/over/m/kustomization.yaml": "resources: [a.yaml]\n",
		"app/over/m/a.yaml": settings("a", "1"), "app/dir/a.yaml": settings("a", "1")})
	for name, c := range map[string]struct {
		entry  string
		change files
		path   string
		fresh  bool
	}{
		"a values file that is read":         {"helm: {path: chart, valueFiles: [v.yaml]}", files{"app/v.yaml": "value: new\n"}, "app/v.yaml", false},
		"a values file that is not":          {"helm: {path: chart}", files{"app/v.yaml": "value: new\n"}, "app/v.yaml", true},
		"a sibling nobody reads":             {"kustomize: {path: over}", files{"app/over/README.md": "x"}, "app/over/README.md", true},
		"a name that was looked up in vain":  {"kustomize: {path: over}", files{"app/over/kustomization.yml": "x: 1"}, "app/over/kustomization.yml", false},
		"a file in a folder that was listed": {"path: dir", files{"app/dir/b.yaml": settings("b", "1")}, "app/dir/b.yaml", false},
		"a file in a base":                   {"kustomize: {path: over}", files{"app/over/m/a.yaml": settings("a", "2")}, "app/over/m/a.yaml", false},
		"a template":                         {"helm: {path: chart}", files{"app/chart/templates/new.yaml": settings("n", "1")}, "app/chart/templates/new.yaml", false},
		"what .helmignore would name":        {"helm: {path: chart}", files{"app/chart/.helmignore": "x"}, "app/chart/.helmignore", false},
		"a folder beside the file's own":     {"path: dir", files{"dir/a.yaml": settings("a", "1")}, "dir/a.yaml", false},
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t, pool, f, c.entry)
			if r.Failed() {
				t.Fatal(said(r))
			}
			index := render.NewIndex[string]()
			index.Put("it", r.Trace)
			trace, err := render.ParseTrace(r.Trace.Text())
			if err != nil {
				t.Fatal(err)
			}
			changed := f.with(c.change).tree(t)
			if got := trace.Fresh(changed); got != c.fresh {
				t.Errorf("fresh: %v, want %v", got, c.fresh)
			}
			if dirty := index.Dirty(changed, []string{c.path}); (len(dirty) == 0) != c.fresh {
				t.Errorf("dirty: %v, want fresh %v", dirty, c.fresh)
			}
		})
	}
}

func TestWhatIsReadBesideAChartThatCannotBeHadIsInTheTrace(t *testing.T) {
	t.Parallel()
	f := chart.with(files{"app/m.yaml": settings("a", "1"), "app/v.yaml": "a: b\n", "app/k/kustomization.yaml": "resources: [k.yaml]\n", "app/k/k.yaml": settings("k", "1")})
	r := run(t, newPool(t, render.Limits{}), f, `helm: {chart: web, repository: "https://charts.example.com", version: 1.2.3, valueFiles: [v.yaml]}
  - path: m.yaml
  - kustomize: {path: k}`)
	read := r.Trace.Files()
	slices.Sort(read)
	if want := []string{"app/k/k.yaml", "app/k/kustomization.yaml", "app/m.yaml", "app/v.yaml"}; !slices.Equal(read, want) {
		t.Errorf("read %v, want %v", read, want)
	}
	if want := "error: chart web 1.2.3: it is not in the Git repository, and nothing may be fetched here"; said(r) != want || r.Problems[0].Line != 5 {
		t.Errorf("said %q in line %d, want %q", said(r), r.Problems[0].Line, want)
	}
	if r.Trace.Fresh(f.tree(t)) {
		t.Error("it would not be tried again")
	}
}

// web is what stands at addresses, and is asked under the pins that it has seen.
type web struct {
	texts map[string]string
	mu    sync.Mutex
	pins  []string
}

func (w *web) Chart(context.Context, string, string, string, string) ([]byte, string, error) {
	return nil, "", errors.New("there are no charts here")
}

func (w *web) File(_ context.Context, _, pin, address string) ([]byte, string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pins = append(w.pins, pin)
	text, found := w.texts[address]
	if !found {
		return nil, "", errors.New("nothing is there")
	}
	return []byte(text), "sha256:of " + text, nil
}

func TestManifestsComeFromAddresses(t *testing.T) {
	t.Parallel()
	site := &web{texts: map[string]string{
		"https://example.com/two.yaml?key=hidden": settings("one", "1") + "---\n" + settings("two", "2"),
		"https://example.com/bad.yaml?key=hidden": "a: [",
		"https://example.com/world.yaml":          settings("world", "1"),
	}}
	pool := render.NewPool(render.Config{Program: []string{os.Args[0], "render-worker"}, Workers: 1, Fetcher: site})
	t.Cleanup(func() { pool.Close() })
	tree := files{"app/m.yaml": settings("three", "3")}.tree(t)
	made := func(entry string) render.Result {
		t.Helper()
		r, err := pool.Render(t.Context(), render.Request{Tree: tree, File: asked(t, entry), Target: "prod", Pin: "a pin"})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := made("path: https://example.com/two.yaml?key=hidden\n  - path: https://example.com/two.yaml?key=hidden\n    targets: [other]\n  - path: m.yaml\n  - path: 'https://example.com/{{context.who}}.yaml'")
	if got := names(r); r.Failed() || !slices.Equal(got, []string{"ConfigMap ns/one", "ConfigMap ns/two", "ConfigMap ns/three", "ConfigMap ns/world"}) {
		t.Fatalf("%v\n%s", got, said(r))
	}
	if got := r.Objects[1].Source; got != "https://example.com/two.yaml:6" {
		t.Errorf("it is said to be from %s", got)
	}
	if trace := string(r.Trace.Text()); !strings.Contains(trace, `"https://example.com/two.yaml","h":"sha256:of `) || strings.Contains(trace, "hidden") || !r.Trace.Fresh(tree) {
		t.Errorf("the trace is %s", trace)
	}
	if !slices.Equal(site.pins, []string{"a pin", "a pin"}) {
		t.Errorf("asked under %q", site.pins)
	}
	for entry, want := range map[string]string{
		"path: HTTPS://example.com/none.yaml":           "HTTPS://example.com/none.yaml: nothing is there",
		"path: https://me:hidden@example.com/none.yaml": "https://example.com/none.yaml: nothing is there",
		"path: https://example.com/bad.yaml?key=hidden": "https://example.com/bad.yaml:1: not valid YAML",
	} {
		r := made(entry)
		if text := said(r); !r.Failed() || !strings.Contains(text, want) || strings.Contains(text, "hidden") {
			t.Errorf("%s: %s", entry, text)
		}
	}
	if r := made("path: https://example.com/none.yaml\n  - path: m.yaml"); r.Trace.Fresh(tree) || !slices.Equal(r.Trace.Files(), []string{"app/m.yaml"}) {
		t.Errorf("what could not be fetched is not tried again, or hides what else is read: %s", r.Trace.Text())
	}
	many := "path: https://example.com/world.yaml"
	for i := range 32 {
		many += fmt.Sprintf("\n  - path: https://example.com/%d.yaml", i)
	}
	site.pins = nil
	if r := made(many); !strings.Contains(said(r), "https://example.com/31.yaml: a target has at most 32 files from addresses") || len(site.pins) != 32 {
		t.Errorf("%d were asked for: %s", len(site.pins), said(r))
	}
}

func TestAHundredRendersTakeOneProcess(t *testing.T) {
	t.Parallel()
	pool := newPool(t, render.Limits{})
	for i := range 100 {
		if r := run(t, pool, files{"app/m.yaml": settings("a", strconv.Itoa(i))}, "path: m.yaml"); r.Failed() {
			t.Fatal(said(r))
		}
	}
	if pool.Started() != 1 {
		t.Errorf("%d processes were started", pool.Started())
	}
}

func TestAWorkerHasNoSurroundings(t *testing.T) {
	t.Setenv("TOWPATH_TEST_SECRET", "x")
	script := filepath.Join(t.TempDir(), "worker")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n[ -z \"$TOWPATH_TEST_SECRET$HOME\" ] || exit 7\nexec "+os.Args[0]+" render-worker\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	pool := render.NewPool(render.Config{Program: []string{script}, Workers: 1})
	defer pool.Close()
	if r := run(t, pool, files{"app/m.yaml": settings("a", "1")}, "path: m.yaml"); r.Failed() {
		t.Errorf("the worker saw the environment: %s", said(r))
	}
}

func TestACancelledRenderIsNoResult(t *testing.T) {
	t.Parallel()
	pool := newPool(t, render.Limits{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := pool.Render(ctx, render.Request{Tree: files{"x": ""}.tree(t), File: asked(t, "path: m"), Target: "prod"}); err == nil {
		t.Error("a cancelled render came to a result")
	}
}

func BenchmarkRender(b *testing.B) {
	kinds := map[string]struct {
		files files
		entry string
	}{
		"plain":     {files{"app/m.yaml": settings("a", "1")}, "path: m.yaml"},
		"kustomize": {files{"app/k/kustomization.yaml": "resources: [c.yaml]\nnamePrefix: p-\n", "app/k/c.yaml": settings("c", "1")}, "kustomize: {path: k}"},
		"helm":      {chart, "helm: {path: chart}"},
	}
	for name, c := range kinds {
		b.Run(name, func(b *testing.B) {
			pool := newPool(b, render.Limits{})
			tree, file := c.files.tree(b), asked(b, c.entry)
			for b.Loop() {
				if _, err := pool.Render(b.Context(), render.Request{Tree: tree, File: file, Target: "prod"}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
