// Package storetest is what starts and runs of lanes need of a store, as a suite that every store passes.
package storetest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"towpath/manifest"
	"towpath/reconcile/rollout"
	"towpath/store"
)

// Store is what a deployment needs from its start to its end. store.Store says what each method does.
type Store interface {
	Start(ctx context.Context, start rollout.Start, sealed map[string][]manifest.Object) error
	Started(ctx context.Context, tenant, id string) (rollout.Start, error)
	Deployment(ctx context.Context, tenant, id string) (store.DeploymentView, error)
	Lanes(ctx context.Context, tenant, application string) ([]rollout.LaneState, error)
	Events(ctx context.Context, f store.EventFilter) ([]store.Event, error)
	Manifests(ctx context.Context, digest string) ([]manifest.Object, error)

	AccountOf(ctx context.Context, lane int64) (tenant, account string, err error)
	Claim(ctx context.Context, lane int64, lasts time.Duration) (rollout.Lease, error)
	Extend(ctx context.Context, lease rollout.Lease, lasts time.Duration) (rollout.Lease, error)
	Lane(ctx context.Context, lane int64) (rollout.Lane, error)
	Save(ctx context.Context, lease rollout.Lease, d rollout.Decision) error
	Rest(ctx context.Context, lease rollout.Lease, seq int64, due time.Time) (bool, error)

	Wake(ctx context.Context, lane int64) error
	WakeAccount(ctx context.Context, tenant, account string) error
	WakeDue(ctx context.Context, now time.Time) (later map[int64]time.Time, err error)
	Recover(ctx context.Context) error

	Say(ctx context.Context, said rollout.Saying) error
	Cancel(ctx context.Context, tenant, deployment, by, reason string) error
	Hold(ctx context.Context, h store.Hold) error
	Unhold(ctx context.Context, h store.Hold) error

	Call(ctx context.Context, id string) (*rollout.Asked, error)
	Answer(ctx context.Context, c rollout.Call, answer rollout.Answer) error
	CallBack(ctx context.Context, tenant, id string, callback rollout.Callback) error
	Calls(ctx context.Context, tenant, deployment string) ([]store.CallView, error)
	RecoverCalls(ctx context.Context) error

	Previews(ctx context.Context, tenant, deployment string) ([]store.Preview, error)
	Preview(ctx context.Context, random string) (store.Preview, error)
	EndPreview(ctx context.Context, tenant, id, by string) error

	TellAbout(sources []string)
	ClaimMessage(ctx context.Context, sources []string, lasts time.Duration) (*rollout.Message, time.Time, error)
	Told(ctx context.Context, m rollout.Message, sent map[string]rollout.Publication) error
}

// Opened is an empty store, and what it wakes.
type Opened struct {
	Store
	// Woken is the lanes that were woken since it was last called, in that order.
	Woken func() []int64
	// Asked is the calls that were woken since it was last called.
	Asked func() []string
	// Exclusive says that no other process can use the store.
	Exclusive bool
}

// Run runs the suite on stores that open makes, one a case.
func Run(t *testing.T, open func(t *testing.T, clock func() time.Time) Opened) {
	for name, test := range map[string]func(*room){
		"a deployment runs through its lanes, each after those it depends on":           lanesRun,
		"recording a deployment again changes nothing":                                  recordedTwice,
		"a lease keeps others out until it ends":                                        leases,
		"under a lost lease nothing is written":                                         lateWrites,
		"who was woken does not rest":                                                   wokenDoesNotRest,
		"every change that a lane waits for wakes it":                                   wakes,
		"due lanes are woken when their time has come":                                  dueLanes,
		"a dead process's lanes are taken up":                                           recovers,
		"a newer deployment waits behind and replaces, the one in between never starts": replaces,
		"what was replaced is counted until something is finished":                      countsReplaced,
		"an unchanged target is carried by what its lane was asked for":                 carries,
		"a refused deployment is recorded, and leaves the lanes alone":                  rejects,
		"superseding moves unchanged targets too":                                       supersedes,
		"one deployment waits for its turn, and the newest takes its place":             enqueues,
		"commits that arrive meanwhile are joined into one":                             batches,
		"what waits for its turn is judged anew when it starts":                         judgedAnew,
		"an object has one owner":                                                       owners,
		"the inventory follows claims and removals":                                     inventory,
		"a lane keeps what was good":                                                    keeps,
		"a skipped target is moved by whatever comes next":                              skipped,
		"words count for the digest they were said of, once each":                       words,
		"who may not say a word is refused":                                             refusals,
		"a deployment that is cancelled stops on each lane":                             cancels,
		"an expired approval cancels what waits elsewhere":                              cancelsFromInside,
		"holds halt their scope and no more":                                            holds,
		"a target that left the file goes, or is left alone":                            leaves,
		"what a person brought back leaves what is wanted as it is":                     pins,
		"a lane is held no longer once the very same is asked for":                      unpins,
		"what was never proved good stays the change of who made it":                    whoseChange,
		"history tells each change once, in order":                                      history,
		"what changed is to be told, until it was told":                                 outbox,
		"manifests are kept by digest":                                                  sealed,
		"a call is made until it is answered, always under one key":                     calls,
		"a baseline is measured beside the new version, and analyses are counted":       comparisons,
		"a webhook calls back once":                                                     callbacks,
		"a link leads to its Service until it ends":                                     links,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &room{T: t, now: when}
			r.Opened = open(t, func() time.Time { return r.now })
			test(r)
		})
	}
}

var when = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

// room is one case: a store and its clock.
type room struct {
	*testing.T
	Opened
	now time.Time
}

func (r *room) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// begin is a deployment of application shop.
func begin(id string, targets ...rollout.StartTarget) rollout.Start {
	return rollout.Start{ID: id, Tenant: "main", Application: "shop", At: when, Origin: rollout.Origin{Source: "repo", Path: "towpath.yaml", Commit: id},
		Trigger: rollout.Trigger{Kind: "push", By: "ann"}, Targets: targets}
}

func moving(name, manifests string, dependsOn ...string) rollout.StartTarget {
	return rollout.StartTarget{Name: name, Account: name, Digest: "promise-" + manifests, Manifests: manifests, Way: rollout.Way{DependsOn: dependsOn, Timeout: time.Minute}, Changed: true}
}

func unchanged(name, manifests string, dependsOn ...string) rollout.StartTarget {
	t := moving(name, manifests, dependsOn...)
	t.Changed = false
	return t
}

func (r *room) start(s rollout.Start) {
	r.Helper()
	r.must(r.Start(r.Context(), s, nil))
}

// lane is the id of the lane of a target of application shop.
func (r *room) lane(target string) int64 {
	r.Helper()
	lanes, err := r.Lanes(r.Context(), "main", "shop")
	r.must(err)
	for _, l := range lanes {
		if l.Target == target {
			return l.ID
		}
	}
	r.Fatalf("no lane %s", target)
	return 0
}

func (r *room) read(target string) rollout.Lane {
	r.Helper()
	lane, err := r.Lane(r.Context(), r.lane(target))
	r.must(err)
	return lane
}

func (r *room) claim(target string) rollout.Lease {
	r.Helper()
	lease, err := r.Claim(r.Context(), r.lane(target), time.Minute)
	r.must(err)
	return lease
}

// save saves what change makes of a lane's current target, under a lease that is given back.
func (r *room) save(target string, change func(*rollout.Decision)) {
	r.Helper()
	lease, lane := r.claim(target), r.read(target)
	if lane.Current == nil {
		r.Fatalf("nothing runs on %s", target)
	}
	d := rollout.Decision{Target: *lane.Current, Changed: true}
	change(&d)
	r.must(r.Save(r.Context(), lease, d))
	if rests, err := r.Rest(r.Context(), lease, r.read(target).Seq, time.Time{}); err != nil || !rests {
		r.Fatalf("rest: %v %v", rests, err)
	}
}

// finish ends a lane's current target in a state.
func (r *room) finish(target string, state rollout.State) {
	r.Helper()
	r.save(target, func(d *rollout.Decision) {
		d.Target.State, d.Target.Phase = state, rollout.Finished
		if state == rollout.Succeeded {
			d.Good = &rollout.Release{Deployment: d.Target.Deployment, Number: d.Target.Number, Manifests: d.Target.Manifests, Digest: d.Target.Digest}
		}
	})
}

// asks makes a lane's current target wait for a person.
func (r *room) asks(target string, waits ...rollout.Wait) {
	r.Helper()
	r.save(target, func(d *rollout.Decision) { d.Target.State, d.Target.Waits = rollout.AwaitingApproval, waits })
}

func (r *room) state(id string) rollout.State {
	r.Helper()
	return r.view(id).State
}

func (r *room) view(id string) store.DeploymentView {
	r.Helper()
	d, err := r.Deployment(r.Context(), "main", id)
	r.must(err)
	return d
}

// states holds that deployments are in these states, in pairs of id and state.
func (r *room) states(pairs ...any) {
	r.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if got := r.state(pairs[i].(string)); got != pairs[i+1].(rollout.State) {
			r.Errorf("deployment %s is %s, want %s", pairs[i], got, pairs[i+1])
		}
	}
}

// current holds which deployments run and wait on a lane: 0 for none.
func (r *room) current(target string, runs, waits int) {
	r.Helper()
	lane, number := r.read(target), 0
	if lane.Current != nil {
		number = lane.Current.Number
	}
	if number != runs || runs != 0 && lane.ReplacedBy != waits {
		r.Errorf("on %s #%d runs and #%d waits behind it, want #%d and #%d", target, number, lane.ReplacedBy, runs, waits)
	}
}

// woken holds that these lanes were woken since the last call, and no others.
func (r *room) woken(targets ...string) {
	r.Helper()
	var want []int64
	for _, target := range targets {
		want = append(want, r.lane(target))
	}
	got := r.Woken()
	slices.Sort(got)
	slices.Sort(want)
	if got = slices.Compact(got); !slices.Equal(got, want) {
		r.Errorf("woken: %v, want %v (%v)", got, want, targets)
	}
}

// refused holds that an error is a refusal for a person, with these words.
func (r *room) refused(err error, text string) {
	r.Helper()
	var refusal *rollout.Refusal
	if !errors.As(err, &refusal) || refusal.Text != text {
		r.Errorf("got %v, want the refusal %q", err, text)
	}
}
