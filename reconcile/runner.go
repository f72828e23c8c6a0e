// Package reconcile carries deployments forward: it plans what a change would do, and runs each lane: load, gather facts, decide, record the
// intent, carry it out, record what came of it. What is right to do is decided in reconcile/rollout; how a cluster, a repository or the store
// does it is theirs. Its jobs may be repeated, delayed and killed at any line.
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// lanes is what a Runner needs of the store. Safe for concurrent use.
type lanes interface {
	// Claim takes the lane for a while; rollout.ErrLeased when another run has it.
	Claim(ctx context.Context, lane int64, lasts time.Duration) (rollout.Lease, error)
	// Extend makes a lease last from now on; rollout.ErrStale when it was lost.
	Extend(ctx context.Context, lease rollout.Lease, lasts time.Duration) (rollout.Lease, error)
	// Lane is one consistent read of all that is known about a lane.
	Lane(ctx context.Context, lane int64) (rollout.Lane, error)
	// Save records a decision and all that follows from it (inventory, waits, events, messages to send, wakes of others) in one transaction;
	// rollout.ErrStale when the lease was lost or the target is no longer the lane's current one.
	Save(ctx context.Context, lease rollout.Lease, d rollout.Decision) error
	// Rest gives the lane back, to be woken at due (zero: only by an event). It reports false, and gives nothing back, when it was woken since
	// seq was read.
	Rest(ctx context.Context, lease rollout.Lease, seq int64, due time.Time) (bool, error)
	// AccountOf is whose lane it is, and on which account; that never changes.
	AccountOf(ctx context.Context, lane int64) (tenant, account string, err error)
	// Wake makes the lane be run again, now.
	Wake(ctx context.Context, lane int64) error
	// Manifests opens a sealed set.
	Manifests(ctx context.Context, digest string) ([]manifest.Object, error)
}

// Cluster is one cluster, reached through its agent. Reads are fresh; a write says what the object shall be, so repeating one is harmless.
type Cluster interface {
	// Apply, Shift, Adopt and PutBack carry out the action of that name; objects are those of its sealed set.
	Apply(ctx context.Context, id rollout.Identity, objects []manifest.Object, a rollout.Action) rollout.Outcome
	Shift(ctx context.Context, id rollout.Identity, a rollout.Action) rollout.Outcome
	Adopt(ctx context.Context, id rollout.Identity, objects []manifest.Object, a rollout.Action) rollout.Outcome
	PutBack(ctx context.Context, id rollout.Identity, objects []manifest.Object, a rollout.Action) rollout.Outcome
	// RunHook makes a hook of its sealed set, in the place of one that an earlier deployment made.
	RunHook(ctx context.Context, id rollout.Identity, objects []manifest.Object, a rollout.Action) rollout.Outcome
	// Free removes the pods that hold up the rollouts of StatefulSets.
	Free(ctx context.Context, id rollout.Identity, a rollout.Action) rollout.Outcome
	Remove(ctx context.Context, id rollout.Identity, keys []manifest.Key) rollout.Outcome
	// Look reads what is asked for; namespaces are those in which the target has objects.
	Look(ctx context.Context, id rollout.Identity, read rollout.Read, namespaces []string) rollout.Look
	// Routes fills in what a file leaves out of routes: from the manifests, else from what the cluster has. A route that is not there, or that several may be
	// meant by, is a failure.
	Routes(ctx context.Context, id rollout.Identity, objects []manifest.Object, wanted []rollout.Route) ([]rollout.Route, *rollout.Failure)
	// Survey says which objects of a target on which nothing is done yet differ from its manifests, and which say that they are the target's.
	Survey(ctx context.Context, k rollout.Kept, objects []manifest.Object, namespaces []string) rollout.Look
	// Watch calls wake, not more often than each 100 ms, when an object of the target may have changed, until stop is called. It returns once
	// any later change will be seen.
	Watch(ctx context.Context, id rollout.Identity, keys []manifest.Key, wake func()) (stop func(), err error)
}

// Clusters gives the cluster of an account.
type Clusters interface {
	Connected(tenant, account string) bool
	Cluster(tenant, account string) Cluster
}

// Runner moves lanes. Its methods may be called concurrently; two runs of one lane never act at the same time.
type Runner struct {
	Lanes    lanes
	Clusters Clusters
	// Names says what a set of objects is called once it is applied: which ReplicaSets its Deployment objects become. The same objects are always called
	// the same.
	Names  func(objects []manifest.Object) (rollout.Set, error)
	Limits rollout.Limits
	Timers *Timers
	Clock  func() time.Time
	Log    *logrus.Entry
	// Lease is how long a run may go without extending its lease; it exceeds the longest request to a cluster.
	Lease time.Duration
	// Earlier, when set, is what a target was asked for by the commit of an earlier deployment; nil where that is not known any more.
	Earlier func(ctx context.Context, t rollout.Target, commit string) *rollout.Release
	// Settled, when set, is told that nothing runs on a lane. It must not block.
	Settled func(lane int64)

	mu      sync.Mutex
	of      map[int64][2]string    // tenant and account of lanes
	crowds  map[[2]string]*crowd   // by tenant and account
	watches map[int64]watch        // by lane
	named   map[string]rollout.Set // by digest of the manifests
}

// watch is what watches the open objects of one phase of one target.
type watch struct {
	target int64
	phase  rollout.Phase
	epoch  int64 // of the lease of the newest run that wants it
	stop   func()
}

// perCluster is how many lanes of one cluster are run at once: a cluster that answers slowly holds up its own lanes and leaves workers for those of others.
const perCluster = 64

// crowd is the runs of one cluster's lanes.
type crowd struct {
	running int
	waiting []int64 // lanes that are woken again when others have left
}

// enter takes a place among the runs of a lane's cluster. Where there is none the lane is woken again once there is: whoever waited here would keep a worker
// from the lanes of other clusters.
func (r *Runner) enter(ctx context.Context, lane int64) (leave func(), entered bool, err error) {
	r.mu.Lock()
	of, known := r.of[lane]
	r.mu.Unlock()
	if !known {
		if of[0], of[1], err = r.Lanes.AccountOf(ctx, lane); err != nil {
			return nil, false, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of == nil {
		r.of, r.crowds = map[int64][2]string{}, map[[2]string]*crowd{}
	}
	r.of[lane] = of
	if r.crowds[of] == nil {
		r.crowds[of] = &crowd{}
	}
	c := r.crowds[of]
	if c.running >= perCluster {
		if !slices.Contains(c.waiting, lane) {
			c.waiting = append(c.waiting, lane)
		}
		return nil, false, nil
	}
	c.running++
	return func() { r.left(ctx, c) }, true, nil
}

// left gives a place back, and wakes the lane that has waited longest for one. A wake that is lost with the process is given again at the next start.
func (r *Runner) left(ctx context.Context, c *crowd) {
	r.mu.Lock()
	c.running--
	if len(c.waiting) == 0 {
		r.mu.Unlock()
		return
	}
	lane := c.waiting[0]
	c.waiting = slices.Delete(c.waiting, 0, 1)
	r.mu.Unlock()
	if err := r.Lanes.Wake(ctx, lane); err != nil && ctx.Err() == nil {
		r.Log.WithError(err).WithField("lane", lane).Error("a lane that waited for others of its cluster could not be woken; it goes on at its next wake")
	}
}

// Run carries a lane forward until it must wait, then gives it back; at once where too many lanes of its cluster run. It returns an error only when the store failed; the lane is then woken again
// when its lease has ended.
func (r *Runner) Run(ctx context.Context, lane int64) error {
	leave, entered, err := r.enter(ctx, lane)
	if err != nil {
		return fmt.Errorf("lane %d: %w", lane, err)
	}
	if !entered {
		return nil
	}
	defer leave()
	lease, err := r.Lanes.Claim(ctx, lane, r.Lease)
	switch {
	case errors.Is(err, rollout.ErrLeased):
		return nil
	case err != nil:
		return fmt.Errorf("lane %d: %w", lane, err)
	}
	return r.carry(ctx, lease)
}

// carry is Run of a lane that is held.
func (r *Runner) carry(ctx context.Context, lease rollout.Lease) error {
	for {
		resting, err := r.advance(ctx, &lease)
		switch {
		case errors.Is(err, rollout.ErrStale):
			r.unwatch(lease)
			return nil
		case err != nil:
			return fmt.Errorf("lane %d: %w", lease.Lane, err)
		case resting:
			return nil
		}
	}
}

// Restore carries out an action on a lane on which nothing runs and which still has this release; done is false where that is not so, or another run has
// the lane. What came to the lane meanwhile is carried forward.
func (r *Runner) Restore(ctx context.Context, k rollout.Kept, a rollout.Action) (outcome rollout.Outcome, done bool, err error) {
	lease, err := r.Lanes.Claim(ctx, k.Lane, r.Lease)
	if errors.Is(err, rollout.ErrLeased) {
		return outcome, false, nil
	}
	if err != nil {
		return outcome, false, fmt.Errorf("lane %d: %w", k.Lane, err)
	}
	lane, err := r.Lanes.Lane(ctx, k.Lane)
	if err == nil && lane.Current == nil && lane.Good != nil && *lane.Good == k.Release {
		t := k.Target
		t.Phase = rollout.Finished
		outcome, done = r.within(ctx, lease, t, a), true
	}
	return outcome, done, errors.Join(err, r.carry(ctx, lease))
}

// advance decides until nothing is left to do with what is known, then rests. resting is false when there is more to do.
func (r *Runner) advance(ctx context.Context, lease *rollout.Lease) (resting bool, err error) {
	lane, err := r.Lanes.Lane(ctx, lease.Lane)
	if err != nil {
		return false, err
	}
	if lane.Current == nil {
		r.unwatch(*lease)
		if resting, err = r.Lanes.Rest(ctx, *lease, lane.Seq, time.Time{}); resting && r.Settled != nil {
			r.Settled(lease.Lane)
		}
		return resting, err
	}
	target := *lane.Current
	facts, err := r.facts(ctx, lane)
	if err != nil {
		return false, err
	}
	for {
		facts.Now = r.Clock().UTC()
		facts.Connected = r.Clusters.Connected(target.Tenant, target.Account)
		d := rollout.Decide(target, facts)
		if d.Changed {
			if *lease, err = r.extend(ctx, *lease); err != nil {
				return false, err
			}
			err := r.Lanes.Save(ctx, *lease, d)
			if errors.As(err, &facts.Taken) {
				continue
			}
			if err != nil {
				return false, err
			}
			target = d.Target
		}
		acted := facts.Outcome != nil
		facts.Look, facts.Outcome = nil, nil
		switch {
		case d.Read != nil && !acted: // what was loaded before an action is old
			look := r.look(ctx, *lease, lane, target, *d.Read)
			facts.Look = &look
		case d.Act != nil:
			if *lease, err = r.extend(ctx, *lease); err != nil {
				return false, err
			}
			outcome := r.within(ctx, *lease, target, *d.Act)
			facts.Outcome = &outcome
		case d.Changed:
			return false, nil
		default:
			if one := []manifest.Key{{}}; len(watched(target, rollout.Read{Objects: one, Workloads: one})) == 0 {
				r.unwatch(*lease)
			}
			resting, err := r.Lanes.Rest(ctx, *lease, lane.Seq, d.Due)
			if resting && !d.Due.IsZero() {
				r.Timers.Set(lane.ID, d.Due)
			}
			return resting, err
		}
	}
}

// within acts no longer than the lease lasts: what is sent later than that could undo what the next holder did.
func (r *Runner) within(ctx context.Context, lease rollout.Lease, t rollout.Target, a rollout.Action) rollout.Outcome {
	ctx, cancel := context.WithTimeout(ctx, lease.Until.Sub(r.Clock()))
	defer cancel()
	return r.act(ctx, t, a)
}

// extend keeps the lease ahead of the longest request; most calls find it long enough.
func (r *Runner) extend(ctx context.Context, lease rollout.Lease) (rollout.Lease, error) {
	if lease.Until.Sub(r.Clock()) > r.Lease/2 {
		return lease, nil
	}
	return r.Lanes.Extend(ctx, lease, r.Lease)
}

// facts gathers what Decide needs and the store knows.
func (r *Runner) facts(ctx context.Context, lane rollout.Lane) (rollout.Facts, error) {
	t := lane.Current
	f := rollout.Facts{Good: lane.Good, Inventory: lane.Inventory, Dependencies: lane.Dependencies, Words: lane.Words, Calls: lane.Calls, Judged: lane.Judged, Links: lane.Links,
		Cancel: lane.Cancel, Hold: lane.Hold, ReplacedBy: lane.ReplacedBy, Replaced: lane.Replaced, Limits: r.Limits}
	var err error
	if !t.Removes {
		if f.New, err = r.names(ctx, t.Manifests); err != nil {
			return f, err
		}
	}
	if base := t.GoesBackTo(lane.Good); base != nil {
		if f.Base, err = r.names(ctx, base.Manifests); err != nil {
			return f, err
		}
	}
	return f, nil
}

// remembered is how many sets' names are kept: a rollout asks for the same ones at each of its steps.
const remembered = 1000

func (r *Runner) names(ctx context.Context, digest string) (rollout.Set, error) {
	r.mu.Lock()
	set, known := r.named[digest]
	r.mu.Unlock()
	if known {
		return set, nil
	}
	objects, err := r.Lanes.Manifests(ctx, digest)
	if err != nil {
		return rollout.Set{}, err
	}
	if set, err = r.Names(objects); err != nil {
		return set, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.named == nil || len(r.named) >= remembered {
		r.named = map[string]rollout.Set{}
	}
	r.named[digest] = set
	return set, nil
}

// look reads the cluster afresh. While objects are to become healthy the watch is open before the read, so no change falls between them.
func (r *Runner) look(ctx context.Context, lease rollout.Lease, lane rollout.Lane, t rollout.Target, read rollout.Read) rollout.Look {
	cluster := r.Clusters.Cluster(t.Tenant, t.Account)
	if keys := watched(t, read); len(keys) > 0 {
		if err := r.watch(ctx, cluster, lease, t, keys); err != nil {
			return rollout.Look{Failure: failure(err)}
		}
	}
	if read.Survey {
		return r.survey(ctx, cluster, t)
	}
	found := cluster.Look(ctx, t.Identity(), read, namespaces(t, read, lane.Inventory))
	if len(read.Routes) > 0 && found.Failure == nil {
		found.Routes, found.Failure = r.routes(ctx, cluster, t, read.Routes)
	}
	return found
}

// routes finds what divides traffic: in the manifests, else in the cluster.
func (r *Runner) routes(ctx context.Context, cluster Cluster, t rollout.Target, wanted []rollout.Route) ([]rollout.Route, *rollout.Failure) {
	objects, err := r.Lanes.Manifests(ctx, t.Manifests)
	if err != nil {
		return nil, failure(err)
	}
	return cluster.Routes(ctx, t.Identity(), objects, wanted)
}

// survey holds a target on which nothing is done yet against its cluster, and finds what it was asked for before.
func (r *Runner) survey(ctx context.Context, cluster Cluster, t rollout.Target) rollout.Look {
	objects, err := r.Lanes.Manifests(ctx, t.Manifests)
	if err != nil {
		return rollout.Look{Failure: failure(err)}
	}
	keys := make([]manifest.Key, len(objects))
	for i, o := range objects {
		keys[i] = o.Key
	}
	look := cluster.Survey(ctx, rollout.Kept{Lane: t.Lane, Identity: t.Identity(), Target: t}, objects, namespaces(t, rollout.Read{}, keys))
	if look.Failure != nil || t.Ran == "" || r.Earlier == nil {
		return look
	}
	if look.Ran = r.Earlier(ctx, t, t.Ran); look.Ran != nil {
		if look.RanSet, err = r.names(ctx, look.Ran.Manifests); err != nil {
			look.Ran = nil
		}
	}
	return look
}

// watched is the objects of a read whose next change the target waits for.
func watched(t rollout.Target, read rollout.Read) []manifest.Key {
	switch {
	case t.Phase == rollout.Settling, t.Phase == rollout.Draining, t.Phase == rollout.Recovering, t.Phase == rollout.Regaining,
		t.Phase == rollout.Vacating:
		keys := slices.Clone(read.Objects)
		for _, fleet := range read.Fleets {
			keys = append(keys, fleet.Key)
		}
		return keys
	case t.Phase == rollout.Redirecting, t.Phase == rollout.Overlapping, t.Phase == rollout.Hooking, t.Phase == rollout.Concluding:
		return read.Objects
	case slices.ContainsFunc(t.Waits, func(w rollout.Wait) bool { return w.Kind == rollout.WaitTakeOver }):
		return read.Workloads
	}
	return nil
}

// namespaces in which a target has, or will have, objects.
func namespaces(t rollout.Target, read rollout.Read, inventory []manifest.Key) []string {
	var names []string
	add := func(keys []manifest.Key) {
		for _, key := range keys {
			if key.Namespace != "" && !slices.Contains(names, key.Namespace) {
				names = append(names, key.Namespace)
			}
		}
	}
	if t.Namespace != "" {
		names = append(names, t.Namespace)
	}
	add(read.Workloads)
	for _, f := range t.Former {
		add([]manifest.Key{f.Key})
	}
	add(inventory)
	slices.Sort(names)
	return names
}

func (r *Runner) watch(ctx context.Context, cluster Cluster, lease rollout.Lease, t rollout.Target, keys []manifest.Key) error {
	if r.watched(lease, t) {
		return nil
	}
	r.unwatch(lease)
	stop, err := cluster.Watch(ctx, t.Identity(), keys, func() {
		if err := r.Lanes.Wake(context.WithoutCancel(ctx), lease.Lane); err != nil {
			r.Log.WithError(err).WithField("lane", lease.Lane).Error("a change in the cluster could not wake its lane; its timer will")
		}
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	open, found := r.watches[lease.Lane]
	if found && open.epoch > lease.Epoch { // the lease was lost meanwhile, to a run that has its own
		r.mu.Unlock()
		stop()
		return nil
	}
	if r.watches == nil {
		r.watches = map[int64]watch{}
	}
	r.watches[lease.Lane] = watch{t.ID, t.Phase, lease.Epoch, stop}
	r.mu.Unlock()
	return nil
}

// watched reports whether what a target waits for is watched already; the watch is this run's from now on.
func (r *Runner) watched(lease rollout.Lease, t rollout.Target) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	open, found := r.watches[lease.Lane]
	if !found || open.target != t.ID || open.phase != t.Phase {
		return false
	}
	open.epoch = max(open.epoch, lease.Epoch)
	r.watches[lease.Lane] = open
	return true
}

// unwatch ends a lane's watch, but not that of a newer run: one that lost its lease leaves alone what the holder waits for.
func (r *Runner) unwatch(lease rollout.Lease) {
	r.mu.Lock()
	open, found := r.watches[lease.Lane]
	ours := found && open.epoch <= lease.Epoch
	if ours {
		delete(r.watches, lease.Lane)
	}
	r.mu.Unlock()
	if ours {
		open.stop()
	}
}

// Close ends all watches.
func (r *Runner) Close() {
	r.mu.Lock()
	watches := r.watches
	r.watches = nil
	r.mu.Unlock()
	for _, open := range watches {
		open.stop()
	}
}

// act carries out an action. Whether it was carried out before makes no difference to the cluster.
func (r *Runner) act(ctx context.Context, t rollout.Target, a rollout.Action) rollout.Outcome {
	cluster := r.Clusters.Cluster(t.Tenant, t.Account)
	switch a.Kind {
	case rollout.Apply:
		id, back := t.Identity(), t.Phase == rollout.Reverting
		if back {
			id = t.BaseIdentity()
		}
		objects, err := r.Lanes.Manifests(ctx, a.Manifests)
		if err != nil {
			return rollout.Outcome{Failure: failure(err)}
		}
		if back {
			objects = slices.DeleteFunc(slices.Clone(objects), isJob)
		}
		return cluster.Apply(ctx, id, objects, a)
	case rollout.Adopt, rollout.PutBack, rollout.RunHook:
		objects, err := r.Lanes.Manifests(ctx, a.Manifests)
		if err != nil {
			return rollout.Outcome{Failure: failure(err)}
		}
		switch a.Kind {
		case rollout.Adopt:
			return cluster.Adopt(ctx, t.Identity(), objects, a)
		case rollout.RunHook:
			return cluster.RunHook(ctx, t.Identity(), objects, a)
		}
		return cluster.PutBack(ctx, t.Identity(), objects, a)
	case rollout.Shift:
		return cluster.Shift(ctx, t.Identity(), a)
	case rollout.Free:
		return cluster.Free(ctx, t.Identity(), a)
	case rollout.Remove:
		return cluster.Remove(ctx, t.Identity(), a.Remove)
	}
	return rollout.Outcome{Failure: &rollout.Failure{Class: rollout.Refused, Text: fmt.Sprintf("no action %q is known to this version", a.Kind)}}
}

// isJob reports whether an object runs once: going back must not run it again.
func isJob(o manifest.Object) bool { return o.Group == "batch" && o.Kind == "Job" }

func failure(err error) *rollout.Failure {
	var f *rollout.Failure
	if errors.As(err, &f) {
		return f
	}
	return &rollout.Failure{Class: rollout.Trouble, Text: err.Error()}
}
