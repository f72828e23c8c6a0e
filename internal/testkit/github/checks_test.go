package github

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-github/v60/github"
)

// checked is a GitHub with an App that may write check runs.
func checked(t testing.TB) (g *GitHub, client *github.Client) {
	g = New(t)
	g.Repository("acme/shop", sha, other)
	return g, install(t, g, 7, "towpath", Rights{"checks": "write"})
}

func TestACheckRunGoesItsWay(t *testing.T) {
	t.Parallel()
	g, client := checked(t)
	note := &github.CheckRunAnnotation{Path: pointer("a.yaml"), StartLine: pointer(1), EndLine: pointer(2), AnnotationLevel: pointer("failure"), Message: pointer("no such thing")}
	run, _, err := client.Checks.CreateCheckRun(t.Context(), "acme", "shop", github.CreateCheckRunOptions{Name: "Towpath plan", HeadSHA: sha, ExternalID: pointer("key-1"), Status: pointer("in_progress"),
		Output: &github.CheckRunOutput{Title: pointer("planning"), Summary: pointer("s"), Annotations: []*github.CheckRunAnnotation{note}}})
	ok(t, err)
	if run.GetStatus() != "in_progress" || run.Conclusion != nil || run.GetExternalID() != "key-1" || run.GetApp().GetID() != 7 || run.GetCheckSuite().GetID() == 0 {
		t.Errorf("made %v", run)
	}
	run, _, err = client.Checks.UpdateCheckRun(t.Context(), "acme", "shop", run.GetID(), github.UpdateCheckRunOptions{Name: "Towpath plan", Status: pointer("completed"), Conclusion: pointer("action_required"),
		Output:  &github.CheckRunOutput{Title: pointer("planned"), Summary: pointer("t"), Annotations: []*github.CheckRunAnnotation{note}},
		Actions: []*github.CheckRunAction{{Label: "Approve", Description: "Lets it go on", Identifier: "approve"}}})
	ok(t, err)
	notes, _, err := client.Checks.ListCheckRunAnnotations(t.Context(), "acme", "shop", run.GetID(), nil)
	ok(t, err)
	kept := g.Runs("acme/shop", sha)
	if run.GetConclusion() != "action_required" || run.CompletedAt == nil || run.GetOutput().GetAnnotationsCount() != 2 || len(notes) != 2 || notes[1].GetMessage() != "no such thing" ||
		len(kept) != 1 || kept[0].Title != "planned" || len(kept[0].Actions) != 1 || kept[0].Actions[0].Identifier != "approve" || len(kept[0].Annotations) != 2 {
		t.Errorf("completed %v, annotations %v, kept %+v", run, notes, kept)
	}
	// go-github leaves out a list of buttons that is empty: they stay.
	run, _, err = client.Checks.UpdateCheckRun(t.Context(), "acme", "shop", run.GetID(), github.UpdateCheckRunOptions{Name: "Towpath plan", Status: pointer("in_progress"), Actions: []*github.CheckRunAction{}})
	ok(t, err)
	if run.GetStatus() != "in_progress" || run.Conclusion != nil || len(g.Runs("acme/shop", sha)[0].Actions) != 1 {
		t.Errorf("begun again: %v", run)
	}
	request, err := client.NewRequest("PATCH", fmt.Sprint("repos/acme/shop/check-runs/", run.GetID()), map[string]any{"conclusion": "success", "actions": []any{}})
	ok(t, err)
	_, err = client.Do(t.Context(), request, nil)
	ok(t, err)
	if kept := g.Runs("acme/shop", sha)[0]; kept.Status != "completed" || kept.Conclusion != "success" || len(kept.Actions) != 0 {
		t.Errorf("kept is %+v", kept)
	}
}

func TestCheckRunsAreFoundByAppNameAndAge(t *testing.T) {
	t.Parallel()
	g, client := checked(t)
	g.Limit(Limits{})
	stranger := install(t, g, 8, "stranger", Rights{"checks": "write"})
	make := func(client *github.Client, name string) int64 {
		run, _, err := client.Checks.CreateCheckRun(t.Context(), "acme", "shop", github.CreateCheckRunOptions{Name: name, HeadSHA: sha})
		ok(t, err)
		return run.GetID()
	}
	first, second, third := make(client, "plan"), make(client, "plan"), make(client, "rollout")
	theirs := make(stranger, "plan")
	for name, c := range map[string]struct {
		options github.ListCheckRunsOptions
		want    []int64
	}{
		"the newest of each name and App": {github.ListCheckRunsOptions{}, []int64{theirs, third, second}},
		"all":                             {github.ListCheckRunsOptions{Filter: pointer("all")}, []int64{theirs, third, second, first}},
		"of an App":                       {github.ListCheckRunsOptions{AppID: pointer(int64(7))}, []int64{third, second}},
		"of a name":                       {github.ListCheckRunsOptions{CheckName: pointer("plan"), Filter: pointer("all")}, []int64{theirs, second, first}},
		"of a status":                     {github.ListCheckRunsOptions{Status: pointer("completed")}, nil},
	} {
		found, _, err := client.Checks.ListCheckRunsForRef(t.Context(), "acme", "shop", sha, &c.options)
		ok(t, err)
		var got []int64
		for _, run := range found.CheckRuns {
			got = append(got, run.GetID())
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) || found.GetTotal() != len(c.want) {
			t.Errorf("%s: %v of %d, want %v", name, got, found.GetTotal(), c.want)
		}
	}
	_, _, err := client.Checks.UpdateCheckRun(t.Context(), "acme", "shop", theirs, github.UpdateCheckRunOptions{Name: "plan", Conclusion: pointer("success")})
	expectRefused(t, err, 404, "Not Found")
	for range maxOfName {
		make(stranger, "rollout")
	}
	make(stranger, "rollout")
	if n := len(g.Runs("acme/shop", sha)); n != 4+maxOfName {
		t.Errorf("%d runs are kept", n)
	}
}

func TestCheckRunsThatGitHubRefuses(t *testing.T) {
	t.Parallel()
	g, client := checked(t)
	create := func(change func(*github.CreateCheckRunOptions)) error {
		o := github.CreateCheckRunOptions{Name: "plan", HeadSHA: sha, Output: &github.CheckRunOutput{Title: pointer("t"), Summary: pointer("s")}}
		change(&o)
		_, _, err := client.Checks.CreateCheckRun(t.Context(), "acme", "shop", o)
		return err
	}
	action := func(label, identifier, description string) []*github.CheckRunAction {
		return []*github.CheckRunAction{{Label: label, Identifier: identifier, Description: description}}
	}
	long := strings.Repeat("x", 65536)
	for name, c := range map[string]struct {
		change func(*github.CreateCheckRunOptions)
		says   string
	}{
		"completed without a conclusion": {func(o *github.CreateCheckRunOptions) { o.Status = pointer("completed") }, "conclusion is required"},
		"a conclusion that is none":      {func(o *github.CreateCheckRunOptions) { o.Conclusion = pointer("done") }, "For 'properties/conclusion'"},
		"stale, which GitHub decides":    {func(o *github.CreateCheckRunOptions) { o.Conclusion = pointer("stale") }, "Only GitHub can change"},
		"a status that is none":          {func(o *github.CreateCheckRunOptions) { o.Status = pointer("running") }, "For 'properties/status'"},
		"a summary too long":             {func(o *github.CreateCheckRunOptions) { o.Output.Summary = &long }, "For 'properties/output/properties/summary': maximum string length is 65535"},
		"a text too long":                {func(o *github.CreateCheckRunOptions) { o.Output.Text = &long }, "For 'properties/output/properties/text'"},
		"no title":                       {func(o *github.CreateCheckRunOptions) { o.Output.Title = nil }, `property "title" is missing`},
		"four buttons": {func(o *github.CreateCheckRunOptions) {
			for range 4 {
				o.Actions = append(o.Actions, action("a", "b", "c")...)
			}
		}, "maximum number of items is 3"},
		"a label too long":       {func(o *github.CreateCheckRunOptions) { o.Actions = action(long[:21], "b", "c") }, "maximum string length is 20"},
		"an identifier too long": {func(o *github.CreateCheckRunOptions) { o.Actions = action("a", long[:21], "c") }, "maximum string length is 20"},
		"a description too long": {func(o *github.CreateCheckRunOptions) { o.Actions = action("a", "b", long[:41]) }, "maximum string length is 40"},
		"51 annotations": {func(o *github.CreateCheckRunOptions) {
			for range 51 {
				o.Output.Annotations = append(o.Output.Annotations, &github.CheckRunAnnotation{Path: pointer("a"), StartLine: pointer(1), EndLine: pointer(1), AnnotationLevel: pointer("notice"), Message: pointer("m")})
			}
		}, "maximum number of items is 50"},
		"a commit that is not there": {func(o *github.CreateCheckRunOptions) { o.HeadSHA = strings.Repeat("b", 40) }, "No commit found for SHA: bbb"},
	} {
		t.Run(name, func(t *testing.T) { expectRefused(t, create(c.change), 422, c.says) })
	}
	if kept := g.Runs("acme/shop", sha); len(kept) > 0 {
		t.Errorf("it was done all the same: %+v", kept)
	}
	g.Token("writes", "acme/shop", Rights{"checks": "write"})
	_, _, err := speak(t, g, "writes").Checks.CreateCheckRun(t.Context(), "acme", "shop", github.CreateCheckRunOptions{Name: "plan", HeadSHA: sha})
	expectRefused(t, err, 403, "You must authenticate via a GitHub App.")
	_, _, err = install(t, g, 9, "reader", Rights{"checks": "read"}).Checks.CreateCheckRun(t.Context(), "acme", "shop", github.CreateCheckRunOptions{Name: "plan", HeadSHA: sha})
	expectRefused(t, err, 403, "Resource not accessible by integration")
}

func TestButtonsReachTheAppOfTheRunOnly(t *testing.T) {
	t.Parallel()
	g, client := checked(t)
	install(t, g, 8, "stranger", Rights{"checks": "write"})
	e, stranger := listen(t, g, 7), listen(t, g, 8)
	g.OpenPull("acme/shop", Pull{Head: Tip{Ref: "bump", SHA: sha}, Base: Tip{SHA: other}})
	run, _, err := client.Checks.CreateCheckRun(t.Context(), "acme", "shop", github.CreateCheckRunOptions{Name: "approval", HeadSHA: sha, Conclusion: pointer("action_required"), ExternalID: pointer("key"),
		Actions: []*github.CheckRunAction{{Label: "Approve", Description: "Lets it go on", Identifier: "approve"}}})
	ok(t, err)
	if all := append(e.take(g), stranger.take(g)...); len(all) != 2 || all[0].event.(*github.CheckRunEvent).GetAction() != "created" {
		t.Errorf("of its creation were heard %v", all)
	}
	g.Press("acme/shop", run.GetID(), "approve", "ann")
	g.Rerun("acme/shop", run.GetID(), "bob")
	g.RerunAll("acme/shop", run.GetID(), "bob")
	all := e.take(g)
	if len(all) != 3 || len(stranger.take(g)) > 0 {
		t.Fatalf("heard are %v", all)
	}
	pressed, again, suite := all[0].event.(*github.CheckRunEvent), all[1].event.(*github.CheckRunEvent), all[2].event.(*github.CheckSuiteEvent)
	if pressed.GetAction() != "requested_action" || pressed.GetRequestedAction().Identifier != "approve" || pressed.GetSender().GetLogin() != "ann" || pressed.GetCheckRun().GetExternalID() != "key" ||
		pressed.GetCheckRun().GetApp().GetID() != 7 || pressed.GetCheckRun().GetCheckSuite().GetHeadSHA() != sha || pressed.GetCheckRun().PullRequests[0].GetNumber() != 1 {
		t.Errorf("pressed: %v", pressed)
	}
	if again.GetAction() != "rerequested" || again.GetSender().GetLogin() != "bob" || again.GetCheckRun().GetID() != run.GetID() {
		t.Errorf("again: %v", again)
	}
	if suite.GetAction() != "rerequested" || suite.GetCheckSuite().GetHeadSHA() != sha || suite.GetCheckSuite().GetApp().GetID() != 7 {
		t.Errorf("the suite: %v", suite)
	}
}
