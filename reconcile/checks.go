package reconcile

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"towpath/deployment"
	"towpath/manifest"
	"towpath/policies"
	"towpath/reconcile/rollout"
)

// unknownRoles refuses approvals that nobody could ever give: of a role that nobody holds.
func (p *Planner) unknownRoles(ctx context.Context, file *deployment.File, tenant string) ([]deployment.Problem, error) {
	var problems []deployment.Problem
	var held []string
	var failed error
	check := func(field string, steps []deployment.Step) {
		for i, step := range steps {
			if step.Pause == nil || len(step.Pause.RequiresRoles) == 0 || failed != nil {
				continue
			}
			if held == nil {
				held, failed = p.Roles(ctx, tenant)
			}
			for _, role := range step.Pause.RequiresRoles {
				if !slices.ContainsFunc(held, func(h string) bool { return strings.EqualFold(h, role) }) {
					problems = append(problems, deployment.Problem{File: file.Path, Field: fmt.Sprintf("%s[%d].pause.requiresRoles", field, i), Line: step.Position.Line,
						Column: step.Position.Column, Severity: deployment.Error, Text: fmt.Sprintf("nobody holds the role %q, so nobody could approve; roles of the controller's configuration say who holds which", role)})
				}
			}
		}
	}
	for _, t := range file.Chosen() {
		check("targets."+t.Name+".constraints.beforeDeployment", t.BeforeDeployment)
		check("targets."+t.Name+".constraints.afterDeployment", t.AfterDeployment)
	}
	strategies(file, check)
	return problems, failed
}

// outside lists the steps that ask somebody who, by what the configuration says, cannot be asked: in the middle of a rollout that would be too late to say.
func (p *Planner) outside(file *deployment.File, ask Ask) []deployment.Problem {
	var problems []deployment.Problem
	check := func(field string, steps []deployment.Step) {
		for i, step := range steps {
			refuse := func(err error) {
				if err != nil {
					problems = append(problems, deployment.Problem{File: file.Path, Field: fmt.Sprintf("%s[%d]", field, i), Line: step.Position.Line, Column: step.Position.Column,
						Severity: deployment.Error, Text: err.Error()})
				}
			}
			switch {
			case step.RunWebhook != nil && p.Webhook != nil:
				if hook := file.Webhook(step.RunWebhook.Name); hook != nil {
					refuse(p.Webhook(ask.Tenant, ask.Origin.Source, file.Application, *hook))
				}
			case step.Analysis != nil && p.Provider != nil:
				for _, name := range step.Analysis.Queries {
					if query := file.Query(name); query != nil {
						refuse(p.Provider(ask.Tenant, cmp.Or(query.MetricProvider, step.Analysis.MetricProvider, file.Analysis.DefaultMetricProvider)))
					}
				}
			}
		}
	}
	for _, t := range file.Chosen() {
		check("targets."+t.Name+".constraints.beforeDeployment", t.BeforeDeployment)
		check("targets."+t.Name+".constraints.afterDeployment", t.AfterDeployment)
	}
	strategies(file, check)
	return problems
}

// strategies goes through the steps of each strategy that a target takes.
func strategies(file *deployment.File, check func(field string, steps []deployment.Step)) {
	for _, s := range file.Strategies {
		if !slices.ContainsFunc(file.Chosen(), func(t deployment.Target) bool { return t.Strategy == s.Name }) {
			continue
		}
		check("strategies."+s.Name+".canary.steps", s.Canary)
		if s.BlueGreen != nil {
			check("strategies."+s.Name+".blueGreen.redirectTrafficAfter", s.BlueGreen.RedirectTrafficAfter)
			check("strategies."+s.Name+".blueGreen.shutDownOldVersionAfter", s.BlueGreen.ShutDownOldVersionAfter)
		}
	}
}

// unserved refuses steps that make links where no links are served.
func (p *Planner) unserved(file *deployment.File) (problems []deployment.Problem) {
	if p.Previews {
		return nil
	}
	strategies(file, func(field string, steps []deployment.Step) {
		for i, step := range steps {
			if step.ExposeServices != nil {
				problems = append(problems, deployment.Problem{File: file.Path, Field: fmt.Sprintf("%s[%d].exposeServices", field, i), Line: step.Position.Line,
					Column: step.Position.Column, Severity: deployment.Error, Text: "this controller serves no preview links; previews.listen and previews.domain of its configuration say where it does"})
			}
		}
	})
	return problems
}

// services refuses a blue/green target whose Services cannot turn: they come with the manifests or are in the cluster, and select the pods of one workload.
func (p *Planner) services(ctx context.Context, plan *Plan, tenant string, target deployment.Target, planned PlannedTarget) error {
	if planned.BlueGreen == nil {
		return nil
	}
	set, err := p.Names(planned.Objects)
	if err != nil || len(set.Revisions) == 0 {
		return err
	}
	strategy := plan.File.Strategy(target.Strategy)
	refuse := func(text string) {
		plan.Problems = append(plan.Problems, deployment.Problem{File: plan.File.Path, Field: "strategies." + strategy.Name + ".blueGreen", Line: strategy.Position.Line,
			Column: strategy.Position.Column, Severity: deployment.Error, Text: fmt.Sprintf("target %s: %s", target.Name, text)})
	}
	if len(planned.BlueGreen.Services) == 0 {
		refuse("no Service turns; write blueGreen.activeService, or trafficManagement with kubernetes.activeService")
		return nil
	}
	var live []manifest.Key
	for _, key := range rollout.ServicesOf(planned.Way, planned.Namespace, set) {
		if !slices.ContainsFunc(set.Services, func(s rollout.Service) bool { return s.Key == key }) {
			live = append(live, key)
		}
	}
	var found []rollout.Live
	if len(live) > 0 {
		if found = p.Live(ctx, tenant, target.Account, live); found == nil {
			return nil // its agent is away: it is looked at before the target starts
		}
	}
	if why := rollout.Turns(planned.Way, planned.Namespace, set, found); why != "" {
		refuse(why)
	}
	return nil
}

// routes refuses a target whose traffic cannot be divided as the file says: by routes that come with the manifests or are in the cluster, and that the
// source may touch.
func (p *Planner) routes(ctx context.Context, plan *Plan, ask Ask, target deployment.Target, planned PlannedTarget) error {
	if len(planned.Traffic) == 0 {
		return nil
	}
	set, err := p.Names(planned.Objects)
	if err != nil {
		return err
	}
	id := rollout.Identity{Tenant: ask.Tenant, Application: plan.File.Application, Target: target.Name, Account: target.Account, Namespace: target.Namespace}
	wanted := rollout.RoutesOf(planned.Way, planned.Namespace, set)
	found, failure := p.Routes(ctx, id, planned.Objects, wanted)
	if failure != nil {
		found = wanted
	}
	var writes []manifest.Object
	for _, r := range found {
		for _, key := range r.Keys() {
			if key.Name != "" && !slices.ContainsFunc(writes, func(o manifest.Object) bool { return o.Key == key }) {
				writes = append(writes, manifest.Object{Key: key})
			}
		}
	}
	plan.refuse(target, policies.Objects(ask.Reach, ask.Origin.Source, target.Account, writes))
	switch {
	case failure != nil && failure.Class == rollout.Refused:
		plan.refuse(target, []string{failure.Error()})
	case failure != nil: // it is looked for before the target starts
	default:
		if why := rollout.Divides(set, found); why != "" {
			plan.refuse(target, []string{why})
		}
	}
	return nil
}

// fleets refuses StatefulSets and DaemonSets that cannot take the steps which the strategy gives them.
func (p *Planner) fleets(plan *Plan, target deployment.Target, planned PlannedTarget) error {
	if len(planned.Workloads) == 0 && !planned.Compares() {
		return nil
	}
	set, err := p.Names(planned.Objects)
	if err != nil {
		return err
	}
	if why := rollout.Balks(planned.Way, set); why != "" {
		plan.refuse(target, []string{why})
	}
	return nil
}
