package status

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"towpath/reconcile/rollout"
)

const (
	// spacing is the least time between two states of one status, unless the newer one is final.
	spacing = 15 * time.Second
	// scarce is how long what is left out of a scarce hour waits before it is looked at again.
	scarce = time.Minute
	// maxRepeats is how often GitHub takes a context on one commit; for ever after it refuses. What is not final keeps away from it.
	maxRepeats = 1000
	reserve    = 50
)

// object is what a status is called in the record of what was sent.
func (s Status) object() string { return strings.ToLower(s.Context) }

func (s Status) hash() string {
	sum := sha256.Sum256([]byte(s.State + "\x00" + s.Description + "\x00" + s.Link))
	return hex.EncodeToString(sum[:8])
}

// pick is what of the wanted statuses is to be sent now, final ones first, and when more of it will be; zero: nothing more. spent is the share of the
// hour's budget that is used up: above 70 % only applications and ends are told, above 85 % only ends.
func pick(wanted []Status, published map[string]rollout.Publication, now time.Time, spent float64) (due []Status, later time.Time) {
	delay := func(until time.Time) {
		if later.IsZero() || until.Before(later) {
			later = until
		}
	}
	var soft []Status
	for _, s := range wanted {
		p, sent := published[s.object()]
		switch {
		case sent && p.Hash == s.hash(), p.Count >= maxRepeats:
		case s.Final:
			due = append(due, s)
		case p.Count >= maxRepeats-reserve:
		case spent > 0.85, spent > 0.7 && s.target:
			delay(now.Add(scarce))
		case sent && now.Before(p.At.Add(spacing)):
			delay(p.At.Add(spacing))
		default:
			soft = append(soft, s)
		}
	}
	return append(due, soft...), later
}
