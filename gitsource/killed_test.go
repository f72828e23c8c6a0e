package gitsource_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"

	"towpath/gitsource"
	"towpath/internal/testkit/gitserver"
)

// TestFetchUntilKilled is no test: it is the process that TestAProcessKilledWhileItFetches kills.
func TestFetchUntilKilled(t *testing.T) {
	dir, from := os.Getenv("TOWPATH_TEST_MIRROR"), os.Getenv("TOWPATH_TEST_REPOSITORY")
	if dir == "" {
		t.Skip("started by another test")
	}
	m := open(t, gitsource.Config{Dir: dir, URL: from, HTTP: &http.Client{Transport: &http.Transport{}}, AllowHTTP: true, Limits: gitsource.Limits{Packs: 1}})
	for {
		fetch(t, m) // with one pack allowed, every other fetch builds the mirror anew
	}
}

func TestAProcessKilledWhileItFetches(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	repo := gitserver.NewRepo(t, dir, "config", gitserver.Files{"a": "0", "dir/b": "b"})
	s := gitserver.Serve(t, dir, gitserver.Options{})
	c := gitsource.Config{
		Dir: filepath.Join(t.TempDir(), "m"), URL: s.URL + "/" + repo.Name, AllowHTTP: true, HTTP: &http.Client{Transport: s.Transport(t)},
	}
	for i := range 8 {
		next := repo.Commit("next", gitserver.Files{"a": fmt.Sprint(i)})
		// The process dies at its i-th request: while it asks, downloads, or builds anew.
		var requests atomic.Int32
		reached := make(chan struct{})
		s.Watch(func(*http.Request) {
			if int(requests.Add(1)) == i+1 {
				close(reached)
			}
		})
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFetchUntilKilled$")
		child.Env = append(os.Environ(), "TOWPATH_TEST_MIRROR="+c.Dir, "TOWPATH_TEST_REPOSITORY="+c.URL)
		ok(t, child.Start())
		<-reached
		ok(t, child.Process.Kill())
		_ = child.Wait()
		s.Watch(nil)

		m := open(t, c)
		if head, known := m.Head(); known {
			equal(t, read(t, tree(t, m, head.Commit), "dir/b"), "b")
		}
		equal(t, fetch(t, m).Commit, next)
		equal(t, read(t, tree(t, m, next), "a"), fmt.Sprint(i))
		ok(t, m.Close())
	}
}
