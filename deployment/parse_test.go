package deployment_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"towpath/deployment"
)

// whole is a file that uses most of the format.
const whole = `version: v1
kind: kubernetes
application: potato facts
description: about potatoes
context: {team: spud}
deploymentConfig:
  timeout: {duration: 2, unit: Minutes}
  keepDeploymentObject: true
  ifDeploymentInProgress: {strategy: enqueueOne}
targets:
  staging:
    account: staging
    namespace: potato
    strategy: rolling
  prod-apac (canary):
    account: prod
    namespace: potato
    strategy: careful
    constraints:
      dependsOn: [staging]
      beforeDeployment:
        - pause: {untilApproved: true, requiresRoles: [sre], approvalExpiration: {duration: 1, unit: hours}}
      afterDeployment:
        - runWebhook: {name: tell}
manifests:
  - path: manifests/
  - inline: "kind: ConfigMap"
    targets: [staging]
  - kustomize: {path: overlays/prod}
  - helm: {chart: web, repository: https://charts.example.com, version: 1.2.3, values: {a: {b: 1}}}
strategies:
  rolling: {canary: {steps: [{setWeight: {weight: 100}}]}}
  careful:
    canary:
      workloads: [statefulset, DaemonSet]
      steps:
        - setWeight: {weight: 10}
        - analysis: {queries: [errors], interval: 10, units: seconds, numberOfJudgmentRuns: 3, rollForwardMode: MANUAL}
        - exposeServices: {services: [web], ttl: {duration: 10, unit: minutes}}
        - pause: {duration: 30, unit: seconds}
  blue:
    blueGreen:
      activeService: web
      redirectTrafficAfter: [{pause: {untilApproved: true}}]
      shutDownOldVersionAfter:
analysis:
  defaultMetricProviderName: prometheus
  queries:
    - {name: errors, queryTemplate: "rate{{armory.replicaSetName}}", upperLimit: 0.5}
webhooks:
  - name: tell
    method: post
    uriTemplate: https://example.com/{{armory.deploymentId}}
    headers: [{key: A, value: b}]
    bodyTemplate: {inline: "{}"}
    retryCount: 2
trafficManagement:
  - targets: [staging]
    kubernetes: [{activeService: web, previewService: web-preview}]
`

func TestAWholeFileIsReadWithItsDefaults(t *testing.T) {
	f, problems := deployment.Parse("deploy.yml", []byte(whole))
	if len(problems) != 0 {
		t.Fatalf("problems: %v", problems)
	}
	if f.Application != "potato facts" || f.Config.Timeout != 2*time.Minute || f.Config.IfInProgress != deployment.EnqueueOne {
		t.Errorf("the head was read as %+v", f)
	}
	prod := f.Target("prod-apac (canary)")
	if prod == nil || !slices.Equal(prod.DependsOn, []string{"staging"}) || prod.BeforeDeployment[0].Pause.ApprovalExpiration != time.Hour {
		t.Errorf("prod was read as %+v", prod)
	}
	steps := f.Strategy("careful").Canary
	if steps[1].Analysis.Interval != 10*time.Second || !steps[1].Analysis.ManualRollForward || steps[2].ExposeServices.TTL != 10*time.Minute || steps[3].Pause.Duration != 30*time.Second {
		t.Errorf("steps were read as %+v", steps)
	}
	if kinds := f.Strategy("careful").Workloads; !slices.Equal(kinds, []string{"StatefulSet", "DaemonSet"}) || f.Strategy("rolling").Workloads != nil {
		t.Errorf("workloads were read as %q", kinds)
	}
	if f.Webhooks[0].Method != "POST" || f.Manifests[3].Helm.Repository != "https://charts.example.com" || !f.Manifests[3].Helm.IncludeCRDs {
		t.Errorf("webhooks %+v, manifests %+v", f.Webhooks, f.Manifests)
	}
	bare, problems := deployment.Parse("deploy.yml", []byte("application: a\ntargets: {t: {account: x, strategy: s}}\nmanifests: [{path: m}]\nstrategies: {s: {canary: {steps: [{setWeight: {weight: 100}}]}}}\n"))
	if len(problems) != 0 || bare.Config.Timeout != 30*time.Minute || bare.Version != "v1" || bare.Kind != "kubernetes" {
		t.Errorf("defaults: %+v, %v", bare, problems)
	}
}

// base is a small file; cases add to it or change it.
const base = `application: shop
targets:
  staging: {account: staging, strategy: rolling}
  prod: {account: prod, strategy: rolling}
manifests: [{path: m}]
strategies: {rolling: {canary: {steps: [{setWeight: {weight: 100}}]}}}
`

// compared is a canary that is compared with the version before.
const compared = `application: shop
targets: {prod: {account: prod, strategy: careful}}
manifests: [{path: m}]
analysis: {defaultMetricProviderName: p, queries: [{name: errors, queryTemplate: "errors{{ towpath.replicaSetName }}", upperLimit: 1}]}
strategies:
  careful:
    canary:
      steps:
        - setWeight: {weight: 25}
        - analysis: {queries: [errors], interval: 1, units: minutes, numberOfJudgmentRuns: 10, baseline: true, reportOnly: 3}
`

// problems are files and what is said of them, as far as it begins so.
var problems = map[string]struct{ text, want string }{
	"an unknown key":                    {base + "targetz: {}\n", "7:1 error unknown key targetz; known here: version, kind, application, description, context, contextOverrides, targets, targetFilters, manifests, strategies, analysis, webhooks, trafficManagement, deploymentConfig, files → targets"},
	"a missing key":                     {"application: a\n", "1:1 error targets is required: where to deploy, by name"},
	"a reference to no target":          {strings.Replace(base, "prod: {", "prod: {constraints: {dependsOn: [stagin]}, ", 1), `4:36 error no target "stagin" → staging`},
	"a circle":                          {strings.NewReplacer("staging: {", "staging: {constraints: {dependsOn: [prod]}, ", "prod: {account", "prod: {constraints: {dependsOn: [staging]}, account").Replace(base), "3:27 error dependsOn goes in a circle: staging → prod → staging"},
	"a wrong type":                      {base + "deploymentConfig: {keepDeploymentObject: \"yes\"}\n", `7:42 error true or false is wanted here, this is the text "yes"`},
	"a timeout too short":               {base + "deploymentConfig: {timeout: {duration: 30, unit: seconds}}\n", "7:40 error the timeout is 30s; at least 60 seconds"},
	"an unknown word":                   {base + "deploymentConfig: {ifDeploymentInProgress: {strategy: queue}}\n", `7:55 error "queue" is none of reject, enqueueOne, supersede, batch`},
	"a duplicate key":                   {base + "application: b\n", "7:1 error duplicate key application (first at 1:1)"},
	"a variable without quotes":         {strings.Replace(base, "path: m", "inline: {{context.x}}", 1), `5:22 error YAML reads {{…}} without quotes as a map; quote it: "{{…}}"`},
	"path and inline":                   {strings.Replace(base, "path: m", "path: m, inline: x", 1), "5:23 error a manifest is one of path, inline, kustomize, helm; this is path and inline"},
	"roles beside a pause":              {strings.Replace(base, "{setWeight: {weight: 100}}", "{pause: {untilApproved: true}, requiresRoles: [a]}", 1), "6:72 error requiresRoles stands beside pause; it belongs under it, else anyone could approve → pause.requiresRoles"},
	"lambda":                            {"kind: lambda\n" + base, "1:7 error kind lambda is not supported; only kubernetes is deployed"},
	"a Kubernetes manifest":             {"apiVersion: apps/v1\nkind: Deployment\n", "1:1 error this is a Kubernetes manifest (apps/v1 Deployment), not a deployment file; a deployment file names it under manifests"},
	"a second document":                 {base + "---\nmore: yes\n", "8:1 error a second document with content; a deployment file is one document"},
	"broken YAML":                       {"application: [\n", "1:1 error not valid YAML: did not find expected node content"},
	"an unknown alias":                  {"application: *x\n", "1:14 error unknown alias x: no anchor &x comes before it"},
	"nothing":                           {"", "1:1 error the file is empty; a deployment file needs targets and manifests"},
	"an unknown kind of workload":       {strings.Replace(base, "canary: {", "canary: {workloads: [StatefulSets], ", 1), `6:45 error "StatefulSets" is none of StatefulSet, DaemonSet → StatefulSet`},
	"workloads of blue/green":           {strings.Replace(base, "canary: {steps: [{setWeight: {weight: 100}}]}", "blueGreen: {activeService: a, workloads: [DaemonSet]}", 1), "6:54 error unknown key workloads"},
	"tolerated: a kind named twice":     {strings.Replace(base, "canary: {", "canary: {workloads: [DaemonSet, daemonset], ", 1), "6:56 warning DaemonSet is named twice"},
	"tolerated: another case":           {strings.Replace(base, "manifests:", "Manifests:", 1), "5:1 warning the key is written manifests → manifests"},
	"tolerated: a short weight":         {strings.Replace(base, "{weight: 100}", "100", 1), "6:53 warning write it as setWeight: {weight: …}; the short form is understood"},
	"tolerated: no strategy":            {strings.Replace(base, "prod: {account: prod, strategy: rolling}", "prod: {account: prod}", 1), "4:3 warning no strategy; one is needed if a manifest of this target is a Deployment object"},
	"tolerated: an unknown target":      {strings.Replace(base, "path: m", "path: m, targets: [prdo]", 1), `5:33 warning no target "prdo"; it is skipped → prod`},
	"tolerated: a map for a list":       {base + "trafficManagement: {kubernetes: {activeService: a}}\n", "7:20 warning write it as a list; the single entry is understood | 7:33 warning write it as a list; the single entry is understood"},
	"tolerated: an unknown version":     {"version: v2\n" + base, "1:10 warning version v2 is not known; the file is read as v1"},
	"tolerated: a context of pairs":     {base + "context: [{a: b}, {name: c, value: d}]\n", "7:10 warning write it as a map of names to values; the list is understood"},
	"a baseline":                        {compared, ""},
	"a baseline without a share":        {strings.Replace(compared, "weight: 25", "weight: 0", 1), "10:106 error the canary has no share yet, so there is nothing to compare; a setWeight above 0 has to come before"},
	"a baseline without room":           {strings.Replace(compared, "weight: 25", "weight: 60", 1), "10:106 error at a weight of 60 there is no room for a baseline as large as the canary; up to 50 there is"},
	"a baseline of few runs":            {strings.Replace(compared, "Runs: 10", "Runs: 4", 1), "10:92 error a comparison with a baseline needs at least 5 runs; of 4 no difference can be told from chance"},
	"a baseline that looks back":        {strings.Replace(compared, "reportOnly: 3", "lookbackMethod: growing", 1), "10:128 error runs of a comparison look at times of their own; leave lookbackMethod out, or write sliding"},
	"a baseline that is not told apart": {strings.Replace(compared, "towpath.replicaSetName", "armory.namespace", 1), "10:32 error query errors asks the same of canary and baseline; its template has to name {{armory.replicaSetName}}"},
	"a baseline of blue/green": {strings.Replace(strings.Replace(compared, "canary:\n      steps:\n        - setWeight: {weight: 25}", "blueGreen:\n      activeService: a\n      redirectTrafficAfter:", 1), "reportOnly: 3", "reportOnly: 101", 1),
		"10:106 error only the steps of a canary can be compared with a baseline | 10:124 error 101 is not in 1–100"},
	"silent: comments, BOM and markers": {"\ufeff# a comment\n---\r\n" + base + "---\n", ""},
}

func TestEachProblemHasItsPlaceItsRemedyAndItsNearestName(t *testing.T) {
	for name, c := range problems {
		t.Run(name, func(t *testing.T) {
			f, problems := deployment.Parse("deploy.yml", []byte(c.text))
			var said []string
			for _, p := range problems {
				line := fmt.Sprintf("%d:%d %s %s", p.Line, p.Column, p.Severity, p.Text)
				if p.Suggestion != "" {
					line += " → " + p.Suggestion
				}
				said = append(said, line)
			}
			got := strings.Join(said, " | ")
			if !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if refused := strings.Contains(c.want, " error "); refused != (f == nil) {
				t.Errorf("the file was loaded: %v", f != nil)
			}
		})
	}
}

func TestAllProblemsAreToldAtOnceInFileOrder(t *testing.T) {
	_, problems := deployment.Parse("deploy.yml", []byte("aplication: a\ntargets: {t: {acount: x}}\nmanifests: []\nwebhooks: [{name: w}]\n"))
	var lines []int
	for _, p := range problems {
		lines = append(lines, p.Line)
	}
	if len(problems) < 5 || !slices.IsSorted(lines) {
		t.Errorf("problems: %v", problems)
	}
}

// hostile are files that want more than they should have.
var hostile = func() map[string]string {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'i'; c++ {
		bomb += fmt.Sprintf("%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n", c, c, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1)
	}
	return map[string]string{
		"an alias bomb": bomb + "files: {f: *i}\n", "a deep nest": "manifests: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000),
		"a large file": strings.Repeat("#", 3<<20), "many problems": strings.Repeat("x: 1\n", 1) + strings.Repeat("targets: {a: {b: 1}}\n", 500)}
}()

func TestHostileFilesAreRefusedQuickly(t *testing.T) {
	for name, text := range hostile {
		t.Run(name, func(t *testing.T) {
			f, problems := deployment.Parse("deploy.yml", []byte(text))
			if f != nil || len(problems) == 0 || len(problems) > 200 {
				t.Errorf("loaded %v with %d problems", f != nil, len(problems))
			}
		})
	}
}

var update = flag.Bool("update", false, "rewrite the generated page")

func TestTheReferenceIsCurrent(t *testing.T) {
	page, file := deployment.Reference(), "../docs/reference/deployment-file.md"
	if *update {
		if err := os.WriteFile(file, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != page {
		t.Errorf("%s is not what the types say (%v); run: make generate", file, err)
	}
}

func TestVariablesAreFilledIn(t *testing.T) {
	values := map[string]string{"armory.deploymentId": "d1", "context.team": "spud"}
	got, unknown := deployment.Fill("{{armory.deploymentId}} {{ towpath.deploymentId }} {{context.team}} {{x}}", func(name string) (string, bool) {
		v, ok := values[name]
		return v, ok
	})
	if got != "d1 d1 spud " || !slices.Equal(unknown, []string{"x"}) {
		t.Errorf("got %q, unknown %v", got, unknown)
	}
	nothing := func(string) (string, bool) { return "", false }
	for template, want := range map[string]string{
		"plain": "", "{{x}} {{ x }} {{towpath.x}}": "{{x}}, {{armory.x}} were filled with nothing", "{{" + strings.Repeat("a", 100) + "}}": "{{" + strings.Repeat("a", 40) + "…}} was filled with nothing",
		"{{1}}{{2}}{{3}}{{4}}{{5}}{{6}}{{7}}{{8}}{{9}}{{10}}{{11}}": "{{1}}, {{2}}, {{3}}, {{4}}, {{5}}, {{6}}, {{7}}, {{8}}, {{9}}, {{10}} were filled with nothing",
	} {
		if _, unknown := deployment.Fill(template, nothing); deployment.Unfilled(unknown) != want {
			t.Errorf("%s: it says %q, want %q", template, deployment.Unfilled(unknown), want)
		}
	}
	if all := deployment.Contexts(map[string]string{"a": "1", "b": "1"}, map[string]string{"b": "2"}); all["a"] != "1" || all["b"] != "2" {
		t.Errorf("contexts: %v", all)
	}
}

func TestVariablesThatNothingFillsAreWarnedOf(t *testing.T) {
	_, problems := deployment.Parse("deploy.yml", []byte(`application: shop
targets: {prod: {account: prod, strategy: s, constraints: {afterDeployment: [{runWebhook: {name: tell, context: {room: x}}}]}}}
manifests: [{path: "{{context.anything}}"}]
context: {team: spud}
strategies: {s: {canary: {steps: [{exposeServices: {services: [web]}}, {analysis: {queries: [errors], interval: 1, units: seconds, numberOfJudgmentRuns: 1, context: {factor: 1}}}]}}}
webhooks:
  - name: tell
    method: POST
    uriTemplate: https://example.com/{{armory.deploymentId}}/{{ armory.deploymentID }}
    headers: [{key: A, value: "é {{secrets.token}} {{context.teem}} {{armory.callbackUri}} {{context.room}}"}]
    bodyTemplate:
      inline: |
        {"link": "{{armory.preview.web}}",
         "team": "{{context.team}} {{towpath.aplicationName}} {{towpath.preview.wep}} {{towpath.preview.wep}} {{applicationName}} {{context.factor}}"}
analysis:
  defaultMetricProviderName: p
  queries:
    - {name: errors, upperLimit: 1, queryTemplate: "{{armory.promQlStepInterval}} {{context.factor}} {{armory.callbackUri}} {{secrets.token}} \u007b{context.room}}"}
`))
	var said []string
	for _, p := range problems {
		said = append(said, fmt.Sprintf("%d:%d %s %s: %s → %s", p.Line, p.Column, p.Severity, p.Field, p.Text, p.Suggestion))
	}
	want := []string{
		"9:62 warning webhooks[0].uriTemplate: there is no variable {{armory.deploymentID}} here; it becomes empty text → armory.deploymentId",
		"10:52 warning webhooks[0].headers[0].value: no context of this file has teem; unless --add-context gives it at the start, {{context.teem}} becomes empty text → context.team",
		"14:36 warning webhooks[0].bodyTemplate.inline: there is no variable {{towpath.aplicationName}} here; it becomes empty text → towpath.applicationName",
		"14:63 warning webhooks[0].bodyTemplate.inline: no exposeServices of this file names wep; {{towpath.preview.wep}} becomes empty text → towpath.preview.web",
		"14:111 warning webhooks[0].bodyTemplate.inline: {{applicationName}} is no variable, and becomes empty text; those that there are begin with armory., context. or secrets. → armory.applicationName",
		"14:131 warning webhooks[0].bodyTemplate.inline: no context of this file has factor; unless --add-context gives it at the start, {{context.factor}} becomes empty text → ",
		"18:52 warning analysis.queries[0].queryTemplate: no context of this file has room; unless --add-context gives it at the start, {{context.room}} becomes empty text → ",
		"18:102 warning analysis.queries[0].queryTemplate: there is no variable {{armory.callbackUri}} here; it becomes empty text → ",
		"18:125 warning analysis.queries[0].queryTemplate: secrets are filled in in webhooks, and a metric provider has its own in the controller's configuration; {{secrets.token}} becomes empty text → ",
	}
	if !slices.Equal(said, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(said, "\n"), strings.Join(want, "\n"))
	}
}

func TestAFileIsToldApartFromOthers(t *testing.T) {
	for text, want := range map[string]deployment.Kind{base: deployment.DeploymentFile, "application: a\n": deployment.DeploymentFile, "steps: []\n": deployment.Other, "": deployment.DeploymentFile,
		"apiVersion: v1\nkind: Service\n": deployment.Kubernetes, "a: [": deployment.DeploymentFile, "- x\n": deployment.Other} {
		if got := deployment.Identify([]byte(text)); got != want {
			t.Errorf("%q is %v, want %v", text, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{whole, base, "a: &a {<<: *a}", "targets: {t: }", "{{x}}", "webhooks: {a: b}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		file, problems := deployment.Parse("deploy.yml", text)
		if file == nil && len(problems) == 0 {
			t.Error("refused without a word")
		}
		if file != nil {
			if _, err := json.Marshal(file); err != nil {
				t.Error(err)
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for b.Loop() {
		deployment.Parse("deploy.yml", []byte(whole))
	}
}
