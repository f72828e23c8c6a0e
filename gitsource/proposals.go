package gitsource

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/go-git/go-git/v5/plumbing/object"
)

// FetchRef brings the commit that a full name of the repository leads to, "refs/pull/7/head" for example, beside the branch that is followed. It stays until
// the mirror is built anew; then Tree and others answer with ErrUnknownCommit, and it is to be fetched again. Errors are those of Fetch.
func (m *Mirror) FetchRef(ctx context.Context, name string) (commit string, err error) {
	err = m.exclusively(ctx, func(ctx context.Context, token string, w *watch) (err error) {
		commit, err = m.fetchRef(ctx, name, token, w)
		return err
	})
	if err != nil {
		return "", err
	}
	return commit, nil
}

func (m *Mirror) fetchRef(ctx context.Context, name, token string, w *watch) (string, error) {
	m.mu.Lock()
	fetched := m.store != nil && m.broken == nil
	m.mu.Unlock()
	if !fetched {
		if _, err := m.fetch(ctx, token, w); err != nil {
			return "", err
		}
	}
	m.mu.Lock()
	s := m.store
	m.mu.Unlock()
	r, err := m.connect(ctx, token, w)
	if err != nil {
		return "", err
	}
	defer r.Close() // all that was wanted has come by then; how it ends is no matter
	if _, err := r.heads(ctx); err != nil {
		return "", err
	}
	want, found := r.reference(name)
	switch {
	case !found:
		return "", &choice{fmt.Sprintf("there is no %s; it may have been deleted since", plain(errors.New(name)))}
	case !s.has(want):
		if err := m.add(ctx, r, s, want); err != nil {
			return "", err
		}
	}
	return want.String(), nil
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
