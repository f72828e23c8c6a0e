package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"towpath/internal/testkit/world"
)

// Agents are installed once: the first complete one, of the commit that agent/FIRST names, works with each controller that comes after it.
func TestTheFirstAgentWorksWithThisController(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../agent/FIRST")
	if err != nil {
		t.Fatal(err)
	}
	commit := strings.TrimSpace(string(text))
	if out, err := exec.CommandContext(t.Context(), "git", "-C", "../..", "cat-file", "-e", commit+"^{commit}").CombinedOutput(); err != nil {
		t.Skipf("this checkout does not reach back to commit %s: %s", commit, out)
	}
	dir := t.TempDir()
	archive, err := exec.CommandContext(t.Context(), "git", "-C", "../..", "archive", commit, "go.mod", "go.sum", "agent", "cmd/towpath-agent", "internal").Output()
	if err != nil {
		t.Fatal(err)
	}
	untar := exec.CommandContext(t.Context(), "tar", "-x", "-C", dir)
	untar.Stdin = bytes.NewReader(archive)
	build := exec.CommandContext(t.Context(), "go", "build", "-o", "towpath-agent", "./cmd/towpath-agent")
	build.Dir, build.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	for _, command := range []*exec.Cmd{untar, build} {
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", command.Args, err, out)
		}
	}
	w := first(t, heals(world.OnProd(halfThenApproval, "")))
	w.StopAgent("prod")
	w.ReplaceAgent("prod", filepath.Join(dir, "towpath-agent"))
	d := next(t, w, 2, "approval")
	must(t, w, "deploy", "approve", d.ID)
	expectState(t, w.Ended(d.ID), "SUCCEEDED")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:2": 4})
	hand(w, "v1 configmaps", "web", `{"data":{"IMAGE":"by hand"}}`)
	says(t, w, "web is put back as #2 has it")
}
