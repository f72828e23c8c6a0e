package rules_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	sigsyaml "sigs.k8s.io/yaml"

	"towpath/deployment"
	"towpath/manifest"
	"towpath/policies/rules"
)

// object reads one manifest.
func object(t *testing.T, text string) *manifest.Object {
	t.Helper()
	json, err := sigsyaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	o, err := manifest.New(json, "apps/web.yaml:3")
	if err != nil {
		t.Fatal(err)
	}
	return &o
}

// set compiles a policy file.
func set(t *testing.T, text string) rules.Set {
	t.Helper()
	s, problems := rules.Parse([]rules.File{{Path: "policies/pods.yaml", Source: "source platform", Text: []byte(text)}})
	if len(problems) > 0 {
		t.Fatalf("the rules are refused: %+v", problems)
	}
	return s
}

const head = "version: v1\nkind: policies\n"

const claim = "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data, namespace: shop}, spec: {}}"

const web = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop, labels: {team: web}}, spec: {replicas: 1, template: {spec: {containers: [{name: web, image: shop/web}]}}}}"

func TestARuleIsAboutWhatItMatches(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		rule  string
		about bool
	}{
		"no match":                        {"", true},
		"its kind":                        {"match: {kinds: [Deployment]}", true},
		"its kind and group":              {"match: {kinds: [Deployment.apps]}", true},
		"its kind in another group":       {"match: {kinds: [Deployment.example.com]}", false},
		"another kind":                    {"match: {kinds: [Service]}", false},
		"a pattern of its target":         {"match: {targets: [prod*]}", true},
		"another target":                  {"match: {targets: [staging]}", false},
		"its namespace and account":       {"match: {namespaces: [shop], accounts: [prod-*]}", true},
		"its namespace, another account":  {"match: {namespaces: [shop], accounts: [dev]}", false},
		"another application":             {"match: {applications: [blog]}", false},
		"all but its namespace":           {"except: {namespaces: [shop]}", false},
		"all but something else":          {"except: {namespaces: [shop], targets: [staging]}", true},
		"removals, and it is no removal":  {"on: [remove]", false},
		"both, and it is no removal":      {"on: [apply, remove]", true},
		"what the expression lets pass":   {"match: {kinds: ['*']}\n    variables: {team: object.metadata.labels.team}\n    otherwise: deny", true},
		"an exception of another account": {"except: {accounts: [dev]}", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := set(t, head+"rules:\n  - name: never\n    require: 'false'\n    message: no\n    "+c.rule+"\n")
			found := s.Judge(rules.Case{Operation: rules.Apply, Object: object(t, web), Target: rules.Target{Name: "prod-eu", Account: "prod-eu-1", Namespace: "shop"}, Application: "shop"})
			if (len(found) == 1) != c.about {
				t.Errorf("found %+v", found)
			}
		})
	}
}

func TestExpressionsSeeTheObjectAndItsSurroundings(t *testing.T) {
	t.Parallel()
	older := object(t, strings.Replace(web, "replicas: 1", "replicas: 3", 1))
	for _, require := range []string{
		"object.spec.replicas == 1 && object.spec.replicas < 1.5",
		"oldObject.spec.replicas == 3",
		"operation == 'apply' && application == 'shop'",
		"target.name == 'prod' && target.account == 'prod-1' && target.namespace == 'shop'",
		"podSpec.containers.size() == 1 && containers[0].name == 'web'",
		"object.?spec.?strategy.?type.orValue('RollingUpdate') == 'RollingUpdate'",
		"!has(object.metadata.annotations)",
		"containers.exists(c, c.image.matches('^shop/[a-z]+$'))",
	} {
		s := set(t, head+"rules: [{name: sees, require: \""+require+"\", message: no}]\n")
		c := rules.Case{Operation: rules.Apply, Object: object(t, web), Old: older, Target: rules.Target{Name: "prod", Account: "prod-1", Namespace: "shop"}, Application: "shop"}
		if found := s.Judge(c); len(found) != 0 {
			t.Errorf("%s: %+v", require, found)
		}
	}
}

func TestAFindingSaysRuleObjectTargetFileAndWhatToChange(t *testing.T) {
	t.Parallel()
	s := set(t, head+`rules:
  - name: replicas
    variables: {wanted: "2"}
    require: object.spec.replicas >= variables.wanted
    message: it has {{ object.spec.replicas }} of {{ variables.wanted }} replicas; set spec.replicas
  - name: teams
    require: "'owner' in object.metadata.labels"
    otherwise: warn
    message: "{{ object.metadata.labels.owner }} owns it; name the owner"
  - name: keep
    on: [remove]
    require: oldObject.kind != 'Deployment' && object == null
    message: "{{ oldObject.metadata.name }} is to stay"
  - name: asks-for-more-than-there-is
    require: object.spec.strategy.type == 'Recreate'
    message: no
`)
	var said []string
	for _, c := range []rules.Case{{Operation: rules.Apply, Object: object(t, web)}, {Operation: rules.Remove, Old: object(t, web)}} {
		c.Target = rules.Target{Name: "prod"}
		for _, f := range s.Judge(c) {
			said = append(said, string(f.Severity)+" "+f.Sentence())
		}
	}
	want := []string{
		"error rule replicas (policies/pods.yaml:4 of source platform) refuses Deployment.apps shop/web on target prod (apps/web.yaml:3): it has 1 of 2 replicas; set spec.replicas",
		"warning rule teams (policies/pods.yaml:8 of source platform) warns of Deployment.apps shop/web on target prod (apps/web.yaml:3): ? owns it; name the owner",
		"error rule asks-for-more-than-there-is (policies/pods.yaml:16 of source platform) refuses Deployment.apps shop/web on target prod (apps/web.yaml:3): " +
			"it cannot be judged, and so does not keep the rule: no such key: strategy (where it may be missing, the rule has to ask with .?NAME or has(…))",
		"error rule keep (policies/pods.yaml:12 of source platform) refuses the removal of Deployment.apps shop/web from target prod (apps/web.yaml:3): web is to stay",
	}
	if !slices.Equal(said, want) {
		t.Errorf("said:\n%s", strings.Join(said, "\n"))
	}
}

func TestValuesOfSecretsAreNotShownToRules(t *testing.T) {
	t.Parallel()
	s := set(t, head+"rules: [{name: looks, require: 'false', message: '{{ object.stringData.password }} {{ oldObject.data.password }} {{ size(object.stringData) }}'}]\n")
	found := s.Judge(rules.Case{Operation: rules.Apply, Object: object(t, "{apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {password: hunter2}}"),
		Old: object(t, "{apiVersion: v1, kind: Secret, metadata: {name: s}, data: {password: aHVudGVyMg==}}")})
	if len(found) != 1 || found[0].Message != "(hidden) (hidden) 1" {
		t.Errorf("found %+v", found)
	}
}

func TestWhatIsWrongWithAFileIsSaidWhereItStands(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"an empty file":    {"", "1:1: the file is empty; write version: v1, kind: policies"},
		"no YAML":          {head + "rules: [", "3:1: not valid YAML: did not find expected node content"},
		"no rules":         {head, "1:1: the file has no rules; name some of the library under use, or write some under rules"},
		"two documents":    {head + "---\nkind: x\n", "3:1: a second document; the file is one document"},
		"an unknown key":   {head + "rulez: []\n", "3:1: unknown key rulez; there are version, kind, use, rules → rules"},
		"a key twice":      {head + "kind: policies\n", "3:1: kind is there twice"},
		"another kind":     {"version: v2\nkind: policy\n", "1:10: \"v2\" is none of v1 → v1\n2:7: \"policy\" is none of policies → policies"},
		"what is missing":  {head + "rules:\n  - name: a\n", "4:5: require is missing\n4:5: message is missing"},
		"a name twice":     {head + "rules:\n  - {name: a, require: 'true', message: no}\n  - {name: a, require: 'true', message: no}\n", "5:5: a second rule named a"},
		"a bad name":       {head + "rules: [{name: A b, require: 'true', message: no}]\n", "3:16: \"A b\" is no name of a rule: small letters, digits and -, at most 63"},
		"a mistyped name":  {head + "rules:\n  - name: a\n    message: no\n    require: target.nam == 'prod'\n", "6:20: undeclared reference to 'target.nam' (did you mean 'target.name'?)"},
		"a quoted one":     {head + "rules: [{name: a, message: no, require: \"objct.kind == 'x'\"}]\n", "3:42: undeclared reference to 'objct' (did you mean 'object'?)"},
		"one on its lines": {head + "rules:\n  - name: a\n    message: no\n    require: |\n      true &&\n        objct.x == 1\n", "8:9: undeclared reference to 'objct' (did you mean 'object'?)"},
		"bad syntax":       {head + "rules: [{name: a, message: no, require: 'true &&'}]\n", "3:49: mismatched input '<EOF>'"},
		"no truth":         {head + "rules: [{name: a, message: no, require: application}]\n", "3:41: the expression is of the type string; bool is wanted"},
		"types that differ": {head + "rules: [{name: a, message: no, require: application == 1}]\n",
			"3:53: found no matching overload for '_==_' applied to '(string, int)'"},
		"a variable before it is there": {head + "rules:\n  - name: a\n    message: no\n    variables:\n      one: variables.two\n      two: '2'\n    require: 'true'\n",
			"7:12: undeclared reference to 'variables'"},
		"an open expression in a message": {head + "rules:\n  - name: a\n    require: 'true'\n    message: 'x {{ application'\n", "6:19: {{ is never closed by }}"},
		"a mistake in a message":          {head + "rules:\n  - name: a\n    require: 'true'\n    message: 'x {{ applicatio }}'\n", "6:20: undeclared reference to 'applicatio' (did you mean 'application'?)"},
		"an unknown rule of the library":  {head + "use: [limit]\n", "3:7: \"limit\" is none of keep-volumes, limits, no-latest-tag, not-privileged, two-replicas-in-production → limits"},
		"production that is not named":    {head + "use: [two-replicas-in-production]\n", "3:7: two-replicas-in-production is about production: say which targets those are, as {rule: two-replicas-in-production, match: {targets: [prod*]}}"},
		"an empty list":                   {head + "use: [{rule: limits, match: {targets: []}}]\n", "3:39: an empty list fits nothing; leave the key out where everything is meant"},
		"a bad pattern":                   {head + "use: [{rule: limits, match: {targets: ['[']}}]\n", "3:40: \"[\" is no pattern"},
		"an alias":                        {head + "use: [&a limits, *a]\n", "3:18: aliases are not taken here; write the value out"},
		"another word":                    {head + "use: [{rule: limits, otherwise: dent}]\n", "3:33: \"dent\" is none of deny, warn → deny"},
		"a regular expression that costs": {head + "rules: [{name: a, message: no, require: \"application.matches('(a{500}){500}')\"}]\n", "regex"},
		"a deep expression":               {head + "rules: [{name: a, message: no, require: '" + strings.Repeat("(", 200) + "true" + strings.Repeat(")", 200) + "'}]\n", "expression recursion limit exceeded"},
		"a long expression":               {head + "rules: [{name: a, message: no, require: '" + strings.Repeat("true && ", 1000) + "true'}]\n", "the expression has 8004 bytes; at most 4096 are taken"},
		"macros in macros": {head + "rules: [{name: a, message: no, require: '" + strings.Repeat("[1].all(x, ", 60) + "true" + strings.Repeat(")", 60) + "'}]\n",
			"expression recursion limit exceeded"},
		"a large file": {head + strings.Repeat("#", 300<<10), "1:1: the file has 307227 bytes; at most 262144 are taken"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, problems := rules.Parse([]rules.File{{Path: "p.yaml", Text: []byte(c.text)}})
			if told := tell(problems); !strings.Contains(told, c.want) || s.Len() != 0 {
				t.Errorf("told:\n%s\nwant:\n%s", told, c.want)
			}
		})
	}
}

func tell(problems []deployment.Problem) string {
	var lines []string
	for _, p := range problems {
		line := fmt.Sprintf("%d:%d: %s", p.Line, p.Column, p.Text)
		if p.Suggestion != "" {
			line += " → " + p.Suggestion
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func TestAllMistakesOfAllFilesAreTold(t *testing.T) {
	t.Parallel()
	_, problems := rules.Parse([]rules.File{
		{Path: "one.yaml", Text: []byte(head + "rules:\n  - {name: a, require: x, message: '{{ y }}'}\n  - {name: b, require: 'true', on: [delete]}\n")},
		{Path: "two.yaml", Text: []byte("version: v3\n")},
	})
	var files []string
	for _, p := range problems {
		files = append(files, fmt.Sprintf("%s:%d", p.File, p.Line))
	}
	if want := []string{"one.yaml:4", "one.yaml:4", "one.yaml:5", "one.yaml:5", "two.yaml:1", "two.yaml:1"}; !slices.Equal(files, want) {
		t.Errorf("told of %v:\n%s", files, tell(problems))
	}
}

// What an expression may take is bounded by steps, not by time, so that it is the same everywhere.
func TestAnExpressionThatTakesTooMuchIsRefusedAndSaysSo(t *testing.T) {
	t.Parallel()
	var items strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&items, "k%d: %s,", i, strings.Repeat("a", 300))
	}
	large := object(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {"+items.String()+" all: '"+strings.Repeat("ab", 400_000)+"'}}")
	for name, c := range map[string]struct{ variables, require string }{
		"lists in lists":            {"", "object.data.all(a, object.data.all(b, object.data.all(c, a != b || b != c || c != '')))"},
		"a list that is made":       {"", "object.data.map(a, object.data.map(b, object.data.map(c, a + b + c))).size() > 0"},
		"texts that double":         {"a0: object.data.all, a1: v.a0+v.a0, a2: v.a1+v.a1, a3: v.a2+v.a2, a4: v.a3+v.a3, a5: v.a4+v.a4, a6: v.a5+v.a5, a7: v.a6+v.a6, a8: v.a7+v.a7, a9: v.a8+v.a8", "v.a9.size() > 0"},
		"a regular expression":      {"", "object.data.map(k, object.data.all.matches('(a|b)*(a|b)*(a|b)*(a|b)*c')).size() > 0"},
		"a pattern of the object":   {"", "object.data.all.matches(object.data.all)"},
		"texts that are compared":   {"", "object.data.all(k, object.data.all + k != object.data.all)"},
		"objects that are compared": {"", "object.data.all(a, object.data.all(b, object == object))"},
		"a list in which is looked": {"", "object.data.all(a, !(object in [1, object.metadata, object.data]))"},
		"a list with many entries":  {"", "object.data.all(k, object.data.map(x, x).size() > 0)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := strings.ReplaceAll("    variables: {"+c.variables+"}\n    require: "+c.require, "v.a", "variables.a")
			found := set(t, head+"rules:\n  - name: costs\n    message: no\n"+text+"\n").Judge(rules.Case{Operation: rules.Apply, Object: large})
			if len(found) != 1 || !strings.HasPrefix(found[0].Message, "it cannot be judged, and so does not keep the rule: ") || found[0].Severity != deployment.Error {
				t.Errorf("found %+v", found)
			} else if !strings.Contains(found[0].Message, "the rule must ask for less") && !strings.Contains(found[0].Message, "regex") {
				t.Errorf("it says: %s", found[0].Message)
			}
		})
	}
}

func TestMessagesAreShortAndPlain(t *testing.T) {
	t.Parallel()
	s := set(t, head+"rules: [{name: long, require: 'false', message: \"{{ object.data.text }}{{ object.data.text }}\"}]\n")
	found := s.Judge(rules.Case{Operation: rules.Apply, Object: object(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {text: \"a\\u001b[31m\\u202eb\\n"+strings.Repeat("x", 2000)+"\"}}")})
	if len(found) != 1 || !strings.HasPrefix(found[0].Message, "a[31mb xxx") || len(found[0].Message) > 510 {
		t.Errorf("found %d bytes: %.40q", len(found[0].Message), found[0].Message)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(head + "use: [limits, {rule: no-latest-tag, match: {kinds: [Pod]}, otherwise: warn}]\nrules:\n  - name: a\n    on: [apply, remove]\n    variables: {a: '1'}\n    require: |\n      true\n    message: x {{ a }}\n"))
	f.Add([]byte("version: [\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, problems := rules.Parse([]rules.File{{Path: "p.yaml", Text: text}})
		if (s.Len() == 0) != (len(problems) > 0) {
			t.Errorf("%d rules and %d problems", s.Len(), len(problems))
		}
		for _, p := range problems {
			if p.Line < 1 || p.Column < 1 || p.Text == "" {
				t.Errorf("a problem without a place: %+v", p)
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for b.Loop() {
		rules.Parse([]rules.File{{Path: "p.yaml", Text: []byte(head + "use: [limits, no-latest-tag, not-privileged, keep-volumes]\n")}})
	}
}

func BenchmarkJudge(b *testing.B) {
	s, _ := rules.Parse([]rules.File{{Path: "p.yaml", Text: []byte(head + "use: [limits, no-latest-tag, not-privileged, keep-volumes]\n")}})
	o, err := manifest.New([]byte(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"template":{"spec":{"containers":[{"name":"web","image":"web:1","resources":{"limits":{"memory":"1Gi","cpu":1}}}]}}}}`), "web.yaml")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s.Judge(rules.Case{Operation: rules.Apply, Object: &o})
	}
}
