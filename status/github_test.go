package status_test

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"towpath/internal/testkit/github"
	"towpath/status"
)

// reach makes a client of a GitHub at an address.
func reach(t *testing.T, address string, token func() (string, error)) *status.GitHub {
	t.Helper()
	g, err := status.NewGitHub(status.GitHubConfig{APIURL: address, Token: token, HTTP: &http.Client{Timeout: 10 * time.Second}, Clock: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func given() (string, error) { return token, nil }

// failure is why something was not told.
func failure(t *testing.T, err error) *status.Failure {
	t.Helper()
	var f *status.Failure
	if !errors.As(err, &f) {
		t.Fatalf("%v is no failure", err)
	}
	return f
}

func TestStatusesAreWrittenAndFoundAgain(t *testing.T) {
	t.Parallel()
	hub := github.Start(t)
	hub.Repository("acme/repo", "c1")
	hub.Token(token, "acme/repo", github.Rights{"statuses": "write"})
	enterprise := httptest.NewServer(http.StripPrefix("/api/v3", hub)) // an Enterprise Server has its API below a path
	t.Cleanup(enterprise.Close)
	for _, address := range []string{hub.URL, strings.TrimSuffix(hub.URL, "/"), enterprise.URL + "/api/v3"} {
		g := reach(t, address, given)
		want := status.Status{Context: "Towpath/Shop", State: "success", Description: "live", Link: "https://towpath.example.com/x"}
		if err := g.Create(t.Context(), "acme/repo", "c1", want); err != nil {
			t.Errorf("%s: %v", address, err)
		}
		if latest, err := g.Latest(t.Context(), "acme/repo", "c1"); err != nil || latest["towpath/shop"] != want {
			t.Errorf("%s: %v, %v", address, latest, err)
		}
	}
	for range 230 { // over three pages
		hub.Tell("acme/repo", "c1", github.Status{Context: "other", State: "pending"})
	}
	if latest, err := reach(t, hub.URL, given).Latest(t.Context(), "acme/repo", "c1"); err != nil || latest["towpath/shop"].State != "success" || latest["other"].State != "pending" {
		t.Errorf("over several pages: %v, %v", latest, err)
	}
}

func TestAFailureSaysWhatIsToBeDoneAndWhetherItMayHaveArrived(t *testing.T) {
	t.Parallel()
	hub := github.Start(t)
	hub.Repository("acme/repo", "c1")
	hub.Token(token, "acme/repo", github.Rights{"statuses": "write"})
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for name, c := range map[string]struct {
		address string
		token   func() (string, error)
		fault   github.Fault
		kind    status.FailureKind
		unsure  bool
		says    string
	}{
		"nobody listens":        {"http://" + closed.Addr().String(), given, github.None, status.Trouble, false, "no answer from " + closed.Addr().String() + ": dial tcp"},
		"the connection is cut": {hub.URL, given, github.Cut, status.Trouble, true, "no answer from"},
		"trouble at GitHub":     {hub.URL, given, github.Broken(503), status.Trouble, true, "GitHub answers 503"},
		"no token": {hub.URL, func() (string, error) {
			return "", errors.New("github.tokenFile: open /etc/token: no such file or directory")
		}, github.None, status.Trouble, false, "github.tokenFile: open /etc/token: no such file or directory"},
		"a wrong token": {hub.URL, func() (string, error) { return "ghp_0ld", nil }, github.None, status.Trouble, false, "GitHub answers 401: Bad credentials; check github.tokenFile"},
		"a limit":       {hub.URL, given, github.TooMuch(403, time.Minute), status.Limited, false, "GitHub answers 403: You have exceeded a secondary rate limit."},
		"the hour":      {hub.URL, given, github.Exhausted(403, time.Now().Add(time.Minute)), status.Limited, false, "GitHub answers 403: API rate limit exceeded for installation ID 1."},
	} {
		t.Run(name, func(t *testing.T) {
			g := reach(t, c.address, c.token)
			if c.address == hub.URL && name != "no token" {
				hub.Next(c.fault)
			}
			f := failure(t, g.Create(t.Context(), "acme/repo", "c1", status.Status{Context: "towpath/shop", State: "success"}))
			if f.Kind != c.kind || f.Unsure != c.unsure || !strings.Contains(f.Text, c.says) || strings.Contains(f.Text, "ghp_") {
				t.Errorf("kind %d, unsure %v: %s", f.Kind, f.Unsure, f.Text)
			}
		})
	}
}

// An answer may point elsewhere. Only the host that the token is for gets it, and a write stays a write.
func TestTheTokenStaysWithItsHost(t *testing.T) {
	t.Parallel()
	var seen []string
	stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Method+" "+r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusNotFound)
	}))
	defer stranger.Close()
	hub := github.Start(t)
	hub.Repository("acme/repo", "c1")
	hub.Token(token, "acme/repo", github.Rights{"statuses": "write"})
	g := reach(t, hub.URL, given)
	shop := status.Status{Context: "towpath/shop", State: "success"}

	hub.Next(github.Moved(307, stranger.URL+"/x"), github.Moved(301, stranger.URL+"/x"))
	if f := failure(t, g.Create(t.Context(), "acme/repo", "c1", shop)); f.Kind != status.Refused {
		t.Errorf("sent elsewhere: %+v", f)
	}
	if f := failure(t, g.Create(t.Context(), "acme/repo", "c1", shop)); f.Kind != status.Refused || !strings.Contains(f.Text, "if the repository has a new name") {
		t.Errorf("moved for good: %+v", f)
	}
	if len(seen) != 1 || seen[0] != "POST " {
		t.Errorf("the stranger saw %q", seen)
	}
	hub.Next(github.Moved(307, hub.URL+"repos/acme/repo/statuses/c1")) // as GitHub does it for a repository that has a new name
	if err := g.Create(t.Context(), "acme/repo", "c1", shop); err != nil || len(hub.Statuses("acme/repo", "c1")) != 1 {
		t.Errorf("sent on within GitHub: %v, told %v", err, hub.Statuses("acme/repo", "c1"))
	}
}

func TestAnAddressThatIsNoneIsRefused(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"", "api.github.com", "http://[", "/api/v3"} {
		if _, err := status.NewGitHub(status.GitHubConfig{APIURL: address, Token: given, HTTP: http.DefaultClient, Clock: time.Now}); err == nil || !strings.Contains(err.Error(), "is no http(s) address") {
			t.Errorf("%q: %v", address, err)
		}
	}
}
