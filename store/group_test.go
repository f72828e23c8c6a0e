package store

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestWritesThatShareACommitFailAlone(t *testing.T) {
	s := open(t, "sqlite:"+filepath.Join(t.TempDir(), "towpath.db"))
	refused := errors.New("refused")
	remember := func(name string) func(*tx) error {
		return func(tx *tx) error {
			_, err := tx.exec(t.Context(), `INSERT INTO sources (tenant_id, name) VALUES ('main', ?)`, name)
			return err
		}
	}
	stopped, stop := context.WithCancel(t.Context())
	writes := []struct {
		ctx  context.Context
		do   func(*tx) error
		want string // of the error
	}{
		{t.Context(), remember("first"), ""},
		{t.Context(), func(tx *tx) error { return errors.Join(remember("refused")(tx), refused) }, "refused"},
		{t.Context(), remember("first"), "UNIQUE"},
		{t.Context(), func(tx *tx) error { panic(errors.Join(remember("panics")(tx), refused)) }, "panic in a write"},
		// Whoever gave up while its write is under way must not take the others along.
		{stopped, func(tx *tx) error { stop(); return remember("stopped")(tx) }, ""},
		{stopped, remember("too late"), "context canceled"},
		{t.Context(), remember("last"), ""},
	}
	s.group.turn <- struct{}{} // so that all of them wait
	errs := make([]error, len(writes))
	var writing sync.WaitGroup
	for i, w := range writes {
		writing.Go(func() { errs[i] = s.write(w.ctx, "test", w.do) })
		waiting(s.group, i+1)
	}
	<-s.group.turn
	writing.Wait()
	for i, w := range writes {
		if (errs[i] == nil) != (w.want == "") || errs[i] != nil && !strings.Contains(errs[i].Error(), w.want) {
			t.Errorf("write %d: error %v, want %q", i, errs[i], w.want)
		}
	}
	var names []string
	views, err := s.Sources(t.Context(), "main")
	must(t, err)
	for _, v := range views {
		names = append(names, v.Name)
	}
	if !slices.Equal(names, []string{"first", "last", "stopped"}) {
		t.Errorf("written were %v", names)
	}
}

// waiting returns once so many writes wait.
func waiting(g *group, count int) {
	for {
		g.mu.Lock()
		n := len(g.waiting)
		g.mu.Unlock()
		if n == count {
			return
		}
		runtime.Gosched()
	}
}
