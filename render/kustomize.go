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
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"

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
	switch {
	case r.over != nil: // the library wraps it in all that it was about to do
		return nil, fmt.Errorf("kustomize %s: %w", dir, r.over)
	case err != nil:
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
	// The library's own reading: it takes keys in any letter case, and what counts of two that differ only in that is for it to say.
	var said types.Kustomization
	if err := said.Unmarshal(text); err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	said.FixKustomization() // joins fields of earlier versions with those that took their place
	return k.references(dir, at, said, depth)
}

// references holds whatever a kustomization refers to against the rules of the place it stands in.
func (k *kustomizations) references(dir, at string, said types.Kustomization, depth int) error {
	if len(said.HelmCharts) > 0 {
		return fmt.Errorf("%s: helmCharts is not supported; name the chart under manifests as helm: instead", at)
	}
	for _, field := range pathFields(said) {
		for _, entry := range field.entries {
			var err error
			if field.inPlace && strings.Contains(entry, "\n") {
				err = k.measureAll(at, []byte(entry))
			} else {
				err = k.path(dir, at, field.name, entry, depth)
			}
			if err != nil {
				return err
			}
		}
	}
	if said.OpenAPI != nil {
		k.schema = true
		if name, given := said.OpenAPI["path"]; given {
			if err := k.file(dir, at, "openapi.path", name); err != nil {
				return err
			}
		}
	}
	if err := k.patches(dir, at, said); err != nil {
		return err
	}
	for _, args := range said.ConfigMapGenerator {
		if err := k.generator(dir, at, "configMapGenerator", args.KvPairSources); err != nil {
			return err
		}
	}
	for _, args := range said.SecretGenerator {
		if err := k.generator(dir, at, "secretGenerator", args.KvPairSources); err != nil {
			return err
		}
	}
	return nil
}

// pathField is a field of a kustomization that lists paths, or, where inPlace says so, what could stand at a path.
type pathField struct {
	name    string
	entries []string
	inPlace bool
}

func pathFields(said types.Kustomization) []pathField {
	merges := make([]string, len(said.PatchesStrategicMerge))
	for i, patch := range said.PatchesStrategicMerge {
		merges[i] = string(patch)
	}
	return []pathField{
		{"resources", said.Resources, false}, {"components", said.Components, false}, {"crds", said.Crds, false},
		{"configurations", said.Configurations, false}, {"generators", said.Generators, true}, {"transformers", said.Transformers, true},
		{"validators", said.Validators, true}, {"patchesStrategicMerge", merges, true},
	}
}

func (k *kustomizations) patches(dir, at string, said types.Kustomization) error {
	for _, patch := range slices.Concat(said.Patches, said.PatchesJson6902) {
		if patch.Path != "" {
			if err := k.text(dir, at, "patches.path", patch.Path); err != nil {
				return err
			}
		}
		if err := k.measureAll(at, []byte(patch.Patch)); err != nil {
			return err
		}
	}
	for _, replacement := range said.Replacements {
		if replacement.Path != "" {
			if err := k.text(dir, at, "replacements.path", replacement.Path); err != nil {
				return err
			}
		}
	}
	return nil
}

func (k *kustomizations) generator(dir, at, name string, from types.KvPairSources) error {
	for _, source := range from.FileSources {
		if _, after, named := strings.Cut(source, "="); named {
			source = after
		}
		if err := k.file(dir, at, name+".files", source); err != nil {
			return err
		}
	}
	for _, source := range from.EnvSources {
		if err := k.file(dir, at, name+".envs", source); err != nil {
			return err
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
