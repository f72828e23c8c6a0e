// Package store keeps what must survive: deployments, lanes and what they hold, events, messages to send, sealed manifests, tokens, keys. SQLite is
// enough for one controller; PostgreSQL serves several. All that follows from a change is written in the transaction of the change.
package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"net/url"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/sirupsen/logrus"
	sqlite "modernc.org/sqlite"

	"towpath/internal/crash"
	"towpath/reconcile/rollout"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Config of a store.
type Config struct {
	URL   string   // "sqlite:PATH" or "postgres://…"
	Keys  [][]byte // of 32 bytes each; the first seals, all open
	Clock func() time.Time
	Log   *logrus.Entry
}

// Store is an open database. Safe for concurrent use.
type Store struct {
	writer, reader *sql.DB
	pool           *pgxpool.Pool // PostgreSQL only
	dialect        dialect
	seals          *seals
	clock          func() time.Time
	log            *logrus.Entry
	inserts        inserts
	group          *group // SQLite only
	news           news
	moves          news // of agents' sessions
	turns          news // observing has begun, or ended
	bus            bus
	told           atomic.Pointer[map[string]bool] // sources about whose commits is told

	unlisten  context.CancelFunc // PostgreSQL only
	listening sync.WaitGroup

	mu      sync.Mutex
	workers worker
}

// Open opens a database and brings its tables up to date. It fails when the database was sealed with keys that are not among those given, or by a
// newer version.
func Open(ctx context.Context, c Config) (*Store, error) {
	s := &Store{clock: c.Clock, log: c.Log}
	if s.clock == nil {
		s.clock = time.Now
	}
	var err error
	if s.seals, err = newSeals(c.Keys); err != nil {
		return nil, err
	}
	kind, rest, _ := strings.Cut(c.URL, ":")
	switch kind {
	case "sqlite":
		err = s.openSQLite(rest)
	case "postgres", "postgresql":
		err = s.openPostgres(ctx, c.URL)
	default:
		err = fmt.Errorf("a database is sqlite:PATH or postgres://…, not %q", c.URL)
	}
	if err == nil {
		err = s.prepare(ctx)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("open database: %w", err)
	}
	return s, nil
}

func (s *Store) openSQLite(path string) (err error) {
	if path, err = filepath.Abs(path); err != nil {
		return err
	}
	s.dialect = sqliteDialect
	s.group = newGroup()
	name := "file:" + (&url.URL{Path: path}).EscapedPath() + "?_pragma=busy_timeout(10000)&_pragma=foreign_keys(1)"
	if s.writer, err = openCompiled(name + "&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate"); err != nil {
		return err
	}
	s.writer.SetMaxOpenConns(1)
	if s.reader, err = openCompiled(name + "&_pragma=query_only(1)"); err != nil {
		return err
	}
	s.reader.SetMaxOpenConns(8)
	s.reader.SetMaxIdleConns(8)
	return nil
}

func (s *Store) openPostgres(ctx context.Context, url string) (err error) {
	s.dialect = postgresDialect
	if s.writer, err = sql.Open("pgx", url); err != nil {
		return err
	}
	s.writer.SetMaxOpenConns(16)
	s.writer.SetMaxIdleConns(16)
	s.reader = s.writer
	s.pool, err = pgxpool.New(ctx, url)
	return err
}

// prepare migrates, proves the keys and readies the job queue.
func (s *Store) prepare(ctx context.Context) error {
	if err := s.migrate(ctx); err != nil {
		return err
	}
	if err := s.migrateJobs(ctx); err != nil {
		return err
	}
	if err := s.checkKeys(ctx); err != nil {
		return err
	}
	if s.dialect == postgresDialect {
		listening, stop := context.WithCancel(context.WithoutCancel(ctx))
		s.unlisten = stop
		s.listening.Go(func() { s.listen(listening) })
	}
	return s.openJobs()
}

// exclusive reports whether no other process can use the database.
func (s *Store) exclusive() bool { return s.dialect == sqliteDialect }

// Close ends the workers and closes the database. It may be called twice.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.workers != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		err = s.workers.Stop(ctx)
		cancel()
		s.workers = nil
	}
	s.news.close()
	s.moves.close()
	s.turns.close()
	if s.unlisten != nil {
		s.unlisten()
		s.listening.Wait()
	}
	if s.pool != nil {
		s.pool.Close()
		s.pool = nil
	}
	if s.reader != nil && s.reader != s.writer {
		err = errors.Join(err, s.reader.Close())
	}
	if s.writer != nil {
		err = errors.Join(err, s.writer.Close())
	}
	s.reader, s.writer = nil, nil
	return err
}

// dialect is what differs between the databases.
type dialect int

const (
	sqliteDialect dialect = iota
	postgresDialect
)

// ddl fills in the words of a migration that differ.
func (d dialect) ddl(text string) string {
	words := map[string]string{"{{serial}}": "INTEGER PRIMARY KEY AUTOINCREMENT", "{{bytes}}": "BLOB"}
	if d == postgresDialect {
		words = map[string]string{"{{serial}}": "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY", "{{bytes}}": "BYTEA"}
	}
	for word, means := range words {
		text = strings.ReplaceAll(text, word, means)
	}
	return text
}

// bind writes the question marks of a query as the database wants them. Queries hold no question mark in a literal.
func (d dialect) bind(query string) string {
	if d != postgresDialect {
		return query
	}
	var out strings.Builder
	number := 0
	for _, r := range query {
		if r != '?' {
			out.WriteRune(r)
			continue
		}
		number++
		fmt.Fprintf(&out, "$%d", number)
	}
	return out.String()
}

// again reports whether a transaction failed only because of another one.
func (d dialect) again(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code == "40001" || pg.Code == "40P01"
	}
	var lite *sqlite.Error
	return errors.As(err, &lite) && lite.Code()&0xff == 5 // SQLITE_BUSY
}

// tx is one transaction, and what is to be done with its commit.
type tx struct {
	*sql.Tx
	store       *Store
	shared      bool // with other writes
	wakes       []wake
	events      []rollout.Event // to be written before the commit
	agentsMoved bool            // sessions are others than before
}

// of is the context of a statement: one that breaks off would undo the writes of others that share the transaction.
func (tx *tx) of(ctx context.Context) context.Context {
	if tx.shared {
		return context.WithoutCancel(ctx)
	}
	return ctx
}

func (tx *tx) exec(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return tx.ExecContext(tx.of(ctx), tx.store.dialect.bind(query), args...)
}

func (tx *tx) query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return tx.QueryContext(tx.of(ctx), tx.store.dialect.bind(query), args...)
}

func (tx *tx) queryRow(ctx context.Context, query string, args ...any) *sql.Row {
	return tx.QueryRowContext(tx.of(ctx), tx.store.dialect.bind(query), args...)
}

func (tx *tx) now() time.Time { return tx.store.clock() }

// newID is a number nobody has yet, small enough for every reader of JSON.
func (tx *tx) newID() int64 {
	var bytes [8]byte
	rand.Read(bytes[:])
	return int64(binary.BigEndian.Uint64(bytes[:]) >> 11)
}

// write runs one transaction, again when it failed only because of another one. Whatever do returns as an error undoes it all. The name says what
// is written, for tests that kill the process around a commit.
func (s *Store) write(ctx context.Context, name string, do func(*tx) error) error {
	run := s.alone
	if s.group != nil {
		run = s.together
	}
	for try := 1; ; try++ {
		written, err := run(ctx, name, do)
		if err == nil {
			s.bus.publish(written.wakes)
			if len(written.events) > 0 {
				s.news.tell()
			}
			if written.agentsMoved {
				s.moves.tell()
			}
			return nil
		}
		if try == tries || !s.dialect.again(err) {
			return err
		}
		select { // those that met once are not to meet again
		case <-ctx.Done():
			return err
		case <-time.After(mathrand.N(min(time.Millisecond<<try, maxPause))):
		}
	}
}

// tries of a transaction that fails only because of others, and the longest pause before one. On PostgreSQL transactions that did not even touch the same
// rows meet while tables are small.
const (
	tries    = 30
	maxPause = 250 * time.Millisecond
)

// alone runs a write in a transaction of its own.
func (s *Store) alone(ctx context.Context, name string, do func(*tx) error) (_ *tx, err error) {
	begun, err := s.writer.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable})
	if err != nil {
		return nil, err
	}
	t := &tx{Tx: begun, store: s}
	defer func() {
		if err != nil {
			t.Rollback()
		}
	}()
	if err := t.run(ctx, name, do); err != nil {
		return nil, err
	}
	crash.Point("before " + name)
	if err := t.Commit(); err != nil {
		return nil, err
	}
	crash.Point("after " + name)
	return t, nil
}

// run does a write up to its commit. A panic of it is its own error: the transaction must come to its end.
func (tx *tx) run(ctx context.Context, name string, do func(*tx) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in a write (%s): %v\n%s", name, p, debug.Stack())
		}
	}()
	if err := do(tx); err != nil {
		return err
	}
	if err := tx.insertWakes(ctx); err != nil {
		return err
	}
	if err := tx.writeEvents(ctx); err != nil || !tx.agentsMoved {
		return err
	}
	return tx.notify(ctx, movesChannel)
}

// read runs queries on one consistent picture.
func (s *Store) read(ctx context.Context, do func(*tx) error) error {
	options := &sql.TxOptions{ReadOnly: s.dialect == postgresDialect}
	if s.dialect == postgresDialect {
		options.Isolation = sql.LevelRepeatableRead
	}
	begun, err := s.reader.BeginTx(ctx, options)
	if err != nil {
		return err
	}
	defer begun.Rollback() // nothing was written
	return do(&tx{Tx: begun, store: s})
}

// migrate brings the tables up to the newest migration, each in one transaction.
func (s *Store) migrate(ctx context.Context) error {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return err
	}
	slices.Sort(names)
	return s.write(ctx, "migrate", func(tx *tx) error {
		if s.dialect == postgresDialect {
			if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(7366872511)`); err != nil {
				return err
			}
		}
		if _, err := tx.exec(ctx, `CREATE TABLE IF NOT EXISTS migrations (number BIGINT PRIMARY KEY, applied_at BIGINT NOT NULL)`); err != nil {
			return err
		}
		var done int
		if err := tx.queryRow(ctx, `SELECT COALESCE(MAX(number), 0) FROM migrations`).Scan(&done); err != nil {
			return err
		}
		if done > len(names) {
			return fmt.Errorf("its tables are of version %d, this program knows %d: it was used by a newer version; start that one, or restore a backup", done, len(names))
		}
		for number := done + 1; number <= len(names); number++ {
			text, err := migrations.ReadFile(names[number-1])
			if err != nil {
				return err
			}
			for _, statement := range strings.Split(s.dialect.ddl(string(text)), ";\n") {
				if strings.TrimSpace(statement) == "" {
					continue
				}
				if _, err := tx.ExecContext(ctx, statement); err != nil {
					return fmt.Errorf("%s: %w", names[number-1], err)
				}
			}
			if _, err := tx.exec(ctx, `INSERT INTO migrations (number, applied_at) VALUES (?, ?)`, number, micros(s.clock())); err != nil {
				return err
			}
		}
		return nil
	})
}

func micros(t time.Time) int64 { return t.UnixMicro() }

func fromMicros(n int64) time.Time { return time.UnixMicro(n).UTC() }

// nullMicros is NULL for the zero time.
func nullMicros(t time.Time) sql.NullInt64 {
	return sql.NullInt64{Int64: t.UnixMicro(), Valid: !t.IsZero()}
}

// nullTime is the zero time for NULL.
func nullTime(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return fromMicros(n.Int64)
}
