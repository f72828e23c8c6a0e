package deployment

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Parse reads a deployment file. It returns all problems, in file order; the file is nil when any of them is an Error.
func Parse(path string, text []byte) (*File, []Problem) {
	r := &reader{file: path}
	root := r.document(text)
	if root == nil {
		return nil, r.problems
	}
	if what := manifestKind(root); what != "" {
		r.fail(position(root), "", "this is a Kubernetes manifest (%s), not a deployment file; a deployment file names it under manifests", what)
		return nil, r.problems
	}
	if root.Kind != yaml.MappingNode {
		r.fail(position(root), "", "a deployment file is a map with targets and manifests, this is %s", kindOf(root))
		return nil, r.problems
	}
	v := r.read(root, fileShape(), position(root), "", 0)
	if v != nil {
		r.check(v)
		r.variables(v, text)
	}
	slices.SortStableFunc(r.problems, func(a, b Problem) int { return cmp.Or(a.Line-b.Line, a.Column-b.Column) })
	for _, p := range r.problems {
		if p.Severity == Error {
			return nil, r.problems
		}
	}
	return build(path, v), r.problems
}

// manifestKind is "VERSION KIND" of a Kubernetes manifest, "" for anything else.
func manifestKind(root *yaml.Node) string {
	var apiVersion, kind string
	for i := 0; root.Kind == yaml.MappingNode && i+1 < len(root.Content); i += 2 {
		switch root.Content[i].Value {
		case "apiVersion":
			apiVersion = root.Content[i+1].Value
		case "kind":
			kind = root.Content[i+1].Value
		case "targets":
			return ""
		}
	}
	if apiVersion == "" || kind == "" {
		return ""
	}
	return cut(apiVersion) + " " + cut(kind)
}

// Kind is what a file that may be a deployment file is.
type Kind int

// Kinds of files.
const (
	Other          Kind = iota // nothing of ours
	DeploymentFile             // has targets or an application, or cannot be read as YAML: its author should hear of it
	Kubernetes                 // a Kubernetes manifest
)

// Identify tells what a file is, without checking it.
func Identify(text []byte) Kind {
	r := &reader{}
	root := r.document(text)
	switch {
	case len(r.problems) > 0 && root == nil:
		return DeploymentFile
	case root == nil || root.Kind != yaml.MappingNode:
		return Other
	case manifestKind(root) != "":
		return Kubernetes
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		if key := root.Content[i].Value; strings.EqualFold(key, "targets") || strings.EqualFold(key, "application") {
			return DeploymentFile
		}
	}
	return Other
}

// ApplicationOf is the application that a text names, though it may be no valid deployment file; "" when that cannot be read.
func ApplicationOf(text []byte) string {
	root := (&reader{}).document(text)
	if root == nil || root.Kind != yaml.MappingNode {
		return ""
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		if name := root.Content[i+1]; strings.EqualFold(root.Content[i].Value, "application") && name.Kind == yaml.ScalarNode && name.Tag == "!!str" {
			return name.Value
		}
	}
	return ""
}

// build makes the typed file of a value that is without errors.
func build(path string, v *value) *File {
	f := &File{Path: path, Version: cmp.Or(v.get("version").text(), "v1"), Kind: cmp.Or(v.get("kind").text(), "kubernetes"), Application: v.get("application").text(),
		Description: v.get("description").text(), Context: v.get("context").texts(), ContextOverrides: v.get("contextOverrides").texts(), Config: buildConfig(v.get("deploymentConfig"))}
	for _, t := range v.get("targets").named() {
		f.Targets = append(f.Targets, buildTarget(t))
	}
	for _, filter := range v.get("targetFilters").list() {
		f.TargetFilters = append(f.TargetFilters, filter.get("includeTarget").text())
	}
	for _, m := range v.get("manifests").list() {
		f.Manifests = append(f.Manifests, buildManifest(f, m))
	}
	for _, s := range v.get("strategies").named() {
		f.Strategies = append(f.Strategies, buildStrategy(s))
	}
	f.Analysis = buildAnalysis(v.get("analysis"))
	for _, w := range v.get("webhooks").list() {
		f.Webhooks = append(f.Webhooks, buildWebhook(w))
	}
	for _, t := range v.get("trafficManagement").list() {
		f.TrafficManagement = append(f.TrafficManagement, buildTraffic(f, t))
	}
	for _, e := range v.get("files").named() {
		if f.Files == nil {
			f.Files = map[string][]string{}
		}
		f.Files[e.name] = e.strings()
	}
	return f
}

func (v *value) strings() []string {
	var all []string
	for _, item := range v.list() {
		all = append(all, item.scalar)
	}
	return all
}

func (v *value) texts() map[string]string {
	if v == nil {
		return nil
	}
	all := make(map[string]string, len(v.fields))
	for _, e := range v.fields {
		all[e.name] = e.scalar
	}
	return all
}

// known leaves out names of targets that are none.
func (f *File) known(names []string) []string {
	return slices.DeleteFunc(names, func(name string) bool { return f.Target(name) == nil })
}

func buildConfig(v *value) Config {
	c := Config{Timeout: 30 * time.Minute, KeepDeploymentObject: v.get("keepDeploymentObject").isTrue(), Prune: v.get("prune").isTrue(),
		IfInProgress: InProgress(v.get("ifDeploymentInProgress").get("strategy").text())}
	if timeout := v.get("timeout"); timeout != nil {
		c.Timeout = timeout.period()
	}
	return c
}

func buildTarget(e entry) Target {
	t := Target{Name: e.name, Position: e.at, Account: e.get("account").text(), Namespace: e.get("namespace").text(), Strategy: e.get("strategy").text(),
		AccountPosition: e.at, StrategyPosition: e.at}
	if account := e.get("account"); account != nil {
		t.AccountPosition = account.at
	}
	if strategy := e.get("strategy"); strategy != nil {
		t.StrategyPosition = strategy.at
	}
	constraints := e.get("constraints")
	t.DependsOn = constraints.get("dependsOn").strings()
	t.BeforeDeployment = buildSteps(constraints.get("beforeDeployment"))
	t.AfterDeployment = buildSteps(constraints.get("afterDeployment"))
	if when := e.get("unreachable").text(); when != "wait" {
		t.Unreachable = when
	}
	t.Heal = e.get("drift").text() == "heal"
	return t
}

func buildManifest(f *File, v *value) Manifest {
	named := v.get("targets").strings()
	m := Manifest{Position: v.at, Path: v.get("path").text(), Inline: v.get("inline").text(), Targets: f.known(slices.Clone(named)), AllowUnstable: v.get("allowUnstable").isTrue()}
	if inline := v.get("inline"); inline.get("value") != nil {
		m.Inline = inline.get("value").text()
	}
	if len(named) > 0 && len(m.Targets) == 0 {
		m.Targets = named // all of them unknown: for no target, not for all
	}
	if k := v.get("kustomize"); k != nil {
		m.Kustomize = &Kustomize{Path: k.get("path").text()}
	}
	if h := v.get("helm"); h != nil {
		m.Helm = &Helm{Chart: h.get("chart").text(), Version: h.get("version").text(), Repository: h.get("repository").text(), Path: h.get("path").text(),
			ReleaseName: h.get("releaseName").text(), ValueFiles: h.get("valueFiles").strings(), IncludeCRDs: h.get("includeCRDs") == nil || h.get("includeCRDs").isTrue(),
			KubeVersion: h.get("kubeVersion").text(), APIVersions: h.get("apiVersions").strings()}
		if values := h.get("values"); values != nil {
			m.Helm.Values = map[string]any{}
			for _, e := range values.fields {
				m.Helm.Values[e.name] = e.raw
			}
		}
		if m.Helm.Path == "" && m.Helm.Repository == "" && !strings.HasPrefix(m.Helm.Chart, "oci://") {
			m.Helm.Path, m.Helm.Chart = m.Helm.Chart, ""
		}
	}
	return m
}

func buildStrategy(e entry) Strategy {
	s := Strategy{Name: e.name, Position: e.at, Canary: buildSteps(e.get("canary").get("steps"))}
	for _, kind := range e.get("canary").get("workloads").strings() {
		if !slices.Contains(s.Workloads, kind) {
			s.Workloads = append(s.Workloads, kind)
		}
	}
	if b := e.get("blueGreen"); b != nil {
		s.BlueGreen = &BlueGreen{ActiveService: b.get("activeService").text(), PreviewService: b.get("previewService").text(),
			RedirectTrafficAfter: buildSteps(b.get("redirectTrafficAfter")), ShutDownOldVersionAfter: buildSteps(b.get("shutDownOldVersionAfter"))}
	}
	return s
}

func buildSteps(v *value) []Step {
	var steps []Step
	for _, item := range v.list() {
		s := Step{Position: item.at}
		only := item.fields[0]
		switch only.name {
		case "setWeight":
			s.SetWeight = &SetWeight{Weight: only.get("weight").number()}
		case "pause":
			s.Pause = buildPause(only.value)
		case "analysis":
			s.Analysis = &AnalysisStep{Queries: only.get("queries").strings(), Runs: only.get("numberOfJudgmentRuns").number(),
				ManualRollBack: only.get("rollBackMode").text() == "manual", ManualRollForward: only.get("rollForwardMode").text() == "manual",
				Lookback: only.get("lookbackMethod").text(), AbortOnFailedJudgment: only.get("abortOnFailedJudgment").isTrue(),
				MetricProvider: only.get("metricProviderName").text(), Context: only.get("context").texts(), Interval: only.interval(),
				Baseline: only.get("baseline").isTrue(), ReportOnly: only.get("reportOnly").number()}
		case "runWebhook":
			s.RunWebhook = &RunWebhook{Name: only.get("name").text(), Context: only.get("context").texts()}
		case "exposeServices":
			s.ExposeServices = &ExposeServices{Services: only.get("services").strings(), TTL: 5 * time.Minute}
			if ttl := only.get("ttl"); ttl != nil {
				s.ExposeServices.TTL = ttl.period()
			}
		}
		steps = append(steps, s)
	}
	return steps
}

// interval of an analysis: interval and units, or unit.
func (v *value) interval() time.Duration {
	unit := v.get("units")
	if unit == nil {
		unit = v.get("unit")
	}
	return (&value{fields: []entry{{name: "duration", value: v.get("interval")}, {name: "unit", value: unit}}}).period()
}

func buildPause(v *value) *Pause {
	p := &Pause{UntilApproved: v.get("untilApproved").isTrue(), RequiresRoles: v.get("requiresRoles").strings(), Approvals: 1}
	if v.get("duration") != nil && !p.UntilApproved {
		p.Duration = v.period()
	}
	if expiration := v.get("approvalExpiration"); expiration != nil {
		p.ApprovalExpiration = expiration.period()
	}
	if approvals := v.get("approvals"); approvals != nil {
		p.Approvals = approvals.number()
	}
	if self := v.get("allowSelfApproval"); self != nil {
		allowed := self.isTrue()
		p.AllowSelfApproval = &allowed
	}
	return p
}

func buildAnalysis(v *value) *Analysis {
	if v == nil {
		return nil
	}
	a := &Analysis{DefaultMetricProvider: v.get("defaultMetricProviderName").text()}
	for _, q := range v.get("queries").list() {
		a.Queries = append(a.Queries, Query{Name: q.get("name").text(), Template: q.get("queryTemplate").text(), Position: q.at,
			UpperLimit: q.get("upperLimit").decimal(), LowerLimit: q.get("lowerLimit").decimal(), MetricProvider: q.get("metricProviderName").text(),
			NoDataPasses: strings.EqualFold(q.get("noData").text(), "pass")})
	}
	return a
}

func (v *value) decimal() *float64 {
	if v == nil {
		return nil
	}
	n, err := strconv.ParseFloat(v.scalar, 64)
	if err != nil {
		var whole int64
		whole, _ = strconv.ParseInt(strings.ReplaceAll(v.scalar, "_", ""), 0, 64) // YAML's 0x10 and 1_000
		n = float64(whole)
	}
	return &n
}

func buildWebhook(v *value) Webhook {
	w := Webhook{Name: v.get("name").text(), Position: v.at, Method: v.get("method").text(), URITemplate: v.get("uriTemplate").text(),
		Remote: v.get("networkMode").text() == "remoteNetworkAgent", Agent: v.get("agentIdentifier").text(), BodyTemplate: v.get("bodyTemplate").get("inline").text(),
		RetryCount: v.get("retryCount").number(), DisableCallback: v.get("disableCallback").isTrue()}
	for _, h := range v.get("headers").list() {
		w.Headers = append(w.Headers, Header{h.get("key").text(), h.get("value").text()})
	}
	return w
}

func buildTraffic(f *File, v *value) TrafficManagement {
	named := v.get("targets").strings()
	t := TrafficManagement{Position: v.at, Targets: f.known(slices.Clone(named))}
	if len(named) > 0 && len(t.Targets) == 0 {
		t.Targets = named
	}
	for _, k := range v.get("kubernetes").list() {
		t.Kubernetes = append(t.Kubernetes, KubernetesTraffic{k.get("activeService").text(), k.get("previewService").text()})
	}
	for _, s := range v.get("smi").list() {
		root := s.get("rootServiceName").text()
		t.SMI = append(t.SMI, SMITraffic{root, s.get("canaryServiceName").text(), cmp.Or(s.get("trafficSplitName").text(), root)})
	}
	for _, i := range v.get("istio").list() {
		service, rule := i.get("virtualService"), i.get("destinationRule")
		t.Istio = append(t.Istio, IstioTraffic{VirtualService: service.get("name").text(), HTTPRoute: service.get("httpRouteName").text(),
			DestinationRule: rule.get("name").text(), ActiveSubset: rule.get("activeSubsetName").text(), CanarySubset: rule.get("canarySubsetName").text()})
	}
	for _, g := range v.get("gateway").list() {
		route := GatewayTraffic{HTTPRoute: g.get("httpRoute").text(), ActiveService: g.get("activeService").text(), CanaryService: g.get("canaryService").text()}
		for _, h := range g.get("matchHeaders").list() {
			route.MatchHeaders = append(route.MatchHeaders, Header{h.get("name").text(), h.get("value").text()})
		}
		t.Gateway = append(t.Gateway, route)
	}
	return t
}
