package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"strings"

	"towpath/api"
)

// Deliver stores a push webhook's delivery with the wake of its source. What it says is only a hint: the source is fetched, whatever stands in it.
func (b *backend) Deliver(ctx context.Context, name string, header http.Header, body []byte) error {
	b.mu.Lock()
	s := b.sources[name]
	b.mu.Unlock()
	if s == nil || len(s.config.Webhook.SecretFiles) == 0 {
		return &api.Problem{Status: http.StatusNotFound, Text: fmt.Sprintf("no source %s with a webhook", name)}
	}
	if err := verify(s.config.Webhook.SecretFiles, header.Get("X-Hub-Signature-256"), body); err != nil {
		return &api.Problem{Status: http.StatusUnauthorized, Text: err.Error()}
	}
	guid := header.Get("X-GitHub-Delivery")
	if guid == "" || len(guid) > 128 {
		return &api.Problem{Status: http.StatusBadRequest, Text: "X-GitHub-Delivery must name the delivery, in at most 128 characters"}
	}
	_, err := b.store.Deliver(ctx, name, guid, header.Get("X-GitHub-Event"), body)
	return err
}

// verify checks the signature (HMAC-SHA-256) against each of the secrets; there are two while one is replaced by the other.
func verify(secretFiles []string, signature string, body []byte) error {
	sent, err := hex.DecodeString(strings.TrimPrefix(signature, "sha256="))
	if err != nil || len(sent) != sha256.Size || !strings.HasPrefix(signature, "sha256=") {
		return fmt.Errorf("X-Hub-Signature-256 must be sha256= and 64 hexadecimal digits; set the webhook's secret")
	}
	for _, file := range secretFiles {
		text, err := os.ReadFile(file)
		secret := strings.TrimSpace(string(text))
		if err != nil || secret == "" {
			continue // an unreadable secret signs nothing
		}
		sum := hmac.New(sha256.New, []byte(secret))
		sum.Write(body)
		if hmac.Equal(sum.Sum(nil), sent) {
			return nil
		}
	}
	return fmt.Errorf("the signature does not match: the secret here and the one of the webhook differ")
}
