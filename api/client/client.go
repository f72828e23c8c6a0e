// Package client calls the HTTP API. It is all that the command line knows of a controller.
package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

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
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	answer, err := c.send(ctx, method, path, body, nil)
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

// Follow calls seen for each event of a deployment ("" : of all) after one, until seen returns false or ctx ends. A cut stream is an error; the caller
// comes back with the last id that it saw.
func (c *Client) Follow(ctx context.Context, deployment string, after int64, seen func(api.Event) bool) error {
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
		switch {
		case line == "":
			kind = "event"
		case strings.HasPrefix(line, "event: "):
			kind = line[len("event: "):]
		case strings.HasPrefix(line, "data: ") && kind != "beat":
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
