package gitsource

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	gitcache "github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

// errSource: the repository we read from is damaged itself.
var errSource = errors.New("the repository is damaged")

// folderRemote is a repository on this machine's disk, read as files: the library's own transport for it would run the git command. Others write to it
// meanwhile; nothing is written to it.
type folderRemote struct {
	dir     string
	limits  Limits
	storage *filesystem.Storage
}

func openFolder(path string, limits Limits) (remote, error) {
	dir := path
	if stat, err := os.Stat(filepath.Join(path, ".git")); err == nil && stat.IsDir() {
		dir = filepath.Join(path, ".git")
	}
	for _, part := range []string{"HEAD", "objects"} {
		if _, err := os.Stat(filepath.Join(dir, part)); err != nil {
			if os.IsPermission(err) {
				return nil, badSetting("the repository cannot be read: %v", err)
			}
			return nil, errNoRepository
		}
	}
	if text, err := os.ReadFile(filepath.Join(dir, "objects/info/alternates")); err == nil && len(text) > 0 {
		return nil, badSetting("it borrows objects from another repository (objects/info/alternates), which is not read; make it whole with `git repack -a -d` and remove that file")
	}
	storage := filesystem.NewStorageWithOptions(osfs.New(dir, osfs.WithBoundOS()), gitcache.NewObjectLRU(32*gitcache.MiByte),
		filesystem.Options{KeepDescriptors: true, LargeObjectThreshold: 8 << 20})
	config, err := storage.Config()
	if err != nil {
		return nil, errors.Join(badSetting("its config file cannot be read: %v", err), storage.Close())
	}
	extensions := config.Raw.Section("extensions")
	for key, known := range map[string]string{"objectformat": "sha1", "refstorage": "files"} {
		if value := extensions.Option(key); value != "" && value != known {
			return nil, errors.Join(badSetting("it is kept in the form extensions.%s = %s, which is not read; %s is", key, value, known), storage.Close())
		}
	}
	return &folderRemote{dir: dir, limits: limits, storage: storage}, nil
}

func (f *folderRemote) Close() error { return f.storage.Close() }

func (f *folderRemote) heads(context.Context) (heads, error) {
	h := heads{branches: map[string]hash{}}
	all, err := f.storage.IterReferences()
	if err != nil {
		return heads{}, err
	}
	defer all.Close()
	err = all.ForEach(func(r *plumbing.Reference) error {
		if r.Type() == plumbing.HashReference && r.Name().IsBranch() {
			h.branches[r.Name().Short()] = r.Hash()
		}
		return nil
	})
	if err != nil {
		return heads{}, err
	}
	if head, err := f.storage.Reference(plumbing.HEAD); err == nil && head.Type() == plumbing.SymbolicReference {
		h.standard = head.Target().Short()
	}
	if len(h.branches) == 0 {
		return heads{}, transport.ErrEmptyRemoteRepository
	}
	return h, nil
}

func (f *folderRemote) leads(to hash) (found bool, err error) {
	all, err := f.storage.IterReferences()
	if err != nil {
		return false, err
	}
	defer all.Close()
	return found, all.ForEach(func(r *plumbing.Reference) error {
		found = found || r.Hash() == to
		return nil
	})
}

func (f *folderRemote) download(ctx context.Context, want hash, _ []hash, to *store) error {
	var list []hash
	var err error
	if to.packCount() == 0 {
		list, err = f.copyPacks(ctx, to)
	} else {
		list, err = f.missing(ctx, want, to)
	}
	if err != nil || len(list) == 0 {
		return err
	}
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.CloseWithError(writePack(w, len(list), f.packed(list)))
	}()
	defer func() {
		r.Close()
		<-done
	}()
	return to.add(ctx, r)
}

// packed gives the objects of a list, one by one.
func (f *folderRemote) packed(list []hash) func(int) (packObject, error) {
	return func(i int) (packObject, error) {
		o, err := f.object(plumbing.AnyObject, list[i])
		if err != nil {
			return packObject{}, err
		}
		return packObject{kind: o.Type(), size: o.Size(), open: o.Reader}, nil
	}
}

func (f *folderRemote) object(kind plumbing.ObjectType, h hash) (plumbing.EncodedObject, error) {
	o, err := f.storage.EncodedObject(kind, h)
	switch {
	case errors.Is(err, plumbing.ErrObjectNotFound):
		return nil, fmt.Errorf("%w: object %s is missing; git fsck there tells more", errSource, h)
	case err != nil:
		return nil, fmt.Errorf("object %s: %w", h, err)
	case o.Size() > f.limits.ObjectBytes:
		return nil, fmt.Errorf("%w: object %s has %d bytes, at most %d", ErrTooLarge, h, o.Size(), f.limits.ObjectBytes)
	}
	return o, nil
}

// copyPacks takes over whole packs, and lists what the repository holds beside them.
func (f *folderRemote) copyPacks(ctx context.Context, to *store) ([]hash, error) {
	packs, err := f.storage.ObjectPacks()
	if err != nil {
		return nil, err
	}
	for _, name := range packs {
		file, err := os.Open(filepath.Join(f.dir, packFolder, "pack-"+name.String()+".pack"))
		if err != nil {
			return nil, err
		}
		if err := errors.Join(to.add(ctx, file), file.Close()); err != nil {
			return nil, err
		}
	}
	var loose []hash
	err = f.storage.ForEachObjectHash(func(h hash) error {
		if len(loose) > f.limits.Objects {
			return fmt.Errorf("%w: more than %d objects", ErrTooLarge, f.limits.Objects)
		}
		if !to.has(h) {
			loose = append(loose, h)
		}
		return ctx.Err()
	})
	return loose, err
}

// missing lists what want leads to and the store has not. What the store has, it has with all that it leads to.
func (f *folderRemote) missing(ctx context.Context, want hash, to *store) ([]hash, error) {
	type step struct {
		kind plumbing.ObjectType
		hash hash
	}
	var list []hash
	seen := map[hash]bool{}
	ends, err := f.storage.Shallow() // commits of a shallow clone whose parents were left out
	if err != nil {
		return nil, err
	}
	todo := []step{{plumbing.CommitObject, want}}
	for len(todo) > 0 {
		next := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[next.hash] || to.has(next.hash) {
			continue
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		seen[next.hash] = true
		if list = append(list, next.hash); len(list) > f.limits.Objects {
			return nil, fmt.Errorf("%w: more than %d objects", ErrTooLarge, f.limits.Objects)
		}
		if next.kind == plumbing.BlobObject {
			continue
		}
		o, err := f.object(next.kind, next.hash)
		if err != nil {
			return nil, err
		}
		if next.kind == plumbing.CommitObject {
			var c object.Commit
			if err := c.Decode(o); err != nil {
				return nil, err
			}
			todo = append(todo, step{plumbing.TreeObject, c.TreeHash})
			if slices.Contains(ends, next.hash) {
				continue
			}
			for _, parent := range c.ParentHashes {
				todo = append(todo, step{plumbing.CommitObject, parent})
			}
			continue
		}
		entries, err := f.entries(o)
		if err != nil {
			return nil, fmt.Errorf("tree %s: %w", next.hash, err)
		}
		for _, e := range entries {
			switch {
			case e.isTree():
				todo = append(todo, step{plumbing.TreeObject, e.hash})
			case !e.isSubmodule():
				todo = append(todo, step{plumbing.BlobObject, e.hash})
			}
		}
	}
	return list, nil
}

func (f *folderRemote) entries(o plumbing.EncodedObject) ([]entry, error) {
	r, err := o.Reader()
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	_, err = io.Copy(&text, r)
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	return parseTree(text.Bytes())
}
