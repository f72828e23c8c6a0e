package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

// Attempt is what is remembered of a request that its sender may send again.
type Attempt struct {
	ID     string // of the deployment that it starts
	Answer []byte // to its first sending; nil: none was given yet
}

// Once is a request that is done once, however often it is sent with the same key.
type Once struct {
	Key string `header:"Idempotency-Key" maxLength:"128" doc:"chosen by the sender, for one request: sent again with the same key within 24 hours, it is done once and gets the same answer"`
}

// once does what a request asks for, with the id of the deployment that it starts, or gives the answer that its first sending got. Twins that come at
// once both do it with one id, and the store lets one of them count.
func once[T any](ctx context.Context, s *server, o Once, request any, do func(id string) (T, error)) (*body[T], error) {
	caller := callerOf(ctx)
	if o.Key == "" {
		out, err := do(s.backend.NewID())
		return answer(s, out, err)
	}
	var out T
	name, err := digest(request)
	if err != nil {
		return nil, s.fail(err)
	}
	attempt, err := s.backend.Attempt(ctx, caller, o.Key, name, s.backend.NewID())
	if err != nil {
		return nil, s.fail(err)
	}
	if attempt.Answer != nil {
		return answer(s, out, json.Unmarshal(attempt.Answer, &out))
	}
	if out, err = do(attempt.ID); err != nil {
		return nil, s.fail(err)
	}
	text, err := json.Marshal(out)
	if err == nil {
		err = s.backend.Answered(ctx, caller, o.Key, text)
	}
	return answer(s, out, err)
}

// digest tells requests apart.
func digest(request any) (string, error) {
	text, err := json.Marshal(request)
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), err
}
