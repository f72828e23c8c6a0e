package render

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/format/gitattributes"
)

// attributes looks for .gitattributes that would have changed a file in a checkout: here files are read as Git keeps them. What it finds is a warning and no
// input: it changes no object, so it stands in no trace, and is said again when something else makes the render be made anew.
type attributes struct {
	tree     fs.FS
	known    map[string][]gitattributes.MatchAttribute // by directory: those of its own file
	warnings []string
}

// A longer file, and more warnings of one render, are passed over.
const (
	maxAttributes        = 16 << 10
	maxAttributeWarnings = 10
)

func (a *attributes) check(name string) {
	parts := strings.Split(name, "/")
	given := map[string]gitattributes.Attribute{}
	for depth := range parts {
		for _, rule := range a.of(parts[:depth]) {
			if rule.Pattern == nil || !matches(rule.Pattern, parts) {
				continue
			}
			for _, attribute := range rule.Attributes {
				given[attribute.Name()] = attribute
			}
		}
	}
	for _, attribute := range given {
		if what := filters(attribute); what != "" && len(a.warnings) < maxAttributeWarnings {
			a.warnings = append(a.warnings, fmt.Sprintf(".gitattributes gives %s %s, which has no effect here: files are read as Git keeps them", name, what))
		}
	}
}

// matches is false where the library panics: at a pattern that ends in a slash, which matches no file.
func matches(pattern gitattributes.Pattern, parts []string) (yes bool) {
	defer func() {
		if recover() != nil {
			yes = false
		}
	}()
	return pattern.Match(parts)
}

// filters is an attribute as it is written, if a checkout would change content for it; LFS pointers are refused wherever they are read.
func filters(a gitattributes.Attribute) string {
	switch {
	case a.Name() == "ident" && a.IsSet():
		return "ident"
	case a.Name() == "eol" && a.Value() == "crlf", a.Name() == "working-tree-encoding" && a.IsValueSet(), a.Name() == "filter" && a.IsValueSet() && a.Value() != "lfs":
		return a.Name() + "=" + a.Value()
	}
	return ""
}

// of is the rules of a directory's own file.
func (a *attributes) of(parts []string) []gitattributes.MatchAttribute {
	dir := path.Join(parts...)
	if rules, known := a.known[dir]; known {
		return rules
	}
	if a.known == nil {
		a.known = map[string][]gitattributes.MatchAttribute{}
	}
	a.known[dir] = nil
	at := path.Join(dir, ".gitattributes")
	info, err := fs.Lstat(a.tree, at)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxAttributes {
		return nil
	}
	text, err := fs.ReadFile(a.tree, at)
	if err != nil {
		return nil
	}
	rules, err := gitattributes.ReadAttributes(bytes.NewReader(text), slices.Clone(parts), dir == "")
	if err != nil {
		return nil // Git passes over what it cannot read, too
	}
	a.known[dir] = rules
	return rules
}
