// Package postgres runs a PostgreSQL server of the distribution's package for tests and benchmarks: a private one, in a temporary directory, on a Unix socket.
package postgres

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
)

// Server is a running server.
type Server struct {
	socket  string
	process *exec.Cmd
}

// Start runs a server until the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	s, err := Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// Run runs a server until Stop. ctx bounds the start only.
func Run(ctx context.Context) (_ *Server, err error) {
	initdb, err := program("initdb")
	if err != nil {
		return nil, err
	}
	postgres, err := program("postgres")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "pg") // short: the path of a socket has a limit
	if err != nil {
		return nil, err
	}
	s := &Server{socket: dir}
	defer func() {
		if err != nil {
			s.Stop()
		}
	}()
	account, err := unprivileged(dir)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	setup := exec.CommandContext(ctx, initdb, "-D", data, "-U", "test", "--auth=trust", "--no-sync", "--locale=C", "-E", "UTF8")
	setup.SysProcAttr, setup.Dir = account, dir
	if out, err := setup.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	server := exec.Command(postgres, "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=400")
	server.SysProcAttr, server.Dir = account, dir
	var log bytes.Buffer
	server.Stdout, server.Stderr = &log, &log
	if err := server.Start(); err != nil {
		return nil, err
	}
	s.process = server
	db, err := sql.Open("pgx", s.url("postgres"))
	if err != nil {
		return nil, err
	}
	defer db.Close()
	for deadline := time.Now().Add(time.Minute); db.PingContext(ctx) != nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) || ctx.Err() != nil {
			return nil, errors.New("PostgreSQL does not answer")
		}
	}
	return s, nil
}

// Stop ends the server and removes what it kept.
func (s *Server) Stop() {
	if s.process != nil {
		_ = s.process.Process.Signal(syscall.SIGINT)
		_ = s.process.Wait() // it was interrupted
	}
	os.RemoveAll(s.socket)
}

// program finds a program of the package, which Debian keeps out of the PATH.
func program(name string) (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err == nil && len(found) > 0 {
		return slices.Max(found), nil
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("PostgreSQL is not installed (%w); install it with: make deps", err)
	}
	return path, nil
}

// unprivileged is who runs the server: PostgreSQL does not run as root.
func unprivileged(dir string) (*syscall.SysProcAttr, error) {
	if os.Getuid() != 0 {
		return &syscall.SysProcAttr{}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		if err := os.Chown(dir, uid, gid); err != nil {
			return nil, err
		}
		return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
	}
	return nil, errors.New("neither a user postgres nor nobody is there to run PostgreSQL as")
}

func (s *Server) url(database string) string {
	return "postgres://test@/" + database + "?host=" + s.socket + "&sslmode=disable"
}

// Database makes an empty database and returns its URL.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	url, err := s.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return url
}

// Create makes an empty database and returns its URL.
func (s *Server) Create(ctx context.Context) (string, error) {
	random := make([]byte, 6)
	rand.Read(random)
	name := "t" + hex.EncodeToString(random)
	db, err := sql.Open("pgx", s.url("postgres"))
	if err != nil {
		return "", err
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, "CREATE DATABASE "+name+" TEMPLATE template0")
	return s.url(name), err
}
