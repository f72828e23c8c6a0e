package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"towpath/api"
	"towpath/internal/testkit/gitserver"
	"towpath/internal/testkit/prometheus"
	"towpath/internal/testkit/world"
)

const (
	byRevision = `
analysis:
  defaultMetricProviderName: direct
  queries: [{name: errors, upperLimit: 0.5, queryTemplate: 'errors{revision="{{armory.replicaSetName}}"}'}]
`
	againstABaseline = `{canary: {steps: [{setWeight: {weight: 25}}, {pause: {untilApproved: true}},
  {analysis: {queries: [errors], interval: 1, units: seconds, numberOfJudgmentRuns: 5, baseline: true}}, {pause: {untilApproved: true}}]}}`
)

// sets is the ReplicaSets of prod that have pods, with their images.
func sets(w *world.World) (names []string) {
	for name, set := range w.Objects("prod", "apps/v1 replicasets") {
		spec := set.Object["spec"].(map[string]any)
		if count := spec["replicas"].(int64); count > 0 {
			template := spec["template"].(map[string]any)["spec"].(map[string]any)
			names = append(names, fmt.Sprintf("%s %v %d", name, template["containers"].([]any)[0].(map[string]any)["image"], count))
		}
	}
	slices.Sort(names)
	return names
}

func TestACanaryIsComparedWithNewPodsOfTheVersionBefore(t *testing.T) {
	t.Parallel()
	server := prometheus.Start(t)
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte(prometheus.Password), 0o600); err != nil {
		t.Fatal(err)
	}
	w := world.New(t, &shared, gitserver.Files{"shop/manifests/web.yaml": four("example.com/web:1"), "shop/towpath.yaml": world.OnProd(againstABaseline, byRevision)},
		world.Configuration(fmt.Sprintf("metricProviders: [{name: direct, type: prometheus, url: %s, auth: {username: %s, passwordFile: %s}}]", server.URL, prometheus.User, password)))
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")

	// measured says how many errors a canary and its baseline have, and lets the analysis begin.
	measured := func(version int, errors, baseline float64) string {
		t.Helper()
		d := next(t, w, version, "approval")
		running := sets(w)
		if len(running) != 3 {
			t.Fatalf("there run %q", running)
		}
		for _, set := range running {
			name, rest, _ := strings.Cut(set, " ")
			value := errors
			if strings.HasSuffix(name, "-baseline") {
				if value = baseline; rest != fmt.Sprintf("example.com/web:%d 1", version-1) {
					t.Errorf("the baseline runs %s", rest)
				}
			}
			series := fmt.Sprintf(`errors{revision=%q}`, name)
			server.Set(series, value)
			server.Await(series, value)
		}
		must(t, w, "deploy", "approve", d.ID, "prod")
		return d.ID
	}
	good := measured(2, 0.01, 0.01)
	w.Await("the second approval", func() (bool, error) {
		d, err := w.API.Deployment(t.Context(), good)
		return err == nil && slices.ContainsFunc(d.Targets[0].Waits, func(w api.Wait) bool { return w.Kind == "approval" && w.Gate == "canary.steps[3]" }), err
	})
	if running := sets(w); len(running) != 2 || strings.Contains(running[0]+running[1], "-baseline") {
		t.Errorf("after the comparison there run %q", running)
	}
	must(t, w, "deploy", "approve", good, "prod")
	expectState(t, w.Ended(good), "SUCCEEDED")
	out := must(t, w, "deploy", "calls", good)
	if strings.Count(out, "errors of web-") != 5 || strings.Count(out, "≤ 0.5") != 5 {
		t.Errorf("calls:\n%s", out)
	}

	bad := w.Ended(measured(3, 0.03, 0.01))
	const why = "the analysis canary.steps[2] failed: query errors: the mean of 5 runs is 0.03, within the limits (upperLimit 0.5); " +
		"query errors: the canary's values are higher than the baseline's: median 0.03 against 0.01, shifted by +0.02, higher in 100 of 100 pairs of runs; chance does as much in 0.4 of 100 cases; held at #2"
	if got := target(t, bad, "prod"); got.State != "ROLLED_BACK" || got.Why != why {
		t.Errorf("prod is %s: %s", got.State, got.Why)
	}
	expectImages(t, w, "prod", map[string]int64{"example.com/web:2": 4})
	for name := range w.Objects("prod", "apps/v1 replicasets") {
		if strings.HasSuffix(name, "-baseline") {
			t.Errorf("%s is still there", name)
		}
	}
}
