package github

import (
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"
	gitobject "github.com/go-git/go-git/v5/plumbing/object"
)

// MergePull merges a pull request in Git as a person does, and returns the commit that the base stands at then. A test fails where the two do not go together.
func (g *GitHub) MergePull(name string, number int, login string) (sha string) {
	g.t.Helper()
	g.act(func() {
		r := g.find(name)
		p := r.pull(number)
		var err error
		if sha, err = g.merge(r, p, login); err != nil {
			g.t.Errorf("merging pull request %d of %s: %v", number, name, err)
			return
		}
		g.finish(r, p, r.at("refs/heads/"+p.Base.Ref), sha, g.person(login))
	})
	return sha
}

// finish makes the base of a pull request stand at the commit that merges it.
func (g *GitHub) finish(r *repository, p *Pull, was, sha string, by *account) {
	before, branch := *p, "refs/heads/"+p.Base.Ref
	if err := r.set(branch, sha); err != nil {
		g.t.Error(err)
	}
	p.Merged, p.MergedAs, p.MergedBy = true, sha, by.login
	g.settle(p, before)
	g.pullHappened(r, p, "closed", by, nil)
	g.pushed(r, branch, was, sha, by)
}

// merge makes the commit of a merge. It knows whole files only: what both sides changed does not go together.
func (g *GitHub) merge(r *repository, p *Pull, login string) (string, error) {
	base := r.object(r.at("refs/heads/" + p.Base.Ref))
	head := r.object(p.Head.SHA)
	if base == nil || head == nil {
		return "", fmt.Errorf("Git does not hold both %s and %s", p.Base.Ref, p.Head.SHA)
	}
	s := span{base.Hash.String(), p.Head.SHA}
	theirs := map[string]bool{}
	for _, f := range r.differences(span{s.head, s.base}) {
		theirs[f.Name], theirs[f.Previous] = true, true
	}
	tree, err := head.Tree()
	if err != nil {
		return "", err
	}
	at := map[string]planted{}
	for _, f := range r.differences(s) {
		if theirs[f.Name] {
			return "", fmt.Errorf("both sides changed %s", f.Name)
		}
		switch e, err := tree.FindEntry(f.Name); {
		case err == nil:
			at[f.Name] = planted{e.Mode, e.Hash}
		case f.Status == "removed":
			at[f.Name] = planted{}
		default:
			return "", err
		}
		if f.Previous != "" {
			at[f.Previous] = planted{}
		}
	}
	objects := r.objects()
	hash, err := plant(objects, base.TreeHash, at)
	if err != nil {
		return "", err
	}
	by := gitobject.Signature{Name: login, Email: login + "@users.noreply.github.test", When: g.now().UTC()}
	made, err := keep(objects, &gitobject.Commit{Author: by, Committer: by, Message: fmt.Sprintf("Merge pull request #%d from %s\n\n%s", p.Number, p.Head.Ref, p.Title), TreeHash: hash,
		ParentHashes: []plumbing.Hash{base.Hash, head.Hash}})
	return made.String(), err
}
