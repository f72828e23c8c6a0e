// Package pages reads the project's Markdown pages for tests that hold them to what they say: links lead somewhere, commands exist, blocks run.
package pages

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"
	"mvdan.cc/sh/v3/syntax"
)

// Page is one page.
type Page struct {
	Path    string // below the module's root, with slashes
	Blocks  []Block
	Links   []Link
	Anchors map[string]bool // of its headings, as GitHub makes them
}

// Block is a block of code.
type Block struct {
	Line     int    // of its first line of code
	Language string // "": none given, or an indented block
	Text     string
	Note     string // N of a comment <!-- test: N --> right before it
}

// Link is a link or an image.
type Link struct {
	Line int
	To   string
}

// Root is the module's directory.
func Root(t testing.TB) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
}

// All reads every page of the module.
func All(t testing.TB) (all []Page) {
	t.Helper()
	root := Root(t)
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && name != root {
			return fs.SkipDir
		}
		if filepath.Ext(name) == ".md" {
			below, err := filepath.Rel(root, name)
			if err != nil {
				return err
			}
			all = append(all, Read(t, filepath.ToSlash(below)))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Read reads one page, given below the module's root.
func Read(t testing.TB, path string) Page {
	t.Helper()
	source, err := os.ReadFile(filepath.Join(Root(t), filepath.FromSlash(path)))
	if err != nil {
		t.Fatal(err)
	}
	p := Page{Path: path, Anchors: map[string]bool{}}
	line := func(offset int) int { return bytes.Count(source[:offset], []byte("\n")) + 1 }
	note, at := "", 1
	document := goldmark.New(goldmark.WithExtensions(extension.GFM)).Parser().Parse(text.NewReader(source))
	err = ast.Walk(document, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		if n.Type() == ast.TypeBlock && n.Lines() != nil && n.Lines().Len() > 0 {
			at = line(n.Lines().At(0).Start)
		}
		switch n := n.(type) {
		case *ast.HTMLBlock:
			note = noteIn(string(n.Lines().Value(source)))
			return ast.WalkContinue, nil
		case *ast.Heading:
			p.anchor(words(n, source))
		case *ast.FencedCodeBlock:
			p.Blocks = append(p.Blocks, Block{Line: at, Language: string(n.Language(source)), Text: string(n.Lines().Value(source)), Note: note})
		case *ast.CodeBlock:
			p.Blocks = append(p.Blocks, Block{Line: at, Text: string(n.Lines().Value(source)), Note: note})
		case *ast.Link:
			p.Links = append(p.Links, Link{at, string(n.Destination)})
		case *ast.Image:
			p.Links = append(p.Links, Link{at, string(n.Destination)})
		}
		if n.Type() == ast.TypeBlock && n.Kind() != ast.KindDocument {
			note = ""
		}
		return ast.WalkContinue, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func noteIn(comment string) string {
	inside, found := strings.CutPrefix(strings.TrimSpace(comment), "<!-- test:")
	inside, closed := strings.CutSuffix(inside, "-->")
	if !found || !closed {
		return ""
	}
	return strings.TrimSpace(inside)
}

// words are the text of a node without its marks.
func words(n ast.Node, source []byte) string {
	var out strings.Builder
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		if t, ok := c.(*ast.Text); ok {
			out.Write(t.Segment.Value(source))
		} else {
			out.WriteString(words(c, source))
		}
	}
	return out.String()
}

// anchor adds a heading's: letters, digits, - and _ in lower case, blanks as -, and a number behind one that was there before.
func (p *Page) anchor(heading string) {
	name := strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, heading)
	free := name
	for i := 1; p.Anchors[free]; i++ {
		free = fmt.Sprintf("%s-%d", name, i)
	}
	p.Anchors[free] = true
}

// Command is a command that a page tells its reader to run.
type Command struct {
	Where string // page:line
	Args  []string
}

// Commands are all calls of a program in the shell blocks of pages. A word that only a shell could fill in stands as it is written.
func Commands(t testing.TB, all []Page, program string) (found []Command) {
	t.Helper()
	for _, p := range all {
		for _, b := range p.Blocks {
			if b.Language != "sh" {
				continue
			}
			file, err := syntax.NewParser().Parse(strings.NewReader(b.Text), p.Path)
			if err != nil {
				t.Errorf("%s:%d: no shell can read this block: %v", p.Path, b.Line, err)
				continue
			}
			syntax.Walk(file, func(n syntax.Node) bool {
				call, ok := n.(*syntax.CallExpr)
				if !ok || len(call.Args) == 0 || filepath.Base(call.Args[0].Lit()) != program {
					return true
				}
				c := Command{Where: fmt.Sprintf("%s:%d", p.Path, b.Line+int(call.Pos().Line())-1)}
				for _, word := range call.Args[1:] {
					c.Args = append(c.Args, literal(t, word))
				}
				found = append(found, c)
				return true
			})
		}
	}
	return found
}

func literal(t testing.TB, word *syntax.Word) string {
	t.Helper()
	var out strings.Builder
	for _, part := range word.Parts {
		switch part := part.(type) {
		case *syntax.Lit:
			out.WriteString(part.Value)
		case *syntax.SglQuoted:
			out.WriteString(part.Value)
		default:
			if err := syntax.NewPrinter().Print(&out, part); err != nil {
				t.Fatal(err)
			}
		}
	}
	return out.String()
}
