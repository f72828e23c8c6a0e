// Package webhook calls the webhooks of deployment files: it fills in what is sent, bounds it, and says what came of it. How often one is called, and what its
// callback means, is decided elsewhere.
package webhook

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"golang.org/x/net/http/httpguts"

	"towpath/deployment"
)

const (
	maxURI     = 8 << 10
	maxBody    = 1 << 20
	maxHeaders = 100
	maxRead    = 64 << 10 // bytes of an answer that are looked at
	maxQuoted  = 300      // bytes of it that people are shown
)

// Timeout bounds one call, its whole answer included.
const Timeout = 30 * time.Second

// Call is one try to call a webhook.
type Call struct {
	Webhook deployment.Webhook
	// Key is sent as Idempotency-Key: a webhook that gets it twice has been called once.
	Key string
	// Value is what a variable of the templates stands for.
	Value func(name string) (string, bool)
	// Hide takes secrets out of texts that people are shown. What headers and the address say by themselves is taken out here.
	Hide func(text string) string
	// Way is how the host of the filled-in URI is reached; an error says why it may not be.
	Way func(at *url.URL) (http.RoundTripper, error)
}

// Failure is a call that failed.
type Failure struct {
	// Again reports whether another try may fare better: it could not be reached.
	Again bool
	Text  string
}

func (f *Failure) Error() string { return f.Text }

func refuse(format string, args ...any) *Failure { return &Failure{Text: fmt.Sprintf(format, args...)} }

// Send calls the webhook. The error is a *Failure, in words that name no secret; an answer of 2xx is none.
func (c Call) Send(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	request, err := c.request(ctx)
	hide := c.Hide
	if err == nil {
		hide = c.hides(request)
		err = c.send(request, hide)
	}
	var failed *Failure
	if errors.As(err, &failed) {
		return &Failure{failed.Again, hide(failed.Text)}
	}
	return err
}

// Unfilled lists the variables of what is sent that nothing fills, as deployment.Fill does.
func (c Call) Unfilled() []string {
	texts := []string{c.Webhook.URITemplate, c.Webhook.BodyTemplate}
	for _, h := range c.Webhook.Headers {
		texts = append(texts, h.Value)
	}
	_, unfilled := deployment.Fill(strings.Join(texts, "\x00"), c.Value) // which is in no variable, so that none is made of two texts
	return unfilled
}

func (c Call) send(request *http.Request, hide func(string) string) error {
	way, err := c.Way(request.URL)
	if err != nil {
		return refuse("%s", err)
	}
	client := http.Client{Transport: way, CheckRedirect: func(next *http.Request, _ []*http.Request) error {
		return refuse("answers with a redirect to %s, which is not followed: write that address as uriTemplate if it is meant", next.URL.Host)
	}}
	answer, err := client.Do(request)
	if err != nil {
		return unreached(request.URL, err)
	}
	defer answer.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(answer.Body, maxRead)) // that it was taken counts, also where the rest is lost
	if answer.StatusCode/100 != 2 {
		return refuse("%s answered %s%s", request.URL.Host, answer.Status, quoted(hide(string(said)))) // hidden before it is cut, which could leave half of a secret
	}
	return nil
}

// shortest is how many bytes of a header are taken for something that may be secret.
const shortest = 6

// hides takes out of texts, beside what Hide does, what a server that sends back what it was sent could tell: values of headers, credentials of the address.
func (c Call) hides(request *http.Request) func(text string) string {
	var secret []string
	for name, values := range request.Header {
		if name == "Content-Type" || name == "Idempotency-Key" {
			continue
		}
		for _, value := range values {
			secret = append(secret, value, value[strings.LastIndexByte(value, ' ')+1:]) // without the scheme before it, too
		}
	}
	if user := request.URL.User; user != nil {
		password, _ := user.Password()
		secret = append(secret, password, base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password))) // as it is sent
	}
	secret = slices.DeleteFunc(secret, func(s string) bool { return len(s) < shortest })
	slices.SortFunc(secret, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	return func(text string) string {
		text = c.Hide(text)
		for _, s := range secret {
			text = strings.ReplaceAll(text, s, Hidden)
		}
		return text
	}
}

// Hidden stands for a secret in texts.
const Hidden = "***"

// request is what is sent, filled in.
func (c Call) request(ctx context.Context) (*http.Request, error) {
	fill := func(template string) string {
		text, _ := deployment.Fill(template, c.Value)
		return text
	}
	uri := strings.TrimSpace(fill(c.Webhook.URITemplate))
	at, err := url.Parse(uri)
	if err != nil || at.Host == "" || at.Scheme != "https" && at.Scheme != "http" || len(uri) > maxURI {
		return nil, refuse("its uriTemplate does not come to an http(s) address of at most %d bytes once it is filled in", maxURI)
	}
	content := fill(c.Webhook.BodyTemplate)
	if len(content) > maxBody {
		return nil, refuse("its body has %d bytes once it is filled in; at most %d are sent", len(content), maxBody)
	}
	if len(c.Webhook.Headers) > maxHeaders {
		return nil, refuse("it has %d headers; at most %d are sent", len(c.Webhook.Headers), maxHeaders)
	}
	var body io.Reader
	if content != "" {
		body = strings.NewReader(content)
	}
	request, err := http.NewRequestWithContext(ctx, c.Webhook.Method, at.String(), body)
	if err != nil {
		return nil, refuse("method %q cannot be sent", c.Webhook.Method)
	}
	for _, h := range c.Webhook.Headers {
		name, value := strings.TrimSpace(h.Key), fill(h.Value)
		if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return nil, refuse("its header %.80q cannot be sent: a name is letters, digits and hyphens, a value is one line", name)
		}
		if strings.EqualFold(name, "Host") { // who may be called, and with which secrets, is said of the address
			if !strings.EqualFold(value, at.Host) {
				return nil, refuse("its header Host is not the host of its uriTemplate, %s", at.Host)
			}
			continue
		}
		request.Header.Add(name, value)
	}
	if content != "" && request.Header.Get("Content-Type") == "" {
		request.Header.Set("Content-Type", "application/json")
	}
	request.Header.Set("Idempotency-Key", c.Key)
	return request, nil
}

// unreached says why no answer came. The address is not among it: there may be secrets in its path and its query.
func unreached(at *url.URL, err error) error {
	var failed *Failure
	if errors.As(err, &failed) {
		return refuse("%s %s", at.Host, failed.Text)
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	var refused interface{ EgressRefused() bool }
	if errors.As(err, &refused) {
		return refuse("%s", err)
	}
	return &Failure{Again: true, Text: fmt.Sprintf("%s cannot be reached: %s", at.Host, err)}
}

// quoted is the beginning of an answer, on one line.
func quoted(said string) string {
	text := strings.Join(strings.FieldsFunc(strings.ToValidUTF8(said, ""), func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	if len(text) > maxQuoted {
		text = strings.ToValidUTF8(text[:maxQuoted], "")
	}
	if text == "" {
		return ""
	}
	return ": " + text
}
