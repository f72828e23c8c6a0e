package main

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"towpath/internal/localstack"
)

// TestScripts runs the scripts in testdata/script: people's sessions with a real controller, on a database and with a repository of each script's own.
//
//	controller [stop|start]   starts a controller that watches what publish makes; TOWPATH_ADDR, TOWPATH_TOKEN and TOWPATH_CA are set
//	token VARIABLE GRANT…     makes a token of the name VARIABLE
//	publish DIR               makes a commit of what lies in DIR
//	exits CODE COMMAND…       runs a command that ends with this code
//	await TEXT COMMAND…       runs a command until its output holds a text
//	id FILE                   sets ID to the last DEPLOYMENT_ID in a GITHUB_OUTPUT file
//
// What lies in the folder site is at the address CHARTS, which controllers may call.
func TestScripts(t *testing.T) {
	program := filepath.Join(t.TempDir(), "towpath-controller")
	if out, err := exec.Command("go", "build", "-o", program, "towpath/cmd/towpath-controller").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			s := &session{program: program, dir: filepath.Join(e.WorkDir, ".towpath")}
			e.Values[sessionKey{}] = s
			e.Defer(s.stop)
			for _, name := range []string{"GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"} {
				e.Setenv(name, "Ann")
			}
			for _, name := range []string{"GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"} {
				e.Setenv(name, "ann@example.com")
			}
			e.Setenv("GIT_DIR", filepath.Join(s.dir, "repo.git"))
			e.Setenv("HOME", e.WorkDir)
			site := httptest.NewServer(http.FileServer(http.Dir(filepath.Join(e.WorkDir, "site"))))
			e.Defer(site.Close)
			e.Setenv("CHARTS", site.URL)
			return s.configure(site.Listener.Addr().String())
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"controller": controllerCommand, "token": tokenCommand, "publish": publish, "exits": exits, "await": await, "id": idCommand,
		},
	})
}

// session is a script's controller.
type session struct {
	program, dir, address string
	running               *exec.Cmd
}

type sessionKey struct{}

func of(ts *testscript.TestScript) *session { return ts.Value(sessionKey{}).(*session) }

func (s *session) path(name string) string { return filepath.Join(s.dir, name) }

func (s *session) configure(charts string) error {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	own, hub, err := localstack.Free()
	if err != nil {
		return err
	}
	s.address = "https://" + own
	config := fmt.Sprintf(`externalURL: %s
listen: %s
agents: {listen: %q}
database: sqlite:%s
keyFile: %s
data: %s
render: {workers: 1, timeout: 2s}
egress: {allowHosts: [%q], allowPrivate: [%q]}
sources: [{name: repo, url: %s, branch: main, schedule: "@every 5s", allow: [{accounts: ["*"], namespaces: ["*"], kinds: ["*"]}]}]
`, s.address, own, hub, s.path("towpath.db"), s.path("key"), s.path("data"), charts, charts, s.path("repo.git"))
	key := base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
	return errors.Join(os.WriteFile(s.path("key"), []byte(key), 0o600), os.WriteFile(s.path("config.yaml"), []byte(config), 0o600))
}

// start returns once the controller serves.
func (s *session) start() error {
	s.running = exec.Command(s.program, "--config", s.path("config.yaml"))
	log, err := s.running.StderrPipe()
	if err != nil {
		return err
	}
	if err := s.running.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(log)
	var said strings.Builder
	for lines.Scan() {
		fmt.Fprintln(&said, lines.Text())
		if strings.Contains(lines.Text(), "the controller serves") {
			go func() {
				for lines.Scan() { // nobody needs the rest, but it must be taken
				}
			}()
			return nil
		}
	}
	return fmt.Errorf("the controller did not start:\n%s", &said)
}

func (s *session) stop() {
	if s.running == nil {
		return
	}
	s.running.Process.Signal(os.Interrupt)
	s.running.Wait()
	s.running = nil
}

// make runs a command of the controller's program.
func (s *session) make(args ...string) (string, error) {
	out, err := exec.Command(s.program, append([]string{"--config", s.path("config.yaml")}, args...)...).Output()
	return strings.TrimSpace(string(out)), err
}

func controllerCommand(ts *testscript.TestScript, _ bool, args []string) {
	s := of(ts)
	if len(args) > 0 && args[0] == "stop" {
		s.stop()
		return
	}
	ts.Check(s.start())
	if len(args) > 0 {
		return
	}
	secret, err := s.make("token", "create", "--name", "ann", "--grant", "admin")
	ts.Check(err)
	ts.Setenv("TOWPATH_ADDR", s.address)
	ts.Setenv("TOWPATH_CA", filepath.Join(s.path("data"), "tls", "ca.crt"))
	ts.Setenv("TOWPATH_TOKEN", secret)
}

func tokenCommand(ts *testscript.TestScript, _ bool, args []string) {
	secret, err := of(ts).make("token", "create", "--name", args[0], "--grant", strings.Join(args[1:], ","))
	ts.Check(err)
	ts.Setenv(args[0], secret)
}

func publish(ts *testscript.TestScript, _ bool, args []string) {
	if _, err := os.Stat(ts.Getenv("GIT_DIR")); err != nil {
		ts.Check(ts.Exec("git", "init", "-q", "--bare", "-b", "main", ts.Getenv("GIT_DIR")))
	}
	tree := "--work-tree=" + ts.MkAbs(args[0])
	ts.Check(ts.Exec("git", tree, "add", "-A"))
	ts.Check(ts.Exec("git", tree, "commit", "-q", "--allow-empty", "-m", "a change"))
}

func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var ended *exec.ExitError
		if !errors.As(err, &ended) {
			ts.Fatalf("%v", err)
		}
		code = ended.ExitCode()
	}
	if code != want {
		ts.Fatalf("%s ended with %d, want %d", strings.Join(args[1:], " "), code, want)
	}
}

func await(ts *testscript.TestScript, _ bool, args []string) {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		_ = ts.Exec(args[1], args[2:]...) // it may fail at first
		if strings.Contains(ts.ReadFile("stdout")+ts.ReadFile("stderr"), args[0]) {
			return
		}
	}
	ts.Fatalf("%s never said %q", strings.Join(args[1:], " "), args[0])
}

func idCommand(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[0])
	at := strings.LastIndex(text, "DEPLOYMENT_ID=")
	if at < 0 {
		ts.Fatalf("%s names no deployment: %q", args[0], text)
	}
	id, _, _ := strings.Cut(text[at+len("DEPLOYMENT_ID="):], "\n")
	ts.Setenv("ID", id)
}
