package charts

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"towpath/cmd/towpath-controller/config"
	"towpath/internal/testkit/pages"
)

var update = flag.Bool("update", false, "rewrite what is made from other things: renders, schemas, tables of values")

var names = []string{"towpath", "towpath-agent"}

// property is as much of a JSON Schema as values have.
type property struct {
	Description string
	Properties  map[string]property
	Additional  any `json:"additionalProperties"`
}

// The schema refuses each value that is none, README.md has a row for each one, and its defaults are those of values.yaml.
func TestEachValueIsInTheSchemaAndInTheTable(t *testing.T) {
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(pages.Root(t), "charts", name)
			var values yaml.Node
			if err := yaml.Unmarshal(read(t, dir, "values.yaml"), &values); err != nil {
				t.Fatal(err)
			}
			var schema property
			if err := json.Unmarshal(read(t, dir, "values.schema.json"), &schema); err != nil {
				t.Fatal(err)
			}
			delete(schema.Properties, "global") // which helm itself gives to a chart that is part of another
			var rows strings.Builder
			rows.WriteString("| value | meaning | default |\n|---|---|---|\n")
			describe(t, &rows, "", values.Content[0], schema)
			page := string(read(t, dir, "README.md"))
			_, rest, found := strings.Cut(page, "-update -->\n")
			table, _, closed := strings.Cut(rest, "<!-- end of values -->")
			if !found || !closed {
				t.Fatal("README.md has no place for the table")
			}
			if *update {
				table, page = rows.String(), strings.Replace(page, "-update -->\n"+table, "-update -->\n"+rows.String(), 1)
				write(t, filepath.Join(dir, "README.md"), []byte(page))
			}
			if table != rows.String() {
				t.Error("the table of README.md is not what values.yaml and values.schema.json say; run: go test ./test/charts -update")
			}
		})
	}
}

// describe adds a row for each value in the order of values.yaml; what a person may fill as they like has one row.
func describe(t *testing.T, rows *strings.Builder, prefix string, values *yaml.Node, schema property) {
	t.Helper()
	var here []string
	for i := 0; i < len(values.Content); i += 2 {
		name, value := values.Content[i].Value, values.Content[i+1]
		here = append(here, name)
		p, known := schema.Properties[name]
		switch {
		case !known:
			t.Errorf("the schema does not know %s", prefix+name)
		case p.Description == "":
			t.Errorf("the schema does not say what %s is", prefix+name)
		case value.Kind == yaml.MappingNode && p.Additional == false:
			fmt.Fprintf(rows, "| `%s` | %s |  |\n", prefix+name, p.Description)
			describe(t, rows, prefix+name+".", value, p)
		default:
			fmt.Fprintf(rows, "| `%s` | %s | %s |\n", prefix+name, p.Description, byDefault(t, value))
		}
	}
	for name := range schema.Properties {
		if !slices.Contains(here, name) {
			t.Errorf("values.yaml does not have %s, which the schema knows", prefix+name)
		}
	}
}

// byDefault is a default as a table can have it.
func byDefault(t *testing.T, value *yaml.Node) string {
	t.Helper()
	if value.Kind == yaml.ScalarNode && value.Value == "" {
		return ""
	}
	var plain any
	if err := value.Decode(&plain); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(plain)
	if err != nil {
		t.Fatal(err)
	}
	if len(text) > 60 {
		return "see values.yaml"
	}
	return "`" + strings.Trim(strings.ReplaceAll(string(text), "|", `\|`), `"`) + "`"
}

// What config may hold is what the controller's own schema says, without what the chart fills in.
func TestTheSchemaOfConfigIsTheControllersCurrent(t *testing.T) {
	file := filepath.Join(pages.Root(t), "charts/towpath/values.schema.json")
	var schema map[string]any
	if err := json.Unmarshal(read(t, file), &schema); err != nil {
		t.Fatal(err)
	}
	var of map[string]any
	if err := json.Unmarshal(config.Schema(), &of); err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"$schema", "title", "required"} {
		delete(of, word)
	}
	properties := of["properties"].(map[string]any)
	for _, filledIn := range []string{"listen", "database", "databaseFile", "peers", "keyFile", "data", "tls"} {
		delete(properties, filledIn)
	}
	delete(properties["agents"].(map[string]any)["properties"].(map[string]any), "listen")
	schema["$defs"] = map[string]any{"config": of}
	var want bytes.Buffer
	encoder := json.NewEncoder(&want)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(schema); err != nil {
		t.Fatal(err)
	}
	if *update {
		write(t, file, want.Bytes())
	}
	if !bytes.Equal(read(t, file), want.Bytes()) {
		t.Error("the chart's schema of config is not the controller's; run: go test ./test/charts -update")
	}
}

func read(t *testing.T, path ...string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func write(t *testing.T, file string, text []byte) {
	t.Helper()
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
}
