package main

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"towpath/analysis"
	"towpath/cmd/towpath-controller/config"
	"towpath/reconcile/rollout"
	"towpath/status"
)

// named is where names of this test lead: to places that nobody should be led to, and to the server of the test.
var named = map[string]string{
	"metadata.example.com": "169.254.169.254", "metadata6.example.com": "fd00:ec2::254", "linklocal.example.com": "169.254.10.10",
	"loopback.example.com": "127.0.0.1", "private.example.com": "10.255.255.1",
	"away.example.com": "127.0.0.1", "other.example.com": "127.0.0.1", "endless.example.com": "127.0.0.1", "silent.example.com": "127.0.0.1",
	"tenant.example.com": "127.0.0.1", "shy.example.com": "127.0.0.1",
}

// resolveNamed makes the system's resolver of this process know named, and nothing else. What runs beside it would see that, so nothing may.
func resolveNamed(t *testing.T) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	var serving sync.WaitGroup
	serving.Go(func() {
		buffer := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buffer[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m.Response, m.Authoritative, m.Additionals = true, true, nil
			address, known := named[strings.TrimSuffix(q.Name.String(), ".")]
			head := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1, Type: q.Type}
			switch at, _ := netip.ParseAddr(address); {
			case !known:
				m.RCode = dnsmessage.RCodeNameError
			case at.Is4() && q.Type == dnsmessage.TypeA:
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: at.As4()}})
			case at.Is6() && q.Type == dnsmessage.TypeAAAA:
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AAAAResource{AAAA: at.As16()}})
			}
			if answer, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(answer, from)
			}
		}
	})
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = before
		conn.Close()
		serving.Wait()
	})
}

// trap is a server that does to its callers what its name says.
type trap struct {
	port, ca string
	asked    sync.Map      // host → true
	sent     atomic.Int64  // bytes of an endless answer
	silent   chan struct{} // one in it for each call that is left without an answer
	over     chan struct{} // closed at the end of the test
}

func newTrap(t *testing.T) *trap {
	t.Helper()
	r := &trap{ca: filepath.Join(t.TempDir(), "ca.crt"), silent: make(chan struct{}, 100), over: make(chan struct{})}
	server := httptest.NewTLSServer(r)
	t.Cleanup(func() {
		close(r.over)
		server.Close()
	})
	must(t, os.WriteFile(r.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	_, r.port, _ = net.SplitHostPort(server.Listener.Addr().String())
	return r
}

func (r *trap) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	host, _, _ := net.SplitHostPort(request.Host)
	r.asked.Store(host, true)
	switch host {
	case "away.example.com":
		http.Redirect(w, request, "https://other.example.com:"+r.port+request.URL.Path, http.StatusFound)
	case "silent.example.com":
		r.silent <- struct{}{}
		select {
		case <-request.Context().Done():
		case <-r.over:
		}
	case "endless.example.com":
		piece := strings.Repeat("a", 64<<10)
		switch {
		case strings.HasSuffix(request.URL.Path, "/info/refs"):
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			fmt.Fprint(w, "001e# service=git-upload-pack\n0000")
			piece = strings.Repeat("0045"+strings.Repeat("a", 40)+" refs/heads/"+strings.Repeat("b", 13)+"\n", 1000)
		default:
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"a":"`)
		}
		for request.Method != http.MethodHead { // whose answer has no body
			n, err := w.Write([]byte(piece))
			if r.sent.Add(int64(n)); err != nil {
				return
			}
		}
	}
}

// outgoing is one way in which the controller calls somebody, made as it makes it.
type outgoing struct {
	name     string
	operator bool // the address is the operator's own word, so it may be private
	takes    bool // that the call was taken is enough, whatever else is said
	whole    bool // it goes on for others when the one who asked no longer waits
	call     func(ctx context.Context, address, tenant string) error
}

// ways is all of them.
func (r *trap) ways(t *testing.T, c *controller) []outgoing {
	t.Helper()
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte("a secret of a test"), 0o600))
	ways := []outgoing{
		{name: "a chart repository", call: func(ctx context.Context, address, tenant string) error {
			_, _, err := c.outside.Chart(ctx, tenant, address, "web", "1.0.0")
			return err
		}},
		{name: "a registry", call: func(ctx context.Context, address, tenant string) error {
			_, _, err := c.outside.Chart(ctx, tenant, "", "oci://"+strings.TrimPrefix(address, "https://")+"/web", "1.0.0")
			return err
		}},
		{name: "manifests by URL", call: func(ctx context.Context, address, tenant string) error {
			_, _, err := c.outside.File(ctx, tenant, "", address+"/m.yaml")
			return err
		}},
		{name: "a webhook", takes: true, call: func(ctx context.Context, address, tenant string) error {
			_, err := c.sendWebhook(ctx, rollout.Asked{Call: rollout.Call{Name: "hook"}, Path: "deploy.yml", Target: rollout.Target{Tenant: tenant, Application: "shop"},
				File: []byte("application: shop\ntargets: {prod: {account: prod}}\nmanifests: [{path: m}]\nwebhooks: [{name: hook, method: POST, uriTemplate: '" + address + "/hook', networkMode: direct, retryCount: 0}]\n")})
			return err
		}},
		{name: "a Git source", operator: true, call: func(ctx context.Context, address, tenant string) error {
			s, err := openSource(config.Source{Tenant: tenant, Name: "repo", URL: address + "/repo.git", Branch: "main", Auth: config.Auth{CAFile: r.ca}}, t.TempDir(), nil, quiet())
			if err != nil {
				return err
			}
			_, err = s.Fetch(ctx)
			must(t, s.close())
			return err
		}},
		{name: "GitHub, to read", operator: true, call: func(ctx context.Context, address, _ string) error {
			g, err := gitHub(config.GitHub{Repository: "owner/name", TokenFile: secret, APIURL: address + "/", CAFile: r.ca}, nil)
			if err == nil {
				_, err = g.Latest(ctx, "owner/name", strings.Repeat("a", 40))
			}
			return err
		}},
		{name: "GitHub, to write", operator: true, call: func(ctx context.Context, address, _ string) error {
			g, err := gitHub(config.GitHub{Repository: "owner/name", TokenFile: secret, APIURL: address + "/", CAFile: r.ca}, nil)
			if err == nil {
				err = g.Create(ctx, "owner/name", strings.Repeat("a", 40), status.Status{State: "pending", Context: "towpath"})
			}
			return err
		}},
		{name: "an issuer", operator: true, whole: true, call: func(ctx context.Context, address, _ string) error {
			v, err := c.verifier(config.Issuer{URL: address, CAFile: r.ca})
			if err != nil {
				return err
			}
			part := base64.RawURLEncoding.EncodeToString
			_, err = v.Verify(ctx, part([]byte(`{"alg":"RS256","kid":"k"}`))+"."+part(fmt.Appendf(nil, `{"iss":%q,"aud":"towpath","sub":"s","exp":9999999999}`, address))+"."+part([]byte("signed")))
			return err
		}},
	}
	for _, kind := range []string{"prometheus", "datadog", "newRelic", "http"} {
		ways = append(ways, outgoing{name: "a metric provider: " + kind, operator: true, call: func(ctx context.Context, address, tenant string) error {
			p := config.MetricProvider{Name: "p", Type: kind, URL: address, CAFile: r.ca}
			p.Datadog.APIKeyFile, p.Datadog.ApplicationKeyFile, p.NewRelic.UserKeyFile, p.NewRelic.AccountID = secret, secret, secret, 1
			p.HTTP.Body, p.HTTP.Value = `{"q": "{{query}}"}`, "$.a"
			all, err := newMetricProviders([]config.MetricProvider{p}, nil)
			if err != nil {
				return err
			}
			provider, err := all.Provider(tenant, "p")
			if err != nil {
				return err
			}
			_, err = provider.Measure(ctx, "q", analysis.Window{})
			return err
		}})
	}
	return ways
}

// tenants: what an entry lets its tenant call, it lets nobody else call, before and after that tenant did.
func (r *trap) tenants(t *testing.T, way outgoing) {
	t.Helper()
	at := func(host string) string { return host + ":" + r.port }
	refused := func(tenant, host, list string) {
		t.Helper()
		err := way.call(t.Context(), "https://"+at(host), tenant)
		want := fmt.Sprintf("add %[1]q to egress.%[2]s, or, for the tenant %[3]s alone, to its %[2]s in egress.tenants", at(host), list, tenant)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s at %s: %v, want …%s", tenant, host, err, want)
		}
		if _, asked := r.asked.LoadAndDelete(host); asked {
			t.Errorf("%s reached %s", tenant, host)
		}
	}
	for _, host := range []string{"tenant.example.com", "shy.example.com"} {
		list := map[string]string{"tenant.example.com": "allowHosts", "shy.example.com": "allowPrivate"}[host]
		refused("main", host, list)   // which has no entry
		refused("orders", host, list) // which has another
		if err := way.call(t.Context(), "https://"+at(host), "payments"); err != nil && strings.Contains(err.Error(), "not allowed") {
			t.Error(err)
		}
		if _, asked := r.asked.LoadAndDelete(host); !asked {
			t.Errorf("%s was not asked", host)
		}
		refused("main", host, list)
		refused("orders", host, list)
	}
}

// Not parallel: it changes where names lead.
func TestNoCallLeavesTheControllerForWhereItShouldNotGo(t *testing.T) {
	resolveNamed(t)
	r := newTrap(t)
	c := start(t, configure(t, fmt.Sprintf(`egress:
  caFile: %[1]s
  allowHosts: ['metadata.example.com:%[2]s', 'metadata6.example.com:%[2]s', 'linklocal.example.com:%[2]s', 'loopback.example.com:%[2]s', 'private.example.com:%[2]s',
    'away.example.com:%[2]s', 'other.example.com:%[2]s', 'endless.example.com:%[2]s', 'silent.example.com:%[2]s', 'shy.example.com:%[2]s', '169.254.169.254:%[2]s', '[fd00:ec2::254]:%[2]s', '127.0.0.1:%[2]s']
  allowPrivate: ['away.example.com:%[2]s', 'other.example.com:%[2]s', 'endless.example.com:%[2]s', 'silent.example.com:%[2]s']
  tenants:
    - {name: payments, allowHosts: ['tenant.example.com:%[2]s'], allowPrivate: ['tenant.example.com:%[2]s', 'shy.example.com:%[2]s']}
    - {name: orders, allowHosts: ['else.example.com:%[2]s']}
`, r.ca, r.port)))
	const most = 80 << 20 // the index of a chart repository, and what lies in buffers
	for _, way := range r.ways(t, c) {
		t.Run(way.name, func(t *testing.T) {
			for host, what := range map[string]string{
				"169.254.169.254": "metadata service", "[fd00:ec2::254]": "metadata service", "metadata.example.com": "metadata service", "metadata6.example.com": "",
				"linklocal.example.com": "link-local address", "loopback.example.com": "loopback address", "127.0.0.1": "loopback address", "private.example.com": "private address",
			} {
				if way.operator && (strings.HasPrefix(what, "loopback") || strings.HasPrefix(what, "private")) {
					continue
				}
				err := way.call(t.Context(), "https://"+host+":"+r.port, "main")
				if err == nil || !strings.Contains(err.Error(), what) || what != "" && !strings.Contains(err.Error(), "calls to "+host+":"+r.port+" are not allowed") {
					t.Errorf("%s: %v", host, err) // metadata6: a machine without IPv6 has another reason
				}
			}
			if _, asked := r.asked.Load("loopback.example.com"); asked {
				t.Error("a private address was called")
			}

			if !way.operator {
				r.tenants(t, way)
			}

			err := way.call(t.Context(), "https://away.example.com:"+r.port, "main")
			if err == nil || !strings.Contains(err.Error(), "other.example.com") && !strings.Contains(err.Error(), "answers 302") {
				t.Errorf("a redirect: %v", err)
			}
			if _, asked := r.asked.LoadAndDelete("other.example.com"); asked {
				t.Error("a redirect to another host was followed")
			}

			r.sent.Store(0)
			if err := way.call(t.Context(), "https://endless.example.com:"+r.port, "main"); (err == nil) != way.takes {
				t.Errorf("an endless answer: %v", err)
			}
			if _, asked := r.asked.LoadAndDelete("endless.example.com"); !asked {
				t.Error("nobody was asked for an endless answer")
			}
			if n := r.sent.Load(); n > most {
				t.Errorf("%d bytes of an endless answer were read", n)
			}

			if way.whole {
				return
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- way.call(ctx, "https://silent.example.com:"+r.port, "main") }()
			<-r.silent
			cancel()
			if err := <-ended; err == nil {
				t.Error("a server that says nothing has answered")
			}
		})
	}
}
