package agent_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"

	"towpath/agent/agentpb"
	"towpath/agent/edge"
	"towpath/agent/hub"
	"towpath/agent/wire"
)

// Inputs are frames one after the other, each after its length in two bytes. The first byte says on which stream they are sent.
const (
	onRelay = iota
	onControl
	asHello
	streams
)

func split(input []byte) (stream byte, frames [][]byte) {
	if len(input) == 0 {
		return onRelay, nil
	}
	stream, input = input[0]%streams, input[1:]
	for len(input) >= 2 && len(frames) < 50 {
		n := min(int(input[0])<<8|int(input[1]), len(input)-2)
		frames, input = append(frames, input[2:2+n]), input[2+n:]
	}
	return stream, frames
}

func join(stream byte, frames ...[]byte) []byte {
	input := []byte{stream}
	for _, frame := range frames {
		input = append(append(input, byte(len(frame)>>8), byte(len(frame))), frame...)
	}
	return input
}

// FuzzUp: whatever an agent sends, the hub's caller gets an answer or an error, and nothing of the session stays.
func FuzzUp(f *testing.F) {
	up := func(u *agentpb.Up) []byte { return frame(u) }
	data := func(text string) []byte { return up(&agentpb.Up{Frame: &agentpb.Up_Data{Data: []byte(text)}}) }
	answer := func(s *agentpb.Status) []byte { return up(&agentpb.Up{Frame: &agentpb.Up_Status{Status: s}}) }
	end := func(h ...*agentpb.Header) []byte {
		return up(&agentpb.Up{Frame: &agentpb.Up_End{End: &agentpb.End{Trailer: h}}})
	}
	bad := &agentpb.Header{Name: "X\r\nEvil", Value: []byte("\n")}
	for _, seed := range [][]byte{
		join(onRelay, answer(&agentpb.Status{Code: 200, Length: 5}), data("12345"), end()),
		join(onRelay, answer(&agentpb.Status{Code: 200, Length: 5}), data("123"), end()),
		join(onRelay, answer(&agentpb.Status{Code: 200, Length: 5}), data("123456")),
		join(onRelay, answer(&agentpb.Status{Code: 200, Length: -1}), data(""), data("x"), end(bad)),
		join(onRelay, answer(&agentpb.Status{Code: 200, Header: []*agentpb.Header{bad}})),
		join(onRelay, answer(&agentpb.Status{Code: 101})),
		join(onRelay, answer(&agentpb.Status{Code: 4_000_000_000, Length: -9e15})),
		join(onRelay, answer(&agentpb.Status{Code: 200}), answer(&agentpb.Status{Code: 200})),
		join(onRelay, answer(&agentpb.Status{Code: 200, Length: 9e18}), data("x")),
		join(onRelay, data("first")), join(onRelay, end()), join(onRelay, []byte{0xff, 0xff, 0xff}), join(onRelay, []byte{0x12, 0x05, 'x'}), join(onRelay),
		join(onRelay, up(&agentpb.Up{Frame: &agentpb.Up_Reset_{Reset_: &agentpb.Reset{Code: 99, Message: strings.Repeat("x", 5000)}}})),
		join(onRelay, up(&agentpb.Up{Frame: &agentpb.Up_Beat{}}), nil, answer(&agentpb.Status{Code: 204}), end()),
		join(onRelay, answer(&agentpb.Status{Code: 200, Length: 1}), []byte{0x12, 0x81, 0x00, 'x'}, end()),
		join(onControl, frame(&agentpb.AgentNote{Note: &agentpb.AgentNote_Hello{}})),
		join(onControl, frame(&agentpb.AgentNote{Note: &agentpb.AgentNote_Token{}}), frame(&agentpb.AgentNote{Note: &agentpb.AgentNote_Draining{}}), nil),
		join(onControl, []byte{0xff}),
		join(asHello, frame(&agentpb.AgentNote{Note: &agentpb.AgentNote_Hello{Hello: &agentpb.Hello{Agent: "prod", Instance: "other", Protocol: 1}}})),
		join(asHello, []byte{0x0a}), join(asHello, nil),
	} {
		f.Add(seed)
	}
	a := newHostileAgent(f, hub.Limits{Hello: time.Second, Wait: 50 * time.Millisecond})
	client := &http.Client{Transport: a.hub.Transport("t", "prod")}
	f.Fuzz(func(t *testing.T, input []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		where, frames := split(input)
		session, leave := context.WithCancel(ctx)
		defer leave()
		var first []byte
		if where == asHello && len(frames) > 0 {
			first = append([]byte{}, frames[0]...)
		}
		control, meta, err := a.begin(session, first)
		if err == nil {
			rpc, err := a.conn.NewStream(meta, bothWays, relayMethod)
			ok(t, err)
			go func() {
				var head []byte
				if rpc.RecvMsg(&head) == nil {
					for _, frame := range frames {
						if where == onControl {
							_ = control.SendMsg(frame)
						} else {
							_ = rpc.SendMsg(frame)
						}
					}
				}
				leave() // and the agent is gone
			}()
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://x/api", strings.NewReader("body"))
		ok(t, err)
		response, text, err := read(client.Do(request))
		if err != nil {
			var failed *hub.Error
			if !errors.As(err, &failed) {
				t.Errorf("the caller gets %v", err)
			}
		} else if response.ContentLength >= 0 && int64(len(text)) != response.ContentLength {
			t.Errorf("%d bytes of %d, and no error", len(text), response.ContentLength)
		}
		leave()
		for len(a.hub.Agents()) > 0 {
			if ctx.Err() != nil {
				t.Fatalf("what stays: %+v", a.hub.Agents())
			}
			time.Sleep(time.Millisecond)
		}
	})
}

// FuzzDown: whatever a hub sends, the agent goes on, asks its API server for nothing that was not a whole request, and stops when it is to.
func FuzzDown(f *testing.F) {
	down := func(d *agentpb.Down) []byte { return frame(d) }
	head := func(h *agentpb.Head) []byte { return down(&agentpb.Down{Frame: &agentpb.Down_Head{Head: h}}) }
	get := &agentpb.Head{Request: "1", Target: wire.Kubernetes, Method: "GET", Path: "/api"}
	post := &agentpb.Head{Request: "1", Target: wire.Kubernetes, Method: "POST", Path: "/api", HasBody: true, Length: 4}
	data := down(&agentpb.Down{Frame: &agentpb.Down_Data{Data: []byte("body")}})
	end := down(&agentpb.Down{Frame: &agentpb.Down_End{}})
	note := func(n *agentpb.HubNote) []byte { return frame(n) }
	for _, seed := range [][]byte{
		join(onRelay, head(get)), join(onRelay, head(post), data, end), join(onRelay, head(post), data, data, data, end, end), join(onRelay, head(post), end), join(onRelay, head(post)),
		join(onRelay, head(get), head(get)), join(onRelay, head(post), head(post)), join(onRelay, data, end, data), join(onRelay, nil, []byte{0xff, 0xff}), join(onRelay, []byte{0x0a, 0x7f, 0x01}),
		join(onRelay, head(&agentpb.Head{})), join(onRelay, head(&agentpb.Head{Target: wire.Kubernetes, Method: "CONNECT", Path: "x:1"})),
		join(onRelay, head(&agentpb.Head{Target: wire.Kubernetes, Method: "GET", Path: "/../x"})),
		join(onRelay, head(&agentpb.Head{Target: wire.Kubernetes, Method: "GET", Path: "/", Timeout: &durationpb.Duration{Seconds: -1 << 60, Nanos: 1 << 30}})),
		join(onRelay, head(&agentpb.Head{Target: wire.Kubernetes, Method: "GET", Path: "/", Header: []*agentpb.Header{{Name: "a b", Value: []byte("\r\n")}}})),
		join(onRelay, head(&agentpb.Head{Target: wire.Kubernetes, Method: "POST", Path: "/", HasBody: true, Length: -1 << 62}), data, end),
		join(onRelay, head(&agentpb.Head{Target: wire.Kubernetes, Method: "GET", Path: "/", Upgrade: true, Header: []*agentpb.Header{{Name: "Upgrade", Value: []byte("x")}}}), data, end),
		join(onControl, note(&agentpb.HubNote{Note: &agentpb.HubNote_WantIdle{WantIdle: 1 << 31}}), note(&agentpb.HubNote{Note: &agentpb.HubNote_WantIdle{}})),
		join(onControl, note(&agentpb.HubNote{Note: &agentpb.HubNote_Drain{}}), note(&agentpb.HubNote{Note: &agentpb.HubNote_Drain{Drain: &agentpb.Drain{Within: &durationpb.Duration{Seconds: 1 << 62}}}})),
		join(onControl, note(&agentpb.HubNote{Note: &agentpb.HubNote_Refuse{}})), join(onControl, note(&agentpb.HubNote{Note: &agentpb.HubNote_Welcome{}}), nil, []byte{0xff}),
	} {
		f.Add(seed)
	}
	var broken atomic.Int64
	k := cluster(f, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "..") || r.Method == http.MethodConnect {
			broken.Add(1)
		}
		_, _ = io.Copy(io.Discard, r.Body)
	})
	idle := make(chan *relayed)
	agents := 0
	h := newHostileHub(f, k, func(r *relayed) error {
		select {
		case idle <- r:
			<-r.done
		case <-r.drain:
		case <-r.Context().Done():
		}
		return nil
	})
	f.Fuzz(func(t *testing.T, input []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		where, frames := split(input)
		agents++
		h.config.Instance = fmt.Sprint("prod-", agents)
		stop := h.run(t, edge.Timing{Beat: 10 * time.Millisecond, Drain: 10 * time.Millisecond})
		take := func() (*relayed, func()) {
			for {
				r := next(t, ctx, idle, "a stream of the agent")
				if meta, _ := metadata.FromIncomingContext(r.Context()); slices.Equal(meta.Get(wire.MetaInstance), []string{h.config.Instance}) {
					return r, func() { close(r.done) }
				}
				close(r.done) // of the agent before
			}
		}
		r, retire := take()
		if where != onRelay {
			for _, frame := range frames {
				select {
				case h.notes <- frame:
				case <-r.Context().Done(): // the session has ended
				case <-ctx.Done():
					t.Error("the agent hears no more, and is still there")
				}
			}
		} else {
			for _, frame := range frames {
				if r.send(frame) != nil {
					break
				}
			}
			good, retire := take() // the others are served
			ok(t, good.send(head(get)))
			for {
				up, err := good.receive()
				ok(t, err)
				if up.GetEnd() != nil {
					break
				}
			}
			retire()
		}
		retire()
		ok(t, stop())
		if broken.Load() > 0 {
			t.Error("a request that was none reached the API server")
		}
	})
}
