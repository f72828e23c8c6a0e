package github

import (
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
)

// Rename gives a repository another name, and perhaps another owner; GitHub leads on from the former one.
func (g *GitHub) Rename(from, to string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	from, key := strings.ToLower(from), strings.ToLower(to)
	r := g.repositories[from]
	delete(g.repositories, from)
	r.name, g.repositories[key], g.moved[from] = to, r, r
	for _, a := range g.accounts {
		a.rights[key] = a.rights[from]
		delete(a.rights, from)
	}
}

// find is a repository by a name that it has or had.
func (g *GitHub) find(name string) *repository {
	name = strings.ToLower(name)
	if r := g.repositories[name]; r != nil {
		return r
	}
	return g.moved[name]
}

// lead leads from a former name of a repository to its number, and from that to what it is called now; nil: the request stands as it is.
func (g *GitHub) lead(r *http.Request) *answer {
	parts := strings.SplitN(strings.TrimPrefix(r.URL.Path, "/"), "/", 4)
	switch {
	case parts[0] == "repositories" && len(parts) > 1:
		id, _ := strconv.ParseInt(parts[1], 10, 64) // none has 0
		for _, found := range g.repositories {
			if found.id == id {
				r.URL.Path = "/repos/" + found.name + strings.TrimPrefix(r.URL.Path, "/repositories/"+parts[1])
			}
		}
	case parts[0] == "repos" && len(parts) > 2:
		name := strings.ToLower(parts[1] + "/" + parts[2])
		if found := g.moved[name]; found != nil && g.repositories[name] == nil {
			status := http.StatusMovedPermanently
			if r.Method != http.MethodGet {
				status = http.StatusTemporaryRedirect
			}
			to := fmt.Sprintf("%srepositories/%d%s", g.URL, found.id, r.URL.Path[len("/repos/")+len(name):])
			a := refuse(status, "Moved Permanently")
			a.body.(object)["url"] = to
			a.header = http.Header{"Location": {to}}
			return &a
		}
	}
	return nil
}

// repository is how GitHub shows one.
func (g *GitHub) repository(r *repository) object {
	owner, name, _ := strings.Cut(r.name, "/")
	o := g.description.blank("repository", g.URL)
	maps.Copy(o, object{"id": r.id, "name": name, "full_name": r.name, "default_branch": "main", "private": true, "owner": g.owner(owner).user(g.URL), "url": g.address(r, ""),
		"created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z", "pushed_at": "2026-01-01T00:00:00Z", "has_discussions": false, "topics": []string{}, "visibility": "private"})
	return o
}

// owner is the organization that owns repositories.
func (g *GitHub) owner(login string) *account {
	a := g.person(login)
	a.kind = "Organization"
	return a
}

// address is where something of a repository is found in the API.
func (g *GitHub) address(r *repository, path string) string { return g.URL + "repos/" + r.name + path }
