package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"towpath/api"
)

func (c *commandLine) sourceCommand() *cobra.Command {
	source := &cobra.Command{Use: "source", Short: "Sources: the repositories that are watched"}
	source.AddCommand(&cobra.Command{Use: "list", Short: "Sources, how far their commits were taken in, and what is wrong with them and their files", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		var found struct{ Items []api.Source }
		if err := c.list(cmd, "/sources", &found, func() any { return found.Items }, func(w io.Writer) {
			fmt.Fprintln(w, "NAME\tCOMMIT\tSTATE")
			for _, s := range found.Items {
				fmt.Fprintf(w, "%s\t%.12s\t%s\n", clean(s.Name), s.Processed, clean(sourceState(s)))
			}
		}); err != nil || c.output != "text" {
			return err
		}
		for _, s := range found.Items {
			for _, p := range s.Problems {
				fmt.Fprintf(c.out, "%s: %s\n", clean(s.Name), clean(sentence(p)))
			}
		}
		return nil
	}})
	return source
}

// sourceState is how a source does, in a few words.
func sourceState(s api.Source) string {
	switch {
	case s.Failure != "":
		text := "cannot be reached"
		if s.FailedSince != nil {
			text += " since " + s.FailedSince.UTC().Format("2006-01-02 15:04 UTC")
		}
		return text + ": " + s.Failure
	case s.Head != s.Processed:
		return fmt.Sprintf("takes in %.12s", s.Head)
	case s.Untold != nil:
		return fmt.Sprintf("taken in; GitHub was not told about %d of its commits yet: %s", s.Untold.Commits, s.Untold.Failure)
	}
	return "taken in"
}
