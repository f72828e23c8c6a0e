// Package rollout is a deployment under way as plain data, and Decide: what moves a target forward, what it becomes, and why.
// It is pure: no clock, no network, no store. The same function runs a real rollout, a simulation in virtual time, and the crash test.
package rollout

import (
	"time"

	"towpath/manifest"
)

// State is what people see of a target or a deployment. Scripts know SUCCEEDED, FAILED and CANCELLED as the final ones of a deployment.
type State string

// States; RolledBack is for a single target only, its deployment is then Failed.
const (
	Queued           State = "QUEUED"
	Running          State = "RUNNING"
	Paused           State = "PAUSED"
	AwaitingApproval State = "AWAITING_APPROVAL"
	Succeeded        State = "SUCCEEDED"
	Failed           State = "FAILED"
	Cancelled        State = "CANCELLED"
	Rejected         State = "REJECTED"
	RolledBack       State = "ROLLED_BACK"
)

// Final reports whether nothing will change the state any more.
func (s State) Final() bool {
	switch s {
	case Succeeded, Failed, Cancelled, Rejected, RolledBack:
		return true
	}
	return false
}

// Phase is where on its way a target stands.
type Phase string

// Phases in the order of a good rollout, then those of a rollback.
const (
	Waiting  Phase = "waiting"  // for dependencies and approvals; nothing was touched
	Looking  Phase = "looking"  // a fresh read of what runs, before anything is touched
	Applying Phase = "applying" // manifests go to the cluster
	Settling Phase = "settling" // until each object is proved healthy
	Retiring Phase = "retiring" // older revisions go to zero
	Pruning  Phase = "pruning"  // objects that left the manifests go
	Finished Phase = "finished"

	Reverting   Phase = "reverting"   // the last good manifests are applied
	Recovering  Phase = "recovering"  // until they are proved healthy
	Withdrawing Phase = "withdrawing" // revisions of the failed version go to zero
	Clearing    Phase = "clearing"    // objects that the failed version added go
)

// Target is one target of one deployment: what was promised for it, and where it stands. It is stored as JSON; fields are only ever added.
type Target struct {
	ID          int64  `json:"id"` // of this execution of the target, not of the lane
	Lane        int64  `json:"lane"`
	Deployment  string `json:"deployment"` // id
	Number      int    `json:"number"`     // of the deployment in its application: #N
	Tenant      string `json:"tenant"`
	Application string `json:"application"`
	Name        string `json:"name"`
	Account     string `json:"account"`
	Namespace   string `json:"namespace,omitempty"`

	DependsOn []string      `json:"dependsOn,omitempty"` // targets of the same deployment
	Timeout   time.Duration `json:"timeout"`             // how long objects may take to become healthy
	Digest    string        `json:"digest"`              // of what was promised: the target's part of the file, policies, manifests
	Manifests string        `json:"manifests"`           // digest of the sealed manifests
	Removes   bool          `json:"removes,omitempty"`   // the target or its file is gone and its objects go too: Manifests is the empty set

	State     State      `json:"state"`
	Phase     Phase      `json:"phase"`
	Why       string     `json:"why,omitempty"`      // the last thing that was decided, as a sentence
	Waits     []Wait     `json:"waits,omitempty"`    // what it waits for now
	Intent    *Action    `json:"intent,omitempty"`   // recorded before it is carried out; carried out again after a crash
	Base      *Release   `json:"base,omitempty"`     // the last good release when this one began; nil: there was none
	Old       []Replicas `json:"old,omitempty"`      // older revisions that ran when this one began
	Open      []Proof    `json:"open,omitempty"`     // objects not yet proved healthy, in Settling and Recovering
	Attempts  int        `json:"attempts,omitempty"` // tries in a row that met trouble, for the backoff
	NotBefore time.Time  `json:"notBefore,omitzero"` // of the next try
	Started   time.Time  `json:"started,omitzero"`   // left Waiting
	Deadline  time.Time  `json:"deadline,omitzero"`  // of the present phase
	Ended     time.Time  `json:"ended,omitzero"`
	Ending    State      `json:"ending,omitempty"` // the state in which a rollback under way will end
}

// Proof is what a fresh read must name before an object counts as healthy: this very object, at this generation or a later one.
type Proof struct {
	Key        manifest.Key `json:"key"`
	UID        string       `json:"uid"`
	Generation int64        `json:"generation"`
}

// Release is what was last proved good on a lane.
type Release struct {
	Deployment string `json:"deployment"`
	Number     int    `json:"number"`
	Manifests  string `json:"manifests"` // digest of the sealed manifests
	Digest     string `json:"digest"`
}

// Replicas is a revision and how many pods it shall have.
type Replicas struct {
	Key   manifest.Key `json:"key"`
	Count int32        `json:"count"`
}

// Wait is something a target waits for, told in one sentence wherever people look.
type Wait struct {
	Kind    WaitKind  `json:"kind"`
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until,omitzero"`    // zero: no end of its own
	Needs   string    `json:"needs"`             // "3 of 3 pods ready: web-5d8 (1 ready)"
	Gate    string    `json:"gate,omitempty"`    // of an approval: what is approved
	Who     []string  `json:"who,omitempty"`     // roles that may give it; empty: nobody has to
	Command string    `json:"command,omitempty"` // what gives it: "towpath deploy approve …"
}

// WaitKind names what is waited for.
type WaitKind string

// Kinds of wait.
const (
	WaitDependency WaitKind = "dependency" // another target
	WaitApproval   WaitKind = "approval"   // a person
	WaitAgent      WaitKind = "agent"      // the cluster's agent is not connected
	WaitHealth     WaitKind = "health"     // objects become ready
	WaitRetry      WaitKind = "retry"      // the next try after trouble on the way
)

// Action is an effect as a value. It says what shall be, never what to change, so that carrying it out again is harmless.
type Action struct {
	Kind      ActionKind     `json:"kind"`
	Manifests string         `json:"manifests,omitempty"` // Apply: digest of the sealed set
	Replicas  []Replicas     `json:"replicas,omitempty"`  // Apply: of the set's revisions; Scale: of others
	Remove    []manifest.Key `json:"remove,omitempty"`    // Remove: a Deployment object's key stands for all its revisions
}

// ActionKind names an effect.
type ActionKind string

// Kinds of action.
const (
	Apply  ActionKind = "apply"  // the sealed set, rank by rank, its revisions at Replicas
	Scale  ActionKind = "scale"  // revisions to Replicas
	Remove ActionKind = "remove" // objects
)

// Set is a sealed set of manifests as Decide needs it: names, no content.
type Set struct {
	Objects   []manifest.Key // as the manifests name them, Deployment objects included
	Revisions []Revision     // one for each Deployment object
}

// Revision is the managed ReplicaSet that a Deployment object becomes.
type Revision struct {
	Workload   manifest.Key // the Deployment object
	ReplicaSet manifest.Key
	Replicas   *int32 // nil: the manifest does not say, what runs is kept
}

// Live is one object as a fresh read of the cluster, or the cluster's answer to a write, showed it.
type Live struct {
	Key             manifest.Key
	Missing         bool // not there; all below is then zero
	UID             string
	ResourceVersion string
	Generation      int64
	Owner           string // tenant/application/target of the labels on it; "": not ours
	Workload        string // of a managed ReplicaSet: the Deployment object's name; else ""
	Number          int    // of a managed ReplicaSet: the deployment that made it
	Replicas        int32  // wanted by the live object
	Ready           int32  // pods
	Health          Health
	Message         string // why it is not Healthy, in the cluster's words: "ErrImagePull: …"
}

// Health of a live object, judged at the generation that was read.
type Health string

// Healths; the zero value is no judgement.
const (
	Healthy     Health = "healthy"
	Progressing Health = "progressing"
	Broken      Health = "broken" // it says itself that it will not become healthy
)

// Facts are what was observed. Decide takes nothing else into account.
type Facts struct {
	Now          time.Time // UTC
	Connected    bool      // an agent of the account is there
	New          Set
	Good         *Release         // what was last proved good on this lane; nil: nothing yet
	Base         Set              // of Target.Base, and while it waits, of Good, which is to be its Base; zero without one
	Inventory    []manifest.Key   // what this lane has in the cluster, by our records
	Dependencies map[string]State // of DependsOn, as their lanes stand
	Approvals    []Approval       // given for this deployment
	Cancel       *Request         // a person asked to stop
	ReplacedBy   int              // number of the newer deployment that waits for this lane; 0: none
	Limits       Limits
	Taken        *Failure // an object that was to be claimed belongs to another lane; nil: not known to
	Look         *Look    // answer to Decision.Read; nil: not read
	Outcome      *Outcome // of Decision.Act; nil: not carried out
}

// Read is what Decide wants to be read afresh from the cluster before it goes on.
type Read struct {
	Objects   []manifest.Key // each of these
	Revisions bool           // all managed ReplicaSets of the target
	Workloads []manifest.Key // Deployment objects of these names
}

// Look is the answer to a Read. A Failure says that nothing is known.
type Look struct {
	Objects   []Live
	Revisions []Live
	Workloads []Live
	Failure   *Failure
}

// Limits of a removal that needs no person's word.
type Limits struct {
	Removals int     // at most so many objects
	Shrink   float64 // share of the objects in the cluster by which a render may shrink, 0–1
	Keep     int     // older revisions kept at zero
}

// Approval is a person's word for one gate of one target.
type Approval struct {
	Target string
	Gate   string // "prune"
	Digest string // the target's digest when it was given; it counts only while equal
	By     string
	At     time.Time
}

// Request is what a person asked of a deployment under way.
type Request struct {
	By, Reason string
	At         time.Time
}

// Outcome is what came of an action.
type Outcome struct {
	Live    []Live   // Apply: each object as the cluster's answer showed it, revisions included
	Failure *Failure // nil: all of it was done
}

// Failure is why an action, or a read, was not done, or not whole.
type Failure struct {
	Class  Class
	Object manifest.Key // zero: none in particular
	Text   string       // in the words of who refused
}

// Error makes a Failure an error.
func (f *Failure) Error() string {
	if f.Object == (manifest.Key{}) {
		return f.Text
	}
	return f.Object.String() + ": " + f.Text
}

// Class says what can be done about a failure.
type Class string

// Classes of failure.
const (
	Refused Class = "refused" // the same request would be refused again
	Away    Class = "away"    // no agent of the cluster is connected
	Trouble Class = "trouble" // worth another try: timeouts, conflicts, 429, 5xx, a lost connection
)

// Event is one line of history.
type Event struct {
	At          time.Time `json:"at"`
	Tenant      string    `json:"tenant"`
	Application string    `json:"application"`
	Deployment  string    `json:"deployment,omitempty"` // id
	Target      string    `json:"target,omitempty"`
	Who         string    `json:"who"`  // person, token or "towpath"
	Kind        string    `json:"kind"` // "target.succeeded"
	What        string    `json:"what"` // as a sentence
	Why         string    `json:"why,omitempty"`
}
