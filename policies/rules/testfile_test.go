package rules_test

import (
	"slices"
	"strings"
	"testing"

	"towpath/policies/rules"
)

func TestCasesSayHowFindingsDiffer(t *testing.T) {
	t.Parallel()
	s := set(t, head+"use: [keep-volumes]\nrules:\n  - {name: one, require: object.spec.replicas > 1, message: 'it has {{ object.spec.replicas }}'}\n  - {name: two, require: target.name != 'prod', message: no}\n")
	tests, problems := rules.ParseTests("p_test.yaml", []byte(`version: v1
kind: policy-tests
policies: [p.yaml]
cases:
  - name: as it is
    object: `+web+`
    target: {name: prod}
    expect: [one, {rule: two, message: "no"}]
  - name: less than there is
    object: `+web+`
    target: {name: prod}
    expect: [two]
  - name: more, and another message
    object: `+web+`
    expect: [{rule: one, message: it has 2}, three]
  - name: what goes
    operation: remove
    oldObject: `+claim+`
    expect: []
`))
	if len(problems) > 0 {
		t.Fatal(tell(problems))
	}
	var lines []string
	for _, c := range tests.Cases {
		lines = append(lines, c.Name)
		lines = append(lines, s.Differs(c)...)
	}
	want := []string{"as it is", "less than there is", "+ one: it has 1", "more, and another message", "- one: it has 2", "- three", "+ one: it has 1",
		"what goes", "+ keep-volumes: its data would go with it; keep the claim among the manifests"}
	if !slices.Equal(lines, want) || !slices.Equal(tests.Policies, []string{"p.yaml"}) {
		t.Errorf("got:\n%s", strings.Join(lines, "\n"))
	}
}

func TestWhatIsWrongWithCasesIsSaid(t *testing.T) {
	t.Parallel()
	const tests = "version: v1\nkind: policy-tests\npolicies: [p.yaml]\n"
	for name, c := range map[string]struct{ text, want string }{
		"no cases":             {tests + "cases: []\n", "1:1: the file has no cases"},
		"no policies":          {"version: v1\nkind: policy-tests\ncases: []\n", "1:1: policies is missing"},
		"no object":            {tests + "cases: [{name: a, expect: []}]\n", "4:9: object is missing"},
		"no manifest":          {tests + "cases: [{name: a, object: {kind: Pod}, expect: []}]\n", "4:27: not a Kubernetes object: apiVersion is missing"},
		"a removal of nothing": {tests + "cases: [{name: a, operation: remove, object: " + claim + ", expect: []}]\n", "4:9: a case of a removal has oldObject, what goes, and no object"},
		"another operation":    {tests + "cases: [{name: a, operation: delete, object: " + claim + ", expect: []}]\n", "4:30: \"delete\" is none of apply, remove"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if read, problems := rules.ParseTests("p_test.yaml", []byte(c.text)); !strings.Contains(tell(problems), c.want) || len(read.Cases) != 0 {
				t.Errorf("told:\n%s\nwant:\n%s", tell(problems), c.want)
			}
		})
	}
}
