package traffic

import (
	"errors"
	"fmt"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// pair is two Services between which a route divides traffic: that which clients call leads to the former revision alone, the other to the new one.
func pair(d rollout.Division, route Part) []Part {
	active, canary := serviceKey(d.Namespace, d.Service), serviceKey(d.Namespace, d.Canary)
	pinned := Part{Key: active, Shape: func(is, _ Object) (Object, error) { return pin(is, d.Stable.Hash) }}
	opened := Part{Key: active, Shape: func(is, _ Object) (Object, error) { return unpin(is), nil }}
	aside := Part{Key: canary, From: active, Shape: func(is, from Object) (Object, error) { return beside(is, from, canary, d.New.Hash) }}
	baseline := serviceKey(d.Namespace, d.BaselineName())
	measure := Part{Key: baseline, From: active, Shape: func(is, from Object) (Object, error) {
		if is != nil && !made(is) {
			return nil, errors.New("it is there already, " + needed)
		}
		return beside(is, from, baseline, d.Baseline.Hash)
	}}
	switch d.Stage {
	case rollout.Held:
		return []Part{pinned, route}
	case rollout.Divided:
		if d.Weight > 0 {
			route.Leads = []Lead{{canary, d.New}}
		}
		if d.Compared {
			route.Leads = append(route.Leads, Lead{baseline, d.Baseline})
			return []Part{pinned, aside, measure, route}
		}
		return []Part{pinned, aside, route}
	case rollout.Opened:
		return []Part{opened, {Key: active, Leads: []Lead{{active, d.New}}}}
	}
	route.Leads = lead(active, d.New)
	whole := []Part{opened, route, {Key: canary, Shape: func(is, _ Object) (Object, error) { return unmade(unpin(is)), nil }}}
	if d.Baseline.Hash != "" {
		whole = append(whole, Part{Key: baseline, Shape: func(is, _ Object) (Object, error) { return unmade(is), nil }})
	}
	return whole
}

// needed is why something else may not have the name of what leads to a baseline.
const needed = "and one of this name is needed for the baseline that a canary is compared with; give it another name, or leave out the baseline of the analysis"

// mostService is how many letters the name of a Service may have.
const mostService = 63

// besides holds that the Services that a route needs beside its own can be made.
func besides(r rollout.Route, in Objects) error {
	active := serviceKey(r.Namespace, r.Service)
	if len(r.Canary) > mostService {
		return fmt.Errorf("%s has so long a name that the Service %s, which leads to the new version, cannot be made (at most %d letters): name one, or give it a shorter name",
			active, r.Canary, mostService)
	}
	if !r.Compares {
		return nil
	}
	baseline := serviceKey(r.Namespace, r.BaselineName())
	if len(baseline.Name) > mostService {
		return fmt.Errorf("%s has so long a name that the Service %s, which leads to the baseline of an analysis, cannot be made (at most %d letters): give it a shorter name, or leave out the baseline",
			active, baseline.Name, mostService)
	}
	is, err := in.Get(baseline)
	if err == nil && is != nil && !made(is) {
		err = fmt.Errorf("%s is there already, %s", baseline, needed)
	}
	return err
}

// unmade is an object as it shall be after a rollout: nothing of what was made for it.
func unmade(o Object) Object {
	if o != nil && made(o) {
		return nil
	}
	return o
}

// pin makes a Service lead to one revision only. One that is not there comes with the manifests.
func pin(service Object, hash string) (Object, error) {
	if service == nil {
		return nil, nil
	}
	selector := manifest.Child(service, "spec", "selector")
	if len(selector) == 0 {
		return nil, errors.New("it has no selector, so no traffic can be divided by it")
	}
	selector[LabelHash] = hash
	return service, nil
}

func unpin(service Object) Object {
	delete(manifest.Child(service, "spec", "selector"), LabelHash)
	return service
}

// beside is the Service of the new revision: as it is, else made like the active one for clients inside the cluster.
func beside(is, active Object, key manifest.Key, hash string) (Object, error) {
	if is != nil || active == nil {
		return pin(is, hash)
	}
	spec := Object{"selector": clone(manifest.Child(active, "spec", "selector"))}
	var ports []Object
	for _, port := range manifest.Items(manifest.Child(active, "spec")["ports"]) {
		port = clone(port)
		delete(port, "nodePort")
		ports = append(ports, port)
	}
	spec["ports"] = list(ports)
	return pin(Object{"apiVersion": "v1", "kind": "Service", "spec": spec, "metadata": Object{"name": key.Name, "namespace": key.Namespace,
		"annotations": Object{AnnotationMade: "for a rollout"}}}, hash)
}
