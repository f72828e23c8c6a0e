// Package status tells people on GitHub how rollouts stand. What is to be told lies in the store's outbox, written with the change that it is about;
// here it is put into words, kept within GitHub's limits, sent, and sent again until it arrived. Nothing here holds a rollout up.
package status

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"towpath/deployment"
	"towpath/reconcile/rollout"
)

// Status is a commit status as GitHub shows it.
type Status struct {
	Context     string // "towpath/APP"
	State       string // pending, success, failure, error
	Description string // at most 140 letters
	Link        string // to what it is about
	Final       bool   // what it is about has ended
	target      bool   // it is about one target only
}

const (
	// MaxApplications is how many applications of one commit have statuses of their own; a commit that touches more gets one for all.
	MaxApplications = 20
	// maxTargets is how many targets of an application have statuses of their own.
	maxTargets = 10
	// maxDescription is GitHub's limit; it counts letters.
	maxDescription = 140
)

// states are a rollout's states in GitHub's words and in ours.
var states = map[rollout.State]struct{ github, words string }{
	rollout.Queued:           {"pending", "queued"},
	rollout.Running:          {"pending", "rolling out"},
	rollout.Paused:           {"pending", "paused"},
	rollout.AwaitingApproval: {"pending", "waits for approval"},
	rollout.Succeeded:        {"success", "live"},
	rollout.Failed:           {"failure", "failed"},
	rollout.RolledBack:       {"failure", "rolled back"},
	rollout.Cancelled:        {"error", "cancelled"},
	rollout.Rejected:         {"error", "rejected"},
	rollout.Skipped:          {"success", "skipped"},
}

// Statuses puts a report into words: what a commit shall show. No two have one context, which GitHub compares without regard to case. link is the page of a
// deployment, or, without its id, of all.
func Statuses(r rollout.CommitReport, link func(deployment string) string) []Status {
	if len(r.Applications) > MaxApplications {
		s := ofMany(r.Applications)
		s.Link = link("")
		return []Status{s}
	}
	var all []Status
	taken := map[string]bool{}
	for _, a := range r.Applications {
		name := a.Application
		if key := strings.ToLower(name); name == "" || taken[key] {
			name = a.Path
		}
		taken[strings.ToLower(name)] = true
		from := len(all)
		all = append(all, ofApplication(name, a))
		if len(a.Targets) <= maxTargets && a.Deployment != "" {
			for _, t := range a.Targets {
				all = append(all, ofTarget(name, t))
			}
		}
		for i := range all[from:] {
			all[from+i].Link = link(a.Deployment)
		}
	}
	return all
}

// ofMany is the one status of a commit that touches very many applications.
func ofMany(applications []rollout.ApplicationReport) Status {
	s := Status{Context: "towpath", State: "success", Final: true}
	var moving, live, same int
	var failed, stopped []string
	for _, a := range applications {
		switch one := ofApplication(a.Application, a); {
		case one.State == "failure" && a.Application == "":
			failed = append(failed, a.Path)
		case one.State == "failure":
			failed = append(failed, a.Application)
		case one.State == "error":
			stopped = append(stopped, a.Application)
		case one.State == "pending":
			moving++
		case a.Deployment == "":
			same++
		default:
			live++
		}
	}
	var parts []string
	add := func(count int, words string) {
		if count > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", count, words))
		}
	}
	switch {
	case len(failed) > 0:
		s.State = "failure"
	case len(stopped) > 0:
		s.State = "error"
	}
	if moving > 0 {
		s.Final = false
		if len(failed) == 0 {
			s.State = "pending"
		}
	}
	add(len(failed), "failed ("+strings.Join(firstFew(failed), ", ")+")")
	add(moving, "rolling out")
	add(live, "live")
	add(len(stopped), "cancelled")
	add(same, "unchanged")
	s.Description = Fit(fmt.Sprintf("%d applications: %s", len(applications), strings.Join(parts, ", ")))
	return s
}

func firstFew(names []string) []string {
	if len(names) <= 3 {
		return names
	}
	return append(slices.Clone(names[:3]), "…")
}

func ofApplication(name string, a rollout.ApplicationReport) Status {
	s := Status{Context: "towpath/" + name}
	switch {
	case rollout.HasErrors(a.Problems):
		s.State, s.Final, s.Description = "failure", true, Fit(refused(a.Problems))
	case a.Deployment == "":
		s.State, s.Final, s.Description = "success", true, "unchanged: the manifests are as they were"
	default:
		s.State, s.Final = states[a.State].github, a.State.Final() && drifted(a.Targets) == ""
		s.Description = Fit(fmt.Sprintf("#%d: %s", a.Number, course(a)))
	}
	return s
}

// refused names the first error of a file, and how many more there are.
func refused(problems []deployment.Problem) string {
	var errors []deployment.Problem
	for _, p := range problems {
		if p.Severity == deployment.Error {
			errors = append(errors, p)
		}
	}
	text := fmt.Sprintf("%s:%d:%d: %s", errors[0].File, errors[0].Line, errors[0].Column, errors[0].Text)
	if more := len(errors) - 1; more > 0 {
		suffix := fmt.Sprintf(" (and %d more)", more)
		text = cut(plain(text), maxDescription-len(suffix)) + suffix
	}
	return text
}

// course says how far a deployment is: where it is live, and what the first target that is not waits for, or why it ended otherwise.
func course(a rollout.ApplicationReport) string {
	var live, gone []string
	var open *rollout.TargetReport
	for i, t := range a.Targets {
		switch {
		case t.State == rollout.Succeeded && t.Removes:
			gone = append(gone, t.Name)
		case t.State == rollout.Succeeded:
			live = append(live, t.Name)
		case open == nil || worse(t.State, open.State):
			open = &a.Targets[i]
		}
	}
	if open == nil {
		switch {
		case a.State != rollout.Succeeded:
			return sentence(states[a.State].words, a.Why)
		case len(live) == 0 && len(gone) == 0:
			return "nothing of it runs under this file any more; its objects stay"
		case len(live) == 0:
			return "removed from " + names(gone)
		}
		return "live on " + names(live) + drifted(a.Targets)
	}
	text := open.Name + ": " + now(*open)
	if len(live) > 0 {
		text = fmt.Sprintf("%d of %d live; %s", len(live), len(a.Targets), text)
	}
	return text
}

// worse orders what the reader must know first: what failed, then who is waited for, then what moves.
func worse(a, b rollout.State) bool {
	order := []rollout.State{rollout.Failed, rollout.RolledBack, rollout.AwaitingApproval, rollout.Paused, rollout.Running, rollout.Queued, rollout.Rejected, rollout.Cancelled, rollout.Skipped}
	return slices.Index(order, a) < slices.Index(order, b)
}

func names(all []string) string {
	if text := strings.Join(all, ", "); len(text) <= 100 {
		return text
	}
	return fmt.Sprintf("%d targets", len(all))
}

func ofTarget(application string, t rollout.TargetReport) Status {
	return Status{Context: "towpath/" + application + "/" + t.Name, State: states[t.State].github, Final: t.State.Final() && len(t.Drift) == 0, Description: Fit(now(t)), target: true}
}

// now says where a target stands, and why.
func now(t rollout.TargetReport) string {
	words := states[t.State].words
	switch {
	case t.State == rollout.Succeeded && t.Removes:
		return "removed"
	case t.State == rollout.Succeeded && len(t.Drift) > 0:
		return words + differs(t.Drift)
	case t.State == rollout.Succeeded && t.Why == "unchanged":
		return "live, unchanged"
	case t.State == rollout.Succeeded:
		return words
	case len(t.Waits) > 0:
		return sentence(words, t.Waits[0].Needs)
	}
	return sentence(words, t.Why)
}

// drifted names the targets that somebody changed since; "" when nobody did.
func drifted(targets []rollout.TargetReport) string {
	var changed []string
	for _, t := range targets {
		if t.State == rollout.Succeeded && len(t.Drift) > 0 {
			changed = append(changed, t.Name)
		}
	}
	if len(changed) == 0 {
		return ""
	}
	return "; changed since by others: " + names(changed)
}

// differs says what somebody changed since.
func differs(drift []rollout.Drift) string {
	text := "; changed since by others: " + drift[0].Sentence()
	if more := len(drift) - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more)", more)
	}
	return text
}

func sentence(words, why string) string {
	if why == "" || why == words {
		return words
	}
	return words + ": " + why
}

// Fit makes a text one that GitHub takes as a description, and that shows what it says: one line, without control or direction marks, 140 letters.
func Fit(text string) string { return cut(plain(text), maxDescription) }

func plain(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsControl(r), unicode.In(r, unicode.Bidi_Control), r == unicode.ReplacementChar:
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, ""))
	return strings.Join(strings.Fields(text), " ")
}

// cut counts as GitHub's limit may be counted at worst: a letter outside the basic plane is two.
func cut(text string, most int) string {
	length := 0
	for i, r := range text {
		size := 1
		if r > 0xffff {
			size = 2
		}
		if length += size; length > most {
			return cutEnd(text[:i]) + "…"
		}
	}
	return text
}

// cutEnd makes room for the mark of what was cut.
func cutEnd(text string) string {
	letters := []rune(text)
	return strings.TrimRight(string(letters[:max(0, len(letters)-1)]), " ")
}
