package status

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"towpath/deployment"
	"towpath/manifest"
	"towpath/manifest/diff"
	"towpath/reconcile/rollout"
)

var update = flag.Bool("update", false, "write what is shown as what is wanted")

const (
	head  = "a1b2c3d4e5a1b2c3d4e5a1b2c3d4e5a1b2c3d4e5"
	fork  = "9e8d7c6b5a9e8d7c6b5a9e8d7c6b5a9e8d7c6b5a"
	admin = "https://towpath.example.com/"
)

func proposed(plans ...rollout.ApplicationPlan) rollout.ProposalReport {
	return rollout.ProposalReport{Proposal: rollout.Proposal{Tenant: "main", Source: "web", Number: 7, Head: head, Base: "main", Title: "Two more pods", Author: "ann"},
		State: rollout.PlanMade, MergeBase: fork, At: noon, Plans: plans}
}

func changed(kind diff.Kind, key, text string) rollout.PlannedChange {
	k, name, _ := strings.Cut(key, " ")
	return rollout.PlannedChange{Key: manifest.Key{Kind: k, Namespace: "shop", Name: name}, Kind: kind, Text: text}
}

func in(d time.Duration) *time.Duration { return &d }

// shop is a plan with something of everything.
func shop() rollout.ApplicationPlan {
	more := changed(diff.Changed, "Deployment web", " spec:\n-  replicas: 4\n+  replicas: 6\n   selector:\n")
	gone := changed(diff.Removed, "PersistentVolumeClaim data", "-kind: PersistentVolumeClaim\n")
	gone.Kept = "a person has to approve that it goes"
	long := changed(diff.Added, "ConfigMap page", "+data:\n+  page: |\n+    <html>\n")
	long.Cut = 812
	return rollout.ApplicationPlan{Application: "shop", Path: "shop/towpath.yaml", Same: 2,
		Problems: []deployment.Problem{{File: "shop/web.yaml", Line: 12, Column: 5, Severity: deployment.Warning, Text: "the image is latest (policy no-latest)"}},
		Leaves:   []rollout.LeftTarget{{Name: "old", Prune: true}, {Name: "older"}},
		Targets: []rollout.TargetPlan{
			{Name: "staging", First: true, Steps: []string{"all at once"}, Changes: []rollout.PlannedChange{more}, Reached: in(0), DryRun: rollout.DryRun{Asked: 1, Of: 1}},
			{Name: "prod-eu", After: []string{"staging"}, Steps: []string{"10 % of the pods", "a pause of 5m0s", "100 %"}, Changes: []rollout.PlannedChange{more, gone, long}, Reached: in(35*time.Minute + 10*time.Second),
				Gates:  []rollout.PlannedGate{{Gate: "beforeDeployment[0]", Roles: []string{"sre", "lead"}, Count: 2}, {Gate: "removals", Count: 1, Why: "a PersistentVolumeClaim goes"}},
				DryRun: rollout.DryRun{Asked: 3, Of: 300}},
			{Name: "prod-us", After: []string{"staging"}, Steps: []string{"all at once"}, Changes: []rollout.PlannedChange{more}, Unreached: "its window never opens", DryRun: rollout.DryRun{Away: "its agent is away"}},
		}}
}

// refusing is a plan that an API server would not take.
func refusing() rollout.ApplicationPlan {
	return rollout.ApplicationPlan{Application: "cart", Path: "cart/towpath.yaml", Targets: []rollout.TargetPlan{{Name: "prod", Steps: []string{"all at once"}, Reached: in(10 * time.Second),
		Changes: []rollout.PlannedChange{changed(diff.Changed, "Service cart", "-  clusterIP: 10.0.0.1\n+  clusterIP: 10.0.0.2\n")},
		DryRun:  rollout.DryRun{Asked: 1, Of: 1, Refused: []rollout.RefusedObject{{Key: manifest.Key{Kind: "Service", Namespace: "shop", Name: "cart"}, Text: "spec.clusterIP: Invalid value: \"10.0.0.2\": may not change once set"}}}}}}
}

func broken() rollout.ApplicationPlan {
	return rollout.ApplicationPlan{Path: "api/towpath.yaml", Problems: []deployment.Problem{{File: "api/towpath.yaml", Line: 3, Column: 1, Severity: deployment.Error, Text: "unknown key tragets; did you mean targets?", Suggestion: "targets"},
		{File: "api/towpath.yaml", Line: 9, Column: 4, Severity: deployment.Error, Text: `no strategy "canry"`, Suggestion: "canary"}}}
}

func posts(r rollout.ProposalReport, checks bool, published map[string]rollout.Publication) []post {
	return showing{r, spot{repository: "acme/web", pull: r.Number}, checks, admin, func(deployment string) string { return "https://towpath.test/" + deployment }}.posts(published)
}

// written is all that posts show.
func written(all []post) string {
	var text strings.Builder
	for _, p := range all {
		var traits string
		for i, is := range []bool{p.final, p.urgent, p.quiet} {
			if is {
				traits += []string{" final", " urgent", " quiet"}[i]
			}
		}
		fmt.Fprintf(&text, "==== %.10s%s\n", p.commit, traits)
		switch c := p.content.(type) {
		case Status:
			fmt.Fprintf(&text, "%s %s: %s %s\n", c.Context, c.State, c.Description, c.Link)
		case Run:
			fmt.Fprintf(&text, "%s [%s] %s %s\n%s----\n%s", c.Name, c.Conclusion, c.Title, c.Link, c.Summary, c.Text)
			for _, a := range c.Annotations {
				fmt.Fprintf(&text, "---- %s:%d:%d failure=%v %s\n", a.Path, a.Line, a.Column, a.Failure, a.Text)
			}
		case Comment:
			text.WriteString(c.text())
		}
	}
	return text.String()
}

// became is a pull request that is merged.
func became(progress *rollout.CommitReport, plans ...rollout.ApplicationPlan) rollout.ProposalReport {
	r := proposed(plans...)
	r.Closed, r.Merged, r.Progress = true, "d4e5f6a7b8c9d4e5f6a7b8c9d4e5f6a7b8c9d4e5", progress
	return r
}

// underWay is a commit of which one application is live, one waits for a person and strays from its plan, and one is refused.
func underWay() *rollout.CommitReport {
	var targets []rollout.TargetReport
	for i, t := range shop().Targets {
		report := rollout.TargetReport{Name: t.Name, Digest: t.Digest, State: rollout.Succeeded}
		if i > 0 {
			report.Digest, report.State = "another", rollout.AwaitingApproval
			report.Waits = []rollout.Wait{{Kind: rollout.WaitApproval, Needs: "approval of beforeDeployment[0]: 0 of 1, by sre", Command: "towpath deploy approve d-1 " + t.Name, Until: time.Date(2026, 3, 2, 14, 5, 0, 0, time.UTC)}}
		}
		targets = append(targets, report)
	}
	return &rollout.CommitReport{Taken: true, Applications: []rollout.ApplicationReport{
		{Path: "api/towpath.yaml", Problems: broken().Problems},
		{Application: "blog", Path: "blog/towpath.yaml"},
		{Application: "shop", Path: shop().Path, Deployment: "d-1", Number: 4, State: rollout.AwaitingApproval, Targets: targets},
	}}
}

func TestWhatAPullRequestShows(t *testing.T) {
	state := func(s rollout.PlanState, why string, public bool) rollout.ProposalReport {
		r := proposed()
		r.State, r.Why, r.MergeBase, r.Public = s, why, "", public
		return r
	}
	public := proposed(refusing())
	public.Public = true
	group := proposed(shop())
	group.Number = 0
	var many []rollout.ApplicationPlan
	for i := range MaxApplications + 1 {
		a := shop()
		a.Application, a.Path = fmt.Sprintf("app-%02d", i), fmt.Sprintf("app-%02d/towpath.yaml", i)
		many = append(many, a)
	}
	for name, c := range map[string]struct {
		report rollout.ProposalReport
		checks bool
	}{
		"one":                                 {proposed(shop()), true},
		"statuses":                            {proposed(shop(), refusing(), broken()), false},
		"failing":                             {proposed(shop(), refusing(), broken()), true},
		"public":                              {public, true},
		"nothing":                             {proposed(), true},
		"asked":                               {state(rollout.PlanAsked, "", false), true},
		"held":                                {state(rollout.PlanHeld, "a1b2c3d4e5 comes from another repository: nothing of it is read until a person with write access has named it", false), true},
		"troubled":                            {state(rollout.PlanTroubled, "fetching https://git.example.com/web.git: no route to host", false), true},
		"trouble that not everybody may read": {state(rollout.PlanTroubled, "fetching https://git.internal/web.git: no route to host", true), false},
		"a group of a queue":                  {group, true},
		"very many":                           {proposed(many...), true},
		"merged and not taken in yet":         {became(nil, shop()), true},
		"merged and nothing changes":          {became(&rollout.CommitReport{Taken: true}), true},
		"merged":                              {became(underWay(), shop(), broken()), true},
	} {
		t.Run(name, func(t *testing.T) {
			got := written(posts(c.report, c.checks, nil))
			file := filepath.Join("testdata", "pull", strings.ReplaceAll(name, " ", "-")+".golden")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("shown is\n%s\nwant\n%s", got, want)
			}
		})
	}
}
