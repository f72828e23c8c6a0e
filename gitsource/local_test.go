package gitsource_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"towpath/gitsource"
	"towpath/internal/testkit/gitserver"
)

func TestALocalRepositoryMayBeRepackedMeanwhile(t *testing.T) {
	t.Parallel()
	repo := gitserver.NewRepo(t, t.TempDir(), "config", gitserver.Files{"a": "0", "dir/b": "b"})
	repo.Git("config", "fastimport.unpackLimit", "1") // packs in place of loose objects, now and then
	m := open(t, gitsource.Config{URL: repo.Dir})
	previous := fetch(t, m).Commit
	for i := range 6 {
		switch i {
		case 1:
			repo.Git("repack", "-a", "-d", "-q")
		case 3:
			repo.Git("config", "fastimport.unpackLimit", "100")
		case 4:
			repo.Git("pack-refs", "--all")
			repo.Git("gc", "--prune=now", "-q")
		}
		next := repo.Commit("next", gitserver.Files{"a": fmt.Sprint(i + 1), fmt.Sprintf("new%d/x/y", i): "y"})
		equal(t, fetch(t, m), gitsource.Head{Branch: "main", Commit: next, Previous: previous})
		equal(t, read(t, tree(t, m, next), "a"), fmt.Sprint(i+1))
		equal(t, read(t, tree(t, m, next), "dir/b"), "b")
		previous = next
	}
}

func TestAMirrorIsARepositoryThatGitCanRead(t *testing.T) {
	t.Parallel()
	repo := gitserver.NewRepo(t, t.TempDir(), "config", gitserver.Files{"a": "0"})
	c := gitsource.Config{URL: repo.Dir, Dir: filepath.Join(t.TempDir(), "m")}
	m := open(t, c)
	fetch(t, m)
	for i := range 3 {
		repo.Commit("next", gitserver.Files{"a": fmt.Sprint(i)})
		fetch(t, m)
	}
	mirror := gitserver.Open(t, filepath.Join(c.Dir, "1.git"))
	equal(t, mirror.Git("rev-parse", "HEAD"), repo.Head("main"))
	mirror.Git("fsck", "--full", "--strict") // fails the test when anything is wrong
	equal(t, mirror.Git("rev-list", "--count", "HEAD"), "4")
}

func TestAWorkTreeIsARepositoryToo(t *testing.T) {
	t.Parallel()
	bare := gitserver.NewRepo(t, t.TempDir(), "config", gitserver.Files{"a": "1"})
	work := filepath.Join(t.TempDir(), "work")
	bare.Git("clone", "-q", bare.Dir, work)
	m := open(t, gitsource.Config{URL: work})
	equal(t, fetch(t, m).Commit, bare.Head("main"))
}

func TestAShallowCloneIsFollowed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	repo := gitserver.NewRepo(t, dir, "config", gitserver.Files{"a": "0"})
	for i := range 5 {
		repo.Commit("next", gitserver.Files{"a": fmt.Sprint(i)})
	}
	repo.Git("clone", "-q", "--bare", "--depth=2", "file://"+repo.Dir, filepath.Join(dir, "shallow.git"))
	shallow := gitserver.Open(t, filepath.Join(dir, "shallow.git"))
	s := gitserver.Serve(t, dir, gitserver.Options{})
	for name, c := range map[string]gitsource.Config{
		"local": {URL: shallow.Dir},
		"http":  {URL: s.URL + "/shallow.git", HTTP: &http.Client{Transport: s.Transport(t)}, AllowHTTP: true},
	} {
		m := open(t, c)
		equal(t, fetch(t, m).Commit, shallow.Head("main"))
		next := shallow.Commit("in the clone "+name, gitserver.Files{"a": name})
		equal(t, fetch(t, m).Commit, next)
		equal(t, read(t, tree(t, m, next), "a"), name)
	}
}

func TestFormsThatAreNotReadAreNamed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	repo := gitserver.NewRepo(t, dir, "config", gitserver.Files{"a": "1"})
	repo.Git("init", "-q", "--bare", "--object-format=sha256", filepath.Join(dir, "sha256.git"))
	repo.Git("clone", "-q", "--bare", "--shared", repo.Dir, filepath.Join(dir, "borrowing.git"))
	modern := gitserver.NewRepo(t, dir, "reftable", gitserver.Files{"a": "1"})
	modern.Git("config", "core.repositoryformatversion", "1")
	modern.Git("config", "extensions.refStorage", "reftable")
	for name, want := range map[string]string{
		"sha256":    "extensions.objectformat = sha256, which is not read; sha1 is",
		"reftable":  "extensions.refstorage = reftable, which is not read; files is",
		"borrowing": "borrows objects from another repository",
	} {
		_, err := open(t, gitsource.Config{URL: filepath.Join(dir, name+".git")}).Fetch(t.Context())
		fails(t, err, gitsource.Misconfigured, false, want)
	}

	source := gitserver.Open(t, filepath.Join(dir, "sha256.git"))
	blob := source.GitInput([]byte("x"), "hash-object", "-w", "--stdin")
	root := source.GitInput([]byte("100644 blob "+blob+"\ta\n"), "mktree")
	source.Git("update-ref", "refs/heads/main", source.Git("commit-tree", "-m", "first", root))
	s := gitserver.Serve(t, dir, gitserver.Options{})
	overSSH := gitserver.ServeSSH(t, dir)
	for _, c := range []gitsource.Config{
		{URL: s.URL + "/sha256.git", HTTP: &http.Client{Transport: s.Transport(t)}, AllowHTTP: true},
		{URL: overSSH.URL + "/sha256.git", Dial: gitserver.Dial, SSHKeyFile: overSSH.KeyFile, KnownHostsFile: overSSH.KnownHostsFile},
	} {
		_, err := open(t, c).Fetch(t.Context())
		fails(t, err, gitsource.Misconfigured, false, "SHA-256")
	}
}

func TestASourceThatLacksObjectsIsNamedAsDamaged(t *testing.T) {
	t.Parallel()
	repo := gitserver.NewRepo(t, t.TempDir(), "config", gitserver.Files{"a": "1"})
	m := open(t, gitsource.Config{URL: repo.Dir})
	first := fetch(t, m).Commit
	repo.Commit("second", gitserver.Files{"a": "2"})
	blob := repo.Git("rev-parse", "main:a")
	ok(t, os.Remove(filepath.Join(repo.Dir, "objects", blob[:2], blob[2:])))
	_, err := m.Fetch(t.Context())
	fails(t, err, gitsource.Broken, true, "the repository is damaged: object "+blob+" is missing; git fsck there tells more")
	equal(t, read(t, tree(t, m, first), "a"), "1")
}

func TestDirectoriesWithoutEndAreRefused(t *testing.T) {
	t.Parallel()
	repo := gitserver.NewRepo(t, t.TempDir(), "config", gitserver.Files{"a": "1"})
	id, kind := repo.GitInput([]byte("x"), "hash-object", "-w", "--stdin"), "100644 blob "
	var stream strings.Builder // fast-import makes a path of any length in one go
	path := strings.Repeat("d/", 2100) + "file"
	fmt.Fprintf(&stream, "commit refs/heads/main\ncommitter C <c@example.com> 1700000000 +0000\ndata 4\ndeep\nM %s %s \"%s\"\ndone\n", strings.Fields(kind)[0], id, path)
	repo.GitInput([]byte(stream.String()), "fast-import", "--quiet", "--force", "--done")
	_, err := open(t, gitsource.Config{URL: repo.Dir}).Fetch(t.Context())
	fails(t, err, gitsource.OverLimit, false, "directories more than 2048 deep")
}

func TestARepositoryHasOneIdentity(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"https://github.com/Org/Repo.git": "github.com/org/repo", "git@github.com:org/repo": "github.com/org/repo", "ssh://git@github.com/org/repo.git/": "github.com/org/repo",
		"https://user@GitHub.com:443/org/repo": "github.com/org/repo", "https://git.example.com:8443/a/b/c.git": "git.example.com:8443/a/b/c", "/srv/git/x.git": "/srv/git/x.git",
		"file:///srv/git/../git/x.git": "/srv/git/x.git", "ssh://git@[fd00::1]:2222/~me/x": "[fd00::1]:2222/~me/x",
	} {
		got, err := gitsource.Identity(url)
		ok(t, err)
		equal(t, got, want)
	}
	if _, err := gitsource.Identity("ftp://x/y"); err == nil {
		t.Error("ftp has an identity")
	}
}

func TestGitIsNotRun(t *testing.T) {
	repo := gitserver.NewRepo(t, t.TempDir(), "config", gitserver.Files{"a": "1"})
	m := open(t, gitsource.Config{URL: "file://" + repo.Dir})
	first := fetch(t, m).Commit
	second := repo.Commit("second", gitserver.Files{"a": "2"})
	t.Setenv("PATH", "")
	equal(t, fetch(t, m), gitsource.Head{Branch: "main", Commit: second, Previous: first})
}
