package gitsource

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
)

var (
	errSSHAuth   = errors.New("the SSH key was refused")
	errHandshake = errors.New("the connection ended before SSH had begun")
)

// dialer opens a network connection.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// sshSession is git-upload-pack at the other end of an SSH connection. The library's own SSH transport dials by itself, whatever the configuration
// allows, reads the user's ssh_config and does not listen to a context.
type sshSession struct {
	client  *ssh.Client
	session *ssh.Session
	in      io.WriteCloser
	out     io.Reader
	refs    io.Reader // out, as far as the list of references
	told    *tail
	asked   bool
	release func() bool
}

// dialSSH logs in with the key of one file, at a host whose key is in another, and starts the command.
func dialSSH(ctx context.Context, a address, dial dialer, keyFile, hostsFile string, limits Limits, w *watch) (_ remote, err error) {
	defer w.await()()
	config, err := sshConfig(a, keyFile, hostsFile)
	if err != nil {
		return nil, err
	}
	conn, err := dial(ctx, "tcp", a.hostPort())
	if err != nil {
		return nil, err
	}
	// The library knows no context: closing the connection ends whatever it waits for.
	s := &sshSession{told: &tail{}, release: context.AfterFunc(ctx, func() { conn.Close() })}
	defer func() {
		if err != nil {
			s.release()
			err = errors.Join(err, ignoreClosed(conn.Close()))
		}
	}()
	c, channels, requests, err := ssh.NewClientConn(conn, a.hostPort(), config)
	if err != nil {
		if strings.Contains(err.Error(), "unable to authenticate") {
			return nil, errSSHAuth
		}
		if cutOff(err) {
			return nil, errHandshake
		}
		return nil, err
	}
	s.client = ssh.NewClient(c, channels, requests)
	if s.session, err = s.client.NewSession(); err != nil {
		return nil, err
	}
	s.session.Stderr = s.told
	if s.in, err = s.session.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.session.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.out, s.refs = w.reader(out, 0), w.reader(out, limits.ReferenceBytes)
	if err := s.session.Start("git-upload-pack " + shellQuote(a.path)); err != nil {
		return nil, err
	}
	return &server{session: s}, nil
}

func sshConfig(a address, keyFile, hostsFile string) (*ssh.ClientConfig, error) {
	text, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, badSetting("the SSH key cannot be read: %v", err)
	}
	key, err := ssh.ParsePrivateKey(text)
	var locked *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked):
		return nil, badSetting("the SSH key %s is protected by a passphrase; use one without, readable by this process alone", keyFile)
	case err != nil:
		return nil, badSetting("the SSH key %s is no private key in PEM or OpenSSH form", keyFile)
	}
	hosts, err := knownhosts.NewDB(hostsFile)
	if err != nil {
		return nil, badSetting("the known hosts file cannot be read: %v", err)
	}
	return &ssh.ClientConfig{
		User:            a.user,
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(key)},
		HostKeyCallback: hosts.HostKeyCallback(),
		// Without this a server with keys of several kinds may show one that is not in the file, though another is.
		HostKeyAlgorithms: hosts.HostKeyAlgorithms(a.hostPort()),
	}, nil
}

func (s *sshSession) AdvertisedReferencesContext(ctx context.Context) (*packp.AdvRefs, error) {
	offered := packp.NewAdvRefs()
	err := offered.Decode(s.refs)
	var line *pktline.ErrorLine
	switch {
	case err == nil && offered.IsEmpty(), errors.Is(err, packp.ErrEmptyAdvRefs):
		return nil, transport.ErrEmptyRemoteRepository
	case errors.As(err, &line):
		return nil, verdict(line.Text)
	case errors.Is(err, packp.ErrEmptyInput):
		// The command ended without a word on this side; what it wrote on the other says why, once it is all here.
		_ = s.session.Wait()
		return nil, verdict(s.told.String())
	case err != nil:
		return nil, err
	}
	transport.FilterUnsupportedCapabilities(offered.Capabilities)
	return offered, nil
}

// verdict sorts what a server says instead of sending references. There is no code for it in the protocol, only the texts of its makers.
func verdict(text string) error {
	for _, known := range []string{"not found", "does not exist", "does not appear to be a git repository", "could not be found", "no such repository", "not a git repository"} {
		if strings.Contains(strings.ToLower(text), known) {
			return errNoRepository
		}
	}
	if strings.TrimSpace(text) == "" {
		return errClosed
	}
	return &remoteError{text}
}

func (s *sshSession) UploadPack(ctx context.Context, request *packp.UploadPackRequest) (*packp.UploadPackResponse, error) {
	if err := request.Validate(); err != nil {
		return nil, err
	}
	s.asked = true
	if err := request.UploadRequest.Encode(s.in); err != nil {
		return nil, err
	}
	if err := request.UploadHaves.Encode(s.in, true); err != nil {
		return nil, err
	}
	if err := pktline.NewEncoder(s.in).EncodeString("done\n"); err != nil {
		return nil, err
	}
	answer := packp.NewUploadPackResponse(request)
	if err := answer.Decode(io.NopCloser(s.out)); err != nil {
		if text := s.told.String(); text != "" {
			return nil, verdict(text)
		}
		return nil, err
	}
	return answer, nil
}

// Close says goodbye and ends the connection.
func (s *sshSession) Close() error {
	if !s.asked {
		_, _ = s.in.Write(pktline.FlushPkt) // so that the command ends well; it may have ended already
	}
	_ = s.session.Close()
	err := s.client.Close()
	_ = s.client.Wait()
	s.release()
	return ignoreClosed(err)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// shellQuote writes a path so that a shell, or Git's own shell, takes it as one word.
func shellQuote(path string) string {
	return "'" + strings.NewReplacer("'", `'\''`, "!", `'\!'`).Replace(path) + "'"
}

// tail keeps the first few kilobytes that are written to it. Safe for concurrent use.
type tail struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	const most = 4096
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text.Write(p[:min(len(p), most-t.text.Len())])
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(t.text.String())
}
