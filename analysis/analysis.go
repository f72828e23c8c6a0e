// Package analysis asks metric providers: Prometheus, Datadog, New Relic, and whatever answers HTTP with JSON. A query gives one number, or there is none,
// or the error says whether asking again is of use. What numbers mean is for analysis/judge to say; when to ask, and whom a provider may reach, others decide.
package analysis

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Window is the time that a query looks at. It may lie in the past: then the answer is what it would have been at its end.
type Window struct {
	Start, End time.Time
}

// Measurement is the answer to a query.
type Measurement struct {
	Value    float64   // finite
	At       time.Time // what the provider says it was measured at; zero when it does not say
	Warnings []string  // what the provider remarks about the answer, three at most: that a part of its data could not be reached, for instance
}

// Server is how a provider is reached.
type Server struct {
	Name string // of the provider, for messages
	URL  string
	// Transport sends the requests, and is who knows whom they may reach: the controller's egress, or an agent's relay.
	Transport http.RoundTripper
	// Forbidden reports whether an error of Transport says that a configuration does not allow the request. nil: none does.
	Forbidden func(error) bool
	Timeout   time.Duration // of one measurement; 0: 30 s
}

// Provider is one metric provider, made by NewPrometheus, NewDatadog, NewNewRelic or NewHTTP. Safe for concurrent use.
type Provider struct {
	server  Server
	kind    kind
	secrets []string // which no message shows
}

// kind is what differs from one sort of server to another.
type kind interface {
	// request asks a query; its context is set later.
	request(query string, w Window) (*http.Request, error)
	// measurement reads the answer, which is valid JSON. What it tells of it in errors goes through show.
	measurement(answer []byte, show func(string) string) (Measurement, error)
	// complaint is what the server's own form of an error says; "" when the answer is not of that form.
	complaint(answer []byte) string
}

// Measure asks a query and returns its one value. The errors are *NoData, *Refused and *Unavailable, also when ctx ends: then an *Unavailable that wraps
// ctx.Err().
func (p *Provider) Measure(ctx context.Context, query string, w Window) (Measurement, error) {
	m, err := p.ask(ctx, query, w)
	if err != nil {
		return Measurement{}, p.name(err)
	}
	for i, warning := range m.Warnings {
		m.Warnings[i] = p.show(warning)
	}
	return m, nil
}

// NoData is a query that was answered, and without a number: no series, or what is none (NaN, infinite). Whether that is good or bad is the asker's to say.
type NoData struct {
	Provider, Reason string
}

func (e *NoData) Error() string {
	return fmt.Sprintf("metric provider %s has no data: %s", e.Provider, e.Reason)
}

// Refused is a query that will be answered no better the next time: it, the provider's settings or the server have to be changed first.
type Refused struct {
	Provider, Reason string
}

func (e *Refused) Error() string {
	return fmt.Sprintf("metric provider %s cannot answer this query: %s", e.Provider, e.Reason)
}

// Unavailable is a provider that could not be reached, had no time, or broke off: the same query may be asked again.
type Unavailable struct {
	Provider, Reason string
	// After is how long the server wants to be left alone, an hour at most; 0: it does not say.
	After time.Duration
	// Err is what came of the request, for errors.As; nil when the server itself answered.
	Err error
}

func (e *Unavailable) Error() string {
	return fmt.Sprintf("metric provider %s is not available: %s", e.Provider, e.Reason)
}

// Unwrap gives the cause.
func (e *Unavailable) Unwrap() error { return e.Err }

func noData(format string, args ...any) error {
	return &NoData{Reason: fmt.Sprintf(format, args...)}
}

func refused(format string, args ...any) error {
	return &Refused{Reason: fmt.Sprintf(format, args...)}
}

// name adds the provider to an error, and takes out what is secret.
func (p *Provider) name(err error) error {
	var none *NoData
	var no *Refused
	var away *Unavailable
	switch {
	case errors.As(err, &none):
		none.Provider, none.Reason = p.server.Name, p.hide(none.Reason)
	case errors.As(err, &no):
		no.Provider, no.Reason = p.server.Name, p.hide(no.Reason)
	case errors.As(err, &away):
		away.Provider, away.Reason = p.server.Name, p.hide(away.Reason)
	}
	return err
}

// show is a text of the server, fit for a message. Secrets go before it is cut, which could leave half of one.
func (p *Provider) show(text string) string { return excerpt(p.hide(text)) }

// hide takes the provider's secrets out of a text: a server may send back what it was sent.
func (p *Provider) hide(text string) string {
	for _, secret := range p.secrets {
		text = strings.ReplaceAll(text, secret, "[hidden]")
	}
	return text
}
