package gitsource_test

import (
	"strings"
	"testing"
	"time"

	"towpath/gitsource"
)

func TestARepositoryIsAskedOnTime(t *testing.T) {
	t.Parallel()
	last := time.Date(2026, 3, 1, 12, 0, 10, 0, time.UTC)
	for _, c := range []struct {
		schedule string
		failures int
		want     time.Duration
	}{
		{"", 0, 30 * time.Second},
		{"@every 2m", 0, 2 * time.Minute},
		{"*/5 * * * *", 0, 4*time.Minute + 50*time.Second},
		{"", 1, 30 * time.Second}, // the schedule is later than the first waits
		{"", 3, 40 * time.Second},
		{"", 6, 320 * time.Second},
		{"", 7, 10 * time.Minute},
		{"", 1_000_000, 10 * time.Minute},
		{"@hourly", 100, 59*time.Minute + 50*time.Second},
	} {
		s, err := gitsource.NewSchedule(c.schedule)
		ok(t, err)
		if got := s.Next(last, c.failures).Sub(last); got != c.want {
			t.Errorf("%q after %d failures: %s, want %s", c.schedule, c.failures, got, c.want)
		}
	}
	for text, want := range map[string]string{"every day": "write five fields of cron", "@every 1s": "less than 5s between two fetches"} {
		if _, err := gitsource.NewSchedule(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
