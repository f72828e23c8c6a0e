package pages

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var row = regexp.MustCompile("(?m)^\\| `(towpath_[a-z_]+)` \\|")

// Metrics are the names that a section of docs/reference/metrics.md lists, sorted.
func Metrics(t testing.TB, section string) (names []string) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(Root(t), "docs", "reference", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(page), "\n## "+section+"\n")
	if !found {
		t.Fatalf("docs/reference/metrics.md has no section %q", section)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	for _, match := range row.FindAllStringSubmatch(text, -1) {
		names = append(names, match[1])
	}
	slices.Sort(names)
	return names
}
