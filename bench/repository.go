package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// repository is a bare one that the benchmark commits to.
type repository struct{ dir string }

func newRepository(ctx context.Context, dir string) (*repository, error) {
	r := &repository{dir}
	return r, r.git(ctx, nil, "init", "--quiet", "--bare", "--initial-branch=main", dir)
}

// commit changes files of the branch main, without a work tree.
func (r *repository) commit(ctx context.Context, message string, files map[string]string) error {
	var stream bytes.Buffer
	fmt.Fprintf(&stream, "commit refs/heads/main\ncommitter Bench <bench@example.com> %d +0000\ndata %d\n%s\n", time.Now().Unix(), len(message), message)
	if _, err := exec.CommandContext(ctx, "git", "-C", r.dir, "rev-parse", "--verify", "--quiet", "refs/heads/main").Output(); err == nil {
		fmt.Fprintln(&stream, "from refs/heads/main^0")
	}
	var paths []string
	for path := range files {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for _, path := range paths {
		fmt.Fprintf(&stream, "M 100644 inline %s\ndata %d\n%s\n", path, len(files[path]), files[path])
	}
	return r.git(ctx, &stream, "-C", r.dir, "fast-import", "--quiet")
}

// read is a file as it is on main.
func (r *repository) read(ctx context.Context, path string) (string, error) {
	out, err := exec.CommandContext(ctx, "git", "-C", r.dir, "show", "main:"+path).Output()
	if err != nil {
		return "", fmt.Errorf("git show main:%s: %w", path, err)
	}
	return string(out), nil
}

func (r *repository) git(ctx context.Context, input *bytes.Buffer, args ...string) error {
	command := exec.CommandContext(ctx, "git", args...)
	command.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
	if input != nil {
		command.Stdin = input
	}
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("git %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}
