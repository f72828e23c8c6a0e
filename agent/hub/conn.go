package hub

import (
	"net"
	"os"
	"sync"
	"time"

	"towpath/agent/agentpb"
	"towpath/agent/wire"
)

// Conn is an upgraded connection (exec, attach, port-forward) to a target: the body of a response with status 101. It is a net.Conn without deadlines: the
// request's context ends it. One goroutine may read while another writes.
type Conn struct {
	*body

	writing sync.Mutex
	ended   bool // this side writes no more
}

// Write implements io.Writer.
func (c *Conn) Write(p []byte) (written int, err error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.ended {
		return 0, net.ErrClosed
	}
	for len(p) > 0 {
		n := min(len(p), wire.MaxData)
		if err := c.x.stream.send(&agentpb.Down{Frame: &agentpb.Down_Data{Data: p[:n]}}); err != nil {
			return written, c.x.lost(err)
		}
		c.x.transport.hub.metrics.up.Add(float64(n))
		written, p = written+n, p[n:]
	}
	return written, nil
}

// CloseWrite says that nothing more is written; what the target writes still comes.
func (c *Conn) CloseWrite() error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.ended {
		return nil
	}
	c.ended = true
	if err := c.x.stream.send(&agentpb.Down{Frame: &agentpb.Down_End{End: &agentpb.End{}}}); err != nil {
		return c.x.lost(err)
	}
	return nil
}

// LocalAddr and RemoteAddr name the tunnel; there is no address of its own.
func (c *Conn) LocalAddr() net.Addr  { return through{"towpath"} }
func (c *Conn) RemoteAddr() net.Addr { return through{c.x.transport.key.agent} }

// SetDeadline, SetReadDeadline and SetWriteDeadline fail: see Conn.
func (c *Conn) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (c *Conn) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (c *Conn) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

// through is an end of a tunnel by its agent's name.
type through struct{ name string }

func (t through) Network() string { return "tunnel" }
func (t through) String() string  { return t.name }
