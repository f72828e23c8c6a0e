package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"
	kubeconfig "k8s.io/client-go/tools/clientcmd/api"

	"towpath/api"
)

// linksCommand lists the links of a deployment.
func (c *commandLine) linksCommand() *cobra.Command {
	return &cobra.Command{Use: "previews ID", Short: "The links that the steps of a deployment have made to Services, and how long they last", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		return c.previews(cmd, "/deployments/"+url.PathEscape(args[0])+"/previews")
	}}
}

func (c *commandLine) previewCommand() *cobra.Command {
	preview := &cobra.Command{Use: "preview", Short: "What leads into clusters for a while"}
	preview.AddCommand(c.openCommand(), &cobra.Command{Use: "list", Short: "Links to Services, and ways to whole clusters, that hold now", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		return c.previews(cmd, "/previews")
	}}, &cobra.Command{Use: "revoke ID", Short: "End one now", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		return c.order(cmd.Context(), http.MethodDelete, "/previews/"+url.PathEscape(args[0]), nil, "it leads nowhere any more")
	}})
	return preview
}

func (c *commandLine) previews(cmd *cobra.Command, path string) error {
	var found struct{ Items []api.Preview }
	return c.list(cmd, path, &found, func() any { return found.Items }, func(w io.Writer) {
		fmt.Fprintln(w, "ID\tAGENT\tAPPLICATION\tTARGET\tSERVICE\tBY\tENDS\tUSED\tADDRESS")
		for _, p := range found.Items {
			used := "no"
			if p.Used != nil {
				used = p.Used.Local().Format(time.DateTime)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.ID, clean(p.Agent), clean(p.Application), clean(p.Target), clean(cmp.Or(p.Service, "(the cluster)")), clean(p.By),
				ends(p, time.Now()), used, p.Address)
		}
	})
}

// ends is how much longer a preview holds.
func ends(p api.Preview, now time.Time) string {
	switch left := p.Until.Sub(now).Round(time.Second); {
	case p.Revoked != nil:
		return "revoked"
	case !p.Holds || left <= 0:
		return "ended"
	default:
		return "in " + left.String()
	}
}

func (c *commandLine) openCommand() *cobra.Command {
	var kind, agent, file string
	var lasts time.Duration
	create := &cobra.Command{Use: "create --type cluster --agent NAME --duration 2h", Short: "Reach a cluster through its agent for a while, by a context of kubectl's", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		switch {
		case kind != "cluster":
			return fmt.Errorf("no type %q; there is cluster", kind)
		case agent == "":
			return errors.New("--agent is missing: through which the cluster is reached")
		case lasts < time.Minute || lasts >= 24*time.Hour:
			return fmt.Errorf("--duration is %s; from 1m to less than 24h", lasts)
		}
		to, err := c.client()
		if err != nil {
			return err
		}
		authorities, err := c.authorities()
		if err != nil {
			return err
		}
		var made api.ClusterPreview
		if err := to.Call(cmd.Context(), http.MethodPost, "/previews", api.NewPreview{Type: kind, Agent: agent, Seconds: int(lasts.Seconds())}, &made); err != nil {
			return err
		}
		name := "towpath-" + made.Agent
		if err := keep(file, name, made, authorities); err != nil {
			return fmt.Errorf("%w; end what was made with: towpath preview revoke %s", err, made.ID)
		}
		return c.show(made, func(w io.Writer) {
			fmt.Fprintf(w, "the context %s reaches the cluster of %s until %s, with the rights of the agent's ServiceAccount:\n  kubectl --context %s get pods\nto end it before:  towpath preview revoke %s\n",
				clean(name), clean(made.Agent), made.Until.UTC().Format("2006-01-02 15:04 UTC"), clean(name), made.ID)
		})
	}}
	create.Flags().StringVar(&kind, "type", "cluster", "what is reached: cluster")
	create.Flags().StringVar(&agent, "agent", "", "agent in the cluster")
	create.Flags().DurationVar(&lasts, "duration", 2*time.Hour, "how long, less than 24h")
	create.Flags().StringVar(&file, "kubeconfig", "", "file that gets the context; absent: as kubectl finds it")
	return create
}

// keep adds a context to a kubeconfig, in place of one of its name. What is current there stays so.
func keep(file, name string, made api.ClusterPreview, authorities []byte) error {
	options := clientcmd.NewDefaultPathOptions()
	options.LoadingRules.ExplicitPath = file
	config, err := options.GetStartingConfig()
	if err != nil {
		return fmt.Errorf("the context could not be added to the kubeconfig: %w", err)
	}
	config.Clusters[name] = &kubeconfig.Cluster{Server: made.Server, CertificateAuthorityData: authorities}
	config.AuthInfos[name] = &kubeconfig.AuthInfo{Token: made.Token}
	config.Contexts[name] = &kubeconfig.Context{Cluster: name, AuthInfo: name}
	if err := clientcmd.ModifyConfig(options, *config, false); err != nil {
		return fmt.Errorf("the context could not be added to the kubeconfig: %w", err)
	}
	return nil
}
