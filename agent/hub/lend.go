package hub

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"towpath/agent/agentpb"
	"towpath/agent/wire"
)

// forwards serves requests of other hubs. It is no part of what agents are served.
type forwards struct {
	agentpb.UnimplementedPeersServer
	hub *Hub
}

// Forward lends a stream of a session here to a request of another hub.
func (s *forwards) Forward(rpc grpc.BidiStreamingServer[agentpb.Down, agentpb.Up]) error {
	h := s.hub
	meta, _ := metadata.FromIncomingContext(rpc.Context())
	tenant, agent := meta.Get(wire.MetaTenant), meta.Get(wire.MetaAgent)
	if len(tenant) != 1 || len(agent) != 1 {
		return refusal(codes.InvalidArgument, "a forward names one tenant (%s) and one agent (%s)", wire.MetaTenant, wire.MetaAgent)
	}
	patience := time.NewTimer(h.limits.Wait)
	defer patience.Stop()
	found, err := h.wait(rpc.Context(), key{tenant[0], agent[0]}, &waiter{avoid: meta.Get(wire.MetaAvoid), here: true}, patience.C)
	var failed *Error
	switch {
	case err == nil:
	case errors.Is(err, errElsewhere):
		return refusal(codes.NotFound, "%v", err)
	case errors.As(err, &failed) && failed.Code == Busy:
		return refusal(codes.ResourceExhausted, "%s", failed.Message)
	case errors.As(err, &failed): // the hub stops
		return refusal(codes.NotFound, "%s", failed.Message)
	default:
		return refusal(codes.Canceled, "the request was given up")
	}
	l := &loan{hub: h, rpc: rpc, stream: found.stream, returned: make(chan struct{})}
	header := metadata.Pairs(wire.MetaSession, l.stream.session.id)
	header.Append(wire.MetaFeature, l.stream.session.features...)
	if err := rpc.SendHeader(header); err != nil || !h.spawn(l.down) {
		l.stream.release(true) // nothing was sent on it
		return refusal(codes.Canceled, "the request was given up")
	}
	l.heed = context.AfterFunc(rpc.Context(), func() { l.stream.finish(refusal(codes.Canceled, "the request was given up")) })
	l.stream.release(l.up())
	l.heed()
	return nil
}

// loan is a stream of an agent that carries another hub's request: frames go on as they come, each only once the one before is taken, so that whoever is slow
// slows down the other end and nothing is kept here. One goroutine carries each direction.
type loan struct {
	hub      *Hub
	rpc      grpc.BidiStreamingServer[agentpb.Down, agentpb.Up]
	stream   *stream
	heed     func() bool   // stops heeding that the other hub gives up
	returned chan struct{} // closed when down has ended

	sent   atomic.Bool // the agent has the request's head
	ending atomic.Bool // only End is left to send
	whole  bool        // the agent has all of the request, and the stream may carry another; set before returned is closed
}

// down carries the request to the agent, until its end.
func (l *loan) down() {
	defer close(l.returned)
	frame, upgraded := &wire.Frame{Message: &agentpb.Down{}}, false
	for {
		if err := l.rpc.RecvMsg(frame); err != nil {
			l.stream.finish(refusal(codes.Canceled, "the request was given up"))
			return
		}
		last := false
		if frame.Data == nil {
			switch down := frame.Message.(*agentpb.Down).GetFrame().(type) {
			case *agentpb.Down_Head:
				last, upgraded = !down.Head.GetHasBody(), down.Head.GetUpgrade()
				l.sent.Store(true)
			case *agentpb.Down_End:
				last = true
			}
		}
		l.ending.Store(last)
		if l.stream.send(frame) != nil {
			return // up learns why
		}
		if last {
			l.whole = !upgraded
			return
		}
	}
}

// up carries the answer to the other hub, and reports whether both sides have come to their ends, so that the stream may carry another request.
func (l *loan) up() (complete bool) {
	frame := &wire.Frame{Message: &agentpb.Up{}}
	for {
		if err := l.stream.rpc.RecvMsg(frame); err != nil {
			code, message := l.stream.broke(err)
			reset := &agentpb.Reset{Code: code.wire(), Message: fmt.Sprintf("%.2000s", message), Sent: l.sent.Load()}
			_ = l.rpc.SendMsg(&agentpb.Up{Frame: &agentpb.Up_Reset_{Reset_: reset}}) // whoever gave up hears nothing
			l.stream.finish(nil)
			return false
		}
		ended := false
		if frame.Data == nil {
			switch frame.Message.(*agentpb.Up).GetFrame().(type) {
			case *agentpb.Up_End:
				ended = true
			case *agentpb.Up_Reset_:
				_ = l.rpc.SendMsg(frame)
				l.stream.finish(nil)
				return false
			}
		}
		if ended && l.ending.Load() {
			<-l.returned                   // the agent may answer End before down has come back from sending it
			complete = l.whole && l.heed() // the other hub ends its call as soon as it has End
		}
		if l.rpc.SendMsg(frame) != nil {
			l.stream.finish(refusal(codes.Canceled, "the request was given up"))
			return false
		}
		if ended {
			if !complete { // an early answer: the rest of the request goes nowhere
				l.stream.finish(nil)
			}
			return complete
		}
	}
}
