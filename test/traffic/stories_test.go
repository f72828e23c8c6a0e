package traffic

import (
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"towpath/internal/localstack"
	"towpath/internal/testkit/gitserver"
	"towpath/internal/testkit/receiver"
	"towpath/internal/testkit/routers"
	"towpath/internal/testkit/world"
)

// A mesh is told to send a quarter of the requests to the new version, half of whose answers are errors: its pods count them, and traffic goes back by itself.
func TestErrorsOfACanaryBehindIstioBringItBack(t *testing.T) {
	t.Parallel()
	if err := install(); err != nil {
		t.Fatal(err)
	}
	w, extra := newJudged(t, "url: URL")
	istio := all[1]
	routed := routedBy(w.World, `{canary: {steps: [{setWeight: {weight: 25}}, `+strings.Replace(judge, ", MODE", "", 1)+`, {setWeight: {weight: 75}}]}}`, "", istio)
	routed["hello/towpath.yaml"] += extra
	succeeds(t, w.Ended(w.Deployment("hello", w.Commit("version 1", routed)).ID))
	visitors := visit(t, w.World)
	before := looks(t, w.Objects("prod", istio.route)["hello"])
	oracle := routers.Watch(t, shared.Clusters["prod"].Kubeconfig, w.Namespace)
	good := w.Deployment("hello", w.Commit("version 2", gitserver.Files{"hello/manifests/deployment.yaml": hello(2)}))
	w.counted(t, 1)
	succeeds(t, w.Ended(good.ID))

	d := w.Deployment("hello", w.Commit("version 3", gitserver.Files{"hello/manifests/deployment.yaml": failing(3)}))
	w.counted(t, 2)
	if got := w.Ended(d.ID).Targets[0]; got.State != "ROLLED_BACK" || !tooMany.MatchString(got.Why) {
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
	visitors.see(t, w.World, "2")
}

var tooMany = regexp.MustCompile(`^the analysis canary\.steps\[2\] failed: query errors: the mean of (2 runs|1 run \(1 more had no data\)) is 0\.(4|5)\d*, above upperLimit 0\.2; held at #2$`)

// Prometheus is inside of the cluster, where only the agent reaches it, and what it says a person confirms: a good version, and one whose errors are many.
func TestAPersonJudgesWhatThePodsCountedThroughTheAgent(t *testing.T) {
	t.Parallel()
	w, extra := newJudged(t, "agent: prod")
	w.ConfigureAgent("prod", fmt.Sprintf("targets: [{name: prometheus, url: %q, paths: [/api/v1/query]}]\n", w.metrics.URL))
	rolled := files(`{canary: {steps: [{setWeight: {weight: 50}}, ` + strings.Replace(judge, "MODE", "rollForwardMode: manual, rollBackMode: manual", 1) + `]}}`)
	rolled["hello/towpath.yaml"] += extra
	succeeds(t, w.Ended(w.Deployment("hello", w.Commit("version 1", rolled)).ID))
	visit(t, w.World)

	d := w.Deployment("hello", w.Commit("version 2", gitserver.Files{"hello/manifests/deployment.yaml": hello(2)}))
	w.counted(t, 1)
	waits(t, w.World, d.ID)
	why := func(want string) {
		t.Helper()
		if _, out, _ := w.Towpath(t.TempDir(), nil, "why", "hello", "prod"); !strings.Contains(out, want) {
			t.Errorf("why: %s\nwant %s", out, want)
		}
	}
	why("a person to judge the analysis canary.steps[2], which passed: query errors: the mean of ")
	run(t, w.World, "deploy", "approve", d.ID, "prod")
	succeeds(t, w.Ended(d.ID))

	d = w.Deployment("hello", w.Commit("version 3", gitserver.Files{"hello/manifests/deployment.yaml": failing(3)}))
	w.counted(t, 2)
	waits(t, w.World, d.ID)
	why("a person to judge the analysis canary.steps[2], which failed: query errors: the mean of ")
	run(t, w.World, "deploy", "reject", d.ID, "prod", "--reason", "too many errors")
	if got := w.Ended(d.ID).Targets[0]; got.State != "ROLLED_BACK" || !strings.Contains(got.Why, "too many errors") {
		t.Errorf("it is %s: %s", got.State, got.Why)
	}
	if pods := w.Images("prod"); len(pods) != 1 || pods["example.com/hello:2"] != 4 {
		t.Errorf("pods at the end: %v", pods)
	}
}

// A version stands beside the other until a job has looked at it by a link, and a person agrees; the old one goes once another job was told.
func TestABlueGreenRolloutWaitsForAJobAndForAPerson(t *testing.T) {
	t.Parallel()
	job := receiver.Start(t)
	listen, _, err := localstack.Free()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listen)
	w := world.New(t, &shared, gitserver.Files{"README.md": "nothing yet"}, world.Configuration(fmt.Sprintf(
		"egress: {allowHosts: [%[1]q], allowPrivate: [%[1]q]}\npreviews: {listen: %[2]q, domain: \"%[3]s:%[4]s\"}\n", job.Host, listen, domain, port)))
	rolled := files(`{blueGreen: {activeService: hello, previewService: hello-preview, redirectTrafficAfter: [{exposeServices: {services: [hello-preview], ttl: {duration: 10, unit: minutes}}},
    {runWebhook: {name: smoke}}, {pause: {untilApproved: true}}], shutDownOldVersionAfter: [{runWebhook: {name: told}}]}}`)
	rolled["hello/manifests/preview.yaml"] = strings.Replace(service, "name: hello", "name: hello-preview", 1)
	rolled["hello/towpath.yaml"] += fmt.Sprintf(`webhooks:
  - {name: smoke, method: POST, uriTemplate: "%[1]s/smoke", bodyTemplate: {inline: "{{armory.preview.hello-preview}} {{armory.callbackUri}}"}}
  - {name: told, method: POST, uriTemplate: "%[1]s/told", disableCallback: true}
`, job.URL)
	succeeds(t, w.Ended(w.Deployment("hello", w.Commit("version 1", rolled)).ID))
	visitors := visit(t, w)
	d := w.Deployment("hello", w.Commit("version 2", gitserver.Files{"hello/manifests/deployment.yaml": hello(2)}))
	w.Await("the job to be called", func() (bool, error) { return len(job.Calls()) == 1, nil })
	called := job.Calls()[0]
	link, callback, _ := strings.Cut(called.Body, " ")
	if answer, text := newVisitor(t, w, listen).get(link); answer.StatusCode != http.StatusOK || !strings.Contains(text, `"version":"2"`) {
		t.Errorf("the link leads to %s %s", answer.Status, text)
	}
	if err := w.API.Call(t.Context(), http.MethodPost, "/callbacks/"+callback[strings.LastIndexByte(callback, '/')+1:]+"/callback", map[string]any{"success": true, "mdMessage": "all green"}, nil); err != nil {
		t.Fatal(err)
	}
	waits(t, w, d.ID)
	visitors.see(t, w, "1")
	run(t, w, "deploy", "approve", d.ID)
	succeeds(t, w.Ended(d.ID))
	visitors.see(t, w, "2")
	visitors.lost(t, "while the Service turned")
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
