package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	"towpath/agent/agentpb"
	"towpath/agent/wire"
)

// stream is one Relay call. Its reader never stops, because a cancelled call is reported to nobody else; each request has a goroutine beside it.
type stream struct {
	session *session
	rpc     grpc.BidiStreamingClient[agentpb.Up, agentpb.Down]

	sending  sync.Mutex
	lastSent time.Time // guarded by sending

	waiting bool // it carries nothing; guarded by session.mu
}

// errGone is a frame that could not be sent because the call has ended; its reader learns why.
var errGone = errors.New("the tunnel's stream has ended")

func (st *stream) send(frame any) error {
	st.sending.Lock()
	defer st.sending.Unlock()
	st.lastSent = time.Now()
	if err := st.rpc.SendMsg(frame); err != nil {
		return errGone
	}
	return nil
}

// run carries requests until the call ends, and says whether there were any. The hub retires a stream by ending the call without an error.
func (st *stream) run() (carried bool, err error) {
	frame := &wire.Frame{Message: &agentpb.Down{}}
	var current *request
	defer func() {
		if current != nil {
			current.abandon(errGone)
			<-current.done
		}
	}()
	for {
		if err := st.rpc.RecvMsg(frame); err != nil {
			if errors.Is(err, io.EOF) {
				return carried, nil
			}
			return carried, err
		}
		if frame.Data != nil {
			if current == nil || !current.upload.put(frame.Data) {
				frame.Data.Free() // the answer has ended early, and the rest of the request goes nowhere
			}
			continue
		}
		switch down := frame.Message.(*agentpb.Down).GetFrame().(type) {
		case *agentpb.Down_Head:
			if current != nil {
				if !current.ended() {
					return true, errors.New("the hub sent a request on a stream that carries one")
				}
				<-current.done
			}
			carried = true
			current = st.begin(down.Head)
		case *agentpb.Down_End:
			if current != nil {
				current.upload.end(io.EOF)
			}
		}
	}
}

// request is one request under way.
type request struct {
	stream *stream
	head   *agentpb.Head
	ctx    context.Context
	cancel context.CancelCauseFunc
	upload *upload
	began  time.Time
	done   chan struct{}

	endless bool // the answer has no length, and its status was sent

	mu     sync.Mutex
	closed bool // End or Reset has been sent, or is about to be
}

// begin starts a request.
func (st *stream) begin(head *agentpb.Head) *request {
	r := &request{stream: st, head: head, upload: newUpload(), began: time.Now(), done: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancelCause(st.session.agent.requests)
	st.session.took(st)
	go func() { // run waits for done
		defer close(r.done)
		defer r.cancel(nil)
		r.carry()
	}()
	return r
}

// abandon cancels what the request does at its target.
func (r *request) abandon(why error) {
	r.cancel(why)
	r.upload.end(why)
}

func (r *request) ended() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

func (r *request) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
}

// carry sends the request to its target and the answer to the hub.
func (r *request) carry() {
	agent := r.stream.session.agent
	stopBeats := r.beat(agent.timing.beat)
	defer stopBeats()
	var status int
	var bytes int64
	sent, err := false, error(nil)
	if agent.running.Add(1) > agent.timing.most {
		err = &failure{code: agentpb.Code_BUSY, text: fmt.Sprintf("%d requests are under way, which is the most", agent.timing.most)}
	} else {
		status, bytes, sent, err = r.relay(agent)
	}
	agent.running.Add(-1)
	r.upload.close() // what is still to come of it goes nowhere

	outcome := fmt.Sprint(status)
	fields := logrus.Fields{"request": r.head.GetRequest(), "target": r.head.GetTarget(), "method": r.head.GetMethod(), "path": withoutQuery(r.head.GetPath())}
	fields["bytes"], fields["seconds"] = bytes, time.Since(r.began).Seconds()
	cause := context.Cause(r.ctx)
	switch {
	case err == nil:
		agent.log.WithFields(fields).WithField("status", status).Info("request")
	case errors.Is(err, errGone), errors.Is(cause, errGone):
		outcome = "cancelled"
		agent.log.WithFields(fields).WithField("status", status).Info("request cancelled")
		r.close() // nobody listens to a Reset
	case errors.Is(cause, errStopping) && r.endless:
		agent.log.WithFields(fields).WithField("status", status).Info("request ended, because the agent stops")
		_ = r.end(nil) // a watch that ends between two frames is taken up again by whoever watches; if it is not heard, the session's end is
	default:
		reset := r.reset(err, sent)
		outcome = reset.GetCode().String()
		agent.log.WithFields(fields).WithError(err).WithField("code", outcome).Warn("request failed")
		r.close()
		if r.stream.send(&agentpb.Up{Frame: &agentpb.Up_Reset_{Reset_: reset}}) == nil {
			r.stream.finish()
		}
	}
	agent.metrics.request(agent.backends[r.head.GetTarget()] != nil, r.head.GetTarget(), outcome, bytes)
}

// finish ends a call that sent Reset: the hub ends its side, and if it does not, the session's end does.
func (st *stream) finish() {
	st.sending.Lock()
	defer st.sending.Unlock()
	_ = st.rpc.CloseSend() // the call has ended already, then
}

// beat sends a beat on a stream that was silent for a while, so that balancers see traffic, and that a cancelled call is noticed although its
// reader waits for a slow target.
func (r *request) beat(every time.Duration) (stop func()) {
	over := make(chan struct{})
	var timer *time.Timer
	ready := make(chan struct{})
	timer = time.AfterFunc(every, func() {
		<-ready
		select {
		case <-over:
			return
		default:
		}
		if r.stream.beat(r, every) != nil {
			r.abandon(errGone)
			return
		}
		timer.Reset(every)
	})
	close(ready)
	return func() {
		close(over)
		timer.Stop() // a beat that is just being sent does no harm
	}
}

func (st *stream) beat(r *request, every time.Duration) error {
	if !st.sending.TryLock() {
		return nil // it is not silent
	}
	defer st.sending.Unlock()
	if time.Since(st.lastSent) < every || r.ended() {
		return nil
	}
	st.lastSent = time.Now()
	return st.rpc.SendMsg(&agentpb.Up{Frame: &agentpb.Up_Beat{Beat: &agentpb.Beat{}}})
}

// relay does the work of carry: it returns the status and the bytes that went to the hub, and whether bytes had left for the target.
func (r *request) relay(agent *agent) (status int, bytes int64, sent bool, err error) {
	head := r.head
	target := agent.backends[head.GetTarget()]
	if target == nil {
		if head.GetTarget() == wire.Kubernetes {
			return 0, 0, false, refuse("the agent's configuration says kubernetes.off")
		}
		return 0, 0, false, refuse("target %.200q is not on the agent's allow-list; add to its configuration: targets: [{name: %.200q, url: …}]", head.GetTarget(), head.GetTarget())
	}
	header, err := wire.FromWire(head.GetHeader())
	if err != nil {
		return 0, 0, false, refuse("%v", err)
	}
	var forbidden *forbiddenError
	switch err := target.allows(head.GetMethod(), head.GetPath(), header); {
	case errors.As(err, &forbidden):
		return r.forbid(forbidden)
	case err != nil:
		return 0, 0, false, err
	}
	limit := r.limit()
	defer limit.Stop()
	request, err := target.prepare(r.ctx, head.GetMethod(), head.GetPath(), header, agent.version)
	if err != nil {
		return 0, 0, false, err
	}
	switch protocol := wire.UpgradeOf(head.GetHeader()); {
	case head.GetUpgrade() && (!target.upgrades || protocol == ""):
		return 0, 0, false, &failure{code: agentpb.Code_UNSUPPORTED, text: fmt.Sprintf("connections to target %q are not upgraded (exec, attach, port-forward)", target.name)}
	case head.GetUpgrade():
		wire.Upgrade(request.Header, protocol)
	case head.GetHasBody():
		request.Body, request.ContentLength = r.upload, max(-1, head.GetLength())
	default:
		r.upload.end(io.EOF)
	}
	var left atomic.Bool
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { left.Store(true) }} // from there on it cannot be told
	asked := time.Now()
	response, err := target.send(head.GetUpgrade(), request.WithContext(httptrace.WithClientTrace(request.Context(), trace)), agent.log)
	if err != nil {
		return 0, 0, left.Load(), err
	}
	agent.metrics.answer(target.name, time.Since(asked))
	defer response.Body.Close()
	if response.StatusCode == http.StatusSwitchingProtocols && head.GetUpgrade() {
		limit.Stop()
		bytes, err := r.upgraded(response)
		return response.StatusCode, bytes, true, err
	}
	if response.StatusCode == http.StatusSwitchingProtocols {
		return 0, 0, true, errors.New("the target switched protocols, which nobody had asked for")
	}
	headers, err := wire.ToWire(response.Header)
	if err != nil {
		return 0, 0, true, &failure{code: agentpb.Code_UNSUPPORTED, text: "the target's answer: " + err.Error()}
	}
	if response.ContentLength < 0 {
		limit.Stop() // a stream may last
	}
	answer := &agentpb.Status{Code: uint32(response.StatusCode), Header: headers, Length: response.ContentLength}
	if err := r.stream.send(&agentpb.Up{Frame: &agentpb.Up_Status{Status: answer}}); err != nil {
		return response.StatusCode, 0, true, err
	}
	r.endless = response.ContentLength < 0
	bytes, err = agent.codec.Copy(r.stream.send, response.Body)
	if err != nil {
		return response.StatusCode, bytes, true, err
	}
	trailer, err := wire.ToWire(response.Trailer)
	if err != nil {
		return response.StatusCode, bytes, true, &failure{code: agentpb.Code_UNSUPPORTED, text: "the answer's trailer: " + err.Error()}
	}
	_ = response.Body.Close()
	return response.StatusCode, bytes, true, r.end(trailer)
}

// upgraded carries both ways of a connection that no longer speaks HTTP, until the target ends it or the hub leaves.
func (r *request) upgraded(response *http.Response) (bytes int64, err error) {
	conn, ok := response.Body.(io.ReadWriteCloser)
	if !ok {
		return 0, errors.New("the connection to the target cannot be written to")
	}
	headers, err := wire.ToWire(response.Header)
	if err != nil {
		return 0, &failure{code: agentpb.Code_UNSUPPORTED, text: "the target's answer: " + err.Error()}
	}
	answer := &agentpb.Status{Code: http.StatusSwitchingProtocols, Header: wire.Upgraded(headers, response.Header.Get("Upgrade")), Length: -1}
	if err := r.stream.send(&agentpb.Up{Frame: &agentpb.Up_Status{Status: answer}}); err != nil {
		return 0, err
	}
	r.endless = true
	gone := context.AfterFunc(r.ctx, func() { _ = conn.Close() })
	defer gone()
	var up sync.WaitGroup
	up.Go(func() { _, _ = io.Copy(conn, r.upload) }) // a connection that cannot be written to cannot be read from either
	bytes, err = r.stream.session.agent.codec.Copy(r.stream.send, conn)
	_ = conn.Close()
	r.upload.close()
	up.Wait()
	if err != nil {
		return bytes, err
	}
	return bytes, r.end(nil)
}

// end sends End; from then on the hub may use the stream again.
func (r *request) end(trailer []*agentpb.Header) error {
	r.upload.close() // before the hub may use the stream again
	r.close()
	r.stream.session.gave(r.stream)
	return r.stream.send(&agentpb.Up{Frame: &agentpb.Up_End{End: &agentpb.End{Trailer: trailer}}})
}

// forbid answers 403 in the target's place, in the form that clients of an API server read.
func (r *request) forbid(why *forbiddenError) (int, int64, bool, error) {
	r.upload.end(io.EOF)
	text, err := json.Marshal(map[string]any{
		"kind": "Status", "apiVersion": "v1", "metadata": map[string]any{}, "status": "Failure", "reason": "Forbidden", "code": http.StatusForbidden, "message": why.text,
	})
	if err != nil {
		return 0, 0, false, err
	}
	r.stream.session.agent.metrics.refusals.Inc()
	headers := []*agentpb.Header{{Name: "Content-Type", Value: []byte("application/json")}}
	answer := &agentpb.Status{Code: http.StatusForbidden, Header: headers, Length: int64(len(text))}
	if err := r.stream.send(&agentpb.Up{Frame: &agentpb.Up_Status{Status: answer}}); err != nil {
		return http.StatusForbidden, 0, false, err
	}
	if err := r.stream.send(&agentpb.Up{Frame: &agentpb.Up_Data{Data: text}}); err != nil {
		return http.StatusForbidden, 0, false, err
	}
	return http.StatusForbidden, int64(len(text)), false, r.end(nil)
}

// errTimeout is the cause of a request that ran into Head.timeout.
var errTimeout = errors.New("the request's time was over")

// errStopping is the cause of requests that were still running when the agent's time to stop was over.
var errStopping = errors.New("the agent stops")

// limit cancels the request when Head.timeout is over.
func (r *request) limit() *time.Timer {
	if r.head.GetTimeout() == nil {
		timer := time.NewTimer(time.Hour)
		timer.Stop()
		return timer
	}
	return time.AfterFunc(max(0, r.head.GetTimeout().AsDuration()), func() { r.abandon(errTimeout) })
}

// failure is an error with the code it gets on the wire.
type failure struct {
	code agentpb.Code
	text string
}

func (e *failure) Error() string { return e.text }

// reset says what became of a request.
func (r *request) reset(err error, sent bool) *agentpb.Reset {
	var failed *failure
	var refused *refusedError
	var address *refusedAddress
	var dial *net.OpError
	reset := &agentpb.Reset{Code: agentpb.Code_LOST, Message: fmt.Sprintf("%.2000s", err), Sent: sent}
	switch {
	case errors.Is(context.Cause(r.ctx), errTimeout):
		reset.Code, reset.Message = agentpb.Code_TIMEOUT, fmt.Sprintf("no answer within %s", r.head.GetTimeout().AsDuration())
	case errors.Is(context.Cause(r.ctx), errStopping):
		reset.Code, reset.Message = agentpb.Code_DRAIN, errStopping.Error()
	case errors.As(err, &failed):
		reset.Code = failed.code
	case errors.As(err, &refused), errors.As(err, &address):
		reset.Code = agentpb.Code_REFUSED
		r.stream.session.agent.metrics.refusals.Inc()
	case errors.As(err, &dial) && dial.Op == "dial", !sent:
		reset.Code = agentpb.Code_DIAL
	}
	return reset
}

// upload is the request's body: frames handed from the stream's reader to whoever sends the request, one at a time.
type upload struct {
	frames chan mem.Buffer
	over   chan struct{} // closed by end or close
	once   sync.Once
	err    error // set before over is closed

	reading sync.Mutex
	current mem.Buffer
}

func newUpload() *upload {
	return &upload{frames: make(chan mem.Buffer), over: make(chan struct{})}
}

// put waits until the former frame was taken; false when nobody wants more.
func (u *upload) put(frame mem.Buffer) bool {
	select {
	case u.frames <- frame:
		return true
	case <-u.over:
		return false
	}
}

// end ends the body, with io.EOF when it is complete.
func (u *upload) end(err error) {
	u.once.Do(func() {
		u.err = err
		close(u.over)
	})
}

func (u *upload) close() { u.end(http.ErrBodyReadAfterClose) }

// Read implements io.Reader.
func (u *upload) Read(p []byte) (int, error) {
	u.reading.Lock()
	defer u.reading.Unlock()
	if u.current == nil {
		select {
		case u.current = <-u.frames:
		case <-u.over:
			return 0, u.err
		}
	}
	if u.current.Len() == 0 {
		u.current.Free()
		u.current = nil
		return 0, nil
	}
	var n int
	n, u.current = mem.ReadUnsafe(p, u.current)
	return n, nil
}

// Close implements io.Closer; the HTTP transport calls it when it needs no more, while a Read may be under way.
func (u *upload) Close() error {
	u.close()
	return nil
}

func withoutQuery(path string) string {
	plain, _, _ := strings.Cut(path, "?")
	return plain
}
