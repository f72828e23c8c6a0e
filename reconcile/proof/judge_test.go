package proof_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"towpath/internal/testkit/cloud"
	"towpath/manifest"
	"towpath/reconcile/rollout"
	"towpath/store"
)

// judge looks on while a house works, and says what is wrong in one sentence: the first thing that was.
type judge struct {
	house *house
	wrong string
	log   []string // what happened, for who looks into a seed

	starts   []rollout.Start
	numbers  map[string]int // of deployments
	lanes    map[string]*watched
	words    map[string][]rollout.Word // by deployment, as they were said
	holds    []held
	links    map[string]bool // that steps have made, by step and Service
	told     []rollout.Event // by decisions, as they were saved
	onSaved  []func(rollout.Target)
	troubled time.Time // the last time that anything kept a process from its work
}

// watched is what is known of a lane.
type watched struct {
	id      int64
	name    string // "main/shop/prod"
	holder  int    // run that claimed it last
	target  rollout.Target
	touched int64          // target that changed something in the cluster already
	changed map[int64]bool // targets that changed more than their hooks
	adopted map[int64]bool // targets that took over a Deployment object which the file keeps
	good    *rollout.Release
	goods   []rollout.Release      // all that ever were
	ended   []rollout.Target       // in that order
	saves   int                    // of the present target
	had     map[manifest.Key]int32 // pods of fleets that were of its manifests when the present target began
	left    bool                   // the last target that failed left its routes to a person
	ready   time.Time              // since when all that it waits for is there; zero: it is not
}

// held is a hold and the time from which it is in force.
type held struct {
	store.Hold
	since time.Time
}

func newJudge(h *house) *judge {
	return &judge{house: h, numbers: map[string]int{}, lanes: map[string]*watched{}, words: map[string][]rollout.Word{}, links: map[string]bool{}}
}

// wrongly says what is wrong; only the first time counts.
func (j *judge) wrongly(format string, args ...any) {
	if j.wrong == "" {
		j.wrong = fmt.Sprintf("after %s: ", j.house.Now().Sub(start)) + fmt.Sprintf(format, args...)
	}
}

func (j *judge) note(format string, args ...any) {
	if tracing {
		j.log = append(j.log, j.house.Now().Sub(start).String()+" "+fmt.Sprintf(format, args...))
	}
}

func (j *judge) disturbed() { j.troubled = j.house.Now() }

// asked notes a deployment that is to start.
func (j *judge) asked(s rollout.Start) {
	j.starts = append(j.starts, s)
	j.note("starts %s of %s (%s)", s.ID, s.Application, s.Trigger.Kind)
}

func (j *judge) laneOf(id int64, t *rollout.Target) *watched {
	for _, w := range j.lanes {
		if w.id == id {
			return w
		}
	}
	if t == nil {
		lane, err := j.house.store.Lane(context.Background(), id)
		j.house.must(err)
		if t = lane.Current; t == nil {
			return &watched{id: id}
		}
	}
	w := &watched{id: id, name: laneName(t.Identity()), changed: map[int64]bool{}, adopted: map[int64]bool{}}
	j.lanes[w.name] = w
	return w
}

func (j *judge) nameOfLane(id int64) string { return j.laneOf(id, nil).name }

// sort puts lanes that were woken at once into an order that is the same each time, whatever ids a store gives.
func (j *judge) sort(lanes []int64) {
	slices.SortStableFunc(lanes, func(a, b int64) int { return strings.Compare(j.nameOfLane(a), j.nameOfLane(b)) })
}

// claimed holds that nobody else has the lane.
func (j *judge) claimed(r *run) {
	j.laneOf(r.lane, nil).holder = r.number
}

// changed is told of each change in a cluster just before it is made.
func (j *judge) changed(c cloud.Change) {
	w := j.lanes[c.Lane]
	if w == nil {
		j.wrongly("%s of %s in %s by nobody that holds a lane", c.Kind, c.Key, c.Cluster.Name)
		return
	}
	t := &w.target
	j.note("%s %s: %s %s %d→%d %s (run %d)", c.Lane, t.Phase, c.Kind, c.Key, c.From, c.To, c.Hash, c.Run)
	if now := j.intended(c.Lane); c.Run != w.holder && c.For != now {
		j.wrongly("a late writer: run %d makes a change (%s of %s) in %s for %s although run %d holds the lane by now, for %s", c.Run, c.Kind, c.Key, c.Cluster.Name, c.For, w.holder, now)
	}
	if w.touched != t.ID {
		w.touched = t.ID
		j.begun(w)
	}
	if o := c.Cluster.Object(c.Key); c.Kind != "hook" && (o == nil || o.Run == nil) {
		w.changed[t.ID] = true
		j.prepared(w, c)
	}
	switch c.Kind {
	case "hook":
		j.hooked(w, c)
	case "adopt":
		if t.Base != nil && (t.KeepDeployment || c.Cluster.Object(c.Key).Owner == w.name) {
			w.adopted[t.ID] = true
		}
	case "scale":
		if c.To < c.From {
			j.lowered(w, c)
			j.unserved(w, c)
		}
	case "turn":
		j.turned(w, c)
	case "divide":
		j.divided(w, c)
	case "share":
		j.shared(w, c)
	case "replace":
		j.replaced(w, c)
	case "remove":
		if c.Cluster.Object(c.Key).Run != nil {
			j.dismissed(w, c)
		}
		if c.From > 0 && c.Key.Kind == "ReplicaSet" && !t.Removes && slices.ContainsFunc(j.house.sets[t.Manifests].Revisions, func(r rollout.Revision) bool { return r.ReplicaSet == c.Key }) && t.Phase == rollout.Pruning {
			j.wrongly("%s: %s with %d pods is removed by the deployment that brought it", w.name, c.Key, c.From)
		}
	}
}

// intended is what a lane has in hand: the same again, whoever sends it and how late, is harmless.
func (j *judge) intended(lane string) string {
	w := j.lanes[lane]
	if w == nil {
		return ""
	}
	t := &w.target
	return fmt.Sprintf("#%d in %s since %s", t.Number, t.Phase, t.Since.Sub(start))
}

// asks is the manifests that a deployment asks for on a target.
func (j *judge) asks(deployment, target string) string {
	start, err := j.house.store.Started(context.Background(), "main", deployment)
	if err != nil {
		return ""
	}
	for _, t := range start.Targets {
		if t.Name == target {
			return t.Manifests
		}
	}
	return ""
}

// begun holds, when a target touches its cluster for the first time, that those it depends on are done.
func (j *judge) begun(w *watched) {
	t := &w.target
	if slices.Contains(t.Skip, rollout.SkipDependencies) {
		return
	}
	for _, name := range t.DependsOn {
		other := j.lanes[t.Tenant+"/"+t.Application+"/"+name]
		if other == nil {
			continue // nothing was ever done there: it was wanted by nobody
		}
		newest := 0 // that was asked for by this deployment, or before it
		for _, e := range append(slices.Clone(other.ended), other.target) {
			if e.Number <= t.Number && e.Pins == nil {
				newest = max(newest, e.Number)
			}
		}
		if newest == 0 || slices.ContainsFunc(append(slices.Clone(other.ended), other.target), func(e rollout.Target) bool {
			return e.Number >= newest && (e.State == rollout.Succeeded || e.State == rollout.Skipped)
		}) {
			continue
		}
		if other.good != nil && other.good.Manifests == j.asks(t.Deployment, name) {
			continue // it went back to the very manifests that are asked for now
		}
		j.wrongly("%s of #%d starts although %s, which it depends on, is %s (#%d)", w.name, t.Number, name, other.target.State, other.target.Number)
	}
}

// backwards reports whether a target goes back.
func backwards(p rollout.Phase) bool {
	switch p {
	case rollout.Returning, rollout.Regaining, rollout.Withdrawing, rollout.Vacating, rollout.Rejoining, rollout.Reverting, rollout.Recovering, rollout.Clearing, rollout.Reinstating:
		return true
	}
	return false
}

// capacity is the pods of a workload that were proved ready, with one of its revisions at another count.
func capacity(c *cloud.Cluster, workload manifest.Key, changed manifest.Key, count int32) (sum int32) {
	for _, o := range c.Objects() {
		if o.Key.Kind != "ReplicaSet" || o.Workload != workload.Name || o.Key.Namespace != workload.Namespace {
			continue
		}
		proved := o.Proved
		if o.Key == changed {
			proved = min(proved, count)
		}
		sum += proved
	}
	return sum
}

// lowered holds that what a revision loses is carried by pods that were proved ready.
func (j *judge) lowered(w *watched, c cloud.Change) {
	t := &w.target
	o := c.Cluster.Object(c.Key)
	workload := manifest.Key{Group: "apps", Kind: "Deployment", Namespace: c.Key.Namespace, Name: o.Workload}
	before, after := capacity(c.Cluster, workload, c.Key, c.From), capacity(c.Cluster, workload, c.Key, c.To)
	need := int32(-1)
	for _, f := range t.Former {
		if f.Stable && f.Workload == workload.Name && f.Key.Namespace == workload.Namespace {
			need = f.Count
		}
	}
	full := int32(-1)
	for _, revision := range j.house.sets[t.Manifests].Revisions {
		if revision.Workload == workload {
			for _, f := range t.Full {
				if f.Key == revision.ReplicaSet || slices.ContainsFunc(t.StandIns, func(s rollout.StandIn) bool { return s.For == revision.ReplicaSet && s.Is == f.Key }) {
					full = f.Count
				}
			}
		}
	}
	switch {
	case t.Removes, need < 0, full < 0: // there was nothing to carry on, or the workload left the manifests
		return
	case t.BlueGreen != nil && backwards(t.Phase): // traffic goes by Services
		return
	case backwards(t.Phase) && t.Phase == rollout.Returning:
		need = (need + 1) / 2
	case t.Reverted && t.Base != nil: // what a rollout that broke off had left to serve gives way to the last good version
		for _, revision := range j.house.sets[t.Base.Manifests].Revisions {
			if o := c.Cluster.Object(revision.ReplicaSet); o != nil && revision.Workload == workload {
				need = min(need, o.Replicas)
			}
		}
	case backwards(t.Phase):
	default:
		need = min(need, full)
	}
	if after < before && after < need {
		j.wrongly("%s in %s: %s goes from %d to %d pods, and of the workload only %d are proved ready, which were %d; %d must be", w.name, t.Phase, c.Key, c.From, c.To, after, before, need)
	}
}

// turned holds that traffic goes to pods that were proved ready.
func (j *judge) turned(w *watched, c cloud.Change) {
	t := &w.target
	active := slices.IndexFunc(t.Pairs, func(p rollout.Pair) bool { return p.Active == c.Key })
	if active < 0 || c.Was == "" || t.Pairs[active].Stable == "" {
		return
	}
	pair := t.Pairs[active]
	switch c.Hash {
	case pair.Stable:
	case pair.New:
		for _, o := range c.Cluster.Objects() {
			if o.Key.Kind == "ReplicaSet" && o.Hash == c.Hash && o.Key.Namespace == c.Key.Namespace && (o.Proved < o.Replicas || o.Replicas == 0) {
				j.wrongly("%s in %s: %s sends traffic to %s, of whose %d pods only %d are proved ready", w.name, t.Phase, c.Key, o.Key, o.Replicas, o.Proved)
			}
		}
		if t.Phase != rollout.Switching {
			j.wrongly("%s: %s turns to the new version in %s", w.name, c.Key, t.Phase)
		}
	default:
		j.wrongly("%s in %s: %s turns to %s, which is neither the version that ran (%s) nor the new one (%s)", w.name, t.Phase, c.Key, c.Hash, pair.Stable, pair.New)
	}
}

// weights is the share of each side of a division, by ReplicaSet; nil: it is whole.
func weights(d rollout.Division) map[manifest.Key]int {
	switch d.Stage {
	case rollout.Held:
		return map[manifest.Key]int{d.Stable.ReplicaSet: 100}
	case rollout.Divided, rollout.Opened:
		if d.Compared {
			return map[manifest.Key]int{d.Stable.ReplicaSet: 100 - 2*d.Weight, d.New.ReplicaSet: d.Weight, d.Baseline.ReplicaSet: d.Weight}
		}
		return map[manifest.Key]int{d.Stable.ReplicaSet: 100 - d.Weight, d.New.ReplicaSet: d.Weight}
	}
	return nil
}

// divided holds that traffic is given only to pods that were proved ready, and that what is whole again leads to one version.
func (j *judge) divided(w *watched, c cloud.Change) {
	t := &w.target
	before := c.Cluster.Object(c.Key).Divided
	was := weights(before)
	for set, weight := range weights(c.Division) {
		o := c.Cluster.Object(set)
		switch {
		case weight < 0 || weight > 100:
			j.wrongly("%s in %s: %s gives %s %d %% of the traffic", w.name, t.Phase, c.Key, set, weight)
		case weight == 0, weight <= was[set]:
		case o == nil:
			j.wrongly("%s in %s: %s gives %d %% of the traffic to %s, which is not there", w.name, t.Phase, c.Key, weight, set)
		case set != c.Division.Stable.ReplicaSet && (o.Proved < o.Replicas || o.Replicas == 0), o.Ready == 0:
			j.wrongly("%s in %s: %s gives %d %% of the traffic to %s, of whose %d pods only %d are proved ready", w.name, t.Phase, c.Key, weight, set, o.Replicas, o.Proved)
		}
	}
	gone := before.Stable.ReplicaSet
	if backwards(t.Phase) {
		gone = before.New.ReplicaSet
	}
	if o := c.Cluster.Object(gone); c.Division.Stage == rollout.Whole && was != nil && !t.Yields && !t.Fails && o != nil && o.Replicas > 0 {
		j.wrongly("%s in %s: %s is whole again, and leads to %d pods of %s, which were to go", w.name, t.Phase, c.Key, o.Replicas, gone)
	}
}

// unserved holds that no revision loses its last pods while traffic goes there.
func (j *judge) unserved(w *watched, c cloud.Change) {
	if c.To > 0 || w.left {
		return
	}
	for _, o := range c.Cluster.Objects() {
		if weight := weights(o.Divided)[c.Key]; weight > 0 {
			j.wrongly("%s in %s: %s loses its pods while %s gives it %d %% of the traffic", w.name, w.target.Phase, c.Key, o.Key, weight)
		}
	}
}

// saved is told of each decision that a store took.
func (j *judge) saved(r *run, d rollout.Decision) {
	t := d.Target
	w := j.laneOf(r.lane, &t)
	was := w.target
	j.numbers[t.Deployment] = t.Number
	j.told = append(j.told, d.Events...)
	if t.Phase != was.Phase || t.State != was.State || len(d.Events) > 0 {
		j.note("%s #%d: %s in %s, step %d at %d %%, %s %v (run %d)", w.name, t.Number, t.State, t.Phase, t.Step, t.Weight, t.Why, needs(t.Waits), r.number)
	}
	if r.number != w.holder {
		j.wrongly("a late writer: run %d saves %s although run %d holds the lane by now", r.number, w.name, w.holder)
	}
	if t.ID != was.ID {
		was = rollout.Target{ID: t.ID, Phase: rollout.Waiting, State: rollout.Queued}
		w.saves = 0
	}
	if w.saves++; w.saves > 1000 {
		j.wrongly("%s of #%d was saved %d times and has not ended: %s in %s", w.name, t.Number, w.saves, t.State, t.Phase)
	}
	j.made(w, t, d.Exposes)
	j.passed(w, was, t)
	j.concluded(w, was, t)
	j.rests(w, was, t)
	j.gaveUp(w, was, t)
	j.halted(r, w, was, t)
	w.target, w.ready = t, time.Time{}
	if d.Good != nil {
		w.good = d.Good
		w.goods = append(w.goods, *d.Good)
	}
	if d.Emptied {
		w.good = nil
	}
	if t.State.Final() {
		j.restored(w, t)
		w.left = len(t.Routes) > 0 || w.left && (t.Started.IsZero() || len(t.Traffic) == 0)
		w.ended = append(w.ended, t)
	}
	for _, see := range j.onSaved {
		see(t)
	}
}

func needs(waits []rollout.Wait) (all []string) {
	for _, w := range waits {
		all = append(all, w.Needs)
	}
	return all
}

// passed holds that each step which a target left behind may be left behind.
func (j *judge) passed(w *watched, was, t rollout.Target) {
	if backwards(t.Phase) || t.State.Final() && t.State != rollout.Succeeded {
		return
	}
	rank := func(p rollout.Phase) int { return slices.Index(forward, p) }
	leaves := func(p rollout.Phase) bool { return rank(was.Phase) <= rank(p) && rank(t.Phase) > rank(p) }
	now := j.house.Now()
	since := func(p rollout.Phase) time.Time {
		if was.Phase == p {
			return was.Since
		}
		return now
	}
	if leaves(rollout.Preparing) {
		j.gates(w, t, "beforeDeployment", t.Before, since(rollout.Preparing))
	}
	if !t.First && t.BlueGreen == nil {
		for i := was.Step; i < t.Step && i < len(t.Canary); i++ {
			if t.Canary[i].Weight == nil && (was.Phase == rollout.Pausing || len(t.Former)+len(t.Fleets) > 0) {
				began := now
				if i == was.Step {
					began = since(rollout.Pausing)
				}
				j.gate(w, t, fmt.Sprintf("canary.steps[%d]", i), t.Canary[i], began)
			}
		}
	}
	if t.BlueGreen != nil && !t.First && len(t.Former) > 0 {
		if leaves(rollout.Redirecting) {
			j.gates(w, t, "blueGreen.redirectTrafficAfter", t.BlueGreen.Redirect, since(rollout.Redirecting))
		}
		if leaves(rollout.Overlapping) {
			j.gates(w, t, "blueGreen.shutDownOldVersionAfter", t.BlueGreen.ShutDown, since(rollout.Overlapping))
		}
	}
	if t.State == rollout.Succeeded && !t.Removes {
		j.gates(w, t, "afterDeployment", t.After, since(rollout.Following))
	}
}

// forward is the phases of a good rollout in their order; those that may come several times stand where they may come last.
var forward = []rollout.Phase{rollout.Waiting, rollout.Preparing, rollout.Looking, rollout.Adopting, rollout.Hooking, rollout.Holding, rollout.Applying, rollout.Raising, rollout.Replacing, rollout.Settling, rollout.Steering, rollout.Lowering,
	rollout.Pausing,
	rollout.Redirecting, rollout.Switching, rollout.Overlapping, rollout.Completing, rollout.Concluding, rollout.Opening, rollout.Retiring, rollout.Draining, rollout.Joining, rollout.Pruning, rollout.Restoring, rollout.Following, rollout.Finished}

func (j *judge) gates(w *watched, t rollout.Target, where string, steps []rollout.Step, since time.Time) {
	for i, step := range steps {
		j.gate(w, t, fmt.Sprintf("%s[%d]", where, i), step, since)
	}
}

// gate holds that a step may be passed: by words that were really said, of this very digest, or by time.
func (j *judge) gate(w *watched, t rollout.Target, name string, step rollout.Step, since time.Time) {
	by, passed := j.said(t, name, step)
	switch {
	case passed:
	case step.Approval != nil && !slices.Contains(t.Skip, rollout.SkipApprovals) && len(by) < max(step.Approval.Count, 1):
		j.wrongly("%s of #%d passes %s with %d of %d approvals of what is rolled out (%s)", w.name, t.Number, name, len(by), max(step.Approval.Count, 1), strings.Join(by, ", "))
	case step.Pause > 0 && !slices.Contains(t.Skip, rollout.SkipPauses) && j.house.Now().Sub(since) < step.Pause:
		j.wrongly("%s of #%d passes the pause %s after %s of %s", w.name, t.Number, name, j.house.Now().Sub(since), step.Pause)
	default:
		j.answered(w, t, name, step)
	}
}

// said is who approved a step, as it was promised, and whether anybody passed it over.
func (j *judge) said(t rollout.Target, name string, step rollout.Step) (by []string, passed bool) {
	for _, word := range j.words[t.Deployment] {
		if word.Target != t.Name || word.Gate != name || word.Digest != t.Digest {
			continue
		}
		switch word.Verb {
		case rollout.Pass:
			passed = true
		case rollout.Approve:
			own := step.Approval != nil && step.Approval.NotSelf && slices.Contains(t.Authors, word.By)
			if !own && !slices.Contains(by, word.By) {
				by = append(by, word.By)
			}
		}
	}
	return by, passed
}

// heard reports whether a target waits for nothing but words that were said already.
func (j *judge) heard(t rollout.Target) bool {
	if t.State != rollout.AwaitingApproval {
		return false
	}
	for _, w := range t.Waits {
		step := stepAt(t, w.Gate)
		if w.Kind != rollout.WaitApproval || step == nil || step.Approval == nil {
			return false
		}
		if by, passed := j.said(t, w.Gate, *step); !passed && len(by) < max(step.Approval.Count, 1) {
			return false
		}
	}
	return len(t.Waits) > 0
}

// stepAt is the step of that name in a target's way; nil: there is none.
func stepAt(t rollout.Target, gate string) *rollout.Step { return stepsOf(t)[gate] }

// stepsOf is all steps of a target's way by their names.
func stepsOf(t rollout.Target) map[string]*rollout.Step {
	all := map[string]*rollout.Step{}
	named := map[string][]rollout.Step{"beforeDeployment": t.Before, "canary.steps": t.Canary, "afterDeployment": t.After}
	if t.BlueGreen != nil {
		named["blueGreen.redirectTrafficAfter"], named["blueGreen.shutDownOldVersionAfter"] = t.BlueGreen.Redirect, t.BlueGreen.ShutDown
	}
	for name, steps := range named {
		for i := range steps {
			all[fmt.Sprintf("%s[%d]", name, i)] = &steps[i]
		}
	}
	return all
}

// passing is what trouble says that passes.
var passing = []string{"connection reset", "gave no answer", "somebody changed it", "the lease is over"}

// gaveUp holds that nothing is given up at the first trouble on the way.
func (j *judge) gaveUp(w *watched, was, t rollout.Target) {
	ended := t.State.Final() && t.State != rollout.Succeeded && !was.State.Final()
	turned := backwards(t.Phase) && !backwards(was.Phase)
	if !ended && !turned || was.Attempts > 1 || j.house.Now().Sub(was.Since) >= t.Timeout/2 {
		return
	}
	for _, text := range passing {
		if strings.Contains(t.Why, text) && !strings.Contains(was.Why, text) {
			j.wrongly("%s of #%d gives up in %s, after %s and %d tries of what may take %s: %s", w.name, t.Number, was.Phase, j.house.Now().Sub(was.Since), was.Attempts, t.Timeout, t.Why)
		}
	}
}

// halted holds that nothing new is begun under a hold.
func (j *judge) halted(r *run, w *watched, was, t rollout.Target) {
	stops := t.Ending != "" // a hook that runs is ended, and nothing comes after it
	if t.Intent == nil || stops || backwards(t.Phase) || was.Phase == t.Phase && was.Intent != nil {
		return
	}
	for _, h := range j.holds {
		if h.since.Before(r.read) && (h.Scope == store.ScopeAll || h.Scope == store.ScopeApplication && h.Name == t.Application || h.Scope == store.ScopeAccount && h.Name == t.Account) {
			j.wrongly("%s of #%d goes from %s to %s although %s are halted since %s", w.name, t.Number, was.Phase, t.Phase, h, r.read.Sub(h.since))
		}
	}
}

// patience is how long a lane may take to see what is there to be seen, when nothing was lost on the way.
const patience = 4 * time.Minute

// waited holds, before the clock moves on, that no lane waits for what is there already.
func (j *judge) waited(until time.Time) {
	h := j.house
	if len(h.processes) == 0 || len(j.holds) > 0 {
		j.disturbed()
		return
	}
	for _, name := range j.laneNames() {
		w := j.lanes[name]
		what := "a word was not heard"
		if !j.heard(w.target) {
			what = "a wake was lost"
			if h.cloud.Faults.Lossy || !j.proved(&w.target) {
				w.ready = time.Time{}
				continue
			}
		}
		if w.ready.IsZero() {
			w.ready = h.Now()
		}
		since := w.ready
		if j.troubled.After(since) {
			since = j.troubled
		}
		if until.Sub(since) > patience {
			j.wrongly("%s of #%d waits in %s although all that it waits for is there since %s: %s", w.name, w.target.Number, w.target.Phase, h.Now().Sub(w.ready), what)
		}
	}
}

// proved reports whether all that a target waits for is ready in its cluster.
func (j *judge) proved(t *rollout.Target) bool {
	cluster := j.house.cloud.Cluster(t.Account)
	return t.Intent == nil && t.Attempts == 0 && !cluster.Away() && len(t.Open) > 0 && !slices.ContainsFunc(t.Open, func(p rollout.Proof) bool {
		o := cluster.Object(p.Key)
		return o == nil || o.UID != p.UID || o.Generation < p.Generation || o.Health != rollout.Healthy
	})
}
