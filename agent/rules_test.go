package agent_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"towpath/agent/edge"
	"towpath/agent/hub"
)

func TestAnswersComeAsTheyWouldComeDirectly(t *testing.T) {
	t.Parallel()
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write([]byte("packed"))
	ok(t, z.Close())
	k := cluster(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/head":
			w.Header().Set("Content-Length", "1234")
		case "/204":
			w.WriteHeader(http.StatusNoContent)
		case "/304":
			w.WriteHeader(http.StatusNotModified)
		case "/empty":
		case "/hint":
			w.Header().Set("Link", "</style.css>")
			w.WriteHeader(http.StatusEarlyHints)
			fmt.Fprint(w, "after the hint")
		case "/redirect":
			http.Redirect(w, r, "https://elsewhere.example/", http.StatusFound)
		case "/gzip":
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(zipped.Bytes())
		case "/cookie":
			w.Header().Set("Set-Cookie", "a=b")
			fmt.Fprint(w, r.Header.Get("Cookie"))
		case "/early":
			w.WriteHeader(http.StatusRequestEntityTooLarge) // the body is not read
			fmt.Fprint(w, "too much")
		case "/500":
			http.Error(w, "broken", http.StatusInternalServerError)
		}
	})
	w := newWorld(t, hub.Limits{})
	w.start(w.identity("prod", k), edge.Timing{})

	response, text, err := w.do("prod", http.MethodHead, "/head", nil)
	ok(t, err)
	equal(t, response.ContentLength, 1234, "length of HEAD")
	equal(t, text, "", "body of HEAD")
	for path, code := range map[string]int{"/204": 204, "/304": 304, "/empty": 200, "/redirect": 302, "/500": 500} {
		response, _, err := w.do("prod", http.MethodGet, path, nil)
		ok(t, err)
		equal(t, response.StatusCode, code, path)
	}
	_, text, err = w.do("prod", http.MethodGet, "/hint", nil)
	ok(t, err)
	equal(t, text, "after the hint", "an answer after a 1xx")
	response, text, err = w.do("prod", http.MethodGet, "/gzip", nil)
	ok(t, err)
	equal(t, text, zipped.String(), "a packed body")
	equal(t, response.Header.Get("Content-Encoding"), "gzip", "its header")
	for range 2 {
		_, text, err = w.do("prod", http.MethodGet, "/cookie", nil)
		ok(t, err)
		equal(t, text, "", "cookies are not kept")
	}
	for range 20 {
		response, text, err = w.do("prod", http.MethodPost, "/early", io.MultiReader(bytes.NewReader(make([]byte, 4<<20))))
		ok(t, err)
		equal(t, response.StatusCode, http.StatusRequestEntityTooLarge, "an early answer to an upload")
		equal(t, text, "too much", "its body")
	}
}

func TestBodiesOfAWrongLengthFail(t *testing.T) {
	t.Parallel()
	k := cluster(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/short" {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write(make([]byte, 10))
			return
		}
		_, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, err)
	})
	w := newWorld(t, hub.Limits{})
	w.start(w.identity("prod", k), edge.Timing{})

	_, text, err := w.do("prod", http.MethodGet, "/short", nil)
	if err == nil {
		t.Fatalf("a short body was read as complete: %d bytes", len(text))
	}
	wantCode(t, err, hub.Lost)

	request, err := http.NewRequestWithContext(w.ctx, http.MethodPost, "http://x/upload", strings.NewReader("four"))
	ok(t, err)
	request.ContentLength = 400
	if _, _, err := read(w.client("prod").Do(request)); err == nil {
		t.Fatal("an upload shorter than it says succeeded")
	}

	broken := errors.New("the file is gone")
	_, _, err = w.do("prod", http.MethodPost, "/upload", io.MultiReader(strings.NewReader("begin"), failing{broken}))
	if !errors.Is(err, broken) {
		t.Fatalf("got %v, want the error of the caller's own body", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestHeadersBeyondTheLimitsAreACleanRefusal(t *testing.T) {
	t.Parallel()
	k := cluster(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/large":
			w.Header().Set("X-Large", strings.Repeat("x", 900<<10))
		case "/many":
			for i := range 1000 {
				w.Header().Set(fmt.Sprint("X-", i), "1")
			}
		}
	})
	w := newWorld(t, hub.Limits{})
	w.start(w.identity("prod", k), edge.Timing{})

	_, _, err := w.do("prod", http.MethodGet, "/large", nil)
	wantCode(t, err, hub.Unsupported, "the target's answer", "more than the 65536 that the tunnel carries")
	_, _, err = w.do("prod", http.MethodGet, "/many", nil)
	wantCode(t, err, hub.Unsupported, "more than the 128 that the tunnel carries")

	request, err := http.NewRequestWithContext(w.ctx, http.MethodGet, "http://x/", nil)
	ok(t, err)
	request.Header.Set("X-Large", strings.Repeat("x", 1<<20))
	_, _, err = read(w.client("prod").Do(request))
	wantCode(t, err, hub.Unsupported, "more than the 65536")
}

func TestPathsThatLeadElsewhereAreRefused(t *testing.T) {
	t.Parallel()
	reached := 0
	k := cluster(t, func(http.ResponseWriter, *http.Request) { reached++ })
	w := newWorld(t, hub.Limits{})
	w.start(w.identity("prod", k), edge.Timing{})
	for _, path := range []string{"/api/../secret", "/api/%2e%2e/secret", "/api/%2E./x", "/a%2f..%2fb", "//other.example/x", "/a%5c..%5cb", "/a%0ab"} {
		_, _, err := w.do("prod", http.MethodGet, path, nil)
		wantCode(t, err, hub.Refused)
	}
	equal(t, reached, 0, "requests that reached the cluster")
}

func TestImpersonationNeedsTheAgentsWord(t *testing.T) {
	t.Parallel()
	k := cluster(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("Impersonate-User"), " ", r.Header.Values("Impersonate-Group"))
	})
	w := newWorld(t, hub.Limits{})
	w.start(w.identity("strict", k), edge.Timing{})
	c := w.identity("open", k)
	c.Kubernetes.Impersonate = edge.Impersonate{Users: []string{"deployer"}, Groups: []string{"teams"}}
	w.start(c, edge.Timing{})

	ask := func(agent string, headers ...string) (*http.Response, string) {
		request, err := http.NewRequestWithContext(w.ctx, http.MethodGet, "http://x/api", nil)
		ok(t, err)
		for i := 0; i < len(headers); i += 2 {
			request.Header.Add(headers[i], headers[i+1])
		}
		response, text, err := read(w.client(agent).Do(request))
		ok(t, err)
		return response, text
	}
	response, text := ask("strict", "Impersonate-User", "admin")
	equal(t, response.StatusCode, http.StatusForbidden, "status")
	contains(t, text, `"kind":"Status"`, `act as user \"admin\" (kubernetes.impersonate)`)
	response, text = ask("open", "Impersonate-User", "deployer", "Impersonate-Group", "teams")
	equal(t, response.StatusCode, http.StatusOK, "status")
	equal(t, text, "deployer [teams]", "what the cluster saw")
	for _, headers := range [][]string{
		{"Impersonate-User", "deployer", "Impersonate-Group", "system:masters"}, {"Impersonate-Uid", "1"}, {"Impersonate-Extra-Scopes", "all"},
		{"Impersonate-Group", "teams", "Impersonate-Group", "system:masters"},
	} {
		response, _ := ask("open", headers...)
		equal(t, response.StatusCode, http.StatusForbidden, fmt.Sprint(headers))
	}
}

func TestTheAllowListIsTheAgents(t *testing.T) {
	t.Parallel()
	private := cluster(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Method, " ", r.URL, " ", r.Header.Get("Authorization"), " ", r.Header.Get("X-Key"))
	})
	w := newWorld(t, hub.Limits{})
	c := w.identity("prod", nil)
	c.Targets = []edge.Target{
		{Name: "metrics", URL: private.URL + "/prefix", CAFile: w.authority(private), Paths: []string{"/api/v1/query", "/api/*/labels", "/files/**"}},
		{Name: "keyed", URL: private.URL, Insecure: true, Methods: []string{"POST"}, HeadersFrom: map[string]string{"X-Key": w.file("key", []byte("k-1\n"))}},
		{Name: "rebound", URL: strings.Replace(private.URL, "127.0.0.1", "localhost", 1), Insecure: true},
	}
	w.start(c, edge.Timing{})
	contains(t, w.logs.String(), `target \"keyed\" is insecure`)

	request, err := http.NewRequestWithContext(w.ctx, http.MethodGet, "http://x/api/v1/query?q=up", nil)
	ok(t, err)
	request.Header.Set("Authorization", "Bearer mine")
	_, text, err := read(w.client("prod", hub.Target("metrics")).Do(request))
	ok(t, err)
	equal(t, text, "GET /prefix/api/v1/query?q=up Bearer mine ", "what the private host saw")
	for path, allowed := range map[string]bool{
		"/api/v2/labels": true, "/files/a/b": true, "/files": false, "/api/v1/query/": false, "/api/v1/query%2Fx": false, "/api/a/b/labels": false, "/": false,
	} {
		_, _, err := w.do("prod", http.MethodGet, path, nil, hub.Target("metrics"))
		if allowed {
			ok(t, err)
		} else {
			wantCode(t, err, hub.Refused, "paths")
		}
	}
	_, _, err = w.do("prod", http.MethodPost, "/api/v1/query", strings.NewReader("x"), hub.Target("metrics"))
	wantCode(t, err, hub.Refused, "add POST to its methods")

	_, text, err = w.do("prod", http.MethodPost, "/x", strings.NewReader("x"), hub.Target("keyed"))
	ok(t, err)
	equal(t, text, "POST /x  k-1", "a header from the agent's file")
	w.file("key", []byte("k-2"))
	_, text, err = w.do("prod", http.MethodPost, "/x", nil, hub.Target("keyed"))
	ok(t, err)
	equal(t, text, "POST /x  k-2", "the file is read again")

	_, _, err = w.do("prod", http.MethodGet, "/", nil, hub.Target("grafana"))
	wantCode(t, err, hub.Refused, `"grafana" is not on the agent's allow-list`, `targets: [{name: "grafana"`)
	_, _, err = w.do("prod", http.MethodGet, "/api", nil)
	wantCode(t, err, hub.Refused, "kubernetes.off")
	_, _, err = w.do("prod", http.MethodGet, "/", nil, hub.Target("rebound"))
	wantCode(t, err, hub.Refused, `"localhost" leads to`, "loopback", "write the address out")
}

func TestAReadOnlyAgentOnlyReads(t *testing.T) {
	t.Parallel()
	k := cluster(t, func(http.ResponseWriter, *http.Request) {})
	w := newWorld(t, hub.Limits{})
	c := w.identity("prod", k)
	c.Kubernetes.ReadOnly = true
	w.start(c, edge.Timing{})
	_, _, err := w.do("prod", http.MethodGet, "/api", nil)
	ok(t, err)
	_, _, err = w.do("prod", http.MethodDelete, "/api", nil)
	failed := wantCode(t, err, hub.Refused, "kubernetes.readOnly")
	equal(t, failed.Sent, false, "sent")
}

func TestAReadOnlyAgentUpgradesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hub.Limits{})
	c := w.identity("prod", cluster(t, func(http.ResponseWriter, *http.Request) {}))
	c.Kubernetes.ReadOnly = true
	w.start(c, edge.Timing{})
	_, err := w.client("prod").Do(w.upgrade("/exec"))
	failed := wantCode(t, err, hub.Unsupported, "exec", "readOnly")
	equal(t, failed.Sent, false, "sent")
	_, _, err = w.do("prod", http.MethodGet, "/api", nil) // the stream was given back
	ok(t, err)
}

func TestATokenTheAPIServerRefusesIsReadAgain(t *testing.T) {
	t.Parallel()
	want := make(chan string, 1)
	want <- "sa-token-1"
	k := cluster(t, func(w http.ResponseWriter, r *http.Request) {
		token := <-want
		want <- token
		if r.Header.Get("Authorization") != "Bearer "+token {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	w := newWorld(t, hub.Limits{})
	c := w.identity("prod", k)
	w.start(c, edge.Timing{})
	<-want
	want <- "sa-token-2"
	response, _, err := w.do("prod", http.MethodGet, "/api", nil)
	ok(t, err)
	equal(t, response.StatusCode, http.StatusUnauthorized, "with the old token still in its file")
	ok(t, os.WriteFile(c.Kubernetes.TokenFile, []byte("sa-token-2"), 0o600))
	response, _, err = w.do("prod", http.MethodGet, "/api", nil)
	ok(t, err)
	equal(t, response.StatusCode, http.StatusOK, "with the new one in its file")
	<-want
	want <- "sa-token-3"
	ok(t, os.WriteFile(c.Kubernetes.TokenFile, []byte("sa-token-3"), 0o600))
	response, _, err = w.do("prod", http.MethodPost, "/api", strings.NewReader("a body is not sent twice"))
	ok(t, err)
	equal(t, response.StatusCode, http.StatusUnauthorized, "a write")
	response, _, err = w.do("prod", http.MethodPost, "/api", strings.NewReader("so the caller sends it again"))
	ok(t, err)
	equal(t, response.StatusCode, http.StatusOK, "the next write")
}

func TestAnUnreachableTargetIsADialError(t *testing.T) {
	t.Parallel()
	k := cluster(t, func(http.ResponseWriter, *http.Request) {})
	w := newWorld(t, hub.Limits{})
	w.start(w.identity("prod", k), edge.Timing{})
	k.Close()
	_, _, err := w.do("prod", http.MethodPost, "/api", strings.NewReader("x"))
	failed := wantCode(t, err, hub.Dial, `agent "prod"`, "connection refused")
	equal(t, failed.Sent, false, "sent")
}
