package agent_test

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"towpath/agent/edge"
	"towpath/agent/hub"
)

var quietLog = log.New(io.Discard, "", 0)

// webProxy is a company's proxy: it wants a password, knows the names of hosts, and may read what passes.
type webProxy struct {
	*httptest.Server
	reads *tls.Certificate // shown in every host's place; nil: it does not

	mu    sync.Mutex
	asked []string // CONNECT
}

// named leads to this machine, by names that only the proxy knows.
const named = "example.com"

func newWebProxy(t *testing.T, reads *tls.Certificate) *webProxy {
	p := &webProxy{reads: reads}
	p.Server = httptest.NewUnstartedServer(p)
	p.Config.ErrorLog = quietLog
	t.Cleanup(p.Close)
	return p
}

func (p *webProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect || r.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte("agent:pass:word")) {
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	p.mu.Lock()
	p.asked = append(p.asked, r.Host)
	p.mu.Unlock()
	server, err := net.Dial("tcp", strings.Replace(r.Host, named, "127.0.0.1", 1))
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer server.Close()
	client, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer client.Close()
	_, _ = io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n")
	if p.reads != nil {
		outside := tls.Client(server, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}}) // of a test
		if outside.Handshake() != nil {
			return
		}
		protocol := cmp.Or(outside.ConnectionState().NegotiatedProtocol, "http/1.1")
		inside := tls.Server(client, &tls.Config{Certificates: []tls.Certificate{*p.reads}, NextProtos: []string{protocol}})
		if inside.Handshake() != nil {
			return
		}
		client, server = inside, outside
	}
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	}()
	_, _ = io.Copy(client, server)
}

// hosts that were asked for, each once.
func (p *webProxy) hosts() map[string]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[string]bool{}
	for _, host := range p.asked {
		all[host] = true
	}
	return all
}

// authority makes a certificate of the proxy's own for the hosts it reads.
func authority(t *testing.T) (*tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ok(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{named}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	text, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	ok(t, err)
	return &tls.Certificate{Certificate: [][]byte{text}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: text})
}

func TestHubAndTokensAreReachedThroughAProxyAndTheAPIServerIsNot(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"over HTTP", "over TLS", "that reads what passes"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			k := cluster(t, func(http.ResponseWriter, *http.Request) {})
			w := newWorld(t, hub.Limits{})
			c := w.identity("prod", k)
			var reads *tls.Certificate
			if kind == "that reads what passes" {
				var text []byte
				reads, text = authority(t)
				c.Proxy.CAFile = w.file("company.pem", text)
			}
			p := newWebProxy(t, reads)
			scheme := "http://"
			if kind == "over TLS" {
				p.StartTLS()
				scheme, c.Proxy.CAFile = "https://", w.ca
			} else {
				p.Start()
			}
			c.Proxy.URL = scheme + "agent:pass%3Aword@" + p.Listener.Addr().String()
			c.Hub.Address = strings.Replace(w.address, "127.0.0.1", named, 1)
			issuer := strings.Replace(strings.TrimPrefix(w.issuerAt, "https://"), "127.0.0.1", named, 1)
			c.Identity.TokenURL = "https://" + issuer + "/oauth/token"
			w.start(c, edge.Timing{})
			_, _, err := w.do("prod", http.MethodGet, "/", nil)
			ok(t, err)
			equal(t, len(p.hosts()), 2, "hosts")
			if hosts := p.hosts(); !hosts[c.Hub.Address] || !hosts[issuer] {
				t.Errorf("asked for %v", hosts)
			}
		})
	}
}

func TestAProxyThatRefusesIsNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hub.Limits{})
	p := newWebProxy(t, nil)
	p.Start()
	c := w.identity("prod", nil)
	c.Hub.Address = strings.Replace(w.address, "127.0.0.1", named, 1)
	c.Proxy.URL = "http://agent:wrong@" + p.Listener.Addr().String() // the issuer is on this machine, and needs none
	w.run(c, edge.Timing{})
	w.await(func() bool { return strings.Contains(w.logs.String(), "407 Proxy Authentication Required") }, "the agent says what the proxy answers")
	contains(t, w.logs.String(), "through the proxy "+p.Listener.Addr().String())
}

func TestHostsOfNoProxyAreReachedWithoutIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hub.Limits{})
	p := newWebProxy(t, nil)
	p.Start()
	c := w.identity("prod", nil)
	c.Identity.TokenURL = "https://issuer.invalid/token"
	c.Proxy = edge.Proxy{URL: "http://agent:pass%3Aword@" + p.Listener.Addr().String(), NoProxy: ".invalid"}
	w.run(c, edge.Timing{})
	w.await(func() bool { return strings.Contains(w.logs.String(), "no token could be fetched") }, "the agent has tried")
	equal(t, len(p.hosts()), 0, "hosts that the proxy was asked for")
}
