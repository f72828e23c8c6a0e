package traffic

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// istio divides traffic by a route of a VirtualService, between two subsets of a DestinationRule.
type istio struct{}

func (istio) service(r rollout.Route) manifest.Key { return r.Keys()[0] }
func (istio) rule(r rollout.Route) manifest.Key    { return r.Keys()[1] }

// find follows the VirtualService to the one route, from its destination's host to the one DestinationRule, and to the Service of that host.
func (i istio) find(r rollout.Route, in Objects) (rollout.Route, error) {
	key := i.service(r)
	virtual, err := in.Get(key)
	if err != nil {
		return r, err
	}
	if virtual == nil {
		return r, absent(key, "trafficManagement.istio.virtualService.name")
	}
	http := manifest.Items(manifest.Child(virtual, "spec")["http"])
	at, err := i.routeAt(key, http, r.Rule)
	if err != nil {
		return r, err
	}
	if r.Rule == "" {
		r.Rule, _ = http[at]["name"].(string)
	}
	route := http[at]["route"]
	if was, kept := before(virtual)["route "+r.Rule]; kept {
		route = was
	}
	host, subset, err := i.destination(key, r, manifest.Items(route))
	if err != nil {
		return r, err
	}
	rule, err := i.findRule(&r, host, in)
	if err != nil {
		return r, err
	}
	subsets := slices.DeleteFunc(manifest.Items(manifest.Child(rule, "spec")["subsets"]), func(s Object) bool {
		was, kept := before(rule)[fmt.Sprint("subset ", s["name"])]
		return kept && was == nil // it was made for a rollout
	})
	if r.Subset, err = i.findSubset(r, subset, subsets); err != nil {
		return r, err
	}
	if r.Compares && named(subsets, r.BaselineName()) >= 0 {
		return r, fmt.Errorf("%s has a subset %q already, %s", i.rule(r), r.BaselineName(), needed)
	}
	r.Canary = cmp.Or(r.Canary, r.Subset+"-canary")
	service, namespace, inside := serviceOf(host, r.Namespace)
	if !inside || namespace != r.Namespace {
		return r, fmt.Errorf("%s sends traffic to the host %s, which is no Service of namespace %s; only traffic to a Service beside the workload can be divided", key, host, r.Namespace)
	}
	r.Service = service
	return found(r, "the host of "+key.String(), in)
}

// routeAt is where the VirtualService has the route of that name; without a name it has only one.
func (istio) routeAt(key manifest.Key, http []Object, name string) (int, error) {
	var names []string
	for _, route := range http {
		n, _ := route["name"].(string)
		names = append(names, cmp.Or(n, "one without a name"))
	}
	switch at := named(http, name); {
	case name == "" && len(http) == 1:
		return 0, nil
	case name == "" && len(http) == 0:
		return 0, fmt.Errorf("%s has no HTTP route; give it one below spec.http", key)
	case name == "":
		return 0, fmt.Errorf("%s has %d HTTP routes (%s); name one: trafficManagement.istio.virtualService.httpRouteName", key, len(http), strings.Join(names, ", "))
	case at < 0:
		return 0, fmt.Errorf("%s has no HTTP route %q, which trafficManagement.istio.virtualService.httpRouteName names; it has: %s", key, name, strings.Join(names, ", "))
	default:
		return at, nil
	}
}

// destination is the host and the subset to which a route sends what is divided.
func (istio) destination(key manifest.Key, r rollout.Route, route []Object) (host, subset string, err error) {
	var fit []Object
	for _, to := range route {
		destination := manifest.Child(to, "destination")
		subset, _ := destination["subset"].(string)
		if (r.Canary == "" || subset != r.Canary) && (r.Subset == "" || subset == "" || subset == r.Subset) {
			fit = append(fit, destination)
		}
	}
	if len(fit) != 1 {
		return "", "", fmt.Errorf("%d destinations of the route %q of %s could be the one whose traffic is to be divided; name its subset: "+
			"trafficManagement.istio.destinationRule.activeSubsetName", len(fit), r.Rule, key)
	}
	host, _ = fit[0]["host"].(string)
	subset, _ = fit[0]["subset"].(string)
	return host, subset, nil
}

// findRule is the DestinationRule of a host: the one that is named, else the only one.
func (i istio) findRule(r *rollout.Route, host string, in Objects) (Object, error) {
	const field = "trafficManagement.istio.destinationRule.name"
	if r.Destination != "" {
		rule, err := in.Get(i.rule(*r))
		switch {
		case err != nil:
			return nil, err
		case rule == nil:
			return nil, absent(i.rule(*r), field)
		case !sameHost(manifest.Child(rule, "spec")["host"], host, r.Namespace):
			return nil, fmt.Errorf("%s is for the host %v, and the traffic of %s goes to %s; name the DestinationRule of that host: %s", i.rule(*r), manifest.Child(rule, "spec")["host"], i.service(*r), host, field)
		}
		return rule, nil
	}
	kind := i.rule(*r)
	rules, err := in.List(kind)
	if err != nil {
		return nil, err
	}
	rules = slices.DeleteFunc(rules, func(o Object) bool { return !sameHost(manifest.Child(o, "spec")["host"], host, r.Namespace) })
	if len(rules) != 1 {
		return nil, fmt.Errorf("%d DestinationRules in namespace %s are for the host %s, to which %s sends traffic; there must be one, or name it: %s", len(rules), r.Namespace, host, i.service(*r), field)
	}
	r.Destination = nameOf(rules[0])
	return rules[0], nil
}

// findSubset is the subset that traffic goes to when it is not divided.
func (i istio) findSubset(r rollout.Route, destination string, subsets []Object) (string, error) {
	const field = "trafficManagement.istio.destinationRule.activeSubsetName"
	name := cmp.Or(r.Subset, destination)
	if name == "" {
		others := slices.DeleteFunc(slices.Clone(subsets), func(s Object) bool { return r.Canary != "" && s["name"] == r.Canary })
		if len(others) != 1 {
			return "", fmt.Errorf("%s has %d subsets that traffic could go to; name one: %s", i.rule(r), len(others), field)
		}
		name, _ = others[0]["name"].(string)
	}
	if named(subsets, name) < 0 {
		return "", fmt.Errorf("%s has no subset %q; add it, or name another: %s", i.rule(r), name, field)
	}
	return name, nil
}

// serviceOf is the Service that a host names, short or in full; false when it lies outside the cluster.
func serviceOf(host, namespace string) (name, in string, inside bool) {
	parts := strings.SplitN(host, ".", 3)
	switch {
	case len(parts) == 1:
		return host, namespace, true
	case len(parts) == 2, parts[2] == "svc", parts[2] == "svc.cluster.local":
		return parts[0], parts[1], true
	}
	return "", "", false
}

func sameHost(is any, host, namespace string) bool {
	text, _ := is.(string)
	name, in, inside := serviceOf(text, namespace)
	other, otherIn, otherInside := serviceOf(host, namespace)
	return inside && otherInside && name == other && in == otherIn
}

func (i istio) parts(d rollout.Division) []Part {
	route := Part{Key: i.service(d.Route), Shape: func(is, _ Object) (Object, error) { return i.divide(is, d) }}
	rule := Part{Key: i.rule(d.Route), Shape: func(is, _ Object) (Object, error) { return i.subsets(is, d) }}
	host := serviceKey(d.Namespace, d.Service)
	switch d.Stage {
	case rollout.Held: // the former revision's subset first, what led to another revision after no traffic goes there
		return []Part{rule, route}
	case rollout.Divided:
		if d.Weight > 0 {
			route.Leads = []Lead{{host, d.New}}
		}
		if d.Compared {
			route.Leads = append(route.Leads, Lead{host, d.Baseline})
		}
		return []Part{rule, route}
	case rollout.Opened:
		return []Part{rule}
	}
	route.Leads = lead(host, d.New)
	opened := d
	opened.Stage = rollout.Opened
	return []Part{{Key: rule.Key, Shape: func(is, _ Object) (Object, error) { return i.subsets(is, opened) }}, route, rule}
}

// subsets is the DestinationRule of a division.
func (istio) subsets(is Object, d rollout.Division) (Object, error) {
	if is == nil {
		return nil, nil
	}
	spec := manifest.Ensure(is, "spec")
	subsets := manifest.Items(spec["subsets"])
	active, canary := named(subsets, d.Subset), named(subsets, d.Canary)
	name := "subset " + d.Canary
	was, kept := before(is)[name]
	switch {
	case !kept && (d.Stage == rollout.Opened || d.Stage == rollout.Whole), active < 0 && d.Stage == rollout.Whole:
		return is, nil // nobody divided it, or somebody took apart what was
	case active < 0:
		return nil, fmt.Errorf("it has no subset %q any more; add it again", d.Subset)
	}
	if !kept && canary >= 0 {
		was = copied(subsets[canary])
	}
	note(is, d.Stage, name, was)
	switch d.Stage {
	case rollout.Held:
		mark(subsets[active], &d.Stable)
	case rollout.Divided:
		mark(subsets[active], &d.Stable)
		subsets = aside(subsets, active, d.Canary, d.New)
		if d.Compared {
			baseline := d.BaselineName()
			if _, kept := before(is)["subset "+baseline]; !kept && named(subsets, baseline) >= 0 {
				return nil, fmt.Errorf("it has a subset %q already, %s", baseline, needed)
			}
			note(is, d.Stage, "subset "+baseline, nil)
			subsets = aside(subsets, active, baseline, d.Baseline)
		}
	case rollout.Opened:
		mark(subsets[active], nil)
	case rollout.Whole:
		mark(subsets[active], nil)
		switch old, there := was.(map[string]any); {
		case canary < 0:
		case there:
			subsets[canary] = old
		default:
			subsets = slices.Delete(subsets, canary, canary+1)
		}
		baseline := d.BaselineName()
		if _, made := before(is)["subset "+baseline]; made {
			note(is, d.Stage, "subset "+baseline, nil)
			subsets = slices.DeleteFunc(subsets, func(s Object) bool { return s["name"] == baseline })
		}
	}
	spec["subsets"] = list(subsets)
	return is, nil
}

// aside makes a subset, like the active one where it is not there, that of a side.
func aside(subsets []Object, active int, name string, side rollout.Side) []Object {
	at := named(subsets, name)
	if at < 0 {
		at = len(subsets)
		subsets = append(subsets, clone(subsets[active]))
		subsets[at]["name"] = name
	}
	mark(subsets[at], &side)
	return subsets
}

// mark makes a subset that of one side only; nil: of both.
func mark(subset Object, side *rollout.Side) {
	labels := manifest.Ensure(subset, "labels")
	delete(labels, LabelHash)
	delete(labels, LabelSubset)
	switch {
	case side == nil && len(labels) == 0:
		delete(subset, "labels")
	case side == nil:
	case side.Unmarked:
		labels[LabelHash] = side.Hash
	default:
		labels[LabelSubset] = side.Hash
	}
}

// divide is the VirtualService of a division.
func (i istio) divide(is Object, d rollout.Division) (Object, error) {
	if is == nil {
		return nil, nil
	}
	http := manifest.Items(manifest.Child(is, "spec")["http"])
	at := named(http, d.Rule)
	if d.Rule == "" && len(http) == 1 {
		at = 0
	}
	if at < 0 {
		if d.Stage == rollout.Whole {
			return is, nil
		}
		return nil, fmt.Errorf("it has no HTTP route %q any more; add it again", d.Rule)
	}
	was, kept := before(is)["route "+d.Rule]
	if !kept {
		was = http[at]["route"]
	}
	note(is, d.Stage, "route "+d.Rule, was)
	route := manifest.Items(copied(was))
	canary := i.to(route, d, d.Canary)
	if d.Stage == rollout.Whole || d.Stage == rollout.Held && canary < 0 {
		http[at]["route"] = was
		return is, nil
	}
	active := i.to(route, d, d.Subset)
	if active < 0 {
		active = i.to(route, d, "")
	}
	if active < 0 {
		return nil, fmt.Errorf("the route %q sends nothing to the subset %q any more; add it again", d.Rule, d.Subset)
	}
	manifest.Child(route[active], "destination")["subset"] = d.Subset
	if canary < 0 {
		canary = len(route)
		route = append(route, clone(route[active]))
		manifest.Child(route[canary], "destination")["subset"], route[canary]["weight"] = d.Canary, int64(0)
	}
	var baseline Object
	if d.Compared {
		baseline = clone(route[active])
		manifest.Child(baseline, "destination")["subset"] = d.BaselineName()
	}
	http[at]["route"] = list(share(route, active, canary, baseline, d.Weight, 1))
	return is, nil
}

// to is where a route sends traffic to a subset of the divided host; -1: nowhere.
func (istio) to(route []Object, d rollout.Division, subset string) int {
	return slices.IndexFunc(route, func(o Object) bool {
		destination := manifest.Child(o, "destination")
		s, _ := destination["subset"].(string)
		return s == subset && sameHost(destination["host"], d.Service, d.Namespace)
	})
}
