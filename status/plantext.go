package status

import (
	"fmt"
	"strings"
	"time"

	"towpath/deployment"
	"towpath/reconcile/rollout"
)

const (
	// mostName and mostSentence are how many letters of a name, and of a sentence, are shown at most.
	mostName     = 100
	mostSentence = 400
)

// summary is the text of the check for all: what is said of the whole, and a table of applications.
func (s showing) summary() string {
	text := s.waiting()
	switch {
	case text != "":
	case len(s.Plans) == 0:
		text = "No deployment file is touched, nor anything that one is made of.\n"
	default:
		if text = s.applications(maxRunText * 3 / 4); len(s.Plans) <= MaxApplications {
			text += fmt.Sprintf("\nEach has a check of its own: `%s / APPLICATION`.\n", checkName)
		}
	}
	return text + "\n" + s.foot() + "\n"
}

// waiting says why there is no plan; "": there is one.
func (s showing) waiting() string {
	switch s.State {
	case rollout.PlanHeld:
		return prose(s.Why, mostSentence) + fmt.Sprintf("\n\nWhoever may write here, and has read it, comments `/towpath plan %s`.\n", s.Head)
	case rollout.PlanTroubled:
		return prose(s.trouble(), mostSentence) + "\n\nIt is tried again.\n"
	case rollout.PlanAsked:
		return "The plan is being made.\n"
	}
	return ""
}

// applications is a table of all, within so many bytes.
func (s showing) applications(most int) string {
	var rows []string
	for i, name := range s.names() {
		o := s.of(s.Plans[i])
		var sum tally
		sum.add(s.Plans[i])
		rows = append(rows, fmt.Sprintf("| %s | %d | %s | %s |\n", code(name, mostName), sum.targets, sum.signs(), o.marked(prose(o.title, mostSentence))))
	}
	return table("| application | targets | + ~ − | plan |\n|---|---|---|---|\n", rows, most, func(n int) string {
		return fmt.Sprintf("\nand [%s](%s)\n", count(n, "more application", "more applications"), s.link)
	})
}

// marked puts a mark before words.
func (o outcome) marked(words string) string {
	mark := "⏳"
	switch o.conclusion {
	case "success":
		mark = "✅"
	case "neutral":
		mark = "➖"
	case "failure":
		mark = "❌"
	case "action_required":
		mark = "✋"
	}
	return mark + " " + words
}

// table is a head and as many rows as fit; rest says how many do not.
func table(head string, rows []string, most int, rest func(n int) string) string {
	text := head
	most -= len(rest(len(rows)))
	for i, row := range rows {
		if len(text)+len(row) > most {
			return text + rest(len(rows)-i)
		}
		text += row
	}
	return text
}

// details is what a merge would do to an application, but for the differences, within so many bytes: its targets, what stands in its way, what it leaves.
func (s showing) details(a rollout.ApplicationPlan, most int) string {
	part := func(share int) int { return most * share / 100 }
	more := func(one, many string) func(int) string {
		return func(n int) string { return fmt.Sprintf("- and [%s](%s)\n", count(n, one, many), s.link) }
	}
	var text strings.Builder
	list := func(share int, lines []string, one, many string) {
		if len(lines) > 0 {
			text.WriteString(table("\n", lines, part(share), more(one, many)))
		}
	}
	o := s.of(a)
	fmt.Fprintf(&text, "%s", o.marked(prose(o.title, mostSentence)))
	if a.Same > 0 {
		fmt.Fprintf(&text, " · %s", count(a.Same, "target stays as it is", "targets stay as they are"))
	}
	text.WriteString("\n")
	list(20, problems(a.Problems), "more problem", "more problems")
	list(20, s.refusals(a.Targets), "more refusal", "more refusals")
	if len(a.Targets) > 0 {
		var rows []string
		for _, t := range a.Targets {
			rows = append(rows, s.row(t))
		}
		text.WriteString("\n" + table("| target | + ~ − | dry run | after | released by | earliest | how |\n|---|---|---|---|---|---|---|\n", rows, part(40), func(n int) string {
			return fmt.Sprintf("\nand [%s](%s)\n", count(n, "more target", "more targets"), s.link)
		}))
	}
	list(10, leaving(a.Leaves), "more target that leaves", "more targets that leave")
	return text.String()
}

// row is a target in the table.
func (s showing) row(t rollout.TargetPlan) string {
	var sum tally
	sum.target(t)
	name := code(t.Name, mostName)
	if t.First {
		name += " (new)"
	}
	after := make([]string, len(t.After))
	for i, other := range t.After {
		after[i] = code(other, mostName)
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %s | %s | %s |\n", name, sum.signs(), rehearsed(t.DryRun), orDash(cutList(after, ", ")), orDash(cutList(releases(t.Gates), "; ")), earliest(t),
		prose(strings.Join(t.Steps, " → "), mostSentence))
}

func orDash(text string) string {
	if text == "" {
		return "–"
	}
	return text
}

// cutList joins the first few of very many.
func cutList(all []string, between string) string {
	const few = 8
	if more := len(all) - few; more > 0 {
		return strings.Join(all[:few], between) + fmt.Sprintf("%sand %d more", between, more)
	}
	return strings.Join(all, between)
}

// releases says of each gate who may open it.
func releases(gates []rollout.PlannedGate) (all []string) {
	for _, g := range gates {
		who := count(g.Count, "person", "people")
		if len(g.Roles) == 0 {
			who += " who may approve"
		} else {
			roles := make([]string, len(g.Roles))
			for i, role := range g.Roles {
				roles[i] = code(role, mostName)
			}
			who += " of " + cutList(roles, " or ")
		}
		if g.Why != "" {
			who += ", because " + prose(g.Why, mostSentence)
		}
		all = append(all, code(g.Gate, mostName)+": "+who)
	}
	return all
}

// earliest is when a target could be reached.
func earliest(t rollout.TargetPlan) string {
	switch {
	case t.Reached != nil && *t.Reached < time.Second:
		return "at once"
	case t.Reached != nil:
		return "after " + lasting(*t.Reached)
	case t.Unreached != "":
		return "never: " + prose(t.Unreached, mostSentence)
	}
	return "–"
}

// lasting is a time in at most two units.
func lasting(d time.Duration) string {
	units := []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "min"}, {time.Second, "s"}}
	for i, u := range units {
		if d < u.length {
			continue
		}
		text := fmt.Sprintf("%d %s", d/u.length, u.name)
		if i+1 < len(units) {
			if rest := d % u.length / units[i+1].length; rest > 0 {
				text += fmt.Sprintf(" %d %s", rest, units[i+1].name)
			}
		}
		return text
	}
	return "0 s"
}

// rehearsed is what the API server said, in a few words.
func rehearsed(d rollout.DryRun) string {
	switch {
	case len(d.Refused) > 0:
		return fmt.Sprintf("❌ %d refused", len(d.Refused))
	case d.Away != "":
		return "⚠ not asked"
	case d.Of == 0:
		return "–"
	case d.Asked < d.Of:
		return fmt.Sprintf("✅ %d of %d", d.Asked, d.Of)
	}
	return fmt.Sprintf("✅ %d", d.Asked)
}

// problems are those of an application's files, with their places.
func problems(all []deployment.Problem) (lines []string) {
	for _, p := range all {
		mark := "❌"
		if p.Severity != deployment.Error {
			mark = "⚠"
		}
		at := p.File
		if p.Line > 0 {
			at = fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
		}
		lines = append(lines, fmt.Sprintf("- %s %s: %s\n", mark, code(at, 200), prose(saying(p), mostSentence)))
	}
	return lines
}

// refusals are what API servers said, and those of them that could not be asked. They speak of what lives in the cluster, which not everybody may read.
func (s showing) refusals(targets []rollout.TargetPlan) (lines []string) {
	said := func(text string) string {
		if s.Public {
			return fmt.Sprintf("[why](%s)", s.link)
		}
		return prose(text, mostSentence)
	}
	for _, t := range targets {
		for _, r := range t.DryRun.Refused {
			lines = append(lines, fmt.Sprintf("- ❌ %s: the API server would refuse %s: %s\n", code(t.Name, mostName), code(r.Key.String(), 200), said(r.Text)))
		}
	}
	for _, t := range targets {
		if t.DryRun.Away != "" {
			lines = append(lines, fmt.Sprintf("- ⚠ %s: the API server was not asked: %s\n", code(t.Name, mostName), said(t.DryRun.Away)))
		}
	}
	return lines
}

// leaving are the targets that the file names no longer.
func leaving(targets []rollout.LeftTarget) (lines []string) {
	for _, t := range targets {
		what := "its objects stay, and nobody looks after them"
		if t.Prune {
			what = "its objects go"
		}
		lines = append(lines, fmt.Sprintf("- %s leaves: %s\n", code(t.Name, mostName), what))
	}
	return lines
}

// folds are the differences of an application: one for all targets to which the same happens.
func (s showing) folds(a rollout.ApplicationPlan) (all []fold) {
	var names [][]string
	at := map[string]int{}
	for _, t := range a.Targets {
		if len(t.Changes) == 0 {
			continue
		}
		var blocks []string
		for _, c := range t.Changes {
			blocks = append(blocks, block(c))
		}
		key := sum(blocks...)
		if _, known := at[key]; !known {
			var c tally
			c.target(t)
			at[key] = len(all)
			all, names = append(all, fold{title: c.signs(), blocks: blocks}), append(names, nil)
		}
		names[at[key]] = append(names[at[key]], tag(t.Name, mostName))
	}
	for i := range all {
		all[i].title = cutList(names[i], ", ") + ": " + all[i].title
	}
	return all
}

// block is how one object differs.
func block(c rollout.PlannedChange) string {
	text := fmt.Sprintf("%s %s", c.Kind, code(c.Key.String(), 200))
	if c.Kept != "" {
		text += " · stays in the cluster for now: " + prose(c.Kept, mostSentence)
	}
	text += "\n\n"
	if c.Text != "" {
		text += fence("diff", c.Text)
	}
	if c.Cut > 0 {
		text += "\n" + count(c.Cut, "more line", "more lines") + "\n"
	}
	return text + "\n"
}

// foot says what the plan was made of.
func (s showing) foot() string {
	text := fmt.Sprintf("<sub>%s of %s", code(brief(s.Head), mostName), code(s.Source, mostName))
	if s.MergeBase != "" {
		text += fmt.Sprintf(" · compared with %s of %s", code(brief(s.MergeBase), mostName), code(s.Base, mostName))
	}
	return text + "</sub>"
}

// brief is a commit as people know it.
func brief(commit string) string { return commit[:min(len(commit), 10)] }

// leftOut stands in the place of differences that are too long.
func (s showing) leftOut(blocks int) string {
	return fmt.Sprintf("[%s](%s) for their length.\n\n", count(blocks, "difference is left out", "differences are left out"), s.link)
}
