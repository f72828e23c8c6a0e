package github

import (
	"strings"
	"testing"

	"github.com/google/go-github/v60/github"
)

// deployed is a GitHub whose token may write deployments, and a way to make one.
func deployed(t testing.TB) (g *GitHub, client *github.Client, deploy func(environment string, change func(*github.DeploymentRequest)) *github.Deployment) {
	g = New(t)
	g.Repository("acme/shop", sha, other)
	g.Token("writes", "acme/shop", Rights{"deployments": "write", "statuses": "write"})
	client = speak(t, g, "writes")
	return g, client, func(environment string, change func(*github.DeploymentRequest)) *github.Deployment {
		t.Helper()
		o := &github.DeploymentRequest{Ref: pointer(sha), Environment: &environment, AutoMerge: pointer(false), RequiredContexts: &[]string{}, Payload: map[string]string{"towpath": "d-1"}}
		if change != nil {
			change(o)
		}
		d, _, err := client.Repositories.CreateDeployment(t.Context(), "acme", "shop", o)
		ok(t, err)
		return d
	}
}

func TestADeploymentGoesItsWay(t *testing.T) {
	t.Parallel()
	g, client, deploy := deployed(t)
	d := deploy("shop-staging", nil)
	if d.GetSHA() != sha || d.GetTask() != "deploy" || d.GetEnvironment() != "shop-staging" || string(d.Payload) != `{"towpath":"d-1"}` || d.GetCreator().GetLogin() != "towpath-writes" {
		t.Errorf("made %v", d)
	}
	for _, state := range []string{"queued", "in_progress", "success"} {
		s, _, err := client.Repositories.CreateDeploymentStatus(t.Context(), "acme", "shop", d.GetID(), &github.DeploymentStatusRequest{State: &state, Description: pointer("step"), LogURL: pointer("https://towpath.test/d/1")})
		ok(t, err)
		if s.GetState() != state || s.GetLogURL() != "https://towpath.test/d/1" || s.GetEnvironment() != "shop-staging" {
			t.Errorf("told %v", s)
		}
	}
	listed, _, err := client.Repositories.ListDeploymentStatuses(t.Context(), "acme", "shop", d.GetID(), nil)
	ok(t, err)
	if len(listed) != 3 || listed[0].GetState() != "success" {
		t.Errorf("listed are %v", listed)
	}
	deploy("shop-prod", nil)
	found, _, err := client.Repositories.ListDeployments(t.Context(), "acme", "shop", &github.DeploymentsListOptions{Environment: "shop-staging"})
	ok(t, err)
	if len(found) != 1 || found[0].GetID() != d.GetID() {
		t.Errorf("of the environment: %v", found)
	}
	if kept := g.Deployments("acme/shop", "shop-staging"); len(kept) != 1 || kept[0].State() != "success" || g.Creations()["deployment"] != 2 || g.Creations()["deployment status"] != 3 {
		t.Errorf("kept %+v, created %v", kept, g.Creations())
	}
}

func TestASuccessMakesTheOnesBeforeInactiveExceptInProduction(t *testing.T) {
	t.Parallel()
	g, client, deploy := deployed(t)
	succeed := func(environment string, change func(*github.DeploymentRequest), automatic *bool) {
		t.Helper()
		_, _, err := client.Repositories.CreateDeploymentStatus(t.Context(), "acme", "shop", deploy(environment, change).GetID(), &github.DeploymentStatusRequest{State: pointer("success"), AutoInactive: automatic})
		ok(t, err)
	}
	production := func(o *github.DeploymentRequest) { o.ProductionEnvironment = pointer(true) }
	passing := func(o *github.DeploymentRequest) { o.TransientEnvironment = pointer(true) }
	for environment, c := range map[string]struct {
		change    func(*github.DeploymentRequest)
		automatic *bool
		want      string
	}{
		"staging":    {nil, nil, "inactive success"},
		"unasked":    {nil, pointer(false), "success success"},
		"production": {nil, nil, "success success"},
		"prod-eu":    {production, nil, "success success"},
		"preview":    {passing, nil, "success success"},
	} {
		succeed(environment, c.change, c.automatic)
		succeed(environment, c.change, c.automatic)
		var states []string
		for _, d := range g.Deployments("acme/shop", environment) {
			states = append(states, d.State())
		}
		if got := strings.Join(states, " "); got != c.want {
			t.Errorf("%s: %s, want %s", environment, got, c.want)
		}
	}
}

func TestADeploymentWaitsForChecksUnlessItSaysOtherwise(t *testing.T) {
	t.Parallel()
	g, client, deploy := deployed(t)
	g.Tell("acme/shop", sha, Status{Context: "ci", State: "success"})
	g.Tell("acme/shop", sha, Status{Context: "towpath/shop", State: "pending"})
	for name, c := range map[string]struct {
		contexts *[]string
		refused  bool
	}{
		"all of them":  {nil, true},
		"none of them": {&[]string{}, false},
		"a good one":   {&[]string{"CI"}, false},
		"ours":         {&[]string{"ci", "towpath/shop"}, true},
		"one unknown":  {&[]string{"lint"}, true},
	} {
		_, _, err := client.Repositories.CreateDeployment(t.Context(), "acme", "shop", &github.DeploymentRequest{Ref: pointer(sha), AutoMerge: pointer(false), RequiredContexts: c.contexts})
		if c.refused {
			expectRefused(t, err, 409, "Conflict: Commit status checks failed for "+sha)
		} else if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	long := strings.Repeat("x", 141)
	_, _, err := client.Repositories.CreateDeployment(t.Context(), "acme", "shop", &github.DeploymentRequest{Ref: pointer(sha), AutoMerge: pointer(false), RequiredContexts: &[]string{}, Description: &long})
	expectRefused(t, err, 422, "description is too long (maximum is 140 characters)")
	_, _, err = client.Repositories.CreateDeployment(t.Context(), "acme", "shop", &github.DeploymentRequest{Ref: pointer("nowhere")})
	expectRefused(t, err, 422, "No ref found for: nowhere")
	d := deploy("staging", nil)
	for _, s := range []github.DeploymentStatusRequest{{State: pointer("success"), Description: &long}, {State: pointer("cancelled")}, {}} {
		_, _, err := client.Repositories.CreateDeploymentStatus(t.Context(), "acme", "shop", d.GetID(), &s)
		expectRefused(t, err, 422, "")
	}
	_, _, err = client.Repositories.CreateDeploymentStatus(t.Context(), "acme", "shop", d.GetID()+9, &github.DeploymentStatusRequest{State: pointer("success")})
	expectRefused(t, err, 404, "Not Found")
	if kept := g.Deployments("acme/shop", ""); len(kept) != 3 || kept[2].State() != "" {
		t.Errorf("kept are %+v", kept)
	}
}
