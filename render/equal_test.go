package render_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"towpath/deployment"
	"towpath/internal/testkit/rendertools"
	"towpath/manifest"
	"towpath/render"
)

// Each folder of testdata/equal/kustomize is built from its overlay, each of testdata/equal/helm is a chart with or without values, for a release "rel". What
// comes out is held, object by object and in order, against what the tools themselves print.
func TestResultsAreThoseOfTheTools(t *testing.T) {
	t.Parallel()
	tools := rendertools.Build(t)
	pool := newPool(t, render.Limits{})
	cases, err := filepath.Glob("testdata/equal/*/*")
	if err != nil || len(cases) < 12 {
		t.Fatal(len(cases), err)
	}
	for _, dir := range cases {
		t.Run(strings.TrimPrefix(dir, "testdata/equal/"), func(t *testing.T) {
			entry, command := "kustomize: {path: overlay}", exec.CommandContext(t.Context(), tools.Kustomize, "build", filepath.Join(dir, "overlay"))
			if strings.Contains(dir, "/helm/") {
				args := []string{"template", "rel", filepath.Join(dir, "chart"), "--include-crds", "--skip-tests", "--kube-version", "v1.34.0", "--api-versions", "example.com/v1/Thing"}
				entry = "helm: {path: chart, releaseName: rel, kubeVersion: v1.34.0, apiVersions: [example.com/v1/Thing]"
				if values := filepath.Join(dir, "values.yaml"); exists(values) {
					args, entry = append(args, "--values", values), entry+", valueFiles: [values.yaml]"
				}
				entry, command = entry+"}", exec.CommandContext(t.Context(), tools.Helm, args...)
			}
			var said bytes.Buffer
			command.Env, command.Stderr = []string{"HOME=" + t.TempDir()}, &said
			text, err := command.Output()
			if err != nil {
				t.Fatalf("%s: %v\n%s", command, err, &said)
			}
			want := decode(t, text)
			file, problems := deployment.Parse("app/towpath.yaml", []byte("application: app\ntargets: {prod: {account: prod}}\nmanifests:\n  - "+entry+"\n"))
			if file == nil {
				t.Fatal(problems)
			}
			result, err := pool.Render(t.Context(), render.Request{Tree: fromDisk(t, dir).tree(t), File: file, Target: "prod"})
			if err != nil || result.Failed() {
				t.Fatal(err, said.String(), result.Problems)
			}
			compare(t, result.Objects, want)
		})
	}
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// fromDisk is a folder as it would be in a repository, under app.
func fromDisk(t *testing.T, dir string) files {
	t.Helper()
	out := files{}
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(name)
		at, _ := filepath.Rel(dir, name)
		out["app/"+filepath.ToSlash(at)] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// decode reads what a tool printed, with Kubernetes' own reader. The tools leave it to the cluster to say in which namespace an object is that names none.
func decode(t *testing.T, text []byte) []unstructured.Unstructured {
	t.Helper()
	wide := []string{"Namespace", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}
	var all []unstructured.Unstructured
	for decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096); ; {
		var o unstructured.Unstructured
		if err := decoder.Decode(&o.Object); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		objects := []unstructured.Unstructured{o}
		switch {
		case len(o.Object) == 0:
			continue
		case o.IsList():
			list, err := o.ToList()
			if err != nil {
				t.Fatal(err)
			}
			objects = list.Items
		}
		for _, o := range objects {
			if o.GetNamespace() == "" && !slices.Contains(wide, o.GetKind()) {
				o.SetNamespace("default")
			}
			all = append(all, o)
		}
	}
}

func compare(t *testing.T, got []manifest.Object, want []unstructured.Unstructured) {
	t.Helper()
	var ours, theirs []string
	for _, o := range got {
		ours = append(ours, fmt.Sprintf("%s %s %s/%s", o.APIVersion(), o.Kind, o.Namespace, o.Name))
	}
	for _, o := range want {
		theirs = append(theirs, fmt.Sprintf("%s %s %s/%s", o.GetAPIVersion(), o.GetKind(), o.GetNamespace(), o.GetName()))
	}
	if len(ours) == 0 || !slices.Equal(ours, theirs) {
		t.Fatalf("got\n%s\nwant\n%s", strings.Join(ours, "\n"), strings.Join(theirs, "\n"))
	}
	for i, o := range want {
		text, err := o.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var mine, other any
		if err := errors.Join(json.Unmarshal(got[i].JSON, &mine), json.Unmarshal(text, &other)); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(mine, other) {
			t.Errorf("%s: got\n%s\nwant\n%s", ours[i], got[i].JSON, text)
		}
	}
}
