package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
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
			for _, p := range app.Problems {
				fmt.Fprintf(w, "its file is not deployed as it is now: %s\n", clean(sentence(p)))
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
	if l.Good > 0 && l.Good != l.Wanted {
		text = head + fmt.Sprintf("#%d runs; #%d, which was asked for last, is %s", l.Good, l.Wanted, l.State)
	}
	if l.Why != "" {
		text += ", " + l.Why
	}
	if p := l.Pin; p != nil {
		at := "what ran before the first one"
		if p.Number > 0 {
			at = fmt.Sprintf("#%d", p.Number)
		}
		text += fmt.Sprintf("\n  held at %s by %s, since %s", at, p.By, p.At.UTC().Format("2006-01-02 15:04 UTC"))
		if p.Why != "" {
			text += ": " + p.Why
		}
		text += "; its next change lifts that"
	}
	for _, d := range l.Drift {
		text += "\n  " + d.What
		if d.By != "" {
			text += ", changed by " + d.By
		}
		text += ", seen " + d.Since.UTC().Format("2006-01-02 15:04 UTC")
	}
	for _, w := range l.Waits {
		text += fmt.Sprintf("\n  waits for %s, since %s", needs(w), w.Since.UTC().Format("2006-01-02 15:04 UTC"))
		if w.Command != "" {
			text += "\n  → " + w.Command
		}
	}
	return text
}

func (c *commandLine) agentCommand() *cobra.Command {
	agent := &cobra.Command{Use: "agent", Short: "Agents: the processes in clusters"}
	agent.AddCommand(c.createCommand(), c.rotateCommand(), c.revokeAgentCommand(), &cobra.Command{Use: "remove NAME", Short: "End an agent's credential, and its sessions at once", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		return c.order(cmd.Context(), http.MethodDelete, "/agents/"+url.PathEscape(args[0]), nil, "agent "+args[0]+" can no longer connect")
	}}, c.showCommand(), c.acceptCommand(), &cobra.Command{Use: "list", Short: "Agents and whether they are connected", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		var found struct{ Items []api.Agent }
		return c.list(cmd, "/agents", &found, func() any { return found.Items }, func(w io.Writer) {
			fmt.Fprintln(w, "NAME\tCONNECTED\tVERSION\tSINCE\tADDRESS\tLABELS\tWHY")
			for _, a := range found.Items {
				since := ""
				if a.Since != nil {
					since = a.Since.UTC().Format("2006-01-02 15:04 UTC")
				}
				connected := fmt.Sprint(a.Connected)
				if a.Held != "" {
					connected = "held: another cluster"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", clean(a.Name), connected, clean(a.Version), since, a.Remote, clean(labelled(a.Labels)), clean(a.Why))
			}
		})
	}})
	return agent
}

// labelled is labels as flags have them.
func labelled(labels map[string]string) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		all = append(all, name+"="+labels[name])
	}
	return strings.Join(all, ",")
}

func (c *commandLine) showCommand() *cobra.Command {
	return &cobra.Command{Use: "show NAME", Short: "One agent: its labels, its cluster, what it reaches, and why nothing goes through it", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		to, err := c.client()
		if err != nil {
			return err
		}
		var found struct{ Items []api.Agent }
		if err := to.Call(cmd.Context(), http.MethodGet, "/agents", nil, &found); err != nil {
			return err
		}
		i := slices.IndexFunc(found.Items, func(a api.Agent) bool { return a.Name == args[0] })
		if i < 0 {
			return fmt.Errorf("no agent %s", args[0])
		}
		return c.show(found.Items[i], func(w io.Writer) { fmt.Fprint(w, clean(described(found.Items[i]))) })
	}}
}

// described is an agent for people.
func described(a api.Agent) string {
	text := fmt.Sprintf("agent:      %s\nconnected:  %t\n", a.Name, a.Connected)
	line := func(name, value string) {
		if value != "" {
			text += fmt.Sprintf("%-11s %s\n", name+":", value)
		}
	}
	if a.Since != nil {
		line("since", a.Since.UTC().Format("2006-01-02 15:04 UTC"))
	}
	line("why", a.Why)
	line("version", a.Version)
	line("address", a.Remote)
	if a.Instances > 0 {
		line("instances", fmt.Sprint(a.Instances))
	}
	line("client id", a.ClientID)
	line("labels", labelled(a.Labels))
	line("reaches", strings.Join(a.Targets, ", "))
	line("cluster", a.Cluster)
	if a.Held != "" {
		line("held", fmt.Sprintf("it connects from another cluster, %s, and nothing goes through it; if that is meant: towpath agent accept %s", a.Held, a.Name))
	}
	return text
}

func (c *commandLine) acceptCommand() *cobra.Command {
	return &cobra.Command{Use: "accept NAME", Short: "Accept that an agent connects from another cluster, and deploy there what was good", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		to, err := c.client()
		if err != nil {
			return err
		}
		var accepted api.Accepted
		if err := to.Call(cmd.Context(), http.MethodPost, "/agents/"+url.PathEscape(args[0])+"/accept", nil, &accepted); err != nil {
			return err
		}
		return c.show(accepted, func(w io.Writer) {
			fmt.Fprintf(w, "the cluster is accepted; deployments that bring what was good there: %d\n", len(accepted.Deployments))
			for _, id := range accepted.Deployments {
				fmt.Fprintln(w, id)
			}
		})
	}}
}

func (c *commandLine) createCommand() *cobra.Command {
	var n api.NewAgent
	var clientID, secretFile string
	var i installation
	create := &cobra.Command{Use: "create NAME", Short: "Make the credential of an agent, whose secret is shown this once; or record one that an issuer elsewhere keeps", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		to, err := c.client()
		if err != nil {
			return err
		}
		n.Name = args[0]
		if secretFile != "" {
			secret, err := os.ReadFile(secretFile)
			if err != nil {
				return err
			}
			n.Subject, n.Secret = clientID, strings.TrimSpace(string(secret))
		}
		var made api.Credential
		if err := i.check(); err != nil {
			return err
		}
		if err := to.Call(cmd.Context(), http.MethodPost, "/agents", n, &made); err != nil {
			return err
		}
		if secretFile != "" && !i.wanted() {
			c.line("agent %s is known, with the credential that it has already; it connects by itself", made.Agent)
			return nil
		}
		if err := c.credential(made, command(made)); err != nil || !i.wanted() {
			return err
		}
		return c.install(cmd.Context(), to, made, i)
	}}
	i.flags(create.Flags())
	create.Flags().StringToStringVar(&n.Labels, "label", nil, "for people: region=eu; may repeat")
	create.Flags().StringVar(&n.Issuer, "issuer", "", "OIDC issuer that keeps the agent's credential, one of agents.issuers; absent: the controller's own")
	create.Flags().StringVar(&n.Subject, "subject", "", "whom the tokens of that issuer name (sub)")
	create.MarkFlagsRequiredTogether("issuer", "subject")
	create.Flags().StringVar(&clientID, "client-id", "", "client id that the agent has already, made before the controller's database was lost")
	create.Flags().StringVar(&secretFile, "client-secret-file", "", "file with the secret of that client")
	create.MarkFlagsRequiredTogether("client-id", "client-secret-file")
	create.MarkFlagsMutuallyExclusive("client-id", "issuer")
	return create
}

func (c *commandLine) revokeAgentCommand() *cobra.Command {
	return &cobra.Command{Use: "revoke NAME", Short: "End the tokens that an agent was given until now, and its sessions at once; its credential stays", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		return c.order(cmd.Context(), http.MethodPost, "/agents/"+url.PathEscape(args[0])+"/revoke", nil, "the tokens of agent "+args[0]+" count no more; it comes back with a new one")
	}}
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
		return c.credential(made, replacing(made))
	}}
	rotate.Flags().DurationVar(&keep, "keep", time.Hour, "how long the secret before it still holds; 0: not at all, and its tokens and sessions end at once")
	return rotate
}

// credential shows one, and what is done with its secret.
func (c *commandLine) credential(made api.Credential, then string) error {
	return c.show(made, func(w io.Writer) {
		secret := made.Secret + "   (shown this once)"
		if made.Secret == "" {
			secret = "kept by the issuer"
		}
		fmt.Fprintf(w, "agent:        %s\nclient id:    %s\nsecret:       %s\nissuer:       %s\naudience:     %s\nhub:          %s\n",
			clean(made.Agent), clean(made.ClientID), secret, clean(made.Issuer), made.Audience, made.Hub)
		if made.Secret != "" {
			fmt.Fprint(w, "\n", clean(then))
		}
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
					if len(a.Problems) > 0 {
						state += ", file refused"
					}
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
