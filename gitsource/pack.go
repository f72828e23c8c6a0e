package gitsource

import (
	"compress/zlib"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
)

// errPack: what came is no whole pack.
var errPack = errors.New("the pack cannot be read")

// indexPack checks a pack and indexes it. The library takes each object into memory as a whole to name it, so the lengths are read first: a few
// kilobytes may claim to be, and unpack to, any number of gigabytes.
func indexPack(ctx context.Context, file io.ReadSeeker, limits Limits) (*idxfile.MemoryIndex, error) {
	if err := measurePack(ctx, file, limits); err != nil {
		return nil, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	var writer idxfile.Writer
	parser, err := packfile.NewParser(packfile.NewScanner(file), &writer, stopWith{ctx})
	if err != nil {
		return nil, err
	}
	if _, err := parser.Parse(); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("%w: %w", errPack, err)
	}
	return writer.Index()
}

// measurePack reads a pack once through and holds its objects' lengths against the limits.
func measurePack(ctx context.Context, file io.ReadSeeker, limits Limits) error {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	scanner := packfile.NewScanner(file)
	_, count, err := scanner.Header()
	if err != nil {
		return fmt.Errorf("%w: %w", errPack, err)
	}
	if int64(count) > int64(limits.Objects) {
		return fmt.Errorf("%w: the pack has %d objects, at most %d", ErrTooLarge, count, limits.Objects)
	}
	var total int64
	for range count {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		header, err := scanner.NextObjectHeader()
		if err != nil {
			return fmt.Errorf("%w: %w", errPack, err)
		}
		size := header.Length
		if size <= limits.ObjectBytes { // else there is no need to look
			var start prefix
			if _, _, err := scanner.NextObject(&start); err != nil {
				return fmt.Errorf("%w: %w", errPack, err)
			}
			if header.Type.IsDelta() {
				if size, err = start.targetSize(); err != nil {
					return err
				}
			}
		}
		if size > limits.ObjectBytes {
			return fmt.Errorf("%w: an object in the repository's history has %d bytes, at most %d", ErrTooLarge, size, limits.ObjectBytes)
		}
		if total += size; total > limits.UnpackedBytes {
			return fmt.Errorf("%w: the repository unpacks to more than %d bytes", ErrTooLarge, limits.UnpackedBytes)
		}
	}
	return nil
}

// prefix keeps the first bytes written to it: the head of a delta, which is the lengths of its base and of its result.
type prefix struct {
	data [2 * binary.MaxVarintLen64]byte
	n    int
}

func (p *prefix) Write(data []byte) (int, error) {
	p.n += copy(p.data[p.n:], data)
	return len(data), nil
}

func (p *prefix) targetSize() (int64, error) {
	_, n := binary.Uvarint(p.data[:p.n])
	if n > 0 {
		if size, m := binary.Uvarint(p.data[n:p.n]); m > 0 && int64(size) >= 0 {
			return int64(size), nil
		}
	}
	return 0, fmt.Errorf("%w: a delta has no length", errPack)
}

// stopWith ends the parsing of a pack with its context.
type stopWith struct{ ctx context.Context }

func (s stopWith) OnHeader(uint32) error                                              { return s.ctx.Err() }
func (s stopWith) OnInflatedObjectHeader(plumbing.ObjectType, int64, int64) error     { return s.ctx.Err() }
func (s stopWith) OnInflatedObjectContent(plumbing.Hash, int64, uint32, []byte) error { return nil }
func (s stopWith) OnFooter(plumbing.Hash) error                                       { return nil }

// packObject is an object on its way into a pack.
type packObject struct {
	kind plumbing.ObjectType
	size int64
	open func() (io.ReadCloser, error)
}

// writePack writes count objects as they come, each whole: a pack for one reading, in which deltas would not pay.
func writePack(w io.Writer, count int, next func(int) (packObject, error)) error {
	sum := sha1.New()
	w = io.MultiWriter(w, sum)
	head := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32([]byte("PACK"), packfile.VersionSupported), uint32(count))
	if _, err := w.Write(head); err != nil {
		return err
	}
	squeeze := zlib.NewWriter(w)
	for i := range count {
		o, err := next(i)
		if err != nil {
			return err
		}
		first := byte(o.kind)<<4 | byte(o.size&0xf)
		var line []byte
		for rest := o.size >> 4; ; rest >>= 7 {
			if rest == 0 {
				line = append(line, first)
				break
			}
			line = append(line, first|0x80)
			first = byte(rest & 0x7f)
		}
		if _, err := w.Write(line); err != nil {
			return err
		}
		squeeze.Reset(w)
		r, err := o.open()
		if err != nil {
			return err
		}
		n, err := io.Copy(squeeze, r)
		if err := errors.Join(err, r.Close(), squeeze.Close()); err != nil {
			return err
		}
		if n != o.size {
			return fmt.Errorf("%w: an object has %d bytes and claims %d", errPack, n, o.size)
		}
	}
	_, err := w.Write(sum.Sum(nil))
	return err
}
