// Command fleet is many agents in one process, each with a session of its own at a hub, its client id being its name. They reach nothing.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/sirupsen/logrus"

	"towpath/agent/edge"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("fleet", flag.ContinueOnError)
	count := flags.Int("agents", 2000, "how many")
	prefix := flags.String("prefix", "agent-", "of their names; numbers from 0 follow")
	hub := flags.String("hub", "", "host:port of the hub")
	ca := flags.String("ca", "", "PEM file of hub and tokens")
	tokens := flags.String("tokens", "", "token endpoint; %s in it stands for an agent's name")
	secret := flags.String("secret", "", "file with the secret of all")
	if err := flags.Parse(args); err != nil {
		return err
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	var agents sync.WaitGroup
	failed := make(chan error, *count)
	for i := range *count {
		name := fmt.Sprint(*prefix, i)
		config := edge.Config{Agent: name, Instance: name, Listen: "off", Hub: edge.Hub{Address: *hub, CAFile: *ca}, Kubernetes: edge.Kubernetes{Off: true},
			Identity: edge.Identity{TokenURL: strings.ReplaceAll(*tokens, "%s", name), ClientID: name, ClientSecretFile: *secret, CAFile: *ca}}
		agents.Go(func() {
			if err := edge.Run(ctx, config, edge.Options{Version: "bench", Log: log}); err != nil {
				failed <- fmt.Errorf("%s: %w", name, err)
			}
		})
	}
	agents.Wait()
	close(failed)
	return <-failed
}
