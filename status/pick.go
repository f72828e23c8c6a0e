package status

import (
	"time"

	"towpath/reconcile/rollout"
)

const (
	// spacing is the least time between two states of one thing, unless the newer one is final, or a person has to see it.
	spacing = 15 * time.Second
	// scarce is how long what is left out of a scarce hour waits before it is looked at again.
	scarce = time.Minute
	// sparesTargets and sparesStatuses are shares of the hour's budget: above the first no steps of targets are told, above the second none at all.
	sparesTargets, sparesStatuses, sparesNothing = 0.7, 0.85, 1
	// maxRepeats is how often GitHub takes a status of one context, or a check run of one name, on one commit; for ever after it refuses. What is not final
	// keeps away from it.
	maxRepeats = 1000
	reserve    = 50
)

// deleted is the id of what a person took away. It comes back when there is something that a person has to see.
const deleted = -1

// pick is what of the wanted posts is to be sent now, those first that cannot wait, and when more of it will be; zero: nothing more. spent is the share of
// the hour's budget that is used up.
func pick(wanted []post, published map[string]rollout.Publication, now time.Time, spent float64) (due []post, later time.Time) {
	delay := func(until time.Time) {
		if later.IsZero() || until.Before(later) {
			later = until
		}
	}
	var soft []post
	for _, p := range wanted {
		shown, sent := published[p.object]
		creates := p.creates(shown)
		switch {
		case sent && shown.Hash == p.hash(), creates && shown.Count >= maxRepeats:
		case shown.ID == 0 && p.quiet, shown.ID == deleted && !p.urgent:
		case p.final, p.urgent:
			due = append(due, p)
		case creates && shown.Count >= maxRepeats-reserve:
		case creates && spent > p.spare:
			delay(now.Add(scarce))
		case sent && now.Before(shown.At.Add(spacing)):
			delay(shown.At.Add(spacing))
		default:
			soft = append(soft, p)
		}
	}
	return append(due, soft...), later
}
