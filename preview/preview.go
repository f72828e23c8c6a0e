// Package preview serves what leads from outside into clusters for a while: links to Services, each under a host's name of its own, and a person's way to a
// whole API server. It knows neither the store nor the tunnel: it is told what an address leads to, and given the way there.
package preview

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// ErrNone is what Find says of what it does not know, or of what has ended.
var ErrNone = errors.New("nothing that holds")

// Via is the agent that a request goes through, and until when it may.
type Via struct {
	ID            string // of the link, for the audit
	Tenant, Agent string
	Until         time.Time
	Unused        bool // nobody has come this way yet
}

// Ways is the way to an agent's API server, with the rights of the agent's own ServiceAccount.
type Ways func(tenant, agent string) http.RoundTripper

// visit is one request, for the audit: one line of the log each.
type visit struct {
	Via
	remote string
	status int
	why    string // it failed, for people who run the controller
}

// log writes a visit's line. The path is as it was asked for, without its query, which may hold what is secret.
func (v *visit) log(to logrus.FieldLogger, r *http.Request, what string) {
	line := to.WithFields(logrus.Fields{"preview": v.ID, "agent": v.Agent, "remote": v.remote, "method": r.Method, "path": cut(r.URL.EscapedPath()), "status": v.status})
	if v.why != "" {
		line.WithField("error", v.why).Warn(what)
		return
	}
	line.Info(what)
}

func cut(text string) string { return text[:min(len(text), 512)] }

// remoteOf is whom a request comes from. Behind a proxy it is whom the proxy names, as the last one of a list that visitors may begin themselves.
func remoteOf(r *http.Request, proxied bool) string {
	if proxied {
		all := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		if last := strings.TrimSpace(all[len(all)-1]); net.ParseIP(last) != nil {
			return last
		}
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// answersWithin is how long an answer may take to begin.
const answersWithin = time.Minute

// span is how long a request may last.
type span struct {
	until time.Time
	again time.Duration // find is asked so often whether it still holds; 0: each 15 s
	find  func(ctx context.Context) error
}

// begin gives a request its span, of which it may take answersWithin to be answered: answered says that it is. cancel waits for what looks after it.
func (s span) begin(ctx context.Context) (_ context.Context, answered func(), cancel func()) {
	ctx, end := context.WithDeadline(ctx, s.until)
	ctx, give := context.WithCancelCause(ctx)
	late := time.AfterFunc(answersWithin, func() { give(errLate) })
	var looking sync.WaitGroup
	looking.Go(func() {
		each := time.NewTicker(cmp.Or(s.again, 15*time.Second))
		defer each.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-each.C:
				if errors.Is(s.find(ctx), ErrNone) {
					give(errRevoked)
					return
				}
			}
		}
	})
	return ctx, func() { late.Stop() }, func() {
		late.Stop()
		give(nil)
		end()
		looking.Wait()
	}
}

var (
	errLate    = errors.New("no answer began within " + answersWithin.String())
	errRevoked = errors.New("it was revoked meanwhile")
)

// whole has an upgraded connection end as one: the tunnel passes no half of an end on to the cluster, so what a visitor has left would stay open there.
func whole(answer *http.Response) {
	if conn, ok := answer.Body.(io.ReadWriteCloser); ok && answer.StatusCode == http.StatusSwitchingProtocols {
		answer.Body = struct{ io.ReadWriteCloser }{conn}
	}
}

// foreign are headers by which a request could speak to the API server, or to the agent, in place of the Service.
var foreign = []string{"Authorization", "Forwarded", "X-Real-Ip", "Audit-Id"}

var foreignPrefixes = []string{"Impersonate-", "X-Remote-", "X-Forwarded-", "Proxy-"}

// bearer begins what a web socket's client names among its protocols to be authenticated by the API server.
const bearer = "base64url.bearer.authorization.k8s.io."

// withoutForeign removes them.
func withoutForeign(h http.Header) {
	for name := range h {
		for _, prefix := range foreignPrefixes {
			if strings.HasPrefix(name, prefix) {
				h.Del(name)
			}
		}
	}
	for _, name := range foreign {
		h.Del(name)
	}
	var protocols []string
	for protocol := range strings.SplitSeq(strings.Join(h.Values("Sec-Websocket-Protocol"), ","), ",") {
		if protocol = strings.TrimSpace(protocol); protocol != "" && !strings.HasPrefix(protocol, bearer) {
			protocols = append(protocols, protocol)
		}
	}
	h.Del("Sec-Websocket-Protocol")
	if len(protocols) > 0 {
		h.Set("Sec-Websocket-Protocol", strings.Join(protocols, ", "))
	}
}

// told are headers of an answer that tell of the API server, or would lead visitors past the link.
var told = []string{"Audit-Id", "X-Kubernetes-Pf-Flowschema-Uid", "X-Kubernetes-Pf-Prioritylevel-Uid", "Alt-Svc"}

func withoutTold(h http.Header) {
	for _, name := range told {
		h.Del(name)
	}
}
