package traffic

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"towpath/internal/testkit/gitserver"
	"towpath/internal/testkit/prometheus"
	"towpath/internal/testkit/receiver"
	"towpath/internal/testkit/routers"
	"towpath/internal/testkit/world"
)

// A mesh sends a quarter of the requests to the new version, whose errors are many: metrics say so, and traffic goes back by itself.
func TestErrorsOfACanaryBehindIstioBringItBack(t *testing.T) {
	t.Parallel()
	if err := install(); err != nil {
		t.Fatal(err)
	}
	metrics := prometheus.Start(t)
	share := func(value float64) {
		metrics.Set(`errors{application="hello"}`, value)
		metrics.Await(`errors{application="hello"}`, value)
	}
	share(0.01)
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte(prometheus.Password), 0o600); err != nil {
		t.Fatal(err)
	}
	w := world.New(t, &shared, gitserver.Files{"README.md": "nothing yet"}, world.Configuration(fmt.Sprintf(
		"metricProviders: [{name: prometheus, type: prometheus, url: %s, auth: {username: %s, passwordFile: %s}}]", metrics.URL, prometheus.User, password)))
	istio := all[1]
	routed := routedBy(w, `{canary: {steps: [{setWeight: {weight: 25}}, {analysis: {queries: [errors], interval: 1, units: seconds, numberOfJudgmentRuns: 2}}, {setWeight: {weight: 75}}]}}`, "", istio)
	routed["hello/towpath.yaml"] += `analysis: {defaultMetricProviderName: prometheus, queries: [{name: errors, queryTemplate: 'errors{application="{{armory.applicationName}}"}', upperLimit: 0.05}]}` + "\n"
	succeeds(t, w.Ended(w.Deployment("hello", w.Commit("version 1", routed)).ID))
	before := looks(t, w.Objects("prod", istio.route)["hello"])
	oracle := routers.Watch(t, shared.Clusters["prod"].Kubeconfig, w.Namespace)
	succeeds(t, w.Ended(w.Deployment("hello", w.Commit("version 2", gitserver.Files{"hello/manifests/deployment.yaml": hello(2)})).ID))

	share(0.2)
	bad := w.Ended(w.Deployment("hello", w.Commit("version 3", gitserver.Files{"hello/manifests/deployment.yaml": hello(3)})).ID)
	if got := bad.Targets[0]; got.State != "ROLLED_BACK" || got.Why != "the analysis canary.steps[1] failed: query errors: the mean of 2 runs is 0.2, above upperLimit 0.05; held at #2" {
		t.Errorf("it is %s: %s", got.State, got.Why)
	}
	if after := looks(t, w.Objects("prod", istio.route)["hello"]); after != before {
		t.Errorf("after it went back:\n%s\nwant\n%s", after, before)
	}
	if pods := w.Images("prod"); len(pods) != 1 || pods["example.com/hello:2"] != 4 {
		t.Errorf("pods at the end: %v", pods)
	}
	if written := oracle.Judge(t); written < 4 {
		t.Errorf("the oracle saw %d writes of routers", written)
	}
}

// A version stands beside the other until a job has looked at it and a person agrees; the old one goes once another job was told.
func TestABlueGreenRolloutWaitsForAJobAndForAPerson(t *testing.T) {
	t.Parallel()
	job := receiver.Start(t)
	w := world.New(t, &shared, gitserver.Files{"README.md": "nothing yet"}, world.Configuration(fmt.Sprintf("egress: {allowHosts: [%[1]q], allowPrivate: [%[1]q]}", job.Host)))
	rolled := files(`{blueGreen: {activeService: hello, redirectTrafficAfter: [{runWebhook: {name: smoke}}, {pause: {untilApproved: true}}], shutDownOldVersionAfter: [{runWebhook: {name: told}}]}}`)
	rolled["hello/towpath.yaml"] += fmt.Sprintf(`webhooks:
  - {name: smoke, method: POST, uriTemplate: "%[1]s/smoke", bodyTemplate: {inline: "{{armory.callbackUri}}"}}
  - {name: told, method: POST, uriTemplate: "%[1]s/told", disableCallback: true}
`, job.URL)
	succeeds(t, w.Ended(w.Deployment("hello", w.Commit("version 1", rolled)).ID))
	d := w.Deployment("hello", w.Commit("version 2", gitserver.Files{"hello/manifests/deployment.yaml": hello(2)}))
	w.Await("the job to be called", func() (bool, error) { return len(job.Calls()) == 1, nil })
	waits(t, w, d.ID)
	run(t, w, "deploy", "approve", d.ID)
	called := job.Calls()[0]
	id := called.Body[strings.LastIndexByte(called.Body, '/')+1:]
	if err := w.API.Call(t.Context(), http.MethodPost, "/callbacks/"+id+"/callback", map[string]any{"success": true, "mdMessage": "all green"}, nil); err != nil {
		t.Fatal(err)
	}
	succeeds(t, w.Ended(d.ID))
	if calls := job.Calls(); len(calls) != 2 || called.URI != "/smoke" || calls[1].URI != "/told" {
		t.Errorf("%d calls: %+v", len(calls), calls)
	}
	if !strings.Contains(strings.Join(w.Events("hello"), "\n"), "webhook smoke called back: success | all green") {
		t.Errorf("history does not tell what the job said:\n%s", strings.Join(w.Events("hello"), "\n"))
	}
	if pods := w.Images("prod"); len(pods) != 1 || pods["example.com/hello:2"] != 4 {
		t.Errorf("pods at the end: %v", pods)
	}
}
