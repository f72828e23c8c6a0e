package github

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Run is a check run.
type Run struct {
	ID                           int64
	App                          int64
	Name, SHA                    string
	ExternalID, DetailsURL       string
	Status, Conclusion           string
	Title, Summary, Text         string
	Annotations                  []Annotation
	Actions                      []Action // buttons, which people see once it is completed
	Started, Completed, modified time.Time

	suite *suite
}

// Annotation is a remark on lines of a file.
type Annotation struct {
	Path, Title, Message   string
	Level                  string `json:"annotation_level"` // notice, warning, failure
	StartLine              int    `json:"start_line"`
	EndLine                int    `json:"end_line"`
	StartColumn, EndColumn *int   `json:"-"`
}

// Action is a button on a check run.
type Action struct{ Label, Identifier, Description string }

// suite holds the runs of one App on one commit.
type suite struct {
	id      int64
	sha     string
	app     *app
	created time.Time
}

// maxOfName is how many runs of one name a suite keeps; GitHub deletes the oldest.
const maxOfName = 1000

// Runs are the check runs on a commit as they stand, oldest first.
func (g *GitHub) Runs(repository, sha string) (all []Run) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, run := range g.find(repository).runs {
		if run.SHA == sha {
			shown := *run
			shown.Annotations, shown.Actions = slices.Clone(run.Annotations), slices.Clone(run.Actions)
			all = append(all, shown)
		}
	}
	return all
}

// checks is the repository that the path names, if who asks may write check runs there, which only Apps may.
func (c *call) checks() (*repository, *answer) {
	r, refused := c.repository("write", "checks")
	if c.issued == nil && (refused == nil || refused.status != http.StatusNotFound) {
		a := refuse(http.StatusForbidden, "You must authenticate via a GitHub App.")
		return nil, &a
	}
	return r, refused
}

// runOf is the check run that the path names, in a repository that who asks may read or write.
func (r *repository) runOf(c *call) (*Run, *answer) {
	id := c.number("check_run_id")
	for _, run := range r.runs {
		if run.ID == id {
			return run, nil
		}
	}
	a := notFound()
	return nil, &a
}

// wantedRun is what a request says of a check run; nil and "" leave it as it is.
type wantedRun struct {
	Name        *string
	SHA         string  `json:"head_sha"`
	ExternalID  *string `json:"external_id"`
	DetailsURL  *string `json:"details_url"`
	Status      string
	Conclusion  string
	StartedAt   *time.Time `json:"started_at"`
	CompletedAt *time.Time `json:"completed_at"`
	Output      *struct {
		Title, Summary, Text *string
		Annotations          []Annotation
	}
	Actions *[]Action
}

// refusal is what GitHub refuses though its description allows it.
func (w wantedRun) refusal() *answer {
	var a answer
	switch {
	case w.Name != nil && strings.TrimSpace(*w.Name) == "":
		a = invalidField("CheckRun", "name", "name cannot be blank")
	case w.Status == "completed" && w.Conclusion == "":
		a = invalidField("CheckRun", "conclusion", "conclusion is required when status is completed")
	case w.Conclusion == "stale":
		a = invalidField("CheckRun", "conclusion", "Only GitHub can change a check run conclusion to stale")
	case w.Output != nil && len(w.Output.Annotations) > 0 && slices.ContainsFunc(w.Output.Annotations, func(a Annotation) bool { return a.EndLine < a.StartLine }):
		a = invalidField("CheckRun", "annotations", "end_line must not be before start_line")
	default:
		return nil
	}
	return &a
}

// fill gives a run what a request says of it.
func (w wantedRun) fill(run *Run, now time.Time) {
	set := func(to *string, from *string) {
		if from != nil {
			*to = *from
		}
	}
	set(&run.Name, w.Name)
	set(&run.ExternalID, w.ExternalID)
	set(&run.DetailsURL, w.DetailsURL)
	if w.StartedAt != nil {
		run.Started = *w.StartedAt
	}
	switch {
	case w.Conclusion != "":
		run.Status, run.Conclusion, run.Completed = "completed", w.Conclusion, now
		if w.CompletedAt != nil {
			run.Completed = *w.CompletedAt
		}
	case w.Status != "":
		run.Status, run.Conclusion, run.Completed = w.Status, "", time.Time{}
	}
	if w.Output != nil {
		set(&run.Title, w.Output.Title)
		set(&run.Summary, w.Output.Summary)
		set(&run.Text, w.Output.Text)
		run.Annotations = append(run.Annotations, w.Output.Annotations...)
	}
	if w.Actions != nil {
		run.Actions = *w.Actions
	}
	run.modified = now
}

func createRun(c *call) answer {
	r, refused := c.checks()
	if refused != nil {
		return *refused
	}
	var wanted wantedRun
	if err := c.read(&wanted); err != nil {
		return invalidRequest(err)
	}
	if refused := wanted.refusal(); refused != nil {
		return *refused
	}
	if r.commit(wanted.SHA) == nil {
		return invalidField("CheckRun", "head_sha", "No commit found for SHA: "+wanted.SHA)
	}
	run := &Run{ID: c.g.id(), App: c.behind().id, SHA: wanted.SHA, Status: "queued", Started: c.g.now(), suite: c.g.suite(r, wanted.SHA, c.behind())}
	wanted.fill(run, c.g.now())
	r.runs = append(r.runs, run)
	same := 0
	for _, other := range r.runs {
		if other.suite == run.suite && other.Name == run.Name {
			same++
		}
	}
	if same > maxOfName {
		oldest := slices.IndexFunc(r.runs, func(other *Run) bool { return other.suite == run.suite && other.Name == run.Name })
		r.runs = slices.Delete(r.runs, oldest, oldest+1)
	}
	c.runHappened(r, run, "created")
	return done(http.StatusCreated, c.g.run(r, run))
}

func updateRun(c *call) answer {
	r, refused := c.checks()
	if refused != nil {
		return *refused
	}
	run, refused := r.runOf(c)
	if refused != nil {
		return *refused
	}
	if run.suite.app != c.behind() {
		return notFound()
	}
	var wanted wantedRun
	if err := c.read(&wanted); err != nil {
		return invalidRequest(err)
	}
	if refused := wanted.refusal(); refused != nil {
		return *refused
	}
	wanted.fill(run, c.g.now())
	if wanted.Conclusion != "" {
		c.runHappened(r, run, "completed")
	}
	return done(http.StatusOK, c.g.run(r, run))
}

// suite is the one of an App on a commit, which its first run there makes.
func (g *GitHub) suite(r *repository, sha string, a *app) *suite {
	for _, run := range r.runs {
		if run.SHA == sha && run.suite.app == a {
			return run.suite
		}
	}
	return &suite{id: g.id(), sha: sha, app: a, created: g.now()}
}

func getRun(c *call) answer {
	r, refused := c.repository("read", "checks")
	if refused != nil {
		return *refused
	}
	run, refused := r.runOf(c)
	if refused != nil {
		return *refused
	}
	return done(http.StatusOK, c.g.run(r, run))
}

func listAnnotations(c *call) answer {
	r, refused := c.repository("read", "checks")
	if refused != nil {
		return *refused
	}
	run, refused := r.runOf(c)
	if refused != nil {
		return *refused
	}
	return list(c, run.Annotations, func(a Annotation) object {
		return object{"path": a.Path, "start_line": a.StartLine, "end_line": a.EndLine, "start_column": nil, "end_column": nil, "annotation_level": a.Level, "title": nullable(a.Title),
			"message": a.Message, "raw_details": nil, "blob_href": c.g.page(r, "/blob/"+run.SHA+"/"+a.Path)}
	})
}

func listRuns(c *call) answer {
	r, refused := c.repository("read", "checks")
	if refused != nil {
		return *refused
	}
	sha := r.resolve(c.vars["ref"])
	if r.commit(sha) == nil {
		return refuse(http.StatusUnprocessableEntity, "No commit found for SHA: "+c.vars["ref"])
	}
	query := c.request.URL.Query()
	var found []*Run
	for _, run := range slices.Backward(r.runs) { // newest first
		newer := slices.ContainsFunc(found, func(other *Run) bool { return other.suite == run.suite && other.Name == run.Name })
		switch {
		case run.SHA != sha,
			query.Has("app_id") && query.Get("app_id") != fmt.Sprint(run.App),
			query.Has("check_name") && query.Get("check_name") != run.Name,
			query.Has("status") && query.Get("status") != run.Status,
			newer && query.Get("filter") != "all":
		default:
			found = append(found, run)
		}
	}
	a := list(c, found, func(run *Run) object { return c.g.run(r, run) })
	a.body = object{"total_count": len(found), "check_runs": a.body}
	return a
}

// run is how GitHub shows a check run. It names no pull requests from forks.
func (g *GitHub) run(r *repository, run *Run) object {
	return object{"id": run.ID, "node_id": fmt.Sprintf("CR_%d", run.ID), "name": run.Name, "head_sha": run.SHA, "external_id": nullable(run.ExternalID), "details_url": cmp.Or(run.DetailsURL, "https://github.test/apps/"+run.suite.app.slug),
		"status": run.Status, "conclusion": nullable(run.Conclusion), "started_at": timestamp(run.Started), "completed_at": timestamp(run.Completed), "url": g.address(r, fmt.Sprint("/check-runs/", run.ID)),
		"html_url": g.page(r, fmt.Sprint("/runs/", run.ID)), "check_suite": object{"id": run.suite.id}, "app": g.integration(run.suite.app), "pull_requests": g.pullsOn(r, run.SHA),
		"output": object{"title": nullable(run.Title), "summary": nullable(run.Summary), "text": nullable(run.Text), "annotations_count": len(run.Annotations),
			"annotations_url": g.address(r, fmt.Sprintf("/check-runs/%d/annotations", run.ID))}}
}

// pullsOn are the open pull requests of a repository's own branches whose head is a commit, as checks name them.
func (g *GitHub) pullsOn(r *repository, sha string) []object {
	shown := []object{}
	for _, p := range r.pulls {
		if p.Head.SHA == sha && !p.Closed && !p.HeadGone && g.find(p.Head.Repository) == r {
			_, name, _ := strings.Cut(r.name, "/")
			tip := func(t Tip) object {
				return object{"ref": t.Ref, "sha": t.SHA, "repo": object{"id": r.id, "name": name, "url": g.address(r, "")}}
			}
			shown = append(shown, object{"id": p.id, "number": p.Number, "url": g.address(r, fmt.Sprint("/pulls/", p.Number)), "head": tip(p.Head), "base": tip(p.Base)})
		}
	}
	return shown
}

// integration is how GitHub shows an App.
func (g *GitHub) integration(a *app) object {
	o := g.description.blank("integration", g.URL)
	maps.Copy(o, object{"id": a.id, "slug": a.slug, "name": a.slug, "node_id": fmt.Sprintf("A_%d", a.id), "html_url": "https://github.test/apps/" + a.slug, "owner": g.owner("acme").user(g.URL)})
	return o
}

func (c *call) runHappened(r *repository, run *Run, action string) {
	c.g.happened(r, nil, "check_run", c.account, object{"action": action, "check_run": c.g.runOfEvent(r, run)})
}

// runOfEvent is how events show a check run: with its suite.
func (g *GitHub) runOfEvent(r *repository, run *Run) object {
	o := g.run(r, run)
	o["check_suite"] = g.shownSuite(r, run.suite)
	return o
}

func (g *GitHub) shownSuite(r *repository, s *suite) object {
	status, conclusion := "completed", any("success")
	for _, run := range r.runs {
		if run.suite == s && run.Status != "completed" {
			status, conclusion = "in_progress", nil
		}
	}
	runs := 0
	for _, run := range r.runs {
		if run.suite == s {
			runs++
		}
	}
	branch := any(nil)
	for _, p := range r.pulls {
		if p.Head.SHA == s.sha {
			branch = p.Head.Ref
		}
	}
	return object{"id": s.id, "node_id": fmt.Sprintf("CS_%d", s.id), "head_branch": branch, "head_sha": s.sha, "status": status, "conclusion": conclusion, "before": nil, "after": s.sha,
		"url": g.address(r, fmt.Sprint("/check-suites/", s.id)), "app": g.integration(s.app), "pull_requests": g.pullsOn(r, s.sha), "head_commit": g.commitOfEvent(r, s.sha),
		"latest_check_runs_count": runs, "check_runs_url": g.address(r, fmt.Sprintf("/check-suites/%d/check-runs", s.id)), "created_at": timestamp(s.created), "updated_at": timestamp(g.now())}
}
