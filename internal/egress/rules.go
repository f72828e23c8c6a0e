package egress

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// Refused is a call that the configuration does not let out: a sentence that says what would have to be written there.
type Refused struct {
	Host    string // as it was called
	Address string // what the host's name led to; "" when the name was enough to refuse
	text    string
}

func (r *Refused) Error() string { return r.text }

// EgressRefused tells those who do not know this package that trying again is of no use.
func (r *Refused) EgressRefused() bool { return true }

// TooLarge is an answer longer than the limit.
type TooLarge struct {
	Host  string
	Limit int64 // bytes
}

func (t *TooLarge) Error() string {
	return fmt.Sprintf("%s sends more than the %d bytes that are read of an answer", t.Host, t.Limit)
}

// hosts are names that something holds for.
type hosts []pattern

type pattern struct {
	name string // "" is every host
	sub  bool   // the names below name, not name itself
	port string // "" are the standard ports; "*" is every one
}

// standardPorts are those that need not be written: HTTPS, HTTP, SSH.
func standardPort(port string) bool { return port == "443" || port == "80" || port == "22" }

func parseHosts(list []string) (hosts, error) {
	var h hosts
	for _, text := range list {
		if text == "*" {
			h = append(h, pattern{port: "*"})
			continue
		}
		bad := fmt.Errorf("%q is not a host; write example.com, example.com:8443, *.example.com or *", text)
		if strings.ContainsAny(text, "/@?") {
			return nil, bad
		}
		name, port := text, ""
		if at, err := netip.ParseAddr(text); err != nil || !at.Is6() { // else its colons are its own
			if host, number, err := net.SplitHostPort(text); err == nil {
				if n, err := strconv.ParseUint(number, 10, 16); err != nil || n == 0 {
					return nil, fmt.Errorf("%q: %q is not a port", text, number)
				}
				name, port = host, number
			}
		}
		p := pattern{port: port}
		if rest, ok := strings.CutPrefix(name, "*."); ok {
			p.sub, name = true, rest
		}
		if p.name = normal(name); p.name == "" || strings.ContainsAny(p.name, "* ") || strings.HasPrefix(p.name, ".") {
			return nil, bad
		}
		h = append(h, p)
	}
	return h, nil
}

// match takes a normal name.
func (h hosts) match(name, port string) bool {
	return slices.ContainsFunc(h, func(p pattern) bool {
		switch {
		case p.port == "" && !standardPort(port), p.port != "" && p.port != "*" && p.port != port:
			return false
		case p.name == "":
			return true
		case p.sub:
			return strings.HasSuffix(name, "."+p.name)
		}
		return name == p.name
	})
}

// normal writes a host in one way: small letters, the ASCII form of other scripts, no dot at the end, addresses as package netip prints them.
func normal(host string) string {
	host = strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"), ".")
	if at, err := netip.ParseAddr(host); err == nil {
		return at.Unmap().String()
	}
	if ascii, err := idna.Lookup.ToASCII(host); err == nil {
		return ascii
	}
	return strings.ToLower(host)
}

func (c *Client) checkHost(host, port string) error {
	if c.allowed.match(normal(host), port) {
		return nil
	}
	line := host
	if !standardPort(port) {
		line = net.JoinHostPort(host, port)
	}
	return &Refused{Host: host, text: fmt.Sprintf("calls to %s are not allowed; if they shall be, add %q to %s", net.JoinHostPort(host, port), line, c.list("allowHosts"))}
}

// list is where a list of the configuration stands.
func (c *Client) list(key string) string {
	at := c.config.Setting + "." + key
	if c.config.Tenant != "" {
		at += fmt.Sprintf(", or, for the tenant %s alone, to its %s in %s.tenants", c.config.Tenant, key, c.config.Setting)
	}
	return at
}

type networks []netip.Prefix

func (n networks) contain(at netip.Addr) bool {
	return slices.ContainsFunc(n, func(p netip.Prefix) bool { return p.Contains(at) })
}

// single reports whether an address is listed by itself.
func (n networks) single(at netip.Addr) bool {
	return slices.ContainsFunc(n, func(p netip.Prefix) bool { return p.IsSingleIP() && p.Addr() == at })
}

func parseNetwork(text string) (netip.Prefix, bool) {
	if at, err := netip.ParseAddr(text); err == nil {
		at = at.Unmap().WithZone("")
		return netip.PrefixFrom(at, at.BitLen()), true
	}
	p, err := netip.ParsePrefix(text)
	return p.Masked(), err == nil
}

// kind is what an address is for, where it is not simply a host of the Internet.
type kind struct {
	name    string
	private bool // good for a host that may be private
}

// classify tells special addresses; false is an ordinary one. The list is that of IANA's registries of special-purpose addresses, and of the addresses at which
// clouds answer with credentials.
func classify(at netip.Addr) (kind, bool) {
	for _, metadata := range []string{
		"169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192",
	} {
		if at == netip.MustParseAddr(metadata) {
			return kind{name: metadataName}, true
		}
	}
	for _, special := range []struct {
		network string
		kind    kind
	}{
		{"127.0.0.0/8", kind{"a loopback address", true}},
		{"::1/128", kind{"a loopback address", true}},
		{"10.0.0.0/8", kind{"a private address", true}},
		{"172.16.0.0/12", kind{"a private address", true}},
		{"192.168.0.0/16", kind{"a private address", true}},
		{"fc00::/7", kind{"a private address", true}},
		{"100.64.0.0/10", kind{"a carrier-grade NAT address", true}},
		{"169.254.0.0/16", kind{"a link-local address", false}},
		{"fe80::/10", kind{"a link-local address", false}},
		{"fec0::/10", kind{"a site-local address", false}},
		{"0.0.0.0/8", kind{"an unspecified address", false}},
		{"::/128", kind{"an unspecified address", false}},
		{"224.0.0.0/4", kind{"a multicast address", false}},
		{"ff00::/8", kind{"a multicast address", false}},
		{"240.0.0.0/4", kind{"a reserved address", false}},
		{"192.0.0.0/24", kind{"a reserved address", false}},
		{"192.0.2.0/24", kind{"an address for documentation", false}},
		{"198.51.100.0/24", kind{"an address for documentation", false}},
		{"203.0.113.0/24", kind{"an address for documentation", false}},
		{"192.88.99.0/24", kind{"a relay address", false}},
		{"198.18.0.0/15", kind{"an address for benchmarks", false}},
		{"64:ff9b::/96", kind{nat64Name, false}},
		{"64:ff9b:1::/48", kind{"a NAT64 address of local use", false}},
		{"::ffff:0:0:0/96", kind{"an address translated from IPv4", false}},
		{"::/96", kind{"an address of IPv4 in IPv6", false}},
		{"2002::/16", kind{"a 6to4 address", false}},
		{"2001::/23", kind{"a reserved address", false}},
		{"2001:db8::/32", kind{"an address for documentation", false}},
		{"3fff::/20", kind{"an address for documentation", false}},
		{"5f00::/16", kind{"a reserved address", false}},
		{"100::/64", kind{"a discard address", false}},
	} {
		if netip.MustParsePrefix(special.network).Contains(at) {
			return special.kind, true
		}
	}
	return kind{}, false
}

const (
	metadataName = "the metadata service of a cloud"
	nat64Name    = "a NAT64 address"
)

// checkLiteral judges a host that is written as an address, also where a proxy would make the connection.
func (c *Client) checkLiteral(host, port string) error {
	at, err := netip.ParseAddr(host)
	if err != nil {
		return nil
	}
	return c.checkAddress(host, port, at, false)
}

// checkAddress judges the address that a connection is about to be made to. A proxy may be inside our network: it was named by who runs us.
func (c *Client) checkAddress(host, port string, at netip.Addr, proxy bool) error {
	at = at.Unmap().WithZone("")
	what, special := classify(at)
	switch {
	case !special:
		return nil
	case what.name == metadataName:
		if c.nets.single(at) {
			return nil
		}
		return c.refuse(host, port, at.String(), fmt.Sprintf("is %s; if it shall be called, add %q to %s", what.name, at, c.list("allowPrivate")))
	case what.name == nat64Name && c.nets.contain(at):
		// Such an address stands for one of IPv4, which has to be good by itself.
		full := at.As16()
		return c.checkAddress(host, port, netip.AddrFrom4([4]byte(full[12:])), proxy)
	case c.nets.contain(at), what.private && (proxy || c.inside.match(normal(host), port)):
		return nil
	case what.private:
		line := host
		if !standardPort(port) {
			line = net.JoinHostPort(host, port)
		}
		return c.refuse(host, port, at.String(), fmt.Sprintf("is %s; if it shall be called, add %q to %s", what.name, line, c.list("allowPrivate")))
	}
	return c.refuse(host, port, at.String(), fmt.Sprintf("is %s; if it shall be called, add its network to %s", what.name, c.list("allowPrivate")))
}

func (c *Client) refuse(host, port, address, why string) error {
	text := fmt.Sprintf("calls to %s are not allowed: %s %s", net.JoinHostPort(host, port), address, why)
	if normal(host) == address {
		text = fmt.Sprintf("calls to %s are not allowed: it %s", net.JoinHostPort(host, port), why)
	}
	return &Refused{Host: host, Address: address, text: text}
}
