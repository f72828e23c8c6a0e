package status

import (
	"slices"
	"time"
)

// Budget is how much is sent for one account. GitHub takes 80 creations a minute and 500 an hour, which people who use the same identity share. What changes
// something that is there is no creation.
type Budget struct {
	Pause  time.Duration // between two requests that change something
	Minute int           // creations
	Hour   int
}

// GitHubBudget keeps a distance from GitHub's secondary limits.
var GitHubBudget = Budget{Pause: time.Second, Minute: 60, Hour: 450}

// spending is what was created within the last hour, oldest first, and when something was changed last.
type spending struct {
	budget Budget
	sent   []time.Time
	last   time.Time
}

func (s *spending) note(at time.Time, creation bool) {
	if s.last = at; creation {
		s.sent = append(s.sent, at)
	}
}

// learn adds what others, or a process before this one, created in the same name.
func (s *spending) learn(sent []time.Time) {
	s.sent = append(s.sent, sent...)
	slices.SortFunc(s.sent, time.Time.Compare)
	s.sent = slices.CompactFunc(s.sent, time.Time.Equal)
}

// next is when something may be changed, or one more created.
func (s *spending) next(now time.Time, creation bool) time.Time {
	s.forget(now)
	at := now
	atLeast := func(other time.Time) {
		if other.After(at) {
			at = other
		}
	}
	n := len(s.sent)
	if n > 0 {
		atLeast(s.sent[n-1].Add(s.budget.Pause))
	}
	atLeast(s.last.Add(s.budget.Pause))
	if creation && n >= s.budget.Minute {
		atLeast(s.sent[n-s.budget.Minute].Add(time.Minute))
	}
	if creation && n >= s.budget.Hour {
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
