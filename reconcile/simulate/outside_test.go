package simulate_test

import (
	"strings"
	"testing"
	"time"

	"towpath/reconcile/rollout"
	"towpath/reconcile/simulate"
)

func TestWebhooksAndAnalysesDoAsTheAnswersSay(t *testing.T) {
	most := 5.0
	way := rollout.Way{Canary: []rollout.Step{weight(50), {Webhook: &rollout.Webhook{Name: "smoke"}},
		{Analysis: &rollout.Analysis{Interval: time.Minute, Runs: 3, Queries: []rollout.Query{{Name: "errors", Upper: &most}}}}}}
	for _, c := range []struct {
		name    string
		answers map[string]simulate.Answer
		want    string
	}{
		{"nothing is said", nil, "prod is SUCCEEDED, reached after 4m0s; people 0s, pauses 3m0s, pods 1m0s"},
		{"a webhook takes its time", map[string]simulate.Answer{"canary.steps[1]": {Verb: rollout.Approve, After: time.Hour}}, "prod is SUCCEEDED, reached after 1h4m0s; people 0s, pauses 1h3m0s, pods 1m0s"},
		{"a webhook fails", map[string]simulate.Answer{"canary.steps[1]": {Verb: rollout.Reject, Reason: "it is red"}}, "canary.steps[1]: webhook smoke called back that it failed: it is red"},
		{"a webhook never calls back", map[string]simulate.Answer{"canary.steps[1]": {}}, "canary.steps[1]: webhook smoke did not call back within 24h0m0s"},
		{"a webhook is skipped", map[string]simulate.Answer{"canary.steps[1]": {Verb: rollout.Pass, After: time.Minute}}, "canary.steps[1] is skipped by person 1"},
		{"errors are many", map[string]simulate.Answer{"canary.steps[2]": {Verb: rollout.Reject}}, "the analysis canary.steps[2] failed: query errors: the mean of 3 runs is 6, above upperLimit 5"},
		{"metrics are not there", map[string]simulate.Answer{"canary.steps[2]": {}}, "the analysis canary.steps[2] failed: query errors: 3 of 3 runs had no data (as the answers say)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := assumed()
			a.Targets = map[string]simulate.TargetAnswers{"prod": {Gates: c.answers}}
			if got := told(simulate.Run([]simulate.Target{target("prod", way)}, a)); !strings.Contains(got, c.want) {
				t.Errorf("it tells\n%swithout\n%s", got, c.want)
			}
		})
	}
}
