package charts_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"towpath/internal/egress"
	"towpath/internal/testkit/registry"
	"towpath/internal/testkit/rendertools"
	"towpath/render/charts"
)

// book is what a store keeps.
type book struct {
	mu   sync.Mutex
	kept map[string][]byte
}

func (b *book) Kept(_ context.Context, name string) ([]byte, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	content, found := b.kept[name]
	return content, found, nil
}

func (b *book) Keep(_ context.Context, name string, content []byte) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.kept == nil {
		b.kept = map[string][]byte{}
	}
	if b.kept[name] == nil {
		b.kept[name] = content
	}
	return b.kept[name], nil
}

// world is a chart repository over HTTPS that asks for a password below /private, and what is set up around it.
type world struct {
	t     *testing.T
	site  *httptest.Server
	dir   string // that is served
	pins  *book
	cache string
	clock time.Time

	mu       sync.Mutex
	requests []string
}

const user, password = "robot", "a password of a test"

func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir(), pins: &book{}, cache: t.TempDir(), clock: time.Now()}
	files := http.FileServer(http.Dir(w.dir))
	w.site = httptest.NewTLSServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.requests = append(w.requests, r.URL.Path)
		w.mu.Unlock()
		if name, word, _ := r.BasicAuth(); strings.HasPrefix(r.URL.Path, "/private/") && (name != user || word != password) {
			http.Error(out, "who are you?", http.StatusUnauthorized)
			return
		}
		files.ServeHTTP(out, r)
	}))
	t.Cleanup(w.site.Close)
	return w
}

// asked is how many requests came since it was last called.
func (w *world) asked() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer func() { w.requests = nil }()
	return len(w.requests)
}

func (w *world) fetcher(change ...func(*egress.Config, *charts.Config)) *charts.Fetcher {
	w.t.Helper()
	host := strings.TrimPrefix(w.site.URL, "https://")
	out := egress.Config{AllowHosts: []string{host}, AllowPrivate: []string{host}, CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.site.Certificate().Raw})}
	secret := filepath.Join(w.t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte(password+"\n"), 0o600); err != nil {
		w.t.Fatal(err)
	}
	config := charts.Config{Pins: w.pins, Dir: w.cache, Clock: func() time.Time { return w.clock },
		Credentials: []charts.Credential{{URL: w.site.URL + "/private", Username: user, PasswordFile: secret}}}
	for _, c := range change {
		c(&out, &config)
	}
	client, err := egress.New(out)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(client.Close)
	config.HTTP = client.HTTP()
	return charts.New(config)
}

func run(t *testing.T, program string, args ...string) {
	t.Helper()
	command := exec.CommandContext(t.Context(), program, args...)
	command.Env = append(os.Environ(), "HOME="+t.TempDir())
	if said, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, said)
	}
}

// publish packages versions of a chart into a folder of the site and indexes it, with helm itself.
func (w *world) publish(folder, chart, content string, versions ...string) {
	w.t.Helper()
	helm := rendertools.Build(w.t).Helm
	at := filepath.Join(w.dir, folder)
	for _, version := range versions {
		run(w.t, helm, "package", "--destination", at, source(w.t, chart, version, content))
	}
	run(w.t, helm, "repo", "index", at)
}

// source is a chart's directory.
func source(t *testing.T, chart, version, content string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), chart)
	if err := os.MkdirAll(filepath.Join(dir, "templates"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"Chart.yaml":       fmt.Sprintf("apiVersion: v2\nname: %s\nversion: %s\ndescription: |\n  several\n\n  lines: of text\n", chart, version),
		"templates/c.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {content: " + content + "}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func digestOf(archive []byte) string {
	sum := sha256.Sum256(archive)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func TestAChartOfARepositoryIsFetchedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish("charts", "web", "first", "1.2.3", "1.3.0+build.7")
	w.publish("charts", "other", "first", "9.0.0")
	want, err := os.ReadFile(filepath.Join(w.dir, "charts/web-1.2.3.tgz"))
	if err != nil {
		t.Fatal(err)
	}
	for round, f := range []*charts.Fetcher{w.fetcher(), w.fetcher()} {
		archive, digest, err := f.Chart(t.Context(), w.site.URL+"/charts/", "web", "1.2.3")
		if err != nil || !bytes.Equal(archive, want) || digest != digestOf(want) {
			t.Fatalf("got %d bytes, %s, %v", len(archive), digest, err)
		}
		if n, most := w.asked(), []int{2, 0}[round]; n != most {
			t.Errorf("fetcher %d: %d requests, want %d: a pinned version that is kept needs none, after a restart too", round, n, most)
		}
	}
	if archive, _, err := w.fetcher().Chart(t.Context(), w.site.URL+"/charts", "web", "1.3.0+build.7"); err != nil || len(archive) == 0 {
		t.Errorf("a version with build metadata: %v", err)
	}
	if _, _, err := w.fetcher().Chart(t.Context(), w.site.URL+"/charts", "web", "1.2.3@"+digestOf(want)); err != nil {
		t.Errorf("the very digest that it has: %v", err)
	}
}

func TestManyWhoWantOneChartShareItsFetch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish("charts", "web", "first", "1.2.3")
	f := w.fetcher()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if _, _, err := f.Chart(t.Context(), w.site.URL+"/charts", "web", "1.2.3"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := w.asked(); n != 2 {
		t.Errorf("%d requests, want one for the index and one for the chart", n)
	}
}

func TestAChangedVersionIsAnErrorAndMayBeTakenByItsDigest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish("charts", "web", "first", "1.2.3")
	_, first, err := w.fetcher().Chart(t.Context(), w.site.URL+"/charts", "web", "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	w.publish("charts", "web", "second", "1.2.3")
	if err := os.RemoveAll(w.cache); err != nil { // what is kept on disk may be lost
		t.Fatal(err)
	}
	_, _, err = w.fetcher().Chart(t.Context(), w.site.URL+"/charts", "web", "1.2.3")
	changed, _ := os.ReadFile(filepath.Join(w.dir, "charts/web-1.2.3.tgz"))
	want := fmt.Sprintf("this version is not what it was when it was first used (%s then, %s now), and a published version does not change; use another one, or, if this content is right, write version: 1.2.3@%s",
		first, digestOf(changed), digestOf(changed))
	if err == nil || err.Error() != want {
		t.Fatalf("%v\nwant\n%s", err, want)
	}
	if _, digest, err := w.fetcher().Chart(t.Context(), w.site.URL+"/charts", "web", "1.2.3@"+digestOf(changed)); err != nil || digest != digestOf(changed) {
		t.Errorf("by its digest: %s %v", digest, err)
	}
	if _, _, err := w.fetcher().Chart(t.Context(), w.site.URL+"/charts", "web", "1.2.3@"+first); err == nil || !strings.Contains(err.Error(), "not the "+first+" that was asked for") {
		t.Errorf("by the digest that it no longer has: %v", err)
	}
}

func TestWhatCannotBeFetchedSaysWhy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish("charts", "web", "first", "1.0.0", "1.1.0", "1.2.0", "1.3.0", "2.0.0", "3.0.0", "4.0.0")
	w.publish("charts", "worker", "first", "1.0.0")
	w.publish("private", "web", "first", "1.0.0")
	host := strings.TrimPrefix(w.site.URL, "https://")
	index, err := os.ReadFile(filepath.Join(w.dir, "charts/index.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for folder, text := range map[string]string{
		"broken": "entries:\n  web:\n  - [\n",
		"flow":   "{entries: {web: []}}",
		"false":  string(bytes.ReplaceAll(index, []byte("digest: "), []byte("digest: 00"))),
	} {
		if err := errorsOf(os.MkdirAll(filepath.Join(w.dir, folder), 0o755), os.WriteFile(filepath.Join(w.dir, folder, "index.yaml"), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	run(t, "cp", filepath.Join(w.dir, "charts/web-1.0.0.tgz"), filepath.Join(w.dir, "false/web-1.0.0.tgz"))
	for name, c := range map[string]struct {
		change                     func(*egress.Config, *charts.Config)
		repository, chart, version string
		want                       string
	}{
		"a host that is not allowed":   {func(e *egress.Config, _ *charts.Config) { e.AllowHosts = nil }, w.site.URL, "web", "1.0.0", fmt.Sprintf("calls to %s are not allowed; if they shall be, add %q to egress.allowHosts", host, host)},
		"an address inside":            {func(e *egress.Config, _ *charts.Config) { e.AllowPrivate = nil }, w.site.URL, "web", "1.0.0", fmt.Sprintf("it is a loopback address; if it shall be called, add %q to egress.allowPrivate", host)},
		"a version that is not there":  {nil, w.site.URL + "/charts", "web", "1.2.7", "web has no version 1.2.7; the nearest are 2.0.0, 1.3.0, 1.2.0, 1.1.0, 1.0.0"},
		"a chart that is not there":    {nil, w.site.URL + "/charts", "webb", "1.0.0", "/charts has no chart webb; it has web, worker"},
		"a range":                      {nil, w.site.URL + "/charts", "web", "^1.0", `version "^1.0" is not exact; a range would bring another chart on another day, so write one version, as 1.2.3`},
		"half a digest":                {nil, w.site.URL + "/charts", "web", "1.0.0@sha256:12", "after the @ stands sha256: and 64 hexadecimal digits"},
		"no repository":                {nil, w.site.URL + "/nowhere", "web", "1.0.0", "nothing is at " + w.site.URL + "/nowhere/index.yaml"},
		"no credentials":               {func(_ *egress.Config, c *charts.Config) { c.Credentials = nil }, w.site.URL + "/private", "web", "1.0.0", "/private/index.yaml wants other credentials (401); the controller's are under charts.credentials of its configuration"},
		"a password file that is gone": {func(_ *egress.Config, c *charts.Config) { c.Credentials[0].PasswordFile = "/nowhere" }, w.site.URL + "/private", "web", "1.0.0", "the password for " + w.site.URL + "/private cannot be read"},
		"an index that is broken":      {nil, w.site.URL + "/broken", "web", "1.0.0", "/broken/index.yaml: the part of web is not valid YAML"},
		"an index of another form":     {nil, w.site.URL + "/flow", "web", "1.0.0", "/flow has no chart web; it has none"},
		"an index that does not agree": {nil, w.site.URL + "/false", "web", "1.0.0", "and the index of " + w.site.URL + "/false says sha256:00"},
		"an index that is too large":   {func(_ *egress.Config, c *charts.Config) { c.IndexBytes = 100 }, w.site.URL + "/charts", "web", "1.0.0", "index.yaml has more than the 100 bytes that are taken"},
		"a chart that is too large":    {func(_ *egress.Config, c *charts.Config) { c.ArchiveBytes = 100 }, w.site.URL + "/charts", "web", "1.0.0", "web-1.0.0.tgz has more than the 100 bytes that are taken"},
	} {
		t.Run(name, func(t *testing.T) {
			f := w.fetcher()
			if c.change != nil {
				f = w.fetcher(c.change)
			}
			if _, _, err := f.Chart(t.Context(), c.repository, c.chart, c.version); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v\nwant\n%s", err, c.want)
			}
		})
	}
	if _, _, err := w.fetcher().Chart(t.Context(), w.site.URL+"/private", "web", "1.0.0"); err != nil {
		t.Errorf("with credentials: %v", err)
	}
}

func errorsOf(all ...error) error {
	for _, err := range all {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestAFailureIsRememberedForAWhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish("charts", "web", "first", "1.0.0")
	f := w.fetcher()
	want := func(found bool, requests int) {
		t.Helper()
		if _, _, err := f.Chart(t.Context(), w.site.URL+"/charts", "web", "1.1.0"); (err == nil) != found {
			t.Error(err)
		}
		if n := w.asked(); n != requests {
			t.Errorf("%d requests, want %d", n, requests)
		}
	}
	want(false, 1)
	w.publish("charts", "web", "first", "1.1.0")
	want(false, 0)
	w.clock = w.clock.Add(time.Minute)
	want(true, 2)
}

func TestTheCacheKeepsToItsSizeAndSeesDamage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish("charts", "web", "first", "1.0.0", "2.0.0", "3.0.0")
	f := w.fetcher(func(_ *egress.Config, c *charts.Config) { c.CacheBytes = 700 })
	get := func(version string) int {
		t.Helper()
		w.asked()
		if _, _, err := f.Chart(t.Context(), w.site.URL+"/charts", "web", version); err != nil {
			t.Fatal(err)
		}
		return w.asked()
	}
	get("1.0.0")
	get("2.0.0")
	if n := get("1.0.0"); n != 0 { // used again, so it stays
		t.Errorf("%d requests for what is kept", n)
	}
	get("3.0.0")
	kept, err := os.ReadDir(w.cache)
	if err != nil || len(kept) != 2 {
		t.Errorf("%d charts are kept, want the two that have room (%v)", len(kept), err)
	}
	if n := get("1.0.0"); n != 0 {
		t.Error("the one that was used last was dropped")
	}
	for _, file := range kept {
		if err := os.WriteFile(filepath.Join(w.cache, file.Name()), []byte("damaged"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if n := get("1.0.0"); n != 2 {
		t.Errorf("%d requests for what is damaged, want it fetched again", n)
	}
}

func TestChartsOfARegistry(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	helm, host := rendertools.Build(t).Helm, registry.Start(t)
	login := filepath.Join(t.TempDir(), "login.json")
	run(t, helm, "registry", "login", host, "--plain-http", "--registry-config", login, "-u", registry.User, "-p", registry.Password)
	push := func(chart, version, content string) {
		t.Helper()
		packed := t.TempDir()
		run(t, helm, "package", "--destination", packed, source(t, chart, version, content))
		run(t, helm, "push", filepath.Join(packed, chart+"-"+version+".tgz"), "oci://"+host+"/team", "--plain-http", "--registry-config", login)
	}
	push("web", "1.0.0", "first")
	push("web", "1.1.0+build.7", "first")
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte(registry.Password), 0o600); err != nil {
		t.Fatal(err)
	}
	allowed := func(e *egress.Config, c *charts.Config) {
		e.AllowHosts, e.AllowPrivate = []string{host}, []string{host}
		c.Credentials = []charts.Credential{{URL: "oci://" + host + "/team", Username: registry.User, PasswordFile: secret}}
	}
	stranger := func(e *egress.Config, c *charts.Config) { // to whom nothing is kept
		allowed(e, c)
		c.Dir, c.Pins = t.TempDir(), &book{}
	}
	chart := "oci://" + host + "/team/web"
	archive, digest, err := w.fetcher(allowed).Chart(t.Context(), "", chart, "1.0.0")
	if err != nil || digest != digestOf(archive) {
		t.Fatal(digest, err)
	}
	if _, _, err := w.fetcher(allowed).Chart(t.Context(), "", chart, "1.1.0+build.7"); err != nil {
		t.Errorf("a version with build metadata: %v", err)
	}
	for name, c := range map[string]struct {
		change         func(*egress.Config, *charts.Config)
		chart, version string
		want           string
	}{
		"a version that is not there": {allowed, chart, "1.0.1", "/team/web has no version 1.0.1; the nearest are 1.1.0+build.7, 1.0.0"},
		"a chart that is not there":   {allowed, "oci://" + host + "/team/other", "1.0.0", "/team/other is not in its registry"},
		"a digest that is not there":  {allowed, chart, "1.0.0@" + digestOf([]byte("x")), "has nothing with the digest"},
		"no credentials":              {func(e *egress.Config, c *charts.Config) { stranger(e, c); c.Credentials = nil }, chart, "1.0.0", "wants other credentials (401)"},
		"a host that is not allowed":  {func(*egress.Config, *charts.Config) {}, chart, "1.0.1", fmt.Sprintf("add %q to egress.allowHosts", host)},
		"a tag in the name":           {allowed, chart + ":1.0.0", "1.0.0", "is written oci://HOST/PATH, without a tag"},
		"one that is too large":       {func(e *egress.Config, c *charts.Config) { stranger(e, c); c.ArchiveBytes = 100 }, chart, "1.0.0", "bytes; at most 100 are taken"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := w.fetcher(c.change).Chart(t.Context(), "", c.chart, c.version); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v\nwant\n%s", err, c.want)
			}
		})
	}
	push("web", "1.0.0", "second")
	if err := os.RemoveAll(w.cache); err != nil {
		t.Fatal(err)
	}
	_, _, err = w.fetcher(allowed).Chart(t.Context(), "", chart, "1.0.0")
	if err == nil || !strings.Contains(err.Error(), "this version is not what it was when it was first used") {
		t.Fatalf("a tag that was moved: %v", err)
	}
	_, named, _ := strings.Cut(err.Error(), "write version: ")
	if again, _, err := w.fetcher(allowed).Chart(t.Context(), "", chart, named); err != nil || bytes.Equal(again, archive) {
		t.Errorf("by the digest that the message names, %s: %v", named, err)
	}
}
