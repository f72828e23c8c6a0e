package simulate

import (
	"time"

	"towpath/reconcile/rollout"
)

// ask has calls answered: webhooks answer at once and call back, and metrics are within their limits, unless the file of answers says otherwise of the step.
func (s *simulation) ask(l *lane, calls []rollout.Call) {
	for _, c := range calls {
		assumed, said := l.assumed.Gates[c.Gate]
		if !said {
			assumed = AtOnce
		}
		c.Answer = &rollout.Answer{At: s.now, Result: rollout.Answered}
		switch {
		case c.Kind == rollout.CallQuery && assumed.Verb == "":
			c.Answer.Result, c.Answer.Text = rollout.WithoutValue, "as the answers say"
		case c.Kind == rollout.CallQuery:
			c.Answer.Value = valueOf(*c.Query, assumed.Verb == rollout.Reject)
		case assumed.Verb == rollout.Approve, assumed.Verb == rollout.Reject:
			c.Callback = &rollout.Callback{At: s.now.Add(assumed.After), Success: assumed.Verb == rollout.Approve, Message: assumed.Reason}
			s.wakeAt(l, c.Callback.At)
		}
		l.calls = append(l.calls, c)
	}
}

// callsAt is what a lane has asked for, as it stands now: a callback that is still to come is not there yet.
func (l *lane) callsAt(now time.Time) []rollout.Call {
	calls := make([]rollout.Call, len(l.calls))
	for i, c := range l.calls {
		if c.Callback != nil && c.Callback.At.After(now) {
			c.Callback = nil
		}
		calls[i] = c
	}
	return calls
}

// valueOf is a value of a query within its limits, or outside.
func valueOf(q rollout.Query, outside bool) float64 {
	switch {
	case q.Upper != nil && outside:
		return *q.Upper + 1
	case q.Upper != nil:
		return *q.Upper
	case outside:
		return *q.Lower - 1
	}
	return *q.Lower
}
