package rollout

import (
	"slices"

	"towpath/deployment"
)

// WayOf is what a file says of how a target moves. notSelf holds where a step does not say whether people may approve their own change.
func WayOf(file *deployment.File, target deployment.Target, notSelf bool) Way {
	w := Way{Timeout: file.Config.Timeout, KeepDeployment: file.Config.KeepDeploymentObject, Unreachable: Unreachable(target.Unreachable), Heal: target.Heal,
		Before: steps(target.BeforeDeployment, notSelf), After: steps(target.AfterDeployment, notSelf)}
	for _, name := range target.DependsOn {
		if len(file.TargetFilters) == 0 || slices.Contains(file.TargetFilters, name) { // what is filtered out counts as met
			w.DependsOn = append(w.DependsOn, name)
		}
	}
	strategy := file.Strategy(target.Strategy)
	switch {
	case strategy == nil:
	case strategy.BlueGreen != nil:
		w.BlueGreen = &BlueGreen{Services: servicePairs(file, target.Name, *strategy.BlueGreen),
			Redirect: steps(strategy.BlueGreen.RedirectTrafficAfter, notSelf), ShutDown: steps(strategy.BlueGreen.ShutDownOldVersionAfter, notSelf)}
	default:
		w.Canary = steps(strategy.Canary, notSelf)
		w.Traffic = routes(file, target.Name)
	}
	return w
}

// routes is what divides the traffic of a target. Entries of different kinds add up; of two entries of one kind the later counts.
func routes(file *deployment.File, target string) []Route {
	var smi, istio, gateway []Route
	for _, t := range file.TrafficManagement {
		if len(t.Targets) > 0 && !slices.Contains(t.Targets, target) {
			continue
		}
		if len(t.SMI) > 0 {
			smi = nil
		}
		for _, s := range t.SMI {
			smi = append(smi, Route{Kind: SMI, Name: s.TrafficSplit, Service: s.RootService, Canary: s.CanaryService})
		}
		if len(t.Istio) > 0 {
			istio = nil
		}
		for _, i := range t.Istio {
			istio = append(istio, Route{Kind: Istio, Name: i.VirtualService, Rule: i.HTTPRoute, Destination: i.DestinationRule, Subset: i.ActiveSubset, Canary: i.CanarySubset})
		}
		if len(t.Gateway) > 0 {
			gateway = nil
		}
		for _, g := range t.Gateway {
			route := Route{Kind: Gateway, Name: g.HTTPRoute, Service: g.ActiveService, Canary: g.CanaryService}
			for _, h := range g.MatchHeaders {
				route.Headers = append(route.Headers, Header{h.Key, h.Value})
			}
			gateway = append(gateway, route)
		}
	}
	return slices.Concat(smi, istio, gateway)
}

// servicePairs is the Services that a blue/green strategy turns: those of trafficManagement, which is the newer place, else its own.
func servicePairs(file *deployment.File, target string, b deployment.BlueGreen) []ServicePair {
	var pairs []ServicePair
	for _, traffic := range file.TrafficManagement {
		if len(traffic.Targets) > 0 && !slices.Contains(traffic.Targets, target) || len(traffic.Kubernetes) == 0 {
			continue
		}
		pairs = nil // of two entries for one target the later counts
		for _, k := range traffic.Kubernetes {
			pairs = append(pairs, ServicePair{Active: k.ActiveService, Preview: k.PreviewService})
		}
	}
	if len(pairs) == 0 && b.ActiveService != "" {
		pairs = []ServicePair{{Active: b.ActiveService, Preview: b.PreviewService}}
	}
	return pairs
}

func steps(all []deployment.Step, notSelf bool) []Step {
	var out []Step
	for _, s := range all {
		switch {
		case s.SetWeight != nil:
			weight := s.SetWeight.Weight
			out = append(out, Step{Weight: &weight})
		case s.Pause != nil && s.Pause.UntilApproved:
			a := Approval{Roles: s.Pause.RequiresRoles, Count: max(s.Pause.Approvals, 1), Expires: s.Pause.ApprovalExpiration, NotSelf: notSelf}
			if s.Pause.AllowSelfApproval != nil {
				a.NotSelf = !*s.Pause.AllowSelfApproval
			}
			out = append(out, Step{Approval: &a})
		case s.Pause != nil:
			out = append(out, Step{Pause: s.Pause.Duration})
		}
	}
	return out
}
