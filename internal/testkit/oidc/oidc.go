// Package oidc runs an OIDC issuer that is not ours, the npm package oidc-provider, so that what agents and hub make of foreign tokens is not only tested on
// what we think that issuers do. `make issuer` installs it.
package oidc

import (
	"bufio"
	"crypto/x509"
	_ "embed"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

//go:embed issuer.mjs
var program []byte

// Client is one that may have tokens by its secret.
type Client struct {
	ID     string `json:"id"`
	Secret string `json:"secret"`
}

// Resource is what tokens may be asked for, by its URL (RFC 8707).
type Resource struct {
	Audience string `json:"audience"` // of the tokens
	Scope    string `json:"scope"`    // that may be asked for, words
	Seconds  int    `json:"seconds"`  // that tokens last
	Alg      string `json:"alg"`      // HS256, or empty for ES256
}

// Settings of an issuer.
type Settings struct {
	Clients   []Client            `json:"clients"`
	Resources map[string]Resource `json:"resources"`
	Keys      []string            `json:"keys"` // ids of those that are published; the first signs
}

// Issuer is one that runs. Its methods are for one goroutine.
type Issuer struct {
	URL string
	CA  []byte // PEM

	t       testing.TB
	to      io.Writer
	answers *bufio.Scanner
	errors  *strings.Builder
}

// Start runs an issuer until the test ends.
func Start(t testing.TB, s Settings) *Issuer {
	t.Helper()
	installed := directory(t)
	if _, err := os.Stat(filepath.Join(installed, "node_modules", "oidc-provider")); err != nil {
		t.Fatalf("the issuer of tests is not installed (%v); run: make issuer", err)
	}
	script := filepath.Join(t.TempDir(), "issuer.mjs")
	if err := os.WriteFile(script, program, 0o600); err != nil {
		t.Fatal(err)
	}
	i := &Issuer{t: t, errors: &strings.Builder{}}
	command := exec.CommandContext(t.Context(), "node", script, installed)
	command.Stderr = i.errors
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatalf("%v; the issuer of tests needs Node.js", err)
	}
	t.Cleanup(func() {
		_ = in.Close() // it ends by itself
		_ = command.Wait()
	})
	i.to, i.answers = in, bufio.NewScanner(out)

	served := httptest.NewTLSServer(nil) // for its certificate
	served.Close()
	private, err := x509.MarshalPKCS8PrivateKey(served.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	i.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: served.Certificate().Raw})
	i.say(struct {
		Settings
		Cert string `json:"cert"`
		Key  string `json:"key"`
	}{s, string(i.CA), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))})
	return i
}

// Change puts other settings in force; the address stays.
func (i *Issuer) Change(s Settings) {
	i.t.Helper()
	i.say(s)
}

func (i *Issuer) say(settings any) {
	i.t.Helper()
	if err := json.NewEncoder(i.to).Encode(settings); err != nil {
		i.t.Fatal(err)
	}
	if !i.answers.Scan() {
		i.t.Fatalf("the issuer of tests has ended: %s", i.errors)
	}
	i.URL = i.answers.Text()
}

// directory is where make installs the package: $TOWPATH_ISSUER, else below the module's root.
func directory(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv("TOWPATH_ISSUER"); dir != "" {
		return dir
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for dir != filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, ".build", "issuer")
		}
		dir = filepath.Dir(dir)
	}
	t.Fatal("this test runs outside its module; set TOWPATH_ISSUER to the directory that make issuer made")
	return ""
}
