package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"towpath/api"
	"towpath/internal/testkit/gitserver"
	"towpath/store"
)

// upload is an application of one ConfigMap, whose cluster has no agent: its deployment goes on until it is cancelled.
func upload(application, value string) api.Upload {
	return api.Upload{Path: "deploy.yml", Files: map[string][]byte{
		"deploy.yml": []byte("application: " + application + "\ntargets: {prod: {account: prod, namespace: ns, strategy: all}}\nmanifests: [{path: m.yaml}]\n" +
			"strategies: {all: {canary: {steps: [{setWeight: {weight: 100}}]}}}\n"),
		"m.yaml": []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + application + "}\ndata: {value: " + value + "}\n")}}
}

func (c *controller) begin(token, application, value string) api.Started {
	c.t.Helper()
	a := c.call(token, http.MethodPost, "/api/v1/deployments", upload(application, value))
	if a.status != http.StatusCreated {
		c.t.Fatalf("start %s: %d %s", application, a.status, a.text)
	}
	var started api.Started
	a.read(c.t, &started)
	return started
}

// document is what the API says of itself.
type document struct {
	OpenAPI string
	Paths   map[string]map[string]struct {
		OperationID string `json:"operationId"`
	}
}

func TestEachOperationNeedsItsGrant(t *testing.T) {
	t.Parallel()
	c := start(t, configure(t, ""))
	var d document
	c.call("", http.MethodGet, "/api/v1/openapi.json", nil).read(t, &d)
	needs := map[string]string{
		"list-deployments": api.View, "get-deployment": api.View, "plan": api.View, "list-applications": api.View, "get-application": api.View, "list-agents": api.View,
		"list-sources": api.View, "list-proposals": api.View, "follow-events": api.View, "list-holds": api.View, "list-calls": api.View, "list-previews": api.View, "list-deployment-previews": api.View,
		"start-deployment": api.Start, "cancel": api.Start, "roll-back": api.Start, "retry": api.Start, "hold": api.Start, "unhold": api.Start,
		"replay-query": api.Start, "revoke-preview": api.Start, "call-back": api.CallBack, "create-preview": api.Admin,
		"approve": api.Approve, "reject": api.Approve, "skip": api.Approve,
		"remove-application": api.Admin, "create-agent": api.Admin, "rotate-agent": api.Admin, "revoke-agent": api.Admin, "remove-agent": api.Admin, "accept-cluster": api.Admin,
	}
	tokens := map[string]string{}
	for _, grant := range []string{api.View, api.Start, api.Approve, api.Admin} {
		tokens[grant] = c.token("main", "only-"+grant, grant)
	}
	for path, methods := range d.Paths {
		for method, operation := range methods {
			need, known := needs[operation.OperationID]
			if !known {
				t.Errorf("%s %s: the test does not say which grant %s needs", method, path, operation.OperationID)
				continue
			}
			delete(needs, operation.OperationID)
			method, path := strings.ToUpper(method), strings.NewReplacer("{id}", "none", "{name}", "none").Replace(path)
			if operation.OperationID == "follow-events" {
				path += "?limit=bad&after=-1" // is refused before it begins to stream
			}
			p := c.call("", method, path, nil).problem(t, http.StatusUnauthorized)
			if !strings.Contains(p.Detail, "TOWPATH_TOKEN") {
				t.Errorf("%s: without a token: %s", operation.OperationID, p.Detail)
			}
			c.call("twp_guessed", method, path, nil).problem(t, http.StatusUnauthorized)
			for grant, token := range tokens {
				a := c.call(token, method, path, nil)
				lacks := "lacks the grant " + need
				if need == api.CallBack {
					lacks = "calls nothing back: that takes the token of this call, or one with the grant start"
				}
				if may := grant == need || grant == api.Admin || need == api.CallBack && grant == api.Start; may == (a.status == http.StatusForbidden) || a.status == http.StatusUnauthorized {
					t.Errorf("%s with the grant %s: %d %s", operation.OperationID, grant, a.status, a.text)
				} else if !may && a.problem(t, http.StatusForbidden).Detail != "the token of only-"+grant+" "+lacks {
					t.Errorf("%s with the grant %s: %s", operation.OperationID, grant, a.text)
				}
			}
		}
	}
	if len(needs) > 0 {
		t.Errorf("operations that are gone: %v", needs)
	}
}

func TestTokensThatEndedAreRefused(t *testing.T) {
	t.Parallel()
	c := start(t, configure(t, ""))
	_, expired, err := c.store.CreateToken(t.Context(), store.Token{Tenant: "main", Name: "old", Grants: []string{api.View}, Expires: time.Now().Add(-time.Second)})
	must(t, err)
	c.call(expired, http.MethodGet, "/api/v1/agents", nil).problem(t, http.StatusUnauthorized)
	token := c.token("main", "ann", api.View)
	if a := c.call(token, http.MethodGet, "/api/v1/agents", nil); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.text)
	}
	all, err := c.store.Tokens(t.Context())
	must(t, err)
	must(t, c.store.RevokeToken(t.Context(), all[slices.IndexFunc(all, func(t store.Token) bool { return t.Name == "ann" })].ID))
	if a := c.call(token, http.MethodGet, "/api/v1/agents", nil); a.header.Get("WWW-Authenticate") != `Bearer error="invalid_token"` {
		t.Errorf("%v", a.header)
	} else {
		a.problem(t, http.StatusUnauthorized)
	}
}

func TestTenantsNeverSeeEachOther(t *testing.T) {
	t.Parallel()
	c := start(t, configure(t, ""))
	mine, theirs := c.token("one", "ann", api.Admin), c.token("two", "bob", api.Admin)
	id := c.begin(mine, "shop", "1").ID
	if a := c.call(mine, http.MethodPost, "/api/v1/agents", map[string]string{"name": "prod"}); a.status != http.StatusCreated {
		t.Fatalf("%d %s", a.status, a.text)
	}
	for _, path := range []string{"/deployments", "/applications", "/agents", "/sources"} {
		var list struct{ Items []any }
		c.call(theirs, http.MethodGet, "/api/v1"+path, nil).read(t, &list)
		if len(list.Items) > 0 {
			t.Errorf("%s shows another tenant's: %v", path, list.Items)
		}
	}
	for _, r := range []struct {
		method, path string
		body         any
	}{
		{http.MethodGet, "/deployments/" + id, nil},
		{http.MethodPost, "/deployments", api.Upload{Repeat: id}},
		{http.MethodPost, "/deployments/" + id + "/approve", map[string]string{"target": "prod"}},
		{http.MethodPost, "/deployments/" + id + "/cancel", map[string]string{}},
		{http.MethodGet, "/applications/shop", nil},
		{http.MethodPost, "/applications/shop/rollback", map[string]any{"to": id}},
		{http.MethodPost, "/applications/shop/rollback", map[string]any{"targets": []string{"prod"}}},
		{http.MethodDelete, "/applications/shop", nil},
		{http.MethodPost, "/agents/prod/rotate", map[string]any{}},
		{http.MethodPost, "/agents/prod/revoke", nil},
		{http.MethodDelete, "/agents/prod", nil},
	} {
		c.call(theirs, r.method, "/api/v1"+r.path, r.body).problem(t, http.StatusNotFound)
	}
	c.call(theirs, http.MethodGet, "/api/v1/deployments?before="+id, nil).problem(t, http.StatusUnprocessableEntity)
	own := c.begin(theirs, "shop", "1").ID // a name is a tenant's own
	var d api.Deployment
	c.call(theirs, http.MethodGet, "/api/v1/deployments/"+own, nil).read(t, &d)
	if d.Number != 1 || d.By != "bob" {
		t.Errorf("the other tenant's first deployment: %+v", d)
	}
	follow(t, c, theirs, "", 0, func(e api.Event) bool {
		if e.Deployment == id || e.Who == "ann" {
			t.Errorf("an event of another tenant: %+v", e)
		}
		return e.Deployment != own
	})
}

func TestRefusalsAreProblemsThatSayWhatToDo(t *testing.T) {
	t.Parallel()
	c := start(t, configure(t, ""))
	token := c.token("main", "ann", api.Admin)
	broken := upload("shop", "1")
	broken.Files["deploy.yml"] = []byte("application: shop\ntargets: {prod: {acount: prod}}\nmanifests: [{path: m.yaml}]\n")
	for name, r := range map[string]struct {
		method, path string
		body         any
		status       int
		detail       string
	}{
		"an operation that is not there":   {http.MethodGet, "/nothing", nil, 404, "no operation GET /api/v1/nothing; /api/v1/openapi.json lists them"},
		"a method that is not there":       {http.MethodPut, "/deployments", nil, 404, "no operation PUT /api/v1/deployments; "},
		"a deployment that is not there":   {http.MethodGet, "/deployments/x", nil, 404, "no deployment x"},
		"an application that is not there": {http.MethodGet, "/applications/x", nil, 404, "no application x"},
		"a broken file":                    {http.MethodPost, "/deployments", broken, 422, "the deployment file is refused"},
		"an upload without its file":       {http.MethodPost, "/deployments", api.Upload{Path: "x.yml", Files: broken.Files}, 422, `the upload does not hold its deployment file "x.yml"`},
		"a path that leads out":            {http.MethodPost, "/deployments", api.Upload{Path: "deploy.yml", Files: map[string][]byte{"deploy.yml": {}, "../x": {}}}, 422, "the upload's files: "},
		"a repeat of nothing":              {http.MethodPost, "/deployments", api.Upload{Repeat: "x"}, 404, "no deployment x"},
		"a rollback to nowhere":            {http.MethodPost, "/applications/shop/rollback", map[string]any{}, 422, "say which deployment to go back to, name one target, or say --all"},
		"a rollback of a strange target":   {http.MethodPost, "/applications/shop/rollback", map[string]any{"targets": []string{"x"}}, 404, "application shop has no target x"},
		"no JSON":                          {http.MethodPost, "/deployments", []byte("{"), 400, ""},
		"an unknown key":                   {http.MethodPost, "/deployments", []byte(`{"pathh": "x"}`), 422, ""},
		"a bad limit":                      {http.MethodGet, "/deployments?limit=1000", nil, 422, ""},
		"a cursor that is none":            {http.MethodGet, "/deployments?before=x", nil, 422, "before: no deployment x"},
		"an agent's name that is none":     {http.MethodPost, "/agents", map[string]string{"name": "a b"}, 422, ""},
		"an upload that is too large":      {http.MethodPost, "/plans", bytes.Repeat([]byte(" "), 91<<20), 413, ""},
	} {
		if p := c.call(token, r.method, "/api/v1"+r.path, r.body).problem(t, r.status); !strings.HasPrefix(p.Detail, r.detail) {
			t.Errorf("%s: %q %v, want %q", name, p.Detail, p.Errors, r.detail)
		}
	}
	p := c.call(token, http.MethodPost, "/api/v1/deployments", broken).problem(t, 422)
	if len(p.Errors) == 0 || p.Errors[0].Location != "deploy.yml:2:18" || !strings.Contains(p.Errors[0].Message, "unknown key acount") || !strings.Contains(p.Errors[0].Message, "did you mean account?") {
		t.Errorf("a broken file's places: %+v", p.Errors)
	}
	id := c.begin(token, "shop", "1").ID
	p = c.call(token, http.MethodPost, "/api/v1/deployments", upload("shop", "2")).problem(t, http.StatusConflict)
	if p.Type != api.UnderWay || !strings.Contains(p.Detail, "is under way; wait for it, or cancel it with: towpath deploy cancel "+id) {
		t.Errorf("while another is under way: %+v", p)
	}
}

func TestListsAreReadPageByPage(t *testing.T) {
	t.Parallel()
	c := start(t, configure(t, ""))
	token := c.token("main", "ann", api.Start, api.View)
	var ids, names []string
	for i := range 5 {
		name := fmt.Sprintf("app-%d", i)
		names = append(names, name)
		ids = append(ids, c.begin(token, name, "1").ID)
	}
	slices.Reverse(ids)
	type page struct {
		Items []struct{ ID, Name string }
		Next  string
	}
	var seen []string
	for next := "limit=2"; next != ""; {
		var p page
		c.call(token, http.MethodGet, "/api/v1/deployments?"+next, nil).read(t, &p)
		for _, item := range p.Items {
			seen = append(seen, item.ID)
		}
		if next = ""; p.Next != "" {
			next = "limit=2&before=" + p.Next
		}
	}
	if !slices.Equal(seen, ids) {
		t.Errorf("deployments: %v, want %v", seen, ids)
	}
	seen = nil
	for next := "limit=2"; next != ""; {
		var p page
		c.call(token, http.MethodGet, "/api/v1/applications?"+next, nil).read(t, &p)
		for _, item := range p.Items {
			seen = append(seen, item.Name)
		}
		if next = ""; p.Next != "" {
			next = "limit=2&after=" + p.Next
		}
	}
	if !slices.Equal(seen, names) {
		t.Errorf("applications: %v, want %v", seen, names)
	}
}

func TestARequestSentAgainIsDoneOnce(t *testing.T) {
	t.Parallel()
	c := start(t, configure(t, ""))
	ann, bob := c.token("main", "ann", api.Admin), c.token("main", "bob", api.Admin)
	send := func(token, key string, u api.Upload) answer {
		return c.call(token, http.MethodPost, "/api/v1/deployments", u, "Idempotency-Key", key)
	}
	first := send(ann, "k1", upload("shop", "1"))
	if again := send(ann, "k1", upload("shop", "1")); again.status != http.StatusCreated || again.text != first.text {
		t.Errorf("sent again: %d %s, at first %s", again.status, again.text, first.text)
	}
	if p := send(ann, "k1", upload("shop", "2")).problem(t, 422); !strings.Contains(p.Detail, "Idempotency-Key k1 was used for another request") {
		t.Errorf("the key of another request: %s", p.Detail)
	}
	send(bob, "k1", upload("shop", "2")).problem(t, http.StatusConflict) // another sender's key is another request
	refused := send(ann, "k2", upload("shop", "2")).problem(t, http.StatusConflict)
	if again := send(ann, "k2", upload("shop", "2")).problem(t, http.StatusConflict); again.Detail != refused.Detail || again.Type != api.UnderWay {
		t.Errorf("what was refused: %+v, sent again: %+v", refused, again)
	}

	var twins sync.WaitGroup
	answers := make([]answer, 8)
	for i := range answers {
		twins.Go(func() { answers[i] = send(ann, "twins", upload("web", "1")) })
	}
	twins.Wait()
	for _, a := range answers {
		if a.status != http.StatusCreated || a.text != answers[0].text {
			t.Errorf("twins got %d %s and %s", a.status, a.text, answers[0].text)
		}
	}
	var list struct{ Items []api.Deployment }
	c.call(ann, http.MethodGet, "/api/v1/deployments?application=web", nil).read(t, &list)
	if len(list.Items) != 1 {
		t.Errorf("%d deployments of twins", len(list.Items))
	}
	c.call(ann, http.MethodGet, "/api/v1/deployments?application=shop", nil).read(t, &list)
	if len(list.Items) != 3 { // the first, bob's and ann's refused ones
		t.Errorf("%d deployments of shop", len(list.Items))
	}
}

func TestHistorySaysWhoAskedForWhat(t *testing.T) {
	t.Parallel()
	c := start(t, configure(t, ""))
	ann := c.token("main", "ann", api.Admin)
	id := c.begin(ann, "shop", "1").ID
	for _, r := range []struct {
		method, path string
		body         any
	}{
		{http.MethodPost, "/deployments/" + id + "/cancel", map[string]string{"reason": "a mistake"}},
		{http.MethodPost, "/agents", map[string]string{"name": "prod"}},
		{http.MethodPost, "/agents/prod/rotate", map[string]any{"keepSeconds": 60}},
		{http.MethodPost, "/agents/prod/revoke", nil},
		{http.MethodDelete, "/agents/prod", nil},
		{http.MethodDelete, "/applications/shop?keep=true", nil},
	} {
		if a := c.call(ann, r.method, "/api/v1"+r.path, r.body); a.status >= 300 {
			t.Fatalf("%s %s: %d %s", r.method, r.path, a.status, a.text)
		}
	}
	tokens, err := c.store.Tokens(t.Context())
	must(t, err)
	must(t, c.store.RevokeToken(t.Context(), tokens[0].ID))
	events, err := c.store.Events(t.Context(), store.EventFilter{Tenant: "main"})
	must(t, err)
	var said []string
	for _, e := range events {
		said = append(said, e.Who+": "+e.What)
	}
	all := strings.Join(said, "\n")
	for _, want := range []string{"towpath-controller: token ann was made", "ann: ann asked #1 to stop", "ann: agent prod was given the identity", "ann: agent prod was given a new secret; the one before it holds for 1m0s", "ann: the tokens that agent prod had been given were revoked",
		"ann: agent prod was removed", "towpath-controller: token ann (" + tokens[0].ID + ") was revoked"} {
		if !strings.Contains(all, want) {
			t.Errorf("history does not say %q:\n%s", want, all)
		}
	}
	for _, application := range []string{"", "shop"} {
		if _, err := c.store.VerifyHistory(t.Context(), "main", application); err != nil {
			t.Error(err)
		}
	}
}

// follow reads a stream of events, resumed after one as a browser does, until seen returns false. It returns what came first on the stream's way.
func follow(t *testing.T, c *controller, token, query string, last int64, seen func(api.Event) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+c.Address+"/api/v1/events?"+query, nil)
	must(t, err)
	request.Header.Set("Authorization", "Bearer "+token)
	if last > 0 {
		request.Header.Set("Last-Event-ID", fmt.Sprint(last))
	}
	response, err := c.client.Do(request)
	must(t, err)
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s %s", response.Status, response.Header.Get("Content-Type"))
	}
	lines := bufio.NewScanner(response.Body)
	var id string
	for lines.Scan() {
		if text, found := strings.CutPrefix(lines.Text(), "id: "); found {
			id = text
		}
		text, found := strings.CutPrefix(lines.Text(), "data: ")
		if !found || text == "{}" {
			continue
		}
		var e api.Event
		must(t, json.Unmarshal([]byte(text), &e))
		if fmt.Sprint(e.ID) != id {
			t.Errorf("event %d came with the id %s", e.ID, id)
		}
		if !seen(e) {
			return
		}
	}
	t.Fatalf("the stream ended: %v", lines.Err())
}

// A stream on which nothing happens goes on, and says so.
func TestAQuietStreamGoesOn(t *testing.T) {
	t.Parallel()
	c := start(t, configure(t, ""))
	token := c.token("main", "ann", api.View) // its making is an event: something was written before it is quiet
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+c.Address+"/api/v1/events", nil)
	must(t, err)
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := c.client.Do(request)
	must(t, err)
	defer response.Body.Close()
	if response.ProtoMajor != 2 {
		t.Fatalf("it comes over %s", response.Proto)
	}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if lines.Text() == "data: {}" {
			return
		}
	}
	t.Fatalf("it ended before it said that it lives: %v", lines.Err())
}

func TestAStreamThatIsTakenUpAgainLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	c := start(t, configure(t, ""))
	token := c.token("main", "ann", api.Start, api.View)
	const applications = 12
	var starting sync.WaitGroup
	for i := range applications {
		starting.Go(func() { c.begin(token, fmt.Sprintf("app-%d", i), "1") })
	}
	var seen []int64
	last, whole := int64(0), map[string]bool{}
	for len(whole) < applications { // a stream is cut after each third event
		count := 0
		follow(t, c, token, "", last, func(e api.Event) bool {
			seen, last = append(seen, e.ID), e.ID
			if e.Deployment != "" {
				whole[e.Deployment] = true
			}
			count++
			return count < 3 && len(whole) < applications
		})
	}
	starting.Wait()
	events, err := c.store.Events(t.Context(), store.EventFilter{Tenant: "main"})
	must(t, err)
	var want []int64
	for _, e := range events {
		if e.ID <= last {
			want = append(want, e.ID)
		}
	}
	if !slices.Equal(seen, want) {
		t.Errorf("seen %v, happened %v", seen, want)
	}
	one := events[len(events)-1].Application
	follow(t, c, token, "application="+one, 0, func(e api.Event) bool {
		if e.Application != one {
			t.Errorf("an event of %s on the stream of %s", e.Application, one)
		}
		return e.ID != events[len(events)-1].ID
	})
}

func TestAPushIsTakenInWhenItsSignatureFits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{"old": "old-secret\n", "new": "new-secret"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	repository := gitserver.NewRepo(t, filepath.Join(dir, "git"), "repo", gitserver.Files{"README.md": "nothing"})
	c := start(t, configure(t, fmt.Sprintf(`
sources:
  - {name: repo, url: %s, branch: main, schedule: "@every 1h", webhook: {secretFiles: [%s/old, %s/new]}, allow: [{accounts: ["*"], namespaces: ["*"], kinds: ["*"]}]}
  - {name: quiet, url: %s, branch: main, schedule: "@every 1h"}
`, repository.Dir, dir, dir, repository.Dir)))
	view := c.token("main", "ann", api.View)
	await(t, "the first fetch", func() bool {
		s, err := c.store.Source(t.Context(), "main", "repo")
		return err == nil && s.Processed != ""
	})
	body := []byte(`{"ref":"refs/heads/main"}`)
	signed := func(secret string) string {
		sum := hmac.New(sha256.New, []byte(secret))
		sum.Write(body)
		return "sha256=" + hex.EncodeToString(sum.Sum(nil))
	}
	deliver := func(source, guid string, header ...string) answer {
		return c.call("", http.MethodPost, "/api/v1/webhooks/"+source, body, append([]string{"X-GitHub-Delivery", guid, "X-GitHub-Event", "push"}, header...)...)
	}
	older := hmac.New(sha1.New, []byte("old-secret"))
	older.Write(body)
	for name, r := range map[string]struct {
		answer answer
		status int
	}{
		"no signature":               {deliver("repo", "a"), 401},
		"a guessed secret":           {deliver("repo", "a", "X-Hub-Signature-256", signed("guessed")), 401},
		"only the older signature":   {deliver("repo", "a", "X-Hub-Signature", "sha1="+hex.EncodeToString(older.Sum(nil))), 401},
		"half a signature":           {deliver("repo", "a", "X-Hub-Signature-256", signed("old-secret")[:40]), 401},
		"no delivery":                {deliver("repo", "", "X-Hub-Signature-256", signed("old-secret")), 400},
		"a delivery of a long name":  {deliver("repo", strings.Repeat("a", 129), "X-Hub-Signature-256", signed("old-secret")), 400},
		"a source that is not there": {deliver("other", "a", "X-Hub-Signature-256", signed("old-secret")), 404},
		"a source without a webhook": {deliver("quiet", "a", "X-Hub-Signature-256", signed("old-secret")), 404},
		"a delivery that is large":   {c.call("", http.MethodPost, "/api/v1/webhooks/repo", bytes.Repeat([]byte("x"), 25<<20+1), "X-GitHub-Delivery", "a"), 413},
	} {
		t.Run(name, func(t *testing.T) { r.answer.problem(t, r.status) })
	}
	for i, secret := range []string{"old-secret", "new-secret"} {
		u := upload(fmt.Sprintf("app-%d", i), "1")
		repository.Commit("an application", gitserver.Files{fmt.Sprintf("%d/deploy.yml", i): string(u.Files["deploy.yml"]), fmt.Sprintf("%d/m.yaml", i): string(u.Files["m.yaml"])})
		if a := deliver("repo", secret, "X-Hub-Signature-256", signed(secret)); a.status != http.StatusAccepted {
			t.Fatalf("signed with %s: %d %s", secret, a.status, a.text)
		}
		follow(t, c, view, "application="+fmt.Sprintf("app-%d", i), 0, func(e api.Event) bool { return e.Deployment == "" })
	}
	if a := deliver("repo", "old-secret", "X-Hub-Signature-256", signed("old-secret")); a.status != http.StatusAccepted {
		t.Errorf("a redelivery: %d %s", a.status, a.text)
	}
}

func TestTheDescriptionIsServed(t *testing.T) {
	t.Parallel()
	c := start(t, configure(t, ""))
	a := c.call("", http.MethodGet, "/api/v1/openapi.json", nil)
	var d document
	a.read(t, &d)
	if a.status != http.StatusOK || !strings.HasPrefix(d.OpenAPI, "3.1.") || len(d.Paths) == 0 {
		t.Errorf("%d, OpenAPI %s, %d paths", a.status, d.OpenAPI, len(d.Paths))
	}
}

func TestAnAgentsCredentialIsReplacedAndEnded(t *testing.T) {
	t.Parallel()
	c := start(t, configure(t, ""))
	admin := c.token("main", "ann", api.Admin)
	get := func(made api.Credential) int {
		a := c.call("", http.MethodPost, "/oauth/token", []byte("grant_type=client_credentials&client_id="+made.ClientID+"&client_secret="+made.Secret), "Content-Type", "application/x-www-form-urlencoded")
		return a.status
	}
	var first, second, third api.Credential
	c.call(admin, http.MethodPost, "/api/v1/agents", map[string]string{"name": "prod"}).read(t, &first)
	if _, port, _ := strings.Cut(c.HubAddress, ":"); first.Hub != "localhost:"+port || get(first) != http.StatusOK {
		t.Errorf("a new agent's: %+v", first)
	}
	if p := c.call(admin, http.MethodPost, "/api/v1/agents", map[string]string{"name": "prod"}).problem(t, http.StatusConflict); !strings.Contains(p.Detail, "towpath agent rotate prod") {
		t.Errorf("a second one of the name: %s", p.Detail)
	}
	c.call(admin, http.MethodPost, "/api/v1/agents/prod/rotate", map[string]any{"keepSeconds": 3600}).read(t, &second)
	if get(first) != http.StatusOK || get(second) != http.StatusOK || second.ClientID != first.ClientID {
		t.Error("while a secret is replaced both must hold")
	}
	c.call(admin, http.MethodPost, "/api/v1/agents/prod/rotate", map[string]any{}).read(t, &third)
	if get(first) != http.StatusUnauthorized || get(second) != http.StatusUnauthorized || get(third) != http.StatusOK {
		t.Error("a secret that is replaced at once still holds, or the new one does not")
	}
	if a := c.call(admin, http.MethodDelete, "/api/v1/agents/prod", nil); a.status >= 300 || get(third) != http.StatusUnauthorized {
		t.Errorf("removed: %d %s", a.status, a.text)
	}
	if a := c.call(admin, http.MethodPost, "/api/v1/agents", map[string]string{"name": "prod"}); a.status != http.StatusCreated {
		t.Errorf("its name is free again: %d %s", a.status, a.text)
	}
}

func TestStreamsEndAndRequestsFinishWhenTheControllerStops(t *testing.T) {
	t.Parallel()
	c := start(t, configure(t, ""))
	token := c.token("main", "ann", api.View)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+c.Address+"/api/v1/events", nil)
	must(t, err)
	request.Header.Set("Authorization", "Bearer "+token)
	stream, err := c.client.Do(request)
	must(t, err)
	defer stream.Body.Close()

	slow, sending := io.Pipe() // its first byte is taken once the controller began to read
	upload, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+c.Address+"/api/v1/plans", slow)
	must(t, err)
	upload.Header.Set("Authorization", "Bearer "+token)
	upload.Header.Set("Expect", "100-continue")
	answers := make(chan error, 1)
	go func() {
		response, err := c.client.Do(upload)
		if err == nil {
			defer response.Body.Close()
			if response.StatusCode != http.StatusUnprocessableEntity {
				err = errors.New(response.Status)
			}
		}
		answers <- err
	}()
	_, err = sending.Write([]byte(`{"path": "x", `))
	must(t, err)
	stopped := make(chan error, 1)
	go func() { stopped <- c.Close() }()
	if _, err := io.Copy(io.Discard, stream.Body); err != nil {
		t.Errorf("the stream broke off: %v", err)
	}
	_, err = sending.Write([]byte(`"files": {}}`)) // only now, while it stops
	must(t, err)
	must(t, sending.Close())
	if err := <-answers; err != nil {
		t.Errorf("the request under way: %v", err)
	}
	must(t, <-stopped)
	must(t, c.Close())
}
