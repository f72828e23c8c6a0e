package gitsource

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// NewTree makes a Tree of an upload: what is not in Git, in the same form. Keys are paths as a Tree has them ("deploy/web.yml"); all are regular files. The
// hashes are those that Git would give, so equal content has equal hashes whatever way it came. The content is copied. Limits that are zero have their
// defaults; a tree over one of them is an error of ErrTooLarge, a path that is none an error that names it.
func NewTree(files map[string][]byte, limits Limits) (*Tree, error) {
	limits = limits.orDefaults()
	if len(files) > limits.Files {
		return nil, fmt.Errorf("%d files: %w: at most %d", len(files), ErrTooLarge, limits.Files)
	}
	m := &memory{trees: map[hash][]entry{}, blobs: map[hash][]byte{}}
	root := &folder{}
	for path, data := range files {
		if !validPath(path) || strings.ContainsRune(path, 0) {
			return nil, fmt.Errorf("%q is not a path: write it from the upload's root, with slashes and without . or .. in it", path)
		}
		if int64(len(data)) > limits.FileBytes {
			return nil, fmt.Errorf("%s: %w: %d bytes, at most %d", path, ErrTooLarge, len(data), limits.FileBytes)
		}
		blob := plumbing.ComputeHash(plumbing.BlobObject, data)
		if _, ok := m.blobs[blob]; !ok {
			m.blobs[blob] = bytes.Clone(data)
		}
		if err := root.add(path, blob); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return &Tree{objects: m, root: m.keep(root), limits: limits}, nil
}

// folder is a directory while a tree is being made.
type folder struct {
	folders map[string]*folder
	files   map[string]hash
}

func (f *folder) add(path string, blob hash) error {
	for {
		name, rest, more := strings.Cut(path, "/")
		_, isFile := f.files[name]
		next, isFolder := f.folders[name]
		switch {
		case more && isFile, !more && isFolder:
			return fmt.Errorf("%s is both a file and a directory", name)
		case !more:
			if f.files == nil {
				f.files = map[string]hash{}
			}
			f.files[name] = blob
			return nil
		case next == nil:
			if f.folders == nil {
				f.folders = map[string]*folder{}
			}
			next = &folder{}
			f.folders[name] = next
		}
		f, path = next, rest
	}
}

// memory holds objects that are in no repository.
type memory struct {
	trees map[hash][]entry
	blobs map[hash][]byte
}

func (m *memory) keep(f *folder) hash {
	var list []entry
	for name, blob := range f.files {
		list = append(list, entry{name: name, mode: modeRegular, hash: blob})
	}
	for name, sub := range f.folders {
		list = append(list, entry{name: name, mode: modeTree, hash: m.keep(sub)})
	}
	data := encodeTree(list)
	// encodeTree wrote it, so it parses; reading it back gives the order of names that find wants.
	list, _ = parseTree(data)
	tree := plumbing.ComputeHash(plumbing.TreeObject, data)
	m.trees[tree] = list
	return tree
}

func (m *memory) entries(tree hash) ([]entry, error) { return m.trees[tree], nil }

func (m *memory) size(blob hash) (int64, error) { return int64(len(m.blobs[blob])), nil }

func (m *memory) blob(blob hash, limit int64) ([]byte, error) {
	data := m.blobs[blob]
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(data), limit)
	}
	return data, nil
}
