package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"
)

// Job names what a wake is for.
type Job string

// Jobs. A wake carries an id and nothing else: what is to be done is read when it is done.
const (
	JobLane     Job = "lane"     // the lane of this id may move
	JobSource   Job = "source"   // the source of this name may have something new
	JobOutbox   Job = "outbox"   // something is to be told
	JobCall     Job = "call"     // the call of this id is to be made
	JobProposal Job = "proposal" // the proposal of this subject may be another than it was
	JobComment  Job = "comment"  // below the pull request of this subject somebody may have asked for something
)

// parallel is how many wakes of a job are worked on at once by one process. Sources mostly wait for their remotes, and one that says nothing shall
// keep none of the others waiting; lanes wait for their clusters, and a runner has places for each cluster; calls wait for whoever is called.
var parallel = map[Job]int{JobLane: 512, JobSource: 256, JobOutbox: 1, JobCall: 512, JobProposal: 8, JobComment: 32}

// wake is a job to be inserted with the commit.
type wake struct {
	job Job
	id  string
}

// wake inserts a job in this very transaction; waking the same twice in one transaction is waking it once.
func (tx *tx) wake(_ context.Context, job Job, id string) error {
	for _, w := range tx.wakes {
		if w == (wake{job, id}) {
			return nil
		}
	}
	tx.wakes = append(tx.wakes, wake{job, id})
	return nil
}

// wakeArgs is a wake as the queue keeps it. It is tried once: what a failed try left undone is woken by timers, schedules or the next start.
type wakeArgs struct {
	ID string `json:"id"`

	job Job
}

func (wakeArgs) Kind() string { return "wake" }

func (a wakeArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: string(a.job), MaxAttempts: 1}
}

// inserts puts jobs into the queue inside a transaction of ours.
type inserts interface {
	InsertManyTx(ctx context.Context, tx *sql.Tx, params []river.InsertManyParams) ([]*rivertype.JobInsertResult, error)
}

func (tx *tx) insertWakes(ctx context.Context) error {
	if len(tx.wakes) == 0 {
		return nil
	}
	params := make([]river.InsertManyParams, len(tx.wakes))
	for i, w := range tx.wakes {
		params[i].Args = wakeArgs{ID: w.id, job: w.job}
	}
	_, err := tx.store.inserts.InsertManyTx(tx.of(ctx), tx.Tx, params)
	return err
}

func (s *Store) driver() riverdriver.Driver[*sql.Tx] {
	if s.dialect == postgresDialect {
		return riverdatabasesql.New(s.writer)
	}
	return sqliteDriver{riversqlite.New(s.writer), &s.bus}
}

func (s *Store) migrateJobs(ctx context.Context) error {
	migrator, err := rivermigrate.New(s.driver(), &rivermigrate.Config{Logger: quiet()})
	if err != nil {
		return err
	}
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	return err
}

func (s *Store) openJobs() error {
	client, err := river.NewClient(s.driver(), &river.Config{Logger: quiet()})
	if err != nil {
		return err
	}
	s.inserts = client
	return nil
}

// worker is what works on jobs until it is stopped.
type worker interface {
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
}

// Handlers is what each job does. A handler that fails says so in the log; it is not called again for that wake.
type Handlers map[Job]func(ctx context.Context, id string) error

// Work starts working on jobs until Stop. Jobs of a kind that has no handler stay.
func (s *Store) Work(ctx context.Context, handlers Handlers) error {
	config := &river.Config{
		Logger: quiet(), Workers: river.NewWorkers(), Queues: map[string]river.QueueConfig{}, JobTimeout: -1,
		FetchCooldown: 5 * time.Millisecond, FetchPollInterval: pollEvery,
		// Completed wakes tell nothing that events do not tell.
		CompletedJobRetentionPeriod: time.Minute, DiscardedJobRetentionPeriod: time.Hour, CancelledJobRetentionPeriod: time.Minute,
	}
	for job := range handlers {
		config.Queues[string(job)] = river.QueueConfig{MaxWorkers: parallel[job]}
	}
	river.AddWorker(config.Workers, river.WorkFunc(func(ctx context.Context, job *river.Job[wakeArgs]) error {
		handle := handlers[Job(job.Queue)]
		if handle == nil {
			return fmt.Errorf("no handler for %s", job.Queue)
		}
		err := survive(ctx, job.Args.ID, handle)
		if err != nil && ctx.Err() == nil {
			s.log.WithError(err).WithField("job", job.Queue).WithField("id", job.Args.ID).Error("a job failed; it is taken up again at its next wake")
		}
		return err
	}))
	client, err := s.newWorker(config)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.workers != nil {
		return errors.New("the store works already")
	}
	if err := client.Start(ctx); err != nil {
		return err
	}
	s.workers = client
	return nil
}

// survive makes a panic of a handler an error: one job's fault is no other's.
func survive(ctx context.Context, id string, handle func(context.Context, string) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return handle(ctx, id)
}

// pollEvery finds wakes of which no notification came.
const pollEvery = 10 * time.Second

func (s *Store) newWorker(config *river.Config) (worker, error) {
	if s.dialect == postgresDialect {
		client, err := river.NewClient[pgx.Tx](riverpgxv5.New(s.pool), config)
		return client, err
	}
	client, err := river.NewClient(s.driver(), config)
	return client, err
}

// Stop waits for the jobs that run, until ctx ends; what runs then is cancelled. Jobs that were not taken stay for the next start.
func (s *Store) Stop(ctx context.Context) error {
	s.mu.Lock()
	working := s.workers
	s.workers = nil
	s.mu.Unlock()
	if working == nil {
		return nil
	}
	return working.Stop(ctx)
}

// quiet is a logger for the queue: what matters of it comes back as errors.
func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// Late counts wakes that were due longer ago than so and were not taken.
func (s *Store) Late(ctx context.Context, longer time.Duration) (count int, err error) {
	before := s.clock().Add(-longer)
	err = s.read(ctx, func(tx *tx) error {
		query := `SELECT COUNT(*) FROM river_job WHERE state = 'available' AND scheduled_at < ?`
		if s.dialect == sqliteDialect {
			return tx.queryRow(ctx, query, before.UTC().Format("2006-01-02 15:04:05.000")).Scan(&count)
		}
		return tx.queryRow(ctx, query, before).Scan(&count)
	})
	return count, err
}
