package github

import (
	"maps"
	"net/http"
	"strings"
)

func getBranch(c *call) answer {
	r, refused := c.repository("read", "contents")
	if refused != nil {
		return *refused
	}
	name := c.vars["branch"]
	sha := r.at("refs/heads/" + name)
	if sha == "" {
		return refuse(http.StatusNotFound, "Branch not found")
	}
	o := c.g.description.blank("branch-with-protection", c.g.URL)
	_, protected := r.required[name]
	maps.Copy(o, object{"name": name, "commit": c.g.shownCommit(r, sha), "protected": protected || len(r.rules[name]) > 0})
	return done(http.StatusOK, o)
}

// getCommit answers with the hash alone when it is asked for that.
func getCommit(c *call) answer {
	r, refused := c.repository("read", "contents")
	if refused != nil {
		return *refused
	}
	sha := r.resolve(c.vars["ref"])
	if r.commit(sha) == nil {
		return refuse(http.StatusUnprocessableEntity, "No commit found for SHA: "+c.vars["ref"])
	}
	if strings.Contains(c.request.Header.Get("Accept"), ".sha") {
		return answer{status: http.StatusOK, header: http.Header{"Etag": {`"` + sha + `"`}}, body: verbatim(sha)}
	}
	return done(http.StatusOK, c.g.shownCommit(r, sha))
}

// Rules says which rules hold for a branch, each as GitHub shows it: "type", mostly with "parameters".
func (g *GitHub) Rules(repository, branch string, rules ...map[string]any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.find(repository).rules[branch] = rules
}

func getRules(c *call) answer {
	r, refused := c.repository("read", "metadata")
	if refused != nil {
		return *refused
	}
	return list(c, r.rules[c.vars["branch"]], func(rule map[string]any) object {
		o := object{"ruleset_source_type": "Repository", "ruleset_source": r.name, "ruleset_id": r.id}
		maps.Copy(o, rule)
		return o
	})
}

// RequireChecks protects a branch, in the older way, by checks that must have passed; strict: on the newest base.
func (g *GitHub) RequireChecks(repository, branch string, strict bool, contexts ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.find(repository).required[branch] = requiredChecks{strict, contexts}
}

// requiredChecks are those that must have passed before a merge.
type requiredChecks struct {
	strict   bool
	contexts []string
}

func getRequiredChecks(c *call) answer {
	r, refused := c.repository("read", "administration")
	if refused != nil {
		return *refused
	}
	found, protected := r.required[c.vars["branch"]]
	if !protected {
		return refuse(http.StatusNotFound, "Branch not protected")
	}
	url := c.g.address(r, "/branches/"+c.vars["branch"]+"/protection/required_status_checks")
	checks := []object{}
	for _, context := range found.contexts {
		checks = append(checks, object{"context": context, "app_id": nil})
	}
	return done(http.StatusOK, object{"url": url, "strict": found.strict, "contexts": found.contexts, "contexts_url": url + "/contexts", "checks": checks})
}
