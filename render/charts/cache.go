package charts

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// cache keeps archives in a directory, each under its digest. Several processes may share it.
type cache struct {
	dir  string
	most int64 // bytes of all files
}

func (c cache) file(digest string) string {
	return filepath.Join(c.dir, strings.ReplaceAll(digest, ":", "-")+".tgz")
}

// get is what has a digest; nil when nothing has, or when what was kept is damaged.
func (c cache) get(digest string) []byte {
	archive, err := os.ReadFile(c.file(digest))
	if err != nil || digestOf(archive) != digest {
		return nil
	}
	now := time.Now()
	_ = os.Chtimes(c.file(digest), now, now) // what was not used for the longest time goes first; when this fails it goes too early, no more
	return archive
}

// put keeps an archive, and drops those not used for the longest time until all have room.
func (c cache) put(digest string, archive []byte) error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	temporary, err := os.CreateTemp(c.dir, "new-*")
	if err != nil {
		return err
	}
	_, err = temporary.Write(archive)
	if err = errors.Join(err, temporary.Close()); err == nil {
		err = os.Rename(temporary.Name(), c.file(digest))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("the chart could not be kept: %w", err), os.Remove(temporary.Name()))
	}
	return c.shrink(c.file(digest))
}

// shrink also drops what a process left that ended while it wrote.
func (c cache) shrink(newest string) error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	var files []fs.FileInfo
	var size int64
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // another process dropped it
		}
		files, size = append(files, info), size+info.Size()
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return cmp.Compare(a.ModTime().UnixNano(), b.ModTime().UnixNano()) })
	for _, file := range files {
		name := filepath.Join(c.dir, file.Name())
		if size <= c.most {
			break
		}
		if name == newest {
			continue
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		size -= file.Size()
	}
	return nil
}
