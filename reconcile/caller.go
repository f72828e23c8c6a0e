package reconcile

import (
	"context"
	"time"

	"towpath/reconcile/rollout"
)

// callStore is what a Caller needs of the store.
type callStore interface {
	// Call is a call that is to be made; nil when it needs to be made no more.
	Call(ctx context.Context, id string) (*rollout.Asked, error)
	// Answer records what a try came to, and wakes the lane.
	Answer(ctx context.Context, c rollout.Call, answer rollout.Answer) error
}

// Caller makes the calls that steps ask for. A call whose answer could not be recorded is asked for again by its lane.
type Caller struct {
	Store callStore
	// Webhook and Measure make a call of their kind, bounded in time. What Webhook returns has no value.
	Webhook func(ctx context.Context, asked rollout.Asked) rollout.Answer
	Measure func(ctx context.Context, asked rollout.Asked) rollout.Answer
	Clock   func() time.Time
}

// Make makes a call, unless that is no longer wanted. When the process stops meanwhile, nothing is recorded: another makes it again, under the same key.
func (c *Caller) Make(ctx context.Context, id string) error {
	asked, err := c.Store.Call(ctx, id)
	if err != nil || asked == nil {
		return err
	}
	try := c.Webhook
	if asked.Kind == rollout.CallQuery {
		try = c.Measure
	}
	answer := try(ctx, *asked)
	if ctx.Err() != nil {
		return nil
	}
	answer.At = c.Clock().UTC()
	return c.Store.Answer(ctx, asked.Call, answer)
}
