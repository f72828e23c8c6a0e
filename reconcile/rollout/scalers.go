package rollout

import (
	"slices"

	"towpath/manifest"
)

// Scaler is a HorizontalPodAutoscaler of the manifests, and the Deployment object or StatefulSet that it scales there.
type Scaler struct {
	Key      manifest.Key
	Workload manifest.Key
}

// nowhere is what an autoscaler is aimed at while it rests: a Deployment object that is not there. That of a Deployment object's manifest is not.
func (s Scaler) nowhere() manifest.Key {
	if s.Workload.Kind == "Deployment" {
		return s.Workload
	}
	return manifest.Key{Group: "apps", Kind: "Deployment", Namespace: s.Workload.Namespace, Name: s.Workload.Name + "-at-rest"}
}

// Aim is an autoscaler and what it scales: a revision, or the Deployment object of its manifest. While that is not there the autoscaler rests.
type Aim struct {
	Scaler manifest.Key `json:"scaler"`
	At     manifest.Key `json:"at"`
}

// scalers is those of the new manifests and of the last good ones; of StatefulSets, those of the ones that take the steps.
func (d *decision) scalers() []Scaler {
	all := slices.Clone(d.f.New.Scalers)
	for _, s := range d.f.Base.Scalers {
		if !slices.ContainsFunc(all, func(o Scaler) bool { return o.Key == s.Key }) {
			all = append(all, s)
		}
	}
	return slices.DeleteFunc(all, func(s Scaler) bool { return s.Workload.Kind == "StatefulSet" && d.Target.moving(s.Workload) == nil })
}

// still is the autoscalers of StatefulSets at rest: the manifests that are applied would wake them.
func (d *decision) still() []Aim {
	return slices.DeleteFunc(d.rest(), func(a Aim) bool {
		return !slices.ContainsFunc(d.scalers(), func(s Scaler) bool { return s.Key == a.Scaler && s.Workload.Kind == "StatefulSet" })
	})
}

// rest is all autoscalers at rest: while revisions change places each would undo what is done, or scale what is on its way out.
func (d *decision) rest() (all []Aim) {
	for _, s := range d.scalers() {
		all = append(all, Aim{s.Key, s.nowhere()})
	}
	return all
}

// aims is all autoscalers aimed at the revisions that carry their workloads in the end.
func (d *decision) aims() (all []Aim) {
	carrier := d.f.New.carrier
	if d.Target.Phase.stage() == backwards {
		carrier = d.former
	}
	for _, s := range d.scalers() {
		all = append(all, Aim{s.Key, carrier(s.Workload)})
	}
	return all
}

// aimsAt is the autoscalers of Deployment objects that are put back: those are scaled themselves.
func (d *decision) aimsAt(workloads []manifest.Key) (all []Aim) {
	for _, s := range d.scalers() {
		if slices.Contains(workloads, s.Workload) {
			all = append(all, Aim{s.Key, s.Workload})
		}
	}
	return all
}

// former is the revision that carried a workload when the target began; the workload itself where none did.
func (d *decision) former(workload manifest.Key) manifest.Key {
	t := &d.Target
	for _, f := range t.Former {
		if f.Stable && f.Workload == workload.Name && f.Key.Namespace == workload.Namespace {
			return f.Key
		}
	}
	if carrier := d.f.New.carrier(workload); slices.Contains(t.Kept, carrier) {
		return carrier
	}
	return workload
}

// carrier is the ReplicaSet of a workload; the workload itself where the set has none.
func (s Set) carrier(workload manifest.Key) manifest.Key {
	for _, r := range s.Revisions {
		if r.Workload == workload {
			return r.ReplicaSet
		}
	}
	return workload
}

// scaled reports whether an autoscaler says how many pods a workload has.
func (s Set) scaled(workload manifest.Key) bool {
	return slices.ContainsFunc(s.Scalers, func(o Scaler) bool { return o.Workload == workload })
}

// Aims is what the autoscalers of a release are aimed at, given its names.
func (k Kept) Aims(set Set) (all []Aim) {
	for _, s := range set.Scalers {
		if s.Workload.Kind == "StatefulSet" {
			continue // it is as its manifest has it
		}
		at := s.Workload
		if !k.Target.KeepDeployment {
			at = set.carrier(s.Workload)
		}
		for _, standIn := range k.Target.StandIns {
			if standIn.For == at {
				at = standIn.Is
			}
		}
		all = append(all, Aim{s.Key, at})
	}
	return all
}
