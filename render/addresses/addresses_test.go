package addresses_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"towpath/internal/egress"
	"towpath/render/addresses"
)

// book is what a store keeps.
type book struct {
	mu   sync.Mutex
	kept map[string][]byte
}

func (b *book) Kept(_ context.Context, name string) ([]byte, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	content, found := b.kept[name]
	return content, found, nil
}

func (b *book) Keep(_ context.Context, name string, content []byte) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.kept == nil {
		b.kept = map[string][]byte{}
	}
	if b.kept[name] == nil {
		b.kept[name] = content
	}
	return b.kept[name], nil
}

// site is a server, and how often it was asked.
type site struct {
	*httptest.Server
	asked atomic.Int32
}

func serve(t *testing.T, answer http.HandlerFunc) *site {
	s := &site{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *site) host() string { return strings.TrimPrefix(s.URL, "http://") }

// files may call what is allowed, on this machine too.
func files(t *testing.T, b *book, clock func() time.Time, allowed ...string) *addresses.Files {
	t.Helper()
	client, err := egress.New(egress.Config{AllowHosts: allowed, AllowPrivate: allowed})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return addresses.New(addresses.Config{HTTP: client.HTTP(), Pins: b, Bytes: 1000, Clock: clock})
}

func TestWhatAnAddressHadAtFirstStaysUnderItsName(t *testing.T) {
	t.Parallel()
	var text atomic.Value
	text.Store("a: 1\n")
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text.Load().(string))) })
	b := &book{}
	f := files(t, b, nil, s.host())
	want := func(name, content string, requests int32) {
		t.Helper()
		got, digest, err := f.File(t.Context(), name, s.URL+"/m.yaml?token=x")
		if err != nil || string(got) != content || !strings.HasPrefix(digest, "sha256:") {
			t.Errorf("%q %q %v, want %q", got, digest, err, content)
		}
		if n := s.asked.Swap(0); n != requests {
			t.Errorf("%d requests, want %d", n, requests)
		}
	}
	want("first", "a: 1\n", 1)
	text.Store("a: 2\n")
	want("first", "a: 1\n", 0)
	want("second", "a: 2\n", 1)
	f = files(t, b, nil) // after a restart, and with the host taken off the list
	want("first", "a: 1\n", 0)
	if len(b.kept) != 4 {
		t.Errorf("%d things are kept for two names and two texts", len(b.kept))
	}
}

func TestManyWhoAskAtOnceAreOneRequest(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		<-gate
		_, _ = w.Write([]byte("a: 1\n"))
	})
	f := files(t, &book{}, nil, s.host())
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, _, err := f.File(ctx, "name", s.URL)
		gone <- err
	}()
	for range 20 {
		all.Go(func() {
			if text, _, err := f.File(t.Context(), "name", s.URL); err != nil || string(text) != "a: 1\n" {
				t.Errorf("%q %v", text, err)
			}
		})
	}
	cancel() // who began it need not be there at its end
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(gate)
	all.Wait()
	if n := s.asked.Load(); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestAFetchUnderWayEndsWithTheController(t *testing.T) {
	t.Parallel()
	reached := make(chan struct{})
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		close(reached)
		<-r.Context().Done()
	})
	b := &book{}
	f := files(t, b, nil, s.host())
	ended := make(chan error)
	go func() {
		_, _, err := f.File(t.Context(), "name", s.URL)
		ended <- err
	}()
	<-reached
	f.Close()
	if err := <-ended; !errors.Is(err, context.Canceled) || len(b.kept) > 0 {
		t.Errorf("%v, and %d things are kept", err, len(b.kept))
	}
	if _, _, err := f.File(t.Context(), "other", s.URL); err == nil || !strings.Contains(err.Error(), "nothing is fetched any more") {
		t.Errorf("after it: %v", err)
	}
}

func TestAFailedFetchIsTriedAgainAfterAWhile(t *testing.T) {
	t.Parallel()
	var there atomic.Bool
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if !there.Load() {
			http.NotFound(w, r)
		}
	})
	var now atomic.Int64
	f := files(t, &book{}, func() time.Time { return time.Unix(now.Load(), 0) }, s.host())
	get := func() error {
		_, _, err := f.File(t.Context(), "name", s.URL)
		return err
	}
	if err := get(); err == nil {
		t.Error("there was nothing")
	}
	there.Store(true)
	if err := get(); err == nil || s.asked.Load() != 1 {
		t.Errorf("%d requests, %v", s.asked.Load(), err)
	}
	now.Store(60)
	if err := get(); err != nil {
		t.Error(err)
	}
}

// secret is in each address below: whoever reads a message of a file need not be who may read the address.
const secret = "s3cr3t"

func TestWhatCannotBeHadIsSaidInASentence(t *testing.T) {
	t.Parallel()
	other := serve(t, func(http.ResponseWriter, *http.Request) {})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/page":
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			_, _ = w.Write([]byte("a: 1"))
		case "/unsaid":
			w.Header().Set("Content-Type", "text/plain")
			_, _ = w.Write([]byte("\n <!DOCTYPE html>"))
		case "/long":
			_, _ = w.Write(make([]byte, 1001))
		case "/endless":
			for r.Context().Err() == nil {
				_, _ = w.Write(make([]byte, 4096))
			}
		case "/away":
			http.Redirect(w, r, other.URL+"/?token="+secret, http.StatusFound)
		case "/round":
			http.Redirect(w, r, "/round", http.StatusFound)
		case "/login":
			w.WriteHeader(http.StatusUnauthorized)
		case "/broken":
			w.WriteHeader(http.StatusInternalServerError)
		default:
			http.NotFound(w, r)
		}
	})
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	f := files(t, &book{}, nil, s.host(), closed.Addr().String())
	for address, want := range map[string]string{
		s.URL + "/none":                           "nothing is there (404)",
		s.URL + "/page":                           "a web page is there, and no YAML; give the address of the file itself",
		s.URL + "/unsaid":                         "a web page is there, and no YAML",
		s.URL + "/long":                           "it has more than the 1000 bytes that are read of a file",
		s.URL + "/endless":                        "it has more than the 1000 bytes",
		s.URL + "/login":                          "the server wants credentials (401), and none are sent",
		s.URL + "/broken":                         "the server answered 500",
		s.URL + "/away":                           "which is not https",
		s.URL + "/round":                          "redirects more than 5 times",
		"http://" + closed.Addr().String():        "connection refused",
		"https://other.example.com/m.yaml":        `calls to other.example.com:443 are not allowed; if they shall be, add "other.example.com" to egress.allowHosts`,
		"http://169.254.169.254/latest/meta-data": "calls to 169.254.169.254:80 are not allowed",
		"http://bob:" + secret + "@" + s.host() + "/m.yaml": "holds a name or password",
		"https://bob:" + secret + "@exa mple.com/":          "it is no address like https://HOST/PATH",
		"https:///m.yaml": "it is no address like https://HOST/PATH",
	} {
		_, _, err := f.File(t.Context(), address, address+"?token="+secret)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", address, err, want)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the message tells what is secret: %v", address, err)
		}
	}
	if n := other.asked.Load(); n > 0 {
		t.Errorf("a redirect to another host was followed %d times", n)
	}
}
