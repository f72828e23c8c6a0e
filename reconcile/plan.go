package reconcile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"towpath/deployment"
	"towpath/manifest"
	"towpath/manifest/diff"
	"towpath/policies"
	"towpath/policies/rules"
	"towpath/reconcile/rollout"
)

// renders turns a target of a file into manifests.
type renders interface {
	// Render makes a target's manifests from a tree. Problems of the author's making are in the record, never an error; an error says that the
	// render could not be done now and is worth another try.
	Render(ctx context.Context, r RenderRequest) (rollout.RenderRecord, error)
}

// RenderRequest names a target of a file in a tree.
type RenderRequest struct {
	Tree   fs.FS
	File   *deployment.File
	Text   []byte // of the file
	Target string
	Source string // "" for an upload
	Plan   string // of an upload: names the plan that it is rendered for; "" for a source
	Tenant string
	Masked bool // what is encrypted in the tree stays so: nothing of the render is deployed
}

// planStore is what planning needs to know of what is recorded.
type planStore interface {
	// Lanes is the lanes of an application.
	Lanes(ctx context.Context, tenant, application string) ([]rollout.LaneState, error)
	// Owner is who owns an application; the zero value when it is new.
	Owner(ctx context.Context, tenant, application string) (rollout.Owner, error)
	// Taken names, for each of the keys on an account that other lanes than those of the application have, the application that has it.
	Taken(ctx context.Context, tenant, application, account string, keys []manifest.Key) (map[manifest.Key]string, error)
	// Manifests opens a sealed set.
	Manifests(ctx context.Context, digest string) ([]manifest.Object, error)
}

// Planner says what a deployment file would do.
type Planner struct {
	Store   planStore
	Renders renders
	Clock   func() time.Time
	NewID   func() string // of a deployment
	// Roles is those that somebody holds.
	Roles func(ctx context.Context, tenant string) ([]string, error)
	// Names says what a set of objects is called once it is applied.
	Names func(objects []manifest.Object) (rollout.Set, error)
	// Live reads objects of a cluster; nil when its agent is away.
	Live func(ctx context.Context, tenant, account string, keys []manifest.Key) []rollout.Live
	// Routes finds routes as Cluster.Routes does; a Failure that is not Refused says that they cannot be looked for now.
	Routes   func(ctx context.Context, id rollout.Identity, objects []manifest.Object, wanted []rollout.Route) ([]rollout.Route, *rollout.Failure)
	Previews bool // links of exposeServices are served
	// Webhook and Provider say why a webhook could not be called, or a metric provider not be asked, by what the configuration says. nil: that is not known.
	Webhook  func(tenant, source, application string, w deployment.Webhook) error
	Provider func(tenant, name string) error
	// Rules is what objects are held to before they are deployed; nil: nothing. A Refusal says that they are not known yet.
	Rules   func(ctx context.Context, tenant string) (rules.Set, error)
	NotSelf bool // approvals do not come from those whose change it is, unless the file says allowSelfApproval: true
}

// Ask is one file to be planned.
type Ask struct {
	Tenant      string
	Application string // overrides the file's
	Origin      rollout.Origin
	Trigger     rollout.Trigger
	Authors     []string // who wrote the change, merged it, or started the push
	Tree        fs.FS
	Text        []byte
	Reach       []policies.Reach
	Filters     []string          // overrides the file's
	Context     map[string]string // added, over the file's contextOverrides
	Account     string            // for targets that name none
	// Fresh gives the recorded render of a target that nothing touched since; nil or false: render it.
	Fresh func(target string) (rollout.RenderRecord, bool)
	// Anew holds what would not move against what the source may touch, too: that may have changed.
	Anew bool
	// Moved allows the application to come from another file of its source: that file is gone.
	Moved func(owner rollout.Owner) bool
	// Again starts every target, also where nothing would change.
	Again bool
	// Emergency lets a push deploy what Git owns: these waits are passed over, and the lanes are held at the result.
	Emergency bool
	Skip      []rollout.Skip
	// Look only plans: what another owns is told, and no refusal.
	Look bool
	// Base is what a proposed change is compared with, in place of what was asked for last; nothing of it is deployed, and what is encrypted stays so.
	Base *Base
}

// Base is a file before a proposed change.
type Base struct {
	File    *deployment.File                                             // nil: there was none, or it could not be read
	Renders func(target string) (record rollout.RenderRecord, err error) // of its targets
}

// Plan is what a file would do. Start is nil when its problems forbid a start.
type Plan struct {
	File     *deployment.File
	Problems []deployment.Problem
	Renders  []rollout.RenderRecord // made for this plan
	Start    *rollout.Start
	Targets  []PlannedTarget
	Findings []rules.Finding // of the rules in force; the first ones of each target are among the problems, too
}

// PlannedTarget is what would happen to one target.
type PlannedTarget struct {
	rollout.StartTarget
	Objects []manifest.Object
	Before  []manifest.Object // what was last asked for, where that is another
}

// Changes is what would be other than what was last asked for.
func (t PlannedTarget) Changes() []diff.Change { return diff.Between(t.Before, t.Objects) }

// Moves reports whether any target would change, or objects of a target that left would go.
func (p Plan) Moves() bool {
	if p.Start == nil {
		return false
	}
	return len(p.Start.Gone) > 0 || slices.ContainsFunc(p.Start.Targets, func(t rollout.StartTarget) bool { return t.Changed })
}

// Failed reports whether problems forbid a start.
func (p Plan) Failed() bool { return rollout.HasErrors(p.Problems) }

// Plan reads the file, renders its targets and compares them with what their lanes hold. An error means that it could not be done now.
func (p *Planner) Plan(ctx context.Context, ask Ask) (Plan, error) {
	file, problems := deployment.Parse(ask.Origin.Path, ask.Text)
	return p.plan(ctx, file, problems, ask)
}

// plan is Plan of a file that was read already.
func (p *Planner) plan(ctx context.Context, file *deployment.File, problems []deployment.Problem, ask Ask) (Plan, error) {
	plan := Plan{File: file, Problems: problems}
	if file == nil {
		return plan, nil
	}
	file.Take(deployment.Flags{Application: ask.Application, Account: ask.Account, Targets: ask.Filters, Context: ask.Context})
	plan.Problems = append(plan.Problems, p.accounts(file, ask)...)
	plan.Problems = append(plan.Problems, p.unserved(file)...)
	unknown, err := p.unknownRoles(ctx, file, ask.Tenant)
	if err != nil {
		return plan, err
	}
	plan.Problems = append(plan.Problems, unknown...)
	plan.Problems = append(plan.Problems, p.outside(file, ask)...)
	if err := p.owner(ctx, &plan, ask); err != nil {
		return plan, err
	}
	if plan.Failed() {
		return plan, nil
	}
	records, err := p.render(ctx, &plan, ask)
	if err != nil || plan.Failed() {
		return plan, err
	}
	return plan, p.compare(ctx, &plan, ask, records)
}

func (p *Planner) accounts(file *deployment.File, ask Ask) []deployment.Problem {
	var problems []deployment.Problem
	refuse := func(field string, at deployment.Position, text string, args ...any) {
		problems = append(problems, deployment.Problem{File: file.Path, Field: field, Line: max(at.Line, 1), Column: max(at.Column, 1), Severity: deployment.Error,
			Text: fmt.Sprintf(text, args...)})
	}
	if file.Application == "" {
		refuse("application", deployment.Position{}, "the application has no name; write application: NAME, or give --application")
	}
	for _, name := range file.TargetFilters {
		if file.Target(name) == nil {
			refuse("targetFilters", deployment.Position{}, "no target %q to deploy to", name)
		}
	}
	for _, target := range file.Chosen() {
		field := "targets." + target.Name + ".account"
		switch {
		case target.Account == "":
			refuse(field, target.Position, "target %s names no account; write account: AGENT, or give --account", target.Name)
		case !policies.Account(ask.Reach, target.Account):
			refuse(field, target.AccountPosition, "%s may not deploy to account %s; sources[].allow of the controller's configuration says what it may", origin(ask.Origin), target.Account)
		}
	}
	return problems
}

// origin is what a message calls where a file comes from.
func origin(o rollout.Origin) string {
	if o.Source == "" {
		return "a push"
	}
	return "source " + o.Source
}

func (p *Planner) owner(ctx context.Context, plan *Plan, ask Ask) error {
	owner, err := p.Store.Owner(ctx, ask.Tenant, plan.File.Application)
	if err != nil || owner.Application == "" || owner.Removed || ask.Emergency {
		return err
	}
	var text string
	switch {
	case owner.Source == ask.Origin.Source && owner.Path == ask.Origin.Path:
	case owner.Pushed() && ask.Origin.Source == "":
	case owner.Pushed():
		text = fmt.Sprintf("application %s is deployed by push; to hand it over to Git, run: towpath app remove --keep %s", owner.Application, owner.Application)
	case ask.Origin.Source == "":
		text = fmt.Sprintf("application %s belongs to %s of source %s; to hand it over to pushes, delete that file and run: towpath app remove --keep %s",
			owner.Application, owner.Path, owner.Source, owner.Application)
	case ask.Moved != nil && ask.Moved(owner):
	default:
		text = fmt.Sprintf("application %s belongs to %s of source %s already; %s must name another", owner.Application, owner.Path, owner.Source, ask.Origin.Path)
	}
	if text == "" {
		return nil
	}
	severity := deployment.Error
	if ask.Look {
		text, _, _ = strings.Cut(text, "; ") // how it is handed over is for who starts it
		severity, text = deployment.Warning, "this is what it would do; it would not be started from here: "+text
	}
	plan.Problems = append(plan.Problems, deployment.Problem{File: ask.Origin.Path, Field: "application", Line: 1, Column: 1, Severity: severity, Text: text})
	return nil
}

// render makes, or takes as recorded, the manifests of each target.
func (p *Planner) render(ctx context.Context, plan *Plan, ask Ask) (map[string]rollout.RenderRecord, error) {
	records := map[string]rollout.RenderRecord{}
	id := ""
	if ask.Origin.Source == "" {
		id = p.NewID()
	}
	for _, target := range plan.File.Chosen() {
		record, fresh := rollout.RenderRecord{}, false
		if ask.Fresh != nil {
			record, fresh = ask.Fresh(target.Name)
		}
		if !fresh {
			var err error
			record, err = p.Renders.Render(ctx, RenderRequest{Tree: ask.Tree, File: plan.File, Text: ask.Text, Target: target.Name, Source: ask.Origin.Source, Plan: id, Tenant: ask.Tenant, Masked: ask.Base != nil})
			if err != nil {
				return nil, fmt.Errorf("render %s, target %s: %w", ask.Origin.Path, target.Name, err)
			}
			record.Source, record.Path, record.Target = ask.Origin.Source, ask.Origin.Path, target.Name
			plan.Renders = append(plan.Renders, record)
		}
		for _, problem := range record.Problems {
			if !slices.Contains(plan.Problems, problem) {
				plan.Problems = append(plan.Problems, problem)
			}
		}
		records[target.Name] = record
	}
	return records, nil
}

// compare holds the manifests against what the lanes were last asked for, and makes the Start.
func (p *Planner) compare(ctx context.Context, plan *Plan, ask Ask, records map[string]rollout.RenderRecord) error {
	file := plan.File
	lanes, err := p.Store.Lanes(ctx, ask.Tenant, file.Application)
	if err != nil {
		return err
	}
	start := &rollout.Start{ID: p.NewID(), Tenant: ask.Tenant, Application: file.Application, Description: file.Description, Origin: ask.Origin,
		Trigger: ask.Trigger, Authors: ask.Authors, Skip: ask.Skip, Pin: ask.Emergency, At: p.Clock().UTC(), Context: file.ContextOverrides,
		Exclusive: ask.exclusive(file.Config.IfInProgress), Text: ask.Text, Prune: file.Config.Prune}
	for _, target := range file.Chosen() {
		planned, err := p.target(ctx, plan, ask, target, records[target.Name], lanes)
		if err != nil {
			return err
		}
		plan.Targets = append(plan.Targets, planned)
		start.Targets = append(start.Targets, planned.StartTarget)
	}
	for _, lane := range lanes {
		if target := file.Target(lane.Target); !lane.Removed && (target == nil || target.Account != lane.Account) {
			start.Gone = append(start.Gone, rollout.Gone{Lane: lane.ID, Prune: file.Config.Prune, Why: "the target left the file" + notPruned})
			if file.Config.Prune {
				findings, err := p.removal(ctx, ask.Tenant, file.Application, lane)
				if err != nil {
					return err
				}
				plan.find(deployment.Target{Name: lane.Target}, findings)
			}
		}
	}
	if !plan.Failed() {
		plan.Start = start
	}
	return nil
}

// exclusive is what a new deployment does to others: pushes of a file that says nothing are refused while another is under way, as its users know
// it; merges are left to each lane.
func (ask Ask) exclusive(said deployment.InProgress) rollout.Exclusive {
	switch {
	case ask.Emergency:
		return rollout.PerLane
	case said == deployment.Supersede:
		return rollout.SupersedeOthers
	case said == deployment.EnqueueOne:
		return rollout.EnqueueOne
	case said == deployment.Batch:
		return rollout.Batch
	case said == deployment.Reject, said == "" && ask.Origin.Source == "":
		return rollout.RejectOthers
	}
	return rollout.PerLane
}

func (p *Planner) target(ctx context.Context, plan *Plan, ask Ask, target deployment.Target, record rollout.RenderRecord, lanes []rollout.LaneState) (PlannedTarget, error) {
	planned := PlannedTarget{StartTarget: rollout.StartTarget{Name: target.Name, Account: target.Account, Namespace: target.Namespace,
		Way: rollout.WayOf(plan.File, target, p.NotSelf), Manifests: record.Manifests}}
	var err error
	if planned.Digest, err = rollout.Promise(promised{target.Name, target.Account, target.Namespace, planned.Way}, record.Manifests); err != nil {
		return planned, err
	}
	lane := slices.IndexFunc(lanes, func(l rollout.LaneState) bool { return l.Target == target.Name && l.Account == target.Account })
	var proposed rollout.RenderRecord // what it is compared with
	if ask.Base != nil {
		if planned.Changed, proposed, err = p.since(*ask.Base, target, planned.Digest); err != nil {
			return planned, err
		}
	} else {
		planned.Changed = lane < 0 || ask.Again || lanes[lane].Moves(record.Manifests, planned.Digest) || ask.tries(lanes[lane], record.Manifests)
	}
	if !planned.Changed && !ask.Anew {
		return planned, nil
	}
	if planned.Objects = record.Objects; planned.Objects == nil {
		if planned.Objects, err = p.Store.Manifests(ctx, record.Manifests); err != nil {
			return planned, err
		}
	}
	plan.refuse(target, policies.Objects(ask.Reach, ask.Origin.Source, target.Account, planned.Objects))
	if !planned.Changed {
		return planned, nil
	}
	taken, err := p.taken(ctx, plan.File.Application, ask, target.Account, planned.Objects)
	if err != nil {
		return planned, err
	}
	plan.refuse(target, taken)
	if err := errors.Join(p.services(ctx, plan, ask.Tenant, target, planned), p.routes(ctx, plan, ask, target, planned), p.fleets(plan, target, planned)); err != nil {
		return planned, err
	}
	switch {
	case proposed.Objects != nil:
		planned.Before = proposed.Objects
	case proposed.Manifests != "":
		planned.Before, err = p.Store.Manifests(ctx, proposed.Manifests)
	case lane >= 0 && lanes[lane].Wanted != "":
		planned.Before, err = p.Store.Manifests(ctx, lanes[lane].Wanted)
	}
	if err != nil {
		return planned, err
	}
	findings, err := p.judge(ctx, ask.Tenant, judged{plan.File.Application, target.Name, target.Account, target.Namespace}, planned.Before, planned.Objects)
	plan.find(target, findings)
	return planned, err
}

// since compares what is promised of a target with what a base promises, and gives the base's render; the zero value where it has none that is good.
func (p *Planner) since(base Base, target deployment.Target, digest string) (moves bool, was rollout.RenderRecord, err error) {
	if base.File == nil || base.File.Target(target.Name) == nil || base.File.Target(target.Name).Account != target.Account {
		return true, was, nil
	}
	if was, err = base.Renders(target.Name); err != nil || was.Failed() {
		return true, rollout.RenderRecord{}, err
	}
	former := *base.File.Target(target.Name)
	promise, err := rollout.Promise(promised{former.Name, former.Account, former.Namespace, rollout.WayOf(base.File, former, p.NotSelf)}, was.Manifests)
	return promise != digest, was, err
}

// tries reports whether what was asked for before, and never became good, is tried again: who pushes the same once more wants that.
func (ask Ask) tries(lane rollout.LaneState, manifests string) bool {
	return ask.Origin.Source == "" && (lane.Good == nil || lane.Good.Manifests != manifests)
}

// refuse adds an error at the target for each sentence.
func (p *Plan) refuse(target deployment.Target, sentences []string) {
	p.say(target, deployment.Error, sentences)
}

// say adds a problem at the target for each sentence.
func (p *Plan) say(target deployment.Target, severity deployment.Severity, sentences []string) {
	for _, text := range sentences {
		p.Problems = append(p.Problems, deployment.Problem{File: p.File.Path, Field: "targets." + target.Name, Line: max(target.Position.Line, 1),
			Column: max(target.Position.Column, 1), Severity: severity, Text: text})
	}
}

// taken is a sentence for each object that another application has.
func (p *Planner) taken(ctx context.Context, application string, ask Ask, account string, objects []manifest.Object) ([]string, error) {
	keys := make([]manifest.Key, len(objects))
	for i, o := range objects {
		keys[i] = o.Key
	}
	owners, err := p.Store.Taken(ctx, ask.Tenant, application, account, keys)
	if err != nil {
		return nil, err
	}
	var sentences []string
	for _, key := range keys {
		name, found := owners[key]
		if !found {
			continue
		}
		owner, err := p.Store.Owner(ctx, ask.Tenant, name)
		if err != nil {
			return nil, err
		}
		said := fmt.Sprintf("application %s has it in its manifests, too, and an object has one owner: take it out of one of the two", application)
		if !owner.Pushed() && owner.Source == ask.Origin.Source && owner.Path == ask.Origin.Path {
			said = fmt.Sprintf("this file named it until now, and an application that has objects is not renamed: write application: %s again, or delete the file, run towpath app remove %s, and then add the file as %s",
				name, name, application)
		}
		sentences = append(sentences, fmt.Sprintf("%s on account %s belongs to application %s; %s", key, account, name, said))
	}
	return sentences, nil
}

// promised is what is promised for a target beside its manifests: where it goes, and its way.
type promised struct {
	Name, Account, Namespace string
	rollout.Way
}

// notPruned is why what nobody wants any more is kept all the same.
const notPruned = ", and the file did not say deploymentConfig.prune: true"

// firstLine of a commit's message.
func firstLine(message string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(message), "\n")
	return line
}

// Earlier is what a target was asked for by an earlier commit, with its manifests to be sealed; nil where the file had no such target then, or cannot be
// rendered. ask names the commit's tree and the file's text in it.
func (p *Planner) Earlier(ctx context.Context, ask Ask, name string) (*rollout.Release, []manifest.Object, error) {
	file, problems := deployment.Parse(ask.Origin.Path, ask.Text)
	if file == nil || rollout.HasErrors(problems) || file.Target(name) == nil {
		return nil, nil, nil
	}
	record, err := p.Renders.Render(ctx, RenderRequest{Tree: ask.Tree, File: file, Text: ask.Text, Target: name, Source: ask.Origin.Source, Tenant: ask.Tenant})
	if err != nil || record.Failed() {
		return nil, nil, err
	}
	target := *file.Target(name)
	digest, err := rollout.Promise(promised{name, target.Account, target.Namespace, rollout.WayOf(file, target, p.NotSelf)}, record.Manifests)
	return &rollout.Release{Commit: ask.Origin.Commit, Manifests: record.Manifests, Digest: digest}, record.Objects, err
}
