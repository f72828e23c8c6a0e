// Package registry runs an OCI registry of the distribution's package (docker-registry) for a test, in a temporary directory, over HTTP on this machine.
package registry

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// User and Password are those that a registry takes.
const (
	User     = "robot"
	Password = "a password of a test"
)

var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`)

// Start runs a registry until the test ends, and returns its HOST:PORT.
func Start(t testing.TB) string {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Fatal("no docker-registry; make deps installs what the tests need")
	}
	dir := t.TempDir()
	hash, err := bcrypt.GenerateFromPassword([]byte(Password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users, config := filepath.Join(dir, "users"), filepath.Join(dir, "config.yml")
	for name, text := range map[string]string{
		users: User + ":" + string(hash) + "\n",
		config: fmt.Sprintf("version: 0.1\nlog: {formatter: text}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: '127.0.0.1:0'}\nauth: {htpasswd: {realm: test, path: %s}}\n",
			filepath.Join(dir, "data"), users),
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	server := exec.Command(program, "serve", config)
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
			return at[1]
		}
	}
	t.Fatal("the registry ended before it listened")
	return ""
}
