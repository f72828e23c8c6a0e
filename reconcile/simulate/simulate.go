// Package simulate runs a deployment in virtual time, with no cluster: which target starts when, what it waits for, when it is reached. What is to be done
// is decided by rollout.Decide, the function that moves real rollouts; pods, people and agents do what is assumed of them. It is pure.
package simulate

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// Target is one target of the deployment to be simulated.
type Target struct {
	Name, Account, Namespace string
	rollout.Way
	Set rollout.Set // its manifests
}

// Assumptions are what a simulation takes for granted.
type Assumptions struct {
	From       time.Time     // when it begins; UTC
	ReadyAfter time.Duration // how long pods take to become ready, unless Answers say another time
	First      bool          // nothing runs yet; otherwise each target runs an earlier version of the same objects
	Limits     rollout.Limits
	Answers
}

// Line is one thing that happens.
type Line struct {
	At     time.Time
	Target string
	Text   string
}

// Report is what became of a target.
type Report struct {
	Name    string
	State   rollout.State
	Why     string
	Waits   []rollout.Wait // what it still waits for, without end
	Started time.Time      // it left its dependencies and beforeDeployment behind; zero: it never did
	Reached time.Time      // the new version is proved to carry everything; zero: it never does
	Ended   time.Time      // zero: it never does
	People  time.Duration  // it waited for approvals
	Pauses  time.Duration  // it waited as the file says: for pauses, webhooks and analyses
	Pods    time.Duration  // it waited for objects to become healthy
}

// Result is the timeline of a simulation, and what became of its targets, in their order.
type Result struct {
	Lines     []Line
	Targets   []Report
	State     rollout.State // of the deployment
	Decisions int           // that were made
}

// Number of the deployment that is simulated, and of the one before it.
const (
	former = 1
	number = 2
)

// Digests of the manifests that are simulated, and of those before them.
const (
	newManifests    = "new"
	formerManifests = "former"
)

// Run simulates a deployment to its end, or until nothing would happen any more. It ends for any way whose waits have an end.
func Run(targets []Target, assumed Assumptions) Result {
	s := &simulation{assumed: assumed, now: assumed.From, lanes: map[string]*lane{}}
	for _, t := range targets {
		l := newLane(t, assumed)
		s.order = append(s.order, l)
		s.lanes[t.Name] = l
		s.wakeAt(l, s.now)
		for _, absence := range assumed.Accounts[t.Account] {
			s.wakeAt(l, assumed.From.Add(absence.From))
			if absence.For > 0 {
				s.wakeAt(l, assumed.From.Add(absence.From+absence.For))
			}
		}
	}
	for _, l := range s.order {
		for _, name := range l.target.DependsOn {
			if on := s.lanes[name]; on != nil {
				on.dependents = append(on.dependents, l)
			}
		}
	}
	for len(s.wakes) > 0 {
		w := s.wakes.take()
		s.now = w.at
		s.advance(w.lane)
	}
	return s.result()
}

// simulation is a Run under way.
type simulation struct {
	assumed   Assumptions
	now       time.Time
	order     []*lane
	lanes     map[string]*lane // by target
	wakes     wakes
	turn      int // of the last wake
	cancel    *rollout.Request
	lines     []Line
	decisions int
}

// lane is one target under way, with what it has in its cluster.
type lane struct {
	target     rollout.Target
	assumed    TargetAnswers
	new        rollout.Set
	facts      rollout.Facts // but for Now, Connected, Dependencies, Cancel, Calls, Look and Outcome
	cluster    *cluster
	calls      []rollout.Call // with the callbacks that are still to come
	dependents []*lane
	since      time.Time // it changed last
	waited     map[rollout.WaitKind]time.Duration
	reached    time.Time
}

func newLane(t Target, a Assumptions) *lane {
	l := &lane{assumed: a.Targets[t.Name], new: numbered(t.Set, number), since: a.From, waited: map[rollout.WaitKind]time.Duration{}}
	l.target = rollout.Target{Number: number, Name: t.Name, Account: t.Account, Namespace: t.Namespace, Way: t.Way, Digest: newManifests, Manifests: newManifests,
		State: rollout.Queued, Phase: rollout.Waiting, Since: a.From}
	if a.First {
		l.target.Number = former
		l.new = numbered(t.Set, former)
	}
	l.facts = rollout.Facts{New: l.new, Limits: a.Limits}
	l.cluster = newCluster(l, a.ReadyAfter)
	if !a.First {
		base := numbered(t.Set, former)
		l.facts.Good = &rollout.Release{Number: former, Manifests: formerManifests, Digest: formerManifests}
		l.facts.Base, l.facts.Inventory = base, base.Objects
		l.cluster.fill(base, t.KeepDeployment)
	}
	return l
}

// numbered is a set whose revisions are called after a deployment's number: their true names depend on the installation's key.
func numbered(set rollout.Set, number int) rollout.Set {
	set.Revisions = slices.Clone(set.Revisions)
	for i, r := range set.Revisions {
		set.Revisions[i].Hash = fmt.Sprint(number)
		set.Revisions[i].ReplicaSet.Name = fmt.Sprintf("%s-%d", r.Workload.Name, number)
	}
	return set
}

// advance carries a target forward until it must wait.
func (s *simulation) advance(l *lane) {
	var look *rollout.Look
	var outcome *rollout.Outcome
	for !l.target.State.Final() {
		f := s.known(l)
		f.Look, f.Outcome = look, outcome
		d := rollout.Decide(l.target, f)
		s.decisions++
		look, outcome = nil, nil
		if d.Changed {
			s.save(l, d)
		}
		switch {
		case d.Read != nil:
			read := l.cluster.look(*d.Read, s.now)
			look = &read
		case d.Act != nil:
			done := l.cluster.act(*d.Act, s.now)
			outcome = &done
		case d.Changed:
		case s.answer(l):
		default:
			if d.Due.After(s.now) { // with what is known now all is decided
				s.wakeAt(l, d.Due)
			}
			s.wakeAt(l, l.cluster.next(s.now))
			return
		}
	}
}

// known is the facts of a lane now.
func (s *simulation) known(l *lane) rollout.Facts {
	f := l.facts
	f.Now, f.Connected, f.Cancel, f.Calls = s.now, s.connected(l.target.Account), s.cancel, l.callsAt(s.now)
	if l.target.Phase == rollout.Waiting && len(l.target.DependsOn) > 0 {
		f.Dependencies = make(map[string]rollout.State, len(l.target.DependsOn))
		for _, name := range l.target.DependsOn {
			if on := s.lanes[name]; on != nil {
				f.Dependencies[name] = on.target.State
			}
		}
	}
	return f
}

// connected reports whether an account's agent is there.
func (s *simulation) connected(account string) bool {
	return !slices.ContainsFunc(s.assumed.Accounts[account], func(a Absence) bool {
		from := s.assumed.From.Add(a.From)
		return !s.now.Before(from) && (a.For == 0 || s.now.Before(from.Add(a.For)))
	})
}

// save takes over what was decided, and tells of it.
func (s *simulation) save(l *lane, d rollout.Decision) {
	before := l.target
	s.passed(l)
	l.target = d.Target
	s.ask(l, d.Calls)
	l.facts.Links = append(slices.Clip(l.facts.Links), d.Exposes...)
	for _, e := range d.Events {
		if e.Kind != "target.awaiting_approval" { // its wait is told
			s.tell(l, strings.TrimPrefix(e.What, l.target.Name+": "), e.Why)
		}
	}
	for _, w := range d.Target.Waits {
		if !slices.ContainsFunc(before.Waits, func(old rollout.Wait) bool {
			return old.Kind == w.Kind && old.Gate == w.Gate && old.Since.Equal(w.Since)
		}) {
			s.tell(l, "waits for "+w.Needs, "")
		}
	}
	for _, key := range d.Claim {
		if !slices.Contains(l.facts.Inventory, key) {
			l.facts.Inventory = append(slices.Clip(l.facts.Inventory), key)
		}
	}
	for _, key := range d.Drop {
		l.facts.Inventory = slices.DeleteFunc(slices.Clone(l.facts.Inventory), func(k manifest.Key) bool { return k == key })
	}
	if d.Good != nil {
		l.facts.Good, l.reached = d.Good, s.now
	}
	if d.Cancels != nil && s.cancel == nil {
		s.cancel = d.Cancels
		for _, other := range s.order {
			s.wakeAt(other, s.now)
		}
	}
	if d.Target.State.Final() {
		for _, dependent := range l.dependents {
			s.wakeAt(dependent, s.now)
		}
	}
}

func (s *simulation) tell(l *lane, what, why string) {
	if why != "" {
		what += ": " + why
	}
	s.lines = append(s.lines, Line{s.now, l.target.Name, what})
}

// passed counts the time since a lane last changed against what it waited for. A wait without end is never counted.
func (s *simulation) passed(l *lane) {
	took := s.now.Sub(l.since)
	l.since = s.now
	var counted []rollout.WaitKind
	for _, w := range l.target.Waits {
		if !slices.Contains(counted, w.Kind) {
			l.waited[w.Kind] += took
			counted = append(counted, w.Kind)
		}
	}
}

func (s *simulation) result() Result {
	r := Result{Lines: s.lines, Decisions: s.decisions}
	var states []rollout.State
	for _, l := range s.order {
		t := l.target
		states = append(states, t.State)
		r.Targets = append(r.Targets, Report{Name: t.Name, State: t.State, Why: t.Why, Waits: t.Waits, Started: t.Started, Reached: l.reached, Ended: t.Ended,
			People: l.waited[rollout.WaitApproval], Pods: l.waited[rollout.WaitHealth],
			Pauses: l.waited[rollout.WaitPause] + l.waited[rollout.WaitWebhook] + l.waited[rollout.WaitAnalysis]})
	}
	r.State = rollout.Summary(states, s.cancel != nil)
	return r
}
