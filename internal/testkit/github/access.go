package github

import (
	"net/http"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/storage"
	"github.com/go-git/go-git/v5/storage/memory"
)

// account is who a token speaks for, or whom GitHub shows as the author of something. Each token of a test has an account of its own.
type account struct {
	login  string
	id     int64
	kind   string            // User, Bot, Organization
	rights map[string]Rights // by repository
	spent  spent
}

// person is the account that has a login; who is not known yet is from then on.
func (g *GitHub) person(login string) *account {
	key := strings.ToLower(login)
	if g.people[key] == nil {
		g.people[key] = &account{login: login, id: g.id(), kind: "User", rights: map[string]Rights{}, spent: spent{since: g.now()}}
	}
	return g.people[key]
}

// Rights of a token on a repository: "read" or "write" by the name of the permission. A repository on which a token has none does not exist for it.
type Rights map[string]string

// Repository makes a repository "OWNER/NAME" that holds commits.
func (g *GitHub) Repository(name string, commits ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.repositories[strings.ToLower(name)]
	if r == nil {
		r = &repository{id: g.id(), name: name, commits: map[string]*commit{}, roles: map[string]string{},
			rules: map[string][]map[string]any{}, required: map[string]requiredChecks{}, diffs: map[span][]File{}}
		none := memory.NewStorage()
		r.objects = func() storage.Storer { return none }
		g.repositories[strings.ToLower(name)] = r
	}
	for _, sha := range commits {
		r.commits[sha] = &commit{sha: sha, told: map[string]int{}}
	}
}

// Wrote makes a commit one that a person wrote.
func (g *GitHub) Wrote(repository, sha, login string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.find(repository).commits[sha].author = g.person(login)
}

// Forget takes a commit away, as GitHub does with what no branch holds any more.
func (g *GitHub) Forget(repository, sha string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.repositories[strings.ToLower(repository)].commits, sha)
}

// Token lets a token do something in a repository; nil rights take away what it could do.
func (g *GitHub) Token(token, repository string, rights Rights) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.accounts[token]
	if a == nil {
		a = g.person("towpath-" + token)
		g.accounts[token] = a
	}
	a.rights[strings.ToLower(repository)] = rights
}

// Revoke makes a token worthless.
func (g *GitHub) Revoke(token string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.accounts, token)
}

type repository struct {
	id      int64
	name    string
	commits map[string]*commit
	objects func() storage.Storer // of Git, as they are now

	numbers     int // of pull requests so far
	pulls       []*Pull
	comments    []*Comment
	runs        []*Run
	deployments []*Deployment
	roles       map[string]string           // by login in lower case
	rules       map[string][]map[string]any // by branch
	required    map[string]requiredChecks   // by branch
	diffs       map[span][]File             // that were found out
}

type commit struct {
	sha      string
	author   *account // nil: nobody that GitHub knows
	statuses []Status
	told     map[string]int // how often, by context in lower case
}

// who finds out who is asking, by the token.
func (c *call) who() *answer {
	scheme, token, _ := strings.Cut(c.request.Header.Get("Authorization"), " ")
	if token == "" {
		a := refuse(http.StatusUnauthorized, "Requires authentication")
		return &a
	}
	if strings.Count(token, ".") == 2 {
		var refused *answer
		if c.app, refused = c.g.self(token); refused == nil {
			c.account = c.app.account
		}
		return refused
	}
	if i := c.g.tokens[token]; i != nil && c.g.now().Before(i.Expires) {
		c.issued, c.account = i, i.installation.account
	} else {
		c.account = c.g.accounts[token]
	}
	if c.account == nil || !strings.EqualFold(scheme, "Bearer") && !strings.EqualFold(scheme, "token") {
		a := refuse(http.StatusUnauthorized, "Bad credentials")
		return &a
	}
	return nil
}

// fits refuses operations that are for Apps themselves, or not for them.
func (c *call) fits() *answer {
	switch forApps := slices.Contains(withJWT, c.operation); {
	case forApps && c.app == nil:
		a := refuse(http.StatusUnauthorized, "A JSON web token could not be decoded")
		return &a
	case !forApps && c.app != nil:
		a := refuse(http.StatusForbidden, "Resource not accessible by integration")
		return &a
	}
	return nil
}

// repository is the one that the path names, if who asks may do there what they are about to do: one of the permissions is enough.
func (c *call) repository(level string, permissions ...string) (*repository, *answer) {
	name := strings.ToLower(c.vars["owner"] + "/" + c.vars["repo"])
	r := c.g.repositories[name]
	switch {
	case r == nil || len(c.rights(r)) == 0:
		a := notFound()
		return nil, &a
	case !c.may(r, level, permissions...):
		by := "personal access token"
		if c.issued != nil {
			by = "integration"
		}
		a := refuse(http.StatusForbidden, "Resource not accessible by "+by)
		return nil, &a
	}
	return r, nil
}

// rights are those of who asks.
func (c *call) rights(r *repository) Rights {
	switch {
	case c.issued == nil:
		return c.account.rights[strings.ToLower(r.name)]
	case slices.Contains(c.issued.repositories, r):
		return c.issued.May
	}
	return nil
}

// may reports whether who asks has one of the permissions.
func (c *call) may(r *repository, level string, permissions ...string) bool {
	return slices.ContainsFunc(permissions, func(p string) bool { return c.rights(r).allow(p, level) })
}

// allow: to read what everybody sees of a repository comes with any other right.
func (r Rights) allow(permission, level string) bool {
	return r[permission] == "write" || r[permission] == level || permission == "metadata" && level == "read" && len(r) > 0
}

func (a *account) user(base string) object {
	url := base + "users/" + a.login
	return object{"login": a.login, "id": a.id, "node_id": "U_" + a.login, "avatar_url": url + "/avatar", "gravatar_id": "", "url": url, "html_url": url, "followers_url": url,
		"following_url": url, "gists_url": url, "starred_url": url, "subscriptions_url": url, "organizations_url": url, "repos_url": url, "events_url": url,
		"received_events_url": url, "type": a.kind, "site_admin": false}
}
