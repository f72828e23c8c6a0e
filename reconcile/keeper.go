package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// keptStore is what keeping clusters needs of the store.
type keptStore interface {
	KeptLanes(ctx context.Context, tenant, account string) ([]int64, error)
	KeptLane(ctx context.Context, lane int64) (*rollout.Kept, error)
	Manifests(ctx context.Context, digest string) ([]manifest.Object, error)
	SaveDrift(ctx context.Context, k rollout.Kept, compared []manifest.Key, found []rollout.Drift, healed bool) error
	SayDrift(ctx context.Context, k rollout.Kept, kind, what, why string) error
}

// Moved is an object in a cluster that may be another than it shall be.
type Moved struct {
	Key  manifest.Key
	Lane string // its label; "" where it is not known any more
	Gap  bool   // it was found after a time in which nobody looked
	Sign any    // the cluster's own: what it looked like
}

// KeptCluster is one cluster that is held to what was last proved good.
type KeptCluster interface {
	// Kinds is the kinds of what a set becomes in the cluster.
	Kinds(objects []manifest.Object) []manifest.Key
	// Follow calls heard for each object of a kind in a namespace that somebody else changes or deletes. heard does not block.
	Follow(ctx context.Context, kind manifest.Key, heard func(Moved)) (stop func(), err error)
	// Compare says which objects differ: of those that moved, or all (nil).
	Compare(ctx context.Context, k rollout.Kept, objects []manifest.Object, moved []Moved) (compared []manifest.Key, found []rollout.Drift, failure *rollout.Failure)
	// Label is the label of a target's objects.
	Label(id rollout.Identity) string
}

// Keeper holds clusters to what was last proved good: it hears of what others change, compares, tells, and puts back where the file says so.
type Keeper struct {
	Store   keptStore
	Runner  *Runner
	Cluster func(tenant, account string) KeptCluster
	Log     *logrus.Entry
	// Soonest is how long it waits before it puts something back once more that somebody changed again; it doubles up to Latest. 0: 1 s, 5 min.
	Soonest, Latest time.Duration

	mu       sync.Mutex
	accounts map[[2]string]*guard
	unsorted []int64 // lanes on which nothing runs any more, of whatever account
	sorting  bool
	closed   bool
	work     sync.WaitGroup
}

// guard is one account's. Its fields below mu are shared with those who hear.
type guard struct {
	*Keeper
	tenant, account string
	cluster         KeptCluster
	signal          chan struct{}
	cancel          context.CancelFunc
	slow            *rate.Limiter // of what is compared since nobody had looked

	lanes    map[string]int64                 // by label
	follows  map[manifest.Key]func()          // by kind and namespace
	fights   map[manifest.Key]*fight          // of objects that were put back
	refusals map[manifest.Key]time.Time       // kinds that could not be followed, and when that is tried again
	retry    time.Time                        // something is to be looked at again by then
	later    map[int64]map[manifest.Key]Moved // what moved while its lane was busy, or could not be compared

	mu      sync.Mutex
	moved   map[string]map[manifest.Key]Moved // by label
	settled map[int64]*rollout.Kept           // lanes to be looked at; nil: how they are to stand is not known here yet
}

// fight is how often an object was put back lately.
type fight struct {
	times int
	last  time.Time
	until time.Time // not before
	told  bool
	// failure is why it could not be put back the last time.
	failure string
}

// compareUnseen is how many objects a second are compared since nobody had looked at them: after a start all of them.
const compareUnseen = 20

// Keep begins to hold an account's cluster, unless it does already. It is called when its agent connects.
func (k *Keeper) Keep(ctx context.Context, tenant, account string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key := [2]string{tenant, account}
	if k.closed || k.accounts[key] != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	g := &guard{Keeper: k, tenant: tenant, account: account, cluster: k.Cluster(tenant, account), signal: make(chan struct{}, 1), cancel: cancel,
		slow: rate.NewLimiter(compareUnseen, compareUnseen), lanes: map[string]int64{}, follows: map[manifest.Key]func(){}, fights: map[manifest.Key]*fight{},
		refusals: map[manifest.Key]time.Time{}, later: map[int64]map[manifest.Key]Moved{}, moved: map[string]map[manifest.Key]Moved{}, settled: map[int64]*rollout.Kept{}}
	if k.accounts == nil {
		k.accounts = map[[2]string]*guard{}
	}
	k.accounts[key] = g
	k.work.Go(func() { g.run(ctx) })
}

// Leave ends what Keep began, because another keeper holds that cluster now.
func (k *Keeper) Leave(tenant, account string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key := [2]string{tenant, account}
	if g := k.accounts[key]; g != nil {
		g.cancel()
		delete(k.accounts, key)
	}
}

// Settled says that nothing runs on a lane any more.
func (k *Keeper) Settled(lane int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return
	}
	k.unsorted = append(k.unsorted, lane)
	if !k.sorting {
		k.sorting = true
		k.work.Go(k.sort)
	}
}

// sort hands settled lanes to the guards of their accounts.
func (k *Keeper) sort() {
	for {
		k.mu.Lock()
		lanes := k.unsorted
		k.unsorted = nil
		if k.sorting = len(lanes) > 0 && !k.closed; !k.sorting {
			k.mu.Unlock()
			return
		}
		k.mu.Unlock()
		for _, lane := range lanes {
			kept, err := k.Store.KeptLane(context.Background(), lane)
			if err != nil {
				k.Log.WithError(err).WithField("lane", lane).Error("a target's drift is looked at only after its next rollout")
				continue
			}
			k.mu.Lock()
			for account, g := range k.accounts {
				switch {
				case kept == nil:
					g.settle(lane, nil)
				case account == [2]string{kept.Identity.Tenant, kept.Identity.Account}:
					g.settle(lane, kept)
				}
			}
			k.mu.Unlock()
		}
	}
}

// Close ends it; it may be called twice.
func (k *Keeper) Close() {
	k.mu.Lock()
	k.closed = true
	for _, g := range k.accounts {
		g.cancel()
	}
	k.mu.Unlock()
	k.work.Wait()
}

func (g *guard) wake() {
	select {
	case g.signal <- struct{}{}:
	default:
	}
}

// settle has a lane looked at in the next turn.
func (g *guard) settle(lane int64, k *rollout.Kept) {
	g.mu.Lock()
	g.settled[lane] = k
	g.mu.Unlock()
	g.wake()
}

// heard is called by watches.
func (g *guard) heard(m Moved) {
	g.mu.Lock()
	if g.moved[m.Lane] == nil {
		g.moved[m.Lane] = map[manifest.Key]Moved{}
	}
	g.moved[m.Lane][m.Key] = m
	g.mu.Unlock()
	g.wake()
}

func (g *guard) run(ctx context.Context) {
	log := g.Log.WithField("account", g.account)
	defer func() {
		for _, stop := range g.follows {
			stop()
		}
	}()
	for begun := false; ctx.Err() == nil; {
		if !begun {
			if err := g.begin(ctx); err != nil {
				if ctx.Err() == nil {
					log.WithError(err).Warn("what the cluster is to hold could not be read; trying again in a minute")
				}
				g.again(time.Minute)
			} else {
				begun = true
			}
		}
		g.turn(ctx, log)
		timer := time.NewTimer(g.wait())
		select {
		case <-ctx.Done():
		case <-g.signal:
		case <-timer.C:
			g.retry = time.Time{}
			g.refill()
		}
		timer.Stop()
	}
}

// again has a turn within a while.
func (g *guard) again(within time.Duration) {
	if at := time.Now().Add(within); g.retry.IsZero() || at.Before(g.retry) {
		g.retry = at
	}
}

func (g *guard) wait() time.Duration {
	if g.retry.IsZero() {
		return time.Hour
	}
	return max(time.Until(g.retry), time.Millisecond)
}

// refill takes up again what was put off.
func (g *guard) refill() {
	for lane := range g.later {
		g.settle(lane, nil)
	}
}

// begin takes up all lanes of the account.
func (g *guard) begin(ctx context.Context) error {
	lanes, err := g.Store.KeptLanes(ctx, g.tenant, g.account)
	if err != nil {
		return err
	}
	for _, lane := range lanes {
		g.settle(lane, nil)
	}
	return nil
}

// turn looks at all that moved and settled since the last one.
func (g *guard) turn(ctx context.Context, log *logrus.Entry) {
	g.mu.Lock()
	settled, moved := g.settled, g.moved
	g.settled, g.moved = map[int64]*rollout.Kept{}, map[string]map[manifest.Key]Moved{}
	g.mu.Unlock()
	for _, lane := range slices.Sorted(maps.Keys(settled)) {
		if err := g.learn(ctx, lane, settled[lane]); err != nil && ctx.Err() == nil {
			log.WithError(err).WithField("lane", lane).Warn("a target's drift could not be looked at; trying again in a minute")
			g.put(lane, nil)
			g.again(time.Minute)
		}
	}
	g.mu.Lock() // following began meanwhile, and tells at once what it found
	for label, more := range g.moved {
		for key, m := range more {
			if moved[label] == nil {
				moved[label] = map[manifest.Key]Moved{}
			}
			moved[label][key] = m
		}
	}
	g.moved = map[string]map[manifest.Key]Moved{}
	g.mu.Unlock()
	todo := g.whose(moved)
	for lane := range settled {
		if _, waits := g.later[lane]; waits || todo[lane] != nil {
			if todo[lane] == nil {
				todo[lane] = map[manifest.Key]Moved{}
			}
			for key, m := range g.later[lane] {
				if _, newer := todo[lane][key]; !newer {
					todo[lane][key] = m
				}
			}
			delete(g.later, lane)
		}
	}
	for _, lane := range slices.Sorted(maps.Keys(todo)) {
		if err := g.compare(ctx, lane, todo[lane]); err != nil && ctx.Err() == nil {
			log.WithError(err).WithField("lane", lane).Warn("a target could not be compared with its cluster; trying again in a minute")
			g.put(lane, todo[lane])
			g.again(time.Minute)
		}
	}
}

// put keeps for later what could not be looked at now.
func (g *guard) put(lane int64, moved map[manifest.Key]Moved) {
	if g.later[lane] == nil {
		g.later[lane] = map[manifest.Key]Moved{}
	}
	maps.Copy(g.later[lane], moved)
}

// whose finds whose objects moved. One whose label is gone may be anybody's.
func (g *guard) whose(moved map[string]map[manifest.Key]Moved) map[int64]map[manifest.Key]Moved {
	todo := map[int64]map[manifest.Key]Moved{}
	add := func(lane int64, more map[manifest.Key]Moved) {
		if todo[lane] == nil {
			todo[lane] = map[manifest.Key]Moved{}
		}
		maps.Copy(todo[lane], more)
	}
	for label, more := range moved {
		if label == "" {
			for _, lane := range g.lanes {
				add(lane, more)
			}
			continue
		}
		if lane, ours := g.lanes[label]; ours {
			add(lane, more)
		}
	}
	return todo
}

// learn learns how a lane is to stand, and follows the kinds of its objects.
func (g *guard) learn(ctx context.Context, lane int64, k *rollout.Kept) error {
	if k == nil {
		var err error
		if k, err = g.Store.KeptLane(ctx, lane); err != nil {
			return err
		}
	}
	if k == nil {
		maps.DeleteFunc(g.lanes, func(_ string, other int64) bool { return other == lane })
		delete(g.later, lane)
		return nil
	}
	g.lanes[g.cluster.Label(k.Identity)] = lane
	for _, key := range k.Drifted {
		g.put(lane, map[manifest.Key]Moved{key: {Key: key}})
	}
	objects, err := g.Store.Manifests(ctx, k.Release.Manifests)
	if err != nil {
		return err
	}
	for _, kind := range g.cluster.Kinds(objects) {
		if g.follows[kind] != nil || time.Now().Before(g.refusals[kind]) {
			continue
		}
		stop, err := g.cluster.Follow(ctx, kind, g.heard)
		if err != nil {
			if g.refusals[kind].IsZero() {
				g.Log.WithField("account", g.account).WithError(err).Warnf("what others change of %s is not seen yet; tried again each minute", kind)
			}
			g.refusals[kind] = time.Now().Add(time.Minute)
			g.put(lane, nil)
			g.again(time.Minute)
			continue
		}
		g.follows[kind] = stop
	}
	return nil
}

// compare looks at objects of a lane that moved, records what differs, and puts it back where the file says so.
func (g *guard) compare(ctx context.Context, lane int64, moved map[manifest.Key]Moved) error {
	k, err := g.Store.KeptLane(ctx, lane)
	if err != nil || k == nil {
		return err
	}
	if k.Busy {
		g.put(lane, moved)
		return nil // its end says so
	}
	objects, err := g.Store.Manifests(ctx, k.Release.Manifests)
	if err != nil {
		return err
	}
	some := slices.Collect(maps.Values(moved))
	unseen := 0
	for _, m := range some {
		if m.Gap {
			unseen++
		}
	}
	if unseen > 0 {
		if err := g.slow.WaitN(ctx, min(unseen, compareUnseen)); err != nil {
			return err
		}
	}
	compared, found, failure := g.cluster.Compare(ctx, *k, objects, some)
	if failure != nil {
		return failure
	}
	if len(found) == 0 && len(k.Drifted) == 0 {
		return nil
	}
	if err := g.Store.SaveDrift(ctx, *k, compared, found, false); err != nil {
		return err
	}
	if k.Heal && len(found) > 0 {
		return g.heal(ctx, *k, objects, found)
	}
	return nil
}

// heal puts back what differs, unless it was put back just before: who changes it again and again is told, and waited for longer each time.
func (g *guard) heal(ctx context.Context, k rollout.Kept, objects []manifest.Object, found []rollout.Drift) error {
	var now []rollout.Drift
	for _, d := range found {
		f := g.fights[d.Key]
		if f == nil || time.Since(f.last) > 2*g.latest() {
			f = &fight{}
			g.fights[d.Key] = f
		}
		if wait := time.Until(f.until); wait > 0 {
			g.put(k.Lane, map[manifest.Key]Moved{d.Key: {Key: d.Key}})
			g.again(wait)
			continue
		}
		now = append(now, d)
	}
	if len(now) == 0 {
		return nil
	}
	var only, keys []manifest.Key
	for _, d := range now {
		keys = append(keys, d.Key)
		if !slices.Contains(only, d.Of) {
			only = append(only, d.Of)
		}
	}
	set, err := g.Runner.Names(objects)
	if err != nil {
		return err
	}
	outcome, done, err := g.Runner.Restore(ctx, k, k.Restoring(only, set))
	if err != nil || !done {
		g.put(k.Lane, movedOf(now))
		g.again(time.Second)
		return err
	}
	if outcome.Failure != nil {
		return g.failed(ctx, k, now, outcome.Failure)
	}
	for _, d := range now {
		g.fought(ctx, k, d)
	}
	return g.Store.SaveDrift(ctx, k, keys, nil, true)
}

// failed has what could not be put back tried again, later each time, and tells why it could not, once.
func (g *guard) failed(ctx context.Context, k rollout.Kept, drifts []rollout.Drift, failure *rollout.Failure) error {
	news := false
	for _, d := range drifts {
		f := g.fights[d.Key]
		f.times++
		f.last = time.Now()
		f.until = f.last.Add(min(g.soonest()<<min(f.times, 20), g.latest()))
		news = news || f.failure != failure.Error()
		f.failure = failure.Error()
		g.again(time.Until(f.until))
	}
	g.put(k.Lane, movedOf(drifts))
	if !news || failure.Class != rollout.Refused {
		return nil
	}
	return g.Store.SayDrift(ctx, k, "target.heal_failed", fmt.Sprintf("%s: what differs could not be put back", k.Identity.Target), failure.Error())
}

func movedOf(found []rollout.Drift) map[manifest.Key]Moved {
	moved := map[manifest.Key]Moved{}
	for _, d := range found {
		moved[d.Key] = Moved{Key: d.Key}
	}
	return moved
}

// fightsAfter is how many times in a row something is put back before its changer is told of as a fighter.
const fightsAfter = 3

// fought counts what was put back.
func (g *guard) fought(ctx context.Context, k rollout.Kept, d rollout.Drift) {
	f := g.fights[d.Key]
	f.times++
	f.last = time.Now()
	pause := min(g.soonest()<<min(f.times-1, 20), g.latest())
	f.until = f.last.Add(pause)
	if f.times < fightsAfter || f.told {
		return
	}
	f.told = true
	what := fmt.Sprintf("%s: %s was put back %d times, and is changed again each time; it is put back less and less often", k.Identity.Target, d.Key, f.times)
	if err := g.Store.SayDrift(ctx, k, "target.fight", what, d.Whose()); err != nil && !errors.Is(err, context.Canceled) {
		g.Log.WithError(err).Error("who fights could not be told")
	}
}

func (k *Keeper) soonest() time.Duration {
	if k.Soonest == 0 {
		return time.Second
	}
	return k.Soonest
}

func (k *Keeper) latest() time.Duration {
	if k.Latest == 0 {
		return 5 * time.Minute
	}
	return k.Latest
}
