package agent_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"towpath/agent/edge"
	"towpath/agent/hub"
	"towpath/issuer"
)

// elsewhere is an OIDC issuer of an organisation: it gives each client a token, made as the test says.
type elsewhere struct {
	*httptest.Server
	t testing.TB

	mu      sync.Mutex
	key     *ecdsa.PrivateKey
	id      string
	claims  func(map[string]any)
	sign    func(jose.SigningKey) jose.SigningKey
	refuses string
}

func newElsewhere(t testing.TB) *elsewhere {
	t.Helper()
	e := &elsewhere{t: t}
	e.rotate("first")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": e.URL, "token_endpoint": e.URL + "/token", "jwks_uri": e.URL + "/keys"})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		e.mu.Lock()
		defer e.mu.Unlock()
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: e.key.Public(), KeyID: e.id, Use: "sig"}}})
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		refuses := e.refuses
		e.mu.Unlock()
		if refuses != "" {
			w.WriteHeader(http.StatusUnauthorized)
			_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_client", "error_description": refuses})
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": e.token(), "expires_in": 600})
	})
	e.Server = httptest.NewTLSServer(mux)
	t.Cleanup(e.Close)
	return e
}

// rotate signs with a new key from now on; the former is published no longer.
func (e *elsewhere) rotate(id string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ok(e.t, err)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.key, e.id = key, id
}

func (e *elsewhere) token() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	claims := map[string]any{"iss": e.URL, "sub": "prod@example.com", "aud": audience, "exp": now.Add(10 * time.Minute).Unix(), "iat": now.Unix(), "scope": "openid " + hub.Scope}
	if e.claims != nil {
		e.claims(claims)
	}
	key := jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: e.key, KeyID: e.id}}
	if e.sign != nil {
		key = e.sign(key)
	}
	signer, err := jose.NewSigner(key, nil)
	ok(e.t, err)
	text, err := jwt.Signed(signer).Claims(claims).Serialize()
	ok(e.t, err)
	return text
}

// trusting is a world whose hub takes the tokens of an issuer elsewhere, by a clock that is off by skew.
func (e *elsewhere) trusting(skew time.Duration) *world {
	w := newWorld(e.t, hub.Limits{})
	clock := func() time.Time { return time.Now().Add(skew) }
	verifier, err := hub.NewVerifier(hub.VerifierConfig{Issuer: e.URL, Audience: audience, Keys: hub.NewRemoteKeys(e.URL, e.Client(), clock), Lookup: w.lookup, Clock: clock})
	ok(e.t, err)
	w.names["prod@example.com"] = "prod"
	w.verifier = verifier
	w.hub.Close()
	w.startHub("127.0.0.1:0")
	return w
}

// agent is the configuration of one with an identity elsewhere.
func (e *elsewhere) agent(w *world, k *httptest.Server) edge.Config {
	c := w.identity("other", k)
	c.Agent, c.Hub.Address = "prod", w.address
	c.Identity.Issuer = e.URL
	c.Identity.CAFile = w.file("elsewhere.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.Certificate().Raw}))
	return c
}

func TestATokenThatIsNotRightIsRefusedAndToldWhy(t *testing.T) {
	t.Parallel()
	shared := []byte("0123456789abcdef0123456789abcdef")
	for name, test := range map[string]struct {
		skew   time.Duration
		claims func(map[string]any)
		sign   func(jose.SigningKey) jose.SigningKey
		told   []string
	}{
		"for another audience": {claims: func(c map[string]any) { c["aud"] = "another" }, told: []string{"audience", audience, "another"}},
		"of another issuer":    {claims: func(c map[string]any) { c["iss"] = "https://stranger.example" }, told: []string{"different provider", "https://stranger.example"}},
		"expired":              {claims: func(c map[string]any) { c["exp"] = time.Now().Add(-2 * time.Minute).Unix() }, told: []string{"expired at", "this hub's clock says"}},
		"without an end":       {claims: func(c map[string]any) { delete(c, "exp") }, told: []string{"no expiry"}},
		"without a scope":      {claims: func(c map[string]any) { delete(c, "scope") }, told: []string{"scope does not hold", hub.Scope}},
		"of nobody":            {claims: func(c map[string]any) { delete(c, "sub") }, told: []string{"names no subject"}},
		"of an unknown identity": {claims: func(c map[string]any) { c["sub"] = "someone@example.com" },
			told: []string{`identity "someone@example.com"`, "no agent has it"}},
		"signed by a shared secret": {sign: func(jose.SigningKey) jose.SigningKey { return jose.SigningKey{Algorithm: jose.HS256, Key: shared} }, told: []string{"HS256"}},
		"signed by an unknown key": {sign: func(k jose.SigningKey) jose.SigningKey {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			ok(t, err)
			return jose.SigningKey{Algorithm: k.Algorithm, Key: jose.JSONWebKey{Key: crypto.PrivateKey(key), KeyID: "unknown"}}
		}, told: []string{`no key of the issuer with id "unknown"`}},
		"too old for a hub whose clock is ahead": {skew: 12 * time.Minute, told: []string{"expired at", "this hub's clock says"}},
		"too young for a hub whose clock is behind": {skew: -5 * time.Minute, claims: func(c map[string]any) { c["nbf"] = time.Now().Unix() },
			told: []string{"counts only from", "this hub's clock says"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newElsewhere(t)
			e.claims, e.sign = test.claims, test.sign
			w := e.trusting(test.skew)
			w.run(e.agent(w, nil), edge.Timing{})
			w.await(func() bool { return strings.Count(w.logs.String(), "not connected") > 0 }, "the agent was refused")
			for _, line := range strings.Split(w.logs.String(), "\n") {
				if strings.Contains(line, "agent refused") || strings.Contains(line, "not connected") { // both people read why
					contains(t, strings.ReplaceAll(line, `\`, ""), test.told...)
				}
			}
			equal(t, len(w.hub.Agents()), 0, "sessions")
		})
	}
}

func TestClocksThatDifferByLessThanATokensLifeAreOnlyWarnedOf(t *testing.T) {
	t.Parallel()
	for name, skew := range map[string]time.Duration{"ahead": 5 * time.Minute, "behind": -5 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newElsewhere(t)
			w := e.trusting(skew)
			w.hub.Close()
			w.clock = func() time.Time { return time.Now().Add(skew) }
			w.startHub("127.0.0.1:0")
			w.start(e.agent(w, nil), edge.Timing{})
			w.await(func() bool { return strings.Contains(w.logs.String(), "clock and the hub's differ by 5m0s") }, "the agent has warned")
		})
	}
}

func TestAnIssuersNewKeyIsTakenWithoutAReconnect(t *testing.T) {
	t.Parallel()
	e := newElsewhere(t)
	var ahead sync.Map // of the clock that says how old the keys are
	w := newWorld(t, hub.Limits{})
	clock := func() time.Time {
		by, _ := ahead.LoadOrStore("by", time.Duration(0))
		return time.Now().Add(by.(time.Duration))
	}
	verifier, err := hub.NewVerifier(hub.VerifierConfig{Issuer: e.URL, Audience: audience, Keys: hub.NewRemoteKeys(e.URL, e.Client(), clock), Lookup: w.lookup})
	ok(t, err)
	w.names["prod@example.com"] = "prod"
	_, err = verifier.Verify(w.ctx, e.token())
	ok(t, err)
	e.rotate("second")
	fresh := e.token()
	if _, err = verifier.Verify(w.ctx, fresh); err == nil {
		t.Error("keys are fetched for each unknown id, as often as somebody asks")
	}
	ahead.Store("by", 31*time.Second)
	_, err = verifier.Verify(w.ctx, fresh)
	ok(t, err)
}

func TestAnAgentWhoseRefreshIsRefusedKeepsItsSessionUntilItsTokenEnds(t *testing.T) {
	t.Parallel()
	h := newWatcher()
	k := cluster(t, h.ServeHTTP)
	e := newElsewhere(t)
	e.claims = func(c map[string]any) { c["exp"] = time.Now().Add(-57 * time.Second).Unix() } // it counts for three seconds more: clocks may differ by a minute
	w := e.trusting(0)
	w.hub.Close()
	w.limits = hub.Limits{ExpiryGrace: 60 * time.Second, Wait: 10 * time.Millisecond}
	w.startHub("127.0.0.1:0")
	w.run(e.agent(w, k), edge.Timing{})
	w.await(func() bool { return len(w.hub.Agents()) == 1 }, "the agent is connected")
	e.mu.Lock()
	e.refuses = "the client's secret has expired"
	e.mu.Unlock()
	_, err := w.get(w.ctx, "/watch")
	wantCode(t, err, hub.NoAgent) // no new requests with a token that has expired
	w.await(func() bool { return len(w.hub.Agents()) == 0 }, "the session has ended")
	contains(t, w.logs.String(), "the agent's token has expired and no new one came")
}

func TestAFreshTokenKeepsTheSession(t *testing.T) {
	t.Parallel()
	e := newElsewhere(t)
	w := e.trusting(0)
	c := e.agent(w, nil)
	c.Identity.TokenURL = shortLived(t, e)
	w.start(c, edge.Timing{})
	first := w.hub.Agents()[0]
	w.await(func() bool {
		list := w.hub.Agents()
		return len(list) == 1 && list[0].Since.Equal(first.Since) && list[0].TokenExpiry.After(first.TokenExpiry)
	}, "the hub has the agent's next token")
}

// shortLived is a token endpoint of an issuer whose clients come back soon.
func shortLived(t *testing.T, e *elsewhere) (url string) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": e.token(), "expires_in": 2})
	}))
	server.StartTLS() // with the certificate of every test server
	t.Cleanup(server.Close)
	return server.URL
}

func TestARevokedIdentityEndsItsWatchesAtOnce(t *testing.T) {
	t.Parallel()
	h := newWatcher()
	w := newWorld(t, hub.Limits{})
	w.start(w.identity("prod", cluster(t, h.ServeHTTP)), edge.Timing{Forbidden: time.Hour})
	response, err := w.get(w.ctx, "/watch")
	ok(t, err)
	w.mu.Lock()
	clear(w.names)
	w.mu.Unlock()
	w.verifier.Forget()
	w.hub.Disconnect("t", "prod", "the agent prod was revoked")
	_, err = io.ReadAll(response.Body)
	wantCode(t, err, hub.Refused, "the agent prod was revoked")
	next(t, w.ctx, h.ended, "the watch's end at the cluster")
	w.await(func() bool { return len(w.hub.Agents()) == 0 }, "the session is gone")
	w.await(func() bool { return strings.Contains(w.logs.String(), "REFUSED: the agent prod was revoked") }, "the agent says why")
	w.staysAway("wants this agent to stay away; the next session is tried in ")
}

// staysAway checks that an agent says that its next try is in one to five minutes.
func (w *world) staysAway(says string) {
	w.t.Helper()
	w.await(func() bool { return strings.Contains(w.logs.String(), says) }, "the agent says when it comes back")
	_, text, _ := strings.Cut(w.logs.String(), says)
	text, _, _ = strings.Cut(text, `"`)
	if wait, err := time.ParseDuration(text); err != nil || wait < time.Minute || wait > 5*time.Minute {
		w.t.Errorf("it comes back in %q (%v)", text, err)
	}
}

func TestAnAgentThatIsNotWantedComesBackSeldom(t *testing.T) {
	t.Parallel()
	for name, setUp := range map[string]func(*world, *edge.Config){
		"its identity is nobody's":        func(w *world, _ *edge.Config) { clear(w.names) },
		"its identity is that of another": func(w *world, c *edge.Config) { c.Agent = "staging" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, hub.Limits{})
			c := w.identity("prod", nil)
			setUp(w, &c)
			w.run(c, edge.Timing{})
			w.staysAway("not connected; the next try is in ")
		})
	}
}

func TestAnAgentWhoseTokensWereRevokedComesBackWithANewOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hub.Limits{})
	w.start(w.identity("prod", nil), edge.Timing{Settled: time.Nanosecond})
	first := w.hub.Agents()[0]
	w.mu.Lock()
	w.revoked = time.Now()
	w.mu.Unlock()
	w.verifier.Forget()
	w.hub.Close() // as at a restart: a session that was ended for it comes back after minutes
	w.startHub(w.address)
	w.await(func() bool {
		list := w.hub.Agents()
		return len(list) == 1 && list[0].TokenExpiry.After(first.TokenExpiry)
	}, "the agent is back with another token")
	contains(t, w.logs.String(), "the token was issued at ", "were revoked")
}

func TestTheSecretIsReplacedInOneSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hub.Limits{})
	i, err := issuer.New(issuer.Config{URL: w.issuerAt, Audience: audience, Store: newStore(), Lifetime: 2 * time.Second})
	ok(t, err)
	w.issuer = i
	w.verifier, err = hub.NewVerifier(hub.VerifierConfig{Issuer: w.issuerAt, Audience: audience, Keys: i, Lookup: w.lookup})
	ok(t, err)
	w.hub.Close()
	w.startHub("127.0.0.1:0")
	c := w.identity("prod", nil)
	w.start(c, edge.Timing{})
	first := w.hub.Agents()[0]
	secret, err := i.Replace(w.ctx, c.Identity.ClientID, time.Hour) // both count
	ok(t, err)
	w.file(c.Identity.ClientID, []byte(secret))
	_, err = i.Replace(w.ctx, c.Identity.ClientID, time.Hour) // of three, the oldest ends
	ok(t, err)
	last := time.Now().Add(2 * time.Second) // the end of tokens that were made until now
	w.await(func() bool {
		list := w.hub.Agents()
		return len(list) == 1 && list[0].Since.Equal(first.Since) && list[0].TokenExpiry.After(last.Add(time.Second))
	}, "a token by the new secret, in the same session")
}

func TestANameIsOneIdentitysAndAnIdentityOneNames(t *testing.T) {
	t.Parallel()
	k := cluster(t, func(http.ResponseWriter, *http.Request) {})
	w := newWorld(t, hub.Limits{})
	first := w.identity("prod", k)
	w.start(first, edge.Timing{})
	unhurt := func() {
		t.Helper()
		_, _, err := w.do("prod", http.MethodGet, "/", nil)
		ok(t, err)
		equal(t, len(w.hub.Agents()), 1, "sessions")
	}
	refused := func(c edge.Config, why string) {
		t.Helper()
		stop := w.run(c, edge.Timing{})
		w.await(func() bool { return strings.Contains(strings.ReplaceAll(w.logs.String(), `\`, ""), why) }, "refused: "+why)
		unhurt()
		ok(t, stop())
	}
	second := w.identity("prod", k)
	second.Instance = "prod-1"
	refused(second, "another identity cannot take its name")
	other := w.identity("staging", k)
	other.Agent = "prod"
	refused(other, `belongs to agent "staging", but the stream names agent "prod"`)
}

func TestTheNinthInstanceIsRefused(t *testing.T) {
	t.Parallel()
	k := cluster(t, func(http.ResponseWriter, *http.Request) {})
	w := newWorld(t, hub.Limits{})
	c := w.identity("prod", k)
	for i := range 8 {
		c.Instance = fmt.Sprint("prod-", i)
		w.start(c, edge.Timing{})
	}
	c.Instance = "prod-8"
	w.run(c, edge.Timing{})
	w.await(func() bool { return strings.Contains(w.logs.String(), "has 8 instances connected, which is the most") }, "the ninth is refused")
	equal(t, len(w.hub.Agents()), 8, "sessions")
	for range 16 {
		_, _, err := w.do("prod", http.MethodGet, "/", nil)
		ok(t, err)
	}
}

func TestTheSameInstanceTakesItsOwnPlace(t *testing.T) {
	t.Parallel()
	k := cluster(t, func(http.ResponseWriter, *http.Request) {})
	w := newWorld(t, hub.Limits{})
	c := w.identity("prod", k)
	w.start(c, edge.Timing{Settled: time.Hour})
	old := w.hub.Agents()[0]
	w.start(c, edge.Timing{}) // as after a partition that only the agent has noticed
	w.await(func() bool {
		return strings.Contains(w.logs.String(), "another session of the same instance took its place")
	}, "the old session has ended")
	w.await(func() bool { list := w.hub.Agents(); return len(list) == 1 && !list[0].Since.Equal(old.Since) }, "one session, which is another")
}
