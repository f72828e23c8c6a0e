// Package gitsource follows repositories: one bare mirror of each on disk, fetched over HTTPS or SSH or read from a local path, a commit as a tree of files
// read straight from Git objects, and what changed between two of them. Nothing is ever checked out and the git command is never run.
//
// When a mirror fetches is its owner's affair (Schedule helps); what the files mean, and which of them a render reads, is that of other rooms. Nothing
// that a repository holds is trusted.
package gitsource

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/sirupsen/logrus"
)

var (
	// ErrUnknownCommit: the mirror has no such commit. It never had, or it left the branch's history by a force-push and the mirror was built anew since.
	ErrUnknownCommit = errors.New("not a commit of this repository that is known here")

	errTooLong = errors.New("the fetch took longer than it may")
	errLocked  = errors.New("in use by another mirror, of this process or another")
)

// Config says where a repository comes from and where its mirror lies.
type Config struct {
	// Dir is the mirror's own directory; it is made when it is absent. Only what Open put there may be in it.
	Dir string
	// URL is https://HOST/PATH, ssh://USER@HOST/PATH, USER@HOST:PATH, file:///PATH or an absolute path; http://… with AllowHTTP. It holds no password.
	URL string
	// Branch to follow; "" is the one that the repository calls its default.
	Branch string

	// HTTP makes the calls over HTTP; its Transport decides which hosts may be reached and which certificates are trusted, and its CheckRedirect is asked.
	// Its Timeout is not used: Limits has one for the whole fetch and one for silence. Needed for http and https.
	HTTP *http.Client
	// Dial opens connections for SSH. Needed for ssh.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// AllowHTTP permits a URL of http://, on which a token travels in clear.
	AllowHTTP bool
	// Token is asked at each fetch over HTTP for the token, so that one can be replaced at any time; nil is none. TokenFile reads one from a file.
	Token func(context.Context) (string, error)
	// Username goes with the token. Default: that of the URL, else "x-access-token", which GitHub wants for its tokens and others ignore.
	Username string
	// SSHKeyFile holds the private key, without a passphrase; KnownHostsFile the keys of hosts, as OpenSSH has it. Both are read at each fetch.
	SSHKeyFile, KnownHostsFile string

	Limits Limits
	// Log gets what happens beside a fetch: a mirror built anew, and why.
	Log *logrus.Entry
}

// Head is the state of the followed branch after a fetch.
type Head struct {
	Branch   string
	Commit   string // the commit's id, 40 hexadecimal digits
	Previous string // the id at the end of the fetch before; "" at the first, and when another branch was followed
}

// Moved reports whether the fetch found the branch elsewhere than before.
func (h Head) Moved() bool { return h.Commit != h.Previous }

// Commit describes one commit.
type Commit struct {
	ID                string
	Tree              string // hash of its content: equal for equal content
	Parents           []string
	Author, Committer Person
	Message           string // at most 64 KiB of it, valid UTF-8
}

// Person is who made a commit, by their own account: nothing here is verified.
type Person struct {
	Name, Email string
	When        time.Time
}

// Mirror is the copy of one repository on disk. All methods are safe for concurrent use; fetches run one after the other, and nobody who reads waits for one.
// After a crash at any point the mirror is as it was after the last fetch that ended.
type Mirror struct {
	config  Config
	address address
	limits  Limits
	log     *logrus.Entry
	lock    *os.File
	turn    chan struct{} // holds a token while a fetch runs

	mu       sync.Mutex
	store    *store // nil before the first fetch, and when what is on disk cannot be used
	number   int    // of its directory
	branch   string
	head     hash
	broken   error // what was found wrong with the store; the next fetch builds another
	rebuilt  hash  // head for which a broken store was replaced
	rest     int   // fetches until a broken store is replaced for the same head once more
	idle     int   // fetches until it is tried again to build a mirror of fewer packs
	listings map[string]*Listing
	closed   bool
}

// Open opens the mirror in a directory, or prepares an empty one. It does no network I/O. A mirror that is damaged opens too: the next fetch builds it
// anew. It fails when a setting is wrong, and when the directory is in use.
func Open(c Config) (*Mirror, error) {
	a, err := parseAddress(c.URL)
	if err != nil {
		return nil, err
	}
	switch {
	case a.scheme == "http" && !c.AllowHTTP:
		err = errors.New("http:// sends the token and the files in clear; use https://, or allow it for this repository")
	case (a.scheme == "http" || a.scheme == "https") && (c.HTTP == nil || c.HTTP.Transport == nil):
		err = errors.New("a client for HTTP with a transport of its own is missing")
	case a.scheme == "ssh" && c.Dial == nil:
		err = errors.New("a dialer for SSH is missing")
	case a.scheme == "ssh" && (c.SSHKeyFile == "" || c.KnownHostsFile == ""):
		err = errors.New("SSH needs a private key file and a known hosts file")
	case strings.HasPrefix(c.Branch, "refs/"):
		err = fmt.Errorf("write the branch as %q, without refs/heads/", strings.TrimPrefix(c.Branch, branchStart))
	case strings.ContainsAny(c.Branch, " \n\t~^:?*[\\\x7f") || strings.Contains(c.Branch, ".."):
		err = fmt.Errorf("%q is not the name of a branch", c.Branch)
	}
	if err != nil {
		return nil, &Error{Kind: Misconfigured, Repository: a.display, text: err.Error(), cause: err}
	}
	m := &Mirror{
		config: c, address: a, limits: c.Limits.orDefaults(), log: c.Log,
		turn: make(chan struct{}, 1), listings: map[string]*Listing{},
	}
	if m.log == nil {
		silent := logrus.New()
		silent.SetOutput(io.Discard)
		m.log = logrus.NewEntry(silent)
	}
	m.log = m.log.WithField("repository", a.display)
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, err
	}
	if m.lock, err = lockFile(filepath.Join(c.Dir, "lock")); err != nil {
		return nil, fmt.Errorf("mirror %s: %w", c.Dir, err)
	}
	if err := m.load(); err != nil {
		return nil, errors.Join(err, unlockFile(m.lock))
	}
	return m, nil
}

// load takes up the newest mirror that a fetch completed, and removes what others left.
func (m *Mirror) load() error {
	files, err := os.ReadDir(m.config.Dir)
	if err != nil {
		return err
	}
	numbers := []int{0}
	for _, f := range files {
		if text, ok := strings.CutSuffix(f.Name(), ".git"); ok && f.IsDir() {
			if n, err := strconv.Atoi(text); err == nil {
				numbers = append(numbers, n)
			}
		}
	}
	m.number = slices.Max(numbers)
	for _, n := range numbers {
		if n != m.number {
			if err := os.RemoveAll(m.folder(n)); err != nil {
				return err
			}
		}
	}
	if err := os.RemoveAll(m.building()); err != nil || m.number == 0 {
		return err
	}
	dir := m.folder(m.number)
	if origin, err := os.ReadFile(filepath.Join(dir, originFile)); err == nil && string(origin) != m.address.display {
		m.broken = fmt.Errorf("it is a mirror of %s", origin)
		return nil
	}
	s, err := openStore(dir, m.limits)
	if err != nil {
		m.broken = err
		return nil
	}
	branch, head, err := s.head()
	if err == nil && head.IsZero() {
		err = fmt.Errorf("%s is missing", refsFile)
	}
	if err != nil {
		m.broken = err
		return s.close()
	}
	m.use(s)
	m.store = s
	// The head of another branch is still good to say what we have, but no head of this one.
	if m.config.Branch == "" || m.config.Branch == branch {
		m.branch, m.head = branch, head
	}
	return nil
}

func (m *Mirror) folder(number int) string {
	return filepath.Join(m.config.Dir, strconv.Itoa(number)+".git")
}

func (m *Mirror) building() string { return filepath.Join(m.config.Dir, "building") }

// use lets a store tell of damage while it is the one in use; what is wrong with one that was replaced matters no more.
func (m *Mirror) use(s *store) {
	s.damage = func(err error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.store == s && m.broken == nil {
			m.broken = err
		}
	}
}

// Repository is the URL as messages show it: without user name and password.
func (m *Mirror) Repository() string { return m.address.display }

// Close ends the use of the mirror. Trees that were handed out cannot be read any more. It waits for a fetch under way; cancel that one's context.
func (m *Mirror) Close() error {
	m.turn <- struct{}{}
	defer func() { <-m.turn }()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	var err error
	if m.store != nil {
		err = m.store.close()
	}
	return errors.Join(err, unlockFile(m.lock))
}

// Head gives what the last fetch found, also that of a former process; false before the first one.
func (m *Mirror) Head() (Head, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.head.IsZero() {
		return Head{}, false
	}
	return Head{Branch: m.branch, Commit: m.head.String(), Previous: m.head.String()}, true
}

// Fetch asks the repository for the head of the branch and brings what is missing; then all of that commit is on disk. A force-push is a move like any
// other. An error is an *Error, and leaves everything as it was; that of a cancelled ctx wraps context.Canceled.
func (m *Mirror) Fetch(ctx context.Context) (head Head, err error) {
	err = m.exclusively(ctx, func(ctx context.Context, token string, w *watch) (err error) {
		head, err = m.fetch(ctx, token, w)
		return err
	})
	if err != nil {
		return Head{}, err
	}
	return head, nil
}

// exclusively has one conversation with the remote, within the limits of a fetch.
func (m *Mirror) exclusively(ctx context.Context, fetch func(ctx context.Context, token string, w *watch) error) error {
	select {
	case m.turn <- struct{}{}:
	case <-ctx.Done():
		return m.address.explain(ctx.Err(), "")
	}
	defer func() { <-m.turn }()
	ctx, cancel := context.WithTimeoutCause(ctx, m.limits.FetchTime, errTooLong)
	defer cancel()
	ctx, w, stop := watchSilence(ctx, m.limits.IdleTime)
	defer stop()
	token, err := m.token(ctx)
	if err != nil {
		return m.address.explain(err, "")
	}
	err = m.unharmed(func() error { return fetch(ctx, token, w) })
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), err) // the reason before its consequences
	}
	return m.address.explain(err, token)
}

// unharmed calls f and turns a panic into an error: the library has met input before that its makers did not think of, and others have repositories too.
func (m *Mirror) unharmed(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			m.log.WithField("stack", string(debug.Stack())).Errorf("a fetch panicked: %v", p)
			err = fmt.Errorf("%w: %v", errPack, p)
		}
	}()
	return f()
}

func (m *Mirror) token(ctx context.Context) (string, error) {
	if m.config.Token == nil || m.address.scheme != "https" && m.address.scheme != "http" {
		return "", nil
	}
	token, err := m.config.Token(ctx)
	if err != nil {
		return "", badSetting("the token cannot be had: %v", err)
	}
	if token = strings.TrimSpace(token); token == "" || strings.ContainsFunc(token, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "", badSetting("the token is empty, or holds characters that no token has")
	}
	return token, nil
}

func (m *Mirror) connect(ctx context.Context, token string, w *watch) (remote, error) {
	switch m.address.scheme {
	case "file":
		return openFolder(m.address.path, m.limits)
	case "ssh":
		return dialSSH(ctx, m.address, m.config.Dial, m.config.SSHKeyFile, m.config.KnownHostsFile, m.limits, w)
	}
	return dialHTTP(m.address, m.config.HTTP, cmp.Or(m.config.Username, m.address.user, "x-access-token"), token, m.limits, w)
}

func (m *Mirror) fetch(ctx context.Context, token string, w *watch) (Head, error) {
	m.mu.Lock()
	was, branch, s, broken, closed := m.head, m.branch, m.store, m.broken, m.closed
	m.mu.Unlock()
	if closed {
		return Head{}, badSetting("the mirror is closed")
	}
	r, err := m.connect(ctx, token, w)
	if err != nil {
		return Head{}, err
	}
	defer r.Close() // all that was wanted has come by then; how it ends is no matter
	heads, err := r.heads(ctx)
	if err != nil {
		return Head{}, err
	}
	name, want, err := heads.pick(m.config.Branch)
	if err != nil {
		return Head{}, err
	}
	if name != branch {
		was = hash{}
	}
	switch {
	case s == nil || broken != nil:
		if broken != nil && m.rebuilt == want && m.rest > 0 {
			m.rest--
			return Head{}, &Error{Kind: Broken, Repository: m.address.display, cause: broken,
				text: fmt.Sprintf("its commit %s cannot be read: %s; it is damaged at its source, as git fsck there will tell", want, plain(broken))}
		}
		if err := m.rebuild(ctx, r, name, want); err != nil {
			return Head{}, err
		}
		if broken != nil {
			m.rebuilt, m.rest = want, pause
			m.log.WithError(broken).Warn("the mirror was damaged and has been built anew")
		}
	case s.has(want):
		if want != was {
			if err := s.setHead(name, want); err != nil {
				return Head{}, err
			}
		} else if m.crowded(s) {
			m.compact(ctx, r, name, want)
		}
	default:
		if err := m.add(ctx, r, s, want); err != nil {
			return Head{}, err
		}
		if err := s.setHead(name, want); err != nil {
			return Head{}, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.branch, m.head = name, want
	head := Head{Branch: name, Commit: want.String()}
	if !was.IsZero() {
		head.Previous = was.String()
	}
	return head, nil
}

// add downloads a commit into a store that has others.
func (m *Mirror) add(ctx context.Context, r remote, s *store, want hash) error {
	haves, err := s.haves()
	if err != nil {
		return err
	}
	err = m.bring(ctx, r, s, want, haves)
	// A pack that refers to what is neither in it nor here would come again and again. One that was cut off would not.
	if (errors.Is(err, errPack) || errors.Is(err, errMissing)) && !cutOff(err) {
		s.damage(err)
	}
	return err
}

// bring downloads a commit into a store.
func (m *Mirror) bring(ctx context.Context, r remote, s *store, want hash, haves []hash) error {
	if err := r.download(ctx, want, haves, s); err != nil {
		return err
	}
	return s.complete(ctx, want)
}

// complete makes sure that all files of a commit are there, of those that the present head has not: what a server left out is found now, not when it is
// needed.
func (s *store) complete(ctx context.Context, want hash) error {
	newer, err := s.commit(want)
	if err != nil {
		return err
	}
	var older hash
	if _, head, err := s.head(); err == nil && !head.IsZero() {
		if c, err := s.commit(head); err == nil {
			older = c.TreeHash
		}
	}
	seen := map[hash]bool{}
	var walk func(older, newer hash, depth int) error
	walk = func(older, newer hash, depth int) error {
		if older == newer || seen[newer] {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if depth > maxPath/2 {
			return fmt.Errorf("%w: directories more than %d deep", ErrTooLarge, maxPath/2)
		}
		seen[newer] = true
		entries, err := s.entries(newer)
		var known []entry
		if err == nil && !older.IsZero() {
			known, err = s.entries(older)
		}
		if err != nil {
			return err
		}
		for _, e := range entries {
			was, ok := find(known, e.name)
			switch {
			case ok && was == e, e.isSubmodule():
			case e.isTree():
				if !ok || !was.isTree() {
					was.hash = hash{}
				}
				err = walk(was.hash, e.hash, depth+1)
			default:
				_, err = s.locate(e.hash)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	return walk(older, newer.TreeHash, 1)
}

// rebuild makes a fresh mirror beside the present one and puts it in its place. Who reads the present one goes on to do so: its files are open, and
// the last Tree of it that goes takes them away.
func (m *Mirror) rebuild(ctx context.Context, r remote, branch string, want hash) (err error) {
	dir := m.building()
	if err := errors.Join(os.RemoveAll(dir), createStore(dir), os.WriteFile(filepath.Join(dir, originFile), []byte(m.address.display), 0o600)); err != nil {
		return err
	}
	defer os.RemoveAll(dir) // gone already when all went well
	s, err := openStore(dir, m.limits)
	if err != nil {
		return err
	}
	if err := m.bring(ctx, r, s, want, nil); err != nil {
		return errors.Join(err, s.close())
	}
	if err := s.setHead(branch, want); err != nil {
		return errors.Join(err, s.close())
	}
	old, next := m.folder(m.number), m.folder(m.number+1)
	if err := os.Rename(dir, next); err != nil {
		return errors.Join(err, s.close())
	}
	if err := syncFolder(m.config.Dir); err != nil {
		return errors.Join(err, s.close())
	}
	s.dir = next
	m.use(s)
	m.mu.Lock()
	m.store, m.broken, m.number = s, nil, m.number+1
	m.mu.Unlock()
	return os.RemoveAll(old)
}

// pause is how many fetches go by before something dear that was of no use is tried again.
const pause = 100

// crowded reports whether it is time to build a mirror of fewer packs: they are added one a fetch, and each makes opening slower.
func (m *Mirror) crowded(s *store) bool {
	if m.idle > 0 {
		m.idle--
		return false
	}
	return s.packCount() > m.limits.Packs
}

// compact builds the mirror anew when a fetch has nothing else to do. That it may fail harms nothing.
func (m *Mirror) compact(ctx context.Context, r remote, branch string, want hash) {
	packs := m.store.packCount()
	if err := m.rebuild(ctx, r, branch, want); err != nil {
		m.idle = pause
		m.log.WithField("packs", packs).Warnf("a fresh mirror with fewer packs could not be built: %s", m.address.explain(err, ""))
		return
	}
	m.log.WithField("packs", packs).Info("a fresh mirror with one pack took the place of one with many")
}

// haves are the commits that a server is told of: the head and those before it, of which one is known there even after a force-push.
func (s *store) haves() ([]hash, error) {
	const most = 256
	_, head, err := s.head()
	if err != nil {
		return nil, err
	}
	list := []hash{head}
	seen := map[hash]bool{head: true}
	for i := 0; i < len(list) && len(list) < most; i++ {
		c, err := s.commit(list[i])
		if err != nil {
			return nil, err
		}
		for _, parent := range c.ParentHashes {
			if !seen[parent] && s.has(parent) { // the source may be a shallow clone
				seen[parent] = true
				list = append(list, parent)
			}
		}
	}
	return list, nil
}

func (s *store) commit(id hash) (*object.Commit, error) {
	const most = 4 << 20
	data, err := s.object(plumbing.CommitObject, id, most)
	if err != nil {
		return nil, err
	}
	var text plumbing.MemoryObject
	text.SetType(plumbing.CommitObject)
	if _, err := text.Write(data); err != nil {
		return nil, err
	}
	var c object.Commit
	if err := c.Decode(&text); err != nil {
		return nil, fmt.Errorf("commit %s cannot be read: %w", id, err)
	}
	return &c, nil
}

// find looks a commit up by its id.
func (m *Mirror) find(id string) (*store, *object.Commit, error) {
	m.mu.Lock()
	s := m.store
	m.mu.Unlock()
	h := plumbing.NewHash(id)
	if !plumbing.IsHash(id) || s == nil || !s.has(h) {
		return nil, nil, fmt.Errorf("repository %s: %.64q is %w", m.address.display, id, ErrUnknownCommit)
	}
	c, err := s.commit(h)
	if err != nil {
		return nil, nil, fmt.Errorf("repository %s: %w", m.address.display, err)
	}
	return s, c, nil
}

// Commit describes a commit; an error of ErrUnknownCommit when the mirror has none of this id.
func (m *Mirror) Commit(id string) (Commit, error) {
	_, c, err := m.find(id)
	if err != nil {
		return Commit{}, err
	}
	const longest = 64 << 10
	out := Commit{
		ID: c.Hash.String(), Tree: c.TreeHash.String(),
		Author: person(c.Author), Committer: person(c.Committer),
		Message: strings.ToValidUTF8(c.Message[:min(len(c.Message), longest)], "�"),
	}
	for _, parent := range c.ParentHashes {
		out.Parents = append(out.Parents, parent.String())
	}
	return out, nil
}

func person(s object.Signature) Person {
	return Person{Name: strings.ToValidUTF8(s.Name, "�"), Email: strings.ToValidUTF8(s.Email, "�"), When: s.When}
}

// Tree gives the content of a commit; an error of ErrUnknownCommit when the mirror has none of this id.
func (m *Mirror) Tree(id string) (*Tree, error) {
	s, c, err := m.find(id)
	if err != nil {
		return nil, err
	}
	return &Tree{objects: s, root: c.TreeHash, limits: m.limits}, nil
}

// Changed is the function Changed for two commits. older may be "", which is the empty tree: everything changed. Take that when the answer for a former
// commit is ErrUnknownCommit.
func (m *Mirror) Changed(older, newer string) ([]string, error) {
	var a *Tree
	b, err := m.Tree(newer)
	if err == nil && older != "" {
		a, err = m.Tree(older)
	}
	if err != nil {
		return nil, err
	}
	paths, err := Changed(a, b)
	if err != nil {
		return nil, fmt.Errorf("repository %s: between %.12s and %.12s: %w", m.address.display, older, newer, err)
	}
	return paths, nil
}

// TokenFile gives a Config.Token that reads a file each time; white space around the token is left out.
func TokenFile(path string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) {
		text, err := os.ReadFile(path)
		return string(text), err
	}
}
