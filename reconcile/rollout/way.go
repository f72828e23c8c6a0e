package rollout

import "time"

// Way is what a file says of how a target moves.
type Way struct {
	DependsOn      []string      `json:"dependsOn,omitempty"` // targets of the same deployment
	Timeout        time.Duration `json:"timeout"`             // how long objects may take to become healthy
	Unreachable    Unreachable   `json:"unreachable,omitempty"`
	Before         []Step        `json:"before,omitempty"`         // all must pass before the target is touched
	Canary         []Step        `json:"canary,omitempty"`         // in sequence; what is left goes to 100 % by itself
	Workloads      []string      `json:"workloads,omitempty"`      // kinds that take the steps of Canary beside Deployment objects
	BlueGreen      *BlueGreen    `json:"blueGreen,omitempty"`      // in place of Canary
	Traffic        []Route       `json:"traffic,omitempty"`        // divide traffic by the weights of Canary, in place of pods
	After          []Step        `json:"after,omitempty"`          // all must pass before dependents start
	KeepDeployment bool          `json:"keepDeployment,omitempty"` // Deployment objects are put back at the end
	Heal           bool          `json:"heal,omitempty"`           // what somebody changes in the cluster is put back
}

// BlueGreen turns Services from the former revision to the new one at once.
type BlueGreen struct {
	Services []ServicePair `json:"services"`
	Redirect []Step        `json:"redirect,omitempty"` // all must pass before the active Services turn
	ShutDown []Step        `json:"shutDown,omitempty"` // all must pass before the former revisions go
}

// ServicePair names the Services of a workload.
type ServicePair struct {
	Active  string `json:"active"`
	Preview string `json:"preview,omitempty"`
}

// Step is one step of a strategy or a constraint: exactly one field is set.
type Step struct {
	Weight   *int          `json:"weight,omitempty"`   // the new revision's share, 0–100; of a canary only
	Pause    time.Duration `json:"pause,omitempty"`    // how long it waits
	Approval *Approval     `json:"approval,omitempty"` // who must agree
	Webhook  *Webhook      `json:"webhook,omitempty"`  // what is called
	Analysis *Analysis     `json:"analysis,omitempty"` // what is measured
	Expose   *Expose       `json:"expose,omitempty"`   // what gets links; of a strategy only
}

// Approval is a step that waits for people.
type Approval struct {
	Roles   []string      `json:"roles,omitempty"`   // any one of them; empty: whoever may approve at all
	Count   int           `json:"count"`             // how many people, at least 1
	Expires time.Duration `json:"expires,omitempty"` // 0: never
	NotSelf bool          `json:"notSelf,omitempty"` // not by those who wrote the change, merged it, or started the push
}

// Webhook is a step that calls a webhook of the file, and unless NoCallback waits to be called back. What is sent stays in the file: it may hold secrets.
type Webhook struct {
	Name       string            `json:"name"`
	Sum        string            `json:"sum"`               // of the definition in the file: another one is another promise
	Retries    int               `json:"retries,omitempty"` // further tries when it cannot be reached
	NoCallback bool              `json:"noCallback,omitempty"`
	Context    map[string]string `json:"context,omitempty"` // for {{context.NAME}}
}

// Analysis is a step that measures queries at an interval and judges what they answer.
type Analysis struct {
	Queries       []Query           `json:"queries"`
	Interval      time.Duration     `json:"interval"`                // from one run to the next, and before the first
	Runs          int               `json:"runs"`                    // at least 1
	Sliding       bool              `json:"sliding,omitempty"`       // each run looks back one interval; otherwise to the start of the step
	Abort         bool              `json:"abort,omitempty"`         // the first run outside the limits ends it
	ManualBack    bool              `json:"manualBack,omitempty"`    // a person confirms a bad verdict
	ManualForward bool              `json:"manualForward,omitempty"` // a person confirms a good one
	Context       map[string]string `json:"context,omitempty"`       // for {{context.NAME}}
	Baseline      bool              `json:"baseline,omitempty"`      // the canary is also compared with a baseline of the version before
	ReportOnly    int               `json:"reportOnly,omitempty"`    // in so many deployments of the lane a bad verdict is only told
}

// Query is a metric query and the limits of what it may answer.
type Query struct {
	Name     string   `json:"name"`
	Template string   `json:"template"`
	Provider string   `json:"provider"` // name in the controller's configuration
	Lower    *float64 `json:"lower,omitempty"`
	Upper    *float64 `json:"upper,omitempty"`

	NoDataPasses bool `json:"noDataPasses,omitempty"` // that there is no data is as good as a value within the limits
}

// Unreachable is what becomes of a target whose agent is away when it is to start.
type Unreachable string

// The zero value waits for the agent without end.
const (
	WaitForAgent     Unreachable = ""
	SkipUnreachable  Unreachable = "skip" // it is left out this time, and its dependents start
	FailsUnreachable Unreachable = "fail"
)

// Skip names waits that an emergency passes over.
type Skip string

// Waits that can be passed over.
const (
	SkipDependencies Skip = "dependsOn"
	SkipPauses       Skip = "pauses"
	SkipApprovals    Skip = "approvals"
)
