package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// Replay asks what a query would have answered in the past.
type Replay struct {
	Application string            `json:"application" minLength:"1" maxLength:"253"`
	Target      string            `json:"target" minLength:"1" maxLength:"253"`
	Provider    string            `json:"provider" minLength:"1" maxLength:"253" doc:"metric provider, as deployment files name it"`
	Template    string            `json:"queryTemplate" minLength:"1" maxLength:"65536"`
	Lower       *float64          `json:"lowerLimit,omitempty"`
	Upper       *float64          `json:"upperLimit,omitempty"`
	Context     map[string]string `json:"context,omitempty" doc:"for {{context.NAME}}"`
	Last        int               `json:"last,omitempty" minimum:"1" maximum:"50" doc:"deployments of the target, each from its start to its end; absent: the time from from to until"`
	From        *time.Time        `json:"from,omitempty"`
	Until       *time.Time        `json:"until,omitempty"`
	Every       int               `json:"everySeconds,omitempty" minimum:"1" doc:"how long one run looks back, between from and until; at most 100 runs"`
}

// Replayed is what one run would have come to.
type Replayed struct {
	Number   int       `json:"number,omitempty" doc:"of the deployment"`
	From     time.Time `json:"from"`
	Until    time.Time `json:"until"`
	Sent     string    `json:"sent" doc:"the query as it was sent"`
	Unfilled []string  `json:"unfilled,omitempty" doc:"variables of the query that nothing filled, so that they became empty text: the first ten"`
	Verdict  string    `json:"verdict" enum:"passed,failed,noData,notMeasured"`
	Value    *float64  `json:"value,omitempty"`
	Reason   string    `json:"reason"`
}

func (s *server) replays() {
	type replay struct{ Body Replay }
	op := s.operation(http.MethodPost, "/analysis/replay", "replay-query", "What a query would have come to on earlier deployments, or in a time that has passed", Start)
	op.Errors = append(op.Errors, http.StatusNotFound)
	huma.Register(s.api, op, func(ctx context.Context, in *replay) (*body[list[Replayed]], error) {
		items, err := s.backend.Replay(ctx, callerOf(ctx), in.Body)
		return answer(s, list[Replayed]{Items: items}, err)
	})
}
