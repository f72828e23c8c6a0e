package traffic

import (
	"cmp"
	"slices"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// smi divides traffic by TrafficSplits of the Service Mesh Interface.
type smi struct{}

func (smi) find(r rollout.Route, in Objects) (rollout.Route, error) {
	r.Name, r.Canary = cmp.Or(r.Name, r.Service), cmp.Or(r.Canary, r.Service+"-canary")
	if _, err := in.Get(r.Keys()[0]); err != nil { // its kind is served
		return r, err
	}
	if err := besides(r, in); err != nil {
		return r, err
	}
	return found(r, "trafficManagement.smi.rootServiceName", in)
}

func (s smi) parts(d rollout.Division) []Part {
	return pair(d, Part{Key: d.Keys()[0], Shape: func(is, _ Object) (Object, error) { return s.split(is, d), nil }})
}

// split is the TrafficSplit of a division. One that is not there is made when traffic is divided; without one all of it goes to the Service by itself.
func (smi) split(is Object, d rollout.Division) Object {
	switch {
	case is == nil && d.Stage != rollout.Divided:
		return nil
	case is == nil:
		is = Object{"kind": "TrafficSplit", "spec": Object{"service": d.Service},
			"metadata": Object{"name": d.Name, "namespace": d.Namespace, "annotations": Object{AnnotationMade: "for a rollout"}}}
	case d.Stage == rollout.Whole && made(is):
		return nil
	}
	spec := manifest.Ensure(is, "spec")
	backends, kept := before(is)["backends"]
	if !kept {
		backends = spec["backends"]
	}
	if !made(is) {
		note(is, d.Stage, "backends", backends)
	}
	shared := slices.ContainsFunc(manifest.Items(backends), func(b Object) bool { return b["service"] == d.Canary })
	if d.Stage == rollout.Divided || d.Stage == rollout.Held && (shared || made(is)) {
		var baseline Object
		if d.Compared {
			baseline = Object{"service": d.BaselineName()}
		}
		backends = list(share([]Object{{"service": d.Service}, {"service": d.Canary}}, 0, 1, baseline, d.Weight, 1))
	}
	spec["backends"] = backends
	return is
}
