package rollout

import (
	"time"

	"towpath/deployment"
	"towpath/manifest"
	"towpath/manifest/diff"
)

// Proposal is a change that is not merged yet: a pull request, or a group of them that a merge queue is about to merge. What it says is its author's, and nothing
// of it is trusted.
type Proposal struct {
	Tenant, Source string
	Number         int    // of the pull request; 0: a group of a merge queue
	Head           string // the commit that is proposed
	Base           string // the branch that it is to go into
	Title, Author  string // of the pull request, and the login of who opened it
	Fork           bool   // Head comes from another repository
	Public         bool   // everybody can read what is told about it
	Closed         bool   // merged, or given up
	Merged         string // the commit that it became; "": it is not merged
}

// PlanState is how far the plan of a proposal is.
type PlanState string

// States of a plan.
const (
	PlanAsked    PlanState = "ASKED"    // it is about to be made, or being made
	PlanMade     PlanState = "MADE"     // it is as the report says
	PlanHeld     PlanState = "HELD"     // a person has to name the commit before anything of it is read
	PlanTroubled PlanState = "TROUBLED" // it could not be made, and is tried again
)

// ProposalReport is all there is to tell about a proposal.
type ProposalReport struct {
	Proposal
	State     PlanState
	Why       string // HELD, TROUBLED: a sentence
	Named     string // a head that a person with write access named, so that it may be read though it comes from another repository
	MergeBase string // the commit that the head is compared with
	At        time.Time
	Plans     []ApplicationPlan // of the deployment files that the change touches, by path
	Replies   []Replied         `json:"-"` // to comments below the pull request, the newest ones, oldest first
	Progress  *CommitReport     `json:"-"` // of what it became; nil: it is not merged
}

// ApplicationPlan is what a merge would do to an application.
type ApplicationPlan struct {
	Application string // "" when its file cannot be read
	Path        string // of its file
	Problems    []deployment.Problem
	Targets     []TargetPlan // those that the merge moves
	Same        int          // how many it leaves as they are
	Leaves      []LeftTarget // those that the file names no longer
}

// LeftTarget is a target that its file would name no longer.
type LeftTarget struct {
	Name  string
	Prune bool // its objects go; else they stay, and nobody owns them
}

// TargetPlan is what a merge would do to a target.
type TargetPlan struct {
	Name, Account, Namespace string
	Digest                   string // of what is promised; what is rolled out after the merge has the same, unless something else changed, too
	First                    bool   // nothing was deployed there yet
	After                    []string
	Steps                    []string // how it moves, in words, in order: "10 % of the pods", "a pause of 5m0s"
	Gates                    []PlannedGate
	Changes                  []PlannedChange
	Reached                  *time.Duration // after the merge, at the earliest: when people approve at once and pods are ready soon; nil: it never is
	Unreached                string         // why it never is
	DryRun                   DryRun
}

// PlannedGate is a step on the way of a target that waits for people.
type PlannedGate struct {
	Gate  string   // "beforeDeployment[0]"
	Roles []string // any of them; none: whoever may approve at all
	Count int      // of people
	Why   string   // where it is not the file that asks for it
}

// PlannedChange is one object that would be another than before.
type PlannedChange struct {
	Key  manifest.Key
	Kind diff.Kind
	Text string // as diff.Change has it
	Cut  int
	Kept string // of one that is removed from the manifests: why it stays in the cluster for now; "": it goes
}

// DryRun is what an API server says of the changed objects, asked without anything being done.
type DryRun struct {
	Asked, Of int    // objects; of very many a part is asked about
	Away      string // why the cluster could not be asked; "": it was
	Refused   []RefusedObject
}

// RefusedObject is one that the API server would not take as it is.
type RefusedObject struct {
	Key  manifest.Key
	Text string
}

// ProposalName tells proposals apart.
type ProposalName struct {
	Tenant, Source string
	Pull           int    // number of a pull request
	Group          string // or the head of a group of a merge queue
}

// ProposalLook is that a proposal is to be looked at.
type ProposalLook struct {
	ProposalName
	Anew  bool   // it is planned again, though it may be as it was
	Gone  bool   // nobody waits for it any more
	Named string // a head that a person with write access named just now; "": nobody did
}

// KnownProposal is a proposal as it is recorded, and how far it was looked at.
type KnownProposal struct {
	Name   ProposalName
	Wanted int64  // rises each time somebody wants it to be looked at; 0: nobody ever did
	Seen   int64  // Wanted of the look that found Report
	Gone   bool   // nobody waits for it any more
	Basis  string // a digest of what the plan was made of
	Report ProposalReport
}
