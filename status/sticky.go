package status

import (
	"fmt"
	"strings"

	"towpath/reconcile/rollout"
)

// comment is the one below a pull request, which is changed as the pull request goes on: a section for each application, and at the end what all was made of.
func (s showing) comment() post {
	body := s.sections(maxComment - 1000)
	whole := s.whole()
	must := s.State == rollout.PlanHeld || whole.conclusion == "failure"
	p := post{object: "comment", spot: s.at, urgent: must, quiet: s.State == rollout.PlanTroubled || whole.conclusion == "neutral", spare: sparesNothing}
	return s.commented(p, Comment{Mark: mark(s.Source, s.Number), must: must}, body)
}

// heading begins a section.
func (s showing) heading(of string, o outcome, words string) string {
	return fmt.Sprintf("### Towpath%s · %s · %s · [open](%s)\n\n", of, o.marked(words), code(brief(s.Head), mostName), s.link)
}

// sections are the comment's text, within so many bytes. Before the merge each is the plan of an application.
func (s showing) sections(most int) string {
	whole := s.whole()
	switch {
	case s.State == rollout.PlanHeld:
		return s.heading("", whole, "waits for a person") + s.waiting()
	case s.State == rollout.PlanTroubled:
		return s.heading("", whole, "not planned yet") + s.waiting()
	case whole.conclusion == "neutral":
		return s.heading("", whole, "nothing changes")
	case len(s.Plans) > MaxApplications:
		return s.heading("", whole, fmt.Sprintf("plan of %d applications", len(s.Plans))) + s.applications(most*3/4)
	}
	heads, folds := make([]string, len(s.Plans)), make([][]fold, len(s.Plans))
	left := most
	for i, name := range s.names() {
		a := s.Plans[i]
		heads[i] = s.heading(" · "+code(name, mostName), s.of(a), "plan") + s.details(a, most*2/3/len(s.Plans))
		folds[i] = s.folds(a)
		left -= len(heads[i]) + len("\n")
	}
	var text strings.Builder
	for i, differences := range fitted(left, folds, s.leftOut) {
		text.WriteString(heads[i] + "\n" + differences)
	}
	return text.String()
}
