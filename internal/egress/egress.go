// Package egress makes the calls that leave the controller: to chart repositories, registries, metric providers, webhooks, Git hosts. A deployment file may
// name an address, and so may what it leads to; here is decided, in one place, whom we talk to: only hosts that the configuration names, and only at
// addresses that are not inside our own network, as they are when the connection is made. What comes back is limited in time and size.
package egress

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// Config says whom a Client may talk to. The zero value lets nothing out.
type Config struct {
	// AllowHosts are the hosts that may be called: "charts.example.com" (on ports 443, 80 and 22), "charts.example.com:8443" (on that port alone), "*.example.com" (all
	// names below, not example.com itself), with or without a port. "*" is every host on every port: for clients whose addresses come from
	// the operator alone.
	AllowHosts []string
	// AllowPrivate are the exceptions from the rule that addresses inside a network are refused: hosts as in AllowHosts, for which private, loopback and
	// carrier-grade addresses are good; or addresses and networks ("10.1.0.0/16"), which are good for every host. Link-local, NAT64 and other special
	// addresses need a network that names them, a cloud's metadata service its single address.
	AllowPrivate []string
	// RedirectTo are hosts, as in AllowHosts, to which a redirect from another host may lead over HTTPS: registries keep their blobs elsewhere. They need
	// not be among AllowHosts, and are then called for no other reason.
	RedirectTo []string
	// Timeout bounds a call made through HTTP, its whole answer included. Default 30 s.
	Timeout time.Duration
	// MaxResponseBytes is the longest answer, after decompression. Default 64 MiB.
	MaxResponseBytes int64
	// CABundle are certificates in PEM that are trusted beside the system's own.
	CABundle []byte
	// Proxy sends HTTP calls through the proxy that the environment names (HTTPS_PROXY, HTTP_PROXY, NO_PROXY). Then it is the proxy that looks addresses up,
	// so the rule on addresses holds only for hosts that are written as one.
	Proxy bool
	// Setting is where this is written in the configuration, for messages: "egress" gives "add … to egress.allowHosts". Default "egress".
	Setting string
	// Tenant is whose calls these are, where the configuration has lines that hold for one tenant alone; messages name those too.
	Tenant string
	// Resolver looks hosts up. Default: the system's.
	Resolver *net.Resolver
}

// Client makes calls. Safe for concurrent use.
type Client struct {
	config  Config
	allowed hosts
	inside  hosts    // that may be private
	nets    networks // that may be called though they are special
	onward  hosts
	proxies map[string]bool // "host:port"
	proxy   func(*url.URL) (*url.URL, error)
	http    *http.Transport
}

// New makes a client. It fails when a host, a network or the CA bundle cannot be read; it does no network I/O.
func New(c Config) (*Client, error) {
	c.Timeout = cmp.Or(c.Timeout, 30*time.Second)
	c.MaxResponseBytes = cmp.Or(c.MaxResponseBytes, 64<<20)
	c.Setting = cmp.Or(c.Setting, "egress")
	e := &Client{config: c, proxies: map[string]bool{}}
	var err error
	if e.allowed, err = parseHosts(c.AllowHosts); err != nil {
		return nil, fmt.Errorf("%s.allowHosts: %w", c.Setting, err)
	}
	if e.onward, err = parseHosts(c.RedirectTo); err != nil {
		return nil, fmt.Errorf("%s.redirectTo: %w", c.Setting, err)
	}
	var names []string
	for _, text := range c.AllowPrivate {
		if network, ok := parseNetwork(text); ok {
			e.nets = append(e.nets, network)
		} else {
			names = append(names, text)
		}
	}
	if e.inside, err = parseHosts(names); err != nil {
		return nil, fmt.Errorf("%s.allowPrivate: %w", c.Setting, err)
	}
	roots, err := roots(c.CABundle)
	if err != nil {
		return nil, fmt.Errorf("%s.caBundle: %w", c.Setting, err)
	}
	e.http = &http.Transport{
		DialContext:            e.DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    10 * time.Second,
		IdleConnTimeout:        90 * time.Second,
		ExpectContinueTimeout:  time.Second,
		MaxIdleConnsPerHost:    4,
		MaxIdleConns:           100,
		MaxResponseHeaderBytes: 256 << 10,
	}
	if c.Proxy {
		settings := httpproxy.FromEnvironment()
		for _, text := range []string{settings.HTTPProxy, settings.HTTPSProxy} {
			if host, ok := proxyHost(text); ok {
				e.proxies[host] = true
			}
		}
		e.proxy = settings.ProxyFunc()
		e.http.Proxy = func(r *http.Request) (*url.URL, error) { return e.proxy(r.URL) }
	}
	return e, nil
}

// roots are the system's authorities and those of a bundle; nil is the system's alone.
func roots(bundle []byte) (*x509.CertPool, error) {
	if len(bundle) == 0 {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a container without certificates has the bundle's
	}
	if !pool.AppendCertsFromPEM(bundle) {
		return nil, errors.New("no certificate in PEM is in it")
	}
	return pool, nil
}

// proxyHost is a proxy's "host:port" as the transport dials it.
func proxyHost(text string) (string, bool) {
	if text == "" {
		return "", false
	}
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return "", false
	}
	standard := map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}
	return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), standard[u.Scheme])), true
}

// HTTP is a client for HTTP calls. It follows at most five redirects: to the same host and port with the same scheme, from http to https on the same host, and
// to the hosts of RedirectTo.
func (c *Client) HTTP() *http.Client {
	return &http.Client{Transport: c.Transport(), CheckRedirect: c.checkRedirect, Timeout: c.config.Timeout}
}

// Transport is what HTTP uses: with the rules on hosts, addresses and sizes, without those on redirects and time, which are its user's.
func (c *Client) Transport() http.RoundTripper { return roundTripper{c} }

// Close closes the connections that are kept for later calls.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// DialContext opens a TCP connection to "host:port", for other protocols than HTTP. All rules on hosts and addresses hold.
func (c *Client) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	viaProxy := c.proxies[address]
	if !viaProxy {
		if !c.onward.match(normal(host), port) { // roundTrip knows whether it is a redirect, and was asked before
			if err := c.checkHost(host, port); err != nil {
				return nil, err
			}
		}
		if err := c.checkLiteral(host, port); err != nil {
			return nil, err
		}
	}
	dialer := net.Dialer{
		Timeout: 10 * time.Second, KeepAlive: 30 * time.Second, Resolver: c.config.Resolver,
		// Here the name has been looked up, and this is the very address that is called: a name cannot mean another one a moment later.
		ControlContext: func(_ context.Context, network, address string, _ syscall.RawConn) error {
			at, err := netip.ParseAddrPort(address)
			if err != nil {
				return c.refuse(host, port, address, "is no address")
			}
			return c.checkAddress(host, port, at.Addr(), viaProxy)
		},
	}
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return nil, fmt.Errorf("calls go out over TCP, not %s", network)
	}
	return dialer.DialContext(ctx, network, address)
}

type roundTripper struct{ client *Client }

func (r roundTripper) RoundTrip(request *http.Request) (*http.Response, error) {
	answer, err := r.client.roundTrip(request)
	if err != nil && request.Body != nil {
		request.Body.Close() // as a RoundTripper must; closing twice does no harm
	}
	return answer, err
}

func (c *Client) roundTrip(request *http.Request) (*http.Response, error) {
	port := request.URL.Port()
	switch {
	case request.URL.Scheme == "https":
		port = cmp.Or(port, "443")
	case request.URL.Scheme == "http":
		port = cmp.Or(port, "80")
	default:
		return nil, fmt.Errorf("calls go out over http and https, not %q", request.URL.Scheme)
	}
	// Also before a proxy is asked, and before a connection of an earlier call is taken again.
	host := request.URL.Hostname()
	if request.Response == nil || !c.onward.match(normal(host), port) { // Response is the redirect that led here
		if err := c.checkHost(host, port); err != nil {
			return nil, err
		}
	}
	if err := c.checkLiteral(host, port); err != nil {
		return nil, err
	}
	answer, err := c.http.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode == http.StatusSwitchingProtocols {
		return nil, errors.Join(fmt.Errorf("%s wants to speak another protocol than HTTP, which is not done here", host), answer.Body.Close())
	}
	if answer.ContentLength > c.config.MaxResponseBytes && request.Method != http.MethodHead {
		return nil, errors.Join(c.tooLarge(request), answer.Body.Close())
	}
	answer.Body = &limitedBody{ReadCloser: answer.Body, left: c.config.MaxResponseBytes, err: c.tooLarge(request)}
	return answer, nil
}

func (c *Client) tooLarge(r *http.Request) error {
	return &TooLarge{Host: r.URL.Host, Limit: c.config.MaxResponseBytes}
}

// limitedBody gives an answer up to its limit, and then an error, never a text that is cut short without a word.
type limitedBody struct {
	io.ReadCloser
	left int64
	err  error
}

func (b *limitedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, b.err
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return n - 1, b.err
	}
	return n, err
}

func (c *Client) checkRedirect(next *http.Request, before []*http.Request) error {
	const most = 5
	last := before[len(before)-1].URL
	to := next.URL
	switch {
	case len(before) > most:
		return fmt.Errorf("%s redirects more than %d times", before[0].URL.Host, most)
	case strings.EqualFold(last.Host, to.Host) && last.Scheme == to.Scheme:
		return nil
	case last.Scheme == "http" && to.Scheme == "https" && strings.EqualFold(last.Hostname(), to.Hostname()):
		return nil
	case to.Scheme != "https":
		return &Refused{Host: to.Host, text: fmt.Sprintf("%s redirects to %s://%s, which is not https; use an address that answers itself", last.Host, to.Scheme, to.Host)}
	case c.onward.match(normal(to.Hostname()), cmp.Or(to.Port(), "443")):
		return nil
	}
	return &Refused{Host: to.Host, text: fmt.Sprintf("%s redirects to another host, %s; if that is right, add %q to %s.redirectTo", last.Host, to.Host, to.Host, c.config.Setting)}
}
