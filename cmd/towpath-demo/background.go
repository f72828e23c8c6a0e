package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// running is what the background process tells the one in the terminal.
type running struct {
	PID         int
	Address     string // of the API
	CA          string
	Token       string // file
	Secret      string // file, of the push webhook
	Repository  string
	Kubeconfigs map[string]string
}

func (d *demo) stateFile() string { return filepath.Join(d.dir, "running.json") }
func (d *demo) lockFile() string  { return filepath.Join(d.dir, "lock") }
func (d *demo) logFile() string   { return filepath.Join(d.dir, "demo.log") }

// hold makes this process the demo's background process: it has the lock, with its id inside, until it ends. The system gives the lock back however a
// process ends, so that a file left behind says nothing.
func (d *demo) hold() (*os.File, error) {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(d.lockFile(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		err = lock.Truncate(0)
	}
	if err == nil {
		_, err = fmt.Fprint(lock, os.Getpid())
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = fmt.Errorf("another demo starts or runs in %s; stop it with: make demo-stop", d.dir)
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// holder is the id of the background process, 0 when there is none. gone waits until it has ended.
func (d *demo) holder() (pid int, gone func() error, err error) {
	lock, err := os.OpenFile(d.lockFile(), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil, nil
	}
	if err != nil {
		return 0, nil, err
	}
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == nil {
		return 0, nil, lock.Close()
	}
	text, err := io.ReadAll(lock)
	if err == nil {
		pid, err = strconv.Atoi(string(text))
	}
	return pid, func() error { return errors.Join(syscall.Flock(int(lock.Fd()), syscall.LOCK_SH), lock.Close()) }, err
}

// find is the demo that runs in the background and is ready; an error of fs.ErrNotExist when none is.
func (d *demo) find() (r running, err error) {
	pid, _, err := d.holder()
	if err != nil {
		return r, err
	}
	text, err := os.ReadFile(d.stateFile())
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, err
	}
	if r.PID != pid {
		return r, fs.ErrNotExist
	}
	return r, nil
}

// start makes the background process and waits until it is ready, showing what it does. When ctx ends before, so does that process.
func (d *demo) start(ctx context.Context) (running, error) {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return running{}, err
	}
	log, err := os.Create(d.logFile()) // says why it ended, for ended
	if err != nil {
		return running{}, err
	}
	defer log.Close()
	program, err := os.Executable()
	if err != nil {
		return running{}, err
	}
	command := exec.Command(program, d.args("serve")...)
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C in the terminal is not for it
	if err := command.Start(); err != nil {
		return running{}, err
	}
	ended := make(chan struct{})
	go func() {
		command.Wait()
		close(ended)
	}()
	for shown := 0; ; {
		shown = d.progress(shown)
		if r, err := d.find(); err == nil {
			return r, nil
		}
		select {
		case <-ended:
			d.progress(shown)
			return running{}, fmt.Errorf("the background process was killed; its log: %s", near(d.logFile()))
		case <-ctx.Done():
			command.Process.Signal(syscall.SIGTERM)
			<-ended
			return running{}, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// note marks lines of the log for the terminal; fault marks the one that says why the background process ended.
const (
	note  = "demo: "
	fault = "towpath-demo: "
)

// progress prints lines of the log that are meant for people, from a place on.
func (d *demo) progress(from int) int {
	text, err := os.ReadFile(d.logFile())
	if err != nil {
		return from
	}
	end := strings.LastIndexByte(string(text), '\n') + 1
	for line := range strings.Lines(string(text[min(from, end):end])) {
		if told, meant := strings.CutPrefix(line, note); meant {
			fmt.Print("  ", told)
		}
	}
	return end
}

// ended is why the background process ended, as it says itself; what else went wrong comes of that.
func (d *demo) ended(otherwise error) error {
	text, err := os.ReadFile(d.logFile())
	if err != nil {
		return otherwise
	}
	if _, words, found := strings.Cut("\n"+string(text), "\n"+fault); found {
		return fmt.Errorf("%s (the log: %s)", strings.TrimSpace(words), near(d.logFile()))
	}
	return otherwise
}

// stop ends the background process and all that it started, and waits for that. false: there is none.
func (d *demo) stop() (bool, error) {
	pid, gone, err := d.holder()
	if err != nil || pid == 0 {
		return false, err
	}
	if err := errors.Join(syscall.Kill(pid, syscall.SIGTERM), gone()); err != nil {
		return true, err
	}
	fmt.Printf("stopped; what it kept is in %s, and the next demo goes on from there\n", near(d.dir))
	return true, nil
}

// stopAll ends each demo that runs: that of local clusters, and those of the user's.
func (d *demo) stopAll() error {
	locks, err := filepath.Glob(filepath.Join(d.home, "*", filepath.Base(d.lockFile())))
	if err != nil {
		return err
	}
	found := false
	for _, lock := range locks {
		one := demo{dir: filepath.Dir(lock)}
		stopped, err := one.stop()
		if err != nil {
			return err
		}
		found = found || stopped
	}
	if !found {
		fmt.Println("no demo runs")
	}
	return nil
}
