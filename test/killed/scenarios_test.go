package killed

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"towpath/api"
	"towpath/internal/testkit/world"
)

// scenario is a deployment that is cut at its points in turn.
type scenario struct {
	file     string                        // the deployment file
	next     func(version int) string      // manifests of a version
	runs     func(version int) string      // manifests of what runs before; nil: those of a workload
	back     func(version int) string      // manifests that bring the world back to where the next cut starts; nil: the next version does
	people   func(*course, api.Deployment) // what people do about a deployment as they see it; they look often
	sample   int                           // of the points, by seed; 0: each of them
	job      bool                          // the file calls a webhook, JOB, which calls back
	measures bool                          // the file has metrics measured
	routed   bool                          // a router divides the traffic of prod
	asks     bool                          // a Secret is encrypted, an autoscaler counts the pods, and a step makes a link
}

const (
	halfThenPause    = `{canary: {steps: [{setWeight: {weight: 50}}, {pause: {duration: 1, unit: seconds}}]}}`
	halfThenApproval = `{canary: {steps: [{setWeight: {weight: 50}}, {pause: {untilApproved: true}}]}}`
	nobodyApproves   = `{canary: {steps: [{setWeight: {weight: 50}}, {pause: {untilApproved: true, approvalExpiration: {duration: 1, unit: seconds}}}]}}`
	fleetsToHalf     = `{canary: {workloads: [StatefulSet, DaemonSet], steps: [{setWeight: {weight: 50}}, {pause: {untilApproved: true}}]}}`
	halfThenMeasured = `{canary: {steps: [{setWeight: {weight: 50}}, {analysis: {queries: [errors], interval: 1, units: seconds, numberOfJudgmentRuns: 3}}]}}`
	measured         = `analysis: {defaultMetricProviderName: outside, queries: [{name: errors, queryTemplate: "{{armory.endTimeEpochMillis}}", upperLimit: 1}]}`
	quarterCompared  = `{canary: {steps: [{setWeight: {weight: 25}}, {analysis: {queries: [errors], interval: 1, units: seconds, numberOfJudgmentRuns: 5, baseline: true}}]}}`
	byRevision       = `analysis: {defaultMetricProviderName: outside, queries: [{name: errors, queryTemplate: "{{armory.replicaSetName}}", upperLimit: 1}]}`
	halfThenJob      = `{canary: {steps: [{setWeight: {weight: 50}}, {runWebhook: {name: job}}]}}`
	job              = `webhooks: [{name: job, method: POST, uriTemplate: "JOB", bodyTemplate: {inline: '{"deployment": "{{armory.deploymentId}}", "back": "{{armory.callbackUri}}", "token": "{{armory.callbackToken}}"}'}}]`
	linkThenApproval = `{canary: {steps: [{setWeight: {weight: 50}}, {exposeServices: {services: [web], ttl: {duration: 10, unit: minutes}}}, {pause: {untilApproved: true}}]}}`
	linkThenNobody   = `{canary: {steps: [{setWeight: {weight: 50}}, {exposeServices: {services: [web], ttl: {duration: 10, unit: minutes}}}, {pause: {untilApproved: true, approvalExpiration: {duration: 1, unit: seconds}}}]}}`
	turns            = `{blueGreen: {redirectTrafficAfter: [{pause: {untilApproved: true}}], shutDownOldVersionAfter: [{pause: {duration: 1, unit: seconds}}]}}`
)

var scenarios = map[string]scenario{
	"two targets": {file: world.TwoTargets("shop", ""), next: version},
	"rolled back": {file: world.TwoTargets("shop", ""), back: version, next: func(n int) string {
		return strings.Replace(version(n), "ports: [{port: 80}]", "ports: [{port: 99999}]", 1)
	}},
	"canary":     {file: world.OnProd(halfThenPause, ""), next: version, sample: 8},
	"approval":   {file: world.OnProd(halfThenApproval, ""), next: version, people: approve, sample: 8},
	"expiry":     {file: world.OnProd(nobodyApproves, ""), next: version, sample: 8},
	"blue/green": {file: world.OnProd(turns, "trafficManagement: [{kubernetes: [{activeService: web}]}]"), next: version, people: approve, sample: 8},
	"traffic":    {file: world.OnProd(halfThenPause, "trafficManagement: [{smi: [{rootServiceName: web}]}]"), next: version, sample: 16, routed: true},
	"istio": {file: world.OnProd(halfThenPause, "trafficManagement: [{istio: [{virtualService: {name: web}, destinationRule: {name: web, activeSubsetName: main}}]}]"),
		runs: byIstio, next: byIstio, sample: 8, routed: true},
	"compared":      {file: world.OnProd(quarterCompared, byRevision+"\ntrafficManagement: [{gateway: [{httpRoute: web}]}]"), runs: byGateway, next: byGateway, measures: true, sample: 8, routed: true},
	"hooks":         {file: world.OnProd(halfThenPause, ""), runs: hooked, next: hooked, sample: 8},
	"superseded":    {file: world.OnProd(halfThenApproval, ""), next: version, people: supersede, sample: 8},
	"taken over":    {file: world.OnProd(halfThenPause, "  keepDeploymentObject: true"), next: version, sample: 8},
	"webhook":       {file: world.OnProd(halfThenJob, job), next: version, job: true, sample: 8},
	"analysis":      {file: world.OnProd(halfThenMeasured, measured), next: version, measures: true, sample: 8},
	"fleets":        {file: world.OnProd(fleetsToHalf, ""), runs: fleets, next: fleets, people: approve, sample: 16},
	"held":          {file: world.OnProd(halfThenApproval, ""), next: version, people: holdOnce, sample: 8},
	"asking":        {file: world.OnProd(linkThenApproval, ""), runs: scaled, next: scaled, people: approveLinked, asks: true, sample: 8},
	"asked in vain": {file: world.OnProd(linkThenNobody, ""), runs: scaled, next: scaled, asks: true, sample: 8},
}

// version is a workload that differs from all others.
func version(n int) string { return world.Workload("web", fmt.Sprint("example.com/web:", n)) }

// byIstio is a version whose traffic a VirtualService divides, byGateway one whose traffic an HTTPRoute does.
func byIstio(n int) string {
	return version(n) + `
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec: {hosts: [web], http: [{route: [{destination: {host: web, subset: main}}]}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec: {host: web, subsets: [{name: main, labels: {app: web}}]}
`
}

func byGateway(n int) string {
	return version(n) + `
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec: {rules: [{backendRefs: [{name: web, port: 80}]}]}
`
}

// hooked is a version before which a Job runs, and after which a ConfigMap is made.
func hooked(n int) string {
	return version(n) + fmt.Sprintf(`
---
apiVersion: batch/v1
kind: Job
metadata: {name: migrate, annotations: {helm.sh/hook: "pre-install,pre-upgrade", helm.sh/hook-delete-policy: before-hook-creation}}
spec:
  backoffLimit: 0
  template:
    metadata: {annotations: {localcluster/exit: "0 after 0.2s"}}
    spec: {restartPolicy: Never, containers: [{name: migrate, image: "example.com/migrate:%d"}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: told, annotations: {helm.sh/hook: post-upgrade, helm.sh/hook-delete-policy: hook-succeeded}}
`, n)
}

// fleets is a version with a StatefulSet and a DaemonSet.
func fleets(n int) string {
	image := fmt.Sprint("example.com/web:", n)
	one := func(kind, name, more string) string {
		return fmt.Sprintf("\n---\napiVersion: apps/v1\nkind: %s\nmetadata: {name: %s}\nspec: {%sselector: {matchLabels: {app: %[2]s}}, template: {metadata: {labels: {app: %[2]s}}, "+
			"spec: {containers: [{name: main, image: %[4]q}]}}}\n", kind, name, more, image)
	}
	return version(n) + one("StatefulSet", "db", "serviceName: db, replicas: 2, ") + one("DaemonSet", "agent", "")
}

// course is one run of a scenario.
type course struct {
	*cutting
	commits []string
	said    map[string]bool // requests that were answered: people do not ask twice
	held    bool            // a hold was seen
}

func (c *cutting) begin(manifests func(int) string) *course {
	c.Helper()
	return &course{cutting: c, commits: []string{c.commit(manifests)}, said: map[string]bool{}}
}

// goesOn has people look once and reports whether all has ended.
func (c *cutting) goesOn(run *course) (ended bool) {
	c.Helper()
	ended = true
	for _, commit := range run.commits {
		d, found := c.Find("shop", commit)
		if !found || d.Ended == nil {
			ended = false
		}
		if found && d.Ended == nil && c.people != nil {
			c.people(run, d)
		}
	}
	return ended
}

// waits reports whether a target of a deployment waits for a kind of thing, and by which name.
func waits(d api.Deployment, kind string) (target, gate string, ok bool) {
	for _, t := range d.Targets {
		for _, w := range t.Waits {
			if w.Kind == kind {
				return t.Name, w.Gate, true
			}
		}
	}
	return "", "", false
}

// ask is a person's request, once: when nobody answers they look again later.
func (run *course) ask(method, path string, body any) {
	request := fmt.Sprint(method, path, body)
	if run.said[request] {
		return
	}
	if err := run.API.Call(run.Context(), method, path, body, nil); err != nil {
		run.Logf("%s %s: %v", method, path, err) // it is asked again when it still waits
		return
	}
	run.said[request] = true
}

func approve(run *course, d api.Deployment) {
	if target, gate, ok := waits(d, "approval"); ok {
		run.ask(http.MethodPost, "/deployments/"+d.ID+"/approve", api.Word{Target: target, Gate: gate})
	}
}

// supersede commits another version while the first waits at its weight, and approves that one.
func supersede(run *course, d api.Deployment) {
	_, _, asked := waits(d, "approval")
	switch first := d.Commit == run.commits[0]; {
	case !asked:
	case first && len(run.commits) == 1:
		run.commits = append(run.commits, run.commit(run.next))
		run.TryAnnounce()
	case !first:
		approve(run, d)
	}
}

// holdOnce halts what waits for an approval, lets it go on, and approves it.
func holdOnce(run *course, d api.Deployment) {
	_, _, halted := waits(d, "hold")
	_, _, asked := waits(d, "approval")
	switch {
	case halted:
		run.held = true
		run.ask(http.MethodDelete, "/holds?scope=application&name="+url.QueryEscape("shop"), nil)
	case asked && !run.held:
		run.ask(http.MethodPost, "/holds", map[string]string{"scope": "application", "name": "shop", "reason": "a look at it"})
	case asked:
		approve(run, d)
	}
}
