package hub

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Scope is what a token must be allowed to do.
const Scope = "agent:connect"

const (
	leeway       = time.Minute
	maxToken     = 16 << 10
	cachedTokens = 20_000
)

// algorithms are those tokens may be signed with: asymmetric ones, so that nobody who can check a token can make one.
var algorithms = []string{
	oidc.ES256, oidc.ES384, oidc.ES512, oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.EdDSA,
}

// VerifierConfig is what a Verifier needs; all but Clock are required.
type VerifierConfig struct {
	Issuer   string      // as tokens name it
	Audience string      // the hub's name among the audiences of tokens
	Keys     oidc.KeySet // RemoteKeys for an issuer elsewhere; the built-in issuer is one itself
	// Lookup says whose a proven subject is. Its error is what an agent is told, as PERMISSION_DENIED: it comes back only as often as agents that were refused
	// do. A gRPC status among its causes is passed on, so that a store that is down is not mistaken for an unknown identity.
	Lookup func(ctx context.Context, issuer, subject string) (Owner, error)
	Clock  func() time.Time // none: time.Now
}

// Owner is the agent that an identity is that of.
type Owner struct {
	Tenant, Agent string
	Revoked       time.Time // tokens that were issued before this count no more; zero: none were revoked
}

// Verifier proves tokens of one issuer and remembers those it has proven until they expire. Use NewVerifier; safe for concurrent use.
type Verifier struct {
	config   VerifierConfig
	verifier *oidc.IDTokenVerifier

	mu     sync.Mutex
	proven map[[sha256.Size]byte]Identity
	epoch  uint64 // of Forget: what was looked up before it is not kept after it
}

// NewVerifier makes a verifier; it makes no network call.
func NewVerifier(c VerifierConfig) (*Verifier, error) {
	if c.Issuer == "" || c.Audience == "" || c.Keys == nil || c.Lookup == nil {
		return nil, errors.New("hub: a verifier needs the issuer, the audience, the issuer's keys, and a way to look identities up")
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	return &Verifier{
		config: c,
		verifier: oidc.NewVerifier(c.Issuer, c.Keys, &oidc.Config{
			ClientID: c.Audience, SupportedSigningAlgs: algorithms, SkipExpiryCheck: true, Now: c.Clock, // go-oidc has no leeway for exp: checked below
		}),
		proven: map[[sha256.Size]byte]Identity{},
	}, nil
}

// Verify is a Config.Verify. Errors name what is wrong with the token, never the token.
func (v *Verifier) Verify(ctx context.Context, token string) (Identity, error) {
	if len(token) > maxToken {
		return Identity{}, fmt.Errorf("the token is longer than %d bytes", maxToken)
	}
	hash := sha256.Sum256([]byte(token))
	now := v.config.Clock()
	v.mu.Lock()
	identity, known := v.proven[hash]
	epoch := v.epoch
	v.mu.Unlock()
	if known {
		if now.After(identity.Expiry.Add(leeway)) {
			return Identity{}, fmt.Errorf("the token has expired at %s", identity.Expiry.UTC().Format(time.RFC3339))
		}
		return identity, nil
	}
	identity, err := v.prove(ctx, token, now)
	if err != nil {
		return Identity{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.epoch == epoch {
		v.keep(hash, identity, now)
	}
	return identity, nil
}

// keep remembers a proven token, and makes room for it; called with mu held.
func (v *Verifier) keep(hash [sha256.Size]byte, identity Identity, now time.Time) {
	if len(v.proven) >= cachedTokens {
		for other, old := range v.proven {
			if now.After(old.Expiry) {
				delete(v.proven, other)
			}
		}
		if len(v.proven) >= cachedTokens {
			clear(v.proven)
		}
	}
	v.proven[hash] = identity
}

// Forget makes the verifier look each identity up again, because one was changed or revoked.
func (v *Verifier) Forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.epoch++
	clear(v.proven)
}

func (v *Verifier) prove(ctx context.Context, token string, now time.Time) (Identity, error) {
	proven, err := v.verifier.Verify(ctx, token)
	if err != nil {
		var unreachable *keysError
		if errors.As(err, &unreachable) {
			return Identity{}, status.Errorf(codes.Unavailable, "the keys of issuer %s cannot be had: %v", v.config.Issuer, unreachable.err)
		}
		return Identity{}, fmt.Errorf("the token is not accepted: %s", strings.TrimPrefix(err.Error(), "oidc: "))
	}
	var claims struct {
		NotBefore *float64        `json:"nbf"`
		Scope     json.RawMessage `json:"scope"`
		SCP       json.RawMessage `json:"scp"`
	}
	if err := proven.Claims(&claims); err != nil {
		return Identity{}, fmt.Errorf("the token's claims are not as expected: %w", err)
	}
	if proven.Subject == "" {
		return Identity{}, errors.New("the token names no subject (sub)")
	}
	if proven.Expiry.IsZero() || proven.Expiry.Unix() <= 0 {
		return Identity{}, errors.New("the token has no expiry (exp)")
	}
	if now.After(proven.Expiry.Add(leeway)) {
		return Identity{}, fmt.Errorf("the token has expired at %s; this hub's clock says %s", proven.Expiry.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	if claims.NotBefore != nil {
		if begins := time.Unix(int64(*claims.NotBefore), 0); now.Add(leeway).Before(begins) {
			return Identity{}, fmt.Errorf("the token counts only from %s; this hub's clock says %s", begins.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
		}
	}
	if !slices.Contains(append(scopes(claims.Scope), scopes(claims.SCP)...), Scope) {
		return Identity{}, fmt.Errorf("the token's scope does not hold %q", Scope)
	}
	owner, err := v.config.Lookup(ctx, proven.Issuer, proven.Subject)
	if _, isStatus := status.FromError(err); err != nil && !isStatus {
		return Identity{}, status.Errorf(codes.PermissionDenied, "identity %q of issuer %s: %v", proven.Subject, proven.Issuer, err)
	}
	if err != nil {
		return Identity{}, fmt.Errorf("identity %q of issuer %s: %w", proven.Subject, proven.Issuer, err)
	}
	if proven.IssuedAt.Before(owner.Revoked) { // also one that does not say when
		return Identity{}, fmt.Errorf("the token was issued at %s; those of agent %q before %s were revoked", proven.IssuedAt.UTC().Format(time.RFC3339), owner.Agent, owner.Revoked.UTC().Format(time.RFC3339))
	}
	return Identity{Tenant: owner.Tenant, Agent: owner.Agent, Subject: proven.Subject, Expiry: proven.Expiry}, nil
}

// scopes reads a scope claim: words in a string as RFC 9068 writes it, or a list as some issuers do.
func scopes(claim json.RawMessage) []string {
	var words string
	if json.Unmarshal(claim, &words) == nil {
		return strings.Fields(words)
	}
	var list []string
	if json.Unmarshal(claim, &list) == nil {
		return list
	}
	return nil
}
