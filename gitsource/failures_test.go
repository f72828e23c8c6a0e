package gitsource_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"towpath/gitsource"
	"towpath/internal/testkit/gitserver"
)

func TestAFailedFetchSaysWhatToDo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	repo := gitserver.NewRepo(t, dir, "config", gitserver.Files{"a": "1"})
	overTLS := gitserver.Serve(t, dir, gitserver.Options{TLS: true, Token: "right"})
	over := gitserver.Serve(t, dir, gitserver.Options{})
	overSSH := gitserver.ServeSSH(t, dir)
	other := t.TempDir()
	gitserver.NewSSHKey(t, filepath.Join(other, "key"))
	elsewhere := gitserver.NewSSHKey(t, filepath.Join(other, "host"))
	address := strings.TrimPrefix(overSSH.URL, "ssh://git@")
	gitserver.WriteKnownHosts(t, filepath.Join(other, "other_key"), address, elsewhere.PublicKey())
	gitserver.WriteKnownHosts(t, filepath.Join(other, "other_host"), "example.com:22", elsewhere.PublicKey())
	known, err := os.ReadFile(overSSH.KnownHostsFile)
	ok(t, err)
	ok(t, os.WriteFile(filepath.Join(other, "revoked"), append([]byte("@revoked "), known...), 0o600))
	ok(t, os.WriteFile(filepath.Join(other, "garbage"), []byte("no key"), 0o600))
	ok(t, os.WriteFile(filepath.Join(other, "no_token"), []byte("\n"), 0o600))
	token := filepath.Join(other, "token")
	ok(t, os.WriteFile(token, []byte("wrong-and-secret"), 0o600))

	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	ok(t, nobody.Close())
	answering := func(status int, body string) gitsource.Config {
		s := gitserver.Serve(t, dir, gitserver.Options{})
		s.Answer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, password, _ := r.BasicAuth()
			w.WriteHeader(status)
			_, _ = io.WriteString(w, strings.ReplaceAll(body, "PASSWORD", password))
		}))
		return gitsource.Config{URL: s.URL + "/config.git", HTTP: &http.Client{Transport: s.Transport(t)}, AllowHTTP: true, Token: gitsource.TokenFile(token)}
	}
	https := func(name string, token func() (string, error)) gitsource.Config {
		return gitsource.Config{URL: overTLS.URL + name, HTTP: &http.Client{Transport: overTLS.Transport(t)}}
	}
	viaSSH := func(key, hosts, name string) gitsource.Config {
		return gitsource.Config{URL: overSSH.URL + name, Dial: gitserver.Dial, SSHKeyFile: key, KnownHostsFile: hosts}
	}
	withToken := func(c gitsource.Config, file string) gitsource.Config {
		c.Token = gitsource.TokenFile(file)
		return c
	}

	for name, c := range map[string]struct {
		config    gitsource.Config
		kind      gitsource.Kind
		temporary bool
		words     []string
	}{
		"no token":         {https("/config.git", nil), gitsource.AuthRefused, false, []string{"wants a valid token (HTTP 401)", "it said: Bad credentials"}},
		"a wrong token":    {withToken(https("/config.git", nil), token), gitsource.AuthRefused, false, []string{"check that one is set, that it has not expired"}},
		"no token file":    {withToken(https("/config.git", nil), filepath.Join(other, "none")), gitsource.Misconfigured, false, []string{"the token cannot be had", "no such file"}},
		"an empty token":   {withToken(https("/config.git", nil), filepath.Join(other, "no_token")), gitsource.Misconfigured, false, []string{"the token is empty"}},
		"unknown CA":       {gitsource.Config{URL: overTLS.URL + "/config.git", HTTP: &http.Client{Transport: over.Transport(t)}}, gitsource.Untrusted, false, []string{"signed by an authority that is not known here", "CA bundle"}},
		"TLS to plain":     {gitsource.Config{URL: strings.Replace(over.URL, "http:", "https:", 1) + "/config.git", HTTP: &http.Client{Transport: over.Transport(t)}}, gitsource.Untrusted, false, []string{"does not speak TLS on this port"}},
		"no repository":    {gitsource.Config{URL: over.URL + "/none.git", HTTP: &http.Client{Transport: over.Transport(t)}, AllowHTTP: true}, gitsource.NotFound, false, []string{"there is no such repository, or we may not see it"}},
		"forbidden":        {answering(http.StatusForbidden, "PASSWORD is no good here"), gitsource.AuthRefused, false, []string{"refused the token (HTTP 403)", "it said: *** is no good here"}},
		"overloaded":       {answering(http.StatusServiceUnavailable, "busy"), gitsource.Unreachable, true, []string{"HTTP 503 Service Unavailable; trying again later"}},
		"a page":           {answering(http.StatusOK, "<html>Log in!</html>"), gitsource.Broken, true, []string{"not how a Git server answers; check the URL"}},
		"an endless list":  {endless(t, dir), gitsource.OverLimit, false, []string{"the server's list of references", "raise the limit"}},
		"another redirect": {redirected(t, dir), gitsource.Forbidden, false, []string{"the host evil.example is not allowed"}},
		"nobody listens":   {gitsource.Config{URL: "https://" + nobody.Addr().String() + "/config.git", HTTP: &http.Client{Transport: over.Transport(t)}}, gitsource.Unreachable, true, []string{"connection refused; trying again later"}},
		"no path":          {gitsource.Config{URL: filepath.Join(dir, "none.git")}, gitsource.NotFound, false, []string{"(a bare repository, or a directory with .git in it)"}},

		"ssh: unknown host":    {viaSSH(overSSH.KeyFile, filepath.Join(other, "other_host"), "/config.git"), gitsource.HostKey, false, []string{"the SSH host key of " + address + " is not in the known hosts file"}},
		"ssh: another key":     {viaSSH(overSSH.KeyFile, filepath.Join(other, "other_key"), "/config.git"), gitsource.HostKey, false, []string{"is another than the one in the known hosts file (line 1)"}},
		"ssh: revoked":         {viaSSH(overSSH.KeyFile, filepath.Join(other, "revoked"), "/config.git"), gitsource.HostKey, false, []string{"revoked"}},
		"ssh: key refused":     {viaSSH(filepath.Join(other, "key"), overSSH.KnownHostsFile, "/config.git"), gitsource.AuthRefused, false, []string{"refused the SSH key for user git"}},
		"ssh: no key":          {viaSSH(filepath.Join(other, "none"), overSSH.KnownHostsFile, "/config.git"), gitsource.Misconfigured, false, []string{"the SSH key cannot be read"}},
		"ssh: garbage":         {viaSSH(filepath.Join(other, "garbage"), overSSH.KnownHostsFile, "/config.git"), gitsource.Misconfigured, false, []string{"is no private key"}},
		"ssh: no hosts":        {viaSSH(overSSH.KeyFile, filepath.Join(other, "none"), "/config.git"), gitsource.Misconfigured, false, []string{"the known hosts file cannot be read"}},
		"ssh: no repository":   {viaSSH(overSSH.KeyFile, overSSH.KnownHostsFile, "/none.git"), gitsource.NotFound, false, []string{"there is no such repository"}},
		"ssh: nobody listens":  {gitsource.Config{URL: "ssh://git@" + nobody.Addr().String() + "/config.git", Dial: gitserver.Dial, SSHKeyFile: overSSH.KeyFile, KnownHostsFile: overSSH.KnownHostsFile}, gitsource.Unreachable, true, []string{"connection refused"}},
		"ssh: not an SSH host": {gitsource.Config{URL: "ssh://git@" + strings.TrimPrefix(over.URL, "http://") + "/config.git", Dial: gitserver.Dial, SSHKeyFile: overSSH.KeyFile, KnownHostsFile: overSSH.KnownHostsFile}, gitsource.Unreachable, true, []string{"ended the connection before SSH had begun; check host and port"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := open(t, c.config)
			_, err := m.Fetch(t.Context())
			fails(t, err, c.kind, c.temporary, c.words...)
			if strings.Contains(err.Error(), "secret") || strings.Contains(fmt.Sprintf("%+v", errors.Unwrap(err)), "secret") {
				t.Errorf("the token is in %q", err)
			}
		})
	}
	_ = repo
}

// endless sends references without an end.
func endless(t *testing.T, dir string) gitsource.Config {
	s := gitserver.Serve(t, dir, gitserver.Options{})
	s.Answer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		line := fmt.Sprintf("%s refs/heads/b", strings.Repeat("a", 40))
		_, _ = io.WriteString(w, "001e# service=git-upload-pack\n0000")
		for i := 0; r.Context().Err() == nil; i++ {
			text := fmt.Sprintf("%s%08d\n", line, i)
			if i == 0 {
				text = fmt.Sprintf("%s%08d\x00ofs-delta\n", line, i)
			}
			if _, err := fmt.Fprintf(w, "%04x%s", len(text)+4, text); err != nil {
				return
			}
		}
	}))
	return gitsource.Config{
		URL: s.URL + "/config.git", HTTP: &http.Client{Transport: s.Transport(t)}, AllowHTTP: true,
		Limits: gitsource.Limits{ReferenceBytes: 100_000},
	}
}

// refused is how a client for outgoing calls says no.
type refused struct{ text string }

func (r refused) Error() string       { return r.text }
func (r refused) EgressRefused() bool { return true }

// redirected goes to a host that the client refuses.
func redirected(t *testing.T, dir string) gitsource.Config {
	s := gitserver.Serve(t, dir, gitserver.Options{})
	s.Answer(http.RedirectHandler("http://evil.example/config.git/info/refs?service=git-upload-pack", http.StatusFound))
	client := &http.Client{Transport: s.Transport(t), CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		return refused{"the host " + r.URL.Host + " is not allowed"}
	}}
	return gitsource.Config{URL: s.URL + "/config.git", HTTP: client, AllowHTTP: true}
}

func TestATokenIsReadAtEachFetch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	repo := gitserver.NewRepo(t, dir, "config", gitserver.Files{"a": "1"})
	s := gitserver.Serve(t, dir, gitserver.Options{TLS: true, Token: "old"})
	file := filepath.Join(t.TempDir(), "token")
	ok(t, os.WriteFile(file, []byte("old"), 0o600))
	m := open(t, gitsource.Config{URL: s.URL + "/" + repo.Name, HTTP: &http.Client{Transport: s.Transport(t)}, Token: gitsource.TokenFile(file)})
	fetch(t, m)
	s.SetToken("new")
	_, err := m.Fetch(t.Context())
	fails(t, err, gitsource.AuthRefused, false)
	ok(t, os.WriteFile(file, []byte("new"), 0o600))
	fetch(t, m)
}

func TestASilentServerIsLeft(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	repo := gitserver.NewRepo(t, dir, "config", gitserver.Files{"a": "1"})
	limits := gitsource.Limits{IdleTime: 50 * time.Millisecond}

	s := gitserver.Serve(t, dir, gitserver.Options{})
	s.Answer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	m := open(t, gitsource.Config{URL: s.URL + "/" + repo.Name, HTTP: &http.Client{Transport: s.Transport(t)}, AllowHTTP: true, Limits: limits})
	_, err := m.Fetch(t.Context())
	fails(t, err, gitsource.Unreachable, true, "the server stopped answering")

	listener, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and never says a word
	ok(t, err)
	defer listener.Close()
	overSSH := gitserver.ServeSSH(t, dir)
	m = open(t, gitsource.Config{
		URL: "ssh://git@" + listener.Addr().String() + "/config.git", Dial: gitserver.Dial, Limits: limits,
		SSHKeyFile: overSSH.KeyFile, KnownHostsFile: overSSH.KnownHostsFile,
	})
	_, err = m.Fetch(t.Context())
	fails(t, err, gitsource.Unreachable, true, "the server stopped answering")
}

// cutting ends each pack after some bytes.
type cutting struct {
	http.RoundTripper
	after int64
}

func (c *cutting) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := c.RoundTripper.RoundTrip(r)
	if err == nil && r.Method == http.MethodPost && c.after > 0 {
		answer.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(io.LimitReader(answer.Body, c.after), failing{}), answer.Body}
	}
	return answer, err
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestAFetchThatIsCutOffLeavesTheMirrorAsItWas(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	repo := gitserver.NewRepo(t, dir, "config", gitserver.Files{"a": "1", "b": strings.Repeat("text ", 1000)})
	s := gitserver.Serve(t, dir, gitserver.Options{})
	cut := &cutting{RoundTripper: s.Transport(t)}
	c := gitsource.Config{URL: s.URL + "/" + repo.Name, HTTP: &http.Client{Transport: cut}, AllowHTTP: true, Dir: filepath.Join(t.TempDir(), "m")}
	m := open(t, c)
	for _, cut.after = range []int64{20, 60, 150} { // a first fetch
		_, err := m.Fetch(t.Context())
		fails(t, err, gitsource.Unreachable, true, "was cut off; trying again later")
	}
	cut.after = 0
	first := fetch(t, m).Commit
	second := repo.Commit("more", gitserver.Files{"a": "2"})
	for _, cut.after = range []int64{20, 60, 150} { // a later one
		_, err := m.Fetch(t.Context())
		fails(t, err, gitsource.Unreachable, true, "was cut off; trying again later")
		equal(t, read(t, tree(t, m, first), "a"), "1")
	}
	cut.after = 0
	equal(t, fetch(t, m), gitsource.Head{Branch: "main", Commit: second, Previous: first})
	left, err := filepath.Glob(filepath.Join(c.Dir, "*", "objects", "pack", "tmp*"))
	ok(t, err)
	equal(t, len(left), 0)
}

// damage changes files of a mirror on disk.
func damage(t *testing.T, dir, pattern string, change func(path string)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.git", pattern))
	ok(t, err)
	if len(files) == 0 {
		t.Fatalf("the mirror has no %s", pattern)
	}
	for _, file := range files {
		ok(t, os.Chmod(file, 0o600))
		change(file)
	}
}

func TestADamagedMirrorIsBuiltAnew(t *testing.T) {
	t.Parallel()
	rewrite := func(edit func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			text, err := os.ReadFile(path)
			ok(t, err)
			ok(t, os.WriteFile(path, edit(text), 0o600))
		}
	}
	half := rewrite(func(b []byte) []byte { return b[:len(b)/2] })
	for name, c := range map[string]struct {
		pattern string
		change  func(*testing.T, string)
	}{
		"a pack is cut off":       {"objects/pack/*.pack", half},
		"an index is cut off":     {"objects/pack/*.idx", half},
		"a pack is gone":          {"objects/pack/*.pack", func(t *testing.T, path string) { ok(t, os.Remove(path)) }},
		"all packs are gone":      {"objects/pack/*", func(t *testing.T, path string) { ok(t, os.Remove(path)) }},
		"the references are junk": {"packed-refs", rewrite(func([]byte) []byte { return []byte("junk") })},
		"the references are gone": {"packed-refs", func(t *testing.T, path string) { ok(t, os.Remove(path)) }},
		"zeros in a pack": {"objects/pack/*.pack", rewrite(func(b []byte) []byte {
			return append(append(bytes.Clone(b[:12]), make([]byte, len(b)-32)...), b[len(b)-20:]...)
		})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			repo := gitserver.NewRepo(t, t.TempDir(), "config", gitserver.Files{"a": "1", "dir/b": "2"})
			config := gitsource.Config{URL: repo.Dir, Dir: filepath.Join(t.TempDir(), "m")}
			m := open(t, config)
			head := fetch(t, m).Commit
			ok(t, m.Close())
			damage(t, config.Dir, c.pattern, func(path string) { c.change(t, path) })
			m = open(t, config)
			if files, err := m.Tree(head); err == nil { // the damage shows when something is read
				_, err = files.ReadFile("dir/b")
				if err == nil {
					t.Error("a damaged mirror could be read")
				}
			}
			equal(t, fetch(t, m).Commit, head)
			equal(t, read(t, tree(t, m, head), "dir/b"), "2")
			ok(t, m.Close())
			m = open(t, config)
			equal(t, read(t, tree(t, m, head), "a"), "1")
		})
	}
}

func TestWhatACrashLeavesIsTidiedUp(t *testing.T) {
	t.Parallel()
	repo := gitserver.NewRepo(t, t.TempDir(), "config", gitserver.Files{"a": "1"})
	c := gitsource.Config{URL: repo.Dir, Dir: filepath.Join(t.TempDir(), "m")}
	m := open(t, c)
	head := fetch(t, m).Commit
	ok(t, m.Close())
	ok(t, os.CopyFS(filepath.Join(c.Dir, "building"), os.DirFS(filepath.Join(c.Dir, "1.git"))))                // cut off while building
	ok(t, os.CopyFS(filepath.Join(c.Dir, "2.git"), os.DirFS(filepath.Join(c.Dir, "1.git"))))                   // cut off before the old one was removed
	ok(t, os.WriteFile(filepath.Join(c.Dir, "2.git", "objects", "pack", "tmp-pack-1"), []byte("half"), 0o600)) // cut off while fetching
	ok(t, os.WriteFile(filepath.Join(c.Dir, "2.git", "objects", "pack", "pack-"+strings.Repeat("0", 40)+".pack"), []byte("no index yet"), 0o600))
	m = open(t, c)
	equal(t, read(t, tree(t, m, head), "a"), "1")
	var names []string
	list, err := os.ReadDir(c.Dir)
	ok(t, err)
	for _, f := range list {
		names = append(names, f.Name())
	}
	equal(t, fmt.Sprint(names), "[2.git lock]")
	next := repo.Commit("next", gitserver.Files{"a": "2"})
	equal(t, fetch(t, m).Commit, next)
}

func TestAMirrorOfAnotherRepositoryIsNotUsed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	one := gitserver.NewRepo(t, dir, "one", gitserver.Files{"a": "secret"})
	two := gitserver.NewRepo(t, dir, "two", gitserver.Files{"b": "2"})
	c := gitsource.Config{URL: one.Dir, Dir: filepath.Join(t.TempDir(), "m")}
	m := open(t, c)
	old := fetch(t, m).Commit
	ok(t, m.Close())
	c.URL = two.Dir
	m = open(t, c)
	if _, known := m.Head(); known {
		t.Error("the head of another repository is taken for this one's")
	}
	equal(t, fetch(t, m), gitsource.Head{Branch: "main", Commit: two.Head("main")})
	if _, err := m.Tree(old); !errors.Is(err, gitsource.ErrUnknownCommit) {
		t.Errorf("a commit of the other repository: %v", err)
	}
}

func TestManyPacksBecomeOne(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	repo := gitserver.NewRepo(t, dir, "config", gitserver.Files{"a": "0", "dir/b": "2"})
	s := gitserver.Serve(t, dir, gitserver.Options{})
	c := gitsource.Config{
		URL: s.URL + "/" + repo.Name, HTTP: &http.Client{Transport: s.Transport(t)}, AllowHTTP: true, Dir: filepath.Join(t.TempDir(), "m"),
		Limits: gitsource.Limits{Packs: 3},
	}
	m := open(t, c)
	first := fetch(t, m).Commit
	held := tree(t, m, first)
	packs := func() int {
		list, err := filepath.Glob(filepath.Join(c.Dir, "*.git", "objects", "pack", "*.pack"))
		ok(t, err)
		return len(list)
	}
	last := first
	for i := range 3 {
		last = repo.Commit("next", gitserver.Files{"a": fmt.Sprint(i + 1)})
		equal(t, fetch(t, m).Commit, last)
	}
	equal(t, packs(), 4)
	if head := fetch(t, m); head.Moved() { // with nothing to fetch there is time for it
		t.Errorf("the head moved: %+v", head)
	}
	equal(t, packs(), 1)
	equal(t, read(t, held, "dir/b"), "2") // by the files that are still open
	changed, err := m.Changed(first, last)
	ok(t, err)
	equal(t, fmt.Sprint(changed), "[a]")
	ok(t, m.Close())
	m = open(t, c)
	equal(t, read(t, tree(t, m, last), "a"), "3")
}

// servePack answers a fetch of a commit with a pack of the test's own making.
func servePack(t *testing.T, head string, pack []byte) gitsource.Config {
	t.Helper()
	s := gitserver.Serve(t, t.TempDir(), gitserver.Options{})
	line := func(text string) string { return fmt.Sprintf("%04x%s", len(text)+4, text) }
	s.Answer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, line("# service=git-upload-pack\n")+"0000"+line(head+" refs/heads/main\x00symref=HEAD:refs/heads/main ofs-delta\n")+"0000")
			return
		}
		_, _ = io.WriteString(w, line("NAK\n"))
		_, _ = w.Write(pack)
	}))
	return gitsource.Config{URL: s.URL + "/config.git", HTTP: &http.Client{Transport: s.Transport(t)}, AllowHTTP: true, Branch: "main"}
}

func TestAPackOverALimitIsRefused(t *testing.T) {
	t.Parallel()
	repo := gitserver.NewRepo(t, t.TempDir(), "config", gitserver.Files{"zeros": strings.Repeat("\x00", 5_000_000), "a": "1"})
	second := repo.Commit("a delta", gitserver.Files{"zeros": strings.Repeat("\x00", 5_000_000) + "1"})
	pack := []byte(repo.GitInput([]byte(second+"\n"), "pack-objects", "--revs", "--stdout", "-q") + "")
	if n := len(pack); n > 50_000 {
		t.Fatalf("the pack has %d bytes: no bomb at all", n)
	}
	for name, c := range map[string]struct {
		limits gitsource.Limits
		text   string
	}{
		"a long object": {gitsource.Limits{ObjectBytes: 1_000_000}, "bytes, at most 1000000; raise the limit of this repository"},
		"many objects":  {gitsource.Limits{Objects: 3}, "the pack has 7 objects, at most 3"},
		"much in all":   {gitsource.Limits{UnpackedBytes: 7_000_000}, "unpacks to more than 7000000 bytes"},
		"a long pack":   {gitsource.Limits{PackBytes: 100}, "the pack has more than 100 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := servePack(t, second, pack)
			config.Limits = c.limits
			_, err := open(t, config).Fetch(t.Context())
			fails(t, err, gitsource.OverLimit, false, c.text)
			if !errors.Is(err, gitsource.ErrTooLarge) {
				t.Errorf("%v does not wrap ErrTooLarge", err)
			}
		})
	}
	t.Run("no limit is met", func(t *testing.T) {
		t.Parallel()
		m := open(t, servePack(t, second, pack))
		equal(t, fetch(t, m).Commit, second)
		equal(t, read(t, tree(t, m, second), "a"), "1")
	})
}

func TestAPackThatLiesIsRefused(t *testing.T) {
	t.Parallel()
	repo := gitserver.NewRepo(t, t.TempDir(), "config", gitserver.Files{"a": "1", "dir/b": strings.Repeat("text\n", 100)})
	head := repo.Head("main")
	blob := repo.Git("rev-parse", "main:dir/b")
	objects := strings.Fields(repo.Git("rev-list", "--objects", "--no-object-names", head))
	without := strings.ReplaceAll(strings.Join(objects, "\n"), blob, "")
	whole := []byte(repo.GitInput([]byte(strings.Join(objects, "\n")+"\n"), "pack-objects", "--stdout", "-q"))
	lacking := []byte(repo.GitInput([]byte(strings.TrimSpace(without)+"\n"), "pack-objects", "--stdout", "-q"))
	edit := func(change func(b []byte) []byte) []byte { return change(bytes.Clone(whole)) }
	for name, c := range map[string]struct {
		pack []byte
		text string
	}{
		"a file is missing":    {lacking, "an object is missing: " + blob},
		"not a pack":           {[]byte("this is not a pack at all"), "the pack cannot be read"},
		"another version":      {edit(func(b []byte) []byte { b[7] = 9; return b }), "the pack cannot be read"},
		"more than it says":    {edit(func(b []byte) []byte { binary.BigEndian.PutUint32(b[8:], 1); return b }), "the pack cannot be read"},
		"a byte is another":    {edit(func(b []byte) []byte { b[len(b)/2] ^= 0xff; return b }), "the pack cannot be read"},
		"the sum is another":   {edit(func(b []byte) []byte { b[len(b)-1] ^= 0xff; return b }), "the pack cannot be read"},
		"the commit is absent": {[]byte(repo.GitInput([]byte(blob+"\n"), "pack-objects", "--stdout", "-q")), "an object is missing: " + head},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := open(t, servePack(t, head, c.pack))
			_, err := m.Fetch(t.Context())
			fails(t, err, gitsource.Broken, true, c.text)
			if _, known := m.Head(); known {
				t.Error("there is a head")
			}
		})
	}
}
