package github

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	gitobject "github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/revlist"
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
	if r.commits[sha] == nil && r.object(sha) != nil {
		r.commits[sha] = &commit{sha: sha, told: map[string]int{}}
	}
	return r.commits[sha]
}

// object is a commit that Git holds; nil: none.
func (r *repository) object(sha string) *gitobject.Commit {
	if !plumbing.IsHash(sha) {
		return nil
	}
	found, err := gitobject.GetCommit(r.objects(), plumbing.NewHash(sha))
	if err != nil {
		return nil
	}
	return found
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

// within reports whether a commit is among those before another, or the same.
func (r *repository) within(sha, of string) bool {
	ancestor, commit := r.object(sha), r.object(of)
	if ancestor == nil || commit == nil {
		return sha == of
	}
	is, err := ancestor.IsAncestor(commit)
	return err == nil && is
}

// keepHead makes the head of a pull request a commit of the repository that it is for, as refs/pull/N/head; that of a fork comes with all that it needs.
func (g *GitHub) keepHead(r *repository, p *Pull) {
	from := g.find(p.Head.Repository)
	if from == nil || from.object(p.Head.SHA) == nil {
		return // of commits that a test made up nothing can be kept
	}
	head, to := plumbing.NewHash(p.Head.SHA), r.objects()
	err := copyObjects(to, from.objects(), head)
	if err == nil {
		err = to.SetReference(plumbing.NewHashReference(plumbing.ReferenceName(fmt.Sprintf("refs/pull/%d/head", p.Number)), head))
	}
	if err != nil {
		g.t.Errorf("keeping the head of pull request %d of %s: %v", p.Number, r.name, err)
	}
}

func copyObjects(to, from storage.Storer, head plumbing.Hash) error {
	if to.HasEncodedObject(head) == nil {
		return nil
	}
	needed, err := revlist.Objects(from, []plumbing.Hash{head}, nil)
	if err != nil {
		return err
	}
	for _, hash := range needed {
		if to.HasEncodedObject(hash) == nil {
			continue
		}
		one, err := from.EncodedObject(plumbing.AnyObject, hash)
		if err == nil {
			_, err = to.SetEncodedObject(one)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// encoder is a Git object that can be written.
type encoder interface {
	Encode(o plumbing.EncodedObject) error
}

// keep writes a Git object, unless it is there.
func keep(objects storage.Storer, e encoder) (plumbing.Hash, error) {
	o := objects.NewEncodedObject()
	if err := e.Encode(o); err != nil {
		return plumbing.ZeroHash, err
	}
	if objects.HasEncodedObject(o.Hash()) == nil {
		return o.Hash(), nil
	}
	return objects.SetEncodedObject(o)
}

// keepBlob writes the content of a file.
func keepBlob(objects storage.Storer, content string) (plumbing.Hash, error) {
	o := objects.NewEncodedObject()
	o.SetType(plumbing.BlobObject)
	w, err := o.Writer()
	if err != nil {
		return plumbing.ZeroHash, err
	}
	_, err = w.Write([]byte(content))
	if err := errors.Join(err, w.Close()); err != nil {
		return plumbing.ZeroHash, err
	}
	return objects.SetEncodedObject(o)
}

func createGitCommit(c *call) answer {
	r, refused := c.repository("write", "contents")
	if refused != nil {
		return *refused
	}
	type person struct {
		Name, Email string
		Date        *time.Time
	}
	var body struct {
		Message, Tree     string
		Parents           []string
		Author, Committer *person
	}
	if err := c.read(&body); err != nil {
		return invalidRequest(err)
	}
	objects := r.objects()
	made := gitobject.Commit{Message: body.Message, TreeHash: plumbing.NewHash(body.Tree)}
	if _, err := gitobject.GetTree(objects, made.TreeHash); err != nil {
		return refuse(http.StatusUnprocessableEntity, "Tree SHA does not exist")
	}
	for _, parent := range body.Parents {
		if r.object(parent) == nil {
			return refuse(http.StatusUnprocessableEntity, "Parent SHA does not exist or is not a commit object")
		}
		made.ParentHashes = append(made.ParentHashes, plumbing.NewHash(parent))
	}
	sign := func(p *person, otherwise gitobject.Signature) gitobject.Signature {
		if p == nil {
			return otherwise
		}
		s := gitobject.Signature{Name: p.Name, Email: p.Email, When: otherwise.When}
		if p.Date != nil {
			s.When = *p.Date
		}
		return s
	}
	made.Author = sign(body.Author, c.signature())
	made.Committer = sign(body.Committer, made.Author)
	hash, err := keep(objects, &made)
	if err != nil {
		return refuse(http.StatusConflict, err.Error())
	}
	return done(http.StatusCreated, c.g.gitCommit(r, hash.String()))
}

// signature is how who asks signs commits.
func (c *call) signature() gitobject.Signature {
	return gitobject.Signature{Name: c.account.login, Email: fmt.Sprintf("%d+%s@users.noreply.github.test", c.account.id, c.account.login), When: c.g.now().UTC().Truncate(time.Second)}
}

// gitCommit is how GitHub shows a commit that Git holds as an object.
func (g *GitHub) gitCommit(r *repository, sha string) object {
	held := r.object(sha)
	o := g.description.blank("git-commit", g.URL)
	maps.Copy(o, object{"sha": sha, "message": held.Message, "author": signed(held.Author), "committer": signed(held.Committer), "parents": g.parents(r, held),
		"url": g.address(r, "/git/commits/"+sha), "html_url": g.page(r, "/commit/"+sha),
		"tree": object{"sha": held.TreeHash.String(), "url": g.address(r, "/git/trees/"+held.TreeHash.String())}})
	return o
}

// shownCommit is how GitHub shows a commit to people. Of one that a test made up there is nothing to show.
func (g *GitHub) shownCommit(r *repository, sha string) object {
	o := g.description.blank("commit", g.URL)
	maps.Copy(o, object{"sha": sha, "url": g.address(r, "/commits/"+sha), "html_url": g.page(r, "/commit/"+sha)})
	if known := r.commits[sha]; known != nil && known.author != nil {
		o["author"] = known.author.user(g.URL)
	}
	if held := r.object(sha); held != nil {
		o["parents"] = g.parents(r, held)
		maps.Copy(o["commit"].(object), object{"message": held.Message, "author": signed(held.Author), "committer": signed(held.Committer),
			"tree": object{"sha": held.TreeHash.String(), "url": g.address(r, "/git/trees/"+held.TreeHash.String())}})
	}
	return o
}

// commitOfEvent is how events show a commit.
func (g *GitHub) commitOfEvent(r *repository, sha string) object {
	o := object{"id": sha, "tree_id": plumbing.ZeroHash.String(), "message": "", "timestamp": "2026-01-01T00:00:00Z", "author": object{"name": "", "email": nil}, "committer": object{"name": "", "email": nil}}
	if held := r.object(sha); held != nil {
		maps.Copy(o, object{"tree_id": held.TreeHash.String(), "message": held.Message, "timestamp": timestamp(held.Committer.When),
			"author":    object{"name": held.Author.Name, "email": held.Author.Email},
			"committer": object{"name": held.Committer.Name, "email": held.Committer.Email}})
	}
	return o
}

func (g *GitHub) parents(r *repository, held *gitobject.Commit) []object {
	shown := []object{}
	for _, hash := range held.ParentHashes {
		sha := hash.String()
		shown = append(shown, object{"sha": sha, "url": g.address(r, "/commits/"+sha), "html_url": g.page(r, "/commit/"+sha)})
	}
	return shown
}

func signed(s gitobject.Signature) object {
	return object{"name": s.Name, "email": s.Email, "date": timestamp(s.When)}
}
