package hub

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Issuers proves tokens of several issuers, each by its own verifier.
type Issuers []*Verifier

// Verify proves a token by the verifier of the issuer that it names. What a token names proves nothing: only that verifier does.
func (all Issuers) Verify(ctx context.Context, token string) (Identity, error) {
	issuer := issuerOf(token)
	i := slices.IndexFunc(all, func(v *Verifier) bool { return v.config.Issuer == issuer })
	if i < 0 {
		var known []string
		for _, v := range all {
			known = append(known, v.config.Issuer)
		}
		if issuer == "" {
			return Identity{}, errors.New("the token is no JWT that names its issuer, so it cannot be checked here; some issuers give one only to who asks for a resource (identity.resource of the agent)")
		}
		return Identity{}, fmt.Errorf("the token is one of issuer %.200q; trusted here: %s (agents.issuers)", issuer, strings.Join(known, ", "))
	}
	return all[i].Verify(ctx, token)
}

// Forget makes each verifier look its identities up again.
func (all Issuers) Forget() {
	for _, v := range all {
		v.Forget()
	}
}

// issuerOf is the issuer that an unproven token names; "" when it is no token.
func issuerOf(token string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return ""
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	if json.Unmarshal(payload, &claims) != nil {
		return ""
	}
	return claims.Issuer
}
