package gitsource

import (
	"cmp"
	"time"
)

// Limits bound what a repository may cost. A field that is zero has its default.
type Limits struct {
	// FileBytes is the longest file that a Tree reads. Default 16 MiB.
	FileBytes int64
	// Files is how many files a walk over a tree may meet: trees can repeat themselves, so that a small pack holds a million million paths.
	// Default 2,000,000.
	Files int
	// PackBytes is the most that one fetch may bring. Default 4 GiB.
	PackBytes int64
	// ObjectBytes is the longest object a repository may have anywhere in its history; a fetch needs a little more memory than the longest it
	// meets. Default 256 MiB.
	ObjectBytes int64
	// Objects is how many objects one fetch may bring. Default 5,000,000.
	Objects int
	// UnpackedBytes is the most that the objects of one fetch may come to. Default 64 GiB.
	UnpackedBytes int64
	// ReferenceBytes is the longest list of references that a server may send. Default 64 MiB, some 800,000 references.
	ReferenceBytes int64
	// Packs is the number of packs, one a fetch, past which a mirror is built anew. Default 500.
	Packs int
	// CacheBytes is the memory for trees, files and the bases of deltas. Default 96 MiB.
	CacheBytes int64
	// FetchTime bounds one fetch. Default 30 minutes.
	FetchTime time.Duration
	// IdleTime is how long a server may say nothing. Default 60 s.
	IdleTime time.Duration
}

func (l Limits) orDefaults() Limits {
	const mib = 1 << 20
	return Limits{
		FileBytes:      cmp.Or(l.FileBytes, 16*mib),
		Files:          cmp.Or(l.Files, 2_000_000),
		PackBytes:      cmp.Or(l.PackBytes, 4096*mib),
		ObjectBytes:    cmp.Or(l.ObjectBytes, 256*mib),
		Objects:        cmp.Or(l.Objects, 5_000_000),
		UnpackedBytes:  cmp.Or(l.UnpackedBytes, 65536*mib),
		ReferenceBytes: cmp.Or(l.ReferenceBytes, 64*mib),
		Packs:          cmp.Or(l.Packs, 500),
		CacheBytes:     cmp.Or(l.CacheBytes, 96*mib),
		FetchTime:      cmp.Or(l.FetchTime, 30*time.Minute),
		IdleTime:       cmp.Or(l.IdleTime, time.Minute),
	}
}
