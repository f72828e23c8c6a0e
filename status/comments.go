package status

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/go-github/v60/github"

	"towpath/reconcile/rollout"
)

// Comment is the one that Towpath keeps below a pull request.
type Comment struct {
	Mark string // by which it is found again: what its first line begins with
	Body string // without that line
	must bool   // a person has to see it

	state string // tells what it says from what it said before
}

const (
	// maxComment leaves room below the 65,536 letters that GitHub takes.
	maxComment = 60000
	// maxCommentPages is how many pages of 100 comments are read: GitHub takes 2,500 comments of one pull request.
	maxCommentPages = 25
	markEnd         = " -->"
)

// mark is what the comment of a source below a pull request begins with.
func mark(source string, pull int) string {
	return fmt.Sprintf("<!-- towpath:sticky v1 source=%s pr=%d state=", source, pull)
}

func (c Comment) hash() string { return c.state }

func (c Comment) text() string { return c.Mark + c.state + markEnd + "\n" + c.Body }

func (c Comment) creates(shown rollout.Publication) bool { return shown.ID == 0 || shown.ID == deleted }

func (c Comment) put(ctx context.Context, f forge, at spot, shown rollout.Publication) (rollout.Publication, error) {
	if c.creates(shown) {
		return c.begin(ctx, f, at, shown)
	}
	there, err := f.EditComment(ctx, at.repository, shown.ID, c.text())
	switch {
	case err != nil:
		return rollout.Publication{}, err
	case there:
		shown.Hash = c.hash()
		return shown, nil
	}
	found, err := f.FindComment(ctx, at.repository, at.pull, c.Mark)
	switch {
	case err == nil && found.ID == shown.ID:
		err = &Failure{Kind: Refused, Text: fmt.Sprintf("the comment %d of %s: GitHub shows it, and answers 404 where it is to be changed", found.ID, at.repository)}
	case found.ID == 0 && !c.must:
		found = Found{deleted, c.hash()}
	}
	shown.ID, shown.Hash = found.ID, found.Hash
	return shown, err
}

// begin writes the comment anew, unless it is there and nobody remembers.
func (c Comment) begin(ctx context.Context, f forge, at spot, shown rollout.Publication) (rollout.Publication, error) {
	found, err := f.FindComment(ctx, at.repository, at.pull, c.Mark)
	if err == nil && found.ID == 0 {
		found.Hash = c.hash()
		found.ID, err = f.CreateComment(ctx, at.repository, at.pull, c.text())
	}
	shown.ID, shown.Hash = found.ID, found.Hash
	return shown, err
}

// find: what of it is there is looked for before it is begun, and to change it again changes nothing.
func (c Comment) find(context.Context, *look, spot) (rollout.Publication, error) {
	return rollout.Publication{}, nil
}

var writesComments = Permissions{"pull_requests": "write"}

// CreateComment adds a comment to a pull request of a repository "OWNER/NAME". Its error is a *Failure.
func (g *GitHub) CreateComment(ctx context.Context, repository string, pull int, body string) (id int64, err error) {
	what := fmt.Sprintf("the comment on pull request %d of %s", pull, repository)
	err = g.ask(ctx, what, repository, writesComments, func(ctx context.Context, owner, name string) (*github.Response, error) {
		made, response, err := g.client.Issues.CreateComment(ctx, owner, name, pull, &github.IssueComment{Body: &body})
		id = made.GetID()
		return response, err
	})
	return id, err
}

// EditComment changes a comment; false: it is not there. Its error is a *Failure.
func (g *GitHub) EditComment(ctx context.Context, repository string, id int64, body string) (there bool, err error) {
	what := fmt.Sprintf("the comment %d of %s", id, repository)
	return g.change(ctx, what, repository, writesComments, func(ctx context.Context, owner, name string) (*github.Response, error) {
		_, response, err := g.client.Issues.EditComment(ctx, owner, name, id, &github.IssueComment{Body: &body})
		return response, err
	})
}

// FindComment is our comment on a pull request whose first line begins with a mark: what others wrote is passed over, whatever it begins with. Without one its
// id is 0. Its error is a *Failure.
func (g *GitHub) FindComment(ctx context.Context, repository string, pull int, mark string) (found Found, err error) {
	ours, err := g.author(ctx, repository)
	if err != nil {
		return found, err
	}
	options := &github.IssueListCommentsOptions{ListOptions: github.ListOptions{PerPage: 100}}
	what := fmt.Sprintf("the comments on pull request %d of %s", pull, repository)
	err = g.pages(ctx, what, repository, writesComments, maxCommentPages, &options.ListOptions, func(ctx context.Context, owner, name string) (*github.Response, error) {
		page, response, err := g.client.Issues.ListComments(ctx, owner, name, pull, options)
		if err != nil {
			return response, err
		}
		for _, c := range page {
			first, _, _ := strings.Cut(c.GetBody(), "\n")
			state, marked := strings.CutPrefix(strings.TrimSuffix(first, "\r"), mark)
			if found.ID == 0 && marked && strings.EqualFold(c.GetUser().GetLogin(), ours) {
				found = Found{c.GetID(), strings.TrimSuffix(state, markEnd)}
			}
		}
		return response, nil
	})
	return found, err
}

// author is the login under which we write.
func (g *GitHub) author(ctx context.Context, repository string) (login string, err error) {
	err = g.ask(ctx, "whose comments are ours", repository, writesComments, func(ctx context.Context, _, _ string) (*github.Response, error) {
		if login = g.as.login(repository); login != "" {
			return nil, nil
		}
		found, response, err := g.client.Users.Get(ctx, "")
		login = found.GetLogin()
		return response, err
	})
	return login, err
}

// change asks for something to be changed; false: it is not there.
func (g *GitHub) change(ctx context.Context, what, repository string, may Permissions, do func(ctx context.Context, owner, name string) (*github.Response, error)) (there bool, err error) {
	gone := false
	err = g.ask(ctx, what, repository, may, func(ctx context.Context, owner, name string) (*github.Response, error) {
		response, err := do(ctx, owner, name)
		gone = err != nil && response != nil && response.StatusCode == http.StatusNotFound
		return response, err
	})
	if gone {
		return false, nil
	}
	return err == nil, err
}
