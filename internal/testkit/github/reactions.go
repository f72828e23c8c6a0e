package github

import (
	"fmt"
	"net/http"
)

// Reaction is an answer to a comment by a picture.
type Reaction struct {
	By, Content string // +1, -1, laugh, confused, heart, hooray, rocket, eyes

	id int64
}

func createReaction(c *call) answer {
	_, found, refused := c.commentOf("write")
	if refused != nil {
		return *refused
	}
	var body struct{ Content string }
	if err := c.read(&body); err != nil {
		return invalidRequest(err)
	}
	for _, r := range found.Reactions {
		if r.By == c.account.login && r.Content == body.Content {
			return done(http.StatusOK, c.g.reaction(r))
		}
	}
	made := Reaction{By: c.account.login, Content: body.Content, id: c.g.id()}
	found.Reactions = append(found.Reactions, made)
	return done(http.StatusCreated, c.g.reaction(made))
}

func (g *GitHub) reaction(r Reaction) object {
	return object{"id": r.id, "node_id": fmt.Sprintf("REA_%d", r.id), "user": g.person(r.By).user(g.URL), "content": r.Content, "created_at": timestamp(g.now())}
}

// reactionsOf is how GitHub counts reactions.
func reactionsOf(url string, all []Reaction) object {
	o := object{"url": url, "total_count": len(all)}
	for _, content := range []string{"+1", "-1", "laugh", "confused", "heart", "hooray", "rocket", "eyes"} {
		n := 0
		for _, r := range all {
			if r.Content == content {
				n++
			}
		}
		o[content] = n
	}
	return o
}
