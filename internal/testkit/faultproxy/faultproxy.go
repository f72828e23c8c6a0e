// Package faultproxy is a TCP proxy for tests that does to connections what networks do: it cuts them, lets one or both directions fall silent while the
// connection stays, and is as slow and as narrow as a link that is given.
package faultproxy

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Link is what lies between the proxy's two sides; the zero value is this machine's loopback.
type Link struct {
	Delay time.Duration // of each direction: a round trip takes twice that
	Rate  float64       // bytes a second of each direction, shared by all connections; 0: no limit
}

// Proxy forwards connections to one address.
type Proxy struct {
	listener net.Listener
	to       string
	link     Link
	lines    [2]line

	running sync.WaitGroup
	mu      sync.Mutex
	pairs   map[*pair]struct{}
	stalled [2]bool
	moved   chan struct{} // closed when stalled changes
	refuse  bool
	closed  bool
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
	return StartLink(t, to, Link{})
}

// StartLink is Start with a link between.
func StartLink(t testing.TB, to string, link Link) *Proxy {
	t.Helper()
	p, err := New(to, link)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// New is StartLink until Close.
func New(to string, link Link) (*Proxy, error) {
	config := net.ListenConfig{}
	if link.Rate > 0 {
		config.Control = narrow
	}
	listener, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: listener, to: to, link: link, pairs: map[*pair]struct{}{}, moved: make(chan struct{})}
	p.running.Go(p.accept)
	return p, nil
}

// Close cuts everything, and returns when nothing of the proxy is left.
func (p *Proxy) Close() {
	_ = p.listener.Close()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.Cut()
	p.Stall(false, Up, Down)
	p.running.Wait()
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
		c.cut()
	}
}

func (c *pair) cut() {
	for _, conn := range []net.Conn{c.client, c.server} {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
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

// Open is how many connections are open now.
func (p *Proxy) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.pairs)
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
		p.running.Go(func() { p.forward(client, to) })
	}
}

func (p *Proxy) forward(client net.Conn, to string) {
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", to)
	cancel()
	if err != nil {
		return
	}
	defer server.Close()
	if tcp, ok := server.(*net.TCPConn); ok && p.link.Rate > 0 {
		_ = tcp.SetReadBuffer(window)
	}
	c := &pair{client, server}
	p.mu.Lock()
	p.pairs[c] = struct{}{}
	if p.closed {
		c.cut()
	}
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.copy(server, client, Up) })
	both.Go(func() { p.copy(client, server, Down) })
	both.Wait()
	p.mu.Lock()
	delete(p.pairs, c)
	p.mu.Unlock()
}

// piece of bytes on its way; none: the sender has closed.
type piece struct {
	bytes []byte
	due   time.Time
}

// copy carries one direction. What is under way on a link with a delay waits in between; a link without one passes each piece on as it comes.
func (p *Proxy) copy(to, from net.Conn, d Direction) {
	under := make(chan piece, max(1, int(p.link.Delay/time.Millisecond)))
	var arriving sync.WaitGroup
	arriving.Go(func() {
		broken := false
		for piece := range under {
			time.Sleep(time.Until(piece.due))
			p.await(d)
			if !broken {
				_, err := to.Write(piece.bytes)
				broken = err != nil
			}
		}
		if tcp, ok := to.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
	})
	for {
		buffer := make([]byte, chunk)
		n, err := from.Read(buffer)
		if n > 0 {
			sent := p.lines[d].send(n, p.link.Rate)
			under <- piece{buffer[:n], sent.Add(p.link.Delay)}
			time.Sleep(time.Until(sent))
		}
		if err != nil {
			break
		}
	}
	close(under)
	arriving.Wait()
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

// line is one direction of a link: bytes leave it one after the other, whichever connection they belong to.
type line struct {
	mu   sync.Mutex
	free time.Time
}

// chunk is what a narrow link takes at once.
const chunk = 16 << 10

// late is by how much a sleep may last longer than asked, without the line losing time.
const late = 2 * time.Millisecond

// send says when the last of n bytes that come now has left.
func (l *line) send(n int, rate float64) time.Time {
	now := time.Now()
	if rate <= 0 {
		return now
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.free) > late {
		l.free = now
	}
	l.free = l.free.Add(time.Duration(float64(n) / rate * float64(time.Second)))
	return l.free
}
