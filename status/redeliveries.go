package status

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-github/v60/github"
	"github.com/sirupsen/logrus"
)

// Looks is what a Redeliverer needs of the store. Safe for concurrent use.
type Looks interface {
	// BeginLook says what deliveries of an App's webhook were looked at until; false: somebody looked less than every ago, or does so now.
	BeginLook(ctx context.Context, app string, every time.Duration) (until time.Time, mine bool, err error)
	// Redeliver records that a delivery is asked for again after an attempt that failed; false: it was after that one, or often enough.
	Redeliver(ctx context.Context, app, guid string, attempt int64) (ask bool, err error)
	// EndLook records what deliveries were looked at until.
	EndLook(ctx context.Context, app string, until time.Time) error
}

// Redeliverer asks GitHub to send again what did not arrive: GitHub itself never does.
type Redeliverer struct {
	App   *App
	Looks Looks
	Log   *logrus.Entry
}

const (
	// looksEvery is how often failed deliveries are looked for.
	looksEvery = 5 * time.Minute
	// keeps is how long GitHub can send a delivery again.
	keeps = 3 * 24 * time.Hour
	// overlap is looked at twice: a delivery is listed with the time when it began, once it ended.
	overlap = time.Minute
	// maxRedelivered bounds one look; what is left is for the next. Of more deliveries than maxLooked the oldest are left to looking at branches.
	maxLooked      = 10000
	maxRedelivered = 50
)

// Run looks at once, and then every five minutes, until ctx ends.
func (r *Redeliverer) Run(ctx context.Context) {
	for every := time.Duration(0); ctx.Err() == nil; every = looksEvery {
		if err := r.look(ctx, every); err != nil && ctx.Err() == nil {
			r.Log.WithError(err).WithField("app", r.App.Name()).Warn("what GitHub could not deliver was not found out; trying again in five minutes, and commits are found by looking")
		}
		timer := time.NewTimer(looksEvery)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// look asks for everything again that failed since the last look.
func (r *Redeliverer) look(ctx context.Context, every time.Duration) error {
	began := r.App.clock()
	until, mine, err := r.Looks.BeginLook(ctx, r.App.Name(), every-every/10) // timers of replicas do not run alike
	if err != nil || !mine {
		return err
	}
	from := began.Add(-keeps)
	if until.After(from) {
		from = until.Add(-overlap)
	}
	failed, err := r.App.failed(ctx, from)
	if err != nil {
		return err
	}
	asked := 0
	for _, d := range failed {
		if asked == maxRedelivered {
			began = d.GetDeliveredAt().Time
			break
		}
		ask, err := r.Looks.Redeliver(ctx, r.App.Name(), d.GetGUID(), d.GetID())
		if err != nil {
			return err
		}
		if !ask {
			continue
		}
		if err := r.App.redeliver(ctx, d); err != nil {
			return err
		}
		asked++
		r.Log.WithField("app", r.App.Name()).Infof("GitHub is asked to deliver %s %s again, which failed with %d %.100q", d.GetEvent(), d.GetGUID(), d.GetStatusCode(), d.GetStatus())
	}
	return r.Looks.EndLook(ctx, r.App.Name(), began)
}

// failed is the newest attempt of each delivery since a time, where that one failed, oldest first.
func (a *App) failed(ctx context.Context, from time.Time) (failed []*github.HookDelivery, err error) {
	seen := map[string]bool{} // a newer attempt
	options := &github.ListCursorOptions{PerPage: 100}
	for looked := 0; looked < maxLooked; {
		page, err := a.deliveries(ctx, options)
		if err != nil {
			return nil, err
		}
		over := false
		for _, d := range page.all { // newest first
			if over = d.GetDeliveredAt().Before(from); over {
				break
			}
			if arrived := d.GetStatusCode() >= 200 && d.GetStatusCode() < 300; !arrived && !seen[d.GetGUID()] && Heeded(d.GetEvent()) {
				failed = append(failed, d)
			}
			seen[d.GetGUID()] = true
		}
		if looked += len(page.all); over || page.next == "" {
			break
		}
		options.Cursor = page.next
	}
	slices.Reverse(failed)
	return failed, nil
}

type deliveryPage struct {
	all  []*github.HookDelivery
	next string
}

func (a *App) deliveries(ctx context.Context, options *github.ListCursorOptions) (deliveryPage, error) {
	self, err := a.self()
	if err != nil {
		return deliveryPage{}, err
	}
	all, response, err := a.client.Apps.ListHookDeliveries(withToken(ctx, self), options)
	if err := a.failure(fmt.Sprintf("the deliveries of the App %s", a.config.Name), a.advice(nil), response, err); err != nil {
		return deliveryPage{}, err
	}
	return deliveryPage{all, response.Cursor}, nil
}

func (a *App) redeliver(ctx context.Context, d *github.HookDelivery) error {
	self, err := a.self()
	if err != nil {
		return err
	}
	_, response, err := a.client.Apps.RedeliverHookDelivery(withToken(ctx, self), d.GetID())
	var accepted *github.AcceptedError
	if errors.As(err, &accepted) {
		return nil // which go-github takes for an error
	}
	return a.failure(fmt.Sprintf("the delivery %s of the App %s", d.GetGUID(), a.config.Name), a.advice(nil), response, err)
}
