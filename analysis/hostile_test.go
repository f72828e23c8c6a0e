package analysis_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"towpath/analysis"
)

// secrets are those that tests give to providers, and that no message may show; the last one is what becomes of the first two in a header.
var secrets = []string{"key-9f3a1c", "key-77b2e0-longer", base64.StdEncoding.EncodeToString([]byte("key-9f3a1c:key-77b2e0-longer"))}

// every makes a provider of each kind, for a server.
func every(t testing.TB, s analysis.Server) map[string]*analysis.Provider {
	withQuery := s
	withQuery.URL += "?q={{query}}"
	return map[string]*analysis.Provider{
		"prometheus, bearer": made(t)(analysis.NewPrometheus(s, analysis.Auth{Token: secrets[0]})),
		"prometheus, basic":  made(t)(analysis.NewPrometheus(s, analysis.Auth{Username: secrets[0], Password: secrets[1]})),
		"datadog":            made(t)(analysis.NewDatadog(s, secrets[0], secrets[1])),
		"new relic":          made(t)(analysis.NewNewRelic(s, secrets[0], 1)),
		"http":               made(t)(analysis.NewHTTP(withQuery, analysis.Auth{Token: secrets[1]}, "", "$.data.value")),
	}
}

// wants says what an error must be.
type wants func(t *testing.T, m analysis.Measurement, err error)

func wantsA[E error](says ...string) wants {
	return func(t *testing.T, m analysis.Measurement, err error) {
		t.Helper()
		failed[E](t, m, err, says...)
	}
}

func wantsWait(after time.Duration, says ...string) wants {
	return func(t *testing.T, m analysis.Measurement, err error) {
		t.Helper()
		if away := failed[*analysis.Unavailable](t, m, err, says...); away.After != after {
			t.Errorf("it wants to be left alone for %s, want %s", away.After, after)
		}
	}
}

func sends(code int, header map[string]string, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for name, value := range header {
			w.Header().Set(name, value)
		}
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body))
	}
}

// credentials are those of a request, by themselves.
func credentials(r *http.Request) (all string) {
	for _, name := range []string{"Authorization", "DD-API-KEY", "DD-APPLICATION-KEY", "API-Key"} {
		text := r.Header.Get(name)
		all += text[strings.IndexByte(text, ' ')+1:]
	}
	return all
}

func TestNoProviderTrustsItsServer(t *testing.T) {
	t.Parallel()
	elsewhere := serve(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("a redirect was followed, with %v", r.Header) })
	long := strings.Repeat("x", 5000)
	for name, c := range map[string]struct {
		server http.HandlerFunc
		want   wants
	}{
		"sends without end": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte(strings.Repeat(" ", 64<<10))); err != nil {
					return
				}
			}
		}, wantsA[*analysis.Refused]("answers with more than 1 MiB")},
		"announces 100 MB": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100000000")
			_, _ = w.Write(make([]byte, 2<<20))
		}, wantsA[*analysis.Refused]("answers with more than 1 MiB")},
		"breaks off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte(`{"status":"success"`))
		}, wantsA[*analysis.Unavailable]("unexpected EOF")},
		"hangs up": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, wantsA[*analysis.Unavailable]("EOF")},
		"redirects elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere+"/with?"+secrets[0], http.StatusTemporaryRedirect)
		}, wantsA[*analysis.Refused]("it redirects to " + elsewhere + ", and redirects are not followed")},
		"redirects to nowhere":          {sends(302, nil, ""), wantsA[*analysis.Refused]("it redirects to another address")},
		"is a page to sign in":          {sends(200, map[string]string{"Content-Type": "text/html; charset=utf-8"}, "<html>\n  <title>Sign in</title>"), wantsA[*analysis.Refused](`it answers with "text/html; charset=utf-8" in place of JSON: "<html> <title>Sign in</title>"; is its url right?`)},
		"says not what it sends":        {sends(200, map[string]string{"Content-Type": ""}, `{"data":{"value":1}}`), wantsA[*analysis.Refused]("in place of JSON")},
		"sends what is no JSON":         {sends(200, nil, "{"), wantsA[*analysis.Refused](`what is no valid JSON: "{"`)},
		"sends JSON twice":              {sends(200, nil, `{"data":{"value":1}}{"data":{"value":2}}`), wantsA[*analysis.Refused]("what is no valid JSON")},
		"sends nothing":                 {sends(200, nil, ""), wantsA[*analysis.Refused]("what is no valid JSON")},
		"has no content":                {sends(204, nil, ""), wantsA[*analysis.Refused]("it answers 204 No Content")},
		"sends brackets without end":    {sends(200, nil, strings.Repeat("[", 100_000)), wantsA[*analysis.Refused]("no valid JSON")},
		"sends a list":                  {sends(200, nil, "[]"), wantsAnError},
		"sends a text":                  {sends(200, nil, `"`+long+`"`), wantsAnError},
		"sends null":                    {sends(200, nil, "null"), wantsAnError},
		"sends another object":          {sends(200, nil, `{"hello":"`+long+`"}`), wantsAnError},
		"sends a number beyond numbers": {sends(200, nil, `{"status":"ok","data":{"value":1e999}}`), wantsAnError},
		"sends the wrong types":         {sends(200, nil, `{"status":7,"data":{"value":[`+long[:10]+`"`), wantsA[*analysis.Refused]()},
		"knows us not, and says what we sent": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, credentials(r))
		}, wantsA[*analysis.Refused]("401 Unauthorized", "[hidden]", "check the provider's credentials")},
		"says what we sent where its answer is cut": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, strings.Repeat("-", 194), credentials(r))
		}, wantsA[*analysis.Refused]("401 Unauthorized", "--[hidde …")},
		"says in JSON what we sent": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"hello":%q}`, credentials(r))
		}, wantsAnError},
		"says as an error what we sent": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, `{"status":"error","error":%[1]q,"errors":[%[1]q]}`, credentials(r))
		}, wantsA[*analysis.Refused]("[hidden]")},
		"forbids":                        {sends(403, nil, `{"errors":["`+long+`"]}`), wantsA[*analysis.Refused]("403 Forbidden", " …", "credentials")},
		"is not there":                   {sends(404, nil, "no\x00where\xff"), wantsA[*analysis.Refused]("404 Not Found", "check the provider's url")},
		"calls the query bad":            {sends(400, nil, ""), wantsA[*analysis.Refused]("it answers 400 Bad Request")},
		"has a status of its own":        {sends(499, nil, ""), wantsA[*analysis.Refused]("it answers 499")},
		"is broken":                      {sends(500, nil, "<h1>oops</h1>"), wantsWait(0, `it answers 500 Internal Server Error: "<h1>oops</h1>"`)},
		"is overloaded":                  {sends(503, map[string]string{"Retry-After": "7"}, ""), wantsWait(7*time.Second, "503 Service Unavailable")},
		"wants to be left alone":         {sends(429, map[string]string{"Retry-After": "7"}, ""), wantsWait(7*time.Second, "429 Too Many Requests")},
		"wants to be left alone forever": {sends(429, map[string]string{"Retry-After": "2000000000"}, ""), wantsWait(time.Hour)},
		"until a day to come":            {sends(429, map[string]string{"Retry-After": "Fri, 31 Dec 2999 23:59:59 GMT"}, ""), wantsWait(time.Hour)},
		"until a day long ago":           {sends(429, map[string]string{"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, ""), wantsWait(0)},
		"until it does not say when":     {sends(429, map[string]string{"Retry-After": "soon"}, ""), wantsWait(0)},
		"for less than no time":          {sends(429, map[string]string{"Retry-After": "-5"}, ""), wantsWait(0)},
		"gives up waiting for us":        {sends(408, nil, ""), wantsWait(0, "408 Request Timeout")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for kind, p := range every(t, at(serve(t, c.server))) {
				t.Run(kind, func(t *testing.T) {
					m, err := p.Measure(t.Context(), "q", window)
					c.want(t, m, err)
				})
			}
		})
	}
}

// wantsAnError takes any of the three: what is no data for one kind is a wrong answer to another.
func wantsAnError(t *testing.T, m analysis.Measurement, err error) {
	t.Helper()
	var none *analysis.NoData
	if errors.As(err, &none) {
		failed[*analysis.NoData](t, m, err)
		return
	}
	failed[*analysis.Refused](t, m, err)
}

func TestAServerThatStallsIsLeft(t *testing.T) {
	t.Parallel()
	for name, begins := range map[string]bool{"before its answer": false, "within its answer": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := at(serve(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body) // only then a server sees that the other side is gone
				if begins {
					_, _ = w.Write([]byte("{"))
					w.(http.Flusher).Flush()
				}
				<-r.Context().Done()
			}))
			s.Timeout = 50 * time.Millisecond
			for kind, p := range every(t, s) {
				m, err := p.Measure(t.Context(), "q", window)
				failed[*analysis.Unavailable](t, m, err, "it did not answer within 50ms")
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s: the cause is lost: %v", kind, err)
				}
			}
		})
	}
}

func TestWhoeverAsksMayGiveUp(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	s := at(serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		cancel()
		<-r.Context().Done()
	}))
	for kind, p := range every(t, s) {
		m, err := p.Measure(ctx, "q", window)
		failed[*analysis.Unavailable](t, m, err, "it was asked, and had no time to answer")
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: the cause is lost: %v", kind, err)
		}
	}
}

func TestAServerThatIsNotThereMayComeBack(t *testing.T) {
	t.Parallel()
	for _, p := range every(t, at("http://127.0.0.1:1")) {
		fails[*analysis.Unavailable](t, p, "q", "connection refused")
	}
}

// closed is the transport of a configuration that lets nothing out.
type closed struct{ err error }

func (c closed) RoundTrip(*http.Request) (*http.Response, error) { return nil, c.err }

func TestWhatAConfigurationForbidsIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	forbidden := errors.New("calls to metrics.example.com are not allowed; add it to egress.allowHosts")
	s := at("https://metrics.example.com")
	s.Transport, s.Forbidden = closed{forbidden}, func(err error) bool { return errors.Is(err, forbidden) }
	for _, p := range every(t, s) {
		fails[*analysis.Refused](t, p, "q", "add it to egress.allowHosts")
	}
}
