package github

import (
	"strings"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	gitobject "github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

// Git gives a repository the branches and commits of a bare repository on disk, which requests read and change from then on.
func (g *GitHub) Git(repository, dir string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	// Opened anew each time: what others write into it meanwhile counts too.
	g.find(repository).objects = func() storage.Storer { return filesystem.NewStorage(osfs.New(dir), cache.NewObjectLRUDefault()) }
}

// commit is one that a test said is there, or that Git holds; nil: none.
func (r *repository) commit(sha string) *commit {
	if r.commits[sha] == nil && plumbing.IsHash(sha) {
		if _, err := gitobject.GetCommit(r.objects(), plumbing.NewHash(sha)); err == nil {
			r.commits[sha] = &commit{sha: sha, told: map[string]int{}}
		}
	}
	return r.commits[sha]
}

// resolve is the commit that a branch, tag or other reference stands for; what is none stays as it is.
func (r *repository) resolve(ref string) string {
	if r.commits[ref] != nil {
		return ref
	}
	for _, name := range []string{"refs/heads/" + ref, "refs/tags/" + ref, "refs/" + strings.TrimPrefix(ref, "refs/")} {
		if sha := r.at(name); sha != "" {
			return sha
		}
	}
	return ref
}

// at is where a reference by its whole name points to; "": there is none.
func (r *repository) at(name string) string {
	found, err := r.objects().Reference(plumbing.ReferenceName(name))
	if err != nil {
		return ""
	}
	return found.Hash().String()
}

// behind reports whether a commit lacks what is on the default branch.
func (r *repository) behind(sha string) bool {
	objects := r.objects()
	main, err := gitobject.GetCommit(objects, plumbing.NewHash(r.at("refs/heads/main")))
	if err != nil {
		return false // nothing is known of it
	}
	of, err := gitobject.GetCommit(objects, plumbing.NewHash(sha))
	if err != nil {
		return false
	}
	within, err := main.IsAncestor(of)
	return err == nil && !within
}
