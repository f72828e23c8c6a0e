package status

import (
	"fmt"
	"html"
	"regexp"
	"strings"
	"unicode"
)

// What comes from a pull request is a stranger's: here it becomes text that shows what it says, and is nothing else. It mentions nobody, links to nothing, is no
// HTML, ends no cell, fold or fence, and hides no letter.

// unseen are letters that nobody sees, or that turn those around them, and that are in none of the classes for it.
var unseen = &unicode.RangeTable{R16: []unicode.Range16{{0x034f, 0x034f, 1}, {0x115f, 0x1160, 1}, {0x17b4, 0x17b5, 1}, {0x2800, 0x2800, 1}, {0x3164, 0x3164, 1}, {0xfe00, 0xfe0f, 1},
	{0xffa0, 0xffa0, 1}}, R32: []unicode.Range32{{0xe0100, 0xe01ef, 1}}}

// visible puts a name in the place of each letter that is not seen as it is, but for line ends and tabs.
func visible(text string) string {
	var out strings.Builder
	for _, r := range strings.ToValidUTF8(text, "\ufffd") {
		switch {
		case r == '\n', r == '\t', r >= ' ' && r <= '~':
			out.WriteRune(r)
		case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Zl, unicode.Zp, unseen):
			fmt.Fprintf(&out, "‹U+%04X›", r)
		default:
			out.WriteRune(r)
		}
	}
	return out.String()
}

// line is a text on one line, of at most so many letters.
func line(text string, most int) string {
	text = strings.Join(strings.Fields(visible(strings.ReplaceAll(text, "\r\n", "\n"))), " ")
	if letters := []rune(text); len(letters) > most {
		return strings.TrimRight(string(letters[:most-1]), " ") + "…"
	}
	return text
}

// longestRun is how many backticks stand side by side in a text, at most.
func longestRun(text string) (longest int) {
	run := 0
	for _, r := range text {
		if run++; r != '`' {
			run = 0
		}
		longest = max(longest, run)
	}
	return longest
}

// code shows a name as code on one line, in prose and in the cells of tables. A table takes a pipe for the end of a cell even in code, so another letter stands
// for it.
func code(text string, most int) string {
	text = strings.ReplaceAll(line(text, most), "|", "¦")
	if text == "" {
		return "–"
	}
	ticks := strings.Repeat("`", longestRun(text)+1)
	if strings.HasPrefix(text, "`") || strings.HasSuffix(text, "`") {
		text = " " + text + " "
	}
	return ticks + text + ticks
}

// tag shows a name as code within HTML, such as the line of a fold that is always seen.
func tag(text string, most int) string {
	return "<code>" + html.EscapeString(line(text, most)) + "</code>"
}

// split is put between letters that GitHub would make something of together. Nobody sees it.
const split = "\u200b"

var (
	// markdown are the letters that can be more than themselves.
	markdown = regexp.MustCompile("[!#$&(-+.:<=>@\\[-`{-~-]")
	// together are what GitHub links, or tells somebody of: people, teams, issues, addresses.
	together = regexp.MustCompile(`(?i)[@#]|\bGH(-)|://|\b(www)\.`)
)

// prose shows a sentence as it is, on one line, also in the cells of tables.
func prose(text string, most int) string {
	text = together.ReplaceAllStringFunc(line(text, most), func(found string) string { return found[:len(found)-1] + split + found[len(found)-1:] + split })
	return markdown.ReplaceAllString(text, `\$0`)
}

// fence shows a text of many lines as it is.
func fence(language, text string) string {
	text = strings.TrimSuffix(visible(strings.ReplaceAll(text, "\r\n", "\n")), "\n")
	ticks := strings.Repeat("`", max(2, longestRun(text))+1)
	return ticks + language + "\n" + text + "\n" + ticks + "\n"
}
