package preview_test

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"towpath/preview"
)

const (
	random = "k3v6q2m5x7"
	host   = random + ".previews.example.com"
	prefix = "/api/v1/namespaces/shop/services/web:80/proxy"
)

// room is links in front of an API server, which answers as handle says.
type room struct {
	t      *testing.T
	links  *preview.Links
	server *httptest.Server
	log    *logtest.Hook

	mu     sync.Mutex
	handle http.HandlerFunc
	asked  []*http.Request // by the tunnel
	used   []string
	link   preview.Link
	ended  bool // the link was revoked
}

func open(t *testing.T, handle http.HandlerFunc) *room {
	t.Helper()
	r := &room{t: t, handle: handle, link: preview.Link{Via: preview.Via{ID: "link-1", Tenant: "main", Agent: "prod", Until: time.Now().Add(time.Hour), Unused: true},
		Namespace: "shop", Service: "web", Port: 80}}
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.mu.Lock()
		r.asked = append(r.asked, q)
		r.mu.Unlock()
		r.handle(w, q)
	}))
	t.Cleanup(behind.Close)
	to, err := url.Parse(behind.URL)
	if err != nil {
		t.Fatal(err)
	}
	log, hook := logtest.NewNullLogger()
	log.SetLevel(logrus.InfoLevel)
	r.log = hook
	r.links = &preview.Links{Domain: "previews.example.com", Log: log, Find: func(_ context.Context, given string) (preview.Link, error) {
		switch given {
		case random:
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.ended {
				return preview.Link{}, preview.ErrNone
			}
			return r.link, nil
		case "broken":
			return preview.Link{}, errors.New("the database is away")
		}
		return preview.Link{}, preview.ErrNone
	}, Used: func(_ context.Context, id, remote string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.used = append(r.used, id+" by "+remote)
	}, Ways: func(tenant, agent string) http.RoundTripper {
		if tenant != "main" || agent != "prod" {
			t.Errorf("the way leads to agent %s of %s", agent, tenant)
		}
		return way{to}
	}}
	r.server = httptest.NewServer(r.links)
	t.Cleanup(r.server.Close)
	return r
}

// way sends to an address what is meant for a cluster.
type way struct{ to *url.URL }

// plain passes bodies as they are, as the tunnel does.
var plain = &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 100}

func (w way) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host = w.to.Scheme, w.to.Host
	return plain.RoundTrip(r)
}

// visit sends a request to a host as it is, and does not follow redirects.
func (r *room) visit(method, host, path string, header http.Header, body io.Reader) (*http.Response, string) {
	r.t.Helper()
	request, err := http.NewRequestWithContext(r.t.Context(), method, r.server.URL, body)
	if err != nil {
		r.t.Fatal(err)
	}
	request.URL.Opaque, request.Host = path, host
	for name, values := range header {
		request.Header[name] = values
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer, string(text)
}

func (r *room) last() *http.Request {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.asked) == 0 {
		r.t.Fatal("nothing went through")
	}
	return r.asked[len(r.asked)-1]
}

func hello(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }

func TestALinkLeadsToItsService(t *testing.T) {
	t.Parallel()
	r := open(t, hello)
	answer, text := r.visit(http.MethodGet, strings.ToUpper(random)+".Previews.example.com:8443", "/a//b/?q=1&q=2", nil, nil)
	if answer.StatusCode != http.StatusOK || text != "hello" {
		t.Fatalf("%s %q", answer.Status, text)
	}
	if got := r.last().RequestURI; got != prefix+"/a/b/?q=1&q=2" {
		t.Errorf("the API server was asked for %s", got)
	}
	for name, want := range map[string]string{"X-Robots-Tag": "noindex, nofollow", "Referrer-Policy": "same-origin"} {
		if got := answer.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got := strings.Join(r.used, ", "); got != "link-1 by 127.0.0.1" {
		t.Errorf("used: %s", got)
	}
	r.link.TLS, r.link.Unused = true, false
	r.visit(http.MethodGet, host, "/", nil, nil)
	if got := r.last().RequestURI; got != "/api/v1/namespaces/shop/services/https:web:80/proxy/" {
		t.Errorf("the API server was asked for %s", got)
	}
	if len(r.used) != 1 {
		t.Errorf("a link that was used is told of again: %s", r.used)
	}
}

func TestEachVisitIsInTheAudit(t *testing.T) {
	t.Parallel()
	r := open(t, hello)
	r.visit(http.MethodPost, host, "/pay?card=4242", nil, strings.NewReader("x"))
	r.visit(http.MethodGet, host, "/../x", nil, nil)
	for i, want := range []logrus.Fields{{"preview": "link-1", "agent": "prod", "remote": "127.0.0.1", "method": "POST", "path": "/pay", "status": 200},
		{"preview": "link-1", "agent": "prod", "remote": "127.0.0.1", "method": "GET", "path": "/../x", "status": 400}} {
		lines := r.log.AllEntries()
		if len(lines) != 2 || fmt.Sprint(lines[i].Data) != fmt.Sprint(want) {
			t.Fatalf("line %d of %d is %v, want %v", i, len(lines), lines[i].Data, want)
		}
	}
	r.links.Proxied = true
	r.visit(http.MethodGet, host, "/", http.Header{"X-Forwarded-For": {"10.0.0.1, 203.0.113.9"}}, nil)
	if got := r.log.LastEntry().Data["remote"]; got != "203.0.113.9" {
		t.Errorf("behind a proxy a request comes from %v", got)
	}
}

func TestWhatLeadsNowhereTellsNothing(t *testing.T) {
	t.Parallel()
	r := open(t, hello)
	var pages []string
	for _, name := range []string{"unknown.previews.example.com", "previews.example.com", "example.com", random + ".example.com", "x." + host, host + ".evil.example.com", "127.0.0.1", ".previews.example.com"} {
		answer, text := r.visit(http.MethodGet, name, "/", nil, nil)
		answer.Header.Del("Date")
		pages = append(pages, fmt.Sprint(answer.StatusCode, answer.Header, text))
		if pages[len(pages)-1] != pages[0] || answer.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s\nothers get %s", name, pages[len(pages)-1], pages[0])
		}
	}
	if len(r.asked) > 0 || len(r.log.AllEntries()) > 0 {
		t.Errorf("something went through: %v", r.asked)
	}
	answer, text := r.visit(http.MethodGet, "broken.previews.example.com", "/", nil, nil)
	if answer.StatusCode != http.StatusInternalServerError || strings.Contains(text, "database") || r.log.LastEntry().Data["error"] != "the database is away" {
		t.Errorf("%s %q, %v", answer.Status, text, r.log.LastEntry())
	}
}

func TestPathsThatCouldLeadElsewhereAreNotSent(t *testing.T) {
	t.Parallel()
	r := open(t, hello)
	for _, path := range []string{"/../x", "/%2e%2e/x", "/%252e%252e/x", "/..;/x", `/..\x`, "/..%5cx", "/a%2f..%2fb", "/%2f%2fevil", "/a%00b"} {
		if answer, _ := r.visit(http.MethodGet, host, path, nil, nil); answer.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s", path, answer.Status)
		}
	}
	for method, want := range map[string]int{http.MethodTrace: http.StatusMethodNotAllowed} {
		if answer, _ := r.visit(method, host, "/", nil, nil); answer.StatusCode != want {
			t.Errorf("%s: %s", method, answer.Status)
		}
	}
	if len(r.asked) > 0 {
		t.Errorf("%s went through", r.last().RequestURI)
	}
}

func TestNobodyIsNamedToTheServiceOrItsAPIServer(t *testing.T) {
	t.Parallel()
	r := open(t, hello)
	r.visit(http.MethodGet, host, "/", http.Header{
		"Authorization": {"Bearer twp_secret"}, "Cookie": {"towpath_session=a; cart=3; __Host-towpath=b"}, "Impersonate-User": {"system:admin"}, "Impersonate-Extra-X": {"y"},
		"X-Remote-User": {"admin"}, "X-Forwarded-For": {"1.2.3.4"}, "X-Forwarded-Host": {"evil.example.com"}, "Forwarded": {"for=1.2.3.4"}, "X-Real-Ip": {"1.2.3.4"},
		"Proxy-Authorization": {"x"}, "Audit-Id": {"x"}, "Sec-Websocket-Protocol": {"chat, base64url.bearer.authorization.k8s.io.dG9rZW4, v2"},
		"Origin": {"https://" + host}, "Referer": {"https://" + host + "/x"}, "X-Mine": {"kept"},
	}, nil)
	got := r.last().Header
	for name, want := range map[string]string{"Authorization": "", "Cookie": "cart=3", "Impersonate-User": "", "Impersonate-Extra-X": "", "X-Remote-User": "", "X-Forwarded-For": "",
		"X-Forwarded-Host": host, "X-Forwarded-Proto": "https", "Forwarded": "", "X-Real-Ip": "", "Proxy-Authorization": "", "Audit-Id": "", "Sec-Websocket-Protocol": "chat, v2",
		"Origin": "", "Referer": "", "X-Mine": "kept"} {
		if is := got.Get(name); is != want {
			t.Errorf("%s reaches the Service as %q, want %q", name, is, want)
		}
	}
	r.visit(http.MethodGet, host, "/", http.Header{"Origin": {"https://elsewhere.example.com"}, "Referer": {"https://elsewhere.example.com/"}}, nil)
	if got := r.last().Header; got.Get("Origin") != "https://elsewhere.example.com" || got.Get("Referer") == "" {
		t.Errorf("where a visitor comes from is kept from the Service: %v", got)
	}
}

func TestCookiesOfTheServiceStayAtTheLink(t *testing.T) {
	t.Parallel()
	r := open(t, func(w http.ResponseWriter, _ *http.Request) {
		for _, cookie := range []string{"a=1; Path=/; Domain=example.com; HttpOnly", "b=2;domain = .previews.example.com ; Secure", "c=3", "towpath_session=evil; Path=/", "__Secure-Towpath=evil"} {
			w.Header().Add("Set-Cookie", cookie)
		}
		w.Header().Set("Audit-Id", "1")
		w.Header().Set("Alt-Svc", `h3="elsewhere:443"`)
	})
	answer, _ := r.visit(http.MethodGet, host, "/", nil, nil)
	if got, want := strings.Join(answer.Header.Values("Set-Cookie"), "\n"), "a=1; Path=/; HttpOnly\nb=2; Secure\nc=3"; got != want {
		t.Errorf("cookies are\n%s\nwant\n%s", got, want)
	}
	if answer.Header.Get("Audit-Id") != "" || answer.Header.Get("Alt-Svc") != "" {
		t.Errorf("visitors are told %v", answer.Header)
	}
}

func TestRedirectsOfTheServiceStayAtTheLink(t *testing.T) {
	t.Parallel()
	r := open(t, func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Location", q.Header.Get("X-To"))
		w.WriteHeader(http.StatusFound)
	})
	for to, want := range map[string]string{
		"next":                "next",
		"/login":              "/login",
		prefix + "/login?a=b": "https://" + host + "/login?a=b",
		prefix + "/a%20b":     "https://" + host + "/a%20b",
		prefix:                "https://" + host,
		prefix + "x/y":        prefix + "x/y",
		"https://10.0.0.1:6443" + prefix + "/login":  "https://" + host + "/login", // as the API server has the Service's own
		"http://web/login":                           "https://" + host + "/login",
		"http://web:8080/login#top":                  "https://" + host + "/login#top",
		"http://WEB.shop.svc.cluster.local/":         "https://" + host + "/",
		"http://web.shop//evil.example.com/":         "https://" + host + "//evil.example.com/",
		"https://user:secret@web.shop.svc/":          "https://" + host + "/",
		"https://login.example.com/authorize":        "https://login.example.com/authorize",
		"https://web.example.com/":                   "https://web.example.com/",
		"https://web.other/":                         "https://web.other/",
		"https://web.shop.svcx/":                     "https://web.shop.svcx/",
		"//web.shop.svc/x":                           "https://" + host + "/x",
		"https://evil.example.com" + prefix + "evil": "https://evil.example.com" + prefix + "evil",
	} {
		answer, _ := r.visit(http.MethodGet, host, "/", http.Header{"X-To": {to}}, nil)
		if got := answer.Header.Get("Location"); got != want {
			t.Errorf("a redirect to %s leads to %s, want %s", to, got, want)
		}
	}
}

func TestHTMLIsAsTheServiceWroteIt(t *testing.T) {
	t.Parallel()
	page := `<a href="` + prefix + `/a"><script src="` + prefix + `/b.js"></script>` + strings.Repeat(" ", 20_000) + `<i>` + prefix + `</i>`
	kind := "text/html; charset=utf-8"
	r := open(t, func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", kind)
		if strings.Contains(q.Header.Get("Accept-Encoding"), "br") {
			t.Error("the Service may compress what is to be read")
		}
		fmt.Fprint(w, page)
	})
	answer, text := r.visit(http.MethodGet, host, "/", http.Header{"Accept-Encoding": {"br"}}, nil)
	if want := strings.ReplaceAll(page, prefix, ""); text != want || answer.Header.Get("Content-Length") != "" {
		t.Errorf("%.80s", text)
	}
	kind = "application/json"
	if _, text := r.visit(http.MethodGet, host, "/", nil, nil); text != page {
		t.Errorf("what is no HTML was changed: %.80s", text)
	}
	r.handle = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Content-Encoding", "gzip")
		packed := gzip.NewWriter(w)
		_, _ = io.WriteString(packed, page)
		_ = packed.Close()
	}
	answer, text = r.visit(http.MethodGet, host, "/", http.Header{"Accept-Encoding": {"identity"}}, nil)
	unpacked, err := gzip.NewReader(strings.NewReader(text))
	if err != nil || answer.Header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("%v, %v", err, answer.Header)
	}
	if got, err := io.ReadAll(unpacked); err != nil || string(got) != page {
		t.Errorf("%v, %.80s", err, got)
	}
}

func TestWhatTheAPIServerSaysIsForTheLogAlone(t *testing.T) {
	t.Parallel()
	const forbidden = `services "web:80" is forbidden: User "system:serviceaccount:towpath:agent" cannot get resource "services/proxy"`
	said, code := fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","message":%q,"code":403}`, forbidden), http.StatusForbidden
	r := open(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		fmt.Fprint(w, said)
	})
	answer, text := r.visit(http.MethodGet, host, "/", nil, nil)
	if answer.StatusCode != http.StatusBadGateway || text != "What is behind this address does not answer. Try again in a moment.\n" || answer.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%s %v %s", answer.Status, answer.Header, text)
	}
	line := r.log.LastEntry()
	want := forbidden + "; the agent's ServiceAccount needs get, create, update, patch and delete of services/proxy there: kubernetes.previews of its chart"
	if line.Data["error"] != want || line.Data["status"] != http.StatusBadGateway {
		t.Errorf("the log says %v", line.Data)
	}
	said, code = `{"error":"no such user"}`, http.StatusNotFound
	if answer, text := r.visit(http.MethodGet, host, "/", nil, nil); answer.StatusCode != http.StatusNotFound || text != said {
		t.Errorf("what the Service says itself: %s %s", answer.Status, text)
	}
}

func TestALinkCarriesNoMoreThanItsLimits(t *testing.T) {
	t.Parallel()
	hold, held := make(chan struct{}), make(chan struct{}, 200)
	r := open(t, func(w http.ResponseWriter, q *http.Request) {
		if strings.HasSuffix(q.URL.Path, "/held") {
			held <- struct{}{}
			<-hold
			return
		}
		n, err := io.Copy(io.Discard, q.Body)
		fmt.Fprint(w, n, err)
	})
	if answer, _ := r.visit(http.MethodPost, host, "/", nil, io.LimitReader(zeros{}, 33<<20)); answer.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("an upload of 33 MiB: %s", answer.Status)
	}
	if answer, text := r.visit(http.MethodPost, host, "/", nil, io.LimitReader(zeros{}, 1<<20)); answer.StatusCode != http.StatusOK || text != "1048576 <nil>" {
		t.Errorf("an upload of 1 MiB: %s %s", answer.Status, text)
	}
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() { r.visit(http.MethodGet, host, "/held", nil, nil) })
	}
	for range 100 {
		<-held
	}
	if answer, _ := r.visit(http.MethodGet, host, "/", nil, nil); answer.StatusCode != http.StatusTooManyRequests {
		t.Errorf("the 101st at once: %s", answer.Status)
	}
	close(hold)
	all.Wait()
	if answer, _ := r.visit(http.MethodGet, host, "/", nil, nil); answer.StatusCode != http.StatusOK {
		t.Errorf("once they have gone: %s", answer.Status)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestALinkThatEndsEndsWhatRunsThroughIt(t *testing.T) {
	t.Parallel()
	r := open(t, func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() })
	r.link.Until = time.Now().Add(300 * time.Millisecond)
	answer, text := r.visit(http.MethodGet, host, "/", nil, nil)
	if answer.StatusCode != http.StatusGatewayTimeout || text != "What is behind this address did not answer in time.\n" {
		t.Errorf("%s %s", answer.Status, text)
	}
}

func TestALinkThatIsRevokedEndsWhatRunsThroughIt(t *testing.T) {
	t.Parallel()
	r := open(t, nil)
	r.links.Again = time.Millisecond
	r.handle = func(_ http.ResponseWriter, q *http.Request) {
		r.mu.Lock()
		r.ended = true
		r.mu.Unlock()
		<-q.Context().Done()
	}
	if answer, _ := r.visit(http.MethodGet, host, "/", nil, nil); answer.StatusCode != http.StatusGatewayTimeout || r.log.LastEntry().Data["error"] != "it was revoked meanwhile" {
		t.Errorf("%s, %v", answer.Status, r.log.LastEntry().Data)
	}
}

// upgrade asks for a web socket and gives the connection, once it is one.
func (r *room) upgrade(header string) (status string, conn net.Conn, in *bufio.Reader) {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "GET /chat HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n%s\r\n", host, header)
	in = bufio.NewReader(conn)
	answer, err := http.ReadResponse(in, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.Status, conn, in
}

func TestWebSocketsGoThrough(t *testing.T) {
	t.Parallel()
	r := open(t, func(w http.ResponseWriter, q *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", q.Header.Get("Upgrade"))
		for {
			line, err := buffered.ReadString('\n')
			if err != nil {
				return
			}
			fmt.Fprint(conn, strings.ToUpper(line))
		}
	})
	status, conn, in := r.upgrade("Origin: https://" + host + "\r\n")
	if status != "101 Switching Protocols" {
		t.Fatal(status)
	}
	for _, word := range []string{"one\n", "two\n"} {
		fmt.Fprint(conn, word)
		if got, err := in.ReadString('\n'); err != nil || got != strings.ToUpper(word) {
			t.Errorf("%q, %v", got, err)
		}
	}
	if got := r.last(); got.RequestURI != prefix+"/chat" || got.Header.Get("Origin") != "" {
		t.Errorf("%s %v", got.RequestURI, got.Header)
	}
	if status, _, _ := r.upgrade("Origin: https://evil.example.com\r\n"); status != "403 Forbidden" {
		t.Errorf("from a page elsewhere: %s", status)
	}
	if answer, _ := r.visit(http.MethodGet, host, "/", http.Header{"Connection": {"Upgrade"}, "Upgrade": {"SPDY/3.1"}}, nil); answer.StatusCode != http.StatusNotImplemented {
		t.Errorf("another protocol: %s", answer.Status)
	}
}
