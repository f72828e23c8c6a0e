package gitsource

import (
	"fmt"
	"time"

	"github.com/robfig/cron/v3"
)

// DefaultSchedule is how often a repository is asked when nobody says otherwise. A webhook makes a fetch sooner.
const DefaultSchedule = "@every 30s"

// Schedule says when a repository is asked next.
type Schedule struct{ cron cron.Schedule }

// NewSchedule reads five fields as cron has them (times are those of the time given to Next), "@hourly" and the like, or "@every 2m"; "" is DefaultSchedule.
// Less than 5 s between two fetches is an error.
func NewSchedule(text string) (Schedule, error) {
	const least = 5 * time.Second
	if text == "" {
		text = DefaultSchedule
	}
	s, err := cron.ParseStandard(text)
	if err != nil {
		return Schedule{}, fmt.Errorf("schedule %q: %w; write five fields of cron, as in \"*/5 * * * *\", or \"@every 30s\"", text, err)
	}
	if every, ok := s.(cron.ConstantDelaySchedule); ok && every.Delay < least {
		return Schedule{}, fmt.Errorf("schedule %q: less than %s between two fetches; let a webhook tell of each push instead", text, least)
	}
	return Schedule{s}, nil
}

// Next is the time of the next fetch after one that ended at last, when that was the failures-th in a row to fail (0: it succeeded). Failures double the wait
// up to 10 minutes, or to what the schedule says if that is later. A schedule that never comes due gives the zero time.
func (s Schedule) Next(last time.Time, failures int) time.Time {
	const first, longest = 5 * time.Second, 10 * time.Minute
	next := s.cron.Next(last)
	if failures <= 0 || next.IsZero() {
		return next
	}
	wait := longest
	if failures < 8 {
		wait = min(longest, first<<failures)
	}
	if backoff := last.Add(wait); backoff.After(next) {
		return backoff
	}
	return next
}
