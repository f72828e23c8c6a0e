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
	mu       sync.RWMutex
	traces   map[Name]Trace
	paths    map[string]map[Name]struct{}
	clusters map[cluster]map[Name]struct{}
	again    map[Name]struct{} // made by another version, or worth another try
}

// cluster is the capabilities of an account, as renders saw them.
type cluster struct{ account, digest string }

// NewIndex makes an empty index.
func NewIndex[Name comparable]() *Index[Name] {
	return &Index[Name]{traces: map[Name]Trace{}, paths: map[string]map[Name]struct{}{}, clusters: map[cluster]map[Name]struct{}{}, again: map[Name]struct{}{}}
}

// Put sets the trace of a render.
func (x *Index[Name]) Put(name Name, t Trace) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.drop(name)
	x.traces[name] = t
	for _, r := range t.Records {
		enter(x.paths, r.Path, name)
	}
	if t.Cluster != "" {
		enter(x.clusters, cluster{t.Account, t.Cluster}, name)
	}
	if t.Version != version || t.Retry {
		x.again[name] = struct{}{}
	}
}

func enter[Key, Name comparable](sets map[Key]map[Name]struct{}, key Key, name Name) {
	if sets[key] == nil {
		sets[key] = map[Name]struct{}{}
	}
	sets[key][name] = struct{}{}
}

func leave[Key, Name comparable](sets map[Key]map[Name]struct{}, key Key, name Name) {
	delete(sets[key], name)
	if len(sets[key]) == 0 {
		delete(sets, key)
	}
}

// Drop forgets a render.
func (x *Index[Name]) Drop(name Name) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.drop(name)
}

func (x *Index[Name]) drop(name Name) {
	t := x.traces[name]
	for _, r := range t.Records {
		leave(x.paths, r.Path, name)
	}
	leave(x.clusters, cluster{t.Account, t.Cluster}, name)
	delete(x.again, name)
	delete(x.traces, name)
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

// Differing lists the renders that may come out differently in a tree, whatever changed in it: each record of each render is held against it.
func (x *Index[Name]) Differing(tree fs.FS) []Name {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var differing []Name
	for name, trace := range x.traces {
		if !trace.Fresh(tree) {
			differing = append(differing, name)
		}
	}
	return differing
}

// Stale lists the renders that are to be made anew whatever changed in the tree: those that another version of this package made, that failed for a reason
// which may have passed, or that saw other capabilities of their account's cluster than it has now. Its cost is that of what it lists.
func (x *Index[Name]) Stale(capabilities func(account string) Capabilities) []Name {
	x.mu.RLock()
	defer x.mu.RUnlock()
	stale := maps.Clone(x.again)
	for seen, names := range x.clusters {
		if capabilities(seen.account).Digest() != seen.digest {
			maps.Copy(stale, names)
		}
	}
	return slices.Collect(maps.Keys(stale))
}
