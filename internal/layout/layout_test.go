// Package layout keeps the map of rooms in docs/ARCHITECTURE.md true: which room may import which.
package layout

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "towpath/"

// pure rooms decide: they get time, ids and what was observed as values, and touch nothing outside.
var pure = []string{"deployment", "manifest", "manifest/diff", "policies", "policies/rules", "reconcile/rollout", "reconcile/simulate", "analysis/judge"}

// rooms maps each room to those of ours that it may import; its own sub-folders it always may.
var rooms = map[string][]string{
	"deployment":                    {},
	"manifest":                      {},
	"manifest/diff":                 {"manifest"},
	"policies":                      {"deployment", "manifest"},
	"policies/rules":                {"deployment", "manifest", "policies"},
	"reconcile/rollout":             {"deployment", "manifest", "manifest/diff", "policies", "analysis/judge"},
	"reconcile/simulate":            {"deployment", "manifest", "reconcile/rollout"},
	"gitsource":                     {},
	"issuer":                        {},
	"charts":                        {},
	"render":                        {"deployment", "manifest", "render/sops"},
	"render/sops":                   {},
	"agent":                         {"internal/version"},
	"analysis":                      {"deployment"},
	"analysis/judge":                {},
	"cluster":                       {"cluster/traffic", "deployment", "manifest", "reconcile/rollout"},
	"cluster/traffic":               {"manifest", "reconcile/rollout"},
	"status":                        {"deployment", "manifest", "manifest/diff", "reconcile/rollout"},
	"store":                         pure,
	"reconcile":                     pure,
	"api":                           append([]string{"internal/version"}, pure...),
	"preview":                       {},
	"webhook":                       {"deployment"},
	"internal/egress":               {},
	"internal/version":              {},
	"internal/crash":                {},
	"internal/localkube":            {},
	"internal/localstack":           {"api", "internal/localkube"},
	"cmd/towpath":                   {"*"},
	"cmd/towpath-controller":        {"*"},
	"cmd/towpath-controller/config": {},
	"cmd/towpath-agent":             {"agent", "internal/version"},
	"cmd/towpath-demo":              {"*"},
	"internal/testkit":              {"*"},
	"test/charts":                   {"*"},
	"test/demo":                     {"*"},
	"test/docs":                     {"*"},
	"test/firsthour":                {"*"},
	"test/e2e":                      {"*"},
	"test/killed":                   {"*"},
	"test/traffic":                  {"*"},
	"internal/layout":               {},
	"bench":                         {"*"},
}

// everyone may import these.
var common = []string{"internal/crash"}

type listed struct {
	ImportPath string
	Imports    []string
}

func TestEachRoomImportsOnlyWhatTheMapSays(t *testing.T) {
	for _, p := range list(t) {
		room := roomOf(p.ImportPath)
		if room == "" {
			t.Errorf("%s is in no room of the map; give it one in internal/layout and docs/ARCHITECTURE.md, or move it", p.ImportPath)
			continue
		}
		for _, imported := range p.Imports {
			if !strings.HasPrefix(imported, module) {
				continue
			}
			other := roomOf(imported)
			if other != room && !slices.Contains(rooms[room], "*") && !slices.Contains(rooms[room], other) && !slices.Contains(common, other) {
				t.Errorf("%s imports %s: %s may import %v", p.ImportPath, imported, room, rooms[room])
			}
		}
	}
}

func TestPureRoomsTouchNothingOutside(t *testing.T) {
	outside := []string{"os", "os/exec", "net", "net/http", "math/rand", "math/rand/v2", "crypto/rand", "log", "log/slog", "database/sql", "context", "github.com/sirupsen/logrus"}
	for _, p := range list(t) {
		if !slices.Contains(pure, roomOf(p.ImportPath)) {
			continue
		}
		for _, imported := range p.Imports {
			if slices.Contains(outside, imported) {
				t.Errorf("%s is pure and imports %s", p.ImportPath, imported)
			}
		}
	}
}

// roomOf is the innermost room that holds a package; "" when none does.
func roomOf(path string) string {
	name := strings.TrimPrefix(path, module)
	for name != "" {
		if _, found := rooms[name]; found {
			return name
		}
		cut := strings.LastIndexByte(name, '/')
		if cut < 0 {
			return ""
		}
		name = name[:cut]
	}
	return ""
}

func list(t *testing.T) []listed {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Imports", module+"...")
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var all []listed
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}
