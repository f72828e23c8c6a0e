package status_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"

	"towpath/deployment"
	"towpath/internal/testkit/github"
	"towpath/reconcile/rollout"
	"towpath/status"
	"towpath/store"
)

const token = "ghp_s3cret"

// telling is a real store whose changes are told to a GitHub, all in virtual time.
type telling struct {
	*testing.T
	store *store.Store
	hub   *github.GitHub
	log   *bytes.Buffer
	began time.Time
	stop  func() // ends the teller that runs
}

// tells runs a test in virtual time. Sources repo and web are of the repositories acme/repo and acme/web, and share one token.
func tells(t *testing.T, test func(w *telling)) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := &telling{T: t, hub: github.New(t), log: &bytes.Buffer{}, began: time.Now(), stop: func() {}}
		log := logrus.New()
		log.SetOutput(w.log)
		var err error
		w.store, err = store.Open(t.Context(), store.Config{URL: "sqlite:" + filepath.Join(dir, "towpath.db"), Keys: [][]byte{bytes.Repeat([]byte("k"), 32)}, Log: logrus.NewEntry(log)})
		w.must(err)
		defer w.store.Close()
		w.store.TellAbout([]string{"repo", "web"})
		for _, name := range []string{"acme/repo", "acme/web"} {
			w.hub.Repository(name)
			w.hub.Token(token, name, github.Rights{"statuses": "write"})
		}
		test(w)
		w.stop()
		if strings.Contains(w.log.String(), token) {
			t.Errorf("the log shows the token:\n%s", w.log)
		}
	})
}

func (w *telling) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// teller is one that is set up as the controller does it.
func (w *telling) teller(outbox status.Outbox, budget status.Budget) *status.Teller {
	w.Helper()
	client := w.hub.Client()
	client.Timeout = 30 * time.Second
	forge, err := status.NewGitHub(status.GitHubConfig{APIURL: w.hub.URL, Token: func() (string, error) { return token, nil }, HTTP: client, Clock: time.Now})
	w.must(err)
	log := logrus.New()
	log.SetOutput(w.log)
	return status.New(status.Config{Outbox: outbox, Forge: forge, Repositories: map[string]string{"repo": "acme/repo", "web": "acme/web"}, Budget: budget, Clock: time.Now,
		Link: func(tenant, id string) string { return "https://towpath.example.com/" + tenant + "/" + id }, Log: logrus.NewEntry(log)})
}

// run starts tellers, and ends those that ran before.
func (w *telling) run(tellers ...*status.Teller) {
	w.stop()
	var all status.Tellers
	all.Use(w.Context(), tellers)
	w.stop = func() { all.Use(context.Background(), nil) }
}

// start begins a deployment of an application at a commit of a source, to targets.
func (w *telling) start(source, application, commit string, targets ...string) {
	w.Helper()
	w.hub.Repository("acme/"+source, commit)
	start := rollout.Start{ID: application + "-" + commit, Tenant: "main", Application: application, At: time.Now(), Trigger: rollout.Trigger{Kind: "push", By: "ann"},
		Origin: rollout.Origin{Source: source, Path: application + "/towpath.yaml", Commit: commit}}
	for _, name := range targets {
		start.Targets = append(start.Targets, rollout.StartTarget{Name: name, Account: name, Digest: commit, Manifests: commit, Way: rollout.Way{Timeout: time.Minute}, Changed: true})
	}
	w.must(w.store.Start(w.Context(), start, nil))
}

// move takes a target of an application to a state, as a lane's run does.
func (w *telling) move(application, target string, state rollout.State, why string) {
	w.Helper()
	lanes, err := w.store.Lanes(w.Context(), "main", application)
	w.must(err)
	id := lanes[slices.IndexFunc(lanes, func(l rollout.LaneState) bool { return l.Target == target })].ID
	lease, err := w.store.Claim(w.Context(), id, time.Minute)
	w.must(err)
	lane, err := w.store.Lane(w.Context(), id)
	w.must(err)
	d := rollout.Decision{Target: *lane.Current, Changed: true}
	d.Target.State, d.Target.Why = state, why
	if state.Final() {
		d.Target.Phase = rollout.Finished
	}
	w.must(w.store.Save(w.Context(), lease, d))
	lane, err = w.store.Lane(w.Context(), id)
	w.must(err)
	_, err = w.store.Rest(w.Context(), lease, lane.Seq, time.Time{})
	w.must(err)
}

// after lets virtual time pass, and all that happens meanwhile.
func (w *telling) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// told are all statuses of a commit, oldest first, as "context state: description".
func (w *telling) told(repository, commit string) (lines []string) {
	for _, s := range w.hub.Statuses(repository, commit) {
		lines = append(lines, fmt.Sprintf("%s %s: %s", s.Context, s.State, s.Description))
	}
	return lines
}

func (w *telling) expectTold(repository, commit string, want ...string) {
	w.Helper()
	if got := w.told(repository, commit); !slices.Equal(got, want) {
		w.Errorf("%s at %s was told\n\t%s\nwant\n\t%s", repository, commit, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// requests are the requests so far, as "second method status".
func (w *telling) requests() (lines []string) {
	for _, r := range w.hub.Requests() {
		lines = append(lines, fmt.Sprintf("%d %s %d", int(r.At.Sub(w.began).Seconds()), r.Method, r.Status))
	}
	return lines
}

// untold is how many commits of a source wait to be told about, and why.
func (w *telling) untold(source string) store.Untold {
	w.Helper()
	w.must(w.store.SourceSeen(w.Context(), "main", source, "another", nil))
	sources, err := w.store.Sources(w.Context(), "main")
	w.must(err)
	return sources[slices.IndexFunc(sources, func(v store.SourceView) bool { return v.Name == source })].Untold
}

const pods = "pods of web start: "

func TestManyChangesAreOneMessageAndEndsComeAtOnce(t *testing.T) {
	tells(t, func(w *telling) {
		w.start("repo", "shop", "c1", "staging", "prod")
		for i := range 10 {
			w.move("shop", "staging", rollout.Running, fmt.Sprintf("%s%d of 10", pods, i))
		}
		teller := w.teller(w.store, status.GitHubBudget)
		w.run(teller)
		w.after(10 * time.Second)
		want := []string{"towpath/shop pending: #1: staging: rolling out: " + pods + "9 of 10", "towpath/shop/staging pending: rolling out: " + pods + "9 of 10", "towpath/shop/prod pending: queued"}
		w.expectTold("acme/repo", "c1", want...)

		for i := range 5 { // too soon after the last one
			w.move("shop", "staging", rollout.Running, fmt.Sprintf("%s%d of 12", pods, i))
			teller.Wake()
		}
		synctest.Wait()
		w.expectTold("acme/repo", "c1", want...)
		w.after(10 * time.Second)
		want = append(want, "towpath/shop pending: #1: staging: rolling out: "+pods+"4 of 12", "towpath/shop/staging pending: rolling out: "+pods+"4 of 12")
		w.expectTold("acme/repo", "c1", want...)

		w.move("shop", "staging", rollout.Succeeded, "")
		teller.Wake()
		w.after(time.Second)
		want = append(want, "towpath/shop/staging success: live")
		w.expectTold("acme/repo", "c1", want...)
		w.move("shop", "prod", rollout.RolledBack, "pods of web crash: exit code 1; held at #1")
		teller.Wake()
		w.after(3 * time.Second)
		want = append(want, "towpath/shop failure: #1: 1 of 2 live; prod: rolled back: pods of web crash: exit code 1; held at #1", "towpath/shop/prod failure: rolled back: pods of web crash: exit code 1; held at #1")
		w.expectTold("acme/repo", "c1", want...)
		w.after(2 * time.Hour) // nothing is repeated
		w.expectTold("acme/repo", "c1", want...)
		if shown := w.hub.Shown("acme/repo", "c1")["towpath/shop/prod"]; shown.TargetURL != "https://towpath.example.com/main/shop-c1" {
			w.Errorf("the status links to %q", shown.TargetURL)
		}
	})
}

func TestFilesThatAreRefusedAndVeryManyApplicationsAreToldOnce(t *testing.T) {
	tells(t, func(w *telling) {
		w.hub.Repository("acme/repo", "c1", "c2")
		w.must(w.store.SourceSeen(w.Context(), "main", "repo", "c1", nil))
		record := func(application, commit string, problems ...deployment.Problem) {
			w.must(w.store.Record(w.Context(), rollout.FileRecord{Tenant: "main", Source: "repo", Commit: commit, Path: application + "/towpath.yaml", Application: application, Problems: problems}))
		}
		long := strings.Repeat("very ", 40) + "long"
		record("web", "c1", deployment.Problem{File: "web/towpath.yaml", Line: 3, Column: 5, Severity: deployment.Error, Text: "unknown key " + long})
		record("same", "c1")
		teller := w.teller(w.store, status.GitHubBudget)
		w.run(teller)
		w.after(time.Minute)
		w.expectTold("acme/repo", "c1") // the commit is still being taken in
		w.must(w.store.SourceProcessed(w.Context(), "main", "repo", "c1", ""))
		teller.Wake()
		w.after(3 * time.Second)
		refused := "towpath/web failure: web/towpath.yaml:3:5: unknown key " + long
		w.expectTold("acme/repo", "c1", "towpath/same success: unchanged: the manifests are as they were", strings.TrimSpace(refused[:len("towpath/web failure: ")+139])+"…")

		w.must(w.store.SourceSeen(w.Context(), "main", "repo", "c2", nil))
		for i := range status.MaxApplications + 1 {
			record(fmt.Sprintf("app-%02d", i), "c2")
		}
		w.must(w.store.SourceProcessed(w.Context(), "main", "repo", "c2", ""))
		teller.Wake()
		w.after(3 * time.Second)
		w.expectTold("acme/repo", "c2", "towpath success: 21 applications: 21 unchanged")
	})
}

// The GitHub here takes only a little more than the budget: nothing may be refused, whoever sends and however often they are started.
func TestTheBudgetIsKeptByAllWhoSendInOneName(t *testing.T) {
	tells(t, func(w *telling) {
		w.hub.Limit(github.Limits{Requests: 5000, CreationsAMinute: 7, CreationsAnHour: 21, WaitAfterRefusing: time.Minute})
		budget := status.Budget{Pause: time.Second, Minute: 6, Hour: 20}
		w.run(w.teller(w.store, budget), w.teller(w.store, budget))
		for i := range 12 {
			application := fmt.Sprintf("app%02d", i)
			w.start([]string{"repo", "web"}[i%2], application, "c"+application, "prod")
			w.move(application, "prod", rollout.Succeeded, "")
		}
		w.after(20 * time.Minute)
		w.run(w.teller(w.store, budget), w.teller(w.store, budget)) // started anew, they do not begin with a full budget
		w.after(3 * time.Hour)
		for i, r := range w.hub.Requests() {
			if r.Status != http.StatusCreated {
				w.Errorf("request %d at %s was answered with %d", i, r.At.Sub(w.began), r.Status)
			}
		}
		for i := range 12 {
			application := fmt.Sprintf("app%02d", i)
			shown := w.hub.Shown("acme/"+[]string{"repo", "web"}[i%2], "c"+application)
			if shown["towpath/"+application].State != "success" || shown["towpath/"+application+"/prod"].State != "success" {
				w.Errorf("%s is shown as %v", application, shown)
			}
		}
		sent := w.hub.Requests()
		slices.SortFunc(sent, func(a, b github.Request) int { return a.At.Compare(b.At) })
		for i := 1; i < len(sent); i++ {
			if pause := sent[i].At.Sub(sent[i-1].At); pause < time.Second {
				w.Errorf("requests %d and %d are %s apart", i-1, i, pause)
			}
		}
	})
}

// What GitHub asks for holds for all that is sent in that name, of whichever repository.
func TestGitHubIsLeftAloneForAsLongAsItAsks(t *testing.T) {
	for name, c := range map[string]struct {
		faults []github.Fault
		pauses [][2]int // seconds between the requests, at least and at most
	}{
		"Retry-After":                     {[]github.Fault{github.TooMuch(403, 90*time.Second)}, [][2]int{{90, 91}}},
		"429 with Retry-After":            {[]github.Fault{github.TooMuch(429, 10*time.Second)}, [][2]int{{10, 11}}},
		"a limit that says no time":       {[]github.Fault{github.TooMuch(403, 0)}, [][2]int{{60, 61}}},
		"the same again and again":        {[]github.Fault{github.TooMuch(429, 5*time.Second), github.TooMuch(429, 5*time.Second), github.TooMuch(429, 5*time.Second)}, [][2]int{{5, 6}, {45, 75}, {90, 150}}},
		"the hour is used up":             {[]github.Fault{github.Exhausted(403, time.Date(2000, 1, 1, 0, 20, 0, 0, time.UTC))}, [][2]int{{1199, 1201}}},
		"an hour that ended, it says":     {[]github.Fault{github.Exhausted(429, time.Date(1999, 12, 31, 23, 0, 0, 0, time.UTC))}, [][2]int{{45, 75}}},
		"trouble":                         {[]github.Fault{github.Broken(502), github.Broken(503), github.Broken(500), github.Broken(504), github.Broken(502), github.Broken(502)}, [][2]int{{45, 75}, {90, 150}, {180, 300}, {360, 600}, {675, 1125}, {675, 1125}}},
		"a connection that is cut":        {[]github.Fault{github.Cut}, [][2]int{{45, 75}}},
		"an answer that does not come":    {[]github.Fault{github.Slow(time.Hour)}, [][2]int{{75, 105}}},
		"an answer that nobody can read":  {[]github.Fault{github.Broken(200)}, [][2]int{{45, 75}}},
		"a token that is no longer valid": {[]github.Fault{github.Refused(401, "Bad credentials")}, [][2]int{{45, 75}}},
	} {
		t.Run(name, func(t *testing.T) {
			tells(t, func(w *telling) {
				w.start("repo", "shop", "c1", "prod")
				w.start("web", "web", "c2", "prod")
				w.hub.Next(c.faults...)
				w.run(w.teller(w.store, status.GitHubBudget))
				w.after(5 * time.Second)
				if c.pauses[0][0] >= 10 && w.untold("repo").Failure == "" && w.untold("web").Failure == "" && len(w.hub.Requests()) > 0 {
					w.Errorf("nothing says why it is not told; requests: %v", w.requests())
				}
				w.after(2 * time.Hour)
				all := w.hub.Requests()
				for i, pause := range c.pauses {
					if got := int(all[i+1].At.Sub(all[i].At).Seconds()); got < pause[0] || got > pause[1] {
						w.Errorf("pause %d took %d s, want %d to %d; requests: %v", i, got, pause[0], pause[1], w.requests())
					}
				}
				w.expectTold("acme/repo", "c1", "towpath/shop pending: #1: prod: queued", "towpath/shop/prod pending: queued")
				w.expectTold("acme/web", "c2", "towpath/web pending: #1: prod: queued", "towpath/web/prod pending: queued")
				if u := w.untold("repo"); u != (store.Untold{}) {
					w.Errorf("when all is told, it says %+v", u)
				}
			})
		})
	}
}

// What cannot be told is kept with its reason, is tried again when there is news, and holds up nothing else.
func TestWhatIsRefusedIsParkedWithItsReason(t *testing.T) {
	const shop = "the status towpath/shop of acme/repo at c1: GitHub answers "
	for name, c := range map[string]struct {
		refuse, mend func(w *telling)
		tries        int
		says         string
	}{
		"a token that may only read": {func(w *telling) { w.hub.Token(token, "acme/repo", github.Rights{"statuses": "read"}) }, func(w *telling) { w.hub.Token(token, "acme/repo", github.Rights{"statuses": "write"}) },
			1, shop + "403: Resource not accessible by personal access token; may the token write commit statuses of this repository?"},
		"a repository that the token may not see": {func(w *telling) { w.hub.Token(token, "acme/repo", nil) }, func(w *telling) { w.hub.Token(token, "acme/repo", github.Rights{"statuses": "write"}) },
			1, shop + "404: Not Found; may the token write commit statuses of this repository?"},
		"a repository with a new name": {func(w *telling) { w.hub.Next(github.Moved(301, "https://api.github.test/repositories/7/statuses/c1")) }, func(*telling) {},
			1, shop + "301: Moved Permanently; if the repository has a new name, write that into github.repository"},
		"a commit that GitHub does not know": {func(w *telling) { w.hub.Forget("acme/repo", "c1") }, func(w *telling) { w.hub.Repository("acme/repo", "c1") },
			2, shop + "422: Validation Failed; sha custom No commit found for SHA: c1"},
		"a repository that is gone": {func(w *telling) { w.hub.Next(github.Refused(410, "Gone")) }, func(*telling) {}, 1, shop + "410: Gone"},
	} {
		t.Run(name, func(t *testing.T) {
			tells(t, func(w *telling) {
				w.start("repo", "shop", "c1", "prod")
				c.refuse(w)
				teller := w.teller(w.store, status.GitHubBudget)
				w.run(teller)
				w.after(2 * time.Hour)
				if n := len(w.hub.Requests()); n != c.tries {
					w.Errorf("tried %d times in two hours, want %d: %v", n, c.tries, w.requests())
				}
				if u := w.untold("repo"); u != (store.Untold{Commits: 1, Failure: c.says}) {
					w.Errorf("the source says %+v\nwant %s", u, c.says)
				}
				w.start("web", "web", "c2", "prod")
				teller.Wake()
				w.after(5 * time.Second)
				w.expectTold("acme/web", "c2", "towpath/web pending: #1: prod: queued", "towpath/web/prod pending: queued")
				c.mend(w)
				w.move("shop", "prod", rollout.Succeeded, "")
				teller.Wake()
				w.after(5 * time.Second)
				w.expectTold("acme/repo", "c1", "towpath/shop success: #1: live on prod", "towpath/shop/prod success: live")
				if u := w.untold("repo"); u != (store.Untold{}) {
					w.Errorf("when it is told, it says %+v", u)
				}
			})
		})
	}
}

func TestOneStatusThatIsRefusedKeepsNoOtherBack(t *testing.T) {
	tells(t, func(w *telling) {
		w.start("repo", "shop", "c1", "prod")
		w.move("shop", "prod", rollout.Succeeded, "")
		for range 1000 { // by an installation that was here before
			w.hub.Tell("acme/repo", "c1", github.Status{Context: "Towpath/Shop", State: "pending"})
		}
		w.run(w.teller(w.store, status.GitHubBudget))
		w.after(time.Hour)
		if shown := w.hub.Shown("acme/repo", "c1"); shown["towpath/shop/prod"].State != "success" {
			w.Errorf("shown is %v", shown)
		}
		if u := w.untold("repo"); !strings.Contains(u.Failure, "the status towpath/shop of acme/repo at c1: GitHub answers 422: Validation Failed; context custom This SHA and context has reached the maximum") {
			w.Errorf("the source says %+v", u)
		}
	})
}

// A write whose answer never came is looked up before anything is written again.
func TestNothingIsToldTwiceWhenAnAnswerIsLost(t *testing.T) {
	for name, c := range map[string]struct {
		faults   []github.Fault
		requests string
	}{
		"the answer is lost":                       {[]github.Fault{github.Unanswered}, "POST 0, GET 200, POST 201"},
		"the second answer is lost":                {[]github.Fault{github.None, github.Unanswered}, "POST 201, POST 0, GET 200"},
		"the look-up fails too":                    {[]github.Fault{github.Unanswered, github.Broken(502)}, "POST 0, GET 502, GET 200, POST 201"},
		"the look-up is limited":                   {[]github.Fault{github.Unanswered, github.TooMuch(403, time.Minute)}, "POST 0, GET 403, GET 200, POST 201"},
		"the write did not arrive":                 {[]github.Fault{github.Cut}, "POST 0, GET 200, POST 201, POST 201"},
		"all answers are lost, one after another":  {[]github.Fault{github.Unanswered, github.None, github.Unanswered}, "POST 0, GET 200, POST 0, GET 200"},
		"GitHub fails after it did what was asked": {[]github.Fault{github.DoneBut(502)}, "POST 502, GET 200, POST 201"},
	} {
		t.Run(name, func(t *testing.T) {
			tells(t, func(w *telling) {
				w.start("repo", "shop", "c1", "prod")
				w.move("shop", "prod", rollout.Succeeded, "")
				w.hub.Next(c.faults...)
				w.run(w.teller(w.store, status.GitHubBudget))
				w.after(2 * time.Hour)
				w.expectTold("acme/repo", "c1", "towpath/shop success: #1: live on prod", "towpath/shop/prod success: live")
				var got []string
				for _, r := range w.hub.Requests() {
					got = append(got, fmt.Sprint(r.Method, " ", r.Status))
				}
				if strings.Join(got, ", ") != c.requests {
					w.Errorf("requests: %s, want %s", strings.Join(got, ", "), c.requests)
				}
			})
		})
	}
}

// dying is an outbox in a process that dies around one of the times that a message is given back.
type dying struct {
	*store.Store
	at    int  // which of them, from 1
	after bool // it is still recorded
	died  chan struct{}
}

func (d *dying) around(record func() error) error {
	if d.at--; d.at > 0 {
		return record()
	}
	if d.at == 0 {
		defer close(d.died)
		if d.after {
			return record()
		}
	}
	return errors.New("killed")
}

func (d *dying) Told(ctx context.Context, m rollout.Message, sent map[string]rollout.Publication) error {
	return d.around(func() error { return d.Store.Told(ctx, m, sent) })
}

func (d *dying) TellLater(ctx context.Context, m rollout.Message, sent map[string]rollout.Publication, delay rollout.Delay) error {
	return d.around(func() error { return d.Store.TellLater(ctx, m, sent, delay) })
}

func (d *dying) Park(ctx context.Context, m rollout.Message, sent map[string]rollout.Publication, why string) error {
	return d.around(func() error { return d.Store.Park(ctx, m, sent, why) })
}

func TestAProcessThatDiesBetweenTellingAndRecordingTellsNothingTwice(t *testing.T) {
	for name, c := range map[string]struct {
		faults []github.Fault
		at     int
		after  bool
	}{
		"before it is recorded":                     {nil, 1, false},
		"after it is recorded":                      {nil, 1, true},
		"before a lost answer is recorded":          {[]github.Fault{github.Unanswered}, 1, false},
		"after a lost answer is recorded":           {[]github.Fault{github.None, github.Unanswered}, 1, true},
		"before the rest is recorded":               {[]github.Fault{github.Unanswered}, 2, false},
		"before a refusal in the middle is noted":   {[]github.Fault{github.None, github.TooMuch(403, time.Minute)}, 1, false},
		"before trouble with the look-up is noted":  {[]github.Fault{github.Unanswered, github.Broken(502)}, 2, false},
		"before a status that is unfit is recorded": {[]github.Fault{github.None, github.Refused(422, "no")}, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			tells(t, func(w *telling) {
				w.start("repo", "shop", "c1", "prod")
				w.move("shop", "prod", rollout.Running, pods+"1 of 2")
				w.hub.Next(c.faults...)
				killed := &dying{w.store, c.at, c.after, make(chan struct{})}
				w.run(w.teller(killed, status.GitHubBudget))
				<-killed.died
				w.run(w.teller(w.store, status.GitHubBudget)) // of another replica: nobody frees the claim
				w.after(10 * time.Minute)
				told := []string{"towpath/shop pending: #1: prod: rolling out: " + pods + "1 of 2", "towpath/shop/prod pending: rolling out: " + pods + "1 of 2"}
				w.expectTold("acme/repo", "c1", told...)
				if u := w.untold("repo"); u != (store.Untold{}) {
					w.Errorf("told, but the source says %+v", u)
				}
				w.move("shop", "prod", rollout.Succeeded, "")
				w.after(5 * time.Minute)
				w.expectTold("acme/repo", "c1", append(told, "towpath/shop success: #1: live on prod", "towpath/shop/prod success: live")...)
			})
		})
	}
}

func TestAControllerThatStopsInTheMiddleGoesOnWhereItWas(t *testing.T) {
	tells(t, func(w *telling) {
		w.start("repo", "shop", "c1", "a", "b", "c")
		w.run(w.teller(w.store, status.Budget{Pause: 3 * time.Second, Minute: 60, Hour: 400}))
		w.after(4 * time.Second) // two are sent
		w.run(w.teller(w.store, status.GitHubBudget))
		w.after(time.Minute)
		w.expectTold("acme/repo", "c1", "towpath/shop pending: #1: a: queued", "towpath/shop/a pending: queued", "towpath/shop/b pending: queued", "towpath/shop/c pending: queued")
	})
}

func TestOnlyEndsAreToldWhenTheHourIsNearlyUsedUp(t *testing.T) {
	tells(t, func(w *telling) {
		budget := status.Budget{Pause: time.Second, Minute: 60, Hour: 10}
		teller := w.teller(w.store, budget)
		w.run(teller)
		w.start("repo", "shop", "c1", "a", "b", "c", "d", "e", "f", "g", "h") // nine statuses
		teller.Wake()
		w.after(30 * time.Second)
		if n := len(w.told("acme/repo", "c1")); n != 9 {
			w.Fatalf("told %d, want 9: %v", n, w.requests())
		}
		w.move("shop", "a", rollout.Running, pods+"1 of 2")
		w.after(10 * time.Minute)
		w.move("shop", "b", rollout.Succeeded, "")
		teller.Wake()
		w.after(time.Second)
		if got := w.told("acme/repo", "c1")[9:]; !slices.Equal(got, []string{"towpath/shop/b success: live"}) {
			w.Errorf("told in a scarce hour: %v", got)
		}
		w.after(time.Hour)
		if shown := w.hub.Shown("acme/repo", "c1"); shown["towpath/shop/a"].State != "pending" || !strings.Contains(shown["towpath/shop"].Description, pods+"1 of 2") {
			w.Errorf("when the hour is over, shown is %v", shown)
		}
	})
}
