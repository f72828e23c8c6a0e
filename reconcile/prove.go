package reconcile

import (
	"context"
	"io/fs"
	"slices"

	"towpath/deployment"
	"towpath/reconcile/rollout"
)

// Proof is what came of holding recorded renders against the files that they were made of.
type Proof struct {
	Rendered int     // renders that were made from nothing to be compared
	Wrong    []Doubt // what should never be
}

// Doubt is a target whose recorded render is not what its files come to.
type Doubt struct{ Path, Target, Why string }

// Prove holds what is recorded of a source at the commit that was last taken in against the files of that commit: what each render depended on must be there
// as it was seen, and a share of them, made again from nothing, must come to the same. What does not was missed when it changed: its target is planned anew.
func (in *Intake) Prove(ctx context.Context, s Source, share float64) (Proof, error) {
	state, err := in.stands(ctx, s)
	if err != nil {
		return Proof{}, err
	}
	if s.Terms, err = in.terms(ctx, s); err != nil || state.Processed == "" || state.Terms != s.Terms {
		return Proof{}, err // what was never taken in whole is looked at whole by the next fetch
	}
	tree, err := s.Repository.Tree(state.Processed)
	if err != nil {
		return Proof{}, err
	}
	made, err := in.again(ctx, s, tree, in.Traces.Some(s.Name, share))
	proof := Proof{Rendered: len(made)}
	if err != nil {
		return proof, err
	}

	defer in.hold(s.Name)()
	release, err := in.turn(ctx)
	if err != nil {
		return proof, err
	}
	defer release()
	now, err := in.Store.Source(ctx, s.Tenant, s.Name)
	if err != nil || now != state {
		return proof, err // another commit was taken in meanwhile
	}
	known, err := in.known(ctx, in.Store, s, state.Processed)
	if err != nil {
		return proof, err
	}
	c := &change{Intake: in, store: in.Store, planner: in.Planner, source: s, commit: state.Processed, tree: tree, known: known.files, dirty: map[string][]string{},
		reason: "planned anew: what was recorded was not what its files come to"}
	if err := c.describe(c.commit); err != nil {
		return proof, err
	}
	proof.Wrong = c.doubts(made)
	for _, d := range proof.Wrong {
		c.dirty[d.Path] = append(c.dirty[d.Path], d.Target)
	}
	return proof, c.record(ctx)
}

// stands is how far a source is taken in, with what is recorded of it at hand.
func (in *Intake) stands(ctx context.Context, s Source) (rollout.SourceState, error) {
	defer in.hold(s.Name)()
	state, err := in.Store.Source(ctx, s.Tenant, s.Name)
	if err == nil && state.Processed != "" {
		_, err = in.known(ctx, in.Store, s, state.Processed)
	}
	return state, err
}

// again renders targets from nothing.
func (in *Intake) again(ctx context.Context, s Source, tree fs.FS, targets map[string][]string) ([]rollout.RenderRecord, error) {
	var made []rollout.RenderRecord
	for path, names := range targets {
		text, err := fs.ReadFile(tree, path)
		if err != nil {
			continue // the check of what it depended on says so
		}
		file, _ := deployment.Parse(path, text)
		for _, name := range names {
			if file == nil || !slices.ContainsFunc(file.Chosen(), func(t deployment.Target) bool { return t.Name == name }) {
				continue
			}
			record, err := in.Planner.Renders.Render(ctx, RenderRequest{Tree: tree, File: file, Text: text, Target: name, Source: s.Name, Tenant: s.Tenant, Masked: true})
			if err != nil {
				return made, err
			}
			record.Path, record.Target = path, name
			made = append(made, record)
		}
	}
	return made, nil
}

// doubts lists what is recorded wrongly. What a file had rendered before it was refused is not, nor what is made anew with the next fetch.
func (c *change) doubts(made []rollout.RenderRecord) []Doubt {
	stale := c.Traces.Stale(c.source.Tenant, c.source.Name)
	var doubts []Doubt
	doubt := func(path, target, why string) {
		state, known := c.known[path]
		if known && !rollout.HasErrors(state.Problems) && !slices.Contains(stale[path], target) && c.chooses(path, target) {
			doubts = append(doubts, Doubt{path, target, why})
		}
	}
	for path, targets := range c.Traces.Differing(c.source.Name, c.tree) {
		for _, target := range targets {
			doubt(path, target, "what it depends on is not as it was seen, and no commit said so")
		}
	}
	for _, m := range made {
		recorded, found := c.Traces.Recorded(c.source.Name, m.Path, m.Target)
		if found && recorded.Manifests == m.Manifests || slices.ContainsFunc(doubts, func(d Doubt) bool { return d.Path == m.Path && d.Target == m.Target }) {
			continue
		}
		doubt(m.Path, m.Target, "rendered from nothing it comes to "+what(m.Manifests)+", and "+what(recorded.Manifests)+" is recorded")
	}
	return doubts
}

// chooses reports whether a file of the commit deploys a target: renders of targets that it had once are recorded still.
func (c *change) chooses(path, target string) bool {
	text, err := fs.ReadFile(c.tree, path)
	if err != nil {
		return true // it should be there
	}
	file, _ := deployment.Parse(path, text)
	return file != nil && slices.ContainsFunc(file.Chosen(), func(t deployment.Target) bool { return t.Name == target })
}

// what is a set of manifests in a sentence.
func what(manifests string) string {
	if manifests == "" {
		return "an error"
	}
	return manifests
}
