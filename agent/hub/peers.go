package hub

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"towpath/agent/agentpb"
	"towpath/agent/wire"
)

// Peers lets hubs of one installation use each other's agents. Both fields are required.
type Peers struct {
	Directory Directory
	Authority *Authority
}

// peers is what a hub knows of the others. What changes is guarded by Hub.mu.
type peers struct {
	Peers
	connections map[string]*grpc.ClientConn // by address
	running     map[string]int              // requests of ours that each carries
	total       int                         // of them
	last        chan struct{}               // closed when none runs any more; nil: nobody waits for that
}

const (
	peerIdle    = 5 * time.Minute // an unused connection to another hub is closed after this
	peerDial    = 3 * time.Second
	peerGoodbye = 2 * time.Second // others have so long to hear what became of their requests when this hub stops
)

func newPeers(p Peers) (*peers, error) {
	if p.Directory == nil || p.Authority == nil {
		return nil, errors.New("hub: Config.Peers must say where agents are, and by what hubs know each other")
	}
	return &peers{Peers: p, connections: map[string]*grpc.ClientConn{}, running: map[string]int{}}, nil
}

// ServePeers takes requests of other hubs for agents that are connected to this one, until Close; then it returns nil. It closes the listener. The hub
// must have Config.Peers.
func (h *Hub) ServePeers(listener net.Listener) error {
	server := grpc.NewServer(
		grpc.Creds(told{credentials.NewTLS(h.peers.Authority.server()), h.log, &seldom{now: h.now, limit: rate.NewLimiter(rate.Every(time.Minute), 5)}}),
		grpc.ForceServerCodecV2(h.codec),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: wire.PingEvery, Timeout: wire.PingAnswer}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: wire.PingLeast, PermitWithoutStream: true}),
		grpc.MaxRecvMsgSize(wire.MaxFrame),
		grpc.MaxSendMsgSize(wire.MaxFrame),
		grpc.ConnectionTimeout(10*time.Second),
		grpc.WaitForHandlers(true),
	)
	agentpb.RegisterPeersServer(server, &forwards{hub: h})
	h.mu.Lock()
	if h.down {
		h.mu.Unlock()
		return listener.Close()
	}
	h.peerServers = append(h.peerServers, server)
	h.mu.Unlock()
	err := server.Serve(listener)
	if err == nil || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return fmt.Errorf("hub: listening for other replicas on %s: %w", listener.Addr(), err)
}

// told are credentials that tell of whom they refuse, which gRPC does not.
type told struct {
	credentials.TransportCredentials
	log    logrus.FieldLogger
	seldom *seldom // whoever reaches the listener could fill the log
}

// ServerHandshake implements credentials.TransportCredentials.
func (c told) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		if untold, may := c.seldom.tell(); may {
			c.log.WithError(err).WithFields(logrus.Fields{"remote": raw.RemoteAddr(), "untold": untold}).
				Warn("refused on the listener for other replicas: they prove themselves by a key of this controller's keyFile")
		}
	}
	return conn, info, err
}

// Clone implements credentials.TransportCredentials.
func (c told) Clone() credentials.TransportCredentials {
	return told{c.TransportCredentials.Clone(), c.log, c.seldom}
}

// seldom counts what is not told because too much was of late.
type seldom struct {
	now   func() time.Time
	limit *rate.Limiter

	mu     sync.Mutex
	untold int
}

// tell reports whether something may be told, and how often it was not since the last time.
func (s *seldom) tell() (untold int, may bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.limit.AllowN(s.now(), 1) {
		s.untold++
		return 0, false
	}
	untold, s.untold = s.untold, 0
	return untold, true
}

// connection is the one to another hub, made when it is first needed; called with mu held.
func (h *Hub) connection(address string) (*grpc.ClientConn, error) {
	if conn := h.peers.connections[address]; conn != nil {
		return conn, nil
	}
	for other, conn := range h.peers.connections { // of hubs that are gone
		if state := conn.GetState(); h.peers.running[other] == 0 && (state == connectivity.Idle || state == connectivity.TransientFailure) {
			delete(h.peers.connections, other)
			_ = conn.Close() // nothing runs on it
		}
	}
	retry := backoff.DefaultConfig
	retry.BaseDelay, retry.MaxDelay = 100*time.Millisecond, 5*time.Second
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(credentials.NewTLS(h.peers.Authority.client())),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: wire.PingEvery, Timeout: wire.PingAnswer}),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(h.codec), grpc.MaxCallRecvMsgSize(wire.MaxFrame), grpc.MaxCallSendMsgSize(wire.MaxFrame)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: peerDial}),
		grpc.WithIdleTimeout(peerIdle),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithNoProxy(), // replicas are neighbours
		grpc.WithUserAgent("towpath-hub"),
	)
	if err == nil {
		h.peers.connections[address] = conn
	}
	return conn, err
}

// stopPeers ends what other hubs have running here, whose sessions have ended, and what runs at others.
func (h *Hub) stopPeers(servers []*grpc.Server) {
	for _, server := range servers {
		hard := time.AfterFunc(peerGoodbye, server.Stop)
		server.GracefulStop()
		hard.Stop()
	}
	if h.peers == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, conn := range h.peers.connections {
		_ = conn.Close() // its requests were ended
	}
	clear(h.peers.connections)
}
