package github

import (
	"maps"
	"net/http"
	"slices"
	"strings"
)

// Role gives a person a role in a repository: admin, maintain, write, triage, read or one of the organization's own; "" takes it away.
func (g *GitHub) Role(repository, login, role string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.person(login)
	g.find(repository).roles[strings.ToLower(login)] = role
}

// Member puts a person into a team, "ORG/SLUG"; state: active, or pending before an invitation is accepted; "" takes them out of it.
func (g *GitHub) Member(team, login, state string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.person(login)
	g.members[strings.ToLower(team+"/"+login)] = state
}

func getPermission(c *call) answer {
	r, refused := c.repository("read", "metadata")
	if refused != nil {
		return *refused
	}
	found := c.g.people[strings.ToLower(c.vars["username"])]
	if found == nil {
		return notFound()
	}
	role := r.roles[strings.ToLower(found.login)]
	permission := role
	switch role {
	case "":
		role, permission = "none", "none"
	case "maintain":
		permission = "write"
	case "triage":
		permission = "read"
	case "admin", "write", "read":
	default: // a role of the organization's own shows what it is based on
		permission = "read"
	}
	user := found.user(c.g.URL)
	maps.Copy(user, object{"role_name": role, "permissions": object{"pull": permission != "none", "triage": role == "triage", "push": permission == "write" || permission == "admin",
		"maintain": role == "maintain", "admin": role == "admin"}})
	return done(http.StatusOK, object{"permission": permission, "role_name": role, "user": user})
}

func getMembership(c *call) answer {
	if !c.seesMembers(c.vars["org"]) {
		return refuse(http.StatusForbidden, "Resource not accessible by integration")
	}
	state := c.g.members[strings.ToLower(c.vars["org"]+"/"+c.vars["team_slug"]+"/"+c.vars["username"])]
	if state == "" {
		return notFound()
	}
	return done(http.StatusOK, object{"role": "member", "state": state, "url": c.g.URL + strings.TrimPrefix(c.request.URL.Path, "/")})
}

// seesMembers reports whether who asks may see who belongs to the teams of an organization.
func (c *call) seesMembers(org string) bool {
	if c.issued != nil {
		return strings.EqualFold(c.issued.installation.owner, org) && c.issued.May.allow("members", "read")
	}
	return slices.ContainsFunc(slices.Collect(maps.Keys(c.account.rights)), func(repository string) bool {
		owner, _, _ := strings.Cut(repository, "/")
		return strings.EqualFold(owner, org) && c.account.rights[repository].allow("members", "read")
	})
}
