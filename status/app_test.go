package status_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"towpath/internal/testkit/github"
	"towpath/status"
)

const commit = "6dcb09b5b57875f334f61aebed695e2e4193db5e"

// keys are made once: that takes a while.
var keys = sync.OnceValue(func() [2]*rsa.PrivateKey {
	var made [2]*rsa.PrivateKey
	for i := range made {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		made[i] = key
	}
	return made
})

func write(t *testing.T, file string, key *rsa.PrivateKey) {
	t.Helper()
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// installed is a GitHub with an App on acme/web and acme/shop, and the App as we know it.
type installed struct {
	*github.GitHub
	app          *status.App
	told         *status.GitHub
	file         string
	installation int64
}

func install(t *testing.T) *installed {
	t.Helper()
	i := &installed{GitHub: github.New(t), file: filepath.Join(t.TempDir(), "key")}
	write(t, i.file, keys()[0])
	i.Repository("acme/web", commit)
	i.Repository("acme/shop", commit)
	i.App(7, "towpath", &keys()[0].PublicKey)
	i.installation = i.Install(7, github.Rights{"metadata": "read", "statuses": "write", "contents": "read"}, "acme/web", "acme/shop")
	var err error
	i.app, err = status.NewApp(status.AppConfig{Name: "ours", ID: 7, KeyFile: i.file, APIURL: i.URL, HTTP: i.Client(), Clock: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	if i.told, err = status.NewGitHub(status.GitHubConfig{App: i.app}); err != nil {
		t.Fatal(err)
	}
	return i
}

func (i *installed) tell(t *testing.T, repository, context string) error {
	return i.told.Create(t.Context(), repository, commit, status.Status{Context: context, State: "success"})
}

// asked is the requests with a method whose path ends so.
func (i *installed) asked(method, end string) (n int) {
	for _, r := range i.Requests() {
		if r.Method == method && strings.HasSuffix(r.Path, end) {
			n++
		}
	}
	return n
}

func expectTold(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("not told: %v", err)
	}
}

// expectFailure wants a failure of a kind whose text holds all of the words.
func expectFailure(t *testing.T, err error, kind status.FailureKind, words ...string) {
	t.Helper()
	var f *status.Failure
	if !errors.As(err, &f) || f.Kind != kind || f.Unsure {
		t.Errorf("got %#v, want a sure failure of kind %d", err, kind)
		return
	}
	for _, w := range words {
		if !strings.Contains(f.Text, w) {
			t.Errorf("%q does not say %q", f.Text, w)
		}
	}
}

func TestATokenIsForOneRepositoryAndForWhatIsDoneThere(t *testing.T) {
	t.Parallel()
	i := install(t)
	expectTold(t, i.tell(t, "acme/web", "a"))
	expectTold(t, i.tell(t, "Acme/Web", "b"))
	expectTold(t, i.tell(t, "acme/shop", "c"))
	if _, err := i.told.Latest(t.Context(), "acme/web", commit); err != nil {
		t.Error(err)
	}
	if _, err := i.app.Access(t.Context(), "acme/web", status.Permissions{"contents": "read"}); err != nil {
		t.Error(err)
	}
	var given []string
	for _, token := range i.Issued() {
		given = append(given, strings.Join(token.Repositories, " ")+" "+status.Permissions(token.May).String())
	}
	if want := []string{"acme/web statuses: write", "acme/shop statuses: write", "acme/web contents: read"}; !slices.Equal(given, want) {
		t.Errorf("tokens were given for %q, want %q", given, want)
	}
	if by := i.Statuses("acme/web", commit)[0].Creator; by != "towpath[bot]" {
		t.Errorf("told by %s", by)
	}
}

func TestATokenIsRenewedAfterFiftyMinutesByOneOfThoseWhoWantIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := install(t)
		many := func() {
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() { expectTold(t, i.tell(t, "acme/web", "a")) })
			}
			all.Wait()
		}
		many()
		time.Sleep(49 * time.Minute)
		many()
		if n := len(i.Issued()); n != 1 {
			t.Errorf("%d tokens within 49 minutes", n)
		}
		time.Sleep(2 * time.Minute)
		i.Always(github.Broken(http.StatusBadGateway)) // the former one is still good
		if _, err := i.app.Access(t.Context(), "acme/web", status.Permissions{"statuses": "write"}); err != nil {
			t.Errorf("a token that is good for nine more minutes is not used: %v", err)
		}
		i.Always(nil)
		many()
		if n := len(i.Issued()); n != 2 {
			t.Errorf("%d tokens after 51 minutes", n)
		}
		i.Always(github.Broken(http.StatusBadGateway))
		time.Sleep(time.Hour)
		expectFailure(t, i.tell(t, "acme/web", "a"), status.Trouble, "a token of the App ours for acme/web (statuses: write): GitHub answers 502")
		if n := i.asked(http.MethodGet, "/installation"); n != 1 {
			t.Errorf("the installation was looked up %d times", n)
		}
	})
}

func TestATokenThatWasTakenBackIsReplacedOnce(t *testing.T) {
	t.Parallel()
	i := install(t)
	expectTold(t, i.tell(t, "acme/web", "a"))
	i.EndTokens()
	expectTold(t, i.tell(t, "acme/web", "b"))
	if n := len(i.Issued()); n != 2 {
		t.Errorf("%d tokens", n)
	}
	i.Always(github.Refused(http.StatusUnauthorized, "Bad credentials"))
	before := len(i.Requests())
	err := i.tell(t, "acme/web", "c")
	expectFailure(t, err, status.Trouble, "GitHub answers 401: Bad credentials; check appID and privateKeyFile of the App ours")
	if n := len(i.Requests()) - before; n != 2 { // the status, the lookup with the App's own token
		t.Errorf("asked %d times", n)
	}
}

func TestANewKeyCountsAtOnce(t *testing.T) {
	t.Parallel()
	i := install(t)
	expectTold(t, i.tell(t, "acme/web", "a"))
	i.App(7, "towpath", &keys()[1].PublicKey)
	i.EndTokens()
	expectFailure(t, i.tell(t, "acme/web", "b"), status.Trouble, "the installation of the App ours on acme/web: GitHub answers 401: A JSON web token could not be decoded; check appID and privateKeyFile of the App ours, and this machine's clock")
	write(t, i.file, keys()[1])
	expectTold(t, i.tell(t, "acme/web", "b"))
	if err := os.WriteFile(i.file, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	expectFailure(t, i.tell(t, "acme/shop", "b"), status.Trouble, "github.apps ours: privateKeyFile: "+i.file+" holds no PEM")
}

func TestARepositoryIsFoundAnewWhereverItGoes(t *testing.T) {
	t.Parallel()
	i := install(t)
	expectTold(t, i.tell(t, "acme/web", "a"))
	i.Rename("acme/web", "acme/site")
	expectTold(t, i.tell(t, "acme/web", "b"))
	i.Uninstall(i.installation)
	expectFailure(t, i.tell(t, "acme/web", "c"), status.Refused, "the installation of the App ours on acme/web: GitHub answers 404: there is none; install the App on the repository")
	i.Install(7, github.Rights{"statuses": "write"}, "acme/site")
	expectTold(t, i.tell(t, "acme/web", "c"))
	again, err := status.NewApp(status.AppConfig{Name: "ours", ID: 7, KeyFile: i.file, APIURL: i.URL, HTTP: i.Client(), Clock: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	access, err := again.Access(t.Context(), "acme/web", status.Permissions{"statuses": "write"}) // as after a restart
	if err != nil || access.Repository != "acme/site" {
		t.Errorf("access to %s, %v", access.Repository, err)
	}
	if told := i.Shown("acme/site", commit); len(told) != 3 {
		t.Errorf("told are %v", told)
	}
}

func TestWhatAnInstallationMayNotIsRefusedAndSaidWhy(t *testing.T) {
	t.Parallel()
	i := install(t)
	_, err := i.app.Access(t.Context(), "acme/web", status.Permissions{"checks": "write"})
	expectFailure(t, err, status.Refused, "a token of the App ours for acme/web (checks: write): GitHub answers 422: The permissions requested are not granted to this installation.")
	i.Suspend(i.installation)
	expectFailure(t, i.tell(t, "acme/web", "a"), status.Refused, "GitHub answers 403: This installation has been suspended; is the App ours installed there, with the permissions it asks for accepted?")
	_, err = i.app.Access(t.Context(), "acme/other", status.Permissions{"statuses": "write"})
	expectFailure(t, err, status.Refused, "on acme/other: GitHub answers 404")
	i.Next(github.TooMuch(http.StatusForbidden, time.Minute))
	_, err = i.app.Access(t.Context(), "acme/shop", status.Permissions{"statuses": "write"})
	expectFailure(t, err, status.Limited, "secondary rate limit")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = i.app.Access(ended, "acme/shop", status.Permissions{"statuses": "write"}); err == nil {
		t.Error("access after the end")
	}
}
