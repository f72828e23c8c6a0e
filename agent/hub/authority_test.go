package hub

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"towpath/agent/agentpb"
)

type nowhere struct{}

func (nowhere) Find(context.Context, string, string) ([]Place, error) { return nil, nil }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// both is a hub with both of its listeners, which takes one token.
func both(t *testing.T) (authority *Authority, agents, peers string) {
	t.Helper()
	authority, err := NewAuthority([][]byte{bytes.Repeat([]byte{7}, 32)}, nil)
	must(t, err)
	h, err := New(Config{Peers: &Peers{nowhere{}, authority}, Verify: func(context.Context, string) (Identity, error) {
		return Identity{Tenant: "t", Agent: "prod", Subject: "s", Expiry: time.Now().Add(time.Hour)}, nil
	}})
	must(t, err)
	own, err := authority.certificate() // any will do
	must(t, err)
	var listeners [2]net.Listener
	for i := range listeners {
		listeners[i], err = net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
	}
	go h.Serve(listeners[0], &tls.Config{Certificates: []tls.Certificate{*own}})
	go h.ServePeers(listeners[1])
	t.Cleanup(h.Close)
	return authority, listeners[0].Addr().String(), listeners[1].Addr().String()
}

func dial(t *testing.T, address string, config *tls.Config) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// refused is how a call ends; it begins with one message, if there is one.
func refused[M any](t *testing.T, call grpc.BidiStreamingClient[M, agentpb.Up], err error, message *M) (code codes.Code, text string) {
	t.Helper()
	if err == nil {
		_ = call.Send(message) // Recv knows why it failed
		_, err = call.Recv()
	}
	if err == nil {
		t.Fatal("it was taken")
	}
	return status.Code(err), status.Convert(err).Message()
}

func TestAnAgentsTokenOpensNothingAmongReplicas(t *testing.T) {
	t.Parallel()
	authority, _, peers := both(t)
	config := authority.client()
	config.GetClientCertificate = nil
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer token", "towpath-tenant", "t", "towpath-agent", "prod")
	call, err := agentpb.NewPeersClient(dial(t, peers, authority.client())).Forward(ctx)
	if code, text := refused(t, call, err, &agentpb.Down{}); code == codes.Unavailable {
		t.Errorf("another replica is refused with %s: %s", code, text)
	}
	call, err = agentpb.NewPeersClient(dial(t, peers, config)).Forward(ctx)
	// The handshake is refused after the caller has sent its part of it: which of its writes fails, and how the system says that, is chance.
	if code, text := refused(t, call, err, &agentpb.Down{}); code != codes.Unavailable {
		t.Errorf("refused with %s: %s", code, text)
	}
}

func TestAReplicasCertificateOpensNothingAmongAgents(t *testing.T) {
	t.Parallel()
	authority, agents, _ := both(t)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "towpath-tenant", "t", "towpath-agent", "prod", "towpath-instance", "one")
	conn := dial(t, agents, authority.client())
	call, err := agentpb.NewPeersClient(conn).Forward(ctx)
	if code, text := refused(t, call, err, &agentpb.Down{}); code != codes.Unimplemented {
		t.Errorf("a forward: refused with %s: %s", code, text)
	}
	session, err := agentpb.NewTunnelClient(conn).Session(ctx)
	must(t, err)
	if _, err = session.Recv(); status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "the stream carries no bearer token") {
		t.Errorf("a session: refused with %v", err)
	}
}

func TestACertificateIsMadeAnewInTime(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	authority, err := NewAuthority([][]byte{bytes.Repeat([]byte{7}, 32)}, func() time.Time { return now })
	must(t, err)
	serial := func() string {
		c, err := authority.certificate()
		must(t, err)
		if now.After(c.Leaf.NotAfter.Add(-peerLifetime / 3)) {
			t.Errorf("at %s there is one that ends at %s", now, c.Leaf.NotAfter)
		}
		return c.Leaf.SerialNumber.String()
	}
	first := serial()
	now = now.Add(time.Hour)
	if serial() != first {
		t.Error("it is made anew each time")
	}
	now = now.Add(peerLifetime)
	if serial() == first {
		t.Error("it is never made anew")
	}
	if _, err := NewAuthority(nil, nil); err == nil || err.Error() != "hub: peers need a key of the installation to know each other by" {
		t.Errorf("without a key: %v", err)
	}
}
