package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"towpath/cluster"
	"towpath/deployment"
	"towpath/reconcile/rollout"
	"towpath/reconcile/simulate"
	"towpath/render"
)

// readyAfter is a guess: an image that is pulled, a program that starts, a probe that passes.
const readyAfter = 30 * time.Second

// simulation is what flags say of one.
type simulation struct {
	file, answers, from string
	targets             []string
	readyAfter          time.Duration
	nobody, first       bool
}

func (c *commandLine) simulateCommand() *cobra.Command {
	var s simulation
	command := &cobra.Command{Use: "simulate -f FILE", Short: "Say which target would start when, and what it would wait for; no cluster, no controller", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.simulate(cmd.Context(), s) }}
	flags := command.Flags()
	flags.StringVarP(&s.file, "file", "f", "", "deployment file")
	flags.StringArrayVarP(&s.targets, "targetFilters", "t", nil, "simulate this target only; may repeat")
	flags.StringVar(&s.answers, "answers", "", "file that says what people, pods and agents do")
	flags.StringVar(&s.from, "from", "", "when it begins, as 2026-03-02T09:00:00Z (now)")
	flags.DurationVar(&s.readyAfter, "ready-after", readyAfter, "how long pods take to become ready")
	flags.BoolVar(&s.nobody, "nobody", false, "nobody gives an approval that --answers does not name; without it people approve at once")
	flags.BoolVar(&s.first, "first", false, "nothing runs yet, so that the strategy's steps are passed over; without it an earlier version runs")
	need(command, "file")
	return command
}

func (c *commandLine) simulate(ctx context.Context, s simulation) error {
	w, err := c.openWorkspace(s.file)
	if err != nil {
		return err
	}
	defer w.close()
	file, problems := deployment.Parse(s.file, w.text)
	if file != nil {
		problems = append(problems, s.choose(file)...)
	}
	if failed(problems) {
		return c.refuse(problems)
	}
	targets, standIns, found, err := w.simulated(ctx, file)
	if problems = append(problems, found...); err != nil {
		return err
	}
	assumed, wrong, err := s.assumptions(targets)
	if err != nil {
		return err
	}
	if problems = append(problems, wrong...); failed(problems) {
		return c.refuse(problems)
	}
	c.warn(problems)
	shown := timeline{file: file, assumed: assumed, standIns: standIns, Result: simulate.Run(targets, assumed)}
	return c.show(shown.document(), shown.print)
}

// refuse prints problems of which one is an error.
func (c *commandLine) refuse(problems []deployment.Problem) error {
	c.warn(problems)
	return &exit{exitFailed, errors.New("")}
}

// choose leaves the targets that flags name.
func (s simulation) choose(file *deployment.File) (problems []deployment.Problem) {
	if len(s.targets) > 0 {
		file.TargetFilters = s.targets
	}
	var known []string
	for _, t := range file.Targets {
		known = append(known, t.Name)
	}
	for _, name := range file.TargetFilters {
		if !slices.Contains(known, name) {
			problems = append(problems, deployment.Problem{File: file.Path, Field: "targetFilters", Line: 1, Column: 1, Severity: deployment.Error,
				Text: fmt.Sprintf("no target %q", name), Suggestion: deployment.Nearest(name, known)})
		}
	}
	return problems
}

// simulated is the targets of a file with their manifests. Those whose manifests cannot be rendered here have a stand-in, for the reason given.
func (w *workspace) simulated(ctx context.Context, file *deployment.File) (targets []simulate.Target, standIns map[string]string, problems []deployment.Problem, err error) {
	standIns = map[string]string{}
	here := *file
	here.Path = w.path
	for _, t := range file.Chosen() {
		target := simulate.Target{Name: t.Name, Account: t.Account, Namespace: t.Namespace, Way: rollout.WayOf(file, t, false)}
		result, err := w.pool.Render(ctx, render.Request{Tree: w.tree, File: &here, Target: t.Name})
		if err != nil {
			return nil, nil, nil, err
		}
		if why := firstError(result.Problems); why != "" {
			standIns[t.Name] = why
			target.Set = simulate.StandIn(file.Application, t.Namespace)
		} else if target.Set, err = (cluster.Reviser{}).Names(result.Objects); err != nil {
			return nil, nil, nil, err
		} else if len(target.Set.Revisions) > 0 {
			problems = append(problems, file.CheckStrategy(t.Name)...)
		}
		targets = append(targets, target)
	}
	return targets, standIns, problems, nil
}

func firstError(problems []deployment.Problem) string {
	for _, p := range problems {
		if p.Severity == deployment.Error {
			return p.Text
		}
	}
	return ""
}

// assumptions is what flags and the file of answers say. The limits are those of a controller whose configuration says nothing of them.
func (s simulation) assumptions(targets []simulate.Target) (a simulate.Assumptions, problems []deployment.Problem, err error) {
	if a.From, err = s.begins(); err != nil {
		return a, nil, err
	}
	if s.readyAfter < 0 {
		return a, nil, fmt.Errorf("--ready-after %s: pods cannot be ready before they are asked for", s.readyAfter)
	}
	var text []byte
	if s.answers != "" {
		if text, err = os.ReadFile(s.answers); err != nil {
			return a, nil, err
		}
	}
	a.ReadyAfter, a.First = s.readyAfter, s.first
	a.Limits = rollout.Limits{Removals: 10, Shrink: 0.3, Keep: 3, Replaced: 3, Away: time.Minute, Yield: time.Minute}
	if a.Answers, problems = simulate.Read(s.answers, text, targets); s.nobody {
		a.Otherwise = simulate.Answer{}
	}
	return a, problems, nil
}

func (s simulation) begins() (time.Time, error) {
	if s.from == "" {
		return time.Now().UTC().Truncate(time.Minute), nil
	}
	from, err := time.Parse(time.RFC3339, s.from)
	if err != nil {
		return from, fmt.Errorf("--from %q: write a time as 2026-03-02T09:00:00Z", s.from)
	}
	return from.UTC(), nil
}

// timeline is a simulation to be shown.
type timeline struct {
	file     *deployment.File
	assumed  simulate.Assumptions
	standIns map[string]string // by target: why
	simulate.Result
}

// print shows it to people: what is taken for granted, line by line what happens, and what became of each target.
func (l timeline) print(out io.Writer) {
	fmt.Fprintf(out, "%s from %s. %s\n", clean(l.file.Application), minute(l.assumed.From), clean(strings.Join(l.granted(), " ")))
	for _, t := range l.Targets {
		if why, standsIn := l.standIns[t.Name]; standsIn {
			fmt.Fprintf(out, "%s has a stand-in, one Deployment object, since its manifests cannot be rendered here: %s\n", clean(t.Name), clean(why))
		}
	}
	fmt.Fprintln(out)
	table := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	for _, line := range l.Lines {
		fmt.Fprintf(table, "%s\t%s\t%s\n", l.after(line.At), clean(line.Target), clean(line.Text))
	}
	table.Flush()
	fmt.Fprintln(out)
	fmt.Fprintln(table, "TARGET\tSTATE\tSTARTS\tREACHED\tENDS\tPEOPLE\tPAUSES\tPODS")
	for _, t := range l.Targets {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", clean(t.Name), t.State, l.after(t.Started), l.after(t.Reached), l.after(t.Ended), t.People, t.Pauses, t.Pods)
	}
	table.Flush()
	fmt.Fprintln(out)
	for _, t := range l.last() {
		fmt.Fprintln(out, clean(l.reached(t)))
	}
}

// granted is what is taken for granted, as sentences.
func (l timeline) granted() []string {
	people := "Nobody answers"
	if o := l.assumed.Otherwise; o.Verb != "" {
		people = fmt.Sprintf("People %s as soon as they are asked", o.Verb)
		if o.After > 0 {
			people = fmt.Sprintf("People %s %s after they are asked", o.Verb, o.After)
		}
	}
	if len(l.assumed.Targets) > 0 {
		people += ", unless the answers say otherwise"
	}
	runs := "An earlier version, #1, runs on each target."
	if l.assumed.First {
		runs = "Nothing runs yet."
	}
	return []string{fmt.Sprintf("Pods are ready after %s.", l.assumed.ReadyAfter), people + ".", runs}
}

// last is the targets that no other depends on: what a deployment is made for.
func (l timeline) last() []simulate.Report {
	return slices.DeleteFunc(slices.Clone(l.Targets), func(r simulate.Report) bool {
		return slices.ContainsFunc(l.file.Chosen(), func(t deployment.Target) bool { return slices.Contains(t.DependsOn, r.Name) })
	})
}

func (l timeline) reached(t simulate.Report) string {
	switch {
	case !t.Reached.IsZero():
		return fmt.Sprintf("%s is reached at the earliest at %s, %s after the beginning.", t.Name, minute(t.Reached), t.Reached.Sub(l.assumed.From))
	case t.Ended.IsZero() && len(t.Waits) > 0:
		return fmt.Sprintf("%s is not reached: it waits without end for %s.", t.Name, t.Waits[0].Needs)
	}
	return fmt.Sprintf("%s is not reached: it is %s, %s.", t.Name, t.State, t.Why)
}

// after is how long after the beginning something happens; "-" when it never does.
func (l timeline) after(at time.Time) string {
	if at.IsZero() {
		return "-"
	}
	return "+" + at.Sub(l.assumed.From).String()
}

func minute(at time.Time) string { return at.Format("2006-01-02 15:04 UTC") }

// simulatedDeployment is a simulation for programs. Times are of the clock, and in seconds after the beginning where they are called so.
type simulatedDeployment struct {
	Application string            `json:"application"`
	From        time.Time         `json:"from"`
	ReadyAfter  float64           `json:"readyAfterSeconds"`
	State       rollout.State     `json:"state"`
	StandIns    map[string]string `json:"standIns,omitempty"`
	Targets     []simulatedTarget `json:"targets"`
	Lines       []simulatedLine   `json:"timeline"`
}

type simulatedTarget struct {
	Name    string        `json:"name"`
	State   rollout.State `json:"state"`
	Why     string        `json:"why,omitempty"`
	Started *time.Time    `json:"startsAt,omitempty"`
	Reached *time.Time    `json:"reachedAt,omitempty"`
	Ended   *time.Time    `json:"endsAt,omitempty"`
	People  float64       `json:"waitsForPeopleSeconds"`
	Pauses  float64       `json:"waitsForPausesSeconds"`
	Pods    float64       `json:"waitsForPodsSeconds"`
	Waits   []string      `json:"waitsWithoutEndFor,omitempty"`
}

type simulatedLine struct {
	At     time.Time `json:"at"`
	After  float64   `json:"afterSeconds"`
	Target string    `json:"target"`
	Text   string    `json:"text"`
}

func (l timeline) document() simulatedDeployment {
	d := simulatedDeployment{Application: l.file.Application, From: l.assumed.From, ReadyAfter: l.assumed.ReadyAfter.Seconds(), State: l.State, StandIns: l.standIns,
		Targets: []simulatedTarget{}, Lines: []simulatedLine{}}
	for _, t := range l.Targets {
		shown := simulatedTarget{Name: t.Name, State: t.State, Why: t.Why, Started: some(t.Started), Reached: some(t.Reached), Ended: some(t.Ended),
			People: t.People.Seconds(), Pauses: t.Pauses.Seconds(), Pods: t.Pods.Seconds()}
		for _, w := range t.Waits {
			shown.Waits = append(shown.Waits, w.Needs)
		}
		d.Targets = append(d.Targets, shown)
	}
	for _, line := range l.Lines {
		d.Lines = append(d.Lines, simulatedLine{line.At, line.At.Sub(l.assumed.From).Seconds(), line.Target, line.Text})
	}
	return d
}

// some is a time, nil for none.
func some(at time.Time) *time.Time {
	if at.IsZero() {
		return nil
	}
	return &at
}
