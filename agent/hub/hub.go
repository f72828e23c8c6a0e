// Package hub is the controller's end of the tunnel: agents connect to it, and each of them becomes an http.RoundTripper. Who may connect is settled
// by Config.Verify; what is sent through a tunnel is the caller's business. The wire is described in agent/agentpb.
package hub

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"towpath/agent/agentpb"
	"towpath/agent/wire"
)

// Identity is who a token proves to be. One identity is one agent's.
type Identity struct {
	Tenant  string
	Agent   string // the agent's name: the account of deployment files
	Subject string // the token's subject at its issuer; two subjects cannot serve one agent at once
	Expiry  time.Time
}

// Config is what a Hub needs. Verify is required, zero values of the rest mean what each field says.
type Config struct {
	// Verify proves a bearer token. It is called for each stream, so it must be quick for a token it has seen (Verifier is). An error that is
	// no gRPC status is told to the agent as UNAUTHENTICATED with its text.
	Verify func(ctx context.Context, token string) (Identity, error)
	// Admit, when set, is asked of each new session before a request of anybody else goes through it, and then again each few seconds, and at each Readmit,
	// until it says true or the session has ended. way leads through that very session. A session that is not admitted stays, and carries nothing.
	Admit func(ctx context.Context, s Status, way http.RoundTripper) bool
	// Changed, when set, is told that an agent got its first or lost its last session. Calls may come late or out of order: ask Connected for
	// what holds now. It must not block.
	Changed func(tenant, agent string)
	// Peers, when set, has requests for agents that are connected to other hubs sent there, and serves theirs: see ServePeers.
	Peers *Peers
	// Ended, when set, is told of each session that ended, and why. It must not block.
	Ended  func(s Status, why string)
	Log    logrus.FieldLogger // none: nothing is logged
	Clock  func() time.Time   // none: time.Now
	Limits Limits
}

// Limits are bounds and times, with their defaults for zero values.
type Limits struct {
	Wait          time.Duration // a request waits so long for an agent that is away, or for a stream (15 s)
	Hello         time.Duration // an agent introduces itself within this (10 s)
	Beat          time.Duration // both sides beat so often; three missed ones of the agent end its session (30 s)
	ExpiryGrace   time.Duration // a session with an expired token ends after this (60 s)
	Quiet         time.Duration // without waiting requests for this long, an agent is asked for fewer streams again (1 min)
	Readmit       time.Duration // a session that was not admitted is looked at again after this (5 s)
	Look          time.Duration // an agent that requests wait for is looked for at other hubs so often, for all of them at once (0.5 s)
	MoveWithin    time.Duration // agents spread their move over this when the hub drains (5 s)
	Instances     int           // sessions of one agent (8)
	Streams       int           // streams of one session (2,000)
	SpareStreams  int           // new streams a second beyond those asked for (20)
	WaitingAgents int           // requests that wait for one agent (10,000)
}

func (l Limits) withDefaults() Limits {
	l.Wait = cmp.Or(l.Wait, 15*time.Second)
	l.Hello = cmp.Or(l.Hello, 10*time.Second)
	l.Beat = cmp.Or(l.Beat, 30*time.Second)
	l.ExpiryGrace = cmp.Or(l.ExpiryGrace, time.Minute)
	l.Quiet = cmp.Or(l.Quiet, time.Minute)
	l.Readmit = cmp.Or(l.Readmit, 5*time.Second)
	l.Look = cmp.Or(l.Look, 500*time.Millisecond)
	l.MoveWithin = cmp.Or(l.MoveWithin, 5*time.Second)
	l.Instances = cmp.Or(l.Instances, 8)
	l.Streams = cmp.Or(l.Streams, 2000)
	l.SpareStreams = cmp.Or(l.SpareStreams, 20)
	l.WaitingAgents = cmp.Or(l.WaitingAgents, 10_000)
	return l
}

// Status is what the hub knows of one session of an agent.
type Status struct {
	Session       string // its id, which no other has
	Tenant, Agent string
	Instance      string // one process of the agent
	Version       string // of the agent's build, as it says
	Remote        string // address it connects from, as the hub sees it
	Since         time.Time
	LastBeat      time.Time
	TokenExpiry   time.Time
	Targets       []string // what it says it reaches
	Running, Idle int      // streams
	Draining      bool     // it takes no new requests
	Held          bool     // it was not admitted, so it carries nothing
}

// Hub keeps the sessions of all agents. Use New; safe for concurrent use.
type Hub struct {
	agentpb.UnimplementedTunnelServer

	verify  func(context.Context, string) (Identity, error)
	admits  func(context.Context, Status, http.RoundTripper) bool
	changed func(tenant, agent string)
	ended   func(s Status, why string)
	log     logrus.FieldLogger
	now     func() time.Time
	limits  Limits
	codec   *wire.Codec
	metrics *metrics
	peers   *peers // nil: there are none

	tasks  sync.WaitGroup  // goroutines that outlive the call that started them
	closed chan struct{}   // no request waits for an agent any more
	hangUp func()          // closes closed
	life   context.Context // of all that is asked of others; ends with Close
	die    context.CancelFunc

	mu          sync.Mutex
	agents      map[key]*agent
	sessions    map[string]*session
	servers     []*grpc.Server
	peerServers []*grpc.Server
	moves       uint64 // how often Moved was called
	draining    bool
	down        bool
}

type key struct{ tenant, agent string }

// agent is all sessions of one name, what is known of those at other hubs, and the requests that wait for any of them. It is there as long as any is.
type agent struct {
	sessions []*session
	waiters  []*waiter
	places   []Place       // as they were found last; none: to be looked up
	seeking  bool          // look runs
	moved    chan struct{} // for look; capacity 1
}

// New makes a hub without a listener; see Serve.
func New(c Config) (*Hub, error) {
	if c.Verify == nil {
		return nil, errors.New("hub: Config.Verify must say how tokens are checked")
	}
	if c.Log == nil {
		silent := logrus.New()
		silent.SetLevel(logrus.PanicLevel)
		c.Log = silent
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Changed == nil {
		c.Changed = func(string, string) {}
	}
	if c.Ended == nil {
		c.Ended = func(Status, string) {}
	}
	h := &Hub{
		verify: c.Verify, admits: c.Admit, changed: c.Changed, ended: c.Ended, log: c.Log, now: c.Clock, limits: c.Limits.withDefaults(), codec: wire.NewCodec(), metrics: newMetrics(),
		closed: make(chan struct{}), agents: map[key]*agent{}, sessions: map[string]*session{},
	}
	h.hangUp = sync.OnceFunc(func() { close(h.closed) })
	h.life, h.die = context.WithCancel(context.Background())
	if c.Peers != nil {
		var err error
		if h.peers, err = newPeers(*c.Peers); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// Serve takes agents from a listener until Close or Drain; then it returns nil. The TLS configuration must hold a certificate. It closes the listener.
func (h *Hub) Serve(listener net.Listener, config *tls.Config) error {
	config = config.Clone()
	if config.MinVersion < tls.VersionTLS12 {
		config.MinVersion = tls.VersionTLS12
	}
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(config)),
		grpc.ForceServerCodecV2(h.codec),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: wire.PingEvery, Timeout: wire.PingAnswer}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: wire.PingLeast, PermitWithoutStream: true}),
		grpc.MaxConcurrentStreams(uint32(h.limits.Streams)+1),
		grpc.MaxHeaderListSize(32<<10), // metadata: a token, three names
		grpc.MaxRecvMsgSize(wire.MaxFrame),
		grpc.MaxSendMsgSize(wire.MaxFrame),
		grpc.ConnectionTimeout(10*time.Second),
		grpc.SharedWriteBuffer(true), // an idle agent holds no write buffer
		grpc.ReadBufferSize(0),       // and no read buffer beside that of TLS, which reads ahead for itself
		grpc.WaitForHandlers(true),
	)
	agentpb.RegisterTunnelServer(server, h)
	h.mu.Lock()
	if h.down || h.draining {
		h.mu.Unlock()
		return listener.Close()
	}
	h.servers = append(h.servers, server)
	h.mu.Unlock()
	err := server.Serve(listener)
	if err == nil || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return fmt.Errorf("hub: listening on %s: %w", listener.Addr(), err)
}

// Retire stops taking agents and asks those connected to move. From then on requests find no session here: with peers they go to where the agents have moved,
// without they get NO_AGENT at once. It is final, does not wait, and may be called twice; Drain or Close follow.
func (h *Hub) Retire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.draining {
		return
	}
	h.draining = true
	if h.peers == nil {
		h.hangUp()
	}
	var left []key
	for _, s := range h.sessions {
		s.drain(h.limits.MoveWithin)
		for _, st := range s.takeIdle(0) {
			st.finish(nil)
		}
		s.noteQuiet()
		left = append(left, s.key)
	}
	for k, a := range h.agents {
		a.turnAway()
		h.seek(k, a)
	}
	for _, server := range h.servers {
		h.tasks.Go(server.GracefulStop) // closes the listener, sends GOAWAY; returns once all handlers have, which Close makes sure of
	}
	h.tasks.Go(func() {
		for _, k := range left {
			h.changed(k.tenant, k.agent)
		}
	})
}

// Drain retires the hub, lets running requests end until ctx does, then ends what is left: answers without a length (watches, logs) as if complete, the
// rest with code DRAIN. It ends with Close.
func (h *Hub) Drain(ctx context.Context) error {
	h.Retire()
	h.mu.Lock()
	var ended []<-chan struct{}
	for _, s := range h.sessions {
		ended = append(ended, s.quiet)
	}
	if h.peers != nil && h.peers.total > 0 {
		h.peers.last = make(chan struct{})
		ended = append(ended, h.peers.last)
	}
	h.mu.Unlock()
	var err error
	for _, quiet := range ended {
		select {
		case <-quiet:
			continue
		case <-ctx.Done():
			err = fmt.Errorf("hub: requests were still running: %w", context.Cause(ctx))
		}
		break
	}
	h.Close()
	return err
}

// Close ends everything at once; requests under way fail with code DRAIN. It may be called twice, and returns when no goroutine of the hub is left.
func (h *Hub) Close() {
	h.Retire()
	h.hangUp()
	h.mu.Lock()
	h.down = true
	for _, s := range h.sessions {
		s.end(&ending{reason: "drained", code: Drain, grpc: codes.Unavailable, message: "the hub stops"})
	}
	servers, peerServers := h.servers, h.peerServers
	h.mu.Unlock()
	h.die()
	h.stopPeers(peerServers)
	for _, server := range servers {
		server.Stop()
	}
	h.tasks.Wait()
}

// Connected reports whether a request to the agent would find a session now, here or at another hub, of which what was found last counts.
func (h *Hub) Connected(tenant, name string) bool {
	k := key{tenant, name}
	return h.Has(tenant, name) || len(h.places(h.life, k)) > 0
}

// Has reports whether the agent has a session here that takes requests.
func (h *Hub) Has(tenant, name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.agents[key{tenant, name}]
	return a != nil && a.connected(nil)
}

// Sessions lists the sessions of an agent here.
func (h *Hub) Sessions(tenant, name string) (list []Status) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if a := h.agents[key{tenant, name}]; a != nil {
		for _, s := range a.sessions {
			list = append(list, s.status())
		}
	}
	return list
}

// Agents lists all sessions here by tenant, agent and start.
func (h *Hub) Agents() []Status {
	h.mu.Lock()
	list := make([]Status, 0, len(h.sessions))
	for _, s := range h.sessions {
		list = append(list, s.status())
	}
	h.mu.Unlock()
	slices.SortFunc(list, func(a, b Status) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Agent, b.Agent), a.Since.Compare(b.Since), cmp.Compare(a.Instance, b.Instance))
	})
	return list
}

// Disconnect ends all sessions of an agent, whose identity was revoked, and tells it why. It comes back only as often as agents that were refused do.
// What Verify still accepts is not the hub's to know: forget the tokens there first.
func (h *Hub) Disconnect(tenant, name, why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if a := h.agents[key{tenant, name}]; a != nil {
		for _, s := range a.sessions {
			s.end(&ending{reason: "refused", code: Refused, grpc: codes.PermissionDenied, message: why, retry: time.Minute})
		}
	}
}

// Supersede ends a session, by its id, because its instance has begun another at another hub. One that drains is left to its end, as its agent has moved.
func (h *Hub) Supersede(session string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.sessions[session]; s != nil && !s.draining {
		s.supersede()
	}
}

// connected reports whether a session beside those to be avoided takes requests; called with mu held.
func (a *agent) connected(avoid []string) bool {
	return slices.ContainsFunc(a.sessions, func(s *session) bool { return s.may(avoid, nil) && s.serves() })
}

// Readmit has the sessions of an agent that were not admitted looked at again now.
func (h *Hub) Readmit(tenant, name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if a := h.agents[key{tenant, name}]; a != nil {
		for _, s := range a.sessions {
			select {
			case s.reconsider <- struct{}{}:
			default:
			}
		}
	}
}

// admission asks whether a session may carry requests until it may, or has ended.
func (h *Hub) admission(s *session) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if !h.spawn(func() {
		select {
		case <-s.ended:
			cancel()
		case <-ctx.Done():
		}
	}) {
		return
	}
	through := &Transport{hub: h, key: s.key, target: wire.Kubernetes, only: s}
	for ctx.Err() == nil {
		h.mu.Lock()
		status := s.status()
		h.mu.Unlock()
		if h.admits(ctx, status, through) {
			h.mu.Lock()
			s.admitted = true
			a := h.agents[s.key]
			for len(s.idle) > 0 && a != nil && len(a.waiters) > 0 { // what waited for it
				st := s.idle[len(s.idle)-1]
				s.idle = s.idle[:len(s.idle)-1]
				if !h.give(a, st) {
					s.idle = append(s.idle, st)
					break
				}
			}
			h.mu.Unlock()
			h.changed(s.key.tenant, s.key.agent)
			return
		}
		timer := time.NewTimer(h.limits.Readmit)
		select {
		case <-timer.C:
		case <-s.reconsider:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// group finds or makes the agent of a key; called with mu held.
func (h *Hub) group(k key) *agent {
	a := h.agents[k]
	if a == nil {
		a = &agent{moved: make(chan struct{}, 1)}
		h.agents[k] = a
	}
	return a
}

// forget drops an agent that nobody needs; called with mu held.
func (h *Hub) forget(k key) {
	if a := h.agents[k]; a != nil && len(a.sessions) == 0 && len(a.waiters) == 0 && len(a.places) == 0 && !a.seeking {
		delete(h.agents, k)
	}
}

// spawn starts a goroutine that Close waits for; false once it does.
func (h *Hub) spawn(work func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down {
		return false
	}
	h.tasks.Go(work)
	return true
}

func newID() string { return rand.Text() }

// refusal makes the status an agent gets.
func refusal(code codes.Code, format string, args ...any) error {
	return status.Errorf(code, format, args...)
}
