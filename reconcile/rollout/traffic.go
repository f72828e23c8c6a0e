package rollout

import (
	"fmt"
	"slices"

	"towpath/manifest"
)

// Route is how a router divides the traffic of one workload between two of its revisions. A file names its objects; what it leaves out, and all from
// Namespace on, is found before anything is touched.
type Route struct {
	Kind        RouteKind         `json:"kind"`
	Name        string            `json:"name"`                  // of the TrafficSplit, VirtualService or HTTPRoute
	Rule        string            `json:"rule,omitempty"`        // istio: the VirtualService's route; "": the only one, which has no name
	Service     string            `json:"service,omitempty"`     // that clients call
	Canary      string            `json:"canary,omitempty"`      // the new revision's Service; istio: its subset
	Destination string            `json:"destination,omitempty"` // istio: the DestinationRule
	Subset      string            `json:"subset,omitempty"`      // istio: that traffic goes to when it is not divided
	Headers     []Header          `json:"headers,omitempty"`     // gateway: requests with all of these go to the new revision
	Compares    bool              `json:"compares,omitempty"`    // a step compares the new revision with a baseline
	Namespace   string            `json:"namespace,omitempty"`
	Selector    map[string]string `json:"selector,omitempty"` // of Service
	Stable      Side              `json:"stable,omitzero"`    // that carried the workload; zero: nothing did
	New         Side              `json:"new,omitzero"`
	Baseline    Side              `json:"baseline,omitzero"` // that New is compared with; zero: with nothing
	Sound       bool              `json:"sound,omitempty"`   // Stable could serve when this rollout began
}

// RouteKind names a kind of router.
type RouteKind string

// Kinds of router.
const (
	SMI     RouteKind = "smi"     // a TrafficSplit between two Services
	Istio   RouteKind = "istio"   // a VirtualService's route between two subsets of a DestinationRule
	Gateway RouteKind = "gateway" // an HTTPRoute between two Services
)

// Keys is the objects that dividing traffic writes, as far as they are known: the router's own first.
func (r Route) Keys() []manifest.Key {
	service := func(name string) manifest.Key {
		return manifest.Key{Kind: "Service", Namespace: r.Namespace, Name: name}
	}
	router := manifest.Key{Group: "gateway.networking.k8s.io", Kind: "HTTPRoute", Namespace: r.Namespace, Name: r.Name}
	switch r.Kind {
	case Istio:
		const group = "networking.istio.io"
		return []manifest.Key{{Group: group, Kind: "VirtualService", Namespace: r.Namespace, Name: r.Name}, {Group: group, Kind: "DestinationRule", Namespace: r.Namespace, Name: r.Destination}}
	case SMI:
		router.Group, router.Kind = "split.smi-spec.io", "TrafficSplit"
	}
	keys := []manifest.Key{router, service(r.Service), service(r.Canary)}
	if r.Compares && r.Service != "" {
		keys = append(keys, service(r.BaselineName()))
	}
	return keys
}

// BaselineName is that of the Service, or of the subset, by which a baseline is reached.
func (r Route) BaselineName() string {
	if r.Kind == Istio {
		return r.Subset + "-baseline"
	}
	return r.Service + "-baseline"
}

// Header is a header of requests, and the value that it has exactly.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Side is one of the revisions between which traffic is divided.
type Side struct {
	ReplicaSet manifest.Key `json:"replicaSet"`
	Hash       string       `json:"hash"`
	Unmarked   bool         `json:"unmarked,omitempty"` // its pods have Kubernetes' own label with the hash, and not ours
}

// Division is how a route shall divide traffic.
type Division struct {
	Route
	Stage  Stage `json:"stage"`
	Weight int   `json:"weight"` // share of the new revision, 0–100
	// Compared: Baseline has as large a share, at Stable's cost.
	Compared bool `json:"compared,omitempty"`
}

// Stage is how far the traffic of a route is taken apart.
type Stage string

// Stages in the order of a good rollout, which ends as it began.
const (
	Whole   Stage = "whole"   // as if nobody had divided it; what was made for that goes
	Held    Stage = "held"    // all of it goes to Stable, whatever else has pods
	Divided Stage = "divided" // New has Weight of it
	Opened  Stage = "opened"  // the same, and what Stable was reached by leads to New as well
)

// RoutesOf is the routes of a way that are to be found: in the target's namespace, else in that of its workloads.
func RoutesOf(w Way, namespace string, set Set) []Route {
	if len(set.Revisions) == 0 {
		return nil
	}
	routes := slices.Clone(w.Traffic)
	for i := range routes {
		routes[i].Namespace, routes[i].Compares = service("", namespace, set).Namespace, w.Compares()
	}
	return routes
}

// Divides says why routes that were found cannot divide the traffic of a set's workloads; "" when they can.
func Divides(set Set, found []Route) string {
	for _, r := range found {
		if set.selected(r.Selector) == nil {
			return fmt.Sprintf("%s %s/%s sends traffic to Service %s, which selects no pods of the manifests, or those of several workloads: its selector is %s",
				r.Kind, r.Namespace, r.Name, r.Service, labels(r.Selector))
		}
	}
	return ""
}

// route finds between which revisions each route divides traffic. It returns why it cannot be.
func (d *decision) route() string {
	t := &d.Target
	t.Routes, t.Divided, t.Compared = nil, nil, false
	if why := Divides(d.f.New, d.f.Look.Routes); why != "" {
		return why
	}
	for _, r := range d.f.Look.Routes {
		revision := d.f.New.selected(r.Selector)
		r.New = d.side(revision.ReplicaSet, revision.Hash)
		for _, f := range t.Former {
			if f.Stable && f.Workload == revision.Workload.Name && f.Key.Namespace == revision.Workload.Namespace {
				r.Stable = d.side(f.Key, f.Hash)
				r.Sound = f.Ready > 0 && 2*f.Ready >= f.Count && !d.f.Base.has(revision.ReplicaSet)
			}
		}
		for _, f := range t.Former {
			if f.isBaseline() && f.BaselineOf == r.Stable.ReplicaSet {
				r.Baseline = Side{ReplicaSet: f.Key, Hash: f.Hash}
			}
		}
		t.Routes = append(t.Routes, r)
	}
	return ""
}

func (d *decision) side(set manifest.Key, hash string) Side {
	unmarked := slices.ContainsFunc(d.f.Look.Revisions, func(l Live) bool { return l.Key == set && !l.Marked })
	return Side{set, hash, unmarked}
}

// routed reports whether the traffic of a revision is divided by a route, so that it has all its pods whatever its share.
func (t Target) routed(set manifest.Key) bool {
	return slices.ContainsFunc(t.Routes, func(r Route) bool {
		return r.Stable.Hash != "" && (r.Stable.ReplicaSet == set || r.New.ReplicaSet == set)
	})
}

// divisions is what the routes of the target shall be in a stage. Where nothing could serve but the new revision it gets all once it can.
func (d *decision) divisions(stage Stage) (all []Division) {
	t := &d.Target
	for _, r := range t.Routes {
		division := Division{Route: r, Stage: stage, Weight: t.Weight, Compared: stage == Divided && r.Sound && r.Baseline.Hash != "" && d.beside()}
		switch {
		case stage == Whole:
			division.Weight = 0
		case r.Stable.Hash == "":
			continue
		case stage == Held:
			division.Weight = 0
		case !r.Sound:
			division.Weight = 100
		}
		all = append(all, division)
	}
	return all
}

// kept is the divisions that keep traffic with what runs. Where that cannot serve, traffic is left as it was found.
func (d *decision) kept() []Division {
	return slices.DeleteFunc(d.divisions(Held), func(v Division) bool { return !v.Sound })
}

// present is how routes that come with the manifests are while these are applied.
func (d *decision) present() []Division {
	t := &d.Target
	if t.Divided == nil {
		return d.kept()
	}
	present := d.divisions(Divided)
	for i, p := range present {
		if p.Sound {
			present[i].Weight, present[i].Compared = *t.Divided, t.Compared && p.Baseline.Hash != ""
		}
	}
	return present
}

// undivided reports whether routes divide traffic otherwise than by the present weight.
func (d *decision) undivided() bool {
	t := &d.Target
	return len(d.divisions(Divided)) > 0 && (t.Divided == nil || *t.Divided != t.Weight || t.Compared != d.beside())
}

// proving is the new revisions whose traffic is about to change, at the pods that they have: what was proved before a long wait proves nothing.
func (d *decision) proving() (all []Replicas) {
	if !d.undivided() {
		return nil
	}
	for _, asked := range d.Target.Asked {
		if d.Target.routed(asked.Key) {
			all = append(all, asked)
		}
	}
	for _, f := range d.Target.Former {
		if f.isBaseline() && d.beside() && d.Target.routed(f.BaselineOf) {
			all = append(all, Replicas{f.Key, f.Asked})
		}
	}
	return all
}

// hold makes sure, before there is any pod of the new revisions, that all traffic stays where it is.
func (d *decision) hold() {
	switch {
	case d.Target.Intent == nil:
		d.applies()
	case d.done():
		d.enter(Holding, Running) // a person may have halted it meanwhile
	}
}

// steer carries out the division that weigh intended.
func (d *decision) steer() {
	t := &d.Target
	if d.done() {
		weight := t.Weight
		t.Divided, t.Compared = &weight, d.beside()
		d.say("target.weight", fmt.Sprintf("%s: %d %% of the traffic goes to #%d", t.Name, weight, t.Number), "")
		t.Open = nil
		d.enter(Settling, Running)
	}
}

// open lets what the former revisions were reached by lead to the new ones as well, before the former lose their pods.
func (d *decision) open() {
	if opened := d.divisions(Opened); d.Target.Intent == nil && len(opened) > 0 {
		d.intend(Opening, Action{Kind: Shift, Divide: opened})
		return
	}
	if d.Target.Intent == nil || d.done() {
		d.enter(Retiring, Running)
	}
}

// drained goes on once the former revisions are gone: their routes become what they were.
func (d *decision) drained() {
	if whole, aims := d.divisions(Whole), d.aims(); len(whole)+len(aims) > 0 {
		d.intend(Joining, Action{Kind: Shift, Divide: whole, Aim: aims})
		return
	}
	d.enter(Pruning, Running)
}

// join carries out what drained, vacated or dissolve intended.
func (d *decision) join() {
	t := &d.Target
	if !d.done() {
		return
	}
	t.Routes, t.Divided, t.Compared = nil, nil, false
	switch {
	case t.Phase == Joining && t.Fails:
		d.enter(Restoring, Running)
	case t.Phase == Joining:
		d.enter(Pruning, Running)
	case t.Fails:
		d.end(Failed, t.Why)
	case t.Yields:
		d.end(Cancelled, t.Why)
	default:
		d.withdrew()
	}
}

// dissolve makes routes what they were although nothing is proved of the pods that traffic is left to: the deployment for which it gives way may be what
// mends them, and begins where there is nothing left of this one.
func (d *decision) dissolve(why string) {
	t := &d.Target
	t.Why, t.Yields = why, true
	d.intend(Rejoining, Action{Kind: Shift, Divide: d.loosened(), Aim: d.aims()})
}

// loosened is all routes as they were, whoever they lead to then.
func (d *decision) loosened() []Division {
	whole := d.divisions(Whole)
	for i := range whole {
		whole[i].New = Side{}
	}
	return whole
}

// vacated goes on, on the way back, once the failed revisions have no pods left.
func (d *decision) vacated() {
	whole := d.divisions(Whole)
	for i, r := range d.Target.Routes {
		if r.Stable.Hash != "" {
			whole[i].New = r.Stable // it is what traffic is left to
		}
	}
	d.intend(Rejoining, Action{Kind: Shift, Divide: whole, Aim: d.aims()})
}
