package preview

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"mime"
	"net/http"
)

// quiet takes what the proxy would log beside the audit.
var quiet = log.New(io.Discard, "", 0)

// words are all that visitors are told.
var words = map[int]string{
	http.StatusBadRequest:            "This address cannot be asked for here.",
	http.StatusForbidden:             "This may not be asked for from there.",
	http.StatusNotFound:              "There is nothing here.",
	http.StatusMethodNotAllowed:      "This cannot be asked for here.",
	http.StatusRequestEntityTooLarge: "This is too large.",
	http.StatusTooManyRequests:       "Too many ask at once. Try again in a moment.",
	http.StatusInternalServerError:   "Something went wrong. Try again in a moment.",
	http.StatusNotImplemented:        "This is not carried here.",
	http.StatusBadGateway:            "What is behind this address does not answer. Try again in a moment.",
	http.StatusGatewayTimeout:        "What is behind this address did not answer in time.",
}

// page is an answer of our own. It tells nothing of what is, or was, behind the address.
func page(w http.ResponseWriter, status int) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Robots-Tag", "noindex, nofollow")
	w.WriteHeader(status)
	fmt.Fprintln(w, words[status])
}

// status is the API server's way to refuse.
type status struct {
	Kind       string `json:"kind"`
	APIVersion string `json:"apiVersion"`
	Status     string `json:"status,omitempty"`
	Message    string `json:"message"`
	Reason     string `json:"reason,omitempty"`
	Code       int    `json:"code,omitempty"`
}

// mostStatus is longer than any refusal of an API server.
const mostStatus = 64 << 10

// refusedBy is why the API server has answered in place of the Service; "" when it has not. Its words name namespaces and accounts, so they are not for visitors.
func refusedBy(answer *http.Response) string {
	if kind, _, _ := mime.ParseMediaType(answer.Header.Get("Content-Type")); answer.StatusCode < 400 || kind != "application/json" {
		return ""
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, mostStatus))
	if err != nil {
		return err.Error()
	}
	answer.Body = &rejoined{io.MultiReader(bytes.NewReader(text), answer.Body), answer.Body}
	var said status
	if json.Unmarshal(text, &said) != nil || said.Kind != "Status" || said.APIVersion != "v1" {
		return ""
	}
	if answer.StatusCode == http.StatusForbidden {
		return said.Message + "; the agent's ServiceAccount needs get, create, update, patch and delete of services/proxy there: kubernetes.previews of its chart"
	}
	return said.Message
}

// rejoined is a body of which the beginning was read already.
type rejoined struct {
	io.Reader
	io.Closer
}
