package store

import (
	"path/filepath"
	"testing"

	"towpath/internal/testkit/postgres"
)

func TestADeliveryIsKeptWithOneWakeOrNotAtAll(t *testing.T) {
	for name, url := range map[string]func() string{
		"SQLite":     func() string { return "sqlite:" + filepath.Join(t.TempDir(), "towpath.db") },
		"PostgreSQL": func() string { return postgres.Start(t).Database(t) },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, url())
			rename := func(from, to string) {
				t.Helper()
				must(t, s.write(t.Context(), "test", func(tx *tx) error {
					_, err := tx.exec(t.Context(), `ALTER TABLE `+from+` RENAME TO `+to)
					return err
				}))
			}
			deliver := func(guid string) (bool, error) {
				return s.Deliver(t.Context(), "repo", guid, "push", []byte("{}"), Hints{Sources: []string{"repo"}})
			}
			rename("river_job", "river_job_away")
			if fresh, err := deliver("one"); err == nil {
				t.Fatalf("a delivery is kept whose wake is not: fresh %v", fresh)
			}
			rename("river_job_away", "river_job")
			for _, guid := range []string{"one", "one", "two", "one"} {
				if _, err := deliver(guid); err != nil {
					t.Fatal(err)
				}
			}
			var wakes, kept int
			must(t, s.read(t.Context(), func(tx *tx) error {
				if err := tx.queryRow(t.Context(), `SELECT COUNT(*) FROM river_job`).Scan(&wakes); err != nil {
					return err
				}
				return tx.queryRow(t.Context(), `SELECT COUNT(*) FROM deliveries`).Scan(&kept)
			}))
			if wakes != 2 || kept != 2 {
				t.Errorf("two deliveries, one of them three times: %d wakes, %d kept", wakes, kept)
			}
		})
	}
}
