package cluster

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// failure sorts an error by what can be done about it, in the words of whoever refused.
func (c *Client) failure(key manifest.Key, err error) *rollout.Failure {
	var known *rollout.Failure
	if errors.As(err, &known) {
		return known
	}
	f := c.sort(key, err)
	f.Text = shown(f.Text, 2000)
	return f
}

// shown is a text of a cluster as people may see it: what would steer a terminal is left out, and so is the end when there are more letters than most.
func shown(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, text)
	if letters := []rune(text); len(letters) > most {
		text = string(letters[:most]) + "…"
	}
	return text
}

func (c *Client) sort(key manifest.Key, err error) *rollout.Failure {
	f := &rollout.Failure{Class: rollout.Trouble, Object: key, Text: err.Error()}
	var status apierrors.APIStatus
	var request *url.Error
	switch {
	case c.away != nil && c.away(err):
		f.Class = rollout.Away
		if errors.As(err, &request) {
			f.Text = request.Err.Error()
		}
	case errors.Is(err, errTooLarge):
		f.Class, f.Text = rollout.Refused, fmt.Sprintf("%v: more than %d MiB", errTooLarge, c.largest>>20)
	case errors.Is(err, errNotServed):
		f.Class = rollout.Refused
	case errors.As(err, &status):
		f.Class = classOf(err, int(status.Status().Code))
	case errors.Is(err, context.DeadlineExceeded):
		f.Text = fmt.Sprintf("the cluster gave no answer within %s", c.timeout)
	case errors.As(err, &request): // the address in it is that of no server
		f.Text = "the cluster gave no answer: " + request.Err.Error()
	}
	return f
}

// hopeless is what an API server calls its own error (500) although it is the object's.
var hopeless = []string{"failed to create typed patch object", "failed to convert new object", "etcdserver: request is too large"}

// classOf an answer of the API server. Refused is only what the same request would meet again.
func classOf(err error, code int) rollout.Class {
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause): // it will be gone, and can then be made again
		return rollout.Trouble
	case slices.ContainsFunc(hopeless, func(text string) bool { return strings.Contains(err.Error(), text) }):
		return rollout.Refused
	case code == http.StatusConflict, code == http.StatusTooManyRequests, code == http.StatusUnauthorized, code == http.StatusRequestTimeout, code == http.StatusGone:
		return rollout.Trouble
	case code >= 400 && code < 500:
		return rollout.Refused
	}
	return rollout.Trouble
}

// conceal cuts an error's text off before the first value of a Secret in it: an API server repeats what it could not read, and failures are shown.
func conceal(o manifest.Object, f *rollout.Failure) *rollout.Failure {
	if f == nil || o.Group != "" || o.Kind != "Secret" {
		return f
	}
	fields := o.Map()
	for _, name := range []string{"data", "stringData"} {
		values, _ := fields[name].(map[string]any)
		for _, value := range values {
			for _, text := range spellings(value) {
				if at := strings.Index(f.Text, text); at >= 0 {
					f.Text = f.Text[:at] + "… (the rest is left out, as it holds a value of the Secret)"
				}
			}
		}
	}
	return f
}

// spellings in which a value may be repeated. Values of one or two characters are in every text, and no secret.
func spellings(value any) []string {
	var all []string
	add := func(text string) {
		if len(text) > 2 {
			all = append(all, text)
		}
	}
	switch value := value.(type) {
	case nil:
	case map[string]any:
		for _, inner := range value {
			all = append(all, spellings(inner)...)
		}
	case []any:
		for _, inner := range value {
			all = append(all, spellings(inner)...)
		}
	default:
		text := fmt.Sprint(value)
		add(text)
		if quoted := fmt.Sprintf("%q", text); quoted[1:len(quoted)-1] != text {
			add(quoted[1 : len(quoted)-1])
		}
		if plain, err := base64.StdEncoding.DecodeString(text); err == nil {
			add(string(plain))
		}
	}
	return all
}

var errTooLarge = errors.New("the cluster's answer is too large")

// bounded ends answers that are larger than most bytes. Watches have no end; their events are bounded by who decodes them.
type bounded struct {
	next http.RoundTripper
	most int64
}

func (b *bounded) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := b.next.RoundTrip(request)
	if err != nil || isWatch(request) {
		return response, err
	}
	response.Body = &boundedBody{response.Body, b.most}
	return response, nil
}

type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}
