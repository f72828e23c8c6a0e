package faultproxy_test

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"towpath/internal/testkit/faultproxy"
)

// echo answers each connection with what it says.
func echo(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			}()
		}
	}()
	return listener.Addr().String()
}

func dial(t *testing.T, p *faultproxy.Proxy) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestALinkIsAsSlowAndAsNarrowAsItSays(t *testing.T) {
	t.Parallel()
	link := faultproxy.Link{Delay: 20 * time.Millisecond, Rate: 4 << 20}
	conn := dial(t, faultproxy.StartLink(t, echo(t), link))
	began := time.Now()
	if _, err := conn.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if trip := time.Since(began); trip < 2*link.Delay {
		t.Errorf("a round trip took %s", trip)
	}
	sent := bytes.Repeat([]byte("12345678"), 1<<17)
	go func() { _, _ = conn.Write(sent) }()
	began = time.Now()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(conn, got); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 240*time.Millisecond {
		t.Errorf("1 MiB over 4 MiB/s took %s", took)
	}
	if !bytes.Equal(got, sent) {
		t.Error("what arrives is not what was sent")
	}
}

func TestAStalledDirectionSaysNothingUntilItFlowsAgain(t *testing.T) {
	t.Parallel()
	p := faultproxy.Start(t, echo(t))
	conn := dial(t, p)
	p.Stall(true, faultproxy.Down)
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Fatalf("%d bytes came through", n)
	}
	p.Stall(false, faultproxy.Down)
	_ = conn.SetReadDeadline(time.Time{})
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	p.Cut()
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a connection that was cut can be read")
	}
}
