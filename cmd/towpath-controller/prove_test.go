package main

import (
	"bytes"
	"strings"
	"testing"

	"towpath/reconcile"
	"towpath/reconcile/rollout"
)

// forge records something else of a target than its files come to, and begins anew with it, as a fault of ours would leave it.
func (w *walk) forge(t *testing.T, path string, change func(*rollout.RenderRecord)) {
	t.Helper()
	files, err := w.store.Files(t.Context(), "main", "repo")
	must(t, err)
	renders, err := w.store.Renders(t.Context(), "main", "repo")
	must(t, err)
	for _, f := range files {
		if f.Path != path {
			continue
		}
		record := rollout.FileRecord{Tenant: "main", Source: "repo", Path: f.Path, Commit: f.Commit, Application: f.Application, Digest: f.Digest}
		for _, r := range renders {
			if r.Path == path {
				change(&r)
				record.Renders = append(record.Renders, r)
			}
		}
		must(t, w.store.Record(t.Context(), record))
	}
	w.open()
}

func (w *walk) prove(t *testing.T, share float64) reconcile.Proof {
	t.Helper()
	proof, err := w.intake.Prove(t.Context(), w.asSource(), share)
	must(t, err)
	return proof
}

func TestWhatIsRecordedWronglyIsFoundAndPlannedAnew(t *testing.T) {
	t.Parallel()
	w := newWalk(t, 12, recordsOf(t))
	w.sync(t)
	first := w.renders.taken()
	if proof := w.prove(t, 1); proof.Rendered != len(first) || len(proof.Wrong) != 0 {
		t.Fatalf("what is right: %+v, of %d", proof, len(first))
	}
	if proof := w.prove(t, 0.01); proof.Rendered != 1 || len(proof.Wrong) != 0 {
		t.Errorf("a share of what is right: %+v", proof)
	}
	var path, other string
	for name, record := range first {
		if path == "" || name.path < path {
			path, other = name.path, record.Manifests
		}
	}
	for name, record := range first {
		if name.path != path {
			other = record.Manifests
		}
	}
	for name, c := range map[string]struct {
		change func(*rollout.RenderRecord)
		share  float64
		why    string
	}{
		"another result": {func(r *rollout.RenderRecord) { r.Manifests = other }, 1, "and " + other + " is recorded"},
		"an input that was seen otherwise": {func(r *rollout.RenderRecord) {
			at := bytes.Index(r.Trace, []byte(`"h":"f`)) + len(`"h":"f`)
			r.Trace = bytes.Clone(r.Trace)
			r.Trace[at] ^= 1
		}, 0.01, "what it depends on is not as it was seen, and no commit said so"},
	} {
		t.Run(name, func(t *testing.T) {
			targets := 0
			w.forge(t, path, func(r *rollout.RenderRecord) { c.change(r); targets++ })
			proof := w.prove(t, c.share)
			if len(proof.Wrong) != targets || targets == 0 || proof.Wrong[0].Path != path || !strings.Contains(proof.Wrong[0].Why, c.why) {
				t.Errorf("%d targets were forged, found: %+v", targets, proof.Wrong)
			}
			w.open()
			if proof := w.prove(t, 1); len(proof.Wrong) != 0 {
				t.Errorf("it stays wrong: %+v", proof.Wrong)
			}
		})
	}
}
