package reconcile

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"towpath/deployment"
	"towpath/policies"
	"towpath/policies/rules"
	"towpath/reconcile/rollout"
)

// ruleStore keeps policy files, so that all replicas hold files to the same rules, also while the repository is away.
type ruleStore interface {
	PolicyFiles(ctx context.Context, tenant, source string) (rollout.PolicyFiles, error)
	PolicyDigest(ctx context.Context, tenant, source string) (string, error)
	RecordPolicyFiles(ctx context.Context, tenant, source string, p rollout.PolicyFiles) error
}

// RuleSource is where rules come from: the watched branch of a source, or a file on this machine.
type RuleSource struct {
	Tenant, Source string     // "": Rules of a file
	Rules          rules.Set  // of a file
	Digest         string     // of a file
	For            []string   // patterns of tenants; empty: all
	Paths          []string   // of the policy files in the source, for messages
	Find           FindPolicy // of a source
}

// FindPolicy lists the paths of policy files of a commit, sorted.
type FindPolicy func(tree fs.FS) ([]string, error)

// Rulebook knows which rules are in force. What cannot be read changes nothing: the rules before stay. Safe for concurrent use.
type Rulebook struct {
	Store ruleStore
	// Changed is told when rules of a source came into force.
	Changed func()

	mu       sync.Mutex
	sources  []RuleSource
	compiled map[[2]string]compiledRules // by tenant and source
}

type compiledRules struct {
	digest string
	set    rules.Set
}

// Use takes rules from these sources from now on.
func (b *Rulebook) Use(sources []RuleSource) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sources, b.compiled = sources, map[[2]string]compiledRules{}
}

// InForce is the rules that files of a tenant are held to. A Refusal says that those of a source are not known yet: until they are, nothing is judged, and
// nothing that would have to be is deployed.
func (b *Rulebook) InForce(ctx context.Context, tenant string) (rules.Set, error) {
	var sets []rules.Set
	b.mu.Lock()
	sources := b.sources
	b.mu.Unlock()
	for _, s := range sources {
		if !s.holds(tenant) {
			continue
		}
		if s.Source == "" {
			sets = append(sets, s.Rules)
			continue
		}
		set, err := b.known(ctx, s)
		if err != nil {
			return rules.Set{}, err
		}
		sets = append(sets, set)
	}
	return rules.Join(sets...), nil
}

// known is the rules of a source, compiled.
func (b *Rulebook) known(ctx context.Context, s RuleSource) (rules.Set, error) {
	digest, err := b.Store.PolicyDigest(ctx, s.Tenant, s.Source)
	if err != nil {
		return rules.Set{}, err
	}
	if digest == "" {
		return rules.Set{}, rollout.Refuse(rollout.Conflicts, "the rules of source %s, which files are held to before they are deployed, are not known yet: no commit of it with good policy files (%s) was taken in; `towpath source list` says why",
			s.Source, strings.Join(s.Paths, ", "))
	}
	key := [2]string{s.Tenant, s.Source}
	b.mu.Lock()
	kept := b.compiled[key]
	b.mu.Unlock()
	if kept.digest == digest {
		return kept.set, nil
	}
	stored, err := b.Store.PolicyFiles(ctx, s.Tenant, s.Source)
	if err != nil {
		return rules.Set{}, err
	}
	set, problems := s.compile(stored.Files)
	if len(problems) > 0 { // another version took them in
		return set, rollout.Refuse(rollout.Conflicts, "the rules of source %s that are in force cannot be read by this version of the controller: %s:%d: %s", s.Source, problems[0].File, problems[0].Line, problems[0].Text)
	}
	b.keep(key, compiledRules{stored.Digest, set})
	return set, nil
}

func (b *Rulebook) keep(key [2]string, c compiledRules) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.compiled[key] = c
}

func (s RuleSource) compile(files map[string]string) (rules.Set, []deployment.Problem) {
	var all []rules.File
	for _, name := range slices.Sorted(maps.Keys(files)) {
		all = append(all, rules.File{Path: name, Source: "source " + s.Source, Text: []byte(files[name])})
	}
	return rules.Parse(all)
}

// Terms is a digest of what files of a source are held to, and of where rules lie in it; "": nothing. Files are looked at anew under others: what was refused
// may pass, and policy files may be others.
func (b *Rulebook) Terms(ctx context.Context, tenant, source string) (string, error) {
	b.mu.Lock()
	sources := b.sources
	b.mu.Unlock()
	var all []string
	for _, s := range sources {
		if s.is(tenant, source) {
			all = append(all, s.Paths...)
		}
		switch {
		case !s.holds(tenant):
		case s.Source == "":
			all = append(all, s.Digest)
		default:
			known, err := b.Store.PolicyDigest(ctx, s.Tenant, s.Source)
			if err != nil {
				return "", err
			}
			all = append(all, known)
		}
	}
	if len(all) == 0 {
		return "", nil
	}
	return digest([]byte(strings.Join(all, "\n"))), nil
}

// is reports whether it is a source of a tenant.
func (s RuleSource) is(tenant, source string) bool { return s.Source == source && s.Tenant == tenant }

// holds reports whether files of a tenant are held to its rules.
func (s RuleSource) holds(tenant string) bool { return len(s.For) == 0 || policies.Fits(s.For, tenant) }

// Take takes in the policy files of a source's commit, if rules come from it. With any mistake in any of them, and without a single one, the rules before stay in force.
func (b *Rulebook) Take(ctx context.Context, tenant, source string, tree fs.FS, commit string) error {
	b.mu.Lock()
	i := slices.IndexFunc(b.sources, func(s RuleSource) bool { return s.is(tenant, source) })
	var s RuleSource
	if i >= 0 {
		s = b.sources[i]
	}
	b.mu.Unlock()
	if i < 0 {
		return nil
	}
	files, problems, err := s.read(tree)
	if err != nil {
		return err
	}
	p, err := b.Store.PolicyFiles(ctx, tenant, source)
	if err != nil {
		return err
	}
	before := p.Digest
	set := rules.Set{}
	if len(problems) == 0 {
		set, problems = s.compile(files)
	}
	if p.Seen, p.Problems = commit, problems; len(problems) == 0 {
		p.Commit, p.Files, p.Digest = commit, files, filesDigest(files)
	}
	if err := b.Store.RecordPolicyFiles(ctx, tenant, source, p); err != nil {
		return err
	}
	if p.Digest == before {
		return nil
	}
	b.keep([2]string{tenant, source}, compiledRules{p.Digest, set})
	if b.Changed != nil {
		b.Changed()
	}
	return nil
}

// Problems is what is wrong with the newest policy files of a source that rules come from.
func (b *Rulebook) Problems(ctx context.Context, tenant, source string) ([]deployment.Problem, error) {
	b.mu.Lock()
	asked := slices.ContainsFunc(b.sources, func(s RuleSource) bool { return s.is(tenant, source) })
	b.mu.Unlock()
	if !asked {
		return nil, nil
	}
	p, err := b.Store.PolicyFiles(ctx, tenant, source)
	return p.Problems, err
}

// read reads the policy files of a tree. Tests of them lie beside them.
func (s RuleSource) read(tree fs.FS) (files map[string]string, problems []deployment.Problem, err error) {
	found, err := s.Find(tree)
	if err != nil {
		return nil, nil, err
	}
	fail := func(file, text string) {
		problems = append(problems, deployment.Problem{File: file, Line: 1, Column: 1, Severity: deployment.Error, Text: text})
	}
	files = map[string]string{}
	for _, name := range found {
		if rules.IsTest(path.Base(name)) {
			continue
		}
		text, err := fs.ReadFile(tree, name)
		if err != nil {
			fail(name, strings.TrimPrefix(err.Error(), "read "+name+": "))
			continue
		}
		files[name] = string(text)
	}
	if len(files) == 0 && len(problems) == 0 {
		fail(strings.Join(s.Paths, ", "), fmt.Sprintf("source %s has no such policy file; the rules before stay in force. To lift them, take the entry out of policies in the controller's configuration", s.Source))
	}
	return files, problems, nil
}

func filesDigest(files map[string]string) string {
	var all strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(&all, "%s\x00%s\n", name, digest([]byte(files[name])))
	}
	return digest([]byte(all.String()))
}
