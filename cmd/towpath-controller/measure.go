package main

import (
	"context"
	"errors"
	"strings"

	"towpath/analysis"
	"towpath/deployment"
	"towpath/reconcile/rollout"
)

// measure makes one measurement of a query.
func (m *Main) measure(ctx context.Context, asked rollout.Asked) rollout.Answer {
	provider, err := m.providers.Provider(asked.Target.Tenant, asked.Query.Provider)
	if err != nil {
		return rollout.Answer{Result: rollout.TurnedDown, Text: err.Error()}
	}
	query, unfilled := deployment.Fill(asked.Query.Template, func(name string) (string, bool) {
		if service, is := strings.CutPrefix(name, previewVariable); is {
			return m.previewAddress(asked.Links[service])
		}
		text, known := asked.Values[name]
		return text, known
	})
	answer := rollout.Answer{Result: rollout.Answered, Sent: query, Unfilled: unfilled}
	measured, err := provider.Measure(ctx, query, analysis.Window{Start: asked.From, End: asked.Until})
	var none *analysis.NoData
	var away *analysis.Unavailable
	switch {
	case err == nil:
		answer.Value = measured.Value
		return answer
	case errors.As(err, &none):
		answer.Result = rollout.WithoutValue
	case errors.As(err, &away):
		answer.Result = rollout.Unanswered
	default:
		answer.Result = rollout.TurnedDown
	}
	answer.Text = err.Error()
	return answer
}
