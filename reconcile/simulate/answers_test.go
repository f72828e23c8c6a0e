package simulate_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"towpath/reconcile/rollout"
	"towpath/reconcile/simulate"
)

// asked is two targets with gates to answer at.
func asked() []simulate.Target {
	return []simulate.Target{target("staging", rollout.Way{Canary: rolling}),
		target("prod", rollout.Way{Canary: []rollout.Step{weight(50), pause(time.Hour), approval(rollout.Approval{})}, After: []rollout.Step{approval(rollout.Approval{})}})}
}

func TestAnswersAreRead(t *testing.T) {
	got, problems := simulate.Read("answers.yaml", []byte(`
otherwise: {answer: approved, after: 1h}
targets:
  staging: {ready: never}
  prod:
    ready: 45s
    gates:
      canary.steps[1]: skipped
      canary.steps[2]: {answer: rejected, after: 2h30m, reason: errors rise}
      afterDeployment[0]: never
accounts:
  prod: [{away: 10m, for: 1h}, {away: 8h}]
`), asked())
	want := simulate.Answers{
		Otherwise: simulate.Answer{Verb: rollout.Approve, After: time.Hour},
		Targets: map[string]simulate.TargetAnswers{
			"staging": {Ready: simulate.Readiness{Never: true}, Gates: map[string]simulate.Answer{}},
			"prod": {Ready: simulate.Readiness{Said: true, After: 45 * time.Second}, Gates: map[string]simulate.Answer{"canary.steps[1]": {Verb: rollout.Pass},
				"canary.steps[2]": {Verb: rollout.Reject, After: 150 * time.Minute, Reason: "errors rise"}, "afterDeployment[0]": {}}},
		},
		Accounts: map[string][]simulate.Absence{"prod": {{From: 10 * time.Minute, For: time.Hour}, {From: 8 * time.Hour}}},
	}
	if len(problems) > 0 || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n%+v\nwant\n%+v", problems, got, want)
	}
}

func TestAFileThatSaysNothingHasPeopleApproveAtOnce(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "targets:\n"} {
		if got, problems := simulate.Read("a", []byte(text), asked()); len(problems) > 0 || got.Otherwise != simulate.AtOnce || len(got.Targets) > 0 {
			t.Errorf("%q: %v %+v", text, problems, got)
		}
	}
}

func TestEachMistakeInAnswersHasItsPlaceAndItsRemedy(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"target: {}\n", "a:1:1: there is no key target; there are accounts, otherwise, targets? targets"},
		{"targets:\n  prd: {}\n", "a:2:3: there is no target prd; there are prod, staging? prod"},
		{`targets: {prod: {gates: {"canary.steps[3]": never}}}`, "a:1:26: there is no gate canary.steps[3]; there are afterDeployment[0], canary.steps[1], canary.steps[2]? canary.steps[1]"},
		{"targets: {staging: {gates: {x: never}}}\n", "a:1:29: there is no gate x; there are none? "},
		{`targets: {prod: {gates: {"canary.steps[1]": aproved}}}`, "a:1:45: people answer approved, rejected, skipped or never? approved"},
		{`targets: {prod: {gates: {"canary.steps[1]": {after: 1h}}}}`, "a:1:45: answer is missing: approved, rejected, skipped or never? "},
		{"targets: {prod: {ready: soon}}\n", "a:1:25: a time is expected here, as 90s or 1h30m or never? "},
		{"otherwise: {answer: never, after: -1s}\n", "a:1:35: a time is expected here, as 90s or 1h30m? "},
		{"otherwise: {answer: never, answer: never}\n", "a:1:28: answer stands here twice? "},
		{"accounts: {prod: {away: 1m}}\n", "a:1:18: a list is expected here: [{away: 10m, for: 1h}]? "},
		{"accounts: {prod: [{away: 1m, until: 2m}]}\n", "a:1:30: there is no key until; there are away, for? "},
		{"targets: [prod]\n", "a:1:10: a map is expected here, with keys of prod, staging? "},
		{"a: 1\nb: [\n", "a:2:1: not valid YAML: did not find expected node content? "},
		{"targets: {}\n---\ntargets: {}\n", "a:3:1: a second document; answers are one document? "},
	} {
		_, problems := simulate.Read("a", []byte(c.text), asked())
		var got []string
		for _, p := range problems {
			got = append(got, fmt.Sprintf("%s:%d:%d: %s? %s", p.File, p.Line, p.Column, p.Text, p.Suggestion))
		}
		if strings.Join(got, "\n") != c.want {
			t.Errorf("%q\n%s\nwant\n%s", c.text, strings.Join(got, "\n"), c.want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("targets: {prod: {ready: never, gates: {'canary.steps[1]': {answer: approved, after: 1h}}}}\naccounts: {prod: [{away: 1m}]}\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("---\n---\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		answers, problems := simulate.Read("a", text, asked())
		if len(problems) == 0 {
			simulate.Run(asked(), simulate.Assumptions{From: monday, Answers: answers})
		}
	})
}
