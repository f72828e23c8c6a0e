package charts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	sigsyaml "sigs.k8s.io/yaml"
)

// fromRepository brings a chart that the index of an HTTP repository names.
func (f *Fetcher) fromRepository(ctx context.Context, w wanted) (brought, error) {
	index, err := f.download(ctx, w.repository+"/index.yaml", f.config.IndexBytes)
	if err != nil {
		return brought{}, err
	}
	versions, others, err := versionsOf(index, w.chart)
	switch {
	case err != nil:
		return brought{}, fmt.Errorf("%s/index.yaml: %w", w.repository, err)
	case len(versions) == 0:
		return brought{}, fmt.Errorf("%s has no chart %s; it has %s", w.repository, w.chart, strings.Join(alike(w.chart, others), ", "))
	}
	at := slices.IndexFunc(versions, func(v indexed) bool { return sameVersion(v.Version, w.version) })
	if at < 0 {
		var all []string
		for _, v := range versions {
			all = append(all, v.Version)
		}
		return brought{}, noVersion(w, all)
	}
	found := versions[at]
	if len(found.URLs) == 0 {
		return brought{}, fmt.Errorf("the index of %s names no address of %s %s", w.repository, w.chart, w.version)
	}
	if strings.HasPrefix(found.URLs[0], "oci://") { // some repositories are an index over a registry
		return f.fromRegistry(ctx, wanted{chart: strings.TrimSuffix(found.URLs[0], ":"+strings.ReplaceAll(found.Version, "+", "_")), version: found.Version, digest: w.digest})
	}
	base, err := url.Parse(w.repository + "/")
	if err != nil {
		return brought{}, err
	}
	address, err := base.Parse(found.URLs[0])
	if err != nil {
		return brought{}, fmt.Errorf("the index of %s names %q as address of %s: %w", w.repository, found.URLs[0], w.chart, err)
	}
	archive, err := f.download(ctx, address.String(), f.config.ArchiveBytes)
	if err != nil {
		return brought{}, err
	}
	digest := digestOf(archive)
	if named := strings.TrimPrefix(found.Digest, "sha256:"); named != "" && "sha256:"+named != digest {
		return brought{}, fmt.Errorf("%s has the digest %s, and the index of %s says sha256:%s; one of them was changed on the way or at its source", address, digest, w.repository, named)
	}
	if w.digest != "" && w.digest != digest {
		return brought{}, fmt.Errorf("%s has the digest %s, not the %s that was asked for", address, digest, w.digest)
	}
	return brought{archive, digest}, nil
}

// download reads an address, up to a size.
func (f *Fetcher) download(ctx context.Context, address string, most int64) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	if credential := f.credential(address); credential != nil {
		if request.URL.Scheme != "https" && !loopback(request.URL.Host) {
			return nil, fmt.Errorf("%s is not https, and a password is not sent in clear", address)
		}
		password, err := credential.password()
		if err != nil {
			return nil, err
		}
		request.SetBasicAuth(credential.Username, password)
	}
	answer, err := f.config.HTTP.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	switch answer.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return nil, fmt.Errorf("nothing is at %s", address)
	case http.StatusUnauthorized, http.StatusForbidden:
		return nil, wantsCredentials(address, answer.StatusCode)
	default:
		return nil, fmt.Errorf("%s answered %s", address, answer.Status)
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, most+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	if int64(len(text)) > most {
		return nil, fmt.Errorf("%s has more than the %d bytes that are taken", address, most)
	}
	return text, nil
}

func wantsCredentials(address string, code int) error {
	return fmt.Errorf("%s wants other credentials (%d); the controller's are under charts.credentials of its configuration", address, code)
}

func loopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// credential is the one whose address is the longest beginning of another; nil when none is.
func (f *Fetcher) credential(address string) *Credential {
	var best *Credential
	for i, c := range f.config.Credentials {
		base := strings.TrimRight(c.URL, "/")
		if (address == base || strings.HasPrefix(address, base+"/")) && (best == nil || len(c.URL) > len(best.URL)) {
			best = &f.config.Credentials[i]
		}
	}
	return best
}

func (c *Credential) password() (string, error) {
	text, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("the password for %s cannot be read: charts.credentials: %w", c.URL, err)
	}
	return strings.TrimSpace(string(text)), nil
}

// indexed is one version in an index.
type indexed struct {
	Version string   `json:"version"`
	URLs    []string `json:"urls"`
	Digest  string   `json:"digest"`
}

// versionsOf is a chart's versions in an index, and the names of all charts. An index may have tens of megabytes, and parsed it takes thirty times as much;
// so only the lines of the chart are parsed. They are those that stand deeper than the names of charts: no text in block style can, inside of an entry,
// begin a line so far to the left.
func versionsOf(index []byte, chart string) (versions []indexed, charts []string, err error) {
	indent, inside, mine := "", false, false
	var part bytes.Buffer
	for line := range bytes.Lines(index) {
		text := strings.TrimRight(string(line), "\r\n")
		content := strings.TrimLeft(text, " ")
		if content == "" || content[0] == '#' {
			if mine {
				part.Write(line) // it may belong to a text
			}
			continue
		}
		depth := text[:len(text)-len(content)]
		if depth == "" && content[0] != '-' {
			key, rest, _ := strings.Cut(content, ":")
			inside, mine, indent = unquote(key) == "entries", false, ""
			if rest = strings.TrimSpace(rest); inside && rest != "" && rest != "{}" {
				return nil, nil, errors.New("it is not written as Helm writes an index")
			}
			continue
		}
		if !inside {
			continue
		}
		if indent == "" {
			indent = depth
		}
		if depth == indent && content[0] != '-' {
			key, _, _ := strings.Cut(content, ":")
			mine = unquote(key) == chart
			charts = append(charts, unquote(key))
			if mine {
				part.WriteString("versions:" + content[strings.IndexByte(content+":", ':')+min(1, strings.Count(content, ":")):] + "\n")
			}
			continue
		}
		if mine {
			part.Write(line)
		}
	}
	var found struct {
		Versions []indexed `json:"versions"`
	}
	if err := sigsyaml.Unmarshal(part.Bytes(), &found); err != nil {
		return nil, nil, fmt.Errorf("the part of %s is not valid YAML: %w", chart, err)
	}
	return found.Versions, charts, nil
}

func unquote(key string) string { return strings.Trim(strings.TrimSpace(key), `"'`) }
