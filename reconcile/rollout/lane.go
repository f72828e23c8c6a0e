package rollout

import (
	"errors"
	"time"

	"towpath/manifest"
)

// Lane is the queue of one target of one application, as one consistent read of the store showed it.
type Lane struct {
	ID           int64
	Seq          int64   // of its wakes: a run may end only while it is still the newest
	Current      *Target // nil: nothing runs
	ReplacedBy   int     // number of the deployment that waits behind Current; 0: none
	Good         *Release
	Inventory    []manifest.Key
	Dependencies map[string]State // of Current.DependsOn
	Words        []Word           // given for Current's deployment
	Calls        []Call           // that Current asked for
	Judged       map[string]int   // deployments in which analyses that report at first were judged, by their sums
	Links        []Link           // that were made for Current
	Cancel       *Request         // of Current's deployment
	Hold         *Hold            // of the lane
	Replaced     int              // deployments that were replaced since the last one that was finished
}

// Lease is the right to move one lane. Its epoch rises with each holder, so a write under an older one is known to be late.
type Lease struct {
	Lane  int64
	Epoch int64
	Until time.Time
}

var (
	// ErrLeased says that another run holds the lane; that run sees the wake.
	ErrLeased = errors.New("the lane is held by another run")
	// ErrStale says that the lease was lost meanwhile: nothing was written, and whoever holds it now goes on.
	ErrStale = errors.New("the lease was lost")
)

// Identity is whose objects they are: what labels and annotations on them say.
type Identity struct {
	Tenant, Application, Target, Account, Namespace string
	Deployment                                      string // id
	Number                                          int
	Commit                                          string // "": of an upload
}

// Identity of what t brings about.
func (t Target) Identity() Identity {
	return Identity{t.Tenant, t.Application, t.Name, t.Account, t.Namespace, t.Deployment, t.Number, t.Commit}
}

// GoesBackTo is the release that t goes back to when it fails: its base, or, before it has begun, what is good now.
func (t Target) GoesBackTo(good *Release) *Release {
	switch t.Phase {
	case Observing, Comparing, Waiting, Preparing:
		return good
	}
	return t.Base
}

// BaseIdentity is that of what t goes back to.
func (t Target) BaseIdentity() Identity {
	id := t.Identity()
	id.Deployment, id.Number, id.Commit = t.Base.Deployment, t.Base.Number, t.Base.Commit
	return id
}

// Summary is the state of a deployment, derived from those of its targets. A deployment without targets is Succeeded: nothing was to be done. One that
// was to stop, and of which nothing failed by itself, is Cancelled.
func Summary(targets []State, stopped bool) State {
	counts := map[State]int{}
	for _, state := range targets {
		counts[state]++
	}
	unfinished := counts[Queued] + counts[Running] + counts[Paused] + counts[AwaitingApproval]
	switch {
	case counts[AwaitingApproval] > 0:
		return AwaitingApproval
	case counts[Running] > 0:
		return Running
	case counts[Paused] > 0:
		return Paused
	case unfinished > 0 && unfinished < len(targets):
		return Running
	case unfinished > 0:
		return Queued
	case counts[Failed] > 0, counts[RolledBack] > 0 && !stopped:
		return Failed
	case counts[Rejected] > 0:
		return Rejected
	case counts[Cancelled]+counts[RolledBack] > 0:
		return Cancelled
	}
	return Succeeded
}
