package storetest

import (
	"database/sql"
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	_ "modernc.org/sqlite"             // the driver "sqlite"
)

// Jobs reads which lanes a store in SQL wakes, from the queue in its database: nobody else takes what lies there.
func Jobs(t testing.TB, url string) (woken func() []int64, stop func()) {
	driver, name, args := "pgx", url, "args"
	if path, lite := strings.CutPrefix(url, "sqlite:"); lite {
		driver, name, args = "sqlite", "file:"+path+"?_pragma=query_only(1)", "json(args)"
	}
	db, err := sql.Open(driver, name)
	if err != nil {
		t.Fatal(err)
	}
	last := int64(0)
	return func() (lanes []int64) {
		rows, err := db.Query(`SELECT id, ` + args + ` FROM river_job WHERE queue = 'lane' AND id > ` + strconv.FormatInt(last, 10) + ` ORDER BY id`)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var text []byte
			var job struct{ ID string }
			if err := rows.Scan(&last, &text); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(text, &job); err != nil {
				t.Fatal(err)
			}
			lane, err := strconv.ParseInt(job.ID, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			lanes = append(lanes, lane)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		return lanes
	}, func() { db.Close() }
}
