package status

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/go-github/v60/github"
)

// App is a GitHub App. It has no token of its own: with its key it gets tokens of its installations, each for one repository and for what is to be done
// there. They are kept in memory only. Safe for concurrent use.
type App struct {
	config AppConfig
	wire   // as the App itself

	mu     sync.Mutex
	places map[string]*place // by "OWNER/NAME" as configured, in lower case
}

// AppConfig says which App, on which GitHub.
type AppConfig struct {
	Name    string // ours, in messages
	ID      int64
	KeyFile string // its private key in PEM; read at each use, so that a new key counts at once
	APIURL  string
	HTTP    *http.Client
	Clock   func() time.Time
}

// NewApp makes an App; it does no I/O.
func NewApp(c AppConfig) (*App, error) {
	w, err := newWire(c.APIURL, c.HTTP, c.Clock)
	if err != nil {
		return nil, err
	}
	return &App{config: c, wire: w, places: map[string]*place{}}, nil
}

// Name is what the configuration calls the App.
func (a *App) Name() string { return a.config.Name }

// place is where a repository is, and the tokens for it. Ids stay when names change.
type place struct {
	turn chan struct{} // held while GitHub is asked

	// mu guards what follows, which changes only while turn is held or by what GitHub says of itself.
	mu           sync.Mutex
	installation int64 // 0: not known
	repository   int64 // 0: not known
	name         string
	slug         string // the App's name on GitHub
	tokens       map[string]token
}

type token struct {
	text           string
	renew, expires time.Time
}

func (a *App) place(repository string) *place {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := strings.ToLower(repository)
	p := a.places[key]
	if p == nil {
		p = &place{turn: make(chan struct{}, 1), name: repository, tokens: map[string]token{}}
		a.places[key] = p
	}
	return p
}

// Access implements identity.
func (a *App) Access(ctx context.Context, repository string, may Permissions) (Access, error) {
	p := a.place(repository)
	select { // one asks, and who waits finds what was given
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return Access{}, &Failure{Kind: Trouble, Text: fmt.Sprintf("a token for %s: %v", repository, ctx.Err())}
	}
	p.mu.Lock()
	held, known := p.tokens[may.String()], p.installation != 0
	name := p.name
	p.mu.Unlock()
	now := a.clock()
	if now.Before(held.renew) {
		return Access{held.text, name}, nil
	}
	err := a.renew(ctx, p, repository, may)
	var f *Failure
	if known && errors.As(err, &f) && f.Kind == Refused { // it may have been installed anew, or the repository given away
		p.forget()
		err = a.renew(ctx, p, repository, may)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err == nil:
		return Access{p.tokens[may.String()].text, p.name}, nil
	case errors.As(err, &f) && f.Kind != Refused && now.Before(held.expires.Add(-time.Minute)):
		return Access{held.text, name}, nil // that is why it is renewed early
	}
	return Access{}, err
}

// Forget implements identity.
func (a *App) Forget(repository, token string) bool {
	p := a.place(repository)
	p.mu.Lock()
	current := false
	for _, held := range p.tokens {
		current = current || held.text == token
	}
	p.mu.Unlock()
	if current {
		p.forget()
	}
	return true // else somebody else was quicker
}

func (p *place) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.installation, p.tokens = 0, map[string]token{}
}

// Is reports whether a repository of the configuration is the one with an id or name, as events have them.
func (a *App) Is(repository string, id int64, name string) bool {
	p := a.place(repository)
	p.mu.Lock()
	defer p.mu.Unlock()
	return id != 0 && p.repository == id || strings.EqualFold(repository, name) || strings.EqualFold(p.name, name)
}

// Relocate makes the next Access find a repository anew.
func (a *App) Relocate(repository string) { a.place(repository).forget() }

// Itself reports whether a login is the App's own.
func (a *App) Itself(repository, login string) bool {
	p := a.place(repository)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.slug != "" && strings.EqualFold(login, p.slug+"[bot]")
}

func (a *App) login(repository string) string {
	p := a.place(repository)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.slug + "[bot]"
}

func (a *App) advice(Permissions) advice {
	return advice{fmt.Sprintf("check appID and privateKeyFile of the App %s, and this machine's clock", a.config.Name),
		fmt.Sprintf("is the App %s installed there, with the permissions it asks for accepted?", a.config.Name)}
}

// renew gets a token for a place.
func (a *App) renew(ctx context.Context, p *place, repository string, may Permissions) error {
	self, err := a.self()
	if err != nil {
		return &Failure{Kind: Trouble, Text: err.Error()}
	}
	ctx = withToken(ctx, self)
	p.mu.Lock()
	known := p.installation != 0
	p.mu.Unlock()
	if !known {
		if err := a.locate(ctx, p, repository); err != nil {
			return err
		}
	}
	return a.issue(ctx, p, repository, may)
}

// byID is how GitHub leads from a name that a repository no longer has.
var byID = regexp.MustCompile(`/repositories/(\d+)/installation$`)

// locate finds the App's installation on the account of a repository.
func (a *App) locate(ctx context.Context, p *place, repository string) error {
	owner, name, _ := strings.Cut(repository, "/")
	found, response, err := a.client.Apps.FindRepositoryInstallation(ctx, owner, name)
	what := fmt.Sprintf("the installation of the App %s on %s", a.config.Name, repository)
	if err != nil && response != nil && response.StatusCode == http.StatusNotFound {
		return &Failure{Kind: Refused, Text: what + ": GitHub answers 404: there is none; install the App on the repository, or correct its name"}
	}
	if err := a.failure(what, a.advice(nil), response, err); err != nil {
		return sure(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.installation, p.slug, p.repository = found.GetID(), found.GetAppSlug(), 0
	if led := byID.FindStringSubmatch(response.Request.URL.Path); led != nil {
		p.repository, _ = strconv.ParseInt(led[1], 10, 64) // digits only
	}
	return nil
}

// issue asks for a token.
func (a *App) issue(ctx context.Context, p *place, repository string, may Permissions) error {
	p.mu.Lock()
	installation, id := p.installation, p.repository
	p.mu.Unlock()
	wanted := map[string]any{"permissions": may}
	if id != 0 {
		wanted["repository_ids"] = []int64{id}
	} else {
		_, name, _ := strings.Cut(repository, "/")
		wanted["repositories"] = []string{name}
	}
	what := fmt.Sprintf("a token of the App %s for %s (%s)", a.config.Name, repository, may)
	request, err := a.client.NewRequest(http.MethodPost, fmt.Sprintf("app/installations/%d/access_tokens", installation), wanted)
	if err != nil {
		return &Failure{Kind: Trouble, Text: what + ": " + err.Error()}
	}
	var given github.InstallationToken
	response, err := a.client.Do(ctx, request, &given)
	if err := a.failure(what, a.advice(nil), response, err); err != nil {
		return sure(err)
	}
	if given.GetToken() == "" {
		return &Failure{Kind: Trouble, Text: what + ": GitHub's answer holds none"}
	}
	now := a.clock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(given.Repositories) == 1 {
		p.repository, p.name = given.Repositories[0].GetID(), given.Repositories[0].GetFullName()
	}
	lasts := given.GetExpiresAt().Sub(now)
	p.tokens[may.String()] = token{text: given.GetToken(), renew: now.Add(lasts * 5 / 6), expires: now.Add(lasts)} // of an hour, after 50 minutes
	return nil
}

// sure is a failure before anything was told: what was to be told has not arrived. What one thing to tell is refused for is refused for all of the repository.
func sure(err error) error {
	var f *Failure
	if !errors.As(err, &f) {
		return err
	}
	f.Unsure = false
	if f.Kind == Unfit {
		f.Kind = Refused
	}
	return f
}

// self is the App's own token, for a few minutes: GitHub takes at most ten, and its clock may be behind ours.
func (a *App) self() (string, error) {
	key, err := a.key()
	if err != nil {
		return "", err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", err
	}
	now := a.clock()
	claims := jwt.Claims{Issuer: strconv.FormatInt(a.config.ID, 10), IssuedAt: jwt.NewNumericDate(now.Add(-time.Minute)), Expiry: jwt.NewNumericDate(now.Add(8 * time.Minute))}
	return jwt.Signed(signer).Claims(claims).Serialize()
}

// CheckKey says what is wrong with the App's key file.
func (a *App) CheckKey() error {
	_, err := a.key()
	return err
}

func (a *App) key() (*rsa.PrivateKey, error) {
	at := fmt.Sprintf("github.apps %s: privateKeyFile", a.config.Name)
	text, err := os.ReadFile(a.config.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s: %s holds no PEM; it is to hold the private key as GitHub gave it", at, a.config.KeyFile)
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, is := parsed.(*rsa.PrivateKey)
	if err != nil || !is {
		return nil, fmt.Errorf("%s: %s holds no RSA private key; it is to hold the private key as GitHub gave it", at, a.config.KeyFile)
	}
	return key, nil
}
