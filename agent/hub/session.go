package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"towpath/agent/agentpb"
	"towpath/agent/wire"
)

// session is one control stream and the relay streams that name it. Fields below the line are guarded by Hub.mu.
type session struct {
	hub      *Hub
	id       string
	key      key
	subject  string
	instance string
	version  string
	remote   string
	targets  []string
	features []string
	since    time.Time
	spare    *rate.Limiter // of streams nobody asked for
	log      logrus.FieldLogger

	endOnce sync.Once
	ended   chan struct{} // closed by end
	why     *ending       // set before ended is closed
	wake    chan struct{} // notes or want changed; capacity 1
	quiet   chan struct{} // closed when it drains and no request runs

	reconsider chan struct{} // whether it is admitted; capacity 1

	// ---
	admitted  bool // requests may use it
	expiry    time.Time
	lastBeat  time.Time
	idle      []*stream // most recently used last
	streams   int       // idle and running
	running   int
	want      int
	wantSent  int
	pressed   time.Time // when a request last had to wait
	draining  bool      // said by either side
	leaving   bool      // said by the agent
	isQuiet   bool
	drainNote *agentpb.Drain
}

// ending is why a session ends: what requests under way get, and what the agent gets.
type ending struct {
	reason  string // of the metric: one word
	code    Code
	grpc    codes.Code
	message string
	retry   time.Duration // the agent stays away so long
}

// serves reports whether new requests may use the session; called with Hub.mu held.
func (s *session) serves() bool {
	select {
	case <-s.ended:
		return false
	default:
		return !s.draining && s.hub.now().Before(s.expiry)
	}
}

// end ends the session, once; the first reason stays.
func (s *session) end(why *ending) {
	s.endOnce.Do(func() {
		s.why = why
		close(s.ended)
	})
}

// supersede ends a session of an instance that has begun another: a partition healed.
func (s *session) supersede() {
	s.end(&ending{reason: "replaced", code: Lost, grpc: codes.Aborted, message: "another session of the same instance took its place"})
}

// drain asks the agent to move, and sends it nothing new; called with Hub.mu held.
func (s *session) drain(within time.Duration) {
	s.draining = true
	s.drainNote = &agentpb.Drain{Within: durationpb.New(within)}
	s.poke()
}

// noteQuiet closes quiet when the session drains and nothing runs any more; called with Hub.mu held.
func (s *session) noteQuiet() {
	if s.draining && s.running == 0 && !s.isQuiet {
		s.isQuiet = true
		close(s.quiet)
	}
}

func (s *session) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// takeIdle removes all idle streams but the keep most recently used; called with Hub.mu held. The caller finishes them.
func (s *session) takeIdle(keep int) []*stream {
	n := max(0, len(s.idle)-keep)
	taken := slices.Clone(s.idle[:n])
	s.idle = slices.Delete(s.idle, 0, n)
	return taken
}

// status is called with Hub.mu held.
func (s *session) status() Status {
	return Status{
		Session: s.id, Tenant: s.key.tenant, Agent: s.key.agent, Instance: s.instance, Version: s.version, Remote: s.remote, Since: s.since, LastBeat: s.lastBeat,
		TokenExpiry: s.expiry, Targets: s.targets, Running: s.running, Idle: len(s.idle), Draining: s.draining, Held: !s.admitted,
	}
}

// caller is who opens a stream: what its metadata says, its name proven by the token.
type caller struct {
	Identity
	instance string
	session  string
}

// authenticate checks a stream's metadata.
func (h *Hub) authenticate(ctx context.Context) (caller, error) {
	meta, _ := metadata.FromIncomingContext(ctx)
	one := func(name string) string {
		if values := meta.Get(name); len(values) == 1 {
			return values[0]
		}
		return ""
	}
	scheme, token, _ := strings.Cut(one("authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return caller{}, refusal(codes.Unauthenticated, "the stream carries no bearer token")
	}
	identity, err := h.verify(ctx, token)
	if err != nil {
		h.metrics.tokenFailures.Inc()
		if _, isStatus := status.FromError(err); isStatus {
			return caller{}, err
		}
		return caller{}, refusal(codes.Unauthenticated, "%v", err)
	}
	c := caller{Identity: identity, instance: one(wire.MetaInstance), session: one(wire.MetaSession)}
	if name := one(wire.MetaAgent); name != identity.Agent {
		return c, refusal(codes.PermissionDenied, "the identity %q belongs to agent %q, but the stream names agent %.80q", identity.Subject, identity.Agent, name)
	}
	if c.instance == "" || len(c.instance) > 253 {
		return c, refusal(codes.InvalidArgument, "the stream's %s must be 1 to 253 characters", wire.MetaInstance)
	}
	return c, nil
}

// Session serves the control stream of one agent's session.
func (h *Hub) Session(rpc grpc.BidiStreamingServer[agentpb.AgentNote, agentpb.HubNote]) error {
	remote := "?"
	if p, ok := peer.FromContext(rpc.Context()); ok {
		remote = p.Addr.String()
	}
	log := h.log.WithField("remote", remote)
	c, err := h.authenticate(rpc.Context())
	if err != nil {
		log.WithError(err).Warn("agent refused")
		return err
	}
	log = log.WithFields(logrus.Fields{"tenant": c.Tenant, "agent": c.Agent, "instance": c.instance})

	notes, received := make(chan *agentpb.AgentNote), make(chan error, 1)
	over := make(chan struct{})
	defer close(over)
	if !h.spawn(func() { // ends when the stream does, which is at the latest when this handler returns
		for {
			note, err := rpc.Recv()
			if err != nil {
				received <- err
				return
			}
			select {
			case notes <- note:
			case <-over:
				return
			}
		}
	}) {
		return refusal(codes.Unavailable, "the hub stops")
	}

	var hello *agentpb.Hello
	timeout := time.NewTimer(h.limits.Hello)
	defer timeout.Stop()
	select {
	case note := <-notes:
		hello = note.GetHello()
	case err := <-received:
		return err
	case <-timeout.C:
		return refusal(codes.DeadlineExceeded, "no Hello within %s", h.limits.Hello)
	}
	s, old, err := h.admit(c, hello, remote, log)
	if err != nil {
		log.WithError(err).Warn("agent refused")
		return err
	}
	if old != nil {
		old.supersede()
	}
	log.WithField("version", s.version).Info("agent connected")
	if h.admits == nil || !h.spawn(func() { h.admission(s) }) {
		h.changed(c.Tenant, c.Agent)
	}

	err = s.serve(rpc, notes, received)

	h.mu.Lock()
	delete(h.sessions, s.id)
	a := h.agents[s.key]
	a.sessions = slices.DeleteFunc(a.sessions, func(other *session) bool { return other == s })
	a.turnAway()
	h.forget(s.key)
	s.draining = true
	idle := s.takeIdle(0)
	last := s.status()
	h.mu.Unlock()
	for _, st := range idle {
		st.finish(nil)
	}
	h.metrics.ended(s.why)
	h.ended(last, s.why.message)
	h.changed(c.Tenant, c.Agent)
	log.WithField("reason", s.why.message).Info("agent disconnected")
	return err
}

// admit makes a session of a Hello, or says why not. The former session of the same instance, if there is one, is to be ended by the caller.
func (h *Hub) admit(c caller, hello *agentpb.Hello, remote string, log logrus.FieldLogger) (*session, *session, error) {
	if hello == nil {
		return nil, nil, refusal(codes.InvalidArgument, "the first note of a session must be Hello")
	}
	if hello.GetAgent() != c.Agent {
		return nil, nil, refusal(codes.PermissionDenied, "the identity %q belongs to agent %q, but Hello names agent %.80q", c.Subject, c.Agent, hello.GetAgent())
	}
	if hello.GetInstance() != c.instance {
		return nil, nil, refusal(codes.PermissionDenied, "Hello names instance %.80q, the stream %.80q", hello.GetInstance(), c.instance)
	}
	if hello.GetProtocol() < wire.Protocol {
		return nil, nil, refusal(codes.FailedPrecondition, "protocol %d is not known; this hub speaks %d", hello.GetProtocol(), wire.Protocol)
	}
	if len(hello.GetTargets()) > 1000 || len(hello.GetFeatures()) > 100 || len(hello.GetVersion()) > 200 {
		return nil, nil, refusal(codes.InvalidArgument, "Hello is larger than the hub accepts")
	}
	s := &session{
		hub: h, id: newID(), key: key{c.Tenant, c.Agent}, subject: c.Subject, instance: c.instance, version: hello.GetVersion(), features: hello.GetFeatures(), remote: remote,
		since: h.now(), lastBeat: h.now(), expiry: c.Expiry, log: log,
		spare: rate.NewLimiter(rate.Limit(h.limits.SpareStreams), h.limits.SpareStreams),
		ended: make(chan struct{}), wake: make(chan struct{}, 1), quiet: make(chan struct{}), reconsider: make(chan struct{}, 1), admitted: h.admits == nil, want: wire.IdleDefault, wantSent: wire.IdleDefault,
	}
	for _, target := range hello.GetTargets() {
		s.targets = append(s.targets, target.GetName())
	}

	h.mu.Lock()
	defer h.mu.Unlock()
	if h.draining {
		return nil, nil, refusal(codes.Unavailable, "the hub stops")
	}
	var old *session
	others := 0
	a := h.group(s.key)
	defer h.forget(s.key) // when refused
	for _, other := range a.sessions {
		switch {
		case other.draining:
		case other.subject != s.subject:
			return nil, nil, refusal(codes.AlreadyExists, "agent %q is connected as identity %q; another identity cannot take its name", c.Agent, other.subject)
		case other.instance == s.instance:
			old = other
		default:
			others++
		}
	}
	if others >= h.limits.Instances {
		return nil, nil, refusal(codes.ResourceExhausted, "agent %q has %d instances connected, which is the most", c.Agent, others)
	}
	a.sessions = append(a.sessions, s)
	h.sessions[s.id] = s
	h.metrics.connects.Inc()
	return s, old, nil
}

// serve carries the control stream until the session ends; its error is what the agent gets.
func (s *session) serve(rpc grpc.BidiStreamingServer[agentpb.AgentNote, agentpb.HubNote], notes <-chan *agentpb.AgentNote, received <-chan error) error {
	limits := s.hub.limits
	welcome := &agentpb.Welcome{Session: s.id, Beat: durationpb.New(limits.Beat), WantIdle: wire.IdleDefault, Now: timestamppb.New(s.hub.now())}
	if err := rpc.Send(&agentpb.HubNote{Note: &agentpb.HubNote_Welcome{Welcome: welcome}}); err != nil {
		s.end(s.broke(err))
		return err
	}
	beat := time.NewTicker(limits.Beat)
	defer beat.Stop()
	expired := time.NewTimer(s.untilEnd())
	defer expired.Stop()
	for {
		var err error
		select {
		case note := <-notes:
			if err = s.take(rpc.Context(), note); err == nil {
				expired.Reset(s.untilEnd())
			}
		case <-beat.C:
			if err = s.tick(); err == nil {
				err = rpc.Send(&agentpb.HubNote{Note: &agentpb.HubNote_Beat{Beat: &agentpb.Beat{}}})
			}
		case <-s.wake:
			err = s.sendNotes(rpc)
		case <-expired.C:
			s.end(&ending{reason: "expired", code: Refused, grpc: codes.Unauthenticated, message: "the agent's token has expired and no new one came"})
		case err = <-received:
			if errors.Is(err, io.EOF) {
				s.end(&ending{reason: "stopped", code: Lost, grpc: codes.OK, message: "the agent ended its session"})
				return nil
			}
		case <-s.ended:
			refuse := &agentpb.Refuse{Code: s.why.code.wire(), Message: s.why.message, RetryAfter: durationpb.New(s.why.retry)}
			if err := rpc.Send(&agentpb.HubNote{Note: &agentpb.HubNote_Refuse{Refuse: refuse}}); err != nil {
				return err
			}
			return refusal(s.why.grpc, "%s", s.why.message)
		}
		if err != nil {
			s.end(s.broke(err))
			return err
		}
	}
}

// broke is the end of a session whose connection has ended: that of an agent that had said so is no fault.
func (s *session) broke(err error) *ending {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	if s.leaving {
		return &ending{reason: "stopped", code: Lost, message: "the agent stopped"}
	}
	return &ending{reason: "broken", code: Lost, message: fmt.Sprintf("the connection broke (%s)", status.Convert(err).Message())}
}

// untilEnd is how long the session lasts with the token it has.
func (s *session) untilEnd() time.Duration {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	return s.expiry.Add(s.hub.limits.ExpiryGrace).Sub(s.hub.now())
}

// take handles a note of the agent; unknown ones are ignored.
func (s *session) take(ctx context.Context, note *agentpb.AgentNote) error {
	switch note := note.GetNote().(type) {
	case *agentpb.AgentNote_Token:
		identity, err := s.hub.verify(ctx, note.Token.GetAccessToken())
		if err != nil {
			s.hub.metrics.tokenFailures.Inc()
			s.log.WithError(err).Warn("the agent's new token was refused; its old one still counts")
			return nil
		}
		if identity.Tenant != s.key.tenant || identity.Agent != s.key.agent || identity.Subject != s.subject {
			s.end(&ending{reason: "refused", code: Refused, grpc: codes.PermissionDenied, message: fmt.Sprintf("the new token is that of agent %q, identity %q", identity.Agent, identity.Subject)})
			return nil
		}
		s.hub.mu.Lock()
		s.expiry = identity.Expiry
		s.hub.mu.Unlock()
	case *agentpb.AgentNote_Beat:
		s.hub.mu.Lock()
		s.lastBeat = s.hub.now()
		s.hub.mu.Unlock()
	case *agentpb.AgentNote_Draining:
		s.hub.mu.Lock()
		s.draining, s.leaving = true, true
		idle := s.takeIdle(0)
		s.noteQuiet()
		s.hub.agents[s.key].turnAway()
		s.hub.mu.Unlock()
		for _, st := range idle {
			st.finish(nil)
		}
		s.log.Info("agent drains")
		s.hub.changed(s.key.tenant, s.key.agent)
	case *agentpb.AgentNote_Hello:
		return refusal(codes.InvalidArgument, "Hello came twice")
	}
	return nil
}

// tick is done at each beat: the agent must have beaten too, and a pool that was raised shrinks after a quiet time.
func (s *session) tick() error {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	now := s.hub.now()
	if silent := now.Sub(s.lastBeat); silent > 3*s.hub.limits.Beat {
		return refusal(codes.DeadlineExceeded, "no beat of the agent for %s", silent.Round(time.Second))
	}
	if now.Sub(s.pressed) > s.hub.limits.Quiet {
		s.want = wire.IdleDefault
		if s.want != s.wantSent {
			s.poke()
		}
		for _, st := range s.takeIdle(s.want) {
			st.finish(nil)
		}
	}
	return nil
}

// press asks the agent for more streams; called with Hub.mu held.
func (s *session) press(waiting int) {
	s.pressed = s.hub.now()
	if want := min(wire.IdleMost, max(s.want, 2*waiting)); want > s.want {
		s.want = want
		s.poke()
	}
}

// sendNotes sends what changed since the last time.
func (s *session) sendNotes(rpc grpc.BidiStreamingServer[agentpb.AgentNote, agentpb.HubNote]) error {
	s.hub.mu.Lock()
	drain, want := s.drainNote, s.want
	changed := want != s.wantSent
	s.drainNote, s.wantSent = nil, want
	s.hub.mu.Unlock()
	if changed {
		if err := rpc.Send(&agentpb.HubNote{Note: &agentpb.HubNote_WantIdle{WantIdle: uint32(want)}}); err != nil {
			return err
		}
	}
	if drain != nil {
		return rpc.Send(&agentpb.HubNote{Note: &agentpb.HubNote_Drain{Drain: drain}})
	}
	return nil
}
