// Package issuer is a small OpenID Connect issuer for machines: it gives access tokens to clients that prove themselves with a secret (OAuth 2.0
// client credentials), signs them with keys that it rotates, and publishes those keys. Where keys and clients are kept is the caller's business.
package issuer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	defaultLifetime = 15 * time.Minute
	defaultRotation = 30 * 24 * time.Hour
	keysCached      = time.Minute     // keys are read from the store this often
	keysAgain       = 2 * time.Second // and for an unknown key id at most this often
	maxSecrets      = 2
)

// ErrNotFound is what a Store returns for a client it does not have.
var ErrNotFound = errors.New("no such client")

// ErrConflict is what a Store returns when a client changed since it was read.
var ErrConflict = errors.New("the client was changed meanwhile")

// Key is a signing key. Private is secret (a store seals it); the rest is public.
type Key struct {
	ID      string
	Private []byte    // PKCS #8
	Created time.Time // known to everybody a while before it is used
	Active  time.Time // signs from then on
	Retires time.Time // signs until then
	Expires time.Time // no token it signed lasts longer: it is no longer published, and may be deleted
}

// Client is somebody who gets tokens.
type Client struct {
	ID       string
	Secrets  []Secret // at most two, so that one can be replaced while the other is in use
	Scopes   []string // what its tokens may say
	Audience []string // whom its tokens may be for
	Disabled bool
	Created  time.Time
	Version  int64 // counted up by the store, to notice concurrent changes
}

// Secret is what is kept of a client's secret.
type Secret struct {
	ID      string // to tell the two apart; no secret
	Hash    []byte // SHA-256 of the secret, which has 256 random bits, so that there is nothing to guess
	Created time.Time
	Expires time.Time // zero: never
}

// Store keeps keys and clients. All replicas of an issuer share one. Safe for concurrent use.
type Store interface {
	// Keys lists all keys.
	Keys(ctx context.Context) ([]Key, error)
	// SaveKey adds a key. A key of the same ID stays as it is and is no error: replicas may make the same one.
	SaveKey(ctx context.Context, key Key) error
	// DeleteKey removes a key; one that is not there is no error.
	DeleteKey(ctx context.Context, id string) error
	// Client reads a client; ErrNotFound when there is none.
	Client(ctx context.Context, id string) (Client, error)
	// SaveClient adds a client whose Version is 0, or changes one if its Version is still the same; else ErrConflict.
	SaveClient(ctx context.Context, client Client) error
}

// Config is what an Issuer needs.
type Config struct {
	URL      string        // the issuer's name and address, as agents reach it; no slash at the end
	Audience string        // of tokens when a request names none
	Store    Store         //
	Lifetime time.Duration // of tokens; 15 minutes
	Rotation time.Duration // a key signs for so long; 30 days
	Clock    func() time.Time
	Rand     io.Reader
}

// Issuer signs tokens. Use New; safe for concurrent use, also by several replicas on one Store.
type Issuer struct {
	config Config
	base   *url.URL
	limits *limiter

	rotating sync.Mutex
	mu       sync.Mutex
	keys     []signingKey
	read     time.Time
}

// signingKey is a Key with its private half decoded.
type signingKey struct {
	Key
	private *ecdsa.PrivateKey
}

// New makes an issuer. It reads nothing yet: the first key is made when it is needed, or by Rotate.
func New(c Config) (*Issuer, error) {
	base, err := url.Parse(c.URL)
	if err != nil || base.Host == "" || (base.Scheme != "https" && base.Scheme != "http") || base.RawQuery != "" || base.Fragment != "" || strings.HasSuffix(c.URL, "/") {
		return nil, fmt.Errorf("the issuer's URL %q must be an absolute http(s) URL without query, fragment and final slash", c.URL)
	}
	if c.Audience == "" || c.Store == nil {
		return nil, errors.New("issuer: Audience and Store are required")
	}
	if c.Lifetime == 0 {
		c.Lifetime = defaultLifetime
	}
	if c.Rotation == 0 {
		c.Rotation = defaultRotation
	}
	if c.Rotation < 4*keysCached {
		return nil, fmt.Errorf("issuer: keys that change each %s are not known to everybody in time; the least is %s", c.Rotation, 4*keysCached)
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	return &Issuer{config: c, base: base, limits: newLimiter(c.Clock)}, nil
}

// announced is how long a key is published before it signs: two fetches of somebody who keeps keys for an hour, or less for quick rotations.
func (i *Issuer) announced() time.Duration {
	return min(2*time.Hour, i.config.Rotation/4)
}

// Rotate makes the key that is needed next, when it is time to publish it, and deletes those whose tokens have all expired. Call it at the start and
// each few minutes; tokens are signed without it too, as long as the store can be written when a key is needed.
func (i *Issuer) Rotate(ctx context.Context) error {
	_, err := i.load(ctx, true)
	return err
}

// load returns all keys, reading and rotating when it is time.
func (i *Issuer) load(ctx context.Context, fresh bool) ([]signingKey, error) {
	i.rotating.Lock()
	defer i.rotating.Unlock()
	now := i.config.Clock()
	i.mu.Lock()
	keys, read := i.keys, i.read
	i.mu.Unlock()
	if !fresh && now.Sub(read) < keysCached && signer(keys, now) != nil {
		return keys, nil
	}
	stored, err := i.config.Store.Keys(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the signing keys: %w", err)
	}
	for _, key := range stored {
		if now.After(key.Expires.Add(time.Hour)) {
			if err := i.config.Store.DeleteKey(ctx, key.ID); err != nil {
				return nil, fmt.Errorf("deleting signing key %s: %w", key.ID, err)
			}
		}
	}
	if next, needed := i.next(stored, now); needed {
		key, err := i.makeKey(next, now)
		if err != nil {
			return nil, err
		}
		if err := i.config.Store.SaveKey(ctx, key); err != nil {
			return nil, fmt.Errorf("keeping a new signing key: %w", err)
		}
		if stored, err = i.config.Store.Keys(ctx); err != nil { // another replica's may have won
			return nil, fmt.Errorf("reading the signing keys: %w", err)
		}
	}
	keys = nil
	for _, key := range stored {
		if now.After(key.Expires) {
			continue
		}
		decoded, err := decode(key)
		if err != nil {
			return nil, err
		}
		keys = append(keys, decoded)
	}
	slices.SortFunc(keys, func(a, b signingKey) int { return a.Active.Compare(b.Active) })
	i.mu.Lock()
	i.keys, i.read = keys, now
	i.mu.Unlock()
	return keys, nil
}

// next says from when on a new key must sign, if one must be made now.
func (i *Issuer) next(stored []Key, now time.Time) (time.Time, bool) {
	var last time.Time
	for _, key := range stored {
		if key.Retires.After(last) {
			last = key.Retires
		}
	}
	switch {
	case !last.After(now): // the first one, or nobody rotated for long: there is no time to announce it
		return now, true
	case last.Sub(now) <= i.announced():
		return last, true
	}
	return time.Time{}, false
}

func (i *Issuer) makeKey(active, now time.Time) (Key, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), i.config.Rand)
	if err != nil {
		return Key{}, fmt.Errorf("making a signing key: %w", err)
	}
	text, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return Key{}, fmt.Errorf("making a signing key: %w", err)
	}
	// The ID names the time of its turn, so that replicas which make a key for the same turn keep one of them; the first key of all has no
	// turn that they could agree on, and two of those do no harm.
	id := active.UTC().Format("20060102T150405.000000")
	retires := active.Add(i.config.Rotation)
	return Key{ID: id, Private: text, Created: now, Active: active, Retires: retires, Expires: retires.Add(i.config.Lifetime + 5*time.Minute)}, nil
}

func decode(key Key) (signingKey, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(key.Private)
	if err != nil {
		return signingKey{}, fmt.Errorf("signing key %s cannot be read: %w", key.ID, err)
	}
	private, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return signingKey{}, fmt.Errorf("signing key %s is a %T, not an ECDSA key", key.ID, parsed)
	}
	return signingKey{Key: key, private: private}, nil
}

// signer is the key whose turn it is: of several, the one that began first, so that replicas agree.
func signer(keys []signingKey, now time.Time) *signingKey {
	for n := range keys {
		if !keys[n].Active.After(now) && keys[n].Retires.After(now) {
			return &keys[n]
		}
	}
	return nil
}

// Keys are the public keys that tokens may be checked with.
func (i *Issuer) Keys(ctx context.Context) (jose.JSONWebKeySet, error) {
	keys, err := i.load(ctx, false)
	if err != nil {
		return jose.JSONWebKeySet{}, err
	}
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, key := range keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: &key.private.PublicKey, KeyID: key.ID, Algorithm: string(jose.ES256), Use: "sig"})
	}
	return set, nil
}

// VerifySignature makes an Issuer an oidc.KeySet, for those in its own process: the payload of a token that one of its keys signed.
func (i *Issuer) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return nil, fmt.Errorf("it is no token signed with ES256: %w", err)
	}
	id := signed.Signatures[0].Header.KeyID
	keys, err := i.Keys(ctx)
	if err == nil && len(keys.Key(id)) == 0 && i.config.Clock().Sub(i.lastRead()) > keysAgain { // another replica may have made the first key just now
		if _, err = i.load(ctx, true); err == nil {
			keys, err = i.Keys(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	for _, key := range keys.Key(id) {
		if payload, err := signed.Verify(&key); err == nil {
			return payload, nil
		}
	}
	return nil, fmt.Errorf("no key of this issuer with id %.80q fits its signature", id)
}

func (i *Issuer) lastRead() time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.read
}

// token signs a token for a client.
func (i *Issuer) token(ctx context.Context, client, audience string, scopes []string) (string, error) {
	keys, err := i.load(ctx, false)
	if err != nil {
		return "", err
	}
	now := i.config.Clock()
	key := signer(keys, now)
	if key == nil {
		return "", errors.New("no signing key is active")
	}
	options := (&jose.SignerOptions{}).WithType("at+jwt")
	signing, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key.private, KeyID: key.ID}}, options)
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	id, err := i.random(16)
	if err != nil {
		return "", err
	}
	claims := struct {
		jwt.Claims
		Scope    string `json:"scope"`
		ClientID string `json:"client_id"`
	}{
		Claims: jwt.Claims{
			Issuer: i.config.URL, Subject: client, Audience: jwt.Audience{audience}, ID: id,
			IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(i.config.Lifetime)),
		},
		Scope: strings.Join(scopes, " "), ClientID: client,
	}
	text, err := jwt.Signed(signing).Claims(claims).Serialize()
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	return text, nil
}

// Create adds a client that may have tokens with these scopes for the issuer's audience. The secret is returned this once and kept nowhere.
func (i *Issuer) Create(ctx context.Context, scopes ...string) (id, secret string, err error) {
	random, err := i.random(12)
	if err != nil {
		return "", "", err
	}
	now := i.config.Clock()
	kept, secret, err := i.makeSecret(now)
	if err != nil {
		return "", "", err
	}
	client := Client{ID: "client-" + strings.ToLower(random), Secrets: []Secret{kept}, Scopes: scopes, Audience: []string{i.config.Audience}, Created: now}
	if err := i.config.Store.SaveClient(ctx, client); err != nil {
		return "", "", fmt.Errorf("keeping client %s: %w", client.ID, err)
	}
	return client.ID, secret, nil
}

// Adopt adds a client with an id and a secret that it has already: the store that knew of it was lost. One that was disabled is taken up again.
func (i *Issuer) Adopt(ctx context.Context, id, secret string, scopes ...string) error {
	now := i.config.Clock()
	kept, err := i.keep(secret, now)
	if err != nil {
		return err
	}
	client := Client{ID: id, Secrets: []Secret{kept}, Scopes: scopes, Audience: []string{i.config.Audience}, Created: now}
	former, err := i.config.Store.Client(ctx, id)
	switch {
	case err == nil && former.Disabled:
		client.Version = former.Version
	case err != nil && !errors.Is(err, ErrNotFound):
		return fmt.Errorf("client %s: %w", id, err)
	}
	if err := i.config.Store.SaveClient(ctx, client); err != nil {
		return fmt.Errorf("keeping client %s: %w", id, err)
	}
	return nil
}

// Replace gives a client a new secret. The old ones count for keep longer (0: end now); of three, the oldest ends.
func (i *Issuer) Replace(ctx context.Context, id string, keep time.Duration) (secret string, err error) {
	client, err := i.config.Store.Client(ctx, id)
	if err != nil {
		return "", fmt.Errorf("client %s: %w", id, err)
	}
	now := i.config.Clock()
	kept, secret, err := i.makeSecret(now)
	if err != nil {
		return "", err
	}
	var old []Secret
	for _, former := range client.Secrets {
		if keep > 0 && !former.expired(now) {
			if end := now.Add(keep); former.Expires.IsZero() || former.Expires.After(end) {
				former.Expires = end
			}
			old = append(old, former)
		}
	}
	client.Secrets = append(old[max(0, len(old)-(maxSecrets-1)):], kept)
	if err := i.config.Store.SaveClient(ctx, client); err != nil {
		return "", fmt.Errorf("client %s: %w", id, err)
	}
	return secret, nil
}

// Disable ends a client: it gets no more tokens. Those it has last until they expire, so tell whoever accepts them.
func (i *Issuer) Disable(ctx context.Context, id string) error {
	client, err := i.config.Store.Client(ctx, id)
	if err == nil {
		client.Disabled, client.Secrets = true, nil
		err = i.config.Store.SaveClient(ctx, client)
	}
	if err != nil {
		return fmt.Errorf("client %s: %w", id, err)
	}
	return nil
}

func (i *Issuer) makeSecret(now time.Time) (Secret, string, error) {
	text, err := i.random(32)
	if err != nil {
		return Secret{}, "", err
	}
	kept, err := i.keep(text, now)
	return kept, text, err
}

// keep is what is kept of a secret.
func (i *Issuer) keep(text string, now time.Time) (Secret, error) {
	id, err := i.random(6)
	hash := sha256.Sum256([]byte(text))
	return Secret{ID: id, Hash: hash[:], Created: now}, err
}

func (s Secret) expired(now time.Time) bool { return !s.Expires.IsZero() && !now.Before(s.Expires) }

// owns reports whether a secret is one of the client's, in a time that tells nothing about it.
func (c Client) owns(secret string, now time.Time) bool {
	hash := sha256.Sum256([]byte(secret))
	found := 0
	for _, kept := range c.Secrets {
		equal := subtle.ConstantTimeCompare(hash[:], kept.Hash)
		if !kept.expired(now) {
			found |= equal
		}
	}
	return found == 1 && !c.Disabled
}

func (i *Issuer) random(bytes int) (string, error) {
	raw := make([]byte, bytes)
	if _, err := io.ReadFull(i.config.Rand, raw); err != nil {
		return "", fmt.Errorf("reading random bytes: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(raw), nil
}
