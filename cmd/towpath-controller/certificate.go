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
	"time"
)

// caFile is what agents and command lines are given to trust, in the directory of ownCertificate.
const caFile = "ca.crt"

// ownCertificate is a certificate for a host and for this machine, of an authority that is made at first and kept in dir.
func ownCertificate(dir, host string, now time.Time) (tls.Certificate, error) {
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
	template := &x509.Certificate{Subject: pkix.Name{CommonName: host}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = append(template.IPAddresses, ip)
	} else {
		template.DNSNames = append(template.DNSNames, host)
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
	return tls.Certificate{Certificate: [][]byte{text}, PrivateKey: key}, err
}
