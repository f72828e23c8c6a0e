package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"towpath/deployment"
	"towpath/internal/testkit/postgres"
	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// The suite runs on both databases.
func TestSQLite(t *testing.T) {
	suite(t, func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "towpath.db") })
}

func TestPostgreSQL(t *testing.T) {
	server := postgres.Start(t)
	suite(t, func(t *testing.T) string { return server.Database(t) })
}

var testKey = []byte("0123456789abcdef0123456789abcdef")

func quietLog() *logrus.Entry {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return logrus.NewEntry(log)
}

func open(t *testing.T, url string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{URL: url, Keys: [][]byte{testKey}, Log: quietLog()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func suite(t *testing.T, url func(t *testing.T) string) {
	for name, test := range map[string]func(*testing.T, *Store, string){
		"who has an object is known":                 owners,
		"an application is released by whoever asks": releases,
		"history is a chain":                         history,
		"a lost database is observed":                observes,
		"the outbox coalesces":                       outbox,
		"a message is claimed by one":                claims,
		"a delayed message comes early with news":    newsComeEarly,
		"a commit is reported whole":                 report,
		"tokens are kept as hashes":                  tokens,
		"manifests are sealed":                       sealed,
		"a delivery counts once":                     deliveries,
		"one look at an App's deliveries at a time":  looks,
		"wakes reach their handlers":                 wakes,
		"proposals are looked at, recorded and told": proposals,
		"comments are heard once and answered":       comments,
		"sources remember how far they are":          sources,
		"policy files are kept":                      policyFiles,
		"issuer's keys and clients":                  issuerRows,
		"who reads on misses no event":               readsOn,
		"a request sent again is known":              attempts,
		"agents come and go":                         agents,
		"replicas tell each other of sessions":       replicas,
		"history tells which lanes moved":            lanesMoved,
		"tokens are listed and revoked":              listed,
		"what an operator counts":                    census,
		"ways into clusters end":                     clusterPreviews,
		"ended previews are kept for a month":        endedPreviews,
		"opening again changes nothing":              reopens,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := url(t)
			test(t, open(t, at), at)
		})
	}
}

var when = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

func begin(id string, targets ...rollout.StartTarget) rollout.Start {
	return rollout.Start{ID: id, Tenant: "main", Application: "shop", At: when, Origin: rollout.Origin{Source: "repo", Path: "towpath.yaml", Commit: id}, Trigger: rollout.Trigger{Kind: "push", By: "ann"}, Targets: targets}
}

func moving(name, manifests string, dependsOn ...string) rollout.StartTarget {
	return rollout.StartTarget{Name: name, Account: name, Digest: "promise-" + manifests, Manifests: manifests, Way: rollout.Way{DependsOn: dependsOn, Timeout: time.Minute}, Changed: true}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func laneOf(t *testing.T, s *Store, target string) int64 {
	t.Helper()
	lanes, err := s.Lanes(t.Context(), "main", "shop")
	must(t, err)
	for _, l := range lanes {
		if l.Target == target {
			return l.ID
		}
	}
	t.Fatalf("no lane %s", target)
	return 0
}

// finish ends a lane's current target in a state, as a run would.
func finish(t *testing.T, s *Store, target string, state rollout.State) {
	t.Helper()
	id := laneOf(t, s, target)
	lease, err := s.Claim(t.Context(), id, time.Minute)
	must(t, err)
	lane, err := s.Lane(t.Context(), id)
	must(t, err)
	d := rollout.Decision{Target: *lane.Current, Changed: true}
	d.Target.State, d.Target.Phase = state, rollout.Finished
	if state == rollout.Succeeded {
		d.Good = &rollout.Release{Deployment: d.Target.Deployment, Number: d.Target.Number, Manifests: d.Target.Manifests, Digest: d.Target.Digest}
	}
	must(t, s.Save(t.Context(), lease, d))
	lane, err = s.Lane(t.Context(), id)
	must(t, err)
	if rests, err := s.Rest(t.Context(), lease, lane.Seq, time.Time{}); err != nil || !rests {
		t.Fatalf("rest: %v %v", rests, err)
	}
}

func state(t *testing.T, s *Store, id string) rollout.State {
	t.Helper()
	d, err := s.Deployment(t.Context(), "main", id)
	must(t, err)
	return d.State
}

func owners(t *testing.T, s *Store, _ string) {
	key := manifest.Key{Kind: "Service", Namespace: "ns", Name: "web"}
	must(t, s.Start(t.Context(), begin("d1", moving("staging", "m1")), nil))
	id := laneOf(t, s, "staging")
	lease, err := s.Claim(t.Context(), id, time.Minute)
	must(t, err)
	lane, err := s.Lane(t.Context(), id)
	must(t, err)
	must(t, s.Save(t.Context(), lease, rollout.Decision{Target: *lane.Current, Changed: true, Claim: []manifest.Key{key}}))
	for application, owner := range map[string]string{"shop": "", "other": "shop"} {
		taken, err := s.Taken(t.Context(), "main", application, "staging", []manifest.Key{key})
		must(t, err)
		if taken[key] != owner {
			t.Errorf("in the way of %s: %v", application, taken)
		}
	}
}

func history(t *testing.T, s *Store, _ string) {
	must(t, s.Start(t.Context(), begin("d1", moving("staging", "m1")), nil))
	finish(t, s, "staging", rollout.Succeeded)
	count, err := s.VerifyHistory(t.Context(), "main", "shop")
	if err != nil || count < 2 {
		t.Fatalf("%d events, %v", count, err)
	}
	must(t, s.write(t.Context(), "test", func(tx *tx) error {
		_, err := tx.exec(t.Context(), `UPDATE events SET who = 'mallory' WHERE application = 'shop' AND who = 'ann'`)
		return err
	}))
	if _, err := s.VerifyHistory(t.Context(), "main", "shop"); err == nil || !strings.Contains(err.Error(), "is not what was written") {
		t.Errorf("a changed event: %v", err)
	}
}

func outbox(t *testing.T, s *Store, _ string) {
	now := when
	s.clock = func() time.Time { return now }
	claim := func() (rollout.Message, time.Time) {
		t.Helper()
		m, next, err := s.ClaimMessage(t.Context(), []string{"repo", "other"}, time.Minute)
		must(t, err)
		if m == nil {
			return rollout.Message{}, next
		}
		if m.Source != "repo" || m.Commit != "d1" || m.Tenant != "main" || !m.Until.Equal(now.Add(time.Minute)) {
			t.Fatalf("claimed: %+v", m)
		}
		return *m, next
	}
	must(t, s.Start(t.Context(), begin("d0", moving("staging", "m0")), nil))
	finish(t, s, "staging", rollout.Succeeded)
	if m, next := claim(); m.Seq != 0 || !next.IsZero() {
		t.Errorf("a source of which nothing is told has a message: %+v, %s", m, next)
	}

	s.TellAbout([]string{"repo"})
	must(t, s.Start(t.Context(), begin("d1", moving("staging", "m1")), nil))
	first, _ := claim()
	if first.Seq == 0 || first.Unsure {
		t.Fatalf("first: %+v", first)
	}
	if m, next := claim(); m.Seq != 0 || !next.Equal(now.Add(time.Minute)) {
		t.Errorf("a claimed message was claimed again: %+v, %s", m, next)
	}
	finish(t, s, "staging", rollout.Succeeded) // while it is being told
	published := rollout.Publication{Hash: "h", Final: true, At: now, Count: 3}
	must(t, s.Told(t.Context(), first, map[string]rollout.Publication{"towpath/shop": published}))
	second, _ := claim()
	if second.Seq <= first.Seq || second.Unsure {
		t.Errorf("what changed meanwhile is not told: %+v", second)
	}
	if found, err := s.Published(t.Context(), second); err != nil || found["towpath/shop"] != published {
		t.Errorf("published: %v, %v", found, err)
	}
	if sent, err := s.SentSince(t.Context(), []string{"repo", "other"}, now.Add(-time.Hour)); err != nil || !slices.Equal(sent, []time.Time{now}) {
		t.Errorf("sent lately: %v, %v", sent, err)
	}
	if sent, err := s.SentSince(t.Context(), []string{"other"}, now.Add(-time.Hour)); err != nil || len(sent) > 0 {
		t.Errorf("sent lately about another source: %v, %v", sent, err)
	}

	now = now.Add(2 * time.Minute) // its holder has died
	third, _ := claim()
	if !third.Unsure {
		t.Errorf("nobody says that it may have been told: %+v", third)
	}
	at := now.Add(time.Hour)
	must(t, s.TellLater(t.Context(), third, nil, rollout.Delay{At: at, Failure: "no answer"}))
	if m, next := claim(); m.Seq != 0 || !next.Equal(at) {
		t.Errorf("claimed %+v, next %s", m, next)
	}
	now = at
	fourth, _ := claim()
	if fourth.Tries != 1 || fourth.Unsure {
		t.Errorf("after a failure: %+v", fourth)
	}
	must(t, s.Park(t.Context(), fourth, nil, "403 no right"))
	if m, next := claim(); m.Seq != 0 || !next.IsZero() {
		t.Errorf("a refused message came back: %+v, %s", m, next)
	}
	must(t, s.SourceSeen(t.Context(), "main", "repo", "d1", nil))
	sources, err := s.Sources(t.Context(), "main")
	must(t, err)
	if len(sources) != 1 || sources[0].Untold != (Untold{Commits: 1, Failure: "403 no right"}) {
		t.Errorf("sources: %+v", sources)
	}
	must(t, s.SourceProcessed(t.Context(), "main", "repo", "d1", ""))
	if m, _ := claim(); m.Seq == 0 {
		t.Error("a change of a refused message's commit does not bring it back")
	}
}

// Whoever sends in the name of some sources sends alone, whichever process they are in.
func claims(t *testing.T, s *Store, url string) {
	now := when
	clock := func() time.Time { return now }
	others := open(t, url)
	s.clock, others.clock = clock, clock
	names := []string{"repo", "web"}
	s.TellAbout(names)
	for i, source := range names {
		start := begin(fmt.Sprint("d", i), moving("staging", "m1"))
		start.Application, start.Origin.Source = source, source
		must(t, s.Start(t.Context(), start, nil))
	}
	claimed := make([]*rollout.Message, 8)
	var claiming sync.WaitGroup
	for i := range claimed {
		claiming.Go(func() {
			var err error
			if claimed[i], _, err = []*Store{s, others}[i%2].ClaimMessage(t.Context(), names, time.Minute); err != nil {
				t.Error(err)
			}
		})
	}
	claiming.Wait()
	claimed = slices.DeleteFunc(claimed, func(m *rollout.Message) bool { return m == nil })
	if len(claimed) != 1 {
		t.Fatalf("claimed %d times at once", len(claimed))
	}
	first := *claimed[0]
	if m, next, err := others.ClaimMessage(t.Context(), names, time.Minute); err != nil || m != nil || !next.Equal(first.Until) {
		t.Errorf("claimed beside it: %+v, next %s (%v)", m, next, err)
	}
	if m, _, err := others.ClaimMessage(t.Context(), names[:0], time.Minute); err != nil || m != nil {
		t.Errorf("a message of no source: %+v (%v)", m, err)
	}
	now = now.Add(50 * time.Second)
	first, err := s.KeepMessage(t.Context(), first, time.Minute)
	if must(t, err); !first.Until.Equal(now.Add(time.Minute)) {
		t.Errorf("kept until %s", first.Until)
	}
	now = now.Add(50 * time.Second)
	if m, _, err := others.ClaimMessage(t.Context(), names, time.Minute); err != nil || m != nil {
		t.Errorf("a kept message was lost: %+v (%v)", m, err)
	}
	now = now.Add(10 * time.Second) // now its holder is too late
	second, _, err := others.ClaimMessage(t.Context(), names, time.Minute)
	if must(t, err); second == nil {
		t.Fatal("nothing is claimed when a claim is over")
	}
	if _, err := s.KeepMessage(t.Context(), first, time.Minute); !errors.Is(err, rollout.ErrStale) {
		t.Errorf("a claim that is over was kept: %v", err)
	}
	sent := map[string]rollout.Publication{"towpath/x": {Hash: "h", At: now, Count: 1}}
	must(t, s.Told(t.Context(), first, sent))
	if found, err := s.Published(t.Context(), first); err != nil || len(found) != 1 {
		t.Errorf("what was sent in a lost claim is forgotten: %v (%v)", found, err)
	}
	if m, _, err := s.ClaimMessage(t.Context(), names, time.Minute); err != nil || m != nil {
		t.Errorf("giving a lost claim back freed another's: %+v (%v)", m, err)
	}
}

func newsComeEarly(t *testing.T, s *Store, _ string) {
	now := when
	s.clock = func() time.Time { return now }
	s.TellAbout([]string{"repo"})
	claim := func() *rollout.Message {
		t.Helper()
		m, _, err := s.ClaimMessage(t.Context(), []string{"repo"}, time.Minute)
		must(t, err)
		return m
	}
	must(t, s.Start(t.Context(), begin("d1", moving("staging", "m1"), moving("prod", "m1")), nil))
	m := claim()
	finish(t, s, "staging", rollout.Succeeded)
	must(t, s.TellLater(t.Context(), *m, nil, rollout.Delay{At: now.Add(time.Hour)}))
	if m = claim(); m == nil {
		t.Fatal("what came while it was held waits")
	}
	must(t, s.TellLater(t.Context(), *m, nil, rollout.Delay{At: now.Add(time.Hour)}))
	if claim() != nil {
		t.Error("claimed before its time")
	}
	finish(t, s, "prod", rollout.Succeeded)
	if m = claim(); m == nil {
		t.Fatal("what came after it was given back waits")
	}
	m.Unsure = true
	must(t, s.TellLater(t.Context(), *m, nil, rollout.Delay{At: now.Add(time.Hour), Failure: "no answer", Unsure: true}))
	must(t, s.SourceSeen(t.Context(), "main", "repo", "d1", nil))
	must(t, s.SourceProcessed(t.Context(), "main", "repo", "d1", ""))
	if claim() != nil {
		t.Error("news end a delay that is because of a failure")
	}
	now = now.Add(time.Hour)
	if m = claim(); m == nil || !m.Unsure {
		t.Fatalf("after a failure: %+v", m)
	}
	must(t, s.Park(t.Context(), *m, nil, "404"))
	must(t, s.SourceProcessed(t.Context(), "main", "repo", "d1", ""))
	if m = claim(); m == nil || !m.Unsure {
		t.Errorf("that it may have been told is forgotten when it is refused: %+v", m)
	}
}

func report(t *testing.T, s *Store, _ string) {
	broken := []deployment.Problem{{File: "b.yaml", Line: 3, Column: 1, Severity: deployment.Error, Text: "unknown key"}}
	must(t, s.SourceSeen(t.Context(), "main", "repo", "d1", nil))
	start := begin("d1", moving("staging", "m1"), moving("prod", "m1"))
	for _, r := range []rollout.FileRecord{
		{Path: "towpath.yaml", Application: "shop", Start: &start}, {Path: "b.yaml", Application: "web", Problems: broken}, {Path: "c.yaml", Problems: broken},
		{Path: "d.yaml", Application: "same"}, {Path: "e.yaml", Application: "shop", Problems: broken},
	} {
		r.Tenant, r.Source, r.Commit, r.Digest = "main", "repo", "d1", "d"
		must(t, s.Record(t.Context(), r))
	}
	for _, c := range []struct {
		detailed, targets int
	}{{10, 2}, {4, 0}} {
		r, err := s.Report(t.Context(), "main", "repo", "d1", c.detailed)
		must(t, err)
		var all []string
		for _, a := range r.Applications {
			all = append(all, fmt.Sprintf("%s %s %s %d", a.Application, a.Path, a.State, len(a.Problems)))
			if a.Deployment == "d1" && len(a.Targets) != c.targets {
				t.Errorf("with up to %d applications: %d targets", c.detailed, len(a.Targets))
			}
		}
		if want := []string{" c.yaml  1", "same d.yaml  0", "shop e.yaml  1", "shop towpath.yaml QUEUED 0", "web b.yaml  1"}; !slices.Equal(all, want) {
			t.Errorf("report: %q, want %q", all, want)
		}
		if r.Taken {
			t.Error("the commit is taken in already")
		}
	}
	must(t, s.SourceProcessed(t.Context(), "main", "repo", "d1", ""))
	if r, err := s.Report(t.Context(), "main", "repo", "d1", 10); err != nil || !r.Taken {
		t.Errorf("report of a commit that was taken in: %v, %v", r.Taken, err)
	}
}

func tokens(t *testing.T, s *Store, url string) {
	_, secret, err := s.CreateToken(t.Context(), Token{Tenant: "main", Name: "ci", Grants: []string{"start"}, Roles: []string{"sre"}})
	must(t, err)
	token, err := s.Token(t.Context(), secret)
	if err != nil || token.Name != "ci" || token.Grants[0] != "start" || token.Roles[0] != "sre" {
		t.Errorf("%+v, %v", token, err)
	}
	if _, err := s.Token(t.Context(), secret+"x"); !errors.Is(err, ErrNoToken) {
		t.Errorf("a guessed secret: %v", err)
	}
	must(t, s.RevokeToken(t.Context(), token.ID))
	if _, err := s.Token(t.Context(), secret); !errors.Is(err, ErrNoToken) {
		t.Errorf("a revoked token: %v", err)
	}
	if path, isFile := strings.CutPrefix(url, "sqlite:"); isFile {
		if out, err := exec.Command("grep", "-c", secret, path, path+"-wal").CombinedOutput(); err == nil {
			t.Errorf("the secret lies in the database in clear: %s", out)
		}
	}
	_, expired, err := s.CreateToken(t.Context(), Token{Tenant: "main", Name: "old", Grants: []string{"view"}, Expires: time.Now().Add(-time.Minute)})
	must(t, err)
	if _, err := s.Token(t.Context(), expired); !errors.Is(err, ErrNoToken) {
		t.Errorf("an expired token: %v", err)
	}
}

func sealed(t *testing.T, s *Store, url string) {
	secret, err := manifest.New([]byte(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"},"data":{"p":"`+strings.Repeat("hunter2hunter2", 3)+`"}}`), "x")
	must(t, err)
	must(t, s.Start(t.Context(), begin("d1", moving("staging", "m1")), map[string][]manifest.Object{"m1": {secret}}))
	objects, err := s.Manifests(t.Context(), "m1")
	if err != nil || len(objects) != 1 || string(objects[0].JSON) != string(secret.JSON) {
		t.Errorf("%v, %v", objects, err)
	}
	if _, err := s.Manifests(t.Context(), "m2"); err == nil || err.Error() != "nothing is sealed under m2" {
		t.Errorf("a set that is not there: %v", err)
	}
	if path, isFile := strings.CutPrefix(url, "sqlite:"); isFile {
		if out, err := exec.Command("grep", "-c", "hunter2", path, path+"-wal").CombinedOutput(); err == nil {
			t.Errorf("the secret lies in the database in clear: %s", out)
		}
	}
	other := []byte("another key of thirty-two bytes!")
	if s, err := Open(t.Context(), Config{URL: url, Keys: [][]byte{other}, Log: quietLog()}); err == nil || !strings.Contains(err.Error(), "that keyFile does not hold") {
		t.Errorf("opened with another key: %v", err)
		if s != nil {
			s.Close()
		}
	}
	both, err := Open(t.Context(), Config{URL: url, Keys: [][]byte{other, testKey}, Log: quietLog()})
	must(t, err)
	defer both.Close()
	if _, err := both.Manifests(t.Context(), "m1"); err != nil {
		t.Errorf("opened with both keys: %v", err)
	}
}

func deliveries(t *testing.T, s *Store, _ string) {
	for i, want := range []bool{true, false} {
		if fresh, err := s.Deliver(t.Context(), "repo", "guid", "push", []byte("{}"), Hints{}); err != nil || fresh != want {
			t.Errorf("delivery %d: fresh %v, %v", i, fresh, err)
		}
	}
}

func looks(t *testing.T, s *Store, _ string) {
	ctx := t.Context()
	look := func(app string, every time.Duration, until time.Time, mine bool) {
		t.Helper()
		if was, is, err := s.BeginLook(ctx, app, every); err != nil || !was.Equal(until) || is != mine {
			t.Errorf("a look at %s: until %v, mine %v, %v", app, was, is, err)
		}
	}
	seen := time.UnixMicro(1_800_000_000_000_000)
	look("web", time.Hour, time.Time{}, true)
	look("web", time.Hour, time.Time{}, false)
	look("shop", time.Hour, time.Time{}, true)
	must(t, s.EndLook(ctx, "web", seen))
	look("web", time.Hour, time.Time{}, false)
	look("web", 0, seen, true)
	look("shop", 0, time.Time{}, true)
	for i, c := range []struct {
		attempt int64
		want    bool
	}{{1, true}, {1, false}, {2, true}, {3, true}, {4, true}, {5, true}, {6, false}} {
		if ask, err := s.Redeliver(ctx, "web", "guid", c.attempt); err != nil || ask != c.want {
			t.Errorf("redelivery %d, after attempt %d: asked %v, %v", i, c.attempt, ask, err)
		}
	}
	if ask, err := s.Redeliver(ctx, "shop", "guid", 1); err != nil || !ask {
		t.Errorf("another App's: asked %v, %v", ask, err)
	}
}

func proposals(t *testing.T, s *Store, _ string) {
	ctx := t.Context()
	s.TellAbout([]string{"repo"})
	woken := make(chan string, 10)
	must(t, s.Work(ctx, Handlers{JobProposal: func(_ context.Context, subject string) error {
		woken <- subject
		return nil
	}}))
	pull := rollout.ProposalName{Tenant: "main", Source: "repo", Pull: 7}
	group := rollout.ProposalName{Tenant: "main", Source: "repo", Group: "abc"}
	if fresh, err := s.Deliver(ctx, "github.apps us", "guid", "pull_request", []byte("{}"), Hints{Proposals: []rollout.ProposalLook{{ProposalName: pull}}}); err != nil || !fresh {
		t.Errorf("fresh %v, %v", fresh, err)
	}
	if subject := <-woken; subject != "pull/main/repo/7" {
		t.Errorf("woken is %s", subject)
	}
	must(t, s.LookAtProposals(ctx, rollout.ProposalLook{ProposalName: pull}, rollout.ProposalLook{ProposalName: group}))
	if got := []string{<-woken, <-woken}; !slices.Contains(got, "group/main/repo/abc") {
		t.Errorf("woken are %s", got)
	}
	must(t, s.RecoverProposals(ctx))
	<-woken
	<-woken
	k, err := s.Proposal(ctx, "pull/main/repo/7")
	if must(t, err); k.Name != pull || k.Wanted != 2 || k.Seen != 0 {
		t.Errorf("known is %+v", k)
	}
	older := k
	k.Seen, k.Basis, k.Report = k.Wanted, "basis", rollout.ProposalReport{Proposal: rollout.Proposal{Number: 7, Head: "def", Title: "web 2"}, State: rollout.PlanMade}
	must(t, s.RecordProposal(ctx, k))
	older.Seen, older.Report.State = 1, rollout.PlanTroubled
	must(t, s.RecordProposal(ctx, older)) // too late
	message, _, err := s.ClaimMessage(ctx, []string{"repo"}, time.Minute)
	if must(t, err); message == nil || message.Pull != 7 || message.Source != "repo" || message.Commit != "" {
		t.Fatalf("the message is %+v", message)
	}
	report, err := s.ProposalReport(ctx, *message, 20)
	if must(t, err); report.Title != "web 2" || report.State != rollout.PlanMade {
		t.Errorf("the report is %+v", report)
	}
	must(t, s.Told(ctx, *message, map[string]rollout.Publication{"run": {Hash: "1", At: time.Now(), Count: 1, ID: 42}, "comment": {Hash: "2", At: time.Now().Add(time.Second), Count: 2, ID: 43, Edit: true}}))
	published, err := s.Published(ctx, *message)
	if must(t, err); published["run"].ID != 42 || published["comment"].ID != 43 {
		t.Errorf("published is %+v", published)
	}
	if sent, err := s.SentSince(ctx, []string{"repo"}, time.Now().Add(-time.Minute)); err != nil || len(sent) != 1 {
		t.Errorf("creations: %v, %v; an edit is none", sent, err)
	}
	must(t, s.RecordProposal(ctx, rollout.KnownProposal{Name: group, Seen: 1}))
	if message, _, err = s.ClaimMessage(ctx, []string{"repo"}, time.Minute); err != nil || message == nil || !message.Group || message.Commit != "abc" || message.Pull != 0 {
		t.Errorf("the group's message is %+v, %v", message, err)
	}
	must(t, s.LookAtProposals(ctx, rollout.ProposalLook{ProposalName: pull}))
	if again, err := s.Proposal(ctx, "pull/main/repo/7"); err != nil || again.Basis != "basis" || again.Wanted != 3 {
		t.Errorf("looked at again: %+v, %v", again, err)
	}
	must(t, s.LookAtProposals(ctx, rollout.ProposalLook{ProposalName: pull, Anew: true}))
	if again, err := s.Proposal(ctx, "pull/main/repo/7"); err != nil || again.Basis != "" {
		t.Errorf("to be planned anew: %+v, %v", again, err)
	}
	k.Report.Closed = true
	must(t, s.RecordProposal(ctx, k))
	if open, err := s.OpenProposals(ctx, "main", "repo"); err != nil || len(open) != 1 || open[0].Name != group {
		t.Errorf("open are %+v, %v", open, err)
	}
}

func comments(t *testing.T, s *Store, _ string) {
	ctx, now := t.Context(), when
	s.clock = func() time.Time { return now }
	s.TellAbout([]string{"repo"})
	woken := make(chan string, 10)
	must(t, s.Work(ctx, Handlers{JobComment: func(_ context.Context, subject string) error {
		woken <- subject
		return nil
	}}))
	const subject = "pull/main/repo/7"
	hear := func(guid string, id int64) {
		t.Helper()
		about := Hints{Comments: []rollout.Comment{{Pull: rollout.ProposalName{Tenant: "main", Source: "repo", Pull: 7}, ID: id, Sum: "sum"}}}
		if _, err := s.Deliver(ctx, "hook", guid, "issue_comment", []byte("{}"), about); err != nil {
			t.Fatal(err)
		}
	}
	claim := func(want int64) *rollout.Comment {
		t.Helper()
		c, err := s.ClaimComment(ctx, subject, time.Minute)
		if must(t, err); c == nil && want != 0 || c != nil && (c.ID != want || c.Sum != "sum" || !c.Heard.Equal(when)) {
			t.Fatalf("claimed is %+v, want %d", c, want)
		}
		return c
	}
	hear("one", 11)
	hear("two", 12)
	hear("another hook", 11)
	for range 2 {
		if got := <-woken; got != subject {
			t.Errorf("woken is %s", got)
		}
	}
	first := claim(11)
	claim(0) // one at a time, in order
	must(t, s.AnswerLater(ctx, *first, now.Add(time.Second)))
	claim(0)
	now = now.Add(time.Second)
	first = claim(11)
	if first.Tries != 1 {
		t.Errorf("tried %d times", first.Tries)
	}
	now = now.Add(time.Hour) // the process died
	must(t, s.WakeComments(ctx))
	<-woken
	again := claim(11)
	if err := s.AnswerComment(ctx, *first, rollout.Reply{}); !errors.Is(err, rollout.ErrStale) {
		t.Errorf("an answer that comes too late: %v", err)
	}
	must(t, s.AnswerComment(ctx, *again, rollout.Reply{Signs: []string{"-1"}, Text: "no"}))
	second := claim(12)
	must(t, s.AnswerComment(ctx, *second, rollout.Reply{}))
	hear("redelivered", 11)
	claim(0)
	message, _, err := s.ClaimMessage(ctx, []string{"repo"}, time.Minute)
	if must(t, err); message == nil || message.Pull != 7 {
		t.Fatalf("the message is %+v", message)
	}
	report, err := s.ProposalReport(ctx, *message, 20)
	if must(t, err); len(report.Replies) != 2 || report.Replies[0].Comment != 11 || report.Replies[0].Text != "no" {
		t.Errorf("the replies are %+v", report.Replies)
	}

	must(t, s.Start(ctx, begin("d1", moving("staging", "m1")), nil))
	for range 2 {
		must(t, s.CancelOnce(ctx, "comment 11", "main", "d1", "kim (GitHub)", ""))
	}
	for range 2 {
		must(t, s.HoldApplication(ctx, "comment 12", "main", "shop", false, "kim (GitHub)", "the database moves"))
	}
	for range 2 {
		must(t, s.HoldApplication(ctx, "comment 13", "main", "shop", true, "kim (GitHub)", ""))
	}
	events, err := s.Events(ctx, EventFilter{Tenant: "main", Deployment: "d1"})
	asked := 0
	for _, e := range events {
		if e.Kind == "deployment.cancel" {
			asked++
		}
	}
	if must(t, err); asked != 1 {
		t.Errorf("asked %d times to stop", asked)
	}
}

func wakes(t *testing.T, s *Store, _ string) {
	var mu sync.Mutex
	seen := map[string]int{}
	all := make(chan struct{})
	must(t, s.Work(t.Context(), Handlers{JobSource: func(_ context.Context, id string) error {
		mu.Lock()
		defer mu.Unlock()
		if seen[id]++; len(seen) == 20 {
			close(all)
		}
		if id == "s-7" {
			panic("one fault")
		}
		return nil
	}}))
	for i := range 20 {
		must(t, s.WakeSource(t.Context(), fmt.Sprint("s-", i)))
	}
	select {
	case <-all:
	case <-time.After(time.Minute):
		t.Errorf("only %d of 20 wakes came", len(seen))
	}
	must(t, s.Stop(t.Context()))
	if late, err := s.Late(t.Context(), 0); err != nil || late != 0 {
		t.Errorf("%d wakes are late, %v", late, err)
	}
}

func sources(t *testing.T, s *Store, _ string) {
	must(t, s.SourceSeen(t.Context(), "main", "repo", "c1", nil))
	must(t, s.SourceProcessed(t.Context(), "main", "repo", "c1", ""))
	must(t, s.SourceSeen(t.Context(), "main", "repo", "", errors.New("no way there")))
	views, err := s.Sources(t.Context(), "main")
	if err != nil || len(views) != 1 || views[0].Head != "c1" || views[0].Processed != "c1" || views[0].Failure != "no way there" || views[0].FailedSince.IsZero() {
		t.Errorf("%+v, %v", views, err)
	}
	record := rollout.FileRecord{Tenant: "main", Source: "repo", Path: "a/towpath.yaml", Commit: "c1", Application: "a", Digest: "d",
		Problems: []deployment.Problem{{File: "a/towpath.yaml", Line: 3, Column: 1, Severity: deployment.Error, Text: "wrong"}},
		Renders:  []rollout.RenderRecord{{Source: "repo", Path: "a/towpath.yaml", Target: "t", Trace: []byte("{}")}}}
	must(t, s.Record(t.Context(), record))
	files, err := s.Files(t.Context(), "main", "repo")
	if err != nil || len(files) != 1 || files[0].Problems[0].Text != "wrong" {
		t.Errorf("%+v, %v", files, err)
	}
	if renders, err := s.Renders(t.Context(), "main", "repo"); err != nil || len(renders) != 1 || renders[0].Target != "t" {
		t.Errorf("%+v, %v", renders, err)
	}
	must(t, s.Record(t.Context(), rollout.FileRecord{Tenant: "main", Source: "repo", Path: "a/towpath.yaml", Commit: "c2", Deleted: true}))
	if files, err := s.Files(t.Context(), "main", "repo"); err != nil || len(files) != 0 {
		t.Errorf("after it was deleted: %+v, %v", files, err)
	}
}

func issuerRows(t *testing.T, s *Store, _ string) {
	key := IssuerKey{ID: "k", Private: []byte("private"), Created: when, Active: when, Retires: when, Expires: when}
	must(t, s.SaveIssuerKey(t.Context(), key))
	must(t, s.SaveIssuerKey(t.Context(), IssuerKey{ID: "k", Private: []byte("other"), Created: when}))
	keys, err := s.IssuerKeys(t.Context())
	if err != nil || len(keys) != 1 || string(keys[0].Private) != "private" || !keys[0].Active.Equal(when) {
		t.Errorf("%+v, %v", keys, err)
	}
	must(t, s.DeleteIssuerKey(t.Context(), "k"))
	must(t, s.SaveIssuerClient(t.Context(), "c", "one", 0))
	if err := s.SaveIssuerClient(t.Context(), "c", "two", 0); !errors.Is(err, ErrConflict) {
		t.Errorf("made twice: %v", err)
	}
	must(t, s.SaveIssuerClient(t.Context(), "c", "two", 1))
	if data, version, err := s.IssuerClient(t.Context(), "c"); err != nil || data != "two" || version != 2 {
		t.Errorf("%s %d %v", data, version, err)
	}
	if _, _, err := s.IssuerClient(t.Context(), "x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a client that is not there: %v", err)
	}
}

func releases(t *testing.T, s *Store, _ string) {
	must(t, s.Start(t.Context(), begin("d1", moving("staging", "m1")), nil))
	finish(t, s, "staging", rollout.Succeeded)
	var refusal *rollout.Refusal
	if err := s.Release(t.Context(), "main", "other", "r", "ann", true); !errors.As(err, &refusal) || refusal.Text != "no application other" {
		t.Errorf("one that is not there: %v", err)
	}
	if id, err := s.GoodBefore(t.Context(), "main", "shop", "staging"); !errors.As(err, &refusal) {
		t.Errorf("before the first deployment there was %s (%v)", id, err)
	}
	must(t, s.Release(t.Context(), "main", "shop", "r", "ann", true))
	if owner, err := s.Owner(t.Context(), "main", "shop"); err != nil || !owner.Removed {
		t.Errorf("%+v, %v", owner, err)
	}
	if state(t, s, "r") != rollout.Queued {
		t.Errorf("what removes its objects is %s", state(t, s, "r"))
	}
}

func TestADatabaseOfANewerVersionIsNotTouched(t *testing.T) {
	url := "sqlite:" + filepath.Join(t.TempDir(), "towpath.db")
	s := open(t, url)
	must(t, s.write(t.Context(), "test", func(tx *tx) error {
		_, err := tx.exec(t.Context(), `INSERT INTO migrations (number, applied_at) VALUES (999, 0)`)
		return err
	}))
	must(t, s.Close())
	if _, err := Open(t.Context(), Config{URL: url, Keys: [][]byte{testKey}, Log: quietLog()}); err == nil || !strings.Contains(err.Error(), "it was used by a newer version") {
		t.Errorf("opened: %v", err)
	}
	if _, err := os.Stat(strings.TrimPrefix(url, "sqlite:")); err != nil {
		t.Error(err)
	}
}
