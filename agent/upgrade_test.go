package agent_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"towpath/agent/edge"
	"towpath/agent/hub"
)

// upgrade is a request as exec sends it.
func (w *world) upgrade(path string) *http.Request {
	w.t.Helper()
	request, err := http.NewRequestWithContext(w.ctx, http.MethodPost, "http://cluster"+path, nil)
	ok(w.t, err)
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", "SPDY/3.1")
	request.Header.Set("X-Stream-Protocol-Version", "v4.channel.k8s.io")
	return request
}

// upgrading answers 101 and hands the connection over; it ends when talk returns.
func upgrading(t testing.TB, talk func(conn net.Conn, in *bufio.Reader)) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 1 || r.Header.Get("Upgrade") != "SPDY/3.1" || !strings.EqualFold(r.Header.Get("Connection"), "upgrade") || r.Header.Get("Authorization") != "Bearer sa-token-1" {
			t.Errorf("the cluster gets %s %v", r.Proto, r.Header)
		}
		conn, buffered, err := rw.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n")
		talk(conn, buffered.Reader)
	}
}

func (w *world) connect(path string) *hub.Conn {
	w.t.Helper()
	response, err := w.client("prod").Do(w.upgrade(path))
	ok(w.t, err)
	equal(w.t, response.StatusCode, http.StatusSwitchingProtocols, "status")
	for name, want := range map[string]string{"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": "v4.channel.k8s.io"} {
		equal(w.t, response.Header.Get(name), want, name)
	}
	return response.Body.(*hub.Conn)
}

func TestAnUpgradedConnectionCarriesBothWays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hub.Limits{})
	w.start(w.identity("prod", cluster(t, upgrading(t, func(conn net.Conn, in *bufio.Reader) {
		for { // line by line, then a big answer, then the end
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			if line == "bye\n" {
				big := make([]byte, 1<<20)
				_, _ = rand.Read(big)
				_, _ = conn.Write(big)
				return
			}
			_, _ = io.WriteString(conn, strings.ToUpper(line))
		}
	}))), edge.Timing{})
	conn := w.connect("/api/v1/namespaces/a/pods/b/exec?command=sh")
	in := bufio.NewReader(conn)
	for _, line := range []string{"one\n", strings.Repeat("x", 100_000) + "\n", "three\n"} {
		_, err := io.WriteString(conn, line)
		ok(t, err)
		got, err := in.ReadString('\n')
		ok(t, err)
		equal(t, got, strings.ToUpper(line), "answer")
	}
	_, err := io.WriteString(conn, "bye\n")
	ok(t, err)
	rest, err := io.ReadAll(in)
	ok(t, err)
	equal(t, len(rest), 1<<20, "bytes until the end")
	ok(t, conn.Close())
}

func TestAnUpgradeThatTheClusterRefusesIsAnOrdinaryAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hub.Limits{})
	w.start(w.identity("prod", cluster(t, func(rw http.ResponseWriter, _ *http.Request) {
		http.Error(rw, "pods/exec is forbidden", http.StatusForbidden)
	})), edge.Timing{})
	for range 20 {
		response, text, err := read(w.client("prod").Do(w.upgrade("/exec")))
		ok(t, err)
		equal(t, response.StatusCode, http.StatusForbidden, "status")
		contains(t, text, "pods/exec is forbidden")
	}
}

func TestAnUpgradedConnectionEndsWhoeverLeaves(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(w *world, conn *hub.Conn, cancel func()){
		"the caller closes": func(_ *world, conn *hub.Conn, _ func()) { _ = conn.Close() },
		"its context ends":  func(_ *world, _ *hub.Conn, cancel func()) { cancel() },
		"the identity goes": func(w *world, _ *hub.Conn, _ func()) { w.hub.Disconnect("t", "prod", "revoked") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, gone := newWorld(t, hub.Limits{}), make(chan struct{})
			w.start(w.identity("prod", cluster(t, upgrading(t, func(_ net.Conn, in *bufio.Reader) {
				_, _ = io.Copy(io.Discard, in)
				close(gone)
			}))), edge.Timing{})
			ctx, cancel := context.WithCancel(w.ctx)
			defer cancel()
			w.ctx = ctx
			conn := w.connect("/exec")
			leave(w, conn, cancel)
			select {
			case <-gone:
			case <-t.Context().Done():
				t.Error("the cluster's end of the connection is still open")
			}
			if n, err := io.Copy(&bytes.Buffer{}, conn); err == nil {
				t.Errorf("%d bytes, and an end as if all had been said", n)
			}
			if _, err := conn.Write([]byte("x")); err == nil {
				t.Error("what is written then goes nowhere, and nobody says so")
			}
		})
	}
}
