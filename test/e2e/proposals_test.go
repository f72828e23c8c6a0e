package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"towpath/internal/testkit/github"
	"towpath/internal/testkit/gitserver"
	"towpath/internal/testkit/world"
)

// proposal is a pull request of a test.
type proposal struct {
	*world.World
	hub    *github.GitHub
	number int
	head   string
}

// propose makes a commit on the pull request's branch, and has GitHub say so.
func (p *proposal) propose(t *testing.T, message string, files gitserver.Files) {
	t.Helper()
	if p.number == 0 {
		p.Repository.Git("branch", "topic", p.Repository.Head("main"))
	}
	p.head = p.CommitTo("topic", message, files)
	if p.number == 0 {
		p.number = p.hub.OpenPull(world.GitHubRepository, github.Pull{Title: message, Author: "ann", Head: github.Tip{Ref: "topic", SHA: p.head}})
		return
	}
	p.hub.ChangePull(world.GitHubRepository, p.number, "synchronize", func(pull *github.Pull) { pull.Head.SHA = p.head })
}

// run waits until a check of the head is completed with a conclusion.
func (p *proposal) run(t *testing.T, name, conclusion string) (run github.Run) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("%s shows %s %s: %s\n%s\n%s", name, run.Status, run.Conclusion, run.Title, run.Summary, run.Text)
		}
	}()
	p.Await(name+" to be "+conclusion, func() (bool, error) {
		for _, r := range p.hub.Runs(world.GitHubRepository, p.head) {
			if r.Name == name {
				run = r
			}
		}
		return run.Conclusion == conclusion, nil
	})
	return run
}

// comment waits for the one comment of ours to say something.
func (p *proposal) comment(t *testing.T, words string) string {
	t.Helper()
	body := ""
	p.Await("the comment to say "+words, func() (bool, error) {
		all := p.hub.Comments(world.GitHubRepository, p.number)
		if len(all) > 1 {
			return false, fmt.Errorf("%d comments", len(all))
		}
		if len(all) == 1 {
			body = all[0].Body
		}
		return strings.Contains(strings.ReplaceAll(body, `\`, ""), words), nil
	})
	return body
}

// holds checks what a text says to who reads it, who does not see what makes letters harmless in Markdown.
func holds(t *testing.T, what, text string, words ...string) {
	t.Helper()
	text = strings.ReplaceAll(text, `\`, "")
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%s does not say %q:\n%s", what, word, text)
		}
	}
}

func TestAPullRequestShowsWhatAMergeWouldDo(t *testing.T) {
	t.Parallel()
	hub := github.Start(t)
	files := shop("example.com/web:1")
	w := world.New(t, &shared, files, world.OnGitHub(hub), world.ByApp(7))
	w.HookOfApp(true)
	expectState(t, w.Ended(w.Deployment("shop", w.Repository.Head("main")).ID), "SUCCEEDED")
	p := &proposal{World: w, hub: hub}

	p.propose(t, "web 2 <!-- towpath:sticky v1 --> @everyone", gitserver.Files{"shop/manifests/web.yaml": workload("web", "example.com/web:2")})
	all := p.run(t, "Towpath plan", "success")
	one := p.run(t, "Towpath plan / shop", "success")
	holds(t, "the check of all", all.Title+all.Summary, "shop", "2 targets change: +0 ~4 −0")
	holds(t, "the check of the application", one.Summary+one.Text, "-        image: example.com/web:1", "+        image: example.com/web:2")
	holds(t, "the comment", p.comment(t, "example.com/web:2"), "staging", "prod", "```diff")

	p.propose(t, "a port that is none", gitserver.Files{"shop/manifests/web.yaml": strings.Replace(workload("web", "example.com/web:2"), "ports: [{port: 80}]", "ports: [{port: 99999}]", 1)})
	bad := p.run(t, "Towpath plan", "failure")
	holds(t, "the check", bad.Title+bad.Summary, "the API server would refuse Service")
	holds(t, "the check of the application", p.run(t, "Towpath plan / shop", "failure").Summary, "Invalid value: 99999")
	holds(t, "the comment", p.comment(t, "Invalid value: 99999"), "Service")

	p.propose(t, "a mistake", gitserver.Files{"shop/towpath.yaml": "application: shop\ntargets:\n  prod: {acount: prod}\nmanifests: [{path: manifests}]\n"})
	wrong := p.run(t, "Towpath plan / shop", "failure")
	if !slices.ContainsFunc(wrong.Annotations, func(a github.Annotation) bool {
		return a.Level == "failure" && a.Path == "shop/towpath.yaml" && a.StartLine == 3 && strings.Contains(a.Message, "unknown key acount")
	}) {
		t.Errorf("the annotations are %+v", wrong.Annotations)
	}

	p.propose(t, "nothing", gitserver.Files{"shop/towpath.yaml": files["shop/towpath.yaml"], "shop/manifests/web.yaml": workload("web", "example.com/web:1"), "README": "words"})
	if none := p.run(t, "Towpath plan", "neutral"); none.Title != "nothing changes" {
		t.Errorf("a change of nothing is called %q", none.Title)
	}
	p.comment(t, "nothing changes")
	expectImages(t, w, "prod", map[string]int64{"example.com/web:1": 2})
}
