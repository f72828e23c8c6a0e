package github

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-github/v60/github"
)

func text(body string) *github.IssueComment { return &github.IssueComment{Body: &body} }

func TestCommentsAreWrittenChangedAndTakenAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, client := talking(t)
		person := g.Comment("acme/shop", 1, "ann", "/towpath plan")
		time.Sleep(time.Minute)
		made, _, err := client.Issues.CreateComment(t.Context(), "acme", "shop", 1, text("planning"))
		ok(t, err)
		time.Sleep(time.Minute)
		changed, _, err := client.Issues.EditComment(t.Context(), "acme", "shop", made.GetID(), text("planned"))
		ok(t, err)
		if made.GetUser().GetLogin() != "towpath-writes" || made.GetNodeID() == "" || changed.GetBody() != "planned" || changed.GetUpdatedAt().Sub(changed.GetCreatedAt().Time) != time.Minute {
			t.Errorf("made %v, changed %v", made, changed)
		}
		since := changed.GetCreatedAt().Time
		listed, _, err := client.Issues.ListComments(t.Context(), "acme", "shop", 1, &github.IssueListCommentsOptions{Since: &since})
		ok(t, err)
		all, _, err := client.Issues.ListComments(t.Context(), "acme", "shop", 0, nil)
		ok(t, err)
		if len(listed) != 1 || listed[0].GetID() != made.GetID() || len(all) != 2 || all[0].GetID() != person || all[0].GetUser().GetLogin() != "ann" {
			t.Errorf("since then: %v; all: %v", listed, all)
		}
		_, err = client.Issues.DeleteComment(t.Context(), "acme", "shop", made.GetID())
		ok(t, err)
		_, _, err = client.Issues.EditComment(t.Context(), "acme", "shop", made.GetID(), text("again"))
		expectRefused(t, err, 404, "Not Found")
		if kept := g.Comments("acme/shop", 1); len(kept) != 1 || kept[0].ID != person {
			t.Errorf("kept are %+v", kept)
		}
		if made := g.Creations(); made["comment"] != 1 || g.Written()["issues/update-comment"] != 1 {
			t.Errorf("counted are %v of %v", made, g.Written())
		}
	})
}

func TestACommentOfAnInstallationIsTheBots(t *testing.T) {
	t.Parallel()
	g, _ := talking(t)
	made, _, err := install(t, g, 7, "towpath", Rights{"issues": "write"}).Issues.CreateComment(t.Context(), "acme", "shop", 1, text("planned"))
	ok(t, err)
	if made.GetUser().GetLogin() != "towpath[bot]" || made.GetUser().GetType() != "Bot" {
		t.Errorf("made %v", made)
	}
}

func TestCommentsThatGitHubRefuses(t *testing.T) {
	t.Parallel()
	g, client := talking(t)
	_, _, err := client.Issues.CreateComment(t.Context(), "acme", "shop", 1, text(strings.Repeat("é", 65536)))
	ok(t, err)
	_, _, err = client.Issues.CreateComment(t.Context(), "acme", "shop", 1, text(strings.Repeat("é", 65537)))
	expectRefused(t, err, 422, "body is too long (maximum is 65536 characters)")
	_, _, err = client.Issues.CreateComment(t.Context(), "acme", "shop", 1, text(" \n"))
	expectRefused(t, err, 422, "body cannot be blank")
	_, _, err = client.Issues.CreateComment(t.Context(), "acme", "shop", 2, text("x"))
	expectRefused(t, err, 404, "Not Found")
	_, _, err = client.Issues.CreateComment(t.Context(), "acme", "shop", 1, &github.IssueComment{})
	expectRefused(t, err, 422, `property "body" is missing`)
	g.Token("reads", "acme/shop", Rights{"pull_requests": "read"})
	_, _, err = speak(t, g, "reads").Issues.CreateComment(t.Context(), "acme", "shop", 1, text("x"))
	expectRefused(t, err, 403, "Resource not accessible")
	if n := len(g.Comments("acme/shop", 1)); n != 1 {
		t.Errorf("%d comments are kept", n)
	}
}

func TestAReactionIsGivenOnce(t *testing.T) {
	t.Parallel()
	g, client := talking(t)
	id := g.Comment("acme/shop", 1, "ann", "/towpath plan")
	for _, want := range []int{201, 200} {
		_, response, err := client.Reactions.CreateIssueCommentReaction(t.Context(), "acme", "shop", id, "eyes")
		ok(t, err)
		if response.StatusCode != want {
			t.Errorf("answered with %d, want %d", response.StatusCode, want)
		}
	}
	_, _, err := client.Reactions.CreateIssueCommentReaction(t.Context(), "acme", "shop", id, "applause")
	expectRefused(t, err, 422, "For 'properties/content': value is not one of the allowed values")
	_, _, err = client.Reactions.CreateIssueCommentReaction(t.Context(), "acme", "shop", id+1, "eyes")
	expectRefused(t, err, 404, "Not Found")
	if r := g.Comments("acme/shop", 1)[0].Reactions; len(r) != 1 || r[0].Content != "eyes" || r[0].By != "towpath-writes" || g.Creations()["reaction"] != 1 {
		t.Errorf("reactions are %+v, created %v", r, g.Creations())
	}
}

func TestCommentsAreDelivered(t *testing.T) {
	t.Parallel()
	g, client := talking(t)
	install(t, g, 7, "towpath", Rights{"pull_requests": "write"})
	e := listen(t, g, 7)
	id := g.Comment("acme/shop", 1, "ann", "/towpath plan")
	g.EditComment("acme/shop", id, "bob", "/towpath approve prod")
	_, _, err := client.Issues.CreateComment(t.Context(), "acme", "shop", 1, text("x"))
	ok(t, err)
	all := e.take(g)
	if len(all) != 3 {
		t.Fatalf("heard are %v", all)
	}
	made, changed, ours := all[0].event.(*github.IssueCommentEvent), all[1].event.(*github.IssueCommentEvent), all[2].event.(*github.IssueCommentEvent)
	if made.GetAction() != "created" || made.GetComment().GetID() != id || made.GetComment().GetBody() != "/towpath plan" || made.GetSender().GetLogin() != "ann" ||
		made.GetIssue().GetNumber() != 1 || !made.GetIssue().IsPullRequest() || made.GetRepo().GetID() == 0 {
		t.Errorf("created: %v", made)
	}
	if changed.GetAction() != "edited" || changed.GetSender().GetLogin() != "bob" || changed.GetComment().GetUser().GetLogin() != "ann" || changed.GetChanges().GetBody().GetFrom() != "/towpath plan" {
		t.Errorf("edited: %v", changed)
	}
	if ours.GetSender().GetLogin() != "towpath-writes" {
		t.Errorf("our own: %v", ours)
	}
}

func TestACommentIsHiddenByGraphQLWhichRefusesWith200(t *testing.T) {
	t.Parallel()
	g, client := talking(t)
	made, _, err := client.Issues.CreateComment(t.Context(), "acme", "shop", 1, text("approval wanted"))
	ok(t, err)
	const mutation = `mutation($input: MinimizeCommentInput!) { hide: minimizeComment(input: $input) { minimizedComment { isMinimized minimizedReason } } }`
	type answered struct {
		Data struct {
			Hide *struct {
				MinimizedComment struct {
					IsMinimized     bool
					MinimizedReason string
				}
			}
		}
		Errors []struct{ Type, Message string }
	}
	post := func(token, query, subject, classifier string) (a answered) {
		t.Helper()
		client := speak(t, g, token)
		request, err := client.NewRequest("POST", "graphql", map[string]any{"query": query, "variables": map[string]any{"input": map[string]any{"subjectId": subject, "classifier": classifier}}})
		ok(t, err)
		_, err = client.Do(t.Context(), request, &a)
		ok(t, err)
		return a
	}
	g.Token("reads", "acme/shop", Rights{"pull_requests": "read"})
	g.Repository("acme/site")
	g.Token("elsewhere", "acme/site", Rights{"pull_requests": "write"})
	for name, c := range map[string]struct{ token, query, subject, classifier, kind, says string }{
		"a classifier that is none": {"writes", mutation, made.GetNodeID(), "DONE", "", "DONE is not a valid ReportedContentClassifiers"},
		"no such comment":           {"writes", mutation, "IC_0", "RESOLVED", "NOT_FOUND", "Could not resolve to a node with the global id of 'IC_0'."},
		"one of another repository": {"elsewhere", mutation, made.GetNodeID(), "RESOLVED", "NOT_FOUND", "Could not resolve"},
		"a token that only reads":   {"reads", mutation, made.GetNodeID(), "RESOLVED", "FORBIDDEN", "Resource not accessible"},
		"a field that is none":      {"writes", strings.Replace(mutation, "isMinimized", "hidden", 1), made.GetNodeID(), "RESOLVED", "", `Cannot query field "hidden" on type "Minimizable"`},
		"no GraphQL":                {"writes", "mutation {", made.GetNodeID(), "RESOLVED", "", "Expected Name"},
	} {
		a := post(c.token, c.query, c.subject, c.classifier)
		if a.Data.Hide != nil || len(a.Errors) != 1 || a.Errors[0].Type != c.kind || !strings.Contains(a.Errors[0].Message, c.says) {
			t.Errorf("%s: %+v", name, a)
		}
	}
	if kept := g.Comments("acme/shop", 1)[0]; kept.Minimized != "" {
		t.Errorf("hidden all the same: %+v", kept)
	}
	a := post("writes", mutation, made.GetNodeID(), "RESOLVED")
	if len(a.Errors) > 0 || a.Data.Hide == nil || !a.Data.Hide.MinimizedComment.IsMinimized || a.Data.Hide.MinimizedComment.MinimizedReason != "resolved" {
		t.Errorf("answered with %+v", a)
	}
	if kept := g.Comments("acme/shop", 1)[0]; kept.Minimized != "RESOLVED" || g.Written()["minimizeComment"] != 1 {
		t.Errorf("kept is %+v; written %v", kept, g.Written())
	}
}
