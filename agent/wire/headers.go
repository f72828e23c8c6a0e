package wire

import (
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"towpath/agent/agentpb"
)

// hopByHop are headers that concern one connection, or speak of a client's address or name in place of the one who sends: they end at each hop.
var hopByHop = []string{
	"Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Host", "Forwarded", "Http2-Settings", "Content-Length",
}

var hopByHopPrefixes = []string{"Proxy-", "X-Forwarded-", "X-Remote-"}

// forwarded are what a Service behind an API server's proxy is told of the address that its visitor asked for. They travel only where the hub adds them.
var forwarded = []string{"X-Forwarded-Host", "X-Forwarded-Proto"}

// Forwarded adds them.
func Forwarded(list []*agentpb.Header, h http.Header) []*agentpb.Header {
	for _, name := range forwarded {
		if value := h.Get(name); value != "" {
			list = append(list, &agentpb.Header{Name: name, Value: []byte(value)})
		}
	}
	return list
}

// Travels reports whether a header goes through the tunnel, where named are the names that the message's own Connection headers list. A length
// travels as a field of its own.
func Travels(name string, named []string) bool {
	name = textproto.CanonicalMIMEHeaderKey(name)
	return !slices.Contains(hopByHop, name) && !slices.Contains(named, name) &&
		!slices.ContainsFunc(hopByHopPrefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// connectionNamed are the names that Connection headers list.
func connectionNamed(h http.Header) []string {
	var names []string
	for _, value := range h.Values("Connection") {
		for name := range strings.SplitSeq(value, ",") {
			names = append(names, textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name)))
		}
	}
	return names
}

// ToWire lists the headers that travel. It fails when they are more or larger than the tunnel carries.
func ToWire(h http.Header) ([]*agentpb.Header, error) {
	named := connectionNamed(h)
	list := make([]*agentpb.Header, 0, len(h))
	bytes := 0
	for name, values := range h {
		if !Travels(name, named) {
			continue
		}
		for _, value := range values {
			bytes += len(name) + len(value)
			list = append(list, &agentpb.Header{Name: name, Value: []byte(value)})
		}
	}
	return list, within(len(list), bytes)
}

// Upgraded adds the protocol that a connection is to be, or was, upgraded to: of all that concerns one connection it alone travels, and only where Head says
// so.
func Upgraded(list []*agentpb.Header, protocol string) []*agentpb.Header {
	return append(list, &agentpb.Header{Name: "Upgrade", Value: []byte(protocol)})
}

// UpgradeOf is the protocol that Upgraded added; "" without one that HTTP allows.
func UpgradeOf(list []*agentpb.Header) string {
	for _, header := range list {
		if value := string(header.GetValue()); textproto.CanonicalMIMEHeaderKey(header.GetName()) == "Upgrade" && httpguts.ValidHeaderFieldValue(value) {
			return value
		}
	}
	return ""
}

// Upgrade makes the headers of a request or an answer those of one that upgrades its connection.
func Upgrade(h http.Header, protocol string) {
	h.Set("Connection", "Upgrade")
	h.Set("Upgrade", protocol)
}

// FromWire is the other way. It trusts nothing: names and values must be fit for HTTP, what does not travel is left out, and the limits hold.
func FromWire(list []*agentpb.Header) (http.Header, error) {
	bytes := 0
	for _, header := range list {
		bytes += len(header.GetName()) + len(header.GetValue())
	}
	if err := within(len(list), bytes); err != nil {
		return nil, err
	}
	h := make(http.Header, len(list))
	for _, header := range list {
		name, value := header.GetName(), string(header.GetValue())
		if !httpguts.ValidHeaderFieldName(name) {
			return nil, fmt.Errorf("%.40q is no name for a header", name)
		}
		if !httpguts.ValidHeaderFieldValue(value) {
			return nil, fmt.Errorf("the value of header %.40q holds characters that HTTP forbids", name)
		}
		h.Add(name, value)
	}
	named := connectionNamed(h)
	for name := range h {
		if !Travels(name, named) && !slices.Contains(forwarded, name) {
			delete(h, name)
		}
	}
	return h, nil
}

func within(count, bytes int) error {
	if count > MaxHeaders {
		return fmt.Errorf("%d headers are more than the %d that the tunnel carries", count, MaxHeaders)
	}
	if bytes > MaxHeaderBytes {
		return fmt.Errorf("headers of %d bytes are more than the %d that the tunnel carries", bytes, MaxHeaderBytes)
	}
	return nil
}

// CheckMethod refuses what is no HTTP method, and CONNECT.
func CheckMethod(method string) error {
	if !httpguts.ValidHeaderFieldName(method) || len(method) > 32 {
		return fmt.Errorf("%.40q is no HTTP method", method)
	}
	if strings.EqualFold(method, http.MethodConnect) {
		return fmt.Errorf("the tunnel carries no CONNECT")
	}
	return nil
}

// CheckPath refuses a path (with its query, escaped) that could mean another place than it seems to: one that does not start with a single slash, that
// holds "." or ".." as a segment in any spelling, control characters, or a fragment.
func CheckPath(path string) error {
	if len(path) > MaxPath {
		return fmt.Errorf("a path of %d bytes is longer than %d", len(path), MaxPath)
	}
	if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || strings.HasPrefix(path, `/\`) {
		return fmt.Errorf("path %.80q must start with one slash and name no host", path)
	}
	for i := range len(path) {
		if c := path[i]; c <= ' ' || c == 0x7f || c == '#' {
			return fmt.Errorf("path %.80q holds a character that must be escaped", path)
		}
	}
	escaped, _, _ := strings.Cut(path, "?")
	plain, err := url.PathUnescape(escaped)
	if err != nil {
		return fmt.Errorf("path %.80q is not escaped as URLs are", path)
	}
	for segment := range strings.FieldsFuncSeq(plain, func(r rune) bool { return r == '/' || r == '\\' }) {
		if segment == "." || segment == ".." {
			return fmt.Errorf("path %.80q holds %q, which leads elsewhere", path, segment)
		}
	}
	if strings.ContainsFunc(plain, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("path %.80q holds an escaped control character", path)
	}
	return nil
}
