// Command towpath is the command line: it checks deployment files, and asks a controller to plan, deploy, approve and explain. It uses only the API.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"towpath/render"
)

// renderWorker is the argument that makes this program a render process.
const renderWorker = "render-worker"

func main() {
	if len(os.Args) == 2 && os.Args[1] == renderWorker {
		if err := render.Worker(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c := &commandLine{out: os.Stdout, err: os.Stderr, getenv: os.Getenv}
	os.Exit(c.run(ctx, os.Args[1:]))
}

// Exit codes, as docs/reference/cli.md lists them.
const (
	exitGood     = 0
	exitFailed   = 1
	exitUnderWay = 3
)

// exit is an error that ends the program with a code of its own.
type exit struct {
	code int
	err  error
}

func (e *exit) Error() string { return e.err.Error() }
func (e *exit) Unwrap() error { return e.err }

// run executes one command and returns the exit code.
func (c *commandLine) run(ctx context.Context, args []string) int {
	root := c.root()
	root.SetArgs(args)
	root.SetOut(c.out)
	root.SetErr(c.err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitGood
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(c.err, "towpath:", clean(text))
	}
	var coded *exit
	if errors.As(err, &coded) {
		return coded.code
	}
	return exitFailed
}
