package status

import (
	"fmt"
	"slices"
	"strings"

	"towpath/deployment"
	"towpath/manifest/diff"
	"towpath/reconcile/rollout"
)

// showing is a proposal that is to be shown at a place: its plan on its head, and below the pull request.
type showing struct {
	rollout.ProposalReport
	at     spot
	checks bool                           // with check runs; else with statuses
	link   string                         // where there is more
	open   func(deployment string) string // the page of a deployment
}

const (
	checkName   = "Towpath plan"
	contextName = "towpath/plan"
)

// outcome is what a plan, or a part of it, comes to.
type outcome struct {
	conclusion string // a check run's; "": in progress
	title      string // one line of plain text
}

// posts are all that people are to see, what merges wait for first.
func (s showing) posts(published map[string]rollout.Publication) (all []post) {
	if s.Head == "" {
		return nil
	}
	s.at.commit = s.Head
	if !s.Closed {
		all = s.ofHead()
	}
	all = append(all, s.ended(all, published)...)
	switch {
	case s.Number == 0:
	case s.Merged != "":
		all = append(all, s.merged())
	case s.State != rollout.PlanAsked && !s.Closed:
		all = append(all, s.comment())
	}
	return all
}

// ofHead are what stands beside the head: one for all, and one for each application.
func (s showing) ofHead() []post {
	whole := s.whole()
	all := []post{s.post("", "", whole, Run{Summary: s.summary(), Annotations: s.annotations()})}
	if s.State != rollout.PlanMade || len(s.Plans) > MaxApplications {
		return all
	}
	for i, name := range s.names() {
		a := s.Plans[i]
		folds := s.folds(a)
		all = append(all, s.post(" / "+name, "/"+name, s.of(a), Run{Summary: s.details(a, maxRunText), Text: fitted(maxRunText, [][]fold{folds}, s.leftOut)[0], Annotations: remarks(a.Problems)}))
	}
	return all
}

// post is a check run, or the status in its place.
func (s showing) post(check, context string, o outcome, r Run) post {
	p := post{spot: s.at, final: s.State == rollout.PlanMade, urgent: s.State == rollout.PlanHeld, spare: sparesStatuses}
	if !s.checks {
		status := Status{Context: contextName + context, State: o.state(), Description: Fit(o.title), Link: s.link}
		p.object, p.content = "status "+s.Head+" "+strings.ToLower(status.Context), status
		return p
	}
	r.Name, r.Conclusion, r.Title, r.Link = checkName+check, o.conclusion, Fit(o.title), s.link
	p.object, p.spare = "run "+s.Head+" "+r.Name, sparesNothing
	r.Key = s.key(p.object)
	p.content = r
	return p
}

// key tells check runs of ours apart: one commit may be proposed more than once.
func (s showing) key(object string) string {
	return sum(s.Tenant, s.Source, fmt.Sprint(s.Number), object)
}

// state is an outcome in the words of statuses.
func (o outcome) state() string {
	switch o.conclusion {
	case "success", "neutral":
		return "success"
	case "failure":
		return "failure"
	case "cancelled":
		return "error"
	}
	return "pending"
}

// ended are those that are shown and no longer true: of an application that the proposal leaves alone by now, of a commit that a newer one replaced before its
// plan was made, or of a proposal that was closed before.
func (s showing) ended(wanted []post, published map[string]rollout.Publication) (all []post) {
	current := map[string]bool{}
	for _, p := range wanted {
		current[p.object] = true
	}
	objects := make([]string, 0, len(published))
	for object := range published {
		objects = append(objects, object)
	}
	slices.Sort(objects)
	for _, object := range objects {
		kind, rest, _ := strings.Cut(object, " ")
		commit, name, _ := strings.Cut(rest, " ")
		shown := published[object]
		var o outcome
		switch {
		case current[object], kind != "run" && kind != "status":
			continue
		case s.Closed && !shown.Final:
			o = outcome{"cancelled", "closed before it was planned"}
		case !s.Closed && commit != s.Head && !shown.Final:
			o = outcome{"cancelled", "a newer commit took its place"}
		case !s.Closed && commit == s.Head && s.State == rollout.PlanMade:
			if o = (outcome{"neutral", "nothing of it changes any more"}); len(s.Plans) > MaxApplications {
				o.title = "many applications change: all stand in " + checkName
			}
		default:
			continue
		}
		p := post{object: object, spot: s.at, final: true}
		p.spot.commit = commit
		if kind == "status" {
			p.content = Status{Context: name, State: o.state(), Description: o.title, Link: s.link}
		} else {
			_, marks, _ := strings.Cut(shown.Hash, "/")
			p.content = Run{Name: name, Key: s.key(object), Conclusion: o.conclusion, Title: o.title, Summary: o.title, Link: s.link, marks: marks}
		}
		all = append(all, p)
	}
	return all
}

// names are what the applications are called, each another: a check with the name of another would stand in its place.
func (s showing) names() []string {
	names := make([]string, len(s.Plans))
	taken := map[string]bool{}
	for i, a := range s.Plans {
		name := line(a.Application, 100)
		if key := strings.ToLower(name); name == "" || taken[key] {
			name = line(a.Path, 200)
		}
		taken[strings.ToLower(name)] = true
		names[i] = name
	}
	return names
}

// whole is what all of the plan comes to.
func (s showing) whole() outcome {
	switch s.State {
	case rollout.PlanHeld:
		return outcome{"action_required", "waits for a person: " + s.Why}
	case rollout.PlanTroubled:
		return outcome{"", "not planned yet: " + s.trouble()}
	case rollout.PlanAsked:
		return outcome{"", "is being planned"}
	}
	var failed, changing []string
	var sum tally
	var first outcome
	for i, name := range s.names() {
		switch o := s.of(s.Plans[i]); {
		case o.conclusion == "failure":
			if failed = append(failed, name); len(failed) == 1 {
				first = o
			}
		case o.conclusion == "success":
			changing = append(changing, name)
			sum.add(s.Plans[i])
		}
	}
	switch {
	case len(failed) == 1:
		return outcome{"failure", failed[0] + ": " + first.title}
	case len(failed) > 1:
		return outcome{"failure", fmt.Sprintf("%d applications fail: %s", len(failed), strings.Join(firstFew(failed), ", "))}
	case len(changing) == 1:
		return outcome{"success", changing[0] + ": " + sum.String()}
	case len(changing) > 1:
		return outcome{"success", fmt.Sprintf("%d applications, %s", len(changing), sum)}
	}
	return outcome{"neutral", "nothing changes"}
}

// of is what the plan of an application comes to.
func (s showing) of(a rollout.ApplicationPlan) outcome {
	if rollout.HasErrors(a.Problems) {
		return outcome{"failure", refused(a.Problems)}
	}
	refusals := 0
	var first string
	for _, t := range a.Targets {
		for _, r := range t.DryRun.Refused {
			if refusals++; refusals == 1 {
				first = fmt.Sprintf("%s: the API server would refuse %s", t.Name, r.Key)
			}
		}
	}
	var sum tally
	sum.add(a)
	switch {
	case refusals > 1:
		return outcome{"failure", fmt.Sprintf("%s (and %d more)", first, refusals-1)}
	case refusals == 1:
		return outcome{"failure", first}
	case sum == tally{}:
		return outcome{"neutral", "nothing changes"}
	}
	return outcome{"success", sum.String()}
}

// trouble is why there is no plan. It may tell of what only those know who run the controller.
func (s showing) trouble() string {
	if s.Public {
		return "the controller's page says why"
	}
	return s.Why
}

// tally counts what a merge would do.
type tally struct{ targets, added, changed, removed, leaving int }

func (c *tally) add(a rollout.ApplicationPlan) {
	for _, t := range a.Targets {
		c.target(t)
	}
	c.leaving += len(a.Leaves)
}

func (c *tally) target(t rollout.TargetPlan) {
	c.targets++
	for _, one := range t.Changes {
		switch one.Kind {
		case diff.Added:
			c.added++
		case diff.Changed:
			c.changed++
		case diff.Removed:
			c.removed++
		}
	}
}

// signs is how many objects come, become others and go.
func (c tally) signs() string { return fmt.Sprintf("+%d ~%d −%d", c.added, c.changed, c.removed) }

func (c tally) String() string {
	var parts []string
	if c.targets > 0 {
		parts = append(parts, count(c.targets, "target changes", "targets change")+": "+c.signs())
	}
	if c.leaving > 0 {
		parts = append(parts, count(c.leaving, "target leaves", "targets leave"))
	}
	return strings.Join(parts, "; ")
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// annotations are those of all applications, where none has a check of its own.
func (s showing) annotations() (all []Annotation) {
	if len(s.Plans) <= MaxApplications {
		return nil
	}
	for _, a := range s.Plans {
		all = append(all, remarks(a.Problems)...)
	}
	return all[:min(len(all), maxAnnotations)]
}

// remarks puts problems beside the lines that they are about.
func remarks(problems []deployment.Problem) (all []Annotation) {
	for _, p := range problems {
		if p.File == "" || p.Line < 1 || len(all) == maxAnnotations {
			continue
		}
		all = append(all, Annotation{Path: p.File, Line: p.Line, Column: p.Column, Failure: p.Severity == deployment.Error, Text: line(saying(p), 2000)})
	}
	return all
}

// saying is what a problem says, without the place.
func saying(p deployment.Problem) string {
	if p.Suggestion != "" && !strings.Contains(p.Text, p.Suggestion) {
		return fmt.Sprintf("%s; did you mean %s?", p.Text, p.Suggestion)
	}
	return p.Text
}
