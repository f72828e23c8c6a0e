package rollout

import (
	"fmt"
	"strings"
)

// Course says in words how a target moves, step by step.
func (w Way) Course() (words []string) {
	add := func(prefix string, steps []Step) {
		for _, s := range steps {
			words = append(words, prefix+w.words(s))
		}
	}
	add("before: ", w.Before)
	switch {
	case w.BlueGreen != nil:
		words = append(words, "all pods of the new version beside the old ones")
		add("", w.BlueGreen.Redirect)
		words = append(words, "all traffic at once")
		add("then: ", w.BlueGreen.ShutDown)
		words = append(words, "the old version goes")
	case len(w.Canary) > 0:
		add("", w.Canary)
		if last := w.Canary[len(w.Canary)-1]; last.Weight == nil || *last.Weight < 100 {
			words = append(words, "100 %")
		}
	default:
		words = append(words, "all at once")
	}
	add("after: ", w.After)
	return words
}

func (w Way) words(s Step) string {
	switch {
	case s.Weight != nil && len(w.Traffic) > 0:
		return fmt.Sprintf("%d %% of the traffic", *s.Weight)
	case s.Weight != nil:
		return fmt.Sprintf("%d %% of the pods", *s.Weight)
	case s.Approval != nil:
		text := "approval"
		if s.Approval.Count > 1 {
			text = fmt.Sprintf("%d approvals", s.Approval.Count)
		}
		if len(s.Approval.Roles) > 0 {
			text += " by " + strings.Join(s.Approval.Roles, " or ")
		}
		return text
	case s.Webhook != nil:
		return "webhook " + s.Webhook.Name
	case s.Analysis != nil:
		return "analysis of " + s.Analysis.words()
	case s.Expose != nil:
		return "links to " + strings.Join(s.Expose.Services, ", ")
	}
	return fmt.Sprintf("a pause of %s", s.Pause)
}

func (a Analysis) words() string {
	var names []string
	for _, q := range a.Queries {
		names = append(names, q.Name)
	}
	text := strings.Join(names, ", ")
	if a.Runs > 1 {
		text += fmt.Sprintf(", %d times", a.Runs)
	}
	switch {
	case a.ManualForward && a.ManualBack:
		text += ", judged by a person"
	case a.ManualForward:
		text += ", confirmed by a person when good"
	case a.ManualBack:
		text += ", confirmed by a person when bad"
	}
	return text
}

// Approvals are the steps of a way that wait for people's approval, in their order.
func (w Way) Approvals() (gates []PlannedGate) {
	w.places(func(where string, steps []Step) {
		for i, s := range steps {
			if s.Approval != nil {
				gates = append(gates, PlannedGate{Gate: fmt.Sprintf("%s[%d]", where, i), Roles: s.Approval.Roles, Count: max(s.Approval.Count, 1)})
			}
		}
	})
	return gates
}

// places calls a function with each list of steps, as people's words name it, in the order in which they come.
func (w Way) places(each func(where string, steps []Step)) {
	each("beforeDeployment", w.Before)
	each("canary.steps", w.Canary)
	if w.BlueGreen != nil {
		each("blueGreen.redirectTrafficAfter", w.BlueGreen.Redirect)
		each("blueGreen.shutDownOldVersionAfter", w.BlueGreen.ShutDown)
	}
	each("afterDeployment", w.After)
}
