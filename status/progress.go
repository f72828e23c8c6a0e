package status

import (
	"fmt"
	"slices"
	"strings"

	"towpath/reconcile/rollout"
)

// merged is the comment below a pull request once it is merged: how what it became goes on, and below that what was planned.
func (s showing) merged() post {
	p := post{object: "comment", spot: s.at, spare: sparesNothing}
	c := Comment{Mark: mark(s.Source, s.Number)}
	if s.Progress == nil || !s.Progress.Taken {
		return s.commented(p, c, fmt.Sprintf("### Towpath · ⏳ %s is being taken in · [open](%s)\n", code(brief(s.Merged), mostName), s.open("")))
	}
	p.final = true
	for _, a := range s.Progress.Applications {
		urgent, ended := standing(a)
		p.urgent, p.final = p.urgent || urgent, p.final && ended
	}
	p.quiet, c.must = len(s.Progress.Applications) == 0, p.urgent
	return s.commented(p, c, s.rollouts(maxComment-1000))
}

// commented is a comment with its text, and what that was made of.
func (s showing) commented(p post, c Comment, body string) post {
	foot := s.foot() + "\n"
	c.state = sum(body, foot)
	c.Body = body + "\n" + strings.TrimSuffix(foot, "</sub>\n") + " · " + s.At.UTC().Format("2 January 15:04 UTC") + "</sub>\n"
	p.content = c
	return p
}

// standing says of an application whether a person has to see how it stands, and whether it has ended.
func standing(a rollout.ApplicationReport) (urgent, ended bool) {
	if rollout.HasErrors(a.Problems) {
		return true, true
	}
	urgent = slices.ContainsFunc(a.Targets, func(t rollout.TargetReport) bool {
		return t.State == rollout.AwaitingApproval || t.State == rollout.Failed || t.State == rollout.RolledBack
	})
	return urgent, a.Deployment == "" || a.State.Final()
}

// rollouts are the sections of what the pull request became, within so many bytes.
func (s showing) rollouts(most int) string {
	all := s.Progress.Applications
	if len(all) == 0 {
		return fmt.Sprintf("### Towpath · ➖ nothing changes · %s\n", code(brief(s.Merged), mostName))
	}
	var text strings.Builder
	if len(all) > MaxApplications {
		o := ofMany(all)
		fmt.Fprintf(&text, "### Towpath · %s · %s · [open](%s)\n", prose(o.Description, mostSentence), code(brief(s.Merged), mostName), s.open(""))
	} else {
		for _, a := range all {
			text.WriteString(s.rollout(a, most*2/3/len(all)) + "\n")
		}
	}
	var plans fold
	for i, name := range s.names() {
		plans.blocks = append(plans.blocks, "**"+code(name, mostName)+"** "+s.details(s.Plans[i], most/3/len(s.Plans))+"\n")
	}
	if len(plans.blocks) > 0 {
		plans.title = "Plan of " + tag(brief(s.Head), mostName)
		text.WriteString("\n" + fitted(most-text.Len(), [][]fold{{plans}}, func(n int) string { return count(n, "plan is left out.", "plans are left out.") + "\n" })[0])
	}
	return text.String()
}

// rollout is how one application goes on, within so many bytes.
func (s showing) rollout(a rollout.ApplicationReport, most int) string {
	name := a.Application
	if name == "" {
		name = a.Path
	}
	head := func(mark, words string) string {
		return fmt.Sprintf("### Towpath · %s · %s %s · %s · [open](%s)\n\n", code(name, mostName), mark, words, code(brief(s.Merged), mostName), s.open(a.Deployment))
	}
	switch {
	case rollout.HasErrors(a.Problems):
		return head("❌", "refused") + prose(refused(a.Problems), mostSentence) + "\n"
	case a.Deployment == "":
		return head("➖", "unchanged")
	}
	text := head(marks[a.State], states[a.State].words)
	var rows, notes []string
	for _, t := range a.Targets {
		rows = append(rows, fmt.Sprintf("| %s | %s %s |\n", code(t.Name, mostName), marks[t.State], prose(now(t), mostSentence)))
		notes = append(notes, s.asks(a, t)...)
		notes = append(notes, s.strays(a, t)...)
	}
	text += table("| target | state |\n|---|---|\n", rows, most*2/3, func(n int) string { return fmt.Sprintf("\nand %s\n", count(n, "more target", "more targets")) })
	if len(notes) > 0 {
		text += "\n" + table("", notes, most/3, func(n int) string {
			return fmt.Sprintf("\nand [%s](%s)\n", count(n, "more remark", "more remarks"), s.open(a.Deployment))
		})
	}
	return text
}

// marks stand before the words of a state.
var marks = map[rollout.State]string{
	rollout.Queued: "⏳", rollout.Running: "🟡", rollout.Paused: "⏸", rollout.AwaitingApproval: "✋", rollout.Succeeded: "✅", rollout.Failed: "❌",
	rollout.RolledBack: "↩️", rollout.Cancelled: "🚫", rollout.Rejected: "🚫", rollout.Skipped: "➖",
}

// asks is what people are asked for on a target, and how they give it.
func (s showing) asks(a rollout.ApplicationReport, t rollout.TargetReport) (notes []string) {
	target := t.Name
	if len(s.Progress.Applications) > 1 {
		target = a.Application + "/" + target
	}
	for _, w := range t.Waits {
		if w.Kind != rollout.WaitApproval || w.Command == "" {
			continue
		}
		until := ""
		if !w.Until.IsZero() {
			until = ", until " + w.Until.UTC().Format("2 January 15:04 UTC")
		}
		notes = append(notes, fmt.Sprintf("- **Approval** %s: %s%s → %s here, or %s\n", code(t.Name, mostName), prose(w.Needs, mostSentence), until,
			code("/towpath approve "+target, 300), code(w.Command, 300)))
	}
	return notes
}

// strays says where something else is rolled out than was planned: a plan is a promise.
func (s showing) strays(a rollout.ApplicationReport, t rollout.TargetReport) []string {
	i := slices.IndexFunc(s.Plans, func(p rollout.ApplicationPlan) bool { return p.Application == a.Application && p.Path == a.Path })
	if i < 0 || t.Removes || t.Digest == "" {
		return nil
	}
	j := slices.IndexFunc(s.Plans[i].Targets, func(p rollout.TargetPlan) bool { return p.Name == t.Name })
	switch {
	case j >= 0 && s.Plans[i].Targets[j].Digest == t.Digest:
		return nil
	case j < 0 && t.Why == "unchanged":
		return nil
	}
	return []string{fmt.Sprintf("- ⚠ %s: what is rolled out is not what the plan of %s shows: %s is another than when it was made\n", code(t.Name, mostName), code(brief(s.Head), mostName), code(s.Base, mostName))}
}
