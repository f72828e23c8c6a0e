// Package render makes a target's manifests from a commit: plain YAML, Kustomize, Helm. Rendering is hostile input, so it happens in worker processes
// that have no repository, no network and no credential: the parent serves each read, and writes down what was read. That record, the trace, says
// later whether a render can differ at another commit.
package render

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"towpath/deployment"
	"towpath/manifest"
	"towpath/render/sops"
)

// version of what rendering does with its inputs: ours, and those of the libraries that it is done with. A change makes every recorded trace stale.
const version = "4 kustomize v0.21.1 helm v3.22.0 sprig v3.3.0"

// Request is everything that a render depends on.
type Request struct {
	// Tree is the files of a commit or an upload. Beside fs.FS it implements fs.ReadLinkFS and fs.ReadDirFS, and the Sys of its FileInfos has a
	// method ObjectHash() string. Submodules have fs.ModeIrregular.
	Tree   fs.FS
	File   *deployment.File
	Target string
	Tenant string // whose files they are: what may be fetched, and which first results of unstable templates may be used again, is its own
	// Pin names what is brought from addresses for this file: under one name an address has one content for ever.
	Pin     string
	Cluster Capabilities
	// Keys opens files that are encrypted with SOPS. It is called once a Secret has a value of one. nil: the values stay placeholders, as in a plan of what is not
	// merged; where they may stand is checked all the same, and the result's digest is that of the result with values.
	Keys func() (sops.Keys, error)
}

// Capabilities is what charts may ask of the cluster. Zero: Kubernetes 1.34 and its built-in APIs.
type Capabilities struct {
	Version string   // "v1.34.1"
	APIs    []string // "apps/v1", "apps/v1/Deployment"; their order does not count
}

// Digest is the same for equal capabilities, and never empty.
func (c Capabilities) Digest() string {
	sum := sha256.New()
	fmt.Fprintln(sum, c.Version)
	for _, api := range slices.Sorted(slices.Values(c.APIs)) {
		fmt.Fprintln(sum, api)
	}
	return hex.EncodeToString(sum.Sum(nil)[:12])
}

// Result is what a render came to. With an Error among the problems there are no objects; such a result has a trace too.
type Result struct {
	Objects  []manifest.Object // in input order
	Digest   string            // of Objects
	Problems []deployment.Problem
	Trace    Trace
}

// Failed reports whether the render has an error.
func (r Result) Failed() bool {
	for _, p := range r.Problems {
		if p.Severity == deployment.Error {
			return true
		}
	}
	return false
}

// Limits of one render.
type Limits struct {
	FileBytes     int64         // of one file read (2 MiB)
	Bytes         int64         // of all files read (64 MiB)
	Files         int           // read (5,000)
	OutputBytes   int64         // of all objects (20 MiB)
	Objects       int           // 5,000
	Depth         int           // of bases and charts inside each other (32)
	Nodes         int           // of a YAML document, aliases followed (100,000)
	Memory        int64         // of the worker's process (512 MiB)
	Time          time.Duration // of a processor (10 s); by the clock, six times as much
	RendersPerRun int           // a worker is replaced after so many (1,000)
}

func (l Limits) orDefaults() Limits {
	l.FileBytes = cmp.Or(l.FileBytes, 2<<20)
	l.Bytes = cmp.Or(l.Bytes, 64<<20)
	l.Files = cmp.Or(l.Files, 5000)
	l.OutputBytes = cmp.Or(l.OutputBytes, 20<<20)
	l.Objects = cmp.Or(l.Objects, 5000)
	l.Depth = cmp.Or(l.Depth, 32)
	l.Nodes = cmp.Or(l.Nodes, 100_000)
	l.Memory = cmp.Or(l.Memory, 512<<20)
	l.Time = cmp.Or(l.Time, 10*time.Second)
	l.RendersPerRun = cmp.Or(l.RendersPerRun, 1000)
	return l
}
