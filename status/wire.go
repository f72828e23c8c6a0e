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

// wire is the way to the API of one GitHub.
type wire struct {
	client *github.Client
	clock  func() time.Time
}

func newWire(address string, web *http.Client, clock func() time.Time) (wire, error) {
	base, err := url.Parse(address)
	if err != nil || base.Host == "" {
		return wire{}, fmt.Errorf("github.apiURL: %q is no http(s) address", address)
	}
	base.Path = strings.TrimSuffix(base.Path, "/") + "/"
	inner := *web
	inner.Transport = &authorized{inner: transportOr(inner.Transport), host: base.Host}
	inner.CheckRedirect = sameMethod(web.CheckRedirect)
	client := github.NewClient(&inner)
	client.BaseURL = base
	return wire{client, clock}, nil
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

type tokenKey struct{}

// withToken makes requests of ctx be asked with a token.
func withToken(ctx context.Context, token string) context.Context {
	return context.WithValue(ctx, tokenKey{}, token)
}

// authorized adds the token to each request to the host that it is for, and to no other: an answer may point elsewhere.
type authorized struct {
	inner http.RoundTripper
	host  string
}

// RoundTrip implements http.RoundTripper.
func (a *authorized) RoundTrip(r *http.Request) (*http.Response, error) {
	if token, _ := r.Context().Value(tokenKey{}).(string); token != "" && r.URL.Host == a.host {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+token)
	}
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

// failure decides from what came back what is to be done about it; go-github knows only some of GitHub's ways to say "later".
func (w *wire) failure(what string, a advice, response *github.Response, err error) error {
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
		return &Failure{Kind: Trouble, Unsure: !unsent, Text: fmt.Sprintf("%s: no answer from %s: %v", what, w.client.BaseURL.Host, short(err))}
	}
	text := fmt.Sprintf("%s: GitHub answers %d: %s", what, response.StatusCode, said(err))
	until, limited := w.limited(response.Response, err)
	switch code := response.StatusCode; {
	case limited:
		return &Failure{Kind: Limited, Until: until, Text: text}
	case code == http.StatusUnauthorized:
		return &Failure{Kind: Trouble, Text: text + "; " + a.unauthorized}
	case code >= 500:
		return &Failure{Kind: Trouble, Unsure: true, Text: text}
	case code == http.StatusForbidden, code == http.StatusNotFound:
		text += "; " + a.forbidden
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
func (w *wire) limited(r *http.Response, err error) (until time.Time, limited bool) {
	if r.StatusCode != http.StatusForbidden && r.StatusCode != http.StatusTooManyRequests {
		return time.Time{}, false
	}
	now := w.clock()
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
