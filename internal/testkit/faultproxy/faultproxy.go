// Package faultproxy is a TCP proxy for tests that breaks connections on demand: it cuts them, or lets one or both directions fall silent while the
// connection stays.
package faultproxy

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy forwards connections to one address.
type Proxy struct {
	listener net.Listener
	to       string

	running sync.WaitGroup
	mu      sync.Mutex
	pairs   map[*pair]struct{}
	stalled [2]bool
	moved   chan struct{} // closed when stalled changes
	refuse  bool
	total   int
}

// Direction of bytes.
type Direction int

// Up goes from the client to the server.
const (
	Up Direction = iota
	Down
)

type pair struct{ client, server net.Conn }

// Start forwards from a free port of 127.0.0.1 until the test ends.
func Start(t testing.TB, to string) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: listener, to: to, pairs: map[*pair]struct{}{}, moved: make(chan struct{})}
	p.running.Go(p.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		p.Refuse(true)
		p.Cut()
		p.Stall(false, Up, Down)
		p.running.Wait()
	})
	return p
}

// Address is where clients connect to.
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// Target changes where new connections go.
func (p *Proxy) Target(to string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.to = to
}

// Cut closes all connections with a reset.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		for _, conn := range []net.Conn{c.client, c.server} {
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			_ = conn.Close()
		}
	}
}

// Refuse makes new connections end at once, or lets them through again.
func (p *Proxy) Refuse(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = on
}

// Stall makes directions silent, or lets them flow again; connections stay.
func (p *Proxy) Stall(on bool, directions ...Direction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range directions {
		p.stalled[d] = on
	}
	close(p.moved)
	p.moved = make(chan struct{})
}

// Connections is how many were accepted so far.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		to, refuse := p.to, p.refuse
		p.total++
		p.mu.Unlock()
		if refuse {
			_ = client.Close()
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		server, err := (&net.Dialer{}).DialContext(ctx, "tcp", to)
		cancel()
		if err != nil {
			_ = client.Close()
			continue
		}
		c := &pair{client, server}
		p.mu.Lock()
		p.pairs[c] = struct{}{}
		p.mu.Unlock()
		p.running.Go(func() {
			var both sync.WaitGroup
			both.Go(func() { p.copy(server, client, Up) })
			both.Go(func() { p.copy(client, server, Down) })
			both.Wait()
			p.mu.Lock()
			delete(p.pairs, c)
			p.mu.Unlock()
			_ = client.Close()
			_ = server.Close()
		})
	}
}

func (p *Proxy) copy(to, from net.Conn, d Direction) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		p.await(d)
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	if tcp, ok := to.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
	_, _ = io.Copy(io.Discard, from)
}

// await returns when a direction flows.
func (p *Proxy) await(d Direction) {
	for {
		p.mu.Lock()
		stalled, moved := p.stalled[d], p.moved
		p.mu.Unlock()
		if !stalled {
			return
		}
		<-moved
	}
}
