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
