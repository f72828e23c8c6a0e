package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

func (s *server) holds() {
	huma.Register(s.api, s.operation(http.MethodGet, "/holds", "list-holds", "What is halted, oldest first", View),
		func(ctx context.Context, _ *struct{}) (*body[list[Hold]], error) {
			items, err := s.backend.Holds(ctx, callerOf(ctx))
			return answer(s, list[Hold]{Items: items}, err)
		})
	type hold struct {
		Body struct {
			Scope  string `json:"scope" enum:"all,application,account"`
			Name   string `json:"name,omitempty" maxLength:"253" doc:"of the application or account"`
			Reason string `json:"reason" minLength:"1" maxLength:"1024"`
		}
	}
	huma.Register(s.api, s.operation(http.MethodPost, "/holds", "hold", "Halt rollouts where they are", Start),
		func(ctx context.Context, in *hold) (*struct{}, error) {
			return s.done(s.backend.Hold(ctx, callerOf(ctx), in.Body.Scope, in.Body.Name, in.Body.Reason))
		})
	type release struct {
		Scope string `query:"scope" enum:"all,application,account" required:"true"`
		Name  string `query:"name" maxLength:"253"`
	}
	huma.Register(s.api, s.operation(http.MethodDelete, "/holds", "unhold", "Let halted rollouts go on", Start),
		func(ctx context.Context, in *release) (*struct{}, error) {
			return s.done(s.backend.Unhold(ctx, callerOf(ctx), in.Scope, in.Name))
		})
}
