package gitsource

import "fmt"

// Listing is which files of a tree match patterns. It remembers what it saw, so that the listing of the next commit costs only what differs. It never
// changes. Safe for concurrent use.
type Listing struct {
	patterns Patterns
	root     *folderListing
}

// folderListing is one directory. Directories in which nothing matches are kept without what is below them.
type folderListing struct {
	hash    hash
	files   []string
	folders []subfolder
	count   int
}

type subfolder struct {
	name string
	list *folderListing
}

// List finds the files of a tree that match: regular files and links, not submodules. before is a listing of a similar tree by the same patterns, or nil.
// A tree of more files and directories than Limits.Files is an error of ErrTooLarge.
func List(t *Tree, p Patterns, before *Listing) (*Listing, error) {
	l := &Listing{patterns: p}
	var known *folderListing
	if before != nil && before.patterns.key == p.key {
		known = before.root
	}
	w := lister{tree: t, patterns: p, left: t.limits.Files}
	var err error
	l.root, err = w.list(t.root, p.start(), known, 0)
	return l, err
}

type lister struct {
	tree     *Tree
	patterns Patterns
	left     int
}

func (w *lister) list(dir hash, s state, known *folderListing, length int) (*folderListing, error) {
	if known != nil && known.hash == dir {
		return known, nil
	}
	entries, err := w.tree.objects.entries(dir)
	if err != nil {
		return nil, err
	}
	if w.left -= len(entries); w.left < 0 {
		return nil, fmt.Errorf("%w: more than %d files and directories", ErrTooLarge, w.tree.limits.Files)
	}
	f := &folderListing{hash: dir}
	var before []subfolder
	if known != nil {
		before = known.folders
	}
	var below []subfolder
	for _, e := range entries {
		switch {
		case length+len(e.name) > maxPath:
			return nil, fmt.Errorf("%.64s…: %w: a path of more than %d bytes", e.name, ErrTooLarge, maxPath)
		case e.isTree():
			next := w.patterns.enter(s, e.name)
			if len(next) == 0 {
				continue
			}
			for len(before) > 0 && before[0].name < e.name {
				before = before[1:]
			}
			var old *folderListing
			if len(before) > 0 && before[0].name == e.name {
				old = before[0].list
			}
			sub, err := w.list(e.hash, next, old, length+len(e.name)+1)
			if err != nil {
				return nil, err
			}
			f.count += sub.count
			below = append(below, subfolder{e.name, sub})
		case !e.isSubmodule() && w.patterns.file(s, e.name):
			f.files = append(f.files, e.name)
			f.count++
		}
	}
	if f.count > 0 {
		f.folders = below
	}
	return f, nil
}

// Len is the number of files.
func (l *Listing) Len() int { return l.root.count }

// Paths are the files' paths: those of a directory itself before those of the directories in it, each ordered by name.
func (l *Listing) Paths() []string {
	return l.root.paths(make([]string, 0, l.root.count), "")
}

func (f *folderListing) paths(list []string, prefix string) []string {
	for _, name := range f.files {
		list = append(list, prefix+name)
	}
	for _, sub := range f.folders {
		if sub.list.count > 0 {
			list = sub.list.paths(list, prefix+sub.name+"/")
		}
	}
	return list
}

// Files lists the deployment files of a commit. The second listing by the same patterns costs only what differs from the first.
func (m *Mirror) Files(id string, p Patterns) (*Listing, error) {
	t, err := m.Tree(id)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	before := m.listings[p.key]
	m.mu.Unlock()
	l, err := List(t, p, before)
	if err != nil {
		return nil, fmt.Errorf("repository %s: commit %.12s: %w", m.address.display, id, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.listings) > 8 { // patterns of former configurations
		clear(m.listings)
	}
	m.listings[p.key] = l
	return l, nil
}
