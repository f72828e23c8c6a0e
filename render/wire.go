package render

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"towpath/deployment"
)

// Parent and worker speak in frames: a kind, a length, a payload. The worker asks, the parent answers, until the worker is done.
type frameKind byte

const (
	frameJob     frameKind = 'j' // parent: a job, as JSON
	frameStat    frameKind = 's' // worker: a path; answered by a place
	frameRead    frameKind = 'r' // worker: a path; answered by the content
	frameList    frameKind = 'l' // worker: a path; answered by items
	frameChart   frameKind = 'c' // worker: a chart that is not in the tree; answered by its archive
	frameFetch   frameKind = 'f' // worker: an address; answered by the text that is there
	frameCluster frameKind = 'v' // worker: the digest of the capabilities that it knows; answered by the cluster's, or by nothing when they are these
	frameGood    frameKind = 'g' // parent: the answer
	frameGone    frameKind = 'n' // parent: nothing is there
	frameBad     frameKind = 'b' // parent: why there is no answer, as a sentence
	frameOver    frameKind = 'o' // parent: the same, as a limit of all reads is reached
	frameReady   frameKind = 'i' // worker: it takes jobs from now on
	frameDone    frameKind = 'd' // worker: what came of the job, as JSON
)

// job is what a worker is to render.
type job struct {
	File   *deployment.File
	Target string
	Limits Limits
}

// outcome is what came of a job.
type outcome struct {
	Objects  []outObject
	Problems []deployment.Problem
	Retire   bool // the process may not be used again: a global of a library was changed
}

type outObject struct {
	JSON     json.RawMessage
	Source   string
	Unstable bool // it comes out differently each time
}

// place is the answer to a stat.
type place struct {
	Physical string
	Dir      bool
}

// chartRef names a chart in a repository or registry.
type chartRef struct{ Repository, Chart, Version string }

func (c chartRef) String() string {
	return strings.TrimSpace(c.Repository + " " + c.Chart + " " + c.Version)
}

func writeFrame(w *bufio.Writer, kind frameKind, payload []byte) error {
	var head [5]byte
	head[0] = byte(kind)
	binary.BigEndian.PutUint32(head[1:], uint32(len(payload)))
	if _, err := w.Write(head[:]); err != nil {
		return err
	}
	if _, err := w.Write(payload); err != nil {
		return err
	}
	return w.Flush()
}

// errFrame says that a frame is larger than it may be.
type errFrame struct{ size, most int64 }

func (e errFrame) Error() string {
	return fmt.Sprintf("%d bytes where at most %d are taken", e.size, e.most)
}

func readFrame(r *bufio.Reader, most int64) (frameKind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	size := int64(binary.BigEndian.Uint32(head[1:]))
	if size > most {
		return 0, nil, errFrame{size, most}
	}
	payload := make([]byte, size)
	_, err := io.ReadFull(r, payload)
	return frameKind(head[0]), payload, err
}

func writeJSON(w *bufio.Writer, kind frameKind, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeFrame(w, kind, text)
}
