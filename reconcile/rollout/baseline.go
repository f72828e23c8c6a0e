package rollout

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"towpath/deployment"
	"towpath/manifest"
)

// Baseline is a revision of pods that a canary is compared with: a copy of the one that carries the workload, under a name and a hash of its own. It has as
// many pods as the canary, which start when the canary's do, so that warm caches and old connections of the version before do not count for it.
type Baseline struct {
	Key  manifest.Key `json:"key"`
	Of   manifest.Key `json:"of"`
	Hash string       `json:"hash"`
}

// isBaseline reports whether a former revision is the baseline of another.
func (f Former) isBaseline() bool { return f.BaselineOf != (manifest.Key{}) }

// baselines adds those of the workloads that were whole when this rollout began. What did not run well is no measure, and would not come up a second time.
func (d *decision) baselines() {
	t := &d.Target
	if t.First || !d.compares() {
		return
	}
	for _, full := range t.Full {
		former := d.before(full)
		if former == nil || former.Ready < former.Count {
			continue
		}
		b := Former{Key: former.Key, Workload: former.Workload, Hash: former.Hash + "-baseline", BaselineOf: former.Key}
		b.Key.Name = baselineName(former.Key.Name)
		if i := slices.IndexFunc(t.Former, func(f Former) bool { return f.Key == b.Key }); i >= 0 { // left from a rollout that broke off
			t.Former[i].BaselineOf = b.BaselineOf
			continue
		}
		t.Former = append(t.Former, b)
	}
}

// mostName is how long the name of a ReplicaSet may be for those of its pods to begin with all of it: Kubernetes cuts them to 63 letters, of which a dash and
// five letters tell pods apart. Queries find pods by that beginning.
const mostName = 57

// baselineName is the name of the baseline of a ReplicaSet: always the same, and another than that of the baseline of any other.
func baselineName(of string) string {
	suffix := "-baseline"
	if len(of)+len(suffix) <= mostName {
		return of + suffix
	}
	sum := sha256.Sum256([]byte(of))
	suffix = "-" + hex.EncodeToString(sum[:5]) + suffix
	return strings.TrimRight(of[:mostName-len(suffix)], "-.") + suffix
}

// compares reports whether a step that is still to be done compares the canary with a baseline.
func (d *decision) compares() bool {
	t := &d.Target
	return slices.ContainsFunc(t.Canary[min(t.Step, len(t.Canary)):], Step.compares)
}

// compares reports whether a step compares the canary with a baseline.
func (s Step) compares() bool { return s.Analysis != nil && s.Analysis.Baseline }

// beside reports whether baselines have pods at the present step and weight.
func (d *decision) beside() bool {
	t := &d.Target
	return t.Weight > 0 && t.Weight <= deployment.MostCompared && d.compares() && slices.ContainsFunc(t.Former, Former.isBaseline)
}

// baselineOf is how many pods the baseline of a former revision has now: as many as the canary that it is compared with.
func (d *decision) baselineOf(key manifest.Key) int32 {
	t := &d.Target
	if !d.beside() || !slices.ContainsFunc(t.Former, func(f Former) bool { return f.BaselineOf == key }) {
		return 0
	}
	for i, full := range t.Full {
		if former := d.before(full); former != nil && former.Key == key {
			return d.share(t.Weight)[i].Count
		}
	}
	return 0
}

// baselinesAmong says of revisions which are baselines, so that they can be made.
func (t Target) baselinesAmong(replicas []Replicas) (all []Baseline) {
	for _, f := range t.Former {
		if f.isBaseline() && slices.ContainsFunc(replicas, func(r Replicas) bool { return r.Key == f.Key && r.Count > 0 }) {
			all = append(all, Baseline{f.Key, f.BaselineOf, f.Hash})
		}
	}
	return all
}

// compared is the names of the ReplicaSets that are compared: of several workloads, those of the first that changed. Empty when there is no baseline.
func (d *decision) compared() (canary, baseline string) {
	t := &d.Target
	if !d.beside() {
		return "", ""
	}
	for _, full := range t.Full {
		former := d.before(full)
		for _, f := range t.Former {
			if former != nil && f.BaselineOf == former.Key {
				return full.Key.Name, f.Key.Name
			}
		}
	}
	return "", ""
}

// uncompared says why there is no baseline.
func (d *decision) uncompared() string {
	if slices.ContainsFunc(d.Target.Full, func(r Replicas) bool { return d.before(r) != nil }) {
		return "what ran before was not whole, so there is no baseline to compare with"
	}
	return "no Deployment object changed, so there is nothing to compare"
}

// Compares reports whether a step of a way compares the canary with a baseline.
func (w Way) Compares() bool { return slices.ContainsFunc(w.Canary, Step.compares) }
