package rules

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"towpath/deployment"
)

// Limits of policy files; what is beyond one of them is refused.
const (
	maxBytes      = 256 << 10 // of a file
	maxRules      = 100       // of a file
	maxVariables  = 20        // of a rule
	maxPatterns   = 100       // of a list
	maxExpression = 4096      // bytes
	maxProblems   = 100       // told of a file
)

// reader reads one file and collects all that is wrong with it.
type reader struct {
	file     string
	lines    []string
	problems []deployment.Problem
}

func (r *reader) fail(at deployment.Position, path, format string, args ...any) {
	r.add(at, path, "", fmt.Sprintf(format, args...))
}

func (r *reader) add(at deployment.Position, path, suggestion, text string) {
	if len(r.problems) < maxProblems {
		r.problems = append(r.problems, deployment.Problem{File: r.file, Field: path, Line: max(at.Line, 1), Column: max(at.Column, 1), Severity: deployment.Error, Text: text,
			Suggestion: suggestion})
	}
}

// sorted is the problems in the order of the file.
func (r *reader) sorted() []deployment.Problem {
	slices.SortStableFunc(r.problems, func(a, b deployment.Problem) int { return cmp.Or(a.Line-b.Line, a.Column-b.Column) })
	return r.problems
}

// entry is a value with its place. Missing ones have no node.
type entry struct {
	node *yaml.Node
	path string
}

func (e entry) at() deployment.Position {
	return deployment.Position{Line: e.node.Line, Column: e.node.Column}
}

var yamlLine = regexp.MustCompile(`^line (\d+): `)

// document reads the one document of a file of a kind; false: it is none, which is reported.
func (r *reader) document(text []byte, kind string) (entry, bool) {
	if len(text) > maxBytes {
		r.fail(deployment.Position{}, "", "the file has %d bytes; at most %d are taken", len(text), maxBytes)
		return entry{}, false
	}
	r.lines = strings.Split(string(text), "\n")
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var root, more yaml.Node
	err := decoder.Decode(&root)
	if errors.Is(err, io.EOF) {
		r.fail(deployment.Position{}, "", "the file is empty; write version: v1, kind: %s", kind)
		return entry{}, false
	}
	if err == nil {
		if next := decoder.Decode(&more); next == nil {
			r.fail(deployment.Position{Line: more.Line, Column: more.Column}, "", "a second document; the file is one document")
			return entry{}, false
		} else if !errors.Is(next, io.EOF) {
			err = next
		}
	}
	if err != nil {
		at, text := deployment.Position{}, strings.TrimPrefix(err.Error(), "yaml: ")
		if m := yamlLine.FindStringSubmatch(text); m != nil {
			at.Line, _ = strconv.Atoi(m[1])
			text = strings.TrimPrefix(text, m[0])
		}
		r.fail(at, "", "not valid YAML: %s", text)
		return entry{}, false
	}
	return entry{root.Content[0], ""}, true
}

// fields of a map, by name. Others than the known ones, and those that are there twice, are reported.
func (r *reader) fields(e entry, known ...string) map[string]entry {
	if e.node.Kind != yaml.MappingNode {
		r.fail(e.at(), e.path, "a map with %s is wanted here, this is %s", strings.Join(known, ", "), what(e.node))
		return nil
	}
	found := map[string]entry{}
	for _, f := range r.pairs(e) {
		if name := f.key.Value; len(known) > 0 && !slices.Contains(known, name) {
			r.add(f.at(), e.path, deployment.Nearest(name, known), fmt.Sprintf("unknown key %s; there are %s", shorten(name), strings.Join(known, ", ")))
		} else {
			found[name] = f.entry
		}
	}
	return found
}

// pair is an entry of a map.
type pair struct {
	key *yaml.Node
	entry
}

func (p pair) at() deployment.Position {
	return deployment.Position{Line: p.key.Line, Column: p.key.Column}
}

// pairs of a map in the order of the file.
func (r *reader) pairs(e entry) []pair {
	var all []pair
	seen := map[string]bool{}
	for i := 0; i+1 < len(e.node.Content); i += 2 {
		p := pair{e.node.Content[i], entry{e.node.Content[i+1], join(e.path, e.node.Content[i].Value)}}
		switch {
		case p.key.Kind != yaml.ScalarNode || p.key.Tag == "!!merge":
			r.fail(p.at(), e.path, "a key is a text, this is %s", what(p.key))
		case seen[p.key.Value]:
			r.fail(p.at(), e.path, "%s is there twice", shorten(p.key.Value))
		case p.node.Kind == yaml.AliasNode:
			r.fail(p.entry.at(), p.path, "aliases are not taken here; write the value out")
		default:
			all = append(all, p)
		}
		seen[p.key.Value] = true
	}
	return all
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// items of a list; what is no list is one.
func (r *reader) items(e entry, most int) []entry {
	if e.node == nil {
		return nil
	}
	if e.node.Kind != yaml.SequenceNode {
		r.fail(e.at(), e.path, "a list is wanted here, this is %s", what(e.node))
		return nil
	}
	if len(e.node.Content) > most {
		r.fail(e.at(), e.path, "%d entries; at most %d are taken", len(e.node.Content), most)
		return nil
	}
	var all []entry
	for i, item := range e.node.Content {
		inner := entry{item, fmt.Sprintf("%s[%d]", e.path, i)}
		if item.Kind == yaml.AliasNode {
			r.fail(inner.at(), inner.path, "aliases are not taken here; write the value out")
			continue
		}
		all = append(all, inner)
	}
	return all
}

// text is a scalar's value; "" for a missing one, and for what is none, which is reported.
func (r *reader) text(e entry) string {
	if e.node == nil {
		return ""
	}
	if e.node.Kind != yaml.ScalarNode || e.node.Tag == "!!null" {
		r.fail(e.at(), e.path, "a text is wanted here, this is %s", what(e.node))
		return ""
	}
	return e.node.Value
}

// word is a text that is one of some.
func (r *reader) word(e entry, words ...string) string {
	text := r.text(e)
	if text != "" && !slices.Contains(words, text) {
		r.add(e.at(), e.path, deployment.Nearest(text, words), fmt.Sprintf("%q is none of %s", shorten(text), strings.Join(words, ", ")))
		return ""
	}
	return text
}

// patterns is a list of globs.
func (r *reader) patterns(e entry) []string {
	var all []string
	for _, item := range r.items(e, maxPatterns) {
		pattern := r.text(item)
		if _, err := path.Match(pattern, ""); err != nil {
			r.fail(item.at(), item.path, "%q is no pattern", shorten(pattern))
			continue
		}
		all = append(all, pattern)
	}
	if e.node != nil && e.node.Kind == yaml.SequenceNode && len(e.node.Content) == 0 {
		r.fail(e.at(), e.path, "an empty list fits nothing; leave the key out where everything is meant")
	}
	return all
}

// required reports a key that is missing.
func (r *reader) required(in entry, fields map[string]entry, names ...string) {
	for _, name := range names {
		if _, found := fields[name]; !found && fields != nil {
			r.fail(in.at(), join(in.path, name), "%s is missing", name)
		}
	}
}

func what(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a map"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		return "an alias"
	case n.Tag == "!!null":
		return "nothing"
	}
	return fmt.Sprintf("the text %q", shorten(n.Value))
}

// scalar is a text of the file, or its end, whose places can be told.
type scalar struct {
	value, path string
	line        int // of the file, on which the first line of the value stands
	first, rest int // columns at which its first line, and the others, begin
}

// scalar of an entry.
func (r *reader) scalar(e entry) scalar {
	s := scalar{value: r.text(e), path: e.path, line: e.node.Line, first: e.node.Column}
	switch e.node.Style {
	case yaml.LiteralStyle, yaml.FoldedStyle: // a folded one has lines of its own only where the value has
		s.line++
		for s.line < len(r.lines) && strings.TrimSpace(r.lines[s.line-1]) == "" {
			s.line++
		}
		if s.line <= len(r.lines) {
			s.first = len(r.lines[s.line-1]) - len(strings.TrimLeft(r.lines[s.line-1], " ")) + 1
		}
	case yaml.DoubleQuotedStyle, yaml.SingleQuotedStyle:
		s.first++
	}
	s.rest = s.first
	return s
}

// from is the end of a scalar that begins at a byte of its value.
func (s scalar) from(offset int) scalar {
	before := s.value[:offset]
	lines := strings.Count(before, "\n")
	inner := scalar{value: s.value[offset:], path: s.path, line: s.line + lines, rest: s.rest}
	if inner.first = s.first + len(before); lines > 0 {
		inner.first = s.rest + len(before) - strings.LastIndexByte(before, '\n') - 1
	}
	return inner
}

// position of a line, from 1, and a column, from 0, of the value.
func (s scalar) position(line, column int) deployment.Position {
	if line <= 1 {
		return deployment.Position{Line: s.line, Column: s.first + max(column, 0)}
	}
	return deployment.Position{Line: s.line + line - 1, Column: s.rest + column}
}
