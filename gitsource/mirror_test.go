package gitsource_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"towpath/gitsource"
	"towpath/internal/testkit/gitserver"
)

// open opens a mirror in a directory of its own and closes it with the test.
func open(t testing.TB, c gitsource.Config) *gitsource.Mirror {
	t.Helper()
	if c.Dir == "" {
		c.Dir = filepath.Join(t.TempDir(), "mirror")
	}
	m, err := gitsource.Open(c)
	ok(t, err)
	t.Cleanup(func() { ok(t, m.Close()) })
	return m
}

func fetch(t testing.TB, m *gitsource.Mirror) gitsource.Head {
	t.Helper()
	head, err := m.Fetch(t.Context())
	ok(t, err)
	return head
}

func tree(t testing.TB, m *gitsource.Mirror, commit string) *gitsource.Tree {
	t.Helper()
	files, err := m.Tree(commit)
	ok(t, err)
	return files
}

func read(t testing.TB, fsys fs.FS, path string) string {
	t.Helper()
	data, err := fs.ReadFile(fsys, path)
	ok(t, err)
	return string(data)
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T comparable](t testing.TB, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// fails checks kind, permanence and wording of a failed fetch.
func fails(t testing.TB, err error, kind gitsource.Kind, temporary bool, words ...string) {
	t.Helper()
	var e *gitsource.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v (%T), want an *Error of kind %s", err, err, kind)
	}
	if e.Kind != kind || e.Temporary() != temporary {
		t.Errorf("%v: kind %s, temporary %v; want %s, %v", err, e.Kind, e.Temporary(), kind, temporary)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q lacks %q", err, word)
		}
	}
}

// source is one way to reach the repositories of a directory.
type source struct {
	name   string
	config func(t *testing.T, dir, name string) gitsource.Config
}

func sources() []source {
	return []source{
		{"https with a token", func(t *testing.T, dir, name string) gitsource.Config {
			s := gitserver.Serve(t, dir, gitserver.Options{TLS: true, Token: "s3cret"})
			file := filepath.Join(t.TempDir(), "token")
			ok(t, os.WriteFile(file, []byte("s3cret\n"), 0o600))
			return gitsource.Config{URL: s.URL + "/" + name, HTTP: &http.Client{Transport: s.Transport(t)}, Token: gitsource.TokenFile(file)}
		}},
		{"http", func(t *testing.T, dir, name string) gitsource.Config {
			s := gitserver.Serve(t, dir, gitserver.Options{})
			return gitsource.Config{URL: s.URL + "/" + name, HTTP: &http.Client{Transport: s.Transport(t)}, AllowHTTP: true}
		}},
		{"ssh", func(t *testing.T, dir, name string) gitsource.Config {
			s := gitserver.ServeSSH(t, dir)
			return gitsource.Config{URL: s.URL + "/" + name, Dial: gitserver.Dial, SSHKeyFile: s.KeyFile, KnownHostsFile: s.KnownHostsFile}
		}},
		{"local path", func(t *testing.T, dir, name string) gitsource.Config {
			return gitsource.Config{URL: filepath.Join(dir, name)}
		}},
		{"file URL", func(t *testing.T, dir, name string) gitsource.Config {
			return gitsource.Config{URL: "file://" + filepath.Join(dir, name)}
		}},
	}
}

func TestARepositoryIsFollowed(t *testing.T) {
	t.Parallel()
	for _, s := range sources() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			repo := gitserver.NewRepo(t, dir, "config", nil)
			c := s.config(t, dir, repo.Name)
			c.Dir = filepath.Join(t.TempDir(), "mirror")
			m := open(t, c)

			_, err := m.Fetch(t.Context())
			fails(t, err, gitsource.Empty, true, "is empty; push a first commit")
			if _, known := m.Head(); known {
				t.Error("an empty repository has a head")
			}

			first := repo.Commit("first", gitserver.Files{"deploy/web.yml": "one", "README.md": "hello", "old/name.txt": strings.Repeat("text\n", 50)})
			head := fetch(t, m)
			equal(t, head, gitsource.Head{Branch: "main", Commit: first})
			equal(t, read(t, tree(t, m, first), "deploy/web.yml"), "one")
			if again := fetch(t, m); again.Moved() || again.Commit != first {
				t.Errorf("nothing was pushed, and the branch moved: %+v", again)
			}

			second := repo.Commit("second", gitserver.Files{
				"deploy/web.yml": "two", "README.md": gitserver.Delete, "run.sh": gitserver.Executable("#!/bin/sh"),
				"old/name.txt": gitserver.Delete, "new/name.txt": strings.Repeat("text\n", 50),
			})
			head = fetch(t, m)
			equal(t, head, gitsource.Head{Branch: "main", Commit: second, Previous: first})
			changed, err := m.Changed(first, second)
			ok(t, err)
			equal(t, fmt.Sprint(changed), "[README.md deploy/web.yml new/name.txt old/name.txt run.sh]")

			third := repo.Commit("mode", gitserver.Files{"run.sh": "#!/bin/sh"})
			fetch(t, m)
			changed, err = m.Changed(second, third)
			ok(t, err)
			equal(t, fmt.Sprint(changed), "[run.sh]")

			forced := repo.ForcePush("main", first, "other", gitserver.Files{"deploy/web.yml": "forced"})
			head = fetch(t, m)
			equal(t, head, gitsource.Head{Branch: "main", Commit: forced, Previous: third})
			equal(t, read(t, tree(t, m, forced), "deploy/web.yml"), "forced")
			equal(t, read(t, tree(t, m, third), "deploy/web.yml"), "two") // what was deployed can still be compared with
			changed, err = m.Changed(third, forced)
			ok(t, err)
			equal(t, fmt.Sprint(changed), "[README.md deploy/web.yml new/name.txt old/name.txt run.sh]")

			rootless := repo.ForcePush("main", "", "a history of its own", gitserver.Files{"x": "y"})
			equal(t, fetch(t, m).Commit, rootless)

			repo.CommitTo("other", "elsewhere", gitserver.Files{"z": "z"})
			repo.DeleteBranch("main")
			_, err = m.Fetch(t.Context())
			fails(t, err, gitsource.BranchMissing, false)
			if kept, _ := m.Head(); kept.Commit != rootless {
				t.Errorf("after a failed fetch the head is %+v", kept)
			}

			back := repo.ForcePush("main", rootless, "back again", gitserver.Files{"x": "z"})
			equal(t, fetch(t, m).Commit, back)
			ok(t, m.Close())

			again := open(t, c)
			kept, _ := again.Head()
			equal(t, kept, gitsource.Head{Branch: "main", Commit: back, Previous: back})
			equal(t, read(t, tree(t, again, back), "x"), "z") // without any fetch
			if head := fetch(t, again); head.Moved() {
				t.Errorf("nothing was pushed while we were away: %+v", head)
			}
		})
	}
}

func TestABranchIsNamedWhenItIsMissing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	repo := gitserver.NewRepo(t, dir, "config", gitserver.Files{"a": "1"})
	repo.CommitTo("develop", "second", gitserver.Files{"a": "2"})
	m := open(t, gitsource.Config{URL: repo.Dir, Branch: "production"})
	_, err := m.Fetch(t.Context())
	fails(t, err, gitsource.BranchMissing, false, "there is no branch production (there are: develop, main)", "push it again, or name another")
	m = open(t, gitsource.Config{URL: repo.Dir, Branch: "develop"})
	equal(t, fetch(t, m).Commit, repo.Head("develop"))
}

func TestACommitIsDescribed(t *testing.T) {
	t.Parallel()
	repo := gitserver.NewRepo(t, t.TempDir(), "config", gitserver.Files{"a": "1"})
	first := repo.Head("main")
	second := repo.Commit("Change a\n\nBecause.\n", gitserver.Files{"a": "2"})
	m := open(t, gitsource.Config{URL: repo.Dir})
	fetch(t, m)
	c, err := m.Commit(second)
	ok(t, err)
	equal(t, c.ID, second)
	equal(t, c.Tree, repo.Git("rev-parse", second+"^{tree}"))
	equal(t, tree(t, m, second).ObjectHash(), c.Tree)
	equal(t, fmt.Sprint(c.Parents), "["+first+"]")
	equal(t, c.Author.Name+" "+c.Author.Email, "Ada Author ada@example.com")
	equal(t, c.Committer.Name+" "+c.Committer.Email, "Carl Committer carl@example.com")
	equal(t, c.Author.When.UTC().Format("2006-01-02 15:04"), "2023-11-14 22:15")
	equal(t, c.Message, "Change a\n\nBecause.\n")

	for _, id := range []string{"", "main", "HEAD", strings.Repeat("0", 40), strings.Repeat("a", 64)} {
		_, err := m.Commit(id)
		if !errors.Is(err, gitsource.ErrUnknownCommit) || !strings.Contains(err.Error(), fmt.Sprintf("%q is not a commit of this repository", id)[:20]) {
			t.Errorf("commit %q: %v", id, err)
		}
	}
}

func TestATreeIsAFileSystem(t *testing.T) {
	t.Parallel()
	files := gitserver.Files{
		"deploy.yml": "x", "apps/web/base/a.yaml": "a", "apps/web/run.sh": gitserver.Executable("#!/bin/sh"), "empty": "",
		"link": gitserver.Link("apps/web/base/a.yaml"), "apps/up": gitserver.Link("../deploy.yml"), "apps/dir": gitserver.Link("web/base"),
	}
	repo := gitserver.NewRepo(t, t.TempDir(), "config", files)
	m := open(t, gitsource.Config{URL: repo.Dir})
	fsys := tree(t, m, fetch(t, m).Commit)
	ok(t, fstest.TestFS(fsys, "deploy.yml", "apps/web/base/a.yaml", "apps/web/run.sh", "empty", "link", "apps/up"))

	equal(t, read(t, fsys, "link"), "a")
	equal(t, read(t, fsys, "apps/up"), "x")
	equal(t, read(t, fsys, "apps/dir/a.yaml"), "a")
	target, err := fsys.ReadLink("apps/dir")
	ok(t, err)
	equal(t, target, "web/base")

	for path, want := range map[string]fs.FileMode{"deploy.yml": 0o644, "apps/web/run.sh": 0o755, "apps": fs.ModeDir | 0o755, "link": fs.ModeSymlink | 0o777} {
		info, err := fsys.Lstat(path)
		ok(t, err)
		equal(t, info.Mode(), want)
		hash := info.Sys().(interface{ ObjectHash() string }).ObjectHash()
		equal(t, hash, repo.Git("rev-parse", "main:"+path))
	}
	info, err := fsys.Stat("link")
	ok(t, err)
	equal(t, info.Mode(), 0o644)
	equal(t, info.Size(), 1)
}

func TestLinksDoNotLeadAstray(t *testing.T) {
	t.Parallel()
	repo := gitserver.NewRepo(t, t.TempDir(), "config", gitserver.Files{
		"out": gitserver.Link("../../etc/passwd"), "a/out": gitserver.Link("../../x"), "absolute": gitserver.Link("/etc/passwd"), "loop": gitserver.Link("loop"),
		"b": gitserver.Link("a/c"), "a/c": gitserver.Link("../b"), "dangling": gitserver.Link("nowhere"), "file": "x", "through": gitserver.Link("file/y"),
		"around": gitserver.Link("a/../a/.././file"), "root": gitserver.Link("a/.."), "sub": gitserver.Submodule(strings.Repeat("12", 20)),
	})
	m := open(t, gitsource.Config{URL: repo.Dir})
	fsys := tree(t, m, fetch(t, m).Commit)
	for path, want := range map[string]struct {
		is   error
		text string
	}{
		"out":          {gitsource.ErrLink, "it leaves the repository"},
		"a/out":        {gitsource.ErrLink, "it leaves the repository"},
		"absolute":     {gitsource.ErrLink, "/etc/passwd is absolute"},
		"loop":         {gitsource.ErrLink, "more than 40 links"},
		"b":            {gitsource.ErrLink, "more than 40 links"},
		"dangling":     {fs.ErrNotExist, "open dangling"},
		"through":      {fs.ErrNotExist, "file is not a directory"},
		"sub":          {gitsource.ErrSubmodule, "a submodule, whose content is not part of this repository (commit 1212"},
		"sub/in":       {gitsource.ErrSubmodule, "sub is a submodule"},
		"no/such":      {fs.ErrNotExist, ""},
		"file/under":   {fs.ErrNotExist, ""},
		"/etc/passwd":  {fs.ErrInvalid, ""},
		"a/../../file": {fs.ErrInvalid, ""},
	} {
		_, err := fsys.Open(path)
		if !errors.Is(err, want.is) || !strings.Contains(err.Error(), want.text) {
			t.Errorf("open %s: %v, want %v with %q", path, err, want.is, want.text)
		}
	}
	equal(t, read(t, fsys, "around"), "x")
	equal(t, read(t, fsys, "root/file"), "x")
	info, err := fsys.Stat("sub")
	ok(t, err)
	equal(t, info.Mode(), fs.ModeIrregular)
}

func TestNamesThatAreOddAreRead(t *testing.T) {
	t.Parallel()
	repo := gitserver.NewRepo(t, t.TempDir(), "config", gitserver.Files{"a": "1"})
	blob := repo.GitInput([]byte("content"), "hash-object", "-w", "--stdin")
	names := []string{"back\\slash", "..", "...", "GIT~1", "a:b", "tab\there", "\xff\xfe", ".Git", "con", "trailing ", "*", "-dash", "new\nline"}
	names = slices.DeleteFunc(names, func(n string) bool { return n == ".." })
	var input strings.Builder
	for _, name := range names {
		fmt.Fprintf(&input, "100644 blob %s\t%s\x00", blob, name)
	}
	root := repo.GitInput([]byte(input.String()), "mktree", "-z")
	commit := repo.Git("commit-tree", "-m", "odd", root)
	repo.Git("update-ref", "refs/heads/main", commit)
	m := open(t, gitsource.Config{URL: repo.Dir})
	fsys := tree(t, m, fetch(t, m).Commit)
	list, err := fsys.ReadDir(".")
	ok(t, err)
	equal(t, len(list), len(names))
	for _, name := range names {
		equal(t, read(t, fsys, name), "content")
	}
}

// hostile writes trees that Git's own tools refuse to make.
func hostile(t *testing.T, repo *gitserver.Repo, entries string) string {
	t.Helper()
	blob := repo.GitInput([]byte("content"), "hash-object", "-w", "--stdin")
	var raw []byte
	for i := 0; i < len(blob); i += 2 {
		var b byte
		_, err := fmt.Sscanf(blob[i:i+2], "%02x", &b)
		ok(t, err)
		raw = append(raw, b)
	}
	text := strings.ReplaceAll(entries, "HASH", string(raw))
	id := repo.GitInput([]byte(text), "hash-object", "-t", "tree", "--literally", "-w", "--stdin")
	commit := repo.Git("commit-tree", "-m", "hostile", id)
	repo.Git("update-ref", "refs/heads/main", commit)
	return commit
}

func TestAHostileTreeIsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ entries, text string }{
		"dot dot":            {"100644 ..\x00HASH", `an entry is named ".."`},
		"dot":                {"100644 .\x00HASH", `an entry is named "."`},
		"a slash":            {"100644 a/b\x00HASH", `an entry is named "a/b"`},
		"no name":            {"100644 \x00HASH", `an entry is named ""`},
		"twice":              {"100644 a\x00HASH100644 a\x00HASH", `two entries are named "a"`},
		"file and directory": {"100644 a\x00HASH40000 a\x00HASH", `two entries are named "a"`},
		"cut off":            {"100644 a\x00", "it is cut off"},
		"no mode":            {" a\x00HASH", "an entry has no mode"},
		"odd mode":           {"10x644 a\x00HASH", `the mode "10x644"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			repo := gitserver.NewRepo(t, t.TempDir(), "config", gitserver.Files{"a": "1"})
			m := open(t, gitsource.Config{URL: repo.Dir})
			good := fetch(t, m).Commit
			hostile(t, repo, c.entries)
			_, err := m.Fetch(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.text) {
				t.Errorf("fetch: %v, want %q", err, c.text)
			}
			if head, _ := m.Head(); head.Commit != good {
				t.Errorf("the head moved to %s", head.Commit)
			}
		})
	}
}

func TestAFileOverTheLimitIsNotRead(t *testing.T) {
	t.Parallel()
	repo := gitserver.NewRepo(t, t.TempDir(), "config", gitserver.Files{"big": strings.Repeat("x", 2000), "small": "x"})
	m := open(t, gitsource.Config{URL: repo.Dir, Limits: gitsource.Limits{FileBytes: 1000}})
	fsys := tree(t, m, fetch(t, m).Commit)
	_, err := fsys.ReadFile("big")
	if !errors.Is(err, gitsource.ErrTooLarge) || err.Error() != "read big: too large: 2000 bytes, at most 1000" {
		t.Errorf("got %v", err)
	}
	equal(t, read(t, fsys, "small"), "x")
	info, err := fsys.Stat("big")
	ok(t, err)
	equal(t, info.Size(), 2000)
}

func TestTwoMirrorsNeverShareADirectory(t *testing.T) {
	t.Parallel()
	repo := gitserver.NewRepo(t, t.TempDir(), "config", gitserver.Files{"a": "1"})
	c := gitsource.Config{URL: repo.Dir, Dir: t.TempDir()}
	m, err := gitsource.Open(c)
	ok(t, err)
	_, err = gitsource.Open(c)
	if err == nil || !strings.Contains(err.Error(), "in use by another mirror") {
		t.Errorf("got %v", err)
	}
	ok(t, m.Close())
	ok(t, open(t, c).Close())
}

func TestSettingsAreChecked(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"git://example.com/x":                "not by \"git\"",
		"ext::sh -c id":                      "",
		"relative/path":                      "read by https, ssh, or from a local path",
		"http://example.com/x":               "sends the token and the files in clear",
		"https://example.com/x":              "a client for HTTP",
		"git@example.com:x.git":              "a dialer for SSH is missing",
		"https://bob:hunter2@example.com/x":  "holds a password",
		"https://example.com/x?token=abc":    "query or a fragment",
		"https://example.com":                "names no host or no path",
		"ssh://git@example.com/-oProxy=x":    "",
		"git@example.com:-oProxyCommand=x":   "starts with a dash",
		"file://host/x":                      "file:///an/absolute/path",
		"https://exa\x00mple.com/hunter2":    "control characters",
		"https://bob:hunter2@exa mple.com/x": "cannot be read",
	} {
		_, err := gitsource.Open(gitsource.Config{URL: url, Dir: t.TempDir()})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", url, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the password is in %q", err)
		}
	}
	_, err := gitsource.Open(gitsource.Config{URL: "/x", Branch: "refs/heads/main", Dir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), `write the branch as "main"`) {
		t.Errorf("got %v", err)
	}
}

func TestAFetchThatIsCancelledSaysSo(t *testing.T) {
	t.Parallel()
	repo := gitserver.NewRepo(t, t.TempDir(), "config", gitserver.Files{"a": "1"})
	m := open(t, gitsource.Config{URL: repo.Dir})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := m.Fetch(ctx)
	fails(t, err, gitsource.Unreachable, true, "the fetch was stopped")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v does not wrap context.Canceled", err)
	}
	fetch(t, m)
}
