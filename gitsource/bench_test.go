package gitsource_test

import (
	"flag"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"towpath/gitsource"
	"towpath/internal/testkit/genrepo"
	"towpath/internal/testkit/gitserver"
)

// apps is the size of the repository that benchmarks run on: -apps 5000 is the one that the figures in the documentation are of.
var apps = flag.Int("apps", 500, "applications in the repository of the benchmarks")

// large is a mirror of a generated repository, with room for all of it in memory.
func large(b *testing.B) (*gitsource.Mirror, gitsource.Config, []string) {
	b.Helper()
	dir := filepath.Join(b.TempDir(), "gen.git")
	_, err := genrepo.Write(b.Context(), dir, genrepo.Options{Apps: *apps})
	ok(b, err)
	c := gitsource.Config{URL: dir, Dir: filepath.Join(b.TempDir(), "mirror"), Limits: gitsource.Limits{CacheBytes: 256 << 20}}
	m := open(b, c)
	fetch(b, m)
	return m, c, strings.Fields(gitserver.Open(b, dir).Git("rev-list", "--reverse", "main"))
}

func BenchmarkChanged(b *testing.B) {
	m, _, commits := large(b)
	for name, pair := range map[string][2]int{"one commit": {100, 101}, "202 commits": {0, len(commits) - 1}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				_, err := m.Changed(commits[pair[0]], commits[pair[1]])
				ok(b, err)
			}
		})
	}
	b.Run("each commit once", func(b *testing.B) { // trees that nobody has read yet, until they come round
		at := 0
		for b.Loop() {
			at = at%(len(commits)-3) + 1
			_, err := m.Changed(commits[at-1], commits[at])
			ok(b, err)
		}
	})
}

func BenchmarkFiles(b *testing.B) {
	m, c, commits := large(b)
	p, err := gitsource.NewPatterns(nil)
	ok(b, err)
	b.Run("next commit", func(b *testing.B) {
		at := 0
		for b.Loop() {
			at = at%(len(commits)-3) + 1
			_, err := m.Files(commits[at], p)
			ok(b, err)
		}
	})
	ok(b, m.Close())
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			m, err := gitsource.Open(c)
			ok(b, err)
			_, err = m.Files(commits[0], p)
			ok(b, err)
			ok(b, m.Close())
		}
	})
}

func BenchmarkTree(b *testing.B) {
	m, c, commits := large(b)
	head := commits[len(commits)-1]
	readAll := func(b *testing.B, m *gitsource.Mirror, root string) (files int) {
		t, err := m.Tree(head)
		ok(b, err)
		err = fs.WalkDir(t, root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			files++
			_, err = t.ReadFile(path)
			return err
		})
		ok(b, err)
		return files
	}
	t, err := m.Tree(head)
	ok(b, err)
	teams, err := t.ReadDir("apps")
	ok(b, err)
	list, err := t.ReadDir("apps/" + teams[0].Name())
	ok(b, err)
	one := "apps/" + teams[0].Name() + "/" + list[0].Name()
	b.Run("files of one app, warm", func(b *testing.B) {
		for b.Loop() {
			readAll(b, m, one)
		}
	})
	b.Run("one file, warm, in parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_, err := t.ReadFile("shared/base/kustomization.yaml")
				ok(b, err)
			}
		})
	})
	ok(b, m.Close())
	b.Run("open and read one file", func(b *testing.B) {
		for b.Loop() {
			m, err := gitsource.Open(c)
			ok(b, err)
			t, err := m.Tree(head)
			ok(b, err)
			read(b, t, "README.md")
			ok(b, m.Close())
		}
	})
	b.Run("open and read every file", func(b *testing.B) {
		for b.Loop() {
			m, err := gitsource.Open(c)
			ok(b, err)
			b.ReportMetric(float64(readAll(b, m, ".")), "files")
			ok(b, m.Close())
		}
	})
}

func BenchmarkFetch(b *testing.B) {
	dir := b.TempDir()
	_, err := genrepo.Write(b.Context(), filepath.Join(dir, "gen.git"), genrepo.Options{Apps: *apps})
	ok(b, err)
	repo := gitserver.Open(b, filepath.Join(dir, "gen.git"))
	s := gitserver.Serve(b, dir, gitserver.Options{})
	over := gitsource.Config{URL: s.URL + "/gen.git", HTTP: &http.Client{Transport: s.Transport(b)}, AllowHTTP: true}
	local := gitsource.Config{URL: repo.Dir}
	for name, c := range map[string]gitsource.Config{"http": over, "local": local} {
		b.Run(name+", first", func(b *testing.B) {
			for b.Loop() {
				c.Dir = b.TempDir()
				m, err := gitsource.Open(c)
				ok(b, err)
				fetch(b, m)
				ok(b, m.Close())
			}
		})
		c.Dir = b.TempDir()
		m := open(b, c)
		fetch(b, m)
		b.Run(name+", nothing new", func(b *testing.B) {
			for b.Loop() {
				fetch(b, m)
			}
		})
		b.Run(name+", one commit", func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				repo.Commit("next", gitserver.Files{"README.md": repo.Head("main")})
				b.StartTimer()
				fetch(b, m)
			}
		})
	}
}
