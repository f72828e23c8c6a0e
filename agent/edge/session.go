package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"towpath/agent/agentpb"
	"towpath/agent/wire"
)

// session is one connection to a hub, its control stream and its pool of relay streams.
type session struct {
	agent  *agent
	client agentpb.TunnelClient
	id     string
	up     time.Time
	beats  time.Duration

	streams sync.WaitGroup
	refill  chan struct{} // the pool may be short of streams; capacity 1
	moved   chan struct{} // closed when another session should take over
	move    sync.Once
	retired chan struct{} // closed by retire
	retire  func()

	mu      sync.Mutex
	idle    int // streams that wait, or are being opened
	want    int
	failing backoff // of streams that end before they carried anything
	last    bool    // no new streams
}

// open connects and introduces the agent. The session it returns carries requests until its run ends.
func (a *agent) open(ctx context.Context) (s *session, run func() error, err error) {
	token, err := a.tokens.wait(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("no token to connect with: %w", err)
	}
	pool, err := roots(a.config.Hub.CAFile != "", a.config.Hub.CAFile, a.config.Proxy.CAFile)
	if err != nil {
		return nil, nil, fmt.Errorf("hub.ca: %w", err)
	}
	host, _, err := net.SplitHostPort(a.config.Hub.Address)
	if err != nil {
		return nil, nil, err
	}
	conn, err := grpc.NewClient("passthrough:///"+a.config.Hub.Address,
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, ServerName: host, MinVersion: tls.VersionTLS12})),
		grpc.WithContextDialer(once(a.outward.dial)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: wire.PingEvery, Timeout: wire.PingAnswer, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(a.codec), grpc.MaxCallRecvMsgSize(wire.MaxFrame), grpc.MaxCallSendMsgSize(wire.MaxFrame)),
		grpc.WithMaxHeaderListSize(32<<10),
		grpc.WithIdleTimeout(0),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithNoProxy(), // the dialer sees to it
		grpc.WithSharedWriteBuffer(true),
		grpc.WithReadBufferSize(0), // TLS reads ahead for itself
		grpc.WithUserAgent("towpath-agent/"+a.version),
	)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	abort := func(err error) (*session, func() error, error) {
		cancel(nil)
		return nil, nil, errors.Join(err, conn.Close())
	}
	s = &session{agent: a, client: agentpb.NewTunnelClient(conn), refill: make(chan struct{}, 1), moved: make(chan struct{}), retired: make(chan struct{})}
	s.retire = sync.OnceFunc(func() { close(s.retired) })
	control, welcome, err := s.introduce(ctx, cancel, token)
	if err != nil {
		return abort(err)
	}
	s.id, s.up, s.want = welcome.GetSession(), time.Now(), clamp(int(welcome.GetWantIdle()))
	if s.beats = welcome.GetBeat().AsDuration(); s.beats <= 0 {
		s.beats = 30 * time.Second
	}
	if now := welcome.GetNow(); now != nil {
		if skew := time.Since(now.AsTime()); skew.Abs() > 30*time.Second {
			a.log.Warnf("this machine's clock and the hub's differ by %s", skew.Abs().Round(time.Second))
		}
	}
	return s, func() error {
		err := s.run(ctx, cancel, control)
		cancel(nil)
		s.streams.Wait()
		return errors.Join(err, conn.Close())
	}, nil
}

var errSilent = errors.New("the hub did not answer")

// errRetired ends a session whose requests have all ended after retire.
var errRetired = errors.New("the session has been retired")

type controlStream = grpc.BidiStreamingClient[agentpb.AgentNote, agentpb.HubNote]

// introduce opens the control stream and says Hello.
func (s *session) introduce(ctx context.Context, cancel context.CancelCauseFunc, token string) (controlStream, *agentpb.Welcome, error) {
	a := s.agent
	patience := time.AfterFunc(a.timing.hello, func() { cancel(errSilent) })
	defer patience.Stop()
	control, err := s.client.Session(s.metadata(ctx, token))
	if err != nil {
		return nil, nil, a.refusedBy(err)
	}
	hello := &agentpb.Hello{Agent: a.config.Agent, Instance: a.config.Instance, Version: a.version, Protocol: wire.Protocol}
	for _, name := range slices.Sorted(maps.Keys(a.backends)) {
		b := a.backends[name]
		if b.upgrades {
			hello.Features = []string{wire.FeatureUpgrade}
		}
		hello.Targets = append(hello.Targets, &agentpb.Target{Name: name, ReadOnly: b.methods != nil && !slices.ContainsFunc(b.methods, writes)})
	}
	if err := control.Send(&agentpb.AgentNote{Note: &agentpb.AgentNote_Hello{Hello: hello}}); err != nil && !errors.Is(err, io.EOF) { // EOF: Recv knows why
		return nil, nil, a.refusedBy(err)
	}
	for {
		note, err := control.Recv()
		if err != nil {
			if errors.Is(context.Cause(ctx), errSilent) {
				err = fmt.Errorf("%s: %w within %s", a.config.Hub.Address, errSilent, a.timing.hello)
			}
			return nil, nil, a.refusedBy(err)
		}
		if welcome := note.GetWelcome(); welcome != nil {
			if !patience.Stop() {
				return nil, nil, fmt.Errorf("%s: %w within %s", a.config.Hub.Address, errSilent, a.timing.hello)
			}
			return control, welcome, nil
		}
	}
}

func writes(method string) bool { return method != "GET" && method != "HEAD" }

func clamp(want int) int { return min(max(want, 1), wire.IdleMost) }

func (s *session) metadata(ctx context.Context, token string) context.Context {
	pairs := []string{"authorization", "Bearer " + token, wire.MetaAgent, s.agent.config.Agent, wire.MetaInstance, s.agent.config.Instance}
	if s.id != "" {
		pairs = append(pairs, wire.MetaSession, s.id)
	}
	return metadata.AppendToOutgoingContext(ctx, pairs...)
}

// run carries the session until it ends.
func (s *session) run(ctx context.Context, cancel context.CancelCauseFunc, control controlStream) error {
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel(nil)
	defer s.giveWay()
	parts.Go(func() { s.fill(ctx) })
	parts.Go(func() { s.speak(ctx, control) })
	parts.Go(func() {
		select {
		case <-s.retired: // its requests may end, then it does
			s.lastRequests()
			s.streams.Wait()
			cancel(errRetired)
		case <-ctx.Done():
		}
	})
	s.poke()
	for {
		note, err := control.Recv()
		if err != nil {
			if errors.Is(context.Cause(ctx), errRetired) {
				return nil
			}
			if errors.Is(err, io.EOF) {
				return errors.New("the hub ended the session")
			}
			return s.agent.refusedBy(err)
		}
		switch note := note.GetNote().(type) {
		case *agentpb.HubNote_WantIdle:
			s.mu.Lock()
			s.want = clamp(int(note.WantIdle))
			s.mu.Unlock()
			s.poke()
		case *agentpb.HubNote_Drain:
			s.agent.log.Info("the hub stops; moving to another session")
			s.lastRequests()
			within := min(max(note.Drain.GetWithin().AsDuration(), 0), time.Minute)
			parts.Go(func() { // a fleet does not move at once
				timer := time.NewTimer(rand.N(within + 1))
				defer timer.Stop()
				select {
				case <-timer.C:
					s.giveWay()
				case <-ctx.Done():
				}
			})
		case *agentpb.HubNote_Refuse:
			s.agent.penalty.Store(int64(min(max(note.Refuse.GetRetryAfter().AsDuration(), 0), 5*time.Minute)))
			if note.Refuse.GetCode() == agentpb.Code_REFUSED {
				s.agent.tokens.refused() // a token that was revoked is not to be shown again
			}
			return fmt.Errorf("the hub ended the session: %s: %.2000s", note.Refuse.GetCode(), note.Refuse.GetMessage())
		}
	}
}

// giveWay lets another session begin.
func (s *session) giveWay() { s.move.Do(func() { close(s.moved) }) }

// lastRequests opens no further streams.
func (s *session) lastRequests() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = true
}

// speak sends beats, fresh tokens, and Draining when the agent stops.
func (s *session) speak(ctx context.Context, control controlStream) {
	beat := time.NewTicker(s.beats)
	defer beat.Stop()
	sent, _, changed := s.agent.tokens.get()
	retired := s.retired
	for {
		var note agentpb.AgentNote
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
			note.Note = &agentpb.AgentNote_Beat{Beat: &agentpb.Beat{Running: uint32(max(0, s.agent.running.Load()))}}
		case <-changed:
			var token string
			if token, _, changed = s.agent.tokens.get(); token == "" || token == sent {
				continue
			}
			sent = token
			note.Note = &agentpb.AgentNote_Token{Token: &agentpb.Token{AccessToken: token}}
		case <-retired:
			retired = nil
			note.Note = &agentpb.AgentNote_Draining{Draining: &agentpb.Draining{Within: durationpb.New(s.agent.timing.drain)}}
		}
		if control.Send(&note) != nil {
			return // the receiver learns why
		}
	}
}

func (s *session) poke() {
	select {
	case s.refill <- struct{}{}:
	default:
	}
}

// took is called when a stream got a request, gave when it is free again.
func (s *session) took(st *stream) {
	s.mu.Lock()
	st.waiting = false
	s.idle--
	s.failing = backoff{}
	s.mu.Unlock()
	s.poke()
}

func (s *session) gave(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.waiting = true
	s.idle++
}

// fill keeps as many streams idle as the hub wants.
func (s *session) fill(ctx context.Context) {
	for {
		select {
		case <-s.refill:
		case <-ctx.Done():
			return
		}
		for s.reserve() {
			token, _, _ := s.agent.tokens.get()
			s.streams.Go(func() { s.keep(ctx, token) })
		}
	}
}

func (s *session) reserve() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last || s.idle >= s.want {
		return false
	}
	s.idle++
	return true
}

// keep opens one stream and carries requests on it. A stream that fails soon, before it carried anything, is replaced after a pause.
func (s *session) keep(ctx context.Context, token string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	st, began := &stream{session: s, waiting: true}, time.Now()
	rpc, err := s.client.Relay(s.metadata(ctx, token))
	carried := false
	if err == nil {
		st.rpc = rpc
		carried, err = st.run()
	}
	if ctx.Err() != nil {
		return
	}
	pause := time.Duration(0)
	s.mu.Lock()
	if st.waiting {
		s.idle--
	}
	switch {
	case time.Since(began) > s.agent.timing.beat: // it was well: a balancer's patience with a silent stream was over
		s.failing = backoff{}
	case err != nil && !carried:
		pause = s.failing.next()
	}
	s.mu.Unlock()
	if err != nil {
		s.agent.log.WithError(err).Debug("a stream ended")
		if status.Code(err) == codes.Unauthenticated {
			s.agent.tokens.refused()
		}
	}
	if pause > 0 {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.retired: // there is no next one, and the session waits for this
		case <-ctx.Done():
		}
	}
	s.poke()
}
