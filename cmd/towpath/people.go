package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"towpath/api"
)

func (c *commandLine) whyCommand() *cobra.Command {
	return &cobra.Command{Use: "why APP [TARGET]", Short: "Say what an application waits for, or why it stands where it does", Args: cobra.RangeArgs(1, 2), RunE: func(cmd *cobra.Command, args []string) error {
		to, err := c.client()
		if err != nil {
			return err
		}
		var app api.Application
		if err := to.Call(cmd.Context(), http.MethodGet, "/applications/"+url.PathEscape(args[0]), nil, &app); err != nil {
			return err
		}
		lanes := []api.Lane{}
		for _, l := range app.Lanes {
			if len(args) < 2 || l.Target == args[1] {
				l.Objects = nil
				lanes = append(lanes, l)
			}
		}
		if len(lanes) == 0 {
			return fmt.Errorf("application %s has no target %s", args[0], strings.Join(args[1:], ""))
		}
		return c.show(lanes, func(w io.Writer) {
			for _, l := range lanes {
				fmt.Fprintln(w, clean(because(l)))
			}
		})
	}}
}

// because is one lane's answer to the question why.
func because(l api.Lane) string {
	head := fmt.Sprintf("%s on %s: ", l.Target, l.Account)
	if l.Orphaned {
		return head + "its target left the file; what it deployed stays and nobody owns it"
	}
	text := head + fmt.Sprintf("#%d is %s", l.Wanted, l.State)
	if l.Why != "" {
		text += ", " + l.Why
	}
	for _, w := range l.Waits {
		text += fmt.Sprintf("\n  waits for %s, since %s", w.Needs, w.Since.UTC().Format("2006-01-02 15:04 UTC"))
		if w.Command != "" {
			text += "\n  → " + w.Command
		}
	}
	return text
}

func (c *commandLine) agentCommand() *cobra.Command {
	agent := &cobra.Command{Use: "agent", Short: "Agents: the processes in clusters"}
	agent.AddCommand(&cobra.Command{Use: "create NAME", Short: "Make the credential of an agent; its secret is shown this once", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		to, err := c.client()
		if err != nil {
			return err
		}
		var made api.Credential
		if err := to.Call(cmd.Context(), http.MethodPost, "/agents", map[string]string{"name": args[0]}, &made); err != nil {
			return err
		}
		return c.credential(made)
	}}, c.rotateCommand(), &cobra.Command{Use: "remove NAME", Short: "End an agent's credential, and its sessions at once", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		return c.order(cmd.Context(), http.MethodDelete, "/agents/"+url.PathEscape(args[0]), nil, "agent "+args[0]+" can no longer connect")
	}}, &cobra.Command{Use: "list", Short: "Agents and whether they are connected", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		var found struct{ Items []api.Agent }
		return c.list(cmd, "/agents", &found, func() any { return found.Items }, func(w io.Writer) {
			fmt.Fprintln(w, "NAME\tCONNECTED\tVERSION\tSINCE\tADDRESS")
			for _, a := range found.Items {
				since := ""
				if a.Since != nil {
					since = a.Since.UTC().Format("2006-01-02 15:04 UTC")
				}
				fmt.Fprintf(w, "%s\t%t\t%s\t%s\t%s\n", clean(a.Name), a.Connected, clean(a.Version), since, a.Remote)
			}
		})
	}})
	return agent
}

func (c *commandLine) rotateCommand() *cobra.Command {
	var keep time.Duration
	rotate := &cobra.Command{Use: "rotate NAME", Short: "Give an agent a new secret, which is shown this once", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		to, err := c.client()
		if err != nil {
			return err
		}
		var made api.Credential
		if err := to.Call(cmd.Context(), http.MethodPost, "/agents/"+url.PathEscape(args[0])+"/rotate", map[string]int{"keepSeconds": int(keep.Seconds())}, &made); err != nil {
			return err
		}
		return c.credential(made)
	}}
	rotate.Flags().DurationVar(&keep, "keep", time.Hour, "how long the secret before it still holds; 0: not at all")
	return rotate
}

func (c *commandLine) credential(made api.Credential) error {
	return c.show(made, func(w io.Writer) {
		fmt.Fprintf(w, "agent:        %s\nclient id:    %s\nsecret:       %s   (shown this once)\nissuer:       %s\naudience:     %s\nhub:          %s\n",
			clean(made.Agent), made.ClientID, made.Secret, made.Issuer, made.Audience, made.Hub)
	})
}

func (c *commandLine) appCommand() *cobra.Command {
	app := &cobra.Command{Use: "app", Short: "Applications: what is deployed under a name"}
	var keep bool
	remove := &cobra.Command{Use: "remove APP", Short: "Remove an application from its clusters, or, with --keep, only its owner", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		done := "its objects are being removed; see: towpath why " + args[0]
		if keep {
			done = "nobody owns it any more; its objects stay"
		}
		return c.order(cmd.Context(), http.MethodDelete, fmt.Sprintf("/applications/%s?keep=%t", url.PathEscape(args[0]), keep), nil, done)
	}}
	remove.Flags().BoolVar(&keep, "keep", false, "its objects stay, for another owner to take on")
	app.AddCommand(remove, &cobra.Command{Use: "list", Short: "Applications and what stands on their targets", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		apps, err := c.applications(cmd.Context())
		if err != nil {
			return err
		}
		return c.table(apps, func(w io.Writer) {
			fmt.Fprintln(w, "APPLICATION\tTARGET\tACCOUNT\tSTATE\tGOOD\tWANTED\tFROM")
			for _, a := range apps {
				from := "push"
				if a.Source != "" {
					from = a.Source + ":" + a.Path
				}
				for _, l := range a.Lanes {
					state := l.State
					if l.Orphaned {
						state = "ORPHANED"
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t#%d\t#%d\t%s\n", clean(a.Name), clean(l.Target), clean(l.Account), state, l.Good, l.Wanted, clean(from))
				}
			}
		})
	}})
	return app
}

// list reads a list and shows it, as a table for people.
func (c *commandLine) list(cmd *cobra.Command, path string, into any, items func() any, table func(io.Writer)) error {
	to, err := c.client()
	if err != nil {
		return err
	}
	if err := to.Call(cmd.Context(), http.MethodGet, path, nil, into); err != nil {
		return err
	}
	return c.table(items(), table)
}

// applications reads all of them, page by page.
func (c *commandLine) applications(ctx context.Context) ([]api.Application, error) {
	to, err := c.client()
	if err != nil {
		return nil, err
	}
	all := []api.Application{}
	for after := ""; ; {
		var page struct {
			Items []api.Application
			Next  string
		}
		if err := to.Call(ctx, http.MethodGet, "/applications?after="+url.QueryEscape(after), nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if after = page.Next; after == "" {
			return all, nil
		}
	}
}

// table shows a list, in columns for people.
func (c *commandLine) table(items any, rows func(io.Writer)) error {
	return c.show(items, func(w io.Writer) {
		columns := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		rows(columns)
		columns.Flush()
	})
}
