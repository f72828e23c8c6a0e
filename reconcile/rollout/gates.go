package rollout

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"towpath/manifest"
)

// verdict is what steps that wait say together: they wait for these, or one has failed, or all have passed.
type verdict struct {
	waits   []Wait
	failed  string // a sentence
	expired bool   // it failed since nobody said anything in time
	due     time.Time

	read    []manifest.Key // Services that are to be read first
	unread  *Failure       // of that read
	exposes []Link         // to be made
}

// gates judges steps that wait side by side since the present phase began. Who is called beside a step that makes links may be told of them, so those are made first.
func (d *decision) gates(where string, steps []Step) verdict {
	var v verdict
	judge := func(which func(Step) bool) {
		for i, step := range steps {
			if which(step) {
				d.gate(&v, fmt.Sprintf("%s[%d]", where, i), step)
			}
		}
	}
	judge(func(s Step) bool { return s.Expose != nil })
	made := v.unread == nil && len(v.read) == 0 && len(v.exposes) == 0
	judge(func(s Step) bool { return s.Expose == nil && (made || s.Webhook == nil && s.Analysis == nil) })
	return v
}

// gate adds one step to a verdict.
func (d *decision) gate(v *verdict, name string, step Step) {
	said := d.said(name)
	switch {
	case said.rejected != nil:
		v.fail(fmt.Sprintf("%s was rejected by %s", name, said.rejected.By)+because(said.rejected.Reason), false)
	case said.passed:
	case step.Approval != nil:
		d.approval(v, name, *step.Approval, said.approved)
	case step.Pause > 0:
		d.timed(v, name, step.Pause)
	case step.Webhook != nil:
		d.webhook(v, name, *step.Webhook)
	case step.Analysis != nil:
		d.analysis(v, name, *step.Analysis, len(said.approved) > 0)
	case step.Expose != nil:
		d.expose(v, name, *step.Expose)
	}
}

// words about one gate.
type words struct {
	rejected *Word
	passed   bool
	approved []string // by whom, each once
}

func (d *decision) said(gate string) (w words) {
	for _, word := range d.f.Words {
		if !d.counts(word, gate) {
			continue
		}
		switch word.Verb {
		case Reject:
			w.rejected = &word
		case Pass:
			w.passed = true
		case Approve:
			if !slices.Contains(w.approved, word.By) {
				w.approved = append(w.approved, word.By)
			}
		}
	}
	return w
}

func (d *decision) approval(v *verdict, name string, a Approval, by []string) {
	t := &d.Target
	if slices.Contains(t.Skip, SkipApprovals) {
		return
	}
	if a.NotSelf {
		by = slices.DeleteFunc(by, t.wrote)
	}
	if len(by) >= max(a.Count, 1) {
		return
	}
	w := Wait{Kind: WaitApproval, Gate: name, Who: a.Roles, Needs: d.asked(name, a, by), Command: d.command("approve")}
	if a.NotSelf {
		w.NotSelf, w.NotBy = true, t.Authors
	}
	if a.Expires > 0 {
		w.Until = t.Since.Add(a.Expires)
		if !d.f.Now.Before(w.Until) {
			v.fail(fmt.Sprintf("%s expired: %d of %d approvals within %s", name, len(by), max(a.Count, 1), a.Expires), true)
			return
		}
		v.wake(w.Until)
	}
	v.waits = append(v.waits, w)
}

// wrote reports whether the change is somebody's own: names and addresses are compared without regard to case.
func (t Target) wrote(who string) bool { return named(t.Authors, who) }

func named(people []string, who string) bool {
	return slices.ContainsFunc(people, func(name string) bool { return strings.EqualFold(name, who) })
}

// asked is what an approval is about, as a sentence for who may give it.
func (d *decision) asked(name string, a Approval, by []string) string {
	text := fmt.Sprintf("approval of %s: %d of %d", name, len(by), max(a.Count, 1))
	if len(by) > 0 {
		text += " (" + strings.Join(by, ", ") + ")"
	}
	if len(a.Roles) > 0 {
		text += ", by " + strings.Join(a.Roles, " or ")
	}
	if authors := d.Target.Authors; a.NotSelf && len(authors) > 0 {
		const named = 6
		text += ", not by " + strings.Join(authors[:min(len(authors), named)], " or ")
		if more := len(authors) - named; more > 0 {
			text += fmt.Sprintf(" or %d more", more)
		}
	}
	return text
}

func (d *decision) timed(v *verdict, name string, lasts time.Duration) {
	t := &d.Target
	until := t.Since.Add(lasts)
	if slices.Contains(t.Skip, SkipPauses) || !d.f.Now.Before(until) {
		return
	}
	v.wake(until)
	v.waits = append(v.waits, Wait{Kind: WaitPause, Gate: name, Until: until, Needs: fmt.Sprintf("the pause %s of %s to be over", name, lasts), Command: d.command("skip")})
}

func (v *verdict) fail(why string, expired bool) {
	if v.failed == "" {
		v.failed, v.expired = why, expired
	}
}

func (v *verdict) wake(at time.Time) {
	if v.due.IsZero() || at.Before(v.due) {
		v.due = at
	}
}

// waitingFor records what a verdict waits for.
func (d *decision) waitingFor(v verdict) {
	state := Paused
	switch {
	case slices.ContainsFunc(v.waits, func(w Wait) bool { return w.Kind == WaitApproval }):
		state = AwaitingApproval
	case slices.ContainsFunc(v.waits, func(w Wait) bool { return w.Kind != WaitPause }):
		state = Running
	}
	d.Due = v.due
	d.waiting(state, v.waits...)
}

// passes carries a verdict out in a phase that can still go back: it reports true when all steps have passed.
func (d *decision) passes(v verdict) bool {
	switch {
	case v.failed != "":
		if v.expired {
			d.Cancels = &Request{By: "towpath", Reason: v.failed, At: d.f.Now}
		}
		d.revert(RolledBack, v.failed)
		return false
	case d.looks(v):
		return false
	case len(v.waits) > 0:
		d.waitingFor(v)
		return false
	}
	return true
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// Gates names the steps of a way that wait, as people's words name them.
func (w Way) Gates() (names []string) {
	w.places(func(where string, steps []Step) {
		for i, step := range steps {
			if step.Weight == nil {
				names = append(names, fmt.Sprintf("%s[%d]", where, i))
			}
		}
	})
	return names
}
