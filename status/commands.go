package status

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"

	"towpath/deployment"
)

// Command is one line of a comment that asks for something: /towpath VERB [TARGET|APPLICATION/TARGET|all] [--reason "…"].
type Command struct {
	Line   string // as it was written
	Verb   string // in lower case
	Of     string // what it is about: a target, an application, or a commit; "": the only one
	Reason string
	Wrong  string // why it is none that could be done, as a sentence; "": it may be
}

const (
	// All is what a command is about that is about whatever it can be.
	All = "all"
	// MaxCommands is how many commands of one comment are done.
	MaxCommands = 5

	maxReason  = 1024
	maxOperand = 512
)

// verbs are what can be asked for, each with what it can be about and whether a reason can be given.
var verbs = map[string]struct {
	of      string
	reasons bool
}{
	"help":    {},
	"status":  {},
	"plan":    {of: "commit"},
	"approve": {"target", true},
	"reject":  {"target", true},
	"skip":    {"target", true},
	"retry":   {"target", true},
	"cancel":  {"application", true},
	"pause":   {"application", true},
	"resume":  {"application", true},
}

// called is how a line begins that asks for something.
var called = regexp.MustCompile(`(?i)^/towpath(?:[ \t]+|$)`)

// Calls reports whether a comment may hold commands.
func Calls(body string) bool { return strings.Contains(strings.ToLower(body), "/towpath") }

// Commands are those of a comment, in order, at most one more than MaxCommands. A command is a line of a paragraph that stands by itself: not in a quote, a list, a
// table or a heading, nor within code, links, HTML or anything else that makes of words what nobody says here.
func Commands(body string) (all []Command) {
	if !Calls(body) || len(body) > 4*maxText {
		return nil
	}
	source := []byte(strings.ReplaceAll(body, "\r\n", "\n"))
	document := goldmark.New(goldmark.WithExtensions(extension.Table, extension.Strikethrough, extension.Footnote)).Parser().Parse(text.NewReader(source))
	for block := document.FirstChild(); block != nil; block = block.NextSibling() {
		switch block := block.(type) {
		case *ast.HTMLBlock:
			if block.HTMLBlockType != ast.HTMLBlockType2 { // a comment ends; of what else begins here nobody knows where it does
				return all
			}
		case *ast.Paragraph:
			for _, line := range spoken(block, source) {
				if all = append(all, command(line)); len(all) > MaxCommands {
					return all
				}
			}
		}
	}
	return all
}

// maxText is how many letters GitHub takes of a comment; each has up to four bytes.
const maxText = 65536

// spoken are the lines of a paragraph that ask for something: their first word is text, and nothing more than that. Behind a tag nothing counts: it may make
// code of what follows.
func spoken(p *ast.Paragraph, source []byte) (lines []string) {
	said := map[int]bool{} // where text begins
	for part := p.FirstChild(); part != nil && part.Kind() != ast.KindRawHTML; part = part.NextSibling() {
		if words, is := part.(*ast.Text); is {
			said[words.Segment.Start] = true
		}
	}
	for i := range p.Lines().Len() {
		segment := p.Lines().At(i)
		line := strings.TrimRight(string(segment.Value(source)), " \t\r\n")
		if said[segment.Start] && called.MatchString(line) {
			lines = append(lines, line)
		}
	}
	return lines
}

// command takes a line apart that asks for something.
func command(asked string) (c Command) {
	c.Line = line(asked, 200)
	wrong := func(format string, args ...any) Command {
		c.Wrong = fmt.Sprintf(format, args...)
		return c
	}
	if visible(asked) != asked {
		return wrong("it holds letters that nobody sees; write it anew, without them")
	}
	words, closed := words(asked[len(called.FindString(asked)):])
	switch {
	case !closed:
		return wrong("its quote has no end")
	case len(words) == 0:
		return wrong("it lacks a verb: %s", known())
	}
	c.Verb = strings.ToLower(words[0])
	verb, is := verbs[c.Verb]
	if !is {
		if near := deployment.Nearest(c.Verb, slices.Sorted(maps.Keys(verbs))); near != "" {
			return wrong("there is no verb %s; did you mean %s?", c.Verb, near)
		}
		return wrong("there is no verb %s; there are %s", c.Verb, known())
	}
	for rest := words[1:]; len(rest) > 0; {
		word := rest[0]
		value, given := strings.CutPrefix(word, "--reason=")
		switch rest = rest[1:]; {
		case word == "--reason" && len(rest) == 0, given && value == "":
			return wrong("--reason lacks the reason")
		case word == "--reason":
			value, given, rest = rest[0], true, rest[1:]
		case !given && strings.HasPrefix(word, "-"):
			return wrong("there is no %s; there is --reason \"…\"", word)
		case !given && verb.of == "":
			return wrong("%s takes nothing more, so what is %s?", c.Verb, word)
		case !given && c.Of != "":
			return wrong("%s takes one %s, so what is %s? Words of a reason belong into quotes", c.Verb, verb.of, word)
		case !given:
			c.Of = word
		}
		switch {
		case given && !verb.reasons:
			return wrong("%s takes no reason", c.Verb)
		case given && c.Reason != "":
			return wrong("it gives two reasons")
		case given:
			c.Reason = value
		}
	}
	switch {
	case utf8.RuneCountInString(c.Reason) > maxReason:
		return wrong("its reason has more than %d letters", maxReason)
	case len(c.Of) > maxOperand:
		return wrong("no %s has a name as long as that", verb.of)
	case verb.of == "commit" && c.Of != "" && !sha.MatchString(c.Of):
		return wrong("%s takes a commit with all its 40 letters: of shorter ones there may be others", c.Verb)
	}
	return c
}

func known() string { return strings.Join(slices.Sorted(maps.Keys(verbs)), ", ") }

// quotes are those that begin a quoted word, with what ends it: telephones write the curved ones.
var quotes = map[rune]string{'"': `"`, '“': `”`, '„': `“”`}

// words are what stands between blanks; within quotes blanks are letters.
func words(line string) (words []string, closed bool) {
	var word strings.Builder
	begun, ends := false, ""
	for _, r := range line {
		switch {
		case ends != "" && strings.ContainsRune(ends, r):
			ends = ""
		case ends != "":
			word.WriteRune(r)
		case quotes[r] != "" && (!begun || word.String() == "--reason="):
			begun, ends = true, quotes[r]
		case r == ' ' || r == '\t':
			if begun {
				words = append(words, word.String())
			}
			word.Reset()
			begun = false
		default:
			begun = true
			word.WriteRune(r)
		}
	}
	if begun {
		words = append(words, word.String())
	}
	return words, ends == ""
}
