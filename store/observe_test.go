package store

import (
	"bytes"
	"crypto/rand"
	"path/filepath"
	"strings"
	"testing"

	"towpath/reconcile/rollout"
)

func observes(t *testing.T, s *Store, _ string) {
	if err := s.Resume(t.Context(), "ann"); err == nil || !strings.Contains(err.Error(), "nothing is held back: the controller does not observe") {
		t.Errorf("resume: %v", err)
	}
	must(t, s.Observe(t.Context()))
	must(t, s.Observe(t.Context())) // a restart in the middle
	if err := s.Start(t.Context(), begin("d0", moving("staging", "m1")), nil); err == nil || !strings.Contains(err.Error(), "observe since it was lost, and touch nothing; have them go on with: towpath-controller resume") {
		t.Errorf("a deployment of a controller that does not know: %v", err)
	}
	start := begin("d1", moving("staging", "m1"))
	start.Found(6)
	must(t, s.Start(t.Context(), start, nil))
	must(t, s.Observe(t.Context())) // now it knows of an application, by what it found itself
	d, err := s.Deployment(t.Context(), "main", "d1")
	must(t, err)
	if d.Number != 7 || d.Trigger.Kind != "rebuild" {
		t.Errorf("it is #%d by %+v", d.Number, d.Trigger)
	}
	found, err := s.Findings(t.Context())
	must(t, err)
	if len(found) != 1 || found[0].Compared || found[0].Target != "staging" {
		t.Errorf("found is %+v", found)
	}
	id := laneOf(t, s, "staging")
	lease, err := s.Claim(t.Context(), id, 1)
	must(t, err)
	lane, err := s.Lane(t.Context(), id)
	must(t, err)
	next := *lane.Current
	next.Phase, next.State, next.Differs = rollout.Waiting, rollout.AwaitingApproval, []string{"it differs"}
	must(t, s.Save(t.Context(), lease, rollout.Decision{Target: next, Changed: true}))
	if found, err = s.Findings(t.Context()); err != nil || len(found) != 1 || !found[0].Compared || found[0].Differs[0] != "it differs" {
		t.Errorf("found is %+v, %v", found, err)
	}
	must(t, s.Resume(t.Context(), "ann"))
	if on, err := s.Observing(t.Context()); err != nil || on {
		t.Errorf("it observes still: %t, %v", on, err)
	}
	if err := s.Observe(t.Context()); err == nil || !strings.Contains(err.Error(), "the database knows of 1 applications: --rebuild is for an empty one") {
		t.Errorf("a full database: %v", err)
	}
}

func TestNamesAreTheSameInADatabaseMadeAnewAndStayWhenKeysChange(t *testing.T) {
	key := func() []byte {
		k := make([]byte, 32)
		rand.Read(k)
		return k
	}
	named := func(file string, keys ...[]byte) []byte {
		s, err := Open(t.Context(), Config{URL: "sqlite:" + file, Keys: keys})
		must(t, err)
		defer s.Close()
		name, err := s.NamingKey(t.Context())
		must(t, err)
		return name
	}
	old, fresh, dir := key(), key(), t.TempDir()
	first := named(filepath.Join(dir, "one"), old)
	for what, other := range map[string][]byte{
		"after the first key was replaced":           named(filepath.Join(dir, "one"), fresh, old),
		"in a database made anew":                    named(filepath.Join(dir, "two"), old),
		"in one made anew after a key was put first": named(filepath.Join(dir, "three"), fresh, old),
	} {
		if !bytes.Equal(first, other) {
			t.Errorf("names are others %s", what)
		}
	}
	if bytes.Equal(first, named(filepath.Join(dir, "four"), fresh)) {
		t.Error("names do not depend on the key")
	}
}
