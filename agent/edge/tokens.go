package edge

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

const (
	maxAnswer       = 1 << 20
	assumedLifetime = 5 * time.Minute // of a token whose issuer does not say
)

// tokens keeps a fresh token of the agent's identity.
type tokens struct {
	identity Identity
	client   *http.Client
	log      logrus.FieldLogger

	wanted chan struct{} // a token was refused: fetch before it is time; capacity 1

	mu      sync.Mutex
	current string
	expiry  time.Time // on the monotonic clock
	changed chan struct{}
	failure error // of the last fetch
}

func newTokens(identity Identity, client *http.Client, log logrus.FieldLogger) *tokens {
	return &tokens{identity: identity, client: client, log: log, wanted: make(chan struct{}, 1), changed: make(chan struct{})}
}

// run fetches tokens until ctx ends.
func (t *tokens) run(ctx context.Context) {
	var pause backoff
	for ctx.Err() == nil {
		token, lifetime, err := t.fetch(ctx)
		var wait time.Duration
		if err != nil {
			t.log.WithError(err).Error("no token could be fetched")
			wait = pause.next()
			if held, _, _ := t.get(); held != "" {
				wait = 10*time.Second + rand.N(50*time.Second)
			}
		} else {
			pause = backoff{}
			wait = time.Duration(float64(lifetime) * (0.65 + 0.2*rand.Float64()))
		}
		t.set(token, lifetime, err)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-t.wanted:
			timer.Stop()
			select { // a hub that refuses each token is not to make the issuer busy
			case <-time.After(5*time.Second + rand.N(5*time.Second)):
			case <-ctx.Done():
			}
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

func (t *tokens) set(token string, lifetime time.Duration, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failure = err
	if err == nil {
		t.current, t.expiry = token, time.Now().Add(lifetime)
	}
	close(t.changed)
	t.changed = make(chan struct{})
}

// get returns the token ("" when there is none that lasts), why there is none, and a channel that is closed when that changes.
func (t *tokens) get() (string, error, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current != "" && time.Now().Before(t.expiry) {
		return t.current, nil, t.changed
	}
	return "", t.failure, t.changed
}

// wait returns a token, or why there is none once a fetch has failed.
func (t *tokens) wait(ctx context.Context) (string, error) {
	for {
		token, failure, changed := t.get()
		if token != "" {
			return token, nil
		}
		if failure != nil {
			return "", failure
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// refused asks for another token in place of one that the hub did not take.
func (t *tokens) refused() {
	select {
	case t.wanted <- struct{}{}:
	default:
	}
}

func (t *tokens) remaining() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current == "" {
		return 0
	}
	return max(0, time.Until(t.expiry))
}

func (t *tokens) fetch(ctx context.Context) (string, time.Duration, error) {
	secret, err := os.ReadFile(t.identity.ClientSecretFile)
	if err != nil {
		return "", 0, fmt.Errorf("the client secret cannot be read: %w", err)
	}
	endpoint, err := t.endpoint(ctx)
	if err != nil {
		return "", 0, err
	}
	id, text := t.identity.ClientID, strings.TrimSpace(string(secret))
	form := url.Values{"grant_type": {"client_credentials"}}
	if t.identity.Audience != "" {
		form.Set("audience", t.identity.Audience)
	}
	if t.identity.Resource != "" {
		form.Set("resource", t.identity.Resource)
	}
	if t.identity.Scope != "-" {
		form.Set("scope", t.identity.Scope)
	}
	if t.identity.ClientAuth == "post" {
		form.Set("client_id", id)
		form.Set("client_secret", text)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return "", 0, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Accept", "application/json")
	if t.identity.ClientAuth != "post" {
		request.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(text))
	}
	var answer struct {
		Token       string  `json:"access_token"`
		Expires     float64 `json:"expires_in"`
		Error       string  `json:"error"`
		Description string  `json:"error_description"`
	}
	code, err := t.do(request, &answer)
	switch {
	case answer.Error != "":
		return "", 0, fmt.Errorf("%s refused client %q: %.100s: %.500s", endpoint, id, answer.Error, answer.Description)
	case err != nil:
		return "", 0, err
	case code != http.StatusOK || answer.Token == "":
		return "", 0, fmt.Errorf("%s answered %d without a token", endpoint, code)
	}
	lifetime := time.Duration(answer.Expires) * time.Second
	if lifetime <= 0 {
		lifetime = assumedLifetime
	}
	return answer.Token, min(lifetime, 24*time.Hour), nil
}

// endpoint is where tokens are fetched.
func (t *tokens) endpoint(ctx context.Context) (string, error) {
	if t.identity.TokenURL != "" {
		return t.identity.TokenURL, nil
	}
	place := strings.TrimSuffix(t.identity.Issuer, "/") + "/.well-known/openid-configuration"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, place, nil)
	if err != nil {
		return "", err
	}
	var discovery struct {
		Issuer   string `json:"issuer"`
		Endpoint string `json:"token_endpoint"`
	}
	code, err := t.do(request, &discovery)
	switch {
	case code != 0 && code != http.StatusOK:
		return "", fmt.Errorf("%s answered %d", place, code)
	case err != nil:
		return "", err
	case discovery.Issuer != t.identity.Issuer:
		return "", fmt.Errorf("the discovery document %s is that of issuer %.200q, not of %q", place, discovery.Issuer, t.identity.Issuer)
	case !isURL(discovery.Endpoint):
		return "", fmt.Errorf("%s names no token_endpoint", place)
	}
	return discovery.Endpoint, nil
}

// do sends a request and decodes its answer, whatever its status.
func (t *tokens) do(request *http.Request, into any) (int, error) {
	response, err := t.client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return response.StatusCode, fmt.Errorf("%s: %w", request.URL, err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return response.StatusCode, fmt.Errorf("%s answered %s, and what it says is no JSON", request.URL, response.Status)
	}
	return response.StatusCode, nil
}

// backoff is a pause with full jitter: up to 1 s at first, doubling up to 30 s. The zero value begins anew.
type backoff struct{ limit time.Duration }

func (b *backoff) next() time.Duration {
	if b.limit == 0 {
		b.limit = time.Second
	}
	pause := rand.N(b.limit)
	b.limit = min(2*b.limit, 30*time.Second)
	return pause
}
