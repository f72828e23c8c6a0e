package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"towpath/api"
	"towpath/internal/testkit/gitserver"
)

// counting serves one ConfigMap whose value is how often it was asked for it.
func counting(t *testing.T) (host string, asked *atomic.Int32) {
	t.Helper()
	asked = &atomic.Int32{}
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: counted}\ndata: {value: \"%d\"}\n", asked.Add(1))
	}))
	t.Cleanup(site.Close)
	return strings.TrimPrefix(site.URL, "http://"), asked
}

func reaching(host string) string {
	return fmt.Sprintf("egress: {allowHosts: ['%s'], allowPrivate: ['%s']}\n", host, host)
}

func fetching(host, comment string) string {
	return "application: shop\ntargets: {a: {account: a, namespace: ns}, b: {account: b, namespace: ns}}\nmanifests: [{path: 'http://" + host + "/m.yaml'}] # " + comment + "\n"
}

func TestAnAddressIsFetchedOnceForEachTextOfAFile(t *testing.T) {
	t.Parallel()
	host, asked := counting(t)
	repository := gitserver.NewRepo(t, t.TempDir(), "repo", gitserver.Files{"deploy.yml": fetching(host, "first")})
	w := &watcher{start(t, configure(t, reaching(host)+sourceOf(repository, everywhere))), t, repository}
	w.taken(repository.Head("main"))
	value := func(want string) {
		t.Helper()
		records, err := w.store.Renders(t.Context(), "main", "repo")
		must(t, err)
		if len(records) != 2 {
			t.Fatalf("%d renders", len(records))
		}
		for _, r := range records {
			objects, err := w.store.Manifests(t.Context(), r.Manifests)
			if err != nil || len(objects) != 1 || !strings.Contains(string(objects[0].JSON), `"value":"`+want+`"`) {
				t.Errorf("target %s has %v, %v; want %s", r.Target, objects, err, want)
			}
		}
	}
	value("1")
	w.mu.Lock()
	source := w.sources["repo"].source(w.people)
	w.mu.Unlock()
	proof, err := w.intake.Prove(t.Context(), source, 1)
	if err != nil || proof.Rendered != 2 || len(proof.Wrong) != 0 {
		t.Errorf("rendered from nothing: %+v, %v", proof, err)
	}
	w.merge("another file", gitserver.Files{"README": "x"})
	value("1")
	w.merge("the file", gitserver.Files{"deploy.yml": fetching(host, "second")})
	value("2")
	w.merge("back", gitserver.Files{"deploy.yml": fetching(host, "first")})
	value("1")
	if n := asked.Load(); n != 2 {
		t.Errorf("%d requests for two texts", n)
	}
}

func TestAnAddressIsFetchedAtEachStartOfAPush(t *testing.T) {
	t.Parallel()
	host, asked := counting(t)
	c := start(t, configure(t, reaching(host)))
	token := c.token("main", "ci", api.View, api.Start)
	pushed := api.Upload{Path: "deploy.yml", Files: map[string][]byte{"deploy.yml": []byte(fetching(host, "pushed"))}}
	for i := range 2 {
		a := c.call(token, http.MethodPost, "/api/v1/deployments", pushed)
		if a.status != http.StatusCreated || asked.Load() != int32(i+1) { // once for its two targets
			t.Fatalf("start %d: %d requests, %d %s", i, asked.Load(), a.status, a.text)
		}
		var started api.Started
		a.read(t, &started)
		if a := c.call(token, http.MethodPost, "/api/v1/deployments/"+started.ID+"/cancel", map[string]any{}); a.status >= 300 {
			t.Fatalf("%d %s", a.status, a.text)
		}
		await(t, "its end", func() bool {
			var d api.Deployment
			c.call(token, http.MethodGet, "/api/v1/deployments/"+started.ID, nil).read(t, &d)
			return d.Ended != nil
		})
	}
}

func TestAnAddressThatMayNotBeCalledIsSaid(t *testing.T) {
	t.Parallel()
	host, asked := counting(t)
	c := start(t, configure(t, ""))
	token := c.token("main", "ci", api.View, api.Start)
	a := c.call(token, http.MethodPost, "/api/v1/deployments", api.Upload{Path: "deploy.yml", Files: map[string][]byte{"deploy.yml": []byte(fetching(host, ""))}})
	want := fmt.Sprintf("http://%s/m.yaml: calls to %s are not allowed; if they shall be, add \\\"%s\\\" to egress.allowHosts", host, host, host)
	if a.status != http.StatusUnprocessableEntity || !strings.Contains(a.text, want) || asked.Load() != 0 {
		t.Errorf("%d %s, want %s", a.status, a.text, want)
	}
}
