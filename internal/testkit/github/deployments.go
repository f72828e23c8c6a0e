package github

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Deployment is one, with how it went.
type Deployment struct {
	ID                                int64
	SHA, Ref, Task                    string
	Environment, Description, Creator string
	Payload                           any
	Production, Transient             bool
	Statuses                          []DeploymentStatus // oldest first
	At                                time.Time
}

// DeploymentStatus is what was said of a deployment at a time.
type DeploymentStatus struct {
	ID                              int64
	State, Description, Environment string
	LogURL, EnvironmentURL, Creator string
	At                              time.Time
}

// State is the newest; "": none was told.
func (d Deployment) State() string {
	if len(d.Statuses) == 0 {
		return ""
	}
	return d.Statuses[len(d.Statuses)-1].State
}

// Deployments are those of a repository to an environment, "" all, as they stand, oldest first.
func (g *GitHub) Deployments(repository, environment string) (all []Deployment) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, d := range g.find(repository).deployments {
		if environment == "" || environment == d.Environment {
			shown := *d
			shown.Statuses = slices.Clone(d.Statuses)
			all = append(all, shown)
		}
	}
	return all
}

func createDeployment(c *call) answer {
	r, refused := c.repository("write", "deployments")
	if refused != nil {
		return *refused
	}
	body := struct {
		Ref, Task, Environment string
		Description            string
		Payload                any
		AutoMerge              bool      `json:"auto_merge"`
		RequiredContexts       *[]string `json:"required_contexts"`
		Production             *bool     `json:"production_environment"`
		Transient              bool      `json:"transient_environment"`
	}{Task: "deploy", Environment: "production", Payload: "", AutoMerge: true}
	if err := c.read(&body); err != nil {
		return invalidRequest(err)
	}
	sha := r.resolve(body.Ref)
	found := r.commit(sha)
	switch {
	case found == nil:
		return refuse(http.StatusUnprocessableEntity, "No ref found for: "+body.Ref)
	case utf8.RuneCountInString(body.Description) > maxDescription:
		return invalidField("Deployment", "description", fmt.Sprintf("description is too long (maximum is %d characters)", maxDescription))
	case body.AutoMerge && r.at("refs/heads/"+body.Ref) != "" && r.at("refs/heads/main") != "" && !r.within(r.at("refs/heads/main"), sha):
		return done(http.StatusAccepted, object{"message": fmt.Sprintf("Auto-merged main into %s on deployment.", body.Ref)})
	case !found.passes(body.RequiredContexts):
		a := refuse(http.StatusConflict, fmt.Sprintf("Conflict: Commit status checks failed for %s.", body.Ref))
		return a
	}
	d := &Deployment{ID: c.g.id(), SHA: sha, Ref: body.Ref, Task: body.Task, Environment: body.Environment, Description: body.Description, Payload: body.Payload, Creator: c.account.login,
		Production: body.Environment == "production", Transient: body.Transient, At: c.g.now()}
	if body.Production != nil {
		d.Production = *body.Production
	}
	r.deployments = append(r.deployments, d)
	return done(http.StatusCreated, c.g.deployment(r, d))
}

// passes reports whether a commit's statuses let it be deployed: those of the contexts, nil: of all that it has, must be successes.
func (c *commit) passes(contexts *[]string) bool {
	newest := map[string]string{}
	for _, s := range c.statuses {
		newest[strings.ToLower(s.Context)] = s.State
	}
	if contexts == nil {
		for _, state := range newest {
			if state != "success" {
				return false
			}
		}
		return true
	}
	return !slices.ContainsFunc(*contexts, func(context string) bool { return newest[strings.ToLower(context)] != "success" })
}

// deploymentOf is the deployment that the path names.
func (c *call) deploymentOf(level string) (*repository, *Deployment, *answer) {
	r, refused := c.repository(level, "deployments")
	if refused != nil {
		return nil, nil, refused
	}
	id := c.number("deployment_id")
	for _, d := range r.deployments {
		if d.ID == id {
			return r, d, nil
		}
	}
	a := notFound()
	return nil, nil, &a
}

func getDeployment(c *call) answer {
	r, d, refused := c.deploymentOf("read")
	if refused != nil {
		return *refused
	}
	return done(http.StatusOK, c.g.deployment(r, d))
}

func listDeployments(c *call) answer {
	r, refused := c.repository("read", "deployments")
	if refused != nil {
		return *refused
	}
	query := c.request.URL.Query()
	other := func(name, is string) bool { return query.Has(name) && query.Get(name) != is }
	var found []*Deployment
	for _, d := range slices.Backward(r.deployments) { // newest first
		if !other("sha", d.SHA) && !other("ref", d.Ref) && !other("task", d.Task) && !other("environment", d.Environment) {
			found = append(found, d)
		}
	}
	return list(c, found, func(d *Deployment) object { return c.g.deployment(r, d) })
}

func createDeploymentStatus(c *call) answer {
	r, d, refused := c.deploymentOf("write")
	if refused != nil {
		return *refused
	}
	body := struct {
		State, Description, Environment string
		LogURL                          string `json:"log_url"`
		TargetURL                       string `json:"target_url"` // what log_url was called before
		EnvironmentURL                  string `json:"environment_url"`
		AutoInactive                    bool   `json:"auto_inactive"`
	}{Environment: d.Environment, AutoInactive: true}
	if err := c.read(&body); err != nil {
		return invalidRequest(err)
	}
	if utf8.RuneCountInString(body.Description) > maxDescription {
		return invalidField("DeploymentStatus", "description", fmt.Sprintf("description is too long (maximum is %d characters)", maxDescription))
	}
	if body.LogURL == "" {
		body.LogURL = body.TargetURL
	}
	s := DeploymentStatus{ID: c.g.id(), State: body.State, Description: body.Description, Environment: body.Environment, LogURL: body.LogURL, EnvironmentURL: body.EnvironmentURL,
		Creator: c.account.login, At: c.g.now()}
	d.Statuses, d.Environment = append(d.Statuses, s), body.Environment
	if body.State == "success" && body.AutoInactive {
		c.g.deactivate(r, d, c.account.login)
	}
	return done(http.StatusCreated, c.g.deploymentStatus(r, d, s))
}

// deactivate marks what a success replaces; GitHub spares production.
func (g *GitHub) deactivate(r *repository, by *Deployment, creator string) {
	for _, d := range r.deployments {
		if d.ID < by.ID && d.Environment == by.Environment && !d.Production && !d.Transient && d.State() == "success" {
			d.Statuses = append(d.Statuses, DeploymentStatus{ID: g.id(), State: "inactive", Environment: d.Environment, Creator: creator, At: g.now()})
		}
	}
}

func listDeploymentStatuses(c *call) answer {
	r, d, refused := c.deploymentOf("read")
	if refused != nil {
		return *refused
	}
	newest := slices.Clone(d.Statuses)
	slices.Reverse(newest)
	return list(c, newest, func(s DeploymentStatus) object { return c.g.deploymentStatus(r, d, s) })
}

func (g *GitHub) deployment(r *repository, d *Deployment) object {
	at, changed := timestamp(d.At), timestamp(d.At)
	if n := len(d.Statuses); n > 0 {
		changed = timestamp(d.Statuses[n-1].At)
	}
	payload := d.Payload
	if text, is := payload.(string); is && json.Valid([]byte(text)) { // GitHub takes JSON in a string apart
		var value map[string]any
		if json.Unmarshal([]byte(text), &value) == nil {
			payload = value
		}
	}
	url := g.address(r, fmt.Sprint("/deployments/", d.ID))
	return object{"id": d.ID, "node_id": fmt.Sprintf("DE_%d", d.ID), "sha": d.SHA, "ref": d.Ref, "task": d.Task, "environment": d.Environment, "original_environment": d.Environment,
		"description": nullable(d.Description), "payload": payload, "creator": g.person(d.Creator).user(g.URL), "created_at": at, "updated_at": changed, "url": url,
		"statuses_url": url + "/statuses", "repository_url": g.address(r, ""), "production_environment": d.Production, "transient_environment": d.Transient}
}

func (g *GitHub) deploymentStatus(r *repository, d *Deployment, s DeploymentStatus) object {
	url := g.address(r, fmt.Sprint("/deployments/", d.ID))
	o := object{"id": s.ID, "node_id": fmt.Sprintf("DES_%d", s.ID), "state": s.State, "description": s.Description, "environment": s.Environment, "creator": g.person(s.Creator).user(g.URL),
		"created_at": timestamp(s.At), "updated_at": timestamp(s.At), "url": fmt.Sprintf("%s/statuses/%d", url, s.ID), "deployment_url": url, "repository_url": g.address(r, "")}
	maps.Copy(o, object{"log_url": s.LogURL, "target_url": s.LogURL, "environment_url": s.EnvironmentURL})
	return o
}
