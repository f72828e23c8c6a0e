package gitserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Server serves the repositories of a directory over HTTP, read-only. What its methods set holds from the next request on.
type Server struct {
	URL string // http://127.0.0.1:PORT or https://127.0.0.1:PORT; a repository's own is URL + "/" + Repo.Name
	// CAFile is the certificate of the authority that signed the server's own; "" without TLS.
	CAFile string

	mu       sync.Mutex
	token    string
	inject   http.Handler
	watch    func(*http.Request)
	requests int
}

// Options of a Server.
type Options struct {
	TLS bool
	// Token that must be given as the password of basic authentication; "" lets everybody read.
	Token string
	// Accepts says of each token whether it is good, in place of Token.
	Accepts func(token string) bool
}

// Serve starts a server for the repositories under dir. It ends with the test.
func Serve(t testing.TB, dir string, o Options) *Server {
	t.Helper()
	s := &Server{token: o.Token}
	backend := &cgi.Handler{
		Path:   filepath.Join(run(t, "", nil, "--exec-path"), "git-http-backend"),
		Stderr: io.Discard, // what it says there, it also answers
		Env:    append(environment(), "GIT_PROJECT_ROOT="+dir, "GIT_HTTP_EXPORT_ALL=1"),
	}
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		token, inject, watch := s.token, s.inject, s.watch
		s.requests++
		s.mu.Unlock()
		if watch != nil {
			watch(r)
		}
		if inject != nil {
			inject.ServeHTTP(w, r)
			return
		}
		_, password, _ := r.BasicAuth()
		if o.Accepts != nil && !o.Accepts(password) || token != "" && subtle.ConstantTimeCompare([]byte(password), []byte(token)) == 0 {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(w, "Bad credentials", http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	web.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that break off are what tests are about
	if o.TLS {
		var certificate tls.Certificate
		certificate, s.CAFile = authority(t)
		web.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
		web.StartTLS()
	} else {
		web.Start()
	}
	t.Cleanup(web.Close)
	s.URL = web.URL
	return s
}

// SetToken changes the token from the next request on.
func (s *Server) SetToken(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = token
}

// Answer lets a handler answer all requests in place of Git; nil ends that.
func (s *Server) Answer(h http.Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inject = h
}

// Watch calls a function before each request is answered; nil ends that.
func (s *Server) Watch(f func(*http.Request)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watch = f
}

// Requests is how many have come so far.
func (s *Server) Requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// Transport is a client's transport that trusts the server's authority and nothing else.
func (s *Server) Transport(t testing.TB) *http.Transport {
	t.Helper()
	transport := &http.Transport{DialContext: (&net.Dialer{}).DialContext}
	if s.CAFile != "" {
		text, err := os.ReadFile(s.CAFile)
		if err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(text)
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// authority makes a certificate authority and a certificate for 127.0.0.1 and localhost.
func authority(t testing.TB) (tls.Certificate, string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of a test"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caText, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	must(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "git server of a test"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, DNSNames: []string{"localhost"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	text, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	must(err)
	file := filepath.Join(t.TempDir(), "ca.pem")
	must(os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caText}), 0o600))
	return tls.Certificate{Certificate: [][]byte{text}, PrivateKey: key}, file
}

// Dial is a plain dialer, as SSH needs one.
func Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, network, address)
}
