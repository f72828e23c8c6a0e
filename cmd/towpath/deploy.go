package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"towpath/api"
	"towpath/api/client"
	"towpath/deployment"
)

func (c *commandLine) deployCommand() *cobra.Command {
	deploy := &cobra.Command{Use: "deploy", Short: "Start, watch and steer deployments"}
	deploy.AddCommand(c.startCommand(), c.statusCommand(), c.listCommand(), c.callsCommand(), c.linksCommand(), c.cancelCommand(), c.rollbackCommand(),
		c.wordCommand("approve", "Give a target the approval that it waits for", "approved", "comment"),
		c.wordCommand("reject", "Refuse it: what is under way goes back", "rejected", "reason"),
		c.wordCommand("skip", "Pass a step that waits over", "skipped", "reason"),
		c.wordCommand("retry", "Try now what waits for its next try", "it is tried again now", "reason"))
	return deploy
}

// uploadFlags are those that start and plan share.
func uploadFlags(command *cobra.Command, u *api.Upload, file *string, context *[]string) {
	command.Flags().StringVarP(file, "file", "f", "", "deployment file")
	command.Flags().StringVarP(&u.Application, "application", "n", "", "name in place of the file's")
	command.Flags().StringArrayVarP(&u.Targets, "targetFilters", "t", nil, "deploy to this target only; may repeat")
	command.Flags().StringSliceVar(context, "add-context", nil, "values for {{context.NAME}}: k=v,k2=v2")
	command.Flags().StringVar(&u.Account, "account", "", "account of targets that name none")
}

func addContext(u *api.Upload, pairs []string) error {
	for _, pair := range pairs {
		name, value, found := strings.Cut(pair, "=")
		if !found {
			return fmt.Errorf("--add-context %q: write NAME=VALUE", pair)
		}
		if u.Context == nil {
			u.Context = map[string]string{}
		}
		u.Context[name] = value
	}
	return nil
}

// fill reads the deployment file and what it needs into an upload. With an error among the file's problems they are printed and nothing is sent; warnings
// are the controller's to tell.
func (c *commandLine) fill(ctx context.Context, u *api.Upload, file string) error {
	w, err := c.openWorkspace(file)
	if err != nil {
		return err
	}
	defer w.close()
	problems, err := w.upload(ctx, u)
	if err == nil && failed(problems) {
		c.warn(problems)
		err = errors.New("the deployment file is refused")
	}
	return err
}

// warn prints problems beside the output.
func (c *commandLine) warn(problems []deployment.Problem) {
	for _, p := range problems {
		fmt.Fprintln(c.err, clean(sentence(p)))
	}
}

func (c *commandLine) startCommand() *cobra.Command {
	var u api.Upload
	var file string
	var context []string
	var watch bool
	command := &cobra.Command{Use: "start -f FILE | -i ID", Short: "Deploy a file and the manifests it names, or an earlier deployment again", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		if (file == "") == (u.Repeat == "") {
			return errors.New("give -f FILE, or -i ID of a deployment to be started again")
		}
		if err := addContext(&u, context); err != nil {
			return err
		}
		for _, skip := range u.Skip {
			if !slices.Contains([]string{"dependsOn", "pauses", "approvals"}, skip) {
				return fmt.Errorf("--skip %q: write dependsOn, pauses or approvals", skip)
			}
		}
		if u.Emergency && u.Reason == "" {
			return errors.New("an emergency needs --reason")
		}
		to, err := c.client()
		if err != nil {
			return err
		}
		if file != "" {
			if err := c.fill(cmd.Context(), &u, file); err != nil {
				return err
			}
		}
		return c.start(cmd.Context(), to, u, watch)
	}}
	uploadFlags(command, &u, &file, &context)
	command.Flags().StringVarP(&u.Repeat, "pipelineId", "i", "", "id of a deployment to be started again, with its own file and manifests")
	command.Flags().StringVar(&u.Reason, "reason", "", "why, for history")
	command.Flags().BoolVar(&u.Emergency, "emergency", false, "deploy what Git owns too, and hold the result until Git changes it; needs the grant breakGlass, and --reason")
	command.Flags().StringSliceVar(&u.Skip, "skip", nil, "waits that an emergency passes over: dependsOn, pauses, approvals; may repeat")
	command.Flags().BoolVarP(&watch, "watch", "w", false, "wait for the end, showing progress")
	return command
}

func (c *commandLine) start(ctx context.Context, to *client.Client, u api.Upload, watch bool) error {
	var started api.Started
	if err := to.Once(ctx, http.MethodPost, "/deployments", u, &started); err != nil {
		var refusal *client.Error
		if errors.As(err, &refusal) && refusal.Type == api.UnderWay {
			return &exit{exitUnderWay, err}
		}
		return err
	}
	c.warn(started.Problems)
	if err := c.github(started.ID, started.Link, ""); err != nil {
		return err
	}
	return c.begun(ctx, to, started.ID, started.Link, started, watch)
}

// begun says what was started and, when that is wanted, waits for its end. Programs that read -o json get one document: of the start, or of the end.
func (c *commandLine) begun(ctx context.Context, to *client.Client, id, link string, started any, watch bool) error {
	if c.output != "text" && !watch {
		return c.show(started, nil)
	}
	c.line("Deployment ID: %s", id)
	c.line("See the deployment status UI: %s", link)
	if !watch {
		return nil
	}
	c.line("Waiting for deployment to complete. Status UI: %s", link)
	return c.finish(ctx, to, id, link)
}

// finish watches a deployment to its end; one that did not succeed is an error.
func (c *commandLine) finish(ctx context.Context, to *client.Client, id, link string) error {
	d, err := c.follow(ctx, to, id)
	if err != nil {
		return errors.Join(err, c.github(id, link, "UNKNOWN ("+err.Error()+")"))
	}
	c.line("Deployment %s completed with status: %s", id, d.State)
	if err := c.github(id, link, d.State); err != nil {
		return err
	}
	if c.output != "text" {
		if err := c.show(status(d), nil); err != nil {
			return err
		}
	}
	switch d.State {
	case "SUCCEEDED":
		return nil
	case "REJECTED":
		return &exit{exitUnderWay, errors.New(reasons(d))}
	}
	return &exit{exitFailed, errors.New(reasons(d))}
}

// reasons is why a deployment did not succeed, target by target.
func reasons(d api.Deployment) string {
	lines := []string{strings.TrimSuffix(fmt.Sprintf("deployment %s is %s: %s", d.ID, d.State, d.Why), ": ")}
	for _, t := range d.Targets {
		if t.State != "SUCCEEDED" {
			lines = append(lines, fmt.Sprintf("  %s is %s: %s", t.Name, t.State, t.Why))
		}
	}
	return strings.Join(lines, "\n")
}

// patience is how long a controller that does not answer is waited for: it may be starting anew.
const patience = 5 * time.Minute

// follow shows a deployment until it is over: a tree that is drawn anew on a terminal, lines elsewhere. A stream that is cut is taken up again.
func (c *commandLine) follow(ctx context.Context, to *client.Client, id string) (d api.Deployment, err error) {
	view := c.view()
	var last int64
	heard := time.Now()
	look := func() bool {
		if d, err = to.Deployment(ctx, id); err != nil {
			return false
		}
		heard = time.Now()
		view.show(d)
		return d.Ended == nil
	}
	for {
		if look() {
			err = to.Attend(ctx, id, last, func(e api.Event) bool {
				last = e.ID
				view.event(e)
				return look()
			}, view.beat)
		}
		switch {
		case err == nil && d.Ended != nil:
			return d, nil
		case client.Final(err), ctx.Err() != nil, time.Since(heard) > patience:
			return d, err
		}
		select {
		case <-ctx.Done():
			return d, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// github tells the steps of a GitHub job what was started, and how it ended.
func (c *commandLine) github(id, link, result string) error {
	if file := c.getenv("GITHUB_OUTPUT"); file != "" {
		text := fmt.Sprintf("DEPLOYMENT_ID=%s\nLINK=%s\n", id, link)
		if result != "" {
			text = "RUN_RESULT=" + strings.ReplaceAll(result, "\n", " ") + "\n"
		}
		if err := add(file, text); err != nil {
			return err
		}
	}
	if file := c.getenv("GITHUB_STEP_SUMMARY"); file != "" && result == "" {
		return add(file, fmt.Sprintf("[Deployment %s](%s)\n", id, link))
	}
	return nil
}

func add(file, text string) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func (c *commandLine) statusCommand() *cobra.Command {
	var id string
	var watch bool
	command := &cobra.Command{Use: "status [-i ID]", Short: "Show a deployment: the newest, or one by id", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		to, err := c.client()
		if err != nil {
			return err
		}
		if id == "" {
			var newest struct{ Items []api.Deployment }
			if err := to.Call(cmd.Context(), http.MethodGet, "/deployments?limit=1", nil, &newest); err != nil {
				return err
			}
			if len(newest.Items) == 0 {
				return errors.New("nothing was deployed yet")
			}
			id = newest.Items[0].ID
			if err := c.warnOfFiles(cmd.Context(), to); err != nil {
				return err
			}
		}
		d, err := to.Deployment(cmd.Context(), id)
		if err != nil {
			return err
		}
		if watch {
			return c.finish(cmd.Context(), to, d.ID, d.Link)
		}
		return c.show(status(d), func(w io.Writer) { fmt.Fprint(w, clean(tree(d))) })
	}}
	command.Flags().StringVarP(&id, "deploymentId", "i", "", "id of a deployment")
	command.Flags().BoolVarP(&watch, "watch", "w", false, "wait for the end, showing progress")
	return command
}

// warnOfFiles says which files are not deployed as they are now: what was deployed last says nothing of them.
func (c *commandLine) warnOfFiles(ctx context.Context, to *client.Client) error {
	var found struct{ Items []api.Source }
	if err := to.Call(ctx, http.MethodGet, "/sources", nil, &found); err != nil {
		return err
	}
	for _, s := range found.Items {
		for _, p := range s.Problems {
			if p.Severity == deployment.Error {
				fmt.Fprintf(c.err, "not deployed as it is now: %s\n", clean(sentence(p)))
			}
		}
		if s.Failure != "" {
			fmt.Fprintf(c.err, "source %s cannot be read: %s\n", clean(s.Name), clean(s.Failure))
		}
	}
	return nil
}

// listCommand lists deployments, the newest first.
func (c *commandLine) listCommand() *cobra.Command {
	var application string
	var limit int
	command := &cobra.Command{Use: "list", Short: "Deployments with their ids, the newest first", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		var found struct{ Items []api.Deployment }
		query := url.Values{"limit": {fmt.Sprint(limit)}}
		if application != "" {
			query.Set("application", application)
		}
		return c.list(cmd, "/deployments?"+query.Encode(), &found, func() any { return found.Items }, func(w io.Writer) {
			fmt.Fprintln(w, "ID\tAPPLICATION\tNUMBER\tSTATE\tBY\tTITLE")
			for _, d := range found.Items {
				fmt.Fprintf(w, "%s\t%s\t#%d\t%s\t%s\t%s\n", d.ID, clean(d.Application), d.Number, d.State, clean(d.By), clean(d.Title))
			}
		})
	}}
	command.Flags().StringVarP(&application, "application", "n", "", "those of this application")
	command.Flags().IntVar(&limit, "limit", 20, "how many at most")
	return command
}

// deploymentStatus is a deployment in the words that scripts know.
type deploymentStatus struct {
	ID           string            `json:"id"`
	Application  string            `json:"application"`
	Description  string            `json:"description,omitempty"`
	Status       string            `json:"status"`
	Started      *time.Time        `json:"startedAtIso8601,omitempty"`
	Completed    *time.Time        `json:"completedAtIso8601,omitempty"`
	Context      map[string]string `json:"context,omitempty"`
	InitiatedBy  string            `json:"initiatedBy"`
	Environments []string          `json:"environments"`
	Steps        []api.Target      `json:"steps"`
}

func status(d api.Deployment) deploymentStatus {
	s := deploymentStatus{ID: d.ID, Application: d.Application, Description: d.Description, Status: d.State, Started: d.Started, Completed: d.Ended, Context: d.Context,
		InitiatedBy: d.By, Environments: []string{}, Steps: d.Targets}
	for _, t := range d.Targets {
		s.Environments = append(s.Environments, t.Name)
	}
	return s
}

// wordCommand says a word to a target that waits. Its reason has the name that people expect beside the word.
func (c *commandLine) wordCommand(verb, short, done, because string) *cobra.Command {
	var w api.Word
	command := &cobra.Command{Use: verb + " ID [TARGET]", Short: short, Args: cobra.RangeArgs(1, 2), RunE: func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			w.Target = args[1]
		}
		return c.order(cmd.Context(), http.MethodPost, "/deployments/"+url.PathEscape(args[0])+"/"+verb, w, done)
	}}
	command.Flags().StringVar(&w.Gate, "gate", "", "only this one of what the target waits for, as status names it: canary.steps[1]")
	command.Flags().StringVar(&w.Reason, because, "", "why, for history")
	return command
}

func (c *commandLine) cancelCommand() *cobra.Command {
	var reason string
	command := &cobra.Command{Use: "cancel ID", Short: "Stop a deployment: what waits is cancelled, what is under way goes back", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		return c.order(cmd.Context(), http.MethodPost, "/deployments/"+url.PathEscape(args[0])+"/cancel", map[string]string{"reason": reason}, "it is told to stop; see: towpath deploy status -i "+args[0]+" --watch")
	}}
	command.Flags().StringVar(&reason, "reason", "", "why, for history")
	return command
}

// order sends what a person wants and says that it was taken.
func (c *commandLine) order(ctx context.Context, method, path string, body any, done string) error {
	to, err := c.client()
	if err != nil {
		return err
	}
	if err := to.Once(ctx, method, path, body, nil); err != nil {
		return err
	}
	return c.show(map[string]string{"done": done}, func(w io.Writer) { fmt.Fprintln(w, clean(done)) })
}

func (c *commandLine) rollbackCommand() *cobra.Command {
	var back api.Back
	var watch bool
	command := &cobra.Command{Use: "rollback APP [TARGET…]", Short: "Bring targets back to what was good before, or to an earlier deployment", Args: cobra.MinimumNArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		server, err := c.client()
		if err != nil {
			return err
		}
		var started struct{ ID string }
		if back.Targets = args[1:]; back.All && (back.To != "" || len(back.Targets) > 0) {
			return errors.New("--all goes with neither a target nor --to")
		}
		if err := server.Once(cmd.Context(), http.MethodPost, "/applications/"+url.PathEscape(args[0])+"/rollback", back, &started); err != nil {
			return err
		}
		d, err := server.Deployment(cmd.Context(), started.ID)
		if err != nil {
			return err
		}
		return c.begun(cmd.Context(), server, d.ID, d.Link, status(d), watch)
	}}
	command.Flags().StringVar(&back.To, "to", "", "id of the deployment to go back to")
	command.Flags().BoolVar(&back.All, "all", false, "stop the newest deployment, and undo all that it has done, the last target first")
	command.Flags().StringVar(&back.Reason, "reason", "", "why, for history")
	command.Flags().BoolVarP(&watch, "watch", "w", false, "wait for the end, showing progress")
	return command
}

func (c *commandLine) planCommand() *cobra.Command {
	var u api.Upload
	var file string
	var context []string
	var diff bool
	command := &cobra.Command{Use: "plan -f FILE", Short: "Say what a file would do; nothing starts", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		if err := addContext(&u, context); err != nil {
			return err
		}
		to, err := c.client()
		if err != nil {
			return err
		}
		if err := c.fill(cmd.Context(), &u, file); err != nil {
			return err
		}
		var plan api.Plan
		if err := to.Call(cmd.Context(), http.MethodPost, "/plans", u, &plan); err != nil {
			return err
		}
		err = c.show(plan, func(w io.Writer) {
			c.warn(plan.Problems)
			for _, t := range plan.Targets {
				printPlanned(w, t, diff)
			}
		})
		if err == nil && failed(plan.Problems) {
			err = &exit{exitFailed, errors.New("")}
		}
		return err
	}}
	uploadFlags(command, &u, &file, &context)
	command.Flags().BoolVar(&diff, "diff", false, "show what changes in each object; values of Secrets are left out")
	need(command, "file")
	return command
}

func printPlanned(w io.Writer, t api.PlannedTarget, diff bool) {
	if !t.Changed {
		fmt.Fprintf(w, "%s: unchanged\n", clean(t.Name))
		return
	}
	after := ""
	if len(t.DependsOn) > 0 {
		after = ", after " + strings.Join(t.DependsOn, ", ")
	}
	signs, counts := map[string]string{"added": "+", "changed": "~", "removed": "-"}, map[string]int{}
	for _, change := range t.Changes {
		counts[change.Kind]++
	}
	fmt.Fprintf(w, "%s on %s%s: +%d ~%d -%d\n", clean(t.Name), clean(t.Account), clean(after), counts["added"], counts["changed"], counts["removed"])
	for _, change := range t.Changes {
		fmt.Fprintf(w, "  %s %s\n", signs[change.Kind], clean(change.Object))
		if !diff {
			continue
		}
		for line := range strings.Lines(change.Diff) {
			fmt.Fprintf(w, "      %s\n", clean(strings.TrimSuffix(line, "\n")))
		}
		if change.Cut > 0 {
			fmt.Fprintf(w, "      … and %d lines more\n", change.Cut)
		}
	}
}
