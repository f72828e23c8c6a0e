package render

import (
	"context"
	"sync"
)

// turns lets each file have only so many renders under way at once: one whose renders hang leaves room for those of others.
type turns struct {
	most  int
	mu    sync.Mutex
	files map[string]*turn
}

type turn struct {
	taken chan struct{}
	users int // that have a turn or wait for one
}

// wait for a turn of a file; leave gives it back.
func (t *turns) wait(ctx context.Context, file string) (leave func(), err error) {
	t.mu.Lock()
	mine := t.files[file]
	if mine == nil {
		mine = &turn{taken: make(chan struct{}, t.most)}
		t.files[file] = mine
	}
	mine.users++
	t.mu.Unlock()
	forget := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if mine.users--; mine.users == 0 {
			delete(t.files, file)
		}
	}
	select {
	case mine.taken <- struct{}{}:
		return func() {
			<-mine.taken
			forget()
		}, nil
	case <-ctx.Done():
		forget()
		return nil, ctx.Err()
	}
}
