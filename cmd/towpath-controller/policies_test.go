package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"towpath/api"
	"towpath/cmd/towpath-controller/config"
	"towpath/internal/testkit/gitserver"
)

// platform is a controller that holds what it follows to the rules of another repository.
type platform struct {
	*watcher
	rules *gitserver.Repo
}

const noThree = "version: v1\nkind: policies\nrules:\n  - name: no-three\n    match: {kinds: [ConfigMap]}\n    require: object.data.value != 3\n    message: value is {{ object.data.value }}; write another\n"

// govern follows a repository of files, beside one of rules.
func govern(t *testing.T, rules, files gitserver.Files, more string) *platform {
	t.Helper()
	p := &platform{rules: gitserver.NewRepo(t, t.TempDir(), "platform", rules)}
	repository := gitserver.NewRepo(t, t.TempDir(), "repo", files)
	sources := strings.TrimSuffix(sourceOf(repository, everywhere), "]\n") + ", {name: platform, url: " + p.rules.Dir + ", branch: main, schedule: '@every 1h'}]\n"
	p.watcher = &watcher{start(t, configure(t, sources+"policies: [{source: platform"+more+"}]\n")), t, repository}
	return p
}

// rule makes a commit of rules, and returns once it is taken in.
func (p *platform) rule(message string, files gitserver.Files) {
	p.t.Helper()
	commit := p.rules.Commit(message, files)
	must(p.t, p.store.WakeSource(p.t.Context(), "platform"))
	await(p.t, "the rules of "+commit, func() bool {
		s, err := p.store.Source(p.t.Context(), "main", "platform")
		return err == nil && s.Processed == commit
	})
}

func valued(value string) gitserver.Files {
	return gitserver.Files{"shop/m.yaml": string(upload("shop", value).Files["m.yaml"])}
}

const refusal = "shop/towpath.yaml:2:11: rule no-three (policies/all.yaml:4 of source platform) refuses ConfigMap ns/shop on target prod (shop/m.yaml:1): value is 3; write another"

func TestAMergeThatARuleDeniesIsRefusedAndTheMendedOneGoesThrough(t *testing.T) {
	t.Parallel()
	p := govern(t, gitserver.Files{"policies/all.yaml": noThree, "policies/all_test.yaml": "no rules"}, application("shop", "shop", ""), "")
	p.taken(p.repository.Head("main"))
	p.merge("three", valued("3"))
	p.shows(refusal)
	p.merge("four", valued("4"))
	p.shows("")
	if all := p.deployments("shop"); len(all) != 2 || all[1].Trigger.Title != "four" {
		t.Errorf("deployed:\n%s", p.said("shop"))
	}
	pushed := p.call(p.token("main", "ci", api.Start), http.MethodPost, "/api/v1/deployments", upload("web", "3")).problem(t, http.StatusUnprocessableEntity)
	if want := strings.Replace(refusal[len("shop/towpath.yaml:2:11: "):], "ns/shop on target prod (shop/m.yaml:1)", "ns/web on target prod (m.yaml:1)", 1); len(pushed.Errors) != 1 || pushed.Errors[0].Message != want {
		t.Errorf("pushed: %+v", pushed)
	}
}

func TestARuleThatIsAddedSpeaksAtTheNextChangeAndOneThatGoesLetsThrough(t *testing.T) {
	t.Parallel()
	p := govern(t, gitserver.Files{"policies/all.yaml": strings.Replace(noThree, "!= 3", "!= 30", 1)}, and(application("shop", "shop", ""), valued("3")), "")
	p.taken(p.repository.Head("main"))
	first := p.deployments("shop")
	p.rule("stricter", gitserver.Files{"policies/all.yaml": strings.Replace(noThree, "!= 3", "> 10", 1)})
	p.merge("another file", gitserver.Files{"README": "x"})
	if p.problems() != "" || len(p.deployments("shop")) != 1 {
		t.Fatalf("what is deployed was touched:\n%s\n%s", p.problems(), p.said("shop"))
	}
	again := p.call(p.token("main", "ci", api.Start), http.MethodPost, "/api/v1/deployments", api.Upload{Repeat: first[0].ID}).problem(t, http.StatusConflict)
	if !strings.HasPrefix(again.Detail, "it was deployed before there was such a rule: rule no-three (policies/all.yaml:4 of source platform) refuses ConfigMap ns/shop on target prod") {
		t.Errorf("again: %s", again.Detail)
	}
	p.merge("a change", valued("4"))
	p.shows("value is 4; write another")
	p.rule("laxer", gitserver.Files{"policies/all.yaml": noThree})
	p.shows("")
	if all := p.deployments("shop"); len(all) != 2 {
		t.Errorf("once the rule let it pass:\n%s", p.said("shop"))
	}
}

func TestAMistakeInThePolicyFilesKeepsTheRulesBeforeInForce(t *testing.T) {
	t.Parallel()
	p := govern(t, gitserver.Files{"policies/all.yaml": noThree}, application("shop", "shop", ""), "")
	p.taken(p.repository.Head("main"))
	token := p.token("main", "ann", api.View)
	shows := func(want string) {
		t.Helper()
		var list struct{ Items []api.Source }
		p.call(token, http.MethodGet, "/api/v1/sources", nil).read(t, &list)
		for _, s := range list.Items {
			if s.Name == "platform" && (want == "" && len(s.Problems) == 0 || len(s.Problems) == 1 && strings.Contains(s.Problems[0].File+": "+s.Problems[0].Text, want)) {
				return
			}
		}
		t.Errorf("the sources show %+v, want %s", list.Items, want)
	}
	p.rule("mistaken", gitserver.Files{"policies/all.yaml": strings.Replace(noThree, "object.data", "objct.data", 1)})
	shows("policies/all.yaml: undeclared reference to 'objct' (did you mean 'object'?)")
	p.rule("gone", gitserver.Files{"policies/all.yaml": gitserver.Delete})
	shows("policies/*.yaml: source platform has no such policy file; the rules before stay in force")
	p.merge("three", valued("3"))
	p.shows("rule no-three (policies/all.yaml:4 of source platform) refuses")
	p.rule("mended", gitserver.Files{"policies/all.yaml": noThree + "    otherwise: warn\n"})
	shows("")
	p.shows("")
	if all := p.deployments("shop"); len(all) != 2 {
		t.Errorf("once it is a warning:\n%s", p.said("shop"))
	}
}

func TestUntilTheRulesAreKnownNothingIsDeployed(t *testing.T) {
	t.Parallel()
	p := govern(t, gitserver.Files{"policies/all.yaml": "version: v1\n"}, application("shop", "shop", ""), "")
	await(t, "the policy files to be read", func() bool {
		files, err := p.store.PolicyFiles(t.Context(), "main", "platform")
		return err == nil && len(files.Problems) > 0
	})
	pushed := p.call(p.token("main", "ci", api.Start), http.MethodPost, "/api/v1/deployments", upload("web", "1")).problem(t, http.StatusConflict)
	if pushed.Detail != "the rules of source platform, which files are held to before they are deployed, are not known yet: no commit of it with good policy files (policies/*.yaml) was taken in; `towpath source list` says why" {
		t.Errorf("pushed: %s", pushed.Detail)
	}
	p.rule("the first ones", gitserver.Files{"policies/all.yaml": noThree})
	p.taken(p.repository.Head("main"))
	if all := p.deployments("shop"); len(all) != 1 {
		t.Errorf("once they are known:\n%s", p.said("shop"))
	}
}

func TestRulesHoldAfterARestartWithTheirRepositoryAway(t *testing.T) {
	t.Parallel()
	p := govern(t, gitserver.Files{"policies/all.yaml": noThree}, application("shop", "shop", ""), "")
	p.taken(p.repository.Head("main"))
	settings := p.config
	must(t, p.Close())
	must(t, os.Rename(p.rules.Dir, p.rules.Dir+".away"))
	must(t, os.RemoveAll(filepath.Join(settings.Data, "mirrors", "main", "platform")))
	p.controller = start(t, settings)
	p.merge("three", valued("3"))
	p.shows(refusal)
}

func TestWhatARuleKeepsIsNotRemoved(t *testing.T) {
	t.Parallel()
	keep := "version: v1\nkind: policies\nrules: [{name: keep, on: [remove], match: {kinds: [ConfigMap]}, require: 'false', message: keep it}]\n"
	twice := gitserver.Files{"shop/m.yaml": string(upload("shop", "1").Files["m.yaml"]) + "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: second}\n"}
	p := govern(t, gitserver.Files{"policies/all.yaml": keep}, and(application("shop", "shop", prune), twice), "")
	p.taken(p.repository.Head("main"))
	p.merge("one goes", valued("1"))
	p.shows("rule keep (policies/all.yaml:3 of source platform) refuses the removal of ConfigMap ns/second from target prod (shop/m.yaml:6): keep it")
	p.merge("the target goes", gitserver.Files{"shop/towpath.yaml": strings.Replace(application("shop", "shop", prune)["shop/towpath.yaml"], "prod: {", "live: {", 1)})
	p.shows("refuses the removal of ConfigMap ns/shop from target prod")
	p.merge("the file goes", without("shop"))
	if !strings.Contains(p.said("shop"), "target.orphaned prod: its objects stay and nobody owns them: its file shop/towpath.yaml is gone") || !strings.Contains(p.said("shop"), "; but rule keep") {
		t.Errorf("once the file is gone:\n%s", p.said("shop"))
	}
}

func TestRulesOfAFileHoldForTheTenantsItNames(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "rules.yaml")
	must(t, os.WriteFile(file, []byte(noThree), 0o600))
	c := start(t, configure(t, "policies: [{file: "+file+", tenants: ['team-*']}]\n"))
	if a := c.call(c.token("main", "ci", api.Start), http.MethodPost, "/api/v1/deployments", upload("web", "3")); a.status != http.StatusCreated {
		t.Errorf("another tenant: %d %s", a.status, a.text)
	}
	held := c.token("team-a", "ci", api.Start)
	p := c.call(held, http.MethodPost, "/api/v1/deployments", upload("web", "3")).problem(t, http.StatusUnprocessableEntity)
	if len(p.Errors) != 1 || !strings.HasPrefix(p.Errors[0].Message, "rule no-three ("+file+":4) refuses ConfigMap ns/web on target prod") {
		t.Errorf("a tenant that is held to them: %+v", p)
	}
	must(t, os.WriteFile(file, []byte("version: v1\n"), 0o600))
	if err := c.Reload(c.config); err == nil || !strings.Contains(err.Error(), "policies[0].file: "+file+":1:1: kind is missing") {
		t.Errorf("a mistake in it: %v", err)
	}
	c.call(held, http.MethodPost, "/api/v1/deployments", upload("web", "3")).problem(t, http.StatusUnprocessableEntity)
	must(t, os.WriteFile(file, []byte(noThree+"    otherwise: warn\n"), 0o600))
	must(t, c.Reload(c.config))
	a := c.call(held, http.MethodPost, "/api/v1/deployments", upload("web", "3"))
	var started api.Started
	if a.read(t, &started); a.status != http.StatusCreated || len(started.Problems) != 1 || !strings.Contains(started.Problems[0].Text, "warns of ConfigMap ns/web") {
		t.Errorf("a warning: %d %s", a.status, a.text)
	}
}

func TestWhereRulesComeFromIsChecked(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"policies: [{}]":                                 "policies[0]: source or file is required, and not both",
		"policies: [{source: x}]":                        "policies[0].source: no source is named x",
		"policies: [{file: x, paths: [a]}]":              "policies[0].paths: a file has none",
		"policies: [{file: x, tenants: ['[']}]":          `policies[0].tenants: "[" is no pattern`,
		"policies: [{source: a}, {source: a}]":           "policies[1].source: a second entry of source a; name all its files under paths of one",
		"policies: [{source: a, path: policies/*.yaml}]": "path",
	} {
		_, err := config.Parse("config.yaml", []byte("externalURL: https://x\ndatabase: sqlite:x\nkeyFile: x\ndata: x\nsources: [{name: a, url: a}]\n"+text+"\n"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func TestManyFindingsAreCounted(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "rules.yaml")
	must(t, os.WriteFile(file, []byte(noThree), 0o600))
	c := start(t, configure(t, "policies: [{file: "+file+"}]\n"))
	u := upload("web", "3")
	var manifests strings.Builder
	for i := range 13 {
		fmt.Fprintf(&manifests, "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c-%d}\ndata: {value: 3}\n", i)
	}
	u.Files["m.yaml"] = []byte(manifests.String())
	p := c.call(c.token("main", "ci", api.Start), http.MethodPost, "/api/v1/deployments", u).problem(t, http.StatusUnprocessableEntity)
	if n := len(p.Errors); n != 11 || p.Errors[10].Message != "and 3 more findings of rules on target prod" {
		t.Errorf("%d errors: %+v", n, p.Errors)
	}
}
