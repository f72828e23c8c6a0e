package status

import (
	"context"
	"fmt"

	"github.com/google/go-github/v60/github"
)

// Pull is a pull request. Title is its author's, and nothing of it is trusted.
type Pull struct {
	Number        int
	Head          string // the commit that is proposed
	Base          string // the branch that it is to go into
	Title, Author string // Author is a login; "": the account is gone
	MergedBy      string // a login; "": nobody merged it
	Fork          bool   // Head comes from another repository, or from one that is gone
	Public        bool   // everybody can read what is told about it
	Closed        bool   // merged, or given up
	Merged        string // the commit that it became; "": it is not merged
}

// MaxPulls is how many open pull requests of one repository are looked at: the newest.
const MaxPulls = 1000

// PullRequest is how a pull request of a repository "OWNER/NAME" stands. Its error is a *Failure.
func (g *GitHub) PullRequest(ctx context.Context, repository string, number int) (p Pull, err error) {
	what := fmt.Sprintf("the pull request %d of %s", number, repository)
	err = g.ask(ctx, what, repository, Permissions{"pull_requests": "read"}, func(ctx context.Context, owner, name string) (*github.Response, error) {
		found, response, err := g.client.PullRequests.Get(ctx, owner, name, number)
		if err == nil {
			p = pull(found)
		}
		return response, err
	})
	return p, err
}

// OpenPullRequests are those of a repository "OWNER/NAME", the newest first, at most MaxPulls. Its error is a *Failure.
func (g *GitHub) OpenPullRequests(ctx context.Context, repository string) (all []Pull, err error) {
	options := &github.PullRequestListOptions{ListOptions: github.ListOptions{PerPage: 100}}
	what := fmt.Sprintf("the pull requests of %s", repository)
	err = g.pages(ctx, what, repository, Permissions{"pull_requests": "read"}, MaxPulls/100, &options.ListOptions, func(ctx context.Context, owner, name string) (*github.Response, error) {
		page, response, err := g.client.PullRequests.List(ctx, owner, name, options)
		for _, found := range page {
			all = append(all, pull(found))
		}
		return response, err
	})
	return all, err
}

func pull(found *github.PullRequest) Pull {
	from, to := found.GetHead().GetRepo(), found.GetBase().GetRepo()
	p := Pull{Number: found.GetNumber(), Head: found.GetHead().GetSHA(), Base: found.GetBase().GetRef(), Title: found.GetTitle(), Author: found.GetUser().GetLogin(), MergedBy: found.GetMergedBy().GetLogin(),
		Fork:   from == nil || from.GetID() != to.GetID(),
		Public: to == nil || !to.GetPrivate(),
		Closed: found.GetState() != "open"}
	if found.MergedAt != nil { // else it is a commit that GitHub made to try
		p.Merged = found.GetMergeCommitSHA()
	}
	return p
}
