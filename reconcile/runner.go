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
	// Wake makes the lane be run again, now.
	Wake(ctx context.Context, lane int64) error
	// Manifests opens a sealed set.
	Manifests(ctx context.Context, digest string) ([]manifest.Object, error)
}

// Cluster is one cluster, reached through its agent. Reads are fresh; a write says what the object shall be, so repeating one is harmless.
type Cluster interface {
	Apply(ctx context.Context, id rollout.Identity, objects []manifest.Object, replicas []rollout.Replicas) rollout.Outcome
	Scale(ctx context.Context, id rollout.Identity, replicas []rollout.Replicas) rollout.Outcome
	Remove(ctx context.Context, id rollout.Identity, keys []manifest.Key) rollout.Outcome
	// Look reads what is asked for; namespaces are those in which the target has objects.
	Look(ctx context.Context, id rollout.Identity, read rollout.Read, namespaces []string) rollout.Look
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

	mu      sync.Mutex
	watches map[int64]watch        // by lane
	named   map[string]rollout.Set // by digest of the manifests
}

// watch is what watches the open objects of one phase of one target.
type watch struct {
	target int64
	phase  rollout.Phase
	stop   func()
}

// Run carries a lane forward until it must wait, then gives it back. It returns an error only when the store failed; the lane is then woken again
// when its lease has ended.
func (r *Runner) Run(ctx context.Context, lane int64) error {
	lease, err := r.Lanes.Claim(ctx, lane, r.Lease)
	switch {
	case errors.Is(err, rollout.ErrLeased):
		return nil
	case err != nil:
		return fmt.Errorf("lane %d: %w", lane, err)
	}
	for {
		resting, err := r.advance(ctx, &lease)
		switch {
		case errors.Is(err, rollout.ErrStale):
			r.unwatch(lane)
			return nil
		case err != nil:
			return fmt.Errorf("lane %d: %w", lane, err)
		case resting:
			return nil
		}
	}
}

// advance decides until nothing is left to do with what is known, then rests. resting is false when there is more to do.
func (r *Runner) advance(ctx context.Context, lease *rollout.Lease) (resting bool, err error) {
	lane, err := r.Lanes.Lane(ctx, lease.Lane)
	if err != nil {
		return false, err
	}
	if lane.Current == nil {
		r.unwatch(lane.ID)
		return r.Lanes.Rest(ctx, *lease, lane.Seq, time.Time{})
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
			look := r.look(ctx, lane, target, *d.Read)
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
			if target.Phase != rollout.Settling && target.Phase != rollout.Recovering {
				r.unwatch(lane.ID)
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
	f := rollout.Facts{Good: lane.Good, Inventory: lane.Inventory, Dependencies: lane.Dependencies, Approvals: lane.Approvals,
		Cancel: lane.Cancel, ReplacedBy: lane.ReplacedBy, Limits: r.Limits}
	var err error
	if !t.Removes {
		if f.New, err = r.names(ctx, t.Manifests); err != nil {
			return f, err
		}
	}
	base := t.Base
	if t.Phase == rollout.Waiting {
		base = lane.Good
	}
	if base != nil {
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
func (r *Runner) look(ctx context.Context, lane rollout.Lane, t rollout.Target, read rollout.Read) rollout.Look {
	cluster := r.Clusters.Cluster(t.Tenant, t.Account)
	if len(read.Objects) > 0 {
		if err := r.watch(ctx, cluster, lane.ID, t, read.Objects); err != nil {
			return rollout.Look{Failure: failure(err)}
		}
	}
	return cluster.Look(ctx, t.Identity(), read, namespaces(t, read, lane.Inventory))
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
	add(inventory)
	slices.Sort(names)
	return names
}

func (r *Runner) watch(ctx context.Context, cluster Cluster, lane int64, t rollout.Target, keys []manifest.Key) error {
	r.mu.Lock()
	open, found := r.watches[lane]
	r.mu.Unlock()
	if found && open.target == t.ID && open.phase == t.Phase {
		return nil
	}
	r.unwatch(lane)
	stop, err := cluster.Watch(ctx, t.Identity(), keys, func() {
		if err := r.Lanes.Wake(context.WithoutCancel(ctx), lane); err != nil {
			r.Log.WithError(err).WithField("lane", lane).Error("a change in the cluster could not wake its lane; its timer will")
		}
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.watches == nil {
		r.watches = map[int64]watch{}
	}
	r.watches[lane] = watch{t.ID, t.Phase, stop}
	return nil
}

func (r *Runner) unwatch(lane int64) {
	r.mu.Lock()
	open, found := r.watches[lane]
	delete(r.watches, lane)
	r.mu.Unlock()
	if found {
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
		return cluster.Apply(ctx, id, objects, a.Replicas)
	case rollout.Scale:
		return cluster.Scale(ctx, t.Identity(), a.Replicas)
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
