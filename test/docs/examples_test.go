package docs

import (
	"bytes"
	"os"
	"path"
	"path/filepath"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"sigs.k8s.io/yaml"

	"towpath/deployment"
	"towpath/internal/testkit/pages"
)

// Each example is one that an editor with the schema finds nothing wrong with, that is supported today, and that the list of examples leads to. That
// it also deploys is for test/demo to see.
func TestEachExampleIsValidAndListed(t *testing.T) {
	root := pages.Root(t)
	compiler := jsonschema.NewCompiler()
	text, err := jsonschema.UnmarshalJSON(bytes.NewReader(deployment.Schema()))
	if err != nil {
		t.Fatal(err)
	}
	if err := compiler.AddResource("schema.json", text); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, link := range pages.Read(t, "examples/README.md").Links {
		listed[path.Clean(link.To)] = true
	}
	files, err := filepath.Glob(filepath.Join(root, "examples", "*", "towpath.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, file := range files {
		name := filepath.Base(filepath.Dir(file)) + "/towpath.yaml"
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		converted, err := yaml.YAMLToJSON(text)
		if err != nil {
			t.Fatal(err)
		}
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(converted))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(value); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		f, problems := deployment.Parse(name, text)
		if f == nil {
			t.Errorf("%s: %v", name, problems)
		}
		if !listed[name] {
			t.Errorf("examples/README.md does not lead to %s", name)
		}
	}
}
