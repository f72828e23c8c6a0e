// Package prometheus runs a Prometheus server of the distribution's package for a test, in a temporary directory, on a port of its own on this machine. It
// scrapes values that the test sets, and what else it is told to, and lets in whoever has User and Password.
package prometheus

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// User and Password are those that the server takes.
const (
	User     = "robot"
	Password = "a password of a test"
)

var listening = regexp.MustCompile(`msg="Listening on" address=(127\.0\.0\.1:\d+)`)

// Server is a running Prometheus.
type Server struct {
	URL string

	t      testing.TB
	mu     sync.Mutex
	values map[string]float64
}

// Start runs a server until the test ends. It finds what to scrape beside the test's values at addresses for its HTTP service discovery.
func Start(t testing.TB, discover ...string) *Server {
	t.Helper()
	program, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatal("no prometheus; make deps installs what the tests need")
	}
	s := &Server{t: t, values: map[string]float64{}}
	scraped := httptest.NewServer(http.HandlerFunc(s.expose))
	t.Cleanup(scraped.Close)
	hash, err := bcrypt.GenerateFromPassword([]byte(Password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	jobs := fmt.Sprintf("- {job_name: test, static_configs: [{targets: ['%s']}]}\n", scraped.Listener.Addr())
	for i, address := range discover {
		jobs += fmt.Sprintf("- {job_name: found-%d, http_sd_configs: [{url: %q, refresh_interval: 500ms}]}\n", i, address)
	}
	dir := t.TempDir()
	config, web := filepath.Join(dir, "prometheus.yml"), filepath.Join(dir, "web.yml")
	for name, text := range map[string]string{
		config: "global: {scrape_interval: 500ms, scrape_timeout: 500ms}\nscrape_configs:\n" + jobs,
		web:    fmt.Sprintf("basic_auth_users: {%s: '%s'}\n", User, hash),
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	server := exec.Command(program, "--config.file="+config, "--web.config.file="+web, "--web.listen-address=127.0.0.1:0", "--storage.tsdb.path="+filepath.Join(dir, "data"), "--log.format=logfmt")
	log, err := server.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Signal(syscall.SIGTERM)
		server.Wait()
	})
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if at := listening.FindStringSubmatch(lines.Text()); at != nil {
			go io.Copy(io.Discard, log)
			s.URL = "http://" + at[1]
			s.Await("vector(1)", 1)
			return s
		}
	}
	t.Fatal("prometheus ended before it listened")
	return nil
}

// Set gives a series ("errors_total{pod=\"a\"}") its value at all scrapes from now on.
func (s *Server) Set(series string, value float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[series] = value
}

func (s *Server) expose(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for series, value := range s.values {
		fmt.Fprintf(w, "%s %g\n", series, value)
	}
}

// Await waits until a query gives one value, and returns the time at which it did. It asks by itself, not by what is tested.
func (s *Server) Await(query string, value float64) time.Time {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	want := fmt.Sprint(value)
	for last := ""; ; {
		select {
		case <-ctx.Done():
			s.t.Fatalf("%s never was %s, at last %s", query, want, last)
		case <-ticker.C:
		}
		at := time.Now()
		if last = s.ask(ctx, query, at); last == want {
			return at
		}
	}
}

// ask is the value of a query's one sample, or what came in its place.
func (s *Server) ask(ctx context.Context, query string, at time.Time) string {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/api/v1/query?time=%d.%03d&query=%s", s.URL, at.Unix(), at.Nanosecond()/1e6, url.QueryEscape(query)), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	request.SetBasicAuth(User, Password)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error()
	}
	var answer struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	if json.Unmarshal(text, &answer) != nil || len(answer.Data.Result) != 1 {
		return string(text)
	}
	return fmt.Sprint(answer.Data.Result[0].Value[1])
}
