package status

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-github/v60/github"
)

// GitHub writes commit statuses to one GitHub, github.com or an Enterprise Server. Safe for concurrent use.
type GitHub struct {
	client *github.Client
	clock  func() time.Time
}

// GitHubConfig says which GitHub, and as whom.
type GitHubConfig struct {
	APIURL string                 // "https://api.github.com/"
	Token  func() (string, error) // read for each request, so that a replaced token counts at once
	HTTP   *http.Client
	Clock  func() time.Time // for the times until which GitHub wants to be left alone
}

// NewGitHub makes a GitHub; it does no network I/O.
func NewGitHub(c GitHubConfig) (*GitHub, error) {
	base, err := url.Parse(c.APIURL)
	if err != nil || base.Host == "" {
		return nil, fmt.Errorf("github.apiURL: %q is no http(s) address", c.APIURL)
	}
	base.Path = strings.TrimSuffix(base.Path, "/") + "/"
	inner := *c.HTTP
	inner.Transport = &authorized{inner: transportOr(inner.Transport), host: base.Host, token: c.Token}
	inner.CheckRedirect = sameMethod(c.HTTP.CheckRedirect)
	client := github.NewClient(&inner)
	client.BaseURL = base
	return &GitHub{client, c.Clock}, nil
}

func transportOr(t http.RoundTripper) http.RoundTripper {
	if t == nil {
		return http.DefaultTransport
	}
	return t
}

// sameMethod follows no redirect that turns a write into a read, as net/http does after 301: the answer to that would say nothing about the write.
func sameMethod(otherwise func(*http.Request, []*http.Request) error) func(*http.Request, []*http.Request) error {
	return func(r *http.Request, via []*http.Request) error {
		switch {
		case r.Method != via[0].Method:
			return http.ErrUseLastResponse
		case otherwise != nil:
			return otherwise(r, via)
		case len(via) >= 5:
			return errors.New("stopped after 5 redirects")
		}
		return nil
	}
}

// authorized adds the token to each request to the host that it is for, and to no other: an answer may point elsewhere.
type authorized struct {
	inner http.RoundTripper
	host  string
	token func() (string, error)
}

// RoundTrip implements http.RoundTripper.
func (a *authorized) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != a.host {
		return a.inner.RoundTrip(r)
	}
	token, err := a.token()
	if err != nil {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, &Failure{Kind: Trouble, Text: err.Error()}
	}
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+token)
	return a.inner.RoundTrip(r)
}

// FailureKind says what becomes of what could not be told.
type FailureKind int

// Kinds of failure.
const (
	Trouble FailureKind = iota // the whole account waits, and tries again
	Limited                    // GitHub wants the whole account to wait until a time
	Refused                    // all about this commit is refused
	Unfit                      // this one is refused; others may be taken
)

// Failure is why something was not told.
type Failure struct {
	Kind   FailureKind
	Until  time.Time // Limited
	Unsure bool      // it may have arrived all the same
	Text   string    // a sentence for the operator, with GitHub's own words
}

func (f *Failure) Error() string { return f.Text }

// Create adds a status to a commit of a repository "OWNER/NAME". Its error is a *Failure.
func (g *GitHub) Create(ctx context.Context, repository, commit string, s Status) error {
	owner, name, _ := strings.Cut(repository, "/")
	status := &github.RepoStatus{State: &s.State, Context: &s.Context, Description: &s.Description}
	if s.Link != "" {
		status.TargetURL = &s.Link
	}
	_, response, err := g.client.Repositories.CreateStatus(ctx, owner, name, commit, status)
	return g.failure(fmt.Sprintf("the status %s of %s at %.10s", s.Context, repository, commit), response, err)
}

// maxPages bounds how far back statuses of a commit are read: 100 a page.
const maxPages = 10

// Latest is the newest status of each context of a commit, by the context in lower case. Its error is a *Failure.
func (g *GitHub) Latest(ctx context.Context, repository, commit string) (map[string]Status, error) {
	owner, name, _ := strings.Cut(repository, "/")
	latest := map[string]Status{}
	options := &github.ListOptions{PerPage: 100}
	for range maxPages {
		statuses, response, err := g.client.Repositories.ListStatuses(ctx, owner, name, commit, options)
		if err := g.failure(fmt.Sprintf("the statuses of %s at %.10s", repository, commit), response, err); err != nil {
			return nil, err
		}
		for _, s := range statuses { // newest first
			found := Status{Context: s.GetContext(), State: s.GetState(), Description: s.GetDescription(), Link: s.GetTargetURL()}
			if _, newer := latest[found.object()]; !newer {
				latest[found.object()] = found
			}
		}
		if response.NextPage == 0 {
			break
		}
		options.Page = response.NextPage
	}
	return latest, nil
}

// failure decides from what came back what is to be done about it; go-github knows only some of GitHub's ways to say "later".
func (g *GitHub) failure(what string, response *github.Response, err error) error {
	if err == nil {
		return nil
	}
	var known *Failure
	if errors.As(err, &known) {
		return known
	}
	if response == nil || response.Response == nil {
		var dial *net.OpError
		unsent := errors.As(err, &dial) && dial.Op == "dial"
		return &Failure{Kind: Trouble, Unsure: !unsent, Text: fmt.Sprintf("%s: no answer from %s: %v", what, g.client.BaseURL.Host, short(err))}
	}
	text := fmt.Sprintf("%s: GitHub answers %d: %s", what, response.StatusCode, said(err))
	until, limited := g.limited(response.Response, err)
	switch code := response.StatusCode; {
	case limited:
		return &Failure{Kind: Limited, Until: until, Text: text}
	case code == http.StatusUnauthorized:
		return &Failure{Kind: Trouble, Text: text + "; check github.tokenFile"}
	case code >= 500:
		return &Failure{Kind: Trouble, Unsure: true, Text: text}
	case code == http.StatusForbidden, code == http.StatusNotFound:
		text += "; may the token write commit statuses of this repository?"
	case code == http.StatusUnprocessableEntity:
		return &Failure{Kind: Unfit, Text: text}
	case code >= 300 && code < 400:
		text += "; if the repository has a new name, write that into github.repository"
	case code < 300:
		return &Failure{Kind: Trouble, Unsure: true, Text: text} // an answer that could not be read
	}
	return &Failure{Kind: Refused, Text: text}
}

// limited reports whether an answer says that we are to wait, and until when.
func (g *GitHub) limited(r *http.Response, err error) (until time.Time, limited bool) {
	if r.StatusCode != http.StatusForbidden && r.StatusCode != http.StatusTooManyRequests {
		return time.Time{}, false
	}
	now := g.clock()
	if seconds, err := strconv.Atoi(r.Header.Get("Retry-After")); err == nil && seconds >= 0 {
		return now.Add(min(time.Duration(seconds)*time.Second, time.Hour)), true
	}
	if r.Header.Get("X-RateLimit-Remaining") == "0" {
		if reset, err := strconv.ParseInt(r.Header.Get("X-RateLimit-Reset"), 10, 64); err == nil {
			return earlier(time.Unix(reset, 0), now.Add(time.Hour)), true
		}
	}
	if r.StatusCode == http.StatusTooManyRequests || strings.Contains(strings.ToLower(said(err)), "rate limit") {
		return now.Add(time.Minute), true
	}
	return time.Time{}, false
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// said is GitHub's own sentence, with the fields it complains about.
func said(err error) string {
	var answer *github.ErrorResponse
	var rate *github.RateLimitError
	var abuse *github.AbuseRateLimitError
	switch {
	case errors.As(err, &rate):
		return Fit(rate.Message)
	case errors.As(err, &abuse):
		return Fit(abuse.Message)
	case !errors.As(err, &answer):
		return short(err)
	}
	text := answer.Message
	for _, e := range answer.Errors {
		text += "; " + strings.TrimSpace(e.Field+" "+e.Code+" "+e.Message)
	}
	return Fit(text)
}

// short leaves out what *url.Error adds: method and address, which the sentence names already.
func short(err error) string {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	return Fit(err.Error())
}
