package gitsource

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/go-git/go-git/v5/plumbing/transport"
)

// address is a repository's URL, taken apart.
type address struct {
	scheme  string // https, http, ssh, file
	user    string
	host    string // without brackets
	port    string // always set, but for file
	path    string // as the server gets it
	display string // for people: no user, no password, no query
}

// scpLike is the short form of SSH: user@host:path. A colon after a single letter, or before a slash pair, is something else.
var scpLike = regexp.MustCompile(`^(?:([\w.+-]+)@)?(\[[0-9A-Fa-f:.]+\]|[\w.-]{2,}):([^/:].*|/[^/].*)$`)

// parseAddress reads a URL as people write it in a configuration: https://, ssh://, user@host:path, file:// or an absolute path. No error repeats
// the text: it may hold a password.
func parseAddress(raw string) (address, error) {
	if strings.ContainsFunc(raw, unicode.IsControl) {
		return address{}, errors.New("the repository's URL holds control characters")
	}
	if filepath.IsAbs(raw) {
		path := filepath.Clean(raw)
		return address{scheme: "file", path: path, display: path}, nil
	}
	if part := scpLike.FindStringSubmatch(raw); part != nil && !strings.Contains(raw, "://") {
		a := address{scheme: "ssh", user: orGit(part[1]), host: strings.Trim(part[2], "[]"), port: "22", path: part[3]}
		a.display = part[2] + ":" + part[3]
		return a, a.check()
	}
	u, err := url.Parse(raw)
	if err != nil {
		return address{}, errors.New("the repository's URL cannot be read; write https://HOST/PATH, ssh://git@HOST/PATH, git@HOST:PATH or /an/absolute/path")
	}
	if _, has := u.User.Password(); has {
		return address{}, fmt.Errorf("the URL of the repository at %s holds a password; take it out and give the token in a file of its own", u.Host)
	}
	a := address{scheme: u.Scheme, user: u.User.Username(), host: u.Hostname(), port: u.Port(), path: u.Path}
	defaults := map[string]string{"https": "443", "http": "80", "ssh": "22"}
	switch a.scheme {
	case "file":
		if a.host != "" && a.host != "localhost" || !filepath.IsAbs(a.path) {
			return address{}, errors.New("a file URL of a repository is file:///an/absolute/path")
		}
		a.path = filepath.Clean(a.path)
		a.display = a.path
		return a, nil
	case "ssh":
		a.user = orGit(a.user)
		if strings.HasPrefix(a.path, "/~") {
			a.path = a.path[1:] // a home directory is not under the root
		}
	case "https", "http":
		a.path = u.EscapedPath()
		if u.RawQuery != "" || u.Fragment != "" {
			return address{}, fmt.Errorf("the URL of the repository at %s has a query or a fragment; only host and path say which repository it is", u.Host)
		}
	default:
		return address{}, fmt.Errorf("repositories are read by https, ssh, or from a local path, not by %q; write https://HOST/PATH, ssh://git@HOST/PATH, git@HOST:PATH or /an/absolute/path", a.scheme)
	}
	if a.port == "" {
		a.port = defaults[a.scheme]
	}
	a.display = (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
	return a, a.check()
}

func (a address) check() error {
	if a.host == "" || strings.Trim(a.path, "/") == "" {
		return errors.New("the repository's URL names no host or no path; write https://HOST/PATH, ssh://git@HOST/PATH, git@HOST:PATH or /an/absolute/path")
	}
	// A path that starts with a dash would be an option of the command at the other end.
	if a.scheme == "ssh" && (strings.HasPrefix(a.path, "-") || strings.ContainsAny(a.path, "\x00\n")) {
		return errors.New("the path in the repository's URL starts with a dash, or is none")
	}
	return nil
}

// Identity names a repository in one way, however its URL is written: "github.com/org/repo" for https://github.com/Org/repo.git as for git@github.com:org/repo; a
// path for a local one. Two URLs of one identity are one repository to all hosts that ignore case in names, as those that send webhooks do.
func Identity(url string) (string, error) {
	a, err := parseAddress(url)
	if err != nil || a.scheme == "file" {
		return a.path, err
	}
	host := a.host
	if !slices.Contains([]string{"443", "80", "22"}, a.port) {
		host = a.hostPort()
	}
	return strings.ToLower(host + "/" + strings.TrimSuffix(strings.Trim(a.path, "/"), ".git")), nil
}

func orGit(user string) string {
	if user == "" {
		return "git"
	}
	return user
}

func (a address) hostPort() string { return net.JoinHostPort(a.host, a.port) }

// endpoint is the address as the library's HTTP transport takes it, without credentials.
func (a address) endpoint() *transport.Endpoint {
	e := &transport.Endpoint{Protocol: a.scheme, Host: a.host, Path: a.path}
	if strings.Contains(a.host, ":") {
		e.Host = "[" + a.host + "]"
	}
	e.Port, _ = strconv.Atoi(a.port) // url.Parse let nothing but digits through
	return e
}
