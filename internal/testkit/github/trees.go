package github

import (
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	gitobject "github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage"
)

// planted is what a tree is to hold at a path; a hash of zero takes away what is there.
type planted struct {
	mode filemode.FileMode
	hash plumbing.Hash
}

// emptyTree is the tree that holds nothing; Git keeps no such folders.
var emptyTree = plumbing.NewHash("4b825dc642cb6eb9a060e54bf8d69288fbee4904")

// plant makes a tree of another, emptyTree for none, with what is to be at some paths.
func plant(objects storage.Storer, base plumbing.Hash, at map[string]planted) (plumbing.Hash, error) {
	entries := map[string]gitobject.TreeEntry{}
	if base != emptyTree {
		tree, err := gitobject.GetTree(objects, base)
		if err != nil {
			return base, err
		}
		for _, e := range tree.Entries {
			entries[e.Name] = e
		}
	}
	below := map[string]map[string]planted{}
	for path, p := range at {
		name, rest, deeper := strings.Cut(path, "/")
		_, there := entries[name]
		switch {
		case deeper && below[name] == nil:
			below[name] = map[string]planted{rest: p}
		case deeper:
			below[name][rest] = p
		case !p.hash.IsZero():
			entries[name] = gitobject.TreeEntry{Name: name, Mode: p.mode, Hash: p.hash}
		case there:
			delete(entries, name)
		default:
			return base, fmt.Errorf("nothing is at %s that could be taken away", path)
		}
	}
	for name, at := range below {
		folder := emptyTree
		if e, is := entries[name]; is && e.Mode == filemode.Dir {
			folder = e.Hash
		}
		hash, err := plant(objects, folder, at)
		if err != nil {
			return base, err
		}
		entries[name] = gitobject.TreeEntry{Name: name, Mode: filemode.Dir, Hash: hash}
		if hash == emptyTree {
			delete(entries, name)
		}
	}
	tree := gitobject.Tree{}
	for _, e := range entries {
		tree.Entries = append(tree.Entries, e)
	}
	sort.Sort(gitobject.TreeEntrySorter(tree.Entries))
	return keep(objects, &tree)
}

func createTree(c *call) answer {
	r, refused := c.repository("write", "contents")
	if refused != nil {
		return *refused
	}
	var body struct {
		Base string `json:"base_tree"`
		Tree []struct {
			Path, Mode, Type string
			SHA, Content     *string
		}
	}
	if err := c.read(&body); err != nil {
		return invalidRequest(err)
	}
	objects, base := r.objects(), emptyTree
	if body.Base != "" {
		tree := r.tree(body.Base)
		if tree == nil {
			return refuse(http.StatusNotFound, "Not Found")
		}
		base = tree.Hash
	}
	at := map[string]planted{}
	for _, e := range body.Tree {
		mode, err := filemode.New(e.Mode)
		path := strings.Split(e.Path, "/")
		switch {
		case err != nil, slices.Contains(path, ""), slices.Contains(path, "."), slices.Contains(path, ".."), slices.Contains(path, ".git"):
			return refuse(http.StatusUnprocessableEntity, fmt.Sprintf("tree.path %q or its mode %q is invalid", e.Path, e.Mode))
		case e.SHA != nil && e.Content != nil:
			return refuse(http.StatusUnprocessableEntity, "Must supply either a sha or content for a tree entry, not both")
		case strings.HasPrefix(e.Path, ".github/workflows/") && !c.may(r, "write", "workflows"):
			return refuse(http.StatusForbidden, "Resource not accessible by integration")
		}
		p := planted{mode: mode}
		switch {
		case e.Content != nil:
			if p.hash, err = keepBlob(objects, *e.Content); err != nil {
				return refuse(http.StatusConflict, err.Error())
			}
		case e.SHA != nil:
			p.hash = plumbing.NewHash(*e.SHA)
			if mode != filemode.Submodule && objects.HasEncodedObject(p.hash) != nil {
				return refuse(http.StatusUnprocessableEntity, "tree.sha "+*e.SHA+" is not a valid "+e.Type)
			}
		}
		at[e.Path] = p
	}
	hash, err := plant(objects, base, at)
	if err != nil {
		return refuse(http.StatusUnprocessableEntity, "GitRPC::BadObjectState: "+err.Error())
	}
	tree, err := gitobject.GetTree(objects, hash)
	if err != nil {
		return refuse(http.StatusConflict, err.Error())
	}
	return done(http.StatusCreated, c.g.tree(r, tree, false))
}

// tree is the one by its own hash, or that of a commit or a reference; nil: none.
func (r *repository) tree(name string) *gitobject.Tree {
	objects, hash := r.objects(), plumbing.NewHash(r.resolve(name))
	if tree, err := gitobject.GetTree(objects, hash); err == nil {
		return tree
	}
	commit, err := gitobject.GetCommit(objects, hash)
	if err != nil {
		return nil
	}
	tree, err := commit.Tree()
	if err != nil {
		return nil
	}
	return tree
}

func getTree(c *call) answer {
	r, refused := c.repository("read", "contents")
	if refused != nil {
		return *refused
	}
	tree := r.tree(c.vars["tree_sha"])
	if tree == nil {
		return notFound()
	}
	return done(http.StatusOK, c.g.tree(r, tree, c.request.URL.Query().Get("recursive") != ""))
}

// maxEntries is where GitHub ends a tree, and says so.
const maxEntries = 100_000

func (g *GitHub) tree(r *repository, tree *gitobject.Tree, recursive bool) object {
	shown, truncated := []object{}, false
	walk := gitobject.NewTreeWalker(tree, recursive, nil)
	defer walk.Close()
	for {
		path, e, err := walk.Next()
		if err != nil { // io.EOF: Git's own objects break only by a test's mistake
			break
		}
		if truncated = len(shown) == maxEntries; truncated {
			break
		}
		o := object{"path": path, "mode": fmt.Sprintf("%06o", uint32(e.Mode)), "sha": e.Hash.String(), "type": "blob", "url": g.address(r, "/git/blobs/"+e.Hash.String())}
		switch e.Mode {
		case filemode.Dir:
			o["type"], o["url"] = "tree", g.address(r, "/git/trees/"+e.Hash.String())
		case filemode.Submodule:
			o["type"] = "commit"
			delete(o, "url")
		default:
			o["size"], _ = r.objects().EncodedObjectSize(e.Hash)
		}
		shown = append(shown, o)
	}
	return object{"sha": tree.Hash.String(), "url": g.address(r, "/git/trees/"+tree.Hash.String()), "tree": shown, "truncated": truncated}
}
