package traffic

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// gateway divides traffic by HTTPRoutes of the Kubernetes Gateway API.
type gateway struct{}

func (gateway) find(r rollout.Route, in Objects) (rollout.Route, error) {
	key := r.Keys()[0]
	route, err := in.Get(key)
	if err != nil {
		return r, err
	}
	if route == nil {
		return r, absent(key, "trafficManagement.gateway.httpRoute")
	}
	var services []string
	for _, rule := range manifest.Items(manifest.Child(route, "spec")["rules"]) {
		for _, ref := range manifest.Items(rule["backendRefs"]) {
			if name, _ := ref["name"].(string); isService(ref, r.Namespace) && !slices.Contains(services, name) {
				services = append(services, name)
			}
		}
	}
	if r.Service == "" {
		candidates := slices.DeleteFunc(slices.Clone(services), func(name string) bool {
			of, made := strings.CutSuffix(name, "-canary")
			if !made {
				of, made = strings.CutSuffix(name, "-baseline")
			}
			return name == r.Canary || made && slices.Contains(services, of)
		})
		if len(candidates) != 1 {
			return r, fmt.Errorf("%s sends traffic to %d Services (%s); name the one whose traffic is to be divided: trafficManagement.gateway.activeService", key, len(candidates), strings.Join(candidates, ", "))
		}
		r.Service = candidates[0]
	}
	if !slices.Contains(services, r.Service) {
		return r, fmt.Errorf("%s sends no traffic to Service %s, which trafficManagement.gateway.activeService names; it does to: %s", key, r.Service, cmp.Or(strings.Join(services, ", "), "none"))
	}
	r.Canary = cmp.Or(r.Canary, r.Service+"-canary")
	if err := besides(r, in); err != nil {
		return r, err
	}
	return found(r, "trafficManagement.gateway.activeService", in)
}

func isService(ref Object, namespace string) bool {
	kind, group, in := ref["kind"], ref["group"], ref["namespace"]
	return (kind == nil || kind == "Service") && (group == nil || group == "") && (in == nil || in == namespace)
}

func (g gateway) parts(d rollout.Division) []Part {
	return pair(d, Part{Key: d.Keys()[0], Shape: func(is, _ Object) (Object, error) { return g.divide(is, d), nil }})
}

// divide is the HTTPRoute of a division: each rule that sends traffic to the active Service shares it with the other one. Requests with the headers of the
// division meet a rule of their own, before the rule that they would meet otherwise.
func (g gateway) divide(is Object, d rollout.Division) Object {
	if is == nil {
		return nil
	}
	name := "rules to " + d.Service
	was, kept := before(is)[name]
	saved, _ := was.([]any)
	var rules []Object
	var noted []any
	for _, rule := range manifest.Items(manifest.Child(is, "spec")["rules"]) {
		if kept && g.byHeader(rule, d) {
			continue
		}
		if g.at(manifest.Items(rule["backendRefs"]), d, d.Service) < 0 {
			rules = append(rules, rule)
			continue
		}
		if n := len(noted); n < len(saved) {
			rule["backendRefs"] = saved[n]
		}
		noted = append(noted, copied(rule["backendRefs"]))
		if d.Stage == rollout.Divided && len(d.Headers) > 0 {
			rules = append(rules, g.forHeaders(rule, d))
		}
		g.share(rule, d)
		rules = append(rules, rule)
	}
	note(is, d.Stage, name, noted)
	manifest.Ensure(is, "spec")["rules"] = list(rules)
	return is
}

// share gives the other Service its weight in a rule that is as it was before.
func (g gateway) share(rule Object, d rollout.Division) {
	refs := manifest.Items(rule["backendRefs"])
	active, canary := g.at(refs, d, d.Service), g.at(refs, d, d.Canary)
	if d.Stage == rollout.Whole || d.Stage == rollout.Held && canary < 0 {
		return
	}
	if canary < 0 {
		canary = len(refs)
		refs = append(refs, clone(refs[active]))
		refs[canary]["name"], refs[canary]["weight"] = d.Canary, int64(0)
	}
	var baseline Object
	if d.Compared {
		baseline = clone(refs[active])
		baseline["name"] = d.BaselineName()
	}
	rule["backendRefs"] = list(share(refs, active, canary, baseline, d.Weight, 100))
}

// forHeaders is a rule like another, for requests that have the headers besides.
func (g gateway) forHeaders(rule Object, d rollout.Division) Object {
	rule = clone(rule)
	delete(rule, "name") // two rules cannot have the same
	refs := manifest.Items(rule["backendRefs"])
	ref := refs[g.at(refs, d, d.Service)]
	ref["name"] = d.Canary
	delete(ref, "weight")
	rule["backendRefs"] = []any{ref}
	matches := manifest.Items(rule["matches"])
	if len(matches) == 0 {
		matches = []Object{{}}
	}
	for _, match := range matches {
		headers := manifest.Items(match["headers"])
		for _, h := range d.Headers {
			headers = append(headers, Object{"name": h.Name, "type": "Exact", "value": h.Value})
		}
		match["headers"] = list(headers)
	}
	rule["matches"] = list(matches)
	return rule
}

// byHeader reports whether a rule is one that forHeaders made.
func (g gateway) byHeader(rule Object, d rollout.Division) bool {
	refs, matches := manifest.Items(rule["backendRefs"]), manifest.Items(rule["matches"])
	if len(d.Headers) == 0 || len(refs) != 1 || g.at(refs, d, d.Canary) != 0 || len(matches) == 0 {
		return false
	}
	for _, match := range matches {
		headers := manifest.Items(match["headers"])
		for _, h := range d.Headers {
			if !slices.ContainsFunc(headers, func(o Object) bool { return o["name"] == h.Name && o["value"] == h.Value }) {
				return false
			}
		}
	}
	return true
}

func (g gateway) at(refs []Object, d rollout.Division, service string) int {
	return slices.IndexFunc(refs, func(ref Object) bool { return ref["name"] == service && isService(ref, d.Namespace) })
}
