// Package proof runs the real Runner on the real decisions, by the thousand, against stores and a model of clusters in virtual time: whatever a seed lets
// happen, what must always hold is held. docs/decisions/006 says how; a failing seed says how to run it again.
package proof_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"towpath/internal/testkit/cloud"
	"towpath/internal/testkit/memstore"
	"towpath/internal/testkit/vtime"
	"towpath/manifest"
	"towpath/reconcile"
	"towpath/reconcile/rollout"
	"towpath/store"
	"towpath/store/storetest"
)

// start of all virtual time.
var start = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

// lease is as long as the controller's.
const lease = time.Minute

// house is a store, clusters, and the processes that work between them.
type house struct {
	*vtime.World
	*judge

	seed      uint64
	chance    *rand.Rand
	store     storetest.Opened
	close     func()
	cloud     *cloud.Cloud
	sets      map[string]rollout.Set // by digest of the manifests
	processes []*process
	outside   *outside
	unmade    []string // calls that were asked for while no process lived
	waiting   []int64  // lanes that were woken while no process lived
	due       map[int64]time.Time
	fault     fault
	cut       func(point string) bool  // whether the process dies here; nil: never
	epochs    map[int64]int64          // of the newest lease of each lane
	stalls    int                      // chance of a run's standing still, from 0 to 100
	still     func(*run) time.Duration // for how long a run stands still; nil: by chance
	runs      int
}

// process is one controller.
type process struct {
	group  *vtime.Group
	runner *reconcile.Runner
}

// run is one run of a lane: what its task keeps.
type run struct {
	number  int
	process *process
	lane    int64
	lease   rollout.Lease
	read    time.Time // when it last read the lane
	intends string    // as it last read or saved it

	deadline, until time.Time // of what it does now, in real time and in the house's
}

// fault is a planted one: it changes what the runner sees of the store and of the clusters. The zero value changes nothing.
type fault struct {
	claim     func(h *house, lane int64, lease rollout.Lease, err error) (rollout.Lease, error)
	lane      func(h *house, lane *rollout.Lane)
	save      func(h *house, lease rollout.Lease, d rollout.Decision) (rollout.Lease, rollout.Decision)
	rest      func(h *house, lease rollout.Lease, seq int64, due time.Time) (int64, time.Time)
	begin     func(h *house, s rollout.Start) rollout.Start
	manifests func(h *house, digest string) string
	look      func(h *house, look rollout.Look) rollout.Look
	clusters  func(h *house, c reconcile.Clusters) reconcile.Clusters
	blind     bool
}

// open is how a house gets its store, and closes it in the end.
type open func(clock func() time.Time, exclusive bool) (_ storetest.Opened, end func())

func inMemory(clock func() time.Time, exclusive bool) (_ storetest.Opened, end func()) {
	s := memstore.New(clock)
	s.Exclusive = exclusive
	return storetest.Opened{Store: s, Exclusive: exclusive, Asked: s.Asked, Woken: func() (lanes []int64) {
		for len(s.Wakes()) > 0 {
			lanes = append(lanes, <-s.Wakes())
		}
		return lanes
	}}, func() {}
}

func newHouse(open open, seed uint64, exclusive bool, f fault) *house {
	h := &house{World: vtime.New(start), seed: seed, chance: rand.New(rand.NewPCG(seed, 1)), sets: map[string]rollout.Set{}, due: map[int64]time.Time{},
		epochs: map[int64]int64{}, fault: f}
	h.judge, h.outside = newJudge(h), newOutside(h)
	h.store, h.close = open(h.Now, exclusive)
	h.cloud = cloud.New(h.World, seed)
	h.cloud.Names = func(objects []manifest.Object) rollout.Set { return h.sets[nameOf(objects)] }
	h.cloud.Changed = h.changed
	h.cloud.Passed = h.pass
	return h
}

// nameOf a set of manifests is where they say that they come from.
func nameOf(objects []manifest.Object) string {
	if len(objects) == 0 {
		return ""
	}
	return objects[0].Source
}

var quiet = func() *logrus.Entry {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return logrus.NewEntry(log)
}()

// live starts a process.
func (h *house) live() *process {
	p := &process{group: &vtime.Group{}}
	link := &cloud.Link{Cloud: h.cloud, Process: p.group, Blind: h.fault.blind, Until: h.until, Turn: (&lanes{h}).turn, From: func(id rollout.Identity) cloud.Request {
		r, _ := h.Value().(*run)
		request := cloud.Request{Lane: laneName(id)}
		if r != nil {
			request.Run, request.For = r.number, r.intends
		}
		return request
	}}
	if h.fault.look != nil {
		link.Reads = func(l rollout.Look) rollout.Look { return h.fault.look(h, l) }
	}
	var clusters reconcile.Clusters = link
	if h.fault.clusters != nil {
		clusters = h.fault.clusters(h, link)
	}
	p.runner = &reconcile.Runner{Lanes: &lanes{h}, Clusters: clusters, Clock: h.Now, Lease: lease, Log: quiet, Limits: limits,
		Timers: reconcile.NewTimers(h.store, h.Now, quiet), Names: func(objects []manifest.Object) (rollout.Set, error) { return h.sets[nameOf(objects)], nil }}
	h.processes = append(h.processes, p)
	h.Go(p.group, func() {
		h.must(errors.Join(h.store.Recover(context.Background()), h.store.RecoverCalls(context.Background())))
		h.deliver()
	})
	return p
}

// coarse is how exactly a deadline is kept: it is told in real time, and must not make a difference between two runs.
const coarse = time.Second

// until is when an action must have ended, in the house's time: as far away as it was in real time when it was first heard of.
func (h *house) until(ctx context.Context) (time.Time, bool) {
	deadline, bounded := ctx.Deadline()
	r, running := h.Value().(*run)
	if !bounded || !running {
		return time.Time{}, false
	}
	if !r.deadline.Equal(deadline) {
		r.deadline, r.until = deadline, h.Now().Add((time.Until(deadline) + coarse - 1).Truncate(coarse))
	}
	return r.until, true
}

// limits are those of a controller that says nothing else.
var limits = rollout.Limits{Removals: 10, Shrink: 0.3, Keep: 3, Replaced: 3, Away: 5 * time.Minute, Yield: time.Minute}

// kill ends a process where it stands.
func (h *house) kill(p *process) {
	h.processes = slices.DeleteFunc(h.processes, func(o *process) bool { return o == p })
	h.disturbed()
	if len(h.processes) > 0 { // the others notice, and take up what it had under way
		h.After(noticed, func() {
			h.disturbed()
			h.must(errors.Join(h.store.Recover(context.Background()), h.store.RecoverCalls(context.Background())))
			h.deliver()
		})
	}
	h.Kill(p.group)
}

// noticed is how long after it died a process is known to be no more.
const noticed = 20 * time.Second

// pass is a point at which a process may be killed.
func (h *house) pass(point string) {
	r, running := h.Value().(*run)
	if h.cut == nil || !running || !h.cut(point) {
		return
	}
	h.After(time.Second, func() { h.live() })
	h.kill(r.process)
}

// deliver gives lanes that were woken to processes, as the queue does: each wake once, a moment later.
func (h *house) deliver() {
	woken := h.store.Woken()
	if len(h.processes) > 0 {
		woken, h.waiting = append(h.waiting, woken...), nil
	}
	h.sort(woken)
	for _, lane := range woken {
		if len(h.processes) == 0 {
			h.waiting = append(h.waiting, lane)
			continue
		}
		h.After(time.Duration(1+h.chance.IntN(5))*10*time.Millisecond, func() { h.take(lane) })
	}
	h.calls()
}

// take runs a lane in one of the processes.
func (h *house) take(lane int64) {
	if len(h.processes) == 0 {
		h.waiting = append(h.waiting, lane)
		return
	}
	p := h.processes[h.chance.IntN(len(h.processes))]
	h.Go(p.group, func() {
		h.runs++
		h.SetValue(&run{number: h.runs, process: p, lane: lane})
		if err := p.runner.Run(context.Background(), lane); err != nil {
			h.wrongly("a run of %s failed: %v", h.nameOfLane(lane), err)
		}
	})
}

// drive lets things happen until nothing does any more, until a time, or until something is wrong.
func (h *house) drive(until time.Time) {
	for h.wrong == "" {
		at, any := h.Next()
		if !any {
			at = until
		}
		for _, due := range h.due {
			if due.Before(at) {
				at, any = due, true
			}
		}
		if !any || at.After(until) {
			h.Advance(until)
			return
		}
		h.waited(at)
		h.Advance(at)
		h.timers()
		if next, any := h.Next(); any && !next.After(h.Now()) {
			h.Step()
		}
	}
}

// timers wakes what is due, as the timers of a process do.
func (h *house) timers() {
	past := false
	for lane, at := range h.due {
		if !at.After(h.Now()) {
			delete(h.due, lane)
			past = true
		}
	}
	if past {
		_, err := h.store.WakeDue(context.Background(), h.Now())
		h.must(err)
		h.deliver()
	}
}

func (h *house) must(err error) {
	if err != nil {
		h.wrongly("%v", err)
	}
}

// refusable is for what people ask for: that it is refused is no fault.
func (h *house) refusable(err error) bool {
	var refusal *rollout.Refusal
	var underWay *store.ErrUnderWay
	if err != nil && !errors.As(err, &refusal) && !errors.As(err, &underWay) {
		h.must(err)
	}
	h.deliver()
	return err == nil
}

// begin records a deployment.
func (h *house) begin(s rollout.Start, sealed map[string][]manifest.Object) {
	h.asked(s)
	if h.fault.begin != nil {
		s = h.fault.begin(h, s)
	}
	h.refusable(h.store.Start(context.Background(), s, sealed))
}

// replay is how to run a seed again.
func replay(t testing.TB, seed uint64) string {
	return fmt.Sprintf("go test ./reconcile/proof -run '^%s$' -seed %d", t.Name(), seed)
}

func laneName(id rollout.Identity) string { return id.Tenant + "/" + id.Application + "/" + id.Target }
