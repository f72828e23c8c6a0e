package e2e

import (
	"slices"
	"strings"
	"testing"

	"towpath/internal/testkit/github"
	"towpath/internal/testkit/gitserver"
	"towpath/internal/testkit/world"
)

// says comments as a person, and waits until the comment has a sign.
func (p *proposal) says(login, body, sign string) {
	id := p.hub.Comment(world.GitHubRepository, p.number, login, body)
	p.Await(body+" by "+login+" to be answered by "+sign, func() (bool, error) {
		return slices.ContainsFunc(p.hub.Comments(world.GitHubRepository, p.number), func(c github.Comment) bool {
			return c.ID == id && slices.ContainsFunc(c.Reactions, func(r github.Reaction) bool { return r.Content == sign && r.By == "towpath[bot]" })
		}), nil
	})
}

// replies waits for our one answer below the pull request to say something.
func (p *proposal) replies(words string) {
	p.Await("the reply to say "+words, func() (bool, error) {
		return slices.ContainsFunc(p.hub.Comments(world.GitHubRepository, p.number), func(c github.Comment) bool {
			return c.Author == "towpath[bot]" && strings.HasPrefix(c.Body, "<!-- towpath:reply ") && strings.Contains(strings.ReplaceAll(c.Body, `\`, ""), words)
		}), nil
	})
}

func TestAGateIsReleasedByACommentOfWhoHoldsTheRole(t *testing.T) {
	t.Parallel()
	hub := github.Start(t)
	gated := world.OnProd(`{canary: {steps: [{setWeight: {weight: 50}}, {pause: {untilApproved: true, requiresRoles: [sre], allowSelfApproval: false}}]}}`, "")
	w := world.New(t, &shared, gitserver.Files{"shop/towpath.yaml": gated, "shop/manifests/web.yaml": four("example.com/web:1")}, world.OnGitHub(hub), world.ByApp(7),
		world.Roles("[{name: sre, githubTeams: [acme/ops]}]"))
	w.HookOfApp(true)
	for _, login := range []string{"ann", "bob", "cleo"} {
		hub.Role(world.GitHubRepository, login, "write")
	}
	hub.Member("acme/ops", "ann", "active") // who opens the pull request
	hub.Member("acme/ops", "bob", "pending")
	hub.Member("acme/ops", "cleo", "active")
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")

	p := &proposal{World: w, hub: hub}
	files := gitserver.Files{"shop/manifests/web.yaml": four("example.com/web:2")}
	p.propose(t, "web 2", files)
	p.run(t, "Towpath plan", "success")
	p.says("cleo", "/towpath approve prod", "-1")
	p.replies("`/towpath approve prod`: the pull request is not merged, so nothing of it is under way")

	merged := w.Commit("web 2 (#1)", files)
	hub.ChangePull(world.GitHubRepository, p.number, "closed", func(pull *github.Pull) { pull.Merged, pull.Closed, pull.MergedAs = true, true, merged })
	d := waits(t, w, w.Deployment("shop", merged).ID, "approval")
	p.says("mallory", "/towpath approve prod", "confused")
	p.says("bob", "> ship it?\n\n/towpath approve prod", "-1")
	p.replies("canary.steps[1] of target prod needs one of the roles sre; bob (GitHub) holds no role")
	p.says("ann", "/towpath approve prod", "-1")
	p.replies("canary.steps[1] of target prod may not be given by ann (GitHub), who opened the pull request (allowSelfApproval: false)")
	if d = waits(t, w, d.ID, "approval"); d.State == "SUCCEEDED" {
		t.Fatal("it went on")
	}

	p.says("cleo", "Figures are fine.\n/towpath approve shop/prod --reason \"error rate is flat\"", "+1")
	expectState(t, w.Ended(d.ID), "SUCCEEDED")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:2": 4})
	if events := strings.Join(w.EventsOf(d.ID), "\n"); strings.Count(events, " approved ") != 1 || !strings.Contains(events, "prod: cleo (GitHub) approved canary.steps[1]") {
		t.Errorf("history says:\n%s", events)
	}
	var replies int
	for _, c := range hub.Comments(world.GitHubRepository, p.number) {
		if strings.HasPrefix(c.Body, "<!-- towpath:reply ") {
			replies++
		}
	}
	if replies != 1 {
		t.Errorf("%d replies", replies)
	}
}
