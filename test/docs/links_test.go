// Package docs holds the project's pages to what they say.
package docs

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"towpath/internal/testkit/pages"
)

func TestEachLinkLeadsSomewhere(t *testing.T) {
	root, all := pages.Root(t), pages.All(t)
	anchors := map[string]map[string]bool{}
	for _, p := range all {
		anchors[p.Path] = p.Anchors
	}
	for _, p := range all {
		for _, link := range p.Links {
			if strings.Contains(link.To, "://") || strings.HasPrefix(link.To, "mailto:") {
				continue
			}
			to, anchor, _ := strings.Cut(link.To, "#")
			file := p.Path
			if to != "" {
				file = path.Join(path.Dir(p.Path), to)
			}
			if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(file))); err != nil {
				t.Errorf("%s:%d: there is no %s", p.Path, link.Line, link.To)
			} else if anchor != "" && !anchors[file][anchor] {
				t.Errorf("%s:%d: %s has no heading #%s", p.Path, link.Line, file, anchor)
			}
		}
	}
}

// A page that nobody finds helps nobody: docs/README.md lists them.
func TestTheIndexLeadsToEachPageOfTheDocs(t *testing.T) {
	listed := map[string]bool{"docs/README.md": true}
	for _, link := range pages.Read(t, "docs/README.md").Links {
		listed[path.Join("docs", link.To)] = true
	}
	for _, p := range pages.All(t) {
		if strings.HasPrefix(p.Path, "docs/") && !strings.HasPrefix(p.Path, "docs/decisions/") && !listed[p.Path] {
			t.Errorf("docs/README.md does not lead to %s", p.Path)
		}
	}
}

func TestEachMakeTargetOnAPageIsThere(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(pages.Root(t), "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	found := pages.Commands(t, pages.All(t), "make")
	if len(found) == 0 {
		t.Error("no page says make demo")
	}
	for _, c := range found {
		for _, word := range c.Args {
			if !strings.Contains(word, "=") && !regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(word)+`:`).Match(makefile) {
				t.Errorf("%s: the Makefile has no target %s", c.Where, word)
			}
		}
	}
}
