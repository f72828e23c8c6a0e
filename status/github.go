package status

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/go-github/v60/github"
)

// GitHub writes statuses, check runs and comments to one GitHub, github.com or an Enterprise Server, and reads what is proposed there. Safe for concurrent use.
type GitHub struct {
	wire
	as identity
}

// GitHubConfig says which GitHub, and as whom.
type GitHubConfig struct {
	APIURL string                 // "https://api.github.com/"
	Token  func() (string, error) // read for each request, so that a replaced token counts at once
	HTTP   *http.Client
	Clock  func() time.Time // for the times until which GitHub wants to be left alone
	App    *App             // in place of all these
}

// NewGitHub makes a GitHub; it does no network I/O.
func NewGitHub(c GitHubConfig) (*GitHub, error) {
	if c.App != nil {
		c.APIURL, c.HTTP, c.Clock = c.App.config.APIURL, c.App.config.HTTP, c.App.config.Clock
	}
	w, err := newWire(c.APIURL, c.HTTP, c.Clock) // of its own also beside an App's: go-github keeps silent on a client whose limit is reached, and limits are an installation's
	switch {
	case err != nil:
		return nil, err
	case c.App != nil:
		return &GitHub{w, c.App}, nil
	}
	return &GitHub{w, bearer(c.Token)}, nil
}

// Permissions are what a token may do: "read" or "write", by GitHub's name of what it may be done to.
type Permissions map[string]string

func (p Permissions) String() string {
	var all []string
	for _, what := range slices.Sorted(maps.Keys(p)) {
		all = append(all, what+": "+p[what])
	}
	return strings.Join(all, ", ")
}

// Access is a token for a repository.
type Access struct {
	Token      string
	Repository string // "OWNER/NAME", as it is called now
}

// identity is as whom a GitHub is asked. Safe for concurrent use.
type identity interface {
	// Access is a token that may do this in a repository "OWNER/NAME". Its error is a *Failure.
	Access(ctx context.Context, repository string, may Permissions) (Access, error)
	// Forget drops what is known of a repository where GitHub refused a token; false: the next one would be the same.
	Forget(repository, token string) bool
	// login is whom GitHub names as the author of what is written in a repository to which there was access; "": GitHub has to be asked.
	login(repository string) string
	advice(may Permissions) advice
}

// advice is what to do about answers that refuse.
type advice struct{ unauthorized, forbidden string }

// bearer has one token for all.
type bearer func() (string, error)

// Access implements identity.
func (b bearer) Access(_ context.Context, repository string, _ Permissions) (Access, error) {
	token, err := b()
	if err != nil {
		return Access{}, &Failure{Kind: Trouble, Text: err.Error()}
	}
	return Access{token, repository}, nil
}

// Forget implements identity.
func (bearer) Forget(string, string) bool { return false }

func (bearer) login(string) string { return "" }

func (bearer) advice(may Permissions) advice {
	what := "write commit statuses"
	if level := may["pull_requests"]; level != "" {
		what = level + " pull requests"
	}
	return advice{"check github.tokenFile", fmt.Sprintf("may the token %s of this repository?", what)}
}

// onceTakes bounds all the requests that one thing to tell may need: half of what a claim lasts exceeds it.
const onceTakes = 50 * time.Second

// ask asks something about a repository. What was refused is asked once more where the identity can find out anew how to get there. Its error is a *Failure.
func (g *GitHub) ask(ctx context.Context, what, repository string, may Permissions, do func(ctx context.Context, owner, name string) (*github.Response, error)) error {
	ctx, cancel := context.WithTimeout(ctx, onceTakes)
	defer cancel()
	for again := false; ; again = true {
		access, err := g.as.Access(ctx, repository, may)
		if err != nil {
			return err
		}
		owner, name, _ := strings.Cut(access.Repository, "/")
		response, err := do(withToken(ctx, access.Token), owner, name)
		if err != nil && !again && outdated(response) && g.as.Forget(repository, access.Token) {
			continue
		}
		return g.failure(what, g.as.advice(may), response, err)
	}
}

// outdated reports whether an answer may come of a token that was taken back, or of a name that a repository no longer has.
func outdated(r *github.Response) bool {
	return r != nil && (r.StatusCode == http.StatusUnauthorized || r.StatusCode == http.StatusNotFound || r.StatusCode >= 300 && r.StatusCode < 400)
}

// Create adds a status to a commit of a repository "OWNER/NAME". Its error is a *Failure.
func (g *GitHub) Create(ctx context.Context, repository, commit string, s Status) error {
	status := &github.RepoStatus{State: &s.State, Context: &s.Context, Description: &s.Description}
	if s.Link != "" {
		status.TargetURL = &s.Link
	}
	what := fmt.Sprintf("the status %s of %s at %.10s", s.Context, repository, commit)
	return g.ask(ctx, what, repository, Permissions{"statuses": "write"}, func(ctx context.Context, owner, name string) (*github.Response, error) {
		_, response, err := g.client.Repositories.CreateStatus(ctx, owner, name, commit, status)
		return response, err
	})
}

// do asks for what go-github has no method for, or one that leaves something out.
func (g *GitHub) do(ctx context.Context, method, path string, asked, answered any) (*github.Response, error) {
	request, err := g.client.NewRequest(method, path, asked)
	if err != nil {
		return nil, err
	}
	return g.client.Do(ctx, request, answered)
}

// pages asks for the pages of a list, one after another, up to a number of them.
func (g *GitHub) pages(ctx context.Context, what, repository string, may Permissions, most int, options *github.ListOptions, do func(ctx context.Context, owner, name string) (*github.Response, error)) error {
	for range most {
		var next int
		err := g.ask(ctx, what, repository, may, func(ctx context.Context, owner, name string) (*github.Response, error) {
			response, err := do(ctx, owner, name)
			if err == nil {
				next = response.NextPage
			}
			return response, err
		})
		if err != nil || next == 0 {
			return err
		}
		options.Page = next
	}
	return nil
}

// maxPages bounds how far back statuses and check runs of a commit are read: 100 a page.
const maxPages = 10

// Latest is the newest status of each context of a commit, by the context in lower case. Its error is a *Failure.
func (g *GitHub) Latest(ctx context.Context, repository, commit string) (map[string]Status, error) {
	latest := map[string]Status{}
	options := &github.ListOptions{PerPage: 100}
	what := fmt.Sprintf("the statuses of %s at %.10s", repository, commit)
	// With the right to write, which tellers have a token of already.
	err := g.pages(ctx, what, repository, Permissions{"statuses": "write"}, maxPages, options, func(ctx context.Context, owner, name string) (*github.Response, error) {
		statuses, response, err := g.client.Repositories.ListStatuses(ctx, owner, name, commit, options)
		for _, s := range statuses { // newest first
			found := Status{Context: s.GetContext(), State: s.GetState(), Description: s.GetDescription(), Link: s.GetTargetURL()}
			if _, newer := latest[strings.ToLower(found.Context)]; !newer {
				latest[strings.ToLower(found.Context)] = found
			}
		}
		return response, err
	})
	return latest, err
}
