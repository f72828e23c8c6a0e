// Package gitserver gives tests real Git repositories and serves them as a Git host does: over HTTP and HTTPS by Git's own http-backend, with or without a
// token, and over SSH. It runs the git command, with no configuration but its own.
package gitserver

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Repo is a bare repository on disk.
type Repo struct {
	Dir    string // /…/NAME.git
	Name   string // "NAME.git", its path on a Server
	Branch string // the default one: "main"

	t     testing.TB
	clock int64
}

// Files are what a commit changes: path to content. Delete removes a path.
type Files map[string]string

// Delete, Link, Executable and Submodule make a content special in Files.
const (
	Delete     = "\x00delete"
	link       = "\x00link "
	executable = "\x00executable "
	submodule  = "\x00submodule "
)

// Link is a symbolic link to a target.
func Link(target string) string { return link + target }

// Executable is a file that may be executed.
func Executable(content string) string { return executable + content }

// Submodule is a commit of another repository.
func Submodule(commit string) string { return submodule + commit }

// NewRepo makes a repository under dir, with one commit of the files; none when files is nil.
func NewRepo(t testing.TB, dir, name string, files Files) *Repo {
	t.Helper()
	r := &Repo{Dir: filepath.Join(dir, name+".git"), Name: name + ".git", Branch: "main", t: t, clock: 1_700_000_000}
	run(t, "", nil, "init", "-q", "--bare", "--initial-branch=main", r.Dir)
	r.Git("config", "uploadpack.allowAnySHA1InWant", "false")
	if files != nil {
		r.Commit("first commit", files)
	}
	return r
}

// Open is a Repo for a bare repository that exists, with main as its default branch.
func Open(t testing.TB, dir string) *Repo {
	return &Repo{Dir: dir, Name: filepath.Base(dir), Branch: "main", t: t, clock: 1_800_000_000}
}

// Commit adds a commit to the default branch and gives its id. Times go up by a minute a commit, so that ids are the same in each run.
func (r *Repo) Commit(message string, files Files) string {
	r.t.Helper()
	return r.CommitTo(r.Branch, message, files)
}

// CommitTo adds a commit to a branch, which begins where the default one is when it does not exist.
func (r *Repo) CommitTo(branch, message string, files Files) string {
	r.t.Helper()
	parent := r.head(branch)
	if parent == "" {
		parent = r.head(r.Branch)
	}
	return r.commit(branch, parent, message, files)
}

// ForcePush replaces a branch's history after commit onto by one new commit; "" for onto is a history that shares nothing with the old one.
func (r *Repo) ForcePush(branch, onto, message string, files Files) string {
	r.t.Helper()
	return r.commit(branch, onto, message, files)
}

// DeleteBranch removes a branch, the default one too.
func (r *Repo) DeleteBranch(branch string) {
	r.t.Helper()
	r.Git("update-ref", "-d", "refs/heads/"+branch)
}

// Head is the id of a branch's newest commit.
func (r *Repo) Head(branch string) string {
	r.t.Helper()
	id := r.head(branch)
	if id == "" {
		r.t.Fatalf("%s has no branch %s", r.Name, branch)
	}
	return id
}

func (r *Repo) head(branch string) string {
	out, err := command(r.t, r.Dir, nil, "rev-parse", "--verify", "--quiet", "refs/heads/"+branch).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// Git runs a git command in the repository and gives what it prints, without the newline at the end.
func (r *Repo) Git(args ...string) string {
	r.t.Helper()
	return run(r.t, r.Dir, nil, args...)
}

// GitInput is Git with a standard input.
func (r *Repo) GitInput(input []byte, args ...string) string {
	r.t.Helper()
	return run(r.t, r.Dir, input, args...)
}

// commit writes a commit through fast-import, which makes neither a work tree nor an index.
func (r *Repo) commit(branch, parent, message string, files Files) string {
	r.t.Helper()
	r.clock += 60
	var b bytes.Buffer
	data := func(text string) { fmt.Fprintf(&b, "data %d\n%s\n", len(text), text) }
	// A branch that is reset to its parent may lose commits: that is what a force-push is.
	if parent == "" {
		fmt.Fprintf(&b, "reset refs/heads/%s\n", branch)
	} else {
		fmt.Fprintf(&b, "reset refs/heads/%s\nfrom %s\n\n", branch, parent)
	}
	fmt.Fprintf(&b, "commit refs/heads/%s\nauthor Ada Author <ada@example.com> %d +0100\ncommitter Carl Committer <carl@example.com> %d +0000\n", branch, r.clock, r.clock)
	data(message)
	paths := make([]string, 0, len(files))
	for path := range files {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for _, path := range paths {
		content := files[path]
		if content == Delete {
			fmt.Fprintf(&b, "D %s\n", quote(path))
			continue
		}
		mode := "100644"
		if text, ok := strings.CutPrefix(content, link); ok {
			mode, content = "120000", text
		} else if text, ok := strings.CutPrefix(content, executable); ok {
			mode, content = "100755", text
		} else if id, ok := strings.CutPrefix(content, submodule); ok {
			fmt.Fprintf(&b, "M 160000 %s %s\n", id, quote(path))
			continue
		}
		fmt.Fprintf(&b, "M %s inline %s\n", mode, quote(path))
		data(content)
	}
	b.WriteString("done\n")
	r.GitInput(b.Bytes(), "fast-import", "--quiet", "--force", "--done")
	return r.Head(branch)
}

func quote(path string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(path) + `"`
}

// FromFS adds a commit that makes the default branch's content equal to that of fsys, links left out.
func (r *Repo) FromFS(message string, fsys fs.FS) string {
	r.t.Helper()
	files := Files{}
	if r.head(r.Branch) != "" {
		for path := range strings.SplitSeq(r.Git("ls-tree", "-r", "--name-only", "-z", r.Branch), "\x00") {
			if path != "" {
				files[path] = Delete
			}
		}
	}
	err := fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := fs.ReadFile(fsys, path)
		files[path] = string(data)
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return r.Commit(message, files)
}

// command is git with nothing of this machine's or user's configuration.
func command(t testing.TB, dir string, input []byte, args ...string) *exec.Cmd {
	c := exec.CommandContext(t.Context(), "git", args...)
	c.Dir = dir
	c.Env = environment()
	if input != nil {
		c.Stdin = bytes.NewReader(input)
	}
	return c
}

func environment() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Ada Author", "GIT_AUTHOR_EMAIL=ada@example.com", "GIT_AUTHOR_DATE=1700000000 +0100",
		"GIT_COMMITTER_NAME=Carl Committer", "GIT_COMMITTER_EMAIL=carl@example.com", "GIT_COMMITTER_DATE=1700000000 +0000",
		// Tests give repositories to servers that run as somebody else in a container.
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
	}
}

func run(t testing.TB, dir string, input []byte, args ...string) string {
	t.Helper()
	c := command(t, dir, input, args...)
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, errs.String())
	}
	return strings.TrimSuffix(string(out), "\n")
}
