package github

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/go-github/v60/github"
)

// speak is a client that speaks for a token, as programs do.
func speak(t testing.TB, g *GitHub, token string) *github.Client {
	t.Helper()
	c := github.NewClient(g.Client()).WithAuthToken(token)
	base, err := c.BaseURL.Parse(g.URL)
	if err != nil {
		t.Fatal(err)
	}
	c.BaseURL = base
	return c
}

// appKey is made once: it takes long.
var appKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// install makes an App that is installed on acme/shop with rights, and a client that speaks for the installation.
func install(t testing.TB, g *GitHub, id int64, slug string, may Rights) *github.Client {
	t.Helper()
	key, err := appKey()
	if err != nil {
		t.Fatal(err)
	}
	g.App(id, slug, &key.PublicKey)
	installation := g.Install(id, may, "acme/shop")
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	now := g.now()
	token, err := jwt.Signed(signer).Claims(map[string]any{"iss": fmt.Sprint(id), "iat": now.Unix() - 60, "exp": now.Unix() + 500}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	given, _, err := speak(t, g, token).Apps.CreateInstallationToken(t.Context(), installation, &github.InstallationTokenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return speak(t, g, given.GetToken())
}

// refused is how GitHub refused something: the status, and all that it says.
func refused(t testing.TB, err error) (int, string) {
	t.Helper()
	var e *github.ErrorResponse
	if !errors.As(err, &e) {
		t.Errorf("%v is no refusal of GitHub's", err)
		return 0, ""
	}
	said := e.Message
	for _, one := range e.Errors {
		said += " " + one.Field + ": " + one.Message
	}
	return e.Response.StatusCode, said
}

// expectRefused expects a refusal with a status that says something.
func expectRefused(t testing.TB, err error, status int, says string) {
	t.Helper()
	if got, said := refused(t, err); got != status || !strings.Contains(said, says) {
		t.Errorf("refused with %d %q, want %d that says %q", got, said, status, says)
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ear hears what is delivered to an App.
type ear struct {
	mu    sync.Mutex
	heard []heard
}

// heard is one delivery, as go-github reads it.
type heard struct {
	guid  string
	event any
	body  map[string]any
}

// listen makes an App's hook deliver to the ear.
func listen(t testing.TB, g *GitHub, app int64) *ear {
	e := &ear{}
	g.Hook(app, "https://towpath.test/webhooks/github", "secret", &http.Client{Transport: roundTrip(func(r *http.Request) int {
		body, err := github.ValidatePayload(r, []byte("secret"))
		if err != nil {
			t.Error(err)
		}
		event, err := github.ParseWebHook(github.WebHookType(r), body)
		if err != nil {
			t.Errorf("%s: %v", github.WebHookType(r), err)
		}
		one := heard{guid: github.DeliveryID(r), event: event}
		if err := json.Unmarshal(body, &one.body); err != nil {
			t.Error(err)
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		e.heard = append(e.heard, one)
		return http.StatusAccepted
	})})
	return e
}

type roundTrip func(*http.Request) int

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: f(r), Header: http.Header{}, Body: io.NopCloser(strings.NewReader("")), Request: r}, nil
}

// take returns what was heard since the last time, once all that was sent has arrived.
func (e *ear) take(g *GitHub) []heard {
	g.sending.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	out := e.heard
	e.heard = nil
	return out
}

func pointer[T any](v T) *T { return &v }

var longAgo = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
