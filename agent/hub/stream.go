package hub

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"towpath/agent/agentpb"
	"towpath/agent/wire"
)

// stream is one Relay call: it waits in its session's pool, or carries one request. While it carries one, the request's goroutines send and receive
// on rpc; finish ends the call, whereupon their sends and receives fail.
type stream struct {
	session *session
	rpc     grpc.BidiStreamingServer[agentpb.Up, agentpb.Down]

	once sync.Once
	done chan struct{}
	err  error // what the agent gets; set before done is closed
}

// finish ends the call, once: nil retires it, an error cancels what the agent does.
func (st *stream) finish(err error) {
	st.once.Do(func() {
		st.err = err
		close(st.done)
	})
}

// alive is false once the agent, or finish, ended the call.
func (st *stream) alive() bool {
	select {
	case <-st.done:
		return false
	default:
		return st.rpc.Context().Err() == nil
	}
}

// Relay serves one stream of an agent's pool for as long as it lives.
func (h *Hub) Relay(rpc grpc.BidiStreamingServer[agentpb.Up, agentpb.Down]) error {
	c, err := h.authenticate(rpc.Context())
	if err != nil {
		return err
	}
	st := &stream{rpc: rpc, done: make(chan struct{})}
	if err := h.join(st, c); err != nil {
		return err
	}
	defer h.leave(st)
	if err := h.offer(st); err != nil {
		return err
	}
	select {
	case <-st.done:
		return st.err
	case <-rpc.Context().Done():
		return status.FromContextError(rpc.Context().Err()).Err()
	case <-st.session.ended:
		return refusal(st.session.why.grpc, "%s", st.session.why.message)
	}
}

// join finds the session that a stream names.
func (h *Hub) join(st *stream, c caller) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.sessions[c.session]
	if s == nil || s.key != (key{c.Tenant, c.Agent}) || s.instance != c.instance || s.subject != c.Subject {
		return refusal(codes.FailedPrecondition, "agent %q, instance %q has no session %.40q here", c.Agent, c.instance, c.session)
	}
	if s.streams >= h.limits.Streams {
		return refusal(codes.ResourceExhausted, "the session has %d streams, which is the most", s.streams)
	}
	if len(s.idle) >= s.want && len(h.agents[s.key].waiters) == 0 && !s.spare.AllowN(h.now(), 1) {
		return refusal(codes.ResourceExhausted, "%d streams wait already, and more come than %d a second", len(s.idle), h.limits.SpareStreams)
	}
	st.session = s
	s.streams++
	return nil
}

func (h *Hub) leave(st *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := st.session
	s.streams--
	if i := slices.Index(s.idle, st); i >= 0 {
		s.idle = slices.Delete(s.idle, i, i+1)
	}
}

// waiter is a request that waits for a stream.
type waiter struct {
	avoid *session
	got   chan *stream // capacity 1
}

// offer hands a stream that carries nothing to the first request that waits, or puts it in the pool.
func (h *Hub) offer(st *stream) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := st.session
	if !s.serves() {
		return refusal(codes.Unavailable, "the session takes no new requests")
	}
	a := h.agents[s.key]
	for i, w := range a.waiters {
		if w.avoid != s {
			a.waiters = slices.Delete(a.waiters, i, i+1)
			s.running++
			w.got <- st
			return nil
		}
	}
	s.idle = append(s.idle, st)
	return nil
}

// release is called when a request no longer uses its stream, whatever became of it.
func (h *Hub) release(st *stream, reusable bool) {
	h.mu.Lock()
	st.session.running--
	st.session.noteQuiet()
	h.mu.Unlock()
	if !reusable {
		return
	}
	if err := h.offer(st); err != nil {
		st.finish(nil)
	}
}

// take finds an idle stream of the least busy session; called with Hub.mu held.
func (a *agent) take(avoid *session) *stream {
	var best *session
	for _, s := range a.sessions {
		for len(s.idle) > 0 && !s.idle[len(s.idle)-1].alive() {
			s.idle = s.idle[:len(s.idle)-1]
		}
		if s != avoid && len(s.idle) > 0 && s.serves() && (best == nil || s.running < best.running) {
			best = s
		}
	}
	if best == nil {
		return nil
	}
	st := best.idle[len(best.idle)-1]
	best.idle = best.idle[:len(best.idle)-1]
	best.running++
	return st
}

// acquire takes a stream for a request, waiting for an agent that is away. It fails with an *Error or ctx's.
func (h *Hub) acquire(ctx context.Context, k key, avoid *session) (*stream, error) {
	h.mu.Lock()
	if h.draining {
		h.mu.Unlock()
		return nil, &Error{Code: NoAgent, Message: "the hub stops"}
	}
	a := h.group(k)
	if st := a.take(avoid); st != nil {
		h.mu.Unlock()
		return st, nil
	}
	if len(a.waiters) >= h.limits.WaitingAgents {
		h.mu.Unlock()
		return nil, &Error{Code: Busy, Message: fmt.Sprintf("%d requests wait for it already", len(a.waiters))}
	}
	w := &waiter{avoid: avoid, got: make(chan *stream, 1)}
	a.waiters = append(a.waiters, w)
	var least *session
	for _, s := range a.sessions {
		if s.serves() && (least == nil || s.running < least.running) {
			least = s
		}
	}
	if least != nil {
		least.press(len(a.waiters))
	}
	h.mu.Unlock()

	began := time.Now()
	defer func() { h.metrics.waits.Observe(time.Since(began).Seconds()) }()
	patience := time.NewTimer(h.limits.Wait)
	defer patience.Stop()
	var err error
	select {
	case st := <-w.got:
		return st, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-patience.C:
	case <-h.closed:
		err = &Error{Code: NoAgent, Message: "the hub stops"}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := slices.Index(a.waiters, w); i >= 0 {
		a.waiters = slices.Delete(a.waiters, i, i+1)
	}
	connected := a.connected()
	h.forget(k)
	select {
	case st := <-w.got: // it came in the last moment
		return st, nil
	default:
	}
	switch {
	case err != nil:
		return nil, err
	case connected:
		return nil, &Error{Code: Busy, Message: fmt.Sprintf("no stream was free within %s", h.limits.Wait)}
	}
	return nil, &Error{Code: NoAgent, Message: fmt.Sprintf("it is not connected, and did not connect within %s", h.limits.Wait)}
}

// send puts a frame on the wire.
func (st *stream) send(frame any) error { return st.rpc.SendMsg(frame) }

// receive reads the next frame that says something: beats and frames of a later protocol are passed over.
func (st *stream) receive() (*wire.Frame, error) {
	frame := &wire.Frame{Message: &agentpb.Up{}}
	for {
		if err := st.rpc.RecvMsg(frame); err != nil {
			return nil, err
		}
		if frame.Data != nil {
			return frame, nil
		}
		switch frame.Message.(*agentpb.Up).GetFrame().(type) {
		case nil, *agentpb.Up_Beat:
		default:
			return frame, nil
		}
	}
}
