package agent_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"towpath/agent/agentpb"
	"towpath/agent/edge"
	"towpath/agent/hub"
	"towpath/agent/wire"
)

// raw is a codec whose messages are bytes, whatever they mean.
type raw struct{}

func (raw) Name() string { return "proto" }
func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}
func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

func frame(message proto.Message) []byte {
	text, err := proto.Marshal(message)
	if err != nil {
		panic(err) // of a message of ours
	}
	return text
}

const (
	sessionMethod = "/towpath.agent.v1.Tunnel/Session"
	relayMethod   = "/towpath.agent.v1.Tunnel/Relay"
)

var bothWays = &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}

// hostileHub takes one agent after the other, and does with their streams what a test wants.
type hostileHub struct {
	config edge.Config
	notes  chan []byte          // sent on the control stream, after Welcome
	relay  func(*relayed) error // serves each Relay stream; its error is what the agent gets
	server *grpc.Server

	mu    sync.Mutex
	drain chan struct{} // closed when the agent wants to stop
}

// relayed is a stream of an agent's pool as its hub sees it.
type relayed struct {
	grpc.ServerStream
	drain <-chan struct{} // the agent wants it back when it carries nothing
	done  chan struct{}
}

func (r *relayed) send(frame []byte) error { return r.SendMsg(frame) }

func (r *relayed) receive() (*agentpb.Up, error) {
	var text []byte
	if err := r.RecvMsg(&text); err != nil {
		return nil, err
	}
	up := &agentpb.Up{}
	return up, proto.Unmarshal(text, up)
}

func newHostileHub(t testing.TB, kubernetes *httptest.Server, relay func(*relayed) error) *hostileHub {
	t.Helper()
	dir := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		ok(t, os.WriteFile(name, []byte(text), 0o600))
		return name
	}
	tokens := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "any", "expires_in": 600})
	}))
	t.Cleanup(tokens.Close)
	ca := file("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tokens.Certificate().Raw})))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	h := &hostileHub{notes: make(chan []byte), relay: relay}
	h.server = grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: tokens.TLS.Certificates})), grpc.ForceServerCodecV2(raw{}), grpc.UnknownServiceHandler(h.serve))
	go func() { _ = h.server.Serve(listener) }()
	t.Cleanup(h.server.Stop)
	h.config = edge.Config{
		Agent: "prod", Instance: "prod-0", Listen: "off", Hub: edge.Hub{Address: listener.Addr().String(), CAFile: ca},
		Identity:   edge.Identity{TokenURL: tokens.URL, ClientID: "id", ClientSecretFile: file("secret", "s"), CAFile: ca},
		Kubernetes: edge.Kubernetes{Server: kubernetes.URL, CAFile: ca, TokenFile: file("token", "sa-token-1")},
	}
	return h
}

func (h *hostileHub) serve(_ any, rpc grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(rpc)
	if method == relayMethod {
		h.mu.Lock()
		drain := h.drain
		h.mu.Unlock()
		return h.relay(&relayed{rpc, drain, make(chan struct{})})
	}
	drain := make(chan struct{})
	h.mu.Lock()
	h.drain = drain
	h.mu.Unlock()
	var hello []byte
	if err := rpc.RecvMsg(&hello); err != nil {
		return err
	}
	if err := rpc.SendMsg(frame(&agentpb.HubNote{Note: &agentpb.HubNote_Welcome{Welcome: &agentpb.Welcome{Session: "s", WantIdle: 4}}})); err != nil {
		return err
	}
	go func() { // ends with the stream
		for {
			var text []byte
			if rpc.RecvMsg(&text) != nil {
				return
			}
			var note agentpb.AgentNote
			if proto.Unmarshal(text, &note) == nil && note.GetDraining() != nil {
				close(drain)
				return
			}
		}
	}()
	for {
		select {
		case note := <-h.notes:
			if err := rpc.SendMsg(note); err != nil {
				return err
			}
		case <-rpc.Context().Done():
			return nil
		}
	}
}

// run starts the agent; stop ends it.
func (h *hostileHub) run(t testing.TB, timing edge.Timing) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	log := logrus.New()
	log.SetOutput(t.Output())
	log.SetLevel(logrus.PanicLevel)
	go func() {
		result <- edge.Run(ctx, h.config, edge.Options{Version: "test", Log: log, Timing: timing, Getenv: func(string) string { return "" }})
	}()
	return func() error {
		cancel()
		select {
		case err := <-result:
			return err
		case <-time.After(20 * time.Second):
			return fmt.Errorf("the agent does not stop")
		}
	}
}

func TestAnAgentWhoseStreamsAreRefusedStopsAtOnce(t *testing.T) {
	t.Parallel()
	refused := make(chan struct{}, 100)
	h := newHostileHub(t, cluster(t, func(http.ResponseWriter, *http.Request) {}), func(*relayed) error {
		refused <- struct{}{}
		return status.Error(codes.Unavailable, "the session takes no new requests")
	})
	stop := h.run(t, edge.Timing{Drain: time.Hour})
	for range 6 { // of the four streams each waits before it is tried again, for up to half a minute now
		next(t, t.Context(), refused, "a stream")
	}
	began := time.Now()
	ok(t, stop())
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it stopped after %s", took)
	}
}

// hostileAgent is a session with a real hub, whose frames are the test's.
type hostileAgent struct {
	hub      *hub.Hub
	conn     *grpc.ClientConn
	instance int
}

func newHostileAgent(t testing.TB, limits hub.Limits) *hostileAgent {
	t.Helper()
	server := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate
	t.Cleanup(server.Close)
	h, err := hub.New(hub.Config{Limits: limits, Verify: func(context.Context, string) (hub.Identity, error) {
		return hub.Identity{Tenant: "t", Agent: "prod", Subject: "s", Expiry: time.Now().Add(time.Hour)}, nil
	}})
	ok(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	served := make(chan error, 1)
	go func() { served <- h.Serve(listener, &tls.Config{Certificates: server.TLS.Certificates}) }()
	trust := server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	conn, err := grpc.NewClient("passthrough:///"+listener.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: trust, ServerName: "127.0.0.1"})),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{})))
	ok(t, err)
	t.Cleanup(func() {
		ok(t, conn.Close())
		h.Close()
		ok(t, <-served)
	})
	return &hostileAgent{hub: h, conn: conn}
}

// begin opens a session; its context ends it.
func (a *hostileAgent) begin(ctx context.Context, first []byte) (control grpc.ClientStream, meta context.Context, err error) {
	a.instance++
	instance := fmt.Sprint("prod-", a.instance)
	meta = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer x", wire.MetaAgent, "prod", wire.MetaInstance, instance)
	control, err = a.conn.NewStream(meta, bothWays, sessionMethod)
	if err != nil {
		return nil, nil, err
	}
	if first == nil {
		first = frame(&agentpb.AgentNote{Note: &agentpb.AgentNote_Hello{Hello: &agentpb.Hello{Agent: "prod", Instance: instance, Protocol: wire.Protocol}}})
	}
	if err := control.SendMsg(first); err != nil {
		return nil, nil, err
	}
	var text []byte
	if err := control.RecvMsg(&text); err != nil {
		return nil, nil, err
	}
	var note agentpb.HubNote
	if err := proto.Unmarshal(text, &note); err != nil {
		return nil, nil, err
	}
	return control, metadata.AppendToOutgoingContext(meta, wire.MetaSession, note.GetWelcome().GetSession()), nil
}
