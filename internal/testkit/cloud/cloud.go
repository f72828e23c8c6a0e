// Package cloud is a model of API servers, as the runner of rollouts sees them through relays: what is written is there once its request has arrived, pods
// become ready after a while or never, and on the way anything may be lost, late, or come twice. It knows no rollouts. It is made for tests that run many
// thousands of them: what real API servers do is tested on real ones.
package cloud

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"towpath/internal/testkit/vtime"
	"towpath/manifest"
	"towpath/reconcile"
	"towpath/reconcile/rollout"
)

// Cloud is all clusters.
type Cloud struct {
	World *vtime.World
	// Names says what a set of objects is called once it is applied.
	Names func(objects []manifest.Object) rollout.Set
	// Faults says how bad the world is; it may be changed at any time.
	Faults Faults
	// Changed is told of each change, just before it is made; nil: nobody is.
	Changed func(Change)
	// Passed is called before and after each effect of a request, by name; nil: by nobody. A test may kill the caller there.
	Passed func(point string)

	chance   *rand.Rand
	clusters map[string]*Cluster
	order    []*Cluster
	uids     int
}

// Faults are chances from 0 to 100.
type Faults struct {
	Before   int           // a request is lost on its way: nothing is done
	After    int           // an answer is lost: all is done
	Slow     int           // a request gets no answer: it is called back, or its answer comes too late, or it itself does
	Conflict int           // somebody else changes an object between a read and a write
	Lost     int           // a watch event
	Twice    int           // a watch event comes twice
	Late     int           // a watch event comes up to half a minute late
	Slowest  time.Duration // how long after the lease of who sent it a request may still arrive
	Lossy    bool          // set once an event was lost
}

// Request is who asks a cluster for something, and why.
type Request struct {
	Lane string // "main/shop/prod"
	Run  int    // that sends it
	For  string // what is intended
}

// Change is an effect that is about to be.
type Change struct {
	Request
	Cluster  *Cluster
	Kind     string // "scale", "turn", "divide", "apply", "create", "remove", "adopt", "putBack", "share", "replace", "hook"
	Key      manifest.Key
	From, To int32  // scale, create: pods; share: To is its weight; replace: From is the pod's place
	Hash     string // turn: where traffic goes to; its revision
	Was      string // turn: where it went before; hook: deployment and event
	Division rollout.Division
}

// Cluster is one API server and its pods.
type Cluster struct {
	Name string

	cloud     *Cloud
	objects   map[manifest.Key]*Object
	away      int // how many reasons there are for its being away
	listeners []*listener
	pods      map[manifest.Key]Pods // by ReplicaSet
	refuses   map[string]string
	runs      []*Run
}

// Pods is how the pods of a revision do.
type Pods struct {
	After time.Duration // until they are ready
	Never string        // why they never are; "": they are
	// Breaks is why those of a hook end badly then; "": they do their work.
	Breaks string
}

// Object is one object as it is now.
type Object struct {
	rollout.Live
	From    string           // manifests that it has the content of
	Selects string           // of a Service: the hash that traffic goes to
	Divided rollout.Division // of a router's object; its Stage is "" while nobody divided it
	Aimed   manifest.Key     // of an autoscaler: what it scales
	Fleet   *Fleet           // of a StatefulSet or DaemonSet
	Run     *Run             // of a hook
	Proved  int32            // pods that a fresh read showed ready since they were asked for

	gone int32 // pods on their way out
}

type listener struct {
	request Request
	wake    func()
	pending bool
	closed  bool
}

// New makes a cloud whose chances come from a seed.
func New(w *vtime.World, seed uint64) *Cloud {
	return &Cloud{World: w, chance: rand.New(rand.NewPCG(seed, 11)), clusters: map[string]*Cluster{}, Faults: Faults{Slowest: 10 * time.Second}}
}

// Cluster is the cluster of an account; it is there once it was asked for.
func (c *Cloud) Cluster(account string) *Cluster {
	cluster := c.clusters[account]
	if cluster == nil {
		cluster = &Cluster{Name: account, cloud: c, objects: map[manifest.Key]*Object{}, pods: map[manifest.Key]Pods{}, refuses: map[string]string{}}
		c.clusters[account] = cluster
		c.order = append(c.order, cluster)
	}
	return cluster
}

// All is the clusters in the order in which they were made.
func (c *Cloud) All() []*Cluster { return c.order }

// Leave takes a cluster away; Return brings it back, when nothing else keeps it away, and tells all who watch it.
func (c *Cluster) Leave() { c.away++ }

// Return ends one absence. It reports whether the cluster is back.
func (c *Cluster) Return() (back bool) {
	if c.away--; c.away > 0 {
		return false
	}
	for _, l := range c.listeners {
		c.deliver(l, 100*time.Millisecond)
	}
	return true
}

// Away reports whether the cluster cannot be reached.
func (c *Cluster) Away() bool { return c.away > 0 }

// Fate says how the pods of a ReplicaSet do; those of one of which nothing is said become ready at once.
func (c *Cluster) Fate(set manifest.Key, p Pods) { c.pods[set] = p }

// Refuse makes the API server refuse the ConfigMaps of manifests with a text; "" makes it take them.
func (c *Cluster) Refuse(manifests, text string) { c.refuses[manifests] = text }

// Object is an object as it is now; nil when it is not there.
func (c *Cluster) Object(key manifest.Key) *Object { return c.objects[key] }

// Objects is all objects by key, in order.
func (c *Cluster) Objects() []*Object {
	all := make([]*Object, 0, len(c.objects))
	for _, o := range c.objects {
		all = append(all, o)
	}
	slices.SortFunc(all, func(a, b *Object) int { return a.Key.Compare(b.Key) })
	return all
}

// Put makes an object that is not the runner's: a running Deployment object, say.
func (c *Cluster) Put(key manifest.Key, change func(*Object)) *Object {
	o := c.put(key)
	o.Owner = ""
	change(o)
	return o
}

func (c *Cluster) put(key manifest.Key) *Object {
	if c.objects[key] == nil {
		c.cloud.uids++
		c.objects[key] = &Object{Live: rollout.Live{Key: key, UID: fmt.Sprint("uid-", c.cloud.uids), Generation: 1, Health: rollout.Healthy}}
	}
	return c.objects[key]
}

// Link is the clusters as one process reaches them.
type Link struct {
	Cloud *Cloud
	// Process ends the wakes of watches when it dies.
	Process *vtime.Group
	// From is who sends the requests of the task that calls.
	From func(id rollout.Identity) Request
	// Reads changes what a fresh read brought; nil: nothing does.
	Reads func(rollout.Look) rollout.Look
	// Until is when who sends must have given up, in the world's time; false: never.
	Until func(ctx context.Context) (time.Time, bool)
	// Turn is called before each request: whoever sends may stand still there.
	Turn func()
	// Blind opens watches a second late; a planted fault.
	Blind bool
}

// Connected implements reconcile.Clusters.
func (l *Link) Connected(_, account string) bool { return l.Cloud.Cluster(account).away == 0 }

// Cluster implements reconcile.Clusters.
func (l *Link) Cluster(_, account string) reconcile.Cluster {
	return &reach{l, l.Cloud.Cluster(account)}
}

// reach is one cluster as one process reaches it.
type reach struct {
	*Link
	at *Cluster
}

// patience is how long the answer to one request is waited for.
const patience = 20 * time.Second

// request sends one request; effect happens when, and if, it arrives. What it returns is what the sender learns.
func (r *reach) request(ctx context.Context, effect func() *rollout.Failure) *rollout.Failure {
	c, f := r.Cloud, r.Cloud.Faults
	waits := patience
	until, bounded := r.Until(ctx)
	r.Turn()
	if bounded {
		left := until.Sub(c.World.Now())
		if left <= 0 {
			return trouble("the lease is over")
		}
		waits = min(waits, left)
	}
	if r.at.away > 0 {
		c.World.Sleep(c.delay(10))
		return &rollout.Failure{Class: rollout.Away, Text: "no agent is connected"}
	}
	if c.happens(f.Before) {
		c.World.Sleep(c.delay(50))
		return trouble("connection reset")
	}
	if c.happens(f.Slow) {
		switch {
		case waits < patience: // nobody was there any more to call it back
			c.World.After(waits+c.within(f.Slowest), func() { effect() })
		case c.happens(50):
			c.World.After(c.within(waits), func() { effect() })
		}
		c.World.Sleep(waits)
		return trouble("the cluster gave no answer within " + waits.String())
	}
	c.World.Sleep(c.delay(20))
	if r.at.away > 0 {
		return &rollout.Failure{Class: rollout.Away, Text: "the agent went away"}
	}
	failure := effect()
	lost := c.happens(f.After)
	c.World.Sleep(c.delay(20))
	if lost {
		return trouble("connection reset")
	}
	return failure
}

func (c *Cloud) happens(percent int) bool { return percent > 0 && c.chance.IntN(100) < percent }

// delay is up to so many milliseconds, in steps of ten.
func (c *Cloud) delay(most int) time.Duration {
	return time.Duration(1+c.chance.IntN(max(most/10, 1))) * 10 * time.Millisecond
}

func (c *Cloud) within(d time.Duration) time.Duration {
	return time.Duration(c.chance.Int64N(max(int64(d/(10*time.Millisecond)), 1))) * 10 * time.Millisecond
}

func trouble(text string) *rollout.Failure {
	return &rollout.Failure{Class: rollout.Trouble, Text: text}
}

func (c *Cloud) tell(change Change) {
	if c.Changed != nil {
		c.Changed(change)
	}
}

// pass is a point at which a test may kill the caller.
func (c *Cloud) pass(point string) {
	if c.Passed != nil {
		c.Passed(point)
	}
}

// happened tells those who watch the objects of a lane that something changed.
func (c *Cluster) happened(lane string) {
	if c.away > 0 {
		return // all are told when it is back
	}
	f := &c.cloud.Faults
	for _, l := range c.listeners {
		if l.request.Lane != lane {
			continue
		}
		if c.cloud.happens(f.Lost) {
			f.Lossy = true
			continue
		}
		after := c.cloud.delay(50)
		if c.cloud.happens(f.Late) {
			after += c.cloud.within(30 * time.Second)
		}
		c.deliver(l, after)
		if c.cloud.happens(f.Twice) {
			c.deliver(l, after+c.cloud.within(5*time.Second))
		}
	}
}

func (c *Cluster) deliver(l *listener, after time.Duration) {
	if l.pending {
		return
	}
	l.pending = true
	c.cloud.World.After(max(after, 100*time.Millisecond), func() {
		l.pending = false
		if !l.closed {
			l.wake()
		}
	})
}

// Watch implements reconcile.Cluster.
func (r *reach) Watch(ctx context.Context, id rollout.Identity, _ []manifest.Key, wake func()) (stop func(), err error) {
	l := &listener{request: r.From(id), wake: func() { r.Cloud.World.Go(r.Process, wake) }}
	open := func() { r.at.listeners = append(r.at.listeners, l) }
	if failure := r.request(ctx, func() *rollout.Failure {
		if r.Blind {
			r.Cloud.World.After(time.Second, open)
		} else {
			open()
		}
		return nil
	}); failure != nil {
		l.closed = true
		return nil, failure
	}
	return func() {
		l.closed = true
		r.at.listeners = slices.DeleteFunc(r.at.listeners, func(o *listener) bool { return o == l })
	}, nil
}
