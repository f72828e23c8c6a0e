package e2e

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"towpath/internal/testkit/gitserver"
	"towpath/internal/testkit/receiver"
	"towpath/internal/testkit/world"
)

// job is a user's job: a server that a webhook calls, and a client that calls back.
type job struct {
	*receiver.Receiver
	*testing.T
	secret string
	world  *world.World
	client *http.Client
}

const smoke = `
webhooks:
  - name: smoke
    method: POST
    uriTemplate: "RECEIVER/jobs/{{armory.environmentName}}?app={{ armory.applicationName }}"
    headers: [{key: Authorization, value: "Token {{secrets.ci}}"}]
    bodyTemplate:
      inline: '{"revision": "{{armory.replicaSetName}}", "team": "{{context.team}}", "nothing": "{{context.nothing}}", "back": "{{armory.callbackUri}}", "token": "{{armory.callbackToken}}"}'
  - {name: tell, method: PUT, uriTemplate: "RECEIVER/tell", disableCallback: true}
context: {team: web}
`

// emptied is what is told of a call of that job.
const emptied = "{{context.nothing}} was filled with nothing"

// newJob brings version 1 to prod by a file whose canary calls a job at half of the pods.
func newJob(t *testing.T, strategy, more string) *job {
	t.Helper()
	j := &job{Receiver: receiver.Start(t), T: t, secret: "s3cret-of-ci"}
	file := filepath.Join(t.TempDir(), "ci")
	if err := os.WriteFile(file, []byte(j.secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	settings := fmt.Sprintf("egress: {allowHosts: [%q], allowPrivate: [%q]}\nsecrets: [{name: ci, file: %s, hosts: [%q], applications: [shop]}]\n%s", j.Host, j.Host, file, j.Host, more)
	j.world = world.New(t, &shared, gitserver.Files{"shop/manifests/web.yaml": four("example.com/web:1"),
		"shop/towpath.yaml": world.OnProd(strategy, strings.ReplaceAll(smoke, "RECEIVER", j.URL))}, world.Configuration(settings))
	expectState(t, j.world.Ended(j.world.Deployment("shop", j.world.Repository.Head("main")).ID), "SUCCEEDED")
	pem, err := os.ReadFile(j.world.CA())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	j.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	return j
}

// called waits until the job was called so often, and returns the body of the last call.
func (j *job) called(times int) (c receiver.Call, body map[string]string) {
	j.Helper()
	j.world.Await(fmt.Sprint(times, " calls of the job"), func() (bool, error) { return len(j.Calls()) >= times, nil })
	c = j.Calls()[times-1]
	if c.Body != "" {
		if err := json.Unmarshal([]byte(c.Body), &body); err != nil {
			j.Fatalf("%v: %s", err, c.Body)
		}
	}
	return c, body
}

// back calls back, and returns the status and what is said.
func (j *job) back(uri, token, body string) (status int, said string) {
	j.Helper()
	request, err := http.NewRequest(http.MethodPost, uri+"/callback", strings.NewReader(body))
	if err != nil {
		j.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	return j.do(request)
}

func (j *job) do(request *http.Request) (status int, said string) {
	j.Helper()
	answer, err := j.client.Do(request)
	if err != nil {
		j.Fatal(err)
	}
	defer answer.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(answer.Body); err != nil {
		j.Fatal(err)
	}
	return answer.StatusCode, text.String()
}

const halfThenSmoke = `{canary: {steps: [{setWeight: {weight: 50}}, {runWebhook: {name: smoke, context: {team: canary}}}]}}`

func TestAWebhookIsCalledAndCallsBack(t *testing.T) {
	t.Parallel()
	j := newJob(t, halfThenSmoke, "")
	w := j.world
	d := next(t, w, 2, "webhook")
	call, body := j.called(1)
	if call.Method != http.MethodPost || call.URI != "/jobs/prod?app=shop" || call.Header.Get("Authorization") != "Token "+j.secret || call.Header.Get("Content-Type") != "application/json" ||
		call.Header.Get("Idempotency-Key") == "" {
		t.Errorf("it was called with %s %s %v", call.Method, call.URI, call.Header)
	}
	if body["team"] != "canary" || body["nothing"] != "" || !strings.HasPrefix(body["revision"], "web-") || !strings.HasPrefix(body["back"], w.API.Address+"/api/v1/callbacks/") {
		t.Errorf("it was sent %v", body)
	}
	w.Await("the answer to its call", func() (bool, error) {
		return strings.Contains(must(t, w, "why", "shop", "prod"), "waits for webhook smoke to call back; "+emptied), nil
	})
	for _, c := range []struct {
		token, uri, body string
		status           int
		said             string
	}{
		{"twc_bm9uZQ." + call.Header.Get("Idempotency-Key") + ".AAAA", body["back"], `{"success": true}`, http.StatusUnauthorized, "the token is not known, has expired or was revoked"},
		{w.Token("viewer", "view"), body["back"], `{"success": true}`, http.StatusForbidden, "the token of viewer calls nothing back: that takes the token of this call, or one with the grant start"},
		{body["token"], w.API.Address + "/api/v1/callbacks/00000000-0000-0000-0000-000000000000", `{"success": true}`, http.StatusNotFound, "no webhook was called with this callback address"},
		{body["token"], body["back"], `{"success": "yes"}`, http.StatusUnprocessableEntity, `the body has to be JSON with \"success\": true or false`},
		{body["token"], body["back"], `{"success": true, "mdMessage": "` + strings.Repeat("x", 64<<10) + `"}`, http.StatusRequestEntityTooLarge, ""},
		{body["token"], body["back"], `{"success": true, "mdMessage": "**9** of 9 passed", "job": 17}`, http.StatusNoContent, ""},
		{body["token"], body["back"], `{"success": false}`, http.StatusConflict, "webhook smoke has called back already; the first time counts"},
	} {
		if status, said := j.back(c.uri, c.token, c.body); status != c.status || !strings.Contains(said, c.said) {
			t.Errorf("calling back with %.60s: %d %s, want %d %s", c.body, status, said, c.status, c.said)
		}
	}
	expectState(t, w.Ended(d.ID), "SUCCEEDED")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:2": 4})
	if c := calls(t, w, d.ID); len(c) != 1 || c[0].Name != "smoke" || c[0].State != "answered" || c[0].Passed == nil || !*c[0].Passed || c[0].Message != "**9** of 9 passed" || !slices.Equal(c[0].Unfilled, []string{"context.nothing"}) {
		t.Errorf("what was called is told as %+v", c)
	}
	if out := must(t, w, "deploy", "calls", d.ID); !strings.Contains(out, "**9** of 9 passed; "+emptied) {
		t.Errorf("calls:\n%s", out)
	}
}

func TestAJobCallsBackWithATokenOfTheTokenEndpoint(t *testing.T) {
	t.Parallel()
	j := newJob(t, halfThenSmoke, "")
	w := j.world
	d := next(t, w, 2, "webhook")
	_, body := j.called(1)
	secret := w.Token("ci", "start")
	list, err := w.Operate("token", "list")
	if err != nil {
		t.Fatal(err)
	}
	var id string
	for line := range strings.Lines(list) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[2] == "ci" {
			id = fields[0]
		}
	}
	exchange := func(secret, audience string) (status int, said string) {
		request, err := http.NewRequest(http.MethodPost, w.API.Address+"/oauth/token", strings.NewReader(url.Values{"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {secret},
			"audience": {audience}}.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return j.do(request)
	}
	if status, said := exchange("wrong", w.API.Address); status != http.StatusUnauthorized {
		t.Errorf("a wrong secret: %d %s", status, said)
	}
	status, said := exchange(secret, "https://api.cloud.armory.io") // as jobs of the earlier product ask
	var given struct {
		Token   string `json:"access_token"`
		Type    string `json:"token_type"`
		Expires int    `json:"expires_in"`
	}
	if err := json.Unmarshal([]byte(said), &given); err != nil || status != http.StatusOK || given.Type != "Bearer" || given.Expires < 60 {
		t.Fatalf("%d %s (%v)", status, said, err)
	}
	if status, said := j.back(body["back"], given.Token+"x", `{"success": true}`); status != http.StatusUnauthorized {
		t.Errorf("a token that was tampered with: %d %s", status, said)
	}
	if status, said := j.back(body["back"], given.Token, `{"success": false, "mdMessage": "3 of 9 failed"}`); status != http.StatusNoContent {
		t.Errorf("%d %s", status, said)
	}
	ended := w.Ended(d.ID)
	if got := target(t, ended, "prod"); got.State != "ROLLED_BACK" || got.Why != "canary.steps[1]: webhook smoke called back that it failed: 3 of 9 failed; "+emptied+"; held at #1" {
		t.Errorf("prod is %s: %s", got.State, got.Why)
	}
	if _, err := w.Operate("token", "revoke", id); err != nil {
		t.Fatal(err)
	}
	if status, said := j.back(body["back"], given.Token, `{"success": true}`); status != http.StatusUnauthorized {
		t.Errorf("after its secret was revoked: %d %s", status, said)
	}
}

func TestAJobThatOnlyAClusterReachesIsCalledThroughItsAgent(t *testing.T) {
	t.Parallel()
	remote := strings.Replace(smoke, "    method: POST\n", "    method: POST\n    networkMode: remoteNetworkAgent\n    agentIdentifier: staging\n", 1)
	job := receiver.Start(t)
	file := func(text string) gitserver.Files {
		return gitserver.Files{"shop/manifests/web.yaml": four("example.com/web:" + text), "shop/towpath.yaml": world.OnProd(halfThenSmoke, strings.ReplaceAll(strings.ReplaceAll(remote, "RECEIVER", job.URL), "{{secrets.ci}}", "none"))}
	}
	w := world.New(t, &shared, file("1"))
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")
	refused := w.Ended(w.Deployment("shop", w.Commit("version 2", file("2"))).ID)
	// What an agent refuses is said at once: "cannot be reached" would be tried again.
	why := fmt.Sprintf("canary.steps[1]: webhook smoke: agent \"staging\", target %q: REFUSED: ", job.Host)
	if got := target(t, refused, "prod"); got.State != "ROLLED_BACK" || !strings.HasPrefix(got.Why, why) || !strings.Contains(got.Why, "allow-list") {
		t.Errorf("without an entry in the allow-list prod is %s: %s", got.State, got.Why)
	}
	if calls := job.Calls(); len(calls) > 0 {
		t.Errorf("the job was called: %+v", calls)
	}
	w.ConfigureAgent("staging", fmt.Sprintf("targets: [{name: %q, url: %q, methods: [POST]}]\n", job.Host, job.URL))
	d := waits(t, w, w.Deployment("shop", w.Commit("version 3", file("3"))).ID, "webhook")
	w.Await("a call of the job", func() (bool, error) { return len(job.Calls()) > 0, nil })
	if c := job.Calls()[0]; c.URI != "/jobs/prod?app=shop" || c.Header.Get("Idempotency-Key") == "" || c.Header.Get("Authorization") != "Token none" || !strings.Contains(c.Body, `"team": "canary"`) {
		t.Errorf("%+v", c)
	}
	must(t, w, "deploy", "skip", d.ID, "--reason", "the job is no more")
	expectState(t, w.Ended(d.ID), "SUCCEEDED")
	if out := must(t, w, "deploy", "calls", d.ID); !strings.Contains(out, "canary.steps[1]  smoke") || !strings.Contains(out, "answered") {
		t.Errorf("calls:\n%s", out)
	}
}

func TestHowACallOfAWebhookFails(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		answer func(http.ResponseWriter, *http.Request)
		more   string // of the configuration
		from   string // in the file
		to     string
		why    string
	}{
		{"it answers 500", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "no executor\nfree", http.StatusInternalServerError)
		}, "", "", "",
			"webhook smoke: HOST answered 500 Internal Server Error: no executor free"},
		{"it redirects to a metadata address", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/latest/meta-data/", http.StatusFound)
		}, "", "", "", "webhook smoke: HOST answers with a redirect to 169.254.169.254, which is not followed: write that address as uriTemplate if it is meant"},
		{"it tells a secret", func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, r.Header.Get("Authorization"), http.StatusForbidden)
		}, "", "", "",
			"webhook smoke: HOST answered 403 Forbidden: Token ***"},
		{"its host may not be called", nil, "", "RECEIVER/jobs", "http://other.example.com:81/jobs", "webhook smoke: secret ci may not be sent to other.example.com:81; its hosts in the controller's configuration say where to"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			j := newJob(t, halfThenSmoke, c.more)
			j.Reply(c.answer)
			files := gitserver.Files{"shop/manifests/web.yaml": four("example.com/web:2")}
			if c.from != "" {
				files["shop/towpath.yaml"] = world.OnProd(halfThenSmoke, strings.ReplaceAll(strings.Replace(smoke, c.from, c.to, 1), "RECEIVER", j.URL))
			}
			w := j.world
			d := w.Ended(w.Deployment("shop", w.Commit("version 2", files)).ID)
			want := "canary.steps[1]: " + strings.ReplaceAll(c.why, "HOST", j.Host) + "; " + emptied + "; held at #1"
			if got := target(t, d, "prod"); got.State != "ROLLED_BACK" || got.Why != want {
				t.Errorf("prod is %s: %s\nwant %s", got.State, got.Why, want)
			}
		})
	}
}

// In the middle of a rollout it would be too late to say.
func TestWhoCannotBeAskedIsToldWithTheFile(t *testing.T) {
	t.Parallel()
	j := newJob(t, halfThenSmoke, "")
	w := j.world
	w.Commit("a secret and a provider that are none", gitserver.Files{
		"shop/towpath.yaml": world.OnProd(halfThenSmoke, strings.ReplaceAll(strings.Replace(smoke, "secrets.ci", "secrets.other", 1), "RECEIVER", j.URL)),
		"more/towpath.yaml": strings.Replace(world.OnProd(strings.Replace(halfThenAnalysis, "MODE", "manual", 1), strings.Replace(measured, "METRICS", "nobody", 1)), "application: shop", "application: more", 1),
	})
	for _, want := range []string{"webhook smoke: there is no secret other; secrets of the controller's configuration names those that there are",
		"there is no metric provider nobody: the controller's configuration has none (metricProviders) for the tenant main"} {
		w.Await("the problem "+want, func() (bool, error) { return strings.Contains(strings.Join(w.Problems(), "\n"), want), nil })
	}
}
