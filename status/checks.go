package status

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/google/go-github/v60/github"

	"towpath/reconcile/rollout"
)

// Run is a check run: what is found out about a commit, beside which people merge.
type Run struct {
	Name        string
	Key         string // by which it is found again
	Conclusion  string // success, neutral, failure, action_required, cancelled; "": it is in progress
	Title       string // one line
	Summary     string // Markdown, at most 65,535 bytes, as Text
	Text        string
	Link        string
	Annotations []Annotation

	marks string // annotations that it keeps, of which nothing else is known
}

// Annotation is a remark on a line of a file.
type Annotation struct {
	Path         string
	Line, Column int // from 1
	Failure      bool
	Text         string
}

const (
	// maxRunText is GitHub's limit for a summary, and for a text, in bytes.
	maxRunText = 65535
	// perRequest is how many annotations GitHub takes at once; it adds them to those that are there.
	perRequest = 50
	// maxAnnotations is how many one check run has; the others stand in its text.
	maxAnnotations = 500
)

// state is the hash of a run of whose annotations the first have arrived: "HASH", or "HASH/HASH OF ALL ANNOTATIONS/HOW MANY".
func (r Run) state(arrived int) string {
	of := sum(r.Name, r.Conclusion, r.Title, r.Summary, r.Text, r.Link)
	switch {
	case r.marks != "":
		return of + "/" + r.marks
	case len(r.Annotations) == 0:
		return of
	}
	return fmt.Sprintf("%s/%s/%d", of, r.annotated(), arrived)
}

func (r Run) annotated() string { return sum(fmt.Sprint(r.Annotations)) }

func (r Run) hash() string { return r.state(len(r.Annotations)) }

// arrived is how many of its annotations are there; false: there are others, which nothing takes away.
func (r Run) arrived(shown rollout.Publication) (n int, ours bool) {
	_, marks, annotated := strings.Cut(shown.Hash, "/")
	if !annotated || marks == r.marks {
		return 0, true
	}
	of, count, _ := strings.Cut(marks, "/")
	n, _ = strconv.Atoi(count) // we wrote it
	return min(n, len(r.Annotations)), of == r.annotated() && len(r.Annotations) > 0
}

func (r Run) creates(shown rollout.Publication) bool {
	_, ours := r.arrived(shown)
	return shown.ID == 0 || !ours
}

func (r Run) put(ctx context.Context, f forge, at spot, shown rollout.Publication) (rollout.Publication, error) {
	arrived, _ := r.arrived(shown)
	if r.creates(shown) {
		arrived, shown.ID = 0, 0
	}
	part := r
	part.Annotations = r.Annotations[arrived:min(arrived+perRequest, len(r.Annotations))]
	state := r.state(arrived + len(part.Annotations))
	var err error
	if shown.ID == 0 {
		shown.ID, err = f.CreateRun(ctx, at.repository, at.commit, part, state)
	} else if there, failed := f.UpdateRun(ctx, at.repository, shown.ID, part, state); failed != nil {
		err = failed
	} else if !there {
		return r.again(ctx, f, at, shown)
	}
	if err != nil {
		return rollout.Publication{}, err
	}
	shown.Hash = state
	return shown, nil
}

// again is what is shown of a run that is not there under its id: another App wrote it, before this one was set up.
func (r Run) again(ctx context.Context, f forge, at spot, shown rollout.Publication) (rollout.Publication, error) {
	found, err := r.find(ctx, newLook(f), at)
	if err == nil && found.ID == shown.ID {
		err = &Failure{Kind: Refused, Text: fmt.Sprintf("the check run %s of %s at %.10s: GitHub shows it, and answers 404 where it is to be changed", r.Name, at.repository, at.commit)}
	}
	shown.ID, shown.Hash = found.ID, found.Hash
	return shown, err
}

func (r Run) find(ctx context.Context, l *look, at spot) (rollout.Publication, error) {
	found, err := l.run(ctx, at, r.Key)
	return rollout.Publication{ID: found.ID, Hash: found.Hash}, err
}

// runRequest is what GitHub is asked for. go-github's own leaves out what is empty, and so what was there before would stay.
type runRequest struct {
	Name       string    `json:"name"`
	Commit     string    `json:"head_sha,omitempty"`
	Link       string    `json:"details_url,omitempty"`
	ExternalID string    `json:"external_id"`
	Status     string    `json:"status"`
	Conclusion string    `json:"conclusion,omitempty"`
	Output     runOutput `json:"output"`
}

type runOutput struct {
	Title       string                       `json:"title"`
	Summary     string                       `json:"summary"`
	Text        string                       `json:"text"`
	Annotations []*github.CheckRunAnnotation `json:"annotations,omitempty"`
}

func requestOf(r Run, state string) runRequest {
	asked := runRequest{Name: r.Name, Link: r.Link, ExternalID: r.Key + " " + state, Status: "in_progress", Conclusion: r.Conclusion, Output: runOutput{Title: r.Title, Summary: r.Summary, Text: r.Text}}
	if r.Conclusion != "" {
		asked.Status = "completed"
	}
	for _, a := range r.Annotations {
		level := "warning"
		if a.Failure {
			level = "failure"
		}
		made := &github.CheckRunAnnotation{Path: &a.Path, StartLine: &a.Line, EndLine: &a.Line, AnnotationLevel: &level, Message: &a.Text}
		if a.Column > 0 {
			made.StartColumn, made.EndColumn = &a.Column, &a.Column
		}
		asked.Output.Annotations = append(asked.Output.Annotations, made)
	}
	return asked
}

var writesChecks = Permissions{"checks": "write"}

// Checks reports whether this may write check runs: GitHub lets only Apps.
func (g *GitHub) Checks() bool {
	_, is := g.as.(*App)
	return is
}

// CreateRun adds a check run to a commit of a repository "OWNER/NAME", with at most 50 annotations; state is kept with it. Its error is a *Failure.
func (g *GitHub) CreateRun(ctx context.Context, repository, commit string, r Run, state string) (id int64, err error) {
	asked := requestOf(r, state)
	asked.Commit = commit
	what := fmt.Sprintf("the check run %s of %s at %.10s", r.Name, repository, commit)
	err = g.ask(ctx, what, repository, writesChecks, func(ctx context.Context, owner, name string) (*github.Response, error) {
		var made github.CheckRun
		response, err := g.do(ctx, http.MethodPost, fmt.Sprintf("repos/%s/%s/check-runs", owner, name), asked, &made)
		id = made.GetID()
		return response, err
	})
	return id, err
}

// UpdateRun changes a check run, and adds at most 50 annotations to it; false: it is not there, or another App's. Its error is a *Failure.
func (g *GitHub) UpdateRun(ctx context.Context, repository string, id int64, r Run, state string) (there bool, err error) {
	what := fmt.Sprintf("the check run %s of %s", r.Name, repository)
	return g.change(ctx, what, repository, writesChecks, func(ctx context.Context, owner, name string) (*github.Response, error) {
		return g.do(ctx, http.MethodPatch, fmt.Sprintf("repos/%s/%s/check-runs/%d", owner, name, id), requestOf(r, state), &github.CheckRun{})
	})
}

// Runs are our check runs on a commit, by their keys. Its error is a *Failure.
func (g *GitHub) Runs(ctx context.Context, repository, commit string) (map[string]Found, error) {
	runs := map[string]Found{}
	options := &github.ListCheckRunsOptions{Filter: github.String("all"), ListOptions: github.ListOptions{PerPage: 100}}
	if app, is := g.as.(*App); is {
		options.AppID = &app.config.ID
	}
	what := fmt.Sprintf("the check runs of %s at %.10s", repository, commit)
	err := g.pages(ctx, what, repository, writesChecks, maxPages, &options.ListOptions, func(ctx context.Context, owner, name string) (*github.Response, error) {
		page, response, err := g.client.Checks.ListCheckRunsForRef(ctx, owner, name, commit, options)
		if err != nil {
			return response, err
		}
		for _, r := range page.CheckRuns {
			key, state, _ := strings.Cut(r.GetExternalID(), " ")
			if r.GetID() > runs[key].ID {
				runs[key] = Found{r.GetID(), state}
			}
		}
		return response, nil
	})
	return runs, err
}
