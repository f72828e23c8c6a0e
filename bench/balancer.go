package main

import (
	"io"
	"net"
	"sync"
)

// balancer spreads connections over the servers that take them, as a Service of Kubernetes does. start comes first.
type balancer struct {
	listener net.Listener
	running  sync.WaitGroup

	mu      sync.Mutex
	servers []string
	next    int
}

func (b *balancer) start() (err error) {
	if b.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	b.running.Go(func() {
		for {
			conn, err := b.listener.Accept()
			if err != nil {
				return
			}
			b.running.Go(func() { b.carry(conn) })
		}
	})
	return nil
}

func (b *balancer) address() string { return b.listener.Addr().String() }

func (b *balancer) add(server string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.servers = append(b.servers, server)
}

// close takes no more connections, and returns when the others' ends have ended those that there are.
func (b *balancer) close() {
	if b.listener != nil {
		b.listener.Close()
	}
	b.running.Wait()
}

// dial connects to the next server that takes connections; nil when none does.
func (b *balancer) dial() net.Conn {
	b.mu.Lock()
	servers := b.servers
	first := b.next
	b.next++
	b.mu.Unlock()
	for i := range servers {
		if conn, err := net.Dial("tcp", servers[(first+i)%len(servers)]); err == nil {
			return conn
		}
	}
	return nil
}

func (b *balancer) carry(from net.Conn) {
	defer from.Close()
	to := b.dial()
	if to == nil {
		return
	}
	defer to.Close()
	go func() {
		pass(to, from)
		to.Close()
	}()
	pass(from, to)
}

// pass copies by a small buffer: the kernel's way from socket to socket takes a pipe for each, and thousands of them more files than a process may have.
func pass(to io.Writer, from io.Reader) {
	_, _ = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, 4<<10)) // an end that breaks is told to the other by its close
}
