// Package firsthour does what docs/first-hour.md says.
package firsthour

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"towpath/internal/localstack"
	"towpath/internal/testkit/gitserver"
	"towpath/internal/testkit/pages"
	"towpath/internal/testkit/world"
)

var shared world.Shared

func TestMain(m *testing.M) { world.Main(m, &shared, world.Build{}, "mycluster") }

// The page's blocks run in the order of the page, in a home of their own, with a real cluster and a Git server that wants a token. What a reader puts
// in for what the page writes is said here, and nothing else is changed.
func TestTheFirstHourWorksAsItIsWritten(t *testing.T) {
	repositories := t.TempDir()
	repository := gitserver.NewRepo(t, repositories, "shop", gitserver.Files{"README.md": "The shop"})
	server := gitserver.Serve(t, repositories, gitserver.Options{Token: "s3cret"})
	r := newReader(t, shared.Clusters["mycluster"].Kubeconfig)
	r.write(".gitconfig", fmt.Sprintf("[user]\nname = Reader\nemail = reader@example.com\n[url %q]\ninsteadOf = https://github.com/acme/shop.git\n", repository.Dir))
	r.replace("YOUR_TOKEN", "s3cret")
	r.replace("url: https://github.com/acme/shop.git", "url: "+server.URL+"/shop.git")
	own, hub, err := localstack.Free()
	if err != nil {
		t.Fatal(err)
	}
	r.replace("8080", portOf(own))
	r.replace("8443", portOf(hub))
	for _, block := range pages.Read(t, "docs/first-hour.md").Blocks {
		if block.Language != "sh" {
			continue
		}
		r.run(block)
		if id := regexp.MustCompile(`client id: +(\S+)\nsecret: +(\S+)`).FindStringSubmatch(r.last); id != nil {
			r.replace("CLIENT_ID", id[1])
			r.write("towpath/agent-secret", id[2])
		}
	}
	if !regexp.MustCompile(`web-\S+ +2 +2 +2 .*pause:3\.9 `).MatchString(r.last) {
		t.Errorf("after the rollback prod does not run the version before:\n%s", r.last)
	}
}

func portOf(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// reader does what a page says, in one shell: directory and exported variables go from block to block.
type reader struct {
	t       *testing.T
	home    string
	env     []string
	instead []string // old, new, …
	last    string   // what the last block printed
}

func newReader(t *testing.T, kubeconfig string) *reader {
	t.Helper()
	root := pages.Root(t)
	cluster := os.Getenv("TOWPATH_LOCALCLUSTER")
	if cluster == "" {
		cluster = filepath.Join(root, ".build", "localcluster")
	}
	if _, err := os.Stat(filepath.Join(cluster, "kubectl")); err != nil {
		t.Fatalf("the page needs kubectl (%v); build it with: make localcluster", err)
	}
	r := &reader{t: t, home: t.TempDir()}
	r.env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "TOWPATH_") || strings.HasPrefix(v, "GIT") || strings.HasPrefix(v, "CI=")
	})
	r.env = append(r.env, "HOME="+r.home, "KUBECONFIG="+kubeconfig, "PATH="+shared.Programs+":"+cluster+":"+os.Getenv("PATH"))
	r.write(".environment", "")
	return r
}

func (r *reader) write(name, text string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.home, name), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *reader) replace(old, with string) { r.instead = append(r.instead, old, with) }

// run does what the block's note says: nothing, else to run it, once, again until it prints something, or in the background.
func (r *reader) run(block pages.Block) {
	r.t.Helper()
	kind, pattern, _ := strings.Cut(block.Note, " ")
	switch kind {
	case "skip,":
		return
	case "in":
		r.background(block, strings.TrimPrefix(pattern, "the background until "))
		return
	case "", "until":
	default:
		r.t.Fatalf("line %d: no note %q is known", block.Line, block.Note)
	}
	wanted := regexp.MustCompile(pattern)
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*time.Minute)
	defer cancel()
	for {
		out, err := r.command(ctx, block).CombinedOutput()
		r.last = string(out)
		if err == nil && wanted.MatchString(r.last) {
			break
		}
		if kind == "" {
			r.t.Fatalf("line %d: %v\n%s\n%s", block.Line, err, block.Text, r.last)
		}
		select {
		case <-ctx.Done():
			r.t.Fatalf("line %d: it does not print %s (%v)\n%s\n%s", block.Line, pattern, err, block.Text, r.last)
		case <-time.After(200 * time.Millisecond):
		}
	}
	r.t.Logf("line %d:\n%s%s", block.Line, block.Text, r.last)
}

func (r *reader) command(ctx context.Context, block pages.Block) *exec.Cmd {
	text := strings.NewReplacer(r.instead...).Replace(block.Text)
	command := exec.CommandContext(ctx, "bash", "-c", ". ~/.environment\nset -euo pipefail\n"+text+"\n{ echo cd \"'$PWD'\"; declare -px; } > ~/.environment\n")
	command.Dir, command.Env = r.home, r.env
	return command
}

// background starts a block that goes on until the test ends, and waits until it says that it is there.
func (r *reader) background(block pages.Block, said string) {
	r.t.Helper()
	command := r.command(context.Background(), block)
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out := &watched{wanted: said, found: make(chan struct{})}
	command.Stdout, command.Stderr = out, out
	if err := command.Start(); err != nil {
		r.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		command.Wait()
		close(ended)
	}()
	r.t.Cleanup(func() {
		syscall.Kill(-command.Process.Pid, syscall.SIGTERM)
		<-ended
		if r.t.Failed() {
			r.t.Logf("line %d said:\n%s", block.Line, out)
		}
	})
	select {
	case <-out.found:
	case <-ended:
		r.t.Fatalf("line %d ended:\n%s\n%s", block.Line, block.Text, out)
	case <-r.t.Context().Done():
		r.t.Fatalf("line %d does not say %q:\n%s", block.Line, said, out)
	}
}

// watched is output that is waited for.
type watched struct {
	wanted string
	found  chan struct{}
	mu     sync.Mutex
	text   bytes.Buffer
	done   bool
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Write(p)
	if !w.done && strings.Contains(w.text.String(), w.wanted) {
		w.done = true
		close(w.found)
	}
	return len(p), nil
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}
