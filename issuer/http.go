package issuer

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	maxForm     = 8 << 10
	tokenPath   = "/oauth/token"
	keysPath    = "/oauth/keys"
	discovery   = "/.well-known/openid-configuration"
	maxRecorded = 10_000
	maxClientID = 200
)

// Handler serves the issuer below its URL's path: /oauth/token, /oauth/keys, /.well-known/openid-configuration. Mount it where Config.URL says, with
// the path left as it came.
func (i *Issuer) Handler() http.Handler {
	prefix := i.base.Path
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+prefix+tokenPath, i.serveToken)
	mux.HandleFunc("GET "+prefix+keysPath, i.serveKeys)
	mux.HandleFunc("GET "+prefix+discovery, i.serveDiscovery)
	return mux
}

func (i *Issuer) serveDiscovery(w http.ResponseWriter, _ *http.Request) {
	publish(w, map[string]any{
		"issuer":                                i.config.URL,
		"token_endpoint":                        i.config.URL + tokenPath,
		"jwks_uri":                              i.config.URL + keysPath,
		"grant_types_supported":                 []string{"client_credentials"},
		"token_endpoint_auth_methods_supported": []string{"client_secret_basic", "client_secret_post"},
		"id_token_signing_alg_values_supported": []string{"ES256"},
		"response_types_supported":              []string{},
		"subject_types_supported":               []string{"public"},
	})
}

func (i *Issuer) serveKeys(w http.ResponseWriter, r *http.Request) {
	keys, err := i.Keys(r.Context())
	if err != nil {
		http.Error(w, "the keys cannot be read now", http.StatusServiceUnavailable)
		return
	}
	publish(w, keys)
}

// publish answers with something that everybody may have, and may keep for a while.
func publish(w http.ResponseWriter, what any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "public, max-age=300")
	_ = json.NewEncoder(w).Encode(what) // the client has gone
}

// refusal is an error of RFC 6749, section 5.2.
type refusal struct {
	status      int
	Code        string `json:"error"`
	Description string `json:"error_description"`
	retry       time.Duration
}

func (i *Issuer) serveToken(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	token, refused := i.grant(w, r)
	if refused != nil {
		if refused.status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Basic realm="token", charset="UTF-8"`)
		}
		if refused.retry > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(refused.retry.Seconds())+1))
		}
		w.WriteHeader(refused.status)
		_ = json.NewEncoder(w).Encode(refused) // the client has gone
		return
	}
	_ = json.NewEncoder(w).Encode(token)
}

// answer is a token as RFC 6749, section 5.1, gives it.
type answer struct {
	Token   string `json:"access_token"`
	Type    string `json:"token_type"`
	Expires int64  `json:"expires_in"`
	Scope   string `json:"scope"`
}

func bad(code, format string, args ...any) *refusal {
	return &refusal{status: http.StatusBadRequest, Code: code, Description: fmt.Sprintf(format, args...)}
}

func (i *Issuer) grant(w http.ResponseWriter, r *http.Request) (*answer, *refusal) {
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/x-www-form-urlencoded" {
		return nil, bad("invalid_request", "the request must be a form (application/x-www-form-urlencoded)")
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return nil, bad("invalid_request", "the form cannot be read, or is larger than %d bytes", maxForm)
	}
	for name, values := range r.PostForm {
		if len(values) > 1 {
			return nil, bad("invalid_request", "parameter %.40q is given more than once", name)
		}
	}
	if kind := r.PostForm.Get("grant_type"); kind != "client_credentials" {
		return nil, bad("unsupported_grant_type", "grant_type must be client_credentials")
	}
	id, secret, refused := credentials(r)
	if refused != nil {
		return nil, refused
	}
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	if len(id) > maxClientID {
		return nil, bad("invalid_request", "client_id is longer than %d bytes", maxClientID)
	}
	if wait := i.limits.wait(host, id); wait > 0 {
		return nil, &refusal{status: http.StatusTooManyRequests, Code: "invalid_client", Description: "too many failures; try again later", retry: wait}
	}
	client, err := i.config.Store.Client(r.Context(), id)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, &refusal{status: http.StatusServiceUnavailable, Code: "temporarily_unavailable", Description: "clients cannot be read now", retry: time.Second}
	}
	if !client.owns(secret, i.config.Clock()) { // an unknown client owns none; that it is unknown is not told
		i.limits.failed(host, id)
		return nil, &refusal{status: http.StatusUnauthorized, Code: "invalid_client", Description: "the client is not known, its secret is wrong or has ended, or it is disabled"}
	}
	audience := r.PostForm.Get("audience")
	if audience == "" {
		audience = i.config.Audience
	}
	if !slices.Contains(client.Audience, audience) {
		return nil, bad("invalid_target", "this client may have no tokens for the audience %.80q", audience)
	}
	scopes := strings.Fields(r.PostForm.Get("scope"))
	if len(scopes) == 0 {
		scopes = client.Scopes
	}
	for _, scope := range scopes {
		if !slices.Contains(client.Scopes, scope) {
			return nil, bad("invalid_scope", "this client may not have the scope %.80q", scope)
		}
	}
	token, err := i.token(r.Context(), client.ID, audience, scopes)
	if err != nil {
		return nil, &refusal{status: http.StatusServiceUnavailable, Code: "temporarily_unavailable", Description: "no token can be signed now", retry: time.Second}
	}
	return &answer{Token: token, Type: "Bearer", Expires: int64(i.config.Lifetime / time.Second), Scope: strings.Join(scopes, " ")}, nil
}

// credentials are the client's, from the Authorization header or from the form, never both.
func credentials(r *http.Request) (id, secret string, refused *refusal) {
	formID, formSecret := r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	if r.Header.Get("Authorization") == "" {
		if formID == "" || formSecret == "" {
			return "", "", &refusal{status: http.StatusUnauthorized, Code: "invalid_client", Description: "the request carries no client credentials"}
		}
		return formID, formSecret, nil
	}
	rawID, rawSecret, ok := r.BasicAuth()
	id, idErr := url.QueryUnescape(rawID) // both are form-encoded before they are joined: RFC 6749, section 2.3.1
	secret, secretErr := url.QueryUnescape(rawSecret)
	if !ok || idErr != nil || secretErr != nil || id == "" {
		return "", "", &refusal{status: http.StatusUnauthorized, Code: "invalid_client", Description: "the Authorization header must be Basic, with form-encoded client id and secret"}
	}
	if formSecret != "" || (formID != "" && formID != id) {
		return "", "", bad("invalid_request", "credentials are given twice, in the Authorization header and in the form")
	}
	return id, secret, nil
}

// limiter slows those down who fail: an address, and more so one client name from one address, so that nobody can lock out a client from elsewhere.
type limiter struct {
	now     func() time.Time
	mu      sync.Mutex
	buckets map[string]*rate.Limiter
}

func newLimiter(now func() time.Time) *limiter {
	return &limiter{now: now, buckets: map[string]*rate.Limiter{}}
}

func (l *limiter) names(host, client string) [2]string {
	return [2]string{host, host + " " + client}
}

// wait says how long somebody must hold back; 0: go on.
func (l *limiter) wait(host, client string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	var longest time.Duration
	for _, name := range l.names(host, client) {
		if bucket := l.buckets[name]; bucket != nil {
			if missing := 1 - bucket.TokensAt(now); missing > 0 {
				longest = max(longest, time.Duration(missing/float64(bucket.Limit())*float64(time.Second)))
			}
		}
	}
	return longest
}

// failed counts a failure.
func (l *limiter) failed(host, client string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if len(l.buckets) > maxRecorded {
		for name, bucket := range l.buckets {
			if bucket.TokensAt(now) >= float64(bucket.Burst()) {
				delete(l.buckets, name)
			}
		}
		if len(l.buckets) > maxRecorded {
			clear(l.buckets)
		}
	}
	for n, name := range l.names(host, client) {
		bucket := l.buckets[name]
		if bucket == nil {
			bucket = rate.NewLimiter(5, 100)
			if n == 1 {
				bucket = rate.NewLimiter(0.2, 10)
			}
			l.buckets[name] = bucket
		}
		bucket.AllowN(now, 1)
	}
}
