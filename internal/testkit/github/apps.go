package github

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// app is a GitHub App.
type app struct {
	id         int64
	slug       string
	keys       []*rsa.PublicKey
	account    *account // whose limits its own requests count for
	bot        *account // "SLUG[bot]", as whom its installations are shown
	hook       hook
	deliveries []*delivery // oldest first
}

// installation is an App on the account of somebody.
type installation struct {
	id           int64
	app          *app
	owner        string
	may          Rights
	repositories []*repository
	suspended    bool
	account      *account // the bot's, whose limits its requests count for
}

// Issued is a token that was given to an App's installation.
type Issued struct {
	Token        string
	Installation int64
	Repositories []string
	May          Rights
	Expires      time.Time

	installation *installation
	repositories []*repository
}

// tokensLast is how long a token of an installation is good.
const tokensLast = time.Hour

// App makes an App known by its keys; those of before are worthless from then on.
func (g *GitHub) App(id int64, slug string, keys ...*rsa.PublicKey) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.apps[id]
	if a == nil {
		a = &app{id: id, slug: slug, account: &account{login: slug, id: g.id(), kind: "Bot", spent: spent{since: g.now()}}, bot: g.person(slug + "[bot]")}
		a.bot.kind = "Bot"
		g.apps[id] = a
	}
	a.keys = keys
}

// Install installs an App on repositories "OWNER/NAME" of one owner, and returns the installation's id.
func (g *GitHub) Install(app int64, may Rights, repositories ...string) (id int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.apps[app]
	owner, _, _ := strings.Cut(repositories[0], "/")
	i := &installation{id: g.id(), app: a, owner: owner, may: may, account: &account{login: a.bot.login, id: a.bot.id, kind: "Bot", spent: spent{since: g.now()}}}
	for _, name := range repositories {
		i.repositories = append(i.repositories, g.repositories[strings.ToLower(name)])
	}
	g.installations[i.id] = i
	return i.id
}

// Uninstall takes an installation away, with its tokens.
func (g *GitHub) Uninstall(id int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.installations, id)
	g.dropTokens(func(i *Issued) bool { return i.Installation == id })
}

// Suspend makes an installation worthless until it is installed anew.
func (g *GitHub) Suspend(id int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.installations[id].suspended = true
	g.dropTokens(func(i *Issued) bool { return i.Installation == id })
}

// EndTokens makes all tokens of installations worthless, as an hour does.
func (g *GitHub) EndTokens() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dropTokens(func(*Issued) bool { return true })
}

func (g *GitHub) dropTokens(which func(*Issued) bool) {
	maps.DeleteFunc(g.tokens, func(_ string, i *Issued) bool { return which(i) })
}

// Issued are all tokens that were given to installations, oldest first.
func (g *GitHub) Issued() []Issued {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.issued)
}

// Good reports whether a token of an installation is good to read what is in a repository, as a fetch does.
func (g *GitHub) Good(token, repository string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := g.tokens[token]
	return i != nil && g.now().Before(i.Expires) && i.May["contents"] != "" && slices.Contains(i.repositories, g.find(repository))
}

// withJWT are the operations of Apps themselves, not of their installations.
var withJWT = []string{"apps/get-repo-installation", "apps/create-installation-access-token", "apps/list-webhook-deliveries", "apps/get-webhook-delivery", "apps/redeliver-webhook-delivery",
	"apps/get-authenticated", "apps/list-installations"}

// open are the operations that nobody has to be known for.
var open = []string{"apps/create-from-manifest"}

// self is the App that a JSON web token speaks for.
func (g *GitHub) self(token string) (*app, *answer) {
	unread := refuse(http.StatusUnauthorized, "A JSON web token could not be decoded")
	signed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return nil, &unread
	}
	var claims jwt.Claims
	if err := signed.UnsafeClaimsWithoutVerification(&claims); err != nil {
		return nil, &unread
	}
	id, err := strconv.ParseInt(claims.Issuer, 10, 64)
	a := g.apps[id]
	if err != nil || a == nil {
		refused := refuse(http.StatusNotFound, "Integration not found")
		return nil, &refused
	}
	if !slices.ContainsFunc(a.keys, func(key *rsa.PublicKey) bool { return signed.Claims(key, &claims) == nil }) {
		return nil, &unread
	}
	now := g.now()
	wrong := ""
	switch {
	case claims.Expiry == nil || !claims.Expiry.Time().After(now):
		wrong = "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires"
	case claims.Expiry.Time().After(now.Add(10 * time.Minute)):
		wrong = "'Expiration time' claim ('exp') is too far in the future"
	case claims.IssuedAt == nil || claims.IssuedAt.Time().After(now):
		wrong = "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued"
	}
	if wrong != "" {
		refused := refuse(http.StatusUnauthorized, wrong)
		return nil, &refused
	}
	return a, nil
}

func getInstallation(c *call) answer {
	r := c.g.repositories[strings.ToLower(c.vars["owner"]+"/"+c.vars["repo"])]
	for _, i := range c.g.installations {
		if r != nil && i.app == c.app && slices.Contains(i.repositories, r) {
			return answer{status: http.StatusOK, body: c.g.installation(i)}
		}
	}
	return notFound()
}

func (g *GitHub) installation(i *installation) object {
	o := g.description.blank("installation", g.URL)
	maps.Copy(o, object{"id": i.id, "app_id": i.app.id, "app_slug": i.app.slug, "account": g.owner(i.owner).user(g.URL), "target_type": "Organization", "permissions": i.may,
		"repository_selection": "selected"})
	return o
}

func createToken(c *call) answer {
	id, err := strconv.ParseInt(c.vars["installation_id"], 10, 64)
	i := c.g.installations[id]
	if err != nil || i == nil || i.app != c.app {
		return notFound()
	}
	if i.suspended {
		return refuse(http.StatusForbidden, "This installation has been suspended")
	}
	var body struct {
		Repositories []string
		IDs          []int64 `json:"repository_ids"`
		Permissions  Rights
	}
	if len(c.body) > 0 {
		if err := c.read(&body); err != nil {
			return invalidRequest(err)
		}
	}
	chosen := slices.Clone(i.repositories)
	if wanted := len(body.Repositories) + len(body.IDs); wanted > 0 {
		chosen = slices.DeleteFunc(chosen, func(r *repository) bool {
			_, name, _ := strings.Cut(r.name, "/")
			return !slices.Contains(body.IDs, r.id) && !slices.ContainsFunc(body.Repositories, func(n string) bool { return strings.EqualFold(n, name) })
		})
		if len(chosen) != wanted {
			return refuse(http.StatusUnprocessableEntity, "There is at least one repository that does not exist or is not accessible to the parent installation.")
		}
	}
	may := body.Permissions
	if may == nil {
		may = i.may
	}
	for what, level := range may {
		if has := i.may[what]; has != level && has != "write" {
			return refuse(http.StatusUnprocessableEntity, "The permissions requested are not granted to this installation.")
		}
	}
	// As GitHub's newer tokens are: long, and of no fixed length.
	secret := make([]byte, 180+c.g.id()%40)
	_, _ = rand.Read(secret)
	given := Issued{Token: fmt.Sprintf("ghs_%d_%x", c.app.id, secret), Installation: i.id, May: may, Expires: c.g.now().Add(tokensLast).Truncate(time.Second), installation: i, repositories: chosen}
	shown := make([]object, len(chosen))
	for n, r := range chosen {
		given.Repositories = append(given.Repositories, r.name)
		shown[n] = c.g.repository(r)
	}
	c.g.tokens[given.Token] = &given
	c.g.issued = append(c.g.issued, given)
	return answer{status: http.StatusCreated, body: object{"token": given.Token, "expires_at": given.Expires.UTC().Format(time.RFC3339), "permissions": may, "repository_selection": "selected",
		"repositories": shown}}
}

// Manifest lets a code be exchanged, once, for an App that was made of a manifest.
func (g *GitHub) Manifest(code string, id int64, slug string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.codes[code] = &app{id: id, slug: slug}
}

func createFromManifest(c *call) answer {
	a := c.g.codes[c.vars["code"]]
	if a == nil {
		return notFound()
	}
	delete(c.g.codes, c.vars["code"])
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err) // a machine without randomness
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	o := c.g.description.blank("integration", c.g.URL)
	maps.Copy(o, object{"id": a.id, "slug": a.slug, "name": a.slug, "html_url": c.g.URL + "apps/" + a.slug, "owner": c.g.owner("acme").user(c.g.URL),
		"client_id": "Iv1.test", "client_secret": "unused", "webhook_secret": "of the hook", "pem": string(text)})
	return answer{status: http.StatusCreated, body: o}
}
