package github

import "maps"

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

// Written are how many requests changed something, by GitHub's name of the operation, such as checks/update.
func (g *GitHub) Written() map[string]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.written)
}
