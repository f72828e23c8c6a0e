package reconcile

import (
	"context"
	"slices"
	"strings"

	"towpath/reconcile/rollout"
)

// Back is where a person wants an application to be brought back to.
type Back struct {
	Application string
	Targets     []string // nil: those of the deployment gone back to, or with All those that the newest deployment has done
	To          string   // id of a deployment; "": what was good before, target by target
	All         bool     // the newest deployment is stopped, and all that it has done is undone, in the reverse order of its graph
}

// RollBack brings targets of an application back. Steps of strategies and constraints are passed over: what is gone back to was proved before. Git, or the
// last push, goes on wanting what it wants: the next change of it lifts the rollback.
func (p *Pusher) RollBack(ctx context.Context, b Back, o Order) error {
	var start rollout.Start
	var err error
	switch {
	case b.All:
		start, err = p.undo(ctx, b, o)
	case b.To == "" && len(b.Targets) != 1:
		return rollout.Refuse(rollout.Malformed, "say which deployment to go back to, name one target, or say --all")
	case b.To == "":
		b.To, err = p.Store.GoodBefore(ctx, o.Tenant, b.Application, b.Targets[0])
	}
	if err == nil && !b.All {
		start, err = p.earlier(ctx, b, o)
	}
	if err != nil {
		return err
	}
	start.Pin, start.Exclusive = true, rollout.PerLane
	for i := range start.Targets {
		start.Targets[i].Way = straight(start.Targets[i].Way)
	}
	return p.Store.Start(ctx, start, nil)
}

// earlier is a deployment of what an earlier one brought about, on some of its targets.
func (p *Pusher) earlier(ctx context.Context, b Back, o Order) (rollout.Start, error) {
	old, err := p.Store.Started(ctx, o.Tenant, b.To)
	if err != nil {
		return old, err
	}
	if old.Application != b.Application {
		return old, rollout.Refuse(rollout.Malformed, "deployment %s is one of application %s, not of %s", b.To, old.Application, b.Application)
	}
	good, err := p.Store.Succeeded(ctx, o.Tenant, b.To)
	if err != nil {
		return old, err
	}
	start := p.again(old, o.ID, back(o, old.Trigger.Title))
	for _, t := range start.Targets {
		if (len(b.Targets) == 0 || slices.Contains(b.Targets, t.Name)) && !slices.Contains(good, t.Name) {
			return start, rollout.Refuse(rollout.Conflicts, "deployment %s never succeeded on target %s, so its steps and approvals cannot be passed over; `towpath deploy start -i %s` starts it again with all of them", b.To, t.Name, b.To)
		}
	}
	if len(b.Targets) > 0 {
		start.Targets = slices.DeleteFunc(start.Targets, func(t rollout.StartTarget) bool { return !slices.Contains(b.Targets, t.Name) })
		for i, t := range start.Targets {
			start.Targets[i].DependsOn = slices.DeleteFunc(slices.Clone(t.DependsOn), func(name string) bool { return !slices.Contains(b.Targets, name) })
		}
	}
	if len(start.Targets) == 0 {
		return start, rollout.Refuse(rollout.Missing, "deployment %s has no target %s", b.To, strings.Join(b.Targets, ", "))
	}
	return start, nil
}

// Renew brings what was good on targets of an account to the cluster that stands behind it now: at once, as the graph has it, and without asking anybody
// again. It returns the new deployment's id.
func (p *Pusher) Renew(ctx context.Context, good, account string, targets []string, o Order) (id string, err error) {
	old, err := p.Store.Started(ctx, o.Tenant, good)
	if err != nil {
		return "", err
	}
	start := p.again(old, p.Planner.NewID(), rollout.Trigger{Kind: "renewal", By: o.By, Reason: o.Reason, Title: old.Trigger.Title})
	start.Pin, start.Exclusive = true, rollout.PerLane
	start.Targets = slices.DeleteFunc(start.Targets, func(t rollout.StartTarget) bool { return t.Account != account || !slices.Contains(targets, t.Name) })
	for i := range start.Targets {
		t := &start.Targets[i]
		t.Way = straight(t.Way)
		t.DependsOn = slices.DeleteFunc(slices.Clone(t.DependsOn), func(name string) bool {
			return !slices.ContainsFunc(start.Targets, func(other rollout.StartTarget) bool { return other.Name == name })
		})
	}
	return start.ID, p.Store.Start(ctx, start, nil)
}

func back(o Order, title string) rollout.Trigger {
	return rollout.Trigger{Kind: "rollback", By: o.By, Reason: o.Reason, Title: title}
}

// undo stops the newest deployment of an application and brings each target that it has done back to what was good there before, the last one first.
func (p *Pusher) undo(ctx context.Context, b Back, o Order) (rollout.Start, error) {
	newest, err := p.Store.Newest(ctx, o.Tenant, b.Application)
	if err != nil {
		return newest, err
	}
	if err := p.Store.Halt(ctx, o.Tenant, newest.ID, o.By, o.Reason); err != nil {
		return newest, err
	}
	lanes, err := p.Planner.Store.Lanes(ctx, o.Tenant, b.Application)
	if err != nil {
		return newest, err
	}
	start := p.again(newest, o.ID, back(o, newest.Trigger.Title))
	start.Targets = nil
	for _, t := range newest.Targets {
		if !slices.ContainsFunc(lanes, func(l rollout.LaneState) bool {
			return l.Target == t.Name && l.Account == t.Account && l.Good != nil && l.Good.Deployment == newest.ID
		}) {
			continue
		}
		before, err := p.before(ctx, b.Application, t.Name, o)
		if err != nil {
			return start, err
		}
		start.Targets = append(start.Targets, before)
	}
	if len(start.Targets) == 0 {
		return start, rollout.Refuse(rollout.Conflicts, "nothing stands that deployment %s brought about: it has done no target, or each was brought back or replaced since; where it was under way it is told to stop", newest.ID)
	}
	reverse(start.Targets, newest.Targets)
	return start, nil
}

// before is a target as it was good before the present one.
func (p *Pusher) before(ctx context.Context, application, target string, o Order) (rollout.StartTarget, error) {
	id, err := p.Store.GoodBefore(ctx, o.Tenant, application, target)
	if err != nil {
		return rollout.StartTarget{}, err
	}
	old, err := p.Store.Started(ctx, o.Tenant, id)
	if err != nil {
		return rollout.StartTarget{}, err
	}
	i := slices.IndexFunc(old.Targets, func(t rollout.StartTarget) bool { return t.Name == target })
	if i < 0 {
		return rollout.StartTarget{}, rollout.Refuse(rollout.Missing, "deployment %s has no target %s", id, target)
	}
	t := old.Targets[i]
	t.Changed = true
	return t, nil
}

// reverse makes each target wait for those that waited for it.
func reverse(targets, of []rollout.StartTarget) {
	for i, t := range targets {
		targets[i].DependsOn = nil
		for _, other := range of {
			if slices.Contains(other.DependsOn, t.Name) && slices.ContainsFunc(targets, func(b rollout.StartTarget) bool { return b.Name == other.Name }) {
				targets[i].DependsOn = append(targets[i].DependsOn, other.Name)
			}
		}
	}
}

// straight is a way without steps: the Services of a blue/green strategy still turn, at once.
func straight(w rollout.Way) rollout.Way {
	w.Before, w.Canary, w.After = nil, nil, nil
	if w.BlueGreen != nil {
		w.BlueGreen = &rollout.BlueGreen{Services: w.BlueGreen.Services}
	}
	return w
}
