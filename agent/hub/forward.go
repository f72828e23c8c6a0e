package hub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"towpath/agent/agentpb"
	"towpath/agent/wire"
)

// forward is a request that travels on a stream of another hub's agent. It implements carrier.
type forward struct {
	hub      *Hub
	rpc      grpc.BidiStreamingClient[agentpb.Down, agentpb.Up]
	cancel   context.CancelFunc
	place    Place
	session  string // the one that the other hub chose
	features []string
}

// acquire takes what carries a request: a stream of a session here, else of one at another hub; it waits for an agent that is away. It fails with an *Error
// or ctx's.
func (t *Transport) acquire(ctx context.Context, avoid []string) (carrier, error) {
	h := t.hub
	patience := time.NewTimer(h.limits.Wait)
	defer patience.Stop()
	var unreached error
	for {
		found, err := h.wait(ctx, t.key, &waiter{avoid: avoid, only: t.only}, patience.C)
		switch {
		case is(err, NoAgent) && unreached != nil:
			return nil, &Error{Code: NoAgent, Message: unreached.Error()}
		case err != nil:
			return nil, err
		case found.stream != nil:
			return found.stream, nil
		}
		f, err := h.forward(ctx, t.key, found.place, avoid)
		switch {
		case err == nil:
			return f, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case is(err, Busy):
			return nil, err
		case !errors.Is(err, errElsewhere):
			unreached = err
		}
		avoid = append(slices.Clip(avoid), found.place.Session) // its agent comes back by another one
		h.lose(t.key, found.place)
	}
}

// forward asks another hub for a stream of its agent. It fails with errElsewhere when the agent is not there, with BUSY when no stream is free, and else
// because the hub cannot be reached.
func (h *Hub) forward(ctx context.Context, k key, place Place, avoid []string) (_ *forward, err error) {
	f := &forward{hub: h, place: place}
	life, cancel := context.WithCancel(h.life)
	f.cancel = cancel
	h.mu.Lock()
	conn, err := h.connection(place.Address)
	if err != nil {
		h.mu.Unlock()
		cancel()
		return nil, fmt.Errorf("the replica at %s: %w", place.Address, err)
	}
	h.peers.running[place.Address]++
	h.peers.total++
	h.mu.Unlock()
	defer func() {
		if err != nil {
			f.release(false)
		}
	}()
	defer context.AfterFunc(ctx, cancel)()

	pairs := metadata.Pairs(wire.MetaTenant, k.tenant, wire.MetaAgent, k.agent)
	pairs.Append(wire.MetaAvoid, avoid...)
	if f.rpc, err = agentpb.NewPeersClient(conn).Forward(metadata.NewOutgoingContext(life, pairs)); err != nil {
		return nil, refusedBy(place, err)
	}
	header, err := f.rpc.Header()
	if session := header.Get(wire.MetaSession); err == nil && len(session) == 1 {
		f.session, f.features = session[0], header.Get(wire.MetaFeature)
		return f, nil
	}
	if err == nil { // it ended without
		_, err = f.receive()
	}
	return nil, refusedBy(place, err)
}

// refusedBy is what it means that another hub carries no request.
func refusedBy(place Place, err error) error {
	s := status.Convert(err)
	switch s.Code() {
	case codes.NotFound:
		return errElsewhere
	case codes.ResourceExhausted:
		return &Error{Code: Busy, Message: s.Message()}
	}
	return fmt.Errorf("it is connected to the replica at %s, which cannot be reached (peers.address, network policies, and one keyFile for all replicas): %s", place.Address, s.Message())
}

func (f *forward) send(frame any) error { return f.rpc.SendMsg(frame) }

func (f *forward) receive() (*wire.Frame, error) { return telling(f.rpc.RecvMsg) }

// finish ends the call, and with it what the agent does.
func (f *forward) finish(error) { f.cancel() }

func (f *forward) release(bool) {
	f.cancel()
	h := f.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.peers.running[f.place.Address]--; h.peers.running[f.place.Address] == 0 {
		delete(h.peers.running, f.place.Address)
	}
	if h.peers.total--; h.peers.total == 0 && h.peers.last != nil {
		close(h.peers.last)
		h.peers.last = nil
	}
}

func (f *forward) id() string { return f.session }

func (f *forward) upgrades() bool { return slices.Contains(f.features, wire.FeatureUpgrade) }

func (f *forward) broke(err error) (Code, string) {
	if f.hub.life.Err() != nil {
		return Drain, "the hub stops"
	}
	return Lost, fmt.Sprintf("the connection to the replica at %s broke (%s)", f.place.Address, status.Convert(err).Message())
}

// blame does nothing: the request fails, and the session is the other hub's to judge.
func (f *forward) blame(string) {}
