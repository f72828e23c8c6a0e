package deployment_test

import (
	"bytes"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"towpath/deployment"
)

// broken are files that both the schema and the reader refuse for their shape; sound are those that neither has anything against.
var broken = map[string]string{
	"no targets":                  strings.Replace(base, "targets:\n  staging: {account: staging, strategy: rolling}\n  prod: {account: prod, strategy: rolling}\n", "targets: {}\n", 1),
	"targets that are nothing":    strings.Replace(base, "targets:\n  staging: {account: staging, strategy: rolling}\n  prod: {account: prod, strategy: rolling}\n", "targets:\n", 1),
	"no manifests":                strings.Replace(base, "[{path: m}]", "[]", 1),
	"a manifest of nothing":       strings.Replace(base, "[{path: m}]", "[{}]", 1),
	"a manifest that is nothing":  strings.Replace(base, "[{path: m}]", "[null]", 1),
	"a manifest without its path": strings.Replace(base, "path: m", "path: ", 1),
	"a manifest of two kinds":     strings.Replace(base, "path: m", "helm: {path: m}, kustomize: {path: m}", 1),
	"a strategy of nothing":       strings.Replace(base, "canary: {steps: [{setWeight: {weight: 100}}]}", "", 1),
	"a strategy of an empty kind": strings.Replace(base, "canary: {steps: [{setWeight: {weight: 100}}]}", "blueGreen: ", 1),
	"a strategy of both kinds":    strings.Replace(base, "canary: {", "blueGreen: {}, canary: {", 1),
	"a step of nothing":           strings.Replace(base, "{setWeight: {weight: 100}}", "{}", 1),
	"a step that is nothing":      strings.Replace(base, "{setWeight: {weight: 100}}", "null", 1),
	"two steps in one":            strings.Replace(base, "{setWeight: {weight: 100}}", "{setWeight: {weight: 1}, pause: {duration: 1, unit: seconds}}", 1),
	"a step in the wrong place":   strings.Replace(base, "prod: {", "prod: {constraints: {afterDeployment: [{setWeight: {weight: 1}}]}, ", 1),
	"no steps":                    strings.Replace(base, "[{setWeight: {weight: 100}}]", "[]", 1),
	"a weight of 101":             strings.Replace(base, "100", "101", 1),
	"a weight in words":           strings.Replace(base, "100", "all", 1),
	"a weight that is nothing":    strings.Replace(base, "100", "", 1),
	"an unknown unit":             base + "deploymentConfig: {timeout: {duration: 5, unit: minute}}\n",
	"a unit that is a number":     base + "deploymentConfig: {timeout: {duration: 5, unit: 5}}\n",
	"a duration of 0":             base + "deploymentConfig: {timeout: {duration: 0, unit: minutes}}\n",
	"a number for true or false":  base + "deploymentConfig: {prune: 1}\n",
	"a list for a text":           base + "description: [a]\n",
	"a text for a map":            base + "context: a\n",
	"a text for a list":           base + "webhooks: a\n",
	"a limit in words":            base + "analysis: {defaultMetricProviderName: p, queries: [{name: q, queryTemplate: x, upperLimit: high}]}\n",
	"a webhook without a method":  base + "webhooks: [{name: w, uriTemplate: 'https://example.com'}]\n",
	"an unknown method":           base + "webhooks: [{name: w, method: FETCH, uriTemplate: 'https://example.com'}]\n",
	"101 tries":                   base + "webhooks: [{name: w, method: GET, uriTemplate: 'https://example.com', retryCount: 101}]\n",
}

var sound = map[string]string{
	"a whole file": whole, "a small file": base,
	"words in any letter case": strings.NewReplacer("enqueueOne", "ENQUEUEONE", "unit: minutes", "unit: mInUtEs", "method: post", "method: Post").Replace(whole),
	"keys without a value":     base + "description:\ncontext:\nwebhooks:\nanalysis:\ntrafficManagement:\ndeploymentConfig: {prune: , timeout: , ifDeploymentInProgress: }\nfiles:\ntargetFilters:\n",
	"a value without a text":   base + "context: {a: }\n",
	"a step's other key blank": strings.Replace(base, "{setWeight: {weight: 100}}", "{setWeight: {weight: 100}, pause: }", 1),
	"a manifest's other key":   strings.Replace(base, "path: m", "path: m, inline: , helm: ", 1),
	"a number for a text":      strings.Replace(base, "application: shop", "application: 7", 1),
	"a header without a value": base + "webhooks: [{name: w, method: GET, uriTemplate: 'https://example.com', headers: [{key: a, value: }]}]\n",
	"anchors and merges":       strings.Replace(base, "prod: {account: prod, strategy: rolling}", "prod: {<<: &x {account: prod}, strategy: rolling}", 1),
}

// beyond are files that break a rule which only the reader knows, by the rule as the reference says it.
var beyond = map[string][]string{
	"What a name refers to is there: targets in `dependsOn` and `targetFilters`, queries and webhooks in steps. `dependsOn` goes in no circle.": {
		problems["a reference to no target"].text, problems["a circle"].text, base + "targetFilters: [{includeTarget: x}]\n",
		step("{runWebhook: {name: x}}"), step("{analysis: {queries: [x], interval: 1, units: seconds, numberOfJudgmentRuns: 1}}")},
	"A chart comes from one place: `path`, or `repository` with `chart`, or `chart: oci://…`. One that is not in the Git repository has a `version`; a `repository` is an http:// or https:// address.": {
		helm("version: 1.0.0"), helm("path: m, repository: 'https://example.com', chart: a, version: 1.0.0"), helm("chart: a, repository: 'https://example.com'"), helm("chart: a, version: 1.0.0, repository: 'ftp://x'")},
	"A pause has `duration` with `unit`, or `untilApproved: true`.": {step("{pause: {duration: 1}}"), step("{pause: {unit: seconds}}"), step("{pause: {}}"), step("{pause: {requiresRoles: [a]}}")},
	"An analysis step has `units`, or `unit`, or both alike. Each of its queries has a metric provider: its own, the step's, or the default.": {
		step("{analysis: {queries: [q], interval: 1, numberOfJudgmentRuns: 1}}"), step("{analysis: {queries: [q], interval: 1, units: seconds, unit: minutes, numberOfJudgmentRuns: 1}}"),
		strings.Replace(step("{analysis: {queries: [q], interval: 1, units: seconds, numberOfJudgmentRuns: 1}}"), "defaultMetricProviderName: p, ", "", 1)},
	"An analysis with `baseline: true` stands in a canary, at a weight from 1 to 50. It has at least 5 runs, which look back one interval, and each of its queries names `{{armory.replicaSetName}}`.": {
		problems["a baseline without a share"].text, problems["a baseline without room"].text, problems["a baseline of few runs"].text, problems["a baseline that looks back"].text,
		problems["a baseline that is not told apart"].text,
		strings.Replace(base, "prod: {", "prod: {constraints: {afterDeployment: [{analysis: {queries: [q], interval: 1, units: seconds, numberOfJudgmentRuns: 5, baseline: true}}]}, ", 1) +
			"analysis: {defaultMetricProviderName: p, queries: [{name: q, queryTemplate: '{{armory.replicaSetName}}', upperLimit: 1}]}\n"},
	"A query has `upperLimit` or `lowerLimit`, and a name of its own.": {
		base + "analysis: {defaultMetricProviderName: p, queries: [{name: q, queryTemplate: x}]}\n",
		base + "analysis: {defaultMetricProviderName: p, queries: [{name: q, queryTemplate: x, upperLimit: 1}, {name: q, queryTemplate: x, upperLimit: 1}]}\n"},
	"An entry of `trafficManagement` has one of `kubernetes`, `smi`, `istio`, `gateway`.": {base + "trafficManagement: [{targets: [prod]}]\n"},
	"The timeout is at least 60 seconds. The `ttl` of `exposeServices` is 1 minute to 24 hours, and its `services` are names as Kubernetes has them.": {
		problems["a timeout too short"].text, step("{exposeServices: {services: [a], ttl: {duration: 25, unit: hours}}}"),
		step("{exposeServices: {services: [../web]}}")},
	"A whole number is written in digits: `10`, not `10.0`.":                                 {strings.Replace(base, "100", "100.0", 1)},
	"A key stands in one spelling: not `defaultAccount` beside `defaultMetricProviderName`.": {base + "analysis: {defaultAccount: a, defaultMetricProviderName: b}\n"},
	"A file is one document.": {problems["a second document"].text},
}

// step is base with another first step, and what it may name.
func step(text string) string {
	return strings.Replace(base, "steps: [", "steps: ["+text+", ", 1) +
		"analysis: {defaultMetricProviderName: p, queries: [{name: q, queryTemplate: x, upperLimit: 1}]}\nwebhooks: [{name: w, method: GET, uriTemplate: 'https://example.com'}]\n"
}

func helm(text string) string { return strings.Replace(base, "path: m", "helm: {"+text+"}", 1) }

// compiled is the schema of deployment files.
func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := jsonschema.UnmarshalJSON(bytes.NewReader(deployment.Schema()))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("deployment.json", text); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("deployment.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// held is what a schema says of a file as an editor reads it: with YAML 1.2's words, its first document. known is false for what is no value at all.
func held(t *testing.T, schema *jsonschema.Schema, text string) (refused error, known bool) {
	t.Helper()
	var value any
	if err := yaml.Unmarshal([]byte(strings.TrimPrefix(text, "\ufeff")), &value); err != nil {
		return nil, false
	}
	converted, err := json.Marshal(value)
	if err != nil {
		return nil, false
	}
	plain, err := jsonschema.UnmarshalJSON(bytes.NewReader(converted))
	if err != nil {
		t.Fatal(err)
	}
	return schema.Validate(plain), true
}

var particular = regexp.MustCompile(`"[^"]*"|\d+[hms\d]*|: .*`)

// kind is a problem's sentence without what is particular of a file.
func kind(p deployment.Problem) string { return particular.ReplaceAllString(p.Text, "…") }

// The schema and the reader come of one tree of shapes. What one refuses the other refuses, but for older files' flaws, of which the reader only warns, and for
// the rules of a table that only the reader knows. All files of this package's tables are held against both.
func TestTheSchemaAgreesWithTheReader(t *testing.T) {
	schema := compiled(t)
	ruled := map[string]bool{} // kinds of problems that only the reader knows
	for rule, texts := range beyond {
		for _, text := range texts {
			f, found := deployment.Parse("deploy.yml", []byte(text))
			if refused, known := held(t, schema, text); f != nil || !known || refused != nil {
				t.Errorf("%s\nThe schema says %v, the reader %v of:\n%s", rule, refused, found, text)
			}
			for _, p := range found {
				ruled[kind(p)] = ruled[kind(p)] || p.Severity == deployment.Error
			}
		}
	}
	all := map[string]string{}
	for name, c := range problems {
		all["a problem: "+name] = c.text
	}
	for prefix, table := range map[string]map[string]string{"broken: ": broken, "sound: ": sound, "hostile: ": hostile} {
		for name, text := range table {
			all[prefix+name] = text
		}
	}
	for name, text := range all {
		t.Run(name, func(t *testing.T) {
			refused, known := held(t, schema, text)
			f, found := deployment.Parse("deploy.yml", []byte(text))
			errors := slices.DeleteFunc(slices.Clone(found), func(p deployment.Problem) bool { return p.Severity != deployment.Error })
			ofShape := slices.DeleteFunc(slices.Clone(errors), func(p deployment.Problem) bool { return ruled[kind(p)] })
			switch {
			case !known:
				if f != nil {
					t.Errorf("an editor cannot read it, and the reader can")
				}
			case strings.HasPrefix(name, "broken: ") && (f != nil || refused == nil), strings.HasPrefix(name, "sound: ") && (len(found) > 0 || refused != nil):
				t.Errorf("the schema says %v, the reader %v", refused, found)
			case len(found) == len(errors) && (len(ofShape) > 0) != (refused != nil), len(ofShape) > 0 && refused == nil:
				t.Errorf("the schema says %v, the reader %v", refused, found)
			}
		})
	}
}

func TestTheReferenceListsTheRulesThatTheSchemaDoesNotKnow(t *testing.T) {
	_, section, found := strings.Cut(deployment.Reference(), "\n## What the JSON Schema does not know\n")
	var listed, known []string
	for _, line := range strings.Split(section, "\n") {
		if rule, is := strings.CutPrefix(line, "- "); is {
			listed = append(listed, rule)
		}
	}
	for rule := range beyond {
		known = append(known, rule)
	}
	slices.Sort(listed)
	slices.Sort(known)
	if !found || !slices.Equal(listed, known) {
		t.Errorf("listed:\n%s\nwith files that break them:\n%s", strings.Join(listed, "\n"), strings.Join(known, "\n"))
	}
}
