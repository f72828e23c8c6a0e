// Package client calls the HTTP API. It is all that the command line knows of a controller.
package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"towpath/api"
)

// Client is one controller and one token.
type Client struct {
	Address string // https://towpath.example.com
	Token   string
	HTTP    *http.Client
}

// Error is an answer that is no success.
type Error struct {
	Status int
	Type   string   `json:"type"`
	Detail string   `json:"detail"`
	Errors []Detail `json:"errors"`
}

// Detail is one of several things that are wrong.
type Detail struct {
	Message  string `json:"message"`
	Location string `json:"location"`
}

func (e *Error) Error() string {
	if e.Detail == "" {
		return fmt.Sprintf("the controller answered %d %s", e.Status, http.StatusText(e.Status))
	}
	var lines []string
	for _, d := range e.Errors {
		lines = append(lines, strings.TrimPrefix(d.Location+": "+d.Message, ": "))
	}
	return strings.Join(append([]string{e.Detail}, lines...), "\n")
}

// Call sends a request and reads the answer into out; nil: it is not wanted.
func (c *Client) Call(ctx context.Context, method, path string, in, out any) error {
	return c.call(ctx, method, path, nil, in, out)
}

// tries of a request whose answer was lost, and the wait before the second one.
const (
	tries = 4
	pause = 500 * time.Millisecond
)

// Once is Call for a request that starts something: when its answer is lost it is sent again, and the controller does it once.
func (c *Client) Once(ctx context.Context, method, path string, in, out any) error {
	key := http.Header{"Idempotency-Key": {rand.Text()}}
	for try := 1; ; try++ {
		err := c.call(ctx, method, path, key, in, out)
		if err == nil || Final(err) || try == tries {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Duration(try) * pause):
		}
	}
}

// Final reports whether an error is a controller's word: the same request would be refused again.
func Final(err error) bool {
	var told *Error
	return errors.As(err, &told) && told.Status < http.StatusInternalServerError
}

func (c *Client) call(ctx context.Context, method, path string, header http.Header, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	answer, err := c.send(ctx, method, path, body, header)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if out == nil {
		return nil
	}
	return json.NewDecoder(io.LimitReader(answer.Body, 64<<20)).Decode(out)
}

func (c *Client) send(ctx context.Context, method, path string, body io.Reader, header http.Header) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.Address, "/")+"/api/v1"+path, body)
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		request.Header[name] = values
	}
	if c.Token != "" {
		request.Header.Set("Authorization", "Bearer "+c.Token)
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	answer, err := c.HTTP.Do(request)
	if err != nil {
		var wrong *url.Error
		if errors.As(err, &wrong) {
			err = wrong.Err
		}
		return nil, fmt.Errorf("the controller at %s cannot be reached: %w", c.Address, err)
	}
	if answer.StatusCode < 300 {
		return answer, nil
	}
	defer answer.Body.Close()
	refusal := &Error{Status: answer.StatusCode}
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err == nil && json.Unmarshal(text, refusal) != nil {
		refusal.Detail = "" // no answer of ours
	}
	refusal.Status = answer.StatusCode
	return nil, refusal
}

// Deployment reads one deployment.
func (c *Client) Deployment(ctx context.Context, id string) (d api.Deployment, err error) {
	err = c.Call(ctx, http.MethodGet, "/deployments/"+url.PathEscape(id), nil, &d)
	return d, err
}

// silence is how long a stream may say nothing, not even that it lives.
const silence = 45 * time.Second

// Follow calls seen for each event of a deployment ("" : of all) after one, until seen returns false or ctx ends. A stream that is cut or falls silent is
// an error; the caller comes back with the last id that it saw.
func (c *Client) Follow(ctx context.Context, deployment string, after int64, seen func(api.Event) bool) error {
	return c.Attend(ctx, deployment, after, seen, func() {})
}

// Attend is Follow for those who want to hear, by beat, each ten seconds that the stream lives.
func (c *Client) Attend(ctx context.Context, deployment string, after int64, seen func(api.Event) bool, beat func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	quiet := time.AfterFunc(silence, cancel)
	defer quiet.Stop()
	query := url.Values{"after": {strconv.FormatInt(after, 10)}}
	if deployment != "" {
		query.Set("deployment", deployment)
	}
	answer, err := c.send(ctx, http.MethodGet, "/events?"+query.Encode(), nil, http.Header{"Accept": {"text/event-stream"}})
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 1<<20)
	kind := "event"
	for lines.Scan() {
		line := lines.Text()
		quiet.Reset(silence)
		switch {
		case line == "":
			kind = "event"
		case strings.HasPrefix(line, "event: "):
			kind = line[len("event: "):]
		case strings.HasPrefix(line, "data: ") && kind == "beat":
			beat()
		case strings.HasPrefix(line, "data: "):
			var e api.Event
			if err := json.Unmarshal([]byte(line[len("data: "):]), &e); err != nil {
				return fmt.Errorf("an event that cannot be read: %w", err)
			}
			if e.ID > 0 && !seen(e) {
				return nil
			}
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}
