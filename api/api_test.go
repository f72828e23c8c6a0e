package api_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/sirupsen/logrus"

	"towpath/api"
)

var update = flag.Bool("update", false, "rewrite docs/reference/openapi.json")

// description is what the API says of itself; it needs no backend.
func description(t *testing.T) []byte {
	t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	answer := httptest.NewRecorder()
	api.New(nil, logrus.NewEntry(log)).ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/openapi.json", nil))
	if answer.Code != http.StatusOK {
		t.Fatalf("%d %s", answer.Code, answer.Body)
	}
	return answer.Body.Bytes()
}

func TestTheCommittedDescriptionIsCurrent(t *testing.T) {
	var page bytes.Buffer
	if err := json.Indent(&page, description(t), "", "  "); err != nil {
		t.Fatal(err)
	}
	page.WriteByte('\n')
	const file = "../docs/reference/openapi.json"
	if *update {
		if err := os.WriteFile(file, page.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, page.Bytes()) {
		t.Errorf("%s is not what the types say (%v); run: go test ./api -update", file, err)
	}
}

func TestTheDescriptionHoldsTogether(t *testing.T) {
	text := description(t)
	var d struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string `json:"operationId"`
			Summary     string
			Security    []map[string][]string
			Responses   map[string]any
		}
		Components struct{ Schemas map[string]any }
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(d.OpenAPI, "3.1.") || len(d.Paths) == 0 || len(d.Components.Schemas) == 0 {
		t.Errorf("OpenAPI %s with %d paths and %d schemas", d.OpenAPI, len(d.Paths), len(d.Components.Schemas))
	}
	named := map[string]bool{}
	for path, methods := range d.Paths {
		for method, o := range methods {
			if o.OperationID == "" || named[o.OperationID] || o.Summary == "" || len(o.Security) == 0 || o.Responses["401"] == nil || o.Responses["403"] == nil {
				t.Errorf("%s %s does not say its name, what it does, what it needs and how it refuses: %+v", method, path, o)
			}
			named[o.OperationID] = true
		}
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler() // OpenAPI 3.1 writes schemas as JSON Schema 2020-12 does
	if err := compiler.AddResource("openapi.json", document); err != nil {
		t.Fatal(err)
	}
	for name := range d.Components.Schemas {
		if _, err := compiler.Compile("openapi.json#/components/schemas/" + name); err != nil {
			t.Errorf("schema %s: %v", name, err)
		}
	}
}
