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
	// Changed, when set, is told that an agent got its first or lost its last session. Calls may come late or out of order: ask Connected for
	// what holds now. It must not block.
	Changed func(tenant, agent string)
	Log     logrus.FieldLogger // none: nothing is logged
	Clock   func() time.Time   // none: time.Now
	Limits  Limits
}

// Limits are bounds and times, with their defaults for zero values.
type Limits struct {
	Wait          time.Duration // a request waits so long for an agent that is away, or for a stream (15 s)
	Hello         time.Duration // an agent introduces itself within this (10 s)
	Beat          time.Duration // both sides beat so often; three missed ones of the agent end its session (30 s)
	ExpiryGrace   time.Duration // a session with an expired token ends after this (60 s)
	Quiet         time.Duration // without waiting requests for this long, an agent is asked for fewer streams again (5 min)
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
	l.Quiet = cmp.Or(l.Quiet, 5*time.Minute)
	l.MoveWithin = cmp.Or(l.MoveWithin, 5*time.Second)
	l.Instances = cmp.Or(l.Instances, 8)
	l.Streams = cmp.Or(l.Streams, 2000)
	l.SpareStreams = cmp.Or(l.SpareStreams, 20)
	l.WaitingAgents = cmp.Or(l.WaitingAgents, 10_000)
	return l
}

// Status is what the hub knows of one session of an agent.
type Status struct {
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
}

// Hub keeps the sessions of all agents. Use New; safe for concurrent use.
type Hub struct {
	agentpb.UnimplementedTunnelServer

	verify  func(context.Context, string) (Identity, error)
	changed func(tenant, agent string)
	log     logrus.FieldLogger
	now     func() time.Time
	limits  Limits
	codec   *wire.Codec
	metrics *metrics

	tasks  sync.WaitGroup // goroutines that outlive the call that started them
	closed chan struct{}  // no request waits for an agent any more

	mu       sync.Mutex
	agents   map[key]*agent
	sessions map[string]*session
	servers  map[*grpc.Server]struct{}
	draining bool
	down     bool
}

type key struct{ tenant, agent string }

// agent is all sessions of one name, and the requests that wait for a stream of any of them. It is there as long as either is.
type agent struct {
	sessions []*session
	waiters  []*waiter
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
	return &Hub{
		verify: c.Verify, changed: c.Changed, log: c.Log, now: c.Clock, limits: c.Limits.withDefaults(), codec: wire.NewCodec(), metrics: newMetrics(),
		closed: make(chan struct{}), agents: map[key]*agent{}, sessions: map[string]*session{}, servers: map[*grpc.Server]struct{}{},
	}, nil
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
		grpc.WaitForHandlers(true),
	)
	agentpb.RegisterTunnelServer(server, h)
	h.mu.Lock()
	if h.down || h.draining {
		h.mu.Unlock()
		return listener.Close()
	}
	h.servers[server] = struct{}{}
	h.mu.Unlock()
	err := server.Serve(listener)
	if err == nil || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return fmt.Errorf("hub: listening on %s: %w", listener.Addr(), err)
}

// Drain stops taking agents and asks those connected to move, lets running requests end until ctx does, then ends what is left: answers without
// a length (watches, logs) as if complete, the rest with code DRAIN. Requests that wait for an agent get NO_AGENT at once. It is final, and ends
// with Close.
func (h *Hub) Drain(ctx context.Context) error {
	h.mu.Lock()
	if !h.draining {
		h.draining = true
		close(h.closed)
	}
	var ended []<-chan struct{}
	for _, s := range h.sessions {
		s.drain(h.limits.MoveWithin)
		ended = append(ended, s.quiet)
		for _, st := range s.takeIdle(0) {
			st.finish(nil)
		}
		s.noteQuiet()
	}
	servers := h.listServers()
	h.mu.Unlock()

	var graceful sync.WaitGroup
	for _, server := range servers {
		graceful.Go(server.GracefulStop) // closes the listener, sends GOAWAY; returns once all handlers have, which Close makes sure of
	}
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
	graceful.Wait()
	return err
}

// Close ends everything at once; requests under way fail with code DRAIN. It may be called twice, and returns when no goroutine of the hub is left.
func (h *Hub) Close() {
	h.mu.Lock()
	if !h.draining {
		h.draining = true
		close(h.closed)
	}
	h.down = true
	for _, s := range h.sessions {
		s.end(&ending{code: Drain, grpc: codes.Unavailable, message: "the hub stops"})
	}
	servers := h.listServers()
	h.mu.Unlock()
	for _, server := range servers {
		server.Stop()
	}
	h.tasks.Wait()
}

// listServers is called with mu held.
func (h *Hub) listServers() []*grpc.Server {
	var list []*grpc.Server
	for server := range h.servers {
		list = append(list, server)
	}
	return list
}

// Connected reports whether a request to the agent would find a session now.
func (h *Hub) Connected(tenant, name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.agents[key{tenant, name}]
	return a != nil && a.connected()
}

// Agents lists all sessions by tenant, agent and start.
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
			s.end(&ending{code: Refused, grpc: codes.PermissionDenied, message: why, retry: time.Minute})
		}
	}
}

// connected is called with mu held.
func (a *agent) connected() bool { return slices.ContainsFunc(a.sessions, (*session).serves) }

// group finds or makes the agent of a key; called with mu held.
func (h *Hub) group(k key) *agent {
	a := h.agents[k]
	if a == nil {
		a = &agent{}
		h.agents[k] = a
	}
	return a
}

// forget drops an agent that nobody needs; called with mu held.
func (h *Hub) forget(k key) {
	if a := h.agents[k]; a != nil && len(a.sessions) == 0 && len(a.waiters) == 0 {
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
