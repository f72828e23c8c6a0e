package rollout

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"towpath/manifest"
)

// Kept is how a lane on which nothing runs is to stand in its cluster.
type Kept struct {
	Lane     int64
	Identity Identity // of the deployment that brought the release about
	Release  Release
	Target   Target         // that brought it about
	Heal     bool           // what differs is put back, not only told
	Busy     bool           // something runs, or is about to: what it does is no drift
	Drifted  []manifest.Key // objects that are known to differ
}

// Drift is one object that differs in the cluster from what was last proved good.
type Drift struct {
	Key     manifest.Key `json:"key"`
	Of      manifest.Key `json:"of"`                // of the manifest that brings it about: for a revision and its configuration the Deployment object's
	Missing bool         `json:"missing,omitempty"` // it is not there
	Fields  []string     `json:"fields,omitempty"`  // JSON pointers to what differs, sorted; values are not told: they may be secrets
	Refused string       `json:"refused,omitempty"` // what differs cannot be told, as the cluster would refuse the manifest beside it: its words
	By      string       `json:"by,omitempty"`      // field manager that changed it last, as the cluster says
	At      time.Time    `json:"at,omitzero"`       // when that was; zero: the cluster does not say
	Told    time.Time    `json:"told,omitzero"`     // when history last said that it differs
	Times   int          `json:"times,omitempty"`   // that history has said so since it began to differ
}

// Sentence says what differs.
func (d Drift) Sentence() string {
	if d.Missing {
		return d.Key.String() + " is not there"
	}
	if d.Refused != "" {
		return fmt.Sprintf("%s is changed so that its manifest would be refused: %s", d.Key, d.Refused)
	}
	const most = 5
	text := fmt.Sprintf("%s differs at %s", d.Key, strings.Join(d.Fields[:min(len(d.Fields), most)], ", "))
	if more := len(d.Fields) - most; more > 0 {
		text += fmt.Sprintf(" and %d more places", more)
	}
	return text
}

// Whose says who changed it; "" when the cluster does not.
func (d Drift) Whose() string {
	switch {
	case d.By == "":
		return ""
	case d.At.IsZero():
		return "changed by " + d.By
	}
	return fmt.Sprintf("changed by %s at %s", d.By, d.At.UTC().Format("2006-01-02 15:04:05 UTC"))
}

// Same reports whether nothing new is to be told.
func (d Drift) Same(o Drift) bool {
	return d.Key == o.Key && d.Missing == o.Missing && d.Refused == o.Refused && d.By == o.By && slices.Equal(d.Fields, o.Fields)
}

// Tells reports whether history says so again: what somebody changes over and over is told less and less often, so that it cannot fill the database.
func (d Drift) Tells(now time.Time) bool {
	return d.Times == 0 || !now.Before(d.Told.Add(min(time.Second<<min(d.Times, 20), time.Hour)))
}

// Event is a line of history about the lane.
func (k Kept) Event(at time.Time, kind, what, why string) Event {
	return Event{At: at, Tenant: k.Identity.Tenant, Application: k.Identity.Application, Deployment: k.Release.Deployment, Target: k.Identity.Target, Who: "towpath",
		Kind: kind, What: what, Why: why}
}

// Selections is what the Services of a blue/green release select.
func (k Kept) Selections() []Selection {
	var all []Selection
	for _, p := range k.Target.Pairs {
		all = append(all, Selection{p.Active, p.New})
	}
	return all
}

// Previews is the Services whose revision is nobody's concern between rollouts.
func (k Kept) Previews() []manifest.Key {
	var keys []manifest.Key
	for _, p := range k.Target.Pairs {
		if p.Preview != (manifest.Key{}) {
			keys = append(keys, p.Preview)
		}
	}
	return keys
}

// Restoring is what puts objects back, given the release's names; a Deployment object's key stands for its revision.
func (k Kept) Restoring(keys []manifest.Key, set Set) Action {
	return Action{Kind: Apply, Manifests: k.Release.Manifests, Only: keys, Replicas: k.Target.Full, StandIns: k.Target.StandIns, Select: k.Selections(), Aim: k.Aims(set)}
}
