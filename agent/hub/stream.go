package hub

import (
	"context"
	"errors"
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

// waiter is a request that waits for a way to its agent.
type waiter struct {
	avoid []string // sessions
	only  *session // that very one, admitted or not
	here  bool     // another hub's: it waits for a stream, but for no session
	got   chan way // capacity 1
}

// way is what a request that waited is given: a stream, which is its own from then on, or the hub where the agent is. The zero way leads nowhere.
type way struct {
	stream *stream
	place  Place
}

// offer hands a stream that carries nothing to the first request that waits, or puts it in the pool.
func (h *Hub) offer(st *stream) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := st.session
	if !s.serves() {
		return refusal(codes.Unavailable, "the session takes no new requests")
	}
	if !h.give(h.agents[s.key], st) {
		s.idle = append(s.idle, st)
	}
	return nil
}

// give hands a stream to the first request that waits for one like it; called with mu held.
func (h *Hub) give(a *agent, st *stream) bool {
	s := st.session
	for i, w := range a.waiters {
		if s.may(w.avoid, w.only) {
			a.waiters = slices.Delete(a.waiters, i, i+1)
			s.running++
			w.got <- way{stream: st}
			return true
		}
	}
	return false
}

// may reports whether a request may use the session: one that was admitted, and none of those to be avoided; or the only one that the request is for.
func (s *session) may(avoid []string, only *session) bool {
	if only != nil {
		return s == only
	}
	return s.admitted && !slices.Contains(avoid, s.id)
}

// release is called when a request no longer uses its stream, whatever became of it.
func (st *stream) release(reusable bool) {
	h := st.session.hub
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
func (a *agent) take(avoid []string, only *session) *stream {
	var best *session
	for _, s := range a.sessions {
		for len(s.idle) > 0 && !s.idle[len(s.idle)-1].alive() {
			s.idle = s.idle[:len(s.idle)-1]
		}
		if s.may(avoid, only) && len(s.idle) > 0 && s.serves() && (best == nil || s.running < best.running) {
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

// errElsewhere is what another hub gets that looks for an agent here in vain.
var errElsewhere = errors.New("the agent is not connected to this hub")

// wait gives a request a way to its agent as soon as there is one. It fails with an *Error or ctx's; with NO_AGENT or BUSY once patience is over; another hub's
// with errElsewhere as soon as the agent is not connected here.
func (h *Hub) wait(ctx context.Context, k key, w *waiter, patience <-chan time.Time) (way, error) {
	w.got = make(chan way, 1)
	h.mu.Lock()
	a := h.group(k)
	found, err := h.atOnce(a, w)
	if found != (way{}) || err != nil {
		h.forget(k)
		h.mu.Unlock()
		return found, err
	}
	a.waiters = append(a.waiters, w)
	var least *session
	for _, s := range a.sessions {
		if s.may(nil, w.only) && s.serves() && (least == nil || s.running < least.running) {
			least = s
		}
	}
	if least != nil {
		least.press(len(a.waiters))
	}
	h.seek(k, a)
	h.mu.Unlock()

	began := time.Now()
	defer func() { h.metrics.waits.Observe(time.Since(began).Seconds()) }()
	select {
	case found := <-w.got:
		return found, found.orNowhere()
	case <-ctx.Done():
		err = ctx.Err()
	case <-patience:
	case <-h.closed:
		err = &Error{Code: NoAgent, Message: "the hub stops"}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := slices.Index(a.waiters, w); i >= 0 {
		a.waiters = slices.Delete(a.waiters, i, i+1)
	}
	connected := a.connected(w.avoid)
	h.forget(k)
	select {
	case found := <-w.got: // it came in the last moment
		return found, found.orNowhere()
	default:
	}
	switch {
	case err != nil:
		return way{}, err
	case connected:
		return way{}, &Error{Code: Busy, Message: fmt.Sprintf("no stream was free within %s", h.limits.Wait)}
	}
	return way{}, &Error{Code: NoAgent, Message: fmt.Sprintf("it is not connected, and did not connect within %s", h.limits.Wait)}
}

// atOnce is the way that is there already, or why none will be; neither, and the request has to wait. It is called with mu held.
func (h *Hub) atOnce(a *agent, w *waiter) (way, error) {
	if h.down || h.draining && (h.peers == nil || w.here || w.only != nil) {
		return way{}, &Error{Code: NoAgent, Message: "the hub stops"}
	}
	if st := a.take(w.avoid, w.only); st != nil {
		return way{stream: st}, nil
	}
	connected := a.connected(w.avoid)
	if w.here && !connected {
		return way{}, errElsewhere
	}
	if place, ok := h.elsewhere(a, w); ok && !connected {
		return way{place: place}, nil
	}
	if len(a.waiters) >= h.limits.WaitingAgents {
		return way{}, &Error{Code: Busy, Message: fmt.Sprintf("%d requests wait for it already", len(a.waiters))}
	}
	return way{}, nil
}

// orNowhere is the error of a way that leads nowhere.
func (w way) orNowhere() error {
	if w == (way{}) {
		return errElsewhere
	}
	return nil
}

// turnAway ends the waits of other hubs for an agent that is no longer connected here; called with mu held.
func (a *agent) turnAway() {
	if a.connected(nil) {
		return
	}
	a.waiters = slices.DeleteFunc(a.waiters, func(w *waiter) bool {
		if w.here {
			w.got <- way{}
		}
		return w.here
	})
}

// send puts a frame on the wire.
func (st *stream) send(frame any) error { return st.rpc.SendMsg(frame) }

// receive reads the next frame that says something.
func (st *stream) receive() (*wire.Frame, error) { return telling(st.rpc.RecvMsg) }

// telling receives the next frame that says something: beats and frames of a later protocol are passed over.
func telling(receive func(frame any) error) (*wire.Frame, error) {
	frame := &wire.Frame{Message: &agentpb.Up{}}
	for {
		if err := receive(frame); err != nil {
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

// id names the session, for a request that is to avoid it the next time.
func (st *stream) id() string { return st.session.id }

func (st *stream) upgrades() bool { return slices.Contains(st.session.features, wire.FeatureUpgrade) }

// broke says why the stream has ended, of which err is all that gRPC knows.
func (st *stream) broke(err error) (Code, string) {
	select {
	case <-st.session.ended:
		return st.session.why.code, st.session.why.message
	default:
	}
	if s := status.Convert(err); s.Code() == codes.ResourceExhausted || s.Code() == codes.Internal {
		return Lost, s.Message()
	}
	return Lost, "the connection broke"
}

// blame ends the session of an agent that does not keep to the wire.
func (st *stream) blame(what string) {
	st.session.end(&ending{reason: "malformed", code: Lost, grpc: codes.InvalidArgument, message: "the agent sent a frame that is malformed: " + what})
}
