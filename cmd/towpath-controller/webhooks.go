package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"towpath/agent/hub"
	"towpath/cmd/towpath-controller/config"
	"towpath/deployment"
	"towpath/policies"
	"towpath/reconcile/rollout"
	"towpath/webhook"
)

// callWebhook makes one call of a webhook of a deployment's file.
func (m *Main) callWebhook(ctx context.Context, asked rollout.Asked) rollout.Answer {
	unfilled, err := m.sendWebhook(ctx, asked)
	answer := rollout.Answer{Result: rollout.Answered, Unfilled: unfilled}
	if err == nil {
		return answer
	}
	answer.Result, answer.Text = rollout.TurnedDown, err.Error()
	var failed *webhook.Failure
	if errors.As(err, &failed) && failed.Again {
		answer.Result = rollout.Unanswered
	}
	return answer
}

// sendWebhook also says which variables of what it sends nothing filled.
func (m *Main) sendWebhook(ctx context.Context, asked rollout.Asked) (unfilled []string, err error) {
	file, problems := deployment.Parse(asked.Path, asked.File)
	if file == nil {
		return nil, fmt.Errorf("%s can no longer be read: %v", asked.Path, problems)
	}
	hook := file.Webhook(asked.Name)
	if hook == nil {
		return nil, fmt.Errorf("%s has no webhook %q", asked.Path, asked.Name)
	}
	secrets := &secretsOf{all: m.config.Secrets, tenant: asked.Target.Tenant, source: asked.Source, application: asked.Target.Application}
	token := m.callbackToken(asked.Target.Tenant, asked.ID)
	values := map[string]string{"armory.callbackUri": m.config.ExternalURL + "/api/v1/callbacks/" + asked.ID, "armory.callbackToken": token}
	secrets.read(hook)
	call := webhook.Call{Webhook: *hook, Key: asked.ID, Value: func(name string) (string, bool) {
		if secret, is := strings.CutPrefix(name, "secrets."); is {
			text, known := secrets.values[secret]
			return text, known
		}
		if text, known := values[name]; known {
			return text, true
		}
		if service, is := strings.CutPrefix(name, previewVariable); is {
			return m.previewAddress(asked.Links[service])
		}
		text, known := asked.Values[name]
		return text, known
	}, Hide: func(text string) string {
		return secrets.hide(strings.ReplaceAll(text, token, webhook.Hidden))
	}, Way: func(at *url.URL) (http.RoundTripper, error) {
		if err := secrets.allow(at); err != nil {
			return nil, err
		}
		if hook.Remote {
			return m.relay(asked.Target, hook.Agent, at), nil
		}
		to, err := m.outside.of(asked.Target.Tenant)
		if err != nil {
			return nil, err
		}
		return to.client.Transport(), nil
	}}
	return call.Unfilled(), call.Send(ctx)
}

// relay reaches a host through an agent: the entry of its allow-list that has the name of the host.
func (m *Main) relay(t rollout.Target, agent string, at *url.URL) http.RoundTripper {
	if agent == "" {
		agent = t.Account
	}
	return relay{m.hub.Transport(t.Tenant, agent, hub.Target(at.Host))}
}

// relay tells what an agent refuses from what may be tried again.
type relay struct{ http.RoundTripper }

func (r relay) RoundTrip(request *http.Request) (*http.Response, error) {
	answer, err := r.RoundTripper.RoundTrip(request)
	var failed *hub.Error
	if errors.As(err, &failed) && !failed.Temporary() {
		return nil, notAllowed{failed}
	}
	return answer, err
}

// notAllowed is a request that the other side of a way does not let through.
type notAllowed struct{ error }

// EgressRefused tells that trying again is of no use.
func (notAllowed) EgressRefused() bool { return true }

// secretsOf is the secrets that one webhook uses.
type secretsOf struct {
	all                         []config.Secret
	tenant, source, application string

	values map[string]string
	used   []config.Secret
	wrong  error
}

// read finds the values that the webhook names. What is missing, or not for this application, is said when the call is made.
func (s *secretsOf) read(hook *deployment.Webhook) {
	s.values = map[string]string{}
	texts := []string{hook.URITemplate, hook.BodyTemplate}
	for _, h := range hook.Headers {
		texts = append(texts, h.Value)
	}
	for _, text := range texts {
		deployment.Fill(text, func(name string) (string, bool) {
			if secret, is := strings.CutPrefix(name, "secrets."); is && s.wrong == nil {
				s.values[secret], s.wrong = s.value(secret)
			}
			return "", true
		})
	}
}

func (s *secretsOf) value(name string) (string, error) {
	i := slices.IndexFunc(s.all, func(c config.Secret) bool { return c.Tenant == s.tenant && c.Name == name })
	if i < 0 {
		return "", fmt.Errorf("there is no secret %s; secrets of the controller's configuration names those that there are", name)
	}
	secret, source := s.all[i], config.SourceOf(s.source)
	if !anyOf(secret.Sources, source) || !anyOf(secret.Applications, s.application) {
		return "", fmt.Errorf("secret %s may not be used by application %s of %s; secrets of the controller's configuration says by whom", name, s.application, source)
	}
	text, err := os.ReadFile(secret.File)
	if err != nil {
		return "", fmt.Errorf("secret %s: %w", name, err)
	}
	s.used = append(s.used, secret)
	return strings.TrimSpace(string(text)), nil
}

// anyOf reports whether a name is one that a list says; one that says nothing leaves it open.
func anyOf(patterns []string, name string) bool {
	return len(patterns) == 0 || policies.Fits(patterns, name)
}

// allow says why the secrets may not be sent to an address.
func (s *secretsOf) allow(at *url.URL) error {
	for _, secret := range s.used {
		if !policies.Fits(secret.Hosts, at.Host) {
			return fmt.Errorf("secret %s may not be sent to %s; its hosts in the controller's configuration say where to", secret.Name, at.Host)
		}
	}
	return s.wrong
}

// hide takes the secrets out of a text, in each way in which a server may send one back.
func (s *secretsOf) hide(text string) string {
	for _, value := range s.values {
		if value == "" {
			continue
		}
		for _, form := range []string{value, url.QueryEscape(value), url.PathEscape(value), base64.StdEncoding.EncodeToString([]byte(value))} {
			text = strings.ReplaceAll(text, form, webhook.Hidden)
		}
	}
	return text
}

// Tokens that webhooks call back with begin so. They are good for one call, and nothing is kept of them.
const callbackPrefix = "twc_"

// callbackToken is what a webhook may call back with.
func (m *Main) callbackToken(tenant, call string) string {
	return callbackPrefix + base64.RawURLEncoding.EncodeToString([]byte(tenant)) + "." + call + "." + m.signed(tenant, call)
}

func (m *Main) signed(tenant, call string) string {
	mac := hmac.New(sha256.New, m.callbackKey)
	fmt.Fprintf(mac, "%s\x00%s", tenant, call)
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// calledBack is whose call a callback token is for; false when it is none.
func (m *Main) calledBack(token string) (tenant, call string, ok bool) {
	rest, is := strings.CutPrefix(token, callbackPrefix)
	parts := strings.Split(rest, ".")
	if !is || len(parts) != 3 {
		return "", "", false
	}
	name, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil || !hmac.Equal([]byte(parts[2]), []byte(m.signed(string(name), parts[1]))) {
		return "", "", false
	}
	return string(name), parts[1], true
}

// mayCall says why a webhook of an application could not be called: it names a secret that there is not, or that is not for it.
func (m *Main) mayCall(tenant, source, application string, hook deployment.Webhook) error {
	secrets := &secretsOf{all: m.config.Secrets, tenant: tenant, source: source, application: application}
	secrets.read(&hook)
	if secrets.wrong != nil {
		return fmt.Errorf("webhook %s: %w", hook.Name, secrets.wrong)
	}
	return nil
}

// mayAsk says why a metric provider could not be asked.
func (m *Main) mayAsk(tenant, name string) error {
	_, err := m.providers.Provider(tenant, name)
	return err
}
