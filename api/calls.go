package api

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// Called is what a target has asked of the world outside for a step: a webhook that was called, or one measurement of a query.
type Called struct {
	Target   string    `json:"target"`
	Gate     string    `json:"gate" doc:"the step's name in the target"`
	Kind     string    `json:"kind" enum:"webhook,query"`
	Name     string    `json:"name" doc:"of the webhook, or of the query"`
	Run      int       `json:"run,omitempty" doc:"of an analysis, from 1"`
	Baseline string    `json:"baseline,omitempty" doc:"of a measurement that is not of the new version: name of the baseline's ReplicaSet"`
	Try      int       `json:"try" doc:"from 1"`
	At       time.Time `json:"at" doc:"this try was asked for"`
	State    string    `json:"state" enum:"open,answered,unanswered,turnedDown,noData" doc:"open: there is no answer yet; unanswered: it could not be reached"`
	Value    *float64  `json:"value,omitempty" doc:"of a measurement"`
	Lower    *float64  `json:"lowerLimit,omitempty"`
	Upper    *float64  `json:"upperLimit,omitempty"`
	Passed   *bool     `json:"passed,omitempty" doc:"of a measurement: it is within its limits; of a webhook: it called back with success"`
	Sent     string    `json:"sent,omitempty" doc:"of a measurement: the query as it was sent"`
	Unfilled []string  `json:"unfilled,omitempty" doc:"variables of what was sent that nothing filled, so that they became empty text: the first ten"`
	Text     string    `json:"text,omitempty" doc:"what went wrong"`
	Message  string    `json:"message,omitempty" doc:"of a webhook that called back, Markdown: it comes from outside and is text, never markup to be trusted"`
	Provider string    `json:"provider,omitempty" doc:"of a measurement: the metric provider"`
}

// Callback is what a webhook that was called says of what it has done.
type Callback struct {
	Success   *bool  `json:"success" required:"true"`
	MDMessage string `json:"mdMessage" required:"false" doc:"what was done, as Markdown, for people"`
}

// maxCallback is the longest callback, in bytes.
const maxCallback = 64 << 10

func (s *server) calls() {
	huma.Register(s.api, s.operation(http.MethodGet, "/deployments/{id}/calls", "list-calls", "What the steps of a deployment have asked of webhooks and metric providers", View),
		func(ctx context.Context, in *IDPath) (*body[list[Called]], error) {
			items, err := s.backend.Calls(ctx, callerOf(ctx), in.ID)
			return answer(s, list[Called]{Items: items}, err)
		})
	type callback struct {
		ID      string `path:"id" maxLength:"64" doc:"of the call, as {{armory.callbackUri}} has it"`
		RawBody []byte // jobs send it with whatever type their tools choose
	}
	op := s.operation(http.MethodPost, "/callbacks/{id}/callback", "call-back", "What a webhook says of what it has done, once", CallBack)
	op.Description = "With the token {{armory.callbackToken}} of this call, or one with the grant start. The second time is refused with 409."
	op.MaxBodyBytes = maxCallback
	op.DefaultStatus = http.StatusNoContent
	op.SkipValidateBody = true
	op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		"application/json": {Schema: s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Callback](), true, "Callback")}}}
	op.Errors = append(op.Errors, http.StatusConflict)
	huma.Register(s.api, op, func(ctx context.Context, in *callback) (*struct{}, error) {
		var said Callback
		if err := json.Unmarshal(in.RawBody, &said); err != nil || said.Success == nil {
			return nil, huma.Error422UnprocessableEntity(`the body has to be JSON with "success": true or false, and may have an "mdMessage"`)
		}
		return s.done(s.backend.CallBack(ctx, callerOf(ctx), in.ID, *said.Success, said.MDMessage))
	})
}
