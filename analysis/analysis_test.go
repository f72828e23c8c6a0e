// Package analysis_test runs providers against a real Prometheus, against stand-ins that hold to what Datadog and New Relic document, and all of them
// against servers that mean no good.
package analysis_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"towpath/analysis"
)

var (
	end    = time.Date(2026, 3, 1, 12, 0, 30, 500e6, time.UTC)
	window = analysis.Window{Start: end.Add(-time.Minute), End: end}
)

// at is how a test reaches a server.
func at(url string) analysis.Server {
	return analysis.Server{Name: "metrics", URL: url, Transport: http.DefaultTransport}
}

// made fails the test where a constructor fails.
func made(t testing.TB) func(*analysis.Provider, error) *analysis.Provider {
	return func(p *analysis.Provider, err error) *analysis.Provider {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
}

func serve(t *testing.T, handler http.HandlerFunc) string {
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

// answers is a server that answers with JSON.
func answers(t *testing.T, code int, text string) string {
	return serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = w.Write([]byte(text))
	})
}

func value(t *testing.T, p *analysis.Provider, query string, w analysis.Window, want float64) analysis.Measurement {
	t.Helper()
	m, err := p.Measure(t.Context(), query, w)
	if err != nil || m.Value != want {
		t.Errorf("%s: %v, %v; want %v", query, m.Value, err, want)
	}
	return m
}

// fails checks that a measurement ends with an error of a type, which says its parts and shows no secret.
func fails[E error](t *testing.T, p *analysis.Provider, query string, says ...string) {
	t.Helper()
	m, err := p.Measure(t.Context(), query, window)
	failed[E](t, m, err, says...)
}

func failed[E error](t *testing.T, m analysis.Measurement, err error, says ...string) (is E) {
	t.Helper()
	if !errors.As(err, &is) {
		t.Fatalf("got %v, %T: %v; want %T", m.Value, err, err, is)
	}
	for _, part := range append(says, "metric provider metrics ") {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q:\n%v", part, err)
		}
	}
	for _, secret := range secrets {
		if strings.Contains(err.Error(), secret[:5]) { // nor a part of it
			t.Errorf("the error shows a secret (%s):\n%v", secret, err)
		}
	}
	if len(err.Error()) > 800 {
		t.Errorf("the error is too long to be read (%d bytes):\n%.1000s", len(err.Error()), err)
	}
	return is
}

func TestSettingsAreChecked(t *testing.T) {
	t.Parallel()
	for want, made := range map[string]func() (*analysis.Provider, error){
		"url is no address like https://HOST": func() (*analysis.Provider, error) {
			return analysis.NewPrometheus(at("prometheus:9090"), analysis.Auth{})
		},
		"url holds a user or a password; write them as auth": func() (*analysis.Provider, error) {
			return analysis.NewPrometheus(at("https://me:secret@host"), analysis.Auth{})
		},
		"url holds a query; write the address up to it": func() (*analysis.Provider, error) { return analysis.NewDatadog(at("https://host/?x=secret"), "a", "b") },
		"url holds a #": func() (*analysis.Provider, error) {
			return analysis.NewHTTP(at("https://host/#{{query}}"), analysis.Auth{}, "", "$")
		},
		"the account id is a number above 0": func() (*analysis.Provider, error) { return analysis.NewNewRelic(at(analysis.NewRelicEU), "k", 0) },
		"a secret holds a line break":        func() (*analysis.Provider, error) { return analysis.NewNewRelic(at(analysis.NewRelic), "secret\n", 1) },
		`value: "data.value" is no JSON path like $.data.value`: func() (*analysis.Provider, error) {
			return analysis.NewHTTP(at("https://host/{{query}}"), analysis.Auth{}, "", "data.value")
		},
		"there is no variable step; known are query, start, end": func() (*analysis.Provider, error) {
			return analysis.NewHTTP(at("https://host/{{query}}?s={{step}}"), analysis.Auth{}, "", "$")
		},
		"neither url nor body holds {{query}}": func() (*analysis.Provider, error) {
			return analysis.NewHTTP(at("https://host/"), analysis.Auth{}, "{}", "$")
		},
	} {
		_, err := made()
		if err == nil || !strings.Contains(err.Error(), "metric provider metrics: "+want) || strings.Contains(err.Error(), "secret@") || strings.Contains(err.Error(), "x=secret") {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
