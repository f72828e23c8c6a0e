package analysis

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/theory/jsonpath"

	"towpath/deployment"
)

// NewHTTP makes a provider of a server that answers with JSON. In its address, and in the body when it has one, {{query}} is replaced by the query, {{start}}
// and {{end}} by the window in seconds since 1970; a body is JSON and sent by POST. value is a JSON path (RFC 9535) to the one number in the answer.
func NewHTTP(s Server, a Auth, body, value string) (*Provider, error) {
	path, err := jsonpath.Parse(value)
	if err != nil {
		return nil, fmt.Errorf("metric provider %s: value: %q is no JSON path like $.data.value: %w", s.Name, value, err)
	}
	_, unknown := fill(s.URL+body, "", Window{}, url.QueryEscape)
	asks := false
	_, _ = deployment.Fill(s.URL+body, func(name string) (string, bool) { asks = asks || name == "query"; return "", true })
	switch {
	case len(unknown) > 0:
		return nil, fmt.Errorf("metric provider %s: there is no variable %s; known are query, start, end", s.Name, unknown[0])
	case !asks:
		return nil, fmt.Errorf("metric provider %s: neither url nor body holds {{query}}", s.Name)
	}
	return newProvider(s, &plain{s.URL, body, path, a}, a.secrets()...)
}

type plain struct {
	url, body string
	value     *jsonpath.Path
	auth      Auth
}

func fill(template, query string, w Window, escape func(string) string) (string, []string) {
	return deployment.Fill(template, func(name string) (string, bool) {
		switch name {
		case "query":
			return escape(query), true
		case "start":
			return strconv.FormatInt(w.Start.Unix(), 10), true
		case "end":
			return strconv.FormatInt(w.End.Unix(), 10), true
		}
		return "", false
	})
}

func (p *plain) request(query string, w Window) (*http.Request, error) {
	// A blank as %20 is right in a path too, where + is not.
	address, _ := fill(p.url, query, w, func(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "+", "%20") })
	method, body := http.MethodGet, ""
	if p.body != "" {
		method = http.MethodPost
		body, _ = fill(p.body, query, w, inQuotes)
	}
	request, err := http.NewRequest(method, address, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != "" {
		request.Header.Set("Content-Type", contentType)
	}
	p.auth.set(request)
	return request, nil
}

// inQuotes writes a text as it stands between the quotes of JSON.
func inQuotes(text string) string {
	quoted, err := json.Marshal(text)
	if err != nil {
		panic(err) // a text
	}
	return string(quoted[1 : len(quoted)-1])
}

func (p *plain) complaint([]byte) string { return "" }

func (p *plain) measurement(answer []byte, show func(string) string) (Measurement, error) {
	var all any
	if err := json.Unmarshal(answer, &all); err != nil {
		return Measurement{}, refused("its answer cannot be read: %s", show(err.Error()))
	}
	found := p.value.Select(all)
	switch {
	case len(found) == 0:
		return Measurement{}, noData("there is nothing at %s in its answer: %s", p.value, show(string(answer)))
	case len(found) > 1:
		return Measurement{}, refused("there are %d values at %s in its answer, and must be one", len(found), p.value)
	}
	switch value := found[0].(type) {
	case float64:
		return Measurement{Value: value}, nil
	case nil:
		return Measurement{}, noData("there is null at %s in its answer", p.value)
	}
	text, err := json.Marshal(found[0])
	if err != nil {
		return Measurement{}, refused("its answer cannot be read: %s", show(err.Error()))
	}
	return Measurement{}, refused("there is no number at %s in its answer, but %s", p.value, show(string(text)))
}
