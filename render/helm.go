package render

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/ignore"
	"helm.sh/helm/v3/pkg/release"
	"helm.sh/helm/v3/pkg/releaseutil"
	sigsyaml "sigs.k8s.io/yaml"

	"towpath/deployment"
	"towpath/manifest"
)

// helm renders a chart of the file's own words: in the repository, or from elsewhere at a version. Values come first: where the chart cannot be had, the
// trace holds what else it needs.
func (r *rendering) helm(m deployment.Manifest, field string) ([]manifest.Object, error) {
	h := *m.Helm
	values, err := r.values(h, m, field)
	if err != nil {
		return nil, err
	}
	if h.Path == "" {
		archive, err := r.chart(chartRef{h.Repository, h.Chart, h.Version})
		if err != nil {
			return nil, fmt.Errorf("chart %s %s: %w", h.Chart, h.Version, err)
		}
		files, err := loader.LoadArchiveFiles(bytes.NewReader(archive))
		if err != nil {
			return nil, fmt.Errorf("chart %s %s: %w", h.Chart, h.Version, err)
		}
		return r.chartOf(files, h.Chart, h, values, m, field)
	}
	dir, err := r.find(r.fill(h.Path), m.Position, field)
	if err != nil {
		return nil, err
	}
	return r.chartAt(dir, h, values, m, field)
}

// chartAt renders the chart in a directory, or in an archive, of the repository.
func (r *rendering) chartAt(at string, h deployment.Helm, values map[string]any, m deployment.Manifest, field string) ([]manifest.Object, error) {
	place, err := r.stat(at)
	if err != nil {
		return nil, err
	}
	var files []*loader.BufferedFile
	if place.Dir {
		files, err = r.chartFiles(at)
	} else {
		var archive []byte
		if archive, err = r.read(at); err == nil {
			files, err = loader.LoadArchiveFiles(bytes.NewReader(archive))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("chart %s: %w", at, err)
	}
	return r.chartOf(files, at, h, values, m, field)
}

// chartFiles reads a chart's directory as Helm's own loader does: without what .helmignore names and without byte order marks.
func (r *rendering) chartFiles(dir string) ([]*loader.BufferedFile, error) {
	rules := ignore.Empty()
	text, err := r.read(path.Join(dir, ignore.HelmIgnore))
	switch {
	case err == nil:
		if rules, err = ignore.Parse(bytes.NewReader(text)); err != nil {
			return nil, fmt.Errorf("%s: %w", ignore.HelmIgnore, err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	rules.AddDefaults()
	var files []*loader.BufferedFile
	var walk func(at string, depth int) error
	walk = func(at string, depth int) error {
		if depth > r.job.Limits.Depth {
			return fmt.Errorf("directories more than %d deep", r.job.Limits.Depth)
		}
		items, err := r.list(path.Join(dir, at))
		if err != nil {
			return err
		}
		for _, item := range items {
			name := path.Join(at, item.Name)
			isDir := item.Dir
			if item.Link {
				place, err := r.stat(path.Join(dir, name))
				if err != nil {
					return err
				}
				isDir = place.Dir
			}
			if rules.Ignore(name, fileInfo{item.Name, isDir}) {
				continue
			}
			if isDir {
				err = walk(name, depth+1)
			} else {
				var text []byte
				if text, err = r.read(path.Join(dir, name)); err == nil {
					files = append(files, &loader.BufferedFile{Name: name, Data: bytes.TrimPrefix(text, []byte("\ufeff"))})
				}
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	return files, walk("", 0)
}

// chartOf renders a chart's files. The chart is loaded anew each time: a render changes it.
func (r *rendering) chartOf(files []*loader.BufferedFile, name string, h deployment.Helm, values map[string]any, m deployment.Manifest, field string) ([]manifest.Object, error) {
	first, err := r.renderChart(files, name, h, values)
	if err != nil {
		return nil, err
	}
	found, err := r.look(first, files, name, h, values)
	if err != nil {
		return nil, err
	}
	r.keep(first.objects, found)
	for _, what := range found.said {
		if m.AllowUnstable {
			r.warn(m.Position, field, "chart %s: %s; the first result is kept until an input changes", name, what)
		} else {
			r.fail(m.Position, field, "chart %s: %s; give the value in values, or write allowUnstable: true to keep the first result", name, what)
		}
	}
	return first.objects, nil
}

// look finds what in a chart may come out differently another time. At the first sight of what it is made of its templates are read. Where they call anything
// that could, the chart is rendered a second time, and what two renders do not show, such as the day, is looked for in what made the objects. A process
// remembers what it found, unless it came out differently.
func (r *rendering) look(first charted, files []*loader.BufferedFile, name string, h deployment.Helm, values map[string]any) (finding, error) {
	inputs, err := r.inputs(files, h, values)
	if err != nil {
		return finding{}, err
	}
	if found, before := r.sights[inputs]; before {
		return found, nil
	}
	calls, found := newTemplates(first.chart, first.values), finding{}
	if calls.varied {
		second, err := r.renderChart(files, name, h, values)
		if err != nil {
			return finding{}, err
		}
		found = compare(first, second, calls)
	}
	if len(found.objects) == 0 {
		r.sights[inputs] = found // they are as many as a process may make renders, and charts in one
	}
	return found, nil
}

// inputs is a digest of all that a chart is rendered from.
func (r *rendering) inputs(files []*loader.BufferedFile, h deployment.Helm, values map[string]any) (digest [sha256.Size]byte, err error) {
	sum := sha256.New()
	for _, f := range files {
		fmt.Fprintf(sum, "%q %d\n", f.Name, len(f.Data))
		sum.Write(f.Data)
	}
	err = json.NewEncoder(sum).Encode([]any{h, values, r.releaseName(h), r.target.Namespace, r.cluster.Digest()})
	return [sha256.Size]byte(sum.Sum(nil)), err
}

// keep notes which objects of a chart are to stay as they came out first.
func (r *rendering) keep(objects []manifest.Object, found finding) {
	for _, o := range objects {
		of := sourceOf(o)
		if slices.Contains(found.objects, of) || slices.Contains(found.templates, templateOf(o)) {
			r.unstable[of] = true
		}
	}
}

// values are the files of values, later over earlier, and over them those in the deployment file.
func (r *rendering) values(h deployment.Helm, m deployment.Manifest, field string) (map[string]any, error) {
	values := map[string]any{}
	for _, name := range h.ValueFiles {
		at, err := r.find(r.fill(name), m.Position, field+".helm.valueFiles")
		if err != nil {
			return nil, err
		}
		text, err := r.read(at)
		if err != nil {
			return nil, err
		}
		if err := r.measure(text); err != nil {
			return nil, fmt.Errorf("%s: %w", at, err)
		}
		var more map[string]any
		if err := sigsyaml.Unmarshal(text, &more); err != nil {
			return nil, fmt.Errorf("%s: not valid YAML: %w", at, err)
		}
		values = merge(values, more)
	}
	return merge(values, h.Values), nil
}

// merge lays values over others: maps are joined, all else replaces.
func merge(under, over map[string]any) map[string]any {
	out := maps.Clone(under)
	if out == nil {
		out = map[string]any{}
	}
	for name, value := range over {
		if inner, ok := value.(map[string]any); ok {
			if below, ok := out[name].(map[string]any); ok {
				out[name] = merge(below, inner)
				continue
			}
		}
		out[name] = value
	}
	return out
}

// charted is what a chart came to, and what it was made of.
type charted struct {
	objects []manifest.Object
	chart   *chart.Chart
	values  any
}

func (r *rendering) renderChart(files []*loader.BufferedFile, name string, h deployment.Helm, values map[string]any) (charted, error) {
	var out charted
	loaded, err := loader.LoadFiles(copyFiles(files))
	if err != nil {
		return out, fmt.Errorf("chart %s: %w", name, err)
	}
	if loaded.Metadata != nil && loaded.Metadata.Type == "library" {
		return out, fmt.Errorf("chart %s is a library; it deploys nothing", name)
	}
	if missing := missingDependencies(loaded); len(missing) > 0 {
		return out, fmt.Errorf("chart %s: its dependencies %s are not in its charts directory; put them there (helm dependency update)", name, strings.Join(missing, ", "))
	}
	if err := chartutil.ProcessDependenciesWithMerge(loaded, values); err != nil {
		return out, fmt.Errorf("chart %s: %w", name, err)
	}
	capabilities, err := r.serving(h)
	if err != nil {
		return out, fmt.Errorf("chart %s: %w", name, err)
	}
	if want := loaded.Metadata.KubeVersion; want != "" && !chartutil.IsCompatibleRange(want, capabilities.KubeVersion.String()) {
		return out, fmt.Errorf("chart %s wants Kubernetes %s; the cluster has %s", name, want, capabilities.KubeVersion.String())
	}
	release := chartutil.ReleaseOptions{Name: r.releaseName(h), Namespace: cmpOr(r.target.Namespace, "default"), Revision: 1, IsInstall: true}
	top, err := chartutil.ToRenderValuesWithSchemaValidation(loaded, values, release, capabilities, true)
	if err != nil {
		return out, fmt.Errorf("chart %s: %w", name, err)
	}
	if err := validate(loaded, top["Values"]); err != nil {
		return out, fmt.Errorf("chart %s: %w", name, err)
	}
	texts, err := engine.Engine{}.Render(loaded, top)
	if err != nil {
		return out, fmt.Errorf("chart %s: %w", name, err)
	}
	out.chart, out.values = loaded, top["Values"]
	out.objects, err = r.sorted(loaded, texts, h)
	return out, err
}

// missingDependencies are those that the chart declares and does not bring along; the library would leave them out silently.
func missingDependencies(c *chart.Chart) []string {
	var missing []string
	for _, declared := range c.Metadata.Dependencies {
		if !slices.ContainsFunc(c.Dependencies(), func(sub *chart.Chart) bool { return sub.Name() == declared.Name }) {
			missing = append(missing, declared.Name)
		}
	}
	return missing
}

// copyFiles so that what a render does to them is gone with it.
func copyFiles(files []*loader.BufferedFile) []*loader.BufferedFile {
	out := make([]*loader.BufferedFile, len(files))
	for i, f := range files {
		out[i] = &loader.BufferedFile{Name: f.Name, Data: bytes.Clone(f.Data)}
	}
	return out
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

var notInNames = regexp.MustCompile(`[^a-z0-9-]+`)

// releaseName is what the file says, else the application's name in the form of a Kubernetes name.
func (r *rendering) releaseName(h deployment.Helm) string {
	if h.ReleaseName != "" {
		return h.ReleaseName
	}
	name := strings.Trim(notInNames.ReplaceAllString(strings.ToLower(r.job.File.Application), "-"), "-")
	return cmpOr(strings.TrimRight(name[:min(len(name), 53)], "-"), "release")
}

// defaultKubernetes is what charts see of a cluster that is not known: the library's own default is years old.
const defaultKubernetes = "v1.34.0"

// serving is what a chart sees of its cluster.
func (r *rendering) serving(h deployment.Helm) (*chartutil.Capabilities, error) {
	cluster, err := r.capabilities()
	if err != nil {
		return nil, err
	}
	said := cmpOr(h.KubeVersion, cmpOr(cluster.Version, defaultKubernetes))
	version, err := chartutil.ParseKubeVersion(said)
	if err != nil {
		return nil, fmt.Errorf("version %s of Kubernetes: %w", said, err)
	}
	capabilities := chartutil.DefaultCapabilities.Copy()
	capabilities.KubeVersion = *version
	if cluster.APIs != nil {
		capabilities.APIVersions = chartutil.VersionSet(slices.Clone(cluster.APIs))
	}
	capabilities.APIVersions = append(capabilities.APIVersions, h.APIVersions...)
	return capabilities, nil
}

// validate holds values against the chart's schemas. Helm's own validation follows references to files and addresses; this one has no way to.
func validate(c *chart.Chart, values any) error {
	if c.Schema != nil {
		schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(c.Schema))
		if err != nil {
			return fmt.Errorf("values.schema.json: %w", err)
		}
		compiler := jsonschema.NewCompiler()
		compiler.UseLoader(noLoader{})
		if err := compiler.AddResource("values.schema.json", schema); err != nil {
			return fmt.Errorf("values.schema.json: %w", err)
		}
		compiled, err := compiler.Compile("values.schema.json")
		if err != nil {
			return fmt.Errorf("values.schema.json: %w", err)
		}
		text, err := sigsyaml.Marshal(values)
		if err != nil {
			return err
		}
		text, err = sigsyaml.YAMLToJSON(text)
		if err != nil {
			return err
		}
		plain, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			return err
		}
		if err := compiled.Validate(plain); err != nil {
			return fmt.Errorf("values do not meet the schema of %s: %w", c.Name(), err)
		}
	}
	for _, sub := range c.Dependencies() {
		inner, found := mapOfValues(values)[sub.Name()]
		if !found {
			continue
		}
		if err := validate(sub, inner); err != nil {
			return err
		}
	}
	return nil
}

func mapOfValues(v any) map[string]any {
	switch v := v.(type) {
	case chartutil.Values:
		return v
	case map[string]any:
		return v
	}
	return nil
}

// noLoader refuses references out of a schema.
type noLoader struct{}

func (noLoader) Load(url string) (any, error) {
	return nil, fmt.Errorf("it refers to %s, and nothing outside the schema is read", url)
}

// sorted is the objects of rendered templates in Helm's order, and after them the hooks that run in a rollout.
func (r *rendering) sorted(c *chart.Chart, texts map[string]string, h deployment.Helm) ([]manifest.Object, error) {
	for name := range texts {
		if strings.HasSuffix(name, "NOTES.txt") {
			delete(texts, name)
		}
	}
	hooks, manifests, err := releaseutil.SortManifests(texts, nil, releaseutil.InstallOrder)
	if err != nil {
		return nil, fmt.Errorf("chart %s: %w", c.Name(), err)
	}
	var all []manifest.Object
	if h.IncludeCRDs {
		for _, crd := range c.CRDObjects() {
			objects, err := r.parse(crd.File.Data, crd.Filename)
			if err != nil {
				return nil, err
			}
			all = append(all, objects...)
		}
	}
	for _, m := range manifests {
		// Helm cuts the line's end off and puts it back before it applies: a text at the end of a document has it.
		objects, err := r.parse([]byte(m.Content+"\n"), m.Name+" (template)")
		if err != nil {
			return nil, err
		}
		all = append(all, objects...)
	}
	for _, hook := range hooks {
		if !slices.ContainsFunc(hook.Events, func(event release.HookEvent) bool { return slices.Contains(run, event) }) {
			continue
		}
		objects, err := r.parse([]byte(hook.Manifest+"\n"), hook.Path+" (template)")
		if err != nil {
			return nil, err
		}
		all = append(all, objects...)
	}
	return all, nil
}

// run is the events at which hooks run; tests and what comes with a removal are left out.
var run = []release.HookEvent{release.HookPreInstall, release.HookPostInstall, release.HookPreUpgrade, release.HookPostUpgrade, release.HookPreRollback, release.HookPostRollback}

// fileInfo is what .helmignore's rules ask of a file.
type fileInfo struct {
	name string
	dir  bool
}

func (f fileInfo) Name() string { return f.name }
func (f fileInfo) Size() int64  { return 0 }
func (f fileInfo) Mode() fs.FileMode {
	if f.dir {
		return fs.ModeDir
	}
	return 0
}
func (f fileInfo) ModTime() time.Time { return time.Time{} }
func (f fileInfo) IsDir() bool        { return f.dir }
func (f fileInfo) Sys() any           { return nil }
