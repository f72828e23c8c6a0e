package main

import (
	"encoding/json"
	"encoding/pem"
	"html"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	hub "towpath/internal/testkit/github"
)

func TestAnAppIsMadeByOneButtonAndOneCommand(t *testing.T) {
	t.Parallel()
	code, out, errs := towpath(t, nil, "github", "app-manifest", "--url", "https://towpath.example.com/", "--organization", "acme co")
	var m struct {
		Name, URL string
		Redirect  string `json:"redirect_url"`
		Public    bool
		Hook      struct {
			URL    string
			Active bool
		} `json:"hook_attributes"`
		Permissions map[string]string `json:"default_permissions"`
		Events      []string          `json:"default_events"`
	}
	if err := json.Unmarshal([]byte(out), &m); err != nil || code != 0 {
		t.Fatalf("%d %v\n%s%s", code, err, out, errs)
	}
	const address = "https://towpath.example.com/webhooks/github"
	if m.Name != "towpath" || m.URL != "https://towpath.example.com" || m.Redirect != address || m.Hook.URL != address || !m.Hook.Active || m.Public {
		t.Errorf("the manifest is %+v", m)
	}
	if m.Permissions["statuses"] != "write" || m.Permissions["contents"] != "read" || m.Permissions["members"] != "" || !strings.Contains(strings.Join(m.Events, " "), "push") {
		t.Errorf("it asks for %v and hears %v", m.Permissions, m.Events)
	}
	if !strings.Contains(errs, "https://github.com/organizations/acme%20co/settings/apps/new") {
		t.Errorf("it is not said where it is sent: %s", errs)
	}
	_, out, _ = towpath(t, nil, "github", "app-manifest", "--url", "https://towpath.example.com", "--teams")
	if !strings.Contains(out, `"members": "read"`) || !strings.Contains(out, `"membership"`) {
		t.Errorf("with teams: %s", out)
	}

	_, page, _ := towpath(t, nil, "github", "app-manifest", "--url", "https://towpath.example.com", "--html", "--name", `a"><b>`, "--github", "https://git.acme.example/")
	form := regexp.MustCompile(`<form action="([^"]*)" method="post">\n<input type="hidden" name="manifest" value="([^"]*)">`).FindStringSubmatch(page)
	if form == nil || form[1] != "https://git.acme.example/settings/apps/new" || strings.Contains(page, "<b>") {
		t.Fatalf("the page is %s", page)
	}
	if err := json.Unmarshal([]byte(html.UnescapeString(form[2])), &m); err != nil || m.Name != `a"><b>` {
		t.Errorf("the form sends %s: %v", form[2], err)
	}

	g := hub.Start(t)
	g.Manifest("a1b2", 42, "towpath-acme")
	enterprise := httptest.NewServer(http.StripPrefix("/api/v3", g))
	t.Cleanup(enterprise.Close)
	dir := filepath.Join(t.TempDir(), "app")
	create := func() (int, string, string) {
		return towpath(t, nil, "github", "app-create", "a1b2", "--out", dir, "--github", enterprise.URL)
	}
	code, out, errs = create()
	want := "github:\n  apps:\n    - name: towpath-acme\n      appID: 42\n      privateKeyFile: " + dir + "/private-key.pem\n      webhookSecretFiles: [" + dir + "/webhook-secret]\n      apiURL: " + enterprise.URL + "/api/v3/\n"
	if code != 0 || out != want || !strings.Contains(errs, "/apps/towpath-acme/installations/new") {
		t.Errorf("%d %s%s\nwant %s", code, out, errs, want)
	}
	for name, holds := range map[string]func([]byte) bool{
		"private-key.pem": func(text []byte) bool { block, _ := pem.Decode(text); return block != nil },
		"webhook-secret":  func(text []byte) bool { return string(text) == "of the hook\n" },
	} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
		if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !holds(text) || strings.Contains(out+errs, string(text)) {
			t.Errorf("%s holds %q, %v", name, text, err)
		}
	}
	asked := len(g.Requests())
	if code, _, errs := create(); code != 1 || errs != "towpath: "+dir+"/private-key.pem is there already; name another directory, or take it away\n" || len(g.Requests()) != asked {
		t.Errorf("a second time: %d %s", code, errs)
	}
	if code, _, errs := towpath(t, nil, "github", "app-create", "a1b2", "--out", t.TempDir(), "--github", enterprise.URL); code != 1 ||
		!strings.Contains(errs, "the App of this code: GitHub answers 404: Not Found; a code is good once and for an hour") {
		t.Errorf("a code that was used: %d %s", code, errs)
	}
	for _, args := range [][]string{{"app-manifest", "--url", "towpath.example.com"}, {"app-manifest", "--url", "https://x", "--github", "github.com"}} {
		if code, _, errs := towpath(t, nil, append([]string{"github"}, args...)...); code != 1 || !strings.Contains(errs, "is no ") {
			t.Errorf("%v: %d %s", args, code, errs)
		}
	}
}
