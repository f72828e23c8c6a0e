package preview_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	logtest "github.com/sirupsen/logrus/hooks/test"

	"towpath/preview"
)

func TestAClusterIsReachedWithATokenForIt(t *testing.T) {
	t.Parallel()
	var asked []*http.Request
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		asked = append(asked, q)
		w.Header().Set("Set-Cookie", "a=b")
		fmt.Fprint(w, "pods")
	}))
	t.Cleanup(behind.Close)
	to, err := url.Parse(behind.URL)
	if err != nil {
		t.Fatal(err)
	}
	log, hook := logtest.NewNullLogger()
	used := 0
	served := httptest.NewServer(&preview.Cluster{Log: log, Ways: func(string, string) http.RoundTripper { return way{to} },
		Used: func(context.Context, string, string) { used++ },
		Find: func(_ context.Context, token string) (preview.Via, error) {
			switch token {
			case "twk_good":
				return preview.Via{ID: "p1", Tenant: "main", Agent: "prod", Until: time.Now().Add(time.Hour), Unused: used == 0}, nil
			case "twk_broken":
				return preview.Via{}, errors.New("the database is away")
			}
			return preview.Via{}, preview.ErrNone
		}})
	t.Cleanup(served.Close)
	ask := func(path, token string, header http.Header) (int, string, http.Header) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, served.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, values := range header {
			request.Header[name] = values
		}
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(text), answer.Header
	}

	for range 2 {
		code, text, header := ask("/clusters/prod/api/v1/namespaces/a/pods?limit=5&path=a%2Fb", "twk_good", http.Header{"Cookie": {"towpath=x"}, "X-Remote-User": {"admin"}})
		if code != http.StatusOK || text != "pods" || header.Get("Set-Cookie") != "" || header.Get("Content-Security-Policy") != "sandbox; default-src 'none'" {
			t.Errorf("%d %s %v", code, text, header)
		}
	}
	if got := asked[0]; got.RequestURI != "/api/v1/namespaces/a/pods?limit=5&path=a%2Fb" || got.Header.Get("Authorization") != "" || got.Header.Get("Cookie") != "" || got.Header.Get("X-Remote-User") != "" {
		t.Errorf("%s %v", got.RequestURI, got.Header)
	}
	if line := hook.LastEntry(); used != 1 || len(hook.AllEntries()) != 2 || line.Data["preview"] != "p1" || line.Data["path"] != "/clusters/prod/api/v1/namespaces/a/pods" || line.Data["status"] != 200 {
		t.Errorf("used %d times; %v", used, line.Data)
	}
	if code, text, _ := ask("/clusters/prod/api", "twk_good", http.Header{"Impersonate-User": {"admin"}}); code != http.StatusForbidden || !strings.Contains(text, "it does not act as others") {
		t.Errorf("acting as another: %d %s", code, text)
	}
	if line := hook.LastEntry(); line.Data["status"] != http.StatusForbidden {
		t.Errorf("it is not in the audit: %v", line.Data)
	}
	const stranger = `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"the token leads nowhere, has expired or was revoked; towpath preview create --type cluster makes one","reason":"Unauthorized","code":401}`
	for path, token := range map[string]string{"/clusters/prod/api": "", "/clusters/prod/version": "twk_bad", "/clusters/staging/api": "twk_good", "/clusters/": "twk_good", "/clusters//api": "twk_good"} {
		if code, text, _ := ask(path, token, nil); code != http.StatusUnauthorized || text != stranger {
			t.Errorf("%s with %q: %d %s", path, token, code, text)
		}
	}
	if code, text, _ := ask("/clusters/prod/api", "twk_broken", nil); code != http.StatusInternalServerError || strings.Contains(text, "database") {
		t.Errorf("%d %s", code, text)
	}
	if len(asked) != 2 {
		t.Errorf("%d requests went through", len(asked))
	}
}
