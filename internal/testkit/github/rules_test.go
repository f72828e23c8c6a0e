package github

import (
	"strings"
	"testing"
)

func TestRulesAndRequiredChecksOfABranch(t *testing.T) {
	t.Parallel()
	g := New(t)
	g.Repository("acme/shop", sha)
	g.Token("reads", "acme/shop", Rights{"administration": "read"})
	client := speak(t, g, "reads")
	g.Rules("acme/shop", "main",
		map[string]any{"type": "required_status_checks", "parameters": map[string]any{"strict_required_status_checks_policy": false, "required_status_checks": []any{map[string]any{"context": "Towpath plan"}}}},
		map[string]any{"type": "merge_queue"})
	_, _, err := client.Repositories.GetRulesForBranch(t.Context(), "acme", "shop", "main")
	if err == nil || !strings.Contains(err.Error(), "not yet implemented") { // go-github fails on a rule that it does not know
		t.Errorf("go-github says %v", err)
	}
	request, err := client.NewRequest("GET", "repos/acme/shop/rules/branches/main", nil)
	ok(t, err)
	var rules []struct {
		Type       string
		Parameters struct {
			Checks []struct{ Context string } `json:"required_status_checks"`
		}
	}
	_, err = client.Do(t.Context(), request, &rules)
	ok(t, err)
	if len(rules) != 2 || rules[0].Parameters.Checks[0].Context != "Towpath plan" || rules[1].Type != "merge_queue" {
		t.Errorf("the rules are %+v", rules)
	}
	_, _, err = client.Repositories.GetRequiredStatusChecks(t.Context(), "acme", "shop", "main")
	if err == nil || !strings.Contains(err.Error(), "branch is not protected") {
		t.Errorf("of a branch without protection: %v", err)
	}
	g.RequireChecks("acme/shop", "main", true, "ci", "Towpath plan")
	checks, _, err := client.Repositories.GetRequiredStatusChecks(t.Context(), "acme", "shop", "main")
	ok(t, err)
	if !checks.Strict || len(*checks.Contexts) != 2 || (*checks.Contexts)[1] != "Towpath plan" {
		t.Errorf("required are %v", checks)
	}
	g.Token("writes", "acme/shop", Rights{"checks": "write"})
	_, _, err = speak(t, g, "writes").Repositories.GetRequiredStatusChecks(t.Context(), "acme", "shop", "main")
	expectRefused(t, err, 403, "Resource not accessible")
}
