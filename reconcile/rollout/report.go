package rollout

import (
	"time"

	"towpath/deployment"
)

// Message is a commit, or a proposal, about which something new is to be told.
type Message struct {
	Tenant, Source string
	Commit         string    // or that of a group of a merge queue
	Pull           int       // a pull request, in place of Commit
	Group          bool      // Commit is a group of a merge queue
	Seq            int64     // of the newest change
	Tries          int       // that failed in a row
	Unsure         bool      // a former try may have told something that is not recorded
	Until          time.Time // it is ours; nobody else sends in our name before
}

// Publication is what was last told of one object outside: a commit status, say.
type Publication struct {
	Hash  string // of what was sent
	Final bool   // it was about something that has ended
	At    time.Time
	Count int   // how often the object was sent
	Edit  bool  // what was sent last changed what was there; not kept
	ID    int64 // that the forge gave the object, by which it is changed; 0: it has none
}

// Delay is why a message is told later.
type Delay struct {
	At      time.Time
	Failure string // "": nothing failed, it is just not yet time
	Unsure  bool   // something may have been told without our knowing
}

// CommitReport is all there is to tell about a commit.
type CommitReport struct {
	Taken        bool                // each file of the commit is recorded, or nobody will record more of them
	Applications []ApplicationReport // that the commit touches, by name
}

// ApplicationReport is what a commit did for an application.
type ApplicationReport struct {
	Application string // "" when the file does not say
	Path        string // of its file
	Problems    []deployment.Problem
	Deployment  string // id of the newest deployment; "": nothing moved
	Number      int
	State       State // of the deployment
	Why         string
	Targets     []TargetReport // left out where a report has very many applications
}

// TargetReport is where a target of a deployment stands.
type TargetReport struct {
	Name    string
	Digest  string // of what is promised for it
	Removes bool   // its objects go
	State   State
	Why     string
	Waits   []Wait
	Drift   []Drift // what differs in the cluster now from what the deployment brought about
}
