package issuer_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/sirupsen/logrus"

	"towpath/issuer"
	"towpath/store"
)

// kept is the issuer's Store on a real database, as the controller keeps it.
type kept struct{ *store.Store }

func (k kept) Keys(ctx context.Context) ([]issuer.Key, error) {
	rows, err := k.IssuerKeys(ctx)
	keys := make([]issuer.Key, len(rows))
	for i, row := range rows {
		keys[i] = issuer.Key(row)
	}
	return keys, err
}

func (k kept) SaveKey(ctx context.Context, key issuer.Key) error {
	return k.SaveIssuerKey(ctx, store.IssuerKey(key))
}

func (k kept) DeleteKey(ctx context.Context, id string) error { return k.DeleteIssuerKey(ctx, id) }

func (k kept) Client(ctx context.Context, id string) (c issuer.Client, err error) {
	data, version, err := k.IssuerClient(ctx, id)
	if err != nil {
		return c, issuer.ErrNotFound
	}
	err = json.Unmarshal([]byte(data), &c)
	c.Version = version
	return c, err
}

func (k kept) SaveClient(ctx context.Context, c issuer.Client) error {
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return k.SaveIssuerClient(ctx, c.ID, string(data), c.Version)
}

// clock stands until it is moved.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) move(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(by)
}

// world is a served issuer.
type world struct {
	*issuer.Issuer
	t     *testing.T
	url   string
	clock *clock
	store *store.Store
	file  string
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func serve(t *testing.T) *world {
	t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	w := &world{t: t, clock: &clock{at: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)}, file: filepath.Join(t.TempDir(), "towpath.db")}
	var err error
	w.store, err = store.Open(t.Context(), store.Config{URL: "sqlite:" + w.file, Keys: [][]byte{[]byte("0123456789abcdef0123456789abcdef")}, Log: logrus.NewEntry(log)})
	must(t, err)
	t.Cleanup(func() { must(t, w.store.Close()) })
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	w.url = server.URL + "/id"
	w.Issuer = w.replica()
	mux.Handle("/id/", w.Handler())
	return w
}

// replica is one more issuer on the same store.
func (w *world) replica() *issuer.Issuer {
	w.t.Helper()
	i, err := issuer.New(issuer.Config{URL: w.url, Audience: "towpath", Store: kept{w.store}, Clock: w.clock.now})
	must(w.t, err)
	return i
}

func (w *world) client(scopes ...string) (id, secret string) {
	w.t.Helper()
	id, secret, err := w.Create(w.t.Context(), scopes...)
	must(w.t, err)
	return id, secret
}

// answer is what the token endpoint said.
type answer struct {
	status int
	header http.Header
	Token  string `json:"access_token"`
	Type   string `json:"token_type"`
	Lasts  int    `json:"expires_in"`
	Scope  string
	Error  string
	About  string `json:"error_description"`
}

func (w *world) ask(form url.Values, basic ...string) (a answer) {
	w.t.Helper()
	request, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.url+"/oauth/token", strings.NewReader(form.Encode()))
	must(w.t, err)
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if len(basic) > 0 {
		request.SetBasicAuth(url.QueryEscape(basic[0]), url.QueryEscape(basic[1]))
	}
	return w.send(request)
}

func (w *world) send(request *http.Request) (a answer) {
	w.t.Helper()
	response, err := http.DefaultClient.Do(request)
	must(w.t, err)
	defer response.Body.Close()
	must(w.t, json.NewDecoder(response.Body).Decode(&a))
	a.status, a.header = response.StatusCode, response.Header
	if kind := response.Header.Get("Content-Type"); kind != "application/json" || response.Header.Get("Cache-Control") != "no-store" {
		w.t.Errorf("an answer of type %s, cached %q", kind, response.Header.Get("Cache-Control"))
	}
	return a
}

func form(id, secret string, more ...string) url.Values {
	values := url.Values{"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {secret}}
	for i := 0; i < len(more); i += 2 {
		values.Set(more[i], more[i+1])
	}
	return values
}

// verify checks a token as anybody would: by the issuer's address alone.
func (w *world) verify(token string) error {
	w.t.Helper()
	provider, err := oidc.NewProvider(w.t.Context(), w.url)
	must(w.t, err)
	verified, err := provider.Verifier(&oidc.Config{ClientID: "towpath", SupportedSigningAlgs: []string{oidc.ES256}, Now: w.clock.now}).Verify(w.t.Context(), token)
	if err == nil && verified.Subject == "" {
		err = fmt.Errorf("it names no subject")
	}
	return err
}

func TestAClientGetsATokenThatAnybodyCanCheck(t *testing.T) {
	t.Parallel()
	w := serve(t)
	id, secret := w.client("agent:connect", "other")
	for name, a := range map[string]answer{
		"in the form":               w.ask(form(id, secret)),
		"in the header":             w.ask(url.Values{"grant_type": {"client_credentials"}}, id, secret),
		"with a scope and audience": w.ask(form(id, secret, "scope", "agent:connect", "audience", "towpath")),
	} {
		if a.status != http.StatusOK || a.Type != "Bearer" || a.Lasts != 900 {
			t.Errorf("%s: %+v", name, a)
			continue
		}
		if err := w.verify(a.Token); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if a := w.ask(form(id, secret)); a.Scope != "agent:connect other" {
		t.Errorf("without a scope all of the client's are given, not %q", a.Scope)
	}
	a := w.ask(form(id, secret, "scope", "other"))
	claims := struct {
		Scope, Sub, Iss, Jti string
		ClientID             string `json:"client_id"`
	}{}
	text, err := base64.RawURLEncoding.DecodeString(strings.Split(a.Token, ".")[1])
	must(t, err)
	must(t, json.Unmarshal(text, &claims))
	if claims.Scope != "other" || claims.Sub != id || claims.ClientID != id || claims.Iss != w.url || claims.Jti == "" {
		t.Errorf("claims: %s", text)
	}
	changed := strings.Split(a.Token, ".")
	changed[1] = base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(text), `"other"`, `"agent:connect"`, 1)))
	if err := w.verify(strings.Join(changed, ".")); err == nil {
		t.Error("a token that was changed is accepted")
	}
}

func TestRefusalsAreThoseOfOAuth(t *testing.T) {
	t.Parallel()
	w := serve(t)
	id, secret := w.client("agent:connect")
	for name, c := range map[string]struct {
		a      answer
		status int
		code   string
	}{
		"a wrong secret":             {w.ask(form(id, "guess")), 401, "invalid_client"},
		"an unknown client":          {w.ask(form("client-x", secret)), 401, "invalid_client"},
		"no credentials":             {w.ask(url.Values{"grant_type": {"client_credentials"}}), 401, "invalid_client"},
		"a wrong secret in a header": {w.ask(url.Values{"grant_type": {"client_credentials"}}, id, "guess"), 401, "invalid_client"},
		"credentials twice":          {w.ask(form(id, secret), id, secret), 400, "invalid_request"},
		"another grant":              {w.ask(form(id, secret, "grant_type", "password")), 400, "unsupported_grant_type"},
		"another's audience":         {w.ask(form(id, secret, "audience", "bank")), 400, "invalid_target"},
		"a scope it may not have":    {w.ask(form(id, secret, "scope", "agent:connect admin")), 400, "invalid_scope"},
		"a parameter twice":          {w.ask(url.Values{"grant_type": {"client_credentials", "client_credentials"}, "client_id": {id}, "client_secret": {secret}}), 400, "invalid_request"},
		"a form that is too large":   {w.ask(form(id, secret, "x", strings.Repeat("x", 9000))), 400, "invalid_request"},
	} {
		if c.a.status != c.status || c.a.Error != c.code || c.a.About == "" || c.a.Token != "" {
			t.Errorf("%s: %+v, want %d %s", name, c.a, c.status, c.code)
		}
		if c.status == 401 != strings.HasPrefix(c.a.header.Get("WWW-Authenticate"), "Basic ") {
			t.Errorf("%s: WWW-Authenticate is %q", name, c.a.header.Get("WWW-Authenticate"))
		}
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+"/oauth/token", strings.NewReader(`{"grant_type":"client_credentials"}`))
	must(t, err)
	request.Header.Set("Content-Type", "application/json")
	if a := w.send(request); a.status != 400 || a.Error != "invalid_request" {
		t.Errorf("JSON: %+v", a)
	}
	known, unknown := w.ask(form(id, "guess")), w.ask(form("client-x", "guess"))
	if known.About != unknown.About {
		t.Errorf("it tells which clients there are: %q and %q", known.About, unknown.About)
	}
}

func TestASecretIsReplacedWithoutAGap(t *testing.T) {
	t.Parallel()
	w := serve(t)
	id, first := w.client("agent:connect")
	replace := func(keep time.Duration) string {
		t.Helper()
		secret, err := w.Replace(t.Context(), id, keep)
		must(t, err)
		return secret
	}
	holds := func(secret string) bool { return w.ask(form(id, secret)).status == http.StatusOK }
	second := replace(time.Hour)
	if !holds(first) || !holds(second) {
		t.Error("both must hold while one replaces the other")
	}
	w.clock.move(time.Hour)
	if holds(first) || !holds(second) {
		t.Error("after its time the old one still holds, or the new one does not")
	}
	third := replace(time.Hour)
	fourth := replace(time.Hour)
	if holds(second) || !holds(third) || !holds(fourth) {
		t.Error("of three the oldest must end")
	}
	fifth := replace(0)
	if holds(third) || holds(fourth) || !holds(fifth) {
		t.Error("a secret that is replaced at once still holds")
	}
	must(t, w.Disable(t.Context(), id))
	if holds(fifth) {
		t.Error("a client that was ended gets tokens")
	}
	client, err := kept{w.store}.Client(t.Context(), id)
	must(t, err)
	data, _, err := w.store.IssuerClient(t.Context(), id)
	must(t, err)
	for _, secret := range []string{first, second, third, fourth, fifth} {
		if strings.Contains(data, secret) {
			t.Error("a secret is kept in clear")
		}
	}
	if len(client.Secrets) != 0 {
		t.Errorf("it still has secrets: %v", client.Secrets)
	}
}

func TestKeysRotateAndOldTokensHoldUntilTheyExpire(t *testing.T) {
	t.Parallel()
	w := serve(t)
	id, secret := w.client("agent:connect")
	keys := func() (ids []string) {
		set, err := w.Keys(t.Context())
		must(t, err)
		for _, key := range set.Keys {
			ids = append(ids, key.KeyID)
		}
		return ids
	}
	must(t, w.Rotate(t.Context()))
	first := keys()
	if len(first) != 1 {
		t.Fatalf("keys: %v", first)
	}
	w.clock.move(30*24*time.Hour - time.Hour) // the next key is published before it signs
	must(t, w.Rotate(t.Context()))
	if announced := keys(); len(announced) != 2 || announced[0] != first[0] {
		t.Errorf("keys an hour before the change: %v", announced)
	}
	w.clock.move(50 * time.Minute)
	before := w.ask(form(id, secret)).Token
	w.clock.move(11 * time.Minute)
	after := w.ask(form(id, secret)).Token
	if kid(t, before) == kid(t, after) {
		t.Error("the same key signs after its time")
	}
	for name, token := range map[string]string{"signed by the old key": before, "signed by the new key": after} {
		if err := w.verify(token); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := w.VerifySignature(t.Context(), token); err != nil {
			t.Errorf("%s, in the same process: %v", name, err)
		}
	}
	w.clock.move(15*time.Minute + time.Second)
	if err := w.verify(before); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("a token that expired: %v", err)
	}
	w.clock.move(2 * time.Hour)
	must(t, w.Rotate(t.Context()))
	if left := keys(); len(left) != 1 || left[0] == first[0] {
		t.Errorf("keys after the old one's last token: %v", left)
	}
	stored, err := w.store.IssuerKeys(t.Context())
	must(t, err)
	if len(stored) != 1 {
		t.Errorf("%d keys are kept", len(stored))
	}
}

// kid is the id of the key that signed a token.
func kid(t *testing.T, token string) string {
	t.Helper()
	text, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[0])
	must(t, err)
	var header struct{ Kid, Alg string }
	must(t, json.Unmarshal(text, &header))
	if header.Kid == "" || header.Alg != "ES256" {
		t.Errorf("header %s", text)
	}
	return header.Kid
}

func TestReplicasShareKeysAndClients(t *testing.T) {
	t.Parallel()
	w := serve(t)
	id, secret := w.client("agent:connect")
	other := w.replica()
	must(t, other.Rotate(t.Context()))
	token := w.ask(form(id, secret)).Token
	if _, err := other.VerifySignature(t.Context(), token); err != nil {
		t.Errorf("a token of one replica at the other: %v", err)
	}
	replaced, err := other.Replace(t.Context(), id, 0)
	must(t, err)
	if w.ask(form(id, secret)).status != http.StatusUnauthorized || w.ask(form(id, replaced)).status != http.StatusOK {
		t.Error("a secret that one replica replaced")
	}
	foreign := serve(t)
	foreignID, foreignSecret := foreign.client("agent:connect")
	if _, err := other.VerifySignature(t.Context(), foreign.ask(form(foreignID, foreignSecret)).Token); err == nil {
		t.Error("a token of another issuer is accepted")
	}
	if _, err := other.VerifySignature(t.Context(), "eyJhbGciOiJub25lIn0.e30."); err == nil {
		t.Error("a token without a signature is accepted")
	}
}

func TestWhoGuessesIsSlowedDownAndNobodyElse(t *testing.T) {
	t.Parallel()
	w := serve(t)
	id, secret := w.client("agent:connect")
	other, otherSecret := w.client("agent:connect")
	var slowed answer
	for range 20 {
		if slowed = w.ask(form(id, "guess")); slowed.status == http.StatusTooManyRequests {
			break
		}
	}
	if slowed.status != http.StatusTooManyRequests || slowed.header.Get("Retry-After") == "" {
		t.Fatalf("twenty guesses: %+v", slowed)
	}
	if a := w.ask(form(id, secret)); a.status != http.StatusTooManyRequests {
		t.Errorf("the right secret among guesses tells nothing while they last: %+v", a)
	}
	if a := w.ask(form(other, otherSecret)); a.status != http.StatusOK {
		t.Errorf("another client at the same address: %+v", a)
	}
	w.clock.move(10 * time.Second)
	if a := w.ask(form(id, secret)); a.status != http.StatusOK {
		t.Errorf("later: %+v", a)
	}
}

func TestAnIssuerNeedsAnAddressThatOthersCanUse(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"", "towpath.example.com", "https://towpath.example.com/", "https://towpath.example.com?x", "ftp://towpath.example.com"} {
		if _, err := issuer.New(issuer.Config{URL: address, Audience: "towpath", Store: kept{}}); err == nil || !strings.Contains(err.Error(), "must be an absolute http(s) URL") {
			t.Errorf("%q: %v", address, err)
		}
	}
}

// What was recorded by mistake, and taken away again, can be recorded once more: the agent has no other credential.
func TestAClientThatExistsIsAdoptedUnlessSomebodyHasIt(t *testing.T) {
	t.Parallel()
	w := serve(t)
	const secret = "a-secret-of-the-time-before-the-loss"
	holds := func() bool { return w.ask(form("client-before", secret)).status == http.StatusOK }
	must(t, w.Adopt(t.Context(), "client-before", secret, "agent:connect"))
	if !holds() {
		t.Error("an adopted client gets no token")
	}
	if err := w.Adopt(t.Context(), "client-before", secret, "agent:connect"); err == nil || !strings.Contains(err.Error(), "keeping client client-before: ") {
		t.Errorf("one that somebody has: %v", err)
	}
	must(t, w.Disable(t.Context(), "client-before"))
	if holds() {
		t.Error("a disabled client gets a token")
	}
	must(t, w.Adopt(t.Context(), "client-before", secret, "agent:connect"))
	if !holds() {
		t.Error("a client that was adopted again gets no token")
	}
}
