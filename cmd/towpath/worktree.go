package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// workTree is the files below a directory, as a render sees them once they are uploaded: links are followed, for an upload has none, and what Git keeps for itself
// is not there. Nothing is read before it is asked for. Not for concurrent use.
type workTree struct {
	root    *os.Root
	files   fs.FS
	refused error // the first link that was asked for and could not be followed
}

func openWorkTree(dir string) (*workTree, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &workTree{root: root, files: root.FS()}, nil
}

func (t *workTree) Close() error { return t.root.Close() }

// unseen are the names that nobody commits; a folder's listing passes over them.
var unseen = []string{".git", "node_modules"}

func (t *workTree) Stat(name string) (fs.FileInfo, error) {
	if slices.Contains(strings.Split(name, "/"), ".git") {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}
	info, err := fs.Stat(t.files, name)
	if err == nil {
		return info, nil
	}
	if link, failed := fs.Lstat(t.files, name); failed == nil && link.Mode()&fs.ModeSymlink != 0 {
		target, _ := fs.ReadLink(t.files, name)
		err = fmt.Errorf("%s is a symbolic link to %s, which is not below %s; put the file there", name, target, t.root.Name())
		if t.refused == nil {
			t.refused = err
		}
	}
	return nil, err
}

// Open opens files and directories. What else has a name, a pipe or a device, could keep whoever reads it waiting for ever.
func (t *workTree) Open(name string) (fs.File, error) {
	info, err := t.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("neither a file nor a directory")}
	}
	return t.files.Open(name)
}

func (t *workTree) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(t.files, name)
	if err != nil {
		return nil, err
	}
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return slices.Contains(unseen, e.Name()) })
	for i, e := range entries {
		if e.Type()&fs.ModeSymlink == 0 {
			continue
		}
		if info, err := fs.Stat(t.files, path.Join(name, e.Name())); err == nil { // else it stays what it is, and who asks for it is told
			entries[i] = followed{fs.FileInfoToDirEntry(info), e.Name()}
		}
	}
	return entries, nil
}

// followed is what a link leads to, under the link's name.
type followed struct {
	fs.DirEntry
	name string
}

func (f followed) Name() string { return f.name }
