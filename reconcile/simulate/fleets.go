package simulate

import (
	"slices"
	"time"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// fleet is what a StatefulSet or DaemonSet has of the pods that it replaces one after another.
type fleet struct {
	pods   int32
	had    int32 // of the new version when the last share was asked for
	wanted int32 // of the new version
	since  time.Time
}

// share gives an object that is a fleet its share; what has none is applied like everything else.
func (c *cluster) share(set rollout.Set, o *object, a rollout.Action, now time.Time) (shared bool) {
	i := slices.IndexFunc(set.Fleets, func(f rollout.Fleet) bool { return f.Key == o.live.Key })
	s := slices.IndexFunc(a.Share, func(s rollout.Share) bool { return s.Key == o.live.Key })
	if i < 0 || s < 0 {
		o.fleet = nil
		return false
	}
	if o.fleet == nil {
		o.fleet = &fleet{pods: unsaid}
		if replicas := set.Fleets[i].Replicas; replicas != nil {
			o.fleet.pods = *replicas
		}
	}
	f := o.fleet
	f.had, f.since, f.wanted = c.fresh(o, now), now, a.Share[s].Of(f.pods)
	o.never = c.never && o.from == newManifests && f.wanted > f.had
	o.ready = now.Add(time.Duration(max(f.wanted-f.had, 0)) * c.readyAfter)
	return true
}

// fresh is how many pods of the new version are ready.
func (c *cluster) fresh(o *object, now time.Time) int32 {
	f := o.fleet
	switch {
	case o.never:
		return f.had
	case c.readyAfter == 0, !now.Before(o.ready):
		return f.wanted
	}
	return min(f.had+int32(now.Sub(f.since)/c.readyAfter), f.wanted)
}

// fleets is what a read shows of fleets.
func (c *cluster) fleets(shares []rollout.Share, now time.Time) (all []rollout.Live) {
	for _, s := range shares {
		o := c.objects[s.Key]
		if o == nil {
			all = append(all, rollout.Live{Key: s.Key, Missing: true})
			continue
		}
		live := o.at(now)
		live.Within, live.Message = true, ""
		if o.fleet != nil {
			live.Replicas, live.Fresh = o.fleet.pods, c.fresh(o, now)
		}
		all = append(all, live)
	}
	return all
}

// step is when an object is further than it is now; zero: it never is.
func (c *cluster) step(o *object, now time.Time) time.Time {
	switch {
	case o.never, !o.ready.After(now):
		return time.Time{}
	case o.fleet == nil, c.readyAfter == 0:
		return o.ready
	}
	return o.fleet.since.Add((now.Sub(o.fleet.since)/c.readyAfter + 1) * c.readyAfter)
}

// isFleet reports whether an object of the manifests is a fleet.
func isFleet(set rollout.Set, key manifest.Key) bool {
	return slices.ContainsFunc(set.Fleets, func(f rollout.Fleet) bool { return f.Key == key })
}
