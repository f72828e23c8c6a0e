package rollout

import (
	"cmp"
	"slices"
	"strings"

	"towpath/deployment"
)

// WayOf is what a file says of how a target moves. notSelf holds where a step does not say whether people may approve their own change.
func WayOf(file *deployment.File, target deployment.Target, notSelf bool) Way {
	asked := asking{file, notSelf}
	w := Way{Timeout: file.Config.Timeout, KeepDeployment: file.Config.KeepDeploymentObject, Unreachable: Unreachable(target.Unreachable), Heal: target.Heal,
		Before: asked.steps(target.BeforeDeployment), After: asked.steps(target.AfterDeployment)}
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
			Redirect: asked.steps(strategy.BlueGreen.RedirectTrafficAfter), ShutDown: asked.steps(strategy.BlueGreen.ShutDownOldVersionAfter)}
	default:
		w.Canary, w.Workloads = asked.steps(strategy.Canary), strategy.Workloads
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

// asking makes steps of those of a file.
type asking struct {
	file    *deployment.File
	notSelf bool
}

func (a asking) steps(all []deployment.Step) []Step {
	var out []Step
	for _, s := range all {
		switch {
		case s.SetWeight != nil:
			weight := s.SetWeight.Weight
			out = append(out, Step{Weight: &weight})
		case s.Pause != nil && s.Pause.UntilApproved:
			out = append(out, Step{Approval: a.approval(*s.Pause)})
		case s.Pause != nil:
			out = append(out, Step{Pause: s.Pause.Duration})
		case s.RunWebhook != nil:
			out = append(out, Step{Webhook: a.webhook(*s.RunWebhook)})
		case s.Analysis != nil:
			out = append(out, Step{Analysis: a.analysis(*s.Analysis)})
		case s.ExposeServices != nil:
			out = append(out, Step{Expose: &Expose{Services: s.ExposeServices.Services, TTL: s.ExposeServices.TTL}})
		}
	}
	return out
}

func (a asking) approval(p deployment.Pause) *Approval {
	approval := Approval{Roles: p.RequiresRoles, Count: max(p.Approvals, 1), Expires: p.ApprovalExpiration, NotSelf: a.notSelf}
	if p.AllowSelfApproval != nil {
		approval.NotSelf = !*p.AllowSelfApproval
	}
	return &approval
}

func (a asking) webhook(run deployment.RunWebhook) *Webhook {
	w := Webhook{Name: run.Name, Context: a.context(run.Context)}
	if said := a.file.Webhook(run.Name); said != nil {
		w.Sum, w.Retries, w.NoCallback = said.Sum(), said.RetryCount, said.DisableCallback
	}
	return &w
}

func (a asking) analysis(step deployment.AnalysisStep) *Analysis {
	analysis := Analysis{Interval: step.Interval, Runs: max(step.Runs, 1), Sliding: strings.EqualFold(step.Lookback, "sliding") || step.Baseline, Abort: step.AbortOnFailedJudgment,
		ManualBack: step.ManualRollBack, ManualForward: step.ManualRollForward, Context: a.context(step.Context),
		Baseline: step.Baseline, ReportOnly: step.ReportOnly}
	for _, name := range step.Queries {
		said := a.file.Query(name)
		if said == nil {
			continue // the file is refused for that
		}
		analysis.Queries = append(analysis.Queries, Query{Name: said.Name, Template: said.Template, Lower: said.LowerLimit, Upper: said.UpperLimit, NoDataPasses: said.NoDataPasses,
			Provider: cmp.Or(said.MetricProvider, step.MetricProvider, a.file.Analysis.DefaultMetricProvider)})
	}
	return &analysis
}

// context of a step: over that of the file, and below what overrides both.
func (a asking) context(of map[string]string) map[string]string {
	all := deployment.Contexts(a.file.Context, of, a.file.ContextOverrides)
	if len(all) == 0 {
		return nil
	}
	return all
}
