package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"towpath/cmd/towpath-controller/config"
	hub "towpath/internal/testkit/github"
	"towpath/internal/testkit/gitserver"
	"towpath/status"
	"towpath/store"
)

// road leads deliveries to a controller, unless it is closed.
type road struct {
	closed atomic.Bool
	inner  *http.Client
}

func (w *road) RoundTrip(r *http.Request) (*http.Response, error) {
	if w.closed.Load() {
		return nil, errors.New("no road")
	}
	return w.inner.Do(r.Clone(r.Context()))
}

// appWatcher is a controller that follows a repository on a GitHub as an App that is installed there.
type appWatcher struct {
	*watcher
	hub     *hub.GitHub
	road    *road
	dir     string // of the App's key and secrets
	config  *config.Config
	install int64
}

const appID = 7

// newKey gives the App a key, in place of one that it had.
func (w *appWatcher) newKey() {
	w.t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(w.t, err)
	w.hub.App(appID, "towpath", &key.PublicKey)
	must(w.t, os.WriteFile(filepath.Join(w.dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}), 0o600))
}

// asApp follows acme/repo, whose first commit holds an application.
func asApp(t *testing.T) *appWatcher {
	t.Helper()
	dir := t.TempDir()
	w := &appWatcher{watcher: &watcher{t: t}, hub: hub.Start(t), road: &road{}, dir: dir}
	w.repository = gitserver.NewRepo(t, filepath.Join(dir, "git"), "repo", application("shop", "shop", ""))
	w.hub.Repository("acme/repo", w.repository.Head("main"))
	w.newKey()
	w.install = w.hub.Install(appID, hub.Rights{"metadata": "read", "contents": "read", "statuses": "write", "checks": "write", "pull_requests": "write"}, "acme/repo")
	served := gitserver.Serve(t, filepath.Join(dir, "git"), gitserver.Options{Accepts: func(token string) bool { return w.hub.Good(token, "acme/repo") }})
	for _, name := range []string{"old", "new"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(name+"-secret\n"), 0o600))
	}
	w.config = configure(t, fmt.Sprintf(`
github: {apps: [{name: us, appID: %d, privateKeyFile: %s/key.pem, apiURL: %q, webhookSecretFiles: [%s/old, %s/new], perMinute: 100000, perHour: 1000000}]}
sources: [{name: repo, url: %s/%s, branch: main, schedule: '@every 1h', auth: {githubApp: us}, github: {repository: acme/repo, app: us}, %s}]
`, appID, dir, w.hub.URL, dir, dir, served.URL, w.repository.Name, everywhere))
	w.controller = start(t, w.config)
	w.road.inner = w.client
	w.hub.Hook(appID, "https://"+w.Address+status.HookPath, "new-secret", &http.Client{Transport: w.road})
	w.taken(w.repository.Head("main"))
	return w
}

// push makes a commit and has GitHub say so; it returns once the commit is taken in.
func (w *appWatcher) push(name string) {
	w.t.Helper()
	commit := w.repository.Commit(name, application(name, name, ""))
	w.hub.Repository("acme/repo", commit)
	if _, answered := w.hub.Emit(appID, "push", "acme/repo", map[string]any{"ref": "refs/heads/main"}); answered != http.StatusAccepted {
		w.t.Fatalf("the push of %s is answered with %d", name, answered)
	}
	w.taken(commit)
	w.shown(commit, name)
}

// shown waits until a commit shows a status of an application.
func (w *appWatcher) shown(commit, name string) {
	w.t.Helper()
	await(w.t, "a status of "+name, func() bool { return w.hub.Shown("acme/repo", commit)["towpath/"+name].Creator == "towpath[bot]" })
}

// recorded reports whether a delivery of the App is.
func (w *appWatcher) recorded(guid string) bool {
	w.t.Helper()
	fresh, err := w.store.Deliver(w.t.Context(), "github.apps us", guid, "push", []byte{}, store.Hints{})
	must(w.t, err)
	return !fresh
}

func TestAnAppFetchesAndTellsWithTokensOfTheLeastRightsAndHearsOfPushes(t *testing.T) {
	t.Parallel()
	w := asApp(t)
	w.shown(w.repository.Head("main"), "shop")
	w.push("first")
	given := map[string]bool{}
	for _, token := range w.hub.Issued() {
		given[strings.Join(token.Repositories, " ")+" "+status.Permissions(token.May).String()] = true
	}
	if len(given) != 2 || !given["acme/repo contents: read"] || !given["acme/repo statuses: write"] {
		t.Errorf("tokens were given for %v", given)
	}
	tokens := len(w.hub.Issued())
	w.push("second")
	if n := len(w.hub.Issued()); n != tokens {
		t.Errorf("%d tokens were asked for while others were good", n-tokens)
	}
	w.hub.EndTokens()
	w.push("after-an-hour")
	if n := len(w.hub.Issued()); n != tokens+2 {
		t.Errorf("%d tokens in place of two that ended", n-tokens)
	}
	w.newKey()
	w.hub.EndTokens()
	w.push("with-a-new-key")
	w.hub.Rename("acme/repo", "acme/site")
	if _, answered := w.hub.Emit(appID, "repository", "acme/repo", map[string]any{"action": "renamed", "changes": map[string]any{"repository": map[string]any{"name": map[string]any{"from": "repo"}}}}); answered != http.StatusAccepted {
		t.Errorf("the new name is answered with %d", answered)
	}
	commit := w.repository.Commit("renamed", application("renamed", "renamed", ""))
	w.hub.Repository("acme/site", commit)
	if _, answered := w.hub.Emit(appID, "push", "acme/site", map[string]any{"ref": "refs/heads/main"}); answered != http.StatusAccepted {
		t.Errorf("a push under the new name is answered with %d", answered)
	}
	w.taken(commit)
	await(t, "a status under the new name", func() bool { return w.hub.Shown("acme/site", commit)["towpath/renamed"].State != "" })
}

func TestWhatDidNotReachTheControllerIsDeliveredAgain(t *testing.T) {
	t.Parallel()
	w := asApp(t)
	w.road.closed.Store(true)
	commit := w.repository.Commit("missed", application("missed", "missed", ""))
	w.hub.Repository("acme/repo", commit)
	guid, answered := w.hub.Emit(appID, "push", "acme/repo", map[string]any{"ref": "refs/heads/main"})
	if answered != 0 {
		t.Fatalf("a push on a closed road is answered with %d", answered)
	}
	w.road.closed.Store(false)
	must(t, w.Reload(w.config)) // looks at once, as a start does
	w.taken(commit)
	await(t, "the delivery to be recorded", func() bool { return slices.Equal(w.hub.Deliveries(appID, guid), []int{502, 202}) })
	if !w.recorded(guid) {
		t.Error("the delivery is not recorded")
	}
}

func TestWhatAnAppsWebhookBringsIsCheckedAndKeptOnlyIfItHasAReader(t *testing.T) {
	t.Parallel()
	w := asApp(t)
	emit := func(event, repository, secret string, more map[string]any) (guid string, answered int) {
		w.hub.Hook(appID, "https://"+w.Address+status.HookPath, secret, w.client)
		return w.hub.Emit(appID, event, repository, more)
	}
	main, other := map[string]any{"ref": "refs/heads/main"}, map[string]any{"ref": "refs/heads/other"}
	for name, c := range map[string]struct {
		event, repository, secret string
		more                      map[string]any
		status                    int
		kept                      bool
	}{
		"a guessed secret":                   {"push", "acme/repo", "guessed", main, http.StatusUnauthorized, false},
		"the secret that goes":               {"push", "acme/repo", "old-secret", main, http.StatusAccepted, true},
		"the secret that comes":              {"push", "acme/repo", "new-secret", main, http.StatusAccepted, true},
		"another branch":                     {"push", "acme/repo", "new-secret", other, http.StatusAccepted, false},
		"a repository that we do not follow": {"push", "acme/none", "new-secret", main, http.StatusAccepted, false},
		"our own push":                       {"push", "acme/repo", "new-secret", map[string]any{"ref": "refs/heads/main", "sender": map[string]any{"login": "towpath[bot]"}}, http.StatusAccepted, false},
		"an event that nobody reads":         {"star", "acme/repo", "new-secret", nil, http.StatusAccepted, false},
		"an installation":                    {"installation", "", "new-secret", map[string]any{"action": "created"}, http.StatusAccepted, true},
	} {
		guid, answered := emit(c.event, c.repository, c.secret, c.more)
		if answered != c.status || w.recorded(guid) != c.kept {
			t.Errorf("%s: answered with %d, kept %v", name, answered, !c.kept)
		}
	}
	if p := w.call("", http.MethodPost, status.HookPath, []byte("{}"), "X-Hub-Signature", "sha1=0000").problem(t, http.StatusUnauthorized); !strings.HasPrefix(p.Detail, "X-Hub-Signature-256 must be sha256=") {
		t.Errorf("only the older signature: %s", p.Detail)
	}
	if a := w.call("", http.MethodGet, status.HookPath+"?code=a1b2c3", nil); !strings.Contains(a.text, "towpath github app-create a1b2c3 --out DIRECTORY") {
		t.Errorf("whoever made an App reads: %s", a.text)
	}
	if a := w.call("", http.MethodGet, status.HookPath+"?code=%24(x)", nil); strings.Contains(a.text, "(x)") {
		t.Errorf("what is no code is shown: %s", a.text)
	}
	without := start(t, configure(t, ""))
	if p := without.call("", http.MethodPost, status.HookPath, []byte("{}")).problem(t, http.StatusNotFound); !strings.Contains(p.Detail, "github.apps[].webhookSecretFiles") {
		t.Errorf("without an App: %s", p.Detail)
	}
}

func TestSourcesOfOneInstallationShareOneTellerWithTheBudgetOfTheApp(t *testing.T) {
	t.Parallel()
	var known gitHubApps
	must(t, known.use(t.Context(), []config.App{{Name: "us", AppID: 1, APIURL: "https://api.github.com/", PerMinute: 20, PerHour: 100}}, nil, nil, quiet()))
	source := func(name, repository string) config.Source {
		return config.Source{Name: name, GitHub: config.GitHub{Repository: repository, App: "us", PerMinute: 60, PerHour: 450}}
	}
	all, _, err := tellers([]config.Source{source("web", "acme/web"), source("shop", "Acme/shop"), source("other", "other/web")}, &known, nil, nil, quiet())
	must(t, err)
	slices.SortFunc(all, func(a, b *status.Teller) int { return len(b.Repositories) - len(a.Repositories) })
	if len(all) != 2 || len(all[0].Repositories) != 2 || all[1].Repositories["other"] != "other/web" || all[0].Budget.Minute != 20 || all[0].Budget.Hour != 100 {
		t.Errorf("tellers: %+v", all)
	}
	if _, _, err := tellers([]config.Source{source("web", "acme/web")}, &gitHubApps{}, nil, nil, quiet()); err == nil || err.Error() != "source web: the GitHub App us could not be set up; the controller's log says why" {
		t.Errorf("an App that is not there: %v", err)
	}
}
