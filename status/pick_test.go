package status

import (
	"slices"
	"strings"
	"testing"
	"time"

	"towpath/reconcile/rollout"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestWhatIsSentNow(t *testing.T) {
	moving := Status{Context: "towpath/shop", State: "pending", Description: "1 of 3 pods"}
	part := Status{Context: "towpath/shop/prod", State: "pending", Description: "1 of 3 pods", target: true}
	ended := Status{Context: "towpath/shop/staging", State: "success", Description: "live", Final: true, target: true}
	sent := func(s Status, ago time.Duration, count int) map[string]rollout.Publication {
		return map[string]rollout.Publication{strings.ToLower(s.Context): {Hash: s.hash(), At: noon.Add(-ago), Count: count}}
	}
	other := moving
	other.Description = "0 of 3 pods"
	for name, c := range map[string]struct {
		wanted    []Status
		published map[string]rollout.Publication
		spent     float64
		due       []string
		later     time.Duration
	}{
		"nothing was sent":                    {[]Status{moving, part, ended}, nil, 0, []string{ended.Context, moving.Context, part.Context}, 0},
		"all was sent":                        {[]Status{moving}, sent(moving, time.Hour, 1), 0, nil, 0},
		"another state was sent a moment ago": {[]Status{moving}, sent(other, 5*time.Second, 1), 0, nil, 10 * time.Second},
		"another state was sent a while ago":  {[]Status{moving}, sent(other, 15*time.Second, 1), 0, []string{moving.Context}, 0},
		"an end follows at once":              {[]Status{ended}, map[string]rollout.Publication{ended.Context: {Hash: "x", At: noon}}, 0, []string{ended.Context}, 0},
		"at 71 % no steps of targets":         {[]Status{moving, part, ended}, nil, 0.71, []string{ended.Context, moving.Context}, scarce},
		"at 86 % only ends":                   {[]Status{moving, part, ended}, nil, 0.86, []string{ended.Context}, scarce},
		"near GitHub's limit for a context":   {[]Status{moving}, sent(other, time.Hour, 950), 0, nil, 0},
		"an end near the limit":               {[]Status{ended}, map[string]rollout.Publication{ended.Context: {Hash: "x", Count: 999}}, 0, []string{ended.Context}, 0},
		"an end beyond it":                    {[]Status{ended}, map[string]rollout.Publication{ended.Context: {Hash: "x", Count: 1000}}, 0, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			due, later := pick(posted(c.wanted, spot{}), c.published, noon, c.spent)
			var contexts []string
			for _, s := range due {
				contexts = append(contexts, s.content.(Status).Context)
			}
			if !slices.Equal(contexts, c.due) {
				t.Errorf("due %v, want %v", contexts, c.due)
			}
			if want := noon.Add(c.later); c.later == 0 && !later.IsZero() || c.later != 0 && !later.Equal(want) {
				t.Errorf("later %s, want %s", later, want)
			}
		})
	}
}

func TestTheBudgetIsKept(t *testing.T) {
	s := spending{budget: Budget{Pause: time.Second, Minute: 3, Hour: 5}}
	now := noon
	var at []time.Duration
	for range 7 {
		now = s.next(now, true)
		s.note(now, true)
		at = append(at, now.Sub(noon))
	}
	want := []time.Duration{0, time.Second, 2 * time.Second, time.Minute, time.Minute + time.Second, time.Hour, time.Hour + time.Second}
	if !slices.Equal(at, want) {
		t.Errorf("sent at %v, want %v", at, want)
	}
	if share := s.share(noon.Add(time.Hour)); share != 1.2 { // the first has left the hour
		t.Errorf("share %v", share)
	}
	if next := s.next(now, false); next != now.Add(time.Second) { // what changes something that is there waits only for the pause
		t.Errorf("after %s something may be changed at %s", now, next)
	}
	if share := s.share(noon.Add(3 * time.Hour)); share != 0 {
		t.Errorf("share after hours of silence: %v", share)
	}
}
