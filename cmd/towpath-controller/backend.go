package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"towpath/api"
	"towpath/cmd/towpath-controller/config"
	"towpath/deployment"
	"towpath/manifest"
	"towpath/manifest/diff"
	"towpath/reconcile"
	"towpath/reconcile/rollout"
	"towpath/store"
)

// backend is the controller as the API sees it.
type backend struct{ *Main }

func (b *backend) Authenticate(ctx context.Context, token string) (api.Caller, bool, error) {
	if tenant, call, ok := b.calledBack(token); ok {
		return api.Caller{Token: call, Tenant: tenant, Name: "a webhook", Grants: []string{api.CallBack}}, true, nil
	}
	t, err := b.token(ctx, token)
	if errors.Is(err, store.ErrNoToken) {
		return api.Caller{}, false, nil
	}
	return api.Caller{Token: t.ID, Tenant: t.Tenant, Name: t.Name, Grants: t.Grants, Roles: b.roles(t)}, err == nil, err
}

// roles of a token: those it was made with, and those that the configuration gives its name.
func (b *backend) roles(t store.Token) []string {
	roles := slices.Clone(t.Roles)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, role := range b.people {
		if slices.Contains(role.Members, t.Name) && !slices.Contains(roles, role.Name) {
			roles = append(roles, role.Name)
		}
	}
	return roles
}

// heldRoles is the roles that the configuration gives to somebody, or that tokens of a tenant were made with.
func (m *Main) heldRoles(ctx context.Context, tenant string) ([]string, error) {
	m.mu.Lock()
	roles := held(m.people)
	m.mu.Unlock()
	tokens, err := m.store.Tokens(ctx)
	for _, t := range tokens {
		if t.Tenant == tenant && t.Revoked.IsZero() {
			roles = append(roles, t.Roles...)
		}
	}
	return roles, err
}

// held is the roles that somebody holds.
func held(people []config.Role) []string {
	roles := []string{}
	for _, role := range people {
		if role.Held() {
			roles = append(roles, role.Name)
		}
	}
	return roles
}

// tell makes what a person can mend a problem of the API.
func tell(err error) error {
	var refusal *rollout.Refusal
	var underWay *store.ErrUnderWay
	switch {
	case errors.As(err, &underWay):
		return &api.Problem{Status: http.StatusConflict, Type: api.UnderWay, Text: underWay.Error() + "; wait for it, or cancel it with: towpath deploy cancel " + underWay.ID}
	case errors.As(err, &refusal):
		return &api.Problem{Status: statuses[refusal.Kind], Text: refusal.Text}
	}
	return err
}

// statuses are what refusals are over HTTP.
var statuses = map[rollout.RefusalKind]int{rollout.Conflicts: http.StatusConflict, rollout.Missing: http.StatusNotFound,
	rollout.Malformed: http.StatusUnprocessableEntity, rollout.Forbidden: http.StatusForbidden}

func (b *backend) NewID() string { return newID() }

func (b *backend) Observing(ctx context.Context) (bool, error) { return b.store.Observing(ctx) }

func (b *backend) Attempt(ctx context.Context, c api.Caller, key, request, id string) (api.Attempt, error) {
	a, err := b.store.Attempt(ctx, sender(c, key), request, id)
	return api.Attempt(a), tell(err)
}

func (b *backend) Answered(ctx context.Context, c api.Caller, key string, answer []byte) error {
	return b.store.Answered(ctx, sender(c, key), answer)
}

func sender(c api.Caller, key string) store.Sender {
	return store.Sender{Tenant: c.Tenant, Who: c.Token, Key: key}
}

func (b *backend) Deployments(ctx context.Context, c api.Caller, f api.DeploymentFilter) ([]api.Deployment, error) {
	views, err := b.store.Deployments(ctx, store.DeploymentFilter{Tenant: c.Tenant, Application: f.Application, State: rollout.State(f.State), Source: f.Source,
		Commit: f.Commit, Before: f.Before, Limit: f.Limit})
	out := make([]api.Deployment, len(views))
	ways := b.ways(ctx, c.Tenant)
	for i, v := range views {
		out[i] = b.deployment(v, ways)
	}
	return out, tell(err)
}

func (b *backend) Deployment(ctx context.Context, c api.Caller, id string) (api.Deployment, error) {
	v, err := b.store.Deployment(ctx, c.Tenant, id)
	if err != nil {
		return api.Deployment{}, tell(err)
	}
	return b.deployment(v, b.ways(ctx, c.Tenant)), nil
}

func (b *backend) deployment(v store.DeploymentView, ways func(account string) string) api.Deployment {
	d := api.Deployment{ID: v.ID, Application: v.Application, Number: v.Number, Description: v.Description, State: string(v.State), Why: v.Why, Source: v.Origin.Source,
		Path: v.Origin.Path, Commit: v.Origin.Commit, Repeats: v.Origin.Repeat, Trigger: v.Trigger.Kind, By: v.Trigger.By, Reason: v.Trigger.Reason, Title: v.Trigger.Title,
		Context: v.Context, Created: v.Created, Started: moment(v.Started), Ended: moment(v.Ended), Link: b.link(v.Tenant, v.ID), Targets: []api.Target{}}
	for _, t := range v.Targets {
		d.Targets = append(d.Targets, api.Target{Name: t.Name, Account: t.Account, Namespace: t.Namespace, State: string(t.State), Phase: string(t.Phase), Weight: share(t), Why: cmp.Or(t.Why, t.Progress()),
			DependsOn: t.DependsOn, CarriedBy: t.CarriedBy, Digest: t.Digest, Waits: waits(t.Waits, t.Account, ways), Started: moment(t.Started), Ended: moment(t.Ended)})
	}
	return d
}

// share is the new version's share, of traffic or of pods, while both versions run; 0 otherwise.
func share(t store.TargetView) int {
	if t.State.Final() || t.Weight >= 100 || len(t.Former)+len(t.Fleets) == 0 {
		return 0
	}
	return t.Weight
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func (b *backend) order(c api.Caller, id string, u api.Upload) (reconcile.Order, error) {
	o := reconcile.Order{ID: id, Tenant: c.Tenant, By: c.Name, Application: u.Application, Filters: u.Targets, Context: u.Context, Account: u.Account, Reason: u.Reason, Title: u.Title}
	switch {
	case !u.Emergency && len(u.Skip) > 0:
		return o, rollout.Refuse(rollout.Malformed, "only an emergency passes waits over; say emergency too")
	case !u.Emergency:
		return o, nil
	case !slices.Contains(c.Grants, api.BreakGlass):
		return o, rollout.Refuse(rollout.Forbidden, "an emergency needs the grant %s, which the token of %s lacks", api.BreakGlass, c.Name)
	case u.Reason == "":
		return o, rollout.Refuse(rollout.Malformed, "an emergency needs a reason")
	}
	o.Emergency = true
	for _, skip := range u.Skip {
		o.Skip = append(o.Skip, rollout.Skip(skip))
	}
	return o, nil
}

func (b *backend) Start(ctx context.Context, c api.Caller, id string, u api.Upload) (api.Started, error) {
	var plan reconcile.Plan
	o, err := b.order(c, id, u)
	switch {
	case err != nil:
	case u.Repeat != "":
		err = b.pusher.Repeat(ctx, u.Repeat, o)
	default:
		plan, err = b.pusher.Push(ctx, reconcile.Upload{Path: u.Path, Files: u.Files}, o)
	}
	if err != nil {
		return api.Started{}, tell(err)
	}
	if plan.Failed() {
		return api.Started{}, refused(plan.Problems)
	}
	return api.Started{ID: id, Link: b.link(c.Tenant, id), Problems: problems(plan.Problems)}, nil
}

// refused is a file's problems as an answer of the API.
func refused(all []deployment.Problem) error {
	p := &api.Problem{Status: http.StatusUnprocessableEntity, Text: "the deployment file is refused"}
	for _, problem := range all {
		if problem.Severity == deployment.Error {
			p.Details = append(p.Details, &huma.ErrorDetail{Message: told(problem), Location: fmt.Sprintf("%s:%d:%d", problem.File, problem.Line, problem.Column)})
		}
	}
	return p
}

func told(p deployment.Problem) string {
	if p.Suggestion == "" {
		return p.Text
	}
	return p.Text + "; did you mean " + p.Suggestion + "?"
}

func problems(all []deployment.Problem) []deployment.Problem {
	if all == nil {
		return []deployment.Problem{}
	}
	return all
}

func (b *backend) Plan(ctx context.Context, c api.Caller, u api.Upload) (api.Plan, error) {
	o, err := b.order(c, "", u)
	if err != nil {
		return api.Plan{}, tell(err)
	}
	plan, err := b.pusher.Plan(ctx, reconcile.Upload{Path: u.Path, Files: u.Files}, o)
	if err != nil {
		return api.Plan{}, tell(err)
	}
	out := api.Plan{Problems: problems(plan.Problems), Targets: []api.PlannedTarget{}}
	if plan.File != nil {
		out.Application = plan.File.Application
	}
	for _, t := range plan.Targets {
		target := api.PlannedTarget{Name: t.Name, Account: t.Account, DependsOn: t.DependsOn, Digest: t.Digest, Changed: t.Changed}
		for _, c := range t.Changes() {
			target.Changes = append(target.Changes, shownChange(c))
		}
		out.Targets = append(out.Targets, target)
	}
	return out, nil
}

func shownChange(c diff.Change) api.Change {
	return api.Change{Object: c.Key.String(), Kind: string(c.Kind), Diff: c.Text, Cut: c.Cut}
}

func texts(keys []manifest.Key) []string {
	var out []string
	for _, key := range keys {
		out = append(out, key.String())
	}
	return out
}

func (b *backend) Say(ctx context.Context, c api.Caller, id, verb string, w api.Word) error {
	return tell(b.store.Say(ctx, rollout.Saying{Tenant: c.Tenant, Deployment: id, Target: w.Target, Gate: w.Gate, Verb: rollout.Verb(verb), By: c.Name, Roles: c.Roles,
		Admin: slices.Contains(c.Grants, api.Admin), Reason: w.Reason}))
}

func (b *backend) Holds(ctx context.Context, c api.Caller) ([]api.Hold, error) {
	holds, err := b.store.Holds(ctx, c.Tenant)
	out := make([]api.Hold, len(holds))
	for i, h := range holds {
		out[i] = api.Hold{Scope: string(h.Scope), Name: h.Name, By: h.By, Reason: h.Reason, At: h.At}
	}
	return out, err
}

func (b *backend) Hold(ctx context.Context, c api.Caller, scope, name, reason string) error {
	h, err := holdOf(c, scope, name)
	if err == nil {
		err = b.exists(ctx, h)
	}
	if err == nil {
		h.Reason = reason
		err = b.store.Hold(ctx, h)
	}
	return tell(err)
}

// exists refuses a hold of what is not there: a slip of the pen would halt nothing, and say that it did.
func (b *backend) exists(ctx context.Context, h store.Hold) error {
	switch h.Scope {
	case store.ScopeApplication:
		owner, err := b.store.Owner(ctx, h.Tenant, h.Name)
		if err == nil && owner.Application == "" {
			err = rollout.Refuse(rollout.Missing, "no application %s, so nothing is halted; `towpath app list` names them", h.Name)
		}
		return err
	case store.ScopeAccount:
		targets, err := b.store.TargetsOn(ctx, h.Tenant, h.Name)
		if err != nil || targets > 0 {
			return err
		}
		if _, err = b.store.Agent(ctx, h.Tenant, h.Name); err != nil {
			err = rollout.Refuse(rollout.Missing, "no target is on account %[1]s, and no agent is called so, so nothing is halted; `towpath agent list` names them", h.Name)
		}
		return err
	}
	return nil
}

func (b *backend) Unhold(ctx context.Context, c api.Caller, scope, name string) error {
	h, err := holdOf(c, scope, name)
	if err == nil {
		err = b.store.Unhold(ctx, h)
	}
	return tell(err)
}

func holdOf(c api.Caller, scope, name string) (store.Hold, error) {
	if (scope == string(store.ScopeAll)) != (name == "") {
		return store.Hold{}, rollout.Refuse(rollout.Malformed, "a hold of the scope all has no name, and one of an application or account has")
	}
	return store.Hold{Tenant: c.Tenant, Scope: store.Scope(scope), Name: name, By: c.Name}, nil
}

func (b *backend) Cancel(ctx context.Context, c api.Caller, id, reason string) error {
	return tell(b.store.Cancel(ctx, c.Tenant, id, c.Name, reason))
}

func (b *backend) RollBack(ctx context.Context, c api.Caller, id, application string, back api.Back) error {
	return tell(b.pusher.RollBack(ctx, reconcile.Back{Application: application, Targets: back.Targets, To: back.To, All: back.All},
		reconcile.Order{ID: id, Tenant: c.Tenant, By: c.Name, Reason: back.Reason}))
}

func (b *backend) Applications(ctx context.Context, c api.Caller, f api.ApplicationFilter) ([]api.Application, error) {
	views, err := b.store.Applications(ctx, store.ApplicationFilter{Tenant: c.Tenant, Name: f.Name, After: f.After, Limit: f.Limit})
	if err != nil {
		return nil, tell(err)
	}
	out := make([]api.Application, len(views))
	refused := map[string][]rollout.FileState{} // by source
	ways := b.ways(ctx, c.Tenant)
	for i, v := range views {
		out[i] = api.Application{Name: v.Application, Source: v.Source, Path: v.Path, Removed: v.Removed, Lanes: []api.Lane{}}
		if _, looked := refused[v.Source]; v.Source != "" && !looked {
			if refused[v.Source], err = b.store.Problems(ctx, c.Tenant, v.Source); err != nil {
				return nil, err
			}
		}
		for _, f := range refused[v.Source] {
			if f.Path == v.Path {
				out[i].Problems = f.Problems
			}
		}
		for _, l := range v.Lanes {
			lane := api.Lane{Target: l.Target, Account: l.Account, State: string(l.State), Why: l.Why, Wanted: l.Number, Deployment: l.Last,
				Orphaned: l.Removed && len(l.Inventory) > 0, Objects: texts(l.Inventory), Waits: waits(l.Waits, l.Account, ways)}
			for _, d := range l.Drift {
				lane.Drift = append(lane.Drift, api.Drift{Object: d.Key.String(), What: d.Sentence(), Fields: d.Fields, By: d.By, At: moment(d.At), Since: d.Since})
			}
			if l.Current != "" {
				lane.Deployment = l.Current
			}
			if l.Good != nil {
				lane.Good = l.Good.Number
			}
			if l.Pin != nil {
				lane.Pin = &api.Pin{Number: l.Pin.Number, Why: l.Pin.Why, By: l.Pin.By, At: l.Pin.At}
			}
			out[i].Lanes = append(out[i].Lanes, lane)
		}
	}
	return out, tell(err)
}

func (b *backend) Remove(ctx context.Context, c api.Caller, id, name string, keep bool) error {
	return tell(b.store.Release(ctx, c.Tenant, name, id, c.Name, !keep))
}

func (b *backend) Sources(ctx context.Context, c api.Caller) ([]api.Source, error) {
	views, err := b.store.Sources(ctx, c.Tenant)
	out := make([]api.Source, len(views))
	for i, v := range views {
		out[i] = api.Source{Name: v.Name, Head: v.Head, Processed: v.Processed, Failure: v.Failure, FailedSince: moment(v.FailedSince), Problems: []deployment.Problem{}}
		if v.Untold.Commits > 0 {
			out[i].Untold = &api.Untold{Commits: v.Untold.Commits, Failure: v.Untold.Failure}
		}
		files, err := b.store.Problems(ctx, c.Tenant, v.Name)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			out[i].Problems = append(out[i].Problems, f.Problems...)
		}
		wrong, err := b.rules.Problems(ctx, c.Tenant, v.Name)
		if err != nil {
			return nil, err
		}
		out[i].Problems = append(out[i].Problems, wrong...)
	}
	return out, err
}

func (b *backend) Events(ctx context.Context, c api.Caller, f api.EventFilter) ([]api.Event, error) {
	events, err := b.store.Events(ctx, store.EventFilter{Tenant: c.Tenant, Application: f.Application, Deployment: f.Deployment, After: f.After, Limit: f.Limit})
	out := make([]api.Event, len(events))
	for i, e := range events {
		out[i] = api.Event{ID: e.ID, At: e.At, Application: e.Application, Deployment: e.Deployment, Target: e.Target, Who: e.Who, Kind: e.Kind, What: e.What, Why: e.Why}
	}
	return out, err
}

func (b *backend) News() (<-chan struct{}, func()) { return b.store.News() }
