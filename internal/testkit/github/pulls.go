package github

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Pull is a pull request.
type Pull struct {
	Number      int // 0: the next one
	Title, Body string
	Author      string // "": octocat
	Head, Base  Tip
	HeadGone    bool // the repository of the head was deleted
	Draft       bool
	Closed      bool
	Merged      bool
	MergedAs    string // the commit on the base
	MergedBy    string // "": nobody that GitHub tells of
	Conflicts   bool
	Commits     []string // oldest first; nil: those that Git holds between base and head, or the head alone
	Files       []File   // nil: those that Git holds differences of
	Reviews     []Review

	id                                 int64
	created, updated, closedAt, merged time.Time
}

// Tip is one end of a pull request.
type Tip struct {
	Repository string // "OWNER/NAME"; "": the one of the pull request itself
	Ref        string // the branch; "": main
	SHA        string // "": where the branch stands
}

// OpenPull opens a pull request as its author does, and returns its number.
func (g *GitHub) OpenPull(repository string, p Pull) (number int) {
	g.act(func() {
		r := g.find(repository)
		g.open(r, &p)
		g.pullHappened(r, &p, "opened", g.person(p.Author), nil)
	})
	return p.Number
}

// open gives a pull request what it does not say of itself.
func (g *GitHub) open(r *repository, p *Pull) {
	if p.Number == 0 {
		p.Number = r.numbers + 1
	}
	r.numbers = max(r.numbers, p.Number)
	p.id, p.created, p.updated = g.id(), g.now(), g.now()
	if p.Author == "" {
		p.Author = "octocat"
	}
	for _, tip := range []*Tip{&p.Head, &p.Base} {
		if tip.Repository == "" {
			tip.Repository = r.name
		}
		if tip.Ref == "" {
			tip.Ref = "main"
		}
		if in := g.find(tip.Repository); tip.SHA == "" && in != nil {
			tip.SHA = in.at("refs/heads/" + tip.Ref)
		}
	}
	r.pulls = append(r.pulls, p)
	g.keepHead(r, p)
}

// ChangePull changes a pull request as a person does it; action is what GitHub calls the change: synchronize, closed, reopened, ready_for_review, edited,
// enqueued, dequeued.
func (g *GitHub) ChangePull(repository string, number int, action string, change func(*Pull)) {
	g.act(func() {
		r := g.find(repository)
		p := r.pull(number)
		before := *p
		change(p)
		g.settle(p, before)
		g.keepHead(r, p)
		g.pullHappened(r, p, action, g.person(p.Author), changes(before, *p))
	})
}

// settle keeps when a change was made.
func (g *GitHub) settle(p *Pull, before Pull) {
	p.updated = g.now()
	p.Closed = p.Closed || p.Merged
	switch {
	case p.Closed && !before.Closed:
		p.closedAt = p.updated
	case !p.Closed:
		p.closedAt = time.Time{}
	}
	if p.Merged && !before.Merged {
		p.merged = p.updated
	}
}

// changes are what an event says of a change beside what is now.
func changes(before, now Pull) object {
	said := object{}
	if before.Head.SHA != now.Head.SHA {
		said["before"], said["after"] = before.Head.SHA, now.Head.SHA
	}
	edits := object{}
	if before.Title != now.Title {
		edits["title"] = object{"from": before.Title}
	}
	if before.Body != now.Body {
		edits["body"] = object{"from": before.Body}
	}
	if before.Base != now.Base {
		edits["base"] = object{"ref": object{"from": before.Base.Ref}, "sha": object{"from": before.Base.SHA}}
	}
	if len(edits) > 0 {
		said["changes"] = edits
	}
	return said
}

func (g *GitHub) pullHappened(r *repository, p *Pull, action string, by *account, more object) {
	said := object{"action": action, "number": p.Number, "pull_request": g.pull(r, p)}
	maps.Copy(said, more)
	g.happened(r, nil, "pull_request", by, said)
}

// Pull is a pull request as it stands.
func (g *GitHub) Pull(repository string, number int) Pull {
	g.mu.Lock()
	defer g.mu.Unlock()
	return *g.find(repository).pull(number)
}

// Pulls are all pull requests of a repository as they stand, oldest first.
func (g *GitHub) Pulls(repository string) (all []Pull) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range g.find(repository).pulls {
		all = append(all, *p)
	}
	return all
}

func (r *repository) pull(number int) *Pull {
	for _, p := range r.pulls {
		if p.Number == number {
			return p
		}
	}
	return nil
}

// pullOf is the pull request that the path names, if who asks may do with it what they are about to do.
func (c *call) pullOf(level string) (*repository, *Pull, *answer) {
	r, refused := c.repository(level, "pull_requests")
	if refused != nil {
		return nil, nil, refused
	}
	p := r.pull(int(c.number("pull_number")))
	if p == nil {
		a := notFound()
		return nil, nil, &a
	}
	return r, p, nil
}

func getPull(c *call) answer {
	r, p, refused := c.pullOf("read")
	if refused != nil {
		return *refused
	}
	return done(http.StatusOK, c.g.pull(r, p))
}

func listPulls(c *call) answer {
	r, refused := c.repository("read", "pull_requests")
	if refused != nil {
		return *refused
	}
	query := c.request.URL.Query()
	state, head, base := query.Get("state"), query.Get("head"), query.Get("base")
	var found []*Pull
	for _, p := range r.pulls {
		owner, _, _ := strings.Cut(p.Head.Repository, "/")
		switch {
		case state != "all" && p.Closed != (state == "closed"):
		case strings.Contains(head, ":") && !strings.EqualFold(head, owner+":"+p.Head.Ref): // GitHub passes over one without an owner
		case base != "" && base != p.Base.Ref:
		default:
			found = append(found, p)
		}
	}
	when := func(p *Pull) time.Time { return p.created }
	if query.Get("sort") == "updated" {
		when = func(p *Pull) time.Time { return p.updated }
	}
	slices.SortStableFunc(found, func(a, b *Pull) int { return when(a).Compare(when(b)) })
	if direction := query.Get("direction"); direction == "desc" || direction == "" && (query.Get("sort") == "" || query.Get("sort") == "created") {
		slices.Reverse(found)
	}
	return list(c, found, func(p *Pull) object { return c.g.pullShort(r, p) })
}

func listPullsOfCommit(c *call) answer {
	r, refused := c.repository("read", "pull_requests")
	if refused != nil {
		return *refused
	}
	sha := c.vars["commit_sha"]
	if r.commit(sha) == nil {
		return refuse(http.StatusUnprocessableEntity, "No commit found for SHA: "+sha)
	}
	var found []*Pull
	for _, p := range r.pulls {
		if p.Head.SHA == sha || p.MergedAs == sha || slices.Contains(r.commitsOf(p), sha) {
			found = append(found, p)
		}
	}
	return list(c, found, func(p *Pull) object { return c.g.pullShort(r, p) })
}

func createPull(c *call) answer {
	r, refused := c.repository("write", "pull_requests")
	if refused != nil {
		return *refused
	}
	var body struct {
		Title, Body, Head, Base string
		Draft                   bool
	}
	if err := c.read(&body); err != nil {
		return invalidRequest(err)
	}
	p := &Pull{Title: body.Title, Body: body.Body, Author: c.account.login, Draft: body.Draft, Head: Tip{Repository: r.name, Ref: body.Head}, Base: Tip{Repository: r.name, Ref: body.Base}}
	if owner, branch, is := strings.Cut(body.Head, ":"); is {
		p.Head = Tip{Repository: c.g.fork(r, owner), Ref: branch}
	}
	if in := c.g.find(p.Head.Repository); in != nil {
		p.Head.SHA = in.at("refs/heads/" + p.Head.Ref)
	}
	p.Base.SHA = r.at("refs/heads/" + p.Base.Ref)
	switch {
	case body.Title == "":
		return invalidField("PullRequest", "title", "title can't be blank")
	case p.Head.SHA == "":
		return invalidField("PullRequest", "head", "head is invalid")
	case p.Base.SHA == "":
		return invalidField("PullRequest", "base", "base is invalid")
	case p.Head.SHA == p.Base.SHA:
		return invalidField("PullRequest", "head", fmt.Sprintf("No commits between %s and %s", p.Base.Ref, p.Head.Ref))
	}
	for _, other := range r.pulls {
		if !other.Closed && other.Head.Repository == p.Head.Repository && other.Head.Ref == p.Head.Ref && other.Base.Ref == p.Base.Ref {
			owner, _, _ := strings.Cut(p.Head.Repository, "/")
			return invalidField("PullRequest", "head", fmt.Sprintf("A pull request already exists for %s:%s.", owner, p.Head.Ref))
		}
	}
	c.g.open(r, p)
	c.g.pullHappened(r, p, "opened", c.account, nil)
	return done(http.StatusCreated, c.g.pull(r, p))
}

// fork is the repository of an owner by the name that a repository has.
func (g *GitHub) fork(r *repository, owner string) string {
	_, name, _ := strings.Cut(r.name, "/")
	return owner + "/" + name
}

func updatePull(c *call) answer {
	r, p, refused := c.pullOf("write")
	if refused != nil {
		return *refused
	}
	var body struct{ Title, Body, State, Base *string }
	if err := c.read(&body); err != nil {
		return invalidRequest(err)
	}
	before := *p
	if body.Base != nil {
		to := Tip{Repository: r.name, Ref: *body.Base, SHA: r.at("refs/heads/" + *body.Base)}
		if to.SHA == "" {
			return invalidField("PullRequest", "base", "Proposed base branch '"+to.Ref+"' was not found")
		}
		p.Base = to
	}
	if body.Title != nil {
		p.Title = *body.Title
	}
	if body.Body != nil {
		p.Body = *body.Body
	}
	if body.State != nil {
		if p.Merged && *body.State == "open" {
			return invalidField("PullRequest", "state", "state cannot be changed. The pull request has been merged.")
		}
		p.Closed = *body.State == "closed"
	}
	c.g.settle(p, before)
	said := changes(before, *p)
	switch {
	case p.Closed && !before.Closed:
		c.g.pullHappened(r, p, "closed", c.account, nil)
	case !p.Closed && before.Closed:
		c.g.pullHappened(r, p, "reopened", c.account, nil)
	}
	if len(said) > 0 {
		c.g.pullHappened(r, p, "edited", c.account, said)
	}
	return done(http.StatusOK, c.g.pull(r, p))
}

// pull is how GitHub shows a pull request by itself.
func (g *GitHub) pull(r *repository, p *Pull) object {
	o := g.description.blank("pull-request", g.URL)
	files, commits := r.filesOf(p), r.commitsOf(p)
	additions, deletions := 0, 0
	for _, f := range files {
		additions, deletions = additions+f.Additions, deletions+f.Deletions
	}
	maps.Copy(o, g.pullShort(r, p))
	state := "clean"
	if p.Conflicts {
		state = "dirty"
	}
	if p.MergedBy != "" {
		o["merged_by"] = g.person(p.MergedBy).user(g.URL)
	}
	maps.Copy(o, object{"merged": p.Merged, "mergeable": !p.Conflicts, "mergeable_state": state, "additions": additions, "deletions": deletions, "changed_files": len(files),
		"commits": len(commits), "comments": len(r.commentsOf(p.Number))})
	return o
}

// pullShort is how GitHub shows a pull request in a list.
func (g *GitHub) pullShort(r *repository, p *Pull) object {
	o := g.description.blank("pull-request-simple", g.URL)
	state := "open"
	if p.Closed {
		state = "closed"
	}
	url := g.address(r, fmt.Sprint("/pulls/", p.Number))
	head := g.tip(p.Head)
	if p.HeadGone {
		head["repo"], head["user"] = nil, nil
	}
	maps.Copy(o, object{"id": p.id, "node_id": fmt.Sprintf("PR_%d", p.id), "number": p.Number, "title": p.Title, "body": nullable(p.Body), "user": g.person(p.Author).user(g.URL), "state": state,
		"draft": p.Draft, "assignees": []any{}, "requested_reviewers": []any{}, "requested_teams": []any{}, "active_lock_reason": nil, "head": head, "base": g.tip(p.Base), "created_at": timestamp(p.created), "updated_at": timestamp(p.updated), "closed_at": timestamp(p.closedAt),
		"merged_at": timestamp(p.merged), "merge_commit_sha": nullable(p.MergedAs), "url": url, "html_url": g.page(r, fmt.Sprint("/pull/", p.Number)),
		"issue_url": g.address(r, fmt.Sprint("/issues/", p.Number))})
	return o
}

func (g *GitHub) tip(t Tip) object {
	r := g.find(t.Repository)
	owner, _, _ := strings.Cut(r.name, "/")
	return object{"label": owner + ":" + t.Ref, "ref": t.Ref, "sha": t.SHA, "repo": g.repository(r), "user": g.owner(owner).user(g.URL)}
}

// page is where people see something of a repository.
func (g *GitHub) page(r *repository, path string) string {
	return "https://github.test/" + r.name + path
}
