package rollout

import "slices"

// share is how many pods each new revision has at a weight. Without a former revision there is nothing to share with: it has all of them. Pods are given
// back only to a former one that was whole.
func (d *decision) share(weight int) []Replicas {
	t := &d.Target
	counts := make([]Replicas, len(t.Full))
	for i, full := range t.Full {
		counts[i] = full
		former := d.before(full)
		if former == nil || t.routed(full.Key) {
			continue
		}
		if counts[i].Count = portion(full.Count, weight); former.Ready < former.Count {
			counts[i].Count = max(counts[i].Count, t.Asked[i].Count)
		}
	}
	return counts
}

// before is the former revision that a new one takes over from; nil: there is none.
func (d *decision) before(full Replicas) *Former {
	t := &d.Target
	for _, r := range d.f.New.Revisions {
		if r.ReplicaSet != full.Key {
			continue
		}
		for i, f := range t.Former {
			if f.Stable && f.Workload == r.Workload.Name && f.Key.Namespace == r.Workload.Namespace {
				return &t.Former[i]
			}
		}
	}
	return nil
}

// portion of pods at a weight: rounded, but neither none nor all while both versions shall run.
func portion(full int32, weight int) int32 {
	switch {
	case weight <= 0:
		return 0
	case weight >= 100:
		return full
	}
	count := (full*int32(weight) + 50) / 100
	return min(max(count, 1), max(full-1, 1))
}

// left is how many pods a former revision keeps at the present weight: with the new ones as many as shall run in the end, but never more than it had.
func (d *decision) left(f Former) int32 {
	t := &d.Target
	switch {
	case f.isBaseline():
		return d.baselineOf(f.BaselineOf)
	case !f.Stable && (t.Weight >= 100 || d.whole(f)):
		return 0
	case !f.Stable:
		return f.Count // it serves, and may be all that does
	case t.Weight <= 0, t.routed(f.Key):
		return f.Count
	}
	for _, r := range d.f.New.Revisions {
		if r.Workload.Name != f.Workload || r.Workload.Namespace != f.Key.Namespace {
			continue
		}
		if t.Weight >= 100 {
			return 0
		}
		for _, full := range t.Full {
			if full.Key == r.ReplicaSet {
				return min(max(full.Count-portion(full.Count, t.Weight)-d.baselineOf(f.Key), 1), f.Count)
			}
		}
	}
	return f.Count // its workload left the manifests: it runs until it is pruned
}

// whole reports whether the revision that carries a former one's workload had all its pods ready when this deployment began.
func (d *decision) whole(of Former) bool {
	return slices.ContainsFunc(d.Target.Former, func(f Former) bool {
		return f.Stable && f.Workload == of.Workload && f.Key.Namespace == of.Key.Namespace && f.Ready >= f.Count
	})
}

// moves is what differs between the pods that were asked for and those of the present weight: what has to grow, and what may shrink once that is proved.
func (d *decision) moves() (raise, lower []Replicas) {
	t := &d.Target
	move := func(asked int32, want Replicas) {
		switch {
		case want.Count > asked:
			raise = append(raise, want)
		case want.Count < asked:
			lower = append(lower, want)
		}
	}
	for i, want := range d.share(t.Weight) {
		move(t.Asked[i].Count, want)
	}
	for _, f := range t.Former {
		move(f.Asked, Replicas{f.Key, d.left(f)})
	}
	return raise, lower
}

// ask records pods that were asked for, beside what was given: a decision changes nothing that it is made from.
func (d *decision) ask(replicas []Replicas) {
	t := &d.Target
	t.Asked, t.Former = slices.Clone(t.Asked), slices.Clone(t.Former)
	for _, r := range replicas {
		for i := range t.Asked {
			if t.Asked[i].Key == r.Key {
				t.Asked[i].Count = r.Count
			}
		}
		for i := range t.Former {
			if t.Former[i].Key == r.Key {
				t.Former[i].Asked = r.Count
			}
		}
	}
}
