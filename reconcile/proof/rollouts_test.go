package proof_test

import (
	"flag"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"towpath/internal/testkit/postgres"
	"towpath/store"
	"towpath/store/storetest"
)

var (
	seedFlag = flag.Int64("seed", -1, "only this seed, with all that happens in it")
	tracing  bool
)

// On the store in memory: a hundred thousand rollouts in the long form.
func TestWhateverHappensToRollouts(t *testing.T) {
	rollouts := 10_000
	if os.Getenv("TOWPATH_SOAK") != "" {
		rollouts = 100_000
	}
	through(t, rollouts, runtime.GOMAXPROCS(0), func() open { return inMemory })
}

func TestWhateverHappensToRolloutsOnSQLite(t *testing.T) {
	through(t, 300, 1, func() open {
		return func(clock func() time.Time, _ bool) (storetest.Opened, func()) {
			return inSQL(t, "sqlite:"+filepath.Join(inMemoryDirectory(t), "towpath.db"), clock, true)
		}
	})
}

func TestWhateverHappensToRolloutsOnPostgreSQL(t *testing.T) {
	server := postgres.Start(t)
	through(t, 100, 1, func() open {
		return func(clock func() time.Time, _ bool) (storetest.Opened, func()) {
			return inSQL(t, server.Database(t), clock, false)
		}
	})
}

// inMemoryDirectory is one in which syncing costs nothing, where there is such a place: here no disk fails.
func inMemoryDirectory(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "towpath")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func inSQL(t *testing.T, url string, clock func() time.Time, exclusive bool) (_ storetest.Opened, end func()) {
	s, err := store.Open(t.Context(), store.Config{URL: url, Keys: [][]byte{[]byte("0123456789abcdef0123456789abcdef")}, Clock: clock, Log: logrus.NewEntry(quiet.Logger)})
	if err != nil {
		t.Fatal(err)
	}
	woken, asked, stop := storetest.Jobs(t, url)
	return storetest.Opened{Store: s, Woken: woken, Asked: asked, Exclusive: exclusive}, func() {
		stop()
		s.Close()
	}
}

// through tells stories until so many rollouts came to an end, seed by seed, some at once.
func through(t *testing.T, rollouts, parallel int, opens func() open) {
	if *seedFlag >= 0 {
		tracing = true
		h := tell(opens(), uint64(*seedFlag), fault{})
		t.Logf("seed %d:\n%s", *seedFlag, strings.Join(h.log, "\n"))
		if h.wrong != "" {
			t.Fatal(h.wrong)
		}
		return
	}
	t.Parallel()
	var mu sync.Mutex
	var telling sync.WaitGroup
	seed, done, failed := uint64(0), 0, 0
	for range parallel {
		telling.Go(func() {
			for {
				mu.Lock()
				mine, enough := seed, done >= rollouts || failed > 4
				seed++
				mu.Unlock()
				if enough {
					return
				}
				h := tell(opens(), mine, fault{})
				mu.Lock()
				if done += h.rollouts(); h.wrong != "" {
					failed++
					t.Errorf("seed %d: %s\nsee what happens in it: %s", mine, h.wrong, replay(t, mine))
				}
				mu.Unlock()
			}
		})
	}
	telling.Wait()
	t.Logf("%d rollouts in %d stories", done, seed)
}

// rollouts that came to an end in a house.
func (j *judge) rollouts() (count int) {
	for _, w := range j.lanes {
		count += len(w.ended)
	}
	return count
}

// The same seed goes the same way each time: else a failing one could not be looked into.
func TestASeedGoesTheSameWayAgain(t *testing.T) {
	for seed := range uint64(20) {
		var before []string
		for range 2 {
			h := tell(inMemory, seed, fault{})
			var all []string
			for _, e := range h.told {
				all = append(all, e.At.String()+e.Target+e.What+e.Why)
			}
			if before != nil && strings.Join(all, "\n") != strings.Join(before, "\n") {
				t.Fatalf("seed %d went another way", seed)
			}
			before = all
		}
	}
}
