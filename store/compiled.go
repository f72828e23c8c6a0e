package store

import (
	"context"
	"database/sql"
	"sync"
)

// compiled keeps the statements of one SQLite pool: compiling one costs more than running it. A statement that is met for the first time runs as it is, and
// is compiled once its transaction has given its connection back: the pool of writes has no other. nil keeps nothing: PostgreSQL's driver does it itself.
type compiled struct {
	mu     sync.Mutex
	known  map[string]*sql.Stmt
	missed []string
}

func newCompiled() *compiled { return &compiled{known: map[string]*sql.Stmt{}} }

// of is the statement of a query within a transaction; nil when it is not compiled yet.
func (c *compiled) of(ctx context.Context, tx *sql.Tx, query string) *sql.Stmt {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	known, met := c.known[query]
	if !met {
		c.known[query] = nil
		c.missed = append(c.missed, query)
	}
	c.mu.Unlock()
	if known == nil {
		return nil
	}
	return tx.StmtContext(ctx, known)
}

// compile compiles what was missed. What cannot be compiled, as before its table exists, is met anew.
func (c *compiled) compile(db *sql.DB) {
	if c == nil {
		return
	}
	c.mu.Lock()
	missed := c.missed
	c.missed = nil
	c.mu.Unlock()
	for _, query := range missed {
		statement, err := db.PrepareContext(context.Background(), query)
		c.mu.Lock()
		if err != nil {
			delete(c.known, query)
		} else {
			c.known[query] = statement
		}
		c.mu.Unlock()
	}
}
