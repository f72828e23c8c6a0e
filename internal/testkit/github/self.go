package github

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
)

// getUser is who a person's token speaks for; an installation is no user.
func getUser(c *call) answer {
	if c.issued != nil {
		return refuse(http.StatusForbidden, "Resource not accessible by integration")
	}
	o := c.g.description.blank("public-user", c.g.URL)
	maps.Copy(o, c.account.user(c.g.URL))
	o["user_view_type"] = "public"
	return done(http.StatusOK, o)
}

func getApp(c *call) answer { return done(http.StatusOK, c.g.integration(c.app)) }

func listInstallations(c *call) answer {
	var own []*installation
	for _, i := range c.g.installations {
		if i.app == c.app {
			own = append(own, i)
		}
	}
	slices.SortFunc(own, func(a, b *installation) int { return cmp.Compare(a.id, b.id) })
	return list(c, own, c.g.installation)
}

func listInstallationRepositories(c *call) answer {
	if c.issued == nil {
		return refuse(http.StatusForbidden, "You must authenticate with an installation access token in order to list repositories for an installation.")
	}
	a := list(c, c.issued.repositories, c.g.repository)
	a.body = object{"total_count": len(c.issued.repositories), "repository_selection": "selected", "repositories": a.body}
	return a
}

func getRepository(c *call) answer {
	r, refused := c.repository("read", "metadata")
	if refused != nil {
		return *refused
	}
	o := c.g.description.blank("full-repository", c.g.URL)
	maps.Copy(o, c.g.repository(r))
	return done(http.StatusOK, o)
}

func getMeta(c *call) answer {
	o := c.g.description.blank("api-overview", c.g.URL)
	o["verifiable_password_authentication"] = false
	return done(http.StatusOK, o)
}

func getRateLimit(c *call) answer {
	s := c.account.spent
	core := object{"limit": s.limit, "used": s.requests, "remaining": max(0, s.limit-s.requests), "reset": s.reset()}
	return done(http.StatusOK, object{"rate": core, "resources": object{"core": core, "search": core, "graphql": core}})
}
