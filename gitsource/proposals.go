package gitsource

import (
	"container/heap"
	"context"
	"fmt"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// FetchCommit brings a commit that a reference of the repository leads to, as "refs/pull/7/head" may, beside the branch that is followed. It stays until the
// mirror is built anew; then Tree and others answer with ErrUnknownCommit, and it is to be fetched again. Errors are those of Fetch; BranchMissing: no reference
// leads to it any more.
func (m *Mirror) FetchCommit(ctx context.Context, commit string) error {
	return m.exclusively(ctx, func(ctx context.Context, token string, w *watch) error { return m.fetchCommit(ctx, commit, token, w) })
}

func (m *Mirror) fetchCommit(ctx context.Context, commit, token string, w *watch) error {
	if !plumbing.IsHash(commit) {
		return badSetting("%.64q is no commit's id", commit)
	}
	want := plumbing.NewHash(commit)
	m.mu.Lock()
	fetched := m.store != nil && m.broken == nil
	m.mu.Unlock()
	if !fetched {
		if _, err := m.fetch(ctx, token, w); err != nil {
			return err
		}
	}
	m.mu.Lock()
	s := m.store
	m.mu.Unlock()
	if s.has(want) {
		return nil
	}
	r, err := m.connect(ctx, token, w)
	if err != nil {
		return err
	}
	defer r.Close() // all that was wanted has come by then; how it ends is no matter
	if _, err := r.heads(ctx); err != nil {
		return err
	}
	switch found, err := r.leads(want); {
	case err != nil:
		return err
	case !found:
		return &choice{fmt.Sprintf("no branch or pull request is at %.10s any more", commit)}
	}
	return m.add(ctx, r, s, want)
}

// MergeBase is the newest commit that two others have in common: what a merge compares with. "" when they have none, or none within the first 10,000 commits
// that are looked at.
func (m *Mirror) MergeBase(one, other string) (string, error) {
	s, a, err := m.find(one)
	if err != nil {
		return "", err
	}
	_, b, err := m.find(other)
	if err != nil {
		return "", err
	}
	f := forks{store: s, of: map[hash]side{}}
	f.push(a, ofOne)
	f.push(b, ofOther)
	for reads := 0; f.open() && reads < deepest; reads++ {
		c := heap.Pop(&f.queue).(*object.Commit)
		has := f.of[c.Hash]
		if has == ofBoth && !slices.ContainsFunc(f.common, func(o *object.Commit) bool { return o.Hash == c.Hash }) {
			f.common = append(f.common, c)
		}
		if has&ofBoth == ofBoth {
			has |= below
		}
		for _, parent := range c.ParentHashes {
			if !s.has(parent) { // the source may be a shallow clone
				continue
			}
			p, err := s.commit(parent)
			if err != nil {
				return "", err
			}
			f.push(p, has)
		}
	}
	for _, c := range f.common {
		if f.of[c.Hash]&below == 0 {
			return c.Hash.String(), nil
		}
	}
	return "", nil
}

// side says which of two commits have another behind them.
type side uint8

const (
	ofOne side = 1 << iota
	ofOther
	below  // it is behind a common one, so that there is a better one
	ofBoth = ofOne | ofOther
)

// forks goes back from two commits, the newest first, until all that is left is behind common ones.
type forks struct {
	store  *store
	queue  byTime
	of     map[hash]side
	common []*object.Commit
}

func (f *forks) push(c *object.Commit, has side) {
	was, seen := f.of[c.Hash]
	if seen && was|has == was {
		return
	}
	f.of[c.Hash] = was | has
	if !slices.ContainsFunc(f.queue, func(o *object.Commit) bool { return o.Hash == c.Hash }) {
		heap.Push(&f.queue, c)
	}
}

func (f *forks) open() bool {
	return slices.ContainsFunc(f.queue, func(c *object.Commit) bool { return f.of[c.Hash]&below == 0 })
}
