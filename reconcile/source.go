package reconcile

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"towpath/deployment"
	"towpath/policies"
	"towpath/reconcile/rollout"
)

// Repository is one watched branch of one repository.
type Repository interface {
	// Fetch brings what is new and returns the branch's commit.
	Fetch(ctx context.Context) (head string, err error)
	// Tree is the files of a commit.
	Tree(commit string) (fs.FS, error)
	// Changed lists the paths that differ between two commits; every path of the second when the first is "" or no longer there.
	Changed(from, to string) ([]string, error)
	// Describe says who wrote a commit and its message.
	Describe(commit string) (author, message string, err error)
	// Files lists the paths of deployment files of a commit, sorted.
	Files(tree fs.FS) ([]string, error)
	// Matches reports whether a path is that of a deployment file.
	Matches(path string) bool
}

// traces knows which renders depend on which paths. Safe for concurrent use.
type traces interface {
	// Load takes in a source's recorded renders.
	Load(source string, records []rollout.RenderRecord) error
	// Dirty names the renders of a source that may differ in tree, given the paths that changed: path of the file → targets.
	Dirty(source string, tree fs.FS, changed []string) (map[string][]string, error)
	// Stale names those that are to be made anew whatever changed: a cluster is not what it was, or what failed may have passed.
	Stale(tenant, source string) map[string][]string
	// Recorded is the render of a target as it was recorded, without its objects.
	Recorded(source, path, target string) (rollout.RenderRecord, bool)
	// Put takes in renders that were recorded; Drop forgets those of a file.
	Put(source string, records []rollout.RenderRecord) error
	Drop(source, path string)
}

// sourceStore is what taking in commits needs of the store.
type sourceStore interface {
	Source(ctx context.Context, tenant, source string) (rollout.SourceState, error)
	// SourceSeen records what a fetch came to: a head, or why it failed.
	SourceSeen(ctx context.Context, tenant, source, head string, failed error) error
	// SourceProcessed records that each file of a commit is recorded.
	SourceProcessed(ctx context.Context, tenant, source, commit string) error
	Files(ctx context.Context, tenant, source string) ([]rollout.FileState, error)
	Renders(ctx context.Context, tenant, source string) ([]rollout.RenderRecord, error)
	// Record records what became known of one file, with all that follows from it, in one transaction.
	Record(ctx context.Context, record rollout.FileRecord) error
}

// Source is one configured repository.
type Source struct {
	Tenant, Name string
	Repository   Repository
	Reach        []policies.Reach
}

// Intake takes the commits of sources in: what changed, which files that touches, what they would do; and records it. Two calls for one source
// run one after the other.
type Intake struct {
	Store   sourceStore
	Planner *Planner
	Traces  traces
	Clock   func() time.Time
	Log     *logrus.Entry

	mu    sync.Mutex
	busy  map[string]*sync.Mutex
	files map[string]*recorded // by source
}

// recorded is a source's files, by path, as they are recorded up to a commit.
type recorded struct {
	at    string
	files map[string]rollout.FileState
}

// Sync fetches a source and takes in what is new. A failed fetch is recorded and returned; nothing that runs is touched by it.
func (in *Intake) Sync(ctx context.Context, s Source) error {
	defer in.hold(s.Name)()
	head, err := s.Repository.Fetch(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := in.Store.SourceSeen(ctx, s.Tenant, s.Name, head, err); err != nil {
		return fmt.Errorf("source %s: %w", s.Name, err)
	}
	if err != nil {
		return fmt.Errorf("source %s: %w", s.Name, err)
	}
	if err := in.take(ctx, s, head); err != nil {
		return fmt.Errorf("source %s: commit %s: %w", s.Name, head, err)
	}
	return nil
}

// hold makes calls for one source take turns.
func (in *Intake) hold(source string) (release func()) {
	in.mu.Lock()
	if in.busy == nil {
		in.busy, in.files = map[string]*sync.Mutex{}, map[string]*recorded{}
	}
	turn := in.busy[source]
	if turn == nil {
		turn = &sync.Mutex{}
		in.busy[source] = turn
	}
	in.mu.Unlock()
	turn.Lock()
	return turn.Unlock
}

// take records each file that a commit touches, then the commit.
func (in *Intake) take(ctx context.Context, s Source, commit string) error {
	began, spent := in.Clock(), &spent{}
	store, planner := timedSourceStore{in.Store, spent}, *in.Planner
	planner.Store, planner.Renders = timedPlanStore{planner.Store, spent}, timedRenders{planner.Renders, spent}
	state, err := store.Source(ctx, s.Tenant, s.Name)
	if err != nil || commit == "" {
		return err
	}
	known, err := in.known(ctx, store, s, state.Processed)
	if err != nil {
		return err
	}
	c := &change{Intake: in, store: store, planner: &planner, source: s, commit: commit, known: known.files, dirty: map[string][]string{}, again: in.Traces.Stale(s.Tenant, s.Name)}
	if state.Processed == commit && len(c.again) == 0 {
		return nil
	}
	if c.tree, err = s.Repository.Tree(commit); err != nil {
		return err
	}
	if c.author, c.message, err = s.Repository.Describe(commit); err != nil {
		return err
	}
	if state.Processed != commit {
		changed, err := s.Repository.Changed(state.Processed, commit)
		if err != nil {
			return err
		}
		if err := c.touched(state.Processed == "", changed); err != nil {
			return err
		}
	}
	c.renew()
	if err := c.record(ctx); err != nil || state.Processed == commit {
		return err
	}
	if err := store.SourceProcessed(ctx, s.Tenant, s.Name, commit); err != nil {
		return err
	}
	known.at = commit
	in.Log.WithFields(logrus.Fields{"source": s.Name, "commit": commit, "files": len(c.dirty) + len(c.gone), "renders": spent.renders.Load(),
		"took": in.Clock().Sub(began).Seconds(), "rendering": inSeconds(&spent.rendering), "storing": inSeconds(&spent.storing)}).Info("a commit was taken in")
	return nil
}

// known is the recorded files of a source. They are loaded, with the traces of their renders, at first and when another process took a commit in.
func (in *Intake) known(ctx context.Context, store sourceStore, s Source, at string) (*recorded, error) {
	in.mu.Lock()
	known := in.files[s.Name]
	in.mu.Unlock()
	if known != nil && known.at == at {
		return known, nil
	}
	states, err := store.Files(ctx, s.Tenant, s.Name)
	if err != nil {
		return nil, err
	}
	known = &recorded{at, make(map[string]rollout.FileState, len(states))}
	for _, state := range states {
		known.files[state.Path] = state
	}
	records, err := store.Renders(ctx, s.Tenant, s.Name)
	if err != nil {
		return nil, err
	}
	if err := in.Traces.Load(s.Name, records); err != nil {
		return nil, err
	}
	in.mu.Lock()
	in.files[s.Name] = known
	in.mu.Unlock()
	return known, nil
}

// change is one commit being taken in.
type change struct {
	*Intake
	store           sourceStore
	planner         *Planner
	source          Source
	commit          string
	author, message string
	tree            fs.FS
	known           map[string]rollout.FileState
	dirty           map[string][]string // path of a file → targets to be rendered anew; nil: all of them
	again           map[string][]string // those that the commit does not touch, and that are rendered anew all the same
	gone            []string            // recorded files that the commit no longer has

	mu sync.Mutex // of known, while files are recorded
}

// touched finds the files that the commit touches: those that changed themselves, and those with a render that read what changed.
func (c *change) touched(first bool, changed []string) error {
	if !first {
		dirty, err := c.Traces.Dirty(c.source.Name, c.tree, changed)
		if err != nil {
			return err
		}
		c.dirty = dirty
	}
	candidates := changed
	if first {
		var err error
		if candidates, err = c.source.Repository.Files(c.tree); err != nil {
			return err
		}
	}
	for _, path := range candidates {
		_, recorded := c.known[path]
		if !recorded && !c.source.Repository.Matches(path) {
			continue
		}
		if info, err := fs.Stat(c.tree, path); err == nil && info.Mode().IsRegular() && c.source.Repository.Matches(path) {
			c.dirty[path] = nil
		} else if recorded {
			c.gone = append(c.gone, path)
			delete(c.dirty, path)
		}
	}
	if first {
		for path := range c.known {
			if !slices.Contains(candidates, path) && !slices.Contains(c.gone, path) {
				c.gone = append(c.gone, path)
			}
		}
	}
	slices.Sort(c.gone)
	if len(c.gone) == 0 {
		return nil
	}
	for path, state := range c.known {
		if c.freed(state) {
			c.dirty[path] = nil
		}
	}
	return nil
}

// renew adds what is to be rendered anew although the commit does not touch it.
func (c *change) renew() {
	for path, targets := range c.again {
		already, touched := c.dirty[path]
		switch {
		case slices.Contains(c.gone, path), touched && already == nil:
			delete(c.again, path)
		case touched:
			c.dirty[path] = append(already, targets...)
			delete(c.again, path)
		default:
			c.dirty[path] = targets
		}
	}
}

// freed reports whether a file that was refused its application's name may have it now, since the file that had it is gone.
func (c *change) freed(state rollout.FileState) bool {
	return rollout.HasErrors(state.Problems) && !slices.Contains(c.gone, state.Path) && slices.ContainsFunc(c.gone, func(path string) bool {
		return c.known[path].Application == state.Application
	})
}

// sideBySide is how many files are planned and recorded at once: renders have processes of their own, and records share commits.
const sideBySide = 8

// record goes through the touched files side by side, those of one application in the order of their paths: the first one has the name. Then through the
// files that are gone: a file that moved has by then taken its application along.
func (c *change) record(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	lines := c.lines()
	next := make(chan []*touchedFile, len(lines))
	for _, line := range lines {
		next <- line
	}
	close(next)
	var working sync.WaitGroup
	for range min(sideBySide, len(lines)) {
		working.Go(func() {
			for line := range next {
				for _, f := range line {
					if ctx.Err() != nil {
						return
					}
					if err := c.file(ctx, f); err != nil {
						cancel(err)
						return
					}
				}
			}
		})
	}
	working.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, path := range c.gone {
		if err := c.deleted(ctx, path); err != nil {
			return err
		}
	}
	return nil
}

// touchedFile is a file as the commit has it.
type touchedFile struct {
	path     string
	text     []byte
	err      error            // it could not be read
	file     *deployment.File // nil: it is none
	problems []deployment.Problem
}

// lines is the touched files in the order of their paths; those that name the same application are one line.
func (c *change) lines() [][]*touchedFile {
	paths := slices.Sorted(maps.Keys(c.dirty))
	var lines [][]*touchedFile
	of := map[string]int{} // application → its line
	for _, path := range paths {
		f := &touchedFile{path: path}
		if f.text, f.err = fs.ReadFile(c.tree, path); f.err == nil {
			f.file, f.problems = deployment.Parse(path, f.text)
		}
		if f.file == nil || f.file.Application == "" {
			lines = append(lines, []*touchedFile{f})
			continue
		}
		at, known := of[f.file.Application]
		if !known {
			at = len(lines)
			lines, of[f.file.Application] = append(lines, nil), at
		}
		lines[at] = append(lines[at], f)
	}
	return lines
}

func (c *change) file(ctx context.Context, f *touchedFile) error {
	path, text := f.path, f.text
	if f.err != nil {
		return c.save(ctx, c.broken(path, f.err))
	}
	was, known := c.was(path)
	if !known && deployment.Identify(text) != deployment.DeploymentFile {
		c.Log.WithFields(logrus.Fields{"source": c.source.Name, "path": path}).Info("passed over: it has neither targets nor application, so it is no deployment file")
		return nil
	}
	stale := c.dirty[path]
	trigger := rollout.Trigger{Kind: "push", By: c.author, Title: firstLine(c.message)}
	if c.again[path] != nil {
		trigger.Reason = "rendered anew: the cluster's version or APIs changed, or a chart could be fetched now"
	}
	plan, err := c.planner.plan(ctx, f.file, f.problems, Ask{Tenant: c.source.Tenant, Tree: c.tree, Text: text, Reach: c.source.Reach, Moved: c.moved,
		Origin: rollout.Origin{Source: c.source.Name, Path: path, Commit: c.commit}, Trigger: trigger,
		Fresh: func(target string) (rollout.RenderRecord, bool) {
			if stale == nil || slices.Contains(stale, target) {
				return rollout.RenderRecord{}, false
			}
			return c.Traces.Recorded(c.source.Name, path, target)
		}})
	if err != nil {
		return err
	}
	if c.again[path] != nil && plan.Failed() && slices.Equal(plan.Problems, was.Problems) {
		return nil // it failed as before, and was said
	}
	record := rollout.FileRecord{Tenant: c.source.Tenant, Source: c.source.Name, Path: path, Commit: c.commit, Digest: digest(text), Problems: plan.Problems,
		Renders: plan.Renders}
	if plan.File != nil {
		record.Application = plan.File.Application
	} else { // a file that breaks still belongs to its application
		record.Application = cmp.Or(deployment.ApplicationOf(text), was.Application)
	}
	switch {
	case plan.Moves():
		record.Start = plan.Start
	case plan.Start != nil:
		record.Stay = plan.Start.Targets
	}
	return c.save(ctx, record)
}

// was is a file as it is recorded; false when it is not.
func (c *change) was(path string) (rollout.FileState, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	state, known := c.known[path]
	return state, known
}

func (c *change) broken(path string, err error) rollout.FileRecord {
	return rollout.FileRecord{Tenant: c.source.Tenant, Source: c.source.Name, Path: path, Commit: c.commit,
		Problems: []deployment.Problem{{File: path, Line: 1, Column: 1, Severity: deployment.Error, Text: strings.TrimPrefix(err.Error(), "read "+path+": ")}}}
}

// moved reports whether the file that owns an application is gone with this commit, so that another of the source may take it on.
func (c *change) moved(owner rollout.Owner) bool {
	if owner.Source != c.source.Name {
		return false
	}
	_, err := fs.Stat(c.tree, owner.Path)
	return errors.Is(err, fs.ErrNotExist)
}

// deleted records that a file is gone: what it deployed is orphaned, or goes if the file as it last was said so.
func (c *change) deleted(ctx context.Context, path string) error {
	state := c.known[path]
	record := rollout.FileRecord{Tenant: c.source.Tenant, Source: c.source.Name, Path: path, Commit: c.commit, Application: state.Application, Deleted: true}
	owner, err := c.planner.Store.Owner(ctx, c.source.Tenant, state.Application)
	if err != nil {
		return err
	}
	if owner.Source == c.source.Name && owner.Path == path && !owner.Removed {
		lanes, err := c.planner.Store.Lanes(ctx, c.source.Tenant, state.Application)
		if err != nil {
			return err
		}
		start := &rollout.Start{ID: c.planner.NewID(), Tenant: c.source.Tenant, Application: state.Application, At: c.Clock().UTC(), Prune: state.Prune,
			Origin:  rollout.Origin{Source: c.source.Name, Path: path, Commit: c.commit},
			Trigger: rollout.Trigger{Kind: "push", By: c.author, Title: firstLine(c.message)}}
		for _, lane := range lanes {
			if !lane.Removed {
				start.Gone = append(start.Gone, rollout.Gone{Lane: lane.ID, Prune: state.Prune})
			}
		}
		record.Start = start
	}
	return c.save(ctx, record)
}

// save records a file and keeps what is in memory equal to what is recorded.
func (c *change) save(ctx context.Context, record rollout.FileRecord) error {
	if err := c.store.Record(ctx, record); err != nil {
		return fmt.Errorf("%s: %w", record.Path, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if record.Deleted {
		c.Traces.Drop(c.source.Name, record.Path)
		delete(c.known, record.Path)
		return nil
	}
	state := rollout.FileState{Path: record.Path, Application: record.Application, Digest: record.Digest, Commit: c.commit, Problems: record.Problems, Prune: c.known[record.Path].Prune}
	if record.Start != nil {
		state.Prune = record.Start.Prune
	}
	c.known[record.Path] = state
	return c.Traces.Put(c.source.Name, record.Renders)
}

func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return "sha256:" + hex.EncodeToString(sum[:])
}
