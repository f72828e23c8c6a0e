package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"towpath/cluster"
	"towpath/cmd/towpath-controller/config"
	"towpath/deployment"
	"towpath/internal/testkit/genrepo"
	"towpath/internal/testkit/gitserver"
	"towpath/manifest"
	"towpath/policies"
	"towpath/reconcile"
	"towpath/reconcile/rollout"
	"towpath/render"
	"towpath/store"
)

// walk is a generated repository whose commits are taken in one after another, as the controller does it.
type walk struct {
	*source
	commits []string
	at      int // the commit that a fetch brings
	terms   string
	store   records
	traces  *traces
	intake  *reconcile.Intake
	program string
	renders *counted
	cluster render.Capabilities
	files   map[string]*deployment.File // by path and Git's hash
}

func (w *walk) Fetch(context.Context) (string, error) { return w.commits[w.at], nil }

// counted keeps what was rendered since it was last emptied.
type counted struct {
	renders
	mu    sync.Mutex
	made  map[renderName]rollout.RenderRecord
	spent time.Duration
}

func (c *counted) Render(ctx context.Context, r reconcile.RenderRequest) (rollout.RenderRecord, error) {
	begun := time.Now()
	record, err := c.renders.Render(ctx, r)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spent += time.Since(begun)
	c.made[renderName{r.File.Path, r.Target}] = record
	return record, err
}

// taken is what was rendered since it was last called.
func (c *counted) taken() map[renderName]rollout.RenderRecord {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() { c.made = map[renderName]rollout.RenderRecord{} }()
	return c.made
}

// records is what taking commits in needs of a store.
type records interface {
	Source(ctx context.Context, tenant, source string) (rollout.SourceState, error)
	SourceSeen(ctx context.Context, tenant, source, head string, failed error) error
	SourceProcessed(ctx context.Context, tenant, source, commit, terms string) error
	Files(ctx context.Context, tenant, source string) ([]rollout.FileState, error)
	Renders(ctx context.Context, tenant, source string) ([]rollout.RenderRecord, error)
	Record(ctx context.Context, record rollout.FileRecord) error
	Owned(ctx context.Context, tenant, source, path string) ([]string, error)
	Leave(ctx context.Context, l rollout.Leave) error
	Lanes(ctx context.Context, tenant, application string) ([]rollout.LaneState, error)
	Owner(ctx context.Context, tenant, application string) (rollout.Owner, error)
	Taken(ctx context.Context, tenant, application, account string, keys []manifest.Key) (map[manifest.Key]string, error)
	Manifests(ctx context.Context, digest string) ([]manifest.Object, error)
}

// program is the controller without the race detector, whose renders would take five times as long; what serves them has it.
func program(t testing.TB) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "towpath-controller")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", out, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as the Makefile builds it
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("the controller cannot be built: %v\n%s", err, said)
	}
	return out
}

func newWalk(t testing.TB, apps int, with records) *walk {
	t.Helper()
	bare := filepath.Join(t.TempDir(), "repo.git")
	_, err := genrepo.Write(t.Context(), bare, genrepo.Options{Apps: apps, NoHPA: true})
	must(t, err)
	return walkOf(t, bare, with)
}

// walkOf is a walk through a repository's commits.
func walkOf(t testing.TB, bare string, with records) *walk {
	t.Helper()
	list, err := exec.CommandContext(t.Context(), "git", "-C", bare, "rev-list", "--reverse", "main").Output()
	must(t, err)
	w := &walk{files: map[string]*deployment.File{}, commits: strings.Fields(string(list)), program: program(t), store: with}
	w.source, err = openSource(config.Source{Name: "repo", Tenant: "main", URL: bare, Branch: "main", Schedule: "@every 1h", Paths: []string{"**/deploy.y*ml"}}, t.TempDir(), nil, quiet())
	must(t, err)
	t.Cleanup(func() { w.source.close() })
	_, err = w.source.Fetch(t.Context())
	must(t, err)
	w.renders = &counted{renders: renders{w.pool(t), cluster.Reviser{Key: []byte("key")}, func(string, string) render.Capabilities { return w.cluster }, nil}, made: map[renderName]rollout.RenderRecord{}}
	w.open()
	return w
}

func (w *walk) pool(t testing.TB) *render.Pool {
	pool := render.NewPool(render.Config{Program: []string{w.program, renderWorker}})
	t.Cleanup(func() { pool.Close() })
	return pool
}

// open begins with what the store holds, as a start does.
func (w *walk) open() {
	w.traces = &traces{capabilities: w.renders.capabilities}
	w.intake = &reconcile.Intake{Store: w.store, Traces: w.traces, Clock: time.Now, Log: quiet(),
		Planner: &reconcile.Planner{Store: w.store, Renders: w.renders, Clock: time.Now, NewID: newID}}
}

func (w *walk) sync(t testing.TB) {
	t.Helper()
	must(t, w.intake.Sync(t.Context(), w.asSource()))
}

func (w *walk) asSource() reconcile.Source {
	return reconcile.Source{Tenant: "main", Name: "repo", Repository: w, Terms: w.terms, Reach: []policies.Reach{{Accounts: []string{"*"}, Namespaces: []string{"*"}, Kinds: []string{"*"}}}}
}

// targets lists what a commit's files say is to be rendered.
func (w *walk) targets(t testing.TB, tree fs.FS) map[renderName]*deployment.File {
	t.Helper()
	paths, err := w.Files(tree)
	must(t, err)
	all := map[renderName]*deployment.File{}
	for _, name := range paths {
		key := name + hashOf(tree, name)
		file := w.files[key]
		if file == nil {
			text, err := fs.ReadFile(tree, name)
			must(t, err)
			var problems []deployment.Problem
			if file, problems = deployment.Parse(name, text); rollout.HasErrors(problems) {
				t.Fatal(problems)
			}
			w.files[key] = file
		}
		for _, target := range file.Targets {
			all[renderName{name, target.Name}] = file
		}
	}
	return all
}

// scratch makes renders from nothing, one for each content that a render can be made of.
//
// It is exact for each commit although most commits need few renders. A render is a function of what it reads, and reads only through the parent, which
// writes each path down: a worker has nothing else. An area is a whole subtree: the application's folder, or a shared one. When all areas that a render from
// nothing reached into have the hashes that Git gave them then, a render from nothing would read the same again, and come to the same. That takes nothing
// from what is under test: not what a trace notes at a path, not when it counts as fresh, not how those that a change touches are found.
type scratch struct {
	renders renders
	known   map[renderName][]remembered
	hashes  map[string]string // of areas in the commit at hand
	made    int
}

func (s *scratch) hash(tree fs.FS, area string) string {
	hash, known := s.hashes[area]
	if !known {
		hash = hashOf(tree, area)
		s.hashes[area] = hash
	}
	return hash
}

type remembered struct {
	areas  map[string]string // area → Git's hash of it, "" when it is not there
	record rollout.RenderRecord
}

// render is the render of a target from nothing. made is one that was just made of this very tree, if any.
func (s *scratch) render(t *testing.T, tree fs.FS, file *deployment.File, name renderName, made *rollout.RenderRecord) rollout.RenderRecord {
	t.Helper()
	for _, r := range s.known[name] {
		same := true
		for area, hash := range r.areas {
			same = same && s.hash(tree, area) == hash
		}
		if same {
			return r.record
		}
	}
	if made == nil {
		record, err := s.renders.Render(t.Context(), reconcile.RenderRequest{Tree: tree, File: file, Target: name.target, Tenant: "main"})
		must(t, err)
		made = &record
		s.made++
	}
	s.known[name] = append(s.known[name], remembered{areas(t, tree, name, *made), *made})
	return *made
}

// areas are those that a render reached into, and that of its own file.
func areas(t *testing.T, tree fs.FS, name renderName, record rollout.RenderRecord) map[string]string {
	t.Helper()
	var trace struct {
		Records []struct {
			Path string `json:"p"`
		} `json:"records"`
	}
	must(t, json.Unmarshal(record.Trace, &trace))
	own := path.Dir(name.path)
	all := map[string]string{own: hashOf(tree, own)}
	for _, r := range trace.Records {
		if r.Path == own || strings.HasPrefix(r.Path, own+"/") {
			continue
		}
		parts := strings.Split(r.Path, "/")
		area := path.Join(parts[:min(2, len(parts))]...)
		all[area] = hashOf(tree, area)
	}
	return all
}

func hashOf(tree fs.FS, name string) string {
	info, err := fs.Lstat(tree, name)
	if err != nil {
		return ""
	}
	return fmt.Sprint(info.Mode(), info.Sys().(interface{ ObjectHash() string }).ObjectHash())
}

// Every commit of a history of small and of sweeping changes is taken in, and after each, every target's recorded result is that of a render from nothing.
func TestResultsOverAHistoryAreThoseOfRendersFromNothing(t *testing.T) {
	t.Parallel()
	w := newWalk(t, 200, newMemory())
	if len(w.commits) != 203 {
		t.Fatalf("%d commits", len(w.commits))
	}
	s := &scratch{renders: renders{w.pool(t), w.renders.reviser, w.renders.capabilities, nil}, known: map[renderName][]remembered{}}
	incremental, compared := 0, 0
	for w.at = range w.commits {
		w.sync(t)
		tree, err := w.Tree(w.commits[w.at])
		must(t, err)
		made := w.renders.taken()
		incremental += len(made)
		s.hashes = map[string]string{}
		for name, file := range w.targets(t, tree) {
			recorded, found := w.traces.Recorded("repo", name.path, name.target)
			var fresh *rollout.RenderRecord
			if record, just := made[name]; just {
				fresh = &record
			}
			want := s.render(t, tree, file, name, fresh)
			if compared++; !found || recorded.Manifests != want.Manifests || !slices.Equal(recorded.Problems, want.Problems) {
				t.Fatalf("commit %d, %s, target %s: recorded %s %v\nfrom nothing %s %v\n%s", w.at, name.path, name.target, recorded.Manifests, recorded.Problems, want.Manifests, want.Problems,
					differing(t, w, recorded.Manifests, want))
			}
		}
	}
	if w.at = 0; incremental > compared/20 || s.made == 0 {
		t.Errorf("%d renders for %d results, and %d from nothing: the test has not tested what it is for", incremental, compared, s.made)
	}
	t.Logf("%d results compared; %d renders by what changed, %d from nothing beside them", compared, incremental, s.made)
}

// differing names the objects of a recorded set that are not those of a render.
func differing(t *testing.T, w *walk, digest string, want rollout.RenderRecord) string {
	t.Helper()
	if digest == "" {
		return "nothing is recorded"
	}
	objects, err := w.store.Manifests(t.Context(), digest)
	must(t, err)
	text := map[string]string{}
	for _, o := range objects {
		text[o.Key.String()] = string(o.JSON)
	}
	var lines []string
	for _, o := range want.Objects {
		if text[o.Key.String()] != string(o.JSON) {
			lines = append(lines, fmt.Sprintf("%s:\n recorded %s\n wanted   %s", o.Key, text[o.Key.String()], o.JSON))
		}
	}
	return strings.Join(lines, "\n")
}

// memory keeps what is recorded of one source. Over a long history a database costs more than what is looked at here; the store has its own tests.
type memory struct {
	mu        sync.Mutex // of what follows: files of a commit are recorded side by side
	processed string
	files     map[string]rollout.FileState
	renders   map[renderName]rollout.RenderRecord
	sealed    map[string][]manifest.Object
}

func newMemory() *memory {
	return &memory{files: map[string]rollout.FileState{}, renders: map[renderName]rollout.RenderRecord{}, sealed: map[string][]manifest.Object{}}
}

func (m *memory) Source(context.Context, string, string) (rollout.SourceState, error) {
	return rollout.SourceState{Processed: m.processed}, nil
}
func (m *memory) SourceSeen(context.Context, string, string, string, error) error { return nil }
func (m *memory) SourceProcessed(_ context.Context, _, _, commit, _ string) error {
	m.processed = commit
	return nil
}
func (m *memory) Files(context.Context, string, string) ([]rollout.FileState, error) {
	return slices.Collect(maps.Values(m.files)), nil
}
func (m *memory) Renders(context.Context, string, string) ([]rollout.RenderRecord, error) {
	return slices.Collect(maps.Values(m.renders)), nil
}
func (m *memory) Record(_ context.Context, r rollout.FileRecord) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.Deleted {
		delete(m.files, r.Path)
		maps.DeleteFunc(m.renders, func(name renderName, _ rollout.RenderRecord) bool { return name.path == r.Path })
		return nil
	}
	m.files[r.Path] = rollout.FileState{Path: r.Path, Application: r.Application, Digest: r.Digest, Commit: r.Commit, Problems: r.Problems}
	for _, render := range r.Renders {
		m.sealed[render.Manifests] = render.Objects
		m.renders[renderName{r.Path, render.Target}] = render
	}
	return nil
}
func (m *memory) Owned(context.Context, string, string, string) ([]string, error)    { return nil, nil }
func (m *memory) Leave(context.Context, rollout.Leave) error                         { return nil }
func (m *memory) Lanes(context.Context, string, string) ([]rollout.LaneState, error) { return nil, nil }
func (m *memory) Owner(context.Context, string, string) (rollout.Owner, error) {
	return rollout.Owner{}, nil
}
func (m *memory) Taken(context.Context, string, string, string, []manifest.Key) (map[manifest.Key]string, error) {
	return nil, nil
}
func (m *memory) Manifests(_ context.Context, digest string) ([]manifest.Object, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sealed[digest], nil
}

func recordsOf(t testing.TB) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{URL: "sqlite:" + filepath.Join(t.TempDir(), "towpath.db"), Keys: [][]byte{[]byte("0123456789abcdef0123456789abcdef")}, Log: quiet()})
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func TestARestartRendersNothingAndAChangedClusterOnlyCharts(t *testing.T) {
	t.Parallel()
	w := newWalk(t, 12, recordsOf(t))
	w.sync(t)
	all := len(w.renders.taken())
	w.open()
	w.sync(t)
	if n := len(w.renders.taken()); n != 0 {
		t.Errorf("%d of %d renders were made again after a restart", n, all)
	}
	w.cluster = render.Capabilities{Version: "v1.36.1", APIs: []string{"v1", "apps/v1", "apps/v1/Deployment"}}
	w.sync(t)
	charts := 0
	tree, err := w.Tree(w.commits[0])
	must(t, err)
	for name, file := range w.targets(t, tree) {
		if slices.ContainsFunc(file.Manifests, func(m deployment.Manifest) bool { return m.Helm != nil && m.Applies(name.target) }) {
			charts++
		}
	}
	if n := len(w.renders.taken()); n != charts || charts == 0 || charts == all {
		t.Errorf("another cluster: %d renders, want the %d charts of %d renders", n, charts, all)
	}
	w.sync(t)
	if n := len(w.renders.taken()); n != 0 {
		t.Errorf("the same cluster again: %d renders", n)
	}
	w.terms = "others"
	w.sync(t)
	if n := len(w.renders.taken()); n != 0 {
		t.Errorf("other settings of the source: %d renders", n)
	}
}

func TestACommitRendersWhatReadsWhatItChangedAndNothingElse(t *testing.T) {
	t.Parallel()
	object := func(name string) string {
		return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\ndata: {value: \""
	}
	file := func(name, manifests string) string {
		return "application: " + name + "\ntargets: {staging: {account: staging, namespace: " + name + "}, prod: {account: prod, namespace: " + name + "}}\nmanifests: [" + manifests + "]\n"
	}
	repository := gitserver.NewRepo(t, t.TempDir(), "repo", gitserver.Files{
		"chart/deploy.yml": file("chart", `{helm: {path: chart, valueFiles: ["values/{{armory.environmentName}}.yaml"]}}`), "chart/chart/Chart.yaml": "apiVersion: v2\nname: web\nversion: 1.0.0\n",
		"chart/chart/templates/c.yaml": object("chart") + "{{ .Values.value }}\"}\n", "chart/values/staging.yaml": "value: a\n", "chart/values/prod.yaml": "value: a\n", "chart/values/other.yaml": "value: a\n",
		"kustomize/deploy.yml": file("kustomize", "{kustomize: {path: over}}"), "kustomize/over/kustomization.yaml": "resources: [../base]\n",
		"kustomize/base/kustomization.yaml": "resources: [c.yaml]\n", "kustomize/base/c.yaml": object("kustomize") + "1\"}\n",
		"values/README.md": "x", "plain/deploy.yml": file("plain", "{path: all}"), "plain/all/a.yaml": object("plain") + "1\"}\n",
	})
	w := walkOf(t, repository.Dir, newMemory())
	w.sync(t)
	if first := w.renders.taken(); len(first) != 6 {
		t.Fatalf("%d renders of the first commit: %v", len(first), first)
	}
	for _, c := range []struct {
		name   string
		change gitserver.Files
		want   string
	}{
		{"a sibling that is not read", gitserver.Files{"kustomize/over/README.md": "x", "kustomize/base/unread.yaml": object("x") + "\"}\n"}, ""},
		{"a values file that is not read", gitserver.Files{"chart/values/other.yaml": "value: b\n"}, ""},
		{"a file that no application has", gitserver.Files{"docs/README.md": "x"}, ""},
		{"what is no manifest in a folder that was listed", gitserver.Files{"plain/all/sub/README.md": "x"}, "plain prod, plain staging"},
		{"the values of one target", gitserver.Files{"chart/values/prod.yaml": "value: b\n"}, "chart prod"},
		{"values at a place that was looked at in vain", gitserver.Files{"values/staging.yaml": "value: b\n"}, "chart staging"},
		{"what is there no more", gitserver.Files{"values/staging.yaml": gitserver.Delete}, "chart staging"},
		{"a template", gitserver.Files{"chart/chart/templates/c.yaml": object("chart") + "{{ .Values.value }} \"}\n"}, "chart prod, chart staging"},
		{"what the chart's own loader would ignore files by", gitserver.Files{"chart/chart/.helmignore": "x\n"}, "chart prod, chart staging"},
		{"a base", gitserver.Files{"kustomize/base/c.yaml": object("kustomize") + "2\"}\n"}, "kustomize prod, kustomize staging"},
		{"a second kustomization, which was looked for in vain", gitserver.Files{"kustomize/base/Kustomization": "resources: []\n"}, "kustomize prod, kustomize staging"},
		{"another commit while that is broken", gitserver.Files{"docs/README.md": "y"}, ""},
		{"its end", gitserver.Files{"kustomize/base/Kustomization": gitserver.Delete}, "kustomize prod, kustomize staging"},
		{"a manifest more in a folder that was listed", gitserver.Files{"plain/all/b.yaml": object("more") + "1\"}\n"}, "plain prod, plain staging"},
		{"two applications at once", gitserver.Files{"plain/all/b.yaml": object("more") + "2\"}\n", "chart/values/staging.yaml": "value: c\n"}, "chart staging, plain prod, plain staging"},
	} {
		w.commits = append(w.commits, repository.Commit(c.name, c.change))
		w.at = len(w.commits) - 1
		_, err := w.source.Fetch(t.Context())
		must(t, err)
		w.sync(t)
		var made []string
		for name := range w.renders.taken() {
			made = append(made, path.Dir(name.path)+" "+name.target)
		}
		slices.Sort(made)
		if got := strings.Join(made, ", "); got != c.want {
			t.Errorf("%s: rendered %q, want %q", c.name, got, c.want)
		}
	}
}
