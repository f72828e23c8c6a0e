package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"towpath/api"
	"towpath/deployment"
)

func (c *commandLine) analysisCommand() *cobra.Command {
	analysis := &cobra.Command{Use: "analysis", Short: "Metric queries of deployment files"}
	analysis.AddCommand(c.replayCommand())
	return analysis
}

// replayCommand tries a query of a file on the past.
func (c *commandLine) replayCommand() *cobra.Command {
	var r api.Replay
	var file, query, from, until string
	var every time.Duration
	var added []string
	command := &cobra.Command{Use: "replay -f FILE --query NAME --target TARGET", Short: "Say what a query of a file would have come to on earlier deployments, or in a time that has passed", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.asked(&r, file, query, added); err != nil {
				return err
			}
			if cmd.Flags().Changed("last") && from+until != "" {
				return errors.New("give --last, or --from and --until")
			}
			if err := period(&r, from, until, every); err != nil {
				return err
			}
			var found struct{ Items []api.Replayed }
			to, err := c.client()
			if err != nil {
				return err
			}
			if err := to.Call(cmd.Context(), http.MethodPost, "/analysis/replay", r, &found); err != nil {
				return err
			}
			return c.table(found.Items, func(w io.Writer) {
				fmt.Fprintln(w, "DEPLOYMENT\tFROM\tUNTIL\tVERDICT\tVALUE\tREASON")
				for _, run := range found.Items {
					fmt.Fprintf(w, "#%d\t%s\t%s\t%s\t%s\t%s\n", run.Number, run.From.Local().Format(time.DateTime), run.Until.Local().Format(time.DateTime), run.Verdict, value(run.Value), clean(says(run.Reason, run.Unfilled)))
				}
			})
		}}
	command.Flags().StringVarP(&file, "file", "f", "", "deployment file")
	command.Flags().StringVar(&query, "query", "", "name of the query in the file")
	command.Flags().StringVar(&r.Target, "target", "", "whose deployments, or whose values of variables")
	command.Flags().StringVarP(&r.Application, "application", "n", "", "name in place of the file's")
	command.Flags().StringVar(&r.Provider, "provider", "", "metric provider in place of the file's")
	command.Flags().IntVar(&r.Last, "last", 5, "so many deployments, each from its start to its end")
	command.Flags().StringVar(&from, "from", "", "in place of --last: the beginning of a time, as 2026-03-02T09:00:00Z")
	command.Flags().StringVar(&until, "until", "", "and its end")
	command.Flags().DurationVar(&every, "every", 5*time.Minute, "how long one run of that time looks back")
	command.Flags().StringSliceVar(&added, "add-context", nil, "values for {{context.NAME}}: k=v,k2=v2")
	for _, name := range []string{"file", "query", "target"} {
		if err := command.MarkFlagRequired(name); err != nil {
			panic(err) // the flag is there
		}
	}
	return command
}

// asked fills in what the file says of a query.
func (c *commandLine) asked(r *api.Replay, name, query string, added []string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	file, problems := deployment.Parse(name, text)
	c.warn(problems)
	if file == nil {
		return errors.New("the deployment file is refused")
	}
	said := file.Query(query)
	if said == nil {
		var known []string
		if file.Analysis != nil {
			for _, q := range file.Analysis.Queries {
				known = append(known, q.Name)
			}
		}
		return fmt.Errorf("%s has no query %q; it has %s", name, query, cmp.Or(strings.Join(known, ", "), "none"))
	}
	var upload api.Upload
	if err := addContext(&upload, added); err != nil {
		return err
	}
	r.Template, r.Lower, r.Upper = said.Template, said.LowerLimit, said.UpperLimit
	r.Context = deployment.Contexts(file.Context, file.ContextOverrides, upload.Context)
	r.Application = cmp.Or(r.Application, file.Application)
	if r.Provider = cmp.Or(r.Provider, said.MetricProvider, file.Analysis.DefaultMetricProvider); r.Provider == "" {
		return fmt.Errorf("query %s names no metric provider, and the file has no default; give --provider", query)
	}
	return nil
}

// period puts a time in the place of deployments.
func period(r *api.Replay, from, until string, every time.Duration) error {
	if from == "" && until == "" {
		return nil
	}
	for flag, at := range map[string]struct {
		text string
		into **time.Time
	}{"--from": {from, &r.From}, "--until": {until, &r.Until}} {
		moment, err := time.Parse(time.RFC3339, at.text)
		if err != nil {
			return fmt.Errorf("%s %q: write a time as 2026-03-02T09:00:00Z", flag, at.text)
		}
		*at.into = &moment
	}
	if !r.From.Before(*r.Until) || every < time.Second {
		return errors.New("--from has to lie before --until, and --every is a second or more")
	}
	r.Last, r.Every = 0, int(every.Seconds())
	return nil
}
