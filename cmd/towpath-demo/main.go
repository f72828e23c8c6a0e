// Command towpath-demo shows the main job on this machine: a merge rolls out to two clusters, one after the other. What it starts keeps running in the
// background until it is stopped, and a second demo finds it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	var d demo
	flag.StringVar(&d.dir, "dir", ".build/demo", "where everything is kept")
	flag.StringVar(&d.programs, "programs", ".build/bin", "directory of the programs of Towpath")
	flag.StringVar(&d.localcluster, "localcluster", ".build/localcluster", "directory of the local cluster's programs")
	flag.StringVar(&d.examples, "examples", "examples", "deployment files that fill the demo's repository")
	kubeconfigs := flag.String("kubeconfigs", os.Getenv("KUBECONFIGS"), "two kubeconfig files, staging,prod: clusters of yours in place of local ones")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *kubeconfigs != "" {
		d.kubeconfigs = strings.Split(*kubeconfigs, ",")
	}
	err := d.complete()
	if err == nil {
		switch flag.Arg(0) {
		case "serve":
			err = d.serve(ctx)
		case "stop":
			err = d.stop()
		case "":
			err = d.run(ctx)
		default:
			err = fmt.Errorf("usage: towpath-demo [FLAGS] [stop]")
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "towpath-demo:", err)
		os.Exit(1)
	}
}

// demo is where everything lies.
type demo struct {
	dir, programs, localcluster, examples string
	kubeconfigs                           []string
}

func (d *demo) complete() error {
	if len(d.kubeconfigs) != 0 && len(d.kubeconfigs) != len(targets) {
		return fmt.Errorf("KUBECONFIGS names %d files; the demo wants two: staging,prod", len(d.kubeconfigs))
	}
	for _, path := range []*string{&d.dir, &d.programs, &d.localcluster, &d.examples} {
		var err error
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	return os.MkdirAll(d.dir, 0o700)
}

// targets are the two clusters, in the order of the roll-out.
var targets = []string{"staging", "prod"}

// running is what the background process tells the one in the terminal.
type running struct {
	PID         int
	Address     string // of the API
	CA          string
	Token       string // file
	Secret      string // file, of the push webhook
	Repository  string
	Kubeconfigs map[string]string
	Simulated   bool
}

func (d *demo) stateFile() string { return filepath.Join(d.dir, "running.json") }

// find is the demo that runs in the background; an error of fs.ErrNotExist when none does.
func (d *demo) find() (r running, err error) {
	text, err := os.ReadFile(d.stateFile())
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, err
	}
	if syscall.Kill(r.PID, 0) != nil {
		return r, fs.ErrNotExist
	}
	return r, nil
}

// start makes the background process and waits until it is ready, showing what it does.
func (d *demo) start(ctx context.Context) (running, error) {
	fmt.Println("starting two clusters, an agent in front of each, and the controller (about 1.5 GB of memory; half a minute at first)")
	log, err := os.Create(filepath.Join(d.dir, "demo.log"))
	if err != nil {
		return running{}, err
	}
	defer log.Close()
	program, err := os.Executable()
	if err != nil {
		return running{}, err
	}
	if err := os.Remove(d.stateFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return running{}, err
	}
	command := exec.Command(program, "--dir", d.dir, "--programs", d.programs, "--localcluster", d.localcluster, "--examples", d.examples,
		"--kubeconfigs", strings.Join(d.kubeconfigs, ","), "serve")
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		return running{}, err
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	shown := 0
	for {
		shown = d.progress(shown)
		if r, err := d.find(); err == nil && r.PID == command.Process.Pid {
			return r, nil
		}
		select {
		case err := <-ended:
			d.progress(shown)
			return running{}, fmt.Errorf("the background process ended (%w); its log is %s", errors.Join(err), log.Name())
		case <-ctx.Done():
			command.Process.Signal(os.Interrupt)
			return running{}, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// progress prints lines of the log that are meant for people, from a place on.
func (d *demo) progress(from int) int {
	text, err := os.ReadFile(filepath.Join(d.dir, "demo.log"))
	if err != nil {
		return from
	}
	end := strings.LastIndexByte(string(text), '\n') + 1
	for line := range strings.Lines(string(text[min(from, end):end])) {
		if note, meant := strings.CutPrefix(line, note); meant {
			fmt.Print("  ", note)
		}
	}
	return end
}

// note marks lines of the log for the terminal.
const note = "demo: "

// stop ends the background process and all that it started.
func (d *demo) stop() error {
	r, err := d.find()
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Println("no demo runs")
		return nil
	}
	if err != nil {
		return err
	}
	if err := syscall.Kill(r.PID, syscall.SIGTERM); err != nil {
		return err
	}
	for syscall.Kill(r.PID, 0) == nil {
		time.Sleep(50 * time.Millisecond)
	}
	fmt.Println("stopped; what it kept is in", d.dir)
	return nil
}
