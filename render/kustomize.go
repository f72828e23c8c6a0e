package render

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	sigsyaml "sigs.k8s.io/yaml"

	"towpath/manifest"
)

// kustomizationNames are the names a kustomization may have; more than one of them in a directory is an error.
var kustomizationNames = []string{"kustomization.yaml", "kustomization.yml", "Kustomization"}

// kustomize builds the kustomization in a directory, as `kustomize build` does.
func (r *rendering) kustomize(dir string) ([]manifest.Object, error) {
	check := kustomizations{rendering: r, done: map[string]bool{}}
	if err := check.directory(dir, 0); err != nil {
		return nil, err
	}
	if check.schema {
		r.retire = true // the schema of a kustomization stays in the process
	}
	options := krusty.MakeDefaultOptions()
	options.Reorder = krusty.ReorderOptionUnspecified
	built, err := krusty.MakeKustomizer(options).Run(&treeFiles{worker: r.worker}, "/"+dir)
	if err != nil {
		return nil, fmt.Errorf("kustomize %s: %s", dir, strings.ReplaceAll(err.Error(), "'/", "'"))
	}
	var all []manifest.Object
	for _, resource := range built.Resources() {
		text, err := resource.MarshalJSON()
		if err != nil {
			return nil, fmt.Errorf("kustomize %s: %w", dir, err)
		}
		o, err := manifest.New(text, dir+" (kustomize)")
		if err != nil {
			return nil, err
		}
		all = append(all, o)
	}
	return all, nil
}

// warm makes a render that is thrown away: the library reads its schema of Kubernetes with the first one that has a patch, and that takes as long as ten.
func warm() {
	tree := filesys.MakeFsInMemory()
	for name, text := range map[string]string{
		"kustomization.yaml": "resources: [o.yaml]\npatches: [{path: p.yaml}]\n",
		"o.yaml":             "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {template: {spec: {containers: [{name: a}]}}}\n",
		"p.yaml":             "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {template: {spec: {containers: [{name: a, image: b}]}}}\n",
	} {
		if err := tree.WriteFile("/"+name, []byte(text)); err != nil {
			panic(err) // it is in memory
		}
	}
	if _, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(tree, "/"); err != nil {
		panic(err) // the texts are ours
	}
}

// kustomizations reads kustomizations before the library does. The library fetches remote bases and files by itself, with whatever credentials the
// process has, and asks nobody; so whatever is not a path to something in the repository is refused here.
type kustomizations struct {
	*rendering
	done   map[string]bool
	schema bool
}

// Fields of a kustomization that hold paths: lists of them, single ones, and those inside entries.
var (
	pathLists   = []string{"resources", "bases", "components", "crds", "configurations", "generators", "transformers", "validators", "patchesStrategicMerge"}
	fileEntries = []string{"files", "envs"}
)

func (k *kustomizations) directory(dir string, depth int) error {
	if k.done[dir] {
		return nil
	}
	if depth > k.job.Limits.Depth {
		return fmt.Errorf("%s: kustomizations more than %d deep", dir, k.job.Limits.Depth)
	}
	k.done[dir] = true
	if len(k.done) > k.job.Limits.Files {
		return fmt.Errorf("%s: more than %d kustomizations", dir, k.job.Limits.Files)
	}
	var found []string
	var text []byte
	for _, name := range kustomizationNames {
		content, err := k.read(path.Join(dir, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return err
		}
		found, text = append(found, name), content
	}
	switch len(found) {
	case 0:
		return fmt.Errorf("%s holds none of %s", dir, strings.Join(kustomizationNames, ", "))
	case 1:
	default:
		return fmt.Errorf("%s holds %s; only one of them may be there", dir, strings.Join(found, " and "))
	}
	at := path.Join(dir, found[0])
	if err := k.measure(text); err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	var fields map[string]any
	if err := sigsyaml.Unmarshal(text, &fields); err != nil {
		return fmt.Errorf("%s: not valid YAML: %w", at, err)
	}
	return k.fields(dir, at, fields, depth)
}

func (k *kustomizations) fields(dir, at string, fields map[string]any, depth int) error {
	for _, name := range []string{"helmCharts", "helmChartInflationGenerator"} {
		if fields[name] != nil {
			return fmt.Errorf("%s: %s is not supported; name the chart under manifests as helm: instead", at, name)
		}
	}
	for _, name := range pathLists {
		for _, entry := range list(fields[name]) {
			text, ok := entry.(string)
			if !ok {
				continue
			}
			if strings.Contains(text, "\n") { // written in place
				if err := k.measureAll(at, []byte(text)); err != nil {
					return err
				}
				continue
			}
			if err := k.path(dir, at, name, text, depth); err != nil {
				return err
			}
		}
	}
	if schema := mapOf(fields["openapi"]); schema != nil {
		k.schema = true
		if text, ok := schema["path"].(string); ok {
			if err := k.file(dir, at, "openapi.path", text); err != nil {
				return err
			}
		}
	}
	for _, name := range []string{"patches", "patchesJson6902", "replacements"} {
		for _, entry := range list(fields[name]) {
			if text, ok := mapOf(entry)["path"].(string); ok {
				if err := k.text(dir, at, name+".path", text); err != nil {
					return err
				}
			}
			if text, ok := mapOf(entry)["patch"].(string); ok {
				if err := k.measureAll(at, []byte(text)); err != nil {
					return err
				}
			}
		}
	}
	return k.generators(dir, at, fields)
}

func (k *kustomizations) generators(dir, at string, fields map[string]any) error {
	for _, name := range []string{"configMapGenerator", "secretGenerator"} {
		for _, entry := range list(fields[name]) {
			entry := mapOf(entry)
			for _, kind := range fileEntries {
				for _, source := range list(entry[kind]) {
					text, _ := source.(string)
					if _, after, named := strings.Cut(text, "="); named && kind == "files" {
						text = after
					}
					if err := k.file(dir, at, name+"."+kind, text); err != nil {
						return err
					}
				}
			}
			if text, ok := entry["env"].(string); ok {
				if err := k.file(dir, at, name+".env", text); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// path is a file or a directory with a kustomization.
func (k *kustomizations) path(dir, at, field, text string, depth int) error {
	place, err := k.local(dir, at, field, text)
	if err != nil || !place.Dir {
		if err == nil {
			err = k.content(place.Physical)
		}
		return err
	}
	return k.directory(place.Physical, depth+1)
}

func (k *kustomizations) file(dir, at, field, text string) error {
	place, err := k.local(dir, at, field, text)
	if err == nil && place.Dir {
		err = fmt.Errorf("%s: %s: %s is a directory", at, field, text)
	}
	return err
}

// text is a file of YAML.
func (k *kustomizations) text(dir, at, field, text string) error {
	if err := k.file(dir, at, field, text); err != nil {
		return err
	}
	return k.content(path.Join(dir, text))
}

// content refuses a file that aliases make too large; the library follows them without bound.
func (k *kustomizations) content(name string) error {
	text, err := k.read(name)
	if err != nil {
		return err
	}
	return k.measureAll(name, text)
}

func (k *kustomizations) measureAll(name string, text []byte) error {
	for _, document := range documents(text) {
		if err := k.measure(document); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (k *kustomizations) local(dir, at, field, text string) (place, error) {
	if text == "" || path.IsAbs(text) {
		return place{}, fmt.Errorf("%s: %s: %q is no relative path", at, field, text)
	}
	found, err := k.stat(path.Join(dir, text))
	if errors.Is(err, fs.ErrNotExist) {
		if strings.Contains(text, "://") || strings.Contains(text, "?ref=") || strings.Contains(text, "git@") || strings.HasPrefix(text, "github.com/") {
			return place{}, fmt.Errorf("%s: %s: %s is not in the repository; remote bases and files are not fetched, so copy it into the repository", at, field, text)
		}
		return place{}, fmt.Errorf("%s: %s: %s is not in the repository", at, field, text)
	}
	if err != nil {
		return place{}, fmt.Errorf("%s: %s: %w", at, field, err)
	}
	return found, nil
}

func list(v any) []any {
	all, _ := v.([]any)
	return all
}

func mapOf(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

// treeFiles is the tree as Kustomize sees it: read-only, with / as its root.
type treeFiles struct {
	*worker
}

var errReadOnly = errors.New("the repository is read-only here")

func relative(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if name == "" {
		return "."
	}
	return name
}

func (t *treeFiles) Create(string) (filesys.File, error) { return nil, errReadOnly }
func (t *treeFiles) Mkdir(string) error                  { return errReadOnly }
func (t *treeFiles) MkdirAll(string) error               { return errReadOnly }
func (t *treeFiles) RemoveAll(string) error              { return errReadOnly }
func (t *treeFiles) WriteFile(string, []byte) error      { return errReadOnly }
func (t *treeFiles) Open(string) (filesys.File, error) {
	return nil, errors.New("files are read whole here")
}
func (t *treeFiles) Glob(string) ([]string, error) {
	return nil, errors.New("patterns are not followed here")
}
func (t *treeFiles) Walk(string, filepath.WalkFunc) error {
	return errors.New("directories are not walked here")
}

func (t *treeFiles) IsDir(name string) bool {
	p, err := t.stat(relative(name))
	return err == nil && p.Dir
}

func (t *treeFiles) Exists(name string) bool {
	_, err := t.stat(relative(name))
	return err == nil
}

func (t *treeFiles) ReadDir(name string) ([]string, error) {
	items, err := t.list(relative(name))
	if err != nil {
		return nil, err
	}
	names := make([]string, len(items))
	for i, item := range items {
		names[i] = item.Name
	}
	slices.Sort(names)
	return names, nil
}

func (t *treeFiles) ReadFile(name string) ([]byte, error) {
	text, err := t.read(relative(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", relative(name), fs.ErrNotExist)
	}
	return text, err
}

// CleanedAbs says where a path really leads, links resolved: kustomize holds that against the root it may read from.
func (t *treeFiles) CleanedAbs(name string) (filesys.ConfirmedDir, string, error) {
	p, err := t.stat(relative(name))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return "", "", fmt.Errorf("%s is not in the repository", relative(name))
		}
		return "", "", err
	}
	at := "/" + strings.TrimPrefix(p.Physical, ".")
	if p.Dir {
		return filesys.ConfirmedDir(at), "", nil
	}
	return filesys.ConfirmedDir(path.Dir(at)), path.Base(at), nil
}
