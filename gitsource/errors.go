package gitsource

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	"golang.org/x/crypto/ssh/knownhosts"
)

// Kind says what kept a fetch from succeeding.
type Kind string

// The kinds. Those that Temporary calls so pass by themselves, or with what is pushed next; the others need a person.
const (
	Unreachable   Kind = "unreachable"    // no answer, or one that says: later
	Empty         Kind = "empty"          // the repository has no commit yet
	Broken        Kind = "broken"         // what came is not what a Git server sends, or the mirror's disk failed
	AuthRefused   Kind = "auth-refused"   // the server knows us not, or lets us not read
	HostKey       Kind = "host-key"       // the SSH server's key is unknown, revoked, or another than before
	Untrusted     Kind = "untrusted"      // the TLS certificate is not one we trust
	NotFound      Kind = "not-found"      // no such repository
	BranchMissing Kind = "branch-missing" // no such branch
	Forbidden     Kind = "forbidden"      // our own configuration does not let the call out
	OverLimit     Kind = "over-limit"     // the repository is larger than Limits allow
	Misconfigured Kind = "misconfigured"  // a key, a token or a list of hosts cannot be read
)

// Error is why a fetch did not succeed: a sentence for the person who has to do something about it. It holds no secret.
type Error struct {
	Kind       Kind
	Repository string // its URL without user name and password
	text       string
	cause      error
}

func (e *Error) Error() string { return "repository " + e.Repository + ": " + e.text }

// Unwrap gives what was behind it: context.Canceled, ErrTooLarge, an error of the system.
func (e *Error) Unwrap() error { return e.cause }

// Temporary reports whether the same fetch may succeed later without anyone changing a setting.
func (e *Error) Temporary() bool {
	switch e.Kind {
	case Unreachable, Empty, Broken:
		return true
	}
	return false
}

// refusal is what the client for outgoing calls answers when its own configuration forbids a call; the text is written for the reader.
type refusal interface {
	error
	EgressRefused() bool
}

// silence is the cause when a server said nothing for too long.
var errSilence = errors.New("the server stopped answering")

// explain turns whatever a fetch met into an Error. token is kept out of the text even when the server repeats it.
func (a address) explain(err error, token string) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	e := &Error{Repository: a.display, cause: err}
	e.Kind, e.text = a.judge(err)
	if token != "" {
		e.text = strings.ReplaceAll(e.text, token, "***")
		e.cause = cleaned{e.text, err}
	}
	return e
}

// cleaned stands for an error whose text may hold the token: errors.Is finds what is inside, nobody prints it.
type cleaned struct {
	text string
	err  error
}

func (c cleaned) Error() string        { return c.text }
func (c cleaned) Is(target error) bool { return errors.Is(c.err, target) }

func (a address) judge(err error) (Kind, string) {
	var (
		refused     refusal
		authority   x509.UnknownAuthorityError
		certificate *tls.CertificateVerificationError
		record      tls.RecordHeaderError
		status      *githttp.Err
		hostKey     *knownhosts.KeyError
		revoked     *knownhosts.RevokedError
		remote      *remoteError
		resolve     *net.DNSError
		setting     *settingError
		chosen      *choice
		request     *url.Error
	)
	switch {
	case errors.As(err, &chosen):
		return BranchMissing, chosen.Error()
	case errors.As(err, &setting):
		return Misconfigured, setting.Error()
	case errors.As(err, &refused):
		return Forbidden, refused.Error()
	case errors.Is(err, ErrTooLarge):
		return OverLimit, plain(err) + "; raise the limit of this repository, or take the large content out of its history"
	case errors.As(err, &hostKey) && len(hostKey.Want) == 0:
		return HostKey, fmt.Sprintf("the SSH host key of %s is not in the known hosts file; get it from the host's owner and add it (a line as ssh-keyscan %s prints it)", a.hostPort(), a.host)
	case errors.As(err, &hostKey):
		return HostKey, fmt.Sprintf("the SSH host key of %s is another than the one in the known hosts file (line %d); if its owner has changed it, replace the line, else somebody is in between", a.hostPort(), hostKey.Want[0].Line)
	case strings.Contains(err.Error(), "no common algorithm for host key"):
		return HostKey, fmt.Sprintf("the known hosts file has a key of %s, but of another kind than the host shows; get its keys from its owner and add them", a.hostPort())
	case errors.As(err, &revoked):
		return HostKey, fmt.Sprintf("the SSH host key of %s is marked as revoked in the known hosts file (line %d)", a.hostPort(), revoked.Revoked.Line)
	case errors.As(err, &authority):
		return Untrusted, fmt.Sprintf("the TLS certificate of %s is signed by an authority that is not known here; add that authority's certificate to the CA bundle", a.hostPort())
	case errors.As(err, &certificate):
		return Untrusted, fmt.Sprintf("the TLS certificate of %s is not valid for it: %s", a.hostPort(), plain(certificate.Err))
	case errors.As(err, &record), strings.HasSuffix(err.Error(), "server gave HTTP response to HTTPS client"):
		return Untrusted, fmt.Sprintf("%s does not speak TLS on this port; check scheme and port of the URL", a.hostPort())
	case errors.Is(err, transport.ErrAuthenticationRequired), errors.Is(err, errSSHAuth):
		if a.scheme == "ssh" {
			return AuthRefused, fmt.Sprintf("%s refused the SSH key for user %s; add its public half there, with the right to read", a.hostPort(), a.user)
		}
		return AuthRefused, "the server wants a valid token (HTTP 401); check that one is set, that it has not expired, and that it may read the repository's contents" + said(err)
	case errors.Is(err, transport.ErrAuthorizationFailed):
		return AuthRefused, "the server refused the token (HTTP 403); it needs the right to read the repository's contents" + said(err)
	case errors.Is(err, transport.ErrRepositoryNotFound), errors.Is(err, errNoRepository):
		text := "there is no such repository"
		switch a.scheme {
		case "file":
			text += " (a bare repository, or a directory with .git in it)"
		default:
			text += ", or we may not see it; check the URL and the rights of token or key"
		}
		return NotFound, text
	case errors.Is(err, transport.ErrEmptyRemoteRepository):
		return Empty, "the repository is empty; push a first commit"
	case errors.As(err, &status):
		code := status.StatusCode()
		if code == http.StatusTooManyRequests || code >= 500 {
			return Unreachable, fmt.Sprintf("the server answered HTTP %d %s; trying again later", code, http.StatusText(code))
		}
		return Broken, fmt.Sprintf("the server answered HTTP %d %s; check the URL", code, http.StatusText(code))
	case errors.As(err, &remote):
		return Broken, "the server said: " + plain(remote)
	case errors.Is(err, errSilence):
		return Unreachable, "the server stopped answering; trying again later"
	case errors.Is(err, errHandshake):
		return Unreachable, fmt.Sprintf("%s ended the connection before SSH had begun; check host and port, or wait: trying again later", a.hostPort())
	case errors.Is(err, errTooLong):
		return Unreachable, "the fetch took longer than it may; trying again later"
	case errors.Is(err, context.Canceled):
		return Unreachable, "the fetch was stopped"
	case errors.As(err, &resolve):
		if resolve.IsNotFound {
			return Unreachable, fmt.Sprintf("no address is known for the host %s; check its name, and this machine's DNS", a.host)
		}
		return Unreachable, fmt.Sprintf("the address of the host %s cannot be looked up now; trying again later", a.host)
	case strings.Contains(err.Error(), "object-format=sha256"): // the list of references that the library could not make out
		return Misconfigured, "its objects are named by SHA-256, which is not read; SHA-1 is"
	case cutOff(err):
		return Unreachable, "the connection was cut off; trying again later"
	case errors.Is(err, errPack), errors.Is(err, errMissing), errors.Is(err, errSource):
		return Broken, plain(err)
	case errors.As(err, &request):
		return a.network(request.Err)
	}
	return a.network(err)
}

func (a address) network(err error) (Kind, string) {
	var wire net.Error
	var path *fs.PathError
	switch {
	case errors.As(err, &path):
		return Broken, plain(err)
	case errors.As(err, &wire), errors.Is(err, errClosed):
		return Unreachable, plain(err) + "; trying again later"
	}
	return Broken, "this is not how a Git server answers; check the URL (" + plain(err) + ")"
}

// cutOff reports whether a conversation ended before all was said.
func cutOff(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		strings.HasSuffix(err.Error(), io.ErrUnexpectedEOF.Error()) // the library keeps the text alone
}

// inside takes the library's wrappers off, which do not show what they wrap.
func inside(err error) error {
	var unexpected *plumbing.UnexpectedError
	var permanent *plumbing.PermanentError
	switch {
	case errors.As(err, &unexpected):
		return inside(unexpected.Err)
	case errors.As(err, &permanent):
		return inside(permanent.Err)
	}
	return err
}

// said is what the server wrote beside a refusal, when it is a line of text that helps.
func said(err error) string {
	_, text, ok := strings.Cut(err.Error(), ": ")
	if text = plain(errors.New(text)); !ok || text == "" || strings.HasPrefix(text, "<") || strings.HasPrefix(text, "{") {
		return ""
	}
	return "; it said: " + text
}

// plain makes one short printable line of a text that others may have written.
func plain(err error) string {
	const longest = 300
	text := strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(err.Error(), ""))
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + "…"
	}
	return text
}

// settingError is something of our own configuration that cannot be used.
type settingError struct{ text string }

func (e *settingError) Error() string { return e.text }

func badSetting(format string, values ...any) error {
	return &settingError{fmt.Sprintf(format, values...)}
}

// remoteError is a text by which the server ended the conversation.
type remoteError struct{ text string }

func (e *remoteError) Error() string { return e.text }
