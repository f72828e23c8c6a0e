package rollout

import "time"

// Way is what a file says of how a target moves.
type Way struct {
	DependsOn      []string      `json:"dependsOn,omitempty"` // targets of the same deployment
	Timeout        time.Duration `json:"timeout"`             // how long objects may take to become healthy
	Unreachable    Unreachable   `json:"unreachable,omitempty"`
	Before         []Step        `json:"before,omitempty"`         // all must pass before the target is touched
	Canary         []Step        `json:"canary,omitempty"`         // in sequence; what is left goes to 100 % by itself
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
}

// Approval is a step that waits for people.
type Approval struct {
	Roles   []string      `json:"roles,omitempty"`   // any one of them; empty: whoever may approve at all
	Count   int           `json:"count"`             // how many people, at least 1
	Expires time.Duration `json:"expires,omitempty"` // 0: never
	NotSelf bool          `json:"notSelf,omitempty"` // not by those who wrote the change, merged it, or started the push
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
