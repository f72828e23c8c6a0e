package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"towpath/agent/agentpb"
	"towpath/agent/wire"
)

// Transport sends requests through an agent. Of a request's URL only path and query count: host and scheme are those of the target. It keeps no state
// of its own, so make as many as you like; safe for concurrent use.
type Transport struct {
	hub    *Hub
	key    key
	target string
	visits bool
	only   *session // requests use this one, admitted or not; nil: any that was admitted
}

// Option changes a Transport.
type Option func(*Transport)

// Target sends to an entry of the agent's allow-list in place of its API server.
func Target(name string) Option {
	return func(t *Transport) { t.target = name }
}

// Visits has the target told of the address that a visitor asked for, by X-Forwarded-Host and X-Forwarded-Proto. Agents of earlier releases leave them out.
func Visits() Option {
	return func(t *Transport) { t.visits = true }
}

// Transport gives the way to an agent, connected or not: a request goes to a session here, with Config.Peers else to another hub that has one, and waits for
// an agent that is away up to Limits.Wait. Failures of the tunnel are *Error, from RoundTrip and from reading the body. A request that has surely not reached its target, and a GET or HEAD that got no answer, is sent
// once more before it fails: over another session or, where a connection broke and there is no other, over the same one.
func (h *Hub) Transport(tenant, agent string, options ...Option) http.RoundTripper {
	t := &Transport{hub: h, key: key{tenant, agent}, target: wire.Kubernetes}
	for _, option := range options {
		option(t)
	}
	return t
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(request *http.Request) (*http.Response, error) {
	began := t.hub.now()
	response, err := t.roundTrip(request)
	t.hub.metrics.request(t, response, err, t.hub.now().Sub(began))
	return response, err
}

func (t *Transport) roundTrip(request *http.Request) (*http.Response, error) {
	ctx := request.Context()
	head, err := t.head(request)
	if err != nil {
		closeBody(request)
		return nil, t.name(err)
	}
	body := request.Body
	var avoid []string
	for attempt := 0; ; attempt++ {
		st, err := t.acquire(ctx, avoid)
		if err != nil {
			closeBody(request)
			return nil, t.name(err)
		}
		if head.GetUpgrade() && !st.upgrades() {
			st.release(true)
			closeBody(request)
			return nil, t.name(&Error{Code: Unsupported, Message: "it carries no upgraded connections (exec, attach, port-forward): its release is older, or its configuration is readOnly"})
		}
		if deadline, ok := ctx.Deadline(); ok {
			head.Timeout = durationpb.New(max(time.Until(deadline), time.Millisecond))
		}
		response, err := t.exchange(st, request, head, body)
		t.hub.metrics.carried(t, st, response, err)
		if err == nil {
			return response, nil
		}
		err = t.name(err)
		if attempt > 0 || t.only != nil || ctx.Err() != nil || !again(request, err) {
			return nil, err
		}
		if avoid = []string{st.id()}; !is(err, Drain) && t.hub.nowhereElse(ctx, t.key, st.id()) {
			if !is(err, Lost) { // one connection has failed, to the agent or of the agent to its target, and the next one may be whole
				return nil, err
			}
			avoid = nil
		}
		if request.GetBody != nil {
			fresh, bodyErr := request.GetBody()
			if bodyErr != nil {
				return nil, err
			}
			body = fresh
		}
		t.hub.metrics.retries.Inc()
	}
}

// again reports whether a failed request may be sent once more without doing its work twice.
func again(request *http.Request, err error) bool {
	var failed *Error
	if !errors.As(err, &failed) {
		return false
	}
	switch failed.Code {
	case Busy, Dial, Drain, Lost:
	default:
		return false
	}
	if request.Body != nil && request.Body != http.NoBody && request.GetBody == nil {
		return false
	}
	return !failed.Sent || request.Method == http.MethodGet || request.Method == http.MethodHead
}

// is reports whether an error is the tunnel's, of a code.
func is(err error, code Code) bool {
	var failed *Error
	return errors.As(err, &failed) && failed.Code == code
}

// nowhereElse reports whether a session still serves its agent, and no other does, here or at another hub.
func (h *Hub) nowhereElse(ctx context.Context, k key, session string) bool {
	places := h.places(ctx, k)
	h.mu.Lock()
	defer h.mu.Unlock()
	var serving []string
	if a := h.agents[k]; a != nil {
		for _, s := range a.sessions {
			if s.admitted && s.serves() {
				serving = append(serving, s.id)
			}
		}
	}
	for _, p := range places {
		serving = append(serving, p.Session)
	}
	return len(serving) == 1 && serving[0] == session
}

// head is the request as the wire has it.
func (t *Transport) head(request *http.Request) (*agentpb.Head, error) {
	method := request.Method
	if method == "" {
		method = http.MethodGet
	}
	if err := wire.CheckMethod(method); err != nil {
		return nil, &Error{Code: Refused, Message: err.Error()}
	}
	path := request.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	if request.URL.RawQuery != "" || request.URL.ForceQuery {
		path += "?" + request.URL.RawQuery
	}
	if err := wire.CheckPath(path); err != nil {
		return nil, &Error{Code: Refused, Message: err.Error()}
	}
	headers, err := wire.ToWire(request.Header)
	if err != nil {
		return nil, &Error{Code: Unsupported, Message: err.Error()}
	}
	if t.visits {
		headers = wire.Forwarded(headers, request.Header)
	}
	head := &agentpb.Head{Request: newID(), Target: t.target, Method: method, Path: path, Header: headers}
	if protocol := request.Header.Get("Upgrade"); protocol != "" {
		if request.Body != nil && request.Body != http.NoBody {
			return nil, &Error{Code: Unsupported, Message: "a request that upgrades its connection has no body"}
		}
		head.Upgrade, head.Header, head.HasBody, head.Length = true, wire.Upgraded(headers, protocol), true, -1
	} else if request.Body != nil && request.Body != http.NoBody {
		head.HasBody, head.Length = true, request.ContentLength
		if head.Length == 0 {
			head.Length = -1 // net/http: a body and no length
		}
	}
	return head, nil
}

// name adds what the caller asked for to an error of the tunnel; others pass.
func (t *Transport) name(err error) error {
	var failed *Error
	if errors.As(err, &failed) {
		failed.Agent, failed.Target = t.key.agent, t.target
	}
	return err
}

func closeBody(request *http.Request) {
	if request.Body != nil {
		_ = request.Body.Close() // nothing is learned from it
	}
}

// carrier is what one request travels on: a stream of an agent that is connected here, or a forward to the hub where it is. finish ends it, whereupon
// sends and receives fail; release is the last call.
type carrier interface {
	send(frame any) error
	receive() (*wire.Frame, error)
	finish(err error)
	release(reusable bool)
	id() string
	upgrades() bool
	broke(err error) (Code, string)
	blame(what string)
}

// exchange is one request on one carrier.
type exchange struct {
	transport *Transport
	ctx       context.Context
	stream    carrier
	stopWatch func() bool // stops watching ctx
	upload    sync.WaitGroup
	ending    atomic.Bool // only End is left to send
	uploaded  atomic.Bool // the agent has all of the request
	uploadErr atomic.Pointer[error]
	body      io.ReadCloser
	over      sync.Once
}

// exchange sends a request and returns once its answer has begun. It owns body and the stream.
func (t *Transport) exchange(st carrier, request *http.Request, head *agentpb.Head, body io.ReadCloser) (*http.Response, error) {
	x := &exchange{transport: t, ctx: request.Context(), stream: st, body: body}
	x.stopWatch = context.AfterFunc(x.ctx, func() {
		st.finish(status.FromContextError(x.ctx.Err()).Err())
	})
	if err := st.send(&agentpb.Down{Frame: &agentpb.Down_Head{Head: head}}); err != nil {
		return nil, x.fail(&Error{Code: Lost, Message: "the connection broke before the request was sent"})
	}
	switch {
	case head.GetUpgrade(): // what the caller writes comes after the answer
	case head.GetHasBody():
		x.upload.Add(1)
		if !t.hub.spawn(func() { x.send(head.GetLength()) }) {
			x.upload.Done()
			return nil, x.fail(&Error{Code: Drain, Message: "the hub stops", Sent: true})
		}
	default:
		x.uploaded.Store(true)
		if body != nil {
			_ = body.Close()
		}
	}
	frame, err := st.receive()
	if err != nil {
		return nil, x.fail(x.lost(err))
	}
	if frame.Data == nil {
		switch answer := frame.Message.(*agentpb.Up).GetFrame().(type) {
		case *agentpb.Up_Status:
			return x.answer(request, answer.Status)
		case *agentpb.Up_Reset_:
			return nil, x.fail(x.reset(answer.Reset_))
		}
	} else {
		frame.Data.Free()
	}
	return nil, x.malformed("an answer must begin with its status")
}

// send is the upload: the request's body, then End; length is what the request says of the body, or less than 0.
func (x *exchange) send(length int64) {
	defer x.upload.Done()
	defer x.body.Close()
	n, err := x.transport.hub.codec.Copy(x.stream.send, &measured{x.body, length})
	x.transport.hub.metrics.up.Add(float64(n))
	var unreadable *wire.ReadError
	if errors.As(err, &unreadable) {
		x.uploadErr.Store(&unreadable.Err)
		x.stream.finish(refusal(codes.Canceled, "the request's body could not be read"))
		return
	}
	if err == nil {
		x.ending.Store(true)
		x.uploaded.Store(x.stream.send(&agentpb.Down{Frame: &agentpb.Down_End{End: &agentpb.End{}}}) == nil)
	}
}

// measured is a body that must have the length its request says, as net/http demands it.
type measured struct {
	io.Reader
	left int64 // less than 0: any
}

// Read implements io.Reader.
func (m *measured) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	if m.left < 0 {
		return n, err
	}
	if m.left -= int64(n); m.left < 0 {
		return 0, errors.New("the request's body is longer than its length")
	}
	if errors.Is(err, io.EOF) && m.left > 0 {
		return n, fmt.Errorf("the request's body ends %d bytes before its length: %w", m.left, io.ErrUnexpectedEOF)
	}
	return n, err
}

// answer makes the response of a Status.
func (x *exchange) answer(request *http.Request, st *agentpb.Status) (*http.Response, error) {
	header, err := wire.FromWire(st.GetHeader())
	if err != nil {
		return nil, x.malformed(err.Error())
	}
	code := int(st.GetCode())
	if protocol := wire.UpgradeOf(st.GetHeader()); code == http.StatusSwitchingProtocols && protocol != "" && request.Header.Get("Upgrade") != "" {
		wire.Upgrade(header, protocol)
		return &http.Response{Status: "101 Switching Protocols", StatusCode: code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: header, Request: request,
			Body: &Conn{body: &body{x: x, left: -1, trailer: http.Header{}}}}, nil
	}
	if code < 200 || code > 999 {
		return nil, x.malformed(fmt.Sprintf("an answer cannot have the status %d", code))
	}
	response := &http.Response{
		Status: fmt.Sprintf("%d %s", code, http.StatusText(code)), StatusCode: code, Proto: "HTTP/2.0", ProtoMajor: 2,
		Header: header, ContentLength: st.GetLength(), Trailer: http.Header{}, Request: request,
	}
	if response.ContentLength < 0 {
		response.ContentLength = -1
	}
	b := &body{x: x, left: response.ContentLength, trailer: response.Trailer}
	if response.ContentLength >= 0 {
		header.Set("Content-Length", fmt.Sprint(response.ContentLength))
	}
	if request.Method == http.MethodHead || code == http.StatusNoContent || code == http.StatusNotModified {
		b.left = 0
	}
	response.Body = b
	if b.left == 0 { // nothing to wait for but End, and so the stream is free before the caller closes the body
		if _, err := b.Read(make([]byte, 1)); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		response.Body = http.NoBody
	}
	return response, nil
}

// finish lets go of the stream: complete ones go back to the pool.
func (x *exchange) finish(complete bool) {
	x.over.Do(func() {
		if complete && x.ending.Load() {
			x.upload.Wait() // the agent may answer End before send has come back from sending it
		}
		reusable := complete && x.uploaded.Load() && x.stopWatch()
		if !reusable {
			x.stopWatch()
			if complete {
				x.stream.finish(nil) // an early answer: the agent has ended, the rest of the upload goes nowhere
			} else {
				x.stream.finish(refusal(codes.Canceled, "the request was given up"))
			}
			if x.body != nil {
				_ = x.body.Close() // an upload that waits for the caller's bytes ends
			}
		}
		x.stream.release(reusable)
	})
}

// fail ends the exchange with an error.
func (x *exchange) fail(err error) error {
	x.finish(false)
	return err
}

// malformed ends the session of an agent that does not keep to the wire.
func (x *exchange) malformed(what string) error {
	x.stream.blame(what)
	return x.fail(x.transport.name(&Error{Code: Lost, Message: "it answered in a way the hub does not understand: " + what, Sent: true}))
}

// reset is the error of a Reset.
func (x *exchange) reset(r *agentpb.Reset) error {
	return x.transport.name(&Error{Code: codeOf(r.GetCode()), Message: fmt.Sprintf("%.2000s", r.GetMessage()), Sent: r.GetSent()})
}

// lost is what the caller gets when the stream has ended under a request.
func (x *exchange) lost(err error) error {
	if ctxErr := x.ctx.Err(); ctxErr != nil {
		return ctxErr
	}
	if unreadable := x.uploadErr.Load(); unreadable != nil {
		return *unreadable
	}
	code, message := x.stream.broke(err)
	return x.transport.name(&Error{Code: code, Message: message, Sent: true})
}

// body is the answer's. One goroutine reads; Close may come from another.
type body struct {
	x       *exchange
	left    int64 // bytes to come; -1: not known
	trailer http.Header
	current mem.Buffer
	err     error
	closed  atomic.Bool
	reading sync.Mutex
}

// Read implements io.Reader. A tunnel that breaks is never io.EOF, unless the answer is a stream and the hub stops: then it ends between two frames, and
// watchers take up where they were.
func (b *body) Read(p []byte) (int, error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	for b.current == nil && b.err == nil {
		b.err = b.next()
	}
	if b.current == nil {
		return 0, b.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	var n int
	n, b.current = mem.ReadUnsafe(p, b.current)
	return n, nil
}

// next receives a frame; called with reading held.
func (b *body) next() error {
	frame, err := b.x.stream.receive()
	if err != nil {
		return b.x.fail(b.ended(b.x.lost(err)))
	}
	if frame.Data != nil {
		n := int64(frame.Data.Len())
		if b.left >= 0 && n > b.left {
			frame.Data.Free()
			return b.x.malformed("the body is longer than its length")
		}
		if b.left >= 0 {
			b.left -= n
		}
		if n == 0 {
			frame.Data.Free()
			return nil
		}
		b.x.transport.hub.metrics.down.Add(float64(n))
		b.current = frame.Data
		return nil
	}
	switch frame := frame.Message.(*agentpb.Up).GetFrame().(type) {
	case *agentpb.Up_End:
		if b.left > 0 {
			return b.x.malformed("the body is shorter than its length")
		}
		trailer, err := wire.FromWire(frame.End.GetTrailer())
		if err != nil {
			return b.x.malformed(err.Error())
		}
		for name, values := range trailer {
			b.trailer[name] = values
		}
		b.x.finish(true)
		return io.EOF
	case *agentpb.Up_Reset_:
		return b.x.fail(b.ended(b.x.reset(frame.Reset_)))
	}
	return b.x.malformed("a second status")
}

// ended makes a stream that a hub's or an agent's stop ended complete.
func (b *body) ended(err error) error {
	if is(err, Drain) && b.left < 0 {
		return io.EOF
	}
	return err
}

// Close implements io.Closer: what was not read is given up, and the agent's request cancelled.
func (b *body) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	if b.reading.TryLock() { // nobody waits in Read
		defer b.reading.Unlock()
		if b.current != nil {
			b.current.Free()
			b.current = nil
		}
		if b.left == 0 && b.err == nil { // all is here but End, which follows at once: worth it to keep the stream
			if b.x.transport.hub.spawn(func() {
				if b.next() == nil { // data of no bytes; not worth waiting further
					b.x.finish(false)
				}
			}) {
				return nil
			}
		}
	}
	b.x.finish(false)
	return nil
}
