package gitserver

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// SSHServer serves the repositories of a directory over SSH, read-only, to one key.
type SSHServer struct {
	URL            string // ssh://git@127.0.0.1:PORT; a repository's own is URL + "/" + Repo.Name
	KeyFile        string // the private key that may log in
	KnownHostsFile string // with the server's key

	dir    string
	config *ssh.ServerConfig
	wait   sync.WaitGroup
	mu     sync.Mutex
	conns  map[net.Conn]bool // nil when closing
}

// ServeSSH starts a server. It ends with the test.
func ServeSSH(t testing.TB, dir string) *SSHServer {
	t.Helper()
	folder := t.TempDir()
	s := &SSHServer{
		dir: dir, conns: map[net.Conn]bool{},
		KeyFile: filepath.Join(folder, "id"), KnownHostsFile: filepath.Join(folder, "known_hosts"),
	}
	allowed := NewSSHKey(t, s.KeyFile)
	host := NewSSHKey(t, filepath.Join(folder, "host"))
	s.config = &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if string(key.Marshal()) != string(allowed.PublicKey().Marshal()) {
			return nil, errors.New("not a known key")
		}
		return nil, nil
	}}
	s.config.AddHostKey(host)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.URL = "ssh://git@" + listener.Addr().String()
	WriteKnownHosts(t, s.KnownHostsFile, listener.Addr().String(), host.PublicKey())
	s.wait.Go(func() { s.accept(listener) })
	t.Cleanup(func() {
		listener.Close()
		s.mu.Lock()
		for conn := range s.conns {
			conn.Close()
		}
		s.conns = nil
		s.mu.Unlock()
		s.wait.Wait()
	})
	return s
}

// NewSSHKey makes a key and writes it to a file.
func NewSSHKey(t testing.TB, path string) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// WriteKnownHosts writes a file that knows one host, "HOST:PORT", by one key.
func WriteKnownHosts(t testing.TB, path, address string, key ssh.PublicKey) {
	t.Helper()
	line := knownhosts.Line([]string{knownhosts.Normalize(address)}, key) + "\n"
	if err := os.WriteFile(path, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *SSHServer) accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		closing := s.conns == nil
		if !closing {
			s.conns[conn] = true
			s.wait.Go(func() { s.serve(conn) })
		}
		s.mu.Unlock()
		if closing {
			conn.Close()
		}
	}
}

func (s *SSHServer) serve(conn net.Conn) {
	defer func() {
		conn.Close()
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
	}()
	_, channels, requests, err := ssh.NewServerConn(conn, s.config)
	if err != nil {
		return
	}
	s.wait.Go(func() { ssh.DiscardRequests(requests) })
	for next := range channels {
		if next.ChannelType() != "session" {
			_ = next.Reject(ssh.UnknownChannelType, "sessions only")
			continue
		}
		channel, requests, err := next.Accept()
		if err != nil {
			return
		}
		s.wait.Go(func() { s.session(channel, requests) })
	}
}

func (s *SSHServer) session(channel ssh.Channel, requests <-chan *ssh.Request) {
	defer channel.Close()
	for r := range requests {
		var exec struct{ Command string }
		if r.Type != "exec" || ssh.Unmarshal(r.Payload, &exec) != nil {
			_ = r.Reply(false, nil)
			continue
		}
		_ = r.Reply(true, nil)
		status := s.uploadPack(channel, exec.Command)
		_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
		return
	}
}

// uploadPack runs the one command there is, on a repository under the directory.
func (s *SSHServer) uploadPack(channel ssh.Channel, line string) uint32 {
	path, ok := strings.CutPrefix(line, "git-upload-pack ")
	path = filepath.Join(s.dir, filepath.Clean("/"+strings.Trim(path, "'")))
	if _, err := os.Stat(path); !ok || err != nil {
		fmt.Fprintf(channel.Stderr(), "ERROR: Repository not found.\n")
		return 128
	}
	c := exec.Command("git-upload-pack", path)
	c.Env = environment()
	c.Stdout, c.Stderr = channel, channel.Stderr()
	in, err := c.StdinPipe()
	if err != nil {
		return 1
	}
	if err := c.Start(); err != nil {
		fmt.Fprintln(channel.Stderr(), err)
		return 1
	}
	s.wait.Go(func() {
		_, _ = io.Copy(in, channel)
		in.Close()
	})
	if err := c.Wait(); err != nil {
		return uint32(max(c.ProcessState.ExitCode(), 1))
	}
	return 0
}
