package main

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"towpath/api"
)

func (c *commandLine) proposalCommand() *cobra.Command {
	proposal := &cobra.Command{Use: "proposal", Short: "Proposals: open pull requests, and what their merge would do"}
	proposal.AddCommand(&cobra.Command{Use: "list", Short: "Open pull requests and groups of merge queues, and how far their plans are", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		var found struct{ Items []api.Proposal }
		return c.list(cmd, "/proposals", &found, func() any { return found.Items }, func(w io.Writer) {
			fmt.Fprintln(w, "SOURCE\tNUMBER\tHEAD\tAUTHOR\tPLAN")
			for _, p := range found.Items {
				number := "group"
				if p.Number != 0 {
					number = fmt.Sprint("#", p.Number)
				}
				fmt.Fprintf(w, "%s\t%s\t%.10s\t%s\t%s\n", clean(p.Source), number, clean(p.Head), clean(p.Author), clean(planState(p)))
			}
		})
	}}, c.proposalShowCommand())
	return proposal
}

// planState is how far a plan is, in a few words.
func planState(p api.Proposal) string {
	switch p.State {
	case "ASKED":
		return "is being made"
	case "HELD":
		return "waits for a person: " + p.Why
	case "TROUBLED":
		return "could not be made, and is tried again: " + p.Why
	}
	if len(p.Applications) == 0 {
		return "nothing changes"
	}
	var names []string
	for _, a := range p.Applications {
		name := a.Application
		if name == "" {
			name = a.Path
		}
		if failed(a.Problems) {
			name += " (has errors)"
		}
		names = append(names, name)
	}
	return "changes " + strings.Join(names, ", ")
}

func (c *commandLine) proposalShowCommand() *cobra.Command {
	var diff bool
	command := &cobra.Command{Use: "show SOURCE NUMBER", Short: "Say what the merge of a pull request would do", Args: cobra.ExactArgs(2), RunE: func(cmd *cobra.Command, args []string) error {
		number, err := strconv.Atoi(strings.TrimPrefix(args[1], "#"))
		if err != nil || number < 1 {
			return fmt.Errorf("%q is no number of a pull request", args[1])
		}
		to, err := c.client()
		if err != nil {
			return err
		}
		var found struct{ Items []api.Proposal }
		if err := to.Call(cmd.Context(), http.MethodGet, "/proposals", nil, &found); err != nil {
			return err
		}
		for _, p := range found.Items {
			if p.Source == args[0] && p.Number == number {
				return c.show(p, func(w io.Writer) { c.printProposal(w, p, diff) })
			}
		}
		return fmt.Errorf("source %s has no open pull request #%d that is planned; towpath proposal list names those that are", args[0], number)
	}}
	command.Flags().BoolVar(&diff, "diff", false, "show what changes in each object; values of Secrets are left out")
	return command
}

func (c *commandLine) printProposal(w io.Writer, p api.Proposal, diff bool) {
	fmt.Fprintf(w, "#%d of %s, %.10s by %s: %s\n", p.Number, clean(p.Source), clean(p.Head), clean(p.Author), clean(planState(p)))
	for _, a := range p.Applications {
		fmt.Fprintf(w, "\n%s\n", clean(a.Path))
		c.warn(a.Problems)
		for _, t := range a.Targets {
			printPlanned(w, t.PlannedTarget, diff)
			printProposed(w, t)
		}
		for _, name := range a.Leaves {
			fmt.Fprintf(w, "%s leaves the file\n", clean(name))
		}
	}
}

// printProposed says of a target what pull requests are told beside its objects.
func printProposed(w io.Writer, t api.ProposedTarget) {
	fmt.Fprintf(w, "  moves by %s\n", clean(strings.Join(t.Steps, ", then ")))
	for _, gate := range t.Gates {
		fmt.Fprintf(w, "  waits at %s\n", clean(gate))
	}
	if t.Earliest != nil {
		fmt.Fprintf(w, "  is reached %s after the merge at the earliest\n", time.Duration(*t.Earliest*float64(time.Second)).Round(time.Second))
	} else {
		fmt.Fprintf(w, "  is never reached: %s\n", clean(t.Unreached))
	}
	for _, refusal := range t.Refusals {
		fmt.Fprintf(w, "  the API server would refuse %s\n", clean(refusal))
	}
	if t.Unasked != "" {
		fmt.Fprintf(w, "  the API server was not asked: %s\n", clean(t.Unasked))
	}
}
