package reconcile

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
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
	// Changed lists the paths that differ between two commits; false when the first is no longer there, so that nothing tells what differs.
	Changed(from, to string) (paths []string, known bool, err error)
	// Describe says who wrote a commit and its message.
	Describe(commit string) (author, message string, err error)
	// People is what approvals may call those who wrote or merged what is new since a commit: names and addresses. Where that one is no longer there, those
	// of the newer commit alone.
	People(from, to string) ([]string, error)
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
	Dirty(source string, tree fs.FS, changed []string) map[string][]string
	// Differing is Dirty where nothing tells what changed: each record of each render is held against the tree.
	Differing(source string, tree fs.FS) map[string][]string
	// Stale names those that are to be made anew whatever changed: a cluster is not what it was, or what failed may have passed.
	Stale(tenant, source string) map[string][]string
	// Some names a share of a source's renders by chance, one at least.
	Some(source string, share float64) map[string][]string
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
	// SourceProcessed records that each file of a commit is recorded, as the source's terms have it.
	SourceProcessed(ctx context.Context, tenant, source, commit, terms string) error
	Files(ctx context.Context, tenant, source string) ([]rollout.FileState, error)
	Renders(ctx context.Context, tenant, source string) ([]rollout.RenderRecord, error)
	// Record records what became known of one file, with all that follows from it, in one transaction.
	Record(ctx context.Context, record rollout.FileRecord) error
	// Owned names the applications that a file owns, whether it names them still or not.
	Owned(ctx context.Context, tenant, source, path string) ([]string, error)
	// Leave records that a file no longer names an application that it owns.
	Leave(ctx context.Context, l rollout.Leave) error
}

// Source is one configured repository.
type Source struct {
	Tenant, Name string
	Repository   Repository
	Reach        []policies.Reach
	Terms        string // a digest of what its settings say of files: which ones, and what they may touch. Under other terms each file is looked at anew
}

// Intake takes the commits of sources in: what changed, which files that touches, what they would do; and records it. Two calls for one source
// run one after the other.
type Intake struct {
	Store   sourceStore
	Planner *Planner
	Traces  traces
	Clock   func() time.Time
	Log     *logrus.Entry
	Rules   *Rulebook // nil: there are no rules
	// Observe, when set, is asked about each file before it is planned: a store that was lost knows less than the clusters do.
	Observe func(ctx context.Context, tenant string, file *deployment.File) (Sight, error)

	mu    sync.Mutex
	busy  map[string]*sync.Mutex
	turns chan struct{}
	files map[string]*recorded // by source
}

// Sight is what clusters tell of a file's application while a store that was lost is made anew.
type Sight struct {
	Observing bool     // false: the store knows all there is to know
	Away      []string // accounts whose clusters cannot be asked yet: the file waits for them
	Above     int      // the highest number of a deployment of the application that a cluster knows of
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
	release, ended := in.turn(ctx)
	if ended != nil {
		return ended
	}
	defer release()
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

// sourcesAtOnce is how many sources are taken in at a time. Fetches are not counted: they wait for others.
const sourcesAtOnce = 4

// turn waits until what was fetched may be taken in.
func (in *Intake) turn(ctx context.Context) (release func(), err error) {
	in.mu.Lock()
	if in.turns == nil {
		in.turns = make(chan struct{}, sourcesAtOnce)
	}
	turns := in.turns
	in.mu.Unlock()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	select {
	case turns <- struct{}{}:
		return func() { <-turns }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
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
	terms, err := in.terms(ctx, s)
	if err != nil {
		return err
	}
	c := &change{Intake: in, store: store, planner: &planner, source: s, commit: commit, known: known.files, dirty: map[string][]string{}, again: in.Traces.Stale(s.Tenant, s.Name)}
	done := state.Processed == commit && state.Terms == terms
	if done && len(c.again) == 0 {
		return nil
	}
	if c.tree, err = s.Repository.Tree(commit); err != nil {
		return err
	}
	if !done && in.Rules != nil { // before its files are held to them
		if err := in.Rules.Take(ctx, s.Tenant, s.Name, c.tree, commit); err != nil {
			return err
		}
		if terms, err = in.terms(ctx, s); err != nil {
			return err
		}
	}
	c.source.Terms = terms
	if err := c.describe(state.Processed); err != nil {
		return err
	}
	if !done {
		if err := c.find(state); err != nil {
			return err
		}
	}
	c.renew()
	if err := c.record(ctx); err != nil || done {
		return err
	}
	if len(c.unseen) > 0 {
		in.Log.WithFields(logrus.Fields{"source": s.Name, "commit": commit, "files": len(c.unseen)}).Info("files wait to be compared until the agents of their clusters connect")
		return nil
	}
	if err := store.SourceProcessed(ctx, s.Tenant, s.Name, commit, terms); err != nil {
		return err
	}
	known.at = commit
	in.Log.WithFields(logrus.Fields{"source": s.Name, "commit": commit, "files": len(c.dirty) + len(c.gone), "renders": spent.renders.Load(),
		"took": in.Clock().Sub(began).Seconds(), "rendering": inSeconds(&spent.rendering), "storing": inSeconds(&spent.storing)}).Info("a commit was taken in")
	return nil
}

// terms is what a source's files are looked at under: its settings, and the rules in force.
func (in *Intake) terms(ctx context.Context, s Source) (string, error) {
	if in.Rules == nil {
		return s.Terms, nil
	}
	held, err := in.Rules.Terms(ctx, s.Tenant, s.Name)
	if held == "" {
		return s.Terms, err
	}
	return digest([]byte(s.Terms + held)), err
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
	people          []string // who wrote or merged what is new
	tree            fs.FS
	known           map[string]rollout.FileState
	dirty           map[string][]string // path of a file → targets to be rendered anew; nil: all of them
	again           map[string][]string // those that the commit does not touch, and that are rendered anew all the same
	gone            []string            // recorded files that the commit no longer has, or that the source no longer watches
	anew            bool                // each file is looked at, also those that the commit does not touch
	reason          string              // why those are

	mu      sync.Mutex          // of what follows and of known, while files are recorded
	unseen  []string            // files that wait for clusters to be seen
	renamed []rollout.FileState // files that are accepted and may own an application that they no longer name, as they were
}

// describe finds who made the change since a commit, and what they said.
func (c *change) describe(since string) (err error) {
	if c.author, c.message, err = c.source.Repository.Describe(c.commit); err != nil {
		return err
	}
	c.people, err = c.source.Repository.People(since, c.commit)
	return err
}

// find finds the files that are to be looked at: those that the commit touches, or all, where nothing tells what it touches or the source's terms are new.
func (c *change) find(state rollout.SourceState) error {
	paths, known, err := []string(nil), state.Processed != "" && state.Terms == c.source.Terms, error(nil)
	if known {
		if paths, known, err = c.source.Repository.Changed(state.Processed, c.commit); err != nil {
			return err
		}
	}
	if known {
		c.touched(paths)
	} else if err := c.everything(state.Processed == c.commit); err != nil {
		return err
	}
	slices.Sort(c.gone)
	c.free()
	return nil
}

// touched finds the files that a commit touches: those that changed themselves, and those with a render that read what changed.
func (c *change) touched(changed []string) {
	c.dirty = c.Traces.Dirty(c.source.Name, c.tree, changed)
	for _, path := range changed {
		_, recorded := c.known[path]
		switch matches := c.source.Repository.Matches(path); {
		case matches && c.has(path):
			c.dirty[path] = nil
		case recorded:
			c.gone = append(c.gone, path)
			delete(c.dirty, path)
		}
	}
}

// everything has each file of the commit looked at. Rendered anew is what the records of its render do not show to be as it was.
func (c *change) everything(same bool) error {
	paths, err := c.source.Repository.Files(c.tree)
	if err != nil {
		return err
	}
	c.anew = true
	if same {
		c.reason = "looked at anew: the settings of source " + c.source.Name + " changed, or the rules that its files are held to"
	}
	differing := c.Traces.Differing(c.source.Name, c.tree)
	for _, path := range paths {
		state, recorded := c.known[path]
		if !recorded || !c.reads(state) {
			c.dirty[path] = nil
		} else {
			c.dirty[path] = append([]string{}, differing[path]...)
		}
	}
	for path := range c.known {
		if _, found := slices.BinarySearch(paths, path); !found {
			c.gone = append(c.gone, path)
		}
	}
	return nil
}

// has reports whether the commit has a file at a path.
func (c *change) has(path string) bool {
	info, err := fs.Stat(c.tree, path)
	return err == nil && info.Mode().IsRegular()
}

// reads reports whether a file still reads as it is recorded.
func (c *change) reads(state rollout.FileState) bool {
	text, err := fs.ReadFile(c.tree, state.Path)
	return err == nil && digest(text) == state.Digest
}

// free has files planned anew that were refused their application's name, and may have it now since the file that had it is gone, or names another.
func (c *change) free() {
	free := map[string]bool{} // applications
	for _, path := range c.gone {
		free[c.known[path].Application] = true
	}
	for path := range c.dirty {
		if state, recorded := c.known[path]; recorded && !c.names(path, state.Application) {
			free[state.Application] = true
		}
	}
	if len(free) == 0 {
		return
	}
	for path, state := range c.known {
		if free[state.Application] && rollout.HasErrors(state.Problems) && !slices.Contains(c.gone, path) {
			c.dirty[path] = nil
		}
	}
}

// names reports whether a file of the commit names an application. One that cannot be read may.
func (c *change) names(path, application string) bool {
	if !c.has(path) || !c.source.Repository.Matches(path) {
		return false
	}
	text, err := fs.ReadFile(c.tree, path)
	named := deployment.ApplicationOf(text)
	return err != nil || named == "" || named == application
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

// sideBySide is how many files are planned and recorded at once: renders have processes of their own, and records share commits.
const sideBySide = 8

// record goes through the touched files side by side, those of one application in the order of their paths: the first one has the name. Then through the
// files that name another application than before, and those that are gone: a file that moved has by then taken its application along.
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
	for _, file := range c.renamed {
		why := fmt.Sprintf("its file %s names application %s now", file.Path, c.known[file.Path].Application) + notPruned
		if err := c.leave(ctx, file, why); err != nil {
			return err
		}
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
	sight, err := c.see(ctx, f)
	if err != nil || len(sight.Away) > 0 {
		return err
	}
	stale := c.dirty[path]
	trigger := rollout.Trigger{Kind: "push", By: c.author, Title: firstLine(c.message), Reason: c.reason}
	if c.again[path] != nil {
		trigger.Reason = "rendered anew: the cluster's version or APIs changed, or what is not in the repository is there now"
	}
	plan, err := c.planner.plan(ctx, f.file, f.problems, Ask{Tenant: c.source.Tenant, Tree: c.tree, Text: text, Reach: c.source.Reach, Anew: c.anew, Moved: c.moved,
		Origin: rollout.Origin{Source: c.source.Name, Path: path, Commit: c.commit}, Trigger: trigger, Authors: c.people,
		Fresh: func(target string) (rollout.RenderRecord, bool) {
			if stale == nil || slices.Contains(stale, target) {
				return rollout.RenderRecord{}, false
			}
			return c.Traces.Recorded(c.source.Name, path, target)
		}})
	if err != nil {
		return err
	}
	if (c.again[path] != nil || was.Commit == c.commit) && plan.Failed() && slices.Equal(plan.Problems, was.Problems) {
		return nil // it failed as before, and was said
	}
	record := rollout.FileRecord{Tenant: c.source.Tenant, Source: c.source.Name, Path: path, Commit: c.commit, Digest: digest(text), Problems: plan.Problems,
		Renders: plan.Renders}
	if plan.File != nil {
		record.Application = plan.File.Application
	} else { // a file that breaks still belongs to its application
		record.Application = cmp.Or(deployment.ApplicationOf(text), was.Application)
	}
	if plan.Moves() {
		record.Start = plan.Start
		if sight.Observing {
			record.Start.Found(sight.Above)
		}
	} else {
		record.Stay = plan.Start
	}
	return c.save(ctx, record)
}

// see asks what clusters tell of a file's application. A file whose clusters cannot be asked is passed over for now.
func (c *change) see(ctx context.Context, f *touchedFile) (sight Sight, err error) {
	if c.Observe == nil || f.file == nil {
		return sight, nil
	}
	if sight, err = c.Observe(ctx, c.source.Tenant, f.file); err == nil && len(sight.Away) > 0 {
		c.mu.Lock()
		c.unseen = append(c.unseen, f.path)
		c.mu.Unlock()
	}
	return sight, err
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

// moved reports whether the file that owns an application is gone or names another with this commit, so that another of the source may take it on.
func (c *change) moved(owner rollout.Owner) bool {
	return owner.Source == c.source.Name && !c.names(owner.Path, owner.Application)
}

// deleted records that a file is gone, after what it owned has left it.
func (c *change) deleted(ctx context.Context, path string) error {
	state := c.known[path]
	why := "its file " + path + " is gone" + notPruned
	if c.has(path) { // nobody took it away, so nothing of it goes
		state.Prune, why = false, fmt.Sprintf("source %s no longer watches its file %s", c.source.Name, path)
	}
	if err := c.leave(ctx, state, why); err != nil {
		return err
	}
	return c.save(ctx, rollout.FileRecord{Tenant: c.source.Tenant, Source: c.source.Name, Path: path, Commit: c.commit, Application: state.Application, Deleted: true})
}

// leave lets go of the applications that a file owns. Another file that names one inherits it. Else what it deployed is orphaned, or goes if the file as it
// was last deployed said so.
func (c *change) leave(ctx context.Context, file rollout.FileState, why string) error {
	owned, err := c.store.Owned(ctx, c.source.Tenant, c.source.Name, file.Path)
	if err != nil {
		return err
	}
	for _, application := range owned {
		if now := c.known[file.Path]; now.Application == application && !slices.Contains(c.gone, file.Path) {
			continue // it names it
		}
		l := rollout.Leave{Tenant: c.source.Tenant, Source: c.source.Name, Path: file.Path, Application: application, Heir: c.heir(application, file.Path), Prune: file.Prune}
		if l.Heir == "" {
			if l.Start, err = c.ends(ctx, application, file, why); err != nil {
				return err
			}
		}
		if err := c.store.Leave(ctx, l); err != nil {
			return fmt.Errorf("%s: %w", file.Path, err)
		}
		if heir, inherits := c.known[l.Heir]; inherits {
			heir.Prune = file.Prune
			c.known[l.Heir] = heir
		}
	}
	return nil
}

// heir is the first file that names an application beside the one that leaves it; "" when none does.
func (c *change) heir(application, leaves string) string {
	for _, path := range slices.Sorted(maps.Keys(c.known)) {
		if path != leaves && c.known[path].Application == application && !slices.Contains(c.gone, path) {
			return path
		}
	}
	return ""
}

// ends is the deployment that takes an application's lanes down.
func (c *change) ends(ctx context.Context, application string, file rollout.FileState, why string) (*rollout.Start, error) {
	lanes, err := c.planner.Store.Lanes(ctx, c.source.Tenant, application)
	start := &rollout.Start{ID: c.planner.NewID(), Tenant: c.source.Tenant, Application: application, At: c.Clock().UTC(), Prune: file.Prune,
		Origin:  rollout.Origin{Source: c.source.Name, Path: file.Path, Commit: c.commit},
		Trigger: rollout.Trigger{Kind: "push", By: c.author, Title: firstLine(c.message)}}
	if err != nil {
		return nil, err
	}
	for _, lane := range lanes {
		if lane.Removed {
			continue
		}
		gone := rollout.Gone{Lane: lane.ID, Prune: file.Prune, Why: why}
		if file.Prune { // there is no file that could be refused, so what a rule wants to stay stays
			findings, err := c.planner.removal(ctx, c.source.Tenant, application, lane)
			if err != nil {
				return nil, err
			}
			if d := denied(findings); d != nil {
				gone.Prune, gone.Why = false, why+"; but "+d.Sentence()
			}
		}
		start.Gone = append(start.Gone, gone)
	}
	return start, nil
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
	if asks := record.Asks(); asks != nil {
		state.Prune = asks.Prune
	}
	was, recorded := c.known[record.Path]
	if recorded && record.Asks() != nil && (was.Application != record.Application || rollout.HasErrors(was.Problems)) {
		c.renamed = append(c.renamed, was)
	}
	c.known[record.Path] = state
	return c.Traces.Put(c.source.Name, record.Renders)
}

func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return "sha256:" + hex.EncodeToString(sum[:])
}
