package rollout

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Saying is what a person says to gates of a target under way.
type Saying struct {
	Tenant, Deployment string
	Target             string // "": the only one that waits for such a word
	Gate               string // "": the only one of the target that waits for such a word
	Verb               Verb
	By                 string
	Known              []string // names beside By that the person may have in Git
	Own                string   // why it is the person's own change, as "who merged it"; "": as far as is known it is not, but by its names
	Roles              []string // that the person holds
	Admin              bool     // may say anything
	Reason             string
	Key                string // what was said under it before is not said again; "": it has none
}

// spoken is what a word waits for, and what it is called once said.
func (v Verb) spoken() (kinds []WaitKind, past string) {
	switch v {
	case Approve:
		return []WaitKind{WaitApproval}, "approved"
	case Reject:
		return []WaitKind{WaitApproval, WaitPause, WaitWebhook, WaitAnalysis}, "rejected"
	case Pass:
		return []WaitKind{WaitPause, WaitApproval, WaitWebhook, WaitAnalysis}, "skipped"
	}
	return []WaitKind{WaitRetry}, "asked to retry"
}

// Speaks reports whether a word like this can be said to what waits.
func (v Verb) Speaks(wait Wait) bool {
	kinds, _ := v.spoken()
	return slices.Contains(kinds, wait.Kind)
}

// Find is the target of a deployment that a saying is about; a *Refusal when there is none.
func (s Saying) Find(targets []Target) (Target, error) {
	if s.Verb == Pass && strings.TrimSpace(s.Reason) == "" {
		return Target{}, Refuse(Malformed, "what is skipped against the file needs a reason, for history; give --reason")
	}
	_, past := s.Verb.spoken()
	var waiting []Target
	for _, t := range targets {
		if t.Name == s.Target {
			return t, nil
		}
		if s.Target == "" && slices.ContainsFunc(t.Waits, s.about) {
			waiting = append(waiting, t)
		}
	}
	switch {
	case s.Target != "":
		return Target{}, Refuse(Missing, "deployment %s has no target %s", s.Deployment, s.Target)
	case len(waiting) == 0:
		return Target{}, Refuse(Conflicts, "no target of deployment %s waits for what could be %s", s.Deployment, past)
	case len(waiting) > 1:
		return Target{}, Refuse(Malformed, "%d targets of deployment %s wait for that; name one", len(waiting), s.Deployment)
	}
	return waiting[0], nil
}

func (s Saying) about(wait Wait) bool {
	return s.Verb.Speaks(wait) && (s.Gate == "" || s.Gate == wait.Gate)
}

// Gates is what of a target a saying is about, when the person may say it: the one that is named, else all that the person may speak to. A *Refusal when
// there is none.
func (s Saying) Gates(t Target) (gates []string, err error) {
	_, past := s.Verb.spoken()
	for _, wait := range t.Waits {
		if !s.about(wait) {
			continue
		}
		if why := s.forbidden(t, wait); why != nil {
			err = why
			continue
		}
		gates = append(gates, wait.Gate)
	}
	switch {
	case len(gates) > 0:
		return gates, nil
	case err != nil:
		return nil, err
	case s.Gate != "":
		return nil, Refuse(Conflicts, "target %s of deployment %s does not wait at %s for what could be %s: it is %s", t.Name, t.Deployment, s.Gate, past, t.State)
	}
	return nil, Refuse(Conflicts, "target %s of deployment %s waits for nothing that could be %s: it is %s", t.Name, t.Deployment, past, t.State)
}

// forbidden is why a person may not speak to a wait; nil: they may.
func (s Saying) forbidden(t Target, wait Wait) error {
	if wait.Kind != WaitApproval {
		return nil
	}
	if !s.Admin && len(wait.Who) > 0 && !slices.ContainsFunc(s.Roles, func(role string) bool {
		return slices.ContainsFunc(wait.Who, func(who string) bool { return strings.EqualFold(role, who) })
	}) {
		return Refuse(Forbidden, "%s of target %s needs one of the roles %s; %s holds %s", wait.Gate, t.Name, strings.Join(wait.Who, ", "), s.By, RolesInWords(s.Roles))
	}
	if s.Verb == Pass && (wait.Gate == gatePrune || wait.Gate == gateFound) {
		return Refuse(Conflicts, "%s of target %s is no step of the file that could be skipped; approve it, or reject it", wait.Gate, t.Name)
	}
	if s.Verb == Reject || !wait.Others() {
		return nil
	}
	if s.Own != "" {
		return Refuse(Forbidden, "%s of target %s may not be given by %s, %s (allowSelfApproval: false)", wait.Gate, t.Name, s.By, s.Own)
	}
	if slices.ContainsFunc(append([]string{s.By}, s.Known...), func(name string) bool { return named(wait.NotBy, name) }) {
		return Refuse(Forbidden, "%s of target %s may not be given by %s, whose own change it is (allowSelfApproval: false)", wait.Gate, t.Name, s.By)
	}
	return nil
}

// RolesInWords is which roles somebody holds, in words.
func RolesInWords(roles []string) string {
	if len(roles) == 0 {
		return "no role"
	}
	return strings.Join(roles, ", ")
}

// Word of the saying to one gate, and its line of history.
func (s Saying) Word(t Target, gate string, now time.Time) (Word, Event) {
	_, past := s.Verb.spoken()
	what := fmt.Sprintf("%s: %s %s", t.Name, s.By, past)
	if gate != "" && gate != gatePrune && gate != gateFound {
		what += " " + gate
	}
	return Word{Target: t.Name, Gate: gate, Digest: t.Digest, Verb: s.Verb, By: s.By, Reason: s.Reason, At: now},
		Event{At: now, Tenant: s.Tenant, Application: t.Application, Deployment: t.Deployment, Target: t.Name, Who: s.By,
			Kind: "target." + strings.ReplaceAll(past, " ", "_"), What: what, Why: s.Reason}
}

// Repeats reports whether a word was said before. Only a retry means something the second time.
func (w Word) Repeats(said []Word) bool {
	return w.Verb != Retry && slices.ContainsFunc(said, func(o Word) bool {
		return o.Target == w.Target && o.Gate == w.Gate && o.Digest == w.Digest && o.Verb == w.Verb && o.By == w.By
	})
}
