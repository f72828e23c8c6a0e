package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"

	"towpath/api"
	"towpath/cmd/towpath-controller/config"
	"towpath/reconcile/rollout"
	"towpath/status"
	"towpath/store"
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
	guid, event, err := delivery(header)
	if err != nil {
		return err
	}
	about := store.Hints{Sources: []string{name}}
	if heard, heed, err := status.Hear(event, body); err == nil && heed && heard.Comment != 0 {
		if !s.config.Plans() || !strings.EqualFold(heard.Repository, s.config.Repository()) {
			return nil
		}
		about = store.Hints{Comments: b.comments([]config.Source{s.config}, heard)}
	}
	_, err = b.store.Deliver(ctx, name, guid, event, body, about)
	return err
}

// DeliverOfApp stores what the webhook of a GitHub App says with the wakes of the sources that it is about. What nothing is made of is not kept.
func (b *backend) DeliverOfApp(ctx context.Context, header http.Header, body []byte) error {
	app, err := b.apps.signed(header, body)
	switch {
	case err != nil:
		return &api.Problem{Status: http.StatusUnauthorized, Text: err.Error()}
	case app == nil:
		return &api.Problem{Status: http.StatusNotFound, Text: "no GitHub App with a webhook; name its secret in github.apps[].webhookSecretFiles"}
	}
	guid, event, err := delivery(header)
	if err != nil {
		return err
	}
	heard, heed, err := status.Hear(event, body)
	switch {
	case err != nil:
		return &api.Problem{Status: http.StatusBadRequest, Text: err.Error()}
	case !heed:
		return nil
	}
	about, err := b.heeds(ctx, app, heard)
	if err != nil || about.Empty() {
		return err
	}
	_, err = b.store.Deliver(ctx, "github.apps "+app.Name(), guid, event, body, about)
	return err
}

// heeds is what is to be looked at after what an App heard.
func (b *backend) heeds(ctx context.Context, app *gitHubApp, heard status.Heard) (about store.Hints, err error) {
	var planned []config.Source
	b.mu.Lock()
	for name, s := range b.sources {
		c := s.config
		if c.GitHub.App != app.Name() && c.Auth.GitHubApp != app.Name() || !heard.About(app.App, c.Repository(), c.Branch) {
			continue
		}
		if heard.Moved {
			app.Relocate(c.Repository())
		}
		switch {
		case !heard.Proposes():
			about.Sources = append(about.Sources, name)
		case c.Plans():
			planned = append(planned, c)
		}
	}
	b.mu.Unlock()
	if heard.Comment != 0 {
		about.Comments = b.comments(planned, heard)
		return about, nil
	}
	for _, s := range planned {
		of, err := b.proposalsOf(ctx, s, heard)
		if err != nil {
			return store.Hints{}, err
		}
		about.Proposals = append(about.Proposals, of...)
	}
	return about, nil
}

// proposalsOf are the proposals of a source that something heard is about.
func (b *backend) proposalsOf(ctx context.Context, s config.Source, heard status.Heard) (looks []rollout.ProposalLook, err error) {
	name := rollout.ProposalName{Tenant: s.Tenant, Source: s.Name, Pull: heard.Pull, Group: heard.Group}
	if heard.Again == "" {
		return []rollout.ProposalLook{{ProposalName: name, Gone: heard.GroupGone}}, nil
	}
	known, err := b.store.OpenProposals(ctx, s.Tenant, s.Name)
	for _, k := range known {
		if k.Report.Head == heard.Again {
			looks = append(looks, rollout.ProposalLook{ProposalName: k.Name, Anew: true})
		}
	}
	return looks, err
}

// delivery is what a delivery and its event are called.
func delivery(header http.Header) (guid, event string, err error) {
	guid = header.Get("X-GitHub-Delivery")
	if guid == "" || len(guid) > 128 {
		return "", "", &api.Problem{Status: http.StatusBadRequest, Text: "X-GitHub-Delivery must name the delivery, in at most 128 characters"}
	}
	return guid, header.Get("X-GitHub-Event"), nil
}

// appMade is where GitHub leads a person who made an App of a manifest.
func appMade(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	code := r.URL.Query().Get("code")
	if !appCode.MatchString(code) {
		fmt.Fprintln(w, "GitHub Apps send their webhooks here. To make one:  towpath github app-manifest")
		return
	}
	fmt.Fprintf(w, "The App is made. Fetch its key, within an hour, on the machine that is to have it:\n\n    towpath github app-create %s --out DIRECTORY\n", code)
}

// appCode is one as GitHub gives it.
var appCode = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)

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
