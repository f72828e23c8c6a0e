package reconcile

import (
	"context"
	"fmt"
	"slices"

	"towpath/deployment"
	"towpath/manifest"
	"towpath/policies/rules"
	"towpath/reconcile/rollout"
)

// judged is where objects go that are held to rules.
type judged struct{ application, target, account, namespace string }

// judge holds what is to be deployed on a target, and what would be removed, to the rules of a tenant. Nil before: nothing was deployed there.
func (p *Planner) judge(ctx context.Context, tenant string, where judged, before, after []manifest.Object) ([]rules.Finding, error) {
	if p.Rules == nil {
		return nil, nil
	}
	set, err := p.Rules(ctx, tenant)
	if err != nil || set.Len() == 0 {
		return nil, err
	}
	c := rules.Case{Application: where.application, Target: rules.Target{Name: where.target, Account: where.account, Namespace: where.namespace}}
	old := make(map[manifest.Key]*manifest.Object, len(before))
	for i := range before {
		old[before[i].Key] = &before[i]
	}
	var findings []rules.Finding
	for i := range after {
		if ctx.Err() != nil { // one object takes a bounded time, many may take long
			return nil, ctx.Err()
		}
		c.Operation, c.Object, c.Old = rules.Apply, &after[i], old[after[i].Key]
		findings = append(findings, set.Judge(c)...)
		delete(old, after[i].Key)
	}
	for i := range before {
		if old[before[i].Key] != nil && ctx.Err() == nil {
			c.Operation, c.Object, c.Old = rules.Remove, nil, &before[i]
			findings = append(findings, set.Judge(c)...)
		}
	}
	return findings, ctx.Err()
}

// removal judges that everything on a lane goes.
func (p *Planner) removal(ctx context.Context, tenant, application string, lane rollout.LaneState) ([]rules.Finding, error) {
	if p.Rules == nil || lane.Wanted == "" {
		return nil, nil
	}
	before, err := p.Store.Manifests(ctx, lane.Wanted)
	if err != nil {
		return nil, err
	}
	return p.judge(ctx, tenant, judged{application: application, target: lane.Target, account: lane.Account}, before, nil)
}

// allowed refuses to deploy again what rules forbid by now. To go back to what was good is not held to them: it is how an outage ends.
func (p *Planner) allowed(ctx context.Context, start rollout.Start) error {
	lanes, err := p.Store.Lanes(ctx, start.Tenant, start.Application)
	if err != nil {
		return err
	}
	for _, t := range start.Targets {
		after, err := p.Store.Manifests(ctx, t.Manifests)
		if err != nil {
			return err
		}
		var before []manifest.Object
		if i := slices.IndexFunc(lanes, func(l rollout.LaneState) bool { return l.Target == t.Name && l.Account == t.Account }); i >= 0 && lanes[i].Wanted != "" {
			if before, err = p.Store.Manifests(ctx, lanes[i].Wanted); err != nil {
				return err
			}
		}
		findings, err := p.judge(ctx, start.Tenant, judged{start.Application, t.Name, t.Account, t.Namespace}, before, after)
		if err != nil {
			return err
		}
		if d := denied(findings); d != nil {
			return rollout.Refuse(rollout.Conflicts, "it was deployed before there was such a rule: %s", d.Sentence())
		}
	}
	return nil
}

// find makes problems of findings, at the target: the first ones of it, and a count of the others.
func (p *Plan) find(target deployment.Target, findings []rules.Finding) {
	p.Findings = append(p.Findings, findings...)
	const most = 10
	for _, severity := range []deployment.Severity{deployment.Error, deployment.Warning} {
		var sentences []string
		count := 0
		for _, f := range findings {
			if f.Severity != severity {
				continue
			}
			if count++; count <= most {
				sentences = append(sentences, f.Sentence())
			}
		}
		if count > most {
			sentences = append(sentences, fmt.Sprintf("and %d more findings of rules on target %s", count-most, target.Name))
		}
		p.say(target, severity, sentences)
	}
}

// denied is the first finding that forbids what it is about; nil: none does.
func denied(findings []rules.Finding) *rules.Finding {
	for i := range findings {
		if findings[i].Severity == deployment.Error {
			return &findings[i]
		}
	}
	return nil
}
