package github

import (
	"fmt"
	"slices"
	"strings"
)

// happened tells an event of a repository to the Apps that are installed on it and hear of such things; each is told once GitHub is free again. to: this
// one only, nil for all.
func (g *GitHub) happened(r *repository, to *app, event string, by *account, said object) {
	for _, i := range g.installations {
		if i.app.hook.client == nil || to != nil && i.app != to || i.suspended || !slices.Contains(i.repositories, r) || !i.may.hear(event) {
			continue
		}
		d := &delivery{guid: fmt.Sprintf("guid-%d", g.id()), event: event, installation: i.id}
		g.say(d, r, by, said)
		if err := g.description.checkEvent(event, d.action, d.body); err != nil {
			g.t.Errorf("the GitHub for tests delivers %s %s as GitHub never does: %s", event, d.action, strings.Join(complaints(err), "; "))
		}
		g.outgoing = append(g.outgoing, func() { g.meet(i.app, d) })
	}
}

// hear reports whether these rights let an App hear of an event.
func (r Rights) hear(event string) bool {
	switch event {
	case "check_run", "check_suite":
		return r.allow("checks", "read")
	case "issue_comment":
		return r.allow("pull_requests", "read") || r.allow("issues", "read")
	case "merge_group":
		return r.allow("merge_queues", "read") || r.allow("pull_requests", "read")
	case "pull_request":
		return r.allow("pull_requests", "read")
	case "push":
		return r.allow("contents", "read")
	}
	return true
}

// begun are the deliveries that are to be made now, in the order in which things happened.
func (g *GitHub) begun() []func() {
	out := g.outgoing
	g.outgoing = nil
	return out
}

// act does something as a person does it, in a browser, and delivers what happened before it returns.
func (g *GitHub) act(do func()) {
	g.mu.Lock()
	do()
	deliveries := g.begun()
	g.mu.Unlock()
	for _, deliver := range deliveries {
		deliver()
	}
}
