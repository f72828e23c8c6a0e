package github

import (
	"net/http"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// Branch makes a branch of a repository stand at a commit, without telling anybody.
func (g *GitHub) Branch(repository, branch, sha string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.find(repository).set("refs/heads/"+branch, sha); err != nil {
		g.t.Error(err)
	}
}

// Push tells what a person pushed to a branch: pull requests of it get the new head. before or after "": the branch is new, or gone.
func (g *GitHub) Push(repository, branch, before, after, login string) {
	g.act(func() { g.pushed(g.find(repository), "refs/heads/"+branch, before, after, g.person(login)) })
}

func (r *repository) set(name, sha string) error {
	return r.objects().SetReference(plumbing.NewHashReference(plumbing.ReferenceName(name), plumbing.NewHash(sha)))
}

func (r *repository) remove(name string) error {
	return r.objects().RemoveReference(plumbing.ReferenceName(name))
}

// pushed is what follows when a reference moves.
func (g *GitHub) pushed(r *repository, name, before, after string, by *account) {
	none := plumbing.ZeroHash.String()
	said := object{"ref": name, "before": before, "after": after, "created": before == "", "deleted": after == "", "forced": before != "" && after != "" && !r.within(before, after),
		"base_ref": nil, "compare": g.page(r, "/compare"), "commits": []object{}, "head_commit": nil, "pusher": object{"name": by.login, "email": by.login + "@users.noreply.github.test"}}
	if before == "" {
		said["before"] = none
	}
	if after == "" {
		said["after"] = none
	}
	g.happened(r, nil, "push", by, said)
	branch, is := strings.CutPrefix(name, "refs/heads/")
	if !is {
		return
	}
	for _, of := range g.repositories {
		for _, p := range of.pulls {
			if p.Closed || p.HeadGone || g.find(p.Head.Repository) != r || p.Head.Ref != branch {
				continue
			}
			was := *p
			if after == "" {
				p.Closed = true
				g.settle(p, was)
				g.pullHappened(of, p, "closed", by, nil)
				continue
			}
			p.Head.SHA = after
			g.settle(p, was)
			g.keepHead(of, p)
			g.pullHappened(of, p, "synchronize", by, changes(was, *p))
		}
	}
}

func createRef(c *call) answer {
	r, refused := c.repository("write", "contents")
	if refused != nil {
		return *refused
	}
	var body struct{ Ref, SHA string }
	if err := c.read(&body); err != nil {
		return invalidRequest(err)
	}
	switch {
	case !strings.HasPrefix(body.Ref, "refs/") || strings.Count(body.Ref, "/") < 2 || plumbing.ReferenceName(body.Ref).Validate() != nil:
		return refuse(http.StatusUnprocessableEntity, "Reference name is not valid: "+body.Ref)
	case r.at(body.Ref) != "":
		return refuse(http.StatusUnprocessableEntity, "Reference already exists")
	case r.object(body.SHA) == nil:
		return refuse(http.StatusUnprocessableEntity, "Object does not exist")
	}
	return c.move(r, http.StatusCreated, body.Ref, "", body.SHA)
}

func getRef(c *call) answer {
	r, refused := c.repository("read", "contents")
	if refused != nil {
		return *refused
	}
	name := "refs/" + c.vars["ref"]
	sha := r.at(name)
	if sha == "" {
		return notFound()
	}
	return done(http.StatusOK, c.g.ref(r, name, sha))
}

func updateRef(c *call) answer {
	r, refused := c.repository("write", "contents")
	if refused != nil {
		return *refused
	}
	var body struct {
		SHA   string
		Force bool
	}
	if err := c.read(&body); err != nil {
		return invalidRequest(err)
	}
	name := "refs/" + c.vars["ref"]
	before := r.at(name)
	switch {
	case before == "":
		return refuse(http.StatusUnprocessableEntity, "Reference does not exist")
	case r.object(body.SHA) == nil:
		return refuse(http.StatusUnprocessableEntity, "Object does not exist")
	case !body.Force && !r.within(before, body.SHA):
		return refuse(http.StatusUnprocessableEntity, "Update is not a fast forward")
	}
	return c.move(r, http.StatusOK, name, before, body.SHA)
}

func deleteRef(c *call) answer {
	r, refused := c.repository("write", "contents")
	if refused != nil {
		return *refused
	}
	name := "refs/" + c.vars["ref"]
	before := r.at(name)
	if before == "" {
		return refuse(http.StatusUnprocessableEntity, "Reference does not exist")
	}
	if err := r.remove(name); err != nil {
		return refuse(http.StatusConflict, err.Error())
	}
	c.g.pushed(r, name, before, "", c.account)
	return done(http.StatusNoContent, nil)
}

// move makes a reference stand at a commit, and answers with it.
func (c *call) move(r *repository, status int, name, before, after string) answer {
	if err := r.set(name, after); err != nil {
		return refuse(http.StatusConflict, err.Error())
	}
	c.g.pushed(r, name, before, after, c.account)
	return done(status, c.g.ref(r, name, after))
}

func (g *GitHub) ref(r *repository, name, sha string) object {
	return object{"ref": name, "node_id": "REF_" + name, "url": g.address(r, "/git/"+name), "object": object{"sha": sha, "type": "commit", "url": g.address(r, "/git/commits/"+sha)}}
}
