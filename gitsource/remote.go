package gitsource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
)

var (
	errNoRepository = errors.New("no such repository")
	errClosed       = errors.New("the server ended the conversation")
)

// remote is one conversation with the place where a repository comes from.
type remote interface {
	heads(ctx context.Context) (heads, error)
	// leads reports whether any reference, a branch or not, leads to a commit itself, once heads were asked for.
	leads(to hash) (bool, error)
	// download brings what want leads to and the store has not; haves are commits of the store, whole with all they lead to.
	download(ctx context.Context, want hash, haves []hash, to *store) error
	io.Closer
}

// heads are the branches of a repository.
type heads struct {
	branches map[string]hash
	standard string // the branch that the repository calls its default; "" when it does not say
}

// pick finds the head of a branch, of the default one when none is named.
func (h heads) pick(branch string) (string, hash, error) {
	if branch == "" {
		branch = h.standard
	}
	if branch == "" {
		return "", hash{}, &choice{"the repository does not say which of its branches is the default; name one"}
	}
	head, ok := h.branches[branch]
	if !ok {
		return "", hash{}, &choice{fmt.Sprintf("there is no branch %s%s; push it again, or name another", branch, h.others())}
	}
	return branch, head, nil
}

func (h heads) others() string {
	const shown = 5
	var names []string
	for name := range h.branches {
		names = append(names, name)
	}
	slices.Sort(names)
	switch {
	case len(names) == 0:
		return ""
	case len(names) > shown:
		return fmt.Sprintf(" (there are %s and %d more)", plain(errors.New(strings.Join(names[:shown], ", "))), len(names)-shown)
	}
	return fmt.Sprintf(" (there are: %s)", plain(errors.New(strings.Join(names, ", "))))
}

// choice is a branch that is not there.
type choice struct{ text string }

func (c *choice) Error() string { return c.text }

// packSession is the part of the library's sessions that a fetch needs. The client of the library that chooses among protocols, and Remote.Fetch above
// it, are reached through state of the process; sessions are driven here instead, each over the connection that the configuration allows.
type packSession interface {
	AdvertisedReferencesContext(context.Context) (*packp.AdvRefs, error)
	UploadPack(context.Context, *packp.UploadPackRequest) (*packp.UploadPackResponse, error)
	io.Closer
}

// server is a remote that speaks Git's own protocol.
type server struct {
	session packSession
	offered *packp.AdvRefs
}

func (s *server) Close() error { return s.session.Close() }

func (s *server) heads(ctx context.Context) (heads, error) {
	var err error
	if s.offered, err = s.session.AdvertisedReferencesContext(ctx); err != nil {
		return heads{}, inside(err)
	}
	h := heads{branches: map[string]hash{}}
	for name, head := range s.offered.References {
		if branch, ok := strings.CutPrefix(name, branchStart); ok {
			h.branches[branch] = head
		}
	}
	for _, link := range s.offered.Capabilities.Get(capability.SymRef) {
		if branch, ok := strings.CutPrefix(link, "HEAD:"+branchStart); ok {
			h.standard = branch
		}
	}
	return h, nil
}

func (s *server) leads(to hash) (bool, error) {
	return slices.Contains(slices.Collect(maps.Values(s.offered.References)), to), nil
}

func (s *server) download(ctx context.Context, want hash, haves []hash, to *store) error {
	request := packp.NewUploadPackRequestFromCapabilities(s.offered.Capabilities)
	if s.offered.Capabilities.Supports(capability.NoProgress) {
		if err := request.Capabilities.Set(capability.NoProgress); err != nil {
			return err
		}
	}
	request.Wants, request.Haves = []plumbing.Hash{want}, haves
	answer, err := s.session.UploadPack(ctx, request)
	if err != nil {
		return inside(err)
	}
	defer answer.Close()
	var pack io.Reader = answer
	switch {
	case request.Capabilities.Supports(capability.Sideband64k):
		pack = sideband.NewDemuxer(sideband.Sideband64k, pack)
	case request.Capabilities.Supports(capability.Sideband):
		pack = sideband.NewDemuxer(sideband.Sideband, pack)
	}
	return to.add(ctx, spoken{pack})
}

// spoken gives the error by which a server ends a pack the type it lacks.
type spoken struct{ io.Reader }

func (s spoken) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil {
		if text, ok := strings.CutPrefix(err.Error(), "unexpected error: "); ok {
			err = &remoteError{text}
		}
	}
	return n, err
}

// watch ends a conversation in which nothing is heard for too long. Time passes only while something is awaited, not while we work.
type watch struct {
	idle  time.Duration
	timer *time.Timer
}

// watchSilence derives a context that is cancelled, with errSilence as its cause, when an await lasts too long.
func watchSilence(ctx context.Context, idle time.Duration) (context.Context, *watch, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watch{idle: idle, timer: time.AfterFunc(idle, func() { cancel(errSilence) })}
	w.timer.Stop()
	return ctx, w, func() {
		w.timer.Stop()
		cancel(context.Canceled)
	}
}

// await counts the time until what it returns is called.
func (w *watch) await() func() {
	w.timer.Reset(w.idle)
	return func() { w.timer.Stop() }
}

// reader awaits each read, and ends with ErrTooLarge after most bytes when that is set.
func (w *watch) reader(r io.Reader, most int64) io.Reader {
	return &watchedReader{Reader: r, watch: w, left: most, most: most}
}

type watchedReader struct {
	io.Reader
	watch      *watch
	most, left int64
}

func (r *watchedReader) Read(p []byte) (int, error) {
	done := r.watch.await()
	defer done()
	n, err := r.Reader.Read(p)
	if r.most > 0 {
		if r.left -= int64(n); r.left < 0 {
			return 0, fmt.Errorf("%w: the server's list of references has more than %d bytes", ErrTooLarge, r.most)
		}
	}
	return n, err
}

// dialHTTP begins a conversation over HTTP.
func dialHTTP(a address, client *http.Client, user, token string, limits Limits, w *watch) (remote, error) {
	// A copy without a jar and without a time limit over the whole answer: a clone may take long while it moves.
	own := &http.Client{Transport: &watchedTransport{next: client.Transport, watch: w, limits: limits}, CheckRedirect: client.CheckRedirect}
	var auth transport.AuthMethod
	if token != "" {
		auth = &githttp.BasicAuth{Username: user, Password: token}
	}
	session, err := githttp.NewClient(own).NewUploadPackSession(a.endpoint(), auth)
	if err != nil {
		return nil, err
	}
	return &server{session: session}, nil
}

// watchedTransport watches answers, and bounds those that the library takes into memory as a whole.
type watchedTransport struct {
	next   http.RoundTripper
	watch  *watch
	limits Limits
}

func (t *watchedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	done := t.watch.await()
	answer, err := t.next.RoundTrip(r)
	done()
	if err != nil {
		return nil, err
	}
	var body io.Reader
	switch {
	case answer.StatusCode != http.StatusOK:
		body = io.LimitReader(t.watch.reader(answer.Body, 0), 64<<10) // a page for people
	case r.Method == http.MethodGet:
		body = t.watch.reader(answer.Body, t.limits.ReferenceBytes)
	default:
		body = t.watch.reader(answer.Body, 0) // the store counts a pack's bytes
	}
	answer.Body = struct {
		io.Reader
		io.Closer
	}{body, answer.Body}
	return answer, nil
}
