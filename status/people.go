package status

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-github/v60/github"
)

// Remark is what somebody wrote below a pull request, as it stands now.
type Remark struct {
	Author  Person
	Pull    int
	Body    string
	Written time.Time
	Edited  bool
}

// Person is an account of GitHub.
type Person struct {
	Login string // "": the account is gone
	ID    int64
	Bot   bool
}

// Remark is the comment with an id; false: it is gone. Its error is a *Failure.
func (g *GitHub) Remark(ctx context.Context, repository string, id int64) (r Remark, there bool, err error) {
	what := fmt.Sprintf("the comment %d of %s", id, repository)
	there, err = g.change(ctx, what, repository, writesComments, func(ctx context.Context, owner, name string) (*github.Response, error) {
		found, response, err := g.client.Issues.GetComment(ctx, owner, name, id)
		if err == nil {
			r = Remark{Author: person(found.GetUser()), Body: found.GetBody(), Written: found.GetCreatedAt().Time, Edited: !found.GetUpdatedAt().Equal(found.GetCreatedAt())}
			r.Pull, err = strconv.Atoi(path.Base(found.GetIssueURL()))
		}
		return response, err
	})
	return r, there, err
}

func person(u *github.User) Person { return Person{u.GetLogin(), u.GetID(), u.GetType() == "Bot"} }

// Ourselves reports whether it is we who write as a person. Its error is a *Failure.
func (g *GitHub) Ourselves(ctx context.Context, repository string, p Person) (bool, error) {
	login, err := g.author(ctx, repository)
	return strings.EqualFold(login, p.Login), err
}

// MayWrite reports whether a person may write to a repository, whatever role that is by. Its error is a *Failure.
func (g *GitHub) MayWrite(ctx context.Context, repository, login string) (bool, error) {
	var found github.RepositoryPermissionLevel
	what := fmt.Sprintf("what %s may do in %s", login, repository)
	there, err := g.change(ctx, what, repository, writesComments, func(ctx context.Context, owner, name string) (*github.Response, error) {
		level, response, err := g.client.Repositories.GetPermissionLevel(ctx, owner, name, url.PathEscape(login))
		if err == nil {
			found = *level
		}
		return response, err
	})
	// GitHub folds the role maintain into write, triage into read, and an organization's own role into the one that it is built on.
	return there && slices.Contains([]string{"admin", "write"}, found.GetPermission()), err
}

// InTeam reports whether a person is in a team "ORGANIZATION/SLUG", as one who accepted that. Its error is a *Failure.
func (g *GitHub) InTeam(ctx context.Context, repository, team, login string) (bool, error) {
	organization, slug, _ := strings.Cut(team, "/")
	active := false
	what := fmt.Sprintf("whether %s is in the team %s", login, team)
	there, err := g.change(ctx, what, repository, Permissions{"members": "read"}, func(ctx context.Context, _, _ string) (*github.Response, error) {
		found, response, err := g.client.Teams.GetTeamMembershipBySlug(ctx, url.PathEscape(organization), url.PathEscape(slug), url.PathEscape(login))
		active = err == nil && found.GetState() == "active"
		return response, err
	})
	return there && active, err
}

// maxCommits is how many commits GitHub lists of one pull request: there may be more of as many.
const maxCommits = 250

// Writers are the logins of who wrote or committed what a pull request brings; all is false where there may be others, too. Its error is a *Failure.
func (g *GitHub) Writers(ctx context.Context, repository string, pull int) (logins []string, all bool, err error) {
	options, commits := &github.ListOptions{PerPage: 100}, 0
	what := fmt.Sprintf("the commits of pull request %d of %s", pull, repository)
	err = g.pages(ctx, what, repository, writesComments, maxCommits/100+1, options, func(ctx context.Context, owner, name string) (*github.Response, error) {
		page, response, err := g.client.PullRequests.ListCommits(ctx, owner, name, pull, options)
		for _, c := range page {
			for _, login := range []string{c.GetAuthor().GetLogin(), c.GetCommitter().GetLogin()} {
				if login != "" && !slices.Contains(logins, login) {
					logins = append(logins, login)
				}
			}
		}
		commits += len(page)
		return response, err
	})
	return logins, commits < maxCommits, err
}

// React puts a sign beside a comment; one that is there already stays. Where the comment is gone there is nothing to do. Its error is a *Failure, and about this
// comment only.
func (g *GitHub) React(ctx context.Context, repository string, comment int64, sign string) error {
	what := fmt.Sprintf("the sign %s at the comment %d of %s", sign, comment, repository)
	_, err := g.change(ctx, what, repository, writesComments, func(ctx context.Context, owner, name string) (*github.Response, error) {
		_, response, err := g.client.Reactions.CreateIssueCommentReaction(ctx, owner, name, comment, sign)
		return response, err
	})
	var f *Failure
	if errors.As(err, &f) && f.Kind == Refused {
		return &Failure{Kind: Unfit, Text: f.Text}
	}
	return err
}

// aliases are the names that GitHub gives a person in Git, where they hide their own.
func (g *GitHub) aliases(p Person) []string {
	at := "@users.noreply." + strings.TrimPrefix(g.client.BaseURL.Hostname(), "api.")
	return []string{p.Login, p.Login + at, fmt.Sprintf("%d+%s%s", p.ID, p.Login, at)}
}

// silent reports whether GitHub will not say, and not only for now.
func silent(err error) bool {
	var f *Failure
	return errors.As(err, &f) && (f.Kind == Refused || f.Kind == Unfit)
}
