package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"towpath/cmd/towpath-controller/config"
	"towpath/gitsource"
	"towpath/internal/egress"
	"towpath/policies"
	"towpath/reconcile"
)

// source is one configured repository, open.
type source struct {
	config   config.Source
	mirror   *gitsource.Mirror
	patterns gitsource.Patterns
	schedule gitsource.Schedule
	client   *egress.Client
	apps     *gitHubApps

	mu       sync.Mutex
	listing  *gitsource.Listing
	running  bool // a sync is under way
	again    bool // and another one is wanted
	failures int  // syncs in a row that failed
	last     time.Time
}

// openSource opens the mirror of a source; it does no network I/O. The repository's own host may be called, and may be private: the operator named it.
func openSource(c config.Source, data string, apps *gitHubApps, log *logrus.Entry) (*source, error) {
	s := &source{config: c, apps: apps}
	var err error
	if s.patterns, err = gitsource.NewPatterns(c.Paths); err != nil {
		return nil, fmt.Errorf("source %s: paths: %w", c.Name, err)
	}
	if s.schedule, err = gitsource.NewSchedule(c.Schedule); err != nil {
		return nil, fmt.Errorf("source %s: schedule: %w", c.Name, err)
	}
	var ca []byte
	if c.Auth.CAFile != "" {
		if ca, err = os.ReadFile(c.Auth.CAFile); err != nil {
			return nil, fmt.Errorf("source %s: auth.caFile: %w", c.Name, err)
		}
	}
	s.client, err = egress.New(egress.Config{AllowHosts: []string{"*"}, AllowPrivate: []string{"*"}, CABundle: ca, Proxy: true, Timeout: time.Hour,
		MaxResponseBytes: 4 << 30, Setting: "sources"})
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", c.Name, err)
	}
	mirror := gitsource.Config{Dir: filepath.Join(data, "mirrors", c.Tenant, c.Name), URL: c.URL, Branch: c.Branch, HTTP: s.client.HTTP(), Dial: s.client.DialContext,
		AllowHTTP: isLocal(c.URL), Username: c.Auth.Username, SSHKeyFile: c.Auth.SSHKeyFile, KnownHostsFile: c.Auth.KnownHostsFile, Log: log.WithField("source", c.Name)}
	switch {
	case c.Auth.GitHubApp != "":
		mirror.Token = apps.fetches(c)
	case c.Auth.TokenFile != "":
		mirror.Token = gitsource.TokenFile(c.Auth.TokenFile)
	}
	if s.mirror, err = gitsource.Open(mirror); err != nil {
		return nil, fmt.Errorf("source %s: %w", c.Name, err)
	}
	return s, nil
}

// isLocal reports whether an address is on this machine, where a token in clear harms nobody.
func isLocal(address string) bool {
	u, err := url.Parse(address)
	return err == nil && (u.Hostname() == "localhost" || u.Hostname() == "127.0.0.1")
}

func (s *source) close() error {
	s.client.Close()
	return s.mirror.Close()
}

// as reconcile sees it, where some people hold roles.
func (s *source) source(people []config.Role) reconcile.Source {
	return reconcile.Source{Tenant: s.config.Tenant, Name: s.config.Name, Repository: s, Reach: reach(s.config.Allow), Terms: terms(s.config, people)}
}

// terms is a digest of what settings say of a source's files: which ones, what they may touch, and which roles they may ask for.
func terms(c config.Source, people []config.Role) string {
	text, err := json.Marshal([]any{c.Paths, c.Allow, held(people)})
	if err != nil {
		panic(err) // strings only
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

func reach(allow []config.Allow) []policies.Reach {
	entries := make([]policies.Reach, len(allow))
	for i, a := range allow {
		entries[i] = policies.Reach{Accounts: a.Accounts, Namespaces: a.Namespaces, Kinds: a.Kinds}
	}
	return entries
}

func (s *source) Fetch(ctx context.Context) (string, error) {
	head, err := s.mirror.Fetch(ctx)
	if s.apps.refetches(s.config, err) {
		head, err = s.mirror.Fetch(ctx)
	}
	return head.Commit, err
}

func (s *source) Tree(commit string) (fs.FS, error) { return s.mirror.Tree(commit) }

func (s *source) Changed(from, to string) (paths []string, known bool, err error) {
	paths, err = s.mirror.Changed(from, to)
	if errors.Is(err, gitsource.ErrUnknownCommit) {
		return nil, false, nil
	}
	return paths, err == nil, err
}

func (s *source) Describe(commit string) (author, message string, err error) {
	c, err := s.mirror.Commit(commit)
	author = c.Author.Email
	if c.Author.Name != "" {
		author = strings.TrimSpace(c.Author.Name + " <" + c.Author.Email + ">")
	}
	return author, c.Message, err
}

func (s *source) People(from, to string) ([]string, error) {
	people, err := s.mirror.People(from, to)
	var names []string
	for _, who := range people {
		for _, name := range []string{who.Name, who.Email} {
			if name != "" && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names, err
}

func (s *source) Files(tree fs.FS) ([]string, error) {
	t, ok := tree.(*gitsource.Tree)
	if !ok {
		return nil, fmt.Errorf("files of a %T cannot be listed", tree)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	listing, err := gitsource.List(t, s.patterns, s.listing)
	if err != nil {
		return nil, err
	}
	s.listing = listing
	return listing.Paths(), nil
}

func (s *source) Matches(path string) bool { return s.patterns.Match(path) }

// enter begins a sync; false when one is under way, which then runs once more.
func (s *source) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running {
		s.again = true
		return false
	}
	s.running = true
	return true
}

// leave ends a sync; true when another one is wanted at once.
func (s *source) leave(now time.Time, err error) (again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = now
	if err != nil {
		s.failures++
	} else {
		s.failures = 0
	}
	again = s.again && err == nil
	s.again = false
	s.running = again
	return again
}

// next is when to look again.
func (s *source) next(now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.schedule.Next(now, s.failures)
}
