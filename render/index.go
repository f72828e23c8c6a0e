package render

import (
	"io/fs"
	"maps"
	"path"
	"slices"
	"sync"
)

// Index knows the traces of many renders, and finds those that a change may touch. Its names are the caller's. Safe for concurrent use.
type Index[Name comparable] struct {
	mu     sync.RWMutex
	traces map[Name]Trace
	paths  map[string]map[Name]struct{}
	stale  map[Name]struct{} // made by another version of this package
}

// NewIndex makes an empty index.
func NewIndex[Name comparable]() *Index[Name] {
	return &Index[Name]{traces: map[Name]Trace{}, paths: map[string]map[Name]struct{}{}, stale: map[Name]struct{}{}}
}

// Put sets the trace of a render.
func (x *Index[Name]) Put(name Name, t Trace) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.drop(name)
	x.traces[name] = t
	if t.Version != version {
		x.stale[name] = struct{}{}
	}
	for _, r := range t.Records {
		at := x.paths[r.Path]
		if at == nil {
			at = map[Name]struct{}{}
			x.paths[r.Path] = at
		}
		at[name] = struct{}{}
	}
}

// Drop forgets a render.
func (x *Index[Name]) Drop(name Name) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.drop(name)
}

func (x *Index[Name]) drop(name Name) {
	for _, r := range x.traces[name].Records {
		delete(x.paths[r.Path], name)
		if len(x.paths[r.Path]) == 0 {
			delete(x.paths, r.Path)
		}
	}
	delete(x.traces, name)
	delete(x.stale, name)
}

// Dirty lists the renders that may come out differently in a tree in which these paths changed. A changed path counts with all its ancestors: a name
// that was looked up in vain, or a directory that was listed, may be any of them. Each candidate's records are then held against the tree.
func (x *Index[Name]) Dirty(tree fs.FS, changed []string) []Name {
	x.mu.RLock()
	defer x.mu.RUnlock()
	candidates := map[Name]struct{}{}
	seen := map[string]bool{}
	for _, p := range changed {
		for ; !seen[p]; p = path.Dir(p) {
			seen[p] = true
			for name := range x.paths[p] {
				candidates[name] = struct{}{}
			}
		}
	}
	var dirty []Name
	for name := range candidates {
		if !x.traces[name].Fresh(tree) {
			dirty = append(dirty, name)
		}
	}
	return dirty
}

// Stale lists the renders that were made by another version of this package.
func (x *Index[Name]) Stale() []Name {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return slices.Collect(maps.Keys(x.stale))
}
