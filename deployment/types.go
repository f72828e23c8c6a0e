// Package deployment is the deployment file: its types, how it is read with positions, its defaults, the rules it must keep, the variables in
// its templates, and its JSON Schema. It is pure and imports nothing of ours. Docs: docs/reference/deployment-file.md.
package deployment

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"
)

// File is a deployment file that was read and found valid. Defaults are filled in, quirks of older files are brought into one form, names are
// resolved; maps of the file that have an order for people (targets, strategies) keep it.
type File struct {
	Path              string // in its repository, slashes, no leading one: "apps/web/towpath.yaml"
	Version           string // "v1"
	Kind              string // "kubernetes"
	Application       string // "" only where a flag gives it
	Description       string
	Context           map[string]string
	ContextOverrides  map[string]string
	Targets           []Target // in file order
	TargetFilters     []string // names; empty: all
	Manifests         []Manifest
	Strategies        []Strategy // in file order
	Analysis          *Analysis
	Webhooks          []Webhook
	TrafficManagement []TrafficManagement
	Config            Config
	Files             map[string][]string
}

// Position is a place in the file's text, both from 1; the zero value is no place.
type Position struct{ Line, Column int }

// Config is deploymentConfig: limits that hold for all targets.
type Config struct {
	Timeout              time.Duration // how long pods may take to become ready; at least 60 s, 30 minutes when the file says nothing
	KeepDeploymentObject bool
	IfInProgress         InProgress // "": the file says nothing
	Prune                bool       // ours: objects of a deleted file or target go too; otherwise they are orphaned
}

// InProgress is what a new deployment does to one under way of the same application.
type InProgress string

const (
	Reject     InProgress = "reject"
	EnqueueOne InProgress = "enqueueOne"
	Supersede  InProgress = "supersede" // ours
	Batch      InProgress = "batch"     // ours
)

// Target is a named place to deploy to: one namespace of one cluster.
type Target struct {
	Name             string
	Position         Position // of the name
	Account          string   // agent name
	AccountPosition  Position
	Namespace        string // "": each manifest's own
	Strategy         string // name of a strategy; "" where nothing is a Deployment object
	StrategyPosition Position
	DependsOn        []string
	BeforeDeployment []Step
	AfterDeployment  []Step
	Unreachable      string // ours: "skip" or "fail" when its agent is away; "": it waits
	Heal             bool   // ours: what differs in the cluster is put back, not only told
}

// Manifest is one entry of manifests: exactly one of Path, Inline, Kustomize, Helm is set.
type Manifest struct {
	Position  Position
	Path      string // file, directory or http(s) URL as written
	Inline    string
	Kustomize *Kustomize // ours
	Helm      *Helm      // ours
	Targets   []string   // names; empty: all
	// AllowUnstable lets templates use lookup, random and time functions: the first result is then kept per inputs. Ours.
	AllowUnstable bool
}

// Applies reports whether the entry is for the target.
func (m Manifest) Applies(target string) bool {
	for _, name := range m.Targets {
		if name == target {
			return true
		}
	}
	return len(m.Targets) == 0
}

// Kustomize is a directory with a kustomization.
type Kustomize struct {
	Path string
}

// Helm is a chart in the repository (Chart is a path) or in a chart repository or registry (Repository or an oci:// Chart, at a Version).
type Helm struct {
	Chart       string // name in Repository, path in the Git repository, or oci://HOST/PATH
	Version     string // exact; required unless the chart lies in the Git repository
	Repository  string // https://…; "" for a chart by path or oci://
	Path        string // of the chart in the Git repository
	ReleaseName string // default: the application's name, brought into the form of a Kubernetes name
	Values      map[string]any
	ValueFiles  []string
	IncludeCRDs bool // default true
	KubeVersion string
	APIVersions []string
}

// Strategy is a named way to roll out: exactly one of Canary and BlueGreen is set.
type Strategy struct {
	Name      string
	Position  Position
	Canary    []Step
	Workloads []string // of a canary: kinds that take its steps beside Deployment objects, StatefulSet or DaemonSet. Ours
	BlueGreen *BlueGreen
}

// BlueGreen switches a Service from the old version to the new at once.
type BlueGreen struct {
	ActiveService, PreviewService string
	RedirectTrafficAfter          []Step
	ShutDownOldVersionAfter       []Step
}

// Step is one entry of a strategy or constraint: exactly one field beside Position is set.
type Step struct {
	Position       Position
	SetWeight      *SetWeight
	Pause          *Pause
	Analysis       *AnalysisStep
	RunWebhook     *RunWebhook
	ExposeServices *ExposeServices
}

// SetWeight sets the new version's share.
type SetWeight struct {
	Weight int // 0–100, of traffic; of pods when no router is set
}

// Pause waits for time or for a person.
type Pause struct {
	Duration           time.Duration // when UntilApproved is false
	UntilApproved      bool
	RequiresRoles      []string      // any one of them; empty: anyone with access
	ApprovalExpiration time.Duration // 0: never
	Approvals          int           // ours: how many people; at least 1
	AllowSelfApproval  *bool         // ours; nil: as the controller's setting says
}

// AnalysisStep runs queries and judges what they answer.
type AnalysisStep struct {
	Queries               []string
	Interval              time.Duration
	Runs                  int // numberOfJudgmentRuns, at least 1
	ManualRollBack        bool
	ManualRollForward     bool
	Lookback              string // "growing", "sliding"; "": not said
	AbortOnFailedJudgment bool
	MetricProvider        string
	Context               map[string]string
	Baseline              bool // ours: the canary is held against as many pods of the version before
	ReportOnly            int  // ours: in so many deployments a bad verdict is only told
}

// RunWebhook calls a webhook of the file.
type RunWebhook struct {
	Name    string
	Context map[string]string
}

// ExposeServices makes temporary public links.
type ExposeServices struct {
	Services []string
	TTL      time.Duration // 1 minute – 24 hours; 5 minutes when the file says nothing
}

// Analysis holds the queries that steps name.
type Analysis struct {
	DefaultMetricProvider string
	Queries               []Query
}

// Query is a metric query and the limits of its value.
type Query struct {
	Name, Template         string
	Position               Position
	UpperLimit, LowerLimit *float64 // at least one
	MetricProvider         string
	NoDataPasses           bool // ours: that there is no value is good
}

// Webhook is an external call.
type Webhook struct {
	Name            string
	Position        Position
	Method          string // upper case
	URITemplate     string
	Remote          bool   // networkMode remoteNetworkAgent
	Agent           string // agentIdentifier; "": the agent of the target's account
	Headers         []Header
	BodyTemplate    string
	RetryCount      int
	DisableCallback bool
}

// Header is one header of a request.
type Header struct{ Key, Value string }

// TrafficManagement is how traffic reaches the versions on some targets.
type TrafficManagement struct {
	Position   Position
	Targets    []string // names; empty: all
	Kubernetes []KubernetesTraffic
	SMI        []SMITraffic
	Istio      []IstioTraffic
	Gateway    []GatewayTraffic // ours
}

// KubernetesTraffic is a pair of Services.
type KubernetesTraffic struct{ ActiveService, PreviewService string }

// SMITraffic is a TrafficSplit.
type SMITraffic struct{ RootService, CanaryService, TrafficSplit string }

// IstioTraffic is a VirtualService's route and a DestinationRule's subsets.
type IstioTraffic struct {
	VirtualService, HTTPRoute                   string
	DestinationRule, ActiveSubset, CanarySubset string
}

// GatewayTraffic is an HTTPRoute of the Gateway API.
type GatewayTraffic struct {
	HTTPRoute, ActiveService, CanaryService string
	MatchHeaders                            []Header // requests that have all of them go to the new version, whatever its share
}

// Severity of a Problem.
type Severity string

const (
	Error   Severity = "error"   // the file is not loaded
	Warning Severity = "warning" // it is loaded all the same
)

// Problem is one thing the author of a file has to change (Error) or should (Warning).
type Problem struct {
	File       string   `json:"path"`
	Field      string   `json:"field,omitempty"` // "targets.prod.strategy"
	Line       int      `json:"line"`            // from 1
	Column     int      `json:"column"`          // from 1
	Severity   Severity `json:"severity"`
	Text       string   `json:"message"`              // what is wrong and what is allowed, without the place
	Suggestion string   `json:"suggestion,omitempty"` // the nearest known key or name
}

// Target is the target of that name, or nil.
func (f *File) Target(name string) *Target {
	for i := range f.Targets {
		if f.Targets[i].Name == name {
			return &f.Targets[i]
		}
	}
	return nil
}

// Chosen is the targets that are not filtered out.
func (f *File) Chosen() []Target {
	if len(f.TargetFilters) == 0 {
		return f.Targets
	}
	return slices.DeleteFunc(slices.Clone(f.Targets), func(t Target) bool { return !slices.Contains(f.TargetFilters, t.Name) })
}

// Webhook is the webhook of that name, or nil; of two of one name the first counts.
func (f *File) Webhook(name string) *Webhook {
	for i := range f.Webhooks {
		if f.Webhooks[i].Name == name {
			return &f.Webhooks[i]
		}
	}
	return nil
}

// Sum is a digest of all that the webhook says; where it stands in the file is not part of it.
func (w Webhook) Sum() string {
	w.Position = Position{}
	text, err := json.Marshal(w)
	if err != nil {
		panic(err) // it is texts and numbers
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// Query is the query of that name, or nil.
func (f *File) Query(name string) *Query {
	if f.Analysis == nil {
		return nil
	}
	for i := range f.Analysis.Queries {
		if f.Analysis.Queries[i].Name == name {
			return &f.Analysis.Queries[i]
		}
	}
	return nil
}

// Strategy is the strategy of that name, or nil.
func (f *File) Strategy(name string) *Strategy {
	for i := range f.Strategies {
		if f.Strategies[i].Name == name {
			return &f.Strategies[i]
		}
	}
	return nil
}
