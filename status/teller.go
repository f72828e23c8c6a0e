package status

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"towpath/reconcile/rollout"
)

// Outbox is what a Teller needs of the store. Safe for concurrent use.
type Outbox interface {
	// ClaimMessages takes messages of sources that are due, for a while; next is when more will be, zero: unknown.
	ClaimMessages(ctx context.Context, sources []string, limit int, lasts time.Duration) (messages []rollout.Message, next time.Time, err error)
	// Report is all there is to tell about a commit now; with more than detailed applications, without their targets.
	Report(ctx context.Context, tenant, source, commit string, detailed int) (rollout.CommitReport, error)
	// Published is what was last told of each object of a message's commit, PublishedSince how much was told lately, by source.
	Published(ctx context.Context, m rollout.Message) (map[string]rollout.Publication, error)
	PublishedSince(ctx context.Context, at time.Time) (map[string]int, error)
	// Told, TellLater and Park give a message back, and record what was sent of it.
	Told(ctx context.Context, m rollout.Message, sent map[string]rollout.Publication) error
	TellLater(ctx context.Context, m rollout.Message, sent map[string]rollout.Publication, d rollout.Delay) error
	Park(ctx context.Context, m rollout.Message, sent map[string]rollout.Publication, why string) error
}

// forge is where statuses go. Its errors are *Failure.
type forge interface {
	Create(ctx context.Context, repository, commit string, s Status) error
	Latest(ctx context.Context, repository, commit string) (map[string]Status, error)
}

// Config of a Teller. All sources of one Teller share one identity on the forge, and so its budget.
type Config struct {
	Outbox       Outbox
	Forge        forge
	Repositories map[string]string // source → "OWNER/NAME"
	Budget       Budget
	Clock        func() time.Time
	Log          *logrus.Entry
}

// Teller sends what is to be told in the name of one identity: one request at a time, within its budget.
type Teller struct {
	Config
	sources []string
	woken   chan struct{}
	spent   spending

	tries int       // failures of the account in a row
	quiet time.Time // nothing is sent before
}

// New makes a Teller that does nothing until Run.
func New(c Config) *Teller {
	t := &Teller{Config: c, woken: make(chan struct{}, 1), spent: spending{budget: c.Budget}}
	for source := range c.Repositories {
		t.sources = append(t.sources, source)
	}
	return t
}

// Wake makes the Teller look for messages, now.
func (t *Teller) Wake() {
	select {
	case t.woken <- struct{}{}:
	default:
	}
}

const (
	// claimLasts exceeds what a batch of messages takes: each may need as many statuses as one commit has (220), a second each.
	claimLasts = 20 * time.Minute
	batch      = 4
	// patience is how long a message is held because the budget has no room; for longer it is given back.
	patience = 10 * time.Second
	// lookEvery finds messages of another process that died.
	lookEvery = time.Minute
	// untaken is how long a commit that is still being taken in is left alone; it is told at once when that is done.
	untaken = 5 * time.Second
)

// Run sends messages until ctx ends.
func (t *Teller) Run(ctx context.Context) {
	t.recall(ctx)
	for ctx.Err() == nil {
		next, err := t.round(ctx)
		if err != nil && ctx.Err() == nil {
			t.Log.WithError(err).Error("what is to be told could not be read or recorded; trying again in a minute")
			next = time.Time{}
		}
		wait := lookEvery
		if !next.IsZero() {
			wait = min(wait, max(0, next.Sub(t.Clock())))
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-t.woken:
		}
		timer.Stop()
	}
}

// recall counts what was sent before the start as sent just now: the budget is GitHub's, not this process's.
func (t *Teller) recall(ctx context.Context) {
	now := t.Clock()
	counts, err := t.Outbox.PublishedSince(ctx, now.Add(-time.Hour))
	if err != nil {
		t.Log.WithError(err).Warn("how much was told within the last hour is not known; starting with a full budget")
	}
	for _, source := range t.sources {
		for range counts[source] {
			t.spent.note(now.Add(-t.spent.budget.Pause - time.Minute))
		}
	}
}

// round sends all that is due, and says when more will be.
func (t *Teller) round(ctx context.Context) (next time.Time, err error) {
	for {
		if now := t.Clock(); now.Before(t.quiet) {
			return t.quiet, nil
		}
		messages, next, err := t.Outbox.ClaimMessages(ctx, t.sources, batch, claimLasts)
		if err != nil || len(messages) == 0 {
			return next, err
		}
		for _, m := range messages {
			err = errors.Join(err, t.tell(ctx, m))
		}
		if err != nil {
			return time.Time{}, err
		}
	}
}

// tell sends what is due of one message and gives it back. Its error is the store's.
func (t *Teller) tell(ctx context.Context, m rollout.Message) error {
	now := t.Clock()
	if now.Before(t.quiet) { // an earlier message of the batch met trouble
		return t.Outbox.TellLater(ctx, m, nil, rollout.Delay{At: t.quiet, Unsure: m.Unsure})
	}
	report, err := t.Outbox.Report(ctx, m.Tenant, m.Source, m.Commit, MaxApplications)
	if err != nil {
		return err
	}
	if !report.Taken {
		return t.Outbox.TellLater(ctx, m, nil, rollout.Delay{At: now.Add(untaken), Unsure: m.Unsure})
	}
	published, err := t.Outbox.Published(ctx, m)
	if err != nil {
		return err
	}
	wanted, sent := Statuses(report), map[string]rollout.Publication{}
	if m.Unsure {
		if err := t.lookUp(ctx, m, wanted, published, sent); err != nil {
			return t.failed(ctx, m, sent, err)
		}
	}
	due, later := pick(wanted, published, now, t.spent.share(now))
	for _, s := range due {
		if room := t.spent.next(t.Clock()); !t.pace(ctx, room) {
			return t.Outbox.TellLater(context.WithoutCancel(ctx), m, sent, rollout.Delay{At: room})
		}
		t.spent.note(t.Clock())
		if err := t.Forge.Create(ctx, t.Repositories[m.Source], m.Commit, s); err != nil {
			return t.failed(ctx, m, sent, err)
		}
		t.tries = 0
		sent[s.object()] = rollout.Publication{Hash: s.hash(), Final: s.Final, At: t.Clock(), Count: published[s.object()].Count + 1}
	}
	if !later.IsZero() {
		return t.Outbox.TellLater(ctx, m, sent, rollout.Delay{At: later})
	}
	return t.Outbox.Told(ctx, m, sent)
}

// lookUp finds out what arrived of a try that nobody recorded.
func (t *Teller) lookUp(ctx context.Context, m rollout.Message, wanted []Status, published, sent map[string]rollout.Publication) error {
	latest, err := t.Forge.Latest(ctx, t.Repositories[m.Source], m.Commit)
	if err != nil {
		return err
	}
	for _, s := range wanted {
		found, there := latest[s.object()]
		p := published[s.object()]
		if !there || found.hash() == p.Hash {
			continue
		}
		p = rollout.Publication{Hash: found.hash(), Final: s.Final && found.hash() == s.hash(), At: t.Clock().Add(-spacing), Count: p.Count + 1}
		published[s.object()], sent[s.object()] = p, p
	}
	return nil
}

// pace waits until the budget has room for one more. It is false when that is too far off, or ctx ended.
func (t *Teller) pace(ctx context.Context, room time.Time) bool {
	wait := room.Sub(t.Clock())
	if wait <= 0 || wait > patience {
		return wait <= 0 && ctx.Err() == nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// failed gives a message back that could not be sent, and keeps the account quiet for as long as the failure asks for.
func (t *Teller) failed(ctx context.Context, m rollout.Message, sent map[string]rollout.Publication, err error) error {
	f := &Failure{Kind: Trouble, Unsure: true, Text: err.Error()}
	errors.As(err, &f)
	log := t.Log.WithField("source", m.Source).WithField("commit", m.Commit)
	keep := context.WithoutCancel(ctx)
	if ctx.Err() != nil { // the controller stops
		return t.Outbox.TellLater(keep, m, sent, rollout.Delay{At: t.Clock(), Unsure: true})
	}
	switch f.Kind {
	case Refused:
		log.WithError(f).Error("not told; tried again when there is news")
		return t.Outbox.Park(keep, m, sent, f.Text)
	case Limited:
		t.quiet = f.Until
	case Trouble:
		t.quiet = t.Clock().Add(backoff(t.tries))
		t.tries++
	}
	log.WithError(f).Warnf("not told yet; trying again at %s", t.quiet.UTC().Format(time.TimeOnly))
	return t.Outbox.TellLater(keep, m, sent, rollout.Delay{At: t.quiet, Failure: f.Text, Unsure: f.Unsure})
}

// backoff is 1, 2, 4 … 15 minutes, give or take a quarter.
func backoff(tries int) time.Duration {
	pause := min(time.Minute<<min(tries, 4), 15*time.Minute)
	return pause*3/4 + rand.N(pause/2)
}

// Tellers are the tellers of all accounts; they are replaced as a whole when the configuration changes.
type Tellers struct {
	mu   sync.Mutex
	all  []*Teller
	stop func()
}

// Use ends the tellers that run, and runs others until ctx ends.
func (ts *Tellers) Use(ctx context.Context, all []*Teller) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.stop != nil {
		ts.stop()
		ts.all, ts.stop = nil, nil
	}
	if len(all) == 0 {
		return
	}
	running, cancel := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	for _, t := range all {
		tasks.Go(func() { t.Run(running) })
	}
	ts.all, ts.stop = all, func() {
		cancel()
		tasks.Wait()
	}
}

// Wake makes all of them look for messages.
func (ts *Tellers) Wake() {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, t := range ts.all {
		t.Wake()
	}
}
