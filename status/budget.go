package status

import (
	"slices"
	"time"
)

// Budget is how much is sent for one account. GitHub takes 80 creations a minute and 500 an hour, which people who use the same identity share.
type Budget struct {
	Pause  time.Duration // between two of them
	Minute int
	Hour   int
}

// GitHubBudget keeps a distance from GitHub's secondary limits.
var GitHubBudget = Budget{Pause: time.Second, Minute: 60, Hour: 450}

// spending is what was sent within the last hour, oldest first.
type spending struct {
	budget Budget
	sent   []time.Time
}

func (s *spending) note(at time.Time) { s.sent = append(s.sent, at) }

// learn adds what others, or a process before this one, sent in the same name.
func (s *spending) learn(sent []time.Time) {
	s.sent = append(s.sent, sent...)
	slices.SortFunc(s.sent, time.Time.Compare)
	s.sent = slices.CompactFunc(s.sent, time.Time.Equal)
}

// next is when one more may be sent.
func (s *spending) next(now time.Time) time.Time {
	s.forget(now)
	at := now
	atLeast := func(other time.Time) {
		if other.After(at) {
			at = other
		}
	}
	if n := len(s.sent); n > 0 {
		atLeast(s.sent[n-1].Add(s.budget.Pause))
	}
	if n := len(s.sent); n >= s.budget.Minute {
		atLeast(s.sent[n-s.budget.Minute].Add(time.Minute))
	}
	if n := len(s.sent); n >= s.budget.Hour {
		atLeast(s.sent[n-s.budget.Hour].Add(time.Hour))
	}
	return at
}

// share is how much of the hour's budget is spent, from 0 to 1.
func (s *spending) share(now time.Time) float64 {
	s.forget(now)
	return float64(len(s.sent)) / float64(s.budget.Hour)
}

func (s *spending) forget(now time.Time) {
	old := 0
	for old < len(s.sent) && !s.sent[old].After(now.Add(-time.Hour)) {
		old++
	}
	s.sent = s.sent[old:]
}
