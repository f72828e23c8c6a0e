package gitsource_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"towpath/gitsource"
	"towpath/internal/testkit/genrepo"
	"towpath/internal/testkit/gitserver"
)

// generated is a repository with a long history, and its commits from the oldest.
func generated(t testing.TB, apps int) (*gitsource.Mirror, func(args ...string) string, []string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "gen.git")
	_, err := genrepo.Write(t.Context(), dir, genrepo.Options{Apps: apps})
	ok(t, err)
	repo := gitserver.Open(t, dir)
	m := open(t, gitsource.Config{URL: dir})
	fetch(t, m)
	return m, repo.Git, strings.Fields(repo.Git("rev-list", "--reverse", "main"))
}

// lines are a NUL-separated list in byte order.
func lines(text string) []string {
	list := strings.FieldsFunc(text, func(r rune) bool { return r == 0 })
	slices.Sort(list)
	return list
}

func TestWhatChangedIsWhatGitSays(t *testing.T) {
	t.Parallel()
	m, git, commits := generated(t, 60)
	check := func(older, newer string) {
		t.Helper()
		got, err := m.Changed(older, newer)
		ok(t, err)
		want := lines(git("diff", "--no-renames", "--name-only", "-z", older, newer))
		if !slices.Equal(got, want) {
			t.Errorf("%.8s..%.8s: got %d paths, git says %d\n%v\n%v", older, newer, len(got), len(want), got, want)
		}
	}
	last := len(commits) - 1
	check(commits[0], commits[last]) // 202 commits
	check(commits[last], commits[0])
	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		check(commits[random.IntN(len(commits))], commits[random.IntN(len(commits))])
	}
	check(commits[last-1], commits[last])
	got, err := m.Changed("", commits[last])
	ok(t, err)
	if want := lines(git("ls-tree", "-r", "--name-only", "-z", "main")); !slices.Equal(got, want) {
		t.Errorf("everything: got %d paths, git says %d", len(got), len(want))
	}
	same, err := m.Changed(commits[3], commits[3])
	ok(t, err)
	equal(t, len(same), 0)
	_, err = m.Changed(strings.Repeat("1", 40), commits[3])
	if !errors.Is(err, gitsource.ErrUnknownCommit) {
		t.Errorf("got %v", err)
	}
}

func TestKindsThatChangeAreSeen(t *testing.T) {
	t.Parallel()
	sub := strings.Repeat("ab", 20)
	repo := gitserver.NewRepo(t, t.TempDir(), "config", gitserver.Files{
		"a": "file", "b/x": "1", "b/y/z": "2", "c": gitserver.Link("a"), "d": gitserver.Submodule(sub), "same/deep/file": "s", "e.x": "1", "e/x": "1",
	})
	first := repo.Head("main")
	second := repo.Commit("all kinds", gitserver.Files{
		"a": gitserver.Delete, "a/in": "now a directory", "b/x": gitserver.Delete, "b/y/z": gitserver.Delete, "b": "now a file",
		"c": "now a file", "d": gitserver.Submodule(strings.Repeat("cd", 20)), "e/x": "2",
	})
	m := open(t, gitsource.Config{URL: repo.Dir})
	fetch(t, m)
	got, err := m.Changed(first, second)
	ok(t, err)
	equal(t, fmt.Sprint(got), "[a a/in b b/x b/y/z c d e/x]")
	if want := lines(repo.Git("diff", "--no-renames", "--name-only", "-z", first, second)); !slices.Equal(got, want) {
		t.Errorf("git says %v", want)
	}
}

func TestATreeThatRepeatsItselfIsLimited(t *testing.T) {
	t.Parallel()
	repo := gitserver.NewRepo(t, t.TempDir(), "config", gitserver.Files{"a": "1"})
	first := repo.Head("main")
	id, kind := repo.GitInput([]byte("x"), "hash-object", "-w", "--stdin"), "100644 blob "
	for range 12 { // ten entries each, twelve levels: a million million paths in a kilobyte
		var list strings.Builder
		for i := range 10 {
			fmt.Fprintf(&list, "%s%s\t%ddeploy.yaml\n", kind, id, i)
		}
		id, kind = repo.GitInput([]byte(list.String()), "mktree"), "040000 tree "
	}
	bomb := repo.Git("commit-tree", "-m", "bomb", id)
	repo.Git("update-ref", "refs/heads/main", bomb)
	m := open(t, gitsource.Config{URL: repo.Dir, Limits: gitsource.Limits{Files: 10_000}})
	equal(t, fetch(t, m).Commit, bomb)
	_, err := m.Changed(first, bomb)
	if !errors.Is(err, gitsource.ErrTooLarge) || !strings.Contains(err.Error(), "more than 10000 paths differ") {
		t.Errorf("changed: %v", err)
	}
	p, err := gitsource.NewPatterns([]string{"**/*.yaml"})
	ok(t, err)
	_, err = m.Files(bomb, p)
	if !errors.Is(err, gitsource.ErrTooLarge) || !strings.Contains(err.Error(), "more than 10000 files and directories") {
		t.Errorf("files: %v", err)
	}
}

func TestPatternsSayWhichFilesAreOurs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		globs, match, other []string
	}{
		{nil, []string{"towpath.yaml", "deploy.yml", "a/deploy.yaml", "a/towpath.yaml", "a/.github/deploy.yml", "deploy.y.ml"},
			[]string{"", "towpath.yml", "a/deploy.json", "xdeploy.yml", "a/deploy-web.yaml", "deploy.yml/x", ".github/deploy.yml", ".github/workflows/deploy.yml", "Deploy.yml"}},
		{[]string{"deploy/*.yml"}, []string{"deploy/a.yml"}, []string{"deploy/a/b.yml", "a/deploy/a.yml", "deploy.yml"}},
		{[]string{"apps/**"}, []string{"apps/x", "apps/a/b/c"}, []string{"apps", "other/x"}},
		{[]string{"**"}, []string{"x", "a/b"}, []string{".github/x"}},
		{[]string{"a/**/b/*.y"}, []string{"a/b/x.y", "a/c/d/b/x.y", "a/b/b/x.y"}, []string{"a/x.y", "b/x.y", "a/b/c/x.y"}},
		{[]string{"**/x/**/y"}, []string{"x/y", "a/x/b/y", "x/x/y/y"}, []string{"x", "y/x", "a/y"}},
		{[]string{"./a/[a-c]?.yml", "b"}, []string{"a/bx.yml", "b"}, []string{"a/dx.yml", "a/b.yml", "a/b"}},
		{[]string{".github/deploy.yml"}, nil, []string{".github/deploy.yml"}},
	} {
		p, err := gitsource.NewPatterns(c.globs)
		ok(t, err)
		for _, path := range c.match {
			if !p.Match(path) {
				t.Errorf("%q does not match %s", c.globs, path)
			}
		}
		for _, path := range c.other {
			if p.Match(path) {
				t.Errorf("%q matches %s", c.globs, path)
			}
		}
		equal(t, len(p.Select(append(slices.Clone(c.other), c.match...))), len(c.match))
	}
	for glob, want := range map[string]string{
		"": "it is empty", "/a": `write "a"`, "a/": `write "a/**"`, "a//b": "an empty name", "a/../b": "an empty name, . or ..", "a**": "** stands alone", "[a": `"[a" is no pattern`,
	} {
		_, err := gitsource.NewPatterns([]string{glob})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", glob, err, want)
		}
	}
}

func TestDeploymentFilesAreFoundInEachCommit(t *testing.T) {
	t.Parallel()
	m, git, commits := generated(t, 40)
	globs := map[string][]string{
		"the default":     nil,
		"by directory":    {"apps/*/*/overlays/prod/**", "shared/**/*.yaml"},
		"nothing matches": {"none/*.yml"},
	}
	for name, list := range globs {
		p, err := gitsource.NewPatterns(list)
		ok(t, err)
		for i, commit := range append(slices.Clone(commits[180:]), commits[0], commits[100]) {
			got, err := m.Files(commit, p)
			ok(t, err)
			paths := got.Paths()
			equal(t, got.Len(), len(paths))
			slices.Sort(paths)
			if want := p.Select(lines(git("ls-tree", "-r", "--name-only", "-z", commit))); !slices.Equal(paths, want) {
				t.Errorf("%s, commit %d: got %d files, want %d", name, i, len(paths), len(want))
			}
		}
	}
}

func TestManyReadWhileOneFetches(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	repo := gitserver.NewRepo(t, dir, "config", gitserver.Files{"count": "0", "a/b/c": strings.Repeat("text\n", 100)})
	for i := range 30 {
		repo.Commit("grow", gitserver.Files{fmt.Sprintf("dir%d/file", i): strings.Repeat("line\n", i), "count": fmt.Sprint(i)})
	}
	s := gitserver.Serve(t, dir, gitserver.Options{})
	m := open(t, gitsource.Config{
		URL: s.URL + "/" + repo.Name, HTTP: &http.Client{Transport: s.Transport(t)}, AllowHTTP: true,
		Limits: gitsource.Limits{Packs: 2, CacheBytes: 20_000}, // so that caches overflow and mirrors are rebuilt while they are read
	})
	first := fetch(t, m).Commit
	var readers sync.WaitGroup
	done := make(chan struct{})
	for range 6 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				head, _ := m.Head()
				files, err := m.Tree(head.Commit)
				if err != nil {
					t.Error(err)
					return
				}
				err = fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
					if err != nil || d.IsDir() {
						return err
					}
					_, err = files.ReadFile(path)
					return err
				})
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := m.Changed(first, head.Commit); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 8 {
		repo.Commit("next", gitserver.Files{"count": fmt.Sprintf("later %d", i)})
		fetch(t, m)
		fetch(t, m) // nothing new: time to rebuild
	}
	close(done)
	readers.Wait()
	head, _ := m.Head()
	equal(t, read(t, tree(t, m, head.Commit), "count"), "later 7")
}

func TestAnUploadIsATreeLikeAnyOther(t *testing.T) {
	t.Parallel()
	files := map[string]string{"deploy.yml": "x", "k8s/a.yaml": "a", "k8s/deep/b.yaml": "b", "k8s.txt": "sorts oddly", "empty": ""}
	repo := gitserver.NewRepo(t, t.TempDir(), "config", files)
	m := open(t, gitsource.Config{URL: repo.Dir})
	committed := tree(t, m, fetch(t, m).Commit)
	uploads := map[string][]byte{}
	for path, content := range files {
		uploads[path] = []byte(content)
	}
	upload, err := gitsource.NewTree(uploads, gitsource.Limits{})
	ok(t, err)
	equal(t, upload.ObjectHash(), committed.ObjectHash())
	for path := range files {
		equal(t, read(t, upload, path), files[path])
		info, err := upload.Stat(path)
		ok(t, err)
		equal(t, info.Sys().(interface{ ObjectHash() string }).ObjectHash(), repo.Git("rev-parse", "main:"+path))
	}
	changed, err := gitsource.Changed(committed, upload)
	ok(t, err)
	equal(t, len(changed), 0)
	uploads["deploy.yml"][0] = 'y' // the caller's, not the tree's
	equal(t, read(t, upload, "deploy.yml"), "x")
	other, err := gitsource.NewTree(uploads, gitsource.Limits{})
	ok(t, err)
	changed, err = gitsource.Changed(committed, other)
	ok(t, err)
	equal(t, fmt.Sprint(changed), "[deploy.yml]")

	none, err := gitsource.NewTree(nil, gitsource.Limits{})
	ok(t, err)
	equal(t, none.ObjectHash(), "4b825dc642cb6eb9a060e54bf8d69288fbee4904")

	for _, c := range []struct {
		files  map[string][]byte
		limits gitsource.Limits
		want   string
	}{
		{map[string][]byte{"/a": nil}, gitsource.Limits{}, `"/a" is not a path`},
		{map[string][]byte{"a/../b": nil}, gitsource.Limits{}, "is not a path"},
		{map[string][]byte{"a": nil, "a/b": nil}, gitsource.Limits{}, "a is both a file and a directory"},
		{map[string][]byte{"a": make([]byte, 11)}, gitsource.Limits{FileBytes: 10}, "a: too large: 11 bytes, at most 10"},
		{map[string][]byte{"a": nil, "b": nil}, gitsource.Limits{Files: 1}, "2 files: too large: at most 1"},
	} {
		if _, err := gitsource.NewTree(c.files, c.limits); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

func TestAnOpenFileIsReadAndListed(t *testing.T) {
	t.Parallel()
	upload, err := gitsource.NewTree(map[string][]byte{"a/x": []byte("hello"), "a/y": nil, "a/z": nil}, gitsource.Limits{})
	ok(t, err)
	file, err := upload.Open("a/x")
	ok(t, err)
	seeker := file.(io.ReadSeeker)
	_, err = seeker.Seek(2, io.SeekStart)
	ok(t, err)
	rest, err := io.ReadAll(seeker)
	ok(t, err)
	equal(t, string(rest), "llo")
	dir, err := upload.Open("a")
	ok(t, err)
	two, err := dir.(fs.ReadDirFile).ReadDir(2)
	ok(t, err)
	equal(t, len(two), 2)
	one, err := dir.(fs.ReadDirFile).ReadDir(2)
	ok(t, err)
	equal(t, len(one), 1)
	_, err = dir.(fs.ReadDirFile).ReadDir(2)
	equal(t, err, io.EOF)
	_, err = dir.Read(nil)
	if err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Error(err)
	}
}
