package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

func (d *demo) work() string { return filepath.Join(d.dir, "work") }

// fillRepository makes a bare repository of the examples, at first. Its hook tells the controller of each push at once.
func (s *background) fillRepository(ctx context.Context, bare string) error {
	made := bare + ".new" // in place only when it is whole
	if _, err := os.Stat(bare); err == nil {
		return s.hook(bare)
	}
	for _, dir := range []string{made, s.work()} {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	for _, args := range [][]string{{"init", "--quiet", "--bare", "--initial-branch=main", made}, {"clone", "--quiet", made, s.work()}} {
		if err := git(ctx, s.dir, args...); err != nil {
			return err
		}
	}
	if err := os.CopyFS(s.work(), os.DirFS(s.examples)); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(s.work(), "traffic")); err != nil { // its HTTPRoute needs the Gateway API, which the demo's clusters do not serve
		return err
	}
	if err := s.commit(ctx, "The examples, to begin with", "."); err != nil {
		return err
	}
	for _, args := range [][]string{{"remote", "set-url", "origin", bare}, {"config", "user.name", "You"}, {"config", "user.email", "you@example.com"}} {
		if err := git(ctx, s.work(), args...); err != nil {
			return err
		}
	}
	if err := os.Rename(made, bare); err != nil {
		return err
	}
	fmt.Printf("%sa Git repository is filled from the examples: %s\n", note, bare)
	return s.hook(bare)
}

func (s *background) hook(bare string) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	words := append([]string{program}, s.args("announce")...)
	for i, word := range words {
		words[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	return os.WriteFile(filepath.Join(bare, "hooks", "post-receive"), []byte("#!/bin/sh\nexec "+strings.Join(words, " ")+"\n"), 0o755)
}

// commit commits paths and pushes; what else lies changed in the work tree is the user's.
func (d *demo) commit(ctx context.Context, message string, paths ...string) error {
	for _, args := range [][]string{append([]string{"add", "--"}, paths...), append([]string{"commit", "--quiet", "--message", message, "--"}, paths...), {"push", "--quiet", "origin", "HEAD:main"}} {
		if err := git(ctx, d.work(), args...); err != nil {
			return err
		}
	}
	return nil
}

func git(ctx context.Context, dir string, args ...string) error {
	_, err := gitOutput(ctx, dir, args...)
	return err
}

// gitOutput ends git as a terminal does, when ctx ends: killed, it would leave its locks behind and the next demo could not commit.
func gitOutput(ctx context.Context, dir string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, "git", append([]string{"-c", "user.name=Demo", "-c", "user.email=demo@example.com", "-c", "init.defaultBranch=main"}, args...)...)
	command.Dir = dir
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	out, err := command.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("git %s: %w\n%s", args[0], err, bytes.TrimSpace(out))
	}
	return string(bytes.TrimSpace(out)), nil
}

// versions are the places of the example hello that name its version.
var versions = regexp.MustCompile(`(app\.kubernetes\.io/version: |hello from version )1\.0\.(\d+)`)

// merge writes the next version of the example hello into the repository.
func (d *demo) merge(ctx context.Context) (version string, err error) {
	if err := git(ctx, d.work(), "pull", "--quiet", "--rebase", "--autostash", "origin", "main"); err != nil {
		return "", err
	}
	files := []string{filepath.Join(d.work(), "hello", "manifests", "deployment.yaml"), filepath.Join(d.work(), "hello", "manifests", "service.yaml")}
	next := 0
	texts := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		texts[file] = string(text)
		for _, place := range versions.FindAllStringSubmatch(texts[file], -1) {
			if patch, err := strconv.Atoi(place[2]); err == nil {
				next = max(next, patch+1)
			}
		}
	}
	if next == 0 {
		return "", fmt.Errorf("the demo raises the version of the example hello, and finds none in %s; write the label app.kubernetes.io/version: 1.0.0 there again", near(files[0]))
	}
	version = fmt.Sprintf("1.0.%d", next)
	for file, text := range texts {
		if err := os.WriteFile(file, []byte(versions.ReplaceAllString(text, "${1}"+version)), 0o644); err != nil {
			return "", err
		}
	}
	return version, d.commit(ctx, "hello "+version, files...)
}

func (d *demo) head(ctx context.Context) (string, error) {
	return gitOutput(ctx, d.work(), "rev-parse", "HEAD")
}
