package preview

import (
	"net/url"
	"path"
	"strings"
	"testing"
)

func TestPathsThatCouldLeadElsewhereAreRefused(t *testing.T) {
	for _, hostile := range []string{
		"", "x", "*", "/..", "/../", "/a/../b", "/a/..", "/.", "/./a",
		"/%2e%2e/", "/%2e%2e", "/%2E%2e/x", "/.%2e/x", "/%2e./x", "/%2e",
		"/%252e%252e/", "/%25252e%25252e/x", "/%2525252e%2525252e/x", "/%252525252e%252525252e/x", "/%25252525252e",
		"/..;/x", "/..;a=b/x", "/%2e%2e;/x", "/.;/x", "/..%3b/x", "/..%253b/x", "/..%20/x",
		`/a\b`, `/..\..\x`, "/a%5cb", "/..%5c..%5cx", "/a%255cb",
		"/a%2fb", "/a%2Fb", "/..%2f..%2fx", "/a%252fb", "/%2f%2fevil.example.com",
		"/a%00b", "/a%0d%0ab", "/a%7fb", "/a%2500b",
		"/%c0%ae%c0%ae/", "/%ff",
	} {
		if got, ok := clean(hostile); ok {
			t.Errorf("%q goes through as %q", hostile, got)
		}
	}
}

func TestPathsOfPeopleGoThrough(t *testing.T) {
	for given, want := range map[string]string{
		"/":                             "/",
		"/a/b/":                         "/a/b/",
		"//a///b//":                     "/a/b/",
		"//evil.example.com/x":          "/evil.example.com/x",
		"/.well-known/x":                "/.well-known/x",
		"/a..b/...":                     "/a..b/...",
		"/a%20b/%C3%A4%3Fx":             "/a%20b/%C3%A4%3Fx",
		"/100%25":                       "/100%25",
		"/100%25/%25zz":                 "/100%25/%25zz",
		"/@scope/pkg;v=1/x,y":           "/@scope/pkg;v=1/x,y",
		"/api/v1/namespaces/x/services": "/api/v1/namespaces/x/services",
	} {
		if got, ok := clean(given); !ok || got != want {
			t.Errorf("%q goes through as %q (%t), want %q", given, got, ok, want)
		}
	}
}

// Whatever goes through stays below the prefix, unescaped and resolved as often as anybody likes.
func FuzzPathsStayBelowTheirPrefix(f *testing.F) {
	for _, seed := range []string{"/", "/a/../b", "/%252e%252e/x", "/..;/", `/a\..\b`, "//x", "/a%2f..%2fb", "/%25%32%65%25%32%65/"} {
		f.Add(seed)
	}
	const prefix = "/api/v1/namespaces/shop/services/web:80/proxy"
	f.Fuzz(func(t *testing.T, given string) {
		cleaned, ok := clean(given)
		if !ok {
			return
		}
		text := prefix + cleaned
		for range 8 {
			slashed := strings.ReplaceAll(text, `\`, "/")
			if resolved := path.Clean(slashed); resolved != prefix && !strings.HasPrefix(resolved, prefix+"/") {
				t.Fatalf("%q goes through as %q and leads to %q", given, cleaned, resolved)
			}
			plain, err := url.PathUnescape(text)
			if err != nil {
				return
			}
			text = plain
		}
	})
}
