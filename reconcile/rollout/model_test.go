package rollout_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// model is a lane and its cluster, small enough to be cut after any action: what a save keeps is in lane, what the cluster keeps is in objects.
type model struct {
	now       time.Time
	target    rollout.Target
	good      *rollout.Release
	inventory []manifest.Key
	facts     rollout.Facts
	events    []rollout.Event
	sets      map[string]rollout.Set

	connected bool
	objects   map[manifest.Key]*object
	uids      int
	standsFor string                                       // what the ReplicaSet of an adopted Deployment object is
	refuse    map[manifest.Key]string                      // what the API server answers to a write of it
	sick      map[manifest.Key]string                      // what keeps a revision from becoming ready
	trouble   func(action rollout.Action) *rollout.Failure // what happens on the way, before anything is done

	decisions int
	acts      []rollout.Action
	survey    rollout.Look // what a survey finds

	broken     map[manifest.Key]string // hooks that fail, and how
	unfinished map[manifest.Key]bool   // hooks that are never done

	lost map[manifest.Key]*rollout.Failure // what becomes of each read of an object

	outside func(rollout.Call) *rollout.Answer // what becomes of a call; nil, or an answer of nil: it is not answered
	tries   []string                           // calls as they were made: "web hook:1"

	unread []rollout.Failure // what becomes of reads of others' objects, one after the other
}

type object struct {
	live    rollout.Live
	from    string           // the manifests that it has the content of
	selects string           // of a Service: the hash that traffic goes to
	divided rollout.Division // of a router
	aimed   manifest.Key     // of an autoscaler: what it scales
	pods    []string         // of a fleet: the manifests that each is of
	share   rollout.Share    // of a fleet: as it was applied last; Weight 100: as its manifest has it
}

var (
	webDeployment = manifest.Key{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: "web"}
	webService    = manifest.Key{Kind: "Service", Namespace: "shop", Name: "web"}
	webSettings   = manifest.Key{Kind: "ConfigMap", Namespace: "shop", Name: "web"}
	webClaim      = manifest.Key{Kind: "PersistentVolumeClaim", Namespace: "shop", Name: "web"}
)

func revision(hash string) manifest.Key {
	return manifest.Key{Group: "apps", Kind: "ReplicaSet", Namespace: "shop", Name: "web-" + hash}
}

func set(hash string, replicas int32, others ...manifest.Key) rollout.Set {
	s := rollout.Set{Objects: append([]manifest.Key{webDeployment}, others...),
		Revisions: []rollout.Revision{{Workload: webDeployment, ReplicaSet: revision(hash), Hash: hash, Labels: map[string]string{"app": "web"}, Replicas: &replicas}}}
	for _, key := range others {
		switch key.Kind {
		case "Service":
			s.Services = append(s.Services, rollout.Service{Key: key, Selector: map[string]string{"app": "web"}})
		case "ConfigMap":
			s.Configuration = append(s.Configuration, key)
		}
	}
	return s
}

func newModel() *model {
	return &model{now: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC), connected: true, objects: map[manifest.Key]*object{},
		sets: map[string]rollout.Set{}, refuse: map[manifest.Key]string{}, sick: map[manifest.Key]string{},
		facts: rollout.Facts{Limits: rollout.Limits{Removals: 10, Shrink: 0.3, Keep: 3, Away: time.Minute, Yield: time.Minute}}}
}

func weight(w int) rollout.Step { return rollout.Step{Weight: &w} }

func pause(d time.Duration) rollout.Step { return rollout.Step{Pause: d} }

func approval(roles ...string) rollout.Step {
	return rollout.Step{Approval: &rollout.Approval{Roles: roles, Count: 1}}
}

// deploy puts a new target on the lane.
func (m *model) deploy(number int, manifests string, set rollout.Set) *model {
	m.sets[manifests] = set
	m.target = rollout.Target{ID: int64(number), Deployment: fmt.Sprintf("d%d", number), Number: number, Tenant: "main", Application: "shop", Name: "prod",
		Account: "prod", Way: rollout.Way{Timeout: 10 * time.Minute, Canary: []rollout.Step{weight(100)}}, Digest: "promise-" + manifests, Manifests: manifests, State: rollout.Queued, Phase: rollout.Waiting}
	m.facts.ReplacedBy, m.facts.Cancel, m.facts.Words, m.facts.Calls, m.facts.Links = 0, nil, nil, nil, nil
	return m
}

// step decides once and does what was decided; false: there is nothing to do until a fact changes or due.
func (m *model) step() (more bool, due time.Time) {
	f := m.read()
	for {
		f.Now, f.Connected = m.now, m.connected
		d := rollout.Decide(m.target, f)
		m.decisions++
		if d.Changed {
			m.save(d)
		}
		acted := f.Outcome != nil
		f.Look, f.Outcome = nil, nil
		switch {
		case d.Read != nil && !acted:
			look := m.look(*d.Read)
			f.Look = &look
		case d.Act != nil:
			outcome := m.act(*d.Act)
			f.Outcome = &outcome
		default:
			return d.Changed, d.Due
		}
	}
}

func (m *model) read() rollout.Facts {
	f := m.facts
	f.Good, f.Inventory, f.New = m.good, slices.Clone(m.inventory), m.sets[m.target.Manifests]
	if base := m.target.GoesBackTo(m.good); base != nil {
		f.Base = m.sets[base.Manifests]
	}
	return f
}

func (m *model) save(d rollout.Decision) {
	m.target = d.Target
	m.called(d.Calls)
	for _, sum := range d.Judges {
		if m.facts.Judged == nil {
			m.facts.Judged = map[string]int{}
		}
		m.facts.Judged[sum]++
	}
	m.facts.Links = append(slices.Clip(m.facts.Links), d.Exposes...)
	m.events = append(m.events, d.Events...)
	for _, key := range d.Claim {
		if !slices.Contains(m.inventory, key) {
			m.inventory = append(m.inventory, key)
		}
	}
	m.inventory = slices.DeleteFunc(m.inventory, func(key manifest.Key) bool { return slices.Contains(d.Drop, key) })
	if d.Good != nil {
		m.good = d.Good
	}
	if d.Emptied {
		m.good = nil
	}
}

// run steps until there is nothing to do, passing time up to each due time, at most until the end of the model's patience.
func (m *model) run(t testing.TB) *model {
	t.Helper()
	for range 10_000 {
		more, due := m.step()
		switch {
		case more:
		case due.After(m.now):
			m.now = due
		default:
			return m
		}
	}
	t.Fatalf("no end after 10,000 steps; last: %+v", m.target)
	return m
}

func (m *model) act(a rollout.Action) rollout.Outcome {
	if m.trouble != nil {
		if failure := m.trouble(a); failure != nil {
			return rollout.Outcome{Failure: failure}
		}
	}
	m.acts = append(m.acts, a)
	switch a.Kind {
	case rollout.Apply:
		return m.apply(m.sets[a.Manifests], a)
	case rollout.Shift:
		m.turn(a.Select)
		m.divide(a.Divide)
		for _, b := range a.Baselines {
			o, of := m.put(b.Key), m.objects[b.Of].live
			o.live.Workload, o.live.Hash, o.live.Baseline = of.Workload, b.Hash, true
		}
		var out rollout.Outcome
		for _, r := range a.Replicas {
			if o := m.objects[r.Key]; o != nil {
				m.scale(o, r.Count)
				out.Live = append(out.Live, o.live)
			} else if r.Count > 0 {
				out.Failure = &rollout.Failure{Class: rollout.Refused, Object: r.Key, Text: "it is not there"}
			}
		}
		m.aim(a.Aim)
		return out
	case rollout.Adopt:
		for _, key := range a.Workloads {
			delete(m.objects, key)
			if len(m.pods()) > 0 {
				continue // it was put back around revisions of ours
			}
			adopted := m.put(revision("theirs"))
			adopted.live.Workload, adopted.live.Hash, adopted.live.StandsFor = key.Name, "theirs", m.standsFor
			m.scale(adopted, 3)
		}
	case rollout.PutBack:
		for _, key := range a.Workloads {
			m.put(key)
		}
		m.aim(a.Aim)
	case rollout.Free:
		for _, key := range a.Workloads {
			m.free(m.objects[key])
		}
	case rollout.RunHook:
		o := m.put(a.Only[0])
		if why, breaks := m.broken[a.Only[0]]; breaks {
			o.live.Health, o.live.Message = rollout.Broken, why
		}
		if m.unfinished[a.Only[0]] {
			o.live.Health, o.live.Message = rollout.Progressing, "0 of 1 completions"
		}
		return rollout.Outcome{Live: []rollout.Live{o.live}}
	case rollout.Remove:
		for _, key := range a.Remove {
			delete(m.objects, key)
			for other, o := range m.objects {
				if key.Kind == "Deployment" && o.live.Workload == key.Name {
					delete(m.objects, other)
				}
			}
		}
	}
	return rollout.Outcome{}
}

func (m *model) apply(set rollout.Set, a rollout.Action) rollout.Outcome {
	var out rollout.Outcome
	for _, key := range set.Objects {
		if slices.Contains(a.Leave, key) || len(a.Only) > 0 && !slices.Contains(a.Only, key) {
			continue
		}
		if text, refused := m.refuse[key]; refused {
			out.Failure = &rollout.Failure{Class: rollout.Refused, Object: key, Text: text}
			return out
		}
		if key.Kind != "Deployment" {
			o := m.put(key)
			if isFleet(key) {
				out.Live = append(out.Live, m.applyFleet(o, a))
				continue
			}
			if o.from = a.Manifests; key.Kind == "HorizontalPodAutoscaler" {
				o.aimed = set.Scalers[0].Workload
			}
			out.Live = append(out.Live, o.live)
		}
	}
	m.turn(a.Select)
	m.divide(a.Divide)
	m.aim(a.Aim)
	if len(a.Only) > 0 {
		return out
	}
	for _, r := range set.Revisions {
		for _, s := range a.StandIns {
			if s.For == r.ReplicaSet {
				r.ReplicaSet, r.Hash = s.Is, s.Hash
			}
		}
		o := m.put(r.ReplicaSet)
		o.live.Workload, o.live.Hash = r.Workload.Name, r.Hash
		pods := int32(1) // as the cluster does where nothing is said
		for _, count := range a.Replicas {
			if count.Key == r.ReplicaSet {
				pods = count.Count
			}
		}
		m.scale(o, pods)
		fresh := o.live
		fresh.Health = rollout.Progressing
		out.Live = append(out.Live, fresh)
	}
	return out
}

// turn sends a Service's traffic to one revision, and holds that it has pods which are ready wherever traffic went before.
func (m *model) turn(all []rollout.Selection) {
	for _, s := range all {
		m.put(s.Service).selects = s.Hash
	}
}

// aim aims autoscalers that are there.
func (m *model) aim(all []rollout.Aim) {
	for _, a := range all {
		if o := m.objects[a.Scaler]; o != nil {
			o.aimed = a.At
		}
	}
}

// divide divides the traffic of routers.
func (m *model) divide(all []rollout.Division) {
	for _, d := range all {
		m.put(router(d.Name)).divided = d
	}
}

func router(name string) manifest.Key {
	return manifest.Key{Group: "routers.test", Kind: "Router", Namespace: "shop", Name: name}
}

func (m *model) put(key manifest.Key) *object {
	if m.objects[key] == nil {
		m.uids++
		m.objects[key] = &object{live: rollout.Live{Key: key, UID: fmt.Sprint("uid-", m.uids), Generation: 1, Health: rollout.Healthy, Owner: "ours"}}
		if key.Kind == "Service" {
			m.objects[key].live.Ports = []rollout.Port{{Protocol: "TCP", Number: 80}}
		}
	}
	return m.objects[key]
}

func (m *model) scale(o *object, count int32) {
	if o.live.Replicas != count {
		o.live.Replicas = count
		o.live.Generation++
	}
	o.live.Ready, o.live.Within, o.live.Health, o.live.Message = count, true, rollout.Healthy, ""
	if why, sick := m.sick[o.live.Key]; sick && count > 0 {
		o.live.Ready, o.live.Health, o.live.Message = 0, rollout.Progressing, why
	}
}

func (m *model) look(read rollout.Read) rollout.Look {
	if read.Survey {
		return m.survey
	}
	if len(read.Others) > 0 && len(m.unread) > 0 {
		failure := m.unread[0]
		m.unread = m.unread[1:]
		return rollout.Look{Failure: &failure}
	}
	for _, key := range read.Objects {
		if failure := m.lost[key]; failure != nil {
			return rollout.Look{Failure: failure}
		}
	}
	var look rollout.Look
	live := func(key manifest.Key) rollout.Live {
		if o := m.objects[key]; o != nil {
			return o.live
		}
		return rollout.Live{Key: key, Missing: true}
	}
	for _, key := range read.Objects {
		look.Objects = append(look.Objects, live(key))
	}
	for _, key := range read.Others {
		look.Others = append(look.Others, live(key))
	}
	for _, key := range read.Workloads {
		look.Workloads = append(look.Workloads, live(key))
	}
	for _, s := range read.Fleets {
		look.Fleets = append(look.Fleets, m.fleet(s))
	}
	for _, r := range read.Routes {
		r.Service, r.Selector = "web", map[string]string{"app": "web"}
		look.Routes = append(look.Routes, r)
	}
	if read.Revisions {
		for _, o := range m.objects {
			switch {
			case o.live.Workload == "":
			case o.live.Owner != "ours":
				look.Foreign = append(look.Foreign, o.live)
			default:
				look.Revisions = append(look.Revisions, o.live)
			}
		}
	}
	return look
}

// pods is how many pods each revision runs.
func (m *model) pods() map[string]int32 {
	pods := map[string]int32{}
	for key, o := range m.objects {
		if o.live.Workload != "" && o.live.Replicas > 0 {
			pods[key.Name] = o.live.Replicas
		}
	}
	return pods
}

// random makes what a seed says of sickness, refusals, trouble and people.
func (m *model) random(r *rand.Rand, hash string) {
	if r.IntN(4) == 0 {
		m.sick[revision(hash)] = "ErrImagePull"
	}
	if r.IntN(6) == 0 {
		m.refuse[webSettings] = "denied by admission"
	}
	m.trouble = func(rollout.Action) *rollout.Failure {
		switch r.IntN(5) {
		case 0:
			return &rollout.Failure{Class: rollout.Trouble, Text: "connection reset"}
		case 1:
			return &rollout.Failure{Class: rollout.Away, Text: "no agent"}
		}
		return nil
	}
}
