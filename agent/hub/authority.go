package hub

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"time"
)

// Authority proves hubs of one installation to each other. It is made of the keys that all of them have, so that each issues its own certificate, in memory,
// and nothing has to be handed around: the first key issues, each is believed, as keys are replaced one after another. Use NewAuthority; safe for
// concurrent use.
type Authority struct {
	issuer ed25519.PrivateKey
	root   *x509.Certificate // of issuer
	roots  *x509.CertPool
	clock  func() time.Time

	mu      sync.Mutex
	current *tls.Certificate
}

const (
	peerName     = "hub.towpath.internal" // of every hub: which of them answers does not matter
	peerLifetime = 24 * time.Hour
)

// NewAuthority makes an authority of the installation's keys, at least one. clock may be nil: time.Now.
func NewAuthority(keys [][]byte, clock func() time.Time) (*Authority, error) {
	if len(keys) == 0 {
		return nil, errors.New("hub: peers need a key of the installation to know each other by")
	}
	if clock == nil {
		clock = time.Now
	}
	a := &Authority{roots: x509.NewCertPool(), clock: clock}
	for i, key := range keys {
		seed, err := hkdf.Key(sha256.New, key, nil, "towpath: authority of the hubs", ed25519.SeedSize)
		if err != nil {
			return nil, fmt.Errorf("hub: authority of the peers: %w", err)
		}
		issuer := ed25519.NewKeyFromSeed(seed)
		root, err := rootOf(issuer)
		if err != nil {
			return nil, fmt.Errorf("hub: authority of the peers: %w", err)
		}
		a.roots.AddCert(root)
		if i == 0 {
			a.issuer, a.root = issuer, root
		}
	}
	return a, nil
}

// rootOf is the certificate of an authority, the same wherever it is made.
func rootOf(issuer ed25519.PrivateKey) (*x509.Certificate, error) {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Towpath hubs"}, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)}
	text, err := x509.CreateCertificate(rand.Reader, template, template, issuer.Public(), issuer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(text)
}

// certificate is this hub's own, made anew at half of its life.
func (a *Authority) certificate() (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.clock()
	if a.current != nil && now.Before(a.current.Leaf.NotAfter.Add(-peerLifetime/2)) {
		return a.current, nil
	}
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: peerName}, DNSNames: []string{peerName}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(peerLifetime)}
	text, err := x509.CreateCertificate(rand.Reader, template, a.root, public, a.issuer)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(text)
	if err != nil {
		return nil, err
	}
	a.current = &tls.Certificate{Certificate: [][]byte{text}, PrivateKey: key, Leaf: leaf}
	return a.current, nil
}

// server is how a hub answers others.
func (a *Authority) server() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, Time: a.clock, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.roots,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return a.certificate() }}
}

// client is how a hub calls others.
func (a *Authority) client() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, Time: a.clock, ServerName: peerName, RootCAs: a.roots,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return a.certificate() }}
}
