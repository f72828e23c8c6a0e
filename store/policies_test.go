package store

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"towpath/deployment"
	"towpath/reconcile/rollout"
)

// policyFiles are kept as they were good last, beside what is wrong with the newest ones; history says what came into force, once.
func policyFiles(t *testing.T, s *Store, _ string) {
	was, err := s.PolicyFiles(t.Context(), "main", "platform")
	digest, missing := s.PolicyDigest(t.Context(), "main", "platform")
	if err = errors.Join(err, missing); err != nil || was.Commit != "" || digest != "" {
		t.Errorf("before any were read: %+v, %q, %v", was, digest, err)
	}
	good := rollout.PolicyFiles{Commit: "c1", Seen: "c1", Digest: "d1", Files: map[string]string{"policies/a.yaml": "version: v1\n"}}
	broken := good
	broken.Seen, broken.Problems = "c2", []deployment.Problem{{File: "policies/a.yaml", Line: 3, Column: 1, Severity: deployment.Error, Text: "no rule"}}
	mended := rollout.PolicyFiles{Commit: "c3", Seen: "c3", Digest: "d3", Files: map[string]string{"policies/b.yaml": "version: v1\n"}}
	for _, p := range []rollout.PolicyFiles{good, good, broken, broken, mended} {
		must(t, s.RecordPolicyFiles(t.Context(), "main", "platform", p))
		kept, err := s.PolicyFiles(t.Context(), "main", "platform")
		digest, missing := s.PolicyDigest(t.Context(), "main", "platform")
		if err = errors.Join(err, missing); err != nil || digest != p.Digest || kept.Commit != p.Commit || kept.Seen != p.Seen || len(kept.Files) != 1 || !slices.Equal(kept.Problems, p.Problems) {
			t.Errorf("recorded %+v, kept %+v, %q, %v", p, kept, digest, err)
		}
	}
	if other, err := s.PolicyDigest(t.Context(), "other", "platform"); err != nil || other != "" {
		t.Errorf("another tenant has %q, %v", other, err)
	}
	events, err := s.Events(t.Context(), EventFilter{Tenant: "main"})
	must(t, err)
	var said []string
	for _, e := range events {
		said = append(said, strings.TrimSuffix(e.Kind+" "+e.What+": "+e.Why, ": "))
	}
	want := []string{"policies.changed the rules of source platform at c1 are in force", "policies.refused the policy files of source platform at c2 are refused: no rule",
		"policies.changed the rules of source platform at c3 are in force"}
	if !slices.Equal(said, want) {
		t.Errorf("history:\n%s", strings.Join(said, "\n"))
	}
}
