package reconcile

import (
	"context"
	"io/fs"
	"slices"
	"strings"
	"time"

	"towpath/deployment"
	"towpath/manifest"
	"towpath/policies"
	"towpath/reconcile/rollout"
)

// pushStore is what deploying by push, repeating and going back need of the store.
type pushStore interface {
	// Start records a deployment, sealing the sets that are not sealed yet.
	Start(ctx context.Context, start rollout.Start, sealed map[string][]manifest.Object) error
	// SealUpload keeps an upload by its digest, SealedUpload brings it back.
	SealUpload(ctx context.Context, digest string, files map[string][]byte) error
	SealedUpload(ctx context.Context, digest string) (map[string][]byte, error)
	// Started is a deployment as it was recorded.
	Started(ctx context.Context, tenant, id string) (rollout.Start, error)
	// Succeeded are the names of a deployment's targets that SUCCEEDED, also where another deployment carried them.
	Succeeded(ctx context.Context, tenant, id string) ([]string, error)
	// Newest is the newest deployment of an application that was not itself a way back.
	Newest(ctx context.Context, tenant, application string) (rollout.Start, error)
	// Halt asks a deployment to stop; one that has ended is no error.
	Halt(ctx context.Context, tenant, id, by, reason string) error
	// GoodBefore is the newest deployment before the lane's last good one that SUCCEEDED on a target of an application: where going back leads to.
	GoodBefore(ctx context.Context, tenant, application, target string) (id string, err error)
}

// Upload is a deployment file and the files it names, made by somebody's CI and not in Git.
type Upload struct {
	Path  string            // of the deployment file among Files
	Files map[string][]byte // by path, slashes, no leading one
}

// Pusher starts deployments that people ask for.
type Pusher struct {
	Store   pushStore
	Planner *Planner
	// Reach is what a push may touch.
	Reach []policies.Reach
	// Tree gives uploaded files the form that render reads; Commit that of a source's commit.
	Tree   func(files map[string][]byte) (fs.FS, error)
	Commit func(ctx context.Context, tenant, source, commit string) (fs.FS, error)
	Clock  func() time.Time
}

// Order is what a person adds to an upload.
type Order struct {
	ID          string // of the deployment that it starts; one of this id that was started before is the same
	Tenant, By  string
	Application string            // "": the file's
	Filters     []string          // nil: the file's
	Context     map[string]string // over the file's
	Account     string
	Reason      string
	Title       string
	Emergency   bool           // it deploys what Git owns, and its lanes are held at the result
	Skip        []rollout.Skip // waits that are passed over; with Emergency only

	look bool
}

// Plan says what an upload would do; nothing starts.
func (p *Pusher) Plan(ctx context.Context, u Upload, o Order) (Plan, error) {
	o.look = true
	_, plan, err := p.plan(ctx, u, o)
	return plan, err
}

// Push starts a deployment of an upload. With problems in the plan nothing starts.
func (p *Pusher) Push(ctx context.Context, u Upload, o Order) (Plan, error) {
	digest, plan, err := p.plan(ctx, u, o)
	if err != nil || plan.Failed() {
		return plan, err
	}
	if err := p.Store.SealUpload(ctx, digest, u.Files); err != nil {
		return plan, err
	}
	plan.Start.ID = o.ID
	return plan, p.Store.Start(ctx, *plan.Start, sealed(plan))
}

func (p *Pusher) plan(ctx context.Context, u Upload, o Order) (digest string, plan Plan, err error) {
	text, found := u.Files[u.Path]
	if !found {
		return "", plan, rollout.Refuse(rollout.Malformed, "the upload does not hold its deployment file %q", u.Path)
	}
	tree, err := p.Tree(u.Files)
	if err != nil {
		return "", plan, rollout.Refuse(rollout.Malformed, "the upload's files: %v", err)
	}
	digest = uploadDigest(u.Files)
	plan, err = p.Planner.Plan(ctx, Ask{Tenant: o.Tenant, Application: o.Application, Tree: tree, Text: text, Reach: p.Reach, Filters: o.Filters,
		Context: o.Context, Account: o.Account, Origin: rollout.Origin{Path: u.Path, Upload: digest}, Authors: []string{o.By}, Emergency: o.Emergency, Skip: o.Skip, Look: o.look,
		Trigger: rollout.Trigger{Kind: "api", By: o.By, Reason: o.Reason, Title: o.Title}})
	return digest, plan, err
}

// Repeat starts a deployment again, with its own file and manifests, on every target that it named.
func (p *Pusher) Repeat(ctx context.Context, id string, o Order) error {
	old, err := p.Store.Started(ctx, o.Tenant, id)
	if err != nil {
		return err
	}
	start := p.again(old, o.ID, rollout.Trigger{Kind: "api", By: o.By, Reason: o.Reason, Title: old.Trigger.Title})
	if len(o.Filters) > 0 {
		start.Targets = slices.DeleteFunc(start.Targets, func(t rollout.StartTarget) bool { return !slices.Contains(o.Filters, t.Name) })
	}
	if len(start.Targets) == 0 {
		return rollout.Refuse(rollout.Missing, "deployment %s has no target %s", id, strings.Join(o.Filters, ", "))
	}
	if err := p.Planner.allowed(ctx, start); err != nil {
		return err
	}
	if file, _ := deployment.Parse(old.Origin.Path, old.Text); file != nil {
		start.Exclusive = Ask{Origin: old.Origin}.exclusive(file.Config.IfInProgress)
	}
	return p.Store.Start(ctx, start, nil)
}

// again is a new deployment of what an old one brought about.
func (p *Pusher) again(old rollout.Start, id string, trigger rollout.Trigger) rollout.Start {
	start := old
	start.Origin.Repeat, start.ID, start.Trigger, start.At, start.Gone = old.ID, id, trigger, p.Clock().UTC(), nil
	start.Authors = []string{trigger.By}
	start.Targets = slices.Clone(old.Targets)
	for i := range start.Targets {
		start.Targets[i].Changed = true
	}
	return start
}

// sealed is the manifests of a plan that are not sealed yet, by digest.
func sealed(plan Plan) map[string][]manifest.Object {
	sets := map[string][]manifest.Object{}
	for _, render := range plan.Renders {
		if !render.Failed() && render.Objects != nil {
			sets[render.Manifests] = render.Objects
		}
	}
	return sets
}

// uploadDigest names an upload by content.
func uploadDigest(files map[string][]byte) string {
	paths := make([]string, 0, len(files))
	for path := range files {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	var all []byte
	for _, path := range paths {
		all = append(all, path...)
		all = append(all, 0)
		all = append(all, digest(files[path])...)
		all = append(all, '\n')
	}
	return digest(all)
}
