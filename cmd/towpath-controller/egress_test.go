package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// chartSite serves one chart, to whoever knows the password where there is one.
func chartSite(t *testing.T, password string) (address string, asked *atomic.Int32) {
	t.Helper()
	asked = &atomic.Int32{}
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if _, said, _ := r.BasicAuth(); said != password {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if strings.HasSuffix(r.URL.Path, "/index.yaml") {
			fmt.Fprint(w, "apiVersion: v1\nentries:\n  web:\n    - name: web\n      version: 1.0.0\n      urls: [web-1.0.0.tgz]\n")
			return
		}
		fmt.Fprint(w, "the archive")
	}))
	t.Cleanup(site.Close)
	return site.URL, asked
}

func TestAChartThatOneTenantMayFetchIsServedToNoOther(t *testing.T) {
	t.Parallel()
	hers, _ := chartSite(t, "")
	private, _ := chartSite(t, "a password")
	common, asked := chartSite(t, "")
	host := func(address string) string { return strings.TrimPrefix(address, "http://") }
	password := filepath.Join(t.TempDir(), "password")
	must(t, os.WriteFile(password, []byte("a password"), 0o600))
	c := start(t, configure(t, fmt.Sprintf(`egress:
  allowHosts: ['%[1]s', '%[2]s']
  allowPrivate: [127.0.0.0/8]
  tenants:
    - {name: payments, allowHosts: ['%[3]s']}
charts: {credentials: [{url: '%[4]s', tenants: [payments], username: u, passwordFile: %[5]s}]}
`, host(common), host(private), host(hers), private, password)))
	fetch := func(tenant, repository string) error {
		archive, _, err := c.outside.Chart(t.Context(), tenant, repository, "web", "1.0.0")
		if err == nil && string(archive) != "the archive" {
			t.Errorf("%s brought %q", repository, archive)
		}
		return err
	}
	for _, r := range []struct{ repository, said string }{
		{hers, fmt.Sprintf("calls to %[1]s are not allowed; if they shall be, add %[1]q to egress.allowHosts, or, for the tenant main alone, to its allowHosts in egress.tenants", host(hers))},
		{private, "wants other credentials (401)"},
	} {
		must(t, fetch("payments", r.repository))
		if err := fetch("main", r.repository); err == nil || !strings.Contains(err.Error(), r.said) {
			t.Errorf("main: %v, want %s", err, r.said)
		}
	}
	must(t, fetch("main", common))
	before := asked.Load()
	must(t, fetch("orders", common))
	if asked.Load() != before {
		t.Error("tenants that may fetch the same fetch it once each")
	}
}

func TestEgressOfATenantIsRead(t *testing.T) {
	t.Parallel()
	c := configure(t, "egress: {tenants: [{name: payments, allowHosts: ['https://x']}]}\n")
	want := `egress.tenants: payments: egress.allowHosts: "https://x" is not a host`
	if err := check(c); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}
