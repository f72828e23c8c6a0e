package preview

import (
	"bytes"
	"io"
)

// without reads a text with each occurrence of a word left out. The API server puts its own path in front of addresses in the HTML that it proxies; for a
// visitor of a link they are those of the Service again.
type without struct {
	from io.ReadCloser
	word []byte
	held []byte // read, and not given yet
	done int    // of held, to be given as it is
	err  error
}

// Read implements io.Reader.
func (w *without) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for w.done == 0 {
		if w.err != nil && len(w.held) == 0 {
			return 0, w.err
		}
		w.look()
	}
	n := copy(p, w.held[:w.done])
	w.held, w.done = w.held[n:], w.done-n
	return n, nil
}

// look reads on, unless an occurrence, or the end, says how much of what is held can be given.
func (w *without) look() {
	switch at := bytes.Index(w.held, w.word); {
	case at == 0:
		w.held = w.held[len(w.word):]
	case at > 0:
		w.done = at
	case w.err != nil:
		w.done = len(w.held)
	case len(w.held) >= len(w.word): // its end may be the beginning of an occurrence
		w.done = len(w.held) - len(w.word) + 1
	default:
		chunk := make([]byte, 8<<10)
		n, err := w.from.Read(chunk)
		w.held, w.err = append(w.held, chunk[:n]...), err
	}
}

// Close implements io.Closer.
func (w *without) Close() error { return w.from.Close() }
