package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"towpath/reconcile/rollout"
)

// readsOn has many write history while one reads it on from the last id it saw, as a stream of events does.
func readsOn(t *testing.T, s *Store, _ string) {
	const writers, each = 8, 10
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	news, stop := s.News()
	defer stop()
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for n := range each {
				err := s.write(ctx, "test", func(tx *tx) error {
					return tx.event(ctx, rollout.Event{At: when, Tenant: "main", Application: fmt.Sprint("app-", w), Who: "ann", Kind: "test", What: fmt.Sprint(w, "/", n)})
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	var last int64
	seen := map[string]bool{}
	for len(seen) < writers*each {
		events, err := s.Events(ctx, EventFilter{Tenant: "main", After: last, Limit: 7})
		if err != nil {
			t.Fatalf("%d of %d events were seen: %v", len(seen), writers*each, err)
		}
		for _, e := range events {
			if e.ID <= last || seen[e.What] {
				t.Errorf("event %d (%s) after %d", e.ID, e.What, last)
			}
			last, seen[e.What] = e.ID, true
		}
		if len(events) == 0 {
			select {
			case <-news:
			case <-ctx.Done():
			}
		}
	}
	writing.Wait()
	for w := range writers {
		if count, err := s.VerifyHistory(ctx, "main", fmt.Sprint("app-", w)); err != nil || count != each {
			t.Errorf("app-%d: %d events, %v", w, count, err)
		}
	}
}

func attempts(t *testing.T, s *Store, _ string) {
	now := when
	s.clock = func() time.Time { return now }
	of := Sender{Tenant: "main", Who: "token", Key: "k"}
	first, err := s.Attempt(t.Context(), of, "start shop", "d1")
	if err != nil || first.ID != "d1" || first.Answer != nil {
		t.Fatalf("%+v, %v", first, err)
	}
	if again, err := s.Attempt(t.Context(), of, "start shop", "d2"); err != nil || again.ID != "d1" || again.Answer != nil {
		t.Errorf("before it was answered: %+v, %v", again, err)
	}
	must(t, s.Answered(t.Context(), of, []byte("done")))
	must(t, s.Answered(t.Context(), of, []byte("done by a twin")))
	if again, err := s.Attempt(t.Context(), of, "start shop", "d2"); err != nil || string(again.Answer) != "done" {
		t.Errorf("after it was answered: %+v, %v", again, err)
	}
	var refusal *rollout.Refusal
	if _, err := s.Attempt(t.Context(), of, "start web", "d2"); !errors.As(err, &refusal) || refusal.Kind != rollout.Malformed {
		t.Errorf("another request: %v", err)
	}
	for _, other := range []Sender{{"main", "other token", "k"}, {"other", "token", "k"}, {"main", "token", "k2"}} {
		if a, err := s.Attempt(t.Context(), other, "start web", "d3"); err != nil || a.ID != "d3" {
			t.Errorf("%+v: %+v, %v", other, a, err)
		}
	}
	now = now.Add(attemptsLast + time.Second)
	if later, err := s.Attempt(t.Context(), of, "start web", "d4"); err != nil || later.ID != "d4" {
		t.Errorf("a day later: %+v, %v", later, err)
	}

	must(t, s.Start(t.Context(), begin("d1", moving("staging", "m1")), nil))
	second := begin("d2", moving("staging", "m2"))
	second.Exclusive = rollout.RejectOthers
	for range 2 { // what was refused stays refused when it is sent again
		var underWay *ErrUnderWay
		if err := s.Start(t.Context(), second, nil); !errors.As(err, &underWay) || underWay.ID != "d1" || underWay.Rejected != "d2" {
			t.Errorf("refused: %v", err)
		}
	}
}

func agents(t *testing.T, s *Store, _ string) {
	_, before, err := s.Dismissals(t.Context(), -1)
	must(t, err)
	must(t, s.AddAgent(t.Context(), Agent{Tenant: "main", Name: "prod", Issuer: "i", Subject: "one"}, "ann"))
	must(t, s.AddAgent(t.Context(), Agent{Tenant: "other", Name: "prod", Issuer: "i", Subject: "two"}, "bob"))
	var refusal *rollout.Refusal
	if err := s.AddAgent(t.Context(), Agent{Tenant: "main", Name: "prod", Issuer: "i", Subject: "three"}, "ann"); !errors.As(err, &refusal) || refusal.Kind != rollout.Conflicts {
		t.Errorf("a second one of a name: %v", err)
	}
	if a, err := s.AgentOf(t.Context(), "i", "two"); err != nil || a.Tenant != "other" || a.Name != "prod" {
		t.Errorf("%+v, %v", a, err)
	}
	must(t, s.AgentCame(t.Context(), "other", "prod"))
	must(t, s.AgentLeft(t.Context(), "other", "prod", "it stopped"))
	if all, err := s.Agents(t.Context(), "other"); err != nil || all[0].Connected.IsZero() || all[0].Away.Before(all[0].Connected) || all[0].AwayWhy != "it stopped" {
		t.Errorf("one that is away: %+v, %v", all, err)
	}
	must(t, s.AgentCame(t.Context(), "other", "prod"))
	if all, err := s.Agents(t.Context(), "other"); err != nil || all[0].Connected.IsZero() || !all[0].Away.IsZero() || all[0].AwayWhy != "" {
		t.Errorf("one that came back: %+v, %v", all, err)
	}
	must(t, s.RevokeTokens(t.Context(), "other", "prod", "bob"))
	if a, err := s.AgentOf(t.Context(), "i", "two"); err != nil || a.Revoked.IsZero() {
		t.Errorf("one whose tokens were revoked: %+v, %v", a, err)
	}
	if err := s.RevokeTokens(t.Context(), "other", "staging", "bob"); !errors.As(err, &refusal) || refusal.Text != "no agent staging" {
		t.Errorf("tokens of one that is not there: %v", err)
	}
	if removed, err := s.RemoveAgent(t.Context(), "main", "prod", "ann"); err != nil || removed.Subject != "one" {
		t.Errorf("%+v, %v", removed, err)
	}
	if _, err := s.AgentOf(t.Context(), "i", "one"); !errors.Is(err, ErrNoAgent) {
		t.Errorf("a removed one's identity: %v", err)
	}
	for _, err := range []error{second(s.RemoveAgent(t.Context(), "main", "prod", "ann")), second(s.Agent(t.Context(), "main", "prod"))} {
		if !errors.As(err, &refusal) || refusal.Text != "no agent prod" {
			t.Errorf("one that is not there: %v", err)
		}
	}
	gone, newest, err := s.Dismissals(t.Context(), before)
	if err != nil || len(gone) != 2 || gone[0] != (Dismissal{"other", "prod", "the tokens of agent prod were revoked; it may come back with a new one"}) ||
		gone[1] != (Dismissal{"main", "prod", "the agent prod was removed"}) {
		t.Errorf("dismissed since: %+v, %v", gone, err)
	}
	if gone, _, err := s.Dismissals(t.Context(), newest); err != nil || len(gone) != 0 {
		t.Errorf("dismissed since then: %+v, %v", gone, err)
	}
	if all, err := s.Agents(t.Context(), "other"); err != nil || len(all) != 1 {
		t.Errorf("another tenant's: %+v, %v", all, err)
	}
}

func replicas(t *testing.T, s *Store, _ string) {
	now := when
	s.clock = func() time.Time { return now }
	const alive, forget = 15 * time.Second, time.Minute
	moves, stop := s.Moves()
	defer stop()
	moved := func(what string) {
		t.Helper()
		select {
		case <-moves:
		case <-t.Context().Done():
			t.Errorf("nobody was told that %s", what)
		}
	}
	list := func(tenant, agent string) (found []string) {
		t.Helper()
		all, err := s.Sessions(t.Context(), tenant, agent, alive)
		must(t, err)
		for _, n := range all {
			found = append(found, fmt.Sprint(n.ID, "@", n.Replica.ID))
		}
		return found
	}
	same := func(what string, got, want []string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	a, b := Replica{"a", "10.0.0.1:8444"}, Replica{"b", "10.0.0.2:8444"}
	if err := s.SaveSessions(t.Context(), "a", nil, []Session{{ID: "s0", Tenant: "main", Agent: "prod", Since: now}}); err == nil {
		t.Error("sessions of a replica that nobody knows are saved")
	}
	for _, r := range []Replica{a, b} {
		for _, want := range []bool{false, true} {
			if known, err := s.Beat(t.Context(), r, forget); err != nil || known != want {
				t.Errorf("%s is known: %t, %v", r.ID, known, err)
			}
		}
	}
	prod, staging := [2]string{"main", "prod"}, [2]string{"main", "staging"}
	first := Session{ID: "s1", Tenant: "main", Agent: "prod", Instance: "prod-0", Version: "1.2", Remote: "192.0.2.1:5", Targets: []string{"kubernetes"}, Since: now.Add(-time.Hour), Admitted: true}
	must(t, s.SaveSessions(t.Context(), "a", [][2]string{prod, staging}, []Session{first, {ID: "s2", Tenant: "main", Agent: "staging", Since: now}}))
	moved("agents came")
	must(t, s.SaveSessions(t.Context(), "b", [][2]string{prod}, []Session{{ID: "s3", Tenant: "main", Agent: "prod", Since: now}, {ID: "s4", Tenant: "main", Agent: "prod", Since: now}}))
	same("all, the oldest first", list("", ""), []string{"s1@a", "s2@a", "s3@b", "s4@b"})
	same("one agent's", list("main", "prod"), []string{"s1@a", "s3@b", "s4@b"})
	same("another tenant's", list("other", ""), nil)
	all, err := s.Sessions(t.Context(), "main", "prod", alive)
	must(t, err)
	first.Replica, first.Beat = a, now
	if got := fmt.Sprintf("%+v", all[0]); got != fmt.Sprintf("%+v", first) {
		t.Errorf("listed: %s, want %+v", got, first)
	}
	must(t, s.SaveSessions(t.Context(), "b", [][2]string{prod}, []Session{{ID: "s4", Tenant: "main", Agent: "prod", Since: now}}))
	same("after one went", list("main", "prod"), []string{"s1@a", "s4@b"})

	superseded := func(replica string) []string {
		t.Helper()
		ids, err := s.Superseded(t.Context(), replica, alive)
		must(t, err)
		return ids
	}
	same("superseded before an instance came again", superseded("a"), nil)
	must(t, s.SaveSessions(t.Context(), "b", [][2]string{prod}, []Session{{ID: "s4", Tenant: "main", Agent: "prod", Instance: "prod-0", Since: now}}))
	same("superseded at a", superseded("a"), []string{"s1"})
	same("superseded at b", superseded("b"), nil)

	oldest := func() map[[2]string]string {
		t.Helper()
		all, err := s.Oldest(t.Context(), alive)
		must(t, err)
		return all
	}
	if all := oldest(); len(all) != 1 || all[prod] != "a" {
		t.Errorf("the oldest that are admitted: %v", all)
	}

	now = now.Add(alive + time.Second)
	_, err = s.Beat(t.Context(), b, forget)
	must(t, err)
	if all := oldest(); len(all) != 0 { // b's was not admitted
		t.Errorf("the oldest that are admitted: %v", all)
	}
	if all, err := s.Replicas(t.Context(), alive); err != nil || !slices.Equal(all, []Replica{b}) {
		t.Errorf("replicas: %v, %v", all, err)
	}
	same("after a was silent", list("", ""), []string{"s4@b"})
	now = now.Add(forget)
	for len(moves) > 0 {
		<-moves
	}
	if known, err := s.Beat(t.Context(), b, forget); err != nil || !known {
		t.Errorf("b is known: %t, %v", known, err)
	}
	moved("a was given up")
	if known, err := s.Beat(t.Context(), a, forget); err != nil || known {
		t.Errorf("a is known: %t, %v", known, err)
	}
	same("after a came back with nothing", list("", ""), []string{"s4@b"})
	must(t, s.DropReplica(t.Context(), "b"))
	same("after b left", list("", ""), nil)
}

func lanesMoved(t *testing.T, s *Store, _ string) {
	must(t, s.Start(t.Context(), begin("d1", moving("staging", "m1"), moving("prod", "m1", "staging")), nil))
	lanes, before, err := s.LanesMoved(t.Context(), -1)
	if err != nil || len(lanes) > 0 {
		t.Errorf("at first: %v, %v", lanes, err)
	}
	must(t, s.write(t.Context(), "test", func(tx *tx) error {
		return tx.event(t.Context(), rollout.Event{At: when, Tenant: "main", Application: "shop", Target: "staging", Who: "towpath", Kind: "target.state", What: "it is there"})
	}))
	lanes, after, err := s.LanesMoved(t.Context(), before)
	if err != nil || !slices.Equal(lanes, []int64{laneOf(t, s, "staging")}) {
		t.Errorf("after staging: %v, %v", lanes, err)
	}
	if lanes, _, err := s.LanesMoved(t.Context(), after); err != nil || len(lanes) > 0 {
		t.Errorf("after that: %v, %v", lanes, err)
	}
}

func second(_ Agent, err error) error { return err }

func listed(t *testing.T, s *Store, _ string) {
	for _, name := range []string{"ann", "ci"} {
		_, _, err := s.CreateToken(t.Context(), Token{Tenant: "main", Name: name, Grants: []string{"view"}})
		must(t, err)
	}
	all, err := s.Tokens(t.Context())
	must(t, err)
	must(t, s.RevokeToken(t.Context(), all[slices.IndexFunc(all, func(t Token) bool { return t.Name == "ci" })].ID))
	all, err = s.Tokens(t.Context())
	must(t, err)
	for _, token := range all {
		if token.Revoked.IsZero() != (token.Name == "ann") || token.Grants[0] != "view" || token.Created.IsZero() || !token.Expires.IsZero() {
			t.Errorf("%+v", token)
		}
	}
	var refusal *rollout.Refusal
	if err := s.RevokeToken(t.Context(), "x"); !errors.As(err, &refusal) || refusal.Kind != rollout.Missing {
		t.Errorf("a token that is not there: %v", err)
	}
	events, err := s.Events(t.Context(), EventFilter{Tenant: "main"})
	must(t, err)
	if last := events[len(events)-1]; last.Kind != "token.revoked" || !strings.HasPrefix(last.What, "token ci (") {
		t.Errorf("history ends with %+v", last)
	}
}

func census(t *testing.T, s *Store, _ string) {
	must(t, s.Start(t.Context(), begin("d1", moving("staging", "m1"), moving("prod", "m1", "staging")), nil))
	finish(t, s, "staging", rollout.Succeeded)
	must(t, s.SourceSeen(t.Context(), "main", "repo", "", errors.New("no way there")))
	c, err := s.Census(t.Context())
	must(t, err)
	if c.Lanes[rollout.Succeeded] != 1 || c.Lanes[rollout.Queued] != 1 || c.UnderWay != 1 || c.Untold != 0 || len(c.Sources) != 1 || c.Sources[0].FailedSince.IsZero() {
		t.Errorf("%+v", c)
	}
}

func reopens(t *testing.T, s *Store, url string) {
	must(t, s.Start(t.Context(), begin("d1", moving("staging", "m1")), nil))
	count := func(s *Store) (n int) {
		must(t, s.read(t.Context(), func(tx *tx) error { return tx.queryRow(t.Context(), `SELECT COUNT(*) FROM migrations`).Scan(&n) }))
		return n
	}
	before := count(s)
	must(t, s.Close())
	again := open(t, url)
	if count(again) != before || state(t, again, "d1") != rollout.Queued {
		t.Errorf("%d migrations, then %d; the deployment is %s", before, count(again), state(t, again, "d1"))
	}
}

// clusterPreviews is what storetest does not ask of each store: a person's way to a cluster, and what another key does to previews.
func clusterPreviews(t *testing.T, s *Store, at string) {
	ctx := t.Context()
	made, err := s.OpenCluster(ctx, "main", "prod", "ann", time.Hour)
	must(t, err)
	other, err := s.OpenCluster(ctx, "main", "prod", "ann", time.Hour)
	must(t, err)
	if len(made.Random) != 32 || strings.ToLower(made.Random) != made.Random || made.Random == other.Random || !made.Cluster() {
		t.Fatalf("%+v, %+v", made, other)
	}
	for range 2 {
		must(t, s.PreviewUsed(ctx, made.ID, "203.0.113.9"))
	}
	found, err := s.Preview(ctx, made.Random)
	must(t, err)
	if found.Account != "prod" || found.By != "ann" || found.Used.IsZero() || found.Until.Sub(found.Made) != time.Hour {
		t.Errorf("%+v", found)
	}
	if all, err := s.Previews(ctx, "main", ""); err != nil || len(all) != 2 {
		t.Errorf("%v, %+v", err, all)
	}
	if all, err := s.Previews(ctx, "other", ""); err != nil || len(all) != 0 {
		t.Errorf("another tenant sees %v, %+v", err, all)
	}
	must(t, s.read(ctx, func(tx *tx) error {
		var stored string
		must(t, tx.queryRow(ctx, `SELECT id || hash || made_by FROM previews WHERE id = ?`, made.ID).Scan(&stored))
		if strings.Contains(stored, made.Random) {
			t.Error("the row holds what it is reached by")
		}
		return nil
	}))
	rotated, err := Open(ctx, Config{URL: at, Keys: [][]byte{[]byte("another key of exactly 32 bytes!"), testKey}, Log: quietLog()})
	must(t, err)
	t.Cleanup(func() { rotated.Close() })
	if p, err := rotated.Preview(ctx, made.Random); err != nil || p.ID != made.ID {
		t.Errorf("under another key it leads to %+v, %v", p, err)
	}
	if all, err := rotated.Previews(ctx, "main", ""); err != nil || len(all) != 2 || all[0].Random != "" {
		t.Errorf("under another key it is shown as %v, %+v", err, all)
	}
	must(t, s.EndPreview(ctx, "main", made.ID, "bob"))
	if _, err := s.Preview(ctx, made.Random); !errors.Is(err, ErrNoPreview) {
		t.Errorf("once it was revoked: %v", err)
	}
	events, err := s.Events(ctx, EventFilter{Tenant: "main"})
	must(t, err)
	var said []string
	for _, e := range events {
		if e.Target == "prod" && strings.Contains(e.What, made.ID) {
			said = append(said, e.Kind+" by "+e.Who)
		}
	}
	if want := []string{"preview.made by ann", "preview.used by 203.0.113.9", "preview.revoked by bob"}; !slices.Equal(said, want) {
		t.Errorf("history says %q, want %q", said, want)
	}
}

// endedPreviews are listed for a month, and those of a target under way for as long as it takes: it asks which links its steps have made.
func endedPreviews(t *testing.T, s *Store, _ string) {
	ctx, now := t.Context(), when
	s.clock = func() time.Time { return now }
	target := moving("staging", "m1")
	target.Canary = []rollout.Step{{Expose: &rollout.Expose{Services: []string{"web"}}}}
	must(t, s.Start(ctx, begin("d1", target), nil))
	lanes, err := s.Lanes(ctx, "main", "shop")
	must(t, err)
	under, err := s.Lane(ctx, lanes[0].ID)
	must(t, err)
	must(t, s.write(ctx, "expose", func(tx *tx) error {
		return tx.expose(ctx, *under.Current, []rollout.Link{{Gate: "canary.steps[0]", Service: "web", Made: now, Until: now.Add(time.Minute)}})
	}))
	_, err = s.OpenCluster(ctx, "main", "prod", "ann", time.Hour)
	must(t, err)
	_, err = s.OpenCluster(ctx, "other", "prod", "ann", time.Hour)
	must(t, err)
	kept := func(want string) {
		t.Helper()
		_, err := s.OpenCluster(ctx, "main", "prod", "bob", time.Minute)
		must(t, err)
		var all []Preview
		must(t, s.read(ctx, func(tx *tx) error {
			all, err = tx.previews(ctx, `made_by <> 'bob'`)
			return err
		}))
		var is []string
		for _, p := range all {
			is = append(is, p.Tenant+"/"+p.Account)
		}
		slices.Sort(is)
		if got := strings.Join(is, " "); got != want {
			t.Errorf("at %s there are %s, want %s", now, got, want)
		}
	}
	now = when.Add(time.Hour + previewsKept)
	kept("main/prod main/staging other/prod")
	now = now.Add(time.Second)
	kept("main/staging other/prod")
	must(t, s.write(ctx, "move on", func(tx *tx) error {
		_, err := tx.exec(ctx, `UPDATE lanes SET current_target = NULL`)
		return err
	}))
	kept("other/prod")
}
