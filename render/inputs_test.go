package render_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"towpath/gitsource"
	"towpath/render"
)

// repository is a tree of a real repository: with links, submodules and modes.
func repository(t *testing.T, f files, change func(dir string, git func(args ...string))) *gitsource.Tree {
	t.Helper()
	dir := t.TempDir()
	git := func(args ...string) {
		t.Helper()
		command := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"}, args...)...)
		command.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	git("init", "-q", "-b", "main")
	for name, text := range f {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	git("add", "-A")
	if change != nil {
		change(dir, git)
	}
	git("commit", "-q", "-m", "all")
	mirror, err := gitsource.Open(gitsource.Config{Dir: filepath.Join(t.TempDir(), "mirror"), URL: dir, Branch: "main"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mirror.Close() })
	head, err := mirror.Fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tree, err := mirror.Tree(head.Commit)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func link(t *testing.T, dir, name, target string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func TestLinksAndSubmodulesOfARepository(t *testing.T) {
	t.Parallel()
	pool := newPool(t, render.Limits{})
	base := files{"app/real/a.yaml": settings("a", "1"), "other/b.yaml": settings("b", "1"), "app/k/kustomization.yaml": "resources: [linked]\n", "other/kustomization.yaml": "resources: [b.yaml]\n",
		"app/c/Chart.yaml": "apiVersion: v2\nname: c\nversion: 1.0.0\n", "app/c/templates/c.yaml": settings("c", "1")}
	links := func(at, target string) func(string, func(...string)) {
		return func(dir string, git func(...string)) {
			link(t, dir, at, target)
			git("add", "-A")
		}
	}
	submodule := func(at string) func(string, func(...string)) {
		return func(_ string, git func(...string)) {
			git("update-index", "--add", "--cacheinfo", "160000,"+strings.Repeat("1", 40)+","+at)
		}
	}
	for name, c := range map[string]struct {
		change func(string, func(...string))
		entry  string
		names  string
		said   string
		mend   files // with these in place of the link or submodule, the trace is no longer fresh
	}{
		"a link to a file":               {links("app/l.yaml", "real/a.yaml"), "path: l.yaml", "ConfigMap ns/a", "", files{"app/l.yaml": settings("a", "1")}},
		"a link to a folder":             {links("app/l", "../other"), "path: l/b.yaml", "ConfigMap ns/b", "", files{"app/l/b.yaml": settings("b", "1")}},
		"a base that is a link":          {links("app/k/linked", "../../other"), "kustomize: {path: k}", "ConfigMap ns/b", "", files{"app/k/linked/kustomization.yaml": "resources: []\n"}},
		"a link to an absolute path":     {links("app/l.yaml", "/etc/passwd"), "path: l.yaml", "", "app/l.yaml is a symbolic link to /etc/passwd; links must be relative and stay in the repository", files{"app/l.yaml": settings("a", "1")}},
		"a link out of the repository":   {links("app/l.yaml", "../../x.yaml"), "path: l.yaml", "", "app/l.yaml leads out of the repository", files{"app/l.yaml": settings("a", "1")}},
		"a link to itself":               {links("app/l.yaml", "l.yaml"), "path: l.yaml", "", "app/l.yaml: more than 40 symbolic links", files{"app/l.yaml": settings("a", "1")}},
		"a link to what is not there":    {links("app/l.yaml", "gone.yaml"), "path: l.yaml", "", "is in the repository", files{"app/gone.yaml": settings("a", "1")}},
		"a submodule":                    {submodule("app/sub"), "path: sub", "", "app/sub is a submodule; submodules are not rendered, so put the files into this repository", files{"app/sub/a.yaml": settings("a", "1")}},
		"a kustomization in a submodule": {submodule("app/sub"), "kustomize: {path: sub}", "", "app/sub is a submodule", files{"app/sub/kustomization.yaml": "resources: []\n"}},
		"a submodule in a listed folder": {submodule("app/real/sub"), "path: real", "", "app/real/sub is a submodule", files{"app/real/sub/a.yaml": settings("b", "1")}},
		"a submodule that looks a file":  {submodule("app/real/b.yaml"), "path: real", "", "app/real/b.yaml is a submodule", files{"app/real/b.yaml": settings("b", "1")}},
		"a submodule in a chart":         {submodule("app/c/charts/sub"), "helm: {path: c}", "", "app/c/charts/sub is a submodule", files{"app/c/charts/sub/Chart.yaml": "apiVersion: v2\nname: sub\nversion: 1.0.0\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tree := repository(t, base, c.change)
			result, err := pool.Render(t.Context(), render.Request{Tree: tree, File: asked(t, c.entry), Target: "prod"})
			if err != nil {
				t.Fatal(err)
			}
			if strings.Join(names(result), " ") != c.names || !strings.Contains(said(result), c.said) || c.said == "" && said(result) != "" {
				t.Errorf("got %v and %s", names(result), said(result))
			}
			if !result.Trace.Fresh(tree) {
				t.Error("the trace is not fresh in its own tree")
			}
			mended := base.with(c.mend)
			var change func(string, func(...string))
			if name == "a link to what is not there" {
				change = c.change
			}
			if result.Trace.Fresh(repository(t, mended, change)) {
				t.Error("the trace is still fresh when something else stands there")
			}
		})
	}
}

func TestAttributesThatHaveNoEffectAreWarnedOf(t *testing.T) {
	t.Parallel()
	pool := newPool(t, render.Limits{})
	f := files{"app/m/a.yaml": settings("a", "1"), ".gitattributes": "*.yaml eol=crlf\nvendor/ -diff\n*.bin filter=lfs\n[attr]x ident\n", "app/.gitattributes": "m/* ident working-tree-encoding=UTF-16\n"}
	r := run(t, pool, f, "path: m")
	var want []string
	for _, what := range []string{"eol=crlf", "ident", "working-tree-encoding=UTF-16"} {
		want = append(want, "warning: .gitattributes gives app/m/a.yaml "+what+", which has no effect here: files are read as Git keeps them")
	}
	got := strings.Split(said(r), "\n")
	slices.Sort(got)
	if r.Failed() || !slices.Equal(got, want) || len(r.Objects) != 1 {
		t.Errorf("%v\nwant\n%v", got, want)
	}
	if r := run(t, pool, f.with(files{"app/m/.gitattributes": "a.yaml eol=lf -ident -working-tree-encoding\n"}), "path: m"); said(r) != "" {
		t.Errorf("taken back nearer to the file: %s", said(r))
	}
}

func TestCapabilitiesOfTheClusterAreAnInputOfChartsAlone(t *testing.T) {
	t.Parallel()
	pool := newPool(t, render.Limits{})
	asks := chart.with(files{"app/chart/templates/c.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {kube: {{ .Capabilities.KubeVersion.Version }}, thing: {{ .Capabilities.APIVersions.Has \"example.com/v1/Thing\" | quote }}}\n"})
	older := render.Capabilities{Version: "v1.33.2", APIs: []string{"v1", "apps/v1"}}
	newer := render.Capabilities{Version: "v1.36.0", APIs: []string{"example.com/v1/Thing", "v1"}}
	index := render.NewIndex[string]()
	at := func(cluster render.Capabilities, entry string) render.Result {
		t.Helper()
		r, err := pool.Render(t.Context(), render.Request{Tree: asks.with(files{"app/m.yaml": settings("m", "1")}).tree(t), File: asked(t, entry), Target: "prod", Cluster: cluster})
		if err != nil || r.Failed() {
			t.Fatal(err, said(r))
		}
		return r
	}
	for cluster, want := range map[*render.Capabilities]string{&older: `"data":{"kube":"v1.33.2","thing":"false"}`, &newer: `"data":{"kube":"v1.36.0","thing":"true"}`} {
		r := at(*cluster, "helm: {path: chart}")
		if !strings.Contains(string(r.Objects[len(r.Objects)-1].JSON), want) && !strings.Contains(string(r.Objects[1].JSON), want) {
			t.Errorf("no object holds %s", want)
		}
	}
	index.Put("chart", at(older, "helm: {path: chart}").Trace)
	index.Put("plain", at(older, "path: m.yaml").Trace)
	stale := func(now render.Capabilities) []string {
		return index.Stale(func(account string) render.Capabilities {
			if account != "prod" {
				t.Errorf("asked for account %q", account)
			}
			return now
		})
	}
	if got := stale(render.Capabilities{Version: older.Version, APIs: []string{"apps/v1", "v1"}}); len(got) > 0 {
		t.Errorf("the same cluster, its APIs in another order: %v is stale", got)
	}
	if got := stale(newer); !slices.Equal(got, []string{"chart"}) {
		t.Errorf("another cluster: %v is stale, want the chart alone", got)
	}
	index.Put("chart", at(newer, "helm: {path: chart}").Trace)
	if got := stale(newer); len(got) > 0 {
		t.Errorf("rendered anew: %v is stale", got)
	}
}

func TestTheVersionOfATraceNamesTheLibrariesThatRender(t *testing.T) {
	t.Parallel()
	r := run(t, newPool(t, render.Limits{}), files{"app/m.yaml": settings("a", "1")}, "path: m.yaml")
	text, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for module, name := range map[string]string{"sigs.k8s.io/kustomize/api": "kustomize", "helm.sh/helm/v3": "helm", "github.com/Masterminds/sprig/v3": "sprig"} {
		_, after, found := strings.Cut(string(text), "\t"+module+" ")
		version, _, _ := strings.Cut(strings.ReplaceAll(after, "\n", " "), " ")
		if !found || !strings.Contains(r.Trace.Version+" ", " "+name+" "+version+" ") {
			t.Errorf("%s is at %s, and traces are of version %q: raise what render.go says, so that all is rendered anew", module, version, r.Trace.Version)
		}
	}
	old := r.Trace
	old.Version = "1"
	index := render.NewIndex[string]()
	index.Put("old", old)
	if got := index.Stale(func(string) render.Capabilities { return render.Capabilities{} }); !slices.Equal(got, []string{"old"}) {
		t.Errorf("stale: %v", got)
	}
}

// book is what a store keeps.
type book struct {
	mu   sync.Mutex
	kept map[string][]byte
}

func (b *book) Keep(_ context.Context, name string, content []byte) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.kept == nil {
		b.kept = map[string][]byte{}
	}
	if b.kept[name] == nil {
		b.kept[name] = content
	}
	return b.kept[name], nil
}

func TestTheFirstResultOfAnUnstableTemplateStays(t *testing.T) {
	t.Parallel()
	kept := &book{}
	open := func() *render.Pool {
		pool := render.NewPool(render.Config{Program: []string{os.Args[0], "render-worker"}, Workers: 1, Firsts: kept})
		t.Cleanup(func() { pool.Close() })
		return pool
	}
	f := chart.with(files{
		"app/chart/templates/r.yaml":     "apiVersion: v1\nkind: Secret\nmetadata: {name: r}\nstringData: {p: {{ randAlphaNum 12 }}, kube: {{ .Capabilities.KubeVersion.Version }}}\n",
		"app/chart/templates/named.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: n-{{ randAlphaNum 8 | lower }}}\n",
		"app/unread.yaml":                "a: b\n",
	})
	pool := open()
	digest := func(f files, entry, tenant string, cluster render.Capabilities) string {
		t.Helper()
		r, err := pool.Render(t.Context(), render.Request{Tree: f.tree(t), File: asked(t, entry), Target: "prod", Tenant: tenant, Cluster: cluster})
		if err != nil || r.Failed() || len(r.Objects) == 0 {
			t.Fatal(err, said(r))
		}
		return r.Digest
	}
	const entry = "{helm: {path: chart}, allowUnstable: true}"
	none := render.Capabilities{}
	first := digest(f, entry, "main", none)
	edited := f.with(files{"app/chart/values.yaml": "value: edited\n"})
	second := digest(edited, entry, "main", none)
	pool = open() // as after a restart
	for name, c := range map[string]struct {
		got  string
		want string
		same bool
	}{
		"the same again":                 {digest(f, entry, "main", none), first, true},
		"the edited one again":           {digest(edited, entry, "main", none), second, true},
		"an edited input":                {second, first, false},
		"a file that is not read":        {digest(f.with(files{"app/unread.yaml": "c: d\n"}), entry, "main", none), first, true},
		"a value in the deployment file": {digest(f, "{helm: {path: chart, values: {value: own}}, allowUnstable: true}", "main", none), first, false},
		"another tenant":                 {digest(f, entry, "other", none), first, false},
	} {
		if (c.got == c.want) != c.same {
			t.Errorf("%s: %s, the first was %s", name, c.got, c.want)
		}
	}
	// The chart's other object says which Kubernetes it was made for; without it, a patch of the cluster changes no password.
	quiet := f.with(files{"app/chart/templates/c.yaml": ""})
	for name := range quiet {
		if strings.HasPrefix(name, "app/chart/templates/") && name != "app/chart/templates/r.yaml" && name != "app/chart/templates/named.yaml" {
			delete(quiet, name)
		}
	}
	before := digest(quiet, entry, "main", render.Capabilities{Version: "v1.36.0"})
	if after := digest(quiet, entry, "main", render.Capabilities{Version: "v1.36.1"}); after != before {
		t.Error("another patch of Kubernetes made another password")
	}
	if after := digest(f, entry, "main", render.Capabilities{Version: "v1.36.1"}); after == first {
		t.Error("an object that says another version of Kubernetes was not made anew")
	}
}
