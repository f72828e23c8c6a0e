package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/sse"
)

// IDPath names a deployment.
type IDPath struct {
	ID string `path:"id" maxLength:"64" doc:"of a deployment"`
}

type reference struct {
	ID string `json:"id" doc:"of the deployment"`
}

type list[T any] struct {
	Items []T    `json:"items" nullable:"false"`
	Next  string `json:"next,omitempty" doc:"where the next page begins: before= of deployments, after= of applications; absent on the last"`
}

func (s *server) deployments() {
	type find struct {
		Application string `query:"application" maxLength:"253"`
		State       string `query:"state" maxLength:"32"`
		Source      string `query:"source" maxLength:"63"`
		Commit      string `query:"commit" maxLength:"64"`
		Before      string `query:"before" maxLength:"64" doc:"id; only older ones"`
		Limit       int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
	}
	huma.Register(s.api, s.operation(http.MethodGet, "/deployments", "list-deployments", "Deployments, newest first", View),
		func(ctx context.Context, in *find) (*body[list[Deployment]], error) {
			items, err := s.backend.Deployments(ctx, callerOf(ctx), DeploymentFilter{in.Application, in.State, in.Source, in.Commit, in.Before, in.Limit})
			page := list[Deployment]{Items: items}
			if len(items) == in.Limit {
				page.Next = items[len(items)-1].ID
			}
			return answer(s, page, err)
		})
	huma.Register(s.api, s.operation(http.MethodGet, "/deployments/{id}", "get-deployment", "One deployment", View),
		func(ctx context.Context, in *IDPath) (*body[Deployment], error) {
			d, err := s.backend.Deployment(ctx, callerOf(ctx), in.ID)
			return answer(s, d, err)
		})
	type upload struct{ Body Upload }
	type keyed struct {
		Once
		Body Upload
	}
	start := s.operation(http.MethodPost, "/deployments", "start-deployment", "Start a deployment of an upload, or an earlier one again", Start)
	start.DefaultStatus = http.StatusCreated
	start.BodyReadTimeout = 2 * time.Minute
	start.Errors = append(start.Errors, http.StatusConflict, http.StatusUnprocessableEntity)
	huma.Register(s.api, s.changing(start), func(ctx context.Context, in *keyed) (*body[Started], error) {
		return once(ctx, s, in.Once, []any{"start", in.Body}, func(id string) (Started, error) { return s.backend.Start(ctx, callerOf(ctx), id, in.Body) })
	})
	plan := s.operation(http.MethodPost, "/plans", "plan", "What an upload would do; nothing starts", View)
	plan.BodyReadTimeout = 2 * time.Minute
	huma.Register(s.api, plan, func(ctx context.Context, in *upload) (*body[Plan], error) {
		out, err := s.backend.Plan(ctx, callerOf(ctx), in.Body)
		return answer(s, out, err)
	})
	type word struct {
		IDPath
		Body Word
	}
	for _, verb := range []struct{ name, summary, grant string }{
		{"approve", "Give a target the approval that it waits for", Approve}, {"reject", "Refuse it: what is under way goes back", Approve},
		{"skip", "Pass a step that waits over", Approve}, {"retry", "Try now what waits for its next try", Start}} {
		huma.Register(s.api, s.changing(s.operation(http.MethodPost, "/deployments/{id}/"+verb.name, verb.name, verb.summary, verb.grant)),
			func(ctx context.Context, in *word) (*struct{}, error) {
				return s.done(s.backend.Say(ctx, callerOf(ctx), in.ID, verb.name, in.Body))
			})
	}
	type cancellation struct {
		IDPath
		Body struct {
			Reason string `json:"reason,omitempty" maxLength:"1024"`
		}
	}
	huma.Register(s.api, s.changing(s.operation(http.MethodPost, "/deployments/{id}/cancel", "cancel", "Stop a deployment: what is under way goes back", Start)),
		func(ctx context.Context, in *cancellation) (*struct{}, error) {
			return s.done(s.backend.Cancel(ctx, callerOf(ctx), in.ID, in.Body.Reason))
		})
}

func (s *server) done(err error) (*struct{}, error) {
	if err != nil {
		return nil, s.fail(err)
	}
	return nil, nil
}

// NamePath names an application.
type NamePath struct {
	Name string `path:"name" maxLength:"253" doc:"of an application"`
}

func (s *server) applications() {
	type find struct {
		After string `query:"after" maxLength:"253" doc:"name; only those after it"`
		Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"200"`
	}
	huma.Register(s.api, s.operation(http.MethodGet, "/applications", "list-applications", "Applications by name", View),
		func(ctx context.Context, in *find) (*body[list[Application]], error) {
			items, err := s.backend.Applications(ctx, callerOf(ctx), ApplicationFilter{After: in.After, Limit: in.Limit})
			page := list[Application]{Items: items}
			if len(items) == in.Limit {
				page.Next = items[len(items)-1].Name
			}
			return answer(s, page, err)
		})
	huma.Register(s.api, s.operation(http.MethodGet, "/applications/{name}", "get-application", "One application, and what each of its targets waits for", View),
		func(ctx context.Context, in *NamePath) (*body[Application], error) {
			items, err := s.backend.Applications(ctx, callerOf(ctx), ApplicationFilter{Name: in.Name})
			if err == nil && len(items) == 0 {
				err = &Problem{Status: http.StatusNotFound, Text: "no application " + in.Name}
			}
			if err != nil {
				return nil, s.fail(err)
			}
			return &body[Application]{items[0]}, nil
		})
	type rollback struct {
		NamePath
		Once
		Body Back
	}
	huma.Register(s.api, s.changing(s.operation(http.MethodPost, "/applications/{name}/rollback", "roll-back", "Bring targets back to an earlier deployment", Start)),
		func(ctx context.Context, in *rollback) (*body[reference], error) {
			return once(ctx, s, in.Once, []any{"rollback", in.Name, in.Body}, func(id string) (reference, error) {
				return reference{id}, s.backend.RollBack(ctx, callerOf(ctx), id, in.Name, in.Body)
			})
		})
	type removal struct {
		NamePath
		Once
		Keep bool `query:"keep" doc:"its objects stay; only its owner goes"`
	}
	huma.Register(s.api, s.changing(s.operation(http.MethodDelete, "/applications/{name}", "remove-application", "Remove an application from its clusters", Admin)),
		func(ctx context.Context, in *removal) (*body[reference], error) {
			return once(ctx, s, in.Once, []any{"remove", in.Name, in.Keep}, func(id string) (reference, error) {
				return reference{id}, s.backend.Remove(ctx, callerOf(ctx), id, in.Name, in.Keep)
			})
		})
}

// AgentPath names an agent.
type AgentPath struct {
	Name string `path:"name" maxLength:"253" doc:"of an agent"`
}

func (s *server) people() {
	huma.Register(s.api, s.operation(http.MethodGet, "/agents", "list-agents", "Agents by name", View),
		func(ctx context.Context, _ *struct{}) (*body[list[Agent]], error) {
			items, err := s.backend.Agents(ctx, callerOf(ctx))
			return answer(s, list[Agent]{Items: items}, err)
		})
	type newAgent struct{ Body NewAgent }
	create := s.operation(http.MethodPost, "/agents", "create-agent", "Make the credential of an agent, whose secret is shown this once; or record one that an issuer elsewhere keeps", Admin)
	create.DefaultStatus = http.StatusCreated
	huma.Register(s.api, create, func(ctx context.Context, in *newAgent) (*body[Credential], error) {
		credential, err := s.backend.CreateAgent(ctx, callerOf(ctx), in.Body)
		return answer(s, credential, err)
	})
	type rotation struct {
		AgentPath
		Body struct {
			Keep int `json:"keepSeconds,omitempty" minimum:"0" maximum:"2592000" doc:"how long the secret before it still holds; absent: not at all, and no more do tokens that were given by it"`
		}
	}
	huma.Register(s.api, s.operation(http.MethodPost, "/agents/{name}/rotate", "rotate-agent", "Give an agent a new secret, which is shown this once", Admin),
		func(ctx context.Context, in *rotation) (*body[Credential], error) {
			credential, err := s.backend.RotateAgent(ctx, callerOf(ctx), in.Name, time.Duration(in.Body.Keep)*time.Second)
			return answer(s, credential, err)
		})
	huma.Register(s.api, s.changing(s.operation(http.MethodPost, "/agents/{name}/accept", "accept-cluster", "Accept that an agent connects from another cluster, and deploy there what was good", Admin)),
		func(ctx context.Context, in *AgentPath) (*body[Accepted], error) {
			accepted, err := s.backend.AcceptCluster(ctx, callerOf(ctx), in.Name)
			return answer(s, accepted, err)
		})
	revoke := s.operation(http.MethodPost, "/agents/{name}/revoke", "revoke-agent", "End the tokens that an agent was given until now, and its sessions at once; its credential stays", Admin)
	revoke.DefaultStatus = http.StatusNoContent
	huma.Register(s.api, revoke, func(ctx context.Context, in *AgentPath) (*struct{}, error) {
		return s.done(s.backend.RevokeAgent(ctx, callerOf(ctx), in.Name))
	})
	huma.Register(s.api, s.operation(http.MethodDelete, "/agents/{name}", "remove-agent", "End an agent's credential, and its sessions at once", Admin),
		func(ctx context.Context, in *AgentPath) (*struct{}, error) {
			return s.done(s.backend.RemoveAgent(ctx, callerOf(ctx), in.Name))
		})
	huma.Register(s.api, s.operation(http.MethodGet, "/sources", "list-sources", "Watched repositories, and what is wrong with them", View),
		func(ctx context.Context, _ *struct{}) (*body[list[Source]], error) {
			items, err := s.backend.Sources(ctx, callerOf(ctx))
			return answer(s, list[Source]{Items: items}, err)
		})
}

// heartbeat is how often a stream without news says that it lives.
const heartbeat = 10 * time.Second

// The library's own time for a write is shorter than a beat, and over HTTP/2 it ends a stream on which nothing is written for so long.
func init() { sse.WriteTimeout = 3 * heartbeat }

type beat struct{}

func (s *server) events() {
	type follow struct {
		Application string `query:"application" maxLength:"253"`
		Deployment  string `query:"deployment" maxLength:"64"`
		After       int64  `query:"after" minimum:"0" doc:"id; only later ones"`
		LastEventID int64  `header:"Last-Event-ID" minimum:"0" doc:"as a browser sends it when it comes back; counts over after"`
	}
	sse.Register(s.api, s.operation(http.MethodGet, "/events", "follow-events", "History as it happens (server-sent events)", View),
		map[string]any{"event": Event{}, "beat": beat{}}, func(ctx context.Context, in *follow, send sse.Sender) {
			news, stop := s.backend.News()
			defer stop()
			beats := time.NewTicker(heartbeat)
			defer beats.Stop()
			filter := EventFilter{Application: in.Application, Deployment: in.Deployment, After: max(in.After, in.LastEventID)}
			for {
				events, err := s.backend.Events(ctx, callerOf(ctx), filter)
				if err != nil {
					if ctx.Err() == nil {
						s.log.WithError(err).Error("events could not be read for a stream")
					}
					return
				}
				for _, e := range events {
					if send(sse.Message{ID: int(e.ID), Data: e}) != nil {
						return
					}
					filter.After = e.ID
				}
				if len(events) > 0 {
					continue
				}
				select {
				case <-ctx.Done():
					return
				case _, open := <-news:
					if !open {
						return
					}
				case <-beats.C:
					if send(sse.Message{Data: beat{}}) != nil {
						return
					}
				}
			}
		})
}
