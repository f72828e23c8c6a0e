package gitsource

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/go-git/go-billy/v5"
	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	gitcache "github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
)

// errMissing: an object that something refers to is not there.
var errMissing = errors.New("an object is missing")

// store is one bare repository on disk: packs that only we write, and the head of one branch. The library's own storage may not be used by two
// goroutines, and does not see a new pack without reading all indexes anew; so the packs are held here, each with a mutex about the library's reader
// of it. Safe for concurrent use.
type store struct {
	dir    string
	limits Limits
	trees  *cache[[]entry]
	blobs  *cache[[]byte]
	bases  gitcache.Object

	mu     sync.RWMutex
	packs  []*pack
	large  []*pack        // those of packs whose objects are not in small
	small  map[hash]place // each fetch adds a pack of a few objects; searching hundreds of indexes one by one would show
	closed bool

	// damage is called with the first sign that the repository on disk is not what was written.
	damage func(error)
}

// place is where an object lies.
type place struct {
	pack *pack
	at   int64
}

// smallPack is the number of objects up to which a pack's are found in one map.
const smallPack = 4096

type pack struct {
	name  string // "pack-HEX"
	index *idxfile.MemoryIndex
	file  billy.File

	mu     sync.Mutex // of reader, which has one place in its file
	reader *packfile.Packfile
}

const (
	packFolder  = "objects/pack"
	headFile    = "HEAD"
	refsFile    = "packed-refs"
	originFile  = "origin"
	branchStart = "refs/heads/"
)

// createStore makes an empty repository, one that the git command can read too.
func createStore(dir string) error {
	for _, sub := range []string{packFolder, "objects/info", "refs/heads"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte("[core]\n\trepositoryformatversion = 0\n\tbare = true\n"), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, headFile), []byte("ref: refs/heads/main\n"), 0o600)
}

// openStore loads what is in dir. Whatever a fetch that was cut off left behind is removed.
func openStore(dir string, limits Limits) (*store, error) {
	s := &store{
		dir: dir, limits: limits, damage: func(error) {}, small: map[hash]place{},
		trees: newCache[[]entry](limits.CacheBytes / 4),
		blobs: newCache[[]byte](limits.CacheBytes / 2),
		bases: gitcache.NewObjectLRU(gitcache.FileSize(limits.CacheBytes / 4)),
	}
	folder := filepath.Join(dir, packFolder)
	files, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, f := range files {
		name, isIndex := strings.CutSuffix(f.Name(), ".idx")
		switch {
		case strings.HasPrefix(f.Name(), "tmp-"):
			if err := os.Remove(filepath.Join(folder, f.Name())); err != nil {
				return nil, err
			}
		case isIndex:
			names = append(names, name)
		}
	}
	for _, name := range names {
		p, err := s.openPack(name)
		if err == nil {
			err = s.take(p)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", name, err), s.close())
		}
	}
	return s, nil
}

func (s *store) openPack(name string) (*pack, error) {
	file, err := os.Open(filepath.Join(s.dir, packFolder, name+".idx"))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	index := idxfile.NewMemoryIndex()
	if err := idxfile.NewDecoder(bufio.NewReaderSize(file, 1<<16)).Decode(index); err != nil {
		return nil, fmt.Errorf("the index is damaged: %w", err)
	}
	return s.joinPack(name, index)
}

// joinPack opens the pack that index describes. That the pack ends in the checksum which the index names proves it whole: it was written so once, and
// what is torn or cut off by a crash is cut off at its end.
func (s *store) joinPack(name string, index *idxfile.MemoryIndex) (*pack, error) {
	file, err := osfs.New(filepath.Join(s.dir, packFolder), osfs.WithBoundOS()).Open(name + ".pack")
	if err != nil {
		return nil, err
	}
	p := &pack{name: name, index: index, file: file}
	// No file system is handed over, so the library gives every object from memory; large ones are refused before they are read.
	p.reader = packfile.NewPackfileWithCache(index, nil, file, s.bases, 0)
	end, err := p.reader.ID()
	if err != nil {
		err = fmt.Errorf("the pack is cut off: %w", err)
	} else if end != plumbing.Hash(index.PackfileChecksum) {
		err = errors.New("the pack is not the one that its index describes")
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return p, nil
}

// take adds a pack to those that are searched.
func (s *store) take(p *pack) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.packs = append(s.packs, p)
	if count, _ := p.index.Count(); count > smallPack {
		s.large = append(s.large, p)
		return nil
	}
	all, err := p.index.Entries()
	if err != nil {
		return err
	}
	defer all.Close()
	for {
		e, err := all.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		s.small[e.Hash] = place{p, int64(e.Offset)}
	}
}

func (s *store) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	var errs []error
	for _, p := range s.packs {
		p.mu.Lock()
		errs = append(errs, p.file.Close())
		p.mu.Unlock()
	}
	return errors.Join(errs...)
}

// locate finds an object; an error of errMissing when it is not there.
func (s *store) locate(h hash) (place, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return place{}, fs.ErrClosed
	}
	if p, ok := s.small[h]; ok {
		return p, nil
	}
	for _, p := range s.large {
		if at, err := p.index.FindOffset(h); err == nil {
			return place{p, at}, nil
		}
	}
	return place{}, fmt.Errorf("%w: %s", errMissing, h)
}

func (s *store) has(h hash) bool {
	_, err := s.locate(h)
	return err == nil
}

func (s *store) packCount() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.packs)
}

// object reads an object of one type; at most limit bytes of it.
func (s *store) object(kind plumbing.ObjectType, h hash, limit int64) ([]byte, error) {
	p, err := s.locate(h)
	if err != nil {
		return nil, s.damaged(err)
	}
	data, found, err := p.pack.read(h, p.at, limit)
	switch {
	case errors.Is(err, ErrTooLarge):
		return nil, err
	case err != nil:
		return nil, s.damaged(fmt.Errorf("%s %s: %w", kind, h, err))
	case found != kind:
		// Not damage: a hostile tree may say of a file that it is a directory.
		return nil, fmt.Errorf("object %s is a %s, not a %s", h, found, kind)
	}
	return data, nil
}

func (p *pack) read(h hash, at, limit int64) (_ []byte, _ plumbing.ObjectType, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer func() {
		if r := recover(); r != nil { // the library, at bytes that are not what they were
			err = fmt.Errorf("%w: %v", errPack, r)
		}
	}()
	size, err := p.reader.GetSizeByOffset(at)
	if err != nil {
		return nil, 0, err
	}
	if size > limit {
		return nil, 0, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, size, limit)
	}
	o, err := p.reader.Get(h)
	if err != nil {
		return nil, 0, err
	}
	r, err := o.Reader()
	if err != nil {
		return nil, 0, err
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, 0, err
	}
	return data, o.Type(), r.Close()
}

// damaged tells the mirror and hands the error on.
func (s *store) damaged(err error) error {
	if !errors.Is(err, fs.ErrClosed) {
		s.damage(err)
	}
	return err
}

func (s *store) entries(tree hash) ([]entry, error) {
	if list, ok := s.trees.get(tree); ok {
		return list, nil
	}
	data, err := s.object(plumbing.TreeObject, tree, s.limits.FileBytes)
	if err != nil {
		return nil, err
	}
	list, err := parseTree(data)
	if err != nil {
		return nil, fmt.Errorf("the directory cannot be read (tree %s): %w", tree, err)
	}
	s.trees.put(tree, list, int64(len(data)+len(list)*48))
	return list, nil
}

func (s *store) size(blob hash) (int64, error) {
	if data, ok := s.blobs.get(blob); ok {
		return int64(len(data)), nil
	}
	p, err := s.locate(blob)
	if err != nil {
		return 0, s.damaged(err)
	}
	p.pack.mu.Lock()
	defer p.pack.mu.Unlock()
	size, err := p.pack.reader.GetSizeByOffset(p.at)
	if err != nil {
		return 0, s.damaged(fmt.Errorf("blob %s: %w", blob, err))
	}
	return size, nil
}

func (s *store) blob(blob hash, limit int64) ([]byte, error) {
	data, ok := s.blobs.get(blob)
	if !ok {
		var err error
		if data, err = s.object(plumbing.BlobObject, blob, limit); err != nil {
			return nil, err
		}
		s.blobs.put(blob, data, int64(len(data)))
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(data), limit)
	}
	return data, nil
}

// add takes a pack in, of which r is the text. It is checked, indexed and on disk, or nothing has happened.
func (s *store) add(ctx context.Context, r io.Reader) error {
	folder := filepath.Join(s.dir, packFolder)
	file, err := os.CreateTemp(folder, "tmp-pack-")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // gone already when all went well
	defer file.Close()
	n, err := io.Copy(file, io.LimitReader(r, s.limits.PackBytes+1))
	switch {
	case err != nil:
		return err
	case n > s.limits.PackBytes:
		return fmt.Errorf("%w: the pack has more than %d bytes", ErrTooLarge, s.limits.PackBytes)
	}
	index, err := indexPack(ctx, file, s.limits)
	if err != nil {
		return err
	}
	name := "pack-" + hex.EncodeToString(index.PackfileChecksum[:])
	if slices.ContainsFunc(s.list(), func(p *pack) bool { return p.name == name }) {
		return nil
	}
	var text bytes.Buffer
	if _, err := idxfile.NewEncoder(&text).Encode(index); err != nil {
		return err
	}
	// The index comes last: what has no index is no pack.
	if err := errors.Join(file.Chmod(0o400), file.Sync(), os.Rename(file.Name(), filepath.Join(folder, name+".pack"))); err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(folder, name+".idx"), text.Bytes()); err != nil {
		return err
	}
	p, err := s.joinPack(name, index)
	if err != nil {
		return err
	}
	return s.take(p)
}

func (s *store) list() []*pack {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clone(s.packs)
}

// setHead records the head of the branch, the last step of a fetch: all that it leads to is on disk by now.
func (s *store) setHead(branch string, head hash) error {
	if err := replaceFile(filepath.Join(s.dir, refsFile), fmt.Appendf(nil, "%s %s%s\n", head, branchStart, branch)); err != nil {
		return err
	}
	return replaceFile(filepath.Join(s.dir, headFile), []byte("ref: "+branchStart+branch+"\n"))
}

// head reads what setHead wrote; "" when there is none yet.
func (s *store) head() (branch string, head hash, err error) {
	text, err := os.ReadFile(filepath.Join(s.dir, refsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", hash{}, nil
	}
	if err != nil {
		return "", hash{}, err
	}
	id, name, _ := strings.Cut(strings.TrimSuffix(string(text), "\n"), " "+branchStart)
	if !plumbing.IsHash(id) || name == "" {
		return "", hash{}, fmt.Errorf("%s is damaged", refsFile)
	}
	head = plumbing.NewHash(id)
	if !s.has(head) {
		return "", hash{}, fmt.Errorf("%w: the head %s of branch %s", errMissing, head, name)
	}
	return name, head, nil
}

// replaceFile writes a file so that a crash leaves the old one or the new.
func replaceFile(path string, data []byte) error {
	file, err := os.CreateTemp(filepath.Dir(path), "tmp-")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	_, err = file.Write(data)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
