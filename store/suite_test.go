package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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

func oneClaims(t *testing.T, s *Store, _ string) {
	must(t, s.Start(t.Context(), begin("d1", moving("staging", "m1")), nil))
	id := laneOf(t, s, "staging")
	var won atomic.Int64
	var claiming sync.WaitGroup
	for range 10 {
		claiming.Go(func() {
			switch _, err := s.Claim(t.Context(), id, time.Minute); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, rollout.ErrLeased):
				t.Errorf("a claim that lost: %v", err)
			}
		})
	}
	claiming.Wait()
	if won.Load() != 1 {
		t.Errorf("%d claims won", won.Load())
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
	_, before, err := s.AgentsRemoved(t.Context(), -1)
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
	gone, newest, err := s.AgentsRemoved(t.Context(), before)
	if err != nil || len(gone) != 1 || gone[0].Tenant != "main" || gone[0].Name != "prod" {
		t.Errorf("removed since: %+v, %v", gone, err)
	}
	if gone, _, err := s.AgentsRemoved(t.Context(), newest); err != nil || len(gone) != 0 {
		t.Errorf("removed since then: %+v, %v", gone, err)
	}
	if all, err := s.Agents(t.Context(), "other"); err != nil || len(all) != 1 {
		t.Errorf("another tenant's: %+v, %v", all, err)
	}
}

func second(_ Agent, err error) error { return err }

func listed(t *testing.T, s *Store, _ string) {
	for _, name := range []string{"ann", "ci"} {
		_, err := s.CreateToken(t.Context(), Token{Tenant: "main", Name: name, Grants: []string{"view"}})
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
