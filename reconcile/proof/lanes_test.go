package proof_test

import (
	"context"
	"time"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// lanes is the store as a runner sees it: others have their turns around each call, the judge looks on, and a planted fault lies in between.
type lanes struct{ *house }

// turn lets others go on, for a moment, at times for longer; now and then a run stands still for longer than its lease.
func (l *lanes) turn() {
	d := time.Duration(l.chance.IntN(3)) * 10 * time.Millisecond
	if l.chance.IntN(20) == 0 {
		d *= 10
	}
	switch {
	case l.still != nil && l.own() != nil:
		d += l.still(l.own())
	case l.stalls > 0 && l.chance.IntN(1000) < l.stalls:
		d = time.Duration(l.chance.IntN(150)) * time.Second
		l.After(d, l.disturbed)
		l.note("run %d stands still for %s", l.own().number, d)
	}
	if l.own() != nil {
		l.Sleep(d)
	}
}

func (l *lanes) own() *run {
	r, _ := l.Value().(*run)
	return r
}

func (l *lanes) AccountOf(ctx context.Context, lane int64) (tenant, account string, err error) {
	return l.store.AccountOf(ctx, lane)
}

func (l *lanes) Claim(ctx context.Context, lane int64, lasts time.Duration) (rollout.Lease, error) {
	l.turn()
	lease, err := l.store.Claim(ctx, lane, lasts)
	if l.fault.claim != nil {
		lease, err = l.fault.claim(l.house, lane, lease, err)
	}
	if err == nil {
		l.own().lease = lease
		l.due[lane], l.epochs[lane] = lease.Until, lease.Epoch
		l.claimed(l.own())
		l.note("run %d claims %s until %s", l.own().number, l.nameOfLane(lane), lease.Until.Sub(start))
	}
	l.turn()
	return lease, err
}

func (l *lanes) Extend(ctx context.Context, lease rollout.Lease, lasts time.Duration) (rollout.Lease, error) {
	l.turn()
	lease, err := l.store.Extend(ctx, lease, lasts)
	if err == nil {
		l.own().lease = lease
		l.due[lease.Lane] = lease.Until
	}
	return lease, err
}

func (l *lanes) Lane(ctx context.Context, id int64) (rollout.Lane, error) {
	l.turn()
	lane, err := l.store.Lane(ctx, id)
	if err == nil {
		l.own().read, l.own().intends = l.Now(), l.intended(l.nameOfLane(id))
		lane.Words = append(lane.Words, l.noise(lane)...)
		if l.fault.lane != nil {
			l.fault.lane(l.house, &lane)
		}
	}
	return lane, err
}

// noise is words that were said of another digest of the target: they must not count.
func (l *lanes) noise(lane rollout.Lane) (words []rollout.Word) {
	if lane.Current == nil {
		return nil
	}
	for _, w := range lane.Current.Waits {
		if w.Gate != "" {
			for _, by := range []string{"mallory", "trent"} {
				words = append(words, rollout.Word{Target: lane.Current.Name, Gate: w.Gate, Digest: otherDigest, Verb: rollout.Approve, By: by, At: l.Now()})
			}
		}
	}
	return words
}

const otherDigest = "promise of another version"

func (l *lanes) Save(ctx context.Context, lease rollout.Lease, d rollout.Decision) error {
	l.pass("before save " + string(d.Target.Phase))
	l.turn()
	under, saved := lease, d
	if l.fault.save != nil {
		under, saved = l.fault.save(l.house, lease, d)
	}
	err := l.store.Save(ctx, under, saved)
	if err == nil {
		l.saved(l.own(), d)
		l.own().intends = l.intended(l.nameOfLane(lease.Lane))
		l.deliver()
	}
	l.pass("after save " + string(d.Target.Phase))
	l.turn()
	return err
}

func (l *lanes) Rest(ctx context.Context, lease rollout.Lease, seq int64, due time.Time) (bool, error) {
	l.turn()
	if l.fault.rest != nil {
		seq, due = l.fault.rest(l.house, lease, seq, due)
	}
	rests, err := l.store.Rest(ctx, lease, seq, due)
	l.note("run %d rests: %v until %s (%v)", l.own().number, rests, due.Sub(start), err)
	if rests && err == nil {
		delete(l.due, lease.Lane)
		if !due.IsZero() {
			l.due[lease.Lane] = due
		}
	}
	return rests, err
}

func (l *lanes) Wake(ctx context.Context, lane int64) error {
	err := l.store.Wake(ctx, lane)
	l.deliver()
	return err
}

func (l *lanes) Manifests(ctx context.Context, digest string) ([]manifest.Object, error) {
	l.until(ctx)
	l.turn()
	if l.fault.manifests != nil {
		digest = l.fault.manifests(l.house, digest)
	}
	return l.store.Manifests(ctx, digest)
}
