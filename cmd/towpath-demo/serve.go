package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"towpath/internal/localkube"
)

// serve is the background process: it starts everything, says that it is ready, and ends everything when it is told to.
func (d *demo) serve(ctx context.Context) error {
	lock, err := d.hold()
	if err != nil {
		return err
	}
	defer lock.Close()
	ctx, cancel := context.WithCancel(ctx)
	s := &background{demo: d, failed: make(chan error, 1)}
	defer s.close()
	defer cancel()
	r, err := s.up(ctx)
	if err != nil {
		return err
	}
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.WriteFile(d.stateFile(), text, 0o600); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.failed:
		return err
	}
}

// background is what runs.
type background struct {
	*demo
	pods     bool   // Towpath's controller and agents are pods of the clusters
	api, hub string // addresses of the controller
	clusters []*localkube.Local
	children []*child
	going    sync.WaitGroup // until the end: tokens that are renewed, addresses that lead to pods
	failed   chan error     // the first child that ended by itself
}

func (s *background) up(ctx context.Context) (running, error) {
	r := running{PID: os.Getpid(), Kubeconfigs: map[string]string{}, Repository: filepath.Join(s.dir, "repository.git"),
		CA: filepath.Join(s.dir, "controller", "tls", "ca.crt"), Token: filepath.Join(s.dir, "token"), Secret: filepath.Join(s.dir, "webhook-secret")}
	s.pods = len(s.kubeconfigs) == 0 && s.noPods(ctx) == ""
	if err := s.addresses(); err != nil {
		return r, err
	}
	if err := s.startClusters(ctx, r); err != nil {
		return r, err
	}
	if err := s.fillRepository(ctx, r.Repository); err != nil {
		return r, err
	}
	controller := s.startController
	if s.pods {
		controller = s.installController
	}
	var err error
	if r.Address, err = controller(ctx, r); err != nil {
		return r, err
	}
	if err := s.writeEnvironment(r); err != nil {
		return r, err
	}
	if s.pods {
		return r, s.installAgents(ctx, r)
	}
	return r, s.startAgents(ctx, r)
}

func (s *background) close() {
	var ending sync.WaitGroup // agents wait for the end of their requests, which the controller's end is
	for _, c := range s.children {
		ending.Go(c.end)
	}
	ending.Wait()
	s.going.Wait()
	var stopping sync.WaitGroup
	for _, c := range s.clusters {
		if c != nil {
			stopping.Go(c.Stop)
		}
	}
	stopping.Wait()
}

// child is a process that ends with this one, however this one ends.
type child struct {
	command *exec.Cmd
	hold    io.Closer // its lifeline
	log     string
	ended   chan struct{}
}

// child starts a program with a log of its own; should it end by itself, the demo is over.
func (s *background) child(name, program string, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c := &child{command: exec.Command(self, append([]string{"tied", program}, args...)...), log: filepath.Join(s.dir, name+".log"), ended: make(chan struct{})}
	log, err := os.Create(c.log)
	if err != nil {
		return err
	}
	defer log.Close()
	c.command.Stdout, c.command.Stderr = log, log
	if c.hold, err = c.command.StdinPipe(); err != nil {
		return err
	}
	if err := c.command.Start(); err != nil {
		return err
	}
	s.children = append(s.children, c)
	go func() {
		c.command.Wait()
		close(c.ended)
		select {
		case s.failed <- fmt.Errorf("%s ended by itself: %s", name, lastLine(c.log)):
		default: // one is enough
		}
	}()
	return nil
}

func (c *child) end() {
	c.hold.Close()
	<-c.ended
}

func lastLine(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	text = []byte(strings.TrimSpace(string(text)))
	return string(text[strings.LastIndexByte(string(text), '\n')+1:])
}

// tied runs a program until it ends, or until this process' input does: then whoever started it is gone, or wants it to end.
func tied(args []string) error {
	command := exec.Command(args[0], args[1:]...)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	if err := command.Start(); err != nil {
		return err
	}
	go func() {
		if _, err := io.Copy(io.Discard, os.Stdin); err == nil {
			command.Process.Signal(syscall.SIGTERM)
		}
	}()
	err := command.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(max(exit.ExitCode(), 1)) // it has said why
	}
	return err
}
