package status

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"towpath/deployment"
	"towpath/manifest"
	"towpath/reconcile/rollout"
)

func lines(statuses []Status) []string {
	out := make([]string, len(statuses))
	for i, s := range statuses {
		end := ""
		if s.Final {
			end = " (final)"
		}
		out[i] = fmt.Sprintf("%s %s%s: %s", s.Context, s.State, end, s.Description)
	}
	return out
}

func application(name string, state rollout.State, targets ...rollout.TargetReport) rollout.ApplicationReport {
	return rollout.ApplicationReport{Application: name, Path: name + "/towpath.yaml", Deployment: "d-" + name, Number: 7, State: state, Targets: targets}
}

func target(name string, state rollout.State, why string) rollout.TargetReport {
	return rollout.TargetReport{Name: name, State: state, Why: why}
}

func waiting(name string, state rollout.State, needs string) rollout.TargetReport {
	return rollout.TargetReport{Name: name, State: state, Waits: []rollout.Wait{{Needs: needs}}}
}

func TestWhatACommitShows(t *testing.T) {
	problem := func(line int, text string) deployment.Problem {
		return deployment.Problem{File: "web/towpath.yaml", Line: line, Column: 3, Severity: deployment.Error, Text: text}
	}
	for name, c := range map[string]struct {
		applications []rollout.ApplicationReport
		want         []string
	}{
		"a rollout under way": {
			[]rollout.ApplicationReport{application("shop", rollout.Running, target("staging", rollout.Succeeded, ""), waiting("prod", rollout.Running, "1 of 3 pods ready: web-5d8"), waiting("asia", rollout.Queued, "target prod"))},
			[]string{"towpath/shop pending: #7: 1 of 3 live; prod: rolling out: 1 of 3 pods ready: web-5d8", "towpath/shop/staging success (final): live",
				"towpath/shop/prod pending: rolling out: 1 of 3 pods ready: web-5d8", "towpath/shop/asia pending: queued: target prod"}},
		"one that waits for a person": {
			[]rollout.ApplicationReport{application("shop", rollout.AwaitingApproval, waiting("staging", rollout.Running, "pods"), waiting("prod", rollout.AwaitingApproval, "approval of 12 removals by sre"))},
			[]string{"towpath/shop pending: #7: prod: waits for approval: approval of 12 removals by sre", "towpath/shop/staging pending: rolling out: pods",
				"towpath/shop/prod pending: waits for approval: approval of 12 removals by sre"}},
		"one that is live": {
			[]rollout.ApplicationReport{application("shop", rollout.Succeeded, target("staging", rollout.Succeeded, "unchanged"), target("prod", rollout.Succeeded, ""))},
			[]string{"towpath/shop success (final): #7: live on staging, prod", "towpath/shop/staging success (final): live, unchanged", "towpath/shop/prod success (final): live"}},
		"one that others changed since": {
			[]rollout.ApplicationReport{application("shop", rollout.Succeeded, target("staging", rollout.Succeeded, ""),
				rollout.TargetReport{Name: "prod", State: rollout.Succeeded, Drift: []rollout.Drift{{Key: manifest.Key{Kind: "ConfigMap", Namespace: "shop", Name: "web"}, Fields: []string{"/data/A"}},
					{Key: manifest.Key{Kind: "Service", Namespace: "shop", Name: "web"}, Missing: true}}})},
			[]string{"towpath/shop success: #7: live on staging, prod; changed since by others: prod", "towpath/shop/staging success (final): live",
				"towpath/shop/prod success: live; changed since by others: ConfigMap shop/web differs at /data/A (and 1 more)"}},
		"one that went back": {
			[]rollout.ApplicationReport{application("shop", rollout.Failed, target("staging", rollout.Succeeded, ""), target("prod", rollout.RolledBack, "pods of web-5d8 crash: exit code 1"))},
			[]string{"towpath/shop failure (final): #7: 1 of 2 live; prod: rolled back: pods of web-5d8 crash: exit code 1", "towpath/shop/staging success (final): live",
				"towpath/shop/prod failure (final): rolled back: pods of web-5d8 crash: exit code 1"}},
		"one that was replaced": {
			[]rollout.ApplicationReport{application("shop", rollout.Cancelled, target("prod", rollout.Cancelled, "replaced by #8"))},
			[]string{"towpath/shop error (final): #7: prod: cancelled: replaced by #8", "towpath/shop/prod error (final): cancelled: replaced by #8"}},
		"a target and a file that are gone": {
			[]rollout.ApplicationReport{application("shop", rollout.Succeeded, rollout.TargetReport{Name: "old", Removes: true, State: rollout.Succeeded}), application("web", rollout.Succeeded)},
			[]string{"towpath/shop success (final): #7: removed from old", "towpath/shop/old success (final): removed",
				"towpath/web success (final): #7: nothing of it runs under this file any more; its objects stay"}},
		"files that are refused, unchanged or nobody's": {
			[]rollout.ApplicationReport{
				{Path: "a/towpath.yaml", Problems: []deployment.Problem{{File: "a/towpath.yaml", Line: 1, Column: 1, Severity: deployment.Error, Text: "is not YAML"}}},
				{Application: "same", Path: "same/towpath.yaml", Problems: []deployment.Problem{{Severity: deployment.Warning, Text: "quirk"}}},
				application("web", rollout.Succeeded, target("prod", rollout.Succeeded, "")),
				{Application: "Web", Path: "web/towpath.yaml", Problems: []deployment.Problem{problem(4, "unknown key tragets; did you mean targets?"), problem(9, "x")}},
			},
			[]string{"towpath/a/towpath.yaml failure (final): a/towpath.yaml:1:1: is not YAML", "towpath/same success (final): unchanged: the manifests are as they were",
				"towpath/web success (final): #7: live on prod", "towpath/web/prod success (final): live",
				"towpath/web/towpath.yaml failure (final): web/towpath.yaml:4:3: unknown key tragets; did you mean targets? (and 1 more)"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := lines(Statuses(rollout.CommitReport{Applications: c.applications}, page))
			if !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

// page is the address of a deployment, or of all.
func page(deployment string) string { return "https://towpath.example.com/" + deployment }

// Each state of a target has a word of GitHub's and one of ours, and one that failed is told before one that was passed over.
func TestEachStateIsTold(t *testing.T) {
	for _, state := range []rollout.State{rollout.Queued, rollout.Running, rollout.Paused, rollout.AwaitingApproval, rollout.Succeeded, rollout.Failed, rollout.RolledBack,
		rollout.Cancelled, rollout.Rejected, rollout.Skipped} {
		r := rollout.CommitReport{Applications: []rollout.ApplicationReport{{Application: "shop", Number: 3, Deployment: "d3", State: rollout.Running,
			Targets: []rollout.TargetReport{{Name: "staging", State: rollout.Skipped, Why: "its agent is away"}, {Name: "prod", State: state}}}}}
		for _, s := range Statuses(r, func(string) string { return "" }) {
			if !slices.Contains([]string{"pending", "success", "failure", "error"}, s.State) {
				t.Errorf("%s: the status %s has the state %q", state, s.Context, s.State)
			}
			if want := "prod: "; s.Context == "towpath/shop" && state != rollout.Succeeded && state != rollout.Skipped && !strings.Contains(s.Description, want) {
				t.Errorf("%s: %q does not tell of prod", state, s.Description)
			}
		}
	}
}

func TestVeryManyTargetsOrApplicationsAreToldTogether(t *testing.T) {
	var targets []rollout.TargetReport
	for i := range 11 {
		targets = append(targets, target(fmt.Sprintf("a-region-with-a-long-name-%02d", i), rollout.Succeeded, ""))
	}
	if got := lines(Statuses(rollout.CommitReport{Applications: []rollout.ApplicationReport{application("shop", rollout.Succeeded, targets...)}}, page)); len(got) != 1 ||
		got[0] != "towpath/shop success (final): #7: live on 11 targets" {
		t.Errorf("11 targets: %q", got)
	}
	many := func(state rollout.State, count int) (all []rollout.ApplicationReport) {
		for i := range count {
			all = append(all, application(fmt.Sprintf("%s-%d", strings.ToLower(string(state)), i), state))
		}
		return all
	}
	for want, applications := range map[string][]rollout.ApplicationReport{
		"towpath success (final): 21 applications: 21 live":                                             many(rollout.Succeeded, 21),
		"towpath pending: 22 applications: 2 rolling out, 20 live":                                      append(many(rollout.Succeeded, 20), many(rollout.Running, 2)...),
		"towpath failure: 25 applications: 1 failed (failed-0), 4 rolling out, 20 live":                 slices.Concat(many(rollout.Succeeded, 20), many(rollout.Running, 4), many(rollout.Failed, 1)),
		"towpath failure (final): 24 applications: 4 failed (failed-0, failed-1, failed-2, …), 20 live": append(many(rollout.Succeeded, 20), many(rollout.Failed, 4)...),
		"towpath error (final): 23 applications: 20 live, 2 cancelled, 1 unchanged":                     slices.Concat(many(rollout.Succeeded, 20), many(rollout.Cancelled, 2), []rollout.ApplicationReport{{Application: "same"}}),
	} {
		if got := lines(Statuses(rollout.CommitReport{Applications: applications}, page)); len(got) != 1 || got[0] != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestDescriptionsFitAndShowWhatTheySay(t *testing.T) {
	for text, want := range map[string]string{
		"  two\nlines\tand\r\nmore  ":               "two lines and more",
		"red\x1b[31m, reversed\u202e":               "red[31m, reversed",
		"broken \xff bytes":                         "broken bytes",
		strings.Repeat("ä", 140):                    strings.Repeat("ä", 140),
		strings.Repeat("ä", 141):                    strings.Repeat("ä", 139) + "…",
		strings.Repeat("🚀", 70):                     strings.Repeat("🚀", 70),
		strings.Repeat("🚀", 71):                     strings.Repeat("🚀", 69) + "…",
		strings.Repeat("word ", 27) + "and the end": strings.Repeat("word ", 27) + "and…",
	} {
		if got := Fit(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

func FuzzFit(f *testing.F) {
	f.Add("text\x00\u202e🚀")
	f.Fuzz(func(t *testing.T, text string) {
		fit := Fit(text)
		if utf8.RuneCountInString(fit) > maxDescription || strings.ContainsAny(fit, "\n\x1b\x00") || !utf8.ValidString(fit) {
			t.Errorf("%q became %q", text, fit)
		}
	})
}
