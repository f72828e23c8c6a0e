package rollout

import (
	"fmt"
	"slices"
	"strings"

	"towpath/manifest"
)

// Fleet is a StatefulSet or DaemonSet of the manifests. Where a Deployment object has two revisions side by side it is one object, whose pods are replaced in
// their own places: its share of a canary is how many of them are of the version that is applied.
type Fleet struct {
	Key      manifest.Key
	Replicas *int32 // of a StatefulSet; nil: the manifest does not say
	Stays    int32  // pods of a StatefulSet that the manifest's own partition leaves as they are
	ByHand   bool   // its manifest leaves it to people to replace pods (OnDelete)
}

// Share is how many pods of a fleet shall be of the version that is applied.
type Share struct {
	Key    manifest.Key `json:"key"`
	Weight int          `json:"weight"` // 0–100, of the pods that it shall have when this is carried out; 100: as the manifest has it
	Stays  int32        `json:"stays,omitempty"`
	Scaled bool         `json:"scaled,omitempty"` // an autoscaler says how many pods there are: what runs is kept, whatever its manifest says
}

// Of is that share of so many pods.
func (s Share) Of(pods int32) int32 {
	return max(min(portion(pods, s.Weight), pods-s.Stays), 0)
}

// Moving is a fleet that takes the steps of a canary, with the share that was last asked of it.
type Moving struct {
	Share
	Pods  int32 `json:"pods,omitempty"`  // that it shall have, as it was last read
	Fresh int32 `json:"fresh,omitempty"` // of them of the version that was applied and ready, at most so far
}

// takes reports whether a fleet takes the steps of a canary.
func (w Way) takes(f Fleet) bool { return slices.Contains(w.Workloads, f.Key.Kind) }

// Balks says why a set without Deployment objects, or with fleets, cannot take the steps of a way; "" when it can.
func Balks(w Way, set Set) string {
	if len(set.Revisions) == 0 && w.Compares() {
		return "an analysis compares the canary with a baseline, which only Deployment objects can have, and there is none in the manifests; leave baseline: true out, or give this target a strategy of its own"
	}
	for _, f := range set.Fleets {
		switch {
		case !w.takes(f):
		case f.ByHand:
			return fmt.Sprintf("%s has the updateStrategy OnDelete, which leaves it to people to replace its pods, so it cannot take the steps of a canary; "+
				"write RollingUpdate, or leave %s out of canary.workloads", f.Key, f.Key.Kind)
		case len(w.Traffic) > 0 && len(set.Revisions) == 0:
			return fmt.Sprintf("trafficManagement divides the traffic of Deployment objects, and there is none: the share of %s is one of pods; "+
				"leave this target out of trafficManagement.targets", f.Key)
		}
	}
	return ""
}

// Progress says how far the fleets of a target are, while it moves; "" when it has none.
func (t Target) Progress() string {
	if t.State.Final() || t.Phase.stage() != moving {
		return ""
	}
	var all []string
	for _, m := range t.Fleets {
		if m.Pods > 0 {
			all = append(all, fmt.Sprintf("%d of %d pods of %s %s run #%d", m.Fresh, m.Pods, m.Key.Kind, m.Key.Name, t.Number))
		}
	}
	return strings.Join(all, "; ")
}

// muster finds the fleets that take the steps: those that run by the last good manifests. One that is there for the first time, or that somebody else made,
// has nothing to go back to, so it is applied as it is.
func (d *decision) muster() {
	t := &d.Target
	t.Fleets = nil
	steps := false
	for _, f := range d.f.New.Fleets {
		if !t.takes(f) {
			continue
		}
		steps = true
		runs := slices.ContainsFunc(d.f.Look.Fleets, func(l Live) bool { return l.Key == f.Key && !l.Missing })
		if runs && slices.ContainsFunc(d.f.Base.Fleets, func(b Fleet) bool { return b.Key == f.Key }) {
			t.Fleets = append(t.Fleets, Moving{Share: Share{Key: f.Key, Stays: f.Stays, Scaled: d.f.New.scaled(f.Key)}})
		}
	}
	switch {
	case len(t.Fleets) > 0:
		t.First = false
	case steps && len(d.f.New.Revisions) == 0:
		t.First = true
	}
}

// replaces reports whether something ran that gives way to the new version, a share at a time.
func (d *decision) replaces() bool { return len(d.Target.Former) > 0 || len(d.Target.Fleets) > 0 }

// moving is the fleet of that key that takes the steps; nil: none does.
func (t *Target) moving(key manifest.Key) *Moving {
	for i := range t.Fleets {
		if t.Fleets[i].Key == key {
			return &t.Fleets[i]
		}
	}
	return nil
}

// shares is what the fleets have at a weight.
func (d *decision) shares(weight int) []Share {
	all := d.given()
	for i := range all {
		all[i].Weight = weight
	}
	return all
}

// given is what was last asked of the fleets.
func (d *decision) given() (all []Share) {
	for _, m := range d.Target.Fleets {
		all = append(all, m.Share)
	}
	return all
}

// unshared reports whether fleets have another share than the present one.
func (d *decision) unshared() bool {
	t := &d.Target
	return slices.ContainsFunc(t.Fleets, func(m Moving) bool { return m.Weight != t.Weight })
}

// replacing gives fleets their shares. It is repeated for each batch of a DaemonSet, which has no partition: what a batch is depends on what is ready then.
func (d *decision) replacing(shares []Share) Action {
	action := Action{Kind: Apply, Manifests: d.Target.Manifests, Share: shares}
	for _, s := range shares {
		action.Only = append(action.Only, s.Key)
	}
	return action
}

// replace carries out what weigh intended.
func (d *decision) replace() {
	if d.done() {
		d.shared(d.Target.Intent.Share)
		d.prove(Settling)
	}
}

// shared records shares that were given, beside what was; a fleet without one is as its manifest has it.
func (d *decision) shared(shares []Share) {
	t := &d.Target
	t.Fleets = slices.Clone(t.Fleets)
	for i := range t.Fleets {
		m := &t.Fleets[i]
		m.Weight, m.Fresh = 100, 0
		for _, s := range shares {
			if s.Key == m.Key {
				m.Weight = s.Weight
			}
		}
	}
}

// judgeFleet adds what a look says of a fleet. One that is proved stays open until all are, by one and the same read.
func (d *decision) judgeFleet(j *judgement, m Moving, l Live) {
	number := d.Target.Number
	if d.Target.Phase.stage() == backwards {
		number = d.Target.Base.Number
	}
	shall := m.Of(l.Replicas)
	switch {
	case !l.Within:
		j.unready = append(j.unready, l.Key.String()+": its controller has not seen yet what is wanted of it")
	case m.Weight >= 100 && l.Health == Healthy, m.Weight < 100 && l.Fresh >= shall:
	default:
		why := fmt.Sprintf("%s: %d of %d pods of #%d ready", l.Key, l.Fresh, shall, number)
		if l.Message != "" {
			why += ": " + l.Message
		}
		j.unready = append(j.unready, why)
		j.silent = true
		if l.Stuck {
			j.stuck = append(j.stuck, l.Key)
		}
		if l.Due {
			j.due = append(j.due, m.Share)
		}
	}
}

// count notes how far fleets are. Each pod more gives the rest of them the timeout anew: it is how long pods may take, and they are replaced one after
// another.
func (d *decision) count() {
	t := &d.Target
	for _, l := range d.f.Look.Fleets {
		if m := t.moving(l.Key); m == nil || !l.Within || l.Fresh <= m.Fresh && l.Replicas == m.Pods {
			continue
		}
		t.Fleets = slices.Clone(t.Fleets)
		m := t.moving(l.Key)
		if l.Fresh > m.Fresh {
			t.Deadline = d.f.Now.Add(t.Timeout)
		}
		m.Pods, m.Fresh, d.Changed = l.Replicas, max(l.Fresh, m.Fresh), true
	}
}
