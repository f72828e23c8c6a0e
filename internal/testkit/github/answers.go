package github

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const contentType = "application/json; charset=utf-8"

// answer is what a call is answered with.
type answer struct {
	status int
	header http.Header
	body   any
}

// text is the body as it is sent.
func (a answer) text() []byte {
	switch body := a.body.(type) {
	case nil:
		return nil
	case verbatim:
		return []byte(body)
	}
	text, err := json.Marshal(a.body)
	if err != nil {
		panic(err) // bodies are made here
	}
	return text
}

// value is the body as somebody reads it.
func (a answer) value() (v any) {
	if err := json.Unmarshal(a.text(), &v); err != nil {
		panic(err)
	}
	return v
}

// verbatim is a body that is no JSON.
type verbatim string

// object is a body, or a part of one.
type object map[string]any

func refuse(status int, message string) answer {
	return answer{status: status, body: object{"message": message, "documentation_url": "https://docs.github.com/rest", "status": strconv.Itoa(status)}}
}

// notFound is also what GitHub says of that which one may not see.
func notFound() answer { return refuse(http.StatusNotFound, "Not Found") }

// invalidRequest refuses what the description does not allow.
func invalidRequest(err error) answer {
	return refuse(http.StatusUnprocessableEntity, "Invalid request.\n\n"+strings.Join(complaints(err), "\n"))
}

// done is an answer that holds something.
func done(status int, body any) answer { return answer{status: status, body: body} }

// number is one that the path holds; none has 0.
func (c *call) number(name string) int64 {
	n, _ := strconv.ParseInt(c.vars[name], 10, 64)
	return n
}

// timestamp is how GitHub writes a time; null when there is none.
func timestamp(at time.Time) any {
	if at.IsZero() {
		return nil
	}
	return at.UTC().Format(time.RFC3339)
}

// list is a page of things, each as GitHub shows it.
func list[T any](c *call, all []T, show func(T) object) answer {
	shown, header := page(c, all)
	body := make([]object, len(shown))
	for i, one := range shown {
		body[i] = show(one)
	}
	return answer{status: http.StatusOK, header: header, body: body}
}

// invalidField refuses what the description allows and GitHub does not.
func invalidField(resource, field, message string) answer {
	return answer{status: http.StatusUnprocessableEntity, body: object{"message": "Validation Failed", "documentation_url": "https://docs.github.com/rest", "status": "422",
		"errors": []object{{"resource": resource, "code": "custom", "field": field, "message": message}}}}
}

// page cuts a list as page and per_page say, and links to the other pages.
func page[T any](c *call, all []T) ([]T, http.Header) {
	query := c.request.URL.Query()
	number := func(name string, otherwise int) int {
		if n, err := strconv.Atoi(query.Get(name)); err == nil && n > 0 {
			return n
		}
		return otherwise
	}
	size, current := min(number("per_page", 30), 100), number("page", 1)
	last := max(1, (len(all)+size-1)/size)
	var links []string
	link := func(page int, relation string) {
		query.Set("page", strconv.Itoa(page))
		links = append(links, fmt.Sprintf(`<%s%s?%s>; rel=%q`, strings.TrimSuffix(c.g.URL, "/"), c.request.URL.Path, query.Encode(), relation))
	}
	if current > 1 {
		link(current-1, "prev")
	}
	if current < last {
		link(current+1, "next")
		link(last, "last")
	}
	header := http.Header{}
	if len(links) > 0 {
		header.Set("Link", strings.Join(links, ", "))
	}
	from := min((current-1)*size, len(all))
	return all[from:min(from+size, len(all))], header
}
