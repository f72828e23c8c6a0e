package status_test

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"towpath/internal/testkit/github"
	"towpath/reconcile/rollout"
	"towpath/status"
)

// under is what is under way, as a store that does what store.Store does with words.
type under struct {
	report    rollout.CommitReport
	targets   map[string][]rollout.Target // by deployment
	observing bool

	done  map[string]bool // by key
	words []string
	looks []rollout.ProposalLook
}

func (u *under) Observing(context.Context) (bool, error) { return u.observing, nil }

func (u *under) Report(_ context.Context, _, _, commit string, _ int) (rollout.CommitReport, error) {
	if commit != merged {
		return rollout.CommitReport{Taken: true}, nil
	}
	return u.report, nil
}

func (u *under) Say(_ context.Context, said rollout.Saying) error {
	if u.done[said.Key] {
		return nil
	}
	t, err := said.Find(u.targets[said.Deployment])
	if err != nil {
		return err
	}
	gates, err := said.Gates(t)
	for _, gate := range gates {
		word, _ := said.Word(t, gate, time.Now())
		u.words = append(u.words, strings.TrimSpace(fmt.Sprintf("%s %s %s of %s: %s", word.By, word.Verb, gate, t.Name, word.Reason)))
		u.done[said.Key] = true
	}
	return err
}

func (u *under) CancelOnce(_ context.Context, key, _, deployment, by, reason string) error {
	if !u.done[key] {
		u.done[key] = true
		u.words = append(u.words, fmt.Sprintf("%s cancel %s: %s", by, deployment, reason))
	}
	return nil
}

func (u *under) HoldApplication(_ context.Context, key, _, application string, end bool, by, reason string) error {
	if !u.done[key] {
		u.done[key] = true
		u.words = append(u.words, strings.TrimSpace(fmt.Sprintf("%s holds %s, %v: %s", by, application, !end, reason)))
	}
	return nil
}

func (u *under) LookAtProposals(_ context.Context, looks ...rollout.ProposalLook) error {
	u.looks = append(u.looks, looks...)
	return nil
}

const merged = "1111111111111111111111111111111111111111"

// conversation is a pull request of acme/web that was merged, and what its merge has under way.
type conversation struct {
	*github.GitHub
	t        *testing.T
	under    *under
	listener *status.Listener
	pull     int
}

func converse(t *testing.T, rights github.Rights) *conversation {
	t.Helper()
	c := &conversation{GitHub: github.New(t), t: t}
	file := filepath.Join(t.TempDir(), "key")
	write(t, file, keys()[0])
	c.Repository("acme/web", commit, merged)
	c.App(7, "towpath", &keys()[0].PublicKey)
	c.Install(7, rights, "acme/web")
	app, err := status.NewApp(status.AppConfig{Name: "ours", ID: 7, KeyFile: file, APIURL: c.URL, HTTP: c.Client(), Clock: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	told, err := status.NewGitHub(status.GitHubConfig{App: app})
	if err != nil {
		t.Fatal(err)
	}
	c.pull = c.OpenPull("acme/web", github.Pull{Author: "author", Head: github.Tip{SHA: commit}})
	c.ChangePull("acme/web", c.pull, "closed", func(p *github.Pull) { p.Merged, p.MergedAs, p.MergedBy = true, merged, "merger" })
	c.Wrote("acme/web", commit, "writer")
	approval := func(deployment, name string, who ...string) rollout.Target {
		return rollout.Target{Deployment: deployment, Name: name, State: rollout.AwaitingApproval, Digest: "d",
			Waits: []rollout.Wait{{Kind: rollout.WaitApproval, Gate: "beforeDeployment[0]", Needs: "approval of " + name, Who: who}}}
	}
	own := approval("d2", "own")
	own.Waits[0].NotSelf, own.Waits[0].NotBy = true, []string{"42@example.com", "Hidden@users.noreply.github.test"}
	c.under = &under{done: map[string]bool{}, targets: map[string][]rollout.Target{
		"d1": {approval("d1", "staging"), approval("d1", "prod", "sre"), {Deployment: "d1", Name: "qa", State: rollout.Running, Waits: []rollout.Wait{{Kind: rollout.WaitRetry}}}},
		"d2": {approval("d2", "prod", "sre"), own, {Deployment: "d2", Name: "live", State: rollout.Succeeded, Why: "@all is <b>well</b>"}}}}
	for name, id := range map[string]string{"shop": "d1", "cart": "d2"} {
		a := rollout.ApplicationReport{Application: name, Deployment: id, State: rollout.Running}
		for _, target := range c.under.targets[id] {
			a.Targets = append(a.Targets, rollout.TargetReport{Name: target.Name, State: target.State, Why: target.Why, Waits: target.Waits})
		}
		c.under.report.Applications = append(c.under.report.Applications, a)
	}
	slices.SortFunc(c.under.report.Applications, func(a, b rollout.ApplicationReport) int { return strings.Compare(a.Application, b.Application) })
	c.listener = &status.Listener{Forge: told, Acts: c.under, Repository: "acme/web", Places: []status.Place{{Tenant: "main", Source: "web", Branch: "main"}},
		Roles: []status.Role{{Name: "sre", Teams: []string{"acme/ops"}, Users: []string{"sven"}}, {Name: "deployer", Users: []string{"dora"}}, {Name: "web", Teams: []string{"acme/web"}}}, Clock: time.Now}
	for _, login := range []string{"author", "writer", "olga", "sven", "dora", "wim", "merger", "hidden"} {
		c.Role("acme/web", login, "write")
	}
	c.Role("acme/web", "reader", "read")
	c.Role("acme/web", "triager", "triage")
	c.Role("acme/web", "maintainer", "maintain")
	c.Member("acme/ops", "olga", "active")
	c.Member("acme/ops", "wim", "pending")
	c.Member("acme/ops", "author", "active")
	c.Member("acme/web", "wim", "active")
	c.Member("acme/ops", "reader", "active")
	return c
}

// plain is a text of ours as it is read.
func plain(text string) string { return strings.ReplaceAll(text, `\`, "") }

var allRights = github.Rights{"metadata": "read", "pull_requests": "write", "members": "read"}

// say comments as a person, and answers that.
func (c *conversation) say(login, body string) rollout.Reply {
	c.t.Helper()
	reply, err := c.answer(c.Comment("acme/web", c.pull, login, body), body)
	if err != nil {
		c.t.Fatal(err)
	}
	return reply
}

func (c *conversation) answer(id int64, body string) (rollout.Reply, error) {
	return c.listener.Answer(c.t.Context(), rollout.Comment{Pull: rollout.ProposalName{Tenant: "main", Source: "web", Pull: c.pull}, ID: id, Sum: status.Sum(body), Heard: time.Now()})
}

func TestWhoMayDoesWhatIsAskedForAndWhoMayNotIsToldWhy(t *testing.T) {
	t.Parallel()
	for name, a := range map[string]struct {
		login, body string
		words       []string
		signs       string
		text        string // what the reply holds
	}{
		"a member of the team":          {"olga", "/towpath approve shop/prod --reason \"looks good\"", []string{"olga (GitHub) approve beforeDeployment[0] of prod: looks good"}, "+1", ""},
		"who is named for the role":     {"SVEN", "/towpath approve shop/prod", []string{"sven (GitHub) approve beforeDeployment[0] of prod:"}, "+1", ""},
		"one who was only invited":      {"wim", "/towpath approve shop/prod", nil, "-1", "`/towpath approve shop/prod`: beforeDeployment[0] of target prod needs one of the roles sre; wim (GitHub) holds web"},
		"one without a role":            {"dora", "/towpath reject shop/prod", nil, "-1", "needs one of the roles sre; dora (GitHub) holds deployer"},
		"a gate without roles":          {"maintainer", "/towpath approve staging", []string{"maintainer (GitHub) approve beforeDeployment[0] of staging:"}, "+1", ""},
		"all, as far as one may":        {"wim", "/towpath approve all", []string{"wim (GitHub) approve beforeDeployment[0] of own:", "wim (GitHub) approve beforeDeployment[0] of staging:"}, "-1 +1", "needs one of the roles sre"},
		"a target of two applications":  {"olga", "/towpath approve prod", nil, "-1", "prod is a target of several applications; name one of cart/prod, shop/prod"},
		"no target where many wait":     {"olga", "/towpath approve", nil, "-1", "4 targets wait for that: name one of"},
		"a target that there is not":    {"olga", "/towpath approve prood", nil, "-1", "this merge has no target prood; it has cart/prod, cart/own"},
		"a target that waits for none":  {"olga", "/towpath approve live", nil, "-1", "waits for nothing that could be approved: it is SUCCEEDED"},
		"the author's own":              {"author", "/towpath approve own", nil, "-1", "may not be given by author (GitHub), who opened the pull request (allowSelfApproval: false)"},
		"who merged it":                 {"merger", "/towpath approve own", nil, "-1", "may not be given by merger (GitHub), who merged the pull request"},
		"who wrote a commit":            {"writer", "/towpath approve own", nil, "-1", "may not be given by writer (GitHub), who wrote a commit of the pull request"},
		"who hides their address":       {"hidden", "/towpath approve own", nil, "-1", "may not be given by hidden (GitHub), whose own change it is"},
		"the author's, rejected":        {"author", "/towpath reject own --reason bad", []string{"author (GitHub) reject beforeDeployment[0] of own: bad"}, "+1", ""},
		"the author's, where it may be": {"author", "/towpath approve shop/prod", []string{"author (GitHub) approve beforeDeployment[0] of prod:"}, "+1", ""},
		"others'":                       {"olga", "/towpath approve own", []string{"olga (GitHub) approve beforeDeployment[0] of own:"}, "+1", ""},
		"one who may read":              {"reader", "/towpath approve shop/prod\n/towpath nonsense", nil, "confused", ""},
		"one who may triage":            {"triager", "/towpath approve staging", nil, "confused", ""},
		"a stranger":                    {"stranger", "/towpath help", nil, "confused", ""},
		"a retry by a deployer":         {"dora", "/towpath retry qa", []string{"dora (GitHub) retry  of qa:"}, "+1", ""},
		"a retry by another":            {"olga", "/towpath retry qa", nil, "-1", "retry needs the role deployer; olga (GitHub) holds sre"},
		"a skip without a reason":       {"dora", "/towpath skip staging", nil, "-1", "needs a reason"},
		"an end":                        {"dora", "/towpath cancel shop --reason \"too late\"", []string{"dora (GitHub) cancel d1: too late"}, "+1", ""},
		"an end of all":                 {"dora", "/towpath cancel all", []string{"dora (GitHub) cancel d2:", "dora (GitHub) cancel d1:"}, "+1", ""},
		"an end of what is several":     {"dora", "/towpath cancel", nil, "-1", "this merge is about 2 applications: name one of them, or all"},
		"a halt":                        {"dora", "/towpath pause shop --reason \"the database moves\"", []string{"dora (GitHub) holds shop, true: the database moves"}, "+1", ""},
		"a halt without a reason":       {"dora", "/towpath pause shop", nil, "-1", "what is halted needs a reason"},
		"a halt by another":             {"olga", "/towpath pause shop --reason x", nil, "-1", "pause needs the role deployer"},
		"the end of a halt":             {"dora", "/towpath resume shop", []string{"dora (GitHub) holds shop, false:"}, "+1", ""},
		"help":                          {"wim", "/towpath help", nil, "eyes", "| `approve`, `reject` |"},
		"how it stands":                 {"wim", "/towpath status", nil, "eyes", "- `cart/live`: SUCCEEDED; \u200b\\@\u200ball is \\<b\\>"},
		"a slip of the pen":             {"wim", "/towpath aprove staging", nil, "-1", "`/towpath aprove staging`: there is no verb aprove; did you mean approve?"},
		"forged Markdown":               {"wim", "/towpath approve `@everyone`<img>", nil, "-1", "this merge has no target \\`\u200b\\@\u200beveryone\\`\\<img\\>"},
		"more than five":                {"wim", strings.Repeat("/towpath help\n", 6), nil, "eyes -1", "of one comment 5 commands are done"},
		"good ones beside wrong ones":   {"wim", "/towpath approve staging\n/towpath nonsense", []string{"wim (GitHub) approve beforeDeployment[0] of staging:"}, "+1 -1", "there is no verb nonsense"},
		"a plan of what is merged":      {"wim", "/towpath plan", nil, "-1", "the pull request is closed"},
		"nothing":                       {"wim", "nice work", nil, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := converse(t, allRights)
			reply := c.say(a.login, a.body)
			var words []string
			for _, word := range c.under.words {
				words = append(words, strings.TrimSpace(word))
			}
			if !slices.Equal(words, a.words) {
				t.Errorf("said was %q, want %q", words, a.words)
			}
			if got := strings.Join(reply.Signs, " "); got != a.signs {
				t.Errorf("signs %q, want %q", got, a.signs)
			}
			if a.text == "" && reply.Text != "" || !strings.Contains(reply.Text, a.text) && !strings.Contains(plain(reply.Text), a.text) {
				t.Errorf("the reply is %q, want it to hold %q", reply.Text, a.text)
			}
		})
	}
}

func TestWhatWasDoneForACommentIsNotDoneAgain(t *testing.T) {
	t.Parallel()
	c := converse(t, allRights)
	const body = "/towpath approve staging\n/towpath cancel all"
	c.listener.Roles[1].Users = []string{"wim"}
	id := c.Comment("acme/web", c.pull, "wim", body)
	for range 2 { // the process died before it could record the answer
		if reply, err := c.answer(id, body); err != nil || strings.Join(reply.Signs, " ") != "+1" || reply.Text != "" {
			t.Errorf("the reply is %+v, %v", reply, err)
		}
		for _, targets := range c.under.targets {
			targets[0].Waits = nil // what was waited for has come
		}
	}
	if len(c.under.words) != 3 {
		t.Errorf("said was %q", c.under.words)
	}
}

func TestACommentThatIsNotAsItWasOrNotAPersonsIsNotObeyed(t *testing.T) {
	t.Parallel()
	const body = "/towpath approve staging"
	t.Run("changed by another", func(t *testing.T) {
		c := converse(t, allRights)
		now := time.Now()
		c.Clock(func() time.Time { return now })
		id := c.Comment("acme/web", c.pull, "wim", "/towpath reject staging")
		c.EditComment("acme/web", id, "dora", body) // within the second
		if reply, err := c.answer(id, "/towpath reject staging"); err != nil || !strings.Contains(plain(reply.Text), "the comment was changed after it was written") || len(c.under.words) != 0 {
			t.Errorf("the reply is %+v, %v; said was %q", reply, err, c.under.words)
		}
	})
	t.Run("changed and changed back", func(t *testing.T) {
		c := converse(t, allRights)
		now := time.Now()
		c.Clock(func() time.Time { return now })
		id := c.Comment("acme/web", c.pull, "wim", body)
		now = now.Add(2 * time.Second)
		c.EditComment("acme/web", id, "wim", body)
		if reply, err := c.answer(id, body); err != nil || !strings.Contains(plain(reply.Text), "was changed") || len(c.under.words) != 0 {
			t.Errorf("the reply is %+v, %v; said was %q", reply, err, c.under.words)
		}
	})
	t.Run("gone", func(t *testing.T) {
		c := converse(t, allRights)
		id := c.Comment("acme/web", c.pull, "wim", body)
		c.DeleteComment("acme/web", id, "wim")
		if reply, err := c.answer(id, body); err != nil || len(reply.Signs) != 0 || len(c.under.words) != 0 {
			t.Errorf("the reply is %+v, %v; said was %q", reply, err, c.under.words)
		}
	})
	t.Run("old", func(t *testing.T) {
		c := converse(t, allRights)
		id := c.Comment("acme/web", c.pull, "wim", body)
		c.listener.Clock = func() time.Time { return time.Now().Add(31 * time.Minute) }
		if reply, err := c.answer(id, body); err != nil || !strings.Contains(plain(reply.Text), "if it still holds, write it again") || len(c.under.words) != 0 {
			t.Errorf("the reply is %+v, %v; said was %q", reply, err, c.under.words)
		}
	})
	t.Run("our own", func(t *testing.T) {
		c := converse(t, allRights)
		id, err := c.listener.Forge.CreateComment(t.Context(), "acme/web", c.pull, body)
		if err != nil {
			t.Fatal(err)
		}
		if reply, err := c.answer(id, body); err != nil || len(reply.Signs) != 0 || len(c.under.words) != 0 {
			t.Errorf("the reply is %+v, %v; said was %q", reply, err, c.under.words)
		}
	})
	t.Run("while nothing may be touched", func(t *testing.T) {
		c := converse(t, allRights)
		c.under.observing = true
		if reply := c.say("wim", body); !strings.Contains(plain(reply.Text), "observes since its database was lost") || len(c.under.words) != 0 {
			t.Errorf("the reply is %+v; said was %q", reply, c.under.words)
		}
	})
	t.Run("to another branch", func(t *testing.T) {
		c := converse(t, allRights)
		c.listener.Places[0].Branch = "release"
		if reply := c.say("wim", body); len(reply.Signs) != 0 || len(c.under.words) != 0 {
			t.Errorf("the reply is %+v; said was %q", reply, c.under.words)
		}
	})
}

func TestRightsThatCannotBeReadAreNone(t *testing.T) {
	t.Parallel()
	c := converse(t, github.Rights{"metadata": "read", "pull_requests": "write"}) // nothing of members
	reply := c.say("olga", "/towpath approve shop/prod")
	if len(c.under.words) != 0 || !strings.Contains(plain(reply.Text), "olga (GitHub) holds no role") || !strings.Contains(plain(reply.Text), "members: read") {
		t.Errorf("the reply is %+v; said was %q", reply, c.under.words)
	}
	c.Always(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	})
	const body = "/towpath approve staging"
	if reply, err := c.answer(c.Comment("acme/web", c.pull, "wim", body), body); err == nil || len(reply.Signs) != 0 || len(c.under.words) != 0 {
		t.Errorf("while GitHub is away: %+v, %v", reply, err)
	}
}

func TestTheHeadOfAForkIsReadOnceItIsNamedWhole(t *testing.T) {
	t.Parallel()
	c := converse(t, allRights)
	c.Repository("stranger/web", commit)
	c.pull = c.OpenPull("acme/web", github.Pull{Author: "stranger", Head: github.Tip{Repository: "stranger/web", SHA: commit}})
	if reply := c.say("wim", "/towpath plan"); !strings.Contains(plain(reply.Text), "/towpath plan "+commit) || len(c.under.looks) != 0 {
		t.Errorf("the reply is %+v", reply)
	}
	if reply := c.say("wim", "/towpath plan "+merged); !strings.Contains(plain(reply.Text), "is not the head of the pull request") || len(c.under.looks) != 0 {
		t.Errorf("the reply is %+v", reply)
	}
	if reply := c.say("stranger", "/towpath plan "+commit); strings.Join(reply.Signs, " ") != "confused" || len(c.under.looks) != 0 {
		t.Errorf("the author's own naming: %+v", reply)
	}
	reply := c.say("wim", "/towpath plan "+commit)
	if want := (rollout.ProposalLook{ProposalName: rollout.ProposalName{Tenant: "main", Source: "web", Pull: c.pull}, Anew: true, Named: commit}); strings.Join(reply.Signs, " ") != "eyes" || len(c.under.looks) != 1 || c.under.looks[0] != want {
		t.Errorf("the reply is %+v, looked at is %+v", reply, c.under.looks)
	}
	if reply := c.say("wim", "/towpath approve all"); !strings.Contains(plain(reply.Text), "the pull request is not merged") {
		t.Errorf("the reply is %+v", reply)
	}
}
