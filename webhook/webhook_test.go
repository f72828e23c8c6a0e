package webhook_test

import (
	"cmp"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"towpath/deployment"
	"towpath/webhook"
)

func TestAServerThatSendsBackWhatItWasSentTellsNoSecret(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		// Where the text is cut for people, in the middle of a secret.
		fmt.Fprintf(w, "no: %s | %s | %s | %s | %s%s", r.Header.Get("X-Key"), cmp.Or(strings.TrimPrefix(r.Header.Get("Authorization"), "Basic "), "none"), r.Header.Get("X-Try"), r.URL.Path, strings.Repeat("x", 200), strings.Repeat("literal-key ", 10))
	}))
	defer server.Close()
	for address, basic := range map[string]string{server.URL: "none", strings.Replace(server.URL, "//", "//robot:in-the-address@", 1): "***"} {
		hook := deployment.Webhook{Method: http.MethodGet, URITemplate: address + "/{{key}}", Headers: []deployment.Header{{Key: "X-Key", Value: "Token literal-key"}, {Key: "X-Try", Value: "1"}}}
		err := webhook.Call{Webhook: hook, Value: func(string) (string, bool) { return "given-secret", true },
			Hide: func(text string) string { return strings.ReplaceAll(text, "given-secret", webhook.Hidden) },
			Way:  func(*url.URL) (http.RoundTripper, error) { return http.DefaultTransport, nil }}.Send(t.Context())
		if err == nil || !strings.Contains(err.Error(), "answered 400 Bad Request: no: *** | "+basic+" | 1 | /*** | xxx") {
			t.Fatalf("%v", err)
		}
		for _, secret := range []string{"litera", "given", "in-the-address", "cm9ib3Q6"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s is told: %v", secret, err)
			}
		}
		if len(err.Error()) > 400 {
			t.Errorf("%d bytes are told", len(err.Error()))
		}
	}
}

func TestAWebhookListsWhatNothingFillsWhereverItStands(t *testing.T) {
	t.Parallel()
	call := webhook.Call{Webhook: deployment.Webhook{URITemplate: "https://ci.example.com/{{context.job}}?{{", BodyTemplate: "known}} {{context.job}} {{context.body}} {{known}}",
		Headers: []deployment.Header{{Key: "X", Value: "{{context.header}}"}}}, Value: func(name string) (string, bool) { return "", name == "known" }}
	if got, want := fmt.Sprint(call.Unfilled()), "[context.job context.body context.header]"; got != want {
		t.Errorf("it lists %s, want %s", got, want)
	}
}

func TestAWebhookNamesTheHostOfItsAddress(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	for value, want := range map[string]string{host: "", "evil.example.com": "its header Host is not the host of its uriTemplate, " + host, "evil /x": "its header Host is not the host of its uriTemplate, " + host} {
		hook := deployment.Webhook{Method: http.MethodGet, URITemplate: server.URL, Headers: []deployment.Header{{Key: "host", Value: value}}}
		err := webhook.Call{Webhook: hook, Value: func(string) (string, bool) { return "", false }, Hide: func(text string) string { return text },
			Way: func(*url.URL) (http.RoundTripper, error) { return http.DefaultTransport, nil }}.Send(t.Context())
		if got := fmt.Sprint(err); want == "" && err != nil || want != "" && got != want {
			t.Errorf("Host %q: %v, want %s", value, err, want)
		}
	}
}
