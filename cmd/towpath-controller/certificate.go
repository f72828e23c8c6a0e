package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// caFile is what agents and command lines are given to trust, in the directory of ownCertificate.
const caFile = "ca.crt"

// certificates gives the certificate that is served: of the configured files, read anew when they changed, or one of an authority of our own, made
// anew before it ends. While that fails the one before is served.
type certificates struct {
	certFile, keyFile string   // "": our own
	dir               string   // of our own
	hosts             []string // its names
	clock             func() time.Time
	log               *logrus.Entry

	mu      sync.Mutex
	current *tls.Certificate
	looked  time.Time
	written time.Time // when the files were
}

// lookAgain is how often it is looked whether another certificate is to be served.
const lookAgain = time.Minute

// get is a tls.Config's GetCertificate.
func (c *certificates) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.clock(); now.Sub(c.looked) >= lookAgain {
		if err := c.renew(now); err != nil {
			c.log.WithError(err).Error("the certificate could not be renewed; the one before is still served")
		}
	}
	return c.current, nil
}

// renew looks whether another certificate is to be served; called with mu held, or before anything is served.
func (c *certificates) renew(now time.Time) error {
	c.looked = now
	if c.certFile == "" {
		if c.current != nil && now.Before(c.current.Leaf.NotAfter.Add(-lifetime/3)) {
			return nil
		}
		fresh, err := ownCertificate(c.dir, c.hosts, now)
		if err == nil {
			c.current = &fresh
		}
		return err
	}
	written, err := newest(c.certFile, c.keyFile)
	if err != nil || c.current != nil && written.Equal(c.written) {
		return err
	}
	fresh, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	c.current, c.written = &fresh, written
	return nil
}

// newest is when the younger of two files was written.
func newest(names ...string) (at time.Time, err error) {
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			return at, fmt.Errorf("tls: %w", err)
		}
		if info.ModTime().After(at) {
			at = info.ModTime()
		}
	}
	return at, nil
}

// lifetime of a certificate of our own.
const lifetime = 90 * 24 * time.Hour

// ownCertificate is a certificate for hosts and for this machine, of an authority that is made at first and kept in dir.
func ownCertificate(dir string, hosts []string, now time.Time) (tls.Certificate, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return tls.Certificate{}, err
	}
	authority, err := tls.LoadX509KeyPair(filepath.Join(dir, caFile), filepath.Join(dir, "ca.key"))
	if errors.Is(err, fs.ErrNotExist) {
		authority, err = newAuthority(dir, now)
	}
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("own certificate: %w", err)
	}
	root, err := x509.ParseCertificate(authority.Certificate[0])
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: hosts[0]}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(lifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	return sign(template, root, authority.PrivateKey.(*ecdsa.PrivateKey))
}

func newAuthority(dir string, now time.Time) (tls.Certificate, error) {
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "Towpath"}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	authority, err := sign(template, nil, nil)
	if err != nil {
		return authority, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(authority.PrivateKey)
	if err != nil {
		return authority, err
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600); err != nil {
		return authority, err
	}
	return authority, os.WriteFile(filepath.Join(dir, caFile), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Certificate[0]}), 0o644)
}

// sign makes a key and a certificate for it, signed by an authority, or by itself.
func sign(template, authority *x509.Certificate, by *ecdsa.PrivateKey) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return tls.Certificate{}, err
	}
	if authority == nil {
		authority, by = template, key
	}
	text, err := x509.CreateCertificate(rand.Reader, template, authority, key.Public(), by)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(text)
	return tls.Certificate{Certificate: [][]byte{text}, PrivateKey: key, Leaf: leaf}, err
}
