// Package rollout is a deployment under way as plain data, and Decide: what moves a target forward, what it becomes, and why.
// It is pure: no clock, no network, no store. The same function runs a real rollout, a simulation in virtual time, and the crash test.
package rollout

import (
	"time"

	"towpath/manifest"
)

// State is what people see of a target or a deployment. Scripts know SUCCEEDED, FAILED and CANCELLED as the final ones of a deployment.
type State string

// States; RolledBack and Skipped are for a single target only. Its deployment is then Failed, or what its other targets are.
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
	Skipped          State = "SKIPPED"
)

// Final reports whether nothing will change the state any more.
func (s State) Final() bool {
	switch s {
	case Succeeded, Failed, Cancelled, Rejected, RolledBack, Skipped:
		return true
	}
	return false
}

// Phase is where on its way a target stands.
type Phase string

// Phases in the order of a good rollout, then those of a way back.
const (
	Observing   Phase = "observing"   // after the store was lost: a fresh read of what runs; nothing is touched
	Comparing   Phase = "comparing"   // what runs is held against the manifests; nothing is touched
	Waiting     Phase = "waiting"     // for dependencies, and for a person where much would be removed; nothing was touched
	Preparing   Phase = "preparing"   // the steps of beforeDeployment
	Looking     Phase = "looking"     // a fresh read of what runs, before anything is touched
	Adopting    Phase = "adopting"    // running Deployment objects become managed revisions, with no pod restarted
	Hooking     Phase = "hooking"     // hooks that come before
	Holding     Phase = "holding"     // autoscalers rest, and routes keep all traffic with what runs, before anything else has pods
	Applying    Phase = "applying"    // manifests go to the cluster, the new revision at its first share of pods
	Raising     Phase = "raising"     // revisions get the pods that the next share needs
	Replacing   Phase = "replacing"   // StatefulSets and DaemonSets replace as many pods as the present share says
	Settling    Phase = "settling"    // until each object is proved healthy
	Steering    Phase = "steering"    // routes send the present share of traffic to the new revision
	Lowering    Phase = "lowering"    // revisions lose the pods that the present share leaves over
	Pausing     Phase = "pausing"     // a step of the canary that waits
	Redirecting Phase = "redirecting" // the steps of redirectTrafficAfter
	Switching   Phase = "switching"   // the active Service turns to the new revision
	Overlapping Phase = "overlapping" // the steps of shutDownOldVersionAfter
	Completing  Phase = "completing"  // configuration gets its new content under its own name
	Concluding  Phase = "concluding"  // hooks that come after: the new version carries everything
	Opening     Phase = "opening"     // what former revisions are reached by leads to the new ones as well
	Retiring    Phase = "retiring"    // older revisions go to zero
	Draining    Phase = "draining"    // until they have none left
	Joining     Phase = "joining"     // routes become what they were, and autoscalers scale the new revisions
	Pruning     Phase = "pruning"     // objects that left the manifests go
	Restoring   Phase = "restoring"   // Deployment objects are put back where the file keeps them
	Following   Phase = "following"   // the steps of afterDeployment; nothing is undone any more
	Finished    Phase = "finished"

	Returning   Phase = "returning"   // traffic goes back to what ran before
	Regaining   Phase = "regaining"   // until what ran before is proved to carry everything
	Withdrawing Phase = "withdrawing" // the failed version goes to zero
	Vacating    Phase = "vacating"    // until it has no pods left, where routes divided traffic or autoscalers rest
	Rejoining   Phase = "rejoining"   // routes become what they were, and autoscalers scale what ran before
	Reverting   Phase = "reverting"   // the last good manifests are applied
	Recovering  Phase = "recovering"  // until they are proved healthy
	Clearing    Phase = "clearing"    // objects that the failed version added go
	Reinstating Phase = "reinstating" // Deployment objects that were taken over are put back
)

// Target is one target of one deployment: what was promised for it, and where it stands. It is stored as JSON; fields are only ever added.
type Target struct {
	ID          int64  `json:"id"` // of this execution of the target, not of the lane
	Lane        int64  `json:"lane"`
	Deployment  string `json:"deployment"`       // id
	Number      int    `json:"number"`           // of the deployment in its application: #N
	Commit      string `json:"commit,omitempty"` // "": it is an upload
	Tenant      string `json:"tenant"`
	Application string `json:"application"`
	Name        string `json:"name"`
	Account     string `json:"account"`
	Namespace   string `json:"namespace,omitempty"`

	Way
	Pins      *Pin     `json:"pins,omitempty"`      // once it is finished its lane is held there; nil: the lane follows what it is asked for
	Authors   []string `json:"authors,omitempty"`   // who wrote the change, merged it, or started the push
	Skip      []Skip   `json:"skip,omitempty"`      // waits that an emergency passes over
	Digest    string   `json:"digest"`              // of what was promised: the target's part of the file, policies, manifests
	Manifests string   `json:"manifests"`           // digest of the sealed manifests
	Observe   bool     `json:"observe,omitempty"`   // the store was lost: what runs is found first, and what differs from the manifests waits for a person
	Differs   []string `json:"differs,omitempty"`   // sentences: what was found to differ
	Ran       string   `json:"ran,omitempty"`       // commit of the deployment that made what was found to carry the workloads; "": unknown
	RanNumber int      `json:"ranNumber,omitempty"` // of that deployment
	Removes   bool     `json:"removes,omitempty"`   // the target or its file is gone and its objects go too: Manifests is the empty set

	State     State          `json:"state"`
	Phase     Phase          `json:"phase"`
	Why       string         `json:"why,omitempty"`      // the last thing that was decided, as a sentence
	Waits     []Wait         `json:"waits,omitempty"`    // what it waits for now
	Intent    *Action        `json:"intent,omitempty"`   // recorded before it is carried out; carried out again after a crash
	Since     time.Time      `json:"since,omitzero"`     // the present phase began
	Base      *Release       `json:"base,omitempty"`     // the last good release when this one began; nil: there was none
	First     bool           `json:"first,omitempty"`    // nothing of its workloads ran when this one began: the strategy's steps are passed over
	Full      []Replicas     `json:"full,omitempty"`     // the new revisions with all their pods
	Asked     []Replicas     `json:"asked,omitempty"`    // the pods that were last asked of the new revisions
	Former    []Former       `json:"former,omitempty"`   // older revisions that ran when this one began
	Kept      []manifest.Key `json:"kept,omitempty"`     // new revisions that carried their workloads when this one began
	Found     []manifest.Key `json:"found,omitempty"`    // objects of others that were there before these manifests were applied
	Reverted  bool           `json:"reverted,omitempty"` // on the way back: the last good manifests are applied
	Adopted   []manifest.Key `json:"adopted,omitempty"`  // Deployment objects that are taken over and kept: they are put back at the end, whatever that is
	StandIns  []StandIn      `json:"standIns,omitempty"` // adopted ReplicaSets that are revisions of ours under their own names
	Pairs     []Pair         `json:"pairs,omitempty"`    // Services of a blue/green rollout
	Routes    []Route        `json:"routes,omitempty"`   // that divide traffic between the revisions
	Fleets    []Moving       `json:"fleets,omitempty"`   // StatefulSets and DaemonSets that take the steps
	Divided   *int           `json:"divided,omitempty"`  // the weight that routes were last given; nil: they are as they were, or hold all traffic where it was
	Compared  bool           `json:"compared,omitempty"` // routes were last told to give baselines as much as the new revisions
	Yields    bool           `json:"yields,omitempty"`   // it gives way to a newer deployment as soon as its routes are what they were
	Fails     bool           `json:"fails,omitempty"`    // it ends in failure, for a person to see to, as soon as its routes are what they were
	Hook      int            `json:"hook,omitempty"`     // of the phase: those before it are done
	Step      int            `json:"step,omitempty"`     // of the canary: those before it are done
	Weight    int            `json:"weight,omitempty"`   // the new revision's present share, 0–100: of traffic where a route divides it, else of pods
	Judged    []Judgement    `json:"judged,omitempty"`   // what its analyses came to
	HeldSince time.Time      `json:"heldSince,omitzero"` // a person halted it; zero: it is not halted
	Open      []Proof        `json:"open,omitempty"`     // objects not yet proved healthy
	Attempts  int            `json:"attempts,omitempty"` // tries in a row that met trouble, for the backoff
	NotBefore time.Time      `json:"notBefore,omitzero"` // of the next try
	Started   time.Time      `json:"started,omitzero"`   // left Waiting
	Deadline  time.Time      `json:"deadline,omitzero"`  // of the present phase
	Ended     time.Time      `json:"ended,omitzero"`
	Ending    State          `json:"ending,omitempty"` // the state in which a rollback under way will end
}

// Proof is what a fresh read must name before an object counts as healthy: this very object, at this generation or a later one.
type Proof struct {
	Key        manifest.Key `json:"key"`
	UID        string       `json:"uid"`
	Generation int64        `json:"generation"`
	Grows      bool         `json:"grows,omitempty"` // a former revision that is to have more pods: they count only once they are ready
}

// Release is what was last proved good on a lane.
type Release struct {
	Deployment string `json:"deployment"`
	Number     int    `json:"number"`
	Commit     string `json:"commit,omitempty"`
	Manifests  string `json:"manifests"` // digest of the sealed manifests
	Digest     string `json:"digest"`
}

// Replicas is a revision and how many pods it shall have.
type Replicas struct {
	Key   manifest.Key `json:"key"`
	Count int32        `json:"count"`
}

// Former is a revision that ran when a target began.
type Former struct {
	Key      manifest.Key `json:"key"`
	Workload string       `json:"workload"` // the Deployment object's name
	Hash     string       `json:"hash,omitempty"`
	Count    int32        `json:"count"`            // pods that it had then
	Ready    int32        `json:"ready,omitempty"`  // of them
	Asked    int32        `json:"asked"`            // pods that were last asked of it
	Stable   bool         `json:"stable,omitempty"` // it carries the workload until the new revision does; the others are left from rollouts that broke off

	BaselineOf manifest.Key `json:"baselineOf,omitzero"` // it is the baseline of that one, and made for this rollout; zero: it is none
}

// StandIn is a ReplicaSet of an adopted Deployment object that has the pods which a revision of ours would have: it is that revision, under its own name.
type StandIn struct {
	For  manifest.Key `json:"for"` // the ReplicaSet that would have been made
	Is   manifest.Key `json:"is"`
	Hash string       `json:"hash"`
}

// Pair is the Services of one workload in a blue/green rollout.
type Pair struct {
	Active  manifest.Key `json:"active"`
	Preview manifest.Key `json:"preview,omitzero"` // zero: there is none
	New     string       `json:"new"`              // hash of the new revision
	Stable  string       `json:"stable,omitempty"` // hash of the revision that carried the workload; "": none did
}

// Selection is a Service and the hash of the only revision it shall send traffic to.
type Selection struct {
	Service manifest.Key `json:"service"`
	Hash    string       `json:"hash"`
}

// Wait is something a target waits for, told in one sentence wherever people look.
type Wait struct {
	Kind    WaitKind  `json:"kind"`
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until,omitzero"`    // zero: no end of its own
	Needs   string    `json:"needs"`             // "3 of 3 pods ready: web-5d8 (1 ready)"
	Gate    string    `json:"gate,omitempty"`    // of an approval or a pause: its name in the target, "canary.steps[1]"
	Who     []string  `json:"who,omitempty"`     // roles that may give it; empty: whoever may approve at all
	NotSelf bool      `json:"notSelf,omitempty"` // those whose own change it is may not
	NotBy   []string  `json:"notBy,omitempty"`   // who they are, as Git names them
	Command string    `json:"command,omitempty"` // what gives it: "towpath deploy approve …"
}

// Others reports whether only others may give it than those whose change it is. What was recorded before NotSelf was has names only.
func (w Wait) Others() bool { return w.NotSelf || len(w.NotBy) > 0 }

// WaitKind names what is waited for.
type WaitKind string

// Kinds of wait.
const (
	WaitDependency WaitKind = "dependency" // another target
	WaitApproval   WaitKind = "approval"   // a person
	WaitPause      WaitKind = "pause"      // time, as the file says
	WaitHold       WaitKind = "hold"       // a person who halted it
	WaitTakeOver   WaitKind = "takeOver"   // a Deployment object's own rollout
	WaitAgent      WaitKind = "agent"      // the cluster's agent is not connected
	WaitHealth     WaitKind = "health"     // objects become ready
	WaitRetry      WaitKind = "retry"      // the next try after trouble on the way
	WaitWebhook    WaitKind = "webhook"    // somebody who is called to answer, or to call back
	WaitAnalysis   WaitKind = "analysis"   // metrics
)

// Action is an effect as a value. It says what shall be, never what to change, so that carrying it out again is harmless.
type Action struct {
	Kind      ActionKind     `json:"kind"`
	Manifests string         `json:"manifests,omitempty"` // Apply, Adopt, PutBack: digest of the sealed set
	Only      []manifest.Key `json:"only,omitempty"`      // Apply: these alone; empty: all but Leave
	Leave     []manifest.Key `json:"leave,omitempty"`     // Apply: these not yet
	Replicas  []Replicas     `json:"replicas,omitempty"`  // Apply: of the set's revisions; Shift: of any
	Baselines []Baseline     `json:"baselines,omitempty"` // Shift: those among Replicas, which are made where they are not there
	Select    []Selection    `json:"select,omitempty"`    // Apply, Shift: before Replicas
	Share     []Share        `json:"share,omitempty"`     // Apply: of fleets of the set; one that is not named is applied as its manifest has it
	Divide    []Division     `json:"divide,omitempty"`    // Shift: after Select, before Replicas; Apply: of routes that come with the set
	Aim       []Aim          `json:"aim,omitempty"`       // Apply, Shift: autoscalers; those that rest first, the others last. A revision that one is aimed at keeps its pods; PutBack: of Deployment objects, after each
	StandIns  []StandIn      `json:"standIns,omitempty"`  // Apply, PutBack: revisions of the set that are there under other names
	Event     string         `json:"event,omitempty"`     // RunHook: for which it is made
	Workloads []manifest.Key `json:"workloads,omitempty"` // Adopt, PutBack: Deployment objects; Free: StatefulSets
	Remove    []manifest.Key `json:"remove,omitempty"`    // Remove: a Deployment object's key stands for all its revisions
}

// ActionKind names an effect.
type ActionKind string

// Kinds of action.
const (
	Adopt   ActionKind = "adopt"   // Deployment objects go, their ReplicaSets and pods stay and are ours
	Apply   ActionKind = "apply"   // the sealed set, rank by rank, its revisions at Replicas
	Shift   ActionKind = "shift"   // Services to Select, routes to Divide, revisions to Replicas, and autoscalers
	Remove  ActionKind = "remove"  // objects
	PutBack ActionKind = "putBack" // Deployment objects that adopt the set's revisions
	RunHook ActionKind = "hook"    // the object of Only of the sealed set, made anew
	Free    ActionKind = "free"    // pods that hold up the rollout of their StatefulSets go
)

// Set is a sealed set of manifests as Decide needs it: names, no content.
type Set struct {
	Objects       []manifest.Key // as the manifests name them, Deployment objects included
	Revisions     []Revision     // one for each Deployment object
	Fleets        []Fleet        // its StatefulSets and DaemonSets
	Services      []Service
	Hooks         []Hook // in their order; they are not among Objects
	Scalers       []Scaler
	Configuration []manifest.Key // ConfigMaps and Secrets of which revisions have copies of their own
}

// Revision is the managed ReplicaSet that a Deployment object becomes.
type Revision struct {
	Workload   manifest.Key // the Deployment object
	ReplicaSet manifest.Key
	Hash       string            // that its pods are told apart by
	Labels     map[string]string // of its pods
	Replicas   *int32            // nil: the manifest does not say, what runs is kept
}

// Service is a Service and what it selects.
type Service struct {
	Key      manifest.Key
	Selector map[string]string
}

// Live is one object as a fresh read of the cluster, or the cluster's answer to a write, showed it.
type Live struct {
	Key             manifest.Key
	Missing         bool // not there; all below is then zero
	UID             string
	ResourceVersion string
	Generation      int64
	Owner           string            // tenant/application/target of the labels on it; "": not ours
	Workload        string            // of a managed ReplicaSet: the Deployment object's name; else ""
	Hash            string            // of a ReplicaSet: that its pods are told apart by
	Marked          bool              // of a ReplicaSet: its pods have our own label with the hash
	Baseline        bool              // of a ReplicaSet: it was made to compare a canary with, and goes with that rollout
	StandsFor       string            // of an adopted ReplicaSet: the name of the revision that it is; "": it is none of the manifests'
	Selector        map[string]string // of a Service
	Ports           []Port            // of a Service
	Number          int               // of a managed ReplicaSet: the deployment that made it
	Commit          string            // of that deployment; "": it was an upload
	Replicas        int32             // wanted by the live object
	Ready           int32             // pods
	Within          bool              // of a ReplicaSet: its controller has seen what is wanted of it, and it has no more pods than that; of a fleet: the former
	Health          Health
	Message         string // why it is not Healthy, in the cluster's words: "ErrImagePull: …"
	Found           bool   // as the answer to an apply: it was there before, made by somebody else
	Stuck           bool   // of a StatefulSet: a pod of an older version is not ready, and its controller replaces no other before it is
	Fresh           int32  // of a fleet: pods of the version that was applied, ready for long enough
	Due             bool   // of a fleet: carrying out its share again would do more of it
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
	Base         Set              // of what Target.GoesBackTo; zero without one
	Inventory    []manifest.Key   // what this lane has in the cluster, by our records
	Dependencies map[string]State // of DependsOn, as their lanes stand
	Words        []Word           // given for this deployment
	Calls        []Call           // that were asked for by this target
	Judged       map[string]int   // deployments of this lane in which an analysis that reports at first was judged, by its sum
	Links        []Link           // that were made for this target, also those that have ended
	Cancel       *Request         // a person asked to stop
	Hold         *Hold            // a person halted it
	ReplacedBy   int              // number of the newer deployment that waits for this lane; 0: none
	Replaced     int              // deployments of this lane that were replaced since the last one that was finished
	Limits       Limits
	Taken        *Failure // an object that was to be claimed belongs to another lane; nil: not known to
	Look         *Look    // answer to Decision.Read; nil: not read
	Outcome      *Outcome // of Decision.Act; nil: not carried out
}

// Read is what Decide wants to be read afresh from the cluster before it goes on.
type Read struct {
	Objects   []manifest.Key // each of these, which the target applied
	Others    []manifest.Key // each of these, whoever made them
	Revisions bool           // all managed ReplicaSets of the target
	Foreign   bool           // instead, those of the Workloads' names, whoever's: the target has claimed nothing yet, so it has no others
	Workloads []manifest.Key // Deployment objects of these names
	Fleets    []Share        // each of these, with its pods, held against its share
	Routes    []Route        // to be found in the target's manifests, else in the cluster
	Survey    bool           // instead of all this: what differs from the manifests, and what else says that it is the target's
}

// Look is the answer to a Read. A Failure says that nothing is known.
type Look struct {
	Objects   []Live
	Others    []Live
	Revisions []Live
	Workloads []Live
	Foreign   []Live // managed ReplicaSets of other targets
	Fleets    []Live
	Routes    []Route
	Drifts    []Drift
	Claims    []manifest.Key // objects whose labels say that they are the target's, as manifests name them
	Ran       *Release       // what Target.Ran asked for; nil: it is not known, or cannot be rendered
	RanSet    Set            // of Ran
	Failure   *Failure
}

// Limits are what the controller's configuration sets.
type Limits struct {
	Removals int           // at most so many objects go without a person's word
	Shrink   float64       // share of the objects in the cluster by which a render may shrink without one, 0–1
	Keep     int           // older revisions kept at zero
	Replaced int           // after so many replaced in a row a deployment finishes first, unless it is in trouble itself; 0: never
	Away     time.Duration // how long an agent may be away before its target counts as unreachable
	Yield    time.Duration // how long a replaced deployment waits for what ran before it to carry everything
}

// Word is what a person says to one gate of one target.
type Word struct {
	Target string
	Gate   string // "prune", "canary.steps[1]"
	Digest string // the target's digest when it was given; it counts only while equal
	Verb   Verb
	By     string
	Reason string
	At     time.Time
}

// Verb is what a person says.
type Verb string

// Verbs.
const (
	Approve Verb = "approve"
	Reject  Verb = "reject"
	Pass    Verb = "skip"  // a pause is over, an approval is not needed
	Retry   Verb = "retry" // what waits for its next try is tried now
)

// Pin is why a lane stays at a release although something else was asked of it. The next change of what failed lifts it.
type Pin struct {
	Number int       `json:"number"` // of the deployment that the lane is held at; 0: at what ran before the first
	Why    string    `json:"why"`
	By     string    `json:"by"` // a person, or "towpath"
	At     time.Time `json:"at"`
}

// Hold is a person's word that halts rollouts at their present weight.
type Hold struct {
	By, Reason string
	At         time.Time
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
