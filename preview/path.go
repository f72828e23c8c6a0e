package preview

import (
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"
)

// unescapings is how often a path may be unescaped on its way, and still must lead where it says.
const unescapings = 4

var slashes = regexp.MustCompile(`/{2,}`)

// clean is an escaped path with each run of slashes as one. ok is false for a path that could lead elsewhere than it seems to, however often those behind
// unescape it: it is joined to a prefix that it must not leave.
func clean(escaped string) (path string, ok bool) {
	if !strings.HasPrefix(escaped, "/") {
		return "", false
	}
	text := escaped
	for range unescapings {
		if !honest(text) {
			return "", false
		}
		plain, err := url.PathUnescape(text)
		if err != nil || plain == text {
			return slashes.ReplaceAllString(escaped, "/"), true
		}
		text = plain
	}
	return "", false
}

// honest reports whether a path has no step up, no second spelling of a slash, and nothing that is not text. A segment's parameters, behind a semicolon, do
// not count: some servers take them off.
func honest(text string) bool {
	lower := strings.ToLower(text)
	if !utf8.ValidString(text) || strings.Contains(text, `\`) || strings.Contains(lower, "%2f") || strings.Contains(lower, "%5c") {
		return false
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return false
	}
	for segment := range strings.SplitSeq(text, "/") {
		name, _, _ := strings.Cut(segment, ";")
		if name = strings.TrimSpace(name); name == "." || name == ".." {
			return false
		}
	}
	return true
}
