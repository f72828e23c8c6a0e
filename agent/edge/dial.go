package edge

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/http/httpproxy"
)

const dialTimeout = 10 * time.Second

// roots reads certificate authorities from files: beside the system's own or, alone, in their place.
func roots(alone bool, files ...string) (*x509.CertPool, error) {
	pool, found := x509.NewCertPool(), false
	if !alone {
		if system, err := x509.SystemCertPool(); err == nil {
			pool = system
		}
	}
	for _, file := range files {
		if file == "" {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("certificate authorities: %w", err)
		}
		if !pool.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s holds no certificate in PEM", file)
		}
		found = true
	}
	if alone && !found {
		return nil, nil // the system's roots
	}
	return pool, nil
}

// proxied says which proxy leads to a URL: the one that is configured, else the environment's.
func (p Proxy) proxied() func(*url.URL) (*url.URL, error) {
	environment := httpproxy.FromEnvironment()
	if p.URL != "" {
		environment = &httpproxy.Config{HTTPProxy: p.URL, HTTPSProxy: p.URL, NoProxy: p.NoProxy}
	}
	return environment.ProxyFunc()
}

// outward dials the hub, through a proxy where there is one. Names are resolved at each dial.
type outward struct {
	proxy func(*url.URL) (*url.URL, error)
	tls   *tls.Config // of a proxy that speaks TLS
}

func (o outward) dial(ctx context.Context, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var dialer net.Dialer
	proxy, err := o.proxy(&url.URL{Scheme: "https", Host: address})
	if err != nil {
		return nil, fmt.Errorf("which proxy leads to %s: %w", address, err)
	}
	if proxy == nil {
		return dialer.DialContext(ctx, "tcp", address)
	}
	at := proxy.Host
	if proxy.Port() == "" {
		at = net.JoinHostPort(proxy.Hostname(), map[string]string{"https": "443"}[proxy.Scheme])
		if proxy.Scheme != "https" {
			at = net.JoinHostPort(proxy.Hostname(), "80")
		}
	}
	conn, err := dialer.DialContext(ctx, "tcp", at)
	if err != nil {
		return nil, fmt.Errorf("the proxy: %w", err)
	}
	tunnelled, err := o.connect(ctx, conn, proxy, address)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("through the proxy %s: %w", at, err), conn.Close())
	}
	return tunnelled, nil
}

// connect asks a proxy for a tunnel.
func (o outward) connect(ctx context.Context, conn net.Conn, proxy *url.URL, address string) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // reads and writes below fail then
	defer stop()
	if proxy.Scheme == "https" {
		config := o.tls.Clone()
		config.ServerName = proxy.Hostname()
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		conn = secure
	}
	request := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: http.Header{}}
	if user := proxy.User; user != nil {
		password, _ := user.Password()
		request.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	if err := request.Write(conn); err != nil {
		return nil, err
	}
	reader := bufio.NewReaderSize(conn, 4096)
	response, err := http.ReadResponse(reader, request) //nolint:bodyclose // the answer to CONNECT is the connection itself
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered %s", response.Status)
	}
	if reader.Buffered() > 0 {
		return nil, errors.New("it sent bytes before the hub was asked anything")
	}
	return conn, nil
}

// once lets a gRPC connection dial a single time: a session lives and dies with its connection, and the next one is dialled by the session that follows.
func once(dial func(context.Context, string) (net.Conn, error)) func(context.Context, string) (net.Conn, error) {
	var dialled atomic.Bool
	return func(ctx context.Context, address string) (net.Conn, error) {
		if dialled.Swap(true) {
			return nil, errors.New("the session's connection has ended")
		}
		return dial(ctx, address)
	}
}

// guarded dials targets of the allow-list: a name that leads to this machine, to its link or to a metadata service is refused; such an address must be
// written out in the configuration.
func guarded(host string) func(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: dialTimeout}
	if net.ParseIP(host) == nil {
		dialer.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
			ip, _, err := net.SplitHostPort(address)
			if err != nil {
				return err
			}
			if why := hazard(net.ParseIP(ip)); why != "" {
				return &refusedAddress{host: host, ip: ip, why: why}
			}
			return nil
		}
	}
	return dialer.DialContext
}

type refusedAddress struct{ host, ip, why string }

func (e *refusedAddress) Error() string {
	return fmt.Sprintf("the name %q leads to %s, which is %s; if that is meant, write the address out in the target's url", e.host, e.ip, e.why)
}

// hazard says what is wrong with an address that a name leads to; "" when nothing is.
func hazard(ip net.IP) string {
	switch {
	case ip == nil:
		return "no address"
	case ip.IsLoopback():
		return "this machine (loopback)"
	case ip.IsLinkLocalUnicast(), ip.IsLinkLocalMulticast(), ip.IsInterfaceLocalMulticast():
		return "link-local, where clouds keep their metadata"
	case ip.IsUnspecified(), ip.IsMulticast():
		return "no host's"
	case ip.Equal(net.ParseIP("fd00:ec2::254")), ip.Equal(net.ParseIP("100.100.100.200")), ip.Equal(net.ParseIP("168.63.129.16")):
		return "a cloud's metadata service"
	}
	return ""
}
