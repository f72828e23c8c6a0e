// Package charts brings Helm charts from chart repositories and OCI registries: one exact version, pinned by the digest that it had when it was first used,
// and kept on disk. Whom it may call, and how long an answer may be, is for the HTTP client that it is given to say.
package charts

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"

	"towpath/render/once"
)

// Config of a Fetcher.
type Config struct {
	HTTP         *http.Client
	Pins         once.Pins // of the content that a version had
	Dir          string    // of the cache; what is in it can be lost
	CacheBytes   int64     // of all that is in Dir (512 MiB)
	ArchiveBytes int64     // of one chart, packed (20 MiB)
	IndexBytes   int64     // of a repository's index (64 MiB)
	Credentials  []Credential
	Clock        func() time.Time
}

// Credential is for everything below an address.
type Credential struct {
	URL          string // https://charts.example.com/private, oci://registry.example.com/team
	Username     string
	PasswordFile string // read at each use
}

// Fetcher brings charts. Safe for concurrent use.
type Fetcher struct {
	config Config
	cache  cache
	once   *once.Fetches[[]byte]
}

// New makes a fetcher; it does no I/O.
func New(c Config) *Fetcher {
	c.CacheBytes = cmp.Or(c.CacheBytes, 512<<20)
	c.ArchiveBytes = cmp.Or(c.ArchiveBytes, 20<<20)
	c.IndexBytes = cmp.Or(c.IndexBytes, 64<<20)
	if c.Clock == nil {
		c.Clock = time.Now
	}
	return &Fetcher{config: c, cache: cache{dir: c.Dir, most: c.CacheBytes}, once: once.New[[]byte](c.Clock)}
}

// Close ends what is under way.
func (f *Fetcher) Close() { f.once.Close() }

// wanted is one version of one chart.
type wanted struct {
	repository string // of an HTTP repository; "" when chart is oci://HOST/PATH
	chart      string
	version    string
	digest     string // that the author asks for: "sha256:…", or ""
}

func (w wanted) String() string {
	name := w.chart + " " + w.version
	if w.digest != "" {
		name += "@" + w.digest
	}
	if w.repository != "" {
		name += " of " + w.repository
	}
	return name
}

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// want reads what a deployment file says. Only exact versions are taken: a range would bring another chart on another day, without a commit that says so.
func want(repository, chart, version string) (wanted, error) {
	w := wanted{repository: strings.TrimRight(repository, "/"), chart: chart}
	w.version, w.digest, _ = strings.Cut(version, "@")
	if _, err := semver.NewVersion(w.version); err != nil {
		return w, fmt.Errorf("version %q is not exact; a range would bring another chart on another day, so write one version, as 1.2.3", w.version)
	}
	if strings.Contains(version, "@") && !digestForm.MatchString(w.digest) {
		return w, fmt.Errorf("version %q: after the @ stands sha256: and 64 hexadecimal digits", version)
	}
	return w, nil
}

// brought is a chart as it came from outside.
type brought struct {
	archive []byte
	named   string // the digest by which a file may ask for this very content
}

// Chart is the archive of a chart and its digest ("sha256:…"). repository is the address of a chart repository, or "" for a chart oci://HOST/PATH. version
// is exact, and may be followed by @ and the digest of the archive, or, in a registry, of the manifest. The error is a sentence for whoever wrote that.
func (f *Fetcher) Chart(ctx context.Context, repository, chart, version string) (archive []byte, digest string, err error) {
	w, err := want(repository, chart, version)
	if err != nil {
		return nil, "", err
	}
	pin, pinned, err := f.config.Pins.Kept(ctx, w.pin())
	if err != nil {
		return nil, "", err
	}
	if pinned {
		if archive := f.cache.get(string(pin)); archive != nil {
			return archive, string(pin), nil
		}
	}
	archive, err = f.once.Do(ctx, w.String(), func(ctx context.Context) ([]byte, error) { return f.fetch(ctx, w) })
	if err != nil {
		return nil, "", err
	}
	return archive, digestOf(archive), nil
}

func (w wanted) pin() string { return "chart:" + w.String() }

func digestOf(text []byte) string {
	sum := sha256.Sum256(text)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// fetch brings a chart from outside, holds it against its pin, and keeps it.
func (f *Fetcher) fetch(ctx context.Context, w wanted) ([]byte, error) {
	came, err := f.bring(ctx, w)
	if err != nil {
		return nil, plain(err)
	}
	digest := digestOf(came.archive)
	kept, err := f.config.Pins.Keep(ctx, w.pin(), []byte(digest))
	if err != nil {
		return nil, err
	}
	if string(kept) != digest {
		return nil, fmt.Errorf("this version is not what it was when it was first used (%s then, %s now), and a published version does not change; use another one, or, if this content is right, write version: %s@%s",
			kept, digest, w.version, came.named)
	}
	return came.archive, f.cache.put(digest, came.archive)
}

func (f *Fetcher) bring(ctx context.Context, w wanted) (brought, error) {
	if w.repository != "" {
		return f.fromRepository(ctx, w)
	}
	return f.fromRegistry(ctx, w)
}

// plain leaves, of errors that libraries wrapped around a refused call, the sentence that says what to change.
func plain(err error) error {
	var refused interface {
		error
		EgressRefused() bool
	}
	if errors.As(err, &refused) {
		return refused
	}
	return err
}
