package github

import (
	"net/http"
	"strings"
	"time"
)

// account is who a token speaks for. Each token of a test has an account of its own.
type account struct {
	login  string
	id     int64
	rights map[string]Rights // by repository
	spent  spent
}

// Rights of a token on a repository: "read" or "write" by the name of the permission. A repository on which a token has none does not exist for it.
type Rights map[string]string

// Repository makes a repository "OWNER/NAME" that holds commits.
func (g *GitHub) Repository(name string, commits ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.repositories[strings.ToLower(name)]
	if r == nil {
		r = &repository{name: name, commits: map[string]*commit{}}
		g.repositories[strings.ToLower(name)] = r
	}
	for _, sha := range commits {
		r.commits[sha] = &commit{sha: sha, told: map[string]int{}}
	}
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
		a = &account{login: "towpath-" + token, id: g.id(), rights: map[string]Rights{}, spent: spent{since: time.Now()}}
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
	name    string
	commits map[string]*commit
}

type commit struct {
	sha      string
	statuses []Status
	told     map[string]int // how often, by context in lower case
}

// who is asking, by the token.
func (g *GitHub) who(r *http.Request) (*account, *answer) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if token == "" {
		a := refuse(http.StatusUnauthorized, "Requires authentication")
		return nil, &a
	}
	known := g.accounts[token]
	if known == nil || !strings.EqualFold(scheme, "Bearer") && !strings.EqualFold(scheme, "token") {
		a := refuse(http.StatusUnauthorized, "Bad credentials")
		return nil, &a
	}
	return known, nil
}

// repository is the one that the path names, if who asks may do there what they are about to do.
func (c *call) repository(permission, level string) (*repository, *answer) {
	name := strings.ToLower(c.vars["owner"] + "/" + c.vars["repo"])
	rights := c.account.rights[name]
	r := c.g.repositories[name]
	if r == nil || len(rights) == 0 {
		a := notFound()
		return nil, &a
	}
	if has := rights[permission]; has != level && has != "write" {
		a := refuse(http.StatusForbidden, "Resource not accessible by personal access token")
		return nil, &a
	}
	return r, nil
}

func (a *account) user(base string) object {
	url := base + "users/" + a.login
	return object{"login": a.login, "id": a.id, "node_id": "U_" + a.login, "avatar_url": url + "/avatar", "gravatar_id": "", "url": url, "html_url": url, "followers_url": url,
		"following_url": url, "gists_url": url, "starred_url": url, "subscriptions_url": url, "organizations_url": url, "repos_url": url, "events_url": url,
		"received_events_url": url, "type": "User", "site_admin": false}
}
