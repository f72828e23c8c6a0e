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
	// ClaimMessage takes a message of sources that is due, for a while in which nobody else gets one of them; nil: none is, next is when one will be,
	// zero: unknown. KeepMessage makes it last so long from now on; rollout.ErrStale when somebody else took it.
	ClaimMessage(ctx context.Context, sources []string, lasts time.Duration) (m *rollout.Message, next time.Time, err error)
	KeepMessage(ctx context.Context, m rollout.Message, lasts time.Duration) (rollout.Message, error)
	// Report is all there is to tell about a commit now; with more than detailed applications, without their targets. ProposalReport is that of a message about
	// a pull request or a group of a merge queue.
	Report(ctx context.Context, tenant, source, commit string, detailed int) (rollout.CommitReport, error)
	ProposalReport(ctx context.Context, m rollout.Message, detailed int) (rollout.ProposalReport, error)
	// Published is what was last told of each object of what a message is about, SentSince when something was created about sources, by whomever.
	Published(ctx context.Context, m rollout.Message) (map[string]rollout.Publication, error)
	SentSince(ctx context.Context, sources []string, since time.Time) ([]time.Time, error)
	// Told, TellLater and Park give a message back, and record what was sent of it.
	Told(ctx context.Context, m rollout.Message, sent map[string]rollout.Publication) error
	TellLater(ctx context.Context, m rollout.Message, sent map[string]rollout.Publication, d rollout.Delay) error
	Park(ctx context.Context, m rollout.Message, sent map[string]rollout.Publication, why string) error
}

// forge is where it is told. Its errors are *Failure.
type forge interface {
	Create(ctx context.Context, repository, commit string, s Status) error
	Latest(ctx context.Context, repository, commit string) (map[string]Status, error)

	// Checks reports whether it takes check runs; where it does not, statuses stand in their place.
	Checks() bool
	CreateRun(ctx context.Context, repository, commit string, r Run, state string) (id int64, err error)
	UpdateRun(ctx context.Context, repository string, id int64, r Run, state string) (there bool, err error)
	Runs(ctx context.Context, repository, commit string) (map[string]Found, error)

	CreateComment(ctx context.Context, repository string, pull int, body string) (id int64, err error)
	EditComment(ctx context.Context, repository string, id int64, body string) (there bool, err error)
	FindComment(ctx context.Context, repository string, pull int, mark string) (Found, error)

	React(ctx context.Context, repository string, comment int64, sign string) error
}

// Config of a Teller. All sources of one Teller share one identity on the forge, and so its budget.
type Config struct {
	Outbox       Outbox
	Forge        forge
	Repositories map[string]string                      // source → "OWNER/NAME"
	Link         func(tenant, deployment string) string // the page of a deployment; without its id, of all
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
	// claimLasts is how long nobody else sends after a process died while it did. It is made to last again while more is to be sent; half of it exceeds
	// what one request may take.
	claimLasts = 2 * time.Minute
	// patience is how long a message is held because the budget has no room; for longer it is given back.
	patience = 10 * time.Second
	// lookEvery finds messages of another process that died.
	lookEvery = time.Minute
	// untaken is how long a commit that is still being taken in is left alone; it is told at once when that is done.
	untaken = 5 * time.Second
	// maxUnfit is how much of one message may be refused before the rest is not tried.
	maxUnfit = 3
)

// Run sends messages until ctx ends.
func (t *Teller) Run(ctx context.Context) {
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

// round sends all that is due, and says when more will be.
func (t *Teller) round(ctx context.Context) (next time.Time, err error) {
	for ctx.Err() == nil {
		if t.Clock().Before(t.quiet) {
			return t.quiet, nil
		}
		m, next, err := t.Outbox.ClaimMessage(ctx, t.sources, claimLasts)
		if err != nil || m == nil {
			return next, err
		}
		if err := t.tell(ctx, *m); err != nil {
			return time.Time{}, err
		}
	}
	return time.Time{}, nil
}

// tell sends what is due of one message and gives it back. Its error is the store's. ctx ends the sending; what was sent is recorded all the same.
func (t *Teller) tell(ctx context.Context, m rollout.Message) error {
	keep, now := context.WithoutCancel(ctx), t.Clock()
	earlier, err := t.Outbox.SentSince(keep, t.sources, now.Add(-time.Hour))
	if err != nil {
		return err
	}
	t.spent.learn(earlier)
	published, err := t.Outbox.Published(keep, m)
	if err != nil {
		return err
	}
	wanted, taken, err := t.wanted(keep, m, published)
	if err != nil {
		return err
	}
	if !taken {
		return t.Outbox.TellLater(keep, m, nil, rollout.Delay{At: now.Add(untaken), Unsure: m.Unsure})
	}
	sent := map[string]rollout.Publication{}
	if m.Unsure {
		if err := t.lookUp(ctx, wanted, published, sent); err != nil {
			return t.failed(ctx, m, sent, err)
		}
		m.Unsure = false
	}
	due, later := pick(wanted, published, now, t.spent.share(now))
	return t.send(ctx, m, due, later, published, sent)
}

// wanted is all that people are to see of what a message is about; not taken: it is not yet known.
func (t *Teller) wanted(ctx context.Context, m rollout.Message, published map[string]rollout.Publication) (posts []post, taken bool, err error) {
	at := spot{repository: t.Repositories[m.Source], commit: m.Commit, pull: m.Pull}
	link := func(deployment string) string { return t.Link(m.Tenant, deployment) }
	if m.Pull != 0 || m.Group {
		r, err := t.Outbox.ProposalReport(ctx, m, MaxApplications)
		posts := replies(r.Replies, m.Source, at) // whoever asked waits for them
		return append(posts, showing{r, at, t.Forge.Checks(), link(""), link}.posts(published)...), true, err
	}
	r, err := t.Outbox.Report(ctx, m.Tenant, m.Source, m.Commit, MaxApplications)
	return posted(Statuses(r, link), at), r.Taken, err
}

// send sends posts one after another, within the budget, and gives the message back.
func (t *Teller) send(ctx context.Context, m rollout.Message, due []post, later time.Time, published, sent map[string]rollout.Publication) error {
	keep := context.WithoutCancel(ctx)
	var unfit []error
	for _, p := range due {
		for shown := published[p.object]; shown.Hash != p.hash(); {
			creates := p.creates(shown)
			if room := t.spent.next(t.Clock(), creates); !t.pace(ctx, room) {
				return t.Outbox.TellLater(keep, m, sent, rollout.Delay{At: room})
			}
			var err error
			if m, err = t.hold(keep, m); errors.Is(err, rollout.ErrStale) {
				return t.Outbox.TellLater(keep, m, sent, rollout.Delay{At: t.Clock()}) // records what was sent; the message is somebody else's
			} else if err != nil {
				return err
			}
			at := t.Clock().Truncate(time.Microsecond)
			t.spent.note(at, creates)
			next, err := p.put(ctx, t.Forge, p.spot, shown)
			var f *Failure
			if errors.As(err, &f) && f.Kind == Unfit {
				if unfit = append(unfit, f); len(unfit) < maxUnfit {
					break
				}
			}
			if err != nil {
				return t.failed(ctx, m, sent, err)
			}
			t.tries = 0
			shown = step(sent[p.object], next, p, at, creates)
			sent[p.object] = shown
		}
	}
	switch {
	case len(unfit) > 0:
		return t.failed(ctx, m, sent, unfit[0])
	case !later.IsZero():
		return t.Outbox.TellLater(keep, m, sent, rollout.Delay{At: later})
	}
	return t.Outbox.Told(keep, m, sent)
}

// step is what is recorded of a post after one more request; earlier ones of the same message count with it.
func step(earlier, next rollout.Publication, p post, at time.Time, created bool) rollout.Publication {
	next.At, next.Edit = at, !created
	next.Final = p.final && next.Hash == p.hash()
	if created {
		next.Count++
	}
	if !earlier.At.IsZero() && !earlier.Edit { // when it was created is what the budget is counted by
		next.At, next.Edit = earlier.At, false
	}
	return next
}

// hold makes the claim of a message last for one more request.
func (t *Teller) hold(ctx context.Context, m rollout.Message) (rollout.Message, error) {
	if m.Until.Sub(t.Clock()) > claimLasts/2 {
		return m, nil
	}
	kept, err := t.Outbox.KeepMessage(ctx, m, claimLasts)
	if err != nil {
		return m, err
	}
	return kept, nil
}

// lookUp finds out what arrived of a try that nobody recorded.
func (t *Teller) lookUp(ctx context.Context, wanted []post, published, sent map[string]rollout.Publication) error {
	ctx, cancel := context.WithTimeout(ctx, claimLasts/2)
	defer cancel()
	l := newLook(t.Forge)
	for _, p := range wanted {
		found, err := p.find(ctx, l, p.spot)
		if err != nil {
			return err
		}
		shown := published[p.object]
		if found.Hash == "" || found.Hash == shown.Hash && found.ID == shown.ID {
			continue
		}
		found.Count = shown.Count
		found = step(rollout.Publication{}, found, p, t.Clock().Add(-spacing), found.ID == 0 || found.ID != shown.ID)
		published[p.object], sent[p.object] = found, found
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
	if m.Pull != 0 {
		log = log.WithField("pull", m.Pull)
	}
	keep := context.WithoutCancel(ctx)
	if ctx.Err() != nil { // the controller stops
		return t.Outbox.TellLater(keep, m, sent, rollout.Delay{At: t.Clock(), Unsure: true})
	}
	now := t.Clock()
	switch f.Kind {
	case Refused, Unfit:
		log.WithError(f).Error("not told; tried again when there is news")
		return t.Outbox.Park(keep, m, sent, f.Text)
	case Limited: // said once it is obeyed to the second; said again, or with a time that is over, it is not the whole truth
		t.quiet = f.Until
		if at := now.Add(backoff(max(0, t.tries-1))); t.tries > 0 && at.After(t.quiet) || !t.quiet.After(now) {
			t.quiet = at
		}
	case Trouble:
		t.quiet = now.Add(backoff(t.tries))
	}
	t.tries++
	log.WithError(f).Warnf("not told yet; trying again at %s", t.quiet.UTC().Format(time.TimeOnly))
	return t.Outbox.TellLater(keep, m, sent, rollout.Delay{At: t.quiet, Failure: f.Text, Unsure: f.Unsure || m.Unsure})
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
