package deployment

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Limits of a file; a file beyond one of them is refused.
const (
	maxBytes    = 2 << 20
	maxNodes    = 100_000 // after aliases are followed
	maxDepth    = 32
	maxProblems = 100
)

// value is a node of the file that has the shape it should have. Quirks are in one form by then.
type value struct {
	at     Position
	keyAt  Position // of the key that holds it; its own where there is none
	shape  *shape
	fields []entry  // of an object or a map, in file order, keys in the right spelling
	items  []*value // of a list
	scalar string
	raw    any // of kind anything
}

type entry struct {
	name string
	at   Position
	*value
}

// get is the value of a key, nil when it is absent.
func (v *value) get(name string) *value {
	if v == nil {
		return nil
	}
	for _, e := range v.fields {
		if e.name == name {
			return e.value
		}
	}
	return nil
}

// reader checks a document against its shape and collects what is wrong.
type reader struct {
	file     string
	problems []Problem
	nodes    int
}

func (r *reader) add(severity Severity, at Position, field, suggestion, format string, args ...any) {
	if len(r.problems) < maxProblems {
		r.problems = append(r.problems, Problem{File: r.file, Field: field, Line: max(at.Line, 1), Column: max(at.Column, 1), Severity: severity,
			Text: fmt.Sprintf(format, args...), Suggestion: suggestion})
	}
}

func (r *reader) fail(at Position, field, format string, args ...any) {
	r.add(Error, at, field, "", format, args...)
}

func (r *reader) warn(at Position, field, format string, args ...any) {
	r.add(Warning, at, field, "", format, args...)
}

// document parses the one document of a file.
func (r *reader) document(text []byte) *yaml.Node {
	if len(text) > maxBytes {
		r.fail(Position{}, "", "the file has %d bytes; a deployment file has at most %d", len(text), maxBytes)
		return nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(bytes.TrimPrefix(text, []byte("\ufeff"))))
	var first, next yaml.Node
	if err := decoder.Decode(&first); err != nil {
		if errors.Is(err, io.EOF) {
			r.fail(Position{}, "", "the file is empty; a deployment file needs targets and manifests")
		} else {
			r.syntax(err, text)
		}
		return nil
	}
	for {
		err := decoder.Decode(&next)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			r.syntax(err, text)
			return nil
		}
		if root := content(&next); root != nil && root.Tag != "!!null" {
			r.fail(position(root), "", "a second document with content; a deployment file is one document")
			return nil
		}
	}
	root := content(&first)
	if root == nil || root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		r.fail(Position{}, "", "the file is empty; a deployment file needs targets and manifests")
		return nil
	}
	return root
}

func content(document *yaml.Node) *yaml.Node {
	if document.Kind == yaml.DocumentNode {
		if len(document.Content) == 0 {
			return nil
		}
		return document.Content[0]
	}
	return document
}

var (
	yamlLine     = regexp.MustCompile(`line (\d+)(?:: column (\d+))?`)
	unknownAlias = regexp.MustCompile(`unknown anchor '([^']*)' referenced`)
)

// syntax reports what the YAML parser says, where it says, as far as that can be known.
func (r *reader) syntax(err error, text []byte) {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	at := Position{Line: 1, Column: 1}
	if m := unknownAlias.FindStringSubmatch(message); m != nil {
		at = find(text, "*"+m[1])
		r.fail(at, "", "unknown alias %s: no anchor &%s comes before it", m[1], m[1])
		return
	}
	if m := yamlLine.FindStringSubmatch(message); m != nil {
		at.Line, _ = strconv.Atoi(m[1])
		message = strings.TrimPrefix(strings.TrimPrefix(message, m[0]), ": ")
		at.Column = indent(text, at.Line)
	}
	r.fail(at, "", "not valid YAML: %s", message)
}

// find is the first place of a word in a text.
func find(text []byte, word string) Position {
	for i, line := range bytes.Split(text, []byte("\n")) {
		if column := bytes.Index(line, []byte(word)); column >= 0 {
			return Position{i + 1, column + 1}
		}
	}
	return Position{1, 1}
}

// indent is the column of the first word of a line.
func indent(text []byte, line int) int {
	lines := bytes.Split(text, []byte("\n"))
	if line < 1 || line > len(lines) {
		return 1
	}
	return len(lines[line-1]) - len(bytes.TrimLeft(lines[line-1], " ")) + 1
}

func position(n *yaml.Node) Position { return Position{n.Line, n.Column} }

// read checks a node against a shape. keyAt is where its key stands, or its own place. nil: it is of another kind.
func (r *reader) read(n *yaml.Node, s *shape, keyAt Position, path string, depth int) *value {
	if r.nodes++; r.nodes > maxNodes {
		if r.nodes == maxNodes+1 {
			r.fail(keyAt, path, "more than %d values, once aliases are followed", maxNodes)
		}
		return nil
	}
	if depth > maxDepth {
		r.fail(keyAt, path, "nested more than %d levels deep", maxDepth)
		return nil
	}
	at := position(n)
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	v := &value{at: at, keyAt: keyAt, shape: s}
	switch s.kind {
	case object:
		return r.object(n, v, path, depth)
	case mapping:
		return r.mapping(n, v, path, depth)
	case list:
		return r.list(n, v, path, depth)
	case anything:
		if err := n.Decode(&v.raw); err != nil {
			r.fail(at, path, "cannot be read: %s", strings.TrimPrefix(err.Error(), "yaml: "))
			return nil
		}
		return v
	}
	if n.Kind != yaml.ScalarNode {
		r.wrongKind(n, at, path, s)
		return nil
	}
	v.scalar = n.Value
	if !r.scalar(n, v, path) {
		return nil
	}
	return v
}

// wrongKind says what stands where something else is wanted. A variable without quotes is read by YAML as a map in a map.
func (r *reader) wrongKind(n *yaml.Node, at Position, path string, s *shape) {
	if n.Kind == yaml.MappingNode && n.Style&yaml.FlowStyle != 0 && len(n.Content) >= 1 && n.Content[0].Kind == yaml.MappingNode {
		r.fail(at, path, "YAML reads {{…}} without quotes as a map; quote it: \"{{…}}\"")
		return
	}
	r.fail(at, path, "%s is wanted here, this is %s", s.wanted(), kindOf(n))
}

func (s *shape) wanted() string {
	switch s.kind {
	case object, mapping:
		return "a map"
	case list:
		return "a list"
	case whole:
		return "a whole number"
	case decimal:
		return "a number"
	case truth:
		return "true or false"
	case word:
		return "one of " + strings.Join(s.words, ", ")
	}
	return "a text"
}

func kindOf(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a map"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Tag == "!!null":
		return "nothing"
	case n.Tag == "!!str":
		return fmt.Sprintf("the text %q", cut(n.Value))
	}
	return cut(n.Value)
}

func cut(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

// scalar checks a scalar against a shape and brings it into its right spelling.
func (r *reader) scalar(n *yaml.Node, v *value, path string) bool {
	wrong := func() bool {
		r.wrongKind(n, v.at, path, v.shape)
		return false
	}
	switch v.shape.kind {
	case text:
		if isNull(n) {
			v.scalar = ""
		}
	case whole:
		number, err := strconv.Atoi(n.Value)
		if n.Tag != "!!int" || err != nil {
			return wrong()
		}
		if number < v.shape.least || v.shape.most > 0 && number > v.shape.most {
			if v.shape.most > 0 {
				r.fail(v.at, path, "%d is not in %d–%d", number, v.shape.least, v.shape.most)
			} else {
				r.fail(v.at, path, "%d is too small; at least %d", number, v.shape.least)
			}
			return false
		}
	case decimal:
		if n.Tag != "!!int" && n.Tag != "!!float" {
			return wrong()
		}
	case truth:
		if n.Tag != "!!bool" {
			return wrong()
		}
		v.scalar = strings.ToLower(n.Value)
	case word:
		for _, known := range slices.Concat(v.shape.words, v.shape.known) {
			if strings.EqualFold(known, n.Value) {
				v.scalar = known
				return true
			}
		}
		nearest := Nearest(n.Value, v.shape.words)
		r.add(Error, v.at, path, nearest, "%q is none of %s", cut(n.Value), strings.Join(v.shape.words, ", "))
		return false
	}
	return true
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// pair is a key and its value in a map.
type pair struct{ key, value *yaml.Node }

// pairs of a map, merge keys followed: what a map says itself comes before what it merges.
func (r *reader) pairs(n *yaml.Node, path string, depth int) []pair {
	var own, merged []pair
	seen := map[string]Position{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Tag == "!!merge" {
			merged = append(merged, r.merged(v, path, depth)...)
			continue
		}
		if k.Kind == yaml.AliasNode {
			k = k.Alias
		}
		if k.Kind != yaml.ScalarNode {
			r.wrongKey(n, k, path)
			continue
		}
		if first, twice := seen[k.Value]; twice {
			r.fail(position(k), path, "duplicate key %s (first at %d:%d)", cut(k.Value), first.Line, first.Column)
			continue
		}
		seen[k.Value] = position(k)
		own = append(own, pair{k, v})
	}
	for _, m := range merged {
		if _, said := seen[m.key.Value]; !said {
			seen[m.key.Value] = position(m.key)
			own = append(own, m)
		}
	}
	return own
}

func (r *reader) wrongKey(n, k *yaml.Node, path string) {
	if n.Style&yaml.FlowStyle != 0 && k.Kind == yaml.MappingNode {
		r.fail(position(n), path, "YAML reads {{…}} without quotes as a map; quote it: \"{{…}}\"")
		return
	}
	r.fail(position(k), path, "a key is a text, this is %s", kindOf(k))
}

func (r *reader) merged(n *yaml.Node, path string, depth int) []pair {
	if r.nodes++; r.nodes > maxNodes || depth > maxDepth {
		r.fail(position(n), path, "too many merged maps")
		return nil
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch n.Kind {
	case yaml.MappingNode:
		return r.pairs(n, path, depth+1)
	case yaml.SequenceNode:
		var all []pair
		for _, item := range n.Content {
			all = append(all, r.merged(item, path, depth+1)...)
		}
		return all
	}
	r.fail(position(n), path, "<< merges a map or a list of maps, this is %s", kindOf(n))
	return nil
}

func (r *reader) object(n *yaml.Node, v *value, path string, depth int) *value {
	s := v.shape
	if n.Kind != yaml.MappingNode {
		if s.short != "" && n.Kind == yaml.ScalarNode && !isNull(n) {
			r.warn(v.at, path, "write it as %s: {%s: …}; the short form is understood", last(path), s.short)
			inner := r.read(n, s.key(s.short).shape, v.keyAt, path+"."+s.short, depth+1)
			if inner == nil {
				return nil
			}
			v.fields = []entry{{s.short, v.at, inner}}
			return v
		}
		if isNull(n) && !s.needs() {
			return v
		}
		r.wrongKind(n, v.at, path, s)
		return nil
	}
	for _, p := range r.pairs(n, path, depth) {
		r.field(v, p, path, depth)
	}
	for _, k := range s.keys {
		if k.required && v.get(k.name) == nil && !r.mentioned(n, k.name) {
			r.fail(v.keyAt, join(path, k.name), "%s is required: %s", k.name, k.doc)
		}
	}
	return v
}

// mentioned reports whether a key stands in a map, or one that was found to be it mistyped: then its absence is not the problem.
func (r *reader) mentioned(n *yaml.Node, name string) bool {
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if strings.EqualFold(k.Value, name) || slices.ContainsFunc(r.problems, func(p Problem) bool {
			return p.Suggestion == name && p.Line == k.Line && p.Column == k.Column
		}) {
			return true
		}
	}
	return false
}

func (s *shape) needs() bool {
	return slices.ContainsFunc(s.keys, func(k key) bool { return k.required })
}

func (s *shape) key(name string) *key {
	for i := range s.keys {
		if s.keys[i].name == name {
			return &s.keys[i]
		}
	}
	return nil
}

// field reads one key of an object into v.
func (r *reader) field(v *value, p pair, path string, depth int) {
	name, at := p.key.Value, position(p.key)
	k := v.shape.key(name)
	if k == nil {
		for i := range v.shape.keys {
			if strings.EqualFold(v.shape.keys[i].name, name) {
				k = &v.shape.keys[i]
				r.add(Warning, at, join(path, name), k.name, "the key is written %s", k.name)
			}
		}
	}
	if k == nil {
		r.unknown(v, p, path)
		return
	}
	path = join(path, k.name)
	if k.void {
		r.warn(at, path, "%s has no effect", k.name)
		return
	}
	if k.means != "" {
		r.add(Warning, at, path, k.means, "%s is an early spelling of %s", k.name, k.means)
		k = v.shape.key(k.means)
	}
	if v.get(k.name) != nil {
		r.fail(at, path, "duplicate key %s", k.name)
		return
	}
	if isNull(p.value) && !k.required {
		return
	}
	inner := r.read(p.value, k.shape, at, path, depth+1)
	if inner != nil {
		v.fields = append(v.fields, entry{k.name, at, inner})
	}
}

// misplaced names, for keys that stand beside the one they belong under, where they belong.
var misplaced = map[string]string{"requiresRoles": "pause", "approvalExpiration": "pause", "untilApproved": "pause"}

func (r *reader) unknown(v *value, p pair, path string) {
	name, at := p.key.Value, position(p.key)
	names := make([]string, 0, len(v.shape.keys))
	for _, k := range v.shape.keys {
		if !k.void && k.means == "" {
			names = append(names, k.name)
		}
	}
	if under := misplaced[name]; under != "" && v.shape.key(under) != nil {
		r.add(Error, at, join(path, name), under+"."+name, "%s stands beside %s; it belongs under it, else anyone could approve", name, under)
		return
	}
	if slices.Contains([]string{"exposeServices", "setWeight"}, name) {
		r.fail(at, join(path, name), "%s is no step for this place; here are: %s", name, strings.Join(names, ", "))
		return
	}
	r.add(Error, at, join(path, name), Nearest(name, names), "unknown key %s; known here: %s", cut(name), strings.Join(names, ", "))
}

func (r *reader) mapping(n *yaml.Node, v *value, path string, depth int) *value {
	s := v.shape
	if isNull(n) && s.least == 0 {
		return v
	}
	if n.Kind == yaml.SequenceNode && s.pairs != "" {
		r.warn(v.at, path, "write it as a map of names to values; the list is understood")
		return r.listAsMap(n, v, path, depth)
	}
	if n.Kind != yaml.MappingNode {
		r.wrongKind(n, v.at, path, s)
		return nil
	}
	for _, p := range r.pairs(n, path, depth) {
		v.fields = append(v.fields, entry{p.key.Value, position(p.key), r.entryValue(p, s, path, depth)})
	}
	if len(v.fields) < s.least {
		r.fail(v.keyAt, path, "%s needs at least %d entry", last(path), s.least)
	}
	return v
}

func (r *reader) entryValue(p pair, s *shape, path string, depth int) *value {
	if isNull(p.value) && s.item.kind == text {
		return &value{at: position(p.value), keyAt: position(p.key), shape: s.item}
	}
	if inner := r.read(p.value, s.item, position(p.key), join(path, p.key.Value), depth+1); inner != nil {
		return inner
	}
	return &value{at: position(p.value), keyAt: position(p.key), shape: s.item} // so that its name is known
}

// listAsMap reads a list of one-pair maps, or of {name, value}, as the map it means.
func (r *reader) listAsMap(n *yaml.Node, v *value, path string, depth int) *value {
	for i, item := range n.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		if item.Kind != yaml.MappingNode {
			r.wrongKind(item, position(item), at, &shape{kind: mapping})
			continue
		}
		pairs := r.pairs(item, at, depth)
		if len(pairs) == 2 && lookup(pairs, "name") != nil && lookup(pairs, "value") != nil {
			pairs = []pair{{lookup(pairs, "name"), lookup(pairs, "value")}}
		}
		for _, p := range pairs {
			v.fields = append(v.fields, entry{p.key.Value, position(p.key), r.entryValue(p, v.shape, path, depth)})
		}
	}
	return v
}

func lookup(pairs []pair, name string) *yaml.Node {
	for _, p := range pairs {
		if strings.EqualFold(p.key.Value, name) {
			return p.value
		}
	}
	return nil
}

func (r *reader) list(n *yaml.Node, v *value, path string, depth int) *value {
	s := v.shape
	switch {
	case isNull(n) && s.least == 0:
		return v
	case n.Kind == yaml.MappingNode && s.pairs != "":
		r.warn(v.at, path, "write it as a list of {key, value}; the map is understood")
		for _, p := range r.pairs(n, path, depth) {
			name := &value{at: position(p.key), keyAt: position(p.key), shape: str(), scalar: p.key.Value}
			inner := r.read(p.value, str(), position(p.key), join(path, p.key.Value), depth+1)
			if inner == nil {
				return nil
			}
			v.items = append(v.items, &value{at: position(p.key), keyAt: position(p.key), shape: s.item,
				fields: []entry{{"key", name.at, name}, {"value", inner.at, inner}}})
		}
		return v
	case n.Kind == yaml.MappingNode && s.one:
		r.warn(v.at, path, "write it as a list; the single entry is understood")
		item := r.read(n, s.item, v.keyAt, path+"[0]", depth+1)
		if item == nil {
			return nil
		}
		v.items = []*value{item}
		return v
	case n.Kind != yaml.SequenceNode:
		r.wrongKind(n, v.at, path, s)
		return nil
	}
	for i, item := range n.Content {
		if inner := r.read(item, s.item, position(item), fmt.Sprintf("%s[%d]", path, i), depth+1); inner != nil {
			v.items = append(v.items, inner)
		}
	}
	if len(n.Content) < s.least {
		r.fail(v.keyAt, path, "%s needs at least %d entry", last(path), s.least)
	}
	return v
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func last(path string) string {
	return path[strings.LastIndexByte(path, '.')+1:]
}

// Nearest is the known word that a mistyped one probably means; "" when none is near.
func Nearest(typed string, known []string) string {
	best, least := "", len(typed)/3+2
	for _, word := range known {
		if d := distance(strings.ToLower(typed), strings.ToLower(word)); d < least {
			best, least = word, d
		}
	}
	return best
}

// distance counts the letters to insert, remove, change or swap (restricted Damerau–Levenshtein).
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, above, row := rows[0], rows[1], rows[2]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(row[j-1]+1, above[j]+1, above[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		rows[0], rows[1], rows[2] = above, row, before
	}
	return rows[1][len(b)]
}
