package deployment

// shape is what a value of the file may look like. One tree of shapes is the source of the reader, the JSON Schema and the reference page.
type shape struct {
	kind  kind
	keys  []key    // of an object
	item  *shape   // of a list, or of a map's values
	words []string // of an enumeration, in the spelling that counts
	known []string // words beside them that are understood and refused
	least int      // a number's smallest value, the smallest length of a list or map
	most  int      // a number's largest value; 0: none

	one   bool   // a list that may be written as its single item, with a warning
	pairs string // a map that may be written as a list of one-pair maps or of {name, value}, or (for "key") the reverse, with a warning
	short string // an object that may be written as the value of this key alone, with a warning

	choice []string // of an object: exactly one of these keys is there
}

type kind int

const (
	object kind = iota
	list
	mapping // free names → item
	text    // scalars of other types count as their text
	whole
	decimal
	truth
	word // of an enumeration, whatever the case
	anything
)

// key is one key of an object.
type key struct {
	name     string
	shape    *shape
	doc      string
	def      string // default, for people
	required bool
	ours     bool   // not of the earlier product
	void     bool   // without effect: known, and warned about
	means    string // an early spelling of this key
}

func obj(keys ...key) *shape        { return &shape{kind: object, keys: keys} }
func oneOf(keys ...key) *shape      { return obj(keys...).choosing(len(keys)) }
func listOf(item *shape) *shape     { return &shape{kind: list, item: item} }
func mapOf(item *shape) *shape      { return &shape{kind: mapping, item: item} }
func enum(words ...string) *shape   { return &shape{kind: word, words: words} }
func number(least, most int) *shape { return &shape{kind: whole, least: least, most: most} }
func atLeastOne(item *shape) *shape { return &shape{kind: list, item: item, least: 1} }
func required(k key) key            { k.required = true; return k }
func ours(k key) key                { k.ours = true; return k }
func void(name string, s *shape) key {
	return key{name: name, shape: s, void: true, doc: "without effect"}
}
func defaults(k key, def string) key           { k.def = def; return k }
func field(n string, s *shape, doc string) key { return key{name: n, shape: s, doc: doc} }

// choosing makes an object one that has exactly one of its first n keys.
func (s *shape) choosing(n int) *shape {
	s.choice = s.names()[:n]
	return s
}

func str() *shape      { return &shape{kind: text} }
func boolean() *shape  { return &shape{kind: truth} }
func anyValue() *shape { return &shape{kind: anything} }

// texts is a map of names to texts, as context is.
func texts() *shape { return &shape{kind: mapping, item: str(), pairs: "value"} }

func timeUnit() *shape { return enum("none", "seconds", "minutes", "hours") }

// period is a duration and its unit.
func period(doc string) []key {
	return []key{field("duration", number(1, 0), doc), field("unit", timeUnit(), "of the duration")}
}

// fileShape is the whole deployment file.
func fileShape() *shape {
	return obj(
		defaults(field("version", str(), "schema version"), "v1"),
		defaults(field("kind", &shape{kind: word, words: []string{"kubernetes"}, known: []string{"lambda"}}, "only kubernetes is deployed"), "kubernetes"),
		field("application", str(), "the name shown everywhere; required unless a flag gives it"),
		field("description", str(), "free text, shown with the deployment"),
		field("context", texts(), "values for {{context.NAME}} in every step"),
		field("contextOverrides", texts(), "the same, over those of a step"),
		required(field("targets", &shape{kind: mapping, item: targetShape(), least: 1}, "where to deploy, by name")),
		field("targetFilters", listOf(obj(required(field("includeTarget", str(), "name of a target")))), "deploy to only these targets"),
		required(field("manifests", atLeastOne(manifestShape()), "what to deploy")),
		field("strategies", mapOf(strategyShape()), "how to deploy, by name; may be absent where nothing is a Deployment object"),
		field("analysis", analysisShape(), "metric queries that analysis steps name"),
		field("webhooks", listOf(webhookShape()), "external calls that runWebhook steps name"),
		field("trafficManagement", &shape{kind: list, item: trafficShape(), one: true}, "how traffic reaches the versions"),
		field("deploymentConfig", configShape(), "limits that hold for all targets"),
		field("files", mapOf(listOf(str())), "file contents that a client attached for a manifest path"),
		void("metadata", anyValue()),
		void("artifacts", anyValue()), void("providerOptions", anyValue()),
	)
}

func configShape() *shape {
	return obj(
		defaults(field("timeout", obj(required(field("duration", number(1, 0), "how long")), required(field("unit", timeUnit(), "of the duration"))),
			"how long pods may take to become ready before the target goes back; at least 60 seconds"), "30 minutes"),
		defaults(field("keepDeploymentObject", boolean(), "put the Deployment object back at the end"), "false"),
		field("ifDeploymentInProgress", obj(required(field("strategy", enum("reject", "enqueueOne", "supersede", "batch"),
			"what a new deployment does to one under way of the same application; supersede and batch are ours"))), "one deployment of an application at a time"),
		ours(defaults(field("prune", boolean(), "objects of a target, or of the file, that is deleted go too"), "false")),
	)
}

func targetShape() *shape {
	return obj(
		field("account", str(), "name of the agent whose cluster this is; required unless a flag gives it"),
		field("namespace", str(), "overrides the namespace of every namespaced manifest; absent: each manifest's own"),
		field("strategy", str(), "a name under strategies; needed where a manifest is a Deployment object"),
		field("constraints", obj(
			field("dependsOn", listOf(str()), "targets that must have succeeded first"),
			field("beforeDeployment", listOf(stepShape(constraintSteps)), "run in parallel before the target starts"),
			field("afterDeployment", listOf(stepShape(constraintSteps)), "run in parallel after the rollout, before dependents start"),
		), "when the target may start, and when it is done"),
		ours(defaults(field("unreachable", enum("wait", "skip", "fail"), "what becomes of the target when its agent is away as it is to start"), "wait")),
		ours(defaults(field("drift", enum("report", "heal"), "what becomes of objects that somebody changes or deletes in the cluster: they are told, or put back"), "report")),
		void("deployAsIamRole", anyValue()), void("region", anyValue()),
	)
}

func manifestShape() *shape {
	return obj(
		field("path", str(), "a file, a directory (everything below it), or an http(s) URL of one file"),
		field("inline", &shape{kind: text, short: "value"}, "YAML text"),
		ours(field("kustomize", obj(required(field("path", str(), "directory of the kustomization"))), "a kustomization to be built")),
		ours(field("helm", obj(
			field("chart", str(), "name of the chart in the repository, or oci://HOST/PATH"),
			field("version", str(), "exact version; required unless the chart lies in the Git repository"),
			field("repository", str(), "https:// address of a chart repository"),
			field("path", str(), "of the chart in the Git repository"),
			field("releaseName", str(), "name of the release"),
			field("values", &shape{kind: mapping, item: anyValue()}, "values, over those of valueFiles"),
			field("valueFiles", listOf(str()), "files of values, later over earlier"),
			defaults(field("includeCRDs", boolean(), "CRDs of the chart's crds directory too"), "true"),
			field("kubeVersion", str(), "version of Kubernetes to render for; absent: the cluster's"),
			field("apiVersions", listOf(str()), "APIs to render for, beside the cluster's"),
		), "a Helm chart to be rendered")),
		ours(defaults(field("allowUnstable", boolean(), "templates may use lookup, random and time functions: their first result is kept"), "false")),
		field("targets", listOf(str()), "names of targets; absent: all"),
	).choosing(4)
}

func strategyShape() *shape {
	return oneOf(
		field("canary", obj(
			required(field("steps", atLeastOne(stepShape(canarySteps)), "in sequence")),
			ours(defaults(field("workloads", listOf(enum("StatefulSet", "DaemonSet")), "kinds that take the steps beside Deployment objects; others are applied as they are"), "none")),
		), "weights, one after another"),
		field("blueGreen", obj(
			field("redirectTrafficAfter", listOf(stepShape(switchSteps)), "in parallel; when all pass, the active Service points at the new version"),
			field("shutDownOldVersionAfter", listOf(stepShape(switchSteps)), "in parallel; when all pass, the old version goes"),
			field("activeService", str(), "name of a Service; also settable under trafficManagement.kubernetes"),
			field("previewService", str(), "name of a Service; also settable under trafficManagement.kubernetes"),
		), "a Service switched at once"),
	)
}

// Which steps may stand where.
var (
	constraintSteps = []string{"pause", "runWebhook", "analysis"}
	canarySteps     = []string{"setWeight", "pause", "analysis", "runWebhook", "exposeServices"}
	switchSteps     = []string{"pause", "runWebhook", "analysis", "exposeServices"}
)

// mostReportOnly is how many deployments an analysis may only report.
const mostReportOnly = 100

func stepShape(kinds []string) *shape {
	steps := map[string]key{
		"setWeight": field("setWeight", &shape{kind: object, short: "weight", keys: []key{required(field("weight", number(0, 100), "share of the new version, 0–100"))}}, "sets the new version's share"),
		"pause": field("pause", obj(append(period("how long to wait"),
			field("untilApproved", boolean(), "wait for a person"),
			field("requiresRoles", listOf(str()), "any one of these roles may approve; absent: anyone with access"),
			field("approvalExpiration", obj(required(field("duration", number(1, 0), "how long")), required(field("unit", timeUnit(), "of the duration"))), "the target goes back when nobody approved until then"),
			ours(defaults(field("approvals", number(1, 0), "how many people must approve"), "1")),
			ours(field("allowSelfApproval", boolean(), "whether the author may approve")),
		)...), "waits for time, or for a person"),
		"analysis": field("analysis", obj(
			required(field("queries", atLeastOne(str()), "names of queries; all must pass")),
			required(field("interval", number(1, 0), "between two runs")),
			field("units", timeUnit(), "of the interval"), field("unit", timeUnit(), "of the interval"),
			required(field("numberOfJudgmentRuns", number(1, 0), "how often each query runs")),
			defaults(field("rollBackMode", enum("automatic", "manual"), "manual: a person confirms going back"), "automatic"),
			defaults(field("rollForwardMode", enum("automatic", "manual"), "manual: a person confirms going on"), "automatic"),
			field("lookbackMethod", enum("growing", "sliding"), "growing: from the start of the analysis; sliding: one interval"),
			defaults(field("abortOnFailedJudgment", boolean(), "the first bad run ends it"), "false"),
			field("metricProviderName", str(), "provider of queries that name none"),
			field("context", texts(), "values for {{context.NAME}} in the queries"),
			ours(defaults(field("baseline", boolean(), "in a canary: as many pods of the version before, started for it, serve beside the new ones, and the new ones must not do worse"), "false")),
			ours(field("reportOnly", number(1, mostReportOnly), "in so many deployments of the target, from the first with this very analysis, a bad verdict is told and stops nothing")),
		), "runs metric queries and judges them"),
		"runWebhook": field("runWebhook", obj(
			required(field("name", str(), "of a webhook")), field("context", texts(), "values for {{context.NAME}} in the call"), void("unit", anyValue()),
		), "calls a webhook and waits for its answer"),
		"exposeServices": field("exposeServices", obj(
			required(field("services", atLeastOne(str()), "names of Services in the target's namespace")),
			defaults(field("ttl", obj(required(field("duration", number(1, 0), "how long")), required(field("unit", timeUnit(), "of the duration"))), "1 minute to 24 hours"), "5 minutes"),
		), "makes temporary public links to Services, and passes at once"),
	}
	var keys []key
	for _, name := range kinds {
		keys = append(keys, steps[name])
	}
	return oneOf(keys...)
}

func analysisShape() *shape {
	return obj(
		field("defaultMetricProviderName", str(), "provider of queries and steps that name none"),
		key{name: "defaultAccount", shape: str(), means: "defaultMetricProviderName", doc: "early spelling of defaultMetricProviderName"},
		void("defaultType", anyValue()),
		field("queries", listOf(obj(
			required(field("name", str(), "for steps to name it")),
			required(field("queryTemplate", str(), "the query, with variables")),
			field("upperLimit", &shape{kind: decimal}, "a value above it fails; one of the limits is required"),
			field("lowerLimit", &shape{kind: decimal}, "a value below it fails"),
			field("metricProviderName", str(), "provider of this query"),
			ours(defaults(field("noData", enum("fail", "pass"), "what it means that there is no value in most of the runs"), "fail")),
			void("aggregationMethod", anyValue()),
		)), "metric queries"),
	)
}

func webhookShape() *shape {
	return obj(
		required(field("name", str(), "for steps to name it")),
		required(field("method", enum("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"), "HTTP method")),
		required(field("uriTemplate", str(), "address, with variables")),
		defaults(field("networkMode", enum("direct", "remoteNetworkAgent"), "from the controller, or through an agent"), "direct"),
		field("agentIdentifier", str(), "agent to go through; absent: that of the target's account"),
		field("headers", &shape{kind: list, pairs: "key", item: obj(required(field("key", str(), "name")), required(field("value", str(), "value, with variables")))}, "HTTP headers"),
		field("bodyTemplate", &shape{kind: object, short: "inline", keys: []key{required(field("inline", str(), "body, with variables"))}}, "HTTP body"),
		defaults(field("retryCount", number(0, 100), "further tries when it cannot be reached"), "0"),
		defaults(field("disableCallback", boolean(), "go on as soon as the call is answered"), "false"),
	)
}

func trafficShape() *shape {
	return obj(
		field("targets", listOf(str()), "names of targets; absent: all"),
		field("kubernetes", &shape{kind: list, one: true, item: obj(
			required(field("activeService", str(), "name of a Service")), field("previewService", str(), "name of a Service"),
		)}, "pairs of Services"),
		field("smi", &shape{kind: list, one: true, item: obj(
			required(field("rootServiceName", str(), "name of the Service that clients call")),
			field("canaryServiceName", str(), "absent: the root's name and -canary; created where it is not there"),
			field("trafficSplitName", str(), "absent: the root's name; created where it is not there"),
		)}, "SMI TrafficSplits"),
		field("istio", &shape{kind: list, one: true, item: obj(
			required(field("virtualService", obj(required(field("name", str(), "of the VirtualService")), field("httpRouteName", str(), "needed where it has several routes")), "route")),
			field("destinationRule", obj(field("name", str(), "needed where the host has several"), field("activeSubsetName", str(), "subset that traffic goes to; needed where there are several"),
				field("canarySubsetName", str(), "absent: the active subset's name and -canary; created")), "subsets"),
		)}, "Istio routes"),
		ours(field("gateway", &shape{kind: list, one: true, item: obj(
			required(field("httpRoute", str(), "name of the HTTPRoute")),
			field("activeService", str(), "name of the Service that it sends traffic to; needed where there are several"),
			field("canaryService", str(), "absent: the active Service's name and -canary; created where it is not there"),
			field("matchHeaders", listOf(obj(required(field("name", str(), "of a header")), required(field("value", str(), "that it has exactly")))),
				"requests with all of these headers go to the new version, whatever its share"),
		)}, "routes of the Gateway API")),
	)
}
