package egress_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"towpath/internal/egress"
)

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func client(t testing.TB, c egress.Config) *egress.Client {
	t.Helper()
	e, err := egress.New(c)
	ok(t, err)
	t.Cleanup(e.Close)
	return e
}

// resolver is a DNS server that knows some names.
func resolver(t *testing.T, names map[string][]string) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	ok(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buffer[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m.Response, m.Authoritative, m.RecursionAvailable, m.Additionals = true, true, true, nil
			list, known := names[strings.TrimSuffix(q.Name.String(), ".")]
			if !known {
				m.RCode = dnsmessage.RCodeNameError
			}
			for _, text := range list {
				head := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1, Type: q.Type}
				switch at := netip.MustParseAddr(text); {
				case at.Is4() && q.Type == dnsmessage.TypeA:
					m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: at.As4()}})
				case at.Is6() && q.Type == dnsmessage.TypeAAAA:
					m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AAAAResource{AAAA: at.As16()}})
				}
			}
			answer, err := m.Pack()
			if err != nil {
				continue
			}
			_, _ = conn.WriteTo(answer, from)
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// refused checks that a call was refused, and what the reader is told.
func refused(t *testing.T, err error, words ...string) {
	t.Helper()
	var r *egress.Refused
	if !errors.As(err, &r) {
		t.Fatalf("got %v, want a refusal", err)
	}
	for _, word := range words {
		if !strings.Contains(r.Error(), word) {
			t.Errorf("%q lacks %q", r, word)
		}
	}
}

func get(c *http.Client, url string) (string, error) {
	answer, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return string(text), err
}

func TestOnlyNamedHostsAreCalled(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		allow   []string
		address string
		want    string // "" is allowed
	}{
		{nil, "charts.example.com:443", `add "charts.example.com" to egress.allowHosts`},
		{[]string{"charts.example.com"}, "charts.example.com:443", ""},
		{[]string{"charts.example.com"}, "CHARTS.example.COM.:443", ""},
		{[]string{"Charts.Example.com."}, "charts.example.com:22", ""},
		{[]string{"charts.example.com"}, "charts.example.com:8443", `add "charts.example.com:8443" to egress.allowHosts`},
		{[]string{"charts.example.com:8443"}, "charts.example.com:8443", ""},
		{[]string{"charts.example.com:8443"}, "charts.example.com:443", `add "charts.example.com"`},
		{[]string{"example.com"}, "charts.example.com:443", "calls to charts.example.com:443 are not allowed"},
		{[]string{"*.example.com"}, "a.b.example.com:443", ""},
		{[]string{"*.example.com"}, "example.com:443", "not allowed"},
		{[]string{"*.example.com"}, "evilexample.com:443", "not allowed"},
		{[]string{"*.example.com:9090"}, "a.example.com:9090", ""},
		{[]string{"*.example.com:9090"}, "a.example.com:443", "not allowed"},
		{[]string{"*"}, "anything.example.com:12345", ""},
		{[]string{"münchen.example"}, "xn--mnchen-3ya.example:443", ""},
		{[]string{"203.0.114.7:8443"}, "203.0.114.7:443", `add "203.0.114.7"`},
	} {
		e := client(t, egress.Config{AllowHosts: c.allow, Resolver: resolver(t, nil)})
		conn, err := e.DialContext(t.Context(), "tcp", c.address)
		if err == nil {
			conn.Close()
		}
		var unknown *net.DNSError
		switch {
		case c.want != "":
			refused(t, err, c.want)
		case !errors.As(err, &unknown): // the rules let it through; nobody knows the name
			t.Errorf("%v: call to %s: %v", c.allow, c.address, err)
		}
	}
}

func TestAddressesInsideANetworkAreRefused(t *testing.T) {
	t.Parallel()
	for address, what := range map[string]string{
		"127.0.0.1": "a loopback address", "127.8.9.1": "a loopback address", "::1": "a loopback address",
		"10.0.0.1": "a private address", "172.31.255.1": "a private address", "192.168.1.1": "a private address", "fd12::1": "a private address",
		"100.64.1.1": "a carrier-grade NAT address", "169.254.1.1": "a link-local address", "fe80::1": "a link-local address",
		"169.254.169.254": "the metadata service of a cloud", "fd00:ec2::254": "the metadata service", "100.100.100.200": "the metadata service", "168.63.129.16": "the metadata service",
		"0.0.0.0": "an unspecified address", "0.1.2.3": "an unspecified address", "::": "an unspecified address",
		"224.0.0.1": "a multicast address", "ff02::1": "a multicast address", "255.255.255.255": "a reserved address", "240.0.0.1": "a reserved address",
		"::ffff:127.0.0.1": "a loopback address", "::ffff:169.254.169.254": "the metadata service", "::ffff:10.1.2.3": "a private address",
		"64:ff9b::808:808": "a NAT64 address", "64:ff9b:1::1": "a NAT64 address of local use", "::7f00:1": "an address of IPv4 in IPv6", "2002:7f00:1::1": "a 6to4 address",
		"2001:0:1::1": "a reserved address", "2001:db8::1": "an address for documentation", "192.0.2.1": "an address for documentation", "198.18.0.1": "an address for benchmarks",
		"192.0.0.192": "the metadata service", "fec0::1": "a site-local address", "100::1": "a discard address", "::ffff:0:7f00:1": "an address translated from IPv4",
	} {
		e := client(t, egress.Config{AllowHosts: []string{"*"}, Resolver: resolver(t, map[string][]string{"inside.example.com": {address}})})
		host := address
		if strings.Contains(address, ":") {
			host = "[" + address + "]"
		}
		_, err := e.DialContext(t.Context(), "tcp", host+":443")
		refused(t, err, what)
		_, err = get(e.HTTP(), "https://"+host+"/")
		refused(t, err, what, "egress.allowPrivate")
		_, err = e.DialContext(t.Context(), "tcp", "inside.example.com:443")
		var r *egress.Refused
		if errors.As(err, &r) {
			refused(t, err, what, "calls to inside.example.com:443 are not allowed: ")
			if r.Host != "inside.example.com" || r.Address == "" {
				t.Errorf("%+v", r)
			}
		} else if netip.MustParseAddr(address).Unmap().Is4() {
			t.Errorf("%s: %v", address, err) // a machine without IPv6 has another reason for the others
		}
	}
}

func TestWhatMayBePrivateIsSaid(t *testing.T) {
	t.Parallel()
	const host = "grafana.internal"
	for name, c := range map[string]struct {
		address string
		private []string
		refused string // "" is allowed
	}{
		"by the host's name":                  {"127.0.0.1", []string{host + ":9999"}, ""},
		"by a suffix":                         {"127.0.0.1", []string{"*.internal:9999"}, ""},
		"by its address":                      {"127.0.0.1", []string{"127.0.0.1"}, ""},
		"by its network":                      {"127.0.0.1", []string{"127.0.0.0/8"}, ""},
		"on another port":                     {"127.0.0.1", []string{host}, `add "grafana.internal:9999" to egress.allowPrivate`},
		"another host":                        {"127.0.0.1", []string{"other.internal:9999"}, "a loopback address"},
		"another network":                     {"127.0.0.1", []string{"10.0.0.0/8"}, "a loopback address"},
		"a name is not enough for link-local": {"169.254.9.9", []string{host + ":9999"}, "a link-local address; if it shall be called, add its network"},
		"nor for metadata":                    {"169.254.169.254", []string{host + ":9999"}, `add "169.254.169.254"`},
		"nor is a network":                    {"169.254.169.254", []string{"169.254.0.0/16", "0.0.0.0/0"}, "the metadata service"},
		"NAT64 stands for what is private":    {"64:ff9b::a00:1", []string{"64:ff9b::/96"}, "10.0.0.1 is a private address"},
		"NAT64 stands for metadata":           {"64:ff9b::a9fe:a9fe", []string{"64:ff9b::/96"}, "metadata"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := client(t, egress.Config{
				AllowHosts: []string{host + ":9999", net.JoinHostPort(c.address, "9999")}, AllowPrivate: c.private,
				Resolver: resolver(t, map[string][]string{host: {c.address}}),
			})
			target := host
			if strings.Contains(c.address, ":") {
				target = "[" + c.address + "]" // a machine may lack IPv6
			}
			conn, err := e.DialContext(t.Context(), "tcp", target+":9999")
			if err == nil {
				conn.Close()
			}
			if c.refused != "" {
				refused(t, err, c.refused)
				return
			}
			var r *egress.Refused
			if errors.As(err, &r) {
				t.Errorf("refused: %v", err)
			}
		})
	}
}

func TestANameThatLeadsInsideIsNotConnectedTo(t *testing.T) {
	t.Parallel()
	called := make(chan struct{}, 10)
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called <- struct{}{} }))
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	ok(t, err)
	e := client(t, egress.Config{AllowHosts: []string{"*"}, Resolver: resolver(t, map[string][]string{"rebound.example.com": {"127.0.0.1"}})})
	_, err = get(e.HTTP(), "http://rebound.example.com:"+port+"/")
	refused(t, err, "calls to rebound.example.com:"+port+" are not allowed: 127.0.0.1 is a loopback address")
	if len(called) > 0 {
		t.Error("the server was called")
	}
}

// serve starts a server and gives a configuration that may call it by the name "service.test".
func serve(t *testing.T, h http.Handler) (egress.Config, string) {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	ok(t, err)
	host := "service.test:" + port
	return egress.Config{
		AllowHosts: []string{host}, AllowPrivate: []string{"127.0.0.0/8"},
		Resolver: resolver(t, map[string][]string{"service.test": {"127.0.0.1"}, "other.test": {"127.0.0.1"}}),
	}, "http://" + host
}

func TestRedirectsStayWhereTheyAre(t *testing.T) {
	t.Parallel()
	var port string
	c, base := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to := map[string]string{
			"/same": "/end", "/other": "http://other.test:" + port + "/end", "/secure": "https://other.test/end", "/loop": "/loop", "/file": "file:///etc/passwd",
		}[r.URL.Path]
		if to == "" {
			_, _ = io.WriteString(w, "the end")
			return
		}
		http.Redirect(w, r, to, http.StatusFound)
	}))
	at, err := url.Parse(base)
	ok(t, err)
	port = at.Port()
	e := client(t, c)
	text, err := get(e.HTTP(), base+"/same")
	if err != nil || text != "the end" {
		t.Errorf("%q, %v", text, err)
	}
	_, err = get(e.HTTP(), base+"/other")
	refused(t, err, "redirects to http://other.test:"+port+", which is not https")
	_, err = get(e.HTTP(), base+"/secure")
	refused(t, err, `redirects to another host, other.test; if that is right, add "other.test" to egress.redirectTo`)
	_, err = get(e.HTTP(), base+"/loop")
	if err == nil || !strings.Contains(err.Error(), "redirects more than 5 times") {
		t.Errorf("%v", err)
	}
	_, err = get(e.HTTP(), base+"/file")
	refused(t, err, "which is not https")

	c.RedirectTo = []string{"other.test"}
	e = client(t, c)
	_, err = get(e.HTTP(), "https://other.test/end")
	refused(t, err, "calls to other.test:443 are not allowed") // but by a redirect
	_, err = get(e.HTTP(), base+"/secure")
	var r *egress.Refused
	if errors.As(err, &r) || err == nil { // nothing listens there; the way is open
		t.Errorf("%v", err)
	}
}

func TestAnAnswerIsLimited(t *testing.T) {
	t.Parallel()
	c, base := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/exact":
			_, _ = w.Write(make([]byte, 1000))
		case "/declared":
			_, _ = w.Write(make([]byte, 1001))
		case "/streamed":
			for range 1001 {
				_, _ = w.Write([]byte("x"))
				w.(http.Flusher).Flush()
			}
		case "/packed":
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			_, _ = z.Write(make([]byte, 1_000_000))
			ok(t, z.Close())
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(b.Bytes()[:min(b.Len(), 990)])
		case "/headers":
			for i := range 300 {
				w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 1000))
			}
		}
	}))
	c.MaxResponseBytes = 1000
	c.Setting = "charts"
	h := client(t, c).HTTP()
	text, err := get(h, base+"/exact")
	if err != nil || len(text) != 1000 {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	for _, path := range []string{"/declared", "/streamed", "/packed"} {
		_, err := get(h, base+path)
		var large *egress.TooLarge
		if !errors.As(err, &large) || !strings.Contains(err.Error(), "sends more than the 1000 bytes that are read of an answer") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := get(h, base+"/headers"); err == nil || !strings.Contains(err.Error(), "response headers exceeded") {
		t.Errorf("%v", err)
	}
}

func TestACallEndsInTime(t *testing.T) {
	t.Parallel()
	c, base := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	c.Timeout = 1 // a nanosecond: over before it has begun
	_, err := get(client(t, c).HTTP(), base)
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("%v", err)
	}
}

func TestABundleIsTrusted(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	host := server.Listener.Addr().String()
	c := egress.Config{AllowHosts: []string{host}, AllowPrivate: []string{"127.0.0.1"}}
	if _, err := get(client(t, c).HTTP(), server.URL); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("%v", err)
	}
	c.CABundle = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if _, err := get(client(t, c).HTTP(), server.URL); err != nil {
		t.Error(err)
	}
}

func TestAProxyOfTheEnvironmentIsUsed(t *testing.T) {
	seen := make(chan string, 10)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r.URL.String()
		_, _ = io.WriteString(w, "by the proxy")
	}))
	defer proxy.Close()
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("NO_PROXY", "direct.test")
	c := egress.Config{AllowHosts: []string{"charts.example.com", "direct.test"}, Proxy: true, Resolver: resolver(t, nil)}
	h := client(t, c).HTTP()
	text, err := get(h, "http://charts.example.com/index.yaml")
	if err != nil || text != "by the proxy" || <-seen != "http://charts.example.com/index.yaml" {
		t.Errorf("%q, %v", text, err)
	}
	_, err = get(h, "http://forbidden.example.com/")
	refused(t, err, "calls to forbidden.example.com:80 are not allowed")
	_, err = get(h, "http://10.0.0.1/")
	refused(t, err, "calls to 10.0.0.1:80 are not allowed")
	if _, err := get(h, "http://direct.test/"); err == nil {
		t.Error("NO_PROXY is not heeded")
	}
	if len(seen) > 0 {
		t.Errorf("the proxy was asked for %s", <-seen)
	}
}

func TestAConfigurationIsChecked(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]egress.Config{
		`egress.allowHosts: "https://x" is not a host`:        {AllowHosts: []string{"https://x"}},
		`egress.allowHosts: "a.*.b" is not a host`:            {AllowHosts: []string{"a.*.b"}},
		`egress.allowHosts: "" is not a host`:                 {AllowHosts: []string{""}},
		`egress.allowHosts: "x:99999": "99999" is not a port`: {AllowHosts: []string{"x:99999"}},
		`egress.allowPrivate: "10.0.0.0/99" is not a host`:    {AllowPrivate: []string{"10.0.0.0/99"}},
		`webhooks.caBundle: no certificate in PEM is in it`:   {CABundle: []byte("x"), Setting: "webhooks"},
		`egress.redirectTo: "*.*" is not a host`:              {RedirectTo: []string{"*.*"}},
	} {
		_, err := egress.New(c)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
