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
	State     string     `json:"state" enum:"QUEUED,RUNNING,PAUSED,AWAITING_APPROVAL,SUCCEEDED,FAILED,CANCELLED,REJECTED,ROLLED_BACK,SKIPPED"`
	Phase     string     `json:"phase"`
	Weight    int        `json:"weight,omitempty" doc:"the new version's present share, 1–99: of traffic where a route divides it, else of pods"`
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
	Kind    string     `json:"kind" enum:"dependency,approval,pause,hold,takeOver,agent,health,retry,webhook,analysis"`
	Since   time.Time  `json:"since"`
	Until   *time.Time `json:"until,omitempty"`
	Needs   string     `json:"needs" doc:"what it waits for, as a phrase"`
	Gate    string     `json:"gate,omitempty" doc:"of a step that waits: its name in the target"`
	Who     []string   `json:"who,omitempty" doc:"roles that may give it"`
	NotBy   []string   `json:"notBy,omitempty" doc:"people who may not, since it is their own change"`
	Command string     `json:"command,omitempty" doc:"what gives it"`
	Why     string     `json:"why,omitempty" doc:"of an agent or a cluster: why it is not there, and since when"`
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
	Emergency   bool              `json:"emergency,omitempty" doc:"deploys what Git owns too, and holds the result until Git changes it; needs the grant breakGlass, and a reason"`
	Skip        []string          `json:"skip,omitempty" enum:"dependsOn,pauses,approvals" maxItems:"3" doc:"waits that an emergency passes over"`
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
	Changes   []Change `json:"changes,omitempty" doc:"objects that would be other than what was last asked for"`
}

// Change is what would become of one object.
type Change struct {
	Object string `json:"object" doc:"its kind, namespace and name"`
	Kind   string `json:"kind" enum:"added,changed,removed"`
	Diff   string `json:"diff" doc:"of its YAML, with keys in order: lines begin with +, - or a blank, and with @@ between parts that lie apart. Values of Secrets are left out"`
	Cut    int    `json:"cut,omitempty" doc:"lines of the diff that are left out, as there are too many"`
}

// Application is what is deployed under a name.
type Application struct {
	Name    string `json:"name"`
	Source  string `json:"source,omitempty" doc:"absent when it is pushed"`
	Path    string `json:"path,omitempty"`
	Removed bool   `json:"removed,omitempty" doc:"nobody owns it any more"`
	Lanes   []Lane `json:"lanes" nullable:"false"`

	Problems []deployment.Problem `json:"problems,omitempty" doc:"why its file, as it is now, is not deployed: what runs is what was deployed before"`
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
	Pin        *Pin     `json:"pin,omitempty" doc:"why it stays at what is good although something else was asked for"`
	Objects    []string `json:"objects,omitempty"`
	Waits      []Wait   `json:"waits,omitempty"`
	Drift      []Drift  `json:"drift,omitempty" doc:"objects that differ in the cluster from what was last proved good"`
}

// Drift is an object that differs in its cluster.
type Drift struct {
	Object string     `json:"object"`
	What   string     `json:"what" doc:"as a sentence; values are not told, they may be secrets"`
	Fields []string   `json:"fields,omitempty" doc:"JSON pointers to what differs; absent: the object is not there"`
	By     string     `json:"by,omitempty" doc:"field manager that changed it, as the cluster says"`
	At     *time.Time `json:"at,omitempty" doc:"when it was changed, as the cluster says"`
	Since  time.Time  `json:"since" doc:"it is known to differ"`
}

// Pin is why a lane is held.
type Pin struct {
	Number int       `json:"number,omitempty" doc:"of the deployment that it is held at; absent: at what ran before the first"`
	Why    string    `json:"why,omitempty"`
	By     string    `json:"by"`
	At     time.Time `json:"at"`
}

// Hold halts rollouts.
type Hold struct {
	Scope  string    `json:"scope" enum:"all,application,account"`
	Name   string    `json:"name,omitempty"`
	By     string    `json:"by"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// Word is what a person says to a target that waits.
type Word struct {
	Target string `json:"target,omitempty" maxLength:"253" doc:"absent: the only one that waits for such a word"`
	Gate   string `json:"gate,omitempty" maxLength:"253" doc:"absent: all that the caller may speak to"`
	Reason string `json:"reason,omitempty" maxLength:"1024"`
}

// Back is where an application is to be brought back to.
type Back struct {
	Targets []string `json:"targets,omitempty" maxItems:"1000" doc:"absent: all of the deployment that is gone back to"`
	To      string   `json:"to,omitempty" maxLength:"64" doc:"id of a deployment; absent: what was good before"`
	All     bool     `json:"all,omitempty" doc:"the newest deployment is stopped, and all that it has done is undone, the last target first"`
	Reason  string   `json:"reason,omitempty" maxLength:"1024"`
}

// Agent is the process in a cluster.
type Agent struct {
	Name      string     `json:"name"`
	Connected bool       `json:"connected"`
	Version   string     `json:"version,omitempty"`
	Since     *time.Time `json:"since,omitempty" doc:"it is connected, or is not"`
	Why       string     `json:"why,omitempty" doc:"why nothing goes through it, or not all, and since when: it is away, or its cluster fails"`
	LastBeat  *time.Time `json:"lastBeat,omitempty"`
	Remote    string     `json:"remote,omitempty"`
	Instances int        `json:"instances,omitempty"`
	ClientID  string     `json:"clientId,omitempty"`

	Labels  map[string]string `json:"labels,omitempty" doc:"as the controller's record of the agent has them"`
	Cluster string            `json:"cluster,omitempty" doc:"UID of the cluster that it first connected from, or that was accepted"`
	Held    string            `json:"held,omitempty" doc:"why nothing goes through it although it is connected: it connects from another cluster, of this UID"`
	Targets []string          `json:"targets,omitempty" doc:"what it says that it reaches"`
}

// Accepted is what follows when another cluster is accepted.
type Accepted struct {
	Deployments []string `json:"deployments" doc:"ids of the deployments that bring what was good to the new cluster"`
}

// NewAgent asks for an agent.
type NewAgent struct {
	Name    string `json:"name" pattern:"^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$" maxLength:"253" doc:"the account of deployment files"`
	Issuer  string `json:"issuer,omitempty" maxLength:"1024" doc:"the OIDC issuer that keeps its credential, one of agents.issuers; absent: the controller's own, which makes one"`
	Subject string `json:"subject,omitempty" maxLength:"1024" doc:"whom the tokens of that issuer name; needed with issuer, and with clientSecret the client id"`
	Secret  string `json:"clientSecret,omitempty" minLength:"32" maxLength:"256" doc:"of the controller's own issuer, one that the agent has already: it was made before the database was lost"`

	Labels map[string]string `json:"labels,omitempty" maxProperties:"64" doc:"for people: region, environment"`
}

// Credential is how a new agent proves who it is. The secret is shown this once.
type Credential struct {
	Agent    string `json:"agent"`
	ClientID string `json:"clientId"`
	Secret   string `json:"clientSecret,omitempty" doc:"absent where another issuer keeps it"`
	Issuer   string `json:"issuer"`
	Audience string `json:"audience"`
	Hub      string `json:"hub" doc:"HOST:PORT to connect to"`
	CA       string `json:"ca,omitempty" doc:"PEM of the authority of hub and issuer, where it is the controller's own"`
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
