package rollout

// share is how many pods each new revision has at a weight. Without a former revision there is nothing to share with: it has all of them.
func (d *decision) share(weight int) []Replicas {
	counts := make([]Replicas, len(d.Target.Full))
	for i, full := range d.Target.Full {
		counts[i] = full
		if d.shares(full) {
			counts[i].Count = portion(full.Count, weight)
		}
	}
	return counts
}

// shares reports whether a new revision takes over from a former one.
func (d *decision) shares(full Replicas) bool {
	for _, r := range d.f.New.Revisions {
		if r.ReplicaSet != full.Key {
			continue
		}
		for _, f := range d.Target.Former {
			if f.Stable && f.Workload == r.Workload.Name && f.Key.Namespace == r.Workload.Namespace {
				return true
			}
		}
	}
	return false
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
	case !f.Stable:
		return 0
	case t.Weight <= 0:
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
				return min(max(full.Count-portion(full.Count, t.Weight), 1), f.Count)
			}
		}
	}
	return f.Count // its workload left the manifests: it runs until it is pruned
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

// ask records pods that were asked for.
func (d *decision) ask(replicas []Replicas) {
	t := &d.Target
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
