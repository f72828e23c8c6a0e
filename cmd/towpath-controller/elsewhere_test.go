package main

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"towpath/api"
	"towpath/cmd/towpath-controller/config"
	"towpath/internal/testkit/gitserver"
	"towpath/issuer"
	"towpath/store"
)

// elsewhere is an OIDC issuer that is not the controller's own, and the file of its certificate.
func elsewhere(t *testing.T) (i *issuer.Issuer, url, ca string) {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Config{URL: "sqlite:" + filepath.Join(dir, "issuer.db"), Keys: [][]byte{bytes.Repeat([]byte{9}, 32)}, Log: quiet()})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { i.Handler().ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	i, err = issuer.New(issuer.Config{URL: server.URL, Audience: "towpath", Store: issuerStore{store: s}})
	must(t, err)
	must(t, i.Rotate(t.Context()))
	ca = filepath.Join(dir, "ca.crt")
	must(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	return i, server.URL, ca
}

func TestAnAgentMayHaveItsCredentialFromAnIssuerElsewhere(t *testing.T) {
	t.Parallel()
	other, url, ca := elsewhere(t)
	id, secret, err := other.Create(t.Context(), connects)
	must(t, err)
	settings := configure(t, "")
	settings.Agents.Issuers = []config.Issuer{{URL: url, CAFile: ca}}
	c := start(t, settings)
	admin := c.token("main", "ann", api.Admin)
	agents := func(name, issuer, subject string) answer {
		return c.call(admin, http.MethodPost, "/api/v1/agents", api.NewAgent{Name: name, Issuer: issuer, Subject: subject})
	}

	if p := agents("prod", "https://stranger.example.com", id).problem(t, http.StatusUnprocessableEntity); !strings.Contains(p.Detail, "issuer https://stranger.example.com is not trusted here; add it to agents.issuers") {
		t.Errorf("an issuer that is not trusted: %s", p.Detail)
	}
	if p := agents("prod", url, "").problem(t, http.StatusUnprocessableEntity); !strings.Contains(p.Detail, "needs the subject") {
		t.Errorf("without a subject: %s", p.Detail)
	}
	var made api.Credential
	agents("prod", url, id).read(t, &made)
	if made.Secret != "" || made.ClientID != id || made.Issuer != url {
		t.Errorf("made: %+v", made)
	}
	if p := agents("staging", url, id).problem(t, http.StatusConflict); !strings.Contains(p.Detail, "is that of agent prod already") {
		t.Errorf("a second agent of one identity: %s", p.Detail)
	}
	if p := c.call(admin, http.MethodPost, "/api/v1/agents/prod/rotate", map[string]any{}).problem(t, http.StatusConflict); !strings.Contains(p.Detail, "is kept by issuer "+url+"; replace its secret there") {
		t.Errorf("its secret replaced here: %s", p.Detail)
	}
	made.Secret = secret
	c.connectBy(made, "one", url+"/oauth/token", ca)
	await(t, "the agent", func() bool { return c.hub.Connected("main", "prod") })
	if a := c.call(admin, http.MethodDelete, "/api/v1/agents/prod", nil); a.status != http.StatusNoContent {
		t.Fatalf("%d %s", a.status, a.text)
	}
	await(t, "the end of its session", func() bool { return !c.hub.Connected("main", "prod") })
}

func TestATokenOfAStrangerIsRefusedByTheNameOfItsIssuer(t *testing.T) {
	t.Parallel()
	_, url, _ := elsewhere(t)
	c := start(t, configure(t, ""))
	payload := "e30." + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"iss":%q}`, url)) + ".x"
	if _, err := c.verifiers.Verify(t.Context(), payload); err == nil || err.Error() != fmt.Sprintf("the token is one of issuer %q; trusted here: https://localhost (agents.issuers)", url) {
		t.Errorf("refused with: %v", err)
	}
}

// silent is a remote that takes connections and never says a word.
func silent(t *testing.T) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { must(t, listener.Close()) })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
		}
	}()
	return listener.Addr().String()
}

func TestRemotesThatSayNothingKeepNoOtherSourceWaiting(t *testing.T) {
	t.Parallel()
	remote := silent(t)
	u := upload("shop", "1")
	files := gitserver.Files{}
	for name, text := range u.Files {
		files[name] = string(text)
	}
	repository := gitserver.NewRepo(t, t.TempDir(), "repo", files)
	text := "sources:\n"
	for i := range 60 {
		text += fmt.Sprintf("- {name: silent-%d, url: 'http://%s/repo.git', branch: main}\n", i, remote)
	}
	text += fmt.Sprintf("- {name: zeal, url: %s, branch: main, allow: [{accounts: ['*'], namespaces: ['*'], kinds: ['*']}]}\n", repository.Dir)
	c := start(t, configure(t, text))
	view := c.token("main", "ann", api.View)
	follow(t, c, view, "application=shop", 0, func(e api.Event) bool { return e.Deployment == "" })
}
