package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/net/http/httpguts"

	"towpath/agent/wire"
)

// backend is one place that requests may go to: the API server, or an entry of the allow-list.
type backend struct {
	name     string
	base     *url.URL // its path is the prefix of every request's
	methods  []string // nil: all
	paths    []string // nil: all
	upgrades bool
	headers  map[string]string // header → file
	token    *tokenFile        // of Kubernetes
	acts     Impersonate
	insecure bool

	caFile string
	pings  http.HTTP2Config
	dial   func(ctx context.Context, network, address string) (net.Conn, error)

	mu     sync.Mutex
	ca     string // what was read
	client *http.Transport
	plain  *http.Transport // HTTP/1.1 alone: for connections that are upgraded
}

// refusedError is a request that the configuration does not allow.
type refusedError struct{ text string }

func (e *refusedError) Error() string { return e.text }

func refuse(format string, args ...any) error { return &refusedError{fmt.Sprintf(format, args...)} }

// forbiddenError is a request answered with 403: the impersonation of somebody the configuration does not name.
type forbiddenError struct{ text string }

func (e *forbiddenError) Error() string { return e.text }

// backends makes the API server and the entries of the allow-list.
func backends(c *Config, times timing) (map[string]*backend, error) {
	all := map[string]*backend{}
	if !c.Kubernetes.Off {
		base, err := url.Parse(c.Kubernetes.Server)
		if err != nil {
			return nil, err
		}
		dialer := &net.Dialer{Timeout: dialTimeout}
		k := &backend{
			name: wire.Kubernetes, base: base, acts: c.Kubernetes.Impersonate, caFile: c.Kubernetes.CAFile, dial: dialer.DialContext,
			token: &tokenFile{name: c.Kubernetes.TokenFile}, upgrades: !c.Kubernetes.ReadOnly,
		}
		if c.Kubernetes.ReadOnly {
			k.methods = []string{http.MethodGet, http.MethodHead}
		}
		if _, err := k.token.refresh(); err != nil {
			return nil, fmt.Errorf("kubernetes.tokenFile: %w", err)
		}
		all[k.name] = k
	}
	for _, target := range c.Targets {
		base, err := url.Parse(target.URL)
		if err != nil {
			return nil, err
		}
		all[target.Name] = &backend{
			name: target.Name, base: base, methods: target.Methods, paths: target.Paths, headers: target.HeadersFrom, insecure: target.Insecure,
			caFile: target.CAFile, dial: guarded(base.Hostname()),
		}
	}
	for name, b := range all {
		b.pings = http.HTTP2Config{SendPingTimeout: times.serverSilent, PingTimeout: times.serverAnswer}
		if err := b.reload(); err != nil {
			return nil, fmt.Errorf("target %q: %w", name, err)
		}
	}
	return all, nil
}

// reload reads the certificate authorities again, and connects anew when they changed.
func (b *backend) reload() error {
	var text []byte
	if b.caFile != "" {
		var err error
		if text, err = os.ReadFile(b.caFile); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.client != nil && b.ca == string(text) {
		return nil
	}
	pool, err := roots(true, b.caFile)
	if err != nil {
		return err
	}
	old, oldPlain := b.client, b.plain
	b.ca = string(text)
	b.client = &http.Transport{
		DialContext:            b.dial,
		TLSClientConfig:        &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12, InsecureSkipVerify: b.insecure}, // logged at each start
		TLSHandshakeTimeout:    10 * time.Second,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &b.pings,
		DisableCompression:     true, // bodies pass as they are
		MaxIdleConnsPerHost:    32,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 1 << 20, // more than the tunnel carries, so that the error can say so
	}
	b.plain = b.client.Clone()
	b.plain.ForceAttemptHTTP2, b.plain.TLSNextProto = false, map[string]func(string, *tls.Conn) http.RoundTripper{}
	b.plain.TLSClientConfig.NextProtos = []string{"http/1.1"}
	if old != nil {
		old.CloseIdleConnections()
		oldPlain.CloseIdleConnections()
	}
	return nil
}

func (b *backend) transport(upgrade bool) *http.Transport {
	b.mu.Lock()
	defer b.mu.Unlock()
	if upgrade {
		return b.plain
	}
	return b.client
}

// allows checks a request against the configuration.
func (b *backend) allows(method, escapedPath string, header http.Header) error {
	if err := wire.CheckMethod(method); err != nil {
		return refuse("%v", err)
	}
	if err := wire.CheckPath(escapedPath); err != nil {
		return refuse("%v", err)
	}
	if b.methods != nil && !slices.Contains(b.methods, method) {
		if b.name == wire.Kubernetes {
			return refuse("the agent's configuration says kubernetes.readOnly, so %s is not allowed", method)
		}
		return refuse("the agent's configuration allows only %s for target %q; add %s to its methods", strings.Join(b.methods, ", "), b.name, method)
	}
	if err := b.allowsPath(escapedPath); err != nil {
		return err
	}
	return b.allowsActing(header)
}

func (b *backend) allowsPath(escapedPath string) error {
	if len(b.paths) == 0 {
		return nil
	}
	escaped, _, _ := strings.Cut(escapedPath, "?")
	if lower := strings.ToLower(escaped); strings.Contains(lower, "%2f") || strings.Contains(lower, "%5c") {
		return refuse("target %q is limited to paths, where an escaped slash could lead elsewhere", b.name)
	}
	plain, err := url.PathUnescape(escaped)
	if err != nil {
		return refuse("%v", err)
	}
	for _, pattern := range b.paths {
		if prefix, below := strings.CutSuffix(pattern, "/**"); below {
			segments := strings.Count(prefix, "/")
			if head := firstSegments(plain, segments); head != plain {
				if ok, _ := path.Match(prefix, head); ok { // patterns were checked at the start
					return nil
				}
			}
			continue
		}
		if ok, _ := path.Match(pattern, plain); ok {
			return nil
		}
	}
	return refuse("the agent's configuration does not allow the path %.200q for target %q; add it to the target's paths", plain, b.name)
}

// firstSegments cuts a path after n segments: of "/a/b/c" two are "/a/b".
func firstSegments(p string, n int) string {
	for i := range len(p) {
		if p[i] == '/' {
			if n == 0 {
				return p[:i]
			}
			n--
		}
	}
	return p
}

// allowsActing checks whom a request wants to act as.
func (b *backend) allowsActing(header http.Header) error {
	for name, values := range header {
		if !strings.HasPrefix(name, "Impersonate-") {
			continue
		}
		allowed := map[string][]string{"Impersonate-User": b.acts.Users, "Impersonate-Group": b.acts.Groups}[name]
		for _, value := range values {
			if !slices.Contains(allowed, value) {
				return &forbiddenError{fmt.Sprintf("the agent's configuration does not allow requests to act as %s %.200q (kubernetes.impersonate)", strings.ToLower(strings.TrimPrefix(name, "Impersonate-")), value)}
			}
		}
	}
	return nil
}

// prepare makes the request that goes to the target.
func (b *backend) prepare(ctx context.Context, method, escapedPath string, header http.Header, version string) (*http.Request, error) {
	escaped, query, forceQuery := strings.Cut(escapedPath, "?")
	plain, err := url.PathUnescape(escaped)
	if err != nil {
		return nil, refuse("%v", err)
	}
	to := *b.base
	to.RawPath = strings.TrimSuffix(b.base.EscapedPath(), "/") + escaped
	to.Path = strings.TrimSuffix(b.base.Path, "/") + plain
	to.RawQuery, to.ForceQuery = query, forceQuery && query == ""
	request := (&http.Request{Method: method, URL: &to, Host: b.base.Host, Header: header, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}).WithContext(ctx)
	if b.token != nil {
		header.Set("Authorization", "Bearer "+b.token.get())
	}
	for name, file := range b.headers {
		value, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("header %s of target %q: %w", name, b.name, err)
		}
		text := strings.TrimSpace(string(value))
		if !httpguts.ValidHeaderFieldValue(text) {
			return nil, fmt.Errorf("header %s of target %q: the file %s holds characters that HTTP forbids", name, b.name, file)
		}
		header.Set(name, text)
	}
	if header.Get("User-Agent") == "" {
		header.Set("User-Agent", "towpath-agent/"+version)
	}
	return request, nil
}

// send sends a request. The API server's 401 has the token read again; when that changed, a request without a body is sent once more.
func (b *backend) send(upgrade bool, request *http.Request, log logrus.FieldLogger) (*http.Response, error) {
	response, err := b.transport(upgrade).RoundTrip(request)
	if err != nil || b.token == nil || response.StatusCode != http.StatusUnauthorized {
		return response, err
	}
	changed, readErr := b.token.refresh()
	if readErr != nil {
		log.WithError(readErr).Error("the API server refused the agent's token, and its file cannot be read")
	}
	if !changed || (request.Body != nil && request.Body != http.NoBody) {
		return response, nil
	}
	_ = response.Body.Close() // another answer takes its place
	again := request.Clone(request.Context())
	again.Header.Set("Authorization", "Bearer "+b.token.get())
	return b.transport(upgrade).RoundTrip(again)
}

// tokenFile is a ServiceAccount's token, which is replaced in its file long before it ends.
type tokenFile struct {
	name string
	mu   sync.Mutex
	text string
}

func (t *tokenFile) get() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text
}

// refresh reads the file, and says whether it holds something new.
func (t *tokenFile) refresh() (bool, error) {
	text, err := os.ReadFile(t.name)
	if err != nil {
		return false, err
	}
	fresh := strings.TrimSpace(string(text))
	if fresh == "" || !httpguts.ValidHeaderFieldValue(fresh) {
		return false, errors.New(t.name + " holds no token")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	changed := t.text != fresh
	t.text = fresh
	return changed, nil
}
