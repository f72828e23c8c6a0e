package gitsource

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"
)

// What a Tree's errors wrap, beside those of package fs.
var (
	// ErrTooLarge: a file, or a number of files, is over a limit of the repository's settings.
	ErrTooLarge = errors.New("too large")
	// ErrSubmodule: the path is, or lies in, a submodule; its content is another repository's.
	ErrSubmodule = errors.New("a submodule, whose content is not part of this repository")
	// ErrLink: a symbolic link that is absolute, leaves the repository, or never ends.
	ErrLink = errors.New("a symbolic link that leads nowhere")
)

const (
	maxLinks      = 40   // crossed on the way to one file, as Linux has it
	maxLinkTarget = 4096 // bytes
	maxPath       = 4096 // bytes of a path within a repository
)

// Tree is the content of one commit, or of an upload, as a read-only fs.FS: also an fs.ReadDirFS, fs.ReadFileFS, fs.StatFS and fs.ReadLinkFS. It reads Git
// objects; nothing is checked out, so no filter of .gitattributes acts and a pointer of Git LFS is an ordinary small file.
//
// Open, ReadFile, ReadDir and Stat follow symbolic links, Lstat and ReadLink only those on the way to the last element. No link leaves the
// repository: such a one is an error of ErrLink. Submodules show as fs.ModeIrregular; opening one is an error of ErrSubmodule. Names are taken as Git
// has them: any bytes but NUL and the slash. There are no modification times. FileInfo.Sys gives an Object.
//
// A Tree stays readable while its mirror fetches, and when that is rebuilt; it needs no closing. Safe for concurrent use.
type Tree struct {
	objects objects
	root    hash
	limits  Limits
}

// Object is what FileInfo.Sys of a Tree's files gives: which Git object holds the content.
type Object struct{ hash hash }

// ObjectHash is the hash of the blob or tree in hexadecimal; of a submodule, the commit it points to.
func (o Object) ObjectHash() string { return o.hash.String() }

// ObjectHash is the hash of the whole tree in hexadecimal: equal for equal content.
func (t *Tree) ObjectHash() string { return t.root.String() }

var (
	_ fs.ReadDirFS  = (*Tree)(nil)
	_ fs.ReadFileFS = (*Tree)(nil)
	_ fs.StatFS     = (*Tree)(nil)
	_ fs.ReadLinkFS = (*Tree)(nil)
)

// Open opens a file or a directory. A file's content is read at once; a limit holds as for ReadFile.
func (t *Tree) Open(name string) (fs.File, error) {
	e, err := t.resolve("open", name, true)
	if err != nil {
		return nil, err
	}
	i := info{tree: t, entry: e}
	if e.isTree() {
		list, err := t.list(name, e)
		if err != nil {
			return nil, err
		}
		return &openDir{info: i, path: name, rest: list}, nil
	}
	data, err := t.read("open", name, e)
	if err != nil {
		return nil, err
	}
	return &openFile{Reader: *bytes.NewReader(data), info: i, path: name}, nil
}

// ReadFile reads a file. One longer than Limits.FileBytes is an error of ErrTooLarge, before anything is read.
func (t *Tree) ReadFile(name string) ([]byte, error) {
	e, err := t.resolve("read", name, true)
	if err != nil {
		return nil, err
	}
	if e.isTree() {
		return nil, pathError("read", name, errors.New("is a directory"))
	}
	data, err := t.read("read", name, e)
	return bytes.Clone(data), err
}

// ReadDir lists a directory, ordered by name.
func (t *Tree) ReadDir(name string) ([]fs.DirEntry, error) {
	e, err := t.resolve("readdir", name, true)
	if err != nil {
		return nil, err
	}
	if !e.isTree() {
		return nil, pathError("readdir", name, errors.New("not a directory"))
	}
	return t.list(name, e)
}

// Stat describes a file, at the end of its links.
func (t *Tree) Stat(name string) (fs.FileInfo, error) {
	e, err := t.resolve("stat", name, true)
	if err != nil {
		return nil, err
	}
	return info{tree: t, entry: e}, nil
}

// Lstat describes a file, or the link itself.
func (t *Tree) Lstat(name string) (fs.FileInfo, error) {
	e, err := t.resolve("lstat", name, false)
	if err != nil {
		return nil, err
	}
	return info{tree: t, entry: e}, nil
}

// ReadLink gives the target of a link, as it was committed.
func (t *Tree) ReadLink(name string) (string, error) {
	e, err := t.resolve("readlink", name, false)
	if err != nil {
		return "", err
	}
	if !e.isLink() {
		return "", pathError("readlink", name, fmt.Errorf("%w: not a symbolic link", fs.ErrInvalid))
	}
	return t.target("readlink", name, e)
}

func (t *Tree) list(name string, dir entry) ([]fs.DirEntry, error) {
	entries, err := t.objects.entries(dir.hash)
	if err != nil {
		return nil, pathError("readdir", name, err)
	}
	list := make([]fs.DirEntry, len(entries))
	for i, e := range entries {
		list[i] = info{tree: t, entry: e}
	}
	return list, nil
}

func (t *Tree) read(op, name string, e entry) ([]byte, error) {
	switch e.fileMode().Type() {
	case 0:
	case fs.ModeIrregular:
		if !e.isSubmodule() {
			return nil, pathError(op, name, fmt.Errorf("%w: Git knows no file of the mode %o", fs.ErrInvalid, e.mode))
		}
		return nil, pathError(op, name, fmt.Errorf("%w (commit %s)", ErrSubmodule, e.hash))
	}
	data, err := t.objects.blob(e.hash, t.limits.FileBytes)
	if err != nil {
		return nil, pathError(op, name, err)
	}
	return data, nil
}

func (t *Tree) target(op, name string, e entry) (string, error) {
	data, err := t.objects.blob(e.hash, maxLinkTarget)
	switch {
	case err != nil:
		return "", pathError(op, name, err)
	case len(data) == 0 || bytes.IndexByte(data, 0) >= 0:
		return "", pathError(op, name, fmt.Errorf("%w: its target is no path", ErrLink))
	}
	return string(data), nil
}

// resolve finds the entry that name leads to. last says whether a link at the end is followed too.
func (t *Tree) resolve(op, name string, last bool) (entry, error) {
	here := []entry{{name: ".", mode: modeTree, hash: t.root}} // from the root down to the directory reached so far
	if name == "." {
		return here[0], nil
	}
	if !validPath(name) {
		return entry{}, pathError(op, name, fs.ErrInvalid)
	}
	rest, links := name, 0
	for {
		var part string
		var more bool
		part, rest, more = strings.Cut(rest, "/")
		switch part {
		case "", ".": // only targets of links have these
			if !more {
				return here[len(here)-1], nil
			}
			continue
		case "..":
			if len(here) == 1 {
				return entry{}, pathError(op, name, fmt.Errorf("%w: it leaves the repository", ErrLink))
			}
			if here = here[:len(here)-1]; !more {
				return here[len(here)-1], nil
			}
			continue
		}
		entries, err := t.objects.entries(here[len(here)-1].hash)
		if err != nil {
			return entry{}, pathError(op, name, err)
		}
		e, ok := find(entries, part)
		switch {
		case !ok:
			return entry{}, pathError(op, name, fs.ErrNotExist)
		case e.isLink() && (more || last):
			if links++; links > maxLinks {
				return entry{}, pathError(op, name, fmt.Errorf("%w: more than %d links on the way", ErrLink, maxLinks))
			}
			target, err := t.target(op, name, e)
			if err != nil {
				return entry{}, err
			}
			if target[0] == '/' {
				return entry{}, pathError(op, name, fmt.Errorf("%w: %s is absolute", ErrLink, target))
			}
			if more {
				target += "/" + rest
			}
			if len(target) > maxPath {
				return entry{}, pathError(op, name, fmt.Errorf("%w: the path behind it is over %d bytes long", ErrLink, maxPath))
			}
			rest = target
		case !more:
			return e, nil
		case e.isTree():
			here = append(here, e)
		case e.isSubmodule():
			return entry{}, pathError(op, name, fmt.Errorf("%s is %w", part, ErrSubmodule))
		default:
			return entry{}, pathError(op, name, fmt.Errorf("%w: %s is not a directory", fs.ErrNotExist, part))
		}
	}
}

// validPath is fs.ValidPath without its demand for UTF-8, which Git does not make.
func validPath(name string) bool {
	if len(name) > maxPath {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." {
			return false
		}
	}
	return true
}

func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// info is an entry as package fs wants it, both fs.FileInfo and fs.DirEntry.
type info struct {
	tree  *Tree
	entry entry
}

func (i info) Name() string               { return i.entry.name }
func (i info) Mode() fs.FileMode          { return i.entry.fileMode() }
func (i info) Type() fs.FileMode          { return i.entry.fileMode().Type() }
func (i info) IsDir() bool                { return i.entry.isTree() }
func (i info) ModTime() time.Time         { return time.Time{} }
func (i info) Info() (fs.FileInfo, error) { return i, nil }
func (i info) Sys() any                   { return Object{i.entry.hash} }
func (i info) String() string             { return fs.FormatFileInfo(i) }

// Size looks the length up when it is asked for; -1 when the object cannot be read.
func (i info) Size() int64 {
	if mode := i.Mode(); mode.IsDir() || mode.Type() == fs.ModeIrregular {
		return 0
	}
	size, err := i.tree.objects.size(i.entry.hash)
	if err != nil {
		return -1
	}
	return size
}

type openFile struct {
	bytes.Reader
	info info
	path string
}

func (f *openFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *openFile) Close() error               { return nil }

type openDir struct {
	info info
	path string
	rest []fs.DirEntry
}

func (d *openDir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *openDir) Close() error               { return nil }

func (d *openDir) Read([]byte) (int, error) {
	return 0, pathError("read", d.path, errors.New("is a directory"))
}

func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		list := d.rest
		d.rest = nil
		return list, nil
	}
	if len(d.rest) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.rest))
	list := d.rest[:n]
	d.rest = d.rest[n:]
	return list, nil
}
