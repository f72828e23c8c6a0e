package rollout

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"

	"towpath/manifest"
)

// Start is a deployment to be recorded: what a file asks for at one commit, or in one upload, with the targets it would move.
type Start struct {
	ID          string // a new one
	Tenant      string
	Application string
	Description string
	Origin      Origin
	Trigger     Trigger
	Authors     []string // who wrote the change, merged it, or started the push
	Skip        []Skip   // waits that an emergency passes over
	At          time.Time
	Context     map[string]string
	Targets     []StartTarget // all that the file names and that are not filtered out, in file order
	Gone        []Gone        // lanes whose target left the file
	Exclusive   Exclusive
	Text        []byte // of the deployment file
	Prune       bool   // what the file says of targets that leave it
	Observe     bool   // the store was lost: nothing is done before it is known what runs, and a person has a word where that differs
	Above       int    // its number is higher than this: deployments of the application up to here are known to the clusters
	Pin         bool   // brings about what Git, or the last push, does not want: what they want of the lanes stays as it is, and the lanes are held
}

// Found makes it the deployment that finds out, for a store that was lost, what runs. above is the highest number of its application that a cluster knows of.
func (s *Start) Found(above int) {
	s.Observe, s.Above, s.Exclusive = true, above, PerLane
	s.Trigger = Trigger{Kind: "rebuild", By: "towpath", Reason: "found after the database was lost", Title: s.Trigger.Title}
}

// Origin is where the file comes from: a commit of a source, or an upload.
type Origin struct {
	Source string `json:"source,omitempty"` // name; "" for an upload
	Path   string `json:"path"`
	Commit string `json:"commit,omitempty"`
	Upload string `json:"upload,omitempty"` // digest of the sealed upload
	Repeat string `json:"repeat,omitempty"` // id of the deployment that this one repeats or goes back to
}

// Trigger is who or what started a deployment.
type Trigger struct {
	Kind   string `json:"kind"` // "push", "api", "rollback", "rebuild"
	By     string `json:"by"`   // person or token
	Reason string `json:"reason,omitempty"`
	Title  string `json:"title,omitempty"` // first line of the commit's message
}

// StartTarget is one target of a Start.
type StartTarget struct {
	Name, Account, Namespace string
	Way                             // DependsOn holds targets of this Start; what is filtered out counts as met
	Digest                   string // see Promise
	Manifests                string // digest of the sealed manifests
	Changed                  bool   // false: its lane brings about, or has brought about, these very manifests already
}

// Gone is a lane whose target left the file, or whose file left the repository.
type Gone struct {
	Lane  int64
	Prune bool   // its objects go; otherwise they are orphaned: kept and shown
	Why   string // they are orphaned
}

// Exclusive says what a deployment does to others of its application that are under way.
type Exclusive string

// The zero value leaves it to each target's lane.
const (
	PerLane         Exclusive = ""
	RejectOthers    Exclusive = "reject"     // this one is refused while another is under way
	SupersedeOthers Exclusive = "supersede"  // the others are replaced on every lane, also where nothing changed
	EnqueueOne      Exclusive = "enqueueOne" // this one waits for the other to end, in the place of what waited before
	Batch           Exclusive = "batch"      // the same, told as one deployment of all the commits that arrived meanwhile
)

// LaneState is what a planner has to know of a lane.
type LaneState struct {
	ID        int64
	Target    string
	Account   string
	Wanted    string   // digest of the manifests last asked for
	Promise   string   // digest of the promise last asked for
	Good      *Release // what was last proved good
	Number    int      // of the deployment that asked last
	Removed   bool     // orphaned or removed
	Pin       *Pin     // why it is held at what is good; nil: it is not
	Inventory []manifest.Key
}

// Moves reports whether manifests with this promise would move the lane. Where the last attempt did not end well, a change of the promise alone
// (a longer timeout, say) is enough for another. What a lane is held at does not move it: it is there already, by somebody's word.
func (l LaneState) Moves(manifests, promise string) bool {
	if l.Pin != nil && !l.Removed && l.Good != nil && l.Good.Manifests == manifests {
		return false
	}
	if l.Removed || l.Wanted != manifests {
		return true
	}
	held := l.Good == nil || l.Good.Manifests != manifests
	return held && l.Promise != promise
}

// Promise is the digest of all that was promised for a target: what it says in the file, and the manifests. Never the commit or live state.
func Promise(said any, manifests string) (string, error) {
	text, err := json.Marshal(said)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	sum.Write(text)
	sum.Write([]byte(manifests))
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), nil
}
