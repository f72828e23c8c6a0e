package preview

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// Link is a Service that the address of a link leads to.
type Link struct {
	Via
	Namespace, Service string
	Port               int32
	TLS                bool // the Service speaks TLS
}

// prefix is where the API server proxies the Service.
func (l Link) prefix() string {
	name := fmt.Sprintf("%s:%d", l.Service, l.Port)
	if l.TLS {
		name = "https:" + name
	}
	return "/api/v1/namespaces/" + l.Namespace + "/services/" + name + "/proxy"
}

// is reports whether a host's name is the Service's.
func (l Link) is(host string) bool {
	full := l.Service + "." + l.Namespace + ".svc"
	return slices.Contains([]string{l.Service, l.Service + "." + l.Namespace, full}, host) || strings.HasPrefix(host, full+".")
}

// Links serves all links, each at RANDOM.Domain. It is safe for concurrent use.
type Links struct {
	Domain string // in lower case, without a port
	// Find is what the random part of an address leads to; ErrNone when it leads nowhere.
	Find func(ctx context.Context, random string) (Link, error)
	// Used is told of the first request that goes through, or of the first few.
	Used func(ctx context.Context, id, remote string)
	Ways Ways
	// Proxied says that all requests come from a proxy which adds whom they come from.
	Proxied bool
	// Again is how often it is asked whether the link of a request under way still holds; 0: each 15 s.
	Again time.Duration
	Log   logrus.FieldLogger

	mu      sync.Mutex
	running map[string]int // requests by link
}

// Limits of one link.
const (
	mostRunning = 100
	mostBody    = 32 << 20
	mostAnswer  = 512 << 20
)

// ServeHTTP implements http.Handler. Whatever leads nowhere gets the same page, which tells nothing.
func (s *Links) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	link, err := s.find(r.Context(), r.Host)
	if errors.Is(err, ErrNone) {
		page(w, http.StatusNotFound)
		return
	}
	v := &visit{Via: link.Via, remote: remoteOf(r, s.Proxied), status: http.StatusInternalServerError}
	if err != nil {
		v.why = err.Error()
		v.log(s.Log, r, "a preview link could not be looked up")
		page(w, v.status)
		return
	}
	defer v.log(s.Log, r, "preview") // also when the answer breaks off, which ends in a panic
	if v.status = s.refuses(r); v.status != 0 {
		page(w, v.status)
		return
	}
	if !s.enter(link.ID) {
		v.status = http.StatusTooManyRequests
		page(w, v.status)
		return
	}
	defer s.leave(link.ID)
	if link.Unused {
		s.Used(r.Context(), link.ID, v.remote)
	}
	s.proxy(w, r, link, v)
}

// find is the link of the host that a request names.
func (s *Links) find(ctx context.Context, host string) (Link, error) {
	random, below := strings.CutSuffix(strings.ToLower(hostOf(host)), "."+s.Domain)
	if !below || random == "" || len(random) > 63 || strings.Contains(random, ".") {
		return Link{}, ErrNone
	}
	return s.Find(ctx, random)
}

func hostOf(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	return address
}

// refuses is the status for a request that is not carried; 0: it is.
func (s *Links) refuses(r *http.Request) int {
	if _, ok := clean(r.URL.EscapedPath()); !ok {
		return http.StatusBadRequest
	}
	if r.Method == http.MethodConnect || r.Method == http.MethodTrace {
		return http.StatusMethodNotAllowed
	}
	if protocol := r.Header.Get("Upgrade"); protocol != "" && !strings.EqualFold(protocol, "websocket") {
		return http.StatusNotImplemented
	}
	if r.Header.Get("Upgrade") != "" && r.Header.Get("Origin") != "" && !own(r, r.Header.Get("Origin")) {
		return http.StatusForbidden // a page elsewhere would speak with the Service in its visitors' names
	}
	return 0
}

func (s *Links) enter(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil {
		s.running = map[string]int{}
	}
	if s.running[id] >= mostRunning {
		return false
	}
	s.running[id]++
	return true
}

func (s *Links) leave(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[id]--; s.running[id] == 0 {
		delete(s.running, id)
	}
}

// own reports whether an address is the link's own.
func own(r *http.Request, address string) bool {
	u, err := url.Parse(address)
	return err == nil && strings.EqualFold(u.Host, r.Host)
}

// proxy carries a request to the Service, and its answer back.
func (s *Links) proxy(w http.ResponseWriter, r *http.Request, link Link, v *visit) {
	ctx, answered, cancel := span{link.Until, s.Again, func(ctx context.Context) error {
		_, err := s.find(ctx, r.Host)
		return err
	}}.begin(r.Context())
	defer cancel()
	r = r.WithContext(ctx)
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = http.MaxBytesReader(w, r.Body, mostBody)
	}
	proxy := httputil.ReverseProxy{Transport: s.Ways(link.Tenant, link.Agent), ErrorLog: quiet,
		Rewrite: func(p *httputil.ProxyRequest) { outward(p, link) },
		ModifyResponse: func(answer *http.Response) error {
			answered()
			v.status = answer.StatusCode
			if why := refusedBy(answer); why != "" {
				return errors.New(why)
			}
			inward(answer, r, link)
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			v.status = http.StatusBadGateway
			var large *http.MaxBytesError
			switch {
			case errors.As(err, &large):
				v.status = http.StatusRequestEntityTooLarge
			case ctx.Err() != nil:
				v.status, err = http.StatusGatewayTimeout, context.Cause(ctx)
			}
			v.why = err.Error()
			page(w, v.status)
		}}
	proxy.ServeHTTP(w, r)
}

// outward makes a visitor's request one of the API server's proxy to the Service. What names the visitor to us, or could name somebody to the API server, stays.
func outward(p *httputil.ProxyRequest, link Link) {
	path, _ := clean(p.In.URL.EscapedPath())
	plain, _ := url.PathUnescape(path) // clean has unescaped it
	p.Out.URL = &url.URL{Scheme: "http", Host: "cluster", Path: link.prefix() + plain, RawPath: link.prefix() + path, RawQuery: p.Out.URL.RawQuery}
	p.Out.Host = ""
	h := p.Out.Header
	withoutForeign(h)
	h.Del("Accept-Encoding") // HTML is to be read
	for _, name := range []string{"Origin", "Referer"} {
		if text := h.Get(name); text != "" && own(p.In, text) { // the Service knows itself under another name, and would take it for a stranger's
			h.Del(name)
		}
	}
	cookies := p.In.Cookies()
	h.Del("Cookie")
	for _, c := range cookies {
		if !ours(c.Name) {
			p.Out.AddCookie(c)
		}
	}
	h.Set("X-Forwarded-Host", p.In.Host)
	h.Set("X-Forwarded-Proto", "https")
}

// ours reports whether a cookie's name is one that the controller's own pages may use, which share a parent domain with links at worst.
func ours(name string) bool {
	name = strings.ToLower(name)
	for _, prefix := range []string{"__host-", "__secure-"} {
		name = strings.TrimPrefix(name, prefix)
	}
	return strings.HasPrefix(name, "towpath")
}

// inward makes the API server's answer the Service's.
func inward(answer *http.Response, r *http.Request, link Link) {
	h := answer.Header
	withoutTold(h)
	confine(h)
	for _, name := range []string{"Location", "Content-Location"} {
		if text := h.Get(name); text != "" {
			h.Set(name, located(text, r.Host, link))
		}
	}
	h.Set("X-Robots-Tag", "noindex, nofollow")
	if h.Get("Referrer-Policy") == "" {
		h.Set("Referrer-Policy", "same-origin") // the address is the secret
	}
	if answer.StatusCode == http.StatusSwitchingProtocols {
		whole(answer)
		return
	}
	answer.Body = &bounded{answer.Body, mostAnswer}
	if kind, _, _ := mime.ParseMediaType(h.Get("Content-Type")); kind == "text/html" && h.Get("Content-Encoding") == "" && r.Method != http.MethodHead {
		answer.Body = &without{from: answer.Body, word: []byte(link.prefix())}
		answer.ContentLength = -1
		h.Del("Content-Length")
		h.Del("Accept-Ranges")
	}
}

// confine has cookies stay with the host of the link, and keeps those out that would be taken for ours.
func confine(h http.Header) {
	cookies := h.Values("Set-Cookie")
	h.Del("Set-Cookie")
	for _, cookie := range cookies {
		attributes := strings.Split(cookie, ";")
		name, _, _ := strings.Cut(attributes[0], "=")
		if ours(strings.TrimSpace(name)) {
			continue
		}
		h.Add("Set-Cookie", strings.Join(slices.DeleteFunc(attributes, func(attribute string) bool {
			key, _, _ := strings.Cut(attribute, "=")
			return strings.EqualFold(strings.TrimSpace(key), "Domain")
		}), ";"))
	}
}

// located is an address that an answer leads to: where it is the Service's, by its name or as the API server has it, it is the link's.
func located(text, host string, link Link) string {
	u, err := url.Parse(text)
	if err != nil {
		return text
	}
	rest, proxied := strings.CutPrefix(u.EscapedPath(), link.prefix())
	switch {
	case proxied && (rest == "" || rest[0] == '/'):
	case u.Host != "" && link.is(strings.ToLower(u.Hostname())):
		rest = u.EscapedPath()
	default:
		return text
	}
	plain, err := url.PathUnescape(rest)
	if err != nil {
		return text
	}
	u.Scheme, u.User, u.Host, u.Path, u.RawPath = "https", nil, host, plain, rest
	return u.String()
}

// bounded is an answer that ends in an error when it is too large.
type bounded struct {
	io.ReadCloser
	left int64
}

var errLarge = errors.New("the answer is larger than a preview link carries")

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errLarge
	}
	return n, err
}
