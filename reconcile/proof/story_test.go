package proof_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"towpath/internal/testkit/cloud"
	"towpath/manifest"
	"towpath/reconcile/rollout"
	"towpath/store"
)

// story is what a seed lets happen in a house: applications with their targets, commits, people, and a bad world around them.
type story struct {
	*house
	r            *rand.Rand
	applications []*app
	lasts        time.Duration // until calm comes
	calm         bool
	plain        bool // manifests are much the same in each version: four pods, and one ConfigMap that comes and goes
	fleets       bool // plain ones have a StatefulSet and a DaemonSet, too
	commits      int
}

// app is one application, and how its deployment file is by now.
type app struct {
	name    string
	targets []*place
}

// place is a target of an application in its cluster.
type place struct {
	name, account string
	dependsOn     []string
	version       int // that the file is at
	way           rollout.Way
	gone          bool
	versions      map[int]version
}

// version is one content of a target's manifests.
type version struct {
	digest string
	set    rollout.Set
	sealed []manifest.Object
}

// chance reports true in so many of a hundred cases.
func (s *story) happens(percent int) bool { return s.r.IntN(100) < percent }

func (s *story) between(least, most time.Duration) time.Duration {
	return least + time.Duration(s.r.Int64N(int64((most-least)/time.Second)+1))*time.Second
}

// tell lets all of a seed happen, and holds what must hold at its end.
func tell(open open, seed uint64, f fault) *house {
	r := rand.New(rand.NewPCG(seed, 7))
	h := newHouse(open, seed, r.IntN(3) == 0, f)
	s := &story{house: h, r: r, lasts: time.Duration(1+r.IntN(6)) * time.Hour}
	s.world()
	for range 1 + s.r.IntN(2) {
		s.application()
	}
	h.live()
	if !h.store.Exclusive && s.happens(50) {
		h.live()
	}
	s.plot()
	h.drive(start.Add(s.lasts))
	s.becalm()
	h.drive(start.Add(s.lasts + 60*time.Hour))
	h.end()
	h.close()
	return h
}

// world chooses how bad the world is: in a third of the seeds it is good.
func (s *story) world() {
	f := &s.cloud.Faults
	if s.happens(33) {
		return
	}
	chance := func(most int) int { return s.r.IntN(most + 1) }
	s.outside.bad = chance(20)
	f.Before, f.After, f.Conflict, f.Twice = chance(8), chance(8), chance(5), chance(30)
	if s.happens(50) {
		f.Slow = chance(4)
	}
	if s.happens(50) {
		f.Late = chance(50)
	}
	if s.happens(40) {
		f.Lost = chance(60)
	}
	s.stalls = chance(3)
}

// application makes an application with some targets, in which something runs already, or nothing.
func (s *story) application() {
	a := &app{name: fmt.Sprint("app-", len(s.applications))}
	for i := range 1 + s.r.IntN(4) {
		p := &place{name: fmt.Sprintf("t%d", i), account: fmt.Sprint("cluster-", s.r.IntN(3)), versions: map[int]version{}}
		for _, other := range a.targets {
			if s.happens(50) {
				p.dependsOn = append(p.dependsOn, other.name)
			}
		}
		p.way = s.way(p)
		a.targets = append(a.targets, p)
		if s.happens(25) {
			s.runsAlready(a, p)
		}
	}
	s.applications = append(s.applications, a)
}

// namespace of a target: two targets never share one.
func namespace(a *app, p *place) string { return a.name + "-" + p.name }

func key(group, kind, namespace, name string) manifest.Key {
	return manifest.Key{Group: group, Kind: kind, Namespace: namespace, Name: name}
}

// version is the manifests of a target at a version: the same version is always the same.
func (s *story) version(a *app, p *place, n int) version {
	if v, known := p.versions[n]; known {
		return v
	}
	space := namespace(a, p)
	r := rand.New(rand.NewPCG(s.seed, uint64(n)<<8+uint64(len(space)+int(space[len(space)-1]))))
	web := key("apps", "Deployment", space, "web")
	hash := fmt.Sprintf("h%d", n)
	revision := rollout.Revision{Workload: web, ReplicaSet: key("apps", "ReplicaSet", space, "web-"+hash), Hash: hash, Labels: map[string]string{"app": "web"}}
	count, extras := int32(1+r.IntN(8)), r.IntN(4)
	if s.plain {
		count, extras = 4, 1
	}
	if s.plain || r.IntN(4) > 0 {
		revision.Replicas = &count
	}
	service, preview, settings := key("", "Service", space, "web"), key("", "Service", space, "preview"), key("", "ConfigMap", space, "web")
	set := rollout.Set{Objects: []manifest.Key{web, service, preview, settings}, Revisions: []rollout.Revision{revision}, Configuration: []manifest.Key{settings},
		Services: []rollout.Service{{Key: service, Selector: revision.Labels}, {Key: preview, Selector: revision.Labels}}}
	if !s.plain && len(space)%2 == 0 { // an autoscaler comes with all versions or with none
		scaler := key("autoscaling", "HorizontalPodAutoscaler", space, "web")
		set.Objects, set.Scalers = append(set.Objects, scaler), []rollout.Scaler{{Key: scaler, Workload: web}}
	}
	for _, k := range s.fleetsOf(space) {
		set.Objects, set.Fleets = append(set.Objects, k), append(set.Fleets, rollout.Fleet{Key: k})
		if scaler := key("autoscaling", "HorizontalPodAutoscaler", space, "db"); k.Kind == "StatefulSet" {
			set.Objects, set.Scalers = append(set.Objects, scaler), append(set.Scalers, rollout.Scaler{Key: scaler, Workload: k})
		}
	}
	for i := range extras {
		set.Objects = append(set.Objects, key("", "ConfigMap", space, fmt.Sprintf("extra-%d", (n+i)%5)))
	}
	v := version{digest: fmt.Sprintf("%s@%d", space, n), set: set}
	for _, k := range set.Objects {
		text := fmt.Sprintf(`{"apiVersion":"v1","kind":%q,"metadata":{"name":%q,"namespace":%q}}`, k.Kind, k.Name, k.Namespace)
		v.sealed = append(v.sealed, manifest.Object{Key: k, Version: "v1", JSON: []byte(text), Source: v.digest})
	}
	cluster := s.cloud.Cluster(p.account)
	fate := cloud.Pods{After: time.Duration(r.IntN(60)) * time.Second}
	if r.IntN(4) == 0 {
		fate.After = 0
	}
	switch r.IntN(10) {
	case 0, 1:
		fate.Never = "ErrImagePull"
	case 2:
		cluster.Refuse(v.digest, "denied by admission")
	}
	cluster.Fate(revision.ReplicaSet, fate)
	for _, f := range set.Fleets {
		fate := cloud.Pods{After: time.Duration(r.IntN(60)) * time.Second}
		if r.IntN(8) == 0 {
			fate.Never = "ErrImagePull"
		}
		cluster.Fate(cloud.FateOf(f.Key, v.digest), fate)
	}
	if !s.plain {
		set.Hooks = hooksOf(r, space)
	}
	for _, h := range set.Hooks {
		cluster.Fate(cloud.FateOf(h.Key, v.digest), fateOfHook(r))
	}
	s.sets[v.digest], p.versions[n] = set, v
	return v
}

// fleetsOf a target come with all of its versions, or with none.
func (s *story) fleetsOf(space string) (keys []manifest.Key) {
	last := space[len(space)-1] % 4
	if s.fleets || !s.plain && last < 2 {
		keys = append(keys, key("apps", "StatefulSet", space, "db"))
	}
	if s.fleets || !s.plain && last > 0 && last < 3 {
		keys = append(keys, key("apps", "DaemonSet", space, "agent"))
	}
	return keys
}

// way is a strategy and constraints of a target.
func (s *story) way(p *place) rollout.Way {
	w := rollout.Way{Timeout: s.between(15*time.Minute, 30*time.Minute), DependsOn: p.dependsOn, KeepDeployment: s.happens(20)}
	switch s.r.IntN(8) {
	case 0:
		w.Unreachable = rollout.SkipUnreachable
	case 1:
		w.Unreachable = rollout.FailsUnreachable
	}
	switch s.r.IntN(4) {
	case 0:
		full := 100
		w.Canary = []rollout.Step{{Weight: &full}}
	case 1, 2:
		weight := 0
		for range 1 + s.r.IntN(5) {
			if s.happens(50) {
				weight = min(weight+1+s.r.IntN(60), 100)
				at := weight
				w.Canary = append(w.Canary, rollout.Step{Weight: &at})
				if at <= 50 && s.happens(15) {
					w.Canary = append(w.Canary, s.comparison())
				}
			} else {
				w.Canary = append(w.Canary, s.inside())
			}
		}
	case 3:
		w.BlueGreen = &rollout.BlueGreen{Services: []rollout.ServicePair{{Active: "web", Preview: "preview"}}, Redirect: s.waits(s.inside), ShutDown: s.waits(s.inside)}
	}
	if w.BlueGreen == nil && s.happens(70) {
		w.Workloads = []string{"StatefulSet", "DaemonSet"}
	}
	if w.BlueGreen == nil && s.happens(40) {
		w.Traffic = []rollout.Route{{Kind: rollout.Istio, Name: "web"}}
	}
	if s.happens(30) {
		w.Before = s.waits(s.wait)
	}
	if s.happens(30) {
		w.After = s.waits(s.wait)
	}
	return w
}

func (s *story) waits(step func() rollout.Step) (steps []rollout.Step) {
	for range s.r.IntN(3) {
		steps = append(steps, step())
	}
	return steps
}

func (s *story) wait() rollout.Step {
	switch s.r.IntN(8) {
	case 0:
		return rollout.Step{Webhook: &rollout.Webhook{Name: "hook", Retries: s.r.IntN(4), NoCallback: s.happens(30)}}
	case 1:
		most := 10.0
		return rollout.Step{Analysis: &rollout.Analysis{Queries: []rollout.Query{{Name: "errors", Upper: &most}}, Runs: 1 + s.r.IntN(4), Interval: s.between(10*time.Second, 5*time.Minute),
			Abort: s.happens(30), ManualBack: s.happens(20), ManualForward: s.happens(20), ReportOnly: s.r.IntN(3) * s.r.IntN(2)}}
	}
	if s.happens(50) {
		return rollout.Step{Pause: s.between(10*time.Second, 40*time.Minute)}
	}
	a := &rollout.Approval{Count: 1 + s.r.IntN(2), NotSelf: s.happens(30)}
	if s.happens(30) {
		a.Expires = s.between(10*time.Minute, 2*time.Hour)
	}
	if s.happens(30) {
		a.Roles = []string{"sre"}
	}
	return rollout.Step{Approval: a}
}

// comparison is an analysis that measures a baseline beside the canary.
func (s *story) comparison() rollout.Step {
	most := 10.0
	return rollout.Step{Analysis: &rollout.Analysis{Queries: []rollout.Query{{Name: "errors", Upper: &most}}, Runs: 5, Interval: s.between(10*time.Second, time.Minute),
		Sliding: true, Baseline: true, ManualBack: s.happens(20)}}
}

// runsAlready puts a Deployment object with its pods into a cluster, made by somebody else: of the first version, or of none of the manifests'.
func (s *story) runsAlready(a *app, p *place) {
	c, space, hash := s.cloud.Cluster(p.account), namespace(a, p), "theirs"
	if s.happens(50) {
		hash = "h1"
	}
	count := int32(1 + s.r.IntN(5))
	deployment := c.Put(key("apps", "Deployment", space, "web"), func(o *cloud.Object) { o.From = hash })
	c.Put(key("apps", "ReplicaSet", space, "web-theirs"), func(o *cloud.Object) {
		o.Workload, o.Hash, o.Replicas, o.Ready, o.Proved = "web", "theirs", count, count, count
	})
	if s.happens(50) { // its own rollout is half done
		deployment.Health, deployment.Message = rollout.Progressing, "Updated: 1/3"
		s.After(s.between(time.Minute, 10*time.Minute), func() { deployment.Health, deployment.Message = rollout.Healthy, "" })
	}
}

// plot lets commits, people and accidents come at odd times.
func (s *story) plot() {
	for _, a := range s.applications {
		s.After(s.between(0, time.Minute), func() { s.commit(a) })
		for range s.r.IntN(5) {
			s.After(s.between(0, s.lasts), func() { s.commit(a) })
		}
		if s.happens(30) {
			s.After(s.between(s.lasts/2, s.lasts), func() { s.back(a) })
		}
		if s.happens(15) {
			s.After(s.between(s.lasts/4, s.lasts), func() { s.emergency(a) })
		}
		if s.happens(15) {
			s.After(s.between(s.lasts/2, s.lasts), func() { s.takeAway(a) })
		}
		if s.happens(25) {
			s.After(s.between(0, s.lasts), func() { s.cancel(a) })
		}
	}
	for range s.r.IntN(3) {
		s.After(s.between(0, s.lasts), s.hold)
	}
	if s.happens(40) {
		for range 1 + s.r.IntN(2) {
			s.After(s.between(0, s.lasts), s.absence)
		}
	}
	if s.happens(50) {
		for range 1 + s.r.IntN(3) {
			s.After(s.between(0, s.lasts), s.crash)
		}
	}
	s.After(s.between(time.Minute, 10*time.Minute), s.people)
	s.onSaved = append(s.onSaved, func(t rollout.Target) { // somebody is quick now and then
		if t.State == rollout.AwaitingApproval && s.happens(50) {
			s.After(time.Duration(s.r.IntN(10))*10*time.Millisecond, func() { s.answer(t, t.Waits[0]) })
		}
	})
}

// commit changes some targets of an application, or brings them back to what they were.
func (s *story) commit(a *app) {
	exclusive := []rollout.Exclusive{rollout.PerLane, rollout.PerLane, rollout.PerLane, rollout.SupersedeOthers, rollout.EnqueueOne, rollout.Batch, rollout.RejectOthers}[s.r.IntN(7)]
	start := s.start(a, rollout.Trigger{Kind: "push", By: s.author()})
	start.Exclusive = exclusive
	for _, p := range a.targets {
		if p.gone {
			continue
		}
		switch {
		case s.happens(60):
			p.version++
		case s.happens(20) && p.version > 1:
			p.version--
		}
		if s.happens(20) {
			p.way = s.way(p)
		}
		p.version = max(p.version, 1)
		start.Targets = append(start.Targets, s.wants(a, p))
	}
	s.begins(a, start)
}

// wants is what the file says of a target now, held against its lane as a plan does.
func (s *story) wants(a *app, p *place) rollout.StartTarget {
	v := s.version(a, p, p.version)
	promise, err := rollout.Promise(p.way, v.digest)
	s.must(err)
	t := rollout.StartTarget{Name: p.name, Account: p.account, Namespace: namespace(a, p), Way: p.way, Digest: promise, Manifests: v.digest}
	lanes, err := s.store.Lanes(context.Background(), "main", a.name)
	s.must(err)
	i := slices.IndexFunc(lanes, func(l rollout.LaneState) bool { return l.Target == p.name })
	t.Changed = i < 0 || lanes[i].Moves(t.Manifests, t.Digest)
	return t
}

func (s *story) start(a *app, trigger rollout.Trigger) rollout.Start {
	s.commits++
	return rollout.Start{ID: fmt.Sprint("d", s.commits), Tenant: "main", Application: a.name, At: s.Now(), Authors: []string{trigger.By}, Trigger: trigger,
		Origin: rollout.Origin{Source: "repo", Path: a.name + ".yaml", Commit: fmt.Sprint("c", s.commits)}}
}

// begins records a start with the manifests that it names.
func (s *story) begins(a *app, start rollout.Start) {
	sealed := map[string][]manifest.Object{}
	for _, t := range start.Targets {
		for _, p := range a.targets {
			for _, v := range p.versions {
				if v.digest == t.Manifests {
					sealed[v.digest] = v.sealed
				}
			}
		}
	}
	s.house.begin(start, sealed)
}

// back brings a target back to a version that was good before, past all steps.
func (s *story) back(a *app) {
	p := a.targets[s.r.IntN(len(a.targets))]
	w := s.judge.lanes["main/"+a.name+"/"+p.name]
	if w == nil || len(w.goods) < 2 || p.gone {
		return
	}
	good := w.goods[s.r.IntN(len(w.goods)-1)]
	start := s.start(a, rollout.Trigger{Kind: "rollback", By: s.author(), Reason: "worse"})
	start.Pin = true
	way := rollout.Way{Timeout: p.way.Timeout, Traffic: p.way.Traffic}
	if p.way.BlueGreen != nil {
		way.BlueGreen = &rollout.BlueGreen{Services: p.way.BlueGreen.Services}
	}
	start.Targets = []rollout.StartTarget{{Name: p.name, Account: p.account, Namespace: namespace(a, p), Way: way, Digest: good.Digest, Manifests: good.Manifests, Changed: true}}
	s.begins(a, start)
}

// emergency brings a new version about past what keeps it waiting.
func (s *story) emergency(a *app) {
	start := s.start(a, rollout.Trigger{Kind: "api", By: s.author(), Reason: "incident"})
	start.Pin = true
	start.Skip = []rollout.Skip{rollout.SkipApprovals, rollout.SkipPauses, rollout.SkipDependencies}[:1+s.r.IntN(3)]
	for _, p := range a.targets {
		if !p.gone && s.happens(60) {
			v := s.version(a, p, 50+s.r.IntN(3))
			promise, err := rollout.Promise(p.way, v.digest)
			s.must(err)
			start.Targets = append(start.Targets, rollout.StartTarget{Name: p.name, Account: p.account, Namespace: namespace(a, p), Way: p.way, Digest: promise, Manifests: v.digest, Changed: true})
		}
	}
	for i, t := range start.Targets { // what is left out counts as met
		start.Targets[i].DependsOn = slices.DeleteFunc(slices.Clone(t.DependsOn), func(name string) bool {
			return !slices.ContainsFunc(start.Targets, func(o rollout.StartTarget) bool { return o.Name == name })
		})
	}
	if len(start.Targets) > 0 {
		s.begins(a, start)
	}
}

// takeAway takes a target out of the file on which no other depends; what it has goes with it.
func (s *story) takeAway(a *app) {
	p := a.targets[len(a.targets)-1]
	lanes, err := s.store.Lanes(context.Background(), "main", a.name)
	s.must(err)
	i := slices.IndexFunc(lanes, func(l rollout.LaneState) bool { return l.Target == p.name })
	if p.gone || i < 0 {
		return
	}
	p.gone = true
	start := s.start(a, rollout.Trigger{Kind: "push", By: s.author()})
	start.Gone = []rollout.Gone{{Lane: lanes[i].ID, Prune: true}}
	for _, p := range a.targets {
		if !p.gone {
			start.Targets = append(start.Targets, s.wants(a, p))
		}
	}
	s.begins(a, start)
}

func (s *story) cancel(a *app) {
	for i := len(s.starts) - 1; i >= 0; i-- {
		if s.starts[i].Application == a.name {
			s.note("%s cancels %s", "ann", s.starts[i].ID)
			s.refusable(s.store.Cancel(context.Background(), "main", s.starts[i].ID, "ann", "not this one"))
			return
		}
	}
}

// hold halts something for a while.
func (s *story) hold() {
	h := store.Hold{Tenant: "main", Scope: store.ScopeAll, By: "ann", Reason: "incident"}
	switch s.r.IntN(3) {
	case 0:
		h.Scope, h.Name = store.ScopeApplication, s.applications[s.r.IntN(len(s.applications))].name
	case 1:
		h.Scope, h.Name = store.ScopeAccount, fmt.Sprint("cluster-", s.r.IntN(3))
	}
	if !s.refusable(s.store.Hold(context.Background(), h)) {
		return
	}
	s.note("%s are halted", h)
	s.holds = append(s.holds, held{h, s.Now()})
	s.After(s.between(time.Minute, 2*time.Hour), func() { s.unhold(h) })
}

func (s *story) unhold(h store.Hold) {
	i := slices.IndexFunc(s.holds, func(o held) bool { return o.Scope == h.Scope && o.Name == h.Name })
	if i < 0 {
		return
	}
	s.holds = slices.Delete(s.holds, i, i+1)
	s.disturbed()
	s.note("%s go on", h)
	s.refusable(s.store.Unhold(context.Background(), h))
}

// absence takes a cluster away, for a minute or for hours.
func (s *story) absence() {
	c := s.cloud.Cluster(fmt.Sprint("cluster-", s.r.IntN(3)))
	c.Leave()
	s.note("%s is away", c.Name)
	s.After(s.between(10*time.Second, 90*time.Minute), func() {
		s.note("%s is back", c.Name)
		s.disturbed()
		if c.Return() {
			s.refusable(s.store.WakeAccount(context.Background(), "main", c.Name))
		}
	})
}

// crash kills a process; another one starts a while later.
func (s *story) crash() {
	if len(s.processes) == 0 {
		return
	}
	s.note("a process dies")
	s.kill(s.processes[s.r.IntN(len(s.processes))])
	s.After(s.between(time.Second, 5*time.Minute), func() {
		s.note("a process starts")
		s.disturbed()
		s.live()
	})
}

// everybody may speak; the first of them start deployments. What never became good stays the change of whoever made it, so that in time all of those may have
// a part in what two others have to approve.
var everybody = []string{"ann", "bob", "cleo", "dan", "eve", "fay"}

const authors = 4

func (s *story) person() string { return everybody[s.r.IntN(len(everybody))] }
func (s *story) author() string { return everybody[s.r.IntN(authors)] }

// people look at what waits for them, and say something or nothing. Once it is calm they say all that is asked.
func (s *story) people() {
	for _, name := range s.laneNames() {
		t := s.judge.lanes[name].target
		if t.State.Final() {
			continue
		}
		for _, w := range t.Waits {
			s.answer(t, w)
		}
	}
	s.After(s.between(time.Minute, 20*time.Minute), s.people)
}

func (s *story) answer(t rollout.Target, w rollout.Wait) {
	var verb rollout.Verb
	switch {
	case w.Kind == rollout.WaitApproval && (s.calm || s.happens(40)):
		verb = rollout.Approve
	case s.calm:
		return
	case w.Kind == rollout.WaitApproval && s.happens(15), w.Kind == rollout.WaitPause && s.happens(5):
		verb = rollout.Reject
	case (w.Kind == rollout.WaitApproval || w.Kind == rollout.WaitPause) && s.happens(10):
		verb = rollout.Pass
	case (w.Kind == rollout.WaitWebhook || w.Kind == rollout.WaitAnalysis) && s.happens(4):
		verb = []rollout.Verb{rollout.Pass, rollout.Reject}[s.r.IntN(2)]
	case w.Kind == rollout.WaitRetry && s.happens(20):
		verb = rollout.Retry
	default:
		return
	}
	by := s.person()
	said := rollout.Saying{Tenant: "main", Deployment: t.Deployment, Target: t.Name, Gate: w.Gate, Verb: verb, By: by, Roles: []string{"sre"}, Reason: "a story"}
	if s.happens(20) {
		said.Roles = nil
	}
	err := s.store.Say(context.Background(), said)
	if err == nil {
		s.note("%s says %s to %s of %s", by, verb, w.Gate, t.Name)
		lane, err := s.store.Lane(context.Background(), t.Lane)
		s.must(err)
		if lane.Current != nil && lane.Current.Deployment == t.Deployment {
			s.words[t.Deployment] = lane.Words
		}
	}
	s.refusable(err)
}

// becalm ends all that is bad: clusters are back, nothing is halted, a process lives, requests arrive.
func (s *story) becalm() {
	s.note("calm")
	s.calm, s.stalls, s.outside.bad = true, 0, 0
	s.cloud.Faults = cloud.Faults{Lossy: s.cloud.Faults.Lossy}
	for _, h := range slices.Clone(s.holds) {
		s.unhold(h.Hold)
	}
}
