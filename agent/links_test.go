package agent_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"towpath/agent/edge"
	"towpath/agent/hub"
	"towpath/internal/testkit/faultproxy"
)

// fast is 100 Mbit/s.
const fast = 100e6 / 8

// sized answers a body of ?n= bytes, and counts the bytes of one that it gets.
func sized(w http.ResponseWriter, r *http.Request) {
	got, _ := io.Copy(io.Discard, r.Body)
	if r.Method == http.MethodPost {
		fmt.Fprint(w, got)
		return
	}
	var n int64
	_, _ = fmt.Sscan(r.URL.Query().Get("n"), &n)
	_, _ = io.CopyN(w, zeros{}, n)
}

// far is an agent whose hub is at the other end of a link.
func far(t *testing.T, link faultproxy.Link) *world {
	t.Helper()
	w := newWorld(t, hub.Limits{})
	c := w.identity("prod", cluster(t, sized))
	c.Hub.Address = faultproxy.StartLink(t, w.address, link).Address()
	w.start(c, edge.Timing{})
	return w
}

func TestSmallRequestsPassBigBodiesOnANarrowLink(t *testing.T) {
	t.Parallel()
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			const size = 25 << 20 // two seconds
			w := far(t, faultproxy.Link{Rate: fast})
			ended := make(chan error, 1)
			go func() {
				var body io.Reader
				if method == http.MethodPost {
					body = io.LimitReader(zeros{}, size)
				}
				_, text, err := w.do("prod", method, fmt.Sprint("/?n=", size), body)
				if err == nil && method == http.MethodGet && len(text) != size || err == nil && method == http.MethodPost && text != fmt.Sprint(size) {
					err = fmt.Errorf("not all has come")
				}
				ended <- err
			}()
			for range 10 {
				_, _, err := w.do("prod", http.MethodGet, "/?n=1000", nil)
				ok(t, err)
			}
			select {
			case <-ended:
				t.Error("ten small requests took as long as the big one")
			default:
				ok(t, next(t, w.ctx, ended, "the big body"))
			}
		})
	}
}

func TestBodiesFillLongLinks(t *testing.T) {
	t.Parallel()
	for trip, size := range map[time.Duration]int{40 * time.Millisecond: 8 << 20, 200 * time.Millisecond: 4 << 20} {
		t.Run(trip.String(), func(t *testing.T) {
			t.Parallel()
			link := faultproxy.Link{Delay: trip / 2, Rate: fast}
			w := far(t, link)
			k := cluster(t, sized)
			client := k.Client()
			direct := "https://" + faultproxy.StartLink(t, strings.TrimPrefix(k.URL, "https://"), link).Address()
			timed := func(do func() (*http.Response, string, error)) time.Duration {
				t.Helper()
				began := time.Now()
				_, text, err := do()
				ok(t, err)
				if text != fmt.Sprint(size) && len(text) != size {
					t.Fatalf("%d bytes of %d: %.20s", len(text), size, text)
				}
				return time.Since(began)
			}
			for method, body := range map[string]func() io.Reader{
				http.MethodGet: func() io.Reader { return nil }, http.MethodPost: func() io.Reader { return io.LimitReader(zeros{}, int64(size)) },
			} {
				want := timed(func() (*http.Response, string, error) {
					request, err := http.NewRequestWithContext(w.ctx, method, fmt.Sprint(direct, "/?n=", size), body())
					ok(t, err)
					return read(client.Do(request))
				})
				got := timed(func() (*http.Response, string, error) { return w.do("prod", method, fmt.Sprint("/?n=", size), body()) })
				t.Logf("%s: direct %s, tunnelled %s", method, want, got)
				if got > 4*want+10*trip { // twice as long is promised, once the windows have grown
					t.Errorf("%s took %s, and directly %s", method, got, want)
				}
			}
		})
	}
}
