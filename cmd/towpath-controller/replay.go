package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"towpath/analysis"
	"towpath/analysis/judge"
	"towpath/api"
	"towpath/deployment"
	"towpath/reconcile/rollout"
	"towpath/store"
)

// mostRuns is how many runs one replay makes.
const mostRuns = 100

// window is a time that a replayed run looks at, and the target that it looks at.
type window struct {
	from, until time.Time
	target      rollout.Target
}

// Replay asks a metric provider what a query would have answered, and judges it.
func (b *backend) Replay(ctx context.Context, c api.Caller, r api.Replay) ([]api.Replayed, error) {
	provider, err := b.providers.Provider(c.Tenant, r.Provider)
	if err != nil {
		return nil, tell(rollout.Refuse(rollout.Malformed, "%s", err))
	}
	windows, err := b.windows(ctx, c.Tenant, r)
	if err != nil {
		return nil, tell(err)
	}
	out := make([]api.Replayed, len(windows))
	for i, w := range windows {
		if out[i], err = b.replay(ctx, provider, r, w); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// windows is the times that are asked for, the newest last.
func (b *backend) windows(ctx context.Context, tenant string, r api.Replay) (windows []window, err error) {
	views, err := b.store.Deployments(ctx, store.DeploymentFilter{Tenant: tenant, Application: r.Application, Limit: 200})
	if err != nil {
		return nil, err
	}
	for _, d := range views { // newest first
		i := slices.IndexFunc(d.Targets, func(t store.TargetView) bool {
			return t.Name == r.Target && !t.Started.IsZero() && !t.Ended.IsZero() && t.CarriedBy == 0
		})
		if i >= 0 {
			windows = append(windows, window{d.Targets[i].Started, d.Targets[i].Ended, d.Targets[i].Target})
		}
	}
	slices.Reverse(windows)
	if len(windows) == 0 {
		return nil, rollout.Refuse(rollout.Missing, "no deployment of application %s has reached the target %s yet", r.Application, r.Target)
	}
	if r.Last > 0 {
		return windows[max(0, len(windows)-r.Last):], nil
	}
	if r.From == nil || r.Until == nil || r.Every == 0 || !r.From.Before(*r.Until) {
		return nil, rollout.Refuse(rollout.Malformed, "give last, or from, until and everySeconds, from before until")
	}
	if r.Until.After(time.Now()) {
		return nil, rollout.Refuse(rollout.Malformed, "until lies in the future: nothing was measured there yet")
	}
	every, target := time.Duration(r.Every)*time.Second, windows[len(windows)-1].target
	if r.Until.Sub(*r.From) > mostRuns*every {
		return nil, rollout.Refuse(rollout.Malformed, "that is more than %d runs; ask for a shorter time, or for longer runs", mostRuns)
	}
	windows = nil
	for from := *r.From; from.Before(*r.Until); from = from.Add(every) {
		until := from.Add(every)
		if until.After(*r.Until) {
			until = *r.Until
		}
		windows = append(windows, window{from, until, target})
	}
	return windows, nil
}

// replay makes one run.
func (b *backend) replay(ctx context.Context, provider *analysis.Provider, r api.Replay, w window) (api.Replayed, error) {
	out := api.Replayed{Number: w.target.Number, From: w.from, Until: w.until}
	var set rollout.Set
	if !w.target.Removes {
		objects, err := b.store.Manifests(ctx, w.target.Manifests)
		if err != nil {
			return out, err
		}
		if set, err = b.runner.Names(objects); err != nil {
			return out, err
		}
	}
	values := rollout.Window(w.target.Values(set, r.Context), w.from, w.until)
	out.Sent, out.Unfilled = deployment.Fill(r.Template, func(name string) (string, bool) {
		text, known := values[name]
		return text, known
	})
	measured, err := provider.Measure(ctx, out.Sent, analysis.Window{Start: w.from, End: w.until})
	var none *analysis.NoData
	switch {
	case errors.As(err, &none):
		out.Verdict, out.Reason = string(judge.NoData), err.Error()
		return out, nil
	case ctx.Err() != nil:
		return out, ctx.Err()
	case err != nil:
		out.Verdict, out.Reason = "notMeasured", err.Error()
		return out, nil
	}
	verdict := judge.Single(judge.Run{Value: measured.Value}, judge.Limits{Lower: r.Lower, Upper: r.Upper})
	out.Value, out.Verdict, out.Reason = &measured.Value, string(verdict.Result), verdict.Reason
	return out, nil
}
