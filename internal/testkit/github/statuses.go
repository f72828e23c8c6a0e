package github

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Status is a commit status as it was told.
type Status struct {
	Context, State, Description, TargetURL string
	Creator                                string
	At                                     time.Time

	id int64
}

const (
	maxDescription = 140
	maxOfContext   = 1000 // on one commit, for ever
	maxContext     = 255
)

// Statuses are all that were told of a commit, oldest first.
func (g *GitHub) Statuses(repository, sha string) []Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.repositories[strings.ToLower(repository)]
	if r == nil || r.commits[sha] == nil {
		return nil
	}
	return slices.Clone(r.commits[sha].statuses)
}

// Shown is the newest status of each context of a commit, as people see it; contexts are in lower case.
func (g *GitHub) Shown(repository, sha string) map[string]Status {
	shown := map[string]Status{}
	for _, s := range g.Statuses(repository, sha) {
		shown[strings.ToLower(s.Context)] = s
	}
	return shown
}

// Tell puts a status on a commit as somebody else would.
func (g *GitHub) Tell(repository, sha string, s Status) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.find(repository).commit(sha).add(s, g.id(), g.now())
}

func (c *commit) add(s Status, id int64, at time.Time) Status {
	s.id, s.At = id, at
	c.statuses = append(c.statuses, s)
	c.told[strings.ToLower(s.Context)]++
	return s
}

func createStatus(c *call) answer {
	r, refused := c.repository("write", "statuses")
	if refused != nil {
		return *refused
	}
	var body struct {
		State       string
		Context     *string
		Description *string
		TargetURL   *string `json:"target_url"`
	}
	if err := c.read(&body); err != nil {
		return invalidRequest(err)
	}
	s := Status{State: body.State, Context: "default", Creator: c.account.login}
	if body.Context != nil {
		s.Context = *body.Context
	}
	if body.Description != nil {
		s.Description = *body.Description
	}
	if body.TargetURL != nil {
		s.TargetURL = *body.TargetURL
	}
	found := r.commit(c.vars["sha"])
	switch target, err := url.Parse(s.TargetURL); {
	case found == nil:
		return invalidField("Status", "sha", "No commit found for SHA: "+c.vars["sha"])
	case s.Context == "":
		return invalidField("Status", "context", "context cannot be blank")
	case utf8.RuneCountInString(s.Context) > maxContext:
		return invalidField("Status", "context", fmt.Sprintf("context is too long (maximum is %d characters)", maxContext))
	case utf8.RuneCountInString(s.Description) > maxDescription:
		return invalidField("Status", "description", fmt.Sprintf("description is too long (maximum is %d characters)", maxDescription))
	case s.TargetURL != "" && (err != nil || target.Scheme != "http" && target.Scheme != "https"):
		return invalidField("Status", "target_url", "target_url must use http(s) scheme")
	case found.told[strings.ToLower(s.Context)] >= maxOfContext:
		return invalidField("Status", "context", "This SHA and context has reached the maximum number of statuses.")
	}
	s = found.add(s, c.g.id(), c.g.now())
	address := c.g.statusAddress(r, found, s)
	return answer{status: http.StatusCreated, header: http.Header{"Location": {address}}, body: c.g.status(r, found, s)}
}

func listStatuses(c *call) answer {
	r, refused := c.repository("read", "statuses")
	if refused != nil {
		return *refused
	}
	found := r.commit(r.resolve(c.vars["ref"]))
	if found == nil {
		return notFound()
	}
	newest := slices.Clone(found.statuses)
	slices.Reverse(newest)
	return list(c, newest, func(s Status) object { return c.g.status(r, found, s) })
}

// getCombinedStatus shows the newest status of each context, and what they come to.
func getCombinedStatus(c *call) answer {
	r, refused := c.repository("read", "statuses")
	if refused != nil {
		return *refused
	}
	found := r.commit(r.resolve(c.vars["ref"]))
	if found == nil {
		return notFound()
	}
	var newest []Status
	for _, s := range slices.Backward(found.statuses) {
		if !slices.ContainsFunc(newest, func(other Status) bool { return strings.EqualFold(other.Context, s.Context) }) {
			newest = append(newest, s)
		}
	}
	state := "success"
	for _, s := range newest {
		switch {
		case s.State == "failure" || s.State == "error":
			state = "failure"
		case state == "success" && s.State == "pending":
			state = "pending"
		}
	}
	if len(newest) == 0 {
		state = "pending"
	}
	a := list(c, newest, func(s Status) object { return c.g.status(r, found, s) })
	repository := c.g.description.blank("minimal-repository", c.g.URL)
	maps.Copy(repository, c.g.repository(r))
	a.body = object{"state": state, "statuses": a.body, "sha": found.sha, "total_count": len(newest), "repository": repository, "commit_url": c.g.address(r, "/commits/"+found.sha),
		"url": c.g.address(r, "/commits/"+found.sha+"/status")}
	return a
}

func (g *GitHub) statusAddress(r *repository, c *commit, s Status) string {
	return fmt.Sprintf("%srepos/%s/statuses/%s?%d", g.URL, r.name, c.sha, s.id)
}

func (g *GitHub) status(r *repository, c *commit, s Status) object {
	at := s.At.UTC().Format(time.RFC3339)
	told := object{"url": g.statusAddress(r, c, s), "avatar_url": nil, "id": s.id, "node_id": fmt.Sprintf("SC_%d", s.id), "state": s.State, "description": nullable(s.Description),
		"target_url": nullable(s.TargetURL), "context": s.Context, "created_at": at, "updated_at": at, "creator": nil}
	if s.Creator != "" {
		told["creator"] = g.person(s.Creator).user(g.URL)
	}
	return told
}

// nullable is null for "".
func nullable(text string) any {
	if text == "" {
		return nil
	}
	return text
}
