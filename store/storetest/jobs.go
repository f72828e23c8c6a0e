package storetest

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	_ "modernc.org/sqlite"             // the driver "sqlite"

	"towpath/store"
)

// Jobs reads what a store in SQL wakes, from the queue in its database: nobody else takes what lies there.
func Jobs(t testing.TB, url string) (woken func() []int64, asked func() []string, stop func()) {
	driver, name, args := "pgx", url, "args"
	if path, lite := strings.CutPrefix(url, "sqlite:"); lite {
		driver, name, args = "sqlite", "file:"+path+"?_pragma=query_only(1)", "json(args)"
	}
	db, err := sql.Open(driver, name)
	if err != nil {
		t.Fatal(err)
	}
	lanes, calls := &queue{t, db, args, store.JobLane, 0}, &queue{t, db, args, store.JobCall, 0}
	return func() (ids []int64) {
		for _, id := range lanes.since() {
			lane, err := strconv.ParseInt(id, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, lane)
		}
		return ids
	}, calls.since, func() { db.Close() }
}

// queue is the wakes of one job.
type queue struct {
	t    testing.TB
	db   *sql.DB
	args string // the column that holds what a wake is for
	job  store.Job
	last int64
}

// since is the ids that were woken since it was last called.
func (q *queue) since() (ids []string) {
	rows, err := q.db.Query(fmt.Sprintf(`SELECT id, %s FROM river_job WHERE queue = '%s' AND id > %d ORDER BY id`, q.args, q.job, q.last))
	if err != nil {
		q.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var text []byte
		var job struct{ ID string }
		if err := rows.Scan(&q.last, &text); err != nil {
			q.t.Fatal(err)
		}
		if err := json.Unmarshal(text, &job); err != nil {
			q.t.Fatal(err)
		}
		ids = append(ids, job.ID)
	}
	if err := rows.Err(); err != nil {
		q.t.Fatal(err)
	}
	return ids
}
