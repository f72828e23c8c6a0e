package render

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// brought is what is not in the tree, or why it could not be had.
type brought struct {
	text   []byte
	digest string
	err    error
}

// maxAddresses is how many files one target may have from addresses: each is waited for.
const maxAddresses = 32

var errInTree = errors.New("it is not in the Git repository, and nothing may be fetched here")

// outside brings the charts and files that are not in the tree, by what the worker calls them. It is done before a process is taken: a server that is slow holds up
// only who asks for it. What cannot be had is for the entry that names it to say; the rest is rendered, so that the trace holds what it reads.
func (p *Pool) outside(ctx context.Context, r Request) map[string]brought {
	all := map[string]brought{}
	target := r.File.Target(r.Target)
	addresses := 0
	for _, m := range r.File.Manifests {
		if !m.Applies(r.Target) {
			continue
		}
		if m.Helm != nil && m.Helm.Path == "" {
			ref := chartRef{m.Helm.Repository, m.Helm.Chart, m.Helm.Version}
			if _, known := all[ref.String()]; !known {
				all[ref.String()] = p.chart(ctx, r.Tenant, ref)
			}
		}
		if address := fill(m.Path, r.File, target); isAddress(address) {
			if _, known := all[address]; known {
				continue
			}
			if addresses++; addresses > maxAddresses {
				all[address] = brought{err: fmt.Errorf("a target has at most %d files from addresses; put the others into the repository", maxAddresses)}
				continue
			}
			all[address] = p.file(ctx, r.Tenant, r.Pin, address)
		}
	}
	return all
}

func (p *Pool) chart(ctx context.Context, tenant string, ref chartRef) (b brought) {
	if b.err = errInTree; p.config.Fetcher != nil {
		b.text, b.digest, b.err = p.config.Fetcher.Chart(ctx, tenant, ref.Repository, ref.Chart, ref.Version)
	}
	return b
}

func (p *Pool) file(ctx context.Context, tenant, pin, address string) (b brought) {
	if b.err = errInTree; p.config.Fetcher != nil {
		b.text, b.digest, b.err = p.config.Fetcher.File(ctx, tenant, pin, address)
	}
	return b
}

// bring answers a worker that asks for what is not in the tree; shown is what the trace calls it.
func (s serving) bring(name, shown string) error {
	b, found := s.outside[name]
	if !found {
		return fmt.Errorf("the worker asked for something that the file does not name: %q", name)
	}
	if b.err != nil {
		s.retry = true
		return s.answerBytes(nil, b.err)
	}
	s.add(fetched, shown, b.digest)
	return s.answerBytes(b.text, nil)
}

// isAddress reports whether a path of manifests is a URL.
func isAddress(name string) bool {
	scheme, _, found := strings.Cut(name, "://")
	return found && (strings.EqualFold(scheme, "https") || strings.EqualFold(scheme, "http"))
}

// shownAddress is an address without what may be secret in it: a name and password, a query.
func shownAddress(address string) string {
	scheme, rest, _ := strings.Cut(address, "://")
	rest, _, _ = strings.Cut(rest, "?")
	rest, _, _ = strings.Cut(rest, "#")
	host, path, _ := strings.Cut(rest, "/")
	return scheme + "://" + host[strings.LastIndexByte(host, '@')+1:] + "/" + path
}
