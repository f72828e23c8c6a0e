package preview

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
)

// Cluster serves the API servers of clusters to people who hold a token for one of them, below /clusters/AGENT, as kubectl asks.
type Cluster struct {
	// Find is what a token leads to; ErrNone when it leads nowhere.
	Find func(ctx context.Context, token string) (Via, error)
	// Used is told of the first request that goes through, or of the first few.
	Used func(ctx context.Context, id, remote string)
	Ways Ways
	// Proxied says that all requests come from a proxy which adds whom they come from.
	Proxied bool
	// Again is how often it is asked whether the token of a request under way still holds; 0: each 15 s.
	Again time.Duration
	Log   logrus.FieldLogger
}

// Root is the path below which clusters are.
const Root = "/clusters/"

// ServeHTTP implements http.Handler.
func (s *Cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	agent, path, _ := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), Root), "/")
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	via, err := s.Find(r.Context(), token)
	if err != nil && !errors.Is(err, ErrNone) {
		s.Log.WithError(err).Error("a way into a cluster could not be looked up")
		refuse(w, http.StatusInternalServerError, "InternalError", "the token could not be checked; the controller's log says why")
		return
	}
	if name, bad := url.PathUnescape(agent); err != nil || bad != nil || via.Agent != name {
		w.Header().Set("WWW-Authenticate", "Bearer")
		refuse(w, http.StatusUnauthorized, "Unauthorized", "the token leads nowhere, has expired or was revoked; towpath preview create --type cluster makes one")
		return
	}
	v := &visit{Via: via, remote: remoteOf(r, s.Proxied)}
	defer v.log(s.Log, r, "preview of a cluster")
	for name := range r.Header {
		if strings.HasPrefix(name, "Impersonate-") {
			v.status = http.StatusForbidden
			refuse(w, v.status, "Forbidden", "a preview has the rights of the agent's ServiceAccount; it does not act as others")
			return
		}
	}
	if via.Unused {
		s.Used(r.Context(), via.ID, v.remote)
	}
	s.proxy(w, r, "/"+path, token, v)
}

func (s *Cluster) proxy(w http.ResponseWriter, r *http.Request, path, token string, v *visit) {
	ctx, answered, cancel := span{v.Until, s.Again, func(ctx context.Context) error {
		_, err := s.Find(ctx, token)
		return err
	}}.begin(r.Context())
	defer cancel()
	proxy := httputil.ReverseProxy{Transport: s.Ways(v.Tenant, v.Agent), ErrorLog: quiet,
		Rewrite: func(p *httputil.ProxyRequest) {
			plain, err := url.PathUnescape(path)
			if err != nil {
				plain = path // the tunnel refuses it
			}
			p.Out.URL = &url.URL{Scheme: "http", Host: "cluster", Path: plain, RawPath: path, RawQuery: p.In.URL.RawQuery}
			p.Out.Host = ""
			withoutForeign(p.Out.Header)
			p.Out.Header.Del("Cookie")
		},
		ModifyResponse: func(answer *http.Response) error {
			answered()
			v.status = answer.StatusCode
			whole(answer)
			answer.Header.Del("Set-Cookie") // what is proxied in the cluster is a stranger at this address
			answer.Header.Set("Content-Security-Policy", "sandbox; default-src 'none'")
			answer.Header.Set("X-Content-Type-Options", "nosniff")
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			v.status, v.why = http.StatusBadGateway, err.Error()
			refuse(w, v.status, "InternalError", v.why)
		}}
	proxy.ServeHTTP(w, r.WithContext(ctx))
}

// refuse answers as an API server does, so that clients show why.
func refuse(w http.ResponseWriter, code int, reason, message string) {
	text, err := json.Marshal(status{"Status", "v1", "Failure", message, reason, code})
	if err != nil {
		panic(err) // texts only
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(text) // whoever asked has gone, then
}
