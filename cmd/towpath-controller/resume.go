package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/user"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"towpath/cmd/towpath-controller/config"
	"towpath/store"
)

func findingsCommand(file *string) *cobra.Command {
	return &cobra.Command{Use: "findings", Short: "Tell what a controller that was started with --rebuild has found to run", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		return withStore(cmd.Context(), *file, func(s *store.Store) error {
			on, err := s.Observing(cmd.Context())
			if err != nil {
				return err
			}
			if !on {
				return errors.New("no controller of this database observes: it was not started with --rebuild, or went on since")
			}
			found, err := s.Findings(cmd.Context())
			if err != nil {
				return err
			}
			paths, accounts, err := s.UnseenFiles(cmd.Context())
			if err != nil {
				return err
			}
			return tellTable(cmd.OutOrStdout(), found, paths, accounts)
		})
	}}
}

func tellTable(w io.Writer, found []store.Finding, paths, accounts []string) error {
	columns := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(columns, "APPLICATION\tTARGET\tACCOUNT\tFOUND")
	for _, f := range found {
		said := "as it is asked for"
		switch {
		case !f.Compared && f.Waits == "":
			said = "not compared yet"
		case !f.Compared:
			said = "not compared yet, it waits for " + f.Waits
		case len(f.Differs) > 0:
			said = strings.Join(f.Differs, "; ")
		}
		fmt.Fprintf(columns, "%s\t%s\t%s\t%s\n", f.Application, f.Target, f.Account, said)
	}
	if err := columns.Flush(); err != nil {
		return err
	}
	for i, path := range paths {
		fmt.Fprintf(w, "%s is not compared yet: it waits for the clusters of %s\n", path, accounts[i])
	}
	return nil
}

func resumeCommand(file *string) *cobra.Command {
	var anyway bool
	resume := &cobra.Command{Use: "resume", Short: "Have a controller that was started with --rebuild go on", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := config.Read(*file)
		if err != nil {
			return err
		}
		return withStore(cmd.Context(), *file, func(s *store.Store) error {
			found, err := s.Findings(cmd.Context())
			if err != nil {
				return err
			}
			on, err := s.Observing(cmd.Context())
			if err != nil {
				return err
			}
			if err := unseen(cmd.Context(), s, c, found); on && err != nil && !anyway {
				return err
			}
			if err := s.Resume(cmd.Context(), operator()); err != nil {
				return err
			}
			same, differ := 0, 0
			for _, f := range found {
				switch {
				case len(f.Differs) > 0:
					differ++
				case f.Compared:
					same++
				}
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "It goes on. Of %d targets %d run as they are asked for; %d differ, and each of those waits for: towpath deploy approve, or reject to leave it as it is. `towpath why APPLICATION` tells more.\n",
				len(found), same, differ)
			return err
		})
	}}
	resume.Flags().BoolVar(&anyway, "anyway", false, "also while files or targets are not compared yet: files are then deployed as new ones")
	return resume
}

// unseen is an error that names what is not compared yet.
func unseen(ctx context.Context, s *store.Store, c *config.Config, found []store.Finding) error {
	var sentences []error
	for _, source := range c.Sources {
		state, err := s.Source(ctx, source.Tenant, source.Name)
		if err != nil {
			return err
		}
		if state.Processed == "" || state.Processed != state.Head {
			sentences = append(sentences, fmt.Errorf("source %s is not taken in whole yet: clusters of its files cannot be asked, or it cannot be fetched (the controller's log)", source.Name))
		}
	}
	paths, accounts, err := s.UnseenFiles(ctx)
	if err != nil {
		return err
	}
	for i, path := range paths {
		sentences = append(sentences, fmt.Errorf("%s is not compared yet: it waits for the clusters of %s (towpath agent list)", path, accounts[i]))
	}
	for _, f := range found {
		if !f.Compared {
			sentences = append(sentences, fmt.Errorf("target %s of application %s is not compared yet: it waits for %s", f.Target, f.Application, f.Waits))
		}
	}
	if len(sentences) == 0 {
		return nil
	}
	return errors.Join(append(sentences, errors.New("wait for them, or give --anyway"))...)
}

// operator is who runs this program, for history.
func operator() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return "operator"
}
