package github

import "slices"

// Press presses a button of a check run as a person does. A test fails that presses one that nobody sees: buttons show on completed runs only.
func (g *GitHub) Press(name string, run int64, identifier, login string) {
	g.t.Helper()
	g.onRun(name, run, func(r *repository, run *Run) {
		switch {
		case run.Status != "completed":
			g.t.Errorf("nobody can press %q on %q: buttons show on completed check runs, and it is %s", identifier, run.Name, run.Status)
		case !slices.ContainsFunc(run.Actions, func(a Action) bool { return a.Identifier == identifier }):
			g.t.Errorf("nobody can press %q on %q: its buttons are %+v", identifier, run.Name, run.Actions)
		default:
			g.happened(r, run.suite.app, "check_run", g.person(login),
				object{"action": "requested_action", "check_run": g.runOfEvent(r, run), "requested_action": object{"identifier": identifier}})
		}
	})
}

// Rerun asks for a check run anew as a person does.
func (g *GitHub) Rerun(name string, run int64, login string) {
	g.t.Helper()
	g.onRun(name, run, func(r *repository, run *Run) {
		g.happened(r, run.suite.app, "check_run", g.person(login), object{"action": "rerequested", "check_run": g.runOfEvent(r, run)})
	})
}

// RerunAll asks for all runs of the suite that a check run is in, as a person does.
func (g *GitHub) RerunAll(name string, run int64, login string) {
	g.t.Helper()
	g.onRun(name, run, func(r *repository, run *Run) {
		g.happened(r, run.suite.app, "check_suite", g.person(login), object{"action": "rerequested", "check_suite": g.shownSuite(r, run.suite)})
	})
}

func (g *GitHub) onRun(name string, id int64, do func(*repository, *Run)) {
	g.t.Helper()
	g.act(func() {
		r := g.find(name)
		i := slices.IndexFunc(r.runs, func(run *Run) bool { return run.ID == id })
		if i < 0 {
			g.t.Errorf("%s has no check run %d", name, id)
			return
		}
		do(r, r.runs[i])
	})
}
