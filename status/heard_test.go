package status_test

import (
	"strings"
	"testing"

	"towpath/status"
)

func TestOfWhatAWebhookSaysOnlyWhatHasAReaderIsHeard(t *testing.T) {
	t.Parallel()
	i := install(t)
	expectTold(t, i.tell(t, "acme/web", "a")) // so that the repository's number is known
	web := `"repository":{"id":2,"full_name":"acme/web","default_branch":"main"}`
	for name, c := range map[string]struct {
		event, body string
		heed        bool
		main, other bool // about acme/web: its default branch, its branch other
	}{
		"a push":                      {"push", `{"ref":"refs/heads/main",` + web + `}`, true, true, false},
		"a push to another branch":    {"push", `{"ref":"refs/heads/other",` + web + `}`, true, false, true},
		"a push of a tag":             {"push", `{"ref":"refs/tags/main",` + web + `}`, false, false, false},
		"a branch that goes":          {"push", `{"ref":"refs/heads/main","deleted":true,` + web + `}`, false, false, false},
		"a merge queue's branch":      {"push", `{"ref":"refs/heads/gh-readonly-queue/main/pr-1",` + web + `}`, false, false, false},
		"our own push":                {"push", `{"ref":"refs/heads/main","sender":{"login":"towpath[bot]"},` + web + `}`, true, false, false},
		"another bot's push":          {"push", `{"ref":"refs/heads/main","sender":{"login":"renovate[bot]"},` + web + `}`, true, true, false},
		"a push elsewhere":            {"push", `{"ref":"refs/heads/main","repository":{"id":99,"full_name":"acme/none","default_branch":"main"}}`, true, false, false},
		"a push under another name":   {"push", `{"ref":"refs/heads/main","repository":{"id":1,"full_name":"acme/WEB","default_branch":"main"}}`, true, true, false},
		"a new name":                  {"repository", `{"action":"renamed","changes":{"repository":{"name":{"from":"web"}}},"repository":{"id":99,"full_name":"acme/site"}}`, true, true, true},
		"a new owner":                 {"repository", `{"action":"transferred","changes":{"owner":{"from":{"organization":{"login":"acme"}}}},"repository":{"id":99,"full_name":"other/web"}}`, true, true, true},
		"another word of it":          {"repository", `{"action":"edited",` + web + `}`, false, false, false},
		"an installation":             {"installation", `{"action":"created","installation":{"account":{"login":"Acme"}}}`, true, true, true},
		"an installation elsewhere":   {"installation", `{"action":"created","installation":{"account":{"login":"other"}}}`, true, false, false},
		"what is installed on":        {"installation_repositories", `{"action":"added","installation":{"account":{"login":"acme"}}}`, true, true, true},
		"a pull request":              {"pull_request", `{"action":"synchronize","pull_request":{"number":7,"base":{"ref":"main"}},` + web + `}`, true, true, false},
		"one to another branch":       {"pull_request", `{"action":"closed","pull_request":{"number":7,"base":{"ref":"other"}},` + web + `}`, true, false, true},
		"one that goes elsewhere now": {"pull_request", `{"action":"edited","changes":{"base":{"ref":{"from":"main"}}},"pull_request":{"number":7,"base":{"ref":"other"}},` + web + `}`, true, true, true},
		"one with another title":      {"pull_request", `{"action":"edited","changes":{"title":{"from":"x"}},"pull_request":{"number":7,"base":{"ref":"main"}},` + web + `}`, true, true, false},
		"one that says more":          {"pull_request", `{"action":"edited","changes":{"body":{"from":"x"}},"pull_request":{"number":7,"base":{"ref":"main"}},` + web + `}`, false, false, false},
		"our own pull request":        {"pull_request", `{"action":"opened","sender":{"login":"towpath[bot]"},"pull_request":{"number":7,"base":{"ref":"main"}},` + web + `}`, true, true, false},
		"one with a label":            {"pull_request", `{"action":"labeled","pull_request":{"number":7,"base":{"ref":"main"}},` + web + `}`, false, false, false},
		"one that holds the least":    {"pull_request", `{"action":"opened"}`, false, false, false},
		"a group of a queue":          {"merge_group", `{"action":"checks_requested","merge_group":{"head_sha":"` + commit + `","base_sha":"` + commit + `","base_ref":"refs/heads/main"},` + web + `}`, true, true, false},
		"a group that is none":        {"merge_group", `{"action":"destroyed","merge_group":{"head_sha":"../x","base_sha":"` + commit + `","base_ref":"refs/heads/main"},` + web + `}`, false, false, false},
		"a check, again":              {"check_run", `{"action":"rerequested","check_run":{"head_sha":"` + commit + `","app":{"id":7}},` + web + `}`, true, true, true},
		"all checks, again":           {"check_suite", `{"action":"rerequested","check_suite":{"head_sha":"` + commit + `","app":{"id":7}},` + web + `}`, true, true, true},
		"the check of another App":    {"check_run", `{"action":"rerequested","check_run":{"head_sha":"` + commit + `","app":{"id":8}},` + web + `}`, true, false, false},
		"a check that is over":        {"check_run", `{"action":"completed","check_run":{"head_sha":"` + commit + `","app":{"id":7}},` + web + `}`, false, false, false},
		"an event that nobody reads":  {"watch", `{`, false, false, false},
		"a push that holds the least": {"push", `{}`, false, false, false},
	} {
		h, heed, err := status.Hear(c.event, []byte(c.body))
		if err != nil || heed != c.heed {
			t.Errorf("%s: heeded %v, %v", name, heed, err)
		}
		if !heed {
			continue
		}
		if main, other := h.About(i.app, "acme/web", ""), h.About(i.app, "acme/web", "other"); main != c.main || other != c.other {
			t.Errorf("%s: about the default branch %v, about the branch other %v", name, main, other)
		}
	}
	if _, _, err := status.Hear("push", []byte("payload=%7B%7D")); err == nil || !strings.Contains(err.Error(), "the delivery of push is no JSON as GitHub sends it: ") {
		t.Errorf("a form: %v", err)
	}
}

func TestWhatIsProposedIsHeardAsAHint(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		event, body string
		want        status.Heard
	}{
		"a pull request": {"pull_request", `{"action":"opened","pull_request":{"number":7,"base":{"ref":"main"}},"repository":{"default_branch":"main"}}`,
			status.Heard{Pull: 7, Base: "main", Default: true}},
		"a group": {"merge_group", `{"action":"checks_requested","merge_group":{"head_sha":"` + commit + `","base_sha":"` + other + `","base_ref":"refs/heads/release/2"}}`,
			status.Heard{Group: commit, GroupBase: other, Base: "release/2"}},
		"a group that is gone": {"merge_group", `{"action":"destroyed","reason":"invalidated","merge_group":{"head_sha":"` + commit + `","base_sha":"` + other + `","base_ref":"refs/heads/main"}}`,
			status.Heard{Group: commit, GroupBase: other, GroupGone: true, Base: "main"}},
		"a check, again": {"check_suite", `{"action":"rerequested","check_suite":{"head_sha":"` + commit + `"}}`, status.Heard{Again: commit}},
	} {
		if h, heed, err := status.Hear(c.event, []byte(c.body)); err != nil || !heed || h != c.want {
			t.Errorf("%s: heard %+v (%v, %v), want %+v", name, h, heed, err, c.want)
		}
	}
}

const other = "9dcb09b5b57875f334f61aebed695e2e4193db5e"
