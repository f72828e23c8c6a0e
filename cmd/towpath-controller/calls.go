package main

import (
	"context"
	"slices"
	"time"

	"towpath/analysis/judge"
	"towpath/api"
	"towpath/reconcile/rollout"
	"towpath/store"
)

func (b *backend) Calls(ctx context.Context, c api.Caller, deployment string) ([]api.Called, error) {
	views, err := b.store.Calls(ctx, c.Tenant, deployment)
	out := make([]api.Called, len(views))
	for i, v := range views {
		out[i] = called(v)
	}
	return out, tell(err)
}

func called(v store.CallView) api.Called {
	out := api.Called{Target: v.Target, Gate: v.Gate, Kind: string(v.Kind), Name: v.Name, Run: v.Run, Baseline: v.Of, Try: v.Try, At: v.At, State: "open"}
	if v.Answer != nil {
		out.State, out.Text, out.Sent, out.Unfilled = string(v.Answer.Result), v.Answer.Text, v.Answer.Sent, v.Answer.Unfilled
	}
	if v.Query != nil {
		out.Provider = v.Query.Provider
		if v.Answer != nil && v.Answer.Result == rollout.Answered {
			out.Value = &v.Answer.Value
		}
		if v.Of == "" { // limits are for the new version; a baseline is only compared with
			out.Lower, out.Upper = v.Query.Lower, v.Query.Upper
			if out.Value != nil {
				passed := v.Query.Verdict(v.Answer.Value).Result == judge.Passed
				out.Passed = &passed
			}
		}
	}
	if v.Callback != nil {
		out.Passed, out.Message = &v.Callback.Success, v.Callback.Message
	}
	return out
}

func (b *backend) CallBack(ctx context.Context, c api.Caller, call string, success bool, message string) error {
	if slices.Contains(c.Grants, api.CallBack) && c.Token != call { // a token of one call opens no other
		return tell(rollout.NoCallback())
	}
	return tell(b.store.CallBack(ctx, c.Tenant, call, rollout.Callback{At: time.Now().UTC(), Success: success, Message: message}))
}
