package gitsource

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func FuzzTreesAreReadAsGitWroteThem(f *testing.F) {
	f.Add([]byte("100644 a\x00" + strings.Repeat("x", 20) + "40000 b\x00" + strings.Repeat("y", 20)))
	f.Add([]byte("160000 \xff\x00" + strings.Repeat("\x00", 20)))
	f.Add([]byte("100644 a"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := parseTree(data)
		if err != nil {
			return
		}
		for _, e := range list {
			if !validPath(e.name) && len(e.name) <= maxPath {
				t.Errorf("a tree has an entry %q", e.name)
			}
			if got, ok := find(list, e.name); !ok || got != e {
				t.Errorf("%q is not found", e.name)
			}
		}
		again, err := parseTree(encodeTree(list))
		if err != nil || !slices.Equal(again, list) {
			t.Errorf("%v: %v became %v", err, list, again)
		}
	})
}

func FuzzAddresses(f *testing.F) {
	for _, url := range []string{"https://bob:hunter2@example.com/x", "git@host:path", "ssh://h/~x", "file:///x", "/x", "http://[::1]:80/x?hunter2"} {
		f.Add(url)
	}
	f.Fuzz(func(t *testing.T, url string) {
		a, err := parseAddress(url)
		if err != nil {
			return
		}
		if a.path == "" || a.display == "" || a.scheme != "file" && (a.host == "" || a.port == "") {
			t.Errorf("%q: %+v", url, a)
		}
		if a.scheme == "ssh" && strings.HasPrefix(a.path, "-") {
			t.Errorf("%q: the path %q is an option", url, a.path)
		}
	})
}

func FuzzPatternsAndTheirListingAgree(f *testing.F) {
	f.Add("**/deploy.y*ml", "a/b/deploy.yml")
	f.Add("a/**/b", "a/b")
	f.Add("**/**/x", "x")
	f.Fuzz(func(t *testing.T, glob, path string) {
		p, err := NewPatterns([]string{glob})
		if err != nil || !validPath(path) || strings.ContainsRune(path, 0) {
			return
		}
		tree, err := NewTree(map[string][]byte{path: nil}, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		l, err := List(tree, p, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := l.Len() == 1; got != p.Match(path) {
			t.Errorf("%q and %q: listed %v, matched %v", glob, path, got, !got)
		}
	})
}

func FuzzAPackIsMeasuredBeforeItIsRead(f *testing.F) {
	f.Add([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x00"))
	f.Add([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x01\xbf\xff\xff\xff\x7fx"))
	f.Fuzz(func(t *testing.T, data []byte) {
		limits := Limits{ObjectBytes: 1 << 16, UnpackedBytes: 1 << 20, Objects: 100}.orDefaults()
		_, _ = indexPack(t.Context(), bytes.NewReader(data), limits)
	})
}
