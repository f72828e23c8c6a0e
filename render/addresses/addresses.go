// Package addresses brings a file of manifests from an address: once for each name under which it is asked for, and from then on what is sealed under it. Whom
// it may call is for the HTTP client that it is given to say.
package addresses

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"time"

	"towpath/render/once"
)

// Config of Files.
type Config struct {
	HTTP  *http.Client
	Pins  once.Pins // of what was brought
	Bytes int64     // of one file (2 MiB)
	Clock func() time.Time
}

// Files brings files. Safe for concurrent use.
type Files struct {
	config Config
	once   *once.Fetches[[]byte]
}

// New makes one; it does no I/O.
func New(c Config) *Files {
	c.Bytes = cmp.Or(c.Bytes, 2<<20)
	if c.Clock == nil {
		c.Clock = time.Now
	}
	return &Files{config: c, once: once.New[[]byte](c.Clock)}
}

// Close ends what is under way.
func (f *Files) Close() { f.once.Close() }

// File is what stood at an address when it was first asked for under this name, and its digest ("sha256:…"). The error is a sentence for whoever wrote the
// address; it says nothing of what may be secret in it.
func (f *Files) File(ctx context.Context, name, address string) (text []byte, digest string, err error) {
	at, err := read(address)
	if err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256([]byte(name + "\x00" + address))
	pin := "address:" + hex.EncodeToString(sum[:])
	known, err := f.once.Do(ctx, pin, func(ctx context.Context) ([]byte, error) { return f.pinned(ctx, pin, at) })
	if err != nil {
		return nil, "", err
	}
	text, found, err := f.config.Pins.Kept(ctx, content(known))
	if err == nil && !found {
		err = fmt.Errorf("what was fetched is no longer kept under %s", known)
	}
	return text, string(known), err
}

// read refuses addresses that nobody should be asked for.
func read(address string) (*url.URL, error) {
	at, err := url.Parse(address)
	switch {
	case err != nil || at.Hostname() == "":
		return nil, errors.New("it is no address like https://HOST/PATH") // without it: it may hold a password
	case at.User != nil:
		return nil, fmt.Errorf("the address of %s holds a name or password, which everybody could read who may read the file; nothing is fetched with credentials, so put the file into the repository", at.Host)
	}
	return at, nil
}

// content is the name under which a text is kept. Many pins of one text keep it once.
func content(digest []byte) string { return "fetched:" + string(digest) }

// pinned is the digest of what is kept under a pin; nothing: what is there now. Who fetched it at another replica, and was first, is right.
func (f *Files) pinned(ctx context.Context, pin string, at *url.URL) (digest []byte, err error) {
	digest, found, err := f.config.Pins.Kept(ctx, pin)
	if err != nil || found {
		return digest, err
	}
	text, err := f.bring(ctx, at)
	if err != nil {
		return nil, plain(err)
	}
	sum := sha256.Sum256(text)
	digest = []byte("sha256:" + hex.EncodeToString(sum[:]))
	if _, err := f.config.Pins.Keep(ctx, content(digest), text); err != nil {
		return nil, err
	}
	return f.config.Pins.Keep(ctx, pin, digest)
}

func (f *Files) bring(ctx context.Context, at *url.URL) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, err
	}
	answer, err := f.config.HTTP.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	switch answer.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusGone:
		return nil, fmt.Errorf("nothing is there (%d)", answer.StatusCode)
	case http.StatusUnauthorized, http.StatusForbidden:
		return nil, fmt.Errorf("the server wants credentials (%d), and none are sent; put the file into the repository", answer.StatusCode)
	default:
		return nil, fmt.Errorf("the server answered %s", answer.Status)
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, f.config.Bytes+1))
	if err != nil {
		return nil, err
	}
	if int64(len(text)) > f.config.Bytes {
		return nil, fmt.Errorf("it has more than the %d bytes that are read of a file", f.config.Bytes)
	}
	kind, _, _ := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	if kind == "text/html" || bytes.HasPrefix(bytes.TrimLeft(text, "\ufeff \t\r\n"), []byte("<")) {
		return nil, errors.New("a web page is there, and no YAML; give the address of the file itself, as the one behind the button Raw")
	}
	return text, nil
}

// plain leaves, of errors that libraries wrapped around a call, the sentence: what to change where it was refused, else what happened; the address is told by
// whoever names it.
func plain(err error) error {
	var refused interface {
		error
		EgressRefused() bool
	}
	if errors.As(err, &refused) {
		return refused
	}
	var call *url.Error
	if errors.As(err, &call) {
		return call.Err
	}
	return err
}
