// Package api is the HTTP API: what the command line, the web pages and other people's scripts use. Its OpenAPI description is made from the types in
// this package. It decides who may do what; what is done is the backend's.
package api

import (
	"time"

	"github.com/danielgtaylor/huma/v2"

	"towpath/deployment"
)

// Deployment is one execution of one deployment file.
type Deployment struct {
	ID          string            `json:"id"`
	Application string            `json:"application"`
	Number      int               `json:"number" doc:"of the deployment in its application"`
	Description string            `json:"description,omitempty"`
	State       string            `json:"state" enum:"QUEUED,RUNNING,PAUSED,AWAITING_APPROVAL,SUCCEEDED,FAILED,CANCELLED,REJECTED"`
	Why         string            `json:"why,omitempty"`
	Source      string            `json:"source,omitempty" doc:"name of the source; absent for a push"`
	Path        string            `json:"path,omitempty"`
	Commit      string            `json:"commit,omitempty"`
	Repeats     string            `json:"repeats,omitempty" doc:"id of the deployment that this one repeats or goes back to"`
	Trigger     string            `json:"trigger" doc:"push, api, rollback, remove"`
	By          string            `json:"by"`
	Reason      string            `json:"reason,omitempty"`
	Title       string            `json:"title,omitempty" doc:"first line of the commit's message"`
	Context     map[string]string `json:"context,omitempty"`
	Created     time.Time         `json:"created"`
	Started     *time.Time        `json:"started,omitempty"`
	Ended       *time.Time        `json:"ended,omitempty"`
	Targets     []Target          `json:"targets" nullable:"false"`
	Link        string            `json:"link"`
}

// Target is a named place of a deployment.
type Target struct {
	Name      string     `json:"name"`
	Account   string     `json:"account"`
	Namespace string     `json:"namespace,omitempty"`
	State     string     `json:"state" enum:"QUEUED,RUNNING,PAUSED,AWAITING_APPROVAL,SUCCEEDED,FAILED,CANCELLED,REJECTED,ROLLED_BACK"`
	Phase     string     `json:"phase"`
	Why       string     `json:"why,omitempty"`
	DependsOn []string   `json:"dependsOn,omitempty"`
	CarriedBy int        `json:"carriedBy,omitempty" doc:"number of the deployment that brings it about"`
	Digest    string     `json:"digest" doc:"what an approval is bound to"`
	Waits     []Wait     `json:"waits,omitempty"`
	Started   *time.Time `json:"started,omitempty"`
	Ended     *time.Time `json:"ended,omitempty"`
}

// Wait is something a target waits for.
type Wait struct {
	Kind    string     `json:"kind" enum:"dependency,approval,agent,health,retry"`
	Since   time.Time  `json:"since"`
	Until   *time.Time `json:"until,omitempty"`
	Needs   string     `json:"needs" doc:"what it waits for, as a phrase"`
	Who     []string   `json:"who,omitempty" doc:"roles that may give it"`
	Command string     `json:"command,omitempty" doc:"what gives it"`
}

// Upload is a deployment file with the files it names, or a deployment to be repeated.
type Upload struct {
	Path        string            `json:"path,omitempty" doc:"of the deployment file among files" maxLength:"1024"`
	Files       map[string][]byte `json:"files,omitempty" doc:"by path, in base64"`
	Repeat      string            `json:"repeat,omitempty" doc:"id of a deployment to be started again, in place of files"`
	Application string            `json:"application,omitempty" doc:"overrides the file's" maxLength:"253"`
	Targets     []string          `json:"targets,omitempty" doc:"overrides the file's targetFilters" maxItems:"1000"`
	Context     map[string]string `json:"context,omitempty" doc:"added over the file's"`
	Account     string            `json:"account,omitempty" doc:"for targets that name none"`
	Reason      string            `json:"reason,omitempty" maxLength:"1024"`
	Title       string            `json:"title,omitempty" maxLength:"1024"`
}

// TransformSchema makes the schema take empty files: the check of base64 that comes with it does not.
func (Upload) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	if content, ok := s.Properties["files"].AdditionalProperties.(*huma.Schema); ok {
		content.ContentEncoding = ""
	}
	return s
}

// Started is the answer to an upload.
type Started struct {
	ID       string               `json:"id,omitempty"`
	Link     string               `json:"link,omitempty"`
	Problems []deployment.Problem `json:"problems" nullable:"false" doc:"warnings"`
}

// Plan is what an upload would do.
type Plan struct {
	Application string               `json:"application,omitempty"`
	Problems    []deployment.Problem `json:"problems" nullable:"false"`
	Targets     []PlannedTarget      `json:"targets" nullable:"false"`
}

// PlannedTarget is what would happen to one target.
type PlannedTarget struct {
	Name      string   `json:"name"`
	Account   string   `json:"account"`
	DependsOn []string `json:"dependsOn,omitempty"`
	Digest    string   `json:"digest"`
	Changed   bool     `json:"changed"`
	Added     []string `json:"added,omitempty"`
	Altered   []string `json:"altered,omitempty"`
	Removed   []string `json:"removed,omitempty"`
}

// Application is what is deployed under a name.
type Application struct {
	Name    string `json:"name"`
	Source  string `json:"source,omitempty" doc:"absent when it is pushed"`
	Path    string `json:"path,omitempty"`
	Removed bool   `json:"removed,omitempty" doc:"nobody owns it any more"`
	Lanes   []Lane `json:"lanes" nullable:"false"`
}

// Lane is an application on one target.
type Lane struct {
	Target     string   `json:"target"`
	Account    string   `json:"account"`
	State      string   `json:"state,omitempty"`
	Why        string   `json:"why,omitempty"`
	Good       int      `json:"good,omitempty" doc:"number of the deployment that was last proved good"`
	Wanted     int      `json:"wanted,omitempty" doc:"number of the deployment that was last asked for"`
	Deployment string   `json:"deployment,omitempty" doc:"id of the deployment that was last asked for, or is under way"`
	Orphaned   bool     `json:"orphaned,omitempty" doc:"its objects stay and nobody owns them"`
	Objects    []string `json:"objects,omitempty"`
	Waits      []Wait   `json:"waits,omitempty"`
}

// Agent is the process in a cluster.
type Agent struct {
	Name      string     `json:"name"`
	Connected bool       `json:"connected"`
	Version   string     `json:"version,omitempty"`
	Since     *time.Time `json:"since,omitempty"`
	LastBeat  *time.Time `json:"lastBeat,omitempty"`
	Remote    string     `json:"remote,omitempty"`
	Instances int        `json:"instances,omitempty"`
	ClientID  string     `json:"clientId,omitempty"`
}

// Credential is how a new agent proves who it is. The secret is shown this once.
type Credential struct {
	Agent    string `json:"agent"`
	ClientID string `json:"clientId"`
	Secret   string `json:"clientSecret"`
	Issuer   string `json:"issuer"`
	Audience string `json:"audience"`
	Hub      string `json:"hub" doc:"HOST:PORT to connect to"`
}

// Source is a watched repository.
type Source struct {
	Name        string               `json:"name"`
	Head        string               `json:"head,omitempty" doc:"newest commit seen"`
	Processed   string               `json:"processed,omitempty" doc:"last commit that was taken in whole"`
	Failure     string               `json:"failure,omitempty" doc:"why it cannot be reached"`
	FailedSince *time.Time           `json:"failedSince,omitempty"`
	Problems    []deployment.Problem `json:"problems" nullable:"false" doc:"of files that are refused"`
	Untold      *Untold              `json:"untold,omitempty" doc:"what GitHub was not told yet"`
}

// Untold is what could not be told about a source yet.
type Untold struct {
	Commits int    `json:"commits" doc:"that wait to be told about, or were refused"`
	Failure string `json:"failure,omitempty" doc:"why telling one of them failed"`
}

// Event is one line of history.
type Event struct {
	ID          int64     `json:"id"`
	At          time.Time `json:"at"`
	Application string    `json:"application,omitempty"`
	Deployment  string    `json:"deployment,omitempty"`
	Target      string    `json:"target,omitempty"`
	Who         string    `json:"who"`
	Kind        string    `json:"kind"`
	What        string    `json:"what"`
	Why         string    `json:"why,omitempty"`
}
