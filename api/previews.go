package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// Preview is what leads into a cluster for a while: the link of a step to a Service, or a person's way to a whole cluster.
type Preview struct {
	ID          string     `json:"id"`
	Type        string     `json:"type" enum:"service,cluster"`
	Agent       string     `json:"agent" doc:"through which it leads"`
	Application string     `json:"application,omitempty"`
	Deployment  string     `json:"deployment,omitempty" doc:"id of the deployment whose step made it"`
	Target      string     `json:"target,omitempty"`
	Namespace   string     `json:"namespace,omitempty"`
	Service     string     `json:"service,omitempty"`
	Address     string     `json:"address,omitempty" doc:"of a link that holds: whoever knows it may visit the Service"`
	Holds       bool       `json:"holds" doc:"it has neither ended nor been revoked"`
	By          string     `json:"by" doc:"who made it"`
	Made        time.Time  `json:"made"`
	Until       time.Time  `json:"until"`
	Used        *time.Time `json:"used,omitempty" doc:"first"`
	Revoked     *time.Time `json:"revoked,omitempty"`
}

// ClusterPreview is a way to a cluster's API server that was just made.
type ClusterPreview struct {
	ID     string    `json:"id"`
	Agent  string    `json:"agent"`
	Server string    `json:"server" doc:"as a kubeconfig has it"`
	Token  string    `json:"token" doc:"shown this once"`
	Until  time.Time `json:"until"`
}

// NewPreview asks for one.
type NewPreview struct {
	Type    string `json:"type" enum:"cluster"`
	Agent   string `json:"agent" minLength:"1" maxLength:"253"`
	Seconds int    `json:"seconds" minimum:"60" maximum:"86399" doc:"how long it lasts: less than 24 hours"`
}

func (s *server) previews() {
	huma.Register(s.api, s.operation(http.MethodGet, "/deployments/{id}/previews", "list-deployment-previews", "The links that the steps of a deployment have made to Services", View),
		func(ctx context.Context, in *IDPath) (*body[list[Preview]], error) {
			items, err := s.backend.Previews(ctx, callerOf(ctx), in.ID)
			return answer(s, list[Preview]{Items: items}, err)
		})
	huma.Register(s.api, s.operation(http.MethodGet, "/previews", "list-previews", "All that leads into clusters now: links to Services, and ways to whole clusters", View),
		func(ctx context.Context, _ *struct{}) (*body[list[Preview]], error) {
			items, err := s.backend.Previews(ctx, callerOf(ctx), "")
			return answer(s, list[Preview]{Items: items}, err)
		})
	type wanted struct{ Body NewPreview }
	create := s.operation(http.MethodPost, "/previews", "create-preview", "Make a way to a cluster's API server, with the rights of its agent's ServiceAccount", Admin)
	create.DefaultStatus = http.StatusCreated
	huma.Register(s.api, create, func(ctx context.Context, in *wanted) (*body[ClusterPreview], error) {
		made, err := s.backend.OpenCluster(ctx, callerOf(ctx), in.Body.Agent, time.Duration(in.Body.Seconds)*time.Second)
		return answer(s, made, err)
	})
	type path struct {
		ID string `path:"id" maxLength:"64" doc:"of a preview"`
	}
	end := s.operation(http.MethodDelete, "/previews/{id}", "revoke-preview", "End a link, or a way to a cluster, now", Start)
	end.DefaultStatus = http.StatusNoContent
	huma.Register(s.api, end, func(ctx context.Context, in *path) (*struct{}, error) {
		return s.done(s.backend.EndPreview(ctx, callerOf(ctx), in.ID))
	})
}
