package render

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"towpath/render/sops"
)

// Trace is what a render depended on in its tree: contents read, names looked up in vain, directories listed, links crossed.
type Trace struct {
	Version string   `json:"version"` // of this package when the render was made
	Records []record `json:"records"`
	Account string   `json:"account,omitempty"` // whose cluster's capabilities were asked for; "" when none were
	Cluster string   `json:"cluster,omitempty"` // their digest
	Retry   bool     `json:"retry,omitempty"`   // it failed for a reason that may pass with nothing changed: a registry that did not answer, a machine too busy
}

// record is one thing that was seen at a path.
type record struct {
	Kind recordKind `json:"k"`
	Path string     `json:"p"`
	Hash string     `json:"h,omitempty"` // of the content or link read, of a listing's names and kinds; of the kind of thing for a look
}

type recordKind string

const (
	readFile recordKind = "r" // content and mode
	absent   recordKind = "a" // the first component of a path that is not there
	listed   recordKind = "l" // names and kinds in a directory
	link     recordKind = "k" // a symbolic link that was crossed
	looked   recordKind = "e" // that something is there, and of which kind
	fetched  recordKind = "c" // what is from elsewhere: a chart's version, or a file's address, in place of a path; the digest of its content
)

// Text is the trace as it is kept.
func (t Trace) Text() []byte {
	text, err := json.Marshal(t)
	if err != nil {
		panic(err) // strings only
	}
	return text
}

// ParseTrace reads what Text wrote.
func ParseTrace(text []byte) (Trace, error) {
	var t Trace
	if err := json.Unmarshal(text, &t); err != nil {
		return t, fmt.Errorf("a trace that cannot be read: %w", err)
	}
	return t, nil
}

// Fresh reports whether each record is in the tree as it was.
func (t Trace) Fresh(tree fs.FS) bool {
	if t.Version != version || t.Retry {
		return false
	}
	return !slices.ContainsFunc(t.Records, func(r record) bool { return !r.holds(tree) })
}

// holds reports whether the tree shows at the record's path what was seen there.
func (r record) holds(tree fs.FS) bool {
	switch r.Kind {
	case fetched:
		return true // an exact version, pinned by digest, has the same content for ever; so has an address, for the same text of a deployment file
	case listed:
		entries, err := fs.ReadDir(tree, r.Path)
		return err == nil && listing(entries) == r.Hash
	}
	info, err := fs.Lstat(tree, r.Path)
	if r.Kind == absent {
		return errors.Is(err, fs.ErrNotExist)
	}
	if err != nil {
		return false
	}
	switch r.Kind {
	case readFile, link:
		return content(info) == r.Hash
	case looked:
		return kindOf(info.Mode()) == r.Hash
	}
	return false
}

// content is a file's hash and what of its mode counts.
func content(info fs.FileInfo) string {
	return kindOf(info.Mode()) + objectHash(info)
}

func objectHash(info fs.FileInfo) string {
	if hashed, ok := info.Sys().(interface{ ObjectHash() string }); ok {
		return hashed.ObjectHash()
	}
	return ""
}

func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "d"
	case mode&fs.ModeSymlink != 0:
		return "k"
	case mode.IsRegular() && mode.Perm()&0o100 != 0:
		return "x"
	case mode.IsRegular():
		return "f"
	}
	return "s" // a submodule
}

// listing is a hash of the names and kinds in a directory, not of what is in them.
func listing(entries []fs.DirEntry) string {
	sum := sha256.New()
	for _, e := range entries {
		fmt.Fprintf(sum, "%s%s\x00", kindOf(e.Type()), e.Name())
	}
	return hex.EncodeToString(sum.Sum(nil)[:12])
}

// recorder reads a tree and writes down what was seen. Paths are those of fs.FS. Not for concurrent use.
type recorder struct {
	tree    fs.FS
	limits  Limits
	records []record
	seen    map[record]bool
	files   int
	bytes   int64

	account, cluster string // as in Trace
	retry            bool
	attributes       attributes
	encrypted        map[string]*sops.File // that were read, by path
}

func newRecorder(tree fs.FS, limits Limits) *recorder {
	return &recorder{tree: tree, limits: limits, seen: map[record]bool{}, attributes: attributes{tree: tree}, encrypted: map[string]*sops.File{}}
}

func (r *recorder) add(kind recordKind, path, hash string) {
	entry := record{kind, path, hash}
	if !r.seen[entry] {
		r.seen[entry] = true
		r.records = append(r.records, entry)
	}
}

// trace is what was seen so far.
func (r *recorder) trace() Trace {
	return Trace{Version: version, Records: r.records, Account: r.account, Cluster: r.cluster, Retry: r.retry}
}

const maxLinks = 40

// resolve follows links to what is really there. The error is fs.ErrNotExist when nothing is, else a sentence.
func (r *recorder) resolve(name string) (physical string, info fs.FileInfo, err error) {
	todo := strings.Split(path.Clean(name), "/")
	done := "."
	for links := 0; len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if done == "." {
				return "", nil, fmt.Errorf("%s leads out of the repository", name)
			}
			done = path.Dir(done)
			continue
		}
		at := path.Join(done, part)
		info, err := fs.Lstat(r.tree, at)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				r.add(absent, at, "")
				return "", nil, fs.ErrNotExist
			}
			return "", nil, err
		}
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			r.add(link, at, content(info))
			if links++; links > maxLinks {
				return "", nil, fmt.Errorf("%s: more than %d symbolic links", name, maxLinks)
			}
			target, err := fs.ReadLink(r.tree, at)
			if err != nil {
				return "", nil, err
			}
			if path.IsAbs(target) {
				return "", nil, fmt.Errorf("%s is a symbolic link to %s; links must be relative and stay in the repository", at, target)
			}
			todo = append(strings.Split(target, "/"), todo...)
			continue
		case info.Mode()&fs.ModeIrregular != 0:
			r.add(looked, at, kindOf(info.Mode()))
			return "", nil, fmt.Errorf("%s is a submodule; submodules are not rendered, so put the files into this repository", at)
		case !info.IsDir() && len(todo) > 0:
			r.add(looked, at, kindOf(info.Mode()))
			return "", nil, fs.ErrNotExist
		}
		done = at
	}
	info, err = fs.Lstat(r.tree, done)
	return done, info, err
}

// stat says where a path leads and what is there.
func (r *recorder) stat(name string) (physical string, dir bool, err error) {
	physical, info, err := r.resolve(name)
	if err != nil {
		return "", false, err
	}
	if physical != "." {
		r.add(looked, physical, kindOf(info.Mode()))
	}
	return physical, info.IsDir(), nil
}

// overLimit is a sentence about a limit of all that a render reads.
type overLimit string

func (o overLimit) Error() string { return string(o) }

var lfs = []byte("version https://git-lfs.github.com/spec/v1")

func (r *recorder) read(name string) ([]byte, error) {
	physical, info, err := r.resolve(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		r.add(looked, physical, kindOf(info.Mode()))
		return nil, fmt.Errorf("%s is a directory", name)
	}
	r.add(readFile, physical, content(info))
	if r.files++; r.files > r.limits.Files {
		return nil, overLimit(fmt.Sprintf("more than %d files are read", r.limits.Files))
	}
	if info.Size() > r.limits.FileBytes {
		return nil, fmt.Errorf("%s has %d bytes; at most %d are read", name, info.Size(), r.limits.FileBytes)
	}
	if r.bytes += info.Size(); r.bytes > r.limits.Bytes {
		return nil, overLimit(fmt.Sprintf("more than %d bytes are read", r.limits.Bytes))
	}
	text, err := fs.ReadFile(r.tree, physical)
	if err != nil {
		return nil, err
	}
	r.attributes.check(physical)
	if bytes.HasPrefix(text, lfs) {
		return nil, fmt.Errorf("%s is a Git LFS pointer; its content is not in the repository, so store the file itself", name)
	}
	return r.masked(physical, text)
}

// masked is a text as a worker may see it: without what is encrypted in it.
func (r *recorder) masked(physical string, text []byte) ([]byte, error) {
	file := r.encrypted[physical]
	if file == nil {
		var err error
		if file, err = sops.Read(physical, text); err != nil && isProse(physical) {
			return text, nil // it shows what such a file looks like
		}
		if err != nil || file == nil {
			return text, err
		}
		r.encrypted[physical] = file
	}
	return file.Masked(), nil
}

// isProse reports whether a file is for people to read.
func isProse(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".md", ".txt", ".rst", ".adoc", ".gotmpl":
		return true
	}
	return false
}

// item is one name in a directory. A submodule counts as a directory, as it would be one in a checkout: who goes into it gets the error that names it.
type item struct {
	Name string `json:"n"`
	Dir  bool   `json:"d,omitempty"`
	Link bool   `json:"k,omitempty"`
}

func (r *recorder) list(name string) ([]item, error) {
	physical, info, err := r.resolve(name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is no directory", name)
	}
	entries, err := fs.ReadDir(r.tree, physical)
	if err != nil {
		return nil, err
	}
	r.add(listed, physical, listing(entries))
	items := make([]item, len(entries))
	for i, e := range entries {
		items[i] = item{e.Name(), e.Type()&(fs.ModeDir|fs.ModeIrregular) != 0, e.Type()&fs.ModeSymlink != 0}
	}
	return items, nil
}
