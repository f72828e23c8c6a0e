package render_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"towpath/render"
)

// workers are the processes that this one started and that still run.
func workers(t *testing.T) []string {
	t.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // a thread that ended
		}
		all = append(all, strings.Fields(string(text))...)
	}
	return all
}

// resident is this process's memory in bytes, as the kernel counts it.
func resident(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// Not parallel: what it counts, memory and processes, is that of all tests that run.
func TestAHostileChartDiesWithItsProcessAndTheNextRenderSucceeds(t *testing.T) {
	// With the race detector a process needs several times what it needs without.
	for name, limits := range map[string]render.Limits{
		"a loop":               {Time: 4 * time.Second, Memory: 1 << 30},
		"an allocation":        {Time: time.Minute, Memory: 1 << 30}, // how long memory takes to come is the machine's affair
		"an endless recursion": {Time: time.Minute, Memory: 1 << 30},
		"an endless output":    {Time: 4 * time.Second, Memory: 1 << 30},
	} {
		t.Run(name, func(t *testing.T) { diesAlone(t, limits, hostileTemplates[name].template, hostileTemplates[name].want) })
	}
}

// hostileTemplates never come to an end by themselves, or would at a cost.
var hostileTemplates = map[string]struct{ template, want string }{
	"a loop":               {"{{ range $i := until 10000 }}{{ range $j := until 100000 }}{{ end }}{{ end }}", "it took more than 4s; a template that loops"},
	"an allocation":        {`{{ $x := repeat 900000000 "a" }}{{ $y := repeat 3 $x }}{{ len $y }}`, "it took more than 1024 MiB of memory"},
	"an endless recursion": {`{{ define "r" }}{{ include "r" . }}{{ end }}{{ include "r" . }}`, "nested reference name"},
	"an endless output":    {`{{ range until 10000 }}{{ range until 10000 }}aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa{{ end }}{{ end }}`, "it took more than"},
}

// diesAlone renders a hostile template between two good renders.
func diesAlone(t *testing.T, limits render.Limits, template, want string) {
	t.Helper()
	pool := newPool(t, limits)
	good := func() {
		t.Helper()
		if r := run(t, pool, chart, "helm: {path: chart}"); r.Failed() {
			t.Fatal(said(r))
		}
	}
	good()
	before := resident(t)
	had := workers(t)
	if len(had) != 1 {
		t.Fatalf("%d processes", len(had))
	}
	bad := chart.with(files{"app/chart/templates/bad.yaml": template})
	r := run(t, pool, bad, "helm: {path: chart}")
	if !r.Failed() || !strings.Contains(said(r), want) {
		t.Errorf("%s, want %s", said(r), want)
	}
	if killed := strings.Contains(want, "it took"); killed == slices.Contains(workers(t), had[0]) {
		t.Errorf("process %s is still there: %v", had[0], !killed)
	}
	if r.Trace.Retry || !r.Trace.Fresh(bad.tree(t)) {
		t.Error("it would be rendered again although nothing changed")
	}
	good()
	if grown := resident(t) - before; grown > 50<<20 {
		t.Errorf("this process grew by %d MiB", grown>>20)
	}
}

func TestOneFileWhoseRendersHangDelaysNoOther(t *testing.T) {
	t.Parallel()
	pool := render.NewPool(render.Config{Program: []string{os.Args[0], "render-worker"}, Workers: 2})
	defer pool.Close()
	ctx, cancel := context.WithCancel(t.Context())
	hangs := chart.with(files{"app/chart/templates/bad.yaml": "{{ range $i := until 10000 }}{{ range $j := until 1000000 }}{{ end }}{{ end }}"}).tree(t)
	var hanging sync.WaitGroup
	var ended atomic.Int32
	begun := make(chan struct{}, 8)
	for range cap(begun) {
		bad := asked(t, "helm: {path: chart}")
		hanging.Go(func() {
			begun <- struct{}{}
			if _, err := pool.Render(ctx, render.Request{Tree: hangs, File: bad, Target: "prod"}); !errors.Is(err, context.Canceled) {
				ended.Add(1)
			}
		})
	}
	for range cap(begun) {
		<-begun
	}
	other := asked(t, "helm: {path: chart}")
	other.Path = "app/other.yaml"
	for range 3 {
		if r, err := pool.Render(t.Context(), render.Request{Tree: chart.tree(t), File: other, Target: "prod"}); err != nil || r.Failed() {
			t.Fatal(err, said(r))
		}
	}
	if n := ended.Load(); n == int32(cap(begun)) {
		t.Errorf("all %d renders that hang had to end first", n)
	}
	cancel()
	hanging.Wait()
}

func TestNothingIsFetchedWhileRendering(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	site := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		fmt.Fprintln(out, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: fetched}")
	}))
	defer site.Close()
	pool := newPool(t, render.Limits{})
	url := site.URL + "/x.yaml"
	generator := "apiVersion: builtin\nkind: ConfigMapGenerator\nmetadata: {name: a}\nfiles: ['x=" + url + "']\n"
	const before, network = "remote bases and files are not fetched", "nothing is fetched while rendering"
	for name, c := range map[string]struct {
		text  string
		files files
		want  string
	}{
		"resources":                            {"resources: [URL]", nil, before},
		"Resources, in another letter case":    {"Resources: [URL]", nil, before},
		"bases":                                {"bases: [URL]", nil, before},
		"files of a Generator":                 {"configmapgenerator: [{name: a, Files: ['x=URL']}]", nil, before},
		"components":                           {"components: [URL]", nil, before},
		"crds":                                 {"crds: [URL]", nil, before},
		"configurations":                       {"configurations: [URL]", nil, before},
		"generators":                           {"generators: [URL]", nil, before},
		"transformers":                         {"transformers: [URL]", nil, before},
		"validators":                           {"validators: [URL]", nil, before},
		"patchesStrategicMerge":                {"patchesStrategicMerge: [URL]", nil, before},
		"patches":                              {"patches: [{path: URL}]", nil, before},
		"patchesJson6902":                      {"patchesJson6902: [{path: URL, target: {kind: X}}]", nil, before},
		"replacements":                         {"replacements: [{path: URL}]", nil, before},
		"openapi":                              {"openapi: {path: URL}", nil, before},
		"files of a generator":                 {"configMapGenerator: [{name: a, files: ['x=URL']}]", nil, before},
		"envs of a generator":                  {"secretGenerator: [{name: a, envs: ['URL']}]", nil, before},
		"env of a generator":                   {"secretGenerator: [{name: a, env: 'URL'}]", nil, before},
		"a Git repository":                     {"resources: ['git::" + url + "']", nil, before},
		"a file address":                       {"resources: ['file:///etc']", nil, before},
		"a short name of a repository":         {"resources: [github.com/acme/base]", nil, before},
		"a base that is below a base":          {"resources: [b]", files{"app/k/b/kustomization.yaml": "resources: ['" + url + "']\n"}, before},
		"a generator that is written in place": {"generators:\n- |-\n  " + strings.ReplaceAll(strings.TrimSpace(generator), "\n", "\n  "), nil, network},
		"a generator in a file":                {"generators: [g.yaml]", files{"app/k/g.yaml": generator}, network},
		"a generator that a folder makes":      {"generators: [g]", files{"app/k/g/kustomization.yaml": "resources: [g.yaml]\n", "app/k/g/g.yaml": generator}, network},
	} {
		t.Run(name, func(t *testing.T) {
			f := files{"app/k/kustomization.yaml": strings.ReplaceAll(c.text, "URL", url) + "\n"}.with(c.files)
			if r := run(t, pool, f, "kustomize: {path: k}"); !r.Failed() || !strings.Contains(said(r), c.want) {
				t.Errorf("%s\nwant %s", said(r), c.want)
			}
		})
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("%d requests went out", n)
	}
}

// nested is a directory so many levels below another.
func nested(dir string, levels int) string { return dir + strings.Repeat("/d", levels) }

// bases are kustomizations each of which has the level below twice, under two prefixes.
func bases(levels int) files {
	f := files{"app/k0/kustomization.yaml": "resources: [c.yaml]\n", "app/k0/c.yaml": settings("c", "1")}
	for i := range levels {
		below := fmt.Sprintf("k%d", i)
		for _, half := range []string{"a", "b"} {
			f[fmt.Sprintf("app/k%d%s/kustomization.yaml", i+1, half)] = fmt.Sprintf("resources: [../%s]\nnamePrefix: %s-\n", below, half)
		}
		f[fmt.Sprintf("app/k%d/kustomization.yaml", i+1)] = fmt.Sprintf("resources: [../k%da, ../k%db]\n", i+1, i+1)
	}
	return f
}

func TestARenderBeyondALimitSaysWhichAndWithinItIsDone(t *testing.T) {
	t.Parallel()
	three := files{"app/m/a.yaml": settings("a", "1"), "app/m/b.yaml": settings("b", "1"), "app/m/c.yaml": settings("c", "1")}
	size := int64(len(settings("a", "1")))
	deep := func(levels int) files { return files{nested("app/m", levels) + "/a.yaml": settings("a", "1")} }
	chain := files{"app/k0/kustomization.yaml": "resources: [c.yaml]\n", "app/k0/c.yaml": settings("c", "1")}
	for i := range 4 {
		chain[fmt.Sprintf("app/k%d/kustomization.yaml", i+1)] = fmt.Sprintf("resources: [../k%d]\n", i)
	}
	object := int64(len(`{"apiVersion":"v1","data":{"value":"1"},"kind":"ConfigMap","metadata":{"name":"a","namespace":"ns"}}`))
	for name, c := range map[string]struct {
		files          files
		entry          string
		within, beyond render.Limits
		want           string
	}{
		"bytes of a file":        {three, "path: m/a.yaml", render.Limits{FileBytes: size}, render.Limits{FileBytes: size - 1}, fmt.Sprintf("app/m/a.yaml has %d bytes; at most %d are read", size, size-1)},
		"files":                  {three, "path: m", render.Limits{Files: 3}, render.Limits{Files: 2}, "more than 2 files are read"},
		"bytes of all files":     {three, "path: m", render.Limits{Bytes: 3 * size}, render.Limits{Bytes: 3*size - 1}, fmt.Sprintf("more than %d bytes are read", 3*size-1)},
		"objects":                {three, "path: m", render.Limits{Objects: 3}, render.Limits{Objects: 2}, "3 objects; at most 2 are deployed at once"},
		"bytes of the objects":   {three, "path: m", render.Limits{OutputBytes: 3 * object}, render.Limits{OutputBytes: 3*object - 1}, fmt.Sprintf("the objects have %d bytes; at most %d are deployed at once", 3*object, 3*object-1)},
		"depth of folders":       {deep(3), "path: m", render.Limits{Depth: 3}, render.Limits{Depth: 2}, "app/m/d/d/d: directories more than 2 deep"},
		"depth of a chart":       {chart.with(files{nested("app/chart/files", 2) + "/x": ""}), "helm: {path: chart}", render.Limits{Depth: 3}, render.Limits{Depth: 2}, "chart app/chart: directories more than 2 deep"},
		"depth of bases":         {chain, "kustomize: {path: k4}", render.Limits{Depth: 4}, render.Limits{Depth: 3}, "app/k0: kustomizations more than 3 deep"},
		"kustomizations":         {chain, "kustomize: {path: k4}", render.Limits{Files: 100}, render.Limits{Files: 4}, "more than 4 "},
		"bases that double":      {bases(8), "kustomize: {path: k2}", render.Limits{Files: 100}, render.Limits{}, ""},
		"values that are a bomb": {files{"app/m.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nx: &x [1, 2, 3]\ny: [*x, *x]\n"}, "path: m.yaml", render.Limits{Nodes: 30}, render.Limits{Nodes: 20}, "more than 20 values once aliases are followed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if r := run(t, newPool(t, c.within), c.files, c.entry); r.Failed() {
				t.Errorf("within the limit: %s", said(r))
			}
			entry := c.entry
			if c.want == "" { // the same kustomizations from the top: 256 leaves of them
				entry, c.beyond, c.want = "kustomize: {path: k8}", c.within, "more than 100 files are read"
			}
			if r := run(t, newPool(t, c.beyond), c.files, entry); !r.Failed() || !strings.Contains(said(r), c.want) || len(r.Objects) > 0 {
				t.Errorf("beyond it: %d objects, %s\nwant %s", len(r.Objects), said(r), c.want)
			}
		})
	}
}

func TestAProcessIsReplacedAfterItsShareOfRenders(t *testing.T) {
	t.Parallel()
	pool := newPool(t, render.Limits{RendersPerRun: 2})
	for range 5 {
		if r := run(t, pool, files{"app/m.yaml": settings("a", "1")}, "path: m.yaml"); r.Failed() {
			t.Fatal(said(r))
		}
	}
	if pool.Started() != 3 {
		t.Errorf("%d processes for 5 renders, two each", pool.Started())
	}
}

func TestDocumentsThatAliasesMakeTooLargeAreRefusedWhereverTheyStand(t *testing.T) {
	t.Parallel()
	pool := newPool(t, render.Limits{})
	bomb := "x0: &x0 [1,2,3,4,5,6,7,8,9,0]\n"
	for i := 1; i < 8; i++ {
		bomb += fmt.Sprintf("x%d: &x%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*x%d,", i-1), 10), ","))
	}
	object := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n" + bomb
	resource := files{"app/k/r.yaml": settings("a", "1")}
	indented := "  " + strings.ReplaceAll(strings.TrimSpace(object), "\n", "\n  ")
	const ours, helms = "more than 100000 values once aliases are followed", "document contains excessive aliasing"
	for name, c := range map[string]struct {
		files files
		entry string
		want  string
	}{
		"a kustomization":                {files{"app/k/kustomization.yaml": "resources: []\n" + bomb}, "kustomize: {path: k}", ours},
		"a resource in another case":     {files{"app/k/kustomization.yaml": "RESOURCES: [r.yaml]\n", "app/k/r.yaml": object}, "kustomize: {path: k}", ours},
		"a resource's second document":   {files{"app/k/kustomization.yaml": "resources: [r.yaml]\n", "app/k/r.yaml": settings("a", "1") + "---\n" + object}, "kustomize: {path: k}", ours},
		"a strategic merge patch":        {resource.with(files{"app/k/kustomization.yaml": "resources: [r.yaml]\npatchesStrategicMerge: [p.yaml]\n", "app/k/p.yaml": object}), "kustomize: {path: k}", ours},
		"a patch":                        {resource.with(files{"app/k/kustomization.yaml": "resources: [r.yaml]\npatches: [{path: p.yaml}]\n", "app/k/p.yaml": object}), "kustomize: {path: k}", ours},
		"a patch that is in place":       {resource.with(files{"app/k/kustomization.yaml": "resources: [r.yaml]\npatches:\n- patch: |-\n  " + strings.ReplaceAll(indented, "\n", "\n  ") + "\n"}), "kustomize: {path: k}", ours},
		"a merge patch that is in place": {resource.with(files{"app/k/kustomization.yaml": "resources: [r.yaml]\npatchesStrategicMerge:\n- |-\n" + indented + "\n"}), "kustomize: {path: k}", ours},
		"a file of values":               {chart.with(files{"app/v.yaml": bomb}), "helm: {path: chart, valueFiles: [v.yaml]}", ours},
		"a chart's values":               {chart.with(files{"app/chart/values.yaml": bomb}), "helm: {path: chart}", helms},
		"what a template prints":         {chart.with(files{"app/chart/templates/b.yaml": object}), "helm: {path: chart}", helms},
	} {
		t.Run(name, func(t *testing.T) {
			if r := run(t, pool, c.files, c.entry); !r.Failed() || !strings.Contains(said(r), c.want) {
				t.Errorf("%d objects, %s", len(r.Objects), said(r))
			}
		})
	}
}
