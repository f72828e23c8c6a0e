package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"towpath/api"
	"towpath/internal/testkit/gitserver"
	"towpath/internal/testkit/prometheus"
	"towpath/internal/testkit/world"
)

const measured = `
analysis:
  defaultMetricProviderName: METRICS
  queries:
    - {name: errors, upperLimit: 0.05, queryTemplate: 'errors{application="{{armory.applicationName}}", revision=~"{{armory.replicaSetName}}|.*"} * {{context.factor}}'}
context: {factor: 1}
`

const halfThenAnalysis = `{canary: {steps: [{setWeight: {weight: 50}}, {analysis: {queries: [errors], interval: 1, units: seconds, numberOfJudgmentRuns: 2, rollForwardMode: MODE}}]}}`

// analysed brings version 1 to prod by a file whose canary is judged by a provider of metrics.
func analysed(t *testing.T, server *prometheus.Server, provider, mode, metrics string) *world.World {
	t.Helper()
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte(prometheus.Password), 0o600); err != nil {
		t.Fatal(err)
	}
	auth := fmt.Sprintf("auth: {username: %s, passwordFile: %s}", prometheus.User, password)
	w := world.New(t, &shared, gitserver.Files{"shop/manifests/web.yaml": four("example.com/web:1"),
		"shop/towpath.yaml": world.OnProd(strings.Replace(halfThenAnalysis, "MODE", mode, 1), strings.Replace(metrics, "METRICS", provider, 1))},
		world.Configuration(fmt.Sprintf("metricProviders: [{name: direct, type: prometheus, url: %s, %s}, {name: inside, type: prometheus, agent: staging, %s}]", server.URL, auth, auth)))
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")
	return w
}

// rate sets the share of errors, and waits until the provider has heard of it.
func rate(server *prometheus.Server, share float64) {
	server.Set(`errors{application="shop"}`, share)
	server.Await(`errors{application="shop"}`, share)
}

func calls(t *testing.T, w *world.World, id string) []api.Called {
	t.Helper()
	var found struct{ Items []api.Called }
	if err := w.API.Call(t.Context(), "GET", "/deployments/"+id+"/calls", nil, &found); err != nil {
		t.Fatal(err)
	}
	return found.Items
}

func TestMetricsDecideAboutACanary(t *testing.T) {
	t.Parallel()
	server := prometheus.Start(t)
	rate(server, 0.01)
	w := analysed(t, server, "direct", "automatic", measured)
	good := w.Ended(w.Deployment("shop", w.Commit("version 2", gitserver.Files{"shop/manifests/web.yaml": four("example.com/web:2")})).ID)
	expectState(t, good, "SUCCEEDED")
	if t.Failed() {
		t.Fatalf("%+v", calls(t, w, good.ID))
	}
	says(t, w, "prod: the analysis canary.steps[1] passed | query errors: the mean of 2 runs is 0.01, within the limits (upperLimit 0.05)")
	made := calls(t, w, good.ID)
	if len(made) != 2 || made[1].Run != 2 || made[1].Value == nil || *made[1].Value != 0.01 || made[1].Passed == nil || !*made[1].Passed || made[1].Provider != "direct" ||
		!strings.HasPrefix(made[1].Sent, `errors{application="shop", revision=~"web-`) || !strings.HasSuffix(made[1].Sent, "* 1") || *made[1].Upper != 0.05 {
		t.Errorf("what was measured is told as %+v", made)
	}

	rate(server, 0.5)
	bad := w.Ended(w.Deployment("shop", w.Commit("version 3", gitserver.Files{"shop/manifests/web.yaml": four("example.com/web:3")})).ID)
	if got := target(t, bad, "prod"); got.State != "ROLLED_BACK" || got.Why != "the analysis canary.steps[1] failed: query errors: the mean of 2 runs is 0.5, above upperLimit 0.05; held at #2" {
		t.Errorf("prod is %s: %s", got.State, got.Why)
	}
	expectImages(t, w, "prod", map[string]int64{"example.com/web:2": 4})

	replay(t, w, "1", "failed")
	replay(t, w, "0.1", "passed")

	server.Set(`errors{application="shop", other="series"}`, 0.5)
	two := w.Ended(w.Deployment("shop", w.Commit("version 4", gitserver.Files{"shop/manifests/web.yaml": four("example.com/web:4")})).ID)
	if got := target(t, two, "prod"); got.State != "ROLLED_BACK" || !strings.Contains(got.Why, "query errors, run 1 of 2: metric provider direct cannot answer this query: ") || !strings.Contains(got.Why, "2 series") {
		t.Errorf("with two series prod is %s: %s", got.State, got.Why)
	}
}

// replay holds what the query comes to for the newest deployment when its value counts so much.
func replay(t *testing.T, w *world.World, factor, verdict string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "towpath.yaml")
	text := world.OnProd(halfThenAnalysis, strings.Replace(measured, "METRICS", "direct", 1))
	if err := os.WriteFile(file, []byte(strings.Replace(text, "MODE", "automatic", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	out := must(t, w, "analysis", "replay", "-f", file, "--query", "errors", "--target", "prod", "--last", "1", "--add-context", "factor="+factor)
	if !strings.Contains(out, "#3") || !strings.Contains(out, verdict) {
		t.Errorf("replayed with %s:\n%s", factor, out)
	}
}

func TestAVerdictOfMetricsInsideAClusterIsConfirmedByAPerson(t *testing.T) {
	t.Parallel()
	server := prometheus.Start(t)
	rate(server, 0.01)
	w := analysed(t, server, "inside", "manual", measured)
	w.ConfigureAgent("staging", fmt.Sprintf("targets: [{name: inside, url: %q, paths: [/api/v1/query]}]\n", server.URL))
	d := next(t, w, 2, "approval")
	if out := must(t, w, "why", "shop", "prod"); !strings.Contains(out, "a person to judge the analysis canary.steps[1], which passed: query errors: the mean of 2 runs is 0.01") {
		t.Errorf("why: %s", out)
	}
	must(t, w, "deploy", "approve", d.ID, "prod", "--comment", "so it is")
	expectState(t, w.Ended(d.ID), "SUCCEEDED")
	if out := must(t, w, "deploy", "calls", d.ID); !strings.Contains(out, "≤ 0.05") || !strings.Contains(out, "passed") {
		t.Errorf("calls:\n%s", out)
	}
}

// A query with a hole in it gives a number all the same, so each verdict names the hole.
func TestAnAnalysisOnlyReportsAtFirst(t *testing.T) {
	t.Parallel()
	server := prometheus.Start(t)
	rate(server, 0.5)
	w := analysed(t, server, "direct", "automatic, reportOnly: 1", strings.Replace(measured, "|.*", "|.*{{context.region}}", 1))
	const verdict = "query errors: the mean of 2 runs is 0.5, above upperLimit 0.05; query errors: {{context.region}} was filled with nothing"
	ended := func(version int) api.Deployment {
		t.Helper()
		return w.Ended(w.Deployment("shop", w.Commit(fmt.Sprint("version ", version), gitserver.Files{"shop/manifests/web.yaml": four(fmt.Sprint("example.com/web:", version))})).ID)
	}
	first := ended(2)
	expectState(t, first, "SUCCEEDED")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:2": 4})
	says(t, w, "target.analysis_failed | prod: the analysis canary.steps[1] failed, which is only reported in this deployment, 1 of the first 1 | "+verdict)
	made := calls(t, w, first.ID)
	if len(made) != 2 || made[1].Passed == nil || *made[1].Passed || fmt.Sprint(made[1].Unfilled) != "[context.region]" || !strings.HasSuffix(made[1].Sent, `|.*"} * 1`) {
		t.Errorf("what was measured is told as %+v", made)
	}
	if out := must(t, w, "deploy", "calls", first.ID); strings.Count(out, "{{context.region}} was filled with nothing") != 2 {
		t.Errorf("calls:\n%s", out)
	}

	if got := target(t, ended(3), "prod"); got.State != "ROLLED_BACK" || got.Why != "the analysis canary.steps[1] failed: "+verdict+"; held at #2" {
		t.Errorf("the second time prod is %s: %s", got.State, got.Why)
	}
	expectImages(t, w, "prod", map[string]int64{"example.com/web:2": 4})
}
