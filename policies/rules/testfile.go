package rules

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"

	"towpath/deployment"
	"towpath/manifest"
)

// IsTest reports whether a file of this name holds test cases of rules, and no rules.
func IsTest(name string) bool {
	return strings.HasSuffix(name, "_test.yaml") || strings.HasSuffix(name, "_test.yml")
}

// Tests is a file of test cases.
type Tests struct {
	Policies []string // files of the rules, from the test file's own directory
	Cases    []Test
}

// Test is an object, and which rules it does not keep.
type Test struct {
	Name   string
	Line   int // of the file
	Case   Case
	Expect []Expected
}

// Expected is a finding that a test wants.
type Expected struct {
	Rule    string
	Message string // the whole of it; "": any
}

// maxCases is how many cases a file has.
const maxCases = 1000

// ParseTests reads a file of test cases. It returns all problems, in file order; there are no cases when there is any.
func ParseTests(file string, text []byte) (Tests, []deployment.Problem) {
	r := &reader{file: file}
	root, ok := r.document(text, "policy-tests")
	if !ok {
		return Tests{}, r.problems
	}
	fields := r.fields(root, "version", "kind", "policies", "cases")
	r.required(root, fields, "version", "kind", "policies", "cases")
	r.word(fields["version"], "v1")
	r.word(fields["kind"], "policy-tests")
	var t Tests
	for _, e := range r.items(fields["policies"], maxFiles) {
		t.Policies = append(t.Policies, r.text(e))
	}
	for _, e := range r.items(fields["cases"], maxCases) {
		t.Cases = append(t.Cases, r.test(e))
	}
	if len(r.problems) == 0 && len(t.Cases) == 0 {
		r.fail(root.at(), "cases", "the file has no cases")
	}
	if len(r.problems) > 0 {
		return Tests{}, r.sorted()
	}
	return t, nil
}

func (r *reader) test(e entry) Test {
	fields := r.fields(e, "name", "operation", "application", "target", "object", "oldObject", "expect")
	r.required(e, fields, "name", "expect")
	t := Test{Name: r.text(fields["name"]), Line: e.node.Line, Case: Case{Operation: Apply, Application: r.text(fields["application"])}}
	if r.word(fields["operation"], string(Apply), string(Remove)) == string(Remove) {
		t.Case.Operation = Remove
	}
	if target, said := fields["target"]; said {
		f := r.fields(target, "name", "account", "namespace")
		t.Case.Target = Target{Name: r.text(f["name"]), Account: r.text(f["account"]), Namespace: r.text(f["namespace"])}
	}
	t.Case.Object, t.Case.Old = r.manifest(fields["object"]), r.manifest(fields["oldObject"])
	if t.Case.Operation == Remove {
		if t.Case.Old == nil || fields["object"].node != nil {
			r.fail(e.at(), e.path, "a case of a removal has oldObject, what goes, and no object")
		}
	} else if fields["object"].node == nil {
		r.fail(e.at(), join(e.path, "object"), "object is missing")
	}
	for _, item := range r.items(fields["expect"], maxRules) {
		if item.node.Kind == yaml.ScalarNode {
			t.Expect = append(t.Expect, Expected{Rule: r.text(item)})
			continue
		}
		f := r.fields(item, "rule", "message")
		r.required(item, f, "rule")
		t.Expect = append(t.Expect, Expected{r.text(f["rule"]), r.text(f["message"])})
	}
	return t
}

// manifest of a case; nil where there is none, or none that can be read, which is reported.
func (r *reader) manifest(e entry) *manifest.Object {
	if e.node == nil {
		return nil
	}
	text, err := yaml.Marshal(e.node)
	if err == nil {
		text, err = sigsyaml.YAMLToJSON(text)
	}
	if err != nil {
		r.fail(e.at(), e.path, "not valid YAML: %v", err)
		return nil
	}
	o, err := manifest.New(text, fmt.Sprintf("%s:%d", r.file, e.node.Line))
	if err != nil {
		r.fail(e.at(), e.path, "%s", strings.TrimPrefix(err.Error(), fmt.Sprintf("%s:%d: ", r.file, e.node.Line)))
		return nil
	}
	return &o
}

// Differs says how what rules find differs from what a test wants, a line each: "- " begins what was not found, "+ " what nobody wanted.
func (s Set) Differs(t Test) []string {
	var lines []string
	found := s.Judge(t.Case)
	taken := make([]bool, len(found))
	for _, e := range t.Expect {
		missing := true
		for i, f := range found {
			if missing && !taken[i] && f.Rule == e.Rule && (e.Message == "" || e.Message == f.Message) {
				taken[i], missing = true, false
			}
		}
		if missing {
			lines = append(lines, strings.TrimSuffix("- "+e.Rule+": "+e.Message, ": "))
		}
	}
	for i, f := range found {
		if !taken[i] {
			lines = append(lines, "+ "+f.Rule+": "+f.Message)
		}
	}
	return lines
}
