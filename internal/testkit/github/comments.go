package github

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Comment is one below a pull request.
type Comment struct {
	ID               int64
	Pull             int
	Author, Body     string
	Created, Updated time.Time
	Minimized        string // why it is hidden: OUTDATED, RESOLVED, …; "": it is not
	Reactions        []Reaction

	app *app // that wrote it
}

const maxComment = 65536 // characters

// Comment writes a comment as a person does, and returns its id.
func (g *GitHub) Comment(repository string, pull int, author, body string) (id int64) {
	g.act(func() {
		r := g.find(repository)
		id = g.comment(r, pull, g.person(author), nil, body).ID
	})
	return id
}

func (g *GitHub) comment(r *repository, pull int, by *account, app *app, body string) *Comment {
	made := &Comment{ID: g.id(), Pull: pull, Author: by.login, Body: body, Created: g.now(), Updated: g.now(), app: app}
	r.comments = append(r.comments, made)
	g.commentHappened(r, made, "created", by, nil)
	return made
}

// EditComment changes a comment as a person does, whoever wrote it.
func (g *GitHub) EditComment(repository string, id int64, by, body string) {
	g.act(func() {
		r := g.find(repository)
		g.edit(r, r.comment(id), g.person(by), body)
	})
}

func (g *GitHub) edit(r *repository, changed *Comment, by *account, body string) {
	before := changed.Body
	changed.Body, changed.Updated = body, g.now()
	g.commentHappened(r, changed, "edited", by, object{"changes": object{"body": object{"from": before}}})
}

// DeleteComment takes a comment away as a person does, whoever wrote it.
func (g *GitHub) DeleteComment(repository string, id int64, by string) {
	g.act(func() {
		r := g.find(repository)
		g.remove(r, r.comment(id), g.person(by))
	})
}

func (g *GitHub) remove(r *repository, gone *Comment, by *account) {
	r.comments = slices.DeleteFunc(r.comments, func(c *Comment) bool { return c == gone })
	g.commentHappened(r, gone, "deleted", by, nil)
}

func (g *GitHub) commentHappened(r *repository, of *Comment, action string, by *account, more object) {
	said := object{"action": action, "comment": g.shownComment(r, of), "issue": g.issue(r, of.Pull)}
	maps.Copy(said, more)
	g.happened(r, nil, "issue_comment", by, said)
}

// Comments are those of a pull request as they stand, oldest first.
func (g *GitHub) Comments(repository string, pull int) (all []Comment) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.find(repository).commentsOf(pull) {
		shown := *c
		shown.Reactions = slices.Clone(c.Reactions)
		all = append(all, shown)
	}
	return all
}

func (r *repository) commentsOf(pull int) (all []*Comment) {
	for _, c := range r.comments {
		if c.Pull == pull {
			all = append(all, c)
		}
	}
	return all
}

func (r *repository) comment(id int64) *Comment {
	for _, c := range r.comments {
		if c.ID == id {
			return c
		}
	}
	return nil
}

// conversation is the repository that the path names, if who asks may read or write what is said on its pull requests.
func (c *call) conversation(level string) (*repository, *answer) {
	return c.repository(level, "pull_requests", "issues")
}

// commentOf is the comment that the path names.
func (c *call) commentOf(level string) (*repository, *Comment, *answer) {
	r, refused := c.conversation(level)
	if refused != nil {
		return nil, nil, refused
	}
	found := r.comment(c.number("comment_id"))
	if found == nil {
		a := notFound()
		return nil, nil, &a
	}
	return r, found, nil
}

// commentText takes the text of a comment from the body.
func (c *call) commentText() (string, *answer) {
	var body struct{ Body string }
	var refused answer
	switch err := c.read(&body); {
	case err != nil:
		refused = invalidRequest(err)
	case strings.TrimSpace(body.Body) == "":
		refused = invalidField("IssueComment", "body", "body cannot be blank")
	case utf8.RuneCountInString(body.Body) > maxComment:
		refused = invalidField("IssueComment", "body", fmt.Sprintf("body is too long (maximum is %d characters)", maxComment))
	default:
		return body.Body, nil
	}
	return "", &refused
}

func createComment(c *call) answer {
	r, refused := c.conversation("write")
	if refused != nil {
		return *refused
	}
	pull := int(c.number("issue_number"))
	if r.pull(pull) == nil {
		return notFound()
	}
	text, refused := c.commentText()
	if refused != nil {
		return *refused
	}
	made := c.g.comment(r, pull, c.account, c.behind(), text)
	return done(http.StatusCreated, c.g.shownComment(r, made))
}

func getComment(c *call) answer {
	r, found, refused := c.commentOf("read")
	if refused != nil {
		return *refused
	}
	return done(http.StatusOK, c.g.shownComment(r, found))
}

func updateComment(c *call) answer {
	r, found, refused := c.commentOf("write")
	if refused != nil {
		return *refused
	}
	text, refused := c.commentText()
	if refused != nil {
		return *refused
	}
	c.g.edit(r, found, c.account, text)
	return done(http.StatusOK, c.g.shownComment(r, found))
}

func deleteComment(c *call) answer {
	r, found, refused := c.commentOf("write")
	if refused != nil {
		return *refused
	}
	c.g.remove(r, found, c.account)
	return done(http.StatusNoContent, nil)
}

func listComments(c *call) answer {
	r, refused := c.conversation("read")
	if refused != nil {
		return *refused
	}
	pull := int(c.number("issue_number"))
	if r.pull(pull) == nil {
		return notFound()
	}
	return list(c, c.since(r.commentsOf(pull)), func(one *Comment) object { return c.g.shownComment(r, one) })
}

func listAllComments(c *call) answer {
	r, refused := c.conversation("read")
	if refused != nil {
		return *refused
	}
	found := c.since(r.comments)
	query := c.request.URL.Query()
	if query.Get("sort") == "updated" {
		slices.SortStableFunc(found, func(a, b *Comment) int { return a.Updated.Compare(b.Updated) })
	}
	if query.Get("sort") != "" && query.Get("direction") == "desc" { // GitHub passes over a direction without a sort
		slices.Reverse(found)
	}
	return list(c, found, func(one *Comment) object { return c.g.shownComment(r, one) })
}

// since leaves out comments that were last changed before the time that the query names.
func (c *call) since(all []*Comment) []*Comment {
	at, err := time.Parse(time.RFC3339, c.request.URL.Query().Get("since"))
	return slices.DeleteFunc(slices.Clone(all), func(one *Comment) bool { return err == nil && one.Updated.Before(at) })
}

// behind is the App that asks through its installation; nil: a person.
func (c *call) behind() *app {
	if c.issued == nil {
		return nil
	}
	return c.issued.installation.app
}

func (g *GitHub) shownComment(r *repository, c *Comment) object {
	o := object{"id": c.ID, "node_id": nodeOf(c), "body": c.Body, "user": g.person(c.Author).user(g.URL), "created_at": timestamp(c.Created), "updated_at": timestamp(c.Updated),
		"author_association": "NONE", "url": g.address(r, fmt.Sprint("/issues/comments/", c.ID)), "html_url": g.page(r, fmt.Sprintf("/pull/%d#issuecomment-%d", c.Pull, c.ID)),
		"issue_url": g.address(r, fmt.Sprint("/issues/", c.Pull)), "performed_via_github_app": nil}
	o["reactions"] = reactionsOf(g.address(r, fmt.Sprintf("/issues/comments/%d/reactions", c.ID)), c.Reactions)
	if c.Minimized != "" {
		o["minimized"] = object{"reason": reason(c)}
	}
	if c.app != nil {
		o["performed_via_github_app"] = g.integration(c.app)
	}
	return o
}

// nodeOf is what a comment is called in GraphQL.
func nodeOf(c *Comment) string { return fmt.Sprintf("IC_%d", c.ID) }

// issue is how an event shows a pull request as the issue that it is too.
func (g *GitHub) issue(r *repository, number int) object {
	p := r.pull(number)
	state := "open"
	if p.Closed {
		state = "closed"
	}
	url, page := g.address(r, fmt.Sprint("/pulls/", number)), g.page(r, fmt.Sprint("/pull/", number))
	address := g.address(r, fmt.Sprint("/issues/", number))
	return object{"id": p.id, "node_id": fmt.Sprintf("PR_%d", p.id), "number": number, "title": p.Title, "body": nullable(p.Body), "state": state, "locked": false, "draft": p.Draft,
		"user": g.person(p.Author).user(g.URL), "comments": len(r.commentsOf(number)), "labels": []any{}, "created_at": timestamp(p.created), "updated_at": timestamp(p.updated),
		"closed_at": timestamp(p.closedAt), "reactions": reactionsOf(address+"/reactions", nil), "assignee": nil, "assignees": []any{}, "milestone": nil, "active_lock_reason": nil,
		"labels_url": address + "/labels{/name}", "comments_url": address + "/comments", "events_url": address + "/events", "url": address, "html_url": page, "repository_url": g.address(r, ""), "author_association": "NONE",
		"pull_request": object{"url": url, "html_url": page, "diff_url": page + ".diff", "patch_url": page + ".patch", "merged_at": timestamp(p.merged)}}
}
