package store

import (
	"context"
	"database/sql"
	"database/sql/driver"

	"modernc.org/sqlite"
)

// openCompiled opens a pool of SQLite connections that keep the statements which they ran, those of the job queue as well: compiling one costs more than
// running it. PostgreSQL's driver does it itself.
func openCompiled(name string) (*sql.DB, error) {
	connector, err := sqlite.NewConnector(name)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(compiling{connector}), nil
}

type compiling struct{ driver.Connector }

// Connect implements driver.Connector.
func (c compiling) Connect(ctx context.Context) (driver.Conn, error) {
	inner, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &connection{sqliteConnection: inner.(sqliteConnection), kept: map[string]statement{}}, nil
}

// sqliteConnection is what every connection of the driver is.
type sqliteConnection interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

// statement is what every statement of the driver is.
type statement interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

// connection keeps its statements, each while nothing reads from it.
type connection struct {
	sqliteConnection
	kept map[string]statement
}

// mostKept is how many statements a connection keeps; there are some hundred texts.
const mostKept = 500

// take is a statement of a text that nobody uses.
func (c *connection) take(ctx context.Context, query string) (statement, error) {
	if kept, found := c.kept[query]; found {
		delete(c.kept, query)
		return kept, nil
	}
	made, err := c.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	return made.(statement), nil
}

// give keeps a statement, or closes it: one that failed, one too many, and one of a text that is kept already.
func (c *connection) give(query string, s statement, failed error) {
	if _, found := c.kept[query]; found || failed != nil || len(c.kept) >= mostKept {
		_ = s.Close() // it holds nothing but memory
		return
	}
	c.kept[query] = s
}

// ExecContext implements driver.ExecerContext.
func (c *connection) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	s, err := c.take(ctx, query)
	if err != nil {
		return nil, err
	}
	result, err := s.ExecContext(ctx, args)
	c.give(query, s, err)
	return result, err
}

// QueryContext implements driver.QueryerContext.
func (c *connection) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	s, err := c.take(ctx, query)
	if err != nil {
		return nil, err
	}
	read, err := s.QueryContext(ctx, args)
	if err != nil {
		c.give(query, s, err)
		return nil, err
	}
	return &rows{read, func(err error) { c.give(query, s, err) }}, nil
}

// Close implements driver.Conn.
func (c *connection) Close() error {
	for _, s := range c.kept {
		_ = s.Close()
	}
	return c.sqliteConnection.Close()
}

// Unwrap is the driver's connection, for the driver itself.
func (c *connection) Unwrap() driver.Conn { return c.sqliteConnection }

// rows gives its statement back when it is closed.
type rows struct {
	driver.Rows
	give func(error)
}

// Close implements driver.Rows.
func (r *rows) Close() error {
	err := r.Rows.Close()
	if r.give != nil {
		r.give(err)
		r.give = nil
	}
	return err
}
