package analysis

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"
)

const (
	patience    = 30 * time.Second
	longest     = 1 << 20 // bytes of an answer: one number, and what is written around it
	shown       = 200     // bytes of an answer in a message
	leaveAlone  = time.Hour
	mostWarned  = 3
	contentType = "application/json"
)

// Auth is how a Prometheus or an HTTP server knows us: by a bearer token, else by user and password; empty, not at all.
type Auth struct {
	Token              string
	Username, Password string
}

func (a Auth) set(r *http.Request) {
	switch {
	case a.Token != "":
		r.Header.Set("Authorization", "Bearer "+a.Token)
	case a.Username != "":
		r.SetBasicAuth(a.Username, a.Password)
	}
}

func (a Auth) secrets() []string {
	return []string{a.Token, a.Password, base64.StdEncoding.EncodeToString([]byte(a.Username + ":" + a.Password))}
}

// newProvider checks what all kinds have in common.
func newProvider(s Server, k kind, secrets ...string) (*Provider, error) {
	if _, err := base(s.URL); err != nil {
		return nil, fmt.Errorf("metric provider %s: %w", s.Name, err)
	}
	s.Timeout = cmp.Or(s.Timeout, patience)
	secrets = slices.DeleteFunc(secrets, func(secret string) bool { return secret == "" })
	for _, secret := range secrets {
		if !httpguts.ValidHeaderFieldValue(secret) {
			return nil, fmt.Errorf("metric provider %s: a secret holds a line break or another character that HTTP forbids in headers", s.Name)
		}
	}
	// The longest first: what is a part of another secret must not keep it from being found.
	slices.SortFunc(secrets, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	return &Provider{server: s, kind: k, secrets: secrets}, nil
}

// base reads a server's address. The error does not show it, since what is wrong may be a password in it.
func base(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("url is no address like https://HOST")
	case u.User != nil:
		return nil, errors.New("url holds a user or a password; write them as auth")
	case u.Fragment != "":
		return nil, errors.New("url holds a #, and all behind it would not be sent")
	}
	return u, nil
}

// below is the address of a part of a server's API.
func below(s Server, path string) (string, error) {
	u, err := base(s.URL)
	if err == nil && u.RawQuery != "" {
		err = errors.New("url holds a query; write the address up to it")
	}
	if err != nil {
		return "", fmt.Errorf("metric provider %s: %w", s.Name, err)
	}
	return u.JoinPath(path).String(), nil
}

// ask sends one request and reads its answer.
func (p *Provider) ask(ctx context.Context, query string, w Window) (Measurement, error) {
	asked, cancel := context.WithTimeout(ctx, p.server.Timeout)
	defer cancel()
	request, err := p.kind.request(query, w)
	if err != nil {
		return Measurement{}, refused("%v", err)
	}
	request = request.WithContext(asked)
	request.Header.Set("Accept", contentType)
	request.Header.Set("User-Agent", "towpath")
	// No redirect is followed: it could lead elsewhere with the credentials, and the address is the operator's to write.
	client := &http.Client{Transport: p.server.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(request)
	if err != nil {
		return Measurement{}, p.unreached(ctx, err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, longest+1))
	switch {
	case len(answer) > longest:
		return Measurement{}, refused("it answers with more than 1 MiB, where one value is enough; let the query give one")
	case err != nil:
		return Measurement{}, p.unreached(ctx, err)
	}
	if err := p.status(response, answer); err != nil {
		return Measurement{}, err
	}
	media, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")) // what cannot be read is not JSON
	switch {
	case media != contentType && !strings.HasSuffix(media, "+json"):
		return Measurement{}, refused("it answers with %q in place of JSON: %s; is its url right?", response.Header.Get("Content-Type"), p.quote(answer))
	case !json.Valid(answer):
		return Measurement{}, refused("it answers with what is no valid JSON: %s", p.quote(answer))
	}
	return p.kind.measurement(answer, p.show)
}

// unreached is a request that got no whole answer.
func (p *Provider) unreached(ctx context.Context, err error) error {
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err // without the URL, which holds the query
	}
	switch {
	case ctx.Err() != nil:
		return &Unavailable{Reason: "it was asked, and had no time to answer", Err: ctx.Err()}
	case p.server.Forbidden != nil && p.server.Forbidden(err):
		return refused("%v", err)
	case errors.Is(err, context.DeadlineExceeded):
		return &Unavailable{Reason: fmt.Sprintf("it did not answer within %s", p.server.Timeout), Err: err}
	}
	return &Unavailable{Reason: err.Error(), Err: err}
}

// status judges an answer by its status; nil is 200.
func (p *Provider) status(response *http.Response, answer []byte) error {
	says := fmt.Sprintf("it answers %d %s", response.StatusCode, http.StatusText(response.StatusCode))
	if complaint := p.kind.complaint(answer); complaint != "" {
		says += ": " + p.show(complaint)
	} else if len(bytes.TrimSpace(answer)) > 0 {
		says += ": " + p.quote(answer)
	}
	switch code := response.StatusCode; {
	case code == http.StatusOK:
		return nil
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code == http.StatusTooEarly, code >= 500:
		return &Unavailable{Reason: says, After: after(response.Header)}
	case code >= 300 && code < 400:
		where := "another address"
		if to, err := response.Location(); err == nil {
			where = to.Scheme + "://" + to.Host
		}
		return refused("it redirects to %s, and redirects are not followed; write the address that answers as its url", where)
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return refused("%s; check the provider's credentials and what they may do", says)
	case code == http.StatusNotFound, code == http.StatusMethodNotAllowed:
		return refused("%s; check the provider's url", says)
	}
	return refused("%s", says)
}

// after is how long a server asks to be left alone: by Retry-After, in Datadog's words X-RateLimit-Reset, which counts seconds too.
func after(h http.Header) time.Duration {
	text := cmp.Or(h.Get("Retry-After"), h.Get("X-RateLimit-Reset"))
	if seconds, err := strconv.ParseInt(text, 10, 32); err == nil {
		return min(max(0, time.Duration(seconds)*time.Second), leaveAlone)
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(0, time.Until(at)), leaveAlone)
	}
	return 0
}

// quote is the beginning of an answer, fit to be shown.
func (p *Provider) quote(answer []byte) string {
	return strconv.Quote(p.show(string(answer)))
}

// excerpt cuts a text, and makes one line of it that steers no terminal.
func excerpt(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || unicode.IsSpace(r) {
			return r
		}
		return utf8.RuneError
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	if len(text) <= shown {
		return text
	}
	cut := shown
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + " …"
}
