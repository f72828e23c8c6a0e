// Command bench measures what Towpath promises, through the programs and sockets that people use: a controller, agents, local clusters, a Git repository
// and its webhook. It prints a table and writes bench/results.json. What a run says holds for its machine; ratios are measured side by side in one run. The
// local clusters' etcd does not fsync.
//
//	go run ./bench [-only push,first] [-quick] [-programs DIR] [-logs DIR]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"towpath/internal/localstack"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// measurement is one group of figures that are measured together.
type measurement struct {
	name    string
	measure func(ctx context.Context, b *bench) error
}

// measurements in their order: those that use the same site follow each other.
var measurements = []measurement{
	{"decide", decide},
	{"agents", agents},
	{"replicas", replicas},
	{"tunnel", tunnel},
	{"push", push},
	{"deployment", deployment},
	{"first", first},
	{"change", change},
	{"idle", idle}, // before those that leave applications behind which wait
	{"drift", drift},
	{"steps", steps},
	{"back", back},
	{"intake", intake},
	{"waiting", waiting},
	{"outside", outside},
	{"simulate", simulation},
}

func run(ctx context.Context, args []string) error {
	var names []string
	for _, m := range measurements {
		names = append(names, m.name)
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	only := flags.String("only", "", "of these, with commas between: "+strings.Join(names, ", "))
	quick := flags.Bool("quick", false, "fewer applications and repetitions: to see that it runs, not how fast")
	out := flags.String("out", "", "where the results go; default: bench/results.json")
	logs := flags.String("logs", "", "directory for what the programs said")
	programs := flags.String("programs", "", "directory with towpath-controller, towpath-agent, applylimit, fleet and server; default: they are built as they are released")
	if err := flags.Parse(args); err != nil {
		return err
	}
	chosen := measurements
	if *only != "" {
		wanted := strings.Split(*only, ",")
		for _, name := range wanted {
			if !slices.Contains(names, name) {
				return fmt.Errorf("-only: there is no figure %q; there are %s", name, strings.Join(names, ", "))
			}
		}
		chosen = slices.DeleteFunc(slices.Clone(measurements), func(m measurement) bool { return !slices.Contains(wanted, m.name) })
	}
	if *logs != "" {
		if err := os.MkdirAll(*logs, 0o755); err != nil {
			return err
		}
	}
	b, err := newBench(ctx, *quick, *logs, *programs)
	if err != nil {
		return err
	}
	defer b.close()
	for _, m := range chosen {
		if err = b.measure(ctx, m); err != nil {
			break // what was measured until then is told all the same
		}
	}
	b.results.print(os.Stdout)
	if *out == "" {
		*out = filepath.Join(b.root, "bench", "results.json")
	}
	return errors.Join(err, b.results.write(*out))
}

// bench is one run: what it was built from, what it started and what it found.
type bench struct {
	root, dir string // of the module; of everything that goes when the run ends
	programs  string
	logs      string
	quick     bool
	quiet     *quiet
	results   *results
	sites     map[string]*site
}

func newBench(ctx context.Context, quick bool, logs, programs string) (*bench, error) {
	b := &bench{quick: quick, logs: logs, programs: programs, sites: map[string]*site{}}
	var err error
	if b.root, err = localstack.ModuleRoot(ctx); err != nil {
		return nil, err
	}
	if b.dir, err = os.MkdirTemp("", "towpath-bench"); err != nil {
		return nil, err
	}
	if b.programs == "" {
		b.programs = filepath.Join(b.dir, "bin")
		if err := b.build(ctx); err != nil {
			return nil, errors.Join(err, os.RemoveAll(b.dir))
		}
	}
	b.quiet = newQuiet()
	b.results = newResults(quick)
	return b, nil
}

// build makes the programs as they are released.
func (b *bench) build(ctx context.Context) error {
	if err := os.Setenv("CGO_ENABLED", "0"); err != nil {
		return err
	}
	return localstack.Build(ctx, b.programs, []string{"-trimpath", "-tags", "grpcnotrace", "-ldflags", "-s -w"}, "./cmd/towpath-controller", "./cmd/towpath-agent", "./bench/applylimit", "./bench/fleet", "./bench/server")
}

// measure takes one group of figures, and says of each whether anything else used the machine meanwhile.
func (b *bench) measure(ctx context.Context, m measurement) error {
	fmt.Fprintf(os.Stderr, "measuring %s\n", m.name)
	began := len(b.results.Figures)
	if err := m.measure(ctx, b); err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	for _, f := range b.results.Figures[began:] {
		fmt.Fprintln(os.Stderr, " ", f)
	}
	return nil
}

// count is how many of something a run takes: all of them, or a tenth in a quick one.
func (b *bench) count(all int) int {
	if b.quick {
		return max(all/10, 2)
	}
	return all
}

// close ends everything that was started, and removes it.
func (b *bench) close() {
	for _, s := range b.sites {
		s.close()
	}
	os.RemoveAll(b.dir)
}
