// Command towpath-demo shows the main job on this machine: a merge rolls out to two clusters, one after the other. What it starts keeps running in the
// background until it is stopped, and a second demo finds it.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

func main() {
	var d demo
	flag.StringVar(&d.home, "dir", ".build/demo", "where everything is kept")
	flag.StringVar(&d.programs, "programs", ".build/bin", "directory of the programs of Towpath")
	flag.StringVar(&d.localcluster, "localcluster", ".build/localcluster", "directory of the local cluster's programs")
	flag.StringVar(&d.examples, "examples", "examples", "deployment files that fill the demo's repository")
	kubeconfigs := flag.String("kubeconfigs", os.Getenv("KUBECONFIGS"), "two kubeconfig files, staging,prod: clusters of yours in place of local ones")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := d.complete(*kubeconfigs)
	if err == nil {
		err = d.command(ctx, flag.Args())
	}
	switch {
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		os.Exit(130) // as shells say it of what Ctrl-C ended
	case err != nil:
		fmt.Fprintln(os.Stderr, "towpath-demo:", err)
		os.Exit(1)
	}
}

func (d *demo) command(ctx context.Context, args []string) error {
	switch {
	case len(args) == 0:
		return d.run(ctx)
	case args[0] == "tied" && len(args) > 1:
		return tied(args[1:])
	case len(args) > 1:
	case args[0] == "serve":
		return d.serve(ctx)
	case args[0] == "announce":
		return d.announce(ctx)
	case args[0] == "stop":
		return d.stopAll()
	}
	return errors.New("usage: towpath-demo [FLAGS] [stop]")
}

// targets are the two clusters, in the order of the roll-out.
var targets = []string{"staging", "prod"}

// demo is where everything lies.
type demo struct {
	home                             string // of all demos
	dir                              string // of this one: each set of clusters has its own database, repository and agents
	programs, localcluster, examples string
	kubeconfigs                      []string // the user's clusters; empty: local ones
}

func (d *demo) complete(kubeconfigs string) (err error) {
	for _, path := range []*string{&d.home, &d.programs, &d.localcluster, &d.examples} {
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	d.dir = filepath.Join(d.home, "local")
	if kubeconfigs == "" {
		return nil
	}
	d.kubeconfigs = strings.Split(kubeconfigs, ",")
	if len(d.kubeconfigs) != len(targets) {
		return fmt.Errorf("KUBECONFIGS names %d files; the demo wants two: make demo KUBECONFIGS=staging.kubeconfig,prod.kubeconfig", len(d.kubeconfigs))
	}
	for i, name := range d.kubeconfigs {
		if d.kubeconfigs[i], err = filepath.Abs(strings.TrimSpace(name)); err != nil {
			return err
		}
		if _, err := os.Stat(d.kubeconfigs[i]); err != nil {
			return fmt.Errorf("KUBECONFIGS: %w", err)
		}
	}
	sum := sha256.Sum256([]byte(strings.Join(d.kubeconfigs, ",")))
	d.dir = filepath.Join(d.home, "clusters-"+hex.EncodeToString(sum[:4]))
	return nil
}

// args makes another process of this program see the same demo.
func (d *demo) args(command ...string) []string {
	return append([]string{"--dir", d.home, "--programs", d.programs, "--localcluster", d.localcluster, "--examples", d.examples,
		"--kubeconfigs", strings.Join(d.kubeconfigs, ",")}, command...)
}

// near shortens a path below the current directory.
func near(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	if below, err := filepath.Rel(here, path); err == nil && !strings.HasPrefix(below, "..") {
		return below
	}
	return path
}
