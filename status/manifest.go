package status

import (
	"cmp"
	"context"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// HookPath is where a controller takes the webhook of Apps.
const HookPath = "/webhooks/github"

// Manifest is what GitHub makes an App of.
type Manifest struct {
	Name        string       `json:"name"`
	URL         string       `json:"url"`
	Description string       `json:"description"`
	Hook        ManifestHook `json:"hook_attributes"`
	Redirect    string       `json:"redirect_url"`
	Public      bool         `json:"public"`
	Permissions Permissions  `json:"default_permissions"`
	Events      []string     `json:"default_events"`
}

// ManifestHook is the App's webhook.
type ManifestHook struct {
	URL    string `json:"url"`
	Active bool   `json:"active"`
}

// NewManifest describes the App of a controller at an address. With teams it may also read who is in a team and which checks are required.
func NewManifest(name, controller string, teams bool) Manifest {
	controller = strings.TrimSuffix(controller, "/")
	m := Manifest{Name: name, URL: controller, Description: "Brings what is merged to Kubernetes clusters, and shows here how that goes.",
		Hook: ManifestHook{URL: controller + HookPath, Active: true}, Redirect: controller + HookPath,
		Permissions: Permissions{"checks": "write", "statuses": "write", "deployments": "write", "pull_requests": "write", "contents": "read", "metadata": "read", "merge_queues": "read"},
		Events:      []string{"push", "pull_request", "merge_group", "issue_comment", "check_run", "check_suite", "repository"}}
	if teams {
		m.Permissions["members"], m.Permissions["administration"] = "read", "read"
		m.Events = append(m.Events, "membership", "team")
	}
	return m
}

// Site is a GitHub as a browser reaches it.
type Site struct{ web *url.URL }

// NewSite reads an address such as https://github.com, or that of an Enterprise Server.
func NewSite(address string) (Site, error) {
	web, err := url.Parse(strings.TrimSuffix(address, "/"))
	if err != nil || web.Host == "" || web.Path != "" || web.Scheme != "https" && web.Scheme != "http" {
		return Site{}, fmt.Errorf("%q is no address of a GitHub; write https://github.com, or https:// and the host of an Enterprise Server", address)
	}
	return Site{web}, nil
}

// API is the address of its API.
func (s Site) API() string {
	if s.web.Host == "github.com" {
		return "https://api.github.com/"
	}
	return s.web.String() + "/api/v3/"
}

// Form is where the manifest of an App of an organization is sent to; "": of the person who sends it.
func (s Site) Form(organization string) string {
	if organization == "" {
		return s.web.String() + "/settings/apps/new"
	}
	return s.web.String() + "/organizations/" + url.PathEscape(organization) + "/settings/apps/new"
}

var formPage = template.Must(template.New("form").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>The GitHub App {{.Name}}</title>
<form action="{{.Action}}" method="post">
<input type="hidden" name="manifest" value="{{.Manifest}}">
<button>Make the GitHub App {{.Name}}</button>
</form>
</html>
`))

// WriteForm writes a page with one button, which makes the App.
func (s Site) WriteForm(w io.Writer, organization, name string, manifest []byte) error {
	return formPage.Execute(w, struct{ Name, Action, Manifest string }{name, s.Form(organization), string(manifest)})
}

// Made is an App as GitHub made it.
type Made struct {
	ID                         int64
	Slug, Key, Secret, Address string // Address is its page
}

// Exchange gets an App that was made of a manifest for the code that GitHub led back with. GitHub does that once, within an hour.
func (s Site) Exchange(ctx context.Context, web *http.Client, code string) (Made, error) {
	w, err := newWire(s.API(), web, time.Now)
	if err != nil {
		return Made{}, err
	}
	app, response, err := w.client.Apps.CompleteAppManifest(ctx, url.PathEscape(code))
	again := "a code is good once and for an hour; send the manifest again for another"
	if err := w.failure("the App of this code", advice{again, again}, response, err); err != nil {
		return Made{}, err
	}
	made := Made{ID: app.GetID(), Slug: cmp.Or(app.GetSlug(), app.GetName()), Key: app.GetPEM(), Secret: app.GetWebhookSecret(), Address: app.GetHTMLURL()}
	if made.ID == 0 || made.Key == "" || made.Secret == "" {
		return Made{}, fmt.Errorf("GitHub's answer lacks the App's id, key or webhook secret; make them in the App's settings at %s", cmp.Or(made.Address, s.web.String()))
	}
	return made, nil
}
