package rollout

import (
	"fmt"
	"slices"

	"towpath/manifest"
)

// look decides, on one fresh read, from where the target starts: what is to be taken over, what ran before, and which Services turn.
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
	if t.Deadline.IsZero() {
		t.Deadline, d.Changed = d.f.Now.Add(t.Timeout), true
	}
	if d.f.Look == nil {
		d.Read = d.first()
		return
	}
	if failure := d.f.Look.Failure; failure != nil {
		d.failed(failure, func() { d.end(Failed, failure.Error()) })
		return
	}
	if d.takesOver() {
		return
	}
	if why := d.alien(); why != "" {
		d.end(Failed, why)
		return
	}
	d.stand()
	d.muster()
	if why := d.pair(); why != "" {
		d.end(Failed, why)
		return
	}
	if why := d.route(); why != "" {
		d.end(Failed, why)
		return
	}
	d.enter(Hooking, Running)
}

// first is what is read before anything is touched. Deployment objects are read as objects too, so that a change of them wakes.
func (d *decision) first() *Read {
	read := &Read{Revisions: len(d.f.New.Revisions)+len(d.f.Base.Revisions) > 0, Routes: RoutesOf(d.Target.Way, d.Target.Namespace, d.f.New)}
	read.Foreign = read.Revisions && len(d.f.Inventory) == 0
	for _, revision := range d.f.New.Revisions {
		read.Workloads = append(read.Workloads, revision.Workload)
	}
	for _, fleet := range d.f.New.Fleets {
		if d.Target.takes(fleet) {
			read.Fleets = append(read.Fleets, Share{Key: fleet.Key})
		}
	}
	if t := &d.Target; t.BlueGreen != nil {
		for _, key := range ServicesOf(t.Way, t.Namespace, d.f.New) {
			if _, comes := d.f.New.selector(key); !comes {
				read.Others = append(read.Others, key)
			}
		}
	}
	return read
}

// takesOver handles Deployment objects that run: it waits until their own rollouts are complete, then makes them revisions.
func (d *decision) takesOver() bool {
	t := &d.Target
	var running, fought []manifest.Key
	for _, live := range d.f.Look.Workloads {
		if live.Missing {
			continue
		}
		running = append(running, live.Key)
		if live.Owner == "" && d.f.Base.manages(live.Key) {
			fought = append(fought, live.Key)
		}
		if live.Health == Healthy {
			continue
		}
		if !d.f.Now.Before(t.Deadline) {
			d.end(Failed, fmt.Sprintf("%s is to be taken over, and its own rollout did not end within %s: %s", live.Key, t.Timeout, live.Message))
			return true
		}
		d.Due = t.Deadline
		d.waiting(Running, Wait{Kind: WaitTakeOver, Until: t.Deadline, Needs: fmt.Sprintf("the rollout of %s to end, so that it can be taken over: %s", live.Key, live.Message)})
		return true
	}
	if len(running) == 0 {
		return false
	}
	for _, live := range d.f.Look.Workloads {
		if kept := t.KeepDeployment || live.Owner != ""; kept && !live.Missing && d.f.Base.manages(live.Key) && !slices.Contains(t.Adopted, live.Key) {
			t.Adopted = append(slices.Clip(t.Adopted), live.Key)
		}
	}
	for _, key := range fought {
		d.say("target.fight", fmt.Sprintf("%s: %s is there again though its pods are managed: something else makes it (kubectl, Helm, Argo CD); it is taken over once more, "+
			"but leave it to one of the two", t.Name, key), "")
	}
	d.Claim = d.f.New.Objects
	d.intend(Adopting, Action{Kind: Adopt, Manifests: t.Manifests, Workloads: running})
	t.Deadline = d.f.Now.Add(t.Timeout)
	return true
}

// alien says which pods of another target run what would begin here as if nothing ran: they would serve on beside it, and its strategy would be passed over.
func (d *decision) alien() string {
	for _, live := range d.f.Look.Foreign {
		if live.Replicas > 0 && d.f.New.runs(live) {
			return fmt.Sprintf("%s with %d pods runs Deployment %s/%s already, as %s left it (tenant/application/target): this target would begin beside it; "+
				"give the application and the target their former names, or delete that ReplicaSet first", live.Key, live.Replicas, live.Key.Namespace, live.Workload, live.Owner)
		}
	}
	return ""
}

// adopt makes Deployment objects revisions of ours, then looks again.
func (d *decision) adopt() {
	if d.done() {
		for _, key := range d.Target.Intent.Workloads {
			d.say("target.adopted", fmt.Sprintf("%s: %s is taken over, with its pods", d.Target.Name, key), "")
		}
		d.enter(Looking, Running)
	}
}

// stand records what runs: revisions that stand for those of the manifests, and those that carry the workloads now.
func (d *decision) stand() {
	t := &d.Target
	t.StandIns, t.Former, t.Kept = nil, nil, nil
	for _, live := range d.f.Look.Revisions {
		if live.StandsFor != "" {
			made := live.Key
			made.Name = live.StandsFor
			t.StandIns = append(t.StandIns, StandIn{made, live.Key, live.Hash})
		}
	}
	d.f.New, d.f.Base = d.resolve(d.f.New), d.resolve(d.f.Base)
	t.First = len(d.f.New.Revisions) > 0
	for _, live := range d.f.Look.Revisions {
		if live.Replicas == 0 {
			continue
		}
		if d.f.New.runs(live) {
			t.First = false
		}
		if !d.f.New.has(live.Key) {
			t.Former = append(t.Former, Former{Key: live.Key, Workload: live.Workload, Hash: live.Hash, Count: live.Replicas, Ready: live.Ready, Asked: live.Replicas})
		}
	}
	slices.SortFunc(t.Former, func(a, b Former) int { return a.Key.Compare(b.Key) })
	d.stable()
	t.Full = d.full(d.f.New)
	d.baselines()
	t.Asked = nil
	for _, r := range t.Full {
		running := Replicas{r.Key, 0}
		for _, live := range d.f.Look.Revisions {
			if live.Key == r.Key {
				running.Count = live.Replicas
			}
		}
		t.Asked = append(t.Asked, running)
		if running.Count > 0 && d.before(r) == nil {
			t.Kept = append(t.Kept, r.Key)
		}
	}
}

// stable marks, for each workload, the revision that carries it: the last good one, else the one with the most ready pods, the older one of equals.
func (d *decision) stable() {
	t := &d.Target
	lives := map[manifest.Key]Live{}
	for _, live := range d.f.Look.Revisions {
		lives[live.Key] = live
	}
	best := map[string]int{}
	for i, f := range t.Former {
		workload := f.Key.Namespace + "/" + f.Workload
		j, found := best[workload]
		if !found || d.steadier(lives[f.Key], lives[t.Former[j].Key]) {
			best[workload] = i
		}
	}
	for _, i := range best {
		t.Former[i].Stable = true
	}
}

func (d *decision) steadier(a, b Live) bool {
	if good := d.f.Base.has(a.Key); good != d.f.Base.has(b.Key) {
		return good
	}
	if a.Baseline != b.Baseline {
		return b.Baseline
	}
	if a.Ready != b.Ready {
		return a.Ready > b.Ready
	}
	return a.Number < b.Number
}

// full is how many pods each revision of a set shall have in the end: what the manifest says, else what runs of its workload, else 1. Where an autoscaler
// says how many run, that counts and not the manifest.
func (d *decision) full(set Set) []Replicas {
	counts := make([]Replicas, len(set.Revisions))
	for i, revision := range set.Revisions {
		counts[i] = Replicas{revision.ReplicaSet, 1}
		if revision.Replicas != nil {
			counts[i].Count = *revision.Replicas
		}
		if revision.Replicas != nil && !set.scaled(revision.Workload) {
			continue
		}
		var most int32
		for _, live := range d.f.Look.Revisions {
			if live.Workload == revision.Workload.Name && live.Key.Namespace == revision.Workload.Namespace {
				most = max(most, live.Replicas)
			}
		}
		if most > 0 {
			counts[i].Count = most
		}
	}
	return counts
}

// pair finds which Services turn from which revision to which. It returns why it cannot be.
func (d *decision) pair() string {
	t := &d.Target
	t.Pairs = nil
	if t.BlueGreen == nil {
		return ""
	}
	pairs, why := pairsOf(t.Way, t.Namespace, d.f.New, d.f.Look.Others)
	for i, p := range pairs {
		for _, f := range t.Former {
			if f.Stable && f.Workload == p.workload.Name && f.Key.Namespace == p.workload.Namespace {
				pairs[i].Stable = f.Hash
			}
		}
		t.Pairs = append(t.Pairs, pairs[i].Pair)
	}
	return why
}

// begin starts the rollout with the first share.
func (d *decision) begin() {
	t := &d.Target
	t.Step, t.Weight = 0, 100
	if t.BlueGreen == nil && !t.First && d.replaces() {
		t.Weight = d.firstWeight()
	}
	d.Claim = d.f.New.Objects
	if kept, rest := d.kept(), d.rest(); len(kept)+len(rest) > 0 && d.replaces() {
		d.intend(Holding, Action{Kind: Shift, Divide: kept, Aim: rest})
		return
	}
	d.applies()
}

// applies begins to carry the manifests to the cluster, the new revisions with the pods of the first share.
func (d *decision) applies() {
	t := &d.Target
	counts := d.share(t.Weight)
	for i := range counts {
		counts[i].Count = max(counts[i].Count, t.Asked[i].Count) // what runs already is lowered once the rest is proved
	}
	action := Action{Kind: Apply, Manifests: t.Manifests, Replicas: counts, StandIns: t.StandIns, Leave: d.deferred(), Select: d.selections(false),
		Share: d.shares(t.Weight), Divide: d.present(), Aim: d.still()}
	d.intend(Applying, action)
}

// firstWeight is the share with which a canary begins: a canary that begins with a wait begins with none.
func (d *decision) firstWeight() int {
	t := &d.Target
	if len(t.Canary) == 0 {
		return 100
	}
	if t.Canary[0].Weight == nil {
		return 0
	}
	t.Step = 1
	return *t.Canary[0].Weight
}

// deferred is the configuration that keeps its former content under its own name until the new revisions carry everything.
func (d *decision) deferred() []manifest.Key {
	if d.Target.First || len(d.Target.Former) == 0 {
		return nil
	}
	return d.f.New.Configuration
}

// selections is where Services shall send traffic: to the new revisions once turned, before that to those that carried the workloads.
func (d *decision) selections(turned bool) []Selection {
	var all []Selection
	for _, p := range d.Target.Pairs {
		active := p.New
		if !turned && p.Stable != "" {
			active = p.Stable
		}
		all = append(all, Selection{p.Active, active})
		if p.Preview != (manifest.Key{}) {
			all = append(all, Selection{p.Preview, p.New})
		}
	}
	return all
}

// resolve puts adopted ReplicaSets in the place of the revisions that they are.
func (d *decision) resolve(set Set) Set {
	if len(d.Target.StandIns) == 0 {
		return set
	}
	set.Revisions = slices.Clone(set.Revisions)
	for i, revision := range set.Revisions {
		for _, s := range d.Target.StandIns {
			if s.For == revision.ReplicaSet {
				set.Revisions[i].ReplicaSet, set.Revisions[i].Hash = s.Is, s.Hash
			}
		}
	}
	return set
}

func (s Set) has(key manifest.Key) bool {
	return slices.ContainsFunc(s.Revisions, func(r Revision) bool { return r.ReplicaSet == key })
}

// manages reports whether a Deployment object is one that became a revision of the set.
func (s Set) manages(workload manifest.Key) bool {
	return slices.ContainsFunc(s.Revisions, func(r Revision) bool { return r.Workload == workload })
}

// runs reports whether a live revision is one of a workload of the set.
func (s Set) runs(live Live) bool {
	return slices.ContainsFunc(s.Revisions, func(r Revision) bool {
		return r.Workload.Name == live.Workload && r.Workload.Namespace == live.Key.Namespace
	})
}
