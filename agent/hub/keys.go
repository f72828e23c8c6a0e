package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	keysRefresh = 30 * time.Second // unknown key ids fetch the keys no more often than this
	keysAge     = time.Hour        // known ones are fetched again after this, so that a withdrawn key ends
	maxKeys     = 1 << 20
)

// RemoteKeys are the public keys of an issuer elsewhere, found by its discovery document when the first token comes. Use NewRemoteKeys; safe for
// concurrent use.
type RemoteKeys struct {
	issuer string
	client *http.Client
	now    func() time.Time

	mu      sync.Mutex // held while fetching: those who need the keys wait for one fetch
	keys    jose.JSONWebKeySet
	fetched time.Time
	tried   time.Time
	err     error // of the last try
}

// keysError is a failure to get the keys, as opposed to a token that they do not fit.
type keysError struct{ err error }

func (e *keysError) Error() string { return e.err.Error() }
func (e *keysError) Unwrap() error { return e.err }

// NewRemoteKeys makes the keys of an issuer, fetched by client, which should have a timeout; clock may be nil for time.Now.
func NewRemoteKeys(issuer string, client *http.Client, clock func() time.Time) *RemoteKeys {
	if clock == nil {
		clock = time.Now
	}
	return &RemoteKeys{issuer: issuer, client: client, now: clock}
}

// VerifySignature implements oidc.KeySet.
func (r *RemoteKeys) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	allowed := make([]jose.SignatureAlgorithm, len(algorithms))
	for i, algorithm := range algorithms {
		allowed[i] = jose.SignatureAlgorithm(algorithm)
	}
	signed, err := jose.ParseSignedCompact(token, allowed)
	if err != nil {
		return nil, fmt.Errorf("it is no signed token: %w", err)
	}
	id := signed.Signatures[0].Header.KeyID
	keys, err := r.get(ctx, id)
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		if payload, err := signed.Verify(&key); err == nil {
			return payload, nil
		}
	}
	return nil, fmt.Errorf("no key of the issuer with id %.80q fits its signature", id)
}

// get returns the keys with an id; all of them when the token names none.
func (r *RemoteKeys) get(ctx context.Context, id string) ([]jose.JSONWebKey, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	found := r.find(id)
	now := r.now()
	due := len(found) == 0 || now.Sub(r.fetched) > keysAge
	if due && (r.tried.IsZero() || now.Sub(r.tried) >= keysRefresh) {
		r.tried = now
		keys, err := r.fetch(ctx)
		if err == nil {
			r.keys, r.fetched = keys, now
			found = r.find(id)
		}
		r.err = err
	}
	if len(found) == 0 && r.err != nil {
		return nil, &keysError{r.err}
	}
	return found, nil
}

func (r *RemoteKeys) find(id string) []jose.JSONWebKey {
	if id == "" {
		return r.keys.Keys
	}
	return r.keys.Key(id)
}

func (r *RemoteKeys) fetch(ctx context.Context) (jose.JSONWebKeySet, error) {
	var keys jose.JSONWebKeySet
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second) // others wait for it as well as the one who asked
	defer cancel()
	var discovery struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := r.read(ctx, strings.TrimSuffix(r.issuer, "/")+"/.well-known/openid-configuration", &discovery); err != nil {
		return keys, err
	}
	if discovery.Issuer != r.issuer {
		return keys, fmt.Errorf("the discovery document of %s is that of %q", r.issuer, discovery.Issuer)
	}
	if discovery.Keys == "" {
		return keys, errors.New("the discovery document names no jwks_uri")
	}
	if err := r.read(ctx, discovery.Keys, &keys); err != nil {
		return keys, err
	}
	return keys, nil
}

func (r *RemoteKeys) read(ctx context.Context, url string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := r.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxKeys))
	if err != nil {
		return fmt.Errorf("reading %s: %w", url, err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, response.Status)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s is not as expected: %w", url, err)
	}
	return nil
}
