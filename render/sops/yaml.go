package sops

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// readYAML reads documents that are mappings. Each has a copy of the metadata; that of the first counts.
func (f *File) readYAML() error {
	r := &yamlReader{File: f, lines: lineStarts(f.text)}
	decoder := yaml.NewDecoder(bytes.NewReader(f.text))
	for first := true; ; first = false {
		var document yaml.Node
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("it looks like a YAML file that is encrypted with SOPS, and cannot be read: %s", strings.TrimPrefix(err.Error(), "yaml: "))
		}
		if first {
			if err := r.metadata(&document); err != nil {
				return err
			}
		}
		if err := r.document(&document); err != nil {
			return err
		}
	}
}

type yamlReader struct {
	*File
	lines    []int // where each line begins
	comments levels
}

func (r *yamlReader) metadata(document *yaml.Node) error {
	root := document.Content[0]
	if root.Kind != yaml.MappingNode {
		return errNone
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == "sops" {
			if hasAlias(root.Content[i+1], 0) {
				return errAlias
			}
			if err := root.Content[i+1].Decode(&r.meta); err != nil {
				return fmt.Errorf("its SOPS metadata cannot be read: %s", strings.TrimPrefix(err.Error(), "yaml: "))
			}
			return r.begin()
		}
	}
	return errNone
}

var errAlias = errors.New("it has anchors and aliases, which SOPS does not write; encrypt it again")

// hasAlias reports whether an alias, or more depth than any metadata has, is in a tree.
func hasAlias(n *yaml.Node, depth int) bool {
	if n.Kind == yaml.AliasNode || depth > 10 {
		return true
	}
	for _, inner := range n.Content {
		if hasAlias(inner, depth+1) {
			return true
		}
	}
	return false
}

func (r *yamlReader) document(document *yaml.Node) error {
	root := document.Content[0]
	if root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null" {
		return nil
	}
	if root.Kind != yaml.MappingNode || root.Style&yaml.FlowStyle != 0 {
		return fmt.Errorf("line %d: a document of a YAML file that is encrypted with SOPS is a mapping in block style; encrypt it again", root.Line)
	}
	r.comments = levels{false}
	if err := r.comment(nil, document.HeadComment, document.LineComment); err != nil {
		return err
	}
	if err := r.mapping(root, nil, false, r.cut); err != nil {
		return err
	}
	return r.comment(nil, document.FootComment)
}

// comment takes in comments, a leaf a line.
func (r *yamlReader) comment(path []string, texts ...string) error {
	for _, text := range texts {
		for line := range strings.SplitSeq(text, "\n") {
			if line == "" {
				continue
			}
			if err := r.add(r.comments.comment(r.rules, path, line[1:])); err != nil {
				return err
			}
		}
	}
	return nil
}

// inside goes a level down while it reads.
func (r *yamlReader) inside(read func() error) error {
	if len(r.comments) > maxDepth {
		return fmt.Errorf("values more than %d deep in a file that is encrypted with SOPS", maxDepth)
	}
	r.comments = append(r.comments, false)
	err := read()
	r.comments = r.comments[:len(r.comments)-1]
	return err
}

// mapping reads the pairs of a mapping; cut, where given, takes a key away with its value. handled: the comments beside the mapping have been read.
func (r *yamlReader) mapping(n *yaml.Node, path []string, handled bool, cut func(n *yaml.Node, i int) (bool, error)) error {
	if !handled {
		if err := r.comment(path, n.HeadComment, n.LineComment); err != nil {
			return err
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if err := r.comment(path, key.HeadComment, key.LineComment); err != nil {
			return err
		}
		scalar := value.Kind == yaml.ScalarNode
		if scalar {
			if err := r.comment(path, value.HeadComment, value.LineComment); err != nil {
				return err
			}
		}
		gone := false
		if cut != nil {
			var err error
			if gone, err = cut(n, i); err != nil {
				return err
			}
		}
		if !gone {
			if key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str" {
				return fmt.Errorf("line %d: the key %q is no text, and SOPS takes no others; put it in quotes and encrypt the file again", key.Line, clipped(key.Value))
			}
			if err := r.value(value, append(path, key.Value), scalar); err != nil {
				return err
			}
		}
		r.comments[len(r.comments)-1] = false
		if scalar {
			if err := r.comment(path, value.FootComment); err != nil {
				return err
			}
		}
		if err := r.comment(path, key.FootComment); err != nil {
			return err
		}
	}
	if handled {
		return nil
	}
	return r.comment(path, n.FootComment)
}

func (r *yamlReader) value(n *yaml.Node, path []string, handled bool) error {
	switch n.Kind {
	case yaml.MappingNode:
		return r.inside(func() error { return r.mapping(n, path, handled, nil) })
	case yaml.SequenceNode:
		return r.inside(func() error { return r.sequence(n, path, handled) })
	case yaml.ScalarNode:
		return r.scalar(n, path)
	}
	return errAlias
}

func (r *yamlReader) sequence(n *yaml.Node, path []string, handled bool) error {
	if !handled {
		if err := r.comment(path, n.HeadComment, n.LineComment); err != nil {
			return err
		}
	}
	for i, item := range n.Content {
		if err := r.comment(path, item.HeadComment, item.LineComment); err != nil {
			return err
		}
		if wasComment(item) {
			if err := r.cutItem(n, i); err != nil {
				return err
			}
			if err := r.add(r.comments.value(leaf{path: path, value: item.Value})); err != nil {
				return err
			}
			continue
		}
		if err := r.value(item, path, true); err != nil {
			return err
		}
		r.comments[len(r.comments)-1] = false
		if err := r.comment(path, item.FootComment); err != nil {
			return err
		}
	}
	if handled {
		return nil
	}
	return r.comment(path, n.FootComment)
}

// wasComment reports whether an item of a list is an encrypted comment: SOPS makes items of comments in lists.
func wasComment(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && strings.HasPrefix(n.Value, string(encrypted)) && strings.HasSuffix(n.Value, ",type:comment]")
}

// cutItem takes an item of a list away: up to the next one, or, of the last, its line.
func (r *yamlReader) cutItem(n *yaml.Node, i int) error {
	item := n.Content[i]
	at := r.place(item, item.Value)
	if at.to > 0 && n.Style&yaml.FlowStyle == 0 {
		if i+1 < len(n.Content) {
			if next := r.offset(n.Content[i+1]); next >= at.to {
				r.cuts = append(r.cuts, span{at.from, next})
				return nil
			}
		} else if line := r.lines[item.Line-1]; string(bytes.TrimSpace(r.text[line:at.from])) == "-" {
			r.cuts = append(r.cuts, span{line, at.to})
			return nil
		}
	}
	return fmt.Errorf("line %d: an encrypted comment that is not written as SOPS writes it; encrypt the file again", item.Line)
}

func (r *yamlReader) scalar(n *yaml.Node, path []string) error {
	l := leaf{path: path}
	if err := n.Decode(&l.value); err != nil {
		return fmt.Errorf("line %d: %s: %s", n.Line, l.key(), strings.TrimPrefix(err.Error(), "yaml: "))
	}
	switch l.value.(type) {
	case nil:
		return nil
	case string, int, float64, bool, time.Time:
	default:
		return fmt.Errorf("line %d: %s is a number that is too large for SOPS", n.Line, l.key())
	}
	if text, ok := l.encrypted(); ok {
		if l.at = r.place(n, text); l.at.to == 0 {
			return fmt.Errorf("line %d: %s is encrypted, and not written on one line as SOPS writes it; encrypt the file again", n.Line, l.key())
		}
	}
	return r.add(r.comments.value(l))
}

// place is where an encrypted value stands, with its quotes; the zero span where it is not written in one piece.
func (r *yamlReader) place(n *yaml.Node, value string) span {
	from := r.offset(n)
	if from < 0 {
		return span{}
	}
	rest := r.text[from:]
	for _, quote := range []string{"", `"`, "'"} {
		if written := quote + value + quote; bytes.HasPrefix(rest, []byte(written)) {
			return span{from, from + len(written)}
		}
	}
	return span{}
}

// maxColumn is as far to the right as depth and keys may bring a value that stands on a line of its own, and more.
const maxColumn = 5000

// offset is where a node begins in the text; -1 where lines are counted differently, or longer than SOPS makes them.
func (r *yamlReader) offset(n *yaml.Node) int {
	if n.Line < 1 || n.Line > len(r.lines) || n.Column > maxColumn {
		return -1
	}
	at := r.lines[n.Line-1]
	for range n.Column - 1 {
		_, size := utf8.DecodeRune(r.text[at:])
		if at += size; size == 0 {
			return -1
		}
	}
	return at
}

// cut takes the metadata of a document away, whole lines of it.
func (r *yamlReader) cut(n *yaml.Node, i int) (bool, error) {
	key := n.Content[i]
	if key.Value != "sops" {
		return false, nil
	}
	from := r.offset(key)
	if key.Column != 1 || from < 0 || !bytes.HasPrefix(r.text[from:], []byte("sops:")) {
		return false, fmt.Errorf("line %d: sops is not written at the start of a line, as SOPS writes it; encrypt the file again", key.Line)
	}
	to := len(r.text)
	if i+2 < len(n.Content) {
		if to = r.offset(n.Content[i+2]); to < from || n.Content[i+2].Column != 1 {
			return false, fmt.Errorf("line %d: what follows sops is not written at the start of a line, as SOPS writes it; encrypt the file again", key.Line)
		}
	} else {
		for _, line := range r.lines[key.Line:] {
			if bytes.HasPrefix(r.text[line:], []byte("---")) || bytes.HasPrefix(r.text[line:], []byte("...")) {
				to = line
				break
			}
		}
	}
	r.cuts = append(r.cuts, span{from, to})
	return true, nil
}

// lineStarts is where the lines of a text begin.
func lineStarts(text []byte) []int {
	starts := []int{0}
	for i, c := range text {
		if c == '\n' {
			starts = append(starts, i+1)
		}
	}
	return starts
}
