package rollout

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"towpath/manifest"
)

// Decision is what Decide says: what the target becomes, what to read or do next, and what people are told. With neither Read nor Act and
// nothing Changed there is nothing to do until a fact changes, or Due.
type Decision struct {
	Target  Target
	Changed bool           // Target differs from what was decided upon: it has to be saved before Act
	Read    *Read          // to be read afresh; then decide again
	Act     *Action        // to be carried out once Target is saved; then decide again
	Due     time.Time      // decide again at the latest then; zero: when a fact changes
	Claim   []manifest.Key // to be in the lane's inventory before Act
	Drop    []manifest.Key // no longer in the cluster, so no longer in the inventory
	Good    *Release       // the lane's last good release from now on
	Emptied bool           // the lane holds nothing any more
	Events  []Event
}

// Decide says what moves t forward, what t becomes, and why. It is a pure function of its arguments. A new phase is decided upon at once: what needs neither
// a read nor an action is passed through without a save of its own.
func Decide(t Target, f Facts) Decision {
	d := &decision{Decision{Target: t}, f}
	for {
		phase := d.Target.Phase
		d.step()
		if d.Target.Phase == phase || d.Read != nil || d.Act != nil {
			return d.Decision
		}
		d.f.Look, d.f.Outcome = nil, nil // they answered the phase that is over
	}
}

// step decides within the present phase.
func (d *decision) step() {
	t := &d.Target
	switch {
	case t.State.Final():
	case d.stopped():
	case d.resting():
	case t.Phase == Waiting:
		d.wait()
	case t.Phase == Looking:
		d.look()
	case t.Phase == Applying, t.Phase == Reverting:
		d.apply()
	case t.Phase == Settling, t.Phase == Recovering:
		d.settle()
	case t.Phase == Retiring:
		d.retire()
	case t.Phase == Pruning:
		d.prune()
	case t.Phase == Withdrawing:
		d.withdraw()
	case t.Phase == Clearing:
		d.clear()
	}
}

// decision is a Decision being made, beside the facts it is made from.
type decision struct {
	Decision
	f Facts
}

// stopped handles a person's wish to cancel, and a newer deployment that waits for the lane. Both hold in any phase in which something can still
// be left undone: what was proved healthy is finished instead, and its removals are left to the newer deployment.
func (d *decision) stopped() bool {
	t := &d.Target
	replaced := fmt.Sprintf("replaced by #%d", d.f.ReplacedBy)
	switch t.Phase {
	case Waiting, Looking:
		switch {
		case d.f.ReplacedBy > 0:
			d.end(Cancelled, replaced)
		case d.f.Cancel != nil:
			d.end(Cancelled, d.f.Cancel.sentence())
		default:
			return false
		}
		return true
	case Applying, Settling:
		switch {
		case d.f.ReplacedBy > 0:
			d.end(Cancelled, replaced)
		case d.f.Cancel != nil:
			d.revert(Cancelled, d.f.Cancel.sentence())
		default:
			return false
		}
		return true
	case Retiring:
		return false
	case Pruning:
		if d.f.ReplacedBy > 0 && t.Intent == nil {
			d.succeed(fmt.Sprintf("what it no longer holds is left to #%d to remove", d.f.ReplacedBy))
			return true
		}
		return false
	default:
		if d.f.ReplacedBy > 0 {
			d.end(Cancelled, t.Why+"; "+replaced)
			return true
		}
		return false
	}
}

func (r *Request) sentence() string {
	if r.Reason == "" {
		return "cancelled by " + r.By
	}
	return "cancelled by " + r.By + ": " + r.Reason
}

// resting keeps a target still while its agent is away, or while the backoff after trouble lasts.
func (d *decision) resting() bool {
	t := &d.Target
	if d.f.Outcome != nil || d.f.Look != nil {
		return false
	}
	if t.Phase != Waiting && !d.f.Connected {
		d.away("no agent is connected")
		return true
	}
	if d.f.Now.Before(t.NotBefore) {
		d.Due = t.NotBefore
		return true
	}
	return false
}

func (d *decision) wait() {
	t := &d.Target
	waits, broken := dependencies(*t, d.f)
	if broken != "" {
		d.end(Cancelled, broken)
		return
	}
	if len(waits) > 0 {
		d.waiting(Queued, waits...)
		return
	}
	if why := guard(*t, d.f); why != "" && !d.approved(gatePrune) {
		d.waiting(AwaitingApproval, d.pruneWait(why))
		return
	}
	t.Base = d.f.Good
	t.Started = d.f.Now
	d.enter(Looking, Running)
	d.say("target.started", fmt.Sprintf("%s: #%d started", t.Name, t.Number), "")
}

// dependencies lists what t still waits for. broken is a sentence when one of them will never succeed.
func dependencies(t Target, f Facts) (waits []Wait, broken string) {
	for _, name := range t.DependsOn {
		state := f.Dependencies[name]
		switch {
		case state == Succeeded:
		case state.Final():
			return nil, fmt.Sprintf("not started: %s is %s", name, state)
		default:
			if state == "" {
				state = Queued
			}
			waits = append(waits, Wait{Kind: WaitDependency, Since: f.Now, Needs: fmt.Sprintf("%s to succeed (now %s)", name, state)})
		}
	}
	return waits, ""
}

func (d *decision) look() {
	t := &d.Target
	if t.Removes {
		d.enter(Pruning, Running)
		return
	}
	if d.f.Taken != nil {
		d.end(Failed, d.f.Taken.Error())
		return
	}
	if d.f.Look == nil {
		read := &Read{Revisions: len(d.f.New.Revisions)+len(d.f.Base.Revisions) > 0}
		for _, revision := range d.f.New.Revisions {
			read.Workloads = append(read.Workloads, revision.Workload)
		}
		d.Read = read
		return
	}
	if failure := d.f.Look.Failure; failure != nil {
		d.failed(failure, func() { d.end(Failed, failure.Error()) })
		return
	}
	for _, live := range d.f.Look.Workloads {
		if !live.Missing {
			d.end(Failed, fmt.Sprintf("not yet supported: %s runs already and would have to be taken over; delete it first (its pods stop), or deploy under another name", live.Key))
			return
		}
	}
	t.Old = nil
	for _, live := range d.f.Look.Revisions {
		if live.Replicas > 0 && !d.f.New.has(live.Key) {
			t.Old = append(t.Old, Replicas{live.Key, live.Replicas})
		}
	}
	d.Claim = d.f.New.Objects
	d.intend(Applying, Action{Kind: Apply, Manifests: t.Manifests, Replicas: d.counts(d.f.New)})
	t.Deadline = d.f.Now.Add(t.Timeout)
}

// counts is how many pods each revision of a set shall have: what the manifest says, else what runs of its workload, else 1.
func (d *decision) counts(set Set) []Replicas {
	counts := make([]Replicas, len(set.Revisions))
	for i, revision := range set.Revisions {
		counts[i] = Replicas{revision.ReplicaSet, 1}
		if revision.Replicas != nil {
			counts[i].Count = *revision.Replicas
			continue
		}
		if running := d.running(revision); running > 0 {
			counts[i].Count = running
		}
	}
	return counts
}

// running is the largest number of pods wanted by any live revision of the same workload.
func (d *decision) running(revision Revision) int32 {
	var most int32
	if d.f.Look == nil {
		for _, old := range d.Target.Old {
			if old.Key == revision.ReplicaSet {
				most = max(most, old.Count)
			}
		}
		return most
	}
	for _, live := range d.f.Look.Revisions {
		if live.Workload == revision.Workload.Name && live.Key.Namespace == revision.Workload.Namespace {
			most = max(most, live.Replicas)
		}
	}
	return most
}

// apply carries manifests to the cluster: the new ones in Applying, the last good ones in Reverting.
func (d *decision) apply() {
	t := &d.Target
	if !d.acted() {
		return
	}
	if failure := d.f.Outcome.Failure; failure != nil {
		d.failed(failure, func() { d.give(failure.Error()) })
		return
	}
	t.Open = nil
	set := d.applied()
	for _, live := range d.f.Outcome.Live {
		if live.Health != Healthy || set.has(live.Key) {
			t.Open = append(t.Open, Proof{live.Key, live.UID, live.Generation})
		}
	}
	t.Intent = nil
	if t.Phase == Applying {
		d.enter(Settling, Running)
		d.say("target.applied", fmt.Sprintf("%s: the manifests of #%d are applied", t.Name, t.Number), "")
		return
	}
	d.enter(Recovering, Running)
}

// applied is the set that the present phase brings about.
func (d *decision) applied() Set {
	if d.Target.Phase == Reverting || d.Target.Phase == Recovering {
		return d.f.Base
	}
	return d.f.New
}

// settle waits until a fresh read proves each open object healthy.
func (d *decision) settle() {
	t := &d.Target
	if len(t.Open) == 0 {
		d.settled()
		return
	}
	if d.f.Look == nil {
		keys := make([]manifest.Key, len(t.Open))
		for i, proof := range t.Open {
			keys[i] = proof.Key
		}
		d.Read = &Read{Objects: keys}
		return
	}
	if failure := d.f.Look.Failure; failure != nil {
		d.failed(failure, func() { d.give(failure.Error()) })
		return
	}
	judged := d.judge()
	switch {
	case judged.broken != "":
		d.give(judged.broken)
	case len(judged.unready) == 0:
		t.Open = nil
		d.settled()
	case !d.f.Now.Before(t.Deadline):
		d.give(fmt.Sprintf("not ready within %s: %s", t.Timeout, strings.Join(judged.unready, "; ")))
	case judged.again:
		d.again()
	default:
		d.Due = t.Deadline
		t.Attempts, t.NotBefore = 0, time.Time{}
		t.Open = judged.open
		d.waiting(Running, Wait{Kind: WaitHealth, Until: t.Deadline, Needs: strings.Join(judged.unready, "; ")})
	}
}

// judgement is what a look says of the open objects.
type judgement struct {
	open    []Proof
	unready []string // a phrase each
	broken  string   // a sentence when one says itself that it will never be ready
	again   bool     // one was deleted or replaced by somebody: the set has to be applied again
}

func (d *decision) judge() judgement {
	var j judgement
	live := make(map[manifest.Key]Live, len(d.f.Look.Objects))
	for _, l := range d.f.Look.Objects {
		live[l.Key] = l
	}
	set := d.applied()
	for _, proof := range d.Target.Open {
		l, read := live[proof.Key]
		switch {
		case !read:
			j.unready = append(j.unready, proof.Key.String()+" could not be read")
		case l.Missing:
			j.again = true
			j.unready = append(j.unready, proof.Key.String()+" was deleted")
		case l.UID != proof.UID:
			j.again = true
			j.unready = append(j.unready, proof.Key.String()+" was replaced by another object of that name")
		case l.Generation < proof.Generation:
			j.unready = append(j.unready, proof.Key.String()+" was read as it stood before")
		case l.Health == Broken:
			j.broken = sentence(l)
		case l.Health != Healthy:
			j.unready = append(j.unready, sentence(l))
		case !set.has(l.Key):
			continue // proved; a revision stays open until all are proved by one and the same read
		}
		j.open = append(j.open, proof)
	}
	return j
}

func sentence(l Live) string {
	if l.Message == "" {
		return l.Key.String() + " is not ready"
	}
	return l.Key.String() + ": " + l.Message
}

// again applies the present set once more, no faster than the backoff.
func (d *decision) again() {
	t := &d.Target
	phase, action := Applying, Action{Kind: Apply, Manifests: t.Manifests, Replicas: d.counts(d.f.New)}
	if t.Phase == Recovering {
		phase, action = Reverting, Action{Kind: Apply, Manifests: t.Base.Manifests, Replicas: d.counts(d.f.Base)}
	}
	attempts := t.Attempts + 1
	d.intend(phase, action)
	t.Attempts = attempts
	t.NotBefore = d.f.Now.Add(backoff(attempts))
	d.Act, d.Due = nil, t.NotBefore
}

func (d *decision) settled() {
	if d.Target.Phase == Recovering {
		d.enter(Withdrawing, Running)
		return
	}
	d.say("target.healthy", fmt.Sprintf("%s: all objects of #%d are healthy", d.Target.Name, d.Target.Number), "")
	d.enter(Retiring, Running)
}

// retire brings older revisions to zero: the new one carries everything by now.
func (d *decision) retire() {
	t := &d.Target
	if t.Intent == nil {
		if len(t.Old) == 0 {
			d.enter(Pruning, Running)
			return
		}
		zero := make([]Replicas, len(t.Old))
		for i, old := range t.Old {
			zero[i] = Replicas{old.Key, 0}
		}
		d.intend(Retiring, Action{Kind: Scale, Replicas: zero})
		return
	}
	if d.done() {
		d.enter(Pruning, Running)
	}
}

const gatePrune = "prune"

// prune removes what left the manifests, and revisions too old to keep.
func (d *decision) prune() {
	t := &d.Target
	if t.Intent != nil {
		if d.done() {
			d.Drop = slices.Clone(t.Intent.Remove)
			d.succeed("")
		}
		return
	}
	if why := guard(*t, d.f); why != "" && !d.approved(gatePrune) {
		d.waiting(AwaitingApproval, d.pruneWait(why))
		return
	}
	removals := Removals(d.f)
	if len(t.Old) > 0 && d.f.Look == nil {
		d.Read = &Read{Revisions: true}
		return
	}
	if d.f.Look != nil {
		if failure := d.f.Look.Failure; failure != nil {
			d.failed(failure, func() { d.succeed("older revisions were not removed: " + failure.Error()) })
			return
		}
		removals = append(removals, d.outdated()...)
	}
	if len(removals) == 0 {
		d.succeed("")
		return
	}
	d.intend(Pruning, Action{Kind: Remove, Remove: removals})
}

// outdated is each revision at zero beyond the newest Limits.Keep of its workload.
func (d *decision) outdated() []manifest.Key {
	kept := map[string]int{}
	revisions := slices.Clone(d.f.Look.Revisions)
	slices.SortFunc(revisions, func(a, b Live) int { return b.Number - a.Number })
	var keys []manifest.Key
	for _, live := range revisions {
		if live.Replicas > 0 || d.f.New.has(live.Key) {
			continue
		}
		workload := live.Key.Namespace + "/" + live.Workload
		if kept[workload]++; kept[workload] > d.f.Limits.Keep {
			keys = append(keys, live.Key)
		}
	}
	return keys
}

// withdraw brings the failed version's revisions to zero, once the last good ones carry everything.
func (d *decision) withdraw() {
	t := &d.Target
	if t.Intent == nil {
		var zero []Replicas
		for _, revision := range d.f.New.Revisions {
			if !d.f.Base.has(revision.ReplicaSet) {
				zero = append(zero, Replicas{revision.ReplicaSet, 0})
			}
		}
		for _, old := range t.Old { // left by a version that was replaced half-way
			if !d.f.Base.has(old.Key) {
				zero = append(zero, Replicas{old.Key, 0})
			}
		}
		if len(zero) == 0 {
			d.enter(Clearing, Running)
			return
		}
		d.intend(Withdrawing, Action{Kind: Scale, Replicas: zero})
		return
	}
	if d.done() {
		d.enter(Clearing, Running)
	}
}

// clear removes what the failed version added, but nothing that may hold data.
func (d *decision) clear() {
	t := &d.Target
	if t.Intent == nil {
		var added []manifest.Key
		for _, key := range d.f.New.Objects {
			if !slices.Contains(d.f.Base.Objects, key) && !key.Precious() {
				added = append(added, key)
			}
		}
		if len(added) == 0 {
			d.rolledBack()
			return
		}
		d.intend(Clearing, Action{Kind: Remove, Remove: added})
		return
	}
	if d.done() {
		d.Drop = slices.Clone(t.Intent.Remove)
		d.rolledBack()
	}
}

func (d *decision) rolledBack() {
	t := &d.Target
	held := "nothing ran before it, so nothing runs now"
	if t.Base != nil {
		held = fmt.Sprintf("held at #%d", t.Base.Number)
	}
	d.end(t.Ending, t.Why+"; "+held)
}

// Removals is what the lane has in the cluster and the new manifests no longer name.
func Removals(f Facts) []manifest.Key {
	wanted := make(map[manifest.Key]bool, len(f.New.Objects))
	for _, key := range f.New.Objects {
		wanted[key] = true
	}
	var gone []manifest.Key
	for _, key := range f.Inventory {
		if !wanted[key] {
			gone = append(gone, key)
		}
	}
	slices.SortFunc(gone, manifest.Key.Compare)
	return gone
}

// guard is why removals need a person's word; "" when they do not. Where a whole target goes, as its file or a person says, only what may hold data
// is asked for.
func guard(t Target, f Facts) string {
	gone := Removals(f)
	for _, key := range gone {
		if key.Precious() {
			return fmt.Sprintf("it removes %s", key)
		}
	}
	if t.Removes {
		return ""
	}
	if len(gone) > f.Limits.Removals {
		return fmt.Sprintf("it removes %d objects (%d go without asking)", len(gone), f.Limits.Removals)
	}
	had, has := len(f.Inventory), len(f.New.Objects)
	if had > 0 && len(gone) > 1 && float64(had-has) > f.Limits.Shrink*float64(had) {
		return fmt.Sprintf("its manifests shrank from %d objects to %d", had, has)
	}
	return ""
}

func (d *decision) approved(gate string) bool {
	return slices.ContainsFunc(d.f.Approvals, func(a Approval) bool {
		return a.Target == d.Target.Name && a.Gate == gate && a.Digest == d.Target.Digest
	})
}

func (d *decision) pruneWait(why string) Wait {
	return Wait{Kind: WaitApproval, Gate: gatePrune, Needs: "a person to approve: " + why,
		Command: fmt.Sprintf("towpath deploy approve %s %s", d.Target.Deployment, quote(d.Target.Name))}
}

// quote makes a name fit to be one word of a shell command.
func quote(name string) string {
	if strings.ContainsFunc(name, func(r rune) bool {
		return !strings.ContainsRune("-_.:/@%+=", r) && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) {
		return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
	}
	return name
}

func (s Set) has(key manifest.Key) bool {
	return slices.ContainsFunc(s.Revisions, func(r Revision) bool { return r.ReplicaSet == key })
}
