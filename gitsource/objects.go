package gitsource

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// hash names an object by its content.
type hash = plumbing.Hash

// objects is what a Tree reads from. What it returns is shared: nobody changes it. Safe for concurrent use.
type objects interface {
	// entries are the parsed entries of a tree, ordered by the bytes of their names.
	entries(tree hash) ([]entry, error)
	// size is the length of a blob in bytes, found without reading it.
	size(blob hash) (int64, error)
	// blob is a blob's content; an error of ErrTooLarge when it is longer than limit bytes.
	blob(blob hash, limit int64) ([]byte, error)
}

// entry is one line of a tree object.
type entry struct {
	name string
	mode uint32
	hash hash
}

// Modes of tree entries, as Git writes them.
const (
	modeTree       = 0o040000
	modeRegular    = 0o100644
	modeExecutable = 0o100755
	modeLink       = 0o120000
	modeSubmodule  = 0o160000

	modeKind = 0o170000
)

func (e entry) isTree() bool      { return e.mode&modeKind == modeTree }
func (e entry) isLink() bool      { return e.mode&modeKind == modeLink }
func (e entry) isSubmodule() bool { return e.mode&modeKind == modeSubmodule }

// fileMode is the mode as package fs shows it. Git knows of permissions only whether a file may be executed; the group-writable mode of old
// versions is an ordinary file. A submodule, and whatever else a tree may claim, is irregular: it cannot be opened.
func (e entry) fileMode() fs.FileMode {
	switch e.mode & modeKind {
	case modeTree:
		return fs.ModeDir | 0o755
	case modeLink:
		return fs.ModeSymlink | 0o777
	case modeRegular & modeKind:
		if e.mode&0o100 != 0 {
			return 0o755
		}
		return 0o644
	default:
		return fs.ModeIrregular
	}
}

// parseTree reads a tree object. Names that are merely odd are kept; a tree whose names cannot be told apart, or would lead somewhere else than
// one step down, is refused as a whole: nobody can say what its author meant.
func parseTree(data []byte) ([]entry, error) {
	// One string under all names: a parsed tree holds on to a single allocation.
	text := string(data)
	list := make([]entry, 0, len(data)/36+1)
	for at := 0; at < len(text); {
		space := strings.IndexByte(text[at:], ' ')
		if space < 1 || space > 7 {
			return nil, errors.New("an entry has no mode")
		}
		mode, err := parseMode(text[at : at+space])
		if err != nil {
			return nil, err
		}
		at += space + 1
		end := strings.IndexByte(text[at:], 0)
		if end < 0 || len(text)-at-end-1 < len(hash{}) {
			return nil, errors.New("it is cut off")
		}
		e := entry{name: text[at : at+end], mode: mode}
		at += end + 1
		copy(e.hash[:], text[at:])
		at += len(e.hash)
		if e.name == "" || e.name == "." || e.name == ".." || strings.Contains(e.name, "/") {
			return nil, fmt.Errorf("an entry is named %q", e.name)
		}
		list = append(list, e)
	}
	// Git orders a directory as if its name ended in a slash; we look up and compare by the name alone.
	slices.SortFunc(list, func(a, b entry) int { return cmp.Compare(a.name, b.name) })
	for i := 1; i < len(list); i++ {
		if list[i].name == list[i-1].name {
			return nil, fmt.Errorf("two entries are named %q", list[i].name)
		}
	}
	return list, nil
}

func parseMode(octal string) (uint32, error) {
	var mode uint32
	for _, digit := range []byte(octal) {
		if digit < '0' || digit > '7' {
			return 0, fmt.Errorf("an entry has the mode %q", octal)
		}
		mode = mode<<3 | uint32(digit-'0')
	}
	return mode, nil
}

// encodeTree is the other way, in Git's order.
func encodeTree(list []entry) []byte {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b entry) int { return cmp.Compare(gitOrder(a), gitOrder(b)) })
	var b bytes.Buffer
	for _, e := range list {
		fmt.Fprintf(&b, "%o %s\x00", e.mode, e.name)
		b.Write(e.hash[:])
	}
	return b.Bytes()
}

func gitOrder(e entry) string {
	if e.isTree() {
		return e.name + "/"
	}
	return e.name
}

// find looks an entry up.
func find(list []entry, name string) (entry, bool) {
	at, ok := slices.BinarySearchFunc(list, name, func(e entry, name string) int { return cmp.Compare(e.name, name) })
	if !ok {
		return entry{}, false
	}
	return list[at], true
}
