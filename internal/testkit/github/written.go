package github

import (
	"maps"
	"net/http"
	"slices"
)

// creates are the operations that make something people see, by GitHub's name of the operation, and what they make.
var creates = map[string]string{
	"repos/create-commit-status":         "status",
	"checks/create":                      "check run",
	"issues/create-comment":              "comment",
	"reactions/create-for-issue-comment": "reaction",
	"pulls/create":                       "pull request",
	"repos/create-deployment":            "deployment",
	"repos/create-deployment-status":     "deployment status",
}

// Creations are how many things of each kind were created: status, check run, comment, reaction, pull request, deployment, deployment status.
func (g *GitHub) Creations() map[string]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	made := map[string]int{}
	for operation, kind := range creates {
		if n := g.written[operation]; n > 0 {
			made[kind] = n
		}
	}
	return made
}

// Written are how many requests changed something, by GitHub's name of the operation, such as checks/update, or minimizeComment.
func (g *GitHub) Written() map[string]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.written)
}

// Write is a request to change something, on its way.
type Write struct {
	N         int // counted from 1, refused ones too
	Operation string
	Path      string
	Done      bool // false: it is about to be done; true: it was, and nobody was answered yet
}

// AroundWrites calls a function twice for each write, before it is done and after; nil ends it. Where it is called a test can end the program that
// asks, or panic with http.ErrAbortHandler, which cuts the connection. Tokens are no writes.
func (g *GitHub) AroundWrites(f func(Write)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.around, g.writes = f, 0
}

// beforeWrite tells that a write is about to be done, and returns what tells that it was.
func (c *call) beforeWrite() (after func()) {
	c.g.mu.Lock()
	f := c.g.around
	if f == nil || c.request.Method == http.MethodGet || slices.Contains(open, c.operation) || slices.Contains(withJWT, c.operation) {
		c.g.mu.Unlock()
		return func() {}
	}
	c.g.writes++
	w := Write{N: c.g.writes, Operation: c.operation, Path: c.request.URL.Path}
	c.g.mu.Unlock()
	f(w)
	w.Done = true
	return func() { f(w) }
}
